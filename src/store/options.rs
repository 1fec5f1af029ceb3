//! What the store is told when it opens, and the durability levels by their public names.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What a receipt promises. The names are the same everywhere: configuration, metrics, documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Level {
    /// Nothing is promised; the message need not be in the log at all.
    Memory,
    /// Handed to the operating system: survives the death of the process, not of the machine.
    Os,
    /// Handed to the operating system, and synced no later than this much afterwards.
    Interval(Duration),
    /// On stable storage: survives power loss.
    #[default]
    Fsync,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Os => f.write_str("os"),
            Self::Interval(span) => write!(f, "interval({})", span.as_millis()),
            Self::Fsync => f.write_str("fsync"),
        }
    }
}

/// The text is none of `memory`, `os`, `interval(ms)`, `fsync`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLevel(String);

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "“{}” is no durability level; the levels are memory, os, interval(milliseconds) and fsync",
            self.0
        )
    }
}

impl std::error::Error for UnknownLevel {}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let unknown = || UnknownLevel(text.to_owned());
        match text.trim() {
            "memory" => Ok(Self::Memory),
            "os" => Ok(Self::Os),
            "fsync" => Ok(Self::Fsync),
            other => {
                let inner = other
                    .strip_prefix("interval(")
                    .and_then(|rest| rest.strip_suffix(')'))
                    .ok_or_else(unknown)?;
                let ms: u64 = inner.trim().parse().map_err(|_| unknown())?;
                if ms == 0 { Err(unknown()) } else { Ok(Self::Interval(Duration::from_millis(ms))) }
            }
        }
    }
}

/// Called once, with one sentence, when the log can no longer keep its promises.
pub type FatalHook = Arc<dyn Fn(&str) + Send + Sync>;

/// How a store is opened. `StoreOptions::new(dir)` has the defaults of the documentation.
#[derive(Clone)]
pub struct StoreOptions {
    /// The store's directory; made if it is absent.
    pub dir: PathBuf,
    /// Size of one journal segment. Default 64 MiB, at least 4 KiB.
    pub segment_bytes: u64,
    /// Budget of the journal: above it, segments that are mostly dead are evacuated. Default 1 GiB.
    pub journal_bytes_max: u64,
    /// Hard bound on the bytes of all segment files and large bodies; above it persistent sends are refused. Default: the disk
    /// itself.
    pub disk_bytes_max: Option<u64>,
    /// Low mark of the bytes that the disk has free: below it persistent sends are refused. Default 0, which is none.
    pub disk_free_bytes_min: u64,
    /// High mark of the bytes that the disk has free: from it on they are accepted again. Default 0, which is the low mark.
    pub disk_free_bytes_resume: u64,
    /// How fast old segments and large bodies are read in the background to see whether they can be; 0 is not at all. Default 1 MiB.
    pub scrub_bytes_per_second: u64,
    /// Hard mark of unwritten bytes; above it persistent sends are refused. Default 64 MiB.
    pub pending_bytes_max: usize,
    /// Longest time between two checkpoints while anything changes. Default 30 s.
    pub checkpoint_interval: Duration,
    /// Copy damaged parts of the log aside and go on without them, instead of refusing to start; damaged large bodies are moved
    /// aside. Default off.
    pub quarantine: bool,
    /// No threads: whoever owns the store calls [`crate::Store::turn`]. For seeded simulations and exhaustive
    /// crash tests, where the order of every I/O must follow from the inputs. Default off.
    pub manual: bool,
    /// Called when a write or sync of the log failed. The server exits non-zero in it.
    pub on_fatal: Option<FatalHook>,
}

impl StoreOptions {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ..Self::default() }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            segment_bytes: 64 << 20,
            journal_bytes_max: 1 << 30,
            disk_bytes_max: None,
            disk_free_bytes_min: 0,
            disk_free_bytes_resume: 0,
            scrub_bytes_per_second: 1 << 20,
            pending_bytes_max: 64 << 20,
            checkpoint_interval: Duration::from_secs(30),
            quarantine: false,
            manual: false,
            on_fatal: None,
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("dir", &self.dir)
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_back_from_their_own_text_and_nothing_else_is() {
        for level in [Level::Memory, Level::Os, Level::Interval(Duration::from_millis(250)), Level::Fsync] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        for bad in
            ["", "sync", "interval", "interval()", "interval(0)", "interval(-1)", "interval(5", "Fsync"]
        {
            assert!(bad.parse::<Level>().is_err(), "{bad}");
        }
    }
}
