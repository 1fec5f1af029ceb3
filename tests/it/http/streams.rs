//! Streams of events over real sockets.

use serde_json::Value;

use super::web::{Web, messages};
use crate::crossing::parties::{send, stomp};
use crate::server::Server;

fn data(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_queues_stream_goes_on_exactly_where_its_client_was() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let mut reader = Web::new(server.http);
    reader.write("GET", "/v1/queues/s/stream?lease=30000", "", b"");
    let head = reader.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    for number in 1..=4 {
        web.post("/v1/queues/s/messages", number.to_string().as_bytes()).expect(201);
    }
    let mut left = String::new();
    let mut ids = Vec::new();
    for number in 1..=4 {
        let (id, text) = reader.event("message", &mut left);
        assert_eq!(data(&text)["body"], number.to_string());
        ids.push(id);
    }
    drop(reader);
    // It has seen two; the other two come again, in order and with their ids, and nothing else.
    let mut reader = Web::new(server.http);
    let seen = format!("Last-Event-ID: {}\r\n", ids[1]);
    reader.write("GET", "/v1/queues/s/stream?lease=30000", &seen, b"");
    assert_eq!(reader.head().status, 200);
    let mut left = String::new();
    for number in [3, 4] {
        let (id, text) = reader.event("message", &mut left);
        assert_eq!((&id, &data(&text)["body"]), (&ids[number - 1], &Value::from(number.to_string())));
    }
    web.post("/v1/queues/s/messages", b"5").expect(201);
    assert_eq!(data(&reader.event("message", &mut left).1)["body"], "5");
    server.stop();
}

#[test]
fn what_a_stream_did_not_settle_goes_back_to_the_queue() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    web.post_json("/v1/queues/s/messages", r#"[{"body":"1"},{"body":"2"}]"#).expect(201);
    let mut reader = Web::new(server.http);
    reader.write("GET", "/v1/queues/s/stream?ack=client&lease=8000&credit=1", "", b"");
    reader.head();
    let mut left = String::new();
    let first = data(&reader.event("message", &mut left).1);
    // With credit for one the second follows the settlement of the first.
    web.post(&format!("/v1/leases/{}/ack", first["lease"].as_str().unwrap()), b"").expect(204);
    let second = data(&reader.event("message", &mut left).1);
    assert_eq!((&first["body"], &second["body"]), (&Value::from("1"), &Value::from("2")));
    drop(reader);
    let got = messages(web.post("/v1/queues/s/pull?max=5&wait=20000", b""));
    assert_eq!(
        (got.len(), &got[0]["body"], &got[0]["deliveryCount"]),
        (1, &Value::from("2"), &Value::from(2))
    );
    server.stop();
}

#[test]
fn a_topics_stream_shows_what_matches_and_tells_of_a_gap() {
    let server = Server::start(&[]);
    let mut reader = Web::new(server.http);
    reader.write("GET", "/v1/topics/t.*/stream?selector=n%3D'1'", "Last-Event-ID: x\r\n", b"");
    assert_eq!(reader.head().status, 200);
    let mut left = String::new();
    reader.event("gap", &mut left);
    let mut sender = stomp(server.stomp, "1.2");
    send(&mut sender, "/topic/t.a", "n:1\n", b"a\nb");
    send(&mut sender, "/topic/t.a", "n:2\n", b"not wanted");
    send(&mut sender, "/topic/t.b", "n:1\n", b"end");
    for (destination, body) in [("topic://t.a", "a\nb"), ("topic://t.b", "end")] {
        let message = data(&reader.event("message", &mut left).1);
        assert_eq!(
            (message["destination"].as_str(), message["body"].as_str()),
            (Some(destination), Some(body))
        );
        assert!(message.get("lease").is_none());
    }
    server.stop();
}

#[test]
fn events_of_the_cloud_come_out_of_pulls_and_streams_as_they_went_in() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let mut events = Web::new(server.http);
    events.write("GET", "/v1/topics/e/stream?envelope=cloudevents", "", b"");
    assert_eq!(events.head().status, 200);
    let mut lines = Web::new(server.http);
    lines.write("GET", "/v1/topics/e/stream?envelope=cloudevents", "Accept: application/x-ndjson\r\n", b"");
    assert_eq!(lines.head().status, 200);
    let event =
        r#"{"specversion":"1.0","id":"7","source":"/shop","type":"order.placed","data":{"amount":3}}"#;
    let expected = data(event);
    let typed = "Content-Type: application/cloudevents+json\r\n";
    for target in ["/v1/topics/e/messages", "/v1/queues/e/messages", "/v1/queues/e/messages"] {
        web.send("POST", target, typed, event.as_bytes()).expect(201);
    }
    // Whatever the broker adds is taken off: the rest is what was sent.
    let without = |mut event: Value, added: &[&str]| {
        let members = event.as_object_mut().unwrap();
        for name in added.iter().chain(&["datacontenttype", "time"]) {
            members.remove(*name);
        }
        event
    };
    assert_eq!(without(data(&events.event("message", &mut String::new()).1), &[]), expected);
    let line = data(&String::from_utf8(lines.chunk()).unwrap());
    assert!(line["eventid"].is_string(), "{line}");
    assert_eq!(without(line, &["eventid"]), expected);

    for (query, headers) in
        [("?envelope=cloudevents", ""), ("", "Accept: application/cloudevents-batch+json\r\n")]
    {
        let reply = web.send("POST", &format!("/v1/queues/e/pull{query}"), headers, b"").expect(200);
        assert_eq!(reply.header("content-type"), Some("application/cloudevents-batch+json; charset=utf-8"));
        let batch = reply.json();
        let pulled = batch[0].clone();
        let lease = pulled["lease"].as_str().unwrap().to_owned();
        assert_eq!(
            (batch.as_array().unwrap().len(), without(pulled, &["lease", "leaseexpires"])),
            (1, expected.clone())
        );
        web.post(&format!("/v1/leases/{lease}/ack"), b"").expect(204);
    }
    assert_eq!(
        web.post("/v1/queues/e/pull?envelope=cloudevents", b"").expect(200).json(),
        Value::Array(vec![])
    );
    for target in ["/v1/queues/e/pull?envelope=none", "/v1/queues/e/pull?envelope=xml"] {
        assert_eq!(web.post(target, b"").problem(400).1.as_deref(), Some("envelope"), "{target}");
    }
    let none = web.send("GET", "/v1/topics/e/stream?envelope=none", "Accept: application/x-ndjson\r\n", b"");
    assert_eq!(none.problem(400).1.as_deref(), Some("envelope"));
    server.stop();
}

#[test]
fn lines_of_json_and_bare_bodies_are_other_forms_of_a_stream() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let mut lines = Web::new(server.http);
    lines.write("GET", "/v1/topics/x/stream", "Accept: application/x-ndjson\r\n", b"");
    assert_eq!(lines.head().header("content-type"), Some("application/x-ndjson"));
    let mut bare = Web::new(server.http);
    bare.write("GET", "/v1/topics/x/stream?envelope=none", "", b"");
    assert_eq!(bare.head().status, 200);
    web.post("/v1/topics/x/messages", b"hello").expect(201);
    let line = String::from_utf8(lines.chunk()).unwrap();
    assert!(line.ends_with('\n'));
    assert_eq!((data(&line)["body"].as_str(), data(&line)["eventId"].is_string()), (Some("hello"), true));
    assert_eq!(bare.event("message", &mut String::new()).1, "hello");
    server.stop();
}

#[test]
fn a_shutdown_ends_streams_and_polls_at_once() {
    let server = Server::start(&[]);
    let mut stream = Web::new(server.http);
    stream.write("GET", "/v1/queues/s/stream", "", b"");
    stream.head();
    let mut poll = Web::new(server.http);
    poll.write("POST", "/v1/queues/p/pull?wait=60000", "", b"");
    let mut live = Web::new(server.http);
    live.write("GET", "/v1/topics/t/stream", "", b"");
    live.head();
    // `stop` fails if the server needs longer than it waits for connections.
    server.stop();
}

#[test]
fn what_a_reader_does_not_read_does_not_count_as_received() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let body = "x".repeat(1 << 20);
    for _ in 0..24 {
        web.post("/v1/queues/s/messages", body.as_bytes()).expect(201);
    }
    let mut reader = Web::new(server.http);
    reader.write("GET", "/v1/queues/s/stream?lease=200", "", b"");
    reader.head();
    // Far longer than the lease, and it reads nothing: more is on its way than the sockets hold.
    assert!(messages(web.post("/v1/queues/nothing/pull?wait=1500", b"")).is_empty());
    drop(reader);
    // The first few are in the sockets, and count.
    let mut back = 0;
    while back < 12 {
        let got = messages(web.post("/v1/queues/s/pull?max=24&wait=20000", b""));
        assert!(!got.is_empty(), "only {back} of 24 came back");
        back += got.len();
    }
    server.stop();
}

#[test]
fn a_stream_holds_no_more_than_its_credit() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let body = "x".repeat(100_000);
    for _ in 0..10 {
        web.post("/v1/queues/s/messages", body.as_bytes()).expect(201);
    }
    let mut reader = Web::new(server.http);
    reader.write("GET", "/v1/queues/s/stream?ack=client&lease=60000&credit=4", "", b"");
    reader.head();
    let mut left = String::new();
    for _ in 0..4 {
        reader.event("message", &mut left);
    }
    // Nothing more comes, although there is time for it; what the queue has left says how many are out.
    assert!(messages(web.post("/v1/queues/nothing/pull?wait=1000", b"")).is_empty());
    let page = web.get("/metrics").expect(200).text();
    assert!(page.contains("sabir_queue_messages_ready{queue=\"queue://s\"} 6\n"), "{page}");
    server.stop();
}

#[test]
fn streams_and_pulls_lease_no_more_than_there_may_be() {
    let server = Server::start(&[("http.leases_max", "3")]);
    let mut web = Web::new(server.http);
    web.post_json(
        "/v1/queues/s/messages",
        r#"[{"body":"1"},{"body":"2"},{"body":"3"},{"body":"4"},{"body":"5"}]"#,
    )
    .expect(201);
    let mut reader = Web::new(server.http);
    reader.write("GET", "/v1/queues/s/stream?ack=client&lease=60000", "", b"");
    reader.head();
    let mut left = String::new();
    let first = data(&reader.event("message", &mut left).1);
    for _ in 0..2 {
        reader.event("message", &mut left);
    }
    web.await_metric("sabir_queue_messages_ready{queue=\"queue://s\"} 2");
    assert_eq!(web.post("/v1/queues/s/pull", b"").problem(429).0, "limit-reached");
    // One settled makes room for one.
    web.post(&format!("/v1/leases/{}/ack", first["lease"].as_str().unwrap()), b"").expect(204);
    assert_eq!(data(&reader.event("message", &mut left).1)["body"], "4");
    server.stop();
}

#[test]
fn what_a_client_settles_itself_keeps_its_time_when_the_stream_breaks() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    web.post("/v1/queues/s/messages", b"1").expect(201);
    let mut reader = Web::new(server.http);
    reader.write("GET", "/v1/queues/s/stream?ack=client&lease=3000", "", b"");
    reader.head();
    let lease = data(&reader.event("message", &mut String::new()).1)["lease"].as_str().unwrap().to_owned();
    web.post(&format!("/v1/leases/{lease}/extend?lease=60000"), b"").expect(200);
    drop(reader);
    assert!(
        messages(web.post("/v1/queues/s/pull?wait=5000", b"")).is_empty(),
        "it is somebody's for a minute"
    );
    web.post(&format!("/v1/leases/{lease}/ack"), b"").expect(204);
    server.stop();
}
