//! The writing half, behind the outbox's lock: encodes deliveries straight into the outbox and resolves packet ids.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::chunks::{Chunks, REFERENCE_BYTES_MIN};
use sabir_model::clock::Timestamp;
use sabir_model::command::{AckName, WireAck};
use sabir_model::delivery::{Admission, Delivery, EncodeCache};
use sabir_model::ids::SubscriptionKey;
use sabir_model::message::Message;
use sabir_model::rare::Rare;
use sabir_model::session::{Egress, EgressNote, Settled};

use crate::alike::{self, LastWritten};
use crate::inflight::{Choice, Handover, Inflight, RECEIVED};
use crate::packet::{
    AckKind, MessageProperties, PacketId, Publish, Qos, SubscriptionIds, VARINT_MAX, put_ack,
};
use crate::reason::Reason;
use crate::render::{Renderer, Shown, body};
use crate::topic;
use crate::translate;
use crate::version::Version;

/// Marks this protocol's numbers among the dialects of an encode cache. The lowest bits say what a PUBLISH depends on.
const DIALECT_BASE: u32 = 0x4d51_5400;
const DIALECT_PROPERTIES: u32 = 1 << 3;

/// Short names given out on one connection, whatever the client allows.
const ALIASES_MAX: u16 = 64;

/// A topic that is shorter than this gains nothing by an alias.
const ALIAS_TOPIC_BYTES_MIN: usize = 8;
/// Memory for a topic name that is kept while others are written.
const NAME_BYTES_KEPT: usize = 1024;
/// Bytes of the largest packet there can be.
pub(crate) const PACKET_BYTES_MAX: usize = VARINT_MAX as usize + 5;
/// A guess, on the safe side, at the bytes of a PUBLISH besides its topic, its fields and its payload.
const HEAD_BYTES: usize = 48;

const TOO_LARGE: Admission = Admission::Undeliverable("larger than the client takes");
const INEXPRESSIBLE: Admission = Admission::Undeliverable("no MQTT packet can carry it");

/// The number under which the other half tells us the version.
pub(crate) fn dialect(version: Version) -> u32 {
    DIALECT_BASE | 0x80 | version as u32
}

/// The topic name last written: most connections see few destinations, and runs of one.
#[derive(Debug, Default)]
struct TopicName {
    /// The stored form of its destination.
    of: Vec<u8>,
    name: String,
}

impl TopicName {
    /// The name of where `delivery` goes; empty if there is none.
    fn get(&mut self, delivery: &Delivery<'_>) -> &str {
        if !delivery.goes_to(&self.of) {
            self.of.clear();
            self.of.shrink_to(NAME_BYTES_KEPT);
            self.name.clear();
            self.name.shrink_to(NAME_BYTES_KEPT);
            if let Some(destination) = delivery.destination() {
                destination.encode(&mut self.of);
                topic::put_name(&mut self.name, destination);
            }
        }
        &self.name
    }
}

/// Short names that the client knows.
type Aliases = HashMap<Box<str>, u16, RandomState>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alias {
    Unused,
    Known(u16),
    /// To be told to the client.
    Fresh(u16),
}

/// The short name for a topic, of which the client takes `max`.
fn alias_of(topic: &str, known: &Aliases, max: u16) -> Alias {
    if max == 0 || topic.len() < ALIAS_TOPIC_BYTES_MIN {
        return Alias::Unused;
    }
    match known.get(topic) {
        Some(alias) => Alias::Known(*alias),
        None if known.len() < usize::from(max) => {
            Alias::Fresh(u16::try_from(known.len() + 1).unwrap_or(u16::MAX))
        }
        None => Alias::Unused,
    }
}

/// MQTT's encoding half for one connection.
#[derive(Debug)]
pub struct MqttEgress {
    version: Version,
    /// Largest packet the client takes.
    packet_bytes_max: usize,
    /// Most short names that it takes.
    aliases_max: u16,
    writing: Rare<Writing>,
    inflight: Rare<Inflight>,
}

/// What a client needs that gets messages of its own.
#[derive(Debug, Default)]
struct Writing {
    topic: TopicName,
    aliases: Aliases,
    renderer: Renderer,
    last: LastWritten,
}

/// What a PUBLISH says besides its topic and properties.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) dup: bool,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) id: Option<PacketId>,
}

impl MqttEgress {
    pub(crate) fn new() -> Self {
        Self {
            version: Version::V311,
            packet_bytes_max: usize::MAX,
            aliases_max: 0,
            writing: Rare::new(),
            inflight: Rare::new(),
        }
    }

    /// Writes the PUBLISH of a delivery; what became of it if that failed.
    fn publish(
        &mut self,
        now: Timestamp,
        delivery: &Delivery<'_>,
        terms: Terms,
        cache: Option<&mut EncodeCache>,
        out: &mut Chunks,
    ) -> Result<(), Admission> {
        let Self { version, packet_bytes_max, aliases_max, writing, .. } = self;
        let identifiers = match delivery.grant {
            Some(grant) if version.has_properties() => grant.identifiers.as_slice(),
            _ => &[],
        };
        let message = delivery.message;
        let cache = cache.filter(|_| identifiers.is_empty() && delivery.queue.is_none());
        if *aliases_max == 0
            && let Some(encoded) = cache.as_ref().and_then(|cache| cache.get(shared_dialect(*version, terms)))
            && !encoded.is_empty()
        {
            return copy_shared(encoded, terms, message, *packet_bytes_max, out);
        }
        let Writing { topic, aliases, renderer, last } = writing.make();
        let plain = alike::plain_payload(delivery).filter(|_| *aliases_max == 0 && cache.is_none());
        if let Some(payload) = plain
            && last.write_again(message, payload, terms, *packet_bytes_max, out)
        {
            return Ok(());
        }
        let topic = topic.get(delivery);
        if topic.is_empty() {
            return Err(Admission::Undeliverable("the destination has no name in MQTT"));
        }
        let alias = alias_of(topic, aliases, *aliases_max);
        let packet = Publish {
            dup: terms.dup,
            qos: terms.qos,
            retain: terms.retain,
            topic: if matches!(alias, Alias::Known(_)) { "" } else { topic },
            id: terms.id,
            alias: match alias {
                Alias::Unused => None,
                Alias::Known(alias) | Alias::Fresh(alias) => Some(alias),
            },
            subscription_ids: SubscriptionIds::many(identifiers),
            properties: MessageProperties::default(),
            payload: &[],
        };
        let writer = Writer { version: *version, packet_bytes_max: *packet_bytes_max, renderer, now };
        let result = match cache.filter(|_| alias == Alias::Unused) {
            Some(cache) => writer.shared(packet, terms, message, cache, out),
            None => writer.own(packet, message, plain.map(|_| last), out),
        };
        renderer.tidy();
        if let (Ok(()), Alias::Fresh(alias)) = (&result, alias) {
            aliases.insert(topic.into(), alias);
        }
        result
    }

    /// Repeats PUBREL: the client has the message already.
    fn release(&mut self, delivery: &Delivery<'_>, out: &mut Chunks) -> Admission {
        let Some(token) = delivery.token else { return Admission::Sent };
        let choice = self.inflight.make().choose(Handover::SecondStep, delivery.progress, delivery.sequence);
        let Some((id, choice)) = choice.and_then(|choice| Some((PacketId::new(choice.id)?, choice))) else {
            return Admission::NoCredit;
        };
        let version = self.version;
        out.write(8, |out| put_ack(AckKind::Pubrel, id, Reason::Success, version, out));
        self.inflight.make().sent(choice.id, Handover::SecondStep, token);
        Admission::Sent
    }
}

/// Writes one PUBLISH.
struct Writer<'a> {
    version: Version,
    packet_bytes_max: usize,
    renderer: &'a mut Renderer,
    now: Timestamp,
}

impl Writer<'_> {
    /// For this receiver alone. What it looks like is kept in `last`, if it may be.
    fn own(
        self,
        packet: Publish<'_>,
        message: &Message,
        last: Option<&mut LastWritten>,
        out: &mut Chunks,
    ) -> Result<(), Admission> {
        let body = body(message);
        let mut packet = packet;
        if self.version.has_properties() {
            packet.properties = self.renderer.properties(message, self.now);
        }
        // Encoding counts for itself; only who has a limit is counted for before.
        if self.packet_bytes_max < PACKET_BYTES_MAX {
            match packet.head_bytes(self.version, body.length()) {
                Ok((_, total)) if total > self.packet_bytes_max => return Err(TOO_LARGE),
                Ok(_) => {}
                Err(_) => return Err(INEXPRESSIBLE),
            }
        }
        let inline = match &body {
            Shown::Octets(body) if body.len() < REFERENCE_BYTES_MIN => Some(&**body),
            Shown::Octets(_) | Shown::Stored(_) => None,
        };
        let inline_bytes = inline.map_or(0, <[u8]>::len);
        let hint = HEAD_BYTES + packet.topic.len() + message.field_bytes().len() + inline_bytes;
        let written = out.write(hint, |out| {
            let start = out.len();
            packet.encode_head(self.version, body.length(), out)?;
            if let Some(inline) = inline {
                if let Some(last) = last {
                    last.keep(message, &packet, out.get(start..).unwrap_or_default());
                }
                out.extend_from_slice(inline);
            }
            Ok::<(), crate::EncodeError>(())
        });
        if written.is_err() {
            return Err(INEXPRESSIBLE);
        }
        if inline.is_none() {
            put_large(&body, message, out);
        }
        Ok(())
    }

    /// Like every receiver of this fan-out but for the packet id.
    fn shared(
        self,
        packet: Publish<'_>,
        terms: Terms,
        message: &Message,
        cache: &mut EncodeCache,
        out: &mut Chunks,
    ) -> Result<(), Admission> {
        let Self { version, packet_bytes_max, renderer, now } = self;
        let encoded = cache.get_or_encode(shared_dialect(version, terms), |encoded| {
            let mut packet = Publish { dup: false, id: packet.id.map(|_| PacketId::MIN), ..packet };
            if version.has_properties() {
                packet.properties = renderer.properties(message, now);
            }
            let body = body(message);
            // What cannot be written leaves nothing, which is no packet.
            let whole = packet.encode_head(version, body.length(), encoded).is_ok() && message.is_small();
            if whole && let Shown::Octets(body) = &body {
                encoded.extend_from_slice(body);
            }
        });
        if encoded.is_empty() {
            return Err(INEXPRESSIBLE);
        }
        copy_shared(encoded, terms, message, packet_bytes_max, out)
    }
}

/// What a PUBLISH that receivers share depends on, besides the message.
fn shared_dialect(version: Version, terms: Terms) -> u32 {
    let properties = if version.has_properties() { DIALECT_PROPERTIES } else { 0 };
    DIALECT_BASE | properties | u32::from(terms.qos.level()) << 1 | u32::from(terms.retain)
}

/// Appends a PUBLISH that receivers share, with what is this one's own.
fn copy_shared(
    encoded: &[u8],
    terms: Terms,
    message: &Message,
    packet_bytes_max: usize,
    out: &mut Chunks,
) -> Result<(), Admission> {
    let large = (!message.is_small()).then(|| body(message));
    if encoded.len().saturating_add(large.as_ref().map_or(0, Shown::length)) > packet_bytes_max {
        return Err(TOO_LARGE);
    }
    out.write(encoded.len(), |out| {
        let start = out.len();
        out.extend_from_slice(encoded);
        if let Some(id) = terms.id {
            patch(out.get_mut(start..).unwrap_or_default(), terms.dup, id);
        }
    });
    if let Some(body) = large {
        put_large(&body, message, out);
    }
    Ok(())
}

/// Gives an encoded PUBLISH its own id, and says whether it is a repetition.
fn patch(packet: &mut [u8], dup: bool, id: PacketId) {
    if let Some(first) = packet.first_mut() {
        *first |= u8::from(dup) << 3;
    }
    let length = packet.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let topic = packet.get(1 + length..).and_then(|rest| rest.first_chunk()).copied();
    let at = 1 + length + 2 + usize::from(topic.map_or(0, u16::from_be_bytes));
    if let Some(place) = packet.get_mut(at..at + 2) {
        place.copy_from_slice(&id.get().to_be_bytes());
    }
}

/// Appends a large body: the message's own is referenced, one made for this protocol is copied.
fn put_large(body: &Shown<'_>, message: &Message, out: &mut Chunks) {
    let body = match body {
        Shown::Octets(body) => body,
        Shown::Stored(stored) => return out.put_stored(stored),
    };
    match message.shared_body() {
        Some(shared) if std::ptr::eq(&raw const **shared, &raw const **body) => out.put_shared(shared),
        _ => out.put(body),
    }
}

impl Egress for MqttEgress {
    fn protocol(&self) -> &'static str {
        match self.version {
            Version::V31 => "MQTT 3.1",
            Version::V311 => "MQTT 3.1.1",
            Version::V5 => "MQTT 5.0",
        }
    }

    fn deliver(
        &mut self,
        now: Timestamp,
        delivery: &Delivery<'_>,
        cache: Option<&mut EncodeCache>,
        out: &mut Chunks,
    ) -> Admission {
        if delivery.progress & RECEIVED != 0 {
            return self.release(delivery, out);
        }
        let facts = delivery.message.facts();
        let own = translate::qos(facts.guarantee());
        let qos = match (delivery.token, delivery.grant) {
            // Nobody waits for an acknowledgement.
            (None, _) => Qos::AtMostOnce,
            (Some(_), Some(grant)) => own.min(translate::qos(grant.guarantee)),
            (Some(_), None) => own.min(Qos::AtLeastOnce),
        };
        let retain =
            delivery.grant.is_some_and(|grant| grant.retained || (grant.keep_retain && facts.retain));
        let handover = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(Handover::Once),
            Qos::ExactlyOnce => Some(Handover::TwoSteps),
        };
        let (Some(handover), Some(token)) = (handover, delivery.token) else {
            let terms = Terms { dup: false, qos: Qos::AtMostOnce, retain, id: None };
            return match self.publish(now, delivery, terms, cache, out) {
                Ok(()) if delivery.token.is_some() => Admission::Done,
                Ok(()) => Admission::Sent,
                Err(admission) => admission,
            };
        };
        let choice = self.inflight.make().choose(handover, delivery.progress, delivery.sequence);
        let Some(Choice { id, note }) = choice else { return Admission::NoCredit };
        let terms = Terms { dup: delivery.redelivered, qos, retain, id: PacketId::new(id) };
        if let Err(admission) = self.publish(now, delivery, terms, cache, out) {
            return admission;
        }
        self.inflight.make().sent(id, handover, token);
        match note {
            Some((progress, kept)) => Admission::Noted { progress, kept },
            None => Admission::Sent,
        }
    }

    fn acknowledged(&mut self, acks: &[WireAck], settled: &mut Vec<Settled>, unknown: &mut Vec<usize>) {
        for (index, ack) in acks.iter().enumerate() {
            let token = match ack.name {
                AckName::Number(name) => {
                    self.inflight.get_mut().and_then(|inflight| inflight.acknowledge(name, ack.settlement))
                }
                AckName::Token(_) | AckName::Text(_) => None,
            };
            match token {
                Some(token) => settled.push(Settled { token, settlement: ack.settlement, ack: index }),
                None => unknown.push(index),
            }
        }
    }

    fn browsed(&mut self, _key: SubscriptionKey, _out: &mut Chunks) {
        // Nobody browses in MQTT.
    }

    fn note(&mut self, note: EgressNote<'_>) {
        match note {
            EgressNote::Dialect(number) => {
                let version = Version::ALL.into_iter().find(|version| dialect(*version) == number);
                self.version = version.unwrap_or(self.version);
            }
            EgressNote::Receiver { frame_bytes_max, aliases_max } => {
                self.packet_bytes_max = usize::try_from(frame_bytes_max).unwrap_or(usize::MAX);
                self.aliases_max = aliases_max.min(ALIASES_MAX);
            }
            // A client session has one backlog, and the client names none of its subscriptions.
            EgressNote::Attach { .. }
            | EgressNote::Detach(_)
            | EgressNote::TransactionEnded { .. }
            | EgressNote::Temporary { .. } => {}
        }
    }
}
