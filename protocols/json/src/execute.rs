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
use sabir_model::session::{EgressNote, Host, Now};
use sabir_model::settlement::{SettleMode, Settlement};
use sabir_model::transactions::Transactions;

use crate::address;
use crate::answers::{Answer, Waiting, say};
use crate::egress::OPTION_REPLIES;
use crate::envelope::{Draft, DraftBody};
use crate::error::EnvelopeError;
use crate::heartbeat::HeartBeat;
use crate::replies::{Replies, WAITING_MAX};
use crate::request::{Op, Request, invalid, missing, needed};
use crate::session::State;
use crate::subscriptions::Subscriptions;
use crate::token::DeliveryName;

/// How long a request waits that does not say, in milliseconds.
const TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// How long a request may wait, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 60 * 60 * 1000;

/// As `replyTo` of a message: to this very connection.
const OWN_REPLIES: &str = "$reply";

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
    pub(crate) reply_queue: Option<(String, SubscriptionKey)>,
    fields: FieldsWriter,
    addresses: AddressBook,
    pub(crate) subscriptions: Subscriptions,
    transactions: Transactions,
    temporaries: u64,
    /// The batch's acknowledgements without an answer.
    late: Vec<Late>,
    batch: u32,
}

/// Only an introduction is answered by an event; anything else that is not refused is done.
pub(crate) fn accepted(outcome: Outcome) -> Result<Option<Promise>, Refusal> {
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

    /// Something that belongs to this transaction was refused.
    pub(crate) fn spoil(&mut self, transaction: &str, refusal: &Refusal) {
        self.transactions.spoil(transaction, refusal);
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
            Op::Credit => self.credit(request, host, out),
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
    pub(crate) fn ok(
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
        if request.draft.reply_to.as_deref() == Some(OWN_REPLIES) {
            request.draft.reply_to = Some(Cow::Owned(self.reply_queue(host)?));
        }
        let promise = self.publish(&request.draft, transaction, now, host)?;
        // In a transaction nothing is kept, nor has an id, before its commit.
        let id = host.last_id().filter(|_| transaction.is_none());
        self.ok(request, promise, host, out, |answer| {
            let Some(id) = id else { return };
            answer.text("id", &id.to_string());
            match promise {
                Some(Promise { position, synced }) => {
                    answer.number("position", position.0);
                    answer.text("durability", if synced { "fsync" } else { "os" });
                }
                None => answer.text("durability", "memory"),
            }
        });
        Ok(())
    }

    /// Sends a message.
    fn publish(
        &mut self,
        draft: &Draft<'_>,
        transaction: Option<TransactionKey>,
        now: Now,
        host: &mut dyn Host,
    ) -> Result<Option<Promise>, EnvelopeError> {
        let to = needed(Op::Send, "destination", draft.destination.as_deref())?;
        self.check_size(draft)?;
        let (targets, key) = self.addresses.resolve(to, || address::targets(to)).map_err(of_destination)?;
        self.fields.clear();
        let mut publish = draft.publish(targets, key, now.wall, &mut self.fields)?;
        publish.transaction = transaction;
        Ok(accepted(host.publish(publish))?)
    }

    fn check_size(&self, draft: &Draft<'_>) -> Result<(), EnvelopeError> {
        let body = match &draft.body {
            DraftBody::None => 0,
            DraftBody::Text(text) => text.len(),
            DraftBody::Bytes(bytes) => bytes.len(),
            DraftBody::Map(encoded) | DraftBody::List(encoded) => encoded.len(),
            // It takes no memory.
            DraftBody::Stored(..) => 0,
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
        // By it the reply is known.
        let Some(reference) = words.reference else { return Err(missing(Op::Request, "ref")) };
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
        let of_delivery =
            |refusal: Refusal| EnvelopeError { field: Some("deliveryId".into()), ..refusal.into() };
        if let Some(promise) = self.settle_one(request, text, transaction, host).map_err(of_delivery)? {
            self.ok(request, promise, host, out, |_| {});
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
}

fn no_such_delivery(text: &str) -> Refusal {
    Refusal::new(Code::UnknownDelivery, format!("no unsettled delivery goes by {text:?}"))
}

pub(crate) fn of_destination(refusal: Refusal) -> EnvelopeError {
    EnvelopeError { field: Some("destination".into()), ..refusal.into() }
}

fn transaction<'t>(request: &'t Request<'_>) -> Result<&'t str, EnvelopeError> {
    needed(request.op, "transaction", request.words.transaction.as_deref())
}
