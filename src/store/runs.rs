//! Where the live messages of one queue are: *runs*, ranges of numbers whose records lie in ascending order in
//! one stretch of one segment.
//!
//! A run keeps the place of the frame of its first message, so looking a message up reads about a stretch at
//! most. Numbers inside a run that are settled are *holes*, one bit each, so acknowledging out of order does
//! not make runs; a run goes with its last live number. Whatever is in no run, or a hole, is settled
//! (acknowledged, or never logged). So a backlog of 100 million messages of 100 bytes in order takes about
//! 15 000 runs of about 100 bytes, and at worst, acknowledged at random, one bit more for each message.
//!
//! Invariant: runs do not overlap, and the first and the last number of each are alive.

use crate::holes::Holes;
use std::collections::BTreeMap;

/// A run is not continued across a multiple of this in its segment: what a look-up reads, about. Like the other bounds
/// here it is small in tests, so that they meet it.
pub(crate) const STRETCH_BYTES: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };
/// Numbers a run with holes spans at most, so that its holes take at most 8 KiB.
const SPAN_MAX: u64 = if cfg!(test) { 100 } else { 1 << 16 };
/// Settled numbers over which a run is continued: their bits cost less than another run.
const GAP_MAX: u64 = if cfg!(test) { 7 } else { 512 };

/// Where one message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    /// Where its frame starts, or any frame before it in the same stretch.
    pub(crate) offset: u64,
    /// The queue and number by which the record names it.
    pub(crate) origin: (u64, u64),
    /// Bytes of its record, about.
    pub(crate) bytes: u64,
    /// Wall milliseconds at which it expires; 0 for never. Runs do not keep it.
    pub(crate) expires: u64,
}

/// Live numbers from `first` to the last, which is the key it is kept under, but for the holes.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) segment: u64,
    /// Where to begin to look: the frame of the first message, or of one that was before it.
    pub(crate) place: u64,
    /// The queue and first number by which the put records in the segment name these messages. Differs from the
    /// run's own where the queue holds them by reference.
    pub(crate) origin: (u64, u64),
    /// Bytes of the records of all messages that were placed in this run, and their number: the mean is what a live
    /// one takes.
    bytes: u64,
    placed: u64,
    holes: Option<Box<Holes>>,
}

/// What is left of a run.
enum Rest {
    Nothing,
    /// It ends here now.
    Ends(u64),
    /// It was too wide for holes: the left part, and where that ends.
    Split(Run, u64),
}

impl Run {
    fn new(sequence: u64, at: &Place) -> Self {
        Self {
            first: sequence,
            segment: at.segment,
            place: at.offset,
            origin: at.origin,
            bytes: at.bytes,
            placed: 1,
            holes: None,
        }
    }

    /// As read from a checkpoint. `dead` has a bit for every hole, counted from `first`.
    pub(crate) fn restored(first: u64, last: u64, place: &Place, dead: Option<&[u8]>) -> Option<Self> {
        let span = last.checked_sub(first)?.checked_add(1)?;
        place.origin.1.checked_add(last - first)?;
        let holes = match dead {
            None => None,
            Some(_) if span > SPAN_MAX => return None,
            Some(bits) => Some(Box::new(Holes::from_bits(first, bits, span)?)),
        };
        let mut run = Self { bytes: place.bytes, placed: 0, holes, ..Self::new(first, place) };
        if run.is_hole(first) || run.is_hole(last) {
            return None;
        }
        run.placed = run.count(last);
        Some(run)
    }

    /// The bits of the holes, counted from the first number, if there are any.
    pub(crate) fn hole_bits(&self, last: u64) -> Option<Vec<u8>> {
        let holes = self.holes.as_ref()?;
        holes.bits(self.first, last - self.first + 1)
    }

    pub(crate) fn is_hole(&self, sequence: u64) -> bool {
        self.holes.as_ref().is_some_and(|holes| holes.is_dead(sequence))
    }

    /// How many messages are alive in it, given its last number.
    pub(crate) fn count(&self, last: u64) -> u64 {
        last - self.first + 1 - self.holes.as_ref().map_or(0, |holes| holes.dead)
    }

    /// Bytes that `live` of its messages take, about.
    pub(crate) fn bytes_of(&self, live: u64) -> u64 {
        let whole = u128::from(self.bytes) * u128::from(live) / u128::from(self.placed.max(1));
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// The number by which the record names message `sequence`.
    pub(crate) fn origin_of(&self, sequence: u64) -> u64 {
        self.origin.1.wrapping_add(sequence.wrapping_sub(self.first))
    }

    /// The place of message `sequence`, which is alive in it.
    pub(crate) fn place_of(&self, sequence: u64) -> Place {
        Place {
            segment: self.segment,
            offset: self.place,
            origin: (self.origin.0, self.origin_of(sequence)),
            bytes: self.bytes_of(1),
            expires: 0,
        }
    }

    /// The live numbers in `low..=high`, which lie in the run, as ranges.
    pub(crate) fn live(&self, low: u64, high: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut at = Some(low);
        std::iter::from_fn(move || {
            let Some(holes) = &self.holes else { return at.take().map(|low| (low, high)) };
            let first = holes.next_live(at?);
            if first > high {
                at = None;
                return None;
            }
            let last = holes.next_dead(first).map_or(high, |dead| (dead - 1).min(high));
            at = last.checked_add(1).filter(|next| *next <= high);
            Some((first, last))
        })
    }

    /// Takes the messages `sequence..=to`, behind its last one, if they lie where the run goes on.
    #[inline]
    fn extend(&mut self, last: u64, (sequence, to): (u64, u64), at: &Place) -> bool {
        let gap = sequence - last - 1;
        let continues = self.segment == at.segment
            && self.origin.0 == at.origin.0
            && self.origin.1.checked_add(sequence - self.first) == Some(at.origin.1)
            && at.offset >= self.place
            && at.offset / STRETCH_BYTES == self.place / STRETCH_BYTES
            && gap <= GAP_MAX
            && to - self.base() < SPAN_MAX;
        if continues {
            let count = to - sequence + 1;
            self.bytes = self.bytes.saturating_add(at.bytes.saturating_mul(count));
            self.placed += count;
            if gap > 0 {
                self.bore(last + 1, sequence - 1);
            }
        }
        continues
    }

    fn base(&self) -> u64 {
        self.holes.as_ref().map_or(self.first, |holes| holes.base)
    }

    fn bore(&mut self, low: u64, high: u64) {
        let first = self.first;
        self.holes.get_or_insert_with(|| Box::new(Holes::new(first))).bore(low, high);
    }

    /// Makes it begin at `to`, which is alive.
    #[inline]
    fn advance(&mut self, to: u64) {
        if let Some(holes) = &mut self.holes {
            holes.dead -= holes.count(self.first, to - 1);
            if holes.dead == 0 {
                self.holes = None;
            }
        }
        self.origin.1 += to - self.first;
        self.first = to;
    }

    /// Makes it end at `to`, which is alive.
    fn retreat(&mut self, to: u64) {
        if let Some(holes) = &mut self.holes {
            holes.truncate(to);
            holes.dead = holes.count(self.first, to);
            if holes.dead == 0 {
                self.holes = None;
            }
        }
    }

    /// The first live number at or behind `from`, which lies in the run.
    fn next_live(&self, from: u64) -> u64 {
        self.holes.as_ref().map_or(from, |holes| holes.next_live(from))
    }

    /// The last live number up to `from`, which lies in the run.
    fn last_live(&self, from: u64) -> u64 {
        self.holes.as_ref().map_or(from, |holes| holes.last_live(from))
    }

    /// Takes `low..=high`, which lie in it, out; returns how many were alive, and what is left.
    #[inline]
    fn take(&mut self, end: u64, low: u64, high: u64) -> (u64, Rest) {
        let dead = self.holes.as_ref().map_or(0, |holes| holes.count(low, high));
        let gone = high - low + 1 - dead;
        let rest = match (low == self.first, high == end) {
            (true, true) => Rest::Nothing,
            (true, false) => {
                self.advance(self.next_live(high + 1));
                Rest::Ends(end)
            }
            (false, true) => {
                let end = self.last_live(low - 1);
                self.retreat(end);
                Rest::Ends(end)
            }
            (false, false) if gone == 0 => Rest::Ends(end),
            (false, false) if end - self.base() < SPAN_MAX => {
                self.bore(low, high);
                Rest::Ends(end)
            }
            (false, false) => {
                let (left, last) = self.split(low, high);
                Rest::Split(left, last)
            }
        };
        (gone, rest)
    }

    /// Keeps what is behind `high`; returns what is before `low`, and where that ends.
    fn split(&mut self, low: u64, high: u64) -> (Self, u64) {
        let mut left = self.clone();
        let last = left.last_live(low - 1);
        left.retreat(last);
        self.advance(self.next_live(high + 1));
        (left, last)
    }
}

/// One queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    /// Next unused number.
    pub(crate) next: u64,
    /// The newest run: kept out of the map because appending moves its end.
    tail: Option<(u64, Run)>,
    runs: BTreeMap<u64, Run>,
    pub(crate) attempts: BTreeMap<u64, u32>,
    /// Wall milliseconds before which none of its messages expires; 0 if none does.
    pub(crate) expires: u64,
    /// Whether any run may be held by reference.
    pub(crate) foreign: bool,
}

impl Queue {
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, &Run)> {
        self.runs_from(0)
    }

    /// The runs that end at `sequence` or behind it, in ascending order.
    pub(crate) fn runs_from(&self, sequence: u64) -> impl Iterator<Item = (u64, &Run)> {
        let tail = self.tail.iter().filter(move |(last, _)| *last >= sequence);
        self.runs
            .range(sequence..)
            .map(|(last, run)| (*last, run))
            .chain(tail.map(|(last, run)| (*last, run)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tail.is_none() && self.runs.is_empty()
    }

    /// The run that holds live message `sequence`, and its last number.
    pub(crate) fn find(&self, sequence: u64) -> Option<(u64, &Run)> {
        let (last, run) = match &self.tail {
            Some((last, run)) if sequence >= run.first => (sequence <= *last).then_some((last, run))?,
            _ => self.runs.range(sequence..).next()?,
        };
        (run.first <= sequence && !run.is_hole(sequence)).then_some((*last, run))
    }

    pub(crate) fn live_ranges(&self) -> usize {
        self.runs.len() + usize::from(self.tail.is_some())
    }

    /// Makes `sequence`, which is not alive, alive at a place.
    #[inline]
    pub(crate) fn insert(&mut self, sequence: u64, at: &Place) {
        match &mut self.tail {
            Some((last, tail)) if sequence > *last => {
                if tail.extend(*last, (sequence, sequence), at) {
                    *last = sequence;
                } else if let Some((last, full)) = self.tail.replace((sequence, Run::new(sequence, at))) {
                    self.runs.insert(last, full);
                }
            }
            None if self.runs.last_key_value().is_none_or(|(&last, _)| last < sequence) => {
                self.tail = Some((sequence, Run::new(sequence, at)));
            }
            _ => self.insert_between((sequence, sequence), at),
        }
    }

    /// Moves those of `first..=last` that are alive to where their records lie one behind the other; `at` is the
    /// place of the first, whether it is alive or not. Tells `gone` the segments that they were in, and returns how
    /// many they are.
    pub(crate) fn relocate(
        &mut self,
        first: u64,
        last: u64,
        at: &Place,
        mut gone: impl FnMut(u64, u64),
    ) -> u64 {
        let (mut from, mut moved) = (first, 0);
        loop {
            let found = self.runs_from(from).next().filter(|(_, run)| run.first <= last);
            let Some((low, high)) =
                found.and_then(|(end, run)| run.live(run.first.max(from), end.min(last)).next())
            else {
                // Nothing alive in the rest of this run: it may have ended there.
                return moved;
            };
            self.remove(low, high, &mut gone);
            let origin = (at.origin.0, at.origin.1 + (low - first));
            if self.tail.as_ref().is_some_and(|(end, _)| *end < low)
                && let Some((end, run)) = self.tail.take()
            {
                // The newest run must not be before another one.
                self.runs.insert(end, run);
            }
            self.insert_between((low, high), &Place { origin, ..*at });
            moved += high - low + 1;
            match high.checked_add(1).filter(|next| *next <= last) {
                Some(next) => from = next,
                None => return moved,
            }
        }
    }

    /// Makes `sequence..=to`, of which none is alive, alive at the place of the first.
    fn insert_between(&mut self, (sequence, to): (u64, u64), at: &Place) {
        // Inside a run it is one of its holes, and lies elsewhere now: the run becomes two.
        let around = match &mut self.tail {
            Some((_, tail)) if tail.first < sequence => Some(tail),
            _ => {
                self.runs.range_mut(sequence..).next().map(|(_, run)| run).filter(|run| run.first < sequence)
            }
        };
        if let Some(run) = around {
            let (left, last) = run.split(sequence, sequence);
            self.runs.insert(last, left);
        }
        if let Some((&last, left)) = self.runs.range_mut(..sequence).next_back()
            && left.extend(last, (sequence, to), at)
        {
            if let Some(run) = self.runs.remove(&last) {
                self.runs.insert(to, run);
            }
            return;
        }
        let count = to - sequence + 1;
        let run = Run { bytes: at.bytes.saturating_mul(count), placed: count, ..Run::new(sequence, at) };
        self.runs.insert(to, run);
    }

    /// Takes `first..=last` out; tells `gone` the segment of every piece, and how many of it were alive.
    #[inline]
    pub(crate) fn remove(&mut self, mut first: u64, last: u64, mut gone: impl FnMut(u64, u64)) {
        if let Some((end, run)) = &mut self.tail
            && first <= *end
            && last >= run.first
        {
            let (low, high) = (first.max(run.first), last.min(*end));
            let (count, rest) = run.take(*end, low, high);
            gone(run.segment, count);
            match rest {
                Rest::Nothing => self.tail = None,
                Rest::Ends(at) => *end = at,
                Rest::Split(left, at) => {
                    self.runs.insert(at, left);
                }
            }
        }
        while first <= last {
            let Some((&end, run)) = self.runs.range_mut(first..).next() else { return };
            if run.first > last {
                return;
            }
            let (low, high) = (first.max(run.first), last.min(end));
            let (count, rest) = run.take(end, low, high);
            gone(run.segment, count);
            match rest {
                Rest::Nothing => {
                    self.runs.remove(&end);
                }
                Rest::Ends(at) if at == end => {}
                Rest::Ends(at) => {
                    if let Some(run) = self.runs.remove(&end) {
                        self.runs.insert(at, run);
                    }
                }
                Rest::Split(left, at) => {
                    self.runs.insert(at, left);
                }
            }
            let Some(next) = high.checked_add(1) else { return };
            first = next;
        }
    }

    /// Adds a run read from a checkpoint. Runs come in ascending order; false if this one does not.
    pub(crate) fn restore(&mut self, last: u64, run: Run, own: bool) -> bool {
        if last < run.first || self.tail.as_ref().is_some_and(|(before, _)| *before >= run.first) {
            return false;
        }
        if let Some((before, tail)) = self.tail.replace((last, run)) {
            self.runs.insert(before, tail);
        }
        self.foreign |= !own;
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(segment: u64, offset: u64, origin: u64) -> Place {
        Place { segment, offset, origin: (5, origin), bytes: 100, expires: 0 }
    }

    #[test]
    fn a_long_backlog_takes_a_run_for_every_stretch() {
        let mut queue = Queue::default();
        for sequence in 1..=100_000u64 {
            let at = sequence * 128;
            queue.insert(sequence, &place(at / (8 * STRETCH_BYTES), at % (8 * STRETCH_BYTES), sequence));
        }
        let stretches = 100_000 * 128 / STRETCH_BYTES;
        assert!(queue.live_ranges() as u64 <= stretches + 1, "{}", queue.live_ranges());
        queue.remove(1, 99_999, |_, _| {});
        let left: Vec<_> = queue.runs().map(|(last, run)| (run.first, last)).collect();
        assert_eq!(left, [(100_000, 100_000)]);
    }

    #[test]
    fn acknowledging_at_random_makes_no_runs() {
        let mut queue = Queue::default();
        for sequence in 1..=100_000u64 {
            queue.insert(sequence, &place(1, sequence * 20, sequence));
        }
        let before = queue.live_ranges();
        let mut settled = 0;
        for i in 0..60_000u64 {
            // A walk over all numbers, out of order.
            queue.remove(i * 7_919 % 100_000 + 1, i * 7_919 % 100_000 + 1, |_, n| settled += n);
        }
        assert_eq!(settled, 60_000);
        assert_eq!(queue.live_ranges(), before);
        let alive: u64 = queue.runs().map(|(last, run)| run.count(last)).sum();
        assert_eq!(alive, 40_000);
        let bytes: u64 = queue.runs().map(|(last, run)| run.bytes_of(run.count(last))).sum();
        assert!((3_900_000..=4_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn numbers_that_are_never_logged_do_not_end_a_run() {
        let mut queue = Queue::default();
        for sequence in (1..SPAN_MAX).step_by(3) {
            queue.insert(sequence, &place(1, 0, sequence));
        }
        assert_eq!(queue.live_ranges(), 1);
        queue.insert(SPAN_MAX + GAP_MAX + 1, &place(1, 0, SPAN_MAX + GAP_MAX + 1));
        assert_eq!(queue.live_ranges(), 2);
        assert!(queue.find(4).is_some() && queue.find(5).is_none());
    }

    proptest! {
        #[test]
        fn runs_agree_with_a_plain_map(
            ops in proptest::collection::vec((0u8..5, 1u64..200, 1u64..10, 1u64..4, 0u64..3), 1..250),
        ) {
            let mut queue = Queue::default();
            let mut model: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            for (act, first, count, segment, shift) in ops {
                if act == 0 {
                    let last = first + count * 7;
                    let mut told = 0;
                    let at = place(segment + 3, 0, first + shift);
                    let moved = queue.relocate(first, last, &at, |_, n| told += n);
                    let mut expected = 0;
                    for (sequence, there) in model.range_mut(first..=last) {
                        *there = (segment + 3, sequence + shift);
                        expected += 1;
                    }
                    prop_assert_eq!((moved, told), (expected, expected));
                } else if act < 3 {
                    for sequence in first..first + count {
                        if model.contains_key(&sequence) { continue; }
                        queue.insert(sequence, &place(segment, 0, sequence + shift));
                        model.insert(sequence, (segment, sequence + shift));
                    }
                } else {
                    let last = first + count - 1;
                    let mut told: BTreeMap<u64, u64> = BTreeMap::new();
                    queue.remove(first, last, |segment, n| if n > 0 { *told.entry(segment).or_default() += n });
                    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
                    for sequence in first..=last {
                        if let Some((segment, _)) = model.remove(&sequence) { *expected.entry(segment).or_default() += 1; }
                    }
                    prop_assert_eq!(told, expected);
                }
                for sequence in 0..220 {
                    let found = queue.find(sequence).map(|(_, run)| (run.segment, run.origin_of(sequence)));
                    prop_assert_eq!(found, model.get(&sequence).copied(), "{}", sequence);
                }
                let mut before = 0;
                let mut alive = Vec::new();
                let mut again = Queue::default();
                for (last, run) in queue.runs() {
                    prop_assert!(run.first > before && last >= run.first);
                    before = last;
                    let ranges: Vec<_> = run.live(run.first, last).collect();
                    prop_assert_eq!(ranges.iter().map(|(a, b)| b - a + 1).sum::<u64>(), run.count(last));
                    alive.extend(ranges.into_iter().flat_map(|(a, b)| a..=b));
                    let place = Place { bytes: run.bytes_of(run.count(last)), ..run.place_of(run.first) };
                    let bits = run.hole_bits(last);
                    let copy = Run::restored(run.first, last, &place, bits.as_deref());
                    prop_assert!(again.restore(last, copy.unwrap(), true));
                }
                prop_assert_eq!(&alive, &model.keys().copied().collect::<Vec<_>>());
                for sequence in 0..220 {
                    prop_assert_eq!(again.find(sequence).is_some(), model.contains_key(&sequence));
                }
            }
        }

        #[test]
        fn a_wide_run_of_an_older_format_is_split_and_takes_no_more_memory(
            settled in proptest::collection::vec(any::<u32>(), 1..60),
        ) {
            let mut queue = Queue::default();
            let last = 1u64 << 40;
            let run = Run::restored(1, last, &place(1, 0, 1), None).unwrap();
            prop_assert!(queue.restore(last, run, true));
            let mut gone = 0;
            for number in &settled {
                let number = u64::from(*number) * 251;
                queue.remove(number, number, |_, n| gone += n);
                prop_assert!(queue.find(number).is_none());
            }
            prop_assert!(queue.live_ranges() <= settled.len() + 1);
            let alive: u64 = queue.runs().map(|(last, run)| run.count(last)).sum();
            prop_assert_eq!(alive + gone, last);
        }
    }
}
