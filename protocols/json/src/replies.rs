//! Requests that wait for a reply. Both halves of a connection look here: the egress when a reply comes, the session when
//! time is up. Whoever takes a request out answers it, so there is one answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::clock::Instant;

/// What every correlation id of ours starts with.
const PREFIX: &str = "request-";
/// Most requests that wait at a time.
pub(crate) const WAITING_MAX: usize = 1000;

#[derive(Debug, Default)]
struct Waiting {
    /// The client's number for a request and when to give it up, by our own number.
    by_serial: HashMap<u64, (u64, Instant), RandomState>,
    by_time: BTreeSet<(Instant, u64)>,
    next: u64,
}

/// The requests of one connection. The lock is held for single steps only and never while anything else is called.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replies(Arc<Mutex<Waiting>>);

impl Replies {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request; its correlation id. `None` if too many wait.
    pub(crate) fn expect(&self, reference: u64, until: Instant) -> Option<(u64, String)> {
        let mut waiting = self.lock();
        if waiting.by_serial.len() >= WAITING_MAX {
            return None;
        }
        let serial = waiting.next;
        waiting.next += 1;
        waiting.by_serial.insert(serial, (reference, until));
        waiting.by_time.insert((until, serial));
        Some((serial, format!("{PREFIX}{serial}")))
    }

    /// The client's number of the request that has this correlation id, which no longer waits.
    pub(crate) fn take_named(&self, correlation: &[u8]) -> Option<u64> {
        let digits = correlation.strip_prefix(PREFIX.as_bytes())?;
        self.take(std::str::from_utf8(digits).ok()?.parse().ok()?)
    }

    /// Whether a correlation id is one that requests are given.
    pub(crate) fn is_named(correlation: &[u8]) -> bool {
        let digits = correlation.strip_prefix(PREFIX.as_bytes());
        digits.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
    }

    /// The same by our own number.
    pub(crate) fn take(&self, serial: u64) -> Option<u64> {
        let mut waiting = self.lock();
        let (reference, until) = waiting.by_serial.remove(&serial)?;
        waiting.by_time.remove(&(until, serial));
        Some(reference)
    }

    /// A request whose time is up, which no longer waits.
    pub(crate) fn take_overdue(&self, now: Instant) -> Option<u64> {
        let mut waiting = self.lock();
        let (until, serial) = *waiting.by_time.first()?;
        if until > now {
            return None;
        }
        waiting.by_time.pop_first();
        waiting.by_serial.remove(&serial).map(|(reference, _)| reference)
    }

    /// When the first one's time is up.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.lock().by_time.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_once_by_its_reply_or_by_time() {
        let replies = Replies::default();
        let expect = |reference, until| replies.expect(reference, Instant(until)).expect("room").1;
        let (first, second, third) = (expect(7, 30), expect(8, 20), expect(9, 10));
        assert_eq!(replies.next_timeout(), Some(Instant(10)));
        assert_eq!(replies.take_named(third.as_bytes()), Some(9));
        assert_eq!(replies.take_named(third.as_bytes()), None);
        assert_eq!(replies.next_timeout(), Some(Instant(20)));
        assert_eq!(replies.take_overdue(Instant(19)), None);
        assert_eq!(replies.take_overdue(Instant(20)), Some(8));
        assert_eq!(replies.take_named(second.as_bytes()), None);
        for foreign in [&b""[..], b"request-", b"request-x", b"request-77", b"0", b"\xff"] {
            assert_eq!(replies.take_named(foreign), None);
        }
        assert_eq!(replies.take_named(first.as_bytes()), Some(7));
        assert_eq!(replies.next_timeout(), None);
    }

    #[test]
    fn no_more_wait_than_may() {
        let replies = Replies::default();
        for number in 0..WAITING_MAX as u64 {
            assert!(replies.expect(number, Instant(1)).is_some());
        }
        assert!(replies.expect(0, Instant(1)).is_none());
        assert!(replies.take_overdue(Instant(1)).is_some());
        assert!(replies.expect(0, Instant(1)).is_some());
    }
}
