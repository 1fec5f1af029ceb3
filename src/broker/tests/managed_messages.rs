//! What management sees of messages and does with them.

use sabir_model::access::{Action, Principal, Remote};
use sabir_model::destination::{Destination, Kind};
use sabir_model::error::{Code, Refusal};
use sabir_model::headers::ValueRef;
use sabir_model::message::{Field, Tag};
use sabir_model::selector::Selector;
use sabir_model::settlement::Settlement;
use sabir_store::Level;
use sabir_store::fault_fs::Survival;

use super::fake::text_of;
use super::harness::{Setup, World};
use crate::manage::{Chosen, Deed, Edited, Errand, MessageListing, MessagePage, Step, Tally, Text};
use crate::{CompositeRule, Forward, Policy, Rules};

pub(super) const DLQ: &str = "ActiveMQ.DLQ";

pub(super) fn who() -> Principal {
    Principal::user("operator", Remote::Local)
}

pub(super) fn to(text: &str) -> Destination {
    Destination::parse_qualified(text, Kind::Queue).unwrap()
}

pub(super) fn matching(selector: &str) -> Chosen {
    Chosen::Matching(Selector::parse(selector).unwrap())
}

pub(super) fn all(after: u64, limit: usize) -> MessageListing {
    MessageListing { after, limit, selector: None, text: None }
}

impl World {
    pub(super) fn errand(
        &self,
        queue: &str,
        deed: Deed,
        chosen: Chosen,
        max: Option<u64>,
    ) -> Result<Errand, Refusal> {
        self.broker.errand("/", queue, &who(), deed, chosen, max)
    }

    /// Runs an errand as far as it goes.
    pub(super) fn carry_on(&self, errand: &mut Errand) -> Step {
        loop {
            match self.broker.step(errand, 256) {
                Step::More => {}
                other => return other,
            }
        }
    }

    pub(super) fn run(&self, queue: &str, deed: Deed, chosen: Chosen) -> Tally {
        let mut errand = self.errand(queue, deed, chosen, None).unwrap();
        assert_eq!(self.carry_on(&mut errand), Step::Done);
        errand.tally
    }

    pub(super) fn page(&self, queue: &str, listing: &MessageListing) -> MessagePage {
        self.broker.list_messages("/", queue, listing).unwrap()
    }

    pub(super) fn held(&self, queue: &str) -> Vec<String> {
        let Ok(page) = self.broker.list_messages("/", queue, &all(0, 100_000)) else { return Vec::new() };
        page.items.iter().map(|entry| text_of(&entry.message)).collect()
    }

    /// Has messages of a queue rejected by a consumer.
    pub(super) fn kill(&self, queue: &str, count: usize) {
        let mut consumer = self.client();
        consumer.subscribe(queue).credit(u32::try_from(count).unwrap()).ok();
        for got in consumer.drain().into_iter().take(count) {
            consumer.settle(&got, Settlement::Rejected);
        }
        consumer.close();
    }
}

#[test]
fn pages_show_every_message_once_in_the_order_of_arrival_ready_or_not() {
    for prioritized in [false, true] {
        let policy = Policy { prioritized, ..Policy::default() };
        let world = Setup::default().policy("queue://q", policy).open();
        let mut client = world.client();
        let mut consumer = world.client();
        client.batch(|client| {
            for n in 0..700_u32 {
                client.send("q", &n.to_string()).priority((n % 10) as u8).ok();
            }
        });
        consumer.subscribe("q").credit(20).ok();
        assert_eq!(consumer.drain().len(), 20);
        for limit in [1, 7, 256, 700, 1000] {
            let mut seen: Vec<String> = Vec::new();
            let mut unsettled = 0;
            let mut after = 0;
            loop {
                let page = world.page("q", &all(after, limit));
                assert!(page.items.len() <= limit);
                assert_eq!(page.total, Some(700));
                unsettled += page.items.iter().filter(|entry| entry.unsettled).count();
                seen.extend(page.items.iter().map(|entry| text_of(&entry.message)));
                match page.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            assert_eq!(seen, (0..700).map(|n| n.to_string()).collect::<Vec<_>>(), "{limit} {prioritized}");
            assert_eq!(unsettled, 20);
        }
    }
}

#[test]
fn selectors_and_text_choose_what_is_shown() {
    let world = World::new();
    let mut client = world.client();
    client.send("q", "The Fox").property("region", "EU").ok();
    client.send("q", "the hen").property("region", "US").ok();
    client.send("q", "nobody").property("animal", "FOX").property("region", "EU").ok();
    let page = |selector: Option<&str>, text: &str| {
        let selector = selector.map(|text| Selector::parse(text).unwrap());
        let page = world.page("q", &MessageListing { selector, text: Text::new(text), ..all(0, 10) });
        assert_eq!(page.next, None);
        let bodies: Vec<String> = page.items.iter().map(|entry| text_of(&entry.message)).collect();
        (bodies.join("|"), page.total)
    };
    assert_eq!(page(None, "fox"), ("The Fox|nobody".into(), None));
    assert_eq!(page(Some("region = 'EU'"), ""), ("The Fox|nobody".into(), None));
    assert_eq!(page(Some("region = 'EU'"), "THE"), ("The Fox".into(), None));
    assert_eq!(page(None, ""), ("The Fox|the hen|nobody".into(), Some(3)));
    assert_eq!(
        world.broker.list_messages("/", "nothing", &all(0, 1)).unwrap_err().code,
        Code::UnknownDestination
    );
}

#[test]
fn a_page_looks_through_so_much_and_says_where_to_go_on() {
    let world = World::new();
    let mut client = world.client();
    let large = "x".repeat(9 << 20);
    for _ in 0..8 {
        client.send("q", &large).ok();
    }
    client.send("q", "needle").ok();
    let mut search = MessageListing { text: Text::new("needle"), ..all(0, 10) };
    let first = world.page("q", &search);
    assert!(first.items.is_empty());
    search.after = first.next.unwrap();
    let second = world.page("q", &search);
    assert_eq!((second.items.len(), second.next), (1, None));
}

#[test]
fn one_message_is_looked_at_and_deleted_unless_a_consumer_has_it() {
    let world = World::new();
    let mut client = world.client();
    let mut consumer = world.client();
    client.send("q", "held").persistent().ok();
    client.send("q", "waiting").persistent().ok();
    consumer.subscribe("q").credit(1).ok();
    let held = consumer.one();
    let (first, second) =
        (world.broker.message("/", "q", 1).unwrap(), world.broker.message("/", "q", 2).unwrap());
    assert_eq!((first.unsettled, text_of(&first.message)), (true, "held".into()));
    assert_eq!((second.unsettled, text_of(&second.message)), (false, "waiting".into()));
    let delete = |sequence| world.broker.delete_message("/", "q", sequence).map_err(|refusal| refusal.code);
    assert_eq!(delete(1), Err(Code::Conflict));
    assert!(delete(2).unwrap().is_some());
    assert_eq!(delete(2), Err(Code::UnknownDelivery));
    assert_eq!(world.broker.message("/", "q", 2).unwrap_err().code, Code::UnknownDelivery);
    consumer.ack(&held);
    assert_eq!((world.depth("queue://q"), world.memory()), (0, 0));
    consumer.synced();
    assert_eq!(world.stats().acknowledged, 1, "what is deleted was not consumed");
    drop((client, consumer));
    assert_eq!(world.crash().depth("queue://q"), 0);
}

#[test]
fn chosen_messages_move_in_their_order_and_those_that_consumers_have_stay() {
    let world = World::new();
    let mut client = world.client();
    let mut consumer = world.client();
    for n in 1..=600_u32 {
        let parity = if n % 2 == 0 { "even" } else { "odd" };
        client.send("q", &n.to_string()).property("parity", parity).persistent().ok();
    }
    consumer.subscribe("q").credit(2).ok();
    let held = consumer.drain();
    let tally = world.run("q", Deed::Move(to("other")), matching("parity = 'even'"));
    assert_eq!((tally.done, tally.unsettled, tally.refused), (299, 1, 0));
    assert_eq!(world.held("other"), (2..=300).map(|n| (2 * n).to_string()).collect::<Vec<_>>());
    let tally = world.run("q", Deed::Move(to("third")), Chosen::Sequences(vec![9, 3, 5, 3, 4, 1, 10_000]));
    assert_eq!((tally.done, tally.unsettled), (3, 1));
    assert_eq!(world.held("third"), ["3", "5", "9"]);
    let moved = world.broker.message("/", "third", 1).unwrap();
    assert_eq!(moved.message.destination().unwrap().to_string(), "queue://third");
    assert_eq!(moved.message.fields().find_text(Tag::OriginalDestination), Some("queue://q"));
    assert_eq!(moved.message.fields().find_property("parity"), Some(ValueRef::Str("odd")));
    assert_eq!(world.stats().acknowledged, 0, "nobody has consumed anything");
    consumer.ack_all(&held);
    let mut errand = world.errand("q", Deed::Move(to("q")), Chosen::All, Some(5)).unwrap();
    assert_eq!(world.carry_on(&mut errand), Step::Done);
    assert_eq!((errand.tally.done, world.depth("queue://q")), (5, 296), "in a circle, and no further");
    drop((client, consumer));
    for queue in ["other", "q", "third"] {
        world.run(queue, Deed::Delete, Chosen::All);
    }
    assert_eq!((world.memory(), world.depth("queue://other")), (0, 0));
}

#[test]
fn a_move_that_has_no_room_stops_there_and_leaves_everything_else() {
    let world =
        Setup::default().policy("queue://small", Policy { messages_max: 3, ..Policy::default() }).open();
    let mut client = world.client();
    client.send_all("q", &["1", "2", "3", "4", "5"]);
    let mut errand = world.errand("q", Deed::Move(to("small")), Chosen::All, None).unwrap();
    let Step::Blocked(refusal) = world.carry_on(&mut errand) else { panic!("{errand:?}") };
    assert_eq!((refusal.code, errand.tally.done), (Code::DestinationFull, 3));
    assert_eq!((world.held("small").join(""), world.held("q").join("")), ("123".into(), "45".into()));
    assert_eq!(world.queue("queue://q").unwrap().unsettled, 0);
    // Once there is room it can go on.
    world.run("small", Deed::Delete, Chosen::All);
    assert_eq!(world.carry_on(&mut errand), Step::Done);
    assert_eq!((world.held("small").join(""), errand.tally.done), ("45".into(), 5));
    assert_eq!(world.broker.message("/", "small", 4).unwrap().attempts, 0, "waiting is no attempt");
}

#[test]
fn what_nobody_receives_and_what_is_not_allowed_stays() {
    let world = World::new();
    let mut client = world.client();
    client.send("q", "1").ok();
    world.access.deny(Action::Send, "queue://forbidden");
    for (target, code) in [("topic://nobody", Code::Conflict), ("queue://forbidden", Code::AccessDenied)] {
        for deed in [Deed::Move(to(target)), Deed::Copy(to(target))] {
            let mut errand = world.errand("q", deed, Chosen::All, None).unwrap();
            let Step::Blocked(refusal) = world.carry_on(&mut errand) else { panic!("{target}") };
            assert_eq!(refusal.code, code);
        }
        assert_eq!(world.queue("queue://q").map(|queue| (queue.ready, queue.unsettled)), Some((1, 0)));
    }
    client.subscribe("topic://nobody").auto().ok();
    world.run("q", Deed::Move(to("topic://nobody")), Chosen::All);
    assert_eq!(client.one().original, "queue://q");
}

#[test]
fn a_move_goes_by_the_rules_that_a_send_would_go_by() {
    let forward = |name: &str| Forward { destination: to(name), selector: None };
    let rule = CompositeRule {
        name: sabir_model::pattern::Pattern::from(to("in")),
        forward_to: vec![forward("a"), forward("b")],
        forward_only: true,
        send_when_not_matched: false,
    };
    let world =
        Setup { rules: Rules { composites: vec![rule], ..Rules::default() }, ..Setup::default() }.open();
    world.client().send("q", "1").persistent().ok();
    world.run("q", Deed::Move(to("in")), Chosen::All);
    assert_eq!(
        (world.held("a"), world.held("b"), world.held("q")),
        (vec!["1".into()], vec!["1".into()], vec![])
    );
    let first = world.broker.message("/", "a", 1).unwrap();
    assert_eq!(first.message.fields().find_text(Tag::OriginalDestination), Some("queue://in"));
}

#[test]
fn copies_are_new_messages_also_of_what_consumers_have() {
    let world = World::new();
    let mut client = world.client();
    let mut consumer = world.client();
    client.send_all("q", &["1", "2", "3"]);
    consumer.subscribe("q").credit(1).ok();
    let held = consumer.drain();
    assert_eq!(world.run("q", Deed::Copy(to("copy")), Chosen::All).done, 3);
    assert_eq!((world.held("q").join(""), world.held("copy").join("")), ("123".into(), "123".into()));
    let id = |queue: &str| world.broker.message("/", queue, 1).unwrap().message.id();
    assert_ne!(id("q"), id("copy"));
    consumer.ack_all(&held);
    // A queue can be copied into itself, once.
    assert_eq!(world.run("q", Deed::Copy(to("q")), Chosen::All).done, 2);
    assert_eq!(world.held("q").join(""), "2323");
}

#[test]
fn a_crash_amid_a_move_neither_loses_nor_doubles() {
    let mut moved_in_some = false;
    let mut stayed_in_some = false;
    let survivals = (0..24).map(Survival::Random).chain([Survival::None, Survival::All]);
    for survival in survivals {
        // Not synced by itself, so that chance decides what of it survives.
        let policy = Policy { durability: Level::Os, ..Policy::default() };
        let world = Setup::default().policy("queue://>", policy).open();
        let mut client = world.client();
        for n in 0..40 {
            client.send("q", &n.to_string()).persistent().ok();
        }
        client.synced();
        client.close();
        let mut errand = world.errand("q", Deed::Move(to("other")), Chosen::All, None).unwrap();
        for _ in 0..8 {
            assert_ne!(world.broker.step(&mut errand, 4), Step::Done);
            world.broker.store().turn();
        }
        // One more that nothing has written.
        world.broker.step(&mut errand, 4);
        let world = world.crash_as(survival);
        let (stayed, moved) = (world.held("q"), world.held("other"));
        moved_in_some |= !moved.is_empty();
        stayed_in_some |= stayed.len() == 40;
        let mut both: Vec<u32> = stayed.iter().chain(&moved).map(|body| body.parse().unwrap()).collect();
        both.sort_unstable();
        assert_eq!(both, (0..40).collect::<Vec<_>>(), "{survival:?} {stayed:?} {moved:?}");
    }
    assert!(moved_in_some && stayed_in_some, "the crashes came at different times");
}

#[test]
fn what_was_moved_is_where_it_was_moved_to_after_a_restart() {
    let world = World::new();
    let mut client = world.client();
    client.send("q", "1").persistent().ok();
    client.send("q", "2").persistent().ok();
    client.close();
    let tally = world.run("q", Deed::Move(to("other")), Chosen::Sequences(vec![2]));
    world.broker.store().sync();
    assert!(world.broker.is_kept(tally.promise.unwrap()));
    let world = world.crash();
    assert_eq!((world.held("q").join(""), world.held("other").join("")), ("1".into(), "2".into()));
    let world = world.restart();
    assert_eq!((world.held("q").join(""), world.held("other").join("")), ("1".into(), "2".into()));
}

pub(super) fn with_body(
    body: &str,
    destination: Option<&str>,
) -> impl FnOnce(&crate::manage::MessageEntry) -> Result<Edited, Refusal> {
    let (body, to) = (body.to_owned(), destination.map(to));
    move |entry| {
        let drops = |field: &Field<'_>| matches!(field, Field::Property("colour", _));
        Ok(Edited { to, body: sabir_model::message::Body::Shared(body.into()), ..Edited::of(entry, drops) })
    }
}

#[test]
fn an_edited_message_takes_the_place_of_the_old_one_or_neither_happens() {
    let volatile = Policy { durability: Level::Memory, ..Policy::default() };
    let world = Setup::default().policy("queue://volatile.>", volatile).open();
    let mut client = world.client();
    let mut consumer = world.client();
    for body in ["held", "wrong"] {
        client.send("q", body).persistent().property("colour", "red").property("size", "3").ok();
    }
    consumer.subscribe("q").credit(1).ok();
    let held = consumer.one();
    let old = world.broker.message("/", "q", 2).unwrap().message.id();
    let resend =
        |sequence, body: &str, to| world.broker.resend("/", "q", sequence, &who(), with_body(body, to));
    assert_eq!(resend(1, "x", None).unwrap_err().code, Code::Conflict);
    assert_eq!(resend(9, "x", None).unwrap_err().code, Code::UnknownDelivery);
    assert_eq!(resend(2, "x", Some("topic://nobody")).unwrap_err().code, Code::Conflict);
    assert_eq!(world.held("q"), ["held", "wrong"]);
    let sent = resend(2, "right", Some("queue://other")).unwrap();
    assert_ne!(sent.id, old);
    consumer.synced();
    assert!(world.broker.is_kept(sent.promise.unwrap()));
    drop((client, consumer, held));
    let world = world.crash();
    assert_eq!((world.held("q"), world.held("other")), (vec!["held".to_owned()], vec!["right".to_owned()]));
    let new = world.broker.message("/", "other", 1).unwrap();
    let fields = new.message.fields();
    assert_eq!(
        (fields.find_property("colour"), fields.find_property("size")),
        (None, Some(ValueRef::Str("3")))
    );
    assert_eq!(fields.find_text(Tag::UserId), Some("operator"));
    assert_eq!(new.message.destination().unwrap().to_string(), "queue://other");
    // Without a target it goes where it is.
    let again = world.broker.resend("/", "other", 1, &who(), with_body("again", None)).unwrap();
    assert_eq!((world.held("other"), again.logged), (vec!["again".to_owned()], true));
    let volatile =
        world.broker.resend("/", "other", 2, &who(), with_body("x", Some("queue://volatile.q"))).unwrap();
    assert_eq!((world.held("volatile.q"), volatile.logged), (vec!["x".to_owned()], false));
}

#[test]
fn what_waits_for_a_subscription_is_managed_like_any_other() {
    let world = World::new();
    let mut client = world.named("c1");
    let key = client.subscribe("topic://t").durable("d").ok();
    client.unsubscribe(key);
    for body in ["1", "2", "3"] {
        client.send("topic://t", body).persistent().ok();
    }
    assert_eq!(world.held("durable://c1:d"), ["1", "2", "3"]);
    let first = world.broker.message("/", "durable://c1:d", 1).unwrap();
    assert_eq!((first.queue, first.message.destination().unwrap().to_string()), (None, "topic://t".into()));
    world.broker.delete_message("/", "durable://c1:d", 1).unwrap();
    let tally = world.run("durable://c1:d", Deed::Move(to("q")), Chosen::Sequences(vec![3]));
    assert_eq!((tally.done, world.held("q")), (1, vec!["3".to_owned()]));
    client.subscribe("topic://t").durable("d").ok();
    assert_eq!(client.bodies(), ["2"]);
}

#[test]
fn messages_moved_to_and_fro_while_others_send_and_consume_arrive_once() {
    const SENT: usize = 2000;
    let world = Setup { threads: true, ..Setup::default() }.open();
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut got: Vec<String> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = world.client();
            for n in 0..SENT {
                let queue = if n % 2 == 0 { "a" } else { "b" };
                sender.send(queue, &n.to_string()).persistent().ok();
            }
            sender.close();
        });
        for (from, other) in [("a", "b"), ("b", "a")] {
            let (world, done) = (&world, &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    let Ok(mut errand) = world.errand(from, Deed::Move(to(other)), Chosen::All, None) else {
                        std::thread::yield_now();
                        continue;
                    };
                    assert_eq!(world.carry_on(&mut errand), Step::Done);
                }
            });
        }
        let mut consumer = world.client();
        consumer.subscribe("a").credit(10).ok();
        let mut got = Vec::new();
        while got.len() < SENT {
            for one in consumer.drain() {
                consumer.ack(&one);
                got.push(one.body);
            }
            std::thread::yield_now();
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        consumer.close();
        got
    });
    got.sort_unstable_by_key(|body| body.parse::<usize>().unwrap());
    assert_eq!(got, (0..SENT).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!((world.depth("queue://a"), world.depth("queue://b"), world.memory()), (0, 0, 0));
    world.broker.close().unwrap();
}
