//! The keeper: writes checkpoints, lets dead files go, and has others evacuated (`evacuate.rs`).
//!
//! One rule decides when a segment may be reused, or a page file removed: a durable checkpoint no longer mentions it.
//! So nothing a crash could bring back ever points into recycled bytes.

use crate::blob_file::BlobName;
use crate::checkpoint;
use crate::group_commit::{Committer, Turn};
use crate::index::Kind;
use crate::manifest::is_passing;
use crate::page::STREAMS_MAX;
use crate::record::{Body, Op, Ops};
use crate::scrub::Scrub;
use crate::shared::Shared;
use crate::{Level, PutMeta};
use sabir_model::ids::{Position, QueueId, Sequence};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Evacuations before other duties are looked at again.
const EVACUATIONS_PER_TURN: usize = 8;

/// How the keeper gets the committer to move: by waiting for its thread, or by running it.
pub(crate) trait Pump {
    /// Everything up to `position` is synced and applied; false if that cannot be had now.
    fn synced(&mut self, position: Position) -> bool;
    /// Everything up to `position` is written and applied, if not synced; false if that cannot be had now.
    fn applied(&mut self, position: Position) -> bool;
}

/// Waits for the committer's thread.
pub(crate) struct ThreadPump(pub(crate) Arc<Shared>);

impl Pump for ThreadPump {
    fn synced(&mut self, position: Position) -> bool {
        self.0.journal.request_sync();
        // Positions are published just before the frames are applied.
        self.0.wait_synced(position) && self.0.wait_applied(position)
    }

    fn applied(&mut self, position: Position) -> bool {
        self.0.journal.request_write();
        self.0.wait_applied(position)
    }
}

/// Runs the committer on the caller's thread.
pub(crate) struct ManualPump<'a> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: &'a mut Committer,
}

impl Pump for ManualPump<'_> {
    fn applied(&mut self, position: Position) -> bool {
        let mut attempts = 0;
        while self.shared.index.lock().lsn < position.0 {
            match self.committer.turn() {
                Turn::Done => {}
                Turn::NoSpace if attempts < 2 && self.shared.fill_pool().is_ok() => attempts += 1,
                Turn::NoSpace | Turn::Failed => return false,
            }
        }
        true
    }

    fn synced(&mut self, position: Position) -> bool {
        self.shared.journal.request_sync();
        let mut attempts = 0;
        loop {
            let turn = self.committer.turn();
            if self.shared.journal.watermark().covers(position, Level::Fsync) {
                return true;
            }
            match turn {
                Turn::Done => {}
                Turn::NoSpace if attempts < 2 && self.shared.fill_pool().is_ok() => attempts += 1,
                Turn::NoSpace | Turn::Failed => return false,
            }
        }
    }
}

pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    /// Number of the newest checkpoint.
    pub(crate) number: u64,
    at: Duration,
    lsn: u64,
    /// Copies that were appended but not seen applied; nothing is evacuated before they are.
    pub(crate) copies: u64,
    /// The checkpoint after which nothing was found worth writing into pages.
    pub(crate) futile: Option<u64>,
    /// Queues that get page files at once: fewer if so many files cannot be open.
    pub(crate) streams_max: usize,
    /// When it was last looked which files are left alone.
    looked: Duration,
    complained: bool,
    scrub: Scrub,
    /// Calls of `Store::read` when it was last looked.
    reads: u64,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, lsn: u64) -> Self {
        let at = shared.fs.elapsed();
        Self {
            shared,
            number,
            at,
            lsn,
            copies: 0,
            futile: None,
            streams_max: STREAMS_MAX,
            looked: at,
            complained: false,
            scrub: Scrub::default(),
            reads: 0,
        }
    }

    /// The keeper's thread.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut pump = ThreadPump(Arc::clone(&shared));
        loop {
            {
                let mut state = shared.keeper.lock();
                if !state.look && !state.stop && shared.journal.failed().is_none() {
                    let full = shared.journal.disk_full.load(Ordering::Relaxed);
                    let span = if full || self.scrub.is_due(&shared) {
                        crate::pool::RETRY.min(shared.options.checkpoint_interval)
                    } else {
                        shared.options.checkpoint_interval
                    };
                    shared.keeper_wake.wait_for(&mut state, span);
                }
                state.look = false;
                if state.stop || shared.journal.failed().is_some() {
                    return;
                }
            }
            self.turn(&mut pump);
        }
    }

    /// Does what is due.
    pub(crate) fn turn(&mut self, pump: &mut dyn Pump) {
        self.scrub.turn(&self.shared);
        self.shared.sweep_blobs();
        let reads = self.shared.counters.reads.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.reads, reads) == reads {
            self.shared.readers.clear();
            self.shared.blobs.close_files();
        }
        if self.shared.journal.failed().is_none() && self.is_checkpoint_due() {
            self.checkpoint(pump);
        }
        self.look();
        for done in 0..EVACUATIONS_PER_TURN {
            if self.shared.journal.failed().is_some() {
                return;
            }
            if (done > 0 || self.is_over_budget())
                && !self.shared.index.lock().dead_segments().is_empty()
                && !self.checkpoint(pump)
            {
                return;
            }
            let Some(plan) = self.plan() else { return };
            match self.evacuate(pump, &plan) {
                Ok(true) => {}
                Ok(false) => return,
                Err(failed) => return self.shared.fatal(failed.what, &failed.file, &failed.source),
            }
        }
        self.shared.keeper.lock().look = true;
    }

    /// Sees which files have been left alone, once in every checkpoint's time.
    fn look(&mut self) {
        let now = self.shared.fs.elapsed();
        if now.saturating_sub(self.looked) < self.shared.options.checkpoint_interval {
            return;
        }
        self.looked = now;
        self.futile = None;
        for info in self.shared.index.lock().segments.values_mut() {
            info.calm = info.seen == info.live;
            info.seen = info.live;
        }
    }

    fn is_checkpoint_due(&self) -> bool {
        if self.shared.uncheckpointed.load(Ordering::Relaxed) >= self.shared.checkpoint_bytes() {
            return true;
        }
        let full = self.shared.journal.disk_full.load(Ordering::Relaxed);
        let index = self.shared.index.lock();
        let old = self.shared.fs.elapsed().saturating_sub(self.at) >= self.shared.options.checkpoint_interval;
        (old && index.lsn > self.lsn)
            || index.blobs.dead_bytes() >= self.shared.checkpoint_bytes()
            || (full && (!index.dead_segments().is_empty() || index.blobs.dead_bytes() > 0))
    }

    fn is_over_budget(&self) -> bool {
        self.shared.index.lock().journal_bytes() > self.shared.options.journal_bytes_max
    }

    /// Writes a checkpoint and lets go what it no longer mentions. False if it could not be written now.
    fn checkpoint(&mut self, pump: &mut dyn Pump) -> bool {
        let shared = Arc::clone(&self.shared);
        if !shared.sync_blobs() {
            return false;
        }
        let (mut bytes, lsn, dead, dead_blobs) = {
            let index = shared.index.lock();
            shared.uncheckpointed.store(0, Ordering::Relaxed);
            (checkpoint::encode(&index), index.lsn, index.dead_segments(), index.blobs.dead())
        };
        // A checkpoint must not know more than the log: what it mentions has to be there after a crash.
        if !pump.synced(Position(lsn)) {
            return false;
        }
        self.number += 1;
        let next_segment = shared.pool.state.lock().next_number;
        checkpoint::seal(&mut bytes, shared.store_id, self.number, lsn, next_segment);
        if let Err(error) = checkpoint::write(&*shared.fs, &shared.paths, self.number, &bytes) {
            if !is_passing(&error) {
                shared.fatal("write a checkpoint into", &shared.paths.checkpoints, &error);
            } else if !std::mem::replace(&mut self.complained, true) {
                tracing::warn!(%error, "there is no room or no file descriptor for a checkpoint; the log cannot shrink until there is");
            }
            return false;
        }
        self.complained = false;
        self.at = shared.fs.elapsed();
        self.lsn = lsn;
        shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        shared.counters.checkpoint_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        let (mut segments, mut pages) = (Vec::new(), Vec::new());
        {
            let mut index = shared.index.lock();
            for &number in &dead {
                let is_page = index.segments.remove(&number).is_some_and(|info| info.kind == Kind::Page);
                if is_page { pages.push(number) } else { segments.push(number) }
            }
        }
        if !dead.is_empty() {
            shared.readers.forget(&dead);
            shared.pool.bury(segments, pages);
        }
        shared.bury_blobs(&dead_blobs);
        true
    }
}

pub(crate) struct Copy {
    pub(crate) targets: Range<usize>,
    pub(crate) meta: PutMeta,
    pub(crate) head: Range<usize>,
    pub(crate) body: Range<usize>,
    /// Instead of the body.
    pub(crate) blob: Option<BlobName>,
}

/// The live messages of one frame, by their place in it: collected under the index lock, appended without it.
#[derive(Default)]
pub(crate) struct Copies {
    pub(crate) list: Vec<Copy>,
    pub(crate) targets: Vec<(QueueId, Sequence)>,
}

impl Copies {
    pub(crate) fn collect(
        &mut self,
        shared: &Shared,
        segment: u64,
        frame: &[u8],
        references: &crate::index::References,
    ) {
        self.list.clear();
        self.targets.clear();
        let mut holders = Vec::new();
        let place = |piece: &[u8]| {
            // The pieces are slices of the frame; their place follows from the addresses.
            let start = (piece.as_ptr() as usize).saturating_sub(frame.as_ptr() as usize);
            start..start + piece.len()
        };
        let index = shared.index.lock();
        for op in Ops::new(frame) {
            let Ok(Op::Put { targets, meta, head, body, .. }) = op else { continue };
            index.holders(segment, targets, references, &mut holders);
            if holders.is_empty() {
                continue;
            }
            let start = self.targets.len();
            self.targets.extend_from_slice(&holders);
            self.list.push(Copy {
                targets: start..self.targets.len(),
                meta,
                head: place(head),
                body: match body {
                    Body::Inline(bytes) => place(bytes),
                    Body::Blob(_) => 0..0,
                },
                blob: body.blob(),
            });
        }
    }
}
