//! The subscriptions of one client session, found by what they cover.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use sabir_model::delivery::{Grant, Guarantee};
use sabir_model::destination::Kind;
use sabir_model::message::Message;
use sabir_model::pattern::Pattern;
use sabir_model::rare::Rare;

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
    /// It is one of a group's, or a consumer of a queue: it says so itself.
    Elsewhere,
}

/// The subscriptions of one session.
#[derive(Default)]
pub(crate) struct Bindings(Rare<Table>);

#[derive(Default)]
struct Table {
    entries: HashTable<(Arc<SessionBinding>, Place)>,
    hasher: RandomState,
}

impl Table {
    fn hash(hasher: &RandomState, pattern: &Pattern, group: Option<&str>) -> u64 {
        hasher.hash_one((pattern, group))
    }
}

impl Bindings {
    pub(crate) fn len(&self) -> usize {
        self.0.get().map_or(0, |table| table.entries.len())
    }

    pub(crate) fn get(
        &self,
        pattern: &Pattern,
        group: Option<&str>,
    ) -> Option<&(Arc<SessionBinding>, Place)> {
        let Table { entries, hasher } = self.0.get()?;
        entries.find(Table::hash(hasher, pattern, group), |(known, _)| known.is(pattern, group))
    }

    pub(crate) fn insert(&mut self, binding: Arc<SessionBinding>, place: Place) {
        let Table { entries, hasher } = self.0.make();
        let hash = |known: &SessionBinding| Table::hash(hasher, &known.pattern, known.group.as_deref());
        entries.insert_unique(hash(&binding), (binding, place), |(known, _)| hash(known));
    }

    pub(crate) fn remove(
        &mut self,
        pattern: &Pattern,
        group: Option<&str>,
    ) -> Option<(Arc<SessionBinding>, Place)> {
        let Table { entries, hasher } = self.0.get_mut()?;
        let hash = Table::hash(hasher, pattern, group);
        let found = entries.find_entry(hash, |(known, _)| known.is(pattern, group)).ok()?;
        let (removed, _) = found.remove();
        if entries.is_empty() {
            self.0.clear();
        }
        Some(removed)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Arc<SessionBinding>, Place)> {
        self.0.get().into_iter().flat_map(|table| table.entries.iter())
    }

    pub(crate) fn take(&mut self) -> Vec<(Arc<SessionBinding>, Place)> {
        self.0.take().entries.into_iter().collect()
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
    /// Whether one that hangs there is one of a group's.
    pub(crate) fn is_groups(&self, place: Place) -> bool {
        matches!(place, Place::Elsewhere) && self.group.is_some() && self.pattern.kind() == Kind::Topic
    }

    fn is(&self, pattern: &Pattern, group: Option<&str>) -> bool {
        self.group.as_deref() == group && self.pattern == *pattern
    }
}
