//! Large bodies that the disk has lost, in part: what becomes of their messages, and of those behind them.

use std::io::{Read, Write};
use std::path::Path;

use crate::client::{Client, send, tcp};
use crate::http::web::Web;
use crate::large::{THRESHOLD, ack, body, same, subscribe};
use crate::server::Server;

#[test]
fn a_body_that_cannot_be_read_costs_its_own_message_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD]);
    let body = body(3_000_000, 14);
    let mut client = Client::connect(tcp(server.stomp));
    for body in [&body[..], b"behind"] {
        client.write(&send("/queue/torn", "persistent:true\nreceipt:p\n", body));
        assert_eq!(client.frame().command, "RECEIPT");
    }
    tear(dir.path());

    // So often as a message may be tried.
    for attempt in 0..7 {
        let mode = if attempt % 2 == 0 { "auto" } else { "client-individual" };
        let mut stream = tcp(server.stomp);
        let hello = format!(
            "CONNECT\naccept-version:1.2\nhost:/\n\n\0SUBSCRIBE\nid:1\ndestination:/queue/torn\nack:{mode}\n\n\0"
        );
        stream.write_all(hello.as_bytes()).unwrap();
        let mut came = Vec::new();
        stream.read_to_end(&mut came).expect("to be cut off");
        assert!(came.windows(7).any(|word| word == b"MESSAGE"), "{}", came.escape_ascii());
        assert!(came.len() < 1_001_000, "{} bytes", came.len());
    }
    let mut client = Client::connect(tcp(server.stomp));
    subscribe(&mut client, "/queue/torn", "client-individual");
    let frame = client.frame();
    same(&frame, b"behind");
    assert_eq!(frame.header("redelivered"), None, "it has never left");
    ack(&mut client, &frame, "ACK");
    let dead = Web::new(server.http).get("/v1/queues/ActiveMQ.DLQ").expect(200).json();
    assert_eq!(dead["ready"].as_u64(), Some(1), "{dead}");
    server.stop();
}

#[test]
fn a_body_that_cannot_be_read_becomes_a_dead_letter_over_http_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD]);
    let mut client = Client::connect(tcp(server.stomp));
    for body in [&body(3_000_000, 19)[..], b"behind"] {
        client.write(&send("/queue/torn", "persistent:true\nreceipt:p\n", body));
        assert_eq!(client.frame().command, "RECEIPT");
    }
    tear(dir.path());
    for _ in 0..7 {
        let mut web = tcp(server.http);
        web.write_all(b"GET /api/message/torn?type=queue HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut came = Vec::new();
        // Whether it is reset or closed is the transport's affair.
        let _ = web.read_to_end(&mut came);
        assert!(came.len() < 1_001_000, "{} bytes", came.len());
    }
    let reply = Web::new(server.http).get("/api/message/torn?type=queue").expect(200);
    assert_eq!(reply.body, b"behind");
    server.stop();
}

/// Lets the disk lose the end of the one large body there is.
fn tear(data: &Path) {
    let path = std::fs::read_dir(data.join("data/shard-0/B")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..1_000_000]).unwrap();
}
