//! Messages that are not persistent and that memory has no room for: they go to the log and come back in their turn, and a
//! restart drops them and nothing else.

use std::sync::Arc;
use std::time::Duration;

use sabir_model::error::Code;
use sabir_model::ids::{QueueId, Sequence};
use sabir_model::settlement::Settlement;
use sabir_store::{Level, Recover, Store, StoreOptions};

use super::harness::World;
use super::paging::{narrow, numbers};
use super::queues::bodies;
use super::stress::Dice;
use crate::manage::{Chosen, Deed, Deletion};
use crate::spill::TABLE_SPILLED;
use crate::{Expired, Policy};

impl World {
    fn fill_fleeting(&self, queue: &str, range: std::ops::RangeInclusive<u32>) {
        let mut producer = self.client();
        for body in numbers(range) {
            producer.send(queue, &body).ok();
        }
    }

    /// Rows in the log that tell of messages that a restart drops.
    fn rows_left(self) -> usize {
        #[derive(Default)]
        struct Rows(usize);
        impl Recover for Rows {
            fn meta(&mut self, table: u8, _: &[u8], _: &[u8]) {
                self.0 += usize::from(table == TABLE_SPILLED);
            }
            fn queue(&mut self, _: QueueId, _: Sequence, _: u64) {}
            fn live(&mut self, _: QueueId, _: Sequence, _: Sequence, _: u64) {}
            fn attempts(&mut self, _: QueueId, _: Sequence, _: u32) {}
        }
        self.broker.close().unwrap();
        let disk = self.disk.clone();
        drop(self);
        let mut options = StoreOptions::new("/log");
        options.segment_bytes = 1 << 20;
        options.manual = true;
        let mut rows = Rows::default();
        drop(Store::open(options, Arc::new(disk), &mut rows).unwrap());
        rows.0
    }
}

#[test]
fn a_deep_queue_of_them_takes_no_more_memory_than_its_window_and_is_drained_in_order() {
    let world = narrow(4096).open();
    world.fill_fleeting("queue://deep", 1..=2000);
    assert!(world.memory() <= 4096 + 512, "{} bytes", world.memory());
    let stats = world.queue("queue://deep").unwrap();
    assert!(stats.ready == 2000 && stats.paged > 1900, "{stats:?}");
    assert_eq!(world.stats().spilled, stats.paged);
    assert_eq!(world.consume("queue://deep"), numbers(1..=2000));
    assert_eq!(world.memory(), 0);
    assert!(world.rows_left() <= 1);
}

#[test]
fn a_restart_drops_them_and_nothing_else() {
    for crash in [false, true] {
        let world = narrow(1024).open();
        let mut producer = world.client();
        for number in 1..=6000u32 {
            let body = number.to_string();
            let send = producer.send("queue://mixed", &body);
            if number % 3 == 0 { send.persistent().ok() } else { send.ok() }
        }
        producer.synced();
        producer.close();
        let mut consumer = world.client();
        consumer.subscribe("queue://mixed").credit(5).ok();
        let got = consumer.drain();
        assert_eq!(bodies(&got), ["1", "2", "3", "4", "5"]);
        consumer.settle(&got[0], Settlement::Failed);
        consumer.ack(&got[2]);
        consumer.synced();
        consumer.vanish();
        let mut world = if crash { world.crash() } else { world.restart() };
        let kept: Vec<String> = (2..=2000).map(|number| (number * 3).to_string()).collect();
        for _ in 0..2 {
            assert_eq!(world.depth("queue://mixed"), 1999);
            assert_eq!(world.browse("queue://mixed"), kept);
            world = world.restart();
        }
        world.fill_fleeting("queue://mixed", 1..=100);
        let all: Vec<String> = kept.into_iter().chain(numbers(1..=100)).collect();
        assert_eq!(world.consume("queue://mixed"), all);
        assert_eq!(world.restart().rows_left(), 0);
    }
}

#[test]
fn a_queue_that_is_deleted_leaves_no_rows_and_one_that_is_drained_few() {
    let world = narrow(512).open();
    world.fill_fleeting("queue://gone", 1..=10_000);
    world.fill_fleeting("queue://drained", 1..=20_000);
    world.broker.remove_queue("/", "gone", Deletion::default()).unwrap();
    assert_eq!(world.consume("queue://drained").len(), 20_000);
    assert!(world.rows_left() <= 2);
}

#[test]
fn they_expire_and_become_dead_letters_as_any() {
    let policy = Policy { expired: Expired::DeadLetter, ..Policy::default() };
    let world = narrow(512).policy("queue://e", policy).open();
    let mut producer = world.client();
    for body in numbers(1..=200) {
        producer.send("queue://e", &body).ttl(1000).ok();
    }
    world.pass(Duration::from_secs(3));
    assert_eq!(world.depth("queue://e"), 0);
    assert_eq!(world.consume("queue://ActiveMQ.DLQ"), numbers(1..=200));
}

#[test]
fn queues_that_are_not_logged_keep_them_in_memory_within_its_limit() {
    let mut setup =
        narrow(512).policy("queue://m", Policy { durability: Level::Memory, ..Policy::default() });
    setup.limits.memory_bytes_max = 50_000;
    let world = setup.open();
    let mut producer = world.client();
    let mut taken = 0;
    while producer.send("queue://m", "in memory only").outcome_is_accepted() {
        taken += 1;
        assert!(taken < 1000);
    }
    assert_eq!((world.stats().spilled, world.depth("queue://m")), (0, taken));
}

#[test]
fn no_more_of_them_are_in_the_log_than_allowed_and_what_is_taken_makes_room() {
    let mut setup = narrow(1024);
    setup.limits.spilled_bytes_max = 20_000;
    let world = setup.open();
    world.fill_fleeting("queue://a", 1..=2000);
    let (spilled, in_memory) = (world.stats().spilled_bytes, world.memory());
    assert!((19_000..=20_500).contains(&spilled), "{spilled}");
    assert!(in_memory > 100_000, "{in_memory}");
    world.fill_fleeting("queue://b", 1..=20);
    assert_eq!(world.queue("queue://b").unwrap().paged, 0, "there is no room");
    assert_eq!(world.consume("queue://a"), numbers(1..=2000));
    world.fill_fleeting("queue://b", 21..=5000);
    assert!(world.queue("queue://b").unwrap().paged > 0, "there is again");
    assert_eq!(world.consume("queue://b"), numbers(1..=5000));
    world.fill_fleeting("queue://c", 1..=200);
    world.broker.remove_queue("/", "c", Deletion::default()).unwrap();
    // A row or two stay with each queue that goes on.
    assert!(world.stats().spilled_bytes < 20_000, "{}", world.stats().spilled_bytes);
    for queue in ["a", "b"] {
        world.broker.remove_queue("/", queue, Deletion::default()).unwrap();
    }
    assert_eq!((world.stats().spilled_bytes, world.memory()), (0, 0));
}

#[test]
fn what_is_purged_or_expires_makes_room_for_others_in_the_log() {
    for how in ["purged", "deleted", "expired"] {
        let mut setup = narrow(1024);
        setup.limits.spilled_bytes_max = 20_000;
        let world = setup.open();
        let mut producer = world.client();
        for body in numbers(1..=500) {
            let send = producer.send("queue://a", &body);
            if how == "expired" { send.ttl(1000).ok() } else { send.ok() }
        }
        assert!(world.stats().spilled_bytes > 19_000);
        match how {
            "purged" => assert_eq!(world.broker.purge_queue("/", "a").unwrap().0, 500),
            "deleted" => assert_eq!(world.run("a", Deed::Delete, Chosen::All).done, 500),
            _ => world.pass(Duration::from_secs(3)),
        }
        assert_eq!((world.depth("queue://a"), world.stats().spilled_bytes), (0, 0), "{how}");
        world.fill_fleeting("queue://b", 1..=100);
        assert!(world.queue("queue://b").unwrap().paged > 0, "{how}");
        assert!(world.rows_left() <= 1);
    }
}

#[test]
fn a_delivery_that_nobody_settles_does_not_keep_room_for_those_that_have_passed_it() {
    let mut setup = narrow(1024);
    setup.limits.spilled_bytes_max = 2_000_000;
    let world = setup.open();
    let mut stuck = world.client();
    world.fill_fleeting("queue://a", 1..=1);
    stuck.subscribe("queue://a").credit(1).ok();
    assert_eq!(stuck.drain().len(), 1);
    for _ in 0..4 {
        world.fill_fleeting("queue://a", 1..=10_000);
        assert!(world.queue("queue://a").unwrap().paged > 9000);
        assert_eq!(world.consume("queue://a").len(), 10_000);
    }
    assert!(world.stats().spilled_bytes < 1_000_000, "{}", world.stats().spilled_bytes);
    stuck.vanish();
    assert_eq!(world.consume("queue://a"), ["1"]);
    assert_eq!(world.stats().spilled_bytes, 0);
}

#[test]
fn a_full_disk_leaves_them_in_memory_until_that_is_full_too() {
    let mut setup = narrow(2048);
    setup.limits.memory_bytes_max = 20_000;
    let world = setup.open();
    world.disk.set_capacity(Some(0));
    let mut producer = world.client();
    // What space the log has taken beforehand is used up first.
    let mut filler = world.client();
    let large = "x".repeat(60_000);
    while filler.send("queue://filler", &large).persistent().outcome_is_accepted() {
        world.broker.store().sync();
    }
    let mut sent = 0;
    let refused = loop {
        match producer.send("queue://q", &sent.to_string()).outcome() {
            sabir_model::command::Outcome::Refused(refusal) => break refusal.code,
            _ => sent += 1,
        }
        assert!(sent < 10_000);
    };
    assert_eq!(refused, Code::MemoryFull);
    assert!(world.queue("queue://q").unwrap().paged < 20, "hardly any found room");
    world.disk.set_capacity(None);
    world.broker.purge_queue("/", "filler").unwrap();
    for _ in 0..3 {
        world.broker.store().sync();
        world.pass(Duration::from_millis(1100));
    }
    assert!(producer.send("queue://q", &sent.to_string()).outcome_is_accepted());
    assert!(world.stats().spilled > 0);
    let expected: Vec<String> = (0..=sent).map(|number: u32| number.to_string()).collect();
    assert_eq!(world.consume("queue://q"), expected);
}

#[test]
fn at_random_the_order_is_that_of_sending_and_a_restart_keeps_what_it_must() {
    for seed in 0..18 {
        let mut dice = Dice(seed);
        let mut world = narrow([1, 300, 3000][seed as usize % 3]).open();
        let mut model: Vec<(String, bool)> = Vec::new();
        let mut next = 0;
        for _ in 0..25 {
            match dice.throw(5) {
                0 | 1 => {
                    let mut producer = world.client();
                    for _ in 0..dice.throw(200) {
                        next += 1;
                        let (body, persistent) = (next.to_string(), dice.throw(3) == 0);
                        let send = producer.send("queue://w", &body);
                        if persistent {
                            send.persistent().ok()
                        } else {
                            send.ok()
                        }
                        model.push((body, persistent));
                    }
                    producer.synced();
                }
                2 | 3 => {
                    let mut consumer = world.client();
                    consumer.subscribe("queue://w").credit(1 + dice.throw(30) as u32).ok();
                    for _ in 0..dice.throw(6) {
                        consumer.run();
                        let got = consumer.drain();
                        let expected: Vec<&str> =
                            model.iter().take(got.len()).map(|(body, _)| body.as_str()).collect();
                        assert_eq!(bodies(&got), expected, "seed {seed}");
                        consumer.ack_all(&got);
                        model.drain(..got.len());
                    }
                    consumer.synced();
                    consumer.close();
                }
                _ => {
                    world = if dice.throw(2) == 0 { world.restart() } else { world.crash() };
                    model.retain(|(_, persistent)| *persistent);
                    assert_eq!(world.depth("queue://w"), model.len() as u64, "seed {seed}");
                }
            }
        }
        let expected: Vec<String> = model.into_iter().map(|(body, _)| body).collect();
        assert_eq!(world.consume("queue://w"), expected, "seed {seed}");
        assert_eq!(world.memory(), 0);
    }
}
