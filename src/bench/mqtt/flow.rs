//! Who is how far: what each publisher has sent, what each of its subscribers has received, and who waits for whom.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

/// A publisher that waits looks again after this time, whatever happens.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const NOBODY_WAITS: u64 = u64::MAX;

/// Shared by all threads of a measurement.
pub(super) struct Flow {
    /// One for each publisher.
    lanes: Vec<Lane>,
    failed: AtomicBool,
    stopped: AtomicBool,
    finished: AtomicBool,
}

/// One publisher and its subscribers.
struct Lane {
    sent: AtomicU64,
    /// How far each subscriber is.
    received: Vec<AtomicU64>,
    /// What every subscriber must have reached before the publisher goes on.
    wanted: AtomicU64,
    publisher: OnceLock<Thread>,
}

impl Lane {
    /// What every subscriber has received; everything, if there are none.
    fn floor(&self) -> u64 {
        self.received.iter().map(|count| count.load(Ordering::SeqCst)).min().unwrap_or(u64::MAX)
    }
}

impl Flow {
    pub(super) fn new(publishers: usize, receivers: usize) -> Self {
        let lane = |_| Lane {
            sent: AtomicU64::new(0),
            received: (0..receivers).map(|_| AtomicU64::new(0)).collect(),
            wanted: AtomicU64::new(NOBODY_WAITS),
            publisher: OnceLock::new(),
        };
        Self {
            lanes: (0..publishers).map(lane).collect(),
            failed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        }
    }

    fn lane(&self, publisher: usize) -> Option<&Lane> {
        self.lanes.get(publisher)
    }

    /// Counts messages that are about to be written.
    pub(super) fn note_sent(&self, publisher: usize, count: u64) {
        if let Some(lane) = self.lane(publisher) {
            lane.sent.fetch_add(count, Ordering::SeqCst);
        }
    }

    /// Says how far a subscriber is, and wakes the publisher if that is what it waits for.
    pub(super) fn note_received(&self, publisher: usize, subscriber: usize, reached: u64) {
        let Some(lane) = self.lane(publisher) else { return };
        let Some(count) = lane.received.get(subscriber) else { return };
        let before = count.swap(reached, Ordering::SeqCst);
        // The publisher says what it wants before it looks at the counts, and we the other way round: one sees the other.
        let wanted = lane.wanted.load(Ordering::SeqCst);
        if before < wanted
            && wanted <= reached
            && lane.floor() >= wanted
            && let Some(thread) = lane.publisher.get()
        {
            thread.unpark();
        }
    }

    /// Messages of a publisher that some subscriber has not received.
    pub(super) fn on_the_way(&self, publisher: usize) -> u64 {
        self.lane(publisher).map_or(0, |lane| lane.sent.load(Ordering::SeqCst).saturating_sub(lane.floor()))
    }

    /// Waits, for a moment at most, until no more than `most` messages of this thread's publisher are on the way.
    pub(super) fn wait(&self, publisher: usize, most: u64) {
        let Some(lane) = self.lane(publisher) else { return };
        lane.publisher.get_or_init(thread::current);
        let wanted = lane.sent.load(Ordering::SeqCst).saturating_sub(most);
        lane.wanted.store(wanted, Ordering::SeqCst);
        if lane.floor() < wanted {
            thread::park_timeout(LOOK_AGAIN);
        }
        lane.wanted.store(NOBODY_WAITS, Ordering::SeqCst);
    }

    pub(super) fn sent(&self, publisher: usize) -> u64 {
        self.lane(publisher).map_or(0, |lane| lane.sent.load(Ordering::SeqCst))
    }

    /// Over all publishers and their subscribers.
    pub(super) fn received(&self) -> u64 {
        self.lanes.iter().flat_map(|lane| &lane.received).map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// Whether every message has come.
    pub(super) fn is_complete(&self) -> bool {
        self.lanes.iter().all(|lane| lane.floor() >= lane.sent.load(Ordering::SeqCst))
    }

    /// A connection broke: nobody needs to go on.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Enough has been published.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Enough has been received.
    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_subscriber_counts() {
        let flow = Flow::new(2, 2);
        flow.note_sent(0, 10);
        flow.note_received(0, 0, 10);
        assert_eq!((flow.on_the_way(0), flow.on_the_way(1), flow.is_complete()), (10, 0, false));
        flow.note_received(0, 1, 4);
        assert_eq!((flow.on_the_way(0), flow.received()), (6, 14));
        flow.wait(0, 6);
        flow.note_received(0, 1, 10);
        assert!(flow.is_complete());
    }

    #[test]
    fn without_subscribers_nothing_is_on_the_way() {
        let flow = Flow::new(1, 0);
        flow.note_sent(0, 10);
        flow.wait(0, 0);
        assert_eq!((flow.on_the_way(0), flow.is_complete()), (0, true));
    }
}
