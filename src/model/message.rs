//! The message: immutable, shared, one allocation for a small one.
//!
//! A fixed header is followed by the *fields* (everything of variable length but the body, in a neutral encoding that is
//! also what the log stores) and the body. Fields stay encoded until somebody asks; a body from
//! [`crate::chunks::REFERENCE_BYTES_MIN`] up lives in its own shared buffer so that a fan-out can reference it.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use triomphe::ThinArc;

use crate::chunks::REFERENCE_BYTES_MIN;
use crate::clock::Timestamp;
use crate::delivery::Guarantee;
use crate::destination::{Destination, DestinationRef};
use crate::headers::ValueRef;
use crate::ids::MessageId;
use crate::stored::Stored;
pub use crate::stored::{Body, Content};
use crate::varint;

/// Default priority (JMS 2.0 §3.4.10).
pub const PRIORITY_DEFAULT: u8 = 4;
/// Highest priority.
pub const PRIORITY_MAX: u8 = 9;

/// What the body is, so that a protocol that knows kinds of bodies can say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BodyKind {
    /// No body at all.
    None = 0,
    /// UTF-8 text.
    Text = 1,
    /// Octets.
    #[default]
    Bytes = 2,
    /// A map, in the encoding of [`crate::headers::Value`].
    Map = 3,
    /// A list or stream, in the encoding of [`crate::headers::Value`].
    List = 4,
    /// A serialised object of some platform; opaque, never deserialised.
    Object = 5,
}

impl BodyKind {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::None,
            1 => Self::Text,
            2 => Self::Bytes,
            3 => Self::Map,
            4 => Self::List,
            5 => Self::Object,
            _ => return None,
        })
    }
}

/// The parts of a message that have a fixed size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The broker-made id.
    pub id: MessageId,
    /// When it was sent, by the sender's word or the broker's clock.
    pub timestamp: Timestamp,
    /// When it ceases to be of use; [`Timestamp::NEVER`] if it does not.
    pub expires: Timestamp,
    /// 0 to 9.
    pub priority: u8,
    /// Whether it must survive a restart.
    pub persistent: bool,
    /// Whether its sender handed it over exactly once and wants it to arrive so, where the receiver's protocol can.
    /// Only with `persistent`.
    pub exactly_once: bool,
    /// Whether its topic should keep it as the last value.
    pub retain: bool,
    /// What the body is.
    pub body_kind: BodyKind,
}

const FACTS_BYTES: usize = 16 + 8 + 8 + 1 + 1;

impl Facts {
    /// How surely it is to arrive.
    #[must_use]
    pub fn guarantee(&self) -> Guarantee {
        match (self.persistent, self.exactly_once) {
            (false, _) => Guarantee::AtMostOnce,
            (true, false) => Guarantee::AtLeastOnce,
            (true, true) => Guarantee::ExactlyOnce,
        }
    }

    fn flags(self) -> u8 {
        self.body_kind as u8
            | u8::from(self.persistent) << 3
            | u8::from(self.retain) << 4
            | u8::from(self.exactly_once) << 5
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> [u8; FACTS_BYTES] {
        let mut out = [0; FACTS_BYTES];
        out[..8].copy_from_slice(&self.id.origin.to_le_bytes());
        out[8..16].copy_from_slice(&self.id.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.timestamp.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.expires.0.to_le_bytes());
        out[32] = self.priority;
        out[33] = self.flags();
        out
    }

    /// Reads the stored form and returns what follows it; `None` if it is not one.
    #[must_use]
    pub fn decode(input: &[u8]) -> Option<(Self, &[u8])> {
        let (fixed, rest) = input.split_first_chunk::<FACTS_BYTES>()?;
        let word = |at: usize| -> Option<u64> {
            fixed.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
        };
        let flags = fixed[33];
        let facts = Self {
            id: MessageId { origin: word(0)?, number: word(8)? },
            timestamp: Timestamp(word(16)?),
            expires: Timestamp(word(24)?),
            priority: fixed[32].min(PRIORITY_MAX),
            persistent: flags & 8 != 0,
            retain: flags & 16 != 0,
            exactly_once: flags & 32 != 0,
            body_kind: BodyKind::from_bits(flags & 7)?,
        };
        Some((facts, rest))
    }
}

macro_rules! tags {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal;)+) => {
        /// Which field; the numbers are part of the stored format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Tag { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Tag {
            fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

tags! {
    /// Where it was sent ([`Destination::encode`]). Written by the broker, first.
    Destination = 1;
    /// Where it was first sent, if a routing rule or a move changed that: dotted qualified text, may be composite.
    OriginalDestination = 2;
    /// Where a reply should go ([`Destination::encode`]).
    ReplyTo = 3;
    /// A reply-to that names no destination of ours: text to be echoed as it came.
    ReplyToText = 4;
    /// Correlation id as text.
    CorrelationText = 5;
    /// Correlation id as octets.
    CorrelationBytes = 6;
    /// Type or subject.
    Type = 7;
    /// Content type.
    ContentType = 8;
    /// Content encoding.
    ContentEncoding = 9;
    /// Message group.
    GroupId = 10;
    /// Sequence within the group: four bytes, little endian, signed.
    GroupSequence = 11;
    /// The sender's verified identity; written by the broker only.
    UserId = 12;
    /// Not to be delivered before: eight bytes, little endian, milliseconds.
    DeliveryTime = 13;
    /// The sender's id for duplicate detection.
    DedupId = 14;
    /// Trace context.
    TraceContext = 15;
    /// A message id the sender gave.
    SenderMessageId = 16;
    /// Application id.
    AppId = 17;
    /// A property with a text value: varint length of the name, name, value.
    TextProperty = 32;
    /// A property with any value: varint length of the name, name, encoded value.
    Property = 33;
}

/// Writes fields in their stored form: tag, varint length, bytes.
#[derive(Debug, Default, Clone)]
pub struct FieldsWriter {
    bytes: Vec<u8>,
}

impl FieldsWriter {
    /// An empty writer; reuse one per session.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, keeping a modest buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(64 * 1024);
    }

    /// What has been written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends one field of plain bytes. Text fields must be UTF-8.
    pub fn field(&mut self, tag: Tag, value: &[u8]) {
        self.bytes.push(tag as u8);
        varint::write(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Appends a destination field.
    pub fn destination(&mut self, tag: Tag, destination: &Destination) {
        self.bytes.push(tag as u8);
        varint::write(&mut self.bytes, destination.canonical().len() as u64 + 1);
        destination.encode(&mut self.bytes);
    }

    /// Appends the group's sequence number.
    pub fn group_sequence(&mut self, sequence: i32) {
        self.field(Tag::GroupSequence, &sequence.to_le_bytes());
    }

    /// Appends the earliest delivery time.
    pub fn delivery_time(&mut self, time: Timestamp) {
        self.field(Tag::DeliveryTime, &time.0.to_le_bytes());
    }

    /// Appends a property whose value is text.
    pub fn text_property(&mut self, name: &str, value: &str) {
        self.bytes.push(Tag::TextProperty as u8);
        let inner = varint_len(name.len() as u64) + name.len() + value.len();
        varint::write(&mut self.bytes, inner as u64);
        varint::write(&mut self.bytes, name.len() as u64);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
    }

    /// Appends a property of any type.
    pub fn property(&mut self, name: &str, value: &ValueRef<'_>) {
        if let ValueRef::Str(text) = value {
            return self.text_property(name, text);
        }
        let mut inner = Vec::with_capacity(name.len() + 16);
        varint::write(&mut inner, name.len() as u64);
        inner.extend_from_slice(name.as_bytes());
        value.encode(&mut inner);
        self.field(Tag::Property, &inner);
    }

    /// Appends fields that are encoded already.
    pub fn raw(&mut self, fields: &[u8]) {
        self.bytes.extend_from_slice(fields);
    }
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// One decoded field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// A property: name and value.
    Property(&'a str, ValueRef<'a>),
    /// Any other field, as stored.
    Plain(Tag, &'a [u8]),
}

/// Iterates over encoded fields in their order. Ends early at bytes that are no field.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Over `bytes` as [`FieldsWriter`] wrote them.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn split(&mut self) -> Option<(Tag, &'a [u8])> {
        let (&tag, rest) = self.rest.split_first()?;
        let (len, used) = varint::read(rest)?;
        let body = rest.get(used..)?;
        let (value, rest) = body.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some((Tag::from_number(tag)?, value))
    }

    /// The first field with this tag, as stored.
    #[must_use]
    pub fn find(mut self, wanted: Tag) -> Option<&'a [u8]> {
        while let Some((tag, value)) = self.split() {
            if tag == wanted {
                return Some(value);
            }
        }
        None
    }

    /// The first field with this tag, as text.
    #[must_use]
    pub fn find_text(self, wanted: Tag) -> Option<&'a str> {
        std::str::from_utf8(self.find(wanted)?).ok()
    }

    /// The value of the first property of this name.
    #[must_use]
    pub fn find_property(self, wanted: &str) -> Option<ValueRef<'a>> {
        self.into_iter().find_map(|field| match field {
            Field::Property(name, value) if name == wanted => Some(value),
            _ => None,
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (tag, value) = self.split()?;
        match tag {
            Tag::TextProperty | Tag::Property => {
                let (len, used) = varint::read(value)?;
                let (name, rest) = value.get(used..)?.split_at_checked(usize::try_from(len).ok()?)?;
                let name = std::str::from_utf8(name).ok()?;
                let value = if tag == Tag::TextProperty {
                    ValueRef::Str(std::str::from_utf8(rest).ok()?)
                } else {
                    ValueRef::decode(rest)?.0
                };
                Some(Field::Property(name, value))
            }
            _ => Some(Field::Plain(tag, value)),
        }
    }
}

struct Fixed {
    facts: Facts,
    fields_len: u32,
    /// A large body; a small one follows the fields.
    body: Option<Box<Large>>,
}

enum Large {
    Shared(Bytes),
    Stored(Stored),
}

/// An immutable message, cheap to clone.
#[derive(Clone)]
pub struct Message(ThinArc<Fixed, u8>);

/// What the handle of a stored body takes, about.
const STORED_BYTES: usize = 256;

thread_local! {
    // Where fields and body are joined before the one allocation is filled from them.
    static JOIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Message {
    /// Builds a message. `fields` are several encoded runs that are joined in order.
    #[must_use]
    pub fn new(facts: Facts, fields: &[&[u8]], body: Body<'_>) -> Self {
        let large = body.length() >= REFERENCE_BYTES_MIN as u64;
        JOIN.with(|join| {
            let mut join = join.borrow_mut();
            join.clear();
            for run in fields {
                join.extend_from_slice(run);
            }
            let fields_len = u32::try_from(join.len()).unwrap_or(u32::MAX);
            let kept = match (large, body) {
                (_, Body::Stored(stored)) => Some(Box::new(Large::Stored(stored))),
                (true, Body::Shared(bytes)) => Some(Box::new(Large::Shared(bytes))),
                (true, Body::Borrowed(bytes)) => Some(Box::new(Large::Shared(Bytes::copy_from_slice(bytes)))),
                (false, Body::Shared(bytes)) => {
                    join.extend_from_slice(&bytes);
                    None
                }
                (false, Body::Borrowed(bytes)) => {
                    join.extend_from_slice(bytes);
                    None
                }
            };
            let fixed = Fixed { facts, fields_len, body: kept };
            let message = Self(ThinArc::from_header_and_slice(fixed, &join));
            join.shrink_to(64 * 1024);
            message
        })
    }

    /// The parts of fixed size.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.0.header.header.facts
    }

    /// The encoded fields, as the log stores them.
    #[must_use]
    pub fn field_bytes(&self) -> &[u8] {
        self.0.slice.get(..self.0.header.header.fields_len as usize).unwrap_or_default()
    }

    /// The fields in order.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(self.field_bytes())
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Content<'_> {
        match self.0.header.header.body.as_deref() {
            Some(Large::Shared(shared)) => Content::Octets(shared),
            Some(Large::Stored(stored)) => Content::Stored(stored),
            None => Content::Octets(
                self.0.slice.get(self.0.header.header.fields_len as usize..).unwrap_or_default(),
            ),
        }
    }

    /// The body as a shared buffer, if it is large enough to have one and in memory.
    #[must_use]
    pub fn shared_body(&self) -> Option<&Bytes> {
        match self.0.header.header.body.as_deref()? {
            Large::Shared(shared) => Some(shared),
            Large::Stored(_) => None,
        }
    }

    /// The body that is not in memory, if it is not.
    #[must_use]
    pub fn stored_body(&self) -> Option<&Stored> {
        match self.0.header.header.body.as_deref()? {
            Large::Stored(stored) => Some(stored),
            Large::Shared(_) => None,
        }
    }

    /// Whether the body is small: in memory, and copied where it goes.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.0.header.header.body.is_none()
    }

    /// The body, to make another message of.
    #[must_use]
    pub fn same_body(&self) -> Body<'_> {
        match self.0.header.header.body.as_deref() {
            Some(Large::Shared(shared)) => Body::Shared(shared.clone()),
            Some(Large::Stored(stored)) => Body::Stored(stored.clone()),
            None => Body::Borrowed(
                self.0.slice.get(self.0.header.header.fields_len as usize..).unwrap_or_default(),
            ),
        }
    }

    /// Where it was sent.
    #[must_use]
    pub fn destination(&self) -> Option<DestinationRef<'_>> {
        DestinationRef::decode(self.fields().find(Tag::Destination)?)
    }

    /// The JMS message id: the sender's own, else the broker's.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.facts().id
    }

    /// The message with its body in memory, for a form that must have it whole. This may wait for a disk.
    ///
    /// # Errors
    /// The body is not in memory and longer than `most`, or cannot be read.
    pub fn loaded(&self, most: usize) -> io::Result<Self> {
        match self.stored_body() {
            None => Ok(self.clone()),
            Some(stored) => {
                let body = Body::Shared(stored.read_whole(most)?);
                Ok(Self::new(*self.facts(), &[self.field_bytes()], body))
            }
        }
    }

    /// Bytes of memory this message accounts for.
    #[must_use]
    pub fn memory(&self) -> usize {
        const OVERHEAD: usize = size_of::<Fixed>() + 2 * size_of::<usize>();
        let large = match self.0.header.header.body.as_deref() {
            None => 0,
            Some(Large::Shared(body)) => body.len() + size_of::<Large>() + 32,
            Some(Large::Stored(_)) => size_of::<Large>() + STORED_BYTES,
        };
        OVERHEAD + self.0.slice.len() + large
    }

    /// Bytes this message accounts for wherever they lie: its memory, and a body that is not in memory.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.memory() as u64 + self.stored_body().map_or(0, Stored::length)
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("facts", self.facts())
            .field("fields", &self.fields().collect::<Vec<_>>())
            .field("body_len", &self.body().length())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn fields_keep_order_duplicates_and_bodies_of_any_size() {
        let mut writer = FieldsWriter::new();
        writer.destination(Tag::Destination, &Destination::queue("a.b"));
        writer.text_property("x", "1");
        writer.text_property("x", "2");
        writer.group_sequence(-1);
        for size in [0, 1, REFERENCE_BYTES_MIN - 1, REFERENCE_BYTES_MIN, 100_000] {
            let body = vec![7; size];
            let facts =
                Facts { priority: 9, persistent: true, body_kind: BodyKind::Text, ..Facts::default() };
            let message = Message::new(facts, &[writer.as_slice()], Body::Borrowed(&body));
            assert_eq!(message.body().octets().unwrap(), body);
            assert_eq!(message.destination().unwrap().to_string(), "queue://a.b");
            let fields: Vec<_> = message.fields().skip(1).collect();
            assert_eq!(
                fields,
                [
                    Field::Property("x", ValueRef::Str("1")),
                    Field::Property("x", ValueRef::Str("2")),
                    Field::Plain(Tag::GroupSequence, &(-1i32).to_le_bytes()),
                ]
            );
            let stored = message.facts().encode();
            let (decoded, rest) = Facts::decode(&stored).unwrap();
            assert_eq!((decoded, rest.len()), (facts, 0));
        }
    }

    #[test]
    fn cut_fields_end_quietly() {
        let mut writer = FieldsWriter::new();
        writer.text_property("name", "value");
        for cut in 0..writer.as_slice().len() {
            assert_eq!(Fields::new(&writer.as_slice()[..cut]).count(), 0);
        }
    }

    #[test]
    fn a_stored_body_weighs_what_it_is_and_takes_no_memory() {
        let stored = Stored::new(std::sync::Arc::new(vec![7; 1 << 20]));
        let message = Message::new(Facts::default(), &[b"fields"], Body::Stored(stored.clone()));
        assert!(message.memory() < 1024, "{}", message.memory());
        assert_eq!(message.weight(), message.memory() as u64 + (1 << 20));
        assert_eq!((message.body().length(), message.body().octets()), (1 << 20, None));
        assert_eq!((message.stored_body(), message.is_small()), (Some(&stored), false));
        assert!(matches!(message.same_body(), Body::Stored(same) if same == stored));
        assert!(size_of::<Large>() <= size_of::<Bytes>(), "{}", size_of::<Large>());
    }

    #[test]
    fn a_small_message_is_small() {
        let message = Message::new(Facts::default(), &[&[0; 40]], Body::Borrowed(&[0; 64]));
        assert!(message.memory() <= 184, "{}", message.memory());
    }
}
