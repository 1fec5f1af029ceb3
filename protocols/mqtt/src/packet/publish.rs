//! PUBLISH: a message on its way. The hot path.

use crate::error::{DecodeError, EncodeError};
use crate::packet::properties::{Block, MessageProperties, SubscriptionIds, id};
use crate::packet::read::Reader;
use crate::packet::write::{self, Body, Sink, encodes, put_block, put_u16};
use crate::packet::{Frame, Kind, PacketId, Qos, packet_id};
use crate::version::Version;

/// PUBLISH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// How often it may arrive.
    pub qos: Qos,
    /// To a server: keep it. From a server: it was kept.
    pub retain: bool,
    /// The topic name. Empty only in version 5 with an alias.
    pub topic: &'a str,
    /// There unless QoS is 0.
    pub id: Option<PacketId>,
    /// Topic Alias. Zero and what is above the maximum are left to the session, which answers both alike.
    pub alias: Option<u16>,
    /// Subscription Identifiers: from servers only.
    pub subscription_ids: SubscriptionIds<'a>,
    /// What travels with the message.
    pub properties: MessageProperties<'a>,
    /// The message itself.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Reads it in place.
    ///
    /// # Errors
    /// It breaks the rules of PUBLISH.
    #[inline]
    pub fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut body = Reader::new(frame.body);
        // [5: 3.3.1-4] The header has been judged, but not every frame need come from there.
        let Some(qos) = Qos::from_level((frame.flags >> 1) & 3) else {
            return Err(DecodeError::malformed("PUBLISH asks for QoS 3"));
        };
        let (topic, is_plain) = body.name()?;
        // [5: 3.3.2-2] [3: 3.3.2-2]
        if !is_plain {
            return Err(DecodeError::topic("the topic name holds a wildcard"));
        }
        // [5: 2.2.1-2, 2.2.1-4] [3: 2.3.1-1, 2.3.1-5]
        let id = if qos == Qos::AtMostOnce { None } else { Some(packet_id(&mut body)?) };
        let mut publish = Self {
            // Meaningless with QoS 0, where 3.1 allows it nevertheless.
            dup: frame.flags & 0b1000 != 0 && qos != Qos::AtMostOnce,
            qos,
            retain: frame.flags & 1 != 0,
            topic,
            id,
            ..Self::default()
        };
        if version.has_properties() {
            publish.read_properties(&mut body)?;
        }
        if topic.is_empty() && publish.alias.is_none() {
            return Err(if version.has_properties() {
                // 3.3.2.1
                DecodeError::protocol("there is neither a topic name nor an alias")
            } else {
                // [3: 4.7.3-1]
                DecodeError::topic("the topic name is empty")
            });
        }
        publish.payload = body.rest();
        Ok(publish)
    }

    #[inline]
    fn read_properties(&mut self, body: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut block = Block::take(body)?;
        while let Some(id) = block.next()? {
            match id {
                id::TOPIC_ALIAS => block.u16(&mut self.alias)?,
                id::SUBSCRIPTION_ID => {
                    let id = block.subscription_id()?;
                    self.subscription_ids.add(id, &block);
                }
                id => self.properties.read(id, &mut block)?,
            }
        }
        self.properties.user = block.user();
        Ok(())
    }

    /// Bytes that [`Self::encode_head`] appends, and bytes of the whole packet with a payload of `payload_bytes`.
    ///
    /// # Errors
    /// The packet cannot be written.
    pub fn head_bytes(&self, version: Version, payload_bytes: usize) -> Result<(usize, usize), EncodeError> {
        let (_, total) = write::size(&Head { publish: self, payload_bytes }, version)?;
        Ok((total - payload_bytes, total))
    }

    /// Appends all but the payload, which somebody else puts behind it: `payload_bytes` of it. [`Self::payload`] is not
    /// looked at.
    ///
    /// # Errors
    /// The packet cannot be written: a field is too long, or the packet id is missing. Nothing is appended.
    #[inline]
    pub fn encode_head(
        &self,
        version: Version,
        payload_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        write::encode(&Head { publish: self, payload_bytes }, version, out)
    }

    /// Appends what stands before a body of so many bytes, [`VARINT_MAX`](crate::packet::VARINT_MAX) at most.
    #[inline]
    pub(crate) fn put_fixed_header(&self, body_bytes: usize, out: &mut Vec<u8>) {
        out.push(self.first());
        Sink::varint(out, u32::try_from(body_bytes).unwrap_or(u32::MAX));
    }

    #[inline]
    fn first(&self) -> u8 {
        Kind::Publish.first() | (u8::from(self.dup) << 3) | (self.qos.level() << 1) | u8::from(self.retain)
    }

    #[inline]
    fn head<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.text(self.topic);
        match (self.qos, self.id) {
            (Qos::AtMostOnce, _) => {}
            (_, Some(id)) => sink.u16(id.get()),
            (_, None) => sink.refuse("the packet identifier is missing"),
        }
        if version.has_properties() {
            put_block(sink, self);
        }
    }
}

/// Bytes in front of the payload of a PUBLISH of which `body`, what follows the fixed header, has not come whole; `None` if
/// even that cannot be told yet.
///
/// # Errors
/// The length of its properties is none.
pub fn publish_head_bytes(flags: u8, body: &[u8], version: Version) -> Result<Option<usize>, DecodeError> {
    let Some(topic) = body.first_chunk() else { return Ok(None) };
    let mut head = 2 + usize::from(u16::from_be_bytes(*topic));
    if flags & 0b0110 != 0 {
        head += 2;
    }
    if !version.has_properties() {
        return Ok(Some(head));
    }
    let Some(rest) = body.get(head..) else { return Ok(None) };
    let Some(more) = rest.iter().take(4).position(|byte| byte & 0x80 == 0) else {
        // More than four bytes are malformed, and fewer may be all that has come.
        return if rest.len() < 4 { Ok(None) } else { Reader::new(rest).varint().map(|_| None) };
    };
    Ok(Some(head + more + 1 + Reader::new(rest).varint()? as usize))
}

impl write::Block for Publish<'_> {
    #[inline]
    fn block<S: Sink>(&self, sink: &mut S) {
        put_u16(sink, id::TOPIC_ALIAS, self.alias);
        self.subscription_ids.put(sink);
        self.properties.put(sink);
    }
}

impl Body for Publish<'_> {
    #[inline]
    fn first(&self) -> u8 {
        self.first()
    }

    #[inline]
    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        self.head(version, sink);
        sink.put(self.payload);
    }
}

encodes!(Publish<'_>);

/// A PUBLISH whose payload comes from elsewhere.
struct Head<'a> {
    publish: &'a Publish<'a>,
    payload_bytes: usize,
}

impl Body for Head<'_> {
    #[inline]
    fn first(&self) -> u8 {
        self.publish.first()
    }

    #[inline]
    fn body<S: Sink>(&self, version: Version, sink: &mut S) {
        self.publish.head(version, sink);
    }

    #[inline]
    fn more_bytes(&self) -> usize {
        self.payload_bytes
    }
}
