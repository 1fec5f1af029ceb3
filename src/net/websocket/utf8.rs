//! UTF-8 in pieces: the text of a WebSocket message is checked as it passes, however it is cut (RFC 6455 §8.1).

/// Longest character.
const CHARACTER_BYTES_MAX: usize = 4;

/// Where a check is between two pieces: the beginning of a character that was cut.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8 {
    partial: [u8; CHARACTER_BYTES_MAX],
    len: u8,
}

impl Utf8 {
    /// Takes the next piece; false as soon as nothing that may follow could make it text.
    pub(crate) fn take(&mut self, piece: &[u8]) -> bool {
        let mut rest = piece;
        while self.len > 0
            && let Some((&byte, after)) = rest.split_first()
        {
            if let Some(slot) = self.partial.get_mut(usize::from(self.len)) {
                *slot = byte;
            }
            self.len += 1;
            rest = after;
            match std::str::from_utf8(self.partial()) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let tail = rest.get(error.valid_up_to()..).unwrap_or_default();
                for (slot, byte) in self.partial.iter_mut().zip(tail) {
                    *slot = *byte;
                }
                self.len = u8::try_from(tail.len()).unwrap_or(0);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the text may end here.
    pub(crate) fn end(&self) -> bool {
        self.len == 0
    }

    fn partial(&self) -> &[u8] {
        self.partial.get(..usize::from(self.len)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&[u8]; 3] = ["κόσμε".as_bytes(), "a\u{7ff}\u{800}\u{ffff}\u{10ffff}z".as_bytes(), b""];

    #[test]
    fn text_is_text_however_it_is_cut() {
        for text in TEXTS {
            for left in 0..=text.len() {
                for right in left..=text.len() {
                    let mut check = Utf8::default();
                    for piece in [0..left, left..right, right..text.len()] {
                        assert!(check.take(text.get(piece).unwrap_or_default()), "{left} {right}");
                    }
                    assert!(check.end());
                }
            }
        }
    }

    #[test]
    fn what_is_no_text_is_found_at_its_first_wrong_byte() {
        // A lone continuation, overlong forms, surrogates, beyond the last character: and how many bytes are right.
        for (bytes, right) in [
            (&b"\x80"[..], 0),
            (b"ab\xff", 2),
            (b"\xc0\xaf", 0),
            (b"\xe0\x80\xaf", 1),
            (b"\xed\xa0\x80", 1),
            (b"\xf4\x90\x80\x80", 1),
            (b"\xf5\x80\x80\x80", 0),
            ("κόσμε\u{fffd}".as_bytes().get(..11).unwrap_or_default(), 11),
        ] {
            let mut check = Utf8::default();
            let taken = bytes.iter().take_while(|byte| check.take(&[**byte])).count();
            assert_eq!(taken, right, "{}", bytes.escape_ascii());
            assert_eq!(Utf8::default().take(bytes), right == bytes.len());
        }
    }

    #[test]
    fn a_text_does_not_end_inside_of_a_character() {
        let mut check = Utf8::default();
        assert!(check.take(&[0xce]));
        assert!(!check.end());
        assert!(check.take(&[0xba]));
        assert!(check.end());
    }
}
