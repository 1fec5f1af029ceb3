//! CONNECT and CONNACK.

use sabir_mqtt::Version;

use super::auth::add_user;
use super::device::{Device, END, connect_bytes, packet, pass};
use crate::server::Server;

#[test]
fn the_first_packet_must_be_connect_mqtt5_3_1_0_1() {
    let server = Server::start(&[]);
    for bytes in [
        &[0x30, 3, 0, 1, b'a'][..],
        &[0x82, 6, 0, 1, 0, 1, b'a', 0],
        &[0xc0, 0],
        &[0xe0, 0],
        &[0xf0, 0],
        &[0x40, 2, 0, 1],
        &[0x20, 2, 0, 0],
    ] {
        let mut device = Device::silent(server.mqtt, "v5");
        device.raw(bytes);
        assert_eq!(device.hear(), END, "{bytes:02x?}");
    }
}

#[test]
fn a_second_connect_closes_the_connection_mqtt5_3_1_0_2() {
    let server = Server::start(&[]);
    for version in ["v3", "v4", "v5"] {
        let mut device = Device::open(&server, &format!("{version}; id=a; clean"));
        device.say(&format!("CONNECT {version}; id=a; clean"));
        device.expect_end("protocol-error");
    }
}

#[test]
fn protocol_names_and_levels_of_no_version_are_refused_mqtt5_3_1_2_2() {
    let server = Server::start(&[]);
    for (name, level, version, answer) in [
        (&b"MQTT"[..], 3, "v4", "CONNACK unsupported-protocol-version"),
        (b"MQTT", 0, "v4", "CONNACK unsupported-protocol-version"),
        (b"MQTT", 6, "v5", "CONNACK unsupported-protocol-version"),
        (b"MQTT", 0x84, "v5", "CONNACK unsupported-protocol-version"),
        (b"MQIsdp", 4, "v3", "CONNACK unsupported-protocol-version"),
        (b"MQTX", 4, "v4", END),
        (b"mqtt", 5, "v5", END),
        (b"", 5, "v5", END),
    ] {
        let mut body = vec![0, u8::try_from(name.len()).unwrap()];
        body.extend_from_slice(name);
        body.extend_from_slice(&[level, 2, 0, 0, 0, 0, 1, b'c']);
        let mut device = Device::silent(server.mqtt, version);
        device.raw(&packet(0x10, &body));
        let heard = device.hear();
        assert!(heard.starts_with(answer), "{name:?} {level}: {heard}");
        if heard != END {
            device.expect(END);
        }
    }
}

#[test]
fn flags_and_payload_of_connect_must_agree_mqtt5_3_1_2_11() {
    let server = Server::start(&[]);
    let id = [0, 1, b'c'];
    let will_4 = [&id[..], &[0, 1, b'w', 0, 0]].concat();
    let will_5 = [&id[..], &[0, 0, 1, b'w', 0, 0]].concat();
    for (flags, payload_4, payload_5, why) in [
        (0x03, &id[..], &id[..], "reserved"),
        (0x0a, &id, &id, "will QoS 1 without a will"),
        (0x12, &id, &id, "will QoS 2 without a will"),
        (0x22, &id, &id, "will retain without a will"),
        (0x1e, &will_4, &will_5, "will QoS 3"),
        (0x06, &id, &id, "will announced, not there"),
        (0x02, &will_4, &will_5, "will there, not announced"),
        (0x82, &id, &id, "user name announced, not there"),
        (0xc2, &[0, 1, b'c', 0, 1, b'u'], &[0, 1, b'c', 0, 1, b'u'], "password announced, not there"),
        (0x02, &[0, 1, b'c', 0, 1, b'u'], &[0, 1, b'c', 0, 1, b'u'], "user name there, not announced"),
        (0x02, &[], &[], "no client id"),
    ] {
        let mut device = Device::silent(server.mqtt, "v4");
        device.raw(&connect_bytes(4, flags, &[], payload_4));
        assert_eq!(device.hear(), END, "{why}");
        let mut device = Device::silent(server.mqtt, "v5");
        device.raw(&connect_bytes(5, flags, &[], payload_5));
        let heard = device.hear();
        assert!(heard.starts_with("CONNACK malformed-packet"), "{why}: {heard}");
        device.expect(END);
    }
}

#[test]
fn a_password_without_a_user_name_depends_on_the_version_mqtt3_3_1_2_22() {
    let server = Server::start(&[]);
    let payload = [0, 1, b'c', 0, 1, b'p'];
    let mut device = Device::silent(server.mqtt, "v4");
    device.raw(&connect_bytes(4, 0x42, &[], &payload));
    device.expect(END);
    let mut device = Device::silent(server.mqtt, "v5");
    device.raw(&connect_bytes(5, 0x42, &[], &payload));
    device.expect_start("CONNACK success");
}

#[test]
fn session_present_is_told_of_every_pair_mqtt5_3_2_2_3() {
    let server = Server::start(&[]);
    for version in ["v4", "v5"] {
        let keep = if version == "v5" { "; expiry=100" } else { "" };
        for (existing, clean, present) in
            [(false, false, false), (false, true, false), (true, false, true), (true, true, false)]
        {
            let id = format!("{version}-{existing}-{clean}");
            if existing {
                Device::open(&server, &format!("{version}; id={id}{keep}")).leave();
            }
            let clean = if clean { "; clean" } else { "" };
            let (_, answer) = Device::introduced(&server, &format!("{version}; id={id}{clean}{keep}"));
            assert!(answer.starts_with("CONNACK success"), "{answer}");
            assert_eq!(answer.contains("; present"), present, "{id}");
        }
    }
}

#[test]
fn the_flags_of_connack_are_zero_but_for_session_present_mqtt5_3_2_2_1() {
    let server = Server::start(&[]);
    for (words, flags) in
        [("v5; id=a; expiry=100", 0), ("v5; id=a; expiry=100", 1), ("v4; id=b", 0), ("v4; id=b", 1)]
    {
        let mut device = Device::silent(server.mqtt, &words[..2]);
        device.say(&format!("CONNECT {words}"));
        let heard = device.hear_raw();
        assert_eq!((heard[0], heard[2], heard[3]), (0x20, flags, 0), "{words}");
        device.leave();
    }
}

#[test]
fn connack_comes_once_and_first_mqtt5_3_2_0_2() {
    let server = Server::start(&[]);
    for version in ["v3", "v4", "v5"] {
        let mut device = Device::silent(server.mqtt, version);
        // All in one write: nothing need be waited for.
        device.say_all(&[
            &format!("CONNECT {version}; id=a; clean"),
            "SUBSCRIBE 1; f=a|1",
            "PUBLISH a; qos=1; id=2 > early",
            "PINGREQ",
        ]);
        device.expect_start("CONNACK success");
        device.expect_all(&["PINGRESP", "PUBACK 2", "PUBLISH a; qos=1; id=1 > early", "SUBACK 1 [01]"]);
        device.expect_quiet();
    }
}

#[test]
fn client_ids_may_be_long_strange_or_left_to_the_server_mqtt5_3_1_3_5() {
    let server = Server::start(&[]);
    let characters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for id in ["a", &characters[..23], &characters[23..46], &characters[46..], "a b/c#ü", &"x".repeat(1024)]
    {
        for version in ["v4", "v5"] {
            Device::open(&server, &format!("{version}; id={id}; clean")).leave();
        }
    }
    for version in ["v4", "v5"] {
        let (mut device, answer) =
            Device::introduced(&server, &format!("{version}; id={}; clean", "x".repeat(1025)));
        assert!(answer.starts_with("CONNACK client-identifier-not-valid"), "{answer}");
        device.expect(END);
    }
    let (mut device, answer) = Device::introduced(&server, "v4");
    assert_eq!(answer, "CONNACK client-identifier-not-valid");
    device.expect(END);
    Device::open(&server, "v4; clean").leave();
}

#[test]
fn assigned_client_ids_are_new_and_name_the_session_mqtt5_3_2_2_16() {
    let server = Server::start(&[]);
    let assigned = |answer: &str| {
        let id = answer.split("; ").find_map(|word| word.strip_prefix("assigned="));
        id.map(str::to_owned).unwrap_or_else(|| panic!("{answer}"))
    };
    let (one, answer) = Device::introduced(&server, "v5; expiry=100");
    let first = assigned(&answer);
    let (_two, answer) = Device::introduced(&server, "v5; clean");
    assert_ne!(assigned(&answer), first);
    one.leave();
    Device::resumed(&server, &format!("v5; id={first}"));
}

#[test]
fn a_client_id_that_connects_again_takes_over_mqtt5_3_1_4_3() {
    let server = Server::start(&[]);
    for version in ["v3", "v4", "v5"] {
        let keep = if version == "v5" { "; expiry=100" } else { "" };
        for clean in ["", "; clean"] {
            let id = format!("{version}{}", clean.len());
            let mut old = Device::open(&server, &format!("{version}; id={id}{keep}"));
            let (mut new, answer) = Device::introduced(&server, &format!("{version}; id={id}{clean}{keep}"));
            let present = clean.is_empty() && version != "v3";
            assert_eq!(answer.contains("; present"), present, "{version}{clean}");
            old.expect_end("session-taken-over");
            new.expect_quiet();
        }
    }
}

#[test]
fn a_client_that_is_not_let_in_is_not_heard_mqtt5_3_1_4_6() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "ann", "secret");
    let server = Server::start_in(dir.path(), &[]);
    let mut watcher = Device::open(&server, "v5; id=w; user=ann; pass=secret");
    watcher.subscribe(&["#|1"]);
    for version in ["v4", "v5"] {
        let mut device = Device::silent(server.mqtt, version);
        device.say_all(&[
            &format!("CONNECT {version}; id=a; clean; user=ann; pass=wrong; will=will"),
            "PUBLISH a; retain > early",
        ]);
        let heard = device.expect_start("CONNACK bad-user-name-or-password");
        assert!(!heard.contains("; present"), "{heard}");
        device.expect(END);
    }
    watcher.say("PUBLISH b; qos=1; id=9 > on time");
    watcher.expect_all(&["PUBACK 9", "PUBLISH b; qos=1; id=1 > on time"]);
}

#[test]
fn who_says_nothing_is_given_up_mqtt5_3_1_2_22() {
    let server = Server::start(&[]);
    let mut watcher = Device::open(&server, "v5; id=w");
    watcher.subscribe(&["will/+"]);
    for version in ["v4", "v5"] {
        let words = format!("{version}; id=a{version}; clean; keep=1; will=will/{version} > gone");
        let mut silent = Device::open(&server, &words);
        silent.expect_end("keep-alive-timeout");
        watcher.expect(&format!("PUBLISH will/{version} > gone"));
    }
}

#[test]
fn without_a_keep_alive_nobody_is_given_up_mqtt5_3_1_2_22() {
    let server = Server::start(&[]);
    let mut silent = Device::open(&server, "v5; id=a; keep=0");
    let mut patient = Device::open(&server, "v4; id=b; keep=100");
    pass(&server);
    silent.expect_quiet();
    patient.expect_quiet();
}

#[test]
fn a_keep_alive_that_is_too_long_is_shortened_and_that_counts_mqtt5_3_2_2_21() {
    let server = Server::start(&[("mqtt.keep_alive_max_ms", "1000")]);
    let (mut device, answer) = Device::introduced(&server, "v5; id=a; keep=600");
    assert!(answer.contains("; keep=1"), "{answer}");
    device.expect_end("keep-alive-timeout");
    let (mut device, answer) = Device::introduced(&server, "v5; id=a; keep=1");
    assert!(!answer.contains("keep="), "{answer}");
    device.expect_end("keep-alive-timeout");
}

#[test]
fn versions_say_in_connack_what_they_can_say_mqtt3_3_2_2_5() {
    let server = Server::start(&[]);
    for (version, expected) in [
        (Version::V31, vec![0x20, 2, 0, 0]),
        (Version::V311, vec![0x20, 2, 0, 0]),
        // Receive Maximum 1000, Topic Alias Maximum 64: nothing that is as usual.
        (Version::V5, vec![0x20, 9, 0, 0, 6, 0x21, 3, 0xe8, 0x22, 0, 64]),
    ] {
        let word = ["v3", "v4", "v5"][version as usize];
        let mut device = Device::silent(server.mqtt, word);
        device.say(&format!("CONNECT {word}; id=a; clean"));
        let mut heard = device.hear_raw();
        if version == Version::V5 {
            // The order of properties is free.
            assert_eq!(heard.len(), expected.len(), "{heard:02x?}");
            heard.sort_unstable();
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(heard, expected);
        } else {
            assert_eq!(heard, expected);
        }
    }
}
