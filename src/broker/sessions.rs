//! The client sessions of a virtual host, by client id.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use sabir_model::rare::Rare;

use crate::client_session::ClientSession;
use crate::queue::Queue;

/// The queues that a session's connection consumes from, and its place in each. Most sessions have none.
#[derive(Debug, Default)]
pub(crate) struct Consumers(Rare<Vec<(Arc<Queue>, u32)>>);

impl Consumers {
    pub(crate) fn as_slice(&self) -> &[(Arc<Queue>, u32)] {
        self.0.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn slot_in(&self, queue: &Queue) -> Option<u32> {
        self.as_slice().iter().find(|(other, _)| other.id == queue.id).map(|(_, slot)| *slot)
    }

    pub(crate) fn push(&mut self, queue: &Arc<Queue>, slot: u32) {
        let all = self.0.make();
        if all.is_empty() {
            all.reserve_exact(1);
        }
        all.push((Arc::clone(queue), slot));
    }

    /// Takes out the one that is a consumer of `queue`.
    pub(crate) fn remove(&mut self, queue: &Queue) -> Option<(Arc<Queue>, u32)> {
        let all = self.0.get_mut()?;
        let at = all.iter().position(|(other, _)| other.id == queue.id)?;
        let removed = all.swap_remove(at);
        if all.is_empty() {
            self.0.clear();
        }
        Some(removed)
    }

    /// Forgets queues that have been deleted.
    pub(crate) fn forget_deleted(&mut self) {
        if let Some(all) = self.0.get_mut() {
            all.retain(|(queue, _)| !queue.deleted.load(Ordering::Acquire));
        }
    }

    pub(crate) fn take(&mut self) -> Vec<(Arc<Queue>, u32)> {
        self.0.take()
    }
}

/// Client sessions by client id, which each of them knows itself.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    all: HashTable<Arc<ClientSession>>,
    hasher: RandomState,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, client_id: &str) -> Option<&Arc<ClientSession>> {
        self.all.find(self.hasher.hash_one(client_id), |known| *known.client_id == *client_id)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<ClientSession>> {
        self.all.iter()
    }

    /// Adds one whose client id is not in use.
    pub(crate) fn insert(&mut self, session: Arc<ClientSession>) {
        let Self { all, hasher } = self;
        let hash = |known: &Arc<ClientSession>| hasher.hash_one(&*known.client_id);
        all.insert_unique(hash(&session), session, hash);
    }

    pub(crate) fn remove(&mut self, client_id: &str) {
        let hash = self.hasher.hash_one(client_id);
        if let Ok(found) = self.all.find_entry(hash, |known| *known.client_id == *client_id) {
            found.remove();
        }
    }
}
