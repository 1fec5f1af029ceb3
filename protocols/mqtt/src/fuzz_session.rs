//! The fuzz target that leads whole conversations. It panics only on a bug.

use std::collections::HashMap;
use std::sync::Arc;

use sabir_model::chunks::Chunks;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::command::{Bind, Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::delivery::{Admission, Delivery, EncodeCache, Grant, Guarantee};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::{Event, Opened};
use sabir_model::ids::{DeliveryToken, MessageId, Position, QueueId, Sequence, SubscriptionKey};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, BodyKind, Facts, Fields, FieldsWriter, Message, Tag};
use sabir_model::session::{Activity, Egress, EgressNote, Flow, Host, Input, Now, Session, Settled};
use sabir_model::settlement::Settlement;

use crate::client::Decoder;
use crate::egress::{MqttEgress, dialect};
use crate::packet::{Packet, Qos};
use crate::reason::Reason;
use crate::session::MqttSession;
use crate::version::Version;

/// Small limits, so that short inputs reach them.
fn limits() -> Limits {
    Limits {
        body_bytes_max: 60,
        body_bytes_before_login_max: 100,
        frame_bytes_max: 200,
        receipts_pending_max: 3,
        client_id_bytes_max: 20,
        topic_levels_max: 5,
        session_credit_max: 10,
        receive_max: 3,
        topic_aliases_max: 2,
        session_lasts_ms_max: 1_000_000,
        ..Limits::default()
    }
}

/// A host that answers as the input says and keeps to what hosts promise.
struct FakeHost<'a> {
    egress: MqttEgress,
    answers: &'a [u8],
    asked: usize,
    acks: Vec<WireAck>,
    version: Option<Version>,
    introduced: bool,
    let_in: bool,
    packet_bytes_max: usize,
    receipts_due: usize,
    /// Deliveries that are out: by slot, the packet id and the progress.
    out: HashMap<u32, (u16, u32)>,
}

impl FakeHost<'_> {
    fn byte(&mut self) -> u8 {
        let byte = self.answers.get(self.asked).copied().unwrap_or(1);
        // Answers repeat, so that a long conversation is not all of one kind.
        self.asked = if self.asked + 1 < self.answers.len() { self.asked + 1 } else { 0 };
        byte
    }

    fn refusal(&mut self) -> Refusal {
        let pick = usize::from(self.byte());
        let code = Code::ALL.get(pick % Code::ALL.len()).copied().unwrap_or(Code::Internal);
        Refusal::new(code, "no: \0 \u{1f980}")
    }

    fn outcome(&mut self) -> Outcome {
        match self.byte() % 16 {
            0 => Outcome::Refused(self.refusal()),
            2 => Outcome::Accepted(Some(Promise { position: Position(1), synced: true })),
            _ => Outcome::Accepted(None),
        }
    }

    fn settle_all(&mut self) -> usize {
        let acks = std::mem::take(&mut self.acks);
        let (mut settled, mut unknown) = (Vec::new(), Vec::new());
        self.egress.acknowledged(&acks, &mut settled, &mut unknown);
        assert_eq!(settled.len() + unknown.len(), acks.len(), "each is known or not");
        for Settled { token, settlement, .. } in settled {
            match settlement {
                Settlement::Advanced(progress) => {
                    let known = self.out.get_mut(&token.slot).map(|(id, noted)| {
                        *noted = progress;
                        u32::from(*id)
                    });
                    assert_eq!(known, Some(progress & 0xffff), "the id stays");
                }
                _ => assert!(self.out.remove(&token.slot).is_some(), "settled once"),
            }
        }
        unknown.len()
    }

    fn check_bind(&self, bind: &Bind<'_>) {
        let shares = bind.group.is_some() || bind.pattern.kind() == Kind::Queue;
        assert!(!shares || bind.guarantee < Guarantee::ExactlyOnce, "who shares takes turns");
        assert!(bind.pattern.kind() == Kind::Topic || bind.pattern.as_literal().is_some(), "one queue");
        assert!(bind.pattern.levels().count() <= limits().topic_levels_max, "no more levels than allowed");
        assert!(self.version == Some(Version::V5) || bind.identifier == 0);
    }
}

impl Host for FakeHost<'_> {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        assert!(self.let_in, "nobody sends before being let in");
        assert_eq!(publish.targets.len(), 1, "a message goes to one place");
        assert!(publish.facts.priority <= 9);
        assert_eq!(publish.once.is_some(), publish.facts.exactly_once);
        let fields = Fields::new(publish.fields);
        let message = Message::new(publish.facts, &[publish.fields], publish.body);
        assert_eq!(message.fields().count(), fields.count(), "fields survive being stored");
        assert!(message.body().length() <= limits().body_bytes_max as u64);
        if publish.facts.body_kind == BodyKind::Text {
            assert!(
                message.body().octets().is_none_or(|body| std::str::from_utf8(body).is_ok()),
                "text is text"
            );
        }
        self.outcome()
    }

    fn settle(&mut self, ack: WireAck) {
        self.acks.push(ack);
    }

    fn settle_now(&mut self, ack: WireAck) -> Outcome {
        self.settle_all();
        self.acks.push(ack);
        if self.settle_all() > 0 {
            return Outcome::Refused(Refusal::new(Code::UnknownDelivery, "unknown"));
        }
        self.outcome()
    }

    fn ask(&mut self, command: Command<'_>) -> Outcome {
        self.settle_all();
        match command {
            Command::Open(open) => {
                assert!(!self.introduced, "one introduction");
                assert!(open.client_id.is_some_and(|id| !id.is_empty()) && open.session.is_some());
                self.introduced = true;
                match self.byte() % 8 {
                    0 => Outcome::Refused(self.refusal()),
                    1..4 => Outcome::Accepted(None),
                    _ => Outcome::Later,
                }
            }
            Command::Respond(_) => Outcome::Later,
            Command::Bind(bind) => {
                assert!(self.let_in);
                self.check_bind(&bind);
                self.outcome()
            }
            _ => {
                assert!(self.let_in);
                self.outcome()
            }
        }
    }

    fn temporary(&mut self, _kind: Kind, _label: &str) -> Result<Destination, Refusal> {
        Err(self.refusal())
    }

    fn temporary_label(&self, _destination: &Destination) -> Option<&str> {
        None
    }

    fn receipt(&mut self, _promise: Option<Promise>) -> ReceiptTime {
        if self.receipts_due > 0 || self.byte().is_multiple_of(2) {
            self.receipts_due += 1;
            return ReceiptTime::Later;
        }
        ReceiptTime::Now
    }

    fn note(&mut self, note: EgressNote<'_>) {
        match note {
            EgressNote::Dialect(number) => {
                self.version = Version::ALL.into_iter().find(|version| dialect(*version) == number);
                assert!(self.version.is_some());
                self.let_in = true;
            }
            EgressNote::Receiver { frame_bytes_max, .. } => {
                self.packet_bytes_max = usize::try_from(frame_bytes_max).unwrap_or(usize::MAX);
            }
            _ => {}
        }
        self.egress.note(note);
    }

    fn session_name(&self) -> String {
        "s".to_owned()
    }
}

/// A conversation as the driver leads it.
struct Conversation<'a> {
    session: MqttSession,
    host: FakeHost<'a>,
    out: Chunks,
    rest: Vec<u8>,
    now_ms: u64,
    /// CONNACK has been written.
    answered: bool,
    over: bool,
    tokens: u32,
}

impl Conversation<'_> {
    fn now(&self) -> Now {
        Now { instant: Instant(self.now_ms * 1000), wall: Timestamp(1_700_000_000_000 + self.now_ms) }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        loop {
            let before = self.rest.len();
            let bytes = std::mem::take(&mut self.rest);
            let mut input = Input::new(&bytes);
            let flow = self.session.receive(self.now(), &mut input, &mut self.host, &mut self.out);
            assert!(input.consumed() <= bytes.len(), "only what is there is consumed");
            self.rest = input.rest().to_vec();
            let parked = matches!(flow, Ok(Flow::Parked));
            self.check(flow.map_err(|violation| violation.0));
            if self.over {
                return;
            }
            self.late_refusals();
            // A parked session waits for receipts or to be let in; it gets what it waits for.
            if self.over || !parked {
                return;
            }
            let event = if self.host.let_in { self.some_receipts() } else { self.verdict() };
            self.event(event);
            if self.over || (self.rest.is_empty() && before == 0) {
                return;
            }
        }
    }

    fn verdict(&mut self) -> Event {
        match self.host.byte() % 8 {
            0 => Event::OpenRefused(self.host.refusal()),
            1 | 2 => Event::Challenge(vec![self.host.byte()]),
            pick => Event::Opened(Opened { resumed: pick & 1 == 0, data: vec![pick] }),
        }
    }

    fn late_refusals(&mut self) {
        for _ in 0..self.host.settle_all() {
            let refusal = Refusal::new(Code::UnknownDelivery, "unknown");
            self.event(Event::SettleRefused { cookie: 0, refusal });
        }
    }

    fn some_receipts(&mut self) -> Event {
        let count = self.host.receipts_due.clamp(1, 2);
        self.host.receipts_due = self.host.receipts_due.saturating_sub(count);
        Event::Receipts(count)
    }

    fn event(&mut self, event: Event) {
        let flow = self.session.notify(self.now(), event, &mut self.host, &mut self.out);
        self.check(flow.map_err(|violation| violation.0));
    }

    /// What is written must be readable and in its place, and nothing may be written after the end.
    fn check(&mut self, flow: Result<Flow, Refusal>) {
        let bytes = self.out.to_vec();
        self.out.clear();
        assert!(bytes.is_empty() || !self.over, "nothing is said after the end");
        // A refusal comes before the version is told; only that of version 5 has more than two bytes.
        let guess = if bytes.starts_with(&[0x20, 2]) { Version::V311 } else { Version::V5 };
        let version = self.host.version.unwrap_or(guess);
        let mut rest = bytes.as_slice();
        let mut last = false;
        while !rest.is_empty() {
            let decoded = match Decoder::new(version).next(rest) {
                Ok(decoded) => decoded,
                Err(error) => panic!("wrote what is no packet: {error}: {rest:02x?}"),
            };
            let Some(packet) = decoded.packet else { panic!("packets are whole: {rest:02x?}") };
            assert!(!last, "nothing follows the last packet");
            match packet {
                Packet::Connack(connack) => {
                    assert!(!self.answered, "CONNACK comes once");
                    self.answered = true;
                    last = connack.reason != Reason::Success;
                    assert_eq!(last, !self.host.let_in);
                }
                Packet::Auth(_) => assert!(!self.answered && version == Version::V5),
                Packet::Disconnect(_) => {
                    assert!(self.answered && version == Version::V5);
                    last = true;
                }
                _ => assert!(self.answered, "CONNACK comes first"),
            }
            rest = rest.get(decoded.consumed..).unwrap_or_default();
        }
        match flow {
            Ok(Flow::Close) => self.over = true,
            Ok(_) => assert!(!self.over && !last, "what is over stays over"),
            Err(_) => {
                assert!(last || !self.answered || version != Version::V5, "a violation is told in version 5");
                self.over = true;
            }
        }
    }

    fn deliver(&mut self, pick: u8, data: &[u8]) {
        if !self.host.let_in {
            return;
        }
        let text = String::from_utf8_lossy(data);
        let mut fields = FieldsWriter::new();
        let name = if pick & 16 == 0 { "a.b" } else { "a.long/topic" };
        fields.destination(Tag::Destination, &Destination::topic(name));
        fields.text_property(&text, &text);
        fields.field(Tag::CorrelationBytes, data);
        fields.field(Tag::ReplyToText, text.as_bytes());
        fields.field(Tag::Type, text.as_bytes());
        self.tokens += 1;
        let token = DeliveryToken { boot: 1, queue: QueueId(1), slot: self.tokens, generation: 1 };
        let facts = Facts {
            id: MessageId { origin: 1, number: u64::from(self.tokens) },
            body_kind: if pick & 1 == 0 { BodyKind::Bytes } else { BodyKind::Map },
            persistent: true,
            exactly_once: pick & 2 == 0,
            ..Facts::default()
        };
        let message = Message::new(facts, &[fields.as_slice()], Body::Borrowed(data));
        let grant = Grant {
            guarantee: if pick & 4 == 0 { Guarantee::ExactlyOnce } else { Guarantee::AtMostOnce },
            identifiers: (0..u32::from(pick >> 6)).map(|number| number * 1000 + 1).collect(),
            ..Grant::default()
        };
        let first = data.first().copied().unwrap_or(0);
        let delivery = Delivery {
            message: &message,
            subscription: SubscriptionKey(0),
            queue: None,
            token: (pick & 8 == 0).then_some(token),
            attempt: 1,
            redelivered: pick & 32 == 0,
            browsed: false,
            grant: Some(&grant),
            sequence: (first & 1 == 0).then_some(Sequence(u64::from(first))),
            // Progress is what an acknowledgement has made, and so of a delivery that waits for more.
            progress: if first & 2 == 0 || pick & 8 != 0 { 0 } else { 0x1_0000 | u32::from(first) },
        };
        let mut cache = EncodeCache::new();
        let cache = (pick & 16 == 0).then_some(&mut cache);
        let admission = self.host.egress.deliver(self.now().wall, &delivery, cache, &mut self.out);
        let bytes = self.out.to_vec();
        assert!(bytes.len() <= self.host.packet_bytes_max.max(4), "no more than the client takes");
        let version = self.host.version.unwrap_or_default();
        let decoded = Decoder::new(version).next(&bytes).map(|decoded| decoded.packet);
        let id = match decoded {
            Ok(Some(Packet::Publish(publish))) => {
                assert!(publish.id.is_none() || publish.qos > Qos::AtMostOnce);
                publish.id
            }
            Ok(Some(Packet::Ack(ack))) => Some(ack.id),
            Ok(None) => {
                assert!(matches!(admission, Admission::NoCredit | Admission::Undeliverable(_)));
                None
            }
            other => panic!("deliveries are PUBLISH or PUBREL: {other:?}"),
        };
        if let (Some(id), Some(token)) = (id, delivery.token) {
            assert!(self.host.out.values().all(|(known, _)| *known != id.get()), "an id is given once");
            self.host.out.insert(token.slot, (id.get(), 0));
        }
        self.check(Ok(Flow::More));
    }
}

/// Leads a whole conversation. The first nine bytes are the host's answers; then each step is its kind, a length, and
/// data of that length: bytes of the client, a delivery, or an event.
///
/// # Panics
/// On a bug.
pub fn fuzz_session(data: &[u8]) {
    let (answers, mut rest) = data.split_at(data.len().min(9));
    let (session, egress) = crate::open(Arc::new(limits()), Instant(0));
    let host = FakeHost {
        egress,
        answers,
        asked: 0,
        acks: Vec::new(),
        version: None,
        introduced: false,
        let_in: false,
        packet_bytes_max: usize::MAX,
        receipts_due: 0,
        out: HashMap::new(),
    };
    let mut talk = Conversation {
        session,
        host,
        out: Chunks::new(),
        rest: Vec::new(),
        now_ms: 0,
        answered: false,
        over: false,
        tokens: 0,
    };
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at(count.min(rest.len()));
        rest = after;
        taken
    };
    while let &[step, size] = take(2) {
        let data = take(usize::from(size));
        match step % 8 {
            0..=3 => talk.read(data),
            4 if !talk.over => talk.deliver(step ^ size, data),
            5 if !talk.over => {
                let event = talk.some_receipts();
                talk.event(event);
            }
            6 if !talk.over => {
                talk.now_ms += u64::from(size) * 100;
                let activity = Activity { read: Instant(0), written: Instant(0) };
                let flow = talk.session.timeout(talk.now(), activity, &mut talk.out);
                talk.check(flow.map_err(|violation| violation.0));
            }
            7 if !talk.over => {
                let refusal = talk.host.refusal();
                talk.event(match size % 4 {
                    0 => Event::Closing(refusal),
                    _ => Event::SubscriptionEnded { key: SubscriptionKey(0), refusal },
                });
            }
            _ => {}
        }
        if talk.over {
            talk.read(b"\xc0\0");
        }
    }
}
