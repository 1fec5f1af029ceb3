//! How a delivery ends.

/// The end of one delivery attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// The consumer has it; the message is done.
    Accepted,
    /// Back to the head of the queue without counting the attempt: it never reached the consumer.
    Released,
    /// Back to the head of the queue, the attempt counted; at the limit it becomes a dead letter.
    Failed,
    /// A dead letter at once.
    Rejected,
    /// What the destination's policy says of a negative acknowledgement: [`Self::Failed`] or [`Self::Rejected`].
    Negative,
    /// No end yet: the first of two steps of a handover. The egress's note is kept with the delivery and handed back with
    /// the next attempt, which goes on from there.
    Advanced(u32),
}

/// When a delivery counts as settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SettleMode {
    /// On a queue when the socket has taken the bytes, on a topic when they are in the outbox.
    #[default]
    Auto,
    /// By an acknowledgement that covers all earlier deliveries of the subscription too.
    Cumulative,
    /// By an acknowledgement of its own.
    Individual,
}
