//! Dispatch: which ready message goes to which consumer. Runs under the queue's lock, by whoever made work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sabir_model::delivery::Delivery;
use sabir_model::ids::DeliveryToken;
use sabir_model::settlement::SettleMode;
use smallvec::SmallVec;

use crate::credit::{Consumer, Waits};
use crate::inflight::InFlight;
use crate::outbox::Handed;
use crate::pager::{Job, Sweep};
use crate::policy::Expired;
use crate::queue::{Queue, QueueCore, Role};
use crate::ready::{Key, Next};
use crate::selection::MessageView;
use crate::work::Work;

/// Messages dispatched under one hold of a queue's lock; the rest follows after others had their turn.
const DISPATCH_MAX: usize = 256;
/// Messages held against selectors under one hold of the lock.
const SCAN_MAX: usize = 16_384;

impl QueueCore {
    /// Hands out as much as consumers may have.
    pub(crate) fn dispatch(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        self.last_used = work.now.instant;
        self.pump_browsers(queue, work);
        if self.paused {
            self.pass_credit_on(work);
        } else {
            if self.selecting > 0 {
                self.dispatch_selecting(queue, work);
            } else {
                self.dispatch_in_turn(queue, work);
            }
            if self.sharing > 0 {
                self.share_credit(queue, work);
            }
            self.read_ahead(queue, work);
        }
        self.page_out_overflow(queue, work);
    }

    /// A paused queue takes none of the credit that other queues share: the next in line has its turn.
    fn pass_credit_on(&self, work: &mut Work) {
        if self.sharing == 0 {
            return;
        }
        for consumer in self.consumers().filter(|consumer| consumer.credit.shared) {
            if !consumer.credit.is_spent()
                && let Some(next) = consumer.credit.next()
            {
                work.resume.push(next);
            }
        }
    }

    /// After settlements: where credit went to another queue, this one goes on after it.
    pub(crate) fn dispatch_after_settling(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        if std::mem::take(&mut work.yielded) {
            work.resume.push(Arc::clone(queue));
        } else {
            self.dispatch(queue, work);
        }
    }

    /// Takes its place in the line for credit that other queues share, and passes on what it leaves of it.
    pub(crate) fn share_credit(&self, queue: &Arc<Queue>, work: &mut Work) {
        for consumer in self.consumers() {
            if !consumer.credit.shared || !consumer.granted || consumer.waits != Waits::No {
                continue;
            }
            let from = match &consumer.selector {
                None => Key::FIRST,
                Some(_) => consumer.scanned.next(),
            };
            // A page that comes in is dispatched by whoever brings it, and what waits for the log by whom that wakes: in
            // line it would be given the credit that is left, again and again.
            let is_there = match self.ready.next_from(from) {
                Some(Next::Here(..)) => !work.undurable.iter().any(|(waiting, _)| waiting.id == queue.id),
                Some(Next::Paged(_)) => !self.fetching,
                None => false,
            };
            if is_there {
                consumer.credit.wait(queue);
            }
            // Looked at after standing in line: credit given back before that has not seen this queue.
            if !consumer.credit.is_spent()
                && let Some(next) = consumer.credit.next()
            {
                work.resume.push(next);
            }
        }
    }

    pub(crate) fn dispatch_in_turn(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        for _ in 0..DISPATCH_MAX {
            let key = match self.ready.next_from(Key::FIRST) {
                None => return,
                Some(Next::Here(_, entry)) if entry.is_in_log() && self.withholds(queue) => return,
                Some(Next::Here(key, _)) => key,
                Some(Next::Paged(key)) => return self.want_page_for_consumers(queue, key, work),
            };
            if self.drop_expired(queue, key, work) {
                continue;
            }
            let Some(slot) = self.next_consumer(None) else { return };
            if !self.undurable.is_empty() && self.must_wait(queue, key, work) {
                return;
            }
            self.hand_over(queue, key, slot, work);
        }
        self.continue_later(queue, work);
    }

    /// Whether the message at `key` waits for the log, which wakes whoever it is for.
    fn must_wait(&mut self, queue: &Arc<Queue>, key: Key, work: &mut Work) -> bool {
        while let Some((sequence, position)) = self.undurable.front().copied() {
            if work.durable.is_some_and(|durable| durable.covers(position, queue.policy.durability)) {
                self.undurable.pop_front();
                continue;
            }
            if sequence <= key.sequence {
                work.undurable.push((Arc::clone(queue), position));
                return true;
            }
            break;
        }
        if self.undurable.is_empty() && self.undurable.capacity() > 1024 {
            self.undurable = VecDeque::new();
        }
        false
    }

    pub(crate) fn continue_later(&self, queue: &Arc<Queue>, work: &mut Work) {
        if !self.ready.is_empty() && self.consumers().any(Consumer::is_available) {
            work.resume.push(Arc::clone(queue));
        }
    }

    /// With selectors: each consumer remembers up to where nothing matches it.
    pub(crate) fn dispatch_selecting(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        let mut handed = 0;
        let looked_at = self.consumers().filter(|c| c.is_available()).map(|c| c.scanned).min();
        // Behind it: what was looked at may be paged out by now, and would take turns with what is not.
        let Some(mut from) = looked_at.map(Key::next) else { return };
        let mut scanned = 0;
        let mut wanted: SmallVec<[bool; 32]> = SmallVec::new();
        while let Some(next) = self.ready.next_from(from) {
            let (key, entry) = match next {
                Next::Here(key, entry) => (key, entry),
                Next::Paged(key) => return self.want_page_for_consumers(queue, key, work),
            };
            from = key.next();
            let message = entry.message.clone();
            let redelivered = entry.redelivered;
            let attempt = entry.attempts + 1;
            if self.drop_expired(queue, key, work) {
                continue;
            }
            let view = MessageView::new(&message, queue.shows_own_name.then_some(&queue.destination))
                .attempt(attempt, redelivered);
            wanted.clear();
            for consumer in &mut self.consumers {
                wanted.push(match consumer {
                    Some(consumer) if consumer.is_available() => match &consumer.selector {
                        None => true,
                        // What lies before its mark did not match it; who might have it and does not want it moves
                        // its mark past it.
                        Some(_) if key <= consumer.scanned => false,
                        Some(selector) => {
                            let wants = selector.matches(&view);
                            if !wants {
                                consumer.scanned = key;
                            }
                            wants
                        }
                    },
                    _ => false,
                });
            }
            if let Some(slot) = self.next_consumer(Some(&wanted)) {
                if self.hand_over(queue, key, slot, work) {
                    handed += 1;
                } else {
                    // It is back in its place, and somebody else may want it.
                    from = key;
                }
            }
            if !self.consumers().any(Consumer::is_available) {
                return;
            }
            scanned += 1;
            if handed >= DISPATCH_MAX || scanned >= SCAN_MAX {
                work.resume.push(Arc::clone(queue));
                return;
            }
        }
    }

    /// The next consumer in turn, of the highest priority that has one available; of those `wanted` marks by slot.
    pub(crate) fn next_consumer(&mut self, wanted: Option<&[bool]>) -> Option<u32> {
        let wants = |slot: u32| wanted.is_none_or(|by| by.get(slot as usize).copied().unwrap_or(false));
        let count = self.ring.len();
        let mut band: Option<i8> = None;
        // Within the band of the first available consumer the turn goes round; bands are contiguous in the ring.
        for slot in &self.ring {
            let consumer = self.consumers.get(*slot as usize)?.as_ref()?;
            if consumer.is_available() && wants(*slot) {
                band = Some(consumer.priority);
                break;
            }
        }
        let band = band?;
        for step in 0..count {
            let at = (self.turn + step) % count;
            let slot = *self.ring.get(at)?;
            let consumer = self.consumers.get(slot as usize)?.as_ref()?;
            if consumer.priority == band && consumer.is_available() && wants(slot) {
                self.turn = (at + 1) % count;
                return Some(slot);
            }
        }
        None
    }

    /// Drops or buries the message at `key` if its time is over.
    pub(crate) fn drop_expired(&mut self, queue: &Arc<Queue>, key: Key, work: &mut Work) -> bool {
        let Some((_, entry)) = self.ready.peek_from(key) else { return false };
        if !entry.message.facts().expires.has_passed(work.now.wall) {
            return false;
        }
        if (entry.attempts > 0 || entry.progress != 0) && matches!(queue.role, Role::Backlog { .. }) {
            // A handover that has begun is brought to its end.
            return false;
        }
        let Some(entry) = self.take(key) else { return false };
        self.expired += 1;
        work.expired += 1;
        match queue.policy.expired {
            Expired::Drop => self.drop_entry(queue, key.sequence, &entry, work),
            Expired::DeadLetter => self.bury(queue, key.sequence, entry, "expired", work),
        }
        true
    }

    /// Removes everything that has expired, by the index.
    pub(crate) fn expire(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        while let Some((expires, sequence, rank)) = self.expiring.first().copied() {
            if !expires.has_passed(work.now.wall) {
                break;
            }
            if !self.drop_expired(queue, Key { rank, sequence }, work) {
                self.expiring.remove(&(expires, sequence, rank));
            }
        }
        if self.paged_expiry().has_passed(work.now.wall) && !std::mem::replace(&mut self.sweeping, true) {
            work.jobs.push(Job::Sweep(Sweep::new(queue)));
        }
        self.note_spilled(queue.id, work);
        let next = self.expiring.first().map_or(u64::MAX, |(expires, ..)| expires.0);
        let paged = if self.sweeping { u64::MAX } else { self.ready.paged.expires };
        queue.next_expiry.store(next.min(paged), Ordering::Release);
    }

    /// Takes the message at `key` out and encodes it for the consumer in `slot`. False if it is back in its place.
    pub(crate) fn hand_over(&mut self, queue: &Arc<Queue>, key: Key, slot: u32, work: &mut Work) -> bool {
        let Some(entry) = self.take(key) else { return true };
        let Some(consumer) = self.consumers.get(slot as usize).and_then(Option::as_ref) else {
            self.insert(queue, key.sequence, entry);
            return false;
        };
        if !consumer.credit.take() {
            self.insert(queue, key.sequence, entry);
            return false;
        }
        let outbox = Arc::clone(&consumer.outbox);
        let (subscription, settle) = (consumer.subscription, consumer.settle);
        let message = entry.message.clone();
        let (attempt, redelivered) = (entry.attempts + 1, entry.redelivered);
        let grant = entry.grant.clone().or_else(|| consumer.grant.clone());
        let progress = entry.progress;
        let backlog = matches!(queue.role, Role::Backlog { .. });
        let connection = outbox.connection();
        let settled = consumer.credit.settled();
        let held = InFlight {
            sequence: key.sequence,
            entry,
            connection,
            consumer: slot,
            ends_at: u64::MAX,
            done: false,
        };
        let (place, generation) = self.in_flight.insert(held);
        let token = DeliveryToken { boot: queue.boot, queue: queue.id, slot: place, generation };
        let delivery = Delivery {
            message: &message,
            subscription,
            queue: queue.shows_own_name.then_some(&queue.destination),
            token: Some(token),
            attempt,
            redelivered,
            browsed: false,
            grant: grant.as_deref(),
            sequence: backlog.then_some(key.sequence),
            progress,
        };
        let handed = outbox.deliver(work.now, &delivery, settle == SettleMode::Auto, queue);
        match handed {
            Handed::Sent { ends_at, noted, done } => {
                if let Some(held) = self.in_flight.get_mut(place, generation) {
                    held.ends_at = ends_at;
                    held.done = done;
                    if let Some((progress, kept)) = noted {
                        held.entry.progress = progress;
                        if kept && backlog && held.entry.logged {
                            held.entry.progress_logged = true;
                            work.progress_made.push((queue.id, key.sequence, progress));
                        }
                    }
                }
                self.delivered += 1;
                if let Some(consumer) = self.consumer_mut(slot) {
                    consumer.delivered += 1;
                }
                work.dispatched += 1;
                work.enlist(&outbox);
                true
            }
            Handed::NoRoom | Handed::NoCredit => {
                if let Some(held) = self.in_flight.remove(place, generation) {
                    self.insert(queue, held.sequence, held.entry);
                }
                if let Some(consumer) = self.consumer_mut(slot) {
                    if handed == Handed::NoRoom {
                        consumer.waits = Waits::ForRoom;
                    } else {
                        consumer.waits = Waits::ForWindow;
                        if !consumer.credit.wait_for_window(queue, settled) {
                            work.windows.push((connection, Arc::clone(queue)));
                        }
                    }
                    consumer.credit.give(work);
                }
                // Its flush is what makes room, so see that there is one.
                work.enlist(&outbox);
                false
            }
            Handed::Undeliverable(reason) => {
                if let Some(consumer) = self.consumer_mut(slot) {
                    consumer.credit.give(work);
                }
                if let Some(held) = self.in_flight.remove(place, generation) {
                    match queue.role {
                        // Its one receiver can never take it: as if it had been delivered.
                        Role::Backlog { .. } | Role::Group { .. } => {
                            work.discarded += 1;
                            self.drop_entry(queue, held.sequence, &held.entry, work);
                        }
                        Role::Plain | Role::Temporary(_) | Role::Durable { .. } | Role::Window => {
                            self.bury(queue, held.sequence, held.entry, reason, work);
                        }
                    }
                }
                true
            }
        }
    }
}
