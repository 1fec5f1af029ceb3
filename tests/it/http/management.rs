//! The management API: what there is, and changing it.

use serde_json::{Value, json};

use super::access::{ALICE, BOB, add_user};
use super::web::{Web, messages};
use crate::client::{Client, tcp};
use crate::server::Server;

fn items(web: &mut Web, target: &str) -> Vec<Value> {
    web.get(target).expect(200).json()["items"].as_array().unwrap().clone()
}

fn names(web: &mut Web, target: &str) -> Vec<String> {
    items(web, target).iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn send(web: &mut Web, queue: &str, count: usize) {
    let all: Vec<Value> = (0..count).map(|n| json!({ "body": n.to_string() })).collect();
    web.post_json(&format!("/v1/queues/{queue}/messages"), &Value::from(all).to_string()).expect(201);
}

#[test]
fn queues_are_listed_by_pages_that_follow_each_other() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    for (queue, count) in [("b.one", 1), ("a.one", 2), ("a.two", 3), ("c", 1)] {
        send(&mut web, queue, count);
    }
    assert_eq!(names(&mut web, "/v1/queues"), ["a.one", "a.two", "b.one", "c"]);
    assert_eq!(names(&mut web, "/v1/queues?sort=-ready"), ["a.two", "a.one", "b.one", "c"]);
    assert_eq!(names(&mut web, "/v1/queues?filter=ONE"), ["a.one", "b.one"]);
    assert_eq!(names(&mut web, "/v1/queues?filter=a*e"), ["a.one"]);
    let mut seen = Vec::new();
    let mut target = "/v1/queues?limit=1&sort=-ready".to_owned();
    loop {
        let page = web.get(&target).expect(200).json();
        assert_eq!(page["total"], 4);
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/v1/queues?limit=1&sort=-ready&after={next}");
    }
    assert_eq!(seen, ["a.two", "a.one", "b.one", "c"]);
    for (target, field) in [
        ("/v1/queues?limit=0", "limit"),
        ("/v1/queues?limit=1001", "limit"),
        ("/v1/queues?sort=size", "sort"),
        ("/v1/queues?after=nonsense", "after"),
        ("/v1/queues?page=2", "page"),
        ("/v1/topics?sort=name", "sort"),
        ("/v1/overview?x=1", "x"),
    ] {
        let problem = web.get(target).problem(400);
        assert_eq!(problem, ("invalid-header".to_owned(), Some(field.to_owned())), "{target}");
    }
    assert_eq!(web.get("/v1/queues?vhost=nowhere").problem(404).0, "unknown-destination");
    assert_eq!(web.get("/v1/queues/nothing").problem(404).0, "unknown-destination");
    server.stop();
}

#[test]
fn a_queue_tells_all_about_itself() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    send(&mut web, "q", 3);
    let pulled = messages(web.post("/v1/queues/q/pull?selector=JMSPriority%3D4", b""));
    let queue = web.get("/v1/queues/q").expect(200).json();
    for (key, value) in [
        ("name", json!("q")),
        ("destination", json!("queue://q")),
        ("kind", json!("queue")),
        ("durability", json!("fsync")),
        ("ready", json!(2)),
        ("unsettled", json!(1)),
        ("consumers", json!(1)),
        ("enqueued", json!(3)),
        ("delivered", json!(1)),
        ("acknowledged", json!(0)),
        ("redelivered", json!(0)),
        ("paused", json!(false)),
        ("declared", json!(false)),
        ("bindings", json!([])),
    ] {
        assert_eq!(queue[key], value, "{key} of {queue}");
    }
    assert!(queue["bytes"].as_u64().unwrap() > 0 && queue["oldestMs"].is_u64(), "{queue}");
    assert_eq!(queue["policy"]["deliveryLimit"], 7);
    let consumer = &queue["consumersList"][0];
    assert_eq!((&consumer["inFlight"], &consumer["selector"]), (&json!(1), &json!("JMSPriority=4")));
    let connection = consumer["connection"].as_str().unwrap();
    let connection = web.get(&format!("/v1/connections/{connection}")).expect(200).json();
    assert_eq!(connection["subscriptionsList"][0]["destination"], "queue://q");
    let lease = pulled[0]["lease"].as_str().unwrap();
    web.post(&format!("/v1/leases/{lease}/ack"), b"").expect(204);
    let queue = web.get("/v1/queues/q").expect(200).json();
    assert_eq!((&queue["acknowledged"], &queue["unsettled"]), (&json!(1), &json!(0)));
    server.stop();
}

#[test]
fn the_overview_and_the_virtual_hosts_count_what_there_is() {
    let server = Server::start(&[("server.virtual_hosts", "shop")]);
    let mut web = Web::new(server.http);
    let mut client = Client::connect(tcp(server.stomp));
    client.send("/queue/q", b"1");
    client.subscribe("/topic/t");
    web.post("/v1/queues/other/messages?vhost=shop", b"x").expect(201);
    let overview = web.get("/v1/overview").expect(200).json();
    for (key, value) in [
        ("queues", json!(2)),
        ("topics", json!(1)),
        ("ready", json!(2)),
        ("unsettled", json!(0)),
        ("published", json!(2)),
        ("storeBytesMax", json!(null)),
    ] {
        assert_eq!(overview[key], value, "{key} of {overview}");
    }
    assert_eq!(overview["connectionsByProtocol"]["stomp"], 1);
    assert!(overview["memoryBytesMax"].as_u64().unwrap() > 0);
    let hosts = items(&mut web, "/v1/vhosts");
    assert_eq!(
        hosts,
        [json!({"name":"/","queues":1,"topics":1}), json!({"name":"shop","queues":1,"topics":0})]
    );
    assert_eq!(names(&mut web, "/v1/queues?vhost=shop"), ["other"]);
    server.stop();
}

#[test]
fn topics_tell_who_listens_and_which_queues_get_copies() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let mut client = Client::connect(tcp(server.stomp));
    client.subscribe("/topic/news.sport");
    client.subscribe("/queue/Consumer.G.VirtualTopic.orders");
    web.post("/v1/topics/weather/messages?retained=true", b"rain").expect(201);
    web.post("/v1/topics/VirtualTopic.orders/messages?retained=true", b"1").expect(201);
    let all = items(&mut web, "/v1/topics");
    let shown: Vec<_> = all
        .iter()
        .map(|topic| (topic["name"].as_str().unwrap(), topic["retained"].clone(), topic["virtual"].clone()))
        .collect();
    assert_eq!(
        shown,
        [
            ("VirtualTopic.orders", json!(true), json!(true)),
            ("news.sport", json!(false), json!(false)),
            ("weather", json!(true), json!(false)),
        ]
    );
    let topic = web.get("/v1/topics/news.sport").expect(200).json();
    assert_eq!(topic["subscribers"], 1);
    assert!(topic["subscribersList"][0]["connection"].is_string(), "{topic}");
    let topic = web.get("/v1/topics/VirtualTopic.orders").expect(200).json();
    assert_eq!(topic["boundQueues"], json!([{"queue": "Consumer.G.VirtualTopic.orders"}]));
    web.send("DELETE", "/v1/topics/weather/retained", "", b"").expect(204);
    assert_eq!(
        web.send("DELETE", "/v1/topics/weather/retained", "", b"").problem(404).0,
        "unknown-destination"
    );
    assert_eq!(web.get("/v1/topics/weather").expect(200).json()["retained"], false);
    server.stop();
}

#[test]
fn rules_and_policies_are_shown_as_they_are_in_force() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let rules = web.get("/v1/rules").expect(200).json();
    assert_eq!(rules["virtualTopics"][0]["prefix"], "Consumer.*.");
    assert_eq!((&rules["composites"], &rules["mirroredQueues"]), (&json!([]), &json!(null)));
    let policies = web.get("/v1/policies").expect(200).json();
    let all = policies["items"].as_array().unwrap();
    assert_eq!(policies["total"], all.len());
    let last = all.last().unwrap();
    assert_eq!((&last["pattern"], &last["durability"]), (&json!(null), &json!("fsync")));
    server.stop();
}

#[test]
fn queues_are_declared_purged_and_deleted() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let made = web.send("PUT", "/v1/queues/q", "", b"").expect(201).json();
    assert_eq!((&made["name"], &made["declared"]), (&json!("q"), &json!(true)));
    web.send("PUT", "/v1/queues/q", "", b"").expect(200);
    send(&mut web, "q", 5);
    assert_eq!(web.send("DELETE", "/v1/queues/q?ifEmpty=true", "", b"").problem(409).0, "conflict");
    assert_eq!(web.post("/v1/queues/q/purge", b"").expect(200).json(), json!({ "removed": 5 }));
    let mut client = Client::connect(tcp(server.stomp));
    client.subscribe("/queue/q");
    assert_eq!(web.send("DELETE", "/v1/queues/q?ifUnused=true", "", b"").problem(409).0, "conflict");
    web.send("DELETE", "/v1/queues/q?ifEmpty=true", "", b"").expect(204);
    client.expect_error("unknown-destination");
    web.send("DELETE", "/v1/queues/q", "", b"").problem(404);
    web.post("/v1/queues/q/purge", b"").problem(404);
    let problem = web.send("DELETE", "/v1/queues/q?ifempty=true", "", b"").problem(400);
    assert_eq!(problem.1.as_deref(), Some("ifempty"));
    server.stop();
}

#[test]
fn a_pause_and_a_declaration_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut web = Web::new(server.http);
    web.send("PUT", "/v1/queues/kept", "", b"").expect(201);
    send(&mut web, "q", 1);
    web.post("/v1/queues/q/pause", b"").expect(204);
    assert!(messages(web.post("/v1/queues/q/pull", b"")).is_empty());
    drop(web);
    server.stop();
    let server = Server::start_in(dir.path(), &[]);
    let mut web = Web::new(server.http);
    assert_eq!(web.get("/v1/queues/kept").expect(200).json()["declared"], true);
    assert_eq!(web.get("/v1/queues/q").expect(200).json()["paused"], true);
    send(&mut web, "q", 1);
    assert!(messages(web.post("/v1/queues/q/pull?max=9", b"")).is_empty());
    web.post("/v1/queues/q/resume", b"").expect(204);
    assert_eq!(messages(web.post("/v1/queues/q/pull?max=9", b"")).len(), 2);
    server.stop();
}

#[test]
fn durable_subscriptions_are_made_listed_and_deleted() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let target = "/v1/subscriptions/c/s";
    let put = |web: &mut Web, body: Value| {
        web.send("PUT", target, "Content-Type: application/json\r\n", body.to_string().as_bytes())
    };
    put(&mut web, json!({"topic": "a.*", "selector": "n > 1"})).expect(201);
    put(&mut web, json!({"topic": "a.*", "selector": "n > 1"})).expect(204);
    web.post_json("/v1/topics/a.b/messages", &json!({"properties": {"n": 2}}).to_string()).expect(201);
    let shown = json!({
        "client": "c", "name": "s", "pattern": "topic://a.*", "selector": "n > 1",
        "queue": "durable://c:s", "connected": false, "ready": 1,
    });
    assert_eq!(Value::from(items(&mut web, "/v1/subscriptions?filter=c*s")), json!([shown]));
    assert_eq!(web.get(target).expect(200).json(), shown);
    let queue = web.get("/v1/queues/durable:%2F%2Fc:s").expect(200).json();
    assert_eq!((&queue["kind"], &queue["bindings"]), (&json!("durable"), &json!(["topic://a.*"])));
    assert_eq!(put(&mut web, json!({"topic": "queue://a"})).problem(400).0, "invalid-destination");
    assert_eq!(put(&mut web, json!({"topic": "a", "selector": "n >"})).problem(400).0, "invalid-selector");
    assert_eq!(put(&mut web, json!({"topic": "a", "x": 1})).problem(400).0, "invalid-body");
    web.send("PUT", target, "Content-Type: text/plain\r\n", b"{}").problem(415);
    web.send("DELETE", target, "", b"").expect(204);
    assert_eq!(web.send("DELETE", target, "", b"").problem(404).0, "unknown-subscription");
    assert_eq!(web.get(target).problem(404).0, "unknown-subscription");
    server.stop();
}

#[test]
fn connections_are_listed_and_closed_by_their_number() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let mut client = Client::connect(tcp(server.stomp));
    client.send("/queue/q", b"1");
    client.subscribe("/queue/q");
    assert_eq!(client.frame().command, "MESSAGE");
    let list = items(&mut web, "/v1/connections?filter=stomp");
    let [connection] = list.as_slice() else { panic!("{list:?}") };
    for (key, value) in [
        ("protocol", json!("STOMP 1.2")),
        ("user", json!(null)),
        ("subscriptions", json!(1)),
        ("published", json!(1)),
        ("delivered", json!(1)),
    ] {
        assert_eq!(connection[key], value, "{key} of {connection}");
    }
    let target = format!("/v1/connections/{}", connection["id"].as_str().unwrap());
    let detail = web.get(&target).expect(200).json();
    assert_eq!(detail["subscriptionsList"][0]["destination"], "queue://q");
    web.send("DELETE", &target, "", b"").expect(204);
    client.expect_error("closed-by-operator");
    web.send("DELETE", "/v1/connections/99999999", "", b"").problem(404);
    web.get("/v1/connections/x").problem(404);
    server.stop();
}

#[test]
fn an_http_sender_that_is_closed_is_another_one_with_its_next_message() {
    let server = Server::start(&[]);
    let (mut web, mut sender) = (Web::new(server.http), Web::new(server.http));
    sender.post("/v1/queues/q/messages", b"1").expect(201);
    let id = items(&mut web, "/v1/connections?filter=http")[0]["id"].as_str().unwrap().to_owned();
    web.send("DELETE", &format!("/v1/connections/{id}"), "", b"").expect(204);
    sender.post("/v1/queues/q/messages", b"2").expect(201);
    web.get(&format!("/v1/connections/{id}")).problem(404);
    server.stop();
}

#[test]
fn only_who_may_manage_sees_and_changes_anything() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "alice");
    add_user(dir.path(), "bob");
    let rules = r#"
        [[permission]]
        effect = "allow"
        users = ["alice"]
        actions = ["*"]
        [[permission]]
        effect = "allow"
        users = ["bob"]
        actions = ["connect"]
        [[permission]]
        effect = "allow"
        users = ["bob"]
        actions = ["manage", "send", "create", "consume"]
        destinations = ["queue://bobs.>", "topic://bobs.>"]
    "#;
    let config = dir.path().join("rules.toml");
    std::fs::write(&config, rules).unwrap();
    let server = Server::start_in(dir.path(), &[("--config", config.to_str().unwrap())]);
    let mut web = Web::new(server.http);
    for (method, target) in [
        ("GET", "/v1/overview"),
        ("GET", "/v1/vhosts"),
        ("GET", "/v1/queues"),
        ("GET", "/v1/topics"),
        ("GET", "/v1/subscriptions"),
        ("GET", "/v1/subscriptions/c/s"),
        ("GET", "/v1/connections"),
        ("GET", "/v1/connections/1"),
        ("DELETE", "/v1/connections/1"),
        ("GET", "/v1/rules"),
        ("GET", "/v1/policies"),
        ("GET", "/v1/queues/other"),
        ("PUT", "/v1/queues/other"),
        ("DELETE", "/v1/queues/other"),
        ("POST", "/v1/queues/other/purge"),
        ("POST", "/v1/queues/other/pause"),
        ("POST", "/v1/queues/other/resume"),
        ("GET", "/v1/queues/durable:%2F%2Fc:s"),
        ("GET", "/v1/topics/other"),
        ("DELETE", "/v1/topics/other/retained"),
    ] {
        web.send(method, target, "", b"").problem(401);
        assert_eq!(web.send(method, target, BOB, b"").problem(403).0, "access-denied", "{method} {target}");
    }
    web.send("PUT", "/v1/queues/bobs.own", BOB, b"").expect(201);
    web.send("GET", "/v1/queues/bobs.own", BOB, b"").expect(200);
    web.send("POST", "/v1/queues/bobs.own/purge", BOB, b"").expect(200);
    let json = |who: &str| format!("{who}Content-Type: application/json\r\n");
    let target = "/v1/subscriptions/c/s";
    web.send("PUT", target, &json(BOB), br#"{"topic":"bobs.news"}"#).expect(201);
    web.send("PUT", target, &json(BOB), br#"{"topic":"other"}"#).problem(403);
    web.send("PUT", target, &json(ALICE), br#"{"topic":"other"}"#).expect(201);
    web.send("DELETE", target, BOB, b"").problem(403);
    web.send("DELETE", target, ALICE, b"").expect(204);
    web.send("GET", "/v1/overview", ALICE, b"").expect(200);
    server.stop();
}

#[test]
fn the_routing_picture_is_drawn_of_what_has_flowed() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let mut client = Client::connect(tcp(server.stomp));
    client.subscribe("/topic/t");
    web.post("/v1/topics/t/messages", b"1").expect(201);
    send(&mut web, "q", 2);
    let picture = web.get("/v1/routing").expect(200).json();
    let edges = picture["edges"].as_array().unwrap();
    let edge = |to: &str| edges.iter().find(|edge| edge["to"] == to).unwrap_or_else(|| panic!("{picture}"));
    assert_eq!((&edge("topic:t")["kind"], &edge("topic:t")["messages"]), (&json!("publish"), &json!(1)));
    assert_eq!(edge("queue:q")["messages"], 2);
    assert!(edges.iter().any(|edge| edge["from"] == "topic:t" && edge["kind"] == "consume"), "{picture}");
    assert_eq!(picture["truncated"], false);
    let picture = web.get("/v1/routing?limit=1").expect(200).json();
    assert_eq!((&picture["truncated"], &picture["nodes"][0]["label"]), (&json!(true), &json!("q")));
    assert_eq!(web.get("/v1/routing?limit=0").problem(400).1.as_deref(), Some("limit"));
    server.stop();
}

#[test]
fn metrics_are_of_the_busiest_destinations_and_in_the_format_that_is_asked_for() {
    let server = Server::start(&[("http.metrics_rows_max", "1")]);
    let mut web = Web::new(server.http);
    let mut client = Client::connect(tcp(server.stomp));
    client.subscribe("/queue/calm");
    send(&mut web, "busy", 2);
    web.post("/v1/topics/t/messages", b"1").expect(201);
    let page = web.get("/metrics").expect(200).text();
    for line in [
        "sabir_queue_messages_ready{queue=\"queue://busy\"} 2",
        "sabir_queues_without_rows 1",
        "sabir_topic_messages_received_total{topic=\"topic://t\"} 1",
        "sabir_topics_without_rows 0",
        "sabir_protocol_connections{protocol=\"stomp\"} 1",
    ] {
        assert!(page.lines().any(|known| known == line), "no {line} in\n{page}");
    }
    assert!(!page.contains("queue://calm"), "{page}");
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let reply = web.send("GET", "/metrics", accept, b"").expect(200);
    assert!(reply.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(reply.text().ends_with("# EOF\n"));
    server.stop();
}
