//! News for a connection from others: answers that took time, the log's progress, the end of a subscription.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sabir_model::access::Step;
use sabir_model::error::Refusal;
use sabir_model::event::Event;
use sabir_model::ids::ConnectionId;
use sabir_store::Wake;

use crate::outbox::Outbox;

/// Events that may wait for one connection.
const EVENTS_MAX: usize = 100_000;

/// Where others leave news for a connection.
pub(crate) struct Mailbox {
    pub(crate) id: ConnectionId,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) events: Mutex<VecDeque<Event>>,
    pub(crate) login: Mutex<Option<Result<Step, Refusal>>>,
    /// The log has covered what the connection waits for.
    pub(crate) covered: AtomicBool,
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
