//! A queue: a lock, not an actor. It holds messages for later and hands each to one consumer.
//!
//! Whoever makes work (a send, a settlement, a subscription, credit) dispatches before unlocking. What a queue cannot do
//! under its own lock (moving a dead letter to another queue) it leaves in the [`Work`] of its caller.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use parking_lot::{ArcMutexGuard, Mutex, RawMutex};
use sabir_model::access::Principal;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::delivery::Delivery;
use sabir_model::destination::Destination;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{ConnectionId, DeliveryToken, QueueId, Sequence, SubscriptionKey};
use sabir_model::message::Message;
use sabir_model::pattern::Pattern;
use sabir_model::selector::Selector;
use sabir_model::settlement::{SettleMode, Settlement};
use sabir_store::Level;
use smallvec::SmallVec;

use crate::inflight::{InFlight, Slab};
use crate::outbox::{Handed, Outbox};
use crate::policy::{Expired, Negative, Policy, SlowConsumer};
use crate::ready::{Entry, Key, Ready};
use crate::selection::MessageView;
use crate::stats::{Counters, QueueStats, add};
use crate::work::{Dead, Work};

/// Messages dispatched under one hold of a queue's lock; the rest follows after others had their turn.
const DISPATCH_MAX: usize = 256;
/// Messages held against selectors under one hold of the lock.
const SCAN_MAX: usize = 16_384;
/// Messages handed to a browser under one hold of the lock.
const BROWSE_MAX: usize = 500;

/// What a queue is for.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// A user's queue, by its own name.
    Plain,
    /// Belongs to the connection that made it.
    Temporary(ConnectionId),
    /// The backlog of a durable topic subscription.
    Durable { client_id: Box<str>, name: Box<str>, pattern: Pattern, selector: Option<Arc<Selector>> },
    /// The window of a live topic subscription that acknowledges; goes when the subscription does.
    Window,
}

/// One queue of one virtual host.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) id: QueueId,
    pub(crate) destination: Destination,
    pub(crate) role: Role,
    pub(crate) policy: Arc<Policy>,
    /// Whether consumers see this queue's name as the destination.
    pub(crate) shows_own_name: bool,
    /// Whether dead letters come here: it has no delivery limit, and what is rejected here ends.
    pub(crate) holds_dead_letters: bool,
    pub(crate) core: Arc<Mutex<QueueCore>>,
    /// Earliest expiration among its messages, in wall milliseconds; `u64::MAX` if none expires.
    pub(crate) next_expiry: AtomicU64,
    pub(crate) deleted: AtomicBool,
    pub(crate) boot: u32,
}

/// A queue whose lock is held.
pub(crate) struct Held {
    pub(crate) queue: Arc<Queue>,
    pub(crate) core: ArcMutexGuard<RawMutex, QueueCore>,
}

impl Queue {
    /// Whether its messages may be logged at all.
    pub(crate) fn logs(&self) -> bool {
        !matches!(self.role, Role::Temporary(_) | Role::Window) && self.policy.durability != Level::Memory
    }

    pub(crate) fn lock(self: &Arc<Self>) -> Held {
        Held { core: self.core.lock_arc(), queue: Arc::clone(self) }
    }

    /// The name shown in metrics and logs.
    pub(crate) fn title(&self) -> String {
        match &self.role {
            Role::Plain | Role::Temporary(_) => self.destination.to_string(),
            Role::Durable { client_id, name, .. } => format!("durable://{client_id}:{name}"),
            Role::Window => format!("window://{}", self.id.0),
        }
    }
}

/// Credit of one subscription, shared by its consumers on several queues.
#[derive(Debug)]
pub(crate) struct Credit {
    available: AtomicI64,
    /// Whether consumers on several queues share it.
    pub(crate) shared: bool,
    line: Mutex<Line>,
}

/// Queues that have something for a subscription whose credit is spent. They are served in turn, so that none with a
/// backlog keeps the others waiting.
#[derive(Debug, Default)]
struct Line {
    queues: VecDeque<(QueueId, Weak<Queue>)>,
    known: HashSet<QueueId, RandomState>,
}

impl Credit {
    pub(crate) fn new(limit: u32, shared: bool) -> Self {
        Self { available: AtomicI64::new(i64::from(limit)), shared, line: Mutex::default() }
    }

    /// Puts a queue in line, unless it is there.
    fn wait(&self, queue: &Arc<Queue>) {
        let mut line = self.line.lock();
        if line.known.insert(queue.id) {
            line.queues.push_back((queue.id, Arc::downgrade(queue)));
        }
    }

    /// Takes the queue out of the line whose turn it is.
    fn next(&self) -> Option<Arc<Queue>> {
        let mut line = self.line.lock();
        while let Some((id, queue)) = line.queues.pop_front() {
            line.known.remove(&id);
            if let Some(queue) = queue.upgrade() {
                return Some(queue);
            }
        }
        None
    }

    fn take(&self) -> bool {
        self.available
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| (left > 0).then_some(left - 1))
            .is_ok()
    }

    /// Gives one back. Where it had run out and others share it, the queue whose turn it is goes on.
    fn give(&self, work: &mut Work) {
        if self.available.fetch_add(1, Ordering::AcqRel) <= 0
            && self.shared
            && let Some(next) = self.next()
        {
            work.resume.push(next);
            work.yielded = true;
        }
    }

    fn is_spent(&self) -> bool {
        self.available.load(Ordering::Acquire) <= 0
    }
}

/// What a consumer waits for before it is offered anything again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    No,
    /// Its outbox had no room; it will say when it has.
    ForRoom,
    /// The protocol's own window was full; a settlement opens it.
    ForWindow,
}

/// One consumer of one queue.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) subscription: SubscriptionKey,
    pub(crate) credit: Arc<Credit>,
    pub(crate) settle: SettleMode,
    pub(crate) selector: Option<Arc<Selector>>,
    pub(crate) priority: i8,
    /// The greeting is out; deliveries may follow.
    pub(crate) granted: bool,
    waits: Waits,
    /// Nothing at or before this place matches its selector.
    scanned: Key,
}

impl Consumer {
    pub(crate) fn new(
        outbox: Arc<Outbox>,
        subscription: SubscriptionKey,
        credit: Arc<Credit>,
        settle: SettleMode,
        selector: Option<Arc<Selector>>,
        priority: i8,
    ) -> Self {
        Self {
            outbox,
            subscription,
            credit,
            settle,
            selector,
            priority,
            granted: false,
            waits: Waits::No,
            scanned: Key::FIRST,
        }
    }

    fn is_available(&self) -> bool {
        self.granted && self.waits == Waits::No && !self.credit.is_spent()
    }
}

/// A look at a queue in progress.
#[derive(Debug)]
struct Browser {
    outbox: Arc<Outbox>,
    subscription: SubscriptionKey,
    left: VecDeque<(Message, u32, bool)>,
    granted: bool,
    /// Its outbox has had enough; it will say when it has room.
    waits: bool,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct QueueCore {
    next: u64,
    pub(crate) ready: Ready,
    pub(crate) in_flight: Slab,
    pub(crate) bytes: u64,
    consumers: Vec<Option<Consumer>>,
    /// Consumers in the order they are served: higher priority first, round-robin within.
    ring: Vec<u32>,
    turn: usize,
    /// Consumers with a selector.
    selecting: usize,
    /// Consumers whose credit other queues share.
    sharing: usize,
    browsers: Vec<Browser>,
    expiring: BTreeSet<(Timestamp, Sequence, Key2)>,
    pub(crate) last_used: Instant,
    enqueued: u64,
    acknowledged: u64,
    expired: u64,
    pub(crate) dead_lettered: u64,
}

/// Rank kept beside a sequence in the expiry index.
type Key2 = u8;

/// What became of an attempt to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettleResult {
    /// Done; the sequence to log as acknowledged, if it is logged.
    Done(Option<Sequence>),
    /// Returned; sequence and count to log, if it is logged.
    Returned(Option<(Sequence, u32)>),
    /// It has become a dead letter and is in the caller's work.
    Dead,
    /// No such delivery of this connection.
    Unknown,
}

impl QueueCore {
    pub(crate) fn new(next: Sequence, prioritized: bool, now: Instant) -> Self {
        Self {
            next: next.0,
            ready: Ready::new(prioritized),
            in_flight: Slab::default(),
            bytes: 0,
            consumers: Vec::new(),
            ring: Vec::new(),
            turn: 0,
            selecting: 0,
            sharing: 0,
            browsers: Vec::new(),
            expiring: BTreeSet::new(),
            last_used: now,
            enqueued: 0,
            acknowledged: 0,
            expired: 0,
            dead_lettered: 0,
        }
    }

    /// Messages held.
    pub(crate) fn depth(&self) -> u64 {
        (self.ready.len() + self.in_flight.len()) as u64
    }

    pub(crate) fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.consumers.iter().flatten()
    }

    pub(crate) fn is_unused(&self) -> bool {
        self.depth() == 0 && self.ring.is_empty() && self.browsers.is_empty()
    }

    /// Whether `more` messages of `bytes` in all fit within the policy.
    pub(crate) fn check_room(&self, queue: &Queue, more: u64, bytes: u64) -> Result<(), Refusal> {
        let policy = &queue.policy;
        if matches!(queue.role, Role::Window) {
            return Ok(());
        }
        if self.depth().saturating_add(more) > policy.messages_max {
            let sentence = format!("{} holds its most, {} messages", queue.title(), policy.messages_max);
            return Err(Refusal::new(Code::DestinationFull, sentence));
        }
        if self.bytes.saturating_add(bytes) > policy.bytes_max {
            let sentence = format!("{} holds its most, {} bytes", queue.title(), policy.bytes_max);
            return Err(Refusal::new(Code::DestinationFull, sentence));
        }
        Ok(())
    }

    /// Makes room for one more message of a live subscription's window, as the topic's policy for slow consumers says:
    /// a subscriber that does not acknowledge must not refuse the publisher. False if the new message is the one to drop.
    pub(crate) fn make_room(&mut self, queue: &Queue, work: &mut Work) -> bool {
        if !matches!(queue.role, Role::Window) || self.ready.len() < queue.policy.pending_max.max(1) {
            return true;
        }
        work.discarded += 1;
        match queue.policy.slow_consumer {
            SlowConsumer::DropNewest => false,
            SlowConsumer::DropOldest => {
                if let Some((key, _)) = self.ready.peek_from(Key::FIRST)
                    && let Some(oldest) = self.take(key)
                {
                    self.forget(&oldest, work);
                }
                true
            }
            SlowConsumer::Disconnect => {
                for consumer in self.consumers() {
                    consumer.outbox.fail(Refusal::new(
                        Code::SlowConsumer,
                        "the subscriber acknowledges too slowly and its topic's policy is to disconnect it",
                    ));
                }
                false
            }
        }
    }

    /// The number the next message gets.
    pub(crate) fn take_sequence(&mut self) -> Sequence {
        let sequence = Sequence(self.next);
        self.next += 1;
        sequence
    }

    /// Puts a message into its place: a new one, or one that comes back.
    pub(crate) fn enqueue(&mut self, queue: &Queue, sequence: Sequence, entry: Entry, work: &mut Work) {
        let memory = entry.message.memory() as u64;
        self.bytes += memory;
        work.memory += memory.cast_signed();
        self.enqueued += 1;
        self.insert(queue, sequence, entry);
    }

    fn insert(&mut self, queue: &Queue, sequence: Sequence, entry: Entry) {
        let expires = entry.message.facts().expires;
        let key = self.ready.insert(sequence, entry);
        if expires != Timestamp::NEVER {
            self.expiring.insert((expires, sequence, key.rank));
            queue.next_expiry.fetch_min(expires.0, Ordering::AcqRel);
        }
        if self.selecting > 0 {
            let before = Key { rank: key.rank, sequence: Sequence(key.sequence.0.saturating_sub(1)) };
            for consumer in self.consumers.iter_mut().flatten() {
                consumer.scanned = consumer.scanned.min(before);
            }
        }
    }

    fn take(&mut self, key: Key) -> Option<Entry> {
        let entry = self.ready.take(key)?;
        let expires = entry.message.facts().expires;
        if expires != Timestamp::NEVER {
            self.expiring.remove(&(expires, key.sequence, key.rank));
        }
        Some(entry)
    }

    fn forget(&mut self, entry: &Entry, work: &mut Work) {
        let memory = entry.message.memory() as u64;
        self.bytes = self.bytes.saturating_sub(memory);
        work.memory -= memory.cast_signed();
    }

    /// Adds a consumer and returns its slot.
    pub(crate) fn attach(&mut self, consumer: Consumer) -> u32 {
        self.selecting += usize::from(consumer.selector.is_some());
        self.sharing += usize::from(consumer.credit.shared);
        let priority = consumer.priority;
        let slot = self.consumers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.consumers.push(None);
            self.consumers.len() - 1
        });
        if let Some(place) = self.consumers.get_mut(slot) {
            *place = Some(consumer);
        }
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        let at = self
            .ring
            .iter()
            .position(|other| self.consumer(*other).is_some_and(|other| other.priority < priority))
            .unwrap_or(self.ring.len());
        self.ring.insert(at, slot);
        slot
    }

    fn consumer(&self, slot: u32) -> Option<&Consumer> {
        self.consumers.get(slot as usize)?.as_ref()
    }

    fn consumer_mut(&mut self, slot: u32) -> Option<&mut Consumer> {
        self.consumers.get_mut(slot as usize)?.as_mut()
    }

    /// Lets a consumer have deliveries from now on.
    pub(crate) fn grant(&mut self, slot: u32) {
        if let Some(consumer) = self.consumer_mut(slot) {
            consumer.granted = true;
        }
    }

    /// Lets the consumers of a connection go on whose outbox has room again.
    pub(crate) fn room_again(&mut self, connection: ConnectionId) {
        for consumer in self.consumers.iter_mut().flatten() {
            if consumer.outbox.connection() == connection && consumer.waits == Waits::ForRoom {
                consumer.waits = Waits::No;
            }
        }
        for browser in &mut self.browsers {
            if browser.outbox.connection() == connection {
                browser.waits = false;
            }
        }
    }

    /// Removes a consumer. Its unsettled deliveries return to the head: counted as attempts where their bytes had
    /// reached the socket (`written`), uncounted otherwise; automatic ones that reached it are settled. What must be
    /// logged goes to `settled` and `attempts`.
    pub(crate) fn detach(
        &mut self,
        queue: &Arc<Queue>,
        slot: u32,
        written: u64,
        work: &mut Work,
        settled: &mut Vec<Sequence>,
        attempts: &mut Vec<(Sequence, u32)>,
    ) {
        let Some(consumer) = self.consumers.get_mut(slot as usize).and_then(Option::take) else { return };
        self.selecting -= usize::from(consumer.selector.is_some());
        self.sharing -= usize::from(consumer.credit.shared);
        if let Some(at) = self.ring.iter().position(|other| *other == slot) {
            self.ring.remove(at);
        }
        self.turn = 0;
        for held in self.in_flight.remove_consumer(slot) {
            consumer.credit.give(work);
            let reached = held.ends_at <= written;
            if reached && consumer.settle == SettleMode::Auto {
                // The socket took it; whoever wrote it just has not come round to settling it yet.
                self.forget(&held.entry, work);
                self.acknowledged += 1;
                work.acknowledged += 1;
                settled.extend(held.entry.logged.then_some(held.sequence));
                continue;
            }
            if let Some(logged) = self.bring_back(queue, held, reached, "delivery limit reached", work) {
                attempts.push(logged);
            }
        }
    }

    /// Returns a delivery to its place. Gives what to log.
    fn bring_back(
        &mut self,
        queue: &Arc<Queue>,
        held: InFlight,
        counted: bool,
        reason: &'static str,
        work: &mut Work,
    ) -> Option<(Sequence, u32)> {
        let InFlight { sequence, mut entry, .. } = held;
        if !counted {
            self.insert(queue, sequence, entry);
            return None;
        }
        entry.attempts += 1;
        entry.redelivered = true;
        work.redelivered += 1;
        let limit = if queue.holds_dead_letters { 0 } else { queue.policy.delivery_limit };
        if limit > 0 && entry.attempts >= limit {
            self.bury(queue, sequence, entry, reason, work);
            return None;
        }
        let logged = entry.logged.then_some((sequence, entry.attempts));
        self.insert(queue, sequence, entry);
        logged
    }

    /// Takes a message out of the queue for good: it goes to the dead letters once this lock is released. Until then it
    /// is in no list, and in the log it is still here.
    fn bury(
        &mut self,
        queue: &Arc<Queue>,
        sequence: Sequence,
        entry: Entry,
        reason: &'static str,
        work: &mut Work,
    ) {
        self.forget(&entry, work);
        self.dead_lettered += 1;
        work.dead.push(Dead { queue: Arc::clone(queue), sequence, entry, reason });
    }

    /// Checks that a token names an unsettled delivery of this connection.
    pub(crate) fn knows(&self, token: DeliveryToken, connection: ConnectionId) -> bool {
        self.in_flight.get(token.slot, token.generation).is_some_and(|held| held.connection == connection)
    }

    /// Settles one delivery.
    pub(crate) fn settle(
        &mut self,
        queue: &Arc<Queue>,
        token: DeliveryToken,
        connection: ConnectionId,
        settlement: Settlement,
        work: &mut Work,
    ) -> SettleResult {
        if !self.knows(token, connection) {
            return SettleResult::Unknown;
        }
        let Some(held) = self.in_flight.remove(token.slot, token.generation) else {
            return SettleResult::Unknown;
        };
        if let Some(consumer) = self.consumer_mut(held.consumer) {
            consumer.credit.give(work);
            if consumer.waits == Waits::ForWindow {
                consumer.waits = Waits::No;
            }
        }
        let settlement = match (settlement, queue.policy.negative) {
            (Settlement::Negative, Negative::Redeliver) => Settlement::Failed,
            (Settlement::Negative, Negative::DeadLetter) => Settlement::Rejected,
            (other, _) => other,
        };
        match settlement {
            Settlement::Accepted => {
                self.forget(&held.entry, work);
                self.acknowledged += 1;
                work.acknowledged += 1;
                SettleResult::Done(held.entry.logged.then_some(held.sequence))
            }
            Settlement::Released => {
                self.bring_back(queue, held, false, "", work);
                SettleResult::Returned(None)
            }
            Settlement::Failed | Settlement::Negative => {
                let dead = work.dead.len();
                let logged = self.bring_back(queue, held, true, "delivery limit reached", work);
                if work.dead.len() > dead { SettleResult::Dead } else { SettleResult::Returned(logged) }
            }
            Settlement::Rejected => {
                let InFlight { sequence, mut entry, .. } = held;
                entry.attempts += 1;
                self.bury(queue, sequence, entry, "rejected by the consumer", work);
                SettleResult::Dead
            }
        }
    }

    /// Hands out as much as consumers may have.
    pub(crate) fn dispatch(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        self.last_used = work.now.instant;
        self.pump_browsers(queue, work);
        if self.selecting > 0 {
            self.dispatch_selecting(queue, work);
        } else {
            self.dispatch_in_turn(queue, work);
        }
        if self.sharing > 0 {
            self.share_credit(queue, work);
        }
    }

    /// After settlements: where credit went to another queue, this one goes on after it.
    pub(crate) fn dispatch_after_settling(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        if std::mem::take(&mut work.yielded) {
            work.resume.push(Arc::clone(queue));
        } else {
            self.dispatch(queue, work);
        }
    }

    /// Takes its place in the line for credit that other queues share, and passes on what it leaves of it.
    fn share_credit(&self, queue: &Arc<Queue>, work: &mut Work) {
        for consumer in self.consumers() {
            if !consumer.credit.shared || !consumer.granted || consumer.waits != Waits::No {
                continue;
            }
            let from = match &consumer.selector {
                None => Key::FIRST,
                Some(_) => consumer.scanned.next(),
            };
            if self.ready.peek_from(from).is_some() {
                consumer.credit.wait(queue);
            }
            // Looked at after standing in line: credit given back before that has not seen this queue.
            if !consumer.credit.is_spent()
                && let Some(next) = consumer.credit.next()
            {
                work.resume.push(next);
            }
        }
    }

    fn dispatch_in_turn(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        for _ in 0..DISPATCH_MAX {
            let Some((key, _)) = self.ready.peek_from(Key::FIRST) else { return };
            if self.drop_expired(queue, key, work) {
                continue;
            }
            let Some(slot) = self.next_consumer(None) else { return };
            self.hand_over(queue, key, slot, work);
        }
        self.continue_later(queue, work);
    }

    fn continue_later(&self, queue: &Arc<Queue>, work: &mut Work) {
        if !self.ready.is_empty() && self.consumers().any(Consumer::is_available) {
            work.resume.push(Arc::clone(queue));
        }
    }

    /// With selectors: each consumer remembers up to where nothing matches it.
    fn dispatch_selecting(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        let mut handed = 0;
        let Some(mut from) = self.consumers().filter(|c| c.is_available()).map(|c| c.scanned).min() else {
            return;
        };
        let mut scanned = 0;
        let mut wanted: SmallVec<[bool; 32]> = SmallVec::new();
        while let Some((key, entry)) = self.ready.peek_from(from) {
            from = key.next();
            let message = entry.message.clone();
            let redelivered = entry.redelivered;
            let attempt = entry.attempts + 1;
            if self.drop_expired(queue, key, work) {
                continue;
            }
            let view = MessageView::new(&message, queue.shows_own_name.then_some(&queue.destination))
                .attempt(attempt, redelivered);
            wanted.clear();
            for consumer in &mut self.consumers {
                wanted.push(match consumer {
                    Some(consumer) if consumer.is_available() => match &consumer.selector {
                        None => true,
                        // What lies before its mark did not match it; who might have it and does not want it moves
                        // its mark past it.
                        Some(_) if key <= consumer.scanned => false,
                        Some(selector) => {
                            let wants = selector.matches(&view);
                            if !wants {
                                consumer.scanned = key;
                            }
                            wants
                        }
                    },
                    _ => false,
                });
            }
            if let Some(slot) = self.next_consumer(Some(&wanted)) {
                if self.hand_over(queue, key, slot, work) {
                    handed += 1;
                } else {
                    // It is back in its place, and somebody else may want it.
                    from = key;
                }
            }
            if !self.consumers().any(Consumer::is_available) {
                return;
            }
            scanned += 1;
            if handed >= DISPATCH_MAX || scanned >= SCAN_MAX {
                work.resume.push(Arc::clone(queue));
                return;
            }
        }
    }

    /// The next consumer in turn, of the highest priority that has one available; of those `wanted` marks by slot.
    fn next_consumer(&mut self, wanted: Option<&[bool]>) -> Option<u32> {
        let wants = |slot: u32| wanted.is_none_or(|by| by.get(slot as usize).copied().unwrap_or(false));
        let count = self.ring.len();
        let mut band: Option<i8> = None;
        // Within the band of the first available consumer the turn goes round; bands are contiguous in the ring.
        for slot in &self.ring {
            let consumer = self.consumers.get(*slot as usize)?.as_ref()?;
            if consumer.is_available() && wants(*slot) {
                band = Some(consumer.priority);
                break;
            }
        }
        let band = band?;
        for step in 0..count {
            let at = (self.turn + step) % count;
            let slot = *self.ring.get(at)?;
            let consumer = self.consumers.get(slot as usize)?.as_ref()?;
            if consumer.priority == band && consumer.is_available() && wants(slot) {
                self.turn = (at + 1) % count;
                return Some(slot);
            }
        }
        None
    }

    /// Drops or buries the message at `key` if its time is over.
    fn drop_expired(&mut self, queue: &Arc<Queue>, key: Key, work: &mut Work) -> bool {
        let Some((_, entry)) = self.ready.peek_from(key) else { return false };
        if !entry.message.facts().expires.has_passed(work.now.wall) {
            return false;
        }
        let Some(entry) = self.take(key) else { return false };
        self.expired += 1;
        work.expired += 1;
        match queue.policy.expired {
            Expired::Drop => {
                self.forget(&entry, work);
                if entry.logged {
                    work.expired_logged.push((queue.id, key.sequence));
                }
            }
            Expired::DeadLetter => self.bury(queue, key.sequence, entry, "expired", work),
        }
        true
    }

    /// Removes everything that has expired, by the index.
    pub(crate) fn expire(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        while let Some((expires, sequence, rank)) = self.expiring.first().copied() {
            if !expires.has_passed(work.now.wall) {
                break;
            }
            if !self.drop_expired(queue, Key { rank, sequence }, work) {
                self.expiring.remove(&(expires, sequence, rank));
            }
        }
        let next = self.expiring.first().map_or(u64::MAX, |(expires, ..)| expires.0);
        queue.next_expiry.store(next, Ordering::Release);
    }

    /// Takes the message at `key` out and encodes it for the consumer in `slot`. False if it is back in its place.
    fn hand_over(&mut self, queue: &Arc<Queue>, key: Key, slot: u32, work: &mut Work) -> bool {
        let Some(entry) = self.take(key) else { return true };
        let Some(consumer) = self.consumers.get(slot as usize).and_then(Option::as_ref) else {
            self.insert(queue, key.sequence, entry);
            return false;
        };
        if !consumer.credit.take() {
            self.insert(queue, key.sequence, entry);
            return false;
        }
        let outbox = Arc::clone(&consumer.outbox);
        let (subscription, settle) = (consumer.subscription, consumer.settle);
        let message = entry.message.clone();
        let (attempt, redelivered) = (entry.attempts + 1, entry.redelivered);
        let connection = outbox.connection();
        let held = InFlight { sequence: key.sequence, entry, connection, consumer: slot, ends_at: u64::MAX };
        let (place, generation) = self.in_flight.insert(held);
        let token = DeliveryToken { boot: queue.boot, queue: queue.id, slot: place, generation };
        let delivery = Delivery {
            message: &message,
            subscription,
            queue: queue.shows_own_name.then_some(&queue.destination),
            token: Some(token),
            attempt,
            redelivered,
            browsed: false,
        };
        let handed = outbox.deliver(work.now, &delivery, settle == SettleMode::Auto, queue);
        match handed {
            Handed::Sent { ends_at } => {
                if let Some(held) = self.in_flight.get_mut(place, generation) {
                    held.ends_at = ends_at;
                }
                work.dispatched += 1;
                work.enlist(&outbox);
                true
            }
            Handed::NoRoom | Handed::NoCredit => {
                if let Some(held) = self.in_flight.remove(place, generation) {
                    self.insert(queue, held.sequence, held.entry);
                }
                if let Some(consumer) = self.consumer_mut(slot) {
                    consumer.waits = if handed == Handed::NoRoom { Waits::ForRoom } else { Waits::ForWindow };
                    consumer.credit.give(work);
                }
                // Its flush is what makes room, so see that there is one.
                work.enlist(&outbox);
                false
            }
            Handed::Undeliverable(reason) => {
                if let Some(consumer) = self.consumer_mut(slot) {
                    consumer.credit.give(work);
                }
                if let Some(held) = self.in_flight.remove(place, generation) {
                    self.bury(queue, held.sequence, held.entry, reason, work);
                }
                true
            }
        }
    }

    /// Starts a look at what is here now. Returns nothing: the browser ends by itself.
    pub(crate) fn browse(
        &mut self,
        outbox: &Arc<Outbox>,
        subscription: SubscriptionKey,
        selector: Option<&Selector>,
        queue: &Queue,
    ) {
        let mut seen: Vec<(Sequence, Message, u32, bool)> = self
            .in_flight
            .iter()
            .map(|held| {
                (held.sequence, held.entry.message.clone(), held.entry.attempts, held.entry.redelivered)
            })
            .collect();
        seen.extend(
            self.ready.iter().map(|(key, e)| (key.sequence, e.message.clone(), e.attempts, e.redelivered)),
        );
        seen.sort_unstable_by_key(|(sequence, ..)| *sequence);
        let own_name = queue.shows_own_name.then_some(&queue.destination);
        let left = seen
            .into_iter()
            .filter(|(_, message, attempts, redelivered)| {
                let view = MessageView::new(message, own_name).attempt(attempts + 1, *redelivered);
                selector.is_none_or(|selector| selector.matches(&view))
            })
            .map(|(_, message, attempts, redelivered)| (message, attempts, redelivered))
            .collect();
        let outbox = Arc::clone(outbox);
        self.browsers.push(Browser { outbox, subscription, left, granted: false, waits: false });
    }

    pub(crate) fn grant_browser(&mut self, connection: ConnectionId, subscription: SubscriptionKey) {
        for browser in &mut self.browsers {
            if browser.outbox.connection() == connection && browser.subscription == subscription {
                browser.granted = true;
            }
        }
    }

    pub(crate) fn detach_browser(&mut self, connection: ConnectionId, subscription: SubscriptionKey) {
        self.browsers.retain(|browser| {
            browser.outbox.connection() != connection || browser.subscription != subscription
        });
    }

    fn pump_browsers(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        for browser in &mut self.browsers {
            if !browser.granted || browser.waits {
                continue;
            }
            let mut shown = 0;
            while shown < BROWSE_MAX
                && let Some((message, attempts, redelivered)) = browser.left.front()
            {
                let delivery = Delivery {
                    message,
                    subscription: browser.subscription,
                    queue: queue.shows_own_name.then_some(&queue.destination),
                    token: None,
                    attempt: attempts + 1,
                    redelivered: *redelivered,
                    browsed: true,
                };
                match browser.outbox.deliver(work.now, &delivery, false, queue) {
                    Handed::Sent { .. } | Handed::Undeliverable(_) => {}
                    Handed::NoRoom => {
                        browser.waits = true;
                        break;
                    }
                    Handed::NoCredit => break,
                }
                browser.left.pop_front();
                shown += 1;
            }
            if browser.left.is_empty() {
                browser.outbox.browsed(browser.subscription);
            } else if shown == BROWSE_MAX {
                browser.waits = true;
                browser.outbox.resume_when_written(queue);
            }
            work.enlist(&browser.outbox);
        }
        self.browsers.retain(|browser| !browser.granted || !browser.left.is_empty());
    }

    /// Drops everything: the queue is being deleted. Returns the subscriptions that end with it.
    pub(crate) fn clear(&mut self, work: &mut Work) -> Vec<(Arc<Outbox>, SubscriptionKey)> {
        work.memory -= self.bytes.cast_signed();
        self.bytes = 0;
        self.ready = Ready::new(false);
        for held in std::mem::take(&mut self.in_flight).iter() {
            if let Some(consumer) = self.consumer(held.consumer) {
                consumer.credit.give(work);
            }
        }
        work.yielded = false;
        self.expiring.clear();
        self.ring.clear();
        self.selecting = 0;
        self.sharing = 0;
        let browsers = self.browsers.drain(..).map(|browser| (browser.outbox, browser.subscription));
        // A subscription over several queues goes on with the others.
        let consumers = self.consumers.drain(..).flatten().filter(|consumer| !consumer.credit.shared);
        consumers.map(|consumer| (consumer.outbox, consumer.subscription)).chain(browsers).collect()
    }

    pub(crate) fn stats(&self, queue: &Queue, host: &str) -> QueueStats {
        QueueStats {
            name: queue.title(),
            host: host.to_owned(),
            durability: if queue.logs() { queue.policy.durability } else { Level::Memory },
            ready: self.ready.len() as u64,
            unsettled: self.in_flight.len() as u64,
            bytes: self.bytes,
            consumers: self.ring.len() as u64,
            enqueued: self.enqueued,
            acknowledged: self.acknowledged,
            expired: self.expired,
            dead_lettered: self.dead_lettered,
        }
    }

    /// Puts back what the log remembered. Called once per message, in ascending order, before anybody connects.
    pub(crate) fn recover(&mut self, queue: &Queue, sequence: Sequence, entry: Entry, counters: &AtomicU64) {
        let memory = entry.message.memory() as u64;
        self.bytes += memory;
        add(counters, memory);
        self.next = self.next.max(sequence.0 + 1);
        self.insert(queue, sequence, entry);
    }
}

/// Who may do what is decided elsewhere; a queue only knows whose temporary it is.
pub(crate) fn check_owner(queue: &Queue, connection: ConnectionId, _who: &Principal) -> Result<(), Refusal> {
    match queue.role {
        Role::Temporary(owner) if owner != connection => Err(Refusal::new(
            Code::AccessDenied,
            "only the connection that made a temporary destination may consume from it",
        )),
        _ => Ok(()),
    }
}

/// Adds what one batch counted to the broker's counters.
pub(crate) fn count(counters: &Counters, work: &mut Work) {
    for (counter, value) in [
        (&counters.dispatched, &mut work.dispatched),
        (&counters.acknowledged, &mut work.acknowledged),
        (&counters.redelivered, &mut work.redelivered),
        (&counters.expired, &mut work.expired),
        (&counters.discarded, &mut work.discarded),
    ] {
        if *value > 0 {
            add(counter, std::mem::take(value));
        }
    }
}
