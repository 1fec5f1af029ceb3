//! Messages that wait, and dead letters, as management sees them and what it does with them, over real sockets.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::web::{Reply, Web, messages};
use crate::server::Server;

/// The numbers and bodies that a queue holds.
#[track_caller]
fn held(web: &mut Web, queue: &str) -> Vec<(u64, String)> {
    let page = web.get(&format!("/v1/queues/{queue}/messages?limit=1000")).expect(200).json();
    let items = page["items"].as_array().unwrap().iter();
    items.map(|one| (one["sequence"].as_u64().unwrap(), one["body"].as_str().unwrap().to_owned())).collect()
}

#[track_caller]
fn bodies(web: &mut Web, queue: &str) -> String {
    held(web, queue).into_iter().map(|(_, body)| body).collect::<Vec<_>>().join(" ")
}

fn fill(web: &mut Web, queue: &str, bodies: &[&str]) {
    let batch: Vec<Value> = bodies.iter().map(|body| json!({ "body": body })).collect();
    web.post_json(&format!("/v1/queues/{queue}/messages"), &json!(batch).to_string()).expect(201);
}

fn order(web: &mut Web, path: &str, body: &Value) -> Reply {
    web.post_json(path, &body.to_string())
}

/// Has everything in a queue rejected.
fn reject(web: &mut Web, queue: &str) {
    for message in messages(web.post(&format!("/v1/queues/{queue}/pull?max=1000"), b"")) {
        let lease = message["lease"].as_str().unwrap();
        web.post(&format!("/v1/leases/{lease}/reject"), b"").expect(204);
    }
}

#[test]
fn a_queue_is_looked_at_page_by_page_and_keeps_what_it_has() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    for n in 0..5 {
        let message = json!({
            "body": format!("number {n}"), "priority": n, "type": "t", "properties": { "n": n, "odd": n % 2 == 1 }
        });
        order(&mut web, "/v1/queues/eu.orders/messages", &message).expect(201);
    }
    let long = "é".repeat(5000);
    order(&mut web, "/v1/queues/eu.orders/messages", &json!({ "body": long })).expect(201);
    order(&mut web, "/v1/queues/eu.orders/messages", &json!({ "body": { "deep": [1, "Needle"] } }))
        .expect(201);
    let taken = messages(web.post("/v1/queues/eu.orders/pull", b""));

    let first = web.get("/v1/queues/eu.orders/messages?limit=2").expect(200).json();
    assert_eq!((&first["next"], &first["total"]), (&json!("2"), &json!(7)));
    let states: Vec<&Value> = first["items"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["unsettled", "ready"]);
    let second = &first["items"][1];
    assert_eq!(second["destination"], "queue://eu.orders");
    assert_eq!((&second["attempts"], &second["deliveryCount"]), (&json!(0), &json!(0)));
    assert_eq!((&second["bodyBytes"], &second["bodyTruncated"]), (&json!(8), &json!(false)));
    assert_eq!(second["properties"], json!({ "n": 1, "odd": true }));
    assert!(second.get("deadLetter").is_none(), "{second}");
    let rest = web.get("/v1/queues/eu.orders/messages?after=5&limit=5").expect(200).json();
    assert_eq!((&rest["next"], rest["items"].as_array().unwrap().len()), (&Value::Null, 2));
    let cut = &rest["items"][0];
    assert_eq!((&cut["bodyBytes"], &cut["bodyTruncated"]), (&json!(10_000), &json!(true)));
    assert_eq!(cut["body"], "é".repeat(2048));
    let whole = web.get("/v1/queues/eu.orders/messages/6").expect(200).json();
    assert_eq!((&whole["body"], &whole["bodyTruncated"]), (&json!(long), &json!(false)));

    let found = |web: &mut Web, query: &str| {
        let page = web.get(&format!("/v1/queues/eu.orders/messages?{query}")).expect(200).json();
        assert_eq!(page["total"], Value::Null, "nobody has counted what matches");
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|one| one["sequence"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(found(&mut web, "selector=odd%20AND%20JMSPriority%20%3E%201"), [4]);
    assert_eq!(found(&mut web, "text=NUMBER%203"), [4]);
    assert_eq!(found(&mut web, "text=needle"), [7]);
    assert_eq!(
        found(&mut web, "text=number&selector=n%20BETWEEN%200%20AND%202%20AND%20n%20%3C%3E%201"),
        [1, 3]
    );
    // Nothing of this has taken anything.
    assert_eq!(messages(web.post("/v1/queues/eu.orders/pull?max=10", b"")).len(), 6);
    web.post(&format!("/v1/leases/{}/ack", taken[0]["lease"].as_str().unwrap()), b"").expect(204);
    assert_eq!(web.get("/v1/queues/eu.orders/messages/1").problem(404).0, "unknown-delivery");

    // What waits for a subscription goes by the name that management lists it under.
    web.send(
        "PUT",
        "/v1/subscriptions/shop/all",
        "Content-Type: application/json\r\n",
        b"{\"topic\":\"prices.>\"}",
    );
    web.post("/v1/topics/prices.eu/messages", b"x").expect(201);
    let page = web.get("/v1/queues/durable%3A%2F%2Fshop%3Aall/messages").expect(200).json();
    assert_eq!(page["items"][0]["destination"], "topic://prices.eu");

    for (query, field) in
        [("limit=0", "limit"), ("after=x", "after"), ("selector=1%3D", "selector"), ("wiat=1", "wiat")]
    {
        let refused = web.get(&format!("/v1/queues/eu.orders/messages?{query}")).problem(400);
        assert_eq!(refused.1.as_deref(), Some(field), "{query}");
    }
    assert_eq!(web.get("/v1/queues/nothing/messages").problem(404).0, "unknown-destination");
    assert_eq!(web.get("/v1/queues/eu.orders/messages?vhost=none").problem(404).0, "unknown-destination");
    server.stop();
}

#[test]
fn messages_are_moved_copied_and_deleted_but_not_out_of_a_consumers_hands() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    fill(&mut web, "q", &["a", "b", "c", "d", "e", "f"]);
    let leased = messages(web.post("/v1/queues/q/pull?lease=60000", b""));
    assert_eq!(leased[0]["body"], "a");

    let reply =
        order(&mut web, "/v1/queues/q/messages/copy", &json!({"to": "queue://copy", "all": true, "max": 2}));
    assert_eq!(reply.expect(200).json(), json!({"copied": 2, "unsettled": 0}));
    assert_eq!((bodies(&mut web, "copy"), bodies(&mut web, "q")), ("a b".into(), "a b c d e f".into()));
    let reply = order(
        &mut web,
        "/v1/queues/q/messages/move",
        &json!({"to": "queue://x", "sequences": [1, 3, 2, 99]}),
    );
    assert_eq!(reply.expect(200).json(), json!({"moved": 2, "unsettled": 1}));
    assert_eq!((bodies(&mut web, "x"), bodies(&mut web, "q")), ("b c".into(), "a d e f".into()));
    let moved = web.get("/v1/queues/x/messages/1").expect(200).json();
    assert_eq!(
        (&moved["destination"], &moved["originalDestination"]),
        (&json!("queue://x"), &json!("queue://q"))
    );
    assert_eq!(web.send("DELETE", "/v1/queues/q/messages/1", "", b"").problem(409).0, "conflict");
    web.send("DELETE", "/v1/queues/q/messages/4", "", b"").expect(204);
    web.send("DELETE", "/v1/queues/q/messages/4", "", b"").problem(404);
    let reply = order(&mut web, "/v1/queues/q/messages/delete", &json!({"all": true}));
    assert_eq!(reply.expect(200).json(), json!({"removed": 2, "unsettled": 1}));
    web.post(&format!("/v1/leases/{}/ack", leased[0]["lease"].as_str().unwrap()), b"").expect(204);
    assert_eq!(bodies(&mut web, "q"), "");
    for queue in ["copy", "x"] {
        let text = json!({"selector": "JMSPriority = 4"});
        let reply = order(&mut web, &format!("/v1/queues/{queue}/messages/delete"), &text).expect(200).json();
        assert_eq!(reply["removed"], 2);
    }

    fill(&mut web, "q", &["stays"]);
    for (path, body, field) in [
        ("move", json!({"all": true}), "to"),
        ("move", json!({"to": "queue://x"}), "sequences"),
        ("move", json!({"to": "queue://x", "all": true, "sequences": [1]}), "sequences"),
        ("move", json!({"to": "queue://x.*", "all": true}), "to"),
        ("move", json!({"to": "queue://x", "all": true, "max": 0}), "max"),
        ("copy", json!({"to": "queue://x", "all": true, "rate": 5}), "rate"),
        ("delete", json!({"all": true, "to": "queue://x"}), "to"),
        ("delete", json!({"selector": "1="}), "selector"),
        ("delete", json!({"selector": ""}), "selector"),
        ("delete", json!({"sequences": vec![1; 10_001]}), "sequences"),
    ] {
        let refused = order(&mut web, &format!("/v1/queues/q/messages/{path}"), &body).problem(400);
        assert_eq!(refused.1.as_deref(), Some(field), "{path} {field}");
    }
    let unknown = order(&mut web, "/v1/queues/q/messages/move", &json!({"too": 1})).problem(400);
    assert_eq!((unknown.0.as_str(), unknown.1.as_deref()), ("invalid-body", Some("too")));
    web.post("/v1/queues/q/messages/delete", b"all").problem(400);
    let reply = order(&mut web, "/v1/queues/q/messages/move", &json!({"to": "topic://nobody", "all": true}));
    assert_eq!(reply.problem(409).0, "conflict");
    assert_eq!(bodies(&mut web, "q"), "stays");
    server.stop();
}

#[test]
fn a_move_that_finds_no_room_says_how_far_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sabir.toml");
    std::fs::write(&config, "[[policy]]\ndestination = \"queue://small\"\nmessages_max = 2\n").unwrap();
    let server = Server::start_in(dir.path(), &[("--config", config.to_str().unwrap())]);
    let mut web = Web::new(server.http);
    fill(&mut web, "q", &["a", "b", "c"]);
    let reply = order(&mut web, "/v1/queues/q/messages/move", &json!({"to": "queue://small", "all": true}));
    let reply = reply.expect(503);
    assert!(reply.json()["detail"].as_str().unwrap().contains("2 had been moved"), "{}", reply.text());
    assert_eq!((bodies(&mut web, "small"), bodies(&mut web, "q")), ("a b".into(), "c".into()));
    server.stop();
}

#[test]
fn an_edited_message_takes_the_place_of_the_old_one() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    let message = json!({
        "body": "{\"amount\":\"oops\"}", "contentType": "application/json", "type": "order", "replyTo": "queue://r",
        "priority": 7, "properties": { "n": 5 }
    });
    order(&mut web, "/v1/queues/q/messages", &message).expect(201);
    // As the console asks.
    let changes = json!({"to": "queue://fixed", "body": "{\"amount\":17}"});
    let receipt = order(&mut web, "/v1/queues/q/messages/1/resend", &changes).expect(201).json();
    assert_eq!(receipt["durability"], "fsync");
    assert_eq!(bodies(&mut web, "q"), "");
    let got = web.get("/v1/queues/fixed/messages/1").expect(200).json();
    assert_eq!((&got["id"], &got["body"]), (&receipt["id"], &json!("{\"amount\":17}")));
    assert_eq!((&got["contentType"], &got["type"]), (&json!("application/json"), &json!("order")));
    assert_eq!((&got["priority"], &got["properties"]), (&json!(7), &json!({"n": 5})));
    assert_eq!(got["replyTo"], "queue://r");
    // What is given replaces, null takes away, what is absent stays.
    let changes = json!({"replyTo": null, "priority": 2, "properties": {"m": true}, "persistent": false});
    let receipt = order(&mut web, "/v1/queues/fixed/messages/1/resend", &changes).expect(201).json();
    assert_eq!((&receipt["durability"], &receipt["position"]), (&json!("memory"), &Value::Null));
    let got = web.get("/v1/queues/fixed/messages/2").expect(200).json();
    assert_eq!((&got["body"], &got["priority"]), (&json!("{\"amount\":17}"), &json!(2)));
    assert_eq!((&got["properties"], &got["persistent"]), (&json!({"m": true}), &json!(false)));
    assert!(got.get("replyTo").is_none() && got["type"] == "order", "{got}");

    for (changes, field) in [
        (json!({"to": "queue://x*y", "bdy": 1}), "bdy"),
        (json!({"to": "queue://>"}), "to"),
        (json!({"to": 5}), "to"),
        (json!({"to": "queue://a", "destination": "queue://b"}), "destination"),
        (json!({"priority": "high"}), "priority"),
    ] {
        let refused = order(&mut web, "/v1/queues/fixed/messages/2/resend", &changes).problem(400);
        assert!(
            matches!(refused.1.as_deref(), Some(named) if named == field || named == "to"),
            "{changes} {refused:?}"
        );
    }
    order(&mut web, "/v1/queues/fixed/messages/9/resend", &json!({})).problem(404);
    order(&mut web, "/v1/queues/fixed/messages/x/resend", &json!({})).problem(404);
    assert_eq!(held(&mut web, "fixed").len(), 1);
    let _taken = messages(web.post("/v1/queues/fixed/pull?lease=60000", b""));
    order(&mut web, "/v1/queues/fixed/messages/2/resend", &json!({})).problem(409);
    server.stop();
}

#[test]
fn dead_letters_tell_why_and_go_back() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    fill(&mut web, "a", &["1", "2"]);
    fill(&mut web, "b", &["3"]);
    assert_eq!(
        web.get("/v1/dead-letters").expect(200).json(),
        json!({"items": [], "next": null, "total": 0})
    );
    reject(&mut web, "a");
    reject(&mut web, "b");
    let list = web.get("/v1/dead-letters?filter=dlq").expect(200).json();
    assert_eq!((&list["total"], &list["items"][0]["queue"]), (&json!(1), &json!("ActiveMQ.DLQ")));
    assert_eq!(list["items"][0]["messages"], 3);
    assert!(list["items"][0]["oldestMs"].is_u64());
    let dead = web.get("/v1/queues/ActiveMQ.DLQ/messages/3").expect(200).json();
    let death = &dead["deadLetter"];
    assert_eq!((&death["cause"], &death["deliveries"]), (&json!("rejected by the consumer"), &json!(1)));
    assert_eq!(death["originalDestination"], "queue://b");
    assert!(death["time"].as_u64() >= dead["timestamp"].as_u64());

    let path = "/v1/dead-letters/ActiveMQ.DLQ/redrive";
    assert_eq!(web.get(path).problem(404).0, "unknown-delivery");
    let reply = order(&mut web, path, &json!({"sequences": [1]})).expect(200).json();
    assert_eq!(reply, json!({"redriven": 1, "unsettled": 0, "refused": 0, "refusal": null}));
    let reply = order(&mut web, path, &json!({"selector": "dlqSource = 'queue://b'"})).expect(200).json();
    assert_eq!(reply["redriven"], 1);
    assert_eq!((bodies(&mut web, "a"), bodies(&mut web, "b")), ("1".into(), "3".into()));
    let back = web.get("/v1/queues/b/messages/2").expect(200).json();
    assert_eq!((&back["attempts"], &back["redelivered"]), (&json!(0), &json!(false)));
    assert!(back.get("deadLetter").is_none() && back.get("properties").is_none(), "{back}");
    // One that does not say where it came from stays.
    fill(&mut web, "ActiveMQ.DLQ", &["stray"]);
    let reply = order(&mut web, path, &json!({"all": true})).expect(200).json();
    assert_eq!((&reply["redriven"], &reply["refused"]), (&json!(1), &json!(1)));
    assert_eq!(reply["refusal"]["code"], "unknown-destination");
    assert_eq!(bodies(&mut web, "ActiveMQ.DLQ"), "stray");
    assert_eq!(
        order(&mut web, "/v1/dead-letters/a/redrive", &json!({"all": true})).problem(409).0,
        "conflict"
    );
    for (body, field) in
        [(json!({"all": true, "rate": 0}), "rate"), (json!({"all": true, "to": "queue://a"}), "to")]
    {
        assert_eq!(order(&mut web, path, &body).problem(400).1.as_deref(), Some(field));
    }
    server.stop();
}

#[test]
fn a_redrive_at_a_rate_goes_on_by_itself_and_can_be_followed_and_stopped() {
    let server = Server::start(&[]);
    let mut web = Web::new(server.http);
    fill(&mut web, "q", &["1", "2", "3", "4", "5"]);
    reject(&mut web, "q");
    let path = "/v1/dead-letters/ActiveMQ.DLQ/redrive";
    let begun = order(&mut web, path, &json!({"all": true, "max": 3, "rate": 1000})).expect(202).json();
    assert_eq!(
        (&begun["state"], &begun["rate"], &begun["queue"]),
        (&json!("running"), &json!(1000), &json!("ActiveMQ.DLQ"))
    );
    assert!(begun.get("redriven").is_none(), "the console takes that for the end of it");
    let ended = loop {
        let seen = web.get(path).expect(200).json();
        if seen["state"] != "running" {
            break seen;
        }
    };
    assert_eq!(
        (&ended["state"], &ended["sent"], &ended["refusal"]),
        (&json!("done"), &json!(3), &Value::Null)
    );
    assert!(ended["ended"].as_u64() >= ended["started"].as_u64());
    assert_eq!((bodies(&mut web, "q"), bodies(&mut web, "ActiveMQ.DLQ")), ("1 2 3".into(), "4 5".into()));
    // The first goes at once, the second would go a second later.
    order(&mut web, path, &json!({"all": true, "rate": 1})).expect(202);
    assert_eq!(order(&mut web, path, &json!({"all": true, "rate": 1})).problem(409).0, "conflict");
    web.send("DELETE", path, "", b"").expect(204);
    assert_eq!(web.get(path).expect(200).json()["state"], "stopped");
    web.send("DELETE", path, "", b"").problem(404);
    // The end of the server is the end of it, and nothing is lost.
    order(&mut web, path, &json!({"all": true, "rate": 1})).expect(202);
    server.stop();
}

#[test]
fn what_was_answered_is_so_after_the_process_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut web = Web::new(server.http);
    fill(&mut web, "q", &["moved", "deleted", "edited", "stays", "dead"]);
    order(&mut web, "/v1/queues/q/messages/move", &json!({"to": "queue://x", "sequences": [1]})).expect(200);
    web.send("DELETE", "/v1/queues/q/messages/2", "", b"").expect(204);
    let changes = json!({"to": "queue://y", "body": "new"});
    order(&mut web, "/v1/queues/q/messages/3/resend", &changes).expect(201);
    order(&mut web, "/v1/queues/q/messages/copy", &json!({"to": "queue://z", "sequences": [4]})).expect(200);
    server.signal(Signal::KILL);
    server.wait();
    let server = Server::start_in(dir.path(), &[]);
    let mut web = Web::new(server.http);
    for (queue, expected) in [("q", "stays dead"), ("x", "moved"), ("y", "new"), ("z", "stays")] {
        assert_eq!(bodies(&mut web, queue), expected, "{queue}");
    }
    server.stop();
}

#[test]
fn looking_needs_to_browse_and_changing_needs_to_manage_and_to_send() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sabir.toml");
    let rules = r#"
        [[permission]]
        effect = "allow"
        users = ["*"]
        actions = ["manage"]
        destinations = ["queue://mine.>", "queue://ActiveMQ.DLQ"]
        [[permission]]
        effect = "allow"
        users = ["*"]
        actions = ["browse"]
        destinations = ["queue://mine.>", "queue://seen.>"]
        [[permission]]
        effect = "allow"
        users = ["*"]
        actions = ["send", "create", "consume"]
        destinations = ["queue://mine.>", "queue://seen.>", "queue://hidden.>"]
        [[permission]]
        effect = "allow"
        users = ["*"]
        actions = ["connect"]
    "#;
    std::fs::write(&config, rules).unwrap();
    let server = Server::start_in(dir.path(), &[("--config", config.to_str().unwrap())]);
    let mut web = Web::new(server.http);
    for queue in ["mine.a", "seen.a", "hidden.a"] {
        fill(&mut web, queue, &["x"]);
    }
    web.get("/v1/queues/seen.a/messages").expect(200);
    web.get("/v1/queues/seen.a/messages/1").expect(200);
    for path in
        ["hidden.a/messages", "hidden.a/messages/1", "nothing/messages", "durable%3A%2F%2Fc%3An/messages"]
    {
        assert_eq!(web.get(&format!("/v1/queues/{path}")).problem(403).0, "access-denied", "{path}");
    }
    let every = json!({"all": true});
    for queue in ["seen.a", "hidden.a"] {
        web.send("DELETE", &format!("/v1/queues/{queue}/messages/1"), "", b"").problem(403);
        order(&mut web, &format!("/v1/queues/{queue}/messages/delete"), &every).problem(403);
        let to = json!({"all": true, "to": "queue://mine.b"});
        order(&mut web, &format!("/v1/queues/{queue}/messages/move"), &to).problem(403);
        order(&mut web, &format!("/v1/queues/{queue}/messages/1/resend"), &json!({})).problem(403);
        order(&mut web, &format!("/v1/dead-letters/{queue}/redrive"), &every).problem(403);
        web.get(&format!("/v1/dead-letters/{queue}/redrive")).problem(403);
    }
    for path in ["move", "copy"] {
        let to = json!({"all": true, "to": "queue://theirs"});
        order(&mut web, &format!("/v1/queues/mine.a/messages/{path}"), &to).problem(403);
    }
    order(&mut web, "/v1/queues/mine.a/messages/1/resend", &json!({"to": "queue://theirs"})).problem(403);
    web.get("/v1/dead-letters").problem(403);
    assert_eq!(bodies(&mut web, "mine.a"), "x");
    let to = json!({"all": true, "to": "queue://hidden.a"});
    order(&mut web, "/v1/queues/mine.a/messages/move", &to).expect(200);
    server.stop();
}
