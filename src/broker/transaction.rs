//! A local transaction: sends and settlements kept until commit, then carried out as one group of the log.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use sabir_model::clock::Timestamp;
use sabir_model::command::{Outcome, Promise, Publish};
use sabir_model::destination::Targets;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::{ConnectionId, DeliveryToken, MessageId, TransactionKey};
use sabir_model::message::{Body, Facts};
use sabir_model::settlement::Settlement;

use crate::broker::Shared;
use crate::budget::{Budget, change, share_full};
use crate::connection::Connection;
use crate::options::BrokerLimits;
use crate::publish::{Context, Failure, Incoming, execute, plan};
use crate::route::resolve;
use crate::stats::add;

/// A send that waits for its commit.
#[derive(Debug)]
pub(crate) struct KeptSend {
    pub(crate) targets: Targets,
    facts: Facts,
    fields: Box<[u8]>,
    body: Body<'static>,
}

impl KeptSend {
    pub(crate) fn incoming<'a>(&'a self, stamp: &'a [u8], connection: ConnectionId) -> Incoming<'a> {
        Incoming {
            facts: self.facts,
            stamp,
            fields: &self.fields,
            body: self.body.clone(),
            connection,
            once: None,
            keeps_in_log: true,
        }
    }
}

/// One open transaction of one connection.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) sends: Vec<KeptSend>,
    pub(crate) settlements: Vec<(DeliveryToken, Settlement)>,
    tokens: HashSet<DeliveryToken, RandomState>,
    bytes: usize,
}

impl Transaction {
    /// Notes a delivery as settled in this transaction; true if it was already.
    pub(crate) fn settles(&mut self, token: DeliveryToken) -> bool {
        !self.tokens.insert(token)
    }

    /// It ends, and holds no memory any more.
    pub(crate) fn give_back(&self, budget: &Budget) {
        change(&budget.transactions, -i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }

    /// Keeps a send.
    pub(crate) fn keep(
        &mut self,
        publish: &Publish<'_>,
        id: MessageId,
        now: Timestamp,
        limits: &BrokerLimits,
        budget: &Budget,
    ) -> Result<(), Refusal> {
        let (bytes_max, items_max) = (limits.transaction_bytes_max, limits.transaction_items_max);
        // What is not in memory takes none.
        let body = publish.body.octets().map_or(0, <[u8]>::len);
        let bytes = self.bytes.saturating_add(publish.fields.len() + body);
        if bytes > bytes_max {
            let sentence = format!("a transaction may hold {bytes_max} bytes; this one would hold more");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        let more = bytes - self.bytes;
        if budget.spare() < more as u64 || budget.is_too_much(bytes as u64) {
            return Err(share_full("the transaction"));
        }
        if self.sends.len() + self.settlements.len() >= items_max {
            let sentence = format!("a transaction may hold {items_max} sends and acknowledgements");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        change(&budget.transactions, i64::try_from(more).unwrap_or(i64::MAX));
        self.bytes = bytes;
        let mut facts = publish.facts;
        facts.id = id;
        if facts.timestamp == Timestamp::default() {
            facts.timestamp = now;
        }
        self.sends.push(KeptSend {
            targets: publish.targets.clone(),
            facts,
            fields: publish.fields.into(),
            body: match &publish.body {
                Body::Shared(bytes) => Body::Shared(bytes.clone()),
                Body::Borrowed(bytes) => Body::Shared(Bytes::copy_from_slice(bytes)),
                Body::Stored(stored) => Body::Stored(stored.clone()),
            },
        });
        Ok(())
    }
}

impl Connection {
    pub(crate) fn begin(&mut self, key: TransactionKey) -> Outcome {
        let transactions = &mut self.aside.make().transactions;
        if transactions.contains_key(&key) {
            return Outcome::Refused(Refusal::new(
                Code::DuplicateTransaction,
                "the transaction is already open",
            ));
        }
        transactions.insert(key, Transaction::default());
        Outcome::Accepted(None)
    }

    pub(crate) fn commit(&mut self, key: TransactionKey) -> Outcome {
        let transaction = self.aside.get_mut().and_then(|aside| aside.transactions.remove(&key));
        let Some(transaction) = transaction else { return no_transaction() };
        // What becomes of it is accounted for as messages.
        transaction.give_back(&self.shared.budget);
        self.release();
        match self.run_transaction(&transaction) {
            Ok(promise) => {
                add(&self.shared.counters.transactions_committed, 1);
                if promise.is_some() {
                    self.last_promise = promise;
                    self.count_unsynced(transaction.bytes);
                }
                Outcome::Accepted(promise)
            }
            Err(refusal) => {
                self.shared.counters.refuse(refusal.code);
                add(&self.shared.counters.transactions_aborted, 1);
                Outcome::Refused(refusal)
            }
        }
    }

    pub(crate) fn run_transaction(&mut self, transaction: &Transaction) -> Result<Option<Promise>, Refusal> {
        let host = Arc::clone(&self.host);
        let keeps = transaction.sends.iter().any(|send| send.facts.retain);
        let _keeping = keeps.then(|| host.keep_value());
        for _ in 0..4 {
            let mut planned = Vec::new();
            for send in &transaction.sends {
                let route = resolve(&self.shared, &self.host, Some(&self.principal), &send.targets)?;
                let incoming = send.incoming(&self.stamp, self.id);
                plan(&route, &incoming, self.work.get(), &mut planned);
            }
            let context = Context { connection: self.id, once: None, keeps_in_log: true };
            let settlements = &transaction.settlements;
            match execute(&self.shared, &self.host, &planned, settlements, &context, self.work.get()) {
                Ok(promise) => {
                    self.work.get().published += transaction.sends.len() as u64;
                    for send in &transaction.sends {
                        self.count_sent_to(&send.targets);
                    }
                    return Ok(promise);
                }
                Err(Failure::Refused(refusal)) => return Err(refusal),
                Err(Failure::Stale) => {}
            }
        }
        Err(Refusal::new(
            Code::Internal,
            "a destination of the transaction is being deleted and created all the time",
        ))
    }

    pub(crate) fn keep_for_commit(&mut self, key: TransactionKey, publish: &Publish<'_>) -> Outcome {
        // Targets are resolved now, so that a refusal reaches the send it is about.
        match self.route(publish.key, publish.targets) {
            Ok(route) => self.keep_route(publish.key, route),
            Err(refusal) => return Outcome::Refused(refusal),
        }
        let id = self.next_id();
        let now = self.work.get().now.wall;
        let Shared { limits, budget, .. } = &*self.shared;
        let transaction = self.aside.get_mut().and_then(|aside| aside.transactions.get_mut(&key));
        let Some(transaction) = transaction else { return no_transaction() };
        match transaction.keep(publish, id, now, limits, budget) {
            Ok(()) => Outcome::Accepted(None),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }
}

pub(crate) fn no_transaction() -> Outcome {
    Outcome::Refused(unknown_transaction())
}

pub(crate) fn unknown_transaction() -> Refusal {
    Refusal::new(Code::UnknownTransaction, "no such open transaction on this connection")
}
