//! What an operator changes, and that it stays changed over a restart and a loss of power.

use std::time::Duration;

use sabir_model::destination::Kind;
use sabir_model::error::Code;
use sabir_model::event::Event;
use sabir_model::pattern::Pattern;

use super::harness::{Setup, World};
use crate::Policy;
use crate::manage::Deletion;

impl World {
    fn declare(&self, name: &str) -> bool {
        let made = self.broker.declare_queue("/", name).unwrap();
        self.broker.store().sync();
        assert!(self.broker.is_kept(made.promise));
        made.new
    }

    fn pause(&self, name: &str, paused: bool) {
        let promise = self.broker.pause_queue("/", name, paused).unwrap();
        self.broker.store().sync();
        assert!(self.broker.is_kept(promise));
    }

    fn remove(&self, name: &str, deletion: Deletion) -> Result<(), Code> {
        let promise = self.broker.remove_queue("/", name, deletion).map_err(|refusal| refusal.code)?;
        self.broker.store().sync();
        assert!(self.broker.is_kept(promise));
        Ok(())
    }
}

const AT_ONCE: Deletion = Deletion { if_empty: false, if_unused: false };

#[test]
fn a_declared_queue_stays_although_nobody_uses_it_and_over_a_crash() {
    let policy = Policy { gc_after: Some(Duration::from_secs(1)), ..Policy::default() };
    let mut world = Setup::default().policy("queue://>", policy).open();
    world.client().send_all("passing", &["1"]);
    world.broker.purge_queue("/", "passing").unwrap();
    assert!(world.declare("kept"));
    assert!(!world.declare("kept"));
    for crash in [false, true] {
        world.pass(Duration::from_secs(5));
        assert!(world.queue("queue://passing").is_none(), "nobody declared it");
        assert!(world.broker.queue_detail("/", "kept").unwrap().entry.declared);
        world = if crash { world.crash() } else { world.restart() };
    }
    assert!(world.broker.queue_detail("/", "kept").unwrap().entry.declared);
    // One that was there is kept from then on; one that was deleted is none any more.
    assert_eq!(world.remove("kept", AT_ONCE), Ok(()));
    let world = world.crash();
    assert!(world.queue("queue://kept").is_none());
    world.client().send_all("kept", &["1"]);
    assert!(!world.broker.queue_detail("/", "kept").unwrap().entry.declared);
    assert!(!world.declare("kept"));
    assert_eq!(world.broker.declare_queue("/", "").unwrap_err().code, Code::InvalidDestination);
    assert_eq!(world.broker.declare_queue("nowhere", "q").unwrap_err().code, Code::UnknownDestination);
}

#[test]
fn a_queue_is_deleted_if_empty_or_if_unused_where_that_is_asked() {
    let world = World::new();
    let mut client = world.client();
    client.send("q", "1").persistent().ok();
    let if_empty = Deletion { if_empty: true, ..AT_ONCE };
    let if_unused = Deletion { if_unused: true, ..AT_ONCE };
    assert_eq!(world.remove("q", if_empty), Err(Code::Conflict));
    let key = client.subscribe("q").ok();
    assert_eq!(world.remove("q", if_unused), Err(Code::Conflict));
    let got = client.one();
    assert_eq!(world.remove("q", if_empty), Err(Code::Conflict), "a consumer holds a message");
    client.ack(&got);
    assert_eq!(world.remove("q", if_empty), Ok(()));
    client.pump();
    let ended =
        |event: &Event| matches!(event, Event::SubscriptionEnded { key: ended, .. } if ended.0 == key);
    assert!(client.events.iter().any(ended), "{:?}", client.events);
    assert_eq!(world.remove("q", AT_ONCE), Err(Code::UnknownDestination));
    client.close();
    assert!(world.crash().queue("queue://q").is_none());
}

#[test]
fn what_belongs_to_a_client_session_is_not_deleted_by_itself_and_a_durable_subscription_goes_with_its_queue()
{
    let world = World::new();
    let mut device = world.device("d", super::device::Coming::for_ms(1_000_000));
    device.bind("t").ok();
    assert_eq!(world.remove("session://d", AT_ONCE), Err(Code::Conflict));
    let mut client = world.named("c");
    client.subscribe("topic://t").durable("s").ok();
    client.send("topic://t", "1").persistent().ok();
    assert_eq!(world.remove("durable://c:s", AT_ONCE), Ok(()));
    client.pump();
    assert!(client.events.iter().any(|event| matches!(event, Event::SubscriptionEnded { .. })));
    assert!(world.broker.durable("/", "c", "s").is_none());
    // Whoever published before meets nothing that is half gone.
    client.send("topic://t", "2").persistent().ok();
    client.subscribe("topic://t").durable("s").ok();
    client.send("topic://t", "3").persistent().ok();
    assert_eq!(client.bodies().last().map(String::as_str), Some("3"));
}

#[test]
fn a_purge_removes_what_is_ready_for_good_and_leaves_consumers_what_they_hold() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("q").credit(2).ok();
    client.batch(|client| {
        for n in 0..2500 {
            client.send("q", &n.to_string()).persistent().priority(n as u8 % 10).ok();
        }
    });
    let got = client.drain();
    assert_eq!(got.len(), 2);
    let (removed, promise) = world.broker.purge_queue("/", "q").unwrap();
    assert_eq!(removed, 2498);
    world.broker.store().sync();
    assert!(world.broker.is_kept(promise));
    assert_eq!(world.depth("queue://q"), 2);
    client.send("q", "later").persistent().ok();
    client.ack(&got[0]);
    client.synced();
    client.vanish();
    let world = world.crash();
    let left = world.browse("queue://q");
    assert_eq!(left, [got[1].body.as_str(), "later"]);
    assert_eq!(world.broker.purge_queue("/", "q").unwrap().0, 2);
    assert_eq!(world.memory(), 0);
    assert_eq!(world.broker.purge_queue("/", "q").unwrap().0, 0);
    assert!(world.broker.purge_queue("/", "nothing").is_err());
}

#[test]
fn a_purge_of_a_prioritized_queue_reaches_every_priority() {
    let policy = Policy { prioritized: true, ..Policy::default() };
    let world = Setup::default().policy("queue://>", policy).open();
    let mut client = world.client();
    for priority in 0..10 {
        client.send("q", "x").priority(priority).ok();
    }
    assert_eq!(world.broker.purge_queue("/", "q").unwrap().0, 10);
    assert_eq!((world.depth("queue://q"), world.memory()), (0, 0));
}

#[test]
fn a_paused_queue_takes_sends_and_hands_nothing_out_until_it_is_resumed_whatever_happens_meanwhile() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("q").credit(10).ok();
    client.send("q", "1").persistent().ok();
    let first = client.one();
    world.pause("q", true);
    client.send("q", "2").persistent().ok();
    client.ack(&first);
    let mut late = world.client();
    late.subscribe("q").ok();
    assert_eq!((client.bodies().len(), late.bodies().len()), (0, 0));
    assert!(world.queue("queue://q").unwrap().paused);
    client.synced();
    client.vanish();
    late.vanish();
    let world = world.crash();
    let mut client = world.client();
    client.subscribe("q").ok();
    client.send("q", "3").persistent().ok();
    assert!(client.bodies().is_empty());
    world.pause("q", false);
    client.pump();
    assert_eq!(client.bodies(), ["2", "3"]);
    client.synced();
    client.vanish();
    assert!(!world.restart().queue("queue://q").unwrap().paused);
}

#[test]
fn credit_that_queues_share_goes_past_one_that_is_paused() {
    let world = World::new();
    let mut client = world.client();
    client.send_all("w.1", &["a"]);
    client.send_all("w.2", &["b", "c"]);
    world.pause("w.1", true);
    client.subscribe("w.*").credit(1).ok();
    for wanted in ["b", "c"] {
        let got = client.one();
        assert_eq!(got.body, wanted);
        client.ack(&got);
    }
    world.pause("w.1", false);
    client.pump();
    assert_eq!(client.bodies(), ["a"]);
}

#[test]
fn a_durable_subscription_is_made_before_anybody_consumes_it() {
    let world = World::new();
    let topic = |text: &str| Pattern::parse_qualified(text, Kind::Topic).unwrap();
    let declare = |world: &World, to: &str, selector| {
        let made = world.broker.declare_durable("/", ("c", "s"), &topic(to), selector)?;
        world.broker.store().sync();
        assert!(made.promise.is_none_or(|promise| world.broker.is_kept(promise)));
        Ok::<_, sabir_model::error::Refusal>(made.new)
    };
    assert!(declare(&world, "a.*", Some("n > 1")).unwrap());
    assert!(!declare(&world, "a.*", Some(" n > 1 ")).unwrap());
    world.client().send("topic://a.b", "kept").persistent().property("n", "2").ok();
    world.client().send("topic://a.b", "not wanted").persistent().property("n", "1").ok();
    world.broker.store().sync();
    let world = world.crash();
    let mut client = world.named("c");
    let key = client.subscribe("topic://a.*").selector("n > 1").durable("s").ok();
    assert_eq!(client.bodies(), ["kept"]);
    assert!(!declare(&world, "a.*", Some("n > 1")).unwrap(), "nothing changes under its consumer");
    assert_eq!(declare(&world, "b", None).unwrap_err().code, Code::SubscriptionInUse);
    assert_eq!(world.broker.forget_durable("/", "c", "s").unwrap_err().code, Code::SubscriptionInUse);
    client.unsubscribe(key);
    assert!(declare(&world, "b", None).unwrap());
    assert_eq!(world.depth("durable://c:s"), 0, "it has begun anew");
    let promise = world.broker.forget_durable("/", "c", "s").unwrap();
    world.broker.store().sync();
    assert!(world.broker.is_kept(promise));
    assert_eq!(world.broker.forget_durable("/", "c", "s").unwrap_err().code, Code::UnknownSubscription);
    client.close();
    let world = world.crash();
    assert!(world.broker.durable("/", "c", "s").is_none());
    let refused = |key, to| world.broker.declare_durable("/", key, &topic(to), None).unwrap_err().code;
    assert_eq!(refused(("", "s"), "a"), Code::InvalidClientId);
    assert_eq!(refused(("c", "s"), "queue://a"), Code::InvalidDestination);
}

#[test]
fn a_topic_forgets_its_last_value_for_good() {
    let world = World::new();
    let mut client = world.client();
    client.send("topic://t", "last").retained().persistent().ok();
    client.synced();
    let promise = world.broker.clear_retained("/", "t").unwrap();
    world.broker.store().sync();
    assert!(world.broker.is_kept(promise));
    assert_eq!((world.stats().retained, world.memory()), (0, 0));
    assert_eq!(world.broker.clear_retained("/", "t").unwrap_err().code, Code::UnknownDestination);
    client.close();
    let world = world.crash();
    assert_eq!(world.stats().retained, 0);
}
