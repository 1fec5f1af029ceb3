//! What the broker counts, and the snapshot that metrics are made of.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use sabir_model::clock::Timestamp;
use sabir_model::error::Code;
use sabir_store::{Level, StoreStats};

/// Broker-wide counters.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) published_bytes: AtomicU64,
    pub(crate) dispatched: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) redelivered: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
    pub(crate) discarded: AtomicU64,
    /// By the place of the code among all codes.
    refused: Box<[AtomicU64]>,
    /// Connections ended for reading too slowly.
    pub(crate) cut_off: AtomicU64,
    pub(crate) unrouted: AtomicU64,
    pub(crate) connections_total: AtomicU64,
    pub(crate) logins_failed: AtomicU64,
    pub(crate) transactions_committed: AtomicU64,
    pub(crate) transactions_aborted: AtomicU64,
    pub(crate) sessions_expired: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) spilled: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            published: zero(),
            published_bytes: zero(),
            dispatched: zero(),
            acknowledged: zero(),
            redelivered: zero(),
            expired: zero(),
            dead_lettered: zero(),
            discarded: zero(),
            refused: Code::ALL.iter().map(|_| zero()).collect(),
            cut_off: zero(),
            unrouted: zero(),
            connections_total: zero(),
            logins_failed: zero(),
            transactions_committed: zero(),
            transactions_aborted: zero(),
            sessions_expired: zero(),
            unreadable: zero(),
            spilled: zero(),
        }
    }
}

impl Counters {
    /// Counts a send that was refused.
    pub(crate) fn refuse(&self, code: Code) {
        let index = Code::ALL.iter().position(|known| *known == code);
        if let Some(counter) = index.and_then(|index| self.refused.get(index)) {
            add(counter, 1);
        }
    }

    /// How many sends were refused, by code; only those above zero.
    pub(crate) fn refused_by_code(&self) -> Vec<(&'static str, u64)> {
        let all = Code::ALL.iter().zip(&self.refused).map(|(code, counter)| (code.as_str(), read(counter)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

/// A snapshot of the broker.
#[derive(Clone, Debug, Default)]
pub struct BrokerStats {
    /// Connections open now.
    pub connections: u64,
    /// Connections ever accepted.
    pub connections_total: u64,
    /// Logins refused.
    pub logins_failed: u64,
    /// Messages accepted from producers.
    pub published: u64,
    /// Their bodies' bytes.
    pub published_bytes: u64,
    /// Deliveries written to outboxes.
    pub dispatched: u64,
    /// Deliveries accepted by consumers.
    pub acknowledged: u64,
    /// Attempts that were returned and counted.
    pub redelivered: u64,
    /// Messages that expired.
    pub expired: u64,
    /// Messages that became dead letters.
    pub dead_lettered: u64,
    /// Messages dropped by policy.
    pub discarded: u64,
    /// Messages that the log could not give back.
    pub unreadable: u64,
    /// Messages that need not outlive the broker and went to the log for want of memory.
    pub spilled: u64,
    /// Bytes of those of them that are held still, about.
    pub spilled_bytes: u64,
    /// Sends refused.
    pub refused: u64,
    /// The same by the code of the refusal; only those above zero.
    pub refused_by_code: Vec<(&'static str, u64)>,
    /// Connections that are not read now because the log is behind with what they sent.
    pub waiting_for_log: u64,
    /// Connections that are not read now because a queue they sent to has much of the memory.
    pub waiting_for_memory: u64,
    /// How often a connection had to wait for the log.
    pub waits_for_log: u64,
    /// How often a connection had to wait for memory.
    pub waits_for_memory: u64,
    /// Connections whose sockets take no more now although something waits for them.
    pub connections_slow: u64,
    /// Connections ended for reading too slowly.
    pub cut_off: u64,
    /// Of the bytes in memory: those that wait for sockets.
    pub memory_outboxes: u64,
    /// Of the bytes in memory: frames that have arrived in part.
    pub memory_frames: u64,
    /// Of the bytes in memory: sends that wait for their commit.
    pub memory_transactions: u64,
    /// Most bytes of all segment files, if that is limited.
    pub disk_bytes_max: Option<u64>,
    /// Bytes appended to the log and not written, or not synced where that is asked for.
    pub pending_bytes: u64,
    /// Above this those who sent them wait.
    pub pending_bytes_soft: u64,
    /// At this persistent sends are refused.
    pub pending_bytes_max: u64,
    /// Messages published to topics where nobody was interested.
    pub unrouted: u64,
    /// Transactions committed.
    pub transactions_committed: u64,
    /// Transactions aborted.
    pub transactions_aborted: u64,
    /// Bytes of messages held in memory.
    pub memory_bytes: u64,
    /// Most bytes of messages that may be held in memory.
    pub memory_bytes_max: u64,
    /// Topic subscriptions, bindings of durable ones included.
    pub topic_subscriptions: u64,
    /// Client sessions, whether somebody is connected or not.
    pub sessions: u64,
    /// Those of them that somebody is connected to.
    pub sessions_connected: u64,
    /// Client sessions whose time was over.
    pub sessions_expired: u64,
    /// Groups of client sessions that share a subscription.
    pub shared_subscriptions: u64,
    /// Topics that keep a last value.
    pub retained: u64,
    /// Bytes of these.
    pub retained_bytes: u64,
    /// The message log.
    pub store: StoreStats,
    /// When the snapshot was taken.
    pub time: Timestamp,
    /// Connections by the protocol they speak, without its version; those of HTTP clients as `http`.
    pub connections_by_protocol: BTreeMap<String, u64>,
    /// One row per queue, by name.
    pub queues: Vec<QueueStats>,
    /// One row per topic that clients have sent to by name, by name.
    pub topics: Vec<TopicStats>,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicStats {
    /// Qualified name: `topic://prices`.
    pub name: String,
    /// The virtual host it is in; `/` is the default one.
    pub host: String,
    /// Messages that clients have sent to it by name in this boot.
    pub published: u64,
}

/// One queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Qualified name: `queue://orders`, or `durable://client:name` for a durable subscription.
    pub name: String,
    /// The virtual host it is in; `/` is the default one.
    pub host: String,
    /// What a receipt for a persistent message promises here; `memory` also where nothing is logged by its nature.
    pub durability: Level,
    /// Messages ready for a consumer.
    pub ready: u64,
    /// Messages delivered and not settled.
    pub unsettled: u64,
    /// Bytes held, in memory or not.
    pub bytes: u64,
    /// Of those that are ready: messages that are in the log only and not in memory.
    pub paged: u64,
    /// Consumers attached.
    pub consumers: u64,
    /// Messages ever enqueued in this boot.
    pub enqueued: u64,
    /// Messages ever settled as accepted in this boot.
    pub acknowledged: u64,
    /// Messages that expired in this boot.
    pub expired: u64,
    /// Messages that became dead letters in this boot.
    pub dead_lettered: u64,
    /// Deliveries handed to consumers in this boot.
    pub delivered: u64,
    /// Attempts that came back and were counted, in this boot.
    pub redelivered: u64,
    /// Nothing is handed out; sends are still taken.
    pub paused: bool,
    /// When the oldest message held was sent, as it tells itself.
    pub oldest: Option<Timestamp>,
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
