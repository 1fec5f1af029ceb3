//! Message selectors (JMS 2.0 §3.8, a subset of SQL-92 conditional expressions), used by every protocol.
//!
//! A selector is compiled once and evaluated against anything that can [`Lookup`] names; it knows no message type, no
//! protocol and no clock. Beyond JMS it reads names in double quotes (`"content-type"`), comments, octal and hexadecimal
//! numbers, and the functions `REGEX`, `REPLACE` and `INLIST` over `MAKELIST` or `SPLIT`.
//!
//! Rules worth knowing:
//! - A message is selected only if the condition is *true*: a comparison with a missing property is unknown, and only
//!   `IS [NOT] NULL` can ask for it. Comparing values of different kinds is false, so `<>` between them is true.
//! - Integers, whatever their width, are compared and computed exactly, and as doubles once a double takes part, on
//!   overflow, and in `/` and `%`. A number compares with text only if the selector converts ([`Options`]).
//! - Arithmetic on what is no number gives NULL, but `+` behind a text joins.
//! - `NOT` negates the whole comparison behind it, as in JMS (`NOT a = 1` is `NOT (a = 1)`).
//!
//! Everything is bounded: the text's length, its nesting, the regular expressions, and what a function can make.

mod eval;
mod lexer;
mod like;
mod parser;
mod pattern;
mod tree;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::error::{Code, Refusal};
use crate::headers::ValueRef;

/// Longest selector, in bytes, prefixes included.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Asks for conversion between text and numbers, as [`Options::convert_strings`] does.
const CONVERT_PREFIX: &str = "convert_string_expressions:";
/// Lets names hold hyphens; a minus sign then needs a blank around it.
const HYPHEN_PREFIX: &str = "hyphenated_props:";

/// What a selector is evaluated against.
pub trait Lookup {
    /// The value of the property or header of this name, letter case significant; [`ValueRef::Null`] if there is none.
    fn get(&self, name: &str) -> ValueRef<'_>;
}

/// Whether `name` is a reserved word, in any case, and must be quoted to be a name.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    lexer::reserved(name).is_some()
}

/// How a selector is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether text that reads as a number compares and computes as one, and text compares with TRUE and FALSE. For
    /// protocols whose properties are all text. Text with text always compares as text.
    pub convert_strings: bool,
}

/// A compiled selector.
#[derive(Clone)]
pub struct Selector {
    source: Box<str>,
    options: Options,
    root: tree::Expr,
}

impl Selector {
    /// Compiles a selector. A protocol in which blank text means "no selector" decides that before it asks.
    ///
    /// # Errors
    /// [`Code::InvalidSelector`] says at which character and what was expected; [`Code::Unsupported`] for `XPATH` and
    /// `XQUERY`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::parse_with(text, Options::default())
    }

    /// Compiles a selector with options; prefixes in the text can only turn options on.
    ///
    /// # Errors
    /// As [`Selector::parse`].
    pub fn parse_with(text: &str, mut options: Options) -> Result<Self, Refusal> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Refusal::new(
                Code::InvalidSelector,
                format!("The selector has {} bytes; at most {TEXT_BYTES_MAX} are allowed.", text.len()),
            ));
        }
        let mut hyphens = false;
        let mut rest = text.trim_start();
        loop {
            if let Some(after) = rest.strip_prefix(CONVERT_PREFIX) {
                options.convert_strings = true;
                rest = after.trim_start();
            } else if let Some(after) = rest.strip_prefix(HYPHEN_PREFIX) {
                hyphens = true;
                rest = after.trim_start();
            } else {
                break;
            }
        }
        let root = parser::Parser::parse(text, text.len() - rest.len(), hyphens)?;
        Ok(Self { source: text.into(), options, root })
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The options in force, prefixes included.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// Whether the condition is true of `message`; neither false nor unknown is.
    #[must_use]
    pub fn matches(&self, message: &dyn Lookup) -> bool {
        let evaluation = eval::Evaluation { message, convert: self.options.convert_strings };
        evaluation.truth(&self.root) == Some(true)
    }

    /// The selector as it was understood: without comments and prefixes, every compound in parentheses.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.root.to_string()
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selector").field(&self.source).field(&self.options).finish()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl PartialEq for Selector {
    /// Equal if they were written alike and read alike.
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.options == other.options
    }
}

impl Eq for Selector {}

/// Feeds arbitrary bytes to the selector: the first byte chooses options, the rest is the text.
///
/// # Panics
/// If a selector that was accepted cannot be read back from its canonical form, or reads back as another one.
pub fn fuzz_selector(data: &[u8]) {
    struct Message<'a>(&'a str);
    impl Lookup for Message<'_> {
        fn get(&self, name: &str) -> ValueRef<'_> {
            // Any name has some value, and names differ in kind.
            match name.len() % 8 {
                0 => ValueRef::Null,
                1 => ValueRef::Bool(true),
                2 => ValueRef::I8(-1),
                3 => ValueRef::I64(i64::MIN),
                4 => ValueRef::F32(0.1),
                5 => ValueRef::F64(f64::NAN),
                6 => ValueRef::Bytes(self.0.as_bytes()),
                _ => ValueRef::Str(self.0),
            }
        }
    }
    let Some((&flags, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let options = Options { convert_strings: flags & 1 != 0 };
    let Ok(selector) = Selector::parse_with(&text, options) else {
        return;
    };
    let message = Message(&text);
    let answer = selector.matches(&message);
    // Parentheses make the canonical form longer and deeper, so one near the limits may not be accepted again.
    match Selector::parse_with(&selector.canonical(), selector.options) {
        Ok(again) => {
            assert!(again.root == selector.root, "{text:?} reads back as {:?}", again.canonical());
            assert_eq!(again.matches(&message), answer);
        }
        Err(refusal) => {
            let limit =
                refusal.sentence.contains("nested deeper") || refusal.sentence.contains(" bytes; at most");
            assert!(limit, "{text:?} does not read back: {refusal}");
        }
    }
}
