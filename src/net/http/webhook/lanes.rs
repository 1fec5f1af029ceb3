//! In which order messages go out: with one request at a time, one after the other; with more, the messages of one group
//! one after the other and everything else as it comes. A message that waits for its next attempt holds back its lane.
//! Pure: instants in, decisions out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use sabir_model::clock::Instant;

/// What names a message here; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(u64);

struct Item<T> {
    what: T,
    /// The lane it is in, where others may stand behind it.
    lane: Option<Box<str>>,
    /// Attempts that have begun.
    attempts: u32,
    running: bool,
}

/// The messages that a webhook has taken.
pub(super) struct Lanes<T> {
    concurrency: usize,
    next: u64,
    items: BTreeMap<Place, Item<T>>,
    /// Lanes with their messages in order; the first is running, ready or waiting, the others are behind it.
    lanes: HashMap<Box<str>, VecDeque<Place>>,
    ready: BTreeSet<Place>,
    waiting: BTreeSet<(Instant, Place)>,
    running: usize,
    /// Nothing starts before.
    held_until: Option<Instant>,
}

impl<T> Lanes<T> {
    /// Of which at most `concurrency` are on their way at once.
    pub(super) fn new(concurrency: usize) -> Self {
        Self {
            concurrency,
            next: 0,
            items: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            running: 0,
            held_until: None,
        }
    }

    /// Messages held.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Messages on their way.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Takes in a message, behind all others of its group.
    pub(super) fn push(&mut self, what: T, group: Option<&str>) {
        let place = Place(self.next);
        self.next += 1;
        let lane: Option<Box<str>> = match group {
            _ if self.concurrency == 1 => Some("".into()),
            group => group.map(Into::into),
        };
        let first = match &lane {
            None => true,
            Some(lane) => {
                let behind = self.lanes.entry(lane.clone()).or_default();
                behind.push_back(place);
                behind.len() == 1
            }
        };
        if first {
            self.ready.insert(place);
        }
        self.items.insert(place, Item { what, lane, attempts: 0, running: false });
    }

    /// The next message to send now, with the number of this attempt.
    pub(super) fn start(&mut self, now: Instant) -> Option<(Place, u32, &T)> {
        if self.running >= self.concurrency || self.held_until.is_some_and(|until| until > now) {
            return None;
        }
        self.held_until = None;
        // Who comes due again was there before those that were never sent.
        while let Some((due, place)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, place));
            self.ready.insert(place);
        }
        let place = self.ready.pop_first()?;
        let item = self.items.get_mut(&place)?;
        item.attempts += 1;
        item.running = true;
        self.running += 1;
        Some((place, item.attempts, &item.what))
    }

    /// When [`Lanes::start`] may have something that it has not now, if nothing else happens.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.running >= self.concurrency {
            return None;
        }
        let next = self.waiting.first().map(|(due, _)| *due);
        let next = if self.ready.is_empty() { next } else { Some(Instant(0)) }?;
        Some(self.held_until.map_or(next, |until| next.max(until)))
    }

    /// A message's attempts so far.
    pub(super) fn attempts(&self, place: Place) -> u32 {
        self.items.get(&place).map_or(0, |item| item.attempts)
    }

    /// The attempt has failed; the next is not before `due`.
    pub(super) fn again(&mut self, place: Place, due: Instant) {
        if let Some(item) = self.items.get_mut(&place)
            && std::mem::take(&mut item.running)
        {
            self.running -= 1;
            self.waiting.insert((due, place));
        }
    }

    /// Nothing starts before `until`.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = Some(self.held_until.map_or(until, |before| before.max(until)));
    }

    /// A message on its way is done with; whoever stood behind it may go.
    pub(super) fn finish(&mut self, place: Place) -> Option<T> {
        let item = self.items.remove(&place)?;
        self.running -= usize::from(item.running);
        if let Some(lane) = item.lane
            && let Some(behind) = self.lanes.get_mut(&lane)
        {
            behind.retain(|other| *other != place);
            match behind.front() {
                Some(first) => {
                    self.ready.insert(*first);
                }
                None => {
                    self.lanes.remove(&lane);
                }
            }
        }
        Some(item.what)
    }

    /// Gives back everything that is not on its way.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.ready.clear();
        self.waiting.clear();
        let (running, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.items).into_iter().partition(|(_, item)| item.running);
        self.items = running;
        let items = &self.items;
        self.lanes.retain(|_, behind| {
            behind.retain(|place| items.contains_key(place));
            !behind.is_empty()
        });
        rest.into_values().map(|item| item.what).collect()
    }

    /// Gives back everything.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let all = std::mem::replace(self, Self::new(self.concurrency));
        all.items.into_values().map(|item| item.what).collect()
    }

    /// The earliest next attempt of a message that has failed.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let (next, _) = self.waiting.first()?;
        Some(self.held_until.map_or(*next, |until| until.max(*next)))
    }
}

/// So much later than an instant, as a span that a timer can wait for; at least a moment, so that nobody spins.
pub(super) fn until(due: Instant, now: Instant) -> Duration {
    due.since(now).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1000);
    const LATER: Instant = Instant(2000);

    /// What starts now, until nothing does.
    fn started(lanes: &mut Lanes<&'static str>, now: Instant) -> Vec<(Place, &'static str)> {
        let mut all = Vec::new();
        while let Some((place, _, what)) = lanes.start(now) {
            all.push((place, *what));
        }
        all
    }

    fn names(started: &[(Place, &'static str)]) -> Vec<&'static str> {
        started.iter().map(|(_, what)| *what).collect()
    }

    #[test]
    fn one_at_a_time_is_strictly_in_order_whatever_fails() {
        let mut lanes = Lanes::new(1);
        for (what, group) in [("a", None), ("b", Some("g")), ("c", None)] {
            lanes.push(what, group);
        }
        let first = started(&mut lanes, NOW);
        assert_eq!(names(&first), ["a"]);
        lanes.again(first[0].0, LATER);
        assert!(started(&mut lanes, NOW).is_empty(), "b waits behind a");
        assert_eq!(lanes.due(), Some(LATER));
        let again = started(&mut lanes, LATER);
        assert_eq!((names(&again), lanes.attempts(again[0].0)), (vec!["a"], 2));
        for next in ["b", "c"] {
            let place = lanes.items.iter().find(|(_, item)| item.running).map(|(place, _)| *place);
            lanes.finish(place.expect("one is on its way"));
            assert_eq!(names(&started(&mut lanes, LATER)), [next]);
        }
    }

    #[test]
    fn a_group_is_in_order_and_holds_back_nobody_else() {
        let mut lanes = Lanes::new(3);
        for (what, group) in [
            ("a1", Some("a")),
            ("a2", Some("a")),
            ("b1", Some("b")),
            ("x", None),
            ("y", None),
            ("b2", Some("b")),
        ] {
            lanes.push(what, group);
        }
        let first = started(&mut lanes, NOW);
        assert_eq!(names(&first), ["a1", "b1", "x"]);
        lanes.again(first[0].0, LATER);
        let second = started(&mut lanes, NOW);
        assert_eq!(names(&second), ["y"], "a2 waits for a1, b2 for b1");
        lanes.finish(first[1].0);
        assert_eq!(names(&started(&mut lanes, NOW)), ["b2"]);
        lanes.finish(second[0].0);
        let again = started(&mut lanes, LATER);
        assert_eq!(names(&again), ["a1"]);
        lanes.finish(first[2].0);
        assert!(started(&mut lanes, LATER).is_empty());
        lanes.finish(again[0].0);
        assert_eq!(names(&started(&mut lanes, LATER)), ["a2"]);
        assert_eq!(lanes.len(), 2);
    }

    #[test]
    fn a_hold_stops_everything_until_it_is_over() {
        let mut lanes = Lanes::new(2);
        lanes.push("a", None);
        let first = started(&mut lanes, NOW);
        lanes.push("b", None);
        lanes.again(first[0].0, Instant(1500));
        lanes.hold(LATER);
        assert!(started(&mut lanes, Instant(1999)).is_empty());
        assert_eq!((lanes.due(), lanes.next_attempt()), (Some(LATER), Some(LATER)));
        assert_eq!(names(&started(&mut lanes, LATER)), ["a", "b"]);
    }

    #[test]
    fn what_is_not_on_its_way_can_be_given_back() {
        let mut lanes = Lanes::new(2);
        for what in ["a", "b", "c"] {
            lanes.push(what, Some(if what == "c" { "other" } else { "g" }));
        }
        let first = started(&mut lanes, NOW);
        assert_eq!(names(&first), ["a", "c"]);
        lanes.again(first[1].0, LATER);
        assert_eq!(lanes.clear(), ["b", "c"]);
        assert_eq!((lanes.len(), lanes.running(), lanes.due()), (1, 1, None));
        assert_eq!(lanes.finish(first[0].0), Some("a"));
        assert_eq!((lanes.len(), lanes.running()), (0, 0));
        lanes.push("d", Some("g"));
        assert_eq!(names(&started(&mut lanes, NOW)), ["d"]);
        assert_eq!(lanes.drain(), ["d"]);
        assert_eq!((lanes.len(), lanes.running()), (0, 0));
    }
}
