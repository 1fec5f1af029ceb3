//! Typed property values.

use bytes::Bytes;

/// A property's value. Strings from a protocol that knows only strings stay strings: nothing is re-typed on the way.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Present without a value.
    Null,
    /// Boolean.
    Bool(bool),
    /// 8-bit integer.
    I8(i8),
    /// 16-bit integer.
    I16(i16),
    /// 32-bit integer.
    I32(i32),
    /// 64-bit integer.
    I64(i64),
    /// 32-bit float.
    F32(f32),
    /// 64-bit float.
    F64(f64),
    /// Text.
    String(Box<str>),
    /// Octets (an extension to JMS).
    Bytes(Bytes),
    /// Ordered map (an extension to JMS).
    Map(Vec<(Box<str>, Value)>),
    /// List (an extension to JMS).
    List(Vec<Value>),
}

/// A property's value, borrowed from an encoded message. Nested values stay encoded until asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// Present without a value.
    Null,
    /// Boolean.
    Bool(bool),
    /// 8-bit integer.
    I8(i8),
    /// 16-bit integer.
    I16(i16),
    /// 32-bit integer.
    I32(i32),
    /// 64-bit integer.
    I64(i64),
    /// 32-bit float.
    F32(f32),
    /// 64-bit float.
    F64(f64),
    /// Text.
    Str(&'a str),
    /// Octets.
    Bytes(&'a [u8]),
    /// A map or list in its encoded form.
    Nested(&'a [u8]),
}

impl<'a> ValueRef<'a> {
    /// Appends the stored form: a tag byte, then the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0),
            Self::Bool(value) => out.extend_from_slice(&[1, u8::from(*value)]),
            Self::I8(value) => {
                out.push(2);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::I16(value) => {
                out.push(3);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::I32(value) => {
                out.push(4);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::I64(value) => {
                out.push(5);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::F32(value) => {
                out.push(6);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::F64(value) => {
                out.push(7);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Str(text) => Self::encode_block(8, text.as_bytes(), out),
            Self::Bytes(bytes) => Self::encode_block(9, bytes, out),
            Self::Nested(bytes) => out.extend_from_slice(bytes),
        }
    }

    fn encode_block(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
        out.push(tag);
        crate::varint::write(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }

    /// Reads one value from the front of `input` and says how many bytes it took.
    #[must_use]
    pub fn decode(input: &'a [u8]) -> Option<(Self, usize)> {
        let (&tag, rest) = input.split_first()?;
        Some(match tag {
            0 => (Self::Null, 1),
            1 => (Self::Bool(*rest.first()? != 0), 2),
            2 => (Self::I8(i8::from_le_bytes(*rest.first_chunk()?)), 2),
            3 => (Self::I16(i16::from_le_bytes(*rest.first_chunk()?)), 3),
            4 => (Self::I32(i32::from_le_bytes(*rest.first_chunk()?)), 5),
            5 => (Self::I64(i64::from_le_bytes(*rest.first_chunk()?)), 9),
            6 => (Self::F32(f32::from_le_bytes(*rest.first_chunk()?)), 5),
            7 => (Self::F64(f64::from_le_bytes(*rest.first_chunk()?)), 9),
            8..=11 => {
                let (len, used) = crate::varint::read(rest)?;
                let len = usize::try_from(len).ok()?;
                let body = rest.get(used..)?.get(..len)?;
                let total = 1 + used + len;
                let value = match tag {
                    8 => Self::Str(std::str::from_utf8(body).ok()?),
                    9 => Self::Bytes(body),
                    _ => Self::Nested(input.get(..total)?),
                };
                (value, total)
            }
            _ => return None,
        })
    }
}
