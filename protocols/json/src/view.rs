//! The JSON form of a message on its way out.

use sabir_model::base64;
use sabir_model::clock::Timestamp;
use sabir_model::delivery::Delivery;
use sabir_model::destination::{Destination, DestinationRef};
use sabir_model::headers::{ValueRef, write_json_text};
use sabir_model::message::{BodyKind, Content, Field, Message, Tag};
use sabir_model::stored::Stored;
use sabir_model::text::{is_text_type, show};

use crate::address;

/// So much is shown of a body that is not in memory.
const STORED_BYTES_SHOWN: usize = 64 * 1024;

/// How much of the body is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyForm {
    /// All of it.
    #[default]
    Whole,
    /// At most so many bytes of it; `bodyBytes` and `bodyTruncated` tell the rest.
    Head(usize),
    /// None of it; `bodyBytes` tells how much there is.
    None,
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct RenderOptions {
    /// How much of the body is shown.
    pub body: BodyForm,
}

/// A message as somebody sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    message: &'a Message,
    /// The queue it is read from, where that is not where it was sent.
    queue: Option<&'a Destination>,
    attempt: u32,
    redelivered: bool,
}

impl<'a> View<'a> {
    /// As its consumer sees it.
    #[must_use]
    pub fn of(delivery: &Delivery<'a>) -> Self {
        Self {
            message: delivery.message,
            queue: delivery.queue,
            attempt: delivery.attempt,
            redelivered: delivery.redelivered,
        }
    }

    /// A message by itself, in a queue if it is in one.
    #[must_use]
    pub fn message(message: &'a Message, queue: Option<&'a Destination>, attempts: u32) -> Self {
        Self { message, queue, attempt: attempts, redelivered: attempts > 0 }
    }

    /// Appends the whole object.
    pub fn object(&self, options: &RenderOptions, out: &mut Vec<u8>) {
        out.push(b'{');
        self.members(options, out);
        out.push(b'}');
    }

    /// Appends the members of the object, without its braces, so that others can stand before them.
    pub fn members(&self, options: &RenderOptions, out: &mut Vec<u8>) {
        let facts = self.message.facts();
        let parts = Parts::of(self.message);
        out.extend_from_slice(b"\"id\":");
        match parts.sender_id {
            Some(id) => write_json_text(id, out),
            None => {
                out.push(b'"');
                put(out, format_args!("{}", facts.id));
                out.push(b'"');
            }
        }
        let seen = self.queue.map(Destination::as_ref).or(parts.destination);
        if let Some(destination) = seen {
            member("destination", &address::shown(destination), out);
        }
        let original = match (parts.original, parts.destination) {
            (Some(text), _) => Some(text.to_owned()),
            (None, Some(sent)) if Some(sent) != seen => Some(address::shown(sent)),
            _ => None,
        };
        if let Some(original) = original {
            member("originalDestination", &original, out);
        }
        if let Some(reply_to) = parts.reply_to {
            member("replyTo", &reply_to, out);
        }
        if let Some(correlation) = parts.correlation {
            member("correlationId", &correlation, out);
        }
        for (name, value) in [
            ("type", parts.kind),
            ("contentType", parts.content_type),
            ("contentEncoding", parts.content_encoding),
            ("groupId", parts.group_id),
            ("userId", parts.user_id),
        ] {
            if let Some(value) = value {
                member(name, value, out);
            }
        }
        if let Some(sequence) = parts.group_sequence {
            put(out, format_args!(",\"groupSeq\":{sequence}"));
        }
        put(
            out,
            format_args!(
                ",\"persistent\":{},\"priority\":{},\"timestamp\":{}",
                facts.persistent, facts.priority, facts.timestamp.0
            ),
        );
        if facts.expires != Timestamp::NEVER {
            put(out, format_args!(",\"expiration\":{}", facts.expires.0));
        }
        if facts.retain {
            out.extend_from_slice(b",\"retained\":true");
        }
        put(out, format_args!(",\"redelivered\":{},\"deliveryCount\":{}", self.redelivered, self.attempt));
        self.properties(out);
        self.body_member(parts.content_type, options.body, out);
    }

    /// Properties as an object, the first of a name; where names repeat, also as pairs.
    fn properties(&self, out: &mut Vec<u8>) {
        let mut names: Vec<&str> = Vec::new();
        let mut repeated = false;
        for field in self.message.fields() {
            let Field::Property(name, value) = field else { continue };
            if names.contains(&name) {
                repeated = true;
                continue;
            }
            out.extend_from_slice(if names.is_empty() { b",\"properties\":{" } else { b"," });
            write_json_text(name, out);
            out.push(b':');
            value.write_as_json(out);
            names.push(name);
        }
        if !names.is_empty() {
            out.push(b'}');
        }
        if !repeated {
            return;
        }
        out.extend_from_slice(b",\"userProperties\":[");
        let mut first = true;
        for field in self.message.fields() {
            let Field::Property(name, ValueRef::Str(value)) = field else { continue };
            out.extend_from_slice(if first { b"[" } else { b",[" });
            first = false;
            write_json_text(name, out);
            out.push(b',');
            write_json_text(value, out);
            out.push(b']');
        }
        out.push(b']');
    }

    /// The first bytes of a body that is not in memory; how long it is, and that it is cut, are always said.
    fn stored_member(&self, stored: &Stored, content_type: Option<&str>, most: usize, out: &mut Vec<u8>) {
        let most = most.min(STORED_BYTES_SHOWN);
        let cut = stored.length() > most as u64;
        put(out, format_args!(",\"bodyBytes\":{},\"bodyTruncated\":{cut}", stored.length()));
        if most == 0 {
            return;
        }
        let Ok(front) = stored.read_front(most) else {
            // What cannot be read is not there, and not empty.
            out.extend_from_slice(b",\"body\":null");
            return;
        };
        // The cut may go through a character.
        let text = match std::str::from_utf8(&front) {
            Err(error) if error.error_len().is_none() => front.get(..error.valid_up_to()),
            _ => Some(front.as_slice()),
        };
        let kind = self.message.facts().body_kind;
        match readable(kind, content_type, text.unwrap_or_default()) {
            Some(text) => member("body", text, out),
            None => {
                out.extend_from_slice(b",\"bodyBase64\":\"");
                base64::encode(&front, out);
                out.push(b'"');
            }
        }
    }

    fn body_member(&self, content_type: Option<&str>, form: BodyForm, out: &mut Vec<u8>) {
        let kind = self.message.facts().body_kind;
        let most = match form {
            BodyForm::Whole => usize::MAX,
            BodyForm::Head(most) => most,
            BodyForm::None => 0,
        };
        let body = match self.message.body() {
            Content::Octets(octets) => octets,
            Content::Stored(stored) => return self.stored_member(stored, content_type, most, out),
        };
        if form != BodyForm::Whole {
            put(out, format_args!(",\"bodyBytes\":{},\"bodyTruncated\":{}", body.len(), body.len() > most));
        }
        if form == BodyForm::None {
            return;
        }
        match kind {
            BodyKind::None => out.extend_from_slice(b",\"body\":null"),
            BodyKind::Map | BodyKind::List if body.len() <= most => {
                out.extend_from_slice(b",\"body\":");
                self.body(out);
            }
            BodyKind::Map | BodyKind::List => {
                let mut whole = Vec::new();
                self.body(&mut whole);
                member("body", head(&String::from_utf8_lossy(&whole), most), out);
            }
            BodyKind::Text | BodyKind::Bytes | BodyKind::Object => match readable(kind, content_type, body) {
                Some(text) => member("body", head(text, most), out),
                None => {
                    out.extend_from_slice(b",\"bodyBase64\":\"");
                    base64::encode(body.get(..most.min(body.len())).unwrap_or_default(), out);
                    out.push(b'"');
                }
            },
        }
    }

    /// Appends the body of a map or list as JSON, and any other as its octets; `null` for one that is not in memory, as no
    /// map or list is.
    pub fn body(&self, out: &mut Vec<u8>) {
        let Some(body) = self.message.body().octets() else { return out.extend_from_slice(b"null") };
        match self.message.facts().body_kind {
            BodyKind::Map | BodyKind::List => match ValueRef::decode(body) {
                Some((value, _)) => value.write_as_json(out),
                None => out.extend_from_slice(b"null"),
            },
            _ => out.extend_from_slice(body),
        }
    }
}

/// The body as text: what is text, and octets whose sender did not say that they are anything else and that read as such.
/// Most devices know only octets, and somebody who looks at `21.5` should see it.
fn readable<'a>(kind: BodyKind, content_type: Option<&str>, body: &'a [u8]) -> Option<&'a str> {
    let text = std::str::from_utf8(body).ok()?;
    let plain = |text: &str| !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'));
    match kind {
        BodyKind::Text => Some(text),
        BodyKind::Bytes if content_type.is_none_or(is_text_type) && plain(text) => Some(text),
        _ => None,
    }
}

/// The first bytes of a text, cut where a character ends.
fn head(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    out.write_fmt(text).expect("a Vec takes everything");
}

fn member(name: &str, value: &str, out: &mut Vec<u8>) {
    put(out, format_args!(",\"{name}\":"));
    write_json_text(value, out);
}

/// The fields that are not properties.
#[derive(Default)]
struct Parts<'a> {
    destination: Option<DestinationRef<'a>>,
    original: Option<&'a str>,
    reply_to: Option<String>,
    correlation: Option<String>,
    kind: Option<&'a str>,
    content_type: Option<&'a str>,
    content_encoding: Option<&'a str>,
    group_id: Option<&'a str>,
    group_sequence: Option<i32>,
    user_id: Option<&'a str>,
    sender_id: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(message: &'a Message) -> Self {
        let mut parts = Self::default();
        for field in message.fields() {
            let Field::Plain(tag, bytes) = field else { continue };
            let text = std::str::from_utf8(bytes).ok();
            match tag {
                Tag::Destination => parts.destination = DestinationRef::decode(bytes),
                Tag::OriginalDestination => parts.original = text,
                Tag::ReplyTo => parts.reply_to = DestinationRef::decode(bytes).map(address::shown),
                Tag::ReplyToText => parts.reply_to = text.map(str::to_owned),
                Tag::CorrelationText | Tag::CorrelationBytes => parts.correlation = Some(show(bytes)),
                Tag::Type => parts.kind = text,
                Tag::ContentType => parts.content_type = text,
                Tag::ContentEncoding => parts.content_encoding = text,
                Tag::GroupId => parts.group_id = text,
                Tag::GroupSequence => {
                    parts.group_sequence = bytes.try_into().ok().map(i32::from_le_bytes);
                }
                Tag::UserId => parts.user_id = text,
                Tag::SenderMessageId => parts.sender_id = text.filter(|id| !id.is_empty()),
                Tag::DeliveryTime
                | Tag::DedupId
                | Tag::TraceContext
                | Tag::AppId
                | Tag::TextProperty
                | Tag::Property => {}
            }
        }
        parts
    }
}
