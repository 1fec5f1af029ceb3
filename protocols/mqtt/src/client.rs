//! The other side of the protocol, for the load generator, the command line and tests: writes client packets of every
//! version into a `Vec` and reads server packets in place.

use crate::error::{DecodeError, EncodeError};
use crate::packet::{
    Ack, Auth, Filters, Packet, PacketId, Progress, Publish, Subscribe, Subscription, Subscriptions,
    Unsubscribe, UserProperties, decode, frame, put_ack,
};
use crate::reason::Reason;
use crate::version::Version;

pub use crate::packet::{
    AckKind, Connack, Connect, ConnectProperties, Disconnect, MessageProperties, PINGREQ, Qos,
    SubscribeOptions, SubscriptionIds, UserPropertiesBuffer, Will,
};

/// Appends CONNECT in its own version.
///
/// # Errors
/// A field is too long. So it is with all that follow.
pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) -> Result<(), EncodeError> {
    connect.encode(connect.version, out)
}

/// Appends PUBLISH. An `id` makes it QoS 1, unless `qos` says 2.
///
/// # Errors
/// A field is too long, or there is no id for a QoS above 0.
pub fn publish(
    out: &mut Vec<u8>,
    version: Version,
    topic: &str,
    qos: Qos,
    id: Option<PacketId>,
    payload: &[u8],
) -> Result<(), EncodeError> {
    Publish { topic, qos, id, payload, ..Publish::default() }.encode(version, out)
}

/// Appends SUBSCRIBE with plain options.
///
/// # Errors
/// A field is too long, or there are no filters.
pub fn subscribe(
    out: &mut Vec<u8>,
    version: Version,
    id: PacketId,
    filters: &[(&str, Qos)],
) -> Result<(), EncodeError> {
    let wishes: Vec<Subscription<'_>> = filters
        .iter()
        .map(|(filter, qos)| Subscription { filter, options: SubscribeOptions::qos(*qos) })
        .collect();
    let subscriptions = Subscriptions::new(&wishes);
    Subscribe { id, subscription_id: None, user: UserProperties::NONE, subscriptions }.encode(version, out)
}

/// Appends UNSUBSCRIBE.
///
/// # Errors
/// A field is too long, or there are no filters.
pub fn unsubscribe(
    out: &mut Vec<u8>,
    version: Version,
    id: PacketId,
    filters: &[&str],
) -> Result<(), EncodeError> {
    Unsubscribe { id, user: UserProperties::NONE, filters: Filters::new(filters) }.encode(version, out)
}

/// Appends the step that follows a packet of the server: PUBACK or PUBREC for PUBLISH, PUBREL for PUBREC, PUBCOMP for
/// PUBREL. Says whether there was one.
pub fn answer(out: &mut Vec<u8>, version: Version, packet: &Packet<'_>) -> bool {
    let (kind, id) = match *packet {
        Packet::Publish(Publish { qos: Qos::AtLeastOnce, id: Some(id), .. }) => (AckKind::Puback, id),
        Packet::Publish(Publish { qos: Qos::ExactlyOnce, id: Some(id), .. }) => (AckKind::Pubrec, id),
        Packet::Ack(Ack { kind: AckKind::Pubrec, id, reason, .. }) if !reason.is_failure() => {
            (AckKind::Pubrel, id)
        }
        Packet::Ack(Ack { kind: AckKind::Pubrel, id, .. }) => (AckKind::Pubcomp, id),
        _ => return false,
    };
    put_ack(kind, id, Reason::Success, version, out);
    true
}

/// Appends PINGREQ.
pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&PINGREQ);
}

/// Appends DISCONNECT with nothing but its reason.
///
/// # Errors
/// None: it is short.
pub fn disconnect(out: &mut Vec<u8>, version: Version, reason: Reason) -> Result<(), EncodeError> {
    Disconnect::new(reason).encode(version, out)
}

/// Appends AUTH.
///
/// # Errors
/// A field is too long, or there is no AUTH in this version.
pub fn auth(out: &mut Vec<u8>, version: Version, auth: &Auth<'_>) -> Result<(), EncodeError> {
    auth.encode(version, out)
}

/// Gives out packet ids, round and round. Whoever keeps some for longer than 65535 others looks for itself.
#[derive(Clone, Debug)]
pub struct PacketIds {
    next: PacketId,
}

impl Default for PacketIds {
    fn default() -> Self {
        Self { next: PacketId::MIN }
    }
}

impl PacketIds {
    /// The next one.
    pub fn take(&mut self) -> PacketId {
        let id = self.next;
        self.next = id.checked_add(1).unwrap_or(PacketId::MIN);
        id
    }
}

/// Reads server packets in place. Keep the bytes of a partial packet and present them again with more behind them.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    version: Version,
    bytes_max: usize,
}

/// What [`Decoder::next`] found.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    /// Bytes at the front of the input that are done with once `packet` has been read.
    pub consumed: usize,
    /// A whole packet, or nothing yet.
    pub packet: Option<Packet<'a>>,
    /// How many bytes the partial packet will take; zero if that is not known.
    pub expect: usize,
}

impl Decoder {
    /// A decoder for the version that CONNECT has asked for.
    #[must_use]
    pub const fn new(version: Version) -> Self {
        Self { version, bytes_max: usize::MAX }
    }

    /// Takes no packet larger than this, as CONNECT has told the server.
    #[must_use]
    pub const fn packet_bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// Looks for the next packet at the front of `input`.
    ///
    /// # Errors
    /// The bytes are none that a server may send; there is no way to go on.
    pub fn next<'a>(&self, input: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        match frame(input, Some(self.version), self.bytes_max)? {
            Progress::NeedMore { total } => {
                Ok(Decoded { consumed: 0, packet: None, expect: total.unwrap_or(0) })
            }
            Progress::Whole(frame) => {
                let packet = decode(&frame, self.version)?;
                packet.check_from_server()?;
                Ok(Decoded { consumed: frame.total, packet: Some(packet), expect: 0 })
            }
        }
    }
}
