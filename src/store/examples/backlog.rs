//! A deep backlog: `cargo run --release -p sabir-store --example backlog [messages [dir]]`.
//!
//! Fills one queue with messages of 100 bytes (20 million unless given: 2.7 GB), acknowledges half of them at random,
//! starts again, and reads the rest back in pieces as a broker would. Tells memory, CPU time and how long a start takes.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use sabir_model::ids::{QueueId, Sequence};
use sabir_store::{Level, Payload, PutMeta, RealFs, Recover, Store, StoreOptions};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const QUEUE: QueueId = QueueId(1);
/// Messages read at a time.
const PIECE: u64 = 1000;

#[derive(Default)]
struct Ranges(Vec<(Sequence, Sequence)>);

impl Recover for Ranges {
    fn meta(&mut self, _: u8, _: &[u8], _: &[u8]) {}
    fn queue(&mut self, _: QueueId, _: Sequence, _: u64) {}
    fn live(&mut self, _: QueueId, first: Sequence, last: Sequence, _: u64) {
        self.0.push((first, last));
    }
    fn attempts(&mut self, _: QueueId, _: Sequence, _: u32) {}
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn per_message(before: Duration, messages: u64) -> f64 {
    (cpu() - before).as_secs_f64() * 1e6 / messages.max(1) as f64
}

fn open(dir: &Path, told: &mut dyn Recover) -> Store {
    let started = Instant::now();
    let (store, report) = Store::open(StoreOptions::new(dir), Arc::new(RealFs::new()), told).unwrap();
    println!("opened in {:?}, {} bytes read, rss {} kB", started.elapsed(), report.bytes_read, rss_kb());
    store
}

fn fill(store: &Store, count: u64) {
    let before = cpu();
    for sequence in 1..=count {
        while store.pending_bytes() > 8 << 20 {
            std::thread::yield_now();
        }
        let mut group = store.begin_put().unwrap();
        group.put(&[(QUEUE, Sequence(sequence))], PutMeta::default(), &[&[1u8; 20]], &[3u8; 100]);
        group.finish(Level::Os);
    }
    store.sync();
    told("filled", store, per_message(before, count));
}

fn told(what: &str, store: &Store, cost: f64) {
    let stats = store.stats();
    println!(
        "{what}: {cost:.3} µs CPU per message, {} runs, {} bytes alive, checkpoint {} bytes, rss {} kB",
        stats.live_ranges,
        stats.bytes_live,
        stats.checkpoint_bytes,
        rss_kb()
    );
}

fn read_back(store: &Store, count: u64) {
    let (before, started, mut read) = (cpu(), Instant::now(), 0u64);
    for first in (1..=count).step_by(PIECE as usize) {
        let mut wanted = std::iter::once((Sequence(first), Sequence(first + PIECE - 1)));
        store
            .read(QUEUE, &mut wanted, &mut |_, _, _, body| {
                assert!(matches!(body, Payload::Inline(body) if body == [3; 100]));
                read += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    let stats = store.stats();
    println!(
        "read {read} messages in {:?}: {:.3} µs CPU each, {} bytes read, rss {} kB",
        started.elapsed(),
        per_message(before, read),
        stats.read_bytes,
        rss_kb()
    );
}

fn main() {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().map_or(20_000_000, |text| text.parse().unwrap());
    let dir = args.next().map_or_else(|| std::env::temp_dir().join("sabir-backlog"), Into::into);
    let _ = std::fs::remove_dir_all(&dir);
    let store = open(&dir, &mut Ranges::default());
    fill(&store, count);
    read_back(&store, count);
    // Every number comes once: the step (the golden section of 20 million) has no divisor in common with round counts.
    let before = cpu();
    for i in 0..count / 2 {
        while store.pending_bytes() > 8 << 20 {
            std::thread::yield_now();
        }
        let mut group = store.begin();
        group.acknowledge(QUEUE, Sequence(i * 12_360_679 % count + 1), 1);
        group.finish(Level::Os);
    }
    store.sync();
    told("half acknowledged at random", &store, per_message(before, count / 2));
    store.close().unwrap();
    drop(store);
    let mut ranges = Ranges::default();
    let store = open(&dir, &mut ranges);
    println!("{} ranges are alive", ranges.0.len());
    read_back(&store, count);
    let one = Instant::now();
    let mut wanted = std::iter::once((Sequence(count / 2), Sequence(count / 2 + 3)));
    store.read(QUEUE, &mut wanted, &mut |_, _, _, _| ControlFlow::Break(())).unwrap();
    println!("one message out of the middle in {:?}", one.elapsed());
    store.close().unwrap();
    drop(store);
    let _ = std::fs::remove_dir_all(&dir);
}
