//! Reading a property as another type, by the table of JMS 2.0 §3.5.4, and which names JMS can use.

use std::borrow::Cow;

use super::{FloatText, Value, ValueRef};
use crate::selector;

/// Why a property cannot be read as the type that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversionError {
    /// The stored type never converts to the one asked for.
    Conversion,
    /// Text that does not read as the number asked for. Null read as a number is this too (JMS 2.0 §3.5.4).
    Format,
}

impl std::fmt::Display for ConversionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Conversion => "the property's type does not convert to the one asked for",
            Self::Format => "the property's text does not read as the number asked for",
        })
    }
}

impl std::error::Error for ConversionError {}

use ConversionError::{Conversion, Format};

/// A decimal number as Java's `Double.parseDouble` reads it: blanks around it allowed, `NaN` and `Infinity` written so.
#[must_use]
pub fn parse_float(text: &str) -> Option<f64> {
    float_text(text)?.parse().ok()
}

fn parse_float32(text: &str) -> Option<f32> {
    float_text(text)?.parse().ok()
}

/// Rust also reads `inf`, `nan` and `INFINITY`, which nobody means in a property.
fn float_text(text: &str) -> Option<&str> {
    let text = text.trim_matches(|letter: char| letter <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let numeric = unsigned.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    (numeric || matches!(unsigned, "NaN" | "Infinity")).then_some(text)
}

impl<'a> ValueRef<'a> {
    /// Reads as a boolean. Text is true if it says `true` in any case, else false; null is false.
    ///
    /// # Errors
    /// [`ConversionError::Conversion`] for numbers, octets, maps and lists.
    pub fn as_bool(&self) -> Result<bool, ConversionError> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Str(text) => Ok(text.eq_ignore_ascii_case("true")),
            Self::Null => Ok(false),
            _ => Err(Conversion),
        }
    }

    /// Reads as an 8-bit integer.
    ///
    /// # Errors
    /// [`ConversionError::Format`] for null and for text that is none, [`ConversionError::Conversion`] for other types.
    pub fn as_i8(&self) -> Result<i8, ConversionError> {
        match self {
            Self::I8(value) => Ok(*value),
            Self::Str(text) => text.parse().map_err(|_| Format),
            Self::Null => Err(Format),
            _ => Err(Conversion),
        }
    }

    /// Reads as a 16-bit integer. Shorter integers widen.
    ///
    /// # Errors
    /// As [`ValueRef::as_i8`].
    pub fn as_i16(&self) -> Result<i16, ConversionError> {
        match self {
            Self::I8(value) => Ok((*value).into()),
            Self::I16(value) => Ok(*value),
            Self::Str(text) => text.parse().map_err(|_| Format),
            Self::Null => Err(Format),
            _ => Err(Conversion),
        }
    }

    /// Reads as a 32-bit integer. Shorter integers widen.
    ///
    /// # Errors
    /// As [`ValueRef::as_i8`].
    pub fn as_i32(&self) -> Result<i32, ConversionError> {
        match self {
            Self::I8(value) => Ok((*value).into()),
            Self::I16(value) => Ok((*value).into()),
            Self::I32(value) => Ok(*value),
            Self::Str(text) => text.parse().map_err(|_| Format),
            Self::Null => Err(Format),
            _ => Err(Conversion),
        }
    }

    /// Reads as a 64-bit integer. Shorter integers widen.
    ///
    /// # Errors
    /// As [`ValueRef::as_i8`].
    pub fn as_i64(&self) -> Result<i64, ConversionError> {
        match self {
            Self::I8(value) => Ok((*value).into()),
            Self::I16(value) => Ok((*value).into()),
            Self::I32(value) => Ok((*value).into()),
            Self::I64(value) => Ok(*value),
            Self::Str(text) => text.parse().map_err(|_| Format),
            Self::Null => Err(Format),
            _ => Err(Conversion),
        }
    }

    /// Reads as a 32-bit float. Integers do not convert.
    ///
    /// # Errors
    /// As [`ValueRef::as_i8`].
    pub fn as_f32(&self) -> Result<f32, ConversionError> {
        match self {
            Self::F32(value) => Ok(*value),
            Self::Str(text) => parse_float32(text).ok_or(Format),
            Self::Null => Err(Format),
            _ => Err(Conversion),
        }
    }

    /// Reads as a 64-bit float. A 32-bit one widens; integers do not convert.
    ///
    /// # Errors
    /// As [`ValueRef::as_i8`].
    pub fn as_f64(&self) -> Result<f64, ConversionError> {
        match self {
            Self::F32(value) => Ok((*value).into()),
            Self::F64(value) => Ok(*value),
            Self::Str(text) => parse_float(text).ok_or(Format),
            Self::Null => Err(Format),
            _ => Err(Conversion),
        }
    }

    /// Reads as text.
    ///
    /// # Errors
    /// [`ConversionError::Conversion`] for null, octets, maps and lists.
    pub fn as_string(&self) -> Result<Cow<'a, str>, ConversionError> {
        Ok(match self {
            Self::Str(text) => Cow::Borrowed(text),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::I8(value) => Cow::Owned(value.to_string()),
            Self::I16(value) => Cow::Owned(value.to_string()),
            Self::I32(value) => Cow::Owned(value.to_string()),
            Self::I64(value) => Cow::Owned(value.to_string()),
            Self::F32(value) => Cow::Owned(FloatText(*value).to_string()),
            Self::F64(value) => Cow::Owned(FloatText(*value).to_string()),
            Self::Null | Self::Bytes(_) | Self::Nested(_) => return Err(Conversion),
        })
    }
}

macro_rules! through_scalar {
    ($($name:ident -> $type:ty;)+) => {
        impl Value {$(
            #[doc = concat!("As [`ValueRef::", stringify!($name), "`].")]
            ///
            /// # Errors
            #[doc = concat!("As [`ValueRef::", stringify!($name), "`].")]
            pub fn $name(&self) -> Result<$type, ConversionError> {
                self.as_scalar().ok_or(Conversion).and_then(|value| value.$name())
            }
        )+}
    };
}

through_scalar! {
    as_bool -> bool;
    as_i8 -> i8;
    as_i16 -> i16;
    as_i32 -> i32;
    as_i64 -> i64;
    as_f32 -> f32;
    as_f64 -> f64;
    as_string -> Cow<'_, str>;
}

/// Whether JMS allows `name` for a property: a Java identifier that is no reserved word of selectors (JMS 2.0 §3.8.1.1).
#[must_use]
pub fn is_jms_identifier(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_alphabetic() || first == '_' || first == '$')
        && letters.all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '$')
        && !selector::is_reserved(name)
}
