//! Values as text, for protocols whose properties are text: numbers in decimal, octets in base64, maps and lists in JSON.

use std::fmt::{self, Debug, Display, Formatter};
use std::io::Write;

use super::{NESTING_MAX, Value, ValueRef};
use crate::base64;

/// Largest integer that every reader of JSON keeps exact: 2^53 - 1.
const JSON_INTEGER_MAX: u64 = (1 << 53) - 1;

/// A float as text: the shortest decimal that reads back as the same number, `NaN`, `Infinity` or `-Infinity`.
#[derive(Clone, Copy, Debug)]
pub struct FloatText<T>(pub T);

impl<T: Debug + Into<f64> + Copy> Display for FloatText<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.into() {
            value if value.is_nan() => f.write_str("NaN"),
            value if value.is_infinite() => f.write_str(if value > 0.0 { "Infinity" } else { "-Infinity" }),
            // The number itself and not its double: the shortest text depends on the width.
            _ => Debug::fmt(&self.0, f),
        }
    }
}

fn write(out: &mut Vec<u8>, value: impl Display) {
    write!(out, "{value}").expect("writing into memory does not fail");
}

impl ValueRef<'_> {
    /// Appends the value as text. Null writes nothing: callers leave the property out. Nested values become JSON, in which
    /// an integer beyond 2^53 - 1 is `{"$type":"i64","value":"…"}`, octets are `{"$bin":"base64"}`, and a float that is no
    /// number is a string.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Bool(value) => write(out, value),
            Self::I8(value) => write(out, value),
            Self::I16(value) => write(out, value),
            Self::I32(value) => write(out, value),
            Self::I64(value) => write(out, value),
            Self::F32(value) => write(out, FloatText(*value)),
            Self::F64(value) => write(out, FloatText(*value)),
            Self::Str(text) => out.extend_from_slice(text.as_bytes()),
            Self::Bytes(bytes) => base64::encode(bytes, out),
            Self::Nested(_) => self.write_json(NESTING_MAX, out),
        }
    }

    /// Appends the value as JSON, as [`ValueRef::write_text`] does for nested ones.
    pub fn write_as_json(&self, out: &mut Vec<u8>) {
        self.write_json(NESTING_MAX, out);
    }

    fn write_json(&self, levels: usize, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(_) | Self::I8(_) | Self::I16(_) | Self::I32(_) => self.write_text(out),
            Self::I64(value) if value.unsigned_abs() <= JSON_INTEGER_MAX => self.write_text(out),
            Self::I64(value) => {
                write(out, format_args!(r#"{{"$type":"i64","value":"{value}"}}"#));
            }
            Self::F32(value) => write_json_float(value.is_finite(), FloatText(*value), out),
            Self::F64(value) => write_json_float(value.is_finite(), FloatText(*value), out),
            Self::Str(text) => write_json_text(text, out),
            Self::Bytes(bytes) => {
                out.extend_from_slice(br#"{"$bin":""#);
                base64::encode(bytes, out);
                out.extend_from_slice(br#""}"#);
            }
            Self::Nested(_) if levels == 0 => out.extend_from_slice(b"null"),
            Self::Nested(_) => {
                if let Some(entries) = self.entries() {
                    write_json_map(entries, out, |value, out| value.write_json(levels - 1, out));
                } else if let Some(items) = self.items() {
                    write_json_list(items, out, |item, out| item.write_json(levels - 1, out));
                } else {
                    out.extend_from_slice(b"null");
                }
            }
        }
    }
}

impl Value {
    /// As [`ValueRef::write_text`].
    pub fn write_text(&self, out: &mut Vec<u8>) {
        match self.as_scalar() {
            Some(scalar) => scalar.write_text(out),
            None => self.write_json(NESTING_MAX, out),
        }
    }

    fn write_json(&self, levels: usize, out: &mut Vec<u8>) {
        match self {
            Self::Map(_) | Self::List(_) if levels == 0 => out.extend_from_slice(b"null"),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (&**key, value));
                write_json_map(entries, out, |value, out| value.write_json(levels - 1, out));
            }
            Self::List(items) => {
                write_json_list(items.iter(), out, |item, out| item.write_json(levels - 1, out));
            }
            scalar => scalar.as_scalar().unwrap_or(ValueRef::Null).write_json(levels, out),
        }
    }
}

fn write_json_float(finite: bool, text: impl Display, out: &mut Vec<u8>) {
    if finite {
        write(out, text);
    } else {
        write(out, format_args!("\"{text}\""));
    }
}

fn write_json_map<'k, V>(
    entries: impl Iterator<Item = (&'k str, V)>,
    out: &mut Vec<u8>,
    mut write_value: impl FnMut(V, &mut Vec<u8>),
) {
    out.push(b'{');
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json_text(key, out);
        out.push(b':');
        write_value(value, out);
    }
    out.push(b'}');
}

fn write_json_list<V>(
    items: impl Iterator<Item = V>,
    out: &mut Vec<u8>,
    mut write_item: impl FnMut(V, &mut Vec<u8>),
) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_item(item, out);
    }
    out.push(b']');
}

/// Appends text as a JSON string.
pub fn write_json_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(br#"\""#),
            b'\\' => out.extend_from_slice(br"\\"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b'\t' => out.extend_from_slice(br"\t"),
            0..0x20 | 0x7f => write(out, format_args!("\\u{byte:04x}")),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
