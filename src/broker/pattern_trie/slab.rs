//! Numbered places in chunks: freed places are used again, and a chunk that has become empty is given back.

/// The number of no place.
pub(super) const NONE: u32 = u32::MAX;

const CHUNK_BITS: u32 = 9;
const CHUNK_LEN: usize = 1 << CHUNK_BITS;
/// The end of a chunk's list of free places.
const NO_PLACE: u16 = u16::MAX;
/// Numbers below this leave two bits for their users.
const PLACES_MAX: usize = 1 << 30;

enum Place<T> {
    Free { next: u16 },
    Used(T),
}

struct Chunk<T> {
    places: Vec<Place<T>>,
    free: u16,
    used: u16,
    /// Whether its number is on the slab's list of chunks with room.
    listed: bool,
}

impl<T> Chunk<T> {
    fn has_room(&self) -> bool {
        usize::from(self.used) < CHUNK_LEN
    }
}

pub(super) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    with_room: Vec<u32>,
    len: usize,
}

fn split(index: u32) -> (usize, usize) {
    ((index >> CHUNK_BITS) as usize, index as usize & (CHUNK_LEN - 1))
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), with_room: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, place) = split(index);
        match self.chunks.get(chunk)?.places.get(place)? {
            Place::Used(item) => Some(item),
            Place::Free { .. } => None,
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (chunk, place) = split(index);
        match self.chunks.get_mut(chunk)?.places.get_mut(place)? {
            Place::Used(item) => Some(item),
            Place::Free { .. } => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().enumerate().flat_map(|(chunk, Chunk { places, .. })| {
            places.iter().enumerate().filter_map(move |(place, item)| match item {
                Place::Used(item) => Some((number(chunk, place), item)),
                Place::Free { .. } => None,
            })
        })
    }

    /// What is in the `index`th chunk of places; `None` behind the last one.
    pub(super) fn chunk(&self, index: usize) -> Option<impl Iterator<Item = &T>> {
        let places = &self.chunks.get(index)?.places;
        Some(places.iter().filter_map(|place| match place {
            Place::Used(item) => Some(item),
            Place::Free { .. } => None,
        }))
    }

    pub(super) fn insert(&mut self, item: T) -> u32 {
        let at = match self.with_room.last() {
            Some(&at) => at as usize,
            None => {
                let at = self.chunks.len();
                assert!(at < PLACES_MAX / CHUNK_LEN, "a billion places do not fit in memory");
                self.chunks.push(Chunk { places: Vec::new(), free: NO_PLACE, used: 0, listed: true });
                self.with_room.push(number(0, at));
                at
            }
        };
        let chunk = &mut self.chunks[at];
        let place = match usize::from(chunk.free) {
            free if chunk.free != NO_PLACE => {
                if let Place::Free { next } = chunk.places[free] {
                    chunk.free = next;
                }
                chunk.places[free] = Place::Used(item);
                free
            }
            _ => {
                chunk.places.push(Place::Used(item));
                chunk.places.len() - 1
            }
        };
        chunk.used += 1;
        if !chunk.has_room() {
            chunk.listed = false;
            self.with_room.pop();
        }
        self.len += 1;
        number(at, place)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let (at, place) = split(index);
        let chunk = self.chunks.get_mut(at)?;
        let slot = chunk.places.get_mut(place)?;
        if let Place::Free { .. } = slot {
            return None;
        }
        let Place::Used(item) = std::mem::replace(slot, Place::Free { next: chunk.free }) else {
            return None;
        };
        chunk.free = u16::try_from(place).unwrap_or(NO_PLACE);
        chunk.used -= 1;
        self.len -= 1;
        // One empty chunk is kept, so that a single comer and goer does not allocate each time.
        if chunk.used == 0 && (self.with_room.len() > 1 || self.len == 0) {
            chunk.places = Vec::new();
            chunk.free = NO_PLACE;
        }
        if !chunk.listed {
            chunk.listed = true;
            self.with_room.push(number(0, at));
        }
        if self.len == 0 {
            *self = Self::new();
        }
        Some(item)
    }
}

fn number(chunk: usize, place: usize) -> u32 {
    u32::try_from(chunk << CHUNK_BITS | place).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_empty_chunks_given_back() {
        let mut slab = Slab::new();
        let numbers: Vec<u32> = (0..3_000).map(|item| slab.insert(item)).collect();
        for (item, &number) in numbers.iter().enumerate() {
            assert_eq!(slab.get(number), Some(&item));
        }
        for &number in &numbers[..2_500] {
            assert!(slab.remove(number).is_some());
            assert_eq!(slab.remove(number), None);
        }
        let held =
            |slab: &Slab<usize>| slab.chunks.iter().map(|chunk| chunk.places.capacity()).sum::<usize>();
        assert!(held(&slab) <= 3 * CHUNK_LEN, "{}", held(&slab));
        for item in 0..2_500 {
            assert!(slab.insert(item) < 3_100, "an old place is taken first");
        }
        assert_eq!(slab.iter().count(), 3_000);
        assert_eq!(slab.len(), 3_000);
        let all: Vec<u32> = slab.iter().map(|(number, _)| number).collect();
        for number in all {
            slab.remove(number);
        }
        assert_eq!((slab.len(), held(&slab)), (0, 0));
        assert_eq!(slab.get(NONE), None);
    }
}
