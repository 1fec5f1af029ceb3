//! STOMP over WebSocket, and a WebSocket client that shows every byte.

mod autobahn;
mod choice;
mod deflate;
mod login;
mod raw;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client::{Client, send, tcp};
use crate::server::Server;

/// A WebSocket as a pipe: each write is one message, reads join messages.
pub(crate) struct Socket {
    stream: TcpStream,
    /// First byte of each data message that came: text or binary.
    pub(crate) kinds: Vec<u8>,
    payload: Vec<u8>,
    binary: bool,
}

pub(crate) fn handshake(address: SocketAddr, headers: &str) -> (TcpStream, String) {
    let mut stream = tcp(address);
    let request = format!(
        "GET /stomp HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        head.extend_from_slice(&byte);
    }
    (stream, String::from_utf8(head).unwrap())
}

pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 77, 177, 1];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

impl Socket {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let (stream, head) = handshake(address, "Sec-WebSocket-Protocol: v11.stomp, v12.stomp\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.to_lowercase().contains("sec-websocket-protocol: v12.stomp\r\n"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self { stream, kinds: Vec::new(), payload: Vec::new(), binary: false }
    }

    /// Reads one frame of the server: first byte and payload.
    fn read_frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0; 2];
        match self.stream.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length)?;
                usize::from(u16::from_be_bytes(length))
            }
            length => usize::from(length),
        };
        assert!(length < 0x80 || head[1] == 126, "a server does not mask, and needs no longer frames");
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok(Some((head[0], payload)))
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.payload.is_empty() {
            match self.read_frame()? {
                Some((first @ (0x81 | 0x82), payload)) => {
                    if first == 0x81 {
                        assert!(std::str::from_utf8(&payload).is_ok(), "text is UTF-8");
                    }
                    self.kinds.push(first);
                    self.payload = payload;
                }
                Some((0x88, _)) | None => return Ok(0),
                Some(other) => panic!("unexpected {other:?}"),
            }
        }
        let count = self.payload.len().min(buf.len());
        buf[..count].copy_from_slice(&self.payload[..count]);
        self.payload.drain(..count);
        Ok(count)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Now one, now the other; what is no text cannot be sent as such.
        self.binary = !self.binary || std::str::from_utf8(buf).is_err();
        let first = if self.binary { 0x82 } else { 0x81 };
        self.stream.write_all(&frame(first, buf))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stomp_frame_may_come_in_many_messages_and_many_frames_in_one() {
    let server = Server::start(&[]);
    let mut client = Client::new(Socket::open(server.http));
    for byte in b"CONNECT\naccept-version:1.2\nhost:/\n\n\0" {
        client.write(&[*byte]);
    }
    assert_eq!(client.frame().command, "CONNECTED");
    let mut all = b"SUBSCRIBE\nid:0\ndestination:/queue/w\n\n\0\n".to_vec();
    for n in 0..50 {
        all.extend(send("/queue/w", "", format!("message {n}").as_bytes()));
    }
    client.write(&all);
    for n in 0..50 {
        assert_eq!(client.frame().body, format!("message {n}").as_bytes());
    }
}

#[test]
fn text_goes_out_as_text_and_only_other_bytes_as_binary() {
    let server = Server::start(&[]);
    let mut sender = Client::connect(tcp(server.stomp));
    let mut socket = Socket::open(server.http);
    socket.write_all(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").unwrap();
    socket.write_all(b"SUBSCRIBE\nid:0\ndestination:/queue/t\n\n\0").unwrap();
    let mut read = |until: &[u8]| {
        let mut seen = Vec::new();
        let mut buf = [0; 1024];
        while !seen.windows(until.len()).any(|part| part == until) {
            let count = socket.read(&mut buf).unwrap();
            assert!(count > 0);
            seen.extend_from_slice(&buf[..count]);
        }
        std::mem::take(&mut socket.kinds)
    };
    assert!(read(b"CONNECTED").iter().all(|kind| *kind == 0x81));
    sender.send("/queue/t", "žluťoučký kůň".as_bytes());
    assert!(read("kůň".as_bytes()).iter().all(|kind| *kind == 0x81));
    sender.send("/queue/t", b"\xff\xfe\x00 end");
    assert!(read(b" end").contains(&0x82));
}

#[test]
fn long_text_is_cut_between_characters_only() {
    let server = Server::start(&[]);
    let mut sender = Client::connect(tcp(server.stomp));
    let mut client = Client::connect(Socket::open(server.http));
    client.subscribe("/queue/long");
    // Three bytes each, so that no power of two is a boundary; the reader checks every text message for UTF-8.
    let body = "☃".repeat(100_000);
    sender.send("/queue/long", body.as_bytes());
    assert_eq!(client.frame().body, body.as_bytes());
}

#[test]
fn a_ping_is_answered_and_a_close_is_returned() {
    let server = Server::start(&[]);
    let mut socket = Socket::open(server.http);
    socket.stream.write_all(&frame(0x89, b"hello?")).unwrap();
    assert_eq!(socket.read_frame().unwrap(), Some((0x8a, b"hello?".to_vec())));
    socket.stream.write_all(&frame(0x88, &[0x03, 0xe8])).unwrap();
    let (first, payload) = socket.read_frame().unwrap().unwrap();
    assert_eq!((first, &payload[..2]), (0x88, &[0x03, 0xe8][..]));
    assert_eq!(socket.read_frame().unwrap(), None);
}

#[test]
fn a_broken_frame_closes_with_1002_and_harms_only_itself() {
    let server = Server::start(&[]);
    let mut other = Client::connect(Socket::open(server.http));
    let mut socket = Socket::open(server.http);
    socket.stream.write_all(&[0x81, 0x01, b'x']).unwrap();
    let (first, payload) = socket.read_frame().unwrap().unwrap();
    assert_eq!((first, &payload[..2]), (0x88, &1002u16.to_be_bytes()[..]));
    other.send("/queue/fine", b"x");
}

#[test]
fn a_protocol_error_arrives_before_the_close() {
    let server = Server::start(&[]);
    let mut client = Client::connect(Socket::open(server.http));
    client.write(b"NONSENSE\n\n\0");
    client.expect_error("unknown-command");
}

#[test]
fn the_handshake_is_refused_with_a_reason() {
    let server = Server::start(&[("http.allowed_origins", "https://shop.example")]);
    let refused = |headers: &str, status: &str| {
        let (mut stream, head) = handshake(server.http, headers);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{headers} → {head}");
        let mut body = [0; 256];
        let count = stream.read(&mut body).unwrap();
        assert!(count > 0, "a sentence says why");
    };
    refused("Origin: https://evil.example\r\n", "403");
    refused("Sec-WebSocket-Protocol: mqtt\r\n", "400");
    for origin in [format!("http://{}", server.http), "https://shop.example".to_owned()] {
        let (_, head) = handshake(server.http, &format!("Origin: {origin}\r\n"));
        assert!(head.starts_with("HTTP/1.1 101 "), "{origin} → {head}");
        assert!(
            !head.to_lowercase().contains("sec-websocket-protocol"),
            "none offered, none answered: {head}"
        );
    }
}
