//! Topics as management sees them: names that somebody subscribes to or sends to, or that keep a last value.

use std::sync::Arc;

use sabir_model::destination::{Destination, Kind, dotted};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::ConnectionId;
use sabir_model::pattern::Pattern;

use crate::broker::Broker;
use crate::manage::listing::{Collector, Listing, Page};
use crate::manage::queues::name_of;
use crate::registry::{Interest, VirtualHost};

/// Last values looked at under one hold of their lock.
const RETAINED_AT_A_TIME: usize = 1024;
/// Subscribers shown of one topic.
const SUBSCRIBERS_SHOWN_MAX: usize = 1000;

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicEntry {
    /// Its dotted name.
    pub name: String,
    /// The topic.
    pub destination: Destination,
    /// Subscriptions that match it, wildcards included, and queues of consumer groups.
    pub subscribers: u64,
    /// Messages that clients have sent to it by name in this boot.
    pub published: u64,
    /// Whether it keeps a last value.
    pub retained: bool,
    /// Whether consumer groups have queues of its messages.
    pub is_virtual: bool,
}

/// One topic, closely.
#[derive(Clone, Debug)]
pub struct TopicDetail {
    /// As in the list.
    pub entry: TopicEntry,
    /// Connections with live subscriptions, at most a thousand.
    pub connections: Vec<ConnectionId>,
    /// Client ids of client sessions that subscribe, at most a thousand.
    pub sessions: Vec<String>,
    /// Queues that collect its messages, by the names that management knows them by.
    pub queues: Vec<String>,
}

/// Who is interested in a topic.
pub(crate) struct Interested {
    pub(crate) connections: Vec<ConnectionId>,
    pub(crate) sessions: Vec<String>,
    pub(crate) queues: Vec<String>,
    count: u64,
}

impl Broker {
    /// Topics of a virtual host, a page of them.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] for a virtual host that does not exist.
    pub fn list_topics(
        &self,
        virtual_host: &str,
        listing: &Listing<()>,
    ) -> Result<Page<TopicEntry>, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let mut page: Collector<Box<str>> = Collector::new(listing);
        let sent = self.sent_to(&host);
        self.for_each_subscribed(&host, |name| page.offer(&dotted(name), || 0, || name.into()));
        let all = Pattern::from_dotted(Kind::Topic, false, ">").expect("a literal pattern is valid");
        let mut after: Option<Box<str>> = None;
        loop {
            let values = host.retained.lock().next_matches(&all, after.as_deref(), RETAINED_AT_A_TIME);
            let Some((last, _)) = values.last() else { break };
            after = Some(last.clone());
            for (name, _) in values {
                if !host.topics.read().has_literal(&name) {
                    page.offer(&dotted(&name), || 0, || name.clone());
                }
            }
        }
        for topic in sent.keys().filter(|one| one.kind() == Kind::Topic) {
            let name = topic.canonical();
            if !host.topics.read().has_literal(name) && !host.retained.lock().contains(name) {
                page.offer(&topic.dotted(), || 0, || name.into());
            }
        }
        let page = page.finish();
        let (next, total) = (page.next, page.total);
        let topics = page.items.iter();
        let topics = topics.filter_map(|name| Destination::from_canonical(Kind::Topic, false, name).ok());
        let items = topics.map(|topic| {
            let published = sent.get(&topic).copied().unwrap_or(0);
            self.topic_entry(&host, topic, published).map(|(entry, _)| entry)
        });
        Ok(Page { items: items.collect::<Result<_, _>>()?, next, total })
    }

    /// One topic, whether or not anybody has used it.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] for what is no name.
    pub fn topic_detail(&self, virtual_host: &str, name: &str) -> Result<TopicDetail, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let topic = Destination::from_dotted(Kind::Topic, false, name)?;
        let published = self.sent_to(&host).get(&topic).copied().unwrap_or(0);
        let (entry, interested) = self.topic_entry(&host, topic, published)?;
        let Interested { connections, sessions, queues, .. } = interested;
        Ok(TopicDetail { entry, connections, sessions, queues })
    }

    /// Calls `visit` with every name of a topic that is subscribed to without wildcards.
    pub(crate) fn for_each_subscribed(&self, host: &VirtualHost, mut visit: impl FnMut(&str)) {
        for part in 0.. {
            let mut names: Vec<Box<str>> = Vec::new();
            let more = host.topics.read().literals_in_part(part, |name, _| names.push(name.into()));
            if !more {
                return;
            }
            names.iter().for_each(|name| visit(name));
        }
    }

    pub(crate) fn topic_entry(
        &self,
        host: &VirtualHost,
        destination: Destination,
        published: u64,
    ) -> Result<(TopicEntry, Interested), Refusal> {
        let mut found =
            Interested { connections: Vec::new(), sessions: Vec::new(), queues: Vec::new(), count: 0 };
        let mut bound = Vec::new();
        let options = crate::pattern_trie::MatchOptions { hide_dollar: true };
        host.topics.read().for_each_match_with(destination.canonical(), options, |interest| {
            found.count += 1;
            if found.count > SUBSCRIBERS_SHOWN_MAX as u64 {
                return;
            }
            match interest {
                Interest::Live(live) => found.connections.push(live.outbox.connection()),
                Interest::Session(one) => found.sessions.push(one.session.client_id.to_string()),
                Interest::Bound(binding) => bound.push(Arc::clone(&binding.queue)),
            }
        });
        for rule in self.shared.rules.virtual_topics.iter() {
            if rule.name.matches(destination.as_ref()) {
                let queues = host.matching_queues(&rule.queues_of(&destination)?);
                found.count += queues.len() as u64;
                bound.extend(queues);
            }
        }
        for queue in bound.iter().take(SUBSCRIBERS_SHOWN_MAX) {
            match queue.role {
                // The window of a live subscription is nothing to show.
                crate::queue::Role::Window => {
                    let core = queue.lock().core;
                    found.connections.extend(core.consumers().map(|one| one.outbox.connection()));
                }
                _ => found.queues.push(name_of(queue)),
            }
        }
        let rules = &self.shared.rules.virtual_topics;
        let entry = TopicEntry {
            name: destination.dotted(),
            subscribers: found.count,
            published,
            retained: host.retained.lock().contains(destination.canonical()),
            is_virtual: rules.iter().any(|rule| rule.name.matches(destination.as_ref())),
            destination,
        };
        Ok((entry, found))
    }
}

/// The refusal for a topic that keeps nothing.
pub(crate) fn keeps_nothing(topic: &Destination) -> Refusal {
    Refusal::new(Code::UnknownDestination, format!("{topic} keeps no last value"))
}
