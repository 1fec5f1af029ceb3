//! What does not cross: messages whose time is over, that are too large, or that ask for what there is not; and who says
//! who somebody is (cross-protocol §5, 1, 6, 22 and 24).

use std::process::{Command, Stdio};

use sabir_mqtt::client::{Connect, ConnectProperties};
use sabir_mqtt::{Reason, Version};

use crate::crossing::grid::CLOCKS_APART_MS;
use crate::crossing::parties::{Mqtt, Publication, now_ms, send, stomp, stomp_as, subscribe_as, try_send};
use crate::server::Server;

#[test]
fn what_is_over_is_not_delivered_5_6() {
    let server = Server::start(&[]);
    let mut stomp_sender = stomp(server.stomp, "1.2");
    let mut mqtt_sender = Mqtt::open(server.mqtt, Version::V5);
    let mut receiver = stomp(server.stomp, "1.2");
    let mut mqtt_receiver = Mqtt::open(server.mqtt, Version::V5);
    let mut old_receiver = Mqtt::open(server.mqtt, Version::V311);
    for (name, topic) in [("/topic/over", "over"), ("/queue/over", "$queue/over")] {
        let is_queue = topic.starts_with('$');
        if !is_queue {
            subscribe_as(&mut receiver, "1", name, "");
            mqtt_receiver.subscribe(topic);
            old_receiver.subscribe(topic);
        }
        for persistent in ["", "persistent:true\n"] {
            for past in ["1".to_owned(), (now_ms() - CLOCKS_APART_MS).to_string()] {
                send(&mut stomp_sender, name, &format!("{persistent}expires:{past}\n"), b"over");
            }
        }
        mqtt_sender.publish(topic, &Publication::new(b"over").qos(1).expiry(0));
        for _ in 0..3 {
            mqtt_sender.publish(topic, &Publication::new(b"live").qos(1).expiry(60));
        }
        if is_queue {
            // One after the other: a queue gives a message to one of them.
            subscribe_as(&mut receiver, "2", name, "activemq.prefetchSize:1\nack:client\n");
            assert_eq!(receiver.frame().body, b"live");
            continue;
        }
        for _ in 0..3 {
            assert_eq!(receiver.frame().body, b"live");
            assert_eq!(mqtt_receiver.take().message.body, b"live");
            assert_eq!(old_receiver.take().message.body, b"live");
        }
    }
    server.stop();
}

#[test]
fn a_message_too_large_for_one_receiver_reaches_the_others_5_22() {
    let server = Server::start(&[]);
    let connect = |packet_bytes_max| Connect {
        version: Version::V5,
        clean_start: true,
        properties: ConnectProperties {
            packet_bytes_max: Some(packet_bytes_max),
            ..ConnectProperties::default()
        },
        ..Connect::default()
    };
    let mut small = Mqtt::open_as(server.mqtt, connect(200));
    let mut large = Mqtt::open(server.mqtt, Version::V311);
    let mut other = stomp(server.stomp, "1.0");
    small.subscribe("sizes");
    large.subscribe("sizes");
    subscribe_as(&mut other, "1", "/topic/sizes", "");
    let mut sender = stomp(server.stomp, "1.2");
    for persistent in ["", "persistent:true\n"] {
        send(&mut sender, "/topic/sizes", persistent, &[b'x'; 1000]);
        // Headers count as well.
        send(&mut sender, "/topic/sizes", &format!("{persistent}a:{}\n", "y".repeat(1000)), b"short");
        send(&mut sender, "/topic/sizes", persistent, b"fits");
        assert_eq!(small.take().message.body, b"fits");
        for length in [1000, 5, 4] {
            assert_eq!(large.take().message.body.len(), length);
            assert_eq!(other.frame().body.len(), length);
        }
    }
    server.stop();
}

#[test]
fn what_mqtt_has_no_room_for_is_left_out_and_the_rest_arrives() {
    // A property of MQTT holds 65535 bytes.
    let server = Server::start(&[("limits.header_line_bytes_max", "200 KiB")]);
    let mut receiver = Mqtt::open(server.mqtt, Version::V5);
    receiver.subscribe("long");
    let mut stomp_receiver = stomp(server.stomp, "1.2");
    subscribe_as(&mut stomp_receiver, "1", "/topic/long", "");
    let mut sender = stomp(server.stomp, "1.2");
    let long = "z".repeat(70_000);
    let headers = format!(
        "a:1\nlong:{long}\ncorrelation-id:{long}\ncontent-type:{long}\nreply-to:{long}\nb:2\ncontent-length:4\n"
    );
    send(&mut sender, "/topic/long", &headers, b"body");
    assert_eq!(receiver.take().lines(), ["a=1", "b=2"]);
    let frame = stomp_receiver.frame();
    for name in ["long", "correlation-id", "content-type", "reply-to"] {
        assert_eq!(frame.header(name).map(str::len), Some(70_000), "{name}");
    }
    server.stop();
}

#[test]
fn what_cannot_be_meant_is_refused_at_the_sender_8() {
    let server = Server::start(&[]);
    let mut watcher = Mqtt::open(server.mqtt, Version::V5);
    watcher.subscribe("#");
    for (headers, code) in [
        ("priority:x\n", "invalid-header"),
        ("ActiveMQ.MQTT.QoS:3\n", "invalid-header"),
        ("JMSXGroupSeq:x\n", "invalid-header"),
        ("expires:soon\n", "invalid-header"),
        ("amq-msg-type:map\n", "unsupported"),
        ("transformation:jms-map-json\n", "unsupported"),
        ("AMQ_SCHEDULED_DELAY:1000\n", "unsupported"),
    ] {
        let answer = try_send(&mut stomp(server.stomp, "1.2"), "/topic/refused", headers, b"x");
        assert_eq!((answer.command.as_str(), answer.header("code")), ("ERROR", Some(code)), "{headers}");
    }
    let mut sender = Mqtt::open(server.mqtt, Version::V5);
    let said_to_be_text = Publication::new(b"\xff").qos(1).format(true);
    assert_eq!(sender.try_publish("refused", &said_to_be_text), Reason::PayloadFormatInvalid);
    sender.publish("end", &Publication::new(b"end"));
    assert_eq!(watcher.take().topic, "end", "nothing of these went anywhere");
    server.stop();
}

#[test]
fn who_somebody_is_the_broker_says_5_24() {
    let dir = tempfile::tempdir().unwrap();
    let mut add = Command::new(env!("CARGO_BIN_EXE_sabir"))
        .args(["user", "add", "alice", "--data-dir"])
        .arg(dir.path().join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(add.stdin.as_mut().unwrap(), b"a good long secret").unwrap();
    drop(add.stdin.take());
    assert!(add.wait().unwrap().success());

    let server = Server::start_in(dir.path(), &[]);
    let login = "login:alice\npasscode:a good long secret\n";
    let connect = |version| Connect {
        version,
        clean_start: true,
        username: Some("alice"),
        password: Some(b"a good long secret"),
        ..Connect::default()
    };
    let mut receivers = ["1.0", "1.2"].map(|version| stomp_as(server.stomp, version, login));
    for receiver in &mut receivers {
        subscribe_as(receiver, "1", "/topic/who", "");
    }
    let mut mqtt_receiver = Mqtt::open_as(server.mqtt, connect(Version::V5));
    mqtt_receiver.subscribe("who");
    let spoof = Publication::new(b"body").qos(1).user("JMSXUserID", "root").user("user-id", "root");
    Mqtt::open_as(server.mqtt, connect(Version::V311)).publish("who", &spoof);
    Mqtt::open_as(server.mqtt, connect(Version::V5)).publish("who", &spoof);
    let mut sender = stomp_as(server.stomp, "1.2", login);
    send(&mut sender, "/topic/who", "JMSXUserID:root\nuser-id:root\ncontent-length:4\n", b"body");
    for from in ["MQTT 3.1.1", "MQTT 5", "STOMP"] {
        for receiver in &mut receivers {
            let frame = receiver.frame();
            let said: Vec<_> = frame.headers.iter().filter(|(name, _)| name == "JMSXUserID").collect();
            assert_eq!(said, [&("JMSXUserID".to_owned(), "alice".to_owned())], "{from}");
        }
        // MQTT has no place for who it was; what a sender says of itself is a property like any other.
        let due: &[&str] = match from {
            "MQTT 3.1.1" => &["qos 1"],
            "MQTT 5" => &["qos 1", "JMSXUserID=root", "user-id=root"],
            _ => &["user-id=root"],
        };
        assert_eq!(mqtt_receiver.take().lines(), due, "{from}");
    }
    server.stop();
}
