//! Plays the conversations in `transcripts/` and compares every answer. `UPDATE_TRANSCRIPTS=1` writes the answers down.
//!
//! A line is one step. Given:
//! - `## title` starts a new connection; `I v5; id=c` introduces it silently (`v3` is 3.1, `v4` 3.1.1).
//! - `C KIND first; name=value; … > payload` sends a packet (see `harness/words.rs`); `C+` the same, but more follows in
//!   the same read; `R` bytes in hex, after `V v4` if the answer is of another version than 5.
//! - `A refuse CODE`, `A later`, `A promise N`: the host's next answer. `A receipts later` or `now`. `L name=number` sets
//!   a limit before anything else.
//! - `E opened`, `E resumed`, `E challenge DATA`, `E open-refused CODE`, `E receipts N`, `E ended CODE`,
//!   `E closing CODE`: an event.
//! - `D to=topic://a; token=1; … > body` delivers.
//! - `T 500` lets half a second pass and then asks the session whether its time has come.
//!
//! Compared: `S` packets sent, `H` what the host was asked, `F` how the connection goes on, if not as before.

mod harness;

use std::fs;
use std::path::Path;

use harness::words::{bytes_of, lines_of, packet_of, version_of};
use harness::{Connection, WALL, code, promise, token};
use sabir_model::chunks::Chunks;
use sabir_model::command::Outcome;
use sabir_model::delivery::{Admission, Delivery, EncodeCache, Grant, Guarantee};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Refusal;
use sabir_model::event::{Event, Opened};
use sabir_model::headers::Value;
use sabir_model::ids::{MessageId, Sequence, SubscriptionKey};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, BodyKind, Facts, FieldsWriter, Message, PRIORITY_DEFAULT, Tag};
use sabir_model::session::{Egress, Flow};
use sabir_mqtt::Version;

fn refusal(text: &str) -> Refusal {
    Refusal::new(code(text), format!("because of {text}"))
}

fn guarantee(text: &str) -> Guarantee {
    match text {
        "0" => Guarantee::AtMostOnce,
        "1" => Guarantee::AtLeastOnce,
        "2" => Guarantee::ExactlyOnce,
        other => panic!("no guarantee {other}"),
    }
}

fn deliver(connection: &mut Connection, text: &str) -> Admission {
    let (head, body) = text.split_once(" > ").unwrap_or((text, ""));
    let mut facts =
        Facts { id: MessageId { origin: 0xa, number: 1 }, priority: PRIORITY_DEFAULT, ..Facts::default() };
    let (mut to, mut fields) = (FieldsWriter::new(), FieldsWriter::new());
    let mut grant = Grant { guarantee: Guarantee::ExactlyOnce, ..Grant::default() };
    let (mut queue, mut slot, mut sequence, mut progress) = (None, None, None, 0);
    let (mut granted, mut redelivered, mut cached) = (true, false, false);
    let mut body = bytes_of(body);
    for option in head.split("; ").filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let raw = bytes_of(value);
        let destination = || Destination::parse_qualified(value, Kind::Topic).expect("a destination");
        match name {
            "to" => to.destination(Tag::Destination, &destination()),
            "queue" => queue = Some(destination()),
            "token" => slot = Some(value.parse().expect("a number")),
            "seq" => sequence = Some(Sequence(value.parse().expect("a number"))),
            "progress" => progress = u32::from_str_radix(value, 16).expect("hex"),
            "again" => redelivered = true,
            "cached" => cached = true,
            "qos" => {
                facts.persistent = value != "0";
                facts.exactly_once = value == "2";
            }
            "grant" => grant.guarantee = guarantee(value),
            "ungranted" => granted = false,
            "sid" => grant.identifiers.push(value.parse().expect("a number")),
            "rap" => grant.keep_retain = true,
            "kept" => grant.retained = true,
            "retain" => facts.retain = true,
            "left" => facts.expires.0 = WALL + value.parse::<u64>().expect("a number"),
            "priority" => facts.priority = value.parse().expect("a number"),
            "text" => facts.body_kind = BodyKind::Text,
            "large" => body = b"x".repeat(value.parse().expect("a number")),
            "list" => {
                facts.body_kind = BodyKind::List;
                Value::List(vec![Value::I32(1), Value::String("a".into())]).encode(&mut body);
            }
            "reply" => fields.destination(Tag::ReplyTo, &destination()),
            "reply-text" => fields.field(Tag::ReplyToText, &raw),
            "corr" => fields.field(Tag::CorrelationText, &raw),
            "corr-bytes" => fields.field(Tag::CorrelationBytes, &raw),
            "type" => fields.field(Tag::Type, &raw),
            "content-type" => fields.field(Tag::ContentType, &raw),
            _ => {
                let name = name.strip_prefix("p:").unwrap_or_else(|| panic!("no option {name}"));
                fields.text_property(name, value);
            }
        }
    }
    let message = Message::new(facts, &[to.as_slice(), fields.as_slice()], Body::Borrowed(&body));
    let delivery = Delivery {
        message: &message,
        subscription: SubscriptionKey(0),
        queue: queue.as_ref(),
        token: slot.map(token),
        attempt: 1,
        redelivered,
        browsed: false,
        grant: granted.then_some(&grant),
        sequence,
        progress,
    };
    let wall = connection.now().wall;
    let mut cache = EncodeCache::new();
    let egress = &mut connection.host.egress;
    let admission = egress.deliver(wall, &delivery, cached.then_some(&mut cache), &mut connection.out);
    if cached {
        assert!(delivery.token.is_none(), "only what needs no id is compared");
        // A second receiver finds in the cache what the first put there, and both read as without a cache.
        let (mut again, mut plain) = (Chunks::new(), Chunks::new());
        egress.deliver(wall, &delivery, Some(&mut cache), &mut again);
        egress.deliver(wall, &delivery, None, &mut plain);
        assert_eq!(again.to_vec(), plain.to_vec());
    }
    admission
}

fn limits(lines: &[&str]) -> Limits {
    let mut limits = Limits::default();
    for line in lines.iter().filter_map(|line| line.strip_prefix("L ")) {
        let (name, value) = line.split_once('=').expect("name=number");
        let number: u64 = value.parse().expect("a number");
        let size = usize::try_from(number).expect("fits");
        let short = u16::try_from(number).unwrap_or(u16::MAX);
        match name {
            "body" => limits.body_bytes_max = size,
            "body-before-login" => limits.body_bytes_before_login_max = size,
            "frame" => limits.frame_bytes_max = size,
            "receipts" => limits.receipts_pending_max = size,
            "client-id" => limits.client_id_bytes_max = size,
            "levels" => limits.topic_levels_max = size,
            "keep-alive" => limits.heartbeat_ms_max = number,
            "receive" => limits.receive_max = short,
            "aliases" => limits.topic_aliases_max = short,
            "lasts" => limits.session_lasts_ms_max = number,
            "credit" => limits.session_credit_max = u32::from(short),
            other => panic!("no limit {other}"),
        }
    }
    limits
}

fn event_of(text: &str) -> Event {
    let words: Vec<&str> = text.split(' ').collect();
    match *words.as_slice() {
        ["opened"] => Event::Opened(Opened::default()),
        ["opened", data] => Event::Opened(Opened { resumed: false, data: bytes_of(data) }),
        ["resumed"] => Event::Opened(Opened { resumed: true, data: Vec::new() }),
        ["challenge", data] => Event::Challenge(bytes_of(data)),
        ["open-refused", why] => Event::OpenRefused(refusal(why)),
        ["receipts", count] => Event::Receipts(count.parse().expect("a number")),
        ["ended", why] => Event::SubscriptionEnded { key: SubscriptionKey(0), refusal: refusal(why) },
        ["closing", why] => Event::Closing(refusal(why)),
        _ => panic!("no event {text}"),
    }
}

fn answer_of(connection: &mut Connection, text: &str) {
    let answer = match text.split(' ').collect::<Vec<_>>().as_slice() {
        ["refuse", why] => Outcome::Refused(refusal(why)),
        ["later"] => Outcome::Later,
        ["ok"] => Outcome::Accepted(None),
        ["promise", position] => Outcome::Accepted(Some(promise(position.parse().expect("a number")))),
        ["receipts", when] => {
            connection.host.receipts_later = *when == "later";
            return;
        }
        _ => panic!("no answer {text}"),
    };
    connection.host.answers.push_back(answer);
}

fn hex(text: &str) -> Vec<u8> {
    text.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect()
}

/// Plays one conversation; returns it with the answers it really gives.
fn play(scenario: &[&str]) -> Vec<String> {
    let mut connection = Connection::new(limits(scenario));
    let mut held = Vec::new();
    let mut lines = Vec::new();
    let mut version = Version::V5;
    for line in scenario {
        let (step, text) = line.split_once(' ').unwrap_or((line, ""));
        if matches!(step, "S" | "H" | "F") {
            continue;
        }
        lines.push((*line).to_owned());
        let before = connection.flow.clone();
        if let (true, Some(rest)) = (step.starts_with('C'), text.strip_prefix("CONNECT ")) {
            version = version_of(rest.split(';').next().unwrap_or_default());
        }
        match step {
            "I" => {
                version = version_of(text.split(';').next().unwrap_or_default());
                connection.receive(&packet_of(&format!("CONNECT {text}"), version));
                assert_eq!(connection.flow, Ok(Flow::More));
                connection.asked();
                connection.written();
            }
            "C+" => held.extend(packet_of(text, version)),
            "C" => {
                held.extend(packet_of(text, version));
                connection.receive(&std::mem::take(&mut held));
            }
            "V" => version = version_of(text),
            "R" => connection.receive(&hex(text)),
            "A" => answer_of(&mut connection, text),
            "E" => connection.event(event_of(text)),
            "D" => match deliver(&mut connection, text) {
                Admission::Sent => {}
                Admission::Noted { progress, kept } => {
                    lines.push(format!("H Noted {progress:#x}{}", if kept { " kept" } else { "" }));
                }
                other => lines.push(format!("H {other:?}")),
            },
            "T" => {
                connection.now_ms += text.parse::<u64>().expect("milliseconds");
                connection.timeout();
            }
            "##" | "L" | "#" | "" => {}
            other => panic!("no step {other}"),
        }
        lines.extend(connection.asked().into_iter().map(|asked| format!("H {asked}")));
        lines.extend(lines_of(&connection.written(), version));
        if connection.flow != before {
            lines.push(match &connection.flow {
                Ok(flow) => format!("F {flow:?}"),
                Err(violation) => format!("F violation {}", violation.0.code),
            });
        }
        // After the end nothing is read or said.
        if connection.flow.is_err() || connection.flow == Ok(Flow::Close) {
            let flow = connection.flow.clone();
            connection.receive(&packet_of("PUBLISH late", Version::V311));
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
    assert!(conversations > 100);
}
