//! The messages that were in the log at the start: most queues leave them there until their turn comes.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sabir_model::clock::Timestamp;
use sabir_model::ids::{QueueId, Sequence};
use sabir_model::message::Message;
use sabir_store::{Payload, PutMeta};

use crate::broker::Shared;
use crate::paged::Paged;
use crate::pager::decode;
use crate::queue::Queue;
use crate::ready::{Entry, Key};
use crate::recovery::Recovered;
use crate::window::FromLog;

/// Numbers read from the log at a time.
const READ_AT_A_TIME: u64 = 1 << 20;

impl Recovered {
    /// What is alive of a queue.
    pub(crate) fn take_live(&mut self, id: QueueId) -> Paged {
        self.live.remove(&id).unwrap_or_default()
    }

    /// Reads messages of a queue from the log, a part of them at a time, for their numbers may be many.
    fn scan(
        &mut self,
        shared: &Shared,
        id: QueueId,
        live: &Paged,
        mut each: impl FnMut(Sequence, PutMeta, &[u8], Payload<'_>) -> bool,
    ) {
        let mut from = Key::FIRST;
        loop {
            let numbers = live.ranges_from(from, READ_AT_A_TIME);
            let Some((_, last)) = numbers.last().copied() else { return };
            let unreadable = &mut self.unreadable;
            let mut tell = |sequence: Sequence, meta: PutMeta, head: &[u8], body: Payload<'_>| {
                *unreadable += u64::from(!each(sequence, meta, head, body));
                ControlFlow::Continue(())
            };
            if let Err(error) = shared.store.read(id, &mut numbers.iter().copied(), &mut tell) {
                tracing::error!(queue = id.0, %error, "messages could not be restored");
                self.unreadable += 1;
            }
            from = Key { rank: 0, sequence: last }.next();
        }
    }

    /// Reads messages of a queue from the log.
    pub(crate) fn each_message(
        &mut self,
        shared: &Shared,
        id: QueueId,
        live: &Paged,
        mut each: impl FnMut(Sequence, Message),
    ) {
        self.scan(shared, id, live, |sequence, _, head, body| {
            let message = decode(head, body);
            let is_readable = message.is_some();
            message.into_iter().for_each(|message| each(sequence, message));
            is_readable
        });
    }

    /// Handovers that had begun are gone on with, so these messages come into memory.
    fn bring_in_begun(&mut self, shared: &Shared, queue: &Arc<Queue>, live: &mut Paged, from_log: &FromLog) {
        let begun = self.progress.keys().filter(|(of, _)| *of == queue.id).map(|(_, sequence)| *sequence);
        let mut there = Paged::default();
        for sequence in begun {
            if live.take(Key { rank: 0, sequence }) {
                there.add_run(0, (sequence, sequence), 0);
            }
        }
        self.bring_in(shared, queue, &there, from_log);
    }

    /// The messages stay where they are until their turn comes; only a prioritized queue must know their priorities.
    pub(crate) fn leave_in_log(
        &mut self,
        shared: &Shared,
        queue: &Arc<Queue>,
        mut live: Paged,
        from_log: FromLog,
    ) {
        if live.is_empty() {
            return;
        }
        self.bring_in_begun(shared, queue, &mut live, &from_log);
        let mut held = queue.lock();
        let core = &mut held.core;
        if core.ready.is_prioritized() {
            self.scan(shared, queue.id, &live, |sequence, meta, head, body| {
                let key = core.ready.key(sequence, meta.priority);
                let bytes = (head.len() as u64).saturating_add(body.len());
                core.ready.paged.add(key, bytes, Timestamp(meta.expires_ms));
                true
            });
        } else {
            live.expires = self.expires.get(&queue.id).copied().unwrap_or(u64::MAX);
            core.ready.paged = live;
        }
        queue.next_expiry.fetch_min(core.ready.paged.expires, Ordering::AcqRel);
        core.from_log = Some(Box::new(from_log));
        shared.pager.is_cold(queue);
    }

    /// The messages come into memory.
    pub(crate) fn bring_in(&mut self, shared: &Shared, queue: &Arc<Queue>, live: &Paged, from_log: &FromLog) {
        let mut progress = std::mem::take(&mut self.progress);
        let mut held = queue.lock();
        self.each_message(shared, queue.id, live, |sequence, message| {
            let attempts = from_log.attempts.get(&sequence).copied().unwrap_or(0);
            let progress = progress.remove(&(queue.id, sequence));
            let entry = Entry {
                attempts,
                redelivered: attempts > 0 || from_log.redelivered,
                progress: progress.unwrap_or(0),
                progress_logged: progress.is_some(),
                ..Entry::new(message, true)
            };
            held.core.recover(queue, sequence, entry, &shared.budget.messages);
        });
        drop(held);
        self.progress = progress;
    }
}
