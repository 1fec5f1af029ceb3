//! What one large message costs: `cargo run --release -p sabir-store --example large [MiB] [dir]`.
//!
//! Writes it in pieces of 64 KiB at `fsync`, reads it back after a restart in pieces of 256 KiB, settles it. The peak of
//! memory and the system calls are the whole process's.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use sabir_model::ids::{QueueId, Sequence};
use sabir_store::{Level, Payload, PutMeta, RealFs, Recover, Store, StoreOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

struct Nothing;

impl Recover for Nothing {
    fn meta(&mut self, _: u8, _: &[u8], _: &[u8]) {}
    fn queue(&mut self, _: QueueId, _: Sequence, _: u64) {}
    fn live(&mut self, _: QueueId, _: Sequence, _: Sequence, _: u64) {}
    fn attempts(&mut self, _: QueueId, _: Sequence, _: u32) {}
}

fn figure(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open(dir: &Path) -> Store {
    let (store, report) = Store::open(StoreOptions::new(dir), Arc::new(RealFs::new()), &mut Nothing).unwrap();
    println!("{report}");
    store
}

fn tell(what: &str, bytes: u64, started: Instant, before: [u64; 2]) {
    let [reads, writes] = calls();
    println!(
        "{what}: {:.0} MiB/s, {} reads and {} writes, peak of memory {} kB",
        bytes as f64 / f64::from(1 << 20) / started.elapsed().as_secs_f64(),
        reads - before[0],
        writes - before[1],
        figure("/proc/self/status", "VmHWM"),
    );
}

fn calls() -> [u64; 2] {
    [figure("/proc/self/io", "syscr"), figure("/proc/self/io", "syscw")]
}

fn main() {
    let mebibytes = std::env::args().nth(1).map_or(1024, |text| text.parse().unwrap());
    let dir = std::env::args().nth(2).map_or_else(|| std::env::temp_dir().join("sabir-large"), Into::into);
    let _ = std::fs::remove_dir_all(&dir);
    let bytes = mebibytes << 20;
    let store = open(&dir);
    let (started, before) = (Instant::now(), calls());
    let mut writer = store.blob(bytes).unwrap();
    let mut piece = vec![0u8; 64 << 10];
    while writer.written() < bytes {
        let stamp = writer.written().to_le_bytes();
        piece[..8].copy_from_slice(&stamp);
        writer.write(&piece).unwrap();
    }
    let blob = writer.finish(Level::Fsync).unwrap();
    let mut group = store.begin_put().unwrap();
    group.put_blob(&[(QueueId(1), Sequence(1))], PutMeta::default(), &[b"head"], &blob);
    group.finish(Level::Fsync);
    drop(blob);
    store.sync();
    tell("written and synced", bytes, started, before);
    store.close().unwrap();
    drop(store);

    let store = open(&dir);
    let mut found = None;
    let mut wanted = std::iter::once((Sequence(1), Sequence(1)));
    store
        .read(QueueId(1), &mut wanted, &mut |_, _, _, payload| {
            if let Payload::Blob(blob) = payload {
                found = Some(blob);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let blob = found.unwrap();
    let (started, before) = (Instant::now(), calls());
    let mut piece = vec![0u8; 256 << 10];
    let mut at = 0;
    while at < blob.len() {
        let n = blob.read_at(at, &mut piece).unwrap();
        assert_eq!(piece[..8], at.to_le_bytes());
        at += n as u64;
    }
    tell("read", bytes, started, before);
    drop(blob);
    let mut group = store.begin();
    group.acknowledge(QueueId(1), Sequence(1), 1);
    group.finish(Level::Fsync);
    store.close().unwrap();
    drop(store);
    drop(open(&dir));
    std::fs::remove_dir_all(&dir).unwrap();
}
