//! Large bodies in files of their own: written and read in pieces, kept as long as anybody needs them.

use super::model::{Op, State, append, open, options, whole};
use crate::fault_fs::{Fault, Survival};
use crate::{
    BLOB_PIECE_BYTES, Blob, FaultFs, Full, Level, Payload, PutMeta, RealFs, Store, StoreOptions,
    is_storage_full,
};
use sabir_model::ids::{Position, QueueId, Sequence};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn body(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed).collect()
}

pub(super) fn written(store: &Store, body: &[u8], level: Level) -> Blob {
    let mut writer = store.blob(body.len() as u64).unwrap();
    // In pieces of an odd size.
    for piece in body.chunks(100_001) {
        writer.write(piece).unwrap();
    }
    assert_eq!(writer.written(), body.len() as u64);
    writer.finish(level).unwrap()
}

pub(super) fn put(store: &Store, targets: &[(u64, u64)], blob: &Blob, level: Level) -> Position {
    let targets: Vec<_> = targets.iter().map(|at| (QueueId(at.0), Sequence(at.1))).collect();
    let mut group = store.begin_put().unwrap();
    group.put_blob(&targets, PutMeta::default(), &[b"he", b"ad"], blob);
    group.finish(level)
}

pub(super) fn acknowledge(store: &Store, queue: u64, sequence: u64) {
    append(store, &[Op::Acknowledge { queue, first: sequence, count: 1 }], Level::Fsync);
}

/// The blob of a live message, as reading the queue gives it.
pub(super) fn read(store: &Store, queue: u64, sequence: u64) -> Option<Blob> {
    let mut found = None;
    let mut wanted = std::iter::once((Sequence(sequence), Sequence(sequence)));
    store
        .read(QueueId(queue), &mut wanted, &mut |_, _, head, payload| {
            assert_eq!(head, b"head");
            if let Payload::Blob(blob) = payload {
                found = Some(blob);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// Files of blobs on a simulated disk.
pub(super) fn files(fs: &FaultFs) -> Vec<PathBuf> {
    fs.files().into_iter().filter(|file| file.parent().is_some_and(|dir| dir.ends_with("B"))).collect()
}

/// Lets the keeper write a checkpoint.
pub(super) fn checkpoint(fs: &FaultFs, store: &Store) {
    store.sync();
    fs.advance(Duration::from_secs(31));
    store.turn();
    store.turn();
}

#[test]
fn a_large_body_is_written_and_read_in_pieces_and_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let mut state = State::default();
        let options = StoreOptions { segment_bytes: 1 << 20, ..StoreOptions::new(dir.path()) };
        Store::open(options, Arc::new(RealFs::new()), &mut state).unwrap().0
    };
    let body = body(5 * BLOB_PIECE_BYTES + 777, 1);
    let store = open();
    let blob = written(&store, &body, Level::Fsync);
    let position = put(&store, &[(1, 1), (2, 1)], &blob, Level::Fsync);
    drop(blob);
    assert!(store.sync().covers(position, Level::Fsync));
    assert_eq!(store.stats().blobs, 1);
    store.close().unwrap();
    drop(store);
    let store = open();
    for queue in [1, 2] {
        let blob = read(&store, queue, 1).unwrap();
        assert_eq!(blob.len(), body.len() as u64);
        for (offset, len) in [
            (0, 10),
            (BLOB_PIECE_BYTES - 5, 10),
            (BLOB_PIECE_BYTES, 3 * BLOB_PIECE_BYTES),
            (1, 4 * BLOB_PIECE_BYTES),
        ] {
            let mut into = vec![0; len];
            assert_eq!(blob.read_at(offset as u64, &mut into).unwrap(), len);
            assert_eq!(into, body[offset..offset + len], "{offset}");
        }
        let mut into = vec![0; 1000];
        assert_eq!(blob.read_at(body.len() as u64 - 7, &mut into).unwrap(), 7);
        assert_eq!(blob.read_at(body.len() as u64, &mut into).unwrap(), 0);
        assert_eq!(blob.read_at(u64::MAX, &mut into).unwrap(), 0);
    }
    let id = read(&store, 1, 1).unwrap().id();
    assert!(store.open_blob(id).is_some() && store.open_blob(id + 1).is_none());
}

#[test]
fn the_file_goes_when_the_last_queue_has_settled_and_nobody_holds_it() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    let body = body(70_000, 2);
    let blob = written(&store, &body, Level::Fsync);
    put(&store, &[(1, 1), (2, 1)], &blob, Level::Fsync);
    // As a dead letter: the same body once more, elsewhere, in one group with the settling.
    store.sync();
    let mut group = store.begin();
    group.acknowledge(QueueId(1), Sequence(1), 1);
    group.put_blob(&[(QueueId(3), Sequence(1))], PutMeta::default(), &[b"head"], &blob);
    group.finish(Level::Fsync);
    drop(blob);
    checkpoint(&fs, &store);
    acknowledge(&store, 2, 1);
    checkpoint(&fs, &store);
    assert_eq!(files(&fs).len(), 1);
    let blob = read(&store, 3, 1).unwrap();
    acknowledge(&store, 3, 1);
    checkpoint(&fs, &store);
    assert!(read(&store, 3, 1).is_none());
    assert_eq!(whole(&blob).unwrap(), body, "who has a handle reads");
    assert_eq!(files(&fs).len(), 1);
    drop(blob);
    store.turn();
    assert!(files(&fs).is_empty());
    assert_eq!((store.stats().blobs, store.stats().blob_bytes), (0, 0));
}

#[test]
fn what_is_not_finished_or_not_put_is_deleted() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    let mut writer = store.blob(0).unwrap();
    writer.write(&body(200_000, 1)).unwrap();
    let finished = written(&store, &body(100, 1), Level::Fsync);
    assert_eq!(files(&fs).len(), 2);
    store.turn();
    assert_eq!(files(&fs).len(), 2);
    let mut group = store.begin_put().unwrap();
    group.put_blob(&[(QueueId(1), Sequence(1))], PutMeta::default(), &[b"head"], &finished);
    drop(group);
    drop((writer, finished));
    store.turn();
    assert!(files(&fs).is_empty());
    assert_eq!((store.stats().blobs, store.stats().blob_bytes), (0, 0));
}

#[test]
fn what_was_not_promised_is_lost_with_the_power_and_nothing_else_is() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    let (weak, strong) =
        (written(&store, &body(5000, 1), Level::Os), written(&store, &body(5000, 2), Level::Fsync));
    put(&store, &[(1, 1), (2, 1)], &weak, Level::Os);
    put(&store, &[(1, 2)], &strong, Level::Fsync);
    store.turn();
    // The frame is on the disk now, and only one of the bodies that it names.
    let after = fs.crash(Survival::None);
    let (_, state, report) = open(&after, options()).unwrap();
    let live: Vec<_> = state.messages.keys().copied().collect();
    assert_eq!(live, [(1, 2)], "{report}");
    let lost: Vec<_> = report.unsynced.iter().map(|lost| (lost.queue.0, lost.first, lost.last)).collect();
    assert_eq!(lost, [(1, 1, 1), (2, 1, 1)]);
    assert!(report.to_string().contains("had not reached the disk"), "{report}");
    assert_eq!(files(&after).len(), 1, "what was left of it is removed");
    // Once it is given up it is not missed again.
    let (_, _, report) = open(&after.copy(), options()).unwrap();
    assert!(report.unsynced.is_empty());
    // If only the process dies, all is there; and a checkpoint makes it durable.
    assert_eq!(open(&fs.crash(Survival::All), options()).unwrap().1.messages.len(), 3);
    checkpoint(&fs, &store);
    assert_eq!(open(&fs.crash(Survival::None), options()).unwrap().1.messages.len(), 3);
}

#[test]
fn a_put_that_promises_more_than_its_body_does_is_made_good_before_it_is_written() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    let blob = written(&store, &body(5000, 1), Level::Os);
    put(&store, &[(1, 1)], &blob, Level::Os);
    store.turn();
    let position = put(&store, &[(2, 1)], &blob, Level::Fsync);
    store.turn();
    assert!(store.watermark().covers(position, Level::Fsync));
    let (_, state, report) = open(&fs.crash(Survival::None), options()).unwrap();
    assert!(state.messages.contains_key(&(2, 1)), "{report}");
    // Whoever knows beforehand syncs it himself.
    let blob = written(&store, &body(5000, 2), Level::Os);
    blob.sync().unwrap();
    let before = fs.io_count();
    blob.sync().unwrap();
    assert_eq!(fs.io_count(), before, "once");
    put(&store, &[(2, 2)], &blob, Level::Fsync);
    store.turn();
    assert!(open(&fs.crash(Survival::None), options()).unwrap().1.messages.contains_key(&(2, 2)));
}

#[test]
fn evacuation_moves_the_name_and_not_the_body() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    let body = body(50_000, 1);
    let blob = written(&store, &body, Level::Fsync);
    put(&store, &[(1, 1), (2, 1)], &blob, Level::Fsync);
    append(&store, &[Op::Reference { to: (3, 1), from: (2, 1) }], Level::Fsync);
    drop(blob);
    for sequence in 1..=400 {
        append(&store, &[Op::Put { targets: vec![(9, sequence)], body: vec![1; 140] }], Level::Os);
        if sequence % 9 != 0 {
            append(&store, &[Op::Acknowledge { queue: 9, first: sequence, count: 1 }], Level::Os);
        }
        store.turn();
    }
    append(&store, &[Op::Delete { queue: 9 }], Level::Os);
    store.turn();
    let stats = store.stats();
    assert!(stats.evacuations > 0 && stats.evacuated_bytes < 50_000, "{stats:?}");
    acknowledge(&store, 2, 1);
    for queue in [1, 3] {
        assert_eq!(whole(&read(&store, queue, 1).unwrap()).unwrap(), body);
    }
    store.close().unwrap();
    let (store, state, _) = open(&fs, options()).unwrap();
    assert_eq!(state.messages.keys().copied().collect::<Vec<_>>(), [(1, 1), (3, 1)]);
    append(&store, &[Op::Delete { queue: 1 }], Level::Fsync);
    checkpoint(&fs, &store);
    assert_eq!(files(&fs).len(), 1);
    append(&store, &[Op::Delete { queue: 3 }], Level::Fsync);
    checkpoint(&fs, &store);
    assert!(files(&fs).is_empty());
}

#[test]
fn bodies_count_against_the_limits_of_the_disk_and_give_back_what_they_took() {
    let fs = FaultFs::new();
    let options = StoreOptions { disk_bytes_max: Some(100_000), ..options() };
    let (store, ..) = open(&fs, options).unwrap();
    assert_eq!(store.blob(100_000).err(), Some(Full::Disk));
    let promised = store.blob(60_000).unwrap();
    assert_eq!(store.blob(60_000).err(), Some(Full::Disk), "the space is promised already");
    drop(promised);
    let blob = written(&store, &body(60_000, 1), Level::Fsync);
    assert_eq!(store.stats().blob_bytes, 60_000 + 59 * 4 + 32);
    // More than was expected is allowed as far as the limits go.
    let mut writer = store.blob(10).unwrap();
    writer.write(&[1; 10_000]).unwrap();
    let error = writer.write(&[1; 60_000]).unwrap_err();
    assert!(is_storage_full(&error), "{error}");
    assert!(writer.finish(Level::Fsync).is_err(), "who lost a piece does not go on");
    drop(blob);
    store.turn();
    assert_eq!((store.stats().blobs, store.stats().blob_bytes), (0, 0));
    written(&store, &body(60_000, 1), Level::Fsync);
    // The free space of the disk counts as well, what is promised of it is not free.
    let fs = FaultFs::new();
    let options = StoreOptions { disk_free_bytes_min: 10_000, ..super::model::options() };
    let (store, ..) = open(&fs, options).unwrap();
    fs.set_capacity(Some(fs.used() + 50_000));
    assert_eq!(store.blob(45_000).err(), Some(Full::Disk));
    let promised = store.blob(30_000).unwrap();
    assert_eq!(store.blob(20_000).err(), Some(Full::Disk));
    drop(promised);
    assert!(store.blob(20_000).is_ok());
}

#[test]
fn a_full_or_failing_disk_refuses_the_body_and_harms_nothing_else() {
    for fault in [false, true] {
        let fs = FaultFs::new();
        let (store, ..) = open(&fs, options()).unwrap();
        put(&store, &[(1, 1)], &written(&store, &body(3000, 1), Level::Fsync), Level::Fsync);
        let mut writer = store.blob(30_000).unwrap();
        writer.write(&body(5_000, 2)).unwrap();
        if fault {
            fs.fault_at(fs.io_count() + 1, Fault::Error);
        } else {
            fs.set_capacity(Some(fs.used() + 500));
        }
        assert!(writer.write(&body(20_000, 2)).is_err());
        assert!(writer.write(b"more").is_err() && writer.finish(Level::Fsync).is_err());
        fs.set_capacity(None);
        store.turn();
        assert_eq!((files(&fs).len(), store.failed()), (1, None));
        assert_eq!(whole(&read(&store, 1, 1).unwrap()).unwrap(), body(3000, 1));
        // A failed sync is not retried: the body is refused, and written anew by who sends it again.
        let mut writer = store.blob(3000).unwrap();
        writer.write(&body(3000, 3)).unwrap();
        fs.fault_at(fs.io_count() + 3, Fault::Error);
        assert!(writer.finish(Level::Fsync).is_err());
        store.turn();
        assert_eq!((files(&fs).len(), store.failed()), (1, None));
    }
}

#[test]
fn settled_bodies_are_freed_soon_if_they_are_much_or_the_disk_is_full() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    put(&store, &[(1, 1)], &written(&store, &body(9_000, 1), Level::Fsync), Level::Fsync);
    acknowledge(&store, 1, 1);
    store.sync();
    // No time passes.
    store.turn();
    store.turn();
    assert!(files(&fs).is_empty(), "twice a segment's worth");
    put(&store, &[(1, 2)], &written(&store, &body(900, 1), Level::Fsync), Level::Fsync);
    acknowledge(&store, 1, 2);
    store.sync();
    store.turn();
    store.turn();
    assert_eq!(files(&fs).len(), 1);
    // Room for a checkpoint, and for no segment.
    fs.set_capacity(Some(fs.used() + 4000));
    for sequence in 1..=120 {
        append(&store, &[Op::Put { targets: vec![(9, sequence)], body: vec![1; 140] }], Level::Os);
        store.turn();
    }
    assert!(store.stats().disk_full);
    assert!(files(&fs).is_empty());
}

#[test]
fn who_writes_or_holds_a_body_when_the_log_closes_is_told_and_nothing_is_left_over() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    let mut writer = store.blob(0).unwrap();
    writer.write(&body(4_000, 1)).unwrap();
    let loose = written(&store, &body(4_000, 2), Level::Os);
    let kept = written(&store, &body(4_000, 3), Level::Os);
    put(&store, &[(1, 1)], &kept, Level::Os);
    store.close().unwrap();
    assert!(writer.write(b"more").is_err() && writer.finish(Level::Os).is_err());
    assert_eq!(store.blob(1).err(), Some(Full::Failed));
    drop(store);
    let (store, state, report) = open(&fs.crash(Survival::None), options()).unwrap();
    assert_eq!(state.messages.len(), 1, "closing syncs everything: {report}");
    drop(store);
    let (store, _, report) = open(&fs, options()).unwrap();
    assert_eq!((report.blobs, report.orphans, files(&fs).len()), (1, 2, 1), "{report}");
    // Handles of the closed log do no harm to the files of this one.
    let again = written(&store, &body(10, 1), Level::Fsync);
    assert!(again.id() > kept.id());
    drop((loose, kept));
    assert!(read(&store, 1, 1).is_some());
}

#[test]
fn many_threads_write_read_and_settle_and_leave_nothing_behind() {
    const EACH: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    let options = StoreOptions {
        segment_bytes: 64 << 10,
        journal_bytes_max: 256 << 10,
        checkpoint_interval: Duration::from_millis(3),
        ..StoreOptions::new(dir.path())
    };
    let (store, _) = Store::open(options, Arc::new(RealFs::new()), &mut state).unwrap();
    std::thread::scope(|scope| {
        for queue in 1..=4u64 {
            let store = store.clone();
            scope.spawn(move || {
                let mut held = Vec::new();
                for sequence in 1..=EACH {
                    let content = body(7_000 + sequence as usize * 13, queue as u8);
                    let blob =
                        written(&store, &content, if queue % 2 == 0 { Level::Os } else { Level::Fsync });
                    put(&store, &[(queue, sequence), (queue + 10, sequence)], &blob, Level::Os);
                    drop(blob);
                    let blob = read(&store, queue, sequence).unwrap();
                    acknowledge(&store, queue, sequence);
                    assert_eq!(whole(&blob).unwrap(), content);
                    // As a dead letter, and back.
                    put(&store, &[(queue + 20, sequence)], &blob, Level::Os);
                    acknowledge(&store, queue + 10, sequence);
                    acknowledge(&store, queue + 20, sequence);
                    held.push((blob, content));
                    if held.len() > 3 {
                        let (blob, content) = held.remove(0);
                        assert_eq!(whole(&blob).unwrap(), content);
                    }
                }
            });
        }
    });
    store.sync();
    store.close().unwrap();
    drop(store);
    let (store, report) =
        Store::open(StoreOptions::new(dir.path()), Arc::new(RealFs::new()), &mut State::default()).unwrap();
    assert_eq!((report.blobs, report.messages, store.stats().blobs), (0, 0, 0), "{report}");
    assert_eq!(std::fs::read_dir(dir.path().join("shard-0/B")).unwrap().count(), 0);
}

#[test]
fn a_start_deletes_nothing_that_a_loss_of_power_right_after_it_would_bring_back() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    put(&store, &[(1, 1)], &written(&store, &body(3000, 1), Level::Fsync), Level::Fsync);
    store.sync();
    append(&store, &[Op::Acknowledge { queue: 1, first: 1, count: 1 }], Level::Os);
    // Written, not synced; then the process dies.
    store.turn();
    let killed = fs.fork_now();
    let (_, state, _) = open(&killed.crash(Survival::All), options()).unwrap();
    assert!(state.messages.is_empty(), "the next start knows that it is settled");
    let (_, state, _) = open(&killed.crash(Survival::None), options()).unwrap();
    assert_eq!(state.messages.len(), 1, "but the disk does not");
    let mut removed = 0;
    for io in 1.. {
        // The next start is interrupted by a loss of power.
        let fork = killed.fork_now();
        fork.fault_at(io, Fault::Crash);
        let opened = open(&fork, options()).is_ok();
        for survival in [Survival::None, Survival::All, Survival::Random(io), Survival::Random(io + 1000)] {
            let after = fork.crash(survival);
            let (_, _, report) =
                open(&after, options()).unwrap_or_else(|e| panic!("I/O {io}, {survival:?}: {e}"));
            assert_eq!(report.blobs, files(&after).len() as u64);
            removed += u64::from(report.blobs == 0);
        }
        if opened && fork.io_count() < io {
            break;
        }
    }
    assert!(removed > 0);
}

#[test]
fn a_body_that_is_to_be_synced_waits_for_a_descriptor() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    let blob = written(&store, &body(5000, 1), Level::Os);
    fs.set_without_descriptors(true);
    let position = put(&store, &[(1, 1)], &blob, Level::Fsync);
    for _ in 0..3 {
        store.turn();
    }
    assert_eq!(store.failed(), None, "that is no failure");
    assert!(!store.watermark().covers(position, Level::Os));
    fs.set_without_descriptors(false);
    store.turn();
    assert!(store.watermark().covers(position, Level::Fsync));
    let fs = fs.crash(Survival::None);
    let (store, ..) = open(&fs, options()).unwrap();
    assert!(whole(&read(&store, 1, 1).unwrap()).unwrap() == body(5000, 1));
}
