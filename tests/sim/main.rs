//! A whole broker in one thread: real STOMP sessions, the real core and the real log over a simulated disk and a clock
//! that is moved by hand. A scenario runs once to count its disk operations, then again and again with a crash at every
//! one of them; after each the broker is opened from what the disk kept, and the promises are checked.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};

use harness::{Client, World};
use sabir_store::fault_fs::{Fault, FaultFs, Survival};

/// What the clients of one run know for certain.
#[derive(Debug, Default)]
struct Knowledge {
    /// Body → receipted.
    sent: BTreeMap<String, bool>,
    /// Bodies whose acknowledgement was receipted, per reader.
    acked: BTreeSet<(String, String)>,
    /// Bodies ever acknowledged, receipted or not.
    maybe_acked: BTreeSet<(String, String)>,
    /// Transactions: bodies that live or die together, and whether the commit was receipted.
    transactions: Vec<(Vec<String>, bool)>,
}

/// Producers, two readers of a queue, a durable subscription and a group of a virtual topic. Ends early when the disk
/// is gone.
fn scenario(world: &World, knowledge: &mut Knowledge) -> Option<()> {
    let mut producer = world.connect(&[])?;
    let mut durable = world.connect(&[("client-id", "c")])?;
    durable.send_frame(
        "SUBSCRIBE",
        &[
            ("id", "d"),
            ("destination", "/topic/news"),
            ("activemq.subscriptionName", "s"),
            ("ack", "client-individual"),
            ("receipt", "durable"),
        ],
    );
    durable.receipt("durable")?;
    let mut group = world.connect(&[])?;
    group.send_frame(
        "SUBSCRIBE",
        &[
            ("id", "g"),
            ("destination", "/queue/Consumer.G.VirtualTopic.news"),
            ("ack", "client"),
            ("receipt", "group"),
        ],
    );
    group.receipt("group")?;

    for round in 0..6 {
        for (destination, name) in [
            ("/queue/work", "w"),
            ("/topic/news", "n"),
            ("/topic/VirtualTopic.news", "v"),
            ("/queue/work,/queue/copy", "x"),
        ] {
            let body = format!("{name}{round}");
            knowledge.sent.insert(body.clone(), false);
            producer.send(destination, &body, &[("persistent", "true"), ("receipt", &body)]);
            if round % 2 == 0 {
                producer.receipt(&body)?;
                knowledge.sent.insert(body, true);
            }
        }
        if round % 2 == 1 {
            for name in ["w", "n", "v", "x"] {
                let body = format!("{name}{round}");
                producer.receipt(&body)?;
                knowledge.sent.insert(body, true);
            }
        }
        let bodies = vec![format!("t{round}a"), format!("t{round}b")];
        knowledge.transactions.push((bodies.clone(), false));
        producer.send_frame("BEGIN", &[("transaction", "t")]);
        producer.send("/queue/work", &bodies[0], &[("persistent", "true"), ("transaction", "t")]);
        producer.send("/queue/copy", &bodies[1], &[("persistent", "true"), ("transaction", "t")]);
        producer.send_frame("COMMIT", &[("transaction", "t"), ("receipt", "commit")]);
        producer.receipt("commit")?;
        knowledge.transactions.last_mut()?.1 = true;

        // A reader of the queue takes two, acknowledges one with a receipt and one without, and leaves.
        let mut reader = world.connect(&[])?;
        reader.subscribe("/queue/work", "client-individual");
        let taken = reader.messages(2)?;
        for (index, message) in taken.iter().enumerate() {
            let entry = ("work".to_owned(), message.body.clone());
            knowledge.maybe_acked.insert(entry.clone());
            if index == 0 {
                reader.send_frame("ACK", &[("id", &message.ack), ("receipt", "acked")]);
                reader.receipt("acked")?;
                knowledge.acked.insert(entry);
            } else {
                reader.send_frame("ACK", &[("id", &message.ack)]);
            }
        }
        reader.leave();

        let news = durable.messages(1)?;
        knowledge.maybe_acked.insert(("durable".into(), news[0].body.clone()));
        durable.send_frame("ACK", &[("id", &news[0].ack), ("receipt", "news")]);
        durable.receipt("news")?;
        knowledge.acked.insert(("durable".into(), news[0].body.clone()));

        let orders = group.messages(1)?;
        knowledge.maybe_acked.insert(("group".into(), orders[0].body.clone()));
        group.send_frame("ACK", &[("id", &orders[0].ack), ("receipt", "order")]);
        group.receipt("order")?;
        knowledge.acked.insert(("group".into(), orders[0].body.clone()));
    }
    Some(())
}

/// Opens the broker from what the disk kept and checks every promise.
fn check(disk: FaultFs, knowledge: &Knowledge, what: &str) {
    let world = World::open(disk).unwrap_or_else(|error| panic!("{what}: the broker does not open: {error}"));
    let drain = |mut client: Client, key: &str| -> Vec<String> {
        let bodies: Vec<String> = client.drain().into_iter().map(|message| message.body).collect();
        for body in &bodies {
            assert!(
                !knowledge.acked.contains(&(key.to_owned(), body.clone())),
                "{what}: {body} came back to {key} though its acknowledgement was receipted"
            );
        }
        bodies
    };
    let mut client = world.connect(&[]).unwrap();
    client.subscribe("/queue/work", "auto");
    let work = drain(client, "work");
    let mut client = world.connect(&[]).unwrap();
    client.subscribe("/queue/copy", "auto");
    let copy = drain(client, "copy");
    let mut client = world.connect(&[]).unwrap();
    client.subscribe("/queue/Consumer.G.VirtualTopic.news", "auto");
    let group = drain(client, "group");
    let mut client = world.connect(&[("client-id", "c")]).unwrap();
    client.send_frame(
        "SUBSCRIBE",
        &[("id", "d"), ("destination", "/topic/news"), ("activemq.subscriptionName", "s"), ("ack", "auto")],
    );
    let durable = drain(client, "durable");

    let here = |key: &str, found: &[String], body: &String| {
        found.contains(body) || knowledge.maybe_acked.contains(&(key.to_owned(), body.clone()))
    };
    for (body, receipted) in &knowledge.sent {
        let places: &[(&str, &Vec<String>)] = match body.as_bytes()[0] {
            b'w' => &[("work", &work)],
            b'n' => &[("durable", &durable)],
            b'v' => &[("group", &group)],
            _ => &[("work", &work), ("copy", &copy)],
        };
        let present = places.iter().filter(|(key, found)| here(key, found, body)).count();
        if *receipted {
            assert_eq!(present, places.len(), "{what}: {body} was receipted and is lost");
        } else {
            assert!(
                present == 0 || present == places.len(),
                "{what}: {body} reached only some of its queues"
            );
        }
    }
    for (bodies, receipted) in &knowledge.transactions {
        let present = [here("work", &work, &bodies[0]), here("copy", &copy, &bodies[1])];
        assert_eq!(present[0], present[1], "{what}: half of the transaction of {bodies:?}");
        assert!(present[0] || !receipted, "{what}: the receipted transaction of {bodies:?} is lost");
    }
    for (key, found) in [("work", &work), ("copy", &copy), ("group", &group), ("durable", &durable)] {
        let unique: BTreeSet<&String> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "{what}: doubles in {key}: {found:?}");
        for name in ["w", "n", "v", "x"] {
            let rounds: Vec<&String> = found.iter().filter(|body| body.starts_with(name)).collect();
            assert!(rounds.is_sorted(), "{what}: {key} is out of order: {found:?}");
        }
    }
}

#[test]
fn without_a_crash_everything_is_as_the_clients_know_it() {
    let disk = FaultFs::new();
    let world = World::open(disk.clone()).unwrap();
    let mut knowledge = Knowledge::default();
    scenario(&world, &mut knowledge).expect("nothing fails");
    assert!(knowledge.sent.values().all(|receipted| *receipted));
    drop(world);
    check(disk.crash(Survival::None), &knowledge, "no crash");
}

#[test]
fn a_power_loss_at_any_disk_operation_breaks_no_promise() {
    let disk = FaultFs::new();
    let world = World::open(disk.clone()).unwrap();
    let first = disk.io_count();
    scenario(&world, &mut Knowledge::default()).expect("nothing fails");
    drop(world);
    let last = disk.io_count();
    assert!(
        last > first + 50,
        "the scenario has too few disk operations to be worth crashing: {first}..{last}"
    );
    for io in first + 1..=last {
        for (index, survival) in
            [Survival::None, Survival::All, Survival::Random(io), Survival::Random(io + 1_000_000)]
                .into_iter()
                .enumerate()
        {
            let disk = FaultFs::new();
            let world = World::open(disk.clone()).unwrap();
            disk.fault_at(io, Fault::Crash);
            let mut knowledge = Knowledge::default();
            let _ = scenario(&world, &mut knowledge);
            drop(world);
            check(
                disk.crash(survival),
                &knowledge,
                &format!("crash at disk operation {io}, survival {index}"),
            );
        }
    }
}

#[test]
fn a_kill_at_any_disk_operation_loses_nothing_that_was_written() {
    let disk = FaultFs::new();
    let world = World::open(disk.clone()).unwrap();
    let first = disk.io_count();
    scenario(&world, &mut Knowledge::default()).expect("nothing fails");
    drop(world);
    for io in (first + 1..=disk.io_count()).step_by(3) {
        let disk = FaultFs::new();
        let world = World::open(disk.clone()).unwrap();
        disk.fault_at(io, Fault::Error);
        let mut knowledge = Knowledge::default();
        // A failed write or sync ends the broker; what it had receipted is there.
        let _ = scenario(&world, &mut knowledge);
        drop(world);
        check(disk.crash(Survival::All), &knowledge, &format!("error at disk operation {io}"));
    }
}
