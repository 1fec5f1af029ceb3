//! The backlog of a client session: its bounds, its order, and what expires in it.

use sabir_model::command::Replay;
use sabir_model::error::Code;
use sabir_model::settlement::Settlement;

use super::device::{Coming, FOREVER, bodies};
use super::harness::{Setup, World};
use crate::SlowConsumer;

#[test]
fn a_full_backlog_drops_what_its_policy_says_and_refuses_nobody() {
    for (when_full, kept) in [(SlowConsumer::DropOldest, ["3", "4"]), (SlowConsumer::DropNewest, ["1", "2"])]
    {
        for how in ["as it was", "restarted", "crashed"] {
            let mut setup = Setup::default();
            setup.limits.session_messages_max = 2;
            setup.limits.session_when_full = when_full;
            let world = setup.open();
            let mut device = world.lasting("c");
            device.bind("a").ok();
            device.bind("b").ok();
            device.vanish();
            let mut sender = world.lasting("sender");
            for body in ["1", "2", "3", "4"] {
                sender.send("a", body).ok();
            }
            assert_eq!(world.stats().discarded, 2);
            sender.client.synced();
            sender.vanish();
            let world = match how {
                "restarted" => world.restart(),
                "crashed" => world.crash(),
                _ => world,
            };
            let mut device = world.lasting("c");
            assert_eq!(bodies(&device.take_all()), kept, "{how}");
            assert_eq!(world.memory(), 0);
        }
    }
}

#[test]
fn a_backlogs_bytes_have_a_bound_however_large_the_next_message_is() {
    let mut setup = Setup::default();
    setup.limits.session_bytes_max = 20_000;
    let world = setup.open();
    let mut device = world.lasting("c");
    device.bind("a").ok();
    device.vanish();
    let mut sender = world.lasting("sender");
    for _ in 0..40 {
        sender.send("a", "small").ok();
    }
    let large = "x".repeat(4000);
    for _ in 0..40 {
        sender.send("a", &large).ok();
        let bytes = world.queue("session://c").unwrap().bytes;
        assert!(bytes <= 20_000 + 5000, "{bytes}");
    }
    let mut device = world.lasting("c");
    let got = device.take_all();
    assert!((3..=5).contains(&got.len()), "{}", got.len());
    assert_eq!(world.memory(), 0);
}

#[test]
fn a_full_backlog_can_end_the_connection_instead() {
    let mut setup = Setup::default();
    setup.limits.session_messages_max = 2;
    setup.limits.session_when_full = SlowConsumer::Disconnect;
    let world = setup.open();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(1));
    device.bind("a").ok();
    let mut sender = world.lasting("sender");
    for body in ["1", "2", "3"] {
        sender.send("a", body).ok();
    }
    assert_eq!(device.client.host().overrun().map(|refusal| refusal.code), Some(Code::SlowConsumer));
    device.vanish();
    assert_eq!(bodies(&world.lasting("c").take_all()), ["1", "2"]);
}

#[test]
fn a_handover_that_has_begun_is_not_dropped_for_lack_of_room() {
    let mut setup = Setup::default();
    setup.limits.session_messages_max = 3;
    let world = setup.open();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(1));
    device.bind("a").exactly_once().ok();
    let mut sender = world.lasting("sender");
    sender.send("a", "begun").exactly_once().ok();
    let begun = device.one();
    device.settle(&begun, Settlement::Advanced(5));
    device.vanish();
    for body in ["1", "2", "3", "4"] {
        sender.send("a", body).exactly_once().ok();
    }
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(10));
    let got = device.take_all();
    let seen: Vec<_> = got.iter().map(|one| (one.body.as_str(), one.progress)).collect();
    assert_eq!(seen, [("begun", 5), ("3", 0), ("4", 0)]);
}

#[test]
fn the_order_of_the_backlog_outlives_connections() {
    let world = World::new();
    let mut sender = world.lasting("sender");
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(4));
    device.bind("a").ok();
    let all: Vec<String> = (0..30).map(|number| format!("{number:02}")).collect();
    all[..10].iter().for_each(|body| assert!(sender.send("a", body).ok().is_some()));
    let mut taken: Vec<String> = Vec::new();
    for round in 0..4 {
        let got = device.parcels();
        // The second and the third are settled, the others come again, before what is new.
        for one in got.iter().skip(1).take(2) {
            device.ack(one);
            taken.push(one.body.clone());
        }
        device.vanish();
        all[10 + round * 5..15 + round * 5]
            .iter()
            .for_each(|body| assert!(sender.send("a", body).ok().is_some()));
        device = world.device("c", Coming::for_ms(FOREVER).credit(4));
        let got = device.parcels();
        let mut left: Vec<&String> = all[..15 + round * 5].iter().filter(|b| !taken.contains(b)).collect();
        left.truncate(4);
        assert_eq!(bodies(&got), left, "round {round}");
        assert!(got[0].redelivered && got[0].attempt > 1);
        device.settle(&got[0], Settlement::Released);
        assert_eq!(device.parcels()[0].body, got[0].body);
    }
    let rest: Vec<String> = device.take_all().into_iter().map(|one| one.body).collect();
    assert!(rest.is_sorted());
}

#[test]
fn nothing_of_a_session_becomes_a_dead_letter_for_being_repeated() {
    let world = World::new();
    let mut sender = world.lasting("sender");
    let mut device = world.lasting("c");
    device.bind("a").ok();
    sender.send("a", "1").ok();
    for _ in 0..20 {
        assert_eq!(bodies(&device.parcels()), ["1"]);
        device.vanish();
        device = world.lasting("c");
    }
    sender.send("a", "undeliverable").ok();
    assert_eq!(bodies(&device.take_all()), ["1"]);
    assert_eq!((world.depth("queue://ActiveMQ.DLQ"), world.memory()), (0, 0));
}

#[test]
fn a_message_expires_in_the_backlog_unless_its_handover_has_begun() {
    let world = World::new();
    let mut sender = world.lasting("sender");
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(1));
    device.bind("a").exactly_once().ok();
    let soon = world.clock_ms() + 2000;
    sender.send("a", "begun").exactly_once().expires(soon).ok();
    sender.send("a", "waiting").exactly_once().expires(soon).ok();
    sender.send("a", "lasting").exactly_once().ok();
    let begun = device.one();
    device.settle(&begun, Settlement::Advanced(3));
    device.vanish();
    world.seconds(5);
    let mut device = world.lasting("c");
    let got = device.take_all();
    let seen: Vec<_> = got.iter().map(|one| (one.body.as_str(), one.progress)).collect();
    assert_eq!(seen, [("begun", 3), ("lasting", 0)]);
    assert_eq!((world.stats().expired, world.memory()), (1, 0));
}

#[test]
fn what_waits_in_the_log_only_is_granted_what_its_subscriptions_say() {
    let mut setup = Setup::default();
    setup.limits.queue_memory_bytes_max = 1;
    let world = setup.open();
    let mut sender = world.lasting("sender");
    sender.send("kept.1", "last value").retain().ok();
    let mut device = world.lasting("c");
    device.bind("a.*").id(7).ok();
    device.vanish();
    for body in ["1", "2", "3"] {
        sender.send("a.b", body).ok();
    }
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(1));
    // A last value that comes to wait behind what is in the log only is still told as one.
    device.bind("kept.*").replay(Replay::Always).ok();
    let got = device.take_all();
    let seen: Vec<_> =
        got.iter().map(|one| (one.body.as_str(), one.retain, one.identifiers.clone())).collect();
    let waited = |body| (body, false, vec![7]);
    assert_eq!(seen, [waited("1"), waited("2"), waited("3"), ("last value", true, Vec::new())]);
    assert_eq!(world.memory(), world.stats().retained_bytes);
}
