//! What the broker keeps in the log besides messages, and how it is put together again at the start.
//!
//! Table 1 holds queues by id (plain ones and the backlogs of durable subscriptions), table 2 the groups that wildcard
//! subscriptions over virtual topics have declared, table 3 counters that
//! must not go back. Everything else is derived.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::destination::{Destination, Kind};
use sabir_model::ids::{QueueId, Sequence};
use sabir_model::message::{Body, Facts, Message};
use sabir_model::pattern::Pattern;
use sabir_model::selector::{Options, Selector};
use sabir_model::varint;
use sabir_store::{Level, PutMeta, Recover};

use crate::broker::Shared;
use crate::queue::{Queue, Role};
use crate::ready::Entry;
use crate::registry::{Binding, Durable, Interest, trie_levels};

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
    messages: HashMap<QueueId, Vec<(Sequence, Message)>, RandomState>,
    attempts: HashMap<(QueueId, Sequence), u32, RandomState>,
    next_queue: u64,
    clean: bool,
    unreadable: u64,
}

#[derive(Debug, PartialEq)]
struct Definition {
    host: String,
    destination: Destination,
    durable: Option<DurableDefinition>,
}

#[derive(Debug, PartialEq)]
struct DurableDefinition {
    client_id: String,
    name: String,
    pattern: String,
    selector: Option<(String, bool)>,
}

fn write_block(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn read_block<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, used) = varint::read(input)?;
    let (block, rest) = input.get(used..)?.split_at_checked(usize::try_from(len).ok()?)?;
    *input = rest;
    Some(block)
}

fn read_text(input: &mut &[u8]) -> Option<String> {
    String::from_utf8(read_block(input)?.to_vec()).ok()
}

/// The stored definition of a queue: version, host, destination, then what a durable subscription adds.
pub(crate) fn encode_queue(host: &str, queue: &Queue) -> Vec<u8> {
    let mut out = vec![1];
    write_block(&mut out, host.as_bytes());
    let mut destination = Vec::new();
    queue.destination.encode(&mut destination);
    write_block(&mut out, &destination);
    if let Role::Durable { client_id, name, pattern, selector } = &queue.role {
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
    } else {
        out.push(0);
    }
    out
}

fn decode_queue(bytes: &[u8]) -> Option<Definition> {
    let (&version, mut rest) = bytes.split_first()?;
    if version != 1 {
        return None;
    }
    let host = read_text(&mut rest)?;
    let destination = Destination::decode(read_block(&mut rest)?)?;
    let (&durable, mut rest) = rest.split_first()?;
    let durable = match durable {
        0 => None,
        _ => {
            let client_id = read_text(&mut rest)?;
            let name = read_text(&mut rest)?;
            let pattern = read_text(&mut rest)?;
            let (&kind, mut rest) = rest.split_first()?;
            let selector = if kind == 0 { None } else { Some((read_text(&mut rest)?, kind == 2)) };
            Some(DurableDefinition { client_id, name, pattern, selector })
        }
    };
    Some(Definition { host, destination, durable })
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
            TABLE_COUNTERS if key == COUNTER_NEXT_QUEUE => match value.try_into() {
                Ok(bytes) => self.next_queue = u64::from_le_bytes(bytes),
                Err(_) => self.unreadable += 1,
            },
            TABLE_COUNTERS if key == MARK_CLEAN => self.clean = true,
            _ => self.unreadable += 1,
        }
    }

    fn queue(&mut self, queue: QueueId, next: Sequence) {
        self.next.insert(queue, next);
    }

    fn message(&mut self, targets: &[(QueueId, Sequence)], _meta: PutMeta, head: &[u8], body: &[u8]) {
        let Some((facts, fields)) = Facts::decode(head) else {
            self.unreadable += 1;
            return;
        };
        let body = if body.len() >= sabir_model::chunks::REFERENCE_BYTES_MIN {
            Body::Shared(Bytes::copy_from_slice(body))
        } else {
            Body::Borrowed(body)
        };
        let message = Message::new(facts, &[fields], body);
        for (queue, sequence) in targets {
            self.messages.entry(*queue).or_default().push((*sequence, message.clone()));
        }
    }

    fn attempts(&mut self, queue: QueueId, sequence: Sequence, count: u32) {
        self.attempts.insert((queue, sequence), count);
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
    /// Queues whose names were lost with a damaged part of the log.
    pub nameless: u64,
    /// Entries that this version cannot read.
    pub unreadable: u64,
}

impl Recovered {
    /// The virtual hosts that something is in, some of them several times.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        let of_queues = self.queues.iter().map(|(_, definition)| definition.host.as_str());
        of_queues.chain(self.groups.iter().map(|(host, _)| host.as_str()))
    }

    /// Fills an empty broker. Nobody is connected yet.
    pub(crate) fn restore(mut self, shared: &Shared) -> Restored {
        let mut report = Restored { unreadable: self.unreadable, ..Restored::default() };
        // The first id of a fresh block, so that taking it reserves the block; and never one that the log knows, whatever
        // was lost of it.
        let known = self.next.keys().map(|id| id.0).max().unwrap_or(0);
        let fresh = self.next_queue.max(known.next_multiple_of(QUEUE_IDS_RESERVED) + 1);
        shared.next_queue.fetch_max(fresh, std::sync::atomic::Ordering::AcqRel);
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
        report
    }

    /// Puts messages whose queue's name was lost where they can be seen: in queues of their own, named by number.
    fn restore_nameless(&mut self, shared: &Shared, report: &mut Restored) {
        let mut nameless: Vec<QueueId> = self.messages.keys().copied().collect();
        nameless.sort_unstable();
        for id in nameless {
            let mut name = format!("recovered.{}", id.0);
            while shared.host_named("/").find_queue(&Destination::queue(&name)).is_some() {
                name.push_str(".again");
            }
            let host = "/".to_owned();
            let definition = Definition { host, destination: Destination::queue(&name), durable: None };
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
        let (role, policy) = match &definition.durable {
            None => (Role::Plain, shared.policies.lookup(&definition.destination)),
            Some(durable) => {
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
        shared.by_id.write().insert(id, (Arc::clone(&queue), Arc::clone(&host)));
        let mut messages = self.messages.remove(&id).unwrap_or_default();
        messages.sort_unstable_by_key(|(sequence, _)| *sequence);
        {
            let mut held = queue.lock();
            for (sequence, message) in messages {
                let attempts = self.attempts.get(&(id, sequence)).copied().unwrap_or(0);
                // After a crash nobody knows what was delivered and not settled: every message may be a redelivery.
                let redelivered = attempts > 0 || !self.clean;
                let entry = Entry { message, attempts, logged: true, redelivered, history: None };
                held.core.recover(&queue, sequence, entry, &shared.memory);
                report.messages += 1;
            }
        }
        match &queue.role {
            Role::Durable { client_id, name, pattern, selector } => {
                let handle = bind(&host, pattern, &queue, selector.clone(), None);
                let durable = Durable { queue: Arc::clone(&queue), handle, active: None };
                host.durables.lock().insert((client_id.clone(), name.clone()), durable);
                report.durable_subscriptions += 1;
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
