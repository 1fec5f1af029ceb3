//! Deliveries that a client has still to acknowledge, by their packet ids, and how those are chosen.
//!
//! An id must be the same when the message is sent again [5: 4.4.0-1], also after a restart. So the broker is asked to keep
//! it with the delivery only where it does not follow from the delivery's number in the session's backlog.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::ids::{DeliveryToken, Sequence};
use sabir_model::settlement::Settlement;

/// Set in a delivery's progress beside its packet id: the client has the message, and only PUBREL is repeated.
pub(crate) const RECEIVED: u32 = 1 << 16;

/// Which packet acknowledges, beside the packet id in a settlement's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckKind {
    /// QoS 1 is done.
    Puback = 0,
    /// The first step of QoS 2, or its end if it failed.
    Pubrec = 1,
    /// QoS 2 is done.
    Pubcomp = 2,
}

impl AckKind {
    /// The number that names a delivery for [`Inflight::acknowledge`].
    pub(crate) fn name(self, id: u16) -> u64 {
        u64::from(id) | (self as u64) << 16
    }
}

/// What the client has to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Puback,
    Pubrec,
    Pubcomp,
}

/// How a message goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// PUBLISH with QoS 1.
    Once,
    /// PUBLISH with QoS 2.
    TwoSteps,
    /// PUBREL: the client has the message.
    SecondStep,
}

/// A packet id, and what the broker is to remember of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) id: u16,
    /// The note, if there is something new to note: the progress, and whether it must survive a restart.
    pub(crate) note: Option<(u32, bool)>,
}

/// What is out, by packet id. Bounded by the session's credit.
#[derive(Debug)]
pub(crate) struct Inflight {
    out: HashMap<u16, (DeliveryToken, Awaits), RandomState>,
    /// Where to look next for an id that follows from nothing: downwards, for those that follow count upwards.
    next: u16,
    /// The last id that followed from a number in the backlog.
    derived: Option<u16>,
}

/// Ids that are probed keep this far from those that are derived. An id that has just been freed must not be given to
/// another message while a crash can still undo the acknowledgement that freed it.
const APART: u16 = 8192;

impl Default for Inflight {
    fn default() -> Self {
        Self { out: HashMap::default(), next: u16::MAX, derived: None }
    }
}

impl Inflight {
    fn is_free(&self, id: u16) -> bool {
        id != 0 && !self.out.contains_key(&id)
    }

    /// The packet id for a delivery, or `None` if there is none now.
    pub(crate) fn choose(
        &mut self,
        handover: Handover,
        progress: u32,
        sequence: Option<Sequence>,
    ) -> Option<Choice> {
        let noted = (progress & 0xffff) as u16;
        if noted != 0 && self.is_free(noted) {
            return Some(Choice { id: noted, note: None });
        }
        // An exchange of two steps that has begun under an id ends under it.
        if noted != 0 && handover != Handover::Once {
            return None;
        }
        let derived = sequence.map(derived);
        self.derived = derived.or(self.derived);
        if let Some(id) = derived.filter(|id| self.is_free(*id)) {
            return Some(Choice { id, note: (noted != 0).then_some((u32::from(id), true)) });
        }
        let id = self.probe()?;
        Some(Choice { id, note: Some((id.into(), sequence.is_some())) })
    }

    fn probe(&mut self) -> Option<u16> {
        if self.out.len() >= usize::from(u16::MAX) {
            return None;
        }
        if let Some(derived) = self.derived {
            let apart = self.next.abs_diff(derived);
            if apart.min(u16::MAX - apart) < APART {
                self.next = below(derived, u16::MAX / 2);
            }
        }
        for _ in 0..u16::MAX {
            let id = self.next;
            self.next = below(id, 1);
            if self.is_free(id) {
                return Some(id);
            }
        }
        None
    }

    /// The delivery is going out under `id`.
    pub(crate) fn sent(&mut self, id: u16, handover: Handover, token: DeliveryToken) {
        let awaits = match handover {
            Handover::Once => Awaits::Puback,
            Handover::TwoSteps => Awaits::Pubrec,
            Handover::SecondStep => Awaits::Pubcomp,
        };
        self.out.insert(id, (token, awaits));
    }

    /// Which delivery a settlement of this `name` is about; `None` if it is about none. An end frees its id.
    pub(crate) fn acknowledge(&mut self, name: u64, settlement: Settlement) -> Option<DeliveryToken> {
        let id = (name & 0xffff) as u16;
        let kind = name >> 16;
        let (token, awaits) = self.out.get_mut(&id)?;
        let token = *token;
        let fits = match *awaits {
            Awaits::Puback => kind == AckKind::Puback as u64,
            Awaits::Pubrec => kind == AckKind::Pubrec as u64,
            // A repeated PUBREC is answered like the first.
            Awaits::Pubcomp => {
                kind == AckKind::Pubcomp as u64 || matches!(settlement, Settlement::Advanced(_))
            }
        };
        if !fits {
            return None;
        }
        if matches!(settlement, Settlement::Advanced(_)) {
            *awaits = Awaits::Pubcomp;
        } else {
            self.out.remove(&id);
        }
        Some(token)
    }
}

/// The id that comes `count` before `id`, on the ring of those that are not zero.
fn below(id: u16, count: u16) -> u16 {
    if id > count { id - count } else { u16::MAX - (count - id) }
}

/// The id that follows from a delivery's number in its session's backlog.
fn derived(sequence: Sequence) -> u16 {
    u16::try_from(sequence.0.wrapping_sub(1) % 65_535).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use sabir_model::ids::QueueId;

    fn token(slot: u32) -> DeliveryToken {
        DeliveryToken { boot: 1, queue: QueueId(1), slot, generation: 1 }
    }

    fn choose(
        out: &mut Inflight,
        progress: u32,
        sequence: Option<u64>,
    ) -> Option<(u16, Option<(u32, bool)>)> {
        let choice = out.choose(Handover::TwoSteps, progress, sequence.map(Sequence))?;
        out.sent(choice.id, Handover::TwoSteps, token(choice.id.into()));
        Some((choice.id, choice.note))
    }

    #[test]
    fn ids_follow_from_the_backlogs_numbers_and_others_are_noted() {
        let mut out = Inflight::default();
        assert_eq!(choose(&mut out, 0, Some(1)), Some((1, None)));
        assert_eq!(choose(&mut out, 0, Some(65_535)), Some((65_535, None)));
        // Taken by now: one that is far from it.
        assert_eq!(choose(&mut out, 0, Some(65_536)), Some((32_769, Some((32_769, true)))));
        assert_eq!(choose(&mut out, 0, None), Some((32_768, Some((32_768, false)))));
        assert_eq!(choose(&mut out, 7, Some(100)), Some((7, None)));
        assert_eq!(choose(&mut out, 7 | RECEIVED, Some(101)), None);
        let choice = out.choose(Handover::Once, 7, Some(Sequence(101)));
        assert_eq!(choice, Some(Choice { id: 101, note: Some((101, true)) }));
        assert_eq!(choose(&mut Inflight::default(), 0, None), Some((65_535, Some((65_535, false)))));
    }

    #[test]
    fn every_id_is_given_once_and_then_none() {
        let mut out = Inflight::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..65_535 {
            let (id, _) = choose(&mut out, 0, None).expect("one is free");
            assert!(id != 0 && seen.insert(id));
        }
        assert_eq!(choose(&mut out, 0, None), None);
        assert!([below(1, 1), below(2, 1), below(1, 32_767)] == [65_535, 1, 32_769]);
        assert!(out.acknowledge(AckKind::Pubrec.name(9), Settlement::Accepted).is_some());
        assert_eq!(choose(&mut out, 0, None).map(|(id, _)| id), Some(9));
    }

    #[test]
    fn only_the_packet_that_is_due_settles_mqtt_4_3() {
        let mut out = Inflight::default();
        out.sent(1, Handover::Once, token(1));
        out.sent(2, Handover::TwoSteps, token(2));
        out.sent(3, Handover::SecondStep, token(3));
        let done = Settlement::Accepted;
        for (kind, id) in [
            (AckKind::Pubrec, 1),
            (AckKind::Pubcomp, 1),
            (AckKind::Puback, 2),
            (AckKind::Pubcomp, 2),
            (AckKind::Puback, 3),
            (AckKind::Puback, 4),
        ] {
            assert_eq!(out.acknowledge(kind.name(id), done), None, "{kind:?} {id}");
        }
        let advanced = Settlement::Advanced(2 | RECEIVED);
        assert_eq!(out.acknowledge(AckKind::Pubrec.name(2), advanced), Some(token(2)));
        assert_eq!(out.acknowledge(AckKind::Pubrec.name(2), advanced), Some(token(2)));
        assert_eq!(out.acknowledge(AckKind::Pubrec.name(1), advanced), None);
        for (kind, id) in [(AckKind::Puback, 1), (AckKind::Pubcomp, 2), (AckKind::Pubcomp, 3)] {
            assert_eq!(out.acknowledge(kind.name(id), done), Some(token(id.into())));
            assert_eq!(out.acknowledge(kind.name(id), done), None);
        }
    }
}
