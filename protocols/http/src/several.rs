//! Arrays of messages, looked at before their items are read: what a message takes in memory is far more than the two
//! bytes of `{}`, so their number is known before any is made.

use std::fmt;

use sabir_json::EnvelopeError;
use sabir_model::error::Code;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::incoming::{MESSAGES_MAX, too_many};

/// The items of an array, unread.
///
/// # Errors
/// It is no array, or has more than [`MESSAGES_MAX`] items.
pub(crate) fn several(bytes: &[u8]) -> Result<Vec<&RawValue>, EnvelopeError> {
    let Several(items) = serde_json::from_slice(bytes).map_err(|error| no_json(&error))?;
    if items.len() > MESSAGES_MAX { Err(too_many()) } else { Ok(items) }
}

pub(crate) fn no_json(error: &serde_json::Error) -> EnvelopeError {
    let place = (error.line() > 0).then(|| (error.line(), error.column()));
    EnvelopeError { place, ..EnvelopeError::new(Code::InvalidBody, error.to_string()) }
}

/// One item more at most than there may be.
struct Several<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Several<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(SeveralVisitor)
    }
}

struct SeveralVisitor;

impl<'de> Visitor<'de> for SeveralVisitor {
    type Value = Several<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of CloudEvents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element()? {
            if out.len() <= MESSAGES_MAX {
                out.push(item);
            }
        }
        Ok(Several(out))
    }
}
