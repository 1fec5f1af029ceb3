//! Deliveries a client has still to settle, where its acknowledgement does not name the delivery's token itself: by
//! message id (1.0 and 1.1), or all up to one (mode `client` of every version).
//!
//! In 1.2 an acknowledgement of one delivery needs none of this: its id is the token.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::ids::{DeliveryToken, MessageId, SubscriptionKey, TransactionKey};
use smallvec::SmallVec;

/// A message id as clients of 1.0 and 1.1 see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// The broker's own.
    Id(MessageId),
    /// The sender's.
    Text(Box<str>),
}

impl Name {
    pub(crate) fn new(text: &str) -> Self {
        MessageId::parse(text).map_or_else(|| Self::Text(text.into()), Self::Id)
    }
}

/// One delivery that is out.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    /// Its place in the order of its subscription.
    serial: u64,
    /// What an acknowledgement calls it; absent where that is the token.
    name: Option<Name>,
    pub(crate) token: DeliveryToken,
}

/// One subscription's deliveries in their order; kept only where an acknowledgement covers earlier ones too.
#[derive(Debug, Default)]
pub(crate) struct Window {
    order: VecDeque<Out>,
    next_serial: u64,
    /// Named deliveries that are out.
    named: usize,
}

/// Finds the window of a subscription.
pub(crate) trait Lookup {
    /// The window, and whether its acknowledgements are cumulative.
    fn window(&mut self, key: SubscriptionKey) -> Option<(&mut Window, bool)>;
}

type Refs = SmallVec<[(SubscriptionKey, Out); 1]>;

/// What all windows of a connection share: the names, and what open transactions have acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    names: HashMap<Name, Refs, RandomState>,
    in_transactions: HashMap<TransactionKey, Vec<(SubscriptionKey, Out)>, RandomState>,
}

impl Windows {
    /// A delivery is going out. `name` is what an acknowledgement will call it, if not the token.
    pub(crate) fn sent(
        &mut self,
        key: SubscriptionKey,
        window: &mut Window,
        cumulative: bool,
        name: Option<Name>,
        token: DeliveryToken,
    ) {
        let out = Out { serial: window.next_serial, name, token };
        window.next_serial += 1;
        self.insert(key, window, cumulative, out);
    }

    fn insert(&mut self, key: SubscriptionKey, window: &mut Window, cumulative: bool, out: Out) {
        if let Some(name) = &out.name {
            window.named += 1;
            let refs = self.names.entry(name.clone()).or_default();
            let at = refs.partition_point(|(_, other)| other.serial <= out.serial);
            refs.insert(at, (key, out.clone()));
        }
        if cumulative {
            let at = window.order.partition_point(|other| other.serial < out.serial);
            window.order.insert(at, out);
        }
    }

    /// Takes out what an acknowledgement by name settles; empty if nothing out goes by it. Without a subscription the
    /// name is looked for in all.
    pub(crate) fn take_named(
        &mut self,
        subscription: Option<SubscriptionKey>,
        name: &Name,
        transaction: Option<TransactionKey>,
        lookup: &mut impl Lookup,
        settled: &mut impl FnMut(DeliveryToken),
    ) -> bool {
        let found = self.names.get(name).and_then(|refs| {
            refs.iter().find(|(key, _)| subscription.is_none_or(|wanted| wanted == *key)).cloned()
        });
        let Some((key, out)) = found else { return false };
        let Some((window, cumulative)) = lookup.window(key) else { return false };
        if !cumulative {
            self.forget_name(key, window, &out);
            settled(out.token);
            self.remember(transaction, key, out);
            return true;
        }
        let count = window.order.partition_point(|other| other.serial <= out.serial);
        self.take_first(count, key, window, transaction, settled);
        true
    }

    /// Takes out what a cumulative acknowledgement by token settles; `false` if the token is not out.
    pub(crate) fn take_up_to(
        &mut self,
        key: SubscriptionKey,
        token: &DeliveryToken,
        transaction: Option<TransactionKey>,
        lookup: &mut impl Lookup,
        settled: &mut impl FnMut(DeliveryToken),
    ) -> bool {
        let Some((window, true)) = lookup.window(key) else { return false };
        let Some(at) = window.order.iter().position(|out| out.token == *token) else { return false };
        self.take_first(at + 1, key, window, transaction, settled);
        true
    }

    fn take_first(
        &mut self,
        count: usize,
        key: SubscriptionKey,
        window: &mut Window,
        transaction: Option<TransactionKey>,
        settled: &mut impl FnMut(DeliveryToken),
    ) {
        for _ in 0..count {
            let Some(out) = window.order.pop_front() else { break };
            self.forget_name(key, window, &out);
            settled(out.token);
            self.remember(transaction, key, out);
        }
    }

    fn forget_name(&mut self, key: SubscriptionKey, window: &mut Window, out: &Out) {
        let Some(name) = &out.name else { return };
        window.named = window.named.saturating_sub(1);
        if let Some(refs) = self.names.get_mut(name) {
            refs.retain(|(other_key, other)| !(*other_key == key && other.serial == out.serial));
            if refs.is_empty() {
                self.names.remove(name);
            }
        }
    }

    fn remember(&mut self, transaction: Option<TransactionKey>, key: SubscriptionKey, out: Out) {
        if let Some(transaction) = transaction {
            self.in_transactions.entry(transaction).or_default().push((key, out));
        }
    }

    /// A transaction has ended. What it acknowledged is done with, or, if it was aborted, out again.
    pub(crate) fn transaction_ended(
        &mut self,
        transaction: TransactionKey,
        committed: bool,
        lookup: &mut impl Lookup,
    ) {
        let Some(outs) = self.in_transactions.remove(&transaction) else { return };
        if committed {
            return;
        }
        for (key, out) in outs {
            // The subscription may have ended meanwhile; then the broker has its deliveries back.
            if let Some((window, cumulative)) = lookup.window(key) {
                self.insert(key, window, cumulative, out);
            }
        }
    }

    /// A subscription has ended: nothing of it is out any more.
    pub(crate) fn detached(&mut self, key: SubscriptionKey, mut window: Window) {
        for out in std::mem::take(&mut window.order) {
            self.forget_name(key, &mut window, &out);
        }
        if window.named > 0 {
            self.names.retain(|_, refs| {
                refs.retain(|(other, _)| *other != key);
                !refs.is_empty()
            });
        }
    }
}
