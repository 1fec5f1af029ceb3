//! Durable subscriptions: made and ended by those who consume them, or by management before and after that.

use std::sync::Arc;

use hashbrown::hash_map::Entry;
use sabir_model::command::Promise;
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::ConnectionId;
use sabir_model::pattern::Pattern;
use sabir_model::selector::{Options, Selector};
use sabir_store::Level;

use crate::broker::{Broker, Shared};
use crate::queue::{Queue, Role};
use crate::recovery::{TABLE_QUEUES, bind, durable_policy, encode_queue, rebind};
use crate::registry::{Durable, DurableKey, VirtualHost};
use crate::work::{Work, finish, promise};

/// What a durable subscription is to.
pub(crate) struct Wanted<'a> {
    pub(crate) pattern: &'a Pattern,
    pub(crate) selector: Option<&'a Arc<Selector>>,
    /// Leave out what this connection publishes.
    pub(crate) no_local: Option<ConnectionId>,
}

impl Wanted<'_> {
    fn is_that_of(&self, queue: &Queue) -> bool {
        match &queue.role {
            Role::Durable { pattern, selector, .. } => {
                pattern == self.pattern
                    && selector.as_deref().map(Selector::source)
                        == self.selector.map(|selector| selector.source())
            }
            _ => false,
        }
    }
}

fn in_use((client_id, name): &DurableKey) -> Refusal {
    let sentence = format!("the durable subscription \"{name}\" of \"{client_id}\" is in use");
    Refusal::new(Code::SubscriptionInUse, sentence)
}

/// What became of the wish for a durable subscription.
pub(crate) struct Declared {
    pub(crate) queue: Arc<Queue>,
    /// Whether it was made, or made anew.
    pub(crate) new: bool,
    /// Kept once it is on disk, if it was not before.
    pub(crate) promise: Option<Promise>,
}

impl VirtualHost {
    /// Sees to it that a durable subscription is there, and has `consumer` consume it, if there is one. Another topic or
    /// selector than before begins anew, without what waited (JMS 2.0 §8.3.3).
    pub(crate) fn declare_durable(
        &self,
        shared: &Shared,
        key: &DurableKey,
        wanted: &Wanted<'_>,
        consumer: Option<ConnectionId>,
        work: &mut Work,
    ) -> Result<Declared, Refusal> {
        let mut durables = self.durables.lock();
        if let Some(known) = durables.get_mut(key) {
            let same = wanted.is_that_of(&known.queue);
            if known.active.is_some() && (consumer.is_some() || !same) {
                return Err(in_use(key));
            }
            if same {
                let queue = Arc::clone(&known.queue);
                if consumer.is_some() {
                    known.active = consumer;
                    // Whose messages are left out is a matter of the connection, and this is another one.
                    let selector = wanted.selector.cloned();
                    let pattern = wanted.pattern;
                    known.handle = rebind(self, known.handle, pattern, &queue, selector, wanted.no_local);
                }
                return Ok(Declared { queue, new: false, promise: None });
            }
            let old = durables.remove(key);
            drop(durables);
            if let Some(old) = old {
                self.delete_durable(shared, &old, work);
            }
        } else {
            drop(durables);
        }
        let (client_id, name) = key;
        let role = Role::Durable {
            client_id: client_id.clone(),
            name: name.clone(),
            pattern: wanted.pattern.clone(),
            selector: wanted.selector.cloned(),
        };
        let policy = durable_policy(shared, wanted.pattern);
        let destination =
            Destination::from_canonical(Kind::Queue, true, &format!("durable:{client_id}:{name}"))?;
        let queue = self.make_queue(shared, destination, role, Some(policy))?;
        let handle = bind(self, wanted.pattern, &queue, wanted.selector.cloned(), wanted.no_local);
        let made = Durable { queue: Arc::clone(&queue), handle, active: consumer };
        let spare = match self.durables.lock().entry(key.clone()) {
            Entry::Vacant(place) => {
                place.insert(made);
                None
            }
            Entry::Occupied(_) => Some(made),
        };
        if let Some(spare) = spare {
            // Somebody else was quicker.
            self.delete_durable(shared, &spare, work);
            return Err(in_use(key));
        }
        // A receipt for the subscription promises that it survives: its definition is logged once more, to be synced.
        let mut group = shared.store.begin();
        group.set(TABLE_QUEUES, &queue.id.0.to_le_bytes(), &encode_queue(&self.name, &queue));
        let kept = promise(group.finish(Level::Fsync), Level::Fsync);
        Ok(Declared { queue, new: true, promise: Some(kept) })
    }

    /// Deletes a durable subscription that is in no map any more, with all that waits for it.
    pub(crate) fn delete_durable(&self, shared: &Shared, durable: &Durable, work: &mut Work) -> Promise {
        self.topics.write().remove(durable.handle);
        if let Role::Durable { pattern, .. } = &durable.queue.role {
            self.touch(pattern);
        }
        self.delete_queue(shared, &durable.queue, work);
        // A receipt promises that it stays deleted.
        let mut group = shared.store.begin();
        group.remove(TABLE_QUEUES, &durable.queue.id.0.to_le_bytes());
        promise(group.finish(Level::Fsync), Level::Fsync)
    }

    /// Deletes a durable subscription that nobody consumes now.
    pub(crate) fn forget_durable(
        &self,
        shared: &Shared,
        key: &DurableKey,
        work: &mut Work,
    ) -> Result<Promise, Refusal> {
        let durable = {
            let mut durables = self.durables.lock();
            if durables.get(key).is_some_and(|known| known.active.is_some()) {
                return Err(in_use(key));
            }
            durables.remove(key)
        };
        match durable {
            Some(durable) => Ok(self.delete_durable(shared, &durable, work)),
            None => {
                let sentence = format!("\"{}\" has no durable subscription \"{}\"", key.0, key.1);
                Err(Refusal::new(Code::UnknownSubscription, sentence))
            }
        }
    }
}

/// Whether a durable subscription was made, and when it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurableMade {
    /// It was made, or made anew.
    pub new: bool,
    /// Kept once it is on disk; `None` if it was there before.
    pub promise: Option<Promise>,
}

impl Broker {
    /// Makes a durable subscription before anybody consumes it, or changes what it is to; then its backlog begins anew.
    /// The caller has checked permissions.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] for what is no lasting topic, [`Code::InvalidClientId`] for an empty client id or name,
    /// [`Code::InvalidSelector`]; [`Code::SubscriptionInUse`] if it would be changed under its consumer;
    /// [`Code::UnknownDestination`] for a virtual host that does not exist; [`Code::LimitReached`].
    pub fn declare_durable(
        &self,
        virtual_host: &str,
        (client_id, name): (&str, &str),
        pattern: &Pattern,
        selector: Option<&str>,
    ) -> Result<DurableMade, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        if pattern.kind() != Kind::Topic || pattern.is_temporary() {
            return Err(Refusal::new(
                Code::InvalidDestination,
                "a durable subscription is to one lasting topic, or to a pattern of topics",
            ));
        }
        if client_id.is_empty() || name.is_empty() {
            return Err(Refusal::new(
                Code::InvalidClientId,
                "a durable subscription has a client id and a name",
            ));
        }
        let selector = match selector.map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => Some(Arc::new(Selector::parse_with(text, Options { convert_strings: true })?)),
            None => None,
        };
        let key = (client_id.into(), name.into());
        let wanted = Wanted { pattern, selector: selector.as_ref(), no_local: None };
        let mut work = Work::new(self.shared.now());
        let declared = host.declare_durable(&self.shared, &key, &wanted, None, &mut work);
        while finish(&self.shared, &mut work) {}
        let Declared { new, promise, .. } = declared?;
        Ok(DurableMade { new, promise })
    }

    /// Deletes a durable subscription and what waits for it. The caller has checked permissions.
    ///
    /// # Errors
    /// [`Code::UnknownSubscription`]; [`Code::SubscriptionInUse`] while somebody consumes it; [`Code::UnknownDestination`] for
    /// a virtual host that does not exist.
    pub fn forget_durable(
        &self,
        virtual_host: &str,
        client_id: &str,
        name: &str,
    ) -> Result<Promise, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let mut work = Work::new(self.shared.now());
        let forgotten = host.forget_durable(&self.shared, &(client_id.into(), name.into()), &mut work);
        while finish(&self.shared, &mut work) {}
        forgotten
    }
}
