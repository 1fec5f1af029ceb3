//! What is like the message before is carried out as if nothing had come before, both ways.

mod harness;

use harness::words::{packet_of, version_of};
use harness::{Connection, token};
use proptest::prelude::*;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
use sabir_model::delivery::{Admission, Delivery, Grant, Guarantee};
use sabir_model::destination::Destination;
use sabir_model::ids::{Sequence, SubscriptionKey};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, BodyKind, Facts, FieldsWriter, Message, Tag};
use sabir_model::session::{Egress, Flow};

/// Ways to say PUBLISH, some of which are alike but for the payload, an id or a flag; some are refused, and some break rules.
const SENT: &[&str] = &[
    "PUBLISH a/b > x",
    "PUBLISH a/b > y",
    "PUBLISH a/b > longer",
    "PUBLISH a/b",
    "PUBLISH a/c > x",
    "PUBLISH a/b/c > x",
    "PUBLISH a/b; retain > x",
    "PUBLISH a/b; qos=1; id=1 > x",
    "PUBLISH a/b; qos=1; id=2 > y",
    "PUBLISH a/b; qos=1; id=3; dup > y",
    "PUBLISH a/b; qos=2; id=4 > y",
    "PUBLISH a/b; qos=2; id=5 > z",
    "PUBLISH a/b; u:a=b; expiry=5; corr=c; reply=r > x",
    "PUBLISH a/b; u:a=b; expiry=5; corr=c; reply=r > y",
    "PUBLISH a/b; u:a=c; expiry=5; corr=c; reply=r > y",
    "PUBLISH a/b; format=1 > text",
    "PUBLISH a/b; format=1 > \\xff",
    "PUBLISH a/b; format=1; qos=1; id=6 > \\xff",
    "PUBLISH a/b; type=text/plain > text",
    "PUBLISH a/b; type=text/plain > \\xff",
    "PUBLISH a/b; type=image/png > text",
    "PUBLISH a/b; alias=1 > x",
    "PUBLISH ; alias=1 > x",
    "PUBLISH 1/2/3/4/5/6/7/8/9 > too many levels",
    "PUBLISH 1/2/3/4/5/6/7/8/9; qos=1; id=7 > too many levels",
    "PUBLISH a/b > x**70",
    "PUBLISH a/b; qos=1; id=8 > x**70",
];

/// Told apart from all of those, and answered by nothing.
const BETWEEN: &str = "PUBLISH zz > between";

/// What a connection says and asks if these packets come.
fn told(version: &str, words: &[&str], between: bool) -> (Vec<u8>, Vec<String>, bool) {
    let limits = Limits {
        body_bytes_max: 60,
        topic_aliases_max: 2,
        topic_levels_max: 8,
        receive_max: 20,
        ..Limits::default()
    };
    let mut connection = Connection::new(limits);
    connection.receive(&packet_of(&format!("CONNECT {version}; id=c"), version_of(version)));
    for word in words {
        for word in [word, BETWEEN].into_iter().take(1 + usize::from(between)) {
            if connection.flow == Ok(Flow::More) {
                connection.now_ms += 1;
                connection.receive(&packet_of(word, version_of(version)));
                connection.now_ms -= u64::from(word == BETWEEN);
            }
        }
    }
    let asked = connection.asked().into_iter().filter(|line| !line.contains("topic://zz"));
    let asked = asked.collect();
    (connection.written(), asked, connection.flow == Ok(Flow::More))
}

/// One of the messages that a client gets.
#[derive(Clone, Debug)]
struct Shape {
    topic: &'static str,
    property: Option<&'static str>,
    kind: BodyKind,
    priority: u8,
    expires: u64,
    guarantee: Guarantee,
    retained: bool,
    identifiers: &'static [u32],
    redelivered: bool,
    payload: &'static str,
}

fn shape() -> impl Strategy<Value = Shape> {
    // Each is mostly the first, so that many are alike.
    let mostly = |first: bool| prop::bool::weighted(if first { 0.85 } else { 0.5 });
    (
        prop_oneof![6 => Just("t"), 1 => Just("t.u"), 1 => Just("u")],
        prop_oneof![6 => Just(None), 1 => Just(Some("b")), 1 => Just(Some("c"))],
        prop_oneof![6 => Just(BodyKind::Bytes), 1 => Just(BodyKind::Text), 1 => Just(BodyKind::Object)],
        prop_oneof![6 => Just(4_u8), 1 => Just(7_u8)],
        prop_oneof![6 => Just(0_u64), 1 => Just(5000_u64)],
        prop::sample::select(&[Guarantee::AtMostOnce, Guarantee::AtLeastOnce, Guarantee::ExactlyOnce][..]),
        mostly(true).prop_map(|plain| !plain),
        prop_oneof![6 => Just(&[][..]), 1 => Just(&[7][..])],
        mostly(true).prop_map(|first| !first),
        prop_oneof![6 => Just("payload"), 1 => Just("another"), 1 => Just("longer than that"), 1 => Just("")],
    )
        .prop_map(
            |(
                topic,
                property,
                kind,
                priority,
                expires,
                guarantee,
                retained,
                identifiers,
                redelivered,
                payload,
            )| {
                Shape {
                    topic,
                    property,
                    kind,
                    priority,
                    expires,
                    guarantee,
                    retained,
                    identifiers,
                    redelivered,
                    payload,
                }
            },
        )
}

/// What is written for the delivery of this number.
fn written(connection: &mut Connection, shape: &Shape, number: u32) -> (Admission, Vec<u8>) {
    let mut fields = FieldsWriter::new();
    fields.destination(Tag::Destination, &Destination::topic(shape.topic));
    if let Some(value) = shape.property {
        fields.text_property("a", value);
    }
    let facts = Facts {
        persistent: true,
        exactly_once: true,
        body_kind: shape.kind,
        priority: shape.priority,
        expires: if shape.expires == 0 { Timestamp::NEVER } else { Timestamp(shape.expires) },
        ..Facts::default()
    };
    let message = Message::new(facts, &[fields.as_slice()], Body::Borrowed(shape.payload.as_bytes()));
    let grant = Grant {
        guarantee: shape.guarantee,
        retained: shape.retained,
        identifiers: shape.identifiers.iter().copied().collect(),
        ..Grant::default()
    };
    let settled = shape.guarantee > Guarantee::AtMostOnce;
    let delivery = Delivery {
        message: &message,
        subscription: SubscriptionKey(0),
        queue: None,
        token: settled.then(|| token(number)),
        attempt: 1,
        redelivered: shape.redelivered,
        browsed: false,
        grant: Some(&grant),
        sequence: settled.then_some(Sequence(number.into())),
        progress: 0,
    };
    let mut out = Chunks::new();
    let admission = connection.host.egress.deliver(Timestamp(1), &delivery, None, &mut out);
    (admission, out.to_vec())
}

fn introduced(opening: &str) -> Connection {
    let mut connection = Connection::new(Limits::default());
    connection.receive(&packet_of(&format!("CONNECT {opening}"), version_of(&opening[..2])));
    connection
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_publish_means_the_same_whatever_came_before(
        version in prop::sample::select(&["v3", "v4", "v5"][..]),
        words in prop::collection::vec(prop::sample::select(SENT), 1..30),
    ) {
        let words: Vec<&str> =
            words.into_iter().filter(|word| version == "v5" || !word.contains("PUBLISH ;")).collect();
        prop_assert_eq!(told(version, &words, false), told(version, &words, true));
    }

    #[test]
    fn a_delivery_looks_the_same_whatever_went_before(
        opening in prop::sample::select(&["v4; id=c", "v5; id=c", "v5; id=c; max=30", "v4; id=c; clean"][..]),
        shapes in prop::collection::vec(shape(), 1..30),
    ) {
        let mut one = introduced(opening);
        for (number, shape) in (1..).zip(&shapes) {
            let alone = written(&mut introduced(opening), shape, number);
            prop_assert_eq!(written(&mut one, shape, number), alone, "{:?}", shape);
        }
    }
}

#[test]
fn what_is_alike_is_alike() {
    // So that the properties above are about something: the second of each pair differs in its payload only, and both mean
    // what they say.
    for version in ["v3", "v4", "v5"] {
        let words = ["PUBLISH a/b; qos=1; id=1 > x", "PUBLISH a/b; qos=1; id=2 > y"];
        let (_, asked, open) = told(version, &words, false);
        assert!(open);
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(asked[1].contains("topic://a.b") && asked[1].ends_with("> x"), "{asked:?}");
        assert!(asked[2].contains("topic://a.b") && asked[2].ends_with("> y"), "{asked:?}");
    }
}
