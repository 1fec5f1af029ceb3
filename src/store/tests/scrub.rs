//! Old segments read in the background.

use super::model::{Op, Scenario, append, open, options};
use crate::{FaultFs, Level, StoreOptions};
use std::path::PathBuf;
use std::time::Duration;

/// Twenty old segments with everything in them alive.
fn filled(options: StoreOptions) -> (FaultFs, crate::Store) {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options).unwrap();
    for sequence in 1..=400 {
        append(&store, &[Op::Put { targets: vec![(1, sequence)], body: vec![1; 140] }], Level::Os);
        store.turn();
    }
    (fs, store)
}

#[test]
fn old_segments_are_read_no_faster_than_allowed_and_then_there_is_a_rest() {
    let options = StoreOptions { scrub_bytes_per_second: 5000, ..options() };
    let (fs, store) = filled(options);
    assert_eq!(store.stats().scrubbed_bytes, 0, "no time has passed");
    let mut before = 0;
    for second in 1..=10u64 {
        fs.advance(Duration::from_secs(1));
        store.turn();
        let read = store.stats().scrubbed_bytes;
        // A whole file of 4 KiB at a time.
        assert!(read > before && read <= second * 5000 + 4096, "{read} bytes after {second} s");
        before = read;
    }
    for _ in 0..20 {
        fs.advance(Duration::from_secs(1));
        store.turn();
    }
    let stats = store.stats();
    assert_eq!((stats.scrubs, stats.damaged), (1, 0), "{stats:?}");
    assert!(stats.scrubbed_bytes > 70_000, "{stats:?}");
    for _ in 0..100 {
        fs.advance(Duration::from_secs(60));
        store.turn();
    }
    assert_eq!(store.stats().scrubbed_bytes, stats.scrubbed_bytes, "it rests");
    fs.advance(Duration::from_secs(24 * 60 * 60));
    store.turn();
    assert!(store.stats().scrubbed_bytes > stats.scrubbed_bytes);
}

#[test]
fn rot_under_what_is_alive_is_counted_and_harmless_rot_is_not() {
    let (fs, store) = filled(options());
    append(&store, &[Op::Acknowledge { queue: 1, first: 30, count: 5 }], Level::Os);
    store.turn();
    let journal = |number: u64| PathBuf::from(format!("store/shard-0/J/{number:012}.j"));
    // The record of an acknowledged message, and that of a living one.
    let find = |path: &PathBuf, at: u64| fs.contents(path).unwrap()[at as usize] == 1;
    assert!(find(&journal(2), 2 * 208 + 150) && find(&journal(5), 700));
    fs.flip(&journal(2), (31 - 20) * 208 + 150, 1);
    fs.flip(&journal(5), 700, 1);
    for _ in 0..3 {
        fs.advance(Duration::from_secs(10));
        store.turn();
    }
    let stats = store.stats();
    assert_eq!((stats.scrubs, stats.damaged), (1, 1), "{stats:?}");
    assert!(store.failed().is_none());
    // With the segment goes the damage.
    append(&store, &[Op::Acknowledge { queue: 1, first: 1, count: 200 }], Level::Os);
    fs.advance(Duration::from_secs(40));
    store.turn();
    assert_eq!(store.stats().damaged, 0);
}

#[test]
fn nothing_is_read_that_is_off() {
    let (fs, store) = filled(StoreOptions { scrub_bytes_per_second: 0, ..options() });
    fs.advance(Duration::from_secs(1000));
    store.turn();
    assert_eq!(store.stats().scrubbed_bytes, 0);
}

#[test]
fn evacuated_and_recycled_segments_are_not_taken_for_damaged() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, StoreOptions { scrub_bytes_per_second: 3000, ..options() }).unwrap();
    let mut scenario = Scenario::new(4);
    for step in 0..2000 {
        let group = scenario.group();
        append(&store, &group, Level::Os);
        store.turn();
        // One pass a day, during which much happens.
        fs.advance(if step % 50 == 0 { Duration::from_secs(86_400) } else { Duration::from_secs(1) });
    }
    let stats = store.stats();
    assert!(stats.recycled > 20 && stats.evacuations > 5 && stats.scrubbed_bytes > 100_000, "{stats:?}");
    assert_eq!(stats.damaged, 0);
}
