//! The commands over HTTP, against a server that answers as a test wants it to.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use super::super::tests::run;
use super::*;

/// A request as the server sees it: method and target, the headers that matter, body.
fn receive(stream: &mut TcpStream) -> Option<String> {
    let mut input = Vec::new();
    let mut byte = [0];
    while !input.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        input.push(byte[0]);
    }
    let head = String::from_utf8(input).unwrap();
    let mut line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    for header in head.lines().skip(1).filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(": ").unwrap();
        match name {
            "Content-Length" => length = value.parse().unwrap(),
            "Host" => {}
            _ => line.push_str(&format!(" {name}={value}")),
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some(format!("{line} {}", body.escape_ascii()).trim_end().to_owned())
}

/// A server for one connection that answers each request with what `answer` makes of it: status and body. A status of 0
/// answers with the body as it is, and ends.
fn server(
    mut answer: impl FnMut(&str) -> (u16, String) + Send + 'static,
) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while let Some(request) = receive(&mut stream) {
            let (status, body) = answer(&request);
            asked.push(request);
            let reply = match status {
                0 => body,
                _ => format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            };
            if stream.write_all(reply.as_bytes()).is_err() || status == 0 {
                break;
            }
        }
        asked
    });
    (url, asked)
}

fn created(_: &str) -> (u16, String) {
    (201, r#"{"id":"ID:1","position":1,"durability":"fsync"}"#.to_owned())
}

#[test]
fn pub_posts_the_body_with_its_type_and_properties() {
    let (url, asked) = server(created);
    let url = url.replace("http://", "http://al%40ice:secret@");
    let message = ["pub", "-s", &url, "/queue/a b.c", "hello", "-H", "orderId:a b", "-n", "2"];
    run(&[&message[..], &["--retain", "--virtual-host", "other"]].concat()).unwrap();
    let request = "POST /v1/queues/a%20b.c/messages?vhost=other&raw=true&retained=true \
                   Authorization=Basic YWxAaWNlOnNlY3JldA== Content-Type=text/plain X-Prop-order%49d=a%20b hello";
    assert_eq!(asked.join().unwrap(), [request, request]);
    let (url, asked) = server(created);
    run(&["pub", "-s", &url, "/queue/a,topic://b", "{}", "--content-type", "application/json", "--receipt"])
        .unwrap();
    assert_eq!(
        asked.join().unwrap(),
        ["POST /v1/messages?destination=queue%3A%2F%2Fa%2Ctopic%3A%2F%2Fb&raw=true \
          Content-Type=application/json {}"]
    );
}

#[test]
fn pub_has_many_requests_on_the_way_and_waits_for_all_of_them() {
    let (url, asked) = server(created);
    run(&["pub", "-s", &url, "/topic/a", "x", "-n", "1000"]).unwrap();
    assert_eq!(asked.join().unwrap().len(), 1000);
}

#[test]
fn pub_fails_with_the_servers_words() {
    let problem = r#"{"type":"urn:sabir:error:access-denied","title":"no","status":403,"detail":"You may not.","code":"access-denied"}"#;
    for (body, sentence) in [
        (problem, "the server says: You may not. [access-denied]"),
        ("nginx\n", "the server answers with status 403: nginx"),
    ] {
        let (url, asked) = server(move |_| (403, body.to_owned()));
        let failure = run(&["pub", "-s", &url, "/queue/a", "x"]).unwrap_err();
        assert_eq!(failure, Failure::Failed(sentence.to_owned()));
        asked.join().unwrap();
    }
}

#[test]
fn what_http_has_no_meaning_for_is_refused() {
    for line in [
        &["pub", "/queue/a", "x", "--qos", "1"][..],
        &["pub", "/queue/a", "x", "--client-id", "c"],
        &["pub", "a", "x"],
        &["sub", "/queue/a", "--ack", "auto"],
        &["sub", "/queue/a", "--header", "a:b"],
        &["sub", "/queue/a", "--client-id", "c"],
        &["sub", "/queue/a", "--client-id", "c", "--durable", "d"],
        &["sub", "/topic/a", "--prefetch", "5"],
        &["request", "/queue/a", "x", "--response-topic", "t"],
        &["pub", "/queue/a", "x", "--mqtt-version", "5"],
    ] {
        // Nobody is there: it is found before anybody is asked.
        let line = [&line[..1], &["-s", "http://127.0.0.1:1"], &line[1..]].concat();
        assert!(matches!(run(&line), Err(Failure::Usage(_))), "{line:?}");
    }
}

#[test]
fn sub_takes_on_lease_and_settles_what_it_has_printed() {
    let mut pulls = 0;
    let (url, asked) = server(move |request| {
        if request.contains("/v1/leases") {
            return (200, r#"{"settled":1,"errors":[]}"#.to_owned());
        }
        pulls += 1;
        let messages = match pulls {
            1 => r#"{"lease":"L1","body":"one"},{"lease":"L2","body":{"a":1}}"#,
            2 => "",
            _ => r#"{"lease":"L3","bodyBase64":"/w=="}"#,
        };
        (200, format!("{{\"messages\":[{messages}]}}"))
    });
    run(&["sub", "-s", &url, "/queue/a", "-n", "3", "--selector", "a = 1"]).unwrap();
    assert_eq!(
        asked.join().unwrap(),
        [
            "POST /v1/queues/a/pull?max=3&wait=20000&selector=a%20%3D%201",
            r#"POST /v1/leases Content-Type=application/json {\"ack\":[\"L1\",\"L2\"]}"#,
            "POST /v1/queues/a/pull?max=1&wait=20000&selector=a%20%3D%201",
            "POST /v1/queues/a/pull?max=1&wait=20000&selector=a%20%3D%201",
            r#"POST /v1/leases Content-Type=application/json {\"ack\":[\"L3\"]}"#,
        ]
    );
}

#[test]
fn sub_leaves_when_nothing_comes_and_says_if_that_was_too_early_or_a_lease_was_over() {
    let (url, asked) = server(|_| (200, r#"{"messages":[]}"#.to_owned()));
    run(&["sub", "-s", &url, "/topic/t", "--client-id", "c", "--durable", "d/e", "--idle", "0.05"]).unwrap();
    let asked = asked.join().unwrap();
    assert!(asked[0].starts_with("POST /v1/subscriptions/c/d%2Fe/pull?max=100&wait="), "{asked:?}");
    let (url, _asked) = server(|_| (200, r#"{"messages":[]}"#.to_owned()));
    assert_eq!(
        run(&["sub", "-s", &url, "/queue/q", "-n", "2", "--idle", "0"]),
        Err(Failure::TimedOut("0 of 2 messages came".to_owned()))
    );
    let (url, _asked) = server(|request| match request.contains("/v1/leases") {
        true => (200, r#"{"settled":0,"errors":[{"lease":"L"}]}"#.to_owned()),
        false => (200, r#"{"messages":[{"lease":"L","body":"x"}]}"#.to_owned()),
    });
    let failure = run(&["sub", "-s", &url, "/queue/q", "-n", "1"]).unwrap_err();
    assert!(failure.to_string().starts_with("1 messages were printed too late"), "{failure}");
}

#[test]
fn sub_reads_a_topics_stream() {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let lines = "\n{\"eventId\":\"1\",\"body\":\"one\"}\n{\"gap\":{\"missed\":3}}\n{\"body\":\"two\"}\n";
    let stream = format!("{head}{}", chunk(lines));
    let (url, asked) = server(move |_| (0, stream.clone()));
    run(&["sub", "-s", &url, "topic://a.>", "-n", "2", "--selector", "x"]).unwrap();
    assert_eq!(asked.join().unwrap(), ["GET /v1/topics/a.%3E/stream?selector=x Accept=application/x-ndjson"]);
    let end = "{\"end\":{\"code\":\"shutting-down\",\"detail\":\"Bye.\"}}\n";
    let stream = format!("{head}{}0\r\n\r\n", chunk(end));
    let (url, _asked) = server(move |_| (0, stream.clone()));
    let failure = run(&["sub", "-s", &url, "/topic/a"]).unwrap_err();
    assert_eq!(failure, Failure::Failed("the server says: Bye. [shutting-down]".to_owned()));
}

#[test]
fn request_prints_the_answer_or_gives_up() {
    let (url, asked) = server(|_| (200, r#"{"body":"3"}"#.to_owned()));
    run(&["request", "-s", &url, "/queue/sums", "1 + 2", "--timeout", "5"]).unwrap();
    assert_eq!(
        asked.join().unwrap(),
        ["POST /v1/queues/sums/request?raw=true&timeout=5000 Content-Type=text/plain 1 + 2"]
    );
    let (url, _asked) = server(|_| (504, r#"{"code":"timed-out","detail":"no"}"#.to_owned()));
    let failure = run(&["request", "-s", &url, "/queue/sums", "x", "--timeout", "1"]).unwrap_err();
    assert_eq!(failure, Failure::TimedOut("nobody answered within 1 s".to_owned()));
}

#[test]
fn a_message_is_printed_with_its_fields_and_then_its_properties() {
    let envelope = serde_json::json!({
        "lease": "L", "leaseExpires": 1, "id": "ID:1", "destination": "queue://a", "priority": 4, "type": null,
        "properties": {"n": {"$type": "i64", "value": "9007199254740993"}, "b": {"$bin": "/wA="}, "t": true},
        "userProperties": [["twice", "1"], ["twice", "2"]],
        "body": [1, "x"],
    });
    let message = message(&envelope).unwrap();
    let headers: Vec<String> =
        message.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (mut fields, mut properties) = (headers[..3].to_vec(), headers[3..].to_vec());
    fields.sort();
    properties.sort();
    assert_eq!(fields, ["destination=queue://a", "id=ID:1", "priority=4"]);
    assert_eq!(properties, ["b=/wA=", "n=9007199254740993", "t=true", "twice=1", "twice=2"]);
    assert_eq!(message.body, b"[1,\"x\"]");
}
