//! Executing sends: building messages, taking sequence numbers, logging, enqueueing and fanning out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sabir_model::clock::Timestamp;
use sabir_model::command::Promise;
use sabir_model::delivery::Delivery;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{ConnectionId, DeliveryToken, QueueId, Sequence};
use sabir_model::message::{Body, Facts, Message};
use sabir_model::settlement::Settlement;
use sabir_store::{Appender, Full, Level, PutMeta};
use smallvec::SmallVec;

use crate::broker::Shared;
use crate::policy::Policy;
use crate::queue::{Held, Queue, SettleResult};
use crate::ready::Entry;
use crate::registry::Live;
use crate::route::{Leg, Route};
use crate::selection::MessageView;
use crate::stats::add;
use crate::work::{Work, for_each_run, promise};

/// A message on its way in, id and time filled in.
pub(crate) struct Incoming<'a> {
    pub(crate) facts: Facts,
    /// Fields the broker adds: the sender's identity.
    pub(crate) stamp: &'a [u8],
    pub(crate) fields: &'a [u8],
    pub(crate) body: Body<'a>,
    pub(crate) connection: ConnectionId,
}

/// One message with all that receives it.
pub(crate) struct Planned {
    pub(crate) message: Message,
    /// Queues, and whether a full one is skipped.
    queues: SmallVec<[(Arc<Queue>, bool, bool); 1]>,
    live: Vec<Arc<Live>>,
    policy: Arc<Policy>,
}

/// Why a plan was not carried out.
pub(crate) enum Failure {
    /// A queue was deleted in between: resolve again.
    Stale,
    /// It may not, or cannot now.
    Refused(Refusal),
}

/// Appends the put of one message.
pub(crate) fn put(group: &mut Appender<'_>, message: &Message, targets: &[(QueueId, Sequence)]) {
    let facts = message.facts();
    let meta = PutMeta { priority: facts.priority, flags: 0, expires_ms: facts.expires.0 };
    group.put(targets, meta, &[&facts.encode(), message.field_bytes()], message.body());
}

/// The refusal for a log that takes no puts now.
pub(crate) fn full(full: Full) -> Refusal {
    match full {
        Full::Disk => Refusal::new(
            Code::StorageFull,
            "the disk is full: persistent messages are refused until space returns",
        ),
        Full::Pending => Refusal::new(
            Code::StorageFull,
            "more bytes wait to be written than the log may hold; send again later",
        ),
        Full::Failed => Refusal::new(
            Code::Internal,
            "the message log has failed and the broker is ending; nothing more is accepted",
        ),
    }
}

/// Starts a group that holds messages of so many bytes in all. The log wants to know: what needs more than a segment is
/// refused here if the disk is too full for it.
pub(crate) fn begin(shared: &Shared, bytes: u64) -> Result<Appender<'_>, Failure> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    shared.store.begin_put_sized(bytes).map_err(|reason| Failure::Refused(full(reason)))
}

/// The facts a leg's message gets: a longer life than the policy allows is cut.
fn facts_for(facts: Facts, policy: &Policy, now: Timestamp) -> Facts {
    let Some(longest) = policy.ttl_max else { return facts };
    let latest = Timestamp(now.0.saturating_add(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)));
    let expires = if facts.expires == Timestamp::NEVER { latest } else { facts.expires.min(latest) };
    Facts { expires, ..facts }
}

fn build(incoming: &Incoming<'_>, leg: &Leg, now: Timestamp) -> Message {
    let facts = facts_for(incoming.facts, &leg.policy, now);
    Message::new(facts, &[&leg.head, incoming.stamp, incoming.fields], incoming.body.clone())
}

/// Sends to the one queue of a simple route, whose lock the caller holds. The caller dispatches.
pub(crate) fn enqueue_single(
    shared: &Shared,
    held: &mut Held,
    leg: &Leg,
    incoming: &Incoming<'_>,
    work: &mut Work,
) -> Result<Option<Promise>, Failure> {
    let Held { queue, core } = held;
    if queue.deleted.load(Ordering::Acquire) {
        return Err(Failure::Stale);
    }
    shared.check_memory().map_err(Failure::Refused)?;
    let size = (incoming.fields.len() + incoming.body.as_slice().len()) as u64;
    core.check_room(queue, 1, size).map_err(Failure::Refused)?;
    if !core.make_room(queue, work) {
        return Ok(None);
    }
    let logged = incoming.facts.persistent && queue.logs();
    let mut kept = None;
    let message;
    let sequence;
    if logged {
        let mut group = begin(shared, size)?;
        message = build(incoming, leg, work.now.wall);
        sequence = core.take_sequence();
        put(&mut group, &message, &[(queue.id, sequence)]);
        let level = queue.policy.durability;
        kept = Some(promise(group.finish(level), level));
    } else {
        message = build(incoming, leg, work.now.wall);
        sequence = core.take_sequence();
    }
    let entry = Entry::new(message, logged);
    core.enqueue(queue, sequence, entry, work);
    Ok(kept)
}

/// What a route makes of a message: one planned message per leg that applies.
pub(crate) fn plan(route: &Route, incoming: &Incoming<'_>, work: &Work, planned: &mut Vec<Planned>) {
    let mut matched: SmallVec<[bool; 4]> = SmallVec::from_elem(false, route.groups);
    for leg in &route.legs {
        if leg.unless.iter().any(|group| matched.get(*group).copied().unwrap_or(false)) {
            continue;
        }
        if leg.queues.is_empty() && leg.live.is_empty() && leg.group.is_none() {
            continue;
        }
        let message = build(incoming, leg, work.now.wall);
        let view = MessageView::new(&message, None);
        if !leg.conditions.iter().all(|condition| condition.matches(&view)) {
            continue;
        }
        if let Some(matched) = leg.group.and_then(|group| matched.get_mut(group)) {
            *matched = true;
        }
        if leg.queues.is_empty() && leg.live.is_empty() {
            continue;
        }
        let queues = leg
            .queues
            .iter()
            .filter(|target| target.no_local != Some(incoming.connection))
            .filter(|target| target.selector.as_ref().is_none_or(|selector| selector.matches(&view)))
            .map(|target| (Arc::clone(&target.queue), target.selector_aware, target.skip_when_full))
            .collect();
        planned.push(Planned { queues, live: leg.live.clone(), policy: Arc::clone(&leg.policy), message });
    }
}

/// Publishes to the live subscribers of a topic that no queue collects.
pub(crate) fn fan_out(shared: &Shared, leg: &Leg, incoming: &Incoming<'_>, work: &mut Work) {
    if leg.live.is_empty() {
        add(&shared.counters.unrouted, 1);
        return;
    }
    let message = build(incoming, leg, work.now.wall);
    deliver_live(shared, &message, &leg.live, &leg.policy, incoming.connection, work);
}

fn deliver_live(
    shared: &Shared,
    message: &Message,
    live: &[Arc<Live>],
    policy: &Policy,
    from: ConnectionId,
    work: &mut Work,
) {
    if message.facts().expires.has_passed(work.now.wall) {
        work.expired += 1;
        return;
    }
    let view = MessageView::new(message, None);
    for subscriber in live {
        if subscriber.no_local == Some(from)
            || subscriber.selector.as_ref().is_some_and(|selector| !selector.matches(&view))
        {
            continue;
        }
        let delivery = Delivery {
            message,
            subscription: subscriber.subscription,
            queue: None,
            token: None,
            attempt: 1,
            redelivered: false,
            browsed: false,
        };
        let now = work.now;
        subscriber.outbox.deliver_live(now, &delivery, &mut work.cache, policy, &shared.counters);
        work.enlist(&subscriber.outbox);
    }
    work.cache.reset();
}

/// Carries out sends and settlements as one: all of it in one group of the log, or none of it.
pub(crate) fn execute(
    shared: &Shared,
    planned: &[Planned],
    settlements: &[(DeliveryToken, Settlement)],
    connection: ConnectionId,
    work: &mut Work,
) -> Result<Option<Promise>, Failure> {
    // What only settles makes room.
    if !planned.is_empty() {
        shared.check_memory().map_err(Failure::Refused)?;
    }
    let mut queues: Vec<Arc<Queue>> =
        planned.iter().flat_map(|p| &p.queues).map(|(q, ..)| Arc::clone(q)).collect();
    queues.extend(settlements.iter().filter_map(|(token, _)| shared.queue(token.queue)));
    queues.sort_unstable_by_key(|queue| queue.id);
    queues.dedup_by_key(|queue| queue.id);
    let mut held: Vec<Held> = queues.iter().map(Queue::lock).collect();

    // First everything that can go wrong, then everything that happens.
    let mut puts: Vec<(usize, SmallVec<[usize; 4]>)> = Vec::with_capacity(planned.len());
    let mut more: Vec<(u64, u64)> = vec![(0, 0); held.len()];
    let mut level: Option<Level> = None;
    let mut logged_bytes: u64 = 0;
    for (index, one) in planned.iter().enumerate() {
        let mut places = SmallVec::new();
        let mut logs = false;
        for (queue, selector_aware, skip_when_full) in &one.queues {
            let Ok(place) = held.binary_search_by_key(&queue.id, |held| held.queue.id) else { continue };
            let (Some(target), Some(more)) = (held.get(place), more.get_mut(place)) else { continue };
            if queue.deleted.load(Ordering::Acquire) {
                return Err(Failure::Stale);
            }
            if *selector_aware && !wanted(target, &one.message) {
                continue;
            }
            let bytes = one.message.memory() as u64;
            if let Err(refusal) = target.core.check_room(queue, more.0 + 1, more.1 + bytes) {
                if *skip_when_full {
                    add(&shared.counters.discarded, 1);
                    continue;
                }
                return Err(Failure::Refused(refusal));
            }
            *more = (more.0 + 1, more.1 + bytes);
            if one.message.facts().persistent && queue.logs() {
                level = Some(
                    level.map_or(queue.policy.durability, |level| stronger(level, queue.policy.durability)),
                );
                logs = true;
            }
            places.push(place);
        }
        if logs {
            logged_bytes = logged_bytes.saturating_add(one.message.memory() as u64);
        }
        puts.push((index, places));
    }
    let mut group = match level {
        Some(_) => Some(begin(shared, logged_bytes)?),
        None => None,
    };

    let mut numbered: Vec<(QueueId, Sequence)> = Vec::new();
    for (index, places) in &puts {
        let Some(one) = planned.get(*index) else { continue };
        numbered.clear();
        for place in places {
            let Some(Held { queue, core }) = held.get_mut(*place) else { continue };
            if !core.make_room(queue, work) {
                continue;
            }
            let sequence = core.take_sequence();
            let logged = one.message.facts().persistent && queue.logs();
            if logged {
                numbered.push((queue.id, sequence));
            }
            let entry = Entry::new(one.message.clone(), logged);
            core.enqueue(queue, sequence, entry, work);
        }
        if let (Some(group), false) = (&mut group, numbered.is_empty()) {
            put(group, &one.message, &numbered);
        }
    }
    let mut acks: Vec<Sequence> = Vec::new();
    for Held { queue, core } in &mut held {
        acks.clear();
        for (token, settlement) in settlements.iter().filter(|(token, _)| token.queue == queue.id) {
            match core.settle(queue, *token, connection, *settlement, work) {
                SettleResult::Done(Some(sequence)) => acks.push(sequence),
                SettleResult::Returned(Some((sequence, count))) => {
                    group.get_or_insert_with(|| shared.store.begin()).attempts(queue.id, sequence, count);
                    level.get_or_insert(queue.policy.durability);
                }
                // Settled in between, by the queue's deletion say; the rest of the transaction stands.
                SettleResult::Done(None)
                | SettleResult::Returned(None)
                | SettleResult::Dead
                | SettleResult::Unknown => {}
            }
        }
        if !acks.is_empty() {
            let group = group.get_or_insert_with(|| shared.store.begin());
            for_each_run(&mut acks, |first, count| group.acknowledge(queue.id, first, count));
            level =
                Some(level.map_or(queue.policy.durability, |level| stronger(level, queue.policy.durability)));
        }
    }
    let kept = match (group, level) {
        (Some(group), Some(level)) => Some(promise(group.finish(level), level)),
        _ => None,
    };
    let yielded = std::mem::take(&mut work.yielded);
    // In the order written, not in that of the locks: one consumer may take from several of the targets.
    let mut served = vec![false; held.len()];
    let written = puts.iter().flat_map(|(_, places)| places.iter().copied());
    for place in written.chain(0..held.len()) {
        let (Some(Held { queue, core }), Some(served)) = (held.get_mut(place), served.get_mut(place)) else {
            continue;
        };
        if std::mem::replace(served, true) {
            continue;
        }
        if yielded {
            work.resume.push(Arc::clone(queue));
        } else {
            core.dispatch(queue, work);
        }
    }
    drop(held);
    for one in planned {
        deliver_live(shared, &one.message, &one.live, &one.policy, connection, work);
    }
    Ok(kept)
}

/// Whether some active consumer of the queue would take the message.
fn wanted(held: &Held, message: &Message) -> bool {
    let view = MessageView::new(message, Some(&held.queue.destination));
    held.core
        .consumers()
        .any(|consumer| consumer.selector.as_ref().is_none_or(|selector| selector.matches(&view)))
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
