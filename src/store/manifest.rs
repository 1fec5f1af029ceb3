//! Where the store's files are, the manifest that names their format, and the lock on the directory.

use crate::error::StoreError;
use crate::fs::{Fs, LockError, LockGuard};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// The newest format this code reads, and the one it writes.
pub(crate) const FORMAT: u32 = 3;
const MAGIC: &[u8; 8] = b"SABIRLOG";
const MANIFEST_LEN: usize = 32;

/// The store's paths.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) root: PathBuf,
    pub(crate) journal: PathBuf,
    pub(crate) checkpoints: PathBuf,
    pub(crate) pages: PathBuf,
    pub(crate) blobs: PathBuf,
    pub(crate) quarantine: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: &Path) -> Self {
        let shard = root.join("shard-0");
        Self {
            root: root.to_owned(),
            journal: shard.join("J"),
            checkpoints: shard.join("C"),
            pages: shard.join("P"),
            blobs: shard.join("B"),
            quarantine: root.join("quarantine"),
        }
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.journal.join(crate::segment::file_name(number))
    }

    pub(crate) fn blob(&self, id: u64) -> PathBuf {
        self.blobs.join(crate::blob_file::file_name(id))
    }

    pub(crate) fn page(&self, number: u64) -> PathBuf {
        self.pages.join(crate::page::file_name(number))
    }

    /// A segment or a page file, whichever it is.
    pub(crate) fn file(&self, number: u64, is_page: bool) -> PathBuf {
        if is_page { self.page(number) } else { self.segment(number) }
    }

    pub(crate) fn slots(&self) -> [PathBuf; 2] {
        [self.root.join("MANIFEST.a"), self.root.join("MANIFEST.b")]
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a file could not be opened or made for a reason that passes and has harmed nothing: the disk is full, or the
/// process has no descriptor left.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    is_full(error) || is_short_of_descriptors(error)
}

/// Whether an error says that the process or the system has no file descriptor left: then what could not be read may be
/// read later.
#[must_use]
pub fn is_short_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Makes the directories and takes the lock.
pub(crate) fn prepare(fs: &dyn Fs, paths: &Paths) -> Result<LockGuard, StoreError> {
    let failed = |source: io::Error| {
        if is_full(&source) {
            StoreError::DiskFull { dir: paths.root.clone(), needed: 4096 }
        } else {
            StoreError::Directory { dir: paths.root.clone(), source }
        }
    };
    fs.create_dir_all(&paths.root).map_err(failed)?;
    let guard = fs.lock(&paths.root.join("LOCK")).map_err(|error| match error {
        LockError::Held(pid) => StoreError::Locked { dir: paths.root.clone(), pid },
        LockError::Io(source) => failed(source),
    })?;
    for dir in [&paths.journal, &paths.checkpoints, &paths.pages, &paths.blobs] {
        fs.create_dir_all(dir).map_err(failed)?;
    }
    Ok(guard)
}

fn encode(store_id: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MANIFEST_LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&store_id.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u32, u64)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if bytes.len() != MANIFEST_LEN || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (id, _) = rest.split_first_chunk::<8>()?;
    Some((u32::from_le_bytes(*version), u64::from_le_bytes(*id)))
}

/// Reads the store's format and id; `None` if there is no store here yet.
pub(crate) fn read_newest(fs: &dyn Fs, paths: &Paths) -> Result<Option<(u32, u64)>, StoreError> {
    let mut damaged = None;
    let mut found: Option<(u32, u64)> = None;
    for path in paths.slots() {
        match read_slot(fs, &path)? {
            Slot::Known(version, _) if version > FORMAT => {
                return Err(StoreError::NewerFormat { file: path, found: version, known: FORMAT });
            }
            Slot::Known(version, id) => found = found.max(Some((version, id))),
            Slot::Absent => {}
            Slot::Damaged => damaged = Some(path),
        }
    }
    match (found, damaged) {
        (Some(found), _) => Ok(Some(found)),
        (None, Some(file)) => Err(StoreError::Corrupt {
            file,
            offset: 0,
            reason: "neither copy of the manifest can be read".to_owned(),
        }),
        (None, None) => Ok(None),
    }
}

/// The copies that cannot be read.
pub(crate) fn damaged_slots(fs: &dyn Fs, paths: &Paths) -> Result<Vec<PathBuf>, StoreError> {
    let mut damaged = Vec::new();
    for path in paths.slots() {
        if matches!(read_slot(fs, &path)?, Slot::Damaged) {
            damaged.push(path);
        }
    }
    Ok(damaged)
}

enum Slot {
    /// Format and id.
    Known(u32, u64),
    /// Not there, or empty: its making was interrupted.
    Absent,
    Damaged,
}

fn read_slot(fs: &dyn Fs, path: &Path) -> Result<Slot, StoreError> {
    let file = match fs.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Slot::Absent),
        Err(source) => return Err(StoreError::Io { what: "open", file: path.to_owned(), source }),
    };
    let mut bytes = [0u8; MANIFEST_LEN + 1];
    let n = file.read_at(&mut bytes, 0).map_err(|source| StoreError::Io {
        what: "read",
        file: path.to_owned(),
        source,
    })?;
    Ok(match decode(bytes.get(..n).unwrap_or_default()) {
        Some((version, id)) => Slot::Known(version, id),
        None if n == 0 => Slot::Absent,
        None => Slot::Damaged,
    })
}

/// Makes the directories of a new store durable, before anything in them counts.
pub(crate) fn sync_directories(fs: &dyn Fs, paths: &Paths) -> io::Result<()> {
    if let Some(shard) = paths.journal.parent() {
        fs.sync_dir(shard)?;
    }
    fs.sync_dir(&paths.root)?;
    if let Some(above) = paths.root.parent().filter(|above| !above.as_os_str().is_empty()) {
        // It may belong to somebody else and not be readable; then its owner made it, and long ago.
        if let Err(error) = fs.sync_dir(above) {
            tracing::debug!(dir = %above.display(), %error, "the directory above the store could not be synced");
        }
    }
    Ok(())
}

/// Writes both slots, one after the other, so that one is whole at any time.
pub(crate) fn write(fs: &dyn Fs, paths: &Paths, store_id: u64) -> io::Result<()> {
    let bytes = encode(store_id);
    for path in paths.slots() {
        let whole = fs.open(&path).ok().is_some_and(|file| {
            let mut present = [0u8; MANIFEST_LEN + 1];
            file.read_at(&mut present, 0).is_ok_and(|n| present.get(..n) == Some(bytes.as_slice()))
        });
        if !whole {
            let file = fs.create(&path)?;
            file.write_at(&bytes, 0)?;
            file.sync_data()?;
            fs.sync_dir(&paths.root)?;
        }
    }
    Ok(())
}

/// An id no client can guess: the standard library's hasher keys come from the system's randomness.
pub(crate) fn new_store_id() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fault_fs::FaultFs;

    #[test]
    fn one_good_slot_is_enough_and_two_bad_ones_are_not() {
        let fs = FaultFs::new();
        let paths = Paths::new(Path::new("s"));
        assert!(read_newest(&fs, &paths).unwrap().is_none());
        write(&fs, &paths, 77).unwrap();
        let [a, b] = paths.slots();
        fs.flip(&a, 20, 3);
        assert_eq!(read_newest(&fs, &paths).unwrap(), Some((FORMAT, 77)));
        fs.flip(&b, 20, 3);
        assert!(matches!(read_newest(&fs, &paths), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn a_newer_format_is_named_and_refused() {
        let fs = FaultFs::new();
        let paths = Paths::new(Path::new("s"));
        let mut bytes = encode(1);
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        fs.put(&paths.slots()[0], &bytes);
        let error = read_newest(&fs, &paths).unwrap_err();
        assert!(error.to_string().contains("store format 9"), "{error}");
    }
}
