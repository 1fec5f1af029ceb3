//! The turns of a run: write what may be written, wait, read what has come.

use std::time::Duration;

use crate::latency::Latency;
use crate::stamp::{self, Reading};
use crate::watch::{Lap, Watch};

use super::lane::Hold;
use super::slices::Slices;
use super::state::{Counts, Part, Taker};
use super::{Engine, Peer};

/// How often memory is looked at and progress shown.
const TICK: Duration = Duration::from_millis(100);
/// Whatever comes twice may do so this long after everything has come.
const LINGER: Duration = Duration::from_millis(100);
/// Writes of one sender in one turn. Then the others have theirs, and what has come is read.
const WRITES_MAX: u32 = 64;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    /// Everything has been sent; what is under way comes to its end.
    Settling,
}

impl Engine<'_> {
    /// Runs. What was counted before the measured part, and how that went.
    pub(super) fn turns(&mut self) -> Result<(Counts, Lap), String> {
        self.begin = std::time::Instant::now();
        let mut phase = Phase::WarmUp;
        let mut watch = self.watch();
        let mut before = self.state.counts;
        for sender in 0..self.senders.len() {
            self.limit(sender, u64::MAX);
            self.state.touch(sender);
        }
        for index in 0..self.peers.len() {
            self.take_early(index)?;
        }
        let mut moved = (self.state.counts, Duration::ZERO);
        let mut next_tick = TICK;
        let mut order = Vec::new();
        let patience = self.plan.common.patience();
        let end = self.plan.warmup + self.plan.duration;
        loop {
            let now = self.begin.elapsed();
            if phase == Phase::WarmUp && now >= self.plan.warmup {
                phase = Phase::Measured;
                if !self.plan.warmup.is_zero() {
                    (watch, before) = (self.watch(), self.state.counts);
                }
                self.measure(now);
            }
            let timed = self.plan.messages.is_none() && !self.senders.is_empty();
            if phase == Phase::Measured && if timed { now >= end } else { self.is_all_sent() } {
                phase = Phase::Settling;
                self.stop_sending(if timed { end } else { now });
            }
            self.pump(now, &mut order);
            if !self.problems.is_empty()
                || (phase == Phase::Settling && self.is_all_sent() && self.is_settled())
            {
                break;
            }
            if self.state.counts != moved.0 {
                moved = (self.state.counts, now);
            } else if now.saturating_sub(moved.1) > patience && !self.waits_for_pace(now) {
                self.problems.push(format!("nothing has moved for {} s", patience.as_secs()));
                break;
            }
            if self.first_delivery.is_none() && self.state.counts.delivered > 0 {
                self.first_delivery = Some(self.made.elapsed());
            }
            self.slice(&mut watch);
            if now >= next_tick {
                next_tick = now + TICK;
                watch.sample();
                self.show();
            }
            let mut until = next_tick;
            match phase {
                Phase::WarmUp => until = until.min(self.plan.warmup),
                Phase::Measured if timed => until = until.min(end),
                Phase::Measured | Phase::Settling => {}
            }
            if let Some(pace) = &self.state.pace
                && phase != Phase::Settling
            {
                until = until.min(pace.instant(self.due));
            }
            let now = self.begin.elapsed();
            let wait = if self.state.touched.is_empty() { until.saturating_sub(now) } else { Duration::ZERO };
            self.wait(wait)?;
        }
        let lap = self.finish(watch)?;
        Ok((before, lap))
    }

    /// The measured part begins.
    fn measure(&mut self, now: Duration) {
        self.state.measured_from = now.as_nanos() as u64;
        self.state.latency.clear();
        self.state.ack_latency.clear();
        let Some(messages) = self.plan.messages else { return };
        let senders = (self.senders.len() as u64).max(1);
        for (sender, lane) in self.state.lanes.iter_mut().enumerate().take(self.senders.len()) {
            let share = messages / senders + u64::from((sender as u64) < messages % senders);
            lane.limit = lane.sent + share;
        }
        if self.plan.slices > 0 {
            self.slices = Some(Slices::new(messages, self.plan.slices));
            self.state.slice_latency = Some(Latency::new());
        }
    }

    /// Nothing more is sent than what has been or, at a rate, should have been by then.
    fn stop_sending(&mut self, by: Duration) {
        let pace = self.state.pace;
        for sender in 0..self.senders.len() {
            let Some(lane) = self.state.lanes.get_mut(sender) else { continue };
            let due = pace.map_or(0, |pace| pace.due(sender, by));
            lane.limit = lane.sent.max(due.min(lane.limit));
            self.state.touch(sender);
        }
    }

    fn limit(&mut self, sender: usize, limit: u64) {
        if let Some(lane) = self.state.lanes.get_mut(sender) {
            lane.limit = limit;
        }
    }

    fn is_all_sent(&self) -> bool {
        self.state.lanes.iter().all(|lane| lane.left() == 0)
    }

    fn is_settled(&self) -> bool {
        let counts = self.state.counts;
        let acknowledged =
            !self.plan.from.acknowledges() || self.senders.is_empty() || counts.acknowledged >= counts.sent;
        acknowledged
            && counts.delivered >= counts.sent * self.copies()
            && self.peers.iter().all(|peer| !peer.link.is_blocked())
    }

    /// Whether nothing moves because nothing is to be sent yet.
    fn waits_for_pace(&self, now: Duration) -> bool {
        let counts = self.state.counts;
        let waits = self.state.pace.as_ref().is_some_and(|pace| pace.instant(self.due) > now);
        waits && counts.delivered >= counts.sent * self.copies() && !self.is_all_sent()
    }

    /// Messages that count for a part of the run.
    fn reached(&self) -> u64 {
        let counts = self.state.counts;
        match (self.senders.is_empty(), self.plan.from.acknowledges()) {
            (true, _) => counts.delivered,
            (false, true) => counts.acknowledged,
            (false, false) => counts.sent,
        }
    }

    fn slice(&mut self, watch: &mut Watch) {
        let reached = self.reached();
        if let (Some(slices), Some(latency)) = (&mut self.slices, &mut self.state.slice_latency)
            && slices.is_due(reached)
        {
            let usage = watch.sample();
            slices.cut(reached, watch, usage, latency);
        }
    }

    fn show(&mut self) {
        let counts = self.state.counts;
        let latency = if self.copies() > 0 { &self.state.latency } else { &self.state.ack_latency };
        let p99 = (!latency.is_empty()).then(|| latency.quantile_us(0.99));
        let wanted = counts.sent * self.copies();
        let (done, of) = if wanted > 0 {
            (counts.delivered, self.plan.messages.map(|messages| messages * self.copies()))
        } else {
            (self.reached(), self.plan.messages)
        };
        let under_way = match (wanted, self.plan.from.acknowledges()) {
            (0, true) => counts.sent - counts.acknowledged.min(counts.sent),
            _ => wanted.saturating_sub(counts.delivered),
        };
        self.progress.show(done, of, under_way, p99);
    }

    /// Everything has come; a moment for what comes too often.
    fn finish(&mut self, mut watch: Watch) -> Result<Lap, String> {
        let reached = self.reached();
        if let (Some(slices), Some(latency)) = (&mut self.slices, &mut self.state.slice_latency) {
            let usage = watch.sample();
            slices.cut(reached, &watch, usage, latency);
        }
        let lap = watch.stop();
        if self.problems.is_empty() {
            let end = self.begin.elapsed() + LINGER;
            while let Some(wait) = end.checked_sub(self.begin.elapsed()).filter(|wait| !wait.is_zero()) {
                self.wait(wait)?;
            }
        }
        Ok(lap)
    }

    /// Lets every sender that may be able to go on do so.
    fn pump(&mut self, now: Duration, order: &mut Vec<usize>) {
        if let Some(pace) = self.state.pace {
            let all = pace.due_in_all(now);
            let senders = self.senders.len() as u64;
            let fresh = self.due..all.min(self.due + senders);
            self.due = all;
            fresh.for_each(|number| self.state.touch((number % senders) as usize));
        }
        self.state.take_touched(order);
        for sender in order.iter().copied() {
            let Some(index) = self.senders.get(sender).copied() else { continue };
            let mut problem = None;
            for turn in 0.. {
                if turn == WRITES_MAX {
                    self.state.touch(sender);
                    break;
                }
                match self.write(sender, index, now) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        problem = Some(format!("sender: {error}"));
                        break;
                    }
                }
            }
            self.problems.extend(problem);
        }
    }

    /// One write of a sender, if it may; false if it may not go on.
    fn write(&mut self, sender: usize, index: usize, now: Duration) -> Result<bool, String> {
        let (Some(peer), Some(lane)) = (self.peers.get_mut(index), self.state.lanes.get_mut(sender)) else {
            return Ok(false);
        };
        if peer.link.is_blocked() || lane.left() == 0 {
            return Ok(false);
        }
        // What goes together goes when there is room for all of it, and the last of it may be less.
        let unit = self.plan.from.unit().min(lane.left());
        let whole = |count: u64| (count / unit * unit).max(unit).min(lane.left());
        let room = lane.room(self.plan.hold, self.plan.window).min(peer.speaker.room());
        let wanted = match &self.state.pace {
            Some(pace) => {
                let due = pace.due(sender, now).saturating_sub(lane.sent);
                whole(due.min(self.plan.batch).min(room)).min(due / unit * unit)
            }
            // Half a window at a time, so that the other half is under way meanwhile.
            None if self.plan.hold == Hold::Socket => whole(self.plan.batch),
            None => {
                let window = self.plan.window.min(peer.speaker.room_max());
                whole(self.plan.batch.min(window.div_ceil(2)))
            }
        };
        let count = if room >= wanted { wanted } else { 0 };
        if count == 0 {
            return Ok(false);
        }
        let first = lane.sent;
        let nanos = self.begin.elapsed().as_nanos() as u64;
        let pace = self.state.pace;
        let time = |number| pace.map_or(nanos, |pace| pace.intended(sender, number).as_nanos() as u64);
        match peer.letters.as_mut_slice() {
            [letter] => peer.speaker.send(&mut peer.link, letter, first, count, time)?,
            letters => {
                for number in first..first + count {
                    let place = (number % letters.len().max(1) as u64) as usize;
                    let Some(letter) = letters.get_mut(place) else { return Ok(false) };
                    peer.speaker.send(&mut peer.link, letter, number, 1, time)?;
                }
            }
        }
        lane.note_sent(count, nanos);
        self.state.counts.sent += count;
        let done = peer.link.flush()?;
        self.mind_writing(index, !done)?;
        Ok(done)
    }

    /// Watches a peer for room to write as long as it needs that.
    fn mind_writing(&mut self, index: usize, blocked: bool) -> Result<(), String> {
        match self.peers.get_mut(index) {
            Some(peer) if peer.writing != blocked => {
                peer.writing = blocked;
                self.poll.watch_writing(&peer.link, index, blocked)
            }
            _ => Ok(()),
        }
    }

    /// Waits, and takes what has come.
    fn wait(&mut self, time: Duration) -> Result<(), String> {
        self.poll.wait(time)?;
        for place in 0..self.poll.count() {
            let Some(ready) = self.poll.ready(place) else { continue };
            let Some(part) = self.peers.get(ready.index).map(|peer| peer.part) else { continue };
            let done = self.serve(ready.index, part, ready.readable);
            if let Err(error) = done {
                let who = match part {
                    Part::Sender { .. } | Part::Asker { .. } => "sender",
                    Part::Receiver { .. } | Part::Answerer => "receiver",
                };
                self.problems.push(format!("{who}: {error}"));
                // It would be ready for ever.
                return Ok(());
            }
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, part: Part, readable: bool) -> Result<(), String> {
        if readable {
            self.read(index, part)?;
        }
        let Some(peer) = self.peers.get_mut(index) else { return Ok(()) };
        if !peer.link.is_blocked() && !peer.writing {
            return Ok(());
        }
        let done = peer.link.flush()?;
        if done && let Part::Sender { lane } | Part::Asker { lane, .. } = part {
            self.state.touch(lane);
        }
        self.mind_writing(index, !done)
    }

    /// What came with the greeting is taken first: nothing else may follow before it is.
    fn take_early(&mut self, index: usize) -> Result<(), String> {
        let Some(peer) = self.peers.get_mut(index) else { return Ok(()) };
        let (part, early) = (peer.part, peer.link.early());
        if !early.is_empty() {
            self.take(index, part, &early)?;
            self.serve(index, part, false)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize, part: Part) -> Result<(), String> {
        let Some(peer) = self.peers.get_mut(index) else { return Ok(()) };
        // The scratch is out of its place as long as what it holds is looked at.
        let mut scratch = std::mem::take(&mut self.scratch);
        let done = match peer.link.read(&mut scratch) {
            Ok(Some(input)) => self.take(index, part, input),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.scratch = scratch;
        done
    }

    fn take(&mut self, index: usize, part: Part, input: &[u8]) -> Result<(), String> {
        let Some(peer) = self.peers.get_mut(index) else { return Ok(()) };
        let Peer { link, speaker, letters, .. } = peer;
        let now = self.begin.elapsed().as_nanos() as u64;
        let mut questions = Vec::new();
        let mut taker = Taker { state: &mut self.state, part, now, questions: &mut questions };
        let taken = speaker.receive(link, input, &mut taker)?;
        link.keep(input.get(taken..).unwrap_or_default());
        for body in questions.chunks_exact(self.plan.size) {
            match stamp::read(body, self.plan.run, self.plan.size) {
                Reading::Whole(stamp) => {
                    let Some(letter) = letters.get_mut(usize::from(stamp.sender)) else {
                        self.state.foreign += 1;
                        continue;
                    };
                    speaker.send(link, letter, stamp.number, 1, |_| stamp.time_ns)?;
                }
                Reading::Corrupted => self.state.corrupted += 1,
                Reading::Foreign => self.state.foreign += 1,
            }
        }
        Ok(())
    }
}
