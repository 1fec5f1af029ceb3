//! Pages of long lists.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A filter over names: text that a name must contain, whatever the case; `*` stands for anything between two parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<String>);

impl Filter {
    /// Of what somebody has typed. An empty one lets everything pass.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase().split('*').filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }

    /// Whether a name passes.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let name = name.to_lowercase();
        let mut rest = name.as_str();
        self.0.iter().all(|part| match rest.find(part.as_str()) {
            Some(at) => {
                rest = rest.get(at + part.len()..).unwrap_or_default();
                true
            }
            None => false,
        })
    }
}

/// A place in a list: after which value and name. A list by name has the value 0 everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What the list is sorted by, the largest first.
    pub value: u64,
    /// The name, by which equals are sorted.
    pub name: String,
}

impl Place {
    fn compare(&self, value: u64, name: &str) -> Ordering {
        value.cmp(&self.value).then_with(|| self.name.as_str().cmp(name))
    }
}

/// What somebody wants of a list.
#[derive(Clone, Debug)]
pub struct Listing<S> {
    /// Only names that pass.
    pub filter: Filter,
    /// Only what comes after this place.
    pub after: Option<Place>,
    /// At most so many; at least one is given.
    pub limit: usize,
    /// In which order.
    pub sort: S,
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one begins, if there is one.
    pub next: Option<Place>,
    /// How many entries pass the filter, on all pages.
    pub total: u64,
}

impl<T> Page<T> {
    /// The same page of other things.
    pub(crate) fn map<U>(self, map: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(map).collect(), next: self.next, total: self.total }
    }
}

struct Row<T> {
    place: Place,
    item: T,
}

impl<T> PartialEq for Row<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Row<T> {}

impl<T> PartialOrd for Row<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Row<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // In the order of the list: the largest row is the last one.
        other.place.compare(self.place.value, &self.place.name).reverse()
    }
}

/// A page in the making, out of entries in any order: it never holds more than one page.
pub(crate) struct Collector<T> {
    filter: Filter,
    after: Option<Place>,
    limit: usize,
    rows: BinaryHeap<Row<T>>,
    total: u64,
    more: bool,
}

impl<T> Collector<T> {
    pub(crate) fn new<S>(listing: &Listing<S>) -> Self {
        let limit = listing.limit.max(1);
        let (filter, after) = (listing.filter.clone(), listing.after.clone());
        Self { filter, after, limit, rows: BinaryHeap::new(), total: 0, more: false }
    }

    /// Offers an entry whose name is also what the filter looks at.
    pub(crate) fn offer(&mut self, name: &str, value: impl FnOnce() -> u64, item: impl FnOnce() -> T) {
        if self.filter.matches(name) {
            self.take(value(), name, item);
        }
    }

    /// Offers an entry that is shown under one name and found by another text.
    pub(crate) fn offer_as(
        &mut self,
        name: &str,
        text: &str,
        value: impl FnOnce() -> u64,
        item: impl FnOnce() -> T,
    ) {
        if self.filter.matches(text) {
            self.take(value(), name, item);
        }
    }

    fn take(&mut self, value: u64, name: &str, item: impl FnOnce() -> T) {
        self.total += 1;
        if self.after.as_ref().is_some_and(|after| after.compare(value, name).is_ge()) {
            return;
        }
        if self.rows.len() >= self.limit {
            self.more = true;
            if self.rows.peek().is_some_and(|last| last.place.compare(value, name).is_le()) {
                return;
            }
            self.rows.pop();
        }
        self.rows.push(Row { place: Place { value, name: name.to_owned() }, item: item() });
    }

    pub(crate) fn finish(self) -> Page<T> {
        let rows = self.rows.into_sorted_vec();
        let next = if self.more { rows.last().map(|row| row.place.clone()) } else { None };
        Page { items: rows.into_iter().map(|row| row.item).collect(), next, total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(limit: usize, after: Option<Place>) -> Listing<()> {
        Listing { filter: Filter::default(), after, limit, sort: () }
    }

    /// All pages one after the other.
    fn walk(entries: &[(u64, &str)], limit: usize) -> Vec<String> {
        let mut seen = Vec::new();
        let mut after = None;
        for _ in 0..100 {
            let mut page = Collector::new(&listing(limit, after));
            for (value, name) in entries {
                page.offer(name, || *value, || (*name).to_owned());
            }
            let page = page.finish();
            assert_eq!(page.total, entries.len() as u64);
            assert!(page.items.len() <= limit);
            seen.extend(page.items);
            after = page.next;
            if after.is_none() {
                return seen;
            }
        }
        panic!("the pages never end");
    }

    #[test]
    fn pages_of_any_size_show_every_entry_once_largest_value_first_then_by_name() {
        let entries = [(3, "c"), (0, "z"), (7, "b"), (3, "a"), (0, "d"), (7, "x"), (3, "b")];
        for limit in 1..=8 {
            assert_eq!(walk(&entries, limit).join(" "), "b x a b c d z", "{limit}");
        }
    }

    #[test]
    fn a_filter_finds_its_parts_in_their_order_whatever_the_case() {
        for (filter, name, found) in [
            ("", "anything", true),
            ("ORD", "eu.orders", true),
            ("eu*new", "EU.orders.new", true),
            ("new*eu", "eu.orders.new", false),
            ("ab*b", "ab", false),
            ("*", "x", true),
            ("ü", "GRÜN", true),
        ] {
            assert_eq!(Filter::new(filter).matches(name), found, "{filter} {name}");
        }
    }
}
