//! `sabir bench idle`: connections that do nothing, the memory that the broker keeps for each, and what it costs to hear
//! now and then that they are still there.

use std::thread;
use std::time::{Duration, Instant};

use sabir_mqtt::{Packet, Version, client as mqtt_client};
use sabir_stomp::client as stomp_client;

use crate::dialect::{Dialect, Opening, Role, Speaker, Spot, stomp};
use crate::json::Object;
use crate::link::{Link, Scratch, source_of};
use crate::options::Common;
use crate::process::Usage;
use crate::report::{bytes_each, cpu_each, print_line};
use crate::tool::Target;
use crate::watch::Watch;

/// Brokers give memory back a little later.
const SETTLE: Duration = Duration::from_secs(1);
/// Files that are not connections.
const OTHER_FILES: u64 = 64;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to speak, and to whom.
    #[command(flatten)]
    pub target: Target,
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    pub connections: u32,
    /// Give each a subscription of its own, too
    #[arg(long)]
    pub subscribe: bool,
    /// Rounds of keep-alive, in each of which every connection says that it is there
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub keep_alives: u32,
    /// What every measurement can be told.
    #[command(flatten)]
    pub common: Common,
}

/// Runs one measurement and prints it.
///
/// # Errors
/// A sentence, if a connection is refused or lost.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let dialect = arguments.target.dialect("sabir/bench/idle", "/topic/sabir.bench.idle")?;
    let wish = Wish {
        count: arguments.connections,
        subscribe: arguments.subscribe,
        keep_alives: arguments.keep_alives,
    };
    measure_as(&dialect, wish, &arguments.common)
}

/// `sabir bench mqtt --idle COUNT`.
pub(crate) fn measure(dialect: &Dialect, count: u32, common: &Common) -> Result<bool, String> {
    measure_as(dialect, Wish { count, subscribe: true, keep_alives: 1 }, common)
}

#[derive(Clone, Copy, Debug)]
struct Wish {
    count: u32,
    subscribe: bool,
    keep_alives: u32,
}

/// Lets this process have as many files open as `connections` need.
pub(crate) fn allow_files(connections: u64) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = connections + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|most| most.max(needed));
    let wanted = if limit.maximum.is_none_or(|most| most >= needed) { limit.maximum } else { maximum };
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: wanted }).map_err(|_| {
        let most = limit.maximum.unwrap_or(0);
        format!(
            "{connections} connections need {needed} open files, and this process may have {most}: ulimit -n"
        )
    })
}

fn measure_as(dialect: &Dialect, wish: Wish, common: &Common) -> Result<bool, String> {
    allow_files(wish.count.into())?;
    let patience = common.patience();
    let mut scratch = Scratch::new();
    let count = u64::from(wish.count);
    let rss = || common.pid.and_then(Usage::of).map(|usage| usage.rss);
    let before = rss();
    if common.pid.is_some() && before.is_none() {
        return Err("--broker-pid names no process that can be looked at".into());
    }
    let start = Instant::now();
    let mut peers: Vec<(Link, Speaker)> = Vec::new();
    for index in 0..wish.count as usize {
        let source = source_of(index);
        let opening = Opening { role: Role::Idle, index, in_flight_max: 1, source, patience };
        peers.push(dialect.open(&mut scratch, &opening).map_err(|error| of(index, &error))?);
    }
    let seconds = start.elapsed().as_secs_f64();
    let settled = || {
        if common.pid.is_some() {
            thread::sleep(SETTLE);
        }
        rss()
    };
    let connected = settled();
    let mut subscribed = None;
    if wish.subscribe {
        for (index, (link, _)) in peers.iter_mut().enumerate() {
            dialect
                .subscribe(link, &mut scratch, Spot::Pair(index), false, patience)
                .map_err(|error| of(index, &error))?;
        }
        subscribed = settled();
    }
    let watch = Watch::start(common.pid, common.syscalls);
    for _ in 0..wish.keep_alives {
        // All are written before any is waited for, as they come from many clients.
        for (index, (link, _)) in peers.iter_mut().enumerate() {
            beat(dialect, link).map_err(|error| of(index, &error))?;
        }
        for (index, (link, _)) in peers.iter_mut().enumerate() {
            heard(dialect, link, &mut scratch, patience).map_err(|error| of(index, &error))?;
        }
    }
    let lap = watch.stop();
    let beats = count * u64::from(wish.keep_alives);
    // Nothing answers a beat of STOMP's, so that all are alive is asked once, and not measured.
    for (index, (link, _)) in peers.iter_mut().enumerate() {
        alive(dialect, link, &mut scratch, patience).map_err(|error| of(index, &error))?;
    }
    let each = |after: Option<u64>| before.zip(after).map(|(before, after)| bytes_each(before, after, count));
    let beat_cpu = lap.broker.filter(|_| beats > 0).map(|broker| broker.cpu);
    if common.json {
        let mut object = Object::new();
        object.text("tool", "sabir bench").text("protocol", dialect.name()).text("topology", "idle");
        object.put("connections", count).decimal("seconds", seconds);
        object.maybe("rss_before", before).maybe("rss_connected", connected);
        object.maybe("rss_subscribed", subscribed).maybe("bytes_per_connection", each(connected));
        object.maybe("bytes_per_subscribed_connection", each(subscribed)).put("keep_alives", beats);
        let micros = |cpu: Duration| format!("{:.3}", cpu.as_secs_f64() * 1e6 / beats.max(1) as f64);
        object.maybe("cpu_us_per_keep_alive", beat_cpu.map(micros)).put("clean", true);
        print_line(&object.end());
    } else {
        let mut text = format!("connections  {count} in {seconds:.3} s, all still answer");
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        if let Some((before, connected)) = before.zip(connected) {
            text.push_str(&format!(
                "\nbroker       {:.1} MiB resident before, {:.1} with the connections",
                mib(before),
                mib(connected)
            ));
            if let Some(subscribed) = subscribed {
                text.push_str(&format!(", {:.1} with a subscription for each", mib(subscribed)));
            }
            text.push_str(&format!("\neach         {} bytes", each(Some(connected)).unwrap_or(0)));
            if let Some(bytes) = each(subscribed) {
                text.push_str(&format!("; {bytes} with its subscription"));
            }
        }
        if let Some(cpu) = beat_cpu {
            text.push_str(&format!("\nkeep-alive   {} of CPU each", cpu_each(cpu, beats)));
        }
        print_line(&text);
    }
    for (link, speaker) in &mut peers {
        speaker.leave(link);
    }
    Ok(true)
}

fn of(index: usize, error: &str) -> String {
    format!("connection {}: {error}", index + 1)
}

/// Writes a sign of life.
fn beat(dialect: &Dialect, link: &mut Link) -> Result<(), String> {
    let start = link.out.len();
    match dialect {
        Dialect::Mqtt(_) => mqtt_client::ping(&mut link.out),
        Dialect::Stomp(_) => stomp_client::beat(&mut link.out),
        Dialect::Http(_) => return Ok(()),
    }
    link.seal(start);
    if link.flush()? { Ok(()) } else { Err("the broker does not read".into()) }
}

/// Waits for the answer to it, where there is one.
fn heard(
    dialect: &Dialect,
    link: &mut Link,
    scratch: &mut Scratch,
    patience: Duration,
) -> Result<(), String> {
    let Dialect::Mqtt(options) = dialect else { return Ok(()) };
    pong(link, scratch, options.version, patience)
}

fn pong(link: &mut Link, scratch: &mut Scratch, version: Version, patience: Duration) -> Result<(), String> {
    let decoder = mqtt_client::Decoder::new(version);
    link.ask(scratch, &[], "PINGRESP", patience, |input| {
        let decoded = decoder.next(input).map_err(|error| error.to_string())?;
        Ok((decoded.consumed, matches!(decoded.packet, Some(Packet::Pingresp))))
    })
}

/// Whether the broker still answers.
fn alive(
    dialect: &Dialect,
    link: &mut Link,
    scratch: &mut Scratch,
    patience: Duration,
) -> Result<(), String> {
    match dialect {
        Dialect::Mqtt(_) => {
            beat(dialect, link)?;
            heard(dialect, link, scratch, patience)
        }
        Dialect::Stomp(_) => {
            let mut bytes = Vec::new();
            let receipt = [("receipt", "alive")];
            stomp_client::begin(&mut bytes, stomp_client::Version::V12, "alive", &receipt);
            stomp::expect(link, scratch, &bytes, "RECEIPT", patience)
        }
        Dialect::Http(_) => Ok(()),
    }
}
