//! What a process has used, from the kernel's accounts.

use std::time::Duration;

/// CPU time and memory of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time together.
    pub(crate) cpu: Duration,
    /// Resident memory now, in bytes.
    pub(crate) rss: u64,
    /// Most resident memory so far, in bytes.
    pub(crate) rss_max: u64,
}

/// Ticks per second of the times in `/proc`: fixed at 100 by the kernel's interface.
const TICKS_PER_SECOND: u64 = 100;

impl Usage {
    /// Of the process `pid` with all its threads, or of this one. `None` if it cannot be read.
    pub(crate) fn of(pid: Option<u32>) -> Option<Self> {
        let place = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let stat = std::fs::read_to_string(format!("{place}/stat")).ok()?;
        // The name in parentheses may hold anything; what follows the last one is regular.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let status = std::fs::read_to_string(format!("{place}/status")).ok()?;
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        Some(Self {
            cpu: pid
                .and_then(|_| precise_cpu(&place))
                .unwrap_or_else(|| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)),
            rss: kib("VmRSS:")? * 1024,
            rss_max: kib("VmHWM:")? * 1024,
        })
    }
}

/// The scheduler's own account in nanoseconds, summed over the threads alive now. Ours come and go; a broker's stay.
fn precise_cpu(place: &str) -> Option<Duration> {
    let mut total = 0u64;
    for task in std::fs::read_dir(format!("{place}/task")).ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(total))
}
