//! `sabir.json` over WebSocket and over the port that speaks everything, and what crosses to the other protocols.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use sabir_mqtt::Version;
use serde_json::{Value, json};

use crate::client::tcp;
use crate::crossing::parties::{Mqtt, Publication, send, stomp, subscribe_as};
use crate::mqtt::auth::add_user;
use crate::server::Server;
use crate::websocket::frame;

const TEXT: u8 = 0x81;
const PASSWORD: &str = "a good long secret";

/// A client of objects, in WebSocket messages or as they are.
pub(crate) struct Json {
    stream: TcpStream,
    websocket: bool,
    early: Vec<u8>,
    /// What came while an answer was awaited.
    news: VecDeque<Value>,
    refs: u64,
    /// The code of the WebSocket's close, once it came.
    closed: Option<u16>,
}

impl Json {
    /// A WebSocket that nobody has introduced.
    fn open(address: SocketAddr) -> Self {
        let (stream, head) = handshake(address, "sabir.json");
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-protocol: sabir.json\r\n"), "{head}");
        Self { stream, websocket: true, early: Vec::new(), news: VecDeque::new(), refs: 0, closed: None }
    }

    /// One that is let in.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_as(address, json!({}))
    }

    fn connect_as(address: SocketAddr, words: Value) -> Self {
        let mut client = Self::open(address);
        client.introduce(words);
        client
    }

    fn introduce(&mut self, words: Value) {
        let greeting = self.ask("connect", words);
        assert_eq!(greeting["op"], "connected", "{greeting}");
    }

    fn write(&mut self, bytes: &[u8]) {
        let bytes = if self.websocket { frame(TEXT, bytes) } else { bytes.to_vec() };
        self.stream.write_all(&bytes).unwrap();
    }

    /// One object with the next `ref`, which is returned.
    fn say(&mut self, op: &str, mut words: Value) -> u64 {
        self.refs += 1;
        words["op"] = op.into();
        words["ref"] = self.refs.into();
        self.write(words.to_string().as_bytes());
        self.refs
    }

    /// The answer to one object.
    fn ask(&mut self, op: &str, words: Value) -> Value {
        let reference = self.say(op, words);
        loop {
            let object = self.read().unwrap_or_else(|| panic!("no answer to {op}"));
            if object["ref"] == reference {
                return object;
            }
            self.news.push_back(object);
        }
    }

    /// One object that must be carried out.
    pub(crate) fn done(&mut self, op: &str, words: Value) -> Value {
        let answer = self.ask(op, words);
        assert_eq!(answer["op"], "ok", "{answer}");
        answer
    }

    /// Code and field of a refusal.
    fn refused(&mut self, op: &str, words: Value) -> (String, Option<String>) {
        let answer = self.ask(op, words);
        assert_eq!((&answer["op"], &answer["of"]), (&json!("error"), &json!(op)), "{answer}");
        (answer["code"].as_str().unwrap().to_owned(), answer["field"].as_str().map(str::to_owned))
    }

    /// What comes next that is no answer; `None` at the end.
    fn next(&mut self) -> Option<Value> {
        self.news.pop_front().or_else(|| self.read())
    }

    /// The next message, with its delivery.
    pub(crate) fn take(&mut self) -> Value {
        let object = self.next().expect("another message");
        assert_eq!(object["op"], "message", "{object}");
        object
    }

    /// The body of the next message, which is acknowledged if it must be.
    fn body(&mut self) -> Value {
        let mut taken = self.take();
        if let Some(id) = taken.get("deliveryId").cloned() {
            self.done("ack", json!({ "deliveryId": id }));
        }
        taken["message"]["body"].take()
    }

    fn read(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.early.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.early.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            if !self.fill() {
                assert!(self.early.is_empty(), "the stream ends inside of {}", self.early.escape_ascii());
                return None;
            }
        }
    }

    /// Reads a little more; false at the end.
    fn fill(&mut self) -> bool {
        if !self.websocket {
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).unwrap();
            self.early.extend_from_slice(&buffer[..count]);
            return count > 0;
        }
        let mut head = [0; 2];
        if self.stream.read_exact(&mut head).is_err() {
            return false;
        }
        let mut length = usize::from(head[1]);
        if length == 126 {
            let mut long = [0; 2];
            self.stream.read_exact(&mut long).unwrap();
            length = usize::from(u16::from_be_bytes(long));
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        match head[0] {
            // Whole, or the beginning, the middle or the end of one.
            TEXT | 0x01 | 0x00 | 0x80 => {
                self.early.extend(payload);
                if head[0] & 0x80 != 0 {
                    // One message of a WebSocket is one object, so that a page may parse what an event brings.
                    let whole: Result<Value, _> = serde_json::from_slice(&self.early);
                    assert!(whole.is_ok(), "not one object: {}", self.early.escape_ascii());
                    self.early.push(b'\n');
                }
                true
            }
            0x88 => {
                self.closed = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                false
            }
            other => panic!("a message of kind {other:x}"),
        }
    }

    /// The stream ends, and the WebSocket with this code.
    fn expect_end(mut self, code: u16) {
        assert_eq!(self.next(), None);
        assert_eq!(self.closed, Some(code));
    }
}

fn handshake(address: SocketAddr, offers: &str) -> (TcpStream, String) {
    let mut stream = tcp(address);
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {offers}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        head.extend_from_slice(&byte);
    }
    (stream, String::from_utf8(head).unwrap().to_lowercase())
}

#[test]
fn the_sub_protocol_chooses_json_and_stomp_stays_the_default() {
    let server = Server::start(&[]);
    for (offers, chosen) in
        [("sabir.json", "sabir.json"), ("soap, sabir.json", "sabir.json"), ("stomp", "stomp")]
    {
        let (_, head) = handshake(server.http, offers);
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains(&format!("sec-websocket-protocol: {chosen}\r\n")), "{head}");
    }
    let (_, head) = handshake(server.http, "sabir.xml");
    assert!(head.starts_with("http/1.1 400 "), "{head}");
}

#[test]
fn a_message_goes_from_one_page_to_another() {
    let server = Server::start(&[]);
    let (mut sender, mut reader) = (Json::connect(server.http), Json::connect(server.http));
    reader.done("subscribe", json!({ "id": "news", "destination": "topic://news.>" }));
    let sent = sender.done(
        "send",
        json!({ "destination": "topic://news.sport", "body": { "goals": 3 }, "properties": { "n": 5 }, "persistent": false }),
    );
    assert_eq!((sent["durability"].as_str(), sent["id"].is_string()), (Some("memory"), true), "{sent}");
    let got = reader.take();
    assert_eq!((&got["id"], got.get("deliveryId")), (&json!("news"), None), "{got}");
    let message = &got["message"];
    assert_eq!(message["id"], sent["id"]);
    assert_eq!(message["destination"], "topic://news.sport");
    assert_eq!(message["body"], json!({ "goals": 3 }));
    assert_eq!(message["properties"], json!({ "n": 5 }));
    server.stop();
}

#[test]
fn objects_may_be_cut_anywhere_or_come_together_and_may_be_large() {
    let server = Server::start(&[]);
    let mut client = Json::open(server.http);
    for byte in br#"{"op":"connect","ref":1}"# {
        client.write(&[*byte]);
    }
    assert_eq!(client.next().unwrap()["op"], "connected");
    let snow = "☃".repeat(100_000);
    let subscribe = json!({ "op": "subscribe", "id": "s", "destination": "queue://large" });
    let large = json!({ "op": "send", "noReply": true, "destination": "queue://large", "body": snow });
    client.write(format!("{subscribe}\n{large} {large}{}", json!({ "op": "ping", "ref": 7 })).as_bytes());
    let mut ops = Vec::new();
    for _ in 0..4 {
        let object = client.next().unwrap();
        ops.push(object["op"].as_str().unwrap().to_owned());
        if object["op"] == "message" {
            assert_eq!(object["message"]["body"], snow);
        }
    }
    ops.sort_unstable();
    assert_eq!(ops, ["message", "message", "ok", "pong"]);
    server.stop();
}

#[test]
fn the_port_for_everything_speaks_it_without_a_websocket() {
    let server = Server::start(&[]);
    let stream = tcp(server.any);
    let (early, news) = (Vec::new(), VecDeque::new());
    let mut client = Json { stream, websocket: false, early, news, refs: 0, closed: None };
    client.introduce(json!({}));
    client.done("send", json!({ "destination": "queue://plain", "body": "x" }));
    client.done("subscribe", json!({ "id": "s", "destination": "queue://plain" }));
    assert_eq!(client.body(), "x");
    client.done("disconnect", json!({}));
    assert_eq!(client.next(), None);
    server.stop();
}

#[test]
fn what_is_answered_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut client = Json::connect(server.http);
    let sent = client.done("send", json!({ "destination": "queue://kept", "body": "survives" }));
    assert_eq!(sent["durability"], "fsync");
    client.done("begin", json!({ "transaction": "t" }));
    client.done("send", json!({ "destination": "queue://kept", "body": "committed", "transaction": "t" }));
    client.done("commit", json!({ "transaction": "t" }));
    client.done("begin", json!({ "transaction": "u" }));
    client.done("send", json!({ "destination": "queue://kept", "body": "open", "transaction": "u" }));
    server.signal(Signal::KILL);
    server.wait();

    let server = Server::start_in(dir.path(), &[]);
    let mut client = Json::connect(server.http);
    client.done("subscribe", json!({ "id": "s", "destination": "queue://kept", "ack": "individual" }));
    let got = client.take();
    assert_eq!((&got["message"]["body"], &got["message"]["id"]), (&json!("survives"), &sent["id"]));
    client.done("ack", json!({ "deliveryId": got["deliveryId"] }));
    assert_eq!(client.body(), "committed");
    assert_eq!(client.ask("ping", json!({}))["op"], "pong");
    assert_eq!(client.news.len(), 0, "nothing of an open transaction");
    server.stop();
}

#[test]
fn deliveries_are_settled_one_by_one_or_up_to_one() {
    let server = Server::start(&[]);
    let mut sender = Json::connect(server.http);
    for number in 0..4 {
        sender.done("send", json!({ "destination": "queue://work", "body": number.to_string() }));
    }
    let mut worker = Json::connect(server.http);
    let subscribe = |ack: &str| json!({ "id": "s", "destination": "queue://work", "ack": ack, "credit": 3 });
    worker.done("subscribe", subscribe("individual"));
    let got: Vec<Value> = (0..3).map(|_| worker.take()).collect();
    assert_eq!(worker.refused("ack", json!({ "deliveryId": "0-0-0-0" })).0, "unknown-delivery");
    worker.done("ack", json!({ "deliveryId": got[1]["deliveryId"] }));
    assert_eq!(worker.refused("ack", json!({ "deliveryId": got[1]["deliveryId"] })).0, "unknown-delivery");
    assert_eq!(worker.take()["message"]["body"], "3", "room for one more");
    worker.done("nack", json!({ "deliveryId": got[0]["deliveryId"], "requeue": true }));
    let again = worker.take();
    assert_eq!((&again["message"]["body"], &again["message"]["redelivered"]), (&json!("0"), &json!(true)));
    assert_eq!(again["message"]["deliveryCount"], 2);
    worker.done("release", json!({ "deliveryId": again["deliveryId"] }));
    assert_eq!(worker.take()["message"]["deliveryCount"], 2, "a release does not count");
    worker.done("nack", json!({ "deliveryId": got[2]["deliveryId"], "requeue": false }));
    drop(worker);

    // The others went back when the connection ended; now two in one.
    let mut worker = Json::connect(server.http);
    worker.done("subscribe", subscribe("client"));
    let (first, second) = (worker.take(), worker.take());
    assert_eq!((&first["message"]["body"], &second["message"]["body"]), (&json!("0"), &json!("3")));
    worker.done("ack", json!({ "deliveryId": second["deliveryId"] }));
    assert_eq!(worker.refused("ack", json!({ "deliveryId": first["deliveryId"] })).0, "unknown-delivery");
    worker.done("subscribe", json!({ "id": "dead", "destination": "queue://ActiveMQ.DLQ" }));
    assert_eq!(worker.take()["message"]["body"], "2");
    server.stop();
}

#[test]
fn credit_lets_a_reader_pause_and_go_on() {
    let server = Server::start(&[]);
    let mut client = Json::connect(server.http);
    let subscription = json!({ "id": "s", "destination": "queue://flow", "ack": "individual", "credit": 1 });
    client.done("subscribe", subscription);
    for number in 0..3 {
        client.done("send", json!({ "destination": "queue://flow", "body": number.to_string() }));
    }
    let first = client.take();
    client.done("credit", json!({ "id": "s", "credit": 0 }));
    client.done("ack", json!({ "deliveryId": first["deliveryId"] }));
    assert_eq!(client.ask("ping", json!({}))["op"], "pong");
    assert_eq!(client.news.len(), 0, "it pauses");
    assert_eq!(client.done("credit", json!({ "id": "s", "credit": 5 }))["credit"], 5);
    assert_eq!((client.body(), client.body()), (json!("1"), json!("2")));
    client.done("subscribe", json!({ "id": "live", "destination": "topic://t" }));
    assert_eq!(client.refused("credit", json!({ "id": "live", "credit": 5 })).0, "unsupported");
    client.done("unsubscribe", json!({ "id": "s" }));
    client.done("send", json!({ "destination": "queue://flow", "body": "late" }));
    assert_eq!(client.news.len(), 0, "nothing follows the end of a subscription");
    server.stop();
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let server = Server::start(&[]);
    let mut client = Json::connect(server.http);
    client.done("subscribe", json!({ "id": "in", "destination": "queue://in", "ack": "individual" }));
    client.done("subscribe", json!({ "id": "out", "destination": "queue://out" }));
    client.done("send", json!({ "destination": "queue://in", "body": "work" }));
    let work = client.take();
    for end in ["abort", "commit"] {
        client.done("begin", json!({ "transaction": end }));
        client.done("send", json!({ "destination": "queue://out", "body": end, "transaction": end }));
        client.done("ack", json!({ "deliveryId": work["deliveryId"], "transaction": end }));
        client.done(end, json!({ "transaction": end }));
    }
    assert_eq!(client.body(), "commit");
    // A part that is refused takes the whole with it.
    client.done("begin", json!({ "transaction": "t" }));
    client.done("send", json!({ "destination": "queue://out", "body": "half", "transaction": "t" }));
    let wrong = json!({ "destination": "queue://out", "bdoy": "x", "transaction": "t" });
    assert_eq!(client.refused("send", wrong), ("invalid-body".into(), Some("bdoy".into())));
    assert_eq!(client.refused("commit", json!({ "transaction": "t" })).0, "invalid-body");
    assert_eq!(client.ask("ping", json!({}))["op"], "pong");
    assert_eq!(client.news.len(), 0);
    server.stop();
}

#[test]
fn a_durable_subscription_waits_and_a_browser_only_looks() {
    let server = Server::start(&[]);
    let named = |server: &Server| Json::connect_as(server.http, json!({ "clientId": "page" }));
    let durable = json!({ "id": "s", "destination": "topic://t", "durable": "d", "selector": "n > 1" });
    let mut client = named(&server);
    client.done("subscribe", durable.clone());
    client.done("disconnect", json!({}));
    client.expect_end(1000);
    let mut sender = Json::connect(server.http);
    for n in 1..=2 {
        let body = n.to_string();
        sender.done("send", json!({ "destination": "topic://t", "body": body, "properties": { "n": n } }));
    }
    assert_eq!(
        sender.refused("subscribe", durable.clone()).0,
        "unknown-subscription",
        "it needs a client id"
    );
    let mut client = named(&server);
    client.done("subscribe", durable);
    assert_eq!(client.body(), "2");
    client.done("unsubscribe", json!({ "id": "s", "forget": true }));
    assert_eq!(client.refused("unsubscribe", json!({ "durable": "d" })).0, "unknown-subscription");

    sender.done("send", json!({ "destination": "queue://q", "body": "stays" }));
    for id in ["one", "two"] {
        client.done("subscribe", json!({ "id": id, "destination": "queue://q", "browse": true }));
        assert_eq!(client.take()["message"]["body"], "stays");
        assert_eq!(client.next(), Some(json!({ "op": "end", "id": id })));
    }
    server.stop();
}

#[test]
fn who_may_come_in_and_what_he_may_do() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "alice", PASSWORD);
    let server = Server::start_in(dir.path(), &[]);
    for words in [
        json!({}),
        json!({ "user": "alice", "password": "wrong" }),
        json!({ "user": "bob", "password": "x" }),
    ] {
        let mut client = Json::open(server.http);
        assert_eq!(client.refused("connect", words).0, "authentication-failed");
        client.expect_end(1000);
    }
    let mut client = Json::open(server.http);
    assert_eq!(client.refused("send", json!({ "destination": "queue://q" })).0, "unexpected-frame");
    client.introduce(json!({ "user": "alice", "password": PASSWORD }));
    client.done("subscribe", json!({ "id": "s", "destination": "queue://q" }));
    client.done("send", json!({ "destination": "queue://q", "body": "x" }));
    assert_eq!(client.take()["message"]["userId"], "alice");
    server.stop();
}

#[test]
fn a_refusal_leaves_the_connection_and_only_what_is_no_json_ends_it() {
    let limits = [("limits.body_bytes_max", "1000"), ("limits.body_bytes_before_login", "1000")];
    let server = Server::start(&limits);
    let mut client = Json::connect(server.http);
    for (op, words, code, field) in [
        ("send", json!({ "destination": "queue://q", "body": "x".repeat(1001) }), "too-large", Some("body")),
        ("send", json!({ "destination": "q" }), "invalid-destination", Some("destination")),
        ("send", json!({ "destination": "queue://q", "colour": 1 }), "invalid-body", Some("colour")),
        ("send", json!({ "destination": "temp-queue://ID:gone" }), "unknown-destination", None),
        (
            "subscribe",
            json!({ "id": "s", "destination": "queue://q", "selector": "1=" }),
            "invalid-selector",
            None,
        ),
        (
            "subscribe",
            json!({ "id": "s", "destination": "queue://new", "mustExist": true }),
            "unknown-destination",
            None,
        ),
        ("unsubscribe", json!({ "id": "s" }), "unknown-subscription", Some("id")),
        ("commit", json!({ "transaction": "t" }), "unknown-transaction", None),
        ("connect", json!({}), "unexpected-frame", None),
    ] {
        assert_eq!(client.refused(op, words), (code.to_owned(), field.map(str::to_owned)), "{op}");
    }
    let answer = client.ask("fetch", json!({}));
    assert_eq!((&answer["code"], &answer["field"]), (&json!("unknown-command"), &json!("op")), "{answer}");
    assert_eq!(client.ask("ping", json!({}))["op"], "pong");
    client.write(b"{\"op\":ping}");
    assert_eq!(client.next().unwrap()["code"], "malformed-frame");
    client.expect_end(1008);
    server.stop();
}

#[test]
fn the_end_of_the_broker_is_told() {
    let server = Server::start(&[]);
    let mut client = Json::connect(server.http);
    server.signal(Signal::TERM);
    let farewell = client.next().unwrap();
    assert_eq!(
        (&farewell["op"], &farewell["code"]),
        (&json!("closed"), &json!("shutting-down")),
        "{farewell}"
    );
    client.expect_end(1001);
    assert!(server.wait().success());
}

#[test]
fn messages_cross_to_and_from_stomp_and_mqtt() {
    let server = Server::start(&[]);
    let mut client = Json::connect(server.http);
    client.done(
        "send",
        json!({
            "destination": "queue://orders.eu", "body": "one", "type": "order", "contentType": "text/plain",
            "correlationId": "c:1", "replyTo": "queue://answers", "properties": { "n": 3, "colour": "red" },
        }),
    );
    let mut worker = stomp(server.stomp, "1.2");
    subscribe_as(&mut worker, "1", "/queue/orders.eu", "");
    let got = worker.frame();
    assert_eq!(got.body, b"one");
    for (name, value) in [
        ("type", "order"),
        ("content-type", "text/plain"),
        ("correlation-id", "c\\c1"),
        ("reply-to", "/queue/answers"),
        ("n", "3"),
        ("colour", "red"),
        ("property-types", "n=i32"),
        ("persistent", "true"),
    ] {
        assert_eq!(got.header(name), Some(value), "{}", got.text());
    }

    client.done("subscribe", json!({ "id": "s", "destination": "topic://sensors.>" }));
    let mut device = Mqtt::open(server.mqtt, Version::V5);
    let reading =
        Publication::new(b"21.5").qos(1).response("answers/here").data(b"\xff\x00").user("room", "kitchen");
    device.publish("sensors/kitchen", &reading);
    let message = &client.take()["message"];
    assert_eq!(message["destination"], "topic://sensors.kitchen");
    assert_eq!((&message["body"], &message["persistent"]), (&json!("21.5"), &json!(true)));
    assert_eq!(message["properties"], json!({ "room": "kitchen" }));
    assert_eq!(
        (&message["replyTo"], &message["correlationId"]),
        (&json!("topic://answers.here"), &json!("base64:/wA="))
    );
    device.publish("sensors/raw", &Publication::new(b"\x00\xff"));
    assert_eq!(client.take()["message"]["bodyBase64"], "AP8=");

    device.subscribe("commands/#");
    let command = json!({ "destination": "topic://commands.heat", "bodyBase64": "AP8=", "correlationId": "base64:/wA=" });
    client.done("send", command);
    let taken = device.take();
    assert_eq!((taken.topic.as_str(), &*taken.message.body), ("commands/heat", &b"\x00\xff"[..]));
    assert_eq!(taken.message.data.as_deref(), Some(&b"\xff\x00"[..]));
    server.stop();
}

#[test]
fn a_request_is_answered_by_a_stomp_client_or_by_time() {
    let server = Server::start(&[]);
    let mut worker = stomp(server.stomp, "1.2");
    subscribe_as(&mut worker, "1", "/queue/double", "");
    let mut client = Json::connect(server.http);
    let (first, second) = (
        client.say("request", json!({ "destination": "queue://double", "body": "1" })),
        client.say("request", json!({ "destination": "queue://double", "body": "2" })),
    );
    let questions = [worker.frame(), worker.frame()];
    // The later one first: each reply finds its question.
    for (question, answer) in questions.iter().zip([&b"2"[..], b"4"]).rev() {
        let to = question.header("reply-to").unwrap();
        let correlation = question.header("correlation-id").unwrap();
        send(&mut worker, to, &format!("correlation-id:{correlation}\n"), answer);
    }
    for (reference, body) in [(second, "4"), (first, "2")] {
        let reply = client.next().unwrap();
        assert_eq!((&reply["op"], &reply["ref"]), (&json!("reply"), &json!(reference)), "{reply}");
        assert_eq!(reply["message"]["body"], body);
    }
    let nobody = client.refused("request", json!({ "destination": "queue://nobody", "timeout": 50 }));
    assert_eq!(nobody.0, "timed-out");

    client.done(
        "send",
        json!({ "destination": "queue://double", "replyTo": "$reply", "correlationId": "mine" }),
    );
    let question = worker.frame();
    for answer in [&b"one"[..], b"two"] {
        let to = question.header("reply-to").unwrap();
        send(&mut worker, to, "correlation-id:mine\n", answer);
        let reply = client.next().unwrap();
        assert_eq!((&reply["op"], reply.get("ref")), (&json!("reply"), None), "{reply}");
        assert_eq!(
            (&reply["message"]["correlationId"], reply["message"]["body"].as_str()),
            (&json!("mine"), std::str::from_utf8(answer).ok())
        );
    }

    // The other way round: a page serves, through a temporary queue of whoever asks.
    client.done("subscribe", json!({ "id": "s", "destination": "queue://half" }));
    let mut page = Json::connect(server.http);
    let own = page.done("temporary", json!({}))["destination"].clone();
    page.done("subscribe", json!({ "id": "own", "destination": own }));
    page.done("send", json!({ "destination": "queue://half", "replyTo": own, "body": "8" }));
    let question = client.take();
    client.done("send", json!({ "destination": question["message"]["replyTo"], "body": "4" }));
    assert_eq!(page.body(), "4");
    server.stop();
}
