//! The task of one webhook: takes messages as a consumer of the broker, sends them in their order, and settles them by
//! what the receiver answers. What it holds it gives back when it ends, whatever the reason.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sabir_model::clock::{Instant, Timestamp};
use sabir_model::error::Refusal;
use sabir_model::message::Tag;
use sabir_model::settlement::Settlement;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::Take;
use super::endpoint::Endpoint;
use super::lanes::{Lanes, Place, until};
use super::retry::{Answer, Retries, Verdict, judge};
use crate::net::Shared;
use crate::net::http::leases::Puller;
use crate::net::http::party::Received;
use crate::net::http::random;
use crate::net::socket::Peer;

/// Messages taken beyond those on their way, for each request at a time: so much can stand behind a group that waits
/// before the webhook waits, too.
const AHEAD: usize = 4;
/// The pause before the source is asked again, when it cannot be consumed from: at first, and at most.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(30);
/// How often unused connections are looked at while nothing else happens.
const TIDY: Duration = Duration::from_secs(10);

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Go on.
    Run,
    /// Begin nothing, wait for what is on its way, then end.
    Finish,
    /// End at once.
    Cut,
}

/// What can be seen of a worker. Counts are since the webhook was defined or the server started.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) dead_lettered: u64,
    /// Requests on their way.
    pub(super) running: usize,
    /// Messages held, those on their way included.
    pub(super) held: usize,
    pub(super) last_status: Option<u16>,
    pub(super) last_error: Option<String>,
    pub(super) last_error_at: Option<Timestamp>,
    pub(super) last_delivered_at: Option<Timestamp>,
    /// When it tries again what has failed, if it waits for that.
    pub(super) next_attempt: Option<Timestamp>,
}

/// What a worker works on.
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) take: Take,
    pub(super) concurrency: usize,
    pub(super) retries: Retries,
    pub(super) status: Arc<Mutex<Status>>,
    pub(super) peer: Peer,
}

/// How a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to.
    Told,
    /// The receiver wants nothing any more.
    Gone,
}

impl Work {
    fn open(&self) -> Result<Arc<Puller>, Refusal> {
        Puller::open(&self.shared, &self.peer, &self.take.source(&self.shared)?)
    }

    /// Works until it is told to end, or the receiver wants nothing any more.
    pub(super) async fn run(&self, mut orders: watch::Receiver<Order>) -> End {
        let mut pause = ASK_AGAIN_MIN;
        loop {
            if *orders.borrow_and_update() != Order::Run {
                return End::Told;
            }
            let refusal = match self.open() {
                Ok(puller) => {
                    pause = ASK_AGAIN_MIN;
                    let mut shift = Shift::new(self, puller);
                    match shift.serve(&mut orders).await {
                        Ok(end) => return end,
                        Err(refusal) => refusal,
                    }
                }
                Err(refusal) => refusal,
            };
            let now = self.shared.clock.refresh();
            {
                let mut status = self.status.lock();
                status.last_error = Some(refusal.sentence.into_owned());
                status.last_error_at = Some(now.wall);
                status.next_attempt = Some(now.wall.after(pause));
                (status.running, status.held) = (0, 0);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = orders.wait_for(|order| *order != Order::Run) => {
                    drop(changed);
                    return End::Told;
                }
            }
            pause = (pause * 2).min(ASK_AGAIN_MAX);
        }
    }
}

/// A worker while it has a consumer.
struct Shift<'a> {
    work: &'a Work,
    puller: Arc<Puller>,
    lanes: Lanes<Received>,
    attempts: JoinSet<(Place, Answer)>,
    /// By which an attempt that ended by a bug is found.
    names: Vec<(AbortHandle, Place)>,
    window: usize,
}

impl<'a> Shift<'a> {
    fn new(work: &'a Work, puller: Arc<Puller>) -> Self {
        // With one at a time nothing is gained by holding a second.
        let window = if work.concurrency == 1 { 1 } else { work.concurrency.saturating_mul(1 + AHEAD) };
        let lanes = Lanes::new(work.concurrency);
        Self { work, puller, lanes, attempts: JoinSet::new(), names: Vec::new(), window }
    }

    /// Works until it is told to end. Fails if the broker ends the subscription.
    async fn serve(&mut self, orders: &mut watch::Receiver<Order>) -> Result<End, Refusal> {
        loop {
            let order = *orders.borrow_and_update();
            let room = self.window.saturating_sub(self.lanes.len());
            match order {
                Order::Cut => return Ok(End::Told),
                Order::Finish => {
                    self.puller.give_back();
                    let back = self.lanes.clear();
                    self.puller.release(back.iter().filter_map(|one| one.token));
                    if self.attempts.is_empty() {
                        return Ok(End::Told);
                    }
                }
                Order::Run => {
                    if room > 0 {
                        self.take(room);
                    }
                    self.start();
                }
            }
            let now = self.work.shared.clock.refresh();
            self.publish(now.instant, now.wall);
            let running = order == Order::Run;
            let room = running && self.lanes.len() < self.window;
            let due = self.lanes.due().filter(|_| running).map(|due| until(due, now.instant));
            let tidy = self.work.endpoint.prune(now.instant);
            // Orders first: what the broker says at its end must not overtake them.
            tokio::select! {
                biased;
                changed = orders.changed() => if changed.is_err() { return Ok(End::Told) },
                Some(ended) = self.attempts.join_next_with_id(), if !self.attempts.is_empty() => {
                    let (place, answer) = match ended {
                        Ok((id, (place, answer))) => {
                            self.forget(id);
                            (place, answer)
                        }
                        Err(error) => match self.forget(error.id()) {
                            Some(place) => (place, Answer::Failed("the attempt ended by a bug".to_owned())),
                            None => continue,
                        },
                    };
                    if self.settle(place, &answer, order) == Some(End::Gone) {
                        return Ok(End::Gone);
                    }
                }
                arrived = self.puller.arrival(), if room => arrived?,
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
                () = tokio::time::sleep(TIDY), if tidy => {}
            }
        }
    }

    fn forget(&mut self, id: tokio::task::Id) -> Option<Place> {
        let at = self.names.iter().position(|(handle, _)| handle.id() == id)?;
        Some(self.names.swap_remove(at).1)
    }

    fn take(&mut self, room: usize) {
        self.puller.want(room);
        for received in self.puller.take(room) {
            // What nobody settles is not a queue's: there is none of that here.
            if received.token.is_none() {
                continue;
            }
            let group = received.message.fields().find_text(Tag::GroupId).map(str::to_owned);
            self.lanes.push(received, group.as_deref());
        }
    }

    fn start(&mut self) {
        let now = self.work.shared.clock.refresh();
        while let Some((place, number, received)) = self.lanes.start(now.instant) {
            if received.message.facts().expires.has_passed(now.wall) {
                // The queue does with it what its policy says.
                let token = received.token;
                self.lanes.finish(place);
                self.puller.release(token);
                continue;
            }
            let (endpoint, received) = (Arc::clone(&self.work.endpoint), received.clone());
            let attempt = async move { (place, endpoint.attempt(&received, number).await) };
            self.names.push((self.attempts.spawn(attempt), place));
        }
    }

    /// Does what the answer to an attempt calls for.
    fn settle(&mut self, place: Place, answer: &Answer, order: Order) -> Option<End> {
        let now = self.work.shared.clock.refresh();
        let complaint = answer.complaint();
        #[expect(clippy::cast_possible_truncation, reason = "any 32 of the bits are random")]
        let verdict = judge(answer, self.lanes.attempts(place), &self.work.retries, random() as u32);
        {
            let mut status = self.work.status.lock();
            if let Answer::Status { status: code, .. } = answer {
                status.last_status = Some(*code);
            }
            match complaint {
                None => {
                    status.delivered += 1;
                    status.last_delivered_at = Some(now.wall);
                }
                Some(why) => {
                    status.failed += 1;
                    status.last_error = Some(why);
                    status.last_error_at = Some(now.wall);
                    status.dead_lettered += u64::from(verdict == Verdict::Reject);
                }
            }
        }
        let settlement = match verdict {
            Verdict::Accept => Settlement::Accepted,
            Verdict::Reject => Settlement::Rejected,
            Verdict::Remove => return Some(End::Gone),
            Verdict::Again { .. } if order != Order::Run => Settlement::Released,
            Verdict::Again { pause, all } => {
                let due = now.instant.after(pause);
                self.lanes.again(place, due);
                if all {
                    self.lanes.hold(due);
                }
                return None;
            }
        };
        if let Some(token) = self.lanes.finish(place).and_then(|received| received.token) {
            self.puller.settle(&[(token, settlement)], false);
        }
        None
    }

    fn publish(&self, now: Instant, wall: Timestamp) {
        let mut status = self.work.status.lock();
        status.running = self.lanes.running();
        status.held = self.lanes.len();
        status.next_attempt = self.lanes.next_attempt().map(|due| wall.after(due.since(now)));
    }
}

impl Drop for Shift<'_> {
    /// Whatever ended it, nothing that it holds is lost.
    fn drop(&mut self) {
        self.attempts.abort_all();
        self.puller.give_back();
        let back = self.lanes.drain();
        self.puller.release(back.iter().filter_map(|one| one.token));
        let mut status = self.work.status.lock();
        (status.running, status.held, status.next_attempt) = (0, 0, None);
    }
}
