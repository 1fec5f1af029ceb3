//! DISCONNECT and AUTH.

use crate::error::DecodeError;
use crate::packet::ack::reason;
use crate::packet::properties::{Block, Diagnostics, id};
use crate::packet::read::Reader;
use crate::packet::write::{self, Body, Sink, encodes, put_binary, put_block, put_text, put_u32};
use crate::packet::{Frame, Kind};
use crate::reason::Reason;
use crate::version::Version;

/// DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why. Always success before version 5.
    pub reason: Reason,
    /// Session Expiry Interval: from clients only.
    pub session_expiry_s: Option<u32>,
    /// Server Reference: from servers only.
    pub server_reference: Option<&'a str>,
    /// More about it.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> Disconnect<'a> {
    /// One without anything else to say.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, session_expiry_s: None, server_reference: None, diagnostics: Diagnostics::NONE }
    }

    pub(crate) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let mut packet = Self::new(Reason::Success);
        if version.has_properties() && !body.is_empty() {
            // [5: 3.14.2-1]
            packet.reason = reason(&mut body, Kind::Disconnect)?;
            // 3.14.2.2.1: the property length may be absent.
            if !body.is_empty() {
                packet.read_properties(&mut body)?;
            }
        }
        body.end()?;
        Ok(packet)
    }

    fn read_properties(&mut self, body: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut block = Block::take(body)?;
        while let Some(id) = block.next()? {
            match id {
                id::SESSION_EXPIRY => block.u32(&mut self.session_expiry_s)?,
                id::SERVER_REFERENCE => block.text(&mut self.server_reference)?,
                id => self.diagnostics.read(id, &mut block)?,
            }
        }
        self.diagnostics.user = block.user();
        Ok(())
    }
}

impl write::Block for Disconnect<'_> {
    fn block<S: Sink>(&self, sink: &mut S) {
        put_u32(sink, id::SESSION_EXPIRY, self.session_expiry_s);
        put_text(sink, id::SERVER_REFERENCE, self.server_reference);
        self.diagnostics.block(sink);
    }
}

impl Body for Disconnect<'_> {
    fn first(&self) -> u8 {
        Kind::Disconnect.first()
    }

    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        if !version.has_properties() {
            return;
        }
        let plain = write::is_empty(self);
        if self.reason != Reason::Success || !plain {
            sink.u8(self.reason.code());
        }
        if !plain {
            put_block(sink, self);
        }
    }
}

encodes!(Disconnect<'_>);

/// AUTH: version 5 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which step it is.
    pub reason: Reason,
    /// Authentication Method. Absent only from an AUTH without a body, which says success.
    pub method: Option<&'a str>,
    /// Authentication Data.
    pub data: Option<&'a [u8]>,
    /// More about it.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> Auth<'a> {
    /// A step of an exchange.
    #[must_use]
    pub const fn new(reason: Reason, method: &'a str, data: Option<&'a [u8]>) -> Self {
        Self { reason, method: Some(method), data, diagnostics: Diagnostics::NONE }
    }

    pub(crate) fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        let mut packet =
            Self { reason: Reason::Success, method: None, data: None, diagnostics: Diagnostics::NONE };
        // 3.15.2.1: an empty body means success.
        if body.is_empty() {
            return Ok(packet);
        }
        // [5: 3.15.2-1]
        packet.reason = reason(&mut body, Kind::Auth)?;
        let mut block = Block::take(&mut body)?;
        while let Some(id) = block.next()? {
            match id {
                id::AUTH_METHOD => block.text(&mut packet.method)?,
                id::AUTH_DATA => block.binary(&mut packet.data)?,
                id => packet.diagnostics.read(id, &mut block)?,
            }
        }
        packet.diagnostics.user = block.user();
        body.end()?;
        // 3.15.2.2.2
        if packet.method.is_none() {
            return Err(DecodeError::protocol("AUTH names no method"));
        }
        Ok(packet)
    }
}

impl write::Block for Auth<'_> {
    fn block<S: Sink>(&self, sink: &mut S) {
        put_text(sink, id::AUTH_METHOD, self.method);
        put_binary(sink, id::AUTH_DATA, self.data);
        self.diagnostics.block(sink);
    }
}

impl Body for Auth<'_> {
    fn first(&self) -> u8 {
        Kind::Auth.first()
    }

    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        if !version.has_properties() {
            sink.refuse("there is no AUTH before version 5");
            return;
        }
        if self.reason == Reason::Success && write::is_empty(self) {
            return;
        }
        if self.method.is_none() {
            sink.refuse("AUTH names no method");
        }
        sink.u8(self.reason.code());
        put_block(sink, self);
    }
}

encodes!(Auth<'_>);
