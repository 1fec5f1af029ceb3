//! STOMP 1.0, 1.1 and 1.2 as pure translation: bytes and instants in, values out.
//!
//! This crate opens no socket and reads no clock. [`open`] gives the two halves of one connection: a [`StompSession`]
//! that reads (`decode` → `session` → `translate` → the host) and a [`StompEgress`] that writes deliveries. [`client`]
//! speaks the other side of the protocol, for tools and tests. What each clause of the specifications became is listed
//! in `docs/stomp.md`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod ack_id;
mod address;
pub mod client;
mod decode;
mod egress;
mod encode;
mod error;
mod execute;
mod frame;
pub mod fuzz;
mod heartbeat;
mod large;
mod receipts;
mod render;
mod session;
mod subscriptions;
mod translate;
mod window;

use std::sync::Arc;

use sabir_model::clock::Instant;
use sabir_model::limits::Limits;

pub use crate::egress::StompEgress;
pub use crate::frame::Version;
pub use crate::session::StompSession;

/// The two halves of a new connection's protocol state. `server_name` is what CONNECTED calls us (`Sabir/0.1.0`);
/// the time to introduce oneself runs from `now`.
#[must_use]
pub fn open(limits: Arc<Limits>, server_name: &'static str, now: Instant) -> (StompSession, StompEgress) {
    (StompSession::new(limits, server_name, now), StompEgress::new())
}

/// Whether the first bytes of a connection are this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// They are.
    Yes,
    /// They are not.
    No,
    /// They may become so.
    NeedMore,
}

/// Bytes between frames that a connection may start with before it must show its command.
const BLANK_BYTES_MAX: usize = 64;

/// Looks for `CONNECT` or `STOMP` on a line of its own, after any line ends and NULs. HTTP's `CONNECT host` is not it.
#[must_use]
pub fn detects(prefix: &[u8]) -> Detection {
    let blanks = prefix.iter().take_while(|byte| matches!(byte, b'\n' | b'\r' | 0)).count();
    if blanks > BLANK_BYTES_MAX {
        return Detection::No;
    }
    let rest = prefix.get(blanks..).unwrap_or_default();
    let mut answer = Detection::No;
    for word in [&b"CONNECT"[..], b"STOMP"] {
        let common = word.iter().zip(rest).take_while(|(a, b)| a == b).count();
        if common == rest.len() && common <= word.len() {
            answer = Detection::NeedMore;
        } else if common == word.len() && matches!(rest.get(common), Some(b'\n' | b'\r')) {
            return Detection::Yes;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stomp_is_told_from_other_protocols_by_its_first_line() {
        for (bytes, expected) in [
            (&b""[..], Detection::NeedMore),
            (b"\r\n\n\0", Detection::NeedMore),
            (b"CONN", Detection::NeedMore),
            (b"CONNECT", Detection::NeedMore),
            (b"CONNECT\n", Detection::Yes),
            (b"\n\nCONNECT\r\n", Detection::Yes),
            (b"STOMP", Detection::NeedMore),
            (b"STOMP\naccept-version:1.2", Detection::Yes),
            (b"CONNECT example.org:443 HTTP/1.1", Detection::No),
            (b"GET / HTTP/1.1", Detection::No),
            (b"SEND\n", Detection::No),
            (b"\x10\x0e\0\x04MQTT", Detection::No),
            (b"AMQP\0", Detection::No),
            (&[b'\n'; 65], Detection::No),
        ] {
            assert_eq!(detects(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
