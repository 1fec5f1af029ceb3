//! Idempotency keys: a request that is repeated because its reply was lost is answered with that reply, and not carried
//! out again (the draft of the HTTPAPI working group, `Idempotency-Key`). Kept in memory, within a window and a number.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, DefaultHasher, RandomState};
use std::time::Duration;

use axum::http::StatusCode;
use parking_lot::Mutex;
use sabir_admin::Problem;
use sabir_model::access::Principal;
use sabir_model::clock::Instant;
use sabir_model::command::Promise;
use sabir_model::error::Code;

/// Longest key.
const KEY_BYTES_MAX: usize = 256;
/// Most messages of a batch with a key, which bounds the reply that is kept.
pub(super) const MESSAGES_MAX: usize = 1000;

/// Whose request it is, and what they call it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    principal: Principal,
    /// Path and query.
    target: Box<str>,
    key: Box<str>,
}

impl Key {
    /// A key as a header gives it.
    ///
    /// # Errors
    /// It is empty, too long, or not plain text.
    pub(super) fn new(principal: &Principal, target: &str, key: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(key).ok().map(|text| text.trim().trim_matches('"'));
        match text.filter(|text| !text.is_empty() && text.len() <= KEY_BYTES_MAX) {
            Some(text) => Ok(Self { principal: principal.clone(), target: target.into(), key: text.into() }),
            None => Err(Problem::invalid(
                "Idempotency-Key",
                format!("an Idempotency-Key is text of 1 to {KEY_BYTES_MAX} bytes"),
            )),
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    InProgress,
    /// Carried out; the reply may leave once the promise is kept.
    Done(StatusCode, Vec<u8>, Option<Promise>),
}

struct Entry {
    /// Of the body: the same key with another body is a mistake.
    fingerprint: u64,
    /// Which use of the key this is.
    serial: u64,
    state: State,
}

#[derive(Default)]
struct Book {
    entries: HashMap<Key, Entry>,
    order: VecDeque<(Instant, u64, Key)>,
    serial: u64,
}

/// Replies by key.
pub(super) struct Replies {
    book: Mutex<Book>,
    max: usize,
    lasts: Duration,
    hasher: RandomState,
}

/// What a key says of a request.
pub(super) enum Known<'a> {
    /// It is new. Tell the reply, or drop this if nothing was done.
    New(Pending<'a>),
    /// It was carried out, with this reply.
    Replied(StatusCode, Vec<u8>, Option<Promise>),
}

/// A request that is being carried out.
pub(super) struct Pending<'a> {
    replies: &'a Replies,
    key: Option<Key>,
}

impl Replies {
    /// At most `max` keys, each for so many milliseconds.
    pub(super) fn new(max: usize, lasts_ms: u64) -> Self {
        Self {
            book: Mutex::default(),
            max,
            lasts: Duration::from_millis(lasts_ms),
            hasher: RandomState::new(),
        }
    }

    /// Makes fingerprints of bodies: the same however they are cut.
    pub(super) fn hasher(&self) -> DefaultHasher {
        self.hasher.build_hasher()
    }

    /// Looks a request up by its key and the fingerprint of its body, and notes it if it is new.
    ///
    /// # Errors
    /// It is being carried out at this moment, or the key was used for another body.
    pub(super) fn look_up(&self, key: Key, fingerprint: u64, now: Instant) -> Result<Known<'_>, Problem> {
        let mut book = self.book.lock();
        let book = &mut *book;
        while let Some((until, serial, old)) = book.order.front() {
            if *until > now && book.entries.len() < self.max {
                break;
            }
            if book.entries.get(old).is_some_and(|entry| entry.serial == *serial) {
                book.entries.remove(old);
            }
            book.order.pop_front();
        }
        if let Some(entry) = book.entries.get(&key) {
            if entry.fingerprint != fingerprint {
                let sentence = "this Idempotency-Key was used for another body";
                return Err(Problem::invalid("Idempotency-Key", sentence)
                    .with_status(StatusCode::UNPROCESSABLE_ENTITY));
            }
            return match &entry.state {
                State::Done(status, body, promise) => Ok(Known::Replied(*status, body.clone(), *promise)),
                State::InProgress => Err(Problem::new(
                    Code::UnexpectedFrame,
                    "the request of this Idempotency-Key is being carried out; repeat it in a moment",
                )
                .with_status(StatusCode::CONFLICT)),
            };
        }
        book.serial += 1;
        let serial = book.serial;
        book.order.push_back((now.after(self.lasts), serial, key.clone()));
        book.entries.insert(key.clone(), Entry { fingerprint, serial, state: State::InProgress });
        Ok(Known::New(Pending { replies: self, key: Some(key) }))
    }
}

impl Pending<'_> {
    /// It was carried out, and this is the reply once the promise is kept. Told before anybody waits for that: a client
    /// that goes away meanwhile is the very one that will ask again.
    pub(super) fn replied(mut self, status: StatusCode, body: &[u8], promise: Option<Promise>) {
        let Some(key) = self.key.take() else { return };
        if let Some(entry) = self.replies.book.lock().entries.get_mut(&key) {
            entry.state = State::Done(status, body.to_vec(), promise);
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // Refused, or its client went away before anything was promised: it may be tried again.
        if let Some(key) = self.key.take() {
            self.replies.book.lock().entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use sabir_model::access::Remote;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(&Principal::anonymous(Remote::Local), "/v1/x", text.as_bytes()).unwrap()
    }

    #[test]
    fn a_repetition_gets_the_first_reply() {
        let replies = Replies::new(10, 1000);
        let Known::New(pending) = replies.look_up(key("a"), 1, Instant(1)).unwrap() else { panic!() };
        assert!(replies.look_up(key("a"), 1, Instant(2)).is_err(), "it is being carried out");
        pending.replied(StatusCode::CREATED, b"reply", None);
        let again = replies.look_up(key("a"), 1, Instant(3)).unwrap();
        assert!(matches!(again, Known::Replied(StatusCode::CREATED, body, None) if body == b"reply"));
        assert!(replies.look_up(key("a"), 2, Instant(3)).is_err(), "another body");
        assert!(matches!(replies.look_up(key("b"), 1, Instant(3)), Ok(Known::New(_))));
    }

    #[test]
    fn what_was_not_carried_out_may_be_tried_again() {
        let replies = Replies::new(10, 1000);
        drop(replies.look_up(key("a"), 0, Instant(1)).unwrap());
        assert!(matches!(replies.look_up(key("a"), 3, Instant(2)), Ok(Known::New(_))));
    }

    #[test]
    fn keys_are_forgotten_by_time_and_number() {
        let replies = Replies::new(2, 1);
        for text in ["a", "b", "c"] {
            let Known::New(pending) = replies.look_up(key(text), 0, Instant(1)).unwrap() else { panic!() };
            pending.replied(StatusCode::CREATED, b"", None);
        }
        assert!(matches!(replies.look_up(key("c"), 0, Instant(2)), Ok(Known::Replied(..))));
        assert!(replies.book.lock().entries.len() <= 2);
        assert!(matches!(replies.look_up(key("c"), 0, Instant(2000)), Ok(Known::New(_))));
        assert!(replies.book.lock().order.len() <= 2);
    }
}
