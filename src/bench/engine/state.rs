//! What a run knows of its messages: how far the senders are, what has come, how long it took, and what is wrong.

use crate::dialect::Sink;
use crate::latency::Latency;
use crate::pace::Pace;
use crate::stamp::{self, Reading, STAMP_BYTES};
use crate::verify::{Ledger, Order};

use super::lane::Lane;

/// The counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// Messages that came for the first time to whom they were to come.
    pub(crate) delivered: u64,
}

/// Everything but the connections.
pub(crate) struct State {
    pub(crate) run: u16,
    pub(crate) size: usize,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) orders: Vec<Order>,
    pub(crate) counts: Counts,
    pub(crate) pace: Option<Pace>,
    /// Nothing that was sent before is measured.
    pub(crate) measured_from: u64,
    pub(crate) latency: Latency,
    pub(crate) ack_latency: Latency,
    /// Latencies of the slice at hand.
    pub(crate) slice_latency: Option<Latency>,
    pub(crate) redelivered: u64,
    pub(crate) corrupted: u64,
    pub(crate) foreign: u64,
    /// Senders that may be able to go on.
    pub(crate) touched: Vec<usize>,
    is_touched: Vec<bool>,
}

impl State {
    pub(crate) fn new(run: u16, size: usize, lanes: Vec<Lane>, pace: Option<Pace>) -> Self {
        Self {
            run,
            size,
            is_touched: vec![false; lanes.len()],
            lanes,
            ledgers: Vec::new(),
            orders: Vec::new(),
            counts: Counts::default(),
            pace,
            measured_from: 0,
            latency: Latency::new(),
            ack_latency: Latency::new(),
            slice_latency: None,
            redelivered: 0,
            corrupted: 0,
            foreign: 0,
            touched: Vec::new(),
        }
    }

    /// Somebody who gets the messages of `count` senders from `first` on. What he is to be called.
    pub(crate) fn add_ledger(&mut self, first: usize, count: usize) -> usize {
        self.ledgers.push(Ledger::new(first, count));
        self.ledgers.len() - 1
    }

    /// A connection that gets them.
    pub(crate) fn add_order(&mut self, first: usize, count: usize) -> usize {
        self.orders.push(Order::new(first, count));
        self.orders.len() - 1
    }

    /// A sender may be able to go on.
    pub(crate) fn touch(&mut self, sender: usize) {
        if let Some(touched) = self.is_touched.get_mut(sender)
            && !*touched
        {
            *touched = true;
            self.touched.push(sender);
        }
    }

    /// Those senders; they are to be looked at now.
    pub(crate) fn take_touched(&mut self, into: &mut Vec<usize>) {
        into.clear();
        into.append(&mut self.touched);
        for sender in into.iter() {
            if let Some(touched) = self.is_touched.get_mut(*sender) {
                *touched = false;
            }
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        let sent = |sender: usize| self.lanes.get(sender).map_or(0, |lane| lane.sent);
        self.ledgers.iter().map(|ledger| ledger.lost(sent)).sum()
    }

    pub(crate) fn duplicated(&self) -> u64 {
        self.ledgers.iter().map(Ledger::duplicates).sum()
    }

    pub(crate) fn reordered(&self) -> u64 {
        self.orders.iter().map(|order| order.reordered).sum()
    }

    fn note(&mut self, body: &[u8], again: bool, ledger: usize, order: usize, now: u64) {
        let stamp = match stamp::read(body, self.run, self.size) {
            Reading::Whole(stamp) => stamp,
            Reading::Corrupted => {
                self.corrupted += 1;
                return;
            }
            Reading::Foreign => {
                self.foreign += 1;
                return;
            }
        };
        self.redelivered += u64::from(again);
        let sender = usize::from(stamp.sender);
        match self.ledgers.get_mut(ledger).and_then(|ledger| ledger.note(sender, stamp.number)) {
            None => self.foreign += 1,
            Some(false) => {}
            Some(true) => {
                self.counts.delivered += 1;
                if let Some(order) = self.orders.get_mut(order) {
                    order.note(sender, stamp.number);
                }
                if stamp.time_ns >= self.measured_from {
                    self.latency.record(now.saturating_sub(stamp.time_ns));
                }
                if let Some(lane) = self.lanes.get_mut(sender) {
                    lane.note_come(stamp.number);
                }
                self.touch(sender);
            }
        }
    }

    fn note_acknowledged(&mut self, sender: usize, first: u64, count: u64, now: u64) {
        let Some(lane) = self.lanes.get_mut(sender) else { return };
        lane.acknowledged += count;
        self.counts.acknowledged += count;
        for number in first..first + count {
            let sent_at = match &self.pace {
                Some(pace) => Some(pace.intended(sender, number).as_nanos() as u64),
                None => lane.sent_at(number),
            };
            let Some(sent_at) = sent_at.filter(|at| *at >= self.measured_from) else { continue };
            self.ack_latency.record(now.saturating_sub(sent_at));
            if let Some(slice) = &mut self.slice_latency {
                slice.record(now.saturating_sub(sent_at));
            }
        }
        self.touch(sender);
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Sender {
        lane: usize,
    },
    Receiver {
        ledger: usize,
        order: usize,
    },
    /// Sends questions and receives the answers.
    Asker {
        lane: usize,
        ledger: usize,
        order: usize,
    },
    /// Sends back what it receives.
    Answerer,
}

/// Takes what one connection has read.
pub(crate) struct Taker<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) part: Part,
    /// Nanoseconds since the beginning of the run.
    pub(crate) now: u64,
    /// Bodies to be sent back, one behind the other.
    pub(crate) questions: &'a mut Vec<u8>,
}

impl Sink for Taker<'_> {
    fn message(&mut self, body: &[u8], again: bool) {
        match self.part {
            Part::Receiver { ledger, order } | Part::Asker { ledger, order, .. } => {
                self.state.note(body, again, ledger, order, self.now);
            }
            Part::Answerer if body.len() == self.state.size && body.len() >= STAMP_BYTES => {
                self.questions.extend_from_slice(body);
            }
            Part::Answerer | Part::Sender { .. } => self.state.foreign += 1,
        }
    }

    fn acknowledged(&mut self, first: u64, count: u64) {
        match self.part {
            Part::Sender { lane } | Part::Asker { lane, .. } => {
                self.state.note_acknowledged(lane, first, count, self.now);
            }
            // Nobody waits for the receipts of answers.
            Part::Receiver { .. } | Part::Answerer => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::lane::Hold;
    use crate::stamp::Source;

    #[test]
    fn what_comes_is_counted_once_and_for_what_it_is() {
        let mut lane = Lane::new(Hold::Received, 10, 1);
        lane.limit = 10;
        let mut state = State::new(3, 64, vec![lane], None);
        state.counts.sent = 4;
        state.lanes[0].note_sent(4, 0);
        let part = Part::Receiver { ledger: state.add_ledger(0, 1), order: state.add_order(0, 1) };
        let source = Source::new(3, 0, 64);
        let mut body = source.body();
        for number in [0, 2, 1, 2] {
            source.stamp(&mut body, number, 1000);
            Taker { state: &mut state, part, now: 3000, questions: &mut Vec::new() }.message(&body, true);
        }
        body[63] ^= 1;
        let mut taker = Taker { state: &mut state, part, now: 3000, questions: &mut Vec::new() };
        taker.message(&body, false);
        taker.message(b"hello", false);
        assert_eq!((state.counts.delivered, state.redelivered), (3, 4));
        assert_eq!((state.lost(), state.duplicated(), state.reordered()), (1, 1, 1));
        assert_eq!((state.corrupted, state.foreign, state.touched.len()), (1, 1, 1));
        assert!((state.latency.quantile_us(1.0) - 2.0).abs() < 0.1);
    }

    #[test]
    fn latency_at_a_rate_counts_from_the_instant_that_was_intended() {
        let mut state = State::new(3, 64, vec![Lane::new(Hold::Pace, 0, 0)], Some(Pace::new(1000.0, 1)));
        let mut questions = Vec::new();
        // Number 5 was to leave at 5 ms, whenever it did.
        let mut taker = Taker {
            state: &mut state,
            part: Part::Sender { lane: 0 },
            now: 9_000_000,
            questions: &mut questions,
        };
        taker.acknowledged(5, 1);
        assert!((state.ack_latency.quantile_us(1.0) - 4000.0).abs() < 10.0);
        assert_eq!(state.counts.acknowledged, 1);
    }
}
