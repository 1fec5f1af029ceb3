//! The seam between protocols and I/O: a protocol is two pure halves, created together at connect.
//!
//! [`Session`] is owned by the connection's task and reads; [`Egress`] lives behind the outbox's lock, and whoever
//! delivers encodes. Neither opens a socket, reads a clock or spawns.

use bytes::Bytes;

use crate::chunks::Chunks;
use crate::clock::{Instant, Timestamp};
use crate::command::{Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use crate::delivery::{Admission, Delivery, EncodeCache};
use crate::destination::{Destination, Kind};
use crate::error::{Code, Refusal, Violation};
use crate::event::Event;
use crate::ids::{DeliveryToken, MessageId, SubscriptionKey, TransactionKey};
use crate::message::Body;
use crate::settlement::{SettleMode, Settlement};

/// Bytes that have arrived. A session consumes whole frames from the front and leaves a partial one.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    shared: Option<&'a Bytes>,
    consumed: usize,
    expected: usize,
}

impl<'a> Input<'a> {
    /// Over bytes in a scratch buffer that is reused afterwards.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, shared: None, consumed: 0, expected: 0 }
    }

    /// Over a buffer of the connection's own: a body that makes up most of it can be kept without a copy.
    #[must_use]
    pub fn from_shared(bytes: &'a Bytes) -> Self {
        Self { bytes, shared: Some(bytes), consumed: 0, expected: 0 }
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.consumed..).unwrap_or_default()
    }

    /// Marks the next `count` bytes as done with.
    pub fn consume(&mut self, count: usize) {
        self.consumed = self.bytes.len().min(self.consumed + count);
    }

    /// Bytes done with so far.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// Says that the partial frame at the front will be `total` bytes long, so that the driver reads it into a buffer
    /// of that size and calls again only when it is whole.
    pub fn expect(&mut self, total: usize) {
        self.expected = total;
    }

    /// What the last [`Input::expect`] said; zero if nothing.
    #[must_use]
    pub fn expected(&self) -> usize {
        self.expected
    }

    /// `length` bytes from `start` on, counted from the front of [`Input::rest`], as a body: shared where that does not
    /// keep a much larger buffer alive, borrowed otherwise. Empty if out of range.
    #[must_use]
    pub fn body(&self, start: usize, length: usize) -> Body<'a> {
        let from = self.consumed + start;
        match self.shared {
            Some(shared) if length >= shared.len() / 2 && from + length <= shared.len() => {
                Body::Shared(shared.slice(from..from + length))
            }
            _ => Body::Borrowed(self.bytes.get(from..from + length).unwrap_or_default()),
        }
    }
}

/// What the driver should do after a session has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Read on.
    More,
    /// Keep the rest of the input and call again after the next event.
    Parked,
    /// Flush what was written, then close.
    Close,
}

/// Whether more of a body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Some,
    /// Not before [`Event::BodyRoom`].
    None,
}

/// Time as a session needs it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub instant: Instant,
    /// Wall-clock.
    pub wall: Timestamp,
}

/// When bytes last moved, for heart-beats and keep-alive.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// Bytes last arrived.
    pub read: Instant,
    /// Bytes were last written to the socket.
    pub written: Instant,
}

/// Ingress: one protocol's state for one connection.
pub trait Session: Send {
    /// Parses all whole frames and executes them through `host`; replies go to `out`.
    ///
    /// # Errors
    /// The peer broke the protocol. The farewell is in `out`, and all earlier frames stand.
    fn receive(
        &mut self,
        now: Now,
        input: &mut Input<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<Flow, Violation>;

    /// Takes an answer or news from the broker.
    ///
    /// # Errors
    /// The event ends the connection; the farewell is in `out`.
    fn notify(
        &mut self,
        now: Now,
        event: Event,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<Flow, Violation>;

    /// Called when [`Session::next_timeout`] has passed: heart-beats, keep-alive, the time to introduce oneself.
    ///
    /// # Errors
    /// The peer was silent for too long; the farewell is in `out`.
    fn timeout(&mut self, now: Now, activity: Activity, out: &mut Chunks) -> Result<Flow, Violation>;

    /// When to call [`Session::timeout`] next, given when bytes last moved.
    fn next_timeout(&self, activity: Activity) -> Option<Instant>;
}

/// The broker as a session sees it; implemented by the driver.
pub trait Host {
    /// Sends a message.
    fn publish(&mut self, publish: Publish<'_>) -> Outcome;
    /// Begins to take in a body piece by piece. `publish` is the message without it, `length` its length if that is known.
    /// One body at a time; another one that was begun and not ended is forgotten.
    ///
    /// # Errors
    /// The message would be refused, or there is no place for its body: none of it need be taken.
    fn begin_body(&mut self, publish: &Publish<'_>, length: Option<u64>) -> Result<(), Refusal> {
        let _ = (publish, length);
        Err(Refusal::new(Code::Unsupported, "bodies are not taken in piece by piece here"))
    }
    /// The next piece of the body that was begun; all of it is taken. After [`Room::None`] the session stops reading until
    /// [`Event::BodyRoom`].
    fn put_body(&mut self, piece: &[u8]) -> Room {
        let _ = piece;
        Room::Some
    }
    /// The body has come whole. [`Event::BodyStored`] follows, and the session stops reading until then.
    fn end_body(&mut self) {}
    /// The body that was begun is of no use.
    fn drop_body(&mut self) {}
    /// The id that the message of the last [`Host::publish`] was given, if the host gives any. What a transaction sends is
    /// given its id by the commit.
    fn last_id(&self) -> Option<MessageId> {
        None
    }
    /// Settles a delivery at the end of this batch. A refusal comes as an event with the acknowledgement's cookie.
    fn settle(&mut self, ack: WireAck);
    /// Settles now, with all settlements before it, because a receipt waits for it.
    fn settle_now(&mut self, ack: WireAck) -> Outcome;
    /// Anything else. Settlements asked for earlier happen first.
    fn ask(&mut self, command: Command<'_>) -> Outcome;
    /// The connection's temporary destination of this name, made if it is new. The name is the client's own.
    ///
    /// # Errors
    /// A limit or a permission.
    fn temporary(&mut self, kind: Kind, label: &str) -> Result<Destination, Refusal>;
    /// The client's own name for a temporary destination of this connection; `None` for those of others.
    fn temporary_label(&self, destination: &Destination) -> Option<&str>;
    /// Asks for a receipt for what was just accepted. Receipts leave in the order asked.
    fn receipt(&mut self, promise: Option<Promise>) -> ReceiptTime;
    /// Tells the other half something: the dialect agreed on, a subscription's name.
    fn note(&mut self, note: EgressNote<'_>);
    /// Name shown for this session, unique on this broker.
    fn session_name(&self) -> String;
}

/// What a session tells its egress.
#[derive(Clone, Copy, Debug)]
pub enum EgressNote<'a> {
    /// The dialect agreed on: the protocol's own number.
    Dialect(u32),
    /// What the receiver takes.
    Receiver {
        /// Largest frame, in bytes.
        frame_bytes_max: u32,
        /// Most short names for topics.
        aliases_max: u16,
    },
    /// A subscription starts. Precedes its first delivery.
    Attach {
        /// The session's number for it.
        key: SubscriptionKey,
        /// The protocol's own name for it.
        label: &'a [u8],
        /// How its deliveries are settled.
        settle: SettleMode,
        /// The protocol's own options.
        options: u32,
    },
    /// A subscription has ended.
    Detach(SubscriptionKey),
    /// A transaction has ended: what was acknowledged in it is final, or, if it was not committed, with the client
    /// again.
    TransactionEnded {
        /// Which one.
        transaction: TransactionKey,
        /// Whether it happened.
        committed: bool,
    },
    /// A temporary destination of this connection has this name for the client.
    Temporary {
        /// The destination.
        destination: &'a Destination,
        /// The client's own name.
        label: &'a str,
    },
}

/// One settlement that the egress resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The delivery.
    pub token: DeliveryToken,
    /// What became of it.
    pub settlement: Settlement,
    /// Which acknowledgement of the batch it came from.
    pub ack: usize,
}

/// The encoding half, behind the outbox's lock.
pub trait Egress: Send {
    /// The protocol with its version, for people: `STOMP 1.2`. Empty for what is no client's protocol.
    fn protocol(&self) -> &'static str {
        ""
    }

    /// Encodes one delivery. `cache` is shared by the receivers of one fan-out; absent where there is one receiver.
    fn deliver(
        &mut self,
        now: Timestamp,
        delivery: &Delivery<'_>,
        cache: Option<&mut EncodeCache>,
        out: &mut Chunks,
    ) -> Admission;

    /// Resolves a batch of acknowledgements into tokens, in order; one may resolve to several (cumulative) or to none
    /// (unknown: its index goes to `unknown`). Bookkeeping of windows ends here.
    fn acknowledged(&mut self, acks: &[WireAck], settled: &mut Vec<Settled>, unknown: &mut Vec<usize>);

    /// The subscription is a browser's and has seen everything: say so.
    fn browsed(&mut self, key: SubscriptionKey, out: &mut Chunks);

    /// Takes what the session tells.
    fn note(&mut self, note: EgressNote<'_>);
}
