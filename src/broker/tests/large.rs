//! Bodies that are not in memory: in queues, on their way, and after a restart.

use std::path::PathBuf;

use sabir_model::command::{Outcome, Publish, TargetKey};
use sabir_model::destination::{Destination, Targets};
use sabir_model::error::{Code, Refusal};
use sabir_model::event::Event;
use sabir_model::message::{Body, Facts, Message};
use sabir_model::session::{Host, Room};
use sabir_model::stored::Stored;
use sabir_store::Level;

use super::harness::{Client, Send, Setup, World};
use crate::Policy;
use crate::bodies::{is_unreadable, stored};

/// Whether every body is one that is not in memory: all of these tests hold then, too (`SABIR_TEST_STORED_BODIES=1`).
pub(super) fn all_stored() -> bool {
    std::env::var_os("SABIR_TEST_STORED_BODIES").is_some()
}

impl Send<'_> {
    /// The body is one that is not in memory.
    fn stored(mut self) -> Self {
        self.stores = true;
        self
    }
}

impl Client {
    /// The body of a message, not in memory if it `stores`.
    pub(super) fn body<'a>(
        &mut self,
        stores: bool,
        publish: &Publish<'_>,
        body: &'a str,
    ) -> Result<Body<'a>, Refusal> {
        match stores && !body.is_empty() {
            true => self.store(publish, body.as_bytes()).map(Body::Stored),
            false => Ok(Body::Borrowed(body.as_bytes())),
        }
    }

    /// Hands a body over in pieces, as a session does.
    fn store(&mut self, publish: &Publish<'_>, body: &[u8]) -> Result<Stored, Refusal> {
        self.host().begin_body(publish, Some(body.len() as u64))?;
        for piece in body.chunks(100_000) {
            let mut room = self.host().put_body(piece);
            while room == Room::None {
                self.pump();
                let before = self.events.len();
                self.events.retain(|event| *event != Event::BodyRoom);
                if self.events.len() < before {
                    room = Room::Some;
                }
            }
        }
        self.host().end_body();
        loop {
            self.pump();
            let at = self.events.iter().position(|event| matches!(event, Event::BodyStored(_)));
            match at.map(|at| self.events.remove(at)) {
                Some(Event::BodyStored(result)) => return result,
                _ => std::thread::yield_now(),
            }
        }
    }
}

fn files(world: &World) -> Vec<PathBuf> {
    world.broker.store().turn();
    let files = world.disk.files().into_iter();
    files.filter(|file| file.parent().is_some_and(|dir| dir.ends_with("B"))).collect()
}

/// A text of which no two parts are alike.
fn text(length: usize) -> String {
    let mut text: String = (0..).map(|number| format!("{number:x} ")).take(length / 4).collect();
    text.truncate(length);
    text
}

#[test]
fn a_stored_body_takes_no_memory_and_its_bytes_count_for_its_queue() {
    let world = World::new();
    let body = text(500_000);
    world.client().send("queue://q", &body).stored().persistent().ok();
    assert!(world.memory() < 2000, "{} bytes", world.memory());
    assert!(world.queue("queue://q").unwrap().bytes > 500_000);
    let mut consumer = world.client();
    consumer.subscribe("queue://q").credit(1).ok();
    let got = consumer.drain();
    assert!(got[0].body == body);
    consumer.ack_all(&got);
    assert_eq!((world.memory(), world.queue("queue://q").unwrap().bytes), (0, 0));
}

#[test]
fn a_stored_body_that_is_paged_out_comes_back_as_it_was_also_after_a_crash() {
    let mut setup = Setup::default();
    setup.limits.queue_memory_bytes_max = 1;
    let world = setup.open();
    let bodies = [text(200_000), text(70_000), "small".to_owned()];
    let mut producer = world.client();
    for body in &bodies {
        producer.send("queue://q", body).stored().persistent().ok();
    }
    producer.synced();
    let bytes = world.queue("queue://q").unwrap().bytes;
    assert!(bytes > 270_000 && world.queue("queue://q").unwrap().paged >= 2, "{bytes}");
    drop(producer);
    let world = world.crash();
    assert!(world.queue("queue://q").unwrap().bytes > 270_000);
    let mut consumer = world.client();
    consumer.subscribe("queue://q").credit(10).ok();
    consumer.run();
    let got = consumer.drain();
    assert!(got.iter().map(|one| &one.body).eq(&bodies));
    consumer.ack_all(&got);
    assert_eq!((world.depth("queue://q"), world.queue("queue://q").unwrap().bytes), (0, 0));
}

#[test]
fn a_large_body_is_refused_before_it_comes_where_there_is_no_room_for_it() {
    let policy = Policy { bytes_max: 1000, ..Policy::default() };
    let world = Setup::default().policy("queue://full", policy).open();
    let mut client = world.client();
    let targets: Targets = std::iter::once(Destination::queue("full")).collect();
    let publish = |transaction| Publish {
        targets: &targets,
        key: TargetKey { slot: 0, generation: 1 },
        facts: Facts { persistent: true, ..Facts::default() },
        fields: &[],
        body: Body::Borrowed(b""),
        transaction,
        once: None,
    };
    let refused = |result: Result<(), Refusal>| result.unwrap_err().code;
    assert_eq!(refused(client.host().begin_body(&publish(None), Some(1001))), Code::DestinationFull);
    assert_eq!(client.host().begin_body(&publish(None), Some(900)), Ok(()));
    let transaction = Some(sabir_model::ids::TransactionKey(7));
    assert_eq!(refused(client.host().begin_body(&publish(transaction), Some(9))), Code::UnknownTransaction);
    // It is looked at again when it is whole.
    let stored = client.store(&publish(None), &[7; 900]).unwrap();
    world.client().send("queue://full", &text(500)).ok();
    let outcome = client.host().publish(Publish { body: Body::Stored(stored), ..publish(None) });
    assert!(matches!(outcome, Outcome::Refused(refusal) if refusal.code == Code::DestinationFull));
    client.end_batch();
    assert_eq!(world.depth("queue://full"), 1);
}

#[test]
fn a_body_that_nobody_waits_for_any_more_leaves_nothing() {
    let world = World::new();
    let mut client = world.client();
    let targets: Targets = std::iter::once(Destination::queue("q")).collect();
    let publish = Publish {
        targets: &targets,
        key: TargetKey { slot: 0, generation: 1 },
        facts: Facts { persistent: true, ..Facts::default() },
        fields: &[],
        body: Body::Borrowed(b""),
        transaction: None,
        once: None,
    };
    client.host().begin_body(&publish, Some(1_000_000)).unwrap();
    assert_eq!(client.host().put_body(&[1; 300_000]), Room::Some);
    assert_eq!(files(&world).len(), 1);
    drop(client);
    assert_eq!(files(&world), Vec::<PathBuf>::new());
}

#[test]
fn a_body_that_is_not_in_memory_has_no_share_of_it_in_a_transaction_either() {
    let mut setup = Setup::default();
    setup.limits.memory_bytes_max = 40_000;
    let world = setup.open();
    let mut producer = world.client();
    let body = text(400_000);
    producer.send("queue://q", "x").ok();
    producer.send("queue://q", &body).stored().ok();
    let transaction = producer.begin();
    producer.send("queue://q", &body).stored().in_transaction(transaction).ok();
    let outcome = producer.commit(transaction);
    assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    assert_eq!(world.depth("queue://q"), 3);
    assert!(world.memory() < 10_000, "{}", world.memory());
}

#[test]
fn a_body_that_cannot_be_opened_for_want_of_descriptors_is_not_taken_for_lost() {
    let world = Setup::default().open();
    let store = world.broker.store();
    let mut writer = store.blob(100_000).unwrap();
    writer.write(&[7; 100_000]).unwrap();
    let blob = writer.finish(Level::Fsync).unwrap();
    let body = stored(blob);
    let message = Message::new(Facts::default(), &[], Body::Stored(body.clone()));
    world.disk.set_without_descriptors(true);
    assert!(body.read_at(0, &mut [0; 1000]).is_err() && !is_unreadable(&message));
    world.disk.set_without_descriptors(false);
    world.disk.flip(files(&world).first().unwrap(), 100, 1);
    assert!(body.read_at(0, &mut [0; 1000]).is_err() && is_unreadable(&message));
    assert!(body.read_at(70_000, &mut [0; 1000]).is_ok() && !is_unreadable(&message));
}

#[test]
fn what_of_a_body_waits_to_be_written_counts_against_the_memory() {
    let world = World::new();
    let targets: Targets = std::iter::once(Destination::queue("q")).collect();
    let publish = Publish {
        targets: &targets,
        key: TargetKey { slot: 0, generation: 1 },
        facts: Facts { persistent: true, ..Facts::default() },
        fields: &[],
        body: Body::Borrowed(b""),
        transaction: None,
        once: None,
    };
    for ends in [true, false] {
        let mut client = world.client();
        client.host().begin_body(&publish, Some(60_000)).unwrap();
        // So little is not worth waking anybody.
        assert_eq!(client.host().put_body(&[1; 60_000]), Room::Some);
        assert_eq!(world.stats().memory_frames, 60_000);
        if ends {
            client.host().end_body();
        } else {
            client.vanish();
        }
        assert_eq!(world.stats().memory_frames, 0);
    }
}
