//! Sessions: what lasts, and how long.

use super::device::{Device, pass};
use crate::server::Server;

#[test]
fn messages_wait_for_who_is_away_mqtt5_4_5_0_1() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    for words in ["v4; id=four", "v5; id=five; expiry=100"] {
        let mut device = Device::open(&server, words);
        device.subscribe(&["a|2", "b|0"]);
        device.leave();
        publisher.publish("a > one");
        publisher.publish("b > QoS 0 is granted");
        publisher.say("PUBLISH a; qos=2; id=2 > two");
        publisher.expect("PUBREC 2");
        publisher.say("PUBREL 2");
        publisher.expect("PUBCOMP 2");
        let mut device = Device::resumed(&server, words);
        device.expect("PUBLISH a; qos=1; id=1 > one");
        device.expect("PUBLISH a; qos=2; id=2 > two");
        device.say("PUBACK 1");
        device.say("PUBREC 2");
        device.expect("PUBREL 2");
        device.say("PUBCOMP 2");
        // The subscriptions went on, too.
        publisher.publish("b > three");
        device.expect("PUBLISH b > three");
    }
}

#[test]
fn a_clean_start_begins_anew_mqtt5_3_1_2_4() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    for (keeps, begins) in
        [("v4; id=four", "v4; id=four; clean"), ("v5; id=five; expiry=100", "v5; id=five; clean")]
    {
        let mut device = Device::open(&server, keeps);
        device.subscribe(&["a|1"]);
        device.say("PUBLISH a; qos=2; id=1 > own");
        device.expect_all(&["PUBLISH a; qos=1; id=1 > own", "PUBREC 1"]);
        device.leave();
        publisher.publish("a > waits");
        let mut device = Device::open(&server, begins);
        device.expect_quiet();
        publisher.publish("a > not subscribed");
        // The number of QoS 2 means nothing any more either.
        device.say("PUBREL 1");
        device.expect_start("PUBCOMP 1");
        device.expect_quiet();
        device.leave();
        let (_, answer) = Device::introduced(&server, keeps);
        assert!(!answer.contains("present"), "{answer}");
    }
}

#[test]
fn a_session_ends_when_its_time_is_over_mqtt5_4_1_0_2() {
    let server = Server::start(&[]);
    let present = |words: &str| {
        let (device, answer) = Device::introduced(&server, words);
        device.vanish();
        answer.contains("; present")
    };
    for (words, goodbye, lasts) in [
        ("v5; id=none", "DISCONNECT", false),
        ("v5; id=zero; expiry=0", "DISCONNECT", false),
        ("v5; id=short; expiry=1", "DISCONNECT", false),
        ("v5; id=long; expiry=100", "DISCONNECT", true),
        ("v5; id=ever; expiry=4294967295", "DISCONNECT", true),
        ("v5; id=shortened; expiry=100", "DISCONNECT; expiry=0", false),
        ("v5; id=shorter; expiry=100", "DISCONNECT; expiry=1", false),
        ("v5; id=lengthened; expiry=1", "DISCONNECT; expiry=100", true),
        ("v4; id=kept", "DISCONNECT", true),
        ("v4; id=clean; clean", "DISCONNECT", false),
        ("v5; id=started; clean; expiry=100", "DISCONNECT", true),
    ] {
        let mut device = Device::open(&server, words);
        device.subscribe(&["a|1"]);
        device.say(goodbye);
        device.expect("END");
        pass(&server);
        let again = words.replace("; clean", "");
        assert_eq!(present(&again), lasts, "{words}, {goodbye}");
    }
}

#[test]
fn a_session_does_not_end_while_it_is_connected_mqtt5_4_1_0_1() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; expiry=1");
    device.subscribe(&["a|1"]);
    pass(&server);
    device.say("PUBLISH a; qos=1; id=9 > still here");
    device.expect_all(&["PUBACK 9", "PUBLISH a; qos=1; id=1 > still here"]);
    device.leave();
    Device::resumed(&server, "v5; id=a; expiry=1");
}

#[test]
fn the_limits_of_the_configuration_are_told_and_kept_mqtt5_3_1_2_23() {
    let server = Server::start(&[
        ("sessions.lasts_max_ms", "60000"),
        ("sessions.messages_max", "2"),
        ("sessions.subscriptions_max", "2"),
    ]);
    let (mut device, answer) = Device::introduced(&server, "v5; id=a; expiry=3600");
    assert!(answer.contains("; expiry=60;"), "{answer}");
    device.say("SUBSCRIBE 1; f=a|1; f=b|1; f=c|1");
    device.expect_start("SUBACK 1 [01, 01, 97]");
    device.leave();
    let mut publisher = Device::open(&server, "v4; id=p; clean");
    for number in 1..=4 {
        publisher.publish(&format!("a > {number}"));
    }
    let mut device = Device::resumed(&server, "v5; id=a; expiry=60");
    for number in 3..=4 {
        let heard = device.expect_start("PUBLISH a; qos=1; id=");
        assert!(heard.ends_with(&format!(" > {number}")), "the oldest were to go: {heard}");
    }
    device.expect_quiet();
}

#[test]
fn versions_may_take_turns_with_one_session_mqtt_cross_protocol_7() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; expiry=100");
    device.say("SUBSCRIBE 1; sid=7; f=a|1");
    device.expect("SUBACK 1 [01]");
    device.leave();
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("a; u:k=v > one");
    let mut device = Device::resumed(&server, "v4; id=a");
    device.expect("PUBLISH a; qos=1; id=1 > one");
    device.vanish();
    let mut device = Device::resumed(&server, "v5; id=a; expiry=100");
    device.expect("PUBLISH a; qos=1; id=1; dup; sid=7; u:k=v > one");
}

#[test]
fn goodbye_at_shutdown_names_the_reason_mqtt5_3_14_2_1() {
    let server = Server::start(&[]);
    let mut five = Device::open(&server, "v5; id=a; will=w");
    let mut four = Device::open(&server, "v4; id=b");
    server.signal(rustix::process::Signal::TERM);
    five.expect_end("server-shutting-down");
    four.expect("END");
    assert!(server.wait().success());
}

#[test]
fn the_server_closes_after_disconnect_and_hears_no_more_mqtt5_3_14_4_1() {
    let server = Server::start(&[]);
    let mut watcher = Device::open(&server, "v4; id=w; clean");
    watcher.subscribe(&["a|1"]);
    for version in ["v3", "v4", "v5"] {
        let mut device = Device::open(&server, &format!("{version}; id=a; clean"));
        device.say_all(&["DISCONNECT", "PUBLISH a > late"]);
        device.expect("END");
    }
    watcher.expect_quiet();
}
