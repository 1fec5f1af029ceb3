//! Lease tokens as clients see them: 128 bits in 32 lower-case hexadecimal digits.

/// Writes a token.
pub fn write(token: u128, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{token:032x}").as_bytes());
}

/// Reads what [`write()`] writes; `None` for anything else.
#[must_use]
pub fn read(text: &str) -> Option<u128> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (text.len() == 32 && plain).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for token in [0, 1, u128::MAX, 1 << 77] {
            let mut out = Vec::new();
            write(token, &mut out);
            assert_eq!(std::str::from_utf8(&out).ok().and_then(read), Some(token));
        }
        for text in ["", "0", "g0000000000000000000000000000000", "0000000000000000000000000000000A"] {
            assert_eq!(read(text), None);
        }
    }
}
