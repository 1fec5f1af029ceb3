//! What holds for a destination: limits, durability, dead letters, slow consumers. Data, looked up once per destination.

use std::sync::Arc;
use std::time::Duration;

use sabir_model::destination::{Destination, Kind};
use sabir_model::pattern::{Pattern, PatternLevel};
use sabir_store::Level;

/// What a negative acknowledgement does when the client does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Negative {
    /// Redeliver, counting the attempt; a dead letter at the delivery limit.
    #[default]
    Redeliver,
    /// A dead letter at once.
    DeadLetter,
}

/// What happens to an expired message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expired {
    /// Dropped and counted.
    #[default]
    Drop,
    /// Moved to the dead-letter queue.
    DeadLetter,
}

/// Where dead letters go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetters {
    /// One queue for all.
    Shared(Destination),
    /// A queue of their own per source: prefix, dotted name of the source, suffix.
    Individual {
        /// Put before the name.
        prefix: String,
        /// Put after the name.
        suffix: String,
    },
    /// Nowhere: dropped and counted.
    Discard,
}

/// What happens to a live topic subscriber that reads too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Its oldest waiting messages are dropped.
    #[default]
    DropOldest,
    /// New messages are dropped.
    DropNewest,
    /// It is disconnected.
    Disconnect,
}

/// All that holds for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What a receipt for a persistent message promises.
    pub durability: Level,
    /// Most messages held; beyond, sends are refused.
    pub messages_max: u64,
    /// Most bytes held; beyond, sends are refused.
    pub bytes_max: u64,
    /// Deliveries after which a message becomes a dead letter; 0 for no limit.
    pub delivery_limit: u32,
    /// What a negative acknowledgement does.
    pub negative: Negative,
    /// Where dead letters go.
    pub dead_letters: DeadLetters,
    /// What happens to expired messages.
    pub expired: Expired,
    /// Whether higher message priority goes first.
    pub prioritized: bool,
    /// What happens to slow live subscribers.
    pub slow_consumer: SlowConsumer,
    /// Messages that may wait for one slow live subscriber before [`Policy::slow_consumer`] applies.
    pub pending_max: usize,
    /// Credit of a consumer that names none.
    pub prefetch: Option<u32>,
    /// Idle time after which an empty, unused queue is deleted.
    pub gc_after: Option<Duration>,
    /// Longest life of a message; a longer or absent expiration is cut to it.
    pub ttl_max: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            durability: Level::Fsync,
            messages_max: u64::MAX,
            bytes_max: u64::MAX,
            delivery_limit: 7,
            negative: Negative::default(),
            dead_letters: DeadLetters::Shared(Destination::queue("ActiveMQ.DLQ")),
            expired: Expired::default(),
            prioritized: false,
            slow_consumer: SlowConsumer::default(),
            pending_max: 1000,
            prefetch: None,
            gc_after: None,
            ttl_max: None,
        }
    }
}

/// The policies of a broker: an exact entry wins, else the most specific wildcard; entries do not merge.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    default: Arc<Policy>,
    entries: Vec<(Pattern, Arc<Policy>)>,
}

impl Policies {
    /// With the policy for destinations that no entry names.
    #[must_use]
    pub fn new(default: Policy) -> Self {
        Self { default: Arc::new(default), entries: Vec::new() }
    }

    /// Adds an entry.
    pub fn add(&mut self, pattern: Pattern, policy: Policy) {
        self.entries.push((pattern, Arc::new(policy)));
    }

    /// What holds for destinations that no entry names.
    #[must_use]
    pub fn default_policy(&self) -> &Policy {
        &self.default
    }

    /// The entries, in the order in which they were added.
    pub fn entries(&self) -> impl Iterator<Item = (&Pattern, &Policy)> {
        self.entries.iter().map(|(pattern, policy)| (pattern, &**policy))
    }

    /// Whether some policy sends dead letters to `destination`.
    #[must_use]
    pub fn sends_dead_letters_to(&self, destination: &Destination) -> bool {
        let policies = self.entries.iter().map(|(_, policy)| policy).chain([&self.default]);
        policies.map(|policy| &policy.dead_letters).any(|dead_letters| match dead_letters {
            DeadLetters::Shared(target) => target == destination,
            DeadLetters::Individual { prefix, suffix } => {
                let name = destination.dotted();
                destination.kind() == Kind::Queue
                    && prefix.len() + suffix.len() > 0
                    && name.starts_with(prefix)
                    && name.ends_with(suffix)
            }
            DeadLetters::Discard => false,
        })
    }

    /// What holds for `destination`.
    #[must_use]
    pub fn lookup(&self, destination: &Destination) -> Arc<Policy> {
        self.lookup_name(destination.kind(), destination.canonical())
    }

    fn lookup_name(&self, kind: Kind, name: &str) -> Arc<Policy> {
        self.entries
            .iter()
            .filter(|(pattern, _)| pattern.kind() == kind && pattern.matches_name(name))
            .max_by_key(|(pattern, _)| specificity(pattern))
            .map_or_else(|| Arc::clone(&self.default), |(_, policy)| Arc::clone(policy))
    }
}

/// Exact before wildcard, then more literal levels, then longer.
fn specificity(pattern: &Pattern) -> (bool, usize, usize) {
    let literals = pattern.levels().filter(|level| matches!(level, PatternLevel::Literal(_))).count();
    (pattern.as_literal().is_some(), literals, pattern.levels().count())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_most_specific_entry_wins_and_entries_do_not_merge() {
        let mut policies = Policies::default();
        for (index, text) in
            ["queue://>", "queue://a.>", "queue://a.*", "queue://a.b"].into_iter().enumerate()
        {
            let policy = Policy { messages_max: index as u64, ..Policy::default() };
            policies.add(Pattern::parse_qualified(text, Kind::Queue).unwrap(), policy);
        }
        for (name, wanted) in [("x", 0), ("a.b.c", 1), ("a.c", 2), ("a.b", 3)] {
            assert_eq!(policies.lookup(&Destination::queue(name)).messages_max, wanted, "{name}");
        }
        assert_eq!(policies.lookup(&Destination::topic("a.b")).messages_max, u64::MAX);
    }
}
