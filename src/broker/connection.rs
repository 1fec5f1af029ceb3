//! One connection's side of the broker: the [`Host`] its session asks, and what its driver calls between batches.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use sabir_model::access::{Action, Attempt, Principal, Resource};
use sabir_model::chunks::Chunks;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::command::{Command, Open, Outcome, Promise, Publish, ReceiptTime, TargetKey, WireAck};
use sabir_model::destination::{Destination, Kind, Targets};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::ids::{ConnectionId, MessageId, SubscriptionKey, TransactionKey};
use sabir_model::message::{FieldsWriter, Tag};
use sabir_model::pattern::Pattern;
use sabir_model::session::{Egress, EgressNote, Host, Now, Settled};
use sabir_store::{Level, Wake};

use crate::broker::{ConnectionInfo, Shared};
use crate::outbox::{Mark, Outbox, Writer};
use crate::publish::{Failure, Incoming, enqueue_single, execute, fan_out, plan, stronger};
use crate::queue::{Held, Role};
use crate::registry::VirtualHost;
use crate::route::{Route, resolve};
use crate::stats::add;
use crate::subscribe::Subscription;
use crate::transaction::Transaction;
use crate::work::{Work, finish, settle, take_due};

/// Sends into one queue after which its lock is released and what has come is dispatched.
const HELD_SENDS_MAX: u32 = 64;
/// Routes one connection keeps.
const ROUTES_MAX: usize = 64;
/// Events that may wait for one connection.
const EVENTS_MAX: usize = 100_000;

/// Where others leave news for a connection.
pub(crate) struct Mailbox {
    id: ConnectionId,
    outbox: Arc<Outbox>,
    events: Mutex<VecDeque<Event>>,
    login: Mutex<Option<Result<Principal, Refusal>>>,
    /// The log has covered what the connection waits for.
    covered: AtomicBool,
}

impl Mailbox {
    pub(crate) fn post(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() < EVENTS_MAX {
            events.push_back(event);
        }
        drop(events);
        self.outbox.wake_owner();
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.covered.store(true, Ordering::Release);
        self.outbox.wake_owner();
    }
}

/// One connection. Owned by the driver's task.
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) host: Arc<VirtualHost>,
    pub(crate) id: ConnectionId,
    info: ConnectionInfo,
    pub(crate) outbox: Arc<Outbox>,
    mailbox: Arc<Mailbox>,
    pub(crate) principal: Principal,
    pub(crate) client_id: Option<Box<str>>,
    opening: Option<Opening>,
    pub(crate) work: Work,
    held: Option<(Held, u32)>,
    routes: Vec<Option<(u32, Arc<Route>)>>,
    /// Encoded fields that name the sender.
    stamp: Vec<u8>,
    next_message: u64,
    acks: Vec<WireAck>,
    receipts: VecDeque<Promise>,
    waiting_for_log: bool,
    last_promise: Option<Promise>,
    paused_at: Option<u64>,
    pub(crate) subscriptions: HashMap<SubscriptionKey, Subscription, RandomState>,
    pub(crate) to_grant: Vec<SubscriptionKey>,
    /// Live messages wait until this batch's replies are in.
    pub(crate) gated: bool,
    transactions: HashMap<TransactionKey, Transaction, RandomState>,
    temporaries: Vec<(Destination, Box<str>)>,
    events: VecDeque<Event>,
    /// Counted here and added up at the end of a batch.
    published: u64,
    published_bytes: u64,
    closed: bool,
}

/// What a login in progress has asked for.
struct Opening {
    client_id: Option<Box<str>>,
    virtual_host: Option<Box<str>>,
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
        let outbox = Arc::new(Outbox::new(id, shared.limits.outbox, now.instant, egress, writer));
        let mailbox = Arc::new(Mailbox {
            id,
            outbox: Arc::clone(&outbox),
            events: Mutex::default(),
            login: Mutex::default(),
            covered: AtomicBool::new(false),
        });
        let host = shared.host_named("/");
        Self {
            host,
            id,
            outbox,
            mailbox,
            principal: Principal::anonymous(info.remote()),
            info,
            client_id: None,
            opening: None,
            work: Work::new(now),
            held: None,
            routes: Vec::new(),
            stamp: Vec::new(),
            next_message: 1,
            acks: Vec::new(),
            receipts: VecDeque::new(),
            waiting_for_log: false,
            last_promise: None,
            paused_at: None,
            subscriptions: HashMap::default(),
            to_grant: Vec::new(),
            gated: false,
            transactions: HashMap::default(),
            temporaries: Vec::new(),
            events: VecDeque::new(),
            published: 0,
            published_bytes: 0,
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
        self.outbox.overrun(self.shared.clock.now())
    }

    /// The next answer or news. Registers the task, which is also woken when the outbox needs its owner.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.outbox.set_waker(cx.waker());
        self.work.now = self.shared.now();
        let login = self.mailbox.login.lock().take();
        if let Some(result) = login {
            return Poll::Ready(match self.opened(result) {
                Ok(()) => Event::Opened,
                Err(refusal) => Event::OpenRefused(refusal),
            });
        }
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let covered = self.mailbox.covered.swap(false, Ordering::AcqRel);
        if covered {
            self.waiting_for_log = false;
        }
        if let Some(event) = self.due_receipts() {
            return Poll::Ready(event);
        }
        if let Some(event) = self.mailbox.events.lock().pop_front() {
            return Poll::Ready(event);
        }
        Poll::Pending
    }

    /// Releases the receipts that the log covers, and asks to be woken for the next.
    fn due_receipts(&mut self) -> Option<Event> {
        if self.receipts.is_empty() {
            return None;
        }
        let durable = self.shared.store.watermark();
        let mut due = 0;
        while let Some(promise) = self.receipts.front()
            && durable.covers(promise.position, level_of(*promise))
        {
            self.receipts.pop_front();
            due += 1;
        }
        if self.receipts.is_empty() && self.receipts.capacity() > 1024 {
            self.receipts = VecDeque::new();
        }
        self.await_log();
        (due > 0).then_some(Event::Receipts(due))
    }

    fn await_log(&mut self) {
        if self.waiting_for_log {
            return;
        }
        if let Some(promise) = self.receipts.front() {
            self.waiting_for_log = true;
            let mailbox: Arc<dyn Wake> = Arc::clone(&self.mailbox) as Arc<dyn Wake>;
            self.shared.store.wake_at(promise.position, level_of(*promise), mailbox);
        }
    }

    /// Ends a batch: settles acknowledgements, appends `replies` to the own outbox, grants credit, dispatches, and
    /// flushes every outbox that was filled.
    pub fn end_batch(&mut self, now: Now, replies: &mut Chunks) {
        self.work.now = now;
        self.run_acks(false);
        self.release();
        if !replies.is_empty() || std::mem::take(&mut self.gated) {
            self.gated = false;
            self.outbox.append_replies(now, replies, &self.shared.counters);
            self.work.enlist(&self.outbox);
        }
        self.grant();
        self.await_log();
        if self.published > 0 {
            add(&self.shared.counters.published, std::mem::take(&mut self.published));
            add(&self.shared.counters.published_bytes, std::mem::take(&mut self.published_bytes));
        }
        if finish(&self.shared, &mut self.work) || !self.events.is_empty() {
            // The rest is this connection's to go on with, after others had their turn.
            self.outbox.wake_owner();
        }
        self.acks.shrink_to(1024);
    }

    /// Writes what waits. Ready when nothing does.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.shared.now();
        self.work.now = now;
        self.outbox.set_waker(cx.waker());
        for _ in 0..4 {
            let mut due: Vec<Mark> = Vec::new();
            let result = self.outbox.poll_flush(cx, now, &mut due, &self.shared.counters);
            take_due(&self.shared, &mut self.work, self.id, &mut due);
            let more = finish(&self.shared, &mut self.work);
            match result {
                Poll::Ready(Ok(())) if more => {}
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if more {
                        // What is left concerns others too and must not wait for this socket.
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Pending while this connection's reading should pause: the log is behind, or memory runs low. Only connections
    /// that consume nothing pause, so that no consumer is starved.
    pub fn poll_readable_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.subscriptions.is_empty() {
            return Poll::Ready(());
        }
        if let Some(promise) = self.last_promise
            && self.shared.store.pending_bytes() > self.shared.limits.pending_bytes_soft
            && !self.shared.store.watermark().covers(promise.position, level_of(promise))
        {
            self.outbox.set_waker(cx.waker());
            let mailbox: Arc<dyn Wake> = Arc::clone(&self.mailbox) as Arc<dyn Wake>;
            self.shared.store.wake_at(promise.position, level_of(promise), mailbox);
            return Poll::Pending;
        }
        if self.shared.memory_is_low() {
            // One read per tick: slow enough for consumers to catch up, and never a standstill.
            let ticks = self.shared.ticks.load(Ordering::Acquire);
            if self.paused_at.is_none_or(|at| at == ticks) {
                self.paused_at = Some(ticks);
                self.shared.paused.lock().push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        self.paused_at = None;
        Poll::Ready(())
    }

    /// Leaves in good order, or (`clean` false) as one whose peer has vanished.
    pub fn close(mut self, clean: bool) {
        self.shut(clean);
    }

    fn shut(&mut self, clean: bool) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.work.now = self.shared.now();
        if clean {
            self.run_acks(false);
        }
        self.release();
        let written = self.outbox.close();
        for (_, subscription) in self.subscriptions.drain().collect::<Vec<_>>() {
            self.end_subscription(subscription, written, false);
        }
        self.drop_transactions();
        for (destination, _) in std::mem::take(&mut self.temporaries) {
            self.delete_temporary(&destination);
        }
        if let Some(client_id) = self.client_id.take() {
            self.host.client_ids.lock().remove(&client_id);
        }
        self.shared.connections.lock().remove(&self.id);
        let mut rounds = 0;
        while finish(&self.shared, &mut self.work) && rounds < 1000 {
            rounds += 1;
        }
    }

    fn drop_transactions(&mut self) {
        let open = self.transactions.len() as u64;
        if open > 0 {
            add(&self.shared.counters.transactions_aborted, open);
            self.transactions.clear();
        }
    }

    /// Releases the queue held since the last send, dispatching what came.
    pub(crate) fn release(&mut self) {
        if let Some((mut held, _)) = self.held.take() {
            let queue = Arc::clone(&held.queue);
            held.core.dispatch(&queue, &mut self.work);
        }
    }

    fn opened(&mut self, result: Result<Principal, Refusal>) -> Result<(), Refusal> {
        let opening = self.opening.take();
        let principal = result.inspect_err(|_| add(&self.shared.counters.logins_failed, 1))?;
        self.shared
            .check(&principal, Action::Connect, Resource::Server)
            .inspect_err(|_| add(&self.shared.counters.logins_failed, 1))?;
        if let Some(name) = opening.as_ref().and_then(|opening| opening.virtual_host.as_deref()) {
            self.host = self.shared.host_named(name);
        }
        if let Some(client_id) = opening.and_then(|opening| opening.client_id) {
            let mut known = self.host.client_ids.lock();
            if known.contains_key(&client_id) {
                let sentence = format!("the client id \"{client_id}\" is in use by another connection");
                return Err(Refusal::new(Code::ClientIdInUse, sentence));
            }
            known.insert(client_id.clone(), self.id);
            drop(known);
            self.client_id = Some(client_id);
        }
        let mut fields = FieldsWriter::new();
        if let Some(name) = principal.name() {
            fields.field(Tag::UserId, name.as_bytes());
        }
        self.stamp = fields.as_slice().to_vec();
        self.principal = principal;
        tracing::debug!(
            connection = self.id.0,
            peer = %self.info.peer,
            listener = self.info.listener,
            user = %self.principal,
            "connection opened"
        );
        Ok(())
    }

    fn open(&mut self, open: Open<'_>) -> Outcome {
        let remote = self.info.remote();
        let login: Option<Box<str>> = open.login.map(Into::into);
        let passcode: Option<Box<[u8]>> = open.passcode.map(Into::into);
        self.opening = Some(Opening {
            client_id: open.client_id.filter(|id| !id.is_empty()).map(Into::into),
            virtual_host: open.virtual_host.map(Into::into),
        });
        let (shared, mailbox) = (Arc::clone(&self.shared), Arc::clone(&self.mailbox));
        let check = Box::new(move || {
            let attempt = Attempt::new(login.as_deref(), passcode.as_deref(), remote);
            let result = shared.authenticator.authenticate(&attempt);
            *mailbox.login.lock() = Some(result);
            mailbox.outbox.wake_owner();
        });
        let accepted = match &self.shared.pool {
            Some(pool) => pool.submit(check),
            None => {
                check();
                true
            }
        };
        if accepted {
            Outcome::Later
        } else {
            self.opening = None;
            Outcome::Refused(Refusal::new(
                Code::LimitReached,
                "too many logins wait to be checked; try again",
            ))
        }
    }

    fn route(&mut self, key: TargetKey, targets: &Targets) -> Result<Arc<Route>, Refusal> {
        let slot = usize::from(key.slot);
        if let Some(Some((generation, route))) = self.routes.get(slot)
            && *generation == key.generation
            && route.is_fresh(&self.shared, &self.host)
        {
            return Ok(Arc::clone(route));
        }
        // Resolving may create queues and lock them.
        self.release();
        let route = Arc::new(resolve(&self.shared, &self.host, &self.principal, targets)?);
        if slot < ROUTES_MAX {
            if slot >= self.routes.len() {
                self.routes.resize(slot + 1, None);
            }
            if let Some(place) = self.routes.get_mut(slot) {
                *place = Some((key.generation, Arc::clone(&route)));
            }
        }
        Ok(route)
    }

    fn forget_route(&mut self, key: TargetKey) {
        if let Some(place) = self.routes.get_mut(usize::from(key.slot)) {
            *place = None;
        }
    }

    fn send(&mut self, publish: &Publish<'_>) -> Result<Option<Promise>, Refusal> {
        let mut facts = publish.facts;
        facts.id = self.next_id();
        if facts.timestamp == Timestamp::default() {
            facts.timestamp = self.work.now.wall;
        }
        for attempt in 0..4 {
            let route = self.route(publish.key, publish.targets)?;
            let stamp = std::mem::take(&mut self.stamp);
            let incoming = Incoming {
                facts,
                stamp: &stamp,
                fields: publish.fields,
                body: publish.body.clone(),
                connection: self.id,
            };
            let result = self.carry_out(&route, &incoming);
            self.stamp = stamp;
            match result {
                Ok(promise) => return Ok(promise),
                Err(Failure::Refused(refusal)) => return Err(refusal),
                Err(Failure::Stale) if attempt < 3 => self.forget_route(publish.key),
                Err(Failure::Stale) => {}
            }
        }
        Err(Refusal::new(Code::Internal, "the destination is being deleted and created at the same time"))
    }

    fn carry_out(&mut self, route: &Route, incoming: &Incoming<'_>) -> Result<Option<Promise>, Failure> {
        if let (Some(queue), Some(leg)) = (&route.single, route.legs.first()) {
            let mut held = match self.held.take() {
                Some((held, sends)) if held.queue.id == queue.id && sends < HELD_SENDS_MAX => (held, sends),
                other => {
                    self.held = other;
                    self.release();
                    (queue.lock(), 0)
                }
            };
            let result = enqueue_single(&self.shared, &mut held.0, leg, incoming, &mut self.work);
            held.1 += 1;
            self.held = Some(held);
            return result;
        }
        self.release();
        if let [leg] = route.legs.as_slice()
            && leg.queues.is_empty()
            && leg.conditions.is_empty()
            && leg.unless.is_empty()
        {
            fan_out(&self.shared, leg, incoming, &mut self.work);
            return Ok(None);
        }
        let mut planned = Vec::with_capacity(route.legs.len());
        plan(route, incoming, &self.work, &mut planned);
        if planned.is_empty() {
            add(&self.shared.counters.unrouted, 1);
            return Ok(None);
        }
        execute(&self.shared, &planned, &[], self.id, &mut self.work)
    }

    pub(crate) fn next_id(&mut self) -> MessageId {
        let number = self.next_message;
        self.next_message += 1;
        MessageId { origin: u64::from(self.shared.boot) << 32 | (self.id.0 & 0xffff_ffff), number }
    }

    /// Settles what the batch has acknowledged. Returns the newest promise of the log and, per refused acknowledgement,
    /// its place in the batch.
    fn run_acks(&mut self, receipted: bool) -> (Option<Promise>, Vec<usize>) {
        if self.acks.is_empty() {
            return (None, Vec::new());
        }
        self.release();
        let acks = std::mem::take(&mut self.acks);
        let mut settled: Vec<Settled> = Vec::with_capacity(acks.len());
        let mut unknown: Vec<usize> = Vec::new();
        self.outbox.acknowledged(&acks, &mut settled, &mut unknown);
        let mut newest = None;
        let mut level = Level::Os;
        let mut rest = settled.as_slice();
        while let Some(first) = rest.first() {
            let transaction = acks.get(first.ack).and_then(|ack| ack.transaction);
            let same = rest
                .iter()
                .take_while(|one| {
                    one.token.queue == first.token.queue
                        && acks.get(one.ack).and_then(|ack| ack.transaction) == transaction
                })
                .count();
            let (group, later) = rest.split_at(same);
            rest = later;
            if let Some(transaction) = transaction {
                self.settle_later(transaction, group, &mut unknown);
                continue;
            }
            let queue = (first.token.boot == self.shared.boot)
                .then(|| self.shared.queue(first.token.queue))
                .flatten();
            let Some(queue) = queue else {
                unknown.extend(group.iter().map(|one| one.ack));
                continue;
            };
            // An acknowledgement nobody waits for goes with the next sync, not with one of its own. One that covers
            // several queues is logged ever more strongly, so that the last promise keeps them all.
            if receipted {
                level = stronger(level, queue.policy.durability);
            }
            let items = group.iter().map(|one| (one.token, one.settlement));
            let refused = |index: usize| unknown.extend(group.get(index).map(|one| one.ack));
            newest = settle(&self.shared, &queue, self.id, items, level, &mut self.work, refused).or(newest);
        }
        unknown.sort_unstable();
        unknown.dedup();
        self.last_promise = newest.or(self.last_promise);
        let last = acks.len() - 1;
        for index in &unknown {
            if let Some(ack) = acks.get(*index)
                && !(receipted && *index == last)
            {
                self.events
                    .push_back(Event::SettleRefused { cookie: ack.cookie, refusal: unknown_delivery() });
            }
        }
        let mut acks = acks;
        acks.clear();
        self.acks = acks;
        (newest, if unknown.last() == Some(&last) { vec![last] } else { Vec::new() })
    }

    /// Keeps settlements for a transaction's commit.
    fn settle_later(&mut self, key: TransactionKey, group: &[Settled], unknown: &mut Vec<usize>) {
        let Some(first) = group.first() else { return };
        let queue =
            (first.token.boot == self.shared.boot).then(|| self.shared.queue(first.token.queue)).flatten();
        let (Some(queue), Some(transaction)) = (queue, self.transactions.get_mut(&key)) else {
            unknown.extend(group.iter().map(|one| one.ack));
            return;
        };
        let core = queue.core.lock();
        for one in group {
            if core.knows(one.token, self.id) && !transaction.settles(one.token) {
                transaction.settlements.push((one.token, one.settlement));
            } else {
                unknown.push(one.ack);
            }
        }
    }

    fn begin(&mut self, key: TransactionKey) -> Outcome {
        if self.transactions.contains_key(&key) {
            return Outcome::Refused(Refusal::new(
                Code::DuplicateTransaction,
                "the transaction is already open",
            ));
        }
        self.transactions.insert(key, Transaction::default());
        Outcome::Accepted(None)
    }

    fn commit(&mut self, key: TransactionKey) -> Outcome {
        let Some(transaction) = self.transactions.remove(&key) else { return no_transaction() };
        self.release();
        match self.run_transaction(&transaction) {
            Ok(promise) => {
                add(&self.shared.counters.transactions_committed, 1);
                self.last_promise = promise.or(self.last_promise);
                Outcome::Accepted(promise)
            }
            Err(refusal) => {
                add(&self.shared.counters.transactions_aborted, 1);
                Outcome::Refused(refusal)
            }
        }
    }

    fn run_transaction(&mut self, transaction: &Transaction) -> Result<Option<Promise>, Refusal> {
        for _ in 0..4 {
            let mut planned = Vec::new();
            for send in &transaction.sends {
                let route = resolve(&self.shared, &self.host, &self.principal, &send.targets)?;
                let incoming = send.incoming(&self.stamp, self.id);
                plan(&route, &incoming, &self.work, &mut planned);
            }
            match execute(&self.shared, &planned, &transaction.settlements, self.id, &mut self.work) {
                Ok(promise) => {
                    add(&self.shared.counters.published, transaction.sends.len() as u64);
                    return Ok(promise);
                }
                Err(Failure::Refused(refusal)) => return Err(refusal),
                Err(Failure::Stale) => {}
            }
        }
        Err(Refusal::new(
            Code::Internal,
            "a destination of the transaction is being deleted and created all the time",
        ))
    }

    fn keep_for_commit(&mut self, key: TransactionKey, publish: &Publish<'_>) -> Outcome {
        // Targets are resolved now, so that a refusal reaches the send it is about.
        if let Err(refusal) = self.route(publish.key, publish.targets) {
            return Outcome::Refused(refusal);
        }
        let id = self.next_id();
        let now = self.work.now.wall;
        let limits = &self.shared.limits;
        let Some(transaction) = self.transactions.get_mut(&key) else { return no_transaction() };
        match transaction.keep(publish, id, now, limits.transaction_bytes_max, limits.transaction_items_max) {
            Ok(()) => Outcome::Accepted(None),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn delete_temporary(&mut self, destination: &Destination) {
        match destination.kind() {
            Kind::Queue => {
                if let Some(queue) = self.host.find_queue(destination) {
                    let (host, shared) = (Arc::clone(&self.host), Arc::clone(&self.shared));
                    host.delete_queue(&shared, &queue, &mut self.work);
                }
            }
            Kind::Topic => {
                self.host.temporary_topics.write().remove(destination);
                // Whoever has sent there remembers the way.
                self.host.touch(&Pattern::from(destination.clone()));
            }
        }
    }
}

fn level_of(promise: Promise) -> Level {
    if promise.synced { Level::Fsync } else { Level::Os }
}

fn no_transaction() -> Outcome {
    Outcome::Refused(Refusal::new(Code::UnknownTransaction, "no such open transaction on this connection"))
}

fn unknown_delivery() -> Refusal {
    Refusal::new(Code::UnknownDelivery, "no unsettled delivery of this connection goes by that id")
}

impl Host for Connection {
    fn publish(&mut self, publish: Publish<'_>) -> Outcome {
        if let Some(key) = publish.transaction {
            return self.keep_for_commit(key, &publish);
        }
        match self.send(&publish) {
            Ok(promise) => {
                self.published += 1;
                self.published_bytes += publish.body.as_slice().len() as u64;
                self.last_promise = promise.or(self.last_promise);
                Outcome::Accepted(promise)
            }
            Err(refusal) => {
                add(&self.shared.counters.refused, 1);
                Outcome::Refused(refusal)
            }
        }
    }

    fn settle(&mut self, ack: WireAck) {
        self.acks.push(ack);
    }

    fn settle_now(&mut self, ack: WireAck) -> Outcome {
        self.acks.push(ack);
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
                match self.subscriptions.remove(&key) {
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
            Command::ForgetDurable { name, client_id } => {
                self.release();
                match self.forget_durable(name, client_id) {
                    Ok(promise) => Outcome::Accepted(promise),
                    Err(refusal) => Outcome::Refused(refusal),
                }
            }
            Command::Begin(key) => self.begin(key),
            Command::Commit(key) => self.commit(key),
            Command::Abort(key) => match self.transactions.remove(&key) {
                Some(_) => {
                    add(&self.shared.counters.transactions_aborted, 1);
                    Outcome::Accepted(None)
                }
                None => no_transaction(),
            },
            Command::Close => {
                self.drop_transactions();
                Outcome::Accepted(None)
            }
        }
    }

    fn temporary(&mut self, kind: Kind, label: &str) -> Result<Destination, Refusal> {
        let known = self.temporaries.iter().find(|(known, name)| known.kind() == kind && **name == *label);
        if let Some((destination, _)) = known {
            return Ok(destination.clone());
        }
        if self.temporaries.len() >= self.shared.limits.temporaries_max {
            let most = self.shared.limits.temporaries_max;
            let sentence = format!("a connection may have {most} temporary destinations");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        let number = self.temporaries.len() + 1;
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
        self.temporaries.push((destination.clone(), label.into()));
        self.outbox.note(EgressNote::Temporary { destination: &destination, label });
        Ok(destination)
    }

    fn temporary_label(&self, destination: &Destination) -> Option<&str> {
        self.temporaries.iter().find(|(known, _)| known == destination).map(|(_, label)| &**label)
    }

    fn receipt(&mut self, promise: Option<Promise>) -> ReceiptTime {
        let promise = match (promise, self.receipts.back()) {
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
        self.receipts.push_back(promise);
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

impl Drop for Connection {
    fn drop(&mut self) {
        self.shut(false);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("id", &self.mailbox.id).finish_non_exhaustive()
    }
}
