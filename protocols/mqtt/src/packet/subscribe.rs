//! SUBSCRIBE and UNSUBSCRIBE: lists of filters, read again each time somebody goes through them.
//!
//! That a filter is one (its wildcards, its `$share`) is left to `filter`: a server may answer with a code instead of
//! hanging up.

use std::fmt;

use crate::error::DecodeError;
use crate::packet::properties::{Block, UserProperties, id, once, put_subscription_id};
use crate::packet::read::Reader;
use crate::packet::write::{self, Body, Sink, encodes, put_block};
use crate::packet::{Frame, Kind, PacketId, Qos, packet_id};
use crate::version::Version;

/// What a new subscription gets of the messages that were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// All, each time.
    #[default]
    Always,
    /// All, unless it was there already.
    IfNew,
    /// None.
    Never,
}

/// How a client wants to be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// At most this.
    pub qos: Qos,
    /// Nothing that the client has sent itself. Version 5.
    pub no_local: bool,
    /// The retain flag stays as it was published. Version 5.
    pub retain_as_published: bool,
    /// About messages that were kept. Version 5.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// Plain options with this QoS.
    #[must_use]
    pub const fn qos(qos: Qos) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::Always }
    }

    /// As a byte of SUBSCRIBE.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        let handling = match self.retain_handling {
            RetainHandling::Always => 0,
            RetainHandling::IfNew => 1,
            RetainHandling::Never => 2,
        };
        self.qos.level()
            | ((self.no_local as u8) << 2)
            | ((self.retain_as_published as u8) << 3)
            | (handling << 4)
    }

    /// Out of a byte of SUBSCRIBE.
    ///
    /// # Errors
    /// A reserved bit is set, or a value is reserved.
    pub const fn from_byte(byte: u8, version: Version) -> Result<Self, DecodeError> {
        let byte = match version {
            // The upper bits are unused.
            Version::V31 => byte & 3,
            // [3: 3.8.3-4]
            Version::V311 if byte & 0b1111_1100 != 0 => {
                return Err(DecodeError::malformed("a reserved bit is set in SUBSCRIBE"));
            }
            // [5: 3.8.3-5]
            Version::V5 if byte & 0b1100_0000 != 0 => {
                return Err(DecodeError::malformed("a reserved bit is set in SUBSCRIBE"));
            }
            _ => byte,
        };
        // 3.8.3.1 of version 5 calls both of these a protocol error.
        let Some(qos) = Qos::from_level(byte & 3) else {
            return Err(DecodeError::protocol("SUBSCRIBE asks for QoS 3"));
        };
        let retain_handling = match (byte >> 4) & 3 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(DecodeError::protocol("SUBSCRIBE asks for retain handling 3")),
        };
        Ok(Self { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
    }
}

/// One wish of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// What for: not empty.
    pub filter: &'a str,
    /// How.
    pub options: SubscribeOptions,
}

/// The wishes of a SUBSCRIBE, in order.
#[derive(Clone, Copy)]
pub struct Subscriptions<'a>(Source<'a, Subscription<'a>>);

/// The filters of an UNSUBSCRIBE, in order.
#[derive(Clone, Copy)]
pub struct Filters<'a>(Source<'a, &'a str>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    /// As they came, checked, in a packet of this version.
    Raw(&'a [u8], Version),
    Given(&'a [T]),
}

fn next_filter<'a>(rest: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let filter = rest.text()?;
    if filter.is_empty() {
        // [5: 4.7.3-1] [3: 4.7.3-1]
        return Err(DecodeError::malformed("a topic filter is empty"));
    }
    Ok(filter)
}

fn next_subscription<'a>(rest: &mut Reader<'a>, version: Version) -> Result<Subscription<'a>, DecodeError> {
    let filter = next_filter(rest)?;
    let options = SubscribeOptions::from_byte(rest.u8()?, version)?;
    if options.no_local && filter.starts_with("$share/") {
        // [5: 3.8.3-4]
        return Err(DecodeError::protocol("a shared subscription asks for no local messages"));
    }
    Ok(Subscription { filter, options })
}

impl<'a> Subscriptions<'a> {
    /// These.
    #[must_use]
    pub const fn new(subscriptions: &'a [Subscription<'a>]) -> Self {
        Self(Source::Given(subscriptions))
    }

    /// Goes through them.
    pub fn iter(&self) -> impl Iterator<Item = Subscription<'a>> + Clone + use<'a> {
        let (raw, version, given): (&[u8], _, &[Subscription<'a>]) = match self.0 {
            Source::Raw(raw, version) => (raw, version, &[]),
            Source::Given(given) => (&[], Version::V5, given),
        };
        let mut rest = Reader::new(raw);
        let raw = std::iter::from_fn(move || next_subscription(&mut rest, version).ok());
        given.iter().copied().chain(raw)
    }
}

impl<'a> Filters<'a> {
    /// These.
    #[must_use]
    pub const fn new(filters: &'a [&'a str]) -> Self {
        Self(Source::Given(filters))
    }

    /// Goes through them.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let (raw, given): (&[u8], &[&'a str]) = match self.0 {
            Source::Raw(raw, _) => (raw, &[]),
            Source::Given(given) => (&[], given),
        };
        let mut rest = Reader::new(raw);
        given.iter().copied().chain(std::iter::from_fn(move || next_filter(&mut rest).ok()))
    }
}

macro_rules! compares_as_a_list {
    ($list:ident) => {
        impl PartialEq for $list<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }

        impl Eq for $list<'_> {}

        impl fmt::Debug for $list<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }
    };
}

compares_as_a_list!(Subscriptions);
compares_as_a_list!(Filters);

/// SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// To be answered with.
    pub id: PacketId,
    /// Subscription Identifier: from 1 to 268435455.
    pub subscription_id: Option<u32>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// At least one.
    pub subscriptions: Subscriptions<'a>,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let id = packet_id(&mut body)?;
        let mut subscription_id = None;
        let mut user = UserProperties::NONE;
        if version.has_properties() {
            let mut block = Block::take(&mut body)?;
            while let Some(id) = block.next()? {
                match id {
                    id::SUBSCRIPTION_ID => {
                        let id = block.subscription_id()?;
                        once(&mut subscription_id, id)?;
                    }
                    id => block.other(id)?,
                }
            }
            user = block.user();
        }
        let raw = body.rest();
        if raw.is_empty() {
            // [5: 3.8.3-2] [3: 3.8.3-3]
            return Err(DecodeError::protocol("SUBSCRIBE holds no topic filter"));
        }
        while !body.is_empty() {
            next_subscription(&mut body, version)?;
        }
        Ok(Self { id, subscription_id, user, subscriptions: Subscriptions(Source::Raw(raw, version)) })
    }
}

impl write::Block for Subscribe<'_> {
    fn block<S: Sink>(&self, sink: &mut S) {
        put_subscription_id(sink, self.subscription_id);
        self.user.put(sink);
    }
}

impl Body for Subscribe<'_> {
    fn first(&self) -> u8 {
        Kind::Subscribe.first()
    }

    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.id.get());
        if version.has_properties() {
            put_block(sink, self);
        }
        let mut any = false;
        for Subscription { filter, options } in self.subscriptions.iter() {
            any = true;
            sink.text(filter);
            sink.u8(if version.has_properties() { options.to_byte() } else { options.qos.level() });
        }
        if !any {
            sink.refuse("SUBSCRIBE holds no topic filter");
        }
    }
}

encodes!(Subscribe<'_>);

/// UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// To be answered with.
    pub id: PacketId,
    /// User properties.
    pub user: UserProperties<'a>,
    /// At least one.
    pub filters: Filters<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let id = packet_id(&mut body)?;
        let mut user = UserProperties::NONE;
        if version.has_properties() {
            let mut block = Block::take(&mut body)?;
            while let Some(id) = block.next()? {
                block.other(id)?;
            }
            user = block.user();
        }
        let raw = body.rest();
        if raw.is_empty() {
            // [5: 3.10.3-2] [3: 3.10.3-2]
            return Err(DecodeError::protocol("UNSUBSCRIBE holds no topic filter"));
        }
        while !body.is_empty() {
            next_filter(&mut body)?;
        }
        Ok(Self { id, user, filters: Filters(Source::Raw(raw, version)) })
    }
}

impl write::Block for UserProperties<'_> {
    fn block<S: Sink>(&self, sink: &mut S) {
        self.put(sink);
    }
}

impl Body for Unsubscribe<'_> {
    fn first(&self) -> u8 {
        Kind::Unsubscribe.first()
    }

    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.id.get());
        if version.has_properties() {
            put_block(sink, &self.user);
        }
        let mut any = false;
        for filter in self.filters.iter() {
            any = true;
            sink.text(filter);
        }
        if !any {
            sink.refuse("UNSUBSCRIBE holds no topic filter");
        }
    }
}

encodes!(Unsubscribe<'_>);
