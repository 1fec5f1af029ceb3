//! A blocking MQTT connection for the command line: one packet at a time, with deadlines. The commands over it are in the
//! files below; what they are asked for is read where STOMP's is.
#![expect(clippy::disallowed_methods, reason = "a client of the broker: its deadlines are its own")]

pub(crate) mod publish;
pub(crate) mod request;
pub(crate) mod subscribe;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use sabir_mqtt::client::{self, AckKind, Connect, ConnectProperties, Decoder, PacketIds};
use sabir_mqtt::packet::{Ack, Connack, Diagnostics, Publish, put_ack};
use sabir_mqtt::{DecodeError, EncodeError, Packet, PacketId, Qos, Reason, Version};

use super::connection::Message;
use super::link::{CLOSED, Link, broken};
use super::output;
use super::server::Server;
use super::{Failure, ServerArgs};

/// How long the last words of a server are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What came from the server and matters to a command. Refusals and the end of the connection are failures instead.
#[derive(Debug)]
enum Event {
    /// We are let in.
    Welcome(Welcome),
    /// The subscription holds.
    Subscribed,
    /// A message, and what it is to be acknowledged with.
    Message(Message, Option<Receipt>),
    /// The message that we sent with this id has arrived for good.
    Arrived(PacketId),
    /// The server knows that this id of its own was taken exactly once.
    Released(PacketId),
    /// Everything before the ping has been done.
    Pong,
}

/// The terms of the server.
#[derive(Debug)]
struct Welcome {
    client_id: Option<String>,
    receive_max: u16,
    qos_max: Qos,
    retains: bool,
    keep_alive: Option<Duration>,
}

impl Welcome {
    fn of(connack: &Connack<'_>) -> Self {
        let terms = &connack.properties;
        Self {
            client_id: terms.assigned_client_id.map(str::to_owned),
            receive_max: terms.receive_max.unwrap_or(u16::MAX),
            qos_max: terms.qos_max.unwrap_or(Qos::ExactlyOnce),
            retains: terms.retain_available.unwrap_or(true),
            keep_alive: terms
                .server_keep_alive_s
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.into())),
        }
    }
}

/// A received message that has not been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Receipt {
    kind: AckKind,
    id: PacketId,
}

/// How to introduce oneself.
#[derive(Clone, Copy, Debug, Default)]
struct Introduction<'a> {
    client_id: Option<&'a str>,
    /// Seconds that our session, which is taken up, outlives the connection; none for a session without past and future.
    session_expiry_s: Option<u32>,
    /// Deliveries that may be on the way unacknowledged.
    receive_max: Option<u16>,
}

/// A connection that has been let in.
struct Connection {
    link: Link,
    decoder: Decoder,
    version: Version,
    timeout: Duration,
    ids: PacketIds,
    /// Ours, if it is known.
    client_id: String,
    receive_max: u16,
    qos_max: Qos,
    retains: bool,
    /// Silence after which the server gives us up, if it insists on that.
    keep_alive: Option<Duration>,
    spoken: Instant,
}

impl Connection {
    /// Connects and introduces itself.
    fn open(
        server: &Server,
        version: Version,
        args: &ServerArgs,
        introduction: &Introduction<'_>,
    ) -> Result<Self, Failure> {
        let subprotocol = if version == Version::V31 { "mqttv3.1" } else { "mqtt" };
        let mut connection = Self {
            link: Link::open(server, args.timeout, subprotocol, true)?,
            decoder: Decoder::new(version),
            version,
            timeout: args.timeout,
            ids: PacketIds::default(),
            client_id: introduction.client_id.unwrap_or_default().to_owned(),
            receive_max: u16::MAX,
            qos_max: Qos::ExactlyOnce,
            retains: true,
            keep_alive: None,
            spoken: Instant::now(),
        };
        if connection.client_id.is_empty() && !version.has_properties() {
            // Before version 5 the server does not tell which one it chose, and in 3.1 it does not choose.
            connection.client_id = format!("sabir-{}", std::process::id());
        }
        let expiry_s = introduction.session_expiry_s;
        let connect = Connect {
            version,
            clean_start: match version {
                Version::V5 => expiry_s.is_none(),
                Version::V31 | Version::V311 => expiry_s.unwrap_or(0) == 0,
            },
            client_id: &connection.client_id,
            username: server.login.as_deref(),
            password: server.passcode.as_deref().map(str::as_bytes),
            properties: ConnectProperties {
                session_expiry_s: expiry_s.filter(|seconds| *seconds > 0),
                receive_max: introduction.receive_max,
                ..ConnectProperties::default()
            },
            ..Connect::default()
        };
        client::connect(connection.link.out(), &connect).map_err(unwritable)?;
        connection.flush()?;
        let deadline = connection.deadline();
        let greeting = connection.next(Some(deadline)).map_err(|failure| match failure {
            Failure::Failed(sentence) if sentence == CLOSED => Failure::Failed(format!(
                "{} closes the connection without a greeting; is it {}?",
                server.place,
                version.protocol()
            )),
            other => other,
        });
        match greeting? {
            Some(Event::Welcome(welcome)) => {
                if let Some(assigned) = welcome.client_id {
                    connection.client_id = assigned;
                }
                connection.receive_max = welcome.receive_max;
                connection.qos_max = welcome.qos_max;
                connection.retains = welcome.retains;
                connection.keep_alive = welcome.keep_alive;
                Ok(connection)
            }
            Some(other) => Err(Failure::Failed(format!("the server greets with {other:?}"))),
            None => Err(Failure::TimedOut(format!("{} does not greet", server.place))),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// That the server takes messages like this.
    fn check_terms(&self, qos: Qos, retain: bool) -> Result<(), Failure> {
        let refused = |reason: Reason, what: &str| {
            Err(Failure::Failed(format!("the server does not take {what} [{}]", reason.as_str())))
        };
        if qos > self.qos_max {
            return refused(Reason::QosNotSupported, &format!("messages of QoS {}", qos.level()));
        }
        if retain && !self.retains {
            return refused(Reason::RetainNotSupported, "messages to be kept");
        }
        Ok(())
    }

    /// Appends a PUBLISH.
    fn publish(&mut self, publish: &Publish<'_>) -> Result<(), Failure> {
        publish.encode(self.version, self.link.out()).map_err(unwritable)
    }

    /// Appends an acknowledgement.
    fn acknowledge(&mut self, receipt: Receipt) {
        put_ack(receipt.kind, receipt.id, Reason::Success, self.version, self.link.out());
    }

    /// Writes what is in the buffer. If the server has closed, what it said last is the reason.
    fn flush(&mut self) -> Result<(), Failure> {
        let written = self.link.write()?;
        self.spoken = Instant::now();
        let Some(error) = written else { return Ok(()) };
        let deadline = self.spoken + LAST_WORDS;
        loop {
            while self.poll()?.is_some() {}
            if !self.link.fill(Some(deadline))? {
                return Err(broken(&error));
            }
        }
    }

    /// Whether a whole packet lies in the buffer, so that [`Connection::next`] will not wait.
    fn has_next(&self) -> Result<bool, Failure> {
        self.decoder
            .next(self.link.input())
            .map(|decoded| decoded.packet.is_some())
            .map_err(|error| garbled(self.version, error))
    }

    /// What comes next, or nothing until the deadline. What is in the buffer is written before anything is waited for.
    fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.poll()? {
                return Ok(Some(event));
            }
            if !self.link.out().is_empty() {
                self.flush()?;
            }
            let beat = self.keep_alive.map(|silence| self.spoken + silence / 2);
            if self.link.fill([deadline, beat].into_iter().flatten().min())? {
                continue;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(None);
            }
            if beat.is_some_and(|beat| beat <= now) {
                client::ping(self.link.out());
            }
        }
    }

    /// What lies in the buffer. Steps that the protocol prescribes are appended to what is to be written.
    fn poll(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            let decoded =
                self.decoder.next(self.link.input()).map_err(|error| garbled(self.version, error))?;
            let Some(packet) = decoded.packet else { return Ok(None) };
            let consumed = decoded.consumed;
            let mut answer = Vec::new();
            if matches!(packet, Packet::Ack(_)) {
                client::answer(&mut answer, self.version, &packet);
            }
            let event = event(&packet)?;
            self.link.consume(consumed);
            self.link.out().append(&mut answer);
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Waits until the server has done everything it was asked, and says goodbye; whatever else comes is dropped.
    fn disconnect(mut self) -> Result<(), Failure> {
        client::ping(self.link.out());
        let deadline = self.deadline();
        loop {
            match self.next(Some(deadline))? {
                Some(Event::Pong) => break,
                Some(_) => {}
                None => {
                    return Err(Failure::TimedOut(
                        "the server does not confirm that it did everything".to_owned(),
                    ));
                }
            }
        }
        client::disconnect(self.link.out(), self.version, Reason::Success).map_err(unwritable)?;
        // Closing with unread bytes could take the goodbye back; so it is the server that closes.
        if self.link.write()?.is_none() {
            let deadline = Instant::now() + LAST_WORDS;
            while matches!(self.link.fill(Some(deadline)), Ok(true)) {
                self.link.consume(self.link.input().len());
            }
        }
        Ok(())
    }
}

/// What a packet means to a command; nothing, if that is all there is to it.
fn event(packet: &Packet<'_>) -> Result<Option<Event>, Failure> {
    Ok(match packet {
        Packet::Connack(connack) if connack.reason != Reason::Success => {
            return Err(refused("refuses the connection", connack.reason, &connack.properties.diagnostics));
        }
        Packet::Connack(connack) => Some(Event::Welcome(Welcome::of(connack))),
        Packet::Publish(publish) => {
            let kind = match publish.qos {
                Qos::AtMostOnce => None,
                Qos::AtLeastOnce => Some(AckKind::Puback),
                Qos::ExactlyOnce => Some(AckKind::Pubrec),
            };
            let receipt = kind.zip(publish.id).map(|(kind, id)| Receipt { kind, id });
            Some(Event::Message(message(publish), receipt))
        }
        Packet::Ack(Ack { kind, id, reason, diagnostics }) => match kind {
            AckKind::Pubrel => Some(Event::Released(*id)),
            _ if reason.is_failure() => return Err(refused("refuses a message", *reason, diagnostics)),
            AckKind::Puback | AckKind::Pubcomp => Some(Event::Arrived(*id)),
            AckKind::Pubrec => None,
        },
        Packet::Suback(suback) => match suback.reasons().find(|reason| reason.is_failure()) {
            Some(reason) => return Err(refused("refuses the subscription", reason, &suback.diagnostics)),
            None => Some(Event::Subscribed),
        },
        Packet::Pingresp => Some(Event::Pong),
        Packet::Disconnect(disconnect) => {
            return Err(refused("ends the connection", disconnect.reason, &disconnect.diagnostics));
        }
        Packet::Auth(auth) => return Err(refused("asks for more", auth.reason, &auth.diagnostics)),
        Packet::Unsuback(_) => None,
        // A server that sends these has been found out by the decoder.
        Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Pingreq => None,
    })
}

/// A message as the command line prints it: what MQTT says of it first, then what its sender added.
fn message(publish: &Publish<'_>) -> Message {
    let properties = &publish.properties;
    let mut headers = vec![
        ("topic".to_owned(), publish.topic.to_owned()),
        ("qos".to_owned(), publish.qos.level().to_string()),
    ];
    let mut add = |name: &str, value: Option<String>| {
        headers.extend(value.map(|value| (name.to_owned(), value)));
    };
    add("retain", publish.retain.then(|| "true".to_owned()));
    add("dup", publish.dup.then(|| "true".to_owned()));
    add("payload-format-indicator", properties.payload_is_text.map(|text| u8::from(text).to_string()));
    add("message-expiry-interval", properties.expiry_s.map(|seconds| seconds.to_string()));
    add("content-type", properties.content_type.map(str::to_owned));
    add("response-topic", properties.response_topic.map(str::to_owned));
    match properties.correlation_data.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        Some((_, Ok(text))) => add("correlation-data", Some(text.to_owned())),
        Some((bytes, Err(_))) => add("correlation-data_base64", Some(output::base64(bytes))),
        None => {}
    }
    for (name, value) in properties.user.iter() {
        add(name, Some(value.to_owned()));
    }
    Message { command: "PUBLISH".to_owned(), headers, body: publish.payload.to_vec() }
}

/// What the server refuses: in its own words, if it has any, with its code or else MQTT's name for the reason.
fn refused(what: &str, reason: Reason, diagnostics: &Diagnostics<'_>) -> Failure {
    let code = diagnostics.user.iter().find_map(|(name, value)| (name == "code").then_some(value));
    let code = code.unwrap_or(reason.as_str());
    Failure::Failed(match diagnostics.reason_string {
        Some(sentence) if sentence.contains(code) => format!("the server says: {sentence}"),
        Some(sentence) => format!("the server says: {sentence} [{code}]"),
        None => format!("the server {what} [{code}]"),
    })
}

fn garbled(version: Version, error: DecodeError) -> Failure {
    Failure::Failed(format!("the server does not speak {}: {}", version.protocol(), error.what))
}

fn unwritable(error: EncodeError) -> Failure {
    Failure::Usage(format!("MQTT has no way to say that: {}", error.what))
}

/// That a topic can be published to.
fn check_topic(topic: &str) -> Result<(), Failure> {
    if topic.is_empty() {
        return Err(Failure::Usage("the topic is empty".to_owned()));
    }
    if topic.contains(['+', '#']) {
        return Err(Failure::Usage(format!("{topic:?} is no topic to publish to: it holds a wildcard")));
    }
    Ok(())
}

/// That the version has properties, if some are asked for.
fn check_properties(version: Version, options: &[(&str, bool)]) -> Result<(), Failure> {
    match options.iter().find(|(_, given)| *given) {
        Some((option, _)) if !version.has_properties() => {
            Err(Failure::Usage(format!("{option} is for STOMP and MQTT 5 only")))
        }
        _ => Ok(()),
    }
}
