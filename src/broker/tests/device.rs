//! A fake client with a client session: it binds rather than subscribes, and writes one line per copy it is handed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Timestamp;
use sabir_model::command::{
    AckName, Bind, Command, LASTS_FOREVER, Open, Outcome, Promise, Publish, Replay, SessionTerms, Will,
    WireAck,
};
use sabir_model::delivery::{Admission, Delivery, EncodeCache, Guarantee};
use sabir_model::destination::{Destination, Kind, Targets};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::ids::{DeliveryToken, QueueId, SubscriptionKey};
use sabir_model::message::{Body, Facts};
use sabir_model::pattern::Pattern;
use sabir_model::session::{Egress, EgressNote, Host, Settled};
use sabir_model::settlement::Settlement;

use super::fake::{FIELD, Wire, text_of};
use super::harness::{Client, World, refusal};
use super::large::all_stored;

pub(super) const FOREVER: u64 = LASTS_FOREVER;

/// How the egress of a device takes what it is handed.
#[derive(Default)]
struct Mood {
    /// Noted at the first attempt of what is handed over in two steps.
    note: Option<(u32, bool)>,
    window: Option<usize>,
    unsettled: usize,
}

/// Writes each copy as one line.
struct Copies(Arc<Mutex<Mood>>);

impl Egress for Copies {
    fn deliver(
        &mut self,
        _: Timestamp,
        delivery: &Delivery<'_>,
        _: Option<&mut EncodeCache>,
        out: &mut Chunks,
    ) -> Admission {
        let message = delivery.message;
        if text_of(message).starts_with("undeliverable") {
            return Admission::Undeliverable("too large for the receiver");
        }
        let granted = delivery.grant.map_or(Guarantee::AtLeastOnce, |grant| grant.guarantee);
        let guarantee = match delivery.token {
            Some(_) => message.facts().guarantee().min(granted),
            None => Guarantee::AtMostOnce,
        };
        let mut mood = self.0.lock();
        if guarantee > Guarantee::AtMostOnce {
            if mood.window.is_some_and(|most| mood.unsettled >= most) {
                return Admission::NoCredit;
            }
            mood.unsettled += 1;
        }
        let token = delivery.token.map_or_else(String::new, |token| {
            format!("{}.{}.{}.{}", token.boot, token.queue.0, token.slot, token.generation)
        });
        let identifiers: Vec<String> =
            delivery.grant.iter().flat_map(|grant| &grant.identifiers).map(ToString::to_string).collect();
        let retain = delivery
            .grant
            .is_some_and(|grant| grant.retained || (grant.keep_retain && message.facts().retain));
        let fields = [
            delivery.destination().map_or_else(String::new, |to| to.to_string()),
            text_of(message),
            token,
            delivery.attempt.to_string(),
            delivery.redelivered.to_string(),
            (guarantee as u8).to_string(),
            retain.to_string(),
            identifiers.join(","),
            delivery.sequence.map_or(0, |sequence| sequence.0).to_string(),
            delivery.progress.to_string(),
            message.fields().find_text(sabir_model::message::Tag::UserId).unwrap_or_default().to_owned(),
        ];
        out.put(fields.join(&FIELD.to_string()).as_bytes());
        out.put(b"\n");
        match (guarantee, mood.note) {
            (Guarantee::AtMostOnce, _) if delivery.token.is_some() => Admission::Done,
            (Guarantee::ExactlyOnce, Some((progress, kept))) if delivery.progress == 0 => {
                Admission::Noted { progress, kept }
            }
            _ => Admission::Sent,
        }
    }

    fn acknowledged(&mut self, acks: &[WireAck], settled: &mut Vec<Settled>, unknown: &mut Vec<usize>) {
        for (index, ack) in acks.iter().enumerate() {
            match ack.name {
                AckName::Token(token) => {
                    let mut mood = self.0.lock();
                    if !matches!(ack.settlement, Settlement::Advanced(_)) {
                        mood.unsettled = mood.unsettled.saturating_sub(1);
                    }
                    settled.push(Settled { token, settlement: ack.settlement, ack: index });
                }
                AckName::Number(_) | AckName::Text(_) => unknown.push(index),
            }
        }
    }

    fn browsed(&mut self, _: SubscriptionKey, _: &mut Chunks) {}
    fn note(&mut self, _: EgressNote<'_>) {}
}

/// A copy as the client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) destination: String,
    pub(super) body: String,
    pub(super) token: Option<DeliveryToken>,
    pub(super) attempt: u32,
    pub(super) redelivered: bool,
    /// 0, 1 or 2: what it goes out with.
    pub(super) guarantee: u8,
    pub(super) retain: bool,
    pub(super) identifiers: Vec<u32>,
    pub(super) sequence: u64,
    pub(super) progress: u32,
    pub(super) user: String,
}

impl Parcel {
    fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split(FIELD).collect();
        let &[
            destination,
            body,
            token,
            attempt,
            redelivered,
            guarantee,
            retain,
            identifiers,
            sequence,
            progress,
            user,
        ] = fields.as_slice()
        else {
            panic!("not a copy: {line}")
        };
        let numbers: Vec<u64> = token.split('.').filter_map(|part| part.parse().ok()).collect();
        let token = match numbers.as_slice() {
            &[boot, queue, slot, generation] => Some(DeliveryToken {
                boot: u32::try_from(boot).unwrap(),
                queue: QueueId(queue),
                slot: u32::try_from(slot).unwrap(),
                generation: u32::try_from(generation).unwrap(),
            }),
            _ => None,
        };
        Self {
            destination: destination.to_owned(),
            body: body.to_owned(),
            token,
            attempt: attempt.parse().unwrap(),
            redelivered: redelivered.parse().unwrap(),
            guarantee: guarantee.parse().unwrap(),
            retain: retain.parse().unwrap(),
            identifiers: identifiers.split(',').filter_map(|one| one.parse().ok()).collect(),
            sequence: sequence.parse().unwrap(),
            progress: progress.parse().unwrap(),
            user: user.to_owned(),
        }
    }
}

/// The bodies of some copies.
pub(super) fn bodies(all: &[Parcel]) -> Vec<&str> {
    all.iter().map(|one| one.body.as_str()).collect()
}

/// How a device comes.
#[derive(Clone, Copy)]
pub(super) struct Coming<'a> {
    pub(super) clean: bool,
    pub(super) lasts_ms: u64,
    pub(super) credit: u32,
    pub(super) user: Option<&'a str>,
    pub(super) will: Option<LastWords<'a>>,
}

/// A will, in short.
#[derive(Clone, Copy)]
pub(super) struct LastWords<'a> {
    pub(super) to: &'a str,
    pub(super) body: &'a str,
    pub(super) delay_ms: u64,
    pub(super) retain: bool,
}

impl Coming<'_> {
    pub(super) fn for_ms(lasts_ms: u64) -> Self {
        Self { clean: false, lasts_ms, credit: 10, user: None, will: None }
    }

    pub(super) fn clean(mut self) -> Self {
        self.clean = true;
        self
    }

    pub(super) fn credit(mut self, credit: u32) -> Self {
        self.credit = credit;
        self
    }
}

impl<'a> Coming<'a> {
    pub(super) fn user(mut self, user: &'a str) -> Self {
        self.user = Some(user);
        self
    }

    pub(super) fn will(mut self, to: &'a str, body: &'a str, delay_ms: u64) -> Self {
        self.will = Some(LastWords { to, body, delay_ms, retain: false });
        self
    }

    pub(super) fn retained_will(mut self, to: &'a str, body: &'a str) -> Self {
        self.will = Some(LastWords { to, body, delay_ms: 0, retain: true });
        self
    }
}

fn targets(text: &str) -> Targets {
    text.split(',').map(|one| Destination::parse_qualified(one, Kind::Topic).unwrap()).collect()
}

impl World {
    pub(super) fn try_device(&self, client_id: &str, coming: Coming<'_>) -> Result<Device, Refusal> {
        let mood = Arc::new(Mutex::new(Mood::default()));
        let to = coming.will.map(|will| targets(will.to)).unwrap_or_default();
        let will = coming.will.map(|will| Will {
            targets: &to,
            facts: Facts { persistent: true, retain: will.retain, ..Facts::default() },
            fields: &[],
            body: will.body.as_bytes(),
            delay_ms: will.delay_ms,
        });
        let open = Open {
            client_id: Some(client_id),
            login: coming.user,
            passcode: coming.user.map(|_| b"secret".as_slice()),
            protocol: "test",
            session: Some(SessionTerms {
                clean_start: coming.clean,
                lasts_ms: coming.lasts_ms,
                credit: coming.credit,
                will: will.as_ref(),
            }),
            ..Open::default()
        };
        let wire = Arc::new(Mutex::new(Wire::default()));
        let (client, opened) = self.client_on(&open, wire, Box::new(Copies(Arc::clone(&mood))))?;
        Ok(Device { client, resumed: opened.resumed, seen: Vec::new(), mood, text: String::new() })
    }

    pub(super) fn device(&self, client_id: &str, coming: Coming<'_>) -> Device {
        self.try_device(client_id, coming).unwrap()
    }

    /// A device whose session never ends by itself.
    pub(super) fn lasting(&self, client_id: &str) -> Device {
        self.device(client_id, Coming::for_ms(FOREVER))
    }

    /// Seconds pass, with the ticks that belong to them.
    pub(super) fn seconds(&self, count: u64) {
        self.pass(Duration::from_secs(count));
    }
}

/// A client with a session.
pub(super) struct Device {
    pub(super) client: Client,
    pub(super) resumed: bool,
    /// Bodies that a test wants to remember.
    pub(super) seen: Vec<String>,
    mood: Arc<Mutex<Mood>>,
    text: String,
}

impl Device {
    pub(super) fn bind<'a>(&'a mut self, to: &'a str) -> Binding<'a> {
        Binding {
            device: self,
            to,
            group: None,
            identifier: 0,
            guarantee: Guarantee::AtLeastOnce,
            no_local: false,
            keep_retain: false,
            replay: Replay::Never,
        }
    }

    pub(super) fn try_unbind(&mut self, to: &str, group: Option<&str>) -> Outcome {
        let pattern = Pattern::parse_qualified(to, Kind::Topic).unwrap();
        self.client.ask(Command::Unbind { pattern: &pattern, group })
    }

    pub(super) fn unbind(&mut self, to: &str) {
        assert!(matches!(self.try_unbind(to, None), Outcome::Accepted(_)));
    }

    pub(super) fn unbind_group(&mut self, to: &str, group: &str) {
        assert!(matches!(self.try_unbind(to, Some(group)), Outcome::Accepted(_)));
    }

    pub(super) fn send<'a>(&'a mut self, to: &'a str, body: &'a str) -> Sending<'a> {
        Sending { device: self, to, body, facts: Facts { persistent: true, ..Facts::default() }, once: None }
    }

    /// What has come since the last look.
    ///
    /// What is to be handed over exactly once comes when the log has it, so the log catches up first.
    pub(super) fn parcels(&mut self) -> Vec<Parcel> {
        let store = self.client.broker.store();
        if store.failed().is_none() {
            store.sync();
        }
        if let Some(connection) = &self.client.connection {
            // The log may be on its way to say so.
            connection.mailbox.covered.store(true, std::sync::atomic::Ordering::Release);
        }
        self.client.pump();
        self.read()
    }

    /// What has come since the last look, whatever the log is about.
    pub(super) fn arrived(&mut self) -> Vec<Parcel> {
        self.client.pump();
        self.read()
    }

    /// Takes and acknowledges what has come.
    pub(super) fn take_arrived(&mut self) {
        let some = self.arrived();
        self.ack_all(&some);
    }

    /// What has reached the wire, whoever is gone.
    pub(super) fn read(&mut self) -> Vec<Parcel> {
        self.text.push_str(std::str::from_utf8(&std::mem::take(&mut self.client.wire.lock().bytes)).unwrap());
        let Some(end) = self.text.rfind('\n') else { return Vec::new() };
        let rest = self.text.split_off(end + 1);
        std::mem::replace(&mut self.text, rest).lines().map(Parcel::parse).collect()
    }

    pub(super) fn bodies(&mut self) -> Vec<String> {
        self.parcels().into_iter().map(|one| one.body).collect()
    }

    pub(super) fn one(&mut self) -> Parcel {
        let mut all = self.parcels();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn wire_ack(parcel: &Parcel, settlement: Settlement) -> WireAck {
        WireAck {
            subscription: None,
            name: AckName::Token(parcel.token.expect("it is to be settled")),
            settlement,
            transaction: None,
            cookie: 77,
        }
    }

    pub(super) fn settle(&mut self, parcel: &Parcel, settlement: Settlement) {
        self.client.host().settle(Self::wire_ack(parcel, settlement));
        self.client.end_batch();
    }

    pub(super) fn settle_now(&mut self, parcel: &Parcel, settlement: Settlement) -> Outcome {
        let outcome = self.client.host().settle_now(Self::wire_ack(parcel, settlement));
        self.client.end_batch();
        outcome
    }

    pub(super) fn ack(&mut self, parcel: &Parcel) {
        self.settle(parcel, Settlement::Accepted);
    }

    pub(super) fn ack_all(&mut self, all: &[Parcel]) {
        for parcel in all.iter().filter(|parcel| parcel.token.is_some() && parcel.guarantee > 0) {
            self.client.host().settle(Self::wire_ack(parcel, Settlement::Accepted));
        }
        self.client.end_batch();
    }

    /// Takes and acknowledges all there is.
    pub(super) fn take_all(&mut self) -> Vec<Parcel> {
        let mut all = Vec::new();
        loop {
            let some = self.parcels();
            if some.is_empty() {
                return all;
            }
            self.ack_all(&some);
            all.extend(some);
        }
    }

    pub(super) fn forget(&mut self, number: u16) -> Outcome {
        self.client.ask(Command::Forget(number))
    }

    pub(super) fn clear_will(&mut self) {
        assert_eq!(self.client.ask(Command::ClearWill), Outcome::Accepted(None));
    }

    /// What the egress notes at the first attempt.
    pub(super) fn notes(&self, progress: u32, kept: bool) {
        self.mood.lock().note = Some((progress, kept));
    }

    /// The protocol's own window.
    pub(super) fn window(&self, most: usize) {
        self.mood.lock().window = Some(most);
    }

    /// Whether it was told that another connection has taken over.
    pub(super) fn taken_over(&mut self) -> bool {
        self.client.pump();
        self.client
            .events
            .iter()
            .any(|event| matches!(event, Event::Closing(refusal) if refusal.code == Code::TakenOver))
    }

    pub(super) fn vanish(self) {
        self.client.vanish();
    }

    /// Leaves without a will.
    pub(super) fn leave(mut self) {
        self.clear_will();
        self.client.close();
    }
}

/// A binding in the making.
pub(super) struct Binding<'a> {
    device: &'a mut Device,
    to: &'a str,
    group: Option<&'a str>,
    identifier: u32,
    guarantee: Guarantee,
    no_local: bool,
    keep_retain: bool,
    replay: Replay,
}

impl<'a> Binding<'a> {
    pub(super) fn group(mut self, group: &'a str) -> Self {
        self.group = Some(group);
        self
    }

    pub(super) fn id(mut self, identifier: u32) -> Self {
        self.identifier = identifier;
        self
    }

    pub(super) fn at_most_once(mut self) -> Self {
        self.guarantee = Guarantee::AtMostOnce;
        self
    }

    pub(super) fn exactly_once(mut self) -> Self {
        self.guarantee = Guarantee::ExactlyOnce;
        self
    }

    pub(super) fn no_local(mut self) -> Self {
        self.no_local = true;
        self
    }

    pub(super) fn keep_retain(mut self) -> Self {
        self.keep_retain = true;
        self
    }

    pub(super) fn replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    pub(super) fn outcome(self) -> Outcome {
        let pattern = Pattern::parse_qualified(self.to, Kind::Topic).unwrap();
        self.device.client.ask(Command::Bind(Bind {
            pattern: &pattern,
            group: self.group,
            identifier: self.identifier,
            guarantee: self.guarantee,
            no_local: self.no_local,
            keep_retain: self.keep_retain,
            replay: self.replay,
        }))
    }

    pub(super) fn ok(self) -> Option<Promise> {
        match self.outcome() {
            Outcome::Accepted(promise) => promise,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn refused(self) -> Code {
        refusal(self.outcome())
    }
}

/// A send in the making; at least once unless it says otherwise.
pub(super) struct Sending<'a> {
    device: &'a mut Device,
    to: &'a str,
    body: &'a str,
    facts: Facts,
    once: Option<u16>,
}

impl Sending<'_> {
    pub(super) fn at_most_once(mut self) -> Self {
        self.facts.persistent = false;
        self
    }

    pub(super) fn exactly_once(mut self) -> Self {
        self.facts.exactly_once = true;
        self
    }

    pub(super) fn retain(mut self) -> Self {
        self.facts.retain = true;
        self
    }

    pub(super) fn expires(mut self, at: u64) -> Self {
        self.facts.expires = Timestamp(at);
        self
    }

    /// Under the client's own number.
    pub(super) fn once(mut self, number: u16) -> Self {
        self.once = Some(number);
        self.exactly_once()
    }

    /// Leaves the batch open.
    pub(super) fn unended(self) -> Outcome {
        let Self { device, to, body, facts, once } = self;
        let key = device.client.key(to);
        let targets = targets(to);
        let publish =
            |body| Publish { targets: &targets, key, facts, fields: &[], body, transaction: None, once };
        match device.client.body(all_stored(), &publish(Body::Borrowed(b"")), body) {
            Ok(body) => device.client.host().publish(publish(body)),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        let Self { device, to, body, facts, once } = self;
        let outcome = Sending { device: &mut *device, to, body, facts, once }.unended();
        device.client.end_batch();
        outcome
    }

    pub(super) fn ok(self) -> Option<Promise> {
        match self.outcome() {
            Outcome::Accepted(promise) => promise,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn refused(self) -> Code {
        refusal(self.outcome())
    }
}

impl World {
    /// Wall-clock milliseconds.
    pub(super) fn clock_ms(&self) -> u64 {
        self.now().wall.0
    }
}
