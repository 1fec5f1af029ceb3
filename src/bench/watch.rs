//! A stopwatch over time, the broker's process and our own thread.

use std::time::{Duration, Instant};

use crate::process::{Syscalls, Usage, own_cpu};

/// Share of a core above which our own thread was what the measurement measured.
const BOUND_CORES: f64 = 0.95;

/// Runs from its making until [`Watch::stop`].
#[derive(Debug)]
pub(crate) struct Watch {
    pid: Option<u32>,
    before: Option<Usage>,
    rss_peak: u64,
    own: Duration,
    start: Instant,
    syscalls: Option<Result<Syscalls, String>>,
}

/// What the broker's process used meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) cpu: Duration,
    /// The part of it in user mode, from 0 to 1, if there was enough to tell.
    pub(crate) user_share: Option<f64>,
    pub(crate) rss_before: u64,
    pub(crate) rss_peak: u64,
    pub(crate) rss_after: u64,
    pub(crate) switches: u64,
}

/// What passed while a [`Watch`] ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lap {
    pub(crate) elapsed: Duration,
    /// Nothing if the broker's process is not known.
    pub(crate) broker: Option<Spent>,
    pub(crate) syscalls: Option<u64>,
    /// CPU time of our own thread.
    pub(crate) own_cpu: Duration,
    /// What could not be measured, in sentences.
    pub(crate) notes: Vec<String>,
}

impl Watch {
    /// Begins; counts system calls, too, if that is wanted.
    pub(crate) fn start(pid: Option<u32>, count_syscalls: bool) -> Self {
        let syscalls = pid.filter(|_| count_syscalls).map(Syscalls::count);
        let before = pid.and_then(Usage::of);
        Self {
            pid,
            before,
            rss_peak: before.map_or(0, |usage| usage.rss),
            own: own_cpu(),
            start: Instant::now(),
            syscalls,
        }
    }

    /// Looks at the broker's memory.
    pub(crate) fn sample(&mut self) -> Option<Usage> {
        let usage = self.pid.and_then(Usage::of)?;
        self.rss_peak = self.rss_peak.max(usage.rss);
        Some(usage)
    }

    /// CPU time of the broker so far, in seconds.
    pub(crate) fn cpu_so_far(&self, usage: &Usage) -> f64 {
        self.before.map_or(0.0, |before| usage.cpu_since(&before).as_secs_f64())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn stop(self) -> Lap {
        let elapsed = self.start.elapsed();
        let own_cpu = own_cpu().saturating_sub(self.own);
        let after = self.pid.and_then(Usage::of);
        let mut notes = Vec::new();
        if self.pid.is_some() && after.is_none() {
            notes.push("--broker-pid names no process that can be looked at".to_owned());
        }
        let syscalls = match self.syscalls.map(|counting| counting.and_then(Syscalls::stop)) {
            Some(Ok(count)) => Some(count),
            Some(Err(problem)) => {
                notes.push(problem);
                None
            }
            None => None,
        };
        let broker = self.before.zip(after).map(|(before, after)| Spent {
            cpu: after.cpu_since(&before),
            user_share: after.user_share_since(&before),
            rss_before: before.rss,
            // The kernel's own mark is exact, if it was set meanwhile.
            rss_peak: if after.rss_max > before.rss_max {
                after.rss_max
            } else {
                self.rss_peak.max(after.rss)
            },
            rss_after: after.rss,
            switches: after.switches.saturating_sub(before.switches),
        });
        Lap { elapsed, broker, syscalls, own_cpu, notes }
    }
}

impl Lap {
    /// Cores that our own thread used, from 0 to 1.
    pub(crate) fn own_cores(&self) -> f64 {
        self.own_cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Whether the broker had to wait for us.
    pub(crate) fn generator_bound(&self) -> bool {
        self.own_cores() > BOUND_CORES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_never_waits_is_what_was_measured() {
        let lap = |own| Lap {
            elapsed: Duration::from_millis(100),
            own_cpu: Duration::from_millis(own),
            ..Lap::default()
        };
        assert!(lap(96).generator_bound() && !lap(94).generator_bound());
    }

    #[test]
    fn a_process_that_is_not_there_is_a_note_and_no_figure() {
        let lap = Watch::start(Some(u32::MAX), false).stop();
        assert!(lap.broker.is_none() && lap.notes.len() == 1);
    }
}
