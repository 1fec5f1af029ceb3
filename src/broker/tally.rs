//! Who has sent how much where: for whoever looks at the broker. A connection counts for itself, so that no two threads
//! write one number; what it has counted is added to that of the destination when it leaves, or turns to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use sabir_model::command::TargetKey;
use sabir_model::destination::{Destination, Kind, Targets};
use smallvec::SmallVec;

use crate::connection::Connection;
use crate::registry::VirtualHost;
use crate::rules::Rules;
use crate::stats::{add, read};

/// Targets that one connection counts by themselves.
const TALLIES_MAX: usize = 64;
/// Destinations of one virtual host that are counted. Messages to further ones are not.
const DESTINATIONS_MAX: usize = 100_000;

/// What has been sent to the destinations of a virtual host by connections that have left or turned to others.
#[derive(Debug, Default)]
pub(crate) struct Sent(Mutex<HashMap<Destination, Arc<AtomicU64>, RandomState>>);

impl Sent {
    /// The number of one destination, unless there are too many.
    fn number(&self, destination: &Destination) -> Option<Arc<AtomicU64>> {
        let mut numbers = self.0.lock();
        if let Some(number) = numbers.get(destination) {
            return Some(Arc::clone(number));
        }
        if numbers.len() >= DESTINATIONS_MAX {
            return None;
        }
        let number = Arc::new(AtomicU64::new(0));
        numbers.insert(destination.clone(), Arc::clone(&number));
        Some(number)
    }

    /// All of them.
    pub(crate) fn all(&self) -> HashMap<Destination, u64, RandomState> {
        self.0.lock().iter().map(|(destination, number)| (destination.clone(), read(number))).collect()
    }
}

/// What one connection has sent to some targets.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) targets: Targets,
    /// Written by its connection only.
    sent: AtomicU64,
    numbers: SmallVec<[Arc<AtomicU64>; 1]>,
}

impl Tally {
    fn new(rules: &Rules, host: &VirtualHost, targets: &Targets) -> Self {
        let numbers = numbers_of(rules, host, targets).collect();
        Self { targets: targets.clone(), sent: AtomicU64::new(0), numbers }
    }

    fn add(&self, count: u64) {
        self.sent.store(read(&self.sent) + count, Ordering::Relaxed);
    }

    /// How many messages.
    pub(crate) fn sent(&self) -> u64 {
        read(&self.sent)
    }

    /// Leaves what it has counted with the destinations.
    fn retire(&self) {
        let sent = self.sent.swap(0, Ordering::Relaxed);
        for number in &self.numbers {
            add(number, sent);
        }
    }
}

/// The numbers of those of some targets that are counted by name.
fn numbers_of<'a>(
    rules: &'a Rules,
    host: &'a VirtualHost,
    targets: &'a Targets,
) -> impl Iterator<Item = Arc<AtomicU64>> + 'a {
    // A queue counts for itself what it gets; a name that only forwards is no queue.
    let counted = |one: &&Destination| {
        one.kind() == Kind::Topic || rules.composites.iter().any(|rule| rule.name.matches(one.as_ref()))
    };
    targets.iter().filter(counted).filter_map(|one| host.sent.number(one))
}

/// The tallies of a connection, as others see them.
pub(crate) type Tallies = Mutex<Vec<Arc<Tally>>>;

impl Connection {
    /// Counts a message to targets that go by a key.
    pub(crate) fn count_sent(&mut self, key: TargetKey, targets: &Targets) {
        let Some(known) = self.known_at(key) else {
            self.count_unseen(targets);
            return;
        };
        if let Some((generation, tally)) = &known.tally
            && *generation == key.generation
        {
            tally.add(1);
            return;
        }
        // The place has been given to other targets.
        let old = known.tally.take();
        // Another name for the same targets may count in it too.
        if let Some((_, old)) = old.filter(|(_, old)| Arc::strong_count(old) <= 2) {
            let mut shown = self.mailbox.tallies.lock();
            shown.retain(|one| !Arc::ptr_eq(one, &old));
            old.retire();
        }
        if let Some(tally) = self.count_sent_to(targets)
            && let Some(known) = self.known_at(key)
        {
            known.tally = Some((key.generation, tally));
        }
    }

    /// Counts a message to targets, and gives the tally it is in.
    pub(crate) fn count_sent_to(&mut self, targets: &Targets) -> Option<Arc<Tally>> {
        let mut shown = self.mailbox.tallies.lock();
        if let Some(known) = shown.iter().find(|one| one.targets == *targets) {
            known.add(1);
            return Some(Arc::clone(known));
        }
        if shown.len() >= TALLIES_MAX {
            drop(shown);
            self.count_unseen(targets);
            return None;
        }
        let tally = Arc::new(Tally::new(&self.shared.rules, &self.host, targets));
        tally.add(1);
        shown.push(Arc::clone(&tally));
        Some(tally)
    }

    /// Counts a message to targets that are not shown as this connection's.
    fn count_unseen(&self, targets: &Targets) {
        for number in numbers_of(&self.shared.rules, &self.host, targets) {
            add(&number, 1);
        }
    }

    /// Leaves what the connection has counted with the destinations.
    pub(crate) fn retire_tallies(&mut self) {
        self.known.iter_mut().for_each(|known| known.tally = None);
        for tally in std::mem::take(&mut *self.mailbox.tallies.lock()) {
            tally.retire();
        }
    }
}
