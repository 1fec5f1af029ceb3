//! How much is under way at a time, how large packets are, and in which order things come.

use super::device::{Device, END};
use crate::server::Server;

#[test]
fn a_client_that_exceeds_the_receive_maximum_is_cut_off_mqtt5_3_3_4_7() {
    let server = Server::start(&[("mqtt.receive_max", "2")]);
    let (mut device, heard) = Device::introduced(&server, "v5; id=a; clean");
    assert!(heard.contains("; receive=2"), "{heard}");
    for id in [1, 2] {
        device.say(&format!("PUBLISH a; qos=2; id={id}"));
        device.expect(&format!("PUBREC {id}"));
    }
    // [5: 3.3.4-8, 4.9.0-3] Nothing else waits.
    device.say("PUBLISH a; qos=2; id=2; dup");
    device.expect("PUBREC 2");
    device.say("PUBLISH a > QoS 0");
    device.subscribe(&["b"]);
    device.expect_quiet();
    device.say("PUBREL 1");
    device.expect("PUBCOMP 1");
    device.say("PUBLISH a; qos=1; id=3");
    device.expect("PUBACK 3");
    device.say("PUBLISH a; qos=2; id=4");
    device.expect("PUBREC 4");
    device.say("PUBLISH a; qos=1; id=5");
    device.expect_end("receive-maximum-exceeded");
    // 3.1.1 knows no such thing.
    let mut device = Device::open(&server, "v4; id=b; clean");
    for id in 1..10 {
        device.say(&format!("PUBLISH a; qos=2; id={id}"));
        device.expect(&format!("PUBREC {id}"));
    }
}

#[test]
fn the_server_keeps_to_the_clients_receive_maximum_mqtt5_3_3_4_9() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p");
    let mut device = Device::open(&server, "v5; id=a; clean; receive=2");
    device.subscribe(&["a|2"]);
    for number in 1..=3 {
        publisher.publish(&format!("a > {number}"));
    }
    publisher.say("PUBLISH a; qos=2; id=9 > 4");
    publisher.expect("PUBREC 9");
    device.expect("PUBLISH a; qos=1; id=1 > 1");
    device.expect("PUBLISH a; qos=1; id=2 > 2");
    // [5: 3.3.4-10, 4.9.0-3]
    device.expect_quiet();
    device.subscribe(&["b"]);
    device.say("PUBLISH b; qos=1; id=5");
    device.expect_all(&["PUBACK 5", "PUBLISH b"]);
    device.say("PUBACK 1");
    device.expect("PUBLISH a; qos=1; id=3 > 3");
    device.expect_quiet();
    device.say("PUBACK 3");
    device.expect("PUBLISH a; qos=2; id=4 > 4");
    publisher.publish("a > 5");
    device.expect_quiet();
    device.say("PUBREC 4");
    device.expect("PUBREL 4");
    device.expect_quiet();
    device.say("PUBCOMP 4");
    device.expect("PUBLISH a; qos=1; id=5 > 5");
    device.say("PUBACK 2");
    device.expect_quiet();
}

#[test]
fn clients_that_cannot_name_a_number_get_the_configured_one_mqtt3_4_6() {
    let server = Server::start(&[("mqtt.inflight_max", "3")]);
    let mut publisher = Device::open(&server, "v5; id=p");
    let mut device = Device::open(&server, "v4; id=a; clean");
    device.subscribe(&["a|1"]);
    for number in 1..=4 {
        publisher.publish(&format!("a > {number}"));
    }
    for number in 1..=3 {
        device.expect(&format!("PUBLISH a; qos=1; id={number} > {number}"));
    }
    device.expect_quiet();
    device.say("PUBACK 1");
    device.expect("PUBLISH a; qos=1; id=4 > 4");
}

#[test]
fn what_is_larger_than_the_client_takes_is_left_out_mqtt5_3_1_2_25() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p");
    let mut small = Device::open(&server, "v5; id=a; clean; max=100; receive=1");
    let mut large = Device::open(&server, "v5; id=b; clean");
    for device in [&mut small, &mut large] {
        device.subscribe(&["a|2"]);
    }
    publisher.publish("a > y**200");
    publisher.publish("a > small");
    publisher.say("PUBLISH a > y**200");
    publisher.say("PUBLISH a > smaller");
    large.expect_start("PUBLISH a; qos=1; id=1 > yyy");
    large.expect("PUBLISH a; qos=1; id=2 > small");
    let heard = small.expect_start("PUBLISH a; qos=1; id=");
    assert!(heard.ends_with(" > small"), "{heard}");
    small.expect("PUBLISH a > smaller");
    small.expect_quiet();
}

#[test]
fn a_packet_larger_than_the_server_takes_ends_the_connection_mqtt5_3_2_2_15() {
    let server = Server::start(&[
        ("limits.frame_bytes_max", "2000"),
        ("limits.body_bytes_max", "1000"),
        ("limits.body_bytes_before_login", "1000"),
    ]);
    let (mut device, heard) = Device::introduced(&server, "v5; id=a; clean");
    assert!(heard.contains("; max=2000"), "{heard}");
    device.say("PUBLISH a; qos=1; id=1 > y**1001");
    device.expect_start("PUBACK 1 quota-exceeded");
    device.say("PUBLISH a; qos=1; id=1 > y**1000");
    device.expect("PUBACK 1");
    device.say("PUBLISH a; qos=1; id=1 > y**2000");
    device.expect_end("packet-too-large");
    let mut device = Device::open(&server, "v4; id=b; clean");
    device.say("PUBLISH a > y**2000");
    device.expect(END);
}

#[test]
fn messages_keep_the_order_in_which_they_were_published_mqtt5_4_6_0_5() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    for version in ["v4", "v5"] {
        let mut device = Device::open(&server, &format!("{version}; id={version}; clean"));
        device.subscribe(&["a|0", "b|2"]);
        for number in 1..=300 {
            publisher.say(&format!("PUBLISH a > {number}"));
            publisher.say(&format!("PUBLISH b; qos=1; id={number} > {number}"));
        }
        // [5: 4.6.0-2]
        for number in 1..=300 {
            publisher.expect(&format!("PUBACK {number}"));
        }
        let (mut plain, mut sure) = (0, 0);
        for _ in 0..600 {
            let heard = device.hear();
            let number: i32 = heard.rsplit(' ').next().unwrap().parse().unwrap();
            let last = if heard.starts_with("PUBLISH a") { &mut plain } else { &mut sure };
            assert_eq!(number, *last + 1, "{heard}");
            *last = number;
            if heard.starts_with("PUBLISH b") {
                let id = heard.split("; id=").nth(1).unwrap().split(' ').next().unwrap();
                device.say(&format!("PUBACK {id}"));
            }
        }
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_what_they_answer_mqtt5_4_6_0_2() {
    let server = Server::start(&[]);
    for version in ["v4", "v5"] {
        let mut device = Device::open(&server, &format!("{version}; id=a; clean"));
        let packets: Vec<String> =
            (1..=200).map(|id| format!("PUBLISH a; qos={}; id={id}", 1 + id % 2)).collect();
        device.say_all(&packets.iter().map(String::as_str).collect::<Vec<_>>());
        for id in 1..=200 {
            device.expect(&format!("{} {id}", if id % 2 == 1 { "PUBREC" } else { "PUBACK" }));
        }
        let packets: Vec<String> =
            (1..=200).filter(|id| id % 2 == 1).map(|id| format!("PUBREL {id}")).collect();
        device.say_all(&packets.iter().map(String::as_str).collect::<Vec<_>>());
        for id in (1..=200).filter(|id| id % 2 == 1) {
            device.expect(&format!("PUBCOMP {id}"));
        }
    }
}

#[test]
fn pubrel_leaves_in_the_order_of_pubrec_mqtt5_4_6_0_4() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    for version in ["v4", "v5"] {
        let mut device = Device::open(&server, &format!("{version}; id=a; clean"));
        device.subscribe(&["a|2"]);
        for id in 1..=3 {
            publisher.say(&format!("PUBLISH a; qos=2; id={id} > x"));
            publisher.expect(&format!("PUBREC {id}"));
            publisher.say(&format!("PUBREL {id}"));
            publisher.expect(&format!("PUBCOMP {id}"));
            device.expect(&format!("PUBLISH a; qos=2; id={id} > x"));
        }
        device.say_all(&["PUBREC 3", "PUBREC 1", "PUBREC 2"]);
        for id in [3, 1, 2] {
            device.expect(&format!("PUBREL {id}"));
        }
        device.leave();
    }
}

#[test]
fn limits_that_are_reached_are_told_mqtt5_3_4_2_1() {
    // What the broker says of itself is retained, too.
    let settings =
        [("limits.retained_max", "1"), ("mqtt.topic_levels_max", "3"), ("mqtt.sys_interval_ms", "0")];
    let server = Server::start(&settings);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.publish("a; retain > fits");
    device.say("PUBLISH b; qos=1; id=1; retain > one too many");
    device.expect_start("PUBACK 1 quota-exceeded");
    device.publish("a; retain > replaces");
    device.publish("a/b/c > levels");
    device.say("PUBLISH a/b/c/d; qos=1; id=2 > one level too many");
    device.expect_start("PUBACK 2 topic-name-invalid");
    device.say("SUBSCRIBE 3; f=a/b/c; f=a/b/c/#; f=+/+/+/+");
    device.expect_start("SUBACK 3 [00, 8f, 8f]");
}
