//! What one batch leaves to be done once locks are released: dead letters, queues to go on with, outboxes to flush.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use sabir_model::clock::Timestamp;
use sabir_model::command::{Promise, WireAck};
use sabir_model::delivery::EncodeCache;
use sabir_model::destination::{Destination, DestinationRef, Kind};
use sabir_model::headers::ValueRef;
use sabir_model::ids::{ConnectionId, DeliveryToken, Position, QueueId, Sequence};
use sabir_model::message::{Facts, Field, FieldsWriter, Message, Tag};
use sabir_model::session::Now;
use sabir_model::settlement::Settlement;
use sabir_store::{Durable, Level};

use crate::broker::Shared;
use crate::outbox::{Mark, Outbox};
use crate::pager::Job;
use crate::policy::DeadLetters;
use crate::queue::{Held, Queue, Role, SettleResult, count};
use crate::ready::{Entry, Failed, History};
use crate::session_log::{TABLE_PROGRESS, progress_key};
use crate::spill::spill_all;

/// Outboxes flushed by the thread that filled them; further ones are left to their owners.
const INLINE_FLUSHES_MAX: usize = 64;
/// Rounds of dispatch, flush and settle before the rest is left to the next turn of the connection.
const ROUNDS_MAX: usize = 8;

/// A message on its way to the dead letters.
pub(crate) struct Dead {
    pub(crate) queue: Arc<Queue>,
    pub(crate) sequence: Sequence,
    pub(crate) entry: Entry,
    pub(crate) reason: &'static str,
}

/// The working state of whoever runs in the core; one per connection, reused.
pub(crate) struct Work {
    pub(crate) now: Now,
    pub(crate) dirty: Vec<Arc<Outbox>>,
    pub(crate) dead: Vec<Dead>,
    pub(crate) resume: Vec<Arc<Queue>>,
    /// Queues with consumers of a connection whose protocol's own window may have opened.
    pub(crate) windows: Vec<(ConnectionId, Arc<Queue>)>,
    /// Shared credit that was given back is on its way to another queue.
    pub(crate) yielded: bool,
    pub(crate) expired_logged: Vec<(QueueId, Sequence)>,
    /// Runs of messages that are gone and were in the log only.
    pub(crate) gone: Vec<(QueueId, Sequence, u64)>,
    /// Queues that hold more than they have memory for, of what the log does not have.
    pub(crate) spills: Vec<QueueId>,
    /// What is to be read from the log.
    pub(crate) jobs: Vec<Job>,
    /// Notes of handovers to be logged, and those that are of no more use.
    pub(crate) progress_made: Vec<(QueueId, Sequence, u32)>,
    pub(crate) progress_over: Vec<(QueueId, Sequence)>,
    /// Backlogs whose next message waits for the log to cover a position.
    pub(crate) undurable: Vec<(Arc<Queue>, Position)>,
    /// How far the log was when this batch began.
    pub(crate) durable: Option<Durable>,
    pub(crate) cache: EncodeCache,
    /// A queue that was sent to and has much of the memory.
    pub(crate) pressed: Option<Arc<Queue>>,
    /// Change of the bytes held in memory.
    pub(crate) memory: i64,
    pub(crate) dispatched: u64,
    pub(crate) acknowledged: u64,
    pub(crate) redelivered: u64,
    pub(crate) expired: u64,
    pub(crate) discarded: u64,
    pub(crate) unrouted: u64,
    /// Sent by the connection in this batch, and bytes of the bodies.
    pub(crate) published: u64,
    pub(crate) published_bytes: u64,
    /// The queue that the last send went to, still locked, and how many sends it has been kept for.
    pub(crate) held: Option<(Held, u32)>,
    /// Acknowledgements of the batch.
    pub(crate) acks: Vec<WireAck>,
    due: Vec<Mark>,
    settled: Vec<(ConnectionId, DeliveryToken)>,
}

impl Work {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            now,
            dirty: Vec::new(),
            dead: Vec::new(),
            resume: Vec::new(),
            windows: Vec::new(),
            yielded: false,
            expired_logged: Vec::new(),
            gone: Vec::new(),
            spills: Vec::new(),
            jobs: Vec::new(),
            progress_made: Vec::new(),
            progress_over: Vec::new(),
            undurable: Vec::new(),
            durable: None,
            cache: EncodeCache::new(),
            pressed: None,
            memory: 0,
            dispatched: 0,
            acknowledged: 0,
            redelivered: 0,
            expired: 0,
            discarded: 0,
            unrouted: 0,
            published: 0,
            published_bytes: 0,
            held: None,
            acks: Vec::new(),
            due: Vec::new(),
            settled: Vec::new(),
        }
    }

    /// Sees to it that an outbox is flushed at the end of the batch.
    pub(crate) fn enlist(&mut self, outbox: &Arc<Outbox>) {
        if outbox.enlist() {
            self.dirty.push(Arc::clone(outbox));
        }
    }

    fn is_done(&self) -> bool {
        self.dirty.is_empty() && self.only_fills_outboxes()
    }

    /// Whether nothing is to be done but to flush what was filled.
    fn only_fills_outboxes(&self) -> bool {
        self.dead.is_empty()
            && self.resume.is_empty()
            && self.windows.is_empty()
            && self.expired_logged.is_empty()
            && self.gone.is_empty()
            && self.spills.is_empty()
            && self.jobs.is_empty()
            && self.progress_made.is_empty()
            && self.progress_over.is_empty()
    }

    /// Whether nothing is in it, neither to be done nor to be counted.
    pub(crate) fn is_blank(&self) -> bool {
        let Self { dispatched, acknowledged, redelivered, expired, discarded, unrouted, published, .. } =
            self;
        let counted = [dispatched, acknowledged, redelivered, expired, discarded, unrouted, published];
        self.is_done()
            && self.undurable.is_empty()
            && self.due.is_empty()
            && self.settled.is_empty()
            && !self.yielded
            && self.pressed.is_none()
            && self.memory == 0
            && self.held.is_none()
            && self.acks.is_empty()
            && counted == [&0; 7]
    }

    /// Gives back buffers that a burst has made large.
    fn shrink(&mut self) {
        self.dirty.shrink_to(64);
        self.acks.shrink_to(1024);
        self.resume.shrink_to(64);
        self.windows.shrink_to(64);
        self.due.shrink_to(256);
        self.settled.shrink_to(256);
        self.cache.reset();
    }
}

/// Does what is left. True if some is still left for the next turn.
pub(crate) fn finish(shared: &Shared, work: &mut Work) -> bool {
    if work.only_fills_outboxes() {
        flush(shared, work);
    }
    if !(work.is_done() && work.settled.is_empty()) {
        go_round(shared, work);
    }
    if !work.undurable.is_empty() {
        await_log(shared, work);
    }
    shared.account(work);
    count(&shared.counters, work);
    work.shrink();
    !work.is_done()
}

/// Dispatches, flushes and settles until nothing is left, or for some rounds.
fn go_round(shared: &Shared, work: &mut Work) {
    work.durable = Some(shared.store.watermark());
    for _ in 0..ROUNDS_MAX {
        log_expired(shared, work);
        bury(shared, work);
        spill_all(shared, work);
        for (connection, queue) in std::mem::take(&mut work.windows) {
            queue.lock().core.window_again(connection);
            work.resume.push(queue);
        }
        shared.pager.take(shared, work);
        let mut resume = std::mem::take(&mut work.resume);
        once_each(&mut resume);
        for queue in resume {
            let mut held = queue.lock();
            held.core.dispatch(&queue, work);
        }
        flush(shared, work);
        settle_written(shared, work);
        if work.is_done() {
            break;
        }
    }
}

/// Has the log wake those whose backlogs wait for it.
fn await_log(shared: &Shared, work: &mut Work) {
    for (queue, position) in work.undurable.drain(..) {
        let connection = queue.lock().core.consumers().next().map(|one| one.outbox.connection());
        let mailbox = connection.and_then(|one| shared.connections.lock().get(&one).map(Arc::clone));
        if let Some(mailbox) = mailbox {
            shared.store.wake_at(position, queue.policy.durability, mailbox);
        }
    }
}

/// Keeps the first mention of each queue.
fn once_each(queues: &mut Vec<Arc<Queue>>) {
    if queues.len() > 1 {
        let mut seen: HashSet<QueueId, RandomState> = HashSet::default();
        queues.retain(|queue| seen.insert(queue.id));
    }
}

fn flush(shared: &Shared, work: &mut Work) {
    let Work { dirty, due, settled, resume, now, .. } = work;
    for (index, outbox) in dirty.drain(..).enumerate() {
        if index >= INLINE_FLUSHES_MAX {
            outbox.wake_owner();
            continue;
        }
        outbox.flush(*now, due, &shared.counters);
        sort_marks(&outbox, due, settled, resume);
    }
}

/// Owner's flush: marks that became due are worked off by the caller's [`finish`].
pub(crate) fn take_due(shared: &Shared, work: &mut Work, outbox: &Outbox, due: &mut Vec<Mark>) {
    let Work { settled, resume, .. } = work;
    sort_marks(outbox, due, settled, resume);
    settle_written(shared, work);
}

fn sort_marks(
    outbox: &Outbox,
    due: &mut Vec<Mark>,
    settled: &mut Vec<(ConnectionId, DeliveryToken)>,
    resume: &mut Vec<Arc<Queue>>,
) {
    let connection = outbox.connection();
    for mark in due.drain(..) {
        match mark {
            Mark::Owner => outbox.wake_owner(),
            Mark::Settle(token) => settled.push((connection, token)),
            Mark::Resume(queue) => {
                if let Some(queue) = queue.upgrade() {
                    queue.lock().core.room_again(connection);
                    resume.push(queue);
                }
            }
        }
    }
}

/// Settles the automatic deliveries whose bytes the sockets have taken.
fn settle_written(shared: &Shared, work: &mut Work) {
    let settled = std::mem::take(&mut work.settled);
    let mut rest = settled.as_slice();
    while let Some(&(connection, token)) = rest.first() {
        let same = rest.iter().take_while(|(c, t)| *c == connection && t.queue == token.queue).count();
        let (now, later) = rest.split_at(same);
        rest = later;
        if let Some(queue) = shared.queue(token.queue) {
            let items = now.iter().map(|(_, token)| (*token, Settlement::Accepted));
            settle(shared, &queue, connection, items, Level::Os, work, |_| {});
        }
    }
    let mut settled = settled;
    settled.clear();
    work.settled = settled;
}

/// Settles deliveries of one queue under one hold of its lock, logs them, and dispatches. `refused` hears the index of
/// each item that named nothing.
pub(crate) fn settle(
    shared: &Shared,
    queue: &Arc<Queue>,
    connection: ConnectionId,
    items: impl Iterator<Item = (DeliveryToken, Settlement)>,
    level: Level,
    work: &mut Work,
    mut refused: impl FnMut(usize),
) -> Option<Promise> {
    let mut held = queue.lock();
    let mut acks: Vec<Sequence> = Vec::new();
    let mut attempts: Vec<(Sequence, u32)> = Vec::new();
    let mut advanced: Vec<(Sequence, u32)> = Vec::new();
    for (index, (token, settlement)) in items.enumerate() {
        match held.core.settle(queue, token, connection, settlement, work) {
            SettleResult::Done(Some(sequence)) => acks.push(sequence),
            SettleResult::Returned(Some(attempt)) => attempts.push(attempt),
            SettleResult::Advanced(Some(step)) => advanced.push(step),
            SettleResult::Done(None)
            | SettleResult::Returned(None)
            | SettleResult::Advanced(None)
            | SettleResult::Dead => {}
            SettleResult::Unknown => refused(index),
        }
    }
    let mut kept = log_settled(shared, queue.id, &mut acks, &attempts, level);
    if !advanced.is_empty() {
        let mut group = shared.store.begin();
        for (sequence, progress) in advanced {
            group.set(TABLE_PROGRESS, &progress_key(queue.id, sequence), &progress.to_le_bytes());
        }
        kept = Some(promise(group.finish(level), level));
    }
    held.core.dispatch_after_settling(queue, work);
    kept
}

/// Logs acknowledged sequences and failed attempts of one queue in one group.
pub(crate) fn log_settled(
    shared: &Shared,
    queue: QueueId,
    acks: &mut [Sequence],
    attempts: &[(Sequence, u32)],
    level: Level,
) -> Option<Promise> {
    if acks.is_empty() && attempts.is_empty() {
        return None;
    }
    let mut group = shared.store.begin();
    for_each_run(acks, |first, count| group.acknowledge(queue, first, count));
    for (sequence, count) in attempts {
        group.attempts(queue, *sequence, *count);
    }
    Some(promise(group.finish(level), level))
}

/// Sorts sequences and yields runs of consecutive ones.
pub(crate) fn for_each_run(sequences: &mut [Sequence], mut each: impl FnMut(Sequence, u64)) {
    sequences.sort_unstable();
    let mut rest = &*sequences;
    while let Some(first) = rest.first() {
        let count =
            rest.iter().zip(first.0..).take_while(|(sequence, expected)| sequence.0 == *expected).count();
        each(*first, count as u64);
        rest = rest.get(count..).unwrap_or_default();
    }
}

/// What a receipt for a group of this level waits for.
pub(crate) fn promise(position: Position, level: Level) -> Promise {
    Promise { position, synced: level == Level::Fsync }
}

/// The level that a promise speaks of.
pub(crate) fn level_of(promise: Promise) -> Level {
    if promise.synced { Level::Fsync } else { Level::Os }
}

/// The level that promises more.
pub(crate) fn stronger(one: Level, other: Level) -> Level {
    match (one, other) {
        (Level::Fsync, _) | (_, Level::Fsync) => Level::Fsync,
        (Level::Interval(a), Level::Interval(b)) => Level::Interval(a.min(b)),
        (Level::Interval(a), _) | (_, Level::Interval(a)) => Level::Interval(a),
        (Level::Os, _) | (_, Level::Os) => Level::Os,
        (Level::Memory, Level::Memory) => Level::Memory,
    }
}

fn log_expired(shared: &Shared, work: &mut Work) {
    let runs = [work.expired_logged.is_empty(), work.gone.is_empty()];
    if runs == [true; 2] && work.progress_made.is_empty() && work.progress_over.is_empty() {
        return;
    }
    let mut expired = std::mem::take(&mut work.expired_logged);
    expired.sort_unstable();
    let mut group = shared.store.begin();
    for (queue, sequence) in &expired {
        group.acknowledge(*queue, *sequence, 1);
    }
    for (queue, first, count) in work.gone.drain(..) {
        group.acknowledge(queue, first, count);
    }
    for (queue, sequence, progress) in work.progress_made.drain(..) {
        group.set(TABLE_PROGRESS, &progress_key(queue, sequence), &progress.to_le_bytes());
    }
    for (queue, sequence) in work.progress_over.drain(..) {
        group.remove(TABLE_PROGRESS, &progress_key(queue, sequence));
    }
    group.finish(Level::Os);
}

/// Moves dead letters to where their policy wants them: put and acknowledgement in one group.
fn bury(shared: &Shared, work: &mut Work) {
    for dead in std::mem::take(&mut work.dead) {
        let target = match &dead.queue.policy.dead_letters {
            DeadLetters::Discard => None,
            DeadLetters::Shared(destination) => Some(destination.clone()),
            DeadLetters::Individual { prefix, suffix } => {
                let name = match &dead.queue.role {
                    Role::Durable { client_id, name, .. } => format!("{client_id}.{name}"),
                    Role::Window | Role::Backlog { .. } | Role::Group { .. } => {
                        sent_to(&dead.entry.message).map_or_else(String::new, |to| to.dotted())
                    }
                    Role::Plain | Role::Temporary(_) => dead.queue.destination.dotted(),
                };
                Destination::from_dotted(Kind::Queue, false, &format!("{prefix}{name}{suffix}")).ok()
            }
        };
        let target = target.filter(|_| !dead.queue.holds_dead_letters);
        let target = target.and_then(|target| living(shared, &dead.queue, &target));
        crate::stats::add(&shared.counters.dead_lettered, 1);
        let Some(target) = target else {
            if dead.entry.logged {
                let mut group = shared.store.begin();
                group.acknowledge(dead.queue.id, dead.sequence, 1);
                group.finish(Level::Os);
            }
            continue;
        };
        let Held { queue: target, core } = target;
        let mut core = core;
        let message = dead_letter(&dead, &target.destination, work.now.wall);
        let logged = message.facts().persistent && target.logs();
        let sequence = core.take_sequence();
        if logged {
            match crate::publish::begin(shared, message.memory() as u64) {
                Ok(mut group) => {
                    crate::publish::put(&mut group, &message, &[(target.id, sequence)]);
                    if dead.entry.logged {
                        group.acknowledge(dead.queue.id, dead.sequence, 1);
                    }
                    group.finish(Level::Os);
                }
                Err(_) => {
                    // No room to move it: it stays where it was, and the next failure tries again.
                    drop(core);
                    let mut source = dead.queue.lock();
                    if !dead.queue.deleted.load(Ordering::Acquire) {
                        source.core.enqueue(&dead.queue, dead.sequence, dead.entry, work);
                    }
                    continue;
                }
            }
        } else if dead.entry.logged {
            let mut group = shared.store.begin();
            group.acknowledge(dead.queue.id, dead.sequence, 1);
            group.finish(Level::Os);
        }
        let entry = Entry::new(message, logged);
        core.enqueue(&target, sequence, entry, work);
        core.dispatch(&target, work);
    }
}

/// The queue for dead letters of another, locked, and not deleted since it was found.
fn living(shared: &Shared, source: &Queue, target: &Destination) -> Option<Held> {
    let host = shared.host_of(source);
    loop {
        let held = host.queue_for_broker(shared, target)?.lock();
        if !held.queue.deleted.load(Ordering::Acquire) {
            return Some(held);
        }
    }
}

fn sent_to(message: &Message) -> Option<Destination> {
    message.destination().map(DestinationRef::to_owned)
}

/// The dead letter: the message, where it died, why, after how many attempts, and what was known from earlier deaths.
fn dead_letter(dead: &Dead, target: &Destination, now: Timestamp) -> Message {
    let old = &dead.entry.message;
    let mut fields = FieldsWriter::new();
    fields.destination(Tag::Destination, target);
    // Where it can be sent again: a subscription's backlog has no name to send to.
    let source = match dead.queue.role {
        Role::Plain | Role::Temporary(_) => None,
        Role::Durable { .. } | Role::Window | Role::Backlog { .. } | Role::Group { .. } => sent_to(old),
    };
    let source = source.map_or_else(|| dead.queue.title(), |topic| topic.to_string());
    fields.field(Tag::OriginalDestination, source.as_bytes());
    let mut history = String::new();
    let mut earlier = (None, None);
    for field in old.fields() {
        match field {
            Field::Plain(Tag::Destination | Tag::OriginalDestination, _) => {}
            Field::Plain(tag, value) => fields.field(tag, value),
            Field::Property("dlqDeliveryFailureCause", ValueRef::Str(cause)) => earlier.0 = Some(cause),
            Field::Property("dlqSource", ValueRef::Str(source)) => earlier.1 = Some(source),
            Field::Property("dlqHistory", ValueRef::Str(text)) => history = text.to_owned(),
            Field::Property("dlqAttempts" | "dlqAttemptHistory" | "dlqTime" | "originalExpiration", _) => {}
            Field::Property(name, value) => fields.property(name, &value),
        }
    }
    if let (Some(cause), Some(source)) = earlier {
        if !history.is_empty() {
            history.push_str("; ");
        }
        history.push_str(&format!("{source}: {cause}"));
        fields.text_property("dlqHistory", &history);
    }
    fields.text_property("dlqDeliveryFailureCause", dead.reason);
    fields.text_property("dlqSource", &dead.queue.title());
    fields.property("dlqAttempts", &ValueRef::I32(i32::try_from(dead.entry.attempts).unwrap_or(i32::MAX)));
    if let Some(History(history)) = dead.entry.history.as_deref() {
        let line = |one: &Failed| format!("{} connection {}: {}", one.at.0, one.connection.0, one.how);
        let lines: Vec<String> = history.iter().map(line).collect();
        fields.text_property("dlqAttemptHistory", &lines.join(" | "));
    }
    fields.property("dlqTime", &ValueRef::I64(now.0.cast_signed()));
    let facts = *old.facts();
    if facts.expires != Timestamp::NEVER {
        fields.property("originalExpiration", &ValueRef::I64(facts.expires.0.cast_signed()));
    }
    Message::new(Facts { expires: Timestamp::NEVER, ..facts }, &[fields.as_slice()], old.same_body())
}
