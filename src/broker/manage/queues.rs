//! Queues as management sees them.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::ConnectionId;

use crate::broker::{Broker, Shared};
use crate::manage::listing::{Collector, Listing, Page};
use crate::policy::Policy;
use crate::queue::{Queue, Role};
use crate::registry::VirtualHost;
use crate::stats::QueueStats;

/// Consumers shown of one queue.
const CONSUMERS_SHOWN_MAX: usize = 1000;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// A queue by its own name.
    Queue,
    /// One that dead letters go to.
    DeadLetter,
    /// One that lives as long as the connection that made it.
    Temporary,
    /// What waits for a durable subscription.
    Durable,
    /// What waits for a client session.
    Session,
    /// What waits for a group of client sessions that share a subscription.
    Share,
}

impl QueueKind {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::DeadLetter => "dead-letter",
            Self::Temporary => "temporary",
            Self::Durable => "durable",
            Self::Session => "session",
            Self::Share => "share",
        }
    }

    /// Of a queue that is anybody's business.
    fn of(queue: &Queue) -> Option<Self> {
        match &queue.role {
            Role::Plain if queue.holds_dead_letters => Some(Self::DeadLetter),
            Role::Plain => Some(Self::Queue),
            Role::Temporary(_) => Some(Self::Temporary),
            Role::Durable { .. } => Some(Self::Durable),
            Role::Backlog { lasting: true, .. } => Some(Self::Session),
            Role::Group { .. } => Some(Self::Share),
            Role::Backlog { .. } | Role::Window => None,
        }
    }
}

/// By what queues are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueSort {
    /// By name.
    #[default]
    Name,
    /// Most messages ready first.
    Ready,
    /// Most consumers first.
    Consumers,
    /// Most unsettled deliveries first.
    Unsettled,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueEntry {
    /// The dotted name of a queue that has one; otherwise that of [`QueueStats::name`].
    pub name: String,
    /// How it is sent to, if it is.
    pub destination: Option<Destination>,
    /// What it is for.
    pub kind: QueueKind,
    /// Kept although nobody uses it.
    pub declared: bool,
    /// Its counters.
    pub stats: QueueStats,
}

/// One consumer of a queue.
#[derive(Clone, Debug)]
pub struct ConsumerEntry {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its subscription on that connection.
    pub subscription: u32,
    /// Most deliveries that may be unsettled at a time.
    pub credit: u32,
    /// Deliveries of this queue that are.
    pub in_flight: u64,
    /// What it wants only.
    pub selector: Option<String>,
    /// Higher ones are served first.
    pub priority: i8,
}

/// One queue, closely.
#[derive(Clone, Debug)]
pub struct QueueDetail {
    /// As in the list.
    pub entry: QueueEntry,
    /// What holds for it.
    pub policy: Arc<Policy>,
    /// What is collected here besides what is sent here: topics, and destinations that forward.
    pub bindings: Vec<String>,
    /// Who consumes from it; at most a thousand of them.
    pub consumers: Vec<ConsumerEntry>,
}

/// The name by which management knows a queue.
pub(crate) fn name_of(queue: &Queue) -> String {
    match &queue.role {
        Role::Plain => queue.destination.dotted(),
        _ => queue.title(),
    }
}

pub(crate) fn entry_of(queue: &Arc<Queue>, host: &str) -> Option<QueueEntry> {
    let kind = QueueKind::of(queue)?;
    let (stats, declared) = {
        let held = queue.lock();
        (held.core.stats(queue, host), held.core.declared)
    };
    let destination = matches!(queue.role, Role::Plain | Role::Temporary(_));
    Some(QueueEntry {
        name: name_of(queue),
        destination: destination.then(|| queue.destination.clone()),
        kind,
        declared,
        stats,
    })
}

/// All queues of a virtual host that are anybody's business.
pub(crate) fn queues_of(shared: &Shared, host: &Arc<VirtualHost>) -> Vec<Arc<Queue>> {
    let by_id = shared.by_id.read();
    let of_host = by_id.values().filter(|(_, other)| Arc::ptr_eq(other, host)).map(|(queue, _)| queue);
    of_host.filter(|queue| QueueKind::of(queue).is_some()).map(Arc::clone).collect()
}

impl Broker {
    /// Queues of a virtual host, a page of them.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] for a virtual host that does not exist.
    pub fn list_queues(
        &self,
        virtual_host: &str,
        listing: &Listing<QueueSort>,
    ) -> Result<Page<QueueEntry>, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let mut page = Collector::new(listing);
        for queue in queues_of(&self.shared, &host) {
            let value = || {
                if listing.sort == QueueSort::Name {
                    return 0;
                }
                let core = queue.lock().core;
                match listing.sort {
                    QueueSort::Name => 0,
                    QueueSort::Ready => core.ready.len(),
                    QueueSort::Consumers => core.ring.len() as u64,
                    QueueSort::Unsettled => core.in_flight.len() as u64,
                }
            };
            page.offer(&name_of(&queue), value, || Arc::clone(&queue));
        }
        let page = page.finish();
        let items = page.items.iter().filter_map(|queue| entry_of(queue, virtual_host)).collect();
        Ok(Page { items, next: page.next, total: page.total })
    }

    /// One queue.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`].
    pub fn queue_detail(&self, virtual_host: &str, name: &str) -> Result<QueueDetail, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let queue = self.find_managed(&host, name)?;
        let entry = entry_of(&queue, virtual_host).ok_or_else(|| unknown(name))?;
        let consumers = {
            let core = queue.lock().core;
            let mut in_flight: HashMap<u32, u64, RandomState> = HashMap::default();
            for held in core.in_flight.iter() {
                *in_flight.entry(held.consumer).or_default() += 1;
            }
            let served = core.ring.iter().take(CONSUMERS_SHOWN_MAX);
            let consumers = served.filter_map(|slot| {
                let consumer = core.consumer(*slot)?;
                Some(ConsumerEntry {
                    connection: consumer.outbox.connection(),
                    subscription: consumer.subscription.0,
                    credit: consumer.credit.limit(),
                    in_flight: in_flight.get(slot).copied().unwrap_or(0),
                    selector: consumer.selector.as_ref().map(|selector| selector.source().to_owned()),
                    priority: consumer.priority,
                })
            });
            consumers.collect()
        };
        let bindings = self.bindings_of(&queue);
        Ok(QueueDetail { entry, policy: Arc::clone(&queue.policy), bindings, consumers })
    }

    /// What a queue collects besides what is sent to it.
    pub(crate) fn bindings_of(&self, queue: &Queue) -> Vec<String> {
        match &queue.role {
            Role::Durable { pattern, .. } | Role::Group { pattern, .. } => vec![pattern.to_string()],
            Role::Plain => {
                let rules = &self.shared.rules;
                let group = rules.group_queue(queue.destination.canonical());
                let topic = group.map(|(_, topic)| topic.to_string());
                let forwards = rules.composites.iter().filter(|rule| {
                    rule.forward_to.iter().any(|forward| forward.destination == queue.destination)
                });
                topic.into_iter().chain(forwards.map(|rule| rule.name.to_string())).collect()
            }
            Role::Temporary(_) | Role::Window | Role::Backlog { .. } => Vec::new(),
        }
    }

    /// A queue by the name that [`QueueEntry::name`] shows.
    pub(crate) fn find_managed(&self, host: &Arc<VirtualHost>, name: &str) -> Result<Arc<Queue>, Refusal> {
        let plain = Destination::from_dotted(Kind::Queue, false, name);
        if let Ok(plain) = &plain
            && let Some(queue) = host.find_queue(plain)
        {
            return Ok(queue);
        }
        if let Some(temporary) = name.strip_prefix("temp-queue://") {
            let temporary = Destination::from_dotted(Kind::Queue, true, temporary)?;
            return host.find_queue(&temporary).ok_or_else(|| unknown(name));
        }
        if !["durable://", "session://", "group://"].iter().any(|prefix| name.starts_with(prefix)) {
            return Err(plain.err().unwrap_or_else(|| unknown(name)));
        }
        let all = queues_of(&self.shared, host);
        let mut others = all.into_iter().filter(|queue| !matches!(queue.role, Role::Plain));
        others.find(|queue| queue.title() == name).ok_or_else(|| unknown(name))
    }
}

pub(crate) fn unknown(name: &str) -> Refusal {
    Refusal::new(Code::UnknownDestination, format!("there is no queue \"{name}\""))
}
