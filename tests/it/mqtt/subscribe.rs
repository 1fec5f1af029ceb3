//! SUBSCRIBE, UNSUBSCRIBE, and which messages they bring.

use super::device::Device;
use crate::server::Server;

#[test]
fn filters_find_what_they_are_to_find_mqtt5_4_7_1_1() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    for (filter, topic, found) in [
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("#", "a/b", true),
        ("#", "/a", true),
        ("+", "a", true),
        ("+", "a/b", false),
        ("+", "/a", false),
        ("/+", "/a", true),
        ("+/+", "/a", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a/b/b/c", false),
        ("+/b/#", "a/b", true),
        ("+/b/#", "a/b/c/d", true),
    ] {
        device.subscribe(&[filter]);
        device.say(&format!("PUBLISH {topic} > x"));
        if found {
            device.expect(&format!("PUBLISH {topic} > x"));
        }
        device.expect_quiet();
        device.say(&format!("UNSUBSCRIBE 2; f={filter}"));
        device.expect("UNSUBACK 2 [00]");
    }
}

#[test]
fn filters_that_are_none_are_refused_one_by_one_mqtt5_4_7_1_2() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device
        .say("SUBSCRIBE 1; f=a; f=a#; f=a/#/b; f=a+; f=+a/b; f=##; f=a/b+/c; f=b|2; f=$share/g; f=$share//a");
    device.expect_start("SUBACK 1 [00, 8f, 8f, 8f, 8f, 8f, 8f, 02, 8f, 8f]");
    device.say("SUBSCRIBE 2; f=$share/g+/a; f=$share/g#/a; f=$share/g/; f=$share/g/a#; f=$share/g/a");
    device.expect_start("SUBACK 2 [8f, 8f, 8f, 8f, 00]");
    // [5: 3.11.3-1, 3.11.3-2]
    device.say("UNSUBSCRIBE 3; f=a; f=a; f=a/#/b; f=never; f=b; f=$share/g/a; f=$share/g/a");
    device.expect_start("UNSUBACK 3 [00, 11, 8f, 11, 00, 00, 11]");
    for version in ["v3", "v4"] {
        let mut device = Device::open(&server, &format!("{version}; id=b; clean"));
        device.say("SUBSCRIBE 1; f=a|1; f=a/#/b|1; f=b|2");
        device.expect("SUBACK 1 [01, 80, 02]");
        device.say("UNSUBSCRIBE 2; f=a/#/b; f=never");
        device.expect("UNSUBACK 2 []");
    }
}

#[test]
fn an_identical_filter_replaces_and_loses_nothing_mqtt5_3_8_4_3() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("a; retain > kept");
    for version in ["v4", "v5"] {
        let mut device = Device::open(&server, &format!("{version}; id=a; clean"));
        device.subscribe(&["a|0"]);
        device.expect("PUBLISH a; retain > kept");
        publisher.publish("a > plain");
        device.expect("PUBLISH a > plain");
        device.subscribe(&["a|1"]);
        // [5: 3.8.4-4]
        let heard = device.expect_start("PUBLISH a; qos=1; id=");
        assert!(heard.ends_with("; retain > kept"), "{heard}");
        publisher.publish("a > once");
        let heard = device.expect_start("PUBLISH a; qos=1; id=");
        assert!(heard.ends_with(" > once"), "{heard}");
        device.expect_quiet();
    }
    let mut device = Device::open(&server, "v5; id=b; clean");
    device.say("SUBSCRIBE 1; sid=5; f=b");
    device.expect("SUBACK 1 [00]");
    device.say("SUBSCRIBE 2; sid=6; f=b");
    device.expect("SUBACK 2 [00]");
    publisher.publish("b > x");
    device.expect("PUBLISH b; sid=6 > x");
    device.subscribe(&["b"]);
    publisher.publish("b > y");
    device.expect("PUBLISH b > y");
}

#[test]
fn overlapping_subscriptions_bring_one_copy_of_the_highest_qos_mqtt5_3_3_4_2() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    let mut device = Device::open(&server, "v5; id=a; clean");
    for (id, filter) in [(1, "a/#|0"), (2, "a/b|2"), (3, "+/b|1"), (4, "c")] {
        device.say(&format!("SUBSCRIBE {id}; sid={id}0; f={filter}"));
        device.expect_start(&format!("SUBACK {id}"));
    }
    device.subscribe(&["#"]);
    publisher.say("PUBLISH a/b; qos=2; id=1 > x");
    publisher.expect("PUBREC 1");
    let heard = device.expect_start("PUBLISH a/b; qos=2; id=1; sid=");
    let mut identifiers: Vec<&str> =
        heard.split("; ").filter_map(|word| word.split(' ').next()?.strip_prefix("sid=")).collect();
    identifiers.sort_unstable();
    assert_eq!(identifiers, ["10", "20", "30"], "{heard}");
    device.expect_quiet();
    let mut old = Device::open(&server, "v4; id=b; clean");
    old.subscribe(&["a/#|0", "a/b|1", "+/b|0"]);
    publisher.publish("a/b > y");
    old.expect("PUBLISH a/b; qos=1; id=1 > y");
    old.expect_quiet();
}

#[test]
fn identifiers_may_be_as_large_as_they_can_be_written_mqtt5_3_3_4_3() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; expiry=100");
    device.say("SUBSCRIBE 1; sid=268435455; f=a|1; f=b|1");
    device.expect("SUBACK 1 [01, 01]");
    device.say("PUBLISH a; qos=1; id=9 > x");
    device.expect_all(&["PUBACK 9", "PUBLISH a; qos=1; id=1; sid=268435455 > x"]);
    device.leave();
    let mut publisher = Device::open(&server, "v4; id=p; clean");
    publisher.publish("b > y");
    let mut device = Device::resumed(&server, "v5; id=a; expiry=100");
    device.expect("PUBLISH a; qos=1; id=1; dup; sid=268435455 > x");
    device.expect("PUBLISH b; qos=1; id=2; sid=268435455 > y");
}

#[test]
fn nobody_hears_itself_if_it_does_not_want_to_mqtt5_3_8_3_3() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    let mut other = Device::open(&server, "v5; id=b; clean");
    device.subscribe(&["a|1|nl", "b|1"]);
    device.publish("a > own");
    other.publish("a > other");
    device.expect("PUBLISH a; qos=1; id=1 > other");
    device.say("PUBLISH b; qos=1; id=9 > own");
    device.expect_all(&["PUBACK 9", "PUBLISH b; qos=1; id=2 > own"]);
    other.publish("b > other");
    device.expect("PUBLISH b; qos=1; id=3 > other");
    device.expect_quiet();
}

#[test]
fn filters_that_begin_with_a_wildcard_do_not_find_topics_of_the_broker_mqtt5_4_7_2_1() {
    let server = Server::start(&[("mqtt.sys_interval_ms", "100")]);
    for version in ["v4", "v5"] {
        let mut named = Device::open(&server, &format!("{version}; id=n; clean"));
        named.subscribe(&["$SYS/broker/uptime"]);
        let mut wild = Device::open(&server, &format!("{version}; id=w; clean"));
        wild.subscribe(&["#", "+/broker/uptime", "+/#"]);
        let mut all = Device::open(&server, &format!("{version}; id=s; clean"));
        all.subscribe(&["$SYS/#"]);
        for _ in 0..2 {
            named.expect_start("PUBLISH $SYS/broker/uptime");
        }
        all.expect_start("PUBLISH $SYS/broker/");
        wild.expect_quiet();
    }
}

#[test]
fn unsubscribing_compares_exactly_and_ends_what_has_begun_mqtt5_3_10_4_3() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.subscribe(&["a/+|2"]);
    device.say("UNSUBSCRIBE 1; f=a/b; f=a/#; f=A/+; f=a/+/");
    device.expect_start("UNSUBACK 1 [11, 11, 11, 11]");
    publisher.publish("a/b > one");
    publisher.say("PUBLISH a/b; qos=2; id=2 > two");
    publisher.expect("PUBREC 2");
    device.expect("PUBLISH a/b; qos=1; id=1 > one");
    device.expect("PUBLISH a/b; qos=2; id=2 > two");
    device.say("UNSUBSCRIBE 2; f=a/+");
    device.expect("UNSUBACK 2 [00]");
    // [5: 3.10.4-2]
    publisher.publish("a/b > three");
    device.say("PUBACK 1");
    device.say("PUBREC 2");
    device.expect("PUBREL 2");
    device.say("PUBCOMP 2");
    device.expect_quiet();
}

#[test]
fn queues_are_shared_and_remember_mqtt_cross_protocol_2() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("$queue/work/eu > early");
    let mut one = Device::open(&server, "v4; id=a; clean");
    one.say("SUBSCRIBE 1; f=$queue/work/eu|2; f=$queue/+|1; f=$share/g/$queue/work/eu|1");
    one.expect("SUBACK 1 [01, 80, 80]");
    let heard = one.expect_start("PUBLISH $queue/work/eu; qos=1; id=");
    assert!(heard.ends_with(" > early"), "{heard}");
    // It is another once this one is gone.
    one.vanish();
    let mut two = Device::open(&server, "v5; id=b; clean");
    two.say("SUBSCRIBE 1; f=$queue/work/eu|1");
    two.expect("SUBACK 1 [01]");
    let heard = two.expect_start("PUBLISH $queue/work/eu; qos=1; id=");
    assert!(heard.ends_with(" > early") && heard.contains("; dup"), "{heard}");
}
