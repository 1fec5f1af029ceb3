//! The message log: the only part of Sabir that syncs, and the only one that may say that something is durable.
//!
//! ```text
//! LOCK  MANIFEST.a  MANIFEST.b        format version and store id; two equal copies, written one after the other
//! quarantine/                         what recovery copied aside
//! shard-0/J/000000000017.j            journal segments: frames, one behind the other, 8-byte aligned
//! shard-0/C/000000000042.ckpt         checkpoints (see `checkpoint.rs`); `spare` is the space of the next one
//! shard-0/P/000000000018.p            page files: what is old and alive of one queue, copied out of the journal
//! shard-0/B/000000000042.b            large bodies, a file each (see `blob_file.rs`)
//! ```
//! A **frame** is one write: `magic u32 | crc32c u32 | len u64 | stamp u64 | lsn u64 | durable_lsn u64 | n
//! u32 | 0 u32 | n groups`. All integers are little endian. The CRC covers everything behind it and is salted
//! with `stamp ⊕ file offset`; the stamp is a function of the store's id and the segment's number, and
//! numbers are never used twice: recycled bytes and misdirected writes are no frames, nor is anything a
//! client sends. `lsn` is the position of the first group, `durable_lsn` what was synced when the frame was
//! written. An empty frame (n = 0) only carries that mark, and starts at a multiple of 4096 where there is
//! room. A group is a run of ops (see `record.rs`) and never spans frames; a frame never spans segments: one
//! that is larger than a segment gets a segment that was enlarged for it.
//!
//! A **page file** is a file of such frames, under a number out of the same row as segments, with the stamp of that
//! number. Its groups are one *moved* op each; they are counted from 1 in every file, and `durable_lsn` is 0. No
//! frame of it is replayed: the log says in *paged* ops what of it counts, and does so after the file is synced. It
//! is removed when a durable checkpoint no longer mentions it; one that none mentions is removed at the next start.
//!
//! Format 3. Who reads a higher number in the manifest refuses; a store of format 1 or 2, which differ in what their
//! checkpoints say and have neither page files nor large bodies, is read and becomes one of format 3 when it is opened.
//!
//! The way of an op: [`Appender`] (`journal.rs`) → committer (`group_commit.rs`) → `segment.rs` → `index.rs`
//! → `checkpoint.rs`, `reclaim.rs` and `evacuate.rs` (which fills page files through `page.rs`); back again through `recovery.rs`, and message by message through
//! `read.rs`. Segments come from `pool.rs`, large
//! bodies go through `blob.rs`, the disk from `fs.rs` or `fault_fs.rs`.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod blob;
mod blob_file;
mod blob_index;
mod blob_recovery;
mod blob_scrub;
mod checkpoint;
mod error;
mod evacuate;
pub mod fault_fs;
pub mod fs;
pub mod fuzz;
mod group_commit;
mod holes;
mod index;
mod interface;
mod journal;
mod manifest;
mod offline;
mod options;
mod page;
mod pool;
mod read;
mod reclaim;
mod record;
mod recovery;
mod runs;
mod scrub;
mod segment;
mod shared;
mod stats;
mod verify;

pub use blob::{Blob, BlobWriter, is_storage_full};
pub use blob_file::{BLOB_PIECE_BYTES, BlobDamage};
pub use error::{Damage, Full, LostRange, ReadError, RecoveryReport, StoreError, Tear};
pub use fault_fs::FaultFs;
pub use fs::{Fs, RealFs};
pub use interface::{Each, Payload, PutMeta, Recover, Wake};
pub use journal::{Appender, Durable};
pub use manifest::is_short_of_descriptors;
pub use offline::{EachEntry, Inspection, Offline, Progress, QueueInfo, SegmentInfo, Verification};
pub use options::{FatalHook, Level, StoreOptions, UnknownLevel};
pub use stats::{SYNC_US_BOUNDS, StoreStats};

use group_commit::{Committer, Turn};
use manifest::Paths;
use parking_lot::Mutex;
use reclaim::{Keeper, ManualPump, Pump};
use sabir_model::ids::{Position, QueueId, Sequence};
use shared::{KeeperState, Shared};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// The open message log. Clones are handles to the same log; the last one dropped closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    crew: Mutex<Crew>,
    /// Without threads: what [`Store::turn`] runs.
    machine: Option<Mutex<Machine>>,
}

/// What [`Store::close`] takes apart.
#[derive(Default)]
struct Crew {
    keeper: Option<JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
    pool: Option<JoinHandle<()>>,
    lock: Option<fs::LockGuard>,
    closed: bool,
}

struct Machine {
    committer: Committer,
    keeper: Keeper,
}

/// A smaller segment could not hold the frames that are cut for it.
const SEGMENT_BYTES_MIN: u64 = 4096;

impl Store {
    /// Opens or makes the log in `options.dir`, recovers it, and tells `recover` what it holds.
    ///
    /// # Errors
    /// See [`StoreError`]: each is one sentence for the operator, and the directory is left as it was found.
    pub fn open(
        mut options: StoreOptions,
        fs: Arc<dyn Fs>,
        recover: &mut dyn Recover,
    ) -> Result<(Self, RecoveryReport), StoreError> {
        options.segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
        let started = fs.elapsed();
        let paths = Paths::new(&options.dir);
        let lock = manifest::prepare(&*fs, &paths)?;
        let (store_id, fresh) = identify(&*fs, &paths)?;
        let mut recovered = recovery::recover(&*fs, &paths, store_id, options.quarantine, recover)?;
        let mut report = recovered.report;
        report.fresh = fresh && recovered.checkpoint == 0 && report.frames == 0;
        let last = recovered.index.lsn;
        let manual = options.manual;
        let shared = Arc::new(Shared {
            journal: journal::Journal::new(last, options.segment_bytes, options.pending_bytes_max),
            fs,
            paths,
            store_id,
            index: Mutex::new(recovered.index),
            applied: parking_lot::Condvar::new(),
            readers: read::Readers::default(),
            pool: pool::Pool::default(),
            blobs: blob::Blobs::default(),
            counters: stats::Counters::default(),
            uncheckpointed: AtomicU64::new(0),
            keeper: Mutex::new(KeeperState::default()),
            keeper_wake: parking_lot::Condvar::new(),
            options,
        });
        // Before anything of the present format is written.
        manifest::write(&*shared.fs, &shared.paths, store_id)
            .map_err(|source| opening_failed(&shared, source, 4096))?;
        // What a process wrote that was killed is perhaps not on the disk yet; the checkpoint will say that it is.
        for segment in &recovered.replayed {
            let file = shared.paths.segment(*segment);
            let synced = shared.fs.open(&file).and_then(|open| open.sync_data());
            synced.map_err(|source| StoreError::Io { what: "sync", file, source })?;
        }
        let number = recovered.checkpoint + 1;
        write_first_checkpoint(&shared, number, recovered.next_segment)?;
        recovered.blobs.remove_orphans(&*shared.fs, &shared.paths);
        shared.blobs.found(&recovered.blobs);
        {
            let mut state = shared.pool.state.lock();
            state.next_number = recovered.next_segment;
            state.disk_bytes = recovered.disk_bytes;
            state.dead = recovered.dead;
            state.dead_pages = recovered.dead_pages;
        }
        let filled = if manual { shared.fill_pool() } else { shared.fill_pool_to(1) };
        let Some(active) = shared.pool.take() else {
            let source = filled.err().unwrap_or_else(|| std::io::ErrorKind::StorageFull.into());
            return Err(opening_failed(&shared, source, shared.options.segment_bytes));
        };
        report.elapsed = shared.fs.elapsed().saturating_sub(started);
        let committer = Committer::new(Arc::clone(&shared), active, last);
        let keeper = Keeper::new(Arc::clone(&shared), number, last);
        let mut crew = Crew { lock: Some(lock), ..Crew::default() };
        let machine = if manual {
            Some(Mutex::new(Machine { committer, keeper }))
        } else {
            crew.committer = Some(spawn(&shared, "sabir-log-commit", move || committer.run())?);
            crew.keeper = Some(spawn(&shared, "sabir-log-keeper", move || keeper.run())?);
            let pool = Arc::clone(&shared);
            crew.pool = Some(spawn(&shared, "sabir-log-pool", move || pool.run_pool())?);
            None
        };
        Ok((Self { inner: Arc::new(Inner { shared, crew: Mutex::new(crew), machine }) }, report))
    }

    /// Starts a group that may hold puts.
    ///
    /// # Errors
    /// [`Full`]: persistent sends are refused now.
    #[inline]
    pub fn begin_put(&self) -> Result<Appender<'_>, Full> {
        self.inner.shared.journal.begin_put()
    }

    /// As [`Store::begin_put`], for messages of about `bytes` in all. Where that needs more than a segment, the
    /// space is taken here, on the caller's thread, so that a full disk refuses this message instead of
    /// stopping the log behind it.
    ///
    /// # Errors
    /// [`Full`]: persistent sends, or one of this size, are refused now.
    pub fn begin_put_sized(&self, bytes: usize) -> Result<Appender<'_>, Full> {
        let shared = &self.inner.shared;
        let group = self.begin_put()?;
        // Room for what surrounds the message: frame header, op header, targets, small groups in the same frame.
        let needed =
            (bytes as u64).saturating_add(64 << 10).saturating_add(shared.journal.frame_bytes_soft());
        if bytes as u64 > shared.options.segment_bytes / 2 && needed > shared.options.segment_bytes {
            // What waits to be written comes before it, perhaps into the same segment and perhaps as large as this; so
            // there must be room for all of it. Nothing is added meanwhile, for the group holds the buffer.
            let before = shared.journal.pending_bytes() as u64;
            let whole = needed.saturating_add(before).saturating_add(before / 8);
            shared.reserve(whole).map_err(|_| Full::Disk)?;
        }
        Ok(group)
    }

    /// Begins a body in a file of its own: for one that is large, or that is to be written before all of it is there. Its
    /// `expected` bytes are reserved against the limits of the disk; more may be written as far as these allow. The
    /// file is made with the first 64 KiB.
    ///
    /// # Errors
    /// [`Full`]: a body of this size is refused now.
    pub fn blob(&self, expected: u64) -> Result<BlobWriter, Full> {
        self.inner.shared.begin_blob(expected)
    }

    /// The body with this number, if a live message names it or somebody has a handle. A put is seen once it is written.
    #[must_use]
    pub fn open_blob(&self, id: u64) -> Option<Blob> {
        self.inner.shared.open_blob(id)
    }

    /// Starts a group of acknowledgements, counts, metadata or deletions. There is always room for these.
    #[inline]
    pub fn begin(&self) -> Appender<'_> {
        self.inner.shared.journal.begin()
    }

    /// What is covered now.
    #[inline]
    pub fn watermark(&self) -> Durable {
        self.inner.shared.journal.watermark()
    }

    /// Wakes `wake` once when `position` is covered at `level`, or when the store fails or closes; on the
    /// caller's thread, at once, if that is so already. Ask [`Store::watermark`] which it was, and at the
    /// level the group was finished with: nothing syncs a group that did not ask for it before the next one
    /// that does.
    pub fn wake_at(&self, position: Position, level: Level, wake: Arc<dyn Wake>) {
        self.inner.shared.journal.wake_at(position, level, wake);
    }

    /// The position of the newest group that has been appended.
    pub fn last_position(&self) -> Position {
        self.inner.shared.journal.last_position()
    }

    /// Bytes appended but not yet written, or not yet synced where their groups ask for that: the measure for
    /// back-pressure.
    #[inline]
    pub fn pending_bytes(&self) -> usize {
        self.inner.shared.journal.pending_bytes()
    }

    /// Whether more waits to be written than an eighth of what may: then what need not be written should not be.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.pending_bytes() > self.inner.shared.options.pending_bytes_max / 8
    }

    /// Blocks until everything appended so far is synced, or the store has failed.
    pub fn sync(&self) -> Durable {
        let shared = &self.inner.shared;
        if let Some(machine) = &self.inner.machine {
            let position = shared.journal.last_position();
            let mut machine = machine.lock();
            ManualPump { shared: Arc::clone(shared), committer: &mut machine.committer }.synced(position);
        } else {
            let position = shared.journal.request_sync();
            if shared.wait_synced(position) {
                shared.wait_applied(position);
            }
        }
        // Of what was put at a lower level.
        shared.sync_blobs();
        self.watermark()
    }

    /// Reads live messages of `queue`: those of `wanted` (ascending, disjoint, inclusive ranges), in ascending
    /// order, each told once to `each` until it breaks. What the caller wants and the log does not hold alive is
    /// passed over in silence; what was acknowledged a moment ago may still be told. What was appended before the
    /// call is found, and written for that if need be.
    /// Blocks on the disk; `each` is called without any lock of the store held. Without threads it must not be
    /// called by a waker.
    ///
    /// # Errors
    /// See [`ReadError`]. What was told stays told.
    pub fn read(
        &self,
        queue: QueueId,
        wanted: &mut dyn Iterator<Item = (Sequence, Sequence)>,
        each: Each<'_>,
    ) -> Result<(), ReadError> {
        let shared = &self.inner.shared;
        let mut write = |position| match &self.inner.machine {
            Some(machine) => {
                let mut machine = machine.lock();
                ManualPump { shared: Arc::clone(shared), committer: &mut machine.committer }.applied(position)
            }
            None => shared.wait_applied(position),
        };
        read::Reading::new(shared, queue, &mut write).run(wanted, each)
    }

    /// Without threads (see [`StoreOptions::manual`]): writes what was appended, makes segments, and does the
    /// keeper's duties, once. Wakers run inside and must not call back into this method.
    pub fn turn(&self) {
        let Some(machine) = &self.inner.machine else { return };
        let shared = &self.inner.shared;
        let mut machine = machine.lock();
        let Machine { committer, keeper } = &mut *machine;
        let turn = committer.turn();
        // An error here is remembered as a full disk; the next turn tries again.
        let _ = shared.fill_pool();
        if turn == Turn::NoSpace {
            committer.turn();
        }
        keeper.turn(&mut ManualPump { shared: Arc::clone(shared), committer });
        let _ = shared.fill_pool();
    }

    /// Writes and syncs everything and the mark that says so, stops the threads, releases the directory.
    /// Idempotent.
    ///
    /// # Errors
    /// The log had failed, or what was appended last found no space on the disk.
    pub fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let shared = &self.inner.shared;
        let mut stats = StoreStats::default();
        shared.counters.fill(&mut stats);
        stats.messages_appended = shared.journal.messages_appended();
        stats.disk_full = shared.journal.disk_full.load(Ordering::Relaxed);
        {
            let state = shared.pool.state.lock();
            stats.segments_free = (state.ready.len() + state.dead.len()) as u64;
            stats.disk_bytes = state.disk_bytes;
        }
        stats.blobs = shared.blobs.files();
        stats.blob_bytes = shared.blobs.bytes();
        stats.damaged = shared.readers.damaged();
        let index = shared.index.lock();
        stats.bytes_live = index.bytes_live();
        stats.acknowledged = index.acknowledged;
        stats.references_lost = index.references_lost;
        for info in index.segments.values() {
            let is_page = info.kind != index::Kind::Journal;
            stats.segments_live += u64::from(!is_page);
            stats.pages_live += u64::from(is_page);
            stats.page_bytes += if is_page { info.end } else { 0 };
        }
        stats.live_ranges = index.live_ranges();
        stats
    }

    /// The sentence of a fatal I/O error, once there was one.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        self.inner.shared.journal.failed().map(str::to_owned)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.shared.paths.root).finish_non_exhaustive()
    }
}

impl Inner {
    fn close(&self) -> Result<(), StoreError> {
        let mut crew = self.crew.lock();
        if std::mem::replace(&mut crew.closed, true) {
            return outcome(&self.shared);
        }
        let crew = std::mem::replace(&mut *crew, Crew { closed: true, ..Crew::default() });
        let shared = Arc::clone(&self.shared);
        if crew.is_own_thread() {
            // The last handle was dropped by a waker: the thread cannot wait for its own end.
            let closing = thread::Builder::new().name("sabir-log-close".to_owned()).spawn(move || {
                if let Err(error) = dismiss(&shared, crew, None) {
                    tracing::warn!(%error, "the message log could not be closed");
                }
            });
            return closing.map(drop).map_err(|source| StoreError::Io {
                what: "start a thread to close",
                file: self.shared.paths.root.clone(),
                source,
            });
        }
        dismiss(&shared, crew, self.machine.as_ref())
    }
}

impl Crew {
    fn is_own_thread(&self) -> bool {
        let own = [&self.keeper, &self.committer, &self.pool];
        own.into_iter().flatten().any(|handle| handle.thread().id() == thread::current().id())
    }
}

/// Stops the threads, with everything written, and releases the directory.
fn dismiss(shared: &Arc<Shared>, mut crew: Crew, machine: Option<&Mutex<Machine>>) -> Result<(), StoreError> {
    // The keeper first, as it waits for the committer; the pool last, as the committer waits for it.
    shared.keeper.lock().stop = true;
    shared.keeper_wake.notify_all();
    join(crew.keeper.take());
    shared.journal.stop();
    join(crew.committer.take());
    if let Some(machine) = machine {
        let position = shared.journal.last_position();
        let mut machine = machine.lock();
        ManualPump { shared: Arc::clone(shared), committer: &mut machine.committer }.synced(position);
        machine.committer.finish();
    }
    if shared.journal.failed().is_none() {
        shared.sync_blobs();
        shared.sweep_blobs();
    }
    shared.pool.state.lock().stop = true;
    shared.pool.changed.notify_all();
    join(crew.pool.take());
    let outcome = outcome(shared);
    shared.journal.end();
    shared.wake_readers();
    shared.readers.clear();
    shared.blobs.close_files();
    drop(crew.lock.take());
    outcome
}

fn outcome(shared: &Shared) -> Result<(), StoreError> {
    let journal = &shared.journal;
    if let Some(sentence) = journal.failed() {
        return Err(StoreError::Failed(sentence.to_owned()));
    }
    if !journal.is_over() && !journal.watermark().covers(journal.last_position(), Level::Fsync) {
        let needed = journal.pending_bytes() as u64;
        return Err(StoreError::DiskFull { dir: shared.paths.root.clone(), needed });
    }
    Ok(())
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the message log was dropped without being closed");
        }
    }
}

fn identify(fs: &dyn Fs, paths: &Paths) -> Result<(u64, bool), StoreError> {
    let newest = manifest::read_newest(fs, paths)?;
    if newest.is_some_and(|(format, _)| format < manifest::FORMAT) {
        // It may have directories now that it had not before.
        manifest::sync_directories(fs, paths)
            .map_err(|source| StoreError::Directory { dir: paths.root.clone(), source })?;
    }
    let known = newest.map(|(_, id)| id);
    if known.is_none() {
        for dir in [&paths.journal, &paths.checkpoints, &paths.pages] {
            let names =
                fs.list(dir).map_err(|source| StoreError::Io { what: "list", file: dir.clone(), source })?;
            let is_ours = |name: &String| [".j", ".p", ".ckpt"].iter().any(|end| name.ends_with(end));
            if let Some(name) = names.into_iter().find(is_ours) {
                let reason = "it belongs to a log whose manifest is missing".to_owned();
                return Err(StoreError::Corrupt { file: dir.join(name), offset: 0, reason });
            }
        }
    }
    let store_id = known.unwrap_or_else(manifest::new_store_id);
    if known.is_none() {
        let made = manifest::sync_directories(fs, paths).and_then(|()| manifest::write(fs, paths, store_id));
        made.map_err(|source| {
            if manifest::is_full(&source) {
                StoreError::DiskFull { dir: paths.root.clone(), needed: 4096 }
            } else {
                StoreError::Io { what: "write the manifest in", file: paths.root.clone(), source }
            }
        })?;
    }
    Ok((store_id, known.is_none()))
}

/// Opening folds what it found into a checkpoint, which also seals every old segment where its last good
/// frame ends.
fn write_first_checkpoint(shared: &Shared, number: u64, next_segment: u64) -> Result<(), StoreError> {
    let (mut bytes, lsn) = {
        let index = shared.index.lock();
        (checkpoint::encode(&index), index.lsn)
    };
    checkpoint::seal(&mut bytes, shared.store_id, number, lsn, next_segment);
    shared.counters.checkpoint_bytes.store(bytes.len() as u64, Ordering::Relaxed);
    let needed = bytes.len() as u64;
    checkpoint::write(&*shared.fs, &shared.paths, number, &bytes)
        .map_err(|source| opening_failed(shared, source, needed))
}

fn opening_failed(shared: &Shared, source: std::io::Error, needed: u64) -> StoreError {
    let dir = shared.paths.root.clone();
    if manifest::is_full(&source) {
        StoreError::DiskFull { dir, needed }
    } else {
        StoreError::Directory { dir, source }
    }
}

fn spawn(
    shared: &Arc<Shared>,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let watched = Arc::clone(shared);
    let body = move || {
        // A log without its thread would take messages and never write them.
        if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            let error = std::io::Error::other("a thread of the log ended by a bug");
            watched.fatal("go on with", &watched.paths.root, &error);
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|source| {
        shared.journal.fail("the message log could not start its threads".to_owned());
        StoreError::Io { what: "start a thread for", file: shared.paths.root.clone(), source }
    })
}

fn join(handle: Option<JoinHandle<()>>) {
    let Some(handle) = handle else { return };
    if handle.join().is_err() {
        tracing::error!("a thread of the message log panicked");
    }
}

#[cfg(test)]
mod tests;
