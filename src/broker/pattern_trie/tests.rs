use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// `.` between levels, `*` and `>` as ActiveMQ's users write them.
fn levels(pattern: &str) -> Vec<Level<'_>> {
    pattern
        .split('.')
        .map(|level| match level {
            "*" => Level::One,
            ">" => Level::Rest,
            text => Level::Literal(text),
        })
        .collect()
}

fn name(dotted: &str) -> String {
    dotted.replace('.', "\0")
}

/// The definition.
fn matches(pattern: &str, name: &str, options: MatchOptions) -> bool {
    if options.hide_dollar && name.starts_with('$') && (pattern.starts_with(['*', '>'])) {
        return false;
    }
    let mut levels = name.split('.');
    for wanted in pattern.split('.') {
        match (wanted, levels.next()) {
            (">", _) => return true,
            (_, None) => return false,
            ("*", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

fn found<V: Copy + Ord>(table: &TopicTable<V>, dotted: &str, options: MatchOptions) -> Vec<V> {
    let mut found = Vec::new();
    table.for_each_match_with(&name(dotted), options, |value| found.push(*value));
    found.sort_unstable();
    found
}

const TABLE: [(&str, &[&str], &[&str]); 14] = [
    ("A", &["A"], &["B", "A.B", "", "A."]),
    ("A.B", &["A.B"], &["A", "A.B.C", "A.C"]),
    ("A.*", &["A.B", "A."], &["A", "A.B.C", ".A"]),
    ("A.*.C", &["A.B.C", "A..C"], &["A.C", "A.B.X.C", "A.B.D"]),
    ("A.>", &["A", "A.B", "A.B.C", "A."], &["AB", "B.A", ""]),
    ("A.*.>", &["A.B", "A.B.C", "A."], &["A", "B"]),
    (">", &["A", "A.B", "", ".", ".x"], &[]),
    ("*", &["A", ""], &["A.B", "."]),
    ("*.>", &["A", "A.B", ""], &[]),
    ("*.*", &["A.B", ".", "A."], &["A", "A.B.C"]),
    ("A*", &["A*"], &["AB", "A"]),
    ("A.B>", &["A.B>"], &["A.B", "A.B.C"]),
    ("*.B", &["A.B", ".B"], &["A.C", "B", "A.A.B"]),
    ("A..B", &["A..B"], &["A.B", "A.x.B"]),
];

#[test]
fn wildcards_match_as_the_table_says() {
    for (pattern, yes, no) in TABLE {
        let mut table = TopicTable::new();
        let handle = table.insert(&levels(pattern), 1);
        let mut index = NameIndex::new();
        for (dotted, expected) in yes.iter().map(|n| (n, true)).chain(no.iter().map(|n| (n, false))) {
            assert_eq!(
                matches(pattern, dotted, MatchOptions::default()),
                expected,
                "the definition: {pattern} {dotted}"
            );
            assert_eq!(
                !found(&table, dotted, MatchOptions::default()).is_empty(),
                expected,
                "{pattern} {dotted}"
            );
            index.insert(&name(dotted), ());
        }
        let mut names = BTreeSet::new();
        index.for_each_match(&levels(pattern), |name, ()| {
            names.insert(name.replace('\0', "."));
        });
        assert_eq!(names, yes.iter().map(|name| (*name).to_owned()).collect(), "{pattern}");
        assert_eq!(table.remove(handle), Some(1));
        assert!(found(&table, yes.first().unwrap_or(&""), MatchOptions::default()).is_empty());
    }
}

#[test]
fn names_behind_a_dollar_sign_hide_from_leading_wildcards_if_asked_to_mqtt_4_7_2_1() {
    let hide = MatchOptions { hide_dollar: true };
    let mut table = TopicTable::new();
    for (number, pattern) in [">", "*.x", "$SYS.>", "$SYS.x", "$SYS.*", "*"].into_iter().enumerate() {
        table.insert(&levels(pattern), number);
    }
    assert_eq!(found(&table, "$SYS.x", MatchOptions::default()), [0, 1, 2, 3, 4]);
    assert_eq!(found(&table, "$SYS.x", hide), [2, 3, 4]);
    assert_eq!(found(&table, "$SYS", hide), [2]);
    assert_eq!(found(&table, "a.x", hide), [0, 1]);

    let mut index = NameIndex::new();
    for dotted in ["", "#", "$", "$SYS", "$SYS.x", "$a.b", "%", "a", "a.$b"] {
        index.insert(&name(dotted), ());
    }
    let ask = |pattern: &str, options| {
        let mut names = Vec::new();
        index.for_each_match_with(&levels(pattern), options, |name, ()| names.push(name.replace('\0', ".")));
        names
    };
    assert_eq!(ask(">", hide), ["", "#", "%", "a", "a.$b"]);
    assert_eq!(ask("*", hide), ["", "#", "%", "a"]);
    assert_eq!(ask("$SYS.>", hide), ["$SYS", "$SYS.x"]);
    assert_eq!(ask("*.x", MatchOptions::default()), ["$SYS.x"]);
}

#[test]
fn one_pattern_holds_many_subscriptions_in_the_order_of_arrival() {
    for pattern in ["a.b", "a.*", "a.>"] {
        let mut table = TopicTable::new();
        let handles: Vec<Handle> = (0..5).map(|value| table.insert(&levels(pattern), value)).collect();
        let order = |table: &TopicTable<i32>| {
            let mut order = Vec::new();
            table.for_each_match(&name("a.b"), |value| order.push(*value));
            order
        };
        assert_eq!(order(&table), [0, 1, 2, 3, 4]);
        assert_eq!(table.remove(handles[0]), Some(0));
        assert_eq!(table.remove(handles[2]), Some(2));
        assert_eq!(table.remove(handles[2]), None);
        assert_eq!(order(&table), [1, 3, 4]);
        table.insert(&levels(pattern), 0);
        assert_eq!(order(&table), [1, 3, 4, 0]);
        assert_eq!(table.get(handles[0]), None, "the place is taken by another");
        assert_eq!(table.get(handles[1]), Some(&1));
        assert_eq!((table.len(), table.iter().count()), (4, 4));
    }
}

#[test]
fn an_emptied_table_holds_nothing() {
    let mut table = TopicTable::new();
    let patterns: Vec<String> = (0..4_000)
        .map(|n| match n % 4 {
            0 => format!("site.{n}.temp"),
            1 => format!("site.*.dev{n}"),
            2 => format!("site.{n}.>"),
            _ => format!("*.{}.{n}.>", n % 100),
        })
        .collect();
    let handles: Vec<Handle> = patterns.iter().map(|pattern| table.insert(&levels(pattern), 0)).collect();
    for handle in handles {
        assert!(table.remove(handle).is_some());
    }
    assert!(table.is_empty());
    assert_eq!(table.root, NONE);
    assert_eq!((table.nodes.len(), table.literals.len(), table.levels.len()), (0, 0, 0));
    assert!(table.edges.capacity() <= 64 && table.by_name.capacity() <= 64);
}

#[test]
fn a_name_of_very_many_levels_is_no_danger() {
    let mut table = TopicTable::new();
    let mut index = NameIndex::new();
    let long = "\0".repeat(65_000);
    let ones = vec![Level::One; 65_001];
    table.insert(&ones, 1);
    table.insert(&[Level::Rest], 2);
    table.insert(&[Level::Literal(&long), Level::One], 3);
    index.insert(&long, ());
    let mut seen = Vec::new();
    table.for_each_match(&long, |value| seen.push(*value));
    assert_eq!(seen, [2, 1]);
    let mut count = 0;
    index.for_each_match(&ones, |_, ()| count += 1);
    assert_eq!(count, 1);
}

#[test]
fn a_search_leaps_over_what_cannot_match() {
    let mut index = NameIndex::new();
    for site in 0..50 {
        for device in 0..200 {
            index.insert(&name(&format!("s{site}.d{device}.temp")), ());
        }
    }
    let mut names = Vec::new();
    index.for_each_match(&levels("*.d7.*"), |name, ()| names.push(name));
    assert_eq!(names.len(), 50);
    assert!(names.is_sorted());
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "ab", "", "$", "\u{1}", "é"])
}

fn dotted() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("."))
}

fn pattern() -> impl Strategy<Value = String> {
    (prop::collection::vec(prop_oneof![3 => level(), 2 => Just("*")], 1..5), 0..4u8).prop_map(
        |(levels, end)| match (end, levels.join(".")) {
            (0, joined) => format!("{joined}.>"),
            (1, joined) if joined.len() < 2 => ">".to_owned(),
            (_, joined) => joined,
        },
    )
}

/// The name that a pattern without wildcards is.
fn without_wildcards(levels: &[Level<'_>]) -> Option<String> {
    let texts: Option<Vec<&str>> = levels
        .iter()
        .map(|level| match level {
            Level::Literal(text) => Some(*text),
            Level::One | Level::Rest => None,
        })
        .collect();
    Some(texts?.join("\0"))
}

/// A level that may be several joined.
fn split(level: Level<'_>) -> Vec<Level<'_>> {
    match level {
        Level::Literal(text) => text.split('\0').map(Level::Literal).collect(),
        other => vec![other],
    }
}

#[derive(Clone, Debug)]
enum Action {
    Insert(String),
    Remove(usize),
    Ask(String, bool),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => pattern().prop_map(Action::Insert),
        2 => any::<usize>().prop_map(Action::Remove),
        2 => (dotted(), any::<bool>()).prop_map(|(name, hide)| Action::Ask(name, hide)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_agrees_with_the_definition(actions in prop::collection::vec(action(), 1..120)) {
        let mut table = TopicTable::new();
        let mut model: Vec<(String, Handle, usize)> = Vec::new();
        for (number, action) in actions.into_iter().enumerate() {
            match action {
                Action::Insert(pattern) => {
                    let handle = table.insert(&levels(&pattern), number);
                    model.push((pattern, handle, number));
                }
                Action::Remove(which) if !model.is_empty() => {
                    let (_, handle, number) = model.swap_remove(which % model.len());
                    prop_assert_eq!(table.remove(handle), Some(number));
                    prop_assert_eq!(table.remove(handle), None);
                }
                Action::Remove(_) => {}
                Action::Ask(name, hide_dollar) => {
                    let options = MatchOptions { hide_dollar };
                    let mut expected: Vec<usize> = model
                        .iter()
                        .filter(|(pattern, ..)| matches(pattern, &name, options))
                        .map(|(_, _, number)| *number)
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found(&table, &name, options), expected.clone());
                    let mut spots = Vec::new();
                    let canonical = name.replace('.', "\0");
                    table.for_each_matching_spot(&canonical, options, |spot| spots.push(spot));
                    let mut there: Vec<usize> = model
                        .iter()
                        .filter(|(_, handle, _)| table.seat(*handle).is_some_and(|(spot, _)| spots.contains(&spot)))
                        .map(|(_, _, number)| *number)
                        .collect();
                    there.sort_unstable();
                    prop_assert_eq!(there, expected);
                    for (index, spot) in spots.iter().enumerate() {
                        prop_assert!(!spots[..index].contains(spot), "no place is told twice");
                    }
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        for (pattern, handle, number) in &model {
            let (spot, seat) = table.seat(*handle).expect("it has not been removed");
            prop_assert_eq!(table.at(seat), Some(number));
            let levels = levels(pattern);
            let again = match without_wildcards(&levels) {
                Some(name) => table.spot_of_name(&name),
                None => table.spot_of_wildcards(&levels),
            };
            prop_assert_eq!(again, Some(spot));
            // What stands behind the wildcard for all further levels is ignored.
            let told: Vec<Level<'_>> = table.levels_of(spot).into_iter().flat_map(split).collect();
            let end = levels.iter().position(|level| *level == Level::Rest).map_or(levels.len(), |at| at + 1);
            prop_assert_eq!(&told[..], &levels[..end]);
        }
        let mut left: Vec<usize> = table.iter().map(|(_, value)| *value).collect();
        left.sort_unstable();
        let mut expected: Vec<usize> = model.iter().map(|(_, _, number)| *number).collect();
        expected.sort_unstable();
        prop_assert_eq!(left, expected);
        for (_, handle, _) in model {
            table.remove(handle);
        }
        prop_assert_eq!(table.nodes.len() + table.literals.len() + table.levels.len() + table.edges.len(), 0);
    }

    #[test]
    fn the_index_agrees_with_the_definition(
        names in prop::collection::vec(dotted(), 0..60),
        removed in prop::collection::vec(dotted(), 0..20),
        patterns in prop::collection::vec(pattern(), 1..20),
        hide_dollar: bool,
    ) {
        let options = MatchOptions { hide_dollar };
        let mut index = NameIndex::new();
        let mut model = BTreeMap::new();
        for (number, dotted) in names.iter().enumerate() {
            prop_assert_eq!(index.insert(&name(dotted), number), model.insert(name(dotted), number));
        }
        for dotted in &removed {
            prop_assert_eq!(index.remove(&name(dotted)), model.remove(&name(dotted)));
        }
        prop_assert_eq!(index.len(), model.len());
        for pattern in &patterns {
            let mut seen = Vec::new();
            index.for_each_match_with(&levels(pattern), options, |name, value| seen.push((name.to_owned(), *value)));
            let expected: Vec<(String, usize)> = model
                .iter()
                .filter(|(name, _)| matches(pattern, &name.replace('\0', "."), options))
                .map(|(name, value)| (name.clone(), *value))
                .collect();
            prop_assert_eq!(seen, expected, "{}", pattern);
        }
    }
}
