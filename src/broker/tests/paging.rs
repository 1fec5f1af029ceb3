//! Deep queues: only a window is in memory, the rest is read from the log when its turn comes, and nobody can tell.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sabir_model::clock::Timestamp;
use sabir_model::settlement::Settlement;
use sabir_store::Level;

use super::harness::{Setup, World};
use super::managed_messages::{all, matching, to};
use super::queues::bodies;
use super::stress::Dice;
use crate::manage::{Chosen, Deed, Step};
use crate::work::{Work, finish};
use crate::{Expired, Policy};

/// A world whose queues may hold so many bytes in memory.
pub(super) fn narrow(bytes: u64) -> Setup {
    let mut setup = Setup::default();
    setup.limits.queue_memory_bytes_max = bytes;
    setup
}

pub(super) fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

impl World {
    fn fill(&self, queue: &str, range: std::ops::RangeInclusive<u32>) {
        let mut producer = self.client();
        for body in numbers(range) {
            producer.send(queue, &body).persistent().ok();
        }
    }

    fn paged(&self, queue: &str) -> u64 {
        self.queue(queue).map_or(0, |queue| queue.paged)
    }

    /// What a new consumer gets, acknowledging one after the other.
    pub(super) fn consume(&self, queue: &str) -> Vec<String> {
        let mut consumer = self.client();
        consumer.subscribe(queue).credit(10).ok();
        let mut got = Vec::new();
        loop {
            consumer.run();
            let some = consumer.drain();
            if some.is_empty() {
                return got;
            }
            got.extend(some.iter().map(|one| one.body.clone()));
            consumer.ack_all(&some);
        }
    }
}

#[test]
fn a_deep_queue_takes_no_more_memory_than_its_window_and_is_drained_in_order() {
    let world = narrow(4096).open();
    world.fill("queue://deep", 1..=2000);
    assert!(world.memory() <= 4096 + 512, "{} bytes", world.memory());
    let stats = world.queue("queue://deep").unwrap();
    assert_eq!(stats.ready, 2000);
    assert!(stats.paged > 1900 && stats.bytes > 100_000, "{stats:?}");
    assert_eq!(world.consume("queue://deep"), numbers(1..=2000));
    let stats = world.queue("queue://deep").unwrap();
    assert_eq!((world.memory(), stats.ready, stats.paged, stats.bytes), (0, 0, 0, 0));
}

#[test]
fn consumers_that_come_and_go_while_the_queue_fills_get_everything_once() {
    let world = narrow(2048).open();
    let mut producer = world.client();
    let mut got = Vec::new();
    for round in 0..40u32 {
        for number in 0..50 {
            producer.send("queue://q", &(round * 50 + number).to_string()).persistent().ok();
        }
        let mut consumer = world.client();
        consumer.subscribe("queue://q").credit(7).ok();
        for _ in 0..6 {
            let some = consumer.drain();
            got.extend(some.iter().map(|one| one.body.clone()));
            consumer.ack_all(&some);
        }
        // What it has and does not settle comes back to the head.
        consumer.vanish();
    }
    got.extend(world.consume("queue://q"));
    assert_eq!(got.len(), 2000);
    got.sort_by_key(|body| body.parse::<u32>().unwrap());
    assert_eq!(got, numbers(0..=1999));
    assert_eq!(world.memory(), 0);
}

#[test]
fn after_a_restart_messages_stay_in_the_log_until_their_turn_comes() {
    for crash in [false, true] {
        let world = narrow(4096).open();
        world.fill("queue://deep", 1..=500);
        let mut consumer = world.client();
        consumer.subscribe("queue://deep").credit(3).ok();
        let got = consumer.drain();
        consumer.settle(&got[1], Settlement::Failed);
        consumer.ack(&got[0]);
        consumer.synced();
        consumer.vanish();
        let world = if crash { world.crash() } else { world.restart() };
        assert_eq!(world.memory(), 0);
        assert_eq!((world.depth("queue://deep"), world.paged("queue://deep")), (499, 499));
        world.fill("queue://deep", 501..=510);
        let mut consumer = world.client();
        consumer.subscribe("queue://deep").credit(2).ok();
        let got = consumer.drain();
        assert_eq!(bodies(&got), ["2", "3"]);
        assert!(got[0].attempt >= 2 && got[0].redelivered, "{got:?}");
        consumer.ack_all(&got);
        let next = consumer.drain();
        assert_eq!(bodies(&next), ["4", "5"]);
        assert_eq!(next[1].redelivered, crash, "whoever crashed cannot know");
        consumer.vanish();
        assert_eq!(world.consume("queue://deep"), numbers(4..=510));
    }
}

#[test]
fn heads_are_brought_in_before_somebody_asks() {
    let world = narrow(4096).open();
    world.fill("queue://a", 1..=100);
    world.fill("queue://b", 1..=100);
    let world = world.restart();
    assert_eq!(world.memory(), 0);
    world.pass(Duration::from_secs(2));
    assert!(world.memory() > 0 && world.memory() <= 2 * 4500, "{}", world.memory());
    assert!(world.queue("queue://a").unwrap().oldest.is_some());
}

#[test]
fn priority_goes_first_wherever_the_message_is() {
    for restart in [false, true] {
        let policy = Policy { prioritized: true, ..Policy::default() };
        let mut world = narrow(2048).policy("queue://p", policy).open();
        let mut producer = world.client();
        let mut expected: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        let mut dice = Dice(7);
        for number in 0..600 {
            let priority = u8::try_from(dice.throw(10)).unwrap();
            let body = number.to_string();
            producer.send("queue://p", &body).priority(priority).persistent().ok();
            expected.entry(9 - priority).or_default().push(body);
        }
        producer.close();
        assert!(world.paged("queue://p") > 500);
        if restart {
            world = world.restart();
        }
        assert_eq!(world.consume("queue://p"), expected.into_values().flatten().collect::<Vec<_>>());
    }
}

#[test]
fn a_selector_finds_its_messages_however_deep_they_lie() {
    let world = narrow(2048).open();
    let mut producer = world.client();
    for number in 0..1000 {
        let kind = if number % 100 == 99 { "rare" } else { "common" };
        producer.send("queue://s", &number.to_string()).property("kind", kind).persistent().ok();
    }
    let mut consumer = world.client();
    consumer.subscribe("queue://s").selector("kind = 'rare'").credit(3).ok();
    let mut got = Vec::new();
    loop {
        consumer.run();
        let some = consumer.drain();
        if some.is_empty() {
            break;
        }
        got.extend(bodies(&some).into_iter().map(str::to_owned));
        consumer.ack_all(&some);
    }
    let rare: Vec<String> = (0..10).map(|n| (n * 100 + 99).to_string()).collect();
    assert_eq!(got, rare);
    assert!(world.memory() <= 2048 + 2 * 4096, "{} bytes", world.memory());
    // One that comes now is found at once, behind everything that does not match.
    producer.send("queue://s", "new").property("kind", "rare").persistent().ok();
    assert_eq!(bodies(&consumer.drain()), ["new"]);
    consumer.close();
    let rest: Vec<String> =
        (0..1000).filter(|number| number % 100 != 99).map(|number| number.to_string()).collect();
    let mut left = world.consume("queue://s");
    assert_eq!(left.pop().as_deref(), Some("new"), "it was not acknowledged");
    assert_eq!(left, rest);
}

#[test]
fn a_selector_gets_past_messages_that_fill_a_page_each() {
    let world = narrow(1024).open();
    let mut producer = world.client();
    let body = "x".repeat(5000);
    for kind in ["common", "common", "rare", "common", "common"] {
        producer.send("queue://s", &body).property("kind", kind).persistent().ok();
    }
    let mut consumer = world.client();
    consumer.subscribe("queue://s").selector("kind = 'rare'").credit(3).ok();
    // Ends: what was looked at is not looked at again for want of room.
    consumer.run();
    assert_eq!(consumer.drain().len(), 1);
    consumer.run();
    assert!(consumer.drain().is_empty());
}

#[test]
fn what_has_expired_goes_from_the_log_without_a_consumer() {
    for dead_letters in [false, true] {
        let expired = if dead_letters { Expired::DeadLetter } else { Expired::Drop };
        let world = narrow(1024).policy("queue://e", Policy { expired, ..Policy::default() }).open();
        let mut producer = world.client();
        for number in 0..300 {
            let send =
                producer.send("queue://e", if number % 2 == 0 { "short" } else { "long" }).persistent();
            if number % 2 == 0 { send.ttl(1000).ok() } else { send.ttl(60_000).ok() }
        }
        world.pass(Duration::from_secs(3));
        let stats = world.queue("queue://e").unwrap();
        assert_eq!((stats.ready, stats.expired), (150, 150));
        assert_eq!(world.depth("queue://ActiveMQ.DLQ"), if dead_letters { 150 } else { 0 });
        world.pass(Duration::from_secs(70));
        assert_eq!(world.depth("queue://e"), 0);
        producer.close();
        // The log knows, too.
        let world = world.restart();
        assert_eq!(world.depth("queue://e"), 0);
        assert_eq!(world.depth("queue://ActiveMQ.DLQ"), if dead_letters { 300 } else { 0 });
    }
}

#[test]
fn what_expires_while_the_broker_is_down_goes_when_it_is_back() {
    for crash in [false, true] {
        let world = narrow(1024).open();
        let mut producer = world.client();
        for number in 0..200 {
            let body = number.to_string();
            let send = producer.send("queue://e", &body).persistent();
            if number % 4 == 0 { send.ttl(5000).ok() } else { send.ok() }
        }
        producer.synced();
        producer.close();
        let world = if crash { world.crash() } else { world.restart() };
        assert_eq!(world.depth("queue://e"), 200);
        world.pass(Duration::from_secs(10));
        assert_eq!(world.depth("queue://e"), 150);
        assert_eq!(world.restart().depth("queue://e"), 150);
    }
}

#[test]
fn a_browser_sees_all_that_was_there_in_order_and_takes_nothing() {
    let world = narrow(1024).open();
    world.fill("queue://b", 1..=700);
    let mut consumer = world.client();
    consumer.subscribe("queue://b").credit(5).ok();
    assert_eq!(consumer.drain().len(), 5);
    assert_eq!(world.browse("queue://b"), numbers(1..=700));
    let mut browser = world.client();
    browser.subscribe("queue://b").selector("JMSPriority > 9").browse().ok();
    assert!(browser.bodies().is_empty());
    assert!(world.memory() <= 4096, "{}", world.memory());
    consumer.vanish();
    assert_eq!(world.consume("queue://b"), numbers(1..=700));
}

#[test]
fn management_reaches_messages_that_are_in_the_log_only() {
    let world = narrow(1024).open();
    let mut producer = world.client();
    for number in 1..=400 {
        let kind = if number % 10 == 0 { "tenth" } else { "other" };
        producer.send("queue://m", &number.to_string()).property("kind", kind).persistent().ok();
    }
    let page = world.page("m", &all(300, 5));
    let shown: Vec<u64> = page.items.iter().map(|entry| entry.sequence).collect();
    assert_eq!((shown, page.next, page.total), (vec![301, 302, 303, 304, 305], Some(305), Some(400)));
    assert_eq!(world.broker.message("/", "m", 399).unwrap().message.body().octets(), Some(&b"399"[..]));
    world.broker.delete_message("/", "m", 399).unwrap();
    assert!(world.broker.message("/", "m", 399).is_err());

    let tally = world.run("m", Deed::Move(to("queue://tenths")), matching("kind = 'tenth'"));
    assert_eq!(tally.done, 40);
    let tenths: Vec<String> = (1..=40).map(|number| (number * 10).to_string()).collect();
    assert_eq!(world.held("tenths"), tenths);
    assert_eq!(world.depth("queue://m"), 359);
    let tally =
        world.run("m", Deed::Copy(to("queue://copies")), Chosen::Sequences(vec![1, 200, 201, 398, 399]));
    assert_eq!(tally.done, 3);
    assert_eq!(world.held("copies"), ["1", "201", "398"]);
    let tally = world.run("m", Deed::Delete, Chosen::Sequences((1..=100).collect()));
    assert_eq!(tally.done, 90);

    // Over a restart it stays so.
    producer.close();
    let world = world.restart();
    assert_eq!((world.depth("queue://m"), world.depth("queue://tenths")), (269, 40));
    assert_eq!(world.held("tenths"), tenths);
    assert_eq!(world.broker.purge_queue("/", "m").unwrap().0, 269);
    assert_eq!((world.depth("queue://m"), world.paged("queue://m")), (0, 0));
    let world = world.restart();
    assert_eq!(world.depth("queue://m"), 0);
    assert_eq!(world.consume("queue://tenths"), tenths);
}

#[test]
fn messages_that_are_not_logged_keep_their_place_between_those_that_are() {
    let world = narrow(1024).open();
    let mut producer = world.client();
    for number in 1..=300 {
        let body = number.to_string();
        let send = producer.send("queue://mixed", &body);
        if number % 7 == 0 { send.ok() } else { send.persistent().ok() }
    }
    assert!(world.paged("queue://mixed") > 200);
    assert_eq!(world.consume("queue://mixed"), numbers(1..=300));
    assert_eq!(world.memory(), 0);
}

#[test]
fn transactions_and_dead_letters_reach_deep_queues() {
    let policy = Policy { delivery_limit: 1, ..Policy::default() };
    let world = narrow(512).policy("queue://t", policy).open();
    let mut producer = world.client();
    let transaction = producer.begin();
    for body in numbers(1..=100) {
        producer.send("queue://t", &body).persistent().in_transaction(transaction).ok();
    }
    assert_eq!(world.depth("queue://t"), 0);
    producer.commit(transaction);
    let mut consumer = world.client();
    consumer.subscribe("queue://t").credit(20).ok();
    for _ in 0..5 {
        for got in consumer.drain() {
            consumer.settle(&got, Settlement::Failed);
        }
    }
    assert_eq!(world.depth("queue://ActiveMQ.DLQ"), 100);
    assert_eq!(world.consume("queue://ActiveMQ.DLQ"), numbers(1..=100));
}

#[test]
fn when_memory_runs_low_queues_page_out_more_and_persistent_sends_go_on() {
    let in_memory = Policy { durability: Level::Memory, ..Policy::default() };
    let mut setup = narrow(100_000).policy("queue://b", in_memory);
    setup.limits.memory_bytes_max = 60_000;
    let world = setup.open();
    world.fill("queue://a", 1..=200);
    assert_eq!(world.paged("queue://a"), 0);
    let mut producer = world.client();
    while producer.send("queue://b", "in memory only").outcome_is_accepted() {}
    assert!(world.memory() > 40_000);
    world.pass(Duration::from_secs(1));
    // What the log holds has made room.
    assert!(world.paged("queue://a") > 0);
    assert!(producer.send("queue://b", "in memory only").outcome_is_accepted());
    while producer.send("queue://b", "in memory only").outcome_is_accepted() {}
    world.fill("queue://a", 201..=400);
    assert_eq!(world.consume("queue://a"), numbers(1..=400));
}

/// Everything at random against the simplest model there is.
#[test]
fn a_deep_queue_behaves_like_a_list() {
    for seed in 0..40 {
        random_walk(seed);
    }
}

struct Walk {
    dice: Dice,
    /// Bodies and when they expire, in the order they are to come.
    model: VecDeque<(String, u64)>,
    next: u32,
}

fn random_walk(seed: u64) {
    let mut walk = Walk { dice: Dice(seed), model: VecDeque::new(), next: 0 };
    let window = [1, 300, 1500, 6000][usize::try_from(seed).unwrap() % 4];
    let mut world = narrow(window).open();
    for _ in 0..walk.dice.throw(30) + 5 {
        match walk.dice.throw(10) {
            0..=3 => {
                let mut producer = world.client();
                for _ in 0..walk.dice.throw(80) {
                    walk.next += 1;
                    let body = format!("{}{}", walk.next, "-".repeat(walk.dice.throw(50)));
                    let ttl = if walk.dice.throw(8) == 0 { 3000 } else { 0 };
                    let send = producer.send("queue://w", &body).persistent();
                    if ttl > 0 {
                        send.ttl(ttl).ok()
                    } else {
                        send.ok()
                    }
                    let expires = if ttl > 0 { world.now().wall.0 + ttl } else { u64::MAX };
                    walk.model.push_back((body, expires));
                }
                producer.synced();
            }
            4..=6 => {
                let mut consumer = world.client();
                consumer.subscribe("queue://w").credit(1 + walk.dice.throw(20) as u32).ok();
                for _ in 0..walk.dice.throw(6) {
                    let now = world.now().wall;
                    walk.model.retain(|(_, expires)| *expires > now.0);
                    consumer.run();
                    let got = consumer.drain();
                    let expected: Vec<&str> =
                        walk.model.iter().take(got.len()).map(|(body, _)| body.as_str()).collect();
                    assert_eq!(bodies(&got), expected, "seed {seed}");
                    assert!(!got.is_empty() || walk.model.is_empty(), "seed {seed}");
                    consumer.ack_all(&got);
                    walk.model.drain(..got.len());
                }
                consumer.synced();
                if walk.dice.throw(2) == 0 { consumer.vanish() } else { consumer.close() }
            }
            7 => world.pass(Duration::from_millis(walk.dice.throw(2500) as u64)),
            8 => world = if walk.dice.throw(2) == 0 { world.restart() } else { world.crash() },
            _ => {
                let held = world.held("w");
                let now = world.now().wall;
                let alive = |expires: u64| !Timestamp(expires).has_passed(now);
                let expected: Vec<&String> =
                    walk.model.iter().filter(|(_, expires)| alive(*expires)).map(|(body, _)| body).collect();
                let held: Vec<&String> = held.iter().filter(|body| expected.contains(body)).collect();
                assert_eq!(held, expected, "seed {seed}");
            }
        }
    }
    let now = world.now().wall;
    walk.model.retain(|(_, expires)| *expires > now.0);
    let expected: Vec<String> = walk.model.into_iter().map(|(body, _)| body).collect();
    assert_eq!(world.consume("queue://w"), expected, "seed {seed}");
    assert_eq!(world.memory(), 0, "seed {seed}");
}

#[test]
fn what_has_expired_comes_into_memory_a_page_at_a_time() {
    let policy = Policy { expired: Expired::DeadLetter, ..Policy::default() };
    let world = narrow(40_000).policy("queue://e", policy).open();
    let mut producer = world.client();
    let body = "x".repeat(1000);
    for _ in 0..1000 {
        producer.send("queue://e", &body).persistent().ttl(1000).ok();
    }
    producer.synced();
    world.clock.advance(Duration::from_secs(2));
    let shared = &world.broker.shared;
    let queue = world.broker.find_managed(&shared.find_host("/").unwrap(), "e").unwrap();
    let mut work = Work::new(world.now());
    queue.lock().core.expire(&queue, &mut work);
    let (mut swept, mut most) = (work.dead.len(), 0);
    while !work.jobs.is_empty() {
        shared.pager.take(shared, &mut work);
        most = most.max(work.dead.len() - swept);
        swept = work.dead.len();
    }
    assert!(swept == 1000 && most <= 41, "{most} of {swept} at a time");
    while finish(shared, &mut work) {}
    assert_eq!((world.depth("queue://e"), world.depth("queue://ActiveMQ.DLQ")), (0, 1000));
}

#[test]
fn what_could_not_be_read_for_want_of_descriptors_is_read_when_there_are_some() {
    let world = narrow(1024).open();
    world.fill("queue://q", 1..=200);
    let mut producer = world.client();
    for body in numbers(1..=200) {
        producer.send("queue://e", &body).persistent().ttl(1000).ok();
    }
    world.broker.store().sync();
    world.broker.store().turn();
    world.disk.set_without_descriptors(true);
    let mut consumer = world.client();
    consumer.subscribe("queue://q").auto().ok();
    let mut got = consumer.bodies();
    assert!(got.len() < 100, "{}", got.len());
    world.pass(Duration::from_secs(3));
    assert!(world.depth("queue://e") > 100, "nor can what has expired be read");
    world.disk.set_without_descriptors(false);
    world.pass(Duration::from_secs(15));
    consumer.run();
    got.extend(consumer.bodies());
    assert_eq!(got, numbers(1..=200));
    assert_eq!(world.depth("queue://e"), 0);
}

#[test]
fn what_cannot_be_read_now_is_neither_overlooked_by_browsers_nor_by_management() {
    let world = narrow(1024).open();
    world.fill("queue://q", 1..=200);
    world.broker.store().sync();
    world.disk.set_without_descriptors(true);
    let mut browser = world.client();
    browser.subscribe("queue://q").browse().ok();
    let mut seen = browser.bodies();
    let mut errand = world.errand("q", Deed::Delete, Chosen::All, None).unwrap();
    assert!(matches!(world.carry_on(&mut errand), Step::Blocked(_)));
    assert!(world.broker.list_messages("/", "q", &all(0, 1000)).is_err());
    world.disk.set_without_descriptors(false);
    world.pass(Duration::from_secs(2));
    seen.extend(browser.bodies());
    assert_eq!(seen, numbers(1..=200));
    assert_eq!(world.carry_on(&mut errand), Step::Done);
    assert_eq!((errand.tally.done, world.depth("queue://q")), (200, 0));
}
