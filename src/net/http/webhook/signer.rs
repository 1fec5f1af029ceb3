//! Signatures in the form of Standard Webhooks 1.0 (<https://www.standardwebhooks.com>): HMAC-SHA256 over the id, the
//! time and the body, so that a receiver knows who has sent a request, and when.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sabir_model::base64;
use sha2::{Digest as _, Sha256};

/// What a secret begins with.
pub(super) const PREFIX: &str = "whsec_";
/// Bytes of a secret: from 192 to 512 bits, as the specification wants.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// One secret.
#[derive(Clone)]
pub(super) struct Secret(Vec<u8>);

impl Secret {
    /// Reads `whsec_` and base64.
    ///
    /// # Errors
    /// A sentence that does not repeat it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| base64::decode(text.as_bytes()));
        match bytes {
            Some(bytes) if SECRET_BYTES.contains(&bytes.len()) => Ok(Self(bytes)),
            _ => Err("a secret is whsec_ and the base64 of 24 to 64 random bytes"),
        }
    }

    /// The signature: `v1,` and base64.
    fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        let mut out = b"v1,".to_vec();
        base64::encode(&mac.finalize().into_bytes(), &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

/// The signatures of all secrets, with blanks between them: while one is being replaced receivers may know either.
pub(super) fn signatures(secrets: &[Secret], id: &str, seconds: u64, body: &[u8]) -> String {
    let signed: Vec<String> = secrets.iter().map(|secret| secret.sign(id, seconds, body)).collect();
    signed.join(" ")
}

/// What a webhook calls a message: the same at every attempt, also after a restart, and another for another webhook.
pub(super) fn message_id(virtual_host: &str, webhook: &str, message: &str) -> String {
    let mut hash = Sha256::new();
    for part in [virtual_host, webhook, message] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    digest.iter().take(16).fold("msg_".to_owned(), |id, byte| id + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_libraries_of_standard_webhooks() {
        // The vector that those libraries test themselves with.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let both = [secret, Secret::parse(&format!("whsec_{}", "QUJD".repeat(8))).unwrap()];
        let all = signatures(&both, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert!(all.starts_with(&format!("{signature} v1,")), "{all}");
    }

    #[test]
    fn a_secret_that_is_none_is_refused() {
        for text in [
            "",
            "whsec_",
            "whsec_QUJD",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_%%%%",
            &format!("whsec_{}", "QUJD".repeat(22)),
        ] {
            assert!(Secret::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_is_the_same_again_and_each_has_its_own() {
        let id = message_id("/", "hook", "ID:1");
        assert_eq!(id, message_id("/", "hook", "ID:1"));
        assert_eq!(id.len(), "msg_".len() + 32);
        for other in [("x", "hook", "ID:1"), ("/", "hoo", "kID:1"), ("/", "hook", "ID:2")] {
            assert_ne!(id, message_id(other.0, other.1, other.2));
        }
    }
}
