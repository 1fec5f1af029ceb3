//! One function for fuzzers and for the tests that run a corpus: it panics only on a bug.

use std::sync::Arc;

use sabir_model::chunks::Chunks;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::command::{Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::delivery::{Delivery, EncodeCache};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::{Event, Opened};
use sabir_model::ids::{DeliveryToken, MessageId, Position, QueueId, SubscriptionKey};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, BodyKind, Facts, FieldsWriter, Message, Tag};
use sabir_model::session::{Activity, Egress, EgressNote, Flow, Host, Input, Now, Session};
use serde::Deserialize;

use crate::egress::JsonEgress;
use crate::session::JsonSession;

/// Small limits, so that short inputs reach them.
fn limits() -> Limits {
    Limits {
        headers_max: 8,
        body_bytes_max: 200,
        body_bytes_before_login_max: 300,
        frame_bytes_max: 1000,
        subscriptions_max: 4,
        transactions_max: 2,
        receipts_pending_max: 3,
        ..Limits::default()
    }
}

/// What every answer has.
#[derive(Deserialize)]
struct Line<'l> {
    op: &'l str,
    code: Option<String>,
}

/// A host that answers as the input says and keeps to what hosts promise.
struct FakeHost<'a> {
    egress: JsonEgress,
    answers: &'a [u8],
    asked: usize,
    attached: Vec<SubscriptionKey>,
    acks: Vec<WireAck>,
    /// Acknowledgements that named nothing and have not been told so.
    unknown: Vec<WireAck>,
    greeted: bool,
    receipts_due: usize,
    temporaries: usize,
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
        Refusal::new(code, "no: \\ \"\n\u{1f980}")
    }

    fn outcome(&mut self) -> Outcome {
        match self.byte() % 16 {
            0 => Outcome::Refused(self.refusal()),
            2 => Outcome::Accepted(Some(Promise { position: Position(1), synced: true })),
            _ => Outcome::Accepted(None),
        }
    }

    /// Resolves what waits.
    fn resolve(&mut self) {
        let acks = std::mem::take(&mut self.acks);
        let mut unknown = Vec::new();
        self.egress.acknowledged(&acks, &mut Vec::new(), &mut unknown);
        self.unknown.extend(unknown.iter().filter_map(|index| acks.get(*index).cloned()));
    }
}

impl Host for FakeHost<'_> {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        assert!(!publish.targets.is_empty(), "a message goes somewhere");
        assert!(publish.facts.priority <= 9, "priorities have a bound");
        let fields = sabir_model::message::Fields::new(publish.fields);
        let message = Message::new(publish.facts, &[publish.fields], publish.body);
        assert_eq!(message.fields().count(), fields.count(), "fields survive being stored");
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
        self.resolve();
        let before = self.unknown.len();
        self.acks.push(ack);
        self.resolve();
        if self.unknown.len() > before {
            self.unknown.pop();
            return Outcome::Refused(Refusal::new(Code::UnknownDelivery, "unknown"));
        }
        self.outcome()
    }

    fn ask(&mut self, command: Command<'_>) -> Outcome {
        self.resolve();
        match command {
            Command::Open(_) if self.byte().is_multiple_of(4) => Outcome::Later,
            Command::Open(_) => Outcome::Accepted(None),
            Command::Subscribe(subscribe) => {
                assert!(!subscribe.patterns.is_empty(), "a subscription covers something");
                assert!(self.attached.contains(&subscribe.key), "the egress knows it first");
                self.outcome()
            }
            _ => self.outcome(),
        }
    }

    fn temporary(&mut self, kind: Kind, _label: &str) -> Result<Destination, Refusal> {
        if self.byte().is_multiple_of(16) {
            return Err(self.refusal());
        }
        self.temporaries += 1;
        Destination::from_dotted(kind, true, &format!("ID:c:{}", self.temporaries))
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
            EgressNote::Dialect(_) => self.greeted = true,
            EgressNote::Attach { key, .. } => self.attached.push(key),
            EgressNote::Detach(key) => self.attached.retain(|known| *known != key),
            _ => {}
        }
        self.egress.note(note);
    }

    fn session_name(&self) -> String {
        "s\"".to_owned()
    }
}

/// A conversation as the driver leads it.
struct Conversation<'a> {
    session: JsonSession,
    host: FakeHost<'a>,
    out: Chunks,
    rest: Vec<u8>,
    now_ms: u64,
    over: bool,
    tokens: u32,
    /// Everything that was written.
    written: Vec<u8>,
}

impl<'a> Conversation<'a> {
    fn new(answers: &'a [u8]) -> Self {
        let (session, egress) = crate::open(Arc::new(limits()), "Sabir/fuzz", Instant(0));
        let host = FakeHost {
            egress,
            answers,
            asked: 0,
            attached: Vec::new(),
            acks: Vec::new(),
            unknown: Vec::new(),
            greeted: false,
            receipts_due: 0,
            temporaries: 0,
        };
        Self {
            session,
            host,
            out: Chunks::new(),
            rest: Vec::new(),
            now_ms: 0,
            over: false,
            tokens: 0,
            written: Vec::new(),
        }
    }

    /// What was written, without refusals of acknowledgements that nobody waits for: they are said at the end of what was
    /// read together, unless the client has left by then.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.written);
        let late = |line: &str| line.starts_with("{\"op\":\"error\"") && line.contains(",\"deliveryId\":\"");
        text.lines().filter(|line| !late(line)).map(str::to_owned).collect()
    }

    fn now(&self) -> Now {
        Now { instant: Instant(self.now_ms * 1000), wall: Timestamp(1_700_000_000_000 + self.now_ms) }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while !self.over {
            let before = self.rest.len();
            let bytes = std::mem::take(&mut self.rest);
            let mut input = Input::new(&bytes);
            let flow = self.session.receive(self.now(), &mut input, &mut self.host, &mut self.out);
            assert!(input.consumed() <= bytes.len(), "only what is there is consumed");
            self.rest = input.rest().to_vec();
            let parked = matches!(flow, Ok(Flow::Parked));
            self.check(flow.map_err(|violation| violation.0));
            self.host.resolve();
            for ack in std::mem::take(&mut self.host.unknown) {
                let refusal = Refusal::new(Code::UnknownDelivery, "unknown");
                self.event(Event::SettleRefused { cookie: ack.cookie, refusal });
            }
            // A parked session waits for receipts or to be let in; it gets what it waits for.
            if self.over || !parked {
                return;
            }
            let event =
                if self.host.greeted { self.some_receipts() } else { Event::Opened(Opened::default()) };
            self.event(event);
            if self.rest.is_empty() && before == 0 {
                return;
            }
        }
    }

    fn some_receipts(&mut self) -> Event {
        let count = self.host.receipts_due.clamp(1, 2);
        self.host.receipts_due = self.host.receipts_due.saturating_sub(count);
        Event::Receipts(count)
    }

    fn event(&mut self, event: Event) {
        if self.over {
            return;
        }
        let flow = self.session.notify(self.now(), event, &mut self.host, &mut self.out);
        self.check(flow.map_err(|violation| violation.0));
    }

    /// What is written must be lines of JSON that say what they are, and nothing may be written after the end.
    fn check(&mut self, flow: Result<Flow, Refusal>) {
        let bytes = self.out.to_vec();
        self.out.clear();
        assert!(bytes.is_empty() || !self.over, "nothing is said after the end");
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "objects are whole lines");
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Line<'_>>(line) {
                Ok(Line { op, code }) => {
                    assert_eq!(op == "error" || (op == "closed" && code.is_some()), code.is_some());
                }
                Err(error) => panic!("wrote what is no answer: {error}: {}", line.escape_ascii()),
            }
        }
        match flow {
            Ok(Flow::Close) => self.over = true,
            Ok(_) => assert!(!self.over, "what is over stays over"),
            Err(_) => {
                assert!(!bytes.is_empty(), "a violation is told to the peer");
                self.over = true;
            }
        }
        self.written.extend(bytes);
    }

    fn deliver(&mut self, pick: u8, data: &[u8]) {
        let Some(&subscription) = self.host.attached.get(usize::from(pick) % self.host.attached.len().max(1))
        else {
            return;
        };
        let text = String::from_utf8_lossy(data);
        let mut fields = FieldsWriter::new();
        fields.destination(Tag::Destination, &Destination::topic("a.b"));
        fields.text_property(&text, &text);
        fields.field(Tag::CorrelationBytes, data);
        fields.field(Tag::SenderMessageId, text.as_bytes());
        fields.field(Tag::Type, text.as_bytes());
        self.tokens += 1;
        let token = DeliveryToken { boot: 1, queue: QueueId(1), slot: self.tokens, generation: 1 };
        let id = MessageId { origin: 1, number: u64::from(self.tokens) };
        let kind = if pick & 1 == 0 { BodyKind::Bytes } else { BodyKind::Map };
        let facts = Facts { id, body_kind: kind, ..Facts::default() };
        let message = Message::new(facts, &[fields.as_slice()], Body::Borrowed(data));
        let delivery = Delivery {
            message: &message,
            subscription,
            queue: None,
            token: (pick & 2 == 0).then_some(token),
            attempt: u32::from(pick >> 6),
            redelivered: pick & 4 == 0,
            browsed: false,
            grant: None,
            sequence: None,
            progress: 0,
        };
        let mut cache = EncodeCache::new();
        let cache = (pick & 8 == 0).then_some(&mut cache);
        self.host.egress.deliver(self.now().wall, &delivery, cache, &mut self.out);
        self.check(Ok(Flow::More));
    }
}

/// Leads a whole conversation: text is taken for the client's bytes, which are read whole and byte by byte with the same
/// answers; anything else is a list of steps.
///
/// # Panics
/// On a bug.
pub fn fuzz(data: &[u8]) {
    let plain = data.first().is_none_or(u8::is_ascii);
    if plain {
        let (mut whole, mut pieces) = (Conversation::new(&[]), Conversation::new(&[]));
        whole.read(data);
        for byte in data {
            pieces.read(std::slice::from_ref(byte));
        }
        assert_eq!(pieces.lines(), whole.lines(), "a split anywhere changes nothing");
        return;
    }
    let (answers, mut rest) = data.split_at(data.len().min(9));
    let mut talk = Conversation::new(answers);
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at(count.min(rest.len()));
        rest = after;
        taken
    };
    while let &[step, size] = take(2) {
        if talk.over {
            return;
        }
        let data = take(usize::from(size));
        match step % 8 {
            4 => talk.deliver(size, data),
            5 => {
                let event = talk.some_receipts();
                talk.event(event);
            }
            6 => {
                talk.now_ms += u64::from(size) * 100;
                let now = talk.now();
                let activity = Activity { read: Instant(0), written: Instant(0) };
                let flow = talk.session.timeout(now, activity, &mut talk.out);
                talk.check(flow.map_err(|violation| violation.0));
            }
            7 => {
                let key = SubscriptionKey(u32::from(size) % 8);
                let refusal = talk.host.refusal();
                talk.event(Event::SubscriptionEnded { key, refusal });
            }
            _ => talk.read(data),
        }
    }
}
