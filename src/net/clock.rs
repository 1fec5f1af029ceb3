//! The server's clock: one pair of atomics that everybody reads and only two places write.
//!
//! It is coarse. The ticker moves it every 100 ms, and a connection's task moves it when it is woken, so that a busy
//! server reads milliseconds and an idle one costs nothing. Nobody asks the machine for the time per message.
#![expect(clippy::disallowed_methods, reason = "the clock that everything else asks")]

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sabir_model::clock::{Clock, Instant, Timestamp};
use sabir_model::session::Now;

/// Steps of the shared time smaller than this, in microseconds, are not worth a write that other cores see.
const STEP_US_MIN: u64 = 500;

/// Time of the machine, published through atomics.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
    /// Microseconds since `started`.
    now_us: AtomicU64,
    /// Wall-clock milliseconds at `started`; follows the machine's corrections with the ticks.
    epoch_ms: AtomicI64,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        let clock = Self {
            started: std::time::Instant::now(),
            // Not zero, so that "never" and "at the start" stay different for whoever stores instants.
            now_us: AtomicU64::new(1),
            epoch_ms: AtomicI64::new(0),
        };
        clock.tick();
        clock
    }

    /// Reads the machine's time, for a task that was just woken.
    pub(crate) fn refresh(&self) -> Now {
        let read = self.elapsed_us();
        let known = self.now_us.load(Ordering::Relaxed);
        if read > known + STEP_US_MIN {
            self.now_us.fetch_max(read, Ordering::Relaxed);
        }
        let instant = Instant(read.max(known));
        Now { instant, wall: self.wall_at(instant) }
    }

    /// Reads the machine's time and follows its wall clock; called by the ticker.
    pub(crate) fn tick(&self) -> Now {
        let before = self.elapsed_us();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let elapsed = self.elapsed_us();
        let wall = i64::try_from(wall).unwrap_or(i64::MAX);
        let epoch = wall.saturating_sub(i64::try_from(elapsed).unwrap_or(i64::MAX)) / 1000;
        let known = self.epoch_ms.load(Ordering::Relaxed);
        // The two readings are not of one moment: less than their distance is no correction, and what was over before
        // would not be over any more.
        let apart = i64::try_from((elapsed - before) / 1000).unwrap_or(i64::MAX) + 1;
        if known == 0 || epoch.abs_diff(known) > apart.unsigned_abs() {
            self.epoch_ms.store(epoch, Ordering::Relaxed);
        }
        self.now_us.fetch_max(elapsed, Ordering::Relaxed);
        Now { instant: self.now(), wall: self.wall() }
    }

    fn elapsed_us(&self) -> u64 {
        let elapsed = self.started.elapsed();
        // In 64 bits, which hold half a million years: `as_micros` divides 128.
        (elapsed.as_secs() * 1_000_000 + u64::from(elapsed.subsec_micros())).max(1)
    }

    fn wall_at(&self, instant: Instant) -> Timestamp {
        let since_start = i64::try_from(instant.0 / 1000).unwrap_or(i64::MAX);
        let ms = self.epoch_ms.load(Ordering::Relaxed).saturating_add(since_start);
        Timestamp(u64::try_from(ms).unwrap_or(0))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant(self.now_us.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        self.wall_at(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards_and_the_wall_follows_it() {
        let clock = SystemClock::start();
        let first = clock.refresh();
        let second = clock.tick();
        assert!(second.instant >= first.instant);
        assert!(clock.now() >= second.instant);
        // 2020-01-01; only a machine without a clock is earlier.
        assert!(second.wall.0 > 1_577_836_800_000);
    }

    #[test]
    fn the_wall_does_not_tremble() {
        let clock = SystemClock::start();
        let mut last = clock.tick().wall;
        for _ in 0..20_000 {
            let wall = clock.tick().wall;
            assert!(wall >= last, "{wall:?} after {last:?}");
            last = wall;
        }
    }
}
