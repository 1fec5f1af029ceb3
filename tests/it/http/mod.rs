//! The HTTP paths, on their own port and on the one that speaks everything.

mod access;
mod activemq;
mod management;
mod messages;
pub(crate) mod receiver;
mod streams;
mod waiting;
pub(crate) mod web;
mod webhooks;

use std::io::{Read, Write};
use std::net::SocketAddr;

use crate::client::{Client, tcp};
use crate::server::Server;

/// Status line and all that follows, of one request on a connection of its own.
fn request(address: SocketAddr, text: &str) -> String {
    let mut stream = tcp(address);
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: SocketAddr, path: &str) -> String {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

#[test]
fn every_path_answers_on_both_ports() {
    let server = Server::start(&[]);
    for address in [server.http, server.any] {
        for (path, expected) in [
            ("/", "STOMP over WebSocket"),
            ("/healthz/live", "alive"),
            ("/healthz/ready", "ready"),
            ("/metrics", "sabir_connections "),
            ("/openapi.yaml", "openapi: 3.1.0"),
        ] {
            let answer = get(address, path);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            assert!(answer.contains(expected), "{path}: {answer}");
        }
        assert!(get(address, "/stomp").starts_with("HTTP/1.1 426 "));
        assert!(get(address, "/nothing").starts_with("HTTP/1.1 404 "));
        assert!(
            request(address, "DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .starts_with("HTTP/1.1 405 ")
        );
    }
}

#[test]
fn metrics_count_what_happens() {
    let server = Server::start(&[]);
    let mut client = Client::connect(tcp(server.stomp));
    for _ in 0..3 {
        client.send("/queue/counted", b"12345");
    }
    let page = get(server.http, "/metrics");
    for line in [
        "sabir_messages_received_total 3",
        "sabir_messages_received_bytes_total 15",
        "sabir_connections 1",
        "sabir_queue_messages_ready{queue=\"queue://counted\"} 3",
    ] {
        assert!(page.lines().any(|known| known == line), "no {line} in\n{page}");
    }
}

#[test]
fn a_body_nobody_reads_and_a_head_without_end_are_refused() {
    let server = Server::start(&[("limits.connect_timeout_ms", "300")]);
    let post = "POST /v1/queues/q/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100000000000\r\n\r\n";
    assert!(request(server.http, post).starts_with("HTTP/1.1 413 "));
    let endless = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(32 * 1024));
    assert!(request(server.http, &endless).starts_with("HTTP/1.1 431 "));
    // Half a head, then silence: the server closes, and does not wait for ever.
    let _ = request(server.http, "GET / HTTP/1.1\r\nHost:");
}
