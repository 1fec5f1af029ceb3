//! The JSON form of a message, and the JSON protocol spoken over WebSocket (`sabir.json`).
//!
//! This crate opens no socket and reads no clock. [`Draft`] is a message on its way in and [`View`] one on its way out; REST,
//! event streams and the management interface use them too. [`open`] gives the two halves of one connection that speaks the
//! protocol: a [`JsonSession`] that reads (`decode` → `request` → `execute` → the host) and a [`JsonEgress`] that writes
//! deliveries. What can be asked and answered is in `docs/json.md`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod address;
mod answers;
mod decode;
mod egress;
mod envelope;
mod error;
mod execute;
pub mod fuzz;
mod heartbeat;
mod replies;
mod request;
mod session;
mod subscribe;
mod subscriptions;
mod token;
mod value;
mod view;
mod window;

use std::sync::Arc;

use sabir_model::clock::Instant;
use sabir_model::limits::Limits;

pub use crate::egress::JsonEgress;
pub use crate::envelope::{Draft, DraftBody};
pub use crate::error::EnvelopeError;
pub use crate::session::JsonSession;
pub use crate::view::{BodyForm, RenderOptions, View};

/// The two halves of a new connection's protocol state. `server_name` is how we call ourselves (`Sabir/0.1.0`); the time to
/// introduce oneself runs from `now`.
#[must_use]
pub fn open(limits: Arc<Limits>, server_name: &'static str, now: Instant) -> (JsonSession, JsonEgress) {
    let replies = replies::Replies::default();
    let egress = JsonEgress::new(replies.clone(), limits.frame_bytes_max);
    (JsonSession::new(limits, server_name, now, replies), egress)
}
