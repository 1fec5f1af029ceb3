//! A run in parts, to see whether the last is like the first.

use crate::json::Object;
use crate::latency::Latency;
use crate::process::Usage;
use crate::watch::Watch;

/// One part.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    /// Messages of this part.
    pub(crate) messages: u64,
    /// Seconds that it took.
    pub(crate) seconds: f64,
    /// CPU time of the broker for each, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    /// Resident memory of the broker at its end.
    pub(crate) rss: Option<u64>,
    /// How long acknowledgements took.
    pub(crate) latency: Latency,
}

impl Slice {
    pub(crate) fn json(&self) -> String {
        let mut object = Object::new();
        object.put("messages", self.messages).decimal("seconds", self.seconds);
        object.decimal("rate", self.messages as f64 / self.seconds);
        object.maybe("cpu_us_per_message", self.cpu_us.map(|us| format!("{us:.3}")));
        object.maybe("rss", self.rss).maybe("ack_latency_us", self.latency.json());
        object.end()
    }
}

/// The parts of a run.
#[derive(Debug)]
pub(crate) struct Slices {
    each: u64,
    next: u64,
    reached: u64,
    seconds: f64,
    cpu: f64,
    done: Vec<Slice>,
}

impl Slices {
    /// `count` parts of `messages`.
    pub(crate) fn new(messages: u64, count: u64) -> Self {
        let each = messages.div_ceil(count.max(1)).max(1);
        Self { each, next: each, reached: 0, seconds: 0.0, cpu: 0.0, done: Vec::new() }
    }

    /// Whether a part ends with so many messages.
    pub(crate) fn is_due(&self, messages: u64) -> bool {
        messages >= self.next
    }

    /// Ends a part.
    pub(crate) fn cut(&mut self, messages: u64, watch: &Watch, usage: Option<Usage>, latency: &mut Latency) {
        let count = messages.saturating_sub(self.reached);
        if count == 0 {
            return;
        }
        let seconds = watch.elapsed().as_secs_f64();
        let cpu = usage.map(|usage| watch.cpu_so_far(&usage));
        self.done.push(Slice {
            messages: count,
            seconds: seconds - self.seconds,
            cpu_us: cpu.map(|cpu| (cpu - self.cpu) * 1e6 / count as f64),
            rss: usage.map(|usage| usage.rss),
            latency: latency.clone(),
        });
        latency.clear();
        (self.reached, self.seconds, self.cpu) = (messages, seconds, cpu.unwrap_or(0.0));
        while self.next <= messages {
            self.next += self.each;
        }
    }

    pub(crate) fn done(self) -> Vec<Slice> {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_where_they_are_due_and_hold_what_came_since() {
        let (mut slices, watch, mut latency) =
            (Slices::new(100, 10), Watch::start(None, false), Latency::new());
        assert!(!slices.is_due(9) && slices.is_due(10));
        latency.record(5000);
        slices.cut(25, &watch, None, &mut latency);
        assert!(latency.is_empty() && !slices.is_due(29) && slices.is_due(30));
        slices.cut(25, &watch, None, &mut latency);
        slices.cut(30, &watch, None, &mut latency);
        let counts: Vec<u64> = slices.done().iter().map(|slice| slice.messages).collect();
        assert_eq!(counts, [25, 5]);
    }
}
