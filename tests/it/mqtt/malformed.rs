//! Bytes that are no packet, or one that must not come: version 5 says why, 3.1.1 just closes.

use super::device::{Device, END, connect_bytes, packet};
use crate::server::Server;

/// Bytes, the reason that version 5 gives for them, and what is wrong with them.
type Wrong<'a> = (&'a [u8], &'a str, &'a str);

/// Each on a connection of its own, which it ends.
#[track_caller]
fn ends(server: &Server, version: &str, cases: &[Wrong<'_>]) {
    for (bytes, reason, why) in cases {
        let mut device = Device::open(server, &format!("{version}; id=m; clean"));
        device.raw(bytes);
        if version == "v5" {
            let heard = device.hear();
            assert!(heard.starts_with(&format!("DISCONNECT {reason}")), "{why}: {heard}");
        }
        assert_eq!(device.hear(), END, "{version}: {why}");
    }
}

#[test]
fn reserved_flags_are_malformed_mqtt5_2_1_3_1() {
    let server = Server::start(&[]);
    let ack = [0, 1];
    for version in ["v4", "v5"] {
        let none: &[u8] = if version == "v5" { &[0] } else { &[] };
        let subscribe = [&ack[..], none, &[0, 1, b'a', 0]].concat();
        let unsubscribe = [&ack[..], none, &[0, 1, b'a']].concat();
        for (kind, flags, body) in [
            (0x40, 0, &ack[..]),
            (0x50, 0, &ack),
            (0x60, 2, &ack),
            (0x70, 0, &ack),
            (0x80, 2, &subscribe),
            (0xa0, 2, &unsubscribe),
            (0xc0, 0, &[]),
            (0xe0, 0, &[]),
        ] {
            for wrong in (0..16).filter(|wrong| *wrong != flags) {
                let bytes = packet(kind | wrong, body);
                ends(&server, version, &[(&bytes, "malformed-packet", &format!("{kind:02x} {wrong:x}"))]);
            }
        }
    }
    ends(&server, "v5", &[(&[0xf1, 0], "malformed-packet", "AUTH")]);
}

#[test]
fn text_that_is_no_utf_8_or_holds_u_0000_is_malformed_mqtt5_1_5_4_1() {
    let server = Server::start(&[]);
    for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"a\xe2\x82", b"a\0b"] {
        let text = [&[0, u8::try_from(bad.len()).unwrap()][..], bad].concat();
        for version in ["v4", "v5"] {
            let none: &[u8] = if version == "v5" { &[0] } else { &[] };
            let publish = packet(0x30, &[&text[..], none].concat());
            let subscribe = packet(0x82, &[&[0, 1], none, &text, &[0]].concat());
            let unsubscribe = packet(0xa2, &[&[0, 1], none, &text].concat());
            ends(
                &server,
                version,
                &[
                    (&publish, "malformed-packet", "topic name"),
                    (&subscribe, "malformed-packet", "filter"),
                    (&unsubscribe, "malformed-packet", "filter to end"),
                ],
            );
            let level = if version == "v5" { 5 } else { 4 };
            let id = [0, 1, b'c'];
            let will = [&id[..], none, &text, &[0, 0]].concat();
            let user = [&id[..], &text].concat();
            for (flags, payload, why) in
                [(2, &text, "client id"), (6, &will, "will topic"), (0x82, &user, "user name")]
            {
                let mut device = Device::silent(server.mqtt, version);
                device.raw(&connect_bytes(level, flags, &[], payload));
                if version == "v5" {
                    let heard = device.hear();
                    assert!(heard.starts_with("CONNACK malformed-packet"), "{why}: {heard}");
                }
                assert_eq!(device.hear(), END, "{version}: {why}");
            }
        }
        for (id, why) in [(0x03, "content type"), (0x08, "response topic"), (0x26, "user property")] {
            let mut property = [&[id][..], &text].concat();
            if id == 0x26 {
                property.extend_from_slice(&[0, 1, b'v']);
            }
            let length = u8::try_from(property.len()).unwrap();
            let bytes = packet(0x30, &[&[0, 1, b'a', length][..], &property].concat());
            ends(&server, "v5", &[(&bytes, "malformed-packet", why)]);
        }
        let value = [&[0x26, 0, 1, b'k'][..], &text].concat();
        let length = u8::try_from(value.len()).unwrap();
        let bytes = packet(0x30, &[&[0, 1, b'a', length][..], &value].concat());
        ends(&server, "v5", &[(&bytes, "malformed-packet", "value of a user property")]);
    }
}

#[test]
fn a_byte_order_mark_is_part_of_the_text_mqtt5_1_5_4_3() {
    let server = Server::start(&[]);
    let mut device = Device::open(&server, "v5; id=a");
    device.subscribe(&["\u{feff}a", "b"]);
    device.say("PUBLISH a > without");
    device.say("PUBLISH \u{feff}a > with");
    device.expect("PUBLISH \u{feff}a > with");
    device.expect_quiet();
}

#[test]
fn packet_ids_are_never_0_mqtt5_2_2_1_3() {
    let server = Server::start(&[]);
    ends(
        &server,
        "v5",
        &[
            (&[0x32, 6, 0, 1, b'a', 0, 0, 0], "protocol-error", "PUBLISH QoS 1"),
            (&[0x34, 6, 0, 1, b'a', 0, 0, 0], "protocol-error", "PUBLISH QoS 2"),
            (&[0x82, 7, 0, 0, 0, 0, 1, b'a', 0], "protocol-error", "SUBSCRIBE"),
            (&[0xa2, 6, 0, 0, 0, 0, 1, b'a'], "protocol-error", "UNSUBSCRIBE"),
            (&[0x40, 2, 0, 0], "protocol-error", "PUBACK"),
            (&[0x62, 2, 0, 0], "protocol-error", "PUBREL"),
        ],
    );
    ends(
        &server,
        "v4",
        &[
            (&[0x32, 5, 0, 1, b'a', 0, 0], "", "PUBLISH QoS 1"),
            (&[0x34, 5, 0, 1, b'a', 0, 0], "", "PUBLISH QoS 2"),
            (&[0x82, 6, 0, 0, 0, 1, b'a', 0], "", "SUBSCRIBE"),
            (&[0xa2, 5, 0, 0, 0, 1, b'a'], "", "UNSUBSCRIBE"),
            (&[0x40, 2, 0, 0], "", "PUBACK"),
            (&[0x62, 2, 0, 0], "", "PUBREL"),
        ],
    );
}

#[test]
fn lengths_are_written_in_as_few_bytes_as_possible_mqtt5_1_5_5_1() {
    let server = Server::start(&[]);
    ends(
        &server,
        "v5",
        &[
            (&[0xc0, 0x80, 0], "malformed-packet", "remaining length"),
            (&[0x30, 5, 0, 1, b'a', 0x80, 0], "malformed-packet", "length of properties"),
            (&[0xc0, 0xff, 0xff, 0xff, 0xff, 0x7f], "malformed-packet", "five bytes"),
        ],
    );
    ends(&server, "v4", &[(&[0xc0, 0xff, 0xff, 0xff, 0xff, 0x7f], "", "five bytes")]);
}

#[test]
fn publish_that_contradicts_itself_is_malformed_mqtt5_3_3_1_4() {
    let server = Server::start(&[]);
    ends(
        &server,
        "v5",
        &[
            (&[0x36, 6, 0, 1, b'a', 0, 1, 0], "malformed-packet", "QoS 3"),
            (&[0x38, 4, 0, 1, b'a', 0], "malformed-packet", "DUP with QoS 0"),
            (&[0x30, 4, 0, 1, b'+', 0], "topic-name-invalid", "a wildcard"),
            (&[0x30, 6, 0, 3, b'a', b'/', b'#', 0], "topic-name-invalid", "a wildcard"),
            (&[0x30, 3, 0, 0, 0], "protocol-error", "neither topic nor alias"),
            (&[0x30, 3, 0, 5, b'a'], "malformed-packet", "shorter than it says"),
            (&[0x32, 3, 0, 1, b'a'], "malformed-packet", "no packet id"),
            (&[0x30, 3, 0, 1, b'a'], "malformed-packet", "no length of properties"),
        ],
    );
    ends(
        &server,
        "v4",
        &[
            (&[0x36, 5, 0, 1, b'a', 0, 1], "", "QoS 3"),
            (&[0x38, 3, 0, 1, b'a'], "", "DUP with QoS 0"),
            (&[0x30, 3, 0, 1, b'#'], "", "a wildcard"),
            (&[0x30, 2, 0, 0], "", "an empty topic"),
            (&[0x30, 3, 0, 5, b'a'], "", "shorter than it says"),
        ],
    );
}

#[test]
fn subscribe_and_unsubscribe_that_make_no_sense_are_malformed_mqtt5_3_8_3_2() {
    let server = Server::start(&[]);
    ends(
        &server,
        "v5",
        &[
            (&[0x82, 3, 0, 1, 0], "protocol-error", "no filter"),
            (&[0x82, 7, 0, 1, 0, 0, 1, b'a', 3], "protocol-error", "QoS 3"),
            (&[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30], "protocol-error", "retain handling 3"),
            (&[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x40], "malformed-packet", "a reserved option"),
            (&[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x80], "malformed-packet", "a reserved option"),
            (&[0x82, 9, 0, 1, 2, 0x0b, 0, 0, 1, b'a', 0], "protocol-error", "subscription identifier 0"),
            (
                &[0x82, 11, 0, 1, 4, 0x0b, 1, 0x0b, 1, 0, 1, b'a', 0],
                "protocol-error",
                "two subscription identifiers",
            ),
            (&[0xa2, 3, 0, 1, 0], "protocol-error", "no filter to end"),
        ],
    );
    let shared = b"$share/g/a";
    let body = [&[0, 1, 0, 0, 10][..], shared, &[4]].concat();
    ends(&server, "v5", &[(&packet(0x82, &body), "protocol-error", "no local of a shared subscription")]);
    ends(
        &server,
        "v4",
        &[
            (&[0x82, 2, 0, 1], "", "no filter"),
            (&[0x82, 6, 0, 1, 0, 1, b'a', 3], "", "QoS 3"),
            (&[0x82, 6, 0, 1, 0, 1, b'a', 4], "", "a reserved option"),
            (&[0xa2, 2, 0, 1], "", "no filter to end"),
        ],
    );
}

#[test]
fn properties_come_once_and_where_they_belong_mqtt5_4_13_1_1() {
    let server = Server::start(&[]);
    let publish = |properties: &[u8]| {
        packet(0x30, &[&[0, 1, b'a', u8::try_from(properties.len()).unwrap()], properties].concat())
    };
    for (properties, reason, why) in [
        (&[1, 0, 1, 0][..], "protocol-error", "payload format twice"),
        (&[2, 0, 0, 0, 1, 2, 0, 0, 0, 1], "protocol-error", "expiry twice"),
        (&[0x23, 0, 1, 0x23, 0, 1], "protocol-error", "alias twice"),
        (&[3, 0, 1, b'a', 3, 0, 1, b'a'], "protocol-error", "content type twice"),
        (&[1, 2], "protocol-error", "payload format 2"),
        (&[0x11, 0, 0, 0, 1], "malformed-packet", "session expiry in PUBLISH"),
        (&[0x24, 1], "malformed-packet", "maximum QoS in PUBLISH"),
        (&[0x7f, 1], "malformed-packet", "no such property"),
        (&[2, 0, 0], "malformed-packet", "half a property"),
        (&[0x0b, 1], "protocol-error", "subscription identifier of a client"),
        (&[8, 0, 1, b'#'], "protocol-error", "response topic with a wildcard"),
        (&[0x23, 0, 0], "topic-alias-invalid", "alias 0"),
        (&[0x23, 0, 65], "topic-alias-invalid", "alias above the maximum"),
    ] {
        ends(&server, "v5", &[(&publish(properties), reason, why)]);
    }
    ends(
        &server,
        "v5",
        &[
            (&[0xe0, 7, 4, 5, 0x11, 0, 0, 0, 9], "protocol-error", "a longer life than CONNECT asked for"),
            (&[0xe0, 6, 0, 4, 0x1c, 0, 1, b'a'], "protocol-error", "a server reference of a client"),
            (&[0xe0, 1, 0x8d], "protocol-error", "a reason of servers"),
            (&[0xe0, 1, 0x01], "protocol-error", "a reason of other packets"),
            (&[0x40, 4, 0, 1, 0x92, 0], "protocol-error", "a reason of other packets"),
            (&[0xf0, 2, 0x18, 0], "protocol-error", "AUTH without a method"),
        ],
    );
    for (properties, reason, why) in [
        (&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1][..], "protocol-error", "session expiry twice"),
        (&[0x21, 0, 0], "protocol-error", "receive maximum 0"),
        (&[0x27, 0, 0, 0, 0], "protocol-error", "maximum packet size 0"),
        (&[0x17, 2], "protocol-error", "request problem information 2"),
        (&[0x19, 2], "protocol-error", "request response information 2"),
        (&[0x16, 0, 1, b'a'], "protocol-error", "data without a method"),
        (&[0x02, 0, 0, 0, 1], "malformed-packet", "message expiry in CONNECT"),
    ] {
        let mut device = Device::silent(server.mqtt, "v5");
        device.raw(&connect_bytes(5, 2, properties, &[0, 1, b'c']));
        let heard = device.hear();
        assert!(heard.starts_with(&format!("CONNACK {reason}")), "{why}: {heard}");
        device.expect(END);
    }
}

#[test]
fn packets_of_servers_are_not_for_clients_mqtt5_4_13_1_1() {
    let server = Server::start(&[]);
    let cases: &[Wrong<'_>] = &[
        (&[0x20, 3, 0, 0, 0], "protocol-error", "CONNACK"),
        (&[0x90, 4, 0, 1, 0, 0], "protocol-error", "SUBACK"),
        (&[0xb0, 4, 0, 1, 0, 0], "protocol-error", "UNSUBACK"),
        (&[0xd0, 0], "protocol-error", "PINGRESP"),
        (&[0x00, 0], "malformed-packet", "type 0"),
    ];
    ends(&server, "v5", cases);
    ends(
        &server,
        "v4",
        &[
            (&[0x20, 2, 0, 0], "", "CONNACK"),
            (&[0x90, 3, 0, 1, 0], "", "SUBACK"),
            (&[0xb0, 2, 0, 1], "", "UNSUBACK"),
            (&[0xd0, 0], "", "PINGRESP"),
            (&[0x00, 0], "", "type 0"),
            (&[0xf0, 0], "", "type 15"),
        ],
    );
}

#[test]
fn others_are_not_disturbed_by_what_one_client_gets_wrong_mqtt3_4_8_0_1() {
    let server = Server::start(&[]);
    let mut other = Device::open(&server, "v4; id=o; clean");
    other.subscribe(&["a|1"]);
    let mut wrong = Device::open(&server, "v4; id=w; clean");
    wrong.say("PUBLISH a > before");
    wrong.raw(&[0x36, 5, 0, 1, b'a', 0, 1]);
    wrong.expect(END);
    other.expect("PUBLISH a > before");
    other.expect_quiet();
}
