//! One function for fuzzers and for the test that runs a corpus: it panics only on a bug.

use sabir_json::{Draft, RenderOptions, View};
use sabir_model::clock::Timestamp;
use sabir_model::command::TargetKey;
use sabir_model::delivery::Delivery;
use sabir_model::destination::{Destination, Kind, Targets};
use sabir_model::ids::SubscriptionKey;
use sabir_model::message::{Body, FieldsWriter, Message, Tag};

use crate::incoming::Form;
use crate::{activemq, cloudevents, incoming, percent, sse, token};

const FORMS: [Form; 6] =
    [Form::Raw, Form::Json, Form::Ndjson, Form::CloudEvent, Form::CloudEventBatch, Form::CloudEventBinary];

/// Takes the input for a request: lines of parameters, a blank line, lines of headers, a blank line, the body. Reads it in
/// every form, makes messages of what can be read, and writes them in every form that there is.
pub fn fuzz(data: &[u8]) {
    let (params, rest) = block(data, "=");
    let (headers, body) = block(rest, ":");
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    for form in FORMS {
        if let Ok(incoming) = incoming::read(form, &params, &headers, body) {
            for draft in incoming.drafts.iter().take(100) {
                write(draft);
            }
        }
    }
    let path = params.first().map(|(name, _)| name.as_str());
    for path in [None, path] {
        if let Ok(activemq::Post::Message(message)) = activemq::post(path, &params, &headers, body) {
            write(&message.draft);
        }
        if let Ok(wanted) = activemq::consume(path, &params, &headers) {
            assert!(wanted.address.contains("://"), "an address is qualified");
        }
    }
    if let Ok(text) = std::str::from_utf8(body) {
        if let Some((stream, serial)) = sse::read_event_id(text) {
            assert_eq!(sse::event_id(stream, serial), text, "an id has one text");
        }
        if let Some(found) = token::read(text) {
            let mut written = Vec::new();
            token::write(found, &mut written);
            assert_eq!(written, body, "a token has one text");
        }
        let mut written = String::new();
        percent::encode(text, percent::is_token, &mut written);
        assert_eq!(percent::decode(&written, false).as_deref(), Some(text), "an escape is undone");
    }
    let mut events = Vec::new();
    sse::event(std::str::from_utf8(body).ok(), std::str::from_utf8(rest).ok(), body, &mut events);
    let ends = events.windows(2).filter(|pair| *pair == b"\n\n").count();
    assert!(ends == 1 && events.ends_with(b"\n\n"), "one event is one event");
}

/// Pairs of text up to a blank line, and what follows it.
fn block<'a>(data: &'a [u8], between: &str) -> (Vec<(String, String)>, &'a [u8]) {
    let (mut pairs, mut rest) = (Vec::new(), data);
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, after) = rest.split_at_checked(end).unwrap_or_default();
        rest = after.get(1..).unwrap_or_default();
        if line.is_empty() {
            break;
        }
        let line = String::from_utf8_lossy(line);
        let (name, value) = line.split_once(between).unwrap_or((&line, ""));
        pairs.push((name.to_owned(), value.to_owned()));
    }
    (pairs, rest)
}

/// Makes a message of a draft and writes it in every form.
fn write(draft: &Draft<'_>) {
    let address = draft.destination.as_deref().unwrap_or("fuzz");
    let Ok(destination) = Destination::parse_qualified(address, Kind::Queue) else { return };
    let targets = Targets::from_iter([destination.clone()]);
    let mut fields = FieldsWriter::new();
    let key = TargetKey { slot: 0, generation: 0 };
    let Ok(publish) = draft.publish(&targets, key, Timestamp(1), &mut fields) else { return };
    let mut first = FieldsWriter::new();
    first.destination(Tag::Destination, &destination);
    let body = Body::Borrowed(publish.body.octets().unwrap_or_default());
    let message = Message::new(publish.facts, &[first.as_slice(), publish.fields], body);
    let delivery = Delivery {
        message: &message,
        subscription: SubscriptionKey(1),
        queue: None,
        token: None,
        attempt: 1,
        redelivered: false,
        browsed: false,
        grant: None,
        sequence: None,
        progress: 0,
    };
    let mut event = Vec::new();
    cloudevents::write(&delivery, Some(("0", Timestamp(1))), &mut event);
    assert!(!event.contains(&b'\n'), "an event is one line");
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&event).is_ok(), "an event is JSON");
    let mut object = Vec::new();
    View::of(&delivery).object(&RenderOptions::default(), &mut object);
    assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&object).is_ok(), "a message is JSON");
    let reply = activemq::reply(&delivery, None);
    for (name, value) in reply.headers {
        assert!(!name.is_empty() && name.bytes().all(percent::is_token), "a name is a token");
        assert!(value.bytes().all(|byte| byte == b' ' || percent::is_visible(byte)), "a value is visible");
    }
    assert!(
        reply.content_type.bytes().all(|byte| byte == b' ' || percent::is_visible(byte)),
        "a type is visible"
    );
}
