//! A delivery becomes a MESSAGE frame: what every subscriber of one version sees alike. The lines that differ between
//! them (`subscription`, `ack`) are written by `egress`.

use std::borrow::Cow;

use sabir_model::base64;
use sabir_model::delivery::Delivery;
use sabir_model::destination::DestinationRef;
use sabir_model::headers::ValueRef;
use sabir_model::message::{BodyKind, Content, Field, Message, Tag};
use sabir_model::stored::Stored;
use sabir_model::text::{is_clean, shown_octets};

use crate::address::{own_prefix, put_destination, put_qualified};
use crate::encode::{is_plain, put_decimal, put_escaped, put_message_id, put_percent};
use crate::frame::Version;
use crate::translate::type_name;

/// This connection's temporary destinations: what the client calls them.
pub(crate) trait OwnNames {
    /// The client's own name for `destination`, if it is this connection's.
    fn own_name(&self, destination: DestinationRef<'_>) -> Option<&str>;
}

/// A body as it goes out.
pub(crate) enum Shown<'a> {
    /// These octets.
    Octets(Cow<'a, [u8]>),
    /// What lies there, unchanged.
    Stored(&'a Stored),
}

impl Shown<'_> {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Octets(bytes) => bytes.len() as u64,
            Self::Stored(stored) => stored.length(),
        }
    }
}

/// The body as a STOMP client gets it: octets as they are, maps and lists as JSON. Maps and lists are always in memory.
pub(crate) fn body(message: &Message) -> Shown<'_> {
    let bytes = match message.body() {
        Content::Octets(bytes) => bytes,
        Content::Stored(stored) => return Shown::Stored(stored),
    };
    Shown::Octets(match message.facts().body_kind {
        BodyKind::Map | BodyKind::List => {
            let mut json = Vec::with_capacity(bytes.len() * 2);
            if let Some((value, _)) = ValueRef::decode(bytes) {
                value.write_text(&mut json);
            }
            Cow::Owned(json)
        }
        BodyKind::None | BodyKind::Text | BodyKind::Bytes | BodyKind::Object => Cow::Borrowed(bytes),
    })
}

/// The content type of a body whose sender gave none, where its kind has one.
fn content_type(kind: BodyKind) -> Option<&'static str> {
    match kind {
        BodyKind::Map | BodyKind::List => Some("application/json"),
        BodyKind::Object => Some("application/x-java-serialized-object"),
        BodyKind::None | BodyKind::Text | BodyKind::Bytes => None,
    }
}

/// A guess, on the safe side, at the bytes of the headers.
pub(crate) fn size_hint(message: &Message, own_lines: usize) -> usize {
    own_lines + 320 + 2 * message.field_bytes().len()
}

/// Appends `name:value` for a destination, under the client's own name if it is its own temporary one.
pub(crate) fn put_destination_line(
    out: &mut Vec<u8>,
    name: &str,
    destination: DestinationRef<'_>,
    version: Version,
    own: &dyn OwnNames,
) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let label = if destination.temporary { own.own_name(destination) } else { None };
    match label {
        Some(label) => {
            out.extend_from_slice(own_prefix(destination.kind).as_bytes());
            put_escaped(out, label, version);
        }
        None => put_destination(out, destination, version),
    }
    out.push(b'\n');
}

/// Writes the headers of one MESSAGE.
pub(crate) struct Renderer<'a> {
    pub(crate) version: Version,
    pub(crate) own: &'a dyn OwnNames,
}

impl Renderer<'_> {
    /// Appends all headers but `destination`, `subscription` and `ack`, and the empty line.
    pub(crate) fn put_headers(&self, out: &mut Vec<u8>, delivery: &Delivery<'_>, body_len: u64) {
        let mut lines = Lines { out, version: self.version, percent_encoded: String::new() };
        let mut types = String::new();
        let mut sender_id = None;
        let mut original = false;
        let mut sent_to = None;
        let mut typed_content = false;
        for field in delivery.message.fields() {
            match field {
                Field::Property(name, value) => lines.property(name, &value, &mut types),
                Field::Plain(tag, bytes) => {
                    let text = || std::str::from_utf8(bytes).unwrap_or_default();
                    match tag {
                        Tag::Destination => sent_to = DestinationRef::decode(bytes),
                        Tag::OriginalDestination => {
                            original = true;
                            lines.out.extend_from_slice(b"original-destination:");
                            put_qualified(lines.out, text(), self.version);
                            lines.out.push(b'\n');
                        }
                        Tag::ReplyTo => {
                            if let Some(to) = DestinationRef::decode(bytes) {
                                put_destination_line(lines.out, "reply-to", to, self.version, self.own);
                            }
                        }
                        Tag::ReplyToText => lines.text("reply-to", text()),
                        Tag::CorrelationText => lines.correlation_text(text()),
                        Tag::CorrelationBytes => lines.correlation(bytes),
                        Tag::Type => lines.text("type", text()),
                        Tag::ContentType => {
                            typed_content = true;
                            lines.text("content-type", text());
                        }
                        Tag::ContentEncoding => lines.text("content-encoding", text()),
                        Tag::GroupId => lines.text("JMSXGroupID", text()),
                        Tag::GroupSequence => lines.group_sequence(bytes),
                        Tag::UserId => lines.text("JMSXUserID", text()),
                        Tag::SenderMessageId => sender_id = sender_id.or_else(|| Some(text())),
                        Tag::AppId => lines.text("app-id", text()),
                        Tag::TraceContext => lines.text("traceparent", text()),
                        // Concerns of the broker, or without a name in this protocol.
                        Tag::DeliveryTime | Tag::DedupId | Tag::TextProperty | Tag::Property => {}
                    }
                }
            }
        }
        if let (false, Some(queue), Some(sent_to)) = (original, delivery.queue, sent_to)
            && queue.as_ref() != sent_to
        {
            put_destination_line(lines.out, "original-destination", sent_to, self.version, self.own);
        }
        if let (false, Some(content_type)) = (typed_content, content_type(delivery.message.facts().body_kind))
        {
            lines.text("content-type", content_type);
        }
        if !types.is_empty() {
            lines.text("property-types", &types);
        }
        let percent_encoded = std::mem::take(&mut lines.percent_encoded);
        if !percent_encoded.is_empty() {
            lines.text("x-percent-encoded", &percent_encoded);
        }
        self.put_facts(out, delivery, sender_id, body_len);
    }

    fn put_facts(&self, out: &mut Vec<u8>, delivery: &Delivery<'_>, sender_id: Option<&str>, body_len: u64) {
        let facts = delivery.message.facts();
        out.extend_from_slice(b"message-id:");
        match sender_id.filter(|id| is_sound_id(id)) {
            Some(id) => {
                put_escaped(out, id, self.version);
                out.extend_from_slice(b"\namqp-message-id:");
                put_escaped(out, id, self.version);
            }
            None => put_message_id(out, facts.id, self.version),
        }
        out.extend_from_slice(b"\nexpires:");
        put_decimal(out, facts.expires.0);
        out.extend_from_slice(b"\npriority:");
        put_decimal(out, u64::from(facts.priority));
        out.extend_from_slice(b"\ntimestamp:");
        put_decimal(out, facts.timestamp.0);
        out.push(b'\n');
        if facts.persistent {
            out.extend_from_slice(b"persistent:true\n");
        }
        if facts.exactly_once {
            out.extend_from_slice(b"ActiveMQ.MQTT.QoS:2\n");
        }
        if facts.retain {
            out.extend_from_slice(b"ActiveMQ.Retain:true\n");
        }
        if delivery.redelivered {
            out.extend_from_slice(b"redelivered:true\n");
        }
        if delivery.attempt > 1 || self.version == Version::V12 {
            out.extend_from_slice(b"delivery-count:");
            put_decimal(out, u64::from(delivery.attempt.max(1)));
            out.push(b'\n');
        }
        out.extend_from_slice(b"content-length:");
        put_decimal(out, body_len);
        out.extend_from_slice(b"\n\n");
    }
}

/// Whether a sender's message id can be given to clients of every version, and so come back in an ACK.
pub(crate) fn is_sound_id(id: &str) -> bool {
    !id.is_empty() && !id.contains(['\0', '\n', '\r']) && id.trim() == id
}

struct Lines<'o> {
    out: &'o mut Vec<u8>,
    version: Version,
    /// Names of headers that 1.0 could carry in a percent-encoded form only.
    percent_encoded: String,
}

impl Lines<'_> {
    /// Appends a line whose name is plain.
    fn text(&mut self, name: &str, value: &str) {
        if is_plain(value) {
            self.out.extend_from_slice(name.as_bytes());
            self.out.push(b':');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'\n');
        } else {
            self.odd(name, value);
        }
    }

    /// Appends a line whose name or value needs more than copying.
    #[cold]
    fn odd(&mut self, name: &str, value: &str) {
        // No version can carry NUL.
        if name.is_empty() || name.contains('\0') || value.contains('\0') {
            return;
        }
        let inexpressible = name.contains([':', '\n', '\r']) || value.contains(['\n', '\r']);
        if self.version != Version::V10 || !inexpressible {
            put_escaped(self.out, name, self.version);
            self.out.push(b':');
            put_escaped(self.out, value, self.version);
            self.out.push(b'\n');
            return;
        }
        let start = self.out.len();
        put_percent(self.out, name, true);
        if !self.percent_encoded.is_empty() {
            self.percent_encoded.push(',');
        }
        let encoded = self.out.get(start..).unwrap_or_default();
        self.percent_encoded.push_str(&String::from_utf8_lossy(encoded));
        self.out.push(b':');
        put_percent(self.out, value, false);
        self.out.push(b'\n');
    }

    fn property(&mut self, name: &str, value: &ValueRef<'_>, types: &mut String) {
        if is_reserved(name) {
            return;
        }
        match value {
            ValueRef::Null => {}
            ValueRef::Str(text) if is_plain(name) && !name.is_empty() => self.text(name, text),
            ValueRef::Str(text) => self.odd(name, text),
            other => {
                let mut text = Vec::new();
                other.write_text(&mut text);
                self.odd(name, std::str::from_utf8(&text).unwrap_or_default());
                // A name with these characters could not be told from the list's own.
                if let (Some(kind), false) = (type_name(other), name.contains([',', '=', '\0'])) {
                    if !types.is_empty() {
                        types.push(',');
                    }
                    types.push_str(name);
                    types.push('=');
                    types.push_str(kind);
                }
            }
        }
    }

    fn correlation(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) if is_clean(bytes) => self.correlation_text(text),
            _ => self.correlation_octets(bytes),
        }
    }

    fn correlation_text(&mut self, text: &str) {
        // From another protocol: it must not come back as what it looks like.
        if text.starts_with("base64:") && shown_octets(text).is_some() {
            return self.correlation_octets(text.as_bytes());
        }
        self.text("correlation-id", text);
    }

    fn correlation_octets(&mut self, bytes: &[u8]) {
        let mut text = b"base64:".to_vec();
        base64::encode(bytes, &mut text);
        self.text("correlation-id", std::str::from_utf8(&text).unwrap_or_default());
    }

    fn group_sequence(&mut self, bytes: &[u8]) {
        let Ok(bytes) = bytes.try_into() else { return };
        let sequence = i32::from_le_bytes(bytes);
        self.out.extend_from_slice(b"JMSXGroupSeq:");
        if sequence < 0 {
            self.out.push(b'-');
        }
        put_decimal(self.out, u64::from(sequence.unsigned_abs()));
        self.out.push(b'\n');
    }
}

/// Names that the frame itself uses: a property of such a name would pass for the broker's word.
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "destination"
            | "message-id"
            | "subscription"
            | "ack"
            | "content-length"
            | "redelivered"
            | "persistent"
            | "priority"
            | "expires"
            | "timestamp"
            | "delivery-count"
            | "original-destination"
            | "JMSXUserID"
            | "ActiveMQ.Retain"
            | "ActiveMQ.MQTT.QoS"
            | "browser"
            | "property-types"
            | "x-percent-encoded"
    )
}
