//! Every message names its sender and number; what arrives is checked against that: by a [`Tally`] where several
//! consumers share the messages, by a [`Ledger`] where a subscriber is to get all of them.

use std::collections::BTreeSet;

/// Bytes at the front of each body that identify the message.
pub(crate) const STAMP_BYTES: usize = 21;

/// Writes `pppp ssssssssssssssss` over the front of a body.
pub(crate) fn stamp(body: &mut [u8], producer: u16, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit =
        |value: u64, place: u32| DIGITS.get((value >> (4 * place) & 15) as usize).copied().unwrap_or(b'0');
    for (index, slot) in body.iter_mut().take(STAMP_BYTES).enumerate() {
        *slot = match index {
            0..4 => digit(u64::from(producer), 3 - index as u32),
            4 => b' ',
            _ => digit(number, 20 - index as u32),
        };
    }
}

/// Reads a stamp.
pub(crate) fn read_stamp(body: &[u8]) -> Option<(u16, u64)> {
    let text = std::str::from_utf8(body.get(..STAMP_BYTES)?).ok()?;
    let (producer, number) = text.split_once(' ')?;
    Some((u16::from_str_radix(producer, 16).ok()?, u64::from_str_radix(number, 16).ok()?))
}

/// What one consumer saw of one producer.
#[derive(Clone, Debug, Default)]
struct Seen {
    highest: Option<u64>,
    count: u64,
}

/// What one consumer saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    producers: Vec<Seen>,
    /// Messages received, redelivered ones included.
    pub(crate) received: u64,
    /// Messages that came after a later one of the same producer.
    pub(crate) out_of_order: u64,
    /// Messages marked as redelivered.
    pub(crate) redelivered: u64,
    /// Messages without a stamp of ours.
    pub(crate) foreign: u64,
}

impl Tally {
    /// Notes one message.
    pub(crate) fn note(&mut self, body: &[u8], redelivered: bool) {
        let Some((producer, number)) = read_stamp(body) else {
            self.foreign += 1;
            return;
        };
        self.received += 1;
        self.redelivered += u64::from(redelivered);
        let index = usize::from(producer);
        if self.producers.len() <= index {
            self.producers.resize(index + 1, Seen::default());
        }
        if let Some(seen) = self.producers.get_mut(index) {
            if seen.highest.is_some_and(|highest| number <= highest) {
                self.out_of_order += 1;
            } else {
                seen.highest = Some(number);
            }
            seen.count += 1;
        }
    }
}

/// Numbers that one subscriber may miss of one publisher and still have told late from doubled.
const MISSING_MAX: usize = 100_000;

/// What one subscriber, that is to get every message, saw of one publisher.
#[derive(Clone, Debug, Default)]
struct Line {
    /// One above the highest number seen.
    next: u64,
    /// Numbers below that have not been seen; the first [`MISSING_MAX`] of them.
    missing: BTreeSet<u64>,
    received: u64,
}

/// What one subscriber saw that is to get every message of some publishers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    lines: Vec<Line>,
    /// Messages that came again.
    pub(crate) duplicates: u64,
    /// Messages that came for the first time, but after a later one of the same publisher.
    pub(crate) out_of_order: u64,
    /// Messages marked as sent before.
    pub(crate) redelivered: u64,
    /// Messages without a stamp of ours.
    pub(crate) foreign: u64,
}

impl Ledger {
    /// For messages of publishers with numbers below `publishers`.
    pub(crate) fn new(publishers: usize) -> Self {
        Self { lines: vec![Line::default(); publishers], ..Self::default() }
    }

    /// Notes one message; says whose it was, if it has a stamp of ours.
    pub(crate) fn note(&mut self, body: &[u8], redelivered: bool) -> Option<usize> {
        let stamp = read_stamp(body);
        let Some((publisher, number)) = stamp.map(|(publisher, number)| (usize::from(publisher), number))
        else {
            self.foreign += 1;
            return None;
        };
        let Some(line) = self.lines.get_mut(publisher) else {
            self.foreign += 1;
            return None;
        };
        self.redelivered += u64::from(redelivered);
        if number >= line.next {
            let room = MISSING_MAX.saturating_sub(line.missing.len());
            line.missing.extend((line.next..number).take(room));
            line.next = number + 1;
            line.received += 1;
        } else if line.missing.remove(&number) {
            self.out_of_order += 1;
            line.received += 1;
        } else {
            self.duplicates += 1;
        }
        Some(publisher)
    }

    /// How far a publisher's messages have come: one above the highest number seen.
    pub(crate) fn reached(&self, publisher: usize) -> u64 {
        self.lines.get(publisher).map_or(0, |line| line.next)
    }

    /// Different messages received of a publisher.
    pub(crate) fn received_of(&self, publisher: usize) -> u64 {
        self.lines.get(publisher).map_or(0, |line| line.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_round_trip_and_disorder_is_seen() {
        let mut tally = Tally::default();
        let mut body = [0; 30];
        for number in [0, 1, 3, 2, 3] {
            stamp(&mut body, 7, number);
            assert_eq!(read_stamp(&body), Some((7, number)));
            tally.note(&body, false);
        }
        tally.note(b"hello", false);
        assert_eq!((tally.received, tally.out_of_order, tally.foreign), (5, 2, 1));
    }

    #[test]
    fn what_is_missing_late_doubled_or_foreign_is_told_apart() {
        let mut ledger = Ledger::new(2);
        let mut body = [0; 30];
        for (publisher, number) in [(0, 0), (0, 3), (0, 2), (0, 3), (0, 2), (1, 1), (2, 0)] {
            stamp(&mut body, publisher, number);
            ledger.note(&body, number == 2);
        }
        ledger.note(b"hello", false);
        assert_eq!((ledger.duplicates, ledger.out_of_order), (2, 1));
        assert_eq!((ledger.redelivered, ledger.foreign), (2, 2));
        assert_eq!((ledger.received_of(0), ledger.reached(0)), (3, 4));
        assert_eq!((ledger.received_of(1), ledger.reached(1)), (1, 2));
    }
}
