//! Settling what a batch has acknowledged: the egress resolves names to tokens, the queues settle, one group per queue logs.

use sabir_model::command::Promise;
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::ids::TransactionKey;
use sabir_model::session::Settled;
use sabir_store::Level;

use crate::connection::Connection;
use crate::work::settle;
use crate::work::stronger;

impl Connection {
    /// Settles what the batch has acknowledged. Returns the newest promise of the log and, per refused acknowledgement,
    /// its place in the batch.
    pub(crate) fn run_acks(&mut self, receipted: bool) -> (Option<Promise>, Vec<usize>) {
        let acks = self.work.take_acks();
        if acks.is_empty() {
            return (None, Vec::new());
        }
        self.release();
        let mut settled: Vec<Settled> = Vec::with_capacity(acks.len());
        let mut unknown: Vec<usize> = Vec::new();
        self.outbox.acknowledged(&acks, &mut settled, &mut unknown);
        let newest = self.settle_resolved(
            &settled,
            |ack| acks.get(ack).and_then(|ack| ack.transaction),
            receipted,
            &mut unknown,
        );
        unknown.sort_unstable();
        unknown.dedup();
        let last = acks.len() - 1;
        for index in &unknown {
            if let Some(ack) = acks.get(*index)
                && !(receipted && *index == last)
            {
                self.events
                    .make()
                    .push_back(Event::SettleRefused { cookie: ack.cookie, refusal: unknown_delivery() });
            }
        }
        let mut acks = acks;
        acks.clear();
        self.work.get().acks = acks;
        (newest, if unknown.last() == Some(&last) { vec![last] } else { Vec::new() })
    }

    /// Settles deliveries that are known by their tokens, with one group of the log for each run of one queue. `transaction`
    /// tells which one an acknowledgement belongs to; the places of those that could not be settled go to `unknown`.
    pub(crate) fn settle_resolved(
        &mut self,
        settled: &[Settled],
        transaction_of: impl Fn(usize) -> Option<TransactionKey>,
        receipted: bool,
        unknown: &mut Vec<usize>,
    ) -> Option<Promise> {
        let mut newest = None;
        let mut level = Level::Os;
        let mut rest = settled;
        while let Some(first) = rest.first() {
            let transaction = transaction_of(first.ack);
            let same = rest
                .iter()
                .take_while(|one| {
                    one.token.queue == first.token.queue && transaction_of(one.ack) == transaction
                })
                .count();
            let (group, later) = rest.split_at(same);
            rest = later;
            if let Some(transaction) = transaction {
                self.settle_later(transaction, group, unknown);
                continue;
            }
            let queue = (first.token.boot == self.shared.boot)
                .then(|| self.shared.queue(first.token.queue))
                .flatten();
            let Some(queue) = queue else {
                unknown.extend(group.iter().map(|one| one.ack));
                continue;
            };
            // An acknowledgement nobody waits for goes with the next sync, not with one of its own. One that covers
            // several queues is logged ever more strongly, so that the last promise keeps them all.
            if receipted {
                level = stronger(level, queue.policy.durability);
            }
            let items = group.iter().map(|one| (one.token, one.settlement));
            let refused = |index: usize| unknown.extend(group.get(index).map(|one| one.ack));
            newest = settle(&self.shared, &queue, self.id, items, level, self.work.get(), refused).or(newest);
        }
        self.last_promise = newest.or(self.last_promise);
        newest
    }

    /// Keeps settlements for a transaction's commit.
    pub(crate) fn settle_later(&mut self, key: TransactionKey, group: &[Settled], unknown: &mut Vec<usize>) {
        let Some(first) = group.first() else { return };
        let queue =
            (first.token.boot == self.shared.boot).then(|| self.shared.queue(first.token.queue)).flatten();
        let (Some(queue), Some(transaction)) =
            (queue, self.aside.get_mut().and_then(|aside| aside.transactions.get_mut(&key)))
        else {
            unknown.extend(group.iter().map(|one| one.ack));
            return;
        };
        let held = queue.lock();
        for one in group {
            if held.core.knows(one.token, self.id) && !transaction.settles(one.token) {
                transaction.settlements.push((one.token, one.settlement));
            } else {
                unknown.push(one.ack);
            }
        }
    }
}

pub(crate) fn unknown_delivery() -> Refusal {
    Refusal::new(Code::UnknownDelivery, "no unsettled delivery of this connection goes by that id")
}
