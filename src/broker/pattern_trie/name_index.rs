//! Names that exist, asked for by pattern.
//!
//! NUL, which joins levels, is the smallest character, so in the order of the canonical texts a name stands directly
//! before everything below it. A search walks that order and leaps over whole subtrees that cannot match: its cost grows
//! with the matches and with the siblings at wildcard levels, not with all names.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use sabir_model::destination::LEVEL_SEPARATOR;

use super::{Level, MatchOptions};

/// Names with a value each, in order.
#[derive(Clone, Debug)]
pub struct NameIndex<V> {
    names: BTreeMap<Box<str>, V>,
}

impl<V> Default for NameIndex<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// What to do after looking at one name.
enum Step {
    /// It matches, and so may the next one.
    Match,
    /// It matches; the next that may is at or behind the seek text.
    MatchThenLeap,
    /// It does not match; the next that may is at or behind the seek text.
    Leap,
    /// Neither this nor any later one matches.
    End,
}

impl<V> NameIndex<V> {
    /// An index without names.
    #[must_use]
    pub fn new() -> Self {
        Self { names: BTreeMap::new() }
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds a canonical name; returns the value it had before.
    pub fn insert(&mut self, name: &str, value: V) -> Option<V> {
        match self.names.get_mut(name) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => self.names.insert(name.into(), value),
        }
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&V> {
        self.names.get(name)
    }

    /// The value of a name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.names.get_mut(name)
    }

    /// Removes a name and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        self.names.remove(name)
    }

    /// All names and values, in the order of the canonical texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.names.iter().map(|(name, value)| (&**name, value))
    }

    /// Calls `visit` for every name that `pattern` matches, in the order of the canonical texts.
    pub fn for_each_match<'s>(&'s self, pattern: &[Level<'_>], visit: impl FnMut(&'s str, &'s V)) {
        self.for_each_match_with(pattern, MatchOptions::default(), visit);
    }

    /// As [`NameIndex::for_each_match`], with options.
    pub fn for_each_match_with<'s>(
        &'s self,
        pattern: &[Level<'_>],
        options: MatchOptions,
        mut visit: impl FnMut(&'s str, &'s V),
    ) {
        self.for_matches_after(pattern, options, None, |name, value| {
            visit(name, value);
            true
        });
    }

    /// As [`NameIndex::for_each_match_with`], for names behind `after` in the order of the canonical texts, until `visit`
    /// says no.
    pub fn for_matches_after<'s>(
        &'s self,
        pattern: &[Level<'_>],
        options: MatchOptions,
        after: Option<&str>,
        mut visit: impl FnMut(&'s str, &'s V) -> bool,
    ) {
        let search = Search::new(pattern);
        if !search.rest && search.levels.iter().all(Option::is_some) {
            let name = join(&search.levels);
            if let Some((name, value)) = self.names.get_key_value(name.as_str())
                && after.is_none_or(|after| **name > *after)
            {
                visit(name, value);
            }
            return;
        }
        let hide = options.hide_dollar && search.levels.first().is_none_or(Option::is_none);
        // The literal start of the pattern is where the first match can be.
        let start = search.levels.iter().take_while(|level| level.is_some()).count();
        let mut seek = join(search.levels.get(..start).unwrap_or_default());
        let mut first = Bound::Included(());
        if let Some(after) = after.filter(|after| **after >= *seek) {
            after.clone_into(&mut seek);
            first = Bound::Excluded(());
        }
        'leap: loop {
            let from = std::mem::replace(&mut first, Bound::Included(())).map(|()| seek.as_str());
            for (name, value) in self.names.range::<str, _>((from, Bound::Unbounded)) {
                if hide && name.starts_with('$') {
                    seek.clear();
                    // The character after the dollar sign: behind every name that begins with one.
                    seek.push('%');
                    continue 'leap;
                }
                let mut leap_to = String::new();
                let step = search.step(name, &mut leap_to);
                if let Step::Match | Step::MatchThenLeap = step
                    && !visit(name, value)
                {
                    return;
                }
                match step {
                    Step::Match => {}
                    Step::MatchThenLeap | Step::Leap => {
                        seek = leap_to;
                        continue 'leap;
                    }
                    Step::End => return,
                }
            }
            return;
        }
    }
}

/// A pattern as single levels, wildcards as `None`.
struct Search<'p> {
    levels: Vec<Option<&'p str>>,
    /// Whether zero or more further levels may follow.
    rest: bool,
}

fn join(levels: &[Option<&str>]) -> String {
    let mut name = String::new();
    for (index, level) in levels.iter().enumerate() {
        if index > 0 {
            name.push(LEVEL_SEPARATOR);
        }
        name.push_str(level.unwrap_or_default());
    }
    name
}

impl<'p> Search<'p> {
    fn new(pattern: &[Level<'p>]) -> Self {
        let mut levels = Vec::with_capacity(pattern.len());
        for level in pattern {
            match level {
                Level::Literal(text) => levels.extend(text.split(LEVEL_SEPARATOR).map(Some)),
                Level::One => levels.push(None),
                Level::Rest => return Self { levels, rest: true },
            }
        }
        if levels.is_empty() {
            levels.push(Some(""));
        }
        Self { levels, rest: false }
    }

    /// Judges `name`, and writes into `leap_to` where to go on if that is not the next name.
    fn step(&self, name: &str, leap_to: &mut String) -> Step {
        // Where the part of the name that was compared so far ends, and the end of the last level under a wildcard.
        let mut end = 0;
        let mut last_wildcard_end = None;
        for (index, wanted) in self.levels.iter().enumerate() {
            let from = if index == 0 { 0 } else { end + 1 };
            let Some(rest) = name.get(from..).filter(|_| index == 0 || end < name.len()) else {
                // The name ends too soon. What may match is below it.
                leap_to.push_str(name);
                leap_to.push(LEVEL_SEPARATOR);
                leap_to.push_str(wanted.unwrap_or_default());
                return Step::Leap;
            };
            let level = rest.split(LEVEL_SEPARATOR).next().unwrap_or_default();
            end = from + level.len();
            match wanted.map(|wanted| level.cmp(wanted)) {
                None => last_wildcard_end = Some(end),
                Some(Ordering::Equal) => {}
                Some(Ordering::Less) => {
                    leap_to.push_str(name.get(..from).unwrap_or_default());
                    leap_to.push_str(wanted.unwrap_or_default());
                    return Step::Leap;
                }
                Some(Ordering::Greater) => return leap_behind(name, last_wildcard_end, leap_to, Step::Leap),
            }
        }
        if self.rest {
            Step::Match
        } else if end < name.len() {
            // A longer name: so are all that follow in this subtree.
            leap_behind(name, last_wildcard_end, leap_to, Step::Leap)
        } else if last_wildcard_end == Some(end) {
            // A sibling may be next already; looking costs less than seeking.
            Step::Match
        } else {
            leap_behind(name, last_wildcard_end, leap_to, Step::MatchThenLeap)
        }
    }
}

/// Leaps to the next sibling of the last level that a wildcard covers; without one there is nothing further to find.
fn leap_behind(name: &str, last_wildcard_end: Option<usize>, leap_to: &mut String, step: Step) -> Step {
    let Some(prefix) = last_wildcard_end.and_then(|end| name.get(..end)) else {
        return Step::End;
    };
    leap_to.push_str(prefix);
    // The smallest character that cannot begin a further level.
    leap_to.push('\u{1}');
    step
}
