//! The shared append buffer, the durable watermark, and those who wait for it.
//!
//! Whoever appends encodes straight into the open frame under one short lock; the committer
//! ([`crate::group_commit`]) swaps it out. Nothing here touches the disk.

use crate::blob::Blob;
use crate::options::Level;
use crate::record::{self, Body, END};
use crate::segment::FRAME_HEADER;
use crate::{Full, PutMeta, Wake};
use parking_lot::{Condvar, Mutex, MutexGuard};
use sabir_model::ids::{Position, QueueId, Sequence};
use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How far the log is written and synced. Only the store makes one, so a receipt that needs it cannot be
/// forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    synced: Position,
    written: Position,
}

impl Durable {
    /// Whether the group at `position` is as durable as `level` promises.
    #[must_use]
    pub fn covers(&self, position: Position, level: Level) -> bool {
        match level {
            Level::Memory => true,
            Level::Os | Level::Interval(_) => self.written >= position,
            Level::Fsync => self.synced >= position,
        }
    }

    /// Everything up to here is synced.
    #[must_use]
    pub fn synced(&self) -> Position {
        self.synced
    }

    /// Everything up to here is handed to the operating system. Invariant: synced ≤ written.
    #[must_use]
    pub fn written(&self) -> Position {
        self.written
    }
}

/// A frame being filled: room for its header, then groups.
#[derive(Debug, Default)]
pub(crate) struct FrameBuf {
    pub(crate) bytes: Vec<u8>,
    pub(crate) first: u64,
    pub(crate) groups: u32,
    /// What its messages name: it is held until the index does.
    pub(crate) blobs: Vec<Blob>,
    /// A put asked for more than its blob was finished with, so that has to be made good before this is written.
    pub(crate) sync_blobs: bool,
}

impl FrameBuf {
    pub(crate) fn reset(&mut self, mut bytes: Vec<u8>, first: u64) {
        bytes.clear();
        bytes.resize(FRAME_HEADER, 0);
        *self = Self { bytes, first, ..Self::default() };
    }
}

/// What the committer takes in one go.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) frames: Vec<FrameBuf>,
    pub(crate) sync: bool,
    pub(crate) interval: Option<Duration>,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Buffer {
    closed: Vec<FrameBuf>,
    open: FrameBuf,
    spare: Vec<Vec<u8>>,
    /// Position of the next group.
    next: u64,
    sync: bool,
    interval: Option<Duration>,
    pub(crate) asleep: bool,
    pub(crate) stop: bool,
    /// After a failure nothing is kept any more.
    dead: bool,
    messages: u64,
}

/// A frame is closed above this: whoever reads one message reads its whole frame.
const FRAME_BYTES_SOFT: usize = 1 << 20;
/// Buffers kept for reuse, and the capacity above which one is given back to the allocator.
const SPARES_MAX: usize = 3;

#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) buffer: Mutex<Buffer>,
    pub(crate) work: Condvar,
    frame_bytes_soft: usize,
    pending_bytes_max: usize,
    pending: AtomicUsize,
    written: AtomicU64,
    synced: AtomicU64,
    waiters: Mutex<Waiters>,
    failed: OnceLock<String>,
    /// Failed or closed: nothing more will be written.
    over: AtomicBool,
    pub(crate) disk_full: AtomicBool,
    /// The committer holds frames for which there is no segment.
    pub(crate) stalled: AtomicBool,
}

impl Journal {
    /// `last` is the last position that recovery found.
    pub(crate) fn new(last: u64, segment_bytes: u64, pending_bytes_max: usize) -> Self {
        let next = last.saturating_add(1);
        let mut open = FrameBuf::default();
        open.reset(Vec::new(), next);
        Self {
            buffer: Mutex::new(Buffer {
                closed: Vec::new(),
                open,
                spare: Vec::new(),
                next,
                sync: false,
                interval: None,
                asleep: false,
                stop: false,
                dead: false,
                messages: 0,
            }),
            work: Condvar::new(),
            frame_bytes_soft: usize::try_from(segment_bytes / 4).unwrap_or(usize::MAX).min(FRAME_BYTES_SOFT),
            pending_bytes_max,
            pending: AtomicUsize::new(0),
            written: AtomicU64::new(last),
            synced: AtomicU64::new(last),
            waiters: Mutex::default(),
            failed: OnceLock::new(),
            over: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
        }
    }

    pub(crate) fn begin_put(&self) -> Result<Appender<'_>, Full> {
        if self.over.load(Ordering::Acquire) {
            return Err(Full::Failed);
        }
        if self.disk_full.load(Ordering::Relaxed) {
            return Err(Full::Disk);
        }
        if self.pending_bytes() >= self.pending_bytes_max {
            return Err(Full::Pending);
        }
        Ok(self.begin())
    }

    pub(crate) fn begin(&self) -> Appender<'_> {
        let mut buffer = self.buffer.lock();
        if buffer.open.bytes.len() >= self.frame_bytes_soft {
            buffer.close_frame();
        }
        let start = buffer.open.bytes.len();
        Appender {
            start,
            start_blobs: buffer.open.blobs.len(),
            previous: None,
            puts: 0,
            finished: false,
            buffer,
            wake: WakeCommitter { journal: self, armed: false },
        }
    }

    pub(crate) fn frame_bytes_soft(&self) -> u64 {
        self.frame_bytes_soft as u64
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    pub(crate) fn watermark(&self) -> Durable {
        // Synced first: it never passes a written that is read later.
        let synced = Position(self.synced.load(Ordering::Acquire));
        let written = Position(self.written.load(Ordering::Acquire));
        Durable { synced, written }
    }

    pub(crate) fn last_position(&self) -> Position {
        Position(self.buffer.lock().next - 1)
    }

    pub(crate) fn messages_appended(&self) -> u64 {
        self.buffer.lock().messages
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Takes what has been appended. Called by the committer with the lock held, which it gives back.
    pub(crate) fn take(buffer: &mut Buffer) -> Batch {
        let mut frames = std::mem::take(&mut buffer.closed);
        if buffer.open.groups > 0 {
            buffer.close_frame();
            frames.append(&mut buffer.closed);
        }
        let bytes = frames.iter().map(|frame| frame.bytes.len().saturating_sub(FRAME_HEADER)).sum();
        Batch { frames, bytes, sync: std::mem::take(&mut buffer.sync), interval: buffer.interval.take() }
    }

    pub(crate) fn has_work(buffer: &Buffer) -> bool {
        buffer.open.groups > 0 || !buffer.closed.is_empty() || buffer.sync
    }

    /// Gives written buffers back for reuse.
    pub(crate) fn give_back(&self, frames: Vec<FrameBuf>) {
        let keep_below = self.frame_bytes_soft.saturating_mul(2);
        let mut buffer = self.buffer.lock();
        for frame in frames {
            if buffer.spare.len() < SPARES_MAX && frame.bytes.capacity() <= keep_below {
                buffer.spare.push(frame.bytes);
            }
        }
    }

    /// Called when nothing has been appended for a while: memory goes back.
    pub(crate) fn shrink(buffer: &mut Buffer) {
        buffer.spare.clear();
        if buffer.open.groups == 0 && buffer.open.bytes.capacity() > 64 << 10 {
            let first = buffer.open.first;
            buffer.open.reset(Vec::new(), first);
        }
    }

    /// Asks for a sync of everything appended so far; returns the position it will reach.
    pub(crate) fn request_sync(&self) -> Position {
        let mut buffer = self.buffer.lock();
        buffer.sync = true;
        let position = Position(buffer.next - 1);
        let wake = std::mem::take(&mut buffer.asleep);
        drop(buffer);
        if wake {
            self.work.notify_one();
        }
        position
    }

    pub(crate) fn stop(&self) {
        self.buffer.lock().stop = true;
        self.work.notify_all();
    }

    /// Lets the committer write what was appended now; it does so anyway, unless it sleeps.
    pub(crate) fn request_write(&self) -> Position {
        let mut buffer = self.buffer.lock();
        let position = Position(buffer.next - 1);
        let wake = std::mem::take(&mut buffer.asleep);
        drop(buffer);
        if wake {
            self.work.notify_one();
        }
        position
    }

    /// The committer wrote (and perhaps synced) a batch.
    pub(crate) fn publish(&self, written: u64, synced: Option<u64>, bytes: usize) {
        self.written.fetch_max(written, Ordering::AcqRel);
        if let Some(synced) = synced {
            self.synced.fetch_max(synced, Ordering::AcqRel);
        }
        self.pending.fetch_sub(bytes, Ordering::Relaxed);
        let durable = self.watermark();
        let due = self.waiters.lock().due(durable);
        for waiter in due {
            waiter.wake();
        }
    }

    /// Records the first failure and lets everybody know. Returns false if one was recorded before.
    pub(crate) fn fail(&self, sentence: String) -> bool {
        if self.failed.set(sentence).is_err() {
            return false;
        }
        self.end();
        true
    }

    /// From here on appends are dropped, and whoever waits is woken.
    pub(crate) fn end(&self) {
        {
            let mut buffer = self.buffer.lock();
            buffer.dead = true;
            buffer.closed.clear();
            let next = buffer.next;
            buffer.open.reset(Vec::new(), next);
        }
        self.pending.store(0, Ordering::Relaxed);
        let all = {
            let mut waiters = self.waiters.lock();
            self.over.store(true, Ordering::Release);
            waiters.all()
        };
        for waiter in all {
            waiter.wake();
        }
    }

    pub(crate) fn wake_at(&self, position: Position, level: Level, wake: Arc<dyn Wake>) {
        {
            let mut waiters = self.waiters.lock();
            // Checked under the lock: the committer publishes first and takes the lock afterwards.
            if !self.watermark().covers(position, level) && !self.over.load(Ordering::Acquire) {
                let heap = if level == Level::Fsync { &mut waiters.synced } else { &mut waiters.written };
                heap.push(Waiter { position, wake });
                return;
            }
        }
        wake.wake();
    }
}

impl Buffer {
    fn close_frame(&mut self) {
        let bytes = self.spare.pop().unwrap_or_default();
        let mut frame = std::mem::take(&mut self.open);
        self.open.reset(bytes, self.next);
        if frame.groups > 0 {
            self.closed.push(frame);
        } else {
            frame.bytes.clear();
            self.spare.push(frame.bytes);
        }
    }
}

struct WakeCommitter<'a> {
    journal: &'a Journal,
    armed: bool,
}

impl Drop for WakeCommitter<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.journal.work.notify_one();
        }
    }
}

/// One op group under construction: the unit of atomicity. It holds the lock of the journal buffer, so it lives
/// shortly. Dropped without [`Appender::finish`], nothing has been appended.
pub struct Appender<'a> {
    start: usize,
    start_blobs: usize,
    previous: Option<(QueueId, u64)>,
    puts: u32,
    finished: bool,
    // Order matters: the lock is released before the committer is woken.
    buffer: MutexGuard<'a, Buffer>,
    wake: WakeCommitter<'a>,
}

impl Appender<'_> {
    /// A message for all of `targets`. `head` is the broker's own encoding of headers and properties, in
    /// pieces; `body` is opaque as well. The message lives until every target has acknowledged it.
    pub fn put(&mut self, targets: &[(QueueId, Sequence)], meta: PutMeta, head: &[&[u8]], body: &[u8]) {
        // A large message starts its own frame, so that the frame before it stays within a segment.
        if body.len() > self.wake.journal.frame_bytes_soft
            && self.start == self.buffer.open.bytes.len()
            && self.buffer.open.groups > 0
        {
            self.buffer.close_frame();
            self.start = self.buffer.open.bytes.len();
            self.start_blobs = 0;
        }
        record::put(&mut self.buffer.open.bytes, false, targets, meta, head, Body::Inline(body));
        self.puts += 1;
    }

    /// As [`Appender::put`], for a message whose body is in a file of its own. It may be named by several puts. It should
    /// be as durable as the group is to be: see [`crate::BlobWriter::finish`] and [`Blob::sync`]. If it is not, the
    /// log's own thread syncs it, and everybody waits.
    pub fn put_blob(&mut self, targets: &[(QueueId, Sequence)], meta: PutMeta, head: &[&[u8]], blob: &Blob) {
        let open = &mut self.buffer.open;
        record::put(&mut open.bytes, false, targets, meta, head, Body::Blob(blob.name()));
        open.blobs.push(blob.clone());
        self.puts += 1;
    }

    /// As [`Appender::put`], for a message that is copied out of an old segment.
    pub(crate) fn moved(
        &mut self,
        targets: &[(QueueId, Sequence)],
        meta: PutMeta,
        head: &[u8],
        body: Body<'_>,
    ) {
        record::put(&mut self.buffer.open.bytes, true, targets, meta, &[head], body);
    }

    /// Another queue holds the message of `from`, which must not have been acknowledged before. If its body is in a file
    /// of its own, it stays as durable as it is: see [`Blob::sync`].
    pub fn reference(&mut self, to: (QueueId, Sequence), from: (QueueId, Sequence)) {
        record::reference(&mut self.buffer.open.bytes, to, from);
    }

    /// `count` messages of `queue` from `first` on are settled for good. Call it once for each range.
    pub fn acknowledge(&mut self, queue: QueueId, first: Sequence, count: u64) {
        record::acknowledge(&mut self.buffer.open.bytes, &mut self.previous, queue, first.0, count);
    }

    /// How often delivery of a message has failed by now.
    pub fn attempts(&mut self, queue: QueueId, sequence: Sequence, count: u32) {
        record::attempts(&mut self.buffer.open.bytes, queue, sequence.0, count);
    }

    /// The queue is gone, with its messages and its numbers.
    pub fn delete_queue(&mut self, queue: QueueId) {
        record::delete_queue(&mut self.buffer.open.bytes, queue);
    }

    /// Sets a metadata entry.
    pub fn set(&mut self, table: u8, key: &[u8], value: &[u8]) {
        record::set(&mut self.buffer.open.bytes, table, key, value);
    }

    /// Removes a metadata entry.
    pub fn remove(&mut self, table: u8, key: &[u8]) {
        record::remove(&mut self.buffer.open.bytes, table, key);
    }

    /// Closes the group and returns its position. A group without ops takes the position of the one before it.
    pub fn finish(mut self, level: Level) -> Position {
        let start = self.start;
        let puts = self.puts;
        self.finished = true;
        let buffer = &mut *self.buffer;
        let appended = buffer.open.bytes.len().saturating_sub(start);
        if appended == 0 {
            // Nothing to write, but what it stands behind is to be as durable as was asked for.
            if level == Level::Fsync {
                buffer.sync = true;
                self.wake.armed = std::mem::take(&mut buffer.asleep);
            }
            return Position(buffer.next - 1);
        }
        let position = buffer.next;
        buffer.next += 1;
        if buffer.dead {
            buffer.open.bytes.truncate(start);
            buffer.open.blobs.truncate(self.start_blobs);
            return Position(position);
        }
        buffer.open.bytes.push(END);
        buffer.open.groups += 1;
        buffer.messages += u64::from(puts);
        if matches!(level, Level::Fsync | Level::Interval(_)) {
            let named = buffer.open.blobs.get(self.start_blobs..).unwrap_or_default();
            let owing = named.iter().any(|blob| !blob.name().synced);
            buffer.open.sync_blobs |= owing;
        }
        match level {
            Level::Fsync => buffer.sync = true,
            Level::Interval(span) => {
                buffer.interval = Some(buffer.interval.map_or(span, |other| other.min(span)));
            }
            Level::Os | Level::Memory => {}
        }
        self.wake.armed = std::mem::take(&mut buffer.asleep);
        self.wake.journal.pending.fetch_add(appended + 1, Ordering::Relaxed);
        Position(position)
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.buffer.open.bytes.truncate(self.start);
            self.buffer.open.blobs.truncate(self.start_blobs);
        }
    }
}

impl std::fmt::Debug for Appender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender").field("start", &self.start).finish_non_exhaustive()
    }
}

struct Waiter {
    position: Position,
    wake: Arc<dyn Wake>,
}

// Reversed: the heap's top is the waiter that is due first.
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> Order {
        other.position.cmp(&self.position)
    }
}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Eq for Waiter {}

#[derive(Default)]
struct Waiters {
    written: BinaryHeap<Waiter>,
    synced: BinaryHeap<Waiter>,
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiters({}, {})", self.written.len(), self.synced.len())
    }
}

impl Waiters {
    fn due(&mut self, durable: Durable) -> Vec<Arc<dyn Wake>> {
        let mut due = Vec::new();
        for (heap, reached) in [(&mut self.written, durable.written), (&mut self.synced, durable.synced)] {
            while heap.peek().is_some_and(|waiter| waiter.position <= reached) {
                due.extend(heap.pop().map(|waiter| waiter.wake));
            }
        }
        due
    }

    fn all(&mut self) -> Vec<Arc<dyn Wake>> {
        self.written.drain().chain(self.synced.drain()).map(|waiter| waiter.wake).collect()
    }
}
