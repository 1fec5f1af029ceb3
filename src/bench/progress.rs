//! One line that says how it goes, for whoever watches.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::latency::span;

/// How often it is written.
const EVERY: Duration = Duration::from_millis(500);

/// The line.
pub(crate) struct Progress {
    /// Nothing if nobody watches.
    last: Option<(Instant, u64)>,
    written: bool,
}

impl Progress {
    /// On standard error, if that is a terminal.
    pub(crate) fn new() -> Self {
        Self { last: io::stderr().is_terminal().then(|| (Instant::now(), 0)), written: false }
    }

    /// `done` messages so far, of so many, if that is known.
    pub(crate) fn show(&mut self, done: u64, of: Option<u64>, under_way: u64, p99_us: Option<f64>) {
        let Some((then, before)) = self.last else { return };
        let now = Instant::now();
        if now.duration_since(then) < EVERY {
            return;
        }
        let rate = done.saturating_sub(before) as f64 / now.duration_since(then).as_secs_f64();
        let of = of.map_or_else(String::new, |of| format!(" of {of}"));
        let p99 = p99_us.map_or_else(String::new, |p99| format!(", p99 {}", span(p99)));
        let line = format!("{done}{of}, {rate:.0} per second, {under_way} under way{p99}");
        // The line before may have been longer.
        let _ = write!(io::stderr(), "\r{line:<78}\r");
        self.last = Some((now, done));
        self.written = true;
    }

    /// Takes the line away.
    pub(crate) fn end(&mut self) {
        if self.written {
            let _ = write!(io::stderr(), "\r{:<78}\r", "");
        }
    }
}
