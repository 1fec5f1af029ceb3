//! Regular expressions of `REGEX`, `REPLACE` and `SPLIT`: compiled with the selector, bounded in size, linear in the text.
//!
//! The engine has neither back-references nor look-around, which is what makes it linear. `\w`, `\d` and case-insensitivity
//! are about ASCII, as they are in Java.

use std::fmt::Write as _;

use regex_lite::{Regex, RegexBuilder};

/// Most bytes that one compiled expression may take, some 300 instructions: it bounds the work per character of text.
const COMPILED_BYTES_MAX: usize = 32 * 1024;
/// Deepest nesting of groups.
const NESTING_MAX: u32 = 32;
/// Longest text that `REPLACE` or a concatenation may make.
pub(super) const MADE_TEXT_BYTES_MAX: usize = 256 * 1024;

/// An expression that remembers how it was written.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Pattern {
    /// Compiles, or says why not.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .nest_limit(NESTING_MAX)
            .build()
            .map(|regex| Self { regex })
            .map_err(|error| error.to_string())
    }

    /// The expression as it was written.
    pub(super) fn text(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether it matches anywhere in `text`.
    pub(super) fn found_in(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// `text` with every match replaced; `None` if that grows beyond [`MADE_TEXT_BYTES_MAX`].
    pub(super) fn replace(&self, text: &str, with: &Template) -> Option<String> {
        let mut made = String::with_capacity(text.len().min(MADE_TEXT_BYTES_MAX));
        let mut from = 0;
        for captures in self.regex.captures_iter(text) {
            let whole = captures.get(0)?;
            made.push_str(text.get(from..whole.start())?);
            for part in &with.parts {
                match part {
                    Part::Text(literal) => made.push_str(literal),
                    Part::Group(index) => {
                        made.push_str(captures.get(*index).map_or("", |group| group.as_str()))
                    }
                }
            }
            from = whole.end();
            if made.len() > MADE_TEXT_BYTES_MAX {
                return None;
            }
        }
        made.push_str(text.get(from..)?);
        (made.len() <= MADE_TEXT_BYTES_MAX).then_some(made)
    }

    /// Hands the pieces of `text` to `visit` until it returns true, by the rules of Java's `String.split`: a match of no
    /// width at the start cuts nothing; a positive `limit` is the most pieces there are; a limit of zero drops empty
    /// pieces at the end. Returns whether `visit` returned true.
    pub(super) fn split(&self, text: &str, limit: i64, mut visit: impl FnMut(&str) -> bool) -> bool {
        let mut from = 0;
        let mut pieces = 0i64;
        // Empty pieces are held back until a longer one shows that they are not at the end.
        let mut held = 0u64;
        let mut hand_out = |piece: &str| {
            if limit == 0 && piece.is_empty() {
                held += 1;
                return false;
            }
            for _ in 0..std::mem::take(&mut held) {
                if visit("") {
                    return true;
                }
            }
            visit(piece)
        };
        for found in self.regex.find_iter(text) {
            if limit > 0 && pieces >= limit - 1 {
                break;
            }
            if found.end() == 0 {
                continue;
            }
            if hand_out(text.get(from..found.start()).unwrap_or_default()) {
                return true;
            }
            pieces += 1;
            from = found.end();
        }
        if from == 0 { visit(text) } else { hand_out(text.get(from..).unwrap_or_default()) }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(Box<str>),
    Group(usize),
}

/// What `REPLACE` puts in place of a match: `$1` and `${name}` stand for groups, `\` takes the next character as it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    text: Box<str>,
    parts: Box<[Part]>,
}

impl Template {
    /// Reads a replacement for matches of `pattern`, or says what is wrong.
    pub(super) fn new(text: &str, pattern: &Pattern) -> Result<Self, String> {
        let groups = pattern.regex.captures_len();
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(next) = chars.next() {
            let group = match next {
                '\\' => {
                    literal.push(chars.next().ok_or("a backslash at the end escapes nothing")?);
                    continue;
                }
                '$' => match chars.next() {
                    Some('{') => {
                        let mut name = String::new();
                        loop {
                            match chars.next() {
                                Some('}') => break,
                                Some(letter) => name.push(letter),
                                None => return Err("${ must end with }".to_owned()),
                            }
                        }
                        let index = pattern.regex.capture_names().position(|known| known == Some(&*name));
                        index.ok_or_else(|| format!("there is no group named {name:?}"))?
                    }
                    Some(digit) if digit.is_ascii_digit() => {
                        let mut index = digit.to_digit(10).map_or(0, |digit| digit as usize);
                        if index >= groups {
                            return Err(format!("there is no group {index}"));
                        }
                        // Further digits belong to the number only as long as there is such a group.
                        while let Some(digit) = chars.peek().and_then(|digit| digit.to_digit(10)) {
                            match index.saturating_mul(10).saturating_add(digit as usize) {
                                longer if longer < groups => index = longer,
                                _ => break,
                            }
                            chars.next();
                        }
                        index
                    }
                    _ => return Err("$ must be followed by the number or {name} of a group".to_owned()),
                },
                other => {
                    literal.push(other);
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Group(group));
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self { text: text.into(), parts: parts.into() })
    }

    /// The replacement as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Joins `left` and what `right` writes; `None` beyond [`MADE_TEXT_BYTES_MAX`].
pub(super) fn join(left: &str, right: impl std::fmt::Display) -> Option<String> {
    let mut made = String::from(left);
    write!(made, "{right}").ok()?;
    (made.len() <= MADE_TEXT_BYTES_MAX).then_some(made)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn split_follows_java() {
        let boo = "boo:and:foo";
        for (text, pattern, limit, expected) in [
            (boo, ":", 2, &["boo", "and:foo"][..]),
            (boo, ":", 5, &["boo", "and", "foo"]),
            (boo, ":", -2, &["boo", "and", "foo"]),
            (boo, "o", 5, &["b", "", ":and:f", "", ""]),
            (boo, "o", -2, &["b", "", ":and:f", "", ""]),
            (boo, "o", 0, &["b", "", ":and:f"]),
            (boo, "x", 0, &[boo]),
            (boo, ":", 1, &[boo]),
            ("", ",", 0, &[""]),
            (",a", ",", 0, &["", "a"]),
            (",", ",", 0, &[]),
            ("abc", "", 0, &["a", "b", "c"]),
            ("abc", "", -1, &["a", "b", "c", ""]),
        ] {
            let mut pieces = Vec::new();
            let stopped = Pattern::new(pattern).unwrap().split(text, limit, |piece| {
                pieces.push(piece.to_owned());
                false
            });
            assert_eq!(pieces, expected, "{text:?} {pattern:?} {limit}");
            assert!(!stopped);
        }
    }

    #[test]
    fn replacement_knows_groups_and_escapes() {
        for (pattern, with, text, expected) in [
            ("[,/]", ";", "1,2/3", "1;2;3"),
            ("(a)(b)", "$2$1", "abab", "baba"),
            ("(?<x>a)", "<${x}>", "banana", "b<a>n<a>n<a>"),
            ("a", r"\$\\", "a", r"$\"),
            ("(a)", "$12", "a", "a2"),
            ("(a)|(b)", "[$2]", "ab", "[][b]"),
        ] {
            let pattern = Pattern::new(pattern).unwrap();
            let with = Template::new(with, &pattern).unwrap();
            assert_eq!(pattern.replace(text, &with).unwrap(), expected);
        }
        let pattern = Pattern::new("(a)").unwrap();
        for bad in ["$2", "$x", "$", "${x}", "${x", "\\"] {
            Template::new(bad, &pattern).unwrap_err();
        }
    }

    #[test]
    fn what_replace_makes_is_bounded() {
        let pattern = Pattern::new("").unwrap();
        let with = Template::new(&"x".repeat(10_000), &pattern).unwrap();
        assert_eq!(pattern.replace(&"a".repeat(10_000), &with), None);
    }

    #[test]
    fn an_expression_that_would_grow_huge_is_refused() {
        Pattern::new("((a{100}){100}){100}").unwrap_err();
        Pattern::new(&"(".repeat(100)).unwrap_err();
        Pattern::new(&format!("{}{}", "(".repeat(100), ")".repeat(100))).unwrap_err();
    }
}
