//! Outgoing bytes as a chain of pooled chunks: small writes are copied, large bodies referenced.
//!
//! A growing `Vec` would pass through mmap and page faults at every burst; fixed chunks from a per-thread pool do not.
//! A drained chain holds no chunk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// Size of one pooled chunk, in bytes.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks each thread keeps for reuse (1 MiB).
const POOL_CHUNKS_MAX: usize = 64;
/// Bodies from this size up are referenced instead of copied.
pub const REFERENCE_BYTES_MIN: usize = 1024;
/// Most bytes before a referenced body that are cut out of their chunk; more take it with them.
const CUT_BYTES_MAX: usize = 1024;

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
}

impl Part {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
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
}

impl Chunks {
    /// An empty chain; allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes not yet taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
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

    /// Moves everything from `other` to the end of this chain.
    pub fn append(&mut self, other: &mut Self) {
        if other.is_empty() {
            return;
        }
        let mut skip = std::mem::take(&mut other.taken);
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
            }
        }
    }

    /// What is left, piece by piece.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts.iter().map(Part::as_slice).chain([self.tail.as_slice()]);
        let taken = std::iter::once(self.taken).chain(std::iter::repeat(0));
        parts.zip(taken).map(|(bytes, taken)| bytes.get(taken..).unwrap_or_default())
    }

    /// Fills `slices` with what comes next and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(self.pieces().filter(|bytes| !bytes.is_empty())) {
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
            let available = part.as_slice().len() - self.taken;
            if left < available {
                self.taken += left;
                return;
            }
            left -= available;
            self.taken = 0;
            if let Some(Part::Owned(chunk)) = self.parts.pop_front() {
                give_chunk(chunk);
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

    /// All bytes in one `Vec`: for tests and tools.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        self.pieces().for_each(|bytes| all.extend_from_slice(bytes));
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
                Part::Shared(_) => 0,
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
