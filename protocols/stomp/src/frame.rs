//! What a frame is: versions, commands, and a whole frame borrowed from the bytes it came in.
//!
//! Header values stay as they came over the wire (*raw*) until somebody asks for their meaning; the decoder has checked
//! the escapes by then, so reading cannot fail.

use std::borrow::Cow;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// No escapes, values trimmed.
    V10,
    /// Escapes `\n`, `\c`, `\\`.
    V11,
    /// As 1.1 plus `\r`, and acknowledgements by an id of their own.
    #[default]
    V12,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 3] = [Self::V10, Self::V11, Self::V12];

    /// `1.0`, `1.1` or `1.2`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The protocol's name for logs and metrics.
    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::V10 => "STOMP 1.0",
            Self::V11 => "STOMP 1.1",
            Self::V12 => "STOMP 1.2",
        }
    }

    /// The version called `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// The highest version of a CONNECT's `accept-version` list that we know; 1.0 if there is no list.
    pub(crate) fn negotiate(list: Option<&str>) -> Option<Self> {
        let Some(list) = list else { return Some(Self::V10) };
        list.split(',').filter_map(|item| Self::parse(item.trim())).max()
    }
}

/// How the header values of a frame are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As they are: CONNECT and CONNECTED of 1.1 and up, and what holds no escape.
    Plain,
    /// Blanks trimmed: 1.0, whose examples pad values.
    Trimmed,
    /// With the escapes of 1.1, and of 1.2 if so said.
    Escaped {
        /// Whether `\r` is an escape too.
        carriage_return: bool,
    },
}

impl From<Version> for Reading {
    fn from(version: Version) -> Self {
        match version {
            Version::V10 => Self::Trimmed,
            Version::V11 => Self::Escaped { carriage_return: false },
            Version::V12 => Self::Escaped { carriage_return: true },
        }
    }
}

impl Reading {
    /// Whether every escape in `text` is one.
    pub(crate) fn accepts(self, text: &str) -> bool {
        let Self::Escaped { carriage_return } = self else { return true };
        let mut rest = text.as_bytes();
        while let Some(at) = memchr::memchr(b'\\', rest) {
            match rest.get(at + 1) {
                Some(b'n' | b'c' | b'\\') => {}
                Some(b'r') if carriage_return => {}
                _ => return false,
            }
            rest = rest.get(at + 2..).unwrap_or_default();
        }
        true
    }

    fn read(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Plain => Cow::Borrowed(text),
            Self::Trimmed => Cow::Borrowed(text.trim_matches([' ', '\t'])),
            Self::Escaped { .. } if memchr::memchr(b'\\', text.as_bytes()).is_none() => Cow::Borrowed(text),
            Self::Escaped { .. } => Cow::Owned(unescape(text)),
        }
    }
}

/// Undoes escapes that the decoder has checked.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let mut characters = after.chars();
        plain.push(match characters.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('c') => ':',
            _ => '\\',
        });
        rest = characters.as_str();
    }
    plain.push_str(rest);
    plain
}

/// Where one header line lies, counted from the first byte of its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) colon: u32,
    pub(crate) end: u32,
}

/// A whole frame, borrowed from the bytes it came in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub(crate) command: &'a str,
    pub(crate) head: &'a str,
    pub(crate) spans: &'a [Span],
    pub(crate) reading: Reading,
    pub(crate) body: &'a [u8],
    /// Where the body starts, counted from the first byte of the frame.
    pub(crate) body_start: usize,
    /// Whether a content-length said where the body ends.
    pub(crate) sized: bool,
    /// Whether the body is UTF-8, where it came piece by piece and is not here.
    pub(crate) is_text: Option<bool>,
}

impl<'a> Frame<'a> {
    /// The command word.
    #[must_use]
    pub fn command(&self) -> &'a str {
        self.command
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether the body is UTF-8.
    pub(crate) fn is_text(&self) -> bool {
        self.is_text.unwrap_or_else(|| std::str::from_utf8(self.body).is_ok())
    }

    /// The headers in the order written, repeated ones included.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let Self { head, reading, spans, .. } = *self;
        spans.iter().map(move |span| Header::new(head, *span, reading))
    }

    /// The value of the first header of this name as it came over the wire, blanks trimmed in 1.0. `name` must be one
    /// that needs no escape.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.find(name).map(|header| header.raw_value())
    }

    /// The value of the first header of this name. `name` must be one that needs no escape.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.find(name).map(|header| header.value())
    }

    fn find(&self, name: &str) -> Option<Header<'a>> {
        self.headers().find(|header| header.raw_name() == name)
    }
}

/// One header line of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    name: &'a str,
    value: &'a str,
    reading: Reading,
}

impl<'a> Header<'a> {
    fn new(head: &'a str, span: Span, reading: Reading) -> Self {
        let text = |from: u32, to: u32| head.get(from as usize..to as usize).unwrap_or_default();
        let (mut name, mut value) = (text(span.start, span.colon), text(span.colon + 1, span.end));
        if reading == Reading::Trimmed {
            name = name.trim_matches([' ', '\t']);
            value = value.trim_matches([' ', '\t']);
        }
        Self { name, value, reading }
    }

    /// The name as it came over the wire.
    #[must_use]
    pub fn raw_name(&self) -> &'a str {
        self.name
    }

    /// The value as it came over the wire, blanks trimmed in 1.0.
    #[must_use]
    pub fn raw_value(&self) -> &'a str {
        self.value
    }

    /// The name, escapes undone.
    #[must_use]
    pub fn name(&self) -> Cow<'a, str> {
        self.reading.read(self.name)
    }

    /// The value, escapes undone.
    #[must_use]
    pub fn value(&self) -> Cow<'a, str> {
        self.reading.read(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        for (list, expected) in [
            (None, Some(Version::V10)),
            (Some("1.0"), Some(Version::V10)),
            (Some("1.1"), Some(Version::V11)),
            (Some("1.2"), Some(Version::V12)),
            (Some("1.0,1.1,1.2"), Some(Version::V12)),
            (Some("1.2,1.0"), Some(Version::V12)),
            (Some(" 1.0 , 1.1 "), Some(Version::V11)),
            (Some("1.1,2.0"), Some(Version::V11)),
            (Some("2.0"), None),
            (Some(""), None),
        ] {
            assert_eq!(Version::negotiate(list), expected, "{list:?}");
        }
    }

    #[test]
    fn escapes_are_those_of_the_version() {
        let v11 = Reading::from(Version::V11);
        let v12 = Reading::from(Version::V12);
        for (raw, in_11, in_12) in [
            (r"a\cb", Some("a:b"), Some("a:b")),
            (r"\n\\n", Some("\n\\n"), Some("\n\\n")),
            (r"a\rb", None, Some("a\rb")),
            (r"a\tb", None, None),
            (r"end\", None, None),
            (r"\\", Some(r"\"), Some(r"\")),
            (r"ü\cü", Some("ü:ü"), Some("ü:ü")),
        ] {
            for (reading, expected) in [(v11, in_11), (v12, in_12)] {
                assert_eq!(reading.accepts(raw), expected.is_some(), "{raw}");
                if let Some(expected) = expected {
                    assert_eq!(reading.read(raw), expected);
                }
            }
            assert!(Reading::Trimmed.accepts(raw));
            assert_eq!(Reading::Trimmed.read(raw), raw);
        }
        assert_eq!(Reading::Trimmed.read(" padded "), "padded");
        assert_eq!(v12.read(" kept "), " kept ");
    }
}
