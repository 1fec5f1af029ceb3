//! The broker at a glance.

use std::collections::BTreeMap;

use sabir_model::error::Refusal;

use crate::broker::Broker;
use crate::manage::queues::queues_of;
use crate::policy::Policies;
use crate::registry::VirtualHost;
use crate::rules::Rules;
use crate::stats::BrokerStats;

/// The broker at a glance.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Everything that is counted broker-wide; without rows for queues.
    pub stats: BrokerStats,
    /// Connections by the protocol they speak, without its version; those of HTTP clients as `http`.
    pub connections_by_protocol: BTreeMap<String, u64>,
    /// Queues of every kind that management shows.
    pub queues: u64,
    /// Topics that somebody subscribes to by name, or that keep a last value.
    pub topics: u64,
    /// Messages ready in the queues.
    pub ready: u64,
    /// Deliveries of them that are not settled.
    pub unsettled: u64,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHostEntry {
    /// Its name; `/` is the default one.
    pub name: String,
    /// Queues of every kind that management shows.
    pub queues: u64,
    /// Topics that somebody subscribes to by name, or that keep a last value.
    pub topics: u64,
}

impl Broker {
    /// The broker at a glance.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let mut overview = Overview { stats: self.totals(), ..Overview::default() };
        for host in self.shared.hosts() {
            for queue in queues_of(&self.shared, host) {
                let core = queue.lock().core;
                overview.queues += 1;
                overview.ready += core.ready.len();
                overview.unsettled += core.in_flight.len() as u64;
            }
        }
        overview.topics = self.shared.hosts().iter().map(|host| topics_of(host)).sum();
        overview.connections_by_protocol = self.connections_by_protocol();
        overview
    }

    /// Connections by the protocol they speak, without its version.
    #[must_use]
    pub fn connections_by_protocol(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for mailbox in self.mailboxes() {
            let protocol = mailbox.outbox.about().0;
            let word = match protocol.split(' ').next() {
                None | Some("") => "http".to_owned(),
                Some(word) => word.to_lowercase(),
            };
            *counts.entry(word).or_insert(0) += 1;
        }
        counts
    }

    /// All virtual hosts.
    #[must_use]
    pub fn virtual_hosts(&self) -> Vec<VirtualHostEntry> {
        let hosts = self.shared.hosts().iter();
        hosts
            .map(|host| VirtualHostEntry {
                name: host.name.to_string(),
                queues: queues_of(&self.shared, host).len() as u64,
                topics: topics_of(host),
            })
            .collect()
    }

    /// Whether there is a virtual host of this name.
    ///
    /// # Errors
    /// [`sabir_model::error::Code::UnknownDestination`] if there is none.
    pub fn check_virtual_host(&self, name: &str) -> Result<(), Refusal> {
        self.shared.find_host(name).map(drop)
    }

    /// The routing rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.shared.policies
    }
}

/// Roughly, for a topic that has both is counted twice: who needs it exactly asks for the list.
fn topics_of(host: &VirtualHost) -> u64 {
    let subscribed = host.topics.read().literal_count();
    (subscribed + host.retained.lock().counted()) as u64
}
