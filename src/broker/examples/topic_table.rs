//! Measures the topic table at a million subscriptions: bytes per subscription, time per insert, match and remove.
//!
//! `cargo run --release -p sabir-broker --example topic_table literal|mixed|names [count]`.
//! One case per process: memory that an earlier case gave back would flatter the next one.
#![expect(clippy::disallowed_methods, reason = "measures time")]
#![expect(clippy::print_stdout, reason = "it prints a table")]
#![expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]

use std::sync::Arc;
use std::time::Instant;

use sabir_broker::pattern_trie::{Handle, Level, NameIndex, TopicTable};

/// Bytes of memory the process holds now.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * 4096
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn topic(number: usize) -> String {
    format!("site{}\0line{}\0dev{number}\0temp", number % 100, number / 100 % 100)
}

/// The pattern of subscription `number`: levels as text, wildcards as `*` and `>`.
fn mixed(number: usize) -> String {
    match number % 10 {
        0 => format!("site{}\0line{}\0dev{number}\0>", number % 100, number / 100 % 100),
        1 => format!("site{}\0*\0dev{number}\0temp", number % 100),
        2 => format!("*\0line{}\0dev{number}\0temp", number / 100 % 100),
        _ => topic(number),
    }
}

fn levels(pattern: &str) -> Vec<Level<'_>> {
    let level = |text| match text {
        "*" => Level::One,
        ">" => Level::Rest,
        text => Level::Literal(text),
    };
    pattern.split('\0').map(level).collect()
}

fn ns(since: Instant, count: usize) -> f64 {
    since.elapsed().as_nanos() as f64 / count.max(1) as f64
}

fn matching(table: &TopicTable<Arc<usize>>, names: &[String], rounds: usize) -> (f64, usize) {
    let mut state = 0x1234_5678_9abc_def1;
    let mut hits = 0;
    let started = Instant::now();
    for _ in 0..rounds {
        let name = &names[random(&mut state) as usize % names.len()];
        table.for_each_match(name, |_| hits += 1);
    }
    (ns(started, rounds), hits)
}

fn run(label: &str, count: usize, pattern: fn(usize) -> String) {
    let shared = Arc::new(0usize);
    let before = resident();
    let mut table = TopicTable::new();
    let mut handles: Vec<Handle> = Vec::with_capacity(count);
    let mut slowest = 0;
    let mut inserting = 0;
    for number in 0..count {
        let text = pattern(number);
        let levels = levels(&text);
        let started = Instant::now();
        handles.push(table.insert(&levels, Arc::clone(&shared)));
        let took = started.elapsed().as_nanos();
        inserting += took;
        slowest = slowest.max(took);
    }
    let bytes =
        resident().saturating_sub(before + (count * size_of::<Handle>()) as u64) as f64 / count as f64;
    println!(
        "{label}, {count} subscriptions: {bytes:.0} bytes each; insert {:.0} ns (slowest {} us)",
        inserting as f64 / count as f64,
        slowest / 1000
    );
    for hot in [50, 1_000, 200_000] {
        let names: Vec<String> = (0..hot).map(|index| topic(index * (count / hot).max(1))).collect();
        matching(&table, &names, 100_000);
        let (took, hits) = matching(&table, &names, 1_000_000);
        println!("  match among {hot} names: {took:.0} ns, {:.2} hits", hits as f64 / 1e6);
    }
    let started = Instant::now();
    for handle in handles {
        table.remove(handle);
    }
    let left = resident().saturating_sub(before) as f64 / 1e6;
    println!("  remove {:.0} ns; {left:.1} MB above the start when empty", ns(started, count));
    assert!(table.is_empty());
}

fn names(count: usize) {
    let before = resident();
    let mut index = NameIndex::new();
    for number in 0..count {
        index.insert(&topic(number), ());
    }
    let bytes = resident().saturating_sub(before) as f64 / count as f64;
    println!("index of {count} names: {bytes:.0} bytes each");
    for pattern in ["site7\0>", "site7\0*\0*\0temp", "*\0line7\0dev70700\0temp", "site7\0line7\0*\0>"] {
        let mut hits = 0;
        let started = Instant::now();
        index.for_each_match(&levels(pattern), |_, ()| hits += 1);
        println!("  {:?}: {hits} in {:.0} us", pattern.replace('\0', "/"), ns(started, 1) / 1000.0);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next();
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    match case.as_deref() {
        Some("mixed") => run("mixed (70 % literal, 10 % each > and two kinds of *)", count, mixed),
        Some("names") => names(count),
        _ => run("literal", count, topic),
    }
}
