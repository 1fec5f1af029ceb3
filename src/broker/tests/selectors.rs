//! Selectors on queues and topics.

use sabir_model::error::Code;

use super::harness::{Client, Setup, World};

fn coloured(client: &mut Client, to: &str, colours: &[&str]) {
    for (index, colour) in colours.iter().enumerate() {
        client.send(to, &format!("{index}{colour}")).property("colour", colour).ok();
    }
}

#[test]
fn each_consumer_gets_what_its_selector_matches_and_nobody_holds_anybody_up() {
    let world = World::new();
    let (mut producer, mut red, mut blue) = (world.client(), world.client(), world.client());
    coloured(&mut producer, "queue://q", &["green", "red", "blue", "red", "green"]);
    red.subscribe("queue://q").selector("colour = 'red'").credit(1).ok();
    blue.subscribe("queue://q").selector("colour = 'blue'").ok();
    let first = red.one();
    assert_eq!(first.body, "1red");
    assert_eq!(blue.bodies(), ["2blue"]);
    red.ack(&first);
    assert_eq!(red.bodies(), ["3red"]);
    // A matching message behind a backlog of others is found at once.
    coloured(&mut producer, "queue://q", &["blue"]);
    assert_eq!(blue.bodies(), ["0blue"]);
    // Whoever wants everything gets the rest, in order.
    let mut any = world.client();
    any.subscribe("queue://q").ok();
    assert_eq!(any.bodies(), ["0green", "4green"]);
}

#[test]
fn what_comes_back_is_offered_to_selecting_consumers_again() {
    let world = World::new();
    let (mut producer, mut a, mut b) = (world.client(), world.client(), world.client());
    a.subscribe("queue://q").selector("colour = 'red'").credit(1).ok();
    coloured(&mut producer, "queue://q", &["green", "red", "green", "red"]);
    let key = b.subscribe("queue://q").selector("colour LIKE '%'").ok();
    assert_eq!(a.bodies(), ["1red"]);
    assert_eq!(b.bodies(), ["0green", "2green", "3red"]);
    b.unsubscribe(key);
    assert_eq!(world.queue("queue://q").unwrap().ready, 3);
    let mut green = world.client();
    green.subscribe("queue://q").selector("colour = 'green' AND JMSXDeliveryCount > 1").ok();
    assert_eq!(green.bodies(), ["0green", "2green"]);
}

#[test]
fn what_comes_back_before_the_place_a_consumer_has_looked_at_is_offered_to_it() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").selector("colour = 'red'").ok();
    coloured(&mut client, "queue://q", &["red", "green"]);
    let got = client.one();
    client.settle(&got, sabir_model::settlement::Settlement::Failed);
    assert_eq!(client.bodies(), ["0red"]);
    // An answer may change with the attempt.
    let (mut fresh, mut again) = (world.client(), world.client());
    fresh.subscribe("queue://r").selector("JMSRedelivered = FALSE").ok();
    again.subscribe("queue://r").selector("JMSXDeliveryCount = 2").priority(1).ok();
    coloured(&mut client, "queue://r", &["red", "green"]);
    let got = fresh.drain();
    fresh.settle(&got[0], sabir_model::settlement::Settlement::Failed);
    assert_eq!(again.bodies(), ["0red"]);
}

#[test]
fn a_selecting_consumer_without_room_leaves_the_message_to_the_next() {
    let mut setup = Setup::default();
    setup.limits.outbox.bytes_soft = 50;
    let world = setup.open();
    let (mut producer, mut stuck, mut free) = (world.client(), world.client(), world.client());
    stuck.subscribe("queue://q").selector("colour = 'red'").ok();
    stuck.block_after(0);
    coloured(&mut producer, "queue://q", &["red"]);
    free.subscribe("queue://q").selector("colour = 'red'").ok();
    producer.batch(|producer| coloured(producer, "queue://q", &["red", "red", "red"]));
    assert_eq!(free.bodies().len() as u64 + world.queue("queue://q").unwrap().ready, 3);
    assert_eq!(world.queue("queue://q").unwrap().ready, 0, "nothing waits while somebody is free");
}

#[test]
fn a_long_backlog_that_matches_nothing_is_looked_at_once_and_in_portions() {
    // In memory, whatever the environment says of other tests.
    let mut setup = Setup::default();
    setup.limits.queue_memory_bytes_max = 64 << 20;
    let world = setup.open();
    let (mut producer, mut consumer) = (world.client(), world.client());
    producer.batch(|producer| {
        for _ in 0..40_000 {
            producer.send("queue://q", "x").ok();
        }
        producer.send("queue://q", "y").property("colour", "red").ok();
    });
    consumer.subscribe("queue://q").selector("colour = 'red'").ok();
    assert_eq!(consumer.bodies(), ["y"]);
    producer.send("queue://q", "z").property("colour", "red").ok();
    assert_eq!(consumer.bodies(), ["z"]);
}

#[test]
fn a_selector_applies_to_live_acknowledged_and_durable_topic_subscriptions() {
    let world = World::new();
    let mut producer = world.client();
    let mut client = world.named("c");
    for kind in 0..3 {
        let subscription = client.subscribe("topic://t").selector("colour = 'red'");
        let key = match kind {
            0 => subscription.auto().ok(),
            1 => subscription.ok(),
            _ => subscription.durable("d").ok(),
        };
        coloured(&mut producer, "topic://t", &["green", "red"]);
        assert_eq!(client.bodies(), ["1red"], "{kind}");
        client.unsubscribe(key);
    }
}

#[test]
fn a_selector_that_does_not_parse_is_refused() {
    let world = World::new();
    let mut client = world.client();
    assert_eq!(client.subscribe("queue://q").selector("colour =").refused(), Code::InvalidSelector);
    client.subscribe("queue://q").selector("  ").ok();
}
