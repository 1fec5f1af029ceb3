//! Cuts packets out of a stream: the fixed header, judged as soon as its bytes are there.

use crate::error::DecodeError;
use crate::packet::Kind;
use crate::reason::Reason;
use crate::version::Version;

/// The largest number that four bytes of seven bits can say.
pub const VARINT_MAX: u32 = 268_435_455;

/// A whole packet whose body has not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// The lower four bits of its first byte.
    pub flags: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// Bytes of the whole packet: these are done with when it has been read.
    pub total: usize,
}

impl Frame<'_> {
    /// Whether its length is written in as few bytes as possible.
    pub(crate) fn is_minimal(&self) -> bool {
        self.total - self.body.len() == 1 + varint_bytes(self.body.len())
    }
}

/// What [`frame`] found at the front of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A whole packet.
    Whole(Frame<'a>),
    /// The beginning of one, or nothing.
    NeedMore {
        /// Bytes of the whole packet, once its header is there.
        total: Option<usize>,
    },
}

/// Bytes that a variable byte integer takes.
pub(crate) const fn varint_bytes(number: usize) -> usize {
    match number {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Looks for a packet at the front of `bytes`. Before a CONNECT has settled the `version` nothing but one is accepted.
/// `bytes_max` bounds the whole packet, with its fixed header.
///
/// Keep the bytes of a partial packet and present them again with more behind them.
///
/// # Errors
/// The bytes begin no packet of that version, or one that is too large. This is told as soon as it can be known.
#[inline]
pub fn frame(bytes: &[u8], version: Option<Version>, bytes_max: usize) -> Result<Progress<'_>, DecodeError> {
    let Some((&first, mut rest)) = bytes.split_first() else {
        return Ok(Progress::NeedMore { total: None });
    };
    let flags = first & 0x0f;
    // [3: 2.2.1] Types 0, and 15 before version 5, are reserved.
    let Some(kind) = Kind::from_code(first >> 4) else {
        return Err(DecodeError::malformed("packet type 0 is reserved"));
    };
    judge_first(kind, flags, version)?;
    let mut body_bytes = 0_usize;
    for place in 0..4_u32 {
        let Some((&byte, after)) = rest.split_first() else {
            return Ok(Progress::NeedMore { total: None });
        };
        rest = after;
        body_bytes |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 != 0 {
            continue;
        }
        // [5: 1.5.5-1] Earlier versions do not ask for the fewest bytes; CONNECT is judged when its version is known.
        if place > 0 && byte == 0 && version == Some(Version::V5) {
            return Err(DecodeError::malformed("the remaining length takes more bytes than it needs"));
        }
        let total = body_bytes + place as usize + 2;
        if total > bytes_max {
            return Err(DecodeError {
                reason: Reason::PacketTooLarge,
                what: "the packet is larger than allowed",
            });
        }
        return Ok(match rest.get(..body_bytes) {
            Some(body) => Progress::Whole(Frame { kind, flags, body, total }),
            None => Progress::NeedMore { total: Some(total) },
        });
    }
    // [5: 1.5.5] [3: 2.2.3] Four bytes at most.
    Err(DecodeError::malformed("the remaining length takes more than four bytes"))
}

/// What the first byte alone can have wrong.
fn judge_first(kind: Kind, flags: u8, version: Option<Version>) -> Result<(), DecodeError> {
    match (kind, version) {
        (Kind::Connect, _) | (_, Some(_)) => {}
        // [5: 3.1.0-1] [3: 3.1.0-1]
        (_, None) => return Err(DecodeError::protocol("the first packet is no CONNECT")),
    }
    if kind == Kind::Publish {
        // [5: 3.3.1-4] [3: 3.3.1-4]
        if flags & 0b0110 == 0b0110 {
            return Err(DecodeError::malformed("PUBLISH asks for QoS 3"));
        }
        // [5: 3.3.1-2] [3: 3.3.1-2] 3.1 says it as advice only.
        if flags & 0b1110 == 0b1000 && version != Some(Version::V31) {
            return Err(DecodeError::malformed("PUBLISH with QoS 0 claims to be a duplicate"));
        }
        return Ok(());
    }
    if kind == Kind::Auth && version != Some(Version::V5) {
        return Err(DecodeError::malformed("packet type 15 is reserved before version 5"));
    }
    // [5: 2.1.3-1, 3.6.1-1, 3.8.1-1, 3.10.1-1] [3: 2.2.2-1, 2.2.2-2] 3.1 has DUP in these packets and leaves the rest
    // unused.
    if flags != kind.flags() && version != Some(Version::V31) {
        return Err(DecodeError::malformed("a reserved flag of the fixed header is not what it must be"));
    }
    Ok(())
}
