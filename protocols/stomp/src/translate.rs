//! A SEND frame becomes a neutral message: which headers are fields of the model, which are properties, and whether the
//! body is text or bytes. The way out is `render`.

use std::borrow::Cow;
use std::collections::HashSet;

use sabir_model::base64;
use sabir_model::clock::Timestamp;
use sabir_model::error::{Code, Refusal};
use sabir_model::headers::ValueRef;
use sabir_model::message::{BodyKind, Facts, FieldsWriter, PRIORITY_DEFAULT, PRIORITY_MAX, Tag};
use sabir_model::session::Host;
use sabir_model::text::{is_text_type, shown_octets};

use crate::address::Temporaries;
use crate::frame::{Frame, Header};

/// From this many headers on, repeated names are found with a set instead of by comparing all.
const HEADERS_COMPARED_MAX: usize = 64;

/// What a SEND says besides what went into its fields.
#[derive(Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) destination: &'a str,
    pub(crate) transaction: Option<&'a str>,
    pub(crate) receipt: Option<&'a str>,
    pub(crate) facts: Facts,
    /// `reply-to` if it names a temporary queue of this connection: RabbitMQ's clients expect to be subscribed to it.
    pub(crate) reply_queue: Option<&'a str>,
}

/// What the conversion needs of its surroundings.
pub(crate) struct Surroundings<'a> {
    pub(crate) temporaries: &'a mut Temporaries,
    pub(crate) host: &'a mut dyn Host,
    pub(crate) wall: Timestamp,
    pub(crate) length_means_bytes: bool,
}

/// What a header of SEND is to us. Those up to `Transformation` count only the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Destination,
    Transaction,
    Receipt,
    Persistent,
    Priority,
    Expires,
    Timestamp,
    CorrelationId,
    ReplyTo,
    Type,
    ContentType,
    ContentEncoding,
    GroupId,
    GroupSequence,
    MessageKind,
    Retain,
    AppId,
    SenderId,
    DeliveryMode,
    Expiration,
    Qos,
    Transformation,
    /// Scheduled delivery.
    Scheduled,
    /// Read elsewhere, or written by the broker only.
    Dropped,
    Property,
}

fn known(name: &str) -> Known {
    match name {
        "destination" => Known::Destination,
        "receipt" => Known::Receipt,
        "persistent" => Known::Persistent,
        "content-length" => Known::Dropped,
        "content-type" => Known::ContentType,
        "transaction" => Known::Transaction,
        "priority" | "JMSPriority" => Known::Priority,
        "expires" | "JMSExpiration" => Known::Expires,
        "expiration" => Known::Expiration,
        "timestamp" | "JMSTimestamp" => Known::Timestamp,
        "correlation-id" | "JMSCorrelationID" => Known::CorrelationId,
        "reply-to" | "JMSReplyTo" => Known::ReplyTo,
        "type" | "JMSType" => Known::Type,
        "content-encoding" => Known::ContentEncoding,
        "JMSXGroupID" => Known::GroupId,
        "JMSXGroupSeq" => Known::GroupSequence,
        "JMSDeliveryMode" => Known::DeliveryMode,
        "amq-msg-type" => Known::MessageKind,
        "transformation" => Known::Transformation,
        "ActiveMQ.Retain" => Known::Retain,
        "ActiveMQ.MQTT.QoS" => Known::Qos,
        "app-id" => Known::AppId,
        "amqp-message-id" => Known::SenderId,
        "AMQ_SCHEDULED_DELAY" | "AMQ_SCHEDULED_PERIOD" | "AMQ_SCHEDULED_REPEAT" | "AMQ_SCHEDULED_CRON" => {
            Known::Scheduled
        }
        "message-id"
        | "redelivered"
        | "subscription"
        | "ack"
        | "JMSXUserID"
        | "JMSXDeliveryCount"
        | "delivery-count"
        | "original-destination"
        | "property-types"
        | "x-percent-encoded" => Known::Dropped,
        _ => Known::Property,
    }
}

/// Reads a SEND and writes its fields.
///
/// # Errors
/// A header that must be there is not, or one says what it cannot, or asks for what is not built.
pub(crate) fn read_send<'a>(
    frame: &Frame<'a>,
    fields: &mut FieldsWriter,
    around: &mut Surroundings<'_>,
) -> Result<Sent<'a>, Refusal> {
    let mut sent = Sent {
        destination: "",
        transaction: None,
        receipt: None,
        facts: Facts { priority: PRIORITY_DEFAULT, ..Facts::default() },
        reply_queue: None,
    };
    let types = frame.get("property-types");
    let mut repeats = Repeats::new(frame);
    let mut seen = 0u32;
    let (mut content_type, mut kind, mut relative) = (None, None, None);
    let mut qos = 0;
    for (index, header) in frame.headers().enumerate() {
        let which = known(header.raw_name());
        match which {
            Known::Dropped => continue,
            Known::Property => {
                if !repeats.seen(index, &header) {
                    property(fields, &header, types.as_deref())?;
                }
                continue;
            }
            Known::Scheduled => {
                return Err(Refusal::new(
                    Code::Unsupported,
                    format!("{}: scheduled delivery is not built yet", header.raw_name()),
                ));
            }
            _ => {}
        }
        let bit = 1 << which as u32;
        if seen & bit != 0 {
            continue;
        }
        seen |= bit;
        match which {
            Known::Destination => sent.destination = header.raw_value(),
            Known::Transaction => sent.transaction = Some(header.raw_value()),
            Known::Receipt => sent.receipt = Some(header.raw_value()),
            Known::Persistent => sent.facts.persistent = header.raw_value() == "true",
            Known::DeliveryMode => {
                sent.facts.persistent = matches!(header.raw_value(), "PERSISTENT" | "2");
            }
            Known::Priority => sent.facts.priority = priority(&header)?,
            Known::Expires => sent.facts.expires = Timestamp(millis(&header)?),
            Known::Expiration => relative = Some(millis(&header)?),
            Known::Timestamp => sent.facts.timestamp = Timestamp(millis(&header)?),
            Known::CorrelationId => correlation(fields, &header.value()),
            Known::ReplyTo => sent.reply_queue = reply_to(fields, &header, around)?,
            Known::Type => text(fields, Tag::Type, &header),
            Known::ContentType => {
                content_type = Some(header.raw_value()).filter(|text| !text.is_empty());
                text(fields, Tag::ContentType, &header);
            }
            Known::ContentEncoding => text(fields, Tag::ContentEncoding, &header),
            Known::GroupId => text(fields, Tag::GroupId, &header),
            Known::GroupSequence => {
                let sequence = header.raw_value().trim().parse::<i32>();
                fields.group_sequence(sequence.map_err(|_| not_a(&header, "a 32-bit number"))?);
            }
            Known::MessageKind => {
                kind = Some(message_kind(&header)?);
                fields.text_property("amq-msg-type", header.raw_value());
            }
            Known::Retain => sent.facts.retain = header.raw_value().eq_ignore_ascii_case("true"),
            Known::Qos => qos = quality(&header)?,
            Known::AppId => text(fields, Tag::AppId, &header),
            Known::SenderId => text(fields, Tag::SenderMessageId, &header),
            Known::Transformation => transformation(&header, &mut kind)?,
            Known::Scheduled | Known::Dropped | Known::Property => {}
        }
    }
    if sent.destination.is_empty() {
        return Err(Refusal::new(Code::MissingHeader, "SEND needs a destination header"));
    }
    if let (Some(span), Timestamp::NEVER) = (relative, sent.facts.expires) {
        // RabbitMQ's clients say how long, not until when.
        sent.facts.expires = Timestamp(around.wall.0.saturating_add(span).max(1));
    }
    // It adds to what `persistent` promises and takes nothing from it.
    sent.facts.persistent |= qos > 0;
    sent.facts.exactly_once = qos > 1;
    let kind = kind.unwrap_or_else(|| body_kind(frame, content_type, around.length_means_bytes));
    // Text that is none would be refused or mangled by others; as bytes it survives.
    let text = kind == BodyKind::Text && frame.is_text();
    sent.facts.body_kind = if text { BodyKind::Text } else { BodyKind::Bytes };
    Ok(sent)
}

/// Text or bytes, where the sender does not say it in so many words (stomp.md §3).
fn body_kind(frame: &Frame<'_>, content_type: Option<&str>, length_means_bytes: bool) -> BodyKind {
    let text = match content_type {
        Some(content_type) => is_text_type(content_type),
        None => !(frame.sized && length_means_bytes),
    };
    if text { BodyKind::Text } else { BodyKind::Bytes }
}

fn text(fields: &mut FieldsWriter, tag: Tag, header: &Header<'_>) {
    fields.field(tag, header.value().as_bytes());
}

fn not_a(header: &Header<'_>, what: &str) -> Refusal {
    Refusal::new(
        Code::InvalidHeader,
        format!("{} must be {what}, not \"{}\"", header.raw_name(), header.raw_value()),
    )
}

fn priority(header: &Header<'_>) -> Result<u8, Refusal> {
    let number: i64 = header.raw_value().trim().parse().map_err(|_| not_a(header, "a number from 0 to 9"))?;
    Ok(u8::try_from(number.clamp(0, i64::from(PRIORITY_MAX))).unwrap_or(PRIORITY_DEFAULT))
}

/// The quality of service that MQTT's clients are to get it with.
fn quality(header: &Header<'_>) -> Result<u8, Refusal> {
    match header.raw_value().trim().as_bytes() {
        [digit @ b'0'..=b'2'] => Ok(digit - b'0'),
        _ => Err(not_a(header, "0, 1 or 2")),
    }
}

/// Milliseconds; what lies before 1970 counts as not set.
fn millis(header: &Header<'_>) -> Result<u64, Refusal> {
    let number: i64 =
        header.raw_value().trim().parse().map_err(|_| not_a(header, "a number of milliseconds"))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// Octets that came from another protocol were shown as `base64:…` and become octets again; text that merely looks so
/// stays text.
fn correlation(fields: &mut FieldsWriter, value: &str) {
    match shown_octets(value) {
        Some(bytes) => fields.field(Tag::CorrelationBytes, &bytes),
        None => fields.field(Tag::CorrelationText, value.as_bytes()),
    }
}

fn reply_to<'a>(
    fields: &mut FieldsWriter,
    header: &Header<'a>,
    around: &mut Surroundings<'_>,
) -> Result<Option<&'a str>, Refusal> {
    match header.value() {
        // An escaped name cannot be that of a temporary queue we would subscribe to under its raw name.
        Cow::Owned(value) => {
            match around.temporaries.reply_to(&value, around.host)? {
                Some((destination, _)) => fields.destination(Tag::ReplyTo, &destination),
                None => fields.field(Tag::ReplyToText, value.as_bytes()),
            }
            Ok(None)
        }
        Cow::Borrowed(value) => match around.temporaries.reply_to(value, around.host)? {
            Some((destination, label)) => {
                fields.destination(Tag::ReplyTo, &destination);
                Ok(label)
            }
            None => {
                fields.field(Tag::ReplyToText, value.as_bytes());
                Ok(None)
            }
        },
    }
}

fn message_kind(header: &Header<'_>) -> Result<BodyKind, Refusal> {
    match header.raw_value() {
        "text" => Ok(BodyKind::Text),
        "bytes" => Ok(BodyKind::Bytes),
        other => Err(Refusal::new(
            Code::Unsupported,
            format!("amq-msg-type is text or bytes; \"{other}\" is not built"),
        )),
    }
}

/// Of ActiveMQ's transformations on the way in only the one that asks for octets needs no other format.
fn transformation(header: &Header<'_>, kind: &mut Option<BodyKind>) -> Result<(), Refusal> {
    match header.raw_value() {
        "jms-byte" => {
            *kind = Some(BodyKind::Bytes);
            Ok(())
        }
        other => Err(Refusal::new(
            Code::Unsupported,
            format!("transformation:{other} on SEND is not built; send JSON with its content-type instead"),
        )),
    }
}

fn property(fields: &mut FieldsWriter, header: &Header<'_>, types: Option<&str>) -> Result<(), Refusal> {
    let (name, value) = (header.name(), header.value());
    let Some(kind) = types.and_then(|types| type_of(types, &name)) else {
        fields.text_property(&name, &value);
        return Ok(());
    };
    let as_text = ValueRef::Str(&value);
    let wrong = || not_a(header, &format!("of the type {kind} that property-types gives it"));
    let typed = match kind {
        "bool" => match &*value {
            "true" => ValueRef::Bool(true),
            "false" => ValueRef::Bool(false),
            _ => return Err(wrong()),
        },
        "i8" => ValueRef::I8(as_text.as_i8().map_err(|_| wrong())?),
        "i16" => ValueRef::I16(as_text.as_i16().map_err(|_| wrong())?),
        "i32" => ValueRef::I32(as_text.as_i32().map_err(|_| wrong())?),
        "i64" => ValueRef::I64(as_text.as_i64().map_err(|_| wrong())?),
        "f32" => ValueRef::F32(as_text.as_f32().map_err(|_| wrong())?),
        "f64" => ValueRef::F64(as_text.as_f64().map_err(|_| wrong())?),
        "string" => as_text,
        "bytes" => {
            let bytes = base64::decode(value.as_bytes()).ok_or_else(wrong)?;
            fields.property(&name, &ValueRef::Bytes(&bytes));
            return Ok(());
        }
        other => {
            return Err(Refusal::new(
                Code::InvalidHeader,
                format!("property-types gives {name} the type \"{other}\", which is none"),
            ));
        }
    };
    fields.property(&name, &typed);
    Ok(())
}

/// The type that `price=f64,n=i32` gives `name`.
fn type_of<'a>(types: &'a str, name: &str) -> Option<&'a str> {
    types.split(',').find_map(|entry| {
        let (entry_name, kind) = entry.rsplit_once('=')?;
        (entry_name.trim() == name).then(|| kind.trim())
    })
}

/// The name that `property-types` gives a value's type; `None` for text and for what has no name there.
pub(crate) fn type_name(value: &ValueRef<'_>) -> Option<&'static str> {
    match value {
        ValueRef::Bool(_) => Some("bool"),
        ValueRef::I8(_) => Some("i8"),
        ValueRef::I16(_) => Some("i16"),
        ValueRef::I32(_) => Some("i32"),
        ValueRef::I64(_) => Some("i64"),
        ValueRef::F32(_) => Some("f32"),
        ValueRef::F64(_) => Some("f64"),
        ValueRef::Bytes(_) => Some("bytes"),
        ValueRef::Null | ValueRef::Str(_) | ValueRef::Nested(_) => None,
    }
}

/// Which property names of a frame have come before: the first of a repeated name wins.
struct Repeats<'f, 'a> {
    frame: &'f Frame<'a>,
    /// One bit per digest of a name, so that the usual frame is compared with nothing.
    digests: u64,
    names: Option<HashSet<&'a str>>,
}

impl<'f, 'a> Repeats<'f, 'a> {
    fn new(frame: &'f Frame<'a>) -> Self {
        let many = frame.spans.len() > HEADERS_COMPARED_MAX;
        Self { frame, digests: 0, names: many.then(HashSet::new) }
    }

    fn seen(&mut self, index: usize, header: &Header<'a>) -> bool {
        let name = header.raw_name();
        if let Some(names) = &mut self.names {
            return !names.insert(name);
        }
        let bytes = name.as_bytes();
        let edge = |byte: Option<&u8>| u32::from(*byte.unwrap_or(&0));
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        let digest = length.wrapping_mul(7) ^ edge(bytes.first()).wrapping_mul(5) ^ edge(bytes.last());
        let bit = 1u64 << (digest & 63);
        let maybe = self.digests & bit != 0;
        self.digests |= bit;
        maybe && self.frame.headers().take(index).any(|earlier| earlier.raw_name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_tell_text_from_bytes() {
        for (content_type, text) in [
            ("text/plain", true),
            ("TEXT/HTML;charset=utf-8", true),
            ("application/json", true),
            ("application/problem+json", true),
            ("application/soap+xml; action=x", true),
            ("application/octet-stream", false),
            ("application/octet-stream;charset=utf-8", true),
            ("image/png", false),
            ("", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_text_type(content_type), text, "{content_type}");
        }
    }
}
