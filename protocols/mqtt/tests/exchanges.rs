//! A small model of both sides of QoS 1 and 2 (4.3, 4.4): whatever is lost on the way and whenever the connection or the
//! broker ends, each message of QoS 2 arrives once, each of QoS 1 at least once, and both in order.
//!
//! The client never forgets. The broker is a list in memory that a crash sets back to what was synced last; what it
//! promises, it promises for the next sync. It lets a client in when all is synced that an earlier connection of its has
//! changed: else PUBREL, or a PUBCOMP for an id that is no longer known, would say what a crash can still undo.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use sabir_model::chunks::Chunks;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::command::{Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::delivery::{Admission, Delivery, Grant, Guarantee};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::{Event, Opened};
use sabir_model::ids::{DeliveryToken, Position, QueueId, Sequence, SubscriptionKey};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, Facts, FieldsWriter, Message, Tag};
use sabir_model::session::{Egress, EgressNote, Flow, Host, Input, Now, Session, Settled};
use sabir_model::settlement::Settlement;
use sabir_mqtt::client::{self, Connect, Qos};
use sabir_mqtt::packet::{Ack, AckKind, Packet, PacketId, Publish as PublishPacket, put_ack};
use sabir_mqtt::{MqttEgress, MqttSession, Reason, Version};

/// Deliveries out at a time.
const CREDIT: usize = 4;
/// Messages of the client unanswered at a time.
const RECEIVE_MAX: u16 = 5;
/// Tokens from here on are of messages that come from elsewhere than the session's backlog.
const ELSEWHERE: u32 = 1_000_000;
/// Near the end of the packet ids, so that what is derived and what is probed meet.
const FIRST_SEQUENCE: u64 = 65_530;
const NOW: Now = Now { instant: Instant(0), wall: Timestamp(1) };

#[derive(Clone, Debug)]
struct Entry {
    slot: u32,
    number: u32,
    guarantee: Guarantee,
    progress: u32,
    attempted: bool,
    out: bool,
}

/// What the broker knows of the session.
#[derive(Clone, Debug, Default)]
struct Store {
    backlog: VecDeque<Entry>,
    received: BTreeSet<u16>,
    arrived: Vec<(bool, u32)>,
}

struct Server {
    now: Store,
    synced: Store,
    position: u64,
    synced_position: u64,
    egress: MqttEgress,
    /// CONNACK has been written: nothing is delivered before.
    let_in: bool,
    /// The client waits for that.
    waits: bool,
    acks: Vec<WireAck>,
    receipts: VecDeque<u64>,
}

fn token(slot: u32) -> DeliveryToken {
    DeliveryToken { boot: 1, queue: QueueId(1), slot, generation: 1 }
}

impl Server {
    fn promise(&mut self) -> Promise {
        self.position += 1;
        Promise { position: Position(self.position), synced: true }
    }

    /// Settles; whether the last acknowledgement was about anything.
    fn settle_all(&mut self) -> bool {
        let acks = std::mem::take(&mut self.acks);
        let (mut settled, mut unknown) = (Vec::new(), Vec::new());
        self.egress.acknowledged(&acks, &mut settled, &mut unknown);
        for Settled { token, settlement, .. } in settled {
            let at = self.now.backlog.iter().position(|entry| entry.slot == token.slot && entry.out);
            let at = at.expect("what is settled is out");
            match settlement {
                Settlement::Advanced(progress) => self.now.backlog[at].progress = progress,
                Settlement::Accepted => drop(self.now.backlog.remove(at)),
                other => panic!("no client says {other:?}"),
            }
        }
        unknown.last() != Some(&acks.len().wrapping_sub(1))
    }

    fn dispatch(&mut self, out: &mut Chunks) {
        if !self.let_in {
            return;
        }
        let in_flight = self.now.backlog.iter().filter(|entry| entry.out).count();
        for _ in in_flight..CREDIT {
            let Some(entry) = self.now.backlog.iter_mut().find(|entry| !entry.out) else { return };
            let mut fields = FieldsWriter::new();
            fields.destination(Tag::Destination, &Destination::topic("t"));
            let exactly_once = entry.guarantee == Guarantee::ExactlyOnce;
            let facts = Facts { persistent: true, exactly_once, ..Facts::default() };
            let body = entry.number.to_string();
            let message = Message::new(facts, &[fields.as_slice()], Body::Borrowed(body.as_bytes()));
            let grant = Grant { guarantee: Guarantee::ExactlyOnce, ..Grant::default() };
            let delivery = Delivery {
                message: &message,
                subscription: SubscriptionKey(0),
                queue: None,
                token: Some(token(entry.slot)),
                attempt: 1,
                redelivered: entry.attempted,
                browsed: false,
                grant: Some(&grant),
                sequence: (entry.slot < ELSEWHERE).then_some(Sequence(entry.slot.into())),
                progress: entry.progress,
            };
            match self.egress.deliver(Timestamp(1), &delivery, None, out) {
                Admission::Sent => {}
                Admission::Noted { progress, kept } => {
                    assert_eq!(kept, entry.slot < ELSEWHERE);
                    entry.progress = progress;
                    // Kept before the client can know of it. A log that is synced later than this leaves a gap: ids that
                    // follow from the sequence close it for all but those few that are noted.
                    let slot = entry.slot;
                    if let Some(entry) = self.synced.backlog.iter_mut().find(|entry| entry.slot == slot) {
                        entry.progress = progress;
                    }
                }
                Admission::NoCredit => return,
                other => panic!("unexpected: {other:?}"),
            }
            entry.attempted = true;
            entry.out = true;
        }
    }
}

impl Host for Server {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        let number = std::str::from_utf8(publish.body.octets().expect("small"))
            .expect("a number")
            .parse()
            .expect("a number");
        let new = publish.once.is_none_or(|id| self.now.received.insert(id));
        if new {
            self.now.arrived.push((publish.once.is_some(), number));
        }
        Outcome::Accepted(Some(self.promise()))
    }

    fn settle(&mut self, ack: WireAck) {
        self.acks.push(ack);
    }

    fn settle_now(&mut self, ack: WireAck) -> Outcome {
        self.acks.push(ack);
        if self.settle_all() {
            return Outcome::Accepted(Some(self.promise()));
        }
        Outcome::Refused(Refusal::new(Code::UnknownDelivery, "unknown"))
    }

    fn ask(&mut self, command: Command<'_>) -> Outcome {
        self.settle_all();
        match command {
            Command::Open(_) if self.position > self.synced_position => {
                self.waits = true;
                Outcome::Later
            }
            Command::Open(_) => Outcome::Accepted(None),
            Command::Forget(id) if self.now.received.remove(&id) => Outcome::Accepted(Some(self.promise())),
            Command::Forget(_) => Outcome::Refused(Refusal::new(Code::UnknownDelivery, "unknown")),
            other => panic!("not asked for here: {other:?}"),
        }
    }

    fn temporary(&mut self, _kind: Kind, _label: &str) -> Result<Destination, Refusal> {
        panic!("not asked for here")
    }

    fn temporary_label(&self, _destination: &Destination) -> Option<&str> {
        None
    }

    fn receipt(&mut self, promise: Option<Promise>) -> ReceiptTime {
        let position = promise.map_or(0, |promise| promise.position.0);
        if self.receipts.is_empty() && position <= self.synced_position {
            return ReceiptTime::Now;
        }
        self.receipts.push_back(position);
        ReceiptTime::Later
    }

    fn note(&mut self, note: EgressNote<'_>) {
        self.let_in |= matches!(note, EgressNote::Dialect(_));
        self.egress.note(note);
    }

    fn session_name(&self) -> String {
        "s".to_owned()
    }
}

/// A message of the client's on its way.
#[derive(Clone, Debug)]
struct Sending {
    id: PacketId,
    qos: Qos,
    number: u32,
    /// PUBREC has come.
    released: bool,
}

#[derive(Debug, Default)]
struct Client {
    sending: Vec<Sending>,
    ids: client::PacketIds,
    /// QoS 2 that has come and awaits PUBREL.
    received: BTreeSet<u16>,
    got: Vec<(bool, u32)>,
}

impl Client {
    fn put(&self, sending: &Sending, dup: bool, version: Version, out: &mut Vec<u8>) {
        if sending.released {
            return put_ack(AckKind::Pubrel, sending.id, Reason::Success, version, out);
        }
        let payload = sending.number.to_string();
        let packet = PublishPacket {
            dup,
            qos: sending.qos,
            topic: "t",
            id: Some(sending.id),
            payload: payload.as_bytes(),
            ..PublishPacket::default()
        };
        packet.encode(version, out).expect("short");
    }

    fn take(&mut self, packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
        match packet {
            Packet::Connack(connack) => assert_eq!(connack.reason, Reason::Success),
            Packet::Publish(publish) => {
                let id = publish.id.expect("above QoS 0");
                let number = std::str::from_utf8(publish.payload).expect("text").parse().expect("a number");
                let exactly_once = publish.qos == Qos::ExactlyOnce;
                if !exactly_once || self.received.insert(id.get()) {
                    self.got.push((exactly_once, number));
                }
            }
            Packet::Ack(Ack { kind, id, reason, .. }) => match kind {
                AckKind::Puback => {
                    self.sending.retain(|sending| sending.id != *id || sending.qos != Qos::AtLeastOnce)
                }
                AckKind::Pubrec => {
                    assert_eq!(*reason, Reason::Success);
                    let found = self.sending.iter_mut().filter(|sending| sending.id == *id);
                    found.for_each(|sending| sending.released = true);
                }
                AckKind::Pubrel => drop(self.received.remove(&id.get())),
                AckKind::Pubcomp => self.sending.retain(|sending| sending.id != *id || !sending.released),
            },
            other => panic!("not sent here: {other:?}"),
        }
        client::answer(out, version, packet);
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message comes for the client.
    Arrives(Guarantee),
    /// One comes from elsewhere than the backlog.
    ArrivesElsewhere,
    /// The client sends one.
    Sends(Qos),
    /// The client reads so many packets.
    ClientReads(u8),
    /// The server reads so many bytes.
    ServerReads(u8),
    Syncs,
    /// The connection is lost, and made again.
    Cut,
    /// The broker loses what it has not synced, too.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let guarantee = prop_oneof![Just(Guarantee::AtLeastOnce), Just(Guarantee::ExactlyOnce)];
    let qos = prop_oneof![Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)];
    prop_oneof![
        3 => guarantee.prop_map(Step::Arrives),
        1 => Just(Step::ArrivesElsewhere),
        3 => qos.prop_map(Step::Sends),
        5 => (1..4_u8).prop_map(Step::ClientReads),
        5 => (1..40_u8).prop_map(Step::ServerReads),
        3 => Just(Step::Syncs),
        1 => Just(Step::Cut),
        1 => Just(Step::Crash),
    ]
}

struct World {
    version: Version,
    server: Server,
    session: MqttSession,
    client: Client,
    to_client: Chunks,
    to_server: Vec<u8>,
    /// What the server has read of a packet that is not whole.
    carry: Vec<u8>,
    numbers: u32,
    arrivals: Vec<(bool, u32)>,
    elsewhere: BTreeSet<u32>,
    sends: Vec<(bool, u32)>,
}

impl World {
    fn new(version: Version) -> Self {
        let (session, egress) = Self::halves();
        let server = Server {
            now: Store::default(),
            synced: Store::default(),
            position: 0,
            synced_position: 0,
            egress,
            let_in: false,
            waits: false,
            acks: Vec::new(),
            receipts: VecDeque::new(),
        };
        let mut world = Self {
            version,
            server,
            session,
            client: Client::default(),
            to_client: Chunks::new(),
            to_server: Vec::new(),
            carry: Vec::new(),
            numbers: 0,
            arrivals: Vec::new(),
            elsewhere: BTreeSet::new(),
            sends: Vec::new(),
        };
        world.connect();
        world
    }

    fn halves() -> (MqttSession, MqttEgress) {
        let limits = Limits { receive_max: RECEIVE_MAX, ..Limits::default() };
        sabir_mqtt::open(Arc::new(limits), Instant(0))
    }

    fn connect(&mut self) {
        (self.session, self.server.egress) = Self::halves();
        self.server.let_in = false;
        self.server.waits = false;
        self.server.acks.clear();
        self.server.receipts.clear();
        self.server.now.backlog.iter_mut().for_each(|entry| entry.out = false);
        self.to_client.clear();
        self.to_server.clear();
        self.carry.clear();
        let connect = Connect { version: self.version, client_id: "c", ..Connect::default() };
        client::connect(&mut self.to_server, &connect).expect("short");
        for sending in &self.client.sending {
            self.client.put(sending, true, self.version, &mut self.to_server);
        }
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn arrives(&mut self, guarantee: Guarantee, elsewhere: bool) {
        let number = self.number();
        let slot = if elsewhere {
            self.elsewhere.insert(number);
            ELSEWHERE + number
        } else {
            self.arrivals.push((guarantee == Guarantee::ExactlyOnce, number));
            u32::try_from(FIRST_SEQUENCE).expect("small") + u32::try_from(self.arrivals.len()).expect("few")
        };
        let entry = Entry { slot, number, guarantee, progress: 0, attempted: false, out: false };
        // Whoever sent it has been told that it is kept.
        self.server.synced.backlog.push_back(entry.clone());
        self.server.now.backlog.push_back(entry);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Arrives(guarantee) => self.arrives(guarantee, false),
            Step::ArrivesElsewhere => self.arrives(Guarantee::AtLeastOnce, true),
            Step::Sends(qos) => {
                if self.client.sending.len() >= usize::from(RECEIVE_MAX) {
                    return;
                }
                let sending =
                    Sending { id: self.client.ids.take(), qos, number: self.number(), released: false };
                self.sends.push((qos == Qos::ExactlyOnce, sending.number));
                self.client.put(&sending, false, self.version, &mut self.to_server);
                self.client.sending.push(sending);
            }
            Step::ClientReads(count) => self.client_reads(count.into()),
            Step::ServerReads(count) => self.server_reads(count.into()),
            Step::Syncs => self.sync(),
            Step::Cut => self.connect(),
            Step::Crash => {
                self.server.now = self.server.synced.clone();
                self.server.synced_position = self.server.position;
                self.connect();
            }
        }
    }

    fn client_reads(&mut self, count: usize) {
        let bytes = self.to_client.to_vec();
        let decoder = client::Decoder::new(self.version);
        let mut rest = bytes.as_slice();
        for _ in 0..count {
            let decoded = decoder.next(rest).expect("packets");
            let Some(packet) = decoded.packet else { break };
            self.client.take(&packet, self.version, &mut self.to_server);
            rest = &rest[decoded.consumed..];
        }
        let taken = bytes.len() - rest.len();
        self.to_client.consume(taken);
    }

    fn server_reads(&mut self, count: usize) {
        let count = count.min(self.to_server.len());
        self.carry.extend(self.to_server.drain(..count));
        self.read_on();
    }

    fn read_on(&mut self) {
        let bytes = std::mem::take(&mut self.carry);
        let mut input = Input::new(&bytes);
        let flow = self.session.receive(NOW, &mut input, &mut self.server, &mut self.to_client);
        assert!(matches!(flow, Ok(Flow::More | Flow::Parked)));
        self.carry = input.rest().to_vec();
        self.server.settle_all();
        self.server.dispatch(&mut self.to_client);
    }

    fn notify(&mut self, event: Event) {
        let flow = self.session.notify(NOW, event, &mut self.server, &mut self.to_client);
        assert_eq!(flow, Ok(Flow::More));
        self.read_on();
    }

    fn sync(&mut self) {
        self.server.synced = self.server.now.clone();
        self.server.synced.backlog.iter_mut().for_each(|entry| entry.out = false);
        self.server.synced_position = self.server.position;
        let count = self.server.receipts.drain(..).count();
        if count > 0 {
            self.notify(Event::Receipts(count));
        }
        if !self.server.let_in && self.server.waits {
            self.server.waits = false;
            self.notify(Event::Opened(Opened { resumed: true, data: Vec::new() }));
        }
    }

    /// Lets all that is under way come to its end.
    fn finish(&mut self) {
        for _ in 0..1000 {
            self.server_reads(usize::MAX);
            self.sync();
            self.client_reads(usize::MAX);
            let quiet = self.server.receipts.is_empty() && !self.server.waits;
            if quiet && self.to_server.is_empty() && self.to_client.is_empty() {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    fn check(&self) {
        assert!(self.server.now.backlog.is_empty() && self.server.now.received.is_empty());
        assert!(self.client.sending.is_empty() && self.client.received.is_empty());
        let (mine, others): (Vec<_>, Vec<_>) =
            self.client.got.iter().copied().partition(|(_, number)| !self.elsewhere.contains(number));
        check_arrived(&mine, &self.arrivals);
        let others: BTreeSet<u32> = others.into_iter().map(|(_, number)| number).collect();
        assert_eq!(others, self.elsewhere, "what came from elsewhere has arrived");
        check_arrived(&self.server.now.arrived, &self.sends);
    }
}

/// That all has arrived, in the order of its first arrival, and that of QoS 2 once.
fn check_arrived(arrived: &[(bool, u32)], sent: &[(bool, u32)]) {
    let mut seen = BTreeSet::new();
    let mut first = Vec::new();
    for &(exactly_once, number) in arrived {
        if seen.insert(number) {
            first.push((exactly_once, number));
        } else {
            assert!(!exactly_once, "{number} has arrived twice");
        }
    }
    assert_eq!(first, sent, "in order, and all of it");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_message_arrives_as_often_as_its_qos_says_mqtt_4_3_and_4_4(
        version in prop::sample::select(Version::ALL.to_vec()),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(version);
        for step in steps {
            world.take(step);
        }
        world.finish();
        world.check();
    }
}
