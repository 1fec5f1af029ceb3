//! What every body carries: which run, whose message, its number, the instant its latency counts from, and a checksum
//! over all that and the filling behind it. All of it is letters, so that it passes through
//! whatever takes a body for text.

/// Bytes at the front of each body that identify the message.
pub(crate) const STAMP_BYTES: usize = 40;

/// Numbers and instants have this many bits.
const WIDE_BITS: u32 = 48;
const WIDE_MASK: u64 = (1 << WIDE_BITS) - 1;

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Whose message it is.
    pub(crate) sender: u16,
    /// Which of the sender's messages, from zero.
    pub(crate) number: u64,
    /// When it was sent or, at a fixed rate, should have been: nanoseconds since the beginning of the run.
    pub(crate) time_ns: u64,
}

/// What a body turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// A message of this run.
    Whole(Stamp),
    /// A message of this run that is not what was sent.
    Corrupted,
    /// None of this run's messages.
    Foreign,
}

/// Makes the bodies of one sender.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    run: u16,
    sender: u16,
    filling: Vec<u8>,
    filling_sum: u64,
}

impl Source {
    /// For bodies of `size` bytes, which is at least [`STAMP_BYTES`].
    pub(crate) fn new(run: u16, sender: u16, size: usize) -> Self {
        let mut state = u64::from(run) << 16 | u64::from(sender);
        let filling: Vec<u8> = (STAMP_BYTES..size)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                b'a' + ((state >> 33) % 26) as u8
            })
            .collect();
        let filling_sum = sum_of(&filling);
        Self { run, sender, filling, filling_sum }
    }

    /// A whole body that [`Source::stamp`] may be called on.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = vec![b'a'; STAMP_BYTES];
        body.extend_from_slice(&self.filling);
        self.stamp(&mut body, 0, 0);
        body
    }

    /// Writes the stamp of one message over the front of its body.
    pub(crate) fn stamp(&self, body: &mut [u8], number: u64, time_ns: u64) {
        let Some(head) = body.first_chunk_mut::<STAMP_BYTES>() else { return };
        let (number, time_ns) = (number & WIDE_MASK, time_ns & WIDE_MASK);
        let names = u64::from(self.run) << 16 | u64::from(self.sender);
        let sum = seal(names, number, time_ns, self.filling_sum);
        let (first, rest) = head.split_at_mut(16);
        let (second, third) = rest.split_at_mut(16);
        first.copy_from_slice(&letters(names << 32 | u64::from(sum)));
        second.copy_from_slice(&letters(number << 16 | time_ns >> 32));
        third.copy_from_slice(&letters_half(time_ns as u32));
    }
}

/// Reads the body of a message of run `run`, whose bodies have `size` bytes.
pub(crate) fn read(body: &[u8], run: u16, size: usize) -> Reading {
    let parts = || {
        let first = value(body.first_chunk()?)?;
        let second = value(body.get(16..)?.first_chunk()?)?;
        let third = value_half(body.get(32..)?.first_chunk()?)?;
        Some((first, second, third))
    };
    let Some((first, second, third)) = parts() else { return Reading::Foreign };
    if first >> 48 != u64::from(run) {
        return Reading::Foreign;
    }
    let (names, number, time_ns) = (first >> 32, second >> 16, (second & 0xffff) << 32 | u64::from(third));
    let filling_sum = sum_of(body.get(STAMP_BYTES..).unwrap_or_default());
    if body.len() != size || first as u32 != seal(names, number, time_ns, filling_sum) {
        return Reading::Corrupted;
    }
    Reading::Whole(Stamp { sender: names as u16, number, time_ns })
}

fn seal(names: u64, number: u64, time_ns: u64, filling_sum: u64) -> u32 {
    let mixed = [names, number, time_ns].into_iter().fold(filling_sum, mix);
    (mixed ^ mixed >> 32) as u32
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Eight bytes at a time; the length is part of it.
fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

/// Eight times the first letter.
const LETTERS: u64 = 0x0101_0101_0101_0101 * b'a' as u64;

/// Eight letters at once, each for four bits, from `a` for none of them to `p` for all.
fn letters_half(value: u32) -> [u8; 8] {
    let mut x = u64::from(value);
    x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    (x + LETTERS).to_be_bytes()
}

fn letters(value: u64) -> [u8; 16] {
    let mut out = [0; 16];
    let (high, low) = out.split_at_mut(8);
    high.copy_from_slice(&letters_half((value >> 32) as u32));
    low.copy_from_slice(&letters_half(value as u32));
    out
}

/// The way back; `None` if it is not what [`letters_half`] writes.
fn value_half(letters: &[u8; 8]) -> Option<u32> {
    // A byte below the first letter borrows and so leaves its own upper half set, as one above the last does.
    let mut x = u64::from_be_bytes(*letters).wrapping_sub(LETTERS);
    if x & 0xf0f0_f0f0_f0f0_f0f0 != 0 {
        return None;
    }
    x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    Some((x | x >> 16) as u32)
}

fn value(letters: &[u8; 16]) -> Option<u64> {
    let high = value_half(letters.first_chunk()?)?;
    let low = value_half(letters.last_chunk()?)?;
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_stand_for_four_bits_each_and_nothing_else_does() {
        for number in [0, 1, 9, 10, 0x1234_5678_9abc_def0, u64::MAX, 0x00a0_9f99_0000_0001] {
            let text: Vec<u8> = format!("{number:016x}").bytes().map(letter_for).collect();
            assert_eq!(letters(number)[..], text[..]);
            assert_eq!(value(&letters(number)), Some(number));
        }
        for place in 0..8 {
            for byte in (0..=255).filter(|byte| !(b'a'..=b'p').contains(byte)) {
                let mut text = *b"abcdefgp";
                text[place] = byte;
                assert_eq!(value_half(&text), None, "{place} {byte}");
            }
        }
    }

    fn letter_for(digit: u8) -> u8 {
        b'a' + (digit as char).to_digit(16).unwrap_or(16) as u8
    }

    #[test]
    fn a_stamp_comes_back_as_it_was_written() {
        for size in [STAMP_BYTES, STAMP_BYTES + 1, 64, 100, 1024] {
            let source = Source::new(7, 4095, size);
            let mut body = source.body();
            assert_eq!(body.len(), size);
            assert!(body.iter().all(u8::is_ascii_lowercase));
            for (number, time_ns) in [(0, 0), (1, u64::from(u32::MAX) + 5), (WIDE_MASK, WIDE_MASK)] {
                source.stamp(&mut body, number, time_ns);
                assert_eq!(read(&body, 7, size), Reading::Whole(Stamp { sender: 4095, number, time_ns }));
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_a_cut_and_another_run_are_seen() {
        let source = Source::new(7, 1, 64);
        let mut body = source.body();
        source.stamp(&mut body, 3, 4);
        for bit in 0..64 * 8 {
            let mut broken = body.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(read(&broken, 7, 64), read(&body, 7, 64), "{bit}");
        }
        assert_eq!(read(&body[..63], 7, 64), Reading::Corrupted);
        assert_eq!(read(&[&body[..], b"x"].concat(), 7, 64), Reading::Corrupted);
        assert_eq!(read(&body, 8, 64), Reading::Foreign);
        assert_eq!(read(b"hello", 7, 64), Reading::Foreign);
        let mut other = Source::new(7, 2, 64).body();
        other[..STAMP_BYTES].copy_from_slice(&body[..STAMP_BYTES]);
        assert_eq!(read(&other, 7, 64), Reading::Corrupted, "the filling of somebody else");
    }
}
