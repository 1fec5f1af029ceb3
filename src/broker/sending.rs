//! A connection's sends: from targets to a route, kept for the next one, and on to the queues and subscribers.

use std::sync::Arc;

use sabir_model::clock::Timestamp;
use sabir_model::command::{Promise, Publish, TargetKey};
use sabir_model::delivery::Guarantee;
use sabir_model::destination::Targets;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::MessageId;
use sabir_store::Level;

use crate::bodies::{BodyWriter, Coming};
use crate::connection::Connection;
use crate::publish::{Failure, Incoming, enqueue_single, execute, fan_out, full, log_received, plan};
use crate::route::{Route, resolve};
use crate::stats::add;
use crate::tally::Tally;
use crate::transaction::unknown_transaction;
use crate::work::stronger;

/// Sends into one queue after which its lock is released and what has come is dispatched.
const HELD_SENDS_MAX: u32 = 64;
/// Targets of which one connection keeps what it knows.
const KNOWN_MAX: usize = 64;

/// What a connection keeps of targets that go by a key.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Of the key.
    generation: u32,
    route: Option<Box<Route>>,
    /// Where the sends are counted, with the generation of the key that it is for.
    pub(crate) tally: Option<(u32, Arc<Tally>)>,
}

/// Whether every queue of a route that is to get a message for certain has room for it, with a body of so many bytes;
/// and how durable that body must be.
fn check_large(route: &Route, publish: &Publish<'_>, length: u64) -> Result<Level, Refusal> {
    let persistent = publish.facts.persistent;
    let bytes = length.saturating_add(publish.fields.len() as u64);
    let mut level = Level::Memory;
    for leg in &route.legs {
        let certain = leg.conditions.is_empty() && leg.unless.is_empty();
        for target in &leg.queues {
            let queue = &target.queue;
            let asks = target.selector.is_none() && !target.selector_aware && !target.skip_when_full;
            if certain && asks {
                queue.lock().core.check_room(queue, 1, bytes)?;
            }
            if persistent && queue.logs() {
                level = stronger(level, queue.policy.durability);
            }
        }
        for session in &leg.sessions {
            if let Some(queue) = session.session.backlog()
                && persistent
                && queue.logs()
            {
                level = stronger(level, queue.policy.durability);
            }
        }
        if publish.facts.retain && leg.topic.is_some() && persistent {
            level = stronger(level, leg.policy.durability);
        }
    }
    Ok(level)
}

impl Connection {
    /// The route to some targets. It is the caller's until [`Connection::keep_route`].
    pub(crate) fn route(&mut self, key: TargetKey, targets: &Targets) -> Result<Box<Route>, Refusal> {
        let kept =
            self.known.get_mut(usize::from(key.slot)).filter(|known| known.generation == key.generation);
        if let Some(route) = kept.and_then(|known| known.route.take())
            && route.is_fresh(&self.shared, &self.host)
        {
            return Ok(route);
        }
        // Resolving may create queues and lock them.
        self.release();
        Ok(Box::new(resolve(&self.shared, &self.host, Some(&self.principal), targets)?))
    }

    /// Keeps a route for the next send to the same targets.
    pub(crate) fn keep_route(&mut self, key: TargetKey, route: Box<Route>) {
        if let Some(known) = self.known_at(key) {
            known.route = Some(route);
        }
    }

    /// What is known of the targets of a key; `None` for slots that are too high.
    pub(crate) fn known_at(&mut self, key: TargetKey) -> Option<&mut Known> {
        let slot = usize::from(key.slot);
        if slot >= KNOWN_MAX {
            return None;
        }
        if slot >= self.known.len() {
            self.known.resize_with(slot + 1, Known::default);
        }
        let known = self.known.get_mut(slot)?;
        if known.generation != key.generation {
            // The place has been given to other targets. What was counted for those is retired by who counts.
            known.generation = key.generation;
            known.route = None;
        }
        Some(known)
    }

    pub(crate) fn send(
        &mut self,
        publish: &Publish<'_>,
        once: Option<&[u8]>,
    ) -> Result<Option<Promise>, Refusal> {
        if publish.facts.persistent {
            self.check_unsynced(publish.body.octets().map_or(0, <[u8]>::len))?;
        }
        let mut facts = publish.facts;
        facts.id = self.next_id();
        if facts.timestamp == Timestamp::default() {
            facts.timestamp = self.work.get().now.wall;
        }
        let host = facts.retain.then(|| {
            // A held queue comes after what is taken now.
            self.release();
            Arc::clone(&self.host)
        });
        let _keeping = host.as_ref().map(|host| host.keep_value());
        for _ in 0..4 {
            let route = self.route(publish.key, publish.targets)?;
            let stamp = std::mem::take(&mut self.stamp);
            let incoming = Incoming {
                facts,
                stamp: &stamp,
                fields: publish.fields,
                body: publish.body.clone(),
                connection: self.id,
                once,
                keeps_in_log: true,
            };
            let result = self.carry_out(&route, &incoming);
            self.stamp = stamp;
            // A route that is stale is resolved again.
            if !matches!(result, Err(Failure::Stale)) {
                self.keep_route(publish.key, route);
            }
            match result {
                Ok(promise) => return Ok(promise),
                Err(Failure::Refused(refusal)) => return Err(refusal),
                Err(Failure::Stale) => {}
            }
        }
        Err(Refusal::new(Code::Internal, "the destination is being deleted and created at the same time"))
    }

    /// Begins to take a large body in.
    pub(crate) fn begin_coming(&mut self, publish: &Publish<'_>, length: Option<u64>) -> Result<(), Refusal> {
        if let Some(aside) = self.aside.get_mut() {
            aside.coming = None;
        }
        let writer = self.body_writer(publish, length)?;
        let coming = Coming::new(self.mailbox(), Arc::clone(&self.shared.budget), writer);
        self.aside.make().coming = Some(coming);
        Ok(())
    }

    /// Makes a place for the body of a message that is still to come, for whoever can wait for a disk; the message is then
    /// published with [`sabir_model::message::Body::Stored`]. `publish` is the message without it. Everything that could be
    /// refused is asked before, so far as it can be told.
    ///
    /// # Errors
    /// Those of a send.
    pub fn body_writer(&mut self, publish: &Publish<'_>, length: Option<u64>) -> Result<BodyWriter, Refusal> {
        self.release();
        let route = self.route(publish.key, publish.targets)?;
        let checked = check_large(&route, publish, length.unwrap_or(0));
        self.keep_route(publish.key, route);
        if let Some(key) = publish.transaction
            && !self.aside.get().is_some_and(|aside| aside.transactions.contains_key(&key))
        {
            return Err(unknown_transaction());
        }
        let level = checked?;
        let writer = self.shared.store.blob(length.unwrap_or(0)).map_err(full)?;
        Ok(BodyWriter::new(writer, level))
    }

    fn carry_out(&mut self, route: &Route, incoming: &Incoming<'_>) -> Result<Option<Promise>, Failure> {
        let guarantee = incoming.facts.guarantee();
        let leg = route.legs.first();
        let single = match (&route.single, leg) {
            (Some(queue), Some(leg)) if !(incoming.facts.retain && leg.topic.is_some()) => {
                Some((queue, leg, None))
            }
            (None, Some(leg)) if route.one_session && !incoming.facts.retain => match leg.sessions.first() {
                Some(one) if guarantee.min(one.grant.guarantee) > Guarantee::AtMostOnce => {
                    one.session.backlog().map(|queue| (queue, leg, Some(&one.grant)))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((queue, leg, grant)) = single {
            let work = self.work.get();
            let mut held = match work.held.take() {
                Some((held, sends)) if held.queue.id == queue.id && sends < HELD_SENDS_MAX => (held, sends),
                other => {
                    work.held = other;
                    self.release();
                    (queue.lock(), 0)
                }
            };
            let work = self.work.get();
            let result = enqueue_single(&self.shared, &mut held.0, leg, grant, incoming, work);
            held.1 += 1;
            work.held = Some(held);
            return result;
        }
        self.release();
        if let [leg] = route.legs.as_slice()
            && leg.queues.is_empty()
            && leg.conditions.is_empty()
            && leg.unless.is_empty()
            && guarantee.min(leg.granted) == Guarantee::AtMostOnce
            && !incoming.facts.retain
        {
            fan_out(&self.shared, leg, incoming, self.work.get());
            return Ok(incoming.once.map(|key| log_received(&self.shared, key)));
        }
        let mut planned = Vec::with_capacity(route.legs.len());
        plan(route, incoming, self.work.get(), &mut planned);
        if planned.is_empty() {
            add(&self.shared.counters.unrouted, 1);
            return Ok(incoming.once.map(|key| log_received(&self.shared, key)));
        }
        execute(&self.shared, &self.host, &planned, &[], &incoming.context(), self.work.get())
    }

    pub(crate) fn next_id(&mut self) -> MessageId {
        let number = self.next_message;
        self.next_message += 1;
        self.id_at(number)
    }

    /// The id of this connection's message of this number.
    pub(crate) fn id_at(&self, number: u64) -> MessageId {
        MessageId { origin: u64::from(self.shared.boot) << 32 | (self.id.0 & 0xffff_ffff), number }
    }
}
