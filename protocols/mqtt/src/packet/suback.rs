//! SUBACK and UNSUBACK: an answer per filter, in the order asked [5: 3.8.4-6, 3.11.3-1].

use crate::error::DecodeError;
use crate::packet::ack::judge_reason;
use crate::packet::frame::{VARINT_MAX, varint_bytes};
use crate::packet::properties::Diagnostics;
use crate::packet::read::Reader;
use crate::packet::write::{Body, Sink, encodes, put_block};
use crate::packet::{Frame, Kind, PacketId, packet_id};
use crate::reason::Reason;
use crate::version::Version;

/// SUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suback<'a> {
    /// The id that it answers.
    pub id: PacketId,
    /// More about it.
    pub diagnostics: Diagnostics<'a>,
    /// A reason code per filter. Before version 5 every failure is written as 0x80.
    pub codes: &'a [u8],
}

/// UNSUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsuback<'a> {
    /// The id that it answers.
    pub id: PacketId,
    /// More about it.
    pub diagnostics: Diagnostics<'a>,
    /// A reason code per filter; none before version 5.
    pub codes: &'a [u8],
}

impl<'a> Suback<'a> {
    pub(crate) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let id = packet_id(&mut body)?;
        let mut diagnostics = Diagnostics::NONE;
        if version.has_properties() {
            diagnostics = Diagnostics::take(&mut body)?;
        }
        let codes = body.rest();
        if version.has_properties() {
            judge(codes, Kind::Suback)?;
        } else if codes.is_empty() || codes.iter().any(|code| !matches!(code, 0..=2 | 0x80)) {
            // [3: 3.9.3-2]
            return Err(DecodeError::malformed("SUBACK holds a return code that is reserved, or none"));
        }
        Ok(Self { id, diagnostics, codes })
    }

    /// The answers, in order.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> + use<'a> {
        self.codes.iter().filter_map(|code| Reason::from_code(*code))
    }
}

impl<'a> Unsuback<'a> {
    pub(crate) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let id = packet_id(&mut body)?;
        if !version.has_properties() {
            body.end()?;
            return Ok(Self { id, diagnostics: Diagnostics::NONE, codes: &[] });
        }
        let diagnostics = Diagnostics::take(&mut body)?;
        let codes = body.rest();
        judge(codes, Kind::Unsuback)?;
        Ok(Self { id, diagnostics, codes })
    }

    /// The answers, in order.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> + use<'a> {
        self.codes.iter().filter_map(|code| Reason::from_code(*code))
    }
}

/// That there are codes and each is one of this kind of packet [5: 3.9.3-2, 3.11.3-2].
fn judge(codes: &[u8], kind: Kind) -> Result<(), DecodeError> {
    if codes.is_empty() {
        return Err(DecodeError::protocol("there is no reason code"));
    }
    codes.iter().try_for_each(|code| judge_reason(*code, kind).map(drop))
}

/// A code as SUBACK of 3.1 and 3.1.1 has it. 3.1 knows no failure, but clients of today do.
#[inline]
const fn old_code(code: u8) -> u8 {
    if code < 0x80 { code } else { 0x80 }
}

impl Body for Suback<'_> {
    fn first(&self) -> u8 {
        Kind::Suback.first()
    }

    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.id.get());
        if version.has_properties() {
            put_block(sink, &self.diagnostics);
            sink.put(self.codes);
        } else {
            self.codes.iter().for_each(|code| sink.u8(old_code(*code)));
        }
        if self.codes.is_empty() {
            sink.refuse("there is no reason code");
        }
    }
}

impl Body for Unsuback<'_> {
    fn first(&self) -> u8 {
        Kind::Unsuback.first()
    }

    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.id.get());
        if version.has_properties() {
            put_block(sink, &self.diagnostics);
            sink.put(self.codes);
            if self.codes.is_empty() {
                sink.refuse("there is no reason code");
            }
        }
    }
}

encodes!(Suback<'_>);
encodes!(Unsuback<'_>);

/// Appends SUBACK with nothing but its codes, of which there is at least one and at most as many as a SUBSCRIBE could
/// ask for.
pub fn put_suback(id: PacketId, codes: &[u8], version: Version, out: &mut Vec<u8>) {
    let properties = usize::from(version.has_properties());
    let body_bytes = 2 + properties + codes.len();
    debug_assert!(body_bytes <= VARINT_MAX as usize, "a SUBSCRIBE has more bytes than its SUBACK");
    out.reserve(1 + varint_bytes(body_bytes) + body_bytes);
    out.push(Kind::Suback.first());
    out.varint(body_bytes as u32);
    out.u16(id.get());
    if version.has_properties() {
        out.push(0);
        out.extend_from_slice(codes);
    } else {
        out.extend(codes.iter().map(|code| old_code(*code)));
    }
}
