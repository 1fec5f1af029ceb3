//! What the broker keeps in the log besides messages, and how it is put together again at the start.
//!
//! Table 1 holds queues by id (plain ones, the backlogs of durable subscriptions and of client sessions, what groups share,
//! and the last values of topics), table 2 the groups that wildcard subscriptions over virtual topics have declared, table
//! 3 counters that must not go back, tables 4 to 7 client sessions (`session_log.rs`), table 8 messages
//! that a restart drops (`spill.rs`), table 40 what
//! management has marked queues with (`marks.rs`), tables 50 to 54 what others keep
//! (`notes.rs`). Everything else is derived.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::clock::Timestamp;
use sabir_model::command::LASTS_FOREVER;
use sabir_model::destination::{Destination, Kind};
use sabir_model::ids::{QueueId, Sequence};
use sabir_model::pattern::Pattern;
use sabir_model::selector::{Options, Selector};
use sabir_model::varint::{read_block, read_text, write_block};
use sabir_store::{Level, Recover};

use crate::broker::Shared;
use crate::client_session::ClientSession;
use crate::marks::{Marks, TABLE_MARKS};
use crate::notes::{self, Note};
use crate::paged::{Paged, Range};
use crate::queue::{Queue, Role};
use crate::registry::{Binding, Durable, Interest, trie_levels};
use crate::session_log::{
    self, StoredBinding, StoredSession, TABLE_BINDINGS, TABLE_PROGRESS, TABLE_RECEIVED, TABLE_SESSIONS,
};
use crate::session_subscribe::Wanted;
use crate::spill::{TABLE_SPILLED, decode_row};
use crate::window::FromLog;
use crate::work::{Work, finish};

/// Queues by id.
pub(crate) const TABLE_QUEUES: u8 = 1;
/// Groups declared over virtual topics.
pub(crate) const TABLE_GROUPS: u8 = 2;
/// Counters that must not go back.
pub(crate) const TABLE_COUNTERS: u8 = 3;
/// Key of the first queue id that is certainly unused.
pub(crate) const COUNTER_NEXT_QUEUE: &[u8] = b"next-queue";
/// There while the broker is stopped in good order: then nothing was in anybody's hands that is not marked so.
pub(crate) const MARK_CLEAN: &[u8] = b"clean";
/// Queue ids reserved at a time.
pub(crate) const QUEUE_IDS_RESERVED: u64 = 1024;

/// What the log said, before it is a broker.
#[derive(Default)]
pub(crate) struct Recovered {
    queues: Vec<(QueueId, Definition)>,
    groups: Vec<(String, String)>,
    next: HashMap<QueueId, Sequence, RandomState>,
    /// Before when none of a queue's messages expires, of queues that have some that do.
    pub(crate) expires: HashMap<QueueId, u64, RandomState>,
    pub(crate) live: HashMap<QueueId, Paged, RandomState>,
    attempts: HashMap<QueueId, BTreeMap<Sequence, u32>, RandomState>,
    sessions: Vec<StoredSession>,
    bindings: Vec<StoredBinding>,
    received: Vec<(String, String, u16)>,
    pub(crate) progress: HashMap<(QueueId, Sequence), u32, RandomState>,
    marks: HashMap<QueueId, Marks, RandomState>,
    /// Messages that are to be dropped, by row.
    pub(crate) spilled: Vec<(QueueId, Vec<Range>)>,
    /// Rows that others keep, by table.
    pub(crate) notes: Vec<(u8, Note)>,
    next_queue: u64,
    clean: bool,
    pub(crate) unreadable: u64,
}

#[derive(Debug, PartialEq)]
struct Definition {
    host: String,
    destination: Destination,
    purpose: Purpose,
}

/// What a stored queue is for.
#[derive(Debug, PartialEq)]
enum Purpose {
    Plain,
    Durable(DurableDefinition),
    Backlog { client_id: String },
    Group { name: String, pattern: Pattern },
    Retained,
}

#[derive(Debug, PartialEq)]
struct DurableDefinition {
    client_id: String,
    name: String,
    pattern: String,
    selector: Option<(String, bool)>,
}

/// The stored definition of a queue: version, host, destination, then its purpose and what that adds.
pub(crate) fn encode_queue(host: &str, queue: &Queue) -> Vec<u8> {
    let mut out = vec![1];
    write_block(&mut out, host.as_bytes());
    let mut destination = Vec::new();
    queue.destination.encode(&mut destination);
    write_block(&mut out, &destination);
    match &queue.role {
        Role::Plain | Role::Temporary(_) | Role::Window => out.push(0),
        Role::Backlog { client_id, .. } => {
            out.push(2);
            write_block(&mut out, client_id.as_bytes());
        }
        Role::Group { name, pattern } => {
            out.push(3);
            write_block(&mut out, name.as_bytes());
            pattern.encode(&mut out);
        }
        Role::Durable { client_id, name, pattern, selector } => {
            out.push(1);
            write_block(&mut out, client_id.as_bytes());
            write_block(&mut out, name.as_bytes());
            write_block(&mut out, sabir_model::destination::dotted(&pattern.canonical()).as_bytes());
            match selector {
                Some(selector) => {
                    out.push(1 + u8::from(selector.options().convert_strings));
                    write_block(&mut out, selector.source().as_bytes());
                }
                None => out.push(0),
            }
        }
    }
    out
}

/// The stored definition of the queue that holds the last values of a host's topics.
pub(crate) fn encode_retained_queue(host: &str) -> Vec<u8> {
    let mut out = vec![1];
    write_block(&mut out, host.as_bytes());
    let mut destination = Vec::new();
    Destination::queue("retained").encode(&mut destination);
    write_block(&mut out, &destination);
    out.push(4);
    out
}

fn decode_queue(bytes: &[u8]) -> Option<Definition> {
    let (&version, mut rest) = bytes.split_first()?;
    if version != 1 {
        return None;
    }
    let host = read_text(&mut rest)?;
    let destination = Destination::decode(read_block(&mut rest)?)?;
    let (&purpose, mut rest) = rest.split_first()?;
    let purpose = match purpose {
        0 => Purpose::Plain,
        2 => Purpose::Backlog { client_id: read_text(&mut rest)? },
        3 => Purpose::Group { name: read_text(&mut rest)?, pattern: Pattern::decode(rest)? },
        4 => Purpose::Retained,
        _ => {
            let client_id = read_text(&mut rest)?;
            let name = read_text(&mut rest)?;
            let pattern = read_text(&mut rest)?;
            let (&kind, mut rest) = rest.split_first()?;
            let selector = if kind == 0 { None } else { Some((read_text(&mut rest)?, kind == 2)) };
            Purpose::Durable(DurableDefinition { client_id, name, pattern, selector })
        }
    };
    Some(Definition { host, destination, purpose })
}

impl Recover for Recovered {
    fn meta(&mut self, table: u8, key: &[u8], value: &[u8]) {
        match table {
            TABLE_QUEUES => {
                let id = key.try_into().ok().map(|bytes| QueueId(u64::from_le_bytes(bytes)));
                match (id, decode_queue(value)) {
                    (Some(id), Some(definition)) => self.queues.push((id, definition)),
                    _ => self.unreadable += 1,
                }
            }
            TABLE_GROUPS => {
                let host = key.split(|byte| *byte == 0).next().unwrap_or_default();
                match (std::str::from_utf8(host), std::str::from_utf8(value)) {
                    (Ok(host), Ok(pattern)) => self.groups.push((host.to_owned(), pattern.to_owned())),
                    _ => self.unreadable += 1,
                }
            }
            TABLE_SESSIONS => match session_log::decode_session(key, value) {
                Some(session) => self.sessions.push(session),
                None => self.unreadable += 1,
            },
            TABLE_BINDINGS => match session_log::decode_binding(key, value) {
                Some(binding) => self.bindings.push(binding),
                None => self.unreadable += 1,
            },
            TABLE_RECEIVED => match session_log::decode_received(key) {
                Some(received) => self.received.push(received),
                None => self.unreadable += 1,
            },
            TABLE_PROGRESS => match (session_log::decode_progress_key(key), value.try_into()) {
                (Some(place), Ok(note)) => {
                    self.progress.insert(place, u32::from_le_bytes(note));
                }
                _ => self.unreadable += 1,
            },
            TABLE_MARKS => match Marks::decode(key, value) {
                Some((queue, marks)) => {
                    self.marks.insert(queue, marks);
                }
                None => self.unreadable += 1,
            },
            TABLE_SPILLED => match decode_row(key, value) {
                Some(row) => self.spilled.push(row),
                None => self.unreadable += 1,
            },
            TABLE_COUNTERS if key == COUNTER_NEXT_QUEUE => match value.try_into() {
                Ok(bytes) => self.next_queue = u64::from_le_bytes(bytes),
                Err(_) => self.unreadable += 1,
            },
            TABLE_COUNTERS if key == MARK_CLEAN => self.clean = true,
            table if notes::TABLES.contains(&table) => {
                self.notes.push((table, Note { key: key.into(), value: value.into() }));
            }
            _ => self.unreadable += 1,
        }
    }

    fn queue(&mut self, queue: QueueId, next: Sequence, expires_ms: u64) {
        self.next.insert(queue, next);
        if expires_ms > 0 {
            self.expires.insert(queue, expires_ms);
        }
    }

    fn live(&mut self, queue: QueueId, first: Sequence, last: Sequence, bytes: u64) {
        self.live.entry(queue).or_default().add_run(0, (first, last), bytes);
    }

    fn blob(&mut self, queue: QueueId, _sequence: Sequence, len: u64) {
        if let Some(live) = self.live.get_mut(&queue) {
            live.add_bytes(len);
        }
    }

    fn attempts(&mut self, queue: QueueId, sequence: Sequence, count: u32) {
        self.attempts.entry(queue).or_default().insert(sequence, count);
    }
}

/// What was found, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Queues, the backlogs of durable subscriptions included.
    pub queues: u64,
    /// Messages, counted once per queue that holds them.
    pub messages: u64,
    /// Durable subscriptions.
    pub durable_subscriptions: u64,
    /// Client sessions.
    pub sessions: u64,
    /// Queues whose names were lost with a damaged part of the log.
    pub nameless: u64,
    /// Entries that this version cannot read.
    pub unreadable: u64,
}

impl Recovered {
    /// The virtual hosts that something is in, some of them several times.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        let of_queues = self.queues.iter().map(|(_, definition)| definition.host.as_str());
        let of_sessions = self.sessions.iter().map(|session| session.host.as_str());
        of_queues.chain(self.groups.iter().map(|(host, _)| host.as_str())).chain(of_sessions)
    }

    /// Fills an empty broker. Nobody is connected yet.
    pub(crate) fn restore(mut self, shared: &Shared) -> Restored {
        let mut report = Restored { unreadable: self.unreadable, ..Restored::default() };
        // The first id of a fresh block, so that taking it reserves the block; and never one that the log knows, whatever
        // was lost of it.
        let known = self.next.keys().map(|id| id.0).max().unwrap_or(0);
        let fresh = self.next_queue.max(known.next_multiple_of(QUEUE_IDS_RESERVED) + 1);
        shared.next_queue.fetch_max(fresh, std::sync::atomic::Ordering::AcqRel);
        self.drop_spilled(shared);
        self.restore_sessions(shared, &mut report);
        for (id, definition) in std::mem::take(&mut self.queues) {
            match self.restore_queue(shared, id, definition, &mut report) {
                Some(()) => report.queues += 1,
                None => report.unreadable += 1,
            }
        }
        for (host, pattern) in std::mem::take(&mut self.groups) {
            match Pattern::from_dotted(Kind::Queue, false, &pattern) {
                Ok(pattern) => shared.host_named(&host).groups.write().push(pattern),
                Err(_) => report.unreadable += 1,
            }
        }
        self.restore_nameless(shared, &mut report);
        self.restore_bindings(shared);
        // Notes on what is no longer there.
        if !self.progress.is_empty() || !self.marks.is_empty() {
            let mut group = shared.store.begin();
            for (queue, sequence) in self.progress.keys() {
                group.remove(TABLE_PROGRESS, &session_log::progress_key(*queue, *sequence));
            }
            for queue in self.marks.keys() {
                Marks::default().log(&mut group, *queue);
            }
            group.finish(Level::Os);
        }
        report
    }

    /// Puts client sessions back; their backlogs and subscriptions follow.
    fn restore_sessions(&mut self, shared: &Shared, report: &mut Restored) {
        let now = shared.now().wall;
        for stored in std::mem::take(&mut self.sessions) {
            let host = shared.host_named(&stored.host);
            let owner = stored.owner.map(Into::into);
            let client_id: Arc<str> = stored.client_id.into();
            let session = ClientSession::new(Arc::clone(&client_id), owner, stored.lasts_ms, 1);
            {
                let mut state = session.state();
                // Whoever was connected has lost the connection when the broker ended: now, as far as anybody knows.
                let delay = stored.will.as_ref().map_or(0, |will| will.delay_ms());
                let after = |ms: u64| Timestamp(now.0.saturating_add(ms));
                state.ends_at = match (stored.was_connected, stored.lasts_ms) {
                    (_, LASTS_FOREVER) => Timestamp::NEVER,
                    (true, lasts_ms) => after(lasts_ms),
                    (false, _) => stored.ends_at,
                };
                state.will_at = match (&stored.will, stored.was_connected) {
                    (None, _) => Timestamp::NEVER,
                    (Some(_), true) => after(delay),
                    (Some(_), false) => stored.will_at,
                };
                state.will = stored.will;
                host.schedule.lock().look_at(&client_id, state.ends_at, state.will_at);
            }
            host.sessions.lock().insert(session);
            report.sessions += 1;
        }
        for (host, client_id, number) in std::mem::take(&mut self.received) {
            let host = shared.host_named(&host);
            let session = host.sessions.lock().get(&client_id).map(Arc::clone);
            if let Some(session) = session {
                session.state().received.insert(number);
            }
        }
    }

    /// Puts the subscriptions of client sessions back, and lets their backlogs know what they grant.
    fn restore_bindings(&mut self, shared: &Shared) {
        self.bindings.sort_unstable_by_key(|binding| binding.terms.order);
        for stored in std::mem::take(&mut self.bindings) {
            let host = shared.host_named(&stored.host);
            let session = host.sessions.lock().get(&stored.client_id).map(Arc::clone);
            let Some(session) = session else { continue };
            session.state().order_after(stored.terms.order);
            let wanted =
                Wanted { pattern: &stored.pattern, group: stored.group.as_deref(), terms: stored.terms };
            if let Err(refusal) = session.bind(shared, &host, None, &wanted) {
                tracing::warn!(client_id = %session.client_id, %refusal, "a subscription was not restored");
            }
        }
        for host in shared.hosts() {
            let sessions: Vec<Arc<ClientSession>> = host.sessions.lock().values().map(Arc::clone).collect();
            for session in sessions {
                let state = session.state();
                let topics = host.topics.read();
                if let Some(queue) = session.backlog() {
                    queue.lock().core.ready.for_each_mut(|entry| {
                        entry.grant = state.bindings.grant_of(&topics, &entry.message);
                    });
                }
            }
            let mut work = Work::new(shared.now());
            let empty = host.shares.lock().take_empty(host);
            for queue in empty {
                host.delete_queue(shared, &queue, &mut work);
            }
            while finish(shared, &mut work) {}
        }
    }

    /// Puts the last values of a host's topics back.
    fn restore_retained(&mut self, shared: &Shared, id: QueueId, host: &str) -> Option<()> {
        let host = shared.host_named(host);
        if !host.adopt_retained_queue(id) {
            return None;
        }
        let mut retained = host.retained.lock();
        retained.continue_from(self.next.get(&id).copied().unwrap_or(Sequence(1)));
        let live = self.take_live(id);
        let mut lost: Vec<Sequence> = Vec::new();
        self.each_message(shared, id, &live, |sequence, message| {
            let topic = message.destination().map(|topic| topic.canonical.to_owned());
            let Some(topic) = topic else { return };
            let changed = retained.recover(&topic, message, sequence);
            shared
                .budget
                .messages
                .fetch_add(changed.memory.cast_unsigned(), std::sync::atomic::Ordering::Relaxed);
            lost.extend(changed.old);
        });
        drop(retained);
        if !lost.is_empty() {
            let mut group = shared.store.begin();
            for sequence in lost {
                group.acknowledge(id, sequence, 1);
            }
            group.finish(Level::Os);
        }
        Some(())
    }

    /// Puts messages whose queue's name was lost where they can be seen: in queues of their own, named by number.
    fn restore_nameless(&mut self, shared: &Shared, report: &mut Restored) {
        let mut nameless: Vec<QueueId> = self.live.keys().copied().collect();
        nameless.sort_unstable();
        for id in nameless {
            let mut name = format!("recovered.{}", id.0);
            while shared.host_named("/").find_queue(&Destination::queue(&name)).is_some() {
                name.push_str(".again");
            }
            let host = "/".to_owned();
            let destination = Destination::queue(&name);
            let definition = Definition { host, destination, purpose: Purpose::Plain };
            let Some(()) = self.restore_queue(shared, id, definition, report) else { continue };
            report.queues += 1;
            report.nameless += 1;
            if let Some(queue) = shared.host_named("/").find_queue(&Destination::queue(&name)) {
                let mut group = shared.store.begin();
                group.set(TABLE_QUEUES, &id.0.to_le_bytes(), &encode_queue("/", &queue));
                group.finish(Level::Os);
            }
        }
    }

    fn restore_queue(
        &mut self,
        shared: &Shared,
        id: QueueId,
        definition: Definition,
        report: &mut Restored,
    ) -> Option<()> {
        let host = shared.host_named(&definition.host);
        let next = self.next.get(&id).copied().unwrap_or(Sequence(1));
        let mut session = None;
        let (role, policy) = match &definition.purpose {
            Purpose::Plain => (Role::Plain, shared.policies.lookup(&definition.destination)),
            Purpose::Retained => return self.restore_retained(shared, id, &definition.host),
            Purpose::Backlog { client_id } => {
                session = host.sessions.lock().get(client_id.as_str()).map(Arc::clone);
                let role = Role::Backlog { client_id: client_id.as_str().into(), lasting: true };
                (role, Arc::clone(&shared.session_policy))
            }
            Purpose::Group { name, pattern } => {
                let role = Role::Group { name: name.as_str().into(), pattern: pattern.clone() };
                (role, durable_policy(shared, pattern))
            }
            Purpose::Durable(durable) => {
                let pattern = Pattern::from_dotted(Kind::Topic, false, &durable.pattern).ok()?;
                let selector = match &durable.selector {
                    Some((text, convert_strings)) => {
                        let options = Options { convert_strings: *convert_strings };
                        Some(Arc::new(Selector::parse_with(text, options).ok()?))
                    }
                    None => None,
                };
                let policy = durable_policy(shared, &pattern);
                let (client_id, name) = (durable.client_id.as_str().into(), durable.name.as_str().into());
                (Role::Durable { client_id, name, pattern, selector }, policy)
            }
        };
        let queue = shared.build_queue(id, definition.destination.clone(), role, policy, next);
        queue.lasting.store(true, std::sync::atomic::Ordering::Release);
        shared.by_id.write().insert(id, (Arc::clone(&queue), Arc::clone(&host)));
        let live = self.take_live(id);
        report.messages += live.len();
        {
            let mut held = queue.lock();
            self.marks.remove(&id).unwrap_or_default().give(&mut held.core);
        }
        // After a crash nobody knows what was delivered and not settled: every message may be a redelivery.
        let from_log = FromLog {
            below: next,
            redelivered: !self.clean,
            attempts: self.attempts.remove(&id).unwrap_or_default(),
        };
        if queue.pages() {
            self.leave_in_log(shared, &queue, live, from_log);
        } else {
            self.bring_in(shared, &queue, &live, &from_log);
        }
        match &queue.role {
            Role::Durable { client_id, name, pattern, selector } => {
                let handle = bind(&host, pattern, &queue, selector.clone(), None);
                let durable = Durable { queue: Arc::clone(&queue), handle, active: None };
                host.durables.lock().insert((client_id.clone(), name.clone()), durable);
                report.durable_subscriptions += 1;
            }
            Role::Backlog { .. } => match session {
                Some(session) => session.adopt_backlog(queue),
                None => {
                    // The session is gone, and this was on its way after it.
                    let mut work = Work::new(shared.now());
                    host.delete_queue(shared, &queue, &mut work);
                    while finish(shared, &mut work) {}
                }
            },
            Role::Group { name, pattern } => {
                host.shares.lock().adopt(&host, name, pattern, Arc::clone(&queue));
            }
            _ => {
                host.names.write().insert(definition.destination.canonical(), Arc::clone(&queue));
                host.queues.write().insert(definition.destination, queue);
            }
        }
        Some(())
    }
}

/// The policy of a durable subscription: that of the topic it names.
pub(crate) fn durable_policy(shared: &Shared, pattern: &Pattern) -> Arc<crate::policy::Policy> {
    match pattern.as_literal() {
        Some(topic) => shared.policies.lookup(topic),
        None => Destination::from_canonical(Kind::Topic, false, &pattern.canonical())
            .map_or_else(|_| Arc::default(), |topic| shared.policies.lookup(&topic)),
    }
}

/// Binds a queue to the topics of a pattern.
pub(crate) fn bind(
    host: &crate::registry::VirtualHost,
    pattern: &Pattern,
    queue: &Arc<Queue>,
    selector: Option<Arc<Selector>>,
    no_local: Option<sabir_model::ids::ConnectionId>,
) -> crate::pattern_trie::Handle {
    let binding = Binding { queue: Arc::clone(queue), selector, no_local };
    let handle = host.topics.write().insert(&trie_levels(pattern), Interest::Bound(Arc::new(binding)));
    host.touch(pattern);
    handle
}

/// Replaces a binding by another one; nothing that is published meanwhile misses both or meets both.
pub(crate) fn rebind(
    host: &crate::registry::VirtualHost,
    old: crate::pattern_trie::Handle,
    pattern: &Pattern,
    queue: &Arc<Queue>,
    selector: Option<Arc<Selector>>,
    no_local: Option<sabir_model::ids::ConnectionId>,
) -> crate::pattern_trie::Handle {
    let binding = Binding { queue: Arc::clone(queue), selector, no_local };
    let handle = {
        let mut topics = host.topics.write();
        topics.remove(old);
        topics.insert(&trie_levels(pattern), Interest::Bound(Arc::new(binding)))
    };
    host.touch(pattern);
    handle
}
