//! A queue: a lock, not an actor. It holds messages for later and hands each to one consumer.
//!
//! Whoever makes work (a send, a settlement, a subscription, credit) dispatches before unlocking. What a queue cannot do
//! under its own lock (moving a dead letter to another queue) it leaves in the [`Work`] of its caller.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{ArcMutexGuard, Mutex, RawMutex};
use sabir_model::access::Principal;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::destination::{Destination, dotted};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{ConnectionId, Position, QueueId, Sequence, SubscriptionKey};
use sabir_model::message::Message;
use sabir_model::pattern::Pattern;
use sabir_model::selector::Selector;
use sabir_model::stored::Stored;
use sabir_store::Level;

use crate::browse::Browser;
use crate::credit::{Consumer, Waits};
use crate::inflight::Slab;
use crate::lock_order::{Rank, Ranked};
use crate::outbox::Outbox;
use crate::policy::{Policy, SlowConsumer};
use crate::ready::{Entry, Key, Ready};
use crate::spill::Spilled;
use crate::stats::{Counters, QueueStats, add};
use crate::window::{FromLog, Window};
use crate::work::Work;

/// Deliveries in which the oldest message is looked for.
const IN_FLIGHT_LOOKED_AT: usize = 1024;

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
    /// What waits for a client session. Only one that may outlive its connection is logged.
    Backlog { client_id: Arc<str>, lasting: bool },
    /// What waits for a group of client sessions that share a subscription.
    Group { name: Box<str>, pattern: Pattern },
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
    /// Locked by [`Queue::lock`] only, which knows the order of locks.
    pub(crate) core: Arc<Mutex<QueueCore>>,
    /// Earliest expiration among its messages, in wall milliseconds; `u64::MAX` if none expires.
    pub(crate) next_expiry: AtomicU64,
    pub(crate) deleted: AtomicBool,
    /// For a group: some member may outlive its connection, so what waits is logged.
    pub(crate) lasting: AtomicBool,
    pub(crate) boot: u32,
    /// How much of it may be in memory.
    pub(crate) window: Arc<Window>,
}

/// A queue whose lock is held.
pub(crate) struct Held {
    pub(crate) queue: Arc<Queue>,
    pub(crate) core: Ranked<ArcMutexGuard<RawMutex, QueueCore>>,
}

impl Queue {
    /// Whether its messages may be logged at all.
    pub(crate) fn logs(&self) -> bool {
        self.is_defined() && self.policy.durability != Level::Memory
    }

    /// Whether the log knows it by name.
    pub(crate) fn is_defined(&self) -> bool {
        match self.role {
            Role::Plain | Role::Durable { .. } => true,
            Role::Temporary(_) | Role::Window => false,
            Role::Backlog { lasting, .. } => lasting,
            Role::Group { .. } => self.lasting.load(Ordering::Acquire),
        }
    }

    pub(crate) fn lock(self: &Arc<Self>) -> Held {
        let core = Ranked::take(Rank::Queue(self.id), || self.core.lock_arc());
        Held { core, queue: Arc::clone(self) }
    }

    /// The name shown in metrics and logs.
    pub(crate) fn title(&self) -> String {
        match &self.role {
            Role::Plain | Role::Temporary(_) => self.destination.to_string(),
            Role::Durable { client_id, name, .. } => format!("durable://{client_id}:{name}"),
            Role::Window => format!("window://{}", self.id.0),
            Role::Backlog { client_id, .. } => format!("session://{client_id}"),
            Role::Group { name, pattern } => format!("group://{name}:{}", dotted(&pattern.canonical())),
        }
    }
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct QueueCore {
    pub(crate) next: u64,
    pub(crate) ready: Ready,
    pub(crate) in_flight: Slab,
    /// Bytes of the messages in memory, delivered ones included.
    pub(crate) resident: u64,
    /// Bytes of bodies that are not in memory although their messages are.
    pub(crate) elsewhere: u64,
    /// Messages that have found the window full, since the last dispatch.
    pub(crate) over: Vec<Key>,
    /// Messages that the log does not have are among those, and may go there.
    pub(crate) spills: bool,
    /// Messages that are in the log for want of memory, and that a restart drops.
    pub(crate) spilled: Option<Box<Spilled>>,
    /// A page is on its way.
    pub(crate) fetching: bool,
    /// Somebody looks through what is paged out for what has expired.
    pub(crate) sweeping: bool,
    pub(crate) from_log: Option<Box<FromLog>>,
    pub(crate) consumers: Vec<Option<Consumer>>,
    /// Consumers in the order they are served: higher priority first, round-robin within.
    pub(crate) ring: Vec<u32>,
    pub(crate) turn: usize,
    /// Consumers with a selector.
    pub(crate) selecting: usize,
    /// Consumers whose credit other queues share.
    pub(crate) sharing: usize,
    pub(crate) browsers: Vec<Browser>,
    /// In the backlog of a client session: messages to be handed over exactly once, and the groups of the log they are in,
    /// until these are durable. A client remembers by which number it got a message; if a crash took the message, another
    /// one would get the number and be taken for it.
    pub(crate) undurable: VecDeque<(Sequence, Position)>,
    pub(crate) expiring: BTreeSet<(Timestamp, Sequence, Key2)>,
    pub(crate) last_used: Instant,
    pub(crate) enqueued: u64,
    pub(crate) acknowledged: u64,
    pub(crate) expired: u64,
    pub(crate) dead_lettered: u64,
    /// Deliveries handed to consumers.
    pub(crate) delivered: u64,
    /// Attempts that came back and were counted.
    pub(crate) redelivered: u64,
    /// Nothing is handed out; sends are still taken.
    pub(crate) paused: bool,
    /// Kept although nobody uses it.
    pub(crate) declared: bool,
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
    /// The first of two steps is done; sequence and note to log, if it is logged.
    Advanced(Option<(Sequence, u32)>),
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
            resident: 0,
            elsewhere: 0,
            over: Vec::new(),
            spills: false,
            spilled: None,
            fetching: false,
            sweeping: false,
            from_log: None,
            consumers: Vec::new(),
            ring: Vec::new(),
            turn: 0,
            selecting: 0,
            sharing: 0,
            browsers: Vec::new(),
            undurable: VecDeque::new(),
            expiring: BTreeSet::new(),
            last_used: now,
            enqueued: 0,
            acknowledged: 0,
            expired: 0,
            dead_lettered: 0,
            delivered: 0,
            redelivered: 0,
            paused: false,
            declared: false,
        }
    }

    /// Messages held.
    pub(crate) fn depth(&self) -> u64 {
        self.ready.len() + self.in_flight.len() as u64
    }

    pub(crate) fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.consumers.iter().flatten()
    }

    pub(crate) fn is_unused(&self) -> bool {
        self.depth() == 0 && self.ring.is_empty() && self.browsers.is_empty() && !self.declared
    }

    /// Whether `more` messages of `bytes` in all fit within the policy.
    pub(crate) fn check_room(&self, queue: &Queue, more: u64, bytes: u64) -> Result<(), Refusal> {
        let policy = &queue.policy;
        // These make room: a subscriber must not refuse the publisher.
        if matches!(queue.role, Role::Window | Role::Backlog { .. } | Role::Group { .. }) {
            return Ok(());
        }
        if self.depth().saturating_add(more) > policy.messages_max {
            let sentence = format!("{} holds its most, {} messages", queue.title(), policy.messages_max);
            return Err(Refusal::new(Code::DestinationFull, sentence));
        }
        if self.bytes().saturating_add(bytes) > policy.bytes_max {
            let sentence = format!("{} holds its most, {} bytes", queue.title(), policy.bytes_max);
            return Err(Refusal::new(Code::DestinationFull, sentence));
        }
        Ok(())
    }

    /// Makes room for one more message of a live subscription's window or of client sessions, as the policy for slow
    /// consumers says: a subscriber that does not acknowledge must not refuse the publisher. False if the new message is
    /// the one to drop.
    pub(crate) fn make_room(&mut self, queue: &Queue, work: &mut Work) -> bool {
        // One large message may take the place of many small ones.
        while self.is_full(queue) {
            work.discarded += 1;
            match queue.policy.slow_consumer {
                SlowConsumer::DropNewest => return false,
                SlowConsumer::DropOldest => {
                    let oldest = self.oldest_not_begun();
                    if let Some(paged) = self.ready.paged.first()
                        && oldest.is_none_or(|oldest| paged < oldest)
                    {
                        self.ready.paged.take(paged);
                        work.gone.push((queue.id, paged.sequence, 1));
                        continue;
                    }
                    let Some((key, oldest)) =
                        oldest.and_then(|key| self.take(key).map(|oldest| (key, oldest)))
                    else {
                        // All of it is on its way to the subscriber.
                        return false;
                    };
                    self.drop_entry(queue, key.sequence, &oldest, work);
                }
                SlowConsumer::Disconnect => {
                    for consumer in self.consumers() {
                        consumer.outbox.fail(Refusal::new(
                            Code::SlowConsumer,
                            "the subscriber acknowledges too slowly and its topic's policy is to disconnect it",
                        ));
                    }
                    return false;
                }
            }
        }
        true
    }

    fn is_full(&self, queue: &Queue) -> bool {
        match queue.role {
            Role::Plain | Role::Temporary(_) | Role::Durable { .. } => false,
            _ if self.depth() > 0
                && !queue.pages()
                && queue.window.budget.is_too_much_for_a_subscriber(self.resident) =>
            {
                true
            }
            Role::Window => self.ready.resident() >= queue.policy.pending_max.max(1),
            Role::Backlog { .. } | Role::Group { .. } => {
                self.depth() >= queue.policy.messages_max.max(1) || self.bytes() >= queue.policy.bytes_max
            }
        }
    }

    /// The oldest message that waits, but for handovers that have begun: no more of them than were ever unsettled at a
    /// time, and they are brought to their end.
    fn oldest_not_begun(&self) -> Option<Key> {
        self.ready.iter().find(|(_, entry)| entry.progress == 0).map(|(key, _)| key)
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
        self.enqueued += 1;
        if self.pages_at_once(queue, &entry) {
            let expires = entry.message.facts().expires;
            self.ready.paged.add(Key { rank: 0, sequence }, entry.message.weight(), expires);
            if expires != Timestamp::NEVER {
                queue.next_expiry.fetch_min(expires.0, Ordering::AcqRel);
            }
            return;
        }
        self.hold(&entry.message, memory);
        work.memory += memory.cast_signed();
        let in_log = entry.is_in_log();
        let key = self.insert(queue, sequence, entry);
        self.note_overflow(queue, key, in_log);
    }

    /// Puts a message into its place, without telling anybody.
    pub(crate) fn insert_quietly(&mut self, queue: &Queue, sequence: Sequence, entry: Entry) -> Key {
        let expires = entry.message.facts().expires;
        let key = self.ready.insert(sequence, entry);
        if expires != Timestamp::NEVER {
            self.expiring.insert((expires, sequence, key.rank));
            queue.next_expiry.fetch_min(expires.0, Ordering::AcqRel);
        }
        key
    }

    /// Puts a message into its place: whoever has looked there looks again.
    pub(crate) fn insert(&mut self, queue: &Queue, sequence: Sequence, entry: Entry) -> Key {
        let key = self.insert_quietly(queue, sequence, entry);
        if self.selecting > 0 {
            let before = Key { rank: key.rank, sequence: Sequence(key.sequence.0.saturating_sub(1)) };
            for consumer in self.consumers.iter_mut().flatten() {
                consumer.scanned = consumer.scanned.min(before);
            }
        }
        key
    }

    pub(crate) fn take(&mut self, key: Key) -> Option<Entry> {
        let entry = self.ready.take(key)?;
        let expires = entry.message.facts().expires;
        if expires != Timestamp::NEVER {
            self.expiring.remove(&(expires, key.sequence, key.rank));
        }
        Some(entry)
    }

    /// Drops a message that is in no list any more, also from the log.
    pub(crate) fn drop_entry(&mut self, queue: &Queue, sequence: Sequence, entry: &Entry, work: &mut Work) {
        self.forget(entry, work);
        if entry.logged {
            work.expired_logged.push((queue.id, sequence));
        }
        if entry.progress_logged {
            work.progress_over.push((queue.id, sequence));
        }
    }

    /// Counts a message, of so many bytes of memory, that is held from now on.
    pub(crate) fn hold(&mut self, message: &Message, memory: u64) {
        self.resident += memory;
        self.elsewhere += elsewhere(message);
    }

    pub(crate) fn forget(&mut self, entry: &Entry, work: &mut Work) {
        let memory = entry.message.memory() as u64;
        self.resident = self.resident.saturating_sub(memory);
        self.elsewhere = self.elsewhere.saturating_sub(elsewhere(&entry.message));
        work.memory -= memory.cast_signed();
    }

    /// Adds a consumer and returns its slot.
    pub(crate) fn attach(&mut self, consumer: Consumer) -> u32 {
        self.selecting += usize::from(consumer.selector.is_some());
        self.sharing += usize::from(consumer.credit.shared);
        let priority = consumer.priority;
        let slot = self.consumers.iter().position(Option::is_none).unwrap_or_else(|| {
            if self.consumers.is_empty() {
                // Most queues have one.
                self.consumers.reserve_exact(1);
                self.ring.reserve_exact(1);
            }
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

    pub(crate) fn consumer(&self, slot: u32) -> Option<&Consumer> {
        self.consumers.get(slot as usize)?.as_ref()
    }

    pub(crate) fn consumer_mut(&mut self, slot: u32) -> Option<&mut Consumer> {
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

    /// Lets the consumers of a connection go on whose protocol's own window may have opened.
    pub(crate) fn window_again(&mut self, connection: ConnectionId) {
        for consumer in self.consumers.iter_mut().flatten() {
            if consumer.outbox.connection() == connection && consumer.waits == Waits::ForWindow {
                consumer.waits = Waits::No;
            }
        }
    }

    /// Lets one consumer go on whose own window has opened.
    pub(crate) fn reopen(&mut self, slot: u32) {
        if let Some(consumer) = self.consumer_mut(slot)
            && consumer.waits == Waits::ForWindow
        {
            consumer.waits = Waits::No;
        }
    }

    /// Drops everything: the queue is being deleted. Returns the subscriptions that end with it.
    pub(crate) fn clear(&mut self, queue: QueueId, work: &mut Work) -> Vec<(Arc<Outbox>, SubscriptionKey)> {
        work.memory -= self.resident.cast_signed();
        self.resident = 0;
        self.elsewhere = 0;
        let mut over = |sequence: Sequence, entry: &Entry| {
            if entry.progress_logged {
                work.progress_over.push((queue, sequence));
            }
        };
        std::mem::replace(&mut self.ready, Ready::new(false))
            .iter()
            .for_each(|(key, entry)| over(key.sequence, entry));
        self.in_flight.iter().for_each(|held| over(held.sequence, &held.entry));
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

    /// When the oldest message held was sent, as it tells itself. Of those that are with consumers some are looked at: it
    /// is asked of many queues at a time.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let firsts = self.ready.first_of_each_rank();
        let delivered = self.in_flight.iter().take(IN_FLIGHT_LOOKED_AT).map(|held| &held.entry);
        firsts.chain(delivered).map(|entry| entry.message.facts().timestamp).min()
    }

    pub(crate) fn stats(&self, queue: &Queue, host: &str) -> QueueStats {
        QueueStats {
            name: queue.title(),
            host: host.to_owned(),
            durability: if queue.logs() { queue.policy.durability } else { Level::Memory },
            ready: self.ready.len(),
            unsettled: self.in_flight.len() as u64,
            bytes: self.bytes(),
            paged: self.ready.paged.len(),
            consumers: self.ring.len() as u64,
            enqueued: self.enqueued,
            acknowledged: self.acknowledged,
            expired: self.expired,
            dead_lettered: self.dead_lettered,
            delivered: self.delivered,
            redelivered: self.redelivered,
            paused: self.paused,
            oldest: self.oldest(),
        }
    }

    /// Puts back what the log remembered. Called once per message, in ascending order, before anybody connects.
    pub(crate) fn recover(&mut self, queue: &Queue, sequence: Sequence, entry: Entry, counters: &AtomicU64) {
        let memory = entry.message.memory() as u64;
        self.hold(&entry.message, memory);
        add(counters, memory);
        self.next = self.next.max(sequence.0 + 1);
        self.insert(queue, sequence, entry);
    }
}

/// Bytes of a body that is not in memory.
fn elsewhere(message: &Message) -> u64 {
    message.stored_body().map_or(0, Stored::length)
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
        (&counters.unrouted, &mut work.unrouted),
    ] {
        if *value > 0 {
            add(counter, std::mem::take(value));
        }
    }
}
