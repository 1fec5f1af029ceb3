//! The in-flight slab of one queue: deliveries that wait to be settled, found by slot and generation without a map.

use sabir_model::ids::{ConnectionId, Sequence};

use crate::ready::Entry;

/// In place of a consumer that has gone while its delivery was still on the way to the socket, and where management holds
/// a message.
pub(crate) const NOBODY: u32 = u32::MAX;

/// One unsettled delivery.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) sequence: Sequence,
    pub(crate) entry: Entry,
    pub(crate) connection: ConnectionId,
    /// Slot of the consumer in its queue.
    pub(crate) consumer: u32,
    /// Where its bytes end in the consumer's outbox.
    pub(crate) ends_at: u64,
    /// It needs no acknowledgement: what has reached the socket is settled.
    pub(crate) done: bool,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    held: Option<InFlight>,
}

#[derive(Debug, Default)]
pub(crate) struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
    len: usize,
    /// Generation of slots made from now on: above every one handed out before the slab last shrank.
    floor: u32,
}

impl Slab {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts a delivery in; returns slot and generation.
    pub(crate) fn insert(&mut self, held: InFlight) -> (u32, u32) {
        self.len += 1;
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.held = Some(held);
            return (index, slot.generation);
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { generation: self.floor, held: Some(held) });
        (index, self.floor)
    }

    pub(crate) fn get(&self, slot: u32, generation: u32) -> Option<&InFlight> {
        self.slots.get(slot as usize).filter(|slot| slot.generation == generation)?.held.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32, generation: u32) -> Option<&mut InFlight> {
        self.slots.get_mut(slot as usize).filter(|slot| slot.generation == generation)?.held.as_mut()
    }

    /// Takes a delivery out; its slot's generation moves on, so that its token names nothing from now on.
    pub(crate) fn remove(&mut self, slot: u32, generation: u32) -> Option<InFlight> {
        let entry = self.slots.get_mut(slot as usize).filter(|slot| slot.generation == generation)?;
        let held = entry.held.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        self.len -= 1;
        if self.len == 0 && self.slots.len() > 65_536 {
            self.floor = self.slots.iter().map(|slot| slot.generation).max().unwrap_or(0).wrapping_add(1);
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        Some(held)
    }

    /// Takes out all deliveries of one consumer, in the order of their sequence numbers.
    pub(crate) fn remove_consumer(&mut self, consumer: u32) -> Vec<InFlight> {
        self.remove_where(|held| held.consumer == consumer)
    }

    fn remove_where(&mut self, mine: impl Fn(&InFlight) -> bool) -> Vec<InFlight> {
        let mine: Vec<(u32, u32)> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.held.as_ref().is_some_and(&mine))
            .map(|(index, slot)| (u32::try_from(index).unwrap_or(u32::MAX), slot.generation))
            .collect();
        let mut taken: Vec<InFlight> =
            mine.into_iter().filter_map(|(slot, generation)| self.remove(slot, generation)).collect();
        taken.sort_unstable_by_key(|held| held.sequence);
        taken
    }

    /// Leaves those of a consumer's deliveries where they are that the socket has not taken yet; it will. True if there
    /// are any.
    pub(crate) fn disown(&mut self, consumer: u32, written: u64) -> bool {
        let mut any = false;
        for held in self.slots.iter_mut().filter_map(|slot| slot.held.as_mut()) {
            if held.consumer == consumer && held.ends_at > written {
                held.consumer = NOBODY;
                any = true;
            }
        }
        any
    }

    /// Takes out what consumers of a connection have left to its socket, in the order of their sequence numbers.
    pub(crate) fn remove_disowned(&mut self, connection: ConnectionId) -> Vec<InFlight> {
        self.remove_where(|held| held.consumer == NOBODY && held.connection == connection)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.slots.iter().filter_map(|slot| slot.held.as_ref())
    }
}
