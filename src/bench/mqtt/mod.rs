//! `sabir bench mqtt`: publishers and subscribers over plain sockets, a bounded number of messages on the way.
//!
//! Each connection has a thread. [`flow`] holds publishers back, [`peer`] is one connection, [`publish`] and [`receive`]
//! are the two sides, [`idle`] measures connections that do nothing.

mod flow;
mod idle;
mod peer;
mod publish;
mod receive;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sabir_mqtt::{Qos, Version};

use crate::report::{Common, Report, Stopwatch};
use crate::verify::{Ledger, STAMP_BYTES};

use flow::Flow;
use peer::{Peer, Role};

const FLOW: &str = "\
How messages are held back:
  A publisher has at most --window messages on the way: sent, but not received by every subscriber that is to have them.
  With QoS 1 and 2 the window also bounds what the broker has not acknowledged. QoS 0 has no acknowledgements of its own,
  so the window is all that keeps a broker from being flooded; brokers are free to drop what a subscriber does not read in
  time, and with this nobody falls behind by more than publishers times window. Without subscribers QoS 0 is sent as fast as
  the socket takes it.

Topologies:
  --publishers 1 --subscribers 1     one to one (the default)
  --pairs 10                         ten times one to one, each on a topic of its own
  --publishers 50                    fan-in
  --subscribers 100                  fan-out
  --idle 10000                       connections that do nothing, and what they cost";

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = FLOW)]
pub struct Arguments {
    /// Broker's MQTT listener
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub server: String,
    /// Over WebSocket instead: ws://HOST:PORT/PATH
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    pub url: Option<String>,
    /// Version to speak
    #[arg(long, value_enum, default_value = "5")]
    pub mqtt_version: MqttVersion,
    /// Topic; with --pairs and --idle, the beginning of each topic
    #[arg(long, default_value = "sabir/bench")]
    pub topic: String,
    /// Quality of service, of publishing and of subscribing
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Connections that publish
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub publishers: u16,
    /// Connections that subscribe; each gets every message
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub subscribers: u16,
    /// Publishers with a subscriber and a topic of their own
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["publishers", "subscribers"],
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub pairs: Option<u16>,
    /// Messages published in all
    #[arg(long, default_value_t = 200_000)]
    pub messages: u64,
    /// Publish for this many seconds instead
    #[arg(long, value_name = "SECONDS", conflicts_with = "messages")]
    pub duration: Option<u64>,
    /// Payload size in bytes, at least 21
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// Messages of one publisher on the way: see below
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=32_000))]
    pub window: u16,
    /// Messages in one write, at most; half the window, if that is less
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Measure this many idle connections instead: memory of the broker for each
    #[arg(long, value_name = "COUNT", requires = "pid")]
    pub idle: Option<u32>,
    /// User name
    #[arg(long)]
    pub username: Option<String>,
    /// Password
    #[arg(long, requires = "username")]
    pub password: Option<String>,
    /// What every measurement can be told
    #[command(flatten)]
    pub common: Common,
}

/// A version of MQTT, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MqttVersion {
    /// MQTT 3.1.
    #[value(name = "3.1")]
    V31,
    /// MQTT 3.1.1.
    #[value(name = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[value(name = "5", alias = "5.0")]
    V5,
}

impl From<MqttVersion> for Version {
    fn from(version: MqttVersion) -> Self {
        match version {
            MqttVersion::V31 => Self::V31,
            MqttVersion::V311 => Self::V311,
            MqttVersion::V5 => Self::V5,
        }
    }
}

impl Arguments {
    fn quality(&self) -> Qos {
        Qos::from_level(self.qos).unwrap_or_default()
    }

    /// Publishers, and subscribers of each publisher.
    fn shape(&self) -> (usize, usize) {
        match self.pairs {
            Some(pairs) => (pairs.into(), 1),
            None => (self.publishers.into(), self.subscribers.into()),
        }
    }

    /// Where the publisher or subscriber with this number meets the other side.
    fn topic_of(&self, index: usize) -> String {
        match self.pairs {
            Some(_) => format!("{}/{index}", self.topic),
            None => self.topic.clone(),
        }
    }
}

/// Runs one measurement and prints it. False if messages were lost, doubled or out of order.
///
/// # Errors
/// A sentence, if the broker cannot be reached or breaks the protocol.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    if arguments.size < STAMP_BYTES {
        return Err(format!("--size must be at least {STAMP_BYTES}: every message carries a stamp"));
    }
    match arguments.idle {
        Some(count) => idle::run(arguments, count).map(|()| true),
        None => load(arguments).map(|report| {
            report.print(arguments.common.json);
            report.is_clean()
        }),
    }
}

fn load(arguments: &Arguments) -> Result<Report, String> {
    let (publishers, receivers) = arguments.shape();
    let arguments = Arc::new(arguments.clone());
    let flow = Arc::new(Flow::new(publishers, receivers));
    let mut problems = Vec::new();

    let mut listening = Vec::new();
    for index in 0..if arguments.pairs.is_some() { publishers } else { receivers } {
        let peer = Peer::subscribe(&arguments, index, &arguments.topic_of(index))
            .map_err(|error| format!("subscriber: {error}"))?;
        let (arguments, flow) = (Arc::clone(&arguments), Arc::clone(&flow));
        listening.push(thread::spawn(move || receive::run(peer, index, &arguments, &flow)));
    }
    let mut peers = Vec::new();
    for index in 0..publishers {
        peers.push(
            Peer::open(&arguments, Role::Publisher, index).map_err(|error| format!("publisher: {error}"))?,
        );
    }

    let stopwatch = Stopwatch::start(arguments.common.pid);
    let publishing: Vec<_> = peers
        .into_iter()
        .enumerate()
        .map(|(index, peer)| {
            let (arguments, flow) = (Arc::clone(&arguments), Arc::clone(&flow));
            thread::spawn(move || publish::run(peer, index, &arguments, &flow))
        })
        .collect();
    if let Some(seconds) = arguments.duration {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !flow.has_failed() {
            thread::sleep(Duration::from_millis(1));
        }
        flow.stop();
    }
    let mut published = Vec::new();
    for handle in publishing {
        match handle.join() {
            Ok(Ok(peer)) => published.push(peer),
            Ok(Err(problem)) => problems.push(format!("publisher: {problem}")),
            Err(_) => problems.push("publisher: panicked".into()),
        }
    }
    wait_for_all(&arguments, &flow);
    let lap = stopwatch.stop();

    // Whatever comes twice may do so now.
    thread::sleep(Duration::from_millis(100));
    flow.finish();
    let mut ledgers: Vec<Ledger> = Vec::new();
    for handle in listening {
        match handle.join() {
            Ok(Ok(ledger)) => ledgers.push(ledger),
            Ok(Err(problem)) => problems.push(format!("subscriber: {problem}")),
            Err(_) => problems.push("subscriber: panicked".into()),
        }
    }
    for peer in published {
        peer.leave();
    }
    Ok(report(publishers, receivers, &flow, &ledgers, lap, problems))
}

/// Waits until every message has come, or no more come.
fn wait_for_all(arguments: &Arguments, flow: &Flow) {
    let mut last = (flow.received(), Instant::now());
    while !flow.is_complete() && !flow.has_failed() {
        let received = flow.received();
        if received != last.0 {
            last = (received, Instant::now());
        } else if last.1.elapsed() > arguments.common.patience() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn report(
    publishers: usize,
    receivers: usize,
    flow: &Flow,
    ledgers: &[Ledger],
    lap: crate::report::Lap,
    mut problems: Vec<String>,
) -> Report {
    let sum = |of: fn(&Ledger) -> u64| ledgers.iter().map(of).sum::<u64>();
    let foreign = sum(|ledger| ledger.foreign);
    if foreign > 0 {
        problems.push(format!("{foreign} messages came that are none of this measurement"));
    }
    let sent: u64 = (0..publishers).map(|publisher| flow.sent(publisher)).sum();
    let expected = sent * receivers as u64;
    let unique: u64 = ledgers
        .iter()
        .map(|ledger| (0..publishers).map(|publisher| ledger.received_of(publisher)).sum::<u64>())
        .sum();
    let duplicates = sum(|ledger| ledger.duplicates);
    Report {
        sent,
        expected,
        received: unique + duplicates,
        lost: expected.saturating_sub(unique),
        duplicates,
        out_of_order: sum(|ledger| ledger.out_of_order),
        redelivered: sum(|ledger| ledger.redelivered),
        lap,
        problems,
    }
}
