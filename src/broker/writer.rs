//! The way bytes leave a connection, and how many may wait to.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::budget::Budget;

/// The way bytes leave; sits inside the outbox's lock.
pub trait Writer: Send {
    /// Writes by whoever filled the outbox, from any thread.
    ///
    /// # Errors
    /// `WouldBlock` is normal: the owner goes on with [`Writer::poll_write`]. Anything else ends the connection.
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Writes by the task that owns the connection, which is woken when it may go on.
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;
}

/// Bounds of one outbox, in bytes and time.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Above this, queues stop dispatching to the connection and live messages wait.
    pub bytes_soft: usize,
    /// Above this the connection is closed.
    pub bytes_hard: usize,
    /// Without progress for this long while bytes wait, the connection is closed.
    pub stall_ms_max: u64,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { bytes_soft: 1 << 20, bytes_hard: 8 << 20, stall_ms_max: 30_000 }
    }
}

/// What bounds all outboxes.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Each of them.
    pub(crate) limits: OutboxLimits,
    /// All of them together, with all else.
    pub(crate) budget: Arc<Budget>,
}

impl Bounds {
    /// Whether so many bytes leave no room for more.
    #[inline]
    pub(crate) fn are_reached(&self, bytes: usize) -> bool {
        bytes > self.limits.bytes_soft || self.budget.is_too_much_for_a_reader(bytes)
    }
}
