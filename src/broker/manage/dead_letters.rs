//! Queues that dead letters go to, and sending their messages back slowly: what a tick of the broker does a bit of at a
//! time. Nothing of it is kept: if the broker ends, what has not gone back is where it was.

use std::sync::Arc;

use parking_lot::Mutex;
use sabir_model::access::Principal;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::error::{Code, Refusal};
use sabir_model::session::Now;

use crate::broker::Broker;
use crate::manage::listing::{Collector, Listing, Page};
use crate::manage::messages::{Chosen, Deed, Errand, Step, Tally};
use crate::manage::queues::{name_of, queues_of};

/// Redrives under way at a time.
const RUNNING_MAX: usize = 8;
/// Redrives that are known, ended ones included: beyond, the one that ended first is forgotten.
const KNOWN_MAX: usize = 64;
/// Batches of one redrive in one tick, be there anything to send back in them or not.
const STEPS_PER_TICK_MAX: u32 = 8;
/// Most messages a second.
pub const RATE_MAX: u32 = 10_000;

/// A queue that dead letters go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterQueue {
    /// Its name.
    pub queue: String,
    /// Messages in it, those that consumers have included.
    pub messages: u64,
    /// When the oldest was sent.
    pub oldest: Option<Timestamp>,
}

/// How far a redrive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedriveState {
    /// It goes on.
    Running,
    /// Everything has been looked at.
    Done,
    /// Somebody has stopped it, or the broker is ending.
    Stopped,
}

impl RedriveState {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

/// A redrive at a rate: the one under way, or the last one.
#[derive(Clone, Debug)]
pub struct Redrive {
    /// How far it is.
    pub state: RedriveState,
    /// Most messages a second.
    pub rate: u32,
    /// When it was begun.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What has become of it so far. While it runs, the refusal is what is in its way now or why the last message that
    /// cannot go back cannot.
    pub tally: Tally,
}

/// One of the redrives that are known.
#[derive(Debug)]
struct Job {
    /// Names it; there may have been others of this queue.
    number: u64,
    host: Box<str>,
    queue: String,
    seen: Redrive,
    /// Absent while a tick works on it, and when it has ended.
    errand: Option<Errand>,
    /// Millionths of messages that may go now.
    allowance: u64,
    last: Instant,
}

/// All that are known, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Redrives(Mutex<Jobs>);

#[derive(Debug, Default)]
struct Jobs {
    next: u64,
    all: Vec<Job>,
}

impl Job {
    fn is_of(&self, host: &str, queue: &str) -> bool {
        &*self.host == host && self.queue == queue
    }

    fn is_running(&self) -> bool {
        self.seen.state == RedriveState::Running
    }

    fn end(&mut self, state: RedriveState, now: Timestamp) {
        self.errand = None;
        self.seen.state = state;
        self.seen.ended = Some(now);
    }

    /// How many messages may go now: what the time since the last look is worth, and never more than a second's worth.
    fn earn(&mut self, now: Instant) -> usize {
        let rate = u64::from(self.seen.rate);
        let passed = u64::try_from(now.since(self.last).as_micros()).unwrap_or(u64::MAX);
        self.last = now;
        let earned = self.allowance.saturating_add(rate.saturating_mul(passed.min(1_000_000)));
        self.allowance = earned.min(rate.saturating_mul(1_000_000));
        usize::try_from(self.allowance / 1_000_000).unwrap_or(usize::MAX)
    }
}

impl Redrives {
    /// Ends all that are under way.
    pub(crate) fn stop(&self, now: Timestamp) {
        let mut jobs = self.0.lock();
        jobs.all
            .iter_mut()
            .filter(|job| job.is_running())
            .for_each(|job| job.end(RedriveState::Stopped, now));
    }
}

impl Broker {
    /// The queues of a virtual host that dead letters go to, a page of them.
    ///
    /// # Errors
    /// [`Code::UnknownDestination`] for a virtual host that does not exist.
    pub fn list_dead_letters(
        &self,
        virtual_host: &str,
        listing: &Listing<()>,
    ) -> Result<Page<DeadLetterQueue>, Refusal> {
        let host = self.shared.find_host(virtual_host)?;
        let mut page = Collector::new(listing);
        for queue in queues_of(&self.shared, &host).into_iter().filter(|queue| queue.holds_dead_letters) {
            page.offer(&name_of(&queue), || 0, || Arc::clone(&queue));
        }
        Ok(page.finish().map(|queue| {
            let core = queue.lock().core;
            DeadLetterQueue { queue: name_of(&queue), messages: core.depth(), oldest: core.oldest() }
        }))
    }

    /// Begins to send dead letters back to where they came from, so many a second. Where there is no room for one, it waits
    /// until there is.
    ///
    /// # Errors
    /// Those of [`Broker::errand`]; [`Code::Conflict`] while another one of this queue is under way,
    /// [`Code::LimitReached`] while eight are.
    pub fn start_redrive(
        &self,
        virtual_host: &str,
        name: &str,
        who: &Principal,
        chosen: Chosen,
        max: Option<u64>,
        rate: u32,
    ) -> Result<Redrive, Refusal> {
        let errand = self.errand(virtual_host, name, who, Deed::Redrive, chosen, max)?;
        let now = self.now();
        let mut jobs = self.shared.redrives.0.lock();
        if jobs.all.iter().any(|job| job.is_of(virtual_host, name) && job.is_running()) {
            let sentence = format!("messages of {name} are being sent back already");
            return Err(Refusal::new(Code::Conflict, sentence));
        }
        if jobs.all.iter().filter(|job| job.is_running()).count() >= RUNNING_MAX {
            let sentence = format!("{RUNNING_MAX} redrives are under way, and that is the most");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        jobs.all.retain(|job| !job.is_of(virtual_host, name));
        if jobs.all.len() >= KNOWN_MAX
            && let Some(oldest) = jobs.all.iter().position(|job| !job.is_running())
        {
            jobs.all.remove(oldest);
        }
        let seen = Redrive {
            state: RedriveState::Running,
            rate: rate.clamp(1, RATE_MAX),
            started: now.wall,
            ended: None,
            tally: Tally::default(),
        };
        jobs.next += 1;
        let job = Job {
            number: jobs.next,
            host: virtual_host.into(),
            queue: name.to_owned(),
            seen: seen.clone(),
            errand: Some(errand),
            // The first one goes at once.
            allowance: 1_000_000,
            last: now.instant,
        };
        jobs.all.push(job);
        Ok(seen)
    }

    /// How far the redrive of a queue is, if there has been one at a rate.
    #[must_use]
    pub fn redrive(&self, virtual_host: &str, name: &str) -> Option<Redrive> {
        let jobs = self.shared.redrives.0.lock();
        jobs.all.iter().find(|job| job.is_of(virtual_host, name)).map(|job| job.seen.clone())
    }

    /// Stops the redrive of a queue.
    ///
    /// # Errors
    /// [`Code::UnknownDelivery`] if none is under way.
    pub fn stop_redrive(&self, virtual_host: &str, name: &str) -> Result<(), Refusal> {
        let now = self.now().wall;
        let mut jobs = self.shared.redrives.0.lock();
        match jobs.all.iter_mut().find(|job| job.is_of(virtual_host, name) && job.is_running()) {
            Some(job) => {
                job.end(RedriveState::Stopped, now);
                Ok(())
            }
            None => {
                Err(Refusal::new(Code::UnknownDelivery, format!("no message of {name} is being sent back")))
            }
        }
    }

    /// Does what is due of all redrives.
    pub(crate) fn tick_redrives(&self, now: Now) {
        // No lock of theirs is held while queues are worked on.
        let due: Vec<(u64, Errand, usize)> = {
            let mut jobs = self.shared.redrives.0.lock();
            let running = jobs.all.iter_mut().filter(|job| job.is_running());
            running
                .filter_map(|job| match job.earn(now.instant) {
                    0 => None,
                    most => job.errand.take().map(|errand| (job.number, errand, most)),
                })
                .collect()
        };
        for (number, mut errand, most) in due {
            let before = errand.tally.done;
            let mut step = Step::More;
            for _ in 0..STEPS_PER_TICK_MAX {
                let gone = usize::try_from(errand.tally.done - before).unwrap_or(usize::MAX);
                if step != Step::More || gone >= most {
                    break;
                }
                step = self.step(&mut errand, most - gone);
            }
            let mut jobs = self.shared.redrives.0.lock();
            let Some(job) = jobs.all.iter_mut().find(|job| job.number == number) else { continue };
            let gone = errand.tally.done - before;
            job.allowance = job.allowance.saturating_sub(gone.saturating_mul(1_000_000));
            job.seen.tally = errand.tally.clone();
            match step {
                _ if !job.is_running() => {}
                Step::Done => job.end(RedriveState::Done, now.wall),
                Step::More | Step::Blocked(_) => job.errand = Some(errand),
            }
        }
    }
}
