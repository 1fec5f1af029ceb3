//! Which blobs are alive, and who holds them: a part of the index (`index.rs`), and like it a function of the log.
//!
//! Its memory is about 60 bytes for every blob and 40 for every queue that holds one: a few dozen bytes for each
//! *large* message. A blob whose last holder is gone stays in here until a durable checkpoint no longer mentions it;
//! then its file may go.

use crate::blob_file::{BlobName, file_bytes};
use crate::error::LostRange;
use crate::record::{put_varint, take_varint};
use sabir_model::ids::QueueId;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
struct Known {
    name: BlobName,
    /// Live numbers that hold it.
    holders: u64,
    /// Position of the last frame that named it.
    touched: u64,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlobIndex {
    known: BTreeMap<u64, Known>,
    /// Queue and number, to the blob.
    held: BTreeMap<(u64, u64), u64>,
    /// Above every number that the log names.
    pub(crate) next: u64,
    /// Bytes of the files of blobs that nobody holds any more.
    dead_bytes: u64,
}

/// A blob that nobody holds, and the last position that named it.
pub(crate) type Dead = (u64, u64);

impl BlobIndex {
    /// A live number holds a blob; whatever it held before it does no more.
    pub(crate) fn hold(&mut self, at: (u64, u64), name: &BlobName, position: u64) {
        self.next = self.next.max(name.id.saturating_add(1));
        let dead_bytes = &mut self.dead_bytes;
        let known = self.known.entry(name.id).or_insert(Known { name: *name, holders: 0, touched: 0 });
        if known.touched > 0 && known.holders == 0 {
            *dead_bytes = dead_bytes.saturating_sub(file_bytes(known.name.len));
        }
        if known.holders == 0 {
            known.name = BlobName { synced: known.name.synced || name.synced, ..*name };
        }
        known.name.synced |= name.synced;
        known.holders += 1;
        known.touched = position.max(1);
        if let Some(before) = self.held.insert(at, name.id) {
            self.let_go(before);
        }
    }

    fn let_go(&mut self, id: u64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.holders = known.holders.saturating_sub(1);
            if known.holders == 0 {
                self.dead_bytes = self.dead_bytes.saturating_add(file_bytes(known.name.len));
            }
        }
    }

    /// Numbers of a queue are not alive any more.
    pub(crate) fn release(&mut self, queue: u64, first: u64, last: u64) {
        if self.held.is_empty() || first > last {
            return;
        }
        while let Some((&at, &id)) = self.held.range((queue, first)..=(queue, last)).next() {
            self.held.remove(&at);
            self.let_go(id);
        }
    }

    /// What a live number holds.
    pub(crate) fn held_by(&self, at: (u64, u64)) -> Option<BlobName> {
        if self.held.is_empty() {
            return None;
        }
        self.held.get(&at).and_then(|id| self.known.get(id)).map(|known| known.name)
    }

    /// A blob that somebody holds.
    pub(crate) fn live(&self, id: u64) -> Option<BlobName> {
        self.known.get(&id).filter(|known| known.holders > 0).map(|known| known.name)
    }

    /// Whether its file is still needed, if only by a crash.
    pub(crate) fn is_known(&self, id: u64) -> bool {
        self.known.contains_key(&id)
    }

    /// All that somebody holds, by number.
    pub(crate) fn all_live(&self) -> impl Iterator<Item = BlobName> {
        self.live_from(0)
    }

    /// Those from this number on.
    pub(crate) fn live_from(&self, id: u64) -> impl Iterator<Item = BlobName> {
        self.known.range(id..).filter(|(_, known)| known.holders > 0).map(|(_, known)| known.name)
    }

    /// Queue, number and blob of all live messages that have one, in this order.
    pub(crate) fn holders(&self) -> impl Iterator<Item = ((u64, u64), BlobName)> {
        self.held.iter().filter_map(|(at, id)| Some((*at, self.known.get(id)?.name)))
    }

    /// The numbers that hold one of `ids`.
    pub(crate) fn holders_of(&self, ids: &BTreeSet<u64>) -> Vec<LostRange> {
        let mut ranges: Vec<LostRange> = Vec::new();
        for (&(queue, sequence), id) in &self.held {
            if !ids.contains(id) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.queue.0 == queue && last.last.checked_add(1) == Some(sequence) => {
                    last.last = sequence;
                }
                _ => {
                    let queue = QueueId(queue);
                    ranges.push(LostRange { queue, first: sequence, last: sequence, certain: true });
                }
            }
        }
        ranges
    }

    /// Live ones whose files nobody is known to have synced.
    pub(crate) fn unsynced(&self) -> Vec<u64> {
        self.all_live().filter(|name| !name.synced).map(|name| name.id).collect()
    }

    pub(crate) fn set_synced(&mut self, id: u64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.name.synced = true;
        }
    }

    /// Bytes of the files that a checkpoint would free.
    pub(crate) fn dead_bytes(&self) -> u64 {
        self.dead_bytes
    }

    /// Those that nobody holds now.
    pub(crate) fn dead(&self) -> Vec<Dead> {
        let dead = |(id, known): (&u64, &Known)| (known.holders == 0).then_some((*id, known.touched));
        self.known.iter().filter_map(dead).collect()
    }

    /// A durable checkpoint does not mention these. Forgets those that nothing behind it mentions either, and returns
    /// them with the bytes of their files.
    pub(crate) fn forget(&mut self, dead: &[Dead]) -> Vec<(u64, u64)> {
        let mut gone = Vec::new();
        for (id, touched) in dead {
            let Some(known) = self.known.get(id) else { continue };
            if known.holders == 0 && known.touched == *touched {
                let bytes = file_bytes(known.name.len);
                self.dead_bytes = self.dead_bytes.saturating_sub(bytes);
                gone.push((*id, bytes));
                self.known.remove(id);
            }
        }
        gone
    }

    /// The checkpoint's part: next number; n, n × blob: number, length, CRC of the table, 1 if synced; n, n × holder: queue,
    /// number, blob.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.next);
        put_varint(out, self.all_live().count() as u64);
        for name in self.all_live() {
            for value in [name.id, name.len, u64::from(name.check), u64::from(name.synced)] {
                put_varint(out, value);
            }
        }
        put_varint(out, self.held.len() as u64);
        for (&(queue, sequence), &id) in &self.held {
            for value in [queue, sequence, id] {
                put_varint(out, value);
            }
        }
    }

    /// Reads what [`BlobIndex::encode`] wrote; `is_live` says whether a queue has a number alive.
    pub(crate) fn decode(rest: &mut &[u8], is_live: impl Fn(u64, u64) -> bool) -> Option<Self> {
        let mut blobs = Self { next: take_varint(rest)?, ..Self::default() };
        for _ in 0..take_varint(rest)? {
            let (id, len) = (take_varint(rest)?, take_varint(rest)?);
            let check = u32::try_from(take_varint(rest)?).ok()?;
            let name = BlobName { id, len, check, synced: take_varint(rest)? & 1 == 1 };
            blobs.known.insert(id, Known { name, holders: 0, touched: 1 });
        }
        for _ in 0..take_varint(rest)? {
            let at = (take_varint(rest)?, take_varint(rest)?);
            let known = blobs.known.get_mut(&take_varint(rest)?)?;
            known.holders += 1;
            let id = known.name.id;
            if !is_live(at.0, at.1) || blobs.held.insert(at, id).is_some() {
                return None;
            }
        }
        let unheld = blobs.known.values().any(|known| known.holders == 0);
        let next_is_low = blobs.known.last_key_value().is_some_and(|(id, _)| *id >= blobs.next);
        (!unheld && !next_is_low).then_some(blobs)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(id: u64) -> BlobName {
        BlobName { id, len: 1000, check: 7, synced: true }
    }

    #[test]
    fn a_body_that_was_named_again_since_the_checkpoint_is_not_forgotten_with_it() {
        let mut blobs = BlobIndex::default();
        blobs.hold((1, 1), &name(5), 10);
        blobs.hold((1, 2), &name(6), 11);
        blobs.release(1, 1, 2);
        let dead = blobs.dead();
        assert_eq!(dead, [(5, 10), (6, 11)]);
        // While the checkpoint is written: named and settled once more. A crash may lose the settling alone.
        blobs.hold((2, 1), &name(5), 12);
        blobs.release(2, 1, 1);
        assert_eq!(blobs.forget(&dead), [(6, file_bytes(1000))]);
        assert!(blobs.is_known(5) && !blobs.is_known(6));
        assert_eq!(blobs.dead_bytes(), file_bytes(1000));
        let dead = blobs.dead();
        assert_eq!(blobs.forget(&dead), [(5, file_bytes(1000))]);
        assert_eq!((blobs.dead_bytes(), blobs.next), (0, 7));
    }

    #[test]
    fn a_checkpoint_tells_who_holds_what_and_contradictions_are_refused() {
        let mut blobs = BlobIndex::default();
        for (at, id) in [((1, 1), 5), ((1, 2), 5), ((2, 9), 6), ((3, 1), 7)] {
            blobs.hold(at, &name(id), 1);
        }
        blobs.release(3, 0, u64::MAX);
        let mut bytes = Vec::new();
        blobs.encode(&mut bytes);
        let read = |bytes: &[u8], live: bool| BlobIndex::decode(&mut &*bytes, |_, _| live);
        let again = read(&bytes, true).unwrap();
        let holders = |blobs: &BlobIndex| blobs.holders().collect::<Vec<_>>();
        assert_eq!(holders(&again), holders(&blobs));
        assert_eq!((again.next, again.dead()), (8, vec![]));
        assert!(read(&bytes, false).is_none(), "who holds it must be alive");
        for cut in 0..bytes.len() {
            assert!(read(bytes.get(..cut).unwrap(), true).is_none(), "cut at {cut}");
        }
    }
}
