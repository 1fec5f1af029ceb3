//! Wildcards over names: `*` is exactly one level, `>` at the end is the level before it and everything below.

use crate::destination::{Destination, DestinationRef, Kind, LEVEL_SEPARATOR, canonical_from_dotted, dotted};
use crate::error::{Code, Refusal};

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
    fn rest_before_the_end_is_refused() {
        let refusal = Pattern::from_dotted(Kind::Topic, false, "A.>.C").unwrap_err();
        assert_eq!(refusal.code, Code::InvalidDestination);
    }
}
