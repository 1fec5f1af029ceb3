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
use sabir_model::rare::Rare;
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
    pub(crate) client_id: Option<Arc<str>>,
}

/// What others have left.
#[derive(Default)]
pub(crate) struct News {
    /// How a login has gone on. It comes before the rest.
    pub(crate) login: Option<Result<Step, Refusal>>,
    events: VecDeque<Event>,
}

/// Where others leave news for a connection, and what they may know of it.
pub(crate) struct Mailbox {
    pub(crate) id: ConnectionId,
    pub(crate) outbox: Arc<Outbox>,
    news: Mutex<Rare<News>>,
    /// There may be news: it is asked for at every turn, and there is none at most.
    has_news: AtomicBool,
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
    pub(crate) fn new(
        id: ConnectionId,
        outbox: Arc<Outbox>,
        info: ConnectionInfo,
        since: Timestamp,
        owner: Owner,
    ) -> Self {
        Self {
            id,
            outbox,
            news: Mutex::default(),
            has_news: AtomicBool::new(false),
            covered: AtomicBool::new(false),
            info,
            since,
            owner: Mutex::new(owner),
            published: AtomicU64::new(0),
            tallies: Mutex::default(),
            subscriptions: Mutex::default(),
        }
    }

    pub(crate) fn post(&self, event: Event) {
        let mut news = self.news.lock();
        let events = &mut news.make().events;
        if events.len() < EVENTS_MAX {
            events.push_back(event);
        }
        self.has_news.store(true, Ordering::Release);
        drop(news);
        self.outbox.wake_owner();
    }

    /// Leaves what has come of a login.
    pub(crate) fn tell_login(&self, result: Result<Step, Refusal>) {
        let mut news = self.news.lock();
        news.make().login = Some(result);
        self.has_news.store(true, Ordering::Release);
        drop(news);
        self.outbox.wake_owner();
    }

    /// What has come of a login, if anything has.
    pub(crate) fn take_login(&self) -> Option<Result<Step, Refusal>> {
        if !self.has_news.load(Ordering::Acquire) {
            return None;
        }
        self.news.lock().get_mut()?.login.take()
    }

    /// The oldest event.
    pub(crate) fn next_event(&self) -> Option<Event> {
        if !self.has_news.load(Ordering::Acquire) {
            return None;
        }
        let mut news = self.news.lock();
        let event = news.get_mut().and_then(|news| news.events.pop_front());
        if news.get().is_none_or(|news| news.login.is_none() && news.events.is_empty()) {
            news.clear();
            // Under the lock: what is left after this says so again.
            self.has_news.store(false, Ordering::Release);
        }
        event
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.covered.store(true, Ordering::Release);
        self.outbox.wake_owner();
    }
}
