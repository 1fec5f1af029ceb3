//! The reading half: finds packets, introduces the connection, and takes the broker's answers. What each packet asks for
//! once the client is let in is carried out in `execute`.

use std::sync::Arc;
use std::time::Duration;

use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::command::{Command, Open, Outcome, SessionTerms};
use sabir_model::error::{Code, Refusal, Violation};
use sabir_model::event::{Event, Opened};
use sabir_model::limits::Limits;
use sabir_model::message::FieldsWriter;
use sabir_model::rare::Rare;
use sabir_model::session::{Activity, EgressNote, Flow, Host, Input, Now, Session};

use crate::account::Account;
use crate::egress::{PACKET_BYTES_MAX, dialect};
use crate::execute::Core;
use crate::large::{self, Found};
use crate::lifetime::Lifetime;
use crate::packet::{
    Auth, Connack, ConnackProperties, Connect, Disconnect, Frame, Kind, Packet, Progress, decode, frame,
};
use crate::reason::Reason;
use crate::refusal::{self, Breach};
use crate::version::Version;
use crate::will::Testament;

/// Room for the parts of CONNECT besides the will's payload, whose size is limited like that of a body.
const CONNECT_BYTES: usize = 16 * 1024;

/// Most bytes of the head of a PUBLISH that as a whole is larger than a frame may be.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Largest PUBLISH.
fn packet_bytes_max(limits: &Limits) -> usize {
    match limits.body_bytes_max < limits.frame_bytes_max {
        true => limits.frame_bytes_max,
        false => limits.body_bytes_max.saturating_add(HEAD_BYTES_MAX),
    }
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing has come.
    Fresh,
    /// CONNECT or AUTH has come; the broker is thinking.
    Opening,
    /// The client has been asked something in AUTH.
    Challenged,
    /// CONNACK has let the client in.
    Open,
    /// The last packet has been sent or taken.
    Closed,
}

/// What CONNECT said that CONNACK answers.
#[derive(Debug, Default)]
struct Greeting {
    /// The client id, if it is ours.
    assigned: Option<String>,
    /// How long the session lasts, if not as asked.
    session_expiry_s: Option<u32>,
    /// The keep alive, if not as asked.
    keep_alive_s: Option<u16>,
    /// Most short names for topics that the client takes.
    aliases_max: u16,
}

/// MQTT's ingress state for one connection.
#[derive(Debug)]
pub struct MqttSession {
    core: Core,
    connect_by: Instant,
    /// Until CONNACK.
    greeting: Rare<Greeting>,
    /// Silence after which the client is given up.
    silence_max: Option<Duration>,
    /// The method of authentication that CONNECT named.
    method: Option<Box<str>>,
    /// The version in which CONNECT is answered; unknown until then.
    version: Option<Version>,
}

impl MqttSession {
    pub(crate) fn new(limits: Arc<Limits>, now: Instant) -> Self {
        Self {
            connect_by: now.after(Duration::from_millis(limits.connect_timeout_ms)),
            core: Core::new(limits),
            greeting: Rare::new(),
            silence_max: None,
            method: None,
            version: None,
        }
    }

    /// What to tell the driver before the next packet is looked at; `None` to look.
    fn gate(&self) -> Option<Flow> {
        match self.core.state {
            State::Fresh | State::Challenged => None,
            State::Opening => Some(Flow::Parked),
            State::Open => (self.core.is_held_up() || self.core.awaits_body()).then_some(Flow::Parked),
            State::Closed => Some(Flow::Close),
        }
    }

    fn packets(
        &mut self,
        now: Now,
        input: &mut Input<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<Flow, Breach> {
        loop {
            if let Some(flow) = self.gate() {
                if self.core.state == State::Closed {
                    // What comes after the last packet of a conversation is not part of it.
                    input.consume(input.rest().len());
                }
                return Ok(flow);
            }
            if let Some(flow) = large::receive(&mut self.core, now, input, host, out)? {
                return Ok(flow);
            }
            let limits = &self.core.limits;
            let bytes_max = match self.core.state {
                // Only the head of a large PUBLISH is ever in memory whole.
                State::Open
                    if input.rest().first().is_some_and(|first| first >> 4 == Kind::Publish as u8) =>
                {
                    packet_bytes_max(limits)
                }
                State::Open => limits.frame_bytes_max,
                _ => limits.body_bytes_before_login_max.saturating_add(CONNECT_BYTES),
            };
            // Unknown until the first packet has come.
            let progress = frame(input.rest(), self.version, bytes_max)?;
            let total = match progress {
                Progress::Whole(found) => found.total,
                Progress::NeedMore { total } => total.unwrap_or(0),
            };
            let large = match self.core.state {
                State::Open if total >= self.core.limits.blob_bytes_min => {
                    large::begin(&mut self.core, total, now, input, host)?
                }
                _ => Found::Other,
            };
            if large == Found::Large {
                continue;
            }
            let too_large = match large {
                Found::Perhaps => input.rest().len() > HEAD_BYTES_MAX,
                // It must be in memory whole.
                Found::Large | Found::Other => total > self.core.limits.frame_bytes_max,
            };
            if too_large && self.core.state == State::Open {
                return Err(Breach::new(Reason::PacketTooLarge, "the packet is larger than allowed"));
            }
            let found = match progress {
                Progress::Whole(found) => found,
                Progress::NeedMore { .. } => {
                    input.expect(if large == Found::Perhaps { 0 } else { total });
                    return Ok(Flow::More);
                }
            };
            match self.core.state {
                State::Open => self.core.execute(&found, now, input, host, out)?,
                State::Challenged => self.respond(&found, host, out)?,
                State::Fresh | State::Opening | State::Closed => self.connect(&found, host, out)?,
            }
            input.consume(found.total);
        }
    }

    /// CONNECT: the first packet.
    fn connect(&mut self, found: &Frame<'_>, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Breach> {
        self.version = Connect::answer_version(found);
        let connect = Connect::decode(found)?;
        let Connect { version, properties, .. } = connect;
        let limits = Arc::clone(&self.core.limits);
        self.core.version = version;
        self.core.wants_problems = properties.request_problem_information.unwrap_or(true);
        self.core.packet_bytes_max =
            properties.packet_bytes_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        self.method = properties.authentication_method.map(Into::into);
        self.keep_alive(connect.keep_alive_s);
        // 3.1 wants no more than 23 characters. Its clients of today know no such bound, and nothing here needs it.
        if connect.client_id.len() > limits.client_id_bytes_max {
            return Err(Breach::new(Reason::ClientIdentifierNotValid, "the client id is too long"));
        }
        let lifetime = Lifetime::at_connect(&connect, &limits);
        self.core.ends_with_connection = lifetime.asked_s == Some(0);
        let greeting = self.greeting.make();
        greeting.session_expiry_s = lifetime.told_s;
        greeting.aliases_max = properties.topic_alias_max.unwrap_or(0);
        if connect.client_id.is_empty() {
            greeting.assigned = Some(host.session_name());
        }
        let mut fields = FieldsWriter::new();
        let will = match &connect.will {
            Some(will) => match Testament::read(will, &limits, &mut fields) {
                Ok(testament) => Some(testament),
                Err(refusal) => {
                    self.refused(&refusal, out);
                    return Ok(());
                }
            },
            None => None,
        };
        let will = will.as_ref().map(|testament| testament.will(&fields));
        let data = properties.authentication_data.unwrap_or_default();
        let assigned = self.greeting.get().and_then(|greeting| greeting.assigned.as_deref());
        let open = Open {
            client_id: Some(assigned.unwrap_or(connect.client_id)),
            login: connect.username,
            passcode: connect.password,
            virtual_host: None,
            protocol: version.protocol(),
            mechanism: properties.authentication_method.map(|method| (method, data)),
            session: Some(SessionTerms {
                // Nobody has had an id that was made just now.
                clean_start: connect.clean_start || assigned.is_some(),
                lasts_ms: lifetime.lasts_ms,
                credit: u32::from(properties.receive_max.unwrap_or(u16::MAX))
                    .min(limits.session_credit_max)
                    .max(1),
                will: will.as_ref(),
            }),
        };
        let outcome = host.ask(Command::Open(open));
        self.opening(outcome, host, out);
        Ok(())
    }

    /// What the client wants, but no longer than we wait for anybody; only version 5 can be told.
    fn keep_alive(&mut self, asked_s: u16) {
        let longest_s = u16::try_from(self.core.limits.keep_alive_ms_max / 1000).unwrap_or(u16::MAX).max(1);
        let mut granted_s = asked_s;
        if asked_s > longest_s && self.core.version.has_properties() {
            granted_s = longest_s;
            self.greeting.make().keep_alive_s = Some(longest_s);
        }
        // [5: 3.1.2-22] [3: 3.1.2-24] One and a half times as long; 0 turns it off.
        self.silence_max = (granted_s > 0).then(|| Duration::from_millis(u64::from(granted_s) * 1500));
    }

    /// A packet that comes while the client is being authenticated.
    fn respond(&mut self, found: &Frame<'_>, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Breach> {
        let packet = decode(found, self.core.version)?;
        packet.check_from_client()?;
        match packet {
            Packet::Auth(auth) => {
                // [5: 4.12.0-5]
                if auth.reason != Reason::ContinueAuthentication || auth.method != self.method.as_deref() {
                    return Err(Breach::protocol("AUTH goes on with the method that CONNECT named"));
                }
                let outcome = host.ask(Command::Respond(auth.data.unwrap_or_default()));
                self.opening(outcome, host, out);
                Ok(())
            }
            Packet::Disconnect(_) => {
                self.core.state = State::Closed;
                Ok(())
            }
            // [5: 3.1.2-30]
            _ => Err(Breach::protocol("only AUTH or DISCONNECT may come before CONNACK")),
        }
    }

    fn opening(&mut self, outcome: Outcome, host: &mut dyn Host, out: &mut Chunks) {
        match outcome {
            Outcome::Accepted(_) => self.greet(&Opened::default(), host, out),
            Outcome::Later => self.core.state = State::Opening,
            Outcome::Refused(refusal) => self.refused(&refusal, out),
        }
    }

    /// The client is let in: says so, and on which terms.
    fn greet(&mut self, opened: &Opened, host: &mut dyn Host, out: &mut Chunks) {
        let greeting = self.greeting.take();
        let core = &mut self.core;
        core.state = State::Open;
        core.resumed = opened.resumed;
        host.note(EgressNote::Dialect(dialect(core.version)));
        host.note(EgressNote::Receiver {
            frame_bytes_max: u32::try_from(core.packet_bytes_max).unwrap_or(u32::MAX),
            aliases_max: greeting.aliases_max,
        });
        let limits = &core.limits;
        let nonzero = |number: u16| Some(number).filter(|number| *number > 0);
        let connack = Connack {
            properties: ConnackProperties {
                session_expiry_s: greeting.session_expiry_s,
                receive_max: Some(limits.receive_max.max(1)).filter(|max| *max < u16::MAX),
                packet_bytes_max: u32::try_from(packet_bytes_max(limits))
                    .ok()
                    .filter(|max| (*max as usize) < PACKET_BYTES_MAX),
                assigned_client_id: greeting.assigned.as_deref(),
                topic_alias_max: nonzero(limits.topic_aliases_max),
                server_keep_alive_s: greeting.keep_alive_s,
                // [5: 4.12.0-5]
                authentication_method: self.method.as_deref(),
                authentication_data: Some(opened.data.as_slice())
                    .filter(|data| !data.is_empty() && self.method.is_some()),
                ..ConnackProperties::default()
            },
            ..Connack::new(opened.resumed, Reason::Success)
        };
        let version = core.version;
        out.write(256, |out| {
            if connack.encode(version, out).is_err() {
                // A mechanism's last word that no packet can carry is one that the client does without.
                let _ = Connack::new(opened.resumed, Reason::Success).encode(version, out);
            }
        });
    }

    /// The broker does not let the client in [5: 3.1.4-2, 3.2.2-7] [3: 3.2.2-5].
    fn refused(&mut self, refusal: &Refusal, out: &mut Chunks) {
        self.put_connack(refusal::connack(refusal.code), refusal, out);
        self.core.state = State::Closed;
    }

    fn put_connack(&self, reason: Reason, refusal: &Refusal, out: &mut Chunks) {
        let Some(version) = self.version else { return };
        let account = Account { version, ..self.core.account() };
        out.write(256, |out| {
            account.give(Kind::Connack, Some(refusal), out, |diagnostics, out| {
                let properties = ConnackProperties { diagnostics, ..ConnackProperties::default() };
                Connack { properties, ..Connack::new(false, reason) }.encode(version, out)
            });
        });
    }

    /// Says why the connection ends, where the version and the state have a way to.
    fn farewell(&mut self, reason: Reason, refusal: &Refusal, out: &mut Chunks) {
        let state = std::mem::replace(&mut self.core.state, State::Closed);
        let Some(version) = self.version else { return };
        match state {
            State::Open => {
                if version.has_properties() {
                    let reason =
                        if reason.allowed_in(Kind::Disconnect) { reason } else { Reason::UnspecifiedError };
                    out.write(256, |out| {
                        self.core.account().give(Kind::Disconnect, Some(refusal), out, |diagnostics, out| {
                            Disconnect { diagnostics, ..Disconnect::new(reason) }.encode(version, out)
                        });
                    });
                }
            }
            State::Fresh | State::Opening | State::Challenged => {
                // [3: 3.1.4-1] Before version 5 there are words for these two only.
                let has_words = version.has_properties() || matches!(reason.connack_return_code(), 1 | 2);
                if has_words && reason.allowed_in(Kind::Connack) {
                    self.put_connack(reason, refusal, out);
                }
            }
            State::Closed => {}
        }
    }

    fn broken(&mut self, breach: Breach, out: &mut Chunks) -> Violation {
        self.farewell(breach.reason, &breach.refusal, out);
        Violation(breach.refusal)
    }

    /// The mechanism of authentication asks the client something.
    fn challenge(&mut self, data: &[u8], out: &mut Chunks) {
        let method = self.method.as_deref().unwrap_or_default();
        let auth = Auth::new(Reason::ContinueAuthentication, method, Some(data));
        let version = self.core.version;
        if out.write(64 + data.len(), |out| auth.encode(version, out)).is_ok() {
            self.core.state = State::Challenged;
        } else {
            self.refused(&Refusal::new(Code::Internal, "the challenge is larger than AUTH can carry"), out);
        }
    }
}

impl Session for MqttSession {
    fn receive(
        &mut self,
        now: Now,
        input: &mut Input<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<Flow, Violation> {
        self.packets(now, input, host, out).map_err(|breach| self.broken(breach, out))
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
            Event::Opened(opened) => {
                if self.core.state == State::Opening {
                    self.greet(&opened, host, out);
                }
            }
            Event::Challenge(data) => {
                if self.core.state == State::Opening {
                    self.challenge(&data, out);
                }
            }
            Event::OpenRefused(refusal) => self.refused(&refusal, out),
            Event::BodyRoom => large::go_on(&mut self.core),
            Event::BodyStored(result) => {
                if let Err(breach) = large::stored(&mut self.core, result, now, host, out) {
                    return Err(self.broken(breach, out));
                }
            }
            Event::Receipts(count) => self.core.release(count, out),
            // An acknowledgement of what is settled already is nothing wrong: it crossed something on its way.
            Event::SettleRefused { .. } => {}
            // There is no packet for it, and hanging up would end all other subscriptions too.
            Event::SubscriptionEnded { .. } => {}
            Event::Closing(refusal) if self.core.state == State::Open => {
                self.farewell(refusal::closing(refusal.code), &refusal, out);
            }
            Event::Closing(refusal) => self.refused(&refusal, out),
        }
        Ok(self.gate().unwrap_or(Flow::More))
    }

    fn timeout(&mut self, now: Now, activity: Activity, out: &mut Chunks) -> Result<Flow, Violation> {
        match self.core.state {
            State::Fresh | State::Challenged if now.instant >= self.connect_by => {
                let refusal =
                    Refusal::new(Code::ConnectTimeout, "the client did not introduce itself in time");
                return Err(self.broken(Breach { reason: Reason::UnspecifiedError, refusal }, out));
            }
            State::Open => {
                let silent = self.silence_max.is_some_and(|max| now.instant >= activity.read.after(max));
                // Who is not being read cannot be heard.
                if silent && !self.core.is_held_up() {
                    let breach = Breach::new(
                        Reason::KeepAliveTimeout,
                        "nothing came for one and a half times the keep alive",
                    );
                    return Err(self.broken(breach, out));
                }
            }
            State::Fresh | State::Opening | State::Challenged | State::Closed => {}
        }
        Ok(self.gate().unwrap_or(Flow::More))
    }

    fn next_timeout(&self, activity: Activity) -> Option<Instant> {
        match self.core.state {
            State::Fresh | State::Challenged => Some(self.connect_by),
            State::Open => {
                let silence_max = self.silence_max.filter(|_| !self.core.is_held_up());
                silence_max.map(|max| activity.read.after(max))
            }
            State::Opening | State::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::MqttEgress;

    #[test]
    fn a_client_that_does_nothing_costs_little() {
        let (session, egress) = (size_of::<MqttSession>(), size_of::<MqttEgress>());
        assert!(session <= 112 && egress <= 32, "{session} and {egress} bytes");
    }
}
