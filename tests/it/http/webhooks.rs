//! Webhooks over real sockets: the broker calls a server that the test is.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sabir_model::base64;
use serde_json::{Value, json};
use sha2::Sha256;

use super::receiver::{CLOSES, Receiver};
use super::web::{Reply, Web, messages};
use crate::crossing::parties::{Mqtt, Publication};
use crate::server::Server;

const LOOPBACK: (&str, &str) = ("webhooks.allowed_targets", "127.0.0.0/8");
const KEY: &[u8; 32] = b"a key of thirty-two bytes, as is";

fn secret() -> String {
    let mut out = b"whsec_".to_vec();
    base64::encode(KEY, &mut out);
    String::from_utf8(out).unwrap()
}

fn put(web: &mut Web, name: &str, definition: &Value) -> Reply {
    let target = format!("/v1/webhooks/{name}");
    web.send("PUT", &target, "Content-Type: application/json\r\n", definition.to_string().as_bytes())
}

fn shown(web: &mut Web, name: &str) -> Value {
    web.get(&format!("/v1/webhooks/{name}")).expect(200).json()
}

/// Waits until a webhook is as it should be.
#[track_caller]
fn await_hook(web: &mut Web, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..100_000 {
        let hook = shown(web, name);
        if is_so(&hook) {
            return hook;
        }
    }
    panic!("never so: {}", shown(web, name));
}

#[test]
fn a_message_of_a_device_is_posted_with_its_properties_and_a_signature() {
    let server = Server::start(&[LOOPBACK]);
    let receiver = Receiver::willing();
    let mut web = Web::new(server.http);
    let definition = json!({
        "source": "topic://sensors.*.temp", "url": receiver.url(), "secret": secret(),
        "headers": {"Authorization": "Bearer t0ken"},
    });
    let made = put(&mut web, "temps", &definition).expect(201).json();
    assert_eq!((&made["state"], &made["signed"]), (&json!("active"), &json!(true)));
    let mut device = Mqtt::open(server.mqtt, sabir_mqtt::Version::V5);
    device.publish("sensors/kitchen/temp", &Publication::new(b"21.5").qos(1).user("room", "kitchen"));
    let hit = receiver.hit();
    assert_eq!(hit.target, "/hook?x=1");
    assert_eq!(hit.header("host"), receiver.address.to_string());
    assert_eq!(hit.header("content-type"), "application/json");
    assert_eq!(hit.header("authorization"), "Bearer t0ken");
    let message = hit.json();
    assert_eq!(
        (&message["body"], &message["properties"], &message["destination"]),
        (&json!("21.5"), &json!({"room": "kitchen"}), &json!("topic://sensors.kitchen.temp"))
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    mac.update(format!("{}.{}.", hit.header("webhook-id"), hit.header("webhook-timestamp")).as_bytes());
    mac.update(&hit.body);
    let mut expected = b"v1,".to_vec();
    base64::encode(&mac.finalize().into_bytes(), &mut expected);
    assert_eq!(hit.header("webhook-signature").as_bytes(), expected);
    // The same connection serves again.
    device.publish("sensors/hall/temp", &Publication::new(b"19").qos(1));
    assert_eq!(receiver.hit().text(), "19");
    let hook = await_hook(&mut web, "temps", |hook| hook["delivered"] == 2);
    assert_eq!(receiver.connections(), 1);
    let text = hook.to_string();
    assert!(!text.contains("t0ken") && !text.contains("whsec"), "{text}");
    server.stop();
}

#[test]
fn a_failed_attempt_is_repeated_under_the_same_id_until_it_succeeds_once() {
    let server = Server::start(&[LOOPBACK]);
    let count = AtomicUsize::new(0);
    let receiver =
        Receiver::start(
            move |_| if count.fetch_add(1, Ordering::SeqCst) < 2 { (500, "") } else { (200, "") },
        );
    let mut web = Web::new(server.http);
    let definition = json!({"source": "queue://q", "url": receiver.url(), "retries": {"first": 1}});
    put(&mut web, "h", &definition).expect(201);
    web.post("/v1/queues/q/messages", b"1").expect(201);
    web.post("/v1/queues/q/messages", b"2").expect(201);
    let hits: Vec<_> = (0..4).map(|_| receiver.hit()).collect();
    let bodies: Vec<String> = hits.iter().map(|hit| hit.text()).collect();
    assert_eq!(bodies, ["1", "1", "1", "2"]);
    let attempts: Vec<&str> = hits.iter().map(|hit| hit.header("sabir-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3", "1"]);
    assert!(hits[..3].iter().all(|hit| hit.header("webhook-id") == hits[0].header("webhook-id")));
    assert_ne!(hits[3].header("webhook-id"), hits[0].header("webhook-id"));
    assert!(!hits[0].has("webhook-signature"), "there is no secret");
    let hook = await_hook(&mut web, "h", |hook| hook["delivered"] == 2);
    assert_eq!(
        (&hook["failed"], &hook["deadLettered"], &hook["lastStatus"]),
        (&json!(2), &json!(0), &json!(200))
    );
    assert!(hook["lastError"].as_str().unwrap().contains("500"), "{hook}");
    web.post("/v1/webhooks/h/pause", b"").expect(204);
    assert!(messages(web.post("/v1/queues/q/pull", b"")).is_empty());
    assert!(receiver.is_quiet());
    server.stop();
}

#[test]
fn a_receiver_that_is_gone_ends_the_webhook_and_not_the_message() {
    let server = Server::start(&[LOOPBACK]);
    let receiver = Receiver::start(|_| (410, ""));
    let mut web = Web::new(server.http);
    put(&mut web, "h", &json!({"source": "queue://q", "url": receiver.url()})).expect(201);
    web.post("/v1/queues/q/messages", b"x").expect(201);
    receiver.hit();
    let got = messages(web.post("/v1/queues/q/pull?wait=20000", b""));
    assert_eq!((&got[0]["body"], got.len()), (&json!("x"), 1));
    server.wait_for_line("answered 410");
    web.get("/v1/webhooks/h").problem(404);
    server.stop();
}

#[test]
fn what_fails_too_often_is_a_dead_letter_and_the_next_one_has_its_turn() {
    let server = Server::start(&[LOOPBACK]);
    let receiver = Receiver::start(|hit| if hit.text() == "bad" { (400, "") } else { (200, "") });
    let mut web = Web::new(server.http);
    let definition = json!({"source": "queue://q", "url": receiver.url(), "retries": {"max": 3, "first": 1}});
    put(&mut web, "h", &definition).expect(201);
    web.post("/v1/queues/q/messages", b"bad").expect(201);
    web.post("/v1/queues/q/messages", b"good").expect(201);
    let bodies: Vec<String> = (0..4).map(|_| receiver.hit().text()).collect();
    assert_eq!(bodies, ["bad", "bad", "bad", "good"]);
    let dead = messages(web.post("/v1/queues/ActiveMQ.DLQ/pull?wait=20000", b""));
    assert_eq!(dead[0]["body"], "bad");
    let hook = await_hook(&mut web, "h", |hook| hook["delivered"] == 1);
    assert_eq!((&hook["failed"], &hook["deadLettered"]), (&json!(3), &json!(1)));
    server.stop();
}

#[test]
fn a_redirect_is_not_followed() {
    let server = Server::start(&[LOOPBACK]);
    let elsewhere = Receiver::willing();
    let location: &'static str = format!("Location: {}\r\n", elsewhere.url()).leak();
    let receiver = Receiver::start(move |_| (307, location));
    let mut web = Web::new(server.http);
    let definition = json!({"source": "queue://q", "url": receiver.url(), "retries": {"max": 2, "first": 1}});
    put(&mut web, "h", &definition).expect(201);
    web.post("/v1/queues/q/messages", b"x").expect(201);
    assert_eq!(messages(web.post("/v1/queues/ActiveMQ.DLQ/pull?wait=20000", b"")).len(), 1);
    let hook = shown(&mut web, "h");
    assert_eq!(hook["lastStatus"], 307);
    assert!(hook["lastError"].as_str().unwrap().contains("redirects"), "{hook}");
    assert_eq!(elsewhere.connections(), 0);
    server.stop();
}

#[test]
fn a_receiver_that_asks_for_a_pause_gets_it_for_everything() {
    let server = Server::start(&[LOOPBACK]);
    let receiver = Receiver::start(|_| (429, "Retry-After: 3600\r\n"));
    let mut web = Web::new(server.http);
    let retries = json!({"first": 1, "ceiling": 7_200_000});
    let definition =
        json!({"source": "queue://q", "url": receiver.url(), "concurrency": 2, "retries": retries});
    put(&mut web, "h", &definition).expect(201);
    web.post("/v1/queues/q/messages", b"1").expect(201);
    assert_eq!(receiver.hit().text(), "1");
    let hook = await_hook(&mut web, "h", |hook| hook["state"] == "backing-off");
    let pause = hook["nextAttempt"].as_u64().unwrap() - hook["lastErrorAt"].as_u64().unwrap();
    assert!(pause >= 3_599_000, "{hook}");
    // The next one has been taken, and waits.
    web.post("/v1/queues/q/messages", b"2").expect(201);
    let hook = await_hook(&mut web, "h", |hook| hook["held"] == 2);
    assert_eq!((&hook["running"], &hook["state"]), (&json!(0), &json!("backing-off")));
    // Whoever deletes the webhook has both back, in order and uncounted.
    web.send("DELETE", "/v1/webhooks/h", "", b"").expect(204);
    let got = messages(web.post("/v1/queues/q/pull?max=5", b""));
    let bodies: Vec<_> = got.iter().map(|one| (one["body"].clone(), one["deliveryCount"].clone())).collect();
    assert_eq!(bodies, [(json!("1"), json!(1)), (json!("2"), json!(1))]);
    assert!(receiver.is_quiet());
    server.stop();
}

#[test]
fn definitions_and_what_waits_for_them_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::willing();
    let server = Server::start_in(dir.path(), &[LOOPBACK]);
    let mut web = Web::new(server.http);
    let definition =
        json!({"source": "topic://t.>", "url": receiver.url(), "secret": secret(), "paused": true});
    let made = put(&mut web, "kept", &definition).expect(201).json();
    put(&mut web, "deleted", &json!({"source": "queue://q", "url": receiver.url()})).expect(201);
    web.send("DELETE", "/v1/webhooks/deleted", "", b"").expect(204);
    web.post("/v1/topics/t.a/messages", b"while paused").expect(201);
    // Killed.
    drop(server);
    let server = Server::start_in(dir.path(), &[LOOPBACK]);
    let mut web = Web::new(server.http);
    assert_eq!(shown(&mut web, "kept"), made);
    let list = web.get("/v1/webhooks").expect(200).json();
    assert_eq!(
        (list["total"].as_u64(), list["items"].as_array().unwrap().len(), &list["next"]),
        (Some(1), 1, &Value::Null)
    );
    assert!(receiver.is_quiet());
    web.post("/v1/webhooks/kept/resume", b"").expect(204);
    let hit = receiver.hit();
    assert_eq!(hit.text(), "while paused");
    assert!(hit.header("webhook-signature").starts_with("v1,"), "the secret is kept, too");
    await_hook(&mut web, "kept", |hook| hook["delivered"] == 1);
    drop(server);
    let server = Server::start_in(dir.path(), &[LOOPBACK]);
    let mut web = Web::new(server.http);
    web.post("/v1/topics/t.b/messages", b"again").expect(201);
    let mut texts = vec![receiver.hit().text()];
    if texts[0] == "while paused" {
        // The acknowledgement may not have reached the disk before the kill.
        texts = vec![receiver.hit().text()];
    }
    assert_eq!(texts, ["again"]);
    server.stop();
}

#[test]
fn what_is_inside_is_not_called_unless_it_is_listed() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let own = server.http;
    for url in [
        &format!("http://{own}/v1/queues/q/messages"),
        "http://localhost/",
        "http://[::1]:80/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://2130706433/",
        "https://192.168.1.1/",
        "http://user:password@8.8.8.8/",
        "ftp://8.8.8.8/",
    ] {
        let (code, field) = put(&mut web, "h", &json!({"source": "queue://q", "url": url})).problem(400);
        assert_eq!((code.as_str(), field.as_deref()), ("invalid-body", Some("url")), "{url}");
    }
    web.get("/v1/webhooks/h").problem(404);
    server.stop();
}

#[test]
fn an_address_that_is_no_longer_listed_is_not_called_by_what_was_defined() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::willing();
    let server = Server::start_in(dir.path(), &[LOOPBACK]);
    let mut web = Web::new(server.http);
    put(&mut web, "h", &json!({"source": "queue://q", "url": receiver.url()})).expect(201);
    server.stop();
    let server = Server::start_in(dir.path(), &[]);
    let mut web = Web::new(server.http);
    web.post("/v1/queues/q/messages", b"x").expect(201);
    let hook = await_hook(&mut web, "h", |hook| hook["failed"] == 1);
    assert!(hook["lastError"].as_str().unwrap().contains("may not be called: it is loopback"), "{hook}");
    assert_eq!(receiver.connections(), 0);
    server.stop();
}

#[test]
fn a_receiver_that_does_not_answer_holds_back_no_other_webhook() {
    let server = Server::start(&[LOOPBACK, ("server.drain_timeout_ms", "200")]);
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let slow = Receiver::start(move |_| {
        held.wait();
        (200, "")
    });
    let quick = Receiver::willing();
    let mut web = Web::new(server.http);
    put(&mut web, "slow", &json!({"source": "queue://slow", "url": slow.url(), "timeout": 600_000}))
        .expect(201);
    put(&mut web, "quick", &json!({"source": "queue://quick", "url": quick.url()})).expect(201);
    for _ in 0..3 {
        web.post("/v1/queues/slow/messages", b"s").expect(201);
    }
    slow.hit();
    for number in 0..20 {
        web.post("/v1/queues/quick/messages", number.to_string().as_bytes()).expect(201);
        assert_eq!(quick.hit().text(), number.to_string());
    }
    let hook = shown(&mut web, "slow");
    assert_eq!((&hook["running"], &hook["delivered"]), (&json!(1), &json!(0)), "one at a time");
    gate.wait();
    slow.hit();
    await_hook(&mut web, "slow", |hook| hook["delivered"] == 1);
    // The second does not answer; stopping does not wait for it for long.
    server.stop();
}

#[test]
fn messages_of_a_group_stay_in_order_and_groups_do_not_wait_for_each_other() {
    let server = Server::start(&[LOOPBACK]);
    // The first of one group fails until the last of the other has come.
    let last_came = AtomicBool::new(false);
    let receiver = Receiver::start(move |hit| {
        last_came.fetch_or(hit.text() == "b3", Ordering::SeqCst);
        let fails = hit.text() == "a1" && !last_came.load(Ordering::SeqCst);
        (if fails { 503 } else { 200 }, "")
    });
    let mut web = Web::new(server.http);
    let definition = json!({
        "source": "queue://q", "url": receiver.url(), "concurrency": 4, "paused": true,
        "retries": {"max": 1000, "first": 50, "multiplier": 1, "ceiling": 100},
    });
    put(&mut web, "h", &definition).expect(201);
    for (group, body) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3"), ("b", "b2"), ("b", "b3")] {
        web.post(&format!("/v1/queues/q/messages?groupId={group}"), body.as_bytes()).expect(201);
    }
    web.post("/v1/webhooks/h/resume", b"").expect(204);
    let mut came: Vec<String> = Vec::new();
    while came.last().is_none_or(|last| last != "a3") {
        came.push(receiver.hit().text());
    }
    let of = |group: char| came.iter().filter(|one| one.starts_with(group)).cloned().collect::<Vec<_>>();
    let mut of_a = of('a');
    of_a.dedup();
    assert_eq!(of_a, ["a1", "a2", "a3"], "{came:?}");
    assert_eq!(of('b'), ["b1", "b2", "b3"], "{came:?}");
    assert_ne!(came[..2], ["a1", "a2"], "the first failed");
    await_hook(&mut web, "h", |hook| hook["delivered"] == 6);
    server.stop();
}

#[test]
fn what_is_under_way_at_a_shutdown_is_there_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| {
        loop {
            std::thread::park();
        }
    });
    let settings = [LOOPBACK, ("server.drain_timeout_ms", "100")];
    let server = Server::start_in(dir.path(), &settings);
    let mut web = Web::new(server.http);
    put(&mut web, "h", &json!({"source": "queue://q", "url": receiver.url(), "concurrency": 2})).expect(201);
    for body in ["1", "2", "3"] {
        web.post("/v1/queues/q/messages", body.as_bytes()).expect(201);
    }
    let first = [receiver.hit(), receiver.hit()];
    server.stop();
    let willing = Receiver::willing();
    let server = Server::start_in(dir.path(), &settings);
    let mut web = Web::new(server.http);
    put(&mut web, "h", &json!({"source": "queue://q", "url": willing.url()})).expect(200);
    // One may have gone to the old receiver again, and comes back when its webhook is redefined.
    let mut came: Vec<_> = (0..3).map(|_| willing.hit()).collect();
    came.sort_by_key(|hit| hit.text());
    assert_eq!(came.iter().map(|hit| hit.text()).collect::<Vec<_>>(), ["1", "2", "3"]);
    for hit in &first {
        let again = came.iter().find(|other| other.text() == hit.text()).unwrap();
        assert_eq!(again.header("webhook-id"), hit.header("webhook-id"), "a repetition can be told");
    }
    server.stop();
}

#[test]
fn a_receiver_over_tls_proves_its_name_by_an_authority_that_is_trusted() {
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/authority.pem");
    let receiver = Receiver::secure();
    let port = receiver.address.port();
    let targets = ("webhooks.allowed_targets", "localhost,127.0.0.1");
    let definition =
        |host: &str| json!({"source": "queue://q", "url": format!("https://{host}:{port}/hook")});
    // Trusted, and of that name.
    let server = Server::start(&[targets, ("webhooks.ca_file", authority)]);
    let mut web = Web::new(server.http);
    put(&mut web, "h", &definition("localhost")).expect(201);
    web.post("/v1/queues/q/messages", b"sealed").expect(201);
    assert_eq!(receiver.hit().text(), "sealed");
    // Trusted, and of another name.
    put(&mut web, "h", &definition("127.0.0.1")).expect(200);
    web.post("/v1/queues/q/messages", b"x").expect(201);
    let hook = await_hook(&mut web, "h", |hook| hook["failed"] == 1);
    assert!(hook["lastError"].as_str().unwrap().contains("certificate"), "{hook}");
    server.stop();
    // Of nobody whom browsers trust.
    let server = Server::start(&[targets]);
    let mut web = Web::new(server.http);
    put(&mut web, "h", &definition("localhost")).expect(201);
    web.post("/v1/queues/q/messages", b"x").expect(201);
    let hook = await_hook(&mut web, "h", |hook| hook["failed"] == 1);
    assert!(hook["lastError"].as_str().unwrap().contains("certificate"), "{hook}");
    assert!(receiver.is_quiet());
    server.stop();
    let server = Server::start(&[targets, ("webhooks.ca_file", "/nowhere.pem")]);
    let refused = put(&mut Web::new(server.http), "h", &definition("localhost")).problem(400);
    assert_eq!(refused.1.as_deref(), Some("url"));
    server.stop();
}

#[test]
fn a_pause_lets_what_is_under_way_end_and_a_resume_waits_for_it() {
    let server = Server::start(&[LOOPBACK]);
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let receiver = Receiver::start(move |hit| {
        if hit.text() == "1" {
            held.wait();
        }
        (200, "")
    });
    let mut web = Web::new(server.http);
    put(&mut web, "h", &json!({"source": "queue://q", "url": receiver.url(), "timeout": 600_000}))
        .expect(201);
    web.post("/v1/queues/q/messages", b"1").expect(201);
    assert_eq!(receiver.hit().text(), "1");
    web.post("/v1/queues/q/messages", b"2").expect(201);
    web.post("/v1/webhooks/h/pause", b"").expect(204);
    assert_eq!(shown(&mut web, "h")["state"], "paused");
    web.post("/v1/webhooks/h/resume", b"").expect(204);
    assert!(receiver.is_quiet(), "the second waits for the first");
    gate.wait();
    assert_eq!(receiver.hit().text(), "2");
    let hook = await_hook(&mut web, "h", |hook| hook["delivered"] == 2);
    assert_eq!(hook["failed"], 0);
    assert!(receiver.is_quiet(), "nothing came twice");
    server.stop();
}

#[test]
fn a_connection_that_the_receiver_has_closed_costs_no_attempt() {
    let server = Server::start(&[LOOPBACK]);
    let receiver = Receiver::start(|_| (200, CLOSES));
    let mut web = Web::new(server.http);
    let definition = json!({"source": "queue://q", "url": receiver.url(), "concurrency": 2});
    put(&mut web, "h", &definition).expect(201);
    for number in 0..20 {
        web.post("/v1/queues/q/messages", number.to_string().as_bytes()).expect(201);
    }
    let hook = await_hook(&mut web, "h", |hook| hook["delivered"] == 20);
    assert_eq!(hook["failed"], 0, "{hook}");
    server.stop();
}

#[test]
fn an_answer_whose_head_is_too_large_is_none() {
    let server = Server::start(&[LOOPBACK]);
    let headers: &'static str = format!("X-Fill: {}\r\n", "x".repeat(64 * 1024)).leak();
    let receiver = Receiver::start(move |hit| if hit.text() == "1" { (200, headers) } else { (200, "") });
    let mut web = Web::new(server.http);
    let definition = json!({"source": "queue://q", "url": receiver.url(), "retries": {"max": 1}});
    put(&mut web, "h", &definition).expect(201);
    web.post("/v1/queues/q/messages", b"1").expect(201);
    web.post("/v1/queues/q/messages", b"2").expect(201);
    let hook = await_hook(&mut web, "h", |hook| hook["delivered"] == 1);
    assert_eq!((&hook["failed"], &hook["deadLettered"]), (&json!(1), &json!(1)), "{hook}");
    server.stop();
}

#[test]
fn raw_messages_and_events_are_other_forms() {
    let server = Server::start(&[LOOPBACK]);
    let (raw, event) = (Receiver::willing(), Receiver::willing());
    let mut web = Web::new(server.http);
    put(&mut web, "raw", &json!({"source": "topic://t", "url": raw.url(), "format": "raw"})).expect(201);
    put(&mut web, "event", &json!({"source": "topic://t", "url": event.url(), "format": "cloudevents"}))
        .expect(201);
    let headers = "Content-Type: image/png\r\nX-Prop-order%49d: a%20b\r\n";
    web.send("POST", "/v1/topics/t/messages?correlationId=c%20d", headers, b"\x89\0").expect(201);
    let hit = raw.hit();
    assert_eq!((&*hit.body, hit.header("content-type")), (&b"\x89\0"[..], "image/png"));
    assert_eq!((hit.header("x-prop-order%49d"), hit.header("sabir-correlation-id")), ("a%20b", "c%20d"));
    assert_eq!(hit.header("sabir-destination"), "topic://t");
    let hit = event.hit();
    assert!(hit.header("content-type").starts_with("application/cloudevents+json"));
    let event = hit.json();
    assert_eq!((&event["specversion"], &event["data_base64"]), (&json!("1.0"), &json!("iQA=")), "{event}");
    server.stop();
}

#[test]
fn a_durable_subscription_of_somebody_else_can_be_pushed() {
    let server = Server::start(&[LOOPBACK]);
    let receiver = Receiver::willing();
    let mut web = Web::new(server.http);
    let source = json!({"client": "shop", "name": "audit"});
    let definition = json!({"source": source, "url": receiver.url()});
    assert_eq!(put(&mut web, "h", &definition).problem(404).0, "unknown-subscription");
    let wanted = br#"{"topic":"orders.>"}"#;
    web.send("PUT", "/v1/subscriptions/shop/audit", "Content-Type: application/json\r\n", wanted).expect(201);
    web.post("/v1/topics/orders.eu/messages", b"before").expect(201);
    put(&mut web, "h", &definition).expect(201);
    assert_eq!(receiver.hit().text(), "before");
    await_hook(&mut web, "h", |hook| hook["delivered"] == 1);
    // The subscription stays when the webhook goes.
    web.send("DELETE", "/v1/webhooks/h", "", b"").expect(204);
    web.post("/v1/topics/orders.eu/messages", b"after").expect(201);
    assert_eq!(messages(web.post("/v1/subscriptions/shop/audit/pull", b""))[0]["body"], "after");
    server.stop();
}

#[test]
fn webhooks_are_listed_in_pages_and_within_limits() {
    let server = Server::start(&[LOOPBACK, ("webhooks.count_max", "3"), ("webhooks.concurrency_max", "10")]);
    let receiver = Receiver::willing();
    let mut web = Web::new(server.http);
    let definition =
        |concurrency: u32| json!({"source": "queue://q", "url": receiver.url(), "concurrency": concurrency});
    for name in ["orders-eu", "orders-us", "mail"] {
        put(&mut web, name, &definition(3)).expect(201);
    }
    assert_eq!(put(&mut web, "more", &definition(1)).problem(429).0, "limit-reached");
    let (code, field) = put(&mut web, "mail", &definition(5)).problem(429);
    assert_eq!((code.as_str(), field.as_deref()), ("limit-reached", Some("concurrency")));
    put(&mut web, "mail", &definition(4)).expect(200);
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let page = web.get("/v1/webhooks?limit=2").expect(200).json();
    assert_eq!(
        (names(&page), &page["next"], &page["total"]),
        (vec!["mail".into(), "orders-eu".into()], &json!("orders-eu"), &json!(3))
    );
    let page = web.get("/v1/webhooks?limit=2&after=orders-eu").expect(200).json();
    assert_eq!((names(&page), &page["next"]), (vec!["orders-us".into()], &Value::Null));
    let page = web.get("/v1/webhooks?filter=ORD*us").expect(200).json();
    assert_eq!((names(&page), &page["total"]), (vec!["orders-us".into()], &json!(1)));
    assert_eq!(web.get("/v1/webhooks?limt=2").problem(400).1.as_deref(), Some("limt"));
    assert_eq!(
        put(&mut web, "x", &json!({"source": "queue://q", "uri": "x"})).problem(400).1.as_deref(),
        Some("uri")
    );
    web.post("/v1/webhooks/none/pause", b"").problem(404);
    assert_eq!(put(&mut web, "x?vhost=none", &definition(1)).status, 429, "the limit is all hosts'");
    web.send("DELETE", "/v1/webhooks/mail", "", b"").expect(204);
    assert_eq!(put(&mut web, "x?vhost=none", &definition(1)).problem(404).0, "unknown-destination");
    server.stop();
}

#[test]
fn who_may_not_manage_the_source_may_not_define_see_or_stop_its_webhooks() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sabir.toml");
    let rules = r#"
        [[permission]]
        effect = "allow"
        users = ["*"]
        actions = ["manage"]
        destinations = ["queue://mine.>", "queue://blind.>"]
        [[permission]]
        effect = "deny"
        users = ["*"]
        actions = ["consume"]
        destinations = ["queue://blind.>"]
        [[permission]]
        effect = "allow"
        users = ["*"]
        actions = ["connect", "send", "consume", "create"]
    "#;
    std::fs::write(&config, rules).unwrap();
    let server = Server::start_in(dir.path(), &[LOOPBACK, ("--config", config.to_str().unwrap())]);
    let receiver = Receiver::willing();
    let mut web = Web::new(server.http);
    put(&mut web, "h", &json!({"source": "queue://mine.a", "url": receiver.url()})).expect(201);
    for source in ["queue://theirs.a", "topic://mine.a", "queue://blind.a"] {
        let refused = put(&mut web, "h", &json!({"source": source, "url": receiver.url()})).problem(403);
        assert_eq!(refused.0, "access-denied", "{source}");
    }
    // What was refused has changed nothing.
    assert_eq!(shown(&mut web, "h")["source"], "queue://mine.a");
    web.post("/v1/queues/mine.a/messages", b"x").expect(201);
    assert_eq!(receiver.hit().text(), "x");
    server.stop();
}
