//! Limits, receipts, drain.

use sabir_model::command::{Command, Outcome, ReceiptTime};
use sabir_model::error::Code;
use sabir_model::event::Event;
use sabir_model::ids::SubscriptionKey;
use sabir_model::session::Host;

use super::harness::{Client, Setup, World, refusal};
use crate::Policy;

#[test]
fn a_full_queue_refuses_by_messages_and_by_bytes_until_there_is_room() {
    for policy in
        [Policy { messages_max: 2, ..Policy::default() }, Policy { bytes_max: 2600, ..Policy::default() }]
    {
        let world = Setup::default().policy("queue://q", policy).open();
        let mut client = world.client();
        let body = "x".repeat(1000);
        client.send("queue://q", &body).ok();
        client.send("queue://q", &body).persistent().ok();
        assert_eq!(client.send("queue://q", &body).refused(), Code::DestinationFull);
        assert_eq!(client.send("queue://q", &body).persistent().refused(), Code::DestinationFull);
        client.subscribe("queue://q").ok();
        assert_eq!(client.send("queue://q", &body).refused(), Code::DestinationFull, "unsettled ones count");
        for got in client.drain() {
            client.ack(&got);
        }
        client.send("queue://q", &body).ok();
    }
}

#[test]
fn when_memory_is_used_up_sends_are_refused_and_settlements_are_not() {
    let mut setup = Setup::default();
    setup.limits.memory_bytes_max = 5000;
    let world = setup.open();
    let (mut producer, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://q").ok();
    let body = "x".repeat(1000);
    while producer.send("queue://q", &body).outcome_is_accepted() {}
    assert!((2500..5000).contains(&world.memory()), "{}", world.memory());
    for to in ["queue://q", "queue://q,queue://other"] {
        assert_eq!(producer.send(to, &body).refused(), Code::MemoryFull);
    }
    let mut got = consumer.drain();
    let tx = consumer.begin();
    consumer.ack_in(tx, &got.pop().unwrap());
    assert!(matches!(consumer.commit(tx), Outcome::Accepted(_)), "what makes room is not refused");
    producer.send("queue://q", "1").ok();
    consumer.ack_all(&got);
    let got = consumer.drain();
    consumer.ack_all(&got);
    assert_eq!(world.memory(), 0);
}

#[test]
fn queues_connections_and_temporaries_are_bounded() {
    let mut setup = Setup::default();
    setup.limits.destinations_max = 2;
    setup.limits.connections_max = 2;
    setup.limits.temporaries_max = 1;
    let world = setup.open();
    let (mut a, b) = (world.client(), world.client());
    let refused = world.client_as(&sabir_model::command::Open::default()).err().unwrap();
    assert_eq!(refused.code, Code::LimitReached);
    b.close();
    let _b = world.client();
    a.send("queue://1", "x").ok();
    a.temporary(sabir_model::destination::Kind::Topic, "t");
    let more = a.host().temporary(sabir_model::destination::Kind::Topic, "u");
    assert_eq!(more.unwrap_err().code, Code::LimitReached);
    a.send("queue://2", "x").ok();
    assert_eq!(a.send("queue://3", "x").refused(), Code::LimitReached);
    assert_eq!(a.subscribe("topic://t").refused(), Code::LimitReached, "a window is a queue too");
    assert_eq!(a.subscribe("queue://3").refused(), Code::LimitReached);
    a.send("topic://t", "x").ok();
    a.subscribe("topic://t").auto().ok();
}

#[test]
fn receipts_leave_in_the_order_they_were_asked_for() {
    let world = World::new();
    let mut client = world.client();
    // Nothing to wait for.
    let promise = client.send("queue://q", "0").promise();
    assert_eq!((promise, client.host().receipt(promise)), (None, ReceiptTime::Now));
    let promise = client.send("topic://t", "to no durable queue").persistent().promise();
    assert_eq!((promise, client.host().receipt(promise)), (None, ReceiptTime::Now));
    client.batch(|client| {
        for (body, persistent) in [("1", true), ("2", false), ("3", true), ("4", false)] {
            let send = client.send("queue://q", body);
            let promise = if persistent { send.persistent().promise() } else { send.promise() };
            assert_eq!(promise.is_some(), persistent);
            assert_eq!(client.host().receipt(promise), ReceiptTime::Later, "{body}");
        }
    });
    client.pump();
    assert!(client.events.is_empty(), "nothing is on disk yet");
    client.synced();
    assert_eq!(client.events, [Event::Receipts(4)]);
    let promise = client.send("queue://q", "5").promise();
    assert_eq!(client.host().receipt(promise), ReceiptTime::Now);
}

#[test]
fn a_receipt_for_an_acknowledgement_waits_for_the_acknowledgement() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send("queue://q", "1").persistent().ok();
    client.synced();
    let got = client.one();
    let outcome = client.ack_now(&got);
    let Outcome::Accepted(Some(promise)) = outcome else { panic!("{outcome:?}") };
    assert!(promise.synced);
    assert_eq!(client.host().receipt(Some(promise)), ReceiptTime::Later);
    client.synced();
    assert_eq!(client.events, [Event::Receipts(1)]);
}

#[test]
fn a_broker_that_drains_tells_everybody_and_takes_in_nobody() {
    let world = World::new();
    let mut client = world.client();
    world.broker.drain();
    client.pump();
    assert!(
        matches!(client.events.as_slice(), [Event::Closing(refusal)] if refusal.code == Code::ShuttingDown)
    );
    let refused = world.client_as(&sabir_model::command::Open::default()).err().unwrap();
    assert_eq!(refused.code, Code::ShuttingDown);
    assert!(world.broker.is_ready().is_err());
    client.send("queue://q", "what is under way is still done").ok();
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_is_given_up() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.block_after(0);
    client.send("queue://q", "1").ok();
    assert!(client.try_flush().is_pending());
    world.clock.advance(std::time::Duration::from_secs(29));
    assert!(client.host().overrun().is_none());
    world.clock.advance(std::time::Duration::from_secs(2));
    assert_eq!(client.host().overrun().unwrap().code, Code::SlowConsumer);
    client.unblock();
    assert!(client.host().overrun().is_none());
}

#[test]
fn one_blocked_reader_does_not_keep_its_connections_work_from_others() {
    let mut setup = Setup::default();
    setup.limits.outbox.bytes_soft = 10;
    let world = setup.open();
    let (mut both, mut other) = (world.client(), world.client());
    both.subscribe("topic://t").auto().ok();
    other.subscribe("queue://q").auto().credit(1).ok();
    both.block_after(0);
    // More rounds of dispatch and flush than one batch does.
    both.batch(|both| {
        both.send("topic://t", "stuck").ok();
        for _ in 0..100 {
            both.send("queue://q", "x").ok();
        }
    });
    both.run();
    assert_eq!(other.bodies().len(), 100);
}

#[test]
fn a_consumer_pauses_goes_on_and_takes_more_as_its_credit_is_changed() {
    for (to, queues) in
        [("queue://q", &["queue://q"][..]), ("queue://a,queue://b", &["queue://a", "queue://b"])]
    {
        let world = World::new();
        let (mut producer, mut consumer) = (world.client(), world.client());
        let key = SubscriptionKey(consumer.subscribe(to).credit(1).ok());
        for number in 0..6 {
            producer.send(queues[number % queues.len()], "x").ok();
        }
        let change = |consumer: &mut Client, limit| {
            assert_eq!(consumer.ask(Command::Credit { key, limit }), Outcome::Accepted(None));
            consumer.drain()
        };
        let first = consumer.drain();
        assert_eq!(first.len(), 1);
        let more = change(&mut consumer, 3);
        assert_eq!(more.len(), 2, "{to}: two more");
        assert!(change(&mut consumer, 0).is_empty());
        consumer.ack_all(&first);
        consumer.ack_all(&more);
        assert!(consumer.drain().is_empty(), "{to}: it pauses, whatever is acknowledged");
        let rest = change(&mut consumer, 10);
        assert_eq!(rest.len(), 3, "{to}: all that is left");
        consumer.ack_all(&rest);
        assert_eq!(world.memory(), 0);
    }
}

#[test]
fn credit_is_only_where_somebody_counts() {
    let world = World::new();
    let mut client = world.client();
    let live = SubscriptionKey(client.subscribe("topic://t").auto().ok());
    assert_eq!(refusal(client.ask(Command::Credit { key: live, limit: 5 })), Code::Unsupported);
    let none = SubscriptionKey(77);
    assert_eq!(refusal(client.ask(Command::Credit { key: none, limit: 5 })), Code::UnknownSubscription);
}
