//! Finds objects in a stream of bytes. White space may stand between them; nothing else may. What is in an object is read
//! only when it is whole.

use memchr::memchr2;
use sabir_model::error::{Code, Refusal};

/// By byte: whether it means something outside of a string.
const STRUCTURE: [bool; 256] = {
    let mut table = [false; 256];
    let marks = *b"{}[]\"";
    let mut index = 0;
    while index < marks.len() {
        #[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse a panic")]
        {
            table[marks[index] as usize] = true;
        }
        index += 1;
    }
    table
};

/// Where in an object scanning has come to: every byte is looked at once, however the input is cut.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    scanned: usize,
    depth: u32,
    in_string: bool,
    /// The next byte of the string stands for itself.
    escaped: bool,
}

impl Decoder {
    /// How many bytes of white space `bytes` starts with.
    pub(crate) fn blanks(bytes: &[u8]) -> usize {
        bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
    }

    /// Scans on: the length of the object at the front of `bytes`, once it is whole. `bytes` starts at the first byte of
    /// the object and holds at least what it held at the last call.
    ///
    /// # Errors
    /// It is no object, or longer than `bytes_max`.
    pub(crate) fn poll(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Refusal> {
        if let Some(&first) = bytes.first()
            && first != b'{'
        {
            let sentence = format!("expected a JSON object, got '{}'", first.escape_ascii());
            return Err(Refusal::new(Code::MalformedFrame, sentence));
        }
        let total = self.scan(bytes);
        if total.unwrap_or(bytes.len()) > bytes_max {
            let sentence = format!("an object is at most {bytes_max} bytes long here");
            return Err(Refusal::new(Code::TooLarge, sentence));
        }
        if total.is_some() {
            *self = Self::default();
        }
        Ok(total)
    }

    #[expect(clippy::indexing_slicing, reason = "the table has an entry for every byte")]
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            let rest = bytes.get(self.scanned..).unwrap_or_default();
            if self.escaped {
                rest.first()?;
                self.escaped = false;
                self.scanned += 1;
                continue;
            }
            let found = if self.in_string {
                memchr2(b'"', b'\\', rest)
            } else {
                rest.iter().position(|byte| STRUCTURE[usize::from(*byte)])
            };
            let Some(at) = found else {
                self.scanned = bytes.len();
                return None;
            };
            self.scanned += at + 1;
            match rest.get(at)? {
                b'\\' => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                _ => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.scanned);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_where_its_brackets_do_however_it_arrives() {
        for (text, length) in [
            ("{}", 2),
            ("{}{}", 2),
            (r#"{"a":"}"} "#, 9),
            (r#"{"a":"\"}"}"#, 11),
            (r#"{"a":"\\"}{"#, 10),
            (r#"{"a":[{"b":{}}]}x"#, 16),
            ("{\"\u{fc}\u{1f980}\":\"{\"},", 14),
        ] {
            let bytes = text.as_bytes();
            assert_eq!(Decoder::default().poll(bytes, 100), Ok(Some(length)), "{text}");
            let mut decoder = Decoder::default();
            for end in 1..length {
                assert_eq!(decoder.poll(&bytes[..end], 100), Ok(None), "{text} up to {end}");
            }
            assert_eq!(decoder.poll(bytes, 100), Ok(Some(length)), "{text}");
            assert_eq!(decoder.poll(bytes, 100), Ok(Some(length)), "{text}, again");
        }
    }

    #[test]
    fn what_is_no_object_or_too_long_is_refused_as_soon_as_it_shows() {
        let code = |text: &str, most| {
            Decoder::default().poll(text.as_bytes(), most).err().map(|refusal| refusal.code)
        };
        for text in ["[", "\"", "1", "x", "}", "null", "\u{feff}{}"] {
            assert_eq!(code(text, 100), Some(Code::MalformedFrame), "{text}");
        }
        assert_eq!(code("{}", 2), None);
        assert_eq!(code("{ }", 2), Some(Code::TooLarge));
        assert_eq!(code("{\"a", 2), Some(Code::TooLarge));
        // What follows a whole object does not count.
        assert_eq!(code("{}{}{}", 2), None);
    }
}
