//! Carries out what a connection that is let in asks for, by asking the host, and answers.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use sabir_model::addresses::AddressBook;
use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::command::{AckName, Command, Outcome, Promise, ReceiptTime, Subscribe, WireAck};
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal, Violation};
use sabir_model::ids::{SubscriptionKey, TransactionKey};
use sabir_model::limits::Limits;
use sabir_model::message::FieldsWriter;
use sabir_model::pattern::Pattern;
use sabir_model::session::{EgressNote, Host, Now};
use sabir_model::settlement::{SettleMode, Settlement};

use crate::address;
use crate::answers::{Answer, Waiting, say};
use crate::egress::OPTION_REPLIES;
use crate::envelope::{Draft, DraftBody};
use crate::error::EnvelopeError;
use crate::heartbeat::HeartBeat;
use crate::replies::{Replies, WAITING_MAX};
use crate::request::{Op, Request, invalid, needed};
use crate::session::State;
use crate::subscriptions::{Active, Subscriptions};
use crate::token::DeliveryName;
use crate::transactions::Transactions;
use crate::window::CREDIT_MAX;

/// How long a request waits that does not say, in milliseconds.
const TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// How long a request may wait, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 60 * 60 * 1000;

/// An acknowledgement nobody asked an answer for, in case it is refused.
#[derive(Debug)]
struct Late {
    op: Op,
    reference: Option<u64>,
    delivery_id: Box<str>,
}

/// Everything a session knows besides the bytes.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) limits: Arc<Limits>,
    pub(crate) state: State,
    pub(crate) heartbeat: HeartBeat,
    pub(crate) waiting: Waiting,
    pub(crate) replies: Replies,
    /// Where replies to requests arrive, once there was one: how it is called, and the subscription to it.
    reply_queue: Option<(String, SubscriptionKey)>,
    fields: FieldsWriter,
    addresses: AddressBook,
    subscriptions: Subscriptions,
    transactions: Transactions,
    temporaries: u64,
    /// The batch's acknowledgements without an answer.
    late: Vec<Late>,
    batch: u32,
}

/// Only an introduction is answered by an event; anything else that is not refused is done.
fn accepted(outcome: Outcome) -> Result<Option<Promise>, Refusal> {
    match outcome {
        Outcome::Accepted(promise) => Ok(promise),
        Outcome::Later => Ok(None),
        Outcome::Refused(refusal) => Err(refusal),
    }
}

impl Core {
    pub(crate) fn new(limits: Arc<Limits>, replies: Replies) -> Self {
        Self {
            limits,
            state: State::Fresh,
            heartbeat: HeartBeat::default(),
            waiting: Waiting::default(),
            replies,
            reply_queue: None,
            fields: FieldsWriter::new(),
            addresses: AddressBook::default(),
            subscriptions: Subscriptions::default(),
            transactions: Transactions::default(),
            temporaries: 0,
            late: Vec::new(),
            batch: 0,
        }
    }

    /// New input has come: the last input's acknowledgements are decided.
    pub(crate) fn begin_batch(&mut self) {
        self.late.clear();
        self.late.shrink_to(64);
        self.batch = self.batch.wrapping_add(1);
    }

    /// Whether so many answers wait that reading pauses.
    pub(crate) fn is_held_up(&self) -> bool {
        self.waiting.is_full(self.limits.receipts_pending_max)
    }

    /// The conversation cannot go on: says so.
    pub(crate) fn broken(&mut self, refusal: Refusal, out: &mut Chunks) -> Violation {
        say("error", None, out, |answer| answer.refusal(&refusal));
        self.state = State::Closed;
        Violation(refusal)
    }

    /// Carries out one object.
    ///
    /// # Errors
    /// It is refused; the caller says so.
    pub(crate) fn execute(
        &mut self,
        request: &mut Request<'_>,
        now: Now,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        match request.op {
            Op::Send => self.send(request, now, host, out),
            Op::Request => self.request(request, now, host),
            Op::Subscribe => self.subscribe(request, host, out),
            Op::Unsubscribe => self.unsubscribe(request, host, out),
            Op::Ack | Op::Nack | Op::Release => self.settle(request, host, out),
            Op::Begin => {
                let key = self.transactions.begin(transaction(request)?, self.limits.transactions_max)?;
                let promise = accepted(host.ask(Command::Begin(key)))?;
                self.ok(request, promise, host, out, |_| {});
                Ok(())
            }
            Op::Commit => self.commit(request, host, out),
            Op::Abort => {
                let (transaction, _) = self.transactions.end(transaction(request)?)?;
                let promise = accepted(host.ask(Command::Abort(transaction)))?;
                host.note(EgressNote::TransactionEnded { transaction, committed: false });
                self.ok(request, promise, host, out, |_| {});
                Ok(())
            }
            Op::Temporary => self.temporary(request, host, out),
            Op::Ping => {
                say("pong", request.words.reference, out, |_| {});
                Ok(())
            }
            Op::Disconnect => {
                let promise = accepted(host.ask(Command::Close))?;
                self.ok(request, promise, host, out, |_| {});
                self.state = State::Leaving;
                Ok(())
            }
            // The session has looked at it already.
            Op::Connect => {
                Err(EnvelopeError::new(Code::UnexpectedFrame, "a connection introduces itself once"))
            }
        }
    }

    /// Answers that something is done: when the promise is kept, or now if there is none.
    fn ok(
        &mut self,
        request: &Request<'_>,
        promise: Option<Promise>,
        host: &mut dyn Host,
        out: &mut Chunks,
        members: impl FnOnce(&mut Answer<'_>),
    ) {
        let reference = request.words.reference;
        if request.words.no_reply {
            return;
        }
        match host.receipt(promise) {
            ReceiptTime::Now => say("ok", reference, out, members),
            ReceiptTime::Later => self.waiting.push("ok", reference, members),
        }
    }

    fn send(
        &mut self,
        request: &mut Request<'_>,
        now: Now,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let named = request.words.transaction.as_deref();
        let transaction = named.map(|name| self.transactions.key(name)).transpose()?;
        let (promise, persistent) = match self.publish(&request.draft, transaction, now, host) {
            Ok(done) => done,
            Err(error) => {
                if let Some(name) = named {
                    self.transactions.spoil(name, &error.clone().into());
                }
                return Err(error);
            }
        };
        let durability = match promise {
            Some(promise) if promise.synced => Some("fsync"),
            Some(_) => Some("os"),
            // In a transaction nothing is kept before its commit.
            None if transaction.is_some() => None,
            None => Some("memory"),
        };
        self.ok(request, promise, host, out, |answer| {
            if let Some(durability) = durability.filter(|_| persistent) {
                answer.text("durability", durability);
            }
        });
        Ok(())
    }

    /// Sends a message; whether it is persistent, too.
    fn publish(
        &mut self,
        draft: &Draft<'_>,
        transaction: Option<TransactionKey>,
        now: Now,
        host: &mut dyn Host,
    ) -> Result<(Option<Promise>, bool), EnvelopeError> {
        let to = needed(Op::Send, "destination", draft.destination.as_deref())?;
        self.check_size(draft)?;
        let (targets, key) = self.addresses.resolve(to, || address::targets(to)).map_err(of_destination)?;
        self.fields.clear();
        let mut publish = draft.publish(targets, key, now.wall, &mut self.fields)?;
        publish.transaction = transaction;
        let persistent = publish.facts.persistent;
        Ok((accepted(host.publish(publish))?, persistent))
    }

    fn check_size(&self, draft: &Draft<'_>) -> Result<(), EnvelopeError> {
        let body = match &draft.body {
            DraftBody::None => 0,
            DraftBody::Text(text) => text.len(),
            DraftBody::Bytes(bytes) => bytes.len(),
            DraftBody::Map(encoded) | DraftBody::List(encoded) => encoded.len(),
        };
        let too_large = |field: &str, sentence| EnvelopeError {
            field: Some(field.to_owned()),
            ..EnvelopeError::new(Code::TooLarge, sentence)
        };
        let Limits { body_bytes_max, headers_max, .. } = *self.limits;
        if body > body_bytes_max {
            return Err(too_large("body", format!("a body is at most {body_bytes_max} bytes long")));
        }
        if draft.properties.len() + draft.user_properties.len() > headers_max {
            return Err(too_large("properties", format!("a message has at most {headers_max} properties")));
        }
        Ok(())
    }

    /// Sends a message whose reply is the answer.
    fn request(
        &mut self,
        request: &mut Request<'_>,
        now: Now,
        host: &mut dyn Host,
    ) -> Result<(), EnvelopeError> {
        let Request { draft, words, .. } = request;
        let Some(reference) = words.reference else {
            let sentence = "request needs the key ref, by which its reply is known";
            return Err(EnvelopeError {
                field: Some("ref".into()),
                ..EnvelopeError::new(Code::MissingHeader, sentence)
            });
        };
        for (field, is_there) in
            [("replyTo", draft.reply_to.is_some()), ("correlationId", draft.correlation_id.is_some())]
        {
            if is_there {
                return Err(invalid(
                    field,
                    format!("{field} of a request is chosen by the broker: leave it out"),
                ));
            }
        }
        let timeout_ms = words.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT);
        if timeout_ms > TIMEOUT_MS_MAX {
            return Err(invalid("timeout", format!("timeout is at most {TIMEOUT_MS_MAX} milliseconds")));
        }
        needed(Op::Request, "destination", draft.destination.as_deref())?;
        let reply_to = self.reply_queue(host)?;
        let until = now.instant.after(Duration::from_millis(timeout_ms));
        let Some((serial, correlation)) = self.replies.expect(reference, until) else {
            let sentence = format!("at most {WAITING_MAX} requests of a connection wait for replies");
            return Err(EnvelopeError::new(Code::LimitReached, sentence));
        };
        draft.reply_to = Some(Cow::Owned(reply_to));
        draft.correlation_id = Some(Cow::Owned(correlation));
        if draft.ttl_ms.is_none() && draft.expiration.is_none() {
            // Nobody waits for an answer to it after that.
            draft.ttl_ms = Some(timeout_ms);
        }
        if let Err(error) = self.publish(draft, None, now, host) {
            self.replies.take(serial);
            return Err(error);
        }
        Ok(())
    }

    /// The queue that replies arrive in, made and subscribed to at the first request.
    fn reply_queue(&mut self, host: &mut dyn Host) -> Result<String, Refusal> {
        if let Some((name, _)) = &self.reply_queue {
            return Ok(name.clone());
        }
        let queue = host.temporary(Kind::Queue, "replies")?;
        let name = address::shown(queue.as_ref());
        let key = self.subscriptions.key(self.limits.subscriptions_max)?;
        let settle = SettleMode::Auto;
        host.note(EgressNote::Attach { key, label: b"", settle, options: OPTION_REPLIES });
        let outcome = host.ask(Command::Subscribe(Subscribe {
            key,
            patterns: &[queue.into()],
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
        self.reply_queue = Some((name.clone(), key));
        Ok(name)
    }

    /// Requests whose time is up are answered.
    pub(crate) fn give_up_requests(&mut self, now: Instant, out: &mut Chunks) {
        while let Some(reference) = self.replies.take_overdue(now) {
            say("error", Some(reference), out, |answer| {
                answer.refusal(&Refusal::new(Code::TimedOut, "no reply came in time"));
                answer.text("of", Op::Request.as_str());
            });
        }
    }

    fn temporary(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let kind = match request.words.kind.as_deref() {
            None | Some("queue") => Kind::Queue,
            Some("topic") => Kind::Topic,
            Some(other) => return Err(invalid("kind", format!("kind is queue or topic, not {other:?}"))),
        };
        let destination = host.temporary(kind, &format!("own-{}", self.temporaries))?;
        self.temporaries += 1;
        self.ok(request, None, host, out, |answer| {
            answer.text("destination", &address::shown(destination.as_ref()));
        });
        Ok(())
    }

    fn settle(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let Request { op, words, .. } = request;
        let named = words.transaction.as_deref();
        let transaction = named.map(|name| self.transactions.key(name)).transpose()?;
        let text = needed(*op, "deliveryId", words.delivery_id.as_deref())?;
        let result = self.settle_one(request, text, transaction, host);
        match result {
            Ok(None) => {}
            Ok(Some(promise)) => self.ok(request, promise, host, out, |_| {}),
            Err(refusal) => {
                if let Some(name) = named {
                    self.transactions.spoil(name, &refusal);
                }
                return Err(EnvelopeError { field: Some("deliveryId".into()), ..refusal.into() });
            }
        }
        Ok(())
    }

    /// Settles; `None` where it is decided at the end of the batch and nobody waits for it.
    fn settle_one(
        &mut self,
        request: &Request<'_>,
        text: &str,
        transaction: Option<TransactionKey>,
        host: &mut dyn Host,
    ) -> Result<Option<Option<Promise>>, Refusal> {
        let Request { op, words, .. } = request;
        let settlement = match (op, words.requeue) {
            (Op::Ack, _) => Settlement::Accepted,
            (Op::Release, _) => Settlement::Released,
            (_, None) => Settlement::Negative,
            (_, Some(true)) => Settlement::Failed,
            (_, Some(false)) => Settlement::Rejected,
        };
        let (token, subscription) = match DeliveryName::parse(text).ok_or_else(|| no_such_delivery(text))? {
            DeliveryName::Token(token, key) => (token, key),
            DeliveryName::Free(key) if *op != Op::Ack && self.subscriptions.is_browser(key) => {
                let sentence = "a browser only looks: it has nothing to give back";
                return Err(Refusal::new(Code::UnexpectedFrame, sentence));
            }
            DeliveryName::Free(_) => return Ok(Some(None)),
        };
        let cookie = u64::from(self.batch) << 32 | self.late.len() as u64;
        let ack = WireAck { subscription, name: AckName::Token(token), settlement, transaction, cookie };
        // In a transaction it must be known before the commit, which may follow in the same batch.
        if words.no_reply && transaction.is_none() {
            self.late.push(Late { op: *op, reference: words.reference, delivery_id: text.into() });
            host.settle(ack);
            return Ok(None);
        }
        accepted(host.settle_now(ack)).map(Some).map_err(|refusal| match refusal.code {
            Code::UnknownDelivery => no_such_delivery(text),
            _ => refusal,
        })
    }

    /// A settlement nobody waited for was refused.
    pub(crate) fn settle_refused(&mut self, cookie: u64, refusal: &Refusal, out: &mut Chunks) {
        let index = usize::try_from(cookie & 0xffff_ffff).unwrap_or(usize::MAX);
        let late = self.late.get(index).filter(|_| cookie >> 32 == u64::from(self.batch));
        let refusal = match late {
            Some(late) if refusal.code == Code::UnknownDelivery => &no_such_delivery(&late.delivery_id),
            _ => refusal,
        };
        say("error", late.and_then(|late| late.reference), out, |answer| {
            answer.refusal(refusal);
            if let Some(late) = late {
                answer.text("of", late.op.as_str());
                answer.text("deliveryId", &late.delivery_id);
            }
        });
    }

    fn subscribe(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let Request { draft, words, .. } = request;
        let id = needed(Op::Subscribe, "id", words.id.as_deref())?;
        let to = needed(Op::Subscribe, "destination", draft.destination.as_deref())?;
        let settle = match words.ack.as_deref() {
            None | Some("auto") => SettleMode::Auto,
            Some("client") => SettleMode::Cumulative,
            Some("individual") => SettleMode::Individual,
            Some(other) => {
                return Err(invalid("ack", format!("ack is auto, client or individual, not {other:?}")));
            }
        };
        let patterns = address::patterns(to).map_err(of_destination)?;
        let has = |kind| patterns.iter().any(|pattern: &Pattern| pattern.kind() == kind);
        let durable = words.durable.as_deref();
        if words.browse && has(Kind::Topic) {
            return Err(of_destination(Refusal::new(
                Code::InvalidDestination,
                "only a queue can be browsed",
            )));
        }
        if durable.is_some() && has(Kind::Queue) {
            let sentence = "only a topic can have a durable subscription; a queue keeps its messages anyway";
            return Err(of_destination(Refusal::new(Code::InvalidDestination, sentence)));
        }
        let prefetch = self.limits.prefetch;
        let usual = match (words.browse, durable) {
            (true, _) => prefetch.browser,
            (false, Some(_)) => prefetch.durable,
            (false, None) if has(Kind::Queue) => prefetch.queue,
            (false, None) => prefetch.topic,
        };
        let asked = words.credit.map(|credit| u32::try_from(credit).unwrap_or(CREDIT_MAX).min(CREDIT_MAX));
        let credit = asked.unwrap_or(usual);
        let key = self.subscriptions.reserve(id, self.limits.subscriptions_max)?;
        // Before the broker knows the subscription, for the first delivery may follow at once.
        host.note(EgressNote::Attach { key, label: id.as_bytes(), settle, options: 0 });
        let outcome = host.ask(Command::Subscribe(Subscribe {
            key,
            patterns: &patterns,
            settle,
            credit: Some(credit),
            selector: words.selector.as_deref().filter(|text| !text.trim().is_empty()),
            selector_converts_text: true,
            durable,
            browse: words.browse,
            no_local: words.no_local,
            priority: draft.priority.and_then(|priority| i8::try_from(priority).ok()).unwrap_or(0),
            must_exist: words.must_exist,
        }));
        let promise = accepted(outcome).inspect_err(|_| host.note(EgressNote::Detach(key)))?;
        self.subscriptions.insert(id, Active { key, browse: words.browse, durable: durable.is_some() });
        self.ok(request, promise, host, out, |answer| answer.number("credit", u64::from(credit)));
        Ok(())
    }

    fn unsubscribe(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let words = &request.words;
        let promise = match (words.id.as_deref(), words.durable.as_deref()) {
            (Some(_), Some(_)) => {
                let sentence = "durable names one that is not active; to end one that is, use id and forget";
                return Err(invalid("durable", sentence.to_owned()));
            }
            (None, Some(name)) => accepted(host.ask(Command::ForgetDurable { name, client_id: None }))?,
            (id, None) => {
                let id = needed(Op::Unsubscribe, "id", id)?;
                let known = self.subscriptions.get(id).map(|active| active.durable);
                if words.forget && known == Some(false) {
                    let sentence = "only a durable subscription can be forgotten";
                    return Err(invalid("forget", sentence.to_owned()));
                }
                let Some(active) = self.subscriptions.remove(id) else {
                    let sentence = format!("this connection has no subscription {id:?}");
                    return Err(EnvelopeError {
                        field: Some("id".into()),
                        ..EnvelopeError::new(Code::UnknownSubscription, sentence)
                    });
                };
                let Active { key, browse, .. } = active;
                // First the broker: acknowledgements that came before still find their window.
                let outcome = host.ask(Command::Unsubscribe { key, forget_durable: words.forget });
                host.note(EgressNote::Detach(key));
                // A browser that has seen everything is gone by itself.
                if browse { accepted(outcome).unwrap_or(None) } else { accepted(outcome)? }
            }
        };
        self.ok(request, promise, host, out, |_| {});
        Ok(())
    }

    fn commit(
        &mut self,
        request: &Request<'_>,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) -> Result<(), EnvelopeError> {
        let name = transaction(request)?;
        let (transaction, spoiled) = self.transactions.end(name)?;
        let result = match spoiled {
            None => accepted(host.ask(Command::Commit(transaction))),
            Some(cause) => accepted(host.ask(Command::Abort(transaction))).and_then(|_| {
                let why = cause.sentence;
                let sentence =
                    format!("the transaction {name:?} was aborted, for a part of it was refused: {why}");
                Err(Refusal::new(cause.code, sentence))
            }),
        };
        host.note(EgressNote::TransactionEnded { transaction, committed: result.is_ok() });
        let promise = result?;
        self.ok(request, promise, host, out, |_| {});
        Ok(())
    }

    /// The broker has ended a subscription.
    pub(crate) fn subscription_ended(
        &mut self,
        key: SubscriptionKey,
        refusal: &Refusal,
        host: &mut dyn Host,
        out: &mut Chunks,
    ) {
        host.note(EgressNote::Detach(key));
        if self.reply_queue.as_ref().is_some_and(|(_, known)| *known == key) {
            // The next request makes another one.
            self.reply_queue = None;
        }
        let Some(id) = self.subscriptions.remove_key(key) else { return };
        say("closed", None, out, |answer| {
            answer.text("id", &id);
            answer.refusal(refusal);
        });
    }
}

fn no_such_delivery(text: &str) -> Refusal {
    Refusal::new(Code::UnknownDelivery, format!("no unsettled delivery goes by {text:?}"))
}

fn of_destination(refusal: Refusal) -> EnvelopeError {
    EnvelopeError { field: Some("destination".into()), ..refusal.into() }
}

fn transaction<'t>(request: &'t Request<'_>) -> Result<&'t str, EnvelopeError> {
    needed(request.op, "transaction", request.words.transaction.as_deref())
}
