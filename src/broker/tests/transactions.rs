//! Transactions: nothing before the commit, all of it or nothing.

use sabir_model::access::Action;
use sabir_model::command::{Command, Outcome};
use sabir_model::error::Code;
use sabir_model::ids::TransactionKey;

use super::harness::{Setup, World, refusal};
use super::queues::facts;
use crate::Policy;

#[test]
fn nothing_is_seen_before_the_commit_and_everything_after_it() {
    let world = World::new();
    let (mut producer, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://a,queue://b").ok();
    consumer.subscribe("topic://t").auto().ok();
    let tx = producer.begin();
    for (index, to) in ["queue://a", "topic://t", "queue://b"].into_iter().enumerate() {
        producer.send(to, &index.to_string()).in_transaction(tx).persistent().ok();
    }
    assert!(consumer.drain().is_empty());
    assert!(matches!(producer.commit(tx), Outcome::Accepted(Some(_))));
    let mut got = consumer.bodies();
    got.sort_unstable();
    assert_eq!(got, ["0", "1", "2"]);
    assert_eq!((world.stats().transactions_committed, world.stats().published), (1, 3));
}

#[test]
fn an_aborted_transaction_leaves_no_trace() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send("queue://q", "1").ok();
    let got = client.one();
    let tx = client.begin();
    client.send("queue://q", "2").in_transaction(tx).ok();
    client.ack_in(tx, &got);
    client.abort(tx);
    assert!(client.drain().is_empty());
    assert_eq!(world.depth("queue://q"), 1, "still with the client");
    client.ack(&got);
    assert!(!client.settle_refused());
    assert_eq!((world.depth("queue://q"), world.memory()), (0, 0));
}

#[test]
fn acknowledgements_happen_with_the_commit() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("queue://q").credit(1).ok();
    client.send("queue://q", "1").persistent().ok();
    client.send("queue://q", "2").ok();
    let got = client.one();
    let tx = client.begin();
    client.ack_in(tx, &got);
    assert!(client.drain().is_empty(), "the credit is not free yet");
    // Acknowledged is acknowledged.
    client.ack_in(tx, &got);
    assert!(client.settle_refused());
    client.send("queue://done", "1 was processed").in_transaction(tx).ok();
    assert!(matches!(client.commit(tx), Outcome::Accepted(Some(_))));
    assert_eq!(client.bodies(), ["2"]);
    assert_eq!(world.depth("queue://done"), 1);
}

#[test]
fn a_commit_that_is_refused_does_nothing_at_all() {
    let policy = Policy { messages_max: 1, ..Policy::default() };
    let world = Setup::default().policy("queue://full", policy).open();
    let mut client = world.client();
    client.subscribe("queue://q").ok();
    client.send("queue://q", "1").ok();
    let got = client.one();
    let tx = client.begin();
    client.ack_in(tx, &got);
    client.send("queue://other", "2").in_transaction(tx).ok();
    client.send("queue://full", "3").in_transaction(tx).ok();
    client.send("queue://full", "4").in_transaction(tx).ok();
    assert_eq!(refusal(client.commit(tx)), Code::DestinationFull);
    assert_eq!((world.depth("queue://other"), world.depth("queue://full")), (0, 0));
    client.ack(&got);
    assert!(!client.settle_refused(), "it is in the client's hands again");
    assert_eq!(world.stats().transactions_aborted, 1);
    // A permission withdrawn between send and commit.
    let tx = client.begin();
    client.send("queue://a", "5").in_transaction(tx).ok();
    client.send("queue://b", "6").in_transaction(tx).ok();
    world.access.deny(Action::Send, "queue://b");
    assert_eq!(refusal(client.commit(tx)), Code::AccessDenied);
    assert_eq!(world.depth("queue://a"), 0);
}

#[test]
fn a_connection_that_vanishes_aborts_its_transactions() {
    for clean in [true, false] {
        let world = World::new();
        let mut client = world.client();
        client.subscribe("queue://q").ok();
        client.send("queue://q", "1").ok();
        let got = client.one();
        let tx = client.begin();
        client.ack_in(tx, &got);
        client.send("queue://q", "2").in_transaction(tx).ok();
        if clean {
            client.close()
        } else {
            client.vanish()
        }
        let mut next = world.client();
        next.subscribe("queue://q").ok();
        assert_eq!(facts(&next.drain()), [("1", 2, true)]);
        assert_eq!(world.stats().transactions_aborted, 1);
    }
}

#[test]
fn transactions_are_named_once_and_must_be_open() {
    let world = World::new();
    let mut client = world.client();
    let tx = client.begin();
    assert_eq!(refusal(client.ask(Command::Begin(TransactionKey(tx)))), Code::DuplicateTransaction);
    assert_eq!(client.commit(tx), Outcome::Accepted(None));
    assert_eq!(refusal(client.commit(tx)), Code::UnknownTransaction);
    assert_eq!(refusal(client.ask(Command::Abort(TransactionKey(9)))), Code::UnknownTransaction);
    assert_eq!(client.send("queue://q", "1").in_transaction(9).refused(), Code::UnknownTransaction);
    assert_eq!(client.send("temp-queue://gone", "1").in_transaction(tx).refused(), Code::UnknownDestination);
}

#[test]
fn a_transaction_is_bounded_and_a_refused_send_does_not_count() {
    let mut setup = Setup::default();
    setup.limits.transaction_bytes_max = 10;
    setup.limits.transaction_items_max = 3;
    let world = setup.open();
    let mut client = world.client();
    let tx = client.begin();
    client.send("queue://q", "12345").in_transaction(tx).ok();
    assert_eq!(client.send("queue://q", "1234567890").in_transaction(tx).refused(), Code::LimitReached);
    client.send("queue://q", "12").in_transaction(tx).ok();
    client.send("queue://q", "3").in_transaction(tx).ok();
    assert_eq!(client.send("queue://q", "4").in_transaction(tx).refused(), Code::LimitReached);
    assert!(matches!(client.commit(tx), Outcome::Accepted(None)));
    assert_eq!(world.depth("queue://q"), 3);
}

#[test]
fn messages_take_their_place_when_the_transaction_commits() {
    let world = World::new();
    let (mut a, mut b) = (world.client(), world.client());
    let tx = a.begin();
    a.send("queue://q", "1").in_transaction(tx).ok();
    a.send("queue://q", "2").in_transaction(tx).ok();
    b.send("queue://q", "between").ok();
    a.commit(tx);
    assert_eq!(world.browse("queue://q"), ["between", "1", "2"]);
}
