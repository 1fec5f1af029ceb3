//! ActiveMQ's REST API: requests, and the replies to them.
#![allow(missing_docs, clippy::unwrap_used)]

mod harness;

use harness::{delivery, message};
use sabir_http::activemq::{self, Consume, Media, Message, Post, Settling};
use sabir_json::{Draft, DraftBody, EnvelopeError};
use sabir_model::destination::Destination;
use sabir_model::error::Code;
use sabir_model::headers::Value;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

type Headers<'a> = &'a [(&'a str, &'a str)];

fn params(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into())).collect()
}

/// What a POST to `/api/message/q?type=queue&…` sends.
fn posted<'a>(query: &'a [(String, String)], headers: &[(&'a str, &'a str)], body: &'a [u8]) -> Message<'a> {
    match activemq::post(Some("q"), query, headers, body).unwrap() {
        Post::Message(message) => *message,
        Post::Unsubscribe { .. } => panic!("a message was posted"),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, EnvelopeError>) -> (Code, String) {
    let error = result.unwrap_err();
    (error.code, error.field.unwrap_or_default())
}

#[test]
fn the_destination_is_in_the_path_or_a_parameter() {
    for (path, query, address) in [
        (Some("FOO/BAR"), "", "topic://FOO.BAR"),
        (Some("FOO/BAR"), "type=queue", "queue://FOO.BAR"),
        (Some("/FOO/"), "type=Topic", "topic://FOO"),
        (Some("FOO.BAR"), "type=queue", "queue://FOO.BAR"),
        (Some("a b/ä"), "type=queue", "queue://a b.ä"),
        (None, "destination=queue://X", "queue://X"),
        (None, "destination=topic://X/Y", "topic://X/Y"),
        (None, "destination=X", "topic://X"),
        (None, "destination=X&type=queue", "queue://X"),
        (None, "type=queue&destination=queue://X", "queue://X"),
        (Some(""), "destination=queue://X,topic://Y", "queue://X,topic://Y"),
        (None, "destination=temp-queue://X", "temp-queue://X"),
    ] {
        let query = params(query);
        let Post::Message(message) = activemq::post(path, &query, &[], b"").unwrap() else { panic!() };
        assert_eq!(message.address, address);
        assert_eq!(activemq::consume(path, &query, &[]).unwrap().address, address);
    }
    for (path, query, code, field) in [
        (None, "", Code::InvalidHeader, "destination"),
        (Some("/"), "type=queue", Code::InvalidHeader, "destination"),
        (Some("X"), "destination=queue://X", Code::InvalidHeader, "destination"),
        (None, "destination=queue://X&destination=queue://Y", Code::InvalidHeader, "destination"),
        (None, "destination=queue://X&type=topic", Code::InvalidHeader, "type"),
        (Some("X"), "type=stream", Code::InvalidHeader, "type"),
        (None, "destination=channel://X", Code::Unsupported, "destination"),
        (None, "destination=queue://", Code::InvalidDestination, "destination"),
    ] {
        let query = params(query);
        assert_eq!(refused(activemq::post(path, &query, &[], b"")), (code, field.to_owned()), "{query:?}");
        assert_eq!(refused(activemq::consume(path, &query, &[])), (code, field.to_owned()), "{query:?}");
    }
}

#[test]
fn the_body_is_a_forms_field_or_what_was_posted() {
    let text = |text: &'static str| DraftBody::Text(text.into());
    let octets = |bytes: &'static [u8]| DraftBody::Bytes(bytes.into());
    let table: [(Headers<'_>, &'static [u8], DraftBody<'_>, Option<&str>); 13] = [
        (&[FORM], b"body=hello+world%21", text("hello world!"), None),
        (&[FORM], "body=na\u{ef}ve%20%F0%9F%98%80".as_bytes(), text("na\u{ef}ve 😀"), None),
        (&[FORM], b"body=", text(""), None),
        // What `curl -d` sends without saying what it is.
        (&[FORM], b"hello", text("hello"), None),
        (&[FORM], b"{\"a\": 100%}", text("{\"a\": 100%}"), None),
        (&[FORM], b"\xff", octets(b"\xff"), None),
        (&[("content-type", "text/plain")], b"hello", text("hello"), Some("text/plain")),
        (&[("content-type", "application/json")], b"{\"a\":1}", text("{\"a\":1}"), Some("application/json")),
        (
            &[("content-type", "application/octet-stream")],
            b"\0\xff",
            octets(b"\0\xff"),
            Some("application/octet-stream"),
        ),
        (&[("content-type", "text/xml")], b"<a/>", text("<a/>"), Some("text/xml")),
        (&[], "naïve".as_bytes(), text("naïve"), None),
        (&[], b"\xff", octets(b"\xff"), None),
        (&[], b"", DraftBody::None, None),
    ];
    for (headers, body, expected, content_type) in table {
        let message = posted(&[], headers, body);
        assert_eq!(message.draft.body, expected);
        assert_eq!(message.draft.content_type.as_deref(), content_type);
    }
}

#[test]
fn parameters_are_fields_or_properties() {
    let query = params(
        "type=queue&JMSCorrelationID=c&JMSReplyTo=answers&JMSType=t&JMSDeliveryMode=non-persistent&JMSPriority=9\
         &JMSTimeToLive=1500&JMSExpiration=1700000000000&JMSTimestamp=7&JMSXGroupID=g&JMSXGroupSeq=2&colour=red&sync=false\
         &clientId=C&readTimeout=1&oneShot=true&ack=client&timeout=1&json=true&xml=true&browse=true&max=1\
         &selector=x&lease=1&vhost=other",
    );
    let message = posted(&query, &[FORM, ("x-prop-size", "5%25")], b"body=x&shape=round&JMSXAny=1");
    let draft = &message.draft;
    assert_eq!(draft.correlation_id.as_deref(), Some("c"));
    assert_eq!(draft.reply_to.as_deref(), Some("queue://answers"));
    assert_eq!(draft.kind.as_deref(), Some("t"));
    assert_eq!((draft.persistent, draft.priority), (Some(false), Some(9)));
    assert_eq!((draft.ttl_ms, draft.expiration), (Some(1500), Some(1_700_000_000_000)));
    assert_eq!(draft.timestamp, Some(7));
    assert_eq!((draft.group_id.as_deref(), draft.group_sequence), (Some("g"), Some(2)));
    assert!(!message.synchronous);
    assert_eq!(message.virtual_host.as_deref(), Some("other"));
    let found: Vec<(&str, &str)> =
        draft.user_properties.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(found, [("size", "5%"), ("colour", "red"), ("shape", "round"), ("JMSXAny", "1")]);

    let plain = posted(&[], &[], b"x");
    assert!(plain.synchronous);
    assert_eq!(
        (plain.draft.priority, plain.draft.persistent),
        (None, None),
        "as of everybody: 4 and persistent"
    );
    let empty = params("JMSReplyTo=&JMSCorrelationID=&JMSType=&JMSXGroupID=");
    let empty = posted(&empty, &[], b"x").draft;
    assert_eq!((empty.reply_to, empty.correlation_id, empty.kind, empty.group_id), (None, None, None, None));
    for (given, qualified) in [("topic://T", "topic://T"), ("temp-queue://1", "temp-queue://1")] {
        let query = params(&format!("JMSReplyTo={given}"));
        assert_eq!(posted(&query, &[], b"").draft.reply_to.as_deref(), Some(qualified));
    }
    for (mode, persistent) in [("persistent", true), ("PERSISTENT", true), ("2", true), ("1", false)] {
        let query = params(&format!("JMSDeliveryMode={mode}"));
        assert_eq!(posted(&query, &[], b"").draft.persistent, Some(persistent));
    }
}

#[test]
fn a_parameter_that_cannot_be_read_is_named() {
    for (name, value) in [
        ("JMSPriority", "10"),
        ("JMSPriority", "high"),
        ("JMSDeliveryMode", "sometimes"),
        ("JMSTimeToLive", "-1"),
        ("JMSExpiration", "soon"),
        ("JMSXGroupSeq", "x"),
        ("sync", "maybe"),
        ("action", "destroy"),
    ] {
        let query = params(&format!("{name}={value}"));
        let expected = (Code::InvalidHeader, name.to_owned());
        assert_eq!(refused(activemq::post(Some("q"), &query, &[], b"")), expected);
        let form = format!("body=x&{name}={value}");
        assert_eq!(refused(activemq::post(Some("q"), &[], &[FORM], form.as_bytes())), expected);
    }
}

#[test]
fn a_client_can_close_its_consumers() {
    let closed = Post::Unsubscribe { client_id: Some("C".to_owned()), virtual_host: None };
    let query = params("clientId=C&action=unsubscribe");
    assert_eq!(activemq::post(None, &query, &[], b"").unwrap(), closed);
    assert_eq!(activemq::post(None, &[], &[FORM], b"clientId=C&action=unsubscribe").unwrap(), closed);
}

fn consumed(query: &str) -> Result<Consume, EnvelopeError> {
    activemq::consume(Some("q"), &params(query), &[("selector", "a = 1")])
}

#[test]
fn a_get_says_how_long_it_waits_and_what_becomes_of_the_message() {
    let plain = consumed("type=queue").unwrap();
    assert_eq!((plain.wait_ms, plain.settling, plain.media), (20_000, Settling::Auto, None));
    assert_eq!(plain.selector.as_deref(), Some("a = 1"));
    assert_eq!(consumed("selector=b").unwrap().selector.as_deref(), Some("b"));
    for (query, wait_ms) in [("readTimeout=0", 0), ("timeout=500", 500), ("readTimeout=60000", 20_000)] {
        assert_eq!(consumed(query).unwrap().wait_ms, wait_ms);
    }
    for (query, settling) in [
        ("oneShot=true", Settling::Auto),
        ("ack=auto", Settling::Auto),
        ("ack=client", Settling::Client { lease_ms: None }),
        ("ack=client&lease=5", Settling::Client { lease_ms: Some(5) }),
        ("ack=client&lockTime=5", Settling::Client { lease_ms: Some(5) }),
        ("browse=true", Settling::Browse { max: 1000 }),
        ("browse=true&max=7", Settling::Browse { max: 7 }),
        ("browse=false", Settling::Auto),
    ] {
        assert_eq!(consumed(query).unwrap().settling, settling, "{query}");
    }
    assert_eq!(consumed("json=true").unwrap().media, Some(Media::Json));
    assert_eq!(consumed("xml=true&json=false").unwrap().media, Some(Media::Xml));
    let named = consumed("clientId=C&vhost=v&oneShot=true").unwrap();
    assert_eq!((named.client_id.as_deref(), named.virtual_host.as_deref()), (Some("C"), Some("v")));
    assert!(named.one_shot && !plain.one_shot);
    for (query, field) in [
        ("readTimout=5", "readTimout"),
        ("readTimeout=x", "readTimeout"),
        ("readTimeout=-1", "readTimeout"),
        ("readTimeout=1&timeout=2", "timeout"),
        ("oneShot=1", "oneShot"),
        ("ack=never", "ack"),
        ("lease=5", "lease"),
        ("ack=client&lease=5&lockTime=5", "lockTime"),
        ("max=5", "max"),
        ("browse=true&max=1001", "max"),
        ("browse=true&ack=client", "browse"),
        ("sync=true", "sync"),
    ] {
        assert_eq!(refused(consumed(query)), (Code::InvalidHeader, field.to_owned()), "{query}");
    }
}

/// Content type, headers by name and body of the reply for a draft.
fn replied(draft: &Draft<'_>, media: Option<Media>) -> (String, Vec<(String, String)>, Vec<u8>) {
    let message = message(draft, &Destination::queue("FOO.ä"));
    let delivery = delivery(&message);
    let reply = activemq::reply(&delivery, media);
    (reply.content_type.into_owned(), reply.headers, reply.body.into_owned())
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn the_reply_is_of_the_senders_type_or_of_the_kind_of_body() {
    let text = |text: &'static str| DraftBody::Text(text.into());
    let octets = |bytes: &'static [u8]| DraftBody::Bytes(bytes.into());
    for (said, body, media, expected) in [
        (None, text("hello"), None, "text/plain; charset=utf-8"),
        (None, text("<a/>"), None, "application/xml"),
        (None, octets(b"\0\xff"), None, "application/octet-stream"),
        (None, DraftBody::None, None, "text/plain; charset=utf-8"),
        (Some("image/png"), octets(b"\x89PNG"), None, "image/png"),
        (Some("text/html"), text("<script>"), None, "text/html"),
        (Some("a/b\r\nSet-Cookie: x"), text("x"), None, "text/plain; charset=utf-8"),
        (Some("nonsense"), octets(b"x"), None, "application/octet-stream"),
        (None, text("{}"), Some(Media::Json), "application/json"),
        (Some("text/plain"), text("<a/>"), Some(Media::Xml), "application/xml"),
    ] {
        let draft = Draft { content_type: said.map(Into::into), body, ..Draft::default() };
        let (content_type, headers, body) = replied(&draft, media);
        assert_eq!(content_type, expected);
        assert_eq!(value(&headers, "Content-Security-Policy"), Some("sandbox"));
        match draft.body {
            DraftBody::Text(text) => assert_eq!(body, text.as_bytes()),
            DraftBody::Bytes(bytes) => assert_eq!(body, &bytes[..]),
            _ => assert!(body.is_empty()),
        }
    }
    for (body, json) in [(r#"{"a":[1]}"#, r#"{"a":[1]}"#), ("[1,null]", "[1,null]")] {
        let envelope = format!("{{\"body\":{body}}}");
        let (content_type, _, body) = replied(&Draft::parse(envelope.as_bytes()).unwrap(), None);
        assert_eq!((&*content_type, &*body), ("application/json", json.as_bytes()));
    }
}

#[test]
fn fields_and_properties_are_headers_that_nothing_breaks_out_of() {
    let draft = Draft {
        sender_id: Some("ID:x-1".into()),
        correlation_id: Some("c\r\nSet-Cookie: a=b".into()),
        reply_to: Some("queue://answers".into()),
        kind: Some("t".into()),
        group_id: Some("g".into()),
        group_sequence: Some(-1),
        content_encoding: Some("gzip".into()),
        properties: vec![
            ("colour".into(), Value::String(" rot und grün, 50% ".into())),
            ("count".into(), Value::I64(1 << 60)),
            ("ok".into(), Value::Bool(true)),
            ("nothing".into(), Value::Null),
            ("a b".into(), Value::String("1".into())),
            ("Set-Cookie".into(), Value::String("session=stolen".into())),
            ("Location".into(), Value::String("http://evil".into())),
            ("id".into(), Value::String("another".into())),
        ],
        ..Draft::default()
    };
    let (_, headers, _) = replied(&draft, None);
    for (name, expected) in [
        ("id", Some("ID:x-1")),
        ("destination", Some("queue://FOO.%C3%A4")),
        ("JMSCorrelationID", Some("base64:Yw0KU2V0LUNvb2tpZTogYT1i")),
        ("JMSReplyTo", Some("queue://answers")),
        ("JMSType", Some("t")),
        ("JMSXGroupID", Some("g")),
        ("JMSXGroupSeq", Some("-1")),
        ("Content-Encoding", Some("gzip")),
        ("colour", Some("%20rot und gr%C3%BCn, 50%25%20")),
        ("count", Some("1152921504606846976")),
        ("ok", Some("true")),
        ("nothing", None),
        ("a%20b", Some("1")),
        ("Set-Cookie", None),
        ("X-Prop-Set-Cookie", Some("session=stolen")),
        ("Location", None),
        ("X-Prop-Location", Some("http://evil")),
        ("X-Prop-id", Some("another")),
        ("JMSRedelivered", None),
    ] {
        assert_eq!(value(&headers, name), expected, "{name}");
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    for (name, value) in &headers {
        assert!(!name.is_empty() && name.bytes().all(token), "{name}");
        assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && value.trim() == value, "{value}");
    }
}

#[test]
fn a_repetition_says_so() {
    let message = message(&Draft::default(), &Destination::queue("q"));
    let mut again = delivery(&message);
    (again.attempt, again.redelivered) = (3, true);
    let headers = activemq::reply(&again, None).headers;
    assert_eq!(value(&headers, "JMSRedelivered"), Some("true"));
    assert_eq!(value(&headers, "JMSXDeliveryCount"), Some("3"));
}

#[test]
fn more_properties_than_clients_read_are_left_out_and_counted() {
    let pairs = (0..70).map(|at| (format!("p{at}").into(), Value::I32(at)));
    let draft = Draft { properties: pairs.collect(), ..Draft::default() };
    let (_, headers, _) = replied(&draft, None);
    assert_eq!(value(&headers, "p63"), Some("63"));
    assert_eq!(value(&headers, "p64"), None);
    assert_eq!(value(&headers, "X-Prop-Omitted"), Some("6"));
    let long = Value::String("x".repeat(16 * 1024).into());
    let draft = Draft {
        properties: vec![("long".into(), long), ("short".into(), Value::Bool(true))],
        ..Draft::default()
    };
    let (_, headers, _) = replied(&draft, None);
    assert_eq!((value(&headers, "long"), value(&headers, "short")), (None, Some("true")));
    assert_eq!(value(&headers, "X-Prop-Omitted"), Some("1"));
}

#[test]
fn what_is_posted_is_what_is_got() {
    for (headers, body) in [
        (&[("content-type", "application/octet-stream")][..], &b"\0\x01\xff\n<"[..]),
        (&[("content-type", "text/plain")], "naïve 😀".as_bytes()),
        (&[("content-type", "application/json")], b"{\"a\": 1}"),
        (&[], b"<?xml version=\"1.0\"?><a/>"),
        (&[], b""),
    ] {
        let sent = posted(&[], headers, body);
        let (content_type, _, got) = replied(&sent.draft, None);
        assert_eq!(got, body);
        let said = headers.first().map_or("", |(_, value)| value);
        assert!(content_type.contains(said), "{content_type}");
    }
}
