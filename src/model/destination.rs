//! Destinations: queues and topics, temporary or not, named by a list of levels.
//!
//! A name's canonical text joins its levels with NUL, so a level may hold any other character; every protocol escapes on
//! its own way in and out. The *dotted* form of this module is the one ActiveMQ's users write (`orders.eu.de`); a dot
//! inside a level is written `%2E` there, and so `%2E` is the one sequence that a dotted name cannot hold literally.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::{Code, Refusal};

/// Longest canonical name, in bytes (the limit MQTT sets for a topic name).
pub const NAME_BYTES_MAX: usize = 65_535;

/// The character between two levels of a canonical name.
pub const LEVEL_SEPARATOR: char = '\0';

/// What a destination does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Holds messages for later and hands each to one consumer.
    Queue,
    /// Holds nothing; hands each message to every interested subscriber.
    Topic,
}

impl Kind {
    /// The word of the qualified form: `queue` or `topic`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
        }
    }
}

/// A queue or a topic by name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    kind: Kind,
    temporary: bool,
    /// It is the text of a pattern with wildcards, and no destination at all. Never seen outside of patterns.
    wild: bool,
    name: Arc<str>,
}

impl Destination {
    /// A destination from its canonical name (levels joined by NUL).
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] if the name is empty, too long, or holds CR or LF.
    pub fn from_canonical(kind: Kind, temporary: bool, name: &str) -> Result<Self, Refusal> {
        check_name(name)?;
        check_line(name)?;
        Ok(Self { kind, temporary, wild: false, name: name.into() })
    }

    /// The text of a pattern with wildcards, which are line breaks in it.
    pub(crate) fn wild(kind: Kind, temporary: bool, name: &str) -> Result<Self, Refusal> {
        check_name(name)?;
        Ok(Self { kind, temporary, wild: true, name: name.into() })
    }

    /// A destination from the dotted form, blanks at both ends trimmed.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] as in [`Destination::from_canonical`], and for a name that holds NUL.
    pub fn from_dotted(kind: Kind, temporary: bool, text: &str) -> Result<Self, Refusal> {
        Self::from_canonical(kind, temporary, &canonical_from_dotted(text)?)
    }

    /// A queue by dotted name, for code that knows the name is good.
    ///
    /// # Panics
    /// If the name is not a valid one.
    #[must_use]
    pub fn queue(text: &str) -> Self {
        Self::from_dotted(Kind::Queue, false, text).expect("a literal name is valid")
    }

    /// A topic by dotted name, for code that knows the name is good.
    ///
    /// # Panics
    /// If the name is not a valid one.
    #[must_use]
    pub fn topic(text: &str) -> Self {
        Self::from_dotted(Kind::Topic, false, text).expect("a literal name is valid")
    }

    /// Parses the qualified form of configuration files: `queue://A.B`, `topic://T`, `temp-queue://…`; a text without
    /// a prefix takes `default`.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] as in [`Destination::from_dotted`].
    pub fn parse_qualified(text: &str, default: Kind) -> Result<Self, Refusal> {
        let (kind, temporary, name) = split_qualified(text, default);
        Self::from_dotted(kind, temporary, name)
    }

    pub(crate) fn is_wild(&self) -> bool {
        self.wild
    }

    /// Queue or topic.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it lives only as long as the connection that made it.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The canonical name: levels joined by NUL.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.name
    }

    /// The levels of the name.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.name.split(LEVEL_SEPARATOR)
    }

    /// Appends the dotted name to `out`.
    pub fn write_dotted(&self, out: &mut Vec<u8>) {
        write_dotted(&self.name, out);
    }

    /// The dotted name.
    #[must_use]
    pub fn dotted(&self) -> String {
        dotted(&self.name)
    }

    /// Appends the stored form: one byte of kind, then the canonical name.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.as_ref().encode(out);
    }

    /// Reads the stored form; `None` if it is not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        DestinationRef::decode(bytes).map(DestinationRef::to_owned)
    }

    /// This destination, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> DestinationRef<'_> {
        DestinationRef { kind: self.kind, temporary: self.temporary, canonical: &self.name }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// A destination borrowed from an encoded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationRef<'a> {
    /// Queue or topic.
    pub kind: Kind,
    /// Whether it lives only as long as its connection.
    pub temporary: bool,
    /// Levels joined by NUL.
    pub canonical: &'a str,
}

impl<'a> DestinationRef<'a> {
    /// Reads the stored form; `None` if it is not one.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&bits, name) = bytes.split_first()?;
        let canonical = std::str::from_utf8(name).ok()?;
        if bits > 3 || canonical.is_empty() {
            return None;
        }
        let kind = if bits & 1 == 1 { Kind::Topic } else { Kind::Queue };
        Some(Self { kind, temporary: bits & 2 != 0, canonical })
    }

    /// Appends the stored form: one byte of kind, then the canonical name.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.bits());
        out.extend_from_slice(self.canonical.as_bytes());
    }

    /// Whether this is its stored form.
    #[must_use]
    pub fn is_stored_as(&self, bytes: &[u8]) -> bool {
        bytes.split_first() == Some((&self.bits(), self.canonical.as_bytes()))
    }

    fn bits(&self) -> u8 {
        u8::from(self.kind == Kind::Topic) | (u8::from(self.temporary) << 1)
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(self) -> Destination {
        Destination { kind: self.kind, temporary: self.temporary, wild: false, name: self.canonical.into() }
    }

    /// Appends the dotted name to `out`.
    pub fn write_dotted(&self, out: &mut Vec<u8>) {
        write_dotted(self.canonical, out);
    }
}

/// The qualified form: `queue://A.B`.
impl fmt::Display for DestinationRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.temporary { "temp-" } else { "" };
        write!(f, "{prefix}{}://{}", self.kind.word(), dotted(self.canonical))
    }
}

/// Where a send goes: one destination, or several in the order written.
pub type Targets = SmallVec<[Destination; 1]>;

/// Splits `queue://NAME`, `topic://NAME`, `temp-queue://NAME`, `temp-topic://NAME` into kind, temporary and name.
#[must_use]
pub fn split_qualified(text: &str, default: Kind) -> (Kind, bool, &str) {
    let text = text.trim();
    for (prefix, kind, temporary) in [
        ("queue://", Kind::Queue, false),
        ("topic://", Kind::Topic, false),
        ("temp-queue://", Kind::Queue, true),
        ("temp-topic://", Kind::Topic, true),
    ] {
        if let Some(name) = text.strip_prefix(prefix) {
            return (kind, temporary, name);
        }
    }
    (default, false, text)
}

/// The canonical form of a dotted name, blanks at both ends trimmed.
///
/// # Errors
/// [`Code::InvalidDestination`] for a name that holds NUL.
pub fn canonical_from_dotted(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if text.contains(LEVEL_SEPARATOR) {
        return Err(Refusal::new(Code::InvalidDestination, "a destination name cannot hold NUL"));
    }
    let mut canonical = text.replace('.', "\0");
    if canonical.contains("%2") {
        canonical = canonical.replace("%2E", ".").replace("%2e", ".");
    }
    Ok(canonical)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let problem = if name.is_empty() {
        "a destination name cannot be empty"
    } else if name.len() > NAME_BYTES_MAX {
        "a destination name is at most 65535 bytes long"
    } else {
        return Ok(());
    };
    Err(Refusal::new(Code::InvalidDestination, problem))
}

/// Refuses line breaks.
pub(crate) fn check_line(text: &str) -> Result<(), Refusal> {
    if text.bytes().any(|b| b == b'\r' || b == b'\n') {
        let problem = "a destination name cannot hold a line break";
        return Err(Refusal::new(Code::InvalidDestination, problem));
    }
    Ok(())
}

fn write_dotted(canonical: &str, out: &mut Vec<u8>) {
    if canonical.as_bytes().contains(&b'.') {
        out.extend_from_slice(dotted(canonical).as_bytes());
        return;
    }
    out.extend(canonical.bytes().map(|b| if b == 0 { b'.' } else { b }));
}

/// The dotted form of a canonical name.
#[must_use]
pub fn dotted(canonical: &str) -> String {
    canonical.replace('.', "%2E").replace(LEVEL_SEPARATOR, ".")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn dotted_names_round_trip_and_keep_empty_levels() {
        for text in ["a", "a.b.c", ".a", "a.", "a..b", "foo/bar", "one%2Elevel.two", "50%"] {
            let destination = Destination::from_dotted(Kind::Queue, false, text).unwrap();
            assert_eq!(destination.dotted(), text);
            let mut stored = Vec::new();
            destination.encode(&mut stored);
            assert_eq!(Destination::decode(&stored).unwrap(), destination);
        }
        assert_eq!(Destination::queue("one%2Elevel.two").levels().collect::<Vec<_>>(), ["one.level", "two"]);
    }

    #[test]
    fn bad_names_are_refused() {
        for text in ["", "  ", "a\nb", "a\rb", "a\0b", &"x".repeat(65_536)] {
            let refusal = Destination::from_dotted(Kind::Topic, false, text).unwrap_err();
            assert_eq!(refusal.code, Code::InvalidDestination, "{text:?}");
        }
    }

    #[test]
    fn queue_and_topic_of_one_name_differ() {
        assert_ne!(Destination::queue("x"), Destination::topic("x"));
        assert_eq!(Destination::parse_qualified("topic://x", Kind::Queue).unwrap(), Destination::topic("x"));
        assert_eq!(Destination::topic("a.b").to_string(), "topic://a.b");
    }
}
