//! The messages of a queue of which only the log has the bytes: their numbers, and what is known of them together.
//!
//! A number costs a bit at most, and a run of them a few bytes: a backlog of a hundred million messages takes some megabytes
//! of memory. One set per rank, so that a prioritized queue knows where its next message is.

use roaring::RoaringTreemap;
use sabir_model::clock::Timestamp;
use sabir_model::ids::Sequence;
use sabir_model::message::PRIORITY_MAX;

use crate::ready::Key;

/// A range of numbers, both ends included.
pub(crate) type Range = (Sequence, Sequence);

#[derive(Debug)]
pub(crate) struct Paged {
    /// By rank; as many as were ever needed.
    sets: Vec<RoaringTreemap>,
    /// The first of all, in the order of the queue.
    first: Option<Key>,
    len: u64,
    /// Bytes of these messages, about: what they took in memory, or take in the log.
    bytes: u64,
    /// Wall milliseconds before which none of them expires.
    pub(crate) expires: u64,
}

impl Default for Paged {
    fn default() -> Self {
        Self { sets: Vec::new(), first: None, len: 0, bytes: 0, expires: u64::MAX }
    }
}

impl Paged {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first in the order of the queue.
    #[inline]
    pub(crate) fn first(&self) -> Option<Key> {
        self.first
    }

    fn set(&mut self, rank: u8) -> Option<&mut RoaringTreemap> {
        let rank = usize::from(rank.min(PRIORITY_MAX));
        while self.sets.len() <= rank {
            self.sets.push(RoaringTreemap::new());
        }
        self.sets.get_mut(rank)
    }

    /// Adds one message of so many bytes.
    pub(crate) fn add(&mut self, key: Key, bytes: u64, expires: Timestamp) {
        let Some(set) = self.set(key.rank) else { return };
        if !set.insert(key.sequence.0) {
            return;
        }
        self.len += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if expires != Timestamp::NEVER {
            self.expires = self.expires.min(expires.0);
        }
        if self.first.is_none_or(|first| key < first) {
            self.first = Some(key);
        }
    }

    /// Bytes of one of those that are here, which were not known when it was added.
    pub(crate) fn add_bytes(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Adds a run of messages of so many bytes in all.
    pub(crate) fn add_run(&mut self, rank: u8, (first, last): Range, bytes: u64) {
        let Some(set) = self.set(rank) else { return };
        self.len += set.insert_range(first.0..=last.0);
        self.bytes = self.bytes.saturating_add(bytes);
        let key = Key { rank, sequence: first };
        if self.first.is_none_or(|first| key < first) {
            self.first = Some(key);
        }
    }

    /// Whether all of a range of one rank is here.
    pub(crate) fn contains_range(&self, rank: u8, (first, last): Range) -> bool {
        self.sets.get(usize::from(rank)).is_some_and(|set| set.contains_range(first.0..=last.0))
    }

    /// The place of the message of this number.
    pub(crate) fn find(&self, sequence: Sequence) -> Option<Key> {
        (0u8..)
            .zip(&self.sets)
            .find_map(|(rank, set)| set.contains(sequence.0).then_some(Key { rank, sequence }))
    }

    /// The first at or after a place.
    pub(crate) fn first_from(&self, from: Key) -> Option<Key> {
        match self.first {
            None => return None,
            Some(first) if from <= first => return Some(first),
            Some(_) => {}
        }
        (0u8..).zip(&self.sets).skip(usize::from(from.rank)).find_map(|(rank, set)| {
            let start = if rank == from.rank { from.sequence.0 } else { 0 };
            let mut numbers = set.iter();
            numbers.advance_to(start);
            numbers.next().map(|number| Key { rank, sequence: Sequence(number) })
        })
    }

    /// The numbers of `from`'s rank from there on, as ranges; at most so many numbers.
    pub(crate) fn ranges_from(&self, from: Key, most: u64) -> Vec<Range> {
        let Some(set) = self.sets.get(usize::from(from.rank)) else { return Vec::new() };
        let mut numbers = set.iter();
        numbers.advance_to(from.sequence.0);
        ranges(numbers.take(usize::try_from(most).unwrap_or(usize::MAX)))
    }

    /// The lowest numbers above `after`, whatever their rank; at most so many, ascending.
    pub(crate) fn arrived_after(&self, after: Sequence, most: usize) -> Vec<Sequence> {
        let mut found: Vec<Sequence> = Vec::new();
        for set in &self.sets {
            let mut numbers = set.iter();
            numbers.advance_to(after.0.saturating_add(1));
            found.extend(numbers.take(most).map(Sequence));
        }
        found.sort_unstable();
        found.truncate(most);
        found
    }

    /// Takes one out; false if it is not here.
    pub(crate) fn take(&mut self, key: Key) -> bool {
        let taken = self.take_range(key.rank, (key.sequence, key.sequence));
        taken > 0
    }

    /// Takes a range out of one rank; tells how many there were.
    pub(crate) fn take_range(&mut self, rank: u8, (first, last): Range) -> u64 {
        let Some(set) = self.sets.get_mut(usize::from(rank)) else { return 0 };
        let taken = set.remove_range(first.0..=last.0);
        if taken == 0 {
            return 0;
        }
        // Sizes of single messages are not kept: those taken had their share.
        let share = u128::from(self.bytes) * u128::from(taken) / u128::from(self.len.max(1));
        self.bytes = self.bytes.saturating_sub(u64::try_from(share).unwrap_or(u64::MAX));
        self.len -= taken.min(self.len);
        if self.len == 0 {
            *self = Self::default();
            return taken;
        }
        if self.first.is_some_and(|key| key.rank == rank && key.sequence >= first && key.sequence <= last) {
            self.first = None;
            self.first = (0u8..)
                .zip(&self.sets)
                .find_map(|(rank, set)| set.min().map(|number| Key { rank, sequence: Sequence(number) }));
        }
        taken
    }

    /// Takes out the lowest numbers of a rank that are below `end`; at most so many.
    pub(crate) fn take_below(&mut self, rank: u8, end: Sequence, most: u64) -> Vec<Range> {
        let mut found = self.ranges_from(Key { rank, sequence: Sequence(0) }, most);
        found.retain(|(first, _)| *first < end);
        if let Some((_, last)) = found.last_mut() {
            *last = (*last).min(Sequence(end.0.saturating_sub(1)));
        }
        for range in &found {
            self.take_range(rank, *range);
        }
        found
    }

    /// Which of these numbers are here.
    pub(crate) fn among(&self, numbers: &RoaringTreemap) -> RoaringTreemap {
        self.sets.iter().fold(RoaringTreemap::new(), |found, set| found | (set & numbers))
    }

    /// The ranks there are.
    pub(crate) fn ranks(&self) -> std::ops::Range<u8> {
        0..u8::try_from(self.sets.len()).unwrap_or(u8::MAX)
    }
}

/// Joins ascending numbers to ranges.
pub(crate) fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<Range> {
    let mut found: Vec<Range> = Vec::new();
    for number in numbers {
        match found.last_mut() {
            Some((_, last)) if last.0 + 1 == number => last.0 = number,
            _ => found.push((Sequence(number), Sequence(number))),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn key(rank: u8, sequence: u64) -> Key {
        Key { rank, sequence: Sequence(sequence) }
    }

    fn range(first: u64, last: u64) -> Range {
        (Sequence(first), Sequence(last))
    }

    #[test]
    fn the_first_is_known_whatever_comes_and_goes() {
        let mut paged = Paged::default();
        assert_eq!(paged.first(), None);
        paged.add_run(0, range(10, 20), 1100);
        paged.add(key(0, 5), 100, Timestamp(77));
        assert_eq!(
            (paged.first(), paged.len(), paged.bytes(), paged.expires),
            (Some(key(0, 5)), 12, 1200, 77)
        );
        assert!(paged.take(key(0, 5)));
        assert!(!paged.take(key(0, 5)));
        assert_eq!((paged.first(), paged.bytes()), (Some(key(0, 10)), 1100));
        assert_eq!(paged.take_range(0, range(8, 15)), 6);
        assert_eq!(paged.first(), Some(key(0, 16)));
        assert_eq!(paged.take_range(0, range(0, 99)), 5);
        assert_eq!((paged.first(), paged.len(), paged.bytes(), paged.expires), (None, 0, 0, u64::MAX));
    }

    #[test]
    fn ranks_go_first_and_arrival_second() {
        let mut paged = Paged::default();
        for (rank, sequence) in [(5, 1), (0, 2), (5, 3), (9, 4), (0, 7)] {
            paged.add(key(rank, sequence), 10, Timestamp::NEVER);
        }
        let mut order = Vec::new();
        let mut from = Key::FIRST;
        while let Some(next) = paged.first_from(from) {
            order.push((next.rank, next.sequence.0));
            from = next.next();
        }
        assert_eq!(order, [(0, 2), (0, 7), (5, 1), (5, 3), (9, 4)]);
        assert_eq!(paged.find(Sequence(3)), Some(key(5, 3)));
        assert_eq!(paged.find(Sequence(5)), None);
        let arrived: Vec<u64> = paged.arrived_after(Sequence(1), 3).iter().map(|one| one.0).collect();
        assert_eq!(arrived, [2, 3, 4]);
        assert_eq!(paged.ranges_from(key(5, 1), 9), [range(1, 1), range(3, 3)]);
    }

    #[test]
    fn what_is_below_a_number_is_taken_a_part_at_a_time() {
        let mut paged = Paged::default();
        paged.add_run(0, range(1, 100), 100);
        paged.add_run(0, range(200, 300), 101);
        assert_eq!(paged.take_below(0, Sequence(250), 60), [range(1, 60)]);
        assert_eq!(paged.take_below(0, Sequence(250), 60), [range(61, 100), range(200, 219)]);
        assert_eq!(paged.take_below(0, Sequence(250), 60), [range(220, 249)]);
        assert!(paged.take_below(0, Sequence(250), 60).is_empty());
        assert_eq!((paged.len(), paged.first()), (51, Some(key(0, 250))));
    }

    #[test]
    fn a_long_run_takes_little_memory() {
        let mut paged = Paged::default();
        for sequence in 1..=1_000_000 {
            paged.add(key(0, sequence), 100, Timestamp::NEVER);
        }
        let bytes = paged.sets.first().unwrap().serialized_size();
        assert!(bytes < 200_000, "{bytes} bytes");
        assert_eq!(paged.ranges_from(Key::FIRST, u64::MAX), [range(1, 1_000_000)]);
    }
}
