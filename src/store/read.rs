//! Reading messages back: the journal's segments and the page files are where a backlog is, so they are read in
//! place.
//!
//! The index says in which stretch of which segment a message lies; from there frames are read, and checked,
//! until everything wanted is found. Nothing is locked meanwhile: the keeper may copy the message elsewhere
//! and give the file a new life. Frames of that life do not carry the stamp, so they are never believed; a
//! message that is not where it was is looked up again, and only if the index still names the same place is
//! that place damaged.
//!
//! A few readers are kept with what they have read last, so whoever reads a queue piece by piece reads each
//! byte once. What they hold cannot be wrong: a frame that is sound under its segment's number stays as it is.

use crate::error::ReadError;
use crate::record::{Body, Op, Ops};
use crate::runs::Run;
use crate::segment::{Reader, stamp};
use crate::shared::Shared;
use crate::stats::Counters;
use crate::{Each, Payload};
use parking_lot::Mutex;
use sabir_model::ids::{Position, QueueId, Sequence};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Readers kept for who goes on reading, and the bytes that they hold of what was read last. The more there are, the
/// less each reads ahead.
const READERS_MAX: usize = 128;
const READERS_BYTES_MAX: usize = 16 << 20;
/// Places remembered where somebody read on whose reader is no longer kept.
const MARKS_MAX: usize = 1024;
/// Wanted ranges looked up at once, and pieces of them.
const RANGES_MAX: usize = 256;
const PIECES_MAX: usize = 4096;
/// Damaged places remembered, to be counted once.
const DAMAGED_MAX: usize = 1024;

/// A reader of one segment, and where whoever reads on may begin.
struct Opened {
    segment: u64,
    reader: Reader,
    resume: Option<Resume>,
}

/// Behind the message that was told last: its queue and the number after it (as records name them), the frame
/// it lies in, and its group in there.
#[derive(Clone, Copy)]
struct Resume {
    queue: u64,
    next: u64,
    frame: u64,
    group: usize,
}

/// See [`READERS_MAX`].
#[derive(Default)]
pub(crate) struct Readers {
    kept: Mutex<Kept>,
    /// Segments and offsets where something that should be there cannot be read.
    damaged: Mutex<BTreeSet<(u64, u64)>>,
}

/// Readers by when they were used last, and places of those that were let go.
#[derive(Default)]
struct Kept {
    opened: VecDeque<Opened>,
    marks: VecDeque<(u64, Resume)>,
}

impl Kept {
    fn mark(&mut self, segment: u64, resume: Resume) {
        if self.marks.len() >= MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((segment, resume));
    }

    fn marked(&mut self, segment: u64, queue: u64) -> Option<Resume> {
        let at = self.marks.iter().rposition(|(of, resume)| *of == segment && resume.queue == queue)?;
        self.marks.remove(at).map(|(_, resume)| resume)
    }
}

impl Readers {
    /// A reader of a segment, if one is kept; and where whoever reads this queue out of it may begin, if that is known.
    fn take(&self, segment: u64, queue: u64) -> (Option<Opened>, Option<Resume>) {
        let mut kept = self.kept.lock();
        let of_queue = |opened: &Opened| opened.resume.is_some_and(|resume| resume.queue == queue);
        let same = kept.opened.iter().rposition(|opened| opened.segment == segment && of_queue(opened));
        let at = same.or_else(|| kept.opened.iter().rposition(|opened| opened.segment == segment));
        let Some(mut opened) = at.and_then(|at| kept.opened.remove(at)) else {
            return (None, kept.marked(segment, queue));
        };
        let resume = opened.resume.take();
        if same.is_some() {
            return (Some(opened), resume);
        }
        if let Some(resume) = resume {
            kept.mark(segment, resume);
        }
        let marked = kept.marked(segment, queue);
        (Some(opened), marked)
    }

    /// What each may read ahead, so that there is room for as many as there are now.
    fn share(&self) -> usize {
        READERS_BYTES_MAX / 2 / (self.kept.lock().opened.len() + 1)
    }

    fn keep(&self, mut opened: Opened) {
        opened.reader.shrink();
        let mut kept = self.kept.lock();
        kept.opened.push_back(opened);
        let mut bytes: usize = kept.opened.iter().map(|opened| opened.reader.held()).sum();
        while kept.opened.len() > READERS_MAX || (bytes > READERS_BYTES_MAX && kept.opened.len() > 1) {
            let Some(gone) = kept.opened.pop_front() else { return };
            bytes -= gone.reader.held();
            if let Some(resume) = gone.resume {
                kept.mark(gone.segment, resume);
            }
        }
    }

    /// These segments hold nothing any more; their space is wanted.
    pub(crate) fn forget(&self, segments: &[u64]) {
        let mut kept = self.kept.lock();
        kept.opened.retain(|opened| !segments.contains(&opened.segment));
        kept.marks.retain(|(segment, _)| !segments.contains(segment));
        drop(kept);
        self.damaged.lock().retain(|(segment, _)| !segments.contains(segment));
    }

    /// Closes all files: nothing was read for a while, or the log ends.
    pub(crate) fn clear(&self) {
        *self.kept.lock() = Kept::default();
    }

    /// False if it was known before.
    pub(crate) fn note_damage(&self, segment: u64, offset: u64) -> bool {
        let mut damaged = self.damaged.lock();
        damaged.len() < DAMAGED_MAX && damaged.insert((segment, offset))
    }

    pub(crate) fn damaged(&self) -> u64 {
        self.damaged.lock().len() as u64
    }
}

/// What is wanted out of one run.
struct Piece {
    segment: u64,
    is_page: bool,
    /// Where to begin to look.
    place: u64,
    /// End of the segment's last frame.
    end: u64,
    /// The queue by whose number the records name the messages, and what to take from those numbers.
    origin: u64,
    shift: u64,
    /// Live numbers, ascending.
    wanted: VecDeque<(u64, u64)>,
}

impl Piece {
    fn is_of(&self, run: &Run) -> bool {
        self.segment == run.segment && self.origin == run.origin.0 && self.shift == shift(run)
    }

    fn first(&self) -> Option<u64> {
        self.wanted.front().map(|(first, _)| *first)
    }

    fn is_wanted(&self, sequence: u64) -> bool {
        let at = self.wanted.partition_point(|(_, last)| *last < sequence);
        self.wanted.get(at).is_some_and(|(first, _)| *first <= sequence)
    }

    /// Wants nothing up to `sequence` any more.
    fn pass(&mut self, sequence: u64) {
        while let Some((first, last)) = self.wanted.front_mut() {
            if *last > sequence {
                *first = (*first).max(sequence.saturating_add(1));
                return;
            }
            self.wanted.pop_front();
        }
    }
}

fn shift(run: &Run) -> u64 {
    run.origin.1.wrapping_sub(run.first)
}

/// How a piece ended.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// Everything was told, or is lost.
    Done,
    /// The index names another place by now.
    Elsewhere,
    /// Enough.
    Stopped,
}

/// One call of [`crate::Store::read`].
pub(crate) struct Reading<'a> {
    shared: &'a Arc<Shared>,
    /// Has everything up to a position written and applied; false if that cannot be had.
    write: &'a mut dyn FnMut(Position) -> bool,
    queue: QueueId,
    written: bool,
    /// Nothing before this number is told any more.
    cursor: u64,
    damage: Option<(PathBuf, u64)>,
    lost: Vec<(Sequence, Sequence)>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        queue: QueueId,
        write: &'a mut dyn FnMut(Position) -> bool,
    ) -> Self {
        Self { shared, write, queue, written: false, cursor: 0, damage: None, lost: Vec::new() }
    }

    pub(crate) fn run(
        mut self,
        wanted: &mut dyn Iterator<Item = (Sequence, Sequence)>,
        each: Each<'_>,
    ) -> Result<(), ReadError> {
        Counters::add(&self.shared.counters.reads, 1);
        let mut stopped = false;
        while !stopped {
            self.look()?;
            let batch: Vec<(u64, u64)> =
                wanted.take(RANGES_MAX).map(|(first, last)| (first.0, last.0)).collect();
            if batch.is_empty() {
                break;
            }
            stopped = self.batch(&batch, each)?;
        }
        match self.damage {
            Some((file, offset)) => Err(ReadError::Damaged { file, offset, lost: self.lost }),
            None => Ok(()),
        }
    }

    /// Whether there is anything to read from.
    fn look(&self) -> Result<(), ReadError> {
        let journal = &self.shared.journal;
        match journal.failed() {
            Some(sentence) => Err(ReadError::Failed(sentence.to_owned())),
            None if journal.is_over() => Err(ReadError::Closed),
            None => Ok(()),
        }
    }

    /// Tells what is alive in some ranges; true if that was enough.
    fn batch(&mut self, batch: &[(u64, u64)], each: Each<'_>) -> Result<bool, ReadError> {
        loop {
            let Some((pieces, whole)) = self.plan(batch)? else { continue };
            let mut again = !whole;
            for mut piece in pieces {
                match self.piece(&mut piece, each)? {
                    Outcome::Done => {}
                    Outcome::Stopped => return Ok(true),
                    Outcome::Elsewhere => {
                        again = true;
                        break;
                    }
                }
            }
            if !again {
                return Ok(false);
            }
        }
    }

    /// Looks up where the wanted messages are; and whether these are all. `None`: what was not written yet is
    /// written now, so look again.
    fn plan(&mut self, batch: &[(u64, u64)]) -> Result<Option<(Vec<Piece>, bool)>, ReadError> {
        let (mut pieces, mut ranges, mut missing): (Vec<Piece>, usize, bool) = (Vec::new(), 0, false);
        let (mut floor, mut whole) = (self.cursor, true);
        let index = self.shared.index.lock();
        let queue = index.queues.get(&self.queue.0);
        'ranges: for &(first, last) in batch {
            let mut next = first.max(floor);
            if next > last {
                continue;
            }
            floor = last.saturating_add(1);
            let from = next;
            for (end, run) in queue.into_iter().flat_map(|queue| queue.runs_from(from)) {
                if run.first > last {
                    break;
                }
                let (low, high) = (run.first.max(next), end.min(last));
                let live = run.live(low, high);
                let piece = match pieces.last_mut() {
                    Some(piece) if piece.is_of(run) && piece.place == run.place => piece,
                    _ => {
                        pieces.push(Piece {
                            segment: run.segment,
                            is_page: index.is_page(run.segment),
                            place: run.place,
                            end: index.segments.get(&run.segment).map_or(0, |info| info.end),
                            origin: run.origin.0,
                            shift: shift(run),
                            wanted: VecDeque::new(),
                        });
                        let Some(piece) = pieces.last_mut() else { continue };
                        piece
                    }
                };
                for (low, high) in live {
                    missing |= low > next;
                    next = high.saturating_add(1);
                    piece.wanted.push_back((low, high));
                    ranges += 1;
                }
                if ranges + pieces.len() >= PIECES_MAX && next <= last {
                    whole = false;
                    break 'ranges;
                }
            }
            missing |= next <= last;
        }
        if missing && !self.written {
            self.written = true;
            let position = self.shared.journal.request_write();
            if index.lsn < position.0 {
                drop(index);
                if !(self.write)(position) {
                    self.look()?;
                    return Err(ReadError::NotWritten);
                }
                return Ok(None);
            }
        }
        Ok(Some((pieces, whole)))
    }

    fn piece(&mut self, piece: &mut Piece, each: Each<'_>) -> Result<Outcome, ReadError> {
        let (kept, resume) = self.shared.readers.take(piece.segment, piece.origin);
        let mut opened = match kept {
            Some(opened) => opened,
            None => {
                let path = self.path(piece);
                let file = match self.shared.fs.open(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        // Perhaps for want of handles: those that are only kept are given back first.
                        self.shared.readers.clear();
                        self.shared.fs.open(&path)
                    }
                    other => other,
                };
                match file {
                    Ok(file) => {
                        let stamp = stamp(self.shared.store_id, piece.segment);
                        let reader = Reader::new(file, stamp, None).map_err(|e| self.failed(piece, e))?;
                        Opened { segment: piece.segment, reader: reader.cautious(), resume: None }
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let still = self.strike(piece, u64::MAX, piece.place);
                        return Ok(if still { Outcome::Done } else { Outcome::Elsewhere });
                    }
                    Err(error) => return Err(self.failed(piece, error)),
                }
            }
        };
        opened.resume = resume;
        opened.reader.read_ahead(self.shared.readers.share());
        let outcome = self.scan(piece, &mut opened, each).map_err(|error| self.failed(piece, error));
        Counters::add(&self.shared.counters.read_bytes, std::mem::take(&mut opened.reader.read));
        if outcome.is_ok() {
            self.shared.readers.keep(opened);
        }
        outcome
    }

    fn path(&self, piece: &Piece) -> PathBuf {
        self.shared.paths.file(piece.segment, piece.is_page)
    }

    fn failed(&self, piece: &Piece, source: io::Error) -> ReadError {
        ReadError::Io { file: self.path(piece), source }
    }

    /// Reads frames until everything wanted is told. Records lie in ascending order; should they ever not, what was
    /// passed is looked for once more from the start.
    fn scan(&mut self, piece: &mut Piece, opened: &mut Opened, each: Each<'_>) -> io::Result<Outcome> {
        let mut resume = opened.resume.take().filter(|resume| {
            let first = piece.first().unwrap_or(0).wrapping_add(piece.shift);
            resume.queue == piece.origin && resume.next <= first && resume.frame >= piece.place
        });
        while let Some(first) = piece.first() {
            let mut pass = Pass { bad: None, skipped: None };
            let outcome = self.pass(piece, opened, resume.take(), &mut pass, each)?;
            if outcome != Outcome::Done || piece.first().is_none() {
                return Ok(outcome);
            }
            if piece.first() == Some(first) && opened.resume.is_none() {
                // From the very start to the end of the segment it is not there, nor anything before `skipped`.
                let until = pass.skipped.unwrap_or(u64::MAX);
                if !self.strike(piece, until, pass.bad.unwrap_or(piece.place)) {
                    return Ok(Outcome::Elsewhere);
                }
            }
            opened.resume = None;
        }
        Ok(Outcome::Done)
    }

    fn pass(
        &mut self,
        piece: &mut Piece,
        opened: &mut Opened,
        resume: Option<Resume>,
        pass: &mut Pass,
        each: Each<'_>,
    ) -> io::Result<Outcome> {
        let reader = &mut opened.reader;
        let mut offset = resume.map_or(piece.place, |resume| resume.frame);
        let mut begin = resume.map_or(0, |resume| resume.group);
        opened.resume = resume;
        let (mut expected, mut fresh) = (0, false);
        while offset < piece.end {
            offset = reader.place(offset, expected)?;
            let Some((header, body)) = reader.frame(offset)? else {
                if !std::mem::replace(&mut fresh, true) {
                    // What is kept may be older than the frame.
                    reader.forget();
                    continue;
                }
                if !self.is_still(piece) {
                    return Ok(Outcome::Elsewhere);
                }
                pass.bad.get_or_insert(offset);
                offset = reader.resync(offset)?.unwrap_or(piece.end);
                (expected, begin) = (0, 0);
                continue;
            };
            let mut ops = Ops::new(body.get(begin..).unwrap_or_default());
            let mut group = begin;
            while let Some(Ok(op)) = ops.next() {
                let (targets, meta, head, message) = match op {
                    Op::End => {
                        group = body.len() - ops.left();
                        continue;
                    }
                    Op::Put { targets, meta, head, body, .. } => (targets, meta, head, body),
                    _ => continue,
                };
                for (queue, Sequence(named)) in targets {
                    let sequence = named.wrapping_sub(piece.shift);
                    if queue.0 != piece.origin || !piece.is_wanted(sequence) {
                        continue;
                    }
                    if piece.first() != Some(sequence) {
                        let Some(bad) = pass.bad else {
                            pass.skipped = Some(pass.skipped.map_or(sequence, |other| other.min(sequence)));
                            continue;
                        };
                        if !self.strike(piece, sequence, bad) {
                            return Ok(Outcome::Elsewhere);
                        }
                    }
                    piece.pass(sequence);
                    self.cursor = sequence.saturating_add(1);
                    let next = named.wrapping_add(1);
                    opened.resume = Some(Resume { queue: queue.0, next, frame: offset, group });
                    let payload = match message {
                        Body::Inline(bytes) => Some(Payload::Inline(bytes)),
                        // Without a file any more: it was settled a moment ago.
                        Body::Blob(name) => self.shared.open_blob(name.id).map(Payload::Blob),
                    };
                    if payload.is_some_and(|payload| each(Sequence(sequence), meta, head, payload).is_break())
                    {
                        return Ok(Outcome::Stopped);
                    }
                    if piece.wanted.is_empty() {
                        return Ok(Outcome::Done);
                    }
                }
            }
            offset = header.end(offset);
            expected = header.last().saturating_add(1);
            begin = 0;
        }
        Ok(Outcome::Done)
    }

    /// Whether the index still names the place of the piece for its first message.
    fn is_still(&self, piece: &Piece) -> bool {
        let index = self.shared.index.lock();
        let found = piece.first().and_then(|first| index.queues.get(&self.queue.0)?.find(first));
        found.is_some_and(|(_, run)| piece.is_of(run))
    }

    /// Gives up what is wanted before `until`, which cannot be read where it should be; false if it should be
    /// elsewhere by now, or nowhere.
    fn strike(&mut self, piece: &mut Piece, until: u64, offset: u64) -> bool {
        while let Some(&(first, last)) = piece.wanted.front() {
            if first >= until {
                break;
            }
            let mut high = last.min(until - 1);
            {
                let index = self.shared.index.lock();
                let found = index.queues.get(&self.queue.0).and_then(|queue| queue.find(first));
                let Some((end, run)) = found.filter(|(_, run)| piece.is_of(run)) else { return false };
                high = high.min(end);
                let live = run.live(first, high).map(|(low, high)| (Sequence(low), Sequence(high)));
                self.lost.extend(live);
            }
            piece.pass(high);
            self.cursor = high.saturating_add(1);
            self.shared.readers.note_damage(piece.segment, offset);
            let file = self.path(piece);
            self.damage.get_or_insert((file, offset));
        }
        true
    }
}

/// What was met on one way through a segment.
struct Pass {
    /// The first place where no frame is.
    bad: Option<u64>,
    /// The lowest number that was wanted later than it was met.
    skipped: Option<u64>,
}
