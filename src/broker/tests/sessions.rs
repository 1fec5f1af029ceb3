//! Client sessions: how they begin, go on and end, what their subscriptions grant, and in which order their backlog comes.

use std::time::Duration;

use sabir_model::command::Outcome;
use sabir_model::error::Code;
use sabir_model::settlement::Settlement;

use super::device::{Coming, FOREVER, bodies};
use super::harness::{Setup, World, refusal};
use crate::Policy;

#[test]
fn what_is_resumed_depends_on_what_was_left_and_what_is_asked() {
    for (lasts_ms, clean, away, resumed) in [
        (0, false, 0, false),
        (0, true, 0, false),
        (10_000, false, 0, true),
        (10_000, true, 0, false),
        (10_000, false, 5, true),
        (10_000, false, 12, false),
        (FOREVER, false, 1000, true),
        (FOREVER, true, 1000, false),
    ] {
        let world = World::new();
        let mut device = world.device("c", Coming::for_ms(lasts_ms));
        assert!(!device.resumed);
        device.bind("a").ok();
        device.vanish();
        world.seconds(away);
        let mut other = world.lasting("other");
        other.send("a", "1").ok();
        let coming = Coming::for_ms(FOREVER);
        let mut device = world.device("c", if clean { coming.clean() } else { coming });
        let what = format!("{lasts_ms} {clean} {away}");
        assert_eq!(device.resumed, resumed, "{what}");
        assert_eq!(device.bodies(), if resumed { vec!["1"] } else { vec![] }, "{what}");
        other.send("a", "2").ok();
        assert_eq!(device.bodies(), if resumed { vec!["2"] } else { vec![] }, "{what}");
        drop((device, other));
        assert_eq!(world.stats().sessions, 2);
    }
}

#[test]
fn a_session_whose_time_is_over_is_not_resumed_even_before_anybody_has_noticed() {
    let world = World::new();
    let mut device = world.device("c", Coming::for_ms(2000).will("w", "gone", 1000));
    device.bind("a").ok();
    device.vanish();
    let mut watcher = world.lasting("watcher");
    watcher.bind("w").ok();
    world.clock.advance(Duration::from_secs(3));
    assert!(!world.device("c", Coming::for_ms(2000)).resumed);
    assert_eq!(watcher.bodies(), ["gone"]);
}

#[test]
fn an_ended_session_leaves_nothing() {
    let world = World::new();
    for lasts_ms in [0, 1000] {
        let mut device = world.device("c", Coming::for_ms(lasts_ms));
        device.bind("a").exactly_once().ok();
        device.bind("a.*").at_most_once().ok();
        device.bind("g").group("g").ok();
        for body in ["1", "2", "3"] {
            device.send("a", body).ok();
            device.send("g", body).ok();
        }
        device.parcels();
        device.vanish();
        world.seconds(3);
        let stats = world.stats();
        assert_eq!(
            (stats.sessions, stats.topic_subscriptions, stats.shared_subscriptions),
            (0, 0, 0),
            "{lasts_ms}"
        );
        assert_eq!((stats.memory_bytes, stats.queues.len()), (0, 0));
    }
    assert_eq!(world.stats().sessions_expired, 1);
}

#[test]
fn the_lifetime_can_be_changed() {
    let world = World::new();
    let mut device = world.device("c", Coming::for_ms(FOREVER));
    device.bind("a").ok();
    device.client.ask(sabir_model::command::Command::SetLifetime(0));
    device.vanish();
    assert_eq!(world.stats().sessions, 0);
    let mut device = world.device("c", Coming::for_ms(1000));
    device.client.ask(sabir_model::command::Command::SetLifetime(10_000));
    device.vanish();
    world.seconds(5);
    assert!(world.device("c", Coming::for_ms(1000)).resumed);
}

#[test]
fn a_second_connection_takes_over_with_all_that_was_unsettled() {
    let world = World::new();
    let mut old = world.device("c", Coming::for_ms(FOREVER).credit(3));
    old.bind("a").ok();
    let mut sender = world.lasting("sender");
    for body in ["1", "2", "3", "4", "5"] {
        sender.send("a", body).ok();
    }
    let first = old.parcels();
    assert_eq!(bodies(&first), ["1", "2", "3"]);
    old.ack(&first[1]);
    assert_eq!(bodies(&old.parcels()), ["4"]);
    let mut new = world.device("c", Coming::for_ms(FOREVER).credit(10));
    assert!(new.resumed && old.taken_over() && !new.taken_over());
    let got = new.parcels();
    let seen: Vec<_> = got.iter().map(|one| (one.body.as_str(), one.redelivered, one.sequence)).collect();
    assert_eq!(seen, [("1", true, 1), ("3", true, 3), ("4", true, 4), ("5", false, 5)]);
    // What the old one says does not count any more.
    old.ack(&first[0]);
    assert!(old.client.settle_refused());
    new.ack_all(&got);
    old.vanish();
    sender.send("a", "6").ok();
    assert_eq!(new.take_all().len(), 1);
    assert_eq!(world.memory(), 0);
}

#[test]
fn what_is_still_on_its_way_to_a_connection_that_is_taken_over_may_arrive_there() {
    let world = World::new();
    let mut old = world.lasting("c");
    old.bind("a").ok();
    old.client.block_after(0);
    let mut sender = world.lasting("sender");
    sender.send("a", "1").ok();
    let mut new = world.lasting("c");
    let got = new.one();
    assert!(got.redelivered, "the old connection still has it in its outbox");
    old.client.unblock();
    assert_eq!(bodies(&old.read()), ["1"]);
    new.ack(&got);
    // A connection that closes does not write what it has left.
    new.client.block_after(0);
    sender.send("a", "2").ok();
    new.vanish();
    assert!(!world.lasting("c").one().redelivered);
}

#[test]
fn a_connection_that_was_taken_over_changes_nothing_any_more() {
    let world = World::new();
    for clean in [false, true] {
        let mut old = world.lasting("c");
        old.bind("a").ok();
        let coming = Coming::for_ms(FOREVER);
        let mut new = world.device("c", if clean { coming.clean() } else { coming });
        new.bind("b").ok();
        assert_eq!(old.bind("c").refused(), Code::TakenOver);
        assert_eq!(refusal(old.try_unbind("b", None)), Code::TakenOver);
        assert_eq!(old.send("b", "1").once(7).refused(), Code::TakenOver);
        assert!(matches!(old.forget(7), Outcome::Refused(_)));
        // What it publishes is another matter, and nobody is in the way of it.
        old.send("c", "nobody").ok();
        old.send("b", "still").ok();
        old.vanish();
        assert_eq!(bodies(&new.take_all()), ["still"]);
        new.send("c", "nobody").ok();
        assert!(new.parcels().is_empty());
        drop(new);
        drop(world.device("c", Coming::for_ms(0).clean()));
        assert_eq!((world.stats().topic_subscriptions, world.memory()), (0, 0));
    }
}

#[test]
fn a_session_is_its_users_own() {
    let world = World::new();
    let mut alice = world.device("c", Coming::for_ms(FOREVER).user("alice"));
    alice.bind("a").ok();
    for coming in [Coming::for_ms(0), Coming::for_ms(0).user("bob"), Coming::for_ms(0).user("bob").clean()] {
        let refused = world.try_device("c", coming).err().map(|refusal| refusal.code);
        assert_eq!(refused, Some(Code::AccessDenied));
        assert!(!alice.taken_over());
    }
    alice.send("a", "1").ok();
    assert_eq!(alice.one().user, "alice");
    alice.vanish();
    assert!(world.try_device("c", Coming::for_ms(0).user("bob")).is_err());
    assert!(world.device("c", Coming::for_ms(0).user("alice")).resumed);
}

#[test]
fn overlapping_subscriptions_yield_one_copy_with_the_most_they_grant() {
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("a.>").at_most_once().id(3).ok();
    device.bind("a.b").exactly_once().id(9).ok();
    device.bind("a.*").id(1).ok();
    device.bind("*.b").ok();
    device.bind("other").id(4).ok();
    device.send("a.b", "1").exactly_once().ok();
    device.send("a.b", "2").ok();
    device.send("a.b", "3").at_most_once().ok();
    device.send("a.c", "4").exactly_once().ok();
    device.send("a.b.c", "5").exactly_once().ok();
    let got = device.parcels();
    let mut seen: Vec<_> =
        got.iter().map(|one| (one.body.as_str(), one.guarantee, one.identifiers.clone())).collect();
    // What is to come exactly once waits for the log.
    seen.sort_unstable();
    let all = vec![3, 9, 1];
    assert_eq!(
        seen,
        [
            ("1", 2, all.clone()),
            ("2", 1, all.clone()),
            ("3", 0, all),
            ("4", 1, vec![3, 1]),
            ("5", 0, vec![3])
        ]
    );
    device.ack_all(&got);
    assert_eq!(world.memory(), 0);
}

#[test]
fn what_a_session_publishes_itself_can_be_left_out() {
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("a").no_local().exactly_once().id(1).ok();
    let mut other = world.lasting("other");
    for guarantee in [false, true] {
        let (sender, live) = (&mut device, guarantee);
        let send = sender.send("a", "own");
        if live {
            send.at_most_once().ok()
        } else {
            send.ok()
        };
        assert!(device.parcels().is_empty());
    }
    other.send("a", "other").ok();
    assert_eq!(device.take_all().len(), 1);
    // Another subscription that does not mind brings it, with what that one grants.
    device.bind("*").id(2).ok();
    device.send("a", "own").exactly_once().ok();
    other.send("a", "other").exactly_once().ok();
    let got = device.take_all();
    let seen: Vec<_> = got.iter().map(|one| (one.guarantee, one.identifiers.clone())).collect();
    assert_eq!(seen, [(1, vec![2]), (2, vec![1, 2])]);
    // The next connection of the session is the session too.
    device.unbind("*");
    device.vanish();
    let mut device = world.lasting("c");
    device.send("a", "own").ok();
    assert!(device.parcels().is_empty());
}

#[test]
fn the_retain_flag_is_kept_for_whoever_asks() {
    let world = World::new();
    let (mut plain, mut keeps) = (world.lasting("plain"), world.lasting("keeps"));
    plain.bind("a").ok();
    keeps.bind("a").keep_retain().ok();
    keeps.bind(">").ok();
    plain.send("a", "1").retain().ok();
    plain.send("a", "2").ok();
    assert_eq!(plain.take_all().iter().map(|one| one.retain).collect::<Vec<_>>(), [false, false]);
    assert_eq!(keeps.take_all().iter().map(|one| one.retain).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn replacing_a_subscription_changes_its_terms_and_loses_nothing() {
    // What is in memory keeps its terms; what is read from the log has those of its day.
    let mut setup = Setup::default();
    setup.limits.queue_memory_bytes_max = 1 << 20;
    let world = setup.open();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(1));
    let mut sender = world.lasting("sender");
    device.bind("a").id(1).ok();
    device.bind("*").id(2).ok();
    for body in ["1", "2", "3"] {
        sender.send("a", body).exactly_once().ok();
    }
    device.bind("a").exactly_once().id(7).ok();
    sender.send("a", "4").exactly_once().ok();
    let got = device.take_all();
    let seen: Vec<_> =
        got.iter().map(|one| (one.body.as_str(), one.guarantee, one.identifiers.clone())).collect();
    let before = |body| (body, 1, vec![1, 2]);
    assert_eq!(seen, [before("1"), before("2"), before("3"), ("4", 2, vec![7, 2])]);
    assert_eq!(world.stats().topic_subscriptions, 2);
    // What may be lost from now on was not, while it waited.
    sender.send("a", "5").ok();
    sender.send("a", "6").ok();
    device.bind("a").at_most_once().ok();
    device.unbind("*");
    assert_eq!(bodies(&device.take_all()), ["5", "6"]);
    sender.send("a", "7").ok();
    assert_eq!(device.one().guarantee, 0);
}

#[test]
fn ending_a_subscription_leaves_what_waits() {
    let world = World::new();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(1));
    device.bind("a").ok();
    assert_eq!(refusal(device.try_unbind("b", None)), Code::UnknownSubscription);
    assert_eq!(refusal(device.try_unbind("a", Some("g"))), Code::UnknownSubscription);
    device.send("a", "1").ok();
    device.send("a", "2").ok();
    device.unbind("a");
    assert_eq!(refusal(device.try_unbind("a", None)), Code::UnknownSubscription);
    device.send("a", "3").ok();
    assert_eq!(bodies(&device.take_all()), ["1", "2"]);
    assert_eq!((world.stats().topic_subscriptions, world.memory()), (0, 0));
}

#[test]
fn subscriptions_need_permission_and_have_a_bound() {
    let mut setup = Setup::default();
    setup.limits.session_subscriptions_max = 2;
    let world = setup.open();
    world.access.deny(sabir_model::access::Action::Consume, "topic://secret");
    let mut device = world.lasting("c");
    assert_eq!(device.bind("secret").refused(), Code::AccessDenied);
    device.bind("a").ok();
    device.bind("b").ok();
    assert_eq!(device.bind("c").refused(), Code::LimitReached);
    device.bind("b").at_most_once().ok();
    device.unbind("a");
    device.bind("c").ok();
}

#[test]
fn what_may_be_lost_is_lost_while_away_and_the_rest_waits() {
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("a").ok();
    device.bind("b").at_most_once().ok();
    device.vanish();
    let mut sender = world.lasting("sender");
    sender.send("a", "1").ok();
    sender.send("a", "lost").at_most_once().ok();
    sender.send("b", "lost too").ok();
    sender.send("a", "2").exactly_once().ok();
    let mut device = world.lasting("c");
    sender.send("b", "live").ok();
    let got = device.take_all();
    assert_eq!(bodies(&got), ["1", "2", "live"]);
    assert_eq!(got.iter().map(|one| one.guarantee).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!((got[0].sequence, got[1].sequence, got[2].sequence), (1, 2, 0));
    assert_eq!(world.memory(), 0);
}

#[test]
fn a_queue_is_consumed_by_a_session_and_gone_on_with() {
    let world = World::new();
    let mut sender = world.lasting("sender");
    sender.send("queue://q", "1").ok();
    sender.send("queue://q", "2").ok();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(2));
    device.bind("queue://q").exactly_once().id(5).ok();
    let got = device.parcels();
    let seen: Vec<_> = got
        .iter()
        .map(|one| (one.body.as_str(), one.guarantee, one.sequence, one.destination.as_str()))
        .collect();
    assert_eq!(seen, [("1", 1, 0, "queue://q"), ("2", 1, 0, "queue://q")]);
    assert_eq!(got[0].identifiers, [5]);
    device.ack(&got[0]);
    device.vanish();
    sender.send("queue://q", "3").ok();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(3));
    let got = device.parcels();
    assert_eq!((bodies(&got), got[0].redelivered), (vec!["2", "3"], true));
    device.ack_all(&got);
    sender.send("queue://q", "fleeting").at_most_once().ok();
    assert_eq!(device.one().guarantee, 0);
    assert_eq!((world.depth("queue://q"), world.memory()), (0, 0));
    device.bind("queue://q").id(6).ok();
    sender.send("queue://q", "4").ok();
    let got = device.one();
    assert_eq!(got.identifiers, [6]);
    device.unbind("queue://q");
    assert_eq!((world.depth("queue://q"), world.queue("queue://q").unwrap().consumers), (1, 0));
    assert_eq!(device.bind("queue://*").refused(), Code::InvalidDestination);
}

#[test]
fn a_queue_that_was_deleted_is_consumed_again_when_it_is_back() {
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("queue://q").ok();
    world.broker.remove_queue("/", "q", Default::default()).unwrap();
    device.bind("queue://q").ok();
    device.send("queue://q", "1").ok();
    assert_eq!(bodies(&device.take_all()), ["1"]);
    device.unbind("queue://q");
    device.send("queue://q", "2").ok();
    assert!(device.parcels().is_empty());
}

#[test]
fn an_idle_queue_of_a_session_that_is_away_may_go_and_comes_back() {
    let policy = Policy { gc_after: Some(Duration::from_secs(1)), ..Policy::default() };
    let world = Setup::default().policy("queue://q", policy).open();
    let mut device = world.lasting("c");
    device.bind("queue://q").ok();
    world.seconds(5);
    assert!(world.queue("queue://q").is_some());
    device.vanish();
    world.seconds(5);
    assert!(world.queue("queue://q").is_none());
    let mut device = world.lasting("c");
    device.send("queue://q", "1").ok();
    assert_eq!(device.bodies(), ["1"]);
}

#[test]
fn a_window_that_all_queues_of_a_session_share_opens_for_all_of_them() {
    let world = World::new();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(10));
    device.window(1);
    device.bind("a").ok();
    device.bind("queue://q").ok();
    device.bind("g").group("g").ok();
    for (to, body) in [("a", "1"), ("queue://q", "2"), ("g", "3"), ("queue://q", "4"), ("a", "5")] {
        device.send(to, body).ok();
    }
    let mut got: Vec<String> = device.take_all().into_iter().map(|one| one.body).collect();
    got.sort_unstable();
    assert_eq!(got, ["1", "2", "3", "4", "5"]);
}

#[test]
fn what_needs_no_acknowledgement_is_never_handed_over_twice() {
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("queue://q").ok();
    let mut sender = world.lasting("sender");
    device.client.block_after(0);
    sender.send("queue://q", "1").at_most_once().ok();
    // The old connection will still write it.
    let mut new = world.lasting("c");
    assert!(new.parcels().is_empty());
    device.client.unblock();
    assert_eq!(bodies(&device.read()), ["1"]);
    // This one will not.
    new.client.block_after(0);
    sender.send("queue://q", "2").at_most_once().ok();
    new.vanish();
    assert_eq!(world.lasting("c").bodies(), ["2"]);
    assert_eq!((world.depth("queue://q"), world.memory()), (0, 0));
}

#[test]
fn a_number_is_sent_once_until_it_is_free() {
    let world = World::new();
    let mut watcher = world.lasting("watcher");
    watcher.bind("a").ok();
    let mut device = world.lasting("c");
    device.send("a", "1").once(7).ok();
    assert!(device.send("a", "1").once(7).ok().is_some(), "it promises what the first one did");
    device.send("a", "2").once(8).ok();
    device.vanish();
    let mut device = world.lasting("c");
    device.send("a", "1").once(7).ok();
    assert!(matches!(device.forget(7), Outcome::Accepted(Some(promise)) if promise.synced));
    assert_eq!(refusal(device.forget(7)), Code::UnknownDelivery);
    device.send("a", "3").once(7).ok();
    assert_eq!(bodies(&watcher.take_all()), ["1", "2", "3"]);
    // A clean start knows no numbers.
    drop(device);
    let mut device = world.device("c", Coming::for_ms(0).clean());
    assert_eq!(refusal(device.forget(8)), Code::UnknownDelivery);
    device.send("a", "4").once(8).ok();
    assert_eq!(device.send("nowhere", "5").once(9).ok(), None, "nothing of this session is logged");
    assert_eq!(device.forget(9), Outcome::Accepted(None));
    assert_eq!(bodies(&watcher.take_all()), ["4"]);
}

#[test]
fn a_send_that_is_refused_frees_its_number() {
    let world = World::new();
    world.access.deny(sabir_model::access::Action::Send, "topic://secret");
    let mut watcher = world.lasting("watcher");
    watcher.bind("a").ok();
    let mut device = world.lasting("c");
    assert_eq!(device.send("secret", "1").once(7).refused(), Code::AccessDenied);
    assert_eq!(refusal(device.forget(7)), Code::UnknownDelivery);
    device.send("a", "1").once(7).ok();
    assert_eq!(bodies(&watcher.take_all()), ["1"]);
    let mut plain = world.named("plain");
    assert!(matches!(plain.ask(sabir_model::command::Command::Forget(1)), Outcome::Refused(_)));
}

#[test]
fn a_number_may_follow_a_send_to_the_sessions_own_backlog() {
    // The first leaves the backlog locked until the batch ends; debug builds check that nobody waits with it.
    let world = World::new();
    let mut device = world.lasting("c");
    device.bind("a").ok();
    device.send("a", "1").unended();
    device.send("a", "2").once(1).unended();
    device.send("a", "3").unended();
    assert!(matches!(device.forget(1), Outcome::Accepted(_)));
    device.send("a", "4").unended();
    device.clear_will();
    device.send("a", "5").unended();
    device.bind("b").ok();
    assert_eq!(bodies(&device.take_all()), ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_kept_note_comes_back_as_progress() {
    let world = World::new();
    let mut sender = world.lasting("sender");
    let mut device = world.lasting("c");
    device.bind("a").exactly_once().ok();
    device.notes(9, false);
    sender.send("a", "1").exactly_once().ok();
    sender.send("a", "2").exactly_once().ok();
    let got = device.parcels();
    assert_eq!((got[0].progress, got[1].progress), (0, 0));
    assert!(matches!(device.settle_now(&got[1], Settlement::Advanced(12)), Outcome::Accepted(Some(_))));
    // Not over yet: it still counts against the credit and comes again.
    assert_eq!(world.queue("session://c").unwrap().unsettled, 2);
    device.vanish();
    let mut device = world.lasting("c");
    let got = device.parcels();
    assert_eq!(got.iter().map(|one| one.progress).collect::<Vec<_>>(), [9, 12]);
    device.ack_all(&got);
    assert_eq!(world.memory(), 0);
}

#[test]
fn credit_is_that_of_the_connection_and_shared_by_all_it_consumes() {
    let world = World::new();
    let mut device = world.device("c", Coming::for_ms(FOREVER).credit(2));
    device.bind("a").ok();
    device.bind("queue://q").ok();
    for body in ["1", "2", "3"] {
        device.send("a", body).ok();
        device.send("queue://q", body).ok();
    }
    let got = device.parcels();
    assert_eq!(got.len(), 2);
    device.ack(&got[0]);
    assert_eq!(device.parcels().len(), 1);
    device.vanish();
    assert_eq!(world.device("c", Coming::for_ms(FOREVER).credit(4)).parcels().len(), 4);
    assert_eq!(world.device("c", Coming::for_ms(FOREVER).credit(100)).take_all().len(), 5);
}

#[test]
fn a_client_session_needs_a_client_id_and_other_commands_need_a_session() {
    let world = World::new();
    let refused = world.try_device("", Coming::for_ms(0)).err().map(|refusal| refusal.code);
    assert_eq!(refused, Some(Code::InvalidClientId));
    assert_eq!(world.stats().sessions, 0);
}

#[test]
fn a_session_has_no_subscriptions_to_topics_that_end_with_a_connection() {
    let world = World::new();
    let mut device = world.lasting("c");
    assert_eq!(device.bind("temp-topic://a").refused(), Code::InvalidDestination);
    device.bind("a").ok();
    assert_eq!(refusal(device.try_unbind("temp-topic://a", None)), Code::UnknownSubscription);
    assert_eq!(world.stats().topic_subscriptions, 1);
}

#[test]
fn of_many_subscriptions_each_can_be_replaced_and_ended() {
    let world = World::new();
    let mut device = world.lasting("c");
    let names: Vec<String> = (0..100).flat_map(|one| [format!("a.{one}"), format!("a.{one}.*.>")]).collect();
    for name in names.iter().chain(&names) {
        device.bind(name).ok();
    }
    assert_eq!(world.stats().topic_subscriptions, 200, "a repeated one takes its own place");
    let mut sender = world.lasting("s");
    sender.send("a.7.x.y", "wild").ok();
    sender.send("a.8", "literal").ok();
    assert_eq!(device.bodies(), ["wild", "literal"]);
    for (left, name) in (0..200).rev().zip(names.iter().rev()) {
        device.unbind(name);
        assert_eq!(world.stats().topic_subscriptions, left);
        assert_eq!(refusal(device.try_unbind(name, None)), Code::UnknownSubscription);
    }
}
