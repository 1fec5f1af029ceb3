//! A PUBLISH or a will becomes a neutral message: which properties are fields of the model, and whether the body is text
//! or bytes. The way out is `render`.

use sabir_model::clock::Timestamp;
use sabir_model::delivery::Guarantee;
use sabir_model::error::{Code, Refusal};
use sabir_model::message::{BodyKind, Facts, FieldsWriter, PRIORITY_DEFAULT, Tag};
use sabir_model::text::is_text_type;

use crate::packet::{MessageProperties, Qos};
use crate::topic;

/// The user property that is also the model's priority.
pub(crate) const PRIORITY: &str = "priority";

/// Reads what travels with a message and writes its fields. `expires` is left out. `is_text` says whether the payload is
/// UTF-8; it is asked only if that matters.
///
/// # Errors
/// The payload is not the text that it says it is.
pub(crate) fn read_message(
    properties: &MessageProperties<'_>,
    is_text: impl FnOnce() -> bool,
    qos: Qos,
    retain: bool,
    levels_max: usize,
    fields: &mut FieldsWriter,
) -> Result<Facts, Refusal> {
    fields.clear();
    let mut priority = PRIORITY_DEFAULT;
    if let Some(content_type) = properties.content_type {
        fields.field(Tag::ContentType, content_type.as_bytes());
    }
    if let Some(response_topic) = properties.response_topic {
        match topic::destination(response_topic, levels_max) {
            Ok(destination) => fields.destination(Tag::ReplyTo, &destination),
            // Nothing of ours, but it travels along unaltered [5: 3.3.2-15].
            Err(_) => fields.field(Tag::ReplyToText, response_topic.as_bytes()),
        }
    }
    if let Some(data) = properties.correlation_data {
        // Text, if it can be shown as such: others compare it, and a selector reads it.
        let is_text = std::str::from_utf8(data).is_ok_and(|text| !text.chars().any(char::is_control));
        fields.field(if is_text { Tag::CorrelationText } else { Tag::CorrelationBytes }, data);
    }
    // In order, with whatever repeats [5: 3.3.2-18].
    for (name, value) in properties.user.iter() {
        match field_of(name) {
            Some(Tag::GroupSequence) => group_sequence(name, value, fields),
            Some(tag) => fields.field(tag, value.as_bytes()),
            None => fields.text_property(name, value),
        }
        if name == PRIORITY
            && let [digit @ b'0'..=b'9'] = *value.as_bytes()
        {
            priority = digit - b'0';
        }
    }
    Ok(Facts {
        priority,
        persistent: qos != Qos::AtMostOnce,
        exactly_once: qos == Qos::ExactlyOnce,
        retain,
        body_kind: body_kind(properties, is_text)?,
        ..Facts::default()
    })
}

/// The field that a user property of this name is: what `render` writes for it, so that it leaves as it came.
fn field_of(name: &str) -> Option<Tag> {
    Some(match name {
        "type" => Tag::Type,
        "content-encoding" => Tag::ContentEncoding,
        "JMSXGroupID" => Tag::GroupId,
        "JMSXGroupSeq" => Tag::GroupSequence,
        "message-id" => Tag::SenderMessageId,
        "app-id" => Tag::AppId,
        _ => return None,
    })
}

/// A number is one if it would be written so again; anything else is a property.
fn group_sequence(name: &str, value: &str, fields: &mut FieldsWriter) {
    match value.parse::<i32>() {
        Ok(sequence) if sequence.to_string() == value => fields.group_sequence(sequence),
        _ => fields.text_property(name, value),
    }
}

/// Whether the kind of the body depends on the payload: on its being UTF-8.
pub(crate) fn looks_at_payload(properties: &MessageProperties<'_>) -> bool {
    properties.payload_is_text == Some(true) || properties.content_type.is_some_and(is_text_type)
}

fn body_kind(
    properties: &MessageProperties<'_>,
    is_text: impl FnOnce() -> bool,
) -> Result<BodyKind, Refusal> {
    if !looks_at_payload(properties) {
        return Ok(BodyKind::Bytes);
    }
    match (is_text(), properties.payload_is_text == Some(true)) {
        (true, _) => Ok(BodyKind::Text),
        // A content type is what the sender thinks; only the indicator promises.
        (false, false) => Ok(BodyKind::Bytes),
        // 3.3.2.3.2
        (false, true) => {
            Err(Refusal::new(Code::InvalidBody, "the payload is said to be UTF-8 text but is not"))
        }
    }
}

/// When a message that may wait for so many seconds from `now` on is of no more use.
pub(crate) fn expires(expiry_s: Option<u32>, now: Timestamp) -> Timestamp {
    match expiry_s {
        Some(seconds) => Timestamp(now.0.saturating_add(u64::from(seconds) * 1000).max(1)),
        None => Timestamp::NEVER,
    }
}

/// How surely a message of this QoS is to arrive.
pub(crate) fn guarantee(qos: Qos) -> Guarantee {
    match qos {
        Qos::AtMostOnce => Guarantee::AtMostOnce,
        Qos::AtLeastOnce => Guarantee::AtLeastOnce,
        Qos::ExactlyOnce => Guarantee::ExactlyOnce,
    }
}

/// The QoS that hands a message over so surely.
pub(crate) fn qos(guarantee: Guarantee) -> Qos {
    match guarantee {
        Guarantee::AtMostOnce => Qos::AtMostOnce,
        Guarantee::AtLeastOnce => Qos::AtLeastOnce,
        Guarantee::ExactlyOnce => Qos::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::packet::UserPropertiesBuffer;
    use crate::render::Renderer;
    use sabir_model::headers::ValueRef;
    use sabir_model::message::{Body, Field, Fields, Message};

    fn read(properties: &MessageProperties<'_>, payload: &[u8]) -> Result<(Facts, FieldsWriter), Refusal> {
        let mut fields = FieldsWriter::new();
        let facts = read_message(
            properties,
            || std::str::from_utf8(payload).is_ok(),
            Qos::AtLeastOnce,
            false,
            8,
            &mut fields,
        )?;
        Ok((facts, fields))
    }

    #[test]
    fn kinds_of_bodies_follow_the_indicator_and_the_content_type() {
        for (payload_is_text, content_type, payload, kind) in [
            (None, None, &b"text"[..], Some(BodyKind::Bytes)),
            (Some(false), None, b"text", Some(BodyKind::Bytes)),
            (Some(true), None, b"text", Some(BodyKind::Text)),
            (Some(true), Some("image/png"), b"text", Some(BodyKind::Text)),
            (Some(true), None, b"\xff", None),
            (None, Some("text/plain"), b"text", Some(BodyKind::Text)),
            (None, Some("Application/JSON; charset=utf-8"), b"{}", Some(BodyKind::Text)),
            (None, Some("application/problem+json"), b"{}", Some(BodyKind::Text)),
            (None, Some("x/y;charset=utf-8"), b"{}", Some(BodyKind::Text)),
            (None, Some("text/plain"), b"\xff", Some(BodyKind::Bytes)),
            (None, Some("image/png"), b"text", Some(BodyKind::Bytes)),
            (None, Some(""), b"text", Some(BodyKind::Bytes)),
        ] {
            let properties = MessageProperties { payload_is_text, content_type, ..Default::default() };
            let got = read(&properties, payload).map(|(facts, _)| facts.body_kind);
            assert_eq!(got.as_ref().ok(), kind.as_ref(), "{properties:?}");
            if let Err(refusal) = got {
                assert_eq!(refusal.code, Code::InvalidBody);
            }
        }
    }

    #[test]
    fn properties_keep_their_order_and_repetitions_mqtt_3_3_2_18() {
        let mut user = UserPropertiesBuffer::new();
        for (name, value) in [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("priority", "7")] {
            assert!(user.push(name, value));
        }
        let properties = MessageProperties {
            content_type: Some("x"),
            response_topic: Some("$queue/replies"),
            correlation_data: Some(b"\xff\0"),
            user: user.get(),
            ..Default::default()
        };
        let (facts, fields) = read(&properties, b"").unwrap();
        assert_eq!(facts.priority, 7);
        let got: Vec<_> = Fields::new(fields.as_slice()).collect();
        let text = |name, value| Field::Property(name, ValueRef::Str(value));
        assert_eq!(
            got,
            [
                Field::Plain(Tag::ContentType, b"x"),
                Field::Plain(Tag::ReplyTo, b"\0replies"),
                Field::Plain(Tag::CorrelationBytes, b"\xff\0"),
                text("b", "1"),
                text("a", "2"),
                text("b", "1"),
                text("", ""),
                text("priority", "7"),
            ]
        );
    }

    #[test]
    fn properties_that_are_fields_of_the_model_leave_as_they_came_mqtt_3_3_2_17() {
        let pairs = [
            ("type", "order"),
            ("a", "1"),
            ("JMSXGroupSeq", "-1"),
            ("JMSXGroupSeq", "007"),
            ("JMSXGroupID", ""),
            ("message-id", "m:1"),
            ("message-id", "m:2"),
            ("app-id", "shop"),
            ("content-encoding", "gzip"),
            ("type", "other"),
        ];
        let mut user = UserPropertiesBuffer::new();
        for (name, value) in pairs {
            assert!(user.push(name, value));
        }
        let properties = MessageProperties { user: user.get(), ..Default::default() };
        let (facts, fields) = read(&properties, b"").unwrap();
        for (tag, text) in [(Tag::Type, "order"), (Tag::SenderMessageId, "m:1"), (Tag::GroupId, "")] {
            assert_eq!(Fields::new(fields.as_slice()).find_text(tag), Some(text));
        }
        assert_eq!(Fields::new(fields.as_slice()).find(Tag::GroupSequence), Some(&(-1i32).to_le_bytes()[..]));
        let message = Message::new(facts, &[fields.as_slice()], Body::Borrowed(b""));
        let mut renderer = Renderer::default();
        assert!(renderer.properties(&message, Timestamp(1)).user.iter().eq(pairs));
    }

    #[test]
    fn a_response_topic_that_names_nothing_of_ours_is_kept_mqtt_3_3_2_15() {
        let properties = MessageProperties { response_topic: Some("a\nb"), ..Default::default() };
        let (_, fields) = read(&properties, b"").unwrap();
        assert_eq!(Fields::new(fields.as_slice()).find_text(Tag::ReplyToText), Some("a\nb"));
    }
}
