//! Large bodies: taken in, kept and handed out in pieces, whoever sends and whoever receives.

use std::io::{Read, Write};
use std::path::Path;

use sabir_mqtt::Version;

use crate::client::{Client, Frame, send, tcp};
use crate::crossing::parties::{Mqtt, Publication, now_ms};
use crate::http::web::Web;
use crate::server::Server;
use crate::websocket::Socket;

/// Bodies from here on are large.
pub(crate) const THRESHOLD: (&str, &str) = ("limits.blob_bytes_min", "16 KiB");

/// The log looks often what is not needed any more.
pub(crate) const OFTEN: (&str, &str) = ("store.checkpoint_interval_ms", "200");

/// A body of which no two parts are alike.
pub(crate) fn body(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Files of large bodies in a data directory.
pub(crate) fn files(data: &Path) -> usize {
    std::fs::read_dir(data.join("data/shard-0/B")).map_or(0, |entries| entries.count())
}

pub(crate) fn await_files(server: &Server, data: &Path, wanted: usize) {
    let mut web = Web::new(server.http);
    for _ in 0..20_000 {
        if files(data) == wanted {
            return;
        }
        web.get("/healthz/live").expect(200);
    }
    panic!("{} files of large bodies, not {wanted}", files(data));
}

pub(crate) fn subscribe(client: &mut Client, destination: &str, ack: &str) {
    client
        .write(format!("SUBSCRIBE\nid:1\ndestination:{destination}\nack:{ack}\nreceipt:s\n\n\0").as_bytes());
    assert_eq!(client.frame().command, "RECEIPT");
}

pub(crate) fn ack(client: &mut Client, frame: &Frame, command: &str) {
    let id = frame.header("ack").unwrap();
    client.write(format!("{command}\nid:{id}\nreceipt:a\n\n\0").as_bytes());
    let frame = client.frame();
    assert_eq!(frame.command, "RECEIPT", "{}", frame.text());
}

pub(crate) fn same(frame: &Frame, body: &[u8]) {
    assert_eq!(frame.command, "MESSAGE", "{:?}", frame.headers);
    assert_eq!(frame.header("content-length").unwrap(), body.len().to_string());
    assert!(frame.body == body, "the body is another one");
}

#[test]
fn a_large_message_goes_from_every_protocol_to_every_other() {
    let server = Server::start(&[THRESHOLD]);
    let body = body(5_000_003, 1);
    let mut stomp = Client::connect(tcp(server.stomp));
    subscribe(&mut stomp, "/topic/all", "auto");
    let mut web = Client::connect(Socket::open(server.http));
    subscribe(&mut web, "/topic/all", "auto");
    let mut mqtt = Mqtt::open(server.mqtt, Version::V5);
    mqtt.subscribe("all");
    let mut old = Mqtt::open(server.any, Version::V311);
    old.subscribe("all");

    let sends: [(&str, &dyn Fn()); 4] = [
        ("STOMP", &|| Client::connect(tcp(server.stomp)).send("/topic/all", &body)),
        ("STOMP over WebSocket", &|| Client::connect(Socket::open(server.http)).send("/topic/all", &body)),
        ("MQTT", &|| Mqtt::open(server.mqtt, Version::V5).publish("all", &Publication::new(&body).qos(1))),
        ("HTTP", &|| {
            Web::new(server.http).post("/v1/topics/all/messages?raw=true", &body).expect(201);
        }),
    ];
    for (what, send) in sends {
        send();
        same(&stomp.frame(), &body);
        same(&web.frame(), &body);
        assert!(mqtt.take().message.body == body, "{what} to MQTT 5");
        assert!(old.take().message.body == body, "{what} to MQTT 3");
        Client::connect(tcp(server.stomp)).send("/queue/pulled", &body);
        let reply = Web::new(server.http).get("/api/message/pulled?type=queue").expect(200);
        assert!(reply.body == body, "STOMP to HTTP");
    }
}

#[test]
fn a_body_of_unknown_length_over_http_turns_out_to_be_large() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    let body = body(700_001, 12);
    let mut text = "gr\u{fc}n ".repeat(20_000).into_bytes();
    text.truncate(100_000);
    for (path, media, body) in [
        ("/v1/queues/chunked/messages", "application/octet-stream", &body),
        ("/v1/queues/chunked/messages", "text/plain; charset=utf-8", &text),
        ("/api/message/chunked?type=queue", "text/plain", &body),
        ("/api/message/chunked?type=queue", "text/plain", &text),
    ] {
        let mut web = tcp(server.http);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-Prop-n: 1\r\nContent-Type: {media}\r\n\r\n"
        );
        web.write_all(head.as_bytes()).unwrap();
        for chunk in body.chunks(7_777) {
            web.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).unwrap();
            web.write_all(chunk).unwrap();
            web.write_all(b"\r\n").unwrap();
        }
        web.write_all(b"0\r\n\r\n").unwrap();
        let mut answer = [0; 10];
        web.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 2");
        assert_eq!(files(dir.path()), 1);
        let mut client = Client::connect(tcp(server.stomp));
        subscribe(&mut client, "/queue/chunked", "auto");
        let frame = client.frame();
        same(&frame, body);
        assert_eq!(frame.header("n"), Some("1"));
        await_files(&server, dir.path(), 0);
    }
    server.stop();
}

#[test]
fn a_large_message_with_an_idempotency_key_is_sent_once() {
    let server = Server::start(&[THRESHOLD]);
    let body = body(300_000, 13);
    let mut web = Web::new(server.http);
    let target = "/v1/queues/once/messages?raw=true";
    let first = web.send("POST", target, "Idempotency-Key: k\r\n", &body).expect(201).text();
    let again = web.send("POST", target, "Idempotency-Key: k\r\n", &body).expect(201).text();
    assert_eq!(first, again);
    web.send("POST", target, "Idempotency-Key: k\r\n", &body[1..]).expect(422);
    let queue = web.get("/v1/queues/once").expect(200).json();
    assert_eq!(queue["ready"].as_u64(), Some(1), "{queue}");
}

#[test]
fn what_must_be_whole_is_shown_whole_as_long_as_it_is_no_larger_than_a_frame() {
    let server = Server::start(&[THRESHOLD, ("limits.frame_bytes_max", "256 KiB")]);
    let (fits, exceeds) = ("y".repeat(200_000), "z".repeat(300_000));
    let mut client = Client::connect(tcp(server.stomp));
    for body in [&fits, &fits, &exceeds] {
        client.write(&send("/queue/whole", "receipt:p\ncontent-type:text/plain\n", body.as_bytes()));
        assert_eq!(client.frame().command, "RECEIPT");
    }
    let mut web = Web::new(server.http);
    // Two do not go into one reply.
    for most in [2, 1] {
        let reply = web.post(&format!("/v1/queues/whole/pull?max={most}"), b"").expect(200).json();
        let messages = reply["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 1);
        assert!(messages[0]["body"].as_str() == Some(&fits));
        let lease = messages[0]["lease"].as_str().unwrap();
        web.post(&format!("/v1/leases/{lease}/ack"), b"").expect(204);
    }
    let reply = web.post("/v1/queues/whole/pull?max=2", b"").expect(200).json();
    let message = &reply["messages"][0];
    assert_eq!(
        (message["bodyBytes"].as_u64(), message["bodyTruncated"].as_bool()),
        (Some(300_000), Some(true))
    );
    assert!(message["body"].as_str().unwrap().starts_with("zzz"));
    let lease = message["lease"].as_str().unwrap();
    let whole = web.get(&format!("/v1/leases/{lease}/body")).expect(200);
    assert!(whole.body == exceeds.as_bytes());
    assert_eq!(whole.header("content-type"), Some("text/plain"));
    web.post(&format!("/v1/leases/{lease}/ack"), b"").expect(204);
    web.get(&format!("/v1/leases/{lease}/body")).problem(404);
}

#[test]
fn a_large_message_survives_a_restart_and_its_file_goes_when_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let body = body(3_000_000, 2);
    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    let mut client = Client::connect(tcp(server.stomp));
    client.write(&send("/queue/kept", "persistent:true\nreceipt:p\nnumber:7\n", &body));
    assert_eq!(client.frame().command, "RECEIPT");
    client.write(&send("/queue/kept", "persistent:true\nreceipt:p\n", b"small"));
    assert_eq!(client.frame().command, "RECEIPT");
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    assert_eq!(files(dir.path()), 1);

    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    let mut client = Client::connect(tcp(server.stomp));
    subscribe(&mut client, "/queue/kept", "client-individual");
    let frame = client.frame();
    same(&frame, &body);
    assert_eq!(frame.header("number"), Some("7"));
    let second = client.frame();
    same(&second, b"small");
    ack(&mut client, &frame, "ACK");
    ack(&mut client, &second, "ACK");
    await_files(&server, dir.path(), 0);
    server.stop();
}

#[test]
fn who_never_acknowledges_leaves_it_to_the_next() {
    let server = Server::start(&[THRESHOLD]);
    let body = body(2_000_000, 3);
    Client::connect(tcp(server.stomp)).send("/queue/again", &body);
    for attempt in 0..3 {
        let mut client = Client::connect(tcp(server.stomp));
        subscribe(&mut client, "/queue/again", "client");
        let frame = client.frame();
        same(&frame, &body);
        assert_eq!(frame.header("redelivered").is_some(), attempt > 0);
    }
}

#[test]
fn who_goes_away_amid_the_body_leaves_the_message_to_the_next() {
    let server = Server::start(&[THRESHOLD]);
    let body = body(20_000_000, 4);
    Client::connect(tcp(server.stomp)).send("/queue/half", &body);
    let mut stream = tcp(server.stomp);
    stream
        .write_all(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0SUBSCRIBE\nid:1\ndestination:/queue/half\n\n\0")
        .unwrap();
    let mut some = vec![0; 1_000_000];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    let mut client = Client::connect(tcp(server.stomp));
    subscribe(&mut client, "/queue/half", "auto");
    same(&client.frame(), &body);
}

#[test]
fn a_sender_that_dies_amid_the_body_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    let mut stomp = tcp(server.stomp);
    stomp.write_all(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").unwrap();
    stomp.write_all(b"SEND\ndestination:/queue/none\ncontent-length:9000000\n\n").unwrap();
    stomp.write_all(&body(5_000_000, 5)).unwrap();
    let mut web = tcp(server.http);
    web.write_all(
        b"POST /v1/queues/none/messages?raw=true HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n",
    )
    .unwrap();
    web.write_all(&body(5_000_000, 6)).unwrap();
    // Both have begun files.
    await_files(&server, dir.path(), 2);
    drop((stomp, web));
    await_files(&server, dir.path(), 0);
    let mut client = Client::connect(tcp(server.stomp));
    client.send("/queue/none", b"after");
    subscribe(&mut client, "/queue/none", "auto");
    same(&client.frame(), b"after");
    server.stop();
}

#[test]
fn a_transaction_holds_large_messages_until_its_commit_and_forgets_them_when_it_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Server::start_in(dir.path(), &[THRESHOLD, OFTEN, ("limits.transaction_bytes_max", "64 KiB")]);
    let (first, second) = (body(1_000_000, 7), body(1_000_000, 8));
    let mut client = Client::connect(tcp(server.stomp));
    client.write(b"BEGIN\ntransaction:no\n\n\0");
    client.write(&send("/queue/tx", "transaction:no\npersistent:true\nreceipt:1\n", &first));
    assert_eq!(client.frame().command, "RECEIPT");
    client.write(b"ABORT\ntransaction:no\nreceipt:2\n\n\0");
    assert_eq!(client.frame().command, "RECEIPT");
    await_files(&server, dir.path(), 0);
    client.write(b"BEGIN\ntransaction:yes\n\n\0");
    for body in [&first, &second] {
        client.write(&send("/queue/tx", "transaction:yes\npersistent:true\n", body));
    }
    client.write(b"COMMIT\ntransaction:yes\nreceipt:3\n\n\0");
    assert_eq!(client.frame().command, "RECEIPT");
    subscribe(&mut client, "/queue/tx", "auto");
    same(&client.frame(), &first);
    same(&client.frame(), &second);
    await_files(&server, dir.path(), 0);
    server.stop();
}

#[test]
fn a_large_dead_letter_is_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    let body = body(1_500_000, 9);
    let mut client = Client::connect(tcp(server.stomp));
    client.write(&send("/queue/bad", "persistent:true\nreceipt:p\n", &body));
    assert_eq!(client.frame().command, "RECEIPT");
    subscribe(&mut client, "/queue/bad", "client-individual");
    let frame = client.frame();
    client.write(
        format!("NACK\nid:{}\nrequeue:false\nreceipt:n\n\n\0", frame.header("ack").unwrap()).as_bytes(),
    );
    assert_eq!(client.frame().command, "RECEIPT");
    let mut other = Client::connect(tcp(server.stomp));
    subscribe(&mut other, "/queue/ActiveMQ.DLQ", "client-individual");
    let frame = other.frame();
    same(&frame, &body);
    assert_eq!(files(dir.path()), 1);
    ack(&mut other, &frame, "ACK");
    await_files(&server, dir.path(), 0);
    server.stop();
}

#[test]
fn a_stomp_body_without_a_length_is_large_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN, ("limits.body_bytes_max", "4 MiB")]);
    let text = "gr\u{fc}n ".repeat(500_000).into_bytes();
    let mut client = Client::connect(tcp(server.stomp));
    for rest in ["", "\n"] {
        client.write(b"SEND\ndestination:/queue/unsized\nreceipt:p\nn:1\n\n");
        client.write(&text);
        client.write(b"\0");
        client.write(rest.as_bytes());
        assert_eq!(client.frame().command, "RECEIPT");
        assert_eq!(files(dir.path()), 1);
        let mut reader = Client::connect(tcp(server.stomp));
        subscribe(&mut reader, "/queue/unsized", "auto");
        let frame = reader.frame();
        same(&frame, &text);
        assert_eq!(frame.header("n"), Some("1"));
        await_files(&server, dir.path(), 0);
    }
    client.write(b"SEND\ndestination:/queue/unsized\n\n");
    // It may hang up before it has all of it.
    let _ = client.try_write(&vec![b'x'; 5 << 20]);
    client.expect_error("too-large");
    await_files(&server, dir.path(), 0);
    server.stop();
}

#[test]
fn a_large_last_value_is_kept_until_another_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    let (first, second) = (body(400_000, 15), body(500_000, 16));
    for body in [&first, &second] {
        let message = Publication::new(body).qos(1).retain();
        Mqtt::open(server.mqtt, Version::V5).publish("state", &message);
        let arrival = Mqtt::open(server.mqtt, Version::V311).subscribe_and_take("state");
        assert!(arrival.message.body == *body && arrival.message.retain);
    }
    await_files(&server, dir.path(), 1);
    server.signal(rustix::process::Signal::KILL);
    server.wait();

    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    assert!(Mqtt::open(server.mqtt, Version::V5).subscribe_and_take("state").message.body == second);
    Mqtt::open(server.mqtt, Version::V5).publish("state", &Publication::new(b"").qos(1).retain());
    await_files(&server, dir.path(), 0);
    server.stop();
}

#[test]
fn the_file_of_a_large_message_that_expires_goes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    let body = body(300_000, 17);
    let mut client = Client::connect(tcp(server.stomp));
    for persistent in [true, false] {
        let headers = format!("persistent:{persistent}\nexpires:{}\nreceipt:p\n", now_ms() + 300);
        client.write(&send("/queue/short", &headers, &body));
        assert_eq!(client.frame().command, "RECEIPT");
    }
    Web::new(server.http).await_metric("sabir_messages_expired_total 2");
    await_files(&server, dir.path(), 0);
    server.stop();
}

#[test]
fn a_large_message_that_is_moved_is_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[THRESHOLD, OFTEN]);
    let body = body(300_000, 18);
    let mut client = Client::connect(tcp(server.stomp));
    client.write(&send("/queue/from", "persistent:true\nreceipt:p\n", &body));
    assert_eq!(client.frame().command, "RECEIPT");
    let path = "/v1/queues/from/messages/move";
    let moved = Web::new(server.http).post_json(path, r#"{"to": "queue://to", "all": true}"#).expect(200);
    assert_eq!(moved.json()["moved"].as_u64(), Some(1));
    assert_eq!(files(dir.path()), 1);
    subscribe(&mut client, "/queue/to", "client-individual");
    let frame = client.frame();
    same(&frame, &body);
    ack(&mut client, &frame, "ACK");
    await_files(&server, dir.path(), 0);
    server.stop();
}

#[test]
fn a_look_shows_large_messages_and_management_their_beginning() {
    let server = Server::start(&[THRESHOLD]);
    let text = "x".repeat(500_000).into_bytes();
    let mut client = Client::connect(tcp(server.stomp));
    client.write(&send("/queue/seen", "receipt:p\ncontent-type:text/plain\n", &text));
    assert_eq!(client.frame().command, "RECEIPT");
    let mut looks = Client::connect(tcp(server.stomp));
    looks.write(b"SUBSCRIBE\nid:b\ndestination:/queue/seen\nbrowser:true\nreceipt:s\n\n\0");
    assert_eq!(looks.frame().command, "RECEIPT");
    same(&looks.frame(), &text);
    let page = Web::new(server.http).get("/v1/queues/seen/messages").expect(200).json();
    let shown = &page["items"][0];
    assert_eq!((shown["bodyBytes"].as_u64(), shown["bodyTruncated"].as_bool()), (Some(500_000), Some(true)));
    assert!(shown["body"].as_str().unwrap().starts_with("xxx"));
    // Its bytes count for the queue, as if they were in memory.
    let queue = Web::new(server.http).get("/v1/queues/seen").expect(200).json();
    assert!(queue["bytes"].as_u64().unwrap() >= 500_000, "{queue}");
}

#[test]
fn one_large_message_makes_no_slow_subscriber() {
    let server = Server::start(&[
        THRESHOLD,
        ("limits.outbox_bytes_soft", "64 KiB"),
        ("limits.outbox_bytes_hard", "512 KiB"),
    ]);
    let body = body(30_000_000, 10);
    let mut slow = Client::connect(tcp(server.stomp));
    subscribe(&mut slow, "/topic/news", "auto");
    let mut quick = Client::connect(tcp(server.stomp));
    subscribe(&mut quick, "/topic/news", "auto");
    let mut sender = Client::connect(tcp(server.stomp));
    for _ in 0..3 {
        sender.send("/topic/news", &body);
        same(&quick.frame(), &body);
    }
    // It has read nothing so far.
    for _ in 0..3 {
        same(&slow.frame(), &body);
    }
}

#[test]
fn what_is_refused_is_refused_before_its_body_is_sent() {
    let server = Server::start(&[THRESHOLD, ("limits.body_bytes_max", "1 MiB")]);
    let mut client = Client::connect(tcp(server.stomp));
    client.write(b"SEND\ndestination:/queue/full\ncontent-length:1048577\n\n");
    client.expect_error("too-large");
    let mut web = tcp(server.http);
    web.write_all(
        b"POST /v1/queues/full/messages?raw=true HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n",
    )
    .unwrap();
    let mut answer = [0; 12];
    web.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[test]
fn memory_does_not_grow_with_a_body() {
    let server = Server::start(&[]);
    let length = 200 << 20;
    let piece = body(1 << 20, 11);
    let before = peak(&server);
    let mut stream = tcp(server.stomp);
    stream.write_all(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").unwrap();
    let head =
        format!("SEND\ndestination:/queue/big\npersistent:true\nreceipt:p\ncontent-length:{length}\n\n");
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..length / piece.len() {
        stream.write_all(&piece).unwrap();
    }
    stream.write_all(b"\0").unwrap();
    let mut client = Client::new(stream);
    assert_eq!(client.frame().command, "CONNECTED");
    assert_eq!(client.frame().command, "RECEIPT");

    let mut web = tcp(server.http);
    web.write_all(b"GET /api/message/big?type=queue HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        web.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut came = vec![0; piece.len()];
    for _ in 0..length / piece.len() {
        web.read_exact(&mut came).unwrap();
        assert!(came == piece);
    }
    let mut rest = Vec::new();
    web.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    let grown = peak(&server).saturating_sub(before);
    assert!(grown < 48 << 20, "{} MiB more than before", grown >> 20);
}

/// The most memory that a server has had.
fn peak(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn what_was_pipelined_behind_a_large_body_counts_no_longer_once_it_is_done() {
    let server = Server::start(&[THRESHOLD]);
    let mut client = Client::connect(tcp(server.stomp));
    let mut frames = send("/queue/large", "", &body(20_000, 7));
    frames.extend(send("/queue/small", "receipt:p\n", &body(4000, 8)));
    client.write(&frames);
    assert_eq!(client.frame().command, "RECEIPT");
    let page = Web::new(server.http).get("/metrics").expect(200).text();
    assert!(page.contains("\nsabir_memory_frame_bytes 0\n"), "{page}");
}

#[test]
fn a_pull_that_is_broken_off_while_bodies_are_loaded_keeps_nothing() {
    let server = Server::start(&[THRESHOLD]);
    let mut sender = Client::connect(tcp(server.stomp));
    for seed in 0..10 {
        sender.send("/queue/pulled", &body(1_000_000, seed));
    }
    // Somebody else's lease keeps the consumer that pulls share.
    let mut web = Web::new(server.http);
    web.post("/v1/queues/pulled/pull?max=1&lease=300000", b"").expect(200);
    for _ in 0..5 {
        let mut hasty = Web::new(server.http);
        hasty.write("POST", "/v1/queues/pulled/pull?max=9&lease=1000", "", b"");
    }
    let metric = |web: &mut Web, name: &str| {
        let page = web.get("/metrics").expect(200).text();
        let line =
            page.lines().find(|line| line.starts_with(&format!("{name}{{queue=\"queue://pulled\""))).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    while metric(&mut web, "sabir_queue_messages_delivered_total") < 10 {}
    // Those whose request lasted long enough go back when their time is over.
    let mut looks = 0;
    while metric(&mut web, "sabir_queue_messages_unsettled") > 1 {
        looks += 1;
        assert!(looks < 20_000, "nobody has them, and they do not come back");
    }
}
