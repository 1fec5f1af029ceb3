//! Packets of every version, in both directions. Each kind has a struct that borrows the bytes it was read from, and a
//! file that reads and writes it; `frame` cuts them out of a stream.
//!
//! Bytes are judged here as far as one packet alone can be. A packet's side (clients send no CONNACK) is judged on
//! request: [`Packet::check_from_client`], [`Packet::check_from_server`].

mod ack;
mod connack;
mod connect;
mod disconnect;
mod frame;
mod properties;
mod publish;
mod read;
mod sides;
mod suback;
mod subscribe;
mod write;

use std::num::NonZeroU16;

use crate::error::{DecodeError, EncodeError};
use crate::version::Version;

pub use self::ack::{Ack, AckKind, put_ack};
pub use self::connack::{Connack, ConnackProperties};
pub use self::connect::{Connect, ConnectProperties, Will};
pub use self::disconnect::{Auth, Disconnect};
pub use self::frame::{Frame, Progress, VARINT_MAX, frame};
pub use self::properties::{
    Diagnostics, MessageProperties, SubscriptionIds, UserProperties, UserPropertiesBuffer,
};
pub use self::publish::{Publish, publish_head_bytes};
pub use self::suback::{Suback, Unsuback, put_suback};
pub use self::subscribe::{
    Filters, RetainHandling, Subscribe, SubscribeOptions, Subscription, Subscriptions, Unsubscribe,
};

/// A packet identifier: never zero [5: 2.2.1-3] [3: 2.3.1-1].
pub type PacketId = NonZeroU16;

/// How often a message may arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// Once or never.
    #[default]
    AtMostOnce = 0,
    /// Once or more often.
    AtLeastOnce = 1,
    /// Once.
    ExactlyOnce = 2,
}

impl Qos {
    /// 0, 1 or 2.
    #[must_use]
    pub const fn level(self) -> u8 {
        self as u8
    }

    /// The QoS of this level.
    #[must_use]
    pub const fn from_level(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// The kinds of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the specification's names")]
pub enum Kind {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl Kind {
    /// Every kind, in ascending order.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Pingreq,
        Self::Pingresp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The kind with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// Its name in the specification.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }

    /// The lower four bits of its first byte; PUBLISH has a use for them.
    pub(crate) const fn flags(self) -> u8 {
        match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// Its first byte; without the flags of PUBLISH.
    pub(crate) const fn first(self) -> u8 {
        ((self as u8) << 4) | self.flags()
    }
}

/// A packet of any kind. It lives on the stack: nothing is allocated to read one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT.
    Connect(Connect<'a>),
    /// CONNACK.
    Connack(Connack<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// SUBACK.
    Suback(Suback<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// UNSUBACK.
    Unsuback(Unsuback<'a>),
    /// PINGREQ.
    Pingreq,
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

/// PINGREQ as bytes.
pub const PINGREQ: [u8; 2] = [0xc0, 0];
/// PINGRESP as bytes.
pub const PINGRESP: [u8; 2] = [0xd0, 0];

/// Reads a packet in place. A CONNECT says itself which version it is of.
///
/// Whoever knows the kind may call the `decode` of its struct and spare the move of a large enum.
///
/// # Errors
/// It breaks the rules of its kind.
#[inline]
pub fn decode<'a>(frame: &Frame<'a>, version: Version) -> Result<Packet<'a>, DecodeError> {
    if frame.kind != Kind::Publish {
        return decode_other(frame, version);
    }
    Publish::decode(frame, version).map(Packet::Publish)
}

fn decode_other<'a>(frame: &Frame<'a>, version: Version) -> Result<Packet<'a>, DecodeError> {
    Ok(match frame.kind {
        Kind::Connect => Packet::Connect(Connect::decode(frame)?),
        Kind::Connack => Packet::Connack(Connack::decode(frame, version)?),
        Kind::Publish => Packet::Publish(Publish::decode(frame, version)?),
        Kind::Puback => Packet::Ack(Ack::decode(AckKind::Puback, frame, version)?),
        Kind::Pubrec => Packet::Ack(Ack::decode(AckKind::Pubrec, frame, version)?),
        Kind::Pubrel => Packet::Ack(Ack::decode(AckKind::Pubrel, frame, version)?),
        Kind::Pubcomp => Packet::Ack(Ack::decode(AckKind::Pubcomp, frame, version)?),
        Kind::Subscribe => Packet::Subscribe(Subscribe::decode(frame, version)?),
        Kind::Suback => Packet::Suback(Suback::decode(frame, version)?),
        Kind::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(frame, version)?),
        Kind::Unsuback => Packet::Unsuback(Unsuback::decode(frame, version)?),
        Kind::Pingreq => ping(frame, Packet::Pingreq)?,
        Kind::Pingresp => ping(frame, Packet::Pingresp)?,
        Kind::Disconnect => Packet::Disconnect(Disconnect::decode(frame, version)?),
        Kind::Auth => Packet::Auth(Auth::decode(frame)?),
    })
}

fn ping<'a>(frame: &Frame<'a>, packet: Packet<'a>) -> Result<Packet<'a>, DecodeError> {
    if frame.body.is_empty() { Ok(packet) } else { Err(DecodeError::malformed("a ping has a body")) }
}

/// A packet id that is not zero [5: 2.2.1-3] [3: 2.3.1-1].
fn packet_id(body: &mut read::Reader<'_>) -> Result<PacketId, DecodeError> {
    PacketId::new(body.u16()?).ok_or(DecodeError::protocol("a packet identifier is 0"))
}

impl Packet<'_> {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Connect(_) => Kind::Connect,
            Self::Connack(_) => Kind::Connack,
            Self::Publish(_) => Kind::Publish,
            Self::Ack(ack) => ack.kind.kind(),
            Self::Subscribe(_) => Kind::Subscribe,
            Self::Suback(_) => Kind::Suback,
            Self::Unsubscribe(_) => Kind::Unsubscribe,
            Self::Unsuback(_) => Kind::Unsuback,
            Self::Pingreq => Kind::Pingreq,
            Self::Pingresp => Kind::Pingresp,
            Self::Disconnect(_) => Kind::Disconnect,
            Self::Auth(_) => Kind::Auth,
        }
    }

    /// Appends the packet as `version` writes it; what the version has no place for is left out. A CONNECT says itself
    /// which version it is of.
    ///
    /// # Errors
    /// The packet cannot be written: a field is too long, or what it needs is missing. Nothing is appended.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(packet) => packet.encode(version, out),
            Self::Connack(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::Ack(packet) => packet.encode(version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::Suback(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::Unsuback(packet) => packet.encode(version, out),
            Self::Pingreq => {
                out.extend_from_slice(&PINGREQ);
                Ok(())
            }
            Self::Pingresp => {
                out.extend_from_slice(&PINGRESP);
                Ok(())
            }
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }
}
