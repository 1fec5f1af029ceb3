//! One attempt to hand a message to one subscription.

use smallvec::SmallVec;

use crate::destination::{Destination, DestinationRef};
use crate::ids::{DeliveryToken, Sequence, SubscriptionKey};
use crate::message::{Message, Tag};

/// How surely a message is to arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Guarantee {
    /// It may be lost, and is never sent twice.
    #[default]
    AtMostOnce = 0,
    /// It is sent again until it is acknowledged.
    AtLeastOnce = 1,
    /// It is handed over in two steps, so that a repetition is recognised.
    ExactlyOnce = 2,
}

/// What the subscriptions of a client session that match one message grant together: such a session gets one copy,
/// however many of its subscriptions match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The most that any of them grants.
    pub guarantee: Guarantee,
    /// Whether any of them wants to see the message's own retain flag.
    pub keep_retain: bool,
    /// The message is a topic's kept last value, sent because of a new subscription.
    pub retained: bool,
    /// The client's own numbers of those that have one, in the order of subscription.
    pub identifiers: SmallVec<[u32; 2]>,
}

/// What an egress is given to encode.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The message.
    pub message: &'a Message,
    /// The subscription it is for.
    pub subscription: SubscriptionKey,
    /// The queue that dispatches it, where the consumer reads a queue by its own name. `None` for topics and for the
    /// queues behind durable subscriptions: there the message's own destination is what the consumer subscribed to.
    pub queue: Option<&'a Destination>,
    /// Names this attempt if it must be settled; `None` if nobody waits for that.
    pub token: Option<DeliveryToken>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Whether an earlier attempt may have reached a consumer.
    pub redelivered: bool,
    /// Whether this is a look at a message that stays where it is.
    pub browsed: bool,
    /// For a client session: what its matching subscriptions grant. The delivery goes out with the lesser of this and
    /// the message's own guarantee.
    pub grant: Option<&'a Grant>,
    /// Its number in the client session's own backlog, from which a name may be derived that is the same after a
    /// restart; `None` for what comes from elsewhere.
    pub sequence: Option<Sequence>,
    /// What the egress noted at an earlier attempt ([`Admission::Noted`]) or an acknowledgement did
    /// ([`crate::settlement::Settlement::Advanced`]); 0 if nothing.
    pub progress: u32,
}

impl<'a> Delivery<'a> {
    /// The destination the consumer should see.
    #[must_use]
    pub fn destination(&self) -> Option<DestinationRef<'a>> {
        match self.queue {
            Some(queue) => Some(queue.as_ref()),
            None => self.message.destination(),
        }
    }

    /// Whether that is the destination of this stored form. Reads less than [`Delivery::destination`]: for whoever keeps
    /// what it made of the last one.
    #[must_use]
    pub fn goes_to(&self, stored: &[u8]) -> bool {
        match self.queue {
            Some(queue) => queue.as_ref().is_stored_as(stored),
            None => self.message.fields().find(Tag::Destination).is_some_and(|own| own == stored),
        }
    }

    /// Where the message was first sent if that is not [`Delivery::destination`]: dotted qualified text.
    #[must_use]
    pub fn original_destination(&self) -> Option<String> {
        if let Some(text) = self.message.fields().find_text(Tag::OriginalDestination) {
            return Some(text.to_owned());
        }
        let sent = self.message.destination()?;
        (Some(sent) != self.destination()).then(|| sent.to_string())
    }
}

/// What became of an attempt to encode a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is in the outbox.
    Sent,
    /// It is in the outbox, and this note is to be handed back with the next attempt, also after a restart if `kept`.
    Noted {
        /// The egress's own note; not 0.
        progress: u32,
        /// Whether it must survive a restart.
        kept: bool,
    },
    /// It is in the outbox and needs no acknowledgement: settled when the socket has taken the bytes.
    Done,
    /// The protocol's own window is full: back to the head, uncounted.
    NoCredit,
    /// This receiver can never take it (too large for it, not expressible): settled as rejected for this receiver.
    Undeliverable(&'static str),
}

/// Encoded forms shared by the receivers of one fan-out: one per dialect.
#[derive(Debug, Default)]
pub struct EncodeCache {
    entries: Vec<(u32, Vec<u8>)>,
    used: usize,
}

impl EncodeCache {
    /// An empty cache; keep one per publisher and [`EncodeCache::reset`] it between messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all entries, keeping modest buffers.
    pub fn reset(&mut self) {
        for (_, bytes) in self.entries.iter_mut().take(self.used) {
            bytes.clear();
            bytes.shrink_to(64 * 1024);
        }
        self.used = 0;
    }

    /// What `dialect` encoded, if anybody of that dialect has.
    #[must_use]
    pub fn get(&self, dialect: u32) -> Option<&[u8]> {
        let mut used = self.entries.iter().take(self.used);
        used.find(|(known, _)| *known == dialect).map(|(_, bytes)| bytes.as_slice())
    }

    /// What `dialect` encoded, encoding it now if nobody of that dialect has.
    pub fn get_or_encode(&mut self, dialect: u32, encode: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let found = self.entries.iter().take(self.used).position(|(known, _)| *known == dialect);
        let index = found.unwrap_or_else(|| {
            if self.used == self.entries.len() {
                self.entries.push((dialect, Vec::new()));
            }
            let index = self.used;
            if let Some((known, bytes)) = self.entries.get_mut(index) {
                *known = dialect;
                encode(bytes);
            }
            self.used += 1;
            index
        });
        self.entries.get(index).map_or(&[], |(_, bytes)| bytes)
    }
}
