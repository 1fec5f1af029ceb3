//! How each type of value is read from what was written, and written so that it can be read.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::table::Range;

/// A value as it was found, before anybody knew what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    /// Nothing was written.
    Unset,
    /// Characters without a type: an environment variable, a command line, a default.
    Words(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i128),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array.
    List(Vec<Self>),
    /// A TOML table.
    Table(Vec<(String, Self)>),
    /// Anything else, in words.
    Other(&'static str),
}

impl Raw {
    /// What an error says stands there: `not …`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Unset => "nothing".to_owned(),
            Self::Words(text) | Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(words) => (*words).to_owned(),
        }
    }

    pub(crate) fn mismatch<T>(&self) -> Result<T, String> {
        Err(self.describe())
    }

    pub(crate) fn mismatch_because<T>(&self, why: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("{} ({why})", self.describe()))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Words(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a TOML array, or of words between commas; a single TOML string is a list of one.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Words(words) if words.trim().is_empty() => Some(Vec::new()),
            Self::Words(words) => {
                Some(words.split(',').map(|item| Self::Words(item.trim().to_owned())).collect())
            }
            Self::Text(_) => Some(vec![self.clone()]),
            _ => None,
        }
    }
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    Bytes,
    Milliseconds,
}

/// A type that a key can have.
pub(crate) trait Value: Sized {
    /// What a value must be, completing "must be …".
    fn expects(range: Range) -> String;
    /// Reads a value; the error completes "not …".
    fn read(raw: &Raw, range: Range) -> Result<Self, String>;
    /// Writes it as TOML; `None` if it is unset.
    fn show(&self, range: Range) -> Option<String>;
}

/// A TOML basic string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `1536` → `1536`, `1048576` → `1 MiB`: the largest unit that divides it.
pub(crate) fn amount(number: u64, unit: Unit) -> String {
    if unit == Unit::Bytes && number > 0 {
        for (word, size) in UNITS.iter().filter(|(_, size)| *size > 1) {
            if number.is_multiple_of(*size) {
                return format!("{} {word}", number / size);
            }
        }
    }
    number.to_string()
}

/// `64 MiB`, `64MiB`, `67_108_864`.
fn parse_amount(text: &str, unit: Unit) -> Option<u64> {
    let text = text.trim();
    let (digits, size) = match unit {
        Unit::Bytes => UNITS
            .iter()
            .find_map(|(word, size)| Some((text.strip_suffix(word)?.trim_end(), *size)))
            .unwrap_or((text, 1)),
        Unit::Count | Unit::Milliseconds => (text, 1),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    digits.replace('_', "").parse::<u64>().ok()?.checked_mul(size)
}

fn read_number(raw: &Raw, range: Range) -> Result<u64, String> {
    let number = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Words(text) => parse_amount(text, range.unit),
        Raw::Text(text) if range.unit == Unit::Bytes => parse_amount(text, range.unit),
        _ => None,
    };
    match number {
        Some(number) if (range.min..=range.max).contains(&number) => Ok(number),
        _ => raw.mismatch(),
    }
}

macro_rules! numbers {
    ($($ty:ty),+) => {$(
        impl Value for $ty {
            fn expects(range: Range) -> String {
                let (min, max) = (amount(range.min, range.unit), amount(range.max, range.unit));
                match range.unit {
                    Unit::Count => format!("a whole number from {min} to {max}"),
                    Unit::Milliseconds => format!("milliseconds from {min} to {max}"),
                    Unit::Bytes => format!("bytes from {min} to {max}"),
                }
            }
            fn read(raw: &Raw, range: Range) -> Result<Self, String> {
                read_number(raw, range).and_then(|number| Self::try_from(number).or_else(|_| raw.mismatch()))
            }
            fn show(&self, range: Range) -> Option<String> {
                let number = u64::try_from(*self).unwrap_or(u64::MAX);
                let text = amount(number, range.unit);
                Some(if text.contains(' ') { quoted(&text) } else { text })
            }
        }
    )+};
}

numbers!(u64, u32, usize);

impl Value for bool {
    fn expects(_: Range) -> String {
        "true or false".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        match raw {
            Raw::Flag(flag) => Ok(*flag),
            Raw::Words(words) => words.trim().parse().or_else(|_| raw.mismatch()),
            _ => raw.mismatch(),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for String {
    fn expects(_: Range) -> String {
        "a text".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        raw.text().map_or_else(|| raw.mismatch(), |text| Ok(text.to_owned()))
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(self))
    }
}

impl Value for PathBuf {
    fn expects(_: Range) -> String {
        "a path".to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        match raw.text() {
            Some(text) if !text.is_empty() && !text.contains('\0') => Ok(Self::from(text)),
            _ => raw.mismatch(),
        }
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(quoted(&self.display().to_string()))
    }
}

/// Unset, and an empty text, are `None`.
impl<T: Value> Value for Option<T> {
    fn expects(range: Range) -> String {
        T::expects(range)
    }
    fn read(raw: &Raw, range: Range) -> Result<Self, String> {
        match raw {
            Raw::Unset => Ok(None),
            Raw::Words(text) | Raw::Text(text) if text.is_empty() => Ok(None),
            _ => T::read(raw, range).map(Some),
        }
    }
    fn show(&self, range: Range) -> Option<String> {
        self.as_ref().and_then(|value| value.show(range))
    }
}

/// Where a listener listens; `off` is nowhere.
impl Value for Vec<SocketAddr> {
    fn expects(_: Range) -> String {
        "ADDRESS:PORT (such as 127.0.0.1:61613 or [::1]:61613), several separated by commas, or off"
            .to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        let Some(text) = raw.text() else { return raw.mismatch() };
        if text.trim() == "off" {
            return Ok(Self::new());
        }
        let address = |part: &str| match part.trim().strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse(),
            None => part.trim().parse(),
        };
        text.split(',').map(|part| address(part).or_else(|_| raw.mismatch())).collect()
    }
    fn show(&self, _: Range) -> Option<String> {
        let text: Vec<String> = self.iter().map(ToString::to_string).collect();
        Some(if text.is_empty() { quoted("off") } else { quoted(&text.join(",")) })
    }
}

/// Paths of Unix sockets; `off` is none.
impl Value for Vec<PathBuf> {
    fn expects(_: Range) -> String {
        "the path of a socket, several separated by commas, or off".to_owned()
    }
    fn read(raw: &Raw, range: Range) -> Result<Self, String> {
        let Some(text) = raw.text() else { return raw.mismatch() };
        if text.trim() == "off" {
            return Ok(Self::new());
        }
        text.split(',')
            .map(|part| PathBuf::read(&Raw::Text(part.trim().to_owned()), range).or_else(|_| raw.mismatch()))
            .collect()
    }
    fn show(&self, _: Range) -> Option<String> {
        let text: Vec<String> = self.iter().map(|path| path.display().to_string()).collect();
        Some(if text.is_empty() { quoted("off") } else { quoted(&text.join(",")) })
    }
}

/// A value that a list may hold.
pub(crate) trait Item: Sized {
    const EXPECTS: &'static str;
    /// Whether a list of none makes sense.
    const MAY_BE_EMPTY: bool = false;
    fn read_item(raw: &Raw) -> Result<Self, String>;
    fn show_item(&self) -> String;
}

impl<T: Item> Value for Vec<T> {
    fn expects(_: Range) -> String {
        T::EXPECTS.to_owned()
    }
    fn read(raw: &Raw, _: Range) -> Result<Self, String> {
        let Some(items) = raw.items() else { return raw.mismatch() };
        if items.is_empty() && !T::MAY_BE_EMPTY {
            return Err("an empty list".to_owned());
        }
        items.iter().map(T::read_item).collect()
    }
    fn show(&self, _: Range) -> Option<String> {
        Some(list(self.iter().map(T::show_item)))
    }
}

/// An enumeration with one word per value.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        $crate::config::value::words!($name { $($name::$variant = $word,)+ });
    };
}

/// The same for an enumeration that lives elsewhere.
macro_rules! words {
    ($name:ty { $($variant:path = $word:literal,)+ }) => {
        impl $crate::config::value::Value for $name {
            fn expects(_: $crate::config::table::Range) -> String {
                $crate::config::value::alternatives(&[$($word,)+])
            }
            fn read(raw: &$crate::config::value::Raw, _: $crate::config::table::Range) -> Result<Self, String> {
                match raw.text() {
                    $(Some($word) => Ok($variant),)+
                    _ => raw.mismatch(),
                }
            }
            fn show(&self, _: $crate::config::table::Range) -> Option<String> {
                Some($crate::config::value::quoted(match self { $($variant => $word,)+ }))
            }
        }
    };
}

/// `a, b or c`.
pub(crate) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

pub(crate) use {choice, words};

#[cfg(test)]
mod tests {
    use super::super::table::{ANY, bytes, count, ms};
    use super::*;

    fn words(text: &str) -> Raw {
        Raw::Words(text.to_owned())
    }

    #[test]
    fn amounts_have_units_where_they_are_bytes() {
        let range = bytes(1, 1 << 50);
        for (text, number) in [
            ("1", 1),
            ("64 MiB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1_000", 1000),
            (" 2 TiB ", 2 << 40),
            ("7 B", 7),
        ] {
            assert_eq!(u64::read(&words(text), range), Ok(number), "{text}");
        }
        for text in ["", "-1", "1.5 GiB", "64 MB", "MiB", "99999999999 TiB", "0", "+5", "1 kib", "_1"] {
            assert!(u64::read(&words(text), range).is_err(), "{text}");
        }
        assert!(u64::read(&words("1 KiB"), count(0, 9999)).is_err());
        assert!(u64::read(&Raw::Text("1000".into()), ms(0, 9999)).is_err(), "a TOML string is no number");
        assert_eq!(u64::read(&Raw::Text("1 KiB".into()), range), Ok(1024));
    }

    #[test]
    fn what_is_shown_reads_back() {
        let range = bytes(0, u64::MAX);
        for number in [0, 1, 1000, 1024, 1536, 1 << 20, 3 << 30, u64::MAX] {
            let shown = number.show(range).unwrap_or_default();
            assert_eq!(u64::read(&words(shown.trim_matches('"')), range), Ok(number), "{shown}");
        }
        assert_eq!((1536_u64 << 20).show(range).as_deref(), Some("\"1536 MiB\""));
    }

    #[test]
    fn addresses_are_literal() {
        let read = |text: &str| Vec::<SocketAddr>::read(&words(text), ANY);
        assert_eq!(read("off"), Ok(vec![]));
        assert_eq!(read("127.0.0.1:1, [::1]:2").map(|list| list.len()), Ok(2));
        assert_eq!(read("localhost:61613"), read("127.0.0.1:61613"));
        for bad in [
            "",
            "61613",
            ":61613",
            "broker.example:61613",
            "127.0.0.1",
            "127.0.0.1:99999",
            "127.0.0.1:1,",
            "on",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\nd\u{1}é"), "\"a\\\"b\\\\c\\nd\\u0001é\"");
    }
}
