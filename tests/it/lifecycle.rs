//! Stopping: in good order, at once, and what is there after the next start.

use rustix::process::Signal;

use crate::client::{Client, send, tcp};
use crate::server::Server;

#[test]
fn a_stop_tells_every_client_and_ends_with_status_zero() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    client.write(&send("/queue/kept", "persistent:true\nreceipt:r\n", b"survives"));
    assert_eq!(client.frame().command, "RECEIPT");
    let idle_http = tcp(server.http);
    server.signal(Signal::TERM);
    client.expect_error("shutting-down");
    assert_eq!(server.wait().code(), Some(0));
    drop(idle_http);

    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    client.subscribe("/queue/kept");
    assert_eq!(client.frame().body, b"survives");
    server.stop();
}

#[test]
fn an_interrupt_stops_like_a_terminate() {
    let server = Server::start(&[]);
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = Server::start(&[("server.drain_timeout_ms", "600000")]);
    // A peer that does not read holds the drain up.
    let mut stuck = Client::connect(tcp(server.stomp));
    stuck.subscribe("/topic/stuck");
    let mut sender = Client::connect(tcp(server.stomp));
    for _ in 0..200 {
        sender.send("/topic/stuck", &vec![b'x'; 64 * 1024]);
    }
    server.signal(Signal::TERM);
    server.wait_for_line("stopping");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(143));
}

#[test]
fn connections_that_do_not_leave_in_time_are_cut_off() {
    let server = Server::start(&[("server.drain_timeout_ms", "100")]);
    let mut stuck = Client::connect(tcp(server.stomp));
    stuck.subscribe("/topic/stuck");
    let mut sender = Client::connect(tcp(server.stomp));
    for _ in 0..200 {
        sender.send("/topic/stuck", &vec![b'x'; 64 * 1024]);
    }
    server.stop();
}

#[test]
fn what_was_receipted_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    for n in 0..100 {
        client.write(&send("/queue/durable", "persistent:true\nreceipt:r\n", n.to_string().as_bytes()));
        assert_eq!(client.frame().command, "RECEIPT");
    }
    server.signal(Signal::KILL);
    assert_eq!(server.wait().code(), None);

    let server = Server::start_in(dir.path(), &[]);
    let mut client = Client::connect(tcp(server.stomp));
    client.subscribe("/queue/durable");
    for n in 0..100 {
        assert_eq!(client.frame().body, n.to_string().as_bytes());
    }
}
