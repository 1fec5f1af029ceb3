//! What a broker is made of, and its bounds.

use std::sync::Arc;

use sabir_model::access::{Authenticator, Authorizer};
use sabir_model::clock::Clock;
use sabir_model::limits::Prefetch;
use sabir_store::{Fs, Level, StoreOptions};

use crate::policy::{Policies, SlowConsumer};
use crate::rules::Rules;
use crate::writer::OutboxLimits;

/// Bounds of the broker.
#[derive(Clone, Debug)]
pub struct BrokerLimits {
    /// Most open connections.
    pub connections_max: usize,
    /// Most queues of any kind.
    pub destinations_max: usize,
    /// Most bytes of messages in memory; beyond, sends are refused.
    pub memory_bytes_max: u64,
    /// Most bytes of one queue's messages in memory, as far as the log holds them: what is beyond is read when its turn
    /// comes. Less when memory runs low.
    pub queue_memory_bytes_max: u64,
    /// Most bytes of messages that are not persistent in the log, for want of memory.
    pub spilled_bytes_max: u64,
    /// Unsynced bytes above which publishers' reading pauses.
    pub pending_bytes_soft: usize,
    /// Most unsynced bytes, as the log is told: of what is left above the soft mark no connection gets more than half.
    pub pending_bytes_max: usize,
    /// Most bytes one open transaction may hold.
    pub transaction_bytes_max: usize,
    /// Most sends and settlements one open transaction may hold.
    pub transaction_items_max: usize,
    /// Most temporary destinations of one connection.
    pub temporaries_max: usize,
    /// Most subscriptions of one client session.
    pub session_subscriptions_max: usize,
    /// Most messages in the backlog of one client session.
    pub session_messages_max: u64,
    /// Most bytes in the backlog of one client session.
    pub session_bytes_max: u64,
    /// What happens beyond: the oldest or the newest is dropped, or the client is disconnected.
    pub session_when_full: SlowConsumer,
    /// What is promised of messages in the backlog of a client session that may outlive its connection.
    pub session_durability: Level,
    /// Most topics that keep a last value.
    pub retained_max: usize,
    /// Bounds of one connection's outgoing side.
    pub outbox: OutboxLimits,
    /// Credit granted where neither client nor policy names one.
    pub prefetch: Prefetch,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            destinations_max: 1_000_000,
            memory_bytes_max: 4 << 30,
            queue_memory_bytes_max: 16 << 20,
            spilled_bytes_max: 1 << 30,
            pending_bytes_soft: 4 << 20,
            pending_bytes_max: 64 << 20,
            transaction_bytes_max: 256 << 20,
            transaction_items_max: 1_000_000,
            temporaries_max: 10_000,
            session_subscriptions_max: 10_000,
            session_messages_max: 100_000,
            session_bytes_max: 256 << 20,
            session_when_full: SlowConsumer::DropOldest,
            session_durability: Level::Fsync,
            retained_max: 10_000_000,
            outbox: OutboxLimits::default(),
            prefetch: Prefetch::default(),
        }
    }
}

/// What a broker is made of.
pub struct BrokerOptions {
    /// The message log.
    pub store: StoreOptions,
    /// The disk it lives on.
    pub fs: Arc<dyn Fs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who is who.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Composite destinations, virtual topics, mirrored queues.
    pub rules: Rules,
    /// What holds for destinations.
    pub policies: Policies,
    /// Bounds.
    pub limits: BrokerLimits,
    /// Names of virtual hosts besides the default, `/`.
    pub virtual_hosts: Vec<String>,
    /// No threads of the broker's own: passwords are checked where they arrive. For simulations, which must follow from
    /// their inputs alone; the log has such a switch too.
    pub single_threaded: bool,
}
