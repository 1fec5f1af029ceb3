//! Topic names and topic filters: their grammar, `$share`, and what matches what (4.7, 4.8.2).
//!
//! [`matches()`] is the plain reading of the specification, for clients and tests; a broker matches by other means.

use std::fmt;

use crate::reason::Reason;

/// How long and how deep a name or filter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the text.
    pub bytes_max: usize,
    /// Levels, of which there is always one.
    pub levels_max: usize,
}

impl Bounds {
    /// What the protocol itself allows.
    pub const PROTOCOL: Self = Self { bytes_max: 65_535, levels_max: 65_536 };
}

/// Why a text is no topic name or no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterError {
    /// It is empty [5: 4.7.3-1].
    Empty,
    /// It is longer than allowed.
    TooLong,
    /// It has more levels than allowed.
    TooDeep,
    /// It holds U+0000 [5: 4.7.3-2].
    Nul,
    /// A wildcard stands in a topic name [5: 3.3.2-2].
    WildcardInName,
    /// `#` is not alone in the last level [5: 4.7.1-1].
    MultiLevelMisplaced,
    /// `+` is not alone in its level [5: 4.7.1-2].
    SingleLevelMisplaced,
    /// A `$share/` is not followed by a name, a slash and a filter [5: 4.8.2-1, 4.8.2-2].
    ShareIncomplete,
    /// The name of a share holds a wildcard [5: 4.8.2-2].
    ShareNameInvalid,
}

impl FilterError {
    /// What is wrong, for people: a fragment of a sentence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::TooLong => "it is too long",
            Self::TooDeep => "it has too many levels",
            Self::Nul => "it holds U+0000",
            Self::WildcardInName => "a topic name holds a wildcard",
            Self::MultiLevelMisplaced => "a # is not alone in the last level",
            Self::SingleLevelMisplaced => "a + is not alone in its level",
            Self::ShareIncomplete => "a $share/ is not followed by a name, a slash and a filter",
            Self::ShareNameInvalid => "the name of a share holds a wildcard",
        }
    }

    /// What to tell a client that subscribes.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::WildcardInName => Reason::TopicNameInvalid,
            _ => Reason::TopicFilterInvalid,
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for FilterError {}

/// A level of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level<'a> {
    /// This text, which may be empty.
    Literal(&'a str),
    /// `+`: any one level.
    Any,
    /// `#`: any number of levels, none included.
    Rest,
}

/// A valid filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Filter<'a> {
    text: &'a str,
    share: Option<&'a str>,
    pattern: &'a str,
}

impl<'a> Filter<'a> {
    /// Reads a filter, shared or not. The bounds hold for the whole text and for the levels behind `$share/NAME/`.
    ///
    /// # Errors
    /// It is none, or is beyond the bounds.
    pub fn parse(text: &'a str, bounds: Bounds) -> Result<Self, FilterError> {
        if text.len() > bounds.bytes_max {
            return Err(FilterError::TooLong);
        }
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(FilterError::Nul);
        }
        let (share, pattern) = match text.strip_prefix("$share/") {
            None => (None, text),
            Some(shared) => {
                let (name, pattern) = shared.split_once('/').ok_or(FilterError::ShareIncomplete)?;
                if name.is_empty() || pattern.is_empty() {
                    return Err(FilterError::ShareIncomplete);
                }
                if name.contains(['+', '#']) {
                    return Err(FilterError::ShareNameInvalid);
                }
                (Some(name), pattern)
            }
        };
        if pattern.is_empty() {
            return Err(FilterError::Empty);
        }
        let mut depth = 0;
        let mut ended = false;
        for level in pattern.split('/') {
            depth += 1;
            if ended || (level.len() > 1 && level.contains('#')) {
                return Err(FilterError::MultiLevelMisplaced);
            }
            if level.len() > 1 && level.contains('+') {
                return Err(FilterError::SingleLevelMisplaced);
            }
            ended = level == "#";
            if depth > bounds.levels_max {
                return Err(FilterError::TooDeep);
            }
        }
        Ok(Self { text, share, pattern })
    }

    /// All of it, as it came: what UNSUBSCRIBE compares.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The name of the share, if it is shared.
    #[must_use]
    pub const fn share(&self) -> Option<&'a str> {
        self.share
    }

    /// What is compared with topic names: without `$share/NAME/`.
    #[must_use]
    pub const fn pattern(&self) -> &'a str {
        self.pattern
    }

    /// The levels of the pattern.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = Level<'a>> + Clone + use<'a> {
        self.pattern.split('/').map(|level| match level {
            "+" => Level::Any,
            "#" => Level::Rest,
            literal => Level::Literal(literal),
        })
    }

    /// Whether it holds a wildcard.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        memchr::memchr2(b'+', b'#', self.pattern.as_bytes()).is_some()
    }

    /// Whether a valid topic name matches.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        // [5: 4.7.2-1] [3: 4.7.2-1] What a server calls its own is not found by a wildcard at the beginning.
        if topic.starts_with('$') && self.pattern.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.split('/');
        for level in self.levels() {
            match (level, names.next()) {
                // 4.7.1.2: it stands for the level above, too.
                (Level::Rest, _) => return true,
                (Level::Any, Some(_)) => {}
                (Level::Literal(literal), Some(name)) if literal == name => {}
                (Level::Any | Level::Literal(_), _) => return false,
            }
        }
        names.next().is_none()
    }
}

/// Whether a filter, shared or not, matches a topic name. What is no filter and what is no name matches nothing.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    check_name(topic, Bounds::PROTOCOL).is_ok()
        && Filter::parse(filter, Bounds::PROTOCOL).is_ok_and(|filter| filter.matches(topic))
}

/// That a text is a topic name within bounds.
///
/// # Errors
/// It is none, or is beyond the bounds.
pub fn check_name(topic: &str, bounds: Bounds) -> Result<(), FilterError> {
    let bytes = topic.as_bytes();
    if bytes.is_empty() {
        return Err(FilterError::Empty);
    }
    if bytes.len() > bounds.bytes_max {
        return Err(FilterError::TooLong);
    }
    match memchr::memchr3(0, b'+', b'#', bytes).and_then(|at| bytes.get(at)) {
        None => {}
        Some(0) => return Err(FilterError::Nul),
        Some(_) => return Err(FilterError::WildcardInName),
    }
    if memchr::memchr_iter(b'/', bytes).count() >= bounds.levels_max {
        return Err(FilterError::TooDeep);
    }
    Ok(())
}

/// The levels of a topic name.
pub fn name_levels(topic: &str) -> impl DoubleEndedIterator<Item = &str> + Clone {
    topic.split('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_whole_levels_mqtt5_4_7_1() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/#", "sports", false),
            ("#", "a/b/c", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/tennis/#", "sport/tennis", true),
            ("a//b", "a//b", true),
            ("a/+/b", "a//b", true),
            ("A", "a", false),
            ("a", "a/", false),
            ("a/", "a", false),
            (" a", "a", false),
            ("$share/g/a/#", "a", true),
            ("$share/g/a", "$share/g/a", false),
            ("$shared/g", "$shared/g", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn wildcards_at_the_beginning_do_not_find_the_servers_own_topics_mqtt5_4_7_2_1() {
        for (filter, topic, expected) in [
            ("#", "$SYS/uptime", false),
            ("+/uptime", "$SYS/uptime", false),
            ("$SYS/#", "$SYS/uptime", true),
            ("$SYS/+", "$SYS/uptime", true),
            ("$share/g/#", "$SYS/uptime", false),
            ("$share/g/$SYS/#", "$SYS/uptime", true),
            ("a/#", "a/$b", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_mqtt5_4_7_1_1() {
        for (text, expected) in [
            ("", FilterError::Empty),
            ("sport/tennis#", FilterError::MultiLevelMisplaced),
            ("sport/tennis/#/ranking", FilterError::MultiLevelMisplaced),
            ("##", FilterError::MultiLevelMisplaced),
            ("#/", FilterError::MultiLevelMisplaced),
            ("sport+", FilterError::SingleLevelMisplaced),
            ("a/+b/c", FilterError::SingleLevelMisplaced),
            ("++", FilterError::SingleLevelMisplaced),
            ("a\0", FilterError::Nul),
            ("$share/", FilterError::ShareIncomplete),
            ("$share/g", FilterError::ShareIncomplete),
            ("$share/g/", FilterError::ShareIncomplete),
            ("$share//a", FilterError::ShareIncomplete),
            ("$share/g+/a", FilterError::ShareNameInvalid),
            ("$share/#/a", FilterError::ShareNameInvalid),
            ("a/b/c/d", FilterError::TooDeep),
            ("abcdefghijklmnopqrstuvwxyz", FilterError::TooLong),
        ] {
            let bounds = Bounds { bytes_max: 25, levels_max: 3 };
            assert_eq!(Filter::parse(text, bounds), Err(expected), "{text}");
        }
        for text in ["/", "a/b/c", "$share/g/a/b/c", "$share", "$SYS", "+/+/#", "//"] {
            assert!(Filter::parse(text, Bounds { bytes_max: 25, levels_max: 3 }).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_topic_name_is_refused_mqtt5_4_7_3_1() {
        let bounds = Bounds { bytes_max: 9, levels_max: 3 };
        for (text, expected) in [
            ("", Err(FilterError::Empty)),
            ("a/+", Err(FilterError::WildcardInName)),
            ("a#", Err(FilterError::WildcardInName)),
            ("a\0", Err(FilterError::Nul)),
            ("a/b/c/d", Err(FilterError::TooDeep)),
            ("0123456789", Err(FilterError::TooLong)),
            ("a/b/c", Ok(())),
            ("/", Ok(())),
        ] {
            assert_eq!(check_name(text, bounds), expected, "{text}");
        }
    }
}
