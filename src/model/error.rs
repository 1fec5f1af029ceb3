//! What can go wrong, in four classes; each has one wire answer per protocol and a stable code in `docs/errors.md`.

use std::borrow::Cow;
use std::fmt;

/// The class decides what a protocol does with the connection; the code and sentence tell the client why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The bytes are not a frame of the protocol. The connection cannot be resynchronised and closes.
    Malformed,
    /// A whole frame that the protocol forbids here.
    Violation,
    /// A well-formed request that policy or state does not grant.
    Refused,
    /// Granted in principle, impossible now: trying again later may succeed.
    Unavailable,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $class:ident;)+) => {
        /// Stable machine-readable reasons. The text form never changes once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// Every code, in the order of `docs/errors.md`.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable text that clients see.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)+ } }

            /// The class this code belongs to.
            #[must_use]
            pub fn class(self) -> Class { match self { $(Self::$name => Class::$class,)+ } }

            /// One sentence of meaning, for documentation.
            #[must_use]
            pub fn meaning(self) -> &'static str { match self { $(Self::$name => concat!($($doc,)+),)+ } }
        }
    };
}

codes! {
    /// The bytes cannot be read as a frame of the protocol.
    MalformedFrame = "malformed-frame", Malformed;
    /// A frame, header, body or line is larger than the configured limit.
    TooLarge = "too-large", Malformed;
    /// A header's value cannot be read as what the header must hold.
    InvalidHeader = "invalid-header", Violation;
    /// A header the frame must carry is absent.
    MissingHeader = "missing-header", Violation;
    /// The command is not one that a client may send.
    UnknownCommand = "unknown-command", Violation;
    /// The frame is legal, but not in the connection's present state.
    UnexpectedFrame = "unexpected-frame", Violation;
    /// No protocol version in common.
    UnsupportedVersion = "unsupported-version", Violation;
    /// The peer stayed silent longer than it had promised.
    HeartbeatTimeout = "heartbeat-timeout", Violation;
    /// The connection did not introduce itself in time.
    ConnectTimeout = "connect-timeout", Violation;
    /// The destination's name cannot be parsed or is not allowed here.
    InvalidDestination = "invalid-destination", Refused;
    /// The selector does not parse.
    InvalidSelector = "invalid-selector", Refused;
    /// The user name or password is wrong, or anonymous access is not allowed.
    AuthenticationFailed = "authentication-failed", Refused;
    /// Too many failed attempts from this address; wait.
    TooManyAttempts = "too-many-attempts", Refused;
    /// The rules do not allow this user this action on this destination.
    AccessDenied = "access-denied", Refused;
    /// The client id is empty, too long, or holds what it may not.
    InvalidClientId = "invalid-client-id", Refused;
    /// The mechanism of authentication is not one this broker offers, or not offered here.
    UnsupportedMechanism = "unsupported-mechanism", Refused;
    /// A body does not hold what its description says.
    InvalidBody = "invalid-body", Refused;
    /// The client id is in use by another connection.
    ClientIdInUse = "client-id-in-use", Refused;
    /// Another connection with the same client id has taken the session over.
    TakenOver = "taken-over", Refused;
    /// The durable subscription has an active consumer.
    SubscriptionInUse = "subscription-in-use", Refused;
    /// No such subscription.
    UnknownSubscription = "unknown-subscription", Refused;
    /// The subscription's id is already used on this connection.
    DuplicateSubscription = "duplicate-subscription", Refused;
    /// No such open transaction on this connection.
    UnknownTransaction = "unknown-transaction", Refused;
    /// The transaction's name is already open on this connection.
    DuplicateTransaction = "duplicate-transaction", Refused;
    /// No unsettled delivery goes by that id.
    UnknownDelivery = "unknown-delivery", Refused;
    /// The destination does not exist, or the temporary one is gone.
    UnknownDestination = "unknown-destination", Refused;
    /// What the request names is not in the state that it asks for.
    Conflict = "conflict", Refused;
    /// The feature exists in the protocol but is not built yet.
    Unsupported = "unsupported", Refused;
    /// A limit on connections, subscriptions, transactions, destinations or rates is reached.
    LimitReached = "limit-reached", Refused;
    /// The destination holds as much as it may.
    DestinationFull = "destination-full", Unavailable;
    /// The disk is full; persistent sends are refused until space returns.
    StorageFull = "storage-full", Unavailable;
    /// The broker's memory for messages is used up.
    MemoryFull = "memory-full", Unavailable;
    /// The broker is shutting down.
    ShuttingDown = "shutting-down", Unavailable;
    /// An operator has closed the connection.
    ClosedByOperator = "closed-by-operator", Unavailable;
    /// The subscriber read too slowly and was cut off by policy.
    SlowConsumer = "slow-consumer", Unavailable;
    /// What was waited for did not come in time.
    TimedOut = "timed-out", Unavailable;
    /// The broker met a condition it did not expect; the log of the broker says more.
    Internal = "internal", Unavailable;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A polite no: a stable code and one sentence that the client can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable reason.
    pub code: Code,
    /// One plain sentence, without secrets or internals.
    pub sentence: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a fixed or a formatted sentence.
    pub fn new(code: Code, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { code, sentence: sentence.into() }
    }

    /// The class of the code.
    #[must_use]
    pub fn class(&self) -> Class {
        self.code.class()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.sentence, self.code)
    }
}

impl std::error::Error for Refusal {}

/// The end of a connection by its peer's fault. The session has already written its farewell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub Refusal);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Violation {}

impl From<Refusal> for Violation {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}
