//! Which protocol a WebSocket carries: by path, by sub-protocol, by its first bytes.

use super::raw::{BINARY, Came, Raw, TEXT};
use crate::server::Server;

const STOMP: &[u8] = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0";
/// CONNECT of MQTT 3.1.1 with the client id `a`, and what answers it.
const MQTT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
const CONNACK: &[u8] = &[0x20, 2, 0, 0];

#[test]
fn the_sub_protocol_is_chosen_by_path_and_offer() {
    let server = Server::start(&[]);
    for (path, offers, chosen) in [
        ("/stomp", "v10.stomp, v12.stomp", Ok(Some("v12.stomp"))),
        ("/stomp", "stomp", Ok(Some("stomp"))),
        ("/stomp", "mqtt", Err(())),
        ("/mqtt", "mqttv3.1, mqtt", Ok(Some("mqtt"))),
        ("/mqtt", "v12.stomp", Err(())),
        ("/ws", "v11.stomp", Ok(Some("v11.stomp"))),
        ("/ws", "mqtt", Ok(Some("mqtt"))),
        // The first that is spoken here says which protocol it is.
        ("/ws", "soap, mqtt, v12.stomp", Ok(Some("mqtt"))),
        ("/ws", "v10.stomp, mqtt, v12.stomp", Ok(Some("v12.stomp"))),
        ("/ws", "soap", Err(())),
        ("/ws", "", Ok(None)),
        ("/", "mqtt", Ok(Some("mqtt"))),
        ("/", "v12.stomp", Ok(Some("v12.stomp"))),
        ("/", "", Ok(None)),
    ] {
        let header =
            if offers.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {offers}\r\n") };
        let (_, head) = Raw::open(server.http, path, &header);
        match chosen {
            Ok(Some(name)) => {
                assert!(head.starts_with("http/1.1 101 "), "{path} {offers}: {head}");
                let line = format!("sec-websocket-protocol: {name}\r\n");
                assert!(head.contains(&line), "{path} {offers}: {head}");
            }
            Ok(None) => {
                assert!(head.starts_with("http/1.1 101 "), "{path} {offers}: {head}");
                assert!(!head.contains("sec-websocket-protocol"), "none offered, none answered: {head}");
            }
            Err(()) => assert!(head.starts_with("http/1.1 400 "), "{path} {offers}: {head}"),
        }
    }
}

#[test]
fn without_a_sub_protocol_the_first_bytes_tell_however_they_are_cut() {
    let server = Server::start(&[]);
    for path in ["/ws", "/"] {
        for piece in [1, usize::MAX] {
            let (mut raw, _) = Raw::open(server.http, path, "");
            for part in STOMP.chunks(piece) {
                raw.send(TEXT, part);
                raw.send(0x89, b"");
            }
            let mut seen = Vec::new();
            while !seen.ends_with(b"\0") {
                match raw.next() {
                    Came::Text(text) => seen.extend(text),
                    Came::Pong(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(seen.starts_with(b"CONNECTED\n"), "{}", seen.escape_ascii());

            let (mut raw, _) = Raw::open(server.http, path, "");
            // Fragments of one message, or one frame.
            let parts: Vec<&[u8]> = MQTT.chunks(piece).collect();
            let last = parts.len() - 1;
            for (index, part) in parts.into_iter().enumerate() {
                let first = if index == 0 { 0x02 } else { 0 };
                raw.send(first | if index == last { 0x80 } else { 0 }, part);
            }
            assert_eq!(raw.next(), Came::Binary(CONNACK.to_vec()));
            // And from there on it is bound by its protocol's rules.
            raw.send(TEXT, &[0xc0, 0]);
            assert_eq!(raw.rest(), [Came::Close(Some(1003))]);
        }
    }
}

#[test]
fn first_bytes_of_nothing_are_told_so_and_silence_ends() {
    let server = Server::start(&[("limits.connect_timeout_ms", "300")]);
    let said = |raw: &mut Raw| match raw.next() {
        Came::Text(text) => String::from_utf8(text).unwrap(),
        other => format!("{other:?}"),
    };
    let (mut raw, _) = Raw::open(server.http, "/ws", "");
    raw.send(TEXT, b"HELO there\n");
    let error = said(&mut raw);
    assert!(error.starts_with("ERROR\n"), "{error}");
    assert!(matches!(raw.rest()[..], [Came::Close(Some(1008))]));
    // Text that is MQTT: guessed, and refused as such.
    let (mut raw, _) = Raw::open(server.http, "/ws", "");
    raw.send(TEXT, MQTT);
    assert_eq!(raw.rest(), [Came::Close(Some(1003))]);
    let (mut raw, _) = Raw::open(server.http, "/ws", "");
    assert!(said(&mut raw).contains("connect-timeout"));
    // Pings alone are no greeting.
    let (mut raw, _) = Raw::open(server.http, "/ws", "");
    raw.write(&[0x89, 0x80, 0, 0, 0, 0].repeat(2000));
    let mut came = raw.next();
    while matches!(came, Came::Pong(_)) {
        came = raw.next();
    }
    assert!(matches!(came, Came::Text(ref text) if text.starts_with(b"ERROR\n")), "{came:?}");
    let (mut raw, _) = Raw::open(server.http, "/ws", "");
    raw.send(0x88, &1000u16.to_be_bytes());
    assert_eq!(raw.rest(), [Came::Close(Some(1000))]);
    let (mut raw, _) = Raw::open(server.http, "/ws", "");
    raw.send(0xc1, b"x");
    assert_eq!(raw.rest(), [Came::Close(Some(1002))]);
}

#[test]
fn text_that_is_no_text_ends_stomp_with_1007_and_binary_does_not() {
    let server = Server::start(&[]);
    for (first, fine) in [(BINARY, true), (TEXT, false)] {
        let (mut raw, _) = Raw::open(server.http, "/stomp", "");
        raw.send(first, STOMP);
        assert!(matches!(raw.next(), Came::Text(_)));
        raw.send(first, b"SEND\ndestination:/queue/a\nreceipt:r\ncontent-length:2\n\n\xff\xfe\0");
        match raw.next() {
            Came::Text(receipt) if fine => assert!(receipt.starts_with(b"RECEIPT\n")),
            other => assert_eq!((other, fine), (Came::Close(Some(1007)), false)),
        }
    }
}

#[test]
fn a_subscriber_that_says_close_gets_nothing_after_the_answer() {
    let server = Server::start(&[]);
    let (mut raw, _) = Raw::open(server.http, "/stomp", "");
    raw.send(BINARY, STOMP);
    assert!(matches!(raw.next(), Came::Text(_)));
    // All in one write: many deliveries to itself, and a close behind them.
    let mut wire = super::frame(BINARY, b"SUBSCRIBE\nid:0\ndestination:/topic/a\n\n\0");
    for _ in 0..500 {
        wire.extend(super::frame(BINARY, b"SEND\ndestination:/topic/a\n\nbody\0"));
    }
    wire.extend(super::frame(0x88, &1001u16.to_be_bytes()));
    raw.write(&wire);
    let came = raw.rest();
    assert_eq!(came.last(), Some(&Came::Close(Some(1001))));
    assert!(came.iter().rev().skip(1).all(|came| matches!(came, Came::Text(_))), "{came:?}");
}
