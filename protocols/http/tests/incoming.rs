//! What requests send, in each form, and what is refused, with the field and the place.
#![allow(missing_docs, clippy::unwrap_used)]

use sabir_http::incoming::{self, Form, Incoming, MESSAGES_MAX};
use sabir_json::{Draft, DraftBody, EnvelopeError};
use sabir_model::error::Code;
use sabir_model::headers::Value;

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Reads a request as the server does: the form by its headers, then the body.
fn request<'a>(
    params: &'a [(String, String)],
    headers: Headers<'a>,
    body: &'a [u8],
) -> Result<Incoming<'a>, EnvelopeError> {
    let find = |wanted| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let form = Form::of(find("content-type"), find("ce-specversion").is_some(), false);
    incoming::read(form, params, headers, body)
}

fn params(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn one<'a>(headers: Headers<'a>, body: &'a [u8]) -> Draft<'a> {
    let incoming = request(&[], headers, body).unwrap();
    assert!(!incoming.is_batch);
    let [draft] = <[Draft<'a>; 1]>::try_from(incoming.drafts).unwrap();
    draft
}

fn property<'a>(draft: &'a Draft<'_>, name: &str) -> Option<&'a Value> {
    draft.properties.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

#[test]
fn the_form_is_told_by_the_media_type() {
    for (media_type, with_headers, without) in [
        (None, Form::CloudEventBinary, Form::Raw),
        (Some("application/json"), Form::CloudEventBinary, Form::Json),
        (Some("Application/JSON ; charset=utf-8"), Form::CloudEventBinary, Form::Json),
        (Some("application/vnd.sabir+json"), Form::CloudEventBinary, Form::Json),
        (Some("application/vnd.acme+json"), Form::CloudEventBinary, Form::Raw),
        (Some("application/x-ndjson"), Form::CloudEventBinary, Form::Ndjson),
        (Some("application/ndjson;charset=utf-8"), Form::CloudEventBinary, Form::Ndjson),
        (Some("application/cloudevents+json; charset=utf-8"), Form::CloudEvent, Form::CloudEvent),
        (Some("application/cloudevents-batch+json"), Form::CloudEventBatch, Form::CloudEventBatch),
        (Some("application/cloudevents+avro"), Form::CloudEventBinary, Form::Raw),
        (Some("text/plain"), Form::CloudEventBinary, Form::Raw),
        (Some("nonsense"), Form::CloudEventBinary, Form::Raw),
    ] {
        assert_eq!(Form::of(media_type, true, false), with_headers, "{media_type:?}");
        assert_eq!(Form::of(media_type, false, false), without, "{media_type:?}");
        assert_eq!(Form::of(media_type, true, true), Form::Raw, "{media_type:?}");
    }
}

#[test]
fn a_raw_body_is_text_if_its_type_says_so_and_it_is() {
    let text = |text: &'static str| DraftBody::Text(text.into());
    let octets = |bytes: &'static [u8]| DraftBody::Bytes(bytes.into());
    let table: [(Headers<'_>, &'static [u8], DraftBody<'_>); 15] = [
        (&[("content-type", "text/plain")], b"hello", text("hello")),
        (&[("content-type", "text/plain; charset=UTF-8")], "naïve 😀".as_bytes(), text("naïve 😀")),
        (&[("content-type", "text/plain; charset=\"us-ascii\"")], b"hello", text("hello")),
        (&[("content-type", "text/plain; charset=iso-8859-1")], b"caf\xe9", octets(b"caf\xe9")),
        (&[("content-type", "text/plain; charset=utf-16")], b"h\0i\0", octets(b"h\0i\0")),
        (&[("content-type", "text/plain")], b"\xff", octets(b"\xff")),
        (&[("content-type", "application/xml")], b"<a/>", text("<a/>")),
        (&[("content-type", "application/vnd.acme+json")], b"{}", text("{}")),
        (&[("content-type", "application/x-www-form-urlencoded")], b"a=1&b=2", text("a=1&b=2")),
        (&[("content-type", "application/octet-stream")], b"hello", octets(b"hello")),
        (&[("content-type", "image/png")], b"\x89PNG\0\x01", octets(b"\x89PNG\0\x01")),
        (&[], b"hello", octets(b"hello")),
        (&[("content-type", "text/plain")], b"", DraftBody::None),
        (&[], b"", DraftBody::None),
        (&[("content-type", "text/plain"), ("content-encoding", "gzip")], b"\x1f\x8b", octets(b"\x1f\x8b")),
    ];
    for (headers, body, expected) in table {
        let draft = one(headers, body);
        assert_eq!(draft.body, expected, "{headers:?}");
        let given = headers.iter().find(|(name, _)| *name == "content-type").map(|(_, value)| *value);
        assert_eq!(draft.content_type.as_deref(), given);
    }
    let encoded = [("content-type", "text/plain"), ("content-encoding", "gzip")];
    assert_eq!(one(&encoded, b"plain").content_encoding.as_deref(), Some("gzip"));
    assert_eq!(one(&[("content-encoding", "identity")], b"plain").content_encoding, None);
}

#[test]
fn parameters_say_what_a_raw_body_cannot() {
    let given = params(&[
        ("ttl", "1500"),
        ("expiration", "1700000000000"),
        ("timestamp", "1600000000000"),
        ("priority", "9"),
        ("persistent", "false"),
        ("retained", ""),
        ("correlationId", "c 1"),
        ("replyTo", "queue://answers"),
        ("type", "order"),
        ("groupId", "g"),
        ("groupSeq", "-1"),
    ]);
    let incoming = request(&given, &[("content-type", "text/plain")], b"x").unwrap();
    let draft = &incoming.drafts[0];
    assert_eq!(draft.ttl_ms, Some(1500));
    assert_eq!(draft.expiration, Some(1_700_000_000_000));
    assert_eq!(draft.timestamp, Some(1_600_000_000_000));
    assert_eq!(draft.priority, Some(9));
    assert_eq!(draft.persistent, Some(false));
    assert_eq!(draft.retained, Some(true));
    assert_eq!(draft.correlation_id.as_deref(), Some("c 1"));
    assert_eq!(draft.reply_to.as_deref(), Some("queue://answers"));
    assert_eq!(draft.kind.as_deref(), Some("order"));
    assert_eq!(draft.group_id.as_deref(), Some("g"));
    assert_eq!(draft.group_sequence, Some(-1));
}

#[test]
fn a_parameter_that_is_unknown_or_wrong_is_named() {
    for (name, value) in [
        ("prio", "1"),
        ("Priority", "1"),
        ("priority", "10"),
        ("priority", "x"),
        ("priority", "+1"),
        ("ttl", "-1"),
        ("ttl", "9223372036854775808"),
        ("ttl", ""),
        ("expiration", "tomorrow"),
        ("timestamp", "1.5"),
        ("persistent", "yes"),
        ("retained", "1"),
        ("groupSeq", "2147483648"),
    ] {
        let given = params(&[(name, value)]);
        for headers in [
            &[][..],
            &[("content-type", "application/json")],
            &[("content-type", "application/cloudevents-batch+json")],
        ] {
            let error = request(&given, headers, b"[]").unwrap_err();
            assert_eq!((error.code, error.field.as_deref()), (Code::InvalidHeader, Some(name)), "{value}");
        }
    }
    let twice = params(&[("ttl", "1"), ("ttl", "2")]);
    assert_eq!(request(&twice, &[], b"").unwrap_err().field.as_deref(), Some("ttl"));
}

#[test]
fn headers_give_properties() {
    let headers = [
        ("x-prop-colour", " red "),
        ("x-prop-order%49d", "50%25 off, na%C3%AFve"),
        ("X-Prop-a%20b", ""),
        ("x-prop-colour", "blue"),
        ("x-property", "not one"),
        ("x-request-id", "not one either"),
    ];
    let draft = one(&headers, b"");
    let found: Vec<(&str, &str)> =
        draft.user_properties.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(found, [("colour", "red"), ("orderId", "50% off, naïve"), ("a b", ""), ("colour", "blue")]);
    for (name, value) in [("x-prop-", "x"), ("x-prop-a%", "x"), ("x-prop-a", "100%"), ("x-prop-a", "%ff")] {
        let error = request(&[], &[(name, value)], b"").unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (Code::InvalidHeader, Some(name)));
    }
}

#[test]
fn json_is_a_message_or_an_array_of_them() {
    let json = [("content-type", "application/json")];
    let draft = one(&json, br#"{"body":"hi","priority":7}"#);
    assert_eq!((draft.body, draft.priority), (DraftBody::Text("hi".into()), Some(7)));
    for (body, count) in [("[]", 0), ("[{}]", 1), (" [{\"body\":1.5e3},{}] ", 0)] {
        match request(&[], &json, body.as_bytes()) {
            Ok(incoming) => assert_eq!((incoming.drafts.len(), incoming.is_batch), (count, true)),
            Err(error) => assert_eq!((count, error.field.as_deref()), (0, Some("body"))),
        }
    }
}

#[test]
fn what_a_message_says_goes_before_what_the_request_says_for_all() {
    let given =
        params(&[("ttl", "5"), ("priority", "9"), ("type", "t"), ("persistent", "false"), ("replyTo", "r")]);
    let own = br#"[{"expiration":7,"priority":0,"type":"own","persistent":true,"replyTo":"own"},{"priority":null}]"#;
    let incoming = request(&given, &[("content-type", "application/json")], own).unwrap();
    let said: Vec<_> = incoming
        .drafts
        .iter()
        .map(|draft| {
            (draft.ttl_ms, draft.expiration, draft.priority, draft.kind.as_deref(), draft.persistent)
        })
        .collect();
    let own = (None, Some(7), Some(0), Some("own"), Some(true));
    assert_eq!(said, [own, (Some(5), None, Some(9), Some("t"), Some(false))]);
    assert_eq!(incoming.drafts[0].reply_to.as_deref(), Some("own"));
    assert_eq!(incoming.drafts[1].reply_to.as_deref(), Some("r"));
    let event = br#"{"specversion":"1.0","type":"own","source":"s","id":"i"}"#;
    let incoming = request(&given, &EVENT, event).unwrap();
    assert_eq!((incoming.drafts[0].kind.as_deref(), incoming.drafts[0].ttl_ms), (Some("own"), Some(5)));
}

#[test]
fn messages_that_say_their_properties_take_none_from_headers() {
    for media_type in ["application/json", "application/x-ndjson", "application/cloudevents-batch+json"] {
        let media = ("content-type", media_type);
        let body: &[u8] = if media_type.contains("ndjson") { b"{}" } else { b"[]" };
        let error = request(&[], &[media, ("x-prop-a", "1")], body).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (Code::InvalidHeader, Some("x-prop-a")));
        let error = request(&[], &[media, ("content-encoding", "gzip")], body).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (Code::InvalidHeader, Some("Content-Encoding")));
    }
    let event = br#"{"specversion":"1.0","type":"t","source":"s","id":"i"}"#;
    let incoming = request(&[], &[EVENT[0], ("x-prop-a", "1")], event).unwrap();
    assert_eq!(incoming.drafts[0].user_properties, [("a".into(), "1".into())]);
}

#[test]
fn lines_are_messages_and_a_wrong_one_is_told_by_its_number() {
    let lines = [("content-type", "application/x-ndjson")];
    let incoming = request(&[], &lines, b"{\"body\":\"a\"}\r\n\n  {\"body\":\"b\"}").unwrap();
    let bodies: Vec<_> = incoming.drafts.iter().map(|draft| draft.body.clone()).collect();
    assert_eq!(bodies, [DraftBody::Text("a".into()), DraftBody::Text("b".into())]);
    assert!(incoming.is_batch);
    assert!(request(&[], &lines, b"{}").unwrap().is_batch);
    assert_eq!(request(&[], &lines, b"\n").unwrap().drafts.len(), 0);

    let error = request(&[], &lines, b"{}\n\n{\"prio\":1}\n{}").unwrap_err();
    assert_eq!(error.code, Code::InvalidBody);
    assert_eq!(error.field.as_deref(), Some("prio"));
    assert_eq!(error.place.map(|(line, _)| line), Some(3));
    assert!(error.sentence.contains("line 3 column"), "{}", error.sentence);
    let error = request(&[], &lines, b"{}\n{}{}").unwrap_err();
    assert_eq!(error.place, Some((2, 3)));
    assert_eq!(request(&[], &lines, b"{}\n{\"body\":\"\xff\"}").unwrap_err().place.unwrap().0, 2);
}

#[test]
fn a_request_holds_so_many_messages_and_no_more() {
    let batch = |media_type, first: &str, item: &str, between: &str, last: &str, count: usize| {
        let body = [first, &vec![item; count].join(between), last].concat();
        let headers = [("content-type", media_type)];
        request(&[], &headers, body.as_bytes())
            .map(|incoming| incoming.drafts.len())
            .map_err(|error| error.code)
    };
    assert_eq!(batch("application/json", "[", "{}", ",", "]", MESSAGES_MAX), Ok(MESSAGES_MAX));
    assert_eq!(batch("application/json", "[", "{}", ",", "]", MESSAGES_MAX + 1), Err(Code::LimitReached));
    assert_eq!(batch("application/x-ndjson", "", "{}", "\n", "", MESSAGES_MAX), Ok(MESSAGES_MAX));
    assert_eq!(batch("application/x-ndjson", "", "{}", "\n", "", MESSAGES_MAX + 1), Err(Code::LimitReached));
    let events = "application/cloudevents-batch+json";
    assert_eq!(batch(events, "[", "{}", ",", "]", MESSAGES_MAX + 1), Err(Code::LimitReached));
    // Braces in text are no messages.
    let body = format!("[{{\"body\":\"{}\"}}]", "{".repeat(MESSAGES_MAX + 1));
    let headers = [("content-type", "application/json")];
    assert_eq!(request(&[], &headers, body.as_bytes()).unwrap().drafts.len(), 1);
}

const EVENT: [(&str, &str); 1] = [("content-type", "application/cloudevents+json")];

#[test]
fn an_event_is_a_message_with_its_attributes_as_properties() {
    let draft = one(
        &EVENT,
        br#"{"specversion":"1.0","type":"com.example.someevent","source":"/mycontext","subject":null,
            "id":"C234-1234-1234","time":"2018-04-05T17:31:00Z","comexampleextension1":"value",
            "comexampleothervalue":5,"flag":true,"datacontenttype":"application/json","data":{"b":1,"a":[ 2 ]}}"#,
    );
    assert_eq!(draft.sender_id.as_deref(), Some("C234-1234-1234"));
    assert_eq!(draft.kind.as_deref(), Some("com.example.someevent"));
    assert_eq!(draft.content_type.as_deref(), Some("application/json"));
    assert_eq!(draft.body, DraftBody::Text(r#"{"b":1,"a":[ 2 ]}"#.into()));
    let text = |text: &str| Some(Value::String(text.into()));
    for (name, value) in [
        ("cloudEvents_specversion", text("1.0")),
        ("cloudEvents_id", text("C234-1234-1234")),
        ("cloudEvents_source", text("/mycontext")),
        ("cloudEvents_type", text("com.example.someevent")),
        ("cloudEvents_time", text("2018-04-05T17:31:00Z")),
        ("cloudEvents_comexampleextension1", text("value")),
        ("cloudEvents_comexampleothervalue", Some(Value::I32(5))),
        ("cloudEvents_flag", Some(Value::Bool(true))),
        ("cloudEvents_subject", None),
        ("cloudEvents_datacontenttype", None),
    ] {
        assert_eq!(property(&draft, name), value.as_ref(), "{name}");
    }
}

/// The body and content type of an event with these members besides those that every event has.
fn data(members: &str) -> Result<(DraftBody<'static>, Option<String>), Option<String>> {
    let body = format!(r#"{{"specversion":"1.0","type":"t","source":"s","id":"i"{members}}}"#);
    let incoming = request(&[], &EVENT, body.as_bytes()).map_err(|error| {
        assert_eq!(error.code, Code::InvalidBody, "{members}");
        error.field
    })?;
    let draft = &incoming.drafts[0];
    let body = match &draft.body {
        DraftBody::Text(text) => DraftBody::Text(text.to_string().into()),
        DraftBody::Bytes(bytes) => DraftBody::Bytes(bytes.to_vec().into()),
        _ => DraftBody::None,
    };
    Ok((body, draft.content_type.as_deref().map(str::to_owned)))
}

#[test]
fn the_data_of_an_event_is_json_text_or_octets_as_its_type_says() {
    let json = || Some("application/json".to_owned());
    let text = |text: &'static str| DraftBody::Text(text.into());
    assert_eq!(data(""), Ok((DraftBody::None, None)));
    assert_eq!(data(r#","data":null"#), Ok((text("null"), json())));
    assert_eq!(data(r#","data":"I'm a string""#), Ok((text(r#""I'm a string""#), json())));
    assert_eq!(data(r#","data":12345678901234567890"#), Ok((text("12345678901234567890"), json())));
    let problem = Some("application/problem+json; charset=utf-8".to_owned());
    assert_eq!(
        data(r#","datacontenttype":"application/problem+json; charset=utf-8","data":{}"#),
        Ok((text("{}"), problem))
    );
    assert_eq!(
        data(r#","datacontenttype":"application/xml","data":"<much wow=\"xml\"/>""#),
        Ok((text(r#"<much wow="xml"/>"#), Some("application/xml".to_owned())))
    );
    let octets = DraftBody::Bytes(vec![0xff, 0].into());
    assert_eq!(data(r#","data_base64":"/wA=""#), Ok((octets, None)));
    for (members, field) in [
        (r#","datacontenttype":"application/xml","data":{}"#, "data"),
        (r#","data":1,"data_base64":"/wA=""#, "data"),
        (r#","data_base64":"/wA""#, "data_base64"),
        (r#","data_base64":1"#, "data_base64"),
        (r#","datacontenttype":5"#, "datacontenttype"),
        (r#","datacontenttype":"xml","data":"""#, "datacontenttype"),
    ] {
        assert_eq!(data(members), Err(Some(field.to_owned())), "{members}");
    }
}

#[test]
fn what_an_event_may_not_be_is_named() {
    let with = |name: &str, value: &str| {
        let mut members =
            vec![("specversion", r#""1.0""#), ("type", r#""t""#), ("source", r#""s""#), ("id", r#""i""#)];
        members.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            members.push((name, value));
        }
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    };
    for (name, value) in [
        ("id", ""),
        ("source", ""),
        ("specversion", ""),
        ("type", ""),
        ("id", "null"),
        ("id", "5"),
        ("id", r#""""#),
        ("specversion", r#""0.3""#),
        ("source", r#""a b""#),
        ("subject", r#""""#),
        ("time", r#""yesterday""#),
        ("time", "1"),
        ("Upper", "1"),
        ("with_underscore", "1"),
        ("fraction", "1.5"),
        ("object", "{}"),
        ("control", r#""a\u0000b""#),
    ] {
        let body = with(name, value);
        let error = request(&[], &EVENT, body.as_bytes()).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (Code::InvalidBody, Some(name)), "{body}");
    }
    for body in ["", "[]", "{", "{\"id\":\"1\",\"id\":\"2\"}", "{}{}"] {
        let error = request(&[], &EVENT, body.as_bytes()).unwrap_err();
        assert!(error.place.is_some(), "{body}");
    }
}

#[test]
fn a_batch_of_events_tells_which_one_is_wrong() {
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let event = r#"{"specversion":"1.0","type":"t","source":"s","id":"i"}"#;
    let body = format!("[{event}, {event}]");
    let given = params(&[("ttl", "5")]);
    let incoming = request(&given, &headers, body.as_bytes()).unwrap();
    assert!(incoming.is_batch);
    assert_eq!(incoming.drafts.iter().map(|draft| draft.ttl_ms).collect::<Vec<_>>(), [Some(5), Some(5)]);
    assert_eq!(request(&[], &headers, b"[]").unwrap(), Incoming { drafts: vec![], is_batch: true });
    let body = format!("[{event}, {{\"id\":\"1\"}}]");
    let error = request(&[], &headers, body.as_bytes()).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("source"));
    assert!(error.sentence.starts_with("event 2: "), "{}", error.sentence);
    assert!(request(&[], &headers, event.as_bytes()).is_err());
}

#[test]
fn an_event_in_headers_is_the_same_event() {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1234-1234-1234"),
        ("ce-source", "/mycontext/subcontext"),
        ("ce-type", "com.example.someevent"),
        ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("ce-old", "\"a \\\"b\\\" c\""),
        ("content-type", "application/json; charset=utf-8"),
    ];
    let draft = one(&headers, b"{\"a\":1}");
    assert_eq!(draft.body, DraftBody::Text("{\"a\":1}".into()));
    assert_eq!(draft.content_type.as_deref(), Some("application/json; charset=utf-8"));
    assert_eq!(draft.sender_id.as_deref(), Some("1234-1234-1234"));
    assert_eq!(property(&draft, "cloudEvents_subject"), Some(&Value::String("Euro € 😀".into())));
    assert_eq!(property(&draft, "cloudEvents_old"), Some(&Value::String("a \"b\" c".into())));

    for (name, value, field) in [
        ("ce-subject", "%C0%A0", "ce-subject"),
        ("ce-subject", "\"open", "ce-subject"),
        ("ce-time", "noon", "time"),
        ("ce-with-dash", "x", "with-dash"),
        ("ce-datacontenttype", "text/plain", "ce-datacontenttype"),
        ("ce-id", "again", "id"),
    ] {
        let mut headers = headers[..4].to_vec();
        headers.push((name, value));
        let error = request(&[], &headers, b"").unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field));
    }
    let error = request(&[], &headers[..3], b"").unwrap_err();
    assert_eq!(error.field.as_deref(), Some("type"));
}
