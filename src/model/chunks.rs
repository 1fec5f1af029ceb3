//! Outgoing bytes as a chain of pooled chunks: small writes are copied, large bodies referenced.
//!
//! Bodies that are not in memory are parts too: whoever writes the chain loads them a window at a time.
//!
//! A growing `Vec` would pass through mmap and page faults at every burst; fixed chunks from a per-thread pool do not.
//! A drained chain holds no chunk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::rare::Rare;
use crate::stored::Stored;

/// Size of one pooled chunk, in bytes.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks each thread keeps for reuse (1 MiB).
const POOL_CHUNKS_MAX: usize = 64;
/// Bodies from this size up are referenced instead of copied.
pub const REFERENCE_BYTES_MIN: usize = 1024;
/// Most bytes before a referenced body that are cut out of their chunk; more take it with them.
const CUT_BYTES_MAX: usize = 1024;
/// So much of a body that is not in memory is loaded at a time.
pub const WINDOW_BYTES: usize = 256 * 1024;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_chunk() -> Vec<u8> {
    POOL.with(|pool| pool.borrow_mut().pop()).unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
}

fn give_chunk(mut chunk: Vec<u8>) {
    // A chunk that an encoder let grow beyond its size goes back to the allocator, not to the pool.
    if chunk.capacity() != CHUNK_BYTES {
        return;
    }
    chunk.clear();
    POOL.with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < POOL_CHUNKS_MAX {
            pool.push(chunk);
        }
    });
}

#[derive(Debug)]
enum Part {
    Owned(Vec<u8>),
    Shared(Bytes),
    Stored(Unloaded),
}

/// What is left of a body that is not in memory.
#[derive(Clone, Debug)]
struct Unloaded {
    body: Stored,
    /// Where the next window begins.
    from: u64,
    left: usize,
}

impl Part {
    /// What of it can be written now.
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Stored(_) => &[],
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
            Self::Stored(unloaded) => unloaded.left,
        }
    }
}

/// How much of a chain is not in memory.
#[derive(Debug, Default)]
struct Elsewhere {
    bytes: usize,
    parts: usize,
}

/// A window that is to be loaded.
#[derive(Clone, Debug)]
pub struct Window {
    /// Out of what.
    pub body: Stored,
    /// From where.
    pub from: u64,
    /// How much.
    pub length: usize,
}

/// A chain of outgoing bytes.
#[derive(Debug, Default)]
pub struct Chunks {
    /// What comes before `tail`.
    parts: VecDeque<Part>,
    /// The chunk that is written to; without capacity if there is none.
    tail: Vec<u8>,
    /// Bytes of the first part, or of `tail` if it is that, that have been taken already.
    taken: usize,
    len: usize,
    elsewhere: Rare<Elsewhere>,
}

impl Chunks {
    /// An empty chain; allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes not yet taken, also those that are not in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that are held, or will be: each body that is not in memory counts as a window.
    #[must_use]
    pub fn memory(&self) -> usize {
        match self.elsewhere.get() {
            None => self.len,
            Some(elsewhere) => (self.len - elsewhere.bytes).saturating_add(elsewhere.parts * WINDOW_BYTES),
        }
    }

    /// Whether bytes are left and none of them can be written before [`Chunks::supply`].
    #[must_use]
    pub fn waits(&self) -> bool {
        self.elsewhere.get().is_some() && matches!(self.parts.front(), Some(Part::Stored(_)))
    }

    /// Lets `encode` append to a buffer that has at least `hint` bytes of room (or [`CHUNK_BYTES`], if less).
    /// Writing more than the hint is correct but may reallocate.
    pub fn write<R>(&mut self, hint: usize, encode: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if self.tail.capacity() - self.tail.len() < hint.min(CHUNK_BYTES) || self.tail.capacity() == 0 {
            self.end_tail();
            self.tail = take_chunk();
        }
        let before = self.tail.len();
        let result = encode(&mut self.tail);
        // In this order: `before` counts what has been taken already too, and may be more than is left.
        self.len = self.len + self.tail.len() - before;
        if self.len == 0 {
            // Nothing was written after all.
            self.clear();
        }
        result
    }

    /// Puts the chunk that was written to behind the other parts.
    fn end_tail(&mut self) {
        if self.tail.capacity() == 0 {
            return;
        }
        let tail = std::mem::take(&mut self.tail);
        if self.parts.is_empty() && self.taken == tail.len() {
            self.taken = 0;
            give_chunk(tail);
        } else {
            self.parts.push_back(Part::Owned(tail));
        }
    }

    /// Appends a copy of `bytes`.
    pub fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.tail.capacity() - self.tail.len();
            let (now, later) = bytes.split_at(bytes.len().min(if room == 0 { CHUNK_BYTES } else { room }));
            self.write(now.len(), |out| out.extend_from_slice(now));
            bytes = later;
        }
    }

    /// Appends a body: copied when small, referenced when large.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < REFERENCE_BYTES_MIN {
            self.put(bytes);
        } else {
            self.cut_tail();
            self.len += bytes.len();
            self.parts.push_back(Part::Shared(bytes.clone()));
        }
    }

    /// As `end_tail`, but keeps the chunk if little is in it: of heads and referenced bodies in turn each head would hold
    /// a chunk.
    fn cut_tail(&mut self) {
        let first = self.parts.is_empty();
        let waits = self.tail.get(if first { self.taken } else { 0 }..).unwrap_or_default();
        if waits.len() > CUT_BYTES_MAX {
            return self.end_tail();
        }
        if !waits.is_empty() {
            self.parts.push_back(Part::Owned(waits.to_vec()));
        }
        if first {
            self.taken = 0;
        }
        self.tail.clear();
    }

    /// Appends a body that is not in memory.
    pub fn put_stored(&mut self, body: &Stored) {
        let left = usize::try_from(body.length()).unwrap_or(usize::MAX);
        self.put_unloaded(Unloaded { body: body.clone(), from: 0, left });
    }

    fn put_unloaded(&mut self, unloaded: Unloaded) {
        if unloaded.left == 0 {
            return;
        }
        self.end_tail();
        self.len += unloaded.left;
        let elsewhere = self.elsewhere.make();
        elsewhere.bytes += unloaded.left;
        elsewhere.parts += 1;
        self.parts.push_back(Part::Stored(unloaded));
    }

    /// The next window to be loaded, if at most `ahead` bytes are to be written before it.
    #[must_use]
    pub fn next_window(&self, ahead: usize) -> Option<Window> {
        self.elsewhere.get()?;
        let mut before = 0;
        for part in &self.parts {
            if let Part::Stored(Unloaded { body, from, left }) = part {
                let length = (*left).min(WINDOW_BYTES);
                return Some(Window { body: body.clone(), from: *from, length });
            }
            before += part.len();
            if before - self.taken.min(before) > ahead {
                return None;
            }
        }
        None
    }

    /// Puts a loaded window, the one that [`Chunks::next_window`] named, into its place.
    pub fn supply(&mut self, bytes: Bytes) {
        let Some(at) = self.parts.iter().position(|part| matches!(part, Part::Stored(_))) else { return };
        let Some(Part::Stored(unloaded)) = self.parts.get_mut(at) else { return };
        let count = bytes.len().min(unloaded.left);
        unloaded.from += count as u64;
        unloaded.left -= count;
        let over = unloaded.left == 0;
        let loaded = Part::Shared(bytes.slice(..count));
        match over {
            true => drop(self.parts.get_mut(at).map(|part| std::mem::replace(part, loaded))),
            false => self.parts.insert(at, loaded),
        }
        self.forget_elsewhere(count, usize::from(over));
    }

    /// So much is in memory now, or gone.
    fn forget_elsewhere(&mut self, bytes: usize, parts: usize) {
        let Some(elsewhere) = self.elsewhere.get_mut() else { return };
        elsewhere.bytes -= bytes.min(elsewhere.bytes);
        elsewhere.parts -= parts.min(elsewhere.parts);
        if elsewhere.parts == 0 {
            self.elsewhere.clear();
        }
    }

    /// Moves everything from `other` to the end of this chain.
    pub fn append(&mut self, other: &mut Self) {
        if other.is_empty() {
            return;
        }
        let mut skip = std::mem::take(&mut other.taken);
        other.elsewhere.clear();
        let small = other.len <= CHUNK_BYTES / 4;
        other.len = 0;
        let tail = Part::Owned(std::mem::take(&mut other.tail));
        for part in std::mem::take(&mut other.parts).into_iter().chain([tail]) {
            let from = std::mem::take(&mut skip);
            match part {
                // Small remainders are copied so that chunks do not travel between pools nearly empty.
                Part::Owned(bytes) if small || from > 0 => {
                    self.put(bytes.get(from..).unwrap_or_default());
                    give_chunk(bytes);
                }
                Part::Owned(bytes) if bytes.is_empty() => give_chunk(bytes),
                Part::Owned(bytes) => {
                    self.end_tail();
                    self.len += bytes.len();
                    self.tail = bytes;
                }
                Part::Shared(bytes) => {
                    self.end_tail();
                    let rest = bytes.slice(from..);
                    self.len += rest.len();
                    self.parts.push_back(Part::Shared(rest));
                }
                Part::Stored(unloaded) => self.put_unloaded(unloaded),
            }
        }
    }

    /// What is left, piece by piece.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts.iter().map(Part::as_slice).chain([self.tail.as_slice()]);
        let taken = std::iter::once(self.taken).chain(std::iter::repeat(0));
        parts.zip(taken).map(|(bytes, taken)| bytes.get(taken..).unwrap_or_default())
    }

    /// Fills `slices` with what comes next and returns how many were filled: at most up to what is not in memory.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        let loaded = match self.elsewhere.get() {
            None => usize::MAX,
            Some(_) => {
                self.parts.iter().position(|part| matches!(part, Part::Stored(_))).unwrap_or(usize::MAX)
            }
        };
        let pieces = self.pieces().take(loaded).filter(|bytes| !bytes.is_empty());
        for (slot, bytes) in slices.iter_mut().zip(pieces) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Drops the next `count` bytes: they have been written.
    pub fn consume(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while let Some(part) = self.parts.front() {
            let available = part.len() - self.taken;
            if left < available {
                self.taken += left;
                return;
            }
            left -= available;
            self.taken = 0;
            match self.parts.pop_front() {
                Some(Part::Owned(chunk)) => give_chunk(chunk),
                Some(Part::Stored(unloaded)) => self.forget_elsewhere(unloaded.left, 1),
                Some(Part::Shared(_)) | None => {}
            }
        }
        self.taken += left;
        if self.len == 0 {
            // What is drained holds nothing, for it may stay so for long.
            self.taken = 0;
            give_chunk(std::mem::take(&mut self.tail));
            if self.parts.capacity() > 0 {
                self.parts = VecDeque::new();
            }
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.consume(self.len);
    }

    /// All bytes in one `Vec`, up to a body that cannot be loaded: for tests and tools.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        let loaded = self.parts.iter().zip(self.pieces());
        for (part, bytes) in loaded {
            all.extend_from_slice(bytes);
            if let Part::Stored(Unloaded { body, from, left }) = part {
                let at = all.len();
                all.resize(at + left, 0);
                if body.read_at(*from, all.get_mut(at..).unwrap_or_default()).is_err() {
                    all.truncate(at);
                    return all;
                }
            }
        }
        let taken = if self.parts.is_empty() { self.taken } else { 0 };
        all.extend_from_slice(self.tail.get(taken..).unwrap_or_default());
        all
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        give_chunk(std::mem::take(&mut self.tail));
        for part in self.parts.drain(..) {
            if let Part::Owned(chunk) = part {
                give_chunk(chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_half_taken_chunk_is_written_on() {
        let mut chunks = Chunks::new();
        chunks.put(b"0123456789");
        chunks.consume(8);
        chunks.put(b"ab");
        assert_eq!((chunks.len(), chunks.to_vec()), (4, b"89ab".to_vec()));
    }

    #[test]
    fn a_stored_body_is_loaded_window_by_window_in_its_place() {
        let body: Vec<u8> = (0..WINDOW_BYTES * 2 + 100).map(|i| (i % 251) as u8).collect();
        let stored = Stored::new(std::sync::Arc::new(body.clone()));
        let mut chunks = Chunks::new();
        chunks.put(b"head");
        let mut other = Chunks::new();
        other.put(b"er");
        other.put_stored(&stored);
        other.put(b"tail");
        chunks.append(&mut other);
        assert!(other.is_empty() && other.elsewhere.get().is_none());
        let expected = [b"header", &body[..], b"tail"].concat();
        assert_eq!((chunks.len(), chunks.memory()), (expected.len(), 10 + WINDOW_BYTES));
        assert_eq!(chunks.to_vec(), expected);
        assert!(chunks.next_window(5).is_none());
        assert_eq!(chunks.next_window(6).unwrap().length, WINDOW_BYTES);
        let mut got = Vec::new();
        while !chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = chunks.slices(&mut slices);
            assert_eq!(count == 0, chunks.waits());
            if count == 0 {
                let window = chunks.next_window(0).unwrap();
                let mut bytes = vec![0; window.length];
                window.body.read_at(window.from, &mut bytes).unwrap();
                chunks.supply(bytes.into());
                continue;
            }
            let piece = slices[0].get(..slices[0].len().min(100_000)).unwrap();
            got.extend_from_slice(piece);
            let taken = piece.len();
            chunks.consume(taken);
        }
        assert!(got == expected && chunks.elsewhere.get().is_none());
        chunks.put_stored(&stored);
        chunks.put(b"more");
        chunks.clear();
        assert_eq!((chunks.len(), chunks.memory(), chunks.parts.capacity()), (0, 0, 0));
    }

    #[test]
    fn what_is_drained_holds_no_buffer() {
        let mut chunks = Chunks::new();
        chunks.put(&[7; 3 * CHUNK_BYTES]);
        chunks.put_shared(&Bytes::from(vec![1; REFERENCE_BYTES_MIN]));
        chunks.consume(CHUNK_BYTES + 5);
        chunks.put(b"more");
        let left = chunks.to_vec();
        assert_eq!((left.len(), chunks.len()), (2 * CHUNK_BYTES - 5 + REFERENCE_BYTES_MIN + 4, left.len()));
        chunks.clear();
        assert_eq!((chunks.parts.capacity(), chunks.tail.capacity(), chunks.taken), (0, 0, 0));
    }

    #[test]
    fn heads_between_referenced_bodies_do_not_hold_a_chunk_each() {
        let body = Bytes::from(vec![1; REFERENCE_BYTES_MIN]);
        let mut chunks = Chunks::new();
        chunks.put(b"0123456789");
        chunks.consume(4);
        let mut expected = b"456789".to_vec();
        for number in 0..100 {
            let head = [number; 20];
            chunks.put(&head);
            chunks.put_shared(&body);
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&body);
        }
        let held = |chunks: &Chunks| {
            let owned = chunks.parts.iter().map(|part| match part {
                Part::Owned(bytes) => bytes.capacity(),
                Part::Shared(_) | Part::Stored(_) => 0,
            });
            owned.sum::<usize>() + chunks.tail.capacity()
        };
        assert!(held(&chunks) < CHUNK_BYTES + 100 * 64, "{} bytes", held(&chunks));
        assert_eq!(chunks.to_vec(), expected);
        chunks.consume(30 + body.len());
        assert_eq!(chunks.to_vec(), &expected[30 + body.len()..]);
    }

    #[test]
    fn what_goes_in_comes_out_whatever_the_sizes() {
        let mut chunks = Chunks::new();
        let mut expected = Vec::new();
        for size in [0usize, 1, 100, REFERENCE_BYTES_MIN - 1, REFERENCE_BYTES_MIN, 5000, 16 * 1024, 40_000] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            chunks.put(&bytes);
            expected.extend_from_slice(&bytes);
            chunks.put_shared(&Bytes::from(bytes.clone()));
            expected.extend_from_slice(&bytes);
        }
        assert_eq!(chunks.to_vec(), expected);
        let mut other = Chunks::new();
        other.put(b"head");
        chunks.consume(7);
        other.append(&mut chunks);
        assert!(chunks.is_empty());
        let mut got = Vec::new();
        while !other.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = other.slices(&mut slices);
            assert!(count > 0);
            got.extend_from_slice(slices[0].get(..1000.min(slices[0].len())).unwrap_or_default());
            let taken = 1000.min(slices[0].len());
            other.consume(taken);
        }
        let mut want = b"head".to_vec();
        want.extend_from_slice(&expected[7..]);
        assert_eq!(got, want);
    }
}
