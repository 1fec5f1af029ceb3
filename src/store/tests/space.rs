//! Full disks, old unacknowledged messages, large messages.

use super::model::{Op, append, open, options};
use crate::{FaultFs, Full, Level, StoreError, StoreOptions};
use std::time::Duration;

#[test]
fn a_few_old_messages_among_a_million_acknowledged_ones_pin_nothing() {
    let fs = FaultFs::new();
    let options = StoreOptions { segment_bytes: 64 << 10, journal_bytes_max: 256 << 10, ..options() };
    let (store, ..) = open(&fs, options.clone()).unwrap();
    let is_kept = |sequence: u64| sequence == 1 || sequence.is_multiple_of(20_000);
    let mut used_max = 0;
    for sequence in 1..=1_000_000u64 {
        let mut appender = store.begin_put().unwrap();
        appender.put(
            &[(sabir_model::ids::QueueId(1), sabir_model::ids::Sequence(sequence))],
            crate::PutMeta::default(),
            &[],
            b"body",
        );
        if !is_kept(sequence) {
            appender.acknowledge(sabir_model::ids::QueueId(1), sabir_model::ids::Sequence(sequence), 1);
        }
        appender.finish(Level::Os);
        if sequence % 500 == 0 {
            store.turn();
            used_max = used_max.max(fs.used());
        }
    }
    let stats = store.stats();
    assert!(used_max < 1 << 20, "{used_max} bytes for 51 messages");
    assert!(stats.evacuations > 20 && stats.live_ranges == 51, "{stats:?}");
    store.close().unwrap();
    drop(store);
    let (_, state, _) = open(&fs, options).unwrap();
    let kept: Vec<_> =
        (1..=1_000_000).filter(|&sequence| is_kept(sequence)).map(|sequence| (1, sequence)).collect();
    assert_eq!(state.messages.keys().copied().collect::<Vec<_>>(), kept);
    assert_eq!(state.next[&1], 1_000_001);
}

#[test]
fn a_reference_keeps_the_body_of_an_acknowledged_message_through_evacuation() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    append(&store, &[Op::Put { targets: vec![(1, 1)], body: b"precious".to_vec() }], Level::Os);
    append(
        &store,
        &[Op::Reference { to: (2, 5), from: (1, 1) }, Op::Acknowledge { queue: 1, first: 1, count: 1 }],
        Level::Os,
    );
    for sequence in 2..600 {
        let put = Op::Put { targets: vec![(1, sequence)], body: vec![0; 200] };
        if sequence % 40 == 0 {
            append(&store, &[Op::Put { targets: vec![(4, sequence)], body: vec![4; 9] }], Level::Os);
        }
        append(&store, &[put, Op::Acknowledge { queue: 1, first: sequence, count: 1 }], Level::Os);
        store.turn();
    }
    assert!(store.stats().evacuations > 1);
    append(&store, &[Op::Reference { to: (3, 1), from: (2, 5) }], Level::Os);
    store.close().unwrap();
    drop(store);
    let (_, state, _) = open(&fs, options()).unwrap();
    assert_eq!(state.messages.keys().filter(|key| key.0 != 4).copied().collect::<Vec<_>>(), [(2, 5), (3, 1)]);
    assert!([(2, 5), (3, 1)].iter().all(|key| state.messages[key].ends_with(b"|precious")));
}

#[test]
fn a_full_disk_refuses_sends_takes_acknowledgements_and_recovers_by_itself() {
    let fs = FaultFs::new();
    let options = StoreOptions { journal_bytes_max: 1 << 40, ..options() };
    let (store, ..) = open(&fs, options.clone()).unwrap();
    fs.set_capacity(Some(fs.used() + 20_000));
    let mut sent = 0;
    let refused = loop {
        match store.begin_put() {
            Ok(mut appender) => {
                sent += 1;
                Op::Put { targets: vec![(1, sent)], body: vec![1; 200] }.append(&mut appender);
                appender.finish(Level::Fsync);
            }
            Err(full) => break full,
        }
        store.turn();
        assert!(sent < 10_000);
    };
    assert_eq!(refused, Full::Disk);
    assert!(store.stats().disk_full);
    // The reserve takes acknowledgements; what they free makes room again, without a byte from outside.
    for sequence in 1..sent {
        append(&store, &[Op::Acknowledge { queue: 1, first: sequence, count: 1 }], Level::Fsync);
        store.turn();
        fs.advance(Duration::from_secs(1));
    }
    store.turn();
    assert!(store.watermark().covers(sabir_model::ids::Position(2 * sent - 1), Level::Fsync));
    assert!(store.begin_put().is_ok() && !store.stats().disk_full, "{:?}", store.stats());
    store.close().unwrap();
    drop(store);
    let (_, state, _) = open(&fs, options).unwrap();
    assert_eq!(state.messages.keys().copied().collect::<Vec<_>>(), [(1, sent)]);
}

#[test]
fn a_process_without_descriptors_waits_for_them_and_loses_nothing() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    fs.set_without_descriptors(true);
    let mut sent = 0;
    for _ in 0..200 {
        if store.begin_put().is_ok() {
            sent += 1;
            append(&store, &[Op::Put { targets: vec![(1, sent)], body: vec![1; 200] }], Level::Fsync);
            append(&store, &[Op::Acknowledge { queue: 1, first: sent, count: 1 }], Level::Fsync);
        }
        fs.advance(Duration::from_secs(60));
        store.turn();
    }
    assert_eq!(store.failed(), None, "that is no failure");
    let before = store.stats().checkpoints;
    fs.set_without_descriptors(false);
    for _ in 0..3 {
        fs.advance(Duration::from_secs(60));
        store.turn();
    }
    assert!(store.stats().checkpoints > before);
    append(&store, &[Op::Put { targets: vec![(1, sent + 1)], body: vec![2; 200] }], Level::Fsync);
    store.close().unwrap();
    drop(store);
    let (_, state, _) = open(&fs, options()).unwrap();
    assert_eq!(state.messages.keys().copied().collect::<Vec<_>>(), [(1, sent + 1)]);
}

#[test]
fn space_from_outside_ends_a_full_disk_as_well() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    fs.set_capacity(Some(fs.used()));
    for sequence in 1..60 {
        append(&store, &[Op::Put { targets: vec![(1, sequence)], body: vec![1; 200] }], Level::Fsync);
        store.turn();
    }
    assert_eq!(store.begin_put().err(), Some(Full::Disk));
    assert!(store.failed().is_none(), "a full disk is no failure");
    fs.set_capacity(None);
    store.turn();
    store.turn();
    assert!(store.begin_put().is_ok());
    let durable = store.sync();
    assert!(durable.covers(sabir_model::ids::Position(59), Level::Fsync));
    store.close().unwrap();
}

#[test]
fn the_configured_limit_counts_like_a_full_disk() {
    let fs = FaultFs::new();
    let options = StoreOptions { disk_bytes_max: Some(16 << 10), ..options() };
    let (store, ..) = open(&fs, options).unwrap();
    let mut sent = 0;
    while store.begin_put().is_ok() {
        sent += 1;
        append(&store, &[Op::Put { targets: vec![(1, sent)], body: vec![1; 200] }], Level::Os);
        store.turn();
        assert!(sent < 1000);
    }
    assert!(store.stats().disk_bytes <= 16 << 10);
    append(&store, &[Op::Acknowledge { queue: 1, first: 1, count: sent }], Level::Os);
    for _ in 0..3 {
        store.turn();
    }
    assert!(store.begin_put().is_ok());
}

#[test]
fn a_disk_that_is_full_at_start_is_named() {
    let fs = FaultFs::new();
    fs.set_capacity(Some(2000));
    let error = open(&fs, options()).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("is full"), "{error}");
}

#[test]
fn a_full_disk_does_not_keep_the_store_from_starting_again() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    for sequence in 1..40 {
        append(&store, &[Op::Put { targets: vec![(1, sequence)], body: vec![1; 200] }], Level::Fsync);
        store.turn();
    }
    store.close().unwrap();
    drop(store);
    fs.set_capacity(Some(fs.used()));
    let (_, state, _) = open(&fs, options()).unwrap();
    assert_eq!(state.messages.len(), 39);
}

#[test]
fn a_message_of_many_segments_is_one_frame_and_its_space_comes_back() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    append(&store, &[Op::Put { targets: vec![(1, 1)], body: vec![1; 50] }], Level::Os);
    let big = Op::Put { targets: vec![(1, 2), (2, 1)], body: vec![7; 300_000] };
    let mut appender = store.begin_put_sized(300_000).unwrap();
    big.append(&mut appender);
    let position = appender.finish(Level::Fsync);
    append(&store, &[Op::Put { targets: vec![(1, 3)], body: vec![3; 50] }], Level::Fsync);
    assert!(store.sync().covers(position, Level::Fsync));
    store.close().unwrap();
    drop(store);
    let (store, state, _) = open(&fs, options()).unwrap();
    assert_eq!(state.messages.len(), 4);
    assert_eq!(state.messages[&(2, 1)].len(), 300_015);
    append(
        &store,
        &[Op::Acknowledge { queue: 1, first: 1, count: 9 }, Op::Acknowledge { queue: 2, first: 1, count: 1 }],
        Level::Os,
    );
    for _ in 0..12 {
        fs.advance(Duration::from_secs(31));
        append(&store, &[Op::Set { key: 1, value: vec![1; 900] }], Level::Os);
        store.turn();
    }
    assert!(fs.used() < 100_000, "{}", fs.used());
}

#[test]
fn a_message_larger_than_the_disk_is_refused_and_harms_nobody() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    fs.set_capacity(Some(fs.used() + 50_000));
    assert_eq!(store.begin_put_sized(300_000).err(), Some(Full::Disk));
    let position = append(&store, &[Op::Put { targets: vec![(1, 1)], body: vec![1; 50] }], Level::Fsync);
    assert!(store.sync().covers(position, Level::Fsync));
}

#[test]
fn large_messages_in_flight_together_are_accepted_only_if_all_of_them_fit() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    store.turn();
    fs.set_capacity(Some(fs.used() + 500_000));
    let mut accepted = Vec::new();
    for sequence in 1..=4 {
        let big = Op::Put { targets: vec![(1, sequence)], body: vec![7; 200_000] };
        match store.begin_put_sized(200_000) {
            Ok(mut appender) => {
                big.append(&mut appender);
                accepted.push(appender.finish(Level::Fsync));
            }
            Err(full) => assert_eq!(full, Full::Disk),
        }
    }
    assert!((1..4).contains(&accepted.len()), "{accepted:?}");
    // Whatever was accepted can be written, and so can what comes after it.
    let ack = append(&store, &[Op::Acknowledge { queue: 1, first: 1, count: 1 }], Level::Fsync);
    store.turn();
    assert!(accepted.iter().all(|position| store.watermark().covers(*position, Level::Fsync)));
    assert!(store.watermark().covers(ack, Level::Fsync));
}

#[test]
fn unwritten_bytes_above_the_mark_refuse_sends_until_they_are_written() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, StoreOptions { pending_bytes_max: 1000, ..options() }).unwrap();
    append(&store, &[Op::Put { targets: vec![(1, 1)], body: vec![1; 2000] }], Level::Fsync);
    assert!(store.pending_bytes() > 2000);
    assert_eq!(store.begin_put().err(), Some(Full::Pending));
    append(&store, &[Op::Acknowledge { queue: 1, first: 1, count: 1 }], Level::Fsync);
    store.sync();
    assert_eq!(store.pending_bytes(), 0);
    assert!(store.begin_put().is_ok());
}

#[test]
fn an_interval_group_is_written_at_once_and_synced_when_its_time_has_come() {
    let fs = FaultFs::new();
    let (store, ..) = open(&fs, options()).unwrap();
    let level = Level::Interval(Duration::from_millis(20));
    let position = append(&store, &[Op::Set { key: 1, value: vec![1] }], level);
    assert!(!store.watermark().covers(position, level));
    store.turn();
    assert!(store.watermark().covers(position, level) && !store.watermark().covers(position, Level::Fsync));
    fs.advance(Duration::from_millis(19));
    store.turn();
    assert!(!store.watermark().covers(position, Level::Fsync));
    fs.advance(Duration::from_millis(1));
    store.turn();
    assert!(store.watermark().covers(position, Level::Fsync));
}

#[test]
fn below_the_low_mark_of_free_space_sends_are_refused_until_the_high_one_is_reached() {
    let fs = FaultFs::new();
    let marks = StoreOptions { disk_free_bytes_min: 20_000, disk_free_bytes_resume: 60_000, ..options() };
    let (store, ..) = open(&fs, marks).unwrap();
    store.turn();
    append(&store, &[Op::Put { targets: vec![(1, 1)], body: vec![1; 50] }], Level::Fsync);
    store.turn();
    let free = |bytes: u64| {
        fs.set_capacity(Some(fs.used() + bytes));
        store.turn();
        (store.begin_put().err(), store.stats().disk_free_bytes)
    };
    assert_eq!(free(20_000), (None, 20_000));
    assert_eq!(free(19_999), (Some(Full::Disk), 19_999));
    assert!(store.stats().disk_full);
    // Acknowledgements and reads go on, on what is left.
    let read = super::model::read_back(
        &store,
        1,
        &mut std::iter::once((sabir_model::ids::Sequence(1), sabir_model::ids::Sequence(1))),
    );
    assert_eq!(read.unwrap().len(), 1);
    for _ in 0..60 {
        let position = append(&store, &[Op::Set { key: 1, value: vec![1; 300] }], Level::Fsync);
        assert!(store.sync().covers(position, Level::Fsync));
    }
    assert_eq!(free(40_000).0, Some(Full::Disk), "not yet");
    assert_eq!(free(60_000).0, None);
    assert_eq!(free(40_000).0, None, "and not again");
}

#[test]
fn what_is_left_of_a_deep_backlog_is_evacuated_into_few_runs_and_can_be_read() {
    let fs = FaultFs::new();
    let options = StoreOptions { segment_bytes: 64 << 10, journal_bytes_max: 256 << 10, ..options() };
    let (store, ..) = open(&fs, options).unwrap();
    const COUNT: u64 = 10_000;
    for sequence in 1..=COUNT {
        append(&store, &[Op::Put { targets: vec![(1, sequence)], body: vec![1; 40] }], Level::Os);
        if sequence % 100 == 0 {
            store.turn();
        }
    }
    for i in 0..COUNT * 7 / 10 {
        append(&store, &[Op::Acknowledge { queue: 1, first: i * 6_181 % COUNT + 1, count: 1 }], Level::Os);
        if i % 100 == 0 {
            store.turn();
        }
    }
    for _ in 0..40 {
        fs.advance(Duration::from_secs(31));
        append(&store, &[Op::Set { key: 1, value: vec![1] }], Level::Os);
        store.turn();
    }
    let stats = store.stats();
    assert!(stats.evacuations > 5 && stats.segments_live <= 4, "{stats:?}");
    assert!(stats.page_bytes < stats.bytes_live * 2, "{stats:?}");
    // Stretches are short in tests: a run holds about five of these messages at best.
    assert!(stats.live_ranges < COUNT * 3 / 10 / 3, "{stats:?}");
    let all = (sabir_model::ids::Sequence(1), sabir_model::ids::Sequence(COUNT));
    let read = super::model::read_back(&store, 1, &mut std::iter::once(all)).unwrap();
    assert_eq!(read.len() as u64, COUNT * 3 / 10);
}
