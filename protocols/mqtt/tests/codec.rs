//! Bytes and what they mean, by statement of the specifications (`mqtt5_…` of 5.0, `mqtt3_…` of 3.1.1): what holds for
//! all packets, and CONNECT.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bytes;

use bytes::{accepted, means, packet, publish5, read, refused};
use sabir_mqtt::packet::{Connect, Publish};
use sabir_mqtt::{Packet, Progress, Qos, Reason, Version, frame};

use Reason::{
    ClientIdentifierNotValid, MalformedPacket as Malformed, PacketTooLarge, ProtocolError, TopicNameInvalid,
    UnsupportedProtocolVersion,
};
use Version::{V5, V31, V311};

/// A CONNECT's body: name and level, flags, and what follows the keep alive.
fn connect(version: Version, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&(version.name().len() as u16).to_be_bytes());
    body.extend_from_slice(version.name().as_bytes());
    body.extend_from_slice(&[version.level(), flags, 0, 60]);
    body.extend_from_slice(rest);
    body
}

/// A CONNECT of version 5 with these properties.
fn connect5(properties: &[u8]) -> Vec<u8> {
    let mut rest = vec![properties.len() as u8];
    rest.extend_from_slice(properties);
    rest.extend_from_slice(b"\0\x01c");
    connect(V5, 0x02, &rest)
}

#[test]
fn connect_of_each_version_is_read_mqtt5_3_1() {
    let plain = Connect { client_id: "c", clean_start: true, keep_alive_s: 60, ..Connect::default() };
    for version in [V31, V311] {
        let expected = Packet::Connect(Connect { version, ..plain });
        means(version, 0x10, &connect(version, 0x02, b"\0\x01c"), expected);
    }
    means(V5, 0x10, &connect(V5, 0x02, b"\0\0\x01c"), Packet::Connect(Connect { version: V5, ..plain }));
    let body = connect(
        V5,
        0b1110_1110,
        b"\x05\x11\0\0\0\x0a\0\x01c\x0c\x18\0\0\0\x05\x01\x01\x02\0\0\0\x09\0\x01w\0\x02hi\0\x01u\0\x01p",
    );
    let bytes = packet(0x10, &body);
    let Ok(Packet::Connect(found)) = read(&bytes, None) else { panic!("{}", bytes.escape_ascii()) };
    assert_eq!(found.properties.session_expiry_s, Some(10));
    assert_eq!((found.username, found.password), (Some("u"), Some(&b"p"[..])));
    let will = found.will.unwrap();
    assert_eq!((will.topic, will.payload, will.qos, will.retain), ("w", &b"hi"[..], Qos::AtLeastOnce, true));
    assert_eq!((will.delay_s, will.properties.payload_is_text), (Some(5), Some(true)));
    assert_eq!(will.properties.expiry_s, Some(9));
}

#[test]
fn a_remaining_length_of_five_bytes_is_malformed_mqtt5_1_5_5() {
    for version in Version::ALL {
        let found = frame(b"\x30\x80\x80\x80\x80", Some(version), usize::MAX);
        assert_eq!(found.unwrap_err().reason, Malformed);
        let most = frame(b"\x30\xff\xff\xff\x7f", Some(version), usize::MAX);
        assert_eq!(most, Ok(Progress::NeedMore { total: Some(268_435_460) }));
    }
}

#[test]
fn a_remaining_length_with_needless_bytes_is_malformed_in_version_5_mqtt5_1_5_5_1() {
    assert_eq!(frame(b"\xc0\x80\0", Some(V5), usize::MAX).unwrap_err().reason, Malformed);
    for version in [V31, V311] {
        assert_eq!(read(b"\xc0\x80\0", Some(version)), Ok(Packet::Pingreq));
    }
    let needless = |version, rest: &[u8]| {
        let body = connect(version, 0x02, rest);
        let mut bytes = vec![0x10, body.len() as u8 | 0x80, 0];
        bytes.extend_from_slice(&body);
        read(&bytes, None).map(drop).map_err(|error| error.reason)
    };
    assert_eq!(needless(V5, b"\0\0\x01c"), Err(Malformed));
    assert_eq!(needless(V311, b"\0\x01c"), Ok(()));
}

#[test]
fn a_number_with_needless_bytes_in_properties_is_malformed_mqtt5_1_5_5_1() {
    refused(V5, 0x30, b"\0\x01t\x80\0", Malformed);
    refused(V5, 0x82, b"\0\x01\x03\x0b\x81\0\0\x01a\0", Malformed);
    refused(V5, 0x82, b"\0\x01\x05\x0b\x80\x80\x80\x80\0\x01a\0", Malformed);
}

#[test]
fn what_is_wrong_in_the_header_is_known_at_its_first_bytes_mqtt5_4_13_1() {
    fn early(bytes: &[u8], version: Option<Version>) -> Result<Progress<'_>, Reason> {
        frame(bytes, version, 100).map_err(|error| error.reason)
    }
    assert_eq!(early(b"", Some(V5)), Ok(Progress::NeedMore { total: None }));
    assert_eq!(early(b"\0", Some(V5)), Err(Malformed));
    assert_eq!(early(b"\xf0", Some(V311)), Err(Malformed));
    assert_eq!(early(b"\xf0", Some(V31)), Err(Malformed));
    assert_eq!(early(b"\xf0", Some(V5)), Ok(Progress::NeedMore { total: None }));
    assert_eq!(early(b"\x36", Some(V5)), Err(Malformed));
    assert_eq!(early(b"\x38", Some(V5)), Err(Malformed));
    assert_eq!(early(b"\x30\x63", Some(V5)), Err(PacketTooLarge));
    assert_eq!(early(b"\x30\x62", Some(V5)), Ok(Progress::NeedMore { total: Some(100) }));
    assert_eq!(early(b"\x30\x80", Some(V5)), Ok(Progress::NeedMore { total: None }));
}

#[test]
fn nothing_comes_before_connect_mqtt5_3_1_0_1() {
    for first in [0x20, 0x30, 0x40, 0x82, 0xc0, 0xe0] {
        assert_eq!(frame(&[first], None, 100).unwrap_err().reason, ProtocolError);
    }
    assert_eq!(frame(b"\x10", None, 100), Ok(Progress::NeedMore { total: None }));
    assert_eq!(frame(b"\x11", None, 100).unwrap_err().reason, Malformed);
}

#[test]
fn a_reserved_flag_of_the_fixed_header_is_malformed_mqtt5_2_1_3_1() {
    for version in [V311, V5] {
        for first in [0x11, 0x21, 0x41, 0x52, 0x94, 0xb1, 0xc8, 0xd1, 0xe1] {
            assert_eq!(frame(&[first], Some(version), 100).unwrap_err().reason, Malformed, "{first:x}");
        }
    }
    assert_eq!(frame(&[0xf1], Some(V5), 100).unwrap_err().reason, Malformed);
}

#[test]
fn a_reserved_flag_bit_in_pubrel_is_malformed_mqtt5_3_6_1_1() {
    for version in [V311, V5] {
        refused(version, 0x60, b"\0\x01", Malformed);
        refused(version, 0x6a, b"\0\x01", Malformed);
        accepted(version, 0x62, b"\0\x01");
    }
    // 3.1 has the DUP flag in PUBREL.
    accepted(V31, 0x6a, b"\0\x01");
}

#[test]
fn a_reserved_flag_bit_in_subscribe_is_malformed_mqtt5_3_8_1_1() {
    refused(V311, 0x80, b"\0\x01\0\x01a\0", Malformed);
    refused(V5, 0x80, b"\0\x01\0\0\x01a\0", Malformed);
    accepted(V31, 0x8a, b"\0\x01\0\x01a\0");
}

#[test]
fn a_reserved_flag_bit_in_unsubscribe_is_malformed_mqtt5_3_10_1_1() {
    refused(V311, 0xa0, b"\0\x01\0\x01a", Malformed);
    refused(V5, 0xa0, b"\0\x01\0\0\x01a", Malformed);
    accepted(V31, 0xaa, b"\0\x01\0\x01a");
}

#[test]
fn text_that_is_no_utf_8_is_malformed_mqtt5_1_5_4_1() {
    for text in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"] {
        let mut body = vec![0, text.len() as u8];
        body.extend_from_slice(text);
        refused(V311, 0x30, &body, Malformed);
        body.push(0);
        refused(V5, 0x30, &body, Malformed);
    }
}

#[test]
fn text_with_u_0000_is_malformed_mqtt5_1_5_4_2() {
    refused(V311, 0x30, b"\0\x03a\0b", Malformed);
    refused(V5, 0x30, b"\0\x03a\0b\0", Malformed);
    refused(V5, 0x30, &publish5(b"\x26\0\x01\0\0\0"), Malformed);
}

#[test]
fn a_byte_order_mark_is_kept_mqtt5_1_5_4_3() {
    let expected = Publish { topic: "\u{feff}a", ..Publish::default() };
    means(V311, 0x30, b"\0\x04\xef\xbb\xbfa", Packet::Publish(expected));
}

#[test]
fn a_packet_identifier_of_0_is_a_protocol_error_mqtt5_2_2_1_3() {
    for (first, rest) in
        [(0x32, &b"\0\x01t\0\0"[..]), (0x34, b"\0\x01t\0\0"), (0x40, b"\0\0"), (0x50, b"\0\0")]
    {
        for version in Version::ALL {
            refused(version, first, rest, ProtocolError);
        }
    }
    for (first, rest) in
        [(0x82, &b"\0\0\0\x01a\0"[..]), (0xa2, b"\0\0\0\x01a"), (0x62, b"\0\0"), (0x70, b"\0\0")]
    {
        refused(V311, first, rest, ProtocolError);
    }
}

#[test]
fn the_length_of_properties_must_be_there_mqtt5_2_2_2_1() {
    refused(V5, 0x30, b"\0\x01t", Malformed);
    refused(V5, 0x10, &connect(V5, 0x02, b""), Malformed);
    refused(V5, 0x20, b"\0\0", Malformed);
    refused(V5, 0x90, b"\0\x01", Malformed);
    refused(V5, 0xf0, b"\x18", Malformed);
    refused(V5, 0x30, b"\0\x01t\x05\x01\x01", Malformed);
}

#[test]
fn a_property_twice_is_a_protocol_error_mqtt5_2_2_2_2() {
    for twice in [
        &b"\x11\0\0\0\x01\x11\0\0\0\x01"[..],
        b"\x21\0\x01\x21\0\x01",
        b"\x22\0\x01\x22\0\x01",
        b"\x27\0\0\0\x01\x27\0\0\0\x01",
        b"\x17\x01\x17\x01",
        b"\x19\x01\x19\x01",
        b"\x15\0\x01m\x15\0\x01m",
        b"\x15\0\x01m\x16\0\0\x16\0\0",
    ] {
        refused(V5, 0x10, &connect5(twice), ProtocolError);
    }
    for twice in [
        &b"\x01\x01\x01\x01"[..],
        b"\x02\0\0\0\x01\x02\0\0\0\x01",
        b"\x03\0\0\x03\0\0",
        b"\x08\0\x01r\x08\0\x01r",
        b"\x09\0\0\x09\0\0",
        b"\x23\0\x01\x23\0\x01",
    ] {
        refused(V5, 0x30, &publish5(twice), ProtocolError);
    }
    refused(V5, 0x82, b"\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0", ProtocolError);
    refused(V5, 0x40, b"\0\x01\0\x06\x1f\0\0\x1f\0\0", ProtocolError);
    refused(V5, 0xe0, b"\0\x0a\x11\0\0\0\x01\x11\0\0\0\x01", ProtocolError);
    refused(V5, 0x20, b"\0\0\x06\x13\0\x01\x13\0\x01", ProtocolError);
}

#[test]
fn user_properties_keep_their_order_and_repeat_mqtt5_3_3_2_18() {
    let body = publish5(b"\x26\0\x01a\0\x011\x01\x01\x26\0\x01a\0\x011\x26\0\x01b\0\0");
    let bytes = packet(0x30, &body);
    let Ok(Packet::Publish(publish)) = read(&bytes, Some(V5)) else { panic!("{}", bytes.escape_ascii()) };
    let pairs: Vec<_> = publish.properties.user.iter().collect();
    assert_eq!(pairs, [("a", "1"), ("a", "1"), ("b", "")]);
    assert_eq!(publish.properties.user.encoded_bytes(), 20);
    // Written together, behind the rest.
    let mut out = Vec::new();
    publish.encode(V5, &mut out).unwrap();
    let again = publish5(b"\x01\x01\x26\0\x01a\0\x011\x26\0\x01a\0\x011\x26\0\x01b\0\0");
    assert_eq!(out, packet(0x30, &again));
}

#[test]
fn a_property_without_a_place_in_its_packet_is_malformed_mqtt5_2_2_2_2() {
    let all: [(u8, &[u8]); 27] = [
        (0x01, b"\x01"),
        (0x02, b"\0\0\0\x01"),
        (0x03, b"\0\0"),
        (0x08, b"\0\x01r"),
        (0x09, b"\0\0"),
        (0x0b, b"\x01"),
        (0x11, b"\0\0\0\x01"),
        (0x12, b"\0\0"),
        (0x13, b"\0\x01"),
        (0x15, b"\0\x01m"),
        (0x16, b"\0\0"),
        (0x17, b"\x01"),
        (0x18, b"\0\0\0\x01"),
        (0x19, b"\x01"),
        (0x1a, b"\0\0"),
        (0x1c, b"\0\0"),
        (0x1f, b"\0\0"),
        (0x21, b"\0\x01"),
        (0x22, b"\0\x01"),
        (0x23, b"\0\x01"),
        (0x24, b"\x01"),
        (0x25, b"\x01"),
        (0x26, b"\0\0\0\0"),
        (0x27, b"\0\0\0\x01"),
        (0x28, b"\x01"),
        (0x29, b"\x01"),
        (0x2a, b"\x01"),
    ];
    let around = |before: &[u8], properties: &[u8], after: &[u8]| {
        let length = [properties.len() as u8];
        [before, &length, properties, after].concat()
    };
    type Place<'a> = (u8, &'a dyn Fn(&[u8]) -> Vec<u8>, &'a [u8]);
    let places: [Place<'_>; 13] = [
        (0x10, &connect5, &[0x11, 0x15, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]),
        (
            0x10,
            &|p| connect(V5, 0x06, &around(b"\0\0\x01c", p, b"\0\x01w\0\0")),
            &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26],
        ),
        (
            0x20,
            &|p| around(b"\0\0", p, b""),
            &[
                0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28,
                0x29, 0x2a,
            ],
        ),
        (0x30, &publish5, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26]),
        (0x40, &|p| around(b"\0\x01\0", p, b""), &[0x1f, 0x26]),
        (0x50, &|p| around(b"\0\x01\0", p, b""), &[0x1f, 0x26]),
        (0x62, &|p| around(b"\0\x01\0", p, b""), &[0x1f, 0x26]),
        (0x70, &|p| around(b"\0\x01\0", p, b""), &[0x1f, 0x26]),
        (0x82, &|p| around(b"\0\x01", p, b"\0\x01a\0"), &[0x0b, 0x26]),
        (0x90, &|p| around(b"\0\x01", p, b"\0"), &[0x1f, 0x26]),
        (0xa2, &|p| around(b"\0\x01", p, b"\0\x01a"), &[0x26]),
        (0xb0, &|p| around(b"\0\x01", p, b"\0"), &[0x1f, 0x26]),
        (0xe0, &|p| around(b"\0", p, b""), &[0x11, 0x1c, 0x1f, 0x26]),
    ];
    for (first, body, allowed) in places {
        for (id, value) in all {
            let property = [&[id], value].concat();
            if allowed.contains(&id) {
                accepted(V5, first, &body(&property));
            } else if first != 0x10 || id != 0x16 {
                refused(V5, first, &body(&property), Malformed);
            }
        }
        for unknown in [0x00, 0x04, 0x0a, 0x14, 0x1b, 0x20, 0x2b, 0x7f, 0x80, 0xff] {
            refused(V5, first, &body(&[unknown, 0]), Malformed);
        }
    }
    for (id, value) in all {
        let property = [b"\x15\0\x01m", &[id][..], value].concat();
        let body = around(b"\x18", &property, b"");
        match id {
            0x16 | 0x1f | 0x26 => accepted(V5, 0xf0, &body),
            0x15 => refused(V5, 0xf0, &body, ProtocolError),
            _ => refused(V5, 0xf0, &body, Malformed),
        }
    }
}

#[test]
fn values_that_are_forbidden_are_protocol_errors_mqtt5_3_1_2_11() {
    for bad in [
        &b"\x21\0\0"[..], // 3.1.2.11.3 receive maximum
        b"\x27\0\0\0\0",  // 3.1.2.11.4 maximum packet size
        b"\x17\x02",      // 3.1.2.11.7 request problem information
        b"\x19\x02",      // 3.1.2.11.6 request response information
        b"\x16\0\x01d",   // 3.1.2.11.10 data without a method
    ] {
        refused(V5, 0x10, &connect5(bad), ProtocolError);
    }
    for bad in
        [&b"\x24\x02"[..], b"\x25\x02", b"\x28\x02", b"\x29\x02", b"\x2a\x02", b"\x21\0\0", b"\x27\0\0\0\0"]
    {
        refused(V5, 0x20, &[&[0, 0, bad.len() as u8], bad].concat(), ProtocolError);
    }
    refused(V5, 0x30, &publish5(b"\x01\x02"), ProtocolError);
}

#[test]
fn a_subscription_identifier_of_0_is_a_protocol_error_mqtt5_3_8_2_1_2() {
    refused(V5, 0x82, b"\0\x01\x02\x0b\0\0\x01a\0", ProtocolError);
    refused(V5, 0x30, &publish5(b"\x0b\0"), ProtocolError);
}

#[test]
fn a_wrong_protocol_name_or_level_is_an_unsupported_version_mqtt5_3_1_2_1() {
    for (name, level, answer) in [
        ("MQTT", 3, Some(V311)),
        ("MQTT", 6, Some(V5)),
        ("MQTT", 0x84, Some(V5)),
        ("MQIsdp", 4, Some(V31)),
        ("mqtt", 4, None),
        ("", 4, None),
        ("HTTP", 5, None),
    ] {
        let mut body = vec![0, name.len() as u8];
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&[level, 2, 0, 0, 0, 1, b'c']);
        let bytes = packet(0x10, &body);
        let Ok(Progress::Whole(frame)) = frame(&bytes, None, 100) else { panic!("{name}") };
        assert_eq!(Connect::decode(&frame).unwrap_err().reason, UnsupportedProtocolVersion);
        assert_eq!(Connect::answer_version(&frame), answer, "{name} {level}");
    }
}

#[test]
fn the_reserved_connect_flag_is_malformed_mqtt5_3_1_2_3() {
    refused(V311, 0x10, &connect(V311, 0x03, b"\0\x01c"), Malformed);
    refused(V5, 0x10, &connect(V5, 0x03, b"\0\0\x01c"), Malformed);
    accepted(V31, 0x10, &connect(V31, 0x03, b"\0\x01c"));
}

#[test]
fn will_flags_without_a_will_are_malformed_mqtt5_3_1_2_11() {
    for flags in [0x0a, 0x12, 0x22] {
        refused(V311, 0x10, &connect(V311, flags, b"\0\x01c"), Malformed);
        refused(V5, 0x10, &connect(V5, flags, b"\0\0\x01c"), Malformed);
        accepted(V31, 0x10, &connect(V31, flags, b"\0\x01c"));
    }
}

#[test]
fn a_will_of_qos_3_is_malformed_mqtt5_3_1_2_12() {
    for version in [V31, V311] {
        refused(version, 0x10, &connect(version, 0x1e, b"\0\x01c\0\x01w\0\0"), Malformed);
    }
    refused(V5, 0x10, &connect(V5, 0x1e, b"\0\0\x01c\0\0\x01w\0\0"), Malformed);
}

#[test]
fn the_topic_of_a_will_is_a_topic_name_mqtt5_4_7_3_1() {
    refused(V311, 0x10, &connect(V311, 0x06, b"\0\x01c\0\0\0\0"), TopicNameInvalid);
    refused(V311, 0x10, &connect(V311, 0x06, b"\0\x01c\0\x03a/#\0\0"), TopicNameInvalid);
    refused(V5, 0x10, &connect(V5, 0x06, b"\0\0\x01c\0\0\x01+\0\0"), TopicNameInvalid);
}

#[test]
fn flags_and_payload_of_connect_agree_mqtt5_3_1_2_16() {
    refused(V311, 0x10, &connect(V311, 0x82, b"\0\x01c"), Malformed);
    refused(V311, 0x10, &connect(V311, 0xc2, b"\0\x01c\0\x01u"), Malformed);
    refused(V311, 0x10, &connect(V311, 0x02, b"\0\x01c\0\x01u"), Malformed);
    refused(V311, 0x10, &connect(V311, 0x06, b"\0\x01c\0\x01w"), Malformed);
    // The length of a 3.1 packet takes precedence over its flags.
    accepted(V31, 0x10, &connect(V31, 0xc2, b"\0\x01c"));
    accepted(V31, 0x10, &connect(V31, 0xc2, b"\0\x01c\0\x01u"));
    refused(V31, 0x10, &connect(V31, 0xc2, b"\0\x01c\0\x02u"), Malformed);
}

#[test]
fn a_password_without_a_user_name_is_malformed_in_3_1_1_only_mqtt3_3_1_2_22() {
    refused(V311, 0x10, &connect(V311, 0x42, b"\0\x01c\0\x01p"), Malformed);
    accepted(V5, 0x10, &connect(V5, 0x42, b"\0\0\x01c\0\x01p"));
    accepted(V31, 0x10, &connect(V31, 0x42, b"\0\x01c\0\x01p"));
}

#[test]
fn an_empty_client_id_is_not_valid_if_its_session_is_kept_mqtt3_3_1_3_8() {
    refused(V311, 0x10, &connect(V311, 0x00, b"\0\0"), ClientIdentifierNotValid);
    accepted(V311, 0x10, &connect(V311, 0x02, b"\0\0"));
    refused(V31, 0x10, &connect(V31, 0x02, b"\0\0"), ClientIdentifierNotValid);
    accepted(V5, 0x10, &connect(V5, 0x00, b"\0\0\0"));
}
