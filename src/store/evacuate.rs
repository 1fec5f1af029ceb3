//! Evacuation: what is alive in old files is copied elsewhere, so that the files become free. One mechanism for
//! keeping the journal within its budget, for making backlogs readable, and for compacting pages.
//!
//! When the journal is over its budget:
//! 1. A segment of which three quarters are one queue's, alive, is as good as a page already: it is *kept*, which
//!    costs nothing but that it counts no longer. A deep backlog of one queue is written once.
//! 2. Of the oldest others, so many that half the budget is free afterwards, or of all: a queue with enough in them
//!    gets it written into page files (`page.rs`); what is left of the others is appended again at the head, under
//!    its own queue and number, flagged as moved. But only if that frees twice what it appends.
//! 3. Else the segment with the smallest living part, if less than half of it is alive.
//!
//! Pages of which less than two fifths are alive go through step 2, whether the journal is over its budget or not (and
//! segments, if the two together are), once nothing was acknowledged in them for as long as lies between two checkpoints: what is being consumed is soon free by itself.
//!
//! In every case the files are then dead like any other, and go when a durable checkpoint no longer mentions them.

use crate::Level;
use crate::index::{Index, Kind, References, Segment};
use crate::manifest::is_full;
use crate::page::{Pages, STREAMS_MAX};
use crate::reclaim::{Copies, Keeper, Pump};
use crate::record::Body;
use crate::segment::{Reader, stamp};
use crate::shared::Shared;
use crate::stats::Counters;
use sabir_model::ids::Position;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Live bytes of a queue that are worth a page file, and its sync.
const PAGE_BYTES_MIN: u64 = if cfg!(test) { 300 } else { 256 << 10 };
/// Unwritten bytes above which evacuation waits for the committer.
const PENDING_MAX: usize = 4 << 20;
/// Files evacuated together, at first, and if that is not worth while.
const VICTIMS: usize = 16;
const VICTIMS_MAX: usize = 64;
/// How often the same files may be read for it, each time for [`STREAMS_MAX`] queues.
const PASSES_MAX: usize = if cfg!(test) { 128 } else { 16 };
/// Sparse pages evacuated together.
const SPARSE_MAX: usize = 1024;
/// Runs looked at in one go, with the index locked.
const RUNS_MAX: usize = 4096;
/// Longest rest in one piece.
const REST_MAX: Duration = Duration::from_secs(1);

/// What is to be evacuated.
pub(crate) struct Plan {
    victims: Vec<u64>,
    /// Queues that get page files.
    queues: Vec<u64>,
    /// Whether the others are moved, or wait for their turn.
    remainders: bool,
    /// Most bytes that may be moved.
    moved_max: u64,
}

/// A file that could not be read or written.
pub(crate) struct Failed {
    pub(crate) what: &'static str,
    pub(crate) file: PathBuf,
    pub(crate) source: io::Error,
}

impl Failed {
    fn new(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self { what, file, source }
    }
}

/// Live bytes by file, then by queue.
type Shares = BTreeMap<u64, Vec<(u64, u64)>>;

/// How copying out of a file ended.
enum Outcome {
    Done,
    /// More was alive than the numbers told.
    TooMuch,
    /// It cannot go on now.
    NotNow,
    /// The disk does not give the file back.
    Unreadable(io::Error),
}

/// What one evacuation has done so far.
struct Work<'a> {
    plan: &'a Plan,
    references: References,
    pages: Pages<'a>,
    copies: Copies,
    /// Bytes moved, and messages copied out of the present file.
    moved: u64,
    copied: u64,
    /// Since when it works without a rest.
    since: Duration,
}

impl Keeper {
    /// What is worth evacuating now.
    pub(crate) fn plan(&mut self) -> Option<Plan> {
        let full = self.shared.journal.disk_full.load(Ordering::Relaxed);
        let (mut over, sparse) = {
            let index = self.shared.index.lock();
            if index.lsn < self.copies {
                return None;
            }
            let over = index.journal_bytes() > self.shared.options.journal_bytes_max;
            (over, self.sparse(&index))
        };
        // Looking at every run again is no use before anything has changed. And pages need space before they give some.
        if !full && (over || !sparse.is_empty()) && self.futile != Some(self.number) {
            let plan = if over { self.window() } else { None };
            if let Some(plan) = plan.or_else(|| self.rewriting(sparse)) {
                return Some(plan);
            }
            self.futile = Some(self.number);
            over = self.shared.index.lock().journal_bytes() > self.shared.options.journal_bytes_max;
        }
        if over { self.cheapest(full) } else { None }
    }

    /// Pages to be written anew; and if there is more than the budget in all, segments as well: what may lie dead in the
    /// journal is not on top of what may lie dead in pages.
    fn sparse(&self, index: &Index) -> Vec<(u64, u64)> {
        let budget = self.shared.options.journal_bytes_max;
        let all = index.segments.values().fold(0u64, |all, info| all.saturating_add(info.end));
        let (mut bytes, mut dead) = (0u64, 0u64);
        let mut sparse = Vec::new();
        for (&number, info) in index.segments.iter().filter(|(_, info)| info.live > 0) {
            let is_page = info.kind != Kind::Journal;
            if is_page {
                bytes = bytes.saturating_add(info.end);
            }
            if !info.is_sparse() || !is_patient(info) || number == index.active {
                continue;
            }
            if is_page {
                dead = dead.saturating_add(info.end - info.bytes_live());
            }
            if is_page || all > budget {
                sparse.push((number, info.end, info.calm && info.live == info.seen, is_page));
            }
        }
        // What is being consumed is left alone, unless it is too much.
        let urgent = dead > bytes / 2 && dead > budget / 4;
        sparse.retain(|(_, _, cold, is_page)| *cold || (urgent && *is_page));
        // As much as of the journal, so that what is copied is soon outweighed by what gets free.
        let mut room = self.shared.options.segment_bytes.saturating_mul(VICTIMS as u64);
        let few = sparse.into_iter().take(SPARSE_MAX).map(|(number, end, ..)| (number, end));
        few.take_while(|(_, end)| {
            let before = room;
            room = room.saturating_sub(*end);
            before > 0
        })
        .collect()
    }

    fn rewriting(&self, mut sparse: Vec<(u64, u64)>) -> Option<Plan> {
        let shares = shares(&self.shared, sparse.iter().map(|(number, _)| *number));
        while !sparse.is_empty() {
            if let Some(plan) = self.weigh(&sparse, &shares) {
                return Some(plan);
            }
            sparse.truncate(sparse.len() / 2);
        }
        None
    }

    /// The oldest segments, as many as make it worth while.
    fn window(&self) -> Option<Plan> {
        let shared = &self.shared;
        let budget = shared.options.journal_bytes_max;
        let mut sealed: Vec<(u64, Segment)> = {
            let index = shared.index.lock();
            let sealed = index.segments.iter().filter(|(number, info)| {
                info.kind == Kind::Journal && **number != index.active && info.live > 0 && is_patient(info)
            });
            sealed.map(|(number, info)| (*number, *info)).collect()
        };
        let shares = shares(shared, sealed.iter().map(|(number, _)| *number));
        let whole = |(number, info): &(u64, Segment)| {
            let records = info.bytes.min(info.end);
            // A segment that was begun just before a restart is as large as any, and mostly empty.
            let file = info.end.max(shared.options.segment_bytes);
            let queues = shares.get(number).map(Vec::as_slice).unwrap_or_default();
            queues.iter().any(|(_, bytes)| {
                bytes.saturating_mul(4) >= records.saturating_mul(3) && bytes.saturating_mul(2) >= file
            })
        };
        let journal = {
            let mut index = shared.index.lock();
            for (number, _) in sealed.iter().filter(|entry| whole(entry)) {
                if let Some(info) = index.segments.get_mut(number) {
                    info.kind = Kind::Kept;
                }
            }
            index.journal_bytes()
        };
        if journal <= budget {
            return None;
        }
        sealed.retain(|entry| !whole(entry));
        let sealed: Vec<(u64, u64)> = sealed.into_iter().map(|(number, info)| (number, info.end)).collect();
        let (mut oldest, mut left) = (0, journal);
        for (_, end) in sealed.iter().take(VICTIMS) {
            if left <= budget / 2 {
                break;
            }
            left = left.saturating_sub(*end);
            oldest += 1;
        }
        let windows = [oldest, sealed.len().min(VICTIMS_MAX)];
        windows.into_iter().find_map(|n| self.weigh(sealed.get(..n)?, &shares))
    }

    /// A plan for some files, if it is worth while.
    fn weigh(&self, files: &[(u64, u64)], shares: &Shares) -> Option<Plan> {
        let mut totals: HashMap<u64, u64> = HashMap::new();
        for (queue, bytes) in files.iter().filter_map(|(number, _)| shares.get(number)).flatten() {
            *totals.entry(*queue).or_default() += bytes;
        }
        let frees: u64 = files.iter().map(|(_, end)| *end).sum();
        let (mut deep, small): (Vec<_>, Vec<_>) =
            totals.into_iter().partition(|(_, bytes)| *bytes >= PAGE_BYTES_MIN);
        let mut moved: u64 = small.into_iter().map(|(_, bytes)| bytes).sum();
        deep.sort_unstable_by_key(|(queue, bytes)| (std::cmp::Reverse(*bytes), *queue));
        if deep.len() > STREAMS_MAX * PASSES_MAX {
            // Reading the same over and over costs more than what lies interleaved.
            return None;
        }
        let remainders = deep.len() <= self.streams_max;
        if !remainders {
            deep.truncate(self.streams_max);
            moved = 0;
        }
        let paged: u64 = deep.iter().map(|(_, bytes)| bytes).sum();
        let moved_max = (frees / 2).min(self.shared.options.segment_bytes);
        if files.is_empty() || moved > moved_max || !self.is_room(paged) {
            return None;
        }
        Some(Plan {
            victims: files.iter().map(|(number, _)| *number).collect(),
            queues: deep.into_iter().map(|(queue, _)| queue).collect(),
            remainders,
            moved_max,
        })
    }

    /// Whether page files of so many bytes may be written before what they replace is free.
    fn is_room(&self, bytes: u64) -> bool {
        let options = &self.shared.options;
        let reserve = bytes.saturating_add(options.segment_bytes.saturating_mul(2));
        if let Some(max) = options.disk_bytes_max {
            let used = self.shared.pool.state.lock().disk_bytes;
            if used.saturating_add(reserve) > max && bytes > 0 {
                return false;
            }
        }
        let kept = options.disk_free_bytes_min.max(options.disk_free_bytes_resume);
        bytes == 0
            || self
                .shared
                .fs
                .free_bytes(&self.shared.paths.root)
                .is_ok_and(|free| free >= kept.saturating_add(reserve))
    }

    /// The file with the smallest living part, if one is worth copying to the head of the log.
    fn cheapest(&self, full: bool) -> Option<Plan> {
        let index = self.shared.index.lock();
        let share = |info: &Segment| info.live as f64 / info.total.max(1) as f64;
        let worth = |entry: &(&u64, &Segment)| {
            let (&number, info) = *entry;
            let cheap =
                !full || share(info) * info.end as f64 <= self.shared.options.segment_bytes as f64 / 8.0;
            number != index.active
                && info.live > 0
                && share(info) < 0.5
                && (full || info.kind == Kind::Journal)
                && is_patient(info)
                && cheap
        };
        let candidates = index.segments.iter().filter(worth);
        candidates.min_by(|a, b| share(a.1).total_cmp(&share(b.1))).map(|(&number, info)| Plan {
            victims: vec![number],
            queues: Vec::new(),
            remainders: true,
            moved_max: info.end / 2,
        })
    }

    /// Copies what is alive in the victims elsewhere. `Ok(false)`: not finished now, and nothing is lost.
    pub(crate) fn evacuate(&mut self, pump: &mut dyn Pump, plan: &Plan) -> Result<bool, Failed> {
        let shared = Arc::clone(&self.shared);
        let mut work = Work {
            plan,
            references: shared.index.lock().references_into(&plan.victims),
            pages: Pages::new(&shared, &plan.queues),
            copies: Copies::default(),
            moved: 0,
            copied: 0,
            since: shared.fs.elapsed(),
        };
        let mut untouched = Vec::new();
        for &victim in &plan.victims {
            work.copied = 0;
            match self.copy_out(pump, victim, &mut work) {
                Ok(Outcome::Done) if work.copied == 0 => untouched.push(victim),
                Ok(Outcome::Done) => {}
                Ok(Outcome::TooMuch) => {
                    work.pages.abandon();
                    self.give_up(pump, victim);
                    return Ok(true);
                }
                Ok(Outcome::NotNow) => {
                    work.pages.abandon();
                    return Ok(false);
                }
                Ok(Outcome::Unreadable(error)) => {
                    work.pages.abandon();
                    self.leave(victim, &error);
                    return Ok(true);
                }
                Err(failed) => return self.retreat(work.pages, failed),
            }
        }
        let written = match work.pages.sync().map_err(Failed::new("write page files in", &shared.paths.pages))
        {
            Ok(written) => written,
            Err(failed) => return self.retreat(work.pages, failed),
        };
        for piece in written.pieces() {
            let mut appender = shared.journal.begin();
            appender.paged(piece);
            self.copies = appender.finish(Level::Os).0;
            // Piece by piece, so that nobody waits long for the index.
            if !pump.applied(Position(self.copies)) {
                return Ok(false);
            }
        }
        if !pump.synced(Position(self.copies)) {
            return Ok(false);
        }
        self.streams_max = (self.streams_max * 2).min(STREAMS_MAX);
        Counters::add(&shared.counters.evacuations, plan.victims.len() as u64);
        // Alive still: what was referenced meanwhile, which the next round copies; or what cannot be read at
        // all.
        let mut index = shared.index.lock();
        for victim in untouched.iter().filter(|_| plan.remainders) {
            if let Some(info) = index.segments.get_mut(victim).filter(|info| info.live > 0) {
                info.patience = Some(info.live);
            }
        }
        Ok(true)
    }

    /// Nothing points into the pages yet. A full disk is waited for; a write or sync that fails is fatal.
    fn retreat(&mut self, pages: Pages<'_>, failed: Failed) -> Result<bool, Failed> {
        let harmless = pages.refused || is_full(&failed.source);
        if pages.refused {
            self.streams_max = (self.streams_max / 2).max(1);
        }
        pages.abandon();
        if !harmless {
            return Err(failed);
        }
        self.futile = Some(self.number);
        tracing::warn!(error = %failed.source, "page files cannot be written now; the log cannot shrink until they can");
        Ok(false)
    }

    fn copy_out(&mut self, pump: &mut dyn Pump, victim: u64, work: &mut Work<'_>) -> Result<Outcome, Failed> {
        let shared = Arc::clone(&self.shared);
        let Some(info) = shared.index.lock().segments.get(&victim).copied() else { return Ok(Outcome::Done) };
        let path = shared.paths.file(victim, info.kind == Kind::Page);
        let reader = shared
            .fs
            .open(&path)
            .and_then(|file| Reader::new(file, stamp(shared.store_id, victim), Some(info.end)));
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Unreadable(error)),
            Err(error) => {
                // For want of handles, say.
                tracing::warn!(file = %path.display(), %error, "a file of the message log cannot be evacuated now");
                self.futile = Some(self.number);
                return Ok(Outcome::NotNow);
            }
        };
        let mut expected = 0;
        let mut next = Ok(Some(0));
        loop {
            let offset = match next {
                Ok(Some(offset)) if offset < info.end => offset,
                Ok(_) => return Ok(Outcome::Done),
                Err(error) => return Ok(Outcome::Unreadable(error)),
            };
            let offset = match reader.place(offset, expected) {
                Ok(offset) => offset,
                Err(error) => return Ok(Outcome::Unreadable(error)),
            };
            let body = match reader.frame(offset) {
                Ok(Some((header, body))) => {
                    next = Ok(Some(header.end(offset)));
                    expected = header.last() + 1;
                    body
                }
                Ok(None) => {
                    // Recovery reported what is damaged here; what is whole behind it is copied all the same.
                    next = reader.resync(offset);
                    continue;
                }
                Err(error) => return Ok(Outcome::Unreadable(error)),
            };
            work.copies.collect(&shared, victim, body, &work.references);
            match self.copy(pump, body, work)? {
                Outcome::Done => {}
                other => return Ok(other),
            }
        }
    }

    /// Copies the live messages of one frame.
    fn copy(&mut self, pump: &mut dyn Pump, body: &[u8], work: &mut Work<'_>) -> Result<Outcome, Failed> {
        let shared = Arc::clone(&self.shared);
        for copy in &work.copies.list {
            let (Some(head), Some(inline)) = (body.get(copy.head.clone()), body.get(copy.body.clone()))
            else {
                continue;
            };
            let payload = copy.blob.map_or(Body::Inline(inline), Body::Blob);
            let targets = work.copies.targets.get(copy.targets.clone()).unwrap_or_default();
            if work.pages.take(targets, copy.meta, head, payload) {
                work.copied += 1;
                continue;
            }
            if !work.plan.remainders {
                continue;
            }
            let len = (head.len() + inline.len()) as u64;
            if work.moved + len > work.plan.moved_max {
                return Ok(Outcome::TooMuch);
            }
            let mut appender = shared.journal.begin();
            appender.moved(targets, copy.meta, head, payload);
            self.copies = appender.finish(Level::Os).0;
            work.copied += 1;
            work.moved += len;
            Counters::add(&shared.counters.evacuated_bytes, len);
            if shared.journal.pending_bytes() > PENDING_MAX && !pump.synced(Position(self.copies)) {
                return Ok(Outcome::NotNow);
            }
        }
        if work.pages.is_full() {
            work.pages.write().map_err(Failed::new("write page files in", &shared.paths.pages))?;
            if !self.rest(&mut work.since) {
                return Ok(Outcome::NotNow);
            }
        }
        Ok(Outcome::Done)
    }

    /// Leaves half of the time to others, unless the journal grows faster than that. False if the log is being closed.
    fn rest(&self, since: &mut Duration) -> bool {
        let shared = &self.shared;
        if shared.options.manual {
            return true;
        }
        let budget = shared.options.journal_bytes_max;
        let hurried = shared.index.lock().journal_bytes() > budget.saturating_add(budget / 2);
        let worked = shared.fs.elapsed().saturating_sub(*since);
        let mut state = shared.keeper.lock();
        if !state.stop && !hurried {
            shared.keeper_wake.wait_for(&mut state, worked.min(REST_MAX));
        }
        *since = shared.fs.elapsed();
        !state.stop && shared.journal.failed().is_none()
    }

    /// What cannot be read stays where it is, until the next start at least: those who want it are told.
    fn leave(&self, victim: u64, error: &io::Error) {
        let shared = &self.shared;
        if shared.journal.failed().is_some() {
            return;
        }
        let mut index = shared.index.lock();
        let path = shared.paths.file(victim, index.is_page(victim));
        if let Some(info) = index.segments.get_mut(&victim) {
            info.patience = Some(0);
        }
        drop(index);
        shared.readers.note_damage(victim, 0);
        tracing::error!(file = %path.display(), %error, "the message log cannot be read; what is in this file stays there");
    }

    /// More is alive than the numbers told (few, but large messages): not before half of it is gone.
    fn give_up(&self, pump: &mut dyn Pump, victim: u64) {
        pump.synced(Position(self.copies));
        if let Some(info) = self.shared.index.lock().segments.get_mut(&victim) {
            info.patience = Some(info.live.div_ceil(2));
        }
    }
}

fn is_patient(info: &Segment) -> bool {
    info.patience.is_none_or(|patience| info.live < patience)
}

/// How much of some files is whose. Looks at every run there is, but never long at once.
fn shares(shared: &Shared, files: impl Iterator<Item = u64>) -> Shares {
    let files: BTreeSet<u64> = files.collect();
    let mut shares = Shares::new();
    let mut ids: Vec<u64> = shared.index.lock().queues.keys().copied().collect();
    let mut next = 0;
    while !ids.is_empty() {
        let index = shared.index.lock();
        let mut seen = 0;
        while let Some(&id) = ids.last().filter(|_| seen < RUNS_MAX) {
            let mut runs = index.queues.get(&id).into_iter().flat_map(|queue| queue.runs_from(next));
            let mut more = None;
            for (last, run) in runs.by_ref().take(RUNS_MAX) {
                seen += 1;
                more = last.checked_add(1);
                if !files.contains(&run.segment) {
                    continue;
                }
                let bytes = run.bytes_of(run.count(last));
                let queues = shares.entry(run.segment).or_default();
                match queues.last_mut().filter(|(queue, _)| *queue == id) {
                    Some((_, sum)) => *sum = sum.saturating_add(bytes),
                    None => queues.push((id, bytes)),
                }
            }
            match (runs.next(), more) {
                (Some(_), Some(more)) => next = more,
                _ => {
                    next = 0;
                    ids.pop();
                }
            }
            seen += 1;
        }
    }
    shares
}
