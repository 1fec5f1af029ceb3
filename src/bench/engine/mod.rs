//! Loads a broker: one thread, all connections, and every message checked. Here is what to do and how it went; [`turn`]
//! does it, [`state`] knows the messages, [`lane`] one sender.

pub(crate) mod lane;
pub(crate) mod slices;
mod state;
mod turn;

use std::time::{Duration, Instant};

use crate::dialect::{Dialect, Letter, Opening, Role, Speaker, Spot};
use crate::latency::Latency;
use crate::link::{Link, Scratch};
use crate::options::Common;
use crate::pace::Pace;
use crate::poll::Poll;
use crate::progress::Progress;
use crate::stamp::Source;
use crate::topology::Shape;
use crate::watch::{Lap, Watch};

use lane::{Hold, Lane};
use slices::{Slice, Slices};
use state::{Part, State};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// What the senders speak.
    pub(crate) from: &'a Dialect,
    /// What the receivers speak.
    pub(crate) to: &'a Dialect,
    pub(crate) shape: Shape,
    pub(crate) hold: Hold,
    /// Messages of one sender under way at once, where `hold` bounds them.
    pub(crate) window: u64,
    /// Messages in one write, at most.
    pub(crate) batch: u64,
    /// Bytes of each body.
    pub(crate) size: usize,
    /// What tells this run's messages from others'.
    pub(crate) run: u16,
    /// Messages in all, or as many as the time allows.
    pub(crate) messages: Option<u64>,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    /// Messages per second in all, in an open loop.
    pub(crate) rate: Option<f64>,
    /// Subscribers that never read.
    pub(crate) stalled: u16,
    /// Parts of the run that are told apart; none if zero. They need a number of messages.
    pub(crate) slices: u64,
    pub(crate) common: &'a Common,
}

/// How it went. The counts of what was wrong are of the whole run, the others of its measured part.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    /// Whether anybody was to receive.
    pub(crate) has_receivers: bool,
    /// How many each sender sent in the whole run.
    pub(crate) sent_by: Vec<u64>,
    pub(crate) lost: u64,
    pub(crate) unacknowledged: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupted: u64,
    pub(crate) foreign: u64,
    pub(crate) redelivered: u64,
    pub(crate) latency: Latency,
    pub(crate) ack_latency: Latency,
    /// From before the receivers connected until the first message came.
    pub(crate) first_delivery: Option<Duration>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) lap: Lap,
    /// What broke, in sentences.
    pub(crate) problems: Vec<String>,
}

impl Outcome {
    /// Nothing is missing, doubled, out of order or broken.
    pub(crate) fn is_clean(&self) -> bool {
        let wrong =
            [self.lost, self.unacknowledged, self.duplicated, self.reordered, self.corrupted, self.foreign];
        wrong.iter().all(|count| *count == 0) && self.problems.is_empty()
    }
}

/// A number that is unlikely to be that of an earlier run.
pub(crate) fn new_run() -> u16 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish() as u16
}

/// One connection.
struct Peer {
    link: Link,
    speaker: Speaker,
    part: Part,
    /// What it sends, in turn; of one who answers, an answer for each who asks.
    letters: Vec<Letter>,
    /// Whether it is watched for room to write.
    writing: bool,
}

/// A run.
struct Engine<'a> {
    plan: Plan<'a>,
    peers: Vec<Peer>,
    /// The peer of each sender.
    senders: Vec<usize>,
    state: State,
    poll: Poll,
    scratch: Scratch,
    /// Before anybody has connected.
    made: Instant,
    first_delivery: Option<Duration>,
    begin: Instant,
    /// Messages that the pace has had due.
    due: u64,
    progress: Progress,
    slices: Option<Slices>,
    problems: Vec<String>,
    /// They only have to be there.
    _stalled: Vec<Link>,
}

/// Sends and receives as planned.
///
/// # Errors
/// A sentence, if the broker cannot be reached or does not let somebody in.
pub(crate) fn run(plan: &Plan<'_>) -> Result<Outcome, String> {
    let senders = plan.shape.senders();
    let copies = plan.shape.copies();
    let lanes = (0..senders).map(|_| Lane::new(plan.hold, plan.window, copies)).collect();
    let pace = plan.rate.map(|rate| Pace::new(rate, senders));
    let mut engine = Engine::new(plan, lanes, pace)?;
    engine.open_receivers()?;
    engine.open_stalled()?;
    engine.open_senders()?;
    let outcome = engine.run();
    plan.to.forget(&mut Scratch::new(), plan.shape.receivers(), plan.common.patience());
    outcome
}

/// Receives what was sent before: so many messages by each sender.
///
/// # Errors
/// A sentence, if the broker cannot be reached or does not let somebody in.
pub(crate) fn drain(plan: &Plan<'_>, sent_by: &[u64]) -> Result<Outcome, String> {
    let lanes = sent_by.iter().map(|sent| Lane::finished(*sent)).collect();
    let mut engine = Engine::new(plan, lanes, None)?;
    engine.state.counts.sent = sent_by.iter().sum();
    for index in 0..plan.shape.receivers() {
        let (mut link, speaker) = engine.open(plan.to, Role::Receiver, index)?;
        plan.to.resume(&mut link)?;
        engine.join_sharer(link, speaker, index)?;
    }
    let mut outcome = engine.run()?;
    outcome.sent = sent_by.iter().sum();
    // They were sent in another run, and how long ago is no latency.
    outcome.latency.clear();
    Ok(outcome)
}

/// Sends to many destinations in turn what these connections, which are subscribed already, receive.
///
/// # Errors
/// A sentence, if the broker cannot be reached or does not let somebody in.
pub(crate) fn run_among(
    plan: &Plan<'_>,
    receivers: Vec<(Link, Speaker)>,
    spots: &[Spot],
) -> Result<Outcome, String> {
    let pace = plan.rate.map(|rate| Pace::new(rate, 1));
    let mut engine = Engine::new(plan, vec![Lane::new(plan.hold, plan.window, 1)], pace)?;
    for (index, (link, speaker)) in receivers.into_iter().enumerate() {
        engine.join_sharer(link, speaker, index)?;
    }
    let (link, speaker) = engine.open(plan.from, Role::Sender, 0)?;
    let letter = |spot: &Spot| plan.from.letter(*spot, Source::new(plan.run, 0, plan.size));
    let letters = spots.iter().map(letter).collect::<Result<_, _>>()?;
    engine.senders.push(engine.peers.len());
    engine.join(link, speaker, Part::Sender { lane: 0 }, letters)?;
    engine.run()
}

impl<'a> Engine<'a> {
    fn new(plan: &Plan<'a>, lanes: Vec<Lane>, pace: Option<Pace>) -> Result<Self, String> {
        Ok(Self {
            plan: *plan,
            peers: Vec::new(),
            senders: Vec::new(),
            state: State::new(plan.run, plan.size, lanes, pace),
            poll: Poll::new()?,
            scratch: Scratch::new(),
            made: Instant::now(),
            first_delivery: None,
            begin: Instant::now(),
            due: 0,
            progress: Progress::new(),
            slices: None,
            problems: Vec::new(),
            _stalled: Vec::new(),
        })
    }

    fn opening(&self, role: Role, index: usize) -> Opening {
        let in_flight_max = match role {
            Role::Sender if self.plan.rate.is_none() => u16::try_from(self.plan.window).unwrap_or(u16::MAX),
            // The one who answers may have as much under way as all who ask.
            Role::Sender | Role::Receiver | Role::Idle => u16::MAX,
        };
        let patience = self.plan.common.patience();
        Opening { role, index, in_flight_max, source: None, patience }
    }

    fn open(&mut self, dialect: &Dialect, role: Role, index: usize) -> Result<(Link, Speaker), String> {
        let opening = self.opening(role, index);
        let who = if role == Role::Sender { "sender" } else { "receiver" };
        dialect.open(&mut self.scratch, &opening).map_err(|error| format!("{who}: {error}"))
    }

    fn subscribe(
        &mut self,
        dialect: &Dialect,
        link: &mut Link,
        spot: Spot,
        shared: bool,
    ) -> Result<(), String> {
        dialect
            .subscribe(link, &mut self.scratch, spot, shared, self.plan.common.patience())
            .map_err(|error| format!("receiver: {error}"))
    }

    /// A peer joins. From now on its socket does not block.
    fn join(&mut self, link: Link, speaker: Speaker, part: Part, letters: Vec<Letter>) -> Result<(), String> {
        link.unblock()?;
        self.poll.add(&link, self.peers.len())?;
        self.peers.push(Peer { link, speaker, part, letters, writing: false });
        Ok(())
    }

    /// One of those who share everything joins. They have one ledger.
    fn join_sharer(&mut self, link: Link, speaker: Speaker, index: usize) -> Result<(), String> {
        let senders = self.state.lanes.len();
        let ledger = if index == 0 { self.state.add_ledger(0, senders) } else { 0 };
        let order = self.state.add_order(0, senders);
        self.join(link, speaker, Part::Receiver { ledger, order }, Vec::new())
    }

    fn open_receivers(&mut self) -> Result<(), String> {
        let (to, senders) = (self.plan.to, self.state.lanes.len());
        match self.plan.shape {
            Shape::Each { receivers, .. } => {
                for index in 0..usize::from(receivers) {
                    let (mut link, speaker) = self.open(to, Role::Receiver, index)?;
                    self.subscribe(to, &mut link, Spot::Main, false)?;
                    let ledger = self.state.add_ledger(0, senders);
                    let order = self.state.add_order(0, senders);
                    self.join(link, speaker, Part::Receiver { ledger, order }, Vec::new())?;
                }
            }
            Shape::Share { receivers, .. } => {
                for index in 0..usize::from(receivers) {
                    let (mut link, speaker) = self.open(to, Role::Receiver, index)?;
                    self.subscribe(to, &mut link, Spot::Main, true)?;
                    self.join_sharer(link, speaker, index)?;
                }
            }
            Shape::Pairs(count) => {
                for index in 0..usize::from(count) {
                    let (mut link, speaker) = self.open(to, Role::Receiver, index)?;
                    self.subscribe(to, &mut link, Spot::Pair(index), false)?;
                    let (ledger, order) = (self.state.add_ledger(index, 1), self.state.add_order(index, 1));
                    self.join(link, speaker, Part::Receiver { ledger, order }, Vec::new())?;
                }
            }
            Shape::Request(count) => {
                let (mut link, speaker) = self.open(to, Role::Receiver, 0)?;
                self.subscribe(to, &mut link, Spot::Main, false)?;
                let letters = (0..count)
                    .map(|asker| {
                        let source = Source::new(self.plan.run, asker, self.plan.size);
                        to.letter(Spot::Reply(asker.into()), source)
                    })
                    .collect::<Result<_, _>>()?;
                self.join(link, speaker, Part::Answerer, letters)?;
            }
        }
        Ok(())
    }

    fn open_stalled(&mut self) -> Result<(), String> {
        for index in 0..usize::from(self.plan.stalled) {
            let place = self.plan.shape.receivers() + index;
            let (mut link, _) = self.open(self.plan.to, Role::Receiver, place)?;
            self.subscribe(self.plan.to, &mut link, Spot::Main, false)?;
            self._stalled.push(link);
        }
        Ok(())
    }

    fn open_senders(&mut self) -> Result<(), String> {
        let from = self.plan.from;
        for lane in 0..self.state.lanes.len() {
            let (mut link, speaker) = self.open(from, Role::Sender, lane)?;
            let sender = u16::try_from(lane).map_err(|_| "too many senders")?;
            let source = Source::new(self.plan.run, sender, self.plan.size);
            let (spot, part) = match self.plan.shape {
                Shape::Each { .. } | Shape::Share { .. } => (Spot::Main, Part::Sender { lane }),
                Shape::Pairs(_) => (Spot::Pair(lane), Part::Sender { lane }),
                Shape::Request(_) => {
                    self.subscribe(from, &mut link, Spot::Reply(lane), false)?;
                    let (ledger, order) = (self.state.add_ledger(lane, 1), self.state.add_order(lane, 1));
                    (Spot::Main, Part::Asker { lane, ledger, order })
                }
            };
            let letter = from.letter(spot, source)?;
            self.senders.push(self.peers.len());
            self.join(link, speaker, part, vec![letter])?;
        }
        Ok(())
    }

    /// Whether what is sent comes back in one way or the other.
    fn copies(&self) -> u64 {
        self.plan.shape.copies().into()
    }

    /// From the beginning to the end.
    fn run(mut self) -> Result<Outcome, String> {
        let (before, lap) = self.turns()?;
        self.progress.end();
        for peer in &mut self.peers {
            peer.speaker.leave(&mut peer.link);
        }
        let counts = self.state.counts;
        let has_acks = self.plan.from.acknowledges() && !self.senders.is_empty();
        if self.state.foreign > 0 {
            let foreign = self.state.foreign;
            self.problems.push(format!("{foreign} messages came that are none of this measurement"));
        }
        Ok(Outcome {
            sent: counts.sent - before.sent,
            delivered: counts.delivered - before.delivered,
            has_receivers: self.copies() > 0,
            sent_by: self.state.lanes.iter().map(|lane| lane.sent).collect(),
            lost: self.state.lost(),
            unacknowledged: if has_acks { counts.sent - counts.acknowledged.min(counts.sent) } else { 0 },
            duplicated: self.state.duplicated(),
            reordered: self.state.reordered(),
            corrupted: self.state.corrupted,
            foreign: self.state.foreign,
            redelivered: self.state.redelivered,
            latency: self.state.latency,
            ack_latency: self.state.ack_latency,
            first_delivery: self.first_delivery,
            slices: self.slices.map(Slices::done).unwrap_or_default(),
            lap,
            problems: self.problems,
        })
    }

    fn watch(&self) -> Watch {
        Watch::start(self.plan.common.pid, self.plan.common.syscalls)
    }
}
