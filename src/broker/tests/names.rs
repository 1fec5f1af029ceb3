//! Names: wildcard consumers of queues, temporary destinations, virtual hosts, who is who, who may do what.

use std::sync::Arc;
use std::time::Duration;

use sabir_model::access::Action;
use sabir_model::command::Open;
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Code;
use sabir_model::session::Host;

use super::harness::{Setup, World};
use super::queues::bodies;
use crate::{CompositeRule, Forward, Policy, Rules};

#[test]
fn a_wildcard_consumer_takes_part_in_existing_and_future_queues_with_one_credit() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    producer.send("queue://a.1", "old").ok();
    let key = consumer.subscribe("queue://a.*").credit(2).ok();
    producer.send("queue://a.2", "new").ok();
    producer.send("queue://a.3", "later").ok();
    producer.send("queue://b", "other").ok();
    let got = consumer.drain();
    assert_eq!(bodies(&got), ["old", "new"]);
    assert_eq!(got[1].destination, "queue://a.2");
    consumer.ack(&got[0]);
    let later = consumer.one();
    assert_eq!(later.destination, "queue://a.3");
    consumer.unsubscribe(key);
    producer.send("queue://a.2", "x").ok();
    producer.send("queue://a.9", "y").ok();
    assert!(consumer.drain().is_empty());
    assert_eq!((world.depth("queue://a.2"), world.depth("queue://a.3")), (2, 1));
}

#[test]
fn no_queue_of_a_wildcard_consumer_starves() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    for queue in 0..5 {
        for number in 0..20 {
            producer.send(&format!("queue://w.{queue}"), &format!("{queue}-{number}")).ok();
        }
    }
    consumer.subscribe("queue://w.>").credit(1).ok();
    let mut order = Vec::new();
    loop {
        let got = consumer.drain();
        let [one] = got.as_slice() else { break };
        order.push(one.body.clone());
        consumer.ack(one);
    }
    assert_eq!(order.len(), 100);
    for queue in 0..5 {
        let mine: Vec<usize> = (0..100).filter(|at| order[*at].starts_with(&format!("{queue}-"))).collect();
        assert!(mine[0] < 12 && mine[10] < 70, "queue {queue} waits: {mine:?}");
        let numbers: Vec<&str> = mine.iter().map(|at| order[*at].split_once('-').unwrap().1).collect();
        assert_eq!(numbers, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn credit_that_a_queue_cannot_use_goes_on_to_the_next() {
    let world = World::new();
    let (mut producer, mut all, mut other) = (world.client(), world.client(), world.client());
    all.subscribe("queue://w.*").credit(1).ok();
    for queue in ["w.1", "w.2", "w.3"] {
        producer.send(&format!("queue://{queue}"), queue).ok();
    }
    let got = all.one();
    other.subscribe("queue://w.2").ok();
    assert_eq!(other.bodies(), ["w.2"], "the next in line has nothing left");
    all.ack(&got);
    assert_eq!(all.bodies(), ["w.3"]);
}

#[test]
fn a_wildcard_consumer_outlives_the_queues_it_reads() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://w.>").credit(1).ok();
    for round in 0..3 {
        producer.send("queue://w.1", "in hand").ok();
        producer.send("queue://w.2", "waits").ok();
        assert_eq!(consumer.bodies(), ["in hand"], "round {round}");
        world.broker.remove_queue("/", "w.1", Default::default()).unwrap();
        consumer.pump();
        assert!(consumer.events.is_empty(), "its other queues go on");
        let got = consumer.one();
        assert_eq!(got.body, "waits", "the credit came back");
        consumer.ack(&got);
    }
    assert_eq!(world.memory(), 0);
}

#[test]
fn temporary_destinations_belong_to_their_connection() {
    for kind in [Kind::Queue, Kind::Topic] {
        let world = World::new();
        let (mut owner, mut other) = (world.client(), world.client());
        let name = owner.temporary(kind, "reply");
        assert_eq!(owner.temporary(kind, "reply"), name, "one label, one destination");
        assert_ne!(owner.temporary(kind, "reply 2"), name);
        let destination = Destination::parse_qualified(&name, kind).unwrap();
        assert_eq!(owner.host().temporary_label(&destination), Some("reply"));
        assert_eq!(other.host().temporary_label(&destination), None);
        assert_eq!(other.subscribe(&name).refused(), Code::AccessDenied);
        owner.subscribe(&name).auto().ok();
        other.send(&name, "answer").persistent().ok();
        let got = owner.one();
        assert_eq!((got.body.as_str(), got.destination.as_str()), ("answer", name.as_str()));
        if kind == Kind::Queue {
            other.send(&name, "unread").ok();
        }
        owner.close();
        assert_eq!(other.send(&name, "late").refused(), Code::UnknownDestination, "{kind:?}");
        assert_eq!(other.subscribe(&name).refused(), Code::UnknownDestination);
        assert_eq!((world.memory(), world.stats().queues.len()), (0, 0));
    }
}

#[test]
fn whoever_has_sent_to_a_temporary_topic_learns_that_it_is_gone() {
    let world = World::new();
    let (mut owner, mut other) = (world.client(), world.client());
    let name = owner.temporary(Kind::Topic, "nobody listens");
    other.send(&name, "1").ok();
    owner.vanish();
    assert_eq!(other.send(&name, "2").refused(), Code::UnknownDestination);
}

#[test]
fn who_sees_its_stream_end_finds_everything_gone_that_was_the_connections() {
    for clean in [true, false] {
        let world = World::new();
        let mut owner = world.named("mine");
        let name = owner.temporary(Kind::Topic, "reply");
        let topic = Destination::parse_qualified(&name, Kind::Topic).unwrap();
        owner.temporary(Kind::Queue, "reply");
        owner.subscribe("topic://news").auto().ok();
        let (broker, host) = (world.broker.clone(), Arc::clone(&owner.host().host));
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        owner.wire.lock().ended = Some(Box::new(move || {
            let stats = broker.stats();
            let topic_is_there = host.temporary_topics.read().contains_key(&topic);
            let name_is_taken = host.client_ids.lock().contains_key("mine");
            let _ = tell.send((stats.queues.len(), stats.connections, topic_is_there, name_is_taken));
        }));
        owner.leave(clean);
        assert_eq!(told.try_recv(), Ok((0, 0, false, false)), "clean: {clean}");
    }
}

#[test]
fn virtual_hosts_are_worlds_of_their_own() {
    let world = World::new();
    let elsewhere = Open { virtual_host: Some("other"), client_id: Some("c"), ..Open::default() };
    let mut there = world.client_as(&elsewhere).unwrap();
    let mut here = world.named("c");
    here.subscribe("queue://q").ok();
    here.subscribe("topic://t").auto().ok();
    there.send("queue://q", "1").ok();
    there.send("topic://t", "1").ok();
    assert!(here.drain().is_empty());
    there.subscribe("queue://q").ok();
    let got = there.one();
    there.settle(&got, sabir_model::settlement::Settlement::Rejected);
    there.subscribe("queue://ActiveMQ.DLQ").ok();
    assert_eq!(there.bodies(), ["1"], "dead letters stay in their world");
    assert_eq!(world.depth("queue://ActiveMQ.DLQ"), 0);
}

#[test]
fn a_client_id_is_used_by_one_connection_at_a_time() {
    let world = World::new();
    let first = world.named("c");
    let open = Open { client_id: Some("c"), ..Open::default() };
    assert_eq!(world.client_as(&open).err().unwrap().code, Code::ClientIdInUse);
    first.vanish();
    assert_eq!(world.named("c").host().session_name(), "c");
}

#[test]
fn a_message_names_the_user_who_proved_to_be_one() {
    let world = World::new();
    let mut alice =
        world.client_as(&Open { login: Some("alice"), passcode: Some(b"x"), ..Open::default() }).unwrap();
    alice.subscribe("queue://q").ok();
    alice.send("queue://q", "1").ok();
    assert_eq!(alice.one().user, "alice");
    let mallory = Open { login: Some("mallory"), passcode: Some(b"x"), ..Open::default() };
    assert_eq!(world.client_as(&mallory).err().unwrap().code, Code::AuthenticationFailed);
    assert_eq!(world.stats().logins_failed, 1);
    world.access.deny(Action::Connect, "server");
    assert_eq!(world.client_as(&Open::default()).err().unwrap().code, Code::AccessDenied);
}

#[test]
fn every_action_needs_its_permission() {
    let world = World::new();
    let mut client = world.client();
    client.send("queue://old", "1").ok();
    let denied: [(Action, &str); 8] = [
        (Action::Send, "queue://no-send"),
        (Action::Send, "topic://no-send"),
        (Action::Consume, "queue://no-consume"),
        (Action::Consume, "topic://no-consume"),
        (Action::Consume, "topic://no.>"),
        (Action::Consume, "queue://no.>"),
        (Action::Browse, "queue://no-browse"),
        (Action::Create, "queue://no-create"),
    ];
    for (action, what) in denied {
        world.access.deny(action, what);
        let code = match action {
            Action::Send => client.send(what, "1").refused(),
            Action::Browse => client.subscribe(what).browse().refused(),
            Action::Create => client.send(what, "1").refused(),
            _ => client.subscribe(what).refused(),
        };
        assert_eq!(code, Code::AccessDenied, "{action} {what}");
    }
    assert_eq!(client.subscribe("queue://no-create").refused(), Code::AccessDenied);
    assert_eq!(client.send("queue://fine,queue://no-send", "1").refused(), Code::AccessDenied);
    assert_eq!(world.depth("queue://fine"), 0, "all or nothing");
    client.subscribe("queue://no-browse").ok();
    // A permission that is withdrawn holds for the next message, whatever the connection remembers.
    client.send("queue://old", "2").ok();
    world.access.deny(Action::Send, "queue://old");
    assert_eq!(client.send("queue://old", "3").refused(), Code::AccessDenied);
    assert!(client.host().temporary(Kind::Queue, "fine").is_ok());
}

#[test]
fn the_targets_of_a_rule_need_the_senders_permission_too() {
    let rule = CompositeRule {
        name: sabir_model::pattern::Pattern::parse_qualified("queue://in", Kind::Queue).unwrap(),
        forward_to: ["a", "b"]
            .map(|name| Forward { destination: Destination::queue(name), selector: None })
            .to_vec(),
        forward_only: true,
        send_when_not_matched: false,
    };
    let rules = Rules { composites: vec![rule], ..Rules::default() };
    let world = Setup { rules, ..Setup::default() }.open();
    let mut client = world.client();
    client.send("queue://in", "1").ok();
    world.access.deny(Action::Send, "queue://b");
    assert_eq!(client.send("queue://in", "2").refused(), Code::AccessDenied);
    assert_eq!((world.depth("queue://a"), world.depth("queue://b")), (1, 1));
}

#[test]
fn who_may_not_create_declares_no_group() {
    let world = World::new();
    world.access.deny(Action::Create, "queue://Consumer.A.VirtualTopic.>");
    let mut client = world.client();
    client.subscribe("queue://Consumer.A.VirtualTopic.>").ok();
    client.send("topic://VirtualTopic.x", "1").ok();
    assert!(client.drain().is_empty());
    assert!(world.stats().queues.is_empty());
}

#[test]
fn a_queue_that_must_exist_is_not_made() {
    let world = World::new();
    let mut client = world.client();
    assert_eq!(client.subscribe("queue://q").must_exist().refused(), Code::UnknownDestination);
    client.send("queue://q", "1").ok();
    client.subscribe("queue://q").must_exist().ok();
    assert_eq!(client.bodies(), ["1"]);
}

#[test]
fn an_unused_queue_goes_when_its_policy_says_so() {
    let policy = Policy { gc_after: Some(Duration::from_secs(60)), ..Policy::default() };
    let world = Setup::default().policy("queue://gc.>", policy).open();
    let (mut client, mut reader) = (world.client(), world.client());
    client.send("queue://gc.full", "1").ok();
    reader.subscribe("queue://gc.read").ok();
    client.subscribe("queue://gc.empty").ok();
    client.send("queue://gc.empty", "1").ok();
    let got = client.one();
    client.ack(&got);
    client.unsubscribe(1);
    client.send("queue://kept", "1").ok();
    world.pass(Duration::from_secs(59));
    assert_eq!(world.stats().queues.len(), 4);
    world.pass(Duration::from_secs(2));
    let names: Vec<String> = world.stats().queues.into_iter().map(|queue| queue.name).collect();
    assert_eq!(names, ["queue://gc.full", "queue://gc.read", "queue://kept"]);
    // Who has sent there before finds the new one.
    client.send("queue://gc.empty", "2").ok();
    assert_eq!(world.browse("queue://gc.empty"), ["2"]);
}
