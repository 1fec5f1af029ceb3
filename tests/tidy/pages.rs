//! Pages that tell the truth: links lead somewhere, lists are complete, examples are read by the code they explain.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use sabir::config::{Config, Sources};
use sabir_model::error::{Class, Code};

use super::{Manifest, TREE, has_extension, judge, markdown, read};

/// A page without its fenced blocks: they hold other languages.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// The fenced blocks of one language, each with the line it starts at.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut inside: Option<bool> = None;
    for (number, line) in text.lines().enumerate() {
        match (inside, line.trim_start().strip_prefix("```")) {
            (None, Some(what)) => {
                inside = Some(what.trim() == language);
                if what.trim() == language {
                    found.push((number + 2, String::new()));
                }
            }
            (Some(_), Some(_)) => inside = None,
            (Some(true), None) => {
                if let Some((_, block)) = found.last_mut() {
                    block.push_str(line);
                    block.push('\n');
                }
            }
            _ => {}
        }
    }
    found
}

/// What stands between backticks.
pub(super) fn quoted_words(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The targets of inline links and of link definitions.
fn links(text: &str) -> Vec<&str> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let defined =
        text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split("]: ").nth(1));
    inline.chain(defined).map(str::trim).collect()
}

/// The anchors that headings get.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
        })
        .collect()
}

/// `path` as seen from `folder`, without `.` and `..`; `None` if it leads out of the tree.
fn resolved(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

fn exists(path: &str) -> bool {
    path.is_empty() || TREE.files.contains(path) || TREE.folders.contains(path)
}

#[test]
fn links_in_pages_lead_somewhere() {
    let mut problems = Vec::new();
    for page in markdown() {
        let text = prose(&read(page));
        let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) =
                link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { Some(page.clone()) } else { resolved(folder, path) };
            let Some(target) = target.filter(|target| exists(target)) else {
                problems.push(format!("{page}: {link}"));
                continue;
            };
            let lost = anchor.filter(|_| has_extension(&target, "md"));
            if lost.is_some_and(|anchor| !anchors(&prose(&read(&target))).contains(anchor)) {
                problems.push(format!("{page}: {link}: no such heading"));
            }
        }
    }
    judge("broken links", &problems);
}

#[test]
fn pages_that_are_named_anywhere_exist() {
    let mut problems = Vec::new();
    for path in &TREE.files {
        let is_text = ["rs", "md", "yaml", "toml", "py", "sh", "mjs", "rb", "pl"]
            .iter()
            .any(|e| has_extension(path, e));
        if !is_text && path.contains('.') {
            continue;
        }
        let Ok(text) = fs::read_to_string(super::root().join(path)) else { continue };
        for (at, _) in text.match_indices("docs/") {
            let rest = text.get(at..).unwrap_or_default();
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.'))
                .collect();
            let name = name.trim_end_matches(['.', '/']);
            if has_extension(name, "md") && !exists(name) {
                problems.push(format!("{path}: {name}"));
            }
        }
    }
    judge("pages that are spoken of and do not exist", &problems);
}

fn class_word(class: Class) -> &'static str {
    match class {
        Class::Malformed => "malformed",
        Class::Violation => "violation",
        Class::Refused => "refused",
        Class::Unavailable => "unavailable",
    }
}

#[test]
fn the_page_of_errors_lists_every_code_with_its_class_and_meaning() {
    let page = read("docs/errors.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut problems = Vec::new();
    for code in Code::ALL {
        let name = format!("`{code}`");
        let class = class_word(code.class());
        match rows.iter().find(|row| row.first() == Some(&name.as_str())).map(Vec::as_slice) {
            Some([_, at, meaning, advice])
                if *at == class && *meaning == code.meaning().trim() && !advice.is_empty() => {}
            _ => problems
                .push(format!("| {name} | {class} | {} | what a client should do |", code.meaning().trim())),
        }
    }
    let listed: Vec<&str> = rows.iter().filter_map(|row| row.first().copied()).collect();
    let codes: Vec<String> = Code::ALL.iter().map(|code| format!("`{code}`")).collect();
    if problems.is_empty() && listed != codes {
        problems.push("rows that are no codes, or another order than Code::ALL has".to_owned());
    }
    judge("docs/errors.md should have these rows", &problems);
}

#[test]
fn configuration_in_pages_is_read_without_complaint() {
    let mut problems = Vec::new();
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tidy-{}.toml", std::process::id()));
    for page in markdown() {
        for (line, block) in blocks(&read(page), "toml") {
            fs::write(&file, &block).expect("the target directory can be written");
            if let Err(found) = Config::load(&Sources { file: Some(file.clone()), ..Sources::default() }) {
                problems
                    .extend(found.iter().map(|problem| format!("{page}, block at line {line}: {problem}")));
            }
        }
    }
    // What is left behind is in the target directory and a few bytes.
    let _ = fs::remove_file(&file);
    judge("examples that are no configuration", &problems);
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let page = read("docs/dependencies.md");
    let reasons: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .collect();
    let manifests = Manifest::all();
    let used: BTreeSet<&str> =
        manifests.iter().flat_map(Manifest::dependencies).filter(|name| !name.starts_with("sabir")).collect();
    let mut problems: Vec<String> = used
        .iter()
        .filter(|name| !reasons.contains(name))
        .map(|name| format!("{name} is not explained"))
        .collect();
    problems.extend(
        reasons.iter().filter(|name| !used.contains(*name)).map(|name| format!("{name} is not used")),
    );
    judge("docs/dependencies.md", &problems);
}

#[test]
fn the_code_map_names_what_is_there_and_all_of_it() {
    let page = prose(&read("ARCHITECTURE.md"));
    let named: BTreeSet<&str> = quoted_words(&page)
        .into_iter()
        .filter(|word| word.contains('/') && !word.contains("://") && !word.starts_with('/'))
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_')))
        .map(|word| word.trim_end_matches('/'))
        .collect();
    let mut problems: Vec<String> =
        named.iter().filter(|path| !exists(path)).map(|path| format!("{path} does not exist")).collect();
    for source in &TREE.rust {
        // Its folder will do; for tests and examples any folder above it but the outermost.
        let far = ["tests/", "/examples/"].iter().any(|part| source.path.contains(part));
        let mut above =
            source.path.match_indices('/').map(|(at, _)| source.path.get(..at).unwrap_or_default());
        let near = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let on_map = named.contains(source.path.as_str())
            || named.contains(near)
            || (far && above.any(|folder| folder.contains('/') && named.contains(folder)));
        if !on_map {
            problems.push(format!("{} is not on the map, nor is its folder", source.path));
        }
    }
    judge("ARCHITECTURE.md", &problems);
}

#[test]
fn every_invariant_names_what_keeps_it() {
    let page = read("ARCHITECTURE.md");
    let mut problems = Vec::new();
    let mut count = 0;
    for rest in page.split("*Invariant:*").skip(1) {
        let text = rest.split("\n\n").next().unwrap_or(rest);
        let text = text.split("\n- ").next().unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
        count += 1;
        let keepers =
            text.rsplit_once("Kept by").map(|(_, keepers)| quoted_words(keepers)).unwrap_or_default();
        if keepers.is_empty() {
            problems.push(format!("nothing keeps: {text}"));
        }
        for keeper in keepers {
            let is_test = TREE.rust.iter().any(|source| source.code.contains(&format!("fn {keeper}(")));
            let is_file = keeper.contains('/') && exists(keeper.trim_end_matches('/'));
            if !is_test && !is_file {
                problems.push(format!("{keeper} is no test: {text}"));
            }
        }
    }
    assert!(count > 0, "ARCHITECTURE.md states no invariant");
    judge("ARCHITECTURE.md", &problems);
}

#[test]
fn decisions_are_numbered_without_gaps_and_complete() {
    let mut problems = Vec::new();
    let decisions: Vec<&String> =
        TREE.files.iter().filter(|path| path.starts_with("docs/decisions/0")).collect();
    for (index, path) in decisions.iter().enumerate() {
        let number = format!("docs/decisions/{:04}-", index + 1);
        if !path.starts_with(&number) {
            problems.push(format!("{path}: {number} comes next"));
        }
        let text = read(path);
        for heading in ["## Context", "## Choice", "## Price", "## When to revisit"] {
            if !text.lines().any(|line| line == heading) {
                problems.push(format!("{path} has no {heading}"));
            }
        }
    }
    judge("docs/decisions", &problems);
}

#[test]
fn the_page_of_metrics_lists_every_metric() {
    fn names(text: &str) -> BTreeSet<&str> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = text.split(|c| !word(c)).filter(|w| w.starts_with("sabir_") || w.starts_with("process_"));
        words
            .filter(|w| !w.starts_with("sabir_broker") && !w.ends_with("_bucket") && *w != "sabir_store")
            .collect()
    }
    let page = read("docs/metrics.md");
    let source = read("src/admin/metrics.rs");
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let strings: String = source.split('"').skip(1).step_by(2).flat_map(|text| [text, " "]).collect();
    let (shown, listed) = (names(&strings), names(&page));
    let problems: Vec<String> = shown.symmetric_difference(&listed).map(|name| (*name).to_owned()).collect();
    judge("in only one of src/admin/metrics.rs and docs/metrics.md", &problems);
}
