//! Subscriptions of one connection: what they are attached to, how they begin and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sabir_model::access::{Action, Resource};
use sabir_model::command::{Promise, Subscribe};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{Sequence, SubscriptionKey};
use sabir_model::pattern::Pattern;
use sabir_model::selector::{Options, Selector};
use sabir_model::settlement::SettleMode;
use sabir_store::Level;

use crate::connection::Connection;
use crate::credit::{Consumer, Credit};
use crate::durable::{Declared, Wanted};
use crate::pattern_trie::Handle;
use crate::queue::{Queue, Role, check_owner};
use crate::recovery::{bind, durable_policy};
use crate::registry::{DurableKey, Interest, Live, Wildcard, add_interest, trie_levels};
use crate::work::log_settled;

/// One thing a subscription is attached to.
enum Part {
    /// A consumer of a queue.
    Queue(Arc<Queue>, u32),
    /// A consumer of all queues that match.
    Wildcard(Arc<Wildcard>, Handle),
    /// A live topic subscription.
    Live { handle: Handle, temporary: bool },
    /// A live topic subscription with acknowledgements: a private queue and its binding.
    Window { queue: Arc<Queue>, slot: u32, handle: Handle, temporary: bool },
    /// A durable topic subscription.
    Durable { queue: Arc<Queue>, slot: u32, key: Box<DurableKey> },
    /// A look at a queue.
    Browser(Arc<Queue>),
}

/// A subscription of one connection.
pub(crate) struct Subscription {
    key: SubscriptionKey,
    parts: Vec<Part>,
    /// Shared by all that count what is out.
    credit: Option<Arc<Credit>>,
    /// Whether its client says when a delivery is done.
    settles: bool,
}

impl Subscription {
    /// The queues it consumes from, and its place there.
    pub(crate) fn consumers(&self) -> Vec<(Arc<Queue>, u32)> {
        let mut consumers = Vec::new();
        for part in &self.parts {
            match part {
                Part::Queue(queue, slot)
                | Part::Window { queue, slot, .. }
                | Part::Durable { queue, slot, .. } => consumers.push((Arc::clone(queue), *slot)),
                Part::Wildcard(wildcard, _) => {
                    consumers.extend(wildcard.joined.lock().queues.iter().cloned())
                }
                Part::Live { .. } | Part::Browser(_) => {}
            }
        }
        consumers
    }
}

/// The subscriptions of one connection, by ascending key: keys are given in that order, so a new one comes last. Most
/// connections have none or one.
#[derive(Default)]
pub(crate) enum Subscriptions {
    #[default]
    None,
    One(Box<Subscription>),
    #[expect(clippy::box_collection, reason = "every mailbox would be larger, for the few that have several")]
    Many(Box<Vec<Subscription>>),
}

impl Subscriptions {
    fn as_slice(&self) -> &[Subscription] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(all) => all,
        }
    }

    fn position(&self, key: SubscriptionKey) -> Result<usize, usize> {
        let all = self.as_slice();
        match all.last() {
            Some(last) if last.key < key => Err(all.len()),
            _ => all.binary_search_by_key(&key, |subscription| subscription.key),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(crate) fn get(&self, key: SubscriptionKey) -> Option<&Subscription> {
        self.as_slice().get(self.position(key).ok()?)
    }

    /// Adds one whose key is not in use.
    fn insert(&mut self, subscription: Subscription) {
        let (Ok(at) | Err(at)) = self.position(subscription.key);
        *self = match std::mem::take(self) {
            Self::None => Self::One(Box::new(subscription)),
            Self::One(one) => {
                let mut all = vec![*one];
                all.insert(at, subscription);
                Self::Many(Box::new(all))
            }
            Self::Many(mut all) => {
                all.insert(at, subscription);
                Self::Many(all)
            }
        };
    }

    fn remove(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        let at = self.position(key).ok()?;
        match std::mem::take(self) {
            Self::None => None,
            Self::One(one) => Some(*one),
            Self::Many(mut all) => {
                let removed = all.remove(at);
                if !all.is_empty() {
                    *self = Self::Many(all);
                }
                Some(removed)
            }
        }
    }

    /// Whether deliveries of any of them are unsettled.
    pub(crate) fn owe_settlements(&self) -> bool {
        let owes = |credit: &Arc<Credit>| credit.used() > 0;
        self.values().any(|one| one.settles && one.credit.as_ref().is_some_and(owes))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Subscription> {
        self.as_slice().iter()
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = Subscription> {
        let (one, many) = match self {
            Self::None => (None, Vec::new()),
            Self::One(one) => (Some(*one), Vec::new()),
            Self::Many(all) => (None, *all),
        };
        one.into_iter().chain(many)
    }
}

/// One thing that a subscription is attached to, for whoever asks.
pub(crate) enum Attached {
    /// It consumes from a queue.
    Queue(Arc<Queue>, u32),
    /// It consumes from every queue that matches.
    Wildcard(Pattern, Arc<Wildcard>),
    /// It is live on a topic.
    Live { handle: Handle, temporary: bool },
    /// It is live on a topic and acknowledges.
    Window { queue: Arc<Queue>, slot: u32, handle: Handle, temporary: bool },
    /// It looks at a queue.
    Browser(Arc<Queue>),
}

impl Subscription {
    /// What it is attached to.
    pub(crate) fn attached(&self) -> Vec<Attached> {
        let describe = |part: &Part| match part {
            Part::Queue(queue, slot) | Part::Durable { queue, slot, .. } => {
                Attached::Queue(Arc::clone(queue), *slot)
            }
            Part::Wildcard(wildcard, _) => Attached::Wildcard(wildcard.pattern.clone(), Arc::clone(wildcard)),
            Part::Live { handle, temporary } => Attached::Live { handle: *handle, temporary: *temporary },
            Part::Window { queue, slot, handle, temporary } => Attached::Window {
                queue: Arc::clone(queue),
                slot: *slot,
                handle: *handle,
                temporary: *temporary,
            },
            Part::Browser(queue) => Attached::Browser(Arc::clone(queue)),
        };
        self.parts.iter().map(describe).collect()
    }
}

/// What all parts of one subscription share.
struct Terms<'a> {
    request: &'a Subscribe<'a>,
    selector: Option<Arc<Selector>>,
    credit: Option<Arc<Credit>>,
}

impl Connection {
    pub(crate) fn subscribe(&mut self, request: &Subscribe<'_>) -> Result<Option<Promise>, Refusal> {
        if self.mailbox.subscriptions.lock().get(request.key).is_some() {
            return Err(Refusal::new(Code::DuplicateSubscription, "the subscription's id is in use"));
        }
        self.release();
        let action = if request.browse { Action::Browse } else { Action::Consume };
        for pattern in request.patterns {
            let resource = match pattern.as_literal() {
                Some(destination) => Resource::Destination(destination.as_ref()),
                None => Resource::Pattern(pattern),
            };
            self.shared.check(&self.principal, action, resource)?;
        }
        let selector = match request.selector.map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => {
                let options = Options { convert_strings: request.selector_converts_text };
                Some(Arc::new(Selector::parse_with(text, options)?))
            }
            None => None,
        };
        // A live message published from now on must not overtake the replies of this very batch.
        self.gated = true;
        self.outbox.gate();
        let mut terms = Terms { request, selector, credit: None };
        let mut subscription = Subscription {
            key: request.key,
            parts: Vec::with_capacity(request.patterns.len()),
            credit: None,
            settles: request.settle != SettleMode::Auto,
        };
        let mut newest = None;
        for pattern in request.patterns {
            match self.attach(pattern, &mut terms, &mut subscription) {
                Ok(promise) => newest = promise.or(newest),
                Err(refusal) => {
                    let written = self.outbox.written();
                    self.end_subscription(subscription, written, false);
                    return Err(refusal);
                }
            }
        }
        subscription.credit = terms.credit;
        self.mailbox.subscriptions.lock().insert(subscription);
        self.subscribed += 1;
        self.aside.make().to_grant.push(request.key);
        Ok(newest)
    }

    /// Changes how much of a subscription may be unsettled at a time, and hands over what that lets through.
    pub(crate) fn change_credit(&mut self, key: SubscriptionKey, limit: u32) -> Result<(), Refusal> {
        self.release();
        let found =
            self.mailbox.subscriptions.lock().get(key).map(|known| (known.credit.clone(), known.consumers()));
        let Some((credit, consumers)) = found else {
            return Err(Refusal::new(Code::UnknownSubscription, "no such subscription on this connection"));
        };
        let Some(credit) = credit else {
            let sentence = "a live topic and a look at a queue have no credit: nothing waits for them";
            return Err(Refusal::new(Code::Unsupported, sentence));
        };
        credit.resize(limit);
        for (queue, _) in consumers {
            queue.lock().core.dispatch(&queue, self.work.get());
        }
        Ok(())
    }

    fn attach(
        &mut self,
        pattern: &Pattern,
        terms: &mut Terms<'_>,
        subscription: &mut Subscription,
    ) -> Result<Option<Promise>, Refusal> {
        match (pattern.kind(), terms.request.durable) {
            (Kind::Queue, Some(_)) => Err(Refusal::new(
                Code::InvalidDestination,
                "a durable subscription is to a topic; a queue keeps its messages anyway",
            )),
            (Kind::Queue, None) => {
                self.attach_queue(pattern, terms, subscription)?;
                Ok(None)
            }
            (Kind::Topic, _) if terms.request.browse => {
                Err(Refusal::new(Code::InvalidDestination, "only a queue can be browsed"))
            }
            (Kind::Topic, Some(name)) => self.attach_durable(pattern, name, terms, subscription),
            (Kind::Topic, None) => {
                self.attach_topic(pattern, terms, subscription)?;
                Ok(None)
            }
        }
    }

    fn credit(&self, terms: &mut Terms<'_>, policy: Option<u32>, default: u32) -> Arc<Credit> {
        let limit = terms.request.credit.or(policy).unwrap_or(default).max(1);
        let shared = match terms.request.patterns {
            [one] => one.kind() == Kind::Queue && one.as_literal().is_none(),
            _ => true,
        };
        Arc::clone(terms.credit.get_or_insert_with(|| Arc::new(Credit::new(limit, shared))))
    }

    fn consumer(&self, terms: &Terms<'_>, credit: Arc<Credit>, selector: Option<Arc<Selector>>) -> Consumer {
        let Subscribe { key, settle, priority, .. } = *terms.request;
        Consumer::new(Arc::clone(&self.outbox), key, credit, settle, selector, priority)
    }

    fn attach_queue(
        &mut self,
        pattern: &Pattern,
        terms: &mut Terms<'_>,
        subscription: &mut Subscription,
    ) -> Result<(), Refusal> {
        let prefetch = self.shared.limits.prefetch.queue;
        let Some(destination) = pattern.as_literal() else {
            if terms.request.browse {
                return Err(Refusal::new(
                    Code::InvalidDestination,
                    "only one queue at a time can be browsed",
                ));
            }
            let credit = self.credit(terms, None, prefetch);
            let wildcard = Arc::new(Wildcard {
                outbox: Arc::clone(&self.outbox),
                subscription: terms.request.key,
                pattern: pattern.clone(),
                credit,
                settle: terms.request.settle,
                selector: terms.selector.clone(),
                priority: terms.request.priority,
                joined: Mutex::default(),
                granted: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            });
            let levels = trie_levels(pattern);
            let handle = self.host.wildcards.write().insert(&levels, Arc::clone(&wildcard));
            for queue in self.host.matching_queues(pattern) {
                if matches!(queue.role, Role::Plain) {
                    wildcard.join(&queue, self.work.get());
                }
            }
            // The group's queues come into being as topics are used, in the name of who declared it.
            if self.shared.authorizer.allows(&self.principal, Action::Create, Resource::Pattern(pattern)) {
                self.host.declare_group(&self.shared, pattern);
            }
            subscription.parts.push(Part::Wildcard(wildcard, handle));
            return Ok(());
        };
        let mut held = loop {
            let queue = self.queue_to_consume(destination, terms.request)?;
            check_owner(&queue, self.id, &self.principal)?;
            let held = queue.lock();
            // It may have been deleted since it was found; the name then stands for another queue.
            if !queue.deleted.load(Ordering::Acquire) {
                break held;
            }
        };
        let queue = Arc::clone(&held.queue);
        if terms.request.browse {
            held.core.browse(&self.outbox, terms.request.key, terms.selector.clone());
            subscription.parts.push(Part::Browser(queue));
            return Ok(());
        }
        let credit = self.credit(terms, queue.policy.prefetch, prefetch);
        let slot = held.core.attach(self.consumer(terms, credit, terms.selector.clone()));
        subscription.parts.push(Part::Queue(queue, slot));
        Ok(())
    }

    fn queue_to_consume(
        &self,
        destination: &Destination,
        request: &Subscribe<'_>,
    ) -> Result<Arc<Queue>, Refusal> {
        if let Some(queue) = self.host.find_queue(destination) {
            return Ok(queue);
        }
        if destination.is_temporary() || request.must_exist {
            return Err(Refusal::new(Code::UnknownDestination, format!("{destination} does not exist")));
        }
        self.shared.check(&self.principal, Action::Create, Resource::Destination(destination.as_ref()))?;
        self.host.queue(&self.shared, destination, Role::Plain)
    }

    fn check_temporary_topic(&self, pattern: &Pattern) -> Result<(), Refusal> {
        let Some(destination) = pattern.as_literal().filter(|topic| topic.is_temporary()) else {
            return Ok(());
        };
        match self.host.temporary_topics.read().get(destination) {
            Some(owner) if *owner == self.id => Ok(()),
            Some(_) => Err(Refusal::new(
                Code::AccessDenied,
                "only the connection that made a temporary destination may consume from it",
            )),
            None => Err(Refusal::new(Code::UnknownDestination, format!("{destination} does not exist"))),
        }
    }

    fn attach_topic(
        &mut self,
        pattern: &Pattern,
        terms: &mut Terms<'_>,
        subscription: &mut Subscription,
    ) -> Result<(), Refusal> {
        self.check_temporary_topic(pattern)?;
        let no_local = terms.request.no_local.then_some(self.id);
        if terms.request.settle == SettleMode::Auto {
            let live = Live {
                outbox: Arc::clone(&self.outbox),
                subscription: terms.request.key,
                selector: terms.selector.clone(),
                no_local,
            };
            let handle = add_interest(&mut self.host.topics.write(), pattern, Interest::Live(Arc::new(live)));
            self.host.touch(pattern);
            subscription.parts.push(Part::Live { handle, temporary: pattern.is_temporary() });
            return Ok(());
        }
        // With acknowledgements there is a window of unsettled messages: a private queue that is never logged.
        let policy = durable_policy(&self.shared, pattern);
        let name = format!("window:{}:{}:{}", self.id.0, terms.request.key.0, subscription.parts.len());
        let destination = Destination::from_canonical(Kind::Queue, true, &name)?;
        let queue = self.host.make_queue(&self.shared, destination, Role::Window, Some(policy))?;
        let credit = self.credit(terms, queue.policy.prefetch, self.shared.limits.prefetch.topic);
        let consumer = self.consumer(terms, credit, None);
        let slot = queue.lock().core.attach(consumer);
        let handle = bind(&self.host, pattern, &queue, terms.selector.clone(), no_local);
        subscription.parts.push(Part::Window { queue, slot, handle, temporary: pattern.is_temporary() });
        Ok(())
    }

    fn attach_durable(
        &mut self,
        pattern: &Pattern,
        name: &str,
        terms: &mut Terms<'_>,
        subscription: &mut Subscription,
    ) -> Result<Option<Promise>, Refusal> {
        let Some(client_id) = self.client_id.clone() else {
            return Err(Refusal::new(
                Code::UnknownSubscription,
                "a durable subscription needs a client id: give one when you connect",
            ));
        };
        if pattern.is_temporary() || terms.request.patterns.len() > 1 {
            return Err(Refusal::new(
                Code::InvalidDestination,
                "a durable subscription is to one lasting topic",
            ));
        }
        let key: DurableKey = ((*client_id).into(), name.into());
        let wanted = Wanted {
            pattern,
            selector: terms.selector.as_ref(),
            no_local: terms.request.no_local.then_some(self.id),
        };
        let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
        let declared = host.declare_durable(&shared, &key, &wanted, Some(self.id), self.work.get())?;
        let Declared { queue, promise, .. } = declared;
        let credit = self.credit(terms, queue.policy.prefetch, self.shared.limits.prefetch.durable);
        let consumer = self.consumer(terms, credit, None);
        let slot = {
            let mut held = queue.lock();
            if queue.deleted.load(Ordering::Acquire) {
                let sentence = format!("the durable subscription \"{name}\" has just been deleted");
                return Err(Refusal::new(Code::UnknownSubscription, sentence));
            }
            held.core.attach(consumer)
        };
        subscription.parts.push(Part::Durable { queue, slot, key: Box::new(key) });
        Ok(promise)
    }

    /// Lets the subscriptions of this batch have deliveries: the greeting is in the outbox.
    pub(crate) fn grant(&mut self) {
        let to_grant = self.aside.get_mut().map(|aside| std::mem::take(&mut aside.to_grant));
        for key in to_grant.unwrap_or_default() {
            // Taken out meanwhile, so that nothing is locked under the list's lock.
            let Some(subscription) = self.mailbox.subscriptions.lock().remove(key) else { continue };
            for part in &subscription.parts {
                match part {
                    Part::Queue(queue, slot)
                    | Part::Window { queue, slot, .. }
                    | Part::Durable { queue, slot, .. } => {
                        let mut held = queue.lock();
                        held.core.grant(*slot);
                        held.core.dispatch(queue, self.work.get());
                    }
                    Part::Wildcard(wildcard, _) => {
                        let joined = wildcard.joined.lock();
                        wildcard.granted.store(true, Ordering::Release);
                        for (queue, slot) in &joined.queues {
                            queue.lock().core.grant(*slot);
                            self.work.get().resume.push(Arc::clone(queue));
                        }
                    }
                    Part::Browser(queue) => {
                        let mut held = queue.lock();
                        held.core.grant_browser(self.id, key);
                        held.core.dispatch(queue, self.work.get());
                    }
                    Part::Live { .. } => {}
                }
            }
            self.mailbox.subscriptions.lock().insert(subscription);
        }
    }

    /// Takes a subscription out of the list.
    pub(crate) fn forget_subscription(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        let subscription = self.mailbox.subscriptions.lock().remove(key)?;
        self.subscribed -= 1;
        Some(subscription)
    }

    fn leave(&mut self, queue: &Arc<Queue>, slot: u32, written: u64) {
        let mut settled: Vec<Sequence> = Vec::new();
        let mut attempts: Vec<(Sequence, u32)> = Vec::new();
        let mut held = queue.lock();
        let closing = self.closed;
        if held.core.detach(queue, slot, written, closing, self.work.get(), &mut settled, &mut attempts) {
            let left = &mut self.aside.make().left;
            left.retain(|known| known.id != queue.id && !known.deleted.load(Ordering::Acquire));
            left.push(Arc::clone(queue));
        }
        log_settled(&self.shared, queue.id, &mut settled, &attempts, Level::Os);
        held.core.dispatch(queue, self.work.get());
    }

    /// Detaches all parts; unsettled deliveries go back.
    pub(crate) fn end_subscription(
        &mut self,
        subscription: Subscription,
        written: u64,
        forget_durable: bool,
    ) -> Option<Promise> {
        let mut newest = None;
        for part in subscription.parts {
            match part {
                Part::Queue(queue, slot) => self.leave(&queue, slot, written),
                Part::Wildcard(wildcard, handle) => {
                    self.host.wildcards.write().remove(handle);
                    wildcard.closed.store(true, Ordering::Release);
                    let joined = std::mem::take(&mut *wildcard.joined.lock());
                    for (queue, slot) in joined.queues {
                        self.leave(&queue, slot, written);
                    }
                }
                Part::Live { handle, .. } => {
                    self.host.end_interest(handle);
                    self.outbox.forget_waiting(subscription.key);
                }
                Part::Window { queue, handle, .. } => {
                    self.host.end_interest(handle);
                    // Its consumer goes with it and need not be told.
                    queue.deleted.store(true, Ordering::Release);
                    self.shared.by_id.write().remove(&queue.id);
                    queue.lock().core.clear(queue.id, self.work.get());
                }
                Part::Durable { queue, slot, key } => {
                    self.leave(&queue, slot, written);
                    let mut durables = self.host.durables.lock();
                    if let Some(known) = durables.get_mut(&*key).filter(|known| known.queue.id == queue.id) {
                        known.active = None;
                    }
                    if forget_durable && let Some(durable) = durables.remove(&*key) {
                        drop(durables);
                        let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
                        newest = Some(host.delete_durable(&shared, &durable, self.work.get()));
                    }
                }
                Part::Browser(queue) => queue.lock().core.detach_browser(self.id, subscription.key),
            }
        }
        newest
    }

    /// Deletes an inactive durable subscription.
    pub(crate) fn forget_durable(
        &mut self,
        name: &str,
        client_id: Option<&str>,
    ) -> Result<Option<Promise>, Refusal> {
        let Some(client_id) = client_id.or(self.client_id.as_deref()).map(Into::into) else {
            return Err(Refusal::new(
                Code::UnknownSubscription,
                "deleting a durable subscription needs a client id",
            ));
        };
        let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
        host.forget_durable(&shared, &(client_id, name.into()), self.work.get()).map(Some)
    }
}
