//! The addresses a connection has sent to, parsed once: as the client writes them → targets and the key under which the
//! broker keeps its route. Bounded; the oldest slot is reused.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::command::TargetKey;
use crate::destination::Targets;
use crate::error::Refusal;

/// Addresses remembered.
const SLOTS_MAX: u16 = 256;
/// Longer ones take turns in one slot, so that no client makes the table large.
const SHARES_SLOT_BYTES_MIN: usize = 1024;

#[derive(Debug)]
struct Slot {
    raw: Box<str>,
    targets: Targets,
    key: TargetKey,
}

/// Addresses by the text that the client writes.
#[derive(Debug, Default)]
pub struct AddressBook {
    slots: Vec<Slot>,
    /// Filled from the second address on: most senders use one.
    index: HashMap<Box<str>, u16, RandomState>,
    last: u16,
    oldest: u16,
    generation: u32,
}

impl AddressBook {
    /// What `raw` stands for, parsed by `parse` if it is new.
    ///
    /// # Errors
    /// Those of `parse`.
    pub fn resolve(
        &mut self,
        raw: &str,
        parse: impl FnOnce() -> Result<Targets, Refusal>,
    ) -> Result<(&Targets, TargetKey), Refusal> {
        let hit = match self.slots.get(usize::from(self.last)) {
            Some(slot) if *slot.raw == *raw => Some(self.last),
            _ => self.index.get(raw).copied(),
        };
        let at = match hit {
            Some(at) => at,
            None => self.insert(raw, parse()?),
        };
        self.last = at;
        match self.slots.get(usize::from(at)) {
            Some(slot) => Ok((&slot.targets, slot.key)),
            None => unreachable!("the slot was found or filled above"),
        }
    }

    /// What the last address that was resolved stands for.
    #[must_use]
    pub fn again(&self) -> Option<(&Targets, TargetKey)> {
        self.slots.get(usize::from(self.last)).map(|slot| (&slot.targets, slot.key))
    }

    fn insert(&mut self, raw: &str, targets: Targets) -> u16 {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let full = self.slots.len() >= usize::from(SLOTS_MAX);
        let at = if raw.len() >= SHARES_SLOT_BYTES_MIN {
            0
        } else if full {
            self.oldest
        } else {
            u16::try_from(self.slots.len()).unwrap_or(0)
        };
        let slot = Slot { raw: raw.into(), targets, key: TargetKey { slot: at, generation } };
        if full && at == self.oldest {
            self.oldest = (self.oldest + 1) % SLOTS_MAX;
        }
        match self.slots.get_mut(usize::from(at)) {
            Some(old) => {
                self.index.remove(&old.raw);
                *old = slot;
            }
            None => self.slots.push(slot),
        }
        if self.slots.len() == 2
            && self.index.is_empty()
            && let Some(first) = self.slots.first()
        {
            self.index.insert(first.raw.clone(), 0);
        }
        if self.slots.len() > 1 {
            self.index.insert(raw.into(), at);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::destination::Destination;

    fn targets(name: &str) -> Targets {
        Targets::from_iter([Destination::queue(name)])
    }

    #[test]
    fn an_address_is_parsed_once_and_its_key_always_means_the_same() {
        let mut book = AddressBook::default();
        let mut meaning = std::collections::HashMap::new();
        for round in 0..3 {
            for number in 0..600 {
                let mut name = format!("q{}", number % (200 * (round + 1)));
                if number % 50 == 0 {
                    name.push_str(&"long".repeat(SHARES_SLOT_BYTES_MIN));
                }
                let (found, key) = book.resolve(&name, || Ok(targets(&name))).unwrap();
                assert_eq!(*found, targets(&name));
                assert!(key.slot < SLOTS_MAX);
                let known = meaning.entry((key.slot, key.generation)).or_insert_with(|| name.clone());
                assert_eq!(*known, name);
                book.resolve(&name, || unreachable!("parsed just now")).unwrap();
            }
        }
        assert!(book.slots.len() <= usize::from(SLOTS_MAX) && book.index.len() <= usize::from(SLOTS_MAX));
    }
}
