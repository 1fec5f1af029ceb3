//! Writes packets. Each is walked twice: once to count, which finds what cannot be written, and once to write.

use crate::error::EncodeError;
use crate::packet::frame::{VARINT_MAX, varint_bytes};
use crate::version::Version;

const TEXT_BYTES_MAX: usize = 65_535;

/// Where bytes go.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    /// Says that the packet cannot be written. Only counting cares: what is written has been counted.
    fn refuse(&mut self, what: &'static str);

    #[inline]
    fn u8(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    #[inline]
    fn u16(&mut self, number: u16) {
        self.put(&number.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, number: u32) {
        self.put(&number.to_be_bytes());
    }

    #[inline]
    fn varint(&mut self, number: u32) {
        let mut rest = number;
        if number > VARINT_MAX {
            self.refuse("a number is larger than 268435455");
            return;
        }
        while rest > 0x7f {
            self.u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.u8(rest as u8);
    }

    #[inline]
    fn binary(&mut self, bytes: &[u8]) {
        if bytes.len() > TEXT_BYTES_MAX {
            self.refuse("a field is longer than 65535 bytes");
            return;
        }
        self.u16(bytes.len() as u16);
        self.put(bytes);
    }

    #[inline]
    fn text(&mut self, text: &str) {
        self.binary(text.as_bytes());
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn u8(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn refuse(&mut self, _what: &'static str) {}
}

/// Counts.
#[derive(Default)]
pub(crate) struct Counter {
    pub(crate) bytes: usize,
    pub(crate) refused: Option<&'static str>,
}

impl Sink for Counter {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
    }

    #[inline]
    fn refuse(&mut self, what: &'static str) {
        self.refused = self.refused.or(Some(what));
    }
}

/// A packet that can be written.
pub(crate) trait Body {
    /// The first byte.
    fn first(&self) -> u8;

    /// What follows the fixed header.
    fn body<S: Sink>(&self, version: Version, sink: &mut S);

    /// Bytes of the body that somebody else writes.
    fn more_bytes(&self) -> usize {
        0
    }
}

/// The properties of a packet, without their length.
pub(crate) trait Block {
    fn block<S: Sink>(&self, sink: &mut S);
}

/// Writes properties and their length.
#[inline]
pub(crate) fn put_block<S: Sink>(sink: &mut S, block: &impl Block) {
    let Counter { bytes, refused } = count(block);
    if let Some(what) = refused {
        sink.refuse(what);
    }
    sink.varint(u32::try_from(bytes).unwrap_or(u32::MAX));
    if bytes > 0 {
        block.block(sink);
    }
}

/// Whether there are no properties to write.
#[inline]
pub(crate) fn is_empty(block: &impl Block) -> bool {
    let Counter { bytes, refused } = count(block);
    bytes == 0 && refused.is_none()
}

#[inline]
fn count(block: &impl Block) -> Counter {
    let mut counter = Counter::default();
    block.block(&mut counter);
    counter
}

/// Bytes of a packet's body and of all of it.
#[inline]
pub(crate) fn size(packet: &impl Body, version: Version) -> Result<(u32, usize), EncodeError> {
    let mut counter = Counter::default();
    packet.body(version, &mut counter);
    if let Some(what) = counter.refused {
        return Err(EncodeError { what });
    }
    let body_bytes = counter.bytes.saturating_add(packet.more_bytes());
    match u32::try_from(body_bytes) {
        Ok(body) if body <= VARINT_MAX => Ok((body, 1 + varint_bytes(body_bytes) + body_bytes)),
        _ => Err(EncodeError { what: "the packet is larger than any packet can be" }),
    }
}

/// Appends a packet. On an error nothing is appended.
#[inline]
pub(crate) fn encode(packet: &impl Body, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let (body_bytes, total) = size(packet, version)?;
    out.reserve(total.saturating_sub(packet.more_bytes()));
    out.push(packet.first());
    out.varint(body_bytes);
    packet.body(version, out);
    Ok(())
}

/// Gives a packet its public methods.
macro_rules! encodes {
    ($packet:ty) => {
        impl $packet {
            /// Bytes that [`Self::encode`] appends.
            ///
            /// # Errors
            /// The packet cannot be written.
            #[inline]
            pub fn encoded_bytes(&self, version: crate::Version) -> Result<usize, crate::EncodeError> {
                crate::packet::write::size(self, version).map(|(_, total)| total)
            }

            /// Appends the packet as `version` writes it; what the version has no place for is left out.
            ///
            /// # Errors
            /// The packet cannot be written: a field is too long, or what it needs is missing. Nothing is appended.
            #[inline]
            pub fn encode(
                &self,
                version: crate::Version,
                out: &mut Vec<u8>,
            ) -> Result<(), crate::EncodeError> {
                crate::packet::write::encode(self, version, out)
            }
        }
    };
}
pub(crate) use encodes;

/// Properties by their type. What is absent is not written.
pub(crate) fn put_flag<S: Sink>(sink: &mut S, id: u8, value: Option<bool>) {
    if let Some(value) = value {
        sink.put(&[id, value.into()]);
    }
}

#[inline]
pub(crate) fn put_u16<S: Sink>(sink: &mut S, id: u8, value: Option<u16>) {
    if let Some(value) = value {
        sink.u8(id);
        sink.u16(value);
    }
}

#[inline]
pub(crate) fn put_u32<S: Sink>(sink: &mut S, id: u8, value: Option<u32>) {
    if let Some(value) = value {
        sink.u8(id);
        sink.u32(value);
    }
}

#[inline]
pub(crate) fn put_text<S: Sink>(sink: &mut S, id: u8, value: Option<&str>) {
    put_binary(sink, id, value.map(str::as_bytes));
}

#[inline]
pub(crate) fn put_binary<S: Sink>(sink: &mut S, id: u8, value: Option<&[u8]>) {
    if let Some(value) = value {
        sink.u8(id);
        sink.binary(value);
    }
}
