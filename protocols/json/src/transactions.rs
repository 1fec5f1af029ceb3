//! The open transactions of a connection, by the names the client gave them.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sabir_model::error::{Code, Refusal};
use sabir_model::ids::TransactionKey;

#[derive(Debug)]
struct Open {
    key: TransactionKey,
    /// Why it can no longer be committed: something in it was refused.
    spoiled: Option<Refusal>,
}

/// Open transactions by name.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    open: HashMap<Box<str>, Open, RandomState>,
    next: u32,
}

impl Transactions {
    /// Opens one.
    pub(crate) fn begin(&mut self, name: &str, max: usize) -> Result<TransactionKey, Refusal> {
        if self.open.contains_key(name) {
            let sentence = format!("the transaction {name:?} is already open");
            return Err(Refusal::new(Code::DuplicateTransaction, sentence));
        }
        if self.open.len() >= max {
            let sentence = format!("a connection has at most {max} open transactions");
            return Err(Refusal::new(Code::LimitReached, sentence));
        }
        let key = TransactionKey(self.next);
        self.next = self.next.wrapping_add(1);
        self.open.insert(name.into(), Open { key, spoiled: None });
        Ok(key)
    }

    /// The open one of this name.
    pub(crate) fn key(&self, name: &str) -> Result<TransactionKey, Refusal> {
        self.open.get(name).map(|open| open.key).ok_or_else(|| unknown(name))
    }

    /// Something in it was refused: a commit would do less than the client asked for.
    pub(crate) fn spoil(&mut self, name: &str, refusal: &Refusal) {
        if let Some(open) = self.open.get_mut(name) {
            open.spoiled.get_or_insert_with(|| refusal.clone());
        }
    }

    /// Closes it, and says why it cannot be committed, if so.
    pub(crate) fn end(&mut self, name: &str) -> Result<(TransactionKey, Option<Refusal>), Refusal> {
        self.open.remove(name).map(|open| (open.key, open.spoiled)).ok_or_else(|| unknown(name))
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(Code::UnknownTransaction, format!("no transaction {name:?} is open"))
}
