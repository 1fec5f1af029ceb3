//! Blob files: the body of one large message each, in pieces that are checked one by one.
//!
//! `B/000000000017.b`, little endian: the `len` bytes of the body; then a table, a CRC-32C u32 for every piece of
//! 64 KiB (the last one may be shorter); then `magic "SABIRBLB" | number u64 | len u64 | table's crc32c u32 |
//! crc32c u32` of the 28 bytes before. Every CRC is salted with the file offset of what it covers and with a
//! stamp, which is a function of the store's id and the file's number, as frames are: a file of another store,
//! or under a wrong name, is never believed. The op that names a blob says its length and the table's CRC once
//! more, so no other file of the same number is believed either.

use crate::fs::{Fs, FsFile};
use crate::segment::{self, NUMBER_MAX, salted_crc};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is checked together: whoever reads less reads it all the same, and whoever reads multiples of it at multiples of it
/// reads every byte once.
/// 64 KiB; small in tests, so that they meet more than one.
pub const BLOB_PIECE_BYTES: usize = if cfg!(test) { 1 << 10 } else { 64 << 10 };
const PIECE: u64 = BLOB_PIECE_BYTES as u64;
const MAGIC: &[u8; 8] = b"SABIRBLB";
const TRAILER: usize = 32;
/// Blobs and segments are numbered apart; their stamps are not to meet.
const STAMPS: u64 = 1 << 62;

/// How ops and checkpoints name a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobName {
    pub(crate) id: u64,
    /// Bytes of the body.
    pub(crate) len: u64,
    /// The CRC of its table of CRCs.
    pub(crate) check: u32,
    /// The file was synced before it was named.
    pub(crate) synced: bool,
}

/// A body that cannot be read, as the source of the [`io::Error`] that says so (of kind `InvalidData`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobDamage {
    /// The file.
    pub file: PathBuf,
    /// Where the damage starts.
    pub offset: u64,
    /// What is wrong there.
    pub reason: &'static str,
}

impl fmt::Display for BlobDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, reason } = self;
        write!(f, "the message body in {} is damaged at byte {offset}: {reason}", file.display())
    }
}

impl std::error::Error for BlobDamage {}

/// What is wrong, if the error says that the file is not what it should be.
pub(crate) fn damage_of(error: &io::Error) -> Option<&BlobDamage> {
    error.get_ref()?.downcast_ref()
}

pub(crate) fn file_name(id: u64) -> String {
    format!("{id:012}.b")
}

pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".b")?;
    let id =
        (digits.len() >= 12 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())??;
    (id < NUMBER_MAX).then_some(id)
}

/// Bytes of the file of a body of `len` bytes.
pub(crate) fn file_bytes(len: u64) -> u64 {
    len.saturating_add(len.div_ceil(PIECE).saturating_mul(4)).saturating_add(TRAILER as u64)
}

pub(crate) fn stamp(store_id: u64, id: u64) -> u64 {
    segment::stamp(store_id, id | STAMPS)
}

/// The CRC of a piece that starts at `offset`.
pub(crate) fn piece_crc(stamp: u64, offset: u64, bytes: &[u8]) -> u32 {
    salted_crc(stamp, offset, bytes)
}

/// What follows the body: the table and the trailer; and the table's CRC.
pub(crate) fn ending(store_id: u64, id: u64, len: u64, mut table: Vec<u8>) -> (Vec<u8>, u32) {
    let stamp = stamp(store_id, id);
    let check = salted_crc(stamp, len, &table);
    let at = len.saturating_add(table.len() as u64);
    let start = table.len();
    table.extend_from_slice(MAGIC);
    table.extend_from_slice(&id.to_le_bytes());
    table.extend_from_slice(&len.to_le_bytes());
    table.extend_from_slice(&check.to_le_bytes());
    let crc = salted_crc(stamp, at, table.get(start..).unwrap_or_default());
    table.extend_from_slice(&crc.to_le_bytes());
    (table, check)
}

/// A blob file, open for reading: its end was checked, its pieces are when they are read.
pub(crate) struct OpenBlob {
    file: Arc<dyn FsFile>,
    path: PathBuf,
    stamp: u64,
    len: u64,
    /// Four bytes for every piece.
    table: Vec<u8>,
}

impl OpenBlob {
    pub(crate) fn open(fs: &dyn Fs, path: PathBuf, store_id: u64, name: &BlobName) -> io::Result<Self> {
        let file = match fs.open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(&path, 0, "the file is missing"));
            }
            Err(e) => return Err(e),
        };
        let present = file.len()?;
        // Only then is the length worth an allocation.
        if present != file_bytes(name.len) {
            return Err(damaged(
                &path,
                present.min(name.len),
                "the file has not the length that it should have",
            ));
        }
        let stamp = stamp(store_id, name.id);
        let size = usize::try_from(present - name.len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut table = vec![0; size];
        read_all(&*file, &path, &mut table, name.len)?;
        let trailer = table.split_off(size.saturating_sub(TRAILER));
        let (expected, check) = ending(store_id, name.id, name.len, table.clone());
        if expected.get(table.len()..) != Some(trailer.as_slice()) || check != name.check {
            return Err(damaged(&path, name.len, "the checksums do not belong to this message"));
        }
        Ok(Self { file, path, stamp, len: name.len, table })
    }

    /// Fills `into` from `offset` on, as far as the body reaches.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(room) = into.get_mut(done..).filter(|room| !room.is_empty()) {
            let at = offset.saturating_add(done as u64);
            if at >= self.len {
                break;
            }
            let start = at - at % PIECE;
            let whole = self.whole(at, room.len());
            done += if at == start && whole > 0 {
                let to = room.get_mut(..whole).unwrap_or_default();
                self.pieces(start, to)?;
                whole
            } else {
                let mut piece = vec![0; usize::try_from((self.len - start).min(PIECE)).unwrap_or_default()];
                self.pieces(start, &mut piece)?;
                let from = piece.get((at - start) as usize..).unwrap_or_default();
                let n = from.len().min(room.len());
                if let (Some(to), Some(from)) = (room.get_mut(..n), from.get(..n)) {
                    to.copy_from_slice(from);
                }
                n
            };
        }
        Ok(done)
    }

    /// How many bytes from `at` on are whole pieces and fit into `room`.
    fn whole(&self, at: u64, room: usize) -> usize {
        let left = self.len - at;
        if left <= room as u64 { left as usize } else { room - room % BLOB_PIECE_BYTES }
    }

    /// Reads whole pieces.
    fn pieces(&self, start: u64, into: &mut [u8]) -> io::Result<()> {
        read_all(&*self.file, &self.path, into, start)?;
        let mut at = start;
        for piece in into.chunks(BLOB_PIECE_BYTES) {
            let slot = usize::try_from(at / PIECE * 4).unwrap_or(usize::MAX);
            let crc = piece_crc(self.stamp, at, piece).to_le_bytes();
            if self.table.get(slot..slot.saturating_add(4)) != Some(&crc) {
                return Err(damaged(&self.path, at, "the bytes do not match their checksum"));
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Reads everything; tells `read` how much at a time.
    pub(crate) fn examine(&self, read: &mut dyn FnMut(u64)) -> io::Result<()> {
        const STEP: usize = 4 * BLOB_PIECE_BYTES;
        let mut buffer = vec![0; usize::try_from(self.len).unwrap_or(STEP).min(STEP)];
        let mut at = 0;
        while at < self.len {
            let n = self.read_at(at, &mut buffer)? as u64;
            read(n);
            at += n;
        }
        Ok(())
    }
}

fn damaged(file: &Path, offset: u64, reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, BlobDamage { file: file.to_owned(), offset, reason })
}

fn read_all(file: &dyn FsFile, path: &Path, into: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while let Some(hole) = into.get_mut(filled..).filter(|hole| !hole.is_empty()) {
        match file.read_at(hole, offset.saturating_add(filled as u64))? {
            0 => return Err(damaged(path, offset.saturating_add(filled as u64), "the file ends too early")),
            n => filled += n,
        }
    }
    Ok(())
}
