//! A broker on a disk in memory, and clients whose sockets are two buffers.

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use sabir_broker::{
    Broker, BrokerLimits, BrokerOptions, Connection, ConnectionInfo, Policies, Rules, Writer,
};
use sabir_model::access::{Action, Attempt, Authenticator, Authorizer, Principal, Resource};
use sabir_model::chunks::Chunks;
use sabir_model::clock::{Clock, Instant, ManualClock, Timestamp};
use sabir_model::command::{Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{Position, QueueId, Sequence};
use sabir_model::limits::Limits;
use sabir_model::session::{EgressNote, Flow, Host, Input, Now, Session};
use sabir_mqtt::client::{self as mqtt, ConnectProperties};
use sabir_mqtt::{Packet, PacketId, Qos};
use sabir_stomp::client as stomp;
use sabir_store::fault_fs::FaultFs;
use sabir_store::{Level, PutMeta, Recover, Store, StoreOptions};

const BODY: [u8; 64] = [b'x'; 64];
const SEGMENT_BYTES: u64 = 1 << 20;
const STOMP: stomp::Version = stomp::Version::V12;
const MQTT: sabir_mqtt::Version = sabir_mqtt::Version::V5;
const NOW: Now = Now { instant: Instant(1_000_000), wall: Timestamp(1_700_000_000_000) };

pub enum Dialect {
    Mqtt,
    Stomp,
}

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

/// `count` PUBLISH packets; `next_id` goes on from call to call.
pub fn mqtt_batch(topic: &str, qos: Qos, count: u64, next_id: &mut u16) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        *next_id = next_id.checked_add(1).unwrap_or(1);
        let id = if qos == Qos::AtMostOnce { None } else { PacketId::new(*next_id) };
        mqtt::publish(&mut out, MQTT, topic, qos, id, &BODY).expect("it fits");
    }
    out
}

/// `count` SEND frames, persistent and with a receipt if they are to be durable.
pub fn stomp_batch(destination: &str, durable: bool, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..count {
        let receipt = format!("r-{number}");
        let headers = [("persistent", "true"), ("receipt", receipt.as_str())];
        stomp::send(&mut out, STOMP, destination, if durable { &headers } else { &[] }, &BODY);
    }
    out
}

pub struct World {
    broker: Broker,
}

impl World {
    pub fn open() -> Self {
        let clock = Arc::new(ManualClock::starting_at(NOW.wall));
        let mut store = StoreOptions::new("/log");
        store.manual = true;
        // Zeros are written ahead, a segment at a time; under callgrind 64 MiB of them take a minute.
        store.segment_bytes = SEGMENT_BYTES;
        let (broker, _) = Broker::open(BrokerOptions {
            store,
            fs: Arc::new(FaultFs::new()),
            clock: clock as Arc<dyn Clock>,
            authenticator: Arc::new(Everybody),
            authorizer: Arc::new(Everybody),
            rules: Rules::default(),
            policies: Policies::default(),
            limits: BrokerLimits::default(),
            virtual_hosts: Vec::new(),
            single_threaded: true,
        })
        .expect("a fresh disk in memory");
        Self { broker }
    }

    /// Lets the log write and sync.
    pub fn turn(&self) {
        self.broker.store().turn();
    }

    pub fn mqtt(&self, client_id: &str) -> Client {
        let (session, egress) = sabir_mqtt::open(Arc::new(Limits::default()), NOW.instant);
        let wire = Arc::new(Mutex::new(Vec::new()));
        let connection = self
            .broker
            .connect(info(), Box::new(egress), Box::new(Wire(Arc::clone(&wire))))
            .expect("the broker is open");
        let mut client = Client::new(Box::new(session), connection, wire, Dialect::Mqtt);
        let mut out = Vec::new();
        let connect = mqtt::Connect {
            version: MQTT,
            clean_start: true,
            keep_alive_s: 0,
            properties: ConnectProperties::default(),
            client_id,
            will: None,
            username: None,
            password: None,
        };
        mqtt::connect(&mut out, &connect).expect("it fits");
        self.greet(&mut client, &out);
        client
    }

    pub fn stomp(&self) -> Client {
        let (session, egress) = sabir_stomp::open(Arc::new(Limits::default()), "bench", NOW.instant);
        let wire = Arc::new(Mutex::new(Vec::new()));
        let connection = self
            .broker
            .connect(info(), Box::new(egress), Box::new(Wire(Arc::clone(&wire))))
            .expect("the broker is open");
        let mut client = Client::new(Box::new(session), connection, wire, Dialect::Stomp);
        let mut out = Vec::new();
        stomp::connect(&mut out, &stomp::Connect { versions: &[STOMP], ..stomp::Connect::default() });
        self.greet(&mut client, &out);
        client
    }

    fn greet(&self, client: &mut Client, connect: &[u8]) {
        client.feed(connect);
        for _ in 0..100 {
            self.turn();
            client.pump();
        }
        assert!(!client.wire.lock().expect("nobody panics").is_empty(), "the client is greeted");
        client.wire.lock().expect("nobody panics").clear();
    }
}

fn info() -> ConnectionInfo {
    ConnectionInfo { remote: None, local: true, peer: "bench".into(), listener: "bench" }
}

/// What the broker writes, kept until the client looks.
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Writer for Wire {
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut wire = self.0.lock().expect("nobody panics");
        slices.iter().for_each(|slice| wire.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
    fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.try_write(slices))
    }
}

pub struct Client {
    session: Box<dyn Session>,
    connection: Connection,
    wire: Arc<Mutex<Vec<u8>>>,
    dialect: Dialect,
    acknowledges: bool,
    delivered: u64,
    receipts: u64,
}

impl Client {
    fn new(
        session: Box<dyn Session>,
        connection: Connection,
        wire: Arc<Mutex<Vec<u8>>>,
        dialect: Dialect,
    ) -> Self {
        Self { session, connection, wire, dialect, acknowledges: true, delivered: 0, receipts: 0 }
    }

    pub fn subscribe(&mut self, filter: &str, qos: Qos) {
        let mut out = Vec::new();
        mqtt::subscribe(&mut out, MQTT, PacketId::MIN, &[(filter, qos)]).expect("it fits");
        self.feed(&out);
        self.answers();
    }

    pub fn consume(&mut self, destination: &str, ack: &str) {
        let mut out = Vec::new();
        stomp::subscribe(&mut out, STOMP, "1", destination, ack, &[]);
        self.acknowledges = ack != "auto";
        self.feed(&out);
    }

    /// What a driver does when bytes have arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        while !input.rest().is_empty() {
            let mut out = Chunks::new();
            let flow = self.session.receive(NOW, &mut input, &mut self.connection, &mut out);
            assert!(matches!(flow, Ok(Flow::More | Flow::Parked)), "the bytes are fine: {flow:?}");
            self.connection.end_batch(NOW, &mut out);
            self.pump();
        }
    }

    /// What a driver does when it is woken.
    pub fn pump(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(event) = self.connection.poll_event(&mut cx) {
            let mut out = Chunks::new();
            let flow = self.session.notify(NOW, event, &mut self.connection, &mut out);
            assert!(matches!(flow, Ok(Flow::More | Flow::Parked)), "the connection goes on: {flow:?}");
            self.connection.end_batch(NOW, &mut out);
        }
        let _ = self.connection.poll_flush(&mut cx);
    }

    /// Reads what has arrived and sends what it asks for; false if it asks for nothing.
    pub fn answers(&mut self) -> bool {
        self.pump();
        let bytes = std::mem::take(&mut *self.wire.lock().expect("nobody panics"));
        let mut out = Vec::new();
        match self.dialect {
            Dialect::Mqtt => self.read_mqtt(&bytes, &mut out),
            Dialect::Stomp => self.read_stomp(&bytes, &mut out),
        }
        if !out.is_empty() {
            self.feed(&out);
        }
        !out.is_empty()
    }

    fn read_mqtt(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let decoder = mqtt::Decoder::new(MQTT);
        while !bytes.is_empty() {
            let decoded = decoder.next(bytes).expect("the broker writes packets");
            let packet = decoded.packet.expect("the broker writes whole packets");
            self.delivered += u64::from(matches!(packet, Packet::Publish(_)));
            mqtt::answer(out, MQTT, &packet);
            bytes = &bytes[decoded.consumed..];
        }
    }

    fn read_stomp(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let mut decoder = stomp::Decoder::new(STOMP);
        while !bytes.is_empty() {
            let decoded = decoder.next(bytes).expect("the broker writes frames");
            let consumed = decoded.consumed;
            if let Some(frame) = decoded.frame {
                match frame.command() {
                    "MESSAGE" => {
                        self.delivered += 1;
                        if self.acknowledges {
                            stomp::ack(out, STOMP, &frame, &[]);
                        }
                    }
                    "RECEIPT" => self.receipts += 1,
                    other => panic!("unexpected {other}"),
                }
            }
            bytes = &bytes[consumed..];
        }
    }

    pub fn delivered(&mut self) -> u64 {
        self.answers();
        self.delivered
    }

    pub fn receipts(&mut self) -> u64 {
        self.answers();
        self.receipts
    }
}

/// A session whose broker only counts.
pub struct Sink {
    session: Box<dyn Session>,
    host: Counter,
}

#[derive(Default)]
struct Counter {
    published: u64,
}

impl Host for Counter {
    fn publish(&mut self, _: Publish<'_>) -> Outcome {
        self.published += 1;
        Outcome::Accepted(None)
    }
    fn settle(&mut self, _: WireAck) {}
    fn settle_now(&mut self, _: WireAck) -> Outcome {
        Outcome::Accepted(None)
    }
    fn ask(&mut self, _: Command<'_>) -> Outcome {
        Outcome::Accepted(None)
    }
    fn temporary(&mut self, _: Kind, _: &str) -> Result<Destination, Refusal> {
        Err(Refusal::new(Code::Unsupported, "not here"))
    }
    fn temporary_label(&self, _: &Destination) -> Option<&str> {
        None
    }
    fn receipt(&mut self, _: Option<Promise>) -> ReceiptTime {
        ReceiptTime::Now
    }
    fn note(&mut self, _: EgressNote<'_>) {}
    fn session_name(&self) -> String {
        "bench".to_owned()
    }
}

impl Sink {
    pub fn new(dialect: Dialect) -> Self {
        let limits = Arc::new(Limits::default());
        let mut out = Vec::new();
        let session: Box<dyn Session> = match dialect {
            Dialect::Stomp => {
                stomp::connect(&mut out, &stomp::Connect { versions: &[STOMP], ..stomp::Connect::default() });
                Box::new(sabir_stomp::open(limits, "bench", NOW.instant).0)
            }
            Dialect::Mqtt => {
                let connect = mqtt::Connect {
                    version: MQTT,
                    clean_start: true,
                    keep_alive_s: 0,
                    properties: ConnectProperties::default(),
                    client_id: "sink",
                    will: None,
                    username: None,
                    password: None,
                };
                mqtt::connect(&mut out, &connect).expect("it fits");
                Box::new(sabir_mqtt::open(limits, NOW.instant).0)
            }
        };
        let mut sink = Self { session, host: Counter::default() };
        sink.receive(&out);
        sink
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        let (mut input, mut out) = (Input::new(bytes), Chunks::new());
        self.session.receive(NOW, &mut input, &mut self.host, &mut out).expect("the bytes are fine");
    }

    pub fn published(&self) -> u64 {
        self.host.published
    }
}

struct Nothing;

impl Recover for Nothing {
    fn meta(&mut self, _: u8, _: &[u8], _: &[u8]) {}
    fn queue(&mut self, _: QueueId, _: Sequence) {}
    fn message(&mut self, _: &[(QueueId, Sequence)], _: PutMeta, _: &[u8], _: &[u8]) {}
    fn attempts(&mut self, _: QueueId, _: Sequence, _: u32) {}
}

pub fn bare_log() -> Store {
    let mut options = StoreOptions::new("/log");
    options.manual = true;
    options.segment_bytes = SEGMENT_BYTES;
    Store::open(options, Arc::new(FaultFs::new()), &mut Nothing).expect("a fresh disk in memory").0
}

pub fn put_and_acknowledge(store: &Store, queue: QueueId, first: u64, count: u64) {
    let mut last = Position::default();
    for sequence in first..first + count {
        let mut group = store.begin_put().expect("there is room");
        group.put(&[(queue, Sequence(sequence))], PutMeta::default(), &[&[1u8; 20]], &BODY);
        last = group.finish(Level::Fsync);
    }
    std::hint::black_box(last);
    let mut group = store.begin();
    group.acknowledge(queue, Sequence(first), count);
    group.finish(Level::Os);
}
