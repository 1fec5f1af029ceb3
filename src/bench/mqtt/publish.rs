//! The publishing side.

use std::time::Instant;

use sabir_mqtt::client::{self, AckKind};
use sabir_mqtt::packet::Ack;
use sabir_mqtt::{Packet, PacketId, Qos, Version};

use super::Arguments;
use super::flow::Flow;
use super::peer::Peer;
use crate::verify::stamp;

/// Publishes this publisher's share and waits until all of it is acknowledged.
pub(super) fn run(mut peer: Peer, index: usize, arguments: &Arguments, flow: &Flow) -> Result<Peer, String> {
    let done = publish(&mut peer, index, arguments, flow);
    if done.is_err() {
        flow.fail();
    }
    done.map(|()| peer)
}

/// How many messages this publisher is to send.
fn share(arguments: &Arguments, index: usize, publishers: usize) -> u64 {
    let (publishers, index) = (publishers as u64, index as u64);
    match arguments.duration {
        Some(_) => u64::MAX,
        None => arguments.messages / publishers + u64::from(index < arguments.messages % publishers),
    }
}

fn publish(peer: &mut Peer, index: usize, arguments: &Arguments, flow: &Flow) -> Result<(), String> {
    let qos = arguments.quality();
    let mut template =
        Template::new(arguments.mqtt_version.into(), &arguments.topic_of(index), qos, arguments.size)?;
    let publisher = u16::try_from(index).unwrap_or(u16::MAX);
    let (publishers, _) = arguments.shape();
    let mut left = share(arguments, index, publishers);
    let window = u64::from(arguments.window);
    let ack_window = window.min(peer.receive_max.into());
    let mut unacknowledged = Unacknowledged::new(qos);
    let mut number = 0;
    let mut out = Vec::new();
    let mut moved = (0, Instant::now());
    loop {
        if flow.has_failed() {
            return Ok(());
        }
        if flow.is_stopped() {
            left = 0;
        }
        let batch = u64::from(arguments.batch).min(ack_window.div_ceil(2)).min(left);
        let progress = number + unacknowledged.answered;
        if progress != moved.0 {
            moved = (progress, Instant::now());
        } else if moved.1.elapsed() > arguments.common.patience() {
            return Err(format!("nothing has moved for {} s", arguments.common.patience));
        }
        if left == 0 && unacknowledged.count == 0 {
            return Ok(());
        }
        if left == 0 || unacknowledged.count > ack_window - batch {
            out.clear();
            peer.read(|packet, version| unacknowledged.note(packet, version, &mut out))?;
            if !out.is_empty() {
                peer.write(&out)?;
            }
        } else if flow.on_the_way(index) > window - batch {
            flow.wait(index, window - batch);
        } else {
            out.clear();
            for step in 0..batch {
                let start = out.len();
                template.append(&mut out, publisher, number + step, unacknowledged.take()?);
                peer.seal(&mut out, start);
            }
            // Counted before the write, so that subscribers never run ahead of the count.
            flow.note_sent(index, batch);
            peer.write_sealed(&out)?;
            number += batch;
            left -= batch;
        }
    }
}

/// A PUBLISH in which only stamp and packet id change.
struct Template {
    packet: Vec<u8>,
    id_at: Option<usize>,
    body_at: usize,
}

impl Template {
    fn new(version: Version, topic: &str, qos: Qos, size: usize) -> Result<Self, String> {
        let mut packet = Vec::new();
        let id = (qos != Qos::AtMostOnce).then_some(PacketId::MIN);
        client::publish(&mut packet, version, topic, qos, id, &vec![b'x'; size])
            .map_err(|error| error.to_string())?;
        let body_at = packet.len() - size;
        // Without properties there is one byte that says so.
        let id_at = id.map(|_| body_at - 2 - usize::from(version.has_properties()));
        Ok(Self { packet, id_at, body_at })
    }

    fn append(&mut self, out: &mut Vec<u8>, publisher: u16, number: u64, id: Option<PacketId>) {
        if let Some(body) = self.packet.get_mut(self.body_at..) {
            stamp(body, publisher, number);
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
    Puback,
    Pubrec,
    Pubcomp,
}

/// Messages that the broker has not acknowledged to the end.
struct Unacknowledged {
    qos: Qos,
    next: u16,
    /// One for each packet id; none with QoS 0.
    ids: Vec<Await>,
    count: u64,
    /// Acknowledgements that came.
    answered: u64,
}

impl Unacknowledged {
    fn new(qos: Qos) -> Self {
        let ids = if qos == Qos::AtMostOnce { 0 } else { usize::from(u16::MAX) + 1 };
        Self { qos, next: 0, ids: vec![Await::Nothing; ids], count: 0, answered: 0 }
    }

    /// An id for the next message; none with QoS 0.
    fn take(&mut self) -> Result<Option<PacketId>, String> {
        let first = match self.qos {
            Qos::AtMostOnce => return Ok(None),
            Qos::AtLeastOnce => Await::Puback,
            Qos::ExactlyOnce => Await::Pubrec,
        };
        for _ in 0..=u16::MAX {
            self.next = self.next.wrapping_add(1);
            if let Some(id) = PacketId::new(self.next)
                && let Some(slot) = self.ids.get_mut(usize::from(self.next))
                && *slot == Await::Nothing
            {
                *slot = first;
                self.count += 1;
                return Ok(Some(id));
            }
        }
        Err("every packet id is taken".into())
    }

    /// Takes what the broker says, and appends what follows from it.
    fn note(&mut self, packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), String> {
        let Packet::Ack(Ack { kind, id, reason, .. }) = packet else { return Ok(()) };
        if reason.is_failure() {
            return Err(format!("the broker refuses a message: {}", reason.as_str()));
        }
        let Some(slot) = self.ids.get_mut(usize::from(id.get())) else { return Ok(()) };
        *slot = match (*slot, kind) {
            (Await::Puback, AckKind::Puback) | (Await::Pubcomp, AckKind::Pubcomp) => {
                self.count -= 1;
                Await::Nothing
            }
            (Await::Pubrec, AckKind::Pubrec) => {
                client::answer(out, version, packet);
                Await::Pubcomp
            }
            _ => return Err(format!("{} {id} answers nothing", kind.kind().as_str())),
        };
        self.answered += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::verify::read_stamp;
    use sabir_mqtt::Reason;

    #[test]
    fn a_template_is_a_publish_with_its_own_id_and_stamp() {
        for version in Version::ALL {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let mut template = Template::new(version, "a/b", qos, 200).unwrap();
                let mut unacknowledged = Unacknowledged::new(qos);
                let mut out = Vec::new();
                for number in 0..2 {
                    template.append(&mut out, 7, number, unacknowledged.take().unwrap());
                }
                let first = client::Decoder::new(version).next(&out).unwrap();
                let second = client::Decoder::new(version).next(&out[first.consumed..]).unwrap();
                let Some(Packet::Publish(publish)) = second.packet else { panic!("{:?}", second.packet) };
                assert_eq!((publish.topic, publish.qos), ("a/b", qos));
                assert_eq!(publish.id.map(PacketId::get), (qos != Qos::AtMostOnce).then_some(2));
                assert_eq!((read_stamp(publish.payload), publish.payload.len()), (Some((7, 1)), 200));
            }
        }
    }

    #[test]
    fn an_acknowledgement_of_nothing_or_in_the_wrong_order_is_an_error() {
        let mut out = Vec::new();
        let ack = |kind, id| Packet::Ack(Ack::new(kind, PacketId::new(id).unwrap(), Reason::Success));
        let mut two = Unacknowledged::new(Qos::ExactlyOnce);
        assert_eq!(two.take().unwrap(), PacketId::new(1));
        two.note(&ack(AckKind::Pubrec, 1), Version::V5, &mut out).unwrap();
        assert_eq!(out, [0x62, 2, 0, 1]);
        assert!(two.note(&ack(AckKind::Pubrec, 1), Version::V5, &mut out).is_err());
        two.note(&ack(AckKind::Pubcomp, 1), Version::V5, &mut out).unwrap();
        assert_eq!(two.count, 0);
        assert!(two.note(&ack(AckKind::Puback, 9), Version::V5, &mut out).is_err());
    }

    #[test]
    fn ids_in_use_are_passed_over() {
        let mut one = Unacknowledged::new(Qos::AtLeastOnce);
        one.take().unwrap();
        one.next = 0;
        assert_eq!(one.take().unwrap(), PacketId::new(2));
        one.next = u16::MAX;
        assert_eq!(one.take().unwrap(), PacketId::new(3));
    }
}
