//! Levels as numbers: each text once, counted by its users.

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::slab::Slab;
use super::{hash_text, shrink, spread};

struct Known {
    text: Box<str>,
    hash: u32,
    uses: u32,
}

pub(super) struct Interner {
    known: Slab<Known>,
    by_text: HashTable<u32>,
    state: RandomState,
}

impl Interner {
    pub(super) fn new(state: RandomState) -> Self {
        Self { known: Slab::new(), by_text: HashTable::new(), state }
    }

    /// The number of `text`, if somebody uses it.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        if self.by_text.is_empty() {
            return None;
        }
        self.find_hashed(text, hash_text(&self.state, text))
    }

    fn find_hashed(&self, text: &str, hash: u32) -> Option<u32> {
        let found = self.by_text.find(spread(hash), |&index| {
            self.known.get(index).is_some_and(|known| known.hash == hash && *known.text == *text)
        });
        found.copied()
    }

    /// The number of `text`, used once more.
    pub(super) fn acquire(&mut self, text: &str) -> u32 {
        let hash = hash_text(&self.state, text);
        if let Some(index) = self.find_hashed(text, hash) {
            if let Some(known) = self.known.get_mut(index) {
                known.uses += 1;
            }
            return index;
        }
        let index = self.known.insert(Known { text: text.into(), hash, uses: 1 });
        self.by_text.insert_unique(spread(hash), index, |&other| {
            self.known.get(other).map_or(0, |known| spread(known.hash))
        });
        index
    }

    /// One use less; the last one forgets the text.
    pub(super) fn release(&mut self, index: u32) {
        let Some(known) = self.known.get_mut(index) else { return };
        known.uses -= 1;
        if known.uses > 0 {
            return;
        }
        let hash = known.hash;
        self.known.remove(index);
        if let Ok(found) = self.by_text.find_entry(spread(hash), |&other| other == index) {
            found.remove();
        }
        let known = &self.known;
        shrink(&mut self.by_text, |&other| known.get(other).map_or(0, |known| spread(known.hash)));
    }

    /// The text of a number.
    pub(super) fn text(&self, index: u32) -> Option<&str> {
        self.known.get(index).map(|known| &*known.text)
    }

    /// How many texts are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
