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
    /// Bytes of memory that it may hold.
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
        // Whoever else holds it may let it go first, and nobody would know: each is charged for all of it.
        let charged = message.memory() as u64 + size_of::<Waiting>() as u64;
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

    /// Bytes of memory that these may hold.
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }
}
