//! Large bodies: writing them piece by piece into files of their own, reading them back, and letting the files go.
//! The files' format is in `blob_file.rs`; who holds which is in `blob_index.rs`.
//!
//! A file is deleted by the keeper, once three things hold: no live message in the index names the blob; no durable
//! checkpoint does, nor any frame behind it; and nobody has a handle. So an open handle can always be read, what a
//! crash brings back always has its file, and deleting gigabytes is never done on a thread that somebody waits for.
//! What a crash leaves without a name, the next start finds and deletes.

use crate::Level;
use crate::blob_file::{self, BLOB_PIECE_BYTES, BlobName, OpenBlob, ending, file_bytes, piece_crc};
use crate::blob_index::Dead;
use crate::blob_recovery::BlobFiles;
use crate::error::Full;
use crate::fs::FsFile;
use crate::manifest::{is_full, is_passing, is_short_of_descriptors};
use crate::pool::READY;
use crate::shared::Shared;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Files kept open for reading.
const OPEN_MAX: usize = 128;
/// What a body that becomes longer than was expected takes at a time.
const RESERVE_BYTES: u64 = 4 << 20;

/// What the store's threads share about blobs. Its locks are taken last, and nothing is called under them but the
/// disk's free space.
#[derive(Default)]
pub(crate) struct Blobs {
    state: Mutex<State>,
    /// Held while space is promised.
    reserving: Mutex<()>,
    /// The next number.
    next: AtomicU64,
    /// Bytes of all files, and what is promised to those that are being written.
    bytes: AtomicU64,
    /// The part of `bytes` that is promised and not written.
    unwritten: AtomicU64,
    files: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Those with a handle.
    open: BTreeMap<u64, Weak<Handle>>,
    /// Finished files, and the bytes they take, that no frame named when it was last looked: they go with their last handle,
    /// unless one names them by then.
    loose: BTreeMap<u64, u64>,
    /// Open files, the one read last at the end.
    cache: VecDeque<(u64, Arc<OpenBlob>)>,
}

/// A large body that is stored in a file of its own. Clones are handles to the same one, and cheap: no file is open
/// for them. The file stays as long as there is a handle, or a live message in the log that names it.
#[derive(Clone)]
pub struct Blob {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    name: BlobName,
    synced: AtomicBool,
}

impl Blob {
    /// Its number; unique within the store, for good.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.handle.name.id
    }

    /// Bytes of the body.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.handle.name.len
    }

    /// Whether the body has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` from `offset` on and returns how many bytes that were: fewer than asked for only at the end of the body.
    /// What is checked together is read together: see [`crate::BLOB_PIECE_BYTES`]. Blocks on the disk.
    ///
    /// # Errors
    /// What the operating system said; or kind `InvalidData`, with file and offset, if the file is damaged or missing (its
    /// source is a [`crate::BlobDamage`]). What is in `into` then means nothing.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let Handle { shared, name, .. } = &*self.handle;
        let outcome = shared.opened_blob(name).and_then(|file| file.read_at(offset, into));
        if let Err(error) = &outcome {
            shared.note_blob_damage(name.id, error);
        }
        outcome
    }

    /// Makes the body durable, unless it is already: for one that was finished at level `os` and is now to be put at a
    /// higher one. Blocks on the disk.
    ///
    /// # Errors
    /// What the operating system said; the body is not to be relied on then.
    pub fn sync(&self) -> io::Result<()> {
        let Handle { shared, name, synced } = &*self.handle;
        if !synced.load(Ordering::Acquire) {
            shared.fs.open(&shared.paths.blob(name.id))?.sync_data()?;
            shared.fs.sync_dir(&shared.paths.blobs)?;
            synced.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> BlobName {
        BlobName { synced: self.handle.synced.load(Ordering::Acquire), ..self.handle.name }
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob").field("id", &self.id()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let loose = {
            let mut state = self.shared.blobs.state.lock();
            // Another one may have been made of the same number meanwhile.
            if state.open.get(&self.name.id).is_some_and(|other| other.strong_count() == 0) {
                state.open.remove(&self.name.id);
            }
            state.loose.contains_key(&self.name.id)
        };
        if loose {
            self.shared.nudge_keeper();
        }
    }
}

/// A large body that is being written. Dropped unfinished, it is deleted.
pub struct BlobWriter {
    shared: Arc<Shared>,
    id: u64,
    /// Made when the first piece is written.
    file: Option<Arc<dyn FsFile>>,
    /// The piece that is not complete.
    buffer: Vec<u8>,
    table: Vec<u8>,
    /// Bytes in the file.
    flushed: u64,
    /// Bytes of the disk that were promised to it.
    reserved: u64,
    /// A write failed; what is in the file is not known.
    broken: bool,
    finished: bool,
}

impl BlobWriter {
    /// The number that the blob will have.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// Appends to the body. Blocks on the disk once for every 64 KiB.
    ///
    /// # Errors
    /// Of kind `StorageFull` if more is written than was expected and the disk's limits do not allow that; otherwise what the
    /// operating system said. After an error nothing more can be written.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.usable()?;
        let outcome = self.reserve(bytes.len() as u64).and_then(|()| {
            while !bytes.is_empty() {
                if self.buffer.is_empty() && bytes.len() >= BLOB_PIECE_BYTES {
                    let whole = bytes.len() - bytes.len() % BLOB_PIECE_BYTES;
                    let (pieces, rest) = bytes.split_at_checked(whole).unwrap_or((bytes, &[]));
                    self.flush(pieces)?;
                    bytes = rest;
                    continue;
                }
                let room = BLOB_PIECE_BYTES.saturating_sub(self.buffer.len()).min(bytes.len());
                let (part, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
                self.buffer.extend_from_slice(part);
                bytes = rest;
                if self.buffer.len() == BLOB_PIECE_BYTES {
                    self.flush_buffer()?;
                }
            }
            Ok(())
        });
        self.broken |= outcome.is_err();
        outcome
    }

    /// Ends the body, and syncs it (and its name) unless `level` asks for less: `fsync` and `interval` sync here, on the
    /// caller's thread, `os` and `memory` do not. Give the level of the put that will name it. Blocks on the disk.
    ///
    /// # Errors
    /// What the operating system said; the file is deleted then.
    pub fn finish(mut self, level: Level) -> io::Result<Blob> {
        self.usable()?;
        self.reserve(0)?;
        self.flush_buffer()?;
        let (end, check) =
            ending(self.shared.store_id, self.id, self.flushed, std::mem::take(&mut self.table));
        let file = self.file()?;
        file.write_at(&end, self.flushed)?;
        let synced = matches!(level, Level::Fsync | Level::Interval(_));
        if synced {
            file.sync_data()?;
            self.shared.fs.sync_dir(&self.shared.paths.blobs)?;
        }
        let name = BlobName { id: self.id, len: self.flushed, check, synced };
        self.finished = true;
        self.release(file_bytes(name.len));
        let handle =
            Arc::new(Handle { shared: Arc::clone(&self.shared), name, synced: AtomicBool::new(synced) });
        let mut state = self.shared.blobs.state.lock();
        state.open.insert(name.id, Arc::downgrade(&handle));
        state.loose.insert(name.id, file_bytes(name.len));
        drop(state);
        Ok(Blob { handle })
    }

    fn usable(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write to this message body failed"));
        }
        if self.shared.journal.is_over() {
            return Err(io::Error::other("the message log is closed or has failed"));
        }
        Ok(())
    }

    /// Makes sure that what was written, `more`, and what follows it is promised.
    fn reserve(&mut self, more: u64) -> io::Result<()> {
        let needed = file_bytes(self.written().saturating_add(more));
        if let Some(missing) = needed.checked_sub(self.reserved).filter(|&missing| missing > 0) {
            // A long body asks seldom, a full disk gives what it has.
            let ample = missing.max(RESERVE_BYTES);
            self.reserved += match self.shared.reserve_blob(ample) {
                Ok(()) => ample,
                Err(_) => self.shared.reserve_blob(missing).map(|()| missing)?,
            };
        }
        Ok(())
    }

    /// Keeps `bytes` of what was promised, which are written now.
    fn release(&mut self, bytes: u64) {
        let blobs = &self.shared.blobs;
        blobs.bytes.fetch_sub(self.reserved.saturating_sub(bytes), Ordering::Relaxed);
        blobs.unwritten.fetch_sub(self.reserved.saturating_sub(self.flushed), Ordering::Relaxed);
    }

    fn file(&mut self) -> io::Result<Arc<dyn FsFile>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = self.shared.fs.create(&self.shared.paths.blob(self.id))?;
        self.shared.blobs.files.fetch_add(1, Ordering::Relaxed);
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.flush(&buffer)?;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    /// Writes pieces, of which only the last one of the body may be short.
    fn flush(&mut self, pieces: &[u8]) -> io::Result<()> {
        let stamp = blob_file::stamp(self.shared.store_id, self.id);
        let mut at = self.flushed;
        for piece in pieces.chunks(BLOB_PIECE_BYTES) {
            self.table.extend_from_slice(&piece_crc(stamp, at, piece).to_le_bytes());
            at += piece.len() as u64;
        }
        if !pieces.is_empty() {
            self.file()?.write_at(pieces, self.flushed)?;
            self.flushed = at;
            self.shared.blobs.unwritten.fetch_sub(pieces.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Until it is deleted, what was written counts.
        let present = if self.file.is_some() { self.flushed.min(self.reserved) } else { 0 };
        self.release(present);
        if self.file.is_some() {
            self.shared.blobs.state.lock().loose.insert(self.id, present);
            self.shared.nudge_keeper();
        }
    }
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter")
            .field("id", &self.id)
            .field("written", &self.written())
            .finish_non_exhaustive()
    }
}

impl Blobs {
    /// Takes over what a start found.
    pub(crate) fn found(&self, files: &BlobFiles) {
        let (count, bytes) = files.count();
        self.next.store(files.next(), Ordering::Relaxed);
        self.files.store(count, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of all files, what is promised to unfinished ones included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Closes all files that are open for reading.
    pub(crate) fn close_files(&self) {
        let files = std::mem::take(&mut self.state.lock().cache);
        drop(files);
    }
}

impl Shared {
    /// See [`crate::Store::blob`].
    pub(crate) fn begin_blob(self: &Arc<Self>, expected: u64) -> Result<BlobWriter, Full> {
        if self.journal.is_over() {
            return Err(Full::Failed);
        }
        if self.journal.disk_full.load(Ordering::Relaxed) {
            return Err(Full::Disk);
        }
        let reserved = file_bytes(expected);
        self.reserve_blob(reserved).map_err(|_| Full::Disk)?;
        Ok(BlobWriter {
            shared: Arc::clone(self),
            id: self.blobs.next.fetch_add(1, Ordering::Relaxed),
            file: None,
            buffer: Vec::new(),
            table: Vec::new(),
            flushed: 0,
            reserved,
            broken: false,
            finished: false,
        })
    }

    /// Promises space to a blob, if the limits allow it.
    fn reserve_blob(&self, bytes: u64) -> io::Result<()> {
        let _reserving = self.blobs.reserving.lock();
        let segments = {
            let state = self.pool.state.lock();
            let missing = READY.saturating_sub(state.ready.len()) as u64;
            state.disk_bytes.saturating_add(missing.saturating_mul(self.options.segment_bytes))
        };
        let all = segments.saturating_add(self.blobs.bytes()).saturating_add(bytes);
        if self.options.disk_bytes_max.is_some_and(|max| all > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Ok(free) = self.fs.free_bytes(&self.paths.root) {
            let promised = self.blobs.unwritten.load(Ordering::Relaxed);
            let left = free.saturating_sub(promised);
            if left < bytes.saturating_add(self.options.disk_free_bytes_min) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.blobs.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.blobs.unwritten.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// A handle to a blob that a live message names, or somebody has a handle to.
    pub(crate) fn open_blob(self: &Arc<Self>, id: u64) -> Option<Blob> {
        let upgraded = self.blobs.state.lock().open.get(&id).and_then(Weak::upgrade);
        if let Some(handle) = upgraded {
            return Some(Blob { handle });
        }
        let name = self.index.lock().blobs.live(id)?;
        let made = Arc::new(Handle { shared: Arc::clone(self), name, synced: AtomicBool::new(name.synced) });
        let handle = {
            let mut state = self.blobs.state.lock();
            match state.open.get(&id).and_then(Weak::upgrade) {
                Some(other) => other,
                None => {
                    state.open.insert(id, Arc::downgrade(&made));
                    Arc::clone(&made)
                }
            }
        };
        drop(made);
        // The keeper forgets a blob first and looks for handles afterwards: what it still knows now has one in time.
        self.index.lock().blobs.is_known(id).then_some(Blob { handle })
    }

    fn opened_blob(&self, name: &BlobName) -> io::Result<Arc<OpenBlob>> {
        {
            let mut state = self.blobs.state.lock();
            if let Some(at) = state.cache.iter().position(|(id, _)| *id == name.id)
                && let Some(entry) = state.cache.remove(at)
            {
                let file = Arc::clone(&entry.1);
                state.cache.push_back(entry);
                return Ok(file);
            }
        }
        let open = || OpenBlob::open(&*self.fs, self.paths.blob(name.id), self.store_id, name);
        let file = match open() {
            Err(error) if is_short_of_descriptors(&error) => {
                // Those that are only kept are given back first.
                self.readers.clear();
                self.blobs.close_files();
                open()
            }
            other => other,
        };
        let file = Arc::new(file?);
        let mut state = self.blobs.state.lock();
        state.cache.push_back((name.id, Arc::clone(&file)));
        let old = if state.cache.len() > OPEN_MAX { state.cache.pop_front() } else { None };
        drop(state);
        drop(old);
        Ok(file)
    }

    /// Counts a damaged place once.
    pub(crate) fn note_blob_damage(&self, id: u64, error: &io::Error) {
        if let Some(damage) = blob_file::damage_of(error)
            && self.readers.note_damage(blob_place(id), damage.offset)
        {
            tracing::error!("{damage}");
        }
    }

    /// Syncs what live messages name and nobody synced, before a checkpoint is written; false if the log failed.
    pub(crate) fn sync_blobs(&self) -> bool {
        if self.journal.failed().is_some() {
            return false;
        }
        let unsynced = self.index.lock().blobs.unsynced();
        if unsynced.is_empty() {
            return true;
        }
        let mut synced = Vec::new();
        for id in unsynced {
            let path = self.paths.blob(id);
            match self.fs.open(&path).and_then(|file| file.sync_data()) {
                Ok(()) => synced.push(id),
                // Whoever reads the message will say so.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_passing(&error) => return false,
                Err(error) => {
                    self.fatal("sync", &path, &error);
                    return false;
                }
            }
        }
        if let Err(error) = self.fs.sync_dir(&self.paths.blobs) {
            if is_passing(&error) {
                return false;
            }
            self.fatal("sync", &self.paths.blobs, &error);
            return false;
        }
        let mut index = self.index.lock();
        for id in synced {
            index.blobs.set_synced(id);
        }
        true
    }

    /// A durable checkpoint does not mention these: their files go, unless somebody has a handle.
    pub(crate) fn bury_blobs(&self, dead: &[Dead]) {
        if dead.is_empty() {
            return;
        }
        let gone = self.index.lock().blobs.forget(dead);
        self.blobs.state.lock().loose.extend(gone);
        self.sweep_blobs();
    }

    /// Deletes files that nothing names and nobody holds.
    pub(crate) fn sweep_blobs(&self) {
        let candidates: Vec<(u64, u64)> = {
            let state = self.blobs.state.lock();
            let is_open = |id: &u64| state.open.get(id).is_some_and(|handle| handle.strong_count() > 0);
            state.loose.iter().filter(|(id, _)| !is_open(id)).map(|(id, bytes)| (*id, *bytes)).collect()
        };
        // Frames that a failed log let go may be on the disk all the same, and name theirs.
        if self.journal.failed().is_some() {
            return;
        }
        // Without a handle nobody can name it any more; who had one and did, did so before.
        let mut freed = false;
        for (id, bytes) in candidates {
            let is_named = self.index.lock().blobs.is_known(id);
            let cached = {
                let mut state = self.blobs.state.lock();
                state.loose.remove(&id);
                let at = if is_named { None } else { state.cache.iter().position(|(other, _)| *other == id) };
                at.and_then(|at| state.cache.remove(at))
            };
            drop(cached);
            if is_named {
                continue;
            }
            let path = self.paths.blob(id);
            match self.fs.remove(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a message body that nobody needs could not be removed; the next start tries again");
                    continue;
                }
            }
            self.readers.forget(&[blob_place(id)]);
            self.blobs.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.blobs.files.fetch_sub(1, Ordering::Relaxed);
            freed = true;
        }
        if freed {
            self.pool.changed.notify_all();
        }
    }
}

/// How damaged places of blobs are told from those of segments.
fn blob_place(id: u64) -> u64 {
    id | 1 << 62
}

/// Whether an error of a [`BlobWriter`] says that there is no space: then the message may be sent again later.
#[must_use]
pub fn is_storage_full(error: &io::Error) -> bool {
    is_full(error)
}
