//! Nanoseconds per frame of the two hot paths, without any I/O: `cargo run --release -p sabir-stomp --example measure`.
#![expect(clippy::disallowed_methods, reason = "measures time")]
#![expect(clippy::print_stdout, reason = "a tool that prints figures")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant as Stopwatch;

use sabir_model::chunks::Chunks;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::command::{Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::delivery::{Delivery, EncodeCache};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{DeliveryToken, MessageId, QueueId, SubscriptionKey};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, BodyKind, Facts, FieldsWriter, Message, Tag};
use sabir_model::session::{Egress, EgressNote, Host, Input, Now, Session};
use sabir_model::settlement::SettleMode;
use sabir_stomp::client::{self, Version};

const FRAMES: usize = 1000;
const ROUNDS: usize = 500;

#[derive(Default)]
struct Sink {
    bytes: usize,
}

impl Host for Sink {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        self.bytes += publish.fields.len() + usize::try_from(publish.body.length()).unwrap_or(usize::MAX);
        Outcome::Accepted(None)
    }
    fn settle(&mut self, ack: WireAck) {
        self.bytes += usize::from(black_box(ack).transaction.is_none());
    }
    fn settle_now(&mut self, ack: WireAck) -> Outcome {
        self.settle(ack);
        Outcome::Accepted(None)
    }
    fn ask(&mut self, _command: Command<'_>) -> Outcome {
        Outcome::Accepted(None)
    }
    fn temporary(&mut self, _kind: Kind, _label: &str) -> Result<Destination, Refusal> {
        Err(Refusal::new(Code::Unsupported, "not here"))
    }
    fn temporary_label(&self, _destination: &Destination) -> Option<&str> {
        None
    }
    fn receipt(&mut self, _promise: Option<Promise>) -> ReceiptTime {
        ReceiptTime::Now
    }
    fn note(&mut self, _note: EgressNote<'_>) {}
    fn session_name(&self) -> String {
        "measure".to_owned()
    }
}

fn report(what: &str, bytes: usize, run: impl FnMut()) {
    let mut run = run;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Stopwatch::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let (each, rate) = (best * 1e9 / FRAMES as f64, bytes as f64 / best / 1e6);
    println!("{what:<58} {each:>7.1} ns/frame {rate:>7.0} MB/s");
}

fn ingress(what: &str, write: impl Fn(&mut Vec<u8>)) {
    let (mut session, _) = sabir_stomp::open(Arc::new(Limits::default()), "Sabir/0", Instant(0));
    let now = Now { instant: Instant(0), wall: Timestamp(1_700_000_000_000) };
    let (mut host, mut out) = (Sink::default(), Chunks::new());
    let mut open = Vec::new();
    client::connect(&mut open, &client::Connect::default());
    session.receive(now, &mut Input::new(&open), &mut host, &mut out).expect("CONNECT is fine");
    out.clear();
    let mut bytes = Vec::new();
    for _ in 0..FRAMES {
        write(&mut bytes);
    }
    report(what, bytes.len(), || {
        let mut input = Input::new(&bytes);
        session.receive(now, &mut input, &mut host, &mut out).expect("the frames are fine");
        assert_eq!(input.rest().len(), 0);
        out.clear();
    });
    black_box(host.bytes);
}

fn egress(what: &str, settle: SettleMode, cached: bool, properties: usize) {
    let (_, mut egress) = sabir_stomp::open(Arc::new(Limits::default()), "Sabir/0", Instant(0));
    // The number under which the session tells 1.2; the default would be 1.0.
    egress.note(EgressNote::Dialect(0x5354_4f02));
    let key = SubscriptionKey(0);
    egress.note(EgressNote::Attach { key, label: b"sub-0", settle, options: 0 });
    let mut fields = FieldsWriter::new();
    let queue = Destination::queue("orders.incoming");
    fields.destination(Tag::Destination, &queue);
    for number in 0..properties {
        fields.text_property(&format!("property-{number}"), "some value");
    }
    let facts = Facts {
        id: MessageId { origin: 0x1234_5678_9abc, number: 123_456 },
        timestamp: Timestamp(1_700_000_000_000),
        priority: 4,
        persistent: true,
        body_kind: BodyKind::Text,
        ..Facts::default()
    };
    let message = Message::new(facts, &[fields.as_slice()], Body::Borrowed(&[b'x'; 100]));
    let token = DeliveryToken { boot: 0xb007_0001, queue: QueueId(12), slot: 345, generation: 6 };
    let delivery = Delivery {
        message: &message,
        subscription: key,
        queue: (!cached).then_some(&queue),
        token: Some(token),
        attempt: 1,
        redelivered: false,
        browsed: false,
        grant: None,
        sequence: None,
        progress: 0,
    };
    let mut cache = EncodeCache::new();
    let mut out = Chunks::new();
    egress.deliver(Timestamp(0), &delivery, None, &mut out);
    let one = out.len();
    out.clear();
    report(what, one * FRAMES, || {
        for _ in 0..FRAMES {
            egress.deliver(Timestamp(0), &delivery, cached.then_some(&mut cache), &mut out);
        }
        out.clear();
    });
}

fn main() {
    let body = [b'x'; 100];
    let v = Version::V12;
    ingress("SEND, 100 bytes", |out| client::send(out, v, "/queue/orders.incoming", &[], &body));
    ingress("SEND, 100 bytes, persistent, receipt", |out| {
        client::send(
            out,
            v,
            "/queue/orders.incoming",
            &[("persistent", "true"), ("receipt", "r-12345")],
            &body,
        );
    });
    ingress("SEND, 100 bytes, 4 properties, correlation-id, type", |out| {
        let headers = [
            ("correlation-id", "c-123"),
            ("type", "order"),
            ("property-1", "some value"),
            ("property-2", "some value"),
            ("property-3", "some value"),
            ("property-4", "some value"),
        ];
        client::send(out, v, "/queue/orders.incoming", &headers, &body);
    });
    ingress("SEND, 100 bytes, text without a length", |out| {
        client::send_text(out, v, "/topic/prices", &[], &"x".repeat(100));
    });
    ingress("ACK", |out| client::frame(out, v, "ACK", [("id", "b0070001-c-159-6")], None));
    egress("MESSAGE, 100 bytes, auto", SettleMode::Auto, false, 0);
    egress("MESSAGE, 100 bytes, client-individual", SettleMode::Individual, false, 0);
    egress("MESSAGE, 100 bytes, client-individual, 4 properties", SettleMode::Individual, false, 4);
    egress("MESSAGE, 100 bytes, auto, of a fan-out", SettleMode::Auto, true, 4);

    let mut bytes = Vec::new();
    for _ in 0..FRAMES {
        client::send(&mut bytes, v, "/queue/orders.incoming", &[("message-id", "ID\\c1-2")], &body);
    }
    report("client: decode", bytes.len(), || {
        let mut decoder = client::Decoder::new(v);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let decoded = decoder.next(rest).expect("the frames are fine");
            rest = rest.get(decoded.consumed..).unwrap_or_default();
        }
    });
}
