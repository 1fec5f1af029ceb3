//! What is wrong with bytes that came, or with a packet that is to leave.

use std::fmt;

use crate::reason::Reason;

/// Why bytes are no packet. There is no way to go on: the connection ends, after its reason was told if the version
/// has a way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What to tell the peer.
    pub reason: Reason,
    /// What is wrong, for people: a fragment of a sentence.
    pub what: &'static str,
}

impl DecodeError {
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self { reason: Reason::MalformedPacket, what }
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self { reason: Reason::ProtocolError, what }
    }

    pub(crate) const fn topic(what: &'static str) -> Self {
        Self { reason: Reason::TopicNameInvalid, what }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.what)
    }
}

impl std::error::Error for DecodeError {}

/// Why a packet cannot be written. Nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError {
    /// What is wrong, for people: a fragment of a sentence.
    pub what: &'static str,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for EncodeError {}
