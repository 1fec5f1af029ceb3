//! One connection to the broker.

use std::time::{Duration, Instant};

use sabir_mqtt::client::{self, Connect, ConnectProperties, Decoder};
use sabir_mqtt::{Packet, PacketId, Reason, Version};

use super::Arguments;
use crate::wire::{Place, Wire};

/// What one read of a subscriber takes.
const SUBSCRIBER_BYTES: usize = 128 * 1024;
/// What one read takes of those who get acknowledgements only.
const PUBLISHER_BYTES: usize = 4 * 1024;

/// What a connection is for. It decides the client id and the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Publisher,
    Subscriber,
    Idle,
}

/// One connection that the broker has let in.
pub(super) struct Peer {
    wire: Wire,
    decoder: Decoder,
    version: Version,
    /// Unacknowledged messages that the broker allows.
    pub(super) receive_max: u16,
}

impl Peer {
    pub(super) fn open(arguments: &Arguments, role: Role, index: usize) -> Result<Self, String> {
        let version = arguments.mqtt_version.into();
        let (name, bytes) = match role {
            Role::Publisher => ('p', PUBLISHER_BYTES),
            Role::Subscriber => ('s', SUBSCRIBER_BYTES),
            Role::Idle => ('i', 256),
        };
        // 3.1 bounds it to 23 characters.
        let client_id = format!("bench-{}-{name}{index}", std::process::id());
        let place = Place::of(&arguments.server, arguments.url.as_deref(), "/mqtt")?;
        let subprotocol = if version == Version::V31 { "mqttv3.1" } else { "mqtt" };
        let mut peer = Self {
            wire: Wire::open(&place, bytes, subprotocol, true)?,
            decoder: Decoder::new(version),
            version,
            receive_max: u16::MAX,
        };
        let connect = Connect {
            version,
            clean_start: true,
            client_id: &client_id,
            username: arguments.username.as_deref(),
            password: arguments.password.as_deref().map(str::as_bytes),
            properties: ConnectProperties::default(),
            ..Connect::default()
        };
        let mut out = Vec::new();
        client::connect(&mut out, &connect).map_err(|error| error.to_string())?;
        peer.write(&out)?;
        let mut answer = None;
        peer.until(arguments.common.patience(), "CONNACK", |packet| match packet {
            Packet::Connack(connack) => {
                answer = Some((connack.reason, connack.properties.receive_max));
                true
            }
            _ => false,
        })?;
        match answer {
            Some((Reason::Success, receive_max)) => {
                peer.receive_max = receive_max.unwrap_or(u16::MAX);
                Ok(peer)
            }
            Some((reason, _)) => Err(format!("the broker refuses the connection: {}", reason.as_str())),
            None => Err("no CONNACK from the broker".into()),
        }
    }

    /// A connection with one subscription.
    pub(super) fn subscribe(arguments: &Arguments, index: usize, topic: &str) -> Result<Self, String> {
        let mut peer = Self::open(arguments, Role::Subscriber, index)?;
        peer.add_subscription(arguments, topic)?;
        Ok(peer)
    }

    pub(super) fn add_subscription(&mut self, arguments: &Arguments, topic: &str) -> Result<(), String> {
        let qos = arguments.quality();
        let mut out = Vec::new();
        client::subscribe(&mut out, self.version, PacketId::MIN, &[(topic, qos)])
            .map_err(|error| error.to_string())?;
        self.write(&out)?;
        let mut granted = None;
        self.until(arguments.common.patience(), "SUBACK", |packet| match packet {
            Packet::Suback(suback) => {
                granted = suback.codes.first().copied();
                true
            }
            _ => false,
        })?;
        match granted {
            Some(code) if code == qos.level() => Ok(()),
            Some(code) => {
                let name = Reason::from_code(code).map_or("an unknown code", Reason::as_str);
                Err(format!("the broker answers a subscription of QoS {} with {name}", qos.level()))
            }
            None => Err("no SUBACK from the broker".into()),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.wire.write(bytes)
    }

    /// Makes a message of what `out` holds from `start` on, where packets travel in messages.
    pub(super) fn seal(&mut self, out: &mut Vec<u8>, start: usize) {
        self.wire.seal(out, start);
    }

    /// Writes sealed packets.
    pub(super) fn write_sealed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.wire.write_sealed(bytes)
    }

    /// Reads what there is, or waits for it a while; hands every whole packet to `each`, which may write an answer into
    /// `out`.
    pub(super) fn read(
        &mut self,
        mut each: impl FnMut(&Packet<'_>, Version) -> Result<(), String>,
    ) -> Result<(), String> {
        self.wire.fill()?;
        loop {
            let decoded = self.decoder.next(self.wire.input()).map_err(|error| error.to_string())?;
            let Some(packet) = decoded.packet else { return Ok(()) };
            if let Packet::Disconnect(disconnect) = &packet {
                return Err(format!("the broker ends the connection: {}", disconnect.reason.as_str()));
            }
            each(&packet, self.version)?;
            let consumed = decoded.consumed;
            self.wire.consume(consumed);
        }
    }

    /// Reads until a packet is the one waited for.
    fn until(
        &mut self,
        patience: Duration,
        what: &str,
        mut is_it: impl FnMut(&Packet<'_>) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        let mut seen = false;
        while !seen {
            if Instant::now() > deadline {
                return Err(format!("no {what} from the broker"));
            }
            self.read(|packet, _| {
                seen |= is_it(packet);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Whether the broker still answers.
    pub(super) fn ping(&mut self, patience: Duration) -> Result<(), String> {
        let mut out = Vec::new();
        client::ping(&mut out);
        self.write(&out)?;
        self.until(patience, "PINGRESP", |packet| matches!(packet, Packet::Pingresp))
    }

    /// Says goodbye. What becomes of it does not matter any more.
    pub(super) fn leave(mut self) {
        let mut out = Vec::new();
        if client::disconnect(&mut out, self.version, Reason::Success).is_ok() {
            let _ = self.write(&out);
        }
    }
}
