//! The committer: takes what was appended, writes it as frames, syncs if any group of it asks for that,
//! publishes the positions, wakes who waits, and applies the frames to the index.
//!
//! There is no timer: a batch is whatever arrived during the last write and sync. The only clocks are the
//! deadline of `interval` groups and the idle mark, an empty synced frame that carries `durable_lsn`, by
//! which recovery tells a rotten last frame from a torn one. A failed write or sync is never retried: the
//! kernel may have marked the pages clean.

use crate::journal::{Batch, Buffer, FrameBuf, Journal};
use crate::manifest::{is_full, is_passing};
use crate::pool::{RETRY, Ready};
use crate::segment::{FRAME_HEADER, Header, align, mark_offset, seal};
use crate::shared::Shared;
use crate::stats::Counters;
use parking_lot::MutexGuard;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long nothing must have been appended before the idle mark is written.
const IDLE: Duration = Duration::from_millis(50);

/// How often a store that is being closed looks for space for what it still holds.
const CLOSING_RETRIES: u32 = 2;

pub(crate) struct Committer {
    shared: Arc<Shared>,
    active: Ready,
    offset: u64,
    /// Last position written.
    written: u64,
    /// Last position synced.
    synced: u64,
    /// The highest `durable_lsn` that a synced frame carries.
    marked: u64,
    /// Something is written and not synced.
    dirty: bool,
    /// When `interval` groups must be synced.
    deadline: Option<Duration>,
    /// Frames that found no segment; they go first.
    waiting: Batch,
    /// Frames written in this turn.
    placed: Vec<Placed>,
    wrote_mark: u64,
}

/// A frame that was written, and where.
struct Placed {
    frame: FrameBuf,
    segment: u64,
    start: u64,
    end: u64,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Everything taken is written.
    Done,
    /// No segment is ready for the rest.
    NoSpace,
    /// The log failed.
    Failed,
}

enum Failure {
    NoSpace,
    Io(&'static str, io::Error),
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, active: Ready, last: u64) -> Self {
        Self {
            shared,
            active,
            offset: 0,
            written: last,
            synced: last,
            // The checkpoint that opening wrote says as much.
            marked: last,
            dirty: false,
            deadline: None,
            waiting: Batch::default(),
            placed: Vec::new(),
            wrote_mark: last,
        }
    }

    /// The thread's loop.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut futile = 0;
        loop {
            let mut buffer = shared.journal.buffer.lock();
            let stop = self.wait(&mut buffer);
            let batch = Journal::take(&mut buffer);
            drop(buffer);
            match self.commit(batch) {
                Turn::Done if stop => {
                    self.finish();
                    return;
                }
                Turn::Done => {}
                Turn::NoSpace => {
                    futile += u32::from(stop);
                    if futile > CLOSING_RETRIES {
                        return;
                    }
                    let mut state = shared.pool.state.lock();
                    if state.ready.is_empty() || self.needs_more_than(&state.ready) || self.needs_bodies() {
                        shared.pool.changed.wait_for(&mut state, RETRY);
                    }
                }
                Turn::Failed => return,
            }
        }
    }

    fn needs_more_than(&self, ready: &std::collections::VecDeque<Ready>) -> bool {
        let needed = self.waiting.frames.first().map_or(0, |frame| frame.bytes.len() as u64);
        ready.front().is_none_or(|ready| ready.capacity < needed)
    }

    /// Whether the next frame waits for the bodies that it names.
    fn needs_bodies(&self) -> bool {
        let next = self.waiting.frames.first().filter(|frame| frame.sync_blobs);
        next.is_some_and(|frame| frame.blobs.iter().any(|blob| !blob.name().synced))
    }

    /// Waits until there is something to do; true if the store is being closed.
    fn wait(&mut self, buffer: &mut MutexGuard<'_, Buffer>) -> bool {
        if !self.waiting.frames.is_empty() {
            return buffer.stop;
        }
        while !Journal::has_work(buffer) && !buffer.stop {
            let idle = (self.synced > self.marked).then_some(IDLE);
            let until = self.deadline.map(|at| at.saturating_sub(self.shared.fs.elapsed()));
            let timeout = match (idle, until) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (one, other) => one.or(other),
            };
            buffer.asleep = true;
            let timed_out = match timeout {
                Some(Duration::ZERO) => true,
                Some(span) => self.shared.journal.work.wait_for(buffer, span).timed_out(),
                None => {
                    self.shared.journal.work.wait(buffer);
                    false
                }
            };
            buffer.asleep = false;
            if timed_out && !Journal::has_work(buffer) && !buffer.stop {
                Journal::shrink(buffer);
                MutexGuard::unlocked(buffer, || self.on_timeout());
                if self.shared.journal.failed().is_some() {
                    return true;
                }
            }
        }
        buffer.stop
    }

    fn on_timeout(&mut self) {
        if self.deadline.is_some_and(|at| at <= self.shared.fs.elapsed()) {
            if let Err(failure) = self.sync() {
                self.fail(failure);
                return;
            }
            self.shared.journal.publish(self.written, Some(self.synced), 0);
        } else if self.deadline.is_none() && self.synced > self.marked {
            self.mark();
        }
    }

    /// One turn without a thread: for [`crate::Store::turn`].
    pub(crate) fn turn(&mut self) -> Turn {
        let batch = Journal::take(&mut self.shared.journal.buffer.lock());
        let idle = batch.frames.is_empty() && self.waiting.frames.is_empty() && !batch.sync;
        let turn = self.commit(batch);
        if turn == Turn::Done && idle {
            self.on_timeout();
        }
        turn
    }

    /// Writes a batch, and whatever waited before it.
    fn commit(&mut self, mut batch: Batch) -> Turn {
        if self.shared.journal.failed().is_some() {
            return Turn::Failed;
        }
        // Only after everything that could be written is applied is it said that the rest cannot be.
        self.shared.journal.stalled.store(false, Ordering::Release);
        let mut queue = std::mem::take(&mut self.waiting);
        queue.frames.append(&mut batch.frames);
        queue.sync |= batch.sync;
        queue.bytes += batch.bytes;
        let sync = queue.sync;
        let interval = match (queue.interval, batch.interval) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        let mut frames = queue.frames.into_iter();
        let mut outcome = Ok(());
        let mut bytes = 0;
        for mut frame in frames.by_ref() {
            let len = frame.bytes.len();
            match self.write(&mut frame) {
                Ok(start) => {
                    bytes += len.saturating_sub(FRAME_HEADER);
                    self.placed.push(Placed { frame, segment: self.active.number, start, end: self.offset });
                }
                Err(failure) => {
                    self.waiting.frames.push(frame);
                    outcome = Err(failure);
                    break;
                }
            }
        }
        self.waiting.frames.extend(frames);
        self.waiting.bytes = queue.bytes.saturating_sub(bytes);
        // What waits will want its own sync; what is written gets it now.
        let waits = !self.waiting.frames.is_empty();
        self.waiting.sync = sync && waits;
        self.waiting.interval = interval.filter(|_| waits);
        if let Some(span) = interval {
            let at = self.shared.fs.elapsed().saturating_add(span);
            self.deadline = Some(self.deadline.map_or(at, |other| other.min(at)));
        }
        let due = self.deadline.is_some_and(|at| at <= self.shared.fs.elapsed());
        let outcome = match outcome {
            Ok(()) if sync || due => self.sync(),
            Ok(()) => Ok(()),
            Err(Failure::NoSpace) => self.sync().and(Err(Failure::NoSpace)),
            Err(failure) => Err(failure),
        };
        if let Err(failure @ Failure::Io(..)) = outcome {
            self.fail(failure);
            return Turn::Failed;
        }
        self.shared.journal.publish(self.written, Some(self.synced), bytes);
        self.apply();
        if outcome.is_err() {
            self.shared.journal.stalled.store(true, Ordering::Release);
            self.shared.wake_readers();
            return Turn::NoSpace;
        }
        Turn::Done
    }

    fn apply(&mut self) {
        if self.placed.is_empty() {
            return;
        }
        let mut bytes = 0;
        let (dead_before, dead_after);
        {
            let mut index = self.shared.index.lock();
            dead_before = index.blobs.dead_bytes();
            for Placed { frame, segment, start, end } in &self.placed {
                let body = frame.bytes.get(FRAME_HEADER..).unwrap_or_default();
                let header =
                    Header { len: body.len() as u64, lsn: frame.first, durable: 0, groups: frame.groups };
                index.apply(*segment, *start, *end, &header, body);
                bytes += frame.bytes.len() as u64;
            }
            dead_after = index.blobs.dead_bytes();
        }
        // Whoever reads what was not written yet waits for this.
        self.shared.applied.notify_all();
        let frames = self.placed.drain(..).map(|placed| placed.frame).collect();
        self.shared.journal.give_back(frames);
        let before = self.shared.uncheckpointed.fetch_add(bytes, Ordering::Relaxed);
        let due = self.shared.checkpoint_bytes();
        // Files of large messages that are settled go with a checkpoint, too.
        if (before < due && before + bytes >= due) || (dead_before < due && dead_after >= due) {
            self.shared.nudge_keeper();
        }
    }

    /// Writes a frame; returns where it starts.
    fn write(&mut self, frame: &mut FrameBuf) -> Result<u64, Failure> {
        let len = frame.bytes.len() as u64;
        if self.offset.saturating_add(len) > self.active.capacity {
            self.roll(len)?;
        }
        if frame.sync_blobs {
            for blob in &frame.blobs {
                blob.sync().map_err(|e| match is_passing(&e) {
                    // It cannot even be opened: the frame waits, as for a segment.
                    true => Failure::NoSpace,
                    false => Failure::Io("sync the message bodies named in", e),
                })?;
            }
        }
        seal(&mut frame.bytes, self.active.stamp, self.offset, frame.first, self.synced, frame.groups);
        let start = self.offset;
        self.active.file.write_at(&frame.bytes, start).map_err(|e| Failure::Io("write to", e))?;
        self.offset = align(start + len);
        self.dirty = true;
        self.wrote_mark = self.synced;
        self.written = (frame.first + u64::from(frame.groups)).saturating_sub(1).max(self.written);
        Counters::add(&self.shared.counters.bytes_written, len);
        Counters::add(&self.shared.counters.frames, 1);
        Counters::add(&self.shared.counters.groups, u64::from(frame.groups));
        Ok(start)
    }

    /// Goes on in the next segment. The old one is synced first, so damage in it is never a torn end.
    fn roll(&mut self, needed: u64) -> Result<(), Failure> {
        self.sync()?;
        let Some(mut next) = self.shared.pool.take() else { return Err(Failure::NoSpace) };
        if let Err(error) = self.shared.enlarge(&mut next, needed) {
            self.shared.pool.untake(next);
            if is_full(&error) {
                return Err(Failure::NoSpace);
            }
            return Err(Failure::Io("allocate space in", error));
        }
        self.active = next;
        self.offset = 0;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.deadline = None;
        if !self.dirty {
            return Ok(());
        }
        let started = self.shared.fs.elapsed();
        self.active.file.sync_data().map_err(|e| Failure::Io("sync", e))?;
        let took = self.shared.fs.elapsed().saturating_sub(started);
        self.shared.counters.synced_in(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.dirty = false;
        self.synced = self.written;
        self.marked = self.wrote_mark;
        Ok(())
    }

    /// Writes the empty synced frame that carries `durable_lsn`.
    fn mark(&mut self) {
        let mut frame = FrameBuf::default();
        frame.reset(Vec::new(), self.written + 1);
        self.offset = mark_offset(self.offset, self.active.capacity);
        let written = self.write(&mut frame).and_then(|start| self.sync().map(|()| start));
        match written {
            Ok(start) => {
                let end = self.offset;
                let header = Header { len: 0, lsn: self.written + 1, durable: 0, groups: 0 };
                self.shared.index.lock().apply(self.active.number, start, end, &header, &[]);
            }
            // A mark is not worth the reserve.
            Err(Failure::NoSpace) => self.marked = self.synced,
            Err(failure) => self.fail(failure),
        }
    }

    /// The last act before the thread ends.
    pub(crate) fn finish(&mut self) {
        if self.shared.journal.failed().is_some() {
            return;
        }
        match self.sync() {
            Ok(()) => self.shared.journal.publish(self.written, Some(self.synced), 0),
            Err(failure) => return self.fail(failure),
        }
        if self.synced > self.marked {
            self.mark();
        }
    }

    fn fail(&mut self, failure: Failure) {
        let (what, error) = match failure {
            Failure::Io(what, error) => (what, error),
            Failure::NoSpace => ("find space for", io::ErrorKind::StorageFull.into()),
        };
        let file: PathBuf = self.shared.paths.segment(self.active.number);
        // First of all: what the frames name must not be taken for unneeded.
        self.shared.fatal(what, &file, &error);
        self.placed.clear();
        self.waiting = Batch::default();
    }
}
