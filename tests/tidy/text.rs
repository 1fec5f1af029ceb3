//! Reading Rust as text: what is code and what is comment, which words and which paths it names.

/// Rust source with comments blanked, and strings too unless they are kept. Lines stay where they are.
pub(crate) fn stripped(text: &str, keep_strings: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let identifier_before = out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let (length, keep) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment(rest), false)
        } else if let Some(length) = raw_string(rest).filter(|_| !identifier_before) {
            (length, keep_strings)
        } else if first == '"' {
            (quoted(rest, '"'), keep_strings)
        } else if first == '\'' && is_character(rest) {
            (quoted(rest, '\''), keep_strings)
        } else {
            (first.len_utf8(), true)
        };
        let (piece, behind) = rest.split_at(length);
        if keep {
            out.push_str(piece);
        } else {
            out.push(' ');
            out.extend(piece.chars().filter(|c| *c == '\n'));
        }
        rest = behind;
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let start = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = start.bytes().take_while(|byte| *byte == b'#').count();
    let body = start.get(hashes..)?.strip_prefix('"')?;
    let end = body.find(&format!("\"{}", "#".repeat(hashes)))?;
    Some(text.len() - body.len() + end + 1 + hashes)
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character and not a lifetime.
fn is_character(text: &str) -> bool {
    let mut after = text.chars().skip(1);
    matches!((after.next(), after.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

/// The words of which identifiers and texts are made: `AMQPriority`, `amq_priority` and `amq-priority` have two.
pub(crate) fn words(line: &str) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let mut found = vec![String::new()];
    for (at, c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at));
        let after = chars.get(at + 1);
        let begins = c.is_uppercase()
            && (before.is_some_and(|b| b.is_lowercase() || b.is_numeric())
                || before.is_some_and(|b| b.is_uppercase()) && after.is_some_and(|a| a.is_lowercase()));
        if begins || !c.is_alphanumeric() {
            found.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphanumeric(), found.last_mut()) {
            word.extend(c.to_lowercase());
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

/// The paths that code names below `std`, groups of a `use` unfolded.
pub(crate) fn standard_paths(code: &str) -> Vec<String> {
    fn unfold(text: &str, prefix: &str, paths: &mut Vec<String>) -> usize {
        let mut path = prefix.to_owned();
        let mut at = 0;
        while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
            match c {
                '{' => {
                    at += 1;
                    loop {
                        at += unfold(text.get(at..).unwrap_or_default(), &path, paths);
                        // `as` and what follows it does not matter.
                        at += text.get(at..).and_then(|rest| rest.find([',', '}'])).unwrap_or(0) + 1;
                        if text.get(at - 1..at) != Some(",") {
                            return at;
                        }
                    }
                }
                c if c.is_alphanumeric() || c == '_' || c == ':' => path.push(c),
                c if c.is_whitespace() && (path == prefix || path.ends_with("::")) => {}
                _ => break,
            }
            at += c.len_utf8();
        }
        paths.push(path);
        at
    }
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("std::") {
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            unfold(code.get(at + 5..).unwrap_or_default(), "std::", &mut paths);
        }
    }
    paths
}

#[test]
fn comments_and_strings_are_told_from_code() {
    let text = "a /* b /* c */ d */ e // f\n'\"' g \"h \\\" // i\" 'k: r#\"l\"#; m'\\''n";
    assert_eq!(stripped(text, false), "a   e  \n  g   'k:  ; m n");
    assert_eq!(stripped(text, true), "a   e  \n'\"' g \"h \\\" // i\" 'k: r#\"l\"#; m'\\''n");
}

#[test]
fn names_are_made_of_words() {
    assert_eq!(
        words("AMQPriority amq-priority Amqp10Frame"),
        ["amq", "priority", "amq", "priority", "amqp10", "frame"]
    );
}

#[test]
fn groups_of_a_use_are_unfolded() {
    let paths = standard_paths(
        "use std::{fs::{self as f, File}, time::Duration};\nlet x = std::net::TcpStream::connect(y);",
    );
    assert_eq!(
        paths,
        ["std::fs::self", "std::fs::File", "std::time::Duration", "std::net::TcpStream::connect"]
    );
}
