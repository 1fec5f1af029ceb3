//! Conversations between the protocols: requests and replies, kept values, second attempts, dead letters, selectors.

use sabir_mqtt::client::{Connect, ConnectProperties};
use sabir_mqtt::{Reason, Version};

use crate::client::Client;
use crate::crossing::grid::CLOCKS_APART_MS;
use crate::crossing::parties::{Mqtt, Publication, now_ms, send, stomp, stomp_as, subscribe_as};
use crate::server::Server;

/// Goes and waits until the server has let it go.
fn leave(client: &mut Client) {
    client.write(b"DISCONNECT\nreceipt:d\n\n\0");
    let frame = client.frame();
    assert_eq!(frame.command, "RECEIPT", "{}", frame.text());
    client.expect_end();
}

/// A header of a frame as it would be copied into another.
fn line(frame: &crate::client::Frame, name: &str, as_name: &str) -> String {
    let value = frame.header(name).unwrap_or_else(|| panic!("{name}: {}", frame.text()));
    format!("{as_name}:{value}\n")
}

#[test]
fn a_request_of_mqtt_is_answered_by_stomp_5_4_5_13() {
    let server = Server::start(&[]);
    for version in ["1.0", "1.2"] {
        for replies in ["replies/1.5", "$queue/replies/eu", "/", "a,b"] {
            let mut responder = stomp(server.stomp, version);
            subscribe_as(&mut responder, "1", "/queue/service", "");
            let mut requester = Mqtt::open(server.mqtt, Version::V5);
            requester.subscribe(replies);
            for data in [&b"\xff\0"[..], b"1", b"base64:/wA=", b"", "ü:\\".as_bytes()] {
                let request = Publication::new(b"request").qos(1).response(replies).data(data);
                requester.publish("$queue/service", &request);
                let frame = responder.frame();
                let to = frame.header("reply-to").unwrap().to_owned();
                let correlation = line(&frame, "correlation-id", "correlation-id");
                send(&mut responder, &to, &correlation, b"reply");
                let arrival = requester.take();
                assert_eq!((arrival.topic.as_str(), arrival.message.data.as_deref()), (replies, Some(data)));
            }
            requester.leave();
            leave(&mut responder);
        }
    }
    server.stop();
}

/// How a client of STOMP waits for replies at a temporary destination.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// It subscribes to its queue, as clients of ActiveMQ do.
    Subscribed,
    /// The broker subscribes it, as clients of RabbitMQ expect.
    Silently,
    /// It subscribes to a temporary topic.
    AtATopic,
}

#[test]
fn a_request_of_stomp_with_a_temporary_destination_is_answered_by_mqtt_5_12() {
    let server = Server::start(&[]);
    let mut responder = Mqtt::open(server.mqtt, Version::V5);
    let mut old = Mqtt::open(server.mqtt, Version::V311);
    responder.subscribe("service");
    old.subscribe("service");
    for version in ["1.0", "1.2"] {
        for waits in [Waits::Subscribed, Waits::Silently, Waits::AtATopic] {
            let mut requester = stomp(server.stomp, version);
            let (own, shown) = match waits {
                Waits::Subscribed | Waits::Silently => ("/temp-queue/answers", "$reply/queue/ID:"),
                Waits::AtATopic => ("/temp-topic/answers", "$reply/topic/ID:"),
            };
            if waits != Waits::Silently {
                subscribe_as(&mut requester, "mine", own, "");
            }
            let headers = format!("reply-to:{own}\ncorrelation-id:c-1\n");
            send(&mut requester, "/topic/service", &headers, b"request");
            // 3.1.1 sees the request and nothing of where to reply.
            assert_eq!(old.take().message.body, b"request");
            let request = responder.take();
            let to = request.message.response.clone().unwrap();
            assert!(to.starts_with(shown), "{to}");
            let reply = Publication::new(b"reply").qos(1).data(request.message.data.as_deref().unwrap());
            responder.publish(&to, &reply);
            // Who knows the address by other means can use it in every version.
            old.publish(&to, &Publication::new(b"reply"));
            let subscription = if waits == Waits::Silently { own } else { "mine" };
            for correlation in [Some("c-1"), None] {
                let frame = requester.frame();
                assert_eq!(frame.body, b"reply");
                assert_eq!(frame.header("destination"), Some(own));
                assert_eq!(frame.header("subscription"), Some(subscription));
                assert_eq!(frame.header("correlation-id"), correlation);
            }
            // It is where others reply to, and nobody else's to wait at.
            assert!(responder.try_subscribe(&to) >= 0x80, "{to}");
            leave(&mut requester);
            let reason = responder.try_publish(&to, &reply);
            assert!(reason.is_failure(), "{to} went with its connection, but: {reason:?}");
        }
    }
    server.stop();
}

#[test]
fn who_was_away_gets_everything_later_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let connect = |version| Connect {
        version,
        client_id: if version == Version::V5 { "five" } else { "three" },
        properties: ConnectProperties { session_expiry_s: Some(3600), ..ConnectProperties::default() },
        ..Connect::default()
    };
    for version in [Version::V311, Version::V5] {
        let mut client = Mqtt::open_as(server.mqtt, connect(version));
        client.subscribe("away/#");
        client.leave();
    }
    let durable = |server: &Server| {
        let mut client = stomp_as(server.stomp, "1.2", "client-id:durable\n");
        subscribe_as(&mut client, "1", "/topic/away.>", "activemq.subscriptionName:all\n");
        client
    };
    leave(&mut durable(&server));
    let headers =
        "persistent:true\ncorrelation-id:c\nreply-to:/queue/r\ntype:t\nb:2\na:1\ncontent-length:4\n";
    send(&mut stomp(server.stomp, "1.2"), "/topic/away.stomp", headers, b"body");
    let message = Publication::new("😀".as_bytes()).qos(2).format(true).data(b"\xff").response("r");
    let message = message.user("b", "1").user("a", "1").user("b", "2");
    Mqtt::open(server.mqtt, Version::V5).publish("away/mqtt", &message);
    server.stop();

    let server = Server::start_in(dir.path(), &[]);
    let mut three = Mqtt::open_as(server.mqtt, connect(Version::V311));
    let mut five = Mqtt::open_as(server.mqtt, connect(Version::V5));
    let from_stomp = ["qos 1", "response $queue/r", "data c", "type=t", "b=2", "a=1"];
    for (client, lines) in [(&mut three, &from_stomp[..1]), (&mut five, &from_stomp)] {
        let arrival = client.take();
        assert_eq!((arrival.topic.as_str(), &*arrival.message.body), ("away/stomp", &b"body"[..]));
        assert_eq!(arrival.lines(), lines);
    }
    let from_mqtt = ["qos 2", "format 1", "response r", "data \\xff", "b=1", "a=1", "b=2"];
    for (client, lines) in [(&mut three, &from_mqtt[..1]), (&mut five, &from_mqtt)] {
        let arrival = client.take();
        assert_eq!((arrival.topic.as_str(), &*arrival.message.body), ("away/mqtt", "😀".as_bytes()));
        assert_eq!(arrival.lines(), lines);
    }
    let mut back = durable(&server);
    assert_eq!(back.frame().header("destination"), Some("/topic/away.stomp"));
    let frame = back.frame();
    for (name, value) in [
        ("destination", "/topic/away.mqtt"),
        ("reply-to", "/topic/r"),
        ("correlation-id", "base64\\c/w=="),
        ("b", "1"),
        ("a", "1"),
        ("persistent", "true"),
    ] {
        assert_eq!(frame.header(name), Some(value), "{}", frame.text());
    }
    assert_eq!(frame.body, "😀".as_bytes());
    server.stop();
}

#[test]
fn what_stomp_has_kept_a_later_subscriber_of_mqtt_gets() {
    let server = Server::start(&[]);
    let mut sender = stomp(server.stomp, "1.2");
    let headers = "ActiveMQ.Retain:true\npersistent:true\ncorrelation-id:c\nreply-to:/topic/r.s\na:1\n";
    send(&mut sender, "/topic/kept.stomp", &format!("{headers}content-length:4\n"), b"last");
    for (version, filter) in [(Version::V5, "kept/stomp"), (Version::V5, "kept/#"), (Version::V311, "kept/+")]
    {
        let mut late = Mqtt::open(server.mqtt, version);
        let arrival = late.subscribe_and_take(filter);
        assert_eq!((arrival.topic.as_str(), &*arrival.message.body), ("kept/stomp", &b"last"[..]));
        let due: &[&str] = match version {
            Version::V5 => &["qos 1", "retain", "response r/s", "data c", "a=1"],
            _ => &["qos 1", "retain"],
        };
        assert_eq!(arrival.lines(), due);
    }
    // Who is there already gets it as any other message; an empty one takes away what was kept.
    let mut early = Mqtt::open(server.mqtt, Version::V5);
    early.subscribe_and_take("kept/stomp");
    send(&mut sender, "/topic/kept.stomp", "ActiveMQ.Retain:true\n", b"");
    assert!(!early.take().message.retain);
    let mut late = Mqtt::open(server.mqtt, Version::V5);
    late.subscribe("kept/stomp");
    late.flush();
    // In a queue it is a mark that travels along, and nothing is kept.
    send(&mut sender, "/queue/kept.queue", "ActiveMQ.Retain:true\n", b"once");
    late.subscribe_and_take("$queue/kept/queue");
    late.flush();
    server.stop();
}

#[test]
fn what_mqtt_has_kept_a_later_subscriber_of_stomp_does_not_get() {
    let server = Server::start(&[]);
    let mut sender = Mqtt::open(server.mqtt, Version::V311);
    sender.publish("kept/mqtt", &Publication::new(b"last").qos(1).retain());
    let mut late = stomp(server.stomp, "1.2");
    subscribe_as(&mut late, "1", "/topic/kept.mqtt", "");
    sender.publish("kept/mqtt", &Publication::new(b"live").qos(1));
    assert_eq!(late.frame().body, b"live", "nothing is sent to STOMP for having been kept");
    server.stop();
}

#[test]
fn a_second_attempt_is_told_to_whoever_gets_it() {
    let server = Server::start(&[]);
    let mut sender = Mqtt::open(server.mqtt, Version::V5);
    let message = Publication::new(b"again").qos(1).user("a", "1").user("a", "2").data(b"\xff");

    // STOMP goes without acknowledging, MQTT gets it.
    sender.publish("$queue/again/1", &message);
    let mut first = stomp(server.stomp, "1.2");
    subscribe_as(&mut first, "1", "/queue/again.1", "ack:client-individual\n");
    let frame = first.frame();
    assert_eq!((frame.header("redelivered"), frame.header("delivery-count")), (None, Some("1")));
    leave(&mut first);
    let mut second = Mqtt::open(server.mqtt, Version::V5);
    second.subscribe("$queue/again/1");
    let arrival = second.take();
    assert_eq!(arrival.lines(), ["qos 1", "dup", "data \\xff", "a=1", "a=2"]);

    // MQTT goes without acknowledging, STOMP gets it.
    sender.publish("$queue/again/2", &message);
    let mut first = Mqtt::open(server.mqtt, Version::V311);
    first.subscribe("$queue/again/2");
    let arrival = first.peek();
    assert_eq!(arrival.lines(), ["qos 1"]);
    first.leave();
    for version in ["1.0", "1.2"] {
        let mut second = stomp(server.stomp, version);
        subscribe_as(&mut second, "1", "/queue/again.2", "ack:client\n");
        let frame = second.frame();
        let attempt = if version == "1.0" { "2" } else { "3" };
        assert_eq!(
            (frame.header("redelivered"), frame.header("delivery-count")),
            (Some("true"), Some(attempt))
        );
        leave(&mut second);
    }
    server.stop();
}

#[test]
fn a_dead_letter_of_mqtt_keeps_its_fields_5_21() {
    let server = Server::start(&[]);
    let before = now_ms();
    let mut sender = Mqtt::open(server.mqtt, Version::V5);
    let message = Publication::new("dead 😀".as_bytes())
        .qos(1)
        .format(true)
        .expiry(3600)
        .content_type("text/plain")
        .response("r/s")
        .data(b"\xff\0")
        .user("a", "1")
        .user("b", "x:y")
        .user("a", "2");
    for _ in 0..2 {
        sender.publish("$queue/doomed/one", &message);
    }
    let mut rejects = stomp(server.stomp, "1.2");
    subscribe_as(&mut rejects, "1", "/queue/doomed.one", "ack:client-individual\n");
    for _ in 0..2 {
        let frame = rejects.frame();
        rejects.write(
            format!("NACK\nid:{}\nrequeue:false\nreceipt:n\n\n\0", frame.header("ack").unwrap()).as_bytes(),
        );
    }
    let mut receipts = 0;
    while receipts < 2 {
        receipts += usize::from(rejects.frame().command == "RECEIPT");
    }

    let mut to_mqtt = Mqtt::open(server.mqtt, Version::V5);
    to_mqtt.subscribe("$queue/ActiveMQ/DLQ");
    let dead = to_mqtt.peek();
    assert_eq!(dead.topic, "$queue/ActiveMQ/DLQ");
    assert_eq!(dead.message.body, message.body);
    let lines = dead.lines();
    let travels = ["format 1", "content type text/plain", "response r/s", "data \\xff\\x00"];
    assert_eq!(lines[..5], [&["qos 1"][..], &travels].concat());
    // The sender's own in their order, whatever the broker has added before or behind.
    assert_eq!((dead.user("a"), dead.user("b")), (vec!["1", "2"], vec!["x:y"]));
    assert_eq!(dead.user("dlqDeliveryFailureCause"), ["rejected by the consumer"]);
    assert_eq!(dead.user("dlqSource"), ["queue://doomed.one"]);
    assert_eq!(dead.user("dlqAttempts"), ["1"]);
    let ended: u64 = dead.user("originalExpiration")[0].parse().unwrap();
    assert!(
        (before - CLOCKS_APART_MS..=now_ms() + CLOCKS_APART_MS).contains(&(ended - 3_600_000)),
        "{ended}"
    );
    assert_eq!(dead.message.expiry_s, None, "dead letters do not expire");
    to_mqtt.leave();

    let mut to_stomp = stomp(server.stomp, "1.2");
    subscribe_as(&mut to_stomp, "1", "/queue/ActiveMQ.DLQ", "");
    for _ in 0..2 {
        let frame = to_stomp.frame();
        assert_eq!(frame.body, message.body);
        for (name, value) in [
            ("content-type", "text/plain"),
            ("reply-to", "/topic/r.s"),
            ("correlation-id", "base64\\c/wA="),
            ("a", "1"),
            ("b", "x\\cy"),
            ("persistent", "true"),
            ("expires", "0"),
            ("original-destination", "/queue/doomed.one"),
            ("dlqSource", "queue\\c//doomed.one"),
        ] {
            assert_eq!(frame.header(name), Some(value), "{}", frame.text());
        }
    }
    server.stop();
}

#[test]
fn selectors_of_stomp_read_what_mqtt_has_said() {
    let server = Server::start(&[]);
    let message = Publication::new(b"body")
        .qos(1)
        .content_type("text/plain")
        .data(b"c-1")
        .user("n", "5")
        .user("a", "1")
        .user("a", "2")
        .user("priority", "7")
        .user("type", "order")
        .user("x-y", "z");
    let mut sender = Mqtt::open(server.mqtt, Version::V5);
    for (number, (selector, matches)) in [
        ("n > 4.5", true),
        ("n = '5'", true),
        ("a = '1'", true),
        ("a = '2'", false),
        ("JMSPriority = 7", true),
        ("JMSType = 'order'", true),
        ("JMSCorrelationID = 'c-1'", true),
        ("JMSDeliveryMode = 'PERSISTENT'", true),
        ("\"x-y\" = 'z'", true),
        ("missing IS NULL", true),
        ("missing = '1'", false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = stomp(server.stomp, "1.2");
        subscribe_as(&mut client, "1", &format!("/topic/select.{number}"), &format!("selector:{selector}\n"));
        subscribe_as(&mut client, "2", "/topic/end", "");
        sender.publish(&format!("select/{number}"), &message);
        sender.publish("end", &message);
        let seen = client.frame().header("subscription") == Some("1");
        assert_eq!(seen, matches, "{selector}");
    }
    server.stop();
}

#[test]
fn a_group_of_a_virtual_topic_is_shared_by_both_protocols() {
    let server = Server::start(&[]);
    let mut mqtt = Mqtt::open(server.mqtt, Version::V311);
    mqtt.subscribe("$queue/Consumer/g/VirtualTopic/work");
    let mut sender = Mqtt::open(server.mqtt, Version::V5);
    let message = |n: u32| Publication::new(n.to_string().as_bytes()).qos(1);
    sender.publish("VirtualTopic/work", &message(0));
    assert_eq!(mqtt.take().message.body, b"0");
    mqtt.flush();
    let mut worker = stomp(server.stomp, "1.2");
    subscribe_as(&mut worker, "1", "/queue/Consumer.g.VirtualTopic.work", "");
    for n in 1..=4 {
        sender.publish("VirtualTopic/work", &message(n));
    }
    // One each in turn, nothing twice.
    let mut seen: Vec<Vec<u8>> = (0..2).map(|_| mqtt.take().message.body).collect();
    seen.extend((0..2).map(|_| worker.frame().body));
    seen.sort();
    assert_eq!(seen, [b"1", b"2", b"3", b"4"]);
    let reason = sender.try_publish("$queue/Consumer/g/VirtualTopic/work", &message(5));
    assert_eq!(reason, Reason::Success, "the queue is one like any other");
    server.stop();
}
