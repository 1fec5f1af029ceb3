//! The tables of `docs/mqtt.md`: every normative statement of both specifications, and the test that shows it.

use std::collections::BTreeSet;

use super::pages::quoted_words;
use super::{TREE, judge, read};

/// Sections with statements, and the numbers of the first and the last one.
type Appendix = &'static [(&'static str, u32, u32)];

/// MQTT 3.1.1, appendix B.
const V311: Appendix = &[
    ("1.5.3", 1, 3),
    ("2.2.2", 1, 2),
    ("2.3.1", 1, 7),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 24),
    ("3.1.3", 1, 11),
    ("3.1.4", 1, 5),
    ("3.2.0", 1, 1),
    ("3.2.2", 1, 6),
    ("3.3.1", 1, 12),
    ("3.3.2", 1, 3),
    ("3.3.4", 1, 1),
    ("3.3.5", 1, 2),
    ("3.6.1", 1, 1),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 4),
    ("3.8.4", 1, 6),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.12.4", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.4", 1, 3),
    ("4.1.0", 1, 2),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 2),
    ("4.3.3", 1, 2),
    ("4.4.0", 1, 1),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.1", 1, 3),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.0", 1, 2),
    ("6.0.0", 1, 4),
    ("7.0.0", 1, 2),
    ("7.1.1", 1, 1),
    ("7.1.2", 1, 1),
];

/// MQTT 5.0, appendix B.
const V5: Appendix = &[
    ("1.5.4", 1, 3),
    ("1.5.5", 1, 1),
    ("1.5.7", 1, 1),
    ("2.1.3", 1, 1),
    ("2.2.1", 2, 6),
    ("2.2.2", 1, 1),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 30),
    ("3.1.3", 1, 12),
    ("3.1.4", 1, 6),
    ("3.2.0", 1, 2),
    ("3.2.2", 1, 22),
    ("3.3.1", 1, 13),
    ("3.3.2", 1, 20),
    ("3.3.4", 1, 10),
    ("3.4.2", 1, 3),
    ("3.5.2", 1, 3),
    ("3.6.1", 1, 1),
    ("3.6.2", 1, 3),
    ("3.7.2", 1, 3),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 5),
    ("3.8.4", 1, 8),
    ("3.9.2", 1, 2),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.11.2", 1, 2),
    ("3.11.3", 1, 2),
    ("3.12.4", 1, 1),
    ("3.14.0", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.2", 1, 4),
    ("3.14.4", 1, 3),
    ("3.15.1", 1, 1),
    ("3.15.2", 1, 3),
    ("4.1.0", 1, 2),
    ("4.2", 1, 1),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 5),
    ("4.3.3", 1, 13),
    ("4.4.0", 1, 2),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.0", 1, 1),
    ("4.7.1", 1, 2),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.2", 1, 6),
    ("4.9.0", 1, 3),
    ("4.12.0", 1, 7),
    ("4.12.1", 1, 2),
    ("4.13.1", 1, 1),
    ("4.13.2", 1, 1),
    ("6.0.0", 1, 4),
];

fn statements(appendix: Appendix) -> BTreeSet<String> {
    let numbers = |&(section, first, last): &(&str, u32, u32)| {
        (first..=last).map(move |number| format!("{section}-{number}")).collect::<Vec<_>>()
    };
    appendix.iter().flat_map(numbers).collect()
}

/// Titles of conversations, with and without the clauses that they cite.
fn titles() -> BTreeSet<String> {
    let mut titles = BTreeSet::new();
    for path in TREE.files.iter().filter(|path| path.starts_with("protocols/mqtt/transcripts/")) {
        for title in read(path).lines().filter_map(|line| line.strip_prefix("## ").map(str::to_owned)) {
            titles.extend(title.split_once(" [").map(|(words, _)| words.to_owned()));
            titles.insert(title);
        }
    }
    titles
}

/// Every test of the tree.
fn tests() -> BTreeSet<&'static str> {
    let mut tests = BTreeSet::new();
    for source in &TREE.rust {
        let mut marked = false;
        for line in source.code.lines().map(str::trim) {
            marked |= line == "#[test]";
            if let Some(head) = line.strip_prefix("fn ").filter(|_| std::mem::take(&mut marked)) {
                tests.extend(head.split('(').next());
            }
        }
    }
    tests
}

/// What is wrong with the column that names tests.
fn judge_evidence(evidence: &str, titles: &BTreeSet<String>, tests: &BTreeSet<&str>) -> Option<String> {
    // Not all that is quoted in a reason is a test, but a name of several words is.
    let mut named = quoted_words(evidence).into_iter().filter(|name| name.contains('_')).peekable();
    let conversations = evidence.split('“').skip(1).map(|rest| rest.split('”').next().unwrap_or_default());
    let mut conversations = conversations.peekable();
    if !evidence.starts_with("– ") && named.peek().is_none() && conversations.peek().is_none() {
        return Some("names no test and no reason".to_owned());
    }
    let lost = named.find(|name| !tests.contains(name)).map(|name| format!("{name} is no test"));
    lost.or_else(|| {
        Some(format!("no conversation “{}”", conversations.find(|title| !titles.contains(*title))?))
    })
}

#[test]
fn the_page_of_mqtt_lists_every_statement_once_with_a_test_that_exists() {
    let page = read("docs/mqtt.md");
    let titles = titles();
    let tests = tests();
    let mut problems = Vec::new();
    for (heading, appendix) in [("### MQTT 3.1.1", V311), ("### MQTT 5.0", V5)] {
        let table = page.split(heading).nth(1).unwrap_or_default();
        let table = table.split("\n#").next().unwrap_or_default();
        let mut missing = statements(appendix);
        for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Statement")) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [number, words, evidence] = cells.as_slice() else {
                problems.push(format!("{heading}: {row}"));
                continue;
            };
            if !missing.remove(*number) {
                problems.push(format!("{heading}: {number} is listed twice, or is no statement"));
            }
            if words.is_empty() {
                problems.push(format!("{heading}: {number} says nothing"));
            }
            if let Some(problem) = judge_evidence(evidence, &titles, &tests) {
                problems.push(format!("{heading}: {number}: {problem}"));
            }
        }
        problems.extend(missing.iter().map(|number| format!("{heading}: {number} is not listed")));
    }
    judge("docs/mqtt.md", &problems);
}

#[test]
fn conversations_cite_statements_that_exist() {
    let (v311, v5) = (statements(V311), statements(V5));
    let mut problems = Vec::new();
    for title in titles() {
        for (mark, known) in [("[3: ", &v311), ("[5: ", &v5)] {
            for list in title.split(mark).skip(1).filter_map(|rest| rest.split(']').next()) {
                for number in
                    list.split(", ").filter(|number| number.contains('-') && !known.contains(*number))
                {
                    problems.push(format!("{title}: {mark}{number}] is no statement"));
                }
            }
        }
    }
    judge("clauses in protocols/mqtt/transcripts", &problems);
}
