//! Large bodies in files of their own: written and read in pieces, kept as long as anybody needs them.

use super::model::{Op, State, append, open, options, read_back, whole};
use crate::{
    BLOB_PIECE_BYTES, Blob, FaultFs, Fs, Full, Level, Payload, PutMeta, RealFs, Store, StoreOptions,
};
use sabir_model::ids::{Position, QueueId, Sequence};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn body(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed).collect()
}

fn written(store: &Store, body: &[u8], level: Level) -> Blob {
    let mut writer = store.blob(body.len() as u64).unwrap();
    // In pieces of an odd size.
    for piece in body.chunks(100_001) {
        writer.write(piece).unwrap();
    }
    assert_eq!(writer.written(), body.len() as u64);
    writer.finish(level).unwrap()
}

fn put(store: &Store, targets: &[(u64, u64)], blob: &Blob, level: Level) -> Position {
    let targets: Vec<_> = targets.iter().map(|at| (QueueId(at.0), Sequence(at.1))).collect();
    let mut group = store.begin_put().unwrap();
    group.put_blob(&targets, PutMeta::default(), &[b"he", b"ad"], blob);
    group.finish(level)
}

fn acknowledge(store: &Store, queue: u64, sequence: u64) {
    append(store, &[Op::Acknowledge { queue, first: sequence, count: 1 }], Level::Fsync);
}

/// The blob of a live message, as reading the queue gives it.
fn read(store: &Store, queue: u64, sequence: u64) -> Option<Blob> {
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
fn files(fs: &FaultFs) -> Vec<PathBuf> {
    fs.files().into_iter().filter(|file| file.parent().is_some_and(|dir| dir.ends_with("B"))).collect()
}

/// Lets the keeper write a checkpoint.
fn checkpoint(fs: &FaultFs, store: &Store) {
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
        for (offset, len) in
            [(0, 10), (BLOB_PIECE_BYTES - 5, 10), (BLOB_PIECE_BYTES, 3 * BLOB_PIECE_BYTES), (1, 300_000)]
        {
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
