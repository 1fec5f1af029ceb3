//! Messages that are like the one before: most senders send to one topic with the same properties again and again, and
//! most receivers get what they got before but for the payload. Whatever comes in front of the payload is compared as
//! bytes with the last, and if it is the same, what was made of it is used once more: that saves two fifths of the
//! instructions of a message at QoS 0.

use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
use sabir_model::command::{self, Promise};
use sabir_model::delivery::Delivery;
use sabir_model::error::Refusal;
use sabir_model::message::{BodyKind, Content, Facts, Message};
use sabir_model::session::{Host, Input, Now};

use crate::egress::Terms;
use crate::execute::{Core, Sending, accepted};
use crate::packet::{Frame, PacketId, Publish, Qos};
use crate::refusal::Breach;
use crate::translate;

/// Longer heads are not kept.
const HEAD_BYTES_MAX: usize = 1024;
/// First byte and remaining length.
const FIXED_HEADER_BYTES_MAX: usize = 5;
/// DUP says nothing about the message.
const DUP: u8 = 0b1000;

/// What a client's last PUBLISH was. Its fields and its address are where they were put.
#[derive(Debug, Default)]
pub(crate) struct LastRead {
    /// It was carried out so far that what was made of it can be used again.
    made: bool,
    /// What follows is what it looked like.
    holds: bool,
    flags: u8,
    /// The topic name and the properties, each with its length.
    topic: Vec<u8>,
    properties: Vec<u8>,
    facts: Facts,
    expiry_s: Option<u32>,
}

impl LastRead {
    /// Another message is being read.
    pub(crate) fn forget(&mut self) {
        (self.made, self.holds) = (false, false);
    }

    /// This has been made of one whose fields and address are in their place. What it looked like is not known yet:
    /// [`Core::remember`].
    pub(crate) fn was(&mut self, facts: Facts, expiry_s: Option<u32>) {
        (self.facts, self.expiry_s, self.made) = (facts, expiry_s, true);
    }

    /// The packet id and the payload of a PUBLISH that is like it.
    fn matches<'a>(&self, found: &Frame<'a>) -> Option<(Option<PacketId>, &'a [u8])> {
        if !self.holds || found.flags & !DUP != self.flags {
            return None;
        }
        let mut rest = found.body.strip_prefix(self.topic.as_slice())?;
        let mut id = None;
        if self.flags & 0b0110 != 0 {
            let (bytes, after) = rest.split_first_chunk()?;
            id = Some(PacketId::new(u16::from_be_bytes(*bytes))?);
            rest = after;
        }
        Some((id, rest.strip_prefix(self.properties.as_slice())?))
    }
}

impl Core {
    /// Carries out a PUBLISH that is like the last. `None` if it is not: then nothing has happened.
    #[inline]
    pub(crate) fn publish_alike(
        &mut self,
        found: &Frame<'_>,
        now: Now,
        input: &Input<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Option<Result<(), Breach>> {
        let Sending { last, addresses, .. } = self.sending.get()?;
        let (id, payload) = last.matches(found)?;
        if payload.len() > self.limits.body_bytes_max || addresses.again().is_none() {
            return None;
        }
        let facts = Facts { expires: translate::expires(last.expiry_s, now.wall), ..last.facts };
        let qos = Qos::from_level((found.flags >> 1) & 3)?;
        // What is counted and answered asks for no more of it.
        let publish = Publish { qos, id, payload, ..Publish::default() };
        if let Err(breach) = self.count(&publish) {
            return Some(Err(breach));
        }
        let accepted = self.publish_again(&publish, facts, found, input, host)?;
        Some(self.answer(&publish, accepted, host, out))
    }

    #[inline]
    fn publish_again(
        &mut self,
        publish: &Publish<'_>,
        facts: Facts,
        found: &Frame<'_>,
        input: &Input<'_>,
        host: &mut dyn Host,
    ) -> Option<Result<Option<Promise>, Refusal>> {
        let sending = self.sending.get()?;
        let (targets, key) = sending.addresses.again()?;
        let length = publish.payload.len();
        Some(accepted(host.publish(command::Publish {
            targets,
            key,
            facts,
            fields: sending.fields.as_slice(),
            body: input.body(found.total - length, length),
            transaction: None,
            once: publish.id.filter(|_| publish.qos == Qos::ExactlyOnce).map(PacketId::get),
        })))
    }

    /// Keeps what a PUBLISH that was carried out looked like, if the next one that looks so is the same.
    #[inline]
    pub(crate) fn remember(&mut self, found: &Frame<'_>, publish: &Publish<'_>) {
        let Some(sending) = self.sending.get_mut() else { return };
        let last = &mut sending.last;
        let (topic_bytes, payload_bytes) = (2 + publish.topic.len(), publish.payload.len());
        let properties_from = topic_bytes + if publish.id.is_some() { 2 } else { 0 };
        let properties_to = found.body.len() - payload_bytes;
        last.holds = last.made
            && publish.alias.is_none()
            && !translate::looks_at_payload(&publish.properties)
            && properties_to <= HEAD_BYTES_MAX;
        if last.holds {
            last.flags = found.flags & !DUP;
            last.topic.clear();
            last.topic.extend_from_slice(found.body.get(..topic_bytes).unwrap_or_default());
            last.properties.clear();
            let properties = found.body.get(properties_from..properties_to);
            last.properties.extend_from_slice(properties.unwrap_or_default());
        }
    }
}

/// The last PUBLISH that was written for a client alone: of what, and what stands between its fixed header and its
/// payload.
#[derive(Debug, Default)]
pub(crate) struct LastWritten {
    head: Vec<u8>,
    /// Where the packet id is in there, if it has one.
    id_at: Option<usize>,
    fields: Vec<u8>,
    /// Priority and kind of its body; `None` if nothing is kept.
    facts: Option<(u8, BodyKind)>,
}

/// What that depends on besides the fields and whether there is a packet id.
fn facts_of(message: &Message) -> (u8, BodyKind) {
    let facts = message.facts();
    (facts.priority, facts.body_kind)
}

/// The payload, if the last PUBLISH can be kept, or used again, for this delivery: nothing in its head counts down, none of
/// it is of the subscription, and the payload is written as it is.
#[inline]
pub(crate) fn plain_payload<'a>(delivery: &Delivery<'a>) -> Option<&'a [u8]> {
    let facts = delivery.message.facts();
    let lasts = facts.expires == Timestamp::NEVER;
    let is_plain = !matches!(facts.body_kind, BodyKind::Map | BodyKind::List);
    let anonymous = delivery.grant.is_none_or(|grant| grant.identifiers.is_empty());
    match delivery.message.body() {
        Content::Octets(payload)
            if lasts && is_plain && anonymous && delivery.queue.is_none() && delivery.message.is_small() =>
        {
            Some(payload)
        }
        Content::Octets(_) | Content::Stored(_) => None,
    }
}

impl LastWritten {
    /// Writes a PUBLISH whose head is the last one's, of so many bytes at most. False if it is another, or longer: then
    /// nothing is written.
    #[inline]
    pub(crate) fn write_again(
        &self,
        message: &Message,
        payload: &[u8],
        terms: Terms,
        packet_bytes_max: usize,
        out: &mut Chunks,
    ) -> bool {
        let body_bytes = self.head.len() + payload.len();
        if self.id_at.is_some() != terms.id.is_some()
            || self.facts != Some(facts_of(message))
            || self.fields != message.field_bytes()
            || body_bytes + FIXED_HEADER_BYTES_MAX > packet_bytes_max
        {
            return false;
        }
        out.write(FIXED_HEADER_BYTES_MAX + body_bytes, |out| {
            let publish =
                Publish { dup: terms.dup, qos: terms.qos, retain: terms.retain, ..Publish::default() };
            publish.put_fixed_header(body_bytes, out);
            let start = out.len();
            out.extend_from_slice(&self.head);
            if let (Some(at), Some(id)) = (self.id_at, terms.id)
                && let Some(place) = out.get_mut(start + at..start + at + 2)
            {
                place.copy_from_slice(&id.get().to_be_bytes());
            }
            out.extend_from_slice(payload);
        });
        true
    }

    /// Keeps what has been written in front of a payload: a whole head, that of `packet`.
    #[inline]
    pub(crate) fn keep(&mut self, message: &Message, packet: &Publish<'_>, head: &[u8]) {
        self.facts = None;
        let length_bytes = head.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
        let head = head.get(1 + length_bytes..).unwrap_or_default();
        if head.len() > HEAD_BYTES_MAX {
            return;
        }
        self.head.clear();
        self.head.extend_from_slice(head);
        self.id_at = packet.id.map(|_| 2 + packet.topic.len());
        self.fields.clear();
        self.fields.extend_from_slice(message.field_bytes());
        self.facts = Some(facts_of(message));
    }
}
