//! What a session asks of the broker. Everything borrows the input: a publish nobody receives allocates nothing.

use crate::delivery::Guarantee;
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
    /// The client's own number of a message that it repeats until it is told that it arrived. A repetition is accepted
    /// and not sent again, until [`Command::Forget`] names the number; also after a restart, if the session lasts.
    pub once: Option<u16>,
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
    /// A mechanism of authentication that takes several steps, with the client's first word; instead of a password.
    pub mechanism: Option<(&'a str, &'a [u8])>,
    /// Asks for a client session: subscriptions and a backlog that belong to the client id and may outlive the
    /// connection. Another connection of the same client id is closed with [`crate::error::Code::TakenOver`].
    pub session: Option<SessionTerms<'a>>,
}

/// How a client session begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct SessionTerms<'a> {
    /// Forget what an earlier session of this client id has left.
    pub clean_start: bool,
    /// Milliseconds it outlives its connection: 0 ends with it, [`LASTS_FOREVER`] never ends by itself.
    pub lasts_ms: u64,
    /// Deliveries that may be unsettled at a time.
    pub credit: u32,
    /// Sent when the connection ends without [`Command::ClearWill`].
    pub will: Option<&'a Will<'a>>,
}

/// A client session that ends only when it is told to.
pub const LASTS_FOREVER: u64 = u64::MAX;

/// A message sent on behalf of a client that has vanished.
#[derive(Debug)]
pub struct Will<'a> {
    /// Where it goes; checked when the connection is introduced.
    pub targets: &'a Targets,
    /// As in [`Publish::facts`]. `expires` counts from when it is sent: milliseconds, or
    /// [`crate::clock::Timestamp::NEVER`].
    pub facts: Facts,
    /// As in [`Publish::fields`].
    pub fields: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// Milliseconds between the end of the connection and the sending, unless the session ends earlier. A client that
    /// comes back in time prevents it.
    pub delay_ms: u64,
}

/// A subscription of a client session. All that match a message yield one delivery; see
/// [`crate::delivery::Grant`].
#[derive(Debug)]
pub struct Bind<'a> {
    /// Topics, or one queue. Binding the same pattern (and group) again replaces the earlier terms.
    pub pattern: &'a Pattern,
    /// Members of one group share: each message goes to one of them.
    pub group: Option<&'a str>,
    /// The client's own number for it; 0 for none.
    pub identifier: u32,
    /// The most it grants; groups and queues grant [`Guarantee::AtLeastOnce`] at most.
    pub guarantee: Guarantee,
    /// Leave out what this session publishes.
    pub no_local: bool,
    /// Deliver the retain flag as it was published.
    pub keep_retain: bool,
    /// Whether kept last values of matching topics are delivered now.
    pub replay: Replay,
}

/// When a subscription is answered with the kept last values of its topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replay {
    /// Now.
    Always,
    /// Only if the subscription did not exist.
    IfNew,
    /// Not at all.
    #[default]
    Never,
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
    /// From now on so many deliveries of a subscription may be unsettled at a time; at 0 it pauses. What is out beyond that
    /// stays out. Refused with [`crate::error::Code::Unsupported`] where nothing counts them, as for live topics.
    Credit {
        /// Which one.
        key: SubscriptionKey,
        /// How many.
        limit: u32,
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
    /// The client's answer to [`crate::event::Event::Challenge`]. Answered as [`Command::Open`] is.
    Respond(&'a [u8]),
    /// Start or change a subscription of the client session.
    Bind(Bind<'a>),
    /// End a subscription of the client session; refused with [`crate::error::Code::UnknownSubscription`] if there is
    /// none.
    Unbind {
        /// What it covers.
        pattern: &'a Pattern,
        /// Its group.
        group: Option<&'a str>,
    },
    /// The client knows that the message of this number ([`Publish::once`]) has arrived; the number is free again.
    /// Refused with [`crate::error::Code::UnknownDelivery`] if it was free.
    Forget(u16),
    /// From now on the client session outlives its connection by this many milliseconds.
    SetLifetime(u64),
    /// The will is not to be sent.
    ClearWill,
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
