//! CONNACK: whether the client is let in, and on which terms.

use crate::error::DecodeError;
use crate::packet::ack::reason;
use crate::packet::properties::{Block, Diagnostics, id, not_zero, once};
use crate::packet::read::Reader;
use crate::packet::write::{
    self, Body, Sink, encodes, put_binary, put_block, put_flag, put_text, put_u16, put_u32,
};
use crate::packet::{Frame, Kind, Qos};
use crate::reason::Reason;
use crate::version::Version;

/// CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connack<'a> {
    /// Whether the server still had the client's session. Not written with a failure, nor in 3.1.
    pub session_present: bool,
    /// How it went. Before version 5 the return code that comes nearest is written.
    pub reason: Reason,
    /// The terms. Version 5.
    pub properties: ConnackProperties<'a>,
}

/// The properties of CONNACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnackProperties<'a> {
    /// Session Expiry Interval, if not what the client asked for.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum: not zero; 65535 if absent.
    pub receive_max: Option<u16>,
    /// Maximum QoS: 0 or 1; 2 if absent.
    pub qos_max: Option<Qos>,
    /// Retain Available; true if absent.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size: not zero.
    pub packet_bytes_max: Option<u32>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<&'a str>,
    /// Topic Alias Maximum; 0 if absent.
    pub topic_alias_max: Option<u16>,
    /// Wildcard Subscription Available; true if absent.
    pub wildcard_available: Option<bool>,
    /// Subscription Identifiers Available; true if absent.
    pub subscription_ids_available: Option<bool>,
    /// Shared Subscription Available; true if absent.
    pub shared_available: Option<bool>,
    /// Server Keep Alive.
    pub server_keep_alive_s: Option<u16>,
    /// Response Information.
    pub response_information: Option<&'a str>,
    /// Server Reference.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
    /// More about it.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> Connack<'a> {
    /// One without any terms.
    #[must_use]
    pub fn new(session_present: bool, reason: Reason) -> Self {
        Self { session_present, reason, properties: ConnackProperties::default() }
    }

    pub(crate) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let flags = body.u8()?;
        // [5: 3.2.2-1] [3: 3.2.2-1]; in 3.1 the byte is unused.
        if flags > 1 && version != Version::V31 {
            return Err(DecodeError::malformed("a reserved flag of CONNACK is set"));
        }
        let mut connack = Self::new(flags == 1 && version != Version::V31, Reason::Success);
        if version.has_properties() {
            // [5: 3.2.2-8]
            connack.reason = reason(&mut body, Kind::Connack)?;
            connack.properties = ConnackProperties::take(&mut body)?;
        } else {
            let Some(reason) = Reason::from_connack_return_code(body.u8()?) else {
                return Err(DecodeError::malformed("the return code of CONNACK is reserved"));
            };
            connack.reason = reason;
        }
        body.end()?;
        // [5: 3.2.2-6] [3: 3.2.2-4]
        if connack.session_present && connack.reason != Reason::Success {
            return Err(DecodeError::protocol("a refusal claims that there is a session"));
        }
        Ok(connack)
    }
}

impl<'a> ConnackProperties<'a> {
    fn take(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut block = Block::take(body)?;
        let mut found = Self::default();
        while let Some(id) = block.next()? {
            match id {
                id::SESSION_EXPIRY => block.u32(&mut found.session_expiry_s)?,
                id::RECEIVE_MAXIMUM => block.u16(&mut found.receive_max)?,
                id::MAXIMUM_QOS => match block.u8()? {
                    0 => once(&mut found.qos_max, Qos::AtMostOnce)?,
                    1 => once(&mut found.qos_max, Qos::AtLeastOnce)?,
                    // 3.2.2.3.4
                    _ => return Err(DecodeError::protocol("the maximum QoS is neither 0 nor 1")),
                },
                id::RETAIN_AVAILABLE => block.flag(&mut found.retain_available)?,
                id::MAXIMUM_PACKET_SIZE => block.u32(&mut found.packet_bytes_max)?,
                id::ASSIGNED_CLIENT_ID => block.text(&mut found.assigned_client_id)?,
                id::TOPIC_ALIAS_MAXIMUM => block.u16(&mut found.topic_alias_max)?,
                id::WILDCARD_AVAILABLE => block.flag(&mut found.wildcard_available)?,
                id::SUBSCRIPTION_IDS_AVAILABLE => block.flag(&mut found.subscription_ids_available)?,
                id::SHARED_AVAILABLE => block.flag(&mut found.shared_available)?,
                id::SERVER_KEEP_ALIVE => block.u16(&mut found.server_keep_alive_s)?,
                id::RESPONSE_INFORMATION => block.text(&mut found.response_information)?,
                id::SERVER_REFERENCE => block.text(&mut found.server_reference)?,
                id::AUTH_METHOD => block.text(&mut found.authentication_method)?,
                id::AUTH_DATA => block.binary(&mut found.authentication_data)?,
                id => found.diagnostics.read(id, &mut block)?,
            }
        }
        found.diagnostics.user = block.user();
        // 3.2.2.3.3, 3.2.2.3.6
        not_zero(found.receive_max, "the receive maximum is 0")?;
        not_zero(found.packet_bytes_max, "the maximum packet size is 0")?;
        Ok(found)
    }
}

impl write::Block for ConnackProperties<'_> {
    fn block<S: Sink>(&self, sink: &mut S) {
        put_u32(sink, id::SESSION_EXPIRY, self.session_expiry_s);
        put_u16(sink, id::RECEIVE_MAXIMUM, self.receive_max);
        match self.qos_max {
            // 3.2.2.3.4: absent means 2, and 2 must not be said.
            None | Some(Qos::ExactlyOnce) => {}
            Some(qos) => sink.put(&[id::MAXIMUM_QOS, qos.level()]),
        }
        put_flag(sink, id::RETAIN_AVAILABLE, self.retain_available);
        put_u32(sink, id::MAXIMUM_PACKET_SIZE, self.packet_bytes_max);
        put_text(sink, id::ASSIGNED_CLIENT_ID, self.assigned_client_id);
        put_u16(sink, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_max);
        put_flag(sink, id::WILDCARD_AVAILABLE, self.wildcard_available);
        put_flag(sink, id::SUBSCRIPTION_IDS_AVAILABLE, self.subscription_ids_available);
        put_flag(sink, id::SHARED_AVAILABLE, self.shared_available);
        put_u16(sink, id::SERVER_KEEP_ALIVE, self.server_keep_alive_s);
        put_text(sink, id::RESPONSE_INFORMATION, self.response_information);
        put_text(sink, id::SERVER_REFERENCE, self.server_reference);
        put_text(sink, id::AUTH_METHOD, self.authentication_method);
        put_binary(sink, id::AUTH_DATA, self.authentication_data);
        self.diagnostics.block(sink);
    }
}

impl Body for Connack<'_> {
    fn first(&self) -> u8 {
        Kind::Connack.first()
    }

    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        // [5: 3.2.2-6] [3: 3.2.2-4]
        let present = self.session_present && self.reason == Reason::Success && version != Version::V31;
        sink.u8(present.into());
        if version.has_properties() {
            sink.u8(self.reason.code());
            put_block(sink, &self.properties);
        } else {
            sink.u8(self.reason.connack_return_code());
        }
    }
}

encodes!(Connack<'_>);
