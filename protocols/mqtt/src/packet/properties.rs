//! Properties of MQTT 5: read in one pass into the fields of a packet. What may come more than once stays where it is
//! and is read again when somebody asks.

use std::fmt;

use crate::error::DecodeError;
use crate::packet::frame::VARINT_MAX;
use crate::packet::read::Reader;
use crate::packet::write::{Sink, put_binary, put_flag, put_text, put_u32};

/// Property identifiers (2.2.2.2).
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTH_METHOD: u8 = 0x15;
    pub(crate) const AUTH_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1c;
    pub(crate) const REASON_STRING: u8 = 0x1f;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2a;
}

/// The properties of a packet while they are read: ask for the next identifier, then for its value.
pub(crate) struct Block<'a> {
    all: &'a [u8],
    rest: Reader<'a>,
    user: UserProperties<'a>,
    /// Bytes before the first user property, and before the end of the last one.
    user_span: (usize, usize),
}

impl<'a> Block<'a> {
    /// Takes the properties off the front of `body`.
    #[inline]
    pub(crate) fn take(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        // [5: 2.2.2-1] The length is there even if there are none.
        let bytes = body.varint()?;
        let all = body.take(bytes as usize)?;
        Ok(Self { all, rest: Reader::new(all), user: UserProperties::NONE, user_span: (0, 0) })
    }

    /// The identifier of the next property. They are variable byte integers, but none takes two bytes.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<u8>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.rest.u8().map(Some)
    }

    /// What a packet does not know by name: a user property, or one that has no place in it.
    pub(crate) fn other(&mut self, id: u8) -> Result<(), DecodeError> {
        if id != id::USER_PROPERTY {
            // 2.2.2.2: an identifier that is not valid for its packet.
            return Err(DecodeError::malformed(if skip(id, &mut self.rest).is_some() {
                "a property has no place in this packet"
            } else {
                "a property has an unknown identifier"
            }));
        }
        let begin = self.all.len() - self.rest.rest().len() - 1;
        self.rest.text()?;
        self.rest.text()?;
        let end = self.all.len() - self.rest.rest().len();
        if self.user.bytes == 0 {
            self.user_span.0 = begin;
        }
        self.user_span.1 = end;
        self.user.bytes += end - begin;
        Ok(())
    }

    /// The user properties among those that were read.
    pub(crate) fn user(&self) -> UserProperties<'a> {
        if self.user.bytes == 0 {
            return UserProperties::NONE;
        }
        let raw = self.all.get(self.user_span.0..self.user_span.1).unwrap_or_default();
        UserProperties { raw, bytes: self.user.bytes }
    }

    /// The bytes of all of them.
    pub(crate) fn all(&self) -> &'a [u8] {
        self.all
    }

    pub(crate) fn flag(&mut self, slot: &mut Option<bool>) -> Result<(), DecodeError> {
        let value = match self.rest.u8()? {
            0 => false,
            1 => true,
            // 3.1.2.11.6, 3.1.2.11.7, 3.2.2.3.5 and the like.
            _ => return Err(DecodeError::protocol("a property that is 0 or 1 is neither")),
        };
        once(slot, value)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.rest.u8()
    }

    pub(crate) fn u16(&mut self, slot: &mut Option<u16>) -> Result<(), DecodeError> {
        let value = self.rest.u16()?;
        once(slot, value)
    }

    pub(crate) fn u32(&mut self, slot: &mut Option<u32>) -> Result<(), DecodeError> {
        let value = self.rest.u32()?;
        once(slot, value)
    }

    /// A subscription identifier.
    pub(crate) fn subscription_id(&mut self) -> Result<u32, DecodeError> {
        match self.rest.varint()? {
            // 3.8.2.1.2, 3.3.2.3.8
            0 => Err(DecodeError::protocol("a subscription identifier is 0")),
            id => Ok(id),
        }
    }

    pub(crate) fn text(&mut self, slot: &mut Option<&'a str>) -> Result<(), DecodeError> {
        let value = self.rest.text()?;
        once(slot, value)
    }

    pub(crate) fn binary(&mut self, slot: &mut Option<&'a [u8]>) -> Result<(), DecodeError> {
        let value = self.rest.binary()?;
        once(slot, value)
    }
}

/// Fills a slot that must be empty.
pub(crate) fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), DecodeError> {
    if slot.is_some() {
        // Said of each property in its own section, 3.1.2.11.2 for one.
        return Err(DecodeError::protocol("a property comes twice"));
    }
    *slot = Some(value);
    Ok(())
}

/// That a number is not zero where zero is forbidden (3.1.2.11.3, 3.1.2.11.4).
pub(crate) fn not_zero<T: Default + PartialEq>(
    slot: Option<T>,
    what: &'static str,
) -> Result<(), DecodeError> {
    if slot == Some(T::default()) { Err(DecodeError::protocol(what)) } else { Ok(()) }
}

/// Moves past the value of a property; `None` if there is no such property, or it is broken.
fn skip(id: u8, rest: &mut Reader<'_>) -> Option<()> {
    let done = match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::SUBSCRIPTION_IDS_AVAILABLE
        | id::SHARED_AVAILABLE => rest.take(1).map(drop),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            rest.take(2).map(drop)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => {
            rest.take(4).map(drop)
        }
        id::SUBSCRIPTION_ID => rest.varint().map(drop),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA
        | id::ASSIGNED_CLIENT_ID
        | id::AUTH_METHOD
        | id::AUTH_DATA
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => rest.binary().map(drop),
        id::USER_PROPERTY => rest.binary().and_then(|_| rest.binary()).map(drop),
        _ => return None,
    };
    done.ok()
}

/// User properties in their order, with whatever repeats (3.1.2.11.8).
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// Whole, valid properties; others may stand between them.
    raw: &'a [u8],
    /// Bytes of the user properties among them.
    bytes: usize,
}

impl<'a> UserProperties<'a> {
    /// None at all.
    pub const NONE: Self = Self { raw: &[], bytes: 0 };

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes they take in a packet.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.bytes
    }

    /// The pairs of name and value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let mut rest = Reader::new(if self.bytes == 0 { &[] } else { self.raw });
        std::iter::from_fn(move || {
            loop {
                match rest.u8().ok()? {
                    id::USER_PROPERTY => return Some((rest.text().ok()?, rest.text().ok()?)),
                    id => skip(id, &mut rest)?,
                }
            }
        })
    }

    #[inline]
    pub(crate) fn put<S: Sink>(&self, sink: &mut S) {
        if self.raw.len() == self.bytes {
            sink.put(self.raw);
            return;
        }
        for (name, value) in self.iter() {
            sink.u8(id::USER_PROPERTY);
            sink.text(name);
            sink.text(value);
        }
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// User properties that are being put together. Keep it and clear it: it keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct UserPropertiesBuffer {
    bytes: Vec<u8>,
}

impl UserPropertiesBuffer {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Adds a pair, if a packet can carry it: neither is longer than 65535 bytes nor holds U+0000. Says whether it did.
    pub fn push(&mut self, name: &str, value: &str) -> bool {
        let fits = |text: &str| text.len() <= 65_535 && memchr::memchr(0, text.as_bytes()).is_none();
        if !fits(name) || !fits(value) {
            return false;
        }
        self.bytes.push(id::USER_PROPERTY);
        self.bytes.text(name);
        self.bytes.text(value);
        true
    }

    /// Forgets all pairs.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The pairs, for a packet.
    #[must_use]
    pub fn get(&self) -> UserProperties<'_> {
        UserProperties { raw: &self.bytes, bytes: self.bytes.len() }
    }
}

/// The identifiers of the subscriptions that a PUBLISH is for (3.3.2.3.8).
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    first: Option<u32>,
    others: &'a [u32],
    /// Whole, valid properties of a packet that was read, if it has several.
    raw: &'a [u8],
}

impl<'a> SubscriptionIds<'a> {
    /// None at all.
    pub const NONE: Self = Self { first: None, others: &[], raw: &[] };

    /// One identifier, or none.
    #[must_use]
    pub const fn one(id: Option<u32>) -> Self {
        Self { first: id, others: &[], raw: &[] }
    }

    /// Several.
    #[must_use]
    pub const fn many(ids: &'a [u32]) -> Self {
        Self { first: None, others: ids, raw: &[] }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty() && self.raw.is_empty()
    }

    /// The identifiers, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        let mut rest = Reader::new(self.raw);
        let raw = std::iter::from_fn(move || {
            loop {
                match rest.u8().ok()? {
                    id::SUBSCRIPTION_ID => return rest.varint().ok(),
                    id => skip(id, &mut rest)?,
                }
            }
        });
        self.first.into_iter().chain(self.others.iter().copied()).chain(raw)
    }

    /// Adds the one that was read from `block`.
    pub(crate) fn add(&mut self, id: u32, block: &Block<'a>) {
        if self.first.is_none() && self.raw.is_empty() {
            self.first = Some(id);
        } else {
            self.first = None;
            self.raw = block.all();
        }
    }

    #[inline]
    pub(crate) fn put<S: Sink>(&self, sink: &mut S) {
        // One, several, or those of a packet that was read: never of two kinds at once.
        if self.first.is_some() {
            put_subscription_id(sink, self.first);
        } else if !self.is_empty() {
            self.iter().for_each(|id| put_subscription_id(sink, Some(id)));
        }
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[inline]
pub(crate) fn put_subscription_id<S: Sink>(sink: &mut S, id: Option<u32>) {
    let Some(id) = id else { return };
    if id == 0 || id > VARINT_MAX {
        sink.refuse("a subscription identifier is not from 1 to 268435455");
        return;
    }
    sink.u8(id::SUBSCRIPTION_ID);
    sink.varint(id);
}

/// The properties of a message, which travel with it unaltered. A will has them too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageProperties<'a> {
    /// Payload Format Indicator: whether the payload is UTF-8 text. Nobody has checked that it is.
    pub payload_is_text: Option<bool>,
    /// Message Expiry Interval.
    pub expiry_s: Option<u32>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Response Topic: without wildcards.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// User properties.
    pub user: UserProperties<'a>,
}

impl<'a> MessageProperties<'a> {
    /// Reads the property `id` of `block`, if it is one of a message.
    #[inline]
    pub(crate) fn read(&mut self, id: u8, block: &mut Block<'a>) -> Result<(), DecodeError> {
        match id {
            id::PAYLOAD_FORMAT => block.flag(&mut self.payload_is_text),
            id::MESSAGE_EXPIRY => block.u32(&mut self.expiry_s),
            id::CONTENT_TYPE => block.text(&mut self.content_type),
            id::RESPONSE_TOPIC => {
                block.text(&mut self.response_topic)?;
                let name = self.response_topic.unwrap_or_default();
                if memchr::memchr2(b'+', b'#', name.as_bytes()).is_some() {
                    // [5: 3.3.2-14]
                    return Err(DecodeError::protocol("the response topic holds a wildcard"));
                }
                if name.is_empty() {
                    // [5: 4.7.3-1]
                    return Err(DecodeError::protocol("the response topic is empty"));
                }
                Ok(())
            }
            id::CORRELATION_DATA => block.binary(&mut self.correlation_data),
            id => block.other(id),
        }
    }

    #[inline]
    pub(crate) fn put<S: Sink>(&self, sink: &mut S) {
        put_flag(sink, id::PAYLOAD_FORMAT, self.payload_is_text);
        put_u32(sink, id::MESSAGE_EXPIRY, self.expiry_s);
        put_text(sink, id::CONTENT_TYPE, self.content_type);
        put_text(sink, id::RESPONSE_TOPIC, self.response_topic);
        put_binary(sink, id::CORRELATION_DATA, self.correlation_data);
        self.user.put(sink);
    }
}

/// A reason string and user properties, which most answers may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics<'a> {
    /// Reason String: for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user: UserProperties<'a>,
}

impl<'a> Diagnostics<'a> {
    /// None.
    pub const NONE: Self = Self { reason_string: None, user: UserProperties::NONE };

    /// Takes properties off the front of `body` that are nothing else.
    pub(crate) fn take(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = Block::take(body)?;
        let mut found = Self::NONE;
        while let Some(id) = block.next()? {
            found.read(id, &mut block)?;
        }
        found.user = block.user();
        Ok(found)
    }

    /// Reads the property `id` of `block`, if it is one of these.
    pub(crate) fn read(&mut self, id: u8, block: &mut Block<'a>) -> Result<(), DecodeError> {
        match id {
            id::REASON_STRING => block.text(&mut self.reason_string),
            id => block.other(id),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user.is_empty()
    }
}

impl crate::packet::write::Block for Diagnostics<'_> {
    #[inline]
    fn block<S: Sink>(&self, sink: &mut S) {
        put_text(sink, id::REASON_STRING, self.reason_string);
        self.user.put(sink);
    }
}
