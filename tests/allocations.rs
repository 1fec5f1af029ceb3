//! How often the way of a message allocates, and what is kept of connections and subscriptions: real sessions and the real core in one thread, under an allocator that counts.
//!
//! Counts say what times cannot on a shared machine. Each figure is that of a batch after warm-up, with the few
//! allocations that a batch makes as a whole taken off.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use sabir_broker::{
    Broker, BrokerLimits, BrokerOptions, Connection, ConnectionInfo, Policies, Rules, Writer,
};
use sabir_model::access::{Action, Attempt, Authenticator, Authorizer, Principal, Resource};
use sabir_model::chunks::Chunks;
use sabir_model::clock::{Clock, ManualClock, Timestamp};
use sabir_model::error::Refusal;
use sabir_model::limits::Limits;
use sabir_model::session::{Egress, Input, Now, Session};
use sabir_store::StoreOptions;
use sabir_store::fault_fs::FaultFs;

/// Messages of one batch.
const BATCH: u64 = 64;

struct Everybody;

impl Authenticator for Everybody {
    fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Principal, Refusal> {
        Ok(Principal::anonymous(attempt.remote))
    }
}

impl Authorizer for Everybody {
    fn allows(&self, _: &Principal, _: Action, _: Resource<'_>) -> bool {
        true
    }
    fn generation(&self) -> u64 {
        0
    }
}

/// Takes everything and counts it.
#[derive(Clone, Default)]
struct Drain(Arc<AtomicU64>);

impl Writer for Drain {
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = slices.iter().map(|slice| slice.len()).sum();
        self.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
    fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.try_write(slices))
    }
}

struct World {
    broker: Broker,
    clock: Arc<ManualClock>,
}

struct Client {
    session: Box<dyn Session>,
    connection: Connection,
    wire: Drain,
    now: Now,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::starting_at(Timestamp(1_700_000_000_000)));
        let mut store = StoreOptions::new("/allocations");
        store.manual = true;
        store.segment_bytes = 64 * 1024;
        let (broker, _) = Broker::open(BrokerOptions {
            store,
            fs: Arc::new(FaultFs::new()),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            authenticator: Arc::new(Everybody),
            authorizer: Arc::new(Everybody),
            rules: Rules::default(),
            policies: Policies::default(),
            limits: BrokerLimits::default(),
            virtual_hosts: Vec::new(),
            single_threaded: true,
        })
        .unwrap();
        Self { broker, clock }
    }

    fn connect(&self, session: Box<dyn Session>, egress: Box<dyn Egress>, greeting: &[u8]) -> Client {
        let wire = Drain::default();
        let info = ConnectionInfo { remote: None, local: true, peer: "here".into(), listener: "test" };
        let connection = self.broker.connect(info, egress, Box::new(wire.clone())).unwrap();
        let now = Now { instant: self.clock.now(), wall: self.clock.wall() };
        let mut client = Client { session, connection, wire, now };
        client.feed(greeting);
        client.pump();
        client
    }

    fn mqtt(&self, name: &str) -> Client {
        let (session, egress) = sabir_mqtt::open(Arc::new(Limits::default()), self.clock.now());
        let mut connect = b"\x10\0\0\x04MQTT\x04\x02\0\0".to_vec();
        connect.extend(text(name));
        connect[1] = (connect.len() - 2) as u8;
        self.connect(Box::new(session), Box::new(egress), &connect)
    }

    fn stomp(&self) -> Client {
        let (session, egress) = sabir_stomp::open(Arc::new(Limits::default()), "test", self.clock.now());
        self.connect(Box::new(session), Box::new(egress), b"CONNECT\naccept-version:1.2\nhost:/\n\n\0")
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn publish(topic: &str, qos: u8, id: u64) -> Vec<u8> {
    let mut packet = vec![0x30 | qos << 1, 0];
    packet.extend(text(topic));
    if qos > 0 {
        packet.extend((id as u16 + 1).to_be_bytes());
    }
    packet.extend([b'.'; 64]);
    packet[1] = (packet.len() - 2) as u8;
    packet
}

fn subscribe(topic: &str, qos: u8) -> Vec<u8> {
    let mut packet = vec![0x82, 0, 0, 1];
    packet.extend(text(topic));
    packet.push(qos);
    packet[1] = (packet.len() - 2) as u8;
    packet
}

impl Client {
    fn feed(&mut self, bytes: &[u8]) {
        let mut out = Chunks::new();
        let mut input = Input::new(bytes);
        self.session.receive(self.now, &mut input, &mut self.connection, &mut out).unwrap();
        assert_eq!(input.rest().len(), 0, "whole frames were fed");
        self.connection.end_batch(self.now, &mut out);
    }

    fn pump(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(event) = self.connection.poll_event(&mut cx, self.now) {
            let mut out = Chunks::new();
            self.session.notify(self.now, event, &mut self.connection, &mut out).unwrap();
            self.connection.end_batch(self.now, &mut out);
        }
        let _ = self.connection.poll_flush(&mut cx, self.now);
    }

    fn written(&self) -> u64 {
        self.wire.0.load(Ordering::Relaxed)
    }
}

/// Allocations of one batch of `BATCH` of what `frame` makes, after some batches that were not counted.
fn counted(sender: &mut Client, frame: impl Fn(u64) -> Vec<u8>) -> u64 {
    let batch: Vec<u8> = (0..BATCH).flat_map(frame).collect();
    for _ in 0..20 {
        sender.feed(&batch);
    }
    allocation_counter::measure(|| sender.feed(&batch)).count_total
}

#[test]
fn a_publish_that_nobody_receives_allocates_nothing() {
    let world = World::new();
    let mut sender = world.mqtt("sender");
    assert_eq!(counted(&mut sender, |_| publish("nobody/listens", 0, 0)), 0);
}

#[test]
fn a_live_message_is_one_allocation_whoever_receives_it() {
    let world = World::new();
    let mut receivers: Vec<Client> = (0..10).map(|number| world.mqtt(&format!("r{number}"))).collect();
    let mut sender = world.mqtt("sender");
    receivers[0].feed(&subscribe("to/one", 0));
    for receiver in &mut receivers {
        receiver.feed(&subscribe("to/all", 0));
    }
    let mut reader = world.stomp();
    reader.feed(b"SUBSCRIBE\nid:1\ndestination:/topic/to.stomp\n\n\0");
    for topic in ["to/one", "to/all", "to/stomp"] {
        let before = receivers[0].written() + reader.written();
        let count = counted(&mut sender, |_| publish(topic, 0, 0));
        assert!(receivers[0].written() + reader.written() > before + 20 * BATCH * 64, "{topic}");
        // One for a message; the rest is that of a batch.
        assert!((BATCH..BATCH + 8).contains(&count), "{count} for {BATCH} to {topic}");
    }
}

#[test]
fn a_queued_message_is_one_allocation_and_its_acknowledgement_none() {
    let world = World::new();
    let mut sender = world.stomp();
    let frame = |_| {
        b"SEND\ndestination:/queue/q\ncontent-length:64\n\n................................................................\0".to_vec()
    };
    // Nobody takes it: what grows, grows by doubling.
    let count = counted(&mut sender, frame);
    assert!((BATCH..BATCH + 12).contains(&count), "{count} for {BATCH} queued");
    let mut reader = world.stomp();
    reader.feed(b"SUBSCRIBE\nid:1\ndestination:/queue/q\nack:auto\n\n\0");
    for _ in 0..50 {
        reader.pump();
        sender.pump();
    }
    assert!(reader.written() > 21 * BATCH * 64);
    let count = counted(&mut sender, frame);
    assert!((BATCH..BATCH + 16).contains(&count), "{count} for {BATCH} taken");
}

#[test]
fn an_acknowledged_publish_is_one_allocation() {
    let world = World::new();
    let mut receiver = world.mqtt("receiver");
    receiver.feed(&subscribe("t", 0));
    let mut sender = world.mqtt("sender");
    let count = counted(&mut sender, |id| publish("t", 1, id));
    assert!(receiver.written() > 21 * BATCH * 64);
    assert!((BATCH..BATCH + 12).contains(&count), "{count} for {BATCH} of QoS 1");
}

/// A packet of this type for `topics`, numbered, each followed by `behind`.
fn of_topics(first: u8, topics: &[String], behind: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1];
    for topic in topics {
        body.extend(text(topic));
        body.extend(behind);
    }
    let mut packet = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        packet.push(length as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend(body);
    packet
}

/// Bytes that stay allocated per subscription of one session that has `count`, of which every `wild`th has a wildcard.
fn bytes_per_subscription(count: usize, wild: usize) -> u64 {
    let world = World::new();
    let mut client = world.mqtt("subscriber");
    client.feed(&subscribe("some/other", 0));
    let topic = |number: usize| match number % wild {
        0 => format!("sabir/bench/subs/{}/+", 100_000 + number),
        _ => format!("sabir/bench/subs/{}/leaf", 100_000 + number),
    };
    let topics: Vec<String> = (1..=count).map(topic).collect();
    let packets: Vec<Vec<u8>> = topics.chunks(500).map(|some| of_topics(0x82, some, &[0])).collect();
    let kept = allocation_counter::measure(|| packets.iter().for_each(|packet| client.feed(packet)));
    let packets: Vec<Vec<u8>> = topics.chunks(500).map(|some| of_topics(0xa2, some, &[])).collect();
    let freed = allocation_counter::measure(|| packets.iter().for_each(|packet| client.feed(packet)));
    let left = kept.bytes_current + freed.bytes_current;
    assert!(left < 64 * 1024, "{left} bytes are left of {count} subscriptions that have ended");
    (kept.bytes_current / count as i64).cast_unsigned()
}

#[test]
fn a_subscription_of_a_client_session_is_small() {
    // Tables of 8,192 places are full at 7,168: the first count is where they have just doubled, the second where they are
    // about to.
    for (count, wild, most) in
        [(7_200, usize::MAX, 128), (7_100, usize::MAX, 112), (7_200, 10, 128), (7_200, 1, 176)]
    {
        let bytes = bytes_per_subscription(count, wild);
        assert!(bytes <= most, "{bytes} for each of {count}, a wildcard in every {wild}th");
    }
}

/// Bytes that stay allocated for each of a thousand of what `make` makes, what others keep of it included.
fn bytes_each(mut make: impl FnMut(&World, usize) -> Client) -> i64 {
    let world = World::new();
    let mut kept = Vec::with_capacity(1000);
    let bytes = allocation_counter::measure(|| kept.extend((0..1000).map(|number| make(&world, number))));
    bytes.bytes_current / 1000
}

#[test]
fn an_idle_connection_with_a_subscription_is_small() {
    let mqtt = |qos| {
        bytes_each(move |world, number| {
            let mut client = world.mqtt(&format!("client-{number}"));
            client.feed(&subscribe(&format!("sabir/bench/idle/{number}"), qos));
            client.pump();
            client
        })
    };
    let stomp = |kind: &str| {
        bytes_each(|world, number| {
            let mut client = world.stomp();
            let destination = format!("/{kind}/sabir.bench.idle.{number}");
            client.feed(format!("SUBSCRIBE\nid:1\ndestination:{destination}\n\n\0").as_bytes());
            client.pump();
            client
        })
    };
    // The sockets and the task of each come on top: about 1,000 bytes, of which nothing is allocated here.
    for (what, bytes, most) in [
        ("MQTT at QoS 0", mqtt(0), 1360),
        ("MQTT at QoS 1", mqtt(1), 2280),
        ("STOMP to a topic", stomp("topic"), 1670),
        ("STOMP to a queue", stomp("queue"), 2630),
    ] {
        assert!(bytes <= most, "{what}: {bytes} bytes");
    }
}
