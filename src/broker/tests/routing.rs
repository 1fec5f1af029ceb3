//! Routing rules: virtual topics, composite destinations, mirrored queues.

use std::sync::Arc;

use sabir_model::destination::{Destination, Kind};
use sabir_model::error::Code;
use sabir_model::pattern::Pattern;
use sabir_model::selector::Selector;

use super::harness::{Got, Setup, World};
use super::queues::bodies;
use crate::{CompositeRule, Forward, MirroredQueues, Policy, Rules, VirtualTopicRule};

fn pattern(text: &str) -> Pattern {
    Pattern::parse_qualified(text, Kind::Queue).unwrap()
}

/// `a | b ? selector` : targets, some with a selector.
fn composite(name: &str, targets: &str) -> CompositeRule {
    let forward_to = targets
        .split('|')
        .map(|target| {
            let (name, selector) = target.split_once('?').map_or((target, None), |(n, s)| (n, Some(s)));
            Forward {
                destination: Destination::parse_qualified(name.trim(), Kind::Queue).unwrap(),
                selector: selector.map(|text| Arc::new(Selector::parse(text).unwrap())),
            }
        })
        .collect();
    CompositeRule { name: pattern(name), forward_to, forward_only: true, send_when_not_matched: false }
}

fn with(composites: Vec<CompositeRule>) -> World {
    Setup { rules: Rules { composites, ..Rules::default() }, ..Setup::default() }.open()
}

fn with_topics(rule: VirtualTopicRule) -> World {
    Setup { rules: Rules { virtual_topics: vec![rule], ..Rules::default() }, ..Setup::default() }.open()
}

fn seen(got: &Got) -> (&str, &str) {
    (&got.destination, &got.original)
}

#[test]
fn each_group_of_a_virtual_topic_gets_each_message_once() {
    let world = World::new();
    let (mut producer, mut a1, mut a2, mut b) =
        (world.client(), world.client(), world.client(), world.client());
    let mut live = world.client();
    producer.send("topic://VirtualTopic.T", "before anybody").ok();
    a1.subscribe("queue://Consumer.A.VirtualTopic.T").ok();
    a2.subscribe("queue://Consumer.A.VirtualTopic.T").ok();
    let key = b.subscribe("queue://Consumer.B.VirtualTopic.T").ok();
    live.subscribe("topic://VirtualTopic.T").auto().ok();
    producer.send_all("topic://VirtualTopic.T", &["1", "2"]);
    assert_eq!((a1.bodies(), a2.bodies()), (vec!["1".to_owned()], vec!["2".to_owned()]));
    let got = b.drain();
    assert_eq!(bodies(&got), ["1", "2"]);
    assert_eq!(seen(&got[0]), ("queue://Consumer.B.VirtualTopic.T", "topic://VirtualTopic.T"));
    assert_eq!(live.bodies(), ["1", "2"]);
    // A group that has left goes on collecting; one that comes later gets nothing earlier.
    b.ack_all(&got);
    b.unsubscribe(key);
    producer.send("topic://VirtualTopic.T", "3").ok();
    let mut c = world.client();
    c.subscribe("queue://Consumer.C.VirtualTopic.T").ok();
    assert!(c.drain().is_empty());
    b.subscribe("queue://Consumer.B.VirtualTopic.T").ok();
    assert_eq!(b.bodies(), ["3"]);
}

#[test]
fn a_wildcard_subscription_declares_its_group_on_topics_to_come() {
    let world = World::new();
    let (mut producer, mut client) = (world.client(), world.client());
    producer.send("topic://VirtualTopic.x", "too early").ok();
    let key = client.subscribe("queue://Consumer.A.VirtualTopic.>").ok();
    producer.send("topic://VirtualTopic.x", "1").ok();
    producer.send("topic://VirtualTopic.y.z", "2").ok();
    producer.send("topic://plain", "3").ok();
    let got = client.drain();
    assert_eq!(bodies(&got), ["1", "2"]);
    assert_eq!(got[1].destination, "queue://Consumer.A.VirtualTopic.y.z");
    client.ack_all(&got);
    client.unsubscribe(key);
    producer.send("topic://VirtualTopic.new", "4").ok();
    assert_eq!(world.depth("queue://Consumer.A.VirtualTopic.new"), 1, "the group outlives the subscription");
}

#[test]
fn a_selector_aware_topic_enqueues_only_what_somebody_there_wants() {
    let world = with_topics(VirtualTopicRule { selector_aware: true, ..VirtualTopicRule::default() });
    let (mut producer, mut client) = (world.client(), world.client());
    let key = client.subscribe("queue://Consumer.A.VirtualTopic.T").selector("colour = 'red'").ok();
    producer.send("topic://VirtualTopic.T", "red").property("colour", "red").ok();
    producer.send("topic://VirtualTopic.T", "blue").property("colour", "blue").ok();
    let got = client.drain();
    assert_eq!((bodies(&got), world.depth("queue://Consumer.A.VirtualTopic.T")), (vec!["red"], 1));
    client.ack_all(&got);
    client.unsubscribe(key);
    producer.send("topic://VirtualTopic.T", "nobody there").property("colour", "red").ok();
    assert_eq!(world.depth("queue://Consumer.A.VirtualTopic.T"), 0);
}

#[test]
fn a_full_group_refuses_the_send_or_is_skipped() {
    for skip in [false, true] {
        let rule = VirtualTopicRule { drop_on_resource_limit: skip, ..VirtualTopicRule::default() };
        let rules = Rules { virtual_topics: vec![rule], ..Rules::default() };
        let policy = Policy { messages_max: 1, ..Policy::default() };
        let world = Setup { rules, ..Setup::default() }.policy("queue://Consumer.Full.>", policy).open();
        let mut client = world.client();
        for group in ["Full", "Roomy"] {
            client.subscribe(&format!("queue://Consumer.{group}.VirtualTopic.T")).credit(1).ok();
        }
        client.send("topic://VirtualTopic.T", "1").ok();
        if skip {
            client.send("topic://VirtualTopic.T", "2").ok();
        } else {
            assert_eq!(client.send("topic://VirtualTopic.T", "2").refused(), Code::DestinationFull);
        }
        assert_eq!(world.depth("queue://Consumer.Full.VirtualTopic.T"), 1);
        assert_eq!(world.depth("queue://Consumer.Roomy.VirtualTopic.T"), 1 + u64::from(skip));
    }
}

#[test]
fn without_set_original_destination_groups_see_the_topic() {
    let rule = VirtualTopicRule { set_original_destination: false, ..VirtualTopicRule::default() };
    let world = with_topics(rule);
    let mut client = world.client();
    client.subscribe("queue://Consumer.A.VirtualTopic.T").ok();
    client.send("topic://VirtualTopic.T", "1").ok();
    assert_eq!(seen(&client.one()), ("topic://VirtualTopic.T", ""));
}

#[test]
fn a_composite_send_reaches_each_target_once_in_the_written_order() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("topic://t").auto().ok();
    client.subscribe("queue://c").ok();
    client.subscribe("queue://b").ok();
    client.subscribe("queue://a").ok();
    client.send("queue://b,queue://a,topic://t,queue://c,queue://b", "1").ok();
    let got = client.drain();
    let destinations: Vec<&str> = got.iter().map(|got| got.destination.as_str()).collect();
    assert_eq!(
        destinations,
        ["queue://b", "queue://a", "queue://c", "topic://t"],
        "queues before live subscribers"
    );
    assert!(got.iter().all(|got| got.original == "queue://b,queue://a,topic://t,queue://c,queue://b"));
}

#[test]
fn a_composite_send_with_one_full_target_reaches_none() {
    let policy = Policy { messages_max: 1, ..Policy::default() };
    let world = Setup::default().policy("queue://full", policy).open();
    let mut client = world.client();
    client.subscribe("topic://t").auto().ok();
    client.send("queue://full", "1").ok();
    for persistent in [false, true] {
        let send = client.send("queue://a,queue://full,topic://t", "2");
        let send = if persistent { send.persistent() } else { send };
        assert_eq!(send.refused(), Code::DestinationFull);
    }
    assert_eq!((world.depth("queue://a"), client.drain().len()), (0, 0));
    assert_eq!(world.stats().refused, 2);
}

#[test]
fn a_composite_rule_forwards_and_the_name_itself_receives_only_if_asked_to() {
    for forward_only in [true, false] {
        let rule = CompositeRule { forward_only, ..composite("queue://in", "a|topic://t") };
        let world = with(vec![rule]);
        let mut client = world.client();
        client.subscribe("topic://t").auto().ok();
        client.send("queue://in", "1").ok();
        assert_eq!(world.depth("queue://in"), u64::from(!forward_only));
        assert_eq!(world.depth("queue://a"), 1);
        client.subscribe("queue://a").ok();
        for got in client.drain() {
            assert_eq!(got.original, "queue://in");
        }
    }
}

#[test]
fn a_composite_rule_filters_and_can_keep_what_nobody_took() {
    let rule = CompositeRule {
        send_when_not_matched: true,
        ..composite("queue://in", "red ? colour = 'red'|blue ? colour = 'blue'")
    };
    let world = with(vec![rule]);
    let mut client = world.client();
    for colour in ["red", "blue", "green"] {
        client.send("queue://in", colour).property("colour", colour).ok();
    }
    for (queue, wanted) in [("queue://red", "red"), ("queue://blue", "blue"), ("queue://in", "green")] {
        assert_eq!(world.browse(queue), [wanted]);
    }
}

#[test]
fn a_rule_decides_by_its_own_selectors_and_not_by_those_behind_it() {
    let outer =
        CompositeRule { send_when_not_matched: true, ..composite("queue://in", "mid ? colour = 'red'") };
    let inner = composite("queue://mid", "end ? size = 'big'");
    let world = with(vec![outer, inner]);
    let mut client = world.client();
    client.send("queue://in", "big red").property("colour", "red").property("size", "big").ok();
    client.send("queue://in", "red").property("colour", "red").ok();
    client.send("queue://in", "blue").property("colour", "blue").ok();
    assert_eq!(world.browse("queue://end"), ["big red"]);
    assert_eq!(world.browse("queue://in"), ["blue"], "mid took the red ones, whatever it did with them");
}

#[test]
fn several_rules_for_one_name_all_apply() {
    let keeps = CompositeRule { send_when_not_matched: true, ..composite("queue://in", "a ? x = '1'") };
    let world = with(vec![composite("queue://other", "z"), composite("queue://in", "b"), keeps.clone()]);
    world.client().send("queue://in", "1").property("x", "1").ok();
    assert_eq!((world.depth("queue://a"), world.depth("queue://b"), world.depth("queue://in")), (1, 1, 0));
    let world = with(vec![keeps, CompositeRule { forward_only: false, ..composite("queue://*", "b") }]);
    world.client().send("queue://in", "1").property("x", "2").ok();
    assert_eq!((world.depth("queue://a"), world.depth("queue://b"), world.depth("queue://in")), (0, 1, 1));
}

#[test]
fn rules_lead_to_rules_and_to_virtual_topics_and_loops_end() {
    let world = with(vec![
        composite("queue://1", "2"),
        CompositeRule { forward_only: false, ..composite("queue://2", "topic://VirtualTopic.T|1") },
    ]);
    let mut client = world.client();
    client.subscribe("queue://Consumer.A.VirtualTopic.T").ok();
    client.send("queue://1", "x").ok();
    assert_eq!(client.one().original, "queue://1");
    assert_eq!((world.depth("queue://1"), world.depth("queue://2")), (0, 1));
    client.send("queue://2", "y").ok();
    assert_eq!(client.one().body, "y");
    assert_eq!((world.depth("queue://1"), world.depth("queue://2")), (0, 2));
}

#[test]
fn mirrored_queues_publish_what_is_sent_to_them() {
    let mirror = MirroredQueues { prefix: "VirtualTopic.Mirror.".into(), postfix: String::new() };
    let rules = Rules { mirrored_queues: Some(mirror), ..Rules::default() };
    let world = Setup { rules, ..Setup::default() }.open();
    let mut client = world.client();
    client.subscribe("topic://VirtualTopic.Mirror.q").auto().ok();
    client.subscribe("queue://Consumer.tap.VirtualTopic.Mirror.q").ok();
    client.send("queue://q", "1").ok();
    let got = client.drain();
    assert_eq!(bodies(&got), ["1", "1"]);
    assert!(got.iter().all(|got| got.original == "queue://q"), "{got:?}");
    assert_eq!(world.depth("queue://q"), 1);
}
