//! What a session asks of the broker. Everything borrows the input: a publish nobody receives allocates nothing.

use crate::destination::Targets;
use crate::error::Refusal;
use crate::ids::{DeliveryToken, Position, SubscriptionKey, TransactionKey};
use crate::message::{Body, Facts};
use crate::pattern::Pattern;
use crate::settlement::{SettleMode, Settlement};

/// A hint where the broker may find what it resolved before: the session numbers the addresses it has parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetKey {
    /// Slot in the session's table of addresses; small.
    pub slot: u16,
    /// Which use of the slot: the same pair always stands for the same address.
    pub generation: u32,
}

/// A message on its way in.
#[derive(Debug)]
pub struct Publish<'a> {
    /// Where it goes: one destination, or several in written order.
    pub targets: &'a Targets,
    /// Names `targets` for the broker's route cache.
    pub key: TargetKey,
    /// The parts of fixed size. `id` is given by the broker; a zero `timestamp` is set by the broker.
    pub facts: Facts,
    /// Encoded fields without destination and user id, which the broker writes.
    pub fields: &'a [u8],
    /// The body.
    pub body: Body<'a>,
    /// The transaction it belongs to.
    pub transaction: Option<TransactionKey>,
}

/// How a client names a delivery it settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckName {
    /// By the token itself, where the protocol lets us choose the name.
    Token(DeliveryToken),
    /// By the protocol's own number, which its egress resolves.
    Number(u64),
    /// By the protocol's own text, which its egress resolves.
    Text(Box<[u8]>),
}

/// A settlement as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireAck {
    /// The subscription, if the client named it.
    pub subscription: Option<SubscriptionKey>,
    /// The delivery.
    pub name: AckName,
    /// What became of it.
    pub settlement: Settlement,
    /// The transaction it belongs to.
    pub transaction: Option<TransactionKey>,
    /// The session's own mark, handed back if the settlement is refused.
    pub cookie: u64,
}

/// An interest, as the client stated it.
#[derive(Debug)]
pub struct Subscribe<'a> {
    /// The session's number for it.
    pub key: SubscriptionKey,
    /// What it covers: one pattern, or several (a composite subscription).
    pub patterns: &'a [Pattern],
    /// How deliveries are settled.
    pub settle: SettleMode,
    /// Deliveries that may be unsettled at a time; `None` for the policy's default.
    pub credit: Option<u32>,
    /// Only messages this selector matches.
    pub selector: Option<&'a str>,
    /// Whether the selector may compare text properties with numbers (protocols whose properties are all text).
    pub selector_converts_text: bool,
    /// Name of a durable topic subscription; needs a client id.
    pub durable: Option<&'a str>,
    /// Look at a queue without taking anything, then end.
    pub browse: bool,
    /// Leave out messages this connection published (topics only).
    pub no_local: bool,
    /// Consumers of higher priority are filled first; 0 by default.
    pub priority: i8,
    /// Refuse instead of creating a queue that does not exist.
    pub must_exist: bool,
}

/// Who wants in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open<'a> {
    /// The client's id, for durable subscriptions.
    pub client_id: Option<&'a str>,
    /// User name.
    pub login: Option<&'a str>,
    /// Password or token.
    pub passcode: Option<&'a [u8]>,
    /// Virtual host asked for; an unknown one means the default.
    pub virtual_host: Option<&'a str>,
    /// Name and version of the protocol, for logs and metrics.
    pub protocol: &'static str,
}

/// What a session asks besides publishing and settling.
#[derive(Debug)]
pub enum Command<'a> {
    /// Introduce the connection. Usually answered later by an event: checking a password takes a while.
    Open(Open<'a>),
    /// Start a subscription. The first delivery follows what the session wrote in this batch.
    Subscribe(Subscribe<'a>),
    /// End a subscription; unsettled deliveries go back. With `forget_durable` its durable subscription is deleted too.
    Unsubscribe {
        /// Which one.
        key: SubscriptionKey,
        /// Delete the durable subscription behind it.
        forget_durable: bool,
    },
    /// Delete an inactive durable subscription of this client id.
    ForgetDurable {
        /// Its name.
        name: &'a str,
        /// The client id, if it is not that of the connection.
        client_id: Option<&'a str>,
    },
    /// Start a transaction.
    Begin(TransactionKey),
    /// Make all of a transaction happen, or none of it.
    Commit(TransactionKey),
    /// Forget a transaction; deliveries acknowledged in it stay with the client.
    Abort(TransactionKey),
    /// The client is leaving in good order.
    Close,
}

/// A place in the log that a receipt waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The op group that must be covered.
    pub position: Position,
    /// Whether written is enough (levels `os` and `interval`) or it must be synced.
    pub synced: bool,
}

/// The broker's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done. A receipt for it is due when the promise is kept; at once if there is none.
    Accepted(Option<Promise>),
    /// Not done, and why.
    Refused(Refusal),
    /// The answer will come as an event; the session stops reading until then.
    Later,
}

/// When a receipt may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptTime {
    /// Write it now.
    Now,
    /// Keep its text; the oldest kept ones are released by count with [`crate::event::Event::Receipts`].
    Later,
}
