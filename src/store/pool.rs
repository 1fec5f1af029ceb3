//! Segments ready to be written: preallocated and zeroed, or recycled under a new number, always off the
//! commit path.
//!
//! Two are kept ready: the next one and the reserve. Space is taken here and nowhere else, so a full disk is
//! met here: while no segment can be made and only the reserve is left, persistent sends are refused;
//! acknowledgements and metadata go on into the reserve. Retried every second, and whenever a segment dies.

use crate::fs::FsFile;
use crate::manifest::is_full;
use crate::segment::stamp;
use crate::shared::Shared;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The next segment and the reserve.
pub(crate) const READY: usize = 2;
/// Dead segments kept for later; more are removed.
const DEAD_KEPT: usize = 2;
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// A segment nobody has written to under this number.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) number: u64,
    pub(crate) stamp: u64,
    pub(crate) file: Arc<dyn FsFile>,
    pub(crate) capacity: u64,
}

#[derive(Default)]
pub(crate) struct PoolState {
    pub(crate) ready: VecDeque<Ready>,
    /// Files that hold nothing any more, by their old number.
    pub(crate) dead: Vec<u64>,
    /// Page files that hold nothing any more.
    pub(crate) dead_pages: Vec<u64>,
    pub(crate) next_number: u64,
    /// Bytes of all segments and page files.
    pub(crate) disk_bytes: u64,
    pub(crate) stop: bool,
    failing: bool,
    /// Less is free than the low mark, or was and is not yet more than the high one.
    low: bool,
}

#[derive(Default)]
pub(crate) struct Pool {
    pub(crate) state: Mutex<PoolState>,
    /// Held while a ready segment is made larger.
    growing: Mutex<()>,
    /// Something was taken, added, or stopped.
    pub(crate) changed: Condvar,
}

impl Pool {
    pub(crate) fn take(&self) -> Option<Ready> {
        let ready = self.state.lock().ready.pop_front();
        self.changed.notify_all();
        ready
    }

    /// Puts back what could not be used.
    pub(crate) fn untake(&self, ready: Ready) {
        self.state.lock().ready.push_front(ready);
    }

    /// Takes segments and page files that hold nothing any more.
    pub(crate) fn bury(&self, mut dead: Vec<u64>, mut dead_pages: Vec<u64>) {
        let mut state = self.state.lock();
        state.dead.append(&mut dead);
        state.dead_pages.append(&mut dead_pages);
        drop(state);
        self.changed.notify_all();
    }

    /// The number of a new page file.
    pub(crate) fn next_number(&self) -> u64 {
        let mut state = self.state.lock();
        state.next_number += 1;
        state.next_number - 1
    }
}

enum Step {
    Enough,
    Recycle { old: u64, number: u64 },
    Make { number: u64 },
    Remove { old: u64 },
    RemovePage { old: u64 },
    OverLimit,
}

impl Shared {
    fn pool_step(&self, target: usize) -> Step {
        let mut state = self.pool.state.lock();
        if let Some(old) = state.dead_pages.pop() {
            return Step::RemovePage { old };
        }
        if state.ready.len() >= target {
            return match state.dead.len() > DEAD_KEPT {
                true => state.dead.pop().map_or(Step::Enough, |old| Step::Remove { old }),
                false => Step::Enough,
            };
        }
        let number = state.next_number;
        if let Some(old) = state.dead.pop() {
            state.next_number += 1;
            return Step::Recycle { old, number };
        }
        let taken = state.disk_bytes.saturating_add(self.blobs.bytes());
        let needed = taken.saturating_add(self.options.segment_bytes);
        if self.options.disk_bytes_max.is_some_and(|max| needed > max) {
            return Step::OverLimit;
        }
        state.next_number += 1;
        Step::Make { number }
    }

    /// Brings the pool to its target, as far as the disk allows. An error is the reason why it is not there.
    pub(crate) fn fill_pool(&self) -> io::Result<()> {
        self.fill_pool_to(READY)
    }

    /// As [`Shared::fill_pool`] for fewer: opening waits for one segment, the thread makes the others.
    pub(crate) fn fill_pool_to(&self, target: usize) -> io::Result<()> {
        let outcome = loop {
            match self.pool_step(target) {
                Step::Enough => break Ok(()),
                Step::OverLimit => break Err(io::ErrorKind::StorageFull.into()),
                Step::Remove { old } => {
                    if let Err(error) = self.remove_file(&self.paths.segment(old)) {
                        tracing::warn!(segment = old, %error, "a dead segment could not be removed");
                    }
                }
                Step::RemovePage { old } => {
                    self.counters.pages_removed.fetch_add(1, Ordering::Relaxed);
                    // Otherwise the next start does it.
                    if let Err(error) = self.remove_file(&self.paths.page(old)) {
                        tracing::warn!(page = old, %error, "a dead page file could not be removed");
                    }
                }
                Step::Recycle { old, number } => match self.recycle(old, number) {
                    Ok(ready) => {
                        self.counters.recycled.fetch_add(1, Ordering::Relaxed);
                        self.add_ready(ready);
                    }
                    Err(error) => break Err(error),
                },
                Step::Make { number } => match self.make(number) {
                    Ok(ready) => self.add_ready(ready),
                    Err(error) => break Err(error),
                },
            }
        };
        self.judge(&outcome);
        outcome
    }

    fn add_ready(&self, ready: Ready) {
        self.pool.state.lock().ready.push_back(ready);
        self.pool.changed.notify_all();
    }

    /// Whether the disk has less free than it should, given whether it had before.
    fn is_low(&self, before: bool) -> bool {
        let (min, resume) = (self.options.disk_free_bytes_min, self.options.disk_free_bytes_resume);
        match self.fs.free_bytes(&self.paths.root) {
            Ok(free) => {
                self.counters.disk_free_bytes.store(free, Ordering::Relaxed);
                free < if before { min.max(resume) } else { min }
            }
            Err(error) => {
                tracing::debug!(%error, "how much of the disk is free cannot be told");
                false
            }
        }
    }

    /// Decides whether persistent sends are refused.
    fn judge(&self, outcome: &io::Result<()>) {
        let before = self.pool.state.lock().low;
        let low = self.is_low(before);
        let mut state = self.pool.state.lock();
        let full = outcome.is_err() && state.ready.len() < READY;
        let changed = state.failing != full;
        state.failing = full;
        state.low = low;
        drop(state);
        self.journal.disk_full.store(full || low, Ordering::Relaxed);
        if low != before {
            let free = self.counters.disk_free_bytes.load(Ordering::Relaxed);
            let dir = self.paths.root.display();
            if low {
                tracing::error!(%dir, free, "the disk has less free than store.disk_free_bytes_min: persistent sends are refused until it has more");
            } else {
                tracing::info!(%dir, free, "the disk has enough free again: persistent sends are accepted");
            }
        }
        if changed && full {
            self.wake_readers();
        }
        match outcome {
            Err(error) if changed && full => {
                tracing::error!(dir = %self.paths.root.display(), %error, "no space for another log segment: persistent sends are refused until there is");
                self.nudge_keeper();
            }
            Ok(()) if changed => {
                tracing::info!(dir = %self.paths.root.display(), "there is space for log segments again: persistent sends are accepted");
            }
            _ => {}
        }
    }

    fn make(&self, number: u64) -> io::Result<Ready> {
        let path = self.paths.segment(number);
        let file = self.fs.create(&path)?;
        let made =
            file.allocate(self.options.segment_bytes).and_then(|()| self.fs.sync_dir(&self.paths.journal));
        if let Err(error) = made {
            // What was taken of the disk is given back: the next attempt starts anew.
            if let Err(error) = self.fs.remove(&path) {
                tracing::warn!(file = %path.display(), %error, "an unfinished segment could not be removed");
            }
            return Err(error);
        }
        let capacity = file.len()?;
        self.pool.state.lock().disk_bytes += capacity;
        Ok(Ready { number, stamp: stamp(self.store_id, number), file, capacity })
    }

    /// Gives a dead file a new number. Its old frames carry the old stamp and are nothing under the new one.
    fn recycle(&self, old: u64, number: u64) -> io::Result<Ready> {
        let (from, to) = (self.paths.segment(old), self.paths.segment(number));
        let file = match self.fs.open(&from) {
            Ok(file) => file,
            Err(error) => {
                self.pool.state.lock().dead.push(old);
                return Err(error);
            }
        };
        let before = file.len()?;
        let wanted = self.options.segment_bytes;
        let sized =
            if before > wanted.saturating_mul(2) { file.set_len(wanted) } else { file.allocate(wanted) };
        if let Err(error) = sized {
            if is_full(&error) {
                self.remove_file(&self.paths.segment(old))?;
            } else {
                self.pool.state.lock().dead.push(old);
            }
            return Err(error);
        }
        if let Err(error) = self.fs.rename(&from, &to) {
            self.pool.state.lock().dead.push(old);
            return Err(error);
        }
        self.fs.sync_dir(&self.paths.journal)?;
        let capacity = file.len()?;
        let mut state = self.pool.state.lock();
        state.disk_bytes = state.disk_bytes.saturating_sub(before).saturating_add(capacity);
        drop(state);
        Ok(Ready { number, stamp: stamp(self.store_id, number), file, capacity })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let len = self.fs.open(path)?.len()?;
        self.fs.remove(path)?;
        self.give_space(len);
        Ok(())
    }

    /// Counts bytes of a page file before they are written.
    pub(crate) fn take_space(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.pool.state.lock();
        let after = state.disk_bytes.saturating_add(bytes);
        if self.options.disk_bytes_max.is_some_and(|max| after > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.disk_bytes = after;
        Ok(())
    }

    pub(crate) fn give_space(&self, bytes: u64) {
        let mut state = self.pool.state.lock();
        state.disk_bytes = state.disk_bytes.saturating_sub(bytes);
    }

    /// Makes the next ready segment large enough for a frame of `bytes`.
    pub(crate) fn enlarge(&self, ready: &mut Ready, bytes: u64) -> io::Result<()> {
        if ready.capacity >= bytes {
            return Ok(());
        }
        // Zeros written by one enlargement must not meet what the committer writes behind another.
        let _growing = self.pool.growing.lock();
        ready.capacity = ready.file.len()?;
        let growth = bytes.saturating_sub(ready.capacity);
        let state = self.pool.state.lock();
        let taken = state.disk_bytes.saturating_add(self.blobs.bytes());
        let over = self.options.disk_bytes_max.is_some_and(|max| taken.saturating_add(growth) > max);
        drop(state);
        if over {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let grown = ready.file.allocate(bytes);
        let capacity = ready.file.len()?;
        self.pool.state.lock().disk_bytes += capacity.saturating_sub(ready.capacity);
        ready.capacity = capacity;
        grown
    }

    /// Makes sure that the next ready segment can hold `bytes`.
    pub(crate) fn reserve(&self, bytes: u64) -> io::Result<()> {
        loop {
            // The segment stays in its place meanwhile: numbers are used in order.
            let first = {
                let state = self.pool.state.lock();
                if state.ready.front().is_some_and(|ready| ready.capacity >= bytes) {
                    return Ok(());
                }
                state.ready.front().cloned()
            };
            let Some(mut grown) = first else { return Err(io::ErrorKind::StorageFull.into()) };
            let outcome = self.enlarge(&mut grown, bytes);
            let mut state = self.pool.state.lock();
            if let Some(ready) = state.ready.iter_mut().find(|ready| ready.number == grown.number) {
                ready.capacity = grown.capacity;
                return outcome;
            }
            // The committer has taken it for what waited already: now the one after it.
            outcome?;
        }
    }

    /// The pool thread.
    pub(crate) fn run_pool(&self) {
        loop {
            let outcome = self.fill_pool();
            let mut state = self.pool.state.lock();
            if state.stop || self.journal.failed().is_some() {
                return;
            }
            let idle =
                state.ready.len() >= READY && state.dead.len() <= DEAD_KEPT && state.dead_pages.is_empty();
            match outcome {
                // Others fill the disk too.
                Ok(()) if idle && self.options.disk_free_bytes_min > 0 => {
                    self.pool.changed.wait_for(&mut state, RETRY);
                }
                Ok(()) if idle => self.pool.changed.wait(&mut state),
                Ok(()) => {}
                Err(_) => {
                    self.pool.changed.wait_for(&mut state, RETRY);
                }
            }
            if state.stop {
                return;
            }
        }
    }
}
