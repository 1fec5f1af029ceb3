//! One protocol over every transport, and telling protocols apart.

use std::net::Shutdown;

use crate::client::{Client, send, tcp, unix};
use crate::server::Server;
use crate::websocket::Socket;

fn with_unix() -> (Server, std::path::PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sabir.sock");
    let server = Server::start(&[("listeners.unix", path.to_str().unwrap())]);
    (server, path, dir)
}

#[test]
fn a_message_crosses_from_every_transport_to_every_other() {
    let (server, path, _dir) = with_unix();
    type Open<'a> = Box<dyn Fn() -> Client + 'a>;
    let transports: [(&str, Open<'_>); 5] = [
        ("stomp", Box::new(|| Client::connect(tcp(server.stomp)))),
        ("any", Box::new(|| Client::connect(tcp(server.any)))),
        ("unix", Box::new(|| Client::connect(unix(&path)))),
        ("websocket", Box::new(|| Client::connect(Socket::open(server.http)))),
        ("websocket on any", Box::new(|| Client::connect(Socket::open(server.any)))),
    ];
    for (from, open_sender) in &transports {
        for (to, open_receiver) in &transports {
            // A queue per pair: the receiver before may not have been noticed to be gone.
            let body = format!("from {from} to {to}");
            let queue = format!("/queue/{}", body.replace(' ', "-"));
            let mut receiver = open_receiver();
            receiver.subscribe(&queue);
            let mut sender = open_sender();
            sender.send(&queue, body.as_bytes());
            let frame = receiver.frame();
            assert_eq!((frame.command.as_str(), frame.body), ("MESSAGE", body.into_bytes()));
        }
    }
}

#[test]
fn bytes_that_come_one_at_a_time_are_a_frame_like_any_other() {
    let (server, path, _dir) = with_unix();
    for mut client in [Client::new(tcp(server.stomp)), Client::new(tcp(server.any)), Client::new(unix(&path))]
    {
        for byte in b"\n\nCONNECT\naccept-version:1.2\nhost:/\n\n\0" {
            client.write(&[*byte]);
        }
        assert_eq!(client.frame().command, "CONNECTED");
        for byte in send("/queue/slowly", "receipt:r\n", b"hello") {
            client.write(&[byte]);
        }
        assert_eq!(client.frame().header("receipt-id"), Some("r"));
    }
}

#[test]
fn large_bodies_cross_whatever_their_size() {
    let server = Server::start(&[]);
    let mut sender = Client::connect(tcp(server.stomp));
    let mut receiver = Client::connect(tcp(server.stomp));
    receiver.subscribe("/queue/large");
    // Around every buffer there is: chunks, references, the scratch buffer and its half, the first owned buffer.
    for size in [1023, 1024, 16 * 1024, 128 * 1024 - 100, 128 * 1024, 256 * 1024, 1024 * 1024 + 1, 9_000_000]
    {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        sender.send("/queue/large", &body);
        assert!(receiver.frame().body == body, "{size} bytes");
    }
    // Without a content-length the end is wherever the NUL is.
    let body = vec![b'x'; 700_000];
    let mut frame = b"SEND\ndestination:/queue/large\n\n".to_vec();
    frame.extend_from_slice(&body);
    frame.push(0);
    sender.write(&frame);
    assert!(receiver.frame().body == body);
}

#[test]
fn ten_thousand_messages_arrive_once_and_in_order() {
    let server = Server::start(&[]);
    let mut receiver = Client::connect(tcp(server.stomp));
    receiver.subscribe("/queue/many");
    let address = server.stomp;
    let sender = std::thread::spawn(move || {
        let mut sender = Client::connect(tcp(address));
        for n in 0..10_000u32 {
            sender.write(&send("/queue/many", "", n.to_string().as_bytes()));
        }
        sender
    });
    for n in 0..10_000u32 {
        assert_eq!(receiver.frame().body, n.to_string().as_bytes());
    }
    drop(sender.join().unwrap());
}

#[test]
fn what_was_read_in_automatic_mode_does_not_come_again_however_fast_the_reader_leaves() {
    let server = Server::start(&[]);
    let mut sender = Client::connect(tcp(server.stomp));
    for n in 0..300u32 {
        let queue = format!("/queue/fast-{n}");
        let mut receiver = Client::connect(tcp(server.stomp));
        receiver.subscribe(&queue);
        sender.write(&send(&queue, "", b"once"));
        assert_eq!(receiver.frame().body, b"once");
        drop(receiver);
        let mut next = Client::connect(tcp(server.stomp));
        next.subscribe(&queue);
        sender.write(&send(&queue, "", b"twice"));
        // It may have gone to the one that left unnoticed; then nothing comes, and the answer to the next request does.
        next.write(b"UNSUBSCRIBE\nid:none\nreceipt:end\n\n\0");
        let frame = next.frame();
        assert_ne!(frame.body, b"once", "{}", frame.text());
    }
}

#[test]
fn a_stranger_on_the_port_for_everything_is_told_what_is_spoken() {
    let server = Server::start(&[]);
    for (bytes, expected) in [
        (&b"EHLO mail.example\r\n"[..], "speaks STOMP, MQTT and HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "looks like TLS"),
        (b"AMQP\x00\x00\x09\x01", "looks like AMQP"),
    ] {
        let mut client = Client::new(tcp(server.any));
        client.write(bytes);
        let answer = client.rest();
        assert!(answer.contains(expected), "{answer}");
    }
}

#[test]
fn a_silent_connection_is_closed_when_its_time_is_over() {
    let server = Server::start(&[("limits.connect_timeout_ms", "200")]);
    assert_eq!(Client::new(tcp(server.any)).rest(), "");
    let mut client = Client::new(tcp(server.any));
    client.write(b"CONN");
    assert_eq!(client.rest(), "");
    let mut client = Client::new(tcp(server.stomp));
    client.expect_error("connect-timeout");
}

#[test]
fn a_client_that_closes_its_direction_gets_the_answers_to_what_it_sent() {
    let server = Server::start(&[]);
    let stream = tcp(server.stomp);
    let mut client = Client::new(stream.try_clone().unwrap());
    client.write(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    assert_eq!(client.frame().command, "CONNECTED");
    client.write(&send("/queue/last", "", b"words"));
    client.write(b"DISCONNECT\nreceipt:bye\n\n\0");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.frame().header("receipt-id"), Some("bye"));
    client.expect_end();
}
