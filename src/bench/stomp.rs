//! `sabir bench stomp`: producers and consumers over plain sockets, a bounded number of messages in flight.
#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sabir_stomp::client::{self, Connect, Decoder, Version};

use crate::process::Usage;
use crate::verify::{STAMP_BYTES, Tally, stamp};

/// Frames encoded before each write.
const BATCH_FRAMES: u64 = 256;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Broker's STOMP listener
    #[arg(long, default_value = "127.0.0.1:61613")]
    pub server: String,
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
    /// Process whose CPU time and memory are reported: the broker's
    #[arg(long)]
    pub pid: Option<u32>,
    /// Give up when nothing moves for this many seconds
    #[arg(long, default_value_t = 20)]
    pub patience: u64,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
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

    let before = Usage::of(arguments.pid);
    let own_before = Usage::of(None).unwrap_or_default();
    let start = Instant::now();
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
    let sent_for = start.elapsed();
    wait_for_all(&arguments, &shared);
    shared.done.store(true, Ordering::Release);
    let elapsed = start.elapsed();
    let after = Usage::of(arguments.pid);
    let own_after = Usage::of(None).unwrap_or_default();
    let mut tallies: Vec<Tally> = Vec::new();
    for handle in consuming {
        match handle.join() {
            Ok(Ok(tally)) => tallies.push(tally),
            Ok(Err(problem)) => problems.push(format!("consumer: {problem}")),
            Err(_) => problems.push("consumer: panicked".into()),
        }
    }
    let sent = shared.sent.load(Ordering::Acquire);
    let report = Report {
        sent,
        expected: sent * copies,
        tally: total(&tallies),
        elapsed: if copies == 0 { sent_for } else { elapsed },
        cpu: before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu)),
        rss: after,
        own_cpu: own_after.cpu.saturating_sub(own_before.cpu),
        problems,
    };
    report.print(&arguments);
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
        } else if last.1.elapsed() > Duration::from_secs(arguments.patience) {
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

struct Report {
    sent: u64,
    expected: u64,
    tally: Tally,
    elapsed: Duration,
    cpu: Option<Duration>,
    rss: Option<Usage>,
    own_cpu: Duration,
    problems: Vec<String>,
}

impl Report {
    fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.tally.received == self.expected && self.tally.out_of_order == 0
    }

    fn print(&self, arguments: &Arguments) {
        let deliveries = if self.expected == 0 { self.sent } else { self.expected };
        let per_second = deliveries as f64 / self.elapsed.as_secs_f64();
        let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / deliveries.max(1) as f64;
        let lost = self.expected.saturating_sub(self.tally.received);
        let doubled = self.tally.received.saturating_sub(self.expected);
        let cpu = self.cpu.map(micros);
        let own = micros(self.own_cpu);
        let own_share = self.own_cpu.as_secs_f64() / self.elapsed.as_secs_f64();
        let mut out = io::stdout().lock();
        let written = if arguments.json {
            writeln!(
                out,
                "{{\"sent\":{},\"received\":{},\"lost\":{lost},\"duplicates\":{doubled},\"out_of_order\":{},\
                 \"redelivered\":{},\"seconds\":{:.3},\"per_second\":{per_second:.0},\"broker_cpu_us\":{},\
                 \"broker_rss\":{},\"generator_cpu_us\":{own:.3},\"generator_cores\":{own_share:.2}}}",
                self.sent,
                self.tally.received,
                self.tally.out_of_order,
                self.tally.redelivered,
                self.elapsed.as_secs_f64(),
                cpu.map_or_else(|| "null".to_owned(), |cpu| format!("{cpu:.3}")),
                self.rss.map_or_else(|| "null".to_owned(), |usage| usage.rss.to_string()),
            )
        } else {
            let broker = match (cpu, self.rss) {
                (Some(cpu), Some(usage)) if arguments.pid.is_some() => format!(
                    "broker     {cpu:.3} µs of CPU per message, {} MiB resident, {} MiB at most\n",
                    usage.rss >> 20,
                    usage.rss_max >> 20
                ),
                _ => String::new(),
            };
            writeln!(
                out,
                "messages   {} sent, {} received in {:.3} s: {per_second:.0} per second\n\
                 checked    {lost} lost, {doubled} duplicated, {} out of order, {} redelivered\n\
                 {broker}generator  {own:.3} µs of CPU per message, {own_share:.2} cores",
                self.sent,
                self.tally.received,
                self.elapsed.as_secs_f64(),
                self.tally.out_of_order,
                self.tally.redelivered,
            )
        };
        drop(written);
        for problem in &self.problems {
            let _ = writeln!(io::stderr(), "{problem}");
        }
    }
}

/// One connection to the broker.
struct Peer {
    socket: TcpStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    filled: usize,
}

impl Peer {
    fn open(arguments: &Arguments) -> Result<Self, String> {
        let socket = TcpStream::connect(&arguments.server)
            .map_err(|error| format!("cannot connect to {}: {error}", arguments.server))?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(|error| error.to_string())?;
        let mut peer =
            Self { socket, decoder: Decoder::new(Version::V12), buffer: vec![0; 256 * 1024], filled: 0 };
        let mut out = Vec::new();
        let connect = Connect {
            versions: &[Version::V12],
            host: Some("/"),
            login: arguments.login.as_deref(),
            passcode: arguments.passcode.as_deref(),
            ..Connect::default()
        };
        client::connect(&mut out, &connect);
        peer.write(&out)?;
        peer.expect("CONNECTED", arguments.patience)?;
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
        peer.write(&out)?;
        peer.expect("RECEIPT", arguments.patience)?;
        Ok(peer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(|error| format!("cannot write: {error}"))
    }

    /// Reads more; false if nothing came within the socket's time-out.
    fn fill(&mut self) -> Result<bool, String> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match self.socket.read(self.buffer.get_mut(self.filled..).unwrap_or_default()) {
            Ok(0) => Err("the broker closed the connection".into()),
            Ok(count) => {
                self.filled += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(format!("cannot read: {error}")),
        }
    }

    /// Hands every whole frame to `each`.
    fn frames(
        &mut self,
        mut each: impl FnMut(&client::Frame<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut at = 0;
        loop {
            let input = self.buffer.get(at..self.filled).unwrap_or_default();
            if input.is_empty() {
                break;
            }
            let decoded = self.decoder.next(input).map_err(|refusal| refusal.to_string())?;
            let (consumed, found) = (decoded.consumed, decoded.frame.is_some());
            if let Some(frame) = decoded.frame {
                if frame.command() == "ERROR" {
                    return Err(format!("the broker says: {}", String::from_utf8_lossy(frame.body())));
                }
                each(&frame)?;
            }
            at += consumed;
            if !found {
                break;
            }
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    fn expect(&mut self, command: &str, patience: u64) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(patience);
        let mut seen = false;
        while !seen {
            if Instant::now() > deadline {
                return Err(format!("no {command} from the broker"));
            }
            self.fill()?;
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
                encode(&mut out, arguments, number + step, &body);
            }
            // Counted before the write, so that consumers never run ahead of the count.
            shared.sent.fetch_add(count, Ordering::AcqRel);
            number += count;
            if let Err(problem) = peer.write(&out) {
                shared.failed.store(true, Ordering::Release);
                return Err(problem);
            }
            moved = Instant::now();
        }
        if arguments.receipts {
            let outcome = peer.fill().and_then(|_| {
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
        if moved.elapsed() > Duration::from_secs(arguments.patience) {
            shared.failed.store(true, Ordering::Release);
            return Err(format!("nothing has moved for {} s", arguments.patience));
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
        let outcome = peer.fill().and_then(|_| {
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
                let written = peer.write(&acks);
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
