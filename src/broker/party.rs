//! Connections whose client is not at the end of a socket of its own: the server sends and receives for it, one request at
//! a time. They are introduced by somebody who has proved already who they are, take deliveries only while they ask for
//! some, and wait for the log without a driver.

use std::sync::Arc;

use sabir_model::access::{Action, Attempt, Credentials, Principal, Remote, Resource};
use sabir_model::command::Promise;
use sabir_model::error::Refusal;
use sabir_model::ids::{DeliveryToken, MessageId, SubscriptionKey};
use sabir_model::pattern::Pattern;
use sabir_model::session::Settled;
use sabir_model::settlement::Settlement;
use sabir_store::Wake;

use crate::broker::Broker;
use crate::connection::Connection;
use crate::queue::Role;
use crate::subscribe::Subscription;
use crate::work::{finish, level_of};

impl Connection {
    /// Introduces a connection for a principal who is known already.
    ///
    /// A client id given here is for naming durable subscriptions only: it is not claimed, so other connections may have
    /// it too. A durable subscription still has one consumer at a time.
    ///
    /// # Errors
    /// `access-denied` if the principal may not connect, `unknown-destination` for a virtual host that does
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

    /// Whether messages of a subscription are being read from the log: what it has is not all there is yet.
    #[must_use]
    pub fn is_being_read_for(&self, key: SubscriptionKey) -> bool {
        let subscriptions = self.mailbox.subscriptions.lock();
        let consumers = subscriptions.get(key).map(Subscription::consumers).unwrap_or_default();
        drop(subscriptions);
        consumers.iter().any(|(queue, _)| queue.lock().core.fetching)
    }

    /// The egress takes deliveries of this subscription again, after it had answered
    /// [`sabir_model::delivery::Admission::NoCredit`].
    pub fn resume(&mut self, key: SubscriptionKey) {
        self.release();
        let consumers = self.mailbox.subscriptions.lock().get(key).map(Subscription::consumers);
        for (queue, slot) in consumers.unwrap_or_default() {
            let mut held = queue.lock();
            held.core.reopen(slot);
            held.core.dispatch(&queue, self.work.get());
        }
    }

    /// Does what a batch has left for another turn: nobody comes by here to go on with it.
    pub fn finish(&mut self) {
        while finish(&self.shared, self.work.get()) {}
        self.work.clear();
    }

    /// Settles deliveries by their tokens. Where somebody waits for it (`receipted`), the promise is kept once all of them are
    /// as durable as their queue's level says. Those that could not be settled are told by their place in the list.
    pub fn settle_tokens(
        &mut self,
        items: &[(DeliveryToken, Settlement)],
        receipted: bool,
    ) -> (Option<Promise>, Vec<usize>) {
        self.run_acks(false);
        self.release();
        self.work.set_now(self.shared.now());
        let settled: Vec<Settled> = items
            .iter()
            .enumerate()
            .map(|(ack, (token, settlement))| Settled { token: *token, settlement: *settlement, ack })
            .collect();
        let mut refused = Vec::new();
        let promise = self.settle_resolved(&settled, |_| None, receipted, &mut refused);
        (promise, refused)
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
    /// `authentication-failed`, `too-many-attempts`.
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

    /// Whether somebody may do something.
    ///
    /// # Errors
    /// `access-denied`.
    pub fn check(&self, who: &Principal, action: Action, resource: Resource<'_>) -> Result<(), Refusal> {
        self.shared.check(who, action, resource)
    }
}
