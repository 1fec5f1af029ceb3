//! Server-Sent Events, read back by the algorithm of the specification (WHATWG HTML, §9.2.6).
#![allow(missing_docs, clippy::unwrap_used)]

use proptest::prelude::*;
use sabir_http::sse;

/// What a reader has of a stream.
#[derive(Debug, Default, PartialEq)]
struct Reader {
    events: Vec<(String, String, String)>,
    last_id: String,
    retry: Option<u64>,
}

/// Reads a stream as a browser does.
fn read(stream: &[u8]) -> Reader {
    let text = String::from_utf8(stream.to_vec()).expect("a stream is UTF-8");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut reader = Reader::default();
    let (mut data, mut kind) = (String::new(), String::new());
    // What follows the last line end is an incomplete line, and an event without its blank line is dropped.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        if line.is_empty() {
            let (data, kind) = (std::mem::take(&mut data), std::mem::take(&mut kind));
            if let Some(data) = data.strip_suffix('\n') {
                let kind = if kind.is_empty() { "message".to_owned() } else { kind };
                reader.events.push((kind, reader.last_id.clone(), data.to_owned()));
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value.to_owned(),
            "data" => data += &format!("{value}\n"),
            "id" if !value.contains('\0') => reader.last_id = value.to_owned(),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => reader.retry = value.parse().ok(),
            _ => {}
        }
    }
    reader
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Data as a reader gives it: its lines joined by LF.
fn joined(data: &[u8]) -> String {
    String::from_utf8_lossy(data).replace("\r\n", "\n").replace('\r', "\n")
}

#[test]
fn an_event_is_written_as_the_specification_shows_it() {
    let out = written(|out| sse::event(Some("message"), Some("7"), b"one\ntwo\r\n three\r", out));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "event: message\nid: 7\ndata: one\ndata: two\ndata:  three\ndata:\n\n"
    );
    assert_eq!(written(|out| sse::event(None, None, b"", out)), b"data:\n\n");
    assert_eq!(written(sse::comment), b":\n\n");
    assert_eq!(written(|out| sse::retry(2000, out)), b"retry: 2000\n\n");
}

#[test]
fn what_cannot_be_written_is_left_out() {
    let out = written(|out| sse::event(Some("a\nb"), Some("7\0"), b"x", out));
    assert_eq!(out, b"data: x\n\n");
    for id in ["7\ndata: y", "7\r", "\0"] {
        assert_eq!(written(|out| sse::event(None, Some(id), b"x", out)), b"data: x\n\n");
    }
}

#[test]
fn an_id_is_read_as_it_was_written_and_no_other_way() {
    assert_eq!(sse::event_id(0xab, 12), "000000000000000000000000000000ab-12");
    for text in [
        "",
        "-",
        "1-1",
        "000000000000000000000000000000ab",
        "000000000000000000000000000000ab-",
        "000000000000000000000000000000ab-01",
        "000000000000000000000000000000ab-+1",
        "000000000000000000000000000000AB-1",
        "000000000000000000000000000000ab-18446744073709551616",
        "000000000000000000000000000000ab-1 ",
    ] {
        assert_eq!(sse::read_event_id(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_events_come_through(
        events in prop::collection::vec(
            (prop::option::of("[a-z]{1,5}"), prop::option::of("[^\0\r\n]{0,5}"), prop::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), any::<u8>()], 0..20)),
            0..5),
        beats in any::<bool>(),
    ) {
        let mut out = Vec::new();
        sse::retry(5, &mut out);
        let mut last = String::new();
        let mut expected = Vec::new();
        for (name, id, data) in &events {
            if beats {
                sse::comment(&mut out);
            }
            sse::event(name.as_deref(), id.as_deref(), data, &mut out);
            last = id.clone().unwrap_or(last);
            expected.push((name.clone().unwrap_or_else(|| "message".to_owned()), last.clone(), joined(data)));
        }
        let reader = read(&out);
        prop_assert_eq!(reader.retry, Some(5));
        prop_assert_eq!(reader.events, expected);
    }

    #[test]
    fn no_name_or_id_breaks_out_of_its_line(name in any::<String>(), id in any::<String>()) {
        let reader = read(&written(|out| sse::event(Some(&name), Some(&id), b"x", out)));
        prop_assert_eq!(reader.events.len(), 1);
        prop_assert_eq!(&reader.events[0].2, "x");
    }

    #[test]
    fn an_id_comes_back(stream in any::<u128>(), serial in any::<u64>()) {
        prop_assert_eq!(sse::read_event_id(&sse::event_id(stream, serial)), Some((stream, serial)));
    }
}
