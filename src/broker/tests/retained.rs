//! Last values of topics: kept, replaced, taken away, and sent to new subscriptions.

use std::collections::BTreeMap;

use sabir_model::command::{Outcome, Replay};
use sabir_model::destination::Destination;
use sabir_model::error::Code;

use super::device::{Coming, Device, FOREVER, bodies};
use super::harness::{Setup, World};
use crate::BrokerLimits;

/// What a new subscription is sent.
fn kept(world: &World, pattern: &str) -> Vec<String> {
    let mut device = world.device("looks", Coming::for_ms(0).clean());
    device.bind(pattern).replay(Replay::Always).ok();
    let got = device.take_all();
    assert!(got.iter().all(|one| one.retain));
    device.leave();
    got.into_iter().map(|one| one.body).collect()
}

fn sender(world: &World) -> Device {
    world.lasting("sender")
}

#[test]
fn a_topic_keeps_its_last_value_until_an_empty_one_or_its_end() {
    let world = World::new();
    let mut sender = sender(&world);
    sender.send("a", "1").retain().ok();
    sender.send("a", "not kept").ok();
    sender.send("b", "2").retain().at_most_once().ok();
    assert_eq!(kept(&world, ">"), ["1", "2"]);
    sender.send("a", "3").retain().ok();
    assert_eq!((kept(&world, "a"), world.stats().retained), (vec!["3".to_owned()], 2));
    sender.send("a", "").retain().ok();
    assert!(kept(&world, "a").is_empty());
    sender.send("a", "").retain().ok();
    let soon = world.clock_ms() + 1500;
    sender.send("a", "4").retain().expires(soon).ok();
    assert_eq!(kept(&world, "a"), ["4"]);
    world.clock.advance(std::time::Duration::from_secs(2));
    assert!(kept(&world, "a").is_empty(), "also before anybody has swept");
    world.seconds(2);
    assert_eq!(world.stats().retained, 1);
    sender.send("b", "").retain().at_most_once().ok();
    let stats = world.stats();
    assert_eq!((stats.retained, stats.retained_bytes, stats.memory_bytes), (0, 0, 0));
}

#[test]
fn who_subscribes_says_whether_last_values_are_wanted() {
    let world = World::new();
    let mut sender = sender(&world);
    sender.send("a", "1").retain().ok();
    let mut device = world.lasting("c");
    device.bind("a").replay(Replay::Never).ok();
    assert!(device.parcels().is_empty());
    device.bind("a").replay(Replay::IfNew).ok();
    assert!(device.parcels().is_empty());
    device.bind("a").replay(Replay::Always).id(4).ok();
    let got = device.one();
    assert_eq!((got.retain, got.guarantee, got.identifiers), (true, 1, vec![4]));
    device.bind("*").at_most_once().replay(Replay::IfNew).ok();
    let got = device.one();
    assert_eq!((got.retain, got.guarantee, got.token), (true, 0, None));
    device.bind("g").group("g").replay(Replay::Always).ok();
    device.bind("a").group("g").replay(Replay::Always).ok();
    assert!(device.parcels().is_empty(), "a group is not sent last values");
}

#[test]
fn names_that_begin_with_a_dollar_sign_are_for_those_who_ask() {
    let world = World::new();
    for topic in ["$SYS.load", "$SYS", "a.$b"] {
        world.broker.tell(&Destination::topic(topic), topic.as_bytes()).unwrap();
    }
    assert_eq!(kept(&world, ">"), ["a.$b"]);
    assert!(kept(&world, "*").is_empty());
    assert!(kept(&world, "*.load").is_empty());
    assert_eq!(kept(&world, "$SYS.>"), ["$SYS", "$SYS.load"]);
    assert_eq!(kept(&world, "$SYS.*"), ["$SYS.load"]);
    let (mut all, mut system) = (world.lasting("all"), world.lasting("system"));
    all.bind(">").ok();
    system.bind("$SYS.>").at_most_once().ok();
    world.broker.tell(&Destination::topic("$SYS.load"), b"9").unwrap();
    assert_eq!((all.bodies(), system.bodies()), (vec![], vec!["9".to_owned()]));
    // Nobody else may say anything there, and what the broker says takes nobody's place.
    let mut sender = sender(&world);
    let outcome = sender.send("$SYS.load", "10").outcome();
    assert!(matches!(outcome, Outcome::Refused(refusal) if refusal.code == Code::AccessDenied));
}

#[test]
fn what_the_broker_tells_needs_no_place_and_no_queue_of_the_log() {
    let limits = BrokerLimits { retained_max: 1, ..BrokerLimits::default() };
    let world = Setup { limits, ..Setup::default() }.open();
    for number in 0..3 {
        world.broker.tell(&Destination::topic(&format!("$SYS.{number}")), b"told").unwrap();
    }
    let mut sender = sender(&world);
    sender.send("a", "kept").retain().ok();
    let outcome = sender.send("b", "one too many").retain().outcome();
    assert!(matches!(outcome, Outcome::Refused(refusal) if refusal.code == Code::LimitReached));
}

#[test]
fn what_the_broker_tells_is_not_logged() {
    let world = World::new();
    let mut sender = sender(&world);
    sender.send("told", "sent").retain().ok();
    sender.send("kept", "sent").retain().ok();
    world.broker.tell(&Destination::topic("told"), b"told").unwrap();
    world.broker.tell(&Destination::topic("only"), b"told").unwrap();
    assert_eq!(kept(&world, ">"), ["sent", "told", "told"]);
    sender.client.synced();
    sender.leave();
    // It took the place of what was logged.
    assert_eq!(kept(&world.restart(), ">"), ["sent"]);
}

#[test]
fn last_values_come_back_after_the_broker() {
    for power_lost in [false, true] {
        let world = World::new();
        let mut sender = sender(&world);
        let soon = world.clock_ms() + 3000;
        sender.send("a", "old").retain().ok();
        sender.send("a", "new").retain().at_most_once().ok();
        sender.send("b", "gone").retain().ok();
        sender.send("b", "").retain().ok();
        sender.send("c", "short").retain().expires(soon).ok();
        sender.client.synced();
        sender.leave();
        let mut world = if power_lost { world.crash() } else { world.restart() };
        let memory = world.memory();
        assert_eq!((kept(&world, ">"), world.stats().retained), (vec!["new".into(), "short".into()], 2));
        world.seconds(5);
        let mut sender = self::sender(&world);
        sender.send("a", "newest").retain().ok();
        sender.client.synced();
        sender.leave();
        world = world.restart();
        assert_eq!((kept(&world, ">"), world.stats().retained), (vec!["newest".into()], 1));
        assert!(world.memory() < memory);
        let mut sender = self::sender(&world);
        sender.send("a", "").retain().ok();
        assert_eq!(world.memory(), 0);
        sender.client.synced();
        assert_eq!(world.stats().store.live_ranges, 0, "nothing of it stays in the log");
    }
}

#[test]
fn there_is_a_bound() {
    let mut setup = Setup::default();
    setup.limits.retained_max = 2;
    let world = setup.open();
    let mut sender = sender(&world);
    sender.send("a", "1").retain().ok();
    sender.send("b", "1").retain().ok();
    assert_eq!(sender.send("c", "1").retain().refused(), Code::LimitReached);
    sender.send("a", "2").retain().ok();
    sender.send("c", "").retain().ok();
    sender.send("a", "").retain().ok();
    sender.send("c", "1").retain().ok();
    assert_eq!(kept(&world, ">"), ["1", "1"]);
}

const MANY: usize = 4000;

fn many(setup: Setup) -> World {
    let world = setup.open();
    let mut sender = sender(&world);
    for number in 0..MANY {
        let send = |sender: &mut Device, to: &str| drop(sender.send(to, to).retain().unended());
        send(&mut sender, &format!("v.{number:05}"));
    }
    sender.client.end_batch();
    sender.leave();
    world
}

/// Counts bodies; every one of them once.
fn each_once(counts: &mut BTreeMap<String, usize>, bodies: impl IntoIterator<Item = String>) {
    bodies.into_iter().for_each(|body| *counts.entry(body).or_default() += 1);
}

#[test]
fn a_slow_reader_gets_all_of_thousands_of_values() {
    for at_most_once in [false, true] {
        let mut setup = Setup::default();
        setup.limits.outbox.bytes_soft = 2000;
        setup.limits.session_messages_max = 1500;
        let world = many(setup);
        let mut device = world.device("c", Coming::for_ms(FOREVER).credit(7));
        device.client.block_after(100);
        let bind = device.bind("v.*").replay(Replay::Always);
        if at_most_once {
            bind.at_most_once().ok()
        } else {
            bind.ok()
        };
        let mut counts = BTreeMap::new();
        for turn in 0..20_000 {
            device.client.block_after(turn % 4000);
            let got = device.parcels();
            device.ack_all(&got);
            device.client.run();
            each_once(&mut counts, got.into_iter().map(|one| one.body));
            if counts.len() == MANY {
                break;
            }
        }
        device.client.unblock();
        each_once(&mut counts, device.take_all().into_iter().map(|one| one.body));
        assert_eq!((counts.len(), counts.values().max()), (MANY, Some(&1)), "{at_most_once}");
        assert_eq!(world.stats().discarded, 0);
    }
}

#[test]
fn values_wait_for_a_full_backlog_that_nothing_of_is_on_its_way() {
    let mut setup = Setup::default();
    setup.limits.outbox.bytes_soft = 100;
    let world = setup.open();
    let mut sender = sender(&world);
    sender.send("kept", "kept").retain().ok();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(3));
    device.bind("a").ok();
    device.bind("live").at_most_once().ok();
    device.client.block_after(0);
    let long = "x".repeat(200);
    sender.send("live", &long).ok();
    let all: Vec<String> = (0..1500).map(|number| number.to_string()).collect();
    for body in &all {
        sender.send("a", body).unended();
    }
    sender.client.end_batch();
    assert_eq!(world.queue("session://c").unwrap().unsettled, 0);
    device.bind("kept").replay(Replay::Always).ok();
    device.client.unblock();
    let mut got = Vec::new();
    for _ in 0..3000 {
        let some = device.take_all();
        device.client.run();
        if some.is_empty() {
            break;
        }
        got.extend(some);
    }
    assert_eq!(got.len(), 1502);
    assert_eq!(got.iter().filter(|one| one.body == "kept").count(), 1);
}

#[test]
fn what_is_still_owed_is_owed_to_the_next_connection() {
    let world = many(Setup::default());
    for how in ["taken over", "lost"] {
        let mut device = world.device("c", Coming::for_ms(FOREVER).clean().credit(10));
        device.bind("v.>").replay(Replay::IfNew).ok();
        let mut counts = BTreeMap::new();
        for _ in 0..20 {
            let got = device.parcels();
            device.ack_all(&got);
            each_once(&mut counts, got.into_iter().map(|one| one.body));
        }
        if how == "lost" {
            device.vanish();
            device = world.device("c", Coming::for_ms(FOREVER).credit(100));
        } else {
            let new = world.device("c", Coming::for_ms(FOREVER).credit(100));
            drop(std::mem::replace(&mut device, new));
        }
        loop {
            let some = device.take_all();
            device.client.run();
            if some.is_empty() {
                break;
            }
            each_once(&mut counts, some.into_iter().map(|one| one.body));
        }
        assert_eq!(counts.len(), MANY, "{how}");
        device.unbind("v.>");
    }
    assert_eq!(world.stats().discarded, 0);
}

#[test]
fn a_subscription_that_has_ended_is_owed_nothing() {
    let world = many(Setup::default());
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(1));
    device.bind("v.>").replay(Replay::Always).ok();
    device.unbind("v.>");
    let got = device.take_all();
    assert!(got.len() < MANY, "{}", got.len());
    assert!(bodies(&got).is_sorted());
    device.client.run();
    assert!(device.take_all().is_empty());
}
