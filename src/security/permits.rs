//! How many passwords are computed at once: each takes 19 MiB and a core.

use parking_lot::{Condvar, Mutex};

/// A counting gate with a bounded queue before it.
pub(crate) struct Permits {
    state: Mutex<State>,
    freed: Condvar,
    waiting_max: usize,
}

struct State {
    free: usize,
    waiting: usize,
}

/// The right to compute. Dropping it frees the place, whatever the path out.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(at_once: usize, waiting_max: usize) -> Self {
        let state = Mutex::new(State { free: at_once.max(1), waiting: 0 });
        Self { state, freed: Condvar::new(), waiting_max }
    }

    /// Waits for a place; `None` at once if too many wait already.
    pub(crate) fn acquire(&self) -> Option<Permit<'_>> {
        let mut state = self.state.lock();
        if state.free == 0 {
            if state.waiting >= self.waiting_max {
                return None;
            }
            state.waiting += 1;
            self.freed.wait_while(&mut state, |state| state.free == 0);
            state.waiting -= 1;
        }
        state.free -= 1;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().free += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn never_more_than_allowed_run_and_all_get_their_turn() {
        let permits = Permits::new(2, 100);
        let (running, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let permit = permits.acquire();
                    assert!(permit.is_some());
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(done.load(Ordering::SeqCst), 16);
    }

    #[test]
    fn the_queue_before_the_gate_is_bounded() {
        let permits = Permits::new(1, 0);
        let held = permits.acquire();
        assert!(held.is_some());
        assert!(permits.acquire().is_none());
        drop(held);
        assert!(permits.acquire().is_some());
    }
}
