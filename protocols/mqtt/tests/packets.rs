//! Bytes and what they mean, by statement of the specifications (`mqtt5_…` of 5.0, `mqtt3_…` of 3.1.1): every packet
//! but CONNECT.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bytes;

use bytes::{accepted, means, packet, publish5, read, refused};
use sabir_mqtt::packet::{
    Ack, AckKind, Auth, Connack, ConnackProperties, Diagnostics, Disconnect, Filters, Publish,
    RetainHandling, Suback, Subscribe, SubscribeOptions, Subscription, SubscriptionIds, Subscriptions,
    Unsuback, Unsubscribe, UserProperties, UserPropertiesBuffer, put_ack, put_suback,
};
use sabir_mqtt::{Kind, Packet, PacketId, Qos, Reason, Version};

use Reason::{MalformedPacket as Malformed, ProtocolError, TopicNameInvalid};
use Version::{V5, V31, V311};

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

#[test]
fn connack_is_read_and_written_mqtt5_3_2() {
    let plain = Connack::new(true, Reason::Success);
    means(V31, 0x20, b"\0\0", Packet::Connack(Connack::new(false, Reason::Success)));
    means(V311, 0x20, b"\x01\0", Packet::Connack(plain));
    means(V5, 0x20, b"\x01\0\0", Packet::Connack(plain));
    means(V311, 0x20, b"\0\x05", Packet::Connack(Connack::new(false, Reason::NotAuthorized)));
    let properties = ConnackProperties {
        assigned_client_id: Some("x"),
        qos_max: Some(Qos::AtLeastOnce),
        ..ConnackProperties::default()
    };
    let packet = Connack { session_present: false, reason: Reason::Success, properties };
    means(V5, 0x20, b"\0\0\x06\x24\x01\x12\0\x01x", Packet::Connack(packet));
    refused(V311, 0x20, b"\x02\0", Malformed);
    refused(V311, 0x20, b"\0\x06", Malformed);
    refused(V311, 0x20, b"\0\0\0", Malformed);
    refused(V311, 0x20, b"\x01\x05", ProtocolError);
    refused(V5, 0x20, b"\0\x8e\0", ProtocolError);
}

#[test]
fn a_refusal_becomes_the_nearest_return_code_mqtt3_3_2_2_3() {
    for (reason, code) in [
        (Reason::UnsupportedProtocolVersion, 1),
        (Reason::ClientIdentifierNotValid, 2),
        (Reason::ServerUnavailable, 3),
        (Reason::QuotaExceeded, 3),
        (Reason::BadUsernameOrPassword, 4),
        (Reason::NotAuthorized, 5),
    ] {
        let mut out = Vec::new();
        // That there is a session is not said with a failure: 3.2.2-4.
        Connack::new(true, reason).encode(V311, &mut out).unwrap();
        assert_eq!(out, [0x20, 2, 0, code]);
    }
}

#[test]
fn publish_of_qos_3_is_malformed_mqtt5_3_3_1_4() {
    for version in Version::ALL {
        refused(version, 0x36, b"\0\x01t\0\x01\0", Malformed);
    }
}

#[test]
fn a_duplicate_of_qos_0_is_malformed_mqtt5_3_3_1_2() {
    refused(V311, 0x38, b"\0\x01t", Malformed);
    refused(V5, 0x38, b"\0\x01t\0", Malformed);
    accepted(V31, 0x38, b"\0\x01t");
}

#[test]
fn a_topic_name_with_a_wildcard_is_invalid_mqtt5_3_3_2_2() {
    for version in [V31, V311] {
        refused(version, 0x30, b"\0\x03a/+", TopicNameInvalid);
        refused(version, 0x30, b"\0\x01#", TopicNameInvalid);
        refused(version, 0x30, b"\0\0", TopicNameInvalid);
    }
    refused(V5, 0x30, b"\0\x03a/+\0", TopicNameInvalid);
}

#[test]
fn a_publish_needs_a_topic_name_or_an_alias_mqtt5_3_3_2_1() {
    refused(V5, 0x30, b"\0\0\0", ProtocolError);
    means(
        V5,
        0x30,
        b"\0\0\x03\x23\0\x07p",
        Packet::Publish(Publish { alias: Some(7), payload: b"p", ..Publish::default() }),
    );
    // Zero is seen by the session, which knows the maximum: 3.3.2-8.
    accepted(V5, 0x30, b"\0\0\x03\x23\0\0");
}

#[test]
fn a_response_topic_with_a_wildcard_is_a_protocol_error_mqtt5_3_3_2_14() {
    refused(V5, 0x30, &publish5(b"\x08\0\x03a/#"), ProtocolError);
    refused(V5, 0x30, &publish5(b"\x08\0\x01+"), ProtocolError);
}

#[test]
fn publish_is_read_and_written_mqtt5_3_3() {
    let publish = Publish {
        dup: true,
        qos: Qos::ExactlyOnce,
        retain: true,
        topic: "t",
        id: Some(id(258)),
        payload: b"p",
        ..Publish::default()
    };
    means(V311, 0x3d, b"\0\x01t\x01\x02p", Packet::Publish(publish));
    means(V5, 0x3d, b"\0\x01t\x01\x02\0p", Packet::Publish(publish));
    let ids = [1, 128, 268_435_455];
    let several = Publish { topic: "t", subscription_ids: SubscriptionIds::many(&ids), ..Publish::default() };
    let body = publish5(b"\x0b\x01\x0b\x80\x01\x0b\xff\xff\xff\x7f");
    means(V5, 0x30, &body, Packet::Publish(several));
    assert!(several.check_from_client().is_err(), "3.3.4-6");
    let one = Publish { subscription_ids: SubscriptionIds::one(Some(5)), ..several };
    means(V5, 0x30, &publish5(b"\x0b\x05"), Packet::Publish(one));
}

#[test]
fn acks_take_the_shortest_form_mqtt5_3_4_2_1() {
    let kinds =
        [(AckKind::Puback, 0x40), (AckKind::Pubrec, 0x50), (AckKind::Pubrel, 0x62), (AckKind::Pubcomp, 0x70)];
    for (kind, first) in kinds {
        for version in Version::ALL {
            let ack = Ack::new(kind, id(1), Reason::Success);
            means(version, first, b"\0\x01", Packet::Ack(ack));
            let mut out = Vec::new();
            put_ack(kind, id(1), Reason::Success, version, &mut out);
            assert_eq!(out, [first, 2, 0, 1]);
        }
    }
    let failed = Ack::new(AckKind::Puback, id(1), Reason::NotAuthorized);
    means(V5, 0x40, b"\0\x01\x87", Packet::Ack(failed));
    let mut out = Vec::new();
    put_ack(AckKind::Puback, id(1), Reason::NotAuthorized, V5, &mut out);
    put_ack(AckKind::Puback, id(1), Reason::NotAuthorized, V311, &mut out);
    assert_eq!(out, b"\x40\x03\0\x01\x87\x40\x02\0\x01");
    // Longer forms of the same are read.
    for body in [&b"\0\x01\0"[..], b"\0\x01\0\0"] {
        let bytes = packet(0x40, body);
        let expected = Ack::new(AckKind::Puback, id(1), Reason::Success);
        assert_eq!(read(&bytes, Some(V5)), Ok(Packet::Ack(expected)));
        refused(V311, 0x40, body, Malformed);
    }
    refused(V5, 0x40, b"\0", Malformed);
    refused(V5, 0x40, b"\0\x01\0\0\0", Malformed);
}

#[test]
fn a_reason_code_of_another_packet_is_a_protocol_error_mqtt5_3_4_2_1() {
    refused(V5, 0x40, b"\0\x01\x92", ProtocolError);
    refused(V5, 0x62, b"\0\x01\x10", ProtocolError);
    refused(V5, 0x70, b"\0\x01\x87", ProtocolError);
    refused(V5, 0x40, b"\0\x01\x7f", ProtocolError);
    refused(V5, 0xe0, b"\x84", ProtocolError);
    refused(V5, 0xf0, b"\x80\0", ProtocolError);
    refused(V5, 0x90, b"\0\x01\0\x04", ProtocolError);
    refused(V5, 0xb0, b"\0\x01\0\x01", ProtocolError);
}

#[test]
fn subscribe_is_read_and_written_mqtt5_3_8() {
    let wishes = [
        Subscription { filter: "a/+", options: SubscribeOptions::qos(Qos::AtLeastOnce) },
        Subscription {
            filter: "$share/g/b",
            options: SubscribeOptions {
                qos: Qos::ExactlyOnce,
                no_local: false,
                retain_as_published: true,
                retain_handling: RetainHandling::Never,
            },
        },
    ];
    let mut pairs = UserPropertiesBuffer::new();
    assert!(pairs.push("k", "v"));
    let full = Subscribe {
        id: id(10),
        subscription_id: Some(200),
        user: pairs.get(),
        subscriptions: Subscriptions::new(&wishes),
    };
    means(
        V5,
        0x82,
        b"\0\x0a\x0a\x0b\xc8\x01\x26\0\x01k\0\x01v\0\x03a/+\x01\0\x0a$share/g/b\x2a",
        Packet::Subscribe(full),
    );
    let plain = Subscribe {
        subscription_id: None,
        user: UserProperties::NONE,
        subscriptions: Subscriptions::new(&wishes[..1]),
        ..full
    };
    means(V311, 0x82, b"\0\x0a\0\x03a/+\x01", Packet::Subscribe(plain));
}

#[test]
fn a_subscribe_without_filters_is_a_protocol_error_mqtt5_3_8_3_2() {
    refused(V311, 0x82, b"\0\x01", ProtocolError);
    refused(V5, 0x82, b"\0\x01\0", ProtocolError);
    refused(V311, 0xa2, b"\0\x01", ProtocolError);
    refused(V5, 0xa2, b"\0\x01\0", ProtocolError);
}

#[test]
fn an_empty_filter_is_malformed_mqtt5_4_7_3_1() {
    refused(V311, 0x82, b"\0\x01\0\0\0", Malformed);
    refused(V5, 0xa2, b"\0\x01\0\0\0", Malformed);
}

#[test]
fn a_reserved_subscription_option_is_malformed_mqtt5_3_8_3_5() {
    for bit in [0x40, 0x80] {
        refused(V5, 0x82, &[0, 1, 0, 0, 1, b'a', bit], Malformed);
    }
    for bit in [0x04, 0x08, 0x10, 0x80] {
        refused(V311, 0x82, &[0, 1, 0, 1, b'a', bit], Malformed);
        accepted(V31, 0x82, &[0, 1, 0, 1, b'a', bit]);
    }
}

#[test]
fn subscribing_with_qos_3_or_retain_handling_3_is_a_protocol_error_mqtt5_3_8_3_1() {
    for version in [V31, V311] {
        refused(version, 0x82, b"\0\x01\0\x01a\x03", ProtocolError);
    }
    refused(V5, 0x82, b"\0\x01\0\0\x01a\x03", ProtocolError);
    refused(V5, 0x82, b"\0\x01\0\0\x01a\x30", ProtocolError);
    // Found wherever it stands.
    refused(V5, 0x82, b"\0\x01\0\0\x01a\0\0\x01b\x03", ProtocolError);
}

#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error_mqtt5_3_8_3_4() {
    refused(V5, 0x82, b"\0\x01\0\0\x0a$share/g/b\x04", ProtocolError);
    accepted(V5, 0x82, b"\0\x01\0\0\x01b\x04");
}

#[test]
fn suback_and_unsuback_are_read_and_written_mqtt5_3_9() {
    let suback = Suback { id: id(1), diagnostics: Diagnostics::NONE, codes: &[0, 1, 2, 0x80] };
    means(V311, 0x90, b"\0\x01\0\x01\x02\x80", Packet::Suback(suback));
    means(V5, 0x90, b"\0\x01\0\0\x01\x02\x80", Packet::Suback(suback));
    for (version, expected) in [(V311, &b"\x90\x04\0\x01\x01\x80"[..]), (V5, b"\x90\x05\0\x01\0\x01\x8f")] {
        let mut out = Vec::new();
        put_suback(id(1), &[1, 0x8f], version, &mut out);
        assert_eq!(out, expected);
        let whole = Suback { codes: &[1, 0x8f], ..suback };
        let mut again = Vec::new();
        whole.encode(version, &mut again).unwrap();
        assert_eq!(again, expected);
    }
    refused(V311, 0x90, b"\0\x01\x03", Malformed);
    refused(V311, 0x90, b"\0\x01", Malformed);
    let unsuback = Unsuback { id: id(1), diagnostics: Diagnostics::NONE, codes: &[0, 0x11] };
    means(V5, 0xb0, b"\0\x01\0\0\x11", Packet::Unsuback(unsuback));
    means(V311, 0xb0, b"\0\x01", Packet::Unsuback(Unsuback { codes: &[], ..unsuback }));
    refused(V311, 0xb0, b"\0\x01\0", Malformed);
}

#[test]
fn unsubscribe_is_read_and_written_mqtt5_3_10() {
    let filters = ["a", "b/#"];
    let packet = Unsubscribe { id: id(2), user: UserProperties::NONE, filters: Filters::new(&filters) };
    means(V311, 0xa2, b"\0\x02\0\x01a\0\x03b/#", Packet::Unsubscribe(packet));
    means(V5, 0xa2, b"\0\x02\0\0\x01a\0\x03b/#", Packet::Unsubscribe(packet));
}

#[test]
fn pings_have_no_body_mqtt5_3_12() {
    for version in Version::ALL {
        means(version, 0xc0, b"", Packet::Pingreq);
        means(version, 0xd0, b"", Packet::Pingresp);
        refused(version, 0xc0, b"\0", Malformed);
    }
}

#[test]
fn disconnect_is_read_and_written_mqtt5_3_14() {
    for version in Version::ALL {
        means(version, 0xe0, b"", Packet::Disconnect(Disconnect::new(Reason::Success)));
    }
    means(V5, 0xe0, b"\x04", Packet::Disconnect(Disconnect::new(Reason::DisconnectWithWill)));
    let expiry = Disconnect { session_expiry_s: Some(1), ..Disconnect::new(Reason::Success) };
    means(V5, 0xe0, b"\0\x05\x11\0\0\0\x01", Packet::Disconnect(expiry));
    refused(V311, 0xe0, b"\0", Malformed);
    assert!(Packet::Disconnect(expiry).check_from_client().is_ok());
    assert!(Packet::Disconnect(expiry).check_from_server().is_err(), "3.14.2-2");
    assert!(Disconnect::new(Reason::ServerShuttingDown).check_from_client().is_err());
    assert!(Disconnect::new(Reason::DisconnectWithWill).check_from_server().is_err());
}

#[test]
fn auth_names_its_method_mqtt5_3_15_2_2_2() {
    let step = Auth::new(Reason::ContinueAuthentication, "m", Some(b"d"));
    means(V5, 0xf0, b"\x18\x08\x15\0\x01m\x16\0\x01d", Packet::Auth(step));
    refused(V5, 0xf0, b"\x18\0", ProtocolError);
    let bytes = packet(0xf0, b"");
    let Ok(Packet::Auth(done)) = read(&bytes, Some(V5)) else { panic!("an empty AUTH means success") };
    assert_eq!((done.reason, done.method), (Reason::Success, None));
    assert!(Packet::Auth(done).check_from_client().is_err());
    assert!(Packet::Auth(step).encode(V311, &mut Vec::new()).is_err());
}

#[test]
fn what_cannot_be_written_is_not_begun_mqtt5_1_5_4() {
    let long = "x".repeat(65_536);
    let mut out = Vec::new();
    let too_long = Publish { topic: &long, ..Publish::default() };
    assert!(too_long.encode(V311, &mut out).is_err());
    let no_id = Publish { topic: "t", qos: Qos::AtLeastOnce, ..Publish::default() };
    assert!(no_id.encode(V311, &mut out).is_err());
    let plain = Publish { topic: "t", ..Publish::default() };
    assert!(plain.encode_head(V311, 268_435_453, &mut out).is_err());
    let none = Subscribe {
        id: id(1),
        subscription_id: None,
        user: UserProperties::NONE,
        subscriptions: Subscriptions::new(&[]),
    };
    assert!(none.encode(V311, &mut out).is_err());
    let zero = Publish { topic: "t", subscription_ids: SubscriptionIds::one(Some(0)), ..Publish::default() };
    assert!(zero.encode(V5, &mut out).is_err());
    assert!(out.is_empty());
    assert!(plain.encode_head(V311, 268_435_452, &mut out).is_ok());
    let mut pairs = UserPropertiesBuffer::new();
    assert!(!pairs.push(&long, "") && !pairs.push("a\0", "") && pairs.get().is_empty());
}

#[test]
fn reason_codes_have_names_and_places_mqtt5_2_4() {
    assert_eq!(Reason::ALL.len(), 43);
    for reason in Reason::ALL {
        assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        assert!(Kind::ALL.iter().any(|kind| reason.allowed_in(*kind)), "{}", reason.as_str());
    }
    assert_eq!(Reason::from_code(0x8e).unwrap().as_str(), "session-taken-over");
    assert_eq!(Reason::from_code(3), None);
}
