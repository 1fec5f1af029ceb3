//! Client sessions: what belongs to a client id rather than to a connection.
//!
//! A session has subscriptions, of which all that match a message yield one copy; a backlog, which is a queue; a will;
//! and the numbers of messages it may repeat. It may outlive its connection, and then all of that is in the log. The next
//! connection of the same client id takes it over, whatever the last one is doing. Lock order: the host's map of
//! sessions, the state of one session, the table of topics, then queues; the link is for whoever delivers and comes last
//! before outboxes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use parking_lot::{Mutex, MutexGuard};
use sabir_model::clock::Timestamp;
use sabir_model::command::LASTS_FOREVER;
use sabir_model::delivery::{Delivery, Grant, Guarantee};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{ConnectionId, Sequence, SubscriptionKey};
use sabir_model::message::Message;
use sabir_model::pattern::Pattern;
use sabir_model::rare::Rare;
use sabir_model::settlement::SettleMode;
use sabir_store::Level;

use crate::bindings::{Bindings, SessionBinding, Terms};
use crate::broker::Shared;
use crate::credit::{Consumer, Credit};
use crate::lock_order::before_maps;
use crate::outbox::{Outbox, Receivers};
use crate::policy::Policy;
use crate::queue::{Queue, Role};
use crate::registry::{VirtualHost, pattern_at};
use crate::replay::Replaying;
use crate::session_log as log;
use crate::sessions::Consumers;
use crate::will::OwnedWill;
use crate::work::{Work, log_settled};

/// All deliveries of a client session go under this name: they are told apart by their grants.
pub(crate) const SESSION_KEY: SubscriptionKey = SubscriptionKey(0);

/// One client session.
pub(crate) struct ClientSession {
    pub(crate) client_id: Arc<str>,
    /// Whose it is; nobody else may take it over.
    pub(crate) owner: Option<Box<str>>,
    /// Whether it may outlive its connection; then it is in the log.
    pub(crate) lasting: bool,
    state: Mutex<State>,
    pub(crate) link: Mutex<Link>,
    backlog: OnceLock<Arc<Queue>>,
    /// Subscriptions it has.
    pub(crate) bound: AtomicU32,
    /// Last values still to be sent to new subscriptions. Taken after the state, before queues.
    pub(crate) owed: Mutex<Rare<VecDeque<Replaying>>>,
}

/// Where live deliveries go.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) outbox: Option<Arc<Outbox>>,
}

/// Numbers of messages.
#[derive(Default)]
pub(crate) struct Numbers(Rare<HashSet<u16, RandomState>>);

impl Numbers {
    /// Adds one. False if it is there.
    pub(crate) fn insert(&mut self, number: u16) -> bool {
        self.0.make().insert(number)
    }

    /// Takes one out. False if it is not there.
    pub(crate) fn remove(&mut self, number: u16) -> bool {
        let Some(numbers) = self.0.get_mut() else { return false };
        let was_there = numbers.remove(&number);
        if numbers.is_empty() {
            self.0.clear();
        }
        was_there
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.get().into_iter().flatten().copied()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What a session knows besides its backlog.
pub(crate) struct State {
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) lasts_ms: u64,
    /// When it ends, while nobody is connected.
    pub(crate) ends_at: Timestamp,
    pub(crate) will: Option<OwnedWill>,
    /// When the will is to be sent, while nobody is connected.
    pub(crate) will_at: Timestamp,
    pub(crate) bindings: Bindings,
    /// Numbers of messages that have arrived and may be repeated.
    pub(crate) received: Numbers,
    pub(crate) consumers: Consumers,
    /// How much may be unsettled, and what counts that once there is something to count.
    credit_max: u32,
    credit: Option<Arc<Credit>>,
    next_order: u64,
    /// Its time is over: nobody enters any more.
    over: bool,
    /// All it had is gone.
    ended: bool,
}

impl ClientSession {
    pub(crate) fn new(client_id: Arc<str>, owner: Option<Box<str>>, lasts_ms: u64, credit: u32) -> Arc<Self> {
        Arc::new(Self {
            client_id,
            owner,
            lasting: lasts_ms > 0,
            state: Mutex::new(State {
                connection: None,
                lasts_ms,
                ends_at: Timestamp::NEVER,
                will: None,
                will_at: Timestamp::NEVER,
                bindings: Bindings::default(),
                received: Numbers::default(),
                consumers: Consumers::default(),
                credit_max: credit,
                credit: None,
                next_order: 1,
                over: false,
                ended: false,
            }),
            link: Mutex::default(),
            backlog: OnceLock::new(),
            bound: AtomicU32::new(0),
            owed: Mutex::default(),
        })
    }

    /// Whether deliveries of it are unsettled.
    pub(crate) fn owes_settlements(&self) -> bool {
        self.state().credit.as_ref().is_some_and(|credit| credit.used() > 0)
    }

    /// The queue of what waits for it, once it has subscriptions that keep anything.
    pub(crate) fn backlog(&self) -> Option<&Arc<Queue>> {
        self.backlog.get()
    }

    /// Gives it the backlog that the log knew.
    pub(crate) fn adopt_backlog(&self, queue: Arc<Queue>) {
        let _ = self.backlog.set(queue);
    }

    /// Forgets those last values that are not `wanted`.
    pub(crate) fn still_owe(&self, wanted: impl FnMut(&Replaying) -> bool) {
        let mut owed = self.owed.lock();
        if let Some(all) = owed.get_mut() {
            all.retain(wanted);
            if all.is_empty() {
                owed.clear();
            }
        }
    }

    /// Takes the state. Whoever has it may wait for a queue, so nobody waits for it with a queue in hand.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        before_maps();
        self.state.lock()
    }

    /// Takes the state if nobody has it.
    pub(crate) fn try_state(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock()
    }

    /// Whether somebody is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.link.lock().outbox.is_some()
    }

    /// Whether `connection` is the one it is on.
    pub(crate) fn is_on(&self, connection: ConnectionId) -> bool {
        self.link.lock().outbox.as_ref().is_some_and(|outbox| outbox.connection() == connection)
    }

    /// Encodes a message that may be lost straight into the outbox of whoever is connected.
    pub(crate) fn deliver_live(
        &self,
        message: &Message,
        grant: &Arc<Grant>,
        receivers: Receivers,
        policy: &Policy,
        shared: &Shared,
        work: &mut Work,
    ) {
        let link = self.link.lock();
        let Some(outbox) = &link.outbox else { return };
        let delivery = Delivery {
            message,
            subscription: SESSION_KEY,
            queue: None,
            token: None,
            attempt: 1,
            redelivered: false,
            browsed: false,
            grant: Some(grant),
            sequence: None,
            progress: 0,
        };
        outbox.deliver_live(&delivery, Some(grant), receivers, policy, &shared.counters, work);
        work.enlist(outbox);
    }

    /// Makes the backlog if it is not there. The caller holds the state.
    pub(crate) fn need_backlog(
        &self,
        shared: &Shared,
        host: &VirtualHost,
        state: &mut State,
    ) -> Result<(), Refusal> {
        if self.backlog.get().is_some() {
            return Ok(());
        }
        let destination =
            Destination::from_canonical(Kind::Queue, true, &format!("session:{}", self.client_id))?;
        let role = Role::Backlog { client_id: Arc::clone(&self.client_id), lasting: self.lasting };
        let queue = host.make_queue(shared, destination, role, Some(Arc::clone(&shared.session_policy)))?;
        self.adopt_backlog(Arc::clone(&queue));
        let outbox = self.link.lock().outbox.clone();
        if let Some(outbox) = outbox {
            state.consume(&queue, &outbox, None);
        }
        Ok(())
    }
}

impl std::fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientSession").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl State {
    /// Makes the session's connection a consumer of a queue. False if that has been deleted since it was found.
    pub(crate) fn consume(
        &mut self,
        queue: &Arc<Queue>,
        outbox: &Arc<Outbox>,
        grant: Option<Arc<Grant>>,
    ) -> bool {
        let consumer = Consumer::new(
            Arc::clone(outbox),
            SESSION_KEY,
            self.credit_now(),
            SettleMode::Individual,
            None,
            0,
        );
        let mut held = queue.lock();
        if queue.deleted.load(Ordering::Acquire) {
            return false;
        }
        let slot = held.core.attach(Consumer { grant, ..consumer });
        self.consumers.push(queue, slot);
        true
    }

    /// Changes what is granted of a group's or a plain queue. False if the connection does not consume it yet.
    pub(crate) fn grant_anew(&self, queue: &Arc<Queue>, grant: &Arc<Grant>) -> bool {
        let Some(slot) = self.consumers.slot_in(queue) else {
            return false;
        };
        if let Some(consumer) = queue.lock().core.consumer_mut(slot) {
            consumer.grant = Some(Arc::clone(grant));
        }
        true
    }

    /// Makes the session's connection a consumer of the queue of this name, made if it is new.
    pub(crate) fn consume_named(
        &mut self,
        shared: &Shared,
        host: &VirtualHost,
        name: &Destination,
        outbox: &Arc<Outbox>,
        grant: &Arc<Grant>,
    ) -> Result<(), Refusal> {
        while !self.consume(&host.queue(shared, name, Role::Plain)?, outbox, Some(Arc::clone(grant))) {}
        Ok(())
    }

    /// The credit that its subscriptions share.
    pub(crate) fn credit(&self) -> Arc<Credit> {
        match &self.credit {
            Some(credit) => Arc::clone(credit),
            None => Arc::new(Credit::new(self.credit_max, true)),
        }
    }

    fn credit_now(&mut self) -> Arc<Credit> {
        let credit = self.credit();
        Arc::clone(self.credit.insert(credit))
    }

    /// Whether its time is over although nobody is connected.
    fn is_over(&self, now: Timestamp) -> bool {
        self.over || self.ends_at.has_passed(now)
    }

    /// Refuses what a connection asks that is not in charge any more; `None` stands for the log.
    pub(crate) fn check_in_charge(&self, connection: Option<ConnectionId>) -> Result<(), Refusal> {
        if self.connection == connection && !self.ended {
            return Ok(());
        }
        Err(Refusal::new(Code::TakenOver, "another connection with the same client id has taken over"))
    }

    /// What its time or its will's has come to, if nobody is connected: whether it ends, and the will, if that is due.
    pub(crate) fn come_due(&mut self, now: Timestamp) -> (bool, Option<OwnedWill>) {
        if self.connection.is_some() || self.ended {
            return (false, None);
        }
        self.over = self.is_over(now);
        let due = self.over || self.will_at.has_passed(now);
        let will = if due { self.will.take() } else { None };
        if will.is_some() {
            self.will_at = Timestamp::NEVER;
        }
        (self.over, will)
    }

    /// The place of a new subscription among the session's: as the log has it, or the next.
    pub(crate) fn order(&mut self, terms: Terms) -> u64 {
        if terms.order > 0 {
            return terms.order;
        }
        let order = self.next_order;
        self.next_order += 1;
        order
    }

    /// Takes the place behind those that the log knew.
    pub(crate) fn order_after(&mut self, order: u64) {
        self.next_order = self.next_order.max(order.saturating_add(1));
    }

    pub(crate) fn log(&self, shared: &Shared, host: &VirtualHost, session: &ClientSession, level: Level) {
        if session.lasting && !self.ended {
            let mut group = shared.store.begin();
            log::set_session(&mut group, host, session, self);
            group.finish(level);
        }
    }
}

/// With what a connection enters.
pub(crate) struct Entering {
    pub(crate) now: Timestamp,
    pub(crate) lasts_ms: u64,
    pub(crate) credit: u32,
    pub(crate) will: Option<OwnedWill>,
}

/// What became of the end of a session.
pub(crate) enum Ending {
    /// It has ended, and this will is due.
    Ended(Option<OwnedWill>),
    /// Somebody is connected.
    Connected,
}

impl ClientSession {
    /// Puts a connection in charge. Its deliveries start with [`ClientSession::grant`]. False if the session has ended
    /// meanwhile, or another connection is in charge.
    pub(crate) fn enter(
        self: &Arc<Self>,
        shared: &Shared,
        host: &VirtualHost,
        outbox: &Arc<Outbox>,
        entering: Entering,
    ) -> bool {
        let Entering { now, lasts_ms, credit, will } = entering;
        let mut guard = self.state();
        let state = &mut *guard;
        if state.ended || state.connection.is_some() || state.is_over(now) {
            return false;
        }
        state.connection = Some(outbox.connection());
        state.lasts_ms = lasts_ms;
        state.ends_at = Timestamp::NEVER;
        state.will = will;
        state.will_at = Timestamp::NEVER;
        state.credit_max = credit;
        state.credit = None;
        *self.link.lock() = Link { outbox: Some(Arc::clone(outbox)) };
        if let Some(queue) = self.backlog.get() {
            state.consume(queue, outbox, None);
        }
        let others: Vec<Arc<SessionBinding>> = state.bindings.others().map(Arc::clone).collect();
        for binding in others {
            let grant = Arc::new(binding.terms.grant());
            if binding.is_groups() {
                let queue = host.shares.lock().queue_of(&binding);
                if let Some(queue) = queue {
                    state.consume(&queue, outbox, Some(grant));
                }
                continue;
            }
            let name = binding.pattern.as_literal();
            let consumed = name.map(|name| state.consume_named(shared, host, name, outbox, &grant));
            if let Some(Err(refusal)) = consumed {
                tracing::warn!(client_id = %self.client_id, %refusal, "a queue is not consumed again");
            }
        }
        // What may be lost is, when its connection is.
        self.still_owe(|owed| owed.grant.guarantee > Guarantee::AtMostOnce);
        state.log(shared, host, self, Level::Os);
        true
    }

    /// Lets deliveries begin: the greeting is in the outbox.
    pub(crate) fn grant(&self, connection: ConnectionId, work: &mut Work) {
        let state = self.state();
        if state.connection != Some(connection) {
            return;
        }
        for (queue, slot) in state.consumers.as_slice() {
            let mut held = queue.lock();
            held.core.grant(*slot);
            held.core.dispatch(queue, work);
        }
    }

    /// Takes the session from its connection: what was on its way comes back. Returns the will if it is due. `None`
    /// stands for whatever connection it is on, which stays open; one that is named is closed.
    pub(crate) fn leave(
        &self,
        shared: &Shared,
        host: &VirtualHost,
        connection: Option<ConnectionId>,
        work: &mut Work,
    ) -> Left {
        let now = work.now.wall;
        let mut state = self.state();
        if connection.is_some_and(|one| state.connection != Some(one)) {
            return Left { was_on: None, ends: false, will: None };
        }
        if state.connection.is_none() {
            // Its time may be over, or its will due, although nobody has come by to see.
            let (ends, will) = state.come_due(now);
            if will.is_some() && !ends {
                state.log(shared, host, self, Level::Os);
            }
            return Left { was_on: None, ends, will };
        }
        let was_on = state.connection.take();
        let link = std::mem::take(&mut *self.link.lock());
        let written = connection.map(|_| link.outbox.as_ref().map_or(0, |outbox| outbox.written()));
        for (queue, slot) in state.consumers.take() {
            let_go(shared, &queue, slot, written, work);
        }
        let ends = state.lasts_ms == 0;
        state.over = ends;
        state.ends_at = match state.lasts_ms {
            LASTS_FOREVER => Timestamp::NEVER,
            lasts => Timestamp(now.0.saturating_add(lasts)),
        };
        let delay = state.will.as_ref().map_or(0, |will| will.delay_ms());
        let will = if delay == 0 { state.will.take() } else { None };
        if state.will.is_some() {
            state.will_at = Timestamp(now.0.saturating_add(delay));
        }
        host.schedule.lock().look_at(&self.client_id, state.ends_at, state.will_at);
        state.log(shared, host, self, Level::Os);
        Left { was_on, ends, will }
    }

    /// Ends the session, unless somebody is connected: subscriptions, backlog and all.
    pub(crate) fn end(self: &Arc<Self>, shared: &Shared, host: &VirtualHost, work: &mut Work) -> Ending {
        let (bindings, patterns, consumers, will) = {
            let mut state = self.state();
            if state.connection.is_some() {
                return Ending::Connected;
            }
            if std::mem::replace(&mut state.ended, true) {
                return Ending::Ended(None);
            }
            let patterns: Vec<Pattern> = {
                let topics = host.topics.read();
                state.bindings.seated().filter_map(|(spot, _)| pattern_at(&topics, spot)).collect()
            };
            if self.lasting {
                let mut group = shared.store.begin();
                log::remove_session(&mut group, host, self, &state, &patterns);
                group.finish(Level::Os);
            }
            state.received.clear();
            let bindings = std::mem::take(&mut state.bindings);
            (bindings, patterns, state.consumers.take(), state.will.take())
        };
        *self.link.lock() = Link::default();
        self.owed.lock().clear();
        {
            let mut topics = host.topics.write();
            for (_, seat) in bindings.seated() {
                topics.remove_at(seat);
            }
        }
        for (queue, slot) in consumers {
            let_go(shared, &queue, slot, None, work);
        }
        patterns.iter().for_each(|pattern| host.touch(pattern));
        bindings
            .others()
            .filter(|binding| binding.is_groups())
            .for_each(|binding| leave_group(shared, host, binding, work));
        if let Some(queue) = self.backlog.get() {
            host.delete_queue(shared, queue, work);
        }
        let mut sessions = host.sessions.lock();
        if sessions.get(&self.client_id).is_some_and(|known| Arc::ptr_eq(known, self)) {
            sessions.remove(&self.client_id);
        }
        Ending::Ended(will)
    }
}

/// How a connection left its session.
pub(crate) struct Left {
    /// The connection it was on, if it was.
    pub(crate) was_on: Option<ConnectionId>,
    /// The session ends with it.
    pub(crate) ends: bool,
    /// Due now.
    pub(crate) will: Option<OwnedWill>,
}

pub(crate) fn leave_group(shared: &Shared, host: &VirtualHost, binding: &SessionBinding, work: &mut Work) {
    let empty = host.shares.lock().leave(host, binding);
    if let Some(queue) = empty {
        host.delete_queue(shared, &queue, work);
    }
}

/// Detaches a consumer; what it had not settled comes back.
///
/// `written` are the bytes that a closed connection has taken; one that stays open will take them all.
pub(crate) fn let_go(shared: &Shared, queue: &Arc<Queue>, slot: u32, written: Option<u64>, work: &mut Work) {
    let mut settled: Vec<Sequence> = Vec::new();
    let mut attempts: Vec<(Sequence, u32)> = Vec::new();
    let mut held = queue.lock();
    let (taken, closing) = (written.unwrap_or(u64::MAX), written.is_some());
    held.core.detach(queue, slot, taken, closing, work, &mut settled, &mut attempts);
    log_settled(shared, queue.id, &mut settled, &attempts, Level::Os);
    held.core.dispatch(queue, work);
}
