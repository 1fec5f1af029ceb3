//! The numbers that name things: positions, queues, messages, deliveries, subscriptions, transactions.

use std::fmt;

/// The logical sequence number of an op group in the message log. Zero precedes the first group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// One queue of one virtual host, for as long as that queue exists. Never reused, also not after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// A message's number within one queue: dense, from 1, in the order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// A broker-made message id: unique over restarts (`origin` mixes the boot and the connection).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Which producer connection of which boot made it.
    pub origin: u64,
    /// The producer connection's counter.
    pub number: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ID:{:x}-{:x}", self.origin, self.number)
    }
}

impl MessageId {
    /// Parses what `Display` writes; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (origin, number) = text.strip_prefix("ID:")?.split_once('-')?;
        let part = |digits: &str| {
            let canonical = digits == "0" || !digits.starts_with('0');
            let lower = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            (canonical && lower).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        Some(Self { origin: part(origin)?, number: part(number)? })
    }
}

/// One delivery attempt: which queue, which slot of its in-flight slab, and which use of that slot.
/// A token of an earlier boot or of a settled delivery names nothing and is answered with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryToken {
    /// Low bits of the boot epoch.
    pub boot: u32,
    /// The queue that dispatched it.
    pub queue: QueueId,
    /// Slot of the queue's in-flight slab.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// A session's own number for one of its subscriptions; unique within the connection while it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionKey(pub u32);

/// A session's own number for one of its open transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionKey(pub u32);

/// One connection of this boot, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);
