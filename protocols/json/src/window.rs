//! Deliveries a client has still to settle where an acknowledgement covers earlier ones too (mode `client`). Where it covers
//! one, its name is the token and nothing is kept.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::ids::{DeliveryToken, SubscriptionKey, TransactionKey};

/// Largest window of unsettled deliveries a client is granted.
pub(crate) const CREDIT_MAX: u32 = 65_535;

/// Deliveries remembered: as many as can be unsettled. Who settles them one by one, by names that are not his, does not make
/// this grow.
const KEPT_MAX: usize = CREDIT_MAX as usize;

/// A delivery that is out, with its number among those of its subscription.
pub(crate) type Entry = (u64, DeliveryToken);

/// One subscription's deliveries in their order.
#[derive(Debug, Default)]
pub(crate) struct Window {
    out: VecDeque<Entry>,
    next: u64,
}

impl Window {
    /// A delivery is going out.
    pub(crate) fn sent(&mut self, token: DeliveryToken) {
        if self.out.len() >= KEPT_MAX {
            self.out.pop_front();
        }
        self.out.push_back((self.next, token));
        self.next += 1;
    }

    /// Takes out all up to this one; `false` if it is not out.
    pub(crate) fn take_up_to(&mut self, token: &DeliveryToken, mut taken: impl FnMut(Entry)) -> bool {
        let Some(at) = self.out.iter().position(|(_, known)| known == token) else { return false };
        self.out.drain(..=at).for_each(&mut taken);
        true
    }

    /// A delivery is out again.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        let at = self.out.partition_point(|(serial, _)| *serial < entry.0);
        self.out.insert(at, entry);
    }
}

/// What open transactions have acknowledged: it is with the client again if they are aborted.
#[derive(Debug, Default)]
pub(crate) struct InTransactions {
    taken: HashMap<TransactionKey, Vec<(SubscriptionKey, Entry)>, RandomState>,
}

impl InTransactions {
    pub(crate) fn note(&mut self, transaction: TransactionKey, key: SubscriptionKey, entry: Entry) {
        self.taken.entry(transaction).or_default().push((key, entry));
    }

    /// The transaction has ended: what is out again.
    pub(crate) fn ended(
        &mut self,
        transaction: TransactionKey,
        committed: bool,
    ) -> Vec<(SubscriptionKey, Entry)> {
        let taken = self.taken.remove(&transaction).unwrap_or_default();
        if committed { Vec::new() } else { taken }
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::ids::QueueId;

    use super::*;

    fn token(slot: u32) -> DeliveryToken {
        DeliveryToken { boot: 1, queue: QueueId(1), slot, generation: 1 }
    }

    fn taken(window: &mut Window, slot: u32) -> Option<Vec<u32>> {
        let mut slots = Vec::new();
        window.take_up_to(&token(slot), |(_, token)| slots.push(token.slot)).then_some(slots)
    }

    #[test]
    fn one_acknowledgement_takes_all_before_it_and_an_abort_gives_them_back_in_order() {
        let mut window = Window::default();
        (1..=5).for_each(|slot| window.sent(token(slot)));
        let (mut held, key, transaction) = (InTransactions::default(), SubscriptionKey(1), TransactionKey(1));
        window.take_up_to(&token(3), |entry| held.note(transaction, key, entry));
        assert_eq!(taken(&mut window, 2), None);
        assert_eq!(taken(&mut window, 4), Some(vec![4]));
        for (_, entry) in held.ended(transaction, false) {
            window.put_back(entry);
        }
        assert_eq!(taken(&mut window, 5), Some(vec![1, 2, 3, 5]));
        window.sent(token(6));
        window.take_up_to(&token(6), |entry| held.note(transaction, key, entry));
        assert!(held.ended(transaction, true).is_empty());
    }

    #[test]
    fn a_window_is_never_larger_than_credit_can_be() {
        let mut window = Window::default();
        (0..=CREDIT_MAX).for_each(|slot| window.sent(token(slot)));
        assert_eq!(window.out.len(), KEPT_MAX);
        assert_eq!(taken(&mut window, 0), None);
        assert_eq!(taken(&mut window, 1), Some(vec![1]));
    }
}
