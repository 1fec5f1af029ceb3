//! SCRAM-SHA-256 (RFC 5802, RFC 7677): a user proves to know the password without sending it, and the server proves to
//! have its verifier. This module owns what is kept of a password and the server's side as a value: messages in,
//! messages out. Who counts the attempts and what a refusal says is `exchange`'s affair; where verifiers are kept,
//! `users`'.
//!
//! Channel binding is absent: `n` and `y` are accepted, `p=` is not.

use std::fmt;

use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sabir_model::base64;
use sha2::{Digest as _, Sha256};

/// The registered name.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

/// What new verifiers cost. Logging in costs the server a few hashes whatever the number; the client pays, once per
/// login, a few milliseconds on a desktop and a second or more on a small device, and whoever stole the users file pays
/// it per guess. RFC 7677 asks for 4096 at least and suggests 15000; more would shut small devices out, and would still
/// be weaker than Argon2id, which the client cannot be asked to compute.
pub(crate) const ITERATIONS: u32 = 15_000;
/// The least that a verifier may have (RFC 7677 §4).
const ITERATIONS_MIN: u32 = 4096;
/// The most: a slip in the users file must not keep clients computing for minutes.
const ITERATIONS_MAX: u32 = 10_000_000;

const SALT_BYTES: usize = 16;
const SALT_BYTES_MAX: usize = 64;
/// A multiple of three, so that base64 needs no padding.
const NONCE_BYTES: usize = 18;
/// Longest message of a client: the longest user name, each byte escaped, and a generous nonce.
const MESSAGE_BYTES_MAX: usize = 2048;

type Key = [u8; 32];

/// Why an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The message is not what the mechanism says it must be.
    Unreadable,
    /// The client insists on channel binding.
    ChannelBinding,
    /// The client insists on an extension.
    Extension,
    /// It is the wrong user, the wrong password, or the answer to another challenge.
    Wrong,
}

/// What is kept of a password: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Key,
    server_key: Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Derives one from `password` with a fresh salt.
    pub(crate) fn new(password: &[u8], iterations: u32) -> Result<Self, String> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)
            .map_err(|error| format!("the system's random numbers are not to be had: {error}"))?;
        Ok(Self::salted(&prepared(password)?, &salt, iterations))
    }

    fn salted(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password.as_bytes(), salt, iterations);
        let stored_key = Sha256::digest(mac(&salted, &[b"Client Key"])).into();
        Self { salt: salt.to_vec(), iterations, stored_key, server_key: mac(&salted, &[b"Server Key"]) }
    }

    /// Reads the text form, which is PostgreSQL's: `SCRAM-SHA-256$15000:<salt>$<StoredKey>:<ServerKey>`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let shape = || format!("is not of the form {MECHANISM}$iterations:salt$key:key");
        let (cost, keys) = text
            .strip_prefix(MECHANISM)
            .and_then(|rest| rest.strip_prefix('$')?.split_once('$'))
            .ok_or_else(shape)?;
        let (iterations, salt) = cost.split_once(':').ok_or_else(shape)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or_else(shape)?;
        let key = |text: &str| base64::decode(text.as_bytes()).and_then(|bytes| Key::try_from(bytes).ok());
        let iterations = iterations.parse().map_err(|_| shape())?;
        let salt = base64::decode(salt.as_bytes()).ok_or_else(shape)?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!("has fewer than {ITERATIONS_MIN} or more than {ITERATIONS_MAX} iterations"));
        }
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(format!("has no salt or one of more than {SALT_BYTES_MAX} bytes"));
        }
        let stored_key = key(stored_key).ok_or_else(shape)?;
        let server_key = key(server_key).ok_or_else(shape)?;
        Ok(Self { salt, iterations, stored_key, server_key })
    }

    /// The text form.
    pub(crate) fn to_text(&self) -> String {
        let [salt, stored, server] = [&self.salt[..], &self.stored_key, &self.server_key].map(encoded);
        format!("{MECHANISM}${}:{salt}${stored}:{server}", self.iterations)
    }

    /// Whether `proof` proves the password for the exchange `said`.
    fn accepts(&self, proof: &Key, said: &[&[u8]]) -> bool {
        let mut client_key = mac(&self.stored_key, said);
        xor(&mut client_key, proof);
        // In constant time: how much of a wrong key is right must not show.
        CtOutput::<Sha256>::new(Sha256::digest(client_key)) == CtOutput::new(self.stored_key.into())
    }
}

/// Makes up verifiers for names that have none, so that a name cannot be probed: the same name gets the same salt as
/// long as the process runs, and nobody can tell it from a real one.
pub(crate) struct Pretender {
    secret: Key,
    iterations: u32,
}

impl Pretender {
    pub(crate) fn new(iterations: u32) -> Result<Self, getrandom::Error> {
        let mut secret = Key::default();
        getrandom::fill(&mut secret)?;
        Ok(Self { secret, iterations })
    }

    /// No proof is known that this accepts: it would have to be found by inverting the hash.
    fn verifier(&self, name: &str) -> Verifier {
        let derived = |what: &[u8]| mac(&self.secret, &[what, name.as_bytes()]);
        let mut salt = derived(b"salt ").to_vec();
        salt.truncate(SALT_BYTES);
        let (stored_key, server_key) = (derived(b"stored "), derived(b"server "));
        Verifier { salt, iterations: self.iterations, stored_key, server_key }
    }
}

/// A server's nonce. Each is used once.
pub(crate) fn nonce() -> Result<String, getrandom::Error> {
    let mut bytes = [0; NONCE_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(encoded(&bytes))
}

/// The exchange after the server's first message: it waits for the proof.
pub(crate) struct Challenged {
    user: Box<str>,
    /// Whether the user exists and has a verifier; if not, `verifier` is made up.
    real: bool,
    verifier: Verifier,
    /// What the client said about channel binding: it must say it again, under its proof.
    header: Box<str>,
    /// The client's and ours, one after the other.
    nonce: Box<str>,
    /// Both first messages as the proof covers them.
    said: String,
}

/// Takes the client's first message and gives the server's. `nonce` is ours, from [`nonce`].
pub(crate) fn start(
    client_first: &[u8],
    nonce: &str,
    find: impl FnOnce(&str) -> Option<Verifier>,
    pretender: &Pretender,
) -> Result<(Vec<u8>, Challenged), Fault> {
    let text = readable(client_first)?;
    let (binding, rest) = text.split_once(',').ok_or(Fault::Unreadable)?;
    match binding {
        // A client that says `y` could bind and believes that we cannot, which is so.
        "n" | "y" => {}
        _ if binding.starts_with("p=") => return Err(Fault::ChannelBinding),
        _ => return Err(Fault::Unreadable),
    }
    let (identity, bare) = rest.split_once(',').ok_or(Fault::Unreadable)?;
    let header = text.strip_suffix(bare).ok_or(Fault::Unreadable)?;
    if bare.starts_with("m=") {
        return Err(Fault::Extension);
    }
    let mut attributes = bare.split(',');
    let user = attributes.next().and_then(|name| unescaped(name.strip_prefix("n=")?));
    let user = user.ok_or(Fault::Unreadable)?;
    let client_nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
    let client_nonce = client_nonce.filter(|nonce| is_nonce(nonce)).ok_or(Fault::Unreadable)?;
    if !attributes.all(is_attribute) {
        return Err(Fault::Unreadable);
    }
    if !identity.is_empty() {
        let identity = identity.strip_prefix("a=").and_then(unescaped).ok_or(Fault::Unreadable)?;
        if identity != user {
            return Err(Fault::Wrong);
        }
    }
    // Made up for everybody, so that nobody's answer takes longer.
    let made_up = pretender.verifier(&user);
    let (verifier, real) = match find(&user) {
        Some(verifier) => (verifier, true),
        None => (made_up, false),
    };
    let nonce = format!("{client_nonce}{nonce}");
    let server_first = format!("r={nonce},s={},i={}", encoded(&verifier.salt), verifier.iterations);
    let challenged = Challenged {
        user: user.into(),
        real,
        verifier,
        header: header.into(),
        nonce: nonce.into(),
        said: format!("{bare},{server_first}"),
    };
    Ok((server_first.into_bytes(), challenged))
}

impl Challenged {
    /// The name that is claimed.
    pub(crate) fn claimed(&self) -> &str {
        &self.user
    }

    /// Takes the client's last message; gives the user and the server's last one.
    pub(crate) fn finish(self, client_final: &[u8]) -> Result<(Box<str>, Vec<u8>), Fault> {
        let text = readable(client_final)?;
        let (unproved, proof) = text.rsplit_once(",p=").ok_or(Fault::Unreadable)?;
        let proof = base64::decode(proof.as_bytes()).and_then(|proof| Key::try_from(proof).ok());
        let proof = proof.ok_or(Fault::Unreadable)?;
        let mut attributes = unproved.split(',');
        let header =
            attributes.next().and_then(|header| base64::decode(header.strip_prefix("c=")?.as_bytes()));
        let header = header.ok_or(Fault::Unreadable)?;
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(Fault::Unreadable)?;
        if !attributes.all(is_attribute) {
            return Err(Fault::Unreadable);
        }
        // Neither is a secret: both went over the wire.
        if header != self.header.as_bytes() || *nonce != *self.nonce {
            return Err(Fault::Wrong);
        }
        let said = [self.said.as_bytes(), b",", unproved.as_bytes()];
        let accepted = self.verifier.accepts(&proof, &said);
        if !(accepted && self.real) {
            return Err(Fault::Wrong);
        }
        let signature = mac(&self.verifier.server_key, &said);
        Ok((self.user, format!("v={}", encoded(&signature)).into_bytes()))
    }
}

/// A password as the client derives keys from it: SASLprep (RFC 4013) as far as it needs no tables of Unicode. Blanks of
/// other scripts become spaces, what is invisible goes, control characters are refused. Left out: normalisation (NFKC),
/// the other prohibited characters, and the checks of right-to-left text. So a password that is not in normal form
/// already, such as one with a ligature or a separate accent, is not one that clients with the whole of SASLprep can use.
fn prepared(password: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(password).map_err(|_| "a password must be UTF-8")?;
    if text.chars().any(char::is_control) {
        return Err("a password cannot hold control characters".to_owned());
    }
    let text: String = text
        .chars()
        .filter_map(|char| match char {
            '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
                Some(' ')
            }
            '\u{ad}' | '\u{34f}' | '\u{1806}' | '\u{180b}'..='\u{180d}' | '\u{200c}' | '\u{200d}' => None,
            '\u{2060}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => None,
            other => Some(other),
        })
        .collect();
    if text.is_empty() {
        return Err("a password cannot be empty or invisible".to_owned());
    }
    Ok(text)
}

fn readable(message: &[u8]) -> Result<&str, Fault> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Fault::Unreadable);
    }
    std::str::from_utf8(message)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
        .ok_or(Fault::Unreadable)
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An optional attribute: a letter, `=` and something.
fn is_attribute(text: &str) -> bool {
    matches!(text.as_bytes(), [name, b'=', _, ..] if name.is_ascii_alphabetic())
}

/// A name with `=2C` and `=3D` as `,` and `=`; `None` if it is empty or an `=` means nothing.
fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('=');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (char, rest) = match piece.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        name.push(char);
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    base64::encode(bytes, &mut text);
    String::from_utf8(text).expect("base64 is ASCII")
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn xor(sum: &mut Key, other: &Key) {
    for (byte, other) in sum.iter_mut().zip(other) {
        *byte ^= other;
    }
}

/// `Hi` of RFC 5802 §2.2, which is PBKDF2 with one block of output.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let keyed = keyed(password);
    let next = |parts: &[&[u8]]| -> Key {
        let mut mac = keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    };
    let mut block = next(&[salt, &1_u32.to_be_bytes()]);
    let mut sum = block;
    for _ in 1..iterations {
        block = next(&[&block]);
        xor(&mut sum, &block);
    }
    sum
}

/// The other side, for tests: the last message of a client that began with `client_first`.
#[cfg(test)]
pub(crate) fn answer(client_first: &str, server_first: &[u8], password: &str) -> String {
    let server_first = std::str::from_utf8(server_first).expect("the server speaks ASCII");
    let mut attributes = server_first.split(',');
    let mut attribute =
        |name| attributes.next().and_then(|text| text.strip_prefix(name)).expect("in this order");
    let (nonce, salt, iterations) = (attribute("r="), attribute("s="), attribute("i="));
    let salt = base64::decode(salt.as_bytes()).expect("a salt in base64");
    let salted = salted_password(password.as_bytes(), &salt, iterations.parse().expect("a number"));
    let bare_at = client_first.match_indices(',').nth(1).expect("a header of two parts").0 + 1;
    let (header, bare) = client_first.split_at(bare_at);
    let unproved = format!("c={},r={nonce}", encoded(header.as_bytes()));
    let mut proof = mac(&salted, &[b"Client Key"]);
    let stored_key: Key = Sha256::digest(proof).into();
    xor(&mut proof, &mac(&stored_key, &[format!("{bare},{server_first},{unproved}").as_bytes()]));
    format!("{unproved},p={}", encoded(&proof))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::LazyLock;

    use super::*;

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const OURS: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    static PENCIL: LazyLock<Verifier> = LazyLock::new(|| {
        Verifier::salted("pencil", &base64::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096)
    });

    fn pretender() -> Pretender {
        Pretender { secret: [7; 32], iterations: 4096 }
    }

    fn begin(first: &str, ours: &str) -> Result<(String, Challenged), Fault> {
        let find = |name: &str| ["user", "a=b,c", "ü"].contains(&name).then(|| PENCIL.clone());
        let (data, challenged) = start(first.as_bytes(), ours, find, &pretender())?;
        Ok((String::from_utf8(data).unwrap(), challenged))
    }

    fn finish(first: &str, last: &str) -> Result<(Box<str>, Vec<u8>), Fault> {
        begin(first, OURS)?.1.finish(last.as_bytes())
    }

    /// Both sides; the name that is proved.
    fn exchange(first: &str, password: &str) -> Result<Box<str>, Fault> {
        let (challenge, challenged) = begin(first, OURS)?;
        challenged.finish(answer(first, challenge.as_bytes(), password).as_bytes()).map(|(user, _)| user)
    }

    #[test]
    fn the_example_of_the_specification_holds_rfc7677_3() {
        let (challenge, challenged) = begin(FIRST, OURS).unwrap();
        assert_eq!(
            challenge,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(answer(FIRST, challenge.as_bytes(), "pencil"), FINAL);
        let (user, data) = challenged.finish(FINAL.as_bytes()).unwrap();
        assert_eq!(&*user, "user");
        assert_eq!(data, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn one_changed_bit_anywhere_in_the_last_message_is_refused() {
        assert!(finish(FIRST, FINAL).is_ok());
        for at in 0..FINAL.len() {
            for bit in 0..8 {
                let mut last = FINAL.as_bytes().to_vec();
                last[at] ^= 1 << bit;
                let (_, challenged) = begin(FIRST, OURS).unwrap();
                assert!(challenged.finish(&last).is_err(), "bit {bit} of byte {at}");
            }
        }
        for cut in 0..FINAL.len() {
            assert!(finish(FIRST, &FINAL[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_proof_for_another_password_or_another_exchange_is_wrong() {
        assert_eq!(exchange(FIRST, "pencil").as_deref(), Ok("user"));
        assert_eq!(exchange(FIRST, "Pencil"), Err(Fault::Wrong));
        let (_, other) = begin(FIRST, "another").unwrap();
        assert_eq!(other.finish(FINAL.as_bytes()).unwrap_err(), Fault::Wrong, "heard before, sent again");
        let theirs_only = FINAL.replace(OURS, "");
        assert_eq!(finish(FIRST, &theirs_only).unwrap_err(), Fault::Wrong);
        let longer = FINAL.replace(OURS, &format!("{OURS}x"));
        assert_eq!(finish(FIRST, &longer).unwrap_err(), Fault::Wrong);
    }

    #[test]
    fn names_are_unescaped_and_may_hold_what_separates() {
        assert_eq!(exchange("n,,n=a=3Db=2Cc,r=x", "pencil").as_deref(), Ok("a=b,c"));
        assert_eq!(exchange("n,,n=ü,r=x", "pencil").as_deref(), Ok("ü"));
        for bad in ["n,,n=a=b,r=x", "n,,n=a=2c,r=x", "n,,n=a=,r=x", "n,,n=a=3,r=x", "n,,n=,r=x"] {
            assert_eq!(exchange(bad, "pencil"), Err(Fault::Unreadable), "{bad}");
        }
    }

    #[test]
    fn only_oneself_may_be_acted_for() {
        assert_eq!(exchange("n,a=user,n=user,r=x", "pencil").as_deref(), Ok("user"));
        assert_eq!(exchange("n,a=root,n=user,r=x", "pencil"), Err(Fault::Wrong));
        assert_eq!(exchange("n,root,n=user,r=x", "pencil"), Err(Fault::Unreadable));
    }

    #[test]
    fn channel_binding_is_refused_and_its_absence_is_under_the_proof_rfc5802_6() {
        assert_eq!(exchange("p=tls-unique,,n=user,r=x", "pencil"), Err(Fault::ChannelBinding));
        assert_eq!(exchange("y,,n=user,r=x", "pencil").as_deref(), Ok("user"));
        // Somebody between the two turned `y` into `n`: the client still proves what it said.
        let (challenge, challenged) = begin("n,,n=user,r=x", OURS).unwrap();
        let last = answer("y,,n=user,r=x", challenge.as_bytes(), "pencil");
        assert_eq!(challenged.finish(last.as_bytes()).unwrap_err(), Fault::Wrong);
    }

    #[test]
    fn extensions_are_passed_over_unless_they_are_mandatory() {
        assert_eq!(exchange("n,,n=user,r=x,t=1,u=2", "pencil").as_deref(), Ok("user"));
        assert_eq!(exchange("n,,m=x,n=user,r=x", "pencil"), Err(Fault::Extension));
    }

    #[test]
    fn what_is_no_first_message_is_unreadable() {
        let long = format!("n,,n=user,r={}", "x".repeat(MESSAGE_BYTES_MAX));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "x,,n=user,r=x",
            "n,,r=x,n=user",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,n=user,r=ü",
            "n,,n=user,r=a b",
            "n,,n=user,r=x,",
            "n,,n=user,r=x,t",
            "n,,n=us\0er,r=x",
            &long,
        ] {
            assert_eq!(exchange(bad, "pencil"), Err(Fault::Unreadable), "{bad}");
        }
        let noise = start(b"n,,n=\xff,r=x", OURS, |_| None, &pretender());
        assert_eq!(noise.err(), Some(Fault::Unreadable));
    }

    #[test]
    fn an_unknown_name_is_answered_like_a_known_one_and_always_alike() {
        let salt_of = |first: &str, pretender: &Pretender| {
            let (data, _) = start(first.as_bytes(), OURS, |_| None, pretender).unwrap();
            String::from_utf8(data).unwrap()
        };
        let known = begin("n,,n=user,r=x", OURS).unwrap().0;
        let unknown = salt_of("n,,n=carol,r=x", &pretender());
        assert_eq!(unknown.len(), known.len());
        assert!(unknown.ends_with(",i=4096"));
        assert_eq!(unknown, salt_of("n,,n=carol,r=x", &pretender()));
        assert_ne!(unknown, salt_of("n,,n=dave,r=x", &pretender()));
        assert_ne!(unknown, salt_of("n,,n=carol,r=x", &Pretender::new(4096).unwrap()), "secret");
        assert_eq!(exchange("n,,n=carol,r=x", "pencil"), Err(Fault::Wrong));
    }

    #[test]
    fn a_proof_that_fits_a_made_up_verifier_is_still_refused() {
        let pretender = pretender();
        let (challenge, mut challenged) = start(FIRST.as_bytes(), OURS, |_| None, &pretender).unwrap();
        let salt = challenged.verifier.salt.clone();
        challenged.verifier = Verifier::salted("pencil", &salt, 4096);
        let last = answer(FIRST, &challenge, "pencil");
        assert_eq!(challenged.finish(last.as_bytes()).unwrap_err(), Fault::Wrong);
    }

    #[test]
    fn a_verifier_survives_its_text_and_shows_no_key_in_the_log() {
        let verifier = Verifier::new("pässword".as_bytes(), 4096).unwrap();
        let text = verifier.to_text();
        assert!(text.starts_with("SCRAM-SHA-256$4096:"), "{text}");
        assert_eq!(Verifier::parse(&text).unwrap(), verifier);
        assert_ne!(Verifier::new("pässword".as_bytes(), 4096).unwrap(), verifier, "salted");
        assert_eq!(format!("{verifier:?}"), "Verifier { iterations: 4096, .. }");
        assert_eq!(
            PENCIL.to_text(),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn weak_greedy_and_broken_verifiers_are_refused() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        Verifier::parse(&format!("SCRAM-SHA-256$4096:AAAA${key}:{key}")).unwrap();
        for (text, complaint) in [
            ("", "is not of the form"),
            (&format!("SCRAM-SHA-1$4096:AAAA${key}:{key}"), "is not of the form"),
            (&format!("SCRAM-SHA-256$4096:AAAA${key}"), "is not of the form"),
            (&format!("SCRAM-SHA-256$x:AAAA${key}:{key}"), "is not of the form"),
            (&format!("SCRAM-SHA-256$4096:AAAA${key}:AAAA"), "is not of the form"),
            (&format!("SCRAM-SHA-256$4095:AAAA${key}:{key}"), "has fewer than 4096"),
            (&format!("SCRAM-SHA-256$10000001:AAAA${key}:{key}"), "has fewer than 4096"),
            (&format!("SCRAM-SHA-256$4096:${key}:{key}"), "has no salt"),
        ] {
            let problem = Verifier::parse(text).unwrap_err();
            assert!(problem.starts_with(complaint), "{text}: {problem}");
        }
    }

    #[test]
    fn passwords_are_prepared_as_far_as_said_rfc4013_3() {
        for (password, ready) in
            [("I\u{ad}X", "IX"), ("user", "user"), ("USER", "USER"), ("a\u{a0}b\u{3000}", "a b "), ("é", "é")]
        {
            assert_eq!(prepared(password.as_bytes()).unwrap(), ready);
        }
        for bad in [&b"\x07"[..], b"a\0b", b"a\tb", b"\xff", "\u{ad}".as_bytes(), "a\u{85}".as_bytes()] {
            prepared(bad).unwrap_err();
        }
    }
}
