//! Carries out the frames of a connection that has introduced itself, by asking the host, and answers with receipts.

use std::sync::Arc;

use sabir_model::chunks::Chunks;
use sabir_model::command::{AckName, Command, Outcome, Promise, Publish, ReceiptTime, Subscribe, WireAck};
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal, Violation};
use sabir_model::ids::SubscriptionKey;
use sabir_model::limits::Limits;
use sabir_model::message::{Body, FieldsWriter};
use sabir_model::pattern::Pattern;
use sabir_model::rare::Rare;
use sabir_model::session::{EgressNote, Host, Now};
use sabir_model::settlement::{SettleMode, Settlement};
use sabir_model::transactions::Transactions;

use crate::ack_id::AckId;
use crate::address::{Temporaries, own_prefix};
use crate::egress::OPTION_BROWSER;
use crate::error::{put_error, survives};
use crate::frame::{Frame, Version};
use crate::heartbeat::HeartBeat;
use crate::receipts::{Kept, Receipts, put_receipt};
use crate::session::State;
use crate::subscriptions::{Active, Request, Subscriptions, missing, name_of_destination};
use crate::translate::{Sent, Surroundings, read_send};
use sabir_model::addresses::AddressBook;

/// Everything a session knows besides the bytes.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) limits: Arc<Limits>,
    pub(crate) state: State,
    pub(crate) version: Version,
    /// CONNECTED has been sent.
    pub(crate) greeted: bool,
    pub(crate) has_client_id: bool,
    pub(crate) continues_on_error: bool,
    pub(crate) heartbeat: HeartBeat,
    receipts: Rare<Receipts>,
    sending: Rare<Sending>,
    temporaries: Temporaries,
    subscriptions: Subscriptions,
    pub(crate) transactions: Rare<Transactions>,
    /// Own temporary queues named by a `reply-to` of this batch, which nobody has subscribed to.
    reply_queues: Rare<Vec<Box<str>>>,
    /// Names of the batch's acknowledgements, for refusals that come at its end.
    ack_names: Vec<u8>,
    batch: u16,
}

/// What a client needs that sends.
#[derive(Debug, Default)]
struct Sending {
    fields: FieldsWriter,
    addresses: AddressBook,
}

/// A SEND that was accepted, and what is left to do for it.
struct Done<'a> {
    promise: Option<Promise>,
    kept: Kept,
    receipt: Option<&'a str>,
    /// Own temporary queue named by `reply-to`.
    reply_queue: Option<&'a str>,
}

fn no_such_delivery(command: &str, name: &str) -> Refusal {
    Refusal::new(
        Code::UnknownDelivery,
        format!("Unexpected {command}: no unsettled delivery goes by \"{name}\""),
    )
}

impl Core {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        let temporaries = Temporaries::new(limits.subscriptions_max);
        Self {
            limits,
            state: State::Fresh,
            version: Version::V10,
            greeted: false,
            has_client_id: false,
            continues_on_error: false,
            heartbeat: HeartBeat::default(),
            receipts: Rare::new(),
            sending: Rare::new(),
            temporaries,
            subscriptions: Subscriptions::default(),
            transactions: Rare::new(),
            reply_queues: Rare::new(),
            ack_names: Vec::new(),
            batch: 0,
        }
    }

    /// New input has come: the names of the last input's acknowledgements are no longer needed.
    pub(crate) fn begin_batch(&mut self) {
        self.ack_names.clear();
        self.ack_names.shrink_to(16 * 1024);
        self.batch = self.batch.wrapping_add(1);
    }

    /// Whether so many receipts wait that reading pauses.
    pub(crate) fn is_held_up(&self) -> bool {
        self.receipts.get().is_some_and(|receipts| receipts.is_full(self.limits.receipts_pending_max))
    }

    /// Whether receipts wait for the disk.
    pub(crate) fn owes_receipts(&self) -> bool {
        self.receipts.get().is_some_and(|receipts| !receipts.is_empty())
    }

    /// The oldest `count` receipts may leave.
    pub(crate) fn release(&mut self, count: usize, out: &mut Chunks) {
        let Some(receipts) = self.receipts.get_mut() else { return };
        receipts.release(count, out);
        if receipts.is_empty() {
            self.receipts.clear();
        }
    }

    /// Carries out one frame. `body` is what of it is the body.
    ///
    /// # Errors
    /// The frame is refused; the caller writes ERROR.
    pub(crate) fn execute(
        &mut self,
        frame: &Frame<'_>,
        now: Now,
        body: Body<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Refusal> {
        match frame.command {
            "SEND" => self.send(frame, now, body, host, out),
            "ACK" => self.settle(frame, host, out),
            "NACK" if self.version > Version::V10 => self.settle(frame, host, out),
            "SUBSCRIBE" => self.subscribe(frame, host, out),
            "UNSUBSCRIBE" => self.unsubscribe(frame, host, out),
            "BEGIN" => self.begin(frame, host, out),
            "COMMIT" => self.commit(frame, host, out),
            "ABORT" => self.abort(frame, host, out),
            "DISCONNECT" => self.disconnect(frame, host, out),
            "CONNECT" | "STOMP" => {
                Err(Refusal::new(Code::UnexpectedFrame, "the connection has introduced itself already"))
            }
            other => Err(Refusal::new(
                Code::UnknownCommand,
                format!("{other} is not a command that a client of STOMP {} sends", self.version.as_str()),
            )),
        }
    }

    /// Answers a frame that asked for a receipt.
    fn receipt(
        &mut self,
        raw: Option<&str>,
        promise: Option<Promise>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) {
        // Less than synced is said, so that nobody takes the receipt for more than it is.
        let kept = if promise.is_some_and(|promise| !promise.synced) { Kept::Os } else { Kept::AsAsked };
        self.receipt_for(raw, kept, promise, host, out);
    }

    fn receipt_for(
        &mut self,
        raw: Option<&str>,
        kept: Kept,
        promise: Option<Promise>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) {
        let Some(raw) = raw else { return };
        match host.receipt(promise) {
            ReceiptTime::Now => out.write(raw.len() + 52, |out| put_receipt(out, raw, kept)),
            ReceiptTime::Later => self.receipts.make().push(raw, kept),
        }
    }

    fn send(
        &mut self,
        frame: &Frame<'_>,
        now: Now,
        body: Body<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Refusal> {
        let result = self.publish(frame, now, body, host);
        let Done { promise, kept, receipt, reply_queue } = self.spoil_if_refused(frame, result)?;
        self.receipt_for(receipt, kept, promise, host, out);
        if let Some(label) = reply_queue {
            let pending =
                self.reply_queues.get().is_some_and(|known| known.iter().any(|known| **known == *label));
            if !pending && self.subscriptions.wants_automatic(label) {
                self.reply_queues.make().push(label.into());
            }
        }
        Ok(())
    }

    fn publish<'a>(
        &mut self,
        frame: &Frame<'a>,
        now: Now,
        body: Body<'_>,
        host: &mut dyn Host,
    ) -> Result<Done<'a>, Refusal> {
        self.with_send(frame, now, body, host, |host, publish, sent| {
            let transaction = publish.transaction;
            let promise = accepted(host.publish(publish))?;
            let kept = match promise {
                Some(promise) if promise.synced => Kept::AsAsked,
                Some(_) => Kept::Os,
                // In a transaction nothing is kept before its commit.
                None if sent.facts.persistent && transaction.is_none() => Kept::Memory,
                None => Kept::AsAsked,
            };
            Ok(Done { promise, kept, receipt: sent.receipt, reply_queue: sent.reply_queue })
        })
    }

    /// Reads a SEND and lets `ask` ask for what it says.
    pub(crate) fn with_send<'a, T>(
        &mut self,
        frame: &Frame<'a>,
        now: Now,
        body: Body<'_>,
        host: &mut dyn Host,
        ask: impl FnOnce(&mut dyn Host, Publish<'_>, &Sent<'a>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut around = Surroundings {
            temporaries: &mut self.temporaries,
            host,
            wall: now.wall,
            length_means_bytes: self.limits.length_means_bytes,
        };
        let Sending { fields, addresses } = self.sending.make();
        fields.clear();
        let sent = read_send(frame, fields, &mut around)?;
        let transaction = sent.transaction.map(|name| self.transactions.make().key(name)).transpose()?;
        let temporaries = &mut self.temporaries;
        let (targets, key) = addresses.resolve(sent.destination, || {
            temporaries.targets(&frame.get("destination").unwrap_or_default(), host)
        })?;
        let (facts, fields) = (sent.facts, fields.as_slice());
        let publish = Publish { targets, key, facts, fields, body, transaction, once: None };
        ask(host, publish, &sent)
    }

    fn settle(&mut self, frame: &Frame<'_>, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Refusal> {
        let command = frame.command;
        let (mut id, mut message_id, mut subscription) = (None, None, None);
        let (mut transaction, mut receipt, mut requeue) = (None, None, None);
        for header in frame.headers() {
            let slot = match header.raw_name() {
                "id" => &mut id,
                "message-id" => &mut message_id,
                "subscription" => &mut subscription,
                "transaction" => &mut transaction,
                "receipt" => &mut receipt,
                "requeue" => &mut requeue,
                _ => continue,
            };
            slot.get_or_insert(header);
        }
        let settlement = match (command, requeue.map(|header| header.raw_value())) {
            ("ACK", _) => Settlement::Accepted,
            (_, None) => Settlement::Negative,
            (_, Some("true")) => Settlement::Failed,
            (_, Some("false")) => Settlement::Rejected,
            (_, Some(other)) => {
                return Err(Refusal::new(
                    Code::InvalidHeader,
                    format!("requeue must be true or false, not \"{other}\""),
                ));
            }
        };
        let transaction = match &transaction {
            Some(header) => Some(self.transactions.make().key(header.raw_value())?),
            None => None,
        };
        let receipt = receipt.map(|header| header.raw_value());
        let needed = if self.version == Version::V12 { ("id", id) } else { ("message-id", message_id) };
        let shown = needed.1.ok_or_else(|| missing(command, needed.0))?.value();
        let (subscription, name) = if self.version == Version::V12 {
            match AckId::parse(&shown).ok_or_else(|| no_such_delivery(command, &shown))? {
                AckId::Token(token, key) => (key, AckName::Token(token)),
                AckId::Free(key) => {
                    if command == "NACK" && self.subscriptions.is_browser(key) {
                        return Err(cannot_refuse());
                    }
                    self.receipt(receipt, None, host, out);
                    return Ok(());
                }
            }
        } else {
            let key = match subscription {
                Some(header) => {
                    let active = self.subscriptions.get(header.raw_value());
                    let active = active.ok_or_else(|| no_such_delivery(command, &shown))?;
                    if active.browse && command == "NACK" {
                        return Err(cannot_refuse());
                    }
                    Some(active.key)
                }
                None if self.version == Version::V10 => None,
                None => return Err(missing(command, "subscription")),
            };
            (key, AckName::Text(shown.as_bytes().into()))
        };
        let cookie = self.cookie(command, &shown);
        let ack = WireAck { subscription, name, settlement, transaction, cookie };
        if receipt.is_none() {
            host.settle(ack);
            return Ok(());
        }
        let promise = accepted(host.settle_now(ack)).map_err(|refusal| {
            if refusal.code == Code::UnknownDelivery { no_such_delivery(command, &shown) } else { refusal }
        })?;
        self.receipt(receipt, promise, host, out);
        Ok(())
    }

    /// A mark from which a late refusal can tell what it is about: the batch, the command, and where the name is kept.
    fn cookie(&mut self, command: &str, shown: &str) -> u64 {
        let offset = self.ack_names.len() as u64 & 0xffff_ffff;
        let length = shown.len().min(0x7fff);
        self.ack_names.extend_from_slice(shown.as_bytes().get(..length).unwrap_or_default());
        u64::from(self.batch) << 48 | u64::from(command == "NACK") << 47 | (length as u64) << 32 | offset
    }

    /// A settlement asked for without a receipt was refused.
    pub(crate) fn settle_refused(
        &mut self,
        cookie: u64,
        refusal: Refusal,
        out: &mut Chunks,
    ) -> Result<(), Violation> {
        let command = if cookie >> 47 & 1 == 1 { "NACK" } else { "ACK" };
        let offset = usize::try_from(cookie & 0xffff_ffff).unwrap_or(usize::MAX);
        let length = usize::try_from(cookie >> 32 & 0x7fff).unwrap_or(0);
        let name = self.ack_names.get(offset..).and_then(|names| names.get(..length));
        let refusal = match name.filter(|_| cookie >> 48 == u64::from(self.batch)) {
            Some(name) if refusal.code == Code::UnknownDelivery => {
                no_such_delivery(command, &String::from_utf8_lossy(name))
            }
            _ => refusal,
        };
        put_error(out, self.version, &refusal, &[]);
        if survives(command, &refusal, self.version, self.continues_on_error) {
            return Ok(());
        }
        self.state = State::Closed;
        Err(Violation(refusal))
    }

    fn subscribe(&mut self, frame: &Frame<'_>, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Refusal> {
        let id = frame.raw("id").unwrap_or_default();
        if id.is_empty() && self.version > Version::V10 {
            return Err(missing("SUBSCRIBE", "id"));
        }
        let request = Request::read(frame, self.version)?;
        let (patterns, must_exist) = self.temporaries.patterns(&request.destination, host)?;
        let has = |kind| patterns.iter().any(|pattern: &Pattern| pattern.kind() == kind);
        if request.browse && has(Kind::Topic) {
            return Err(Refusal::new(Code::InvalidDestination, "only a queue can be browsed"));
        }
        if request.durable.is_some() && has(Kind::Queue) {
            return Err(Refusal::new(
                Code::InvalidDestination,
                "only a topic can have a durable subscription; a queue keeps its messages anyway",
            ));
        }
        for label in request.destination.split(',').map(str::trim) {
            if label.starts_with(own_prefix(Kind::Queue))
                && let Some(key) = self.subscriptions.claim(label)
            {
                // The client wants its replies under a name of its own.
                accepted(host.ask(Command::Unsubscribe { key, forget_durable: false }))?;
                host.note(EgressNote::Detach(key));
            }
        }
        let raw_destination = frame.raw("destination").unwrap_or_default();
        let name = if id.is_empty() { name_of_destination(raw_destination) } else { id.to_owned() };
        let key = self.subscriptions.reserve(&name, id, self.limits.subscriptions_max)?;
        let prefetch = self.limits.prefetch;
        let usual = match (request.browse, &request.durable) {
            (true, _) => prefetch.browser,
            (false, Some(_)) => prefetch.durable,
            (false, None) if has(Kind::Queue) => prefetch.queue,
            (false, None) => prefetch.topic,
        };
        let mut label = id.as_bytes().to_vec();
        if request.browse {
            label.push(b'\n');
            label.extend_from_slice(raw_destination.as_bytes());
        }
        let options = if request.browse { OPTION_BROWSER } else { 0 };
        // Before the broker knows the subscription, for the first delivery may follow at once.
        host.note(EgressNote::Attach { key, label: &label, settle: request.settle, options });
        let outcome = host.ask(Command::Subscribe(Subscribe {
            key,
            patterns: &patterns,
            settle: request.settle,
            credit: Some(request.credit.unwrap_or(usual)),
            selector: request.selector.as_deref(),
            selector_converts_text: true,
            durable: request.durable.as_deref(),
            browse: request.browse,
            no_local: request.no_local,
            priority: request.priority,
            must_exist,
        }));
        let promise = accepted(outcome).inspect_err(|_| host.note(EgressNote::Detach(key)))?;
        let by_destination = self.version == Version::V10;
        self.subscriptions.insert(
            &name,
            Active {
                key,
                browse: request.browse,
                durable: request.durable.map(Into::into),
                id: id.into(),
                destination: if by_destination { raw_destination.into() } else { Box::default() },
            },
        );
        self.receipt(frame.raw("receipt"), promise, host, out);
        Ok(())
    }

    fn unsubscribe(
        &mut self,
        frame: &Frame<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Refusal> {
        let id = frame.raw("id").filter(|id| !id.is_empty());
        let named = frame.get("activemq.subscriptionName").or_else(|| frame.get("activemq.subcriptionName"));
        // RabbitMQ's way to say that the durable subscription behind the id goes too.
        let goes_too = ["durable", "persistent"].iter().any(|name| frame.raw(name) == Some("true"));
        let active = match (id, frame.raw("destination")) {
            (Some(id), _) => self.subscriptions.remove(id),
            (None, Some(destination)) if self.version == Version::V10 => {
                self.subscriptions.remove_destination(destination)
            }
            _ if named.is_some() => None,
            _ => return Err(missing("UNSUBSCRIBE", "id")),
        };
        let mut promise = None;
        let mut forget = named.clone();
        if let Some(active) = active {
            let same = active.durable.as_deref().is_some_and(|own| named.as_deref().is_none_or(|n| n == own));
            let forget_durable = same && (named.is_some() || goes_too);
            if forget_durable {
                forget = None;
            }
            // First the broker: acknowledgements that came before this frame still find their window.
            let outcome = host.ask(Command::Unsubscribe { key: active.key, forget_durable });
            host.note(EgressNote::Detach(active.key));
            // A browser that has seen everything is gone by itself.
            promise = if active.browse { accepted(outcome).unwrap_or(None) } else { accepted(outcome)? };
        } else if let Some(key) = id.and_then(|id| self.subscriptions.remove_automatic(id)) {
            let outcome = host.ask(Command::Unsubscribe { key, forget_durable: false });
            host.note(EgressNote::Detach(key));
            promise = accepted(outcome)?;
        } else if forget.is_none() {
            if !goes_too {
                let what = id.or_else(|| frame.raw("destination")).unwrap_or_default();
                return Err(Refusal::new(
                    Code::UnknownSubscription,
                    format!("this connection has no subscription \"{what}\""),
                ));
            }
            forget = frame.get("id");
        }
        if let Some(name) = forget {
            // Clients of 1.0 that gave no client id used the subscription's name for it.
            let stand_in = self.version == Version::V10 && !self.has_client_id;
            let client_id = stand_in.then_some(&*name);
            promise = accepted(host.ask(Command::ForgetDurable { name: &name, client_id }))?;
        }
        self.receipt(frame.raw("receipt"), promise, host, out);
        Ok(())
    }

    fn begin(&mut self, frame: &Frame<'_>, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Refusal> {
        let name = transaction_name(frame)?;
        let key = self.transactions.make().begin(name, self.limits.transactions_max)?;
        let promise = accepted(host.ask(Command::Begin(key)))?;
        self.receipt(frame.raw("receipt"), promise, host, out);
        Ok(())
    }

    fn commit(&mut self, frame: &Frame<'_>, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Refusal> {
        let name = transaction_name(frame)?;
        let (transaction, spoiled) = self.transactions.make().end(name)?;
        let result = match spoiled {
            None => accepted(host.ask(Command::Commit(transaction))),
            Some(cause) => {
                accepted(host.ask(Command::Abort(transaction)))?;
                let sentence = format!(
                    "the transaction \"{name}\" was aborted, for a frame in it was refused: {}",
                    cause.sentence
                );
                Err(Refusal::new(cause.code, sentence))
            }
        };
        host.note(EgressNote::TransactionEnded { transaction, committed: result.is_ok() });
        let promise = result?;
        self.receipt(frame.raw("receipt"), promise, host, out);
        Ok(())
    }

    fn abort(&mut self, frame: &Frame<'_>, host: &mut dyn Host, out: &mut Chunks) -> Result<(), Refusal> {
        let (transaction, _) = self.transactions.make().end(transaction_name(frame)?)?;
        let promise = accepted(host.ask(Command::Abort(transaction)))?;
        host.note(EgressNote::TransactionEnded { transaction, committed: false });
        self.receipt(frame.raw("receipt"), promise, host, out);
        Ok(())
    }

    fn disconnect(
        &mut self,
        frame: &Frame<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Refusal> {
        let promise = accepted(host.ask(Command::Close))?;
        self.receipt(frame.raw("receipt"), promise, host, out);
        self.state = State::Leaving;
        Ok(())
    }

    /// Subscribes the client to its own temporary queues that this batch's `reply-to` headers named, as RabbitMQ does.
    /// At the end of the batch, for a SUBSCRIBE of the client's own may come in it.
    pub(crate) fn subscribe_to_replies(
        &mut self,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Violation> {
        for label in self.reply_queues.take() {
            if let Err(refusal) = self.subscribe_to_reply(&label, host) {
                put_error(out, self.version, &refusal, &[]);
                self.state = State::Closed;
                return Err(Violation(refusal));
            }
        }
        Ok(())
    }

    fn subscribe_to_reply(&mut self, label: &str, host: &mut dyn Host) -> Result<(), Refusal> {
        if !self.subscriptions.wants_automatic(label) {
            return Ok(());
        }
        let name = label.strip_prefix(own_prefix(Kind::Queue)).unwrap_or_default();
        let Some(queue) = self.temporaries.known_queue(name) else { return Ok(()) };
        let pattern = Pattern::from(queue.clone());
        let key =
            self.subscriptions.reserve(&name_of_destination(label), label, self.limits.subscriptions_max)?;
        let settle = SettleMode::Auto;
        host.note(EgressNote::Attach { key, label: label.as_bytes(), settle, options: 0 });
        let outcome = host.ask(Command::Subscribe(Subscribe {
            key,
            patterns: std::slice::from_ref(&pattern),
            settle,
            credit: Some(self.limits.prefetch.queue),
            selector: None,
            selector_converts_text: true,
            durable: None,
            browse: false,
            no_local: false,
            priority: 0,
            must_exist: false,
        }));
        accepted(outcome).inspect_err(|_| host.note(EgressNote::Detach(key)))?;
        self.subscriptions.insert_automatic(label, key);
        Ok(())
    }

    /// The broker has ended a subscription. STOMP has no frame for that but ERROR.
    pub(crate) fn subscription_ended(
        &mut self,
        key: SubscriptionKey,
        refusal: Refusal,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), Violation> {
        host.note(EgressNote::Detach(key));
        let Some(id) = self.subscriptions.remove_key(key) else { return Ok(()) };
        let header = [("subscription", &*id)];
        put_error(out, self.version, &refusal, if id.is_empty() { &[] } else { &header });
        if self.continues_on_error {
            return Ok(());
        }
        self.state = State::Closed;
        Err(Violation(refusal))
    }
}

/// Only CONNECT is answered by an event; anything else that is not refused is done.
fn accepted(outcome: Outcome) -> Result<Option<Promise>, Refusal> {
    match outcome {
        Outcome::Accepted(promise) => Ok(promise),
        Outcome::Later => Ok(None),
        Outcome::Refused(refusal) => Err(refusal),
    }
}

fn cannot_refuse() -> Refusal {
    Refusal::new(Code::UnexpectedFrame, "a browser only looks: it has nothing to refuse with NACK")
}

fn transaction_name<'a>(frame: &Frame<'a>) -> Result<&'a str, Refusal> {
    let name = frame.raw("transaction").filter(|name| !name.is_empty());
    name.ok_or_else(|| missing(frame.command, "transaction"))
}
