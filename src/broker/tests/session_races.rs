//! Client sessions on many threads: whoever takes over what, one copy of each message is acknowledged at last, nothing that
//! was accepted is lost, and memory sums up. Nothing here depends on time: bounds are numbers of turns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sabir_model::command::{Outcome, Replay};
use sabir_model::error::Code;
use sabir_model::settlement::Settlement;

use super::device::{Coming, Device, FOREVER};
use super::harness::{Setup, World};
use super::stress::Dice;

/// Turns without any progress after which something is taken to be lost.
const IDLE_TURNS_MAX: usize = 20_000;

fn threaded() -> World {
    let mut setup = Setup { threads: true, ..Setup::default() };
    setup.limits.session_durability = sabir_store::Level::Os;
    setup.limits.outbox.bytes_soft = 1000;
    setup.open()
}

/// Runs the clock while `what` runs.
fn ticking(world: &World, what: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                world.clock.advance(Duration::from_millis(1));
                world.broker.tick(world.now());
                world.stats();
                std::thread::yield_now();
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        done.store(true, Ordering::Release);
        if let Err(failure) = result {
            std::panic::resume_unwind(failure);
        }
    });
}

#[test]
fn two_connections_that_race_for_one_client_id_leave_one_in_charge() {
    let world = threaded();
    ticking(&world, || {
        std::thread::scope(|scope| {
            for name in 0..3u64 {
                let world = &world;
                scope.spawn(move || {
                    let mut dice = Dice(name + 1);
                    let mut last: Option<Device> = None;
                    for _ in 0..150 {
                        let coming = Coming::for_ms([0, 1, FOREVER][dice.throw(3)]).will("w", "gone", 1);
                        let coming = if dice.throw(3) == 0 { coming.clean() } else { coming };
                        let mut device = world.device("c", coming);
                        // It may be gone again, but then it is told.
                        for to in ["a", "queue://q", "b.>"] {
                            if let Outcome::Refused(refusal) = device.bind(to).outcome() {
                                assert_eq!(refusal.code, Code::TakenOver);
                                // Whoever took over may be about to say so.
                                let told = (0..IDLE_TURNS_MAX).any(|_| {
                                    std::thread::yield_now();
                                    device.taken_over()
                                });
                                assert!(told);
                            }
                        }
                        device.send("a", "1").ok();
                        drop(last.replace(device));
                    }
                });
            }
        });
    });
    // Whatever was left behind: a session that ends now leaves nothing.
    drop(world.device("c", Coming::for_ms(0).clean()));
    let stats = world.stats();
    assert_eq!((stats.sessions, stats.topic_subscriptions), (0, 0));
    assert_eq!(stats.memory_bytes, 0);
    // Nobody is refused for what an ended session has left.
    world.device("other", Coming::for_ms(0)).send("a", "1").ok();
    world.broker.close().unwrap();
}

/// Counts a thread that ends, however it does.
struct Over<'a>(&'a AtomicUsize);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What was sent to the readers, and how often each has acknowledged it in a way that counted.
#[derive(Default)]
struct Ledger(Mutex<BTreeMap<(usize, String), (i32, i32)>>);

impl Ledger {
    fn wrong(&self) -> Vec<((usize, String), (i32, i32))> {
        let ledger = self.0.lock();
        ledger.iter().filter(|(_, counts)| **counts != (1, 1)).map(|(key, c)| (key.clone(), *c)).collect()
    }
}

struct Reader<'a> {
    world: &'a World,
    ledger: &'a Ledger,
    dice: Dice,
    name: usize,
    device: Device,
}

impl Reader<'_> {
    fn connect(world: &World, name: usize, credit: usize) -> Device {
        let coming = Coming::for_ms(FOREVER).credit(u32::try_from(credit).unwrap());
        world.device(&format!("reader-{name}"), coming)
    }

    /// Takes what is there. What is acknowledged in vain comes again.
    fn take(&mut self) -> usize {
        let mut settled = 0;
        for parcel in self.device.arrived().iter().filter(|parcel| parcel.guarantee > 0) {
            match self.dice.throw(8) {
                0 => self.device.settle(parcel, Settlement::Released),
                1 => self.device.settle(parcel, Settlement::Failed),
                2 if parcel.guarantee == 2 => {
                    let _ = self.device.settle_now(parcel, Settlement::Advanced(7));
                    if let Outcome::Accepted(_) = self.device.settle_now(parcel, Settlement::Accepted) {
                        settled += self.settled(&parcel.body);
                    }
                }
                _ => {
                    if let Outcome::Accepted(_) = self.device.settle_now(parcel, Settlement::Accepted) {
                        settled += self.settled(&parcel.body);
                    }
                }
            }
        }
        settled
    }

    fn settled(&self, body: &str) -> usize {
        let mut ledger = self.ledger.0.lock();
        ledger.entry((self.name, body.to_owned())).or_default().1 += 1;
        1
    }

    fn step(&mut self) {
        match self.dice.throw(12) {
            0 => {
                // Two terms of one pattern, and another that overlaps: always one copy.
                let id = u32::try_from(self.dice.throw(3)).unwrap();
                self.device.bind("t.*").exactly_once().id(id).replay(Replay::Never).ok();
            }
            1 => drop(self.device.bind("t.1").id(9).ok()),
            2 => drop(self.device.try_unbind("t.1", None)),
            3 => {
                let room = self.dice.throw(800);
                self.device.client.block_after(room);
            }
            4 => self.device.client.unblock(),
            5 if self.dice.throw(3) == 0 => {
                // Take-over, or loss and return.
                let credit = 1 + self.dice.throw(6);
                if self.dice.throw(2) == 0 {
                    self.device.client.leave(self.dice.throw(2) == 0);
                }
                self.device = Self::connect(self.world, self.name, credit);
                assert!(self.device.resumed);
            }
            _ => {
                self.take();
            }
        }
        self.device.client.pump();
        self.device.client.events.clear();
    }
}

#[test]
fn whatever_sessions_do_at_once_each_acknowledges_one_copy_of_each_message() {
    const READERS: usize = 2;
    const SENDERS: usize = 2;
    const EACH: usize = 600;
    let world = threaded();
    let ledger = Ledger::default();
    for name in 0..READERS {
        let mut device = Reader::connect(&world, name, 3);
        device.bind("t.*").exactly_once().ok();
        device.vanish();
    }
    let sending = AtomicUsize::new(SENDERS);
    ticking(&world, || {
        std::thread::scope(|scope| {
            for name in 0..SENDERS {
                let (world, ledger, sending) = (&world, &ledger, &sending);
                scope.spawn(move || {
                    let _over = Over(sending);
                    let mut dice = Dice(name as u64 + 50);
                    let mut device = world.lasting(&format!("sender-{name}"));
                    // It hears itself, so that it often holds its own backlog.
                    device.bind("own").ok();
                    for number in 0..EACH {
                        let (body, to) = (format!("{name}-{number}"), format!("t.{}", dice.throw(3)));
                        let once = u16::try_from(number).unwrap();
                        for reader in 0..READERS {
                            ledger.0.lock().entry((reader, body.clone())).or_default().0 += 1;
                        }
                        let first = device.send(&to, &body).once(once).unended();
                        assert!(matches!(first, Outcome::Accepted(_)), "{first:?}");
                        device.send("own", "own").unended();
                        if dice.throw(3) == 0 {
                            device.send("t.0", "lossy").at_most_once().unended();
                            device.send(&format!("kept.{}", dice.throw(5)), &body).retain().unended();
                        }
                        if dice.throw(5) == 0 {
                            // It has not heard of its receipt and comes again.
                            device.client.end_batch();
                            device = world.lasting(&format!("sender-{name}"));
                            device.send(&to, &body).once(once).ok();
                        }
                        if dice.throw(2) == 0 {
                            assert!(matches!(device.forget(once), Outcome::Accepted(_)));
                        }
                        device.client.end_batch();
                        device.take_arrived();
                        device.client.events.clear();
                    }
                    device.unbind("own");
                    device.take_arrived();
                });
            }
            for name in 0..READERS {
                let (world, ledger, sending) = (&world, &ledger, &sending);
                scope.spawn(move || {
                    let device = Reader::connect(world, name, 3);
                    let mut reader = Reader { world, ledger, dice: Dice(name as u64), name, device };
                    while sending.load(Ordering::Acquire) > 0 {
                        reader.step();
                    }
                    reader.device.client.unblock();
                    let mut idle = 0;
                    while idle < IDLE_TURNS_MAX && world.depth(&format!("session://reader-{name}")) > 0 {
                        idle = if reader.take() > 0 { 0 } else { idle + 1 };
                        std::thread::yield_now();
                    }
                });
            }
        });
    });
    let wrong = ledger.wrong();
    assert!(wrong.is_empty(), "sent and acknowledged: {wrong:?}");
    for name in ["reader-0", "reader-1", "sender-0", "sender-1"] {
        drop(world.device(name, Coming::for_ms(0).clean()));
    }
    let stats = world.stats();
    assert_eq!((stats.memory_bytes, stats.sessions), (stats.retained_bytes, 0));
    assert!(stats.retained <= 5);
    world.broker.close().unwrap();
}

#[test]
fn members_of_a_group_come_and_go_and_each_message_is_acknowledged_once() {
    const MEMBERS: usize = 3;
    const EACH: usize = 1500;
    let world = threaded();
    let ledger = Ledger::default();
    let mut keeper = world.lasting("keeper");
    keeper.bind("g").group("g").ok();
    keeper.vanish();
    let sending = AtomicUsize::new(1);
    ticking(&world, || {
        std::thread::scope(|scope| {
            let (world, ledger, sending) = (&world, &ledger, &sending);
            scope.spawn(move || {
                let _over = Over(sending);
                let mut device = world.lasting("sender");
                for number in 0..EACH {
                    let body = number.to_string();
                    ledger.0.lock().entry((0, body.clone())).or_default().0 += 1;
                    device.send("g", &body).ok();
                }
            });
            for name in 1..=MEMBERS {
                scope.spawn(move || {
                    let mut dice = Dice(name as u64);
                    let lasts_ms = [0, 1, FOREVER][name - 1];
                    let client_id = format!("member-{name}");
                    let mut idle = 0;
                    while idle < IDLE_TURNS_MAX
                        && (sending.load(Ordering::Acquire) > 0 || world.depth("group://g:g") > 0)
                    {
                        let mut device = world.device(&client_id, Coming::for_ms(lasts_ms).credit(3));
                        device.bind("g").group("g").ok();
                        for _ in 0..dice.throw(10) {
                            for parcel in device.arrived() {
                                if let Outcome::Accepted(_) = device.settle_now(&parcel, Settlement::Accepted)
                                {
                                    ledger.0.lock().entry((0, parcel.body)).or_default().1 += 1;
                                    idle = 0;
                                }
                            }
                        }
                        idle += 1;
                        match dice.throw(3) {
                            0 => device.unbind_group("g", "g"),
                            1 => device.vanish(),
                            _ => device.leave(),
                        }
                    }
                });
            }
        });
    });
    let wrong = ledger.wrong();
    assert!(wrong.is_empty(), "sent and acknowledged: {wrong:?}");
    assert_eq!((world.memory(), world.depth("queue://ActiveMQ.DLQ")), (0, 0));
    world.seconds(2);
    drop(world.device("keeper", Coming::for_ms(0).clean()));
    drop(world.device("member-3", Coming::for_ms(0).clean()));
    assert_eq!(world.stats().shared_subscriptions, 0);
    world.broker.close().unwrap();
}

#[test]
fn a_last_value_set_at_the_moment_of_a_subscription_reaches_it() {
    const ROUNDS: usize = 4_000;
    let world = threaded();
    let together = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = world.device("sender", Coming::for_ms(0));
            for round in 0..ROUNDS {
                let topic = format!("t.{round}");
                // The route is known and stays so until the subscription.
                sender.send(&topic, "live").at_most_once().ok();
                together.wait();
                for _ in 0..round % 64 {
                    std::hint::spin_loop();
                }
                sender.send(&topic, "kept").at_most_once().retain().ok();
                together.wait();
            }
        });
        let mut reader = world.device("reader", Coming::for_ms(0));
        let missed: Vec<usize> = (0..ROUNDS)
            .filter(|round| {
                let topic = format!("t.{round}");
                together.wait();
                reader.bind(&topic).at_most_once().replay(Replay::Always).ok();
                together.wait();
                reader.take_all().is_empty()
            })
            .collect();
        assert!(missed.is_empty(), "of {ROUNDS} {} were missed: {missed:?}", missed.len());
    });
    world.broker.close().unwrap();
}
