//! Where subscriptions hang, for owners of very many: a number for the pattern and one for the subscription, of which the
//! pattern can be had again. Such an owner keeps eight bytes for each and no name.

use super::{Handle, Home, Level, MatchOptions, NONE, Node, TopicTable, hash_text};
use sabir_model::destination::LEVEL_SEPARATOR;
use smallvec::SmallVec;

/// Where all subscriptions of one pattern hang. It means this pattern for as long as there is one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spot(u32);

/// The place of one subscription. It is used again when that is gone: only for who alone removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(u32);

impl<V> TopicTable<V> {
    /// Where the subscriptions to this very name hang, if there are any.
    #[must_use]
    pub fn spot_of_name(&self, name: &str) -> Option<Spot> {
        let literal = self.find_literal_index(name, hash_text(&self.state, name))?;
        Some(Spot(Home::Literal(literal).pack()))
    }

    /// Where the subscriptions of a pattern hang that has a wildcard, if there are any.
    #[must_use]
    pub fn spot_of_wildcards(&self, pattern: &[Level<'_>]) -> Option<Spot> {
        let mut at = self.root;
        for level in pattern {
            let node = self.nodes.get(at)?;
            match level {
                Level::Rest => return (node.rest != NONE).then_some(Spot(Home::Rest(at).pack())),
                Level::One => at = node.one,
                Level::Literal(text) => {
                    for level in text.split(LEVEL_SEPARATOR) {
                        at = self.find_child(at, self.levels.find(level)?)?;
                    }
                }
            }
        }
        (self.nodes.get(at)?.exact != NONE).then_some(Spot(Home::Exact(at).pack()))
    }

    /// Where a subscription hangs, and its place.
    #[must_use]
    pub fn seat(&self, handle: Handle) -> Option<(Spot, Seat)> {
        self.get(handle)?;
        let entry = self.entries.get(handle.index)?;
        Some((Spot(entry.home), Seat(handle.index)))
    }

    /// The subscription at a place.
    #[must_use]
    pub fn at(&self, Seat(index): Seat) -> Option<&V> {
        self.entries.get(index).map(|entry| &entry.value)
    }

    /// The subscription at a place.
    pub fn at_mut(&mut self, Seat(index): Seat) -> Option<&mut V> {
        self.entries.get_mut(index).map(|entry| &mut entry.value)
    }

    /// Removes the subscription at a place.
    pub fn remove_at(&mut self, Seat(index): Seat) -> Option<V> {
        let stamp = self.entries.get(index)?.stamp;
        self.remove(Handle { index, stamp })
    }

    /// The pattern whose subscriptions hang there; several levels without wildcards may come joined.
    #[must_use]
    pub fn levels_of(&self, Spot(packed): Spot) -> SmallVec<[Level<'_>; 8]> {
        let (mut at, rest) = match Home::unpack(packed) {
            Home::Literal(index) => {
                let literal = self.literals.get(index);
                return literal.map(|literal| Level::Literal(&literal.name)).into_iter().collect();
            }
            Home::Exact(node) => (node, false),
            Home::Rest(node) => (node, true),
        };
        let mut levels = SmallVec::new();
        if rest {
            levels.push(Level::Rest);
        }
        while let Some(&Node { parent, level, .. }) = self.nodes.get(at)
            && at != self.root
        {
            levels.push(self.levels.text(level).map_or(Level::One, Level::Literal));
            at = parent;
        }
        levels.reverse();
        levels
    }

    /// Calls `visit` with every place where subscriptions hang whose pattern matches `name`.
    pub fn for_each_matching_spot(&self, name: &str, options: MatchOptions, mut visit: impl FnMut(Spot)) {
        if let Some(spot) = self.spot_of_name(name) {
            visit(spot);
        }
        self.match_wildcards(name, options.hides(name), |home, _| visit(Spot(home.pack())));
    }
}
