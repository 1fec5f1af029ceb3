//! Deep backlogs: `cargo run --release -p sabir-store --example backlog [messages [dir [what]]]`, with messages of 100
//! bytes (20 million unless given: 2.7 GB). What is one of
//!
//! - `random` (unless given): fills one queue, acknowledges half of it at random, starts again, and reads the rest back
//!   in pieces as a broker would. Tells memory, CPU time and how long a start takes.
//! - `third`: fills one queue, acknowledges two of every three, and waits until nothing more happens on the disk. Tells
//!   what is left there.
//! - a number: fills so many queues in turn, and reads of each as much as a broker would at first, in pieces: queue by
//!   queue, and all in turn. Tells bytes written and read.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use sabir_model::ids::{QueueId, Sequence};
use sabir_store::{Level, Payload, PutMeta, RealFs, Recover, Store, StoreOptions, StoreStats};
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
    open_with(StoreOptions::new(dir), told)
}

fn open_with(options: StoreOptions, told: &mut dyn Recover) -> Store {
    let started = Instant::now();
    let (store, report) = Store::open(options, Arc::new(RealFs::new()), told).unwrap();
    println!("opened in {:?}, {} bytes read, rss {} kB", started.elapsed(), report.bytes_read, rss_kb());
    store
}

/// Fills queues in turn.
fn fill(store: &Store, count: u64, queues: u64) {
    let before = cpu();
    for n in 0..count {
        while store.pending_bytes() > 8 << 20 {
            std::thread::yield_now();
        }
        let mut group = store.begin_put().unwrap();
        let key = (QueueId(1 + n % queues), Sequence(1 + n / queues));
        group.put(&[key], PutMeta::default(), &[&[1u8; 20]], &[3u8; 100]);
        group.finish(Level::Os);
    }
    store.sync();
    told("filled", store, per_message(before, count));
}

/// Waits until the disk is as it stays.
fn settle(store: &Store, count: u64) {
    let (mut before, mut calm) = (store.stats(), 0);
    while calm < 10 {
        std::thread::sleep(Duration::from_secs(1));
        let now = store.stats();
        let work =
            |stats: &StoreStats| (stats.disk_bytes, stats.paged_bytes, stats.bytes_written, stats.syncs);
        let same = work(&now) == work(&before);
        calm = if same { calm + 1 } else { 0 };
        before = now;
    }
    let payload = count * 120;
    let written = before.bytes_written + before.paged_bytes;
    println!(
        "settled: {written} bytes written for {payload} of heads and bodies ({:.2}), {} of them into {} page files; \
         {} bytes on the disk, {} in {} pages, {} alive, {} runs",
        written as f64 / payload as f64,
        before.paged_bytes,
        before.pages,
        before.disk_bytes,
        before.page_bytes,
        before.pages_live,
        before.bytes_live,
        before.live_ranges
    );
}

/// Reads the first pieces of every queue, `rounds` of them for a queue before the next one's turn.
fn sample(store: &Store, queues: u64, pieces: u64, rounds: u64) {
    let (before, bytes, mut read) = (cpu(), store.stats().read_bytes, 0u64);
    for round in 0..pieces / rounds {
        for queue in 1..=queues {
            for piece in round * rounds..(round + 1) * rounds {
                let first = 1 + piece * PIECE;
                let mut wanted = std::iter::once((Sequence(first), Sequence(first + PIECE - 1)));
                let mut each = |_: Sequence, _: PutMeta, _: &[u8], _: Payload<'_>| {
                    read += 1;
                    ControlFlow::Continue(())
                };
                store.read(QueueId(queue), &mut wanted, &mut each).unwrap();
            }
        }
    }
    let bytes = store.stats().read_bytes - bytes;
    println!(
        "{read} messages read, {rounds} pieces of a queue at a time: {:.0} bytes read and {:.3} µs CPU each",
        bytes as f64 / read.max(1) as f64,
        per_message(before, read)
    );
}

fn side_by_side(dir: &Path, count: u64, queues: u64) {
    let store = open(dir, &mut Ranges::default());
    fill(&store, count, queues);
    settle(&store, count);
    let pieces = (count / queues / PIECE).min(20);
    sample(&store, queues, pieces, pieces.max(1));
    sample(&store, queues, pieces, 1);
    store.close().unwrap();
    drop(store);
    drop(open(dir, &mut Ranges::default()));
}

fn every_third(dir: &Path, count: u64) {
    let options = StoreOptions { checkpoint_interval: Duration::from_secs(1), ..StoreOptions::new(dir) };
    let store = open_with(options, &mut Ranges::default());
    fill(&store, count, 1);
    settle(&store, count);
    for first in (1..count).step_by(3) {
        while store.pending_bytes() > 8 << 20 {
            std::thread::yield_now();
        }
        let mut group = store.begin();
        group.acknowledge(QUEUE, Sequence(first), 2);
        group.finish(Level::Os);
    }
    settle(&store, count);
    read_back(&store, count);
    store.close().unwrap();
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
    match args.next().as_deref() {
        None | Some("random") => random(&dir, count),
        Some("third") => every_third(&dir, count),
        Some(queues) => side_by_side(&dir, count, queues.parse().unwrap()),
    }
    let _ = std::fs::remove_dir_all(&dir);
}

fn random(dir: &Path, count: u64) {
    let store = open(dir, &mut Ranges::default());
    fill(&store, count, 1);
    settle(&store, count);
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
    let store = open(dir, &mut ranges);
    println!("{} ranges are alive", ranges.0.len());
    read_back(&store, count);
    let one = Instant::now();
    let mut wanted = std::iter::once((Sequence(count / 2), Sequence(count / 2 + 3)));
    store.read(QUEUE, &mut wanted, &mut |_, _, _, _| ControlFlow::Break(())).unwrap();
    println!("one message out of the middle in {:?}", one.elapsed());
    store.close().unwrap();
}
