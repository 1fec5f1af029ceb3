//! Counters, read by metrics. Relaxed atomics: each is exact in the end, none orders anything.

use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot of what the store did since it opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of frames written to segments.
    pub bytes_written: u64,
    /// Frames written.
    pub frames: u64,
    /// Op groups written.
    pub groups: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Messages appended, each counted once for all its queues.
    pub messages_appended: u64,
    /// Sequence numbers acknowledged while their message was live.
    pub acknowledged: u64,
    /// References to messages that were not live any more; their targets hold nothing.
    pub references_lost: u64,
    /// Segments in use, the active one included and those that are kept as pages not.
    pub segments_live: u64,
    /// Segments ready for use.
    pub segments_free: u64,
    /// Bytes of all segments and page files.
    pub disk_bytes: u64,
    /// Page files in use, and segments that are kept as such.
    pub pages_live: u64,
    /// Bytes of these.
    pub page_bytes: u64,
    /// Page files written.
    pub pages: u64,
    /// Page files removed, because nothing in them is alive.
    pub pages_removed: u64,
    /// Bytes written into page files.
    pub paged_bytes: u64,
    /// Files of large bodies, those being written and those that wait to be deleted included.
    pub blobs: u64,
    /// Bytes of these, and what is reserved for those being written.
    pub blob_bytes: u64,
    /// Bytes copied forward out of old segments.
    pub evacuated_bytes: u64,
    /// Segments emptied by copying forward.
    pub evacuations: u64,
    /// Segments given a new life under a new number.
    pub recycled: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Size of the newest checkpoint.
    pub checkpoint_bytes: u64,
    /// Duration of the last sync, in microseconds.
    pub sync_us_last: u64,
    /// Longest sync, in microseconds.
    pub sync_us_max: u64,
    /// Sum of the durations of all syncs, in microseconds.
    pub sync_us_sum: u64,
    /// How many syncs took at most 100 µs, 250 µs, 500 µs, 1 ms, 2.5 ms, 10 ms, 100 ms, and longer.
    pub sync_us_histogram: [u64; 8],
    /// Ranges of live messages in the index: what its memory is proportional to.
    pub live_ranges: u64,
    /// Bytes of live messages in the log, about; of each once for every queue that holds it.
    pub bytes_live: u64,
    /// Calls of [`crate::Store::read`].
    pub reads: u64,
    /// Bytes read from segments by them.
    pub read_bytes: u64,
    /// Places in segments in use where something that should be there could not be read.
    pub damaged: u64,
    /// Bytes read in the background to see whether they can be.
    pub scrubbed_bytes: u64,
    /// Passes over all old segments that this has completed.
    pub scrubs: u64,
    /// Bytes that the disk has free, when it was last looked.
    pub disk_free_bytes: u64,
    /// Persistent sends are refused for want of disk space.
    pub disk_full: bool,
}

/// Upper bounds of the buckets of [`StoreStats::sync_us_histogram`], in microseconds; the last bucket has none.
pub const SYNC_US_BOUNDS: [u64; 7] = [100, 250, 500, 1_000, 2_500, 10_000, 100_000];

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_written: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) scrubbed_bytes: AtomicU64,
    pub(crate) scrubs: AtomicU64,
    pub(crate) disk_free_bytes: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) pages: AtomicU64,
    pub(crate) pages_removed: AtomicU64,
    pub(crate) paged_bytes: AtomicU64,
    pub(crate) evacuated_bytes: AtomicU64,
    pub(crate) evacuations: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) checkpoint_bytes: AtomicU64,
    pub(crate) sync_us_last: AtomicU64,
    pub(crate) sync_us_max: AtomicU64,
    pub(crate) sync_us_sum: AtomicU64,
    pub(crate) sync_us_histogram: [AtomicU64; 8],
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn synced_in(&self, us: u64) {
        Self::add(&self.syncs, 1);
        Self::add(&self.sync_us_sum, us);
        self.sync_us_last.store(us, Ordering::Relaxed);
        self.sync_us_max.fetch_max(us, Ordering::Relaxed);
        let bucket = SYNC_US_BOUNDS.iter().position(|&bound| us <= bound).unwrap_or(SYNC_US_BOUNDS.len());
        if let Some(counter) = self.sync_us_histogram.get(bucket) {
            Self::add(counter, 1);
        }
    }

    pub(crate) fn fill(&self, stats: &mut StoreStats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.bytes_written = read(&self.bytes_written);
        stats.frames = read(&self.frames);
        stats.groups = read(&self.groups);
        stats.syncs = read(&self.syncs);
        stats.reads = read(&self.reads);
        stats.scrubbed_bytes = read(&self.scrubbed_bytes);
        stats.scrubs = read(&self.scrubs);
        stats.disk_free_bytes = read(&self.disk_free_bytes);
        stats.read_bytes = read(&self.read_bytes);
        stats.pages = read(&self.pages);
        stats.pages_removed = read(&self.pages_removed);
        stats.paged_bytes = read(&self.paged_bytes);
        stats.evacuated_bytes = read(&self.evacuated_bytes);
        stats.evacuations = read(&self.evacuations);
        stats.recycled = read(&self.recycled);
        stats.checkpoints = read(&self.checkpoints);
        stats.checkpoint_bytes = read(&self.checkpoint_bytes);
        stats.sync_us_last = read(&self.sync_us_last);
        stats.sync_us_max = read(&self.sync_us_max);
        stats.sync_us_sum = read(&self.sync_us_sum);
        for (to, from) in stats.sync_us_histogram.iter_mut().zip(&self.sync_us_histogram) {
            *to = read(from);
        }
    }
}
