//! Messages on their way out as events in the JSON format.

use sabir_json::View;
use sabir_model::base64;
use sabir_model::clock::Timestamp;
use sabir_model::delivery::Delivery;
use sabir_model::headers::{ValueRef, write_json_text};
use sabir_model::message::{BodyKind, Content, Field, Tag};
use serde_json::value::RawValue;

use crate::percent::{self, is_visible};

use super::{ATTRIBUTES_MAX, PREFIX, VERSION, is_attribute_name, is_json_type, read, time};

/// What stands before an attribute in a property's name: as we and JMS clients write it, as other AMQP clients do, and
/// as MQTT 5 clients do.
const PREFIXES: [&str; 3] = [PREFIX, "cloudEvents:", ""];

/// The type of a message that has none.
const TYPE: &str = "sabir.message";

/// Appends a delivered message as one event (JSON format §3), with the token of its lease and when that ends, if it has
/// one, as the attributes `lease` and `leaseexpires`.
///
/// A message that came as an event leaves as that event; one that holds a whole event as its body (`application/
/// cloudevents+json`) leaves as that. Of any other the id, the type, the time and the content type are the message's,
/// and the source is the destination it was sent to. Properties that an attribute can hold become attributes: those whose
/// names are lower-case letters and digits, and whose values are text, boolean or a number of 32 bits. The others are
/// left out, as an event has no place for them, and so is what exceeds the most attributes an event may have here.
///
/// Data is JSON where the content type says so and it is, or the body is a map or a list; else text where the content
/// type is another and the body is UTF-8; else octets.
pub fn write(delivery: &Delivery<'_>, lease: Option<(&str, Timestamp)>, out: &mut Vec<u8>) {
    let message = delivery.message;
    let mut parts = Parts::default();
    for field in message.fields() {
        match field {
            Field::Property(name, ValueRef::Str(VERSION)) if name.ends_with("specversion") => {
                let found =
                    PREFIXES.into_iter().find(|prefix| name.strip_prefix(prefix) == Some("specversion"));
                parts.prefix = parts.prefix.or(found);
            }
            Field::Property(..) => {}
            Field::Plain(tag, bytes) => {
                let text = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty());
                match tag {
                    Tag::Type => parts.kind = text,
                    Tag::ContentType => parts.content_type = text,
                    Tag::SenderMessageId => parts.id = text,
                    _ => {}
                }
            }
        }
    }
    out.push(b'{');
    let mut members = Members { out, given: Vec::new() };
    members.lease(lease);
    if let Some(event) = message.body().octets().and_then(|body| whole(&parts, body)) {
        if !members.given.is_empty() {
            members.out.push(b',');
        }
        one_line(event, members.out);
        return;
    }
    members.text("specversion", VERSION);
    match parts.prefix {
        None => members.synthetic(delivery, &parts),
        Some(prefix) => {
            for field in message.fields() {
                let Field::Property(name, value) = field else { continue };
                if let Some(name) = name.strip_prefix(prefix) {
                    members.attribute(name, &value);
                }
            }
            // Whoever wrote the attributes may have forgotten one.
            members.synthetic(delivery, &parts);
        }
    }
    for field in message.fields() {
        let Field::Property(name, value) = field else { continue };
        members.attribute(name, &value);
    }
    members.data(delivery, parts.content_type);
    out.push(b'}');
}

#[derive(Default)]
struct Parts<'a> {
    /// What stands before the attributes, if the message came as an event.
    prefix: Option<&'static str>,
    kind: Option<&'a str>,
    content_type: Option<&'a str>,
    id: Option<&'a str>,
}

/// The event that the body is, from behind its opening brace.
fn whole<'a>(parts: &Parts<'_>, body: &'a [u8]) -> Option<&'a [u8]> {
    let content_type = crate::incoming::essence(parts.content_type?);
    if !content_type.eq_ignore_ascii_case("application/cloudevents+json") {
        return None;
    }
    read::structured(body).ok()?;
    body.trim_ascii().strip_prefix(b"{")
}

/// Appends JSON without its line breaks, which mean nothing outside of text and cannot be in it: events may be written
/// one a line.
fn one_line(json: &[u8], out: &mut Vec<u8>) {
    out.extend(json.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
}

/// Writes the members of an object.
struct Members<'o, 'a> {
    out: &'o mut Vec<u8>,
    given: Vec<&'a str>,
}

impl<'a> Members<'_, 'a> {
    fn name(&mut self, name: &'a str) {
        if !self.given.is_empty() {
            self.out.push(b',');
        }
        self.given.push(name);
        write_json_text(name, self.out);
        self.out.push(b':');
    }

    fn text(&mut self, name: &'a str, text: &str) {
        self.name(name);
        write_json_text(text, self.out);
    }

    fn lease(&mut self, lease: Option<(&str, Timestamp)>) {
        let Some((token, expires)) = lease else { return };
        self.text("lease", token);
        if let Some(expires) = time::write(expires.0) {
            self.text("leaseexpires", &expires);
        }
    }

    /// Writes what an event must have and nobody has said yet, from the message.
    fn synthetic(&mut self, delivery: &Delivery<'_>, parts: &Parts<'_>) {
        if !self.given.contains(&"id") {
            match parts.id {
                Some(id) => self.text("id", id),
                None => self.text("id", &delivery.message.id().to_string()),
            }
        }
        if !self.given.contains(&"source") {
            let source = delivery.original_destination();
            let source = source.or_else(|| delivery.destination().map(|to| to.to_string()));
            let mut uri = String::new();
            percent::encode(source.as_deref().unwrap_or("sabir"), is_of_uris, &mut uri);
            self.text("source", &uri);
        }
        if !self.given.contains(&"type") {
            self.text("type", parts.kind.unwrap_or(TYPE));
        }
        let sent = delivery.message.facts().timestamp.0;
        if let Some(time) = time::write(sent).filter(|_| sent > 0 && parts.prefix.is_none()) {
            self.text("time", &time);
        }
    }

    /// Writes a property, if an attribute can hold it and there is none of that name yet.
    fn attribute(&mut self, name: &'a str, value: &ValueRef<'_>) {
        let taken = matches!(name, "data" | "datacontenttype" | "lease" | "leaseexpires");
        if taken
            || self.given.len() > ATTRIBUTES_MAX
            || !is_attribute_name(name)
            || self.given.contains(&name)
        {
            return;
        }
        match value {
            ValueRef::Str("") if is_text(name) => {}
            ValueRef::Str(text) if name == "time" && !time::is_timestamp(text) => {}
            ValueRef::Str(text) if text.chars().any(char::is_control) => {}
            ValueRef::Str(text) => self.text(name, text),
            ValueRef::Bool(_) | ValueRef::I8(_) | ValueRef::I16(_) | ValueRef::I32(_) if !is_text(name) => {
                self.name(name);
                value.write_as_json(self.out);
            }
            _ => {}
        }
    }

    fn data(&mut self, delivery: &Delivery<'_>, content_type: Option<&str>) {
        let body = match delivery.message.body() {
            Content::Octets(octets) => octets,
            Content::Stored(stored) => {
                // Whoever can wait for a disk brings it into memory first. It is not said to be empty.
                self.name("databytes");
                self.out.extend_from_slice(stored.length().to_string().as_bytes());
                return;
            }
        };
        let kind = delivery.message.facts().body_kind;
        let is_json = content_type.is_some_and(is_json_type);
        match kind {
            BodyKind::None => {
                if let Some(content_type) = content_type {
                    self.text("datacontenttype", content_type);
                }
            }
            BodyKind::Map | BodyKind::List => {
                self.text("datacontenttype", content_type.filter(|_| is_json).unwrap_or("application/json"));
                self.name("data");
                View::of(delivery).body(self.out);
            }
            BodyKind::Text | BodyKind::Bytes | BodyKind::Object => {
                let text = std::str::from_utf8(body)
                    .ok()
                    .filter(|_| kind == BodyKind::Text || content_type.is_some());
                let json = text.filter(|_| is_json);
                let json = json.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
                // Text that is said to be JSON and is not would be read as a string in JSON.
                let text =
                    text.filter(|_| !is_json && (kind == BodyKind::Text || is_text_type(content_type)));
                match content_type {
                    Some(content_type) => self.text("datacontenttype", content_type),
                    None if text.is_some() => self.text("datacontenttype", "text/plain"),
                    None => {}
                }
                match (json, text) {
                    (Some(json), _) => {
                        self.name("data");
                        one_line(json.get().as_bytes(), self.out);
                    }
                    (None, Some(text)) => self.text("data", text),
                    (None, None) => {
                        self.name("data_base64");
                        self.out.push(b'"');
                        base64::encode(body, self.out);
                        self.out.push(b'"');
                    }
                }
            }
        }
    }
}

/// Characters that a URI can hold without an escape (RFC 3986 §2).
fn is_of_uris(byte: u8) -> bool {
    is_visible(byte) && !b"\"<>\\^`{|}#?".contains(&byte)
}

fn is_text(name: &str) -> bool {
    matches!(name, "id" | "source" | "type" | "subject" | "dataschema" | "time")
}

fn is_text_type(content_type: Option<&str>) -> bool {
    content_type.is_some_and(sabir_model::text::is_text_type)
}
