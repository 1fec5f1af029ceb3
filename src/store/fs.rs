//! The disk as the store sees it: a narrow trait, and its real implementation. Nothing else in the store names
//! `std::fs` or the machine's clock, so the whole store runs over [`crate::fault_fs::FaultFs`] too.
#![expect(clippy::disallowed_methods, reason = "the one place where the log meets the disk and its time")]

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One open file. Offsets are absolute; there is no cursor.
pub trait FsFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, extending the file if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the contents durable, and the length as far as reading them needs it.
    fn sync_data(&self) -> io::Result<()>;
    /// Extends the file with zeros that really occupy space up to `len`, and syncs them. Never shortens it.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Sets the length.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The present length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Why a directory lock was not granted.
#[derive(Debug)]
pub enum LockError {
    /// Another process (or another store in this one) holds it.
    Held(Option<u32>),
    /// The lock file cannot be made or written.
    Io(io::Error),
}

/// Releases the directory lock when dropped.
pub type LockGuard = Box<dyn Any + Send + Sync>;

/// A file system and a monotonic clock.
pub trait Fs: Send + Sync {
    /// Makes a directory and its parents.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    /// Makes a file, or empties an existing one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    /// Names of the entries of a directory, in no particular order; empty if it does not exist.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Renames a file, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock that keeps a second process out, and writes the process id into it.
    fn lock(&self, path: &Path) -> Result<LockGuard, LockError>;
    /// Bytes that are free where a directory is.
    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// Monotonic time since some fixed moment.
    fn elapsed(&self) -> Duration;
}

/// The machine's own file system.
#[derive(Debug)]
pub struct RealFs {
    started: Instant,
}

impl RealFs {
    /// The machine's own file system.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for RealFs {
    fn default() -> Self {
        Self::new()
    }
}

struct RealFile(File);

impl FsFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        // Written zeros, not a hole: the later sync then changes no metadata, and a full disk is met here.
        const PIECE: usize = 1 << 20;
        let mut at = self.0.metadata()?.len();
        if at >= len {
            return Ok(());
        }
        let zeros = vec![0u8; PIECE];
        while at < len {
            let want = usize::try_from(len - at).unwrap_or(PIECE).min(PIECE);
            self.0.write_all_at(zeros.get(..want).unwrap_or_default(), at)?;
            at += want as u64;
        }
        self.0.sync_all()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Fs for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        // Messages are their owner's affair: what is made here, nobody else on the machine can read.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(RealFile(
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?,
        )))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held(pid));
            }
            Err(TryLockError::Error(e)) => return Err(LockError::Io(e)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(LockError::Io)?;
        Ok(Box::new(file))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
