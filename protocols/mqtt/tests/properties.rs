//! Properties over generated input: what is written is read back, however it is cut; no input makes anything panic.

use std::cell::Cell;

use proptest::prelude::*;
use sabir_mqtt::client::Decoder;
use sabir_mqtt::fuzz::{fuzz_decode, fuzz_filter};
use sabir_mqtt::packet::{
    Ack, AckKind, Auth, Connack, ConnackProperties, Connect, ConnectProperties, Diagnostics, Disconnect,
    Filters, MessageProperties, Publish, RetainHandling, Suback, Subscribe, SubscribeOptions, Subscription,
    SubscriptionIds, Subscriptions, Unsuback, Unsubscribe, UserProperties, UserPropertiesBuffer, VARINT_MAX,
    Will,
};
use sabir_mqtt::{Kind, Packet, PacketId, Progress, Qos, Reason, Version, decode, frame};

/// What packets are made of. Each look takes the next of its kind, round and round.
#[derive(Clone, Debug)]
struct Deck {
    texts: Vec<String>,
    bytes: Vec<Vec<u8>>,
    numbers: Vec<u32>,
    at: Cell<usize>,
}

impl Deck {
    fn next<'a, T>(&'a self, all: &'a [T]) -> &'a T {
        let at = self.at.get();
        self.at.set(at + 1);
        &all[at % all.len()]
    }

    fn number(&self) -> u32 {
        *self.next(&self.numbers)
    }

    fn yes(&self) -> bool {
        self.number() & 1 == 1
    }

    fn maybe<T>(&self, value: T) -> Option<T> {
        self.yes().then_some(value)
    }

    fn text(&self) -> &str {
        self.next::<String>(&self.texts)
    }

    /// A topic name or plain filter.
    fn name(&self) -> &str {
        let text = self.text();
        if text.is_empty() || text.contains(['+', '#']) { "a/b" } else { text }
    }

    fn bytes(&self) -> &[u8] {
        self.next::<Vec<u8>>(&self.bytes)
    }

    fn id(&self) -> PacketId {
        PacketId::new(self.number() as u16).unwrap_or(PacketId::MAX)
    }

    fn qos(&self) -> Qos {
        Qos::from_level((self.number() % 3) as u8).unwrap_or_default()
    }

    fn reason(&self, kind: Kind) -> Reason {
        let all: Vec<Reason> = Reason::ALL.iter().copied().filter(|reason| reason.allowed_in(kind)).collect();
        *all.get(self.number() as usize % all.len()).unwrap_or(&Reason::Success)
    }

    fn pairs(&self) -> UserPropertiesBuffer {
        let mut pairs = UserPropertiesBuffer::new();
        for _ in 0..self.number() % 4 {
            assert!(pairs.push(self.text(), self.text()), "generated texts fit");
        }
        pairs
    }

    fn message<'a>(&'a self, user: UserProperties<'a>) -> MessageProperties<'a> {
        MessageProperties {
            payload_is_text: self.maybe(self.yes()),
            expiry_s: self.maybe(self.number()),
            content_type: self.maybe(self.text()),
            response_topic: self.maybe(self.name()),
            correlation_data: self.maybe(self.bytes()),
            user,
        }
    }

    fn diagnostics<'a>(&'a self, user: UserProperties<'a>) -> Diagnostics<'a> {
        Diagnostics { reason_string: self.maybe(self.text()), user }
    }
}

fn deck() -> impl Strategy<Value = Deck> {
    let text = prop_oneof![
        4 => "[a-z/+#$]{0,6}",
        2 => "\\PC{0,12}",
        1 => Just("\u{feff}\u{10ffff}\u{1}".to_owned()),
        1 => (100_usize..300).prop_map(|count| "é".repeat(count)),
    ];
    let number = prop_oneof![0_u32..5, any::<u32>(), Just(127), Just(128), Just(16_383), Just(VARINT_MAX)];
    (
        prop::collection::vec(text, 3..17),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5),
        prop::collection::vec(number, 7..40),
    )
        .prop_map(|(texts, bytes, numbers)| Deck { texts, bytes, numbers, at: Cell::new(0) })
}

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(Version::ALL.to_vec())
}

fn connect<'a>(
    deck: &'a Deck,
    version: Version,
    user: UserProperties<'a>,
    will_user: UserProperties<'a>,
) -> Connect<'a> {
    let new = version.has_properties();
    let method = deck.maybe(deck.text()).filter(|_| new);
    let properties = ConnectProperties {
        session_expiry_s: deck.maybe(deck.number()),
        receive_max: deck.maybe(deck.id().get()),
        packet_bytes_max: deck.maybe(deck.number().max(1)),
        topic_alias_max: deck.maybe(deck.number() as u16),
        request_response_information: deck.maybe(deck.yes()),
        request_problem_information: deck.maybe(deck.yes()),
        authentication_method: method,
        authentication_data: method.map(|_| deck.bytes()),
        user,
    };
    let will = deck.maybe(Will {
        topic: deck.name(),
        payload: deck.bytes(),
        qos: deck.qos(),
        retain: deck.yes(),
        delay_s: if new { deck.maybe(deck.number()) } else { None },
        properties: if new { deck.message(will_user) } else { MessageProperties::default() },
    });
    let client_id = deck.text();
    let username = deck.maybe(deck.text());
    Connect {
        version,
        clean_start: deck.yes() || client_id.is_empty(),
        keep_alive_s: deck.number() as u16,
        properties: if new { properties } else { ConnectProperties::default() },
        client_id: if version == Version::V31 && client_id.is_empty() { "c" } else { client_id },
        will,
        username,
        password: deck.maybe(deck.bytes()).filter(|_| version != Version::V311 || username.is_some()),
    }
}

fn connack<'a>(deck: &'a Deck, version: Version, user: UserProperties<'a>) -> Connack<'a> {
    let reason = if version.has_properties() {
        deck.reason(Kind::Connack)
    } else {
        Reason::from_connack_return_code((deck.number() % 6) as u8).unwrap_or(Reason::Success)
    };
    let properties = ConnackProperties {
        session_expiry_s: deck.maybe(deck.number()),
        receive_max: deck.maybe(deck.id().get()),
        qos_max: deck.maybe(deck.qos()).filter(|qos| *qos != Qos::ExactlyOnce),
        retain_available: deck.maybe(deck.yes()),
        packet_bytes_max: deck.maybe(deck.number().max(1)),
        assigned_client_id: deck.maybe(deck.text()),
        topic_alias_max: deck.maybe(deck.number() as u16),
        wildcard_available: deck.maybe(deck.yes()),
        subscription_ids_available: deck.maybe(deck.yes()),
        shared_available: deck.maybe(deck.yes()),
        server_keep_alive_s: deck.maybe(deck.number() as u16),
        response_information: deck.maybe(deck.text()),
        server_reference: deck.maybe(deck.text()),
        authentication_method: deck.maybe(deck.text()),
        authentication_data: deck.maybe(deck.bytes()),
        diagnostics: deck.diagnostics(user),
    };
    Connack {
        session_present: deck.yes() && reason == Reason::Success && version != Version::V31,
        reason,
        properties: if version.has_properties() { properties } else { ConnackProperties::default() },
    }
}

fn subscription<'a>(deck: &'a Deck, version: Version) -> Subscription<'a> {
    let mut options = SubscribeOptions::qos(deck.qos());
    if version.has_properties() {
        options.no_local = deck.yes();
        options.retain_as_published = deck.yes();
        options.retain_handling = match deck.number() % 3 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            _ => RetainHandling::Never,
        };
    }
    Subscription { filter: deck.name(), options }
}

fn codes(deck: &Deck, version: Version, kind: Kind) -> Vec<u8> {
    let count = deck.number() % 3 + 1;
    let code = |_| match (version.has_properties(), kind) {
        (false, Kind::Suback) => [0, 1, 2, 0x80][deck.number() as usize % 4],
        _ => deck.reason(kind).code(),
    };
    (0..count).map(code).collect()
}

/// Makes a packet of this kind and shows it.
fn with_packet(deck: &Deck, version: Version, kind: Kind, show: impl FnOnce(&Packet<'_>)) {
    let new = version.has_properties();
    let (pairs, will_pairs) = if new {
        (deck.pairs(), deck.pairs())
    } else {
        (UserPropertiesBuffer::new(), UserPropertiesBuffer::new())
    };
    let user = pairs.get();
    let wishes: Vec<Subscription<'_>> =
        (0..deck.number() % 3 + 1).map(|_| subscription(deck, version)).collect();
    let filters: Vec<&str> = wishes.iter().map(|wish| wish.filter).collect();
    let ids: Vec<u32> = (0..deck.number() % 4).map(|_| deck.number().clamp(1, VARINT_MAX)).collect();
    let diagnostics = if new { deck.diagnostics(user) } else { Diagnostics::NONE };
    let ack = |kind: AckKind| {
        let reason = if new { deck.reason(kind.kind()) } else { Reason::Success };
        Packet::Ack(Ack { kind, id: deck.id(), reason, diagnostics })
    };
    let suback_codes = codes(deck, version, Kind::Suback);
    let unsuback_codes = if new { codes(deck, version, Kind::Unsuback) } else { Vec::new() };
    let packet = match kind {
        Kind::Connect => Packet::Connect(connect(deck, version, user, will_pairs.get())),
        Kind::Connack => Packet::Connack(connack(deck, version, user)),
        Kind::Publish => {
            let qos = deck.qos();
            let alias = deck.maybe(deck.number() as u16).filter(|_| new);
            Packet::Publish(Publish {
                dup: deck.yes() && qos != Qos::AtMostOnce,
                qos,
                retain: deck.yes(),
                topic: if alias.is_some() && deck.yes() { "" } else { deck.name() },
                id: Some(deck.id()).filter(|_| qos != Qos::AtMostOnce),
                alias,
                subscription_ids: if new { SubscriptionIds::many(&ids) } else { SubscriptionIds::NONE },
                properties: if new { deck.message(user) } else { MessageProperties::default() },
                payload: deck.bytes(),
            })
        }
        Kind::Puback => ack(AckKind::Puback),
        Kind::Pubrec => ack(AckKind::Pubrec),
        Kind::Pubrel => ack(AckKind::Pubrel),
        Kind::Pubcomp => ack(AckKind::Pubcomp),
        Kind::Subscribe => Packet::Subscribe(Subscribe {
            id: deck.id(),
            subscription_id: deck.maybe(deck.number().clamp(1, VARINT_MAX)).filter(|_| new),
            user,
            subscriptions: Subscriptions::new(&wishes),
        }),
        Kind::Suback => Packet::Suback(Suback { id: deck.id(), diagnostics, codes: &suback_codes }),
        Kind::Unsubscribe => {
            Packet::Unsubscribe(Unsubscribe { id: deck.id(), user, filters: Filters::new(&filters) })
        }
        Kind::Unsuback => Packet::Unsuback(Unsuback { id: deck.id(), diagnostics, codes: &unsuback_codes }),
        Kind::Pingreq => Packet::Pingreq,
        Kind::Pingresp => Packet::Pingresp,
        Kind::Disconnect => Packet::Disconnect(if new {
            Disconnect {
                reason: deck.reason(kind),
                session_expiry_s: deck.maybe(deck.number()),
                server_reference: deck.maybe(deck.text()),
                diagnostics,
            }
        } else {
            Disconnect::new(Reason::Success)
        }),
        Kind::Auth => Packet::Auth(Auth {
            reason: deck.reason(kind),
            method: Some(deck.text()),
            data: deck.maybe(deck.bytes()),
            diagnostics,
        }),
    };
    show(&packet);
}

fn read(bytes: &[u8], version: Version) -> (Packet<'_>, usize) {
    match frame(bytes, Some(version), usize::MAX) {
        Ok(Progress::Whole(frame)) => match decode(&frame, version) {
            Ok(packet) => (packet, frame.total),
            Err(error) => panic!("{error}: {}", bytes.escape_ascii()),
        },
        other => panic!("{other:?}: {}", bytes.escape_ascii()),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(deck in deck(), version in version()) {
        for kind in Kind::ALL {
            if kind == Kind::Auth && !version.has_properties() {
                continue;
            }
            with_packet(&deck, version, kind, |packet| {
                let mut out = b"before".to_vec();
                packet.encode(version, &mut out).unwrap_or_else(|error| panic!("{error}: {packet:?}"));
                let bytes = out.strip_prefix(b"before").unwrap_or_default();
                let (again, total) = read(bytes, version);
                assert_eq!(again, *packet);
                assert_eq!(total, bytes.len());
                assert_eq!(packet.kind(), kind);
                if let Packet::Publish(publish) = packet {
                    assert_eq!(publish.encoded_bytes(version), Ok(total));
                    let (head, whole) = publish.head_bytes(version, publish.payload.len()).unwrap_or_default();
                    let mut parts = Vec::new();
                    publish.encode_head(version, publish.payload.len(), &mut parts).unwrap_or_default();
                    assert_eq!((head, whole), (parts.len(), total));
                    parts.extend_from_slice(publish.payload);
                    assert_eq!(parts, bytes);
                }
            });
        }
    }

    #[test]
    fn cutting_a_packet_changes_nothing(deck in deck(), version in version()) {
        for kind in [Kind::Connect, Kind::Publish, Kind::Subscribe, Kind::Suback, Kind::Pubrec] {
            with_packet(&deck, version, kind, |packet| {
                let mut out = Vec::new();
                packet.encode(version, &mut out).unwrap_or_else(|error| panic!("{error}: {packet:?}"));
                for count in 0..out.len() {
                    match frame(&out[..count], Some(version), usize::MAX) {
                        Ok(Progress::NeedMore { total }) => {
                            assert!(total.is_none_or(|total| total == out.len()), "{count} of {packet:?}");
                        }
                        other => panic!("{count}: {other:?}"),
                    }
                }
                let whole = out.len();
                out.extend_from_slice(&out.clone());
                let (again, total) = read(&out, version);
                assert_eq!((again, total), (*packet, whole));
            });
        }
    }

    /// Bodies that end early are refused; none is read past its end.
    #[test]
    fn a_body_that_ends_early_is_another_packet_or_none(deck in deck(), version in version()) {
        for kind in Kind::ALL {
            if kind == Kind::Auth && !version.has_properties() {
                continue;
            }
            with_packet(&deck, version, kind, |packet| {
                let mut out = Vec::new();
                packet.encode(version, &mut out).unwrap_or_default();
                let Ok(Progress::Whole(mut frame)) = frame(&out, Some(version), usize::MAX) else {
                    panic!("{packet:?}");
                };
                let body = frame.body;
                for count in 0..body.len() {
                    frame.body = &body[..count];
                    frame.total = count + 2 + usize::from(count > 127) + usize::from(count > 16_383);
                    if let Ok(other) = decode(&frame, version) {
                        assert_ne!(other, *packet);
                    }
                }
            });
        }
    }

    #[test]
    fn noise_is_never_more_than_refused(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_decode(&data);
    }

    #[test]
    fn almost_packets_are_read_or_refused(
        deck in deck(),
        version in version(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        for kind in Kind::ALL {
            if kind == Kind::Auth && !version.has_properties() {
                continue;
            }
            with_packet(&deck, version, kind, |packet| {
                let picks = if kind == Kind::Connect { vec![3, version as u8] } else { vec![version as u8] };
                for pick in picks {
                    let mut data = vec![pick];
                    packet.encode(version, &mut data).unwrap_or_default();
                    for (place, byte) in &changes {
                        let at = place.index(data.len() - 1) + 1;
                        data[at] = *byte;
                    }
                    fuzz_decode(&data);
                }
            });
        }
    }

    #[test]
    fn the_client_side_reads_what_a_server_writes(deck in deck(), version in version()) {
        let mut out = Vec::new();
        let mut count = 0;
        for kind in [Kind::Connack, Kind::Publish, Kind::Pubrel, Kind::Suback, Kind::Unsuback, Kind::Pingresp] {
            with_packet(&deck, version, kind, |packet| packet.encode(version, &mut out).unwrap_or_default());
            count += 1;
        }
        let decoder = Decoder::new(version);
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            let decoded = decoder.next(rest).unwrap_or_else(|error| panic!("{error}"));
            prop_assert!(decoded.packet.is_some());
            rest = rest.get(decoded.consumed..).unwrap_or_default();
            count -= 1;
        }
        prop_assert_eq!(count, 0);
    }

    #[test]
    fn filters_match_as_the_specification_says(text in "[ab$+#/]{0,9}", topic in "[ab$/]{1,7}", share: bool) {
        let share = if share { "$share/g/" } else { "" };
        fuzz_filter(format!("{share}{text}\n{topic}").as_bytes());
    }

    #[test]
    fn noise_is_no_filter_or_one(data in "\\PC{0,30}", lines in "[a-z+#/\\n\\x00]{0,20}") {
        fuzz_filter(data.as_bytes());
        fuzz_filter(lines.as_bytes());
    }
}
