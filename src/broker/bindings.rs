//! The subscriptions of one client session, found by what they cover.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use sabir_model::delivery::{Grant, Guarantee};
use sabir_model::message::Message;
use sabir_model::pattern::Pattern;

use crate::client_session::ClientSession;
use crate::pattern_trie::Handle;

/// One subscription of a session.
#[derive(Debug)]
pub(crate) struct SessionBinding {
    pub(crate) session: Arc<ClientSession>,
    pub(crate) pattern: Pattern,
    pub(crate) group: Option<Box<str>>,
    pub(crate) terms: Terms,
}

/// What a subscription grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) identifier: u32,
    pub(crate) guarantee: Guarantee,
    pub(crate) no_local: bool,
    pub(crate) keep_retain: bool,
    /// Its place among the session's subscriptions.
    pub(crate) order: u64,
}

impl Terms {
    /// The grant of this subscription alone.
    pub(crate) fn grant(&self) -> Grant {
        let mut grant = Grant::default();
        self.add_to(&mut grant);
        grant
    }

    pub(crate) fn add_to(&self, grant: &mut Grant) {
        grant.guarantee = grant.guarantee.max(self.guarantee);
        grant.keep_retain |= self.keep_retain;
        if self.identifier != 0 {
            grant.identifiers.push(self.identifier);
        }
    }
}

/// Where a subscription hangs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In the table of topics.
    Topic(Handle),
    /// It is one of a group's.
    Group,
    /// A consumer of a queue.
    Queue,
}

/// The subscriptions of one session.
#[derive(Default)]
pub(crate) struct Bindings {
    table: HashTable<(Arc<SessionBinding>, Place)>,
    hasher: RandomState,
}

impl Bindings {
    fn hash(&self, pattern: &Pattern, group: Option<&str>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        pattern.kind().hash(&mut hasher);
        pattern.levels().hash(&mut hasher);
        group.hash(&mut hasher);
        hasher.finish()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get(
        &self,
        pattern: &Pattern,
        group: Option<&str>,
    ) -> Option<&(Arc<SessionBinding>, Place)> {
        self.table.find(self.hash(pattern, group), |(known, _)| known.is(pattern, group))
    }

    pub(crate) fn insert(&mut self, binding: Arc<SessionBinding>, place: Place) {
        let hash = self.hash(&binding.pattern, binding.group.as_deref());
        let Self { table, hasher } = self;
        let again = |(known, _): &(Arc<SessionBinding>, Place)| {
            let mut state = hasher.build_hasher();
            known.pattern.kind().hash(&mut state);
            known.pattern.levels().hash(&mut state);
            known.group.as_deref().hash(&mut state);
            state.finish()
        };
        table.insert_unique(hash, (binding, place), again);
    }

    pub(crate) fn remove(
        &mut self,
        pattern: &Pattern,
        group: Option<&str>,
    ) -> Option<(Arc<SessionBinding>, Place)> {
        let hash = self.hash(pattern, group);
        let found = self.table.find_entry(hash, |(known, _)| known.is(pattern, group)).ok()?;
        let (removed, _) = found.remove();
        if self.table.is_empty() {
            self.table = HashTable::new();
        }
        Some(removed)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Arc<SessionBinding>, Place)> {
        self.table.iter()
    }

    pub(crate) fn take(&mut self) -> Vec<(Arc<SessionBinding>, Place)> {
        std::mem::take(&mut self.table).into_iter().collect()
    }

    /// What all that match a message grant together, as far as the backlog is concerned.
    pub(crate) fn grant_of(&self, message: &Message) -> Option<Arc<Grant>> {
        let destination = message.destination()?;
        let mut terms: Vec<Terms> = self
            .iter()
            .filter(|(binding, place)| {
                matches!(place, Place::Topic(_)) && binding.pattern.matches(destination)
            })
            .map(|(binding, _)| binding.terms)
            .collect();
        terms.sort_unstable_by_key(|terms| terms.order);
        let mut grant = Grant::default();
        for one in &terms {
            one.add_to(&mut grant);
        }
        (!terms.is_empty()).then(|| Arc::new(grant))
    }
}

impl SessionBinding {
    fn is(&self, pattern: &Pattern, group: Option<&str>) -> bool {
        self.group.as_deref() == group && self.pattern == *pattern
    }
}
