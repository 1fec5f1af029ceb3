//! A neutral message becomes a PUBLISH: its body, and what travels with it in version 5.
//!
//! What MQTT has a property for goes there; what else a sender has said becomes a user property, under the name that
//! STOMP's users know. Nothing is added that its sender has not said, so that user properties arrive as they were sent
//! [5: 3.3.2-17].

use std::borrow::Cow;

use sabir_model::clock::Timestamp;
use sabir_model::destination::DestinationRef;
use sabir_model::headers::ValueRef;
use sabir_model::message::{BodyKind, Content, Field, Message, PRIORITY_DEFAULT, Tag};
use sabir_model::stored::Stored;

use crate::filter;
use crate::packet::{MessageProperties, UserPropertiesBuffer};
use crate::topic;
use crate::translate::PRIORITY;

/// Longest text or octets that a property holds.
const PROPERTY_BYTES_MAX: usize = 65_535;
/// Memory for properties that is kept between messages.
const BYTES_KEPT: usize = 16 * 1024;

/// A body as it goes out.
pub(crate) enum Shown<'a> {
    /// These octets.
    Octets(Cow<'a, [u8]>),
    /// What lies there, unchanged.
    Stored(&'a Stored),
}

impl Shown<'_> {
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Octets(bytes) => bytes.len(),
            Self::Stored(stored) => usize::try_from(stored.length()).unwrap_or(usize::MAX),
        }
    }
}

/// The body as an MQTT client gets it: octets as they are, maps and lists as JSON. Maps and lists are always in memory.
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

/// Where properties are put together; reused.
#[derive(Debug, Default)]
pub(crate) struct Renderer {
    user: UserPropertiesBuffer,
    response_topic: String,
    text: Vec<u8>,
}

impl Renderer {
    /// What travels with `message` in version 5.
    pub(crate) fn properties<'a>(
        &'a mut self,
        message: &'a Message,
        now: Timestamp,
    ) -> MessageProperties<'a> {
        self.user.clear();
        self.response_topic.clear();
        let facts = message.facts();
        let mut found = MessageProperties {
            payload_is_text: matches!(facts.body_kind, BodyKind::Text | BodyKind::Map | BodyKind::List)
                .then_some(true),
            expiry_s: remaining_s(facts.expires, not_before(now, facts.timestamp)),
            ..MessageProperties::default()
        };
        let mut has_priority = facts.priority == PRIORITY_DEFAULT;
        for field in message.fields() {
            match field {
                Field::Property(name, value) => {
                    has_priority |= name == PRIORITY;
                    self.property(name, &value);
                }
                Field::Plain(tag, bytes) => {
                    if let Some(name) = name_of(tag) {
                        self.user.push(name, std::str::from_utf8(bytes).unwrap_or_default());
                        continue;
                    }
                    match tag {
                        Tag::ContentType => found.content_type = plain_text(bytes),
                        Tag::CorrelationText | Tag::CorrelationBytes => {
                            found.correlation_data = (bytes.len() <= PROPERTY_BYTES_MAX).then_some(bytes);
                        }
                        Tag::ReplyTo => {
                            if let Some(destination) = DestinationRef::decode(bytes) {
                                topic::put_name(&mut self.response_topic, destination);
                            }
                        }
                        Tag::ReplyToText => match plain_text(bytes) {
                            Some(text) if filter::check_name(text, filter::Bounds::PROTOCOL).is_ok() => {
                                found.response_topic = Some(text);
                            }
                            Some(text) => {
                                self.user.push("reply-to", text);
                            }
                            None => {}
                        },
                        Tag::GroupSequence => self.group_sequence(bytes),
                        // Concerns of the broker, or told otherwise.
                        _ => {}
                    }
                }
            }
        }
        if !has_priority {
            self.text.clear();
            ValueRef::I32(facts.priority.into()).write_text(&mut self.text);
            self.user.push(PRIORITY, std::str::from_utf8(&self.text).unwrap_or_default());
        }
        found.content_type = found.content_type.or_else(|| content_type(facts.body_kind));
        let this: &'a Self = self;
        if !this.response_topic.is_empty() {
            found.response_topic = Some(&this.response_topic);
        }
        found.user = this.user.get();
        found
    }

    /// Gives back memory that only an unusual message needs.
    pub(crate) fn tidy(&mut self) {
        if self.user.get().encoded_bytes() > BYTES_KEPT {
            self.user = UserPropertiesBuffer::new();
        }
        self.response_topic.shrink_to(BYTES_KEPT);
        self.text.shrink_to(BYTES_KEPT);
    }

    fn property(&mut self, name: &str, value: &ValueRef<'_>) {
        match value {
            ValueRef::Null => {}
            ValueRef::Str(text) => {
                self.user.push(name, text);
            }
            other => {
                self.text.clear();
                other.write_text(&mut self.text);
                self.user.push(name, std::str::from_utf8(&self.text).unwrap_or_default());
            }
        }
    }

    fn group_sequence(&mut self, bytes: &[u8]) {
        let Ok(bytes) = bytes.try_into() else { return };
        self.property("JMSXGroupSeq", &ValueRef::I32(i32::from_le_bytes(bytes)));
    }
}

/// The user property for a field that only its sender can have written, and that MQTT has no property for.
fn name_of(tag: Tag) -> Option<&'static str> {
    Some(match tag {
        Tag::Type => "type",
        Tag::ContentEncoding => "content-encoding",
        Tag::GroupId => "JMSXGroupID",
        Tag::SenderMessageId => "message-id",
        Tag::AppId => "app-id",
        Tag::TraceContext => "traceparent",
        _ => return None,
    })
}

fn plain_text(bytes: &[u8]) -> Option<&str> {
    let fits = bytes.len() <= PROPERTY_BYTES_MAX && memchr::memchr(0, bytes).is_none();
    std::str::from_utf8(bytes).ok().filter(|_| fits)
}

/// How far ahead of a delivery's batch the one that brought the message may be, in milliseconds.
const BATCHES_APART_MS: u64 = 1000;

/// The time of a delivery, which is not before the message was sent: whoever delivers may have begun a little earlier, and
/// no message has more time left than it was given.
fn not_before(now: Timestamp, sent: Timestamp) -> Timestamp {
    if sent.0.saturating_sub(now.0) <= BATCHES_APART_MS { now.max(sent) } else { now }
}

/// Milliseconds by which two readings of the server's clock in one batch may differ.
const GRAIN_MS: u64 = 1;

/// The seconds that are left, rounded up and at least one [5: 3.3.2-6]. A grain of the clock is no second more.
fn remaining_s(expires: Timestamp, now: Timestamp) -> Option<u32> {
    if expires == Timestamp::NEVER {
        return None;
    }
    let left = expires.0.saturating_sub(now.0).saturating_sub(GRAIN_MS).div_ceil(1000).max(1);
    Some(u32::try_from(left).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use sabir_model::destination::{Destination, Kind};
    use sabir_model::headers::Value;
    use sabir_model::message::{Body, Facts, FieldsWriter};

    fn message(facts: Facts, write: impl FnOnce(&mut FieldsWriter)) -> Message {
        let mut fields = FieldsWriter::new();
        write(&mut fields);
        Message::new(facts, &[fields.as_slice()], Body::Borrowed(b""))
    }

    fn user(properties: &MessageProperties<'_>) -> Vec<(String, String)> {
        properties.user.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_remaining_time_is_rounded_up_cross_protocol_5() {
        for (expires, now, left) in [
            (0, 5000, None),
            (6500, 5000, Some(2)),
            (6000, 5000, Some(1)),
            (6001, 5000, Some(1)),
            (6002, 5000, Some(2)),
            (5001, 5000, Some(1)),
            (4000, 5000, Some(1)),
            (15_000, 9200, Some(6)),
            (u64::MAX, 0, Some(u32::MAX)),
        ] {
            assert_eq!(remaining_s(Timestamp(expires), Timestamp(now)), left);
        }
        for (now, sent, time) in [(5000, 4000, 5000), (5000, 5003, 5003), (5000, 9000, 5000), (5000, 0, 5000)]
        {
            assert_eq!(not_before(Timestamp(now), Timestamp(sent)), Timestamp(time));
        }
    }

    #[test]
    fn fields_of_other_protocols_become_properties_cross_protocol_1() {
        let facts = Facts { priority: 9, body_kind: BodyKind::Map, ..Facts::default() };
        let message = message(facts, |fields| {
            fields.field(Tag::CorrelationText, "ü".as_bytes());
            fields.destination(Tag::ReplyTo, &Destination::queue("a.b"));
            fields.field(Tag::Type, b"order");
            fields.text_property("x", "1");
            fields.text_property("x", "2");
            fields.property("n", &ValueRef::I32(-5));
            fields.property("b", &ValueRef::Bytes(b"\xff\0"));
            fields.property("nothing", &ValueRef::Null);
            let mut list = Vec::new();
            Value::List(vec![Value::Bool(true)]).encode(&mut list);
            fields.property("l", &ValueRef::decode(&list).unwrap().0);
            fields.group_sequence(-1);
            fields.text_property("zero", "a\0b");
            fields.field(Tag::UserId, b"alice");
        });
        let mut renderer = Renderer::default();
        let got = renderer.properties(&message, Timestamp(1));
        assert_eq!(got.correlation_data, Some("ü".as_bytes()));
        assert_eq!(got.response_topic, Some("$queue/a/b"));
        assert_eq!((got.content_type, got.payload_is_text), (Some("application/json"), Some(true)));
        let expected = [
            ("type", "order"),
            ("x", "1"),
            ("x", "2"),
            ("n", "-5"),
            ("b", "/wA="),
            ("l", "[true]"),
            ("JMSXGroupSeq", "-1"),
            ("priority", "9"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(user(&got), expected);
    }

    #[test]
    fn a_reply_to_is_a_response_topic_if_it_can_be_one() {
        let text = |text: &str| {
            let text = text.to_owned();
            message(Facts { priority: PRIORITY_DEFAULT, ..Facts::default() }, |fields| {
                fields.field(Tag::ReplyToText, text.as_bytes());
            })
        };
        let destination = |destination: &Destination| {
            message(Facts { priority: PRIORITY_DEFAULT, ..Facts::default() }, |fields| {
                fields.destination(Tag::ReplyTo, destination);
            })
        };
        let temporary = Destination::from_dotted(Kind::Queue, true, "ID:1").unwrap();
        let mut renderer = Renderer::default();
        for (message, topic, others) in [
            (text("amqp:x"), Some("amqp:x"), 0),
            (text("a#"), None, 1),
            (destination(&Destination::topic("a.b")), Some("a/b"), 0),
            (destination(&temporary), Some("$reply/queue/ID:1"), 0),
        ] {
            let got = renderer.properties(&message, Timestamp(1));
            assert_eq!((got.response_topic, user(&got).len()), (topic, others));
        }
    }
}
