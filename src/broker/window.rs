//! What of a queue is in memory: the window at its head, and what comes back or cannot be read from the log again. The rest
//! is paged out: its numbers stay in [`crate::paged`], its bytes are in the log alone.
//!
//! A message is paged out once nobody has taken it at once and the window is full, the newest first. Pages come back in the
//! order of the queue, ahead of the consumers: [`crate::pager`] reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sabir_model::clock::Timestamp;
use sabir_model::delivery::Grant;
use sabir_model::error::Refusal;
use sabir_model::ids::Sequence;
use sabir_model::message::Message;

use crate::budget::{Budget, share_full};
use crate::credit::Consumer;
use crate::paged::Range;
use crate::pager::Job;
use crate::queue::{Queue, QueueCore, Role};
use crate::ready::{Entry, Key};
use crate::work::Work;

/// Messages of one page.
pub(crate) const PAGE_MESSAGES: u64 = 8192;
/// Most bytes of one page, but for a message that is larger by itself.
const PAGE_BYTES: usize = 1 << 20;
/// However little memory there is, so much is read at a time.
const PAGE_BYTES_MIN: u64 = 4 << 10;

/// How much of each queue may be in memory; less when memory runs low.
#[derive(Debug)]
pub(crate) struct Window {
    most: u64,
    /// Of which each queue has a share.
    pub(crate) budget: Arc<Budget>,
}

impl Window {
    pub(crate) fn new(most: u64, budget: Arc<Budget>) -> Self {
        Self { most, budget }
    }

    /// The share of a queue now. Looked at with every message: what floods in between two ticks is not to fill the memory
    /// first.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        let max = self.budget.max;
        match self.budget.used() {
            some if some <= max / 2 => self.most,
            much if much <= max / 4 * 3 => self.most / 16,
            more if more <= max / 10 * 9 => self.most / 256,
            _ => 0,
        }
    }

    /// Bytes of one page.
    pub(crate) fn page_bytes(&self) -> usize {
        usize::try_from((self.bytes() / 2).max(PAGE_BYTES_MIN))
            .map_or(PAGE_BYTES, |bytes| bytes.min(PAGE_BYTES))
    }

    /// Whether queues should look whether they hold too much.
    pub(crate) fn is_narrow(&self) -> bool {
        self.bytes() < self.most
    }
}

/// What the log told of messages that were there at the start.
#[derive(Debug, Default)]
pub(crate) struct FromLog {
    /// Those with lower numbers.
    pub(crate) below: Sequence,
    /// A crash may have cut deliveries of them short.
    pub(crate) redelivered: bool,
    /// Attempts of those that have failed ones.
    pub(crate) attempts: BTreeMap<Sequence, u32>,
}

impl Queue {
    /// Whether its messages may be in the log alone.
    pub(crate) fn pages(&self) -> bool {
        self.logs()
    }
}

impl QueueCore {
    /// Bytes of all messages held.
    pub(crate) fn bytes(&self) -> u64 {
        self.resident.saturating_add(self.elsewhere).saturating_add(self.ready.paged.bytes())
    }

    /// Whether the queue may hold `more` bytes in memory that cannot be paged out. Tells whether it has so much that who
    /// sends should wait.
    pub(crate) fn check_share(&self, queue: &Queue, more: u64) -> Result<bool, Refusal> {
        let budget = &queue.window.budget;
        let resident = self.resident.saturating_add(more);
        // These make room instead: a subscriber must not refuse the publisher.
        if matches!(queue.role, Role::Window | Role::Backlog { .. } | Role::Group { .. }) {
            return Ok(false);
        }
        // One message alone may be larger than what is left.
        if self.resident > 0 && budget.is_too_much(resident) {
            return Err(share_full(&queue.title()));
        }
        Ok(budget.is_much(resident))
    }

    /// Whether no more is to be handed out before something of it is settled: what consumers have stays in memory.
    pub(crate) fn withholds(&self, queue: &Queue) -> bool {
        self.in_flight.len() > 0 && queue.window.budget.is_too_much(self.resident)
    }

    fn is_over(&self, queue: &Queue) -> bool {
        self.resident > queue.window.bytes()
    }

    /// Whether a new message goes where it would be put in the end anyway: behind others that are paged out.
    pub(crate) fn pages_at_once(&self, queue: &Queue, entry: &Entry) -> bool {
        entry.is_in_log()
            && !self.ready.paged.is_empty()
            && self.selecting == 0
            && !self.ready.is_prioritized()
            && queue.pages()
    }

    /// Notes a message that has found the window full: it is paged out unless somebody takes it at once.
    pub(crate) fn note_overflow(&mut self, queue: &Queue, key: Key, in_log: bool) {
        if self.is_over(queue) && queue.pages() {
            if in_log {
                self.over.push(key);
            } else {
                self.spills = true;
            }
        }
    }

    /// Pages out what nobody has taken, if the window is still too full for it.
    pub(crate) fn page_out_overflow(&mut self, queue: &Queue, work: &mut Work) {
        while let Some(key) = self.over.pop() {
            if !self.is_over(queue) {
                self.over.clear();
                break;
            }
            self.page_out(key, work);
        }
        if self.over.capacity() > 1024 {
            self.over = Vec::new();
        }
        if std::mem::take(&mut self.spills) && self.is_over(queue) {
            work.spills.push(queue.id);
        } else {
            self.note_spilled(queue.id, work);
        }
    }

    /// Pages one message out, if it is in memory and the log has all of it.
    pub(crate) fn page_out(&mut self, key: Key, work: &mut Work) {
        let Some((found, entry)) = self.ready.peek_from(key) else { return };
        if found != key || !entry.is_in_log() {
            return;
        }
        if let Some(entry) = self.take(key) {
            self.leave_to_log(key.sequence, &entry, work);
        }
    }

    /// Leaves a message to the log that is in no list now.
    pub(crate) fn leave_to_log(&mut self, sequence: Sequence, entry: &Entry, work: &mut Work) {
        let facts = entry.message.facts();
        let key = self.ready.key(sequence, facts.priority);
        self.forget(entry, work);
        self.ready.paged.add(key, entry.message.weight(), facts.expires);
    }

    /// Pages messages out from the end until `room` more bytes fit, but not those of `page`.
    pub(crate) fn make_window(
        &mut self,
        queue: &Queue,
        room: u64,
        page: Option<(Key, Key)>,
        work: &mut Work,
    ) {
        let excess = self.resident.saturating_add(room).saturating_sub(queue.window.bytes());
        if excess > 0 && queue.pages() {
            for key in self.ready.last_that(excess, page, Entry::is_in_log) {
                self.page_out(key, work);
            }
        }
    }

    /// Asks for the page that begins at `from`, unless one is on its way.
    pub(crate) fn want_page(&mut self, queue: &Arc<Queue>, from: Key, work: &mut Work) {
        if !std::mem::replace(&mut self.fetching, true) {
            work.jobs.push(Job::Page { queue: Arc::clone(queue), from });
        }
    }

    /// Asks for the page that begins at `from`, if there is somebody to have it.
    pub(crate) fn want_page_for_consumers(&mut self, queue: &Arc<Queue>, from: Key, work: &mut Work) {
        if !self.withholds(queue) && self.consumers().any(Consumer::is_available) {
            self.want_page(queue, from, work);
        }
    }

    /// Asks for the next page before the consumers have come to it.
    pub(crate) fn read_ahead(&mut self, queue: &Arc<Queue>, work: &mut Work) {
        let Some(next) = self.ready.paged.first() else { return };
        // Never in the place of what is there: in a narrow window two pages would take turns for ever.
        let window = queue.window.bytes();
        let room = window.saturating_sub(queue.window.page_bytes() as u64).min(window / 2);
        if self.fetching || self.resident > room || self.withholds(queue) {
            return;
        }
        if self.consumers().any(Consumer::is_available) {
            self.want_page(queue, next, work);
        }
    }

    /// Puts the messages of a page into their places; `grant_of` knows what a client session is granted. `wanted` is what was asked for up to the last that was read: what is
    /// missing of it, the log has lost. Tells how many those are.
    pub(crate) fn page_in(
        &mut self,
        queue: &Arc<Queue>,
        rank: u8,
        wanted: &[Range],
        found: Vec<(Sequence, Message)>,
        grant_of: &dyn Fn(&Message) -> Option<Arc<Grant>>,
        work: &mut Work,
    ) -> u64 {
        let bytes: u64 = found.iter().map(|(_, message)| message.memory() as u64).sum();
        let bounds = wanted.first().zip(wanted.last());
        let page = bounds
            .map(|((first, _), (_, last))| (Key { rank, sequence: *first }, Key { rank, sequence: *last }));
        self.make_window(queue, bytes, page, work);
        let mut found = found.into_iter().peekable();
        let mut lost = 0;
        for range in wanted {
            // Some may have been purged or taken away meanwhile. Asked once for all: one by one is several times dearer.
            let whole = self.ready.paged.contains_range(rank, *range);
            let mut came = 0;
            while let Some((sequence, message)) = found.next_if(|(sequence, _)| *sequence <= range.1) {
                if whole || self.ready.paged.contains_range(rank, (sequence, sequence)) {
                    let grant = grant_of(&message);
                    let entry = Entry { grant, ..self.entry_from_log(sequence, message, work) };
                    self.insert_quietly(queue, sequence, entry);
                    came += 1;
                }
            }
            lost += self.ready.paged.take_range(rank, *range).saturating_sub(came);
        }
        lost
    }

    /// A message that was read from the log and is in memory from now on.
    pub(crate) fn entry_from_log(&mut self, sequence: Sequence, message: Message, work: &mut Work) -> Entry {
        let (attempts, redelivered) = self.attempts_of_paged(sequence);
        let entry = Entry { attempts, redelivered, ..Entry::new(message, true) };
        let memory = entry.message.memory() as u64;
        self.hold(&entry.message, memory);
        work.memory += memory.cast_signed();
        entry
    }

    /// Attempts that failed, and whether some attempt may have reached a consumer, of a message that is paged out.
    pub(crate) fn attempts_of_paged(&self, sequence: Sequence) -> (u32, bool) {
        match &self.from_log {
            Some(notes) if sequence < notes.below => {
                let attempts = notes.attempts.get(&sequence).copied().unwrap_or(0);
                (attempts, notes.redelivered || attempts > 0)
            }
            _ => (0, false),
        }
    }

    /// When the first of those that are paged out expires, or before.
    pub(crate) fn paged_expiry(&self) -> Timestamp {
        Timestamp(self.ready.paged.expires)
    }
}
