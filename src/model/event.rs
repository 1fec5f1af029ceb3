//! What the broker tells a session besides deliveries.

use crate::error::Refusal;
use crate::ids::SubscriptionKey;
use crate::stored::Stored;

/// What a connection learns when it is introduced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// An earlier session of this client id goes on: its subscriptions and backlog are still there.
    pub resumed: bool,
    /// The last word of the mechanism of authentication, for the client to check.
    pub data: Vec<u8>,
}

/// An answer that took time, or news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is introduced.
    Opened(Opened),
    /// The mechanism of authentication asks the client something; answer with
    /// [`crate::command::Command::Respond`].
    Challenge(Vec<u8>),
    /// The connection is not let in. The session says so and asks to be closed.
    OpenRefused(Refusal),
    /// More of a large body may come ([`crate::session::Host::put_body`]).
    BodyRoom,
    /// What has become of a large body that was taken in piece by piece: where it lies once all of it has come, or,
    /// perhaps before, why it cannot be kept.
    BodyStored(Result<Stored, Refusal>),
    /// The oldest this many kept receipts may leave.
    Receipts(usize),
    /// A settlement named nothing that could be settled.
    SettleRefused {
        /// The session's own mark of the acknowledgement.
        cookie: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A subscription ended by the broker: its destination was deleted, or its permission withdrawn.
    SubscriptionEnded {
        /// Which one.
        key: SubscriptionKey,
        /// Why.
        refusal: Refusal,
    },
    /// The broker ends the connection: shutdown, take-over, policy. The session says farewell in its protocol's way.
    Closing(Refusal),
}
