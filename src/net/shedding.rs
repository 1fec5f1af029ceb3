//! When the process has no file descriptor for one more connection: who waits in the kernel's backlog is let in by a
//! descriptor that is kept for this, and closed, so that it learns at once that it must try elsewhere or later.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use sabir_model::clock::{Clock, Instant};
use socket2::{Domain, Socket, Type};

use super::Shared;
use super::census::Reason;

/// Pause after an error that is not one connection's own. Those who leave meanwhile make room.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that are closed before the next pause.
const SHED_MAX: usize = 64;
/// The log is told of it no more often.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// A descriptor in reserve.
#[derive(Debug)]
pub(crate) struct Reserve {
    descriptor: Mutex<Option<Socket>>,
    /// When the log was told last.
    said: AtomicU64,
}

impl Reserve {
    pub(crate) fn new() -> Self {
        Self { descriptor: Mutex::new(spare()), said: AtomicU64::new(0) }
    }

    /// Whether it is time to tell the log again.
    fn says(&self, now: Instant) -> bool {
        let last = self.said.load(Ordering::Relaxed);
        let due = last == 0 || now >= Instant(last).after(SAID_EVERY);
        due && self.said.compare_exchange(last, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Any descriptor will do.
fn spare() -> Option<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM, None).ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| {
        let code = Errno::from_raw_os_error(code);
        code == Errno::MFILE || code == Errno::NFILE
    })
}

/// An accept has failed: the fault of the one connection, or of the whole process. `accept` accepts the next and closes it.
pub(super) async fn after_failure<F: Future<Output = io::Result<()>>>(
    shared: &Shared,
    error: &io::Error,
    key: &'static str,
    mut accept: impl FnMut() -> F,
) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) {
        return;
    }
    let mut closed = 0;
    if is_out_of_descriptors(error) {
        let spare_one = shared.reserve.descriptor.lock().take();
        // Without one, another listener is at it.
        if spare_one.is_some() {
            drop(spare_one);
            while closed < SHED_MAX
                && let Ok(Ok(())) = tokio::time::timeout(Duration::ZERO, accept()).await
            {
                shared.census.turn_away(Reason::Descriptors);
                closed += 1;
            }
        }
        let mut descriptor = shared.reserve.descriptor.lock();
        if descriptor.is_none() {
            *descriptor = spare();
        }
    }
    if shared.reserve.says(shared.clock.now()) {
        tracing::warn!(listener = key, %error, closed, "cannot accept connections at the moment");
    }
    tokio::time::sleep(PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_is_told_from_other_errors() {
        for (code, out) in [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::NOMEM, false)] {
            assert_eq!(is_out_of_descriptors(&io::Error::from(code)), out, "{code}");
        }
        assert!(!is_out_of_descriptors(&io::Error::other("x")));
    }

    #[test]
    fn the_log_is_told_now_and_then() {
        let reserve = Reserve::new();
        let at = |seconds: u64| Instant(seconds * 1_000_000 + 5);
        let said: Vec<bool> = [0, 1, 9, 10, 11, 25].into_iter().map(|s| reserve.says(at(s))).collect();
        assert_eq!(said, [true, false, false, true, false, true]);
    }
}
