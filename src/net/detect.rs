//! Telling protocols apart by their first bytes. A new protocol is one line in [`Protocol::ALL`] and its arms here.

use std::sync::Arc;

use sabir_model::clock::Instant;
use sabir_model::limits::Limits;
use sabir_model::session::{Egress, Session};

use super::SERVER_NAME;
use super::websocket::Shape;

/// First bytes after which every protocol has shown itself.
pub(crate) const PREFIX_BYTES_MAX: usize = 256;

/// A messaging protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Stomp,
    Mqtt,
    Json,
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// A messaging protocol.
    Messages(Protocol),
    /// An HTTP request.
    Http,
    /// Nothing yet.
    NeedMore,
    /// Nothing that is spoken here; what it looks like instead, if that is known.
    Unknown(Option<&'static str>),
}

impl Protocol {
    /// Every one.
    pub(crate) const ALL: [Self; 3] = [Self::Stomp, Self::Mqtt, Self::Json];

    /// The two halves of a new connection's state.
    pub(crate) fn open(self, limits: &Arc<Limits>, now: Instant) -> (Box<dyn Session>, Box<dyn Egress>) {
        match self {
            Self::Stomp => {
                let (session, egress) = sabir_stomp::open(Arc::clone(limits), SERVER_NAME, now);
                (Box::new(session), Box::new(egress))
            }
            Self::Mqtt => {
                let (session, egress) = sabir_mqtt::open(Arc::clone(limits), now);
                (Box::new(session), Box::new(egress))
            }
            Self::Json => {
                let (session, egress) = sabir_json::open(Arc::clone(limits), SERVER_NAME, now);
                (Box::new(session), Box::new(egress))
            }
        }
    }

    fn detects(self, prefix: &[u8]) -> Option<Detected> {
        match self {
            Self::Stomp => match sabir_stomp::detects(prefix) {
                sabir_stomp::Detection::Yes => Some(Detected::Messages(self)),
                sabir_stomp::Detection::NeedMore => Some(Detected::NeedMore),
                sabir_stomp::Detection::No => None,
            },
            Self::Mqtt => match sabir_mqtt::detects(prefix) {
                sabir_mqtt::Detection::Yes => Some(Detected::Messages(self)),
                sabir_mqtt::Detection::NeedMore => Some(Detected::NeedMore),
                sabir_mqtt::Detection::No => None,
            },
            Self::Json => prefix.starts_with(b"{").then_some(Detected::Messages(self)),
        }
    }

    /// Whether its WebSocket messages are all binary (MQTT 5 §6.0: \[MQTT-6.0.0-1\]).
    pub(crate) fn is_binary(self) -> bool {
        match self {
            Self::Stomp | Self::Json => false,
            Self::Mqtt => true,
        }
    }

    /// Whether each line that it writes is one text message of a WebSocket, rather than part of a stream.
    pub(crate) fn is_lines(self) -> bool {
        match self {
            Self::Json => true,
            Self::Stomp | Self::Mqtt => false,
        }
    }

    /// How its bytes become messages of a WebSocket.
    pub(crate) fn shape(self) -> Shape {
        match (self.is_binary(), self.is_lines()) {
            (true, _) => Shape::Binary,
            (false, true) => Shape::Lines,
            (false, false) => Shape::Stream,
        }
    }

    /// Which protocol begins with these bytes; nothing as long as that is open. Where none does it is STOMP, which has the
    /// words to say so.
    pub(crate) fn guess(prefix: &[u8]) -> Option<Self> {
        let mut open = false;
        for protocol in Self::ALL {
            match protocol.detects(prefix) {
                Some(Detected::NeedMore) => open = true,
                Some(_) => return Some(protocol),
                None => {}
            }
        }
        if open && prefix.len() < PREFIX_BYTES_MAX { None } else { Some(Self::Stomp) }
    }

    /// The names under which WebSocket clients ask for it, best first.
    pub(crate) fn subprotocols(self) -> &'static [&'static str] {
        match self {
            Self::Stomp => &["v12.stomp", "v11.stomp", "v10.stomp", "stomp"],
            Self::Mqtt => &["mqtt", "mqttv3.1"],
            Self::Json => &["sabir.json"],
        }
    }
}

/// Looks at the first bytes of a connection.
pub(crate) fn detect(prefix: &[u8]) -> Detected {
    let mut answer = Detected::Unknown(None);
    for protocol in Protocol::ALL {
        match protocol.detects(prefix) {
            Some(Detected::NeedMore) => answer = Detected::NeedMore,
            Some(found) => return found,
            None => {}
        }
    }
    for method in [&b"GET "[..], b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH "] {
        if prefix.starts_with(method) {
            return Detected::Http;
        }
        if method.starts_with(prefix) {
            answer = Detected::NeedMore;
        }
    }
    if answer == Detected::NeedMore && prefix.len() < PREFIX_BYTES_MAX {
        return answer;
    }
    Detected::Unknown(looks_like(prefix))
}

/// The usual strangers, so that whoever set them up learns what is wrong.
fn looks_like(prefix: &[u8]) -> Option<&'static str> {
    match prefix {
        [0x16, 0x03, ..] => Some("TLS"),
        [b'A', b'M', b'Q', b'P', ..] => Some("AMQP"),
        [_, _, _, _, 1, b'A', b'c', b't', b'i', b'v', b'e', b'M', b'Q', ..] => Some("OpenWire"),
        [b'P', b'R', b'I', b' ', b'*', ..] => Some("HTTP/2"),
        [b'P', b'R', b'O', b'X', b'Y', b' ', ..] | [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, b'Q', ..] => {
            Some("the PROXY protocol")
        }
        _ => None,
    }
}

/// The answer to a stranger.
pub(crate) fn answer_to_unknown(looks_like: Option<&str>) -> String {
    let guess = looks_like.map(|name| format!(" What arrived looks like {name}.")).unwrap_or_default();
    format!(
        "{SERVER_NAME}: this port speaks STOMP, MQTT and HTTP (WebSocket at /stomp, /mqtt and /ws).{guess}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol_and_a_split_anywhere_only_delays_it() {
        for (whole, expected) in [
            (&b"CONNECT\naccept-version:1.2\n\n\0"[..], Detected::Messages(Protocol::Stomp)),
            (b"\n\nSTOMP\r\n", Detected::Messages(Protocol::Stomp)),
            (b"\x10\x10\x00\x04MQTT\x05", Detected::Messages(Protocol::Mqtt)),
            (b"\x10\x10\x00\x06MQIsdp\x03", Detected::Messages(Protocol::Mqtt)),
            (b"{\"op\":\"connect\"}", Detected::Messages(Protocol::Json)),
            (b"GET /stomp HTTP/1.1\r\n", Detected::Http),
            (b"DELETE / HTTP/1.1\r\n", Detected::Http),
            (b"\x16\x03\x01\x02\x00", Detected::Unknown(Some("TLS"))),
            (b"CONNECT example.org:443 HTTP/1.1\r\n", Detected::Unknown(None)),
            (b"hello\n", Detected::Unknown(None)),
        ] {
            assert_eq!(detect(whole), expected, "{}", whole.escape_ascii());
            if matches!(expected, Detected::Unknown(_)) {
                continue;
            }
            for length in 0..whole.len() {
                let partial = detect(whole.get(..length).unwrap_or_default());
                assert!(
                    partial == expected || partial == Detected::NeedMore,
                    "{length} of {}",
                    whole.escape_ascii()
                );
            }
        }
        assert_eq!(detect(b""), Detected::NeedMore);
    }

    #[test]
    fn a_websocket_without_a_sub_protocol_is_guessed_at() {
        for (whole, expected) in [
            (&b"\n\nCONNECT\n"[..], Protocol::Stomp),
            (b"\x10\x10\x00\x04MQTT\x05", Protocol::Mqtt),
            (b"GET / HTTP/1.1\r\n", Protocol::Stomp),
            (&[b'\n'; PREFIX_BYTES_MAX], Protocol::Stomp),
        ] {
            assert_eq!(Protocol::guess(whole), Some(expected), "{}", whole.escape_ascii());
        }
        assert_eq!(Protocol::guess(b"\nCON"), None);
        assert_eq!(Protocol::guess(b""), None);
    }

    #[test]
    fn strangers_are_called_by_their_names() {
        for (bytes, name) in [
            (&b"AMQP\x00\x00\x09\x01"[..], "AMQP"),
            (b"\x00\x00\x01\x77\x01ActiveMQ\x00\x00", "OpenWire"),
            (b"PRI * HTTP/2.0\r\n", "HTTP/2"),
            (b"PROXY TCP4 ", "the PROXY protocol"),
        ] {
            assert_eq!(detect(bytes), Detected::Unknown(Some(name)));
            assert!(answer_to_unknown(Some(name)).contains(name));
        }
    }
}
