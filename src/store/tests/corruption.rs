//! Rotten bytes, missing files, strange directories.

use super::model::{Op, Scenario, State, append, open, options, read_back};
use crate::fault_fs::Survival;
use crate::{FaultFs, Fs, Level, ReadError, Store, StoreError, StoreOptions};
use sabir_model::ids::{Position, QueueId, Sequence};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A small closed store, and its state after every position.
fn small(groups: usize) -> (FaultFs, Vec<(Position, State)>) {
    let fs = FaultFs::new();
    let mut scenario = Scenario::new(9);
    let mut history = vec![(Position(0), State::default())];
    let (store, ..) = open(&fs, options()).unwrap();
    for _ in 0..groups {
        let group = scenario.group();
        history.push((append(&store, &group, Level::Fsync), scenario.state.clone()));
        store.sync();
    }
    store.close().unwrap();
    (fs, history)
}

#[test]
fn a_flipped_bit_anywhere_is_cut_or_refused_and_never_believed() {
    let (fs, history) = small(24);
    let last = history.last().unwrap().clone();
    let (mut refused, mut unharmed) = (0, 0);
    for path in fs.files() {
        let len = fs.contents(&path).unwrap().len().min(6000);
        for offset in 0..len as u64 {
            let rotten = fs.copy();
            rotten.flip(&path, offset, (offset % 8) as u8);
            match open(&rotten, options()) {
                Ok((_, state, report)) => {
                    // Every group was synced and the log closed with its mark, so nothing may be missing.
                    assert_eq!(state, last.1, "{} byte {offset}", path.display());
                    assert_eq!(report.position, last.0);
                    unharmed += 1;
                }
                Err(StoreError::Corrupt { .. } | StoreError::NewerFormat { .. }) => refused += 1,
                Err(other) => panic!("{} byte {offset}: {other}", path.display()),
            }
        }
    }
    assert!(refused > 1000 && unharmed > 1000, "{refused} refused, {unharmed} unharmed");
}

#[test]
fn quarantine_goes_on_behind_the_damage_and_says_what_is_lost() {
    let (fs, history) = small(24);
    let last = history.last().unwrap().1.clone();
    let journal = PathBuf::from("store/shard-0/J/000000000001.j");
    let used = fs.contents(&journal).unwrap().iter().rposition(|&byte| byte != 0).unwrap() as u64;
    let mut lost_something = 0;
    for offset in (0..used).step_by(7) {
        let rotten = fs.copy();
        rotten.flip(&journal, offset, 2);
        let quarantine = StoreOptions { quarantine: true, ..options() };
        let (store, state, report) = open(&rotten, quarantine.clone()).unwrap();
        if report.damage.is_empty() {
            // Only the final mark, or padding, was hit.
            assert_eq!(state, last, "byte {offset}");
            continue;
        }
        for (key, body) in &state.messages {
            let known = history.iter().any(|(_, state)| state.messages.get(key) == Some(body));
            assert!(known, "byte {offset}: message {key:?} was never put like that");
        }
        for key in last.messages.keys().filter(|key| !state.messages.contains_key(key)) {
            // A reference whose put is gone is lost without a number seen behind it; a later number always
            // shows it.
            let shown = report.lost.iter().any(|l| l.queue.0 == key.0 && l.first <= key.1 && key.1 <= l.last);
            let later = state.messages.keys().any(|other| other.0 == key.0 && other.1 > key.1);
            lost_something += u32::from(shown);
            let _ = later;
        }
        let copy = report.damage.iter().find_map(|damage| damage.copy.clone()).unwrap();
        assert!(rotten.contents(&copy).is_some_and(|bytes| !bytes.is_empty()), "byte {offset}");
        assert!(report.to_string().contains("were skipped and copied to"), "{report}");
        append(&store, &[Op::Set { key: 42, value: vec![1] }], Level::Fsync);
        store.close().unwrap();
        drop(store);
        let (_, again, report) = open(&rotten, options()).unwrap_or_else(|e| panic!("byte {offset}: {e}"));
        assert!(report.damage.iter().all(|damage| damage.copy.is_none()), "byte {offset}: {report}");
        assert_eq!(again.messages, state.messages);
    }
    assert!(lost_something > 0);
}

#[test]
fn damage_in_a_sealed_segment_is_told_by_whoever_reads_what_is_alive_in_it() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    for sequence in 1..=20 {
        append(&store, &[Op::Put { targets: vec![(1, sequence)], body: vec![5; 100] }], Level::Fsync);
        store.sync();
    }
    append(&store, &[Op::Acknowledge { queue: 1, first: 1, count: 10 }], Level::Fsync);
    store.close().unwrap();
    drop(store);
    // Opening seals the segment by a checkpoint.
    drop(open(&fs, options()).unwrap());
    let journal = PathBuf::from("store/shard-0/J/000000000001.j");
    let dead = fs.copy();
    dead.flip(&journal, 300, 1);
    let (store, state, _) = open(&dead, options()).unwrap();
    assert_eq!((state.messages.len(), store.stats().damaged), (10, 0));
    let quarantine = StoreOptions { quarantine: true, ..options() };
    drop(store);
    let (_, _, report) = open(&dead, quarantine.clone()).unwrap();
    assert!(report.to_string().contains("no live message is missing"), "{report}");
    let alive = fs.copy();
    alive.flip(&journal, 168 * 14 + 60, 1);
    let disk: Arc<dyn Fs> = Arc::new(alive.clone());
    let (store, _) = Store::open(options(), disk, &mut State::default()).unwrap();
    let all = || std::iter::once((Sequence(1), Sequence(99)));
    let mut told = Vec::new();
    let error = store.read(QueueId(1), &mut all(), &mut |sequence, _, _, _| {
        told.push(sequence.0);
        ControlFlow::Continue(())
    });
    let error = error.unwrap_err();
    let ReadError::Damaged { file, offset, lost } = &error else { panic!("{error}") };
    assert_eq!((file, *offset), (&journal, 168 * 14));
    assert_eq!(*lost, [(Sequence(15), Sequence(15))]);
    assert_eq!(told, [11, 12, 13, 14, 16, 17, 18, 19, 20]);
    assert_eq!(
        error.to_string(),
        "the message log is damaged at byte 2352 of store/shard-0/J/000000000001.j: 1 messages cannot be read"
    );
    assert!(read_back(&store, 1, &mut all()).is_err());
    assert_eq!(store.stats().damaged, 1);
    // Who gives the lost message up has a sound log again.
    append(&store, &[Op::Acknowledge { queue: 1, first: 15, count: 1 }], Level::Fsync);
    assert_eq!(read_back(&store, 1, &mut all()).unwrap().len(), 9);
    drop(store);
    let (_, state, report) = open(&alive, quarantine).unwrap();
    assert_eq!((state.messages.len(), report.lost.len()), (9, 0));
    let (_, again, _) = open(&alive, options()).unwrap();
    assert_eq!(again, state);
}

#[test]
fn a_missing_segment_or_manifest_is_named() {
    let (fs, _) = small(40);
    for path in fs.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let holds = name.ends_with(".j") && fs.contents(&path).unwrap().iter().any(|&byte| byte != 0);
        if !holds
            || name == "000000000001.j"
                && fs.files().iter().filter(|p| p.to_str().unwrap().ends_with(".j")).count() == 1
        {
            continue;
        }
        let without = fs.copy();
        Fs::remove(&without, &path).unwrap();
        let outcome = open(&without, options());
        // The very last segment may hold only the closing mark; any other is missed.
        if let Ok((_, _, report)) = &outcome {
            assert!(report.position >= Position(1), "{name}");
        } else {
            assert!(matches!(outcome, Err(StoreError::Corrupt { .. })), "{name}");
        }
    }
    let without = fs.copy();
    for slot in ["store/MANIFEST.a", "store/MANIFEST.b"] {
        Fs::remove(&without, &PathBuf::from(slot)).unwrap();
    }
    let error = open(&without, options()).unwrap_err().to_string();
    assert!(error.contains("manifest is missing"), "{error}");
}

#[test]
fn a_torn_last_write_is_cut_and_reported() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    append(&store, &[Op::Put { targets: vec![(1, 1)], body: vec![1; 50] }], Level::Fsync);
    store.sync();
    append(&store, &[Op::Put { targets: vec![(1, 2)], body: vec![2; 3000] }], Level::Os);
    store.turn();
    let torn = (0..100).map(|seed| fs.crash(Survival::Random(seed))).find_map(|after| {
        let (_, state, report) = open(&after, options()).unwrap();
        assert!(state.messages.contains_key(&(1, 1)));
        report.tear.clone().map(|tear| (state, report, tear))
    });
    let (state, report, tear) = torn.unwrap();
    assert_eq!(state.messages.len(), 1);
    assert_eq!(tear.position, Position(2));
    assert!(tear.bytes_cut > 3000, "{tear:?}");
    assert!(report.to_string().contains("An interrupted write was cut off at byte "), "{report}");
}

#[test]
fn a_later_frame_that_survived_a_lost_one_is_dropped_for_good() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    append(&store, &[Op::Set { key: 1, value: vec![1] }], Level::Fsync);
    store.sync();
    for key in 2..5 {
        append(&store, &[Op::Set { key, value: vec![0; 600] }], Level::Os);
        store.turn();
    }
    let mut dropped = 0;
    for seed in 0..60 {
        let after = fs.crash(Survival::Random(seed));
        let (store, state, report) = open(&after, options()).unwrap();
        let kept = state.meta.len();
        assert!(kept >= 1 && state.meta.keys().map(|(_, key)| usize::from(key[0])).eq(1..=kept), "{state:?}");
        dropped += u32::from(report.tear.is_some_and(|tear| tear.bytes_cut > 1200));
        drop(store);
        let (_, again, report) = open(&after, options()).unwrap();
        assert_eq!(again, state);
        assert!(report.tear.is_none());
    }
    assert!(dropped > 0);
}

#[test]
fn the_idle_mark_tells_a_rotten_last_frame_from_a_torn_one() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    append(&store, &[Op::Put { targets: vec![(1, 1)], body: vec![1; 50] }], Level::Fsync);
    store.turn();
    let unmarked = fs.copy();
    fs.advance(Duration::from_secs(1));
    store.turn();
    let journal = PathBuf::from("store/shard-0/J/000000000001.j");
    fs.flip(&journal, 60, 0);
    assert!(matches!(open(&fs.crash(Survival::None), options()), Err(StoreError::Corrupt { offset: 0, .. })));
    // The documented gap: before the mark, a rotten last frame looks like a torn one.
    unmarked.flip(&journal, 60, 0);
    let (_, state, report) = open(&unmarked, options()).unwrap();
    assert!(state.messages.is_empty() && report.tear.is_some());
}

#[test]
fn a_damaged_checkpoint_refuses_and_quarantine_reads_the_journal_instead() {
    let (fs, history) = small(24);
    let (store, ..) = open(&fs, options()).unwrap();
    store.close().unwrap();
    drop(store);
    let newest = fs.files().into_iter().rfind(|path| path.extension().is_some_and(|e| e == "ckpt")).unwrap();
    fs.flip(&newest, 30, 1);
    let error = open(&fs, options()).unwrap_err().to_string();
    assert!(error.contains("checkpoint cannot be read"), "{error}");
    let (_, state, report) = open(&fs, StoreOptions { quarantine: true, ..options() }).unwrap();
    assert!(!report.damage.is_empty());
    // Acknowledgements may be forgotten, messages not.
    for (key, body) in &history.last().unwrap().1.messages {
        assert_eq!(state.messages.get(key), Some(body));
    }
}

#[test]
fn arbitrary_store_files_never_panic() {
    let mut random = super::model::Random(1);
    for round in 0..3000 * super::rounds() {
        let len = random.below(400);
        let mut data: Vec<u8> =
            (0..len).map(|_| random.below(if round % 2 == 0 { 256 } else { 12 }) as u8).collect();
        data.insert(0, random.below(8) as u8);
        crate::fuzz::fuzz_recovery(&data);
    }
}

#[test]
fn a_rotten_page_at_the_end_of_a_closed_log_is_not_taken_for_a_torn_write() {
    let fs = FaultFs::new();
    let options = StoreOptions { segment_bytes: 64 << 10, journal_bytes_max: 1 << 20, ..options() };
    let mut put = 0;
    for _ in 0..4 {
        let (store, ..) = open(&fs, options.clone()).unwrap();
        for _ in 0..3 {
            put += 1;
            append(&store, &[Op::Put { targets: vec![(1, put)], body: vec![1; 50] }], Level::Fsync);
            fs.advance(Duration::from_secs(1));
            store.turn();
            store.turn();
        }
        store.close().unwrap();
    }
    let (_, state, report) = open(&fs.copy(), options.clone()).unwrap();
    assert_eq!(state.messages.len(), 12);
    assert!(report.damage.is_empty() && report.tear.is_none(), "{report}");
    // The last segment in use: each message is followed by its mark in a page of its own.
    let journal =
        fs.files().into_iter().rfind(|path| fs.contents(path).unwrap().starts_with(b"SBRF")).unwrap();
    let pages =
        fs.contents(&journal).unwrap().chunks(512).rposition(|piece| piece.iter().any(|&b| b != 0)).unwrap()
            / 8;
    assert!(pages >= 3, "{pages}");
    for page in 0..=pages {
        let rotten = fs.copy();
        for offset in (page * 4096..(page + 1) * 4096).step_by(16) {
            rotten.flip(&journal, offset as u64, 3);
        }
        match open(&rotten, options.clone()) {
            // In the last page there is only the last mark.
            Ok((_, found, _)) => assert!(page == pages && found == state, "page {page}"),
            Err(error) => {
                assert!(page < pages && matches!(error, StoreError::Corrupt { .. }), "page {page}: {error}")
            }
        }
    }
}

#[test]
fn heavy_damage_is_never_believed() {
    let (fs, history) = small(60);
    let last = history.last().unwrap().1.clone();
    let mut random = super::model::Random(3);
    let journals: Vec<_> =
        fs.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "j")).collect();
    for round in 0..600 {
        let rotten = fs.copy();
        for _ in 0..=random.below(4) {
            let path = &journals[random.below(journals.len() as u64) as usize];
            let mut bytes = rotten.contents(path).unwrap();
            let len = bytes.len() as u64;
            let (from, to) = (random.below(len) as usize, random.below(len) as usize);
            let n = (random.below(512) as usize).min(bytes.len() - from.max(to));
            match random.below(4) {
                0 => bytes[from..from + n].fill(0),
                1 => bytes.copy_within(from..from + n, to),
                2 => bytes.truncate(from),
                _ => bytes[from] ^= 1 << random.below(8),
            }
            rotten.put(path, &bytes);
        }
        let other = rotten.copy();
        if let Ok((_, state, report)) = open(&rotten, options()) {
            let known = history.iter().any(|(at, then)| *at == report.position && then == &state);
            assert!(known, "round {round}: {report}");
        }
        let (_, state, _) = open(&other, StoreOptions { quarantine: true, ..options() })
            .unwrap_or_else(|e| panic!("{round}: {e}"));
        for (key, body) in &state.messages {
            let put = history.iter().any(|(_, then)| then.messages.get(key) == Some(body));
            assert!(put || last.messages.get(key) == Some(body), "round {round}: {key:?} was never put");
        }
    }
}
