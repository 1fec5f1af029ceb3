//! What passes between an outbox and those who hand over to it.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use sabir_model::chunks::Chunks;
use sabir_model::command::WireAck;
use sabir_model::delivery::Admission;
use sabir_model::ids::{DeliveryToken, SubscriptionKey};
use sabir_model::session::{Egress, EgressNote, Settled};

use crate::outbox::Outbox;
use crate::queue::Queue;
use crate::stats::Counters;
use crate::writer::Writer;

/// What became of a queue's delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// It is in the outbox; its bytes end at this offset of everything ever appended. The egress may have noted
    /// something, to be kept in the log or not, or have said that it needs no acknowledgement (`done`).
    Sent { ends_at: u64, noted: Option<(u32, bool)>, done: bool },
    /// There is no room. The queue is told when there is.
    NoRoom,
    /// The protocol's own window is full, or the connection is closing.
    NoCredit,
    /// This receiver can never take it.
    Undeliverable(&'static str),
}

/// What happens once the bytes up to some place have been written.
#[derive(Debug)]
pub(crate) enum Mark {
    /// A delivery in automatic mode is settled.
    Settle(DeliveryToken),
    /// A queue that found no room may dispatch again.
    Resume(Weak<Queue>),
    /// The owner has more to append.
    Owner,
}

/// How many a live message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receivers {
    /// It is written straight where it goes.
    One,
    /// It is written once for each dialect, and copied from there.
    Several,
}

impl Receivers {
    /// Of so many.
    pub(crate) fn of(count: usize) -> Self {
        if count > 1 { Self::Several } else { Self::One }
    }
}

/// What a flush left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing is left.
    Empty,
    /// The owner has to go on.
    Blocked,
}

/// What was in an outbox that is closed.
pub(crate) struct Closed {
    /// Bytes ever written.
    pub(crate) written: u64,
    pub(crate) _egress: Option<Box<dyn Egress>>,
    pub(crate) _writer: Option<Box<dyn Writer>>,
}

/// Whether a delivery is in the outbox.
pub(crate) fn has_gone(admission: Admission) -> bool {
    matches!(admission, Admission::Sent | Admission::Noted { .. } | Admission::Done)
}

/// Counts a live delivery. It settles when its bytes are in the outbox; what a receiver can never take is skipped.
pub(crate) fn count_live(admission: Admission, counters: &Counters) {
    let counter = match admission {
        Admission::Sent | Admission::Noted { .. } | Admission::Done => &counters.dispatched,
        Admission::NoCredit | Admission::Undeliverable(_) => &counters.discarded,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What waits, and the memory it takes.
pub(crate) fn size(chunks: &Chunks) -> (usize, usize) {
    (chunks.len(), chunks.memory())
}

impl Outbox {
    /// The protocol spoken, deliveries ever encoded, and bytes that wait.
    pub(crate) fn about(&self) -> (&'static str, u64, u64) {
        let state = self.state();
        let protocol = state.egress.as_ref().map_or("", |egress| egress.protocol());
        (protocol, state.delivered, state.chunks.len() as u64)
    }

    /// Forgets what waits for a subscription that has ended.
    pub(crate) fn forget_waiting(&self, key: SubscriptionKey) {
        if let Some(waiting) = self.state().waiting.get_mut() {
            waiting.forget(key);
        }
    }

    /// Lets the egress say that a browser has seen everything.
    pub(crate) fn browsed(&self, key: SubscriptionKey) {
        let mut state = self.state();
        let state = &mut *state;
        if let Some(egress) = state.egress.as_mut() {
            let before = state.chunks.len();
            egress.browsed(key, &mut state.chunks);
            state.appended += (state.chunks.len() - before) as u64;
        }
    }

    /// Hands a batch of acknowledgements to the egress.
    pub(crate) fn acknowledged(
        &self,
        acks: &[WireAck],
        settled: &mut Vec<Settled>,
        unknown: &mut Vec<usize>,
    ) {
        if let Some(egress) = self.state().egress.as_mut() {
            egress.acknowledged(acks, settled, unknown);
        }
    }

    pub(crate) fn note(&self, note: EgressNote<'_>) {
        if let Some(egress) = self.state().egress.as_mut() {
            egress.note(note);
        }
    }
}
