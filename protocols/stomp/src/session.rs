//! The reading half: finds frames, keeps the connection's state, and takes the broker's answers. What each frame asks
//! for is carried out in `execute`.

use std::sync::Arc;
use std::time::Duration;

use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::command::{Command, Open, Outcome};
use sabir_model::error::{Code, Refusal, Violation};
use sabir_model::event::Event;
use sabir_model::limits::Limits;
use sabir_model::rare::Rare;
use sabir_model::session::{Activity, EgressNote, Flow, Host, Input, Now, Session};

use crate::decode::{Bounds, Decoder, Progress};
use crate::egress::dialect;
use crate::encode::put_decimal;
use crate::error::{put_error, survives};
use crate::execute::Core;
use crate::frame::{Frame, Reading, Version};
use crate::heartbeat::HeartBeat;
use crate::large::{self, Coming};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing but blanks has come.
    Fresh,
    /// CONNECT has come; the broker is thinking.
    Opening,
    /// CONNECTED has been sent.
    Open,
    /// DISCONNECT has come; receipts are still due.
    Leaving,
    /// The last frame has been sent.
    Closed,
}

/// What CONNECT said that matters later.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    /// Lines of CONNECTED that answer headers of CONNECT.
    echo: String,
}

/// STOMP's ingress state for one connection.
#[derive(Debug)]
pub struct StompSession {
    decoder: Decoder,
    core: Core,
    server_name: &'static str,
    connect_by: Instant,
    /// Until CONNECTED.
    greeting: Rare<Greeting>,
    coming: Coming,
}

impl StompSession {
    pub(crate) fn new(limits: Arc<Limits>, server_name: &'static str, now: Instant) -> Self {
        Self {
            decoder: Decoder::default(),
            connect_by: now.after(Duration::from_millis(limits.connect_timeout_ms)),
            core: Core::new(limits),
            server_name,
            greeting: Rare::new(),
            coming: None,
        }
    }

    /// What to tell the driver before the next frame is looked at; `None` to look.
    fn gate(&self) -> Option<Flow> {
        match self.core.state {
            State::Open if self.coming.as_deref().is_some_and(large::Large::waits) => Some(Flow::Parked),
            State::Fresh | State::Open => self.core.is_held_up().then_some(Flow::Parked),
            State::Opening => Some(Flow::Parked),
            State::Leaving if self.core.owes_receipts() => Some(Flow::Parked),
            State::Leaving | State::Closed => Some(Flow::Close),
        }
    }

    fn frames(
        &mut self,
        now: Now,
        input: &mut Input<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<Flow, Violation> {
        let mut bounds = self.bounds();
        loop {
            if let Some(flow) = self.gate() {
                if matches!(self.core.state, State::Leaving | State::Closed) {
                    // What comes after the last frame of a conversation is not part of it.
                    input.consume(input.rest().len());
                }
                return Ok(flow);
            }
            if let Some(flow) = large::receive(&mut self.coming, &mut self.core, input, host, out)? {
                return Ok(flow);
            }
            let blanks = Decoder::blanks(input.rest());
            input.consume(blanks);
            let bytes = input.rest();
            if bytes.is_empty() {
                return Ok(Flow::More);
            }
            let progress = self.decoder.poll(bytes, &bounds);
            let progress = progress.map_err(|refusal| self.core.broken(refusal, out))?;
            let total = match progress {
                Progress::Whole { total } => total,
                Progress::Large { head, length } => {
                    let Self { decoder, core, coming, .. } = self;
                    large::begin(coming, (decoder, core), (head, length), now, input, host, out)?;
                    continue;
                }
                Progress::Partial { expect } => {
                    input.expect(expect);
                    return Ok(Flow::More);
                }
            };
            let reading = match self.core.state {
                State::Fresh => Reading::Plain,
                _ => self.core.version.into(),
            };
            let Self { decoder, core, greeting, .. } = self;
            let frame = decoder.frame(bytes, reading).map_err(|refusal| core.broken(refusal, out))?;
            let result = if core.state == State::Fresh {
                core.connect(&frame, greeting.make(), host, out)
            } else {
                let body = input.body(frame.body_start, frame.body.len());
                core.execute(&frame, now, body, host, out)
            };
            if let Err(refusal) = result {
                core.refuse(&frame, refusal, out)?;
            } else if core.state == State::Open && self.greeting_due() {
                self.greet(host, out);
                bounds = self.bounds();
            }
            input.consume(total);
        }
    }

    /// What a frame may be: less before the client is let in.
    fn bounds(&self) -> Bounds {
        match self.core.greeted {
            true => Bounds::new(&self.core.limits),
            false => Bounds::before_login(&self.core.limits),
        }
    }

    /// Whether CONNECTED is still to be sent.
    fn greeting_due(&self) -> bool {
        !self.core.greeted
    }

    /// The connection is let in: says so, and reads the next frames by the version agreed on.
    fn greet(&mut self, host: &mut dyn Host, out: &mut Chunks) {
        let core = &mut self.core;
        core.state = State::Open;
        core.greeted = true;
        host.note(EgressNote::Dialect(dialect(core.version)));
        let session = host.session_name();
        let (ours, theirs) = core.heartbeat.answer;
        let echo = self.greeting.take().echo;
        let server_name = self.server_name;
        out.write(160 + session.len() + echo.len(), |out| {
            for part in ["CONNECTED\nversion:", core.version.as_str(), "\nsession:", &session] {
                out.extend_from_slice(part.as_bytes());
            }
            out.extend_from_slice(b"\nheart-beat:");
            put_decimal(out, ours);
            out.push(b',');
            put_decimal(out, theirs);
            for part in ["\nserver:", server_name, "\n", &echo, "\n\0"] {
                out.extend_from_slice(part.as_bytes());
            }
        });
    }
}

impl Core {
    /// CONNECT or STOMP: the first frame.
    fn connect(
        &mut self,
        frame: &Frame<'_>,
        greeting: &mut Greeting,
        host: &mut dyn Host,
        _out: &mut Chunks,
    ) -> Result<(), Refusal> {
        if !matches!(frame.command, "CONNECT" | "STOMP") {
            return Err(Refusal::new(
                Code::UnexpectedFrame,
                format!("expected CONNECT or STOMP, got {}", frame.command),
            ));
        }
        let version = Version::negotiate(frame.raw("accept-version")).ok_or_else(|| {
            Refusal::new(Code::UnsupportedVersion, "this server speaks STOMP 1.0, 1.1 and 1.2")
        })?;
        self.version = version;
        // 1.0 pads values.
        let value = |name| {
            let raw = frame.raw(name)?;
            Some(if version == Version::V10 { raw.trim_matches([' ', '\t']) } else { raw })
        };
        self.heartbeat = HeartBeat::agree(value("heart-beat"), &self.limits)?;
        self.continues_on_error = value("x-continue-on-error") == Some("true");
        greeting.echo.clear();
        for (asked, answered) in [("request-id", "response-id"), ("receipt", "receipt-id")] {
            if let Some(text) = value(asked) {
                for part in [answered, ":", text, "\n"] {
                    greeting.echo.push_str(part);
                }
            }
        }
        let open = Open {
            client_id: value("client-id").filter(|id| !id.is_empty()),
            login: value("login"),
            passcode: value("passcode").map(str::as_bytes),
            virtual_host: value("host"),
            protocol: version.protocol(),
            mechanism: None,
            session: None,
        };
        self.has_client_id = open.client_id.is_some();
        match host.ask(Command::Open(open)) {
            Outcome::Accepted(_) => self.state = State::Open,
            Outcome::Later => self.state = State::Opening,
            Outcome::Refused(refusal) => return Err(refusal),
        }
        Ok(())
    }

    /// The bytes are no frame: says so. Nothing after them can be read.
    pub(crate) fn broken(&mut self, refusal: Refusal, out: &mut Chunks) -> Violation {
        put_error(out, self.version, &refusal, &[]);
        self.state = State::Closed;
        Violation(refusal)
    }

    /// A frame is refused: says so, and ends the connection unless it may go on.
    pub(crate) fn refuse(
        &mut self,
        frame: &Frame<'_>,
        refusal: Refusal,
        out: &mut Chunks,
    ) -> Result<(), Violation> {
        let mut headers = smallvec::SmallVec::<[(&str, &str); 2]>::new();
        if refusal.code == Code::UnsupportedVersion {
            headers.push(("version", "1.0,1.1,1.2"));
        }
        // What CONNECT holds need not be readable in a later frame.
        let readable = |receipt: &&str| Reading::from(self.version).accepts(receipt);
        if let Some(receipt) = frame.raw("receipt").filter(readable) {
            headers.push(("receipt-id", receipt));
        }
        put_error(out, self.version, &refusal, &headers);
        if survives(frame.command, &refusal, self.version, self.continues_on_error) {
            return Ok(());
        }
        self.state = State::Closed;
        Err(Violation(refusal))
    }
}

impl Session for StompSession {
    fn receive(
        &mut self,
        now: Now,
        input: &mut Input<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<Flow, Violation> {
        self.core.begin_batch();
        let flow = self.frames(now, input, host, out)?;
        if self.core.state == State::Open {
            self.core.subscribe_to_replies(host, out)?;
        }
        Ok(flow)
    }

    fn notify(
        &mut self,
        now: Now,
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
            // Only a mechanism asks, and STOMP names none.
            Event::Challenge(_) => {}
            Event::OpenRefused(refusal) => {
                put_error(out, self.core.version, &refusal, &[]);
                self.core.state = State::Closed;
            }
            Event::BodyRoom => large::go_on(&mut self.coming),
            Event::BodyStored(result) => {
                let Self { decoder, core, coming, .. } = self;
                large::stored(coming, (decoder, core), result, now, host, out)?;
                if self.core.state == State::Open {
                    self.core.subscribe_to_replies(host, out)?;
                }
            }
            Event::Receipts(count) => self.core.release(count, out),
            Event::SettleRefused { cookie, refusal } => self.core.settle_refused(cookie, refusal, out)?,
            Event::SubscriptionEnded { key, refusal } => {
                self.core.subscription_ended(key, refusal, host, out)?;
            }
            Event::Closing(refusal) => {
                if self.core.state != State::Leaving {
                    put_error(out, self.core.version, &refusal, &[]);
                }
                self.core.state = State::Closed;
            }
        }
        Ok(self.gate().unwrap_or(Flow::More))
    }

    fn timeout(&mut self, now: Now, activity: Activity, out: &mut Chunks) -> Result<Flow, Violation> {
        match self.core.state {
            State::Fresh if now.instant >= self.connect_by => {
                let refusal = Refusal::new(Code::ConnectTimeout, "no CONNECT frame came in time");
                return Err(self.core.broken(refusal, out));
            }
            State::Open => {
                let silent = self.core.heartbeat.is_overdue(now.instant, activity);
                // Who is not being read cannot be heard.
                if silent && !self.core.is_held_up() {
                    let refusal = Refusal::new(
                        Code::HeartbeatTimeout,
                        "no heart-beat came for twice the interval agreed on",
                    );
                    return Err(self.core.broken(refusal, out));
                }
                if self.core.heartbeat.beat(now.instant, activity) {
                    out.put(b"\n");
                }
            }
            State::Fresh | State::Opening | State::Leaving | State::Closed => {}
        }
        Ok(self.gate().unwrap_or(Flow::More))
    }

    fn next_timeout(&self, activity: Activity) -> Option<Instant> {
        match self.core.state {
            State::Fresh => Some(self.connect_by),
            State::Open => self.core.heartbeat.next(activity, !self.core.is_held_up()),
            State::Opening | State::Leaving | State::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::StompEgress;

    #[test]
    fn a_client_that_does_nothing_costs_little() {
        let (session, egress) = (size_of::<StompSession>(), size_of::<StompEgress>());
        assert!(session <= 320 && egress <= 96, "{session} and {egress} bytes");
    }
}
