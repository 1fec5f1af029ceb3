//! A file system in memory that fails the way disks do: for the store's own tests and for simulations.
//!
//! Every file remembers what was synced and what was only written since, in pieces of 512 bytes; every
//! directory which entries were made, renamed or removed since it was synced. [`FaultFs::crash`] builds what
//! a machine would find after losing power: of each unsynced piece and directory operation, the seed decides
//! whether it survived (so writes are lost, torn and reordered). Faults are asked for by the number of the
//! I/O they hit.

use crate::fs::{Fs, FsFile, LockError, LockGuard};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const PIECE: usize = 512;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops: this I/O may or may not reach the disk, and every later one fails.
    Crash,
    /// This I/O fails once. A failed sync loses what was not synced, as on Linux.
    Error,
}

/// What survives a crash of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Each piece and each directory operation by the throw of a coin.
    Random(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// Contents as the running system sees them.
    now: Vec<u8>,
    /// Contents that are certain to survive.
    durable: Vec<u8>,
    /// Pieces that differ, or may.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum DirOp {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<DirOp>,
    dirs: BTreeSet<PathBuf>,
    io: u64,
    faults: BTreeMap<u64, Fault>,
    crashed: bool,
    capacity: Option<u64>,
    without_descriptors: bool,
    locked: BTreeSet<PathBuf>,
    clock: Duration,
    trace: Vec<String>,
    traced: bool,
    forks_wanted: BTreeSet<u64>,
    forks: Vec<FaultFs>,
}

/// The file system. Clones are handles to the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultFs {
    disk: Arc<Mutex<Disk>>,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

impl FaultFs {
    /// An empty disk without limits or faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many writes, syncs, allocations and directory operations there have been. Reads do not count.
    #[must_use]
    pub fn io_count(&self) -> u64 {
        self.disk.lock().io
    }

    /// Lets the I/O with this number (counted from 1) fail.
    pub fn fault_at(&self, io: u64, fault: Fault) {
        self.disk.lock().faults.insert(io, fault);
    }

    /// Keeps the disk as it is just before the I/O with this number, for [`FaultFs::take_forks`].
    pub fn fork_at(&self, io: u64) {
        self.disk.lock().forks_wanted.insert(io);
    }

    /// An independent disk with the same contents, of which the same is not synced: what another process finds when this one
    /// dies now.
    #[must_use]
    pub fn fork_now(&self) -> Self {
        let fork = self.disk.lock().fork();
        Self { disk: Arc::new(Mutex::new(fork)) }
    }

    /// The disks that were asked for and are there by now: independent, with what is not synced not synced.
    #[must_use]
    pub fn take_forks(&self) -> Vec<Self> {
        std::mem::take(&mut self.disk.lock().forks)
    }

    /// Limits the bytes of all files together; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().capacity = bytes;
    }

    /// Whether no file can be opened or made for want of descriptors.
    pub fn set_without_descriptors(&self, without: bool) {
        self.disk.lock().without_descriptors = without;
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk.lock().used()
    }

    /// Moves the clock.
    pub fn advance(&self, span: Duration) {
        self.disk.lock().clock += span;
    }

    /// Inverts one bit of a file, durably.
    pub fn flip(&self, path: &Path, offset: u64, bit: u8) {
        let mut disk = self.disk.lock();
        let Some(&inode) = disk.names.get(path) else { return };
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(inode) = disk.inodes.get_mut(inode) {
            for contents in [&mut inode.now, &mut inode.durable] {
                if let Some(byte) = contents.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
    }

    /// Contents of a file as the running system sees them.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.names.get(path).and_then(|&i| disk.inodes.get(i)).map(|inode| inode.now.clone())
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &Path, contents: &[u8]) {
        let mut disk = self.disk.lock();
        let inode = disk.inodes.len();
        disk.inodes.push(Inode {
            now: contents.to_vec(),
            durable: contents.to_vec(),
            dirty: BTreeSet::new(),
        });
        disk.names.insert(path.to_owned(), inode);
        disk.durable_names.insert(path.to_owned(), inode);
    }

    /// All files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.disk.lock().names.keys().cloned().collect()
    }

    /// Keeps a line for every counted I/O from now on; [`FaultFs::trace`] reads them.
    pub fn start_trace(&self) {
        self.disk.lock().traced = true;
    }

    /// The lines kept since [`FaultFs::start_trace`].
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.disk.lock().trace.clone()
    }

    /// An independent disk with the same contents, all of it durable, without locks and faults.
    #[must_use]
    pub fn copy(&self) -> Self {
        self.crash(Survival::All)
    }

    /// The disk as found after a power loss now. This one is left as it is.
    #[must_use]
    pub fn crash(&self, survival: Survival) -> Self {
        let disk = self.disk.lock();
        let mut random = Random(match survival {
            Survival::Random(seed) => seed,
            Survival::None | Survival::All => 0,
        });
        let mut survives = || match survival {
            Survival::None => false,
            Survival::All => true,
            Survival::Random(_) => random.coin(),
        };
        let mut names = disk.durable_names.clone();
        for op in &disk.pending {
            if !survives() {
                continue;
            }
            match op {
                DirOp::Link(path, inode) => {
                    names.insert(path.clone(), *inode);
                }
                DirOp::Rename(from, to) => {
                    if let Some(inode) = names.remove(from) {
                        names.insert(to.clone(), inode);
                    }
                }
                DirOp::Unlink(path) => {
                    names.remove(path);
                }
            }
        }
        let inodes = disk
            .inodes
            .iter()
            .map(|inode| {
                let mut found = inode.durable.clone();
                for &piece in &inode.dirty {
                    if !survives() {
                        continue;
                    }
                    let (start, end) = (piece * PIECE, (piece * PIECE + PIECE).min(inode.now.len()));
                    if let Some(new) = inode.now.get(start..end) {
                        if found.len() < end {
                            found.resize(end, 0);
                        }
                        if let Some(old) = found.get_mut(start..end) {
                            old.copy_from_slice(new);
                        }
                    }
                }
                Inode { now: found.clone(), durable: found, dirty: BTreeSet::new() }
            })
            .collect();
        let after = Disk {
            inodes,
            durable_names: names.clone(),
            names,
            dirs: disk.dirs.clone(),
            capacity: disk.capacity,
            clock: disk.clock,
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(after)) }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

impl Disk {
    fn used(&self) -> u64 {
        self.names.values().filter_map(|&i| self.inodes.get(i)).map(|inode| inode.now.len() as u64).sum()
    }

    /// Counts an I/O. `Ok(Some(fault))` if one was asked for here; a crash lets this I/O take effect in memory,
    /// unsynced, so that the survival rule decides over it like over any other.
    fn step(&mut self, what: impl FnOnce() -> String) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(crashed());
        }
        self.io += 1;
        if self.forks_wanted.remove(&self.io) {
            let fork = self.fork();
            self.forks.push(FaultFs { disk: Arc::new(Mutex::new(fork)) });
        }
        if self.traced {
            self.trace.push(what());
        }
        let fault = self.faults.get(&self.io).copied();
        if fault == Some(Fault::Crash) {
            self.crashed = true;
        }
        Ok(fault)
    }

    fn fork(&self) -> Self {
        let linked = self.pending.iter().filter_map(|op| match op {
            DirOp::Link(_, inode) => Some(*inode),
            DirOp::Rename(..) | DirOp::Unlink(_) => None,
        });
        let named: BTreeSet<usize> =
            self.names.values().chain(self.durable_names.values()).copied().chain(linked).collect();
        let kept = |(i, inode): (usize, &Inode)| {
            if named.contains(&i) { inode.clone() } else { Inode::default() }
        };
        Self {
            inodes: self.inodes.iter().enumerate().map(kept).collect(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            pending: self.pending.clone(),
            dirs: self.dirs.clone(),
            capacity: self.capacity,
            clock: self.clock,
            ..Self::default()
        }
    }

    fn has_descriptor(&self) -> io::Result<()> {
        if self.without_descriptors { Err(rustix::io::Errno::MFILE.into()) } else { Ok(()) }
    }

    fn grow(&self, inode: usize, len: u64) -> io::Result<()> {
        let present = self.inodes.get(inode).map_or(0, |i| i.now.len() as u64);
        if let Some(capacity) = self.capacity
            && len > present
            && self.used() + (len - present) > capacity
        {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn inode(&mut self, inode: usize) -> io::Result<&mut Inode> {
        self.inodes.get_mut(inode).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn outcome(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        None => Ok(()),
        Some(Fault::Crash) => Err(crashed()),
        Some(Fault::Error) => Err(io::Error::other("simulated input/output error")),
    }
}

struct Handle {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
}

impl Inode {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            let old = self.now.len();
            self.now.resize(end, 0);
            self.dirty.extend(old / PIECE..=(end.saturating_sub(1)) / PIECE);
        }
        if let Some(slot) = self.now.get_mut(offset..end) {
            slot.copy_from_slice(bytes);
        }
        if !bytes.is_empty() {
            self.dirty.extend(offset / PIECE..=(end - 1) / PIECE);
        }
    }

    fn sync(&mut self) {
        if self.durable.len() != self.now.len() {
            self.durable.resize(self.now.len(), 0);
        }
        for piece in std::mem::take(&mut self.dirty) {
            let (start, end) = (piece * PIECE, (piece * PIECE + PIECE).min(self.now.len()));
            if let (Some(new), Some(old)) = (self.now.get(start..end), self.durable.get_mut(start..end)) {
                old.copy_from_slice(new);
            }
        }
    }
}

impl FsFile for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        if disk.crashed {
            return Err(crashed());
        }
        let inode = disk.inode(self.inode)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.now.len());
        let n = buffer.len().min(inode.now.len() - start);
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), inode.now.get(start..start + n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let fault =
            disk.step(|| format!("write {} bytes of inode {} at {offset}", bytes.len(), self.inode))?;
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        disk.grow(self.inode, offset + bytes.len() as u64)?;
        disk.inode(self.inode)?.write(bytes, at);
        outcome(fault)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let fault = disk.step(|| format!("sync inode {}", self.inode))?;
        let inode = disk.inode(self.inode)?;
        match fault {
            None => inode.sync(),
            // The kernel marks the pages clean although they never reached the disk.
            Some(Fault::Error) => inode.dirty.clear(),
            Some(Fault::Crash) => {}
        }
        outcome(fault)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let fault = disk.step(|| format!("allocate inode {} up to {len}", self.inode))?;
        disk.grow(self.inode, len)?;
        let want = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let inode = disk.inode(self.inode)?;
        if let Some(missing) = want.checked_sub(inode.now.len()).filter(|&n| n > 0) {
            let at = inode.now.len();
            inode.write(&vec![0; missing], at);
        }
        if fault.is_none() {
            inode.sync();
        }
        outcome(fault)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let fault = disk.step(|| format!("set length of inode {} to {len}", self.inode))?;
        disk.grow(self.inode, len)?;
        let want = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let inode = disk.inode(self.inode)?;
        inode.now.resize(want, 0);
        inode.dirty.insert(want / PIECE);
        outcome(fault)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inode(self.inode)?.now.len() as u64)
    }
}

struct Lock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.lock().locked.remove(&self.path);
    }
}

impl Fs for FaultFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        outcome(disk.step(|| format!("make directory {}", dir.display()))?)?;
        // Directories themselves are not lost: entries in them are the interesting part.
        for ancestor in dir.ancestors() {
            disk.dirs.insert(ancestor.to_owned());
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let disk = self.disk.lock();
        if disk.crashed {
            return Err(crashed());
        }
        disk.has_descriptor()?;
        let inode = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle { disk: Arc::clone(&self.disk), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let mut disk = self.disk.lock();
        disk.has_descriptor()?;
        let fault = disk.step(|| format!("create {}", path.display()))?;
        let inode = match disk.names.get(path) {
            Some(&inode) => {
                let inode_ref = disk.inode(inode)?;
                inode_ref.now.clear();
                inode_ref.dirty.insert(0);
                inode
            }
            None => {
                let inode = disk.inodes.len();
                disk.inodes.push(Inode::default());
                disk.names.insert(path.to_owned(), inode);
                disk.pending.push(DirOp::Link(path.to_owned(), inode));
                inode
            }
        };
        outcome(fault)?;
        Ok(Arc::new(Handle { disk: Arc::clone(&self.disk), inode }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        if disk.crashed {
            return Err(crashed());
        }
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let fault = disk.step(|| format!("rename {} to {}", from.display(), to.display()))?;
        let inode = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), inode);
        disk.pending.push(DirOp::Rename(from.to_owned(), to.to_owned()));
        outcome(fault)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let fault = disk.step(|| format!("remove {}", path.display()))?;
        disk.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        disk.pending.push(DirOp::Unlink(path.to_owned()));
        outcome(fault)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let fault = disk.step(|| format!("sync directory {}", dir.display()))?;
        if fault.is_none() {
            let pending = std::mem::take(&mut disk.pending);
            for op in pending {
                let path = match &op {
                    DirOp::Link(path, _) | DirOp::Unlink(path) | DirOp::Rename(path, _) => path,
                };
                if path.parent() != Some(dir) {
                    disk.pending.push(op);
                    continue;
                }
                match op {
                    DirOp::Link(path, inode) => {
                        disk.durable_names.insert(path, inode);
                    }
                    DirOp::Rename(from, to) => {
                        if let Some(inode) = disk.durable_names.remove(&from) {
                            disk.durable_names.insert(to, inode);
                        }
                    }
                    DirOp::Unlink(path) => {
                        disk.durable_names.remove(&path);
                    }
                }
            }
        }
        outcome(fault)
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        if !self.disk.lock().locked.insert(path.to_owned()) {
            return Err(LockError::Held(Some(std::process::id())));
        }
        Ok(Box::new(Lock { disk: Arc::clone(&self.disk), path: path.to_owned() }))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let disk = self.disk.lock();
        Ok(disk.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used())))
    }

    fn elapsed(&self) -> Duration {
        self.disk.lock().clock
    }
}
