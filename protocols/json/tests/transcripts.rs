//! Plays the conversations in `transcripts/` and compares every answer. `UPDATE_TRANSCRIPTS=1` writes the answers down.
//!
//! A line is one step. Given:
//! - `## title` starts a new connection; `I` introduces it silently.
//! - `C {…}` sends an object; `C+` the same, but more follows in the same read; `R` raw bytes, with escapes.
//! - `A refuse CODE`, `A later`, `A promise`: the host's next answer. `A receipts later` or `now`. `L name=number` sets a
//!   limit before anything else.
//! - `E opened`, `E open-refused CODE`, `E receipts N`, `E ended KEY CODE`, `E closing CODE`: an event.
//! - `D sub=0; to=queue://a; token=1; … > body` delivers; `B 0` ends a browser's look.
//! - `T 500` lets half a second pass and then asks the session whether its time has come.
//!
//! Compared: `S` objects sent, `H` what the host was asked, `F` how the connection goes on, if not as before.

mod harness;

use std::fs;
use std::path::Path;

use harness::{Connection, code, promise, token};
use sabir_model::chunks::Chunks;
use sabir_model::command::{Outcome, Promise};
use sabir_model::delivery::{Delivery, EncodeCache};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Refusal;
use sabir_model::event::{Event, Opened};
use sabir_model::headers::{Value, ValueRef};
use sabir_model::ids::{MessageId, SubscriptionKey};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, BodyKind, Facts, FieldsWriter, Message, Tag};
use sabir_model::session::{Egress, Flow};

fn bytes_of(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after.first()) {
            (b'\\', Some(next)) => {
                let plain = match next {
                    b'0' => 0,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b'\\' => b'\\',
                    b'f' => 0xff,
                    other => panic!("no escape \\{}", char::from(*other)),
                };
                out.push(plain);
                rest = &after[1..];
            }
            _ => out.push(byte),
        }
    }
    out
}

/// Objects as lines of a transcript; each must be JSON.
fn lines_of(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).expect("the session writes text");
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text}");
    for line in text.lines() {
        serde_json::from_str::<serde::de::IgnoredAny>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    text.lines().map(|line| format!("S {line}")).collect()
}

fn refusal(text: &str) -> Refusal {
    Refusal::new(code(text), format!("because of {text}"))
}

fn typed(text: &str) -> Value {
    match text.split_once('|') {
        Some(("i32", number)) => Value::I32(number.parse().expect("i32")),
        Some(("f64", number)) => Value::F64(number.parse().expect("f64")),
        Some(("bool", flag)) => Value::Bool(flag == "true"),
        Some(("bytes", text)) => Value::Bytes(bytes_of(text).into()),
        Some(("null", _)) => Value::Null,
        _ => Value::String(String::from_utf8(bytes_of(text)).expect("text").into()),
    }
}

fn deliver(connection: &mut Connection, text: &str) -> String {
    let (head, body) = text.split_once(" > ").unwrap_or((text, ""));
    let mut facts = Facts {
        id: MessageId { origin: 0xa, number: 1 },
        timestamp: sabir_model::clock::Timestamp(harness::WALL),
        priority: 4,
        body_kind: BodyKind::Text,
        ..Facts::default()
    };
    let mut to = FieldsWriter::new();
    let mut fields = FieldsWriter::new();
    let (mut key, mut slot, mut attempt, mut redelivered, mut browsed, mut cached) =
        (0, None, 1, false, false, false);
    let mut queue = None;
    let mut body = bytes_of(body);
    for option in head.split("; ").filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let raw = bytes_of(value);
        let destination = || Destination::parse_qualified(value, Kind::Queue).expect("a destination");
        match name {
            "sub" => key = value.parse().expect("a number"),
            "to" => to.destination(Tag::Destination, &destination()),
            "queue" => queue = Some(destination()),
            "token" => slot = Some(value.parse().expect("a number")),
            "attempt" => attempt = value.parse().expect("a number"),
            "redelivered" => redelivered = true,
            "browsed" => browsed = true,
            "cached" => cached = true,
            "id" => facts.id.number = value.parse().expect("a number"),
            "persistent" => facts.persistent = true,
            "retain" => facts.retain = true,
            "expires" => facts.expires.0 = value.parse().expect("a number"),
            "priority" => facts.priority = value.parse().expect("a number"),
            "bytes" => facts.body_kind = BodyKind::Bytes,
            "object" => facts.body_kind = BodyKind::Object,
            "map" => {
                facts.body_kind = BodyKind::Map;
                let entries = value.split(',').map(|entry| {
                    let (name, value) = entry.split_once(':').expect("name:value");
                    (name.into(), typed(value))
                });
                Value::Map(entries.collect()).encode(&mut body);
            }
            "reply-to" => fields.destination(Tag::ReplyTo, &destination()),
            "reply-to-text" => fields.field(Tag::ReplyToText, &raw),
            "correlation" => fields.field(Tag::CorrelationText, &raw),
            "correlation-bytes" => fields.field(Tag::CorrelationBytes, &raw),
            "type" => fields.field(Tag::Type, &raw),
            "content-type" => fields.field(Tag::ContentType, &raw),
            "original" => fields.field(Tag::OriginalDestination, &raw),
            "group" => fields.field(Tag::GroupId, &raw),
            "group-seq" => fields.group_sequence(value.parse().expect("a number")),
            "user" => fields.field(Tag::UserId, &raw),
            "sender-id" => fields.field(Tag::SenderMessageId, &raw),
            "app" => fields.field(Tag::AppId, &raw),
            _ => {
                let name = name.strip_prefix("p:").unwrap_or_else(|| panic!("no option {name}"));
                let name = String::from_utf8(bytes_of(name)).expect("text");
                let value = typed(value);
                fields.property(&name, &value.as_scalar().unwrap_or(ValueRef::Null));
            }
        }
    }
    let message = Message::new(facts, &[to.as_slice(), fields.as_slice()], Body::Borrowed(&body));
    let delivery = Delivery {
        message: &message,
        subscription: SubscriptionKey(key),
        queue: queue.as_ref(),
        token: slot.map(token),
        attempt,
        redelivered,
        browsed,
        grant: None,
        sequence: None,
        progress: 0,
    };
    let wall = connection.now().wall;
    let mut cache = EncodeCache::new();
    let admission =
        connection.host.egress.deliver(wall, &delivery, cached.then_some(&mut cache), &mut connection.out);
    if !cached {
        return format!("{admission:?}");
    }
    // A second receiver finds in the cache what the first put there, and both read as without a cache.
    let mut again = Chunks::new();
    connection.host.egress.deliver(wall, &delivery, Some(&mut cache), &mut again);
    let mut plain = Chunks::new();
    connection.host.egress.deliver(wall, &delivery, None, &mut plain);
    assert_eq!(again.to_vec(), plain.to_vec());
    format!("{admission:?}")
}

fn limits(lines: &[&str]) -> Limits {
    let mut limits = Limits::default();
    for line in lines.iter().filter_map(|line| line.strip_prefix("L ")) {
        let (name, value) = line.split_once('=').expect("name=number");
        let number: usize = value.parse().expect("a number");
        match name {
            "headers" => limits.headers_max = number,
            "body" => limits.body_bytes_max = number,
            "body-before-login" => limits.body_bytes_before_login_max = number,
            "frame" => limits.frame_bytes_max = number,
            "subscriptions" => limits.subscriptions_max = number,
            "transactions" => limits.transactions_max = number,
            "receipts" => limits.receipts_pending_max = number,
            other => panic!("no limit {other}"),
        }
    }
    limits
}

fn event_of(text: &str) -> Event {
    let words: Vec<&str> = text.split(' ').collect();
    match *words.as_slice() {
        ["opened"] => Event::Opened(Opened::default()),
        ["open-refused", why] => Event::OpenRefused(refusal(why)),
        ["receipts", count] => Event::Receipts(count.parse().expect("a number")),
        ["ended", key, why] => Event::SubscriptionEnded {
            key: SubscriptionKey(key.parse().expect("a number")),
            refusal: refusal(why),
        },
        ["closing", why] => Event::Closing(refusal(why)),
        _ => panic!("no event {text}"),
    }
}

/// Plays one conversation; returns it with the answers it really gives.
fn play(scenario: &[&str]) -> Vec<String> {
    let mut connection = Connection::new(limits(scenario));
    let mut held = Vec::new();
    let mut lines = Vec::new();
    for line in scenario {
        let (step, text) = line.split_once(' ').unwrap_or((line, ""));
        if matches!(step, "S" | "H" | "F") {
            continue;
        }
        lines.push((*line).to_owned());
        let before = connection.flow.clone();
        match step {
            "I" => connection = Connection::introduced(limits(scenario)),
            "C+" => held.extend(text.as_bytes()),
            "C" => {
                held.extend(text.as_bytes());
                connection.receive(&std::mem::take(&mut held));
            }
            "R" => connection.receive(&bytes_of(text)),
            "A" => match text.split(' ').collect::<Vec<_>>().as_slice() {
                ["refuse", why] => connection.host.answers.push_back(Outcome::Refused(refusal(why))),
                ["later"] => connection.host.answers.push_back(Outcome::Later),
                ["promise"] => connection.host.answers.push_back(Outcome::Accepted(Some(promise(1)))),
                ["promise", "unsynced"] => {
                    let promise = Promise { synced: false, ..promise(1) };
                    connection.host.answers.push_back(Outcome::Accepted(Some(promise)));
                }
                ["receipts", when] => connection.host.receipts_later = *when == "later",
                _ => panic!("no answer {text}"),
            },
            "E" => connection.event(event_of(text)),
            "D" => {
                let admission = deliver(&mut connection, text);
                if admission != "Sent" {
                    lines.push(format!("H {admission}"));
                }
            }
            "B" => {
                let key = SubscriptionKey(text.parse().expect("a number"));
                connection.host.egress.browsed(key, &mut connection.out);
            }
            "T" => {
                connection.now_ms += text.parse::<u64>().expect("milliseconds");
                connection.timeout();
            }
            "##" | "L" | "#" | "" => {}
            other => panic!("no step {other}"),
        }
        lines.extend(connection.asked().into_iter().map(|asked| format!("H {asked}")));
        lines.extend(lines_of(&connection.written()));
        if connection.flow != before {
            lines.push(match &connection.flow {
                Ok(flow) => format!("F {flow:?}"),
                Err(violation) => format!("F violation {}", violation.0.code),
            });
        }
        // After the end nothing is read or said.
        if connection.flow.is_err() || connection.flow == Ok(Flow::Close) {
            let flow = connection.flow.clone();
            connection.receive(br#"{"op":"send","destination":"queue://late"}"#);
            assert_eq!(connection.flow, Ok(Flow::Close), "after {line}");
            assert!(connection.written().is_empty() && connection.asked().is_empty());
            connection.flow = flow;
        }
    }
    lines
}

#[test]
fn every_conversation_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let mut files: Vec<_> = fs::read_dir(&folder).expect("the folder is there").flatten().collect();
    files.sort_by_key(|file| file.path());
    let mut wrong = Vec::new();
    let mut conversations = 0;
    for file in files {
        let text = fs::read_to_string(file.path()).expect("readable");
        let mut scenarios: Vec<Vec<&str>> = vec![Vec::new()];
        for line in text.lines() {
            if line.starts_with("## ") {
                scenarios.push(Vec::new());
            }
            if let Some(last) = scenarios.last_mut() {
                last.push(line);
            }
        }
        let mut played = String::new();
        for scenario in scenarios {
            conversations += 1;
            for line in play(&scenario) {
                played.push_str(&line);
                played.push('\n');
            }
        }
        if update {
            fs::write(file.path(), &played).expect("writable");
        } else if played != text {
            let at = text.lines().zip(played.lines()).take_while(|(a, b)| a == b).count();
            let (is, was) = (played.lines().nth(at), text.lines().nth(at));
            wrong.push(format!("{:?} line {}:\n  is  {is:?}\n  was {was:?}", file.file_name(), at + 1));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(conversations > 50);
}
