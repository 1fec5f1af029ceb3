//! Connections as management sees them.

use std::sync::Arc;

use sabir_model::clock::Timestamp;
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::ids::ConnectionId;

use crate::broker::Broker;
use crate::client_session::ClientSession;
use crate::mailbox::Mailbox;
use crate::manage::listing::{Collector, Listing, Page};
use crate::manage::queues::name_of;
use crate::pattern_trie::Handle;
use crate::queue::Queue;
use crate::registry::{Interest, VirtualHost, pattern_at};
use crate::stats::read;
use crate::subscribe::Attached;

/// Subscriptions of one connection that are looked at.
const SUBSCRIPTIONS_MAX: usize = 1000;

/// By what connections are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionSort {
    /// The oldest first.
    #[default]
    Age,
    /// Most published first.
    Published,
    /// Most delivered first.
    Delivered,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEntry {
    /// Its number.
    pub id: ConnectionId,
    /// What it speaks, with the version; empty for one of the server's own, which serves an HTTP client.
    pub protocol: &'static str,
    /// The peer's address.
    pub peer: String,
    /// The listener it came through.
    pub listener: &'static str,
    /// The user; `None` for anonymous.
    pub user: Option<String>,
    /// Its client id.
    pub client_id: Option<String>,
    /// When it was taken in.
    pub since: Timestamp,
    /// Subscriptions it has.
    pub subscriptions: u64,
    /// Messages it has published.
    pub published: u64,
    /// Messages it has been sent.
    pub delivered: u64,
    /// Bytes that wait for its socket.
    pub outbox_bytes: u64,
    /// Deliveries it has not settled.
    pub unsettled: u64,
}

/// One subscription of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionEntry {
    /// What it is to, qualified.
    pub destination: String,
    /// What it wants only.
    pub selector: Option<String>,
    /// Most deliveries that may be unsettled at a time; `None` where nothing is settled.
    pub credit: Option<u32>,
    /// Deliveries that are unsettled.
    pub in_flight: u64,
}

/// One connection, closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionDetail {
    /// As in the list.
    pub entry: ConnectionEntry,
    /// Its subscriptions; at most a thousand.
    pub subscriptions: Vec<SubscriptionEntry>,
}

/// What a list of connections is sorted by where numbers do not tell: a number whose order is that of its text.
fn key(id: ConnectionId) -> String {
    format!("{:020}", id.0)
}

impl Broker {
    /// Connections to a virtual host, a page of them. The filter looks at peer, listener, user, client id and protocol.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] for a virtual host that does not exist.
    pub fn list_connections(
        &self,
        virtual_host: &str,
        listing: &Listing<ConnectionSort>,
    ) -> Result<Page<ConnectionEntry>, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let mut page = Collector::new(listing);
        for mailbox in self.mailboxes() {
            let text = {
                let owner = mailbox.owner.lock();
                if !Arc::ptr_eq(&owner.host, &host) {
                    continue;
                }
                let info = &mailbox.info;
                let client_id = owner.client_id.as_deref().unwrap_or_default();
                let protocol = match mailbox.outbox.about().0 {
                    "" => "HTTP",
                    known => known,
                };
                format!("{} {} {} {client_id} {protocol}", info.peer, info.listener, owner.principal)
            };
            let value = || match listing.sort {
                ConnectionSort::Age => 0,
                ConnectionSort::Published => read(&mailbox.published),
                ConnectionSort::Delivered => mailbox.outbox.about().1,
            };
            page.offer_as(&key(mailbox.id), &text, value, || Arc::clone(&mailbox));
        }
        Ok(page.finish().map(|mailbox| self.describe(&host, &mailbox).entry))
    }

    /// One connection.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] if it is not there (any more).
    pub fn connection_detail(&self, id: ConnectionId) -> Result<ConnectionDetail, Refusal> {
        let mailbox = self.mailbox_of(id)?;
        let host = Arc::clone(&mailbox.owner.lock().host);
        Ok(self.describe(&host, &mailbox))
    }

    /// Asks a connection to end. Its protocol says farewell; what it has not settled goes back.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] if it is not there (any more).
    pub fn close_connection(&self, id: ConnectionId) -> Result<(), Refusal> {
        let refusal = Refusal::new(Code::ClosedByOperator, "an operator has closed the connection");
        self.mailbox_of(id)?.post(Event::Closing(refusal));
        Ok(())
    }

    pub(crate) fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.shared.connections.lock().values().map(Arc::clone).collect()
    }

    fn mailbox_of(&self, id: ConnectionId) -> Result<Arc<Mailbox>, Refusal> {
        let found = self.shared.connections.lock().get(&id).map(Arc::clone);
        found
            .ok_or_else(|| Refusal::new(Code::UnknownDestination, format!("there is no connection {}", id.0)))
    }

    fn describe(&self, host: &VirtualHost, mailbox: &Mailbox) -> ConnectionDetail {
        let (protocol, delivered, outbox_bytes) = mailbox.outbox.about();
        let (user, client_id) = {
            let owner = mailbox.owner.lock();
            (owner.principal.name().map(str::to_owned), owner.client_id.clone())
        };
        let (attached, count) = {
            let subscriptions = mailbox.subscriptions.lock();
            let shown = subscriptions.values().take(SUBSCRIPTIONS_MAX);
            (shown.flat_map(|one| one.attached()).collect::<Vec<_>>(), subscriptions.len())
        };
        let mut entries: Vec<SubscriptionEntry> =
            attached.iter().map(|part| subscription(host, part)).collect();
        let session = session_on(host, client_id.as_deref(), mailbox.id);
        let mut of_session = 0;
        if let Some(session) = session {
            let state = session.state();
            of_session = state.bindings.len();
            let topics = host.topics.read();
            let of_topics = state.bindings.seated().filter_map(|(spot, _)| pattern_at(&topics, spot));
            let others = state.bindings.others().map(|binding| match &binding.group {
                Some(group) => format!("{} (shared by {group})", binding.pattern),
                None => binding.pattern.to_string(),
            });
            let patterns = of_topics.map(|pattern| pattern.to_string()).chain(others);
            entries.extend(patterns.take(SUBSCRIPTIONS_MAX).map(|destination| SubscriptionEntry {
                destination,
                selector: None,
                credit: None,
                in_flight: 0,
            }));
            // Its subscriptions share one window, which is told once.
            if let Some(last) = entries.last_mut().filter(|_| of_session > 0) {
                last.credit = Some(state.credit().limit());
                last.in_flight = state.credit().used();
            }
        }
        let entry = ConnectionEntry {
            id: mailbox.id,
            protocol,
            peer: mailbox.info.peer.to_string(),
            listener: mailbox.info.listener,
            user,
            client_id: client_id.map(|client_id| client_id.to_string()),
            since: mailbox.since,
            subscriptions: (count + of_session) as u64,
            published: read(&mailbox.published),
            delivered,
            outbox_bytes,
            unsettled: entries.iter().map(|entry| entry.in_flight).sum(),
        };
        ConnectionDetail { entry, subscriptions: entries }
    }
}

/// The client session that a connection is in charge of.
fn session_on(
    host: &VirtualHost,
    client_id: Option<&str>,
    connection: ConnectionId,
) -> Option<Arc<ClientSession>> {
    let session = host.sessions.lock().get(client_id?).map(Arc::clone)?;
    session.is_on(connection).then_some(session)
}

/// What somebody's interest in topics is in; nothing if it has ended meanwhile.
fn pattern_of(host: &VirtualHost, handle: Handle, temporary: bool) -> String {
    let topics = host.topics.read();
    let pattern = topics.seat(handle).and_then(|(spot, _)| pattern_at(&topics, spot));
    let prefix = if temporary { "temp-" } else { "" };
    pattern.map_or_else(String::new, |pattern| format!("{prefix}{pattern}"))
}

fn subscription(host: &VirtualHost, part: &Attached) -> SubscriptionEntry {
    let consumer = |destination: String, queue: &Arc<Queue>, slot: u32| {
        let core = queue.lock().core;
        let consumer = core.consumer(slot);
        SubscriptionEntry {
            destination,
            selector: consumer.and_then(|one| one.selector.as_ref()).map(|one| one.source().to_owned()),
            credit: consumer.map(|one| one.credit.limit()),
            in_flight: consumer.map_or(0, |one| one.credit.used()),
        }
    };
    match part {
        Attached::Queue(queue, slot) => {
            let name = match queue.role {
                crate::queue::Role::Plain => queue.title(),
                _ => name_of(queue),
            };
            consumer(name, queue, *slot)
        }
        Attached::Window { queue, slot, handle, temporary } => {
            consumer(pattern_of(host, *handle, *temporary), queue, *slot)
        }
        Attached::Wildcard(pattern, wildcard) => SubscriptionEntry {
            destination: pattern.to_string(),
            selector: wildcard.selector.as_ref().map(|selector| selector.source().to_owned()),
            credit: Some(wildcard.credit.limit()),
            in_flight: wildcard.credit.used(),
        },
        Attached::Live { handle, temporary } => {
            let destination = pattern_of(host, *handle, *temporary);
            let selector = match host.topics.read().get(*handle) {
                Some(Interest::Live(live)) => live.selector.as_ref().map(|one| one.source().to_owned()),
                _ => None,
            };
            SubscriptionEntry { destination, selector, credit: None, in_flight: 0 }
        }
        Attached::Browser(queue) => SubscriptionEntry {
            destination: format!("{} (a look)", queue.title()),
            selector: None,
            credit: None,
            in_flight: 0,
        },
    }
}
