//! Durable subscriptions as management sees them.

use std::sync::Arc;

use sabir_model::error::{Code, Refusal};
use sabir_model::pattern::Pattern;

use crate::broker::Broker;
use crate::manage::listing::{Collector, Listing, Page};
use crate::queue::{Queue, Role};

/// One durable subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableEntry {
    /// Whose it is.
    pub client_id: String,
    /// Its name.
    pub name: String,
    /// What it is to.
    pub pattern: Pattern,
    /// What it wants only.
    pub selector: Option<String>,
    /// The queue that collects for it, by the name that management knows it by.
    pub queue: String,
    /// Whether somebody consumes it now.
    pub connected: bool,
    /// Messages that wait.
    pub ready: u64,
}

impl Broker {
    /// Durable subscriptions of a virtual host, a page of them: by client id and name.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] for a virtual host that does not exist.
    pub fn list_durables(
        &self,
        virtual_host: &str,
        listing: &Listing<()>,
    ) -> Result<Page<DurableEntry>, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let all: Vec<(Arc<Queue>, bool)> = {
            let durables = host.durables.lock();
            durables.values().map(|one| (Arc::clone(&one.queue), one.active.is_some())).collect()
        };
        let mut page = Collector::new(listing);
        for (queue, connected) in all {
            let Role::Durable { client_id, name, .. } = &queue.role else { continue };
            // NUL is in no client id: the list is by client id first.
            let key = format!("{client_id}\0{name}");
            let item = || (Arc::clone(&queue), connected);
            page.offer_as(&key, &format!("{client_id} {name}"), || 0, item);
        }
        let page = page.finish();
        let items = page.items.iter().filter_map(|(queue, connected)| entry(queue, *connected)).collect();
        Ok(Page { items, next: page.next, total: page.total })
    }

    /// One durable subscription.
    ///
    /// # Errors
    /// [`Code::UnknownSubscription`]; [`Code::UnknownDestination`] for a virtual host that does not exist.
    pub fn durable_entry(
        &self,
        virtual_host: &str,
        client_id: &str,
        name: &str,
    ) -> Result<DurableEntry, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let known = {
            let durables = host.durables.lock();
            let one = durables.get(&(client_id.into(), name.into()));
            one.map(|one| (Arc::clone(&one.queue), one.active.is_some()))
        };
        known.and_then(|(queue, connected)| entry(&queue, connected)).ok_or_else(|| {
            let sentence = format!("\"{client_id}\" has no durable subscription \"{name}\"");
            Refusal::new(Code::UnknownSubscription, sentence)
        })
    }
}

fn entry(queue: &Arc<Queue>, connected: bool) -> Option<DurableEntry> {
    let Role::Durable { client_id, name, pattern, selector } = &queue.role else { return None };
    Some(DurableEntry {
        client_id: client_id.to_string(),
        name: name.to_string(),
        pattern: pattern.clone(),
        selector: selector.as_ref().map(|selector| selector.source().to_owned()),
        queue: queue.title(),
        connected,
        ready: queue.lock().core.ready.len(),
    })
}
