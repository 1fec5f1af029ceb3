//! The other side of the protocol, for the load generator, the command line and tests: writes client frames of every
//! version into a `Vec` and reads server frames in place.

use sabir_model::error::Refusal;

use crate::decode::{Bounds, Decoder as Scanner, Progress};
use crate::encode::{put_decimal, put_escaped};
use crate::frame::Reading;

pub use crate::frame::{Frame, Header, Version};

/// Headers as pairs of name and value, not yet escaped.
pub type Pairs<'a> = &'a [(&'a str, &'a str)];

/// What CONNECT says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connect<'a> {
    /// Versions offered; all three if empty.
    pub versions: &'a [Version],
    /// The virtual host.
    pub host: Option<&'a str>,
    /// User name.
    pub login: Option<&'a str>,
    /// Password.
    pub passcode: Option<&'a str>,
    /// Client id, for durable subscriptions.
    pub client_id: Option<&'a str>,
    /// Milliseconds between our beats, and between those we want; zero for none.
    pub heart_beat: (u32, u32),
    /// Anything else.
    pub headers: Pairs<'a>,
}

/// Writes CONNECT. Its values are never escaped, so they cannot hold a line end.
pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
    let versions = if connect.versions.is_empty() { &Version::ALL[..] } else { connect.versions };
    let list: Vec<&str> = versions.iter().map(|version| version.as_str()).collect();
    let list = list.join(",");
    let beats = format!("{},{}", connect.heart_beat.0, connect.heart_beat.1);
    out.extend_from_slice(b"CONNECT\n");
    let named = [
        ("accept-version", Some(list.as_str())),
        ("host", connect.host),
        ("login", connect.login),
        ("passcode", connect.passcode),
        ("client-id", connect.client_id),
        ("heart-beat", (connect.heart_beat != (0, 0)).then_some(beats.as_str())),
    ];
    let named = named.iter().filter_map(|(name, value)| value.map(|value| (*name, value)));
    for (name, value) in named.chain(connect.headers.iter().copied()) {
        for part in [name, ":", value, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\n\0");
}

/// Writes any frame but CONNECT. With a body, a content-length is added.
pub fn frame<'a>(
    out: &mut Vec<u8>,
    version: Version,
    command: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: Option<&[u8]>,
) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
    for (name, value) in headers {
        put_escaped(out, name, version);
        out.push(b':');
        put_escaped(out, value, version);
        out.push(b'\n');
    }
    if let Some(body) = body {
        out.extend_from_slice(b"content-length:");
        put_decimal(out, body.len() as u64);
        out.extend_from_slice(b"\n\n");
        out.extend_from_slice(body);
    } else {
        out.push(b'\n');
    }
    out.push(0);
}

/// Writes SEND with a content-length.
pub fn send(out: &mut Vec<u8>, version: Version, destination: &str, headers: Pairs<'_>, body: &[u8]) {
    let all = [("destination", destination)].into_iter().chain(headers.iter().copied());
    frame(out, version, "SEND", all, Some(body));
}

/// Writes SEND without a content-length: the body is text and must not hold NUL.
pub fn send_text(out: &mut Vec<u8>, version: Version, destination: &str, headers: Pairs<'_>, body: &str) {
    let all = [("destination", destination)].into_iter().chain(headers.iter().copied());
    frame(out, version, "SEND", all, None);
    out.pop();
    out.extend_from_slice(body.as_bytes());
    out.push(0);
}

/// Writes SUBSCRIBE. `ack` is `auto`, `client` or `client-individual`.
pub fn subscribe(
    out: &mut Vec<u8>,
    version: Version,
    id: &str,
    destination: &str,
    ack: &str,
    headers: Pairs<'_>,
) {
    let own = [("id", id), ("destination", destination), ("ack", ack)];
    frame(out, version, "SUBSCRIBE", own.into_iter().chain(headers.iter().copied()), None);
}

/// Writes UNSUBSCRIBE.
pub fn unsubscribe(out: &mut Vec<u8>, version: Version, id: &str, headers: Pairs<'_>) {
    frame(out, version, "UNSUBSCRIBE", [("id", id)].into_iter().chain(headers.iter().copied()), None);
}

/// Writes ACK for a MESSAGE, named as its version does it.
pub fn ack(out: &mut Vec<u8>, version: Version, message: &Frame<'_>, headers: Pairs<'_>) {
    settle(out, version, "ACK", message, headers);
}

/// Writes NACK for a MESSAGE, named as its version does it.
pub fn nack(out: &mut Vec<u8>, version: Version, message: &Frame<'_>, headers: Pairs<'_>) {
    settle(out, version, "NACK", message, headers);
}

fn settle(out: &mut Vec<u8>, version: Version, command: &str, message: &Frame<'_>, headers: Pairs<'_>) {
    // Raw values: what the server escaped goes back as it came.
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
    let names: &[(&str, &str)] = match version {
        Version::V10 => &[("message-id", "message-id")],
        Version::V11 => &[("message-id", "message-id"), ("subscription", "subscription")],
        Version::V12 => &[("id", "ack")],
    };
    for (name, from) in names {
        for part in [name, ":", message.raw(from).unwrap_or_default(), "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    for (name, value) in headers {
        put_escaped(out, name, version);
        out.push(b':');
        put_escaped(out, value, version);
        out.push(b'\n');
    }
    out.extend_from_slice(b"\n\0");
}

/// Writes BEGIN.
pub fn begin(out: &mut Vec<u8>, version: Version, transaction: &str, headers: Pairs<'_>) {
    bracket(out, version, "BEGIN", transaction, headers);
}

/// Writes COMMIT.
pub fn commit(out: &mut Vec<u8>, version: Version, transaction: &str, headers: Pairs<'_>) {
    bracket(out, version, "COMMIT", transaction, headers);
}

/// Writes ABORT.
pub fn abort(out: &mut Vec<u8>, version: Version, transaction: &str, headers: Pairs<'_>) {
    bracket(out, version, "ABORT", transaction, headers);
}

fn bracket(out: &mut Vec<u8>, version: Version, command: &str, transaction: &str, headers: Pairs<'_>) {
    let own = [("transaction", transaction)].into_iter();
    frame(out, version, command, own.chain(headers.iter().copied()), None);
}

/// Writes DISCONNECT, with a receipt if one is named.
pub fn disconnect(out: &mut Vec<u8>, version: Version, receipt: Option<&str>) {
    frame(out, version, "DISCONNECT", receipt.map(|receipt| ("receipt", receipt)), None);
}

/// Writes a heart-beat.
pub fn beat(out: &mut Vec<u8>) {
    out.push(b'\n');
}

/// Reads server frames in place. Keep the bytes of a partial frame and present them again with more behind them.
#[derive(Debug)]
pub struct Decoder {
    scanner: Scanner,
    bounds: Bounds,
    reading: Reading,
}

/// What [`Decoder::next`] found.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    /// Bytes at the front of the input that are done with once `frame` has been read: heart-beats, and the frame.
    pub consumed: usize,
    /// A whole frame, or nothing yet.
    pub frame: Option<Frame<'a>>,
    /// How many bytes the partial frame after `consumed` will take; zero if that is not known.
    pub expect: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Version::V12)
    }
}

impl Decoder {
    /// A decoder that reads values as `version` writes them; ERROR and CONNECTED before the version is settled read
    /// alike in all.
    #[must_use]
    pub fn new(version: Version) -> Self {
        let huge = usize::MAX / 4;
        let bounds = Bounds {
            command_bytes_max: 64,
            header_line_bytes_max: 1 << 24,
            headers_max: 1 << 16,
            body_bytes_max: huge,
            frame_bytes_max: huge,
            blob_bytes_min: usize::MAX,
        };
        Self { scanner: Scanner::default(), bounds, reading: version.into() }
    }

    /// Reads what follows as `version` writes it.
    pub fn set_version(&mut self, version: Version) {
        self.reading = version.into();
    }

    /// Looks for the next frame at the front of `input`.
    ///
    /// # Errors
    /// The bytes are no frame; there is no way to go on.
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<Decoded<'a>, Refusal> {
        let blanks = Scanner::blanks(input);
        let rest = input.get(blanks..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Decoded { consumed: blanks, frame: None, expect: 0 });
        }
        match self.scanner.poll(rest, &self.bounds)? {
            Progress::Partial { expect } => Ok(Decoded { consumed: blanks, frame: None, expect }),
            // No body is that large.
            Progress::Large { head: total, .. } | Progress::Whole { total } => {
                let frame = self.scanner.frame(rest, self.reading)?;
                Ok(Decoded { consumed: blanks + total, frame: Some(frame), expect: 0 })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_a_client_writes_reads_back() {
        for version in Version::ALL {
            let mut out = Vec::new();
            beat(&mut out);
            // 1.0 has no escapes: what it cannot say must not be asked of it.
            let odd = if version == Version::V10 { ("name", "va\\l:ue") } else { ("n\\a:me", "va\\l:ue\n") };
            send(&mut out, version, "/queue/a", &[odd], b"bo\0dy");
            send_text(&mut out, version, "/queue/b", &[], "text");
            disconnect(&mut out, version, Some("bye"));
            let mut decoder = Decoder::new(version);
            let mut at = 0;
            let first = decoder.next(&out).unwrap();
            at += first.consumed;
            let frame = first.frame.unwrap();
            assert_eq!((frame.command(), frame.body()), ("SEND", &b"bo\0dy"[..]));
            let header = frame.headers().nth(1).unwrap();
            assert_eq!((header.name().as_ref(), header.value().as_ref()), odd);
            let second = decoder.next(&out[at..]).unwrap();
            at += second.consumed;
            assert_eq!(second.frame.unwrap().body(), b"text");
            let third = decoder.next(&out[at..]).unwrap();
            assert_eq!(third.frame.unwrap().get("receipt").unwrap(), "bye");
            assert_eq!(at + third.consumed, out.len());
        }
    }
}
