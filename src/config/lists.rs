//! The lists: sections that can be written several times, one `[[name]]` per entry. The same kind of table as the keys.

use sabir_model::access::Action;
use sabir_model::destination::Destination;
use sabir_model::pattern::Pattern;
use sabir_security::{Effect, Who};

use super::table::{bytes, count, ms, table};
use super::types::{
    DeadLetter, Durability, Expired, Forward, GroupPrefix, Nack, Postfix, QueueName, SlowConsumer,
    TopicPattern, WhenFull,
};

const TIB: u64 = 1 << 40;
const YEARS_MS: u64 = 100 * 366 * 24 * 60 * 60 * 1000;

table! {
    /// What holds for the destinations that a pattern names. The most specific entry holds alone: entries do not mix.
    Policy "policy" {
        /// The destinations: queue://NAME or topic://NAME; * is one level, a last > the rest.
        destination: Pattern = required;
        /// What a receipt for a persistent message promises; unset, it is store.durability.
        durability: Option<Durability> = unset;
        /// Most messages held; 0 is no limit.
        messages_max: u64 [count(0, u64::MAX >> 1)] = "0";
        /// Most bytes held; 0 is no limit.
        bytes_max: u64 [bytes(0, 1024 * TIB)] = "0";
        /// What a send meets when a limit is reached: it is refused with an error.
        when_full: WhenFull = "refuse";
        /// Deliveries after which a message is a dead letter; 0 is no limit.
        delivery_limit: u32 [count(0, 1_000_000)] = "7";
        /// What a negative acknowledgement does that does not say: redeliver (up to the limit) or dead-letter at once.
        nack: Nack = "redeliver";
        /// Where dead letters go: to one queue (shared), to one per source (individual), or nowhere (discard).
        dead_letter: DeadLetter = "shared";
        /// The one queue.
        dead_letter_queue: QueueName = "ActiveMQ.DLQ";
        /// Before the source's name in the name of its own queue.
        dead_letter_prefix: String = "DLQ.";
        /// After the source's name in the name of its own queue.
        dead_letter_suffix: String = "";
        /// What becomes of expired messages: drop or dead-letter.
        expired: Expired = "drop";
        /// Whether higher priority goes first.
        prioritized: bool = "false";
        /// What happens to a live topic subscriber that reads too slowly: drop-oldest, drop-newest or disconnect.
        slow_consumer: SlowConsumer = "drop-oldest";
        /// Messages that may wait for one such subscriber before that happens.
        pending_max: usize [count(1, 100_000_000)] = "1000";
        /// Unacknowledged messages for a consumer that does not say; unset, it is as in `destinations`.
        prefetch: Option<u32> [count(1, 1_000_000)] = unset;
        /// Time after which an empty queue or topic that nobody uses is deleted; 0 is never.
        gc_after_ms: u64 [ms(0, YEARS_MS)] = "0";
        /// Longest life of a message; 0 is as long as the sender says.
        ttl_max_ms: u64 [ms(0, YEARS_MS)] = "0";
    }
}

table! {
    /// A destination that forwards what is sent to it.
    Composite "composite" {
        /// What clients send to: queue://NAME or topic://NAME, wildcards allowed.
        name: Pattern = required;
        /// The targets, in order: destinations, or tables { destination = "…", selector = "…" }.
        forward_to: Vec<Forward> = required;
        /// Whether the named destination itself receives nothing.
        forward_only: bool = "true";
        /// The named destination receives a message exactly if no target with a selector did; overrides forward_only.
        send_when_not_matched: bool = "false";
        /// Accepted for ActiveMQ's users, without effect: the fan-out is always one atomic group.
        concurrent_send: bool = "false";
    }
}

table! {
    /// Topics from which each consumer group has a queue of its own. Entries replace the default one, which is as below.
    VirtualTopic "virtual_topic" {
        /// Which topics.
        name: TopicPattern = "VirtualTopic.>";
        /// Before the topic's name in a group's queue; the * is the group.
        prefix: GroupPrefix = "Consumer.*.";
        /// After the topic's name in a group's queue.
        postfix: Postfix = "";
        /// Enqueues only what a consumer's selector matches at the moment; a group that is away loses messages.
        selector_aware: bool = "false";
        /// Skips a full queue instead of refusing the send.
        drop_on_resource_limit: bool = "false";
        /// Whether consumers see the queue as the destination and the topic as the original one.
        set_original_destination: bool = "true";
        /// Accepted for ActiveMQ's users, without effect: the fan-out is always one atomic group.
        concurrent_send: bool = "false";
        /// Accepted for ActiveMQ's users, without effect: the fan-out is always one atomic group.
        transacted_send: bool = "false";
    }
}

table! {
    /// Who may do what. The first entry that speaks about a user, an action and a destination decides. Without any entry
    /// everything is allowed; with some, what none of them speaks about is denied.
    Permission "permission" {
        /// allow or deny.
        effect: Effect = required;
        /// Names; "*" is everybody, anonymous included; "anonymous" is those without a name.
        users: Vec<Who> = required;
        /// connect, send, consume, browse, create, manage; "*" is all of them.
        actions: Vec<Action> = required;
        /// Patterns such as queue://orders.> or temp-queue://>; unset, everywhere, the server itself included.
        destinations: Option<Vec<Pattern>> = unset;
    }
}

impl Policy {
    /// Where dead letters go when they go to one queue.
    #[must_use]
    pub fn shared_dead_letters(&self) -> &Destination {
        &self.dead_letter_queue.0
    }
}
