//! The order of locks, checked where debug assertions are on: the maps of a virtual host, then queues in ascending id,
//! then one outbox. (The journal's buffer comes between queues and outbox; it is taken by nobody who holds an outbox.)

use std::ops::{Deref, DerefMut};

use sabir_model::ids::QueueId;

/// Where a lock stands. Locks are taken in ascending order, each strictly above all that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Queue(QueueId),
    Outbox,
}

#[cfg(debug_assertions)]
mod check {
    use std::cell::RefCell;

    use super::Rank;

    thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    #[derive(Debug)]
    pub(super) struct Token(Rank);

    impl Token {
        pub(super) fn enter(rank: Rank) -> Self {
            HELD.with_borrow_mut(|held| {
                let highest = held.iter().max();
                assert!(highest.is_none_or(|highest| *highest < rank), "{rank:?} after {highest:?}");
                held.push(rank);
            });
            Self(rank)
        }
    }

    impl Drop for Token {
        fn drop(&mut self) {
            // A thread that ends has no list any more.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|rank| *rank == self.0) {
                    held.remove(at);
                }
            });
        }
    }

    pub(super) fn none_held() {
        HELD.with_borrow(|held| assert!(held.is_empty(), "a map after {held:?}"));
    }
}

#[cfg(not(debug_assertions))]
mod check {
    use super::Rank;

    #[derive(Debug)]
    pub(super) struct Token;

    impl Token {
        pub(super) fn enter(_: Rank) -> Self {
            Self
        }
    }

    pub(super) fn none_held() {}
}

/// A lock's guard that knows its place.
#[derive(Debug)]
pub(crate) struct Ranked<G> {
    guard: G,
    _token: check::Token,
}

impl<G> Ranked<G> {
    /// Takes a lock in its turn.
    pub(crate) fn take(rank: Rank, lock: impl FnOnce() -> G) -> Self {
        // Checked first: a wrong order shall be seen, not wait for ever.
        let token = check::Token::enter(rank);
        Self { guard: lock(), _token: token }
    }
}

impl<G: Deref> Deref for Ranked<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Ranked<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// States that no queue and no outbox is held: maps come first.
pub(crate) fn before_maps() {
    check::none_held();
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "after")]
    fn a_lower_queue_after_a_higher_one_is_found_out() {
        let _second = Ranked::take(Rank::Queue(QueueId(2)), || &());
        let _first = Ranked::take(Rank::Queue(QueueId(1)), || &());
    }

    #[test]
    #[should_panic(expected = "after")]
    fn a_queue_after_an_outbox_is_found_out() {
        let _outbox = Ranked::take(Rank::Outbox, || &());
        let _queue = Ranked::take(Rank::Queue(QueueId(1)), || &());
    }

    #[test]
    fn released_locks_do_not_count() {
        drop(Ranked::take(Rank::Outbox, || &()));
        let _queue = Ranked::take(Rank::Queue(QueueId(1)), || &());
        drop(Ranked::take(Rank::Outbox, || &()));
        let _next = Ranked::take(Rank::Queue(QueueId(2)), || &());
    }
}
