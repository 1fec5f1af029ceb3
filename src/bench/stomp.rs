//! `sabir bench stomp`: producers and consumers over plain sockets, a bounded number of messages in flight.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sabir_stomp::client::{self, Connect, Decoder, Version};

use crate::report::{Common, Report, Stopwatch};
use crate::verify::{STAMP_BYTES, Tally, stamp};
use crate::wire::{Place, Wire};

/// Frames encoded before each write.
const BATCH_FRAMES: u64 = 256;
/// What one read takes.
const READ_BYTES: usize = 256 * 1024;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Broker's STOMP listener
    #[arg(long, default_value = "127.0.0.1:61613")]
    pub server: String,
    /// Over WebSocket instead: ws://HOST:PORT/PATH
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    pub url: Option<String>,
    /// Where messages go, with `/queue/` or `/topic/`
    #[arg(long, default_value = "/queue/sabir.bench")]
    pub destination: String,
    /// Connections that send
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub producers: u16,
    /// Connections that receive
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub consumers: u16,
    /// Messages in all
    #[arg(long, default_value_t = 200_000)]
    pub messages: u64,
    /// Body size in bytes, at least 21
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// Messages in flight: end to end over all producers, or with --receipts per producer
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub window: u64,
    /// Send persistent messages
    #[arg(long)]
    pub persistent: bool,
    /// Ask for a receipt for every message, and let receipts move the window
    #[arg(long)]
    pub receipts: bool,
    /// Acknowledgement mode: auto, client or client-individual
    #[arg(long, default_value = "auto", value_parser = ["auto", "client", "client-individual"])]
    pub ack: String,
    /// Deliveries a consumer may have unacknowledged
    #[arg(long, default_value_t = 1000)]
    pub prefetch: u32,
    /// User name
    #[arg(long)]
    pub login: Option<String>,
    /// Password
    #[arg(long)]
    pub passcode: Option<String>,
    /// What every measurement can be told
    #[command(flatten)]
    pub common: Common,
}

struct Shared {
    sent: AtomicU64,
    received: AtomicU64,
    failed: AtomicBool,
    done: AtomicBool,
    /// Copies each message has: 1 on a queue, one per consumer on a topic.
    copies: u64,
}

/// Runs one measurement and prints it. False if messages were lost, doubled or out of order.
///
/// # Errors
/// A sentence, if the broker cannot be reached or breaks the protocol.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    if arguments.size < STAMP_BYTES {
        return Err(format!("--size must be at least {STAMP_BYTES}: every message carries a stamp"));
    }
    let is_topic = arguments.destination.starts_with("/topic/");
    let copies =
        if is_topic { u64::from(arguments.consumers) } else { u64::from(arguments.consumers.min(1)) };
    let shared = Arc::new(Shared {
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        done: AtomicBool::new(false),
        copies,
    });
    let arguments = Arc::new(arguments.clone());

    let mut consumers = Vec::new();
    for index in 0..arguments.consumers {
        consumers.push(Peer::subscribe(&arguments, index).map_err(|error| format!("consumer: {error}"))?);
    }
    let mut producers = Vec::new();
    for _ in 0..arguments.producers {
        producers.push(Peer::open(&arguments).map_err(|error| format!("producer: {error}"))?);
    }

    let stopwatch = Stopwatch::start(arguments.common.pid);
    let producing: Vec<_> = producers
        .into_iter()
        .enumerate()
        .map(|(index, peer)| {
            let (arguments, shared) = (Arc::clone(&arguments), Arc::clone(&shared));
            thread::spawn(move || produce(peer, index, &arguments, &shared))
        })
        .collect();
    let threads: Arc<[Thread]> = producing.iter().map(|handle| handle.thread().clone()).collect();
    let consuming: Vec<_> = consumers
        .into_iter()
        .map(|peer| {
            let (arguments, shared, threads) =
                (Arc::clone(&arguments), Arc::clone(&shared), Arc::clone(&threads));
            thread::spawn(move || consume(peer, &arguments, &shared, &threads))
        })
        .collect();

    let mut problems: Vec<String> = Vec::new();
    for handle in producing {
        match handle.join() {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => problems.push(format!("producer: {problem}")),
            Err(_) => problems.push("producer: panicked".into()),
        }
    }
    // With nobody to receive, that is all.
    if copies > 0 {
        wait_for_all(&arguments, &shared);
    }
    let lap = stopwatch.stop();
    shared.done.store(true, Ordering::Release);
    let mut tallies: Vec<Tally> = Vec::new();
    for handle in consuming {
        match handle.join() {
            Ok(Ok(tally)) => tallies.push(tally),
            Ok(Err(problem)) => problems.push(format!("consumer: {problem}")),
            Err(_) => problems.push("consumer: panicked".into()),
        }
    }
    let sent = shared.sent.load(Ordering::Acquire);
    let (expected, tally) = (sent * copies, total(&tallies));
    let report = Report {
        sent,
        expected,
        received: tally.received,
        lost: expected.saturating_sub(tally.received),
        duplicates: tally.received.saturating_sub(expected),
        out_of_order: tally.out_of_order,
        redelivered: tally.redelivered,
        lap,
        problems,
    };
    report.print(arguments.common.json);
    Ok(report.is_clean())
}

fn wait_for_all(arguments: &Arguments, shared: &Shared) {
    let mut last = (shared.received.load(Ordering::Acquire), Instant::now());
    loop {
        let received = shared.received.load(Ordering::Acquire);
        if received >= shared.sent.load(Ordering::Acquire) * shared.copies
            || shared.failed.load(Ordering::Acquire)
        {
            return;
        }
        if received != last.0 {
            last = (received, Instant::now());
        } else if last.1.elapsed() > arguments.common.patience() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn total(tallies: &[Tally]) -> Tally {
    let mut all = Tally::default();
    for tally in tallies {
        all.received += tally.received;
        all.out_of_order += tally.out_of_order;
        all.redelivered += tally.redelivered;
        all.foreign += tally.foreign;
    }
    all
}

/// One connection to the broker.
struct Peer {
    wire: Wire,
    decoder: Decoder,
}

impl Peer {
    fn open(arguments: &Arguments) -> Result<Self, String> {
        let place = Place::of(&arguments.server, arguments.url.as_deref(), "/stomp")?;
        let wire = Wire::open(&place, READ_BYTES, "v12.stomp", false)?;
        let mut peer = Self { wire, decoder: Decoder::new(Version::V12) };
        let mut out = Vec::new();
        let connect = Connect {
            versions: &[Version::V12],
            host: Some("/"),
            login: arguments.login.as_deref(),
            passcode: arguments.passcode.as_deref(),
            ..Connect::default()
        };
        client::connect(&mut out, &connect);
        peer.wire.write(&out)?;
        peer.expect("CONNECTED", arguments.common.patience)?;
        Ok(peer)
    }

    fn subscribe(arguments: &Arguments, index: u16) -> Result<Self, String> {
        let mut peer = Self::open(arguments)?;
        let mut out = Vec::new();
        let prefetch = arguments.prefetch.to_string();
        let id = index.to_string();
        // Both families' headers for the same wish, so that one generator fits every broker.
        let headers = [
            ("destination", arguments.destination.as_str()),
            ("id", id.as_str()),
            ("ack", arguments.ack.as_str()),
            ("activemq.prefetchSize", prefetch.as_str()),
            ("prefetch-count", prefetch.as_str()),
            ("receipt", "subscribed"),
        ];
        client::frame(&mut out, Version::V12, "SUBSCRIBE", headers.iter().copied(), None);
        peer.wire.write(&out)?;
        peer.expect("RECEIPT", arguments.common.patience)?;
        Ok(peer)
    }

    /// Hands every whole frame to `each`.
    fn frames(
        &mut self,
        mut each: impl FnMut(&client::Frame<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        while !self.wire.input().is_empty() {
            let decoded = self.decoder.next(self.wire.input()).map_err(|refusal| refusal.to_string())?;
            let (consumed, found) = (decoded.consumed, decoded.frame.is_some());
            if let Some(frame) = decoded.frame {
                if frame.command() == "ERROR" {
                    return Err(format!("the broker says: {}", String::from_utf8_lossy(frame.body())));
                }
                each(&frame)?;
            }
            self.wire.consume(consumed);
            if !found {
                break;
            }
        }
        Ok(())
    }

    fn expect(&mut self, command: &str, patience: u64) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(patience);
        let mut seen = false;
        while !seen {
            if Instant::now() > deadline {
                return Err(format!("no {command} from the broker"));
            }
            self.wire.fill()?;
            self.frames(|frame| {
                seen |= frame.command() == command;
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn produce(mut peer: Peer, index: usize, arguments: &Arguments, shared: &Shared) -> Result<(), String> {
    let producers = u64::from(arguments.producers.max(1));
    let mine = arguments.messages / producers + u64::from((index as u64) < arguments.messages % producers);
    let producer = u16::try_from(index).unwrap_or(u16::MAX);
    let mut body = vec![b'x'; arguments.size];
    let mut out: Vec<u8> = Vec::with_capacity(256 * (arguments.size + 200));
    let mut number = 0u64;
    let mut receipted = 0u64;
    let mut moved = Instant::now();
    while number < mine || (arguments.receipts && receipted < mine) {
        if shared.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let room = if arguments.receipts {
            arguments.window.saturating_sub(number - receipted)
        } else {
            // With nobody to receive, nothing is in flight: the socket is the window.
            let received = shared.received.load(Ordering::Acquire);
            let done = received.checked_div(shared.copies).unwrap_or(u64::MAX);
            let in_flight = shared.sent.load(Ordering::Acquire).saturating_sub(done);
            arguments.window.saturating_sub(in_flight)
        };
        let count = room.min(BATCH_FRAMES).min(mine - number);
        if count > 0 {
            out.clear();
            for step in 0..count {
                stamp(&mut body, producer, number + step);
                let start = out.len();
                encode(&mut out, arguments, number + step, &body);
                // A message for each frame, as browsers send them.
                peer.wire.seal(&mut out, start);
            }
            // Counted before the write, so that consumers never run ahead of the count.
            shared.sent.fetch_add(count, Ordering::AcqRel);
            number += count;
            if let Err(problem) = peer.wire.write_sealed(&out) {
                shared.failed.store(true, Ordering::Release);
                return Err(problem);
            }
            moved = Instant::now();
        }
        if arguments.receipts {
            let outcome = peer.wire.fill().and_then(|_| {
                peer.frames(|frame| {
                    if frame.command() == "RECEIPT" {
                        receipted += 1;
                        moved = Instant::now();
                    }
                    Ok(())
                })
            });
            if let Err(problem) = outcome {
                shared.failed.store(true, Ordering::Release);
                return Err(problem);
            }
        } else if count == 0 {
            thread::park_timeout(Duration::from_millis(1));
        }
        if moved.elapsed() > arguments.common.patience() {
            shared.failed.store(true, Ordering::Release);
            return Err(format!("nothing has moved for {} s", arguments.common.patience));
        }
    }
    Ok(())
}

fn encode(out: &mut Vec<u8>, arguments: &Arguments, number: u64, body: &[u8]) {
    out.extend_from_slice(b"SEND\ndestination:");
    out.extend_from_slice(arguments.destination.as_bytes());
    if arguments.persistent {
        out.extend_from_slice(b"\npersistent:true");
    }
    if arguments.receipts {
        let _ = write!(out, "\nreceipt:{number}");
    }
    let _ = write!(out, "\ncontent-length:{}\n\n", body.len());
    out.extend_from_slice(body);
    out.push(0);
}

fn consume(
    mut peer: Peer,
    arguments: &Arguments,
    shared: &Shared,
    producers: &[Thread],
) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut acks: Vec<u8> = Vec::new();
    while !shared.done.load(Ordering::Acquire) {
        let outcome = peer.wire.fill().and_then(|_| {
            let before = tally.received;
            let mut last: Vec<u8> = Vec::new();
            peer.frames(|frame| {
                if frame.command() != "MESSAGE" {
                    return Ok(());
                }
                tally.note(frame.body(), frame.raw("redelivered") == Some("true"));
                match arguments.ack.as_str() {
                    "client-individual" => client::ack(&mut acks, Version::V12, frame, &[]),
                    "client" => {
                        last.clear();
                        client::ack(&mut last, Version::V12, frame, &[]);
                    }
                    _ => {}
                }
                Ok(())
            })?;
            acks.extend_from_slice(&last);
            if !acks.is_empty() {
                let written = peer.wire.write(&acks);
                acks.clear();
                written?;
            }
            shared.received.fetch_add(tally.received - before, Ordering::AcqRel);
            producers.iter().for_each(Thread::unpark);
            Ok(())
        });
        if let Err(problem) = outcome {
            shared.failed.store(true, Ordering::Release);
            return Err(problem);
        }
    }
    Ok(tally)
}
