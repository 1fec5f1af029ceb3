//! Groups that share a subscription: who gets what, and what is kept for whom.

use sabir_model::command::Outcome;

use super::device::{Coming, Device, FOREVER, bodies};
use super::harness::World;

fn member(world: &World, name: &str, lasts_ms: u64) -> Device {
    let mut device = world.device(name, Coming::for_ms(lasts_ms));
    device.bind("a.>").group("g").id(1).ok();
    device
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:03}")).collect()
}

#[test]
fn each_message_goes_to_one_member_and_they_share_fairly() {
    let world = World::new();
    let mut members = [member(&world, "1", FOREVER), member(&world, "2", 0), member(&world, "3", 0)];
    let mut other = member(&world, "4", 0);
    other.unbind_group("a.>", "g");
    other.bind("a.>").group("other").ok();
    let mut plain = world.lasting("plain");
    plain.bind("a.b").ok();
    let mut sender = world.lasting("sender");
    let all = numbers(30);
    for body in &all {
        sender.send("a.b", body).exactly_once().ok();
        members.iter_mut().for_each(|one| {
            let got = one.parcels();
            assert!(got.iter().all(|got| got.guarantee == 1 && got.identifiers == [1] && got.sequence == 0));
            one.client.events.clear();
            one.seen.extend(bodies(&got).into_iter().map(str::to_owned));
            one.ack_all(&got);
        });
    }
    let mut together: Vec<String> = Vec::new();
    for one in &members {
        assert_eq!(one.seen.len(), 10);
        together.extend(one.seen.iter().cloned());
    }
    together.sort_unstable();
    assert_eq!(together, all);
    assert_eq!((other.take_all().len(), plain.take_all().len()), (30, 30));
    assert_eq!((world.stats().shared_subscriptions, world.memory()), (2, 0));
}

#[test]
fn what_comes_while_all_are_away_waits_if_some_member_lasts() {
    for restarts in [false, true] {
        let world = World::new();
        let lasting = member(&world, "1", FOREVER);
        let fleeting = member(&world, "2", 0);
        fleeting.vanish();
        lasting.vanish();
        let mut sender = world.lasting("sender");
        sender.send("a", "1").ok();
        sender.send("a", "lost").at_most_once().ok();
        sender.client.synced();
        sender.vanish();
        let world = if restarts { world.crash() } else { world };
        assert_eq!(world.stats().shared_subscriptions, 1);
        // Whoever comes first takes it.
        let mut fleeting = member(&world, "3", 0);
        let got = fleeting.one();
        assert_eq!((got.body.as_str(), got.redelivered), ("1", restarts));
        fleeting.ack(&got);
        fleeting.send("a", "lossy").at_most_once().ok();
        assert_eq!(fleeting.one().guarantee, 0);
        let mut lasting = world.lasting("1");
        assert!(lasting.resumed && lasting.parcels().is_empty());
        fleeting.vanish();
        lasting.send("a", "2").ok();
        assert_eq!((lasting.bodies(), world.depth("group://g:a.>")), (vec!["2".to_owned()], 1));
    }
}

#[test]
fn a_group_ends_with_the_session_of_its_last_member() {
    let world = World::new();
    let mut sender = world.lasting("sender");
    let one = member(&world, "1", 2000);
    let mut two = member(&world, "2", FOREVER);
    one.vanish();
    sender.send("a", "1").ok();
    world.seconds(4);
    assert_eq!(world.stats().shared_subscriptions, 1);
    let Outcome::Accepted(_) = two.try_unbind("a.>", Some("g")) else { panic!() };
    assert_eq!((world.stats().shared_subscriptions, world.stats().topic_subscriptions), (0, 0));
    assert_eq!((world.stats().queues.len(), world.memory()), (0, 0));
    sender.send("a", "2").ok();
    sender.client.synced();
    two.vanish();
    sender.vanish();
    let world = world.restart();
    assert_eq!((world.stats().shared_subscriptions, world.stats().queues.len(), world.memory()), (0, 0, 0));
}

#[test]
fn what_a_member_leaves_goes_to_another_before_what_is_new() {
    for how in ["lost", "taken over", "unsubscribed", "ended"] {
        let world = World::new();
        let mut first = world.device("1", Coming::for_ms(FOREVER).credit(3));
        first.bind("a.>").group("g").ok();
        let mut sender = world.lasting("sender");
        for body in ["1", "2", "3", "4"] {
            sender.send("a", body).ok();
        }
        let got = first.parcels();
        first.ack(&got[1]);
        assert_eq!(bodies(&first.parcels()), ["4"]);
        let mut second = member(&world, "2", FOREVER);
        assert!(second.parcels().is_empty());
        let mut again = None;
        match how {
            "lost" => first.vanish(),
            "unsubscribed" => first.unbind_group("a.>", "g"),
            "ended" => again = Some(world.device("1", Coming::for_ms(0).clean())),
            _ => again = Some(world.lasting("1")),
        }
        sender.send("a", "5").ok();
        let mut all = second.parcels();
        if let Some(again) = &mut again {
            all.extend(again.parcels());
        }
        all.sort_by(|a, b| a.body.cmp(&b.body));
        let seen: Vec<_> = all.iter().map(|one| (one.body.as_str(), one.redelivered)).collect();
        assert_eq!(seen, [("1", true), ("3", true), ("4", true), ("5", false)], "{how}");
    }
}

#[test]
fn a_session_may_be_in_several_groups_and_have_a_subscription_of_its_own() {
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("a").group("g").id(1).ok();
    device.bind("a").group("h").id(2).ok();
    device.bind("*").group("g").id(3).ok();
    device.bind("a").id(4).ok();
    device.send("a", "1").ok();
    let mut seen: Vec<_> = device.take_all().iter().map(|one| one.identifiers.clone()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [[1], [2], [3], [4]]);
    device.bind("a").group("h").id(7).ok();
    assert_eq!(world.stats().shared_subscriptions, 3);
    device.vanish();
    let mut sender = world.lasting("sender");
    sender.send("a", "2").ok();
    let mut device = world.lasting("c");
    let mut seen: Vec<_> = device.take_all().iter().map(|one| one.identifiers.clone()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [[1], [3], [4], [7]]);
    device.client.synced();
    device.vanish();
    sender.vanish();
    let world = world.restart();
    let mut device = world.lasting("c");
    device.send("a", "3").ok();
    let mut seen: Vec<_> = device.take_all().iter().map(|one| one.identifiers.clone()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [[1], [3], [4], [7]]);
    assert_eq!(world.memory(), 0);
}
