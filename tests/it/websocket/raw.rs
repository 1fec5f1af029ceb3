//! A WebSocket client of raw frames: it sends what a test wants it to, right or wrong, and shows what comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::frame;
use crate::client::tcp;

pub(super) const TEXT: u8 = 0x81;
pub(super) const BINARY: u8 = 0x82;

/// What came back, messages joined from their fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    /// With its code, if it has one.
    Close(Option<u16>),
    /// The end of the stream.
    End,
}

pub(super) fn text(text: &str) -> Came {
    Came::Text(text.as_bytes().to_vec())
}

pub(super) struct Raw {
    stream: TcpStream,
    /// The message that is coming in: first byte of its first frame, and payload.
    open: Option<(u8, Vec<u8>)>,
    /// First bytes of the first frames of messages that came.
    pub(super) firsts: Vec<u8>,
}

impl Raw {
    /// After a handshake at `path`, with the head of the answer.
    pub(super) fn open(address: SocketAddr, path: &str, headers: &str) -> (Self, String) {
        let mut stream = tcp(address);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            head.extend_from_slice(&byte);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        (Self { stream, open: None, firsts: Vec::new() }, head)
    }

    /// Sends a frame with this first byte.
    pub(super) fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(&frame(first, payload));
    }

    /// Sends bytes as they are. The server may have hung up: what it said is what counts.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn read_exact(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.read_exact(2)?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let number = |bytes: Vec<u8>| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let length = match head[1] {
            126 => number(self.read_exact(2)?),
            127 => number(self.read_exact(8)?),
            short => usize::from(short),
        };
        Some((head[0], self.read_exact(length)?))
    }

    /// What comes next; pings of the server pass unnoticed.
    pub(super) fn next(&mut self) -> Came {
        loop {
            let Some((first, payload)) = self.read_frame() else { return Came::End };
            match first & 0x0f {
                8 => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    assert!(
                        payload.get(2..).is_none_or(|reason| std::str::from_utf8(reason).is_ok()),
                        "a reason is text"
                    );
                    return Came::Close(code);
                }
                9 => {}
                10 => return Came::Pong(payload),
                kind => {
                    if kind != 0 {
                        assert!(self.open.is_none(), "a message inside of a message");
                        self.firsts.push(first);
                        self.open = Some((first, Vec::new()));
                    }
                    let (_, message) = self.open.as_mut().expect("a frame goes on with a message");
                    message.extend(payload);
                    if first & 0x80 != 0
                        && let Some((first, message)) = self.open.take()
                    {
                        return match first & 0x0f {
                            1 => Came::Text(message),
                            _ => Came::Binary(message),
                        };
                    }
                }
            }
        }
    }

    /// All that comes until the stream's end or the server's farewell, which is answered.
    pub(super) fn rest(&mut self) -> Vec<Came> {
        let mut all = Vec::new();
        loop {
            match self.next() {
                Came::End => return all,
                close @ Came::Close(_) => {
                    all.push(close);
                    self.send(0x88, &1000u16.to_be_bytes());
                    assert_eq!(self.next(), Came::End, "nothing follows a close");
                    return all;
                }
                other => all.push(other),
            }
        }
    }
}
