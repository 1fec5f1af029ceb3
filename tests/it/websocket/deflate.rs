//! Compressed messages (Autobahn's groups 12 and 13), over `/ws/echo` and with protocols inside.

use std::io::{Read as _, Write as _};

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec;

use super::raw::{Came, Raw, text};
use crate::client::{Client, tcp};
use crate::server::Server;

const COMPRESSED: u8 = 0x40;
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

fn server() -> Server {
    Server::start(&[("http.websocket_echo", "true"), ("http.websocket_compression", "true")])
}

/// As a client would write it: one final block, which the standard allows (RFC 7692 §7.2.3.4).
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = compress_to_vec(bytes, 6);
    out.push(0);
    out
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    // Ended as a stream of its own: the tail that was left out, and a final empty block.
    decompress_to_vec(&[bytes, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat()).unwrap()
}

fn prose(length: usize) -> String {
    let words = ["queue", "topic", "žluťoučký", "message", "{\"price\":7}", "☃"];
    let mut text = String::new();
    let mut n = 7usize;
    while text.len() < length {
        n = n.wrapping_mul(31).wrapping_add(17) % 10_007;
        text.push_str(words[n % words.len()]);
        text.push(' ');
    }
    text
}

#[test]
fn groups_12_and_13_every_size_comes_back_with_every_agreement() {
    let server = server();
    for (offer, window) in [
        ("permessage-deflate", None),
        ("permessage-deflate; client_no_context_takeover", None),
        ("permessage-deflate; server_no_context_takeover", None),
        ("permessage-deflate; client_max_window_bits=9", None),
        ("permessage-deflate; server_max_window_bits=9", Some(9)),
        ("permessage-deflate; server_max_window_bits=8; client_max_window_bits", Some(8)),
        (
            "permessage-deflate; server_max_window_bits=16, permessage-deflate; server_max_window_bits=15",
            Some(15),
        ),
    ] {
        let (mut raw, head) =
            Raw::open(server.http, "/ws/echo", &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        let window = window.map(|bits| format!("; server_max_window_bits={bits}")).unwrap_or_default();
        let answer = format!(
            "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover{window}\r\n"
        );
        assert!(head.contains(&answer), "{offer}: {head}");
        for size in [0, 16, 64, 256, 1024, 4096, 16_384, 65_536, 131_072] {
            let message = prose(size);
            for fragment in [usize::MAX, 1000] {
                let small = deflated(message.as_bytes());
                let pieces: Vec<&[u8]> = small.chunks(fragment).collect();
                let last = pieces.len() - 1;
                for (index, piece) in pieces.into_iter().enumerate() {
                    let first = if index == 0 { 0x01 | COMPRESSED } else { 0 };
                    raw.send(first | if index == last { 0x80 } else { 0 }, piece);
                }
                let came = raw.next();
                let first = raw.firsts.pop().unwrap();
                let Came::Text(payload) = came else { panic!("{offer}, {size}: {came:?}") };
                let plain = if first & COMPRESSED != 0 { inflated(&payload) } else { payload.clone() };
                assert!(plain == message.as_bytes(), "{offer}, {size} bytes");
                assert_eq!(first & COMPRESSED != 0, message.len() >= 128, "{offer}, {size} bytes");
                assert!(payload.len() <= message.len());
            }
        }
        // What is not compressed passes too.
        raw.send(0x81, b"plain");
        assert_eq!(raw.next(), text("plain"));
    }
}

#[test]
fn nothing_is_agreed_on_that_cannot_be_kept_or_is_not_wanted() {
    let (with, without) = (server(), Server::start(&[("http.websocket_echo", "true")]));
    for (server, offer) in [
        (&with, "permessage-deflate; server_max_window_bits=7"),
        (&with, "permessage-deflate; unknown"),
        (&with, "x-webkit-deflate-frame"),
        (&without, "permessage-deflate"),
    ] {
        let (mut raw, head) =
            Raw::open(server.http, "/ws/echo", &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        raw.send(0x81 | COMPRESSED, &deflated(b"not agreed on"));
        assert_eq!(raw.rest(), [Came::Close(Some(1002))]);
    }
}

#[test]
fn what_a_compressed_message_must_not_be_closes_with_its_code() {
    let server = Server::start(&[
        ("http.websocket_echo", "true"),
        ("http.websocket_compression", "true"),
        ("limits.frame_bytes_max", "1 MiB"),
        ("limits.body_bytes_max", "512 KiB"),
    ]);
    let bomb = deflated(&vec![b'x'; (1 << 20) + 1]);
    assert!(bomb.len() < 5000);
    let broken = [&b"\xff\xff\xff\xff"[..]].concat();
    for (sends, code) in [
        (vec![(0x82 | COMPRESSED, bomb)], 1009),
        (vec![(0x81 | COMPRESSED, broken)], 1007),
        (vec![(0x81 | COMPRESSED, deflated(b"\xed\xa0\x80 is no text"))], 1007),
        (vec![(0x89 | COMPRESSED, deflated(b"ping"))], 1002),
        (vec![(0x01 | COMPRESSED, b"\xf2\x48".to_vec()), (0x80 | COMPRESSED, b"\xcd".to_vec())], 1002),
        (vec![(0xa1, b"x".to_vec())], 1002),
    ] {
        let (mut raw, _) = Raw::open(server.http, "/ws/echo", OFFER);
        for (first, payload) in &sends {
            raw.send(*first, payload);
        }
        let came = raw.rest();
        assert_eq!(came, [Came::Close(Some(code))], "{sends:x?}");
    }
    // A message of exactly the largest size is no bomb.
    let (mut raw, _) = Raw::open(server.http, "/ws/echo", OFFER);
    raw.send(0x82 | COMPRESSED, &deflated(&vec![b'x'; 1 << 20]));
    let Came::Binary(payload) = raw.next() else { panic!("it comes back") };
    assert!(inflated(&payload) == vec![b'x'; 1 << 20]);
}

/// A compressed WebSocket as a pipe for a protocol's bytes.
struct Pipe {
    raw: Raw,
    early: Vec<u8>,
    compressed: usize,
}

impl std::io::Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.early.is_empty() {
            let came = self.raw.next();
            let small = self.raw.firsts.pop().is_some_and(|first| first & COMPRESSED != 0);
            self.early = match came {
                Came::Text(payload) | Came::Binary(payload) if small => {
                    self.compressed += 1;
                    inflated(&payload)
                }
                Came::Text(payload) | Came::Binary(payload) => payload,
                _ => return Ok(0),
            };
        }
        let count = self.early.len().min(buf.len());
        buf[..count].copy_from_slice(&self.early[..count]);
        self.early.drain(..count);
        Ok(count)
    }
}

impl std::io::Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.raw.send(0x82 | COMPRESSED, &deflated(buf));
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn stomp_crosses_compressed_in_both_directions() {
    let server = server();
    let (raw, head) =
        Raw::open(server.http, "/stomp", &format!("{OFFER}Sec-WebSocket-Protocol: v12.stomp\r\n"));
    assert!(head.contains("permessage-deflate"), "{head}");
    let mut client = Client::connect(Pipe { raw, early: Vec::new(), compressed: 0 });
    client.subscribe("/queue/small");
    let mut other = Client::connect(tcp(server.stomp));
    for size in [10, 1000, 200_000, 3_000_000] {
        let body = prose(size);
        other.send("/queue/small", body.as_bytes());
        assert!(client.frame().body == body.as_bytes(), "{size} bytes");
    }
    other.subscribe("/queue/back");
    let body = prose(2_000_000);
    client.send("/queue/back", body.as_bytes());
    assert!(other.frame().body == body.as_bytes());
}

#[test]
fn large_messages_leave_smaller_than_they_are() {
    let server = server();
    let (raw, _) = Raw::open(server.http, "/stomp", &format!("{OFFER}Sec-WebSocket-Protocol: v12.stomp\r\n"));
    let mut pipe = Pipe { raw, early: Vec::new(), compressed: 0 };
    pipe.write_all(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").unwrap();
    pipe.write_all(b"SUBSCRIBE\nid:0\ndestination:/queue/a\n\n\0").unwrap();
    pipe.write_all(format!("SEND\ndestination:/queue/a\n\n{}\0", prose(100_000)).as_bytes()).unwrap();
    let mut seen = 0;
    let mut buf = [0; 4096];
    while seen < 100_000 {
        seen += pipe.read(&mut buf).unwrap();
    }
    assert!(pipe.compressed > 0);
}
