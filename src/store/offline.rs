//! Looking at a log that nobody has open, and mending it: what `sabir store` does.
//!
//! Verifying is the recovery of `recovery.rs` with quarantine, over a disk that forgets what is written: so it
//! reads every frame behind the checkpoint and every segment with something alive in it, and finds exactly what
//! repairing would give up.

use crate::error::{Damage, RecoveryReport, StoreError};
use crate::fs::{Fs, FsFile, LockError, LockGuard};
use crate::manifest::{self, Paths};
use crate::options::StoreOptions;
use crate::recovery::{self, Recovered};
use crate::{Recover, Store};
use parking_lot::Mutex;
use sabir_model::ids::{Position, QueueId, Sequence};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Told how many bytes were read, out of how many, about; once for each MiB.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A log that is not open. As long as this lives, no store opens it.
pub struct Offline {
    fs: Arc<dyn Fs>,
    paths: Paths,
    store_id: u64,
    format: u32,
    lock: Option<LockGuard>,
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offline").field("dir", &self.paths.root).finish_non_exhaustive()
    }
}

/// What is in a log, by its index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The format it was written in.
    pub format: u32,
    /// The id that its frames are stamped with.
    pub store_id: u64,
    /// The last position of the log.
    pub position: Position,
    /// The position of its newest checkpoint.
    pub checkpoint: Position,
    /// Metadata entries.
    pub entries: u64,
    /// Files of the journal, in the order in which they were written.
    pub segments: Vec<SegmentInfo>,
    /// Queues, by id.
    pub queues: Vec<QueueInfo>,
    /// Files of large bodies.
    pub blobs: u64,
    /// Bytes of these.
    pub blob_bytes: u64,
    /// Those of them that no live message needs: the next start removes them.
    pub orphans: u64,
}

/// A file of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number, which is its name.
    pub number: u64,
    /// Its size.
    pub file_bytes: u64,
    /// Up to where it is written; 0 if nothing in it counts any more.
    pub end: u64,
    /// Messages alive in it, each counted once for every queue that holds it.
    pub live: u64,
    /// Bytes of these, about.
    pub bytes_live: u64,
}

/// A queue, as far as the log knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its id.
    pub queue: QueueId,
    /// Its next unused number.
    pub next: Sequence,
    /// Live messages.
    pub messages: u64,
    /// Bytes of these, about.
    pub bytes: u64,
    /// Those of them with a large body in a file of its own.
    pub large: u64,
    /// Bytes of these bodies.
    pub large_bytes: u64,
    /// The number of the oldest one.
    pub oldest: Option<Sequence>,
    /// Messages whose delivery has failed before.
    pub attempted: u64,
}

/// Hears metadata entries: table, key, value.
pub type EachEntry<'a> = &'a mut dyn FnMut(u8, &[u8], &[u8]);

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// What recovery says of it: what is damaged, where, and which messages are lost with it. Copies that it names
    /// were not made.
    pub report: RecoveryReport,
    /// Copies of the manifest that cannot be read, while another one can.
    pub manifests: Vec<PathBuf>,
}

impl Verification {
    /// Whether nothing is to be repaired. An interrupted last write is not, nor is damage (without a copy in the report) by
    /// which nothing is lost: it goes with its file.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let harmless = self.report.damage.iter().all(|damage| damage.copy.is_none());
        harmless && self.report.lost.is_empty() && self.manifests.is_empty()
    }
}

impl Offline {
    /// Takes the directory's lock. Makes nothing but the lock file.
    ///
    /// # Errors
    /// [`StoreError::Absent`] if there is no log, [`StoreError::Locked`] if somebody has it open.
    pub fn open(dir: &Path, fs: Arc<dyn Fs>) -> Result<Self, StoreError> {
        let paths = Paths::new(dir);
        let Some((format, store_id)) = manifest::read_newest(&*fs, &paths)? else {
            return Err(StoreError::Absent { dir: paths.root });
        };
        let lock = fs.lock(&paths.root.join("LOCK")).map_err(|error| match error {
            LockError::Held(pid) => StoreError::Locked { dir: paths.root.clone(), pid },
            LockError::Io(source) => StoreError::Directory { dir: paths.root.clone(), source },
        })?;
        Ok(Self { fs, paths, store_id, format, lock: Some(lock) })
    }

    /// Reads the index, and tells `entry` every metadata entry: its table, key and value. Segments are not read, but for
    /// what lies behind the checkpoint.
    ///
    /// # Errors
    /// As opening the store.
    pub fn inspect(&self, entry: EachEntry<'_>) -> Result<Inspection, StoreError> {
        let mut told = Entries(entry);
        let Recovered { index, report, files, blobs, .. } =
            recovery::recover(&*self.fs, &self.paths, self.store_id, false, &mut told)?;
        let segments = files.iter().map(|(&number, &file_bytes)| {
            let info = index.segments.get(&number).copied().unwrap_or_default();
            SegmentInfo { number, file_bytes, end: info.end, live: info.live, bytes_live: info.bytes_live() }
        });
        let queues = index.queues.iter().map(|(&id, queue)| {
            let mut info = QueueInfo {
                queue: QueueId(id),
                next: Sequence(queue.next.max(1)),
                attempted: queue.attempts.len() as u64,
                ..QueueInfo::default()
            };
            for (last, run) in queue.runs() {
                let count = run.count(last);
                info.oldest.get_or_insert(Sequence(run.first));
                info.messages += count;
                info.bytes = info.bytes.saturating_add(run.bytes_of(count));
            }
            info
        });
        let (files, bytes) = blobs.count();
        let mut inspection = Inspection {
            format: self.format,
            store_id: self.store_id,
            position: report.position,
            checkpoint: report.checkpoint,
            entries: report.entries,
            segments: segments.collect(),
            queues: queues.collect(),
            blobs: files,
            blob_bytes: bytes,
            orphans: report.orphans,
        };
        inspection.queues.sort_unstable_by_key(|info| info.queue);
        for ((queue, _), name) in index.blobs.holders() {
            let at = inspection.queues.binary_search_by_key(&QueueId(queue), |info| info.queue);
            if let Some(info) = at.ok().and_then(|at| inspection.queues.get_mut(at)) {
                info.large += 1;
                info.large_bytes = info.large_bytes.saturating_add(name.len);
            }
        }
        Ok(inspection)
    }

    /// Reads everything that counts, and changes nothing.
    ///
    /// # Errors
    /// Only if reading fails; damage is told in the result.
    pub fn verify(&self, progress: Progress) -> Result<Verification, StoreError> {
        let dry = Dry {
            fs: Arc::clone(&self.fs),
            hidden: Mutex::default(),
            read: Arc::new(Read { bytes: AtomicU64::new(0), total: self.bytes()?, progress }),
        };
        let mut ignored = |_: u8, _: &[u8], _: &[u8]| {};
        let recovered =
            recovery::recover(&dry, &self.paths, self.store_id, true, &mut Entries(&mut ignored))?;
        Ok(Verification {
            report: recovered.report,
            manifests: manifest::damaged_slots(&*self.fs, &self.paths)?,
        })
    }

    /// Bytes of all segments, checkpoints and large bodies.
    fn bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0u64;
        for dir in [&self.paths.journal, &self.paths.checkpoints, &self.paths.blobs] {
            let io = |file: &Path| {
                let file = file.to_owned();
                move |source| StoreError::Io { what: "look at", file, source }
            };
            for name in self.fs.list(dir).map_err(io(dir))? {
                let path = dir.join(name);
                let len = self.fs.open(&path).and_then(|file| file.len()).map_err(io(&path))?;
                bytes = bytes.saturating_add(len);
            }
        }
        Ok(bytes)
    }

    /// Does what opening with quarantine does: copies what is damaged aside, gives up what is lost with it, and leaves a
    /// log that opens. The report says what was lost.
    ///
    /// # Errors
    /// As opening the store.
    pub fn repair(mut self) -> Result<RecoveryReport, StoreError> {
        let options = StoreOptions {
            // Whatever its segments are: the least takes no space that a full disk may not have.
            segment_bytes: 0,
            quarantine: true,
            manual: true,
            ..StoreOptions::new(&self.paths.root)
        };
        let damaged = manifest::damaged_slots(&*self.fs, &self.paths)?;
        drop(self.lock.take());
        let mut ignored = |_: u8, _: &[u8], _: &[u8]| {};
        let (store, mut report) = Store::open(options, Arc::clone(&self.fs), &mut Entries(&mut ignored))?;
        store.close()?;
        // They were written anew.
        let mended = damaged.into_iter().map(|file| Damage { file, offset: 0, bytes: 0, copy: None });
        report.damage.extend(mended);
        Ok(report)
    }
}

/// Passes metadata entries on, and nothing else.
struct Entries<'a>(EachEntry<'a>);

impl Recover for Entries<'_> {
    fn meta(&mut self, table: u8, key: &[u8], value: &[u8]) {
        (self.0)(table, key, value);
    }
    fn queue(&mut self, _: QueueId, _: Sequence, _: u64) {}
    fn live(&mut self, _: QueueId, _: Sequence, _: Sequence, _: u64) {}
    fn attempts(&mut self, _: QueueId, _: Sequence, _: u32) {}
}

struct Read {
    bytes: AtomicU64,
    total: u64,
    progress: Progress,
}

/// A disk that is only read: what would be written is forgotten, what would be moved away is hidden.
struct Dry {
    fs: Arc<dyn Fs>,
    hidden: Mutex<BTreeSet<PathBuf>>,
    read: Arc<Read>,
}

struct DryFile {
    /// None for a file that would have been made.
    file: Option<Arc<dyn FsFile>>,
    read: Arc<Read>,
}

impl Fs for Dry {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        if self.hidden.lock().contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(DryFile { file: Some(self.fs.open(path)?), read: Arc::clone(&self.read) }))
    }
    fn create(&self, _: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(DryFile { file: None, read: Arc::clone(&self.read) }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let hidden = self.hidden.lock();
        let mut names = self.fs.list(dir)?;
        names.retain(|name| !hidden.contains(&dir.join(name)));
        Ok(names)
    }
    fn rename(&self, from: &Path, _: &Path) -> io::Result<()> {
        self.remove(from)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.hidden.lock().insert(path.to_owned());
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        self.fs.lock(path)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.fs.free_bytes(dir)
    }
    fn elapsed(&self) -> Duration {
        self.fs.elapsed()
    }
}

impl FsFile for DryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(file) = &self.file else { return Ok(0) };
        let n = file.read_at(buffer, offset)?;
        let before = self.read.bytes.fetch_add(n as u64, Ordering::Relaxed);
        let after = before + n as u64;
        if before >> 20 != after >> 20 {
            (self.read.progress)(after.min(self.read.total), self.read.total);
        }
        Ok(n)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        self.file.as_ref().map_or(Ok(0), |file| file.len())
    }
}
