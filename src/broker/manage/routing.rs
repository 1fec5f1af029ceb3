//! The routing picture: publishers, rules, destinations and subscribers as nodes, and what has flowed between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Refusal;
use sabir_model::ids::ConnectionId;

use crate::broker::Broker;
use crate::mailbox::Mailbox;
use crate::manage::listing::{Collector, Filter, Listing};
use crate::manage::queues::{name_of, queues_of};
use crate::queue::Queue;
use crate::registry::VirtualHost;
use crate::rules::CompositeRule;

/// Consumers drawn of one queue, and subscribers of one topic.
const CONSUMERS_MAX: usize = 50;
/// Edges drawn for each destination that may be drawn; of more the busiest stay.
const EDGES_PER_DESTINATION: usize = 10;

/// What a node of the picture stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// A connection that sends.
    Publisher,
    /// A name that forwards.
    Rule,
    /// A topic.
    Topic,
    /// A queue of any kind.
    Queue,
    /// A connection that receives.
    Subscriber,
}

impl NodeKind {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Rule => "rule",
            Self::Topic => "topic",
            Self::Queue => "queue",
            Self::Subscriber => "subscriber",
        }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Names it among the nodes.
    pub id: String,
    /// What it stands for.
    pub kind: NodeKind,
    /// For people.
    pub label: String,
}

/// How messages come from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeKind {
    /// Somebody sends them.
    Publish,
    /// A rule forwards them.
    Route,
    /// A queue collects what a topic gets.
    Binding,
    /// Somebody receives them.
    Consume,
}

impl EdgeKind {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Route => "route",
            Self::Binding => "binding",
            Self::Consume => "consume",
        }
    }
}

/// One edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The id of the node they come from.
    pub from: String,
    /// The id of the node they go to.
    pub to: String,
    /// How.
    pub kind: EdgeKind,
    /// How many, since the start or since the two have met.
    pub messages: u64,
}

/// The picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Destinations and rules, the busiest first, then who sends and who receives.
    pub nodes: Vec<Node>,
    /// What flows between them.
    pub edges: Vec<Edge>,
    /// Whether something is left out.
    pub truncated: bool,
}

/// What may be drawn in the middle.
#[derive(Clone)]
enum Place {
    Rule(usize, u64),
    Topic(Destination, u64),
    Queue(Arc<Queue>),
}

impl Place {
    fn node(&self, rules: &[CompositeRule]) -> Node {
        let (kind, label) = match self {
            Self::Rule(index, _) => {
                (NodeKind::Rule, rules.get(*index).map(|rule| rule.name.to_string()).unwrap_or_default())
            }
            Self::Topic(topic, _) => (NodeKind::Topic, topic.dotted()),
            Self::Queue(queue) => (NodeKind::Queue, name_of(queue)),
        };
        Node { id: format!("{}:{label}", kind.word()), kind, label }
    }
}

type Counts = HashMap<Destination, u64, RandomState>;

/// Edges in the making: those between the same nodes are one.
#[derive(Default)]
struct Edges(BTreeMap<(String, String, EdgeKind), u64>);

impl Edges {
    fn add(&mut self, from: &str, to: &str, kind: EdgeKind, messages: u64) {
        *self.0.entry((from.to_owned(), to.to_owned(), kind)).or_default() += messages;
    }
}

impl Broker {
    /// What has been sent to destinations of a virtual host by their names: topics, and what forwards.
    pub(crate) fn sent_to(&self, host: &Arc<VirtualHost>) -> Counts {
        let mut sent = host.sent.all();
        for mailbox in self.mailboxes() {
            if !Arc::ptr_eq(&mailbox.owner.lock().host, host) {
                continue;
            }
            for tally in mailbox.tallies.lock().iter() {
                for destination in tally.targets.iter() {
                    if let Some(number) = sent.get_mut(destination) {
                        *number += tally.sent();
                    }
                }
            }
        }
        sent
    }

    /// The picture of a virtual host, of at most `limit` destinations and rules.
    ///
    /// # Errors
    /// [`sabir_model::error::Code::UnknownDestination`] for a virtual host that does not exist.
    pub fn routing(&self, virtual_host: &str, limit: usize) -> Result<Picture, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let rules = &self.shared.rules.composites;
        let sent = self.sent_to(&host);
        let (places, left_out) = self.busiest(&host, &sent, limit);
        let nodes: Vec<Node> = places.iter().map(|place| place.node(rules)).collect();
        let ids: HashSet<String, RandomState> = nodes.iter().map(|node| node.id.clone()).collect();
        let drawn = |kind: NodeKind, label: &str| {
            let id = format!("{}:{label}", kind.word());
            ids.contains(&id).then_some(id)
        };
        // What is sent to a name that a rule forwards goes to the rule.
        let entry = |destination: &Destination| match rule_of(rules, destination) {
            Some((_, rule)) => drawn(NodeKind::Rule, &rule.name.to_string()),
            None => place_of(destination, &drawn),
        };
        let mut edges = Edges::default();
        for mailbox in self.mailboxes() {
            if Arc::ptr_eq(&mailbox.owner.lock().host, &host) {
                let from = format!("publisher:{}", mailbox.id.0);
                for tally in mailbox.tallies.lock().iter() {
                    for to in tally.targets.iter().filter_map(entry) {
                        edges.add(&from, &to, EdgeKind::Publish, tally.sent());
                    }
                }
            }
        }
        for (place, node) in places.iter().zip(&nodes) {
            match place {
                Place::Rule(index, count) => {
                    let Some(rule) = rules.get(*index) else { continue };
                    let forwards = rule.forward_to.iter().map(|forward| &forward.destination);
                    let own = rule.name.as_literal().filter(|_| !rule.forward_only);
                    for to in forwards.chain(own).filter_map(|one| place_of(one, &drawn)) {
                        edges.add(&node.id, &to, EdgeKind::Route, *count);
                    }
                }
                Place::Topic(topic, count) => {
                    let (_, interested) = self.topic_entry(&host, topic.clone(), *count)?;
                    for queue in &interested.queues {
                        if let Some(to) = drawn(NodeKind::Queue, queue) {
                            edges.add(&node.id, &to, EdgeKind::Binding, *count);
                        }
                    }
                    for connection in interested.connections.iter().take(CONSUMERS_MAX) {
                        let to = format!("subscriber:{}", connection.0);
                        edges.add(&node.id, &to, EdgeKind::Consume, *count);
                    }
                    for session in interested.sessions.iter().take(CONSUMERS_MAX) {
                        if let Some(to) = drawn(NodeKind::Queue, &format!("session://{session}")) {
                            edges.add(&node.id, &to, EdgeKind::Binding, *count);
                            continue;
                        }
                        let session = host.sessions.lock().get(session.as_str()).map(Arc::clone);
                        let connection = session.and_then(|session| session.state().connection);
                        if let Some(connection) = connection {
                            let to = format!("subscriber:{}", connection.0);
                            edges.add(&node.id, &to, EdgeKind::Consume, *count);
                        }
                    }
                }
                Place::Queue(queue) => {
                    let consumers: Vec<(ConnectionId, u64)> = {
                        let core = queue.lock().core;
                        let consumers = core.consumers().take(CONSUMERS_MAX);
                        consumers.map(|one| (one.outbox.connection(), one.delivered)).collect()
                    };
                    for (connection, delivered) in consumers {
                        let to = format!("subscriber:{}", connection.0);
                        edges.add(&node.id, &to, EdgeKind::Consume, delivered);
                    }
                }
            }
        }
        Ok(self.finish_picture(nodes, edges, limit, left_out))
    }

    /// The busiest destinations and rules, and whether there are more.
    fn busiest(&self, host: &Arc<VirtualHost>, sent: &Counts, limit: usize) -> (Vec<Place>, bool) {
        let mut page = Collector::new(&Listing {
            filter: Filter::default(),
            after: None,
            limit: limit.max(1),
            sort: (),
        });
        let rules = &self.shared.rules.composites;
        for (index, rule) in rules.iter().enumerate() {
            let to = sent.iter().filter(|(one, _)| rule_of(rules, one).is_some_and(|(at, _)| at == index));
            let count: u64 = to.map(|(_, count)| count).sum();
            if count > 0 {
                page.offer(&format!("rule {}", rule.name), || count, || Place::Rule(index, count));
            }
        }
        let forwarded = |one: &Destination| rule_of(rules, one).is_some_and(|(_, rule)| rule.forward_only);
        let topics = sent.iter().filter(|(one, _)| one.kind() == Kind::Topic && !forwarded(one));
        for (topic, count) in topics {
            let place = || Place::Topic(topic.clone(), *count);
            page.offer(&format!("topic {}", topic.canonical()), || *count, place);
        }
        self.for_each_subscribed(host, |name| {
            let topic = Destination::from_canonical(Kind::Topic, false, name);
            if let Some(topic) = topic.ok().filter(|topic| !sent.contains_key(topic)) {
                page.offer(&format!("topic {name}"), || 0, || Place::Topic(topic.clone(), 0));
            }
        });
        for queue in queues_of(&self.shared, host) {
            let count = {
                let core = queue.lock().core;
                core.enqueued + core.delivered
            };
            let place = || Place::Queue(Arc::clone(&queue));
            page.offer(&format!("queue {}", name_of(&queue)), || count, place);
        }
        let page = page.finish();
        (page.items, page.next.is_some())
    }

    /// Leaves out what is too much, and adds who sends and receives.
    fn finish_picture(&self, mut nodes: Vec<Node>, edges: Edges, limit: usize, left_out: bool) -> Picture {
        let edge = |((from, to, kind), messages)| Edge { from, to, kind, messages };
        let mut edges: Vec<Edge> = edges.0.into_iter().map(edge).collect();
        let most = limit.saturating_mul(EDGES_PER_DESTINATION);
        let truncated = left_out || edges.len() > most;
        if edges.len() > most {
            edges.sort_by_key(|edge| std::cmp::Reverse(edge.messages));
            edges.truncate(most);
        }
        let mailboxes: HashMap<u64, Arc<Mailbox>, RandomState> =
            self.mailboxes().into_iter().map(|mailbox| (mailbox.id.0, mailbox)).collect();
        let mut parties: BTreeSet<(NodeKind, u64)> = BTreeSet::new();
        for edge in &edges {
            for (end, prefix, kind) in [
                (&edge.from, "publisher:", NodeKind::Publisher),
                (&edge.to, "subscriber:", NodeKind::Subscriber),
            ] {
                if let Some(number) = end.strip_prefix(prefix).and_then(|number| number.parse().ok()) {
                    parties.insert((kind, number));
                }
            }
        }
        for (kind, number) in parties {
            let label = mailboxes.get(&number).map_or_else(|| number.to_string(), |one| label_of(one));
            nodes.push(Node { id: format!("{}:{number}", kind.word()), kind, label });
        }
        Picture { nodes, edges, truncated }
    }
}

/// What a connection is called: its client id, else its user, else where it comes from.
fn label_of(mailbox: &Mailbox) -> String {
    let owner = mailbox.owner.lock();
    let name = owner.client_id.as_deref().or_else(|| owner.principal.name());
    name.unwrap_or(&mailbox.info.peer).to_owned()
}

/// The rule that forwards what is sent to a destination.
fn rule_of<'a>(rules: &'a [CompositeRule], destination: &Destination) -> Option<(usize, &'a CompositeRule)> {
    rules.iter().enumerate().find(|(_, rule)| rule.name.matches(destination.as_ref()))
}

/// The node of a destination, if it is drawn.
fn place_of(destination: &Destination, drawn: &impl Fn(NodeKind, &str) -> Option<String>) -> Option<String> {
    match destination.kind() {
        Kind::Topic => drawn(NodeKind::Topic, &destination.dotted()),
        Kind::Queue if destination.is_temporary() => drawn(NodeKind::Queue, &destination.to_string()),
        Kind::Queue => drawn(NodeKind::Queue, &destination.dotted()),
    }
}
