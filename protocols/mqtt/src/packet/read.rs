//! Reads the fields of a body from front to back, in place.

use crate::error::DecodeError;

/// What is left of a body, or of a part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

const SHORT: DecodeError = DecodeError::malformed("the packet ends within a field");
/// [5: 1.5.4-2] [3: 1.5.3-2]
const NUL: DecodeError = DecodeError::malformed("a text holds U+0000");

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// That nothing is left.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::malformed("bytes follow the last field")) }
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer in as few bytes as possible.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut number = 0;
        for place in 0..4_u32 {
            let byte = self.u8()?;
            number |= u32::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                // [5: 1.5.5-1]
                if place > 0 && byte == 0 {
                    return Err(DecodeError::malformed(
                        "a variable byte integer takes more bytes than needed",
                    ));
                }
                return Ok(number);
            }
        }
        Err(DecodeError::malformed("a variable byte integer takes more than four bytes"))
    }

    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.u16()?;
        self.take(count.into())
    }

    #[inline]
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let text = self.utf8()?;
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(NUL);
        }
        Ok(text)
    }

    /// A text that may be a topic name, and whether it holds no wildcard. Empty is left to the caller.
    #[inline]
    pub(crate) fn name(&mut self) -> Result<(&'a str, bool), DecodeError> {
        let text = self.utf8()?;
        let bytes = text.as_bytes();
        let Some(at) = memchr::memchr3(0, b'+', b'#', bytes) else { return Ok((text, true)) };
        let rest = bytes.get(at..).unwrap_or_default();
        if memchr::memchr(0, rest).is_some() { Err(NUL) } else { Ok((text, false)) }
    }

    #[inline]
    fn utf8(&mut self) -> Result<&'a str, DecodeError> {
        // [5: 1.5.4-1] [3: 1.5.3-1] Surrogates are not well-formed either. A byte order mark is kept: [5: 1.5.4-3]
        // [3: 1.5.3-3].
        std::str::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::malformed("a text is no well-formed UTF-8"))
    }
}
