//! The client's side of WebSocket (RFC 6455), for the load generator and the command line: the handshake over a blocking
//! stream, and frames out of bytes and into bytes. Extensions are not offered.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};

use sabir_model::base64;
use sha1::{Digest, Sha1};

/// Longest head of the server's answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Asks for a WebSocket that carries `subprotocol`, and checks the answer. What the server sent behind it is returned.
///
/// # Errors
/// A sentence: the server does not answer, or not as it must.
pub fn handshake(
    stream: &mut (impl Read + Write),
    authority: &str,
    path: &str,
    subprotocol: &str,
) -> Result<Vec<u8>, String> {
    let mut key = Vec::new();
    let random = [random(), random()].map(u64::to_ne_bytes).concat();
    base64::encode(&random, &mut key);
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {subprotocol}\r\nSec-WebSocket-Key: "
    )
    .into_bytes();
    request.extend_from_slice(&key);
    request.extend_from_slice(b"\r\n\r\n");
    stream.write_all(&request).map_err(|error| format!("cannot write: {error}"))?;
    let mut input = Vec::new();
    loop {
        if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            let early = input.split_off(end + 4);
            check(&String::from_utf8_lossy(&input), &key, subprotocol)?;
            return Ok(early);
        }
        if input.len() > HEAD_BYTES_MAX {
            return Err("the answer to the handshake has no end".into());
        }
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer) {
            Ok(0) => return Err("the server closed the connection during the handshake".into()),
            Ok(count) => input.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("no answer to the handshake: {error}")),
        }
    }
}

fn check(head: &str, key: &[u8], subprotocol: &str) -> Result<(), String> {
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("the server does not open a WebSocket there: {status}"));
    }
    let headers: Vec<(&str, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
    let get =
        |wanted: &str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, v)| *v);
    if get("sec-websocket-accept").map(str::as_bytes) != Some(&accept(key)[..]) {
        return Err("the server does not answer the handshake's key: it is no WebSocket".into());
    }
    match get("sec-websocket-protocol") {
        Some(chosen) if chosen == subprotocol => Ok(()),
        _ => Err(format!("the server does not speak {subprotocol} there")),
    }
}

fn accept(key: &[u8]) -> Vec<u8> {
    let digest =
        Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let mut answer = Vec::new();
    base64::encode(&digest, &mut answer);
    answer
}

/// A number that nobody outside can guess.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Frames of one connection, both ways.
#[derive(Debug)]
pub struct Codec {
    binary_only: bool,
    /// Moves on with each frame.
    mask: u64,
    head: Vec<u8>,
    opcode: u8,
    /// Payload of the frame at hand that has not come; nothing between frames.
    left: Option<u64>,
    control: Vec<u8>,
}

impl Codec {
    /// One that sends text where the bytes are UTF-8, unless `binary_only`.
    #[must_use]
    pub fn new(binary_only: bool) -> Self {
        Self { binary_only, mask: random(), head: Vec::new(), opcode: 0, left: None, control: Vec::new() }
    }

    /// Makes one message of what `out` holds from `start` on.
    pub fn wrap(&mut self, out: &mut Vec<u8>, start: usize) {
        let payload = out.get(start..).unwrap_or_default();
        let text = !self.binary_only && std::str::from_utf8(payload).is_ok();
        self.seal(if text { 0x81 } else { 0x82 }, out, start);
    }

    fn seal(&mut self, first: u8, out: &mut Vec<u8>, start: usize) {
        let length = out.len().saturating_sub(start);
        // A stream of numbers that the first, which is random, does not show (splitmix64).
        self.mask = self.mask.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.mask ^ (self.mask >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [a, b, c, d, ..] = (mixed ^ (mixed >> 31)).to_ne_bytes();
        let mut head = vec![first];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..=125), _) => head.push(0x80 | short),
            (_, Ok(medium)) => {
                head.push(0x80 | 126);
                head.extend_from_slice(&medium.to_be_bytes());
            }
            _ => {
                head.push(0x80 | 127);
                head.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        head.extend_from_slice(&[a, b, c, d]);
        let wide = [a, b, c, d, a, b, c, d];
        for word in out.get_mut(start..).unwrap_or_default().chunks_mut(8) {
            for (byte, key) in word.iter_mut().zip(wide) {
                *byte ^= key;
            }
        }
        out.splice(start..start, head);
    }

    /// Takes bytes of the wire: data goes to `data`, what is to be written in answer to `answers`.
    ///
    /// # Errors
    /// A sentence: the server has closed, or sends what is no frame.
    pub fn feed(&mut self, mut wire: &[u8], data: &mut Vec<u8>, answers: &mut Vec<u8>) -> Result<(), String> {
        loop {
            let Some(left) = self.left else {
                let Some((&byte, rest)) = wire.split_first() else { return Ok(()) };
                wire = rest;
                self.head.push(byte);
                self.begin()?;
                continue;
            };
            let count = usize::try_from(left).map_or(wire.len(), |left| left.min(wire.len()));
            let (payload, rest) = wire.split_at(count);
            wire = rest;
            if self.opcode >= 8 { &mut self.control } else { &mut *data }.extend_from_slice(payload);
            if left > count as u64 {
                self.left = Some(left - count as u64);
                return Ok(());
            }
            self.left = None;
            self.end(answers)?;
        }
    }

    /// Reads the head of a frame, if it is whole.
    fn begin(&mut self) -> Result<(), String> {
        let [first, second, rest @ ..] = self.head.as_slice() else { return Ok(()) };
        if second & 0x80 != 0 || first & 0x70 != 0 {
            return Err("the server sends what is no WebSocket frame".into());
        }
        let number = |length: usize| {
            (rest.len() == length).then(|| rest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let length = match second {
            126 => number(2),
            127 => number(8),
            short => Some(u64::from(*short)),
        };
        if let Some(length) = length {
            self.opcode = first & 0x0f;
            if self.opcode >= 8 && length > 125 {
                return Err("the server sends what is no WebSocket frame".into());
            }
            self.left = Some(length);
            self.head.clear();
        }
        Ok(())
    }

    fn end(&mut self, answers: &mut Vec<u8>) -> Result<(), String> {
        if self.opcode < 8 {
            return Ok(());
        }
        let payload = std::mem::take(&mut self.control);
        match self.opcode {
            8 => Err(match payload.as_slice() {
                [high, low, reason @ ..] => {
                    let code = u16::from_be_bytes([*high, *low]);
                    let reason = String::from_utf8_lossy(reason);
                    let colon = if reason.is_empty() { "" } else { ": " };
                    format!("the server closed the WebSocket with {code}{colon}{reason}")
                }
                _ => "the server closed the WebSocket".into(),
            }),
            9 => {
                let start = answers.len();
                answers.extend_from_slice(&payload);
                self.seal(0x8a, answers, start);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Where `ws://HOST:PORT/PATH` is: the address, and the path, which is `default_path` if it is left out.
///
/// # Errors
/// A sentence, if it is no such thing.
pub fn parse_url(url: &str, default_path: &str) -> Result<(String, String), String> {
    let Some(rest) = url.strip_prefix("ws://") else {
        return Err(format!("{url:?} is not ws://HOST:PORT/PATH"));
    };
    let (address, path) = match rest.split_once('/') {
        Some((address, path)) if !path.is_empty() => (address, format!("/{path}")),
        Some((address, _)) => (address, default_path.to_owned()),
        None => (rest, default_path.to_owned()),
    };
    if address.is_empty() || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{url:?} is not ws://HOST:PORT/PATH"));
    }
    let has_port =
        address.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let address = if has_port { address.to_owned() } else { format!("{address}:8161") };
    Ok((address, path))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// What a server makes of a client's frame.
    fn unmasked(frame: &[u8]) -> (u8, Vec<u8>) {
        let at = match frame[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let (mask, payload) = frame[at..].split_at(4);
        (frame[0], payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect())
    }

    #[test]
    fn messages_are_masked_and_text_where_they_can_be() {
        let mut text = Codec::new(false);
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let mut out = b"before".to_vec();
            out.extend(vec![b'x'; length]);
            text.wrap(&mut out, 6);
            assert_eq!(&out[..6], b"before");
            assert_eq!(unmasked(&out[6..]), (0x81, vec![b'x'; length]), "{length}");
        }
        let mut out = vec![0xff];
        text.wrap(&mut out, 0);
        assert_eq!(unmasked(&out), (0x82, vec![0xff]));
        let mut out = b"x".to_vec();
        Codec::new(true).wrap(&mut out, 0);
        assert_eq!(unmasked(&out), (0x82, b"x".to_vec()));
    }

    #[test]
    fn frames_are_read_however_they_are_cut_and_pings_answered() {
        let mut wire = b"\x81\x05hello\x89\x01?\x02\x00\x80\x7e\x00\xc8".to_vec();
        wire.extend([b'y'; 200]);
        wire.extend(b"\x8a\x00");
        for piece in [1, 3, wire.len()] {
            let mut codec = Codec::new(false);
            let (mut data, mut answers) = (Vec::new(), Vec::new());
            for part in wire.chunks(piece) {
                codec.feed(part, &mut data, &mut answers).unwrap();
            }
            assert_eq!(data, [b"hello".to_vec(), vec![b'y'; 200]].concat());
            assert_eq!(unmasked(&answers), (0x8a, b"?".to_vec()));
            let end = codec.feed(b"\x88\x05\x03\xf0why", &mut data, &mut answers).unwrap_err();
            assert_eq!(end, "the server closed the WebSocket with 1008: why");
        }
        assert!(Codec::new(false).feed(b"\x81\x81xxxxx", &mut Vec::new(), &mut Vec::new()).is_err());
    }

    #[test]
    fn only_the_right_answer_opens_a_websocket() {
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        let answer = |accept: &str, protocol: &str| {
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {accept}\r\n\
                 Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
            )
        };
        let right = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(check(&answer(right, "v12.stomp"), key, "v12.stomp"), Ok(()));
        assert!(check(&answer("wrong", "v12.stomp"), key, "v12.stomp").is_err());
        assert!(check(&answer(right, "mqtt"), key, "v12.stomp").is_err());
        let refused = check("HTTP/1.1 404 Not Found\r\n\r\n", key, "mqtt").unwrap_err();
        assert!(refused.ends_with("404 Not Found"), "{refused}");
    }

    #[test]
    fn urls() {
        let read = |url| parse_url(url, "/stomp");
        let place = |address: &str, path: &str| Ok((address.to_owned(), path.to_owned()));
        assert_eq!(read("ws://broker:1/a/b?c"), place("broker:1", "/a/b?c"));
        assert_eq!(read("ws://broker"), place("broker:8161", "/stomp"));
        assert_eq!(read("ws://[::1]:1/"), place("[::1]:1", "/stomp"));
        for bad in ["broker:1", "wss://broker", "ws://", "ws:///x", "ws://a/b c"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
