//! Writes frames: numbers, escapes of each version, header lines, and the small frames of the server.

use sabir_model::ids::{DeliveryToken, MessageId};

use crate::frame::Version;

/// By byte: whether it must not stand in a header as it is. A look at a table per byte beats vector search on the short
/// texts that headers are.
#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse a panic")]
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let specials = *b"\\:\n\r\0";
    let mut index = 0;
    while index < specials.len() {
        table[specials[index] as usize] = true;
        index += 1;
    }
    table
};

/// Whether a text can stand in a header of every version as it is.
#[expect(clippy::indexing_slicing, reason = "the table has an entry for every byte")]
pub(crate) fn is_plain(text: &str) -> bool {
    !text.bytes().any(|byte| SPECIAL[usize::from(byte)])
}

/// Appends a header value, escaped as `version` does it. NUL must have been ruled out.
pub(crate) fn put_escaped(out: &mut Vec<u8>, text: &str, version: Version) {
    if is_plain(text) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for &byte in text.as_bytes() {
        put_escaped_byte(out, byte, version);
    }
}

/// Appends one byte of a header value, escaped as `version` does it.
pub(crate) fn put_escaped_byte(out: &mut Vec<u8>, byte: u8, version: Version) {
    match (byte, version) {
        (b':', Version::V11 | Version::V12) => out.extend_from_slice(b"\\c"),
        (b'\n', Version::V11 | Version::V12) => out.extend_from_slice(b"\\n"),
        (b'\\', Version::V11 | Version::V12) => out.extend_from_slice(b"\\\\"),
        (b'\r', Version::V12) => out.extend_from_slice(b"\\r"),
        (byte, _) => out.push(byte),
    }
}

/// Appends text in which everything that 1.0 cannot carry is percent-encoded (RFC 3986 §2.1); the percent sign too, so
/// that it can be undone. `colon` says whether a colon must be encoded as well: in names, not in values.
pub(crate) fn put_percent(out: &mut Vec<u8>, text: &str, colon: bool) {
    for &byte in text.as_bytes() {
        if matches!(byte, b'\n' | b'\r' | b'%') || (colon && byte == b':') {
            out.push(b'%');
            out.extend([byte >> 4, byte & 15].map(hex_upper));
        } else {
            out.push(byte);
        }
    }
}

fn hex_upper(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

/// Appends a number in decimal.
pub(crate) fn put_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut count = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
        count += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - count..).unwrap_or_default());
}

/// Appends a number in lower-case hexadecimal, without leading zeros.
pub(crate) fn put_hex(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 16];
    let mut count = 0;
    for slot in digits.iter_mut().rev() {
        let nibble = (value & 15) as u8;
        *slot = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        value >>= 4;
        count += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(16 - count..).unwrap_or_default());
}

/// Appends a message id in the form of its `Display`, escaped.
pub(crate) fn put_message_id(out: &mut Vec<u8>, id: MessageId, version: Version) {
    out.extend_from_slice(if version == Version::V10 { b"ID:" } else { b"ID\\c" });
    put_hex(out, id.origin);
    out.push(b'-');
    put_hex(out, id.number);
}

/// Appends the name that a 1.2 client gives back to settle a delivery.
pub(crate) fn put_token(out: &mut Vec<u8>, token: &DeliveryToken) {
    put_hex(out, u64::from(token.boot));
    out.push(b'-');
    put_hex(out, token.queue.0);
    out.push(b'-');
    put_hex(out, u64::from(token.slot));
    out.push(b'-');
    put_hex(out, u64::from(token.generation));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for value in [0, 1, 9, 10, 15, 16, 99, 100, 12_345, 1_700_000_000_000, u64::MAX] {
            assert_eq!(written(|out| put_decimal(out, value)), value.to_string());
            assert_eq!(written(|out| put_hex(out, value)), format!("{value:x}"));
        }
    }

    #[test]
    fn values_are_escaped_as_the_version_does_it() {
        for (version, expected) in [
            (Version::V10, "a:b\\c\nd\re"),
            (Version::V11, "a\\cb\\\\c\\nd\re"),
            (Version::V12, "a\\cb\\\\c\\nd\\re"),
        ] {
            assert_eq!(written(|out| put_escaped(out, "a:b\\c\nd\re", version)), expected);
        }
        assert_eq!(written(|out| put_percent(out, "a:b\nc%", false)), "a:b%0Ac%25");
        assert_eq!(written(|out| put_percent(out, "a:b\rc", true)), "a%3Ab%0Dc");
    }
}
