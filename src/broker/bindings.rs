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
use crate::pattern_trie::{Seat, Spot, TopicTable, shrink};
use crate::registry::{HIDE_DOLLAR, Interest, spot_of};

/// A session's subscription to topics, as their table has it: there may be millions. Its pattern is where it hangs.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) session: Arc<ClientSession>,
    pub(crate) terms: Terms,
}

/// A session's subscription that is one of a group's, or makes it a consumer of a queue.
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

/// The subscriptions of one session.
#[derive(Default)]
pub(crate) struct Bindings {
    topics: Topics,
    others: Rare<Others>,
}

/// One in the table of topics: where it hangs, and its place.
type Seated = (Spot, Seat);

/// Those in the table of topics. Most sessions have one.
#[derive(Default)]
enum Topics {
    #[default]
    None,
    One(Seated),
    Many(Box<Table>),
}

#[derive(Default)]
struct Table {
    seated: HashTable<Seated>,
    hasher: RandomState,
}

impl Table {
    fn insert(&mut self, seated: Seated) {
        let Self { seated: table, hasher } = self;
        table.insert_unique(hasher.hash_one(seated.0), seated, |(spot, _)| hasher.hash_one(spot));
    }
}

impl Topics {
    fn as_slice(&self) -> &[Seated] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::None | Self::Many(_) => &[],
        }
    }

    fn iter(&self) -> impl Iterator<Item = Seated> {
        let many = match self {
            Self::Many(table) => Some(table.seated.iter()),
            Self::None | Self::One(_) => None,
        };
        self.as_slice().iter().chain(many.into_iter().flatten()).copied()
    }

    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(table) => table.seated.len(),
        }
    }

    fn get(&self, spot: Spot) -> Option<Seat> {
        match self {
            Self::None => None,
            Self::One((known, seat)) => (*known == spot).then_some(*seat),
            Self::Many(table) => {
                let found = table.seated.find(table.hasher.hash_one(spot), |(known, _)| *known == spot);
                found.map(|(_, seat)| *seat)
            }
        }
    }

    fn insert(&mut self, seated: Seated) {
        match self {
            Self::None => *self = Self::One(seated),
            Self::One(one) => {
                let mut table = Box::<Table>::default();
                table.insert(*one);
                table.insert(seated);
                *self = Self::Many(table);
            }
            Self::Many(table) => table.insert(seated),
        }
    }

    fn remove(&mut self, spot: Spot) -> Option<Seat> {
        match self {
            Self::None => None,
            Self::One((known, seat)) => {
                let seat = (*known == spot).then_some(*seat)?;
                *self = Self::None;
                Some(seat)
            }
            Self::Many(table) => {
                let Table { seated, hasher } = &mut **table;
                let found = seated.find_entry(hasher.hash_one(spot), |(known, _)| *known == spot).ok()?;
                let ((_, seat), _) = found.remove();
                shrink(seated, |(spot, _)| hasher.hash_one(spot));
                if seated.is_empty() {
                    *self = Self::None;
                }
                Some(seat)
            }
        }
    }
}

#[derive(Default)]
struct Others {
    entries: HashTable<Arc<SessionBinding>>,
    hasher: RandomState,
}

impl Others {
    fn hash(hasher: &RandomState, pattern: &Pattern, group: Option<&str>) -> u64 {
        hasher.hash_one((pattern, group))
    }
}

impl Bindings {
    pub(crate) fn len(&self) -> usize {
        self.topics.len() + self.others.get().map_or(0, |others| others.entries.len())
    }

    /// Whether there is this subscription.
    pub(crate) fn contains(
        &self,
        topics: &TopicTable<Interest>,
        pattern: &Pattern,
        group: Option<&str>,
    ) -> bool {
        match (pattern.kind(), group) {
            (Kind::Topic, None) => {
                spot_of(topics, pattern).is_some_and(|spot| self.topics.get(spot).is_some())
            }
            _ => self.other(pattern, group).is_some(),
        }
    }

    /// The place of its subscription that hangs there.
    pub(crate) fn seat(&self, spot: Spot) -> Option<Seat> {
        self.topics.get(spot)
    }

    /// Takes in one that the table of topics has, and that is new.
    pub(crate) fn insert(&mut self, (spot, seat): (Spot, Seat)) {
        self.topics.insert((spot, seat));
    }

    /// Forgets the subscription that hangs there.
    pub(crate) fn remove(&mut self, spot: Spot) -> Option<Seat> {
        self.topics.remove(spot)
    }

    /// Those in the table of topics.
    pub(crate) fn seated(&self) -> impl Iterator<Item = (Spot, Seat)> {
        self.topics.iter()
    }

    /// One that is not in the table of topics.
    pub(crate) fn other(&self, pattern: &Pattern, group: Option<&str>) -> Option<&Arc<SessionBinding>> {
        let Others { entries, hasher } = self.others.get()?;
        entries.find(Others::hash(hasher, pattern, group), |known| known.is(pattern, group))
    }

    /// Adds or replaces one that is not in the table of topics.
    pub(crate) fn set_other(&mut self, binding: Arc<SessionBinding>) {
        self.remove_other(&binding.pattern, binding.group.as_deref());
        let Others { entries, hasher } = self.others.make();
        let hash = |known: &SessionBinding| Others::hash(hasher, &known.pattern, known.group.as_deref());
        entries.insert_unique(hash(&binding), binding, |known| hash(known));
    }

    /// Takes out one that is not in the table of topics.
    pub(crate) fn remove_other(
        &mut self,
        pattern: &Pattern,
        group: Option<&str>,
    ) -> Option<Arc<SessionBinding>> {
        let Others { entries, hasher } = self.others.get_mut()?;
        let hash = Others::hash(hasher, pattern, group);
        let (removed, _) = entries.find_entry(hash, |known| known.is(pattern, group)).ok()?.remove();
        if entries.is_empty() {
            self.others.clear();
        }
        Some(removed)
    }

    /// Those that are not in the table of topics.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Arc<SessionBinding>> {
        self.others.get().into_iter().flat_map(|others| others.entries.iter())
    }

    /// What all that match a message grant together, as far as the backlog is concerned.
    pub(crate) fn grant_of(&self, topics: &TopicTable<Interest>, message: &Message) -> Option<Arc<Grant>> {
        let destination = message.destination()?;
        if destination.kind != Kind::Topic || destination.temporary {
            return None;
        }
        let mut terms: Vec<Terms> = Vec::new();
        topics.for_each_matching_spot(destination.canonical, HIDE_DOLLAR, |spot| {
            if let Some(Interest::Session(one)) = self.topics.get(spot).and_then(|seat| topics.at(seat)) {
                terms.push(one.terms);
            }
        });
        terms.sort_unstable_by_key(|terms| terms.order);
        let mut grant = Grant::default();
        for one in &terms {
            one.add_to(&mut grant);
        }
        (!terms.is_empty()).then(|| Arc::new(grant))
    }
}

impl SessionBinding {
    /// Whether it is one of a group's.
    pub(crate) fn is_groups(&self) -> bool {
        self.group.is_some() && self.pattern.kind() == Kind::Topic
    }

    fn is(&self, pattern: &Pattern, group: Option<&str>) -> bool {
        self.group.as_deref() == group && self.pattern == *pattern
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn none_one_and_many_are_found_and_forgotten() {
        let mut table: TopicTable<usize> = TopicTable::new();
        let seated: Vec<Seated> = (0..300)
            .map(|number| {
                let handle = table.insert_name(&format!("t{number}"), number);
                table.seat(handle).unwrap()
            })
            .collect();
        for count in [0, 1, 2, 3, 300] {
            let mut topics = Topics::default();
            seated[..count].iter().for_each(|one| topics.insert(*one));
            assert_eq!((topics.len(), topics.iter().count()), (count, count));
            for (index, (spot, seat)) in seated.iter().enumerate() {
                assert_eq!(topics.get(*spot), (index < count).then_some(*seat));
            }
            // From the middle outwards.
            for index in (count / 2..count).chain(0..count / 2) {
                let (spot, seat) = seated[index];
                assert_eq!(topics.remove(spot), Some(seat));
                assert_eq!(topics.remove(spot), None);
            }
            assert!(matches!(topics, Topics::None), "it has given its memory back");
        }
    }
}
