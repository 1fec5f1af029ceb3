//! What the store is told of a message, what it tells of one, and who is told.

use crate::Blob;
use sabir_model::ids::{QueueId, Sequence};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What the broker says about a message beyond its bytes. The store keeps it and looks at none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutMeta {
    /// Priority.
    pub priority: u8,
    /// The broker's own flags.
    pub flags: u8,
    /// Wall-clock milliseconds at which the message expires; 0 for never.
    pub expires_ms: u64,
}

/// Someone to wake when a position is covered.
pub trait Wake: Send + Sync {
    /// Called once, without any lock of the journal held. Must not block.
    fn wake(self: Arc<Self>);
}

/// Where recovery puts what it found: first every live metadata entry, then every queue, then the numbers of the
/// live messages, then the delivery counts. The messages themselves are read with [`crate::Store::read`]. If opening fails after all, what was told is to be forgotten.
pub trait Recover {
    /// A live metadata entry.
    fn meta(&mut self, table: u8, key: &[u8], value: &[u8]);
    /// A queue and its next unused sequence number according to the log.
    /// None of its messages expires before `expires_ms`, in wall milliseconds; 0 if none does at all.
    fn queue(&mut self, queue: QueueId, next: Sequence, expires_ms: u64);
    /// Live messages of a queue: a run of numbers, ascending within a queue and disjoint. `bytes` is what they take in the
    /// log, about.
    fn live(&mut self, queue: QueueId, first: Sequence, last: Sequence, bytes: u64);
    /// A live message that was told of has a body of `len` bytes in a file of its own, which is not in the `bytes` of its run.
    fn blob(&mut self, _queue: QueueId, _sequence: Sequence, _len: u64) {}
    /// How often the delivery of a live message has failed.
    fn attempts(&mut self, queue: QueueId, sequence: Sequence, count: u32);
}

/// The body of a message that was read.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// It was in the log.
    Inline(&'a [u8]),
    /// It is in a file of its own, which was not looked at.
    Blob(Blob),
}

impl Payload<'_> {
    /// Bytes of the body.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.len(),
        }
    }

    /// Whether the body has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Who is told of a message that was read: its number, what was said about it, its head, its body.
pub type Each<'a> = &'a mut dyn FnMut(Sequence, PutMeta, &[u8], Payload<'_>) -> ControlFlow<()>;
