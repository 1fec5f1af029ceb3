//! Properties of whole conversations: no input makes a session fail or say what is no packet, and however it is cut,
//! nothing changes.

mod harness;

use harness::words::packet_of;
use harness::{Connection, token};
use proptest::prelude::*;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
use sabir_model::delivery::{Admission, Delivery, EncodeCache, Grant, Guarantee};
use sabir_model::destination::Destination;
use sabir_model::ids::{Sequence, SubscriptionKey};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, Facts, FieldsWriter, Message, Tag};
use sabir_model::session::{Egress, Flow};
use sabir_mqtt::Version;
use sabir_mqtt::fuzz::fuzz_session;

/// Packets that a client might send, most of them legal.
const WORDS: &[&str] = &[
    "PUBLISH a/b > x",
    "PUBLISH a/b; qos=1; id=1 > x",
    "PUBLISH a/b; qos=2; id=2 > x",
    "PUBLISH a/b; qos=2; id=2; dup > x",
    "PUBLISH $queue/q; qos=1; id=3; retain > x",
    "PUBLISH $SYS/q; qos=1; id=3 > x",
    "PUBLISH a; format=1; expiry=5; type=text/plain; reply=r; corr=c; u:a=b > x",
    "PUBLISH a; format=1; qos=1; id=4 > \\xff",
    "PUBLISH a; alias=1 > x",
    "PUBLISH ; alias=1 > x",
    "PUBLISH ; alias=2 > x",
    "PUBLISH a; qos=1; id=9 > x**70",
    "PUBACK 1",
    "PUBREC 2",
    "PUBREC 2; code=80",
    "PUBREL 2",
    "PUBCOMP 2",
    "SUBSCRIBE 5; f=a/#|2; f=$share/g/a|2; f=$queue/q|1; f=#/a",
    "SUBSCRIBE 6; sid=9; f=a|1|nl|rap|rh1",
    "UNSUBSCRIBE 7; f=a/#; f=$share/g/a",
    "PINGREQ",
];

/// Packets that end a conversation, or may do so.
const ENDS: &[&str] = &[
    "DISCONNECT",
    "DISCONNECT; code=04; expiry=5",
    "CONNECT v4; id=d",
    "AUTH 18; method=M; data=x",
    "AUTH 19; method=M; data=x",
];

const OPENINGS: &[&str] = &[
    "v3; id=c",
    "v4; id=c; clean; will=w; will-qos=1 > gone",
    "v4; clean",
    "v5; id=c; expiry=10; receive=5; user=ann; pass=x",
    "v5; id=c; method=M; data=x; aliases=3; max=60; problems=0",
    "v5; keep=1; will=w; will-delay=3; reply=r > gone",
];

fn version_of(opening: &str) -> Version {
    harness::words::version_of(opening.split(';').next().unwrap_or_default())
}

/// The bytes of a packet, if the version has a way to write it.
fn bytes_of(word: &str, version: Version) -> Vec<u8> {
    if word.starts_with("AUTH") && version != Version::V5 {
        return vec![0xf0, 0];
    }
    // Before version 5 an alias stands for nothing and the topic is empty.
    packet_of(word, version)
}

fn words() -> impl Strategy<Value = Vec<&'static str>> {
    let word = prop_oneof![
        12 => prop::sample::select(WORDS),
        1 => prop::sample::select(ENDS),
    ];
    prop::collection::vec(word, 0..20)
}

fn noise(bytes: Vec<u8>, at: prop::sample::Index, with: u8) -> Vec<u8> {
    let mut bytes = bytes;
    let at = at.index(bytes.len().max(1));
    if let Some(byte) = bytes.get_mut(at) {
        *byte = with;
    }
    bytes
}

/// Steps of the session's fuzz target, with packets of one version in them.
fn steps() -> impl Strategy<Value = Vec<u8>> {
    let step =
        (any::<u8>(), words(), prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())));
    (prop::array::uniform9(any::<u8>()), prop::sample::select(OPENINGS), prop::collection::vec(step, 1..12))
        .prop_map(|(answers, opening, steps)| {
            let version = version_of(opening);
            let mut all = answers.to_vec();
            let mut put = |step: u8, data: &[u8]| {
                let data = &data[..data.len().min(255)];
                all.extend([step, u8::try_from(data.len()).expect("cut to 255")]);
                all.extend(data);
            };
            put(0, &packet_of(&format!("CONNECT {opening}"), version));
            for (kind, words, damage) in steps {
                let bytes: Vec<u8> = words.iter().flat_map(|word| bytes_of(word, version)).collect();
                put(
                    kind,
                    &match damage {
                        Some((at, with)) => noise(bytes, at, with),
                        None => bytes,
                    },
                );
            }
            all
        })
}

fn deliver_some(connection: &mut Connection) {
    for (number, exactly_once) in [(1, false), (2, true), (3, true), (4, false)] {
        let mut to = FieldsWriter::new();
        to.destination(Tag::Destination, &Destination::topic("t"));
        let facts = Facts { persistent: true, exactly_once, ..Facts::default() };
        let message = Message::new(facts, &[to.as_slice()], Body::Borrowed(b"x"));
        let grant = Grant { guarantee: Guarantee::ExactlyOnce, ..Grant::default() };
        let delivery = delivery(&message, &grant, number, false);
        connection.host.egress.deliver(Timestamp(1), &delivery, None, &mut connection.out);
    }
}

fn delivery<'a>(message: &'a Message, grant: &'a Grant, number: u32, redelivered: bool) -> Delivery<'a> {
    Delivery {
        message,
        subscription: SubscriptionKey(0),
        queue: None,
        token: Some(token(number)),
        attempt: 1,
        redelivered,
        browsed: false,
        grant: Some(grant),
        sequence: Some(Sequence(number.into())),
        progress: 0,
    }
}

/// What is said and asked if the bytes come in these pieces.
fn told(opening: &str, pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>, Vec<String>, bool) {
    let limits = Limits { body_bytes_max: 60, topic_aliases_max: 2, receive_max: 3, ..Limits::default() };
    let mut connection = Connection::new(limits);
    connection.receive(&packet_of(&format!("CONNECT {opening}"), version_of(opening)));
    assert_eq!(connection.flow, Ok(Flow::More));
    deliver_some(&mut connection);
    for piece in pieces {
        if connection.flow == Ok(Flow::More) {
            connection.receive(piece);
        }
    }
    // Settlements happen when a batch ends, so their place among the rest may differ.
    let (settled, asked) = connection.asked().into_iter().partition(|line| line.starts_with("settle"));
    (connection.written(), settled, asked, connection.flow == Ok(Flow::More))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cutting_the_input_changes_nothing(
        opening in prop::sample::select(OPENINGS),
        words in words(),
        cut in any::<prop::sample::Index>(),
    ) {
        let version = version_of(opening);
        let bytes: Vec<u8> = words.iter().flat_map(|word| bytes_of(word, version)).collect();
        let whole = told(opening, &[&bytes]);
        let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
        prop_assert_eq!(&told(opening, &[head, tail]), &whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&told(opening, &single), &whole);
    }

    #[test]
    fn noise_is_never_more_than_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_session(&bytes);
    }

    #[test]
    fn no_conversation_makes_the_session_fail(bytes in steps()) {
        fuzz_session(&bytes);
    }

    /// A fan-out encodes once; each receiver's copy differs in its id and flags only.
    #[test]
    fn a_shared_encoding_reads_like_ones_own(
        five in any::<bool>(),
        exactly_once in any::<bool>(),
        large in any::<bool>(),
        receivers in prop::collection::vec((1..65_536_u32, any::<bool>()), 1..6),
    ) {
        let opening = if five { "v5; id=c" } else { "v4; id=c" };
        let mut fields = FieldsWriter::new();
        fields.destination(Tag::Destination, &Destination::topic("some.topic"));
        fields.text_property("a", &"b".repeat(200));
        let facts = Facts { persistent: true, exactly_once, ..Facts::default() };
        let body = b"x".repeat(if large { 3000 } else { 30 });
        let message = Message::new(facts, &[fields.as_slice()], Body::Borrowed(&body));
        let grant = Grant { guarantee: Guarantee::ExactlyOnce, ..Grant::default() };
        let mut cache = EncodeCache::new();
        for (number, redelivered) in receivers {
            let encode = |cache: Option<&mut EncodeCache>| {
                let mut connection = Connection::new(Limits::default());
                connection.receive(&packet_of(&format!("CONNECT {opening}"), version_of(opening)));
                let mut out = Chunks::new();
                let delivery = delivery(&message, &grant, number, redelivered);
                let admission = connection.host.egress.deliver(Timestamp(1), &delivery, cache, &mut out);
                assert_eq!(admission, Admission::Sent);
                out.to_vec()
            };
            prop_assert_eq!(encode(Some(&mut cache)), encode(None));
        }
    }
}
