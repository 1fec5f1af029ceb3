//! Answers that wait for what they promise: their packets, ready to leave, in the order of the packets they answer.

use std::collections::VecDeque;

use sabir_model::chunks::Chunks;

/// Bytes of waiting packets beyond which the connection's reading pauses, whatever their number.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Set in a length: the packet ends an exchange that a client has to begin no more than so many of at a time.
const ENDS_EXCHANGE: u32 = 1 << 31;

/// The queue of waiting packets: one buffer and their lengths, so that an answer costs no allocation.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    packets: Vec<u8>,
    /// Bytes at the front of `packets` that have left.
    left: usize,
    lengths: VecDeque<u32>,
}

impl Replies {
    /// Keeps the packet that `write` appends.
    pub(crate) fn push(&mut self, ends_exchange: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.packets.len();
        write(&mut self.packets);
        let length = u32::try_from(self.packets.len() - before).unwrap_or(0);
        self.lengths.push_back(length | if ends_exchange { ENDS_EXCHANGE } else { 0 });
    }

    /// Sends the oldest `count`; fewer if fewer wait. Returns how many exchanges ended with that.
    pub(crate) fn release(&mut self, count: usize, out: &mut Chunks) -> usize {
        let count = count.min(self.lengths.len());
        let (mut bytes, mut ended) = (0, 0);
        for length in self.lengths.drain(..count) {
            bytes += (length & !ENDS_EXCHANGE) as usize;
            ended += usize::from(length & ENDS_EXCHANGE != 0);
        }
        let end = self.left + bytes;
        out.put(self.packets.get(self.left..end).unwrap_or_default());
        self.left = end;
        if self.lengths.is_empty() {
            self.packets.clear();
            self.left = 0;
        } else if self.left > self.packets.len() / 2 {
            self.packets.drain(..self.left);
            self.left = 0;
        }
        ended
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether so many wait that no further packet should be read.
    pub(crate) fn is_full(&self, count_max: usize) -> bool {
        self.lengths.len() >= count_max.max(1) || self.packets.len() - self.left >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_of_what_they_answer_mqtt_4_6_0() {
        let mut replies = Replies::default();
        let mut out = Chunks::new();
        let (mut expected, mut ended) = (Vec::new(), 0);
        for number in 0..100_u8 {
            let packet = vec![number; usize::from(number % 7)];
            replies.push(number % 2 == 0, |out| out.extend_from_slice(&packet));
            expected.extend_from_slice(&packet);
            if number % 3 == 0 {
                ended += replies.release(2, &mut out);
            }
        }
        assert!(replies.is_full(30) && !replies.is_full(50));
        ended += replies.release(1000, &mut out);
        assert_eq!(ended, 50);
        assert_eq!(out.to_vec(), expected);
        assert_eq!(replies.release(1, &mut out), 0);
    }
}
