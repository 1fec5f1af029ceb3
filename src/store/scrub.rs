//! Reading old segments slowly in the background, so that a disk that rots is noticed while there is still
//! something to be done: one pass over all sealed segments with something alive in them and over all large bodies, then
//! a day's rest.
//!
//! It changes nothing. What it finds it says in the log, and counts ([`crate::StoreStats::damaged`]).

use crate::blob_scrub::BlobScrub;
use crate::segment::{Reader, stamp};
use crate::shared::Shared;
use crate::stats::Counters;
use crate::verify::Found;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// From the end of one pass to the start of the next.
const REST: Duration = Duration::from_secs(24 * 60 * 60);
/// What may be read at once after a long sleep: as much as in this many seconds.
const BURST_SECONDS: u64 = 10;

#[derive(Default)]
pub(crate) struct Scrub {
    /// Up to when reading has been paid for.
    paid: Duration,
    /// Bytes that may be read; what was read too much is taken from it.
    credit: i64,
    /// The segment being read.
    current: Option<Current>,
    /// Segments below this were read in this pass.
    next: u64,
    blobs: BlobScrub,
    rested: Duration,
}

struct Current {
    segment: u64,
    reader: Reader,
    end: u64,
    offset: u64,
    /// The position expected next.
    expected: u64,
}

impl Scrub {
    /// Whether there is something to read soon.
    pub(crate) fn is_due(&self, shared: &Shared) -> bool {
        shared.options.scrub_bytes_per_second > 0
            && shared.fs.elapsed() >= self.rested
            && (self.current.is_some() || sealed(shared, self.next).is_some() || self.blobs.has_more(shared))
    }

    /// Reads on, as far as the rate allows.
    pub(crate) fn turn(&mut self, shared: &Shared) {
        let rate = shared.options.scrub_bytes_per_second;
        let now = shared.fs.elapsed();
        let micros = now.saturating_sub(self.paid).as_micros();
        self.paid = now;
        if rate == 0 || now < self.rested {
            return;
        }
        let earned = u128::from(rate) * micros / 1_000_000;
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        let most = i64::try_from(rate.saturating_mul(BURST_SECONDS)).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(earned).min(most);
        while self.credit > 0 {
            let Some(mut current) = self.current.take().or_else(|| self.begin(shared)) else {
                if let Some(read) = self.blobs.step(shared) {
                    Counters::add(&shared.counters.scrubbed_bytes, read);
                    self.credit = self.credit.saturating_sub(i64::try_from(read).unwrap_or(i64::MAX).max(64));
                    continue;
                }
                if self.next > 0 || self.blobs.has_begun() {
                    (self.next, self.rested) = (0, now.saturating_add(REST));
                    self.blobs.restart();
                    shared.counters.scrubs.fetch_add(1, Ordering::Relaxed);
                }
                return;
            };
            let outcome = current.step();
            let read = std::mem::take(&mut current.reader.read);
            Counters::add(&shared.counters.scrubbed_bytes, read);
            // A frame that was read with the one before it costs something too.
            self.credit = self.credit.saturating_sub(i64::try_from(read).unwrap_or(i64::MAX).max(64));
            match outcome {
                Ok(Step::Sound) => self.current = Some(current),
                Ok(Step::End) => {}
                Ok(Step::Bad) => examine(shared, current.segment, current.offset),
                Err(error) => unreadable(shared, current.segment, current.offset, &error),
            }
        }
    }

    fn begin(&mut self, shared: &Shared) -> Option<Current> {
        loop {
            let (segment, end) = sealed(shared, self.next)?;
            self.next = segment + 1;
            match open(shared, segment, end) {
                Ok(reader) => {
                    return Some(Current { segment, reader, end, offset: 0, expected: 0 });
                }
                Err(error) => unreadable(shared, segment, 0, &error),
            }
        }
    }
}

enum Step {
    Sound,
    Bad,
    End,
}

impl Current {
    fn step(&mut self) -> io::Result<Step> {
        if self.offset >= self.end {
            return Ok(Step::End);
        }
        self.offset = self.reader.place(self.offset, self.expected)?;
        let Some((header, _)) = self.reader.frame(self.offset)? else { return Ok(Step::Bad) };
        self.offset = header.end(self.offset);
        self.expected = header.last().saturating_add(1);
        Ok(Step::Sound)
    }
}

/// The first sealed segment from this number on that holds something alive, and where it ends.
fn sealed(shared: &Shared, from: u64) -> Option<(u64, u64)> {
    let index = shared.index.lock();
    let alive = |(number, info): &(&u64, &crate::index::Segment)| info.live > 0 && **number != index.active;
    index.segments.range(from..).find(alive).map(|(number, info)| (*number, info.end))
}

fn open(shared: &Shared, segment: u64, end: u64) -> io::Result<Reader> {
    let file = shared.fs.open(&shared.paths.segment(segment))?;
    Reader::new(file, stamp(shared.store_id, segment), Some(end))
}

/// Something in a segment is no frame: looks what of it is missed.
fn examine(shared: &Shared, segment: u64, offset: u64) {
    let Some((_, end)) = sealed(shared, segment).filter(|(found, _)| *found == segment) else {
        // It was let go meanwhile.
        return;
    };
    let found = open(shared, segment, end).and_then(|mut reader| {
        let found = Found::examine(&mut reader, end);
        Counters::add(&shared.counters.scrubbed_bytes, reader.read);
        found
    });
    let found = match found {
        Ok(found) => found,
        Err(error) => return unreadable(shared, segment, offset, &error),
    };
    let missing = found.missing(&shared.index.lock(), segment);
    let file = shared.paths.segment(segment);
    if missing.is_empty() {
        tracing::warn!(file = %file.display(), offset, "damaged bytes in the message log; no live message is missing because of them");
        return;
    }
    if shared.readers.note_damage(segment, offset) {
        let messages: u64 = missing.iter().map(|lost| lost.last - lost.first + 1).sum();
        let queues: BTreeSet<u64> = missing.iter().map(|lost| lost.queue.0).collect();
        tracing::error!(file = %file.display(), offset, messages, queues = queues.len(), "the message log is damaged: messages that are not acknowledged cannot be read");
    }
}

fn unreadable(shared: &Shared, segment: u64, offset: u64, error: &io::Error) {
    let is_there = sealed(shared, segment).is_some_and(|(found, _)| found == segment);
    if is_there && shared.readers.note_damage(segment, offset) {
        let file = shared.paths.segment(segment);
        tracing::error!(file = %file.display(), offset, %error, "the message log cannot be read");
    }
}
