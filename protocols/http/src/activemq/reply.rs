//! The answer to a request for a message: its body as it is, and its fields and properties as headers.

use std::borrow::Cow;

use sabir_json::View;
use sabir_model::delivery::Delivery;
use sabir_model::destination::DestinationRef;
use sabir_model::headers::ValueRef;
use sabir_model::message::{BodyKind, Content, Field, Tag};
use sabir_model::stored::Stored;
use sabir_model::text::show;

use super::request::Media;
use crate::percent::{self, is_token, is_visible};

/// Most headers that properties take, and most bytes of them: clients read no more than about a hundred of 8 KiB.
const PROPERTIES_MAX: usize = 64;
const PROPERTY_BYTES_MAX: usize = 16 * 1024;
/// Longest content type that is believed.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// Headers of HTTP that have no hyphen. With one, a name is never taken for a plain property's. Whoever sends a message
/// must not write a header of the broker's reply.
const HEADERS_OF_HTTP: [&str; 31] = [
    "age",
    "allow",
    "authorization",
    "connection",
    "cookie",
    "date",
    "depth",
    "destination",
    "etag",
    "expect",
    "expires",
    "forwarded",
    "from",
    "host",
    "link",
    "location",
    "nel",
    "origin",
    "pragma",
    "range",
    "referer",
    "refresh",
    "server",
    "sourcemap",
    "te",
    "trailer",
    "upgrade",
    "vary",
    "via",
    "warning",
    "p3p",
];
/// Headers of ours.
const HEADERS_OF_OURS: [&str; 10] = [
    "id",
    "messageid",
    "jmscorrelationid",
    "jmsreplyto",
    "jmstype",
    "jmsredelivered",
    "jmsxgroupid",
    "jmsxgroupseq",
    "jmsxdeliverycount",
    "jmsxuserid",
];

/// A consumed message as the reply shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<'a> {
    /// The content type.
    pub content_type: Cow<'a, str>,
    /// All other headers, fit to be written as they are: names are tokens, values visible ASCII and blanks.
    pub headers: Vec<(String, String)>,
    /// The body, if it is in memory.
    pub body: Cow<'a, [u8]>,
    /// The body, if it is not.
    pub stored: Option<&'a Stored>,
}

/// Makes the reply to a request for a message.
///
/// The content type is the sender's, if it is one, or that of the kind of body: text is `text/plain`, or
/// `application/xml` if it begins with `<`; maps and lists are JSON. There is a header for each property, of the first
/// value where a name repeats. What a header cannot hold is percent-encoded, and so is `%`. A name that has a hyphen, or
/// is that of a header of HTTP or of ours, has `X-Prop-` before it. What exceeds 64 properties or 16 KiB is left out and
/// counted in `X-Prop-Omitted`.
///
/// `Content-Security-Policy: sandbox` keeps a browser from running what somebody has sent as if it were the broker's.
#[must_use]
pub fn reply<'a>(delivery: &Delivery<'a>, media: Option<Media>) -> Reply<'a> {
    let message = delivery.message;
    let kind = message.facts().body_kind;
    let mut out = Headers::default();
    let mut content_type = None;
    let mut id = None;
    let mut omitted = 0;
    let mut properties: Vec<(&str, ValueRef<'_>)> = Vec::new();
    for field in message.fields() {
        let (tag, bytes) = match field {
            Field::Plain(tag, bytes) => (tag, bytes),
            Field::Property(name, value) => {
                match properties.iter().any(|(known, _)| *known == name) {
                    true => {}
                    false if properties.len() == PROPERTIES_MAX => omitted += 1,
                    false => properties.push((name, value)),
                }
                continue;
            }
        };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        match tag {
            Tag::ContentType => content_type = Some(text).filter(|text| is_media_type(text)),
            Tag::ContentEncoding if text.bytes().all(is_token) && !text.is_empty() => {
                out.put("Content-Encoding", text);
            }
            Tag::CorrelationText | Tag::CorrelationBytes => out.put("JMSCorrelationID", &show(bytes)),
            Tag::ReplyToText => out.put("JMSReplyTo", text),
            Tag::ReplyTo => {
                if let Some(destination) = DestinationRef::decode(bytes) {
                    out.put("JMSReplyTo", &destination.to_string());
                }
            }
            Tag::Type => out.put("JMSType", text),
            Tag::UserId => out.put("JMSXUserID", text),
            Tag::GroupId => out.put("JMSXGroupID", text),
            Tag::GroupSequence => {
                if let Ok(sequence) = <[u8; 4]>::try_from(bytes) {
                    out.put("JMSXGroupSeq", &i32::from_le_bytes(sequence).to_string());
                }
            }
            Tag::SenderMessageId => id = Some(text).filter(|id| !id.is_empty()),
            _ => {}
        }
    }
    match id {
        Some(id) => out.put("id", id),
        None => out.put("id", &message.id().to_string()),
    }
    if let Some(destination) = delivery.destination() {
        out.put("destination", &destination.to_string());
    }
    if delivery.redelivered {
        out.put("JMSRedelivered", "true");
        out.put("JMSXDeliveryCount", &delivery.attempt.to_string());
    }
    out.put("Content-Security-Policy", "sandbox");
    out.properties(&properties, omitted);

    let body = match kind {
        BodyKind::Map | BodyKind::List => {
            let mut json = Vec::new();
            View::of(delivery).body(&mut json);
            Cow::Owned(json)
        }
        _ => match message.body() {
            Content::Octets(octets) => Cow::Borrowed(octets),
            // It is sent as it lies there.
            Content::Stored(_) => Cow::Borrowed(&[][..]),
        },
    };
    let stored = message.stored_body();
    let content_type = match (media, content_type, kind) {
        (Some(Media::Json), ..) | (None, None, BodyKind::Map | BodyKind::List) => "application/json",
        (Some(Media::Xml), ..) => "application/xml",
        (None, Some(said), _) => said,
        (None, None, BodyKind::Object) => "application/x-java-serialized-object",
        (None, None, BodyKind::Bytes) => "application/octet-stream",
        (None, None, BodyKind::Text) if body.first() == Some(&b'<') => "application/xml",
        (None, None, BodyKind::Text | BodyKind::None) => "text/plain; charset=utf-8",
    };
    Reply { content_type: Cow::Borrowed(content_type), headers: out.list, body, stored }
}

/// Whether a sender's content type can be a header's value and says anything.
fn is_media_type(text: &str) -> bool {
    text.contains('/')
        && text.len() <= CONTENT_TYPE_BYTES_MAX
        && text.trim() == text
        && text.bytes().all(|byte| byte == b' ' || is_visible(byte))
}

#[derive(Default)]
struct Headers {
    list: Vec<(String, String)>,
}

impl Headers {
    fn put(&mut self, name: &str, value: &str) {
        self.list.push((name.to_owned(), encoded(value)));
    }

    fn properties(&mut self, properties: &[(&str, ValueRef<'_>)], mut omitted: usize) {
        let mut bytes = 0;
        let mut text = Vec::new();
        for (name, value) in properties {
            if matches!(value, ValueRef::Null) {
                continue;
            }
            text.clear();
            value.write_text(&mut text);
            let name = property_header(name);
            let value = encoded(&String::from_utf8_lossy(&text));
            if bytes + name.len() + value.len() > PROPERTY_BYTES_MAX {
                omitted += 1;
                continue;
            }
            bytes += name.len() + value.len();
            self.list.push((name, value));
        }
        if omitted > 0 {
            self.put("X-Prop-Omitted", &omitted.to_string());
        }
    }
}

/// The name of a property's header.
fn property_header(name: &str) -> String {
    let is = |known: &&str| name.eq_ignore_ascii_case(known);
    let taken = name.contains('-') || HEADERS_OF_HTTP.iter().any(is) || HEADERS_OF_OURS.iter().any(is);
    let mut out = String::with_capacity(name.len());
    if taken || name.is_empty() {
        out.push_str("X-Prop-");
    }
    percent::encode(name, is_token, &mut out);
    out
}

/// A value that a header can hold: blanks only inside, escapes for what is not visible ASCII.
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let inner = value.trim_matches(' ');
    let before = value.len() - value.trim_start_matches(' ').len();
    let after = value.len() - before - inner.len();
    out.extend(std::iter::repeat_n("%20", before));
    percent::encode(inner, |byte| byte == b' ' || is_visible(byte), &mut out);
    out.extend(std::iter::repeat_n("%20", after));
    out
}
