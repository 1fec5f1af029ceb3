//! The reading half: finds objects, keeps the connection's state, and takes the broker's answers. What each object asks for
//! is carried out in `execute`.

use std::sync::Arc;
use std::time::Duration;

use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::command::{Command, Open, Outcome};
use sabir_model::error::{Code, Refusal, Violation};
use sabir_model::event::Event;
use sabir_model::limits::Limits;
use sabir_model::session::{Activity, EgressNote, Flow, Host, Input, Now, Session};

use crate::answers::say;
use crate::decode::Decoder;
use crate::error::EnvelopeError;
use crate::execute::Core;
use crate::heartbeat::HeartBeat;
use crate::replies::Replies;
use crate::request::{Op, Request, Trouble};

/// Objects in a row whose op is none before the peer is taken for something else than a client: what they are answered is
/// many times as long as they are.
const STRANGE_MAX: u32 = 100;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has not introduced itself.
    Fresh,
    /// It has; the broker is thinking.
    Opening,
    /// It is let in.
    Open,
    /// It has taken its leave; answers are still due.
    Leaving,
    /// The last object has been sent.
    Closed,
}

/// The ingress state of one connection that speaks `sabir.json`.
#[derive(Debug)]
pub struct JsonSession {
    decoder: Decoder,
    core: Core,
    server_name: &'static str,
    connect_by: Instant,
    /// The client's number of its introduction.
    greeting: Option<u64>,
    /// Objects in a row whose op is none.
    strange: u32,
}

impl JsonSession {
    pub(crate) fn new(
        limits: Arc<Limits>,
        server_name: &'static str,
        now: Instant,
        replies: Replies,
    ) -> Self {
        Self {
            decoder: Decoder::default(),
            connect_by: now.after(Duration::from_millis(limits.connect_timeout_ms)),
            core: Core::new(limits, replies),
            server_name,
            greeting: None,
            strange: 0,
        }
    }

    /// What to tell the driver before the next object is looked at; `None` to look.
    fn gate(&self) -> Option<Flow> {
        match self.core.state {
            State::Fresh | State::Open => self.core.is_held_up().then_some(Flow::Parked),
            State::Opening => Some(Flow::Parked),
            State::Leaving if !self.core.waiting.is_empty() => Some(Flow::Parked),
            State::Leaving | State::Closed => Some(Flow::Close),
        }
    }

    fn bytes_max(&self) -> usize {
        let limits = &self.core.limits;
        match self.core.state {
            State::Fresh => limits.body_bytes_before_login_max.min(limits.frame_bytes_max),
            _ => limits.frame_bytes_max,
        }
    }

    /// CONNECT: the first thing a client asks.
    fn connect(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let words = &request.words;
        self.core.heartbeat = HeartBeat::agree(words.heartbeat_ms.unwrap_or(0), &self.core.limits);
        self.greeting = words.reference;
        let open = Open {
            client_id: words.client_id.as_deref().filter(|id| !id.is_empty()),
            login: words.user.as_deref(),
            passcode: words.password.as_deref().map(str::as_bytes),
            virtual_host: words.host.as_deref(),
            protocol: "JSON",
            mechanism: None,
            session: None,
        };
        match host.ask(Command::Open(open)) {
            Outcome::Accepted(_) => self.greet(host, out),
            Outcome::Later => self.core.state = State::Opening,
            Outcome::Refused(refusal) => return Err(refusal.into()),
        }
        Ok(())
    }

    /// The connection is let in.
    fn greet(&mut self, host: &mut dyn Host, out: &mut Chunks) {
        self.core.state = State::Open;
        host.note(EgressNote::Dialect(0));
        let session = host.session_name();
        say("connected", self.greeting, out, |answer| {
            answer.text("server", self.server_name);
            answer.text("session", &session);
            answer.number("heartbeat", self.core.heartbeat.granted_ms);
        });
    }

    /// Carries out one object, or says why not.
    fn execute(
        &mut self,
        bytes: &[u8],
        now: Now,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Violation> {
        let parsed = Request::parse(bytes);
        let (trouble, closes) = match parsed {
            Err(trouble) => {
                let closes = trouble.malformed;
                (*trouble, closes)
            }
            Ok(mut request) => {
                let fresh = self.core.state == State::Fresh;
                let result = match request.op {
                    Op::Connect if fresh => self.connect(&request, host, out),
                    Op::Connect => Err(unexpected("the connection has introduced itself already")),
                    _ if fresh => Err(unexpected("the first object of a connection is its connect")),
                    _ => self.core.execute(&mut request, now, host, out),
                };
                let Err(error) = result else {
                    self.strange = 0;
                    return Ok(());
                };
                let (reference, op) = (request.words.reference, Some(request.op));
                let transaction = request.words.transaction.as_deref().map(str::to_owned);
                // Who is not let in may not try again on the same connection.
                (
                    Trouble { error, reference, op, transaction, malformed: false },
                    fresh && request.op == Op::Connect,
                )
            }
        };
        let Trouble { error, reference, op, transaction, .. } = trouble;
        let EnvelopeError { code, sentence, field, .. } = error;
        let refusal = Refusal::new(code, sentence);
        if let Some(name) = transaction
            && op.is_none_or(Op::is_transacted)
        {
            // Its commit would do less than the client asked for.
            self.core.spoil(&name, &refusal);
        }
        say("error", reference, out, |answer| {
            answer.refusal(&refusal);
            if let Some(op) = op {
                answer.text("of", op.as_str());
            }
            if let Some(field) = &field {
                answer.text("field", field);
            }
        });
        self.strange = if op.is_none() { self.strange + 1 } else { 0 };
        if closes || self.strange >= STRANGE_MAX {
            self.core.state = State::Closed;
            return Err(Violation(refusal));
        }
        Ok(())
    }
}

fn unexpected(sentence: &'static str) -> EnvelopeError {
    EnvelopeError::new(Code::UnexpectedFrame, sentence)
}

impl Session for JsonSession {
    fn receive(
        &mut self,
        now: Now,
        input: &mut Input<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<Flow, Violation> {
        self.core.begin_batch();
        loop {
            if let Some(flow) = self.gate() {
                if matches!(self.core.state, State::Leaving | State::Closed) {
                    // What comes after the last object of a conversation is not part of it.
                    input.consume(input.rest().len());
                }
                return Ok(flow);
            }
            let blanks = Decoder::blanks(input.rest());
            input.consume(blanks);
            let bytes = input.rest();
            if bytes.is_empty() {
                return Ok(Flow::More);
            }
            let bytes_max = self.bytes_max();
            let total = self.decoder.poll(bytes, bytes_max);
            let total = total.map_err(|refusal| self.core.broken(refusal, out))?;
            let Some(total) = total else { return Ok(Flow::More) };
            let object = bytes.get(..total).unwrap_or_default();
            self.execute(object, now, host, out)?;
            input.consume(total);
        }
    }

    fn notify(
        &mut self,
        _now: Now,
        event: Event,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<Flow, Violation> {
        if self.core.state == State::Closed {
            return Ok(Flow::Close);
        }
        match event {
            Event::Opened(_) => {
                if self.core.state == State::Opening {
                    self.greet(host, out);
                }
            }
            // Only a mechanism asks, and this protocol names none.
            Event::Challenge(_) => {}
            Event::OpenRefused(refusal) => {
                say("error", self.greeting, out, |answer| {
                    answer.refusal(&refusal);
                    answer.text("of", Op::Connect.as_str());
                });
                self.core.state = State::Closed;
            }
            // An object is read whole.
            Event::BodyRoom | Event::BodyStored(_) => {}
            Event::Receipts(count) => self.core.waiting.release(count, out),
            Event::SettleRefused { cookie, refusal } => self.core.settle_refused(cookie, &refusal, out),
            Event::SubscriptionEnded { key, refusal } => {
                self.core.subscription_ended(key, &refusal, host, out);
            }
            Event::Closing(refusal) => {
                say("closed", None, out, |answer| answer.refusal(&refusal));
                self.core.state = State::Closed;
            }
        }
        Ok(self.gate().unwrap_or(Flow::More))
    }

    fn timeout(&mut self, now: Now, activity: Activity, out: &mut Chunks) -> Result<Flow, Violation> {
        match self.core.state {
            State::Fresh if now.instant >= self.connect_by => {
                let refusal = Refusal::new(Code::ConnectTimeout, "no connect came in time");
                return Err(self.core.broken(refusal, out));
            }
            State::Open => {
                let silent = self.core.heartbeat.is_overdue(now.instant, activity);
                // Who is not being read cannot be heard.
                if silent && !self.core.is_held_up() {
                    let sentence = "nothing came for twice the interval of the heartbeat agreed on";
                    let refusal = Refusal::new(Code::HeartbeatTimeout, sentence);
                    return Err(self.core.broken(refusal, out));
                }
                self.core.give_up_requests(now.instant, out);
                if self.core.heartbeat.beat(now.instant, activity) && out.is_empty() {
                    say("heartbeat", None, out, |_| {});
                }
            }
            State::Fresh | State::Opening | State::Leaving | State::Closed => {}
        }
        Ok(self.gate().unwrap_or(Flow::More))
    }

    fn next_timeout(&self, activity: Activity) -> Option<Instant> {
        match self.core.state {
            State::Fresh => Some(self.connect_by),
            State::Open => {
                let beat = self.core.heartbeat.next(activity, !self.core.is_held_up());
                beat.into_iter().chain(self.core.replies.next_timeout()).min()
            }
            State::Opening | State::Leaving | State::Closed => None,
        }
    }
}
