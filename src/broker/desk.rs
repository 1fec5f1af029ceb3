//! A connection's working state, which it has only while it works: an idle connection holds none.

use std::cell::RefCell;

use sabir_model::command::WireAck;
use sabir_model::session::Now;

use crate::queue::Held;
use crate::work::Work;

/// States that a thread keeps for the next connection that works on it.
const KEPT_MAX: usize = 4;

thread_local! {
    #[expect(clippy::vec_box, reason = "a connection takes the pointer, not the state")]
    static KEPT: RefCell<Vec<Box<Work>>> = const { RefCell::new(Vec::new()) };
}

/// Where a connection's working state is while it has one.
pub(crate) struct Desk {
    now: Now,
    work: Option<Box<Work>>,
}

impl Desk {
    pub(crate) fn new(now: Now) -> Self {
        Self { now, work: None }
    }

    /// It is later.
    pub(crate) fn set_now(&mut self, now: Now) {
        self.now = now;
        if let Some(work) = &mut self.work {
            work.now = now;
        }
    }

    /// The working state.
    pub(crate) fn get(&mut self) -> &mut Work {
        let now = self.now;
        self.work.get_or_insert_with(|| {
            let kept = KEPT.with_borrow_mut(Vec::pop);
            let mut work = kept.unwrap_or_else(|| Box::new(Work::new(now)));
            work.now = now;
            work
        })
    }

    /// Whether there is no working state, and so nothing left to be done.
    pub(crate) fn is_clear(&self) -> bool {
        self.work.is_none()
    }

    /// The queue that is kept locked between sends, if there is one, with the number of sends.
    pub(crate) fn take_held(&mut self) -> Option<(Held, u32)> {
        self.work.as_mut()?.held.take()
    }

    /// The batch's acknowledgements.
    pub(crate) fn take_acks(&mut self) -> Vec<WireAck> {
        self.work.as_mut().map(|work| std::mem::take(&mut work.acks)).unwrap_or_default()
    }

    /// Leaves the state to others if nothing is left in it.
    pub(crate) fn clear(&mut self) {
        let Some(mut work) = self.work.take_if(|work| work.is_blank()) else { return };
        work.durable = None;
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(work);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sabir_model::clock::{Instant, Timestamp};

    #[test]
    fn an_idle_connection_holds_no_working_state() {
        let now = |at| Now { instant: Instant(at), wall: Timestamp(at) };
        let (mut one, mut other) = (Desk::new(now(1)), Desk::new(now(2)));
        one.get().dispatched = 3;
        one.clear();
        assert!(one.work.is_some(), "it has not been counted");
        one.get().dispatched = 0;
        one.clear();
        assert!(one.work.is_none());
        assert_eq!(other.get().now.wall, Timestamp(2));
        other.set_now(now(3));
        assert_eq!(other.get().now.wall, Timestamp(3));
        assert_eq!(one.get().now.wall, Timestamp(1));
    }
}
