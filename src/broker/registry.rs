//! A virtual host: the namespace its queues, topic subscriptions and durable subscriptions live in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use sabir_model::clock::Timestamp;
use sabir_model::destination::{Destination, Kind, LEVEL_SEPARATOR, dotted};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{ConnectionId, QueueId, Sequence, SubscriptionKey};
use sabir_model::pattern::{Pattern, PatternLevel};
use sabir_model::selector::Selector;
use sabir_store::Level;

use crate::bindings::Subscriber;
use crate::broker::Shared;
use crate::credit::{Consumer, Credit};
use crate::lock_order::before_maps;
use crate::marks::Marks;
use crate::outbox::Outbox;
use crate::pattern_trie::{Handle, Level as TrieLevel, MatchOptions, NameIndex, Spot, TopicTable};
use crate::queue::{Queue, QueueCore, Role};
use crate::recovery::{
    COUNTER_NEXT_QUEUE, QUEUE_IDS_RESERVED, TABLE_COUNTERS, TABLE_GROUPS, TABLE_QUEUES, encode_queue,
    encode_retained_queue,
};
use crate::retained::Retained;
use crate::sessions::Sessions;
use crate::share::Shares;
use crate::tally::Sent;
use crate::work::{Work, finish};
use sabir_model::settlement::SettleMode;

/// Shards of the generation counters by which cached routes are found stale.
const GENERATIONS: usize = 256;

/// A live topic subscription in automatic mode: encoded straight into its outbox, never stored.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) subscription: SubscriptionKey,
    pub(crate) selector: Option<Arc<Selector>>,
    /// Leave out what this connection published.
    pub(crate) no_local: Option<ConnectionId>,
}

/// A queue that collects what matches a topic pattern.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) queue: Arc<Queue>,
    pub(crate) selector: Option<Arc<Selector>>,
    pub(crate) no_local: Option<ConnectionId>,
}

/// Who is interested in a topic.
#[derive(Clone, Debug)]
pub(crate) enum Interest {
    Live(Arc<Live>),
    Bound(Arc<Binding>),
    Session(Subscriber),
}

/// A subscription to all queues that match a pattern, present and future.
#[derive(Debug)]
pub(crate) struct Wildcard {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) subscription: SubscriptionKey,
    pub(crate) pattern: Pattern,
    pub(crate) credit: Arc<Credit>,
    pub(crate) settle: SettleMode,
    pub(crate) selector: Option<Arc<Selector>>,
    pub(crate) priority: i8,
    pub(crate) joined: Mutex<Joined>,
    pub(crate) granted: AtomicBool,
    pub(crate) closed: AtomicBool,
}

impl Wildcard {
    /// Becomes a consumer of `queue`.
    pub(crate) fn join(self: &Arc<Self>, queue: &Arc<Queue>, work: &mut Work) {
        before_maps();
        let mut joined = self.joined.lock();
        if self.closed.load(Ordering::Acquire) || joined.known.contains(&queue.id) {
            return;
        }
        let mut held = queue.lock();
        if queue.deleted.load(Ordering::Acquire) {
            return;
        }
        let consumer = Consumer::new(
            Arc::clone(&self.outbox),
            self.subscription,
            Arc::clone(&self.credit),
            self.settle,
            self.selector.clone(),
            self.priority,
        );
        let slot = held.core.attach(consumer);
        if self.granted.load(Ordering::Acquire) {
            held.core.grant(slot);
            work.resume.push(Arc::clone(queue));
        }
        joined.push(queue, slot);
    }
}

/// The queues that a wildcard has joined, in the order in which it did, with the consumer's slot in each.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) queues: Vec<(Arc<Queue>, u32)>,
    known: HashSet<QueueId, RandomState>,
    /// At this length deleted queues are looked for: seldom enough that a hundred thousand queues cost what a hundred
    /// thousand do, and often enough that at most half are dead.
    prune_at: usize,
}

impl Joined {
    fn push(&mut self, queue: &Arc<Queue>, slot: u32) {
        if self.queues.len() >= self.prune_at {
            let known = &mut self.known;
            self.queues.retain(|(queue, _)| {
                let deleted = queue.deleted.load(Ordering::Acquire);
                if deleted {
                    known.remove(&queue.id);
                }
                !deleted
            });
            self.prune_at = (self.queues.len() * 2).max(64);
        }
        self.known.insert(queue.id);
        self.queues.push((Arc::clone(queue), slot));
    }
}

/// What is to be looked at when, by client id. An entry may be out of date: the session itself knows.
#[derive(Debug, Default)]
pub(crate) struct Schedule(BTreeSet<(Timestamp, Box<str>)>);

impl Schedule {
    /// Sees to it that a session is looked at when its time is over, and before that when its will is due.
    pub(crate) fn look_at(&mut self, client_id: &str, ends_at: Timestamp, will_at: Timestamp) {
        for at in [ends_at, will_at] {
            if at != Timestamp::NEVER {
                self.0.insert((at, client_id.into()));
            }
        }
    }

    /// The next client id whose time has come.
    pub(crate) fn next_due(&mut self, now: Timestamp) -> Option<Box<str>> {
        if !self.0.first().is_some_and(|(at, _)| at.has_passed(now)) {
            return None;
        }
        self.0.pop_first().map(|(_, client_id)| client_id)
    }
}

type Map<K, V> = HashMap<K, V, RandomState>;

/// Client id and name of a durable subscription.
pub(crate) type DurableKey = (Box<str>, Box<str>);

/// One virtual host.
pub(crate) struct VirtualHost {
    pub(crate) name: Box<str>,
    pub(crate) queues: RwLock<Map<Destination, Arc<Queue>>>,
    /// Lasting queues by name, for patterns over them.
    pub(crate) names: RwLock<NameIndex<Arc<Queue>>>,
    pub(crate) topics: RwLock<TopicTable<Interest>>,
    pub(crate) durables: Mutex<Map<DurableKey, Durable>>,
    pub(crate) wildcards: RwLock<TopicTable<Arc<Wildcard>>>,
    /// Groups declared by wildcard subscriptions over virtual topics; they outlive the subscriptions.
    pub(crate) groups: RwLock<Vec<Pattern>>,
    pub(crate) temporary_topics: RwLock<Map<Destination, ConnectionId>>,
    pub(crate) client_ids: Mutex<Map<Arc<str>, ConnectionId>>,
    /// Client sessions by client id.
    pub(crate) sessions: Mutex<Sessions>,
    /// Groups that share subscriptions of client sessions.
    pub(crate) shares: Mutex<Shares>,
    /// The last values of topics.
    pub(crate) retained: Mutex<Retained>,
    /// Held for reading by who sets a last value, from before its route is known until the value is set.
    keeping: RwLock<()>,
    /// What has been sent where.
    pub(crate) sent: Sent,
    /// The queue of the log that holds them; 0 until there is one.
    retained_queue: Mutex<QueueId>,
    /// When sessions end and wills are due.
    pub(crate) schedule: Mutex<Schedule>,
    generations: Box<[AtomicU64]>,
    any_generation: AtomicU64,
    hasher: RandomState,
}

/// A durable subscription's queue and where it is bound.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) queue: Arc<Queue>,
    pub(crate) handle: Handle,
    /// The connection that consumes it now.
    pub(crate) active: Option<ConnectionId>,
}

/// By which a cached route is found stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

pub(crate) fn trie_levels(pattern: &Pattern) -> Vec<TrieLevel<'_>> {
    pattern
        .levels()
        .map(|level| match level {
            PatternLevel::Literal(text) => TrieLevel::Literal(text),
            PatternLevel::One => TrieLevel::One,
            PatternLevel::Rest => TrieLevel::Rest,
        })
        .collect()
}

/// Names that begin with a dollar sign are nobody's who has not asked for them.
pub(crate) const HIDE_DOLLAR: MatchOptions = MatchOptions { hide_dollar: true };

/// Adds somebody's interest in what matches a pattern.
pub(crate) fn add_interest<V>(topics: &mut TopicTable<V>, pattern: &Pattern, interest: V) -> Handle {
    match pattern.as_literal() {
        Some(destination) => topics.insert_name(destination.canonical(), interest),
        None => topics.insert(&trie_levels(pattern), interest),
    }
}

/// Where the interests of client sessions in what matches a pattern hang, if there are any. They have none in topics that
/// end with a connection.
pub(crate) fn spot_of<V>(topics: &TopicTable<V>, pattern: &Pattern) -> Option<Spot> {
    match pattern.as_literal() {
        _ if pattern.is_temporary() => None,
        Some(destination) => topics.spot_of_name(destination.canonical()),
        None => topics.spot_of_wildcards(&trie_levels(pattern)),
    }
}

/// The pattern whose interests hang there.
pub(crate) fn pattern_at<V>(topics: &TopicTable<V>, spot: Spot) -> Option<Pattern> {
    let levels = topics.levels_of(spot);
    if let [TrieLevel::Literal(name)] = *levels.as_slice() {
        return Destination::from_canonical(Kind::Topic, false, name).ok().map(Pattern::from);
    }
    let levels = levels.into_iter().map(|level| match level {
        TrieLevel::Literal(text) => PatternLevel::Literal(text),
        TrieLevel::One => PatternLevel::One,
        TrieLevel::Rest => PatternLevel::Rest,
    });
    Pattern::from_levels(Kind::Topic, levels).ok()
}

impl VirtualHost {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            queues: RwLock::default(),
            names: RwLock::new(NameIndex::new()),
            topics: RwLock::new(TopicTable::new()),
            durables: Mutex::default(),
            wildcards: RwLock::new(TopicTable::new()),
            groups: RwLock::default(),
            temporary_topics: RwLock::default(),
            client_ids: Mutex::default(),
            sessions: Mutex::default(),
            shares: Mutex::default(),
            retained: Mutex::default(),
            keeping: RwLock::default(),
            sent: Sent::default(),
            retained_queue: Mutex::default(),
            schedule: Mutex::default(),
            generations: (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect(),
            any_generation: AtomicU64::new(0),
            hasher: RandomState::default(),
        }
    }

    /// Begins the sending of a message that its topic keeps. Taken before any map or queue is locked, and held until it is
    /// sent.
    pub(crate) fn keep_value(&self) -> RwLockReadGuard<'_, ()> {
        self.keeping.read()
    }

    /// Waits for those who set a last value and do not know of a subscription that was just made: afterwards, each value
    /// has been set or will be sent to the subscription. Nothing may be locked.
    pub(crate) fn values_are_kept(&self) {
        drop(self.keeping.write());
    }

    fn shard(&self, name: &str) -> usize {
        use std::hash::BuildHasher;
        let first = name.split(LEVEL_SEPARATOR).next().unwrap_or_default();
        usize::try_from(self.hasher.hash_one(first)).unwrap_or(0) % GENERATIONS
    }

    /// Makes cached routes stale that may concern names matching `pattern`.
    pub(crate) fn touch(&self, pattern: &Pattern) {
        match pattern.levels().next() {
            Some(PatternLevel::Literal(first)) => {
                if let Some(generation) = self.generations.get(self.shard(first)) {
                    generation.fetch_add(1, Ordering::AcqRel);
                }
            }
            _ => {
                for generation in &self.generations {
                    generation.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        self.any_generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes somebody's interest in topics out.
    pub(crate) fn end_interest(&self, handle: Handle) {
        let (pattern, removed) = {
            let mut topics = self.topics.write();
            let seated = topics.seat(handle);
            (seated.and_then(|(spot, _)| pattern_at(&topics, spot)), topics.remove(handle))
        };
        drop(removed);
        pattern.iter().for_each(|pattern| self.touch(pattern));
    }

    /// Where the stamp of a route for one topic without rules is counted.
    pub(crate) fn stamp_shard(&self, destination: &Destination) -> usize {
        self.shard(destination.canonical())
    }

    /// The stamp of such a route now.
    pub(crate) fn stamp(&self, shard: usize) -> Stamp {
        let generation = self.generations.get(shard);
        Stamp(generation.map_or(0, |generation| generation.load(Ordering::Acquire)))
    }

    /// The stamp of a route that depends on several destinations.
    pub(crate) fn any_stamp(&self) -> Stamp {
        Stamp(self.any_generation.load(Ordering::Acquire))
    }

    /// An existing queue.
    pub(crate) fn find_queue(&self, destination: &Destination) -> Option<Arc<Queue>> {
        before_maps();
        let queues = self.queues.read();
        queues.get(destination).filter(|queue| !queue.deleted.load(Ordering::Acquire)).map(Arc::clone)
    }

    /// The queue of this name, made if it is new, for the broker's own needs.
    pub(crate) fn queue_for_broker(&self, shared: &Shared, destination: &Destination) -> Option<Arc<Queue>> {
        self.queue(shared, destination, Role::Plain).ok()
    }

    /// The queue of this name, made if it is new. The caller has checked permissions.
    pub(crate) fn queue(
        &self,
        shared: &Shared,
        destination: &Destination,
        role: Role,
    ) -> Result<Arc<Queue>, Refusal> {
        if let Some(queue) = self.find_queue(destination) {
            return Ok(queue);
        }
        let queue = {
            let mut queues = self.queues.write();
            // One that is being deleted makes way; who deletes it takes out of the maps only what it put there.
            if let Some(queue) = queues.get(destination).filter(|q| !q.deleted.load(Ordering::Acquire)) {
                return Ok(Arc::clone(queue));
            }
            let queue = self.make_queue(shared, destination.clone(), role, None)?;
            queues.insert(destination.clone(), Arc::clone(&queue));
            if matches!(queue.role, Role::Plain) {
                self.names.write().insert(destination.canonical(), Arc::clone(&queue));
            }
            queue
        };
        self.announce(shared, &queue);
        Ok(queue)
    }

    /// Makes a queue and logs its definition. It is in no map but that of ids yet.
    pub(crate) fn make_queue(
        &self,
        shared: &Shared,
        destination: Destination,
        role: Role,
        policy: Option<Arc<crate::policy::Policy>>,
    ) -> Result<Arc<Queue>, Refusal> {
        before_maps();
        if shared.queue_count() >= shared.limits.destinations_max {
            let sentence = format!("the broker holds its most, {} queues", shared.limits.destinations_max);
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        let id = take_queue_id(shared);
        let policy = policy.unwrap_or_else(|| shared.policies.lookup(&destination));
        let queue = shared.build_queue(id, destination, role, policy, Sequence(1));
        if queue.is_defined() {
            let mut group = shared.store.begin();
            group.set(TABLE_QUEUES, &id.0.to_le_bytes(), &encode_queue(&self.name, &queue));
            group.finish(Level::Os);
        }
        shared.by_id.write().insert(id, (Arc::clone(&queue), Arc::clone(&shared.host_named(&self.name))));
        Ok(queue)
    }

    /// The queue of the log that holds the last values of this host's topics. Takes no part in dispatch.
    pub(crate) fn retained_queue(&self, shared: &Shared) -> QueueId {
        let mut known = self.retained_queue.lock();
        if known.0 == 0 {
            *known = take_queue_id(shared);
            let mut group = shared.store.begin();
            group.set(TABLE_QUEUES, &known.0.to_le_bytes(), &encode_retained_queue(&self.name));
            group.finish(Level::Os);
        }
        *known
    }

    /// Takes over the queue of last values that the log knew. False if there is one already.
    pub(crate) fn adopt_retained_queue(&self, id: QueueId) -> bool {
        let mut known = self.retained_queue.lock();
        if known.0 == 0 {
            *known = id;
        }
        *known == id
    }

    /// Client sessions that somebody is connected to.
    pub(crate) fn connected_sessions(&self) -> u64 {
        self.sessions.lock().values().filter(|session| session.is_connected()).count() as u64
    }

    /// Lets wildcard consumers join a new queue and virtual topics find it.
    pub(crate) fn announce(&self, shared: &Shared, queue: &Arc<Queue>) {
        if let Some((_, topic)) = shared.rules.group_queue(queue.destination.canonical()) {
            self.touch(&Pattern::from(topic));
        }
        if !matches!(queue.role, Role::Plain) {
            return;
        }
        let mut matching: Vec<Arc<Wildcard>> = Vec::new();
        let name = queue.destination.canonical();
        self.wildcards.read().for_each_match(name, |wildcard| matching.push(Arc::clone(wildcard)));
        if matching.is_empty() {
            return;
        }
        let mut work = Work::new(shared.now());
        for wildcard in matching {
            wildcard.join(queue, &mut work);
        }
        // Somebody may have found the queue and sent to it before its consumers had joined.
        while finish(shared, &mut work) {}
    }

    /// Existing queues that match a pattern, in the order of their names.
    pub(crate) fn matching_queues(&self, pattern: &Pattern) -> Vec<Arc<Queue>> {
        if let Some(literal) = pattern.as_literal() {
            return self.find_queue(literal).into_iter().collect();
        }
        let mut found: Vec<Arc<Queue>> = Vec::new();
        self.names.read().for_each_match(&trie_levels(pattern), |_, queue| found.push(Arc::clone(queue)));
        found.sort_unstable_by_key(|queue| queue.id);
        found
    }

    /// Declares the group that a wildcard subscription names, so that its queues are made as topics come to be used.
    pub(crate) fn declare_group(&self, shared: &Shared, pattern: &Pattern) {
        if pattern.as_literal().is_some() || pattern.kind() != Kind::Queue {
            return;
        }
        // Only patterns that name the group literally, and that can match some group's queue, declare one.
        let names_group = shared.rules.virtual_topics.iter().any(|rule| {
            let levels = rule.prefix.split('.').filter(|level| !level.is_empty());
            levels.zip(pattern.levels()).all(|(wanted, level)| match level {
                PatternLevel::Literal(text) => wanted == "*" || wanted == text,
                PatternLevel::One | PatternLevel::Rest => false,
            })
        });
        if !names_group {
            return;
        }
        let mut groups = self.groups.write();
        if groups.contains(pattern) || groups.len() >= shared.limits.destinations_max {
            return;
        }
        groups.push(pattern.clone());
        let mut key = self.name.as_bytes().to_vec();
        key.push(0);
        key.extend_from_slice(pattern.canonical().as_bytes());
        let mut group = shared.store.begin();
        group.set(TABLE_GROUPS, &key, dotted(&pattern.canonical()).as_bytes());
        group.finish(Level::Os);
        drop(groups);
        let all = Pattern::from_dotted(Kind::Topic, false, ">").expect("a literal pattern is valid");
        self.touch(&all);
    }

    /// Deletes a queue: from the maps, the log and memory. Its consumers learn of it.
    pub(crate) fn delete_queue(&self, shared: &Shared, queue: &Arc<Queue>, work: &mut Work) {
        before_maps();
        queue.deleted.store(true, Ordering::Release);
        {
            let mut queues = self.queues.write();
            if queues.get(&queue.destination).is_some_and(|known| known.id == queue.id) {
                queues.remove(&queue.destination);
                if matches!(queue.role, Role::Plain) {
                    self.names.write().remove(queue.destination.canonical());
                }
            }
        }
        shared.by_id.write().remove(&queue.id);
        let (marked, spilled, ended) = {
            let mut core = queue.lock().core;
            (Marks::of(&core).are_some(), core.spilled.take(), core.clear(queue.id, work))
        };
        if queue.is_defined() {
            let mut group = shared.store.begin();
            group.delete_queue(queue.id);
            group.remove(TABLE_QUEUES, &queue.id.0.to_le_bytes());
            if marked {
                Marks::default().log(&mut group, queue.id);
            }
            if let Some(mut spilled) = spilled {
                spilled.forget(shared, &mut group, queue.id);
            }
            group.finish(Level::Os);
        }
        if let Some((_, topic)) = shared.rules.group_queue(queue.destination.canonical()) {
            self.touch(&Pattern::from(topic));
        }
        for (outbox, subscription) in ended {
            shared.subscription_ended(outbox.connection(), subscription, queue);
        }
    }
}

fn take_queue_id(shared: &Shared) -> QueueId {
    let id = QueueId(shared.next_queue.fetch_add(1, Ordering::AcqRel));
    if id.0 % QUEUE_IDS_RESERVED == 1 {
        // Ids are reserved in blocks, so that none is used again after a restart, whatever has been deleted.
        let mut group = shared.store.begin();
        group.set(TABLE_COUNTERS, COUNTER_NEXT_QUEUE, &(id.0 + QUEUE_IDS_RESERVED).to_le_bytes());
        group.finish(Level::Os);
    }
    id
}

impl Shared {
    pub(crate) fn build_queue(
        &self,
        id: QueueId,
        destination: Destination,
        role: Role,
        policy: Arc<crate::policy::Policy>,
        next: Sequence,
    ) -> Arc<Queue> {
        // A queue of dead letters has no delivery limit: there is nowhere further to go.
        let holds_dead_letters =
            matches!(role, Role::Plain) && self.policies.sends_dead_letters_to(&destination);
        let shows_own_name = match role {
            Role::Plain => {
                let group = self.rules.group_queue(destination.canonical());
                group.is_none_or(|(rule, _)| rule.set_original_destination)
            }
            Role::Temporary(_) => true,
            Role::Durable { .. } | Role::Window | Role::Backlog { .. } | Role::Group { .. } => false,
        };
        let core = QueueCore::new(next, policy.prioritized, self.clock.now());
        Arc::new(Queue {
            id,
            destination,
            role,
            policy,
            shows_own_name,
            holds_dead_letters,
            core: Arc::new(Mutex::new(core)),
            next_expiry: AtomicU64::new(u64::MAX),
            deleted: AtomicBool::new(false),
            lasting: AtomicBool::new(false),
            boot: self.boot,
            window: Arc::clone(&self.window),
        })
    }
}
