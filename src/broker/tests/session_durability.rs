//! What comes back of client sessions after a restart, after a loss of power, and after one at any disk operation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use sabir_model::command::{Outcome, Promise, Replay};
use sabir_model::error::Code;
use sabir_model::ids::{QueueId, Sequence};
use sabir_model::settlement::Settlement;
use sabir_store::fault_fs::{Fault, Survival};
use sabir_store::{Recover, Store, StoreOptions};

use super::device::{Coming, Device, FOREVER, Parcel, bodies};
use super::fake::Woken;
use super::harness::{World, refusal};
use crate::session_log::TABLE_PROGRESS;

impl World {
    /// Notes of handovers that the log holds now.
    fn notes(&self) -> usize {
        self.broker.store().sync();
        let mut found = Notes::default();
        let mut options = StoreOptions::new("/log");
        options.segment_bytes = 1 << 20;
        options.manual = true;
        // A copy of the disk, so that nobody is disturbed.
        let disk = self.disk.crash(Survival::All);
        drop(Store::open(options, Arc::new(disk), &mut found).unwrap());
        found.0
    }
}

/// Counts the rows of one table.
#[derive(Default)]
struct Notes(usize);

impl Recover for Notes {
    fn meta(&mut self, table: u8, _: &[u8], _: &[u8]) {
        self.0 += usize::from(table == TABLE_PROGRESS);
    }

    fn queue(&mut self, _: QueueId, _: Sequence, _: u64) {}

    fn live(&mut self, _: QueueId, _: Sequence, _: Sequence, _: u64) {}

    fn attempts(&mut self, _: QueueId, _: Sequence, _: u32) {}
}

fn world_after(world: World, power_lost: bool) -> World {
    if power_lost { world.crash() } else { world.restart() }
}

#[test]
fn sessions_come_back_with_subscriptions_backlog_numbers_and_owner() {
    for power_lost in [false, true] {
        let world = World::new();
        let mut device = world.device("c", Coming::for_ms(FOREVER).user("alice"));
        device.bind("a").exactly_once().id(2).ok();
        device.bind("*").id(1).keep_retain().no_local().ok();
        device.bind("gone").ok();
        device.unbind("gone");
        device.send("a", "own").once(7).ok();
        device.client.synced();
        device.vanish();
        let mut sender = world.lasting("sender");
        sender.send("a", "1").exactly_once().ok();
        sender.send("a", "fleeting").at_most_once().ok();
        sender.send("b", "2").exactly_once().retain().ok();
        sender.client.synced();
        sender.vanish();
        let world = world_after(world, power_lost);
        assert!(world.try_device("c", Coming::for_ms(0).user("bob")).is_err());
        let mut device = world.device("c", Coming::for_ms(FOREVER).user("alice"));
        assert!(device.resumed);
        let got = device.take_all();
        let seen: Vec<_> = got
            .iter()
            .map(|one| (one.body.as_str(), one.guarantee, one.identifiers.clone(), one.retain))
            .collect();
        assert_eq!(seen[1..], [("1", 2, vec![2, 1], false), ("2", 1, vec![1], true)]);
        assert_eq!((seen[0].0, seen[0].1), ("own", 2));
        assert_eq!(got.iter().map(|one| one.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        device.send("a", "own again").once(7).ok();
        assert!(device.parcels().is_empty(), "it was sent before");
        device.send("b", "own").ok();
        assert!(device.parcels().is_empty());
        assert!(matches!(device.forget(7), Outcome::Accepted(_)));
        device.send("gone", "nobody").ok();
        assert_eq!(world.memory(), world.stats().retained_bytes);
    }
}

#[test]
fn what_has_ended_does_not_come_back() {
    for power_lost in [false, true] {
        let world = World::new();
        let mut short = world.device("short", Coming::for_ms(0));
        short.bind("a").ok();
        let mut timed = world.device("timed", Coming::for_ms(2000));
        timed.bind("a").ok();
        let mut cleaned = world.lasting("cleaned");
        cleaned.bind("a").ok();
        cleaned.send("a", "1").once(3).ok();
        let mut limited = world.device("limited", Coming::for_ms(10_000));
        limited.bind("a").ok();
        timed.vanish();
        cleaned.vanish();
        world.seconds(4);
        let mut cleaned = world.device("cleaned", Coming::for_ms(FOREVER).clean());
        cleaned.client.synced();
        let world = world_after(world, power_lost);
        drop((short, cleaned, limited));
        assert_eq!((world.stats().sessions, world.stats().topic_subscriptions), (2, 1));
        // How long it has been without its client nobody knows: it is told from the start.
        world.seconds(8);
        assert_eq!(world.stats().sessions, 2);
        world.seconds(4);
        assert_eq!((world.stats().sessions, world.memory()), (1, 0));
        let mut cleaned = world.lasting("cleaned");
        assert!(cleaned.resumed && cleaned.parcels().is_empty());
        assert_eq!(refusal(cleaned.forget(3)), Code::UnknownDelivery);
    }
}

#[test]
fn the_order_of_subscriptions_stays_whatever_is_replaced_between_restarts() {
    let mut world = World::new();
    let mut device = world.lasting("c");
    device.bind("a").id(1).ok();
    device.bind("*").id(2).ok();
    device.bind(">").id(3).ok();
    for _ in 0..4 {
        device.client.synced();
        device.vanish();
        world = world.restart();
        device = world.lasting("c");
        device.bind("a").id(1).ok();
        device.send("a", "1").ok();
        assert_eq!(device.one().identifiers, [1, 2, 3]);
        device.take_all();
        device.vanish();
        device = world.device("c", Coming::for_ms(FOREVER));
        device.take_all();
    }
}

#[test]
fn a_delivery_that_waits_for_the_log_keeps_nobody_busy() {
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("a").exactly_once().ok();
    device.client.synced();
    let mut sender = world.lasting("sender");
    sender.send("a", "1").exactly_once().ok();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    for client in [&mut sender.client, &mut device.client] {
        let flushed = client.host().poll_flush(&mut Context::from_waker(&waker), world.now());
        assert!(flushed.is_ready());
    }
    assert!(!woken.0.load(Ordering::Acquire), "somebody is to look again before the log has it");
    device.client.synced();
    assert_eq!(device.one().body, "1");
}

#[test]
fn kept_notes_outlive_the_broker_and_are_removed_when_done() {
    for power_lost in [false, true] {
        let world = World::new();
        let mut sender = world.lasting("sender");
        let mut device = world.lasting("c");
        device.bind("a").exactly_once().ok();
        for (body, note) in [("1", (21, true)), ("2", (22, false)), ("3", (23, true))] {
            device.notes(note.0, note.1);
            sender.send("a", body).exactly_once().ok();
            device.seen.push(body.to_owned());
            let got = device.one();
            if body == "3" {
                let outcome = device.settle_now(&got, Settlement::Advanced(33));
                assert!(matches!(outcome, Outcome::Accepted(Some(Promise { synced: true, .. }))));
            }
        }
        device.client.synced();
        assert_eq!(world.notes(), 2);
        device.vanish();
        sender.vanish();
        let world = world_after(world, power_lost);
        let mut device = world.lasting("c");
        let got = device.parcels();
        let seen: Vec<_> = got.iter().map(|one| (one.body.as_str(), one.progress, one.sequence)).collect();
        assert_eq!(seen, [("1", 21, 1), ("2", 0, 2), ("3", 33, 3)]);
        assert!(got.iter().all(|one| one.redelivered));
        device.ack(&got[0]);
        device.ack(&got[2]);
        assert_eq!(world.notes(), 0, "nothing of it stays in the log");
        // A session that ends takes its notes along.
        device.settle(&got[1], Settlement::Advanced(9));
        assert_eq!(world.notes(), 1);
        drop(world.device("c", Coming::for_ms(0).clean()));
        assert_eq!(world.notes(), 0);
    }
}

#[test]
fn what_waits_in_a_queue_comes_back_to_the_session_that_consumes_it() {
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("queue://q").id(3).ok();
    device.send("queue://q", "1").ok();
    device.client.synced();
    let world = world.crash();
    drop(device);
    let mut device = world.lasting("c");
    let got = device.one();
    assert_eq!((got.body.as_str(), got.redelivered, got.identifiers.as_slice()), ("1", true, [3].as_slice()));
}

/// What the clients of a scenario know.
#[derive(Default)]
struct Known {
    /// Accepted, and whether a receipt was due.
    sent: BTreeMap<String, bool>,
    /// Last values that were promised, by topic; several are possible for a moment.
    retained: BTreeMap<String, Vec<String>>,
    /// Bodies that were acknowledged, with a promise that was kept.
    acknowledged: BTreeSet<String>,
    /// Steps of handovers that were promised.
    advanced: BTreeMap<String, u32>,
    bound: bool,
}

fn kept(device: &mut Device, outcome: &Outcome) -> bool {
    let Outcome::Accepted(promise) = outcome else { return false };
    let store = device.client.broker.store();
    store.turn();
    let Some(promise) = promise else { return true };
    let level = if promise.synced { sabir_store::Level::Fsync } else { sabir_store::Level::Os };
    store.failed().is_none() && store.watermark().covers(promise.position, level)
}

/// A client with a backlog, one that publishes under numbers, last values, a handover in two steps. Nothing if the disk has
/// failed.
fn scenario(world: &World, known: &mut Known) -> Option<()> {
    let mut reader = world.try_device("reader", Coming::for_ms(FOREVER).credit(4)).ok()?;
    let outcome = reader.bind("a").exactly_once().id(1).outcome();
    known.bound = kept(&mut reader, &outcome);
    let mut sender = world.try_device("sender", Coming::for_ms(FOREVER)).ok()?;
    for round in 0..6u16 {
        for (number, retain) in [(round * 2 + 1, false), (round * 2 + 2, true)] {
            let body = format!("{number:03}");
            let topic = if retain { format!("r.{}", round % 3) } else { "a".to_owned() };
            if retain {
                known.retained.entry(topic.clone()).or_default().push(body.clone());
            }
            let send = sender.send(&topic, &body).once(number);
            let outcome = if retain { send.retain().outcome() } else { send.outcome() };
            let receipted = kept(&mut sender, &outcome);
            if retain && receipted {
                known.retained.insert(topic, vec![body]);
            } else if !retain && matches!(outcome, Outcome::Accepted(_)) {
                known.sent.insert(body, receipted && known.bound);
            }
        }
        world.broker.store().failed().is_none().then_some(())?;
        let got = reader.parcels();
        for parcel in &got {
            match round % 3 {
                0 => drop(reader.settle_now(parcel, Settlement::Accepted)),
                1 => {
                    let outcome = reader.settle_now(parcel, Settlement::Advanced(u32::from(round) + 5));
                    if kept(&mut reader, &outcome) {
                        known.advanced.insert(parcel.body.clone(), u32::from(round) + 5);
                    }
                }
                _ => {
                    let outcome = reader.settle_now(parcel, Settlement::Accepted);
                    if kept(&mut reader, &outcome) {
                        known.acknowledged.insert(parcel.body.clone());
                    }
                }
            }
            if round % 3 != 1 {
                known.advanced.remove(&parcel.body);
                // Whether or not that is on disk, it may be.
                known.sent.entry(parcel.body.clone()).and_modify(|receipted| *receipted = false);
            }
        }
        if round == 3 {
            reader.vanish();
            reader = world.try_device("reader", Coming::for_ms(FOREVER).credit(4)).ok()?;
        }
    }
    Some(())
}

fn check(world: &World, known: &Known, what: &str) {
    let mut reader = world.device("reader", Coming::for_ms(FOREVER).credit(100));
    let mut sender = world.device("sender", Coming::for_ms(FOREVER));
    assert!(reader.resumed || !known.bound, "{what}");
    // The sender repeats everything it has sent under its numbers; nothing must come twice.
    let before: Vec<Parcel> = reader.parcels();
    let found: BTreeSet<&str> = bodies(&before).into_iter().collect();
    assert_eq!(found.len(), before.len(), "{what}: twice in the backlog");
    assert!(bodies(&before).is_sorted(), "{what}: out of order: {:?}", bodies(&before));
    for (body, receipted) in &known.sent {
        let here = found.contains(body.as_str());
        assert!(here || !receipted, "{what}: {body} was receipted and is lost");
        assert!(!here || !known.acknowledged.contains(body), "{what}: {body} was acknowledged and is back");
        if known.bound && here {
            let send = sender.send("a", body).once(body.parse().unwrap());
            assert!(matches!(send.outcome(), Outcome::Accepted(_)));
        }
    }
    assert!(reader.parcels().is_empty(), "{what}: a repetition was sent again");
    for parcel in &before {
        if let Some(progress) = known.advanced.get(&parcel.body) {
            // A later step may have been on disk without anybody being told.
            assert!(parcel.progress >= *progress, "{what}: {} {}", parcel.body, parcel.progress);
        }
    }
    let mut looks = world.device("looks", Coming::for_ms(0));
    looks.bind("r.>").replay(Replay::Always).ok();
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in looks.take_all() {
        let topic = one.destination.trim_start_matches("topic://").to_owned();
        values.entry(topic).or_default().push(one.body);
    }
    for (topic, possible) in &known.retained {
        let found = values.remove(topic).unwrap_or_default();
        assert!(found.len() <= 1, "{what}: {topic} has {found:?}");
        match found.first() {
            Some(found) => assert!(possible.contains(found), "{what}: {topic} has {found} of {possible:?}"),
            None => assert!(possible.len() > 1 || !known_value(possible), "{what}: {topic} has no value"),
        }
    }
    assert!(values.is_empty(), "{what}: {values:?}");
    reader.ack_all(&before);
    assert_eq!(world.notes(), 0, "{what}");
}

/// Whether the one possible value was promised: those that were not are told apart by there being a first of them.
fn known_value(possible: &[String]) -> bool {
    possible.len() == 1 && possible[0].parse::<u16>().is_ok_and(|number| number > 6)
}

#[test]
fn a_power_loss_at_any_disk_operation_breaks_no_promise_to_a_session() {
    let world = World::new();
    let first = world.disk.io_count();
    scenario(&world, &mut Known::default()).unwrap();
    let last = world.disk.io_count();
    assert!(last > first + 20, "too few disk operations to be worth it: {first}..{last}");
    for io in first + 1..=last {
        let survival = [Survival::None, Survival::All, Survival::Random(io)][(io % 3) as usize];
        let world = World::new();
        world.disk.fault_at(io, Fault::Crash);
        let mut known = Known::default();
        let _ = scenario(&world, &mut known);
        let world = world.crash_as(survival);
        check(&world, &known, &format!("crash at disk operation {io}"));
    }
}
