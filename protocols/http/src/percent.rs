//! Percent-encoding, as headers and queries use it (RFC 3986 §2.1).

/// Undoes percent-encoding, and `+` for a blank where it is a form's. `None` for a broken escape, and for what is not
/// UTF-8 once decoded.
#[must_use]
pub fn decode(text: &str, form: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if form => out.push(b' '),
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

/// Appends `text`; what is not `plain`, and `%`, as escapes.
pub fn encode(text: &str, plain: impl Fn(u8) -> bool, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii() && byte != b'%' && plain(byte) {
            out.push(char::from(byte));
        } else {
            escape(byte, out);
        }
    }
}

fn escape(byte: u8, out: &mut String) {
    out.push('%');
    for digit in [byte >> 4, byte & 15] {
        out.push(char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase());
    }
}

/// Characters of a header's name (RFC 9110 §5.6.2).
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Characters of a header's value that need no escape anywhere in it.
#[must_use]
pub fn is_visible(byte: u8) -> bool {
    (0x21..=0x7e).contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["", "plain", "50%", "a b", "naïve 😀", "line\r\nend", "\0"] {
            let mut written = String::new();
            encode(text, is_visible, &mut written);
            assert!(written.bytes().all(is_visible), "{written}");
            assert_eq!(decode(&written, false).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_escape_is_refused() {
        for text in ["%", "%4", "%zz", "%ff", "%c0%a0", "%+1"] {
            assert_eq!(decode(text, false), None, "{text}");
        }
        assert_eq!(decode("a+b%2b", true).as_deref(), Some("a b+"));
        assert_eq!(decode("a+b", false).as_deref(), Some("a+b"));
    }
}
