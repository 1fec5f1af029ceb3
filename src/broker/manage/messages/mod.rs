//! The messages of one queue as management sees them: looked at a few at a time under its lock, whatever it holds. A place
//! in the list is a message's number, which stays where it is while others come and go.

mod carry;
mod errand;
mod resend;
mod search;

use std::sync::Arc;

use sabir_model::clock::Timestamp;
use sabir_model::command::Promise;
use sabir_model::destination::Destination;
use sabir_model::error::{Code, Refusal};
use sabir_model::headers::ValueRef;
use sabir_model::ids::{ConnectionId, DeliveryToken, Sequence};
use sabir_model::message::{Field, Message, Tag};
use sabir_model::selector::Selector;

pub use errand::{Chosen, Deed, Errand, Step, Tally};
pub use resend::{Edited, Resent};
pub use search::Text;

use crate::broker::{Broker, Shared};
use crate::inflight::{InFlight, NOBODY};
use crate::paged::ranges;
use crate::pager::{Failed, read};
use crate::queue::{Queue, QueueCore};
use crate::ready::{Entry, Key};
use crate::selection::MessageView;
use crate::work::{Work, finish, log_settled};

/// Who holds what management is about to move: no connection has this number.
pub(crate) const MANAGEMENT: ConnectionId = ConnectionId(u64::MAX);

/// Messages looked at under one hold of a queue's lock.
const LOOKED_AT_A_TIME: usize = 256;
/// Bytes read from the log at a time.
const LOOKED_AT_BYTES: usize = 4 << 20;
/// Messages looked at for one page.
const LOOKED_AT_MAX: usize = 100_000;
/// Bytes looked through for one page.
const SEARCHED_BYTES_MAX: usize = 64 << 20;

/// One message in a queue.
#[derive(Clone, Debug)]
pub struct MessageEntry {
    /// Its number in the queue.
    pub sequence: u64,
    /// The message.
    pub message: Message,
    /// The queue, where that is what consumers see as the destination.
    pub queue: Option<Destination>,
    /// A consumer has it and has not settled it.
    pub unsettled: bool,
    /// Attempts to deliver it that failed.
    pub attempts: u32,
    /// Whether some attempt may have reached a consumer.
    pub redelivered: bool,
}

/// What a dead letter tells of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death<'a> {
    /// Why it is one.
    pub cause: &'a str,
    /// Where it had been sent.
    pub original_destination: Option<&'a str>,
    /// When.
    pub time: Timestamp,
    /// Attempts that had failed.
    pub deliveries: u32,
}

impl MessageEntry {
    fn of(queue: &Queue, sequence: Sequence, entry: &Entry, unsettled: bool) -> Self {
        Self {
            sequence: sequence.0,
            message: entry.message.clone(),
            queue: queue.shows_own_name.then(|| queue.destination.clone()),
            unsettled,
            attempts: entry.attempts,
            redelivered: entry.redelivered,
        }
    }

    /// Of a dead letter: why it is one.
    #[must_use]
    pub fn death(&self) -> Option<Death<'_>> {
        let mut cause = None;
        let (mut time, mut deliveries) = (Timestamp::default(), 0);
        for field in self.message.fields() {
            match field {
                Field::Property("dlqDeliveryFailureCause", ValueRef::Str(text)) => {
                    cause = Some(text);
                }
                Field::Property("dlqTime", ValueRef::I64(at)) => {
                    time = Timestamp(at.cast_unsigned());
                }
                Field::Property("dlqAttempts", ValueRef::I32(count)) => {
                    deliveries = count.cast_unsigned();
                }
                _ => {}
            }
        }
        let original_destination = self.message.fields().find_text(Tag::OriginalDestination);
        cause.map(|cause| Death { cause, original_destination, time, deliveries })
    }

    pub(crate) fn is_wanted(&self, selector: Option<&Selector>) -> bool {
        let Some(selector) = selector else { return true };
        let view = MessageView::new(&self.message, self.queue.as_ref());
        selector.matches(&view.attempt(self.attempts + 1, self.redelivered))
    }
}

/// Which messages of a queue somebody wants to see.
#[derive(Clone, Debug)]
pub struct MessageListing {
    /// Those with a higher number.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
    /// Only those it matches.
    pub selector: Option<Selector>,
    /// Only those it is found in.
    pub text: Option<Text>,
}

/// Part of what a queue holds, in the order of arrival.
#[derive(Clone, Debug)]
pub struct MessagePage {
    /// Messages.
    pub items: Vec<MessageEntry>,
    /// After which number to go on, if that is of use. There may be more even if nothing has been found: one page looks at a
    /// hundred thousand messages and 64 MiB at most.
    pub next: Option<u64>,
    /// How many messages there are, if all are wanted.
    pub total: Option<u64>,
}

/// Part of what a queue holds, wherever it is.
pub(crate) struct Looked {
    pub(crate) entries: Vec<MessageEntry>,
    /// The number to go on after; nothing if that was all.
    pub(crate) next: Option<u64>,
    /// Some of it cannot be read now: this is not all there is.
    pub(crate) failed: bool,
}

/// Looks at messages with numbers above `after` and below `until`, in the order of arrival: at most so many, and fewer if
/// they are large. Reads those that are in the log only.
pub(crate) fn look(shared: &Shared, queue: &Arc<Queue>, after: u64, until: u64, most: usize) -> Looked {
    let (mut entries, mut paged) = {
        let core = queue.lock().core;
        let paged = core.ready.paged.arrived_after(Sequence(after), most);
        let paged = paged.into_iter().filter(|sequence| sequence.0 < until);
        let paged: Vec<_> = paged.map(|sequence| (sequence, core.attempts_of_paged(sequence))).collect();
        (core.look(queue, after, until, most), paged)
    };
    let mut numbers: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    numbers.extend(paged.iter().map(|(sequence, _)| sequence.0));
    let mut next = match numbers.len() >= most.max(1) {
        true => Some(*numbers.select_nth_unstable(most.max(1) - 1).1),
        false => None,
    };
    if let Some(last) = next {
        entries.retain(|entry| entry.sequence <= last);
        paged.retain(|(sequence, _)| sequence.0 <= last);
    }
    let mut failed = false;
    if let Some((last, _)) = paged.last().copied() {
        let read =
            read(shared, queue, &ranges(paged.iter().map(|(sequence, _)| sequence.0)), LOOKED_AT_BYTES);
        failed = read.failed == Some(Failed::NotNow);
        if read.upto < last {
            next = Some(read.upto.0);
            entries.retain(|entry| entry.sequence <= read.upto.0);
        }
        entries.extend(from_log(queue, read.found, &paged));
        entries.sort_unstable_by_key(|entry| entry.sequence);
    }
    Looked { entries, next, failed }
}

/// Looks up the messages of these numbers, ascending, that there are. `next` is the first that was not looked up, because
/// those before it are large.
pub(crate) fn look_up(shared: &Shared, queue: &Arc<Queue>, sequences: &[u64]) -> Looked {
    let (mut entries, paged) = {
        let core = queue.lock().core;
        let paged = sequences.iter().map(|sequence| Sequence(*sequence));
        let paged = paged.filter(|sequence| core.ready.paged.find(*sequence).is_some());
        let paged: Vec<_> = paged.map(|sequence| (sequence, core.attempts_of_paged(sequence))).collect();
        (core.look_up(queue, sequences), paged)
    };
    let mut next = None;
    let mut failed = false;
    if let Some((last, _)) = paged.last().copied() {
        let read =
            read(shared, queue, &ranges(paged.iter().map(|(sequence, _)| sequence.0)), LOOKED_AT_BYTES);
        failed = read.failed == Some(Failed::NotNow);
        if read.upto < last {
            next = sequences.iter().copied().find(|sequence| *sequence > read.upto.0);
            entries.retain(|entry| entry.sequence <= read.upto.0);
        }
        entries.extend(from_log(queue, read.found, &paged));
        entries.sort_unstable_by_key(|entry| entry.sequence);
    }
    Looked { entries, next, failed }
}

fn from_log<'a>(
    queue: &'a Queue,
    found: Vec<(Sequence, Message)>,
    known: &'a [(Sequence, (u32, bool))],
) -> impl Iterator<Item = MessageEntry> + 'a {
    found.into_iter().map(|(sequence, message)| {
        let at = known.binary_search_by_key(&sequence, |(known, _)| *known).ok();
        let (attempts, redelivered) = at.and_then(|at| known.get(at)).map_or((0, false), |(_, known)| *known);
        let entry = Entry { attempts, redelivered, ..Entry::new(message, true) };
        MessageEntry::of(queue, sequence, &entry, false)
    })
}

/// A message taken out of the line, so that no consumer gets it while it is moved.
pub(crate) struct Reserved {
    pub(crate) token: DeliveryToken,
    pub(crate) entry: MessageEntry,
}

impl QueueCore {
    /// Messages in memory with numbers above `after` and below `until`, in the order of arrival; at most so many.
    pub(crate) fn look(&self, queue: &Queue, after: u64, until: u64, most: usize) -> Vec<MessageEntry> {
        let mut delivered: Vec<&InFlight> =
            self.in_flight.iter().filter(|held| held.sequence.0 > after && held.sequence.0 < until).collect();
        if delivered.len() > most {
            delivered.select_nth_unstable_by_key(most, |held| held.sequence);
            delivered.truncate(most);
        }
        let waiting = self.ready.arrived_after(Sequence(after), most);
        let waiting = waiting.into_iter().filter(|(key, _)| key.sequence.0 < until);
        let mut found: Vec<MessageEntry> = waiting
            .map(|(key, entry)| MessageEntry::of(queue, key.sequence, entry, entry.progress > 0))
            .chain(delivered.iter().map(|held| MessageEntry::of(queue, held.sequence, &held.entry, true)))
            .collect();
        found.sort_unstable_by_key(|entry| entry.sequence);
        found.truncate(most);
        found
    }

    /// The messages of these numbers that are in memory.
    pub(crate) fn look_up(&self, queue: &Queue, sequences: &[u64]) -> Vec<MessageEntry> {
        let mut found: Vec<MessageEntry> = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            if let Some((key, entry)) = self.ready.find(Sequence(*sequence)) {
                found.push(MessageEntry::of(queue, key.sequence, entry, entry.progress > 0));
            }
        }
        if found.len() < sequences.len() && self.in_flight.len() > 0 {
            let wanted: std::collections::BTreeSet<u64> = sequences.iter().copied().collect();
            let delivered = self.in_flight.iter().filter(|held| wanted.contains(&held.sequence.0));
            found.extend(delivered.map(|held| MessageEntry::of(queue, held.sequence, &held.entry, true)));
            found.sort_unstable_by_key(|entry| entry.sequence);
        }
        found
    }

    /// A message in memory that waits and whose handover has not begun.
    fn waiting(&self, sequence: u64) -> Option<Key> {
        let (key, entry) = self.ready.find(Sequence(sequence))?;
        (entry.progress == 0).then_some(key)
    }

    /// Takes a message that waits out of the line. Until it is settled it counts as delivered.
    pub(crate) fn reserve(
        &mut self,
        queue: &Queue,
        seen: &MessageEntry,
        work: &mut Work,
    ) -> Option<Reserved> {
        let (key, entry) = match self.ready.paged.find(Sequence(seen.sequence)) {
            Some(key) => {
                self.ready.paged.take(key);
                (key, self.entry_from_log(key.sequence, seen.message.clone(), work))
            }
            None => {
                let key = self.waiting(seen.sequence)?;
                (key, self.take(key)?)
            }
        };
        let seen = MessageEntry::of(queue, key.sequence, &entry, false);
        let held = InFlight {
            sequence: key.sequence,
            entry,
            connection: MANAGEMENT,
            consumer: NOBODY,
            ends_at: u64::MAX,
            done: false,
        };
        let (slot, generation) = self.in_flight.insert(held);
        Some(Reserved {
            token: DeliveryToken { boot: queue.boot, queue: queue.id, slot, generation },
            entry: seen,
        })
    }

    /// Drops messages that wait; gives how many, and those to be logged.
    fn discard(&mut self, queue: &Queue, sequences: &[u64], work: &mut Work) -> (u64, Vec<Sequence>) {
        let mut logged = Vec::new();
        let mut count = 0;
        for sequence in sequences {
            if let Some(key) = self.ready.paged.find(Sequence(*sequence)) {
                self.ready.paged.take(key);
                logged.push(key.sequence);
                count += 1;
                continue;
            }
            let Some(key) = self.waiting(*sequence) else { continue };
            let Some(entry) = self.take(key) else { continue };
            self.forget(&entry, work);
            logged.extend(entry.logged.then_some(key.sequence));
            if entry.progress_logged {
                work.progress_over.push((queue.id, key.sequence));
            }
            count += 1;
        }
        (count, logged)
    }
}

impl Broker {
    /// Some of the messages of a queue.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`].
    pub fn list_messages(
        &self,
        virtual_host: &str,
        name: &str,
        listing: &MessageListing,
    ) -> Result<MessagePage, Refusal> {
        let queue = self.find_managed(&self.shared.find_host(virtual_host)?, name)?;
        let MessageListing { mut after, limit, selector, text } = listing.clone();
        let (mut looked_at, mut bytes) = (0, 0);
        let mut page = MessagePage { items: Vec::new(), next: None, total: None };
        loop {
            page.total = (selector.is_none() && text.is_none()).then(|| queue.lock().core.depth());
            let Looked { entries, next, failed } =
                look(&self.shared, &queue, after, u64::MAX, LOOKED_AT_A_TIME);
            if failed {
                return Err(cannot_read(&queue));
            }
            for entry in entries {
                if page.items.len() >= limit || looked_at >= LOOKED_AT_MAX || bytes >= SEARCHED_BYTES_MAX {
                    page.next = Some(after);
                    return Ok(page);
                }
                after = entry.sequence;
                looked_at += 1;
                if let Some(text) = &text {
                    bytes += Text::searched(&entry.message);
                    if !text.is_in(&entry.message) {
                        continue;
                    }
                }
                if entry.is_wanted(selector.as_ref()) {
                    page.items.push(entry);
                }
            }
            match next {
                Some(next) => after = next,
                None => return Ok(page),
            }
        }
    }

    /// One message of a queue.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`]; [`Code::UnknownDelivery`] if it is not there any more.
    pub fn message(&self, virtual_host: &str, name: &str, sequence: u64) -> Result<MessageEntry, Refusal> {
        let queue = self.find_managed(&self.shared.find_host(virtual_host)?, name)?;
        let found = look_up(&self.shared, &queue, &[sequence]);
        if found.failed {
            return Err(cannot_read(&queue));
        }
        found.entries.into_iter().next().ok_or_else(|| no_message(&queue, sequence))
    }

    /// Deletes one message of a queue; durable once the promise is kept, if there is one.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`], [`Code::UnknownDelivery`]; [`Code::Conflict`] if a consumer has it.
    pub fn delete_message(
        &self,
        virtual_host: &str,
        name: &str,
        sequence: u64,
    ) -> Result<Option<Promise>, Refusal> {
        let queue = self.find_managed(&self.shared.find_host(virtual_host)?, name)?;
        let mut work = Work::new(self.now());
        let (removed, promise) = self.discard(&queue, &[sequence], &mut work);
        while finish(&self.shared, &mut work) {}
        if removed == 0 {
            return Err(self.why_not(&queue, sequence));
        }
        Ok(promise)
    }

    /// Deletes messages that wait, in one group of the log.
    pub(crate) fn discard(
        &self,
        queue: &Arc<Queue>,
        sequences: &[u64],
        work: &mut Work,
    ) -> (u64, Option<Promise>) {
        let mut held = queue.lock();
        let (count, mut logged) = held.core.discard(queue, sequences, work);
        let promise = log_settled(&self.shared, queue.id, &mut logged, &[], queue.policy.durability);
        held.core.dispatch(queue, work);
        (count, promise)
    }

    /// Why a message cannot be taken: it has gone, or somebody has it.
    pub(crate) fn why_not(&self, queue: &Arc<Queue>, sequence: u64) -> Refusal {
        let there = {
            let core = queue.lock().core;
            core.ready.paged.find(Sequence(sequence)).is_some()
                || !core.look_up(queue, &[sequence]).is_empty()
        };
        match there {
            true => Refusal::new(
                Code::Conflict,
                format!("a consumer has message {sequence} of {} and has not settled it yet", queue.title()),
            ),
            false => no_message(queue, sequence),
        }
    }
}

/// What is said where messages are in the log and cannot be read now.
fn cannot_read(queue: &Queue) -> Refusal {
    let sentence = format!("some messages of {} cannot be read from the log now; try again", queue.title());
    Refusal::new(Code::Internal, sentence)
}

fn no_message(queue: &Queue, sequence: u64) -> Refusal {
    let sentence = format!("{} holds no message {sequence}; perhaps it has been consumed", queue.title());
    Refusal::new(Code::UnknownDelivery, sentence)
}

/// The later of two promises; it is kept when both are.
pub(crate) fn later(one: Option<Promise>, other: Option<Promise>) -> Option<Promise> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(Promise { position: one.position.max(other.position), synced: one.synced || other.synced })
        }
        (one, other) => one.or(other),
    }
}
