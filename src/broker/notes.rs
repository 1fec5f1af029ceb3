//! What whoever runs the broker keeps in its log besides what the broker itself does: small rows by table and key, which
//! the broker stores and never reads. Tables 50 to 54; see `recovery.rs` for the others.

use sabir_model::command::Promise;
use sabir_store::Level;

use crate::broker::Broker;
use crate::work::promise;

/// A table of rows that the broker keeps for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NoteTable {
    /// Push subscriptions.
    Webhooks = 50,
}

/// The tables that hold notes, those without a name yet included: a row of a later version is kept.
pub(crate) const TABLES: std::ops::RangeInclusive<u8> = 50..=54;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Names it in its table.
    pub key: Box<[u8]>,
    /// What it holds.
    pub value: Box<[u8]>,
}

impl Broker {
    /// Writes a row, in the place of one of that key. It is durable once the promise is kept. There is always room: callers
    /// bound how many rows they have and how large these are.
    pub fn keep_note(&self, table: NoteTable, key: &[u8], value: &[u8]) -> Promise {
        let mut group = self.shared.store.begin();
        group.set(table as u8, key, value);
        promise(group.finish(Level::Fsync), Level::Fsync)
    }

    /// Removes a row. That is durable once the promise is kept.
    pub fn drop_note(&self, table: NoteTable, key: &[u8]) -> Promise {
        let mut group = self.shared.store.begin();
        group.remove(table as u8, key);
        promise(group.finish(Level::Fsync), Level::Fsync)
    }

    /// The rows that the log held when the broker was opened, in the order of their keys; once, for they are not kept in
    /// memory afterwards.
    #[must_use]
    pub fn take_notes(&self, table: NoteTable) -> Vec<Note> {
        let mut all = self.shared.notes.lock();
        let (taken, rest) = std::mem::take(&mut *all).into_iter().partition(|(of, _)| *of == table as u8);
        *all = rest;
        let mut taken: Vec<Note> = taken.into_iter().map(|(_, note)| note).collect();
        taken.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        taken
    }
}
