//! Topics: live fan-out, windows, slow subscribers, durable subscriptions.

use sabir_model::command::{Command, Outcome};
use sabir_model::error::Code;
use sabir_model::settlement::Settlement;

use super::harness::{Line, Setup, World, refusal};
use super::queues::facts;
use crate::{Policy, SlowConsumer};

#[test]
fn every_live_subscriber_gets_a_copy_and_nobody_gets_the_past() {
    let world = World::new();
    let (mut producer, mut a, mut b) = (world.client(), world.client(), world.client());
    producer.send("topic://t", "nobody").ok();
    a.subscribe("topic://t").auto().ok();
    producer.send("topic://t", "1").ok();
    let key = b.subscribe("topic://t").auto().ok();
    producer.send("topic://t", "2").ok();
    assert_eq!(a.bodies(), ["1", "2"]);
    assert_eq!(b.bodies(), ["2"]);
    b.unsubscribe(key);
    producer.send("topic://t", "3").ok();
    assert_eq!(a.bodies(), ["3"]);
    assert!(b.bodies().is_empty());
    assert_eq!((world.stats().unrouted, world.memory()), (1, 0));
}

#[test]
fn wildcards_match_levels() {
    let world = World::new();
    let mut producer = world.client();
    for (pattern, wanted) in [
        ("topic://a.*", vec!["a.b"]),
        ("topic://a.>", vec!["a", "a.b", "a.b.c"]),
        ("topic://*.b.>", vec!["a.b", "a.b.c"]),
        ("topic://>", vec!["a", "a.b", "a.b.c", "x"]),
    ] {
        for acknowledged in [false, true] {
            let mut client = world.client();
            let subscription = client.subscribe(pattern);
            if acknowledged {
                subscription.ok()
            } else {
                subscription.auto().ok()
            };
            for topic in ["a", "a.b", "a.b.c", "x"] {
                producer.send(&format!("topic://{topic}"), topic).ok();
            }
            let got = client.drain();
            assert_eq!(super::queues::bodies(&got), wanted, "{pattern}");
            assert!(got.iter().all(|got| got.destination == format!("topic://{}", got.body)));
        }
    }
}

#[test]
fn two_subscriptions_of_one_client_are_two_deliveries() {
    let world = World::new();
    let mut client = world.client();
    let keys = [client.subscribe("topic://t").auto().ok(), client.subscribe("topic://>").auto().ok()];
    client.send("topic://t", "1").ok();
    let got: Vec<u32> = client.drain().iter().map(|got| got.subscription).collect();
    assert_eq!(got, keys);
}

#[test]
fn no_local_leaves_out_what_the_connection_sent_itself() {
    let world = World::new();
    let (mut client, mut other) = (world.client(), world.client());
    client.subscribe("topic://t").auto().no_local().ok();
    client.subscribe("topic://t").no_local().ok();
    client.send("topic://t", "mine").ok();
    other.send("topic://t", "theirs").ok();
    assert_eq!(client.bodies(), ["theirs", "theirs"]);
}

#[test]
fn what_is_sent_in_the_batch_of_the_subscription_comes_after_its_reply() {
    let world = World::new();
    let mut client = world.client();
    client.batch(|client| {
        client.subscribe("topic://t").auto().ok();
        client.subscribe("topic://t").ok();
        client.subscribe("queue://q").ok();
        for _ in 0..1500 {
            client.send("topic://t", "1").ok();
        }
        client.send("queue://q", "1").ok();
    });
    let lines = client.lines();
    assert_eq!(lines[..3], [Line::Reply(1), Line::Reply(2), Line::Reply(3)]);
    let of = |key: u32| {
        lines.iter().filter(|line| matches!(line, Line::Message(got) if got.subscription == key)).count()
    };
    assert_eq!((of(1), of(3)), (1500, 1), "the sender's own batch is no slow subscriber");
}

#[test]
fn what_others_send_during_the_batch_of_the_subscription_comes_after_its_reply() {
    let world = World::new();
    let (mut client, mut other) = (world.client(), world.client());
    client.batch(|client| {
        client.subscribe("topic://t").auto().ok();
        other.send("topic://t", "1").ok();
    });
    assert!(matches!(client.lines().as_slice(), [Line::Reply(1), Line::Message(_)]));
    // A refused subscription leaves nothing behind.
    client.batch(|client| {
        assert_eq!(client.subscribe("topic://t").durable("d").refused(), Code::UnknownSubscription)
    });
    other.send("topic://t", "2").ok();
    assert_eq!(client.bodies(), ["2"]);
}

#[test]
fn an_acknowledging_subscription_has_a_window() {
    let world = World::new();
    let (mut producer, mut client) = (world.client(), world.client());
    let key = client.subscribe("topic://t").credit(2).ok();
    for body in ["1", "2", "3"] {
        producer.send("topic://t", body).persistent().ok();
    }
    let got = client.drain();
    assert_eq!(facts(&got), [("1", 1, false), ("2", 1, false)]);
    client.settle(&got[0], Settlement::Failed);
    assert_eq!(facts(&client.drain()), [("1", 2, true)]);
    client.ack(&got[1]);
    assert_eq!(client.bodies(), ["3"]);
    client.unsubscribe(key);
    assert_eq!(world.memory(), 0);
    producer.send("topic://t", "4").ok();
    assert_eq!(world.memory(), 0);
}

#[test]
fn a_dead_letter_of_a_topic_names_the_topic() {
    let world = World::new();
    let mut client = world.named("c");
    client.subscribe("topic://t").ok();
    client.subscribe("topic://t").durable("d").ok();
    client.send("topic://t", "1").ok();
    for got in client.drain() {
        client.settle(&got, Settlement::Rejected);
    }
    client.subscribe("queue://ActiveMQ.DLQ").ok();
    let dead = client.drain();
    let mut sources: Vec<&str> = dead.iter().map(|dead| dead.properties["dlqSource"].as_str()).collect();
    sources.sort_unstable();
    assert_eq!(sources[0], "durable://c:d");
    assert!(dead.iter().all(|dead| dead.original == "topic://t"), "{dead:?}");
}

fn slow(policy: SlowConsumer) -> (World, super::harness::Client, super::harness::Client) {
    let policy = Policy { slow_consumer: policy, pending_max: 2, ..Policy::default() };
    let mut setup = Setup::default().policy("topic://t", policy);
    setup.limits.outbox.bytes_soft = 10;
    let world = setup.open();
    let (mut producer, mut client) = (world.client(), world.client());
    client.subscribe("topic://t").auto().ok();
    client.lines();
    client.block_after(0);
    for body in ["1", "2", "3", "4", "5"] {
        producer.send("topic://t", body).ok();
    }
    (world, producer, client)
}

#[test]
fn a_slow_subscriber_loses_what_its_topics_policy_says() {
    for (policy, wanted) in
        [(SlowConsumer::DropOldest, ["1", "4", "5"]), (SlowConsumer::DropNewest, ["1", "2", "3"])]
    {
        let (world, mut producer, mut client) = slow(policy);
        assert!(client.host().overrun().is_none());
        assert_eq!(world.stats().discarded, 2);
        client.unblock();
        assert_eq!(client.bodies(), wanted, "{policy:?}");
        producer.send("topic://t", "6").ok();
        assert_eq!(client.bodies(), ["6"]);
        assert_eq!(world.stats().dispatched, 4);
    }
}

#[test]
fn a_batch_larger_than_what_may_wait_makes_nobody_slow_who_reads() {
    let policy = Policy { pending_max: 2, ..Policy::default() };
    let mut setup = Setup::default().policy("topic://t", policy);
    setup.limits.outbox.bytes_soft = 10;
    let world = setup.open();
    let (mut producer, mut client) = (world.client(), world.client());
    client.subscribe("topic://t").auto().ok();
    producer.batch(|producer| {
        for _ in 0..1000 {
            producer.send("topic://t", "one of many").ok();
        }
    });
    assert_eq!(client.bodies().len(), 1000);
    assert_eq!(world.stats().discarded, 0);
}

#[test]
fn a_slow_subscriber_is_disconnected_where_the_policy_says_so() {
    let (_world, _producer, mut client) = slow(SlowConsumer::Disconnect);
    assert_eq!(client.host().overrun().unwrap().code, Code::SlowConsumer);
}

#[test]
fn what_waits_for_a_slow_subscriber_ends_with_its_life_or_its_subscription() {
    let (world, mut producer, mut client) = slow(SlowConsumer::DropNewest);
    client.unblock();
    client.lines();
    client.block_after(0);
    producer.send("topic://t", "fills the outbox").ok();
    producer.send("topic://t", "waits").ttl(100).ok();
    world.clock.advance(std::time::Duration::from_millis(200));
    client.unblock();
    assert_eq!(client.bodies(), ["fills the outbox"]);
    client.block_after(0);
    producer.send("topic://t", "fills the outbox").ok();
    producer.send("topic://t", "waits").ok();
    client.unsubscribe(1);
    client.unblock();
    assert_eq!(client.bodies(), ["fills the outbox"]);
}

#[test]
fn a_subscriber_that_does_not_acknowledge_harms_no_publisher() {
    for (policy, wanted) in [(SlowConsumer::DropOldest, ["4", "5"]), (SlowConsumer::DropNewest, ["2", "3"])] {
        let policy = Policy { slow_consumer: policy, pending_max: 2, messages_max: 1, ..Policy::default() };
        let world = Setup::default().policy("topic://t", policy).open();
        let (mut producer, mut client, mut live) = (world.client(), world.client(), world.client());
        client.subscribe("topic://t").credit(1).ok();
        live.subscribe("topic://t").auto().ok();
        producer.send_all("topic://t", &["1", "2", "3", "4", "5"]);
        assert_eq!(live.bodies().len(), 5);
        let mut got = client.drain();
        for body in wanted {
            client.ack(&got[0]);
            got = client.drain();
            assert_eq!(got[0].body, body);
        }
        client.ack(&got[0]);
        assert!(client.drain().is_empty());
        assert_eq!(world.memory(), 0);
    }
}

#[test]
fn a_durable_subscription_collects_while_its_client_is_away() {
    let world = World::new();
    let mut producer = world.client();
    let mut client = world.named("c");
    client.subscribe("topic://t").durable("d").ok();
    producer.send("topic://t", "1").ok();
    let got = client.one();
    assert_eq!((got.destination.as_str(), got.original.as_str()), ("topic://t", ""));
    client.ack(&got);
    client.close();
    producer.send_all("topic://t", &["2", "3"]);
    let mut client = world.named("c");
    client.subscribe("topic://t").durable("d").ok();
    assert_eq!(client.bodies(), ["2", "3"]);
    client.vanish();
    let mut client = world.named("c");
    client.subscribe("topic://t").durable("d").ok();
    assert_eq!(facts(&client.drain()), [("2", 2, true), ("3", 2, true)]);
}

#[test]
fn a_durable_subscription_has_one_consumer_and_needs_a_client_id() {
    let world = World::new();
    let mut client = world.named("c");
    client.subscribe("topic://t").durable("d").ok();
    assert_eq!(client.subscribe("topic://t").durable("d").refused(), Code::SubscriptionInUse);
    assert_eq!(world.client().subscribe("topic://t").durable("d").refused(), Code::UnknownSubscription);
    assert_eq!(client.subscribe("queue://q").durable("e").refused(), Code::InvalidDestination);
    let forget = |name| Command::ForgetDurable { name, client_id: None };
    assert_eq!(refusal(client.ask(forget("d"))), Code::SubscriptionInUse);
    assert_eq!(refusal(client.ask(forget("other"))), Code::UnknownSubscription);
    // The same name of another client is another subscription.
    world.named("c2").subscribe("topic://t").durable("d").ok();
}

#[test]
fn another_selector_or_topic_makes_a_new_durable_subscription() {
    let world = World::new();
    for (topic, selector) in [("topic://t", "a = 1"), ("topic://u", "")] {
        let mut client = world.named("c");
        let key = client.subscribe("topic://t").durable("d").ok();
        client.unsubscribe(key);
        client.send("topic://t", "old").ok();
        let key = client.subscribe(topic).selector(selector).durable("d").ok();
        assert!(client.drain().is_empty(), "the backlog went with the old one");
        client.send("topic://t", "not for it").ok();
        assert!(client.drain().is_empty());
        assert!(matches!(client.try_unsubscribe(key, true), Outcome::Accepted(Some(_))));
        assert_eq!((world.stats().queues.len(), world.memory()), (0, 0));
    }
}

#[test]
fn a_durable_subscription_is_forgotten_by_name() {
    let world = World::new();
    let mut client = world.named("c");
    let key = client.subscribe("topic://t").durable("d").ok();
    client.unsubscribe(key);
    client.send("topic://t", "1").persistent().ok();
    assert_eq!(world.depth("durable://c:d"), 1);
    let mut other = world.client();
    let outcome = other.ask(Command::ForgetDurable { name: "d", client_id: Some("c") });
    assert!(matches!(outcome, Outcome::Accepted(Some(_))));
    client.send("topic://t", "2").persistent().ok();
    assert_eq!((world.stats().queues.len(), world.memory()), (0, 0));
    client.subscribe("topic://t").durable("d").ok();
    assert!(client.drain().is_empty());
}
