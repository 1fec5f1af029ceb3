//! What is to be sent when the client is lost, as CONNECT says it.

use sabir_model::clock::Timestamp;
use sabir_model::command;
use sabir_model::destination::Targets;
use sabir_model::error::Refusal;
use sabir_model::limits::Limits;
use sabir_model::message::{Facts, FieldsWriter};

use crate::packet::Will;
use crate::{topic, translate};

/// A will whose topic and properties have been read.
#[derive(Debug)]
pub(crate) struct Testament<'a> {
    targets: Targets,
    facts: Facts,
    payload: &'a [u8],
    delay_ms: u64,
}

impl<'a> Testament<'a> {
    /// Reads it and writes its fields.
    ///
    /// # Errors
    /// It goes nowhere, or its payload is not the text that it says it is.
    pub(crate) fn read(will: &Will<'a>, limits: &Limits, fields: &mut FieldsWriter) -> Result<Self, Refusal> {
        let target = topic::target(will.topic, limits.topic_levels_max)?;
        let facts = translate::read_message(
            &will.properties,
            || std::str::from_utf8(will.payload).is_ok(),
            will.qos,
            will.retain,
            limits.topic_levels_max,
            fields,
        )?;
        Ok(Self {
            targets: Targets::from_iter([target]),
            // It counts from when the will is sent.
            facts: Facts { expires: translate::expires(will.properties.expiry_s, Timestamp(0)), ..facts },
            payload: will.payload,
            delay_ms: u64::from(will.delay_s.unwrap_or(0)) * 1000,
        })
    }

    /// As the broker takes it.
    pub(crate) fn will<'b>(&'b self, fields: &'b FieldsWriter) -> command::Will<'b> {
        command::Will {
            targets: &self.targets,
            facts: self.facts,
            fields: fields.as_slice(),
            body: self.payload,
            delay_ms: self.delay_ms,
        }
    }
}
