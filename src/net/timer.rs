//! Timers of all connections: a sharded wheel that turns on the clock's tick and wakes tasks.
//!
//! One entry per connection for as long as it lives, armed for the earliest of what it waits for. Heart-beats move with
//! every byte, so an entry is not moved when its deadline grows: it fires early, and the task arms it again. No `Sleep`
//! per connection, and arming an entry that is already due early enough touches nothing shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use sabir_model::clock::Instant;

/// Time between two ticks.
pub(crate) const TICK: Duration = Duration::from_millis(100);
const TICK_US: u64 = 100_000;
/// Slots of each shard's wheel: 51.2 seconds; a later deadline goes round again.
const SLOTS: u64 = 512;
const SHARDS: usize = 8;
/// The tick of an entry that is not armed.
const UNARMED: u64 = u64::MAX;

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    shards: [Mutex<Shard>; SHARDS],
    /// The last tick begun.
    tick: AtomicU64,
    next_shard: AtomicUsize,
}

#[derive(Debug)]
struct Shard {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Per slot: entry and the arming it belongs to; one of an older arming is stale and dropped when visited.
    slots: Vec<Vec<(u32, u32)>>,
    tick: u64,
}

#[derive(Debug)]
struct Entry {
    waker: Option<Waker>,
    due: u64,
    arming: u32,
}

impl Shard {
    fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            tick: 0,
        }
    }

    fn arm(&mut self, index: u32, waker: &Waker, due: u64) -> u64 {
        let due = due.max(self.tick + 1);
        let Some(entry) = self.entries.get_mut(index as usize) else { return due };
        entry.due = due;
        entry.arming = entry.arming.wrapping_add(1);
        if !entry.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            entry.waker = Some(waker.clone());
        }
        if let Some(slot) = self.slots.get_mut((due % SLOTS) as usize) {
            slot.push((index, entry.arming));
        }
        due
    }

    /// Visits the slots up to `tick` and collects the wakers of those due.
    fn turn(&mut self, tick: u64, fired: &mut Vec<Waker>) {
        let passed = tick.saturating_sub(self.tick).min(SLOTS);
        for step in 0..passed {
            let Some(slot) = self.slots.get_mut(((tick - step) % SLOTS) as usize) else { continue };
            let entries = &mut self.entries;
            slot.retain(|&(index, arming)| {
                let Some(entry) = entries.get_mut(index as usize) else { return false };
                if entry.arming != arming || entry.due == UNARMED {
                    return false;
                }
                if entry.due > tick {
                    return true;
                }
                entry.due = UNARMED;
                fired.extend(entry.waker.clone());
                false
            });
            if slot.is_empty() && slot.capacity() > 64 {
                *slot = Vec::new();
            }
        }
        self.tick = self.tick.max(tick);
    }
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::new())),
            tick: AtomicU64::new(0),
            next_shard: AtomicUsize::new(0),
        }
    }

    /// Wakes every task whose deadline is at or before `now`.
    pub(crate) fn turn(&self, now: Instant) {
        let tick = now.0 / TICK_US;
        // Published first: a timer that reads a tick at or past its own takes itself for fired and arms again.
        self.tick.store(tick, Ordering::Release);
        let mut fired = Vec::new();
        for shard in &self.shards {
            shard.lock().turn(tick, &mut fired);
            fired.drain(..).for_each(Waker::wake);
        }
    }

    /// Wakes every task that has a waker here, due or not.
    pub(crate) fn wake_all(&self) {
        for shard in &self.shards {
            let wakers: Vec<Waker> =
                shard.lock().entries.iter().filter_map(|entry| entry.waker.clone()).collect();
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

/// One connection's timer. Dropping it takes it out of the wheel.
#[derive(Debug)]
pub(crate) struct Timer {
    wheel: Arc<Wheel>,
    index: u32,
    shard: u32,
    due: u64,
}

impl Timer {
    pub(crate) fn new(wheel: &Arc<Wheel>) -> Self {
        let shard = wheel.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut entries = wheel.shards[shard].lock();
        let entry = Entry { waker: None, due: UNARMED, arming: 0 };
        let index = if let Some(index) = entries.free.pop() {
            // The arming goes on counting, so that stale slots of the predecessor stay stale.
            index
        } else {
            let index = u32::try_from(entries.entries.len()).unwrap_or(u32::MAX);
            if entries.entries.len() == entries.entries.capacity() {
                // By an eighth, not by as much again: the more connections there are, the more would be empty.
                let more = (entries.entries.len() / 8).max(8);
                entries.entries.reserve_exact(more);
            }
            entries.entries.push(entry);
            index
        };
        drop(entries);
        Self { wheel: Arc::clone(wheel), index, shard: shard as u32, due: UNARMED }
    }

    /// Sees to it that the task behind `waker` is woken at `deadline` or at the tick after it, perhaps also earlier.
    /// Without a deadline only [`Wheel::wake_all`] wakes it.
    pub(crate) fn arm(&mut self, waker: &Waker, deadline: Option<Instant>) {
        let due = deadline.map_or(UNARMED - 1, |at| at.0.div_ceil(TICK_US).min(UNARMED - 1));
        let pending = self.due != UNARMED && self.due > self.wheel.tick.load(Ordering::Acquire);
        if pending && self.due <= due {
            return;
        }
        if let Some(shard) = self.wheel.shards.get(self.shard as usize) {
            self.due = shard.lock().arm(self.index, waker, due);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(shard) = self.wheel.shards.get(self.shard as usize) else { return };
        let waker = {
            let mut shard = shard.lock();
            let Some(entry) = shard.entries.get_mut(self.index as usize) else { return };
            entry.due = UNARMED;
            entry.arming = entry.arming.wrapping_add(1);
            let waker = entry.waker.take();
            shard.free.push(self.index);
            waker
        };
        // Outside the lock: the last waker frees the task.
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Fixture {
        wheel: Arc<Wheel>,
        count: Arc<Count>,
        waker: Waker,
    }

    fn fixture() -> Fixture {
        let count = Arc::new(Count::default());
        Fixture { wheel: Arc::new(Wheel::new()), waker: Waker::from(Arc::clone(&count)), count }
    }

    impl Fixture {
        fn turn(&self, ms: u64) -> usize {
            self.wheel.turn(at(ms));
            self.count.0.swap(0, Ordering::Relaxed)
        }
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    #[test]
    fn a_timer_fires_once_at_the_tick_that_covers_its_deadline() {
        let f = fixture();
        let mut timer = Timer::new(&f.wheel);
        timer.arm(&f.waker, Some(at(250)));
        assert_eq!([f.turn(100), f.turn(200), f.turn(300), f.turn(400)], [0, 0, 1, 0]);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick() {
        let f = fixture();
        f.turn(1000);
        let mut timer = Timer::new(&f.wheel);
        timer.arm(&f.waker, Some(at(10)));
        assert_eq!([f.turn(1000), f.turn(1100)], [0, 1]);
    }

    #[test]
    fn a_later_deadline_lets_it_fire_early_and_arms_again() {
        let f = fixture();
        let mut timer = Timer::new(&f.wheel);
        timer.arm(&f.waker, Some(at(200)));
        timer.arm(&f.waker, Some(at(500)));
        assert_eq!(f.turn(200), 1);
        timer.arm(&f.waker, Some(at(500)));
        assert_eq!([f.turn(400), f.turn(500)], [0, 1]);
    }

    #[test]
    fn an_earlier_deadline_moves_it_and_the_old_slot_is_stale() {
        let f = fixture();
        let mut timer = Timer::new(&f.wheel);
        timer.arm(&f.waker, Some(at(900)));
        timer.arm(&f.waker, Some(at(300)));
        assert_eq!([f.turn(300), f.turn(900), f.turn(60_000)], [1, 0, 0]);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_goes_round_again() {
        let f = fixture();
        let mut timer = Timer::new(&f.wheel);
        timer.arm(&f.waker, Some(at(120_000)));
        let fired: Vec<u64> = (1..=1300).map(|tick| tick * 100).filter(|ms| f.turn(*ms) > 0).collect();
        assert_eq!(fired, [120_000]);
    }

    #[test]
    fn a_jump_over_the_whole_wheel_misses_nobody() {
        let f = fixture();
        let mut timers: Vec<Timer> = (0..1000).map(|_| Timer::new(&f.wheel)).collect();
        for (n, timer) in (0u64..).zip(timers.iter_mut()) {
            timer.arm(&f.waker, Some(at(100 + n * 100)));
        }
        assert_eq!(f.turn(200_000), 1000);
    }

    #[test]
    fn a_dropped_timer_frees_its_waker_and_its_place() {
        let f = fixture();
        for _ in 0..100 {
            let mut timers: Vec<Timer> = (0..SHARDS).map(|_| Timer::new(&f.wheel)).collect();
            timers.iter_mut().for_each(|timer| timer.arm(&f.waker, Some(at(100))));
        }
        assert_eq!(Arc::strong_count(&f.count), 2, "only the fixture and its waker are left");
        assert!(f.wheel.shards.iter().all(|shard| shard.lock().entries.len() == 1));
        assert_eq!(f.turn(100), 0);
    }

    #[test]
    fn a_timer_without_a_deadline_is_woken_only_with_all() {
        let f = fixture();
        let mut timer = Timer::new(&f.wheel);
        timer.arm(&f.waker, None);
        assert_eq!(f.turn(1_000_000), 0);
        f.wheel.wake_all();
        assert_eq!(f.count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn every_armed_timer_fires_no_earlier_than_armed_and_no_later_than_a_tick_after_seeded() {
        let f = fixture();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut timer = Timer::new(&f.wheel);
        let mut now = 0;
        for _ in 0..2000 {
            let deadline = now + next() % 130_000;
            timer.arm(&f.waker, Some(at(deadline)));
            let fires = (deadline.div_ceil(100) * 100).max(now + 100);
            while now < fires {
                now += 100;
                assert_eq!(f.turn(now), usize::from(now == fires), "armed for {deadline}, at {now}");
            }
        }
    }
}
