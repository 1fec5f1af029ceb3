//! Frames inside segment files: sealing one before it is written, and reading them back without trusting a
//! byte.

use crate::fs::FsFile;
use crate::record;
use std::io;
use std::sync::Arc;

/// Bytes of a frame's header: `magic u32 | crc32c u32 | len u64 | stamp u64 | lsn u64 | durable_lsn u64 | n
/// u32 | 0 u32`.
pub(crate) const FRAME_HEADER: usize = 48;
/// Frames start at multiples of this.
const ALIGN: u64 = 8;
/// The empty frame that marks an idle or closed log starts at the next multiple of this, if the segment has
/// room: what ruins the page of the last frame then spares the mark that tells of it.
const MARK_ALIGN: u64 = 4096;
const MAGIC: u32 = u32::from_le_bytes(*b"SBRF");
/// Numbers of files stay below this; counting up never meets the end.
pub(crate) const NUMBER_MAX: u64 = 1 << 60;
/// What is read from the file at once, at most, unless a frame is larger.
const WINDOW: usize = 1 << 20;
/// What is read at first by whoever may want a single message.
const WINDOW_MIN: usize = 64 << 10;

/// What every frame of one use of a segment file carries: secret to clients (the store's id is mixed in), so no
/// message body can be taken for a frame; and never the same twice, so recycled bytes cannot either.
pub(crate) fn stamp(store_id: u64, number: u64) -> u64 {
    // splitmix64: a bijection, so two numbers of one store never share a stamp.
    let mut z = store_id.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn file_name(number: u64) -> String {
    format!("{number:012}.j")
}

pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".j")?;
    let number =
        (digits.len() >= 12 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())??;
    (number < NUMBER_MAX).then_some(number)
}

pub(crate) fn align(offset: u64) -> u64 {
    offset.saturating_add(ALIGN - 1) & !(ALIGN - 1)
}

/// Where a mark goes that may start at `offset`.
pub(crate) fn mark_offset(offset: u64, capacity: u64) -> u64 {
    match offset.checked_next_multiple_of(MARK_ALIGN) {
        Some(aligned) if aligned.saturating_add(FRAME_HEADER as u64) <= capacity => aligned,
        _ => offset,
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes after the header.
    pub(crate) len: u64,
    /// Position of the first group; of the next one, if there is none.
    pub(crate) lsn: u64,
    /// Everything up to here was synced when the frame was written.
    pub(crate) durable: u64,
    /// Number of groups.
    pub(crate) groups: u32,
}

impl Header {
    /// The offset at which the next frame starts, given this one's.
    pub(crate) fn end(&self, offset: u64) -> u64 {
        align(offset.saturating_add(FRAME_HEADER as u64).saturating_add(self.len))
    }

    /// The last position in the frame; the one before `lsn` if it is empty.
    pub(crate) fn last(&self) -> u64 {
        self.lsn.saturating_add(u64::from(self.groups)).saturating_sub(1)
    }
}

pub(crate) fn salted_crc(stamp: u64, offset: u64, bytes: &[u8]) -> u32 {
    let salt = stamp ^ offset;
    crc32c::crc32c_append((salt ^ (salt >> 32)) as u32, bytes)
}

/// Fills in the header of `frame`, whose groups are already in place.
pub(crate) fn seal(frame: &mut [u8], stamp: u64, offset: u64, lsn: u64, durable: u64, groups: u32) {
    let len = frame.len().saturating_sub(FRAME_HEADER) as u64;
    let Some((header, _)) = frame.split_first_chunk_mut::<FRAME_HEADER>() else { return };
    let mut fields = [0u8; FRAME_HEADER];
    let mut at = 0;
    let mut push = |bytes: &[u8]| {
        if let Some(slot) = fields.get_mut(at..at + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
        at += bytes.len();
    };
    push(&MAGIC.to_le_bytes());
    push(&[0; 4]);
    push(&len.to_le_bytes());
    push(&stamp.to_le_bytes());
    push(&lsn.to_le_bytes());
    push(&durable.to_le_bytes());
    push(&groups.to_le_bytes());
    *header = fields;
    let crc = salted_crc(stamp, offset, frame.get(8..).unwrap_or_default());
    if let Some(slot) = frame.get_mut(4..8) {
        slot.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Reads a header if the bytes carry the magic and the stamp; everything else about it is unchecked.
fn recognise(bytes: &[u8], expected_stamp: u64) -> Option<(Header, u32)> {
    let mut rest = bytes.get(..FRAME_HEADER)?;
    let u32_ = |rest: &mut &[u8]| {
        let (piece, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        Some(u32::from_le_bytes(*piece))
    };
    let u64_ = |rest: &mut &[u8]| {
        let (piece, tail) = rest.split_first_chunk::<8>()?;
        *rest = tail;
        Some(u64::from_le_bytes(*piece))
    };
    let magic = u32_(&mut rest)?;
    let crc = u32_(&mut rest)?;
    let len = u64_(&mut rest)?;
    let stamp = u64_(&mut rest)?;
    let lsn = u64_(&mut rest)?;
    let durable = u64_(&mut rest)?;
    let groups = u32_(&mut rest)?;
    (magic == MAGIC && stamp == expected_stamp).then_some((Header { len, lsn, durable, groups }, crc))
}

/// What lies behind the last good frame of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The highest `durable_lsn` of any valid frame.
    pub(crate) durable: u64,
    /// End of the last byte that belongs to something recognisable as a frame; 0 if there is nothing.
    pub(crate) end: u64,
    /// Where the first valid frame starts.
    pub(crate) first_valid: Option<u64>,
}

/// Reads frames of one segment file through a moving window.
pub(crate) struct Reader {
    file: Arc<dyn FsFile>,
    stamp: u64,
    len: u64,
    window: Vec<u8>,
    start: u64,
    /// How much to read at once: at first, now, and at most.
    least: usize,
    step: usize,
    most: usize,
    /// The frame in the window that was found sound last.
    sound: Option<u64>,
    /// Bytes read from the file so far.
    pub(crate) read: u64,
}

impl Reader {
    /// Reads up to `limit`, or to the end of the file.
    pub(crate) fn new(file: Arc<dyn FsFile>, stamp: u64, limit: Option<u64>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self {
            file,
            stamp,
            len: limit.map_or(len, |l| l.min(len)),
            window: Vec::new(),
            start: 0,
            least: WINDOW,
            step: WINDOW,
            most: WINDOW,
            sound: None,
            read: 0,
        })
    }

    /// Reads little at first, and more as long as it goes on from there.
    pub(crate) fn cautious(self) -> Self {
        Self { least: WINDOW_MIN, ..self }
    }

    /// Reads ahead so much at most, within reason.
    pub(crate) fn read_ahead(&mut self, most: usize) {
        self.most = most.clamp(WINDOW_MIN, WINDOW);
    }

    /// Bytes of memory that it holds.
    pub(crate) fn held(&self) -> usize {
        self.window.capacity()
    }

    /// Forgets what was read: it may have been written to since.
    pub(crate) fn forget(&mut self) {
        self.window.clear();
        self.sound = None;
    }

    /// Gives back the memory of a large frame.
    pub(crate) fn shrink(&mut self) {
        if self.window.capacity() > 2 * WINDOW {
            self.window = Vec::new();
            self.sound = None;
        }
    }

    /// Copies raw bytes out, for quarantine.
    pub(crate) fn raw(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let room = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        Ok(self.bytes(offset, len.min(room))?.unwrap_or_default())
    }

    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let inside = offset >= self.start && offset + len as u64 <= self.start + self.window.len() as u64;
        if !inside {
            let near = offset >= self.start && offset <= self.start + self.window.len() as u64;
            self.step =
                if near && !self.window.is_empty() { (self.step * 2).min(self.most) } else { self.least };
            self.sound = None;
            // The beginning of a frame that was read with the one before it is not read again.
            let kept =
                if near { usize::try_from(offset - self.start).unwrap_or(usize::MAX) } else { usize::MAX };
            let kept = self.window.get(kept..).map_or(0, <[u8]>::len);
            let ahead = self.step.max(kept + self.step.min(WINDOW_MIN));
            let want = (self.len - offset).min(len.max(ahead) as u64);
            let want = usize::try_from(want).map_err(|_| io::ErrorKind::OutOfMemory)?;
            if self.window.capacity() > 4 * WINDOW && want <= 2 * WINDOW {
                self.window = self.window.split_off(self.window.len() - kept);
            } else {
                self.window.drain(..self.window.len() - kept);
            }
            self.window.reserve_exact(want - self.window.len());
            self.window.resize(want, 0);
            self.start = offset;
            let mut filled = kept;
            while let Some(hole) = self.window.get_mut(filled..).filter(|hole| !hole.is_empty()) {
                let n = self.file.read_at(hole, offset + filled as u64)?;
                if n == 0 {
                    break;
                }
                filled += n;
            }
            self.window.truncate(filled);
            self.read += (filled - kept) as u64;
        }
        let at = usize::try_from(offset - self.start).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(self.window.get(at..at + len))
    }

    /// Where the frame behind `offset` starts: there, or at the next place for a mark if one with position
    /// `expected` lies there.
    pub(crate) fn place(&mut self, offset: u64, expected: u64) -> io::Result<u64> {
        let stamp = self.stamp;
        if self.bytes(offset, FRAME_HEADER)?.and_then(|bytes| recognise(bytes, stamp)).is_some() {
            return Ok(offset);
        }
        let aligned = mark_offset(offset, self.len);
        let there = self.bytes(aligned, FRAME_HEADER)?.and_then(|bytes| recognise(bytes, stamp));
        let is_mark = there.is_some_and(|(header, _)| header.groups == 0 && header.lsn == expected);
        Ok(if is_mark { aligned } else { offset })
    }

    /// The frame at `offset`, if a whole and undamaged one starts there.
    pub(crate) fn frame(&mut self, offset: u64) -> io::Result<Option<(Header, &[u8])>> {
        let (stamp, room) = (self.stamp, self.len.saturating_sub(offset));
        let Some((header, crc)) = self.bytes(offset, FRAME_HEADER)?.and_then(|b| recognise(b, stamp)) else {
            return Ok(None);
        };
        if header.len > room.saturating_sub(FRAME_HEADER as u64) {
            return Ok(None);
        }
        let Ok(total) = usize::try_from(header.len + FRAME_HEADER as u64) else { return Ok(None) };
        if self.bytes(offset, total)?.is_none() {
            return Ok(None);
        }
        // What was checked already stays in the window until something else is read into it.
        if self.sound != Some(offset) {
            let bytes = self.bytes(offset, total)?.unwrap_or_default();
            let (checked, body) =
                (bytes.get(8..).unwrap_or_default(), bytes.get(FRAME_HEADER..).unwrap_or_default());
            let sound = salted_crc(stamp, offset, checked) == crc
                && header.lsn.checked_add(u64::from(header.groups)).is_some()
                && header.lsn > 0
                && header.durable < header.lsn
                && record::is_well_formed(body, header.groups);
            if !sound {
                return Ok(None);
            }
            self.sound = Some(offset);
        }
        // Borrowed anew: the window holds it.
        Ok(self.bytes(offset, total)?.and_then(|bytes| bytes.get(FRAME_HEADER..)).map(|body| (header, body)))
    }

    /// The next offset at or after `from` that looks like a frame, whether it is whole or not.
    fn next_recognisable(&mut self, from: u64) -> io::Result<Option<(u64, Header)>> {
        let stamp = self.stamp;
        let mut offset = align(from);
        while offset.saturating_add(FRAME_HEADER as u64) <= self.len {
            let want = usize::try_from(self.len - offset).unwrap_or(WINDOW).min(WINDOW);
            let Some(bytes) = self.bytes(offset, want)? else { return Ok(None) };
            let magic = MAGIC.to_le_bytes();
            let mut at = 0;
            while let Some(piece) = bytes.get(at..).filter(|piece| piece.len() >= FRAME_HEADER) {
                if piece.starts_with(&magic)
                    && let Some((header, _)) = recognise(piece, stamp)
                {
                    return Ok(Some((offset + at as u64, header)));
                }
                at += ALIGN as usize;
            }
            if at == 0 {
                return Ok(None);
            }
            offset += at as u64;
        }
        Ok(None)
    }

    /// The next valid frame at or after `from`: how reading goes on behind damage.
    pub(crate) fn resync(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut offset = from;
        while let Some((at, _)) = self.next_recognisable(offset)? {
            if self.frame(at)?.is_some() {
                return Ok(Some(at));
            }
            offset = at + ALIGN;
        }
        Ok(None)
    }

    /// Looks at everything from `from` to the end.
    pub(crate) fn tail(&mut self, from: u64) -> io::Result<Tail> {
        let mut tail = Tail::default();
        let mut offset = from;
        while let Some((at, header)) = self.next_recognisable(offset)? {
            tail.end = tail.end.max(header.end(at).min(self.len));
            if self.frame(at)?.is_some() {
                tail.durable = tail.durable.max(header.durable);
                tail.first_valid.get_or_insert(at);
                offset = header.end(at);
            } else {
                offset = at + ALIGN;
            }
        }
        Ok(tail)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fault_fs::FaultFs;
    use crate::fs::Fs;
    use std::path::Path;

    fn frame(stamp: u64, offset: u64, lsn: u64, durable: u64) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER];
        record::set(&mut bytes, 1, b"key", b"value");
        bytes.push(record::END);
        seal(&mut bytes, stamp, offset, lsn, durable, 1);
        bytes
    }

    fn reader(contents: &[u8], stamp: u64) -> Reader {
        let fs = FaultFs::new();
        let file = fs.create(Path::new("x")).unwrap();
        file.write_at(contents, 0).unwrap();
        Reader::new(file, stamp, None).unwrap()
    }

    #[test]
    fn a_frame_is_valid_only_at_its_offset_and_with_its_stamp() {
        let bytes = frame(7, 0, 1, 0);
        assert!(reader(&bytes, 7).frame(0).unwrap().is_some());
        assert!(reader(&bytes, 8).frame(0).unwrap().is_none());
        let mut moved = vec![0; 64];
        moved.extend_from_slice(&bytes);
        assert!(reader(&moved, 7).frame(64).unwrap().is_none());
    }

    #[test]
    fn every_flipped_bit_makes_a_frame_invalid() {
        let bytes = frame(7, 0, 1, 0);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(reader(&bad, 7).frame(0).unwrap().is_none(), "bit {bit}");
        }
    }

    #[test]
    fn the_tail_knows_the_highest_watermark_behind_damage() {
        let mut bytes = frame(7, 0, 1, 0);
        bytes[FRAME_HEADER] ^= 1;
        let second = align(bytes.len() as u64);
        bytes.resize(second as usize, 0);
        bytes.extend_from_slice(&frame(7, second, 2, 1));
        let mut reader = reader(&bytes, 7);
        let tail = reader.tail(0).unwrap();
        assert_eq!((tail.durable, tail.first_valid), (1, Some(second)));
        assert_eq!(reader.resync(0).unwrap(), Some(second));
    }

    #[test]
    fn segment_names_sort_and_parse() {
        assert_eq!(parse_name(&file_name(17)), Some(17));
        for bad in ["17.j", "0000000000x7.j", "000000000017.k", ".j"] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
