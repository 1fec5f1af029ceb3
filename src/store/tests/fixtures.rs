//! Data directories that released formats wrote: they stay readable. `SABIR_WRITE_FIXTURES=1` writes those of the
//! present format anew; do that only before its release.

use super::model::{Op, State, append, open, options};
use crate::fault_fs::Survival;
use crate::{FaultFs, Level, StoreOptions};
use sabir_model::ids::Position;
use std::path::{Path, PathBuf};

const PRESENT: &str = "store-v3";

fn directory(format: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format).join(name)
}

fn load(format: &str, name: &str) -> FaultFs {
    fn walk(fs: &FaultFs, from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let place = to.join(path.file_name().unwrap());
            if path.is_dir() {
                walk(fs, &path, &place);
            } else {
                fs.put(&place, &std::fs::read(&path).unwrap());
            }
        }
    }
    let fs = FaultFs::new();
    walk(&fs, &directory(format, name), Path::new("store"));
    fs
}

fn save(fs: &FaultFs, name: &str) {
    let _ = std::fs::remove_dir_all(directory(PRESENT, name));
    // The spare checkpoint is only space.
    for file in fs.files().into_iter().filter(|file| !file.ends_with("spare")) {
        let to = directory(PRESENT, name).join(file.strip_prefix("store").unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let mut contents = fs.contents(&file).unwrap();
        if file.extension().is_some_and(|extension| extension == "ckpt") {
            // What is behind the checkpoint is only space, too.
            contents.truncate(1024);
        }
        std::fs::write(to, contents).unwrap();
    }
}

fn put(queue: u64, sequence: u64) -> Op {
    Op::Put { targets: vec![(queue, sequence)], body: vec![b'a'.wrapping_add(sequence as u8); 120] }
}

/// What the fixture `checkpointed` holds: first what its checkpoint folds in, then what lies behind it.
fn checkpointed() -> [Vec<Vec<Op>>; 2] {
    let mut before: Vec<Vec<Op>> = (1..=60).map(|sequence| vec![put(1, sequence)]).collect();
    before.push(vec![Op::Put { targets: vec![(1, 61), (2, 1)], body: b"for two".to_vec() }]);
    before.push(vec![Op::Reference { to: (3, 9), from: (1, 20) }, Op::Attempts { key: (1, 30), count: 2 }]);
    before.push(vec![Op::Set { key: 1, value: b"kept".to_vec() }]);
    let settled = (1..=18).chain((19..=61).filter(|n| n % 3 == 0));
    before.extend(settled.map(|first| vec![Op::Acknowledge { queue: 1, first, count: 1 }]));
    let mut behind: Vec<Vec<Op>> = (62..=70).map(|sequence| vec![put(1, sequence)]).collect();
    behind.push(vec![Op::Reference { to: (3, 10), from: (1, 40) }]);
    behind.push(vec![Op::Acknowledge { queue: 1, first: 50, count: 15 }]);
    [before, behind]
}

fn write_checkpointed() {
    let fs = FaultFs::new();
    let options = StoreOptions { journal_bytes_max: 12 << 10, ..options() };
    for groups in checkpointed() {
        let (store, ..) = open(&fs, options.clone()).unwrap();
        for group in &groups {
            append(&store, group, Level::Fsync);
            store.sync();
        }
        store.turn();
        store.close().unwrap();
    }
    save(&fs, "checkpointed");
}

/// What the fixture `large` holds, in the same way. Bodies of one piece, for pieces are smaller in tests.
fn large() -> [Vec<Vec<Op>>; 2] {
    let large =
        |targets: &[(u64, u64)], byte| Op::PutBlob { targets: targets.to_vec(), body: vec![byte; 900] };
    let before = vec![vec![large(&[(1, 1), (2, 1)], b'a')], vec![put(1, 2)], vec![large(&[(1, 3)], b'b')]];
    let behind = vec![
        vec![large(&[(1, 4)], b'c')],
        vec![
            Op::Again { targets: vec![(3, 1)], from: (1, 3) },
            Op::Acknowledge { queue: 1, first: 3, count: 1 },
        ],
        vec![Op::Acknowledge { queue: 2, first: 1, count: 1 }],
    ];
    [before, behind]
}

fn write_large() {
    let fs = FaultFs::new();
    for groups in large() {
        let (store, ..) = open(&fs, options()).unwrap();
        for group in &groups {
            append(&store, group, Level::Fsync);
            store.sync();
        }
        store.close().unwrap();
    }
    // As it is, without what another start would fold in.
    save(&fs, "large");
}

fn write() {
    let fs = FaultFs::new();
    // Enough of a budget that nothing moves: the fixture holds every kind of op but `moved`.
    let options = StoreOptions { journal_bytes_max: 1 << 20, ..options() };
    let (store, ..) = open(&fs, options).unwrap();
    for sequence in 1..=10 {
        append(&store, &[put(1, sequence)], Level::Fsync);
    }
    append(
        &store,
        &[Op::Set { key: 1, value: b"kept".to_vec() }, Op::Set { key: 2, value: vec![0] }],
        Level::Fsync,
    );
    append(&store, &[Op::Acknowledge { queue: 1, first: 1, count: 6 }, Op::Remove { key: 2 }], Level::Fsync);
    append(&store, &[put(2, 1), Op::Attempts { key: (1, 8), count: 3 }], Level::Fsync);
    append(&store, &[Op::Reference { to: (3, 4), from: (1, 7) }, Op::Delete { queue: 2 }], Level::Fsync);
    store.sync();
    append(&store, &[put(1, 11), Op::Set { key: 3, value: vec![9; 1500] }], Level::Os);
    store.turn();
    let torn = (0..).map(|seed| fs.crash(Survival::Random(seed))).find(|after| {
        let (_, state, report) = open(&after.copy(), super::model::options()).unwrap();
        report.tear.is_some() && !state.messages.contains_key(&(1, 11))
    });
    save(&torn.unwrap(), "torn");
    store.close().unwrap();
    save(&fs, "closed");
    write_checkpointed();
    write_large();
}

#[test]
fn stores_of_all_formats_are_read() {
    if std::env::var_os("SABIR_WRITE_FIXTURES").is_some() {
        write();
    }
    for (format, name, last) in ["store-v1", "store-v2", PRESENT]
        .into_iter()
        .flat_map(|format| [(format, "closed", 15), (format, "torn", 14)])
    {
        let fs = load(format, name);
        let (_, state, report) = open(&fs, options()).unwrap_or_else(|e| panic!("{format} {name}: {e}"));
        assert_eq!(report.position, Position(last), "{name}");
        assert_eq!(report.tear.is_some(), name == "torn");
        let mut keys = vec![(1, 7), (1, 8), (1, 9), (1, 10), (3, 4)];
        if name == "closed" {
            keys.insert(4, (1, 11));
        }
        assert_eq!(state.messages.keys().copied().collect::<Vec<_>>(), keys, "{name}");
        assert_eq!(state.messages[&(3, 4)], state.messages[&(1, 7)]);
        assert_eq!(state.attempts.get(&(1, 8)), Some(&3));
        assert_eq!(state.meta.get(&(3, vec![1])), Some(&b"kept".to_vec()));
        assert!(!state.meta.contains_key(&(3, vec![2])));
        assert_eq!(state.next[&1], if name == "closed" { 12 } else { 11 });
    }
}

#[test]
fn a_checkpoint_of_an_older_format_names_its_messages_and_the_next_one_is_of_the_present() {
    let manifest = |fs: &FaultFs| fs.contents(Path::new("store/MANIFEST.a")).unwrap()[8];
    for (format, number) in [("store-v1", 1), ("store-v2", 2), (PRESENT, 3)] {
        let fs = load(format, "checkpointed");
        assert_eq!(manifest(&fs), number);
        let mut expected = State::default();
        checkpointed().iter().flatten().for_each(|group| expected.apply(group));
        let options = StoreOptions { journal_bytes_max: 12 << 10, ..options() };
        let (store, state, report) = open(&fs, options.clone()).unwrap();
        assert_eq!(state, expected, "{format}");
        assert!(report.checkpoint > Position(90), "{report}");
        assert_eq!(manifest(&fs), 3);
        // It lives on: holes, evacuation, another start.
        let mut more: Vec<Vec<Op>> = (71..=200).map(|sequence| vec![put(1, sequence)]).collect();
        more.extend(
            (20..=190)
                .filter(|n| n % 5 != 0)
                .map(|first| vec![Op::Acknowledge { queue: 1, first, count: 1 }]),
        );
        for group in &more {
            expected.apply(group);
            append(&store, group, Level::Os);
            store.turn();
        }
        assert!(store.stats().evacuations > 0, "{:?}", store.stats());
        store.close().unwrap();
        drop(store);
        let (_, state, _) = open(&fs, options).unwrap();
        assert_eq!(state, expected, "{format}");
    }
}

#[test]
fn large_bodies_of_all_formats_that_have_them_are_read() {
    let fs = load(PRESENT, "large");
    let mut expected = State::default();
    large().iter().flatten().for_each(|group| expected.apply(group));
    let (_, state, report) = open(&fs, options()).unwrap();
    assert_eq!(state, expected);
    assert!(report.checkpoint > Position(0), "some are named by the checkpoint: {report}");
    assert_eq!((report.blobs, report.orphans), (3, 0));
}
