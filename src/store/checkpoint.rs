//! Checkpoints: the index at one position, folded into one file, so that acknowledgements, counts and
//! metadata never pin a segment.
//!
//! `C/000000000042.ckpt`: `magic u64 | format u32 | crc32c u32 | len u64 | store u64 | number u64 | lsn u64 |
//! next segment u64`, then `len` bytes, of varints but for keys, values and bits:
//!
//! - the active segment; n, n × segment or page file: number × 4 + 1 for a segment that is kept as a page or + 2 for
//!   a page file, targets ever, end of the last frame, bytes of those targets
//! - n, n × metadata entry: table u8, key length, value length, key, value
//! - n, n × queue: id, next number, when the first of its messages expires at the earliest (0 for never), n,
//!   n × run, n, n × failed delivery (sequence, count)
//! - a run: first − last of the run before it, last − first, segment × 4 + 2 if it has holes + 1 if it is held
//!   by reference, where it begins in the segment, its live bytes; then, if by reference, queue and first
//!   number of the record; then, if it has holes, a bit for each number from the first, in whole bytes, set
//!   for a hole
//! - blobs: the next number; n, n × blob: number, length, CRC of its table, 1 if its file is synced; n, n × holder:
//!   queue, number, blob
//!
//! Format 2 had no page files (the number of a segment stood alone) and no blobs. Format 1 had no bytes of segments, no expiry of queues, and of a run neither place, bytes nor holes (segment × 2 + 1 if by
//! reference): such a run is looked for from the start of its segment.
//!
//! The CRC covers everything behind it, salted with the store's id. A checkpoint is written over the blocks of
//! the one before the last (`C/spare`), so that a full disk does not keep the log from shrinking; it counts
//! once it has its name. Trailing bytes mean nothing. The log is synced up to `lsn` before the checkpoint is
//! written.

use crate::blob_index::BlobIndex;
use crate::error::StoreError;
use crate::fs::Fs;
use crate::index::{Index, Kind, Segment};
use crate::manifest::{FORMAT, Paths};
use crate::record::{put_varint, take, take_u8, take_varint};
use crate::runs::{Place, Queue, Run};
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"SABIRCKP";
pub(crate) const HEADER: usize = 56;
/// Space taken in advance for the next checkpoint.
const SPARE_BYTES: u64 = 64 << 10;

/// A checkpoint as it was read.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) number: u64,
    pub(crate) next_segment: u64,
    pub(crate) index: Index,
    pub(crate) bytes: u64,
}

/// Encodes the index without its dead segments. Room for the header is left in front.
pub(crate) fn encode(index: &Index) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    let kept = |(number, info): &(&u64, &Segment)| info.live > 0 || **number == index.active;
    let segments: Vec<_> = index.segments.iter().filter(kept).collect();
    put_varint(&mut out, index.active);
    put_varint(&mut out, segments.len() as u64);
    for (number, info) in segments {
        let kind = match info.kind {
            Kind::Journal => 0,
            Kind::Kept => 1,
            Kind::Page => 2,
        };
        for value in [number << 2 | kind, info.total, info.end, info.bytes] {
            put_varint(&mut out, value);
        }
    }
    put_varint(&mut out, index.meta.len() as u64);
    for ((table, key), value) in &index.meta {
        out.push(*table);
        put_varint(&mut out, key.len() as u64);
        put_varint(&mut out, value.len() as u64);
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    put_varint(&mut out, index.queues.len() as u64);
    for (&id, queue) in &index.queues {
        encode_queue(&mut out, id, queue);
    }
    index.blobs.encode(&mut out);
    out
}

fn encode_queue(out: &mut Vec<u8>, id: u64, queue: &Queue) {
    put_varint(out, id);
    put_varint(out, queue.next);
    put_varint(out, queue.expires);
    put_varint(out, queue.runs().count() as u64);
    let mut before = 0;
    for (last, run) in queue.runs() {
        let own = run.origin == (id, run.first);
        let holes = run.hole_bits(last);
        put_varint(out, run.first.wrapping_sub(before));
        put_varint(out, last - run.first);
        put_varint(out, run.segment << 2 | u64::from(holes.is_some()) << 1 | u64::from(!own));
        put_varint(out, run.place);
        put_varint(out, run.bytes_of(run.count(last)));
        if !own {
            put_varint(out, run.origin.0);
            put_varint(out, run.origin.1);
        }
        out.extend_from_slice(&holes.unwrap_or_default());
        before = last;
    }
    put_varint(out, queue.attempts.len() as u64);
    for (sequence, count) in &queue.attempts {
        put_varint(out, *sequence);
        put_varint(out, u64::from(*count));
    }
}

fn decode_body(mut rest: &[u8], lsn: u64, format: u32) -> Option<Index> {
    let rest = &mut rest;
    let mut index = Index { lsn, active: take_varint(rest)?, ..Index::default() };
    for _ in 0..take_varint(rest)? {
        let mut number = take_varint(rest)?;
        let mut kind = Kind::Journal;
        if format > 2 {
            kind = match number & 3 {
                0 => Kind::Journal,
                1 => Kind::Kept,
                2 => Kind::Page,
                _ => return None,
            };
            number >>= 2;
        }
        let mut info =
            Segment { kind, total: take_varint(rest)?, end: take_varint(rest)?, ..Segment::default() };
        info.bytes = if format == 1 { info.end } else { take_varint(rest)? };
        index.segments.insert(number, info);
    }
    for _ in 0..take_varint(rest)? {
        let table = take_u8(rest)?;
        let (key_len, value_len) = (take_varint(rest)?, take_varint(rest)?);
        let (key, value) = (take(rest, key_len)?, take(rest, value_len)?);
        index.meta.insert((table, key.into()), value.into());
    }
    for _ in 0..take_varint(rest)? {
        let id = take_varint(rest)?;
        let mut queue = Queue::default();
        queue.next = take_varint(rest)?;
        // Whoever does not know looks.
        queue.expires = if format == 1 { 1 } else { take_varint(rest)? };
        let mut before = 0u64;
        for _ in 0..take_varint(rest)? {
            let first = before.checked_add(take_varint(rest)?)?;
            let last = first.checked_add(take_varint(rest)?)?;
            let (run, own) = decode_run(rest, id, (first, last), &index, format)?;
            let info = index.segments.get_mut(&run.segment)?;
            info.live = info.live.checked_add(run.count(last))?;
            if last >= queue.next || !queue.restore(last, run, own) {
                return None;
            }
            before = last;
        }
        for _ in 0..take_varint(rest)? {
            let sequence = take_varint(rest)?;
            queue.attempts.insert(sequence, u32::try_from(take_varint(rest)?).ok()?);
        }
        index.queues.insert(id, queue);
    }
    if format > 2 {
        let queues = &index.queues;
        let is_live =
            |queue, sequence| queues.get(&queue).is_some_and(|queue| queue.find(sequence).is_some());
        index.blobs = BlobIndex::decode(rest, is_live)?;
    }
    Some(index)
}

/// The rest of a run of which the numbers are known; and whether the queue holds it under its own name.
fn decode_run(
    rest: &mut &[u8],
    id: u64,
    (first, last): (u64, u64),
    index: &Index,
    format: u32,
) -> Option<(Run, bool)> {
    let span = (last - first).checked_add(1)?;
    let mut tagged = take_varint(rest)?;
    let own = tagged & 1 == 0;
    tagged >>= 1;
    let has_holes = format > 1 && tagged & 1 == 1;
    if format > 1 {
        tagged >>= 1;
    }
    let info = index.segments.get(&tagged)?;
    let (offset, bytes) = if format > 1 {
        (take_varint(rest)?, take_varint(rest)?)
    } else {
        let share = u128::from(info.end) * u128::from(span) / u128::from(info.total.max(1));
        (0, u64::try_from(share).ok()?.min(info.end))
    };
    let origin = if own { (id, first) } else { (take_varint(rest)?, take_varint(rest)?) };
    let bits = if has_holes { Some(take(rest, span.div_ceil(8))?) } else { None };
    let place = Place { segment: tagged, offset, origin, bytes, expires: 0 };
    Some((Run::restored(first, last, &place, bits)?, own))
}

/// Fills in the header of what [`encode`] made.
pub(crate) fn seal(bytes: &mut [u8], store_id: u64, number: u64, lsn: u64, next_segment: u64) {
    let len = bytes.len().saturating_sub(HEADER) as u64;
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    for value in [len, store_id, number, lsn, next_segment] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    if let Some(slot) = bytes.get_mut(..HEADER) {
        slot.copy_from_slice(&header);
    }
    let crc = crc(bytes, store_id);
    if let Some(slot) = bytes.get_mut(12..16) {
        slot.copy_from_slice(&crc.to_le_bytes());
    }
}

fn crc(bytes: &[u8], store_id: u64) -> u32 {
    let start =
        crc32c::crc32c_append((store_id ^ (store_id >> 32)) as u32, bytes.get(..12).unwrap_or_default());
    crc32c::crc32c_append(start, bytes.get(16..).unwrap_or_default())
}

pub(crate) fn decode(bytes: &[u8], store_id: u64) -> Option<Checkpoint> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut word = |n: usize| {
        let (piece, tail) = rest.split_at_checked(n)?;
        rest = tail;
        let mut value = [0u8; 8];
        value.get_mut(..n)?.copy_from_slice(piece);
        Some(u64::from_le_bytes(value))
    };
    let (format, sum, len) = (word(4)?, word(4)?, word(8)?);
    let (store, number, lsn, next_segment) = (word(8)?, word(8)?, word(8)?, word(8)?);
    let end = usize::try_from(len).ok()?.checked_add(HEADER)?;
    let whole = bytes.get(..end)?;
    let format = u32::try_from(format).ok().filter(|format| (1..=FORMAT).contains(format))?;
    if store != store_id || u64::from(crc(whole, store_id)) != sum {
        return None;
    }
    let index = decode_body(whole.get(HEADER..)?, lsn, format)?;
    Some(Checkpoint { number, next_segment, index, bytes: end as u64 })
}

fn parse_name(name: &str) -> Option<u64> {
    name.strip_suffix(".ckpt")?.parse().ok().filter(|&number| number < crate::segment::NUMBER_MAX)
}

pub(crate) fn path(paths: &Paths, number: u64) -> PathBuf {
    paths.checkpoints.join(format!("{number:012}.ckpt"))
}

fn read(fs: &dyn Fs, file: &Path) -> io::Result<Vec<u8>> {
    let handle = fs.open(file)?;
    let len = usize::try_from(handle.len()?).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = vec![0; len];
    let mut at = 0;
    while let Some(hole) = bytes.get_mut(at..).filter(|hole| !hole.is_empty()) {
        match handle.read_at(hole, at as u64)? {
            0 => break,
            n => at += n,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

/// The newest checkpoint. An unreadable newest one is an error: older ones do not know what was let go since.
pub(crate) fn load(fs: &dyn Fs, paths: &Paths, store_id: u64) -> Result<Option<Checkpoint>, StoreError> {
    let failed = |what, file: PathBuf| move |source| StoreError::Io { what, file, source };
    let names = fs.list(&paths.checkpoints).map_err(failed("list", paths.checkpoints.clone()))?;
    let Some(newest) = names.iter().filter_map(|name| parse_name(name)).max() else { return Ok(None) };
    let file = path(paths, newest);
    let bytes = read(fs, &file).map_err(failed("read", file.clone()))?;
    match decode(&bytes, store_id) {
        Some(checkpoint) if checkpoint.number == newest => Ok(Some(checkpoint)),
        _ => Err(StoreError::Corrupt {
            file,
            offset: 0,
            reason: "the newest checkpoint cannot be read".to_owned(),
        }),
    }
}

/// Writes sealed bytes as checkpoint `number`, makes it durable, and keeps the older one's blocks as the next
/// spare.
pub(crate) fn write(fs: &dyn Fs, paths: &Paths, number: u64, bytes: &[u8]) -> io::Result<()> {
    let spare = paths.checkpoints.join("spare");
    let file = match fs.open(&spare) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs.create(&spare)?,
        Err(e) => return Err(e),
    };
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    fs.rename(&spare, &path(paths, number))?;
    fs.sync_dir(&paths.checkpoints)?;
    // From here on the checkpoint stands; what follows only saves space.
    let mut older: Vec<u64> =
        fs.list(&paths.checkpoints)?.iter().filter_map(|name| parse_name(name)).collect();
    older.retain(|&other| other != number);
    older.sort_unstable();
    if let Some(last) = older.pop() {
        fs.rename(&path(paths, last), &spare)?;
    } else {
        let made = fs.create(&spare).and_then(|file| file.allocate(SPARE_BYTES.max(bytes.len() as u64)));
        if let Err(error) = made {
            tracing::warn!(%error, "no space could be set aside for the next checkpoint");
        }
    }
    for other in older {
        fs.remove(&path(paths, other))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = vec![0; HEADER];
            bytes.extend_from_slice(&body);
            seal(&mut bytes, 5, 1, 9, 4);
            let _ = decode(&bytes, 5);
        }
    }
}
