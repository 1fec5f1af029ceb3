//! Connections whose client is not at the end of a socket of its own: the server sends and receives for it, one request at
//! a time. They are introduced by somebody who has proved already who they are, take deliveries only while they ask for
//! some, and wait for the log without a driver.

use std::sync::Arc;

use sabir_model::access::{Action, Attempt, Credentials, Principal, Remote, Resource};
use sabir_model::command::Promise;
use sabir_model::destination::Destination;
use sabir_model::error::Refusal;
use sabir_model::ids::{DeliveryToken, MessageId, SubscriptionKey};
use sabir_model::pattern::Pattern;
use sabir_store::{Level, Wake};

use crate::broker::Broker;
use crate::connection::{Connection, level_of};
use crate::publish::stronger;
use crate::queue::Role;
use crate::subscribe::Subscription;
use crate::work::settle;

impl Connection {
    /// Introduces a connection for a principal who is known already.
    ///
    /// A client id given here is for naming durable subscriptions only: it is not claimed, so other connections may have
    /// it too. A durable subscription still has one consumer at a time.
    ///
    /// # Errors
    /// [`Code::AccessDenied`] if the principal may not connect, [`Code::UnknownDestination`] for a virtual host that does
    /// not exist.
    pub fn introduce(
        &mut self,
        principal: Principal,
        virtual_host: &str,
        client_id: Option<&str>,
    ) -> Result<(), Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        self.admit(principal)?;
        self.host = host;
        self.client_id = client_id.filter(|id| !id.is_empty()).map(Into::into);
        self.tell_owner();
        Ok(())
    }

    /// The id of the message that was published last; zero if none was.
    #[must_use]
    pub fn last_id(&self) -> MessageId {
        self.id_at(self.next_message - 1)
    }

    /// The egress takes deliveries of this subscription again, after it had answered
    /// [`sabir_model::delivery::Admission::NoCredit`].
    pub fn resume(&mut self, key: SubscriptionKey) {
        self.release();
        let consumers = self.mailbox.subscriptions.lock().get(&key).map(Subscription::consumers);
        for (queue, slot) in consumers.unwrap_or_default() {
            let mut held = queue.lock();
            held.core.reopen(slot);
            held.core.dispatch(&queue, self.work.get());
        }
    }

    /// Settles deliveries of one connection at once; refused ones are told by their place in the list. The promise is
    /// kept once all of them are as durable as their queue's level says.
    pub fn settle_all(
        &mut self,
        items: &[(DeliveryToken, sabir_model::settlement::Settlement)],
        refused: &mut Vec<usize>,
    ) -> Option<Promise> {
        self.run_acks(false);
        self.release();
        self.work.set_now(self.shared.now());
        let mut newest = None;
        let mut level = Level::Os;
        for (at, item) in items.iter().enumerate() {
            let queue = (item.0.boot == self.shared.boot).then(|| self.shared.queue(item.0.queue)).flatten();
            let Some(queue) = queue else {
                refused.push(at);
                continue;
            };
            level = stronger(level, queue.policy.durability);
            let one = std::iter::once(*item);
            newest = settle(&self.shared, &queue, self.id, one, level, self.work.get(), |_| refused.push(at))
                .or(newest);
        }
        newest
    }
}

impl Broker {
    /// Whether what the promise says has come true.
    #[must_use]
    pub fn is_kept(&self, promise: Promise) -> bool {
        self.shared.store.watermark().covers(promise.position, level_of(promise))
    }

    /// Wakes once when what the promise says has come true.
    pub fn wake_when_kept(&self, promise: Promise, wake: Arc<dyn Wake>) {
        self.shared.store.wake_at(promise.position, level_of(promise), wake);
    }

    /// Proves who somebody is, by name and password or as anonymous. Slow on purpose: not for a thread that serves
    /// sockets.
    ///
    /// # Errors
    /// [`Code::AuthenticationFailed`], [`Code::TooManyAttempts`].
    pub fn authenticate(&self, credentials: Credentials<'_>, remote: Remote) -> Result<Principal, Refusal> {
        self.shared.authenticator.authenticate(&Attempt { credentials, remote })
    }

    /// What a durable subscription is to, and its selector.
    #[must_use]
    pub fn durable(
        &self,
        virtual_host: &str,
        client_id: &str,
        name: &str,
    ) -> Option<(Pattern, Option<String>)> {
        let host = self.shared.hosts().iter().find(|host| &*host.name == virtual_host)?;
        let durables = host.durables.lock();
        match &durables.get(&(client_id.into(), name.into()))?.queue.role {
            Role::Durable { pattern, selector, .. } => {
                Some((pattern.clone(), selector.as_ref().map(|selector| selector.source().to_owned())))
            }
            _ => None,
        }
    }

    /// The durability of a queue, or of what would be made under this name.
    #[must_use]
    pub fn durability(&self, destination: &Destination) -> Level {
        self.shared.policies.lookup(destination).durability
    }

    /// Whether somebody may do something.
    ///
    /// # Errors
    /// [`Code::AccessDenied`].
    pub fn check(&self, who: &Principal, action: Action, resource: Resource<'_>) -> Result<(), Refusal> {
        self.shared.check(who, action, resource)
    }
}
