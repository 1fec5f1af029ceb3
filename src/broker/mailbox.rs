//! News for a connection from others: answers that took time, the log's progress, the end of a subscription.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use sabir_model::access::{Principal, Step};
use sabir_model::clock::Timestamp;
use sabir_model::error::Refusal;
use sabir_model::event::Event;
use sabir_model::ids::ConnectionId;
use sabir_store::Wake;

use crate::broker::ConnectionInfo;
use crate::outbox::Outbox;
use crate::registry::VirtualHost;
use crate::subscribe::Subscriptions;
use crate::tally::Tallies;

/// Events that may wait for one connection.
const EVENTS_MAX: usize = 100_000;

/// Whose a connection is, once that is known.
pub(crate) struct Owner {
    pub(crate) principal: Principal,
    pub(crate) host: Arc<VirtualHost>,
    pub(crate) client_id: Option<Box<str>>,
}

/// Where others leave news for a connection, and what they may know of it.
pub(crate) struct Mailbox {
    pub(crate) id: ConnectionId,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) events: Mutex<VecDeque<Event>>,
    pub(crate) login: Mutex<Option<Result<Step, Refusal>>>,
    /// The log has covered what the connection waits for.
    pub(crate) covered: AtomicBool,
    pub(crate) info: ConnectionInfo,
    /// When it was taken in.
    pub(crate) since: Timestamp,
    pub(crate) owner: Mutex<Owner>,
    /// What it has published; written by itself only, once per batch.
    pub(crate) published: AtomicU64,
    /// What it has sent where.
    pub(crate) tallies: Tallies,
    /// Its subscriptions. Held into nothing: what they are attached to is looked at after.
    pub(crate) subscriptions: Mutex<Subscriptions>,
}

impl Mailbox {
    pub(crate) fn post(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() < EVENTS_MAX {
            events.push_back(event);
        }
        drop(events);
        self.outbox.wake_owner();
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.covered.store(true, Ordering::Release);
        self.outbox.wake_owner();
    }
}
