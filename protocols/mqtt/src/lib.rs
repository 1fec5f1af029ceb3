//! MQTT 3.1, 3.1.1 and 5.0 as pure translation: bytes in, values out, and back.
//!
//! This crate opens no socket and reads no clock. It owns what a packet is: [`frame`] cuts packets out of a stream,
//! [`decode`] reads one in place, and every packet has an `encode`. What is wrong with bytes is told as a
//! [`DecodeError`], whose [`Reason`] is what a server says before it hangs up. [`filter`] owns the grammar of topic
//! filters; [`client`] speaks the other side of the protocol, for tools and tests.
//!
//! Rules that need more than one packet to judge (aliases, identifiers in use, quotas) are left to the session.
//! [`open`] gives the two halves of one connection: a [`MqttSession`] that reads (`session` → `execute` → `translate` →
//! the host) and a [`MqttEgress`] that writes deliveries (`egress` → `render`). What outlives a connection (subscriptions,
//! backlogs, wills, kept messages) is the broker's.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod account;
mod aliases;
mod alike;
pub mod client;
mod detect;
mod egress;
mod error;
mod execute;
pub mod filter;
pub mod fuzz;
mod fuzz_session;
mod inflight;
mod large;
mod lifetime;
pub mod packet;
mod reason;
mod refusal;
mod render;
mod replies;
mod session;
mod topic;
mod translate;
mod version;
mod will;

use std::sync::Arc;

use sabir_model::clock::Instant;
use sabir_model::limits::Limits;

pub use crate::detect::{Detection, detects};
pub use crate::egress::MqttEgress;
pub use crate::error::{DecodeError, EncodeError};
pub use crate::packet::{Frame, Kind, Packet, PacketId, Progress, Qos, decode, frame};
pub use crate::reason::Reason;
pub use crate::session::MqttSession;
pub use crate::version::Version;

/// The two halves of a new connection's protocol state; the time to introduce oneself runs from `now`.
#[must_use]
pub fn open(limits: Arc<Limits>, now: Instant) -> (MqttSession, MqttEgress) {
    (MqttSession::new(limits, now), MqttEgress::new())
}
