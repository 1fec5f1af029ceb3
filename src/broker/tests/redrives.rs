//! Dead letters on their way back.

use std::time::Duration;

use sabir_model::error::Code;
use sabir_model::settlement::Settlement;

use super::harness::{Setup, World};
use super::manage::listing;
use super::managed_messages::{DLQ, who, with_body};
use crate::Policy;
use crate::manage::{Chosen, Deed, RedriveState};
use crate::policy::{DeadLetters, Expired};

#[test]
fn an_edited_dead_letter_goes_where_it_came_from_and_is_none_any_more() {
    let world = World::new();
    world.client().send("q", "wrong").persistent().ok();
    world.kill("q", 1);
    let dead = world.broker.message("/", DLQ, 1).unwrap();
    let death = dead.death().unwrap();
    assert_eq!((death.cause, death.original_destination), ("rejected by the consumer", Some("queue://q")));
    assert_eq!((death.time, death.deliveries), (world.now().wall, 1));
    world.broker.resend("/", DLQ, 1, &who(), with_body("right", None)).unwrap();
    assert_eq!((world.held("q"), world.held(DLQ)), (vec!["right".to_owned()], vec![]));
    assert_eq!(world.broker.message("/", "q", 2).unwrap().death(), None);
}

#[test]
fn dead_letters_go_back_to_where_each_came_from_as_if_nothing_had_happened() {
    let world = World::new();
    let mut client = world.client();
    for (queue, body) in [("a", "1"), ("b", "2"), ("a", "3")] {
        client.send(queue, body).persistent().property("colour", "red").ttl(60_000).ok();
    }
    client.send(DLQ, "stray").ok();
    world.kill("a", 2);
    world.kill("b", 1);
    let page = world.broker.list_dead_letters("/", &listing(10, ())).unwrap();
    let [entry] = page.items.as_slice() else { panic!("{page:?}") };
    assert_eq!((entry.queue.as_str(), entry.messages, page.total), (DLQ, 4, 1));
    assert_eq!(world.errand("a", Deed::Redrive, Chosen::All, None).unwrap_err().code, Code::Conflict);
    let tally = world.run(DLQ, Deed::Redrive, Chosen::All);
    assert_eq!((tally.done, tally.refused), (3, 1));
    assert_eq!(tally.refusal.unwrap().code, Code::UnknownDestination);
    assert_eq!((world.held("a").join(""), world.held("b").join("")), ("13".into(), "2".into()));
    assert_eq!(world.held(DLQ), ["stray"]);
    client.synced();
    drop(client);
    let world = world.crash();
    assert_eq!(world.held("a").join(""), "13");
    let mut consumer = world.client();
    consumer.subscribe("b").ok();
    let got = consumer.one();
    assert_eq!((got.attempt, got.original.as_str()), (1, ""));
    assert_eq!(got.properties.keys().collect::<Vec<_>>(), ["colour"]);
    assert!(got.expires > world.now().wall.0, "its time goes on where there is some left");
}

#[test]
fn what_expired_goes_back_without_its_time() {
    let policy = Policy { expired: Expired::DeadLetter, ..Policy::default() };
    let world = Setup::default().policy("queue://q", policy).open();
    world.client().send("q", "1").ttl(500).ok();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.held(DLQ), ["1"]);
    assert_eq!(world.run(DLQ, Deed::Redrive, Chosen::All).done, 1);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.held("q"), ["1"]);
}

#[test]
fn a_dead_letter_of_a_durable_subscription_goes_back_to_that_subscription_only() {
    let world = World::new();
    let mut first = world.named("c1");
    let mut second = world.named("c2");
    first.subscribe("topic://t").durable("d").ok();
    second.subscribe("topic://t").durable("d").ok();
    world.client().send("topic://t", "1").ok();
    let got = first.one();
    first.settle(&got, Settlement::Rejected);
    let got = second.one();
    second.ack(&got);
    assert_eq!(world.run(DLQ, Deed::Redrive, Chosen::All).done, 1);
    assert_eq!((first.one().destination, second.drain().len()), ("topic://t".to_owned(), 0));
}

#[test]
fn a_slow_redrive_keeps_its_rate_waits_for_room_and_ends() {
    let small = Policy { messages_max: 12, ..Policy::default() };
    let world = Setup::default().policy("queue://q", small).open();
    let mut client = world.client();
    let bodies: Vec<String> = (0..12).map(|n| n.to_string()).collect();
    for _ in 0..2 {
        client.send_all("q", &bodies.iter().map(String::as_str).collect::<Vec<_>>());
        world.kill("q", 12);
    }
    assert_eq!(world.held(DLQ).len(), 24);
    assert!(world.broker.redrive("/", DLQ).is_none());
    let start = || world.broker.start_redrive("/", DLQ, &who(), Chosen::All, None, 5);
    assert_eq!(start().unwrap().state, RedriveState::Running);
    assert_eq!(start().unwrap_err().code, Code::Conflict);
    world.pass(Duration::from_secs(1));
    let gone = world.held("q").len();
    assert!((5..=6).contains(&gone), "{gone}");
    world.pass(Duration::from_secs(4));
    let seen = world.broker.redrive("/", DLQ).unwrap();
    assert_eq!((seen.state, seen.tally.done, world.held("q").len()), (RedriveState::Running, 12, 12));
    assert_eq!(seen.tally.refusal.unwrap().code, Code::DestinationFull);
    world.run("q", Deed::Delete, Chosen::All);
    world.pass(Duration::from_secs(5));
    let seen = world.broker.redrive("/", DLQ).unwrap();
    assert_eq!((seen.state, seen.tally.done), (RedriveState::Done, 24));
    assert!(seen.ended.is_some() && seen.tally.refusal.is_none());
    assert_eq!((world.held(DLQ).len(), world.held("q").len()), (0, 12));
}

#[test]
fn a_redrive_ends_when_somebody_stops_it_or_the_broker_ends() {
    let world = World::new();
    let mut client = world.client();
    client.send_all("q", &["1", "2", "3", "4"]);
    world.kill("q", 4);
    for by_hand in [true, false] {
        world.broker.start_redrive("/", DLQ, &who(), Chosen::All, None, 1).unwrap();
        world.pass(Duration::from_millis(200));
        match by_hand {
            true => world.broker.stop_redrive("/", DLQ).unwrap(),
            false => world.broker.drain(),
        }
        let before = world.held(DLQ);
        world.pass(Duration::from_secs(5));
        assert_eq!(world.held(DLQ), before);
        assert_eq!(world.broker.redrive("/", DLQ).unwrap().state, RedriveState::Stopped);
        assert_eq!(world.broker.stop_redrive("/", DLQ).unwrap_err().code, Code::UnknownDelivery);
    }
    assert_eq!(world.held(DLQ), ["3", "4"]);
}

#[test]
fn only_so_many_redrives_run_at_a_time() {
    let individual = DeadLetters::Individual { prefix: "DLQ.".into(), suffix: String::new() };
    let world =
        Setup::default().policy("queue://>", Policy { dead_letters: individual, ..Policy::default() }).open();
    for n in 0..9 {
        let queue = format!("q{n}");
        let mut client = world.client();
        client.send_all(&queue, &["1", "2"]);
        client.close();
        world.kill(&queue, 2);
    }
    let start = |n: u32| world.broker.start_redrive("/", &format!("DLQ.q{n}"), &who(), Chosen::All, None, 1);
    for n in 0..8 {
        start(n).unwrap();
    }
    assert_eq!(start(8).unwrap_err().code, Code::LimitReached);
    world.pass(Duration::from_secs(3));
    assert!((0..8).all(|n| world.held(&format!("q{n}")).len() == 2));
    start(8).unwrap();
}

#[test]
fn a_dead_letter_of_a_session_or_a_group_goes_back_to_that_one_only() {
    let world = World::new();
    let mut members = ["m1", "m2"].map(|name| world.lasting(name));
    for member in &mut members {
        member.bind("t").group("g").id(7).ok();
    }
    let mut first = world.lasting("c1");
    let mut second = world.lasting("c2");
    first.bind("t").id(3).ok();
    second.bind("t").ok();
    world.lasting("sender").send("t", "1").ok();
    let taker = members.iter_mut().find_map(|member| {
        let got = member.parcels();
        got.first().map(|got| member.settle(got, Settlement::Rejected))
    });
    assert!(taker.is_some());
    let got = first.one();
    first.settle(&got, Settlement::Rejected);
    second.take_all();
    assert_eq!(world.held(DLQ).len(), 2);
    first.unbind("t");
    let tally = world.run(DLQ, Deed::Redrive, Chosen::All);
    assert_eq!((tally.done, tally.refused), (1, 1), "it does not want it any more");
    assert_eq!(tally.refusal.unwrap().code, Code::UnknownSubscription);
    first.bind("t").id(4).ok();
    assert_eq!(world.run(DLQ, Deed::Redrive, Chosen::All).done, 1);
    let again = first.one();
    assert_eq!((again.identifiers, again.guarantee), (vec![4], 1), "what holds for the subscription now");
    assert_eq!(members.iter_mut().map(|member| member.take_all().len()).sum::<usize>(), 1);
    assert!(second.take_all().is_empty());
}
