//! The broker as a whole: what all connections share, how it opens, ticks, drains and closes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use sabir_model::access::{Action, Authenticator, Authorizer, Principal, Remote, Resource};
use sabir_model::clock::Clock;
use sabir_model::destination::{Destination, Kind, Targets};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::ids::{ConnectionId, QueueId, SubscriptionKey};
use sabir_model::message::{Body, BodyKind, Facts};
use sabir_model::session::{Egress, Now};
use sabir_store::{Level, RecoveryReport, Store, StoreError};

use crate::blocking::Pool;
use crate::bodies::Hands;
use crate::budget::{Budget, change, held, memory_full};
use crate::connection::Connection;
use crate::lock_order::before_maps;
use crate::mailbox::Mailbox;
use crate::manage::Redrives;
use crate::notes::Note;
use crate::options::{BrokerLimits, BrokerOptions};
use crate::pager::{self, Pager};
use crate::policy::{Policies, Policy};
use crate::pressure::Pressure;
use crate::queue::{Queue, Role};
use crate::recovery::{MARK_CLEAN, Recovered, Restored, TABLE_COUNTERS};
use crate::registry::VirtualHost;
use crate::rules::Rules;
use crate::stats::{BrokerStats, Counters, TopicStats, read};
use crate::will::{Sent, send_for_nobody};
use crate::window::Window;
use crate::work::{Work, finish};
use crate::writer::{Bounds, Writer};

/// Why a broker did not open.
#[derive(Debug)]
pub enum OpenError {
    /// The message log.
    Store(StoreError),
    /// A thread could not be started.
    Thread(std::io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "a thread could not be started: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// What opening found.
#[derive(Debug)]
pub struct RecoverySummary {
    /// What the log says of itself.
    pub log: RecoveryReport,
    /// What came back.
    pub restored: Restored,
}

impl RecoverySummary {
    /// Whether something that should have been there was not: then an operator wants to read the rest.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        let Restored { nameless, unreadable, .. } = self.restored;
        !self.log.damage.is_empty() || !self.log.lost.is_empty() || nameless + unreadable > 0
    }
}

impl fmt::Display for RecoverySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Restored { queues, messages, durable_subscriptions, sessions, nameless, unreadable } =
            self.restored;
        write!(f, "{}", self.log)?;
        write!(
            f,
            "\nrestored {messages} messages in {queues} queues ({durable_subscriptions} durable subscriptions, {sessions} client sessions)"
        )?;
        if nameless > 0 {
            write!(f, "; the names of {nameless} queues are lost, see queue://recovered.*")?;
        }
        if unreadable > 0 {
            write!(f, "; {unreadable} entries could not be read by this version")?;
        }
        Ok(())
    }
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The peer's address, if the transport has one.
    pub remote: Option<IpAddr>,
    /// Whether the peer is on this machine.
    pub local: bool,
    /// The peer as shown in logs.
    pub peer: Box<str>,
    /// The listener it came through.
    pub listener: &'static str,
}

impl ConnectionInfo {
    pub(crate) fn remote(&self) -> Remote {
        match self.remote {
            Some(address) => Remote::Address(address),
            None => Remote::Local,
        }
    }
}

type ById = HashMap<QueueId, (Arc<Queue>, Arc<VirtualHost>), RandomState>;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) rules: Rules,
    pub(crate) policies: Policies,
    pub(crate) limits: BrokerLimits,
    /// Those of each outbox, which all outboxes share.
    pub(crate) outbox_bounds: Arc<Bounds>,
    pub(crate) counters: Counters,
    /// Who holds how much memory.
    pub(crate) budget: Arc<Budget>,
    /// Most bytes of the log's files, if that is limited.
    disk_bytes_max: Option<u64>,
    /// Who waits before it is read again.
    pub(crate) pressure: Pressure,
    /// Tells tokens of this boot from those of others.
    pub(crate) boot: u32,
    pub(crate) next_queue: AtomicU64,
    /// Bytes of messages in the log that are there for want of memory only, about.
    pub(crate) spilled_bytes: AtomicU64,
    /// Numbers the messages that no connection sends.
    pub(crate) next_message: AtomicU64,
    /// What holds for the backlogs of client sessions.
    pub(crate) session_policy: Arc<Policy>,
    /// Rows that others keep, as the log had them, until they are taken.
    pub(crate) notes: Mutex<Vec<(u8, Note)>>,
    /// How much of each queue may be in memory.
    pub(crate) window: Arc<Window>,
    pub(crate) pager: Pager,
    pub(crate) hands: Hands,
    /// Dead letters on their way back.
    pub(crate) redrives: Redrives,
    pub(crate) by_id: RwLock<ById>,
    pub(crate) hosts: Vec<Arc<VirtualHost>>,
    pub(crate) connections: Mutex<HashMap<ConnectionId, Arc<Mailbox>, RandomState>>,
    next_connection: AtomicU64,
    pub(crate) ticks: AtomicU64,
    draining: AtomicBool,
    /// Absent in a simulation.
    pub(crate) pool: Option<Pool>,
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now { instant: self.clock.now(), wall: self.clock.wall() }
    }

    pub(crate) fn queue(&self, id: QueueId) -> Option<Arc<Queue>> {
        before_maps();
        self.by_id.read().get(&id).map(|(queue, _)| Arc::clone(queue))
    }

    pub(crate) fn queue_count(&self) -> usize {
        self.by_id.read().len()
    }

    /// The virtual host of this name, or the default one.
    pub(crate) fn host_named(&self, name: &str) -> Arc<VirtualHost> {
        let found = self.hosts.iter().find(|host| &*host.name == name).or_else(|| self.hosts.first());
        Arc::clone(found.expect("there is always the default host: opened with one"))
    }

    /// The virtual host of this name.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] if there is none.
    pub(crate) fn find_host(&self, name: &str) -> Result<Arc<VirtualHost>, Refusal> {
        let found = self.hosts.iter().find(|host| &*host.name == name).map(Arc::clone);
        found.ok_or_else(|| {
            Refusal::new(Code::UnknownDestination, format!("there is no virtual host \"{name}\""))
        })
    }

    /// All virtual hosts.
    pub(crate) fn hosts(&self) -> &[Arc<VirtualHost>] {
        &self.hosts
    }

    /// The virtual host of a queue.
    pub(crate) fn host_of(&self, queue: &Queue) -> Arc<VirtualHost> {
        let known = self.by_id.read().get(&queue.id).map(|(_, host)| Arc::clone(host));
        known.unwrap_or_else(|| self.host_named("/"))
    }

    /// Asks the authorizer, in words the client can act on.
    pub(crate) fn check(
        &self,
        who: &Principal,
        action: Action,
        resource: Resource<'_>,
    ) -> Result<(), Refusal> {
        if self.authorizer.allows(who, action, resource) {
            return Ok(());
        }
        let what = match resource {
            Resource::Server => "here".to_owned(),
            Resource::Destination(destination) => destination.to_string(),
            Resource::Pattern(pattern) => pattern.to_string(),
        };
        Err(Refusal::new(Code::AccessDenied, format!("{who} may not {action}: {what}")))
    }

    /// Adds what a batch changed in memory to the account.
    pub(crate) fn account(&self, work: &mut Work) {
        let memory = std::mem::take(&mut work.memory);
        if memory != 0 {
            change(&self.budget.messages, memory);
            if memory < 0 {
                self.relieve_memory();
            }
        }
    }

    /// Bytes of messages in memory, wherever they are.
    pub(crate) fn memory(&self) -> u64 {
        self.budget.used()
    }

    pub(crate) fn check_memory(&self) -> Result<(), Refusal> {
        if self.memory() < self.limits.memory_bytes_max {
            return Ok(());
        }
        Err(memory_full())
    }

    /// Tells a connection that a subscription has ended without its doing.
    pub(crate) fn subscription_ended(&self, connection: ConnectionId, key: SubscriptionKey, queue: &Queue) {
        let mailbox = self.connections.lock().get(&connection).map(Arc::clone);
        if let Some(mailbox) = mailbox {
            let sentence = format!("{} was deleted", queue.title());
            let refusal = Refusal::new(Code::UnknownDestination, sentence);
            mailbox.post(Event::SubscriptionEnded { key, refusal });
        }
    }
}

/// The broker. A clone is another handle to it.
#[derive(Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

impl Broker {
    /// Opens the log, restores what it holds, and is ready for connections.
    ///
    /// # Errors
    /// If the log cannot be opened, with a sentence that says why.
    pub fn open(options: BrokerOptions) -> Result<(Self, RecoverySummary), OpenError> {
        let mut recovered = Recovered::default();
        let disk_bytes_max = options.store.disk_bytes_max;
        let (store, log) =
            Store::open(options.store, options.fs, &mut recovered).map_err(OpenError::Store)?;
        // A host that holds queues stays, configured or not: its names must not run into those of another.
        let mut names = vec!["/"];
        for name in options.virtual_hosts.iter().map(String::as_str).chain(recovered.hosts()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let hosts = names.into_iter().map(|name| Arc::new(VirtualHost::new(name))).collect();
        // Milliseconds of the start, mixed so that neighbouring starts differ in every bit.
        let boot = (options.clock.wall().0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
        let pool = match options.single_threaded {
            true => None,
            false => Some(Pool::start().map_err(OpenError::Thread)?),
        };
        let session_policy = Arc::new(Policy {
            messages_max: options.limits.session_messages_max,
            bytes_max: options.limits.session_bytes_max,
            slow_consumer: options.limits.session_when_full,
            // What a client session was promised is repeated until it has it.
            delivery_limit: 0,
            durability: options.limits.session_durability,
            ..Policy::default()
        });
        let budget = Arc::new(Budget::new(options.limits.memory_bytes_max));
        let shared = Arc::new(Shared {
            store,
            clock: options.clock,
            authenticator: options.authenticator,
            authorizer: options.authorizer,
            rules: options.rules,
            policies: options.policies,
            window: Arc::new(Window::new(options.limits.queue_memory_bytes_max, Arc::clone(&budget))),
            outbox_bounds: Arc::new(Bounds { limits: options.limits.outbox, budget: Arc::clone(&budget) }),
            limits: options.limits,
            counters: Counters::default(),
            pressure: Pressure::default(),
            disk_bytes_max,
            budget,
            boot,
            next_queue: AtomicU64::new(1),
            spilled_bytes: AtomicU64::new(0),
            next_message: AtomicU64::new(1),
            session_policy,
            notes: Mutex::new(std::mem::take(&mut recovered.notes)),
            pager: Pager::new(!options.single_threaded),
            hands: Hands::new(!options.single_threaded),
            redrives: Redrives::default(),
            by_id: RwLock::default(),
            hosts,
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            ticks: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            pool,
        });
        pager::start(&shared).map_err(OpenError::Thread)?;
        let restored = recovered.restore(&shared);
        let mut running = shared.store.begin();
        running.remove(TABLE_COUNTERS, MARK_CLEAN);
        running.finish(Level::Fsync);
        Ok((Self { shared }, RecoverySummary { log, restored }))
    }

    /// Takes in a connection.
    ///
    /// # Errors
    /// [`Code::ShuttingDown`] while draining, [`Code::LimitReached`] beyond the connection limit.
    pub fn connect(
        &self,
        info: ConnectionInfo,
        egress: Box<dyn Egress>,
        writer: Box<dyn Writer>,
    ) -> Result<Connection, Refusal> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(Refusal::new(Code::ShuttingDown, "the broker is shutting down"));
        }
        let id = ConnectionId(self.shared.next_connection.fetch_add(1, Ordering::AcqRel));
        let connection = {
            let mut connections = self.shared.connections.lock();
            if connections.len() >= self.shared.limits.connections_max {
                let most = self.shared.limits.connections_max;
                return Err(Refusal::new(
                    Code::LimitReached,
                    format!("the broker holds its most, {most} connections"),
                ));
            }
            let connection = Connection::new(Arc::clone(&self.shared), id, info, egress, writer);
            connections.insert(id, connection.mailbox());
            connection
        };
        self.shared.counters.connections_total.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    /// Tells every connection that the broker is closing, and takes in no more.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.redrives.stop(self.shared.now().wall);
        let mailboxes: Vec<_> = self.shared.connections.lock().values().map(Arc::clone).collect();
        for mailbox in mailboxes {
            mailbox.post(Event::Closing(Refusal::new(Code::ShuttingDown, "the broker is shutting down")));
        }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Now {
        self.shared.now()
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().len()
    }

    /// Syncs and closes the log.
    ///
    /// # Errors
    /// If the last write fails.
    pub fn close(&self) -> Result<(), StoreError> {
        let mut stopped = self.shared.store.begin();
        stopped.set(TABLE_COUNTERS, MARK_CLEAN, &[]);
        stopped.finish(Level::Fsync);
        self.shared.store.close()
    }

    /// The message log, for whoever drives it by hand in a simulation.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Whether the broker can do its work; the sentence says why not.
    ///
    /// # Errors
    /// While draining, and after the log has failed.
    pub fn is_ready(&self) -> Result<(), String> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err("shutting down".into());
        }
        self.shared.store.failed().map_or(Ok(()), Err)
    }

    /// A snapshot of all counters and queues.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        let shared = &self.shared;
        let queues: Vec<(Arc<Queue>, Arc<VirtualHost>)> =
            shared.by_id.read().values().map(|(queue, host)| (Arc::clone(queue), Arc::clone(host))).collect();
        let mut queues: Vec<_> = queues
            .iter()
            .filter(|(queue, _)| match &queue.role {
                Role::Window => false,
                Role::Backlog { lasting, .. } => *lasting,
                Role::Plain | Role::Temporary(_) | Role::Durable { .. } | Role::Group { .. } => true,
            })
            .map(|(queue, host)| queue.lock().core.stats(queue, &host.name))
            .collect();
        queues.sort_unstable_by(|a, b| (&a.name, &a.host).cmp(&(&b.name, &b.host)));
        let mut topics = Vec::new();
        for host in &shared.hosts {
            let sent = self.sent_to(host);
            let of_topics = sent.iter().filter(|(one, _)| one.kind() == Kind::Topic);
            topics.extend(of_topics.map(|(topic, published)| TopicStats {
                name: topic.to_string(),
                host: host.name.to_string(),
                published: *published,
            }));
        }
        topics.sort_unstable_by(|a, b| (&a.name, &a.host).cmp(&(&b.name, &b.host)));
        let connections_by_protocol = self.connections_by_protocol();
        let connections_slow = self.mailboxes().iter().filter(|one| one.outbox.is_slow()).count() as u64;
        BrokerStats { queues, topics, connections_by_protocol, connections_slow, ..self.totals() }
    }

    /// A snapshot of all counters that are not those of one queue.
    pub(crate) fn totals(&self) -> BrokerStats {
        let shared = &self.shared;
        let counters = &shared.counters;
        BrokerStats {
            connections: self.connections() as u64,
            connections_total: read(&counters.connections_total),
            logins_failed: read(&counters.logins_failed),
            published: read(&counters.published),
            published_bytes: read(&counters.published_bytes),
            dispatched: read(&counters.dispatched),
            acknowledged: read(&counters.acknowledged),
            redelivered: read(&counters.redelivered),
            expired: read(&counters.expired),
            dead_lettered: read(&counters.dead_lettered),
            discarded: read(&counters.discarded),
            refused: counters.refused_by_code().iter().map(|(_, count)| count).sum(),
            refused_by_code: counters.refused_by_code(),
            waiting_for_log: shared.pressure.log.waiting() as u64,
            waiting_for_memory: shared.pressure.memory.waiting() as u64,
            waits_for_log: shared.pressure.log.times(),
            waits_for_memory: shared.pressure.memory.times(),
            connections_slow: 0,
            cut_off: read(&counters.cut_off),
            memory_outboxes: held(&shared.budget.outboxes),
            memory_frames: held(&shared.budget.frames),
            memory_transactions: held(&shared.budget.transactions),
            disk_bytes_max: shared.disk_bytes_max,
            pending_bytes: shared.store.pending_bytes() as u64,
            pending_bytes_soft: shared.limits.pending_bytes_soft as u64,
            pending_bytes_max: shared.limits.pending_bytes_max as u64,
            unreadable: read(&counters.unreadable),
            spilled: read(&counters.spilled),
            spilled_bytes: read(&shared.spilled_bytes),
            unrouted: read(&counters.unrouted),
            transactions_committed: read(&counters.transactions_committed),
            transactions_aborted: read(&counters.transactions_aborted),
            memory_bytes: shared.memory(),
            memory_bytes_max: shared.limits.memory_bytes_max,
            topic_subscriptions: shared.hosts.iter().map(|host| host.topics.read().len() as u64).sum(),
            sessions: shared.hosts.iter().map(|host| host.sessions.lock().len() as u64).sum(),
            sessions_connected: shared.hosts.iter().map(|host| host.connected_sessions()).sum(),
            shared_subscriptions: shared.hosts.iter().map(|host| host.shares.lock().len() as u64).sum(),
            retained: shared.hosts.iter().map(|host| host.retained.lock().len() as u64).sum(),
            retained_bytes: shared.hosts.iter().map(|host| host.retained.lock().bytes()).sum(),
            sessions_expired: read(&counters.sessions_expired),
            store: shared.store.stats(),
            time: shared.clock.wall(),
            connections_by_protocol: BTreeMap::new(),
            queues: Vec::new(),
            topics: Vec::new(),
        }
    }

    /// Sends what the broker itself has to say: nobody's permission is asked, nothing of it is logged, and its topic keeps
    /// it as the last value until the broker ends.
    ///
    /// # Errors
    /// [`Code::MemoryFull`].
    pub fn tell(&self, topic: &Destination, body: &[u8]) -> Result<(), Refusal> {
        let targets: Targets = std::iter::once(topic.clone()).collect();
        let facts = Facts { retain: true, body_kind: BodyKind::Text, ..Facts::default() };
        let sent = Sent {
            targets: &targets,
            facts,
            stamp: &[],
            fields: &[],
            body: Body::Borrowed(body),
            keeps_in_log: false,
        };
        let mut work = Work::new(self.shared.now());
        send_for_nobody(&self.shared, &self.shared.host_named("/"), None, &sent, &mut work)?;
        while finish(&self.shared, &mut work) {}
        Ok(())
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("connections", &self.connections()).finish_non_exhaustive()
    }
}
