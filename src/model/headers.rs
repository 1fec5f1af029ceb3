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
