//! Runs each fuzz target over its corpus and over seeded mutations of it, on the stable compiler.
//!
//! How long is a matter of taste, not of correctness: `SABIR_FUZZ_SECONDS` (default 60) is shared by all targets. The
//! seeds are fixed, so a failure comes again; the input that caused it is printed.
#![expect(clippy::disallowed_methods, reason = "runs for as long as it is told")]
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 9] = [
    ("decoder", sabir_stomp::fuzz::fuzz_decoder),
    ("session", sabir_stomp::fuzz::fuzz_session),
    ("selector", sabir_model::selector::fuzz_selector),
    ("recovery", sabir_store::fuzz::fuzz_recovery),
    ("mqtt_decoder", sabir_mqtt::fuzz::fuzz_decode),
    ("mqtt_filter", sabir_mqtt::fuzz::fuzz_filter),
    ("mqtt_session", sabir_mqtt::fuzz::fuzz_session),
    ("http", sabir_http::fuzz::fuzz),
    ("json", sabir_json::fuzz::fuzz),
];

/// A small generator with a period long enough for a minute of mutations (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Words that mean something to some target: mutations that use them reach further than single bytes do.
const WORDS: [&[u8]; 36] = [
    b"\0",
    b"\n",
    b"\r\n",
    b":",
    b"\\n",
    b"\\c",
    b"\\t",
    b"SEND\n",
    b"ACK\n",
    b"NACK\n",
    b"SUBSCRIBE\n",
    b"BEGIN\n",
    b"content-length:",
    b"-1",
    b"18446744073709551616",
    b"receipt:r\n",
    b"transaction:t\n",
    b"/temp-queue/x",
    b" AND ",
    b"(",
    b"'",
    b" LIKE '%",
    b"\xff\xfe",
    b"\xf0\x9f\x98\x80",
    b"\x10\x0f\0\x04MQTT\x05\x02\0\0\0\0\x02id",
    b"\x32\x06\0\x01a\0\x01\0",
    b"\x82\x06\0\x01\0\x01#\x02",
    b"\x62\x02\0\x01",
    b"$share/g/",
    b"\x26\0\x01a\0\x01b",
    b"\x23\0\x01",
    b"/+/",
    b"{\"op\":\"send\",\"destination\":\"queue://a\"}",
    b"\"ref\":1,",
    b"\"transaction\":\"t\",",
    b"{\"$type\":\"i64\",\"value\":\"",
];

fn mutate(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(data.len() + 1);
        match random.below(7) {
            0 if !data.is_empty() => {
                let at = at.min(data.len() - 1);
                data[at] ^= 1 << random.below(8);
            }
            1 => drop(data.drain(at..(at + random.below(16)).min(data.len()))),
            2 => drop(data.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            3 => data.truncate(at),
            4 => {
                let from = random.below(other.len() + 1);
                drop(data.splice(at..at, other[from..].iter().copied()));
            }
            5 => {
                let copy = data[at..].to_vec();
                data.extend(copy);
            }
            _ => data.insert(at, random.next() as u8),
        }
    }
    data.truncate(64 * 1024);
    data
}

fn check(name: &str, target: fn(&[u8]), data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        panic!("target {name} failed on {:?}", data.escape_ascii().to_string());
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn no_target_fails_on_its_corpus_or_on_seeded_mutations_of_it() {
    let seconds = std::env::var("SABIR_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let budget = Duration::from_secs(seconds) / TARGETS.len() as u32;
    for (index, (name, target)) in TARGETS.into_iter().enumerate() {
        let seeds = corpus(name);
        assert!(!seeds.is_empty(), "{name} has no corpus");
        for seed in &seeds {
            check(name, target, seed);
        }
        let mut random = Random(index as u64);
        let start = Instant::now();
        let mut runs = 0u64;
        // At least a thousand, however slow the machine; at most what the time allows.
        while runs < 1000 || start.elapsed() < budget {
            let (seed, other) = (random.below(seeds.len()), random.below(seeds.len()));
            let data = mutate(&seeds[seed], &seeds[other], &mut random);
            check(name, target, &data);
            runs += 1;
        }
        println!("{name}: {runs} inputs");
    }
}
