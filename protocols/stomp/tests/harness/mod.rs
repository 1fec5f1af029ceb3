//! A connection without a socket: session, egress, and a host that writes down what it is asked.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use sabir_model::chunks::Chunks;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::command::{AckName, Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal, Violation};
use sabir_model::event::Event;
use sabir_model::ids::{DeliveryToken, Position};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, Facts, Field, Fields, Tag};
use sabir_model::session::{Activity, Egress, EgressNote, Flow, Host, Input, Now, Room, Session, Settled};
use sabir_model::stored::Stored;
use sabir_stomp::{StompEgress, StompSession};

/// Wall-clock time of every test, in milliseconds.
pub const WALL: u64 = 1_700_000_000_000;

/// What the host was asked and what it will answer.
pub struct RecordingHost {
    pub egress: StompEgress,
    pub log: Vec<String>,
    pub answers: VecDeque<Outcome>,
    pub receipts_later: bool,
    temporaries: Vec<(Destination, String)>,
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
        for Settled { token, settlement, ack } in settled {
            let transaction =
                acks[ack].transaction.map(|key| format!(" in transaction {}", key.0)).unwrap_or_default();
            self.log.push(format!("settle {} {settlement:?}{transaction}", token.slot));
        }
        self.unknown.extend(unknown.into_iter().map(|index| acks[index].clone()));
    }
}

/// A token that differs from others in its slot.
pub fn token(slot: u32) -> DeliveryToken {
    DeliveryToken { boot: 0xb007, queue: sabir_model::ids::QueueId(7), slot, generation: 1 }
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

impl Host for RecordingHost {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        let targets: Vec<String> = publish.targets.iter().map(ToString::to_string).collect();
        let Facts { timestamp, expires, priority, persistent, retain, body_kind, .. } = publish.facts;
        let mut line = format!("publish {} {body_kind:?}", targets.join(" + "));
        if persistent {
            line.push_str(" persistent");
        }
        if retain {
            line.push_str(" retain");
        }
        if priority != 4 {
            let _ = write!(line, " priority={priority}");
        }
        if expires != Timestamp::NEVER {
            let _ = write!(line, " expires={}", expires.0);
        }
        if timestamp.0 != 0 {
            let _ = write!(line, " timestamp={}", timestamp.0);
        }
        if let Some(key) = publish.transaction {
            let _ = write!(line, " in transaction {}", key.0);
        }
        let body = match &publish.body {
            Body::Stored(stored) => {
                line.push_str(" stored");
                stored.read_whole(usize::MAX).expect("it is readable").to_vec()
            }
            body => body.octets().expect("it is in memory").to_vec(),
        };
        let _ = write!(line, "{} > {}", describe_fields(publish.fields), body.escape_ascii());
        self.log.push(line);
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
            Command::Respond(_)
            | Command::Bind(_)
            | Command::Unbind { .. }
            | Command::Forget(_)
            | Command::Credit { .. }
            | Command::SetLifetime(_)
            | Command::ClearWill => panic!("STOMP asks for no such thing: {command:?}"),
            Command::Open(open) => {
                let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
                format!(
                    "open {} client-id={} login={} passcode={} host={}",
                    open.protocol,
                    text(open.client_id),
                    text(open.login),
                    open.passcode.map_or_else(|| "-".to_owned(), |bytes| bytes.escape_ascii().to_string()),
                    text(open.virtual_host)
                )
            }
            Command::Subscribe(subscribe) => {
                let patterns: Vec<String> = subscribe.patterns.iter().map(ToString::to_string).collect();
                let mut line = format!(
                    "subscribe {} {} {:?} credit={}",
                    subscribe.key.0,
                    patterns.join(" + "),
                    subscribe.settle,
                    subscribe.credit.map_or_else(|| "-".to_owned(), |credit| credit.to_string())
                );
                for (what, value) in [("selector", subscribe.selector), ("durable", subscribe.durable)] {
                    if let Some(value) = value {
                        let _ = write!(line, " {what}={value:?}");
                    }
                }
                for (what, is) in [
                    ("browse", subscribe.browse),
                    ("no-local", subscribe.no_local),
                    ("must-exist", subscribe.must_exist),
                ] {
                    if is {
                        let _ = write!(line, " {what}");
                    }
                }
                if subscribe.priority != 0 {
                    let _ = write!(line, " priority={}", subscribe.priority);
                }
                assert!(subscribe.selector_converts_text);
                line
            }
            Command::Unsubscribe { key, forget_durable } => {
                format!("unsubscribe {}{}", key.0, if forget_durable { " and forget" } else { "" })
            }
            Command::ForgetDurable { name, client_id } => {
                format!("forget {name:?}{}", client_id.map(|id| format!(" of {id:?}")).unwrap_or_default())
            }
            Command::Begin(key) => format!("begin {}", key.0),
            Command::Commit(key) => format!("commit {}", key.0),
            Command::Abort(key) => format!("abort {}", key.0),
            Command::Close => "close".to_owned(),
        };
        self.log.push(line);
        self.answer()
    }

    fn temporary(&mut self, kind: Kind, label: &str) -> Result<Destination, Refusal> {
        let known = self.temporaries.iter().find(|(made, own)| made.kind() == kind && own == label);
        if let Some((destination, _)) = known {
            return Ok(destination.clone());
        }
        let name = format!("ID:c1:{}", self.temporaries.len() + 1);
        let destination = Destination::from_dotted(kind, true, &name)?;
        self.temporaries.push((destination.clone(), label.to_owned()));
        self.log.push(format!("temporary {destination} for {label:?}"));
        Ok(destination)
    }

    fn temporary_label(&self, destination: &Destination) -> Option<&str> {
        self.temporaries.iter().find(|(made, _)| made == destination).map(|(_, label)| label.as_str())
    }

    fn receipt(&mut self, _promise: Option<Promise>) -> ReceiptTime {
        if self.receipts_later { ReceiptTime::Later } else { ReceiptTime::Now }
    }

    fn note(&mut self, note: EgressNote<'_>) {
        self.egress.note(note);
    }

    fn session_name(&self) -> String {
        "s-1".to_owned()
    }
}

/// A promise for position `position`.
pub fn promise(position: u64) -> Promise {
    Promise { position: Position(position), synced: true }
}

/// One connection.
pub struct Connection {
    pub session: StompSession,
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
        let (session, egress) = sabir_stomp::open(Arc::new(limits), "Sabir/test", Instant(0));
        let host = RecordingHost {
            egress,
            log: Vec::new(),
            answers: VecDeque::new(),
            receipts_later: false,
            temporaries: Vec::new(),
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

    /// A connection that has introduced itself; nothing of that is left in the log.
    pub fn introduced(limits: Limits, version: &str, headers: &str) -> Self {
        let mut connection = Self::new(limits);
        connection.receive(format!("CONNECT\naccept-version:{version}\n{headers}\n\0").as_bytes());
        connection.host.log.clear();
        connection.out.clear();
        connection
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
            self.event(Event::SettleRefused { cookie: ack.cookie, refusal });
        }
    }

    pub fn event(&mut self, event: Event) {
        let now = self.now();
        let parked = matches!(self.flow, Ok(Flow::Parked));
        let flow = self.session.notify(now, event, &mut self.host, &mut self.out);
        self.flow = flow;
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

/// How an ack names its delivery, for assertions.
pub fn shown(name: &AckName) -> String {
    match name {
        AckName::Token(token) => format!("token {}", token.slot),
        AckName::Number(number) => format!("number {number}"),
        AckName::Text(text) => text.escape_ascii().to_string(),
    }
}
