//! The messages that were in the log at the start: most queues leave them there until their turn comes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sabir_model::clock::Timestamp;
use sabir_model::ids::{QueueId, Sequence};
use sabir_model::message::Message;

use crate::broker::Shared;
use crate::paged::Range;
use crate::pager::decode;
use crate::queue::Queue;
use crate::ready::Entry;
use crate::recovery::Recovered;
use crate::window::FromLog;

/// Live messages of a queue, and the bytes they take in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) numbers: Range,
    pub(crate) bytes: u64,
}

impl Run {
    /// How many messages that is.
    pub(crate) fn len(&self) -> u64 {
        self.numbers.1.0 - self.numbers.0.0 + 1
    }
}

impl Recovered {
    /// What is alive of a queue, in ascending order.
    pub(crate) fn take_live(&mut self, id: QueueId) -> Vec<Run> {
        let mut live = self.live.remove(&id).unwrap_or_default();
        live.sort_unstable_by_key(|run| run.numbers.0);
        live
    }

    /// Reads messages of a queue from the log.
    pub(crate) fn each_message(
        &mut self,
        shared: &Shared,
        id: QueueId,
        numbers: &[Range],
        mut each: impl FnMut(Sequence, Message),
    ) {
        let unreadable = &mut self.unreadable;
        let read = shared.store.read(id, &mut numbers.iter().copied(), &mut |sequence, _, head, body| {
            match decode(head, body) {
                Some(message) => each(sequence, message),
                None => *unreadable += 1,
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            tracing::error!(queue = id.0, %error, "messages could not be restored");
            self.unreadable += 1;
        }
    }

    /// Handovers that had begun are gone on with, so these messages come into memory.
    fn bring_in_begun(
        &mut self,
        shared: &Shared,
        queue: &Arc<Queue>,
        live: &mut Vec<Run>,
        from_log: &FromLog,
    ) {
        let begun: BTreeSet<Sequence> =
            self.progress.keys().filter(|(of, _)| *of == queue.id).map(|(_, sequence)| *sequence).collect();
        let mut there = Vec::new();
        for sequence in begun {
            let Some(at) = live.iter().position(|run| run.numbers.0 <= sequence && run.numbers.1 >= sequence)
            else {
                continue;
            };
            let run = live.remove(at);
            let share = run.bytes / run.len();
            let before = (run.numbers.0, Sequence(sequence.0.saturating_sub(1)));
            let after = (Sequence(sequence.0 + 1), run.numbers.1);
            for numbers in [after, before].into_iter().filter(|(first, last)| first <= last) {
                let mut rest = Run { numbers, bytes: 0 };
                rest.bytes = share * rest.len();
                live.insert(at, rest);
            }
            there.push(Run { numbers: (sequence, sequence), bytes: share });
        }
        self.bring_in(shared, queue, &there, from_log);
    }

    /// The messages stay where they are until their turn comes; only a prioritized queue must know their priorities.
    pub(crate) fn leave_in_log(
        &mut self,
        shared: &Shared,
        queue: &Arc<Queue>,
        mut live: Vec<Run>,
        from_log: FromLog,
    ) {
        if live.is_empty() {
            return;
        }
        self.bring_in_begun(shared, queue, &mut live, &from_log);
        let mut held = queue.lock();
        let core = &mut held.core;
        if core.ready.is_prioritized() {
            let numbers: Vec<Range> = live.iter().map(|run| run.numbers).collect();
            let read = shared.store.read(
                queue.id,
                &mut numbers.iter().copied(),
                &mut |sequence, meta, head, body| {
                    let key = core.ready.key(sequence, meta.priority);
                    let bytes = (head.len() + body.len()) as u64;
                    core.ready.paged.add(key, bytes, Timestamp(meta.expires_ms));
                    ControlFlow::Continue(())
                },
            );
            if let Err(error) = read {
                tracing::error!(queue = %queue.title(), %error, "messages could not be restored");
                self.unreadable += 1;
            }
        } else {
            if let Some(expires) = self.expires.get(&queue.id) {
                core.ready.paged.expires = core.ready.paged.expires.min(*expires);
            }
            for run in &live {
                core.ready.paged.add_run(0, run.numbers, run.bytes);
            }
        }
        queue.next_expiry.fetch_min(core.ready.paged.expires, Ordering::AcqRel);
        core.from_log = Some(Box::new(from_log));
        shared.pager.is_cold(queue);
    }

    /// The messages come into memory.
    pub(crate) fn bring_in(&mut self, shared: &Shared, queue: &Arc<Queue>, live: &[Run], from_log: &FromLog) {
        let numbers: Vec<Range> = live.iter().map(|run| run.numbers).collect();
        let mut progress = std::mem::take(&mut self.progress);
        let mut held = queue.lock();
        self.each_message(shared, queue.id, &numbers, |sequence, message| {
            let attempts = from_log.attempts.get(&sequence).copied().unwrap_or(0);
            let progress = progress.remove(&(queue.id, sequence));
            let entry = Entry {
                attempts,
                redelivered: attempts > 0 || from_log.redelivered,
                progress: progress.unwrap_or(0),
                progress_logged: progress.is_some(),
                ..Entry::new(message, true)
            };
            held.core.recover(queue, sequence, entry, &shared.memory);
        });
        drop(held);
        self.progress = progress;
    }
}
