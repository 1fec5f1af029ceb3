//! Sending, pulling on lease, and asking, over real sockets.

use serde_json::json;

use super::web::{Web, messages};
use crate::client::{Client, tcp};
use crate::crossing::parties::{Mqtt, Publication, send, stomp, subscribe_as};
use crate::server::Server;

#[test]
fn every_form_of_a_message_arrives_as_it_was_sent() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let one = r#"{"body":"text","correlationId":"c","type":"t","priority":7,"properties":{"n":5,"big":{"$type":"i64","value":"9007199254740993"}}}"#;
    let receipt = web.post_json("/v1/queues/forms/messages", one).expect(201).json();
    assert!(receipt["id"].as_str().unwrap().starts_with("ID:") && receipt["position"].is_u64(), "{receipt}");
    assert_eq!(receipt["durability"], "fsync");
    let batch = r#"[{"body":{"x":[1,2.5,null]}},{"bodyBase64":"/wA="},{"body":null,"persistent":false}]"#;
    let receipts = web.post_json("/v1/queues/forms/messages", batch).expect(201).json();
    assert_eq!((receipts["failed"].as_u64(), receipts["messages"].as_array().unwrap().len()), (Some(0), 3));
    assert_eq!(receipts["messages"][2]["durability"], "memory", "{receipts}");
    web.send(
        "POST",
        "/v1/queues/forms/messages",
        "Content-Type: application/x-ndjson\r\n",
        b"{\"body\":\"l1\"}\n{\"body\":\"l2\"}\n",
    )
    .expect(201);
    web.send(
        "POST",
        "/v1/queues/forms/messages?ttl=60000",
        "Content-Type: text/csv\r\nX-Prop-region: south\r\n",
        b"a,b",
    )
    .expect(201);
    web.send("POST", "/v1/queues/forms/messages", "Content-Type: image/png\r\n", b"\x89\0").expect(201);
    web.post_json("/v1/messages", r#"{"destination":"queue://forms,queue://other","body":"both"}"#)
        .expect(201);

    let got = messages(web.post("/v1/queues/forms/pull?max=20", b""));
    assert_eq!(got.len(), 9);
    assert_eq!(got[0]["body"], "text");
    assert_eq!(
        (&got[0]["priority"], &got[0]["correlationId"], &got[0]["type"]),
        (&json!(7), &json!("c"), &json!("t"))
    );
    assert_eq!(got[0]["properties"], json!({"n":5,"big":{"$type":"i64","value":"9007199254740993"}}));
    assert_eq!(got[1]["body"], json!({"x":[1,2.5,null]}));
    assert_eq!(got[2]["bodyBase64"], "/wA=");
    assert!(got[3]["body"].is_null() && got[3]["persistent"] == false);
    assert_eq!((&got[4]["body"], &got[5]["body"]), (&json!("l1"), &json!("l2")));
    assert_eq!((&got[6]["body"], &got[6]["properties"]), (&json!("a,b"), &json!({"region":"south"})));
    assert!(got[6]["expiration"].as_u64() > got[6]["timestamp"].as_u64());
    assert_eq!((&got[7]["bodyBase64"], &got[7]["contentType"]), (&json!("iQA="), &json!("image/png")));
    assert_eq!(got[8]["body"], "both");
    assert_eq!(messages(web.post("/v1/queues/other/pull", b"")).len(), 1);
    server.stop();
}

#[test]
fn a_lease_is_settled_by_its_token_or_ends_by_itself() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let batch = r#"[{"body":"ack"},{"body":"release"},{"body":"reject"},{"body":"extend"},{"body":"leave"}]"#;
    web.post_json("/v1/queues/work/messages", batch).expect(201);
    let mut got = messages(web.post("/v1/queues/work/pull?max=4&lease=60000", b""));
    got.extend(messages(web.post("/v1/queues/work/pull?lease=300", b"")));
    let lease = |at: usize| got[at]["lease"].as_str().unwrap().to_owned();
    let left = messages(web.post("/v1/queues/work/pull?wait=20000&lease=60000", b""));
    assert_eq!((&left[0]["body"], &left[0]["redelivered"]), (&json!("leave"), &json!(true)));
    assert!(messages(web.post("/v1/queues/work/pull", b"")).is_empty(), "all are on lease");
    // From any connection.
    let mut other = Web::new(server.http);
    other.post(&format!("/v1/leases/{}/ack", lease(0)), b"").expect(204);
    other.post(&format!("/v1/leases/{}/release", lease(1)), b"").expect(204);
    other.post(&format!("/v1/leases/{}/reject", lease(2)), b"").expect(204);
    other.post(&format!("/v1/leases/{}/extend?lease=120000", lease(3)), b"").expect(200);
    let again = other.post(&format!("/v1/leases/{}/ack", lease(0)), b"").problem(404);
    assert_eq!(again.0, "unknown-delivery");

    let released = messages(web.post("/v1/queues/work/pull", b""));
    assert_eq!((&released[0]["body"], &released[0]["deliveryCount"]), (&json!("release"), &json!(2)));
    let dead = messages(web.post("/v1/queues/ActiveMQ.DLQ/pull", b""));
    assert_eq!(dead[0]["body"], "reject");
    let many = json!({"ack": [left[0]["lease"], lease(3), "nonsense"]}).to_string();
    let settled = web.post_json("/v1/leases", &many).expect(200).json();
    assert_eq!((settled["settled"].as_u64(), settled["errors"].as_array().unwrap().len()), (Some(2), 1));
    server.stop();
}

#[test]
fn a_message_released_with_a_delay_comes_back_after_it() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    web.post("/v1/queues/later/messages", b"x").expect(201);
    let got = messages(web.post("/v1/queues/later/pull", b""));
    let lease = got[0]["lease"].as_str().unwrap();
    web.post(&format!("/v1/leases/{lease}/release?delay=3000"), b"").expect(204);
    web.post(&format!("/v1/leases/{lease}/ack"), b"").problem(404);
    assert!(messages(web.post("/v1/queues/later/pull", b"")).is_empty());
    assert_eq!(messages(web.post("/v1/queues/later/pull?wait=20000", b"")).len(), 1);
    server.stop();
}

#[test]
fn who_waits_gets_what_comes_and_who_has_gone_holds_nothing() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let mut gone = Web::new(server.http);
    gone.write("POST", "/v1/queues/poll/pull?wait=60000", "", b"");
    web.await_metric("sabir_queue_consumers{queue=\"queue://poll\"} 1");
    drop(gone);
    web.await_metric("sabir_queue_consumers{queue=\"queue://poll\"} 0");
    let mut waiting = Web::new(server.http);
    waiting.write("POST", "/v1/queues/poll/pull?wait=60000", "", b"");
    web.await_metric("sabir_queue_consumers{queue=\"queue://poll\"} 1");
    web.post("/v1/queues/poll/messages", b"for you").expect(201);
    let got = messages(waiting.reply());
    assert_eq!((&got[0]["body"], &got[0]["deliveryCount"]), (&json!("for you"), &json!(1)));
    server.stop();
}

#[test]
fn a_repeated_request_with_a_key_is_answered_and_not_repeated() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let key = "Idempotency-Key: k1\r\n";
    let first = web.send("POST", "/v1/queues/once/messages", key, b"x").expect(201);
    let again = Web::new(server.http).send("POST", "/v1/queues/once/messages", key, b"x").expect(201);
    assert_eq!(first.body, again.body);
    let other = web.send("POST", "/v1/queues/once/messages", key, b"y").problem(422);
    assert_eq!(other.1.as_deref(), Some("Idempotency-Key"));
    assert_eq!(messages(web.post("/v1/queues/once/pull?max=10", b"")).len(), 1);
    server.stop();
}

#[test]
fn what_is_wrong_is_named() {
    let server =
        Server::start(&[("limits.body_bytes_max", "1000"), ("limits.body_bytes_before_login", "1000")]);
    let mut web = Web::new(server.http);
    let (code, field) = web.post_json("/v1/queues/q/messages", r#"{"bdy":1}"#).problem(400);
    assert_eq!((code.as_str(), field.as_deref()), ("invalid-body", Some("bdy")));
    let broken = web.post_json("/v1/queues/q/messages", "{\n  \"body\": oops}").expect(400).json();
    assert_eq!((broken["line"].as_u64(), broken["code"].as_str()), (Some(2), Some("invalid-body")));
    for (target, field) in [
        ("/v1/queues/q/pull?wiat=5", "wiat"),
        ("/v1/queues/q/pull?max=0", "max"),
        ("/v1/queues/q/messages?prority=5", "prority"),
        ("/v1/messages", "destination"),
    ] {
        assert_eq!(web.post(target, b"x").problem(400).1.as_deref(), Some(field), "{target}");
    }
    assert_eq!(web.post("/v1/queues/q/pull?selector=1%3D", b"").problem(400).0, "invalid-selector");
    assert_eq!(web.post("/v1/queues/q/messages?vhost=none", b"x").problem(404).0, "unknown-destination");
    assert_eq!(web.post("/v1/subscriptions/c/n/pull", b"").problem(404).0, "unknown-subscription");
    assert_eq!(web.post("/v1/queues/a..b%00/messages", b"x").problem(400).0, "invalid-destination");
    assert_eq!(web.post("/v1/queues/a.*/messages", b"x").problem(400).0, "invalid-destination");
    let scheduled = web.post_json("/v1/queues/q/messages", r#"{"properties":{"AMQ_SCHEDULED_DELAY":5}}"#);
    assert_eq!(scheduled.problem(501).0, "unsupported");
    let wrong_method = web.send("PUT", "/v1/queues/q/pull", "", b"");
    assert_eq!(wrong_method.header("allow"), Some("POST"));
    wrong_method.problem(405);
    web.get("/v1/nothing").problem(404);
    assert_eq!(
        Web::new(server.http).post("/v1/queues/q/messages", &[b'x'; 1001]).problem(413).0,
        "too-large"
    );
    web.post("/v1/queues/q/messages", &[b'x'; 1000]).expect(201);
    server.stop();
}

#[test]
fn a_part_of_a_batch_that_is_refused_is_told_by_its_place() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let batch = r#"[{"destination":"queue://part","body":"good"},{"destination":"nowhere://x y\u0000","body":"bad"}]"#;
    let reply = web.post_json("/v1/messages", batch).expect(207).json();
    assert_eq!(reply["failed"], 1);
    assert!(reply["messages"][0]["id"].is_string());
    assert_eq!(reply["messages"][1]["error"]["code"], "invalid-destination", "{reply}");
    assert_eq!(messages(web.post("/v1/queues/part/pull", b"")).len(), 1);
    server.stop();
}

#[test]
fn a_request_is_answered_by_whoever_serves_the_queue() {
    let server = Server::start(&[]);
    let mut worker = stomp(server.stomp, "1.2");
    subscribe_as(&mut worker, "1", "/queue/double", "");
    let mut web = Web::new(server.http);
    web.write("POST", "/v1/queues/double/request?timeout=20000", "Content-Type: text/plain\r\n", b"21");
    let question = worker.frame();
    assert_eq!(question.body, b"21");
    let reply_to = question.header("reply-to").unwrap().to_owned();
    let correlation = question.header("correlation-id").unwrap().to_owned();
    send(&mut worker, &reply_to, &format!("correlation-id:{correlation}\n"), b"42");
    let answer = web.reply().expect(200).json();
    let unescaped = correlation.replace("\\c", ":");
    assert_eq!((answer["body"].as_str(), answer["correlationId"].as_str()), (Some("42"), Some(&*unescaped)));
    assert_eq!(web.post("/v1/queues/nobody/request?timeout=100", b"?").problem(504).0, "timed-out");
    server.stop();
}

#[test]
fn messages_cross_between_http_and_the_other_protocols() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    // MQTT to pull, by way of a virtual topic.
    web.post("/v1/queues/Consumer.A.VirtualTopic.temp/pull", b"").expect(200);
    let mut device = Mqtt::open(server.mqtt, sabir_mqtt::Version::V5);
    device.publish("VirtualTopic/temp", &Publication::new(b"21.5").qos(1).user("room", "kitchen"));
    let got = messages(web.post("/v1/queues/Consumer.A.VirtualTopic.temp/pull?wait=20000", b""));
    assert_eq!((&got[0]["body"], &got[0]["properties"]), (&json!("21.5"), &json!({"room":"kitchen"})));
    // curl to MQTT and STOMP.
    device.subscribe("news/#");
    let mut reader = stomp(server.stomp, "1.2");
    subscribe_as(&mut reader, "1", "/topic/news.today", "");
    let message = r#"{"body":"sun","contentType":"text/plain","properties":{"n":3}}"#;
    web.post_json("/v1/topics/news.today/messages", message).expect(201);
    let taken = device.take();
    assert_eq!((taken.topic.as_str(), &*taken.message.body), ("news/today", &b"sun"[..]));
    let frame = reader.frame();
    assert_eq!(
        (frame.header("n"), frame.header("property-types"), &*frame.body),
        (Some("3"), Some("n=i32"), &b"sun"[..])
    );
    server.stop();
}

#[test]
fn a_durable_subscription_is_made_pulled_from_and_deleted() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let target = "/v1/subscriptions/shop/audit";
    let put = |web: &mut Web, body: &str| {
        web.send("PUT", target, "Content-Type: application/json\r\n", body.as_bytes())
    };
    put(&mut web, r#"{"topic":"orders.>"}"#).expect(201);
    put(&mut web, r#"{"topic":"orders.>"}"#).expect(204);
    assert_eq!(put(&mut web, r#"{"topic":"queue://x"}"#).problem(400).1.as_deref(), Some("topic"));
    assert_eq!(put(&mut web, r#"{"topic":"x","selctor":"y"}"#).problem(400).0, "invalid-body");
    web.post_json("/v1/topics/orders.new/messages", r#"[{"body":"1"},{"body":"2"}]"#).expect(201);
    let got = messages(web.post(&format!("{target}/pull?max=1"), b""));
    assert_eq!((&got[0]["body"], &got[0]["destination"]), (&json!("1"), &json!("topic://orders.new")));
    assert_eq!(web.send("DELETE", target, "", b"").problem(409).0, "subscription-in-use");
    web.post(&format!("/v1/leases/{}/ack", got[0]["lease"].as_str().unwrap()), b"").expect(204);
    let mut reader = Web::new(server.http);
    reader.write("GET", &format!("{target}/stream?lease=8000"), "Accept: application/x-ndjson\r\n", b"");
    assert_eq!(reader.head().status, 200);
    let line: serde_json::Value = serde_json::from_slice(&reader.chunk()).unwrap();
    assert_eq!(line["body"], "2");
    web.post(&format!("/v1/leases/{}/ack", line["lease"].as_str().unwrap()), b"").expect(204);
    drop(reader);
    // The stream is kept for its reader for a while.
    let mut tries = 0;
    while web.send("DELETE", target, "", b"").status == 409 && tries < 100_000 {
        tries += 1;
    }
    web.send("DELETE", target, "", b"").problem(404);
    server.stop();
}

#[test]
fn a_restart_keeps_what_was_answered_and_gives_back_what_was_on_lease() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut web = Web::new(server.http);
    web.post_json("/v1/queues/kept/messages", r#"[{"body":"1"},{"body":"2"}]"#).expect(201);
    let got = messages(web.post("/v1/queues/kept/pull?max=2", b""));
    web.post(&format!("/v1/leases/{}/ack", got[0]["lease"].as_str().unwrap()), b"").expect(204);
    drop(server);
    let server = Server::start_in(dir.path(), &[]);
    let got = messages(Web::new(server.http).post("/v1/queues/kept/pull?max=5", b""));
    assert_eq!(got.iter().map(|one| one["body"].as_str().unwrap()).collect::<Vec<_>>(), ["2"]);
    server.stop();
}

#[test]
fn all_that_is_released_at_once_goes_to_who_waits_for_it() {
    const MESSAGES: usize = 9000;
    let server = Server::start(&[]);
    let mut client = Client::connect(tcp(server.stomp));
    let frame = crate::client::send("/queue/many", "", b"x");
    let frames = frame.repeat(MESSAGES + 1);
    client.write(&frames);
    client.send("/queue/other", b"x");
    let mut web = Web::new(server.http);
    // This one stays on lease, and so does its consumer.
    web.post("/v1/queues/many/pull?lease=300000", b"").expect(200);
    let mut leases = Vec::new();
    while leases.len() < MESSAGES {
        let reply = web.post("/v1/queues/many/pull?max=1000", b"").expect(200).json();
        let messages = reply["messages"].as_array().unwrap();
        leases.extend(messages.iter().map(|message| message["lease"].as_str().unwrap().to_owned()));
    }
    client.write(b"SUBSCRIBE\nid:1\ndestination:/queue/many\nreceipt:s\n\n\0");
    assert_eq!(client.frame().command, "RECEIPT");
    let verdicts = json!({ "release": leases }).to_string();
    web.post_json("/v1/leases", &verdicts).expect(200);
    for _ in 0..MESSAGES {
        assert_eq!(client.frame().command, "MESSAGE");
    }
}
