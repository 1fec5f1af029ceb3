//! Wildcards over names: `*` is exactly one level, `>` at the end is the level before it and everything below.

use crate::destination::{
    Destination, DestinationRef, Kind, LEVEL_SEPARATOR, canonical_from_dotted, check_line, dotted,
};
use crate::error::{Code, Refusal};
use crate::varint;

/// What stands for the wildcards in a pattern's text: no name holds a line break.
const ONE: &str = "\r";
const REST: &str = "\n";

/// One level of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatternLevel<'a> {
    /// This very level.
    Literal(&'a str),
    /// Exactly one level, whatever it holds.
    One,
    /// Zero or more further levels; only at the end.
    Rest,
}

/// A destination or a wildcard over destinations of one kind. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(
    /// The destination, if there is no wildcard; else what has line breaks for wildcards. One text, for there may be a
    /// million patterns.
    Destination,
);

impl Pattern {
    /// Parses the dotted form, in which a whole level `*` or `>` is a wildcard.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] for a name that is no name, and for `>` anywhere but at the end.
    pub fn from_dotted(kind: Kind, temporary: bool, text: &str) -> Result<Self, Refusal> {
        let canonical = canonical_from_dotted(text)?;
        let mut levels: Vec<PatternLevel<'_>> = canonical
            .split(LEVEL_SEPARATOR)
            .map(|level| match level {
                "*" => PatternLevel::One,
                ">" => PatternLevel::Rest,
                other => PatternLevel::Literal(other),
            })
            .collect();
        while levels.ends_with(&[PatternLevel::Rest, PatternLevel::Rest]) {
            levels.pop();
        }
        let rests = levels.iter().filter(|level| **level == PatternLevel::Rest).count();
        if rests > 1 || (rests == 1 && levels.last() != Some(&PatternLevel::Rest)) {
            check_line(&canonical)?;
            return Err(Refusal::new(
                Code::InvalidDestination,
                format!("\"{}\" has '>' before its last level; '>' must come last", text.trim()),
            ));
        }
        Self::of_levels(kind, temporary, levels)
    }

    /// A pattern over lasting destinations from its levels, for protocols with a grammar of their own: a level of text is
    /// taken as it is, even `*` and `>`.
    ///
    /// # Errors
    /// [`Code::InvalidDestination`] for levels that make no name, and for [`PatternLevel::Rest`] anywhere but at the end.
    pub fn from_levels<'a>(
        kind: Kind,
        levels: impl IntoIterator<Item = PatternLevel<'a>>,
    ) -> Result<Self, Refusal> {
        Self::of_levels(kind, false, levels)
    }

    fn of_levels<'a>(
        kind: Kind,
        temporary: bool,
        levels: impl IntoIterator<Item = PatternLevel<'a>>,
    ) -> Result<Self, Refusal> {
        let invalid = |problem| Err(Refusal::new(Code::InvalidDestination, problem));
        let mut text = String::new();
        let (mut literal, mut ended) = (true, false);
        for (index, level) in levels.into_iter().enumerate() {
            if ended {
                return invalid("the wildcard for all further levels must come last");
            }
            if index > 0 {
                text.push(LEVEL_SEPARATOR);
            }
            match level {
                PatternLevel::Literal(level) if level.contains(LEVEL_SEPARATOR) => {
                    return invalid("a level holds no NUL");
                }
                PatternLevel::Literal(level) => {
                    check_line(level)?;
                    text.push_str(level);
                }
                PatternLevel::One => {
                    literal = false;
                    text.push_str(ONE);
                }
                PatternLevel::Rest => {
                    (literal, ended) = (false, true);
                    text.push_str(REST);
                }
            }
        }
        if literal {
            Destination::from_canonical(kind, temporary, &text)
        } else {
            Destination::wild(kind, temporary, &text)
        }
        .map(Self)
    }

    /// Appends the stored form: kind, then each level as one byte that says what it is and, for text, its length and
    /// bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.kind() == Kind::Topic) | u8::from(self.is_temporary()) << 1);
        for level in self.levels() {
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
                    PatternLevel::Literal(std::str::from_utf8(text).ok()?)
                }
                1 => PatternLevel::One,
                2 => PatternLevel::Rest,
                _ => return None,
            });
        }
        let kind = if head & 1 != 0 { Kind::Topic } else { Kind::Queue };
        Self::of_levels(kind, head & 2 != 0, levels).ok()
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
        self.0.kind()
    }

    /// Whether it names temporary destinations.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.0.is_temporary()
    }

    /// The levels.
    pub fn levels(&self) -> impl Iterator<Item = PatternLevel<'_>> + Clone {
        self.0.canonical().split(LEVEL_SEPARATOR).map(|level| match level {
            ONE => PatternLevel::One,
            REST => PatternLevel::Rest,
            text => PatternLevel::Literal(text),
        })
    }

    /// The one destination this pattern names, if it holds no wildcard.
    #[must_use]
    pub fn as_literal(&self) -> Option<&Destination> {
        (!self.0.is_wild()).then_some(&self.0)
    }

    /// Whether `destination` is of this kind and its name matches.
    #[must_use]
    pub fn matches(&self, destination: DestinationRef<'_>) -> bool {
        self.kind() == destination.kind
            && self.is_temporary() == destination.temporary
            && self.matches_name(destination.canonical)
    }

    /// Whether the canonical `name` matches, whatever the kind.
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        if let Some(destination) = self.as_literal() {
            return destination.canonical() == name;
        }
        let mut names = name.split(LEVEL_SEPARATOR);
        for level in self.levels() {
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
        match self.as_literal() {
            Some(destination) => destination.canonical().to_owned(),
            None => self.0.canonical().replace(ONE, "*").replace(REST, ">"),
        }
    }
}

impl From<Destination> for Pattern {
    /// The pattern that matches this destination only, even if a level of it looks like a wildcard.
    fn from(destination: Destination) -> Self {
        Self(destination)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefix = if self.is_temporary() { "temp-" } else { "" };
        write!(f, "{prefix}{}://{}", self.kind().word(), dotted(&self.canonical()))
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
        let text = PatternLevel::Literal;
        for levels in [
            vec![text("a"), PatternLevel::One, PatternLevel::Rest],
            vec![text("*"), text(">"), text("")],
            vec![text(""), text("ü")],
            vec![PatternLevel::Rest],
        ] {
            let pattern = Pattern::from_levels(Kind::Topic, levels.clone()).unwrap();
            assert_eq!(pattern.levels().collect::<Vec<_>>(), levels);
            let mut stored = Vec::new();
            pattern.encode(&mut stored);
            assert_eq!(Pattern::decode(&stored), Some(pattern));
            for cut in 0..stored.len() {
                assert_ne!(Pattern::decode(&stored[..cut]), Pattern::decode(&stored));
            }
        }
        let refusal = Pattern::from_levels(Kind::Topic, vec![PatternLevel::Rest, text("a")]).unwrap_err();
        assert_eq!(refusal.code, Code::InvalidDestination);
        for bad in ["a\0b", "\r", "a\n"] {
            assert!(Pattern::from_levels(Kind::Topic, [text(bad)]).is_err());
            assert!(Pattern::from_dotted(Kind::Topic, false, &format!("x.{bad}.x")).is_err());
        }
        assert_eq!(size_of::<Pattern>(), 24, "there may be a million");
    }

    #[test]
    fn rest_before_the_end_is_refused() {
        let refusal = Pattern::from_dotted(Kind::Topic, false, "A.>.C").unwrap_err();
        assert_eq!(refusal.code, Code::InvalidDestination);
    }
}
