//! The store with its threads, also on a real disk.

use super::model::{Op, State, append};
use crate::{FaultFs, Fs, Level, RealFs, Store, StoreError, StoreOptions, Wake};
use parking_lot::{Condvar, Mutex};
use sabir_model::ids::Position;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn real(dir: &std::path::Path) -> StoreOptions {
    StoreOptions { segment_bytes: 256 << 10, journal_bytes_max: 1 << 20, ..StoreOptions::new(dir) }
}

fn open(options: StoreOptions) -> Result<(Store, State), StoreError> {
    let mut state = State::default();
    let (store, _) = Store::open(options, Arc::new(RealFs::new()), &mut state)?;
    state.load(&store).unwrap();
    Ok((store, state))
}

#[derive(Default)]
struct Bell {
    rung: Mutex<usize>,
    condvar: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock() += 1;
        self.condvar.notify_all();
    }
}

impl Bell {
    fn wait(&self) {
        let mut rung = self.rung.lock();
        while *rung == 0 {
            self.condvar.wait(&mut rung);
        }
        *rung = 0;
    }
}

#[test]
fn a_waiter_is_woken_once_when_its_position_is_covered() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(real(dir.path())).unwrap();
    for level in [Level::Fsync, Level::Os, Level::Interval(Duration::from_millis(5)), Level::Memory] {
        let bell = Arc::new(Bell::default());
        let position = append(&store, &[Op::Set { key: 1, value: vec![1] }], level);
        store.wake_at(position, level, Arc::clone(&bell) as Arc<dyn Wake>);
        bell.wait();
        assert!(store.watermark().covers(position, level));
    }
    let bell = Arc::new(Bell::default());
    store.wake_at(Position(1), Level::Fsync, Arc::clone(&bell) as Arc<dyn Wake>);
    store.sync();
    store.wake_at(Position(1), Level::Fsync, Arc::clone(&bell) as Arc<dyn Wake>);
    store.close().unwrap();
    assert_eq!(*bell.rung.lock(), 2);
    store.wake_at(Position(u64::MAX), Level::Fsync, Arc::clone(&bell) as Arc<dyn Wake>);
    assert_eq!(*bell.rung.lock(), 3, "a closed store keeps nobody waiting");
}

#[test]
fn a_group_that_holds_nothing_stands_behind_what_is_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(real(dir.path())).unwrap();
    let before = append(&store, &[Op::Set { key: 1, value: vec![1] }], Level::Os);
    let position = store.begin().finish(Level::Fsync);
    assert_eq!(position, before);
    let bell = Arc::new(Bell::default());
    store.wake_at(position, Level::Fsync, Arc::clone(&bell) as Arc<dyn Wake>);
    bell.wait();
    assert!(store.watermark().covers(position, Level::Fsync));
}

#[test]
fn a_second_store_on_the_directory_is_refused_by_name_until_the_first_closes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(real(dir.path())).unwrap();
    let error = open(real(dir.path())).unwrap_err();
    assert!(
        matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    store.close().unwrap();
    store.close().unwrap();
    assert!(open(real(dir.path())).is_ok());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let real_fs = RealFs::new();
    real_fs.create(&file).unwrap();
    let error = open(real(&file.join("store"))).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
}

#[test]
fn many_threads_append_while_segments_turn_over() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { checkpoint_interval: Duration::from_millis(5), ..real(dir.path()) };
    let (store, _) = open(options.clone()).unwrap();
    const EACH: u64 = 6000;
    let kept = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for queue in 1..=4u64 {
            let (store, kept) = (store.clone(), &kept);
            scope.spawn(move || {
                for sequence in 1..=EACH {
                    while store.pending_bytes() > 1 << 20 {
                        std::thread::yield_now();
                    }
                    let put = Op::Put { targets: vec![(queue, sequence)], body: vec![queue as u8; 150] };
                    append(&store, &[put], Level::Os);
                    if sequence % 500 == 0 {
                        kept.fetch_add(1, Ordering::Relaxed);
                        let position =
                            append(&store, &[Op::Set { key: queue as u8, value: vec![1] }], Level::Fsync);
                        assert!(store.sync().covers(position, Level::Fsync));
                    } else {
                        append(
                            &store,
                            &[Op::Acknowledge { queue, first: sequence, count: 1 }],
                            Level::Interval(Duration::from_millis(1)),
                        );
                    }
                }
            });
        }
    });
    store.close().unwrap();
    drop(store);
    let (store, state) = open(options).unwrap();
    assert_eq!(state.messages.len(), kept.load(Ordering::Relaxed));
    assert!(state.messages.keys().all(|key| key.1 % 500 == 0));
    assert!(state.next.values().all(|&next| next == EACH + 1));
    drop(store);
}

#[test]
fn dropping_the_last_handle_closes_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(real(dir.path())).unwrap();
    append(&store, &[Op::Set { key: 5, value: vec![1] }], Level::Os);
    drop(store);
    let (_, state) = open(real(dir.path())).unwrap();
    assert_eq!(state.meta.len(), 1);
}

#[test]
fn a_group_that_is_not_finished_was_never_there() {
    let fs = FaultFs::new();
    let disk: Arc<dyn Fs> = Arc::new(fs);
    let options = StoreOptions { segment_bytes: 8192, ..StoreOptions::new("store") };
    let (store, _) = Store::open(options.clone(), Arc::clone(&disk), &mut State::default()).unwrap();
    let first = append(&store, &[Op::Set { key: 1, value: vec![1] }], Level::Os);
    {
        let mut appender = store.begin();
        Op::Set { key: 2, value: vec![2] }.append(&mut appender);
    }
    let empty = store.begin().finish(Level::Fsync);
    assert_eq!(empty, first, "an empty group is as durable as the one before it");
    let second = append(&store, &[Op::Set { key: 3, value: vec![3] }], Level::Os);
    assert_eq!(second.0, first.0 + 1);
    store.close().unwrap();
    drop(store);
    let mut state = State::default();
    Store::open(options, disk, &mut state).unwrap();
    assert_eq!(state.meta.keys().map(|(_, key)| key[0]).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_crash_of_the_disk_under_threads_wakes_everybody_and_covers_nothing_new() {
    for io in (8..60).step_by(3) {
        let fs = FaultFs::new();
        fs.fault_at(io, crate::fault_fs::Fault::Crash);
        let disk: Arc<dyn Fs> = Arc::new(fs.clone());
        let options = StoreOptions { segment_bytes: 4096, ..StoreOptions::new("store") };
        let mut covered = Vec::new();
        if let Ok((store, _)) = Store::open(options.clone(), disk, &mut State::default()) {
            for key in 1..=60u8 {
                let position = append(&store, &[Op::Set { key, value: vec![key; 100] }], Level::Fsync);
                let bell = Arc::new(Bell::default());
                store.wake_at(position, Level::Fsync, Arc::clone(&bell) as Arc<dyn Wake>);
                bell.wait();
                if !store.watermark().covers(position, Level::Fsync) {
                    assert!(store.failed().is_some());
                    break;
                }
                covered.push(key);
            }
            let _ = store.close();
        }
        for seed in 0..5 {
            let disk: Arc<dyn Fs> = Arc::new(fs.crash(crate::fault_fs::Survival::Random(seed)));
            let mut state = State::default();
            Store::open(options.clone(), disk, &mut state).unwrap();
            for key in &covered {
                assert!(
                    state.meta.contains_key(&(3, vec![*key])),
                    "I/O {io}, seed {seed}: {key} was covered"
                );
            }
        }
    }
}

/// Queues filled in turn, read and acknowledged at random by others while the keeper pages them, writes pages anew and
/// lets them go.
#[test]
fn queues_are_read_and_settled_while_they_are_paged() {
    const QUEUES: u64 = 4;
    const COUNT: u64 = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        segment_bytes: 64 << 10,
        journal_bytes_max: 128 << 10,
        checkpoint_interval: Duration::from_millis(1),
        ..StoreOptions::new(dir.path())
    };
    let (store, _) = open(options.clone()).unwrap();
    let body = |queue: u64, sequence: u64| format!("{queue}/{sequence}").into_bytes();
    // The last number of each queue that was put, and the least that may have been settled.
    let put: Vec<AtomicUsize> = (0..QUEUES).map(|_| AtomicUsize::new(0)).collect();
    let is_kept = |sequence: u64| sequence.is_multiple_of(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 1..=COUNT {
                for queue in 1..=QUEUES {
                    while store.pending_bytes() > 64 << 10 {
                        std::thread::yield_now();
                    }
                    let op = Op::Put { targets: vec![(queue, sequence)], body: body(queue, sequence) };
                    append(&store, &[op], Level::Os);
                    put[queue as usize - 1].store(sequence as usize, Ordering::Release);
                }
                if sequence % 100 == 0 {
                    store.sync();
                    // Whoever is slow, the keeper has something to do.
                    while store.inner.shared.index.lock().journal_bytes() > 256 << 10 {
                        std::thread::yield_now();
                    }
                }
            }
        });
        for queue in 1..=QUEUES {
            let (store, put) = (&store, &put[queue as usize - 1]);
            scope.spawn(move || {
                let mut settled = 0;
                while settled < COUNT {
                    let last = put.load(Ordering::Acquire) as u64;
                    let from = settled.saturating_sub(400) + 1;
                    let wanted = (sabir_model::ids::Sequence(from), sabir_model::ids::Sequence(last));
                    let read = super::model::read_back(store, queue, &mut std::iter::once(wanted)).unwrap();
                    for sequence in from..=last {
                        let content = read.get(&sequence);
                        let right = |content: &Vec<u8>| {
                            content.ends_with(&[b"|".as_slice(), &body(queue, sequence)].concat())
                        };
                        let may_be_gone = sequence <= settled && !is_kept(sequence);
                        assert!(content.map_or(may_be_gone, right), "{queue}/{sequence} of {last}");
                    }
                    for first in (settled + 1..=last).filter(|sequence| !is_kept(*sequence)) {
                        append(store, &[Op::Acknowledge { queue, first, count: 1 }], Level::Os);
                    }
                    settled = last;
                }
            });
        }
    });
    store.sync();
    let stats = store.stats();
    assert!(stats.pages > 10 && stats.damaged == 0, "{stats:?}");
    store.close().unwrap();
    drop(store);
    let (store, state) = open(options).unwrap();
    let kept = (1..=QUEUES).flat_map(|queue| (1..=COUNT).filter(|n| is_kept(*n)).map(move |n| (queue, n)));
    assert!(state.messages.keys().copied().eq(kept));
    store.close().unwrap();
}

/// Holds the last handle and lets go of it on the thread that wakes it.
struct Keeper(Mutex<Option<Store>>);

impl Wake for Keeper {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().take());
    }
}

#[test]
fn the_last_handle_may_be_dropped_by_a_waker_on_the_logs_own_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(real(dir.path())).unwrap();
    let gone = Arc::new(Bell::default());
    let position = append(&store, &[Op::Set { key: 5, value: vec![1] }], Level::Os);
    let keeper = Arc::new(Keeper(Mutex::new(Some(store.clone()))));
    let last = store.watermark();
    assert!(!last.covers(Position(position.0 + 1), Level::Fsync));
    store.wake_at(Position(position.0 + 1), Level::Fsync, keeper);
    store.wake_at(Position(position.0 + 1), Level::Fsync, Arc::clone(&gone) as Arc<dyn Wake>);
    let mut appender = store.begin();
    Op::Set { key: 6, value: vec![2] }.append(&mut appender);
    appender.finish(Level::Fsync);
    drop(store);
    gone.wait();
    // Closing goes on in the background; the lock says when it is done.
    let state = loop {
        match open(real(dir.path())) {
            Ok((_, state)) => break state,
            Err(StoreError::Locked { .. }) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(state.meta.len(), 2);
}

#[test]
fn what_the_log_makes_nobody_else_on_the_machine_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    RealFs::new().create_dir_all(&data).unwrap();
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}
