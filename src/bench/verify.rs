//! Checks what arrives: a [`Ledger`] knows which messages of each sender have come and which not, an [`Order`] whether
//! one consumer got them in the order in which they were sent.

use std::collections::VecDeque;

/// Words of 64 numbers that are remembered beyond the first one that is missing. What is older than that is given up.
const WORDS_MAX: usize = 16 * 1024;

/// Which numbers of one sender have come.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Below this, everything has come or has been given up.
    base: u64,
    /// A bit for each number from `base` on. Empty as long as all come in order.
    words: VecDeque<u64>,
    received: u64,
    duplicates: u64,
}

impl Seen {
    /// True if the number comes for the first time.
    fn note(&mut self, number: u64) -> bool {
        if number == self.base && self.words.is_empty() {
            self.base += 1;
            self.received += 1;
            return true;
        }
        let Some(distance) = number.checked_sub(self.base) else {
            self.duplicates += 1;
            return false;
        };
        let place = (distance / 64) as usize;
        let excess = place.saturating_sub(WORDS_MAX - 1);
        if excess > 0 {
            self.words.drain(..excess.min(self.words.len()));
            self.base += excess as u64 * 64;
        }
        let place = place - excess;
        if self.words.len() <= place {
            self.words.resize(place + 1, 0);
        }
        let bit = 1 << (distance % 64);
        let Some(word) = self.words.get_mut(place) else { return false };
        if *word & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        *word |= bit;
        self.received += 1;
        while self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.base += 64;
        }
        // Nothing is missing before the last: back to counting.
        if let (1, Some(word)) = (self.words.len(), self.words.front().copied())
            && word.trailing_ones() + word.leading_zeros() == 64
        {
            self.base += u64::from(word.trailing_ones());
            self.words.clear();
        }
        true
    }
}

/// Whoever is to get every message of some senders, alone or with others: what of it has come.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    first: usize,
    seen: Vec<Seen>,
}

impl Ledger {
    /// For the messages of `count` senders from number `first` on.
    pub(crate) fn new(first: usize, count: usize) -> Self {
        Self { first, seen: vec![Seen::default(); count] }
    }

    /// Notes a message; true if it comes for the first time, nothing if it should not come here at all.
    pub(crate) fn note(&mut self, sender: usize, number: u64) -> Option<bool> {
        let seen = self.seen.get_mut(sender.checked_sub(self.first)?)?;
        Some(seen.note(number))
    }

    /// Messages that came again.
    pub(crate) fn duplicates(&self) -> u64 {
        self.seen.iter().map(|seen| seen.duplicates).sum()
    }

    /// Messages that have not come, if each sender has sent what `sent` says.
    pub(crate) fn lost(&self, sent: impl Fn(usize) -> u64) -> u64 {
        let each = self.seen.iter().enumerate();
        each.map(|(index, seen)| sent(self.first + index).saturating_sub(seen.received)).sum()
    }
}

/// In which order one consumer gets the messages of each sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    first: usize,
    /// One above the highest number of each sender.
    next: Vec<u64>,
    /// Messages that came after a later one of their sender.
    pub(crate) reordered: u64,
}

impl Order {
    /// For the messages of `count` senders from number `first` on.
    pub(crate) fn new(first: usize, count: usize) -> Self {
        Self { first, next: vec![0; count], reordered: 0 }
    }

    /// Notes a message that comes for the first time.
    pub(crate) fn note(&mut self, sender: usize, number: u64) {
        let Some(next) = sender.checked_sub(self.first).and_then(|index| self.next.get_mut(index)) else {
            return;
        };
        if number < *next {
            self.reordered += 1;
        } else {
            *next = number + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_late_doubled_or_misled_is_told_apart() {
        let (mut ledger, mut order) = (Ledger::new(5, 2), Order::new(5, 2));
        for (sender, number, is_new) in [
            (5, 0, Some(true)),
            (5, 3, Some(true)),
            (5, 2, Some(true)),
            (5, 3, Some(false)),
            (5, 0, Some(false)),
            (6, 1, Some(true)),
            (7, 0, None),
            (4, 0, None),
        ] {
            assert_eq!(ledger.note(sender, number), is_new, "{sender} {number}");
            if is_new == Some(true) {
                order.note(sender, number);
            }
        }
        assert_eq!((ledger.duplicates(), order.reordered), (2, 1));
        assert_eq!(ledger.lost(|sender| if sender == 5 { 4 } else { 2 }), 2);
    }

    #[test]
    fn every_number_once_is_whole_in_any_order_and_leaves_nothing_behind() {
        for stride in [1, 3, 7, 63, 77, 997] {
            let mut ledger = Ledger::new(0, 1);
            for number in 0..1000 {
                assert_eq!(ledger.note(0, number * stride % 1000), Some(true), "{stride}: {number}");
            }
            for number in 0..1000 {
                assert_eq!(ledger.note(0, number), Some(false), "{stride}: {number}");
            }
            assert_eq!((ledger.lost(|_| 1000), ledger.duplicates()), (0, 1000));
            assert!(ledger.seen[0].words.len() <= 1);
        }
    }

    #[test]
    fn one_lost_message_makes_memory_grow_to_a_bound_only() {
        let mut ledger = Ledger::new(0, 1);
        let count = 3_000_000;
        for number in (0..count).filter(|number| *number != 7) {
            assert_eq!(ledger.note(0, number), Some(true));
        }
        assert!(ledger.seen[0].words.len() <= WORDS_MAX);
        assert_eq!((ledger.lost(|_| count), ledger.duplicates()), (1, 0));
        assert_eq!(ledger.note(0, count + 100_000_000), Some(true), "a leap");
    }
}
