//! Connections: too many, too quiet, and none left for them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{STOMP_CONNECT, Stop, metric, page, until};
use crate::client::{Client, tcp};
use crate::server::Server;

/// Waits until the server ends a connection, whatever it says before.
fn wait_for_end(mut stream: TcpStream) {
    let mut sink = [0; 1024];
    while matches!(stream.read(&mut sink), Ok(count) if count > 0) {}
}

#[test]
fn without_descriptors_connections_are_closed_at_once_and_later_ones_are_served() {
    let server = Server::start(&[]);
    let mut old = Client::connect(tcp(server.stomp));
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    let used = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    let before = getrlimit(Resource::Nofile);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(used + 4), ..before }).unwrap();
    let mut served = Vec::new();
    let mut closed = 0;
    while closed < 200 {
        let mut stream = tcp(server.stomp);
        let mut answer = [0; 9];
        let told = stream.write_all(STOMP_CONNECT).and_then(|()| stream.read_exact(&mut answer));
        match told {
            Ok(()) => served.push(stream),
            Err(_) => closed += 1,
        }
    }
    assert!(served.len() <= 8, "{}", served.len());
    old.send("/queue/q", b"who is in is served");
    drop(served);
    prlimit(pid, Resource::Nofile, before).unwrap();
    let page = loop {
        let page = page(&server);
        if metric(&page, "sabir_connections") == 1 {
            break page;
        }
    };
    assert!(metric(&page, "sabir_sockets_refused_total{reason=\"descriptors\"}") >= 190, "{page}");
    let mut late = Client::connect(tcp(server.stomp));
    late.send("/queue/q", b"and so is who comes later");
    // Said, and not two hundred times.
    server.wait_for_line("cannot accept connections at the moment");
}

#[test]
fn connections_that_say_nothing_or_next_to_nothing_keep_nobody_out() {
    let server = Server::start(&[("limits.connections_max", "40"), ("limits.connect_timeout_ms", "300")]);
    let stop = AtomicBool::new(false);
    let ended = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        // Each of these takes a place for as long as it may, and comes back at once.
        for number in 0..60 {
            let (address, opening): (_, &[u8]) = match number % 6 {
                0 => (server.stomp, b""),
                1 => (server.mqtt, b""),
                2 => (server.any, b""),
                3 => (server.http, b""),
                4 => (server.stomp, b"CONN"),
                _ => (server.http, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "),
            };
            let (stop, ended) = (&stop, &ended);
            scope.spawn(move || {
                until(stop, || {
                    let mut stream = tcp(address);
                    let _ = stream.write_all(opening);
                    wait_for_end(stream);
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            });
        }
        let mut let_in = Vec::new();
        // Turned away means tried again, and in the end each of these is served.
        while let_in.len() < 20 || ended.load(Ordering::Relaxed) < 300 {
            let mut client = Client::new(tcp(server.stomp));
            let _ = client.try_write(STOMP_CONNECT);
            if matches!(client.try_frame(), Ok(Some(frame)) if frame.command == "CONNECTED") {
                client.send("/queue/q", b"x");
                let_in.push(client);
            }
        }
    });
    let page = loop {
        let page = page(&server);
        if metric(&page, "sabir_sockets") <= 1 {
            break page;
        }
    };
    let silent = metric(&page, "sabir_sockets_refused_total{reason=\"silent\"}")
        + metric(&page, "sabir_protocol_errors_total{code=\"connect-timeout\"}");
    assert!(silent > 0, "{page}");
    assert!(metric(&page, "sabir_sockets_refused_total{reason=\"connections\"}") > 0, "{page}");
    assert!(metric(&page, "sabir_queue_messages_ready{queue=\"queue://q\"}") >= 20);
}
