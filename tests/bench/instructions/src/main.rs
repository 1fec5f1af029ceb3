//! What a message costs in instructions, without sockets: `sabir-instructions CASE MESSAGES`, run under callgrind.
//!
//! Sessions, broker and log are the real ones, driven from one thread, over a disk in memory and writers that take
//! everything. Run with n and with 2n messages, the difference holds no start-up: that is what tests/bench/regress does.
//! Without arguments it names its cases.

mod world;

use sabir_model::ids::QueueId;
use sabir_mqtt::Qos;
use world::{Client, Dialect, Sink, World};

/// Messages that arrive with one read, as from a busy sender.
const BATCH: u64 = 32;

const CASES: &[(&str, fn(u64))] = &[
    ("mqtt-decode", mqtt_decode),
    ("stomp-decode", stomp_decode),
    ("mqtt-relay", |count| mqtt_relay(count, 1, Qos::AtMostOnce)),
    ("mqtt-fan-out-100", |count| mqtt_relay(count / 100, 100, Qos::AtMostOnce)),
    ("mqtt-qos1", |count| mqtt_relay(count, 1, Qos::AtLeastOnce)),
    ("mqtt-qos2", |count| mqtt_relay(count, 1, Qos::ExactlyOnce)),
    ("stomp-queue", |count| stomp_queue(count, "auto", false)),
    ("stomp-individual", |count| stomp_queue(count, "client-individual", false)),
    ("stomp-durable", |count| stomp_queue(count, "client-individual", true)),
    ("log", log),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(count)) = (arguments.next(), arguments.next()) else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let (_, case) = CASES.iter().find(|(found, _)| *found == name).expect("a case that is listed");
    case(count.parse().expect("a number of messages"));
}

fn mqtt_decode(count: u64) {
    let (mut sink, batch) =
        (Sink::new(Dialect::Mqtt), world::mqtt_batch("sensors/1/state", Qos::AtMostOnce, BATCH, &mut 0));
    for _ in 0..count / BATCH {
        sink.receive(&batch);
    }
    assert!(sink.published() >= count / BATCH * BATCH, "every packet is a message");
}

fn stomp_decode(count: u64) {
    let (mut sink, batch) = (Sink::new(Dialect::Stomp), world::stomp_batch("/queue/orders", false, BATCH));
    for _ in 0..count / BATCH {
        sink.receive(&batch);
    }
    assert!(sink.published() >= count / BATCH * BATCH, "every frame is a message");
}

fn mqtt_relay(count: u64, subscribers: u64, qos: Qos) {
    let world = World::open();
    let mut receivers: Vec<Client> =
        (0..subscribers).map(|number| world.mqtt(&format!("receiver-{number}"))).collect();
    receivers.iter_mut().for_each(|receiver| receiver.subscribe("sensors/1/state", qos));
    let mut sender = world.mqtt("sender");
    let mut next_id = 0;
    let fixed = world::mqtt_batch("sensors/1/state", qos, BATCH, &mut next_id);
    for _ in 0..count / BATCH {
        if qos == Qos::AtMostOnce {
            sender.feed(&fixed);
        } else {
            sender.feed(&world::mqtt_batch("sensors/1/state", qos, BATCH, &mut next_id));
        }
        world.turn();
        // Both sides answer until nobody has anything left to say.
        while qos != Qos::AtMostOnce && (receivers.iter_mut().any(Client::answers) | sender.answers()) {
            world.turn();
        }
    }
    for receiver in &mut receivers {
        assert_eq!(receiver.delivered(), count / BATCH * BATCH, "every message arrives once");
    }
}

fn stomp_queue(count: u64, ack: &str, durable: bool) {
    let world = World::open();
    let mut consumer = world.stomp();
    consumer.consume("/queue/orders", ack);
    let mut producer = world.stomp();
    let batch = world::stomp_batch("/queue/orders", durable, BATCH);
    for _ in 0..count / BATCH {
        producer.feed(&batch);
        world.turn();
        producer.pump();
        consumer.answers();
        world.turn();
    }
    consumer.pump();
    assert_eq!(consumer.delivered(), count / BATCH * BATCH, "every message arrives once");
    if durable {
        assert_eq!(producer.receipts(), count / BATCH * BATCH, "every receipt comes");
    }
}

/// Puts and acknowledgements in the log alone.
fn log(count: u64) {
    let store = world::bare_log();
    for first in (0..count).step_by(usize::try_from(BATCH).expect("a small number")) {
        world::put_and_acknowledge(&store, QueueId(1), first + 1, BATCH);
        store.turn();
    }
}
