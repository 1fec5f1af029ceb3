//! How long things took: percentiles of many instants.

use std::borrow::Cow;

use hdrhistogram::Histogram;

use crate::json::Object;

/// Finer than this nothing is told apart.
const FINEST_NANOS: u64 = 64;
/// Longer than this counts as this long.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

/// Latencies, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
    /// What was recorded last and how often, which is not in the histogram yet: what was sent and is received together
    /// took as long.
    last: (u64, u64),
}

impl Latency {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(FINEST_NANOS, LONGEST_NANOS, 3);
        let histogram = histogram.expect("these bounds and digits are ones that the histogram takes");
        Self { histogram, last: (0, 0) }
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        if nanos == self.last.0 {
            self.last.1 += 1;
        } else {
            self.settle();
            self.last = (nanos, 1);
        }
    }

    /// With everything in the histogram. Whoever reads does so seldom.
    fn settled(&self) -> Cow<'_, Self> {
        if self.last.1 == 0 {
            return Cow::Borrowed(self);
        }
        let mut settled = self.clone();
        settled.settle();
        Cow::Owned(settled)
    }

    fn settle(&mut self) {
        let (nanos, count) = std::mem::take(&mut self.last);
        if count > 0 {
            self.histogram.saturating_record_n(nanos, count);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.histogram.reset();
        self.last = (0, 0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.histogram.is_empty() && self.last.1 == 0
    }

    /// Microseconds within which this share of all, from 0 to 1, was done.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        self.settled().histogram.value_at_quantile(share) as f64 / 1e3
    }

    /// `{"p50":…}` in microseconds; null if there were none.
    pub(crate) fn json(&self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let (mut object, settled) = (Object::new(), self.settled());
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            object.put(name, format!("{:.1}", settled.quantile_us(share)));
        }
        Some(object.end())
    }

    /// The same for people.
    pub(crate) fn text(&self) -> String {
        let settled = self.settled();
        let us = |share| span(settled.quantile_us(share));
        format!("p50 {}, p90 {}, p99 {}, p99.9 {}, max {}", us(0.5), us(0.9), us(0.99), us(0.999), us(1.0))
    }
}

/// Microseconds in a unit that reads well.
pub(crate) fn span(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.1} µs"),
        ..1e6 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded_to_three_digits() {
        let mut latency = Latency::new();
        assert_eq!(latency.json(), None);
        for micros in 1..=1000 {
            latency.record(micros * 1000);
        }
        for (share, wanted) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let found = latency.quantile_us(share);
            assert!((found - wanted).abs() <= wanted / 500.0, "{share}: {found}");
        }
        latency.record(u64::MAX);
        assert!(latency.quantile_us(1.0) >= 3.5e9);
        latency.clear();
        assert!(latency.is_empty());
    }

    #[test]
    fn spans_read_well() {
        assert_eq!([span(3.25), span(1500.0), span(2_500_000.0)], ["3.2 µs", "1.50 ms", "2.50 s"]);
    }
}
