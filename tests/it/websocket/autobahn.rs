//! The cases of the Autobahn test suite, by its numbers, against `/ws/echo`: framing, pings, reserved bits, opcodes,
//! fragmentation, UTF-8, closing, sizes. Each is what a client sends, and everything that comes back.

use super::frame;
use super::raw::{BINARY, Came, Raw, TEXT, text};
use crate::server::Server;

/// Runs one case: sends frames (first byte and payload) whole and byte by byte, says goodbye, and compares.
fn check(server: &Server, number: &str, sends: &[(u8, &[u8])], expected: &[Came]) {
    let wire: Vec<u8> = sends.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
    check_wire(server, number, &wire, expected);
}

fn check_wire(server: &Server, number: &str, wire: &[u8], expected: &[Came]) {
    let farewell = frame(0x88, &1000u16.to_be_bytes());
    for chop in [usize::MAX, 1] {
        if chop == 1 && wire.len() > 3000 {
            continue;
        }
        let (mut raw, head) = Raw::open(server.http, "/ws/echo", "");
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        for piece in wire.chunks(chop) {
            raw.write(piece);
        }
        raw.write(&farewell);
        assert_eq!(raw.rest(), expected, "case {number}, in pieces of {chop}");
    }
}

fn server() -> Server {
    Server::start(&[("http.websocket_echo", "true")])
}

const BYE: Came = Came::Close(Some(1000));
const WRONG: Came = Came::Close(Some(1002));
const NOT_TEXT: Came = Came::Close(Some(1007));

#[test]
fn group_1_framing() {
    let server = server();
    let sizes = [0usize, 125, 126, 127, 128, 65_535, 65_536];
    for (index, size) in sizes.into_iter().enumerate() {
        let letters = "*".repeat(size);
        check(&server, &format!("1.1.{}", index + 1), &[(TEXT, letters.as_bytes())], &[text(&letters), BYE]);
        let bytes = vec![0xfe; size];
        check(
            &server,
            &format!("1.2.{}", index + 1),
            &[(BINARY, &bytes)],
            &[Came::Binary(bytes.clone()), BYE],
        );
    }
}

#[test]
fn group_2_pings_and_pongs() {
    let server = server();
    let pong = |payload: &[u8]| Came::Pong(payload.to_vec());
    check(&server, "2.1", &[(0x89, b"")], &[pong(b""), BYE]);
    check(&server, "2.2", &[(0x89, b"Hello, world!")], &[pong(b"Hello, world!"), BYE]);
    check(
        &server,
        "2.3",
        &[(0x89, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")],
        &[pong(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), BYE],
    );
    check(&server, "2.4", &[(0x89, &[0xfe; 125])], &[pong(&[0xfe; 125]), BYE]);
    check(&server, "2.5", &[(0x89, &[0xfe; 126])], &[WRONG]);
    check(&server, "2.7", &[(0x8a, b"")], &[BYE]);
    check(&server, "2.8", &[(0x8a, b"unsolicited pong payload")], &[BYE]);
    check(&server, "2.9", &[(0x8a, b"unsolicited"), (0x89, b"ping payload")], &[pong(b"ping payload"), BYE]);
    let payloads: Vec<String> = (0..10).map(|n| format!("payload-{n}")).collect();
    let pings: Vec<(u8, &[u8])> = payloads.iter().map(|payload| (0x89, payload.as_bytes())).collect();
    let mut pongs: Vec<Came> = payloads.iter().map(|payload| pong(payload.as_bytes())).collect();
    pongs.push(BYE);
    check(&server, "2.10", &pings, &pongs);
}

#[test]
fn group_3_reserved_bits() {
    let server = server();
    for (number, bits) in [("3.1", 0x10), ("3.2", 0x20), ("3.3", 0x30), ("3.4", 0x40), ("3.5", 0x50)] {
        let sends: [(u8, &[u8]); 2] = [(TEXT, b"Hello, world!"), (TEXT | bits, b"Hello, world!")];
        check(&server, number, &sends, &[text("Hello, world!"), WRONG]);
    }
    check(&server, "3.6", &[(0x89 | 0x60, b"Hello")], &[WRONG]);
    check(&server, "3.7", &[(0x88 | 0x70, b"")], &[WRONG]);
}

#[test]
fn group_4_opcodes() {
    let server = server();
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let number = format!("4, opcode {opcode}");
        check(&server, &number, &[(0x80 | opcode, b"")], &[WRONG]);
        check(
            &server,
            &number,
            &[(TEXT, b"before"), (0x80 | opcode, b"x"), (0x89, b"")],
            &[text("before"), WRONG],
        );
    }
}

#[test]
fn group_5_fragmentation() {
    let server = server();
    let pong = |payload: &[u8]| Came::Pong(payload.to_vec());
    check(&server, "5.1", &[(0x09, b"frag"), (0x80, b"ment")], &[WRONG]);
    check(&server, "5.2", &[(0x0a, b"frag"), (0x80, b"ment")], &[WRONG]);
    check(&server, "5.3", &[(0x01, b"fragment1"), (0x80, b"fragment2")], &[text("fragment1fragment2"), BYE]);
    check(
        &server,
        "5.6",
        &[(0x01, b"one"), (0x89, b"ping"), (0x80, b"two")],
        &[pong(b"ping"), text("onetwo"), BYE],
    );
    for (number, stray) in [("5.9", 0x80), ("5.12", 0x00)] {
        check(&server, number, &[(stray, b"non-continuation"), (TEXT, b"Hello")], &[WRONG]);
    }
    check(
        &server,
        "5.15",
        &[(0x01, b"one"), (0x80, b"two"), (0x00, b"three"), (0x81, b"four")],
        &[text("onetwo"), WRONG],
    );
    check(&server, "5.18", &[(0x01, b"one"), (0x81, b"two")], &[WRONG]);
    check(
        &server,
        "5.19",
        &[
            (0x01, b"one"),
            (0x00, b"two"),
            (0x89, b"ping1"),
            (0x00, b"three"),
            (0x00, b"four"),
            (0x89, b"ping2"),
            (0x80, b"five"),
        ],
        &[pong(b"ping1"), pong(b"ping2"), text("onetwothreefourfive"), BYE],
    );
    check(
        &server,
        "5, empty fragments",
        &[(0x02, b""), (0x00, b""), (0x80, b"")],
        &[Came::Binary(Vec::new()), BYE],
    );
}

#[test]
fn group_6_utf_8() {
    let server = server();
    let valid = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    check(&server, "6.1.1", &[(TEXT, b"")], &[text(""), BYE]);
    check(&server, "6.1.2", &[(0x01, b""), (0x00, b""), (0x80, b"")], &[text(""), BYE]);
    check(&server, "6.1.3", &[(0x01, b""), (0x00, b"middle"), (0x80, b"")], &[text("middle"), BYE]);
    check(&server, "6.2.1", &[(TEXT, valid)], &[Came::Text(valid.to_vec()), BYE]);
    for at in 1..valid.len() {
        let (left, right) = valid.split_at(at);
        check(
            &server,
            &format!("6.2 at {at}"),
            &[(0x01, left), (0x80, right)],
            &[Came::Text(valid.to_vec()), BYE],
        );
    }
    for good in [
        "κόσμε",
        "\u{0}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
    ] {
        check(&server, "6.5-6.22", &[(TEXT, good.as_bytes())], &[text(good), BYE]);
    }
    for bad in [
        // Cut off, lone continuations, impossible bytes, overlong forms, surrogates, beyond the last character.
        &b"\xce"[..],
        b"\xce\xba\xe1\xbd",
        b"\x80",
        b"\xbf\x80",
        b"\xfe",
        b"\xff\xff",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ] {
        let number = format!("6, {}", bad.escape_ascii());
        check(&server, &number, &[(TEXT, bad)], &[NOT_TEXT]);
        let (left, right) = bad.split_at(bad.len() / 2);
        check(&server, &number, &[(0x01, left), (0x80, right)], &[NOT_TEXT]);
    }
}

#[test]
fn group_6_4_what_is_no_text_is_said_before_the_message_ends() {
    let server = server();
    for (before, wrong) in [(&b"\xce\xba\xcf\x8c"[..], &b"\xf4\x90\x80\x80"[..]), (b"", b"\xed\xa0")] {
        let (mut raw, _) = Raw::open(server.http, "/ws/echo", "");
        raw.send(0x01, before);
        // A fragment that never ends, of a message that never ends.
        let mut half = frame(0x00, &[wrong, &[b'x'; 50]].concat());
        half.truncate(6 + wrong.len());
        raw.write(&half);
        assert_eq!(raw.next(), NOT_TEXT);
    }
}

#[test]
fn group_7_closing() {
    let server = server();
    let code = |code: u16| code.to_be_bytes().to_vec();
    let with = |number: u16, reason: &[u8]| [&code(number)[..], reason].concat();
    check(&server, "7.1.1", &[(TEXT, b"Hello"), (0x88, &code(1000))], &[text("Hello"), BYE]);
    check(&server, "7.1.2", &[(0x88, &code(1000)), (0x88, &code(1000))], &[BYE]);
    check(&server, "7.1.3", &[(0x88, &code(1000)), (0x89, b"late")], &[BYE]);
    check(&server, "7.1.4", &[(0x88, &code(1000)), (TEXT, b"late")], &[BYE]);
    check(&server, "7.1.5", &[(0x01, b"one"), (0x88, &code(1000)), (0x80, b"two")], &[BYE]);
    check(&server, "7.3.1", &[(0x88, b"")], &[BYE]);
    check(&server, "7.3.2", &[(0x88, b"a")], &[WRONG]);
    check(&server, "7.3.4", &[(0x88, &with(1000, b"Hello World!"))], &[BYE]);
    check(&server, "7.3.5", &[(0x88, &with(1000, &[b'*'; 123]))], &[BYE]);
    check(&server, "7.3.6", &[(0x88, &with(1000, &[b'*'; 124]))], &[WRONG]);
    check(&server, "7.5.1", &[(0x88, &with(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"))], &[NOT_TEXT]);
    for valid in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        check(&server, "7.7", &[(0x88, &code(valid))], &[Came::Close(Some(valid))]);
    }
    for invalid in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check(&server, "7.9, 7.13", &[(0x88, &code(invalid))], &[WRONG]);
    }
}

#[test]
fn group_9_sizes() {
    let server = server();
    let letters = "☃".repeat(100_000);
    check(&server, "9.1", &[(TEXT, letters.as_bytes())], &[text(&letters), BYE]);
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    check(&server, "9.2", &[(BINARY, &bytes)], &[Came::Binary(bytes.clone()), BYE]);
    for size in [64, 4096, 65_536] {
        let pieces: Vec<&[u8]> = letters.as_bytes().chunks(size).collect();
        let last = pieces.len() - 1;
        let sends: Vec<(u8, &[u8])> = pieces
            .into_iter()
            .enumerate()
            .map(|(index, piece)| (u8::from(index == 0) | if index == last { 0x80 } else { 0 }, piece))
            .collect();
        check(&server, "9.3", &sends, &[text(&letters), BYE]);
    }
    for size in [0, 16, 64, 256, 1024] {
        let message = "x".repeat(size);
        let mut sends: Vec<(u8, &[u8])> = vec![(TEXT, message.as_bytes()); 200];
        sends.extend(vec![(BINARY, message.as_bytes()); 200]);
        let mut expected = vec![text(&message); 200];
        expected.extend(vec![Came::Binary(message.clone().into_bytes()); 200]);
        expected.push(BYE);
        check(&server, "9.7, 9.8", &sends, &expected);
    }
    // 10.1: a message in frames that the receiver's buffers do not fit.
    let letters = "*".repeat(65_536);
    let sends: Vec<(u8, &[u8])> = letters
        .as_bytes()
        .chunks(1300)
        .enumerate()
        .map(|(index, piece)| (u8::from(index == 0) | if index == 50 { 0x80 } else { 0 }, piece))
        .collect();
    check(&server, "10.1", &sends, &[text(&letters), BYE]);
}

#[test]
fn a_client_masks_and_a_message_has_a_largest_size() {
    let server = Server::start(&[
        ("http.websocket_echo", "true"),
        ("limits.frame_bytes_max", "4 KiB"),
        ("limits.body_bytes_max", "2 KiB"),
        ("limits.body_bytes_before_login", "1 KiB"),
        ("limits.header_line_bytes_max", "1 KiB"),
    ]);
    check_wire(&server, "an unmasked frame", b"\x81\x05Hello", &[WRONG]);
    let fits = "x".repeat(4096);
    check(&server, "the largest message", &[(TEXT, fits.as_bytes())], &[text(&fits), BYE]);
    let too_big = Came::Close(Some(1009));
    let beyond = vec![b'x'; 4097];
    check(&server, "one byte more", &[(TEXT, &beyond)], std::slice::from_ref(&too_big));
    let (left, right) = beyond.split_at(4000);
    check(&server, "in fragments", &[(0x01, left), (0x80, right)], &[too_big]);
}

#[test]
fn the_echo_is_off_unless_it_is_wanted() {
    let server = Server::start(&[]);
    let (_, head) = Raw::open(server.http, "/ws/echo", "");
    assert!(head.starts_with("http/1.1 404 "), "{head}");
}
