//! Clients of every version, and messages as their senders write them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use sabir_mqtt::client::{self, Connect, Decoder, MessageProperties, PacketIds, UserPropertiesBuffer};
use sabir_mqtt::packet::{Ack, AckKind, Connack, Publish, Suback, put_ack};
use sabir_mqtt::{Packet, PacketId, Qos, Reason, Version};

use crate::client::{Client, Frame, tcp};

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "compared with what a broker says by its own clock")]
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// A message of an MQTT client; before version 5 what has no place in it is left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Publication {
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) format: Option<bool>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) content_type: Option<String>,
    pub(crate) response: Option<String>,
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) user: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Publication {
    pub(crate) fn new(body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..Self::default() }
    }

    pub(crate) fn qos(self, qos: u8) -> Self {
        Self { qos, ..self }
    }

    pub(crate) fn retain(self) -> Self {
        Self { retain: true, ..self }
    }

    pub(crate) fn format(self, text: bool) -> Self {
        Self { format: Some(text), ..self }
    }

    pub(crate) fn expiry(self, seconds: u32) -> Self {
        Self { expiry_s: Some(seconds), ..self }
    }

    pub(crate) fn content_type(self, content_type: &str) -> Self {
        Self { content_type: Some(content_type.to_owned()), ..self }
    }

    pub(crate) fn response(self, topic: &str) -> Self {
        Self { response: Some(topic.to_owned()), ..self }
    }

    pub(crate) fn data(self, data: &[u8]) -> Self {
        Self { data: Some(data.to_vec()), ..self }
    }

    pub(crate) fn user(mut self, name: &str, value: &str) -> Self {
        self.user.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A message that an MQTT client got.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) topic: String,
    pub(crate) dup: bool,
    pub(crate) id: Option<PacketId>,
    pub(crate) message: Publication,
}

impl Arrival {
    fn new(publish: &Publish<'_>) -> Self {
        let properties = &publish.properties;
        Self {
            topic: publish.topic.to_owned(),
            dup: publish.dup,
            id: publish.id,
            message: Publication {
                qos: publish.qos.level(),
                retain: publish.retain,
                format: properties.payload_is_text,
                expiry_s: properties.expiry_s,
                content_type: properties.content_type.map(str::to_owned),
                response: properties.response_topic.map(str::to_owned),
                data: properties.correlation_data.map(<[u8]>::to_vec),
                user: properties
                    .user
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                body: publish.payload.to_vec(),
            },
        }
    }

    /// The values of the user properties of this name.
    pub(crate) fn user(&self, name: &str) -> Vec<&str> {
        let named = self.message.user.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// What travels with the payload, a line for each thing; the expiry is left out.
    pub(crate) fn lines(&self) -> Vec<String> {
        let message = &self.message;
        let mut lines = Vec::new();
        let mut line = |line: String| lines.push(line);
        if message.qos > 0 {
            line(format!("qos {}", message.qos));
        }
        if message.retain {
            line("retain".to_owned());
        }
        if self.dup {
            line("dup".to_owned());
        }
        if let Some(text) = message.format {
            line(format!("format {}", u8::from(text)));
        }
        if let Some(content_type) = &message.content_type {
            line(format!("content type {content_type}"));
        }
        if let Some(response) = &message.response {
            line(format!("response {response}"));
        }
        if let Some(data) = &message.data {
            line(format!("data {}", data.escape_ascii()));
        }
        for (name, value) in &message.user {
            line(format!("{}={}", name.escape_debug(), value.escape_debug()));
        }
        lines
    }
}

/// An MQTT client of some version. It does not acknowledge by itself what it only peeks at.
pub(crate) struct Mqtt {
    stream: TcpStream,
    version: Version,
    early: Vec<u8>,
    ids: PacketIds,
}

/// Anything but a message that a client may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Acked(u8, Reason),
    Subscribed(u8),
    Connected(Reason),
    Closed(Reason),
    Other,
}

enum Heard {
    Message(Arrival),
    Answer(Answer),
}

impl Mqtt {
    pub(crate) fn open(address: SocketAddr, version: Version) -> Self {
        Self::open_as(address, Connect { version, clean_start: true, ..Connect::default() })
    }

    pub(crate) fn open_as(address: SocketAddr, connect: Connect<'_>) -> Self {
        let mut client = Self {
            stream: tcp(address),
            version: connect.version,
            early: Vec::new(),
            ids: PacketIds::default(),
        };
        client.write(|out| client::connect(out, &connect).unwrap());
        assert_eq!(client.answer(), Answer::Connected(Reason::Success));
        client
    }

    fn write(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        put(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next packet; the steps of QoS 2 are taken on the way.
    fn hear(&mut self) -> Heard {
        loop {
            let decoded = Decoder::new(self.version).next(&self.early).unwrap();
            if let Some(packet) = decoded.packet {
                let heard = match packet {
                    Packet::Publish(publish) => Heard::Message(Arrival::new(&publish)),
                    Packet::Connack(Connack { reason, .. }) => Heard::Answer(Answer::Connected(reason)),
                    Packet::Suback(Suback { codes, .. }) => Heard::Answer(Answer::Subscribed(codes[0])),
                    Packet::Ack(Ack { kind: AckKind::Pubrec, reason, .. }) if reason.is_failure() => {
                        Heard::Answer(Answer::Acked(2, reason))
                    }
                    Packet::Ack(Ack { kind: AckKind::Pubrec | AckKind::Pubrel, .. }) => {
                        let mut next = Vec::new();
                        client::answer(&mut next, self.version, &packet);
                        self.stream.write_all(&next).unwrap();
                        self.early.drain(..decoded.consumed);
                        continue;
                    }
                    Packet::Ack(Ack { kind, reason, .. }) => {
                        Heard::Answer(Answer::Acked(if kind == AckKind::Puback { 1 } else { 2 }, reason))
                    }
                    Packet::Disconnect(disconnect) => Heard::Answer(Answer::Closed(disconnect.reason)),
                    _ => Heard::Answer(Answer::Other),
                };
                self.early.drain(..decoded.consumed);
                return heard;
            }
            let mut buffer = [0; 64 * 1024];
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the server closed the connection of an MQTT client");
            self.early.extend_from_slice(&buffer[..count]);
        }
    }

    /// The next packet, which is no message.
    pub(crate) fn answer(&mut self) -> Answer {
        match self.hear() {
            Heard::Answer(answer) => answer,
            Heard::Message(arrival) => panic!("an answer was due, not {arrival:?}"),
        }
    }

    /// The next packet, which is a message; it is left unacknowledged.
    pub(crate) fn peek(&mut self) -> Arrival {
        match self.hear() {
            Heard::Message(arrival) => arrival,
            Heard::Answer(answer) => panic!("a message was due, not {answer:?}"),
        }
    }

    /// The next message, acknowledged.
    pub(crate) fn take(&mut self) -> Arrival {
        let arrival = self.peek();
        self.acknowledged(arrival)
    }

    fn acknowledged(&mut self, arrival: Arrival) -> Arrival {
        let kind = if arrival.message.qos == 2 { AckKind::Pubrec } else { AckKind::Puback };
        if let Some(id) = arrival.id {
            let version = self.version;
            self.write(|out| put_ack(kind, id, Reason::Success, version, out));
        }
        arrival
    }

    /// Subscribes at the highest QoS and gives the code that answers it.
    pub(crate) fn try_subscribe(&mut self, filter: &str) -> u8 {
        let (version, id) = (self.version, self.ids.take());
        self.write(|out| client::subscribe(out, version, id, &[(filter, Qos::ExactlyOnce)]).unwrap());
        match self.answer() {
            Answer::Subscribed(code) => code,
            other => panic!("{other:?}"),
        }
    }

    /// Subscribes to what has a kept value, or is a queue with a message, and takes it.
    pub(crate) fn subscribe_and_take(&mut self, filter: &str) -> Arrival {
        let (version, id) = (self.version, self.ids.take());
        self.write(|out| client::subscribe(out, version, id, &[(filter, Qos::ExactlyOnce)]).unwrap());
        let (mut subscribed, mut taken) = (false, None);
        while !subscribed || taken.is_none() {
            match self.hear() {
                Heard::Message(arrival) => taken = Some(self.acknowledged(arrival)),
                Heard::Answer(answer) => {
                    assert!(matches!(answer, Answer::Subscribed(code) if code < 0x80), "{answer:?}");
                    subscribed = true;
                }
            }
        }
        taken.unwrap()
    }

    pub(crate) fn subscribe(&mut self, filter: &str) {
        let code = self.try_subscribe(filter);
        assert!(code < 0x80, "{filter}: {code:#x}");
    }

    /// Publishes and gives the reason that answers it; QoS 0 has none.
    pub(crate) fn try_publish(&mut self, topic: &str, message: &Publication) -> Reason {
        let mut user = UserPropertiesBuffer::new();
        for (name, value) in &message.user {
            assert!(user.push(name, value));
        }
        let qos = Qos::from_level(message.qos).unwrap();
        let id = (qos != Qos::AtMostOnce).then(|| self.ids.take());
        let properties = MessageProperties {
            payload_is_text: message.format,
            expiry_s: message.expiry_s,
            content_type: message.content_type.as_deref(),
            response_topic: message.response.as_deref(),
            correlation_data: message.data.as_deref(),
            user: user.get(),
        };
        let publish = Publish {
            qos,
            retain: message.retain,
            topic,
            id,
            properties,
            payload: &message.body,
            ..Publish::default()
        };
        let version = self.version;
        self.write(|out| publish.encode(version, out).unwrap());
        if id.is_none() {
            return Reason::Success;
        }
        match self.answer() {
            Answer::Acked(_, reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, topic: &str, message: &Publication) {
        let reason = self.try_publish(topic, message);
        assert!(!reason.is_failure(), "{topic}: {reason:?}");
    }

    /// Goes, and returns when the server has let it go.
    pub(crate) fn leave(mut self) {
        let version = self.version;
        self.write(|out| client::disconnect(out, version, Reason::Success).unwrap());
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "nothing follows DISCONNECT");
    }

    /// Returns when the server has read all that was written before.
    pub(crate) fn flush(&mut self) {
        self.write(client::ping);
        assert_eq!(self.answer(), Answer::Other);
    }
}

/// A STOMP client of 1.0 or 1.2.
pub(crate) fn stomp(address: SocketAddr, version: &str) -> Client {
    stomp_as(address, version, "")
}

/// With more headers on its CONNECT.
pub(crate) fn stomp_as(address: SocketAddr, version: &str, headers: &str) -> Client {
    let mut client = Client::new(tcp(address));
    let accepts =
        if version == "1.0" { String::new() } else { format!("accept-version:{version}\nhost:/\n") };
    client.write(format!("CONNECT\n{accepts}{headers}\n\0").as_bytes());
    let frame = client.frame();
    assert_eq!((frame.command.as_str(), frame.header("version")), ("CONNECTED", Some(version)));
    client
}

/// Subscribes under the id `1`, or another.
pub(crate) fn subscribe_as(client: &mut Client, id: &str, destination: &str, headers: &str) {
    client
        .write(format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\n{headers}receipt:s\n\n\0").as_bytes());
    let frame = client.frame();
    assert_eq!(frame.command, "RECEIPT", "{destination}: {}", frame.text());
}

/// A SEND, its headers as they stand on the wire, and what answers it.
pub(crate) fn try_send(client: &mut Client, destination: &str, headers: &str, body: &[u8]) -> Frame {
    let mut frame = format!("SEND\ndestination:{destination}\nreceipt:r\n{headers}\n").into_bytes();
    frame.extend_from_slice(body);
    frame.push(0);
    client.write(&frame);
    client.frame()
}

pub(crate) fn send(client: &mut Client, destination: &str, headers: &str, body: &[u8]) {
    let frame = try_send(client, destination, headers, body);
    assert_eq!(frame.command, "RECEIPT", "{destination}: {}", frame.text());
}
