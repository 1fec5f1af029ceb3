//! Large payloads: taken in piece by piece, and sent out without being in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::Arc;

use harness::Connection;
use harness::words::{lines_of, packet_of};
use sabir_model::chunks::Chunks;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::command::Outcome;
use sabir_model::delivery::{Admission, Delivery, EncodeCache};
use sabir_model::destination::Destination;
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::ids::SubscriptionKey;
use sabir_model::limits::Limits;
use sabir_model::message::{Body, BodyKind, Facts, FieldsWriter, Message, Tag};
use sabir_model::session::{Egress, EgressNote, Flow};
use sabir_model::settlement::SettleMode;
use sabir_model::stored::Stored;
use sabir_mqtt::Version;

fn limits() -> Limits {
    Limits { blob_bytes_min: 16, body_bytes_max: 200, frame_bytes_max: 120, ..Limits::default() }
}

fn introduced(version: Version) -> Connection {
    let mut connection = Connection::new(limits());
    let name = if version == Version::V5 { "v5" } else { "v4" };
    connection.receive(&packet_of(&format!("CONNECT {name}; id=c"), version));
    assert_eq!(connection.flow, Ok(Flow::More));
    connection.written();
    connection.asked();
    connection
}

fn packets(version: Version, texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| packet_of(text, version)).collect()
}

fn refusal() -> Refusal {
    Refusal::new(Code::DestinationFull, "no room")
}

#[test]
fn a_split_of_a_large_packet_at_every_byte_changes_nothing() {
    let long = "x".repeat(150);
    for version in [Version::V311, Version::V5] {
        let texts = [
            "PUBLISH a/b; qos=1; id=1 > 0123456789abcdef".to_owned(),
            "PUBLISH a > small".to_owned(),
            format!("PUBLISH a/c; qos=2; id=2 > {long}"),
            "PUBLISH d > 15 bytes of it.".to_owned(),
            "PINGREQ".to_owned(),
        ];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let bytes = packets(version, &texts);
        let mut whole: Option<(Vec<String>, Vec<String>)> = None;
        for room in [0, 3] {
            for step in (1..bytes.len()).rev() {
                let mut connection = introduced(version);
                connection.host.room = room;
                for piece in bytes.chunks(step) {
                    connection.receive(piece);
                    connection.store();
                }
                let happened = (connection.asked(), lines_of(&connection.written(), version));
                let whole = whole.get_or_insert_with(|| happened.clone());
                assert_eq!(&happened, whole, "in steps of {step}, room for {room}");
            }
        }
        let (asked, answered) = whole.unwrap();
        assert_eq!(asked.iter().filter(|line| line.starts_with("begin body")).count(), 2, "{asked:?}");
        assert!(asked[1].starts_with("publish stored topic://a.b Bytes AtLeastOnce"), "{asked:?}");
        assert!(asked.iter().any(|line| line.ends_with(&format!("once=2 > {long}"))), "{asked:?}");
        assert!(
            answered[0].contains("PUBACK") && answered.last().unwrap().contains("PINGRESP"),
            "{answered:?}"
        );
    }
}

#[test]
fn version_5_is_answered_with_the_reason_once_a_refused_payload_has_passed() {
    let mut connection = introduced(Version::V5);
    connection.host.answers.push_back(Outcome::Refused(refusal()));
    let bytes = packets(Version::V5, &["PUBLISH a; qos=1; id=7 > 0123456789abcdef", "PINGREQ"]);
    connection.receive(&bytes[..20]);
    assert!(connection.written().is_empty());
    connection.receive(&bytes[20..]);
    let answered = lines_of(&connection.written(), Version::V5);
    assert!(answered[0].contains("PUBACK") && answered[0].contains("no room"), "{answered:?}");
    assert!(answered[1].contains("PINGRESP"));
    assert!(!connection.asked().iter().any(|line| line.starts_with("publish")));
}

#[test]
fn earlier_versions_are_cut_off_before_a_refused_payload_comes() {
    let mut connection = introduced(Version::V311);
    connection.host.answers.push_back(Outcome::Refused(refusal()));
    let bytes = packet_of("PUBLISH a; qos=1; id=7 > 0123456789abcdef", Version::V311);
    connection.receive(&bytes[..8]);
    assert!(connection.flow.is_err());
}

#[test]
fn what_the_disk_does_not_take_is_answered_when_the_payload_has_passed() {
    let mut connection = introduced(Version::V5);
    let bytes = packet_of("PUBLISH a; qos=1; id=7 > 0123456789abcdef", Version::V5);
    connection.receive(&bytes[..15]);
    connection.event(Event::BodyStored(Err(refusal())));
    assert_eq!(connection.flow, Ok(Flow::More));
    connection.receive(&bytes[15..]);
    let answered = lines_of(&connection.written(), Version::V5);
    assert!(answered[0].contains("PUBACK") && answered[0].contains("no room"), "{answered:?}");
}

#[test]
fn a_payload_that_is_too_large_is_refused_and_a_packet_that_is_ends_the_connection() {
    let mut connection = introduced(Version::V5);
    let text = format!("PUBLISH a; qos=1; id=7 > {}", "x".repeat(201));
    connection.receive(&packet_of(&text, Version::V5));
    let answered = lines_of(&connection.written(), Version::V5);
    assert!(answered[0].contains("a message has at most 200 bytes"), "{answered:?}");
    let mut connection = introduced(Version::V5);
    // PUBLISH of 256 MB.
    connection.receive(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
    assert!(connection.flow.is_err());
}

#[test]
fn a_stored_payload_goes_out_as_it_lies_there() {
    let body = vec![b'x'; 300_000];
    let stored = Stored::new(Arc::new(body.clone()));
    let mut fields = FieldsWriter::new();
    fields.destination(Tag::Destination, &Destination::topic("t"));
    let facts = Facts { body_kind: BodyKind::Text, ..Facts::default() };
    let [here, there] = [Body::Borrowed(&body), Body::Stored(stored)]
        .map(|body| Message::new(facts, &[fields.as_slice()], body));
    for cached in [false, true] {
        let frames = [&here, &there].map(|message| {
            let (_, mut egress) = sabir_mqtt::open(Arc::new(limits()), Instant(0));
            let key = SubscriptionKey(1);
            egress.note(EgressNote::Attach { key, label: b"1", settle: SettleMode::Auto, options: 0 });
            let delivery = Delivery {
                message,
                subscription: key,
                queue: None,
                token: None,
                attempt: 1,
                redelivered: false,
                browsed: false,
                grant: None,
                sequence: None,
                progress: 0,
            };
            let (mut out, mut cache) = (Chunks::new(), EncodeCache::new());
            let cache = cached.then_some(&mut cache);
            assert_eq!(egress.deliver(Timestamp(1), &delivery, cache, &mut out), Admission::Sent);
            out
        });
        assert!(frames[1].next_window(1000).is_some(), "it is not in memory");
        let [here, there] = frames.map(|out| out.to_vec());
        assert!(here == there && there.ends_with(b"xx"));
    }
}
