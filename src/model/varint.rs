//! Unsigned integers in seven-bit groups, least significant first (LEB128): part of the stored format.

/// Longest encoding of a `u64`.
pub const BYTES_MAX: usize = 10;

/// Appends `value`.
pub fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are what is wanted")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80 by the loop")]
    out.push(value as u8);
}

/// Reads one value from the front of `input` and says how many bytes it took; `None` if it is cut off or too long.
#[must_use]
pub fn read(input: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().enumerate().take(BYTES_MAX) {
        let bits = u64::from(byte & 0x7f);
        if index == BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Appends the length of `bytes`, then these.
pub fn write_block(out: &mut Vec<u8>, bytes: &[u8]) {
    write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes what [`write_block`] wrote from the front of `input`; `None` if it is cut off.
#[must_use]
pub fn read_block<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, used) = read(input)?;
    let (block, rest) = input.get(used..)?.split_at_checked(usize::try_from(length).ok()?)?;
    *input = rest;
    Some(block)
}

/// As [`read_block`], for text; `None` also for what is no UTF-8.
#[must_use]
pub fn read_text(input: &mut &[u8]) -> Option<String> {
    String::from_utf8(read_block(input)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_and_bad_ones_are_none() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(read(&out), Some((value, out.len())));
            assert_eq!(read(out.get(..out.len() - 1).unwrap_or_default()), None);
        }
        assert_eq!(read(&[0xff; 11]), None);
    }

    #[test]
    fn blocks_are_taken_one_by_one_and_a_cut_one_not_at_all() {
        let mut out = Vec::new();
        write_block(&mut out, b"ab");
        write_block(&mut out, b"");
        write_block(&mut out, "ü".as_bytes());
        let mut rest = out.as_slice();
        assert_eq!((read_block(&mut rest), read_block(&mut rest)), (Some(&b"ab"[..]), Some(&b""[..])));
        assert_eq!((read_text(&mut rest), rest), (Some("ü".to_owned()), &b""[..]));
        assert_eq!(read_block(&mut rest), None);
        assert_eq!(read_block(&mut out.get(..2).unwrap_or_default()), None);
        assert_eq!(read_text(&mut &b"\x01\xff"[..]), None);
    }
}
