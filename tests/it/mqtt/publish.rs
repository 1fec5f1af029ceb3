//! What travels with a message, topics and their short names, refusals.

use super::device::{Device, END, pass};
use crate::server::Server;

#[test]
fn what_travels_with_a_message_arrives_unaltered_mqtt5_3_3_2_17() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.subscribe(&["a|2"]);
    for words in [
        "format=1 > text",
        "type=image/png > bytes",
        "reply=answers/here; corr=\\0\\xff1 > request",
        "u:k=1; u:a=2; u:k=1; u:k=3; u:= > user properties",
        "format=1; type=text/plain; reply=x; corr=abc; u:a=b > all",
    ] {
        device.say(&format!("PUBLISH a; {words}"));
        let words = words.replace("\\0", "\\x00");
        device.expect(&format!("PUBLISH a; {words}"));
    }
}

#[test]
fn a_message_that_waits_has_less_time_left_mqtt5_3_3_2_6() {
    let server = Server::start(&[]);
    let mut away = Device::open(&server, "v5; id=a; expiry=100");
    away.subscribe(&["a|1"]);
    away.leave();
    let mut publisher = Device::open(&server, "v5; id=p");
    publisher.publish("a; expiry=100 > waits");
    publisher.publish("a; expiry=1 > too late");
    publisher.publish("a > for ever");
    pass(&server);
    let mut back = Device::resumed(&server, "v5; id=a; expiry=100");
    let heard = back.hear();
    let left = heard
        .split("; ")
        .find_map(|word| word.strip_prefix("expiry=")?.split(' ').next()?.parse::<u32>().ok());
    assert!(left.is_some_and(|left| (1..100).contains(&left)), "{heard}");
    // [5: 3.3.2-5] The second one is no more.
    let heard = back.expect_start("PUBLISH a; qos=1; id=");
    assert!(heard.ends_with(" > for ever") && !heard.contains("expiry"), "{heard}");
}

#[test]
fn an_exchange_that_has_begun_outlives_the_message_mqtt5_4_3_3_7() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; expiry=100");
    device.subscribe(&["a|2"]);
    // [5: 4.3.3-13] The same for the publisher's side.
    device.say("PUBLISH a; qos=2; id=7; expiry=1 > short");
    device.expect_all(&["PUBREC 7", "PUBLISH a; qos=2; id=1; expiry=1 > short"]);
    pass(&server);
    device.say("PUBREL 7");
    device.expect("PUBCOMP 7");
    device.vanish();
    let mut device = Device::resumed(&server, "v5; id=a; expiry=100");
    let heard = device.expect_start("PUBLISH a; qos=2; id=1; dup");
    assert!(heard.ends_with(" > short"), "{heard}");
    device.say("PUBREC 1");
    device.expect("PUBREL 1");
    device.say("PUBCOMP 1");
    device.expect_quiet();
}

#[test]
fn the_topics_of_the_broker_are_not_to_be_sent_to_mqtt5_4_7_2_1() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.subscribe(&["$SYS/x|1"]);
    for topic in ["$SYS/x", "$SYS/broker/uptime", "$share/g/a", "$x", "$"] {
        device.say(&format!("PUBLISH {topic} > silently dropped"));
        device.say(&format!("PUBLISH {topic}; qos=1; id=1 > refused"));
        device.expect_start("PUBACK 1 not-authorized");
        device.say(&format!("PUBLISH {topic}; qos=2; id=2 > refused"));
        device.expect_start("PUBREC 2 not-authorized");
        for (version, qos) in [("v4", 1), ("v4", 2), ("v3", 1)] {
            let mut device = Device::open(&server, &format!("{version}; id=old; clean"));
            device.say(&format!("PUBLISH {topic}; qos={qos}; id=1 > refused"));
            device.expect(END);
        }
    }
    device.expect_quiet();
}

#[test]
fn nobody_is_told_more_than_it_wants_to_know_mqtt5_3_1_2_29() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean; problems=0");
    device.say("PUBLISH $SYS/x; qos=1; id=1");
    device.expect("PUBACK 1 not-authorized");
    device.say("PUBLISH $SYS/x; qos=2; id=2");
    device.expect("PUBREC 2 not-authorized");
    device.say("SUBSCRIBE 3; f=a/#/b");
    device.expect("SUBACK 3 [8f]");
    device.say("UNSUBSCRIBE 4; f=a/#/b");
    device.expect("UNSUBACK 4 [8f]");
    // User properties of messages are no diagnostics.
    device.subscribe(&["a"]);
    device.say("PUBLISH a; u:k=v");
    device.expect("PUBLISH a; u:k=v");
}

#[test]
fn what_is_told_fits_the_largest_packet_of_the_client_mqtt5_3_4_2_2() {
    let server = Server::start(&[]);
    let sizes = |max: u32| {
        let mut device = Device::open(&server, &format!("v5; id=a; clean; max={max}"));
        let mut sizes = Vec::new();
        for (packet, kind) in [
            ("PUBLISH $SYS/x; qos=1; id=1", 0x40),
            ("PUBLISH $SYS/x; qos=2; id=2", 0x50),
            ("SUBSCRIBE 3; f=a/#/b", 0x90),
            ("UNSUBSCRIBE 4; f=a/#/b", 0xb0),
            ("AUTH 18; method=x", 0xe0),
        ] {
            device.say(packet);
            let heard = device.hear_raw();
            assert_eq!(heard[0], kind, "{packet}: {heard:02x?}");
            sizes.push(u32::try_from(heard.len()).unwrap());
        }
        device.expect(END);
        sizes
    };
    let free = sizes(1000);
    for max in [20, 40, 60, 80] {
        for (size, free) in sizes(max).into_iter().zip(&free) {
            assert!(size <= max.min(*free), "{size} of at most {max}");
        }
    }
    // [5: 3.2.2-19, 3.2.2-20]
    let long = "x".repeat(2000);
    for max in [10, 30, 50, 1000] {
        let mut device = Device::silent(server.mqtt, "v5");
        device.say(&format!("CONNECT v5; id={long}; clean; max={max}"));
        let heard = device.hear_raw();
        assert!(heard[0] == 0x20 && heard.len() <= max, "{heard:02x?}");
    }
}

#[test]
fn an_alias_stands_for_a_topic_on_its_connection_only_mqtt5_3_3_2_7() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.subscribe(&["#"]);
    for (words, topic) in [
        ("first; alias=1", "first"),
        ("; alias=1", "first"),
        ("last; alias=64", "last"),
        ("other; alias=1", "other"),
        ("; alias=64", "last"),
        ("; alias=1", "other"),
    ] {
        device.say(&format!("PUBLISH {words} > {topic}"));
        device.expect(&format!("PUBLISH {topic} > {topic}"));
    }
    device.leave();
    for alias in [1, 2, 64] {
        let mut device = Device::open(&server, "v5; id=a; clean");
        device.say(&format!("PUBLISH ; alias={alias}"));
        device.expect_end("protocol-error");
    }
    for alias in [65, 65_535] {
        let mut device = Device::open(&server, "v5; id=a; clean");
        device.say(&format!("PUBLISH a; alias={alias}"));
        device.expect_end("topic-alias-invalid");
    }
}

#[test]
fn the_server_gives_out_no_alias_beyond_the_clients_maximum_mqtt5_3_1_2_26() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    let mut none = Device::open(&server, "v5; id=n; clean");
    let mut two = Device::open(&server, "v5; id=t; clean; aliases=2");
    let topic = |letter: char| format!("a/long/topic/{letter}");
    none.subscribe(&["#"]);
    two.subscribe(&["#"]);
    for (letter, heard) in [
        ('a', "a; alias=1"),
        ('b', "b; alias=2"),
        ('c', "c"),
        ('a', "; alias=1"),
        ('b', "; alias=2"),
        ('c', "c"),
    ] {
        publisher.say(&format!("PUBLISH {} > x", topic(letter)));
        none.expect(&format!("PUBLISH {} > x", topic(letter)));
        let heard = if heard.starts_with(';') { heard.to_owned() } else { format!("a/long/topic/{heard}") };
        two.expect(&format!("PUBLISH {heard} > x"));
    }
}

#[test]
fn topics_are_compared_as_they_are_written_mqtt5_4_7_3_4() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    let topics = ["a", "A", "/a", "a/", "a//b", "a/b", " a", "a ", "a.b", "\u{e9}", "e\u{301}", "/", "//"];
    for topic in topics {
        device.subscribe(&[topic]);
    }
    for topic in topics {
        device.say(&format!("PUBLISH {topic} > x"));
        device.expect(&format!("PUBLISH {topic} > x"));
    }
    device.expect_quiet();
}

#[test]
fn a_client_without_a_right_is_told_or_closed_mqtt3_3_3_5_2() {
    let rules = "[[permission]]\neffect = \"deny\"\nusers = [\"*\"]\nactions = [\"send\", \"consume\"]\n\
                 destinations = [\"topic://secret.>\"]\n[[permission]]\neffect = \"allow\"\nusers = [\"*\"]\nactions = [\"*\"]\n";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sabir.toml");
    std::fs::write(&file, rules).unwrap();
    let server = Server::start_in(dir.path(), &[("--config", file.to_str().unwrap())]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.say("SUBSCRIBE 1; f=secret/#; f=public; f=secret/a");
    device.expect_start("SUBACK 1 [87, 00, 87]");
    device.say("PUBLISH secret/a; qos=1; id=2 > no");
    device.expect_start("PUBACK 2 not-authorized");
    // [5: 4.3.3-9] The id is free again.
    for _ in 0..2 {
        device.say("PUBLISH secret/a; qos=2; id=3 > no");
        device.expect_start("PUBREC 3 not-authorized");
    }
    device.say("PUBLISH public; qos=2; id=3 > yes");
    device.expect_all(&["PUBLISH public > yes", "PUBREC 3"]);
    device.say("PUBREL 3");
    device.expect("PUBCOMP 3");
    for qos in [1, 2] {
        let mut device = Device::open(&server, "v4; id=b; clean");
        device.say("SUBSCRIBE 1; f=secret/#; f=public");
        device.expect("SUBACK 1 [80, 00]");
        device.say(&format!("PUBLISH secret/a; qos={qos}; id=2 > no"));
        device.expect(END);
    }
    // A will is a publish, too.
    let (mut device, heard) = Device::introduced(&server, "v5; id=c; clean; will=secret/a");
    assert!(heard.starts_with("CONNACK not-authorized"), "{heard}");
    device.expect(END);
}
