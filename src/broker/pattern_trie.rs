//! Who listens to a name, and which names a pattern covers, at the scale of a million of either.
//!
//! A [`TopicTable`] holds subscriptions by pattern. A pattern without wildcards is one entry of a hash table keyed by its
//! whole canonical name; one with wildcards is a path in a trie over interned levels, whose edges all live in one hash
//! table keyed by (node, level). Both cost a few dozen bytes per pattern, nodes are numbers, and what is removed gives
//! its memory back. A [`NameIndex`] is the other way round: names that exist, asked for by pattern.
//!
//! Names are canonical: levels joined by NUL, empty levels significant. Nothing here knows kinds, hosts or locks.

mod interner;
mod name_index;
mod slab;
mod spots;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::BuildHasher;
use std::num::NonZeroU32;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use sabir_model::destination::LEVEL_SEPARATOR;
use smallvec::SmallVec;

use interner::Interner;
pub use name_index::NameIndex;
use slab::{NONE, Slab};
pub use spots::{Seat, Spot};

/// One level of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level<'a> {
    /// This very level, or several of them joined as in a canonical name.
    Literal(&'a str),
    /// Exactly one level, whatever it holds.
    One,
    /// Zero or more further levels. Ends the pattern: what stands behind it is ignored.
    Rest,
}

/// Names one subscription of a [`TopicTable`]. A handle whose subscription is gone is never mistaken for a newer one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    index: u32,
    stamp: NonZeroU32,
}

/// What a protocol may ask for when it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatchOptions {
    /// Names whose first level begins with `$` do not match a wildcard in the first level.
    pub hide_dollar: bool,
}

impl MatchOptions {
    fn hides(self, name: &str) -> bool {
        self.hide_dollar && name.starts_with('$')
    }
}

/// Where a subscription hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// A name without wildcards.
    Literal(u32),
    /// The end of a path in the trie.
    Exact(u32),
    /// A node of the trie, for it and everything below.
    Rest(u32),
}

impl Home {
    /// Squeezed into 32 bits: a subscription has nothing to give away.
    fn pack(self) -> u32 {
        match self {
            Self::Literal(index) => index << 2,
            Self::Exact(index) => index << 2 | 1,
            Self::Rest(index) => index << 2 | 2,
        }
    }

    fn unpack(packed: u32) -> Self {
        match packed & 3 {
            0 => Self::Literal(packed >> 2),
            1 => Self::Exact(packed >> 2),
            _ => Self::Rest(packed >> 2),
        }
    }
}

struct Entry<V> {
    value: V,
    // A ring of the entries at the same home, in the order of their arrival.
    next: u32,
    previous: u32,
    home: u32,
    stamp: NonZeroU32,
}

struct Literal {
    name: Box<str>,
    hash: u32,
    first: u32,
}

struct Node {
    parent: u32,
    /// The interned level on the way here; `NONE` for a wildcard and for the root.
    level: u32,
    /// The child behind a wildcard level.
    one: u32,
    /// How many children are behind literal levels.
    literals: u32,
    exact: u32,
    rest: u32,
}

/// Spreads a 32-bit hash again over 64 bits, because the table takes its tags from the top.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[expect(clippy::cast_possible_truncation, reason = "32 bits of it are enough for a table of fewer entries")]
fn hash_text(state: &RandomState, text: &str) -> u32 {
    state.hash_one(text) as u32
}

fn hash_edge(parent: u32, level: u32) -> u64 {
    let mixed = (u64::from(parent) << 32 | u64::from(level)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Gives memory back when a table has become much too large for what it holds.
pub(crate) fn shrink<T>(table: &mut HashTable<T>, hasher: impl Fn(&T) -> u64) {
    if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2, hasher);
    }
}

/// Subscriptions by pattern. The same value may be there many times, under one pattern or several.
pub struct TopicTable<V> {
    entries: Slab<Entry<V>>,
    literals: Slab<Literal>,
    by_name: HashTable<u32>,
    nodes: Slab<Node>,
    edges: HashTable<u32>,
    levels: Interner,
    root: u32,
    stamp: NonZeroU32,
    state: RandomState,
    /// Where the levels of a pattern are joined.
    scratch: String,
}

impl<V> Default for TopicTable<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> fmt::Debug for TopicTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicTable")
            .field("subscriptions", &self.entries.len())
            .field("literal_patterns", &self.literals.len())
            .field("trie_nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl<V> TopicTable<V> {
    /// A table without subscriptions. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        let state = RandomState::default();
        Self {
            entries: Slab::new(),
            literals: Slab::new(),
            by_name: HashTable::new(),
            nodes: Slab::new(),
            edges: HashTable::new(),
            levels: Interner::new(state.clone()),
            root: NONE,
            stamp: NonZeroU32::MIN,
            state,
            scratch: String::new(),
        }
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no subscription.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// Adds a subscription. An empty pattern is that of the name of one empty level.
    pub fn insert(&mut self, pattern: &[Level<'_>], value: V) -> Handle {
        let home = if pattern.iter().all(|level| matches!(level, Level::Literal(_))) {
            self.literal_home(pattern)
        } else {
            self.wildcard_home(pattern)
        };
        self.insert_at(home, value)
    }

    /// Adds a subscription to one name.
    pub fn insert_name(&mut self, name: &str, value: V) -> Handle {
        let home = self.name_home(name);
        self.insert_at(home, value)
    }

    fn insert_at(&mut self, home: Home, value: V) -> Handle {
        let stamp = self.stamp;
        self.stamp = stamp.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let index =
            self.entries.insert(Entry { value, next: NONE, previous: NONE, home: home.pack(), stamp });
        self.link(index, home);
        Handle { index, stamp }
    }

    /// The value of a subscription.
    #[must_use]
    pub fn get(&self, handle: Handle) -> Option<&V> {
        let entry = self.entries.get(handle.index)?;
        (entry.stamp == handle.stamp).then_some(&entry.value)
    }

    /// Removes a subscription and returns its value; `None` if it is gone already.
    pub fn remove(&mut self, handle: Handle) -> Option<V> {
        self.get(handle)?;
        self.unlink(handle.index);
        let entry = self.entries.remove(handle.index)?;
        match Home::unpack(entry.home) {
            Home::Literal(index) => self.prune_literal(index),
            Home::Exact(node) | Home::Rest(node) => self.prune_node(node),
        }
        Some(entry.value)
    }

    /// All subscriptions, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &V)> {
        self.entries.iter().map(|(index, entry)| (Handle { index, stamp: entry.stamp }, &entry.value))
    }

    /// Calls `visit` with some of the names that are subscribed to without wildcards, and what is subscribed to each: those
    /// in the `index`th part of the table. False behind the last part. For looking at all of a large table without holding
    /// it for long; what changes between two parts may be missed, never met twice.
    pub fn literals_in_part(
        &self,
        index: usize,
        mut visit: impl FnMut(&str, &mut dyn Iterator<Item = &V>),
    ) -> bool {
        let Some(literals) = self.literals.chunk(index) else { return false };
        for literal in literals {
            let mut next = Some(literal.first);
            let mut ring = std::iter::from_fn(|| {
                let entry = self.entries.get(next?)?;
                next = (entry.next != literal.first).then_some(entry.next);
                Some(&entry.value)
            });
            visit(&literal.name, &mut ring);
        }
        true
    }

    /// How many names are subscribed to without wildcards.
    #[must_use]
    pub fn literal_count(&self) -> usize {
        self.literals.len()
    }

    /// Whether somebody has subscribed to this very name.
    #[must_use]
    pub fn has_literal(&self, name: &str) -> bool {
        self.find_literal(name, hash_text(&self.state, name)).is_some()
    }

    /// Calls `visit` once per subscription whose pattern matches `name`; under one pattern in the order of arrival.
    pub fn for_each_match(&self, name: &str, visit: impl FnMut(&V)) {
        self.for_each_match_with(name, MatchOptions::default(), visit);
    }

    /// As [`TopicTable::for_each_match`], with options.
    pub fn for_each_match_with(&self, name: &str, options: MatchOptions, mut visit: impl FnMut(&V)) {
        if !self.by_name.is_empty()
            && let Some(literal) = self.find_literal(name, hash_text(&self.state, name))
        {
            self.visit_ring(literal.first, &mut visit);
        }
        self.match_wildcards(name, options.hides(name), |_, first| self.visit_ring(first, &mut visit));
    }

    /// Calls `visit` with each home whose wildcards match, and the number of the first entry there.
    fn match_wildcards(&self, name: &str, hidden: bool, mut visit: impl FnMut(Home, u32)) {
        if self.root == NONE {
            return;
        }
        let mut found = |home: Home, first: u32| {
            if first != NONE {
                visit(home, first);
            }
        };
        // Breadth first, so that each level of the name is looked up once and no long name can exhaust the stack.
        let mut here: SmallVec<[u32; 32]> = SmallVec::new();
        let mut below: SmallVec<[u32; 32]> = SmallVec::new();
        here.push(self.root);
        // Only the root looks at the first level, and `$` hides it from wildcards there.
        let mut hidden = hidden;
        for level in name.split(LEVEL_SEPARATOR) {
            let level = self.levels.find(level);
            for &index in &here {
                let Some(node) = self.nodes.get(index) else { continue };
                if !hidden {
                    found(Home::Rest(index), node.rest);
                    if node.one != NONE {
                        below.push(node.one);
                    }
                }
                if node.literals > 0
                    && let Some(level) = level
                    && let Some(child) = self.find_child(index, level)
                {
                    below.push(child);
                }
            }
            hidden = false;
            here.clear();
            std::mem::swap(&mut here, &mut below);
            if here.is_empty() {
                return;
            }
        }
        for (index, node) in here.iter().filter_map(|&index| Some((index, self.nodes.get(index)?))) {
            found(Home::Rest(index), node.rest);
            found(Home::Exact(index), node.exact);
        }
    }

    fn visit_ring(&self, first: u32, visit: &mut impl FnMut(&V)) {
        let mut index = first;
        while let Some(entry) = self.entries.get(index) {
            visit(&entry.value);
            index = entry.next;
            if index == first {
                return;
            }
        }
    }

    fn find_literal(&self, name: &str, hash: u32) -> Option<&Literal> {
        self.find_literal_index(name, hash).and_then(|index| self.literals.get(index))
    }

    fn find_literal_index(&self, name: &str, hash: u32) -> Option<u32> {
        let found = self.by_name.find(spread(hash), |&index| {
            self.literals.get(index).is_some_and(|literal| literal.hash == hash && *literal.name == *name)
        });
        found.copied()
    }

    fn find_child(&self, parent: u32, level: u32) -> Option<u32> {
        let found = self.edges.find(hash_edge(parent, level), |&index| {
            self.nodes.get(index).is_some_and(|node| node.parent == parent && node.level == level)
        });
        found.copied()
    }

    fn literal_home(&mut self, pattern: &[Level<'_>]) -> Home {
        let mut name = std::mem::take(&mut self.scratch);
        name.clear();
        for (index, level) in pattern.iter().enumerate() {
            if index > 0 {
                name.push(LEVEL_SEPARATOR);
            }
            if let Level::Literal(text) = level {
                name.push_str(text);
            }
        }
        let home = self.name_home(&name);
        name.shrink_to(1024);
        self.scratch = name;
        home
    }

    fn name_home(&mut self, name: &str) -> Home {
        let hash = hash_text(&self.state, name);
        let index = self.find_literal_index(name, hash).unwrap_or_else(|| {
            let index = self.literals.insert(Literal { name: name.into(), hash, first: NONE });
            self.by_name.insert_unique(spread(hash), index, |&other| {
                self.literals.get(other).map_or(0, |literal| spread(literal.hash))
            });
            index
        });
        Home::Literal(index)
    }

    fn wildcard_home(&mut self, pattern: &[Level<'_>]) -> Home {
        if self.root == NONE {
            self.root = self.new_node(NONE, NONE);
        }
        let mut at = self.root;
        for level in pattern {
            match level {
                Level::Rest => return Home::Rest(at),
                Level::One => {
                    at = match self.nodes.get(at).map_or(NONE, |node| node.one) {
                        NONE => {
                            let child = self.new_node(at, NONE);
                            if let Some(node) = self.nodes.get_mut(at) {
                                node.one = child;
                            }
                            child
                        }
                        child => child,
                    };
                }
                Level::Literal(text) => {
                    for level in text.split(LEVEL_SEPARATOR) {
                        at = self.literal_child(at, level);
                    }
                }
            }
        }
        Home::Exact(at)
    }

    fn literal_child(&mut self, parent: u32, level: &str) -> u32 {
        if let Some(child) = self.levels.find(level).and_then(|level| self.find_child(parent, level)) {
            return child;
        }
        let level = self.levels.acquire(level);
        let child = self.new_node(parent, level);
        self.edges.insert_unique(hash_edge(parent, level), child, |&other| {
            self.nodes.get(other).map_or(0, |node| hash_edge(node.parent, node.level))
        });
        if let Some(node) = self.nodes.get_mut(parent) {
            node.literals += 1;
        }
        child
    }

    fn new_node(&mut self, parent: u32, level: u32) -> u32 {
        self.nodes.insert(Node { parent, level, one: NONE, literals: 0, exact: NONE, rest: NONE })
    }

    /// Where the number of the first entry at `home` is kept.
    fn first_mut(&mut self, home: Home) -> Option<&mut u32> {
        match home {
            Home::Literal(index) => self.literals.get_mut(index).map(|literal| &mut literal.first),
            Home::Exact(index) => self.nodes.get_mut(index).map(|node| &mut node.exact),
            Home::Rest(index) => self.nodes.get_mut(index).map(|node| &mut node.rest),
        }
    }

    /// Puts an entry last into the ring of its home.
    fn link(&mut self, index: u32, home: Home) {
        let Some(first) = self.first_mut(home) else { return };
        let first = if *first == NONE {
            *first = index;
            index
        } else {
            *first
        };
        let last = self.entries.get(first).map_or(NONE, |entry| entry.previous);
        let last = if last == NONE { index } else { last };
        if let Some(entry) = self.entries.get_mut(index) {
            entry.next = first;
            entry.previous = last;
        }
        if let Some(entry) = self.entries.get_mut(last) {
            entry.next = index;
        }
        if let Some(entry) = self.entries.get_mut(first) {
            entry.previous = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.entries.get(index) else { return };
        let (next, previous, home) = (entry.next, entry.previous, Home::unpack(entry.home));
        if let Some(entry) = self.entries.get_mut(previous) {
            entry.next = next;
        }
        if let Some(entry) = self.entries.get_mut(next) {
            entry.previous = previous;
        }
        if let Some(first) = self.first_mut(home)
            && *first == index
        {
            *first = if next == index { NONE } else { next };
        }
    }

    fn prune_literal(&mut self, index: u32) {
        if self.literals.get(index).is_none_or(|literal| literal.first != NONE) {
            return;
        }
        let Some(literal) = self.literals.remove(index) else { return };
        if let Ok(found) = self.by_name.find_entry(spread(literal.hash), |&other| other == index) {
            found.remove();
        }
        let literals = &self.literals;
        shrink(&mut self.by_name, |&other| literals.get(other).map_or(0, |literal| spread(literal.hash)));
    }

    /// Removes a node that nothing needs any more, and so on upwards.
    fn prune_node(&mut self, mut index: u32) {
        while let Some(node) = self.nodes.get(index) {
            if node.exact != NONE || node.rest != NONE || node.one != NONE || node.literals > 0 {
                break;
            }
            let (parent, level) = (node.parent, node.level);
            self.nodes.remove(index);
            if level != NONE {
                if let Ok(found) = self.edges.find_entry(hash_edge(parent, level), |&other| other == index) {
                    found.remove();
                }
                self.levels.release(level);
            }
            match self.nodes.get_mut(parent) {
                Some(above) if level == NONE => above.one = NONE,
                Some(above) => above.literals -= 1,
                None => self.root = NONE,
            }
            index = parent;
        }
        let nodes = &self.nodes;
        shrink(&mut self.edges, |&other| {
            nodes.get(other).map_or(0, |node| hash_edge(node.parent, node.level))
        });
    }
}
