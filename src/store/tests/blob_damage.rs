//! Files of large bodies that are not what they should be: wrong bytes are never told.

use super::blobs::{body, files, put, read, written};
use super::model::{open, options, read_back};
use crate::{BLOB_PIECE_BYTES, BlobDamage, FaultFs, Fs, Level, Offline, StoreError, StoreOptions};
use sabir_model::ids::{QueueId, Sequence};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A closed store with three large messages of two queues, and their files.
fn stored() -> (FaultFs, Vec<PathBuf>) {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    for n in 1..=3u8 {
        let blob = written(&store, &body(2 * BLOB_PIECE_BYTES + 100, n), Level::Fsync);
        put(&store, &[(1, u64::from(n)), (2, u64::from(n))], &blob, Level::Fsync);
    }
    store.close().unwrap();
    let files = files(&fs);
    assert_eq!(files.len(), 3);
    (fs, files)
}

fn quarantine() -> StoreOptions {
    StoreOptions { quarantine: true, ..options() }
}

#[test]
fn no_flipped_byte_of_a_file_is_ever_told() {
    let (fs, files) = stored();
    let expected = body(2 * BLOB_PIECE_BYTES + 100, 2);
    let (store, ..) = open(&fs, options()).unwrap();
    let len = fs.contents(&files[1]).unwrap().len();
    assert_eq!(len, expected.len() + 3 * 4 + 32);
    let (mut refused, mut told) = (0, 0);
    for at in 0..len {
        fs.flip(&files[1], at as u64, (at % 8) as u8);
        // A new handle, and the file opened anew.
        store.turn();
        store.turn();
        let blob = read(&store, 1, 2).unwrap();
        for offset in [0, 1, BLOB_PIECE_BYTES - 1, BLOB_PIECE_BYTES, 2 * BLOB_PIECE_BYTES + 50] {
            for want in [10, 2 * BLOB_PIECE_BYTES, 4 * BLOB_PIECE_BYTES] {
                let mut into = vec![0; want];
                match blob.read_at(offset as u64, &mut into) {
                    Ok(n) => {
                        assert_eq!(n, want.min(expected.len() - offset));
                        assert_eq!(into[..n], expected[offset..offset + n], "byte {at}");
                        told += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
                        let damage: &BlobDamage = error.get_ref().unwrap().downcast_ref().unwrap();
                        assert_eq!(damage.file, files[1]);
                        assert!(damage.offset <= at as u64 && at as u64 - damage.offset < 2000, "{error}");
                        refused += 1;
                    }
                }
            }
        }
        fs.flip(&files[1], at as u64, (at % 8) as u8);
    }
    assert!(refused > len && told > len, "{refused} {told}");
    assert!(store.stats().damaged > 0);
}

#[test]
fn a_file_that_belongs_to_another_body_is_not_believed() {
    let (fs, files) = stored();
    let (store, _) = crate_open(&fs, options());
    fs.put(&files[1], &fs.contents(&files[0]).unwrap());
    let error = read(&store, 1, 2).unwrap().read_at(0, &mut [0; 10]).unwrap_err();
    assert!(error.to_string().contains("do not belong to this message"), "{error}");
    // The same number and length, but of another store.
    let (other, others) = stored();
    fs.put(&files[0], &other.contents(&others[0]).unwrap());
    store.turn();
    store.turn();
    let error = read(&store, 1, 1).unwrap().read_at(0, &mut [0; 10]).unwrap_err();
    assert!(error.to_string().contains("do not belong to this message"), "{error}");
    assert_eq!(store.stats().damaged, 2);
}

#[test]
fn a_start_finds_missing_and_short_files_and_quarantine_gives_up_what_is_lost() {
    let (fs, files) = stored();
    fs.flip(&files[0], 1500, 3);
    let (short, missing) = (fs.contents(&files[1]).unwrap(), &files[2]);
    fs.put(&files[1], &short[..2000]);
    Fs::remove(&fs, missing).unwrap();
    let Err(StoreError::Corrupt { file, offset, .. }) = open(&fs.copy(), options()) else { panic!() };
    assert_eq!((&file, offset), (&files[1], 2000));
    // Verifying tells what repairing gives up, and changes nothing.
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    let offline = || Offline::open(Path::new("store"), Arc::clone(&disk)).unwrap();
    let found = offline().verify(Arc::new(|_, _| {})).unwrap();
    assert!(!found.is_sound());
    let bodies: Vec<_> = found.report.bodies.iter().map(|body| (body.file.clone(), body.offset)).collect();
    assert_eq!(bodies, [(files[0].clone(), 1024), (files[1].clone(), 2000), (files[2].clone(), 0)]);
    let lost: Vec<_> = found.report.lost.iter().map(|lost| (lost.queue, lost.first, lost.last)).collect();
    assert_eq!(lost, [(QueueId(1), 1, 3), (QueueId(2), 1, 3)]);
    assert_eq!(fs.contents(&files[1]).unwrap().len(), 2000);
    let report = offline().repair().unwrap();
    assert_eq!((&report.bodies, &report.lost), (&found.report.bodies, &found.report.lost));
    let text = report.to_string();
    assert!(text.contains("is missing") && text.contains("queue 2 are lost"), "{text}");
    // What is left of them is put aside, not deleted.
    let aside: Vec<_> = fs.files().into_iter().filter(|file| file.starts_with("store/quarantine")).collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    assert!(offline().verify(Arc::new(|_, _| {})).unwrap().is_sound());
    let (store, state, _) = open(&fs, options()).unwrap();
    assert!(state.messages.is_empty() && super::blobs::files(&fs).is_empty());
    assert_eq!((store.stats().blobs, store.stats().blob_bytes), (0, 0));
}

#[test]
fn a_start_with_quarantine_reads_every_body_and_keeps_what_is_sound() {
    let (fs, files) = stored();
    fs.flip(&files[1], 5, 3);
    // Without it only who reads the message meets the damage.
    let (store, ..) = crate_open(&fs, options());
    let all = &mut std::iter::once((Sequence(1), Sequence(9)));
    assert!(read_back(&store, 1, all).is_err());
    store.close().unwrap();
    drop(store);
    let (store, report) = crate_open(&fs, quarantine());
    assert_eq!(report.bodies.len(), 1, "{report}");
    let all = &mut std::iter::once((Sequence(1), Sequence(9)));
    assert_eq!(read_back(&store, 1, all).unwrap().into_keys().collect::<Vec<_>>(), [1, 3]);
}

fn crate_open(fs: &FaultFs, options: StoreOptions) -> (crate::Store, crate::RecoveryReport) {
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    crate::Store::open(options, disk, &mut super::model::State::default()).unwrap()
}

#[test]
fn the_scrub_reads_bodies_too_at_its_rate_and_counts_what_has_rotten() {
    let (fs, files) = stored();
    let options = StoreOptions { scrub_bytes_per_second: 1000, ..options() };
    let (store, ..) = crate_open(&fs, options);
    fs.flip(&files[1], 100, 1);
    for second in 1..=8 {
        fs.advance(Duration::from_secs(1));
        store.turn();
        let read = store.stats().scrubbed_bytes;
        assert!(read <= second * 1000 + BLOB_PIECE_BYTES as u64 + 4096, "{read} bytes after {second} s");
    }
    for _ in 0..20 {
        fs.advance(Duration::from_secs(1));
        store.turn();
    }
    let stats = store.stats();
    assert_eq!((stats.scrubs, stats.damaged), (1, 1), "{stats:?}");
    assert!(stats.scrubbed_bytes >= 4 * BLOB_PIECE_BYTES as u64);
    fs.advance(Duration::from_secs(60));
    store.turn();
    assert_eq!(store.stats().scrubbed_bytes, stats.scrubbed_bytes, "it rests");
}

#[test]
fn inspecting_tells_of_large_messages_and_unneeded_files() {
    let (fs, _) = stored();
    fs.put(Path::new("store/shard-0/B/000000000077.b"), b"left by a crash");
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    let seen = Offline::open(Path::new("store"), disk).unwrap().inspect(&mut |_, _, _| {}).unwrap();
    assert_eq!((seen.blobs, seen.orphans), (4, 1));
    let body = 2 * BLOB_PIECE_BYTES as u64 + 100;
    assert_eq!(seen.blob_bytes, 3 * (body + 44) + 15);
    assert_eq!(
        seen.queues.iter().map(|queue| (queue.large, queue.large_bytes)).collect::<Vec<_>>(),
        [(3, 3 * body); 2]
    );
    // The next start removes it, and never gives its number again.
    let (store, _, report) = open(&fs, options()).unwrap();
    assert_eq!((report.blobs, report.orphans), (3, 1), "{report}");
    assert!(report.to_string().contains("1 files of large messages are not needed"), "{report}");
    assert_eq!((files(&fs).len(), store.blob(0).unwrap().id()), (3, 78));
}
