//! The routing picture, and the counts it is drawn from.

use sabir_model::destination::{Destination, Kind};
use sabir_model::pattern::Pattern;

use super::device::Coming;
use super::harness::{Setup, World};
use super::manage::listing;
use crate::manage::Picture;
use crate::{CompositeRule, Forward, Rules};

fn lines(picture: &Picture) -> Vec<String> {
    let edge = |edge: &crate::manage::Edge| {
        format!("{} {} {} {}", edge.from, edge.kind.word(), edge.to, edge.messages)
    };
    picture.edges.iter().map(edge).collect()
}

impl World {
    fn picture(&self, limit: usize) -> Picture {
        self.broker.routing("/", limit).unwrap()
    }

    fn published(&self, topic: &str) -> u64 {
        self.broker.topic_detail("/", topic).unwrap().entry.published
    }
}

#[test]
fn the_picture_shows_who_sends_where_and_who_gets_it() {
    let world = World::new();
    let mut sender = world.named("shop");
    let mut reader = world.client();
    let (from, to) = (sender.host().id().0, reader.host().id().0);
    reader.subscribe("queue://q").credit(2).ok();
    reader.subscribe("topic://t").auto().ok();
    reader.subscribe("Consumer.G.VirtualTopic.v").ok();
    sender.send_all("queue://q", &["1", "2", "3"]);
    sender.send_all("topic://t", &["1", "2"]);
    sender.send_all("topic://VirtualTopic.v", &["1"]);
    let picture = world.picture(10);
    assert!(!picture.truncated);
    let mut shown = lines(&picture);
    shown.sort();
    let mut wanted = [
        format!("publisher:{from} publish queue:q 3"),
        format!("publisher:{from} publish topic:t 2"),
        format!("publisher:{from} publish topic:VirtualTopic.v 1"),
        format!("queue:q consume subscriber:{to} 2"),
        format!("topic:t consume subscriber:{to} 2"),
        "topic:VirtualTopic.v binding queue:Consumer.G.VirtualTopic.v 1".to_owned(),
        format!("queue:Consumer.G.VirtualTopic.v consume subscriber:{to} 1"),
    ];
    wanted.sort();
    assert_eq!(shown, wanted);
    let labels: Vec<&str> = picture.nodes.iter().map(|node| node.label.as_str()).collect();
    // Five ways into and out of the queue, two messages of each topic: the busiest first.
    assert_eq!(labels, ["q", "Consumer.G.VirtualTopic.v", "t", "VirtualTopic.v", "shop", "test"]);
}

#[test]
fn a_picture_of_fewer_is_of_the_busiest_and_says_so() {
    let world = World::new();
    let mut client = world.client();
    client.send_all("queue://calm", &["1"]);
    client.send_all("queue://busy", &["1", "2"]);
    let picture = world.picture(1);
    assert!(picture.truncated);
    let labels: Vec<&str> = picture.nodes.iter().map(|node| node.label.as_str()).collect();
    assert_eq!(labels, ["busy", "test"]);
    assert!(!world.picture(2).truncated);
    assert!(world.broker.routing("nowhere", 1).is_err());
}

#[test]
fn what_a_rule_forwards_comes_to_the_rule_first() {
    let forward = |name: &str| Forward { destination: Destination::queue(name), selector: None };
    let rules = Rules {
        composites: vec![CompositeRule {
            name: Pattern::parse_qualified("queue://orders", Kind::Queue).unwrap(),
            forward_to: vec![forward("new"), forward("audit")],
            forward_only: true,
            send_when_not_matched: false,
        }],
        ..Rules::default()
    };
    let world = Setup { rules, ..Setup::default() }.open();
    let mut client = world.client();
    let from = client.host().id().0;
    client.send_all("queue://orders", &["1", "2"]);
    let mut shown = lines(&world.picture(10));
    shown.sort();
    assert_eq!(
        shown,
        [
            format!("publisher:{from} publish rule:queue://orders 2"),
            "rule:queue://orders route queue:audit 2".to_owned(),
            "rule:queue://orders route queue:new 2".to_owned(),
        ]
    );
}

#[test]
fn client_sessions_are_drawn_by_their_backlog_or_by_their_connection() {
    let world = World::new();
    let mut lasting = world.device("lasting", Coming::for_ms(1_000_000));
    lasting.bind("a").ok();
    let mut client = world.client();
    client.send("topic://a", "1").persistent().ok();
    let shown = lines(&world.picture(10));
    assert!(shown.contains(&"topic:a binding queue:session://lasting 1".to_owned()), "{shown:?}");
    assert!(shown.iter().any(|edge| edge.starts_with("queue:session://lasting consume subscriber:")));
}

#[test]
fn a_topic_counts_what_was_sent_to_it_whoever_has_left_and_whatever_else_was_sent() {
    let world = World::new();
    let mut first = world.client();
    first.send_all("topic://t", &["1", "2"]);
    let mut second = world.client();
    // More destinations than a connection counts by themselves; the first of them make way for the last.
    for round in 0..2 {
        for n in 0..100 {
            second.send(&format!("topic://many.{n}"), "x").ok();
        }
        assert_eq!(world.published("many.7"), round + 1);
        assert_eq!(world.published("many.99"), round + 1);
    }
    second.send_all("topic://t", &["3"]);
    let key = second.begin();
    second.send("topic://t", "4").in_transaction(key).ok();
    assert_eq!(world.published("t"), 3);
    second.commit(key);
    assert_eq!(world.published("t"), 4);
    first.close();
    second.close();
    assert_eq!((world.published("t"), world.published("many.7"), world.published("none")), (4, 2, 0));
    let page = world.broker.list_topics("/", &listing(200, ())).unwrap();
    assert_eq!(page.total, 101);
    assert_eq!(world.stats().published, 204);
}
