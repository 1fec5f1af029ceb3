//! Writing for pipes: whole and unembellished, and quiet when the reader has gone.

use std::io::{self, Write as _};

use super::Failure;
use super::connection::Message;

/// Writes all of it to standard output.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// How messages are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// The body and a line end.
    #[default]
    Lines,
    /// The body alone.
    Raw,
    /// One object per line.
    Json,
}

impl Form {
    pub(super) fn of(raw: bool, json: bool) -> Self {
        match (raw, json) {
            (_, true) => Self::Json,
            (true, false) => Self::Raw,
            (false, false) => Self::Lines,
        }
    }

    /// Appends a message to `out`.
    pub(super) fn print(self, message: &Message, out: &mut Vec<u8>) {
        match self {
            Self::Raw => out.extend_from_slice(&message.body),
            Self::Lines => {
                out.extend_from_slice(&message.body);
                out.push(b'\n');
            }
            Self::Json => json(message, out),
        }
    }
}

/// `{"headers":{…},"body":"…"}`, or with `body_base64` where the body is not UTF-8. Of a repeated header the first counts.
fn json(message: &Message, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"headers\":{");
    for (index, (name, value)) in message.headers.iter().enumerate() {
        if message.headers.iter().take(index).any(|(other, _)| other == name) {
            continue;
        }
        if index > 0 {
            out.push(b',');
        }
        string(name, out);
        out.push(b':');
        string(value, out);
    }
    out.extend_from_slice(b"},");
    match std::str::from_utf8(&message.body) {
        Ok(text) => {
            out.extend_from_slice(b"\"body\":");
            string(text, out);
        }
        Err(_) => {
            out.extend_from_slice(b"\"body_base64\":\"");
            put_base64(&message.body, out);
            out.push(b'"');
        }
    }
    out.extend_from_slice(b"}\n");
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            control if control < ' ' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(control)).as_bytes())
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Bytes that are no text, as text.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    put_base64(bytes, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            let written = digit <= chunk.len();
            out.push(if written { DIGITS[index as usize] } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(form: Form, headers: &[(&str, &str)], body: &[u8]) -> String {
        let message = Message {
            command: "MESSAGE".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.to_vec(),
        };
        let mut out = Vec::new();
        form.print(&message, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn each_form_is_what_its_reader_expects() {
        let headers = [("a", "1\n"), ("b", "\"\\é\u{1}"), ("a", "2")];
        assert_eq!(printed(Form::Lines, &headers, b"x"), "x\n");
        assert_eq!(printed(Form::Raw, &headers, b"x"), "x");
        assert_eq!(
            printed(Form::Json, &headers, b"x\ty"),
            "{\"headers\":{\"a\":\"1\\n\",\"b\":\"\\\"\\\\é\\u0001\"},\"body\":\"x\\ty\"}\n"
        );
        assert_eq!(printed(Form::Json, &[], b"\xff"), "{\"headers\":{},\"body_base64\":\"/w==\"}\n");
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            put_base64(plain.as_bytes(), &mut out);
            assert_eq!(out, coded.as_bytes());
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
