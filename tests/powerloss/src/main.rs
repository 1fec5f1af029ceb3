//! `sabir-powerloss MOUNTPOINT`: a file system in memory whose power can be cut.
//!
//! It obeys lines on standard input and answers each with one: `cut SEED` fails everything from now on and forgets what
//! was not synced, or some of it; `on` gives the power back; after `lie` syncing a file does nothing, to see that a test
//! would notice; the end of the input unmounts. The disk itself is in `disk`; here it is put behind FUSE.

mod disk;

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use disk::{Disk, No};
use fuser::{
    AccessFlags, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

/// The kernel is to remember nothing: a cut must not leave it knowing more than the disk.
const TTL: Duration = Duration::ZERO;
const BLOCK: u64 = 512;

struct PowerLoss(Arc<Mutex<Disk>>);

fn errno(no: No) -> Errno {
    match no {
        No::Dead => Errno::EIO,
        No::Missing => Errno::ENOENT,
        No::Exists => Errno::EEXIST,
        No::NotADirectory => Errno::ENOTDIR,
        No::IsADirectory => Errno::EISDIR,
        No::NotEmpty => Errno::ENOTEMPTY,
        No::OtherDirectory => Errno::EXDEV,
    }
}

fn attributes(node: u64, length: Option<u64>) -> FileAttr {
    let size = length.unwrap_or(0);
    FileAttr {
        ino: INodeNo(node),
        size,
        blocks: size.div_ceil(BLOCK),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if length.is_some() { FileType::RegularFile } else { FileType::Directory },
        perm: if length.is_some() { 0o600 } else { 0o700 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl PowerLoss {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("nobody panics while holding it")
    }

    fn entry(&self, found: Result<u64, No>, disk: &mut Disk, reply: ReplyEntry) {
        match found.and_then(|node| disk.length(node).map(|length| attributes(node, length))) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(no) => reply.error(errno(no)),
        }
    }
}

fn done(result: Result<(), No>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(no) => reply.error(errno(no)),
    }
}

impl Filesystem for PowerLoss {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut disk = self.disk();
        let found = disk.lookup(parent.0, name);
        self.entry(found, &mut disk, reply);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().length(node.0) {
            Ok(length) => reply.attr(&TTL, &attributes(node.0, length)),
            Err(no) => reply.error(errno(no)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let resized = size.map_or(Ok(()), |size| disk.resize(node.0, size));
        match resized.and_then(|()| disk.length(node.0)) {
            Ok(length) => reply.attr(&TTL, &attributes(node.0, length)),
            Err(no) => reply.error(errno(no)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let mut disk = self.disk();
        let made = disk.make(parent.0, name, true);
        self.entry(made, &mut disk, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.disk().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.disk().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(self.disk().rename(parent.0, name, to_parent.0, to), reply);
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk().opened(node.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(no) => reply.error(errno(no)),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let mut disk = self.disk();
        match disk.make(parent.0, name, false).and_then(|node| disk.opened(node).map(|()| node)) {
            Ok(node) => {
                let attributes = attributes(node, Some(0));
                reply.created(&TTL, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(no) => reply.error(errno(no)),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(node.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(no) => reply.error(errno(no)),
        }
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().write(node.0, offset, bytes) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(no) => reply.error(errno(no)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing durable.
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.disk().closed(node.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.disk().sync_file(node.0), reply);
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.disk().sync_directory(node.0), reply);
    }

    fn readdir(&self, _: &Request, node: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.disk().list(node.0) {
            Ok(entries) => {
                for (at, (name, node, is_directory)) in entries.into_iter().enumerate().skip(offset as usize)
                {
                    let kind = if is_directory { FileType::Directory } else { FileType::RegularFile };
                    if reply.add(INodeNo(node), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(no) => reply.error(errno(no)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // Room for 64 GiB, whatever is in it.
        let blocks = (64 << 30) / 4096;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mountpoint] = arguments.as_slice() else {
        eprintln!("usage: sabir-powerloss MOUNTPOINT");
        return ExitCode::FAILURE;
    };
    let disk = Arc::new(Mutex::new(Disk::new()));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("powerloss".to_owned()), MountOption::NoAtime];
    let session = match fuser::spawn_mount(PowerLoss(Arc::clone(&disk)), mountpoint, &config) {
        Ok(session) => session,
        Err(error) => {
            eprintln!("cannot mount on {mountpoint}: {error}");
            return ExitCode::FAILURE;
        }
    };
    say("mounted");
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let mut disk = disk.lock().expect("nobody panics while holding it");
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("cut", seed) => {
                let loss = disk.cut(seed.parse().unwrap_or(0));
                say(&format!("cut {} {} {}", loss.pages, loss.pages_kept, loss.names));
            }
            ("on", _) => {
                disk.power_on();
                say("on");
            }
            ("lie", _) => {
                disk.lie();
                say("lying");
            }
            _ => say("cut SEED, on, or lie"),
        }
    }
    match session.umount_and_join() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot unmount {mountpoint}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    // If nobody listens any more, the end of the input comes next.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
