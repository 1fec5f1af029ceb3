//! What somebody wants done with some of the messages of a queue, done a batch at a time: no lock is held between batches,
//! whoever waits for it may leave, and what arrives meanwhile is left alone.

use std::fmt;
use std::sync::Arc;

use sabir_model::access::Principal;
use sabir_model::command::Promise;
use sabir_model::destination::Destination;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::DeliveryToken;
use sabir_model::selector::Selector;

use super::carry::{Carrier, Load, give_back, is_for_now};
use super::{MessageEntry, Reserved, cannot_read, later, look, look_up};
use crate::broker::{Broker, Shared};
use crate::queue::Queue;
use crate::registry::VirtualHost;
use crate::work::{Work, finish};

/// Messages of one batch.
const BATCH_MAX: usize = 256;
/// Bytes of one batch, but for a message that is larger by itself.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Which messages.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// Those of these numbers.
    Sequences(Vec<u64>),
    /// Those that a selector matches.
    Matching(Selector),
    /// All that are there now.
    All,
}

/// What is to be done with them.
#[derive(Clone, Debug)]
pub enum Deed {
    /// They go to a destination, as if they were sent there, and leave the queue.
    Move(Destination),
    /// They are sent to a destination as new messages, and stay. Those that consumers have are copied, too.
    Copy(Destination),
    /// They are gone.
    Delete,
    /// Dead letters go back to where each came from, without the marks and attempts of its death.
    Redrive,
}

/// What has become of an errand so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Messages that it was done with.
    pub done: u64,
    /// Messages that consumers have, and which are left alone therefore.
    pub unsettled: u64,
    /// Dead letters that cannot go back.
    pub refused: u64,
    /// Why the last of them cannot, or what is in the way now.
    pub refusal: Option<Refusal>,
    /// Everything done is durable once this is kept.
    pub promise: Option<Promise>,
}

/// What follows a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another one.
    More,
    /// Nothing.
    Done,
    /// Something is in the way; the same batch may be tried again.
    Blocked(Refusal),
}

/// An errand under way.
pub struct Errand {
    host: Arc<VirtualHost>,
    queue: Arc<Queue>,
    who: Principal,
    deed: Deed,
    chosen: Chosen,
    /// The last message that was looked at; for a list, how many of it were.
    at: u64,
    /// The first message that came too late.
    until: u64,
    left: u64,
    /// Up to which message those left alone, and those that cannot go back, are counted: a batch may be tried again.
    unsettled_to: u64,
    refused_to: u64,
    /// What has become of it.
    pub tally: Tally,
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, deed, at, tally, .. } = self;
        let mut shown = f.debug_struct("Errand");
        shown.field("queue", &queue.title()).field("deed", deed).field("at", at).field("tally", tally);
        shown.finish_non_exhaustive()
    }
}

/// Messages to do something with.
struct Batch {
    entries: Vec<MessageEntry>,
    last: bool,
    /// They cannot be read now.
    failed: bool,
}

impl Errand {
    /// Finds the next messages, `most` of them, and moves on behind them.
    fn next_batch(&mut self, shared: &Shared, most: usize) -> Batch {
        let most = most.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let (found, last) = match &self.chosen {
            Chosen::Sequences(all) => {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX);
                let rest = all.get(from..).unwrap_or_default();
                let wanted = rest.get(..BATCH_MAX).unwrap_or(rest);
                let found = look_up(shared, &self.queue, wanted);
                if found.failed {
                    return Batch { entries: Vec::new(), last: false, failed: true };
                }
                let place = |next: u64| wanted.iter().position(|one| *one == next);
                let looked_up = found.next.and_then(place).unwrap_or(wanted.len());
                self.at += looked_up as u64;
                (found.entries, rest.len() == looked_up)
            }
            Chosen::Matching(_) | Chosen::All => {
                let found = look(shared, &self.queue, self.at, self.until, BATCH_MAX);
                if found.failed {
                    return Batch { entries: Vec::new(), last: false, failed: true };
                }
                self.at = found.next.unwrap_or(self.until);
                (found.entries, found.next.is_none())
            }
        };
        let mut batch = Batch { entries: Vec::with_capacity(most.min(found.len())), last, failed: false };
        let mut bytes = 0;
        for entry in found {
            let wanted = match &self.chosen {
                Chosen::Matching(selector) => entry.is_wanted(Some(selector)),
                Chosen::Sequences(_) | Chosen::All => true,
            };
            if !wanted {
                continue;
            }
            if entry.unsettled && !matches!(self.deed, Deed::Copy(_)) {
                if entry.sequence > self.unsettled_to {
                    self.unsettled_to = entry.sequence;
                    self.tally.unsettled += 1;
                }
                continue;
            }
            bytes += entry.message.memory();
            let full = bytes > BATCH_BYTES_MAX && !batch.entries.is_empty();
            if full || batch.entries.len() >= most {
                self.at = self.place_of(entry.sequence);
                batch.last = false;
                break;
            }
            batch.entries.push(entry);
        }
        batch
    }

    /// The place of a message that is to be tried again.
    fn place_of(&self, sequence: u64) -> u64 {
        match &self.chosen {
            Chosen::Sequences(all) => {
                all.iter().position(|one| *one == sequence).map_or(self.at, |at| at as u64)
            }
            Chosen::Matching(_) | Chosen::All => sequence.saturating_sub(1),
        }
    }
}

impl Broker {
    /// Begins an errand; nothing is done before [`Broker::step`]. At most `max` messages are chosen.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`]; [`Code::Conflict`] if dead letters are to go back from a queue that holds none.
    pub fn errand(
        &self,
        virtual_host: &str,
        name: &str,
        who: &Principal,
        deed: Deed,
        chosen: Chosen,
        max: Option<u64>,
    ) -> Result<Errand, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let queue = self.find_managed(&host, name)?;
        if matches!(deed, Deed::Redrive) && !queue.holds_dead_letters {
            let sentence = format!("{} is not a queue that dead letters go to", queue.title());
            return Err(Refusal::new(Code::Conflict, sentence));
        }
        let chosen = match chosen {
            Chosen::Sequences(mut all) => {
                all.sort_unstable();
                all.dedup();
                Chosen::Sequences(all)
            }
            other => other,
        };
        // What arrives from now on, copies of what is moved in a circle among it, is not meant.
        let until = queue.lock().core.next;
        let left = max.unwrap_or(u64::MAX);
        let (who, tally) = (who.clone(), Tally::default());
        Ok(Errand {
            host,
            queue,
            who,
            deed,
            chosen,
            at: 0,
            until,
            left,
            unsettled_to: 0,
            refused_to: 0,
            tally,
        })
    }

    /// Does the next part of an errand: `most` messages of it, or fewer.
    pub fn step(&self, errand: &mut Errand, most: usize) -> Step {
        if let Err(sentence) = self.is_ready() {
            return Step::Blocked(Refusal::new(Code::ShuttingDown, sentence));
        }
        if errand.left == 0 || errand.queue.deleted.load(std::sync::atomic::Ordering::Acquire) {
            return Step::Done;
        }
        // What was in the way may be no more.
        errand.tally.refusal.take_if(|refusal| is_for_now(refusal.code));
        let batch = errand.next_batch(&self.shared, most.clamp(1, BATCH_MAX));
        if batch.failed {
            let refusal = cannot_read(&errand.queue);
            errand.tally.refusal = Some(refusal.clone());
            return Step::Blocked(refusal);
        }
        let mut work = Work::new(self.now());
        let blocked = match errand.deed.clone() {
            Deed::Delete => {
                let sequences: Vec<u64> = batch.entries.iter().map(|entry| entry.sequence).collect();
                let (count, promise) = self.discard(&errand.queue, &sequences, &mut work);
                errand.count(count, promise);
                None
            }
            Deed::Copy(to) => self.copy(errand, &batch.entries, &to, &mut work),
            Deed::Move(to) => self.take_away(errand, &batch.entries, Some(&to), &mut work),
            Deed::Redrive => self.take_away(errand, &batch.entries, None, &mut work),
        };
        while finish(&self.shared, &mut work) {}
        match blocked {
            Some((sequence, refusal)) => {
                errand.at = errand.place_of(sequence);
                errand.tally.refusal = Some(refusal.clone());
                Step::Blocked(refusal)
            }
            None if batch.last || errand.left == 0 => Step::Done,
            None => Step::More,
        }
    }

    /// Copies; tells where that stopped and why.
    fn copy(
        &self,
        errand: &mut Errand,
        entries: &[MessageEntry],
        to: &Destination,
        work: &mut Work,
    ) -> Option<(u64, Refusal)> {
        if entries.is_empty() {
            return None;
        }
        let (host, who) = (Arc::clone(&errand.host), errand.who.clone());
        let mut carrier = Carrier::new(self, &host, &who);
        let loads: Vec<Load<'_>> =
            entries.iter().map(|entry| Carrier::load(&entry.message, None, to, self.next_id())).collect();
        for (entry, result) in entries.iter().zip(carrier.carry(&loads, work)) {
            match result {
                Ok(promise) => errand.count(1, promise),
                Err(refusal) => return Some((entry.sequence, refusal)),
            }
        }
        None
    }

    /// Moves to one destination, or dead letters to where each came from; tells where that stopped and why.
    fn take_away(
        &self,
        errand: &mut Errand,
        entries: &[MessageEntry],
        to: Option<&Destination>,
        work: &mut Work,
    ) -> Option<(u64, Refusal)> {
        let reserved: Vec<Reserved> = {
            let mut held = errand.queue.lock();
            entries.iter().filter_map(|entry| held.core.reserve(&errand.queue, entry, work)).collect()
        };
        if reserved.is_empty() {
            return None;
        }
        let (host, who) = (Arc::clone(&errand.host), errand.who.clone());
        let mut carrier = Carrier::new(self, &host, &who);
        let mut loads: Vec<Load<'_>> = Vec::with_capacity(reserved.len());
        let mut loaded: Vec<&Reserved> = Vec::with_capacity(reserved.len());
        let mut returned: Vec<DeliveryToken> = Vec::new();
        for one in &reserved {
            let message = &one.entry.message;
            let load = match to {
                Some(to) => Ok(Carrier::load(message, Some(one.token), to, message.facts().id)),
                None => carrier.way_back(message, Some(one.token), work.now.wall),
            };
            match load {
                Ok(load) => {
                    loads.push(load);
                    loaded.push(one);
                }
                Err(refusal) => {
                    errand.refuse(one.entry.sequence, refusal);
                    returned.push(one.token);
                }
            }
        }
        let results = if loads.is_empty() { Vec::new() } else { carrier.carry(&loads, work) };
        let mut blocked = None;
        let mut results = results.into_iter();
        for one in loaded {
            match results.next() {
                Some(Ok(promise)) => errand.count(1, promise),
                Some(Err(refusal)) => {
                    returned.push(one.token);
                    if to.is_some() || is_for_now(refusal.code) {
                        blocked.get_or_insert((one.entry.sequence, refusal));
                    } else {
                        errand.refuse(one.entry.sequence, refusal);
                    }
                }
                // After what is in the way.
                None => returned.push(one.token),
            }
        }
        give_back(self, &errand.queue, &returned, work);
        blocked
    }

    /// An id for a message that no connection sends.
    pub(crate) fn next_id(&self) -> sabir_model::ids::MessageId {
        let number = self.shared.next_message.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        sabir_model::ids::MessageId { origin: u64::from(self.shared.boot) << 32, number }
    }
}

impl Errand {
    fn count(&mut self, count: u64, promise: Option<Promise>) {
        self.tally.done += count;
        self.left = self.left.saturating_sub(count);
        self.tally.promise = later(self.tally.promise, promise);
    }

    fn refuse(&mut self, sequence: u64, refusal: Refusal) {
        if sequence > self.refused_to {
            self.refused_to = sequence;
            self.tally.refused += 1;
        }
        self.tally.refusal = Some(refusal);
    }
}
