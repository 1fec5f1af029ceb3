//! Page files: what goes there, what is read from there, what becomes of them.

use super::model::{Op, Random, State, append, open, options, read_back};
use crate::fault_fs::{Fault, Survival};
use crate::{FaultFs, Fs, Level, Offline, ReadError, Store, StoreError, StoreOptions};
use sabir_model::ids::{QueueId, Sequence};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

fn put(queue: u64, sequence: u64) -> Op {
    put_to(&[(queue, sequence)], 60)
}

fn put_to(targets: &[(u64, u64)], len: usize) -> Op {
    let body = format!("{targets:?}").bytes().cycle().take(len).collect();
    Op::Put { targets: targets.to_vec(), body }
}

/// Segments of 16 KiB, and a budget of four.
fn small() -> StoreOptions {
    StoreOptions { segment_bytes: 16 << 10, journal_bytes_max: 64 << 10, ..options() }
}

/// A store and what it should hold.
struct Shop {
    fs: FaultFs,
    store: Store,
    state: State,
    options: StoreOptions,
}

impl Shop {
    fn new(options: StoreOptions) -> Self {
        let fs = FaultFs::new();
        let (store, ..) = open(&fs, options.clone()).unwrap();
        Self { fs, store, state: State::default(), options }
    }

    fn add(&mut self, group: &[Op]) {
        self.state.apply(group);
        append(&self.store, group, Level::Os);
    }

    /// Queues 1 to `queues`, filled in turn, `count` messages each.
    fn fill(&mut self, queues: u64, from: u64, count: u64) {
        for sequence in from..from + count {
            for queue in 1..=queues {
                self.add(&[put(queue, sequence)]);
            }
            if sequence % 4 == 0 {
                self.store.turn();
            }
        }
        self.store.turn();
    }

    fn acknowledge(&mut self, queue: u64, first: u64, count: u64) {
        self.add(&[Op::Acknowledge { queue, first, count }]);
    }

    /// Checkpoints, until nothing more happens.
    fn settle(&mut self) {
        for _ in 0..8 {
            self.fs.advance(Duration::from_secs(31));
            self.add(&[Op::Set { key: 1, value: vec![1] }]);
            self.store.turn();
        }
    }

    fn assert_read(&self, what: &str) {
        let queues: Vec<u64> = self.state.next.keys().copied().collect();
        for queue in queues {
            let all = (Sequence(1), Sequence(u64::MAX));
            let read = read_back(&self.store, queue, &mut std::iter::once(all))
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let model = self.state.messages.range((queue, 0)..=(queue, u64::MAX));
            assert!(model.map(|(key, content)| (&key.1, content)).eq(read.iter()), "{what}: queue {queue}");
        }
    }

    fn restart(self, what: &str) -> Self {
        let Self { fs, store, state, options } = self;
        store.close().unwrap_or_else(|e| panic!("{what}: {e}"));
        drop(store);
        let (store, found, report) = open(&fs, options.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(report.damage.is_empty() && report.lost.is_empty(), "{what}: {report}");
        assert_eq!(found, state, "{what}");
        Self { fs, store, state, options }
    }

    fn page_files(&self) -> Vec<PathBuf> {
        page_files(&self.fs)
    }
}

fn page_files(fs: &FaultFs) -> Vec<PathBuf> {
    fs.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "p")).collect()
}

fn journal_bytes(store: &Store) -> u64 {
    store.inner.shared.index.lock().journal_bytes()
}

#[test]
fn queues_filled_in_turn_are_paged_apart_and_each_is_read_at_the_price_of_its_own() {
    let mut shop = Shop::new(small());
    shop.fill(12, 1, 300);
    let stats = shop.store.stats();
    assert!(stats.pages >= 12 && stats.pages_live >= 12, "{stats:?}");
    assert!(journal_bytes(&shop.store) <= 64 << 10, "{stats:?}");
    // Everything was written twice at most.
    assert!(
        stats.bytes_written + stats.paged_bytes < 5 * shop.state.messages.len() as u64 * 90 / 2,
        "{stats:?}"
    );
    shop.assert_read("filled");
    let mut shop = shop.restart("filled");
    // The first half of a queue is in its pages: reading it reads little else.
    let before = shop.store.stats().read_bytes;
    let read = read_back(&shop.store, 5, &mut std::iter::once((Sequence(1), Sequence(150)))).unwrap();
    let bytes = shop.store.stats().read_bytes - before;
    assert_eq!(read.len(), 150);
    assert!(bytes < 150 * 90 * 2, "{bytes} bytes read for 150 messages");
    // What is consumed goes.
    for first in (1..=300).step_by(10) {
        for queue in 1..=12 {
            shop.acknowledge(queue, first, 10);
        }
        shop.store.turn();
    }
    shop.settle();
    let stats = shop.store.stats();
    assert_eq!((stats.pages_live, stats.bytes_live), (0, 0), "{stats:?}");
    assert!(shop.page_files().is_empty(), "{:?}", shop.page_files());
    assert!(stats.pages_removed > 12, "{stats:?}");
    shop.restart("drained");
}

#[test]
fn a_deep_backlog_of_one_queue_is_written_once_and_read_where_it_is() {
    let mut shop = Shop::new(small());
    shop.fill(1, 1, 4000);
    let stats = shop.store.stats();
    assert_eq!((stats.pages, stats.paged_bytes, stats.evacuations), (0, 0, 0), "{stats:?}");
    assert!(stats.pages_live > 15 && journal_bytes(&shop.store) <= 64 << 10, "{stats:?}");
    let kept = stats.pages_live;
    let mut shop = shop.restart("filled");
    assert!(shop.store.stats().pages_live >= kept, "what is kept stays so");
    // Consumed from the front, nothing of it is written anew.
    for first in (1..4000).step_by(40) {
        shop.acknowledge(1, first, 40);
        shop.fs.advance(Duration::from_secs(40));
        shop.store.turn();
    }
    assert_eq!(shop.store.stats().paged_bytes, 0);
    shop.assert_read("drained");
    assert!(shop.fs.used() < 200_000, "{}", shop.fs.used());
}

#[test]
fn a_segment_that_is_nearly_one_queues_is_kept_with_the_others_in_it() {
    let mut shop = Shop::new(small());
    for sequence in 1..=4000 {
        shop.add(&[put(1, sequence)]);
        if sequence % 10 == 0 {
            shop.add(&[put(2, sequence)]);
        }
        if sequence % 20 == 0 {
            shop.store.turn();
        }
    }
    let stats = shop.store.stats();
    assert_eq!(stats.pages, 0, "{stats:?}");
    assert!(stats.pages_live > 15 && journal_bytes(&shop.store) <= 64 << 10, "{stats:?}");
    shop.assert_read("filled");
    shop.restart("filled");
}

#[test]
fn pages_of_which_little_is_alive_are_written_anew_once_they_are_left_alone() {
    let mut shop = Shop::new(small());
    shop.fill(3, 1, 1500);
    for sequence in (1..1500).step_by(3) {
        for queue in 1..=3 {
            shop.acknowledge(queue, sequence, 2);
        }
        if sequence % 30 == 1 {
            shop.store.turn();
        }
    }
    shop.settle();
    shop.settle();
    let stats = shop.store.stats();
    assert!(stats.pages_removed > 3 && stats.page_bytes < stats.bytes_live * 3 / 2, "{stats:?}");
    // What is alive, as much again, and the journal.
    let allowed = stats.bytes_live * 2 + (64 << 10) + 4 * (16 << 10);
    assert!(stats.disk_bytes < allowed, "{allowed}: {stats:?}");
    shop.assert_read("sparse");
    shop.restart("sparse");
}

#[test]
fn that_a_page_is_left_alone_is_told_by_time_and_not_by_what_else_happens() {
    let mut shop = Shop::new(small());
    shop.fill(1, 1, 4000);
    for sequence in (1..900).step_by(3) {
        shop.acknowledge(1, sequence, 2);
    }
    shop.store.turn();
    let sparse = |shop: &Shop| {
        let index = shop.store.inner.shared.index.lock();
        index.segments.values().filter(|info| info.live > 0 && info.is_sparse()).count()
    };
    assert!(sparse(&shop) > 2);
    for _ in 0..4 {
        shop.fs.advance(Duration::from_secs(31));
        shop.store.turn();
    }
    assert_eq!(sparse(&shop), 0);
    shop.assert_read("left alone");
}

#[test]
fn what_is_left_of_many_small_queues_stays_in_the_journal() {
    let mut shop = Shop::new(small());
    for sequence in 1..=2 {
        for queue in 1..=800 {
            shop.add(&[put(queue, sequence)]);
            if queue % 50 == 0 {
                shop.store.turn();
            }
        }
    }
    // Nobody has enough for a page, and to copy everything would free nothing.
    let stats = shop.store.stats();
    assert_eq!((stats.pages, stats.evacuated_bytes), (0, 0), "{stats:?}");
    assert!(journal_bytes(&shop.store) > 64 << 10);
    // Two of each are not enough; with more of them they are.
    for sequence in 3..=8 {
        for queue in 1..=800 {
            shop.add(&[put(queue, sequence)]);
            if queue % 50 == 0 {
                shop.store.turn();
            }
        }
    }
    let stats = shop.store.stats();
    assert!(stats.pages > 100, "{stats:?}");
    shop.assert_read("many");
    shop.restart("many");
}

#[test]
fn what_many_queues_share_is_written_once_and_makes_few_runs() {
    let mut shop = Shop::new(StoreOptions { journal_bytes_max: 32 << 10, ..small() });
    let mut next = [1u64; 8];
    let mut random = Random(5);
    let mut payload = 0u64;
    for step in 0..3000 {
        // A topic with three subscribers, one with two of which one hears the first as well, and a lone queue.
        let queues: &[u64] = match random.below(3) {
            0 => &[1, 2, 3],
            1 => &[3, 4],
            _ => &[5],
        };
        let targets: Vec<(u64, u64)> = queues.iter().map(|&queue| (queue, next[queue as usize])).collect();
        queues.iter().for_each(|&queue| next[queue as usize] += 1);
        shop.add(&[put_to(&targets, 200)]);
        payload += 250;
        // One of them settles at random, but stays behind.
        if random.below(2) == 0 {
            shop.acknowledge(2, 1 + random.below(next[2]), 1);
        }
        if step % 20 == 0 {
            shop.store.turn();
        }
    }
    let stats = shop.store.stats();
    assert!(stats.pages > 5, "{stats:?}");
    assert!(stats.paged_bytes < payload * 5 / 4, "{payload}: {stats:?}");
    // A run for about every stretch (of 1 KiB in tests) and queue in it.
    assert!(stats.live_ranges < payload / 1024 * 4, "{payload}: {stats:?}");
    shop.assert_read("shared");
    shop.restart("shared");
}

#[test]
fn a_message_to_everybody_does_not_bring_everybody_into_one_file() {
    let mut shop = Shop::new(small());
    for sequence in 1..=300 {
        if sequence == 100 {
            let all: Vec<(u64, u64)> = (1..=8).map(|queue| (queue, sequence)).collect();
            shop.add(&[put_to(&all, 60)]);
            continue;
        }
        for queue in 1..=8 {
            shop.add(&[put(queue, sequence)]);
        }
        if sequence % 4 == 0 {
            shop.store.turn();
        }
    }
    let stats = shop.store.stats();
    assert!(stats.pages >= 8, "{stats:?}");
    let before = stats.read_bytes;
    let read = read_back(&shop.store, 5, &mut std::iter::once((Sequence(1), Sequence(150)))).unwrap();
    let bytes = shop.store.stats().read_bytes - before;
    assert!(read.len() == 150 && bytes < 150 * 90 * 2, "{bytes} bytes read");
    shop.assert_read("broadcast");
}

#[test]
fn references_into_pages_keep_what_they_need() {
    let mut shop = Shop::new(small());
    shop.fill(4, 1, 600);
    assert!(shop.store.stats().pages > 3);
    for sequence in 1..=200 {
        shop.add(&[Op::Reference { to: (9, sequence), from: (2, 401 - sequence) }]);
    }
    for queue in 1..=4 {
        shop.acknowledge(queue, 1, 600);
    }
    shop.settle();
    shop.settle();
    assert_eq!(shop.state.messages.len(), 200);
    let stats = shop.store.stats();
    assert!(stats.pages_removed > 3, "{stats:?}");
    shop.assert_read("references");
    shop.restart("references");
}

/// The disk is full after any number of bytes: nothing is lost, nothing is left over, and with space it goes on.
#[test]
fn a_disk_that_gets_full_during_evacuation_leaves_everything_as_it_was() {
    let mut met = 0;
    for room in (0..60_000).step_by(1_500) {
        let mut shop = Shop::new(StoreOptions { journal_bytes_max: 1 << 20, ..small() });
        shop.fill(6, 1, 200);
        shop.store.close().unwrap();
        // From here on it is over its budget.
        let Shop { fs, state, .. } = shop;
        let (store, ..) = open(&fs, small()).unwrap();
        fs.set_capacity(Some(fs.used() + room));
        for _ in 0..4 {
            fs.advance(Duration::from_secs(31));
            store.turn();
        }
        let shop = Shop { fs, store, state, options: small() };
        let failed = shop.store.failed();
        assert!(failed.is_none(), "{room}: {failed:?}");
        let pages = shop.page_files().len() as u64;
        let stats = shop.store.stats();
        assert!(pages <= stats.pages - stats.pages_removed, "{room}: {:?}", shop.page_files());
        assert!(stats.disk_bytes <= shop.fs.used(), "{room}: {stats:?}, {}", shop.fs.used());
        met += u32::from(stats.pages == 0);
        shop.assert_read("full");
        shop.fs.set_capacity(None);
        let mut shop = shop;
        shop.settle();
        let stats = shop.store.stats();
        assert!(stats.pages > 0 && journal_bytes(&shop.store) <= 64 << 10, "{room}: {stats:?}");
        shop.assert_read("space again");
        shop.restart("space again");
    }
    assert!(met > 3, "{met}");
}

/// A single failure at every I/O of an evacuation: a file that cannot be made is waited for, a write or sync that fails
/// ends the log, and in no case is anything lost.
#[test]
fn a_failure_during_evacuation_loses_nothing_and_is_fatal_only_if_a_write_or_sync_failed() {
    let mut shop = Shop::new(StoreOptions { journal_bytes_max: 1 << 20, ..small() });
    shop.fill(3, 1, 300);
    shop.store.close().unwrap();
    let Shop { fs: filled, state, .. } = shop;
    let evacuate = |fault: Option<u64>| {
        let fs = filled.copy();
        let (store, ..) = open(&fs, small()).unwrap();
        let before = fs.io_count();
        if let Some(io) = fault {
            fs.fault_at(before + io, Fault::Error);
        }
        for _ in 0..3 {
            fs.advance(Duration::from_secs(31));
            store.turn();
        }
        let count = fs.io_count() - before;
        (Shop { fs, store, state: state.clone(), options: small() }, count)
    };
    let (whole, count) = evacuate(None);
    assert!(whole.store.stats().pages >= 3);
    let mut survived = 0;
    for io in 1..=count {
        let (shop, _) = evacuate(Some(io));
        if shop.store.failed().is_none() {
            survived += 1;
            shop.assert_read(&format!("I/O {io}"));
            assert!(shop.store.stats().pages >= 3, "I/O {io}: it is tried again");
        } else {
            let after = shop.fs.crash(Survival::Random(io));
            let (_, found, _) = open(&after, small()).unwrap_or_else(|e| panic!("I/O {io}: {e}"));
            assert_eq!(found, state, "I/O {io}");
        }
    }
    assert!(survived > 3 && survived < count, "{survived} of {count}");
}

#[test]
fn pages_count_for_the_limit_of_the_disk_and_never_pass_it() {
    let limit = 256 << 10;
    let mut shop = Shop::new(StoreOptions { disk_bytes_max: Some(limit), ..small() });
    let (mut refused, mut most) = (0, 0);
    for sequence in 1..=400 {
        for queue in 1..=6 {
            if shop.store.begin_put().is_ok() {
                shop.add(&[put(queue, sequence)]);
            } else {
                refused += 1;
            }
        }
        shop.store.turn();
        most = most.max(shop.store.stats().disk_bytes);
    }
    let files: u64 = shop
        .fs
        .files()
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "p" || e == "j"))
        .map(|path| shop.fs.contents(path).unwrap().len() as u64)
        .sum();
    let stats = shop.store.stats();
    assert_eq!(stats.disk_bytes, files, "{stats:?}");
    assert!(most <= limit && refused > 0 && stats.pages > 0, "{most}, {refused}: {stats:?}");
    shop.assert_read("limited");
}

/// Crashes at every write, sync and directory operation of a life of pages: made, rewritten, dropped.
#[test]
fn a_power_loss_at_any_io_of_the_life_of_pages_loses_nothing() {
    let life = |fs: &FaultFs| -> (State, u64, bool) {
        let options = StoreOptions { journal_bytes_max: 16 << 10, segment_bytes: 4 << 10, ..options() };
        let Ok((store, ..)) = open(fs, options.clone()) else { return (State::default(), 0, false) };
        let mut shop = Shop { fs: fs.clone(), store, state: State::default(), options };
        let mut removed = 0;
        let mut settled = State::default();
        for round in 0..6u64 {
            for sequence in round * 30 + 1..=round * 30 + 30 {
                for queue in 1..=4 {
                    shop.add(&[put(queue, sequence)]);
                }
            }
            // Of three, one stays; and of the first rounds none in the end.
            for queue in 1..=4 {
                for sequence in (round * 30 + 1..=round * 30 + 30).step_by(3) {
                    shop.acknowledge(queue, sequence, 2);
                }
                if round > 3 {
                    shop.acknowledge(queue, (round - 4) * 30 + 1, 30);
                }
            }
            shop.store.sync();
            if shop.store.failed().is_some() {
                return (settled, removed, false);
            }
            settled = shop.state.clone();
            for _ in 0..3 {
                shop.fs.advance(Duration::from_secs(31));
                shop.store.turn();
            }
            removed = shop.store.stats().pages_removed;
        }
        let ok = shop.store.close().is_ok();
        (settled, removed, ok)
    };
    let whole = FaultFs::new();
    let (_, removed, ok) = life(&whole);
    assert!(ok && removed > 4, "{removed}");
    let last = life(&FaultFs::new()).0;
    for io in 1..=whole.io_count() {
        let fs = FaultFs::new();
        fs.fault_at(io, Fault::Crash);
        let (synced, ..) = life(&fs);
        for survival in
            [Survival::None, Survival::All, Survival::Random(io * 2), Survival::Random(io * 2 + 1)]
        {
            let what = format!("I/O {io}, {survival:?}");
            let after = fs.crash(survival);
            let (store, found, report) = open(&after, options()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(report.damage.is_empty(), "{what}: {report}");
            // What was synced is there, unless it was settled just before the power went.
            for (key, content) in &synced.messages {
                let later = found.messages.get(key).or_else(|| last.messages.get(key));
                let settled_later = !last.messages.contains_key(key) && !found.messages.contains_key(key);
                assert!(settled_later || later == Some(content), "{what}: {key:?}");
            }
            // No page is left that nothing points to.
            store.turn();
            store.turn();
            let index = store.inner.shared.index.lock();
            for path in page_files(&after) {
                let number = crate::page::parse_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
                assert!(index.segments.contains_key(&number), "{what}: {} is left over", path.display());
            }
        }
    }
}

#[test]
fn a_rotten_page_is_told_named_and_mended_like_a_segment() {
    let mut shop = Shop::new(small());
    shop.fill(4, 1, 400);
    shop.store.close().unwrap();
    let Shop { fs, state, options, .. } = shop;
    let page = page_files(&fs).remove(0);
    let len = fs.contents(&page).unwrap().len() as u64;
    for offset in (0..len).step_by(397) {
        let rotten = fs.copy();
        rotten.flip(&page, offset, 2);
        let disk: Arc<dyn Fs> = Arc::new(rotten.clone());
        let (store, _) = Store::open(options.clone(), Arc::clone(&disk), &mut State::default()).unwrap();
        let mut lost = 0;
        for queue in 1..=4 {
            match store.read(
                QueueId(queue),
                &mut std::iter::once((Sequence(1), Sequence(400))),
                &mut |_, _, _, _| std::ops::ControlFlow::Continue(()),
            ) {
                Ok(()) => {}
                Err(ReadError::Damaged { file, lost: ranges, .. }) => {
                    assert_eq!(file, page);
                    lost += ranges.iter().map(|(first, last)| last.0 - first.0 + 1).sum::<u64>();
                }
                Err(other) => panic!("{other}"),
            }
        }
        // The scrub finds it, too.
        store
            .inner
            .shared
            .readers
            .forget(&[crate::page::parse_name(page.file_name().unwrap().to_str().unwrap()).unwrap()]);
        for _ in 0..3 {
            rotten.advance(Duration::from_secs(10));
            store.turn();
        }
        assert_eq!(store.stats().damaged, u64::from(lost > 0), "byte {offset}");
        store.close().unwrap();
        drop(store);
        let looking = Offline::open(std::path::Path::new("store"), Arc::clone(&disk)).unwrap();
        let found = looking.verify(Arc::new(|_, _| {})).unwrap();
        let named: u64 = found.report.lost.iter().map(|lost| lost.last - lost.first + 1).sum();
        assert_eq!((named, found.is_sound()), (lost, lost == 0), "byte {offset}: {found:?}");
        let report = looking.repair().unwrap();
        assert_eq!(report.lost, found.report.lost);
        let (_, after, _) = open(&rotten, options.clone()).unwrap();
        assert_eq!(after.messages.len() as u64 + lost, state.messages.len() as u64, "byte {offset}");
        assert!(after.messages.iter().all(|(key, content)| state.messages[key] == *content));
    }
    // A page that is gone is missed at once.
    fs.remove(&page).unwrap();
    let error = open(&fs, options).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { file, .. } if *file == page), "{error}");
}

#[test]
fn without_its_checkpoint_a_log_still_finds_what_is_in_its_pages() {
    let mut shop = Shop::new(small());
    shop.fill(4, 1, 400);
    assert!(shop.store.stats().pages > 3);
    shop.settle();
    shop.store.close().unwrap();
    let Shop { fs, state, options, .. } = shop;
    let checkpoint =
        fs.files().into_iter().rfind(|path| path.extension().is_some_and(|e| e == "ckpt")).unwrap();
    fs.flip(&checkpoint, 70, 1);
    let (store, found, report) = open(&fs, StoreOptions { quarantine: true, ..options.clone() }).unwrap();
    assert_eq!(found.messages, state.messages, "{report}");
    store.close().unwrap();
    drop(store);
    assert_eq!(open(&fs, options).unwrap().1.messages, state.messages);
}

#[test]
fn inspecting_tells_pages_from_segments() {
    let mut shop = Shop::new(small());
    shop.fill(4, 1, 300);
    shop.settle();
    let stats = shop.store.stats();
    shop.store.close().unwrap();
    let disk: Arc<dyn Fs> = Arc::new(shop.fs.clone());
    drop(shop.store);
    let looking = Offline::open(std::path::Path::new("store"), disk).unwrap();
    let inspection = looking.inspect(&mut |_, _, _| {}).unwrap();
    let pages: Vec<_> = inspection.segments.iter().filter(|info| info.is_page).collect();
    assert_eq!(pages.len() as u64, stats.pages_live);
    assert!(pages.iter().all(|info| info.live > 0 && info.end > 0 && info.end <= info.file_bytes));
    let live: u64 = inspection.segments.iter().map(|info| info.live).sum();
    assert_eq!(live, 1200);
}
