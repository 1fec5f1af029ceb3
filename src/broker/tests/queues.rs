//! Queues: order, turns, credit, settlement, redelivery, dead letters, expiry, browsing.

use std::time::Duration;

use sabir_model::destination::Destination;
use sabir_model::error::Code;
use sabir_model::settlement::Settlement;

use super::harness::{Client, Got, Line, Setup, World};
use crate::{DeadLetters, Expired, Negative, Policy};

#[test]
fn one_consumer_gets_everything_in_the_order_of_sending() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    producer.send_all("queue://q", &["1", "2"]);
    consumer.subscribe("queue://q").ok();
    producer.send_all("queue://q", &["3", "4"]);
    assert_eq!(consumer.bodies(), ["1", "2", "3", "4"]);
}

#[test]
fn competing_consumers_take_turns() {
    let world = World::new();
    let (mut producer, mut a, mut b) = (world.client(), world.client(), world.client());
    a.subscribe("queue://q").ok();
    b.subscribe("queue://q").ok();
    producer.send_all("queue://q", &["1", "2", "3", "4"]);
    assert_eq!(a.bodies(), ["1", "3"]);
    assert_eq!(b.bodies(), ["2", "4"]);
}

#[test]
fn a_higher_priority_is_filled_before_a_lower_one_gets_anything() {
    let world = World::new();
    let (mut producer, mut low, mut high) = (world.client(), world.client(), world.client());
    low.subscribe("queue://q").ok();
    high.subscribe("queue://q").priority(5).credit(2).ok();
    producer.send_all("queue://q", &["1", "2", "3"]);
    let got = high.drain();
    assert_eq!(bodies(&got), ["1", "2"]);
    assert_eq!(low.bodies(), ["3"]);
    high.ack_all(&got);
    producer.send_all("queue://q", &["4"]);
    assert_eq!(high.bodies(), ["4"]);
    assert!(low.bodies().is_empty());
}

#[test]
fn credit_bounds_what_is_unsettled() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://q").credit(2).ok();
    producer.send_all("queue://q", &["1", "2", "3", "4"]);
    let got = consumer.drain();
    assert_eq!(bodies(&got), ["1", "2"]);
    consumer.ack(&got[1]);
    assert_eq!(consumer.bodies(), ["3"]);
    consumer.settle(&got[0], Settlement::Released);
    assert_eq!(consumer.bodies(), ["1"]);
}

#[test]
fn the_policy_names_the_credit_where_the_client_does_not() {
    let world =
        Setup::default().policy("queue://q", Policy { prefetch: Some(1), ..Policy::default() }).open();
    let (mut producer, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://q").ok();
    producer.send_all("queue://q", &["1", "2"]);
    assert_eq!(consumer.bodies(), ["1"]);
}

#[test]
fn auto_settles_when_the_socket_has_taken_the_bytes() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://q").auto().ok();
    consumer.lines();
    producer.send_all("queue://q", &["1", "2"]);
    assert_eq!(consumer.bodies(), ["1", "2"]);
    assert_eq!((world.depth("queue://q"), world.memory()), (0, 0));
    consumer.block_after(0);
    producer.send_all("queue://q", &["3"]);
    assert_eq!(world.queue("queue://q").unwrap().unsettled, 1);
    consumer.unblock();
    assert_eq!(world.depth("queue://q"), 0);
    assert_eq!(consumer.bodies(), ["3"]);
}

#[test]
fn auto_goes_on_past_its_credit_without_a_word_of_the_client() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://q").auto().credit(1).ok();
    producer.batch(|producer| producer.send_all("queue://q", &["1", "2", "3"]));
    assert_eq!(consumer.bodies(), ["1", "2", "3"]);
    assert_eq!(world.depth("queue://q"), 0);
}

#[test]
fn what_the_socket_has_not_taken_is_released_uncounted_when_the_connection_ends() {
    for auto in [false, true] {
        let world = World::new();
        let (mut producer, mut consumer) = (world.client(), world.client());
        let subscription = consumer.subscribe("queue://q");
        if auto {
            subscription.auto().ok()
        } else {
            subscription.ok()
        };
        consumer.lines();
        producer.send_all("queue://q", &["1"]);
        consumer.block_after(3);
        producer.send_all("queue://q", &["2", "3"]);
        consumer.vanish();
        let mut next = world.client();
        next.subscribe("queue://q").ok();
        let got = next.drain();
        if auto {
            assert_eq!(facts(&got), [("2", 1, false), ("3", 1, false)]);
        } else {
            assert_eq!(facts(&got), [("1", 2, true), ("2", 1, false), ("3", 1, false)]);
        }
    }
}

#[test]
fn a_cumulative_acknowledgement_covers_all_before_it_and_an_individual_one_itself() {
    for (cumulative, left) in [(true, ["3"].as_slice()), (false, ["1", "3"].as_slice())] {
        let world = World::new();
        let (mut producer, mut consumer) = (world.client(), world.client());
        let subscription = consumer.subscribe("queue://q");
        if cumulative {
            subscription.cumulative().ok()
        } else {
            subscription.ok()
        };
        producer.send_all("queue://q", &["1", "2", "3"]);
        let got = consumer.drain();
        consumer.ack(&got[1]);
        assert_eq!(world.browse("queue://q"), left);
    }
}

#[test]
fn what_comes_back_goes_to_the_head_in_its_old_order() {
    let world = World::new();
    let (mut producer, mut first) = (world.client(), world.client());
    first.subscribe("queue://q").credit(3).ok();
    producer.send_all("queue://q", &["1", "2", "3", "4"]);
    let got = first.drain();
    first.batch(|first| {
        first.settle(&got[1], Settlement::Released);
        first.settle(&got[2], Settlement::Failed);
        first.settle(&got[0], Settlement::Failed);
    });
    assert_eq!(facts(&first.drain()), [("1", 2, true), ("2", 1, false), ("3", 2, true)]);
    first.close();
    let mut second = world.client();
    second.subscribe("queue://q").ok();
    assert_eq!(facts(&second.drain()), [("1", 3, true), ("2", 2, true), ("3", 3, true), ("4", 1, false)]);
}

#[test]
fn a_settled_delivery_and_one_that_never_was_are_refused() {
    let world = World::new();
    let (mut producer, mut consumer, mut other) = (world.client(), world.client(), world.client());
    consumer.subscribe("queue://q").ok();
    producer.send_all("queue://q", &["1", "2"]);
    let got = consumer.drain();
    consumer.ack(&got[0]);
    assert!(!consumer.settle_refused());
    consumer.ack(&got[0]);
    assert!(consumer.settle_refused());
    // Somebody else's.
    other.ack(&got[1]);
    assert!(other.settle_refused());
    // Of another life of the broker.
    let mut old = got[1].clone();
    old.token.as_mut().unwrap().boot ^= 1;
    consumer.ack(&old);
    assert!(consumer.settle_refused());
    assert_eq!(super::harness::refusal(consumer.ack_now(&old)), Code::UnknownDelivery);
    consumer.ack(&got[1]);
    assert!(!consumer.settle_refused());
    assert_eq!(world.depth("queue://q"), 0);
}

#[test]
fn at_the_delivery_limit_a_message_becomes_a_dead_letter_that_tells_its_story() {
    let world =
        Setup::default().policy("queue://q", Policy { delivery_limit: 2, ..Policy::default() }).open();
    let (mut producer, mut consumer, mut undertaker) = (world.client(), world.client(), world.client());
    consumer.subscribe("queue://q").ok();
    producer.send("queue://q", "1").property("colour", "red").ttl(60_000).ok();
    let got = consumer.one();
    consumer.settle(&got, Settlement::Negative);
    let got = consumer.one();
    assert_eq!(got.attempt, 2);
    consumer.settle(&got, Settlement::Negative);
    assert!(consumer.drain().is_empty());
    undertaker.subscribe("queue://ActiveMQ.DLQ").ok();
    let dead = undertaker.one();
    assert_eq!((dead.body.as_str(), dead.attempt, dead.redelivered), ("1", 1, false));
    assert_eq!(dead.destination, "queue://ActiveMQ.DLQ");
    assert_eq!(dead.original, "queue://q");
    assert_eq!(dead.expires, 0);
    let property = |name: &str| dead.properties[name].as_str();
    assert_eq!(property("colour"), "red");
    assert_eq!(property("dlqDeliveryFailureCause"), "delivery limit reached");
    assert_eq!(property("dlqSource"), "queue://q");
    assert_eq!(property("dlqAttempts"), "2");
    let history = property("dlqAttemptHistory");
    assert_eq!(history.matches("negative acknowledgement").count(), 2, "{history}");
    assert_eq!(property("originalExpiration"), got.expires.to_string());
    // Sent back and dead again: the story goes on.
    consumer
        .send("queue://q", "again")
        .property("dlqSource", "queue://x")
        .property("dlqDeliveryFailureCause", "why")
        .ok();
    let got = consumer.one();
    consumer.settle(&got, Settlement::Rejected);
    assert_eq!(undertaker.one().properties["dlqHistory"], "queue://x: why");
    assert_eq!(world.stats().dead_lettered, 2);
}

#[test]
fn connections_that_vanish_count_as_deliveries_too() {
    let world =
        Setup::default().policy("queue://q", Policy { delivery_limit: 2, ..Policy::default() }).open();
    world.client().send("queue://q", "1").ok();
    for _ in 0..2 {
        let mut consumer = world.client();
        consumer.subscribe("queue://q").ok();
        assert_eq!(consumer.bodies(), ["1"]);
        consumer.vanish();
    }
    assert_eq!(world.depth("queue://q"), 0);
    assert_eq!(world.browse("queue://ActiveMQ.DLQ"), ["1"]);
}

#[test]
fn a_dead_letter_queue_has_no_limit_and_is_the_end_of_the_road() {
    let own = DeadLetters::Shared(Destination::queue("graveyard"));
    let individual = DeadLetters::Individual { prefix: "DLQ.".into(), suffix: String::new() };
    for (dead_letters, grave) in [
        (Policy::default().dead_letters, "queue://ActiveMQ.DLQ"),
        (own, "queue://graveyard"),
        (individual, "queue://DLQ.q"),
    ] {
        let policy = Policy { delivery_limit: 1, dead_letters, ..Policy::default() };
        let world = Setup::default().policy("queue://q", policy).open();
        let mut client = world.client();
        client.subscribe("queue://q").ok();
        client.send("queue://q", "1").ok();
        let got = client.one();
        client.settle(&got, Settlement::Failed);
        client.subscribe(grave).ok();
        for attempt in 1..20 {
            let got = client.one();
            assert_eq!((got.attempt, got.destination.as_str()), (attempt, grave));
            client.settle(&got, Settlement::Failed);
        }
        let got = client.one();
        client.settle(&got, Settlement::Rejected);
        assert!(client.drain().is_empty());
        assert_eq!((world.depth(grave), world.memory()), (0, 0));
        assert_eq!(world.stats().queues.len(), 2, "no further grave was dug");
    }
}

#[test]
fn dead_letters_are_discarded_where_the_policy_says_so() {
    let policy = Policy { delivery_limit: 1, dead_letters: DeadLetters::Discard, ..Policy::default() };
    let world = Setup::default().policy("queue://q", policy).open();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send("queue://q", "1").persistent().ok();
    let got = client.one();
    client.settle(&got, Settlement::Failed);
    assert_eq!((world.depth("queue://q"), world.memory(), world.stats().queues.len()), (0, 0, 1));
    assert_eq!(world.stats().dead_lettered, 1);
}

#[test]
fn a_negative_acknowledgement_does_what_the_policy_says() {
    let policy = Policy { negative: Negative::DeadLetter, ..Policy::default() };
    let world = Setup::default().policy("queue://strict", policy).open();
    let mut client = world.client();
    for (queue, comes_back) in [("queue://strict", false), ("queue://mild", true)] {
        client.subscribe(queue).ok();
        client.send(queue, "1").ok();
        let got = client.one();
        client.settle(&got, Settlement::Negative);
        assert_eq!(client.drain().len(), usize::from(comes_back), "{queue}");
    }
}

#[test]
fn what_a_receiver_can_never_take_is_a_dead_letter_and_holds_nobody_up() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").credit(1).ok();
    client.send_all("queue://q", &["undeliverable 1", "undeliverable 2", "fine"]);
    assert_eq!(client.bodies(), ["fine"]);
    assert_eq!(world.depth("queue://ActiveMQ.DLQ"), 2);
}

#[test]
fn expired_messages_are_dropped_at_dispatch_and_by_the_sweep() {
    let world = World::new();
    let mut client = world.client();
    client.send("queue://q", "short").ttl(500).ok();
    client.send("queue://q", "long").ttl(60_000).ok();
    client.send("queue://q", "for ever").ok();
    world.clock.advance(Duration::from_millis(500));
    client.subscribe("queue://q").ok();
    assert_eq!(client.bodies(), ["long", "for ever"]);
    assert_eq!(world.stats().expired, 1);
    // Nobody looks at this one.
    client.send("queue://r", "short").ttl(500).ok();
    client.send("queue://r", "behind").ok();
    client.send("queue://r", "short too").persistent().ttl(400).ok();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.depth("queue://r"), 1);
    assert_eq!(world.stats().expired, 3);
    assert_eq!(world.browse("queue://r"), ["behind"]);
}

#[test]
fn what_expires_while_it_is_unsettled_is_dropped_when_it_comes_back() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send("queue://q", "1").ttl(500).ok();
    let got = client.one();
    world.pass(Duration::from_secs(2));
    client.settle(&got, Settlement::Failed);
    assert!(client.drain().is_empty());
    assert_eq!((world.depth("queue://q"), world.memory(), world.stats().expired), (0, 0, 1));
}

#[test]
fn expired_messages_become_dead_letters_where_the_policy_says_so() {
    let policy = Policy { expired: Expired::DeadLetter, ..Policy::default() };
    let world = Setup::default().policy("queue://q", policy).open();
    let mut client = world.client();
    client.send("queue://q", "1").ttl(500).ok();
    client.send("queue://q", "2").ttl(500).persistent().ok();
    world.pass(Duration::from_secs(2));
    client.subscribe("queue://ActiveMQ.DLQ").ok();
    let got = client.drain();
    assert_eq!(bodies(&got), ["1", "2"]);
    assert_eq!(got[0].properties["dlqDeliveryFailureCause"], "expired");
    assert_eq!((got[0].persistent, got[1].persistent), (false, true));
}

#[test]
fn a_longer_life_than_the_policy_allows_is_cut() {
    let policy = Policy { ttl_max: Some(Duration::from_secs(1)), ..Policy::default() };
    let world = Setup::default().policy("queue://q", policy).open();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    let now = world.now().wall.0;
    client.send("queue://q", "for ever").ok();
    client.send("queue://q", "long").ttl(5000).ok();
    client.send("queue://q", "short").ttl(200).ok();
    let expires: Vec<u64> = client.drain().iter().map(|got| got.expires - now).collect();
    assert_eq!(expires, [1000, 1000, 200]);
}

#[test]
fn higher_message_priority_goes_first_where_the_policy_says_so() {
    let world =
        Setup::default().policy("queue://p", Policy { prioritized: true, ..Policy::default() }).open();
    let mut client = world.client();
    for queue in ["queue://p", "queue://fifo"] {
        for (body, priority) in [("a", 4), ("b", 9), ("c", 0), ("d", 9)] {
            client.send(queue, body).priority(priority).ok();
        }
        client.subscribe(queue).ok();
    }
    assert_eq!(client.bodies(), ["b", "d", "a", "c", "a", "b", "c", "d"]);
}

#[test]
fn browsing_shows_a_snapshot_and_takes_nothing() {
    let world = World::new();
    let (mut client, mut browser) = (world.client(), world.client());
    client.subscribe("queue://q").credit(1).ok();
    client.send_all("queue://q", &["1", "2", "3"]);
    let first = client.one();
    let key = browser.subscribe("queue://q").browse().ok();
    let lines = browser.lines();
    client.send_all("queue://q", &["4"]);
    let shown: Vec<&str> = lines
        .iter()
        .filter_map(|line| if let Line::Message(got) = line { Some(got.body.as_str()) } else { None })
        .collect();
    assert_eq!(shown, ["1", "2", "3"]);
    assert_eq!((&lines[0], lines.last()), (&Line::Reply(key), Some(&Line::End(key))));
    assert!(browser.lines().is_empty());
    client.ack(&first);
    assert_eq!(client.bodies(), ["2"]);
    assert_eq!(world.depth("queue://q"), 3);
    // An empty one ends at once, and so does one that selects nothing.
    for (queue, selector) in [("queue://none", ""), ("queue://q", "colour = 'red'")] {
        let key = browser.subscribe(queue).selector(selector).browse().ok();
        assert_eq!(browser.lines(), [Line::Reply(key), Line::End(key)]);
    }
}

#[test]
fn a_browser_that_reads_slowly_goes_on_where_it_stopped() {
    let mut setup = Setup::default();
    setup.limits.outbox.bytes_soft = 200;
    let world = setup.open();
    let (mut client, mut browser) = (world.client(), world.client());
    let bodies: Vec<String> = (0..1200).map(|number| number.to_string()).collect();
    client.batch(|client| bodies.iter().for_each(|body| client.send("queue://q", body).ok()));
    browser.block_after(100);
    browser.subscribe("queue://q").browse().ok();
    // Whatever happens on the queue meanwhile costs the browser nothing.
    client.send_all("queue://q", &["x", "y"]);
    let mut seen = Vec::new();
    for _ in 0..10_000 {
        browser.block_after(1000);
        let lines = browser.lines();
        let ended = matches!(lines.last(), Some(Line::End(_)));
        seen.extend(
            lines
                .into_iter()
                .filter_map(|line| if let Line::Message(got) = line { Some(got.body) } else { None }),
        );
        if ended {
            break;
        }
    }
    assert_eq!(seen, bodies);
}

#[test]
fn a_full_outbox_stops_the_queue_and_not_the_other_consumers() {
    let mut setup = Setup::default();
    setup.limits.outbox.bytes_soft = 100;
    let world = setup.open();
    let (mut producer, mut stuck, mut free) = (world.client(), world.client(), world.client());
    stuck.subscribe("queue://q").ok();
    stuck.block_after(0);
    free.subscribe("queue://q").ok();
    let bodies: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    bodies.iter().for_each(|body| producer.send("queue://q", body).ok());
    let free_got = free.bodies();
    assert!(free_got.len() > 15, "{free_got:?}");
    stuck.unblock();
    let mut all = [free_got, stuck.bodies()].concat();
    all.sort_unstable_by_key(|body| body.parse::<u32>().unwrap());
    assert_eq!(all, bodies);
    producer.send_all("queue://q", &["a", "b"]);
    assert_eq!((stuck.bodies().len(), free.bodies().len()), (1, 1));
}

#[test]
fn a_window_of_the_protocols_own_opens_with_a_settlement() {
    let world = World::new();
    let mut client = world.client();
    client.wire.lock().window = Some(1);
    client.subscribe("queue://q").ok();
    client.send_all("queue://q", &["1", "2"]);
    let got = client.one();
    assert_eq!(got.body, "1");
    client.ack(&got);
    assert_eq!(facts(&client.drain()), [("2", 1, false)]);
}

#[test]
fn unsubscribing_returns_what_is_unsettled_and_ends_the_deliveries() {
    let world = World::new();
    let (mut client, mut other) = (world.client(), world.client());
    let key = client.subscribe("queue://q").ok();
    client.send_all("queue://q", &["1"]);
    let got = client.one();
    client.unsubscribe(key);
    assert_eq!(super::harness::refusal(client.try_unsubscribe(key, false)), Code::UnknownSubscription);
    client.send_all("queue://q", &["2"]);
    client.ack(&got);
    assert!(client.settle_refused());
    assert!(client.drain().is_empty());
    other.subscribe("queue://q").ok();
    assert_eq!(facts(&other.drain()), [("1", 2, true), ("2", 1, false)]);
}

#[test]
fn what_is_on_its_way_when_a_subscription_ends_is_settled_by_the_socket_or_marked_when_it_returns() {
    for (auto, vanishes) in [(true, false), (true, true), (false, false)] {
        let world = World::new();
        let (mut producer, mut client, mut other) = (world.client(), world.client(), world.client());
        let subscription = client.subscribe("queue://q");
        let key = if auto { subscription.auto().ok() } else { subscription.ok() };
        client.lines();
        client.block_after(0);
        producer.send("queue://q", "1").persistent().ok();
        client.unsubscribe(key);
        other.subscribe("queue://q").ok();
        // A new consumer in the place of the old one has nothing to do with its deliveries.
        let early = other.drain();
        match (auto, vanishes) {
            (true, false) => {
                assert!(early.is_empty(), "its bytes cannot be called back");
                client.unblock();
                assert_eq!(client.bodies(), ["1"]);
                assert_eq!((world.depth("queue://q"), world.memory()), (0, 0));
            }
            (true, true) => {
                assert!(early.is_empty());
                client.vanish();
                assert_eq!(facts(&other.drain()), [("1", 1, false)], "it never left");
            }
            _ => assert_eq!(facts(&early), [("1", 2, true)], "the client may see it yet"),
        }
    }
}

#[test]
fn a_subscription_over_several_queues_shares_its_credit_fairly() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://a,queue://b,queue://c").credit(1).ok();
    for queue in ["a", "b", "c"] {
        for number in 0..3 {
            producer.send(&format!("queue://{queue}"), &format!("{queue}{number}")).ok();
        }
    }
    let mut order = Vec::new();
    loop {
        let got = consumer.drain();
        let [one] = got.as_slice() else { break };
        order.push(one.body.clone());
        consumer.ack(one);
    }
    assert_eq!(order.len(), 9);
    assert!(order.iter().take(4).any(|body| body.starts_with('b')), "{order:?}");
    assert!(order.iter().take(4).any(|body| body.starts_with('c')), "{order:?}");
    assert_eq!(world.memory(), 0);
}

#[test]
fn messages_of_every_size_arrive_whole() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").auto().ok();
    client.lines();
    for size in [0, 1, 1023, 1024, 16 * 1024, 12 << 20] {
        let body = "x".repeat(size);
        client.block_after(10);
        client.send("queue://q", &body).persistent().ok();
        assert!(client.host().overrun().is_none(), "a large message is no slow reader");
        client.unblock();
        assert_eq!(client.one().body.len(), size);
    }
    assert_eq!((world.depth("queue://q"), world.memory()), (0, 0));
}

#[test]
fn a_deleted_queue_tells_its_consumers_and_browsers() {
    let world = World::new();
    let (mut producer, mut client) = (world.client(), world.client());
    producer.send_all("queue://q", &["1"]);
    let key = client.subscribe("queue://q").ok();
    let got = client.one();
    world.broker.remove_queue("/", "q", Default::default()).unwrap();
    client.pump();
    assert!(
        matches!(client.events.as_slice(), [sabir_model::event::Event::SubscriptionEnded { key: ended, .. }] if ended.0 == key)
    );
    client.events.clear();
    client.ack(&got);
    assert!(client.settle_refused());
    // Sending there makes a new one; whoever sent before finds it.
    producer.send_all("queue://q", &["2"]);
    assert_eq!(world.depth("queue://q"), 1);
    client.subscribe("queue://q").ok();
    assert_eq!(client.bodies(), ["2"]);
}

pub(super) fn bodies(got: &[Got]) -> Vec<&str> {
    got.iter().map(|got| got.body.as_str()).collect()
}

pub(super) fn facts(got: &[Got]) -> Vec<(&str, u32, bool)> {
    got.iter().map(|got| (got.body.as_str(), got.attempt, got.redelivered)).collect()
}

#[test]
fn leaving_in_good_order_settles_what_was_acknowledged_in_the_last_batch() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send_all("queue://q", &["1"]);
    let got = client.one();
    client.host().settle_unflushed(&got);
    client.close();
    assert_eq!(world.depth("queue://q"), 0);
}

trait SettleUnflushed {
    fn settle_unflushed(&mut self, got: &Got);
}

impl SettleUnflushed for crate::Connection {
    fn settle_unflushed(&mut self, got: &Got) {
        use sabir_model::session::Host;
        self.settle(Client::wire_ack(got, Settlement::Accepted, None));
    }
}
