//! Time as the core sees it: a monotonic instant and a wall-clock timestamp, both our own newtypes.
//!
//! Nothing outside an implementation of [`Clock`] reads the machine's time; tests advance it by hand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A monotonic instant in microseconds since the process (or the simulation) started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// This instant moved forward by `span`, saturating.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time in milliseconds since 1970-01-01 UTC. Zero means "never" or "not set" where a field allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The value that stands for "never" in an expiration.
    pub const NEVER: Self = Self(0);

    /// This time moved forward by `span`, saturating.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Whether an expiration with this value has passed at `now`. [`Timestamp::NEVER`] never passes.
    #[must_use]
    pub fn has_passed(self, now: Self) -> bool {
        self != Self::NEVER && self.0 <= now.0
    }
}

/// Where time comes from. The server's clock is coarse (it ticks); a simulation's is advanced by hand.
pub trait Clock: Send + Sync {
    /// Monotonic time.
    fn now(&self) -> Instant;
    /// Wall-clock time.
    fn wall(&self) -> Timestamp;
}

/// A clock that stands still until told otherwise: for tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicU64,
    epoch_ms: u64,
}

impl ManualClock {
    /// A clock at instant zero whose wall-clock reads `epoch`.
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { now: AtomicU64::new(0), epoch_ms: epoch.0 }
    }

    /// Moves both times forward by `span`.
    pub fn advance(&self, span: Duration) {
        self.now.fetch_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX), Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant(self.now.load(Ordering::Acquire))
    }
    fn wall(&self) -> Timestamp {
        Timestamp(self.epoch_ms + self.now.load(Ordering::Acquire) / 1000)
    }
}
