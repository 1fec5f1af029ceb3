//! Shared subscriptions.

use super::device::Device;
use crate::server::Server;

/// What has come to a device, up to the answer to a question asked now.
fn drain(device: &mut Device) -> Vec<String> {
    device.say("PINGREQ");
    let mut heard = Vec::new();
    loop {
        match device.hear() {
            line if line == "PINGRESP" => return heard,
            line => heard.push(line),
        }
    }
}

/// The packet id in a PUBLISH.
fn id_of(line: &str) -> String {
    let id = line.split("; ").find_map(|word| word.strip_prefix("id="));
    id.unwrap_or_else(|| panic!("{line}")).split(' ').next().unwrap().to_owned()
}

#[test]
fn each_message_goes_to_one_member_mqtt5_4_8_2_3() {
    let server = Server::start(&[]);
    for version in ["v3", "v4", "v5"] {
        let group = format!("$share/{version}/a/#");
        let mut members: Vec<Device> = (0..3)
            .map(|number| {
                let mut device = Device::open(&server, &format!("{version}; id={version}{number}; clean"));
                // QoS 2 is not granted: see the page.
                device.say(&format!("SUBSCRIBE 1; f={group}|{number}"));
                device.expect(&format!("SUBACK 1 [{:02}]", number.min(1)));
                device
            })
            .collect();
        let mut plain = Device::open(&server, "v5; id=plain; clean");
        plain.subscribe(&["a/b|1"]);
        let mut publisher = Device::open(&server, "v5; id=p; clean");
        for number in 0..30 {
            publisher.publish(&format!("a/b > {number}"));
        }
        let mut bodies = Vec::new();
        for (number, member) in members.iter_mut().enumerate() {
            let heard = drain(member);
            assert!(!heard.is_empty(), "{version}{number} got nothing");
            for line in heard {
                assert_eq!(line.contains("; qos=1"), number > 0, "{line}");
                bodies.push(line.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
            }
        }
        bodies.sort_unstable();
        assert_eq!(bodies, (0..30).collect::<Vec<_>>());
        assert_eq!(drain(&mut plain).len(), 30);
    }
}

#[test]
fn what_a_lost_member_had_goes_to_another_mqtt5_4_8_2() {
    let server = Server::start(&[]);
    let mut lost = Device::open(&server, "v5; id=a; clean");
    lost.subscribe(&["$share/g/a|1"]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    for number in 0..4 {
        publisher.publish(&format!("a > {number}"));
    }
    for number in 0..4 {
        let heard = lost.hear();
        assert!(heard.ends_with(&format!(" > {number}")), "{heard}");
    }
    let mut other = Device::open(&server, "v5; id=b; clean");
    other.subscribe(&["$share/g/a|1"]);
    other.expect_quiet();
    lost.vanish();
    for number in 0..4 {
        let heard = other.expect_start("PUBLISH a; qos=1; id=");
        assert!(heard.ends_with(&format!(" > {number}")), "{heard}");
    }
}

#[test]
fn what_a_member_refuses_goes_to_nobody_mqtt5_4_8_2_6() {
    let server = Server::start(&[]);
    let mut one = Device::open(&server, "v5; id=a; clean");
    one.subscribe(&["$share/g/a|1"]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("a > refused");
    let heard = one.expect_start("PUBLISH a; qos=1; id=");
    let mut two = Device::open(&server, "v5; id=b; clean");
    two.subscribe(&["$share/g/a|1"]);
    one.say(&format!("PUBACK {}; code=80", id_of(&heard)));
    one.expect_quiet();
    one.vanish();
    publisher.publish("a > next");
    let heard = two.expect_start("PUBLISH a; qos=1; id=");
    assert!(heard.ends_with(" > next"), "{heard}");
    two.expect_quiet();
}

#[test]
fn a_group_gets_nothing_that_was_kept_mqtt5_4_8_2() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("a; retain > kept");
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.subscribe(&["$share/g/a|1"]);
    device.expect_quiet();
    device.subscribe(&["a|1"]);
    device.expect_start("PUBLISH a; qos=1");
}

#[test]
fn a_group_with_a_session_waits_for_its_members_mqtt5_4_8_2() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; expiry=100");
    device.subscribe(&["$share/g/a|1"]);
    device.leave();
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    publisher.publish("a > waits");
    let mut device = Device::resumed(&server, "v5; id=a; expiry=100");
    let heard = device.expect_start("PUBLISH a; qos=1; id=");
    assert!(heard.ends_with(" > waits"), "{heard}");
    device.say(&format!("PUBACK {}", id_of(&heard)));
    device.say("UNSUBSCRIBE 1; f=$share/g/a");
    device.expect("UNSUBACK 1 [00]");
    publisher.publish("a > to nobody");
    device.expect_quiet();
}
