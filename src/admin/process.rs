//! What the operating system knows of this process.

use std::fs;

/// The process as metrics show it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Time since the start.
    pub uptime_seconds: f64,
    /// Version of the program.
    pub version: &'static str,
    /// What it uses, where the system tells.
    pub usage: Option<Usage>,
}

/// What the process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: u64,
    /// User and system time.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Most descriptors it may open; absent where there is no limit.
    pub descriptors_max: Option<u64>,
}

impl Usage {
    /// Reads it from `/proc/self`; `None` where there is no such thing.
    #[must_use]
    pub fn read() -> Option<Self> {
        let statm = fs::read_to_string("/proc/self/statm").ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        Some(Self {
            resident_bytes: resident_pages(&statm)? * rustix::param::page_size() as u64,
            cpu_seconds: cpu_ticks(&stat)? as f64 / rustix::param::clock_ticks_per_second() as f64,
            // One of them is the directory that is being listed.
            descriptors: fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64,
            descriptors_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        })
    }
}

/// The second field of `statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// `utime` and `stime` of `stat`, which follow the process's name in parentheses; the name may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_process_is_called() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 99 1000 300";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("nonsense"), None);
        assert_eq!(resident_pages("1000 300 200 1 0 400 0\n"), Some(300));
    }

    #[test]
    fn this_process_uses_something() {
        if let Some(usage) = Usage::read() {
            assert!(usage.resident_bytes > 0 && usage.descriptors > 0);
        }
    }
}
