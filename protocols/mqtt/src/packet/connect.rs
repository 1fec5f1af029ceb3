//! CONNECT: who speaks, in which version, and what is said of them when they are gone.

use crate::error::DecodeError;
use crate::packet::properties::{Block, MessageProperties, UserProperties, id, not_zero};
use crate::packet::read::Reader;
use crate::packet::write::{
    self, Body, Sink, encodes, put_binary, put_block, put_flag, put_text, put_u16, put_u32,
};
use crate::packet::{Frame, Kind, Qos};
use crate::reason::Reason;
use crate::version::Version;

/// CONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version it speaks; its own version is also the one it is written in.
    pub version: Version,
    /// Clean Start; before version 5 Clean Session.
    pub clean_start: bool,
    /// Keep Alive; zero for never.
    pub keep_alive_s: u16,
    /// CONNECT's own properties.
    pub properties: ConnectProperties<'a>,
    /// The client id. Empty if the server is to choose one, which 3.1 does not know.
    pub client_id: &'a str,
    /// What to send when the client is lost.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
}

/// The properties of CONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Session Expiry Interval: how long the session outlives the connection.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum: not zero.
    pub receive_max: Option<u16>,
    /// Maximum Packet Size: not zero.
    pub packet_bytes_max: Option<u32>,
    /// Topic Alias Maximum.
    pub topic_alias_max: Option<u16>,
    /// Request Response Information; false if absent.
    pub request_response_information: Option<bool>,
    /// Request Problem Information; true if absent.
    pub request_problem_information: Option<bool>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data: only with a method.
    pub authentication_data: Option<&'a [u8]>,
    /// User properties.
    pub user: UserProperties<'a>,
}

/// A message to be sent when the client is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Will<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The message itself.
    pub payload: &'a [u8],
    /// How often it may arrive.
    pub qos: Qos,
    /// Whether it is kept.
    pub retain: bool,
    /// Will Delay Interval; zero if absent.
    pub delay_s: Option<u32>,
    /// What travels with it.
    pub properties: MessageProperties<'a>,
}

const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

impl<'a> Connect<'a> {
    /// The version in which a refusal of this CONNECT is to be written, if there is one that its sender may
    /// understand. For a name that is none of ours there is not: the connection is just closed [5: 3.1.2-1]
    /// [3: 3.1.2-1].
    #[must_use]
    pub fn answer_version(frame: &Frame<'_>) -> Option<Version> {
        let mut body = Reader::new(frame.body);
        match (body.binary().ok()?, body.u8().ok()?) {
            (b"MQTT", 5..) => Some(Version::V5),
            (b"MQTT", _) => Some(Version::V311),
            (b"MQIsdp", _) => Some(Version::V31),
            _ => None,
        }
    }

    /// Reads it in place.
    ///
    /// # Errors
    /// It breaks the rules of CONNECT. [`Self::answer_version`] says how to answer.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let name = body.text()?;
        let level = body.u8()?;
        let Some(version) = Version::of(name, level) else {
            // [5: 3.1.2-1, 3.1.2-2] [3: 3.1.2-1, 3.1.2-2]
            return Err(DecodeError {
                reason: Reason::UnsupportedProtocolVersion,
                what: "the protocol name and level are those of no version",
            });
        };
        // [5: 1.5.5-1]
        if version == Version::V5 && !frame.is_minimal() {
            return Err(DecodeError::malformed("the remaining length takes more bytes than it needs"));
        }
        let flags = body.u8()?;
        judge_flags(flags, version)?;
        let mut connect = Self {
            version,
            clean_start: flags & CLEAN_START != 0,
            keep_alive_s: body.u16()?,
            ..Self::default()
        };
        if version.has_properties() {
            connect.properties = ConnectProperties::take(&mut body)?;
        }
        // [5: 3.1.3-3] [3: 3.1.3-3]
        connect.client_id = body.text()?;
        judge_client_id(&connect)?;
        if flags & WILL != 0 {
            connect.will = Some(Will::take(&mut body, flags, version)?);
        }
        // 3.1: the length of the packet takes precedence over the flags, so what is announced may be missing.
        let is_there = |body: &Reader<'_>| version != Version::V31 || !body.is_empty();
        // [5: 3.1.2-16, 3.1.2-17] [3: 3.1.2-18, 3.1.2-19]
        if flags & USERNAME != 0 && is_there(&body) {
            connect.username = Some(body.text()?);
        }
        // [5: 3.1.2-18, 3.1.2-19] [3: 3.1.2-20, 3.1.2-21]
        if flags & PASSWORD != 0 && is_there(&body) {
            connect.password = Some(body.binary()?);
        }
        body.end()?;
        Ok(connect)
    }
}

fn judge_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // What 3.1 does not use it does not forbid either.
    if version == Version::V31 {
        return if flags & WILL != 0 { judge_will_qos(flags) } else { Ok(()) };
    }
    if flags & RESERVED != 0 {
        // [5: 3.1.2-3] [3: 3.1.2-3]
        return Err(DecodeError::malformed("the reserved flag of CONNECT is set"));
    }
    if flags & WILL == 0 && flags & 0b0011_1000 != 0 {
        // [5: 3.1.2-11, 3.1.2-13] [3: 3.1.2-13, 3.1.2-15]
        return Err(DecodeError::malformed("there is no will, but a QoS or retain flag for it"));
    }
    if version == Version::V311 && flags & (USERNAME | PASSWORD) == PASSWORD {
        // [3: 3.1.2-22]
        return Err(DecodeError::malformed("there is a password but no user name"));
    }
    judge_will_qos(flags)
}

fn judge_will_qos(flags: u8) -> Result<(), DecodeError> {
    // [5: 3.1.2-12] [3: 3.1.2-14]
    if flags & 0b0001_1000 == 0b0001_1000 {
        return Err(DecodeError::malformed("the will asks for QoS 3"));
    }
    Ok(())
}

fn judge_client_id(connect: &Connect<'_>) -> Result<(), DecodeError> {
    let refused = |what| Err(DecodeError { reason: Reason::ClientIdentifierNotValid, what });
    match connect.version {
        _ if !connect.client_id.is_empty() => Ok(()),
        Version::V31 => refused("the client id is empty"),
        // [3: 3.1.3-7, 3.1.3-8]
        Version::V311 if !connect.clean_start => {
            refused("the client id is empty but the session is to be kept")
        }
        // [5: 3.1.3-6]
        Version::V311 | Version::V5 => Ok(()),
    }
}

impl<'a> ConnectProperties<'a> {
    fn take(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = Block::take(body)?;
        let mut found = Self::default();
        while let Some(id) = block.next()? {
            match id {
                id::SESSION_EXPIRY => block.u32(&mut found.session_expiry_s)?,
                id::RECEIVE_MAXIMUM => block.u16(&mut found.receive_max)?,
                id::MAXIMUM_PACKET_SIZE => block.u32(&mut found.packet_bytes_max)?,
                id::TOPIC_ALIAS_MAXIMUM => block.u16(&mut found.topic_alias_max)?,
                id::REQUEST_RESPONSE_INFORMATION => block.flag(&mut found.request_response_information)?,
                id::REQUEST_PROBLEM_INFORMATION => block.flag(&mut found.request_problem_information)?,
                id::AUTH_METHOD => block.text(&mut found.authentication_method)?,
                id::AUTH_DATA => block.binary(&mut found.authentication_data)?,
                id => block.other(id)?,
            }
        }
        found.user = block.user();
        // 3.1.2.11.3, 3.1.2.11.4
        not_zero(found.receive_max, "the receive maximum is 0")?;
        not_zero(found.packet_bytes_max, "the maximum packet size is 0")?;
        // 3.1.2.11.10
        if found.authentication_data.is_some() && found.authentication_method.is_none() {
            return Err(DecodeError::protocol("there are authentication data but no method"));
        }
        Ok(found)
    }
}

impl write::Block for ConnectProperties<'_> {
    fn block<S: Sink>(&self, sink: &mut S) {
        put_u32(sink, id::SESSION_EXPIRY, self.session_expiry_s);
        put_u16(sink, id::RECEIVE_MAXIMUM, self.receive_max);
        put_u32(sink, id::MAXIMUM_PACKET_SIZE, self.packet_bytes_max);
        put_u16(sink, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_max);
        put_flag(sink, id::REQUEST_RESPONSE_INFORMATION, self.request_response_information);
        put_flag(sink, id::REQUEST_PROBLEM_INFORMATION, self.request_problem_information);
        put_text(sink, id::AUTH_METHOD, self.authentication_method);
        put_binary(sink, id::AUTH_DATA, self.authentication_data);
        self.user.put(sink);
    }
}

impl<'a> Will<'a> {
    fn take(body: &mut Reader<'a>, flags: u8, version: Version) -> Result<Self, DecodeError> {
        let mut will = Self {
            qos: Qos::from_level((flags >> 3) & 3).unwrap_or_default(),
            retain: flags & WILL_RETAIN != 0,
            ..Self::default()
        };
        if version.has_properties() {
            let mut block = Block::take(body)?;
            while let Some(id) = block.next()? {
                match id {
                    id::WILL_DELAY => block.u32(&mut will.delay_s)?,
                    id => will.properties.read(id, &mut block)?,
                }
            }
            will.properties.user = block.user();
        }
        // [5: 3.1.3-11] [3: 3.1.3-10]
        let (topic, is_plain) = body.name()?;
        if topic.is_empty() {
            // [5: 4.7.3-1] [3: 4.7.3-1]
            return Err(DecodeError::topic("the topic name of the will is empty"));
        }
        if !is_plain {
            // [5: 4.7.0-1] [3: 4.7.1-1]
            return Err(DecodeError::topic("the topic name of the will holds a wildcard"));
        }
        will.topic = topic;
        will.payload = body.binary()?;
        Ok(will)
    }
}

impl write::Block for Will<'_> {
    fn block<S: Sink>(&self, sink: &mut S) {
        put_u32(sink, id::WILL_DELAY, self.delay_s);
        self.properties.put(sink);
    }
}

impl Body for Connect<'_> {
    fn first(&self) -> u8 {
        Kind::Connect.first()
    }

    fn body<S: Sink>(&self, _version: Version, sink: &mut S) {
        let has_properties = self.version.has_properties();
        sink.text(self.version.name());
        sink.u8(self.version.level());
        let flag = |given: bool, flag: u8| if given { flag } else { 0 };
        let will =
            self.will.map_or(0, |will| WILL | (will.qos.level() << 3) | flag(will.retain, WILL_RETAIN));
        sink.u8(flag(self.clean_start, CLEAN_START)
            | will
            | flag(self.username.is_some(), USERNAME)
            | flag(self.password.is_some(), PASSWORD));
        sink.u16(self.keep_alive_s);
        if has_properties {
            put_block(sink, &self.properties);
        }
        sink.text(self.client_id);
        if let Some(will) = &self.will {
            if has_properties {
                put_block(sink, will);
            }
            sink.text(will.topic);
            sink.binary(will.payload);
        }
        if let Some(username) = self.username {
            sink.text(username);
        }
        if let Some(password) = self.password {
            sink.binary(password);
        }
    }
}

encodes!(Connect<'_>);
