//! The last values of topics: one message each, handed to new subscriptions that want it.
//!
//! In the log they are the messages of a queue that nobody consumes: a new value is put and the old one acknowledged in
//! one group, so that after a restart exactly one is there. Lock order: after the journal's buffer, held into nothing.

use std::collections::BTreeSet;

use sabir_model::clock::Timestamp;
use sabir_model::ids::Sequence;
use sabir_model::message::Message;
use sabir_model::pattern::Pattern;

use crate::pattern_trie::{MatchOptions, NameIndex};
use crate::registry::trie_levels;

/// The last values of one virtual host.
pub(crate) struct Retained {
    values: NameIndex<Kept>,
    expiring: BTreeSet<(Timestamp, Box<str>)>,
    next: u64,
    bytes: u64,
    /// Values of topics that only the broker itself publishes to.
    told: usize,
}

struct Kept {
    message: Message,
    /// Its number in the log, if it is there.
    logged: Option<Sequence>,
}

/// What a change has left to be logged and accounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The number of the old value, to be acknowledged.
    pub(crate) old: Option<Sequence>,
    /// The number of the new value, to be put.
    pub(crate) new: Option<Sequence>,
    /// Change of the bytes held in memory.
    pub(crate) memory: i64,
}

impl Default for Retained {
    fn default() -> Self {
        Self { values: NameIndex::new(), expiring: BTreeSet::new(), next: 1, bytes: 0, told: 0 }
    }
}

impl Retained {
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether only the broker itself publishes to `topic`.
    pub(crate) fn is_told(topic: &str) -> bool {
        topic.starts_with('$')
    }

    /// Values that count towards the limit: not what the broker says about itself.
    pub(crate) fn counted(&self) -> usize {
        self.len() - self.told
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether `topic` has a value.
    pub(crate) fn contains(&self, topic: &str) -> bool {
        self.values.get(topic).is_some()
    }

    /// Continues numbering after what the log knows.
    pub(crate) fn continue_from(&mut self, next: Sequence) {
        self.next = self.next.max(next.0);
    }

    /// Keeps a value in place of the one before; an empty one only takes that away.
    pub(crate) fn set(&mut self, topic: &str, message: &Message, logged: bool) -> Changed {
        let mut changed = self.remove(topic);
        if message.body().is_empty() {
            return changed;
        }
        if logged {
            changed.new = Some(Sequence(self.next));
            self.next += 1;
        }
        changed.memory += self.insert(topic, message.clone(), changed.new);
        changed
    }

    /// Puts back what the log remembered; the newer of two values stays. Returns the number of the other one.
    pub(crate) fn recover(&mut self, topic: &str, message: Message, sequence: Sequence) -> Changed {
        self.continue_from(Sequence(sequence.0 + 1));
        let newest = self.values.get(topic).and_then(|kept| kept.logged);
        if newest.is_some_and(|newest| newest > sequence) {
            return Changed { old: Some(sequence), ..Changed::default() };
        }
        let mut changed = self.remove(topic);
        changed.memory += self.insert(topic, message, Some(sequence));
        changed
    }

    fn insert(&mut self, topic: &str, message: Message, logged: Option<Sequence>) -> i64 {
        let memory = message.memory() as u64 + topic.len() as u64;
        self.bytes += memory;
        self.told += usize::from(Self::is_told(topic));
        if message.facts().expires != Timestamp::NEVER {
            self.expiring.insert((message.facts().expires, topic.into()));
        }
        self.values.insert(topic, Kept { message, logged });
        memory.cast_signed()
    }

    /// Takes a value away.
    pub(crate) fn remove(&mut self, topic: &str) -> Changed {
        let Some(kept) = self.values.remove(topic) else { return Changed::default() };
        let expires = kept.message.facts().expires;
        if expires != Timestamp::NEVER {
            self.expiring.remove(&(expires, topic.into()));
        }
        let memory = kept.message.memory() as u64 + topic.len() as u64;
        self.bytes = self.bytes.saturating_sub(memory);
        self.told -= usize::from(Self::is_told(topic));
        Changed { old: kept.logged, new: None, memory: -memory.cast_signed() }
    }

    /// Removes what has expired.
    pub(crate) fn expire(&mut self, now: Timestamp, mut removed: impl FnMut(Changed)) {
        while let Some((expires, topic)) = self.expiring.first().cloned() {
            if !expires.has_passed(now) {
                return;
            }
            self.expiring.pop_first();
            removed(self.remove(&topic));
        }
    }

    /// Up to `max` values of topics that match and come after `after`, in the order of their names.
    pub(crate) fn next_matches(
        &self,
        pattern: &Pattern,
        after: Option<&str>,
        max: usize,
    ) -> Vec<(Box<str>, Message)> {
        let mut found = Vec::new();
        let options = MatchOptions { hide_dollar: true };
        self.values.for_matches_after(&trie_levels(pattern), options, after, |topic, kept| {
            found.push((topic.into(), kept.message.clone()));
            found.len() < max
        });
        found
    }
}
