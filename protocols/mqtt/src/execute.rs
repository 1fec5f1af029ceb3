//! Carries out the packets of a client that has been let in, by asking the host, and answers when what the answer
//! promises is kept.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use sabir_model::chunks::Chunks;
use sabir_model::command::{self, AckName, Bind, Command, Outcome, Promise, ReceiptTime, Replay, WireAck};
use sabir_model::destination::Kind as Destined;
use sabir_model::error::{Code, Refusal};
use sabir_model::limits::Limits;
use sabir_model::message::{Body, FieldsWriter};
use sabir_model::pattern::Pattern;
use sabir_model::rare::Rare;
use sabir_model::session::{Host, Input, Now};
use sabir_model::settlement::Settlement;
use sabir_model::stored::Stored;
use smallvec::SmallVec;

use crate::account::Account;
use crate::aliases::Aliases;
use crate::alike::LastRead;
use crate::filter::{Bounds, Filter};
use crate::inflight::{self, RECEIVED};
use crate::large::Large;
use crate::lifetime;
use crate::packet::{
    Ack, AckKind, Auth, Disconnect, Frame, Kind, PINGRESP, Packet, PacketId, Publish, Qos, RetainHandling,
    Suback, Subscribe, Subscription, Unsuback, Unsubscribe, decode, put_ack,
};
use crate::reason::Reason;
use crate::refusal::{self, Breach};
use crate::replies::Replies;
use crate::session::State;
use crate::version::Version;
use crate::{topic, translate};
use sabir_model::addresses::AddressBook;

/// Everything a session knows besides who the client is.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) limits: Arc<Limits>,
    pub(crate) state: State,
    pub(crate) version: Version,
    /// Request Problem Information.
    pub(crate) wants_problems: bool,
    /// Largest packet the client takes.
    pub(crate) packet_bytes_max: usize,
    /// An earlier session goes on: what its last connection was answered may have been lost.
    pub(crate) resumed: bool,
    /// CONNECT asked for a session that ends with the connection.
    pub(crate) ends_with_connection: bool,
    replies: Rare<Replies>,
    pub(crate) sending: Rare<Sending>,
    /// PUBLISH packets with QoS above 0 whose exchange has not ended. Counted in version 5.
    unanswered: usize,
    /// Of these, those with QoS 2 that have been accepted: a repetition is not counted again.
    received: Rare<HashSet<u16, RandomState>>,
}

/// What a client needs that publishes.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    pub(crate) fields: FieldsWriter,
    pub(crate) addresses: AddressBook,
    aliases: Aliases,
    pub(crate) last: LastRead,
    coming: Option<Box<Large>>,
}

impl Core {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            state: State::Fresh,
            version: Version::V311,
            wants_problems: true,
            packet_bytes_max: usize::MAX,
            resumed: false,
            ends_with_connection: false,
            replies: Rare::new(),
            sending: Rare::new(),
            unanswered: 0,
            received: Rare::new(),
        }
    }

    pub(crate) fn account(&self) -> Account {
        Account {
            version: self.version,
            wanted: self.wants_problems,
            packet_bytes_max: self.packet_bytes_max,
        }
    }

    /// Whether so many answers wait that reading pauses.
    pub(crate) fn is_held_up(&self) -> bool {
        self.replies.get().is_some_and(|replies| replies.is_full(self.limits.receipts_pending_max))
    }

    /// The oldest `count` answers may leave.
    pub(crate) fn release(&mut self, count: usize, out: &mut Chunks) {
        let Some(replies) = self.replies.get_mut() else { return };
        let ended = replies.release(count, out);
        if replies.is_empty() {
            self.replies.clear();
        }
        self.unanswered = self.unanswered.saturating_sub(ended);
    }

    /// Carries out one packet.
    ///
    /// # Errors
    /// A rule is broken: the connection ends.
    pub(crate) fn execute(
        &mut self,
        found: &Frame<'_>,
        now: Now,
        input: &Input<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Breach> {
        if found.kind == Kind::Publish {
            if let Some(result) = self.publish_alike(found, now, input, host, out) {
                return result;
            }
            let publish = Publish::decode(found, self.version)?;
            publish.check_from_client()?;
            let length = publish.payload.len();
            let body = input.body(found.total - length, length);
            self.publish(&publish, body, now, host, out)?;
            self.remember(found, &publish);
            return Ok(());
        }
        let packet = decode(found, self.version)?;
        packet.check_from_client()?;
        match packet {
            Packet::Ack(ack) => match ack.kind {
                AckKind::Puback => self.settle(inflight::AckKind::Puback, &ack, host),
                AckKind::Pubcomp => self.settle(inflight::AckKind::Pubcomp, &ack, host),
                // [5: 4.3.3-6] A failure ends it; nothing is sent again for it.
                AckKind::Pubrec if ack.reason.is_failure() => {
                    self.settle(inflight::AckKind::Pubrec, &ack, host);
                }
                AckKind::Pubrec => self.received(ack.id, host, out)?,
                AckKind::Pubrel => self.forget(ack.id, host, out)?,
            },
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe, host, out),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, host, out),
            // [5: 3.12.4-1] [3: 3.12.4-1]
            Packet::Pingreq => out.put(&PINGRESP),
            Packet::Disconnect(disconnect) => self.disconnect(&disconnect, host)?,
            Packet::Auth(auth) => return Err(again(&auth)),
            // [5: 3.1.0-2] [3: 3.1.0-2]
            Packet::Connect(_) => return Err(Breach::protocol("the client has introduced itself already")),
            Packet::Publish(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => return Err(Breach::protocol("only servers send this packet")),
        }
        Ok(())
    }

    fn has_received(&self, id: PacketId) -> bool {
        self.received.get().is_some_and(|received| received.contains(&id.get()))
    }

    fn no_more_received(&mut self, id: PacketId) {
        if let Some(received) = self.received.get_mut() {
            received.remove(&id.get());
        }
    }

    /// Sends what `write` appends once `promise` is kept, after all answers before it.
    fn reply(
        &mut self,
        promise: Option<Promise>,
        ends_exchange: bool,
        host: &mut dyn Host,
        out: &mut Chunks,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        match host.receipt(promise) {
            ReceiptTime::Now => {
                out.write(64, write);
                self.unanswered = self.unanswered.saturating_sub(usize::from(ends_exchange));
            }
            ReceiptTime::Later => self.replies.make().push(ends_exchange, write),
        }
    }

    fn ack(
        &mut self,
        kind: AckKind,
        id: PacketId,
        reason: Reason,
        promise: Option<Promise>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) {
        let version = self.version;
        let ends = matches!(kind, AckKind::Puback | AckKind::Pubcomp);
        self.reply(promise, ends, host, out, |out| put_ack(kind, id, reason, version, out));
    }

    fn publish(
        &mut self,
        publish: &Publish<'_>,
        body: Body<'_>,
        now: Now,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Breach> {
        self.count(publish)?;
        let is_text = || std::str::from_utf8(publish.payload).is_ok();
        let accepted = self.send(publish, body, is_text, now, host)?;
        self.answer(publish, accepted, host, out)
    }

    /// Notes that a PUBLISH has come that is to be answered.
    pub(crate) fn count(&mut self, publish: &Publish<'_>) -> Result<(), Breach> {
        let id = publish.id;
        let repeated = publish.qos == Qos::ExactlyOnce && id.is_some_and(|id| self.has_received(id));
        if id.is_some() && !repeated && self.version.has_properties() {
            // [5: 3.3.4-8, 4.9.0-2]
            if self.unanswered >= usize::from(self.limits.receive_max.max(1)) {
                return Err(Breach::new(
                    Reason::ReceiveMaximumExceeded,
                    "more messages are unanswered than the receive maximum allows",
                ));
            }
            self.unanswered += 1;
        }
        Ok(())
    }

    /// Asks whether a PUBLISH may come whose payload, of `length` bytes, is still to be read. The inner result is the
    /// broker's answer.
    pub(crate) fn announce(
        &mut self,
        publish: &Publish<'_>,
        length: usize,
        now: Now,
        host: &mut dyn Host,
    ) -> Result<Result<(), Refusal>, Breach> {
        self.count(publish)?;
        let length = length as u64;
        // Whether it is the text that it says it is, is seen at its end.
        self.with_message(
            publish,
            length,
            Body::Borrowed(b""),
            || true,
            now,
            host,
            |host, message| host.begin_body(&message, Some(length)),
        )
    }

    /// The payload of an announced PUBLISH has come, or is refused.
    pub(crate) fn complete(
        &mut self,
        publish: &Publish<'_>,
        body: Result<(Stored, bool), Refusal>,
        now: Now,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Breach> {
        let accepted = match body {
            Ok((body, is_text)) => self.send(publish, Body::Stored(body), || is_text, now, host)?,
            Err(refusal) => Err(refusal),
        };
        self.answer(publish, accepted, host, out)
    }

    pub(crate) fn answer(
        &mut self,
        publish: &Publish<'_>,
        accepted: Result<Option<Promise>, Refusal>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Breach> {
        let Some(id) = publish.id else {
            // [5: 4.3.1] There is no answer to QoS 0, so a refusal cannot be told.
            return Ok(());
        };
        let kind = if publish.qos == Qos::ExactlyOnce { AckKind::Pubrec } else { AckKind::Puback };
        match accepted {
            Ok(promise) => {
                if kind == AckKind::Pubrec && self.version.has_properties() {
                    self.received.make().insert(id.get());
                }
                self.ack(kind, id, Reason::Success, promise, host, out);
                Ok(())
            }
            Err(refusal) if self.version.has_properties() => {
                self.no_more_received(id);
                let (account, version) = (self.account(), self.version);
                let reason = refusal::publish(refusal.code);
                self.reply(None, true, host, out, |out| {
                    account.give(kind.kind(), Some(&refusal), out, |diagnostics, out| {
                        Ack { diagnostics, ..Ack::new(kind, id, reason) }.encode(version, out)
                    });
                });
                Ok(())
            }
            // [3: 3.3.5-2] An acknowledgement would be a lie, and there is no other answer.
            Err(refusal) => Err(Breach { reason: Reason::UnspecifiedError, refusal }),
        }
    }

    /// Hands a message to the broker. The inner result is the broker's, or what it would have been.
    fn send(
        &mut self,
        publish: &Publish<'_>,
        body: Body<'_>,
        is_text: impl FnOnce() -> bool,
        now: Now,
        host: &mut dyn Host,
    ) -> Result<Result<Option<Promise>, Refusal>, Breach> {
        let length = body.length();
        self.with_message(publish, length, body, is_text, now, host, |host, message| {
            accepted(host.publish(message))
        })
    }

    /// Lets `ask` ask for what a PUBLISH says. The inner result is its, or what it would have been.
    #[expect(clippy::too_many_arguments, reason = "what a PUBLISH is, in its parts")]
    fn with_message<T>(
        &mut self,
        publish: &Publish<'_>,
        length: u64,
        body: Body<'_>,
        is_text: impl FnOnce() -> bool,
        now: Now,
        host: &mut dyn Host,
        ask: impl FnOnce(&mut dyn Host, command::Publish<'_>) -> Result<T, Refusal>,
    ) -> Result<Result<T, Refusal>, Breach> {
        let Self { limits, sending, .. } = self;
        let Sending { fields, addresses, aliases, last, .. } = sending.make();
        last.forget();
        let topic = aliases.resolve(publish, limits.topic_aliases_max)?;
        let levels_max = limits.topic_levels_max;
        let send = || {
            if length > limits.body_bytes_max as u64 {
                return Err(Refusal::new(
                    Code::TooLarge,
                    format!("a message has at most {} bytes", limits.body_bytes_max),
                ));
            }
            let mut facts = translate::read_message(
                &publish.properties,
                is_text,
                publish.qos,
                publish.retain,
                levels_max,
                fields,
            )?;
            facts.expires = translate::expires(publish.properties.expiry_s, now.wall);
            let (targets, key) = addresses
                .resolve(topic, || Ok(FromIterator::from_iter([topic::target(topic, levels_max)?])))?;
            last.was(facts, publish.properties.expiry_s);
            ask(
                host,
                command::Publish {
                    targets,
                    key,
                    facts,
                    fields: fields.as_slice(),
                    body,
                    transaction: None,
                    once: publish.id.filter(|_| publish.qos == Qos::ExactlyOnce).map(PacketId::get),
                },
            )
        };
        Ok(send())
    }

    /// The large PUBLISH that is coming, if one is.
    pub(crate) fn coming(&mut self) -> Option<&mut Large> {
        self.sending.get_mut()?.coming.as_deref_mut()
    }

    pub(crate) fn take_coming(&mut self) -> Option<Box<Large>> {
        self.sending.get_mut()?.coming.take()
    }

    pub(crate) fn set_coming(&mut self, large: Option<Large>) {
        self.sending.make().coming = large.map(Box::new);
    }

    /// Whether the session waits for the host to take a large PUBLISH.
    pub(crate) fn awaits_body(&self) -> bool {
        let coming = self.sending.get().and_then(|sending| sending.coming.as_deref());
        coming.is_some_and(Large::waits)
    }

    /// PUBREL: the client knows that its message has arrived.
    fn forget(&mut self, id: PacketId, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Breach> {
        self.no_more_received(id);
        match accepted(host.ask(Command::Forget(id.get()))) {
            Ok(promise) => self.ack(AckKind::Pubcomp, id, Reason::Success, promise, host, out),
            Err(refusal) if refusal.code == Code::UnknownDelivery => {
                // 3.7.2.1: no error during recovery. The answer to its first PUBREL was lost, and some clients take anything
                // but success for a failure of the publish.
                let reason = if self.resumed { Reason::Success } else { Reason::PacketIdentifierNotFound };
                self.ack(AckKind::Pubcomp, id, reason, None, host, out);
            }
            // PUBCOMP cannot tell it. The client says it again on its next connection.
            Err(refusal) => return Err(Breach { reason: Reason::UnspecifiedError, refusal }),
        }
        Ok(())
    }

    /// PUBACK, PUBCOMP or a PUBREC that says no: the delivery has ended.
    fn settle(&mut self, kind: inflight::AckKind, ack: &Ack<'_>, host: &mut dyn Host) {
        host.settle(wire_ack(kind, ack.id, Settlement::Accepted));
    }

    /// PUBREC: the client has the message; from here on only PUBREL is sent for it, also after a restart [5: 4.3.3-6].
    fn received(&mut self, id: PacketId, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Breach> {
        let progress = u32::from(id.get()) | RECEIVED;
        let ack = wire_ack(inflight::AckKind::Pubrec, id, Settlement::Advanced(progress));
        match accepted(host.settle_now(ack)) {
            Ok(promise) => self.ack(AckKind::Pubrel, id, Reason::Success, promise, host, out),
            Err(refusal) if refusal.code == Code::UnknownDelivery => {
                let reason = Reason::PacketIdentifierNotFound;
                self.ack(AckKind::Pubrel, id, reason, None, host, out);
            }
            // What is not kept must not be relied on.
            Err(refusal) => return Err(Breach { reason: Reason::UnspecifiedError, refusal }),
        }
        Ok(())
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>, host: &mut dyn Host, out: &mut Chunks) {
        let mut codes = SmallVec::<[u8; 8]>::new();
        let (mut promise, mut refused) = (None, None);
        for wish in subscribe.subscriptions.iter() {
            let code = match self.bind(&wish, subscribe.subscription_id.unwrap_or(0), host) {
                Ok((granted, newer)) => {
                    promise = newest(promise, newer);
                    granted.level()
                }
                Err(refusal) => {
                    let code = refusal::subscribe(refusal.code).code();
                    refused.get_or_insert(refusal);
                    code
                }
            };
            codes.push(code);
        }
        let (account, version, id) = (self.account(), self.version, subscribe.id);
        self.reply(promise, false, host, out, |out| {
            account.give(Kind::Suback, refused.as_ref(), out, |diagnostics, out| {
                Suback { id, diagnostics, codes: &codes }.encode(version, out)
            });
        });
    }

    fn bind(
        &self,
        wish: &Subscription<'_>,
        identifier: u32,
        host: &mut dyn Host,
    ) -> Result<(Qos, Option<Promise>), Refusal> {
        let (pattern, group) = self.interest(wish.filter)?;
        // Who shares takes turns: a member that vanishes must not hold back what another can have.
        let shares = group.is_some() || pattern.kind() == Destined::Queue;
        let granted = if shares { wish.options.qos.min(Qos::AtLeastOnce) } else { wish.options.qos };
        let replay = match wish.options.retain_handling {
            // [5: 4.8.2] Nothing kept is sent to a group.
            _ if shares => Replay::Never,
            RetainHandling::Always => Replay::Always,
            RetainHandling::IfNew => Replay::IfNew,
            RetainHandling::Never => Replay::Never,
        };
        let promise = accepted(host.ask(Command::Bind(Bind {
            pattern: &pattern,
            group,
            identifier,
            guarantee: translate::guarantee(granted),
            no_local: wish.options.no_local,
            keep_retain: wish.options.retain_as_published,
            replay,
        })))?;
        Ok((granted, promise))
    }

    /// What a filter covers, and the group it shares with. Offered to clients of every version.
    fn interest<'a>(&self, text: &'a str) -> Result<(Pattern, Option<&'a str>), Refusal> {
        let levels_max = self.limits.topic_levels_max;
        let bounds = Bounds { levels_max: levels_max.saturating_add(2), ..Bounds::PROTOCOL };
        let invalid = |what: &str| Refusal::new(Code::InvalidDestination, format!("\"{text}\": {what}"));
        let filter = Filter::parse(text, bounds).map_err(|error| invalid(error.as_str()))?;
        let pattern = topic::pattern(filter.pattern(), levels_max)?;
        if filter.share().is_some() && pattern.kind() == Destined::Queue {
            return Err(invalid("who subscribes to a queue shares it anyway"));
        }
        Ok((pattern, filter.share()))
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, host: &mut dyn Host, out: &mut Chunks) {
        let mut codes = SmallVec::<[u8; 8]>::new();
        let (mut promise, mut refused) = (None, None);
        for filter in unsubscribe.filters.iter() {
            let outcome = self.interest(filter).and_then(|(pattern, group)| {
                accepted(host.ask(Command::Unbind { pattern: &pattern, group }))
            });
            codes.push(match outcome {
                Ok(newer) => {
                    promise = newest(promise, newer);
                    Reason::Success.code()
                }
                Err(refusal) => {
                    let reason = refusal::unsubscribe(refusal.code);
                    if reason.is_failure() {
                        refused.get_or_insert(refusal);
                    }
                    reason.code()
                }
            });
        }
        let (account, version, id) = (self.account(), self.version, unsubscribe.id);
        self.reply(promise, false, host, out, |out| {
            account.give(Kind::Unsuback, refused.as_ref(), out, |diagnostics, out| {
                Unsuback { id, diagnostics, codes: &codes }.encode(version, out)
            });
        });
    }

    fn disconnect(&mut self, disconnect: &Disconnect<'_>, host: &mut dyn Host) -> Result<(), Breach> {
        if let Some(expiry_s) = disconnect.session_expiry_s {
            // 3.14.2.2.2
            if self.ends_with_connection && expiry_s != 0 {
                return Err(Breach::protocol("a session that was to end with its connection cannot be kept"));
            }
            // The client is gone in any case; if it cannot be kept as asked, it is kept as before.
            let _ = host.ask(Command::SetLifetime(lifetime::lasts_ms(expiry_s, &self.limits)));
        }
        // [5: 3.14.4-3] [3: 3.14.4-3] Any other reason leaves the will to be sent.
        if disconnect.reason == Reason::Success {
            let _ = host.ask(Command::ClearWill);
        }
        self.state = State::Closed;
        Ok(())
    }
}

/// AUTH after CONNACK would have the client authenticate again, which the broker has no way to do.
fn again(auth: &Auth<'_>) -> Breach {
    match auth.reason {
        Reason::Reauthenticate => {
            Breach::new(Reason::BadAuthenticationMethod, "authenticating again is not built")
        }
        _ => Breach::protocol("there is no authentication to go on with"),
    }
}

fn wire_ack(kind: inflight::AckKind, id: PacketId, settlement: Settlement) -> WireAck {
    WireAck {
        subscription: None,
        name: AckName::Number(kind.name(id.get())),
        settlement,
        transaction: None,
        cookie: 0,
    }
}

/// Only CONNECT and AUTH are answered by an event; anything else that is not refused is done.
pub(crate) fn accepted(outcome: Outcome) -> Result<Option<Promise>, Refusal> {
    match outcome {
        Outcome::Accepted(promise) => Ok(promise),
        Outcome::Later => Ok(None),
        Outcome::Refused(refusal) => Err(refusal),
    }
}

/// The promise that is kept last.
fn newest(one: Option<Promise>, other: Option<Promise>) -> Option<Promise> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(Promise { position: one.position.max(other.position), synced: one.synced || other.synced })
        }
        (one, other) => one.or(other),
    }
}
