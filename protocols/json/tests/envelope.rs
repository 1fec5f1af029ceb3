//! The JSON form of a message: what is written comes back, what is wrong is named, and nothing makes it large.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use sabir_json::{BodyForm, Draft, DraftBody, RenderOptions, View};
use sabir_model::clock::Timestamp;
use sabir_model::command::TargetKey;
use sabir_model::destination::{Destination, Targets};
use sabir_model::message::{FieldsWriter, Message, Tag};

const NOW: Timestamp = Timestamp(1_000_000);

/// The message that the broker would make of a draft.
fn message(draft: &Draft<'_>) -> Message {
    let destination = Destination::queue("q");
    let targets = Targets::from_iter([destination.clone()]);
    let mut head = FieldsWriter::new();
    head.destination(Tag::Destination, &destination);
    let mut fields = FieldsWriter::new();
    let key = TargetKey { slot: 0, generation: 0 };
    let publish = draft.publish(&targets, key, NOW, &mut fields).unwrap();
    Message::new(publish.facts, &[head.as_slice(), publish.fields], publish.body)
}

fn shown(message: &Message, body: BodyForm) -> serde_json::Value {
    let mut out = Vec::new();
    View::message(message, None, 0).object(&RenderOptions { body }, &mut out);
    serde_json::from_slice(&out).unwrap()
}

/// What of a shown message may be sent again.
fn sendable(mut shown: serde_json::Value) -> String {
    let object = shown.as_object_mut().unwrap();
    for key in ["id", "redelivered", "deliveryCount"] {
        object.remove(key);
    }
    shown.to_string()
}

fn json_string() -> impl Strategy<Value = String> {
    "[a-zé😀 \"\\\\\n\u{1}]{0,8}"
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-(1_i64 << 53) + 1..1 << 53).prop_map(Into::into),
        any::<i64>().prop_map(|n| serde_json::json!({ "$type": "i64", "value": n.to_string() })),
        (-1e9..1e9_f64).prop_map(|n| serde_json::json!(n)),
        json_string().prop_map(Into::into),
        proptest::collection::vec(any::<u8>(), 0..4).prop_map(|bytes| {
            let mut text = Vec::new();
            sabir_model::base64::encode(&bytes, &mut text);
            serde_json::json!({ "$bin": String::from_utf8(text).unwrap() })
        }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            proptest::collection::hash_map("[a-z]{1,4}", inner, 0..3)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn body() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        Just(serde_json::Value::Null),
        json_string().prop_map(Into::into),
        proptest::collection::vec(value(), 0..4).prop_map(Into::into),
        proptest::collection::hash_map("[a-z]{1,4}", value(), 0..4)
            .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
    ]
}

proptest! {
    #[test]
    fn what_is_shown_can_be_sent_again_and_is_shown_the_same(
        text in json_string(),
        id in json_string(),
        properties in proptest::collection::hash_map("[a-z]{1,5}", value(), 0..4),
        body in body(),
        persistent in any::<bool>(),
        priority in 0_u8..10,
        ttl in 0_u64..5000,
    ) {
        let sent = serde_json::json!({
            "destination": "queue://q", "type": text, "correlationId": id, "groupId": text, "groupSeq": -3,
            "persistent": persistent, "priority": priority, "ttl": ttl, "timestamp": 77,
            "replyTo": "topic://answers", "properties": properties, "body": body,
        })
        .to_string();
        let first = message(&Draft::parse(sent.as_bytes()).unwrap());
        let once = shown(&first, BodyForm::Whole);
        prop_assert_eq!(&once["type"], &text);
        prop_assert_eq!(&once["priority"], priority);
        prop_assert_eq!(once["expiration"].as_u64(), (ttl > 0).then_some(NOW.0 + ttl));
        let again = sendable(once.clone());
        let second = message(&Draft::parse(again.as_bytes()).unwrap());
        prop_assert_eq!(shown(&second, BodyForm::Whole), once);
    }

    #[test]
    fn reading_anything_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Draft::parse(&bytes);
        let _ = Draft::parse_many(&bytes);
    }

    #[test]
    fn a_head_of_a_body_ends_where_a_character_does(text in "[aé😀]{0,20}", most in 0_usize..30) {
        let message = message(&Draft { body: DraftBody::Text((&text).into()), ..Draft::default() });
        let shown = shown(&message, BodyForm::Head(most));
        let head = shown["body"].as_str().unwrap_or_default();
        prop_assert!(text.starts_with(head) && head.len() <= most);
        prop_assert_eq!(shown["bodyBytes"].as_u64(), Some(text.len() as u64));
        prop_assert_eq!(shown["bodyTruncated"].as_bool(), Some(text.len() > most));
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (json, field) in [
        (r#"{"bdy":1}"#, Some("bdy")),
        (r#"{"body":1}"#, Some("body")),
        (r#"{"priority":10}"#, Some("priority")),
        (r#"{"priority":"4"}"#, Some("priority")),
        (r#"{"ttl":-1}"#, Some("ttl")),
        (r#"{"persistent":1}"#, Some("persistent")),
        (r#"{"properties":[]}"#, Some("properties")),
        (r#"{"properties":{"a":1,"a":2}}"#, Some("properties")),
        (r#"{"properties":{"a":{"b":1,"b":2}}}"#, Some("properties")),
        (r#"{"properties":{"a":{"$type":"i8","value":"300"}}}"#, Some("properties")),
        (r#"{"userProperties":[["a"]]}"#, Some("userProperties")),
        (r#"{"bodyBase64":"?"}"#, Some("bodyBase64")),
        (r#"{"type":"a","type":"b"}"#, Some("type")),
        (r#"{"userId":"root"}"#, Some("userId")),
    ] {
        let error = Draft::parse(json.as_bytes()).unwrap_err();
        assert_eq!(error.field.as_deref(), field, "{json}: {error}");
        assert_eq!(error.place.map(|(line, _)| line), Some(1), "{json}");
    }
    assert!(Draft::parse(br#"{"body":"a","bodyBase64":"YQ=="}"#).is_err());
    assert!(Draft::parse(br#"{} {}"#).is_err());
    assert!(Draft::parse(br#"[]"#).is_err());
}

#[test]
fn one_message_or_many() {
    let (drafts, many) = Draft::parse_many(br#" [{"body":"1"},{"body":"2"}] "#).unwrap();
    assert!(many && drafts.len() == 2);
    let (drafts, many) = Draft::parse_many(br#"{"body":"1"}"#).unwrap();
    assert!(!many && drafts.len() == 1);
}

#[test]
fn nothing_nests_deeper_or_holds_more_values_than_it_may() {
    let deep = format!(r#"{{"body":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    assert!(Draft::parse(deep.as_bytes()).unwrap_err().sentence.contains("nested deeper"));
    let many = format!(r#"{{"body":[0{}]}}"#, ",0".repeat(1 << 20));
    assert!(Draft::parse(many.as_bytes()).unwrap_err().sentence.contains("more than"));
    let few = format!(r#"{{"body":[0{}]}}"#, ",0".repeat(1000));
    assert!(Draft::parse(few.as_bytes()).is_ok());
}

#[test]
fn pairs_keep_their_order_and_repetitions() {
    let sent = br#"{"properties":{"a":"1","n":5},"userProperties":[["a","1"],["b","x"],["a","2"]]}"#;
    let shown = shown(&message(&Draft::parse(sent).unwrap()), BodyForm::Whole);
    assert_eq!(shown["properties"], serde_json::json!({ "n": 5, "a": "1", "b": "x" }));
    assert_eq!(shown["userProperties"], serde_json::json!([["a", "1"], ["b", "x"], ["a", "2"]]));
}

#[test]
fn octets_are_text_only_where_nobody_said_otherwise() {
    let shown = |content_type: Option<&str>, bytes: &[u8]| {
        let draft = Draft {
            body: DraftBody::Bytes(bytes.into()),
            content_type: content_type.map(Into::into),
            ..Draft::default()
        };
        shown(&message(&draft), BodyForm::Whole)
    };
    assert_eq!(shown(None, b"21.5")["body"], "21.5");
    assert_eq!(shown(Some("text/csv"), b"a,b")["body"], "a,b");
    assert_eq!(shown(Some("image/png"), b"21.5")["bodyBase64"], "MjEuNQ==");
    assert_eq!(shown(None, b"\0")["bodyBase64"], "AA==");
    assert_eq!(shown(None, b"\xff")["bodyBase64"], "/w==");
}
