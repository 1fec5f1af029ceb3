//! Large bodies: taken in piece by piece, and sent out without being in memory.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod harness;

use std::sync::Arc;

use bytes::Bytes;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
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

use harness::Connection;

fn limits() -> Limits {
    Limits { blob_bytes_min: 16, body_bytes_max: 100, frame_bytes_max: 256, ..Limits::default() }
}

const CONVERSATION: &str = "SEND\ndestination:/queue/a\nreceipt:1\ncontent-length:16\n\n0123456789abcd\0f\0\
     \n\nSEND\ndestination:/queue/a\n\nno length: as it comes\0\
     SEND\ndestination:/queue/b\ncontent-type:text/plain\nx:y\ncontent-length:19\n\ngr\u{fc}n und wei\u{df} \u{20ac}\0\
     SEND\ndestination:/queue/b\ncontent-length:15\n\nfifteen bytes :\0\
     DISCONNECT\nreceipt:2\n\n\0";

const ASKED: [&str; 7] = [
    "begin body of Some(16) for queue://a",
    "publish queue://a Bytes stored > 0123456789abcd\\x00f",
    "publish queue://a Text > no length: as it comes",
    "begin body of Some(19) for queue://b",
    "publish queue://b Text stored ContentType=\"text/plain\" \"x\"=Str(\"y\") > gr\\xc3\\xbcn und wei\\xc3\\x9f \\xe2\\x82\\xac",
    "publish queue://b Bytes > fifteen bytes :",
    "close",
];

/// What is asked for the second of them, if it comes in pieces.
const UNSIZED: &str = "begin body of None for queue://a";

#[test]
fn a_body_without_a_length_ends_at_nul_or_where_it_is_too_long() {
    let mut connection = Connection::introduced(limits(), "1.2", "");
    connection.receive(b"SEND\ndestination:/queue/a\n\n0123456789abcdef");
    assert_eq!(connection.asked(), [UNSIZED]);
    connection.receive(&[b'x'; 84]);
    assert_eq!(connection.flow, Ok(Flow::More), "a hundred bytes may come");
    connection.receive(b"\0\n");
    assert_eq!(connection.flow, Ok(Flow::Parked));
    connection.store();
    let body = format!("0123456789abcdef{}", "x".repeat(84));
    assert_eq!(connection.asked(), [format!("publish queue://a Text stored > {body}")]);
    connection.receive(b"SEND\ndestination:/queue/a\n\n0123456789abcdef");
    connection.receive(&[b'x'; 85]);
    assert!(connection.flow.is_err());
    assert!(String::from_utf8(connection.written()).unwrap().contains("a body is at most 100 bytes long"));
}

#[test]
fn a_split_of_a_large_frame_at_every_byte_changes_nothing() {
    let bytes = CONVERSATION.as_bytes();
    for room in [0, 3] {
        for step in 1..bytes.len() {
            let mut connection = Connection::introduced(limits(), "1.2", "");
            connection.host.room = room;
            for piece in bytes.chunks(step) {
                connection.receive(piece);
                connection.store();
            }
            // One without a length is taken in by pieces if it does not come whole.
            let asked: Vec<String> = connection
                .asked()
                .into_iter()
                .filter(|line| line != UNSIZED)
                .map(|line| line.replace("stored > no length", "> no length"))
                .collect();
            assert_eq!(asked, ASKED, "in steps of {step}, room for {room}");
            let written = String::from_utf8(connection.written()).unwrap();
            assert_eq!(written.matches("RECEIPT").count(), 2, "{written}");
            assert_eq!(connection.flow, Ok(Flow::Close));
        }
    }
}

#[test]
fn nothing_behind_a_large_body_is_read_before_it_is_in_its_place() {
    let mut connection = Connection::introduced(limits(), "1.2", "");
    connection.receive(CONVERSATION.as_bytes());
    assert_eq!(connection.flow, Ok(Flow::Parked));
    assert_eq!(connection.asked(), ASKED[..1]);
    assert!(connection.written().is_empty());
    connection.store();
    assert_eq!(connection.asked(), ASKED[1..]);
}

#[test]
fn what_may_not_be_sent_is_refused_before_its_body_comes() {
    let mut connection = Connection::introduced(limits(), "1.2", "");
    connection.host.answers.push_back(Outcome::Refused(Refusal::new(Code::DestinationFull, "no room")));
    connection.receive(b"SEND\ndestination:/queue/a\nreceipt:9\ncontent-length:90\n\n");
    let written = String::from_utf8(connection.written()).unwrap();
    assert!(written.contains("ERROR\nmessage:no room\ncode:destination-full\nreceipt-id:9"), "{written}");
    assert!(connection.flow.is_err());
}

#[test]
fn a_client_that_goes_on_after_errors_has_its_refused_body_read_and_thrown_away() {
    let mut connection = Connection::introduced(limits(), "1.2", "x-continue-on-error:true\n");
    connection.host.answers.push_back(Outcome::Refused(Refusal::new(Code::DestinationFull, "no room")));
    for byte in CONVERSATION.as_bytes() {
        connection.receive(&[*byte]);
        connection.store();
    }
    assert_eq!(connection.asked()[..2], [ASKED[0], UNSIZED]);
    assert_eq!(connection.flow, Ok(Flow::Close));
}

#[test]
fn a_body_that_cannot_be_kept_is_refused_as_soon_as_that_is_known() {
    let refusal = Refusal::new(Code::StorageFull, "the disk is full");
    let mut connection = Connection::introduced(limits(), "1.2", "x-continue-on-error:true\n");
    connection.receive(b"SEND\ndestination:/queue/a\ncontent-length:20\n\n0123456789");
    connection.event(Event::BodyStored(Err(refusal.clone())));
    assert!(String::from_utf8(connection.written()).unwrap().contains("the disk is full"));
    assert_eq!(connection.flow, Ok(Flow::More));
    connection.receive(b"0123456789\0SEND\ndestination:/queue/a\n\nsmall\0");
    assert_eq!(connection.asked().last().unwrap(), "publish queue://a Text > small");

    let mut connection = Connection::introduced(limits(), "1.2", "");
    connection.receive(b"SEND\ndestination:/queue/a\ncontent-length:20\n\n0123456789");
    connection.event(Event::BodyStored(Err(refusal)));
    assert!(connection.flow.is_err());
}

#[test]
fn a_refused_body_ruins_its_transaction() {
    let mut connection = Connection::introduced(limits(), "1.2", "x-continue-on-error:true\n");
    connection.receive(b"BEGIN\ntransaction:t\n\n\0");
    connection.host.answers.push_back(Outcome::Refused(Refusal::new(Code::DestinationFull, "no room")));
    connection.receive(b"SEND\ndestination:/queue/a\ntransaction:t\ncontent-length:16\n\n0123456789abcdef\0");
    connection.written();
    connection.receive(b"COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    assert!(String::from_utf8(connection.written()).unwrap().starts_with("ERROR"));
    assert!(!connection.asked().iter().any(|asked| asked.starts_with("commit")));
}

#[test]
fn a_body_longer_than_stated_or_than_allowed_ends_the_connection() {
    for frame in [
        &b"SEND\ndestination:/queue/a\ncontent-length:16\n\n0123456789abcdefg\0"[..],
        b"SEND\ndestination:/queue/a\ncontent-length:101\n\n",
    ] {
        let mut connection = Connection::introduced(limits(), "1.2", "");
        connection.receive(frame);
        assert!(connection.flow.is_err());
        assert!(!connection.asked().iter().any(|asked| asked.starts_with("publish")));
    }
}

#[test]
fn a_stored_body_goes_out_as_it_lies_there() {
    let body = Bytes::from(vec![b'x'; 300_000]);
    let stored = Stored::new(Arc::new(body.to_vec()));
    let mut fields = FieldsWriter::new();
    fields.destination(Tag::Destination, &Destination::topic("t"));
    let facts = Facts { body_kind: BodyKind::Text, ..Facts::default() };
    let [here, there] = [Body::Shared(body), Body::Stored(stored)]
        .map(|body| Message::new(facts, &[fields.as_slice()], body));
    for cached in [false, true] {
        let frames = [&here, &there].map(|message| {
            let (_, mut egress) = sabir_stomp::open(Arc::new(limits()), "s", sabir_model::clock::Instant(0));
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
        assert!(here == there && there.ends_with(b"xx\0"));
    }
}
