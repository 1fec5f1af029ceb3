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

use crate::bindings::{Bindings, SessionBinding, Subscriber, Terms};
use crate::broker::Shared;
use crate::client_session::{ClientSession, State, leave_group, let_go};
use crate::queue::Role;
use crate::registry::{Interest, VirtualHost, add_interest, spot_of};
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

/// How many there are, for whoever looks without the state.
fn count(bindings: &Bindings) -> u32 {
    u32::try_from(bindings.len()).unwrap_or(u32::MAX)
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
        if let (Kind::Topic, None) = (wanted.pattern.kind(), wanted.group) {
            return self.bind_topic(shared, host, by, state, wanted);
        }
        let known = state.bindings.other(wanted.pattern, wanted.group).map(|known| known.terms.order);
        let terms = Terms { order: known.unwrap_or_else(|| state.order(wanted.terms)), ..wanted.terms };
        let binding = Arc::new(SessionBinding {
            session: Arc::clone(self),
            pattern: wanted.pattern.clone(),
            group: wanted.group.map(Into::into),
            terms,
        });
        state.consumers.forget_deleted();
        let consuming = state.consumers.as_slice().len();
        let outbox = self.link.lock().outbox.clone();
        let grant = Arc::new(terms.grant());
        match wanted.pattern.kind() {
            Kind::Topic => {
                let queue = host.shares.lock().join(shared, host, &binding, known.is_none())?;
                if let (Some(outbox), false) = (&outbox, state.grant_anew(&queue, &grant)) {
                    // It is there for as long as this member is in the group.
                    state.consume(&queue, outbox, Some(grant));
                }
            }
            Kind::Queue => {
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
            }
        }
        let promise = self.log_binding(shared, host, by, wanted, terms);
        state.bindings.set_other(binding);
        self.bound.store(count(&state.bindings), Ordering::Release);
        Ok(Bound { new: known.is_none(), consumes: state.consumers.as_slice().len() > consuming, promise })
    }

    /// Adds or replaces a subscription to topics.
    fn bind_topic(
        self: &Arc<Self>,
        shared: &Shared,
        host: &VirtualHost,
        by: Option<ConnectionId>,
        state: &mut State,
        wanted: &Wanted<'_>,
    ) -> Result<Bound, Refusal> {
        if wanted.pattern.is_temporary() {
            let sentence = "a client session does not subscribe to topics that end with a connection";
            return Err(Refusal::new(Code::InvalidDestination, sentence));
        }
        let consuming = state.consumers.as_slice().len();
        if wanted.terms.guarantee > Guarantee::AtMostOnce {
            self.need_backlog(shared, host, state)?;
        }
        let (new, terms) = {
            let mut topics = host.topics.write();
            let seat = spot_of(&topics, wanted.pattern).and_then(|spot| state.bindings.seat(spot));
            // Replaced in its place: nothing that is published meanwhile misses both or meets both.
            match seat.and_then(|seat| topics.at_mut(seat)) {
                Some(Interest::Session(known)) => {
                    known.terms = Terms { order: known.terms.order, ..wanted.terms };
                    (false, known.terms)
                }
                _ => {
                    let terms = Terms { order: state.order(wanted.terms), ..wanted.terms };
                    let interest = Interest::Session(Subscriber { session: Arc::clone(self), terms });
                    let handle = add_interest(&mut topics, wanted.pattern, interest);
                    if let Some(seated) = topics.seat(handle) {
                        state.bindings.insert(seated);
                    }
                    (true, terms)
                }
            }
        };
        host.touch(wanted.pattern);
        let promise = self.log_binding(shared, host, by, wanted, terms);
        self.bound.store(count(&state.bindings), Ordering::Release);
        Ok(Bound { new, consumes: state.consumers.as_slice().len() > consuming, promise })
    }

    /// Writes a subscription, while the state is held, so that the log tells the same order.
    fn log_binding(
        &self,
        shared: &Shared,
        host: &VirtualHost,
        by: Option<ConnectionId>,
        wanted: &Wanted<'_>,
        terms: Terms,
    ) -> Option<Promise> {
        (self.lasting && by.is_some()).then(|| {
            let mut group = shared.store.begin();
            log::set_binding(&mut group, host, self, (wanted.pattern, wanted.group), terms);
            promise(group.finish(Level::Fsync), Level::Fsync)
        })
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
        let unknown = || {
            let sentence = "the client session has no such subscription";
            Refusal::new(Code::UnknownSubscription, sentence)
        };
        if let (Kind::Topic, None) = (pattern.kind(), group) {
            let removed = {
                let mut topics = host.topics.write();
                let spot = spot_of(&topics, pattern);
                let seat = spot.and_then(|spot| state.bindings.remove(spot)).ok_or_else(unknown)?;
                topics.remove_at(seat)
            };
            drop(removed);
            host.touch(pattern);
        } else {
            let binding = state.bindings.remove_other(pattern, group).ok_or_else(unknown)?;
            let queue = if binding.is_groups() {
                host.shares.lock().queue_of(&binding)
            } else {
                pattern.as_literal().and_then(|destination| host.find_queue(destination))
            };
            if let Some(queue) = queue
                && let Some((queue, slot)) = state.consumers.remove(&queue)
            {
                let_go(shared, &queue, slot, None, work);
            }
            if binding.is_groups() {
                leave_group(shared, host, &binding, work);
            }
        }
        self.bound.store(count(&state.bindings), Ordering::Release);
        Ok(self.lasting.then(|| {
            let mut log = shared.store.begin();
            log::remove_binding(&mut log, host, self, pattern, group);
            promise(log.finish(Level::Fsync), Level::Fsync)
        }))
    }
}
