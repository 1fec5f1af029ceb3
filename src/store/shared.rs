//! What the store's threads share. Lock order: pool, index, journal buffer; none is held while another thread
//! is waited for. The locks of the readers are taken alone, those of
//! the blobs and of the keeper last.

use crate::blob::Blobs;
use crate::fs::Fs;
use crate::index::Index;
use crate::journal::Journal;
use crate::manifest::Paths;
use crate::options::StoreOptions;
use crate::pool::Pool;
use crate::read::Readers;
use crate::stats::Counters;
use crate::{Level, Wake};
use parking_lot::{Condvar, Mutex};
use sabir_model::ids::Position;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Shared {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) paths: Paths,
    pub(crate) options: StoreOptions,
    pub(crate) store_id: u64,
    pub(crate) journal: Journal,
    pub(crate) index: Mutex<Index>,
    /// Frames were applied to the index, or none will be for now.
    pub(crate) applied: Condvar,
    pub(crate) readers: Readers,
    pub(crate) pool: Pool,
    pub(crate) blobs: Blobs,
    pub(crate) counters: Counters,
    /// Bytes written since the last checkpoint.
    pub(crate) uncheckpointed: AtomicU64,
    pub(crate) keeper: Mutex<KeeperState>,
    pub(crate) keeper_wake: Condvar,
}

/// What the keeper thread is told.
#[derive(Debug, Default)]
pub(crate) struct KeeperState {
    pub(crate) look: bool,
    pub(crate) stop: bool,
}

impl Shared {
    /// Ends the log: records the sentence, wakes everybody, calls the hook. Once; later failures follow from
    /// the first.
    pub(crate) fn fatal(&self, what: &str, file: &std::path::Path, error: &io::Error) {
        let sentence = format!(
            "cannot {what} {}: {error}; the message log has stopped, because what is written after a failed write or sync cannot be trusted",
            file.display()
        );
        if !self.journal.fail(sentence.clone()) {
            return;
        }
        tracing::error!("{sentence}");
        self.wake_readers();
        self.keeper_wake.notify_all();
        self.pool.changed.notify_all();
        if let Some(hook) = &self.options.on_fatal {
            hook(&sentence);
        }
    }

    /// Makes the keeper look around now.
    pub(crate) fn nudge_keeper(&self) {
        self.keeper.lock().look = true;
        self.keeper_wake.notify_one();
    }

    /// Bytes after which a checkpoint is due.
    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        let last = self.counters.checkpoint_bytes.load(Ordering::Relaxed);
        self.options.segment_bytes.max(last.saturating_mul(2))
    }

    /// Lets whoever waits for the index look again at why.
    pub(crate) fn wake_readers(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        drop(self.index.lock());
        self.applied.notify_all();
    }

    /// Blocks until everything up to `position` is written and applied; false if it cannot be now.
    pub(crate) fn wait_applied(&self, position: Position) -> bool {
        let journal = &self.journal;
        let mut index = self.index.lock();
        while index.lsn < position.0 {
            let full = journal.stalled.load(Ordering::Acquire) && journal.disk_full.load(Ordering::Relaxed);
            if journal.is_over() || full {
                return false;
            }
            self.applied.wait(&mut index);
        }
        true
    }

    /// Blocks until `position` is synced; false if the log failed first.
    pub(crate) fn wait_synced(self: &Arc<Self>, position: Position) -> bool {
        let parked = Arc::new(Parked::default());
        self.journal.wake_at(position, Level::Fsync, Arc::clone(&parked) as Arc<dyn Wake>);
        let mut woken = parked.woken.lock();
        while !*woken {
            parked.condvar.wait(&mut woken);
        }
        self.journal.watermark().covers(position, Level::Fsync)
    }
}

#[derive(Debug, Default)]
struct Parked {
    woken: Mutex<bool>,
    condvar: Condvar,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.condvar.notify_one();
    }
}
