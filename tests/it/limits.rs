//! Limits hold, are told, and harm only who exceeds them.

use std::io::Read;

use crate::client::{Client, send, tcp};
use crate::server::Server;
use crate::websocket::handshake;

#[test]
fn a_frame_over_the_limit_gets_its_error_and_not_a_reset() {
    let server = Server::start(&[
        ("limits.frame_bytes_max", "64 KiB"),
        ("limits.body_bytes_max", "32 KiB"),
        ("limits.body_bytes_before_login", "8 KiB"),
    ]);
    let mut other = Client::connect(tcp(server.stomp));
    let mut client = Client::connect(tcp(server.stomp));
    // The rest of the body is on its way while the error comes back.
    let _ = client.try_write(&send("/queue/big", "", &vec![b'x'; 3_000_000]));
    client.expect_error("too-large");
    other.send("/queue/big", b"small");
}

#[test]
fn one_connection_too_many_is_told_so_in_its_own_protocol() {
    let server = Server::start(&[("limits.connections_max", "2")]);
    let first = Client::connect(tcp(server.stomp));
    let _second = Client::connect(tcp(server.stomp));
    let mut third = Client::new(tcp(server.stomp));
    third.write(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    third.expect_error("limit-reached");
    let mut any = Client::new(tcp(server.any));
    any.write(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    any.expect_error("limit-reached");
    let (_, head) = handshake(server.http, "");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    drop(first);
    // The place is free as soon as the server has noticed.
    loop {
        let mut next = Client::new(tcp(server.stomp));
        next.write(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
        if next.frame().command == "CONNECTED" {
            break;
        }
    }
}

#[test]
fn one_address_may_not_take_every_place() {
    let server = Server::start(&[("limits.connections_per_address_max", "1")]);
    let _first = Client::connect(tcp(server.stomp));
    let mut second = Client::new(tcp(server.stomp));
    second.write(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0");
    second.expect_error("connections_per_address_max");
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_off_and_the_others_get_everything() {
    let server = Server::start(&[
        ("limits.write_stall_ms", "500"),
        ("limits.outbox_bytes_soft", "64 KiB"),
        ("limits.outbox_bytes_hard", "256 KiB"),
    ]);
    let stuck = tcp(server.stomp);
    let mut stuck_client = Client::connect(stuck.try_clone().unwrap());
    stuck_client.subscribe("/topic/flood");
    let mut reader = Client::connect(tcp(server.stomp));
    reader.subscribe("/topic/flood");
    let mut sender = Client::connect(tcp(server.stomp));
    let body = vec![b'x'; 64 * 1024];
    for n in 0..400u32 {
        let mut body = body.clone();
        body.extend_from_slice(n.to_string().as_bytes());
        // One at a time, so that the reader never falls behind by its own fault.
        sender.send("/topic/flood", &body);
        assert!(reader.frame().body == body, "message {n}");
    }
    server.wait_for_line("connection cut off");
    // What the kernel holds can still be read, then the stream is over.
    let mut stuck = stuck;
    let mut sink = vec![0; 1 << 20];
    while matches!(stuck.read(&mut sink), Ok(count) if count > 0) {}
    sender.send("/topic/flood", b"after");
    assert_eq!(reader.frame().body, b"after");
}

#[test]
fn a_message_larger_than_what_may_wait_reaches_everybody_who_reads() {
    let server =
        Server::start(&[("limits.outbox_bytes_soft", "64 KiB"), ("limits.outbox_bytes_hard", "256 KiB")]);
    let mut sender = Client::connect(tcp(server.stomp));
    let mut reader = Client::connect(tcp(server.stomp));
    for destination in ["/queue/large", "/topic/large"] {
        reader.subscribe(destination);
        // More than the sockets' own buffers hold, so that the rest waits in the outbox.
        for n in 0..2u8 {
            sender.send(destination, &vec![n; 12 << 20]);
        }
        for n in 0..2u8 {
            assert!(reader.frame().body == vec![n; 12 << 20], "message {n} from {destination}");
        }
    }
}

#[test]
fn a_thousand_idle_connections_stay_and_serve() {
    let server = Server::start(&[]);
    let mut clients: Vec<Client> = (0..1000).map(|_| Client::connect(tcp(server.stomp))).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        if n % 50 == 0 {
            client.send("/queue/idle", n.to_string().as_bytes());
        }
    }
    let mut receiver = Client::connect(tcp(server.stomp));
    receiver.subscribe("/queue/idle");
    for n in (0..1000).step_by(50) {
        assert_eq!(receiver.frame().body, n.to_string().as_bytes());
    }
}

/// Prints what an idle connection costs:
/// `SABIR_BINARY=target/release/sabir cargo test --test it -- --ignored --nocapture what_an_idle`.
#[test]
#[ignore = "a measurement, not a check"]
fn what_an_idle_connection_costs() {
    let server = Server::start(&[]);
    eprintln!("idle: {} KiB", server.resident_bytes() / 1024);
    // What the first connections bring up is not their cost.
    let mut clients: Vec<Client> = (0..1000).map(|_| Client::connect(tcp(server.stomp))).collect();
    std::thread::sleep(std::time::Duration::from_secs(4));
    let before = server.resident_bytes();
    clients.extend((0..9000).map(|_| Client::connect(tcp(server.stomp))));
    std::thread::sleep(std::time::Duration::from_secs(4));
    let after = server.resident_bytes();
    eprintln!("10,000 connections: {} KiB, {} bytes each", after / 1024, after.saturating_sub(before) / 9000);
    drop(clients);
    std::thread::sleep(std::time::Duration::from_secs(6));
    eprintln!("after they left: {} KiB", server.resident_bytes() / 1024);
}
