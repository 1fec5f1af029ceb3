//! Looking at a log that nobody has open, and mending it.

use super::model::{Random, Scenario, append, open, options};
use crate::{FaultFs, Fs, Level, Offline, Progress, StoreError};
use sabir_model::ids::{QueueId, Sequence};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn offline(fs: &FaultFs) -> Result<Offline, StoreError> {
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    Offline::open(Path::new("store"), disk)
}

fn quiet() -> Progress {
    Arc::new(|_, _| {})
}

/// A store with checkpoints, evacuated segments and a few hundred groups behind it.
fn lived(seed: u64, groups: usize) -> (FaultFs, Scenario) {
    let fs = FaultFs::new();
    let mut scenario = Scenario::with_blobs(seed);
    let (store, ..) = open(&fs, options()).unwrap();
    for step in 0..groups {
        let group = scenario.group();
        append(&store, &group, Level::Interval(Duration::from_secs(1)));
        store.turn();
        if step % 50 == 49 {
            fs.advance(Duration::from_secs(31));
        }
    }
    store.close().unwrap();
    (fs, scenario)
}

fn contents(fs: &FaultFs) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    let files = fs.files().into_iter().filter(|path| !path.ends_with("LOCK"));
    files.map(|path| (path.clone(), fs.contents(&path))).collect()
}

#[test]
fn inspecting_tells_what_is_in_a_log_and_changes_nothing() {
    let (fs, scenario) = lived(5, 300);
    let before = contents(&fs);
    let mut entries = 0;
    let inspection = offline(&fs).unwrap().inspect(&mut |_, _, _| entries += 1).unwrap();
    assert_eq!(contents(&fs), before);
    assert_eq!(
        (inspection.format, inspection.entries),
        (crate::manifest::FORMAT, scenario.state.meta.len() as u64)
    );
    assert_eq!(entries, inspection.entries);
    assert_eq!(inspection.queues.len(), scenario.state.next.len());
    for info in &inspection.queues {
        let id = info.queue.0;
        let model: Vec<_> = scenario.state.messages.range((id, 0)..=(id, u64::MAX)).collect();
        assert_eq!(info.messages, model.len() as u64);
        assert_eq!(info.oldest, model.first().map(|(key, _)| Sequence(key.1)));
        assert_eq!(info.next, Sequence(scenario.state.next[&id]));
        let bodies: usize = model.iter().map(|(_, content)| content.len()).sum();
        let bytes = info.bytes + info.large_bytes;
        assert!(bytes.abs_diff(bodies as u64) <= bodies as u64 / 2 + 40, "{info:?}, {bodies}");
    }
    let live: u64 = inspection.segments.iter().map(|segment| segment.live).sum();
    assert_eq!(live, scenario.state.messages.len() as u64);
}

#[test]
fn a_log_that_is_open_or_not_there_is_not_looked_at() {
    let fs = FaultFs::new();
    assert!(matches!(offline(&fs), Err(StoreError::Absent { .. })));
    assert!(fs.files().is_empty());
    let (store, ..) = open(&fs, options()).unwrap();
    assert!(matches!(offline(&fs), Err(StoreError::Locked { .. })));
    store.close().unwrap();
    let looking = offline(&fs).unwrap();
    assert!(matches!(open(&fs, options()), Err(StoreError::Locked { .. })));
    drop(looking);
    assert!(open(&fs, options()).is_ok());
}

#[test]
fn verifying_a_sound_log_reads_all_of_it_and_finds_nothing() {
    let (fs, scenario) = lived(6, 300);
    let before = contents(&fs);
    let verification = offline(&fs).unwrap().verify(quiet()).unwrap();
    assert!(verification.is_sound(), "{verification:?}");
    assert_eq!(verification.report.messages, scenario.state.messages.len() as u64);
    let live: u64 =
        before.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "j")).count() as u64;
    assert!(verification.report.bytes_read > live * 1024, "{verification:?}");
    assert_eq!(contents(&fs), before);
}

#[test]
fn verifying_tells_what_repairing_gives_up_and_what_is_repaired_is_sound() {
    let (fs, scenario) = lived(7, 260);
    let whole = offline(&fs).unwrap().inspect(&mut |_, _, _| {}).unwrap().position;
    let mut random = Random(1);
    let files: Vec<_> =
        fs.files().into_iter().filter(|path| !path.ends_with("LOCK") && !path.ends_with("spare")).collect();
    let (mut damaged, mut lossy, mut bodies) = (0, 0, 0);
    for round in 0..400 {
        let rotten = fs.copy();
        for _ in 0..=random.below(3) {
            let path = &files[random.below(files.len() as u64) as usize];
            let mut bytes = rotten.contents(path).unwrap();
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at..].iter_mut().take(300).for_each(|byte| *byte = 0),
                _ => bytes.truncate(at),
            }
            rotten.put(path, &bytes);
        }
        let before = contents(&rotten);
        let looking = match offline(&rotten) {
            Ok(looking) => looking,
            // Both manifests, or one that claims to be newer.
            Err(StoreError::Corrupt { .. } | StoreError::NewerFormat { .. }) => continue,
            Err(other) => panic!("round {round}: {other}"),
        };
        let found = looking.verify(quiet()).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(contents(&rotten), before, "round {round}: verifying changes nothing");
        let opens = open(&rotten.copy(), options());
        if found.is_sound() {
            let (_, state, report) = opens.unwrap_or_else(|e| panic!("round {round}: {e}"));
            // A file that ends with its mark cut off looks like a log that ended earlier.
            let earlier = report.tear.is_some() || report.position < whole;
            assert!(earlier || state == scenario.state, "round {round}: {report}");
            continue;
        }
        damaged += 1;
        let report = looking.repair().unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(report.lost, found.report.lost, "round {round}");
        assert_eq!(report.bodies, found.report.bodies, "round {round}");
        bodies += report.bodies.len();
        lossy += u32::from(!report.lost.is_empty());
        let again = offline(&rotten).unwrap().verify(quiet()).unwrap();
        assert!(again.is_sound(), "round {round}: {again:?}");
        let (_, state, _) = open(&rotten, options()).unwrap_or_else(|e| panic!("round {round}: {e}"));
        for (key, content) in
            scenario.state.messages.iter().filter(|(key, _)| state.messages.contains_key(key))
        {
            assert_eq!(&state.messages[key], content, "round {round}");
        }
        // Where the index was not hit, what is gone is named.
        if found.report.damage.iter().all(|damage| damage.file.extension().is_none_or(|e| e != "ckpt")) {
            for key in scenario.state.messages.keys().filter(|key| !state.messages.contains_key(key)) {
                let behind = |lost: &&crate::LostRange| lost.queue == QueueId(key.0);
                let named =
                    report.lost.iter().filter(behind).any(|lost| (lost.first..=lost.last).contains(&key.1));
                let newest = state.messages.range((key.0, key.1)..=(key.0, u64::MAX)).next().is_none();
                assert!(named || newest, "round {round}: {key:?} is gone, {report}");
            }
        }
    }
    let enough = damaged > 100 && lossy > 50 && bodies > 50;
    assert!(enough, "{damaged} damaged, {lossy} lossy, {bodies} large bodies");
}
