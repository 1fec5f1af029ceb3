//! Many threads at once. Whatever they do, every message is settled exactly once, memory sums up, and nobody waits for
//! ever. Nothing here depends on time: bounds are numbers of turns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sabir_model::command::Outcome;
use sabir_model::destination::Kind;
use sabir_model::settlement::Settlement;

use super::harness::{Client, Got, Line, Setup, World};
use crate::Policy;

/// Turns without any progress after which something is taken to be lost.
const IDLE_TURNS_MAX: usize = 2_000_000;

/// A throw of dice that is the same every time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// What was sent, and how often it was settled.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<String, (i32, i32)>>>);

impl Ledger {
    fn sent(&self, queue: &str, body: &str) {
        self.0.lock().entry(format!("{queue} {body}")).or_default().0 += 1;
    }

    fn settled(&self, got: &Got) {
        self.0.lock().entry(format!("{} {}", got.destination, got.body)).or_default().1 += 1;
    }

    fn check(&self) {
        let ledger = self.0.lock();
        assert!(!ledger.is_empty());
        let wrong: Vec<_> =
            ledger.iter().filter(|(_, (sent, settled))| *sent != 1 || *settled != 1).collect();
        assert!(wrong.is_empty(), "sent and settled: {wrong:?}");
    }
}

/// One thread's client that does anything at all.
struct Chaos<'a> {
    world: &'a World,
    ledger: Ledger,
    dice: Dice,
    name: usize,
    next: usize,
    client: Client,
    /// Subscriptions, and whether they settle by themselves.
    subscriptions: BTreeMap<u32, bool>,
    /// Those that settled by themselves and have ended.
    ended: BTreeSet<u32>,
    hand: Vec<Got>,
}

impl Chaos<'_> {
    fn queue(&mut self) -> String {
        format!("queue://s.{}", self.dice.throw(4))
    }

    fn collect(&mut self) {
        for line in self.client.lines() {
            let Line::Message(got) = line else { continue };
            let ended = self.ended.contains(&got.subscription).then_some(&true);
            match self.subscriptions.get(&got.subscription).or(ended) {
                Some(true) if got.destination.starts_with("queue://s.") => self.ledger.settled(&got),
                Some(false) => self.hand.push(*got),
                _ => {}
            }
        }
    }

    fn body(&mut self) -> String {
        self.next += 1;
        let padding = if self.dice.throw(20) == 0 { 2000 } else { 1 };
        format!("{}-{}{}", self.name, self.next, " ".repeat(padding))
    }

    fn send(&mut self) {
        let (first, body, persistent) = (self.queue(), self.body(), self.dice.throw(2) == 0);
        let second = self.queue();
        let to = if self.dice.throw(4) == 0 && first != second { format!("{first},{second}") } else { first };
        let send = self.client.send(&to, &body).property("colour", ["red", "blue"][body.len() % 2]);
        let send = if persistent { send.persistent() } else { send };
        if let Outcome::Accepted(_) = send.outcome() {
            to.split(',').for_each(|queue| self.ledger.sent(queue, &body));
        }
    }

    fn transaction(&mut self) {
        let tx = self.client.begin();
        let mut sent = Vec::new();
        for _ in 0..self.dice.throw(4) {
            let (queue, body) = (self.queue(), self.body());
            if let Outcome::Accepted(_) =
                self.client.send(&queue, &body).persistent().in_transaction(tx).outcome()
            {
                sent.push((queue, body));
            }
        }
        let settled = match self.hand.len() {
            0 => Vec::new(),
            len => {
                let keep = len - self.dice.throw(len.min(3) + 1);
                self.hand.split_off(keep)
            }
        };
        settled.iter().for_each(|got| self.client.ack_in(tx, got));
        if self.dice.throw(3) > 0 && matches!(self.client.commit(tx), Outcome::Accepted(_)) {
            sent.iter().for_each(|(queue, body)| self.ledger.sent(queue, body));
            settled.iter().for_each(|got| self.ledger.settled(got));
        } else {
            self.client.ask(sabir_model::command::Command::Abort(sabir_model::ids::TransactionKey(tx)));
            self.hand.extend(settled);
        }
    }

    fn settle(&mut self) {
        if self.hand.is_empty() {
            return;
        }
        let got = self.hand.swap_remove(self.dice.throw(self.hand.len()));
        match self.dice.throw(6) {
            0 => self.client.settle(&got, Settlement::Released),
            1 => self.client.settle(&got, Settlement::Failed),
            _ => {
                let outcome = self.client.ack_now(&got);
                assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?} {got:?}");
                self.ledger.settled(&got);
            }
        }
    }

    fn subscribe(&mut self) {
        if self.subscriptions.len() >= 4 {
            return;
        }
        let (auto, credit) = (self.dice.throw(3) == 0, 1 + self.dice.throw(5));
        let to = match self.dice.throw(4) {
            0 => "queue://s.*".to_owned(),
            1 => "queue://s.0,queue://s.3".to_owned(),
            _ => self.queue(),
        };
        let selector = if self.dice.throw(3) == 0 { "colour = 'red'" } else { "" };
        let wanted = self.client.subscribe(&to).selector(selector).credit(u32::try_from(credit).unwrap());
        let wanted = if auto { wanted.auto() } else { wanted };
        let (key, outcome) = wanted.outcome();
        if matches!(outcome, Outcome::Accepted(_)) {
            self.subscriptions.insert(key, auto);
        }
    }

    fn unsubscribe(&mut self) {
        let Some(key) = self.subscriptions.keys().next().copied() else { return };
        // Some of it may still be on its way to the socket.
        if self.dice.throw(2) == 0 {
            self.client.block_after(0);
        }
        self.collect();
        self.client.unsubscribe(key);
        self.hand.retain(|got| got.subscription != key);
        // What settles by itself is settled by being written, however late.
        if self.subscriptions.remove(&key) == Some(true) {
            self.ended.insert(key);
        }
        self.client.unblock();
    }

    fn reconnect(&mut self) {
        self.collect();
        self.client.leave(self.dice.throw(2) == 0);
        // Whole lines that had reached the wire count for what settles by itself.
        self.collect();
        self.client = self.world.client();
        self.subscriptions.clear();
        self.ended.clear();
        self.hand.clear();
    }

    fn step(&mut self) {
        match self.dice.throw(24) {
            0..=7 => self.send(),
            8..=13 => self.settle(),
            14 => self.transaction(),
            15 | 16 => self.subscribe(),
            17 => self.unsubscribe(),
            18 => {
                let room = self.dice.throw(500);
                self.client.block_after(room);
            }
            19 => self.client.unblock(),
            20 if self.dice.throw(10) == 0 => self.reconnect(),
            21 => {
                let name = self.client.temporary(Kind::Queue, "t");
                self.client.send(&name, "to nobody").ok();
                self.client.send("topic://live.x", "to anybody").ok();
            }
            22 => {
                let key = self.client.subscribe("topic://live.>").credit(2).ok();
                self.client.unsubscribe(key);
            }
            _ => self.client.pump(),
        }
        self.collect();
    }
}

#[test]
fn whatever_many_clients_do_at_once_every_message_is_settled_exactly_once() {
    // Queues nobody uses go at once, so that names come and go under everybody's feet.
    let policy = Policy {
        delivery_limit: 0,
        gc_after: Some(Duration::ZERO),
        durability: sabir_store::Level::Os,
        ..Policy::default()
    };
    let mut setup = Setup { threads: true, ..Setup::default() }.policy("queue://s.*", policy);
    setup.limits.outbox.bytes_soft = 600;
    let world = setup.open();
    let ledger = Ledger::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ticker = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                world.clock.advance(Duration::from_millis(1));
                world.broker.tick(world.now());
                world.stats();
                std::thread::yield_now();
            }
        });
        let workers: Vec<_> = (0..4)
            .map(|name| {
                let (world, ledger) = (&world, ledger.clone());
                scope.spawn(move || {
                    let mut chaos = Chaos {
                        world,
                        ledger,
                        dice: Dice(name as u64 + 1),
                        name,
                        next: 0,
                        client: world.client(),
                        subscriptions: BTreeMap::new(),
                        ended: BTreeSet::new(),
                        hand: Vec::new(),
                    };
                    for _ in 0..2500 {
                        chaos.step();
                    }
                    chaos.reconnect();
                    chaos.client.close();
                })
            })
            .collect();
        let failed: Vec<_> = workers.into_iter().filter_map(|worker| worker.join().err()).collect();
        done.store(true, Ordering::Release);
        ticker.join().unwrap();
        if let Some(failure) = failed.into_iter().next() {
            std::panic::resume_unwind(failure);
        }
    });
    let mut last = world.client();
    for queue in 0..4 {
        last.subscribe(&format!("queue://s.{queue}")).auto().ok();
    }
    let holds_some = || world.stats().queues.iter().any(|queue| queue.ready + queue.unsettled > 0);
    let mut idle = 0;
    while idle < 50 * IDLE_TURNS_MAX && holds_some() {
        last.run();
        let got = last.drain();
        got.iter().for_each(|got| ledger.settled(got));
        idle = if got.is_empty() { idle + 1 } else { 0 };
        std::thread::yield_now();
    }
    last.run();
    last.drain().iter().for_each(|got| ledger.settled(got));
    ledger.check();
    assert_eq!(world.memory(), 0);
    assert!(world.stats().queues.iter().all(|queue| queue.ready + queue.unsettled == 0));
    last.close();
    world.broker.close().unwrap();
}

#[test]
fn no_dispatch_is_lost_however_credit_and_room_come_back() {
    const EACH: usize = 1500;
    let mut setup = Setup { threads: true, ..Setup::default() };
    setup.limits.outbox.bytes_soft = 300;
    let world = setup.open();
    let left = AtomicUsize::new(3 * EACH);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in 0..3 {
            let mut producer = world.client();
            scope.spawn(move || {
                let mut dice = Dice(name + 100);
                for number in 0..EACH {
                    let queue = format!("queue://w.{}", dice.throw(6));
                    let colour = ["red", "blue"][dice.throw(2)];
                    producer.send(&queue, &number.to_string()).property("colour", colour).ok();
                }
                producer.close();
            });
        }
        let consumers = [
            ("queue://w.*", "", 1, false),
            ("queue://w.>", "", 3, true),
            ("queue://w.*", "colour = 'red'", 2, false),
            ("queue://w.1,queue://w.2,queue://w.3", "", 1, false),
        ];
        for (index, (to, selector, credit, auto)) in consumers.into_iter().enumerate() {
            let mut consumer = world.client();
            let wanted = consumer.subscribe(to).selector(selector).credit(credit);
            if auto {
                wanted.auto().ok()
            } else {
                wanted.ok()
            };
            let (left, failed) = (&left, &failed);
            scope.spawn(move || {
                let mut dice = Dice(index as u64);
                let mut idle = 0;
                while left.load(Ordering::Acquire) > 0 && !failed.load(Ordering::Acquire) {
                    if dice.throw(4) == 0 {
                        consumer.block_after(dice.throw(400));
                    }
                    let got = consumer.drain();
                    consumer.unblock();
                    if got.is_empty() {
                        idle += 1;
                        if idle > IDLE_TURNS_MAX {
                            failed.store(true, Ordering::Release);
                        }
                        std::thread::yield_now();
                        continue;
                    }
                    idle = 0;
                    if !auto {
                        consumer.ack_all(&got);
                    }
                    left.fetch_sub(got.len(), Ordering::AcqRel);
                }
                consumer.close();
            });
        }
    });
    assert!(!failed.load(Ordering::Acquire), "{} were never handed out", left.load(Ordering::Acquire));
    assert_eq!((left.load(Ordering::Acquire), world.memory()), (0, 0));
    world.broker.close().unwrap();
}

#[test]
fn a_queue_may_be_given_up_at_any_moment_without_losing_what_is_sent_to_it() {
    const EACH: usize = 4000;
    let policy = Policy { gc_after: Some(Duration::ZERO), ..Policy::default() };
    let world = Setup { threads: true, ..Setup::default() }.policy("queue://s.*", policy).open();
    let ledger = Ledger::default();
    let (producing, done) = (AtomicUsize::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                world.broker.tick(world.now());
            }
        });
        for name in 0..2 {
            let (mut producer, ledger, producing) = (world.client(), ledger.clone(), &producing);
            scope.spawn(move || {
                let mut dice = Dice(name + 7);
                for number in 0..EACH {
                    let queue = format!("queue://s.{}", dice.throw(6));
                    let body = format!("{name}-{number}");
                    // A name that is deleted as often as it is made may be refused in the end.
                    if let Outcome::Accepted(_) = producer.send(&queue, &body).outcome() {
                        ledger.sent(&queue, &body);
                    }
                }
                producing.fetch_sub(1, Ordering::AcqRel);
                producer.close();
            });
        }
        let consumers: Vec<_> = (0..2u64)
            .map(|name| {
                let (mut consumer, ledger, producing) = (world.client(), ledger.clone(), &producing);
                let world = &world;
                scope.spawn(move || {
                    let mut dice = Dice(name + 70);
                    let mut turn = 0;
                    // When nothing more is sent, each queue is looked at once again.
                    while producing.load(Ordering::Acquire) > 0 || turn < 6 {
                        turn = if producing.load(Ordering::Acquire) > 0 { 0 } else { turn + 1 };
                        let wild = name == 1 && turn == 0 && dice.throw(2) == 0;
                        let at = if turn > 0 { turn - 1 } else { dice.throw(6) };
                        let to = if wild { "queue://s.*".to_owned() } else { format!("queue://s.{at}") };
                        let key = consumer.subscribe(&to).auto().ok();
                        for _ in 0..dice.throw(20) {
                            consumer.drain().iter().for_each(|got| ledger.settled(got));
                        }
                        // At last what is to be read from the log is waited for.
                        for _ in 0..if turn > 0 { 50 * IDLE_TURNS_MAX } else { 0 } {
                            consumer.run();
                            consumer.drain().iter().for_each(|got| ledger.settled(got));
                            if world.queue(&to).is_none_or(|queue| queue.ready == 0) {
                                break;
                            }
                            std::thread::yield_now();
                        }
                        consumer.unsubscribe(key);
                        consumer.drain().iter().for_each(|got| ledger.settled(got));
                    }
                    consumer.close();
                })
            })
            .collect();
        let failed: Vec<_> = consumers.into_iter().filter_map(|thread| thread.join().err()).collect();
        done.store(true, Ordering::Release);
        if let Some(failure) = failed.into_iter().next() {
            std::panic::resume_unwind(failure);
        }
    });
    ledger.check();
    assert_eq!(world.memory(), 0);
    world.broker.close().unwrap();
}
