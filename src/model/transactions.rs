//! The open transactions of a connection, by the names its client gave them: for protocols whose clients name them.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::error::{Code, Refusal};
use crate::ids::TransactionKey;

#[derive(Debug)]
struct Open {
    key: TransactionKey,
    /// Why it can no longer be committed: something in it was refused.
    spoiled: Option<Refusal>,
}

/// Open transactions by name.
#[derive(Debug, Default)]
pub struct Transactions {
    open: HashMap<Box<str>, Open, RandomState>,
    next: u32,
}

impl Transactions {
    /// Opens one, if there are not `max` already.
    ///
    /// # Errors
    /// [`Code::DuplicateTransaction`] if the name is taken, [`Code::LimitReached`].
    pub fn begin(&mut self, name: &str, max: usize) -> Result<TransactionKey, Refusal> {
        if self.open.contains_key(name) {
            return Err(Refusal::new(
                Code::DuplicateTransaction,
                format!("the transaction \"{name}\" is already open"),
            ));
        }
        if self.open.len() >= max {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("a connection has at most {max} open transactions"),
            ));
        }
        let key = TransactionKey(self.next);
        self.next = self.next.wrapping_add(1);
        self.open.insert(name.into(), Open { key, spoiled: None });
        Ok(key)
    }

    /// The open one of this name.
    ///
    /// # Errors
    /// [`Code::UnknownTransaction`].
    pub fn key(&self, name: &str) -> Result<TransactionKey, Refusal> {
        self.open.get(name).map(|open| open.key).ok_or_else(|| unknown(name))
    }

    /// Something in it was refused: a commit would do less than the client asked for.
    pub fn spoil(&mut self, name: &str, refusal: &Refusal) {
        if let Some(open) = self.open.get_mut(name) {
            open.spoiled.get_or_insert_with(|| refusal.clone());
        }
    }

    /// Closes it, and says why it cannot be committed, if so.
    ///
    /// # Errors
    /// [`Code::UnknownTransaction`].
    pub fn end(&mut self, name: &str) -> Result<(TransactionKey, Option<Refusal>), Refusal> {
        self.open.remove(name).map(|open| (open.key, open.spoiled)).ok_or_else(|| unknown(name))
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(Code::UnknownTransaction, format!("no transaction \"{name}\" is open"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_once_and_so_many_at_a_time() {
        let mut all = Transactions::default();
        let code = |result: Result<TransactionKey, Refusal>| result.map_err(|refusal| refusal.code);
        let first = all.begin("a", 2).expect("a new name");
        assert_eq!(code(all.begin("a", 2)), Err(Code::DuplicateTransaction));
        let second = all.begin("b", 2).expect("another");
        assert_eq!(code(all.begin("c", 2)), Err(Code::LimitReached));
        assert_eq!((all.key("a"), all.key("b")), (Ok(first), Ok(second)));
        assert_eq!(all.end("a"), Ok((first, None)));
        assert_eq!(code(all.key("a")), Err(Code::UnknownTransaction));
        assert!(all.end("a").is_err());
        assert_ne!(all.begin("a", 2), Ok(first), "a name that is used again is another transaction");
    }

    #[test]
    fn what_was_refused_first_is_why_it_cannot_be_committed() {
        let mut all = Transactions::default();
        let key = all.begin("a", 1).expect("a new name");
        let refusal = |sentence: &'static str| Refusal::new(Code::TooLarge, sentence);
        all.spoil("a", &refusal("one"));
        all.spoil("a", &refusal("two"));
        all.spoil("b", &refusal("nobody's"));
        assert_eq!(all.end("a"), Ok((key, Some(refusal("one")))));
    }
}
