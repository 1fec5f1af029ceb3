//! A connection's subscriptions, by the client's names.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::SubscriptionKey;

/// A subscription that is on.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) key: SubscriptionKey,
    pub(crate) browse: bool,
    pub(crate) durable: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    active: HashMap<Box<str>, Active, RandomState>,
    next: u32,
}

impl Subscriptions {
    /// A number for the next subscription, unless there are too many.
    pub(crate) fn key(&mut self, max: usize) -> Result<SubscriptionKey, Refusal> {
        if self.active.len() >= max {
            let sentence = format!("a connection has at most {max} subscriptions");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        let key = SubscriptionKey(self.next);
        self.next = self.next.wrapping_add(1);
        Ok(key)
    }

    /// The same, unless the name is taken.
    pub(crate) fn reserve(&mut self, id: &str, max: usize) -> Result<SubscriptionKey, Refusal> {
        if self.active.contains_key(id) {
            let sentence = format!("this connection already has a subscription with the id {id:?}");
            return Err(Refusal::new(Code::DuplicateSubscription, sentence));
        }
        self.key(max)
    }

    pub(crate) fn insert(&mut self, id: &str, active: Active) {
        self.active.insert(id.into(), active);
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Active> {
        self.active.get(id)
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Active> {
        self.active.remove(id)
    }

    /// Forgets a subscription the broker has ended; its id.
    pub(crate) fn remove_key(&mut self, key: SubscriptionKey) -> Option<Box<str>> {
        let id = self.active.iter().find(|(_, active)| active.key == key)?.0.clone();
        self.active.remove(&id);
        Some(id)
    }

    /// Whether deliveries under this number are a browser's.
    pub(crate) fn is_browser(&self, key: SubscriptionKey) -> bool {
        self.active.values().any(|active| active.key == key && active.browse)
    }
}
