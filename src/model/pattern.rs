//! Wildcards over names: `*` is exactly one level, `>` at the end is the level before it and everything below.

use crate::destination::{Destination, DestinationRef, Kind, LEVEL_SEPARATOR, canonical_from_dotted, dotted};
use crate::error::{Code, Refusal};
use crate::varint;

/// One level of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PatternLevel {
    /// This very level.
    Literal(Box<str>),
    /// Exactly one level, whatever it holds.
    One,
    /// Zero or more further levels; only at the end.
    Rest,
}

/// A destination or a wildcard over destinations of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    kind: Kind,
    temporary: bool,
    levels: Vec<PatternLevel>,
    literal: Option<Destination>,
}

impl Pattern {
    /// Parses the dotted form, in which a whole level `*` or `>` is a wildcard.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] for a name that is no name, and for `>` anywhere but at the end.
    pub fn from_dotted(kind: Kind, temporary: bool, text: &str) -> Result<Self, Refusal> {
        let canonical = canonical_from_dotted(text)?;
        let whole = Destination::from_canonical(kind, temporary, &canonical)?;
        let mut levels: Vec<PatternLevel> = canonical
            .split(LEVEL_SEPARATOR)
            .map(|level| match level {
                "*" => PatternLevel::One,
                ">" => PatternLevel::Rest,
                other => PatternLevel::Literal(other.into()),
            })
            .collect();
        while levels.ends_with(&[PatternLevel::Rest, PatternLevel::Rest]) {
            levels.pop();
        }
        let rests = levels.iter().filter(|level| **level == PatternLevel::Rest).count();
        if rests > 1 || (rests == 1 && levels.last() != Some(&PatternLevel::Rest)) {
            return Err(Refusal::new(
                Code::InvalidDestination,
                format!("\"{}\" has '>' before its last level; '>' must come last", text.trim()),
            ));
        }
        let literal = levels.iter().all(|level| matches!(level, PatternLevel::Literal(_))).then_some(whole);
        Ok(Self { kind, temporary, levels, literal })
    }

    /// A pattern over lasting destinations from its levels, for protocols with a grammar of their own: a level of text is
    /// taken as it is, even `*` and `>`.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] for levels that make no name, and for [`PatternLevel::Rest`] anywhere but at the end.
    pub fn from_levels(kind: Kind, levels: Vec<PatternLevel>) -> Result<Self, Refusal> {
        let rest = levels.iter().position(|level| *level == PatternLevel::Rest);
        if rest.is_some_and(|at| at + 1 != levels.len()) {
            return Err(Refusal::new(
                Code::InvalidDestination,
                "the wildcard for all further levels must come last",
            ));
        }
        let literal = levels.iter().all(|level| matches!(level, PatternLevel::Literal(_)));
        let mut pattern = Self { kind, temporary: false, levels, literal: None };
        let whole = Destination::from_canonical(kind, false, &pattern.canonical())?;
        let plain = pattern.levels.iter().all(|level| match level {
            PatternLevel::Literal(text) => !text.contains(LEVEL_SEPARATOR),
            PatternLevel::One | PatternLevel::Rest => true,
        });
        if !plain {
            return Err(Refusal::new(Code::InvalidDestination, "a level holds no NUL"));
        }
        pattern.literal = literal.then_some(whole);
        Ok(pattern)
    }

    /// Appends the stored form: kind, then each level as one byte that says what it is and, for text, its length and
    /// bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.kind == Kind::Topic) | u8::from(self.temporary) << 1);
        for level in &self.levels {
            match level {
                PatternLevel::Literal(text) => {
                    out.push(0);
                    varint::write(out, text.len() as u64);
                    out.extend_from_slice(text.as_bytes());
                }
                PatternLevel::One => out.push(1),
                PatternLevel::Rest => out.push(2),
            }
        }
    }

    /// Reads the stored form, which takes all of `input`; `None` if it is not one.
    #[must_use]
    pub fn decode(input: &[u8]) -> Option<Self> {
        let (&head, mut rest) = input.split_first()?;
        let mut levels = Vec::new();
        while let Some((&what, after)) = rest.split_first() {
            rest = after;
            levels.push(match what {
                0 => {
                    let (length, used) = varint::read(rest)?;
                    let (text, after) = rest.get(used..)?.split_at_checked(usize::try_from(length).ok()?)?;
                    rest = after;
                    PatternLevel::Literal(std::str::from_utf8(text).ok()?.into())
                }
                1 => PatternLevel::One,
                2 => PatternLevel::Rest,
                _ => return None,
            });
        }
        let kind = if head & 1 != 0 { Kind::Topic } else { Kind::Queue };
        let pattern = Self::from_levels(kind, levels).ok()?;
        let literal = match pattern.literal {
            Some(literal) => {
                Some(Destination::from_canonical(kind, head & 2 != 0, literal.canonical()).ok()?)
            }
            None => None,
        };
        Some(Self { temporary: head & 2 != 0, literal, ..pattern })
    }

    /// Parses the qualified form of configuration files (`topic://a.>`); without a prefix it takes `default`.
    ///
    /// # Errors
    /// As [`Pattern::from_dotted`].
    pub fn parse_qualified(text: &str, default: Kind) -> Result<Self, Refusal> {
        let (kind, temporary, name) = crate::destination::split_qualified(text, default);
        Self::from_dotted(kind, temporary, name)
    }

    /// Queue or topic.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it names temporary destinations.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The levels.
    #[must_use]
    pub fn levels(&self) -> &[PatternLevel] {
        &self.levels
    }

    /// The one destination this pattern names, if it holds no wildcard.
    #[must_use]
    pub fn as_literal(&self) -> Option<&Destination> {
        self.literal.as_ref()
    }

    /// Whether `destination` is of this kind and its name matches.
    #[must_use]
    pub fn matches(&self, destination: DestinationRef<'_>) -> bool {
        self.kind == destination.kind
            && self.temporary == destination.temporary
            && self.matches_name(destination.canonical)
    }

    /// Whether the canonical `name` matches, whatever the kind.
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        let mut names = name.split(LEVEL_SEPARATOR);
        for level in &self.levels {
            match level {
                PatternLevel::Rest => return true,
                PatternLevel::One => {
                    if names.next().is_none() {
                        return false;
                    }
                }
                PatternLevel::Literal(text) => {
                    if names.next() != Some(text) {
                        return false;
                    }
                }
            }
        }
        names.next().is_none()
    }

    /// The canonical text, wildcards as `*` and `>`.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        for (index, level) in self.levels.iter().enumerate() {
            if index > 0 {
                text.push(LEVEL_SEPARATOR);
            }
            text.push_str(match level {
                PatternLevel::Literal(literal) => literal,
                PatternLevel::One => "*",
                PatternLevel::Rest => ">",
            });
        }
        text
    }
}

impl From<Destination> for Pattern {
    /// The pattern that matches this destination only, even if a level of it looks like a wildcard.
    fn from(destination: Destination) -> Self {
        let levels = destination.levels().map(|level| PatternLevel::Literal(level.into())).collect();
        Self {
            kind: destination.kind(),
            temporary: destination.is_temporary(),
            levels,
            literal: Some(destination),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = if self.temporary { "temp-" } else { "" };
        write!(f, "{prefix}{}://{}", self.kind.word(), dotted(&self.canonical()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn wildcards_match_as_activemq_users_know_them() {
        for (pattern, yes, no) in [
            ("A.*", &["A.B", "A."][..], &["A", "A.B.C"][..]),
            ("A.*.C", &["A.B.C"], &["A.C", "A.B.X.C"]),
            ("A.>", &["A", "A.B", "A.B.C"], &["AB", "B.A"]),
            ("A.*.>", &["A.B", "A.B.C"], &["A"]),
            (">", &["A", "A.B", ".x"], &[]),
            ("A*", &["A*"], &["AB", "A"]),
            ("A.>.>", &["A", "A.B"], &["B"]),
        ] {
            let pattern = Pattern::from_dotted(Kind::Topic, false, pattern).unwrap();
            for name in yes {
                assert!(pattern.matches(Destination::topic(name).as_ref()), "{pattern} {name}");
                assert!(!pattern.matches(Destination::queue(name).as_ref()));
            }
            for name in no {
                assert!(!pattern.matches(Destination::topic(name).as_ref()), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn levels_of_any_text_are_kept_and_stored() {
        let text = |text: &str| PatternLevel::Literal(text.into());
        for levels in [
            vec![text("a"), PatternLevel::One, PatternLevel::Rest],
            vec![text("*"), text(">"), text("")],
            vec![text(""), text("ü")],
            vec![PatternLevel::Rest],
        ] {
            let pattern = Pattern::from_levels(Kind::Topic, levels.clone()).unwrap();
            assert_eq!(pattern.levels(), levels);
            let mut stored = Vec::new();
            pattern.encode(&mut stored);
            assert_eq!(Pattern::decode(&stored), Some(pattern));
            for cut in 0..stored.len() {
                assert_ne!(Pattern::decode(&stored[..cut]), Pattern::decode(&stored));
            }
        }
        let refusal = Pattern::from_levels(Kind::Topic, vec![PatternLevel::Rest, text("a")]).unwrap_err();
        assert_eq!(refusal.code, Code::InvalidDestination);
        assert!(Pattern::from_levels(Kind::Topic, vec![text("a\0b")]).is_err());
    }

    #[test]
    fn rest_before_the_end_is_refused() {
        let refusal = Pattern::from_dotted(Kind::Topic, false, "A.>.C").unwrap_err();
        assert_eq!(refusal.code, Code::InvalidDestination);
    }
}
