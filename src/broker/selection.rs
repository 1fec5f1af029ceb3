//! A message as selectors see it: JMS header identifiers beside the message's own properties.

use std::cell::OnceCell;

use sabir_model::clock::Timestamp;
use sabir_model::destination::{Destination, DestinationRef};
use sabir_model::headers::ValueRef;
use sabir_model::message::{Field, Message, Tag};
use sabir_model::selector::Lookup;

/// What a selector looks at. Text that must be made is made once, and only if asked for.
pub(crate) struct MessageView<'a> {
    message: &'a Message,
    destination: Option<&'a Destination>,
    attempt: u32,
    redelivered: bool,
    texts: [OnceCell<String>; 4],
}

impl<'a> MessageView<'a> {
    /// Over a message that a queue of this name hands out, or that is still on its way (`None`).
    pub(crate) fn new(message: &'a Message, destination: Option<&'a Destination>) -> Self {
        Self { message, destination, attempt: 1, redelivered: false, texts: Default::default() }
    }

    pub(crate) fn attempt(mut self, attempt: u32, redelivered: bool) -> Self {
        self.attempt = attempt;
        self.redelivered = redelivered;
        self
    }

    fn text(&self, tag: Tag) -> ValueRef<'_> {
        self.message.fields().find_text(tag).map_or(ValueRef::Null, ValueRef::Str)
    }

    fn made(&self, slot: usize, make: impl FnOnce() -> Option<String>) -> ValueRef<'_> {
        let Some(cell) = self.texts.get(slot) else { return ValueRef::Null };
        match cell.get_or_init(|| make().unwrap_or_default()).as_str() {
            "" => ValueRef::Null,
            text => ValueRef::Str(text),
        }
    }
}

fn milliseconds(time: Timestamp) -> ValueRef<'static> {
    ValueRef::I64(time.0.cast_signed())
}

impl Lookup for MessageView<'_> {
    fn get(&self, name: &str) -> ValueRef<'_> {
        let facts = self.message.facts();
        match name {
            "JMSDestination" | "AMQAddress" => self.made(0, || {
                let original = self.message.fields().find_text(Tag::OriginalDestination);
                original
                    .map(str::to_owned)
                    .or_else(|| self.message.destination().map(|d| d.to_string()))
                    .or_else(|| self.destination.map(ToString::to_string))
            }),
            "JMSReplyTo" => self.made(1, || {
                let fields = self.message.fields();
                fields
                    .find(Tag::ReplyTo)
                    .and_then(DestinationRef::decode)
                    .map(|destination| destination.to_string())
                    .or_else(|| fields.find_text(Tag::ReplyToText).map(str::to_owned))
            }),
            "JMSMessageID" => match self.text(Tag::SenderMessageId) {
                ValueRef::Null => self.made(2, || Some(facts.id.to_string())),
                given => given,
            },
            "JMSCorrelationID" => self.text(Tag::CorrelationText),
            "JMSType" => self.text(Tag::Type),
            "JMSDeliveryMode" | "AMQDurable" => ValueRef::Str(match (name, facts.persistent) {
                ("AMQDurable", true) => "DURABLE",
                ("AMQDurable", false) => "NON_DURABLE",
                (_, true) => "PERSISTENT",
                (_, false) => "NON_PERSISTENT",
            }),
            "JMSPriority" | "AMQPriority" => ValueRef::I32(i32::from(facts.priority)),
            "JMSTimestamp" | "AMQTimestamp" | "JMSActiveMQBrokerInTime" => milliseconds(facts.timestamp),
            "JMSExpiration" | "AMQExpiration" => milliseconds(facts.expires),
            "JMSRedelivered" => ValueRef::Bool(self.redelivered),
            "JMSXDeliveryCount" => ValueRef::I32(i32::try_from(self.attempt).unwrap_or(i32::MAX)),
            "JMSXGroupID" | "AMQGroupID" => self.text(Tag::GroupId),
            "JMSXGroupSeq" => {
                let sequence = self.message.fields().find(Tag::GroupSequence).and_then(|b| b.try_into().ok());
                sequence.map_or(ValueRef::Null, |bytes| ValueRef::I32(i32::from_le_bytes(bytes)))
            }
            "JMSXUserID" | "AMQUserID" => self.text(Tag::UserId),
            "AMQSize" => ValueRef::I64(i64::try_from(self.message.body().length()).unwrap_or(i64::MAX)),
            _ => self.property(name),
        }
    }
}

impl MessageView<'_> {
    fn property(&self, name: &str) -> ValueRef<'_> {
        for field in self.message.fields() {
            match (field, name) {
                (Field::Property(known, value), _) if known == name => return value,
                // Headers that the model holds as fields stay reachable by the names clients give them.
                (Field::Plain(Tag::ContentType, value), "content-type")
                | (Field::Plain(Tag::ContentEncoding, value), "content-encoding")
                | (Field::Plain(Tag::AppId, value), "app-id")
                | (Field::Plain(Tag::CorrelationText, value), "correlation-id")
                | (Field::Plain(Tag::Type, value), "type") => {
                    return std::str::from_utf8(value).map_or(ValueRef::Null, ValueRef::Str);
                }
                _ => {}
            }
        }
        ValueRef::Null
    }
}
