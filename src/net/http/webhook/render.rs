//! A message as the body and the headers of a request.

use std::fmt::Write as _;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use sabir_http::{cloudevents, percent};
use sabir_json::{RenderOptions, View};
use sabir_model::delivery::Delivery;
use sabir_model::destination::DestinationRef;
use sabir_model::headers::ValueRef;
use sabir_model::message::{BodyKind, Field, Tag};
use sabir_model::text::show;

use super::definition::Format;

/// Most headers that properties take, and most bytes of them: servers read no more than about a hundred of 8 KiB.
const PROPERTIES_MAX: usize = 48;
const PROPERTY_BYTES_MAX: usize = 6 * 1024;
/// The longest value of a header that is not a property.
const VALUE_BYTES_MAX: usize = 1024;

/// What of a request is the message's.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) body: Bytes,
    pub(super) headers: HeaderMap,
}

/// Writes a message in a format.
pub(super) fn render(delivery: &Delivery<'_>, format: Format) -> Rendered {
    let mut headers = HeaderMap::new();
    let mut body = Vec::new();
    match format {
        Format::Json => {
            View::of(delivery).object(&RenderOptions::default(), &mut body);
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Format::CloudEvents => {
            cloudevents::write(delivery, None, &mut body);
            let media = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
            headers.insert(header::CONTENT_TYPE, media);
        }
        Format::Raw => return raw(delivery),
    }
    Rendered { body: body.into(), headers }
}

/// The body as it is. What else there is of the message goes into headers `Sabir-…`, properties into `X-Prop-NAME` as
/// sending over HTTP has them: a webhook can send to another broker of this kind.
fn raw(delivery: &Delivery<'_>) -> Rendered {
    let message = delivery.message;
    let kind = message.facts().body_kind;
    let mut headers = HeaderMap::new();
    let mut properties = Properties::default();
    let mut content_type = None;
    put(&mut headers, "sabir-message", &message.id().to_string());
    if let Some(destination) = delivery.destination() {
        put(&mut headers, "sabir-destination", &destination.to_string());
    }
    put(&mut headers, "sabir-timestamp", &message.facts().timestamp.0.to_string());
    for field in message.fields() {
        let (tag, bytes) = match field {
            Field::Plain(tag, bytes) => (tag, bytes),
            Field::Property(name, value) => {
                properties.add(name, &value, &mut headers);
                continue;
            }
        };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        match tag {
            Tag::ContentType => content_type = media_type(text),
            Tag::ContentEncoding => {
                if let Ok(value) = HeaderValue::from_str(text)
                    && !text.is_empty()
                {
                    headers.insert(header::CONTENT_ENCODING, value);
                }
            }
            Tag::CorrelationText | Tag::CorrelationBytes => {
                put(&mut headers, "sabir-correlation-id", &show(bytes))
            }
            Tag::ReplyToText => put(&mut headers, "sabir-reply-to", text),
            Tag::ReplyTo => {
                if let Some(destination) = DestinationRef::decode(bytes) {
                    put(&mut headers, "sabir-reply-to", &destination.to_string());
                }
            }
            Tag::Type => put(&mut headers, "sabir-type", text),
            Tag::GroupId => put(&mut headers, "sabir-group-id", text),
            Tag::UserId => put(&mut headers, "sabir-user-id", text),
            _ => {}
        }
    }
    if properties.omitted > 0 {
        put(&mut headers, "sabir-properties-omitted", &properties.omitted.to_string());
    }
    let fallback = match kind {
        BodyKind::Map | BodyKind::List => "application/json",
        BodyKind::Object => "application/x-java-serialized-object",
        BodyKind::Bytes => "application/octet-stream",
        BodyKind::Text | BodyKind::None => "text/plain; charset=utf-8",
    };
    headers.insert(header::CONTENT_TYPE, content_type.unwrap_or_else(|| HeaderValue::from_static(fallback)));
    let body = match (kind, message.shared_body()) {
        (BodyKind::Map | BodyKind::List, _) => {
            let mut json = Vec::new();
            View::of(delivery).body(&mut json);
            json.into()
        }
        (_, Some(shared)) => shared.clone(),
        // Whoever calls has brought it into memory.
        (_, None) => Bytes::copy_from_slice(message.body().octets().unwrap_or_default()),
    };
    Rendered { body, headers }
}

fn media_type(text: &str) -> Option<HeaderValue> {
    let fits = text.contains('/') && text.len() <= 255 && text.is_ascii();
    HeaderValue::from_str(text).ok().filter(|_| fits)
}

/// A header whose value is escaped where it must be; one that is too long is left out.
fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let mut text = String::with_capacity(value.len());
    percent::encode(value, percent::is_visible, &mut text);
    if text.len() <= VALUE_BYTES_MAX
        && let Ok(value) = HeaderValue::from_str(&text)
    {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[derive(Default)]
struct Properties {
    count: usize,
    bytes: usize,
    omitted: usize,
}

impl Properties {
    /// The first of a name, as long as there is room.
    fn add(&mut self, name: &str, value: &ValueRef<'_>, headers: &mut HeaderMap) {
        if matches!(value, ValueRef::Null) || name.is_empty() {
            return;
        }
        let mut title = String::from("x-prop-");
        // Names of headers have no capitals.
        percent::encode(name, |byte| percent::is_token(byte) && !byte.is_ascii_uppercase(), &mut title);
        let mut plain = Vec::new();
        value.write_text(&mut plain);
        let mut text = String::new();
        percent::encode(&String::from_utf8_lossy(&plain), percent::is_visible, &mut text);
        let bytes = title.len() + text.len();
        if self.count == PROPERTIES_MAX || self.bytes + bytes > PROPERTY_BYTES_MAX {
            self.omitted += 1;
            return;
        }
        let (Ok(title), Ok(text)) = (HeaderName::from_bytes(title.as_bytes()), HeaderValue::from_str(&text))
        else {
            self.omitted += 1;
            return;
        };
        if let header::Entry::Vacant(entry) = headers.entry(title) {
            entry.insert(text);
            self.count += 1;
            self.bytes += bytes;
        }
    }
}

/// An error with what caused it, in one line.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        source = cause.source();
    }
    text
}
