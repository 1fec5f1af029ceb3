//! When each message of an open loop should leave. Latency counts from there and not from when it did leave, so that
//! a broker that holds the sender up is charged for every message that had to wait.

use std::time::Duration;

/// A number of messages per second, dealt to some senders in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    nanos_each: f64,
    senders: u64,
}

impl Pace {
    /// `rate` messages per second of all senders together.
    pub(crate) fn new(rate: f64, senders: usize) -> Self {
        Self { nanos_each: 1e9 / rate, senders: senders.max(1) as u64 }
    }

    /// When message `number` of a sender should leave, since the beginning.
    pub(crate) fn intended(&self, sender: usize, number: u64) -> Duration {
        self.instant(number * self.senders + sender as u64)
    }

    /// Messages that a sender should have sent by `now`.
    pub(crate) fn due(&self, sender: usize, now: Duration) -> u64 {
        let all = self.due_in_all(now);
        all.saturating_sub(sender as u64).div_ceil(self.senders)
    }

    /// Messages that all senders together should have sent by `now`.
    pub(crate) fn due_in_all(&self, now: Duration) -> u64 {
        let mut count = (now.as_nanos() as f64 / self.nanos_each) as u64;
        // Rounding may be off by one either way; what is due is defined by the instants.
        while count > 0 && self.instant(count - 1) > now {
            count -= 1;
        }
        while self.instant(count) <= now {
            count += 1;
        }
        count
    }

    /// When the message after the first `count` should leave.
    pub(crate) fn instant(&self, count: u64) -> Duration {
        Duration::from_nanos((count as f64 * self.nanos_each) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_due_at_its_instant_and_not_before() {
        for rate in [0.5, 3.0, 1000.0, 5_000.0, 333_333.0, 7_777_777.7] {
            let pace = Pace::new(rate, 1);
            for number in [0, 1, 2, 9, 1_000, 123_456_789] {
                let at = pace.intended(0, number);
                assert_eq!(pace.due(0, at), number + 1, "{rate}: {number}");
                if number > 0 && rate < 1e6 {
                    assert_eq!(pace.due(0, at - Duration::from_nanos(1)), number, "{rate}: {number}");
                }
            }
        }
        // The first leaves at once, the next one interval later.
        let pace = Pace::new(1000.0, 1);
        assert_eq!(pace.intended(0, 1), Duration::from_millis(1));
    }

    #[test]
    fn senders_take_turns() {
        let pace = Pace::new(100.0, 3);
        for at in (0..2_000).map(Duration::from_millis) {
            let each: Vec<u64> = (0..3).map(|sender| pace.due(sender, at)).collect();
            assert_eq!(each.iter().sum::<u64>(), pace.due_in_all(at));
            assert!(each.is_sorted_by(|a, b| a >= b) && each[0] - each[2] <= 1, "{each:?}");
        }
        assert_eq!(pace.intended(2, 1), Duration::from_millis(50));
    }
}
