//! The JSON form of a message, and the JSON protocol spoken over WebSocket (`sabir.json`).

mod envelope;
mod error;
mod value;
mod view;

pub use envelope::{Draft, DraftBody};
pub use error::EnvelopeError;
pub use view::{BodyForm, RenderOptions, View};
