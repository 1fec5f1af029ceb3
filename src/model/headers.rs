//! Typed property values: the types, their stored form, and what reads them.
//!
//! The stored form is one tag byte and then the value; numbers are little endian, everything of variable length carries
//! its length in bytes as a [`crate::varint`]. The tags are part of the log's format and never change their meaning:
//!
//! | tag | type | what follows |
//! |---|---|---|
//! | 0 | null | nothing |
//! | 1 | boolean | one byte, 0 or 1 |
//! | 2, 3, 4, 5 | 8-, 16-, 32-, 64-bit integer | 1, 2, 4, 8 bytes |
//! | 6, 7 | 32-, 64-bit float | 4, 8 bytes |
//! | 8 | text | length, UTF-8 |
//! | 9 | octets | length, bytes |
//! | 10 | map | length, then per entry: length of the key, key, value |
//! | 11 | list | length, then the values |

mod convert;
mod text;

use bytes::Bytes;

pub use convert::{ConversionError, is_jms_identifier, parse_float};
pub use text::{FloatText, write_json_text};

use crate::varint;

/// Deepest nesting of maps and lists that is written, expanded or rendered; what lies deeper becomes null.
pub const NESTING_MAX: usize = 32;

const TAG_TEXT: u8 = 8;
const TAG_BYTES: u8 = 9;
const TAG_MAP: u8 = 10;
const TAG_LIST: u8 = 11;

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
    Map(Vec<(Box<str>, Self)>),
    /// List (an extension to JMS).
    List(Vec<Self>),
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
            Self::Str(text) => write_block(TAG_TEXT, text.as_bytes(), out),
            Self::Bytes(bytes) => write_block(TAG_BYTES, bytes, out),
            Self::Nested(bytes) => match Self::decode(bytes) {
                Some((Self::Nested(whole), used)) if used == bytes.len() => out.extend_from_slice(whole),
                // Not an encoded map or list: written as it is, it would swallow what follows it.
                _ => out.push(0),
            },
        }
    }

    /// Reads one value from the front of `input` and says how many bytes it took; `None` if there is none. What is
    /// inside a map or list is not looked at yet.
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
            TAG_TEXT..=TAG_LIST => {
                let (len, used) = varint::read(rest)?;
                let len = usize::try_from(len).ok()?;
                let body = rest.get(used..)?.get(..len)?;
                let total = 1 + used + len;
                let value = match tag {
                    TAG_TEXT => Self::Str(std::str::from_utf8(body).ok()?),
                    TAG_BYTES => Self::Bytes(body),
                    _ => Self::Nested(input.get(..total)?),
                };
                (value, total)
            }
            _ => return None,
        })
    }

    /// The entries, if it is a map.
    #[must_use]
    pub fn entries(&self) -> Option<Entries<'a>> {
        Some(Entries { rest: self.content(TAG_MAP)? })
    }

    /// The items, if it is a list.
    #[must_use]
    pub fn items(&self) -> Option<Items<'a>> {
        Some(Items { rest: self.content(TAG_LIST)? })
    }

    /// What is inside a map or list with this tag.
    fn content(&self, wanted: u8) -> Option<&'a [u8]> {
        let Self::Nested(bytes) = self else {
            return None;
        };
        let (&tag, rest) = bytes.split_first()?;
        let (_, used) = varint::read(rest)?;
        (tag == wanted).then_some(rest.get(used..)?)
    }

    /// The value with everything in it expanded and owned. What is damaged or lies deeper than [`NESTING_MAX`] is null.
    #[must_use]
    pub fn to_value(&self) -> Value {
        self.expand(NESTING_MAX)
    }

    fn expand(&self, levels: usize) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::I8(value) => Value::I8(*value),
            Self::I16(value) => Value::I16(*value),
            Self::I32(value) => Value::I32(*value),
            Self::I64(value) => Value::I64(*value),
            Self::F32(value) => Value::F32(*value),
            Self::F64(value) => Value::F64(*value),
            Self::Str(text) => Value::String((*text).into()),
            Self::Bytes(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes)),
            Self::Nested(_) if levels == 0 => Value::Null,
            Self::Nested(_) => {
                if let Some(entries) = self.entries() {
                    Value::Map(entries.map(|(key, value)| (key.into(), value.expand(levels - 1))).collect())
                } else if let Some(items) = self.items() {
                    Value::List(items.map(|item| item.expand(levels - 1)).collect())
                } else {
                    Value::Null
                }
            }
        }
    }
}

/// Iterates over an encoded map, in its order. Ends early at bytes that are no entry.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (len, used) = varint::read(self.rest)?;
        let (key, rest) = self.rest.get(used..)?.split_at_checked(usize::try_from(len).ok()?)?;
        let (value, used) = ValueRef::decode(rest)?;
        self.rest = rest.get(used..)?;
        Some((std::str::from_utf8(key).ok()?, value))
    }
}

/// Iterates over an encoded list. Ends early at bytes that are no value.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = ValueRef<'a>;

    fn next(&mut self) -> Option<ValueRef<'a>> {
        let (value, used) = ValueRef::decode(self.rest)?;
        self.rest = self.rest.get(used..)?;
        Some(value)
    }
}

fn write_block(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes the tag, the length, and what `content` writes.
fn write_nested(tag: u8, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    content(out);
    let end = out.len();
    varint::write(out, (end - start) as u64);
    let prefix = out.len() - end;
    if let Some(tail) = out.get_mut(start..) {
        tail.rotate_right(prefix);
    }
}

impl Value {
    /// The same value borrowed; `None` for maps and lists, which are borrowed in their stored form only.
    #[must_use]
    pub fn as_scalar(&self) -> Option<ValueRef<'_>> {
        Some(match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::I8(value) => ValueRef::I8(*value),
            Self::I16(value) => ValueRef::I16(*value),
            Self::I32(value) => ValueRef::I32(*value),
            Self::I64(value) => ValueRef::I64(*value),
            Self::F32(value) => ValueRef::F32(*value),
            Self::F64(value) => ValueRef::F64(*value),
            Self::String(text) => ValueRef::Str(text),
            Self::Bytes(bytes) => ValueRef::Bytes(bytes),
            Self::Map(_) | Self::List(_) => return None,
        })
    }

    /// Appends the stored form. What lies deeper than [`NESTING_MAX`] is written as null.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_within(NESTING_MAX, out);
    }

    fn encode_within(&self, levels: usize, out: &mut Vec<u8>) {
        match self {
            Self::Map(_) | Self::List(_) if levels == 0 => ValueRef::Null.encode(out),
            Self::Map(entries) => write_nested(TAG_MAP, out, |out| {
                for (key, value) in entries {
                    varint::write(out, key.len() as u64);
                    out.extend_from_slice(key.as_bytes());
                    value.encode_within(levels - 1, out);
                }
            }),
            Self::List(items) => write_nested(TAG_LIST, out, |out| {
                for item in items {
                    item.encode_within(levels - 1, out);
                }
            }),
            scalar => scalar.as_scalar().unwrap_or(ValueRef::Null).encode(out),
        }
    }
}

#[cfg(test)]
mod tests;
