//! What a process has used, from the kernel's accounts, and its system calls, if `perf` may count them.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// CPU time and memory of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time together.
    pub(crate) cpu: Duration,
    /// The part in user mode, in steps of ten milliseconds.
    user: Duration,
    /// The part in the kernel, in the same steps.
    system: Duration,
    /// Resident memory now, in bytes.
    pub(crate) rss: u64,
    /// Most resident memory so far, in bytes.
    pub(crate) rss_max: u64,
    /// How often its threads gave up the processor or had to.
    pub(crate) switches: u64,
}

/// Ticks per second of the times in `/proc`: fixed at 100 by the kernel's interface.
const TICKS_PER_SECOND: u64 = 100;
/// By how much ticks may exceed the precise account and be no more than rounding.
const ROUNDING: Duration = Duration::from_millis(20);

impl Usage {
    /// Of the process `pid` with all its threads. `None` if it cannot be read.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let place = format!("/proc/{pid}");
        let stat = std::fs::read_to_string(format!("{place}/stat")).ok()?;
        // The name in parentheses may hold anything; what follows the last one is regular.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |place: usize| -> Option<Duration> {
            let ticks: u64 = fields.get(place)?.parse().ok()?;
            Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
        };
        let (user, system) = (ticks(11)?, ticks(12)?);
        let status = std::fs::read_to_string(format!("{place}/status")).ok()?;
        let (cpu, switches) = of_threads(&place).unwrap_or((user + system, 0));
        Some(Self {
            cpu,
            user,
            system,
            rss: field(&status, "VmRSS:")? * 1024,
            rss_max: field(&status, "VmHWM:")? * 1024,
            switches,
        })
    }

    /// CPU time since `before`. The precise account forgets threads that have ended; ticks do not.
    pub(crate) fn cpu_since(&self, before: &Self) -> Duration {
        let precise = self.cpu.saturating_sub(before.cpu);
        let ticks = (self.user + self.system).saturating_sub(before.user + before.system);
        if ticks > precise + ROUNDING + precise / 20 { ticks } else { precise }
    }

    /// The part of the CPU time since `before` that was in user mode, from 0 to 1.
    pub(crate) fn user_share_since(&self, before: &Self) -> Option<f64> {
        let user = self.user.saturating_sub(before.user).as_secs_f64();
        let system = self.system.saturating_sub(before.system).as_secs_f64();
        (user + system > 0.0).then(|| user / (user + system))
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The scheduler's own account in nanoseconds, and switches, summed over the threads alive now.
fn of_threads(place: &str) -> Option<(Duration, u64)> {
    let (mut nanos, mut switches) = (0u64, 0);
    for task in std::fs::read_dir(format!("{place}/task")).ok()? {
        let path = task.ok()?.path();
        // A thread that has ended between the two is one that has ended.
        let Ok(text) = std::fs::read_to_string(path.join("schedstat")) else { continue };
        nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Some((Duration::from_nanos(nanos), switches))
}

/// CPU time of the thread that asks.
pub(crate) fn own_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// A `perf` that counts the system calls of a process.
#[derive(Debug)]
pub(crate) struct Syscalls(Child);

impl Syscalls {
    /// # Errors
    /// A sentence that says what is missing.
    pub(crate) fn count(pid: u32) -> Result<Self, String> {
        let child = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        child
            .map(Self)
            .map_err(|error| format!("system calls are not counted: perf cannot be started: {error}"))
    }

    /// How many there were.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub(crate) fn stop(self) -> Result<u64, String> {
        // It prints when it is interrupted.
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let output = self.0.wait_with_output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        counted(&said).ok_or_else(|| {
            let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("perf says nothing");
            format!("system calls are not counted: {}", line.trim())
        })
    }
}

/// Reads `COUNT,,raw_syscalls:sys_enter,…`.
fn counted(said: &str) -> Option<u64> {
    said.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_an_account() {
        let usage = Usage::of(std::process::id());
        assert!(usage.is_some_and(|usage| usage.rss > 0 && usage.rss_max >= usage.rss && usage.switches > 0));
        assert!(Usage::of(u32::MAX).is_none());
    }

    #[test]
    fn ticks_count_where_threads_have_ended() {
        let usage = |precise, ticks| Usage {
            cpu: Duration::from_millis(precise),
            user: Duration::from_millis(ticks),
            ..Usage::default()
        };
        assert_eq!(usage(105, 110).cpu_since(&usage(0, 0)), Duration::from_millis(105));
        assert_eq!(usage(105, 900).cpu_since(&usage(0, 0)), Duration::from_millis(900));
        assert_eq!(usage(1, 900).user_share_since(&usage(0, 0)), Some(1.0));
        assert_eq!(usage(1, 0).user_share_since(&usage(0, 0)), None);
    }

    #[test]
    fn what_perf_says_is_read() {
        assert_eq!(counted("\n1234,,raw_syscalls:sys_enter,1002003,100.00,,\n"), Some(1234));
        assert_eq!(counted("<not counted>,,raw_syscalls:sys_enter,0,100.00,,"), None);
        assert_eq!(counted("Error: no permission"), None);
    }
}
