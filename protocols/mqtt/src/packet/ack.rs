//! PUBACK, PUBREC, PUBREL, PUBCOMP: the steps that follow a PUBLISH. All four look alike.

use crate::error::DecodeError;
use crate::packet::properties::Diagnostics;
use crate::packet::read::Reader;
use crate::packet::write::{Body, Sink, encodes, put_block};
use crate::packet::{Frame, Kind, PacketId, packet_id};
use crate::reason::Reason;
use crate::version::Version;

/// Which of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckKind {
    /// QoS 1 has arrived.
    Puback,
    /// QoS 2 has arrived.
    Pubrec,
    /// The id may be forgotten.
    Pubrel,
    /// The id is forgotten.
    Pubcomp,
}

impl AckKind {
    /// As a kind of packet.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Puback => Kind::Puback,
            Self::Pubrec => Kind::Pubrec,
            Self::Pubrel => Kind::Pubrel,
            Self::Pubcomp => Kind::Pubcomp,
        }
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which of the four.
    pub kind: AckKind,
    /// The id that it answers.
    pub id: PacketId,
    /// How it went. Always success before version 5.
    pub reason: Reason,
    /// More about it.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> Ack<'a> {
    /// One without anything else to say.
    #[must_use]
    pub const fn new(kind: AckKind, id: PacketId, reason: Reason) -> Self {
        Self { kind, id, reason, diagnostics: Diagnostics::NONE }
    }

    #[inline]
    pub(crate) fn decode(kind: AckKind, frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let id = packet_id(&mut body)?;
        let mut ack = Self::new(kind, id, Reason::Success);
        if version.has_properties() && !body.is_empty() {
            // [5: 3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1]
            ack.reason = reason(&mut body, kind.kind())?;
            // 3.4.2.2.1: the property length may be absent.
            if !body.is_empty() {
                ack.diagnostics = Diagnostics::take(&mut body)?;
            }
        }
        body.end()?;
        Ok(ack)
    }
}

/// A reason code that packets of this kind may carry.
pub(crate) fn reason(body: &mut Reader<'_>, kind: Kind) -> Result<Reason, DecodeError> {
    judge_reason(body.u8()?, kind)
}

pub(crate) fn judge_reason(code: u8, kind: Kind) -> Result<Reason, DecodeError> {
    Reason::from_code(code)
        .filter(|reason| reason.allowed_in(kind))
        .ok_or(DecodeError::protocol("the reason code is none of this packet's"))
}

impl Body for Ack<'_> {
    #[inline]
    fn first(&self) -> u8 {
        self.kind.kind().first()
    }

    #[inline]
    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.id.get());
        if !version.has_properties() {
            return;
        }
        let plain = self.diagnostics.is_empty();
        if self.reason != Reason::Success || !plain {
            sink.u8(self.reason.code());
        }
        if !plain {
            put_block(sink, &self.diagnostics);
        }
    }
}

encodes!(Ack<'_>);

/// Appends an acknowledgement in its shortest form: four bytes, or five if there is a reason to tell.
#[inline]
pub fn put_ack(kind: AckKind, id: PacketId, reason: Reason, version: Version, out: &mut Vec<u8>) {
    let [high, low] = id.get().to_be_bytes();
    let first = kind.kind().first();
    if reason == Reason::Success || !version.has_properties() {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason.code()]);
    }
}
