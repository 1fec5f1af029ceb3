//! Looking for text in messages.

use sabir_model::headers::ValueRef;
use sabir_model::message::{Content, Field, Message, Tag};
use sabir_model::stored::Stored;

/// So much of a body that is not in memory is looked through.
const STORED_BYTES_SEARCHED: usize = 64 << 10;

/// Text to look for, whatever the case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// What somebody has typed; nothing, if that is empty.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_lowercase()))
    }

    /// Whether it is in the body (of one that is not in memory, in the first `STORED_BYTES_SEARCHED`), in the name or the value of a property, or in one of the fields that people read.
    #[must_use]
    pub fn is_in(&self, message: &Message) -> bool {
        self.is_in_body(message.body())
            || message.fields().any(|field| match field {
                Field::Property(name, ValueRef::Str(value)) => {
                    self.found(name.as_bytes()) || self.found(value.as_bytes())
                }
                Field::Property(name, value) => {
                    let mut text = Vec::new();
                    value.write_as_json(&mut text);
                    self.found(name.as_bytes()) || self.found(&text)
                }
                Field::Plain(
                    Tag::Type
                    | Tag::CorrelationText
                    | Tag::ContentType
                    | Tag::GroupId
                    | Tag::UserId
                    | Tag::SenderMessageId
                    | Tag::OriginalDestination
                    | Tag::ReplyToText,
                    text,
                ) => self.found(text),
                Field::Plain(_, _) => false,
            })
    }

    /// About so many bytes are looked through for it, in memory or on the disk.
    pub(crate) fn searched(message: &Message) -> usize {
        let stored = message.stored_body().map_or(0, Stored::length);
        message.memory()
            + usize::try_from(stored).map_or(STORED_BYTES_SEARCHED, |n| n.min(STORED_BYTES_SEARCHED))
    }

    fn is_in_body(&self, body: Content<'_>) -> bool {
        match body {
            Content::Octets(octets) => self.found(octets),
            Content::Stored(stored) => match stored.read_front(STORED_BYTES_SEARCHED) {
                Ok(octets) => self.found(&octets),
                Err(error) => {
                    tracing::warn!(%error, "a message body cannot be searched");
                    false
                }
            },
        }
    }

    fn found(&self, octets: &[u8]) -> bool {
        let wanted = self.0.as_bytes();
        if self.0.is_ascii() {
            let Some(&first) = wanted.first() else { return true };
            let upper = first.to_ascii_uppercase();
            let starts = octets.windows(wanted.len());
            return starts
                .filter(|window| window.first().is_some_and(|byte| *byte == first || *byte == upper))
                .any(|window| window.eq_ignore_ascii_case(wanted));
        }
        // What is no text may hold some all the same.
        String::from_utf8_lossy(octets).to_lowercase().contains(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use sabir_model::message::{Body, Facts, FieldsWriter};

    use super::*;

    #[test]
    fn text_is_found_in_bodies_and_properties_whatever_the_case() {
        let mut fields = FieldsWriter::new();
        fields.text_property("Region", "Zürich");
        fields.property("count", &ValueRef::I64(4711));
        fields.field(Tag::CorrelationText, b"Order-7");
        let message =
            Message::new(Facts::default(), &[fields.as_slice()], Body::Borrowed(b"\xff The Quick\0 FOX"));
        for there in ["quick", "QUICK", "fox", "zÜRICH", "region", "4711", "order-7", "the q", "\u{0}"] {
            assert!(Text::new(there).unwrap().is_in(&message), "{there}");
        }
        for absent in ["quickfox", "zurich", "4712", "fox!", "the  quick"] {
            assert!(!Text::new(absent).unwrap().is_in(&message), "{absent}");
        }
        assert_eq!(Text::new(""), None);
    }
}
