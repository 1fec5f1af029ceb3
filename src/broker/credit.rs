//! Consumers of a queue and the credit they have: how many deliveries may be unsettled at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use parking_lot::Mutex;
use sabir_model::delivery::Grant;
use sabir_model::ids::{ConnectionId, QueueId, SubscriptionKey};
use sabir_model::rare::Rare;
use sabir_model::selector::Selector;
use sabir_model::settlement::SettleMode;

use crate::outbox::Outbox;
use crate::queue::Queue;
use crate::ready::Key;
use crate::work::Work;

/// Credit of one subscription, shared by its consumers on several queues.
#[derive(Debug)]
pub(crate) struct Credit {
    available: AtomicI64,
    /// All there is.
    limit: AtomicI64,
    /// Whether consumers on several queues share it.
    pub(crate) shared: bool,
    line: Mutex<Rare<Line>>,
    /// Settlements on any of the queues.
    settled: AtomicU64,
    /// Queues that found the protocol's own window full, if there are any.
    barred: AtomicBool,
    waiting_for_window: Mutex<Rare<Vec<Weak<Queue>>>>,
}

/// Queues that have something for a subscription whose credit is spent. They are served in turn, so that none with a
/// backlog keeps the others waiting.
#[derive(Debug, Default)]
pub(crate) struct Line {
    queues: VecDeque<(QueueId, Weak<Queue>)>,
    known: HashSet<QueueId, RandomState>,
}

impl Credit {
    pub(crate) fn new(limit: u32, shared: bool) -> Self {
        Self {
            available: AtomicI64::new(i64::from(limit)),
            limit: AtomicI64::new(i64::from(limit)),
            shared,
            line: Mutex::default(),
            settled: AtomicU64::new(0),
            barred: AtomicBool::new(false),
            waiting_for_window: Mutex::default(),
        }
    }

    /// Settlements so far, for [`Credit::wait_for_window`].
    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::SeqCst)
    }

    /// Notes a queue that found the protocol's own window full, after so many settlements: the next one, on any of the
    /// queues, may open it. False if that has been already.
    pub(crate) fn wait_for_window(&self, queue: &Arc<Queue>, settled: u64) -> bool {
        if !self.shared {
            return true;
        }
        self.waiting_for_window.lock().make().push(Arc::downgrade(queue));
        self.barred.store(true, Ordering::SeqCst);
        self.settled() == settled
    }

    /// A settlement may have opened the window: those who wait for it try again.
    pub(crate) fn open_window(&self, connection: ConnectionId, work: &mut Work) {
        if !self.shared {
            return;
        }
        self.settled.fetch_add(1, Ordering::SeqCst);
        if self.barred.load(Ordering::SeqCst) && self.barred.swap(false, Ordering::SeqCst) {
            let waiting = self.waiting_for_window.lock().take();
            work.windows.extend(waiting.iter().filter_map(Weak::upgrade).map(|queue| (connection, queue)));
        }
    }

    /// Puts a queue in line, unless it is there.
    pub(crate) fn wait(&self, queue: &Arc<Queue>) {
        let mut line = self.line.lock();
        let line = line.make();
        if line.known.insert(queue.id) {
            line.queues.push_back((queue.id, Arc::downgrade(queue)));
        }
    }

    /// Takes the queue out of the line whose turn it is.
    pub(crate) fn next(&self) -> Option<Arc<Queue>> {
        let mut rare = self.line.lock();
        let line = rare.get_mut()?;
        while let Some((id, queue)) = line.queues.pop_front() {
            line.known.remove(&id);
            if let Some(queue) = queue.upgrade() {
                return Some(queue);
            }
        }
        rare.clear();
        None
    }

    pub(crate) fn take(&self) -> bool {
        self.available
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| (left > 0).then_some(left - 1))
            .is_ok()
    }

    /// Gives one back. Where it had run out and others share it, the queue whose turn it is goes on.
    pub(crate) fn give(&self, work: &mut Work) {
        if self.available.fetch_add(1, Ordering::AcqRel) <= 0
            && self.shared
            && let Some(next) = self.next()
        {
            work.resume.push(next);
            work.yielded = true;
        }
    }

    /// Makes it so much. What is out stays out, so less than nothing may be available for a while.
    pub(crate) fn resize(&self, limit: u32) {
        let limit = i64::from(limit);
        let before = self.limit.swap(limit, Ordering::AcqRel);
        self.available.fetch_add(limit - before, Ordering::AcqRel);
    }

    /// How many deliveries may be unsettled at a time.
    pub(crate) fn limit(&self) -> u32 {
        u32::try_from(self.limit.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// How many are.
    pub(crate) fn used(&self) -> u64 {
        let left = self.available.load(Ordering::Acquire);
        u64::try_from(self.limit.load(Ordering::Acquire) - left).unwrap_or(0)
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.available.load(Ordering::Acquire) <= 0
    }
}

/// What a consumer waits for before it is offered anything again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    No,
    /// Its outbox had no room; it will say when it has.
    ForRoom,
    /// The protocol's own window was full; a settlement opens it.
    ForWindow,
}

/// One consumer of one queue.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) subscription: SubscriptionKey,
    pub(crate) credit: Arc<Credit>,
    pub(crate) settle: SettleMode,
    pub(crate) selector: Option<Arc<Selector>>,
    pub(crate) priority: i8,
    /// The greeting is out; deliveries may follow.
    pub(crate) granted: bool,
    pub(crate) waits: Waits,
    /// Nothing at or before this place matches its selector.
    pub(crate) scanned: Key,
    /// For a client session that takes from a group or a plain queue: what its subscription grants.
    pub(crate) grant: Option<Arc<Grant>>,
    /// Deliveries handed to it.
    pub(crate) delivered: u64,
}

impl Consumer {
    pub(crate) fn new(
        outbox: Arc<Outbox>,
        subscription: SubscriptionKey,
        credit: Arc<Credit>,
        settle: SettleMode,
        selector: Option<Arc<Selector>>,
        priority: i8,
    ) -> Self {
        Self {
            outbox,
            subscription,
            credit,
            settle,
            selector,
            priority,
            granted: false,
            waits: Waits::No,
            scanned: Key::FIRST,
            grant: None,
            delivered: 0,
        }
    }

    pub(crate) fn is_available(&self) -> bool {
        self.granted && self.waits == Waits::No && !self.credit.is_spent()
    }
}
