//! Large bodies: written where they are kept as they arrive, and read from there a window at a time, by threads of their
//! own, for a disk takes its time. In a simulation whoever asks does it at once.
//!
//! The threads are started when there is something to do and end when there was nothing for a while.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use sabir_model::chunks::{WINDOW_BYTES as LOADED_BYTES, Window};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::message::{Content, Message};
use sabir_model::session::Room;
use sabir_model::stored::{Stored, StoredBody};
use sabir_store::{Blob, BlobWriter, Level, is_short_of_descriptors, is_storage_full};

use crate::budget::{Budget, change};
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;

/// Most threads.
const THREADS_MAX: usize = 4;
/// How long a thread waits for something to do before it ends.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of one body that may wait to be written; then its sender is not read.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes from which on it is worth waking a thread.
const PIECE_BYTES_MIN: usize = 64 << 10;
/// What is put together to one piece.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// A body that lies in a file of the log.
#[derive(Debug)]
struct InLog {
    blob: Blob,
    /// The last look at it failed.
    unreadable: AtomicBool,
}

impl StoredBody for InLog {
    fn length(&self) -> u64 {
        self.blob.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let result = match self.blob.read_at(offset, buf) {
            Ok(count) if count == buf.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        };
        // For want of a descriptor it is not the body's fault.
        let failed = result.as_ref().is_err_and(|error| !is_short_of_descriptors(error));
        self.unreadable.store(failed, Ordering::Relaxed);
        result
    }
}

/// The handle to a body that the log keeps.
pub(crate) fn stored(blob: Blob) -> Stored {
    Stored::new(Arc::new(InLog { blob, unreadable: AtomicBool::new(false) }))
}

/// What the log knows a body by, if it keeps it.
pub(crate) fn blob_of(stored: &Stored) -> Option<&Blob> {
    stored.kind::<InLog>().map(|body| &body.blob)
}

/// Whether a message has a large body of which the last piece that somebody wanted could not be read.
pub(crate) fn is_unreadable(message: &Message) -> bool {
    let Content::Stored(stored) = message.body() else { return false };
    stored.kind::<InLog>().is_some_and(|body| body.unreadable.load(Ordering::Relaxed))
}

/// What a client is told whose body cannot be written.
pub(crate) fn cannot_write(error: &io::Error) -> Refusal {
    if is_storage_full(error) {
        return Refusal::new(
            Code::StorageFull,
            "the disk is full: persistent messages are refused until space returns",
        );
    }
    tracing::error!(%error, "a message body cannot be written");
    Refusal::new(Code::Internal, "the body cannot be written to the disk")
}

/// Something that waits for a disk.
enum Job {
    /// Pieces of a body are to be written.
    Write(Arc<Upload>),
    /// An outbox has come to a body that is not in memory.
    Load(Arc<Outbox>, Window),
}

impl Job {
    fn run(self) {
        match self {
            Self::Write(upload) => upload.work(),
            Self::Load(outbox, window) => load(&outbox, &window),
        }
    }
}

fn load(outbox: &Outbox, window: &Window) {
    let mut bytes = vec![0; window.length];
    outbox.loaded(window.body.read_at(window.from, &mut bytes).map(|()| bytes.into()));
}

impl Outbox {
    /// The window that is to be loaded now, if one is: whoever asks sees to it that [`Outbox::loaded`] follows.
    pub(crate) fn to_load(&self) -> Option<Window> {
        let mut state = self.state();
        if state.loading || state.broken {
            return None;
        }
        // While one is written, the next one comes.
        let window = state.chunks.next_window(LOADED_BYTES)?;
        state.loading = true;
        Some(window)
    }

    /// A window has been loaded, or cannot be: then the frame that it belongs to cannot be brought to its end.
    pub(crate) fn loaded(&self, result: io::Result<Bytes>) {
        let mut state = self.state();
        // Closed meanwhile, if nobody waits for it.
        if !std::mem::take(&mut state.loading) {
            return;
        }
        match result {
            Ok(bytes) => state.chunks.supply(bytes),
            Err(error) => {
                tracing::error!(connection = self.connection().0, %error, "a message body cannot be read; its receiver is cut off");
                state.failed.get_or_insert_with(|| {
                    Box::new(Refusal::new(
                        Code::Internal,
                        "the body of a message cannot be read from the disk",
                    ))
                });
            }
        }
        drop(state);
        self.wake_owner();
    }
}

/// Each connection has one upload and one window under way at most, so there are no more jobs than that.
#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
    over: bool,
}

#[derive(Default)]
struct Jobs {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Jobs {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                drop(state);
                job.run();
                state = self.state.lock();
                continue;
            }
            if state.over {
                break;
            }
            state.idle += 1;
            let nothing = self.arrived.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if nothing && state.waiting.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

/// Those who wait for the disk on behalf of others.
pub(crate) struct Hands {
    /// Absent in a simulation.
    jobs: Option<Arc<Jobs>>,
}

impl Hands {
    pub(crate) fn new(threaded: bool) -> Self {
        Self { jobs: threaded.then(Arc::default) }
    }

    /// Loads a window of a body into an outbox that waits for it.
    pub(crate) fn load(&self, outbox: &Arc<Outbox>, window: Window) {
        self.put(Job::Load(Arc::clone(outbox), window));
    }

    fn put(&self, job: Job) {
        let Some(jobs) = &self.jobs else { return job.run() };
        let mut state = jobs.state.lock();
        state.waiting.push_back(job);
        if state.idle > state.waiting.len() - 1 {
            jobs.arrived.notify_one();
            return;
        }
        if state.threads >= THREADS_MAX {
            return;
        }
        let shared = Arc::clone(jobs);
        let started =
            std::thread::Builder::new().name("sabir-bodies".to_owned()).spawn(move || shared.work());
        match started {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                tracing::warn!(%error, "no thread for large bodies: they are written by who serves sockets");
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                waiting.into_iter().for_each(Job::run);
            }
            Err(_) => {}
        }
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        if let Some(jobs) = &self.jobs {
            // Under the lock, so that it is not missed by a thread that is about to wait.
            let mut state = jobs.state.lock();
            state.over = true;
            jobs.arrived.notify_all();
        }
    }
}

/// A body on its way into a file.
struct Upload {
    mailbox: Arc<Mailbox>,
    /// What waits counts with the frames that have arrived in part.
    budget: Arc<Budget>,
    level: Level,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Absent while somebody writes, and once it is over.
    writer: Option<BlobWriter>,
    pieces: VecDeque<Vec<u8>>,
    /// Bytes in `pieces`.
    waiting: usize,
    /// Somebody will see to it.
    scheduled: bool,
    /// The sender waits for room.
    full: bool,
    /// All of it has come.
    whole: bool,
    /// Nobody wants it any more, or it has failed.
    over: bool,
}

impl Upload {
    /// So many bytes wait no longer.
    fn give_back(&self, progress: &mut Progress, bytes: usize) {
        let bytes = bytes.min(progress.waiting);
        progress.waiting -= bytes;
        change(&self.budget.frames, -i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Nobody wants what waits any more.
    fn forget(&self, progress: &mut Progress) {
        progress.pieces = VecDeque::new();
        self.give_back(progress, usize::MAX);
    }

    fn work(&self) {
        loop {
            let (mut writer, piece) = {
                let mut progress = self.progress.lock();
                let next = progress.pieces.pop_front();
                let idle = progress.over || (next.is_none() && !progress.whole);
                let writer = if idle { None } else { progress.writer.take() };
                let Some(writer) = writer else {
                    progress.scheduled = false;
                    return;
                };
                self.give_back(&mut progress, next.as_ref().map_or(0, Vec::len));
                (writer, next)
            };
            let Some(piece) = piece else {
                let result = writer.finish(self.level);
                self.end(result.map(stored).map_err(|error| cannot_write(&error)));
                return;
            };
            if let Err(error) = writer.write(&piece) {
                drop(writer);
                self.end(Err(cannot_write(&error)));
                return;
            }
            let mut progress = self.progress.lock();
            if progress.over {
                // The file is deleted when the writer is dropped, which needs no lock of ours.
                drop(progress);
                return;
            }
            progress.writer = Some(writer);
            if progress.full && progress.waiting <= WINDOW_BYTES / 2 {
                progress.full = false;
                drop(progress);
                self.mailbox.post(Event::BodyRoom);
            }
        }
    }

    fn end(&self, result: Result<Stored, Refusal>) {
        let mut progress = self.progress.lock();
        let wanted = !std::mem::replace(&mut progress.over, true);
        self.forget(&mut progress);
        drop(progress);
        if wanted {
            self.mailbox.post(Event::BodyStored(result));
        }
    }
}

/// A body on its way in, for whoever can wait for a disk. Dropped, it is forgotten.
pub struct BodyWriter {
    writer: BlobWriter,
    level: Level,
}

impl BodyWriter {
    pub(crate) fn new(writer: BlobWriter, level: Level) -> Self {
        Self { writer, level }
    }

    /// Appends a piece. This waits for the disk.
    ///
    /// # Errors
    /// [`Code::StorageFull`], [`Code::Internal`]: nothing more can be written.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.writer.write(piece).map_err(|error| cannot_write(&error))
    }

    /// All of it has come: it is as durable as where it goes wants it. This waits for the disk.
    ///
    /// # Errors
    /// [`Code::StorageFull`], [`Code::Internal`]: it is not kept.
    pub fn finish(self) -> Result<Stored, Refusal> {
        self.writer.finish(self.level).map(stored).map_err(|error| cannot_write(&error))
    }
}

impl std::fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyWriter").finish_non_exhaustive()
    }
}

/// A connection's hold on a body that is coming. Dropped, the body is forgotten, unless it is in its place.
pub(crate) struct Coming(Arc<Upload>);

impl Coming {
    pub(crate) fn new(mailbox: Arc<Mailbox>, budget: Arc<Budget>, body: BodyWriter) -> Self {
        let BodyWriter { writer, level } = body;
        let progress = Progress {
            writer: Some(writer),
            pieces: VecDeque::new(),
            waiting: 0,
            scheduled: false,
            full: false,
            whole: false,
            over: false,
        };
        Self(Arc::new(Upload { mailbox, budget, level, progress: Mutex::new(progress) }))
    }

    /// Takes the next piece.
    pub(crate) fn put(&self, hands: &Hands, piece: &[u8]) -> Room {
        let mut progress = self.0.progress.lock();
        if progress.over {
            // Its end is in the mailbox.
            return Room::Some;
        }
        match progress.pieces.back_mut() {
            Some(last) if last.len() + piece.len() <= PIECE_BYTES_MAX => last.extend_from_slice(piece),
            _ => {
                let mut first = Vec::with_capacity(piece.len().max(PIECE_BYTES_MIN));
                first.extend_from_slice(piece);
                progress.pieces.push_back(first);
            }
        }
        progress.waiting += piece.len();
        change(&self.0.budget.frames, i64::try_from(piece.len()).unwrap_or(i64::MAX));
        progress.full = progress.waiting >= WINDOW_BYTES
            || !self.0.budget.has_room_for_frame(progress.waiting - piece.len(), progress.waiting);
        let room = if progress.full { Room::None } else { Room::Some };
        let due = progress.waiting >= PIECE_BYTES_MIN;
        if due && !std::mem::replace(&mut progress.scheduled, true) {
            drop(progress);
            hands.put(Job::Write(Arc::clone(&self.0)));
        }
        room
    }

    /// All of it has come.
    pub(crate) fn end(&self, hands: &Hands) {
        let mut progress = self.0.progress.lock();
        progress.whole = true;
        if !std::mem::replace(&mut progress.scheduled, true) {
            drop(progress);
            hands.put(Job::Write(Arc::clone(&self.0)));
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut progress = self.0.progress.lock();
        progress.over = true;
        self.0.forget(&mut progress);
        let writer = progress.writer.take();
        drop(progress);
        // Deletes the file; that is not for under the lock.
        drop(writer);
    }
}
