//! MQTT, as a client speaks it.

use std::time::Duration;

use sabir_mqtt::client::{self, AckKind, Connect, ConnectProperties, Decoder};
use sabir_mqtt::packet::Ack;
use sabir_mqtt::{Packet, PacketId, Qos, Reason, Version};

use super::{Opening, Role, Sink, Spot};
use crate::link::{Link, Place, Scratch};
use crate::stamp::Source;

/// Nobody pings while it is measured, and some brokers want an interval.
const KEEP_ALIVE_S: u16 = u16::MAX;
/// How long a session waits for its client, if it does.
const SESSION_S: u32 = 24 * 3600;
/// The group of those who share.
const GROUP: &str = "bench";

/// How MQTT is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) version: Version,
    pub(crate) topic: String,
    pub(crate) qos: Qos,
    /// Receivers' sessions outlive their connections.
    pub(crate) stored: bool,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Options {
    pub(super) fn open(&self, scratch: &mut Scratch, opening: &Opening) -> Result<(Link, Speaker), String> {
        self.open_as(scratch, opening, !(self.stored && opening.role == Role::Receiver))
    }

    fn open_as(
        &self,
        scratch: &mut Scratch,
        opening: &Opening,
        clean: bool,
    ) -> Result<(Link, Speaker), String> {
        let mut link = Link::open(&self.place, opening.source, self.subprotocol(), true)?;
        let bytes = self.greeting(opening, clean)?;
        let decoder = Decoder::new(self.version);
        let mut receive_max = u16::MAX;
        link.ask(scratch, &bytes, "CONNACK", opening.patience, |input| {
            let decoded = decoder.next(input).map_err(|error| error.to_string())?;
            match decoded.packet {
                None => Ok((decoded.consumed, false)),
                Some(Packet::Connack(connack)) if connack.reason == Reason::Success => {
                    receive_max = connack.properties.receive_max.unwrap_or(u16::MAX);
                    Ok((decoded.consumed, true))
                }
                Some(Packet::Connack(connack)) => {
                    Err(format!("the broker refuses the connection: {}", connack.reason.as_str()))
                }
                Some(_) => Err("the broker does not answer CONNECT with CONNACK".into()),
            }
        })?;
        let ids = if self.qos == Qos::AtMostOnce { 0 } else { opening.in_flight_max.min(receive_max) };
        let unacknowledged = Unacknowledged::new(self.qos, ids);
        Ok((link, Speaker { decoder, version: self.version, unacknowledged }))
    }

    /// What a WebSocket carries.
    pub(crate) fn subprotocol(&self) -> &'static str {
        if self.version == Version::V31 { "mqttv3.1" } else { "mqtt" }
    }

    /// A CONNECT.
    pub(crate) fn greeting(&self, opening: &Opening, clean: bool) -> Result<Vec<u8>, String> {
        let role = match opening.role {
            Role::Sender => 'p',
            Role::Receiver => 's',
            Role::Idle => 'i',
        };
        // 3.1 bounds it to 23 characters.
        let client_id = format!("bench-{}-{role}{}", std::process::id(), opening.index);
        let mut bytes = Vec::new();
        let connect = Connect {
            version: self.version,
            clean_start: clean,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: &client_id,
            username: self.username.as_deref(),
            password: self.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties {
                session_expiry_s: (!clean && self.version.has_properties()).then_some(SESSION_S),
                ..ConnectProperties::default()
            },
            ..Connect::default()
        };
        client::connect(&mut bytes, &connect).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    pub(super) fn subscribe(
        &self,
        link: &mut Link,
        scratch: &mut Scratch,
        spot: Spot,
        shared: bool,
        patience: Duration,
    ) -> Result<(), String> {
        let topic = spot.name(&self.topic, '/');
        let filter = if shared { format!("$share/{GROUP}/{topic}") } else { topic };
        self.subscribe_to(link, scratch, &[filter], shared, patience)
    }

    /// Subscribes to some filters in one packet. What is granted must be what was asked for, or less if `less_will_do`.
    pub(crate) fn subscribe_to(
        &self,
        link: &mut Link,
        scratch: &mut Scratch,
        filters: &[String],
        less_will_do: bool,
        patience: Duration,
    ) -> Result<(), String> {
        let mut bytes = Vec::new();
        let wishes: Vec<(&str, Qos)> = filters.iter().map(|filter| (filter.as_str(), self.qos)).collect();
        client::subscribe(&mut bytes, self.version, PacketId::MIN, &wishes)
            .map_err(|error| error.to_string())?;
        let decoder = Decoder::new(self.version);
        link.ask(scratch, &bytes, "SUBACK", patience, |input| {
            let decoded = decoder.next(input).map_err(|error| error.to_string())?;
            match decoded.packet {
                None => Ok((0, false)),
                Some(Packet::Suback(suback)) => {
                    let wanted = self.qos.level();
                    let is_wrong = |code: &&u8| **code > wanted || (**code < wanted && !less_will_do);
                    match suback.codes.iter().find(is_wrong) {
                        None => Ok((decoded.consumed, true)),
                        Some(code) => {
                            let name = Reason::from_code(*code).map_or("an unknown code", Reason::as_str);
                            Err(format!("the broker answers a subscription of QoS {wanted} with {name}"))
                        }
                    }
                }
                // A stored session may have something waiting; it is left for later.
                Some(_) => Err("a message of an earlier run is in the way".into()),
            }
        })
    }

    pub(super) fn letter(&self, spot: Spot, source: Source) -> Result<Letter, String> {
        Letter::new(self.version, &spot.name(&self.topic, '/'), self.qos, source)
    }

    pub(super) fn forget(&self, scratch: &mut Scratch, receivers: usize, patience: Duration) {
        if !self.stored {
            return;
        }
        for index in 0..receivers {
            let opening = Opening { role: Role::Receiver, index, in_flight_max: 1, source: None, patience };
            // What cannot be forgotten now ends with its expiry.
            if let Ok((mut link, speaker)) = self.open_as(scratch, &opening, true) {
                speaker.leave(&mut link);
            }
        }
    }
}

/// The state of one connection.
pub(crate) struct Speaker {
    decoder: Decoder,
    version: Version,
    unacknowledged: Unacknowledged,
}

impl Speaker {
    pub(super) fn room(&self) -> u64 {
        self.unacknowledged.room()
    }

    pub(super) fn room_max(&self) -> u64 {
        self.unacknowledged.most()
    }

    pub(super) fn send(
        &mut self,
        link: &mut Link,
        letter: &mut Letter,
        first: u64,
        count: u64,
        time: impl Fn(u64) -> u64,
    ) -> Result<(), String> {
        for number in first..first + count {
            let id = self.unacknowledged.take(number)?;
            let start = link.out.len();
            letter.append(&mut link.out, number, time(number), id);
            link.seal(start);
        }
        Ok(())
    }

    pub(super) fn receive(
        &mut self,
        link: &mut Link,
        input: &[u8],
        sink: &mut impl Sink,
    ) -> Result<usize, String> {
        let mut taken = 0;
        let start = link.out.len();
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            let decoded = self.decoder.next(rest).map_err(|error| error.to_string())?;
            let Some(packet) = decoded.packet else { break };
            taken += decoded.consumed;
            match &packet {
                Packet::Publish(publish) => {
                    sink.message(publish.payload, publish.dup);
                    client::answer(&mut link.out, self.version, &packet);
                }
                Packet::Ack(ack) if ack.kind == AckKind::Pubrel => {
                    client::answer(&mut link.out, self.version, &packet);
                }
                Packet::Ack(_) => {
                    if let Some(number) = self.unacknowledged.note(&packet, self.version, &mut link.out)? {
                        sink.acknowledged(number, 1);
                    }
                }
                Packet::Disconnect(disconnect) => {
                    return Err(format!("the broker ends the connection: {}", disconnect.reason.as_str()));
                }
                _ => {}
            }
        }
        if link.out.len() > start {
            link.seal(start);
        }
        Ok(taken)
    }

    pub(super) fn leave(&self, link: &mut Link) {
        let start = link.out.len();
        if client::disconnect(&mut link.out, self.version, Reason::Success).is_ok() {
            link.seal(start);
            // What becomes of it does not matter any more.
            let _ = link.flush();
        }
    }
}

/// A PUBLISH in which only stamp and packet id change.
pub(crate) struct Letter {
    packet: Vec<u8>,
    id_at: Option<usize>,
    body_at: usize,
    source: Source,
}

impl Letter {
    fn new(version: Version, topic: &str, qos: Qos, source: Source) -> Result<Self, String> {
        let (mut packet, body) = (Vec::new(), source.body());
        let id = (qos != Qos::AtMostOnce).then_some(PacketId::MIN);
        client::publish(&mut packet, version, topic, qos, id, &body).map_err(|error| error.to_string())?;
        let body_at = packet.len() - body.len();
        // Without properties there is one byte that says so.
        let id_at = id.map(|_| body_at - 2 - usize::from(version.has_properties()));
        Ok(Self { packet, id_at, body_at, source })
    }

    fn append(&mut self, out: &mut Vec<u8>, number: u64, time_ns: u64, id: Option<PacketId>) {
        if let Some(body) = self.packet.get_mut(self.body_at..) {
            self.source.stamp(body, number, time_ns);
        }
        if let Some((at, id)) = self.id_at.zip(id)
            && let Some(slot) = self.packet.get_mut(at..at + 2)
        {
            slot.copy_from_slice(&id.get().to_be_bytes());
        }
        out.extend_from_slice(&self.packet);
    }
}

/// What the broker has yet to say about a packet id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Await {
    Nothing,
    Puback(u64),
    Pubrec(u64),
    Pubcomp(u64),
}

/// Messages that the broker has not acknowledged to the end.
struct Unacknowledged {
    qos: Qos,
    /// The id tried first, less one.
    next: usize,
    /// One for each packet id from 1 on; as many as have been needed at once.
    ids: Vec<Await>,
    ids_max: u16,
    count: usize,
}

impl Unacknowledged {
    fn new(qos: Qos, ids: u16) -> Self {
        Self { qos, next: 0, ids: Vec::new(), ids_max: ids, count: 0 }
    }

    fn most(&self) -> u64 {
        if self.qos == Qos::AtMostOnce { u64::MAX } else { self.ids_max.into() }
    }

    fn room(&self) -> u64 {
        self.most() - self.count as u64
    }

    /// An id for a message; none with QoS 0.
    fn take(&mut self, number: u64) -> Result<Option<PacketId>, String> {
        let first = match self.qos {
            Qos::AtMostOnce => return Ok(None),
            Qos::AtLeastOnce => Await::Puback(number),
            Qos::ExactlyOnce => Await::Pubrec(number),
        };
        if self.count == self.ids.len() && self.ids.len() < self.ids_max.into() {
            self.next = self.ids.len();
            self.ids.push(Await::Nothing);
        }
        for _ in 0..self.ids.len() {
            let place = self.next;
            self.next = (self.next + 1) % self.ids.len();
            if let Some(slot) = self.ids.get_mut(place)
                && *slot == Await::Nothing
            {
                *slot = first;
                self.count += 1;
                return Ok(u16::try_from(place + 1).ok().and_then(PacketId::new));
            }
        }
        Err("every packet id is taken".into())
    }

    /// Takes what the broker says and appends what follows from it; the number of a message that is done.
    fn note(
        &mut self,
        packet: &Packet<'_>,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, String> {
        let Packet::Ack(Ack { kind, id, reason, .. }) = packet else { return Ok(None) };
        if reason.is_failure() {
            return Err(format!("the broker refuses a message: {}", reason.as_str()));
        }
        let slot = self.ids.get_mut(usize::from(id.get()) - 1);
        match (slot, kind) {
            (Some(slot @ &mut Await::Puback(number)), AckKind::Puback)
            | (Some(slot @ &mut Await::Pubcomp(number)), AckKind::Pubcomp) => {
                *slot = Await::Nothing;
                self.count -= 1;
                Ok(Some(number))
            }
            (Some(slot @ &mut Await::Pubrec(number)), AckKind::Pubrec) => {
                *slot = Await::Pubcomp(number);
                client::answer(out, version, packet);
                Ok(None)
            }
            _ => Err(format!("{} {id} answers nothing", kind.kind().as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::stamp::{Reading, Stamp, read};

    #[test]
    fn a_letter_is_a_publish_with_its_own_id_and_stamp() {
        for version in Version::ALL {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let mut letter = Letter::new(version, "a/b", qos, Source::new(1, 7, 200)).unwrap();
                let mut unacknowledged = Unacknowledged::new(qos, 5);
                let mut out = Vec::new();
                for number in 0..2 {
                    letter.append(&mut out, number, 9, unacknowledged.take(number).unwrap());
                }
                let first = Decoder::new(version).next(&out).unwrap();
                let second = Decoder::new(version).next(&out[first.consumed..]).unwrap();
                let Some(Packet::Publish(publish)) = second.packet else { panic!("{:?}", second.packet) };
                assert_eq!((publish.topic, publish.qos), ("a/b", qos));
                assert_eq!(publish.id.map(PacketId::get), (qos != Qos::AtMostOnce).then_some(2));
                let stamp = Stamp { sender: 7, number: 1, time_ns: 9 };
                assert_eq!(read(publish.payload, 1, 200), Reading::Whole(stamp));
            }
        }
    }

    #[test]
    fn an_acknowledgement_of_nothing_or_in_the_wrong_order_is_an_error() {
        let mut out = Vec::new();
        let ack = |kind, id| Packet::Ack(Ack::new(kind, PacketId::new(id).unwrap(), Reason::Success));
        let mut two = Unacknowledged::new(Qos::ExactlyOnce, 3);
        assert_eq!(two.take(77).unwrap(), PacketId::new(1));
        assert_eq!(two.note(&ack(AckKind::Pubrec, 1), Version::V5, &mut out), Ok(None));
        assert_eq!(out, [0x62, 2, 0, 1]);
        assert!(two.note(&ack(AckKind::Pubrec, 1), Version::V5, &mut out).is_err());
        assert_eq!(two.note(&ack(AckKind::Pubcomp, 1), Version::V5, &mut out), Ok(Some(77)));
        assert_eq!((two.count, two.room()), (0, 3));
        assert!(two.note(&ack(AckKind::Puback, 9), Version::V5, &mut out).is_err());
    }

    #[test]
    fn ids_in_use_are_passed_over() {
        let mut one = Unacknowledged::new(Qos::AtLeastOnce, 3);
        let mut out = Vec::new();
        for id in 1..=3 {
            assert_eq!(one.take(id).unwrap(), PacketId::new(id as u16));
        }
        assert!(one.take(4).is_err());
        let ack = Packet::Ack(Ack::new(AckKind::Puback, PacketId::new(2).unwrap(), Reason::Success));
        assert_eq!(one.note(&ack, Version::V311, &mut out), Ok(Some(2)));
        assert_eq!(one.take(5).unwrap(), PacketId::new(2));
    }
}
