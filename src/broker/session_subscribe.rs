//! Subscriptions of a client session: added, replaced, ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sabir_model::command::Promise;
use sabir_model::delivery::Guarantee;
use sabir_model::destination::Kind;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::ConnectionId;
use sabir_model::pattern::Pattern;
use sabir_store::Level;

use crate::bindings::{Place, SessionBinding, Terms};
use crate::broker::Shared;
use crate::client_session::{ClientSession, leave_group, let_go};
use crate::queue::Role;
use crate::registry::{Interest, VirtualHost, add_interest};
use crate::session_log as log;
use crate::work::{Work, promise};

/// A new subscription, as the client asked for it.
pub(crate) struct Wanted<'a> {
    pub(crate) pattern: &'a Pattern,
    pub(crate) group: Option<&'a str>,
    pub(crate) terms: Terms,
}

/// What became of a subscription.
pub(crate) struct Bound {
    /// Whether there was none before.
    pub(crate) new: bool,
    /// The session consumes another queue, and is to be granted that.
    pub(crate) consumes: bool,
    /// When it is on disk, if it is to be.
    pub(crate) promise: Option<Promise>,
}

impl ClientSession {
    /// Adds or replaces a subscription, for the connection in charge or (`None`) as the log knew it.
    pub(crate) fn bind(
        self: &Arc<Self>,
        shared: &Shared,
        host: &VirtualHost,
        by: Option<ConnectionId>,
        wanted: &Wanted<'_>,
    ) -> Result<Bound, Refusal> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.check_in_charge(by)?;
        let known = state
            .bindings
            .get(wanted.pattern, wanted.group)
            .map(|(known, place)| (Arc::clone(known), *place));
        let order = match (&known, wanted.terms.order) {
            (Some((known, _)), _) => known.terms.order,
            (None, 0) => state.next_order(),
            // As the log has it.
            (None, order) => order,
        };
        let binding = Arc::new(SessionBinding {
            session: Arc::clone(self),
            pattern: wanted.pattern.clone(),
            group: wanted.group.map(Into::into),
            terms: Terms { order, ..wanted.terms },
        });
        state.consumers.retain(|(queue, _)| !queue.deleted.load(Ordering::Acquire));
        let consuming = state.consumers.len();
        let outbox = self.link.lock().outbox.clone();
        let grant = Arc::new(binding.terms.grant());
        let place = match (wanted.pattern.kind(), wanted.group) {
            (Kind::Topic, None) => {
                if binding.terms.guarantee > Guarantee::AtMostOnce {
                    self.need_backlog(shared, host, state)?;
                }
                let interest = Interest::Session(Arc::clone(&binding));
                let handle = {
                    let mut topics = host.topics.write();
                    // Nothing that is published meanwhile misses both or meets both.
                    if let Some((_, Place::Topic(old))) = &known {
                        topics.remove(*old);
                    }
                    add_interest(&mut topics, wanted.pattern, interest)
                };
                host.touch(wanted.pattern);
                Place::Topic(handle)
            }
            (Kind::Topic, Some(_)) => {
                let queue = host.shares.lock().join(shared, host, &binding, known.is_none())?;
                if let (Some(outbox), false) = (&outbox, state.grant_anew(&queue, &grant)) {
                    // It is there for as long as this member is in the group.
                    state.consume(&queue, outbox, Some(grant));
                }
                Place::Elsewhere
            }
            (Kind::Queue, _) => {
                let destination = wanted.pattern.as_literal().ok_or_else(|| {
                    Refusal::new(
                        Code::InvalidDestination,
                        "a client session consumes one queue by its name, not a pattern of queues",
                    )
                })?;
                let queue = host.queue(shared, destination, Role::Plain)?;
                if let (Some(outbox), false) = (&outbox, state.grant_anew(&queue, &grant)) {
                    state.consume_named(shared, host, destination, outbox, &grant)?;
                }
                Place::Elsewhere
            }
        };
        // While the state is held, so that the log tells the same order.
        let promise = (self.lasting && by.is_some()).then(|| {
            let mut group = shared.store.begin();
            log::set_binding(&mut group, host, &binding);
            promise(group.finish(Level::Fsync), Level::Fsync)
        });
        state.bindings.remove(wanted.pattern, wanted.group);
        state.bindings.insert(binding, place);
        self.bound.store(state.bindings.len(), Ordering::Release);
        Ok(Bound { new: known.is_none(), consumes: state.consumers.len() > consuming, promise })
    }

    /// Ends a subscription, for the connection in charge.
    pub(crate) fn unbind(
        &self,
        shared: &Shared,
        host: &VirtualHost,
        by: ConnectionId,
        (pattern, group): (&Pattern, Option<&str>),
        work: &mut Work,
    ) -> Result<Option<Promise>, Refusal> {
        let mut state = self.state();
        state.check_in_charge(Some(by))?;
        let Some((binding, place)) = state.bindings.remove(pattern, group) else {
            return Err(Refusal::new(
                Code::UnknownSubscription,
                "the client session has no such subscription",
            ));
        };
        self.bound.store(state.bindings.len(), Ordering::Release);
        let queue = match place {
            Place::Topic(handle) => {
                host.topics.write().remove(handle);
                host.touch(pattern);
                None
            }
            Place::Elsewhere if binding.is_groups(place) => host.shares.lock().queue_of(&binding),
            Place::Elsewhere => pattern.as_literal().and_then(|destination| host.find_queue(destination)),
        };
        if let Some(queue) = queue
            && let Some(at) = state.consumers.iter().position(|(other, _)| other.id == queue.id)
        {
            let (queue, slot) = state.consumers.swap_remove(at);
            let_go(shared, &queue, slot, None, work);
        }
        if binding.is_groups(place) {
            leave_group(shared, host, &binding, work);
        }
        Ok(self.lasting.then(|| {
            let mut log = shared.store.begin();
            log::remove_binding(&mut log, host, self, pattern, group);
            promise(log.finish(Level::Fsync), Level::Fsync)
        }))
    }
}
