//! What is alive, and where: a pure function of the log. The committer applies every frame it wrote, recovery
//! every frame it reads, through the same [`Index::apply`]; nothing else changes it, and nothing trusts it
//! over the log.
//!
//! Per queue it keeps *runs*: ranges of consecutive live numbers in one segment. Whatever is in no run is
//! settled (acknowledged, or a number that was never logged). Memory is therefore proportional to the number
//! of live *ranges*, about 48 bytes each, not to the number of messages: a backlog of consecutive numbers
//! costs one run per segment.

use crate::record::{Op, Ops, Targets};
use crate::segment::Header;
use foldhash::fast::FixedState;
use sabir_model::ids::{QueueId, Sequence};
use std::collections::{BTreeMap, HashMap};

/// Live numbers `first..=last` (the last is the key it is kept under) in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) segment: u64,
    /// The queue and first number by which the put records in the segment name these messages. Differs from the
    /// run's own where the queue holds them by reference.
    pub(crate) origin: (u64, u64),
}

impl Run {
    fn advance(&mut self, to: u64) {
        self.origin.1 += to - self.first;
        self.first = to;
    }

    /// Whether the record of `sequence`, at `origin` in `segment`, continues this run that ends at `last`.
    fn continues(&self, last: u64, sequence: u64, segment: u64, origin: (u64, u64)) -> bool {
        last.checked_add(1) == Some(sequence)
            && self.segment == segment
            && self.origin.0 == origin.0
            && self.origin.1.checked_add(sequence - self.first) == Some(origin.1)
    }
}

/// One queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Next unused number.
    pub(crate) next: u64,
    /// The newest run: kept out of the map because appending moves its end.
    tail: Option<(u64, Run)>,
    runs: BTreeMap<u64, Run>,
    pub(crate) attempts: BTreeMap<u64, u32>,
    /// Whether any run may be held by reference.
    foreign: bool,
}

impl Queue {
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, &Run)> {
        self.runs
            .iter()
            .map(|(last, run)| (*last, run))
            .chain(self.tail.iter().map(|(last, run)| (*last, run)))
    }

    pub(crate) fn find(&self, sequence: u64) -> Option<&Run> {
        let (_, run) = match &self.tail {
            Some((last, run)) if sequence >= run.first => (sequence <= *last).then_some((last, run))?,
            _ => self.runs.range(sequence..).next()?,
        };
        (run.first <= sequence).then_some(run)
    }

    fn live_ranges(&self) -> usize {
        self.runs.len() + usize::from(self.tail.is_some())
    }

    fn insert(&mut self, sequence: u64, segment: u64, origin: (u64, u64)) {
        let run = Run { first: sequence, segment, origin };
        match &mut self.tail {
            None if self.runs.last_key_value().is_none_or(|(&last, _)| last < sequence) => {
                self.tail = Some((sequence, run));
            }
            Some((last, tail)) if tail.continues(*last, sequence, segment, origin) => *last = sequence,
            Some((last, tail)) if sequence > *last => {
                self.runs.insert(*last, *tail);
                self.tail = Some((sequence, run));
            }
            _ => {
                let before = sequence.wrapping_sub(1);
                match self.runs.get(&before) {
                    Some(left) if left.continues(before, sequence, segment, origin) => {
                        let left = *left;
                        self.runs.remove(&before);
                        self.runs.insert(sequence, left);
                    }
                    _ => {
                        self.runs.insert(sequence, run);
                    }
                }
            }
        }
    }

    /// Takes `first..=last` out; tells `gone` the segment and length of every piece that was live.
    fn remove(&mut self, mut first: u64, last: u64, mut gone: impl FnMut(u64, u64)) {
        if let Some((end, run)) = &mut self.tail
            && first <= *end
            && last >= run.first
        {
            let (low, high) = (first.max(run.first), last.min(*end));
            gone(run.segment, high - low + 1);
            match (low == run.first, high == *end) {
                (true, true) => self.tail = None,
                (true, false) => run.advance(high + 1),
                (false, true) => *end = low - 1,
                (false, false) => {
                    self.runs.insert(low - 1, *run);
                    run.advance(high + 1);
                    return;
                }
            }
        }
        while first <= last {
            let Some((&end, run)) = self.runs.range_mut(first..).next() else { return };
            if run.first > last {
                return;
            }
            let (low, high) = (first.max(run.first), last.min(end));
            gone(run.segment, high - low + 1);
            let left = *run;
            match (low == run.first, high == end) {
                (true, true) => {
                    self.runs.remove(&end);
                }
                (true, false) => {
                    run.advance(high + 1);
                    return;
                }
                (false, true) => {
                    self.runs.remove(&end);
                    self.runs.insert(low - 1, left);
                }
                (false, false) => {
                    run.advance(high + 1);
                    self.runs.insert(low - 1, left);
                    return;
                }
            }
            let Some(next) = high.checked_add(1) else { return };
            first = next;
        }
    }

    /// Adds a run read from a checkpoint. Runs come in ascending order; false if this one does not.
    pub(crate) fn restore(&mut self, last: u64, run: Run, own: bool) -> bool {
        if last < run.first || self.tail.as_ref().is_some_and(|(before, _)| *before >= run.first) {
            return false;
        }
        if let Some((before, tail)) = self.tail.replace((last, run)) {
            self.runs.insert(before, tail);
        }
        self.foreign |= !own;
        true
    }
}

/// One segment file that holds something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Targets of its puts that are live.
    pub(crate) live: u64,
    /// Targets of its puts, ever.
    pub(crate) total: u64,
    /// End of its last frame.
    pub(crate) end: u64,
    /// Evacuation is not worth while before `live` falls below this.
    pub(crate) patience: Option<u64>,
}

/// Metadata entries by table and key.
pub(crate) type Meta = BTreeMap<(u8, Box<[u8]>), Box<[u8]>>;

type Map<K, V> = HashMap<K, V, FixedState>;

/// Everything the log says, but the messages themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub(crate) meta: Meta,
    pub(crate) queues: Map<u64, Queue>,
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// The segment of the last frame.
    pub(crate) active: u64,
    /// The last position applied.
    pub(crate) lsn: u64,
    pub(crate) acknowledged: u64,
    pub(crate) references_lost: u64,
    /// Part of the log is missing: a message that was copied forward is taken for alive although its first
    /// record was not seen. Better delivered twice than never.
    pub(crate) salvage: bool,
}

impl Index {
    /// Applies a frame that lies in `segment` and ends at `end`. The frame has been checked to be well formed.
    pub(crate) fn apply(&mut self, segment: u64, end: u64, header: &Header, body: &[u8]) {
        self.active = segment;
        let info = self.segments.entry(segment).or_default();
        info.end = info.end.max(end);
        self.lsn = self.lsn.max(header.last());
        for op in Ops::new(body) {
            match op {
                Ok(Op::End) => {}
                Ok(Op::Put { moved: false, targets, .. }) => self.put(segment, targets),
                Ok(Op::Put { moved: true, targets, .. }) => self.relocate(segment, targets),
                Ok(Op::Acknowledge { queue, first, count }) => self.acknowledge(queue, first, count),
                Ok(Op::Reference { to, from }) => self.reference(to, from),
                Ok(Op::Attempts { queue, sequence, count }) => {
                    if let Some(queue) = self.queues.get_mut(&queue.0)
                        && queue.find(sequence).is_some()
                    {
                        queue.attempts.insert(sequence, count);
                    }
                }
                Ok(Op::DeleteQueue { queue }) => self.delete_queue(queue),
                Ok(Op::Set { table, key, value }) => {
                    self.meta.insert((table, key.into()), value.into());
                }
                Ok(Op::Remove { table, key }) => {
                    self.meta.remove(&(table, Box::from(key)));
                }
                Err(_) => return,
            }
        }
    }

    fn put(&mut self, segment: u64, targets: Targets<'_>) {
        let mut count = 0;
        for (queue, Sequence(sequence)) in targets {
            self.hold(queue, sequence, segment, (queue.0, sequence));
            count += 1;
        }
        let info = self.segments.entry(segment).or_default();
        info.live += count;
        info.total += count;
    }

    /// Makes a number live without counting it in its segment.
    fn hold(&mut self, queue_id: QueueId, sequence: u64, segment: u64, origin: (u64, u64)) {
        let queue = self.queues.entry(queue_id.0).or_default();
        if sequence < queue.next {
            // Not a new number: out of order, or (never by a sound broker) twice.
            let segments = &mut self.segments;
            queue.remove(sequence, sequence, |segment, n| release(segments, segment, n));
        } else {
            queue.next = sequence.saturating_add(1);
        }
        queue.insert(sequence, segment, origin);
        queue.foreign |= origin != (queue_id.0, sequence);
    }

    fn relocate(&mut self, segment: u64, targets: Targets<'_>) {
        let mut count = 0;
        for (queue, Sequence(sequence)) in targets {
            // What was acknowledged between the copy's reading and its writing stays acknowledged.
            if self.salvage || self.queues.get(&queue.0).is_some_and(|q| q.find(sequence).is_some()) {
                self.hold(queue, sequence, segment, (queue.0, sequence));
                count += 1;
            }
        }
        let info = self.segments.entry(segment).or_default();
        info.live += count;
        info.total += count;
    }

    fn reference(&mut self, to: (QueueId, Sequence), from: (QueueId, Sequence)) {
        let found = self.queues.get(&from.0.0).and_then(|queue| {
            let run = queue.find(from.1.0)?;
            Some((run.segment, (run.origin.0, run.origin.1 + (from.1.0 - run.first))))
        });
        match found {
            Some((segment, origin)) => {
                self.hold(to.0, to.1.0, segment, origin);
                let info = self.segments.entry(segment).or_default();
                info.live += 1;
                info.total += 1;
            }
            None => {
                self.references_lost += 1;
                let queue = self.queues.entry(to.0.0).or_default();
                queue.next = queue.next.max(to.1.0.saturating_add(1));
            }
        }
    }

    pub(crate) fn acknowledge(&mut self, queue: QueueId, first: u64, count: u64) {
        let Some(queue) = self.queues.get_mut(&queue.0) else { return };
        let Some(last) = count.checked_sub(1).map(|n| first.saturating_add(n)) else { return };
        let (segments, acknowledged) = (&mut self.segments, &mut self.acknowledged);
        queue.remove(first, last, |segment, n| {
            *acknowledged += n;
            release(segments, segment, n);
        });
        if !queue.attempts.is_empty() {
            let settled: Vec<u64> =
                queue.attempts.range(first..=last).map(|(sequence, _)| *sequence).collect();
            for sequence in settled {
                queue.attempts.remove(&sequence);
            }
        }
        if queue.tail.is_none() && queue.runs.is_empty() {
            queue.foreign = false;
        }
    }

    fn delete_queue(&mut self, queue: QueueId) {
        let Some(queue) = self.queues.remove(&queue.0) else { return };
        for (last, run) in queue.runs() {
            release(&mut self.segments, run.segment, last - run.first + 1);
        }
    }

    /// Sealed segments that hold nothing alive.
    pub(crate) fn dead_segments(&self) -> Vec<u64> {
        let dead =
            |(&number, info): (&u64, &Segment)| (info.live == 0 && number != self.active).then_some(number);
        self.segments.iter().filter_map(dead).collect()
    }

    /// Bytes of segments in use.
    pub(crate) fn journal_bytes(&self) -> u64 {
        self.segments.values().map(|info| info.end).sum()
    }

    pub(crate) fn live_ranges(&self) -> u64 {
        self.queues.values().map(|queue| queue.live_ranges() as u64).sum()
    }

    /// Messages of `segment` that queues hold by reference: the name in the record, then the holders.
    pub(crate) fn references_into(&self, segment: u64) -> References {
        let mut references = References::default();
        for (&id, queue) in self.queues.iter().filter(|(_, queue)| queue.foreign) {
            for (last, run) in queue.runs() {
                if run.segment != segment || run.origin == (id, run.first) {
                    continue;
                }
                for sequence in run.first..=last {
                    let origin = (run.origin.0, run.origin.1 + (sequence - run.first));
                    references.0.entry(origin).or_default().push((QueueId(id), Sequence(sequence)));
                }
            }
        }
        references
    }

    /// The live holders of a record in `segment` that names `targets`, each holder once.
    pub(crate) fn holders(
        &self,
        segment: u64,
        targets: Targets<'_>,
        references: &References,
        out: &mut Vec<(QueueId, Sequence)>,
    ) {
        out.clear();
        for (queue, sequence) in targets {
            let own = self.queues.get(&queue.0).and_then(|q| q.find(sequence.0)).is_some_and(|run| {
                run.segment == segment
                    && run.origin.0 == queue.0
                    && run.origin.1 + (sequence.0 - run.first) == sequence.0
            });
            if own {
                out.push((queue, sequence));
            }
            let Some(holders) = references.0.get(&(queue.0, sequence.0)) else { continue };
            for holder in holders {
                let still =
                    self.queues.get(&holder.0.0).and_then(|q| q.find(holder.1.0)).is_some_and(|run| {
                        run.segment == segment
                            && (run.origin.0, run.origin.1 + (holder.1.0 - run.first))
                                == (queue.0, sequence.0)
                    });
                if still {
                    out.push(*holder);
                }
            }
        }
    }
}

/// See [`Index::references_into`].
#[derive(Debug, Default)]
pub(crate) struct References(Map<(u64, u64), Vec<(QueueId, Sequence)>>);

fn release(segments: &mut BTreeMap<u64, Segment>, segment: u64, count: u64) {
    if let Some(info) = segments.get_mut(&segment) {
        info.live = info.live.saturating_sub(count);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_backlog_in_order_takes_one_run() {
        let mut queue = Queue::default();
        for sequence in 1..=1_000_000 {
            queue.insert(sequence, 1, (5, sequence));
        }
        assert_eq!(queue.live_ranges(), 1);
        queue.remove(1, 999_999, |_, _| {});
        assert_eq!(
            queue.runs().map(|(last, run)| (run.first, last)).collect::<Vec<_>>(),
            [(1_000_000, 1_000_000)]
        );
    }

    proptest! {
        #[test]
        fn runs_agree_with_a_plain_map(
            ops in proptest::collection::vec((any::<bool>(), 1u64..60, 1u64..10, 1u64..4, 0u64..3), 1..120)
        ) {
            let mut queue = Queue::default();
            let mut model: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            for (insert, first, count, segment, shift) in ops {
                if insert {
                    if model.contains_key(&first) { continue; }
                    queue.insert(first, segment, (9, first + shift));
                    model.insert(first, (segment, first + shift));
                } else {
                    let last = first + count - 1;
                    let mut told: BTreeMap<u64, u64> = BTreeMap::new();
                    queue.remove(first, last, |segment, n| *told.entry(segment).or_default() += n);
                    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
                    for sequence in first..=last {
                        if let Some((segment, _)) = model.remove(&sequence) { *expected.entry(segment).or_default() += 1; }
                    }
                    prop_assert_eq!(told, expected);
                }
                for sequence in 0..75 {
                    let found = queue.find(sequence).map(|run| (run.segment, run.origin.1 + (sequence - run.first)));
                    prop_assert_eq!(found, model.get(&sequence).copied());
                }
                let mut before = 0;
                for (last, run) in queue.runs() {
                    prop_assert!(run.first > before && last >= run.first);
                    before = last;
                }
            }
        }
    }
}
