//! The ready messages of one queue, in the order they are to be handed out.
//!
//! Arrivals form a dense run indexed by sequence number; what comes back to the head, and everything of a prioritized
//! queue, lives in an ordered map. Taking from the middle (selectors) leaves holes; too many holes move the rest to the
//! map, so memory follows the messages held and not the span of their numbers.
//!
//! Of a deep queue only a window is here; of the rest ([`Paged`]) the numbers are known, and the log has the bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sabir_model::clock::Timestamp;
use sabir_model::delivery::Grant;
use sabir_model::ids::{ConnectionId, Sequence};
use sabir_model::message::{Message, PRIORITY_MAX};

use crate::paged::Paged;

/// Missing numbers (settled before a restart, say) that the run bridges with holes.
const GAP_MAX: u64 = 64;

/// One ready message.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    /// Attempts that ended without being accepted.
    pub(crate) attempts: u32,
    /// Whether the log holds it.
    pub(crate) logged: bool,
    /// Whether some attempt may have reached a consumer.
    pub(crate) redelivered: bool,
    /// The attempts of this boot that failed; a pointer, for most messages have none.
    pub(crate) history: Option<Box<History>>,
    /// In the backlog of a client session: what its matching subscriptions grant.
    pub(crate) grant: Option<Arc<Grant>>,
    /// What the egress has noted of the handover; 0 if nothing.
    pub(crate) progress: u32,
    /// Whether the log holds that note.
    pub(crate) progress_logged: bool,
}

/// Attempts that failed, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(pub(crate) Vec<Failed>);

/// Failed attempts remembered of one message; of more, the newest.
const HISTORY_MAX: usize = 16;

/// One attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) at: Timestamp,
    pub(crate) connection: ConnectionId,
    /// What the consumer did.
    pub(crate) how: &'static str,
}

impl Entry {
    /// A message that nobody has tried yet.
    pub(crate) fn new(message: Message, logged: bool) -> Self {
        Self {
            message,
            attempts: 0,
            logged,
            redelivered: false,
            history: None,
            grant: None,
            progress: 0,
            progress_logged: false,
        }
    }

    /// Whether the log has all there is to know of it. (That a crash may have cut a delivery short is known of all
    /// messages that are older.)
    pub(crate) fn is_in_log(&self) -> bool {
        let is_last_value = self.grant.as_ref().is_some_and(|grant| grant.retained);
        self.logged && self.attempts == 0 && self.progress == 0 && !is_last_value
    }

    /// Counts an attempt that failed.
    pub(crate) fn failed(&mut self, failed: Failed) {
        self.attempts += 1;
        self.redelivered = true;
        let History(history) = &mut **self.history.get_or_insert_default();
        if history.len() >= HISTORY_MAX {
            history.remove(0);
        }
        history.push(failed);
    }
}

/// The place of a message in the order of its queue: rank (0 goes first), then sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) rank: u8,
    pub(crate) sequence: Sequence,
}

impl Key {
    pub(crate) const FIRST: Self = Self { rank: 0, sequence: Sequence(0) };

    /// The place right behind this one.
    pub(crate) fn next(self) -> Self {
        Self { rank: self.rank, sequence: Sequence(self.sequence.0 + 1) }
    }
}

/// What comes next in a queue.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// This message.
    Here(Key, &'a Entry),
    /// A message that is to be read from the log first.
    Paged(Key),
}

#[derive(Debug, Default)]
pub(crate) struct Ready {
    prioritized: bool,
    /// Those of which only the log has the bytes.
    pub(crate) paged: Paged,
    /// Entries of consecutive sequence numbers from `base` on; never starts or ends with a hole.
    run: VecDeque<Option<Entry>>,
    base: u64,
    holes: usize,
    /// Everything else.
    map: BTreeMap<Key, Entry>,
}

impl Ready {
    pub(crate) fn new(prioritized: bool) -> Self {
        Self { prioritized, ..Self::default() }
    }

    pub(crate) fn is_prioritized(&self) -> bool {
        self.prioritized
    }

    /// Messages in memory.
    pub(crate) fn resident(&self) -> usize {
        self.run.len() - self.holes + self.map.len()
    }

    /// All messages.
    pub(crate) fn len(&self) -> u64 {
        self.resident() as u64 + self.paged.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of a message of this priority.
    pub(crate) fn key(&self, sequence: Sequence, priority: u8) -> Key {
        let rank = if self.prioritized { PRIORITY_MAX - priority.min(PRIORITY_MAX) } else { 0 };
        Key { rank, sequence }
    }

    /// Adds a message and tells its place.
    pub(crate) fn insert(&mut self, sequence: Sequence, entry: Entry) -> Key {
        let key = self.key(sequence, entry.message.facts().priority);
        if self.prioritized {
            self.map.insert(key, entry);
            return key;
        }
        let next = self.base + self.run.len() as u64;
        if self.run.is_empty() {
            self.base = sequence.0;
            self.run.push_back(Some(entry));
        } else if sequence.0 == next {
            self.run.push_back(Some(entry));
        } else if sequence.0 > next && sequence.0 - next <= GAP_MAX {
            for _ in next..sequence.0 {
                self.run.push_back(None);
                self.holes += 1;
            }
            self.run.push_back(Some(entry));
        } else {
            self.map.insert(key, entry);
        }
        key
    }

    /// What is first at or after `from`.
    pub(crate) fn next_from(&self, from: Key) -> Option<Next<'_>> {
        let here = self.peek_from(from);
        if self.paged.is_empty() {
            return here.map(|(key, entry)| Next::Here(key, entry));
        }
        match (here, self.paged.first_from(from)) {
            (Some((key, _)), Some(paged)) if paged < key => Some(Next::Paged(paged)),
            (Some((key, entry)), _) => Some(Next::Here(key, entry)),
            (None, paged) => paged.map(Next::Paged),
        }
    }

    /// Messages in memory that are `wanted`, from the last one on, of `bytes` in all; none of those in `spared`.
    pub(crate) fn last_that(
        &self,
        bytes: u64,
        spared: Option<(Key, Key)>,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Vec<Key> {
        let in_run = self.run.iter().enumerate().rev().filter_map(|(index, slot)| {
            let key = Key { rank: 0, sequence: Sequence(self.base + index as u64) };
            slot.as_ref().map(|entry| (key, entry))
        });
        let mut in_run = in_run.peekable();
        let mut in_map = self.map.iter().rev().map(|(key, entry)| (*key, entry)).peekable();
        let mut found = Vec::new();
        let mut left = bytes;
        while left > 0 {
            let next = match (in_run.peek(), in_map.peek()) {
                (Some((run, _)), Some((map, _))) if run > map => in_run.next(),
                (Some(_), None) => in_run.next(),
                _ => in_map.next(),
            };
            let Some((key, entry)) = next else { break };
            if wanted(entry) && spared.is_none_or(|(first, last)| key < first || key > last) {
                left = left.saturating_sub(entry.message.memory() as u64);
                found.push(key);
            }
        }
        found
    }

    /// The first message in memory at or after `from`.
    pub(crate) fn peek_from(&self, from: Key) -> Option<(Key, &Entry)> {
        let in_map = self.map.range(from..).next().map(|(key, entry)| (*key, entry));
        let in_run = self.run_from(from);
        match (in_run, in_map) {
            (Some(run), Some(map)) => Some(if map.0 < run.0 { map } else { run }),
            (run, map) => run.or(map),
        }
    }

    fn run_from(&self, from: Key) -> Option<(Key, &Entry)> {
        if self.run.is_empty() || from.rank > 0 {
            return None;
        }
        let skip = usize::try_from(from.sequence.0.saturating_sub(self.base)).unwrap_or(usize::MAX);
        if skip >= self.run.len() {
            return None;
        }
        self.run.range(skip..).enumerate().find_map(|(index, slot)| {
            let sequence = Sequence(self.base + (skip + index) as u64);
            slot.as_ref().map(|entry| (Key { rank: 0, sequence }, entry))
        })
    }

    /// The ranks that there may be.
    fn ranks(&self) -> std::ops::RangeInclusive<u8> {
        0..=if self.prioritized { PRIORITY_MAX } else { 0 }
    }

    /// The first message of one rank that arrived after another.
    fn next_of_rank(&self, rank: u8, after: Sequence) -> Option<(Key, &Entry)> {
        let from = Key { rank, sequence: Sequence(after.0.saturating_add(1)) };
        self.peek_from(from).filter(|(key, _)| key.rank == rank)
    }

    /// The message of this number, if it is in memory.
    pub(crate) fn find(&self, sequence: Sequence) -> Option<(Key, &Entry)> {
        let before = Sequence(sequence.0.checked_sub(1)?);
        let mut firsts = self.ranks().filter_map(|rank| self.next_of_rank(rank, before));
        firsts.find(|(key, _)| key.sequence == sequence)
    }

    /// What of those in memory arrived after a message, in the order of arrival and whatever its priority; at most so many.
    pub(crate) fn arrived_after(&self, after: Sequence, most: usize) -> Vec<(Key, &Entry)> {
        let mut heads: Vec<(Key, &Entry)> =
            self.ranks().filter_map(|rank| self.next_of_rank(rank, after)).collect();
        let mut found = Vec::with_capacity(most.min(self.resident()));
        while found.len() < most
            && let Some((at, first)) =
                heads.iter().copied().enumerate().min_by_key(|(_, (key, _))| key.sequence)
        {
            found.push(first);
            match self.next_of_rank(first.0.rank, first.0.sequence) {
                Some(next) => {
                    if let Some(head) = heads.get_mut(at) {
                        *head = next;
                    }
                }
                None => drop(heads.swap_remove(at)),
            }
        }
        found
    }

    /// Takes the message at `key`.
    pub(crate) fn take(&mut self, key: Key) -> Option<Entry> {
        if let Some(entry) = self.map.remove(&key) {
            return Some(entry);
        }
        let index = usize::try_from(key.sequence.0.checked_sub(self.base)?).ok()?;
        let entry = self.run.get_mut(index)?.take()?;
        self.holes += 1;
        while matches!(self.run.front(), Some(None)) {
            self.run.pop_front();
            self.base += 1;
            self.holes -= 1;
        }
        while matches!(self.run.back(), Some(None)) {
            self.run.pop_back();
            self.holes -= 1;
        }
        if self.holes > 1024 && self.holes > self.run.len() / 2 {
            let base = self.base;
            for (index, slot) in self.run.drain(..).enumerate() {
                if let Some(entry) = slot {
                    self.map.insert(Key { rank: 0, sequence: Sequence(base + index as u64) }, entry);
                }
            }
            self.holes = 0;
        }
        if self.run.is_empty() && self.run.capacity() > 4096 {
            self.run = VecDeque::new();
        }
        Some(entry)
    }

    /// The message at `key`, if it is in memory.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        if let Some(entry) = self.map.get_mut(&key) {
            return Some(entry);
        }
        let index = usize::try_from(key.sequence.0.checked_sub(self.base)?).ok()?;
        self.run.get_mut(index)?.as_mut()
    }

    /// Changes every message in memory.
    pub(crate) fn for_each_mut(&mut self, change: impl FnMut(&mut Entry)) {
        self.run.iter_mut().flatten().chain(self.map.values_mut()).for_each(change);
    }

    /// The first message in memory of each priority.
    pub(crate) fn first_of_each_rank(&self) -> impl Iterator<Item = &Entry> {
        self.ranks().filter_map(|rank| {
            let (key, entry) = self.peek_from(Key { rank, sequence: Sequence(0) })?;
            (key.rank == rank).then_some(entry)
        })
    }

    /// All messages in memory, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Entry)> {
        let mut next = Some(Key::FIRST);
        std::iter::from_fn(move || {
            let (key, entry) = self.peek_from(next?)?;
            next = Some(key.next());
            Some((key, entry))
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use sabir_model::message::{Body, Facts};

    fn entry(priority: u8) -> Entry {
        let message = Message::new(Facts { priority, ..Facts::default() }, &[], Body::Borrowed(b""));
        Entry::new(message, false)
    }

    fn drain(ready: &mut Ready) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some((key, _)) = ready.peek_from(Key::FIRST) {
            ready.take(key).unwrap();
            order.push(key.sequence.0);
        }
        order
    }

    #[test]
    fn what_comes_back_goes_to_the_head_in_its_old_order() {
        let mut ready = Ready::new(false);
        for sequence in 1..=6 {
            ready.insert(Sequence(sequence), entry(4));
        }
        for sequence in [1, 2, 3] {
            ready.take(Key { rank: 0, sequence: Sequence(sequence) }).unwrap();
        }
        for sequence in [2, 3, 1] {
            ready.insert(Sequence(sequence), entry(4));
        }
        assert_eq!(ready.len(), 6);
        assert_eq!(drain(&mut ready), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn priority_goes_first_then_arrival() {
        let mut ready = Ready::new(true);
        for (sequence, priority) in [(1, 4), (2, 9), (3, 0), (4, 9)] {
            ready.insert(Sequence(sequence), entry(priority));
        }
        assert_eq!(drain(&mut ready), [2, 4, 1, 3]);
    }

    #[test]
    fn arrivals_are_found_by_number_whatever_their_rank() {
        for prioritized in [false, true] {
            let mut ready = Ready::new(prioritized);
            for (sequence, priority) in [(1, 4), (2, 9), (3, 0), (5, 9), (6, 4), (400, 1)] {
                ready.insert(Sequence(sequence), entry(priority));
            }
            ready.take(ready.find(Sequence(3)).unwrap().0).unwrap();
            let after = |after, most| -> Vec<u64> {
                let found = ready.arrived_after(Sequence(after), most);
                found.into_iter().map(|(key, _)| key.sequence.0).collect()
            };
            assert_eq!(after(0, 9), [1, 2, 5, 6, 400]);
            assert_eq!(after(1, 2), [2, 5]);
            assert_eq!(after(400, 9), []);
            for absent in [0, 3, 4, 7, 401, u64::MAX] {
                assert!(ready.find(Sequence(absent)).is_none(), "{absent}");
            }
            assert_eq!(ready.find(Sequence(5)).unwrap().1.message.facts().priority, 9);
        }
    }

    #[test]
    fn holes_do_not_accumulate() {
        let mut ready = Ready::new(false);
        for sequence in 1..=100_000 {
            ready.insert(Sequence(sequence), entry(4));
            if sequence > 1 {
                ready.take(Key { rank: 0, sequence: Sequence(sequence) }).unwrap();
            }
        }
        assert!(ready.run.len() + ready.map.len() < 4096);
        assert_eq!(drain(&mut ready), [1]);
    }

    #[test]
    fn random_takes_and_returns_keep_the_order() {
        let mut ready = Ready::new(false);
        let mut model = std::collections::BTreeSet::new();
        let mut seed = 7u64;
        let mut next = 1u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if seed >> 62 < 2 {
                ready.insert(Sequence(next), entry(4));
                model.insert(next);
                next += 1;
            } else if seed >> 62 == 2 && !model.is_empty() {
                let nth = (seed >> 20) as usize % model.len().min(50);
                let sequence = *model.iter().nth(nth).unwrap();
                ready.take(Key { rank: 0, sequence: Sequence(sequence) }).unwrap();
                model.remove(&sequence);
                if seed & 1 == 0 {
                    ready.insert(Sequence(sequence), entry(4));
                    model.insert(sequence);
                }
            }
            assert_eq!(ready.len(), model.len() as u64);
        }
        let order: Vec<u64> = ready.iter().map(|(key, _)| key.sequence.0).collect();
        assert_eq!(order, model.into_iter().collect::<Vec<_>>());
    }
}
