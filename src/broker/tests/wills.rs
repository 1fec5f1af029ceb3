//! Wills: when they are sent, and when they are not.

use sabir_model::access::Action;
use sabir_model::command::Replay;
use sabir_model::error::Code;

use super::device::{Coming, Device, FOREVER, bodies};
use super::harness::World;

fn watched(world: &World) -> Device {
    let mut watcher = world.lasting("watcher");
    watcher.bind("w").ok();
    watcher
}

#[test]
fn a_will_is_sent_when_the_connection_is_lost_and_not_after_a_farewell() {
    for lasts_ms in [0, 10_000, FOREVER] {
        let world = World::new();
        let mut watcher = watched(&world);
        world.device("c", Coming::for_ms(lasts_ms).will("w", "gone", 0)).vanish();
        let got = watcher.one();
        assert_eq!((got.body.as_str(), got.destination.as_str(), got.guarantee), ("gone", "topic://w", 1));
        watcher.ack(&got);
        world.device("c", Coming::for_ms(lasts_ms).will("w", "gone", 0)).leave();
        world.device("c", Coming::for_ms(lasts_ms).will("w", "gone", 2000)).leave();
        world.seconds(20);
        assert!(watcher.parcels().is_empty());
    }
}

#[test]
fn taking_over_sends_a_will_unless_it_may_wait_or_the_session_starts_anew() {
    for (delay_ms, clean, lasts_ms, sent) in [
        (0, false, FOREVER, true),
        (0, true, FOREVER, true),
        (5000, false, FOREVER, false),
        (5000, true, FOREVER, true),
        (5000, false, 0, true),
    ] {
        let world = World::new();
        let mut watcher = watched(&world);
        let old = world.device("c", Coming::for_ms(lasts_ms).will("w", "gone", delay_ms));
        let coming = Coming::for_ms(FOREVER);
        let new = world.device("c", if clean { coming.clean() } else { coming });
        drop(old);
        world.seconds(10);
        let what = format!("{delay_ms} {clean} {lasts_ms}");
        assert_eq!(bodies(&watcher.take_all()), if sent { vec!["gone"] } else { vec![] }, "{what}");
        drop(new);
    }
}

#[test]
fn a_will_waits_and_whoever_comes_back_in_time_prevents_it() {
    for lasts_ms in [60_000, FOREVER] {
        let world = World::new();
        let mut watcher = watched(&world);
        let coming = Coming::for_ms(lasts_ms).will("w", "gone", 10_000);
        world.device("c", coming).vanish();
        world.seconds(6);
        let device = world.device("c", coming);
        world.seconds(1);
        device.vanish();
        // Where it would have been due the first time nothing happens; ten seconds after the second time it is due.
        world.seconds(8);
        assert!(watcher.parcels().is_empty());
        world.seconds(4);
        assert_eq!(bodies(&watcher.take_all()), ["gone"]);
        // Once.
        world.seconds(100);
        assert!(watcher.parcels().is_empty());
        assert_eq!(world.stats().sessions, if lasts_ms == FOREVER { 2 } else { 1 });
    }
}

#[test]
fn a_will_is_sent_when_the_session_ends_before_its_delay() {
    let world = World::new();
    let mut watcher = watched(&world);
    world.device("c", Coming::for_ms(3000).will("w", "gone", 60_000)).vanish();
    world.seconds(2);
    assert!(watcher.parcels().is_empty());
    world.seconds(3);
    assert_eq!(bodies(&watcher.take_all()), ["gone"]);
    world.device("c", Coming::for_ms(0).will("w", "at once", 60_000)).vanish();
    assert_eq!(bodies(&watcher.take_all()), ["at once"]);
    world.device("c", Coming::for_ms(60_000).will("w", "ended", 60_000)).vanish();
    world.device("c", Coming::for_ms(0).clean()).leave();
    assert_eq!(bodies(&watcher.take_all()), ["ended"]);
}

#[test]
fn a_will_that_is_due_is_not_prevented_by_coming_back_before_anybody_has_noticed() {
    let world = World::new();
    let mut watcher = watched(&world);
    world.device("c", Coming::for_ms(FOREVER).will("w", "gone", 1000)).vanish();
    world.clock.advance(std::time::Duration::from_secs(2));
    let device = world.device("c", Coming::for_ms(FOREVER).will("w", "again", 1000));
    assert!(device.resumed);
    assert_eq!(bodies(&watcher.take_all()), ["gone"]);
    device.leave();
    world.seconds(5);
    assert!(watcher.parcels().is_empty());
}

#[test]
fn wills_outlive_the_broker() {
    for power_lost in [false, true] {
        let world = World::new();
        let mut watcher = watched(&world);
        let connected = world.device("connected", Coming::for_ms(60_000).will("w", "connected", 0));
        let delayed = world.device("delayed", Coming::for_ms(FOREVER).will("w", "delayed", 20_000));
        world.device("away", Coming::for_ms(FOREVER).will("w", "away", 5000)).vanish();
        world.device("none", Coming::for_ms(60_000).will("w", "none", 5000)).leave();
        world.seconds(2);
        watcher.client.synced();
        assert!(watcher.parcels().is_empty());
        let world = if power_lost {
            let world = world.crash();
            // The connections of a broker that is gone are gone.
            drop((connected, delayed, watcher));
            world
        } else {
            drop((connected, delayed, watcher));
            world.restart()
        };
        let mut watcher = world.lasting("watcher");
        assert!(watcher.resumed);
        world.seconds(1);
        assert_eq!(bodies(&watcher.take_all()), ["connected"]);
        // Two seconds of its five had passed, and one more while the broker was away.
        world.seconds(1);
        assert_eq!(bodies(&watcher.take_all()), ["away"]);
        world.seconds(16);
        assert!(watcher.parcels().is_empty());
        world.seconds(5);
        assert_eq!(bodies(&watcher.take_all()), ["delayed"]);
        world.seconds(100);
        assert!(watcher.parcels().is_empty());
        assert_eq!(world.stats().sessions, 3);
    }
}

#[test]
fn a_will_nobody_may_send_keeps_the_connection_out() {
    let world = World::new();
    world.access.deny(Action::Send, "topic://w");
    let refused = world.try_device("c", Coming::for_ms(FOREVER).will("w", "gone", 0)).err();
    assert_eq!(refused.map(|refusal| refusal.code), Some(Code::AccessDenied));
    assert_eq!(world.stats().sessions, 0);
    // It does not even disturb who is there.
    let mut device = world.lasting("c");
    assert!(world.try_device("c", Coming::for_ms(FOREVER).will("w", "gone", 0)).is_err());
    assert!(!device.taken_over());
}

#[test]
fn a_will_whose_permission_is_withdrawn_is_not_sent() {
    let world = World::new();
    let mut watcher = watched(&world);
    let device = world.device("c", Coming::for_ms(FOREVER).user("alice").will("w", "gone", 0));
    let other = world.device("d", Coming::for_ms(FOREVER).user("alice").will("v", "gone", 0));
    watcher.bind("v").ok();
    world.access.deny(Action::Send, "topic://w");
    device.vanish();
    other.vanish();
    let got = watcher.one();
    assert_eq!((got.destination.as_str(), got.user.as_str()), ("topic://v", "alice"));
}

#[test]
fn a_will_can_be_a_topics_last_value() {
    let world = World::new();
    world.device("c", Coming::for_ms(FOREVER).retained_will("w", "gone")).vanish();
    let mut watcher = world.lasting("watcher");
    watcher.bind("w").replay(Replay::Always).ok();
    let got = watcher.one();
    assert_eq!((got.body.as_str(), got.retain), ("gone", true));
    // An empty one takes it away.
    world.device("c", Coming::for_ms(FOREVER).retained_will("w", "")).vanish();
    assert_eq!(world.stats().retained, 0);
}

#[test]
fn nobodys_message_is_not_taken_for_ones_own() {
    let world = World::new();
    let mut device = world.lasting("away");
    device.bind("w").no_local().ok();
    device.vanish();
    world.device("c", Coming::for_ms(0).will("w", "gone", 0)).vanish();
    assert_eq!(bodies(&world.lasting("away").take_all()), ["gone"]);
}

#[test]
fn a_will_may_go_to_a_queue_and_to_several_places() {
    let world = World::new();
    world.device("c", Coming::for_ms(0).will("queue://q,topic://w,queue://p", "gone", 0)).vanish();
    assert_eq!((world.depth("queue://q"), world.depth("queue://p")), (1, 1));
}
