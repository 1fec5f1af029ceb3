//! The keeper: writes checkpoints, lets dead segments go, and evacuates mostly dead ones when the journal is
//! over its budget.
//!
//! One rule decides when a segment may be reused: a durable checkpoint no longer mentions it. So nothing a
//! crash could bring back ever points into recycled bytes. Evacuation appends the live messages of a segment
//! again at the head, under their own queues and numbers, flagged as moved; then the segment is dead like any
//! other. A segment that is at least half alive is left alone: copying it would cost more than it frees,
//! until page files take deep backlogs.

use crate::blob_file::BlobName;
use crate::checkpoint;
use crate::group_commit::{Committer, Turn};
use crate::index::Segment;
use crate::manifest::is_full;
use crate::record::{Body, Op, Ops};
use crate::scrub::Scrub;
use crate::segment::{Reader, stamp};
use crate::shared::Shared;
use crate::{Level, PutMeta};
use sabir_model::ids::{Position, QueueId, Sequence};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Unwritten bytes above which evacuation waits for the committer.
const EVACUATION_PENDING_MAX: usize = 4 << 20;
/// Segments evacuated before other duties are looked at again.
const EVACUATIONS_PER_TURN: usize = 8;

/// How the keeper gets the committer to move: by waiting for its thread, or by running it.
pub(crate) trait Pump {
    /// Everything up to `position` is synced and applied; false if that cannot be had now.
    fn synced(&mut self, position: Position) -> bool;
}

/// Waits for the committer's thread.
pub(crate) struct ThreadPump(pub(crate) Arc<Shared>);

impl Pump for ThreadPump {
    fn synced(&mut self, position: Position) -> bool {
        self.0.journal.request_sync();
        // Positions are published just before the frames are applied.
        self.0.wait_synced(position) && self.0.wait_applied(position)
    }
}

/// Runs the committer on the caller's thread.
pub(crate) struct ManualPump<'a> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: &'a mut Committer,
}

impl ManualPump<'_> {
    /// Everything up to `position` is written and applied, if not synced; false if that cannot be had now.
    pub(crate) fn applied(&mut self, position: Position) -> bool {
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
}

impl Pump for ManualPump<'_> {
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
    shared: Arc<Shared>,
    /// Number of the newest checkpoint.
    number: u64,
    at: Duration,
    lsn: u64,
    /// Copies that were appended but not seen applied; nothing is evacuated before they are.
    copies: u64,
    complained: bool,
    scrub: Scrub,
    /// Calls of `Store::read` when it was last looked.
    reads: u64,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, lsn: u64) -> Self {
        let at = shared.fs.elapsed();
        Self { shared, number, at, lsn, copies: 0, complained: false, scrub: Scrub::default(), reads: 0 }
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
        for _ in 0..EVACUATIONS_PER_TURN {
            if self.shared.journal.failed().is_some() || !self.is_over_budget() {
                return;
            }
            if !self.shared.index.lock().dead_segments().is_empty() && !self.checkpoint(pump) {
                return;
            }
            let Some(victim) = self.victim() else { return };
            match self.evacuate(pump, victim) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.shared.fatal("read", &self.shared.paths.segment(victim), &error),
            }
        }
        self.shared.keeper.lock().look = true;
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
            if !is_full(&error) {
                shared.fatal("write a checkpoint into", &shared.paths.checkpoints, &error);
            } else if !std::mem::replace(&mut self.complained, true) {
                tracing::warn!(%error, "the disk is too full for a checkpoint; the log cannot shrink until there is space");
            }
            return false;
        }
        self.complained = false;
        self.at = shared.fs.elapsed();
        self.lsn = lsn;
        shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        shared.counters.checkpoint_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        {
            let mut index = shared.index.lock();
            for number in &dead {
                index.segments.remove(number);
            }
        }
        if !dead.is_empty() {
            shared.readers.forget(&dead);
            shared.pool.bury(dead);
        }
        shared.bury_blobs(&dead_blobs);
        true
    }

    /// The sealed segment with the smallest living part, if one is worth copying.
    fn victim(&self) -> Option<u64> {
        let full = self.shared.journal.disk_full.load(Ordering::Relaxed);
        let index = self.shared.index.lock();
        if index.lsn < self.copies {
            return None;
        }
        let share = |info: &Segment| info.live as f64 / info.total.max(1) as f64;
        let worth = |entry: &(&u64, &Segment)| {
            let (&number, info) = *entry;
            let cheap =
                !full || share(info) * info.end as f64 <= self.shared.options.segment_bytes as f64 / 8.0;
            number != index.active
                && info.live > 0
                && share(info) < 0.5
                && info.patience.is_none_or(|patience| info.live < patience)
                && cheap
        };
        let candidates = index.segments.iter().filter(worth);
        candidates.min_by(|a, b| share(a.1).total_cmp(&share(b.1))).map(|(&number, _)| number)
    }

    /// Copies what is alive in `victim` to the head of the log. `Ok(false)`: not finished now.
    fn evacuate(&mut self, pump: &mut dyn Pump, victim: u64) -> io::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let (info, references) = {
            let index = shared.index.lock();
            let Some(info) = index.segments.get(&victim).copied() else { return Ok(true) };
            (info, index.references_into(victim))
        };
        let file = shared.fs.open(&shared.paths.segment(victim))?;
        let mut reader = Reader::new(file, stamp(shared.store_id, victim), Some(info.end))?;
        let (mut offset, mut expected, mut copied) = (0, 0, 0u64);
        let mut copies = Copies::default();
        while offset < info.end {
            offset = reader.place(offset, expected)?;
            let Some((header, body)) = reader.frame(offset)? else {
                // Recovery reported what is damaged here; what is whole behind it is copied all the same.
                match reader.resync(offset)? {
                    Some(next) => offset = next,
                    None => break,
                }
                continue;
            };
            offset = header.end(offset);
            expected = header.last() + 1;
            copies.collect(&shared, victim, body, &references);
            for copy in &copies.list {
                let len = (copy.head.len() + copy.body.len()) as u64;
                if copied + len > info.end / 2 {
                    self.give_up(pump, victim);
                    return Ok(true);
                }
                let (Some(head), Some(inline)) = (body.get(copy.head.clone()), body.get(copy.body.clone()))
                else {
                    continue;
                };
                let payload = copy.blob.map_or(Body::Inline(inline), Body::Blob);
                let targets = copies.targets.get(copy.targets.clone()).unwrap_or_default();
                let mut appender = shared.journal.begin();
                appender.moved(targets, copy.meta, head, payload);
                self.copies = appender.finish(Level::Os).0;
                copied += len;
                shared.counters.evacuated_bytes.fetch_add(len, Ordering::Relaxed);
                if shared.journal.pending_bytes() > EVACUATION_PENDING_MAX
                    && !pump.synced(Position(self.copies))
                {
                    return Ok(false);
                }
            }
        }
        if !pump.synced(Position(self.copies)) {
            return Ok(false);
        }
        shared.counters.evacuations.fetch_add(1, Ordering::Relaxed);
        // Alive still: what was referenced meanwhile, which the next round copies; or what cannot be read at
        // all.
        if copied == 0
            && let Some(info) = shared.index.lock().segments.get_mut(&victim)
            && info.live > 0
        {
            info.patience = Some(info.live);
        }
        Ok(true)
    }

    /// More is alive than the numbers told (few, but large messages): not before half of it is gone.
    fn give_up(&self, pump: &mut dyn Pump, victim: u64) {
        pump.synced(Position(self.copies));
        if let Some(info) = self.shared.index.lock().segments.get_mut(&victim) {
            info.patience = Some(info.live.div_ceil(2));
        }
    }
}

struct Copy {
    targets: Range<usize>,
    meta: PutMeta,
    head: Range<usize>,
    body: Range<usize>,
    /// Instead of the body.
    blob: Option<BlobName>,
}

/// The live messages of one frame, by their place in it: collected under the index lock, appended without it.
#[derive(Default)]
struct Copies {
    list: Vec<Copy>,
    targets: Vec<(QueueId, Sequence)>,
}

impl Copies {
    fn collect(
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
