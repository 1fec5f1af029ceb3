//! What is alive, and where: a pure function of the log. The committer applies every frame it wrote, recovery
//! every frame it reads, through the same [`Index::apply`]; nothing else changes it, and nothing trusts it
//! over the log.
//!
//! Per queue it keeps *runs* (`runs.rs`), so its memory is proportional to the number of live *ranges*, not to
//! the number of messages: a backlog of consecutive numbers costs one run for every mebibyte of it.

use crate::blob_file::BlobName;
use crate::blob_index::BlobIndex;
use crate::record::{Body, Op, Ops, Paged, Targets};
use crate::runs::{Place, Queue};
use crate::segment::Header;
use foldhash::fast::FixedState;
use sabir_model::ids::{QueueId, Sequence};
use std::collections::{BTreeMap, HashMap};

/// Where a file is, and whether it counts for the budget of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A segment of the journal.
    #[default]
    Journal,
    /// A segment of the journal that is as good as a page: nearly all of it is one queue's. It stays where it is and
    /// does not count.
    Kept,
    /// A page file.
    Page,
}

/// One file that holds something: a segment, or a page file. They are numbered together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) kind: Kind,
    /// Targets of its puts that are live.
    pub(crate) live: u64,
    /// Targets of its puts, ever.
    pub(crate) total: u64,
    /// Bytes of the records of all those targets, about.
    pub(crate) bytes: u64,
    /// End of its last frame.
    pub(crate) end: u64,
    /// Evacuation is not worth while before `live` falls below this.
    pub(crate) patience: Option<u64>,
    /// What was alive in it when the keeper last looked, and whether that was so the time before.
    pub(crate) seen: u64,
    pub(crate) calm: bool,
}

impl Segment {
    /// Bytes of the messages that are alive, about.
    pub(crate) fn bytes_live(&self) -> u64 {
        let whole = u128::from(self.bytes) * u128::from(self.live) / u128::from(self.total.max(1));
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// Whether so little of it is alive that writing that anew is cheaper than keeping the rest.
    pub(crate) fn is_sparse(&self) -> bool {
        u128::from(self.bytes_live()) * 5 < u128::from(self.end) * 2
    }
}

/// What surrounds a message in its record, about.
pub(crate) const RECORD_BYTES: u64 = 12;

/// Metadata entries by table and key.
pub(crate) type Meta = BTreeMap<(u8, Box<[u8]>), Box<[u8]>>;

type Map<K, V> = HashMap<K, V, FixedState>;

/// Everything the log says, but the messages themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub(crate) meta: Meta,
    pub(crate) queues: Map<u64, Queue>,
    pub(crate) blobs: BlobIndex,
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
    /// Applies a frame that lies in `segment` from `start` to `end`. It has been checked to be well formed.
    pub(crate) fn apply(&mut self, segment: u64, start: u64, end: u64, header: &Header, body: &[u8]) {
        self.active = segment;
        let info = self.segments.entry(segment).or_default();
        info.end = info.end.max(end);
        self.lsn = self.lsn.max(header.last());
        for op in Ops::new(body) {
            match op {
                Ok(Op::End) => {}
                Ok(Op::Put { moved, targets, meta, head, body }) => {
                    let bytes = (head.len() + body.inline_len()) as u64 + RECORD_BYTES;
                    let expires = meta.expires_ms;
                    let at = Place { segment, offset: start, origin: (0, 0), bytes, expires };
                    if moved { self.relocate(at, targets, body) } else { self.put(at, targets, body) }
                }
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
                Ok(Op::Paged(paged)) => self.page_out(&paged),
                Err(_) => return,
            }
        }
    }

    fn put(&mut self, at: Place, targets: Targets<'_>, body: Body<'_>) {
        let mut count = 0;
        for (queue, Sequence(sequence)) in targets {
            self.hold(queue, sequence, Place { origin: (queue.0, sequence), ..at }, body.blob());
            count += 1;
        }
        self.count(&at, count);
    }

    /// Counts targets that are held now in their segment.
    fn count(&mut self, at: &Place, count: u64) {
        let info = self.segments.entry(at.segment).or_default();
        info.live += count;
        info.total += count;
        info.bytes = info.bytes.saturating_add(at.bytes.saturating_mul(count));
    }

    /// Makes a number live without counting it in its segment.
    fn hold(&mut self, queue_id: QueueId, sequence: u64, at: Place, blob: Option<BlobName>) {
        match blob {
            Some(name) => self.blobs.hold((queue_id.0, sequence), &name, self.lsn),
            None => self.blobs.release(queue_id.0, sequence, sequence),
        }
        let queue = self.queues.entry(queue_id.0).or_default();
        if sequence < queue.next {
            // Not a new number: out of order, or (never by a sound broker) twice.
            let segments = &mut self.segments;
            queue.remove(sequence, sequence, |segment, n| release(segments, segment, n));
        } else {
            queue.next = sequence.saturating_add(1);
        }
        queue.insert(sequence, &at);
        if at.expires > 0 && (queue.expires == 0 || at.expires < queue.expires) {
            queue.expires = at.expires;
        }
        queue.foreign |= at.origin != (queue_id.0, sequence);
    }

    fn relocate(&mut self, at: Place, targets: Targets<'_>, body: Body<'_>) {
        let mut count = 0;
        for (queue, Sequence(sequence)) in targets {
            // What was acknowledged between the copy's reading and its writing stays acknowledged.
            if self.salvage || self.queues.get(&queue.0).is_some_and(|q| q.find(sequence).is_some()) {
                self.hold(queue, sequence, Place { origin: (queue.0, sequence), ..at }, body.blob());
                count += 1;
            }
        }
        self.count(&at, count);
    }

    /// What is alive of some messages lies in a page file from now on; what was acknowledged since it was copied is
    /// not there for anybody.
    fn page_out(&mut self, paged: &Paged<'_>) {
        if self.salvage && !self.segments.contains_key(&paged.file) {
            // It was let go later, by acknowledgements that are lost.
            return;
        }
        let info = self.segments.entry(paged.file).or_default();
        info.kind = Kind::Page;
        info.end = info.end.max(paged.end);
        let all: u64 = paged.ranges().fold(0u64, |all, (_, _, count)| all.saturating_add(count));
        let bytes = paged.bytes / all.max(1);
        let mut at = Place { segment: paged.file, offset: paged.start, origin: (0, 0), bytes, expires: 0 };
        let mut moved = 0;
        for (QueueId(id), first, count) in paged.ranges() {
            let Some(last) = count.checked_sub(1).map(|n| first.saturating_add(n)) else { continue };
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            at.origin = (id, first);
            let segments = &mut self.segments;
            moved += queue.relocate(first, last, &at, |segment, n| release(segments, segment, n));
        }
        self.count(&at, moved);
    }

    /// Takes what is in a page file for alive, for want of an index that says what is.
    pub(crate) fn salvage_page(&mut self, file: u64, start: u64, end: u64, body: &[u8]) {
        let info = self.segments.entry(file).or_default();
        info.kind = Kind::Page;
        info.end = info.end.max(end);
        for op in Ops::new(body) {
            let Ok(Op::Put { targets, meta, head, body, .. }) = op else { continue };
            let bytes = (head.len() + body.inline_len()) as u64 + RECORD_BYTES;
            let at = Place { segment: file, offset: start, origin: (0, 0), bytes, expires: meta.expires_ms };
            self.put(at, targets, body);
        }
    }

    fn reference(&mut self, to: (QueueId, Sequence), from: (QueueId, Sequence)) {
        let source = self.queues.get(&from.0.0);
        let found = source.and_then(|queue| Some((queue.find(from.1.0)?.1, queue.expires)));
        match found.map(|(run, expires)| Place { expires, ..run.place_of(from.1.0) }) {
            Some(at) => {
                let blob = self.blobs.held_by((from.0.0, from.1.0));
                self.hold(to.0, to.1.0, at, blob);
                self.count(&at, 1);
            }
            None => {
                self.references_lost += 1;
                let queue = self.queues.entry(to.0.0).or_default();
                queue.next = queue.next.max(to.1.0.saturating_add(1));
            }
        }
    }

    pub(crate) fn acknowledge(&mut self, queue: QueueId, first: u64, count: u64) {
        let id = queue.0;
        let Some(queue) = self.queues.get_mut(&queue.0) else { return };
        let Some(last) = count.checked_sub(1).map(|n| first.saturating_add(n)) else { return };
        self.blobs.release(id, first, last);
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
        if queue.is_empty() {
            queue.foreign = false;
            queue.expires = 0;
        }
    }

    fn delete_queue(&mut self, queue: QueueId) {
        self.blobs.release(queue.0, 0, u64::MAX);
        let Some(queue) = self.queues.remove(&queue.0) else { return };
        for (last, run) in queue.runs() {
            release(&mut self.segments, run.segment, run.count(last));
        }
    }

    /// Sealed segments that hold nothing alive.
    pub(crate) fn dead_segments(&self) -> Vec<u64> {
        let dead =
            |(&number, info): (&u64, &Segment)| (info.live == 0 && number != self.active).then_some(number);
        self.segments.iter().filter_map(dead).collect()
    }

    /// Bytes of segments in use that count for the budget.
    pub(crate) fn journal_bytes(&self) -> u64 {
        let journal = self.segments.values().filter(|info| info.kind == Kind::Journal);
        journal.map(|info| info.end).sum()
    }

    pub(crate) fn is_page(&self, number: u64) -> bool {
        self.segments.get(&number).is_some_and(|info| info.kind == Kind::Page)
    }

    /// Bytes of the live messages, about; of each once for every queue that holds it.
    pub(crate) fn bytes_live(&self) -> u64 {
        self.segments.values().map(Segment::bytes_live).sum()
    }

    pub(crate) fn live_ranges(&self) -> u64 {
        self.queues.values().map(|queue| queue.live_ranges() as u64).sum()
    }

    /// Messages of some segments that queues hold by reference: the name in the record, then the holders.
    pub(crate) fn references_into(&self, segments: &[u64]) -> References {
        let mut references = References::default();
        for (&id, queue) in self.queues.iter().filter(|(_, queue)| queue.foreign) {
            for (last, run) in queue.runs() {
                if run.origin == (id, run.first) || !segments.contains(&run.segment) {
                    continue;
                }
                for sequence in run.live(run.first, last).flat_map(|(first, last)| first..=last) {
                    let origin = (run.origin.0, run.origin_of(sequence));
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
            if self.is_at(segment, (queue, sequence), (queue.0, sequence.0)) {
                out.push((queue, sequence));
            }
            let Some(holders) = references.0.get(&(queue.0, sequence.0)) else { continue };
            for holder in holders {
                let still = self.is_at(segment, *holder, (queue.0, sequence.0));
                if still {
                    out.push(*holder);
                }
            }
        }
    }
}

impl Index {
    /// Whether a message is alive and its record is the one in `segment` that names `origin`.
    pub(crate) fn is_at(
        &self,
        segment: u64,
        (queue, sequence): (QueueId, Sequence),
        origin: (u64, u64),
    ) -> bool {
        let found = self.queues.get(&queue.0).and_then(|queue| queue.find(sequence.0));
        found.is_some_and(|(_, run)| {
            run.segment == segment && (run.origin.0, run.origin_of(sequence.0)) == origin
        })
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
