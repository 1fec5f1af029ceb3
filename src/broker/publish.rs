//! Executing sends: building messages, taking sequence numbers, logging, enqueueing and fanning out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sabir_model::clock::Timestamp;
use sabir_model::command::Promise;
use sabir_model::delivery::{Delivery, Grant, Guarantee};
use sabir_model::destination::Destination;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{ConnectionId, DeliveryToken, QueueId, Sequence};
use sabir_model::message::{Body, Content, Facts, Message};
use sabir_model::settlement::Settlement;
use sabir_store::{Appender, Full, Level, PutMeta};
use smallvec::SmallVec;

use crate::bodies::blob_of;
use crate::broker::Shared;
use crate::client_session::ClientSession;
use crate::outbox::Receivers;
use crate::policy::Policy;
use crate::queue::{Held, Queue, Role, SettleResult};
use crate::ready::Entry;
use crate::registry::{Live, VirtualHost};
use crate::retained::Retained;
use crate::route::{Leg, Route};
use crate::selection::MessageView;
use crate::session_log::TABLE_RECEIVED;
use crate::stats::add;
use crate::work::{Work, for_each_run, promise, stronger};

/// A message on its way in, id and time filled in.
pub(crate) struct Incoming<'a> {
    pub(crate) facts: Facts,
    /// Fields the broker adds: the sender's identity.
    pub(crate) stamp: &'a [u8],
    pub(crate) fields: &'a [u8],
    pub(crate) body: Body<'a>,
    pub(crate) connection: ConnectionId,
    /// The key under which the log is to remember that it has arrived.
    pub(crate) once: Option<&'a [u8]>,
    /// Whether a last value goes to the log.
    pub(crate) keeps_in_log: bool,
}

impl<'a> Incoming<'a> {
    /// What of it goes into the log's segments, in bytes.
    fn log_bytes(&self) -> u64 {
        (self.fields.len() + self.body.octets().map_or(0, <[u8]>::len)) as u64
    }

    pub(crate) fn context(&self) -> Context<'a> {
        Context { connection: self.connection, once: self.once, keeps_in_log: self.keeps_in_log }
    }
}

/// What [`execute`] must know of where its messages come from.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) connection: ConnectionId,
    pub(crate) once: Option<&'a [u8]>,
    pub(crate) keeps_in_log: bool,
}

/// One message with all that receives it.
pub(crate) struct Planned {
    pub(crate) message: Message,
    queues: SmallVec<[Target; 1]>,
    live: Vec<Arc<Live>>,
    sessions: Vec<(Arc<ClientSession>, Arc<Grant>)>,
    /// The topic that keeps it as its last value.
    keeps: Option<Destination>,
    policy: Arc<Policy>,
}

impl Planned {
    /// Leaves out everybody but one queue. False if that would not get it either.
    pub(crate) fn only_to(&mut self, queue: QueueId) -> bool {
        self.queues.retain(|target| target.queue.id == queue);
        self.live = Vec::new();
        self.sessions = Vec::new();
        self.keeps = None;
        !self.queues.is_empty()
    }

    /// Whether it need not stay in memory.
    fn needs_no_memory(&self) -> bool {
        self.message.facts().persistent
            && self.live.is_empty()
            && self.sessions.is_empty()
            && self.keeps.is_none()
            && self.queues.iter().all(|target| target.queue.pages())
    }

    /// Whether there is anybody to receive it.
    pub(crate) fn is_received(&self) -> bool {
        !self.queues.is_empty() || !self.live.is_empty() || !self.sessions.is_empty()
    }
}

/// A queue that a message goes to.
struct Target {
    queue: Arc<Queue>,
    /// Only if some consumer would take it.
    if_wanted: bool,
    /// Not at all if the queue is full.
    skip_when_full: bool,
    grant: Option<Arc<Grant>>,
}

/// Places among the queues that are locked, with what is granted there.
type Places = SmallVec<[(usize, Option<Arc<Grant>>); 4]>;

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
    let head: [&[u8]; 2] = [&facts.encode(), message.field_bytes()];
    match message.body() {
        Content::Octets(body) => group.put(targets, meta, &head, body),
        Content::Stored(stored) => match blob_of(stored) {
            Some(blob) => group.put_blob(targets, meta, &head, blob),
            // Nobody but the log stores bodies here.
            None => tracing::error!(id = ?facts.id, "a message body lies where the log knows nothing of it"),
        },
    }
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
    let latest = now.after(longest);
    let expires = if facts.expires == Timestamp::NEVER { latest } else { facts.expires.min(latest) };
    Facts { expires, ..facts }
}

fn build(incoming: &Incoming<'_>, leg: &Leg, now: Timestamp) -> Message {
    let facts = facts_for(incoming.facts, &leg.policy, now);
    Message::new(facts, &[&leg.head, incoming.stamp, incoming.fields], incoming.body.clone())
}

/// Whether a message must not be handed over before the log holds it.
fn waits_for_log(queue: &Queue, entry: &Entry) -> bool {
    matches!(queue.role, Role::Backlog { .. })
        && entry.message.facts().exactly_once
        && entry.grant.as_ref().is_some_and(|grant| grant.guarantee == Guarantee::ExactlyOnce)
}

/// Logs that the message of this key has arrived.
pub(crate) fn log_received(shared: &Shared, key: &[u8]) -> Promise {
    let mut group = shared.store.begin();
    group.set(TABLE_RECEIVED, key, &[]);
    promise(group.finish(Level::Fsync), Level::Fsync)
}

/// Sends to the one queue of a simple route, whose lock the caller holds. The caller dispatches.
pub(crate) fn enqueue_single(
    shared: &Shared,
    held: &mut Held,
    leg: &Leg,
    grant: Option<&Arc<Grant>>,
    incoming: &Incoming<'_>,
    work: &mut Work,
) -> Result<Option<Promise>, Failure> {
    let Held { queue, core } = held;
    if queue.deleted.load(Ordering::Acquire) {
        return Err(Failure::Stale);
    }
    let logged = incoming.facts.persistent && queue.logs();
    if !(logged && queue.pages()) {
        shared.check_memory().map_err(Failure::Refused)?;
        let memory = incoming.fields.len() + incoming.body.octets().map_or(0, <[u8]>::len);
        if core.check_share(queue, memory as u64).map_err(Failure::Refused)? {
            work.pressed = Some(Arc::clone(queue));
        }
    }
    let size = incoming.fields.len() as u64 + incoming.body.length();
    core.check_room(queue, 1, size).map_err(Failure::Refused)?;
    if !core.make_room(queue, work) {
        return Ok(incoming.once.map(|key| log_received(shared, key)));
    }
    let kept;
    let message;
    let sequence;
    if logged {
        let mut group = begin(shared, incoming.log_bytes())?;
        message = build(incoming, leg, work.now.wall);
        sequence = core.take_sequence();
        put(&mut group, &message, &[(queue.id, sequence)]);
        let mut level = queue.policy.durability;
        if let Some(key) = incoming.once {
            group.set(TABLE_RECEIVED, key, &[]);
            level = Level::Fsync;
        }
        kept = Some(promise(group.finish(level), level));
    } else {
        message = build(incoming, leg, work.now.wall);
        sequence = core.take_sequence();
        kept = incoming.once.map(|key| log_received(shared, key));
    }
    let entry = Entry { grant: grant.cloned(), ..Entry::new(message, logged) };
    if logged
        && let Some(kept) = kept
        && waits_for_log(queue, &entry)
    {
        core.undurable.push_back((sequence, kept.position));
    }
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
        let keeps = incoming.facts.retain && leg.topic.is_some();
        if leg.is_empty() && leg.group.is_none() && !keeps {
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
        if leg.is_empty() && !keeps {
            continue;
        }
        let guarantee = message.facts().guarantee();
        let mut queues: SmallVec<[Target; 1]> = leg
            .queues
            .iter()
            .filter(|target| target.no_local != Some(incoming.connection))
            .filter(|target| target.selector.as_ref().is_none_or(|selector| selector.matches(&view)))
            .map(|target| Target {
                queue: Arc::clone(&target.queue),
                if_wanted: target.selector_aware
                    || (target.keeps_persistent_only && guarantee == Guarantee::AtMostOnce),
                skip_when_full: target.skip_when_full,
                grant: None,
            })
            .collect();
        let mut sessions = Vec::new();
        for target in &leg.sessions {
            let Some(grant) = target.grant_for(incoming.connection) else { continue };
            match target.session.backlog() {
                Some(queue) if guarantee.min(grant.guarantee) > Guarantee::AtMostOnce => {
                    queues.push(Target {
                        queue: Arc::clone(queue),
                        if_wanted: false,
                        skip_when_full: false,
                        grant: Some(Arc::clone(grant)),
                    });
                }
                _ => sessions.push((Arc::clone(&target.session), Arc::clone(grant))),
            }
        }
        planned.push(Planned {
            queues,
            live: leg.live.clone(),
            sessions,
            keeps: leg.topic.clone().filter(|_| keeps),
            policy: Arc::clone(&leg.policy),
            message,
        });
    }
}

/// Publishes to the live subscribers of a topic that no queue collects.
pub(crate) fn fan_out(shared: &Shared, leg: &Leg, incoming: &Incoming<'_>, work: &mut Work) {
    if leg.live.is_empty() && leg.sessions.is_empty() {
        work.unrouted += 1;
        return;
    }
    let message = build(incoming, leg, work.now.wall);
    if message.facts().expires.has_passed(work.now.wall) {
        work.expired += 1;
        return;
    }
    let receivers = Receivers::of(leg.live.len() + leg.sessions.len());
    deliver_live(shared, &message, &leg.live, receivers, &leg.policy, incoming.connection, work);
    for target in &leg.sessions {
        if let Some(grant) = target.grant_for(incoming.connection) {
            target.session.deliver_live(&message, grant, receivers, &leg.policy, shared, work);
        }
    }
    work.cache.reset();
}

fn deliver_live(
    shared: &Shared,
    message: &Message,
    live: &[Arc<Live>],
    receivers: Receivers,
    policy: &Policy,
    from: ConnectionId,
    work: &mut Work,
) {
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
            grant: None,
            sequence: None,
            progress: 0,
        };
        subscriber.outbox.deliver_live(&delivery, None, receivers, policy, &shared.counters, work);
        work.enlist(&subscriber.outbox);
    }
}

/// Carries out sends and settlements as one: all of it in one group of the log, or none of it.
pub(crate) fn execute(
    shared: &Shared,
    host: &VirtualHost,
    planned: &[Planned],
    settlements: &[(DeliveryToken, Settlement)],
    context: &Context<'_>,
    work: &mut Work,
) -> Result<Option<Promise>, Failure> {
    let Context { connection, once, keeps_in_log } = *context;
    // What only settles makes room, and what the log holds needs none.
    if !planned.iter().all(Planned::needs_no_memory) {
        shared.check_memory().map_err(Failure::Refused)?;
    }
    let mut queues: Vec<Arc<Queue>> =
        planned.iter().flat_map(|p| &p.queues).map(|target| Arc::clone(&target.queue)).collect();
    queues.extend(settlements.iter().filter_map(|(token, _)| shared.queue(token.queue)));
    queues.sort_unstable_by_key(|queue| queue.id);
    queues.dedup_by_key(|queue| queue.id);
    let mut held: Vec<Held> = queues.iter().map(Queue::lock).collect();

    // First everything that can go wrong, then everything that happens.
    let mut puts: Vec<(usize, Places)> = Vec::with_capacity(planned.len());
    // For each queue: messages, their bytes, and the bytes of memory among these.
    let mut more: Vec<(u64, u64, u64)> = vec![(0, 0, 0); held.len()];
    let mut level: Option<Level> = None;
    let mut logged_bytes: u64 = 0;
    for (index, one) in planned.iter().enumerate() {
        let mut places = SmallVec::new();
        let mut logs = false;
        for Target { queue, if_wanted, skip_when_full, grant } in &one.queues {
            let Ok(place) = held.binary_search_by_key(&queue.id, |held| held.queue.id) else { continue };
            let (Some(target), Some(more)) = (held.get(place), more.get_mut(place)) else { continue };
            if queue.deleted.load(Ordering::Acquire) {
                return Err(Failure::Stale);
            }
            if *if_wanted && !wanted(target, &one.message) {
                continue;
            }
            let (bytes, memory) = (one.message.weight(), one.message.memory() as u64);
            if let Err(refusal) = target.core.check_room(queue, more.0 + 1, more.1 + bytes) {
                if *skip_when_full {
                    add(&shared.counters.discarded, 1);
                    continue;
                }
                return Err(Failure::Refused(refusal));
            }
            if !(one.message.facts().persistent && queue.pages()) {
                match target.core.check_share(queue, more.2 + memory) {
                    Ok(false) => {}
                    Ok(true) => work.pressed = Some(Arc::clone(queue)),
                    Err(_) if *skip_when_full => {
                        add(&shared.counters.discarded, 1);
                        continue;
                    }
                    Err(refusal) => return Err(Failure::Refused(refusal)),
                }
            }
            *more = (more.0 + 1, more.1 + bytes, more.2 + memory);
            if one.message.facts().persistent && queue.logs() {
                level = Some(
                    level.map_or(queue.policy.durability, |level| stronger(level, queue.policy.durability)),
                );
                logs = true;
            }
            places.push((place, grant.clone()));
        }
        if let Some(topic) = &one.keeps {
            check_retained(shared, host, topic, &one.message)?;
            // A last value is in the log whether or not the message must be; but only that must be waited for.
            if keeps_in_log && one.policy.durability != Level::Memory {
                let own = if one.message.facts().persistent { one.policy.durability } else { Level::Os };
                level = Some(level.map_or(own, |level| stronger(level, own)));
                logs = true;
            }
        }
        if logs {
            logged_bytes = logged_bytes.saturating_add(one.message.memory() as u64);
        }
        puts.push((index, places));
    }
    let retained_queue = match keeps_in_log && planned.iter().any(|one| one.keeps.is_some()) {
        true => host.retained_queue(shared),
        false => QueueId(0),
    };
    let mut group = match level {
        Some(_) => Some(begin(shared, logged_bytes)?),
        None => None,
    };
    if let Some(key) = once {
        group.get_or_insert_with(|| shared.store.begin()).set(TABLE_RECEIVED, key, &[]);
        level = Some(Level::Fsync);
    }

    let mut numbered: Vec<(QueueId, Sequence)> = Vec::new();
    let mut waiting: SmallVec<[(usize, Sequence); 4]> = SmallVec::new();
    for (index, places) in &puts {
        let Some(one) = planned.get(*index) else { continue };
        numbered.clear();
        for (place, grant) in places {
            let Some(Held { queue, core }) = held.get_mut(*place) else { continue };
            if !core.make_room(queue, work) {
                continue;
            }
            let sequence = core.take_sequence();
            let logged = one.message.facts().persistent && queue.logs();
            if logged {
                numbered.push((queue.id, sequence));
            }
            let entry = Entry { grant: grant.clone(), ..Entry::new(one.message.clone(), logged) };
            if logged && waits_for_log(queue, &entry) {
                waiting.push((*place, sequence));
            }
            core.enqueue(queue, sequence, entry, work);
        }
        if let Some(topic) = &one.keeps {
            let logged = keeps_in_log && one.policy.durability != Level::Memory;
            // While the group holds the journal's buffer, so that the log tells the same order.
            let changed = host.retained.lock().set(topic.canonical(), &one.message, logged);
            work.memory += changed.memory;
            if let Some(sequence) = changed.new {
                numbered.push((retained_queue, sequence));
            }
            if let Some(old) = changed.old {
                let group = group.get_or_insert_with(|| shared.store.begin());
                // It has a number, so the queue is there.
                group.acknowledge(host.retained_queue(shared), old, 1);
                level.get_or_insert(Level::Os);
            }
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
                | SettleResult::Advanced(_)
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
    if let Some(kept) = kept {
        for (place, sequence) in waiting {
            if let Some(Held { core, .. }) = held.get_mut(place) {
                core.undurable.push_back((sequence, kept.position));
            }
        }
    }
    let yielded = std::mem::take(&mut work.yielded);
    // In the order written, not in that of the locks: one consumer may take from several of the targets.
    let mut served = vec![false; held.len()];
    let written = puts.iter().flat_map(|(_, places)| places.iter().map(|(place, _)| *place));
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
        if one.live.is_empty() && one.sessions.is_empty() {
            continue;
        }
        if one.message.facts().expires.has_passed(work.now.wall) {
            work.expired += 1;
            continue;
        }
        let receivers = Receivers::of(one.live.len() + one.sessions.len());
        deliver_live(shared, &one.message, &one.live, receivers, &one.policy, connection, work);
        for (session, grant) in &one.sessions {
            session.deliver_live(&one.message, grant, receivers, &one.policy, shared, work);
        }
        work.cache.reset();
    }
    Ok(kept)
}

/// Whether a topic may keep one more last value.
fn check_retained(
    shared: &Shared,
    host: &VirtualHost,
    topic: &Destination,
    message: &Message,
) -> Result<(), Failure> {
    let retained = host.retained.lock();
    let most = shared.limits.retained_max;
    if message.body().is_empty()
        || retained.counted() < most
        || retained.contains(topic.canonical())
        || Retained::is_told(topic.canonical())
    {
        return Ok(());
    }
    let sentence = format!("the broker keeps its most, {most} last values of topics");
    Err(Failure::Refused(Refusal::new(Code::LimitReached, sentence)))
}

/// Whether some active consumer of the queue would take the message.
fn wanted(held: &Held, message: &Message) -> bool {
    let view = MessageView::new(message, Some(&held.queue.destination));
    held.core
        .consumers()
        .any(|consumer| consumer.selector.as_ref().is_none_or(|selector| selector.matches(&view)))
}
