//! CPU time and rate of put + acknowledge at several windows: `cargo run --release -p sabir-store --example hot [dir]`.
//!
//! One producer keeps `window` messages of 100 bytes outstanding (receipted at `fsync`), a consumer acknowledges each
//! receipted message in groups of up to 64. The CPU time is the whole process's, committer and helpers included.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use sabir_model::ids::{Position, QueueId, Sequence};
use sabir_store::{Level, PutMeta, RealFs, Recover, Store, StoreOptions, Wake};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

struct Nothing;

impl Recover for Nothing {
    fn meta(&mut self, _: u8, _: &[u8], _: &[u8]) {}
    fn queue(&mut self, _: QueueId, _: Sequence, _: u64) {}
    fn live(&mut self, _: QueueId, _: Sequence, _: Sequence, _: u64) {}
    fn attempts(&mut self, _: QueueId, _: Sequence, _: u32) {}
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    condvar: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.condvar.notify_one();
    }
}

impl Bell {
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.condvar.wait(rung).unwrap();
        }
        *rung = false;
    }
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

fn run(store: &Store, queue: QueueId, level: Level, window: u64, count: u64) {
    let body = [7u8; 100];
    let head = [1u8; 20];
    let bell = Arc::new(Bell::default());
    let mut outstanding: VecDeque<(Position, u64)> = VecDeque::new();
    let mut latencies: Vec<u64> = Vec::new();
    let (mut sent, mut done) = (0u64, 0u64);
    let (cpu_before, started) = (cpu(), Instant::now());
    let before = store.stats();
    while done < count {
        let asked = Instant::now();
        while sent < count && sent - done < window {
            sent += 1;
            let mut group = store.begin_put().unwrap();
            group.put(&[(queue, Sequence(sent))], PutMeta::default(), &[&head], &body);
            outstanding.push_back((group.finish(level), sent));
        }
        let first = outstanding.front().unwrap().0;
        if !store.watermark().covers(first, level) {
            store.wake_at(first, level, Arc::clone(&bell) as Arc<dyn Wake>);
            bell.wait();
        }
        if window == 1 {
            latencies.push(asked.elapsed().as_micros() as u64);
        }
        let durable = store.watermark();
        // As a consumer does: acknowledged one by one, in groups of a read batch.
        while outstanding.front().is_some_and(|(position, _)| durable.covers(*position, level)) {
            let mut group = store.begin();
            for _ in 0..64 {
                let Some((position, sequence)) = outstanding.front().copied() else { break };
                if !durable.covers(position, level) {
                    break;
                }
                outstanding.pop_front();
                done += 1;
                group.acknowledge(queue, Sequence(sequence), 1);
            }
            group.finish(Level::Os);
        }
    }
    store.sync();
    let (wall, used) = (started.elapsed(), cpu() - cpu_before);
    let after = store.stats();
    latencies.sort_unstable();
    let p50 = latencies.get(latencies.len() / 2).map_or(String::new(), |us| format!(", put p50 {us} µs"));
    println!(
        "{level:>9} window {window:>5}: {:>9.0} msgs/s, {:.2} µs CPU per put+ack, {:.1} bytes per message, {} syncs of {} µs mean, rss {} kB{p50}",
        count as f64 / wall.as_secs_f64(),
        used.as_secs_f64() * 1e6 / count as f64,
        (after.bytes_written - before.bytes_written) as f64 / count as f64,
        after.syncs - before.syncs,
        (after.sync_us_sum - before.sync_us_sum) / (after.syncs - before.syncs).max(1),
        rss_kb(),
    );
}

fn main() {
    let dir = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("sabir-hot"), Into::into);
    let _ = std::fs::remove_dir_all(&dir);
    let (store, report) =
        Store::open(StoreOptions::new(&dir), Arc::new(RealFs::new()), &mut Nothing).unwrap();
    println!("{report}");
    for (i, (window, count)) in [(1, 5_000), (64, 200_000), (4096, 3_000_000)].into_iter().enumerate() {
        run(&store, QueueId(1 + i as u64), Level::Fsync, window, count);
    }
    run(&store, QueueId(9), Level::Os, 4096, 3_000_000);
    let mut filled = store.stats();
    println!("{filled:?}");
    for sequence in 1..=2_000_000u64 {
        while store.pending_bytes() > 8 << 20 {
            std::thread::yield_now();
        }
        let mut group = store.begin_put().unwrap();
        group.put(&[(QueueId(20), Sequence(sequence))], PutMeta::default(), &[&[1u8; 20]], &[3u8; 100]);
        group.finish(Level::Os);
    }
    store.close().unwrap();
    filled = store.stats();
    drop(store);
    let started = Instant::now();
    let (store, report) =
        Store::open(StoreOptions::new(&dir), Arc::new(RealFs::new()), &mut Nothing).unwrap();
    println!(
        "backlog of 2 M messages, {} live ranges, opened in {:?}: {report}",
        filled.live_ranges,
        started.elapsed()
    );
    store.close().unwrap();
    drop(store);
    let _ = std::fs::remove_dir_all(&dir);
}
