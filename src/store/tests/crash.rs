//! Power loss at every I/O, with every kind of survival; and replay against checkpoints.

use super::model::{
    Key, Op, Random, Scenario, State, append, open, options, read_back, take_handle, try_append, whole,
};
use super::rounds;
use crate::fault_fs::{Fault, Survival};
use crate::{Blob, FaultFs, Level, ReadError, RecoveryReport, Store, StoreStats};
use proptest::prelude::*;
use sabir_model::ids::{Position, Sequence};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

/// Groups of one scenario.
const GROUPS: usize = 350;
/// Groups of a long one, and crashes of such.
const LONG_GROUPS: usize = 800;
const LONG_CRASHES: u64 = 6500;

/// A run of a scenario: the state after every group, and how far the log got.
struct Run {
    /// `states[n]` is the model after the first n groups of the *log*, `None` where the log added a group of
    /// its own.
    history: Vec<(Position, State)>,
    synced: Position,
    /// The last position handed out.
    appended: Position,
    stats: StoreStats,
    /// Messages with a large body that need not survive the loss of power.
    weak: BTreeSet<Key>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            history: vec![(Position(0), State::default())],
            synced: Position(0),
            appended: Position(0),
            stats: StoreStats::default(),
            weak: BTreeSet::new(),
        }
    }
}

impl Run {
    fn note_weak(&mut self, group: &[Op], level: Level) {
        for op in group {
            match op {
                Op::PutBlob { targets, .. } if level == Level::Os => self.weak.extend(targets),
                Op::Again { targets, from } if level == Level::Os && self.weak.contains(from) => {
                    self.weak.extend(targets);
                }
                Op::Reference { to, from } if self.weak.contains(from) => {
                    self.weak.insert(*to);
                }
                _ => {}
            }
        }
    }
}

/// A store and the model of it, kept busy.
struct Player {
    fs: FaultFs,
    store: Store,
    scenario: Scenario,
    run: Run,
    step: usize,
    /// Handles to large bodies, alive or not, and what is in them.
    handles: Vec<(Blob, Vec<u8>)>,
}

impl Player {
    fn new(fs: &FaultFs, seed: u64) -> Option<Self> {
        let scenario = Scenario::with_blobs(seed);
        let (store, state, _) = open(fs, options()).ok()?;
        assert_eq!(state, State::default());
        Some(Self { fs: fs.clone(), store, scenario, run: Run::default(), step: 0, handles: Vec::new() })
    }

    /// A group, and perhaps a turn, a checkpoint, a look at what is there.
    fn step(&mut self) {
        let Self { fs, store, scenario, run, step, handles } = self;
        let before = scenario.state.clone();
        let group = scenario.group();
        let level = match scenario.random.below(4) {
            0 => Level::Fsync,
            1 => Level::Interval(Duration::from_millis(20)),
            _ => Level::Os,
        };
        match try_append(store, &group, level) {
            Some(position) => {
                run.note_weak(&group, level);
                run.history.push((position, scenario.state.clone()));
            }
            None => scenario.state = before,
        }
        if scenario.random.below(3) == 0 {
            store.turn();
        }
        if scenario.random.below(6) == 0 {
            read_as_the_model(store, scenario);
        }
        if scenario.random.below(8) == 0 {
            hold_and_read(store, scenario, handles);
        }
        if *step % 17 == 16 {
            fs.advance(Duration::from_secs(31));
            store.turn();
        }
        fs.advance(Duration::from_millis(3));
        run.synced = store.watermark().synced();
        *step += 1;
    }

    fn end(mut self) -> Run {
        self.handles.clear();
        let _ = self.store.close();
        self.run.synced = self.run.synced.max(self.store.watermark().synced());
        self.run.stats = self.store.stats();
        self.run.appended = self.run.history.last().unwrap().0;
        self.run
    }
}

/// Plays groups with syncs, checkpoints and evacuations in between; stops when the disk stops.
fn play(fs: &FaultFs, seed: u64, groups: usize) -> Run {
    let Some(mut player) = Player::new(fs, seed) else { return Run::default() };
    for _ in 0..groups {
        player.step();
        if player.store.failed().is_some() {
            break;
        }
    }
    player.end()
}

/// What is alive in a queue is read, written or not, between evacuations and recycled files.
fn read_as_the_model(store: &Store, scenario: &mut Scenario) {
    let queue = 1 + scenario.random.below(scenario.queues);
    let first = scenario.random.below(60);
    let last = if scenario.random.below(2) == 0 { u64::MAX } else { first + scenario.random.below(40) };
    let read = match read_back(store, queue, &mut std::iter::once((Sequence(first), Sequence(last)))) {
        Ok(read) => read,
        // The machine has stopped.
        Err(ReadError::Failed(_)) => return,
        Err(ReadError::Io { source, .. }) if source.kind() != ErrorKind::InvalidData => return,
        Err(other) => panic!("{other}"),
    };
    let model = scenario.state.messages.range((queue, first)..=(queue, last));
    let model: Vec<_> = model.map(|(key, content)| (key.1, content.clone())).collect();
    // What was acknowledged a moment ago may not be applied yet.
    let mut read: Vec<_> = read.into_iter().collect();
    read.retain(|(sequence, _)| scenario.state.messages.contains_key(&(queue, *sequence)));
    assert_eq!(read, model, "queue {queue}, {first}..={last}");
}

/// Who has a handle to a large body reads it, whatever became of its message.
fn hold_and_read(store: &Store, scenario: &mut Scenario, handles: &mut Vec<(Blob, Vec<u8>)>) {
    if let Some(held) = take_handle(store, scenario) {
        handles.push(held);
    }
    for (blob, content) in &*handles {
        match whole(blob) {
            Ok(body) => assert!(content.ends_with(&body), "{blob:?}"),
            // The machine has stopped.
            Err(error) => assert_ne!(error.kind(), ErrorKind::InvalidData, "{error}"),
        }
    }
    if handles.len() > 3 {
        handles.remove(0);
    }
}

/// The recovered state must be the one after some group at or behind the last synced one.
fn judge(run: &Run, found: &State, position: Position, what: &str) {
    assert!(position >= run.synced, "{what}: synced up to {:?}, recovered up to {position:?}", run.synced);
    let mut expected = run.history.iter().rev().find(|(at, _)| *at <= position).unwrap().1.clone();
    // A large body that was not promised may be gone; then its message is, and nothing else.
    let lost: Vec<Key> =
        expected.messages.keys().filter(|key| !found.messages.contains_key(key)).copied().collect();
    for key in lost {
        assert!(run.weak.contains(&key), "{what}: {key:?} is lost");
        expected.messages.remove(&key);
        expected.attempts.remove(&key);
    }
    assert_eq!(found, &expected, "{what}: recovered up to {position:?}, synced {:?}", run.synced);
}

/// After recovery there are the files of large bodies that are alive, and no others.
fn judge_files(fs: &FaultFs, report: &RecoveryReport, what: &str) {
    let files = fs.files().into_iter().filter(|file| file.parent().is_some_and(|dir| dir.ends_with("B")));
    assert_eq!(files.count() as u64, report.blobs, "{what}");
}

#[test]
fn a_power_loss_at_any_io_keeps_what_was_covered_and_nothing_half() {
    let mut crashes = 0u64;
    for seed in 42..42 + rounds() {
        let whole = FaultFs::new();
        let run = play(&whole, seed, GROUPS);
        assert!(run.synced >= run.appended, "without faults everything is synced in the end");
        if seed == 42 {
            let stats = run.stats;
            let busy = stats.checkpoints > 5 && stats.recycled > 3 && stats.evacuations > 3;
            let paged = stats.pages > 3 && stats.pages_removed > 1 && stats.evacuated_bytes > 0;
            let busy = busy && paged;
            assert!(busy, "the scenario is not worth crashing: {stats:?}");
        }
        for io in 1..=whole.io_count() {
            let fs = FaultFs::new();
            fs.fault_at(io, Fault::Crash);
            let run = play(&fs, seed, GROUPS);
            let random = (0..4).map(|i| Survival::Random((seed << 32) + io * 8 + i));
            for survival in [Survival::None, Survival::All].into_iter().chain(random) {
                crash_and_go_on(
                    &run,
                    &fs,
                    survival,
                    &format!("seed {seed}, crash at I/O {io}, {survival:?}"),
                );
                crashes += 1;
            }
        }
    }
    eprintln!("{crashes} crashes");
    assert!(crashes > 2000, "{crashes}");
}

#[test]
fn a_power_loss_anywhere_in_a_long_life_keeps_what_was_covered_and_nothing_half() {
    let (mut crashes, mut seed) = (0, 1000);
    while crashes < LONG_CRASHES * rounds() {
        seed += 1;
        let fs = FaultFs::new();
        let mut random = Random(seed);
        let mut player = Player::new(&fs, seed).unwrap();
        let mut next = 0;
        for _ in 0..LONG_GROUPS {
            if next <= fs.io_count() {
                next = fs.io_count() + 1 + random.below(6);
                fs.fork_at(next);
            }
            // What is covered by now was covered when the power was lost.
            let synced = player.run.synced;
            player.step();
            for fork in fs.take_forks() {
                let covered = std::mem::replace(&mut player.run.synced, synced);
                let what = format!("seed {seed}, step {}, I/O {next}", player.step);
                for survival in [Survival::None, Survival::All] {
                    let (_, state, report) = open(&fork.crash(survival), options())
                        .unwrap_or_else(|e| panic!("{what}, {survival:?}: {e}"));
                    judge(&player.run, &state, report.position, &format!("{what}, {survival:?}"));
                }
                let coin = Survival::Random((seed << 32) + next);
                crash_and_go_on(&player.run, &fork, coin, &format!("{what}, {coin:?}"));
                crashes += 3;
                player.run.synced = covered;
            }
            // No test looks further back than to what is covered.
            let covered = player.run.synced;
            let old = player.run.history.partition_point(|(at, _)| *at <= covered).saturating_sub(1);
            player.run.history.drain(..old);
        }
        let run = player.end();
        assert!(run.synced >= run.appended, "seed {seed}: without faults everything is synced in the end");
        assert!(run.stats.evacuations > 0, "seed {seed}: {:?}", run.stats);
    }
    // For whoever reports how many there were.
    eprintln!("{crashes} crashes");
}

fn crash_and_go_on(run: &Run, fs: &FaultFs, survival: Survival, what: &str) {
    let after = fs.crash(survival);
    let (store, state, report) = open(&after, options()).unwrap_or_else(|e| panic!("{what}: {e}"));
    judge(run, &state, report.position, what);
    judge_files(&after, &report, what);
    if survival == Survival::All {
        assert!(report.unsynced.is_empty(), "{what}: the process died, not the machine: {report}");
    }
    // What was cut stays cut: more is written, and the next start finds exactly that.
    let mut expected = state;
    let group =
        [Op::Set { key: 99, value: vec![1, 2, 3] }, Op::Put { targets: vec![(77, 1)], body: vec![9; 40] }];
    expected.apply(&group);
    append(&store, &group, Level::Fsync);
    store.sync();
    let again = after.crash(Survival::None);
    drop(store);
    let (_, state, report) = open(&again, options()).unwrap_or_else(|e| panic!("{what}, second start: {e}"));
    assert_eq!(state, expected, "{what}, second start");
    assert!(report.tear.is_none(), "{what}: the tear was cut for good");
}

#[test]
fn a_power_loss_during_recovery_is_recovered_from() {
    let seed = 7;
    let first = FaultFs::new();
    first.fault_at(140, Fault::Crash);
    let run = play(&first, seed, 220);
    let torn = first.crash(Survival::Random(5));
    let probe = torn.copy();
    let _ = open(&probe, options()).unwrap();
    for io in 1..=probe.io_count() {
        for seed in 0..6 {
            let fs = torn.copy();
            fs.fault_at(io, Fault::Crash);
            drop(open(&fs, options()));
            let after = fs.crash(Survival::Random(seed));
            let (_, state, report) =
                open(&after, options()).unwrap_or_else(|e| panic!("I/O {io}, seed {seed}: {e}"));
            let what = format!("crash at I/O {io} of recovery, seed {seed}");
            judge(&run, &state, report.position, &what);
            judge_files(&after, &report, &what);
        }
    }
}

#[test]
fn a_failed_io_ends_the_log_and_loses_nothing_covered() {
    let seed = 11;
    let whole = FaultFs::new();
    play(&whole, seed, 160);
    for io in 1..=whole.io_count() {
        let fs = FaultFs::new();
        fs.fault_at(io, Fault::Error);
        let run = play(&fs, seed, 160);
        for survival in [Survival::None, Survival::All, Survival::Random(io)] {
            let after = fs.crash(survival);
            let (_, state, report) =
                open(&after, options()).unwrap_or_else(|e| panic!("I/O {io}, {survival:?}: {e}"));
            judge(&run, &state, report.position, &format!("error at I/O {io}, {survival:?}"));
        }
    }
}

#[test]
fn a_failed_sync_is_never_retried_and_covers_nothing() {
    let fs = FaultFs::new();
    let called = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&called);
    let mut options = options();
    options.on_fatal =
        Some(std::sync::Arc::new(move |sentence: &str| heard.lock().push(sentence.to_owned())));
    let (store, ..) = open(&fs, options).unwrap();
    let position = append(&store, &[Op::Set { key: 1, value: vec![1] }], Level::Fsync);
    fs.fault_at(fs.io_count() + 2, Fault::Error);
    store.turn();
    assert!(!store.watermark().covers(position, Level::Fsync));
    let sentence = store.failed().unwrap();
    assert!(sentence.starts_with("cannot sync ") && sentence.contains(".j"), "{sentence}");
    assert_eq!(*called.lock(), [sentence]);
    let ios = fs.io_count();
    append(&store, &[Op::Set { key: 1, value: vec![2] }], Level::Fsync);
    store.turn();
    assert!(!store.sync().covers(position, Level::Fsync));
    assert_eq!(fs.io_count(), ios, "nothing is written after a failure");
    assert_eq!(store.begin_put().err(), Some(crate::Full::Failed));
    assert!(store.close().is_err());
}

fn restart(fs: &FaultFs, store: Store, clean: bool) -> FaultFs {
    if clean {
        store.close().unwrap();
        fs.copy()
    } else {
        store.sync();
        let after = fs.crash(Survival::Random(3));
        drop(store);
        after
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same groups over one store with checkpoints, evacuations and restarts, one without any, and the
    /// model.
    #[test]
    fn checkpoints_evacuations_and_restarts_change_nothing(
        seed in any::<u64>(),
        acts in proptest::collection::vec(0u8..12, 20..250),
    ) {
        let mut scenario = Scenario::with_blobs(seed);
        let mut fs = FaultFs::new();
        let plain = FaultFs::new();
        let lazy = crate::StoreOptions {
            segment_bytes: 1 << 20, journal_bytes_max: 1 << 40, checkpoint_interval: Duration::from_secs(1 << 30), ..options()
        };
        let (mut store, ..) = open(&fs, options()).unwrap();
        let (replayed, ..) = open(&plain, lazy.clone()).unwrap();
        for act in acts {
            match act {
                0 => { fs.advance(Duration::from_secs(40)); store.turn(); }
                1 | 2 => {
                    fs = restart(&fs, store, act == 1);
                    let (opened, state, report) = open(&fs, options()).unwrap();
                    prop_assert_eq!(&state, &scenario.state);
                    prop_assert!(report.tear.is_none() && report.damage.is_empty());
                    store = opened;
                }
                3 => store.turn(),
                _ => {
                    let group = scenario.group();
                    append(&store, &group, Level::Os);
                    append(&replayed, &group, Level::Os);
                    store.turn();
                }
            }
        }
        store.close().unwrap();
        replayed.close().unwrap();
        drop((store, replayed));
        let (_, state, report) = open(&fs, options()).unwrap();
        judge_files(&fs, &report, "with checkpoints");
        let (_, full, report) = open(&plain, lazy).unwrap();
        judge_files(&plain, &report, "without");
        prop_assert_eq!(report.checkpoint, Position(0));
        prop_assert_eq!(&state, &scenario.state);
        prop_assert_eq!(&full, &scenario.state);
    }
}

#[test]
fn what_a_start_has_recovered_survives_a_loss_of_power_after_it() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    for sequence in 1..=40 {
        append(&store, &[Op::Put { targets: vec![(1, sequence)], body: vec![1; 140] }], Level::Os);
        store.turn();
        // The process dies; the system has what it wrote, the disk has not.
        let killed = fs.fork_now();
        let (next, state, _) = open(&killed, options()).unwrap();
        assert_eq!(state.messages.len() as u64, sequence);
        // Its checkpoint says that they are there, so they have to be.
        let (_, again, report) = open(&killed.crash(Survival::None), options())
            .unwrap_or_else(|e| panic!("{sequence} messages: {e}"));
        assert_eq!(again, state, "{report}");
        drop(next);
    }
}
