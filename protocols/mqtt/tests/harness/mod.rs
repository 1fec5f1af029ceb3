//! A connection without a socket: session, egress, and a host that writes down what it is asked.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

pub mod words;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use sabir_model::chunks::Chunks;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::command::{
    Bind, Command, LASTS_FOREVER, Open, Outcome, Promise, Publish, ReceiptTime, Replay, WireAck,
};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal, Violation};
use sabir_model::event::Event;
use sabir_model::ids::{DeliveryToken, Position, QueueId};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, Facts, Field, Fields, Tag};
use sabir_model::session::{Activity, Egress, EgressNote, Flow, Host, Input, Now, Room, Session, Settled};
use sabir_model::settlement::Settlement;
use sabir_model::stored::Stored;
use sabir_mqtt::{MqttEgress, MqttSession};

/// Wall-clock time of every test, in milliseconds.
pub const WALL: u64 = 1_700_000_000_000;

/// What the host was asked and what it will answer.
pub struct RecordingHost {
    pub egress: MqttEgress,
    pub log: Vec<String>,
    pub answers: VecDeque<Outcome>,
    pub receipts_later: bool,
    acks: Vec<WireAck>,
    pub unknown: Vec<WireAck>,
    /// The body that is coming piece by piece, and whether it has come whole.
    pub coming: Option<(Vec<u8>, bool)>,
    /// Bytes of a body after which there is no room for a moment; 0 for never.
    pub room: usize,
}

impl RecordingHost {
    fn answer(&mut self) -> Outcome {
        self.answers.pop_front().unwrap_or(Outcome::Accepted(None))
    }

    /// What the driver does at the end of a batch, and before anything that waits for settlements.
    pub fn flush_acks(&mut self) {
        let acks = std::mem::take(&mut self.acks);
        let (mut settled, mut unknown) = (Vec::new(), Vec::new());
        self.egress.acknowledged(&acks, &mut settled, &mut unknown);
        for Settled { token, settlement, .. } in settled {
            let what = match settlement {
                Settlement::Advanced(progress) => format!("Advanced {progress:#x}"),
                other => format!("{other:?}"),
            };
            self.log.push(format!("settle {} {what}", token.slot));
        }
        self.unknown.extend(unknown.into_iter().map(|index| acks[index].clone()));
    }
}

/// A token that differs from others in its slot.
pub fn token(slot: u32) -> DeliveryToken {
    DeliveryToken { boot: 0xb007, queue: QueueId(7), slot, generation: 1 }
}

pub fn describe_fields(bytes: &[u8]) -> String {
    let mut text = String::new();
    for field in Fields::new(bytes) {
        match field {
            Field::Property(name, value) => {
                let _ = write!(text, " {name:?}={value:?}");
            }
            Field::Plain(tag @ (Tag::ReplyTo | Tag::Destination), value) => {
                let _ = write!(text, " {tag:?}={}", Destination::decode(value).expect("a destination"));
            }
            Field::Plain(tag, value) => {
                let _ = write!(text, " {tag:?}=\"{}\"", value.escape_ascii());
            }
        }
    }
    text
}

fn describe_message(
    targets: &[Destination],
    facts: &Facts,
    fields: &[u8],
    body: &[u8],
    once: Option<u16>,
) -> String {
    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let mut line = format!("{} {:?} {:?}", targets.join(" + "), facts.body_kind, facts.guarantee());
    if facts.retain {
        line.push_str(" retain");
    }
    if facts.priority != 4 {
        let _ = write!(line, " priority={}", facts.priority);
    }
    if facts.expires != Timestamp::NEVER {
        let _ = match facts.expires.0.checked_sub(WALL) {
            Some(later) => write!(line, " expires=+{later}"),
            None => write!(line, " expires={}", facts.expires.0),
        };
    }
    if let Some(once) = once {
        let _ = write!(line, " once={once}");
    }
    let _ = write!(line, "{} > {}", describe_fields(fields), body.escape_ascii());
    line
}

fn describe_open(open: &Open<'_>) -> String {
    let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
    let mut line = format!("open {} id={}", open.protocol, text(open.client_id));
    if let Some(login) = open.login {
        let _ = write!(line, " login={login}");
    }
    if let Some(passcode) = open.passcode {
        let _ = write!(line, " passcode={}", passcode.escape_ascii());
    }
    if let Some((mechanism, data)) = open.mechanism {
        let _ = write!(line, " mechanism={mechanism} data={}", data.escape_ascii());
    }
    let terms = open.session.expect("MQTT always asks for a session");
    if terms.clean_start {
        line.push_str(" clean");
    }
    match terms.lasts_ms {
        LASTS_FOREVER => line.push_str(" lasts=forever"),
        lasts_ms => {
            let _ = write!(line, " lasts={lasts_ms}");
        }
    }
    let _ = write!(line, " credit={}", terms.credit);
    if let Some(will) = terms.will {
        let message = describe_message(will.targets, &will.facts, will.fields, will.body, None);
        let _ = write!(line, " will delay={} {message}", will.delay_ms);
    }
    line
}

fn describe_bind(bind: &Bind<'_>) -> String {
    let mut line = format!("bind {} {:?}", bind.pattern, bind.guarantee);
    if let Some(group) = bind.group {
        let _ = write!(line, " group={group:?}");
    }
    if bind.identifier != 0 {
        let _ = write!(line, " identifier={}", bind.identifier);
    }
    for (what, is) in [("no-local", bind.no_local), ("keep-retain", bind.keep_retain)] {
        if is {
            let _ = write!(line, " {what}");
        }
    }
    if bind.replay != Replay::Always {
        let _ = write!(line, " replay={:?}", bind.replay);
    }
    line
}

impl Host for RecordingHost {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        assert_eq!(publish.transaction, None);
        let Publish { targets, facts, fields, body, once, .. } = publish;
        let (octets, stored) = match &body {
            Body::Stored(stored) => {
                (stored.read_whole(usize::MAX).expect("it is readable").to_vec(), " stored")
            }
            body => (body.octets().expect("it is in memory").to_vec(), ""),
        };
        let message = describe_message(targets, &facts, fields, &octets, once);
        self.log.push(format!("publish{stored} {message}"));
        self.answer()
    }

    fn begin_body(&mut self, publish: &Publish<'_>, length: Option<u64>) -> Result<(), Refusal> {
        let targets: Vec<String> = publish.targets.iter().map(ToString::to_string).collect();
        self.log.push(format!("begin body of {length:?} for {}", targets.join(" + ")));
        assert_eq!(publish.body.length(), 0);
        self.coming = Some((Vec::new(), false));
        match self.answers.front() {
            Some(Outcome::Refused(refusal)) => {
                let refusal = refusal.clone();
                self.answers.pop_front();
                self.coming = None;
                Err(refusal)
            }
            _ => Ok(()),
        }
    }

    fn put_body(&mut self, piece: &[u8]) -> Room {
        let (bytes, over) = self.coming.as_mut().expect("a body was begun");
        assert!(!*over && !piece.is_empty());
        let before = bytes.len();
        bytes.extend_from_slice(piece);
        let full = self.room > 0 && before / self.room < bytes.len() / self.room;
        if full { Room::None } else { Room::Some }
    }

    fn end_body(&mut self) {
        self.coming.as_mut().expect("a body was begun").1 = true;
    }

    fn drop_body(&mut self) {
        self.coming = None;
    }

    fn settle(&mut self, ack: WireAck) {
        self.acks.push(ack);
    }

    fn settle_now(&mut self, ack: WireAck) -> Outcome {
        self.flush_acks();
        self.acks.push(ack);
        let before = self.unknown.len();
        self.flush_acks();
        if self.unknown.len() > before {
            self.unknown.pop();
            return Outcome::Refused(Refusal::new(Code::UnknownDelivery, "no such delivery"));
        }
        self.answer()
    }

    fn ask(&mut self, command: Command<'_>) -> Outcome {
        self.flush_acks();
        let line = match command {
            Command::Open(open) => describe_open(&open),
            Command::Respond(data) => format!("respond {}", data.escape_ascii()),
            Command::Bind(bind) => describe_bind(&bind),
            Command::Unbind { pattern, group } => {
                let group = group.map(|group| format!(" group={group:?}")).unwrap_or_default();
                format!("unbind {pattern}{group}")
            }
            Command::Forget(id) => format!("forget {id}"),
            Command::SetLifetime(LASTS_FOREVER) => "lasts forever".to_owned(),
            Command::SetLifetime(lasts_ms) => format!("lasts {lasts_ms}"),
            Command::ClearWill => "clear will".to_owned(),
            other => panic!("MQTT has no use for {other:?}"),
        };
        self.log.push(line);
        self.answer()
    }

    fn temporary(&mut self, _kind: Kind, _label: &str) -> Result<Destination, Refusal> {
        panic!("MQTT makes no temporary destinations")
    }

    fn temporary_label(&self, _destination: &Destination) -> Option<&str> {
        None
    }

    fn receipt(&mut self, promise: Option<Promise>) -> ReceiptTime {
        if let Some(Promise { position, .. }) = promise {
            self.log.push(format!("receipt at {}", position.0));
        }
        if self.receipts_later { ReceiptTime::Later } else { ReceiptTime::Now }
    }

    fn note(&mut self, note: EgressNote<'_>) {
        self.egress.note(note);
    }

    fn session_name(&self) -> String {
        "ID:1-1".to_owned()
    }
}

/// A promise for position `position`.
pub fn promise(position: u64) -> Promise {
    Promise { position: Position(position), synced: true }
}

/// One connection.
pub struct Connection {
    pub session: MqttSession,
    pub host: RecordingHost,
    pub out: Chunks,
    pub now_ms: u64,
    pub activity: Activity,
    pub rest: Vec<u8>,
    pub expected: usize,
    pub flow: Result<Flow, Violation>,
}

impl Connection {
    pub fn new(limits: Limits) -> Self {
        let (session, egress) = sabir_mqtt::open(Arc::new(limits), Instant(0));
        let host = RecordingHost {
            egress,
            log: Vec::new(),
            answers: VecDeque::new(),
            receipts_later: false,
            acks: Vec::new(),
            unknown: Vec::new(),
            coming: None,
            room: 0,
        };
        let activity = Activity { read: Instant(0), written: Instant(0) };
        Self {
            session,
            host,
            out: Chunks::new(),
            now_ms: 0,
            activity,
            rest: Vec::new(),
            expected: 0,
            flow: Ok(Flow::More),
        }
    }

    pub fn now(&self) -> Now {
        Now { instant: Instant(self.now_ms * 1000), wall: Timestamp(WALL + self.now_ms) }
    }

    /// Bytes arrive.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        self.activity.read = self.now().instant;
        self.read();
    }

    /// Lets the session read what is there.
    pub fn read(&mut self) {
        let now = self.now();
        let bytes = std::mem::take(&mut self.rest);
        let mut input = Input::new(&bytes);
        self.flow = self.session.receive(now, &mut input, &mut self.host, &mut self.out);
        self.expected = input.expected();
        self.rest = input.rest().to_vec();
        self.after_batch();
    }

    fn after_batch(&mut self) {
        self.host.flush_acks();
        for ack in std::mem::take(&mut self.host.unknown) {
            let refusal = Refusal::new(Code::UnknownDelivery, "no such delivery");
            let flow = self.flow.clone();
            self.event(Event::SettleRefused { cookie: ack.cookie, refusal });
            self.flow = flow;
        }
    }

    pub fn event(&mut self, event: Event) {
        let now = self.now();
        let parked = matches!(self.flow, Ok(Flow::Parked));
        self.flow = self.session.notify(now, event, &mut self.host, &mut self.out);
        if parked && self.flow == Ok(Flow::More) {
            self.read();
        }
    }

    /// What the broker does with a body: makes room, and says where it lies once it is whole.
    pub fn store(&mut self) {
        while self.flow == Ok(Flow::Parked) {
            match self.host.coming.take_if(|(_, over)| *over) {
                Some((bytes, _)) => {
                    self.event(Event::BodyStored(Ok(Stored::new(Arc::new(bytes)))));
                }
                None if self.host.coming.is_some() => self.event(Event::BodyRoom),
                None => return,
            }
        }
    }

    pub fn timeout(&mut self) {
        let now = self.now();
        self.flow = self.session.timeout(now, self.activity, &mut self.out);
    }

    /// What has been written since the last call.
    pub fn written(&mut self) -> Vec<u8> {
        let bytes = self.out.to_vec();
        self.out.clear();
        if !bytes.is_empty() {
            self.activity.written = self.now().instant;
        }
        bytes
    }

    /// What the host was asked since the last call.
    pub fn asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.host.log)
    }
}

/// The code called `text`.
pub fn code(text: &str) -> Code {
    *Code::ALL.iter().find(|code| code.as_str() == text).unwrap_or_else(|| panic!("no code {text}"))
}
