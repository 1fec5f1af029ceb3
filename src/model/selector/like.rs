//! `LIKE` patterns, compiled: `%` is any run of characters, `_` is one character, line ends included.
//!
//! The pattern is cut at every `%` into pieces. The first is tied to the start, the last to the end, and each one between
//! takes its leftmost place: no choice is ever taken back.

use memchr::memmem::Finder;

/// What stands between two `%`.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    /// Characters only: the common case, found by a substring search.
    Plain(Box<str>),
    /// Characters and `_` (as `None`).
    Holes(Box<[Option<char>]>),
}

impl Piece {
    fn new(chars: &[Option<char>]) -> Self {
        match chars.iter().copied().collect::<Option<String>>() {
            Some(plain) => Self::Plain(plain.into()),
            None => Self::Holes(chars.into()),
        }
    }

    /// What is left of `text` behind this piece at its start.
    fn strip_prefix<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Plain(plain) => text.strip_prefix(&**plain),
            Self::Holes(holes) => {
                let mut chars = text.chars();
                let fits = holes.iter().all(|hole| match (hole, chars.next()) {
                    (Some(wanted), Some(found)) => *wanted == found,
                    (None, Some(_)) => true,
                    (_, None) => false,
                });
                fits.then_some(chars.as_str())
            }
        }
    }

    fn is_suffix(&self, text: &str) -> bool {
        match self {
            Self::Plain(plain) => text.ends_with(&**plain),
            Self::Holes(holes) => {
                let mut chars = text.chars();
                holes.iter().rev().all(|hole| match (hole, chars.next_back()) {
                    (Some(wanted), Some(found)) => *wanted == found,
                    (None, Some(_)) => true,
                    (_, None) => false,
                })
            }
        }
    }

    /// What is left of `text` behind the leftmost place of this piece.
    fn find<'t>(&self, text: &'t str, finder: Option<&Finder<'_>>) -> Option<&'t str> {
        match (self, finder) {
            (Self::Plain(plain), Some(finder)) => text.get(finder.find(text.as_bytes())? + plain.len()..),
            (Self::Plain(plain), None) => text.find(&**plain).and_then(|at| text.get(at + plain.len()..)),
            (Self::Holes(_), _) => {
                let mut rest = text;
                loop {
                    if let Some(after) = self.strip_prefix(rest) {
                        return Some(after);
                    }
                    let mut chars = rest.chars();
                    chars.next()?;
                    rest = chars.as_str();
                }
            }
        }
    }
}

/// A compiled pattern that remembers how it was written.
#[derive(Clone, Debug)]
pub(super) struct Like {
    text: Box<str>,
    escape: Option<char>,
    first: Piece,
    middle: Box<[(Piece, Option<Finder<'static>>)]>,
    /// `None` without any `%`: then the first piece is all.
    last: Option<Piece>,
}

impl PartialEq for Like {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.escape == other.escape
    }
}

impl Like {
    /// Compiles. An escape character that stands before neither `%` nor `_` nor itself is an ordinary character.
    pub(super) fn new(text: &str, escape: Option<char>) -> Self {
        let mut pieces: Vec<Vec<Option<char>>> = vec![Vec::new()];
        let mut chars = text.chars().peekable();
        while let Some(next) = chars.next() {
            let literal = Some(next) == escape
                && chars.peek().is_some_and(|&after| after == '%' || after == '_' || Some(after) == escape);
            let element = match next {
                _ if literal => chars.next(),
                '%' => {
                    pieces.push(Vec::new());
                    continue;
                }
                '_' => None,
                other => Some(other),
            };
            if let Some(piece) = pieces.last_mut() {
                piece.push(element);
            }
        }
        let many = pieces.len() > 1;
        let mut pieces = pieces.into_iter();
        let first = Piece::new(&pieces.next().unwrap_or_default());
        let last = many.then(|| Piece::new(&pieces.next_back().unwrap_or_default()));
        let middle = pieces
            .filter(|piece| !piece.is_empty())
            .map(|piece| {
                let piece = Piece::new(&piece);
                let finder = match &piece {
                    Piece::Plain(plain) => Some(Finder::new(plain.as_bytes()).into_owned()),
                    Piece::Holes(_) => None,
                };
                (piece, finder)
            })
            .collect();
        Self { text: text.into(), escape, first, middle, last }
    }

    /// The pattern as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The escape character.
    pub(super) fn escape(&self) -> Option<char> {
        self.escape
    }

    /// Whether the whole of `text` fits.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some(mut rest) = self.first.strip_prefix(text) else {
            return false;
        };
        let Some(last) = &self.last else {
            return rest.is_empty();
        };
        for (piece, finder) in &self.middle {
            match piece.find(rest, finder.as_ref()) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        last.is_suffix(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, without any cleverness.
    fn slow(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('%', more)), rest) => {
                slow(more, text) || rest.is_some_and(|(_, shorter)| slow(pattern, shorter))
            }
            (Some((wanted, more)), Some((found, rest))) => {
                (*wanted == '_' || wanted == found) && slow(more, rest)
            }
            _ => false,
        }
    }

    #[test]
    fn every_short_pattern_agrees_with_the_definition() {
        let words = |alphabet: &[char]| {
            let mut all = vec![String::new()];
            let mut from = 0;
            for _ in 0..5 {
                let until = all.len();
                for index in from..until {
                    for letter in alphabet {
                        let longer = format!("{}{letter}", all[index]);
                        all.push(longer);
                    }
                }
                from = until;
            }
            all
        };
        let texts = words(&['a', 'é']);
        for pattern in words(&['a', 'é', '%', '_']) {
            let like = Like::new(&pattern, None);
            let letters: Vec<char> = pattern.chars().collect();
            for text in &texts {
                let expected = slow(&letters, &text.chars().collect::<Vec<_>>());
                assert_eq!(like.matches(text), expected, "{text} LIKE {pattern}");
            }
        }
    }

    #[test]
    fn a_pattern_made_to_backtrack_does_not() {
        let like = Like::new(&"%a".repeat(5_000), None);
        assert!(!like.matches(&"a".repeat(4_999)));
        assert!(like.matches(&"a".repeat(5_000)));
    }
}
