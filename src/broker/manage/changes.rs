//! Changes that an operator makes: to queues and to what topics keep. Every change that must survive comes with a promise.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sabir_model::command::Promise;
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::Sequence;
use sabir_store::Level;

use crate::broker::{Broker, Shared};
use crate::manage::queues::unknown;
use crate::manage::topics::keeps_nothing;
use crate::marks::Marks;
use crate::queue::{Queue, QueueCore, Role};
use crate::ready::Key;
use crate::recovery::{MARK_CLEAN, TABLE_COUNTERS, TABLE_QUEUES, encode_queue};
use crate::registry::VirtualHost;
use crate::work::{Work, finish, promise};

/// Messages that a purge removes under one hold of the queue's lock.
const PURGED_AT_A_TIME: usize = 1000;
/// Of those that are in the log only.
const PAGED_PURGED_AT_A_TIME: u64 = 1 << 20;

/// When a queue is to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Only if it holds no message.
    pub if_empty: bool,
    /// Only if nobody consumes it or looks at it.
    pub if_unused: bool,
}

impl Deletion {
    /// Whether a queue may be deleted, whose lock is held.
    fn check(self, queue: &Queue, name: &str, core: &QueueCore) -> Result<(), Refusal> {
        if queue.deleted.load(Ordering::Acquire) {
            return Err(unknown(name));
        }
        let users = core.ring.len() + core.browsers.len();
        let sentence = if self.if_empty && core.depth() > 0 {
            format!("{name} is not empty: it holds {} messages", core.depth())
        } else if self.if_unused && users > 0 {
            format!("{name} is in use, by {users} consumers")
        } else {
            return Ok(());
        };
        Err(Refusal::new(Code::Conflict, sentence))
    }
}

/// Whether a queue was made, and when that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueMade {
    /// There was none before.
    pub new: bool,
    /// Kept once it is on disk.
    pub promise: Promise,
}

/// Kept once all that was logged so far is on disk.
pub(crate) fn all_so_far(shared: &Shared) -> Promise {
    let mut group = shared.store.begin();
    // The mark is not there anyway; it gives the log a place to name.
    group.remove(TABLE_COUNTERS, MARK_CLEAN);
    promise(group.finish(Level::Fsync), Level::Fsync)
}

/// Writes what a queue is marked with, while its lock is held, so that the log tells the same order.
fn log_marks(shared: &Shared, host: &VirtualHost, queue: &Queue, core: &QueueCore) -> Option<Promise> {
    if !queue.is_defined() {
        return None;
    }
    let mut group = shared.store.begin();
    // Its definition may not be on disk yet: it is in the same group.
    group.set(TABLE_QUEUES, &queue.id.0.to_le_bytes(), &encode_queue(&host.name, queue));
    Marks::of(core).log(&mut group, queue.id);
    Some(promise(group.finish(Level::Fsync), Level::Fsync))
}

impl Broker {
    /// Makes a queue, if it is not there, and keeps it although nobody uses it.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] for what is no name; [`Code::UnknownDestination`] for a virtual host that does not
    /// exist; [`Code::LimitReached`].
    pub fn declare_queue(&self, virtual_host: &str, name: &str) -> Result<QueueMade, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let destination = Destination::from_dotted(Kind::Queue, false, name)?;
        let new = host.find_queue(&destination).is_none();
        loop {
            let queue = host.queue(&self.shared, &destination, Role::Plain)?;
            let mut held = queue.lock();
            // Unused queues go by themselves: then the name stands for another one.
            if queue.deleted.load(Ordering::Acquire) {
                continue;
            }
            held.core.declared = true;
            let logged = log_marks(&self.shared, &host, &queue, &held.core);
            drop(held);
            let promise = logged.unwrap_or_else(|| all_so_far(&self.shared));
            return Ok(QueueMade { new, promise });
        }
    }

    /// Deletes a queue with all it holds; its consumers are told. A durable subscription goes with its queue.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`]; [`Code::Conflict`] if it is not as `deletion` says, or belongs to a client session.
    pub fn remove_queue(
        &self,
        virtual_host: &str,
        name: &str,
        deletion: Deletion,
    ) -> Result<Promise, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let queue = self.find_managed(&host, name)?;
        if matches!(queue.role, Role::Backlog { .. } | Role::Group { .. } | Role::Window) {
            let sentence =
                format!("{name} belongs to client sessions and goes when they do; it can be purged");
            return Err(Refusal::new(Code::Conflict, sentence));
        }
        let mut work = Work::new(self.shared.now());
        if let Role::Durable { client_id, name: subscription, .. } = &queue.role {
            let key = (client_id.clone(), subscription.clone());
            let durable = {
                let mut durables = host.durables.lock();
                deletion.check(&queue, name, &queue.lock().core)?;
                let is_this = durables.get(&key).is_some_and(|known| known.queue.id == queue.id);
                if is_this { durables.remove(&key) } else { None }
            };
            let Some(durable) = durable else { return Err(unknown(name)) };
            // The binding goes before the queue, so that no route leads to a queue that is deleted.
            host.delete_durable(&self.shared, &durable, &mut work);
        } else {
            {
                let held = queue.lock();
                deletion.check(&queue, name, &held.core)?;
                // Decided under the lock: nobody can send to it or consume from it any more.
                queue.deleted.store(true, Ordering::Release);
            }
            host.delete_queue(&self.shared, &queue, &mut work);
        }
        while finish(&self.shared, &mut work) {}
        Ok(all_so_far(&self.shared))
    }

    /// Removes the messages that a queue holds ready now; what consumers hold stays theirs. Tells how many these were.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`].
    pub fn purge_queue(&self, virtual_host: &str, name: &str) -> Result<(u64, Promise), Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let queue = self.find_managed(&host, name)?;
        // What is sent meanwhile stays: else a purge might never end.
        let end = Sequence(queue.lock().core.next);
        let mut work = Work::new(self.shared.now());
        let mut removed = 0;
        loop {
            let before = removed;
            let mut from = Some(Key::FIRST);
            while let Some(place) = from {
                let (count, next) = purge_some(&queue, place, end, &mut work);
                removed += count;
                from = next;
                while finish(&self.shared, &mut work) {}
            }
            // What came in from the log meanwhile may have come behind our back.
            if removed == before {
                break;
            }
        }
        Ok((removed, all_so_far(&self.shared)))
    }

    /// Has a queue hand nothing out, or go on; sends are taken all the while. It stays so over a restart, if the queue does.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`].
    pub fn pause_queue(&self, virtual_host: &str, name: &str, paused: bool) -> Result<Promise, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let queue = self.find_managed(&host, name)?;
        let mut work = Work::new(self.shared.now());
        let logged = {
            let mut held = queue.lock();
            if queue.deleted.load(Ordering::Acquire) {
                return Err(unknown(name));
            }
            held.core.paused = paused;
            let logged = log_marks(&self.shared, &host, &queue, &held.core);
            held.core.dispatch(&queue, &mut work);
            logged
        };
        while finish(&self.shared, &mut work) {}
        Ok(logged.unwrap_or_else(|| all_so_far(&self.shared)))
    }

    /// Has a topic forget its last value.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] if it keeps none; [`Code::InvalidDestination`] for what is no name.
    pub fn clear_retained(&self, virtual_host: &str, name: &str) -> Result<Promise, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let topic = Destination::from_dotted(Kind::Topic, false, name)?;
        let mut work = Work::new(self.shared.now());
        {
            // The journal's buffer first, so that the log tells the same order.
            let mut group = self.shared.store.begin();
            let mut retained = host.retained.lock();
            if !retained.contains(topic.canonical()) {
                return Err(keeps_nothing(&topic));
            }
            let changed = retained.remove(topic.canonical());
            drop(retained);
            work.memory += changed.memory;
            if let Some(old) = changed.old {
                // It has a number, so the queue is there.
                group.acknowledge(host.retained_queue(&self.shared), old, 1);
                group.finish(Level::Os);
            }
        }
        while finish(&self.shared, &mut work) {}
        Ok(all_so_far(&self.shared))
    }
}

/// Removes some messages below `end`, from `place` on. Tells how many, and where to go on if there may be more.
fn purge_some(queue: &Arc<Queue>, place: Key, end: Sequence, work: &mut Work) -> (u64, Option<Key>) {
    let mut core = queue.lock().core;
    let backlog = matches!(queue.role, Role::Backlog { .. });
    let mut removed = 0;
    let mut from = place;
    for rank in core.ready.paged.ranks() {
        for (first, last) in core.ready.paged.take_below(rank, end, PAGED_PURGED_AT_A_TIME) {
            let count = last.0 - first.0 + 1;
            work.gone.push((queue.id, first, count));
            work.discarded += count;
            removed += count;
        }
        if removed > 0 {
            core.note_spilled(queue.id, work);
            return (removed, Some(place));
        }
    }
    for _ in 0..PURGED_AT_A_TIME {
        let Some((key, entry)) = core.ready.peek_from(from) else {
            core.note_spilled(queue.id, work);
            return (removed, None);
        };
        if key.sequence >= end {
            // What came since is behind all that is older, of each rank.
            let Some(rank) = key.rank.checked_add(1) else { return (removed, None) };
            from = Key { rank, ..Key::FIRST };
            continue;
        }
        from = key.next();
        // A handover that has begun is brought to its end.
        if backlog && (entry.attempts > 0 || entry.progress != 0) {
            continue;
        }
        if let Some(entry) = core.take(key) {
            core.drop_entry(queue, key.sequence, &entry, work);
            work.discarded += 1;
            removed += 1;
        }
    }
    (removed, Some(from))
}
