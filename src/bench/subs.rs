//! `sabir bench subs`: very many subscriptions, what each costs, and what a message costs that finds its own among them.

use std::time::Instant;

use crate::dialect::{Dialect, Opening, Role, Spot};
use crate::engine::{self, lane::Hold};
use crate::idle::allow_files;
use crate::json::Object;
use crate::link::{Scratch, source_of};
use crate::load;
use crate::options::{Common, Extent, size};
use crate::process::Usage;
use crate::report::{self, bytes_each, cpu_each};
use crate::tool::Target;
use crate::topology::Shape;
use crate::watch::Watch;

/// Subscriptions that are asked for at once.
const AT_ONCE: usize = 500;
/// Messages, if nobody says how many.
const MESSAGES: u64 = 200_000;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to speak, and to whom.
    #[command(flatten)]
    pub target: Target,
    /// Subscriptions in all, each to a topic of its own
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub subscriptions: u64,
    /// Connections that share them
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=16_000))]
    pub connections: u16,
    /// Percentage of them that end in a wildcard
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub wildcards: u8,
    /// Topics that are published to in turn, spread over all that are subscribed to
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub topics: u64,
    /// Body size in bytes, at least 40
    #[arg(long, default_value = "64", value_parser = size)]
    pub size: usize,
    /// Closed loop: messages under way at once [default: 100]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: Option<u32>,
    /// Messages in one write, at most
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// How much is published, and how fast.
    #[command(flatten)]
    pub extent: Extent,
    /// What every measurement can be told.
    #[command(flatten)]
    pub common: Common,
}

/// Runs one measurement and prints it. False if a message missed its subscription or met another.
///
/// # Errors
/// A sentence, if the broker cannot be reached or breaks the protocol.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let dialect = arguments.target.dialect("sabir/bench/subs", "/topic/sabir.bench.subs")?;
    if dialect.shares() {
        return Err("subscriptions of this kind are to topics".into());
    }
    let common = &arguments.common;
    allow_files(arguments.connections.into())?;
    let mut scratch = Scratch::new();
    let mut peers = Vec::new();
    for index in 0..usize::from(arguments.connections) {
        let (source, patience) = (source_of(index), common.patience());
        let opening = Opening { role: Role::Receiver, index, in_flight_max: u16::MAX, source, patience };
        peers.push(dialect.open(&mut scratch, &opening).map_err(|error| format!("receiver: {error}"))?);
    }
    let rss = || common.pid.and_then(Usage::of).map(|usage| usage.rss);
    let before = rss();
    let watch = Watch::start(common.pid, false);
    let start = Instant::now();
    let count = arguments.subscriptions;
    let share = count.div_ceil(arguments.connections.into());
    for (index, (link, _)) in peers.iter_mut().enumerate() {
        let first = (index as u64 * share).min(count);
        let end = (first + share).min(count);
        let mut from = first;
        while from < end {
            let to = (from + AT_ONCE as u64).min(end);
            let filters: Vec<String> =
                (from..to).map(|number| filter(&dialect, number, arguments.wildcards)).collect();
            let done = match &dialect {
                Dialect::Mqtt(options) => {
                    options.subscribe_to(link, &mut scratch, &filters, false, common.patience())
                }
                Dialect::Stomp(options) => {
                    let id = (from - first) as usize;
                    options.subscribe_to(link, &mut scratch, &filters, id, common.patience())
                }
                Dialect::Http(_) => Err("HTTP has no subscriptions here".to_owned()),
            };
            done.map_err(|error| format!("subscription {}: {error}", from + 1))?;
            from = to;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let lap = watch.stop();
    let after = rss();

    let topics = count.min(arguments.topics);
    let stride = count / topics;
    let spots: Vec<Spot> = (0..topics).map(|topic| Spot::Leaf((topic * stride) as usize)).collect();
    let (messages, duration) = load::extent(&arguments.extent, MESSAGES);
    let plan = engine::Plan {
        from: &dialect,
        to: &dialect,
        shape: Shape::Share { senders: 1, receivers: arguments.connections },
        hold: match (arguments.extent.rate, dialect.acknowledges()) {
            (Some(_), _) => Hold::Pace,
            (None, true) => Hold::Both,
            (None, false) => Hold::Received,
        },
        window: arguments.window.unwrap_or(100).into(),
        batch: arguments.batch.into(),
        size: arguments.size,
        run: engine::new_run(),
        messages,
        duration,
        warmup: arguments.extent.warmup,
        rate: arguments.extent.rate,
        stalled: 0,
        slices: 0,
        common,
    };
    let outcome = engine::run_among(&plan, peers, &spots)?;
    let bytes = before.zip(after).map(|(before, after)| bytes_each(before, after, count));
    let cpu = lap.broker.map(|broker| broker.cpu);
    let per_second = count as f64 / seconds.max(1e-9);
    let mut text = format!("\nsubscribed {count} in {seconds:.3} s: {per_second:.0} per second");
    if let Some((cpu, bytes)) = cpu.zip(bytes) {
        text.push_str(&format!(", {} of CPU and {bytes} bytes each", cpu_each(cpu, count)));
    }
    let more = |object: &mut Object| {
        object.put("subscriptions", count).put("connections", arguments.connections);
        object.put("wildcards_percent", arguments.wildcards).put("topics", topics);
        object.decimal("subscribe_seconds", seconds).put("subscribe_rate", format!("{per_second:.1}"));
        let micros = cpu.map(|cpu| format!("{:.3}", cpu.as_secs_f64() * 1e6 / count as f64));
        object.maybe("cpu_us_per_subscription", micros).maybe("bytes_per_subscription", bytes);
    };
    report::print(dialect.name(), &plan, &outcome, more, &text);
    Ok(outcome.is_clean())
}

/// What subscription `number` is to: its own topic, or that with a wildcard in the last level.
fn filter(dialect: &Dialect, number: u64, wildcards: u8) -> String {
    let is_wild = number % 100 < wildcards.into();
    match dialect {
        Dialect::Mqtt(options) => {
            format!("{}/{number}/{}", options.topic, if is_wild { "+" } else { "leaf" })
        }
        Dialect::Stomp(options) => {
            format!("{}.{number}.{}", options.destination, if is_wild { "*" } else { "leaf" })
        }
        Dialect::Http(_) => String::new(),
    }
}
