//! Messages that need not outlive the broker, and that do not fit into their queue's window: they go to the log without a
//! promise and are paged out like any other; a restart drops them.
//!
//! It must know them without reading them. So their numbers are in the log beside them: one row of table 8 for each 4096
//! numbers of a queue, in the group of the messages themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use roaring::RoaringTreemap;
use sabir_model::ids::{QueueId, Sequence};
use sabir_model::varint;
use sabir_store::{Appender, Level};

use crate::broker::Shared;
use crate::paged::{Range, ranges};
use crate::publish::{begin, put};
use crate::queue::{Queue, QueueCore};
use crate::ready::Entry;
use crate::recovery::Recovered;
use crate::stats::add;
use crate::work::Work;

/// Numbers of messages that a restart drops, by queue and the upper bits of the number.
pub(crate) const TABLE_SPILLED: u8 = 8;
/// Numbers of one row.
const ROW: u64 = 4096;
/// Rows given up in one group of the log.
const ROWS_AT_A_TIME: usize = 1024;

/// Bytes that go to the log at a time.
const SPILLED_AT_A_TIME: u64 = 4 << 20;

/// Of a queue: the numbers that are held still, the rows there are, and the bytes of the messages.
#[derive(Debug, Default)]
pub(crate) struct Spilled {
    numbers: RoaringTreemap,
    count: u64,
    rows: RoaringTreemap,
    bytes: u64,
}

fn row_key(queue: QueueId, row: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&queue.0.to_le_bytes());
    key[8..].copy_from_slice(&row.to_le_bytes());
    key
}

/// A row: for each run how many numbers lie between the one before and it, and how many it has.
fn encode_row(row: u64, numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = row * ROW;
    for (first, last) in ranges(numbers) {
        varint::write(&mut out, first.0 - at);
        varint::write(&mut out, last.0 - first.0 + 1);
        at = last.0 + 1;
    }
    out
}

/// The queue and the runs of a row; `None` if it is none.
pub(crate) fn decode_row(key: &[u8], mut value: &[u8]) -> Option<(QueueId, Vec<Range>)> {
    let (queue, row) = key.split_first_chunk::<8>()?;
    let queue = QueueId(u64::from_le_bytes(*queue));
    let mut at = u64::from_le_bytes(row.try_into().ok()?).checked_mul(ROW)?;
    let mut found = Vec::new();
    while !value.is_empty() {
        let mut next = || {
            let (number, used) = varint::read(value)?;
            value = value.get(used..)?;
            Some(number)
        };
        let first = at.checked_add(next()?)?;
        let end = first.checked_add(next()?).filter(|end| *end > first)?;
        found.push((Sequence(first), Sequence(end - 1)));
        at = end;
    }
    Some((queue, found))
}

impl Spilled {
    /// Adds numbers, in the group that puts their messages.
    fn add(&mut self, group: &mut Appender<'_>, queue: QueueId, numbers: &[u64], bytes: u64) {
        self.numbers.extend(numbers.iter().copied());
        self.count += numbers.len() as u64;
        self.bytes += bytes;
        let mut rows: Vec<u64> = numbers.iter().map(|number| number / ROW).collect();
        rows.sort_unstable();
        rows.dedup();
        for row in rows {
            let mut all = self.numbers.iter();
            all.advance_to(row * ROW);
            let value = encode_row(row, all.take_while(|number| number / ROW == row));
            group.set(TABLE_SPILLED, &row_key(queue, row), &value);
            self.rows.insert(row);
        }
    }

    /// Forgets numbers below `end`; tells which rows are of no more use.
    fn forget_below(&mut self, end: u64, shared: &Shared) -> Vec<u64> {
        let removed = self.numbers.remove_range(..end);
        self.give_back(removed, shared);
        let rows = if self.numbers.is_empty() { u64::MAX } else { end / ROW };
        let over: Vec<u64> = self.rows.iter().take_while(|row| *row < rows).collect();
        self.rows.remove_range(..rows);
        over
    }

    /// Forgets all numbers but those that are `held`; tells which rows are of no more use. In the others some numbers
    /// are left that nothing goes by any more.
    fn forget_but(&mut self, held: RoaringTreemap, shared: &Shared) -> Vec<u64> {
        let removed = self.count - held.len().min(self.count);
        self.numbers = held;
        self.give_back(removed, shared);
        let needed: RoaringTreemap = self.numbers.iter().map(|number| number / ROW).collect();
        let over = (&self.rows - &needed).iter().collect();
        self.rows &= needed;
        over
    }

    /// So many numbers are forgotten. Sizes of single messages are not kept: those that are gone had their share.
    fn give_back(&mut self, removed: u64, shared: &Shared) {
        let share = u128::from(self.bytes) * u128::from(removed) / u128::from(self.count.max(1));
        let share = u64::try_from(share).unwrap_or(self.bytes).min(self.bytes);
        self.count -= removed.min(self.count);
        self.bytes -= share;
        shared.spilled_bytes.fetch_sub(share, Ordering::Relaxed);
    }

    /// Gives up all rows: the queue goes.
    pub(crate) fn forget(&mut self, shared: &Shared, group: &mut Appender<'_>, queue: QueueId) {
        for row in self.forget_below(u64::MAX, shared) {
            group.remove(TABLE_SPILLED, &row_key(queue, row));
        }
    }
}

impl Entry {
    /// Whether it may go to the log without a promise: nobody has tried it, so that the log then has all of it.
    fn is_spillable(&self) -> bool {
        !self.logged && !self.message.facts().persistent && self.attempts == 0 && self.grant.is_none()
    }
}

impl QueueCore {
    /// The lowest number of a message held.
    fn lowest(&self) -> u64 {
        let paged = self.ready.paged.arrived_after(Sequence(0), 1).first().map(|sequence| sequence.0);
        let here = self.ready.arrived_after(Sequence(0), 1).first().map(|(key, _)| key.sequence.0);
        let delivered = self.in_flight.iter().map(|held| held.sequence.0).min();
        [paged, here, delivered].into_iter().flatten().min().unwrap_or(self.next)
    }

    /// Whether most of the numbers are of messages that are gone.
    fn has_stale_spilled(&self) -> bool {
        let depth = self.depth();
        let most = if depth == 0 { 0 } else { depth.saturating_mul(2).saturating_add(ROW) };
        self.spilled.as_ref().is_some_and(|spilled| spilled.count > most)
    }

    /// Sees to it that what is gone counts no longer, wherever in the queue it was.
    pub(crate) fn note_spilled(&self, queue: QueueId, work: &mut Work) {
        if self.has_stale_spilled() {
            work.spills.push(queue);
        }
    }

    /// Of these numbers, those of messages that are here.
    fn held_among(&self, numbers: &RoaringTreemap) -> RoaringTreemap {
        let mut held = self.ready.paged.among(numbers);
        let here = self.ready.iter().map(|(key, _)| key.sequence.0);
        let delivered = self.in_flight.iter().map(|one| one.sequence.0);
        held.extend(here.chain(delivered).filter(|number| numbers.contains(*number)));
        held
    }

    /// Gives up rows about messages that are all gone.
    pub(crate) fn tidy_spilled(&mut self, shared: &Shared, queue: QueueId) {
        let stale = self.has_stale_spilled();
        let Some(mut spilled) = self.spilled.take() else { return };
        let lowest = self.lowest();
        let over = if stale {
            spilled.forget_but(self.held_among(&spilled.numbers), shared)
        } else if spilled.numbers.min().is_some_and(|first| first < lowest) {
            spilled.forget_below(lowest, shared)
        } else {
            Vec::new()
        };
        for some in over.chunks(ROWS_AT_A_TIME) {
            let mut group = shared.store.begin();
            for row in some {
                group.remove(TABLE_SPILLED, &row_key(queue, *row));
            }
            group.finish(Level::Os);
        }
        self.spilled = Some(spilled).filter(|spilled| !spilled.numbers.is_empty());
    }
}

/// Writes into the log what the queues of a batch have no room for, and pages it out.
pub(crate) fn spill_all(shared: &Shared, work: &mut Work) {
    for id in std::mem::take(&mut work.spills) {
        if let Some(queue) = shared.queue(id) {
            spill(shared, &queue, work);
        }
    }
}

/// Writes into the log what a queue has no room for, the newest first, and pages it out. If the log takes nothing now, it
/// stays in memory.
pub(crate) fn spill(shared: &Shared, queue: &Arc<Queue>, work: &mut Work) {
    let mut held = queue.lock();
    let core = &mut held.core;
    if core.has_stale_spilled() {
        core.tidy_spilled(shared, queue.id);
    }
    let excess = core.resident.saturating_sub(queue.window.bytes());
    if excess == 0 || !queue.pages() || queue.deleted.load(Ordering::Acquire) {
        return;
    }
    // What must be logged comes first: a disk that is slower than the senders is not for these.
    if shared.store.is_busy() {
        return;
    }
    let room = shared.limits.spilled_bytes_max.saturating_sub(shared.spilled_bytes.load(Ordering::Relaxed));
    let bytes = excess.min(SPILLED_AT_A_TIME).min(room);
    let mut keys = core.ready.last_that(bytes, None, Entry::is_spillable);
    if keys.is_empty() {
        return;
    }
    let Ok(mut group) = begin(shared, bytes) else { return };
    keys.reverse();
    let (mut numbers, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in &keys {
        if let Some(entry) = core.ready.get_mut(*key) {
            put(&mut group, &entry.message, &[(queue.id, key.sequence)]);
            entry.logged = true;
            numbers.push(key.sequence.0);
            bytes += entry.message.memory() as u64;
        }
    }
    let mut spilled = core.spilled.take().unwrap_or_default();
    spilled.add(&mut group, queue.id, &numbers, bytes);
    shared.spilled_bytes.fetch_add(bytes, Ordering::Relaxed);
    core.spilled = Some(spilled);
    group.finish(Level::Os);
    for key in keys.into_iter().rev() {
        core.page_out(key, work);
    }
    core.tidy_spilled(shared, queue.id);
    if excess > bytes {
        // The rest next.
        work.spills.push(queue.id);
    }
    add(&shared.counters.spilled, numbers.len() as u64);
}

impl Recovered {
    /// Drops what was to last no longer than the broker did.
    pub(crate) fn drop_spilled(&mut self, shared: &Shared) {
        let rows = std::mem::take(&mut self.spilled);
        for some in rows.chunks(ROWS_AT_A_TIME) {
            let mut group = shared.store.begin();
            for (queue, row) in some {
                let first = row.first().map_or(0, |(first, _)| first.0);
                group.remove(TABLE_SPILLED, &row_key(*queue, first / ROW));
                let Some(live) = self.live.get_mut(queue) else { continue };
                for (first, last) in row {
                    if live.take_range(0, (*first, *last)) > 0 {
                        group.acknowledge(*queue, *first, last.0 - first.0 + 1);
                    }
                }
                if live.is_empty() {
                    self.live.remove(queue);
                }
            }
            group.finish(Level::Os);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_row_says_which_numbers_it_has() {
        let numbers = [8192, 8193, 8194, 9000, 12_287];
        let row = encode_row(2, numbers.into_iter());
        let (queue, found) = decode_row(&row_key(QueueId(7), 2), &row).unwrap();
        let expected = [(8192, 8194), (9000, 9000), (12_287, 12_287)];
        assert_eq!(queue, QueueId(7));
        assert_eq!(found, expected.map(|(first, last)| (Sequence(first), Sequence(last))));
        assert!(row.len() <= 8, "{} bytes", row.len());
    }

    #[test]
    fn what_is_no_row_is_not_taken_for_one() {
        let key = row_key(QueueId(7), 2);
        for value in [&[1][..], &[1, 0], &[0x80], &[1, 1, 5]] {
            assert_eq!(decode_row(&key, value), None, "{value:?}");
        }
        assert_eq!(decode_row(&key[..15], &[1, 1]), None);
        assert_eq!(decode_row(&row_key(QueueId(7), u64::MAX), &[1, 1]), None);
    }
}
