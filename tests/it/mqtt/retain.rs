//! Retained messages.

use super::device::{Device, pass};
use crate::server::Server;

#[test]
fn the_last_retained_message_of_a_topic_is_what_new_subscribers_get_mqtt5_3_3_1_5() {
    let server = Server::start(&[]);
    for version in ["v3", "v4", "v5"] {
        let mut publisher = Device::open(&server, &format!("{version}; id=p; clean"));
        let late = |expected: Option<&str>| {
            let mut device = Device::open(&server, &format!("{version}; id=a; clean"));
            device.subscribe(&["a|0"]);
            if let Some(body) = expected {
                device.expect(&format!("PUBLISH a; retain > {body}"));
            }
            device.expect_quiet();
        };
        let mut present = Device::open(&server, &format!("{version}; id=b; clean"));
        present.subscribe(&["a|0"]);
        let mut step = |words: &str, live: &str, kept: Option<&str>| {
            publisher.publish(words);
            // [5: 3.3.1-12] [3: 3.3.1-9]
            present.expect(live);
            late(kept);
        };
        step("a > never kept", "PUBLISH a > never kept", None);
        step("a; retain > one", "PUBLISH a > one", Some("one"));
        step("a; retain > two", "PUBLISH a > two", Some("two"));
        // [5: 3.3.1-8] [3: 3.3.1-12]
        step("a > passes by", "PUBLISH a > passes by", Some("two"));
        step("a", "PUBLISH a", Some("two"));
        // [5: 3.3.1-6, 3.3.1-7] [3: 3.3.1-10, 3.3.1-11]
        step("a; retain", "PUBLISH a", None);
        // [3: 3.3.1-7]
        publisher.say("PUBLISH a; retain > QoS 0");
        present.expect("PUBLISH a > QoS 0");
        late(Some("QoS 0"));
        publisher.say("PUBLISH a; retain");
        present.expect("PUBLISH a");
        late(None);
    }
}

#[test]
fn a_retained_message_keeps_its_qos_and_its_properties_mqtt3_3_3_1_6() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.say("PUBLISH a/2; qos=2; id=1; retain; type=t; u:k=v > two");
    publisher.expect("PUBREC 1");
    publisher.publish("a/1; retain > one");
    publisher.say("PUBLISH a/0; retain > none");
    publisher.expect_quiet();
    for (granted, expected) in [
        (
            0,
            [
                "PUBLISH a/0; retain > none",
                "PUBLISH a/1; retain > one",
                "PUBLISH a/2; retain; type=t; u:k=v > two",
            ],
        ),
        (
            2,
            [
                "PUBLISH a/0; retain > none",
                "PUBLISH a/1; qos=1; retain > one",
                "PUBLISH a/2; qos=2; retain; type=t; u:k=v > two",
            ],
        ),
    ] {
        let mut device = Device::open(&server, "v5; id=a; clean");
        device.subscribe(&[&format!("a/+|{granted}")]);
        let mut heard: Vec<String> = (0..3).map(|_| without_id(&device.hear())).collect();
        heard.sort_unstable();
        assert_eq!(heard, expected);
        device.expect_quiet();
    }
}

fn without_id(line: &str) -> String {
    line.split("; ").filter(|word| !word.starts_with("id=")).collect::<Vec<_>>().join("; ")
}

#[test]
fn retain_handling_says_when_retained_messages_come_mqtt5_3_3_1_10() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("a; retain > kept");
    for (options, first, again) in [("", true, true), ("|rh1", true, false), ("|rh2", false, false)] {
        let mut device = Device::open(&server, "v5; id=a; clean");
        for comes in [first, again] {
            device.subscribe(&[&format!("a|0{options}")]);
            if comes {
                device.expect("PUBLISH a; retain > kept");
            }
            device.expect_quiet();
        }
        // An end makes it new again.
        device.say("UNSUBSCRIBE 1; f=a");
        device.expect("UNSUBACK 1 [00]");
        device.subscribe(&[&format!("a|0{options}")]);
        if first {
            device.expect("PUBLISH a; retain > kept");
        }
        device.expect_quiet();
    }
}

#[test]
fn a_subscription_that_goes_on_is_not_new_mqtt5_3_3_1_10() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("a; retain > kept");
    let mut device = Device::open(&server, "v5; id=a; expiry=100");
    device.subscribe(&["a|0|rh1"]);
    device.expect("PUBLISH a; retain > kept");
    device.leave();
    let mut device = Device::resumed(&server, "v5; id=a; expiry=100");
    device.expect_quiet();
    device.subscribe(&["a|0|rh1"]);
    device.expect_quiet();
}

#[test]
fn retain_as_published_shows_the_publishers_flag_mqtt5_3_3_1_13() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    let mut plain = Device::open(&server, "v5; id=a; clean");
    let mut shows = Device::open(&server, "v5; id=b; clean");
    plain.subscribe(&["a|1"]);
    shows.subscribe(&["a|1|rap"]);
    publisher.publish("a; retain > kept");
    publisher.publish("a > not kept");
    plain.expect("PUBLISH a; qos=1; id=1 > kept");
    plain.expect("PUBLISH a; qos=1; id=2 > not kept");
    shows.expect("PUBLISH a; qos=1; id=1; retain > kept");
    shows.expect("PUBLISH a; qos=1; id=2 > not kept");
}

#[test]
fn retained_messages_outlive_sessions_and_servers_mqtt3_3_1_2_7() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path(), &[]);
    let mut publisher = Device::open(&server, "v4; id=p; clean");
    for words in ["a; retain > old", "a; retain > new", "b; retain > gone", "b; retain", "c; retain > c"] {
        publisher.publish(words);
    }
    publisher.leave();
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    let server = Server::start_in(dir.path(), &[]);
    let mut device = Device::open(&server, "v4; id=a; clean");
    device.subscribe(&["#"]);
    device.expect_all(&["PUBLISH a; retain > new", "PUBLISH c; retain > c"]);
    device.expect_quiet();
}

#[test]
fn retained_messages_expire_too_mqtt5_3_3_2_5() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("a; retain; expiry=1 > short");
    publisher.publish("b; retain; expiry=100 > long");
    pass(&server);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.subscribe(&["#"]);
    let heard = device.expect_start("PUBLISH b; retain; expiry=");
    assert!(!heard.contains("expiry=100"), "{heard}");
    device.expect_quiet();
}

#[test]
fn a_wildcard_gets_thousands_of_retained_messages_mqtt5_3_3_1_9() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v4; id=p; clean");
    for number in 0..3000 {
        publisher.say(&format!("PUBLISH many/{number}/x; retain > {number}"));
    }
    publisher.expect_quiet();
    let mut device = Device::open(&server, "v5; id=a; clean; receive=10");
    device.subscribe(&["many/+/x|1"]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3000 {
        let heard = device.expect_start("PUBLISH many/");
        seen.insert(heard.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
    }
    assert_eq!(seen.len(), 3000);
    device.expect_quiet();
}
