//! Messages on their way out as CloudEvents.
#![allow(missing_docs, clippy::unwrap_used)]

mod harness;

use harness::{delivery, message};
use proptest::prelude::*;
use sabir_http::cloudevents;
use sabir_http::incoming::{self, Form};
use sabir_json::{Draft, DraftBody};
use sabir_model::clock::Timestamp;
use sabir_model::destination::Destination;
use sabir_model::headers::Value;
use serde_json::json;

fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// What a consumer of `queue://q` gets for a draft.
fn event(draft: &Draft<'_>) -> String {
    let message = message(draft, &Destination::queue("q"));
    let mut out = Vec::new();
    cloudevents::write(&delivery(&message), None, &mut out);
    String::from_utf8(out).unwrap()
}

fn parsed(event: &str) -> serde_json::Value {
    serde_json::from_str(event).unwrap()
}

fn read(form: Form, body: &[u8]) -> Draft<'_> {
    incoming::read(form, &[], &[], body).unwrap().drafts.remove(0)
}

#[test]
fn a_message_that_is_no_event_becomes_one() {
    let draft = Draft {
        kind: Some("order".into()),
        sender_id: Some("7".into()),
        content_type: Some("application/json".into()),
        timestamp: Some(951_782_400_000),
        properties: vec![
            ("region".into(), text("eu")),
            ("count".into(), Value::I32(3)),
            ("Upper".into(), text("left out")),
            ("precise".into(), Value::F64(1.5)),
            ("data".into(), text("left out")),
            ("id".into(), text("the message's goes before it")),
        ],
        body: DraftBody::Text("{\"a\":\r\n[1]}".into()),
        ..Draft::default()
    };
    assert_eq!(
        parsed(&event(&draft)),
        json!({
            "specversion": "1.0", "id": "7", "source": "queue://q", "type": "order",
            "time": "2000-02-29T00:00:00.000Z", "region": "eu", "count": 3,
            "datacontenttype": "application/json", "data": {"a": [1]},
        })
    );
    assert!(!event(&draft).contains(['\r', '\n']), "an event is one line");
    let bare = parsed(&event(&Draft::default()));
    assert_eq!(bare["type"], "sabir.message");
    assert!(bare["id"].as_str().unwrap().starts_with("ID:"), "{bare}");
    assert_eq!((bare.get("data"), bare.get("data_base64")), (None, None));
}

#[test]
fn data_is_what_the_body_is() {
    let as_json = || Some("application/json".into());
    let octets = |bytes: &'static [u8]| DraftBody::Bytes(bytes.into());
    for (content_type, body, expected) in [
        (None, DraftBody::Text("a<b".into()), json!({"datacontenttype": "text/plain", "data": "a<b"})),
        (Some("text/csv".into()), octets(b"a,b"), json!({"datacontenttype": "text/csv", "data": "a,b"})),
        (as_json(), octets(b"[1]"), json!({"datacontenttype": "application/json", "data": [1]})),
        (
            as_json(),
            DraftBody::Text("no json".into()),
            json!({"datacontenttype": "application/json", "data_base64": "bm8ganNvbg=="}),
        ),
        (None, octets(b"21.5"), json!({"data_base64": "MjEuNQ=="})),
        (
            Some("image/png".into()),
            octets(b"x"),
            json!({"datacontenttype": "image/png", "data_base64": "eA=="}),
        ),
        (
            Some("text/plain".into()),
            octets(b"\xff"),
            json!({"datacontenttype": "text/plain", "data_base64": "/w=="}),
        ),
    ] {
        let draft = Draft { content_type, body, ..Draft::default() };
        let event = parsed(&event(&draft));
        for name in ["data", "data_base64", "datacontenttype"] {
            assert_eq!(event.get(name), expected.get(name), "{name} of {draft:?}");
        }
    }
    let map = read(Form::Json, br#"{"body":{"a":[1,null]}}"#);
    let event = parsed(&event(&map));
    assert_eq!(
        (&event["datacontenttype"], &event["data"]),
        (&json!("application/json"), &json!({"a": [1, null]}))
    );
}

#[test]
fn an_event_of_another_protocol_is_recognised() {
    for prefix in ["cloudEvents_", "cloudEvents:", ""] {
        let properties =
            [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t"), ("subject", "x")];
        let properties = properties.map(|(name, value)| (format!("{prefix}{name}").into(), text(value)));
        let draft =
            Draft { properties: properties.to_vec(), sender_id: Some("other".into()), ..Draft::default() };
        assert_eq!(
            parsed(&event(&draft)),
            json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "x"}),
            "{prefix}"
        );
    }
}

#[test]
fn an_event_that_is_the_body_leaves_as_it_is() {
    let body = "{\"specversion\":\"1.0\",\n\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"data\":1}";
    let draft = Draft {
        content_type: Some("application/cloudevents+json; charset=utf-8".into()),
        body: DraftBody::Text(body.into()),
        ..Draft::default()
    };
    assert_eq!(parsed(&event(&draft)), parsed(body));
    let broken = Draft { body: DraftBody::Text("{\"id\":1}".into()), ..draft };
    assert_eq!(parsed(&event(&broken))["data"], json!({"id": 1}));
}

#[test]
fn a_lease_is_told_in_attributes() {
    let draft = Draft { body: DraftBody::Text("x".into()), ..Draft::default() };
    let whole = Draft {
        content_type: Some("application/cloudevents+json".into()),
        body: DraftBody::Text(r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#.into()),
        ..Draft::default()
    };
    for draft in [draft, whole] {
        let message = message(&draft, &Destination::topic("a.b"));
        let mut out = Vec::new();
        cloudevents::write(&delivery(&message), Some(("00ff", Timestamp(0))), &mut out);
        let event: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (&event["lease"], &event["leaseexpires"]),
            (&json!("00ff"), &json!("1970-01-01T00:00:00.000Z"))
        );
        assert_eq!(event["specversion"], "1.0");
    }
}

proptest! {
    #[test]
    fn what_comes_as_an_event_leaves_as_the_same(
        extensions in prop::collection::btree_map("[a-z0-9]{1,6}", prop_oneof![
            "[^\\p{Cc}]{0,6}".prop_map(|text| json!(text)),
            any::<i32>().prop_map(|number| json!(number)),
            any::<bool>().prop_map(|truth| json!(truth)),
        ], 0..5),
        id in "[^\\p{Cc}]{1,6}",
        data in prop_oneof![
            Just(json!({})),
            any::<i64>().prop_map(|number| json!({"data": number})),
            "\\PC{0,9}".prop_map(|text| json!({"data": [text], "datacontenttype": "application/x+json"})),
            "\\PC{0,9}".prop_map(|text| json!({"data": text, "datacontenttype": "text/plain"})),
            Just(json!({"data_base64": "/wA=", "datacontenttype": "image/png"})),
        ],
    ) {
        let mut event = data;
        let members = event.as_object_mut().unwrap();
        for (name, value) in extensions {
            // Attributes with rules of their own are not made of noise.
            if !["id", "time", "type", "data"].contains(&&*name) {
                members.insert(name, value);
            }
        }
        for (name, value) in [("specversion", "1.0"), ("id", &*id), ("source", "/s"), ("type", "t")] {
            members.insert(name.to_owned(), json!(value));
        }
        let body = event.to_string();
        let written = parsed(&self::event(&read(Form::CloudEvent, body.as_bytes())));
        if event.get("data").is_some() && event.get("datacontenttype").is_none() {
            event["datacontenttype"] = json!("application/json");
        }
        prop_assert_eq!(written, event);
    }
}
