//! Receipts that wait for the disk: their frames, ready to leave, in the order they were asked for.

use std::collections::VecDeque;

use sabir_model::chunks::Chunks;

/// Bytes of waiting frames beyond which the connection's reading pauses, whatever their number.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// How safe what a receipt speaks of is, where the client may think it safer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// As safe as can be, or as was asked for.
    AsAsked,
    /// The operating system has it: the destination asks for no more at once.
    Os,
    /// A persistent message that is in memory only, or that nobody was there to keep.
    Memory,
}

/// Appends the RECEIPT for a raw `receipt` value. Raw text stays valid in the version it came in.
pub(crate) fn put_receipt(out: &mut Vec<u8>, raw: &str, kept: Kept) {
    out.extend_from_slice(b"RECEIPT\nreceipt-id:");
    out.extend_from_slice(raw.as_bytes());
    out.extend_from_slice(match kept {
        Kept::AsAsked => &b"\n\n\0"[..],
        Kept::Os => b"\ndurability:os\n\n\0",
        Kept::Memory => b"\ndurability:memory\n\n\0",
    });
}

/// The queue of waiting frames: one buffer and their lengths, so that a receipt costs no allocation.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    frames: Vec<u8>,
    /// Bytes at the front of `frames` that have left.
    left: usize,
    lengths: VecDeque<u32>,
}

impl Receipts {
    pub(crate) fn push(&mut self, raw: &str, kept: Kept) {
        let before = self.frames.len();
        put_receipt(&mut self.frames, raw, kept);
        self.lengths.push_back(u32::try_from(self.frames.len() - before).unwrap_or(u32::MAX));
    }

    /// Sends the oldest `count`; fewer if fewer wait.
    pub(crate) fn release(&mut self, count: usize, out: &mut Chunks) {
        let count = count.min(self.lengths.len());
        let bytes: usize = self.lengths.drain(..count).map(|length| length as usize).sum();
        let end = self.left + bytes;
        out.put(self.frames.get(self.left..end).unwrap_or_default());
        self.left = end;
        if self.lengths.is_empty() {
            self.frames.clear();
            self.left = 0;
        } else if self.left > self.frames.len() / 2 {
            self.frames.drain(..self.left);
            self.left = 0;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether so many wait that no further request should be read.
    pub(crate) fn is_full(&self, count_max: usize) -> bool {
        self.lengths.len() >= count_max.max(1) || self.frames.len() - self.left >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_leave_in_the_order_asked() {
        let mut receipts = Receipts::default();
        let mut expected = Vec::new();
        let mut out = Chunks::new();
        for number in 0..100 {
            receipts.push(&format!("r{number}"), Kept::AsAsked);
            put_receipt(&mut expected, &format!("r{number}"), Kept::AsAsked);
            if number % 3 == 0 {
                receipts.release(2, &mut out);
            }
        }
        assert!(receipts.is_full(30) && !receipts.is_full(50));
        receipts.release(1000, &mut out);
        assert!(receipts.is_empty());
        assert_eq!(out.to_vec(), expected);
    }
}
