//! One function per target for fuzzers and for the tests that run a corpus: they panic only on a bug.

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

use crate::client;
use crate::decode::{Bounds, Decoder, Progress};
use crate::egress::{StompEgress, dialect};
use crate::frame::{Reading, Version};
use crate::session::StompSession;

/// Small limits, so that short inputs reach them.
fn limits() -> Limits {
    Limits {
        command_bytes_max: 16,
        header_line_bytes_max: 200,
        headers_max: 80,
        body_bytes_max: 300,
        body_bytes_before_login_max: 20,
        frame_bytes_max: 1000,
        subscriptions_max: 5,
        transactions_max: 2,
        receipts_pending_max: 3,
        ..Limits::default()
    }
}

/// Everything a frame says, owned.
type Told = (String, Vec<(String, String)>, Vec<u8>);

/// Decodes `bytes` as they would arrive in pieces of `step` bytes, up to the first error.
fn decode(bytes: &[u8], reading: Reading, step: usize) -> (Vec<Told>, Option<Code>) {
    let bounds = Bounds { blob_bytes_min: usize::MAX, ..Bounds::new(&limits()) };
    let mut decoder = Decoder::default();
    let (mut told, mut at, mut end) = (Vec::new(), 0, 0);
    loop {
        let mut rest = bytes.get(at..end).unwrap_or_default();
        let blanks = Decoder::blanks(rest);
        at += blanks;
        rest = rest.get(blanks..).unwrap_or_default();
        let progress =
            if rest.is_empty() { Ok(Progress::Partial { expect: 0 }) } else { decoder.poll(rest, &bounds) };
        match progress {
            Err(refusal) => return (told, Some(refusal.code)),
            Ok(Progress::Whole { total }) => {
                match decoder.frame(rest, reading) {
                    Err(refusal) => return (told, Some(refusal.code)),
                    Ok(frame) => {
                        let headers =
                            frame.headers().map(|h| (h.name().into_owned(), h.value().into_owned()));
                        told.push((frame.command().to_owned(), headers.collect(), frame.body().to_vec()));
                    }
                }
                assert!(total > 0 && total <= rest.len(), "a frame ends within what was given");
                at += total;
            }
            Ok(Progress::Large { .. }) => unreachable!("no body is that large"),
            Ok(Progress::Partial { expect }) => {
                assert!(expect == 0 || expect > rest.len(), "what is whole is not partial");
                if end == bytes.len() {
                    return (told, None);
                }
                end = bytes.len().min(end + step);
            }
        }
    }
}

/// Decodes `data` whole and in pieces, in every version: the pieces must not matter.
///
/// # Panics
/// On a bug.
pub fn fuzz_decoder(data: &[u8]) {
    let (&pick, bytes) = data.split_first().unwrap_or((&0, &[]));
    let step = usize::from(pick) % 31 + 1;
    for reading in Version::ALL.map(Reading::from).into_iter().chain([Reading::Plain]) {
        let whole = decode(bytes, reading, bytes.len().max(1));
        for step in [1, step] {
            let pieces = decode(bytes, reading, step);
            assert_eq!(pieces.0, whole.0, "in pieces of {step}");
            // A frame that is wrong in two ways may be refused for either.
            assert_eq!(pieces.1.is_some(), whole.1.is_some(), "in pieces of {step}");
        }
    }
}

/// A host that answers as the input says and keeps to what hosts promise.
struct FakeHost<'a> {
    egress: StompEgress,
    answers: &'a [u8],
    asked: usize,
    attached: Vec<SubscriptionKey>,
    acks: Vec<WireAck>,
    version: Version,
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
        Refusal::new(code, "no: \\ \n\u{1f980}")
    }

    fn outcome(&mut self) -> Outcome {
        match self.byte() % 16 {
            0 => Outcome::Refused(self.refusal()),
            2 => Outcome::Accepted(Some(Promise { position: Position(1), synced: true })),
            _ => Outcome::Accepted(None),
        }
    }
}

impl Host for FakeHost<'_> {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        assert!(!publish.targets.is_empty(), "a message goes somewhere");
        assert!(publish.facts.priority <= 9, "priorities are clamped");
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
        self.acks.push(ack);
        let acks = std::mem::take(&mut self.acks);
        self.egress.acknowledged(&acks, &mut Vec::new(), &mut Vec::new());
        self.outcome()
    }

    fn ask(&mut self, command: Command<'_>) -> Outcome {
        let acks = std::mem::take(&mut self.acks);
        self.egress.acknowledged(&acks, &mut Vec::new(), &mut Vec::new());
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
            EgressNote::Dialect(number) => {
                self.greeted = true;
                let version = Version::ALL.into_iter().find(|version| dialect(*version) == number);
                self.version = version.unwrap_or(self.version);
            }
            EgressNote::Attach { key, .. } => self.attached.push(key),
            EgressNote::Detach(key) => self.attached.retain(|known| *known != key),
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
    session: StompSession,
    host: FakeHost<'a>,
    out: Chunks,
    rest: Vec<u8>,
    now_ms: u64,
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
            self.late_refusals();
            // A parked session waits for receipts or to be let in; it gets what it waits for.
            if self.over || !parked {
                return;
            }
            let event =
                if self.host.greeted { self.some_receipts() } else { Event::Opened(Opened::default()) };
            self.event(event);
            if self.over || (self.rest.is_empty() && before == 0) {
                return;
            }
        }
    }

    fn late_refusals(&mut self) {
        let acks = std::mem::take(&mut self.host.acks);
        let mut unknown = Vec::new();
        self.host.egress.acknowledged(&acks, &mut Vec::new(), &mut unknown);
        for index in unknown {
            if let Some(ack) = acks.get(index) {
                let refusal = Refusal::new(Code::UnknownDelivery, "unknown");
                self.event(Event::SettleRefused { cookie: ack.cookie, refusal });
            }
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

    /// What is written must be readable, and nothing may be written after the end.
    fn check(&mut self, flow: Result<Flow, Refusal>) {
        let bytes = self.out.to_vec();
        self.out.clear();
        assert!(bytes.is_empty() || !self.over, "nothing is said after the end");
        let mut decoder = client::Decoder::new(self.host.version);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let decoded = match decoder.next(rest) {
                Ok(decoded) => decoded,
                Err(refusal) => panic!("wrote what is no frame: {refusal}: {}", bytes.escape_ascii()),
            };
            assert!(decoded.frame.is_some() || decoded.consumed == rest.len(), "frames are whole");
            rest = rest.get(decoded.consumed..).unwrap_or_default();
        }
        match flow {
            Ok(Flow::Close) => self.over = true,
            Ok(_) => assert!(!self.over, "what is over stays over"),
            Err(_) => {
                assert!(!bytes.is_empty(), "a violation is told to the peer");
                self.over = true;
            }
        }
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

/// Leads a whole conversation: text is taken for the client's bytes; anything else is a list of steps.
///
/// # Panics
/// On a bug.
pub fn fuzz_session(data: &[u8]) {
    let plain = data.first().is_none_or(u8::is_ascii);
    let (answers, mut rest) = if plain { (&[][..], data) } else { data.split_at(data.len().min(9)) };
    let (session, egress) = crate::open(Arc::new(limits()), "Sabir/fuzz", Instant(0));
    let host = FakeHost {
        egress,
        answers,
        asked: 0,
        attached: Vec::new(),
        acks: Vec::new(),
        version: Version::V10,
        greeted: false,
        receipts_due: 0,
        temporaries: 0,
    };
    let mut talk = Conversation {
        session,
        host,
        out: Chunks::new(),
        rest: Vec::new(),
        now_ms: 0,
        over: false,
        tokens: 0,
    };
    if plain {
        return talk.read(rest);
    }
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at(count.min(rest.len()));
        rest = after;
        taken
    };
    while let &[step, size] = take(2) {
        let data = take(usize::from(size));
        match step % 8 {
            0..=3 => talk.read(data),
            4 if !talk.over => talk.deliver(size, data),
            5 if !talk.over => {
                let event = talk.some_receipts();
                talk.event(event);
            }
            6 if !talk.over => {
                talk.now_ms += u64::from(size) * 100;
                let now = talk.now();
                let activity = Activity { read: Instant(0), written: Instant(0) };
                let flow = talk.session.timeout(now, activity, &mut talk.out);
                talk.check(flow.map_err(|violation| violation.0));
            }
            7 if !talk.over => {
                let key = SubscriptionKey(u32::from(size) % 8);
                let refusal = talk.host.refusal();
                talk.event(Event::SubscriptionEnded { key, refusal });
            }
            _ => {}
        }
    }
}
