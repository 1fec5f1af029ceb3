//! One connection's side of the broker: the [`Host`] its session asks, and what its driver calls between batches.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::access::{Action, Principal, Resource};
use sabir_model::chunks::Chunks;
use sabir_model::clock::Instant;
use sabir_model::command::{Command, Outcome, Promise, Publish, ReceiptTime, WireAck};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::ids::{ConnectionId, MessageId, SubscriptionKey, TransactionKey};
use sabir_model::rare::Rare;
use sabir_model::session::{Egress, EgressNote, Host, Now, Room};
use sabir_store::Wake;

use crate::acknowledge::unknown_delivery;
use crate::bodies::Coming;
use crate::broker::{ConnectionInfo, Shared};
use crate::client_session::ClientSession;
use crate::desk::Desk;
use crate::login::Opening;
use crate::mailbox::{Mailbox, Owner};
use crate::outbox::{Mark, Outbox};
use crate::pressure::{Turn, Unsynced};
use crate::queue::{Queue, Role};
use crate::registry::VirtualHost;
use crate::sending::Known;
use crate::stats::{add, read};
use crate::transaction::{Transaction, no_transaction};
use crate::work::{finish, level_of, take_due};
use crate::writer::Writer;

/// One connection. Owned by the driver's task.
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) host: Arc<VirtualHost>,
    pub(crate) id: ConnectionId,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) principal: Principal,
    pub(crate) client_id: Option<Arc<str>>,
    /// The client session it is in charge of, and the will that goes with it.
    pub(crate) session: Option<Arc<ClientSession>>,
    /// The session's deliveries may begin at the end of this batch.
    pub(crate) grants_session: bool,
    pub(crate) work: Desk,
    /// What it keeps of where it has sent to, by the slots of their keys.
    pub(crate) known: Vec<Known>,
    /// Encoded fields that name the sender.
    pub(crate) stamp: Box<[u8]>,
    pub(crate) next_message: u64,
    pub(crate) receipts: Rare<VecDeque<Promise>>,
    pub(crate) waiting_for_log: bool,
    pub(crate) last_promise: Option<Promise>,
    /// How many subscriptions it has.
    pub(crate) subscribed: u32,
    /// Live messages wait until this batch's replies are in.
    pub(crate) gated: bool,
    pub(crate) events: Rare<VecDeque<Event>>,
    /// What most connections need for a moment, or never.
    pub(crate) aside: Rare<Aside>,
    pub(crate) closed: bool,
}

/// What most connections need for a moment, or never.
#[derive(Default)]
pub(crate) struct Aside {
    /// Who it is, if that was proved before it said a word.
    pub(crate) vouched: Option<Principal>,
    pub(crate) opening: Option<Box<Opening>>,
    /// What the log must cover before the connection is told that it is introduced.
    pub(crate) opens_at: Option<Promise>,
    pub(crate) to_grant: Vec<SubscriptionKey>,
    /// Its place among those who wait before they are read again.
    pub(crate) turn: Option<Turn>,
    /// A queue it has sent to that has more than its share of the memory.
    pub(crate) pressed: Option<Arc<Queue>>,
    /// Bytes sent while the log was behind that it may not hold yet.
    pub(crate) unsynced: Unsynced,
    /// Bytes of a frame that has arrived in part.
    pub(crate) framed: usize,
    pub(crate) transactions: HashMap<TransactionKey, Transaction, RandomState>,
    pub(crate) temporaries: Vec<(Destination, Box<str>)>,
    /// Queues whose deliveries are still on the way to the socket although their subscriptions have ended.
    pub(crate) left: Vec<Arc<Queue>>,
    /// A large body that comes piece by piece.
    pub(crate) coming: Option<Coming>,
}

impl Aside {
    fn is_needed(&self) -> bool {
        let Self {
            vouched,
            opening,
            opens_at,
            to_grant,
            turn,
            pressed,
            transactions,
            temporaries,
            left,
            coming,
            ..
        } = self;
        vouched.is_some()
            || coming.is_some()
            || opening.is_some()
            || opens_at.is_some()
            || turn.is_some()
            || pressed.is_some()
            || self.unsynced.bytes() > 0
            || self.framed > 0
            || !(to_grant.is_empty() && transactions.is_empty() && temporaries.is_empty() && left.is_empty())
    }
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: ConnectionId,
        info: ConnectionInfo,
        egress: Box<dyn Egress>,
        writer: Box<dyn Writer>,
    ) -> Self {
        let now = shared.now();
        let outbox =
            Arc::new(Outbox::new(id, Arc::clone(&shared.outbox_bounds), now.instant, egress, writer));
        let host = shared.host_named("/");
        let principal = Principal::anonymous(info.remote());
        let owner = Owner { principal: principal.clone(), host: Arc::clone(&host), client_id: None };
        let mailbox = Arc::new(Mailbox::new(id, Arc::clone(&outbox), info, now.wall, owner));
        Self {
            host,
            id,
            outbox,
            mailbox,
            principal,
            client_id: None,
            session: None,
            grants_session: false,
            work: Desk::new(now),
            known: Vec::new(),
            stamp: Box::default(),
            next_message: 1,
            receipts: Rare::new(),
            waiting_for_log: false,
            last_promise: None,
            subscribed: 0,
            gated: false,
            events: Rare::new(),
            aside: Rare::new(),
            closed: false,
            shared,
        }
    }

    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// This connection's number.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// When bytes were last written to the socket.
    #[must_use]
    pub fn last_written(&self) -> Instant {
        self.outbox.last_written()
    }

    /// Why the connection must be closed for reading too slowly, if it must.
    #[must_use]
    pub fn overrun(&self) -> Option<Refusal> {
        let refusal = self.outbox.overrun(self.shared.clock.now())?;
        add(&self.shared.counters.cut_off, 1);
        Some(refusal)
    }

    /// The next answer or news. Registers the task, which is also woken when the outbox needs its owner.
    pub fn poll_event(&mut self, cx: &mut Context<'_>, now: Now) -> Poll<Event> {
        self.outbox.set_waker(cx.waker());
        self.work.set_now(now);
        if let Some(result) = self.mailbox.take_login() {
            let event = self.logged_in(result);
            if !matches!(event, Event::Opened(_)) {
                return Poll::Ready(event);
            }
            // It comes before anything else that waits, but not before the log is where it must be.
            self.events.make().push_front(event);
            self.await_opening();
        }
        if self.opens_at().is_some() && !self.may_open() {
            return Poll::Pending;
        }
        if self.replay() && finish(&self.shared, self.work.get()) {
            self.outbox.wake_owner();
        }
        if let Some(events) = self.events.get_mut() {
            if let Some(event) = events.pop_front() {
                return Poll::Ready(event);
            }
            self.events.clear();
        }
        let covered = self.mailbox.covered.swap(false, Ordering::AcqRel);
        if covered {
            self.waiting_for_log = false;
            self.resume_backlog();
        }
        if let Some(event) = self.due_receipts() {
            return Poll::Ready(event);
        }
        if let Some(event) = self.mailbox.next_event() {
            return Poll::Ready(event);
        }
        Poll::Pending
    }

    fn opens_at(&self) -> Option<Promise> {
        self.aside.get().and_then(|aside| aside.opens_at)
    }

    /// Has the log wake us once it covers what the connection's opening tells.
    fn await_opening(&mut self) {
        if let Some(promise) = self.opens_at() {
            let mailbox: Arc<dyn Wake> = Arc::clone(&self.mailbox) as Arc<dyn Wake>;
            self.shared.store.wake_at(promise.position, level_of(promise), mailbox);
        }
    }

    /// Whether the log covers what the connection's opening tells.
    fn may_open(&mut self) -> bool {
        let covers = self
            .opens_at()
            .is_none_or(|promise| self.shared.store.watermark().covers(promise.position, level_of(promise)));
        if covers && let Some(aside) = self.aside.get_mut() {
            aside.opens_at = None;
        }
        covers
    }

    /// The log has gone on: what waits for it in the session's backlog may be handed over.
    fn resume_backlog(&mut self) {
        let backlog = self.session.as_ref().and_then(|session| session.backlog().map(Arc::clone));
        let Some(queue) = backlog else { return };
        self.work.get().durable = Some(self.shared.store.watermark());
        let mut held = queue.lock();
        if held.core.undurable.is_empty() {
            return;
        }
        held.core.dispatch(&queue, self.work.get());
        drop(held);
        if finish(&self.shared, self.work.get()) {
            self.outbox.wake_owner();
        }
    }

    /// Releases the receipts that the log covers, and asks to be woken for the next.
    fn due_receipts(&mut self) -> Option<Event> {
        let receipts = self.receipts.get_mut()?;
        let durable = self.shared.store.watermark();
        let mut due = 0;
        while let Some(promise) = receipts.front()
            && durable.covers(promise.position, level_of(*promise))
        {
            receipts.pop_front();
            due += 1;
        }
        if receipts.is_empty() {
            self.receipts.clear();
        }
        self.await_log();
        (due > 0).then_some(Event::Receipts(due))
    }

    fn await_log(&mut self) {
        if self.waiting_for_log {
            return;
        }
        if let Some(promise) = self.receipts.get().and_then(VecDeque::front) {
            self.waiting_for_log = true;
            let mailbox: Arc<dyn Wake> = Arc::clone(&self.mailbox) as Arc<dyn Wake>;
            self.shared.store.wake_at(promise.position, level_of(*promise), mailbox);
        }
    }

    /// Ends a batch: settles acknowledgements, appends `replies` to the own outbox, grants credit, dispatches, and
    /// flushes every outbox that was filled.
    pub fn end_batch(&mut self, now: Now, replies: &mut Chunks) {
        self.work.set_now(now);
        self.run_acks(false);
        self.release();
        self.note_pressure();
        if !replies.is_empty() || std::mem::take(&mut self.gated) {
            self.gated = false;
            self.outbox.append_replies(now, replies, &self.shared.counters);
            self.work.get().enlist(&self.outbox);
        }
        self.grant();
        if std::mem::take(&mut self.grants_session)
            && let Some(session) = &self.session
        {
            session.grant(self.id, self.work.get());
        }
        self.replay();
        self.await_log();
        let work = self.work.get();
        if work.published > 0 {
            let published = std::mem::take(&mut work.published);
            add(&self.shared.counters.published, published);
            // Nobody else writes it.
            self.mailbox.published.store(read(&self.mailbox.published) + published, Ordering::Relaxed);
            add(&self.shared.counters.published_bytes, std::mem::take(&mut work.published_bytes));
        }
        if finish(&self.shared, work) || self.events.get().is_some() {
            // The rest is this connection's to go on with, after others had their turn.
            self.outbox.wake_owner();
        }
        self.work.clear();
        if self.aside.get().is_some_and(|aside| !aside.is_needed()) {
            self.aside.clear();
        }
    }

    /// Writes what waits. Ready when nothing does.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, now: Now) -> Poll<io::Result<()>> {
        // Also where nothing was there to be read: the next in line must not wait for who is silent.
        self.end_reading();
        if self.work.is_clear() && self.outbox.is_settled() {
            // As it is at the end of most turns. Whoever fills it from now on flushes it or wakes its owner.
            return Poll::Ready(Ok(()));
        }
        self.work.set_now(now);
        let was_full = self.outbox.is_full();
        self.outbox.set_waker(cx.waker());
        for _ in 0..4 {
            let mut due: Vec<Mark> = Vec::new();
            let result = self.outbox.poll_flush(cx, now, &mut due, &self.shared.counters);
            if let Some(window) = self.outbox.to_load() {
                self.shared.hands.load(&self.outbox, window);
            }
            take_due(&self.shared, self.work.get(), &self.outbox, &mut due);
            let more = finish(&self.shared, self.work.get());
            self.work.clear();
            match result {
                Poll::Ready(Ok(())) if more => {}
                Poll::Ready(Ok(())) => {
                    if was_full {
                        // It may be read again.
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if more || (was_full && !self.outbox.is_full()) {
                        // What is left concerns others too and must not wait for this socket, or it may be read again.
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn temporaries(&self) -> &[(Destination, Box<str>)] {
        self.aside.get().map_or(&[], |aside| &aside.temporaries)
    }

    /// Releases the queue held since the last send, dispatching what came.
    pub(crate) fn release(&mut self) {
        if let Some((mut held, _)) = self.work.take_held() {
            let queue = Arc::clone(&held.queue);
            held.core.dispatch(&queue, self.work.get());
        }
    }
}

impl Host for Connection {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        if let Some(key) = publish.transaction {
            return self.keep_for_commit(key, &publish);
        }
        let result = match publish.once {
            None => self.send(&publish, None),
            Some(number) => self.send_once(&publish, number),
        };
        match result {
            Ok(promise) => {
                let work = self.work.get();
                work.published += 1;
                work.published_bytes += publish.body.length();
                if promise.is_some() {
                    self.last_promise = promise;
                    self.count_unsynced(publish.body.octets().map_or(0, <[u8]>::len) + publish.fields.len());
                }
                self.count_sent(publish.key, publish.targets);
                Outcome::Accepted(promise)
            }
            Err(refusal) => {
                self.shared.counters.refuse(refusal.code);
                Outcome::Refused(refusal)
            }
        }
    }

    fn begin_body(&mut self, publish: &Publish<'_>, length: Option<u64>) -> Result<(), Refusal> {
        let begun = self.begin_coming(publish, length);
        if let Err(refusal) = &begun {
            self.shared.counters.refuse(refusal.code);
        }
        begun
    }

    fn put_body(&mut self, piece: &[u8]) -> Room {
        match self.aside.get().and_then(|aside| aside.coming.as_ref()) {
            Some(coming) => coming.put(&self.shared.hands, piece),
            None => Room::Some,
        }
    }

    fn end_body(&mut self) {
        if let Some(coming) = self.aside.get().and_then(|aside| aside.coming.as_ref()) {
            coming.end(&self.shared.hands);
        }
    }

    fn drop_body(&mut self) {
        if let Some(aside) = self.aside.get_mut() {
            aside.coming = None;
        }
    }

    fn last_id(&self) -> Option<MessageId> {
        Some(self.id_at(self.next_message - 1))
    }

    fn settle(&mut self, ack: WireAck) {
        self.work.get().acks.push(ack);
    }

    fn settle_now(&mut self, ack: WireAck) -> Outcome {
        self.work.get().acks.push(ack);
        match self.run_acks(true) {
            (promise, refused) if refused.is_empty() => Outcome::Accepted(promise.or(self.last_promise)),
            _ => Outcome::Refused(unknown_delivery()),
        }
    }

    fn ask(&mut self, command: Command<'_>) -> Outcome {
        self.run_acks(false);
        match command {
            Command::Open(open) => self.open(open),
            Command::Subscribe(subscribe) => match self.subscribe(&subscribe) {
                Ok(promise) => Outcome::Accepted(promise),
                Err(refusal) => Outcome::Refused(refusal),
            },
            Command::Unsubscribe { key, forget_durable } => {
                self.release();
                match self.forget_subscription(key) {
                    Some(subscription) => {
                        let written = self.outbox.written();
                        Outcome::Accepted(self.end_subscription(subscription, written, forget_durable))
                    }
                    None => Outcome::Refused(Refusal::new(
                        Code::UnknownSubscription,
                        "no such subscription on this connection",
                    )),
                }
            }
            Command::Credit { key, limit } => match self.change_credit(key, limit) {
                Ok(()) => Outcome::Accepted(None),
                Err(refusal) => Outcome::Refused(refusal),
            },
            Command::ForgetDurable { name, client_id } => {
                self.release();
                match self.forget_durable(name, client_id) {
                    Ok(promise) => Outcome::Accepted(promise),
                    Err(refusal) => Outcome::Refused(refusal),
                }
            }
            Command::Respond(response) => self.respond(response),
            Command::Bind(bind) => {
                self.release();
                match self.bind(&bind) {
                    Ok(promise) => Outcome::Accepted(promise),
                    Err(refusal) => Outcome::Refused(refusal),
                }
            }
            Command::Unbind { pattern, group } => {
                self.release();
                match self.unbind(pattern, group) {
                    Ok(promise) => Outcome::Accepted(promise),
                    Err(refusal) => Outcome::Refused(refusal),
                }
            }
            Command::Forget(number) => self.forget(number),
            Command::SetLifetime(lasts_ms) => {
                self.change_session(|state| state.lasts_ms = lasts_ms);
                Outcome::Accepted(None)
            }
            Command::ClearWill => {
                self.change_session(|state| state.will = None);
                Outcome::Accepted(None)
            }
            Command::Begin(key) => self.begin(key),
            Command::Commit(key) => self.commit(key),
            Command::Abort(key) => {
                match self.aside.get_mut().and_then(|aside| aside.transactions.remove(&key)) {
                    Some(transaction) => {
                        transaction.give_back(&self.shared.budget);
                        add(&self.shared.counters.transactions_aborted, 1);
                        Outcome::Accepted(None)
                    }
                    None => no_transaction(),
                }
            }
            Command::Close => {
                self.drop_transactions();
                self.give_up_names();
                Outcome::Accepted(None)
            }
        }
    }

    fn temporary(&mut self, kind: Kind, label: &str) -> Result<Destination, Refusal> {
        let known = self.temporaries().iter().find(|(known, name)| known.kind() == kind && **name == *label);
        if let Some((destination, _)) = known {
            return Ok(destination.clone());
        }
        if self.temporaries().len() >= self.shared.limits.temporaries_max {
            let most = self.shared.limits.temporaries_max;
            let sentence = format!("a connection may have {most} temporary destinations");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        let number = self.temporaries().len() + 1;
        let name = format!("ID:{:x}-{:x}:{number}", self.shared.boot, self.id.0);
        let destination = Destination::from_canonical(kind, true, &name)?;
        self.shared.check(&self.principal, Action::Create, Resource::Destination(destination.as_ref()))?;
        self.release();
        match kind {
            Kind::Queue => {
                self.host.queue(&self.shared, &destination, Role::Temporary(self.id))?;
            }
            Kind::Topic => {
                self.host.temporary_topics.write().insert(destination.clone(), self.id);
            }
        }
        self.aside.make().temporaries.push((destination.clone(), label.into()));
        self.outbox.note(EgressNote::Temporary { destination: &destination, label });
        Ok(destination)
    }

    fn temporary_label(&self, destination: &Destination) -> Option<&str> {
        self.temporaries().iter().find(|(known, _)| known == destination).map(|(_, label)| &**label)
    }

    fn receipt(&mut self, promise: Option<Promise>) -> ReceiptTime {
        let promise = match (promise, self.receipts.get().and_then(VecDeque::back)) {
            (None, None) => return ReceiptTime::Now,
            (None, Some(newest)) => *newest,
            (Some(promise), None) => {
                if self.shared.store.watermark().covers(promise.position, level_of(promise)) {
                    return ReceiptTime::Now;
                }
                promise
            }
            (Some(promise), Some(_)) => promise,
        };
        self.receipts.make().push_back(promise);
        ReceiptTime::Later
    }

    fn note(&mut self, note: EgressNote<'_>) {
        self.outbox.note(note);
    }

    fn session_name(&self) -> String {
        match &self.client_id {
            Some(client_id) => client_id.to_string(),
            None => format!("ID:{:x}-{:x}", self.shared.boot, self.id.0),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("id", &self.mailbox.id).finish_non_exhaustive()
    }
}
