//! What is said to the client besides messages: one object per line.

use std::collections::VecDeque;
use std::io::Write as _;

use sabir_model::chunks::Chunks;
use sabir_model::error::Refusal;
use sabir_model::headers::write_json_text;

/// Bytes of waiting answers beyond which the connection's reading pauses, whatever their number.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Capacity kept when nothing waits.
const BYTES_KEPT: usize = 16 * 1024;
/// Room for an answer without anything of the client's in it.
const HINT: usize = 128;

/// An object in the making.
pub(crate) struct Answer<'o>(&'o mut Vec<u8>);

impl<'o> Answer<'o> {
    /// Starts `{"op":…` and answers the object of this number.
    fn new(op: &str, reference: Option<u64>, out: &'o mut Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"op\":\"");
        out.extend_from_slice(op.as_bytes());
        out.push(b'"');
        let mut answer = Self(out);
        if let Some(reference) = reference {
            answer.number("ref", reference);
        }
        answer
    }

    fn key(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A member that is text. `name` needs no escapes.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        write_json_text(value, self.0);
    }

    /// A member that is a number.
    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.key(name);
        write!(self.0, "{value}").expect("a Vec takes everything");
    }

    /// Why something is not done.
    pub(crate) fn refusal(&mut self, refusal: &Refusal) {
        self.text("code", refusal.code.as_str());
        self.text("message", &refusal.sentence);
    }

    fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }
}

/// Writes an answer now; `members` adds to it.
pub(crate) fn say(op: &str, reference: Option<u64>, out: &mut Chunks, members: impl FnOnce(&mut Answer<'_>)) {
    out.write(HINT, |out| {
        let mut answer = Answer::new(op, reference, out);
        members(&mut answer);
        answer.end();
    });
}

/// Answers that wait for the disk, in the order they were asked for: one buffer and their lengths.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    lines: Vec<u8>,
    /// Bytes at the front of `lines` that have left.
    left: usize,
    lengths: VecDeque<u32>,
}

impl Waiting {
    /// Keeps an answer until it is released.
    pub(crate) fn push(&mut self, op: &str, reference: Option<u64>, members: impl FnOnce(&mut Answer<'_>)) {
        let before = self.lines.len();
        let mut answer = Answer::new(op, reference, &mut self.lines);
        members(&mut answer);
        answer.end();
        self.lengths.push_back(u32::try_from(self.lines.len() - before).unwrap_or(u32::MAX));
    }

    /// Sends the oldest `count`; fewer if fewer wait.
    pub(crate) fn release(&mut self, count: usize, out: &mut Chunks) {
        let count = count.min(self.lengths.len());
        let bytes: usize = self.lengths.drain(..count).map(|length| length as usize).sum();
        let end = self.left + bytes;
        out.put(self.lines.get(self.left..end).unwrap_or_default());
        self.left = end;
        if self.lengths.is_empty() {
            self.lines.clear();
            self.lines.shrink_to(BYTES_KEPT);
            self.left = 0;
        } else if self.left > self.lines.len() / 2 {
            self.lines.drain(..self.left);
            self.left = 0;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether so many wait that nothing further should be read.
    pub(crate) fn is_full(&self, count_max: usize) -> bool {
        self.lengths.len() >= count_max.max(1) || self.lines.len() - self.left >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_asked() {
        let mut waiting = Waiting::default();
        let (mut expected, mut out) = (Chunks::new(), Chunks::new());
        for number in 0..100 {
            waiting.push("ok", Some(number), |answer| answer.text("id", "a\"b"));
            say("ok", Some(number), &mut expected, |answer| answer.text("id", "a\"b"));
            if number % 3 == 0 {
                waiting.release(2, &mut out);
            }
        }
        assert!(waiting.is_full(30) && !waiting.is_full(50));
        waiting.release(1000, &mut out);
        assert!(waiting.is_empty());
        assert_eq!(out.to_vec(), expected.to_vec());
    }
}
