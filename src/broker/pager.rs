//! The pager: reads from the log what queues have paged out. It has a thread of its own, for a disk takes its time; in a
//! simulation whoever asks reads at once.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use sabir_model::clock::Timestamp;
use sabir_model::ids::{ConnectionId, Sequence, SubscriptionKey};
use sabir_model::message::{Body, Facts, Message};
use sabir_store::{Payload, PutMeta, ReadError};

use crate::bodies::stored;
use crate::broker::Shared;
use crate::client_session::ClientSession;
use crate::paged::{Range, ranges};
use crate::queue::{Queue, QueueCore, Role};
use crate::ready::Key;
use crate::stats::add;
use crate::window::PAGE_MESSAGES;
use crate::work::{Work, finish};

/// Queues whose heads are brought in per tick, while nobody asks for them.
const WARMED_PER_TICK: usize = 32;
/// After what time what has expired is looked for again where the log could not be read.
const SWEEP_AGAIN: Duration = Duration::from_secs(10);

/// Something to be read.
pub(crate) enum Job {
    /// The messages of a page come in.
    Page { queue: Arc<Queue>, from: Key },
    /// A browser sees its next messages.
    Browse { queue: Arc<Queue>, connection: ConnectionId, subscription: SubscriptionKey },
    /// What has expired is dropped.
    Sweep(Sweep),
}

/// A walk through all that a queue has paged out, a part at a time.
pub(crate) struct Sweep {
    queue: Arc<Queue>,
    at: Key,
    /// When the first of those that were seen and stay expires.
    next: u64,
}

impl Sweep {
    pub(crate) fn new(queue: &Arc<Queue>) -> Self {
        Self { queue: Arc::clone(queue), at: Key::FIRST, next: u64::MAX }
    }
}

/// Jobs that wait for the thread. A queue has one page and one walk under way at most, and a browser one part, so there
/// are no more than that.
#[derive(Default)]
pub(crate) struct Jobs {
    waiting: Mutex<VecDeque<Job>>,
    arrived: Condvar,
    over: AtomicBool,
}

impl Jobs {
    fn put(&self, job: Job) {
        self.waiting.lock().push_back(job);
        self.arrived.notify_one();
    }

    /// The next job; nothing once the broker has gone.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        loop {
            if self.over.load(Ordering::Acquire) {
                return None;
            }
            if let Some(job) = waiting.pop_front() {
                return Some(job);
            }
            self.arrived.wait(&mut waiting);
        }
    }
}

/// Where jobs go.
pub(crate) struct Pager {
    /// Absent in a simulation.
    jobs: Option<Arc<Jobs>>,
    /// Queues to be looked at again with the next tick.
    later: Mutex<Vec<Arc<Queue>>>,
    /// Queues of whose messages none has been read since the start.
    cold: Mutex<Vec<Weak<Queue>>>,
}

impl Pager {
    pub(crate) fn new(threaded: bool) -> Self {
        Self { jobs: threaded.then(Arc::default), later: Mutex::default(), cold: Mutex::default() }
    }

    /// Notes a queue whose messages are all in the log.
    pub(crate) fn is_cold(&self, queue: &Arc<Queue>) {
        self.cold.lock().push(Arc::downgrade(queue));
    }

    /// Has a queue looked at again with the next tick.
    pub(crate) fn look_again(&self, queue: &Arc<Queue>) {
        self.later.lock().push(Arc::clone(queue));
    }

    /// Sees to the jobs of a batch.
    pub(crate) fn take(&self, shared: &Shared, work: &mut Work) {
        for job in std::mem::take(&mut work.jobs) {
            match &self.jobs {
                Some(jobs) => jobs.put(job),
                None => run(shared, job, work),
            }
        }
    }

    /// Looks again where something was in the way, and brings in the heads of some queues that nobody has looked at, so
    /// that their first consumers need not wait.
    pub(crate) fn tick(&self, shared: &Shared, work: &mut Work) {
        for queue in std::mem::take(&mut *self.later.lock()) {
            queue.lock().core.dispatch(&queue, work);
        }
        if shared.memory() > shared.limits.memory_bytes_max / 4 {
            return;
        }
        let some = {
            let mut cold = self.cold.lock();
            let from = cold.len().saturating_sub(WARMED_PER_TICK);
            cold.split_off(from)
        };
        for queue in some.iter().filter_map(Weak::upgrade) {
            let mut held = queue.lock();
            if held.core.ready.resident() == 0
                && let Some(first) = held.core.ready.paged.first()
            {
                held.core.want_page(&queue, first, work);
            }
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        if let Some(jobs) = &self.jobs {
            // Under the lock, so that it is not missed by a thread that is about to wait.
            let waiting = jobs.waiting.lock();
            jobs.over.store(true, Ordering::Release);
            jobs.arrived.notify_all();
            drop(waiting);
        }
    }
}

/// Starts the thread, if there is to be one. It ends when the broker does.
pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let Some(jobs) = shared.pager.jobs.as_ref().map(Arc::clone) else { return Ok(()) };
    let shared = Arc::downgrade(shared);
    let body = move || {
        while let Some(job) = jobs.next() {
            let Some(shared) = shared.upgrade() else { return };
            let mut work = Work::new(shared.now());
            run(&shared, job, &mut work);
            while finish(&shared, &mut work) {}
        }
    };
    std::thread::Builder::new().name("sabir-pager".to_owned()).spawn(body).map(drop)
}

fn run(shared: &Shared, job: Job, work: &mut Work) {
    match job {
        Job::Page { queue, from } => page(shared, &queue, from, work),
        Job::Browse { queue, connection, subscription } => {
            crate::browse::fill(shared, &queue, connection, subscription, work);
        }
        Job::Sweep(sweep) => self::sweep(shared, sweep, work),
    }
}

/// Brings in the page that begins at `from`, and hands out what consumers may have of it.
fn page(shared: &Shared, queue: &Arc<Queue>, from: Key, work: &mut Work) {
    let mut wanted = queue.lock().core.ready.paged.ranges_from(from, PAGE_MESSAGES);
    let read = read(shared, queue, &wanted, queue.window.page_bytes());
    clip(&mut wanted, read.upto);
    let session = session_of(shared, queue);
    let state = session.as_ref().map(|session| session.state());
    let host = session.as_ref().map(|_| shared.host_of(queue));
    let topics = host.as_ref().map(|host| host.topics.read());
    let mut held = queue.lock();
    held.core.fetching = false;
    if queue.deleted.load(Ordering::Acquire) || read.failed == Some(Failed::Over) {
        return;
    }
    if read.failed == Some(Failed::NotNow) {
        return shared.pager.look_again(queue);
    }
    let grant_of = |message: &Message| state.as_ref()?.bindings.grant_of(topics.as_ref()?, message);
    let lost = held.core.page_in(queue, from.rank, &wanted, read.found, &grant_of, work);
    drop((topics, state));
    if lost > 0 {
        add(&shared.counters.unreadable, lost);
        tracing::error!(queue = %queue.title(), lost, "messages cannot be read from the log and are passed over");
    }
    held.core.tidy_spilled(shared, queue.id);
    held.core.dispatch(queue, work);
}

/// The client session whose backlog a queue is.
fn session_of(shared: &Shared, queue: &Queue) -> Option<Arc<ClientSession>> {
    let Role::Backlog { client_id, .. } = &queue.role else { return None };
    let host = shared.host_of(queue);
    let sessions = host.sessions.lock();
    sessions.get(client_id).map(Arc::clone)
}

/// Why a part could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Some of it is damaged; the rest is there.
    Damaged,
    /// The disk is too full for what was to be written first, or the file cannot be opened or read at the moment.
    NotNow,
    /// The log is closed or has failed.
    Over,
}

/// What was read.
pub(crate) struct Read {
    /// In ascending order.
    pub(crate) found: Vec<(Sequence, Message)>,
    /// Up to which number all was looked at.
    pub(crate) upto: Sequence,
    pub(crate) failed: Option<Failed>,
}

/// Reads messages of a queue, of about `bytes` in all.
pub(crate) fn read(shared: &Shared, queue: &Queue, wanted: &[Range], bytes: usize) -> Read {
    let mut found = Vec::new();
    let mut left = bytes;
    let mut upto = wanted.last().map_or(Sequence(0), |(_, last)| *last);
    let failed = scan(shared, queue, wanted, |sequence, _, head, body| {
        if let Some(message) = decode(head, body) {
            left = left.saturating_sub(message.memory());
            found.push((sequence, message));
        }
        if left > 0 {
            return ControlFlow::Continue(());
        }
        upto = sequence;
        ControlFlow::Break(())
    });
    Read { found, upto, failed }
}

/// Shows `each` what the log has of messages.
pub(crate) fn scan(
    shared: &Shared,
    queue: &Queue,
    wanted: &[Range],
    mut each: impl FnMut(Sequence, PutMeta, &[u8], Payload<'_>) -> ControlFlow<()>,
) -> Option<Failed> {
    match shared.store.read(queue.id, &mut wanted.iter().copied(), &mut each) {
        Ok(()) => None,
        Err(ReadError::NotWritten) => Some(Failed::NotNow),
        Err(error @ ReadError::Damaged { .. }) => {
            tracing::error!(queue = %queue.title(), %error, "the log is damaged");
            Some(Failed::Damaged)
        }
        Err(error) => {
            tracing::warn!(queue = %queue.title(), %error, "the log cannot be read");
            // For want of file descriptors, say.
            let passes = matches!(error, ReadError::Io { .. });
            Some(if passes { Failed::NotNow } else { Failed::Over })
        }
    }
}

/// A message as the log has it.
pub(crate) fn decode(head: &[u8], body: Payload<'_>) -> Option<Message> {
    let (facts, fields) = Facts::decode(head)?;
    let body = match body {
        Payload::Inline(body) if body.len() >= sabir_model::chunks::REFERENCE_BYTES_MIN => {
            Body::Shared(Bytes::copy_from_slice(body))
        }
        Payload::Inline(body) => Body::Borrowed(body),
        Payload::Blob(blob) => Body::Stored(stored(blob)),
    };
    Some(Message::new(facts, &[fields], body))
}

/// Leaves out what is behind a number.
fn clip(wanted: &mut Vec<Range>, upto: Sequence) {
    wanted.retain(|(first, _)| *first <= upto);
    if let Some((_, last)) = wanted.last_mut() {
        *last = (*last).min(upto);
    }
}

/// Drops what has expired among the next of those that are paged out, and leaves the rest of the walk for later.
fn sweep(shared: &Shared, mut sweep: Sweep, work: &mut Work) {
    let queue = Arc::clone(&sweep.queue);
    let mut wanted = {
        let mut held = queue.lock();
        if sweep.at == Key::FIRST {
            // What is paged out from now on notes itself.
            held.core.ready.paged.expires = u64::MAX;
        }
        held.core.ready.paged.ranges_from(sweep.at, PAGE_MESSAGES)
    };
    let now = work.now.wall;
    let mut over: Vec<(Sequence, Message)> = Vec::new();
    // What has expired comes into memory, so no more than a page of it at a time.
    let mut left = queue.window.page_bytes();
    let mut upto = wanted.last().map_or(Sequence(0), |(_, last)| *last);
    let failed = scan(shared, &queue, &wanted, |sequence, meta, head, body| {
        let expires = Timestamp(meta.expires_ms);
        if !expires.has_passed(now) {
            if expires != Timestamp::NEVER {
                sweep.next = sweep.next.min(expires.0);
            }
        } else if let Some(message) = decode(head, body) {
            left = left.saturating_sub(message.memory());
            over.push((sequence, message));
        }
        if left > 0 {
            return ControlFlow::Continue(());
        }
        upto = sequence;
        ControlFlow::Break(())
    });
    clip(&mut wanted, upto);
    let session = session_of(shared, &queue);
    let state = session.as_ref().map(|session| session.state());
    let host = session.as_ref().map(|_| shared.host_of(&queue));
    let topics = host.as_ref().map(|host| host.topics.read());
    let mut held = queue.lock();
    let core = &mut held.core;
    if queue.deleted.load(Ordering::Acquire) || failed == Some(Failed::Over) {
        return;
    }
    if !over.is_empty() {
        let numbers = ranges(over.iter().map(|(sequence, _)| sequence.0));
        // Most go as they come; a handover that had begun is brought to its end.
        let grant_of = |message: &Message| state.as_ref()?.bindings.grant_of(topics.as_ref()?, message);
        core.page_in(&queue, sweep.at.rank, &numbers, over, &grant_of, work);
        core.expire(&queue, work);
    }
    if failed == Some(Failed::NotNow) {
        // What was not seen may be due: the walk begins anew before long.
        return end_sweep(&queue, core, sweep.next.min(now.after(SWEEP_AGAIN).0));
    }
    let next = match wanted.last() {
        Some((_, last)) => Some(Key { rank: sweep.at.rank, sequence: *last }.next()),
        None => sweep
            .at
            .rank
            .checked_add(1)
            .filter(|rank| core.ready.paged.ranks().contains(rank))
            .map(|rank| Key { rank, ..Key::FIRST }),
    };
    match next {
        Some(at) => work.jobs.push(Job::Sweep(Sweep { at, ..sweep })),
        None => end_sweep(&queue, core, sweep.next),
    }
}

/// A walk is over; the next one is due when the first of what it has left expires.
fn end_sweep(queue: &Queue, core: &mut QueueCore, next: u64) {
    core.sweeping = false;
    let paged = &mut core.ready.paged;
    paged.expires = paged.expires.min(next);
    queue.next_expiry.fetch_min(paged.expires, Ordering::AcqRel);
}
