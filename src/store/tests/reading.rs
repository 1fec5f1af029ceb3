//! Messages read back: what is told, in which order, and what is not written for it.

use super::model::{Op, Random, State, append, open, options, read_back};
use crate::fault_fs::Fault;
use crate::{FaultFs, Fs, Full, Level, PutMeta, ReadError, Store, StoreOptions};
use sabir_model::ids::{QueueId, Sequence};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn put(queue: u64, sequence: u64) -> Op {
    Op::Put { targets: vec![(queue, sequence)], body: format!("{queue}/{sequence}").into_bytes() }
}

fn ranges(ranges: &[(u64, u64)]) -> impl Iterator<Item = (Sequence, Sequence)> {
    ranges.iter().map(|(first, last)| (Sequence(*first), Sequence(*last)))
}

fn numbers(store: &Store, queue: u64, wanted: &[(u64, u64)]) -> Vec<u64> {
    read_back(store, queue, &mut ranges(wanted)).unwrap().into_keys().collect()
}

#[test]
fn what_is_wanted_and_alive_is_told_in_order_and_the_rest_is_passed_over() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    for sequence in 1..=300 {
        append(&store, &[put(1, sequence), put(2, sequence)], Level::Os);
        store.turn();
    }
    append(&store, &[Op::Acknowledge { queue: 1, first: 50, count: 100 }], Level::Os);
    store.turn();
    assert_eq!(numbers(&store, 1, &[(1, 3), (48, 151), (200, 200)]), [1, 2, 3, 48, 49, 150, 151, 200]);
    assert_eq!(numbers(&store, 1, &[(0, u64::MAX)]).len(), 200);
    assert_eq!(numbers(&store, 1, &[]), [0; 0]);
    assert_eq!(numbers(&store, 1, &[(60, 70), (301, 400)]), [0; 0]);
    assert_eq!(numbers(&store, 3, &[(1, 9)]), [0; 0]);
    let scattered: Vec<_> = (150..=300).step_by(7).map(|n| (n, n)).collect();
    assert_eq!(numbers(&store, 2, &scattered).len(), scattered.len());
    let all = read_back(&store, 2, &mut ranges(&[(1, 300)])).unwrap();
    assert!(all.iter().all(|(sequence, content)| content.ends_with(format!("|2/{sequence}").as_bytes())));
}

#[test]
fn whoever_has_enough_is_told_no_more() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    for sequence in 1..=100 {
        append(&store, &[put(1, sequence)], Level::Os);
        store.turn();
    }
    let mut told = Vec::new();
    let mut asked = 0;
    let mut wanted = (1..=100).map(|n| (Sequence(n), Sequence(n))).inspect(|_| asked += 1);
    let outcome = store.read(QueueId(1), &mut wanted, &mut |sequence, _, _, _| {
        told.push(sequence.0);
        if told.len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(outcome.is_ok());
    assert_eq!(told, [1, 2, 3, 4, 5]);
}

#[test]
fn what_was_appended_a_moment_ago_is_written_to_be_read_and_only_then() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    append(&store, &[put(1, 1)], Level::Os);
    store.turn();
    append(&store, &[put(1, 2)], Level::Fsync);
    let before = fs.io_count();
    assert_eq!(numbers(&store, 1, &[(1, 1)]), [1]);
    assert_eq!(fs.io_count(), before, "nothing that is wanted is missing");
    assert_eq!(numbers(&store, 1, &[(1, 2)]), [1, 2]);
    let written = fs.io_count();
    assert!(written > before);
    assert_eq!(numbers(&store, 1, &[(1, 9)]), [1, 2]);
    assert_eq!(fs.io_count(), written, "nothing was appended since");
}

#[test]
fn what_cannot_be_written_cannot_be_read_yet() {
    let fs = FaultFs::new();
    let options = StoreOptions { journal_bytes_max: 1 << 40, ..options() };
    let (store, ..) = open(&fs, options).unwrap();
    store.turn();
    fs.set_capacity(Some(fs.used()));
    let mut sequence = 0;
    // Past the reserve: acknowledgements and metadata have filled it.
    loop {
        sequence += 1;
        append(&store, &[put(1, sequence), Op::Set { key: 1, value: vec![1; 700] }], Level::Os);
        let outcome = read_back(&store, 1, &mut ranges(&[(1, sequence)]));
        match outcome {
            Ok(read) => assert_eq!(read.len() as u64, sequence),
            Err(ReadError::NotWritten) => break,
            Err(other) => panic!("{other}"),
        }
        assert!(sequence < 1000);
    }
    assert_eq!(store.begin_put().err(), Some(Full::Disk));
    assert_eq!(numbers(&store, 1, &[(1, sequence - 1)]).len() as u64, sequence - 1);
    fs.set_capacity(None);
    assert_eq!(numbers(&store, 1, &[(1, sequence)]).len() as u64, sequence);
}

#[test]
fn a_reference_is_read_under_its_own_number() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    for sequence in 1..=30 {
        append(&store, &[put(1, sequence)], Level::Os);
        store.turn();
    }
    // Out of order, so that no run of references is one of records.
    for (to, from) in [(1, 20), (2, 10), (3, 11), (4, 12), (5, 3), (7, 30)] {
        append(&store, &[Op::Reference { to: (2, to), from: (1, from) }], Level::Os);
    }
    append(&store, &[Op::Acknowledge { queue: 1, first: 1, count: 30 }], Level::Os);
    let read = read_back(&store, 2, &mut ranges(&[(1, 9)])).unwrap();
    let bodies: Vec<_> = read.values().map(|content| String::from_utf8_lossy(content)).collect();
    let expected = ["1/20", "1/10", "1/11", "1/12", "1/3", "1/30"];
    assert!(bodies.iter().zip(expected).all(|(body, end)| body.ends_with(&format!("|{end}"))), "{bodies:?}");
    assert_eq!(bodies.len(), expected.len());
}

#[test]
fn records_out_of_order_are_found_all_the_same() {
    let fs = FaultFs::new();
    let options = StoreOptions { segment_bytes: 64 << 10, ..options() };
    let (store, ..) = open(&fs, options).unwrap();
    let mut random = Random(3);
    let mut left: Vec<u64> = (1..=200).collect();
    let mut expected = State::default();
    while !left.is_empty() {
        let at = random.below(left.len() as u64) as usize;
        let group = [put(1, left.swap_remove(at))];
        expected.apply(&group);
        append(&store, &group, Level::Os);
        if left.len().is_multiple_of(9) {
            store.turn();
        }
    }
    for to in 1..=100 {
        let group = [Op::Reference { to: (2, to), from: (1, 201 - to) }];
        expected.apply(&group);
        append(&store, &group, Level::Os);
    }
    for queue in [1, 2] {
        let read = read_back(&store, queue, &mut ranges(&[(1, 200)])).unwrap();
        let model: Vec<_> = expected.messages.iter().filter(|(key, _)| key.0 == queue).collect();
        assert!(model.iter().map(|(key, content)| (&key.1, *content)).eq(read.iter()), "queue {queue}");
    }
}

#[test]
fn reading_on_where_one_stopped_reads_each_byte_once() {
    let fs = FaultFs::new();
    let options = StoreOptions { segment_bytes: 4 << 20, journal_bytes_max: 1 << 30, ..options() };
    let (store, ..) = open(&fs, options).unwrap();
    for sequence in 1..=20_000u64 {
        let mut group = store.begin_put().unwrap();
        group.put(&[(QueueId(1), Sequence(sequence))], PutMeta::default(), &[b"head"], &[7; 100]);
        group.finish(Level::Os);
        if sequence % 700 == 0 {
            store.turn();
        }
    }
    store.turn();
    let mut read = 0;
    for first in (1..=20_000).step_by(250) {
        read += numbers(&store, 1, &[(first, first + 249)]).len();
    }
    let stats = store.stats();
    assert_eq!((read, stats.reads), (20_000, 80));
    assert!(stats.read_bytes < stats.bytes_written * 3 / 2, "{stats:?}");
    assert!(stats.bytes_live.abs_diff(stats.bytes_written) < stats.bytes_written / 20, "{stats:?}");
    // One message alone costs what a run is long, at most.
    let before = store.stats().read_bytes;
    assert_eq!(numbers(&store, 1, &[(17_000, 17_000)]), [17_000]);
    assert!(store.stats().read_bytes - before < 2 << 20);
}

#[test]
fn a_closed_or_failed_log_is_not_read() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    append(&store, &[put(1, 1)], Level::Fsync);
    store.sync();
    store.close().unwrap();
    assert!(matches!(read_back(&store, 1, &mut ranges(&[(1, 1)])), Err(ReadError::Closed)));
    drop(store);
    let (store, ..) = open(&fs, options()).unwrap();
    append(&store, &[put(1, 2)], Level::Fsync);
    fs.fault_at(fs.io_count() + 1, Fault::Error);
    let error = read_back(&store, 1, &mut ranges(&[(1, 2)])).unwrap_err();
    assert!(matches!(&error, ReadError::Failed(sentence) if sentence.contains("cannot write")), "{error}");
    assert!(read_back(&store, 1, &mut ranges(&[(1, 1)])).is_err());
}

#[test]
fn a_segment_that_vanished_is_told_as_damage() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    for sequence in 1..=60 {
        append(&store, &[put(1, sequence)], Level::Os);
        store.turn();
    }
    drop(store);
    let (store, ..) = open(&fs, options()).unwrap();
    store.inner.shared.readers.clear();
    fs.remove(Path::new("store/shard-0/J/000000000001.j")).unwrap();
    let mut told = Vec::new();
    let outcome = store.read(QueueId(1), &mut ranges(&[(1, 60)]), &mut |sequence, _, _, _| {
        told.push(sequence.0);
        ControlFlow::Continue(())
    });
    let Err(ReadError::Damaged { lost, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(lost.iter().map(|(first, last)| last.0 - first.0 + 1).sum::<u64>() + told.len() as u64, 60);
    assert!(!told.is_empty());
}

/// Everything that is alive is read over and over while segments are evacuated and recycled under the reader.
#[test]
fn reading_goes_on_while_segments_are_evacuated_and_recycled() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        segment_bytes: 64 << 10,
        journal_bytes_max: 128 << 10,
        checkpoint_interval: Duration::from_millis(1),
        ..StoreOptions::new(dir.path())
    };
    let (store, _) = Store::open(options, Arc::new(crate::RealFs::new()), &mut State::default()).unwrap();
    let is_kept = |sequence: u64| sequence.is_multiple_of(50);
    const LAST: u64 = 40_000;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let write = |queue: u64, sequence: u64, kept: bool| {
                while store.pending_bytes() > 64 << 10 {
                    std::thread::yield_now();
                }
                let mut group = vec![put(queue, sequence)];
                if !kept {
                    group.push(Op::Acknowledge { queue, first: sequence, count: 1 });
                }
                append(&store, &group, Level::Os);
                if sequence.is_multiple_of(250) {
                    store.sync();
                }
            };
            (1..=LAST).for_each(|sequence| write(1, sequence, is_kept(sequence)));
            // A busy machine may have written all that before a segment was free: until enough have been used again.
            (1..=10 * LAST)
                .take_while(|_| store.stats().recycled <= 5)
                .for_each(|sequence| write(2, sequence, false));
            done.store(true, Ordering::Release);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let next = store.inner.shared.index.lock().queues.get(&1).map_or(1, |queue| queue.next);
                    let read = read_back(&store, 1, &mut ranges(&[(1, next - 1)])).unwrap();
                    let kept = (1..next).filter(|sequence| is_kept(*sequence));
                    assert!(kept.clone().all(|sequence| read.contains_key(&sequence)), "up to {next}");
                    let right = |(sequence, content): (&u64, &Vec<u8>)| {
                        content.ends_with(format!("|1/{sequence}").as_bytes())
                    };
                    assert!(read.iter().all(right));
                }
            });
        }
    });
    let stats = store.stats();
    assert!(stats.evacuations > 0 && stats.recycled > 5 && stats.damaged == 0, "{stats:?}");
    assert_eq!(numbers(&store, 1, &[(1, LAST)]).len() as u64, LAST / 50);
    store.close().unwrap();
}

#[test]
fn whoever_waits_for_a_full_disk_is_told_so_and_finds_everything_when_there_is_space() {
    let fs = FaultFs::new();
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    let options = StoreOptions { segment_bytes: 4096, ..StoreOptions::new("store") };
    let (store, _) = Store::open(options, disk, &mut State::default()).unwrap();
    store.sync();
    fs.set_capacity(Some(fs.used()));
    let mut last = 0;
    let refused = loop {
        last += 1;
        append(&store, &[put(1, last), Op::Set { key: 1, value: vec![1; 700] }], Level::Os);
        match read_back(&store, 1, &mut ranges(&[(1, last)])) {
            Ok(read) => assert_eq!(read.len() as u64, last),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ReadError::NotWritten), "{refused}");
    fs.set_capacity(None);
    loop {
        match read_back(&store, 1, &mut ranges(&[(1, last)])) {
            Ok(read) => break assert_eq!(read.len() as u64, last),
            Err(ReadError::NotWritten) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
    store.close().unwrap();
}
