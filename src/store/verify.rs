//! Reading whole segments to see whether everything that is alive in them can be read.

use crate::error::LostRange;
use crate::index::Index;
use crate::record::{Op, Ops};
use crate::segment::Reader;
use sabir_model::ids::{QueueId, Sequence};
use std::collections::{BTreeMap, HashMap};
use std::io;

/// What a segment holds: the messages that were found, by the names in their records, as ranges; and the parts
/// that are no frames.
#[derive(Default)]
pub(crate) struct Found {
    queues: HashMap<u64, BTreeMap<u64, u64>>,
    /// From and to.
    pub(crate) damaged: Vec<(u64, u64)>,
}

impl Found {
    /// Reads every frame of a segment up to `end`.
    pub(crate) fn examine(reader: &mut Reader, end: u64) -> io::Result<Self> {
        let mut found = Self::default();
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
                for target in targets {
                    found.add(target);
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
        let mut missing: Vec<LostRange> = Vec::new();
        for (&id, queue) in &index.queues {
            for (last, run) in queue.runs().filter(|(_, run)| run.segment == segment) {
                for (low, high) in run.live(run.first, last) {
                    // By the names in the records, which differ from its own where the queue holds references.
                    let named = (run.origin_of(low), run.origin_of(high));
                    self.subtract(run.origin.0, named, &mut |first, last| {
                        let own = |name: u64| low + (name - named.0);
                        let lost = LostRange {
                            queue: QueueId(id),
                            first: own(first),
                            last: own(last),
                            certain: true,
                        };
                        match missing.last_mut() {
                            Some(before) if before.queue == lost.queue && before.last + 1 == lost.first => {
                                before.last = lost.last;
                            }
                            _ => missing.push(lost),
                        }
                    });
                }
            }
        }
        missing
    }

    /// Tells `lose` the parts of `low..=high` that were not found.
    fn subtract(&self, queue: u64, (low, high): (u64, u64), lose: &mut dyn FnMut(u64, u64)) {
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
