//! What comes back after a restart and after a loss of power.

use sabir_model::command::Outcome;
use sabir_model::settlement::Settlement;
use sabir_store::Level;

use super::harness::{Setup, World};
use super::queues::{bodies, facts};
use crate::{CompositeRule, Forward, Note, NoteTable, Policy, Rules};

#[test]
fn persistent_messages_come_back_and_others_do_not() {
    for power_lost in [false, true] {
        let world = World::new();
        let mut client = world.client();
        client.subscribe("queue://q").credit(3).ok();
        for body in ["1", "2", "3", "4"] {
            client.send("queue://q", body).persistent().property("colour", "red").ok();
        }
        client.send("queue://q", "fleeting").ok();
        client.send("queue://q", "5").persistent().ok();
        let got = client.drain();
        client.ack(&got[1]);
        client.settle(&got[0], Settlement::Failed);
        client.synced();
        client.close();
        let world = if power_lost { world.crash() } else { world.restart() };
        let mut client = world.client();
        client.subscribe("queue://q").ok();
        let got = client.drain();
        assert_eq!(bodies(&got), ["1", "3", "4", "5"]);
        assert_eq!(got[0].properties["colour"], "red");
        // The failure that leaving made was not synced.
        assert_eq!(got[0].attempt, if power_lost { 2 } else { 3 });
        // After a crash every message may have been seen; in good order only those that were.
        let redelivered: Vec<bool> = got.iter().map(|got| got.redelivered).collect();
        assert_eq!(redelivered, [true, true, true, power_lost]);
        client.ack_all(&got);
        assert_eq!(world.memory(), 0);
        client.send("queue://q", "6").ok();
        assert_eq!(client.bodies(), ["6"]);
    }
}

#[test]
fn notes_of_others_come_back_by_table_and_key_and_are_no_damage() {
    let world = World::new();
    let note = |key: &str, value: &str| Note { key: key.as_bytes().into(), value: value.as_bytes().into() };
    let table = NoteTable::Webhooks;
    for (key, value) in [("b", "1"), ("a", "2"), ("c", "3"), ("b", "4")] {
        world.broker.keep_note(table, key.as_bytes(), value.as_bytes());
    }
    let promise = world.broker.drop_note(table, b"c");
    world.broker.store().sync();
    assert!(world.broker.is_kept(promise));
    assert_eq!(world.broker.take_notes(table), [], "it gives back what the log held at the start");
    let world = world.crash();
    assert_eq!(world.broker.take_notes(table), [note("a", "2"), note("b", "4")]);
    assert_eq!(world.broker.take_notes(table), []);
    // They are still in the log.
    assert_eq!(world.restart().broker.take_notes(table).len(), 2);
}

#[test]
fn what_was_not_synced_has_no_receipt_and_may_be_gone() {
    let world = World::new();
    let mut client = world.client();
    client.send("queue://q", "1").persistent().ok();
    client.synced();
    client.send("queue://q", "2").persistent().ok();
    client.vanish();
    assert_eq!(world.crash().browse("queue://q"), ["1"]);
}

#[test]
fn durable_subscriptions_survive_with_their_backlog_selector_and_name() {
    let world = World::new();
    let mut client = world.named("c");
    let key = client.subscribe("topic://t.>").selector("colour = 'red'").durable("d").ok();
    client.unsubscribe(key);
    client.send("topic://t.1", "red").property("colour", "red").persistent().ok();
    client.synced();
    client.close();
    let world = world.crash();
    let mut client = world.named("c");
    client.send("topic://t.2", "red too").property("colour", "red").persistent().ok();
    client.send("topic://t.2", "blue").property("colour", "blue").persistent().ok();
    client.subscribe("topic://t.>").selector("colour = 'red'").durable("d").ok();
    let got = client.drain();
    assert_eq!(bodies(&got), ["red", "red too"]);
    assert_eq!(got[0].destination, "topic://t.1");
}

#[test]
fn a_forgotten_subscription_stays_forgotten() {
    let world = World::new();
    let mut client = world.named("c");
    let key = client.subscribe("topic://t").durable("d").ok();
    client.send("topic://t", "1").persistent().ok();
    let outcome = client.try_unsubscribe(key, true);
    assert!(matches!(outcome, Outcome::Accepted(Some(promise)) if promise.synced));
    client.synced();
    client.close();
    let world = world.crash();
    assert!(world.stats().queues.is_empty());
    assert_eq!(world.memory(), 0);
}

#[test]
fn groups_declared_by_wildcard_survive() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://Consumer.A.VirtualTopic.>").ok();
    client.synced();
    client.close();
    let world = world.restart();
    let mut client = world.client();
    client.send("topic://VirtualTopic.new", "1").persistent().ok();
    assert_eq!(world.depth("queue://Consumer.A.VirtualTopic.new"), 1);
    client.subscribe("queue://Consumer.A.VirtualTopic.>").ok();
    assert_eq!(client.bodies(), ["1"]);
}

#[test]
fn a_transaction_survives_whole_or_not_at_all() {
    for synced in [false, true] {
        let world = World::new();
        let mut client = world.client();
        client.subscribe("queue://in").ok();
        client.send("queue://in", "1").persistent().ok();
        client.synced();
        let got = client.one();
        let tx = client.begin();
        client.ack_in(tx, &got);
        client.send("queue://out", "2").persistent().in_transaction(tx).ok();
        client.send("queue://out2", "3").persistent().in_transaction(tx).ok();
        client.commit(tx);
        if synced {
            client.synced();
        }
        client.vanish();
        let world = world.crash();
        let depths = ["in", "out", "out2"].map(|name| world.depth(&format!("queue://{name}")));
        assert_eq!(depths, if synced { [0, 1, 1] } else { [1, 0, 0] });
    }
}

#[test]
fn a_composite_send_survives_in_all_its_targets() {
    let rule = CompositeRule {
        name: sabir_model::pattern::Pattern::parse_qualified(
            "topic://in",
            sabir_model::destination::Kind::Topic,
        )
        .unwrap(),
        forward_to: ["a", "b"]
            .map(|name| Forward {
                destination: sabir_model::destination::Destination::queue(name),
                selector: None,
            })
            .to_vec(),
        forward_only: true,
        send_when_not_matched: false,
    };
    let world =
        Setup { rules: Rules { composites: vec![rule], ..Rules::default() }, ..Setup::default() }.open();
    let mut client = world.client();
    client.send("topic://in", "1").persistent().ok();
    client.synced();
    client.vanish();
    let world = world.crash();
    assert_eq!((world.browse("queue://a"), world.browse("queue://b")), (vec!["1".into()], vec!["1".into()]));
}

#[test]
fn a_dead_letter_is_in_one_place_after_a_crash() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send("queue://q", "1").persistent().ok();
    let got = client.one();
    client.settle(&got, Settlement::Rejected);
    client.synced();
    client.vanish();
    let world = world.crash();
    assert_eq!((world.depth("queue://q"), world.browse("queue://ActiveMQ.DLQ")), (0, vec!["1".into()]));
}

#[test]
fn what_has_expired_is_gone_from_the_log_too() {
    let world = World::new();
    let mut client = world.client();
    client.send("queue://q", "1").persistent().ttl(500).ok();
    client.send("queue://q", "2").persistent().ttl(500).ok();
    world.pass(std::time::Duration::from_secs(2));
    client.synced();
    client.close();
    assert_eq!(world.crash().depth("queue://q"), 0);
}

#[test]
fn a_queue_that_logs_nothing_forgets_and_promises_nothing() {
    let policy = Policy { durability: Level::Memory, ..Policy::default() };
    let world = Setup::default().policy("queue://m", policy).open();
    let mut client = world.client();
    assert_eq!(client.send("queue://m", "1").persistent().promise(), None);
    client.synced();
    client.close();
    assert_eq!(world.restart().depth("queue://m"), 0);
}

#[test]
fn tokens_of_an_earlier_life_settle_nothing() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send("queue://q", "1").persistent().ok();
    let old = client.one();
    client.synced();
    client.vanish();
    let world = world.crash();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    let new = client.one();
    client.ack(&old);
    assert!(client.settle_refused());
    assert_eq!(facts(&[new]), [("1", 2, true)].map(|(body, _, redelivered)| (body, 1, redelivered)));
    assert_eq!(world.depth("queue://q"), 1);
}

#[test]
fn queues_of_a_virtual_host_come_back_there() {
    let world = World::new();
    let open = sabir_model::command::Open { virtual_host: Some("other"), ..Default::default() };
    let mut client = world.client_as(&open).unwrap();
    client.send("queue://q", "there").persistent().ok();
    client.synced();
    client.close();
    let world = world.restart();
    assert_eq!(world.depth("queue://q"), 0);
    let mut client = world.client_as(&open).unwrap();
    client.subscribe("queue://q").ok();
    assert_eq!(client.bodies(), ["there"]);
}

#[test]
fn an_empty_queue_and_its_numbers_survive() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send("queue://q", "1").persistent().ok();
    let got = client.one();
    client.ack(&got);
    client.synced();
    client.close();
    let world = world.restart();
    assert!(world.queue("queue://q").is_some());
    let mut client = world.client();
    client.send("queue://q", "2").persistent().ok();
    client.synced();
    client.close();
    assert_eq!(world.restart().browse("queue://q"), ["2"], "a number is not used twice");
}
