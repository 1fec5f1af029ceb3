//! Both halves over a pair of sockets, and the handshake's rules.

use std::future::poll_fn;
use std::io::IoSlice;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::wire::MESSAGE_BYTES_MAX;
use super::*;
use crate::net::socket::Socket;

fn terms(shape: Shape, deflate: Option<Agreement>) -> Terms {
    Terms { shape, message_bytes_max: 1000, deflate }
}

/// A server's end, its writer, and the peer.
fn pair() -> (WebSocket, Box<dyn Writer>, tokio::net::UnixStream) {
    pair_with(terms(Shape::Stream, None))
}

fn pair_with(terms: Terms) -> (WebSocket, Box<dyn Writer>, tokio::net::UnixStream) {
    let (ours, theirs) = tokio::net::UnixStream::pair().expect("a pair of sockets");
    let socket = Prefixed { prefix: Bytes::new(), socket: Socket::Unix(ours) };
    let census = Arc::new(Census::new(1, None));
    let (reader, writer) = split(socket, &Bytes::new(), &terms, Instant(1), &census);
    (reader, writer, theirs)
}

#[tokio::test]
async fn a_ping_leaves_each_thirty_seconds_and_silence_after_it_is_the_end() {
    let (mut reader, _writer, mut peer) = pair();
    let second = |n: u64| Instant(n * 1_000_000);
    assert!(reader.timeout(second(29)).is_ok());
    assert_eq!(reader.next_timeout(), Instant(1).after(PING_INTERVAL));
    for (time, due) in [(31, true), (61, true), (62, false), (92, true)] {
        assert!(reader.timeout(second(time)).is_ok());
        poll_fn(|cx| reader.poll_drain(cx)).await.expect("the peer reads");
        if due {
            let mut ping = [0; 2];
            peer.read_exact(&mut ping).await.expect("a ping");
            assert_eq!(ping, [0x89, 0], "at {time} s");
        }
    }
    assert!(reader.timeout(second(97)).is_err());
}

#[tokio::test]
async fn a_peer_that_answers_pings_lives_on() {
    let (mut reader, _writer, mut peer) = pair();
    let second = |n: u64| Instant(n * 1_000_000);
    // A pong, then one byte of data, so that there is something to wait for.
    peer.write_all(&[0x8a, 0x80, 1, 2, 3, 4, 0x82, 0x81, 0, 0, 0, 0, b'x']).await.expect("room");
    let mut buf = [0; 64];
    let count = poll_fn(|cx| reader.poll_read(cx, second(60), &mut buf)).await.expect("data");
    assert_eq!(buf.get(..count), Some(&b"x"[..]));
    assert!(reader.timeout(second(154)).is_ok());
    assert!(reader.timeout(second(156)).is_err());
}

#[tokio::test]
async fn bytes_count_as_written_only_when_their_whole_frame_has_left() {
    let (_reader, mut writer, mut peer) = pair();
    let payload = vec![b'x'; 100 * MESSAGE_BYTES_MAX];
    let write = async {
        let mut rest = payload.as_slice();
        while !rest.is_empty() {
            let count = poll_fn(|cx| writer.poll_write(cx, &[IoSlice::new(rest)])).await;
            let count = count.expect("the peer reads");
            assert_eq!(count, MESSAGE_BYTES_MAX);
            rest = rest.get(count..).unwrap_or_default();
        }
    };
    let read = async {
        let mut wire = vec![0; payload.len() + 100 * enframe::SEAL_BYTES];
        peer.read_exact(&mut wire).await.expect("all of it");
    };
    tokio::join!(write, read);
}

const STOMP: [&str; 4] = ["v12.stomp", "v11.stomp", "v10.stomp", "stomp"];

#[test]
fn the_key_is_answered_as_in_the_standards_example() {
    assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ==").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for bad in ["", "dGhlIHNhbXBsZQ==", "no base64 at all!!!!!!!!", "dGhlIHNhbXBsZSBub25jZSBpcyBsb25n"] {
        assert_eq!(accept_key(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn exactly_one_offered_subprotocol_is_chosen_and_none_where_none_was_offered() {
    let choose = |offers: &[&str]| choose_subprotocol(offers.iter().copied(), &STOMP);
    assert_eq!(choose(&["v10.stomp, v11.stomp,v12.stomp"]), Subprotocol::Chosen("v12.stomp"));
    assert_eq!(choose(&["v10.stomp", "v11.stomp"]), Subprotocol::Chosen("v11.stomp"));
    assert_eq!(choose(&["mqtt, stomp"]), Subprotocol::Chosen("stomp"));
    assert_eq!(choose(&[]), Subprotocol::None);
    assert_eq!(choose(&[" "]), Subprotocol::None);
    assert_eq!(choose(&["mqtt"]), Subprotocol::Unknown);
}

#[test]
fn a_page_of_another_origin_must_be_listed() {
    let listed = |origin: &str| origin == "https://app.example";
    let allowed = |origin, host| origin_allowed(origin, host, false, listed);
    assert!(allowed(None, Some("broker:8161")));
    assert!(allowed(Some("http://broker:8161"), Some("broker:8161")));
    assert!(allowed(Some("https://app.example"), Some("broker:8161")));
    assert!(!allowed(Some("https://evil.example"), Some("broker:8161")));
    assert!(!allowed(Some("http://broker:9999"), Some("broker:8161")));
    assert!(!allowed(Some("null"), Some("broker:8161")));
    assert!(!allowed(Some("null"), None));
    assert!(origin_allowed(Some("https://evil.example"), None, true, |_| true));
}

#[test]
fn a_foreign_name_that_resolves_to_loopback_lets_no_page_in() {
    let local = |host: &str| origin_allowed(Some(&format!("http://{host}")), Some(host), true, |_| false);
    for own in ["localhost:8161", "127.0.0.1:8161", "[::1]:8161", "LOCALHOST"] {
        assert!(local(own), "{own}");
    }
    for foreign in ["rebound.example:8161", "127.0.0.1.example", "localhost.example"] {
        assert!(!local(foreign), "{foreign}");
    }
}

/// What `writer` puts on the wire for these slices, given to it together and again until all is taken.
async fn written(writer: &mut dyn Writer, peer: &mut tokio::net::UnixStream, slices: &[&[u8]]) -> Vec<u8> {
    let mut rest = slices.concat();
    while !rest.is_empty() {
        let count =
            poll_fn(|cx| writer.poll_write(cx, &[IoSlice::new(&rest)])).await.expect("the peer reads");
        assert!(count > 0);
        rest.drain(..count);
    }
    let mut wire = vec![0; 1 << 20];
    peer.readable().await.expect("something was written");
    let count = peer.try_read(&mut wire).expect("something was written");
    wire.truncate(count);
    wire
}

#[tokio::test]
async fn each_line_of_a_protocol_of_lines_is_one_text_message_without_its_end() {
    let (_reader, mut writer, mut peer) = pair_with(terms(Shape::Lines, None));
    let wire = written(&mut *writer, &mut peer, &[b"{\"a\":1}\n{}\n\n", b"[]\n"]).await;
    assert_eq!(wire, b"\x81\x07{\"a\":1}\x81\x02{}\x81\x02[]");
}

#[tokio::test]
async fn a_line_longer_than_one_write_is_one_message_in_fragments() {
    let (mut reader, mut writer, mut peer) = pair_with(terms(Shape::Lines, None));
    let line = [vec![b'x'; MESSAGE_BYTES_MAX + 5], b"\nnext\n".to_vec()].concat();
    let mut rest = line.as_slice();
    let mut first = true;
    while !rest.is_empty() {
        let count = poll_fn(|cx| writer.poll_write(cx, &[IoSlice::new(rest)])).await.expect("room");
        rest = rest.get(count..).unwrap_or_default();
        if std::mem::take(&mut first) {
            // A control frame may stand between fragments.
            reader.wire.lock().control(enframe::ping);
            poll_fn(|cx| reader.poll_drain(cx)).await.expect("room");
        }
    }
    let mut wire = vec![0; line.len() + 16];
    peer.read_exact(wire.get_mut(..4 + MESSAGE_BYTES_MAX).expect("it is larger")).await.expect("a fragment");
    assert_eq!(wire.get(..4), Some(&[0x01, 126, 0x80, 0][..]));
    let mut end = [0; 2 + 2 + 5 + 2 + 4];
    peer.read_exact(&mut end).await.expect("the rest");
    assert_eq!(&end, b"\x89\x00\x80\x05xxxxx\x81\x04next");
}

#[tokio::test]
async fn whoever_fills_the_outbox_writes_at_once_and_the_owner_finishes_what_does_not_fit() {
    let (_reader, mut writer, mut peer) = pair();
    let payload = vec![b'x'; MESSAGE_BYTES_MAX];
    let mut whole = 0;
    let stuck = loop {
        match writer.try_write(&[IoSlice::new(&payload)]) {
            Ok(count) => whole += count,
            Err(error) => break error,
        }
        assert!(whole < 1 << 26, "a socket takes no more than so much");
    };
    assert_eq!(stuck.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(whole % MESSAGE_BYTES_MAX, 0, "frames count when they are whole");
    let finish = poll_fn(|cx| writer.poll_write(cx, &[IoSlice::new(&payload)]));
    let read = async {
        let mut wire = vec![0; (whole / MESSAGE_BYTES_MAX + 1) * (MESSAGE_BYTES_MAX + enframe::SEAL_BYTES)];
        peer.read_exact(&mut wire).await.expect("all of it");
    };
    let (finished, ()) = tokio::join!(finish, read);
    assert_eq!(finished.expect("the peer reads"), MESSAGE_BYTES_MAX);
}

#[tokio::test]
async fn nothing_follows_the_closing_frame() {
    let (mut reader, mut writer, mut peer) = pair();
    reader.say_close(deframe::CLOSE_NORMAL, "");
    assert!(poll_fn(|cx| writer.poll_write(cx, &[IoSlice::new(b"late")])).await.is_err());
    reader.wire.lock().control(enframe::ping);
    poll_fn(|cx| reader.poll_drain(cx)).await.expect("room");
    drop((reader, writer));
    let mut wire = Vec::new();
    peer.read_to_end(&mut wire).await.expect("the end");
    assert_eq!(wire, [0x88, 2, 0x03, 0xe8]);
}

fn agreement() -> Agreement {
    deflate::negotiate(std::iter::once("permessage-deflate")).expect("it can be kept")
}

/// A frame as a client sends it, with a mask of zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short @ ..126) => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn a_compressed_message_is_bounded_by_what_it_inflates_to() {
    for (length, fits) in [(1000, true), (1001, false), (60_000, false)] {
        let (mut reader, _writer, mut peer) = pair_with(terms(Shape::Stream, Some(agreement())));
        let small = deflate::deflate(&vec![b'x'; length], agreement()).expect("it shrinks");
        peer.write_all(&masked(0xc2, &small)).await.expect("room");
        peer.shutdown().await.expect("an end");
        let mut buf = [0; 64];
        let mut got = 0;
        let end = loop {
            match poll_fn(|cx| reader.poll_read(cx, Instant(2), &mut buf)).await {
                Ok(0) => break Ok(()),
                Ok(count) => got += count,
                Err(error) => break Err(error.kind()),
            }
        };
        assert_eq!(end, if fits { Ok(()) } else { Err(io::ErrorKind::InvalidData) }, "{length}");
        assert!(if fits { got == length } else { got <= 1000 }, "{got} of {length}");
        assert_eq!(reader.bad.map(|bad| bad.code), (!fits).then_some(1009));
    }
}

#[tokio::test]
async fn a_compressed_text_is_checked_as_what_it_inflates_to() {
    for (text, fine) in [("žluťoučký kůň ".repeat(40), true), ("\u{fffd}".repeat(200), true)] {
        let mut bytes = text.into_bytes();
        for broken in [false, true] {
            if broken {
                bytes.pop();
                bytes.push(0xc5);
            }
            let (mut reader, _writer, mut peer) = pair_with(terms(Shape::Stream, Some(agreement())));
            let small = deflate::deflate(&bytes, agreement()).expect("it shrinks");
            // In two fragments, with a ping between them.
            let (left, right) = small.split_at(5);
            let wire = [masked(0x41, left), masked(0x89, b"?"), masked(0x80, right)].concat();
            peer.write_all(&wire).await.expect("room");
            peer.shutdown().await.expect("an end");
            let mut buf = [0; 7];
            let end = loop {
                match poll_fn(|cx| reader.poll_read(cx, Instant(2), &mut buf)).await {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
            assert_eq!(end, fine && !broken);
            assert_eq!(reader.bad.map(|bad| bad.code), broken.then_some(1007));
        }
    }
}

#[tokio::test]
async fn between_messages_a_compressed_connection_keeps_nothing() {
    let (mut reader, _writer, mut peer) = pair_with(terms(Shape::Stream, Some(agreement())));
    let small = deflate::deflate(&[b'x'; 900], agreement()).expect("it shrinks");
    peer.write_all(&masked(0xc2, &small)).await.expect("room");
    let mut buf = [0; 2000];
    let count = poll_fn(|cx| reader.poll_read(cx, Instant(2), &mut buf)).await.expect("data");
    assert_eq!(count, 900);
    let idle = poll_fn(|cx| Poll::Ready(reader.poll_read(cx, Instant(2), &mut buf).is_pending())).await;
    assert!(idle);
    assert!(reader.inbox.expect("it is compressed").is_empty());
}

#[test]
fn a_peek_shows_the_first_data_and_keeps_nothing() {
    let wire = [masked(0x01, b"CON"), masked(0x89, b""), masked(0x80, b"NECT"), masked(0x88, b"")].concat();
    let terms = terms(Shape::Stream, None);
    let mut out = [0; 7];
    // With the room used up nothing behind it is looked at.
    assert_eq!(peek(&wire, &terms, &mut out), Some(&b"CONNECT"[..]));
    let mut out = [0; 70];
    assert_eq!(peek(&wire, &terms, &mut out), None);
    assert_eq!(peek(wire.get(..20).unwrap_or_default(), &terms, &mut out), Some(&b"CON"[..]));
    assert_eq!(peek(b"\x81\x01x", &terms, &mut out), None, "it is not masked");
}
