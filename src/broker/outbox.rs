//! The outbox: where deliveries for one connection are encoded and from where they are written, by whoever has them.
//!
//! A delivery is encoded under this lock straight into the outgoing chunks, so it needs no wake-up, no event object and
//! no second copy. Whoever filled an outbox flushes it at the end of its batch if the socket takes the bytes; else the
//! owner does when the socket is writable again. Lock order: after queues and the journal, never held into the core.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use sabir_model::chunks::{Chunks, WINDOW_BYTES};
use sabir_model::clock::Instant;
use sabir_model::delivery::{Admission, Delivery, Grant};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::ConnectionId;
use sabir_model::rare::Rare;
use sabir_model::session::{Egress, Now};

use crate::budget::{OUTBOX_BYTES_FLOOR, change};
pub(crate) use crate::handing::{Closed, Flushed, Handed, Mark, Receivers};
use crate::handing::{count_live, has_gone, size};
use crate::lock_order::{Rank, Ranked};
use crate::policy::{Policy, SlowConsumer};
use crate::queue::Queue;
use crate::stats::Counters;
use crate::waiting::WaitingList;
use crate::work::Work;
use crate::writer::{Bounds, Writer};

/// Slices handed to one write.
const SLICES_MAX: usize = 64;
/// Live messages that may wait while a batch's replies are still to come. That is no slowness of the subscriber's, so its
/// policy does not apply yet.
const GATED_MAX: usize = 65_536;

pub(crate) struct State {
    pub(crate) egress: Option<Box<dyn Egress>>,
    writer: Option<Box<dyn Writer>>,
    pub(crate) chunks: Chunks,
    /// Bytes ever appended and ever written.
    pub(crate) appended: u64,
    pub(crate) written: u64,
    /// Deliveries ever encoded.
    pub(crate) delivered: u64,
    /// Most memory of a delivery among those that wait: one alone may exceed the bounds.
    largest: u32,
    marks: Rare<VecDeque<(u64, Mark)>>,
    pub(crate) waiting: Rare<WaitingList>,
    /// Live deliveries must not overtake the greeting of the batch in progress.
    gated: bool,
    /// The socket took no more; the owner is waiting for it.
    blocked: bool,
    /// A window of a body that is not in memory is on its way.
    pub(crate) loading: bool,
    progress: Instant,
    pub(crate) failed: Option<Box<Refusal>>,
    pub(crate) broken: bool,
}

impl State {
    fn mark(&mut self, mark: Mark) {
        let at = self.appended;
        self.marks.make().push_back((at, mark));
    }

    fn has_waiting(&self) -> bool {
        self.waiting.get().is_some_and(|waiting| !waiting.is_empty())
    }

    /// Counts what a delivery has added to what waited before.
    fn count(&mut self, before: (usize, usize)) {
        let now = size(&self.chunks);
        self.appended += (now.0 - before.0) as u64;
        let memory = u32::try_from(now.1.saturating_sub(before.1)).unwrap_or(u32::MAX);
        self.largest = self.largest.max(memory);
    }
}

/// One connection's outgoing side, shared with everybody who delivers to it.
pub(crate) struct Outbox {
    connection: ConnectionId,
    bounds: Arc<Bounds>,
    state: Mutex<State>,
    /// Somebody has put it on a list of outboxes to flush.
    queued: AtomicBool,
    /// So much waits that nothing should be asked for that is answered.
    full: AtomicBool,
    /// Its owner does not read, and must if there is something to acknowledge.
    held_back: AtomicBool,
    /// Bytes that are accounted for. Changed with the state locked; here it fills a gap.
    accounted: AtomicU32,
    last_written: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Outbox {
    pub(crate) fn new(
        connection: ConnectionId,
        bounds: Arc<Bounds>,
        now: Instant,
        egress: Box<dyn Egress>,
        writer: Box<dyn Writer>,
    ) -> Self {
        Self {
            connection,
            bounds,
            state: Mutex::new(State {
                egress: Some(egress),
                writer: Some(writer),
                chunks: Chunks::new(),
                appended: 0,
                written: 0,
                delivered: 0,
                largest: 0,
                marks: Rare::new(),
                waiting: Rare::new(),
                gated: false,
                blocked: false,
                loading: false,
                progress: now,
                failed: None,
                broken: false,
            }),
            queued: AtomicBool::new(false),
            full: AtomicBool::new(false),
            held_back: AtomicBool::new(false),
            accounted: AtomicU32::new(0),
            last_written: AtomicU64::new(now.0),
            waker: Mutex::new(None),
        }
    }

    pub(crate) fn state(&self) -> Ranked<MutexGuard<'_, State>> {
        Ranked::take(Rank::Outbox, || self.state.lock())
    }

    pub(crate) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// True for the first caller since the last flush: that one must see to the flush.
    pub(crate) fn enlist(&self) -> bool {
        !self.queued.load(Ordering::Relaxed) && !self.queued.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn set_waker(&self, waker: &Waker) {
        let mut slot = self.waker.lock();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    pub(crate) fn wake_owner(&self) {
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether so much waits that nothing should be asked for that is answered.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Its owner does not read for the moment, or does again.
    pub(crate) fn hold_back(&self, held_back: bool) {
        // With the state locked, so that who hands something over sees it or is seen.
        let _state = self.state();
        self.held_back.store(held_back, Ordering::Relaxed);
    }

    /// Accounts for what waits, as far as it is worth it.
    fn account(&self, state: &mut State) {
        self.full.store(self.bounds.are_reached(state.chunks.memory()), Ordering::Release);
        let chunks = state.chunks.memory();
        let chunks = if chunks < OUTBOX_BYTES_FLOOR { 0 } else { chunks };
        let bytes = chunks as u64 + state.waiting.get().map_or(0, WaitingList::charged);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = self.accounted.load(Ordering::Relaxed);
        if bytes != before {
            self.accounted.store(bytes, Ordering::Relaxed);
            let more = i64::from(bytes) - i64::from(before);
            change(&self.bounds.budget.outboxes, more);
        }
    }

    pub(crate) fn last_written(&self) -> Instant {
        Instant(self.last_written.load(Ordering::Relaxed))
    }

    /// Encodes a delivery from a queue. Without room it remembers to let the queue know.
    pub(crate) fn deliver(
        &self,
        now: Now,
        delivery: &Delivery<'_>,
        settles: bool,
        queue: &Arc<Queue>,
    ) -> Handed {
        let mut state = self.state();
        let state = &mut *state;
        if self.bounds.are_reached(state.chunks.memory()) {
            state.mark(Mark::Resume(Arc::downgrade(queue)));
            return Handed::NoRoom;
        }
        let Some(egress) = state.egress.as_mut() else { return Handed::NoCredit };
        let before = size(&state.chunks);
        let admission = egress.deliver(now.wall, delivery, None, &mut state.chunks);
        state.count(before);
        match admission {
            Admission::Sent | Admission::Noted { .. } | Admission::Done => {
                state.delivered += 1;
                let settles = settles || admission == Admission::Done;
                if settles && let Some(token) = delivery.token {
                    state.mark(Mark::Settle(token));
                }
                if self.held_back.load(Ordering::Relaxed) {
                    self.wake_owner();
                }
                let noted = match admission {
                    Admission::Noted { progress, kept } => Some((progress, kept)),
                    _ => None,
                };
                let done = admission == Admission::Done;
                Handed::Sent { ends_at: state.appended, noted, done }
            }
            Admission::NoCredit => Handed::NoCredit,
            Admission::Undeliverable(reason) => Handed::Undeliverable(reason),
        }
    }

    /// Encodes a live delivery of a topic; where there is no room it waits, within the policy's bounds.
    pub(crate) fn deliver_live(
        &self,
        delivery: &Delivery<'_>,
        grant: Option<&Arc<Grant>>,
        receivers: Receivers,
        policy: &Policy,
        counters: &Counters,
        work: &mut Work,
    ) {
        let now = work.now;
        let mut state = self.state();
        let state = &mut *state;
        if self.bounds.are_reached(state.chunks.memory()) && !(state.gated || state.blocked || state.broken) {
            // The publisher's batch is not over, but only what the socket refuses makes a subscriber slow.
            self.write_some(now, state, counters);
            if state.blocked || state.broken {
                self.wake_owner();
            }
        }
        if state.gated || state.has_waiting() || self.bounds.are_reached(state.chunks.memory()) {
            if state.egress.is_none() || state.failed.is_some() {
                return;
            }
            let most =
                if state.gated { GATED_MAX.max(policy.pending_max) } else { policy.pending_max.max(1) };
            let waiting = state.waiting.make();
            let too_much = |bytes| self.bounds.budget.is_too_much_for_a_subscriber(bytes);
            while waiting.len() >= most || (!waiting.is_empty() && too_much(waiting.charged())) {
                work.discarded += 1;
                match policy.slow_consumer {
                    SlowConsumer::DropNewest => return,
                    SlowConsumer::DropOldest => drop(waiting.pop()),
                    SlowConsumer::Disconnect => {
                        state.waiting.clear();
                        state.failed = Some(Box::new(Refusal::new(
                            Code::SlowConsumer,
                            "the subscriber reads too slowly and its topic's policy is to disconnect it",
                        )));
                        self.wake_owner();
                        return;
                    }
                }
            }
            waiting.push(delivery.subscription, delivery.message, grant.cloned());
            self.account(state);
            return;
        }
        let Some(egress) = state.egress.as_mut() else { return };
        let before = size(&state.chunks);
        let cache = match receivers {
            Receivers::One => None,
            Receivers::Several => Some(&mut work.cache),
        };
        let admission = egress.deliver(now.wall, delivery, cache, &mut state.chunks);
        state.count(before);
        // It settles when its bytes are in the outbox. Counted in the batch: the counters are everybody's.
        match has_gone(admission) {
            true => (state.delivered, work.dispatched) = (state.delivered + 1, work.dispatched + 1),
            false => work.discarded += 1,
        }
    }

    /// Encodes as many waiting live deliveries as there is room for.
    fn refill(&self, now: Now, state: &mut State, counters: &Counters) {
        if state.gated {
            return;
        }
        while !self.bounds.are_reached(state.chunks.memory())
            && let Some(waiting) = state.waiting.get_mut().and_then(WaitingList::pop)
        {
            let Some(egress) = state.egress.as_mut() else { return };
            if waiting.message.facts().expires.has_passed(now.wall) {
                counters.expired.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let delivery = Delivery {
                message: &waiting.message,
                subscription: waiting.subscription,
                queue: None,
                token: None,
                attempt: 1,
                redelivered: false,
                browsed: false,
                grant: waiting.grant.as_deref(),
                sequence: None,
                progress: 0,
            };
            let before = size(&state.chunks);
            let admission = egress.deliver(now.wall, &delivery, None, &mut state.chunks);
            state.count(before);
            state.delivered += u64::from(has_gone(admission));
            count_live(admission, counters);
        }
        if !state.has_waiting() {
            state.waiting.clear();
        }
    }

    /// Holds live deliveries back until the batch's own replies are in.
    pub(crate) fn gate(&self) {
        self.state().gated = true;
    }

    /// Appends the batch's own replies, and lets live deliveries pass again.
    pub(crate) fn append_replies(&self, now: Now, replies: &mut Chunks, counters: &Counters) {
        let mut state = self.state();
        let state = &mut *state;
        if state.egress.is_some() {
            state.appended += replies.len() as u64;
            state.chunks.append(replies);
        } else {
            replies.clear();
        }
        if state.gated {
            state.gated = false;
            self.refill(now, state, counters);
        }
    }

    /// Encodes a live delivery that its owner has time for: without room it is not taken, and the owner is woken when there
    /// is some.
    pub(crate) fn deliver_if_room(&self, now: Now, delivery: &Delivery<'_>, counters: &Counters) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        if state.gated || state.has_waiting() || self.bounds.are_reached(state.chunks.memory()) {
            state.mark(Mark::Owner);
            return false;
        }
        let Some(egress) = state.egress.as_mut() else { return true };
        let before = size(&state.chunks);
        let admission = egress.deliver(now.wall, delivery, None, &mut state.chunks);
        state.count(before);
        count_live(admission, counters);
        true
    }

    /// Marks the end of what a queue has handed over for the moment, so that it goes on when that is written.
    pub(crate) fn resume_when_written(&self, queue: &Arc<Queue>) {
        let mut state = self.state();
        state.mark(Mark::Resume(Arc::downgrade(queue)));
    }

    /// Marks the end of what waits, so that the owner is woken when that is written.
    pub(crate) fn resume_owner_when_written(&self) {
        let mut state = self.state();
        state.mark(Mark::Owner);
    }

    /// Writes what the socket takes at once. Marks that are due go to `due`.
    pub(crate) fn flush(&self, now: Now, due: &mut Vec<Mark>, counters: &Counters) -> Flushed {
        let mut state = self.state();
        // Cleared under the lock: whoever appends after this flush enlists the outbox again.
        self.queued.store(false, Ordering::Release);
        let state = &mut *state;
        if state.blocked {
            self.account(state);
            return Flushed::Blocked;
        }
        self.write_some(now, state, counters);
        Self::due(state, due);
        self.account(state);
        if state.blocked || state.broken {
            self.wake_owner();
            return Flushed::Blocked;
        }
        if state.chunks.waits() {
            // Only the owner waits for a disk.
            if !state.loading {
                self.wake_owner();
            }
            return Flushed::Blocked;
        }
        Flushed::Empty
    }

    /// Writes until everything is out or the socket takes no more.
    fn write_some(&self, now: Now, state: &mut State, counters: &Counters) {
        loop {
            if state.chunks.is_empty() {
                self.refill(now, state, counters);
            }
            if state.chunks.is_empty() {
                break;
            }
            let Some(writer) = state.writer.as_mut() else { break };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = state.chunks.slices(&mut slices);
            if count == 0 {
                break;
            }
            match writer.try_write(slices.get(..count).unwrap_or_default()) {
                Ok(0) => {
                    state.broken = true;
                    break;
                }
                Ok(count) => self.wrote(now, state, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.blocked = true;
                    // A stall is measured from the moment the socket stops taking bytes.
                    state.progress = now.instant;
                    break;
                }
                Err(_) => {
                    state.broken = true;
                    break;
                }
            }
        }
    }

    /// Writes as the owner, registering for the socket's readiness.
    pub(crate) fn poll_flush(
        &self,
        cx: &mut Context<'_>,
        now: Now,
        due: &mut Vec<Mark>,
        counters: &Counters,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        self.queued.store(false, Ordering::Release);
        let state = &mut *state;
        let was_blocked = std::mem::replace(&mut state.blocked, false);
        let result = loop {
            if state.broken {
                break Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if state.chunks.is_empty() {
                self.refill(now, state, counters);
            }
            if state.chunks.is_empty() {
                break Poll::Ready(Ok(()));
            }
            let Some(writer) = state.writer.as_mut() else {
                break Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = state.chunks.slices(&mut slices);
            if count == 0 {
                // It is on its way, and who brings it wakes the owner.
                break Poll::Pending;
            }
            match writer.poll_write(cx, slices.get(..count).unwrap_or_default()) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.wrote(now, state, count),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => {
                    state.broken = true;
                    break Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    state.blocked = true;
                    if !was_blocked {
                        state.progress = now.instant;
                    }
                    break Poll::Pending;
                }
            }
        };
        Self::due(state, due);
        self.account(state);
        result
    }

    fn wrote(&self, now: Now, state: &mut State, count: usize) {
        state.chunks.consume(count);
        if state.chunks.is_empty() {
            state.largest = 0;
        }
        state.written += count as u64;
        state.progress = now.instant;
        self.last_written.store(now.instant.0, Ordering::Relaxed);
    }

    fn due(state: &mut State, due: &mut Vec<Mark>) {
        let Some(marks) = state.marks.get_mut() else { return };
        let count = marks.iter().take_while(|(at, _)| *at <= state.written).count();
        due.extend(marks.drain(..count).map(|(_, mark)| mark));
        if marks.is_empty() {
            // What is drained holds nothing, for it may stay so for long.
            state.marks.clear();
        }
    }

    /// Asks the owner to close the connection.
    pub(crate) fn fail(&self, refusal: Refusal) {
        self.state().failed.get_or_insert_with(|| Box::new(refusal));
        self.wake_owner();
    }

    /// Why the connection must be closed, if it must.
    pub(crate) fn overrun(&self, now: Instant) -> Option<Refusal> {
        let state = self.state();
        if let Some(refusal) = &state.failed {
            return Some(Refusal::clone(refusal));
        }
        // A delivery starts only below the soft mark, so its size alone says nothing about the reader.
        let loaded = if state.chunks.next_window(usize::MAX).is_some() { 2 * WINDOW_BYTES } else { 0 };
        if state.chunks.memory()
            > self.bounds.limits.bytes_hard.saturating_add(state.largest as usize + loaded)
        {
            return Some(Refusal::new(
                Code::SlowConsumer,
                "more bytes wait for this connection than it may hold",
            ));
        }
        let stalled = now.since(state.progress).as_millis() > u128::from(self.bounds.limits.stall_ms_max);
        (!state.chunks.is_empty() && state.blocked && stalled)
            .then(|| Refusal::new(Code::SlowConsumer, "the connection has not read anything for too long"))
    }

    /// Whether its socket takes no more although something waits.
    pub(crate) fn is_slow(&self) -> bool {
        let state = self.state();
        state.has_waiting() || (state.blocked && !state.chunks.is_empty())
    }

    /// Bytes ever written: a delivery that ends at or below this reached the socket.
    pub(crate) fn written(&self) -> u64 {
        self.state().written
    }

    /// Whether everything that was delivered has reached the socket.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.chunks.is_empty() && !state.has_waiting() && state.marks.get().is_none_or(VecDeque::is_empty)
    }

    /// Whether the owner has nothing to write, nothing to hear and nothing to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.state();
        state.chunks.is_empty()
            && !(state.blocked || state.broken || state.has_waiting())
            && state.marks.get().is_none_or(VecDeque::is_empty)
    }

    /// Closes. The peer sees the end of its stream when what is returned is dropped.
    pub(crate) fn close(&self) -> Closed {
        *self.waker.lock() = None;
        let mut state = self.state();
        state.chunks = Chunks::new();
        state.loading = false;
        state.marks.clear();
        state.waiting.clear();
        self.account(&mut state);
        Closed { written: state.written, _egress: state.egress.take(), _writer: state.writer.take() }
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("connection", &self.connection).finish_non_exhaustive()
    }
}
