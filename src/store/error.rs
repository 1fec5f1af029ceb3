//! Why a store does not open, and what its recovery found. Every text is a sentence an operator can act on.

use crate::blob_file::BlobDamage;
use sabir_model::ids::{Position, QueueId, Sequence};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the store did not open or close.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory cannot be made, read or written.
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process holds the directory.
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, where the lock file names it.
        pid: Option<u32>,
    },
    /// There is no log in the directory.
    Absent {
        /// The directory.
        dir: PathBuf,
    },
    /// Acknowledged data is damaged or missing.
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where the damage starts.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Written by a newer version of the program.
    NewerFormat {
        /// The file that says so.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version this program reads.
        known: u32,
    },
    /// There is no room for what the store needs before it can start.
    DiskFull {
        /// The directory.
        dir: PathBuf,
        /// Bytes that were asked for.
        needed: u64,
    },
    /// Any other I/O error.
    Io {
        /// What was being done.
        what: &'static str,
        /// With which file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The log failed while it was open; see [`crate::Store::failed`].
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { dir, source } => {
                write!(f, "the store directory {} cannot be written: {source}", dir.display())
            }
            Self::Locked { dir, pid: Some(pid) } => {
                write!(f, "the store directory {} is in use by another process (pid {pid})", dir.display())
            }
            Self::Locked { dir, pid: None } => {
                write!(f, "the store directory {} is in use by another process", dir.display())
            }
            Self::Absent { dir } => write!(f, "there is no message log in {}", dir.display()),
            Self::Corrupt { file, offset, reason } => write!(
                f,
                "the message log is damaged at byte {offset} of {}: {reason}; restore it from a backup, or set store.quarantine to go on without the damaged part",
                file.display()
            ),
            Self::NewerFormat { file, found, known } => write!(
                f,
                "{} has store format {found}, and this version reads formats up to {known}; use a newer version",
                file.display()
            ),
            Self::DiskFull { dir, needed } => write!(
                f,
                "the disk that holds the store directory {} is full: starting needs {needed} more bytes",
                dir.display()
            ),
            Self::Io { what, file, source } => write!(f, "cannot {what} {}: {source}", file.display()),
            Self::Failed(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory { source, .. } | Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a persistent send is refused now. It may succeed later, except after `Failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// No space for another segment; retried every second.
    Disk,
    /// More bytes wait to be written than the hard mark allows.
    Pending,
    /// The log failed; the process is about to end.
    Failed,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "the disk is full",
            Self::Pending => "the disk is slower than the senders and the write buffer is full",
            Self::Failed => "the message log has failed",
        })
    }
}

impl std::error::Error for Full {}

/// Why messages could not be read, or not all of them.
#[derive(Debug)]
pub enum ReadError {
    /// What was appended before the call cannot be written now, so it cannot be read either: the disk is full.
    NotWritten,
    /// Messages that must be there cannot be read. All others were told.
    Damaged {
        /// The file; the first one, if there are several.
        file: PathBuf,
        /// Where the damage starts.
        offset: u64,
        /// The numbers that were wanted and are lost, as inclusive ranges in ascending order.
        lost: Vec<(Sequence, Sequence)>,
    },
    /// Any other I/O error.
    Io {
        /// The file that was read.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The log failed before; see [`crate::Store::failed`].
    Failed(String),
    /// The log is closed.
    Closed,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWritten => f.write_str(
                "what was sent last cannot be read back before it is written, and the disk is full",
            ),
            Self::Damaged { file, offset, lost } => {
                let count = lost.iter().fold(0u64, |sum, (first, last)| {
                    sum.saturating_add((last.0 - first.0).saturating_add(1))
                });
                write!(
                    f,
                    "the message log is damaged at byte {offset} of {}: {count} messages cannot be read",
                    file.display()
                )
            }
            Self::Io { file, source } => write!(f, "cannot read {}: {source}", file.display()),
            Self::Failed(sentence) => f.write_str(sentence),
            Self::Closed => f.write_str("the message log is closed"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The torn end of the log: what an interrupted write left behind. Nothing receipted at level `fsync` is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tear {
    /// The file that was cut.
    pub file: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// Recognisable bytes that were dropped, over all files.
    pub bytes_cut: u64,
    /// The first position that is gone.
    pub position: Position,
}

/// A damaged part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file.
    pub file: PathBuf,
    /// Where the damage starts.
    pub offset: u64,
    /// How many bytes were skipped.
    pub bytes: u64,
    /// Where a copy of them is, if it was put into quarantine.
    pub copy: Option<PathBuf>,
}

/// Sequence numbers of one queue whose messages are lost with a damaged part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The queue.
    pub queue: QueueId,
    /// First number.
    pub first: u64,
    /// Last number, inclusive.
    pub last: u64,
    /// False if the numbers may also have belonged to non-persistent messages.
    pub certain: bool,
}

/// What recovery did and found. `Display` tells it in sentences, one per line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The store was made new.
    pub fresh: bool,
    /// The position of the checkpoint that recovery started from.
    pub checkpoint: Position,
    /// The last position of the log.
    pub position: Position,
    /// Segments that hold live messages.
    pub segments: u64,
    /// Frames replayed after the checkpoint.
    pub frames: u64,
    /// Bytes of segments and checkpoints read.
    pub bytes_read: u64,
    /// Live messages, counted once for each queue that holds them.
    pub messages: u64,
    /// Queues known to the log.
    pub queues: u64,
    /// Live metadata entries.
    pub entries: u64,
    /// The torn end that was cut, if there was one.
    pub tear: Option<Tear>,
    /// Damaged parts that were skipped.
    pub damage: Vec<Damage>,
    /// Messages that are lost with them.
    pub lost: Vec<LostRange>,
    /// Large bodies that are damaged or missing; their messages are among the lost ones.
    pub bodies: Vec<BlobDamage>,
    /// Messages that are lost although nothing is damaged: they were put at a level below `fsync` and `interval`, and their
    /// large bodies had not reached the disk when the machine stopped.
    pub unsynced: Vec<LostRange>,
    /// Large bodies in files of their own.
    pub blobs: u64,
    /// Files of large bodies that no live message names. Opening removes them; if there is damage, it puts them into
    /// quarantine.
    pub orphans: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fresh {
            return f.write_str("The message log is new.");
        }
        write!(
            f,
            "The message log was recovered up to position {} in {} ms: {} messages in {} segments, {} queues, {} metadata entries; {} frames replayed after the checkpoint at position {}.",
            self.position.0,
            self.elapsed.as_millis(),
            self.messages,
            self.segments,
            self.queues,
            self.entries,
            self.frames,
            self.checkpoint.0
        )?;
        if let Some(tear) = &self.tear {
            write!(
                f,
                "\nAn interrupted write was cut off at byte {} of {}: {} bytes from position {} on, none of them receipted as synced.",
                tear.offset,
                tear.file.display(),
                tear.bytes_cut,
                tear.position.0
            )?;
        }
        if self.orphans > 0 {
            write!(f, "\n{} files of large messages are not needed by any live message", self.orphans)?;
            f.write_str(if self.damage.is_empty() && self.bodies.is_empty() {
                "."
            } else {
                ", so far as the damaged log tells."
            })?;
        }
        for lost in &self.unsynced {
            write!(
                f,
                "\nThe large messages {} to {} of queue {} had not reached the disk when the machine stopped; they were not receipted as synced.",
                lost.first, lost.last, lost.queue.0
            )?;
        }
        for damage in &self.damage {
            write!(
                f,
                "\n{} damaged bytes at byte {} of {} were skipped",
                damage.bytes,
                damage.offset,
                damage.file.display()
            )?;
            match &damage.copy {
                Some(copy) => write!(f, " and copied to {}.", copy.display())?,
                None => f.write_str("; no live message is missing because of them.")?,
            }
        }
        for body in &self.bodies {
            write!(f, "\n{body}.")?;
        }
        for lost in &self.lost {
            write!(
                f,
                "\nThe messages {} to {} of queue {} {} lost.",
                lost.first,
                lost.last,
                lost.queue.0,
                if lost.certain { "are" } else { "may be" }
            )?;
        }
        Ok(())
    }
}
