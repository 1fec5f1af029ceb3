//! Back-pressure: connections that must wait before they are read again.
//!
//! Who waits is whoever filled what is too full, the log's buffer or a queue's share of the memory, and has no unsettled
//! delivery: acknowledgements are read always. Those who wait stand in line and are let in a few at a time, each for one
//! reading, so that what they bring together is bounded and each has its turn. The line for the log moves as the log is
//! written, below four fifths of the mark; that for memory as queues shrink, and by a few with every tick, for nobody is to
//! stand still: a client that is not read at all cannot even be told that it is refused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use sabir_model::command::Promise;
use sabir_model::error::{Code, Refusal};
use sabir_store::{Level, Wake};

use crate::broker::{Broker, Shared};
use crate::budget::{change, memory_full};
use crate::connection::Connection;
use crate::queue::Queue;
use crate::work::level_of;

/// Connections that are let in at a time.
const BATCH: usize = 16;
/// Ticks after which the log has got stuck: a second.
const STUCK_TICKS: u64 = 10;
/// Of those who wait for memory, so many are looked at whenever some comes free; all of them with every tick.
const LOOKED_AT_MAX: usize = 64;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Too many bytes are not in the log yet.
    Log,
    /// A queue has more than its share of the memory.
    Memory,
}

/// A place in a line.
#[derive(Debug)]
struct Place {
    let_in: AtomicBool,
    waker: Waker,
    /// Nothing it has sent waits for the log.
    is_new: bool,
    /// For memory: the queue that has too much.
    queue: Weak<Queue>,
}

/// A connection's place in a line.
#[derive(Debug)]
pub(crate) struct Turn {
    mark: Mark,
    place: Arc<Place>,
    /// It has been let in and has not finished.
    passing: bool,
}

/// Bytes that a connection has sent while the log was behind, in two parts, so that it forgets what the log has got.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    /// Sent up to the promise.
    older: usize,
    /// Sent after it.
    newer: usize,
    until: Option<Promise>,
}

impl Unsynced {
    pub(crate) fn bytes(&self) -> usize {
        self.older.saturating_add(self.newer)
    }
}

/// Those who wait for one thing.
#[derive(Debug, Default)]
pub(crate) struct Line {
    places: Mutex<VecDeque<Arc<Place>>>,
    /// Those in it who have not gone.
    waiting: AtomicUsize,
    /// Those let in who have not finished.
    passing: AtomicUsize,
    /// How often somebody had to wait.
    times: AtomicU64,
}

impl Line {
    fn enter(&self, place: Place) -> Arc<Place> {
        let place = Arc::new(place);
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.times.fetch_add(1, Ordering::Relaxed);
        self.places.lock().push_back(Arc::clone(&place));
        place
    }

    /// Somebody waits no longer, for it has gone or has no reason to.
    fn leave(&self, place: &Place) {
        // Who is let in at the same moment is counted by who lets it in.
        let mut places = self.places.lock();
        if let Some(at) = places.iter().position(|one| std::ptr::eq(&raw const **one, place)) {
            places.remove(at);
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.passing.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Lets in up to `most` of those who may, the longest-waiting first; looks at no more than `look_at`.
    fn let_in(&self, most: usize, look_at: usize, may: impl Fn(&Place) -> bool) {
        if most == 0 || self.waiting() == 0 {
            return;
        }
        let mut let_in: Vec<Arc<Place>> = Vec::new();
        {
            let mut places = self.places.lock();
            let mut at = 0;
            while let_in.len() < most
                && at + let_in.len() < look_at
                && let Some(place) = places.get(at)
            {
                if may(place) {
                    let_in.extend(places.remove(at));
                } else {
                    at += 1;
                }
            }
            self.waiting.fetch_sub(let_in.len(), Ordering::AcqRel);
            self.passing.fetch_add(let_in.len(), Ordering::AcqRel);
        }
        for place in let_in {
            place.let_in.store(true, Ordering::Release);
            place.waker.wake_by_ref();
        }
    }

    fn places_free(&self) -> usize {
        BATCH.saturating_sub(self.passing.load(Ordering::Acquire))
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// How often somebody had to wait.
    pub(crate) fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }
}

/// All who wait.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    pub(crate) log: Line,
    pub(crate) memory: Line,
    /// The log will tell when it has gone on.
    armed: AtomicBool,
    /// How far it was at the last tick, and for how many ticks it has not gone on.
    written: AtomicU64,
    stuck: AtomicU64,
}

impl Pressure {
    fn line(&self, mark: Mark) -> &Line {
        match mark {
            Mark::Log => &self.log,
            Mark::Memory => &self.memory,
        }
    }
}

/// Told by the log that it has gone on.
struct LogWent(Weak<Shared>);

impl Wake for LogWent {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.pressure.armed.store(false, Ordering::Release);
            shared.relieve_log();
        }
    }
}

impl Shared {
    fn relieve(self: &Arc<Self>, mark: Mark) {
        match mark {
            Mark::Log => self.relieve_log(),
            Mark::Memory => self.relieve_memory(),
        }
    }

    /// Lets in some of those who wait for the log, if it has gone on far enough; else it will tell.
    pub(crate) fn relieve_log(self: &Arc<Self>) {
        let pressure = &self.pressure;
        if pressure.log.waiting() == 0 {
            return;
        }
        let (pending, mark) = (self.store.pending_bytes(), self.limits.pending_bytes_soft);
        if pending <= mark / 5 * 4 {
            // No more than may fill the rest up to the mark: with the usual mark, each brings as much as one read takes.
            let room = mark.saturating_sub(pending) / (mark / BATCH).max(1);
            let passing = pressure.log.passing.load(Ordering::Acquire);
            let least = usize::from(passing == 0);
            pressure.log.let_in(room.min(BATCH).saturating_sub(passing).max(least), usize::MAX, |_| true);
            return;
        }
        let last = self.store.last_position();
        // What is covered would tell at once, and come back here; then the next tick will do.
        if !self.store.watermark().covers(last, Level::Os) && !pressure.armed.swap(true, Ordering::AcqRel) {
            self.store.wake_at(last, Level::Os, Arc::new(LogWent(Arc::downgrade(self))));
        }
    }

    /// Lets in some of those whose queues have room again.
    pub(crate) fn relieve_memory(&self) {
        self.relieve_memory_of(LOOKED_AT_MAX);
    }

    fn relieve_memory_of(&self, look_at: usize) {
        let line = &self.pressure.memory;
        line.let_in(line.places_free(), look_at, |place| {
            let Some(queue) = place.queue.upgrade() else { return true };
            // Not waited for: whoever holds it comes here itself when it has made room.
            queue.core.try_lock().is_some_and(|core| self.budget.is_less_again(core.resident))
        });
    }

    /// What time does: nobody stands still.
    pub(crate) fn tick_pressure(self: &Arc<Self>) {
        self.relieve_log();
        self.relieve_memory_of(usize::MAX);
        let Pressure { log, memory, .. } = &self.pressure;
        memory.let_in(memory.places_free(), usize::MAX, |_| true);
        let written = self.store.watermark().written().0;
        let went = self.pressure.written.swap(written, Ordering::Relaxed) != written;
        let stuck = if went { 0 } else { self.pressure.stuck.load(Ordering::Relaxed) + 1 };
        self.pressure.stuck.store(stuck % STUCK_TICKS, Ordering::Relaxed);
        if stuck >= STUCK_TICKS {
            // Who has sent nothing may be about to consume; a log that does not go on must not keep it.
            log.let_in(log.places_free(), usize::MAX, |place| place.is_new);
        }
    }
}

impl Connection {
    /// Pending while this connection's reading should pause. Only connections that owe no settlement pause, so that no
    /// consumer is starved; one that is handed a delivery meanwhile is woken.
    pub fn poll_readable_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.end_reading();
        if self.outbox.is_full() && !self.owes_settlements() {
            // It does not read its answers. Whoever writes them goes on with this.
            self.pass_turn();
            return Poll::Pending;
        }
        let Some(mark) = self.presses() else {
            self.leave_line();
            return Poll::Ready(());
        };
        let turn = self.aside.get_mut().and_then(|aside| aside.turn.as_mut());
        if let Some(turn) = turn {
            if turn.place.let_in.load(Ordering::Acquire) {
                turn.passing = true;
                let aside = self.aside.make();
                aside.pressed = None;
                self.outbox.hold_back(false);
                return Poll::Ready(());
            }
            if self.owes_settlements() {
                self.leave_line();
                return Poll::Ready(());
            }
            return Poll::Pending;
        }
        // Said before it is looked at: a delivery that is handed over in between finds one or the other.
        self.outbox.set_waker(cx.waker());
        self.outbox.hold_back(true);
        if self.owes_settlements() {
            self.outbox.hold_back(false);
            return Poll::Ready(());
        }
        let is_new = !self.awaits_log();
        let aside = self.aside.make();
        let queue = match mark {
            Mark::Log => Weak::new(),
            Mark::Memory => aside.pressed.as_ref().map(Arc::downgrade).unwrap_or_default(),
        };
        let place = Place { let_in: AtomicBool::new(false), waker: cx.waker().clone(), is_new, queue };
        let place = self.shared.pressure.line(mark).enter(place);
        aside.turn = Some(Turn { mark, place, passing: false });
        self.shared.relieve(mark);
        Poll::Pending
    }

    /// What it has filled that is too full.
    fn presses(&mut self) -> Option<Mark> {
        let pending = self.shared.store.pending_bytes();
        let limits = &self.shared.limits;
        // Half-way to where sends are refused, everybody waits who might begin to send.
        let is_high = || pending > limits.pending_bytes_soft / 2 + limits.pending_bytes_max / 2;
        if pending > limits.pending_bytes_soft && (is_high() || self.awaits_log()) {
            return Some(Mark::Log);
        }
        let aside = self.aside.get()?;
        if let Some(turn) = &aside.turn
            && !turn.passing
        {
            return Some(turn.mark);
        }
        aside.pressed.as_ref().map(|_| Mark::Memory)
    }

    /// Whether something it has sent is not in the log yet.
    fn awaits_log(&self) -> bool {
        self.last_promise
            .is_some_and(|promise| !self.shared.store.watermark().covers(promise.position, level_of(promise)))
    }

    /// Whether it has deliveries that it has not settled.
    fn owes_settlements(&self) -> bool {
        self.mailbox.subscriptions.lock().owe_settlements()
            || self.session.as_ref().is_some_and(|session| session.owes_settlements())
    }

    /// The reading that it was let in for is over: the next in line has its turn.
    pub(crate) fn end_reading(&mut self) {
        let turn = self.aside.get_mut().and_then(|aside| aside.turn.take_if(|turn| turn.passing));
        if let Some(turn) = turn {
            self.shared.pressure.line(turn.mark).passing.fetch_sub(1, Ordering::AcqRel);
            self.shared.relieve(turn.mark);
        }
    }

    /// If it has been let in and cannot make use of that, the next in line has its turn; it stands in line again later.
    fn pass_turn(&mut self) {
        let turn = self.aside.get().and_then(|aside| aside.turn.as_ref());
        let let_in = turn.filter(|turn| turn.place.let_in.load(Ordering::Acquire));
        if let Some(mark) = let_in.map(|turn| turn.mark) {
            self.leave_line();
            self.shared.relieve(mark);
        }
    }

    /// It goes, or has no reason to wait any more.
    pub(crate) fn leave_line(&mut self) {
        self.end_reading();
        if let Some(turn) = self.aside.get_mut().and_then(|aside| aside.turn.take()) {
            self.shared.pressure.line(turn.mark).leave(&turn.place);
            self.outbox.hold_back(false);
        }
    }

    /// Notes at the end of a batch whose share of the memory it has exceeded, and what it has in the log's buffer.
    pub(crate) fn note_pressure(&mut self) {
        if let Some(queue) = self.work.get().pressed.take() {
            self.aside.make().pressed = Some(queue);
        }
        if self.unsynced() == 0 {
            return;
        }
        let (behind, newest) = (self.store_is_behind(), self.last_promise);
        let covers =
            |promise: Promise| self.shared.store.watermark().covers(promise.position, level_of(promise));
        let still = behind && newest.is_some_and(|newest| !covers(newest));
        let older = self.aside.get().and_then(|aside| aside.unsynced.until).is_none_or(covers);
        let Some(aside) = self.aside.get_mut() else { return };
        if !still {
            aside.unsynced = Unsynced::default();
        } else if older {
            let Unsynced { newer, .. } = aside.unsynced;
            aside.unsynced = Unsynced { older: newer, newer: 0, until: newest };
        }
    }

    /// Counts what was sent while the log is behind.
    pub(crate) fn count_unsynced(&mut self, bytes: usize) {
        if self.store_is_behind() {
            let aside = self.aside.make();
            aside.unsynced.newer = aside.unsynced.newer.saturating_add(bytes);
        }
    }

    fn unsynced(&self) -> usize {
        self.aside.get().map_or(0, |aside| aside.unsynced.bytes())
    }

    fn store_is_behind(&self) -> bool {
        self.shared.store.pending_bytes() > self.shared.limits.pending_bytes_soft
    }

    /// Whether the log's buffer takes `bytes` more from this connection: who has no need to wait, because it owes
    /// settlements, is not to take all the room of those who do.
    pub(crate) fn check_unsynced(&self, bytes: usize) -> Result<(), Refusal> {
        if !self.store_is_behind() {
            return Ok(());
        }
        let free = self.shared.limits.pending_bytes_max.saturating_sub(self.shared.store.pending_bytes());
        let own = self.unsynced();
        if own == 0 || own.saturating_add(bytes) <= free {
            return Ok(());
        }
        let sentence =
            "this connection's share of what may wait to be written to the log is used up; send again later";
        Err(Refusal::new(Code::StorageFull, sentence))
    }

    /// Accounts for a frame that has arrived in part.
    ///
    /// # Errors
    /// [`Code::MemoryFull`] if there is no memory for it to grow any further.
    pub fn hold_frame(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.aside.get().map_or(0, |aside| aside.framed);
        if before == bytes {
            return Ok(());
        }
        self.aside.make().framed = bytes;
        let fits = bytes <= before || self.shared.budget.has_room_for_frame(before, bytes);
        change(&self.shared.budget.frames, difference(bytes, before));
        if fits {
            return Ok(());
        }
        Err(memory_full())
    }
}

/// A body that arrives in pieces, for as long as this lives.
pub struct PartialBody {
    shared: Arc<Shared>,
    bytes: usize,
}

impl PartialBody {
    /// It has grown to so many bytes.
    ///
    /// # Errors
    /// [`Code::MemoryFull`] if there is no memory for it to grow any further.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let fits = self.shared.budget.has_room_for_frame(before.min(bytes), bytes);
        change(&self.shared.budget.frames, difference(bytes, before));
        if fits { Ok(()) } else { Err(memory_full()) }
    }
}

impl Drop for PartialBody {
    fn drop(&mut self) {
        change(&self.shared.budget.frames, difference(0, self.bytes));
    }
}

impl std::fmt::Debug for PartialBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartialBody").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Broker {
    /// Accounts for a body that is about to arrive.
    #[must_use]
    pub fn hold_body(&self) -> PartialBody {
        PartialBody { shared: Arc::clone(&self.shared), bytes: 0 }
    }
}

fn difference(now: usize, before: usize) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX)
}
