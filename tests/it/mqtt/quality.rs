//! QoS 1 and 2: each step, the connection lost after each step, in both directions.

use super::device::Device;
use crate::server::Server;

#[test]
fn qos_is_the_lesser_of_published_and_granted_mqtt5_3_8_4_8() {
    let server = Server::start(&[]);
    for version in ["v3", "v4", "v5"] {
        let mut publisher = Device::open(&server, "v5; id=p; clean");
        for granted in 0..=2 {
            let mut device = Device::open(&server, &format!("{version}; id=a; clean"));
            device.subscribe(&[&format!("a|{granted}")]);
            for published in 0..=2 {
                let id = if published > 0 { "; id=1" } else { "" };
                publisher.say(&format!("PUBLISH a; qos={published}{id} > x"));
                match published {
                    0 => {}
                    1 => publisher.expect("PUBACK 1"),
                    _ => {
                        publisher.expect("PUBREC 1");
                        publisher.say("PUBREL 1");
                        publisher.expect("PUBCOMP 1");
                    }
                }
                match published.min(granted) {
                    0 => device.expect("PUBLISH a > x"),
                    qos => {
                        device.expect_start(&format!("PUBLISH a; qos={qos}; id="));
                    }
                }
            }
        }
    }
}

#[test]
fn what_was_not_acknowledged_is_sent_again_in_order_mqtt5_4_4_0_1() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    for version in ["v4", "v5"] {
        let words = if version == "v5" { "v5; id=five; expiry=100" } else { "v4; id=four" };
        let mut device = Device::open(&server, words);
        device.subscribe(&["a|2"]);
        for (id, qos) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)] {
            publisher.say(&format!("PUBLISH a; qos={qos}; id={id} > {id}"));
            publisher.hear();
            device.expect(&format!("PUBLISH a; qos={qos}; id={id} > {id}"));
        }
        device.say("PUBACK 3");
        device.say("PUBREC 4");
        device.expect("PUBREL 4");
        // On a connection that lives nothing is repeated.
        device.expect_quiet();
        device.vanish();
        let mut device = Device::resumed(&server, words);
        for heard in [
            "PUBLISH a; qos=1; id=1; dup > 1",
            "PUBLISH a; qos=2; id=2; dup > 2",
            "PUBREL 4",
            "PUBLISH a; qos=1; id=5; dup > 5",
        ] {
            device.expect(heard);
        }
        for packet in ["PUBACK 1", "PUBACK 5", "PUBCOMP 4", "PUBREC 2"] {
            device.say(packet);
        }
        device.expect("PUBREL 2");
        device.say("PUBCOMP 2");
        device.leave();
        Device::resumed(&server, words).expect_quiet();
        for id in [2, 4] {
            publisher.say(&format!("PUBREL {id}"));
            publisher.expect(&format!("PUBCOMP {id}"));
        }
    }
}

#[test]
fn a_client_that_says_no_is_not_asked_again_mqtt5_4_4_0_2() {
    let server = Server::start(&[]);
    let mut publisher = Device::open(&server, "v5; id=p; clean");
    let mut device = Device::open(&server, "v5; id=a; expiry=100");
    device.subscribe(&["a|2"]);
    publisher.publish("a > one");
    publisher.say("PUBLISH a; qos=2; id=2 > two");
    device.expect("PUBLISH a; qos=1; id=1 > one");
    device.say("PUBACK 1; code=80");
    device.expect("PUBLISH a; qos=2; id=2 > two");
    device.say("PUBREC 2; code=97");
    device.expect_quiet();
    device.vanish();
    Device::resumed(&server, "v5; id=a; expiry=100").expect_quiet();
}

#[test]
fn a_repeated_publish_of_qos_2_is_one_message_mqtt5_4_3_3_10() {
    let server = Server::start(&[]);
    let mut watcher = Device::open(&server, "v5; id=w; clean");
    watcher.subscribe(&["a|0"]);
    for version in ["v3", "v4", "v5"] {
        let mut device = Device::open(&server, &format!("{version}; id=a; clean"));
        for dup in ["", "; dup", "; dup"] {
            device.say(&format!("PUBLISH a; qos=2; id=1{dup} > {version}"));
            device.expect("PUBREC 1");
        }
        for _ in 0..2 {
            device.say("PUBREL 1");
            device.expect_start("PUBCOMP 1");
        }
        watcher.expect(&format!("PUBLISH a > {version}"));
        // [5: 4.3.3-12] The id is free now.
        device.say("PUBLISH a; qos=2; id=1; dup > again");
        device.expect("PUBREC 1");
        watcher.expect("PUBLISH a > again");
        watcher.expect_quiet();
    }
}

#[test]
fn a_repeated_publish_of_qos_1_is_another_message_mqtt5_4_3_2_5() {
    let server = Server::start(&[]);
    let mut watcher = Device::open(&server, "v5; id=w; clean");
    watcher.subscribe(&["a|1"]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    for (dup, id) in [("", 1), ("; dup", 2)] {
        device.say(&format!("PUBLISH a; qos=1; id=1{dup} > x"));
        device.expect("PUBACK 1");
        // [5: 3.3.1-3] DUP is between two, not for the third.
        watcher.expect(&format!("PUBLISH a; qos=1; id={id} > x"));
    }
}

#[test]
fn packet_ids_that_mean_nothing_are_told_so_mqtt5_4_3_3_11() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.say("PUBREL 9");
    device.expect("PUBCOMP 9 packet-identifier-not-found");
    device.say("PUBREC 9");
    device.expect("PUBREL 9 packet-identifier-not-found");
    device.say("PUBACK 9");
    device.say("PUBCOMP 9");
    device.expect_quiet();
    let mut device = Device::open(&server, "v4; id=b; clean");
    device.say("PUBREL 9");
    device.expect("PUBCOMP 9");
    device.say("PUBREC 9");
    device.expect("PUBREL 9");
    device.expect_quiet();
}

/// Plays `steps` of a client publishing with QoS 2, loses the connection, and plays the whole again as the rules have it.
fn publish_interrupted(server: &Server, version: &str, step: usize) {
    let id = format!("{version}-{step}");
    let keep = if version == "v5" { "; expiry=100" } else { "" };
    let words = format!("{version}; id={id}{keep}");
    let mut watcher = Device::open(server, "v5; id=w; clean");
    watcher.subscribe(&[&format!("{id}|2")]);
    let mut device = Device::open(server, &words);
    let publish = format!("PUBLISH {id}; qos=2; id=1 > x");
    device.say(&publish);
    if step == 0 {
        // Nobody knows whether it arrived. It does, here: it is seen.
        watcher.expect(&publish);
    } else {
        device.expect("PUBREC 1");
        watcher.expect(&publish);
    }
    if step >= 2 {
        device.say("PUBREL 1");
        if step >= 3 {
            device.expect("PUBCOMP 1");
        }
    }
    device.vanish();
    let mut device = Device::resumed(server, &words);
    if step == 0 {
        device.say(&format!("PUBLISH {id}; qos=2; id=1; dup > x"));
        device.expect("PUBREC 1");
    }
    device.say("PUBREL 1");
    device.expect_start("PUBCOMP 1");
    watcher.expect_quiet();
    device.say(&format!("PUBLISH {id}; qos=2; id=1 > another"));
    device.expect("PUBREC 1");
    watcher.expect(&format!("PUBLISH {id}; qos=2; id=2 > another"));
}

#[test]
fn publishing_with_qos_2_survives_the_loss_of_the_connection_after_each_packet_mqtt5_4_3_3_10() {
    let server = Server::start(&[]);
    for version in ["v3", "v4", "v5"] {
        for step in 0..=3 {
            // 3.1 cannot tell that a session is there.
            if version != "v3" {
                publish_interrupted(&server, version, step);
            }
        }
    }
}

/// A client receives with QoS 2 and vanishes after each packet in turn.
fn receive_interrupted(server: &Server, version: &str, step: usize) {
    let id = format!("{version}-{step}");
    let keep = if version == "v5" { "; expiry=100" } else { "" };
    let words = format!("{version}; id={id}{keep}");
    let mut publisher = Device::open(server, "v5; id=p; clean");
    let mut device = Device::open(server, &words);
    device.subscribe(&[&format!("{id}|2")]);
    publisher.say(&format!("PUBLISH {id}; qos=2; id=1 > x"));
    publisher.expect("PUBREC 1");
    device.expect(&format!("PUBLISH {id}; qos=2; id=1 > x"));
    if step >= 1 {
        device.say("PUBREC 1");
        device.expect("PUBREL 1");
    }
    if step >= 2 {
        device.say("PUBCOMP 1");
        device.expect_quiet();
    }
    device.vanish();
    let mut device = Device::resumed(server, &words);
    match step {
        0 => {
            device.expect(&format!("PUBLISH {id}; qos=2; id=1; dup > x"));
            device.say("PUBREC 1");
            device.expect("PUBREL 1");
            device.say("PUBCOMP 1");
        }
        1 => {
            device.expect("PUBREL 1");
            device.say("PUBCOMP 1");
        }
        _ => {}
    }
    device.expect_quiet();
    device.leave();
    Device::resumed(server, &words).expect_quiet();
}

#[test]
fn receiving_with_qos_2_survives_the_loss_of_the_connection_after_each_packet_mqtt5_4_3_3_6() {
    let server = Server::start(&[]);
    for version in ["v4", "v5"] {
        for step in 0..=2 {
            receive_interrupted(&server, version, step);
        }
    }
}

#[test]
fn the_ids_of_both_directions_are_apart_mqtt5_2_2_1_4() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a; clean");
    device.subscribe(&["a|2"]);
    device.say("PUBLISH a; qos=2; id=1 > x");
    device.expect_all(&["PUBREC 1", "PUBLISH a; qos=2; id=1 > x"]);
    device.say("PUBREL 1");
    device.expect("PUBCOMP 1");
    device.say("PUBREC 1");
    device.expect("PUBREL 1");
    device.say("PUBCOMP 1");
    device.expect_quiet();
}
