//! Reading whole segments to see whether everything that is alive in them can be read.

use crate::error::LostRange;
use crate::index::Index;
use crate::record::{Op, Ops};
use crate::segment::Reader;
use sabir_model::ids::{QueueId, Sequence};
use std::collections::{BTreeMap, HashMap};
use std::io;

/// What a segment holds: the live numbers that were found, as ranges, and the parts that are no frames.
#[derive(Default)]
pub(crate) struct Found {
    queues: HashMap<u64, BTreeMap<u64, u64>>,
    /// From and to.
    pub(crate) damaged: Vec<(u64, u64)>,
}

impl Found {
    /// Reads every frame of `segment` up to `end`.
    pub(crate) fn examine(index: &Index, segment: u64, reader: &mut Reader, end: u64) -> io::Result<Self> {
        let mut found = Self::default();
        let references = index.references_into(segment);
        let mut holders: Vec<(QueueId, Sequence)> = Vec::new();
        let (mut offset, mut expected) = (0, 0);
        while offset < end {
            offset = reader.place(offset, expected)?;
            let Some((header, body)) = reader.frame(offset)? else {
                let next = reader.resync(offset)?.unwrap_or(end);
                found.damaged.push((offset, next));
                offset = next;
                continue;
            };
            offset = header.end(offset);
            expected = header.last().saturating_add(1);
            for op in Ops::new(body) {
                let Ok(Op::Put { targets, .. }) = op else { continue };
                index.holders(segment, targets, &references, &mut holders);
                for holder in &holders {
                    found.add(*holder);
                }
            }
        }
        Ok(found)
    }

    fn add(&mut self, (queue, Sequence(sequence)): (QueueId, Sequence)) {
        let ranges = self.queues.entry(queue.0).or_default();
        if let Some((_, last)) = ranges.range_mut(..=sequence).next_back() {
            if *last >= sequence {
                return;
            }
            if last.checked_add(1) == Some(sequence) {
                *last = sequence;
                return;
            }
        }
        ranges.insert(sequence, sequence);
    }

    /// What the index has alive in `segment` and was not found.
    pub(crate) fn missing(&self, index: &Index, segment: u64) -> Vec<LostRange> {
        let mut missing = Vec::new();
        for (&id, queue) in &index.queues {
            let mut lose = |first, last| {
                missing.push(LostRange { queue: QueueId(id), first, last, certain: true });
            };
            for (last, run) in queue.runs().filter(|(_, run)| run.segment == segment) {
                for (low, high) in run.live(run.first, last) {
                    self.subtract(id, low, high, &mut lose);
                }
            }
        }
        missing
    }

    /// Tells `lose` the parts of `low..=high` that were not found.
    fn subtract(&self, queue: u64, low: u64, high: u64, lose: &mut dyn FnMut(u64, u64)) {
        let ranges = self.queues.get(&queue);
        let before = ranges.and_then(|r| r.range(..=low).next_back()).map_or(low, |(first, _)| *first);
        let mut next = low;
        for (&first, &until) in ranges.into_iter().flat_map(|ranges| ranges.range(before..=high)) {
            if first > next {
                lose(next, first - 1);
            }
            next = next.max(until.saturating_add(1));
        }
        if next <= high {
            lose(next, high);
        }
    }
}
