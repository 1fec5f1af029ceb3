//! Live deliveries of one connection that wait for room in its outbox.

use std::collections::VecDeque;
use std::sync::Arc;

use sabir_model::delivery::Grant;
use sabir_model::ids::SubscriptionKey;
use sabir_model::message::Message;

/// A live delivery that waits for room.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) subscription: SubscriptionKey,
    pub(crate) message: Message,
    pub(crate) grant: Option<Arc<Grant>>,
    /// Bytes of memory that are held for this alone.
    charged: u64,
}

/// Those of one connection, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct WaitingList {
    list: VecDeque<Waiting>,
    charged: u64,
}

impl WaitingList {
    pub(crate) fn push(
        &mut self,
        subscription: SubscriptionKey,
        message: &Message,
        grant: Option<Arc<Grant>>,
    ) {
        // The first to hold it is charged for it; others hold the same.
        let charged = if message.is_held_once() { message.memory() as u64 } else { 0 };
        self.charged += charged;
        self.list.push_back(Waiting { subscription, message: message.clone(), grant, charged });
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let oldest = self.list.pop_front()?;
        self.charged -= oldest.charged;
        Some(oldest)
    }

    /// Forgets those of a subscription.
    pub(crate) fn forget(&mut self, key: SubscriptionKey) {
        self.list.retain(|waiting| waiting.subscription != key);
        self.charged = self.list.iter().map(|waiting| waiting.charged).sum();
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes of memory that are held for these alone.
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }
}
