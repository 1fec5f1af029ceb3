//! Packets as words of a transcript: what a client sends, and what a server has written.

use std::fmt::Write as _;

use sabir_mqtt::client::{self, UserPropertiesBuffer};
use sabir_mqtt::packet::{
    Ack, AckKind, Auth, Connack, Connect, ConnectProperties, Diagnostics, Disconnect, Filters,
    MessageProperties, Packet, PacketId, Publish, Qos, RetainHandling, Subscribe, SubscribeOptions,
    Subscription, SubscriptionIds, Subscriptions, Unsubscribe, Will,
};
use sabir_mqtt::{Reason, Version};

/// Bytes of a text with the escapes `\0 \n \r \\ \xHH`.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first().expect("an escape");
        rest = after;
        out.push(match escape {
            b'0' => 0,
            b'n' => b'\n',
            b'r' => b'\r',
            b'\\' => b'\\',
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).expect("hex"), 16).expect("hex")
            }
            other => panic!("no escape \\{}", char::from(other)),
        });
    }
    out
}

/// A text repeated, as `a*1000`, or as it is.
fn blown_up(text: &str) -> Vec<u8> {
    match text.rsplit_once("**") {
        Some((text, times)) => bytes_of(text).repeat(times.parse().expect("a number")),
        None => bytes_of(text),
    }
}

pub fn version_of(text: &str) -> Version {
    match text {
        "v3" => Version::V31,
        "v4" => Version::V311,
        "v5" => Version::V5,
        other => panic!("no version {other}"),
    }
}

fn reason(hex: &str) -> Reason {
    let code = u8::from_str_radix(hex, 16).expect("hex");
    Reason::from_code(code).unwrap_or_else(|| panic!("no reason {hex}"))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().unwrap_or_else(|| panic!("no number: {text}"))
}

/// `name=value` words.
struct Words<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Words<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name).map(number)
    }

    fn user(&self, prefix: &str) -> UserPropertiesBuffer {
        let mut user = UserPropertiesBuffer::new();
        for (name, value) in &self.0 {
            if let Some(name) = name.strip_prefix(prefix) {
                assert!(user.push(name, value));
            }
        }
        user
    }

    fn qos(&self, name: &str) -> Qos {
        self.number(name).map_or(Qos::AtMostOnce, |level| Qos::from_level(level).expect("0, 1 or 2"))
    }

    fn message<'b>(&'b self, user: &'b UserPropertiesBuffer, octets: &'b [u8]) -> MessageProperties<'b> {
        MessageProperties {
            payload_is_text: self.number::<u8>("format").map(|flag| flag == 1),
            expiry_s: self.number("expiry"),
            content_type: self.get("type"),
            response_topic: self.get("reply"),
            correlation_data: self.has("corr").then_some(octets),
            user: user.get(),
        }
    }

    fn filters(&self) -> Vec<&'a str> {
        let filters = self.0.iter().filter(|(name, _)| *name == "f").map(|(_, filter)| *filter);
        filters.collect()
    }
}

/// Bytes of `KIND first; name=value; … > payload`.
pub fn packet_of(text: &str, version: Version) -> Vec<u8> {
    let (head, payload) = text.split_once(" > ").unwrap_or((text, ""));
    let payload = blown_up(payload);
    let mut parts = head.split("; ");
    let opening = parts.next().unwrap_or_default();
    let (kind, first) = opening.split_once(' ').unwrap_or((opening, ""));
    let words = Words(parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect());
    let user = words.user("u:");
    let octets = bytes_of(words.get("corr").unwrap_or_default());
    let id = |text: &str| PacketId::new(number(text)).expect("an id");
    let mut out = Vec::new();
    let done = match kind {
        "CONNECT" => connect(&mut out, version_of(first), &words, &payload),
        "PUBLISH" => Publish {
            dup: words.has("dup"),
            qos: words.qos("qos"),
            retain: words.has("retain"),
            topic: first,
            id: words.get("id").map(id),
            alias: words.number("alias"),
            subscription_ids: SubscriptionIds::one(words.number("sid")),
            properties: words.message(&user, &octets),
            payload: &payload,
        }
        .encode(version, &mut out),
        "PUBACK" | "PUBREC" | "PUBREL" | "PUBCOMP" => {
            let kind = match kind {
                "PUBACK" => AckKind::Puback,
                "PUBREC" => AckKind::Pubrec,
                "PUBREL" => AckKind::Pubrel,
                _ => AckKind::Pubcomp,
            };
            let reason = words.get("code").map_or(Reason::Success, reason);
            Ack::new(kind, id(first), reason).encode(version, &mut out)
        }
        "SUBSCRIBE" => {
            let wishes: Vec<Subscription<'_>> = words.filters().into_iter().map(wish).collect();
            Subscribe {
                id: id(first),
                subscription_id: words.number("sid"),
                user: user.get(),
                subscriptions: Subscriptions::new(&wishes),
            }
            .encode(version, &mut out)
        }
        "UNSUBSCRIBE" => {
            Unsubscribe { id: id(first), user: user.get(), filters: Filters::new(&words.filters()) }
                .encode(version, &mut out)
        }
        "PINGREQ" => Packet::Pingreq.encode(version, &mut out),
        "DISCONNECT" => Disconnect {
            session_expiry_s: words.number("expiry"),
            ..Disconnect::new(words.get("code").map_or(Reason::Success, reason))
        }
        .encode(version, &mut out),
        "AUTH" => Auth {
            reason: reason(first),
            method: words.get("method"),
            data: words.get("data").map(str::as_bytes),
            diagnostics: Diagnostics::NONE,
        }
        .encode(version, &mut out),
        other => panic!("no packet {other}"),
    };
    done.unwrap_or_else(|error| panic!("{text}: {error}"));
    out
}

fn connect(
    out: &mut Vec<u8>,
    version: Version,
    words: &Words<'_>,
    payload: &[u8],
) -> Result<(), sabir_mqtt::EncodeError> {
    let user = words.user("u:");
    let octets = bytes_of(words.get("corr").unwrap_or_default());
    let will = words.get("will").map(|topic| Will {
        topic,
        payload,
        qos: words.qos("will-qos"),
        retain: words.has("will-retain"),
        delay_s: words.number("will-delay"),
        properties: MessageProperties {
            expiry_s: words.number("will-expiry"),
            content_type: words.get("will-type"),
            ..words.message(&user, &octets)
        },
    });
    let connect = Connect {
        version,
        clean_start: words.has("clean"),
        keep_alive_s: words.number("keep").unwrap_or(0),
        properties: ConnectProperties {
            session_expiry_s: words.number("expiry"),
            receive_max: words.number("receive"),
            packet_bytes_max: words.number("max"),
            topic_alias_max: words.number("aliases"),
            request_response_information: words.number::<u8>("response").map(|flag| flag == 1),
            request_problem_information: words.number::<u8>("problems").map(|flag| flag == 1),
            authentication_method: words.get("method"),
            authentication_data: words.get("data").map(str::as_bytes),
            ..ConnectProperties::default()
        },
        client_id: words.get("id").unwrap_or_default(),
        will,
        username: words.get("user"),
        password: words.get("pass").map(str::as_bytes),
    };
    client::connect(out, &connect)
}

/// `filter|qos|nl|rap|rh1`.
fn wish(text: &str) -> Subscription<'_> {
    let mut parts = text.split('|');
    let filter = parts.next().unwrap_or_default();
    let mut options = SubscribeOptions::default();
    for part in parts {
        match part {
            "nl" => options.no_local = true,
            "rap" => options.retain_as_published = true,
            "rh1" => options.retain_handling = RetainHandling::IfNew,
            "rh2" => options.retain_handling = RetainHandling::Never,
            qos => options.qos = Qos::from_level(number(qos)).expect("0, 1 or 2"),
        }
    }
    Subscription { filter, options }
}

/// Bytes of a server as lines of a transcript.
pub fn lines_of(bytes: &[u8], version: Version) -> Vec<String> {
    let decoder = client::Decoder::new(version);
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let decoded = decoder.next(rest).unwrap_or_else(|error| panic!("no packet: {rest:02x?}: {error}"));
        let packet = decoded.packet.expect("whole packets");
        lines.push(format!("S {}", describe(&packet)));
        rest = &rest[decoded.consumed..];
    }
    lines
}

fn describe(packet: &Packet<'_>) -> String {
    let mut line = packet.kind().as_str().to_owned();
    match packet {
        Packet::Connack(connack) => describe_connack(&mut line, connack),
        Packet::Publish(publish) => describe_publish(&mut line, publish),
        Packet::Ack(ack) => {
            let _ = write!(line, " {}", ack.id);
            if ack.reason != Reason::Success {
                let _ = write!(line, " {}", ack.reason.as_str());
            }
            describe_diagnostics(&mut line, &ack.diagnostics);
        }
        Packet::Suback(suback) => {
            let _ = write!(line, " {} {:02x?}", suback.id, suback.codes);
            describe_diagnostics(&mut line, &suback.diagnostics);
        }
        Packet::Unsuback(unsuback) => {
            let _ = write!(line, " {} {:02x?}", unsuback.id, unsuback.codes);
            describe_diagnostics(&mut line, &unsuback.diagnostics);
        }
        Packet::Disconnect(disconnect) => {
            let _ = write!(line, " {}", disconnect.reason.as_str());
            describe_diagnostics(&mut line, &disconnect.diagnostics);
        }
        Packet::Auth(auth) => {
            let _ = write!(line, " {}", auth.reason.as_str());
            put(&mut line, "method", auth.method);
            put(&mut line, "data", auth.data.map(|data| data.escape_ascii()));
        }
        Packet::Pingresp => {}
        other => panic!("no packet of a server: {other:?}"),
    }
    line
}

fn put(line: &mut String, name: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        let _ = write!(line, "; {name}={value}");
    }
}

fn describe_diagnostics(line: &mut String, diagnostics: &Diagnostics<'_>) {
    put(line, "reason", diagnostics.reason_string);
    for (name, value) in diagnostics.user.iter() {
        let _ = write!(line, "; u:{name}={value}");
    }
}

fn describe_connack(line: &mut String, connack: &Connack<'_>) {
    let _ = write!(line, " {}", connack.reason.as_str());
    if connack.session_present {
        line.push_str("; present");
    }
    let it = &connack.properties;
    put(line, "expiry", it.session_expiry_s);
    put(line, "receive", it.receive_max);
    put(line, "qos", it.qos_max.map(Qos::level));
    put(line, "retain", it.retain_available);
    put(line, "max", it.packet_bytes_max);
    put(line, "assigned", it.assigned_client_id);
    put(line, "aliases", it.topic_alias_max);
    put(line, "keep", it.server_keep_alive_s);
    put(line, "response", it.response_information);
    put(line, "method", it.authentication_method);
    put(line, "data", it.authentication_data.map(|data| data.escape_ascii()));
    describe_diagnostics(line, &it.diagnostics);
}

fn describe_publish(line: &mut String, publish: &Publish<'_>) {
    let _ = write!(line, " {}", publish.topic);
    if publish.qos != Qos::AtMostOnce {
        let _ = write!(line, "; qos={}", publish.qos.level());
    }
    put(line, "id", publish.id);
    for (name, is) in [("dup", publish.dup), ("retain", publish.retain)] {
        if is {
            let _ = write!(line, "; {name}");
        }
    }
    put(line, "alias", publish.alias);
    for id in publish.subscription_ids.iter() {
        let _ = write!(line, "; sid={id}");
    }
    let it = &publish.properties;
    put(line, "format", it.payload_is_text.map(u8::from));
    put(line, "expiry", it.expiry_s);
    put(line, "type", it.content_type);
    put(line, "reply", it.response_topic);
    put(line, "corr", it.correlation_data.map(|data| data.escape_ascii()));
    for (name, value) in it.user.iter() {
        let _ = write!(line, "; u:{name}={}", value.escape_debug());
    }
    match publish.payload.len() {
        0 => {}
        count @ 0..=200 => {
            let _ = write!(line, " > {}", publish.payload[..count].escape_ascii());
        }
        count => {
            let _ = write!(line, " > ({count} bytes)");
        }
    }
}
