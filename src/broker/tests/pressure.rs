//! Back-pressure: who waits, who is refused, and who notices nothing of a flood.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use sabir_model::command::Outcome;
use sabir_model::error::Code;

use super::fake::Woken;
use super::harness::{Client, Setup, World};
use crate::{Policy, SlowConsumer};

fn with_memory(bytes: u64) -> Setup {
    let mut setup = Setup::default();
    setup.limits.memory_bytes_max = bytes;
    setup
}

fn permit(client: &mut Client) -> Poll<()> {
    client.host().poll_readable_permit(&mut Context::from_waker(Waker::noop()))
}

fn may_be_read(client: &mut Client) -> bool {
    permit(client).is_ready()
}

/// One reading of a client, if it is its turn: it sends so many messages.
fn read_once(client: &mut Client, to: &str, body: &str, count: usize) -> bool {
    let its_turn = may_be_read(client);
    if its_turn {
        client.batch(|client| {
            for _ in 0..count {
                client.send(to, body).persistent().ok();
            }
        });
        let _ = client.try_flush();
        // It stands in line again at once.
        let _ = permit(client);
    }
    its_turn
}

#[test]
fn who_fills_a_queue_waits_and_nobody_else() {
    let world = with_memory(300_000).open();
    let (mut flood, mut polite, mut consumer) = (world.client(), world.client(), world.client());
    consumer.subscribe("queue://flooded").credit(1).ok();
    let mut sent = 0;
    while may_be_read(&mut flood) {
        flood.send("queue://flooded", &"x".repeat(1000)).ok();
        sent += 1;
    }
    assert!((130..200).contains(&sent), "it waits from 58 % of the memory on, and has sent {sent}");
    for _ in 0..100 {
        assert!(may_be_read(&mut polite));
        polite.send("queue://small", "x").ok();
    }
    assert!(may_be_read(&mut consumer));
    assert_eq!(world.stats().waiting_for_memory, 1);
    assert_eq!(world.stats().waits_for_memory, 1);

    // Never a standstill.
    world.broker.tick(world.now());
    assert!(may_be_read(&mut flood));
    flood.send("queue://flooded", "x").ok();
    assert!(!may_be_read(&mut flood));

    // A fifth below the mark it goes on, without waiting for time to pass.
    let mut taken = 0;
    while !may_be_read(&mut flood) {
        let got = consumer.one();
        consumer.ack(&got);
        taken += 1;
        assert!(taken < sent);
    }
    assert!(taken > 10, "not at the first message: {taken}");
    assert_eq!(world.stats().waiting_for_memory, 0);
    flood.close();
}

#[test]
fn a_flood_has_no_more_than_its_share_and_the_others_are_not_refused() {
    let mut setup = with_memory(300_000);
    // The log takes nothing of it.
    setup.limits.spilled_bytes_max = 0;
    let world = setup.open();
    let mut floods: Vec<Client> = (0..3).map(|_| world.client()).collect();
    let (mut polite, mut consumer) = (world.client(), world.client());
    consumer.subscribe("queue://polite").ok();
    let mut taken_of_floods = 0;
    for round in 0..1000 {
        for (number, flood) in floods.iter_mut().enumerate() {
            let outcome = flood.send(&format!("queue://flood{number}"), &"x".repeat(1000)).outcome();
            match outcome {
                Outcome::Accepted(_) => taken_of_floods += 1,
                Outcome::Refused(refusal) => assert_eq!(refusal.code, Code::MemoryFull),
                Outcome::Later => unreachable!("a send is answered at once"),
            }
        }
        // As large as those of the floods, and sent as often.
        polite.send("queue://polite", &"y".repeat(1000)).ok();
        let got = consumer.one();
        assert_eq!(got.body.len(), 1000, "round {round}");
        consumer.ack(&got);
    }
    assert!((200..260).contains(&taken_of_floods), "{taken_of_floods}");
    assert!(world.memory() < 300_000);
    let refused: u64 = world.stats().refused_by_code.iter().map(|(_, count)| count).sum();
    assert_eq!(refused + taken_of_floods, 3000);
    assert_eq!(world.stats().refused_by_code, [("memory-full", refused)]);
}

#[test]
fn who_owes_settlements_is_read_although_it_floods() {
    let world = with_memory(300_000).open();
    let (mut both, mut other) = (world.client(), world.client());
    // A subscription alone is no excuse, nor are deliveries that settle themselves.
    both.subscribe("queue://quiet").ok();
    both.subscribe("queue://self").auto().ok();
    other.send("queue://self", "x").ok();
    while may_be_read(&mut both) {
        both.send("queue://flooded", &"x".repeat(1000)).ok();
    }
    assert_eq!(world.stats().waiting_for_memory, 1);
    other.send("queue://quiet", "x").ok();
    assert!(may_be_read(&mut both), "its acknowledgement is to be read");
    assert_eq!(world.stats().waiting_for_memory, 0);
    let got = both.drain().pop().unwrap();
    both.ack(&got);
    both.send("queue://flooded", "x").ok();
    assert!(!may_be_read(&mut both));
}

#[test]
fn who_waits_is_woken_by_a_delivery_that_it_must_settle() {
    let world = with_memory(300_000).open();
    let (mut both, mut other) = (world.client(), world.client());
    both.subscribe("queue://quiet").ok();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let permit = |client: &mut Client| client.host().poll_readable_permit(&mut Context::from_waker(&waker));
    while permit(&mut both).is_ready() {
        both.send("queue://flooded", &"x".repeat(1000)).ok();
    }
    assert!(permit(&mut both).is_pending());
    woken.0.store(false, Ordering::Release);
    other.send("queue://quiet", "x").ok();
    assert!(woken.0.load(Ordering::Acquire));
}

#[test]
fn those_who_wait_for_the_log_are_let_in_by_sixteen_and_each_has_its_turn() {
    let mut setup = Setup::default();
    setup.limits.pending_bytes_soft = 20_000;
    let world = setup.open();
    let mut clients: Vec<Client> = (0..50).map(|_| world.client()).collect();
    let body = "x".repeat(1000);
    let mut turns = vec![0u32; clients.len()];
    for (number, client) in clients.iter_mut().enumerate() {
        assert!(read_once(client, "queue://q", &body, 1), "who has sent nothing is not to blame");
        turns[number] += 1;
    }
    for client in &mut clients {
        assert!(!may_be_read(client), "the log is behind");
    }
    assert_eq!((world.stats().waiting_for_log, world.stats().waits_for_log), (50, 50));
    for _ in 0..25 {
        world.broker.store().sync();
        world.broker.tick(world.now());
        // Those let in fill the log's buffer, so that nobody else comes in before it is written.
        let mut read = 0;
        for (number, client) in clients.iter_mut().enumerate() {
            if read_once(client, "queue://q", &body, 20) {
                turns[number] += 1;
                read += 1;
            }
        }
        assert!((1..=16).contains(&read), "{read} at a time");
    }
    let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
    // Of those let in together, nobody says which goes first.
    assert!(*least >= 7 && most - least <= 3, "{turns:?}");
    world.broker.store().sync();
    drop(clients);
    assert_eq!(world.stats().waiting_for_log, 0);
}

/// So many clients that wait for memory, whose queue stays full.
fn flooded(setup: Setup, count: usize) -> (World, Vec<Client>) {
    let world = setup.open();
    let mut clients: Vec<Client> = (0..count).map(|_| world.client()).collect();
    for client in &mut clients {
        while may_be_read(client) {
            client.send("queue://flooded", &"x".repeat(1000)).ok();
        }
    }
    assert_eq!(world.stats().waiting_for_memory, count as u64);
    (world, clients)
}

#[test]
fn who_is_let_in_and_has_nothing_to_say_keeps_nobody_out() {
    let (world, mut clients) = flooded(with_memory(1_000_000), 40);
    let mut turns = vec![0u32; clients.len()];
    for _ in 0..4 {
        world.broker.tick(world.now());
        for (client, turns) in clients.iter_mut().zip(&mut turns) {
            // Its socket has nothing, so its driver flushes and sleeps.
            if may_be_read(client) {
                *turns += 1;
                assert!(client.try_flush().is_ready());
            }
        }
    }
    assert!(turns.iter().all(|turns| *turns > 0), "{turns:?}");
}

#[test]
fn who_is_let_in_and_does_not_read_its_answers_keeps_nobody_out() {
    let (world, mut clients) = flooded(with_memory(1_000_000), 40);
    let mut sender = world.client();
    for client in clients.iter_mut().take(20) {
        client.subscribe("topic://t").auto().ok();
        client.block_after(0);
    }
    for _ in 0..100 {
        sender.send("topic://t", &"y".repeat(2000)).ok();
    }
    let mut turns = vec![0u32; clients.len()];
    for _ in 0..6 {
        world.broker.tick(world.now());
        for (client, turns) in clients.iter_mut().zip(&mut turns) {
            if may_be_read(client) {
                *turns += 1;
                let _ = client.try_flush();
            }
        }
    }
    assert!(turns.iter().take(20).all(|turns| *turns == 0), "they are to read first: {turns:?}");
    assert!(turns.iter().skip(20).all(|turns| *turns > 0), "{turns:?}");
}

#[test]
fn who_is_not_held_back_does_not_take_all_the_room_of_the_log() {
    let mut setup = Setup::default();
    (setup.limits.pending_bytes_soft, setup.limits.pending_bytes_max) = (20_000, 100_000);
    let world = setup.open();
    let (mut flood, mut polite) = (world.client(), world.client());
    flood.subscribe("queue://debts").ok();
    polite.send("queue://debts", "x").ok();
    let mut sent = 0;
    let body = "x".repeat(1000);
    while may_be_read(&mut flood) && flood.send("queue://q", &body).persistent().outcome_is_accepted() {
        sent += 1;
    }
    assert!((30..70).contains(&sent), "{sent}");
    for _ in 0..15 {
        polite.send("queue://other", &body).persistent().ok();
    }
    assert_eq!(flood.send("queue://q", &body).persistent().refused(), Code::StorageFull);
    world.broker.store().sync();
    flood.send("queue://q", &body).persistent().ok();
}

#[test]
fn an_open_transaction_counts_and_has_no_more_than_its_share() {
    let world = with_memory(300_000).open();
    let (mut greedy, mut polite) = (world.client(), world.client());
    let tx = greedy.begin();
    let body = "x".repeat(1000);
    let mut kept = 0;
    while greedy.send("queue://q", &body).in_transaction(tx).outcome_is_accepted() {
        kept += 1;
    }
    assert!((200..290).contains(&kept), "{kept}");
    assert!(world.stats().memory_transactions >= kept * 1000);
    for _ in 0..20 {
        polite.send("queue://other", &body).ok();
    }
    greedy.abort(tx);
    assert_eq!(world.stats().memory_transactions, 0);
    let tx = greedy.begin();
    greedy.send("queue://q", &body).in_transaction(tx).ok();
    assert!(matches!(greedy.commit(tx), Outcome::Accepted(_)));
    let tx = greedy.begin();
    greedy.send("queue://q", &body).in_transaction(tx).ok();
    greedy.vanish();
    assert_eq!(world.stats().memory_transactions, 0);
}

#[test]
fn frames_that_have_arrived_in_part_count_and_end_where_there_is_no_memory_for_them() {
    let world = with_memory(2_000_000).open();
    let (mut a, mut b) = (world.client(), world.client());
    a.host().hold_frame(1_500_000).unwrap();
    assert_eq!(world.stats().memory_frames, 1_500_000);
    assert_eq!(b.host().hold_frame(1_000_000).unwrap_err().code, Code::MemoryFull);
    b.close();
    assert_eq!(world.stats().memory_frames, 1_500_000);
    let mut c = world.client();
    c.host().hold_frame(100_000).unwrap();
    a.host().hold_frame(0).unwrap();
    c.close();
    assert_eq!(world.memory(), 0);
}

#[test]
fn what_waits_for_stalled_subscribers_counts_and_the_fast_ones_get_everything() {
    for policy in [SlowConsumer::DropOldest, SlowConsumer::DropNewest] {
        let mut setup = with_memory(1_000_000);
        let policy = Policy { slow_consumer: policy, pending_max: 1_000_000, ..Policy::default() };
        setup = setup.policy("topic://t", policy);
        let world = setup.open();
        let mut stalled: Vec<Client> = (0..5).map(|_| world.client()).collect();
        for client in &mut stalled {
            client.subscribe("topic://t").auto().ok();
            client.block_after(0);
        }
        let (mut fast, mut sender) = (world.client(), world.client());
        fast.subscribe("topic://t").auto().ok();
        let body = "x".repeat(1000);
        let mut got = 0;
        for _ in 0..3000 {
            sender.send("topic://t", &body).ok();
            got += fast.drain().len();
            sender.send("queue://q", &body).ok();
            assert!(world.memory() < 1_000_000, "{}", world.memory());
            let mut taker = world.client();
            taker.subscribe("queue://q").auto().ok();
            taker.close();
        }
        assert_eq!(got, 3000);
        assert_eq!(world.stats().connections_slow, 5);
        assert!(world.stats().discarded > 0);
        drop(stalled);
        assert_eq!(world.stats().memory_bytes, 0);
        assert_eq!(world.stats().connections_slow, 0);
    }
}

#[test]
fn a_consumer_that_settles_nothing_does_not_fill_the_memory_with_what_the_log_holds() {
    let mut setup = with_memory(300_000);
    setup.limits.queue_memory_bytes_max = 10_000;
    let world = setup.open();
    let (mut producer, mut hoarder) = (world.client(), world.client());
    let body = "x".repeat(1000);
    hoarder.subscribe("queue://q").credit(100_000).ok();
    let mut got = Vec::new();
    for number in 0..2000 {
        producer.send("queue://q", &format!("{number:04}{body}")).persistent().ok();
        if number % 100 == 0 {
            producer.synced();
            world.pass(std::time::Duration::from_secs(1));
        }
        got.extend(hoarder.drain());
        assert!(world.memory() < 300_000, "{number}: {}", world.memory());
    }
    producer.synced();
    assert!(got.len() > 180, "{}", got.len());
    // Each of them comes once it settles what it has, in order.
    let mut all: Vec<String> = Vec::new();
    while !got.is_empty() {
        for one in std::mem::take(&mut got) {
            hoarder.ack(&one);
            all.push(one.body[..4].to_owned());
            got.extend(hoarder.drain());
        }
        world.pass(std::time::Duration::from_secs(1));
        hoarder.run();
        got.extend(hoarder.drain());
    }
    assert_eq!(all, (0..2000).map(|number| format!("{number:04}")).collect::<Vec<_>>());
    assert_eq!(world.memory(), 0);
}

#[test]
fn who_goes_while_it_waits_leaves_no_trace() {
    let world = with_memory(100_000).open();
    for clean in [true, false] {
        let mut flood = world.client();
        while may_be_read(&mut flood) {
            flood.send("queue://flooded", &"x".repeat(1000)).ok();
        }
        assert_eq!(world.stats().waiting_for_memory, 1);
        flood.leave(clean);
        assert_eq!(world.stats().waiting_for_memory, 0);
    }
    world.broker.tick(world.now());
    let mut other = world.client();
    while may_be_read(&mut other) {
        other.send("queue://flooded", &"x".repeat(1000)).ok();
    }
    // It has been let in and goes before it has read anything.
    world.broker.tick(world.now());
    other.close();
    let mut clients: Vec<Client> = (0..40).map(|_| world.client()).collect();
    for client in &mut clients {
        client.send("queue://flooded", "x").outcome();
        assert!(!may_be_read(client));
    }
    world.broker.tick(world.now());
    assert_eq!(world.stats().waiting_for_memory, 24, "sixteen at a time, whatever others did");
}

#[test]
fn a_flood_of_what_the_log_holds_leaves_memory_for_others_before_anybody_looks() {
    let world = with_memory(1_000_000).open();
    let (mut flood, mut small) = (world.client(), world.client());
    let body = "x".repeat(1000);
    // No tick comes in between.
    for number in 0..6000 {
        flood.send(&format!("queue://flooded-{}", number % 3), &body).persistent().ok();
    }
    let memory = world.stats().memory_bytes;
    assert!(memory < 1_000_000, "{memory} bytes");
    small.send("queue://small", "x").ok();
}
