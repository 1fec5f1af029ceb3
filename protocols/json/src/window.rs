//! Deliveries a client has still to settle where an acknowledgement covers earlier ones too (mode `client`). Where it covers
//! one, its name is the token and nothing is kept.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::ids::{DeliveryToken, SubscriptionKey, TransactionKey};

/// One subscription's deliveries in their order.
#[derive(Debug, Default)]
pub(crate) struct Window {
    out: VecDeque<(u64, DeliveryToken)>,
    next: u64,
}

impl Window {
    /// A delivery is going out.
    pub(crate) fn sent(&mut self, token: DeliveryToken) {
        self.out.push_back((self.next, token));
        self.next += 1;
    }

    /// Takes out all up to this one; `false` if it is not out.
    pub(crate) fn take_up_to(
        &mut self,
        token: &DeliveryToken,
        mut taken: impl FnMut((u64, DeliveryToken)),
    ) -> bool {
        let Some(at) = self.out.iter().position(|(_, known)| known == token) else { return false };
        self.out.drain(..=at).for_each(&mut taken);
        true
    }

    /// A delivery is out again.
    pub(crate) fn put_back(&mut self, entry: (u64, DeliveryToken)) {
        let at = self.out.partition_point(|(serial, _)| *serial < entry.0);
        self.out.insert(at, entry);
    }
}

/// What open transactions have acknowledged: it is with the client again if they are aborted.
#[derive(Debug, Default)]
pub(crate) struct InTransactions {
    taken: HashMap<TransactionKey, Vec<(SubscriptionKey, (u64, DeliveryToken))>, RandomState>,
}

impl InTransactions {
    pub(crate) fn note(
        &mut self,
        transaction: TransactionKey,
        key: SubscriptionKey,
        entry: (u64, DeliveryToken),
    ) {
        self.taken.entry(transaction).or_default().push((key, entry));
    }

    /// The transaction has ended: what is out again.
    pub(crate) fn ended(
        &mut self,
        transaction: TransactionKey,
        committed: bool,
    ) -> Vec<(SubscriptionKey, (u64, DeliveryToken))> {
        let taken = self.taken.remove(&transaction).unwrap_or_default();
        if committed { Vec::new() } else { taken }
    }
}
