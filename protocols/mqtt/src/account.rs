//! What is said of a refusal beside its reason code, in version 5: its sentence, and its stable code as a user property.

use sabir_model::error::Refusal;

use crate::error::EncodeError;
use crate::packet::{Diagnostics, Kind, UserPropertiesBuffer};
use crate::version::Version;

/// The user property that holds the stable code.
const CODE: &str = "code";

/// How much the client wants to be told, and takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) version: Version,
    /// Request Problem Information.
    pub(crate) wanted: bool,
    /// Largest packet the client takes.
    pub(crate) packet_bytes_max: usize,
}

impl Account {
    /// Writes what `encode` makes of the fullest account of `refusal` that fits into the client's largest packet
    /// [5: 3.4.2-2, 3.4.2-3 and the like].
    pub(crate) fn give(
        self,
        kind: Kind,
        refusal: Option<&Refusal>,
        out: &mut Vec<u8>,
        encode: impl Fn(Diagnostics<'_>, &mut Vec<u8>) -> Result<(), EncodeError>,
    ) {
        // [5: 3.1.2-29] Only these may say more to a client that does not want to know.
        let may = self.wanted || matches!(kind, Kind::Connack | Kind::Disconnect);
        if let Some(refusal) = refusal.filter(|_| may && self.version.has_properties()) {
            let mut user = UserPropertiesBuffer::new();
            user.push(CODE, refusal.code.as_str());
            let sentence = refusal.sentence.replace('\0', "\u{fffd}");
            for reason_string in [Some(sentence.as_str()), None] {
                let start = out.len();
                let fits = encode(Diagnostics { reason_string, user: user.get() }, out).is_ok()
                    && out.len() - start <= self.packet_bytes_max;
                if fits {
                    return;
                }
                out.truncate(start);
            }
        }
        // A packet without anything that could be too long can be written.
        let _ = encode(Diagnostics::NONE, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ack, AckKind, PacketId};
    use crate::reason::Reason;
    use sabir_model::error::Code;

    #[test]
    fn as_much_is_told_as_is_wanted_and_fits_mqtt_3_4_2_2_and_3_1_2_29() {
        let refusal = Refusal::new(Code::AccessDenied, "no\0");
        let given = |wanted, packet_bytes_max, version, sentence: &'static str| {
            let account = Account { version, wanted, packet_bytes_max };
            let mut out = Vec::new();
            let refusal = Refusal { sentence: sentence.into(), ..refusal.clone() };
            account.give(Kind::Puback, Some(&refusal), &mut out, |diagnostics, out| {
                let ack = Ack::new(AckKind::Puback, PacketId::MIN, Reason::NotAuthorized);
                Ack { diagnostics, ..ack }.encode(version, out)
            });
            out.len()
        };
        let (code, sentence) = (5 + "code".len() + "access-denied".len(), 3 + "sentence".len());
        assert_eq!(given(true, 1000, Version::V5, "sentence"), 6 + code + sentence);
        assert_eq!(given(true, 6 + code + sentence - 1, Version::V5, "sentence"), 6 + code);
        assert_eq!(given(true, 6 + code - 1, Version::V5, "sentence"), 5);
        assert_eq!(given(false, 1000, Version::V5, "sentence"), 5);
        assert_eq!(given(true, 1000, Version::V311, "sentence"), 4);
    }
}
