//! Events on their way in.

use std::borrow::Cow;
use std::fmt;

use sabir_json::{Draft, DraftBody, EnvelopeError};
use sabir_model::base64;
use sabir_model::headers::Value;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ATTRIBUTES_MAX, PREFIX, VERSION, is_attribute_name, is_json_type, time};
use crate::incoming::{body_of, encoding, header, wrong};
use crate::percent;
use crate::several::{no_json, several};

/// Attributes that an event cannot be without (CloudEvents §3.1).
const REQUIRED: [&str; 4] = ["id", "source", "specversion", "type"];
/// Those and the others that the specification names: all of them text.
const TEXTS: [&str; 8] =
    ["datacontenttype", "dataschema", "id", "source", "specversion", "subject", "time", "type"];

/// Reads one event in the JSON format.
pub(crate) fn structured(bytes: &[u8]) -> Result<Draft<'_>, EnvelopeError> {
    let members: Members<'_> = serde_json::from_slice(bytes).map_err(|error| no_json(&error))?;
    event(members)
}

/// Reads an array of events in the JSON format. One that cannot be read is told by its number, from 1.
pub(crate) fn batch(bytes: &[u8]) -> Result<Vec<Draft<'_>>, EnvelopeError> {
    let items = several(bytes)?;
    let mut drafts = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let draft = structured(item.get().as_bytes()).map_err(|error| EnvelopeError {
            sentence: format!("event {}: {}", at + 1, error.sentence),
            // It would be counted from the beginning of this event.
            place: None,
            ..error
        });
        drafts.push(draft?);
    }
    Ok(drafts)
}

/// Reads an event whose attributes are headers and whose data is the body (HTTP binding §3.1).
pub(crate) fn binary<'a>(headers: &[(&'a str, &'a str)], body: &'a [u8]) -> Result<Draft<'a>, EnvelopeError> {
    let mut attributes: Vec<(Cow<'a, str>, Value)> = Vec::new();
    for &(name, value) in headers {
        let Some((prefix, attribute)) = name.split_at_checked(3) else { continue };
        if !prefix.eq_ignore_ascii_case("ce-") {
            continue;
        }
        let attribute = attribute.to_ascii_lowercase();
        if attribute == "datacontenttype" {
            return Err(wrong(name, "the type of the data is the Content-Type of the request"));
        }
        let text = unquoted(value.trim()).and_then(|text| percent::decode(&text, false));
        let text = text.ok_or_else(|| wrong(name, format!("{name} is no percent-encoded UTF-8")))?;
        add(&mut attributes, attribute.into(), Value::String(text.into()))?;
    }
    let content_type = header(headers, "content-type").filter(|text| !text.is_empty());
    let content_encoding = encoding(headers);
    let draft = Draft {
        body: body_of(content_type, content_encoding, body),
        content_type: content_type.map(Cow::Borrowed),
        content_encoding: content_encoding.map(Cow::Borrowed),
        ..Draft::default()
    };
    finish(attributes, draft)
}

/// A header's value without the quotes that older senders put around it (RFC 9110 §5.6.4).
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(inner) = value.strip_prefix('"') else { return Some(Cow::Borrowed(value)) };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    loop {
        match chars.next()? {
            '\\' => out.push(chars.next()?),
            '"' => return chars.next().is_none().then_some(Cow::Owned(out)),
            other => out.push(other),
        }
    }
}

fn event(members: Members<'_>) -> Result<Draft<'_>, EnvelopeError> {
    let mut attributes: Vec<(Cow<'_, str>, Value)> = Vec::new();
    let (mut data, mut binary) = (None, None);
    let mut content_type = None;
    for (name, value) in members.0 {
        match (&*name, value.get()) {
            ("data", value) => data = Some(value),
            // An attribute that is null is one that is not there (JSON format §2.2).
            (_, "null") => {}
            ("data_base64", value) => binary = Some(value),
            ("datacontenttype", value) => content_type = Some(text("datacontenttype", value)?),
            (_, value) => {
                let value = attribute(&name, value)?;
                add(&mut attributes, name, value)?;
            }
        }
    }
    let body = match (data, binary) {
        (Some(_), Some(_)) => {
            return Err(EnvelopeError::of("data", "data and data_base64 exclude each other"));
        }
        (None, None) => DraftBody::None,
        (None, Some(value)) => {
            let bytes = base64::decode(text("data_base64", value)?.as_bytes());
            let bytes = bytes.ok_or_else(|| EnvelopeError::of("data_base64", "data_base64 is no base64"))?;
            DraftBody::Bytes(Cow::Owned(bytes))
        }
        (Some(value), None) if content_type.as_deref().is_none_or(is_json_type) => {
            // What is implied must be said once the event has left JSON (JSON format §3.1.2).
            content_type.get_or_insert(Cow::Borrowed("application/json"));
            DraftBody::Text(Cow::Borrowed(value))
        }
        (Some(value), None) => DraftBody::Text(text("data", value)?),
    };
    finish(attributes, Draft { body, content_type, ..Draft::default() })
}

fn add<'a>(
    attributes: &mut Vec<(Cow<'a, str>, Value)>,
    name: Cow<'a, str>,
    value: Value,
) -> Result<(), EnvelopeError> {
    if !is_attribute_name(&name) {
        let sentence = format!("{name:?} is no attribute: their names are lower-case letters and digits");
        return Err(EnvelopeError::of(name, sentence));
    }
    if attributes.len() == ATTRIBUTES_MAX {
        return Err(EnvelopeError::of(name, format!("an event has at most {ATTRIBUTES_MAX} attributes")));
    }
    if attributes.iter().any(|(known, _)| *known == name) {
        let sentence = format!("the attribute {name} is there twice");
        return Err(EnvelopeError::of(name, sentence));
    }
    attributes.push((name, value));
    Ok(())
}

/// Checks what the specification demands of an event and makes a message of it.
fn finish<'a>(
    attributes: Vec<(Cow<'a, str>, Value)>,
    mut draft: Draft<'a>,
) -> Result<Draft<'a>, EnvelopeError> {
    for name in REQUIRED {
        if !attributes.iter().any(|(known, _)| known == name) {
            return Err(EnvelopeError::of(name, format!("a CloudEvent needs the attribute {name}")));
        }
    }
    if draft.content_type.as_deref().is_some_and(|text| !text.contains('/')) {
        return Err(EnvelopeError::of("datacontenttype", "datacontenttype must be a media type"));
    }
    for (name, value) in attributes {
        if let Value::String(text) = &value {
            check(&name, text)?;
            match &*name {
                "id" => draft.sender_id = Some(Cow::Owned(text.to_string())),
                "type" => draft.kind = Some(Cow::Owned(text.to_string())),
                _ => {}
            }
        }
        draft.properties.push((Cow::Owned(format!("{PREFIX}{name}")), value));
    }
    Ok(draft)
}

fn check(name: &str, text: &str) -> Result<(), EnvelopeError> {
    let sentence = match name {
        _ if text.chars().any(char::is_control) => format!("{name} holds a control character"),
        "specversion" if text != VERSION => {
            format!("version {text:?} of CloudEvents is not known, only {VERSION}")
        }
        _ if TEXTS.contains(&name) && text.is_empty() => format!("{name} is empty"),
        "time" if !time::is_timestamp(text) => "time must be an instant as RFC 3339 writes it".to_owned(),
        "source" | "dataschema" if text.contains(char::is_whitespace) => format!("{name} must be a URI"),
        _ => return Ok(()),
    };
    Err(EnvelopeError::of(name, sentence))
}

/// The value of an attribute: text, a whole number or a boolean.
fn attribute(name: &str, json: &str) -> Result<Value, EnvelopeError> {
    if json.starts_with('"') || TEXTS.contains(&name) {
        return Ok(Value::String(text(name, json)?.into()));
    }
    match json {
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let number = json.parse::<i64>().ok();
    match number.map(|number| (number, i32::try_from(number))) {
        Some((_, Ok(number))) => Ok(Value::I32(number)),
        Some((number, Err(_))) => Ok(Value::I64(number)),
        None => {
            let sentence = format!("the attribute {name} must be text, a whole number, true or false");
            Err(EnvelopeError::of(name, sentence))
        }
    }
}

/// Text in JSON, borrowed where it has no escapes.
fn text<'a>(name: &str, json: &'a str) -> Result<Cow<'a, str>, EnvelopeError> {
    let wrong = || EnvelopeError::of(name, format!("{name} must be text"));
    if let Ok(text) = serde_json::from_str::<&str>(json) {
        return Ok(Cow::Borrowed(text));
    }
    serde_json::from_str::<String>(json).map(Cow::Owned).map_err(|_| wrong())
}

/// The members of an object, their values unread.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvent as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        while let Some(name) = entries.next_key::<String>()? {
            if members.len() == ATTRIBUTES_MAX {
                return Err(de::Error::custom(format_args!(
                    "an event has at most {ATTRIBUTES_MAX} attributes"
                )));
            }
            if members.iter().any(|(known, _)| *known == name) {
                return Err(de::Error::custom(format_args!("the member {name:?} is there twice")));
            }
            members.push((Cow::Owned(name), entries.next_value()?));
        }
        Ok(Members(members))
    }
}
