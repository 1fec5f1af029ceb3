//! Server-Sent Events as bytes (WHATWG HTML, §9.2 Server-sent events).

/// Appends one event. Each line of `data` becomes a field of its own, whatever ends it (CR, LF, CRLF): the reader joins
/// them by LF. Octets that are not UTF-8 become U+FFFD, as the reader would make them. Empty data is an event, too.
///
/// A name or an id that holds a line break, or an id with NUL, cannot be written and is left out.
pub fn event(name: Option<&str>, id: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
    if let Some(name) = name.filter(|name| !name.contains(['\r', '\n'])) {
        field("event", name.as_bytes(), out);
    }
    if let Some(id) = id.filter(|id| !id.contains(['\r', '\n', '\0'])) {
        field("id", id.as_bytes(), out);
    }
    let text;
    let data = match std::str::from_utf8(data) {
        Ok(_) => data,
        Err(_) => {
            text = String::from_utf8_lossy(data);
            text.as_bytes()
        }
    };
    for line in lines(data) {
        field("data", line, out);
    }
    out.push(b'\n');
}

/// Appends an empty comment, which readers skip: it shows that the connection lives.
pub fn comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}

/// Appends how many milliseconds a reader should wait before it connects again.
pub fn retry(ms: u32, out: &mut Vec<u8>) {
    field("retry", ms.to_string().as_bytes(), out);
    out.push(b'\n');
}

fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(if value.is_empty() { b":" } else { b": " });
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The lines of a text, at least one.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            return rest.take();
        };
        let (line, after) = text.split_at_checked(end)?;
        rest = Some(after.strip_prefix(b"\r\n").or_else(|| after.get(1..)).unwrap_or_default());
        Some(line)
    })
}

/// The id of an event: of which stream, and which of its events. It is what a reader comes back with
/// (`Last-Event-ID`), and reads `<32 hexadecimal digits>-<decimal>`.
#[must_use]
pub fn event_id(stream: u128, serial: u64) -> String {
    format!("{stream:032x}-{serial}")
}

/// Reads what [`event_id`] writes; `None` for anything else.
#[must_use]
pub fn read_event_id(text: &str) -> Option<(u128, u64)> {
    let (stream, serial) = text.split_once('-')?;
    let plain =
        serial.bytes().all(|byte| byte.is_ascii_digit()) && (serial == "0" || !serial.starts_with('0'));
    if !plain {
        return None;
    }
    Some((crate::token::read(stream)?, serial.parse().ok()?))
}
