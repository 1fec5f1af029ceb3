//! `sabir bench backlog`: messages that nobody takes, and how the broker bears them; then perhaps a restart; then all of
//! them are taken and checked. What is remembered here of each message is nothing, so there may be any number.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::dialect::{Dialect, Opening, Role, Spot};
use crate::engine::lane::Hold;
use crate::engine::slices::Slice;
use crate::engine::{self, Outcome, Plan};
use crate::json::{self, Object};
use crate::latency::span;
use crate::link::Scratch;
use crate::options::{Common, size};
use crate::process::Usage;
use crate::report::{self, bytes_each, complain, print_line, put_outcome, warn};
use crate::tool::Target;
use crate::topology::Shape;

/// Parts of filling and draining that are told apart.
const TENTHS: u64 = 10;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to speak, and to whom.
    #[command(flatten)]
    pub target: Target,
    /// Messages in all
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: u64,
    /// Body size in bytes, at least 40
    #[arg(long, default_value = "100", value_parser = size)]
    pub size: usize,
    /// Connections that fill
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub senders: u16,
    /// Connections that drain; one sees whether the order of each sender is kept
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub receivers: u16,
    /// Messages of one sender that have no receipt yet
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub window: u32,
    /// Messages in one write, at most
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Restarts the broker in between: run by `sh`, it stops the broker, starts it in the background and ends; if its last
    /// line is a number, that is the new process
    #[arg(long, value_name = "COMMAND")]
    pub restart_command: Option<String>,
    /// Leave the messages where they are
    #[arg(long, conflicts_with = "restart_command")]
    pub fill_only: bool,
    /// What every measurement can be told.
    #[command(flatten)]
    pub common: Common,
}

/// Runs one measurement and prints it. False if messages were lost, doubled, out of order or broken.
///
/// # Errors
/// A sentence, if the broker cannot be reached or breaks the protocol.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let dialect = dialect(arguments)?;
    let common = &arguments.common;
    let mut after = common.clone();
    let mut scratch = Scratch::new();
    dialect.prepare(&mut scratch, common.patience()).map_err(|error| format!("receiver: {error}"))?;
    let fill = plan(arguments, &dialect, common, Shape::Each { senders: arguments.senders, receivers: 0 });
    let filled = engine::run(&fill)?;
    let rss_filled = rss(common);
    let mut clean = filled.is_clean();
    let mut restarted = None;
    if let Some(command) = arguments.restart_command.as_deref().filter(|_| clean) {
        let (seconds, pid) = restart(command, &dialect, common)?;
        after.pid = common.pid.and_then(|before| pid.or(Some(before)));
        restarted = Some((seconds, rss(&after)));
    }
    let shape = Shape::Share { senders: arguments.senders, receivers: arguments.receivers };
    let mut drain = plan(arguments, &dialect, &after, shape);
    drain.run = fill.run;
    let mut drained = None;
    if !arguments.fill_only && clean {
        let outcome = engine::drain(&drain, &filled.sent_by)?;
        clean = outcome.is_clean();
        dialect.forget(&mut scratch, arguments.receivers.into(), common.patience());
        drained = Some(outcome);
    }
    if common.json {
        print_line(&object(
            &dialect,
            (&fill, &filled),
            drained.as_ref().map(|outcome| (&drain, outcome)),
            rss_filled,
            restarted,
            clean,
        ));
    } else {
        print_line(&table(
            (&fill, &filled),
            drained.as_ref().map(|outcome| (&drain, outcome)),
            rss_filled,
            restarted,
        ));
    }
    for outcome in [Some(&filled), drained.as_ref()].into_iter().flatten() {
        complain(&outcome.problems);
        warn(&outcome.lap);
    }
    Ok(clean)
}

fn dialect(arguments: &Arguments) -> Result<Dialect, String> {
    let mut dialect = arguments.target.dialect("sabir/bench/backlog", "/queue/sabir.bench.backlog")?;
    match &mut dialect {
        Dialect::Mqtt(options) => {
            if options.qos == sabir_mqtt::Qos::AtMostOnce {
                return Err("nothing is kept at QoS 0: a backlog needs --qos 1 or 2".into());
            }
            if arguments.receivers != 1 {
                return Err("the backlog of an MQTT session has one receiver".into());
            }
            options.stored = true;
        }
        Dialect::Stomp(options) => {
            if !options.destination.starts_with("/queue/") {
                return Err("a topic keeps nothing: a backlog needs a queue".into());
            }
            options.receipts = true;
        }
        Dialect::Http(_) => {}
    }
    Ok(dialect)
}

fn plan<'a>(arguments: &Arguments, dialect: &'a Dialect, common: &'a Common, shape: Shape) -> Plan<'a> {
    Plan {
        from: dialect,
        to: dialect,
        shape,
        hold: Hold::Acknowledged,
        window: arguments.window.into(),
        batch: arguments.batch.into(),
        size: arguments.size,
        run: engine::new_run(),
        messages: Some(arguments.messages),
        duration: Duration::ZERO,
        warmup: Duration::ZERO,
        rate: None,
        stalled: 0,
        slices: TENTHS,
        common,
    }
}

fn rss(common: &Common) -> Option<u64> {
    common.pid.and_then(Usage::of).map(|usage| usage.rss)
}

/// Seconds from the beginning of the command until somebody is let in, and the new process, if the command has named it.
fn restart(command: &str, dialect: &Dialect, common: &Common) -> Result<(f64, Option<u32>), String> {
    let start = Instant::now();
    let failed = |error: std::io::Error| format!("the restart command cannot be run: {error}");
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(format!("the restart command failed: {status}"));
    }
    let pid = child.stdout.take().and_then(|mut stdout| {
        // The broker may have inherited it, and then it does not end.
        rustix::io::ioctl_fionbio(&stdout, true).ok()?;
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            said.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
        String::from_utf8_lossy(&said).lines().last()?.trim().parse().ok()
    });
    let mut scratch = Scratch::new();
    let patience = common.patience();
    let opening = Opening { role: Role::Idle, index: 0, in_flight_max: 1, source: None, patience };
    loop {
        match dialect.open(&mut scratch, &opening) {
            Ok((mut link, speaker)) => {
                let seconds = start.elapsed().as_secs_f64();
                speaker.leave(&mut link);
                return Ok((seconds, pid));
            }
            Err(error) if start.elapsed() > patience => {
                return Err(format!("the broker is not back after {} s: {error}", patience.as_secs()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// What was to be done, and how it went.
type Part<'a> = (&'a Plan<'a>, &'a Outcome);

fn object(
    dialect: &Dialect,
    filled: Part<'_>,
    drained: Option<Part<'_>>,
    rss_filled: Option<u64>,
    restarted: Option<(f64, Option<u64>)>,
    clean: bool,
) -> String {
    let part = |(plan, outcome): Part<'_>| {
        let mut object = Object::new();
        put_outcome(&mut object, plan, outcome);
        object.put("tenths", json::list(outcome.slices.iter().map(Slice::json)));
        object.end()
    };
    let (plan, fill) = filled;
    let rss_before = fill.lap.broker.map(|broker| broker.rss_before);
    let growth = rss_before.zip(rss_filled).map(|(before, after)| bytes_each(before, after, fill.sent));
    let mut object = Object::new();
    object.text("tool", "sabir bench").text("protocol", dialect.name()).text("topology", "backlog");
    object.text("loop", "closed").put("messages", fill.sent).put("size", plan.size);
    object.maybe("delivered", drained.map(|(_, outcome)| outcome.delivered));
    object.maybe("rss_before", rss_before).maybe("rss_filled", rss_filled);
    object.maybe("rss_bytes_per_message", growth);
    object.maybe("restart_seconds", restarted.map(|(seconds, _)| format!("{seconds:.3}")));
    let first = drained.and_then(|(_, outcome)| outcome.first_delivery);
    object.maybe("first_delivery_seconds", first_delivery(first, restarted));
    object.maybe("rss_restarted", restarted.and_then(|(_, rss)| rss));
    let sum = |of: fn(&Outcome) -> u64| of(fill) + drained.map_or(0, |(_, outcome)| of(outcome));
    object.put("lost", sum(|outcome| outcome.lost)).put("duplicated", sum(|outcome| outcome.duplicated));
    object.put("reordered", sum(|outcome| outcome.reordered));
    object.put("corrupted", sum(|outcome| outcome.corrupted)).put("clean", clean);
    object.put("fill", part(filled)).maybe("drain", drained.map(part));
    object.end()
}

fn table(
    filled: Part<'_>,
    drained: Option<Part<'_>>,
    rss_filled: Option<u64>,
    restarted: Option<(f64, Option<u64>)>,
) -> String {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0);
    let mut out =
        format!("filled\n{}\n{}", report::table(filled.0, filled.1), tenths(&filled.1.slices, &mib));
    if let Some(rss) = rss_filled {
        out.push_str(&format!("resident   {} when full\n", mib(rss)));
    }
    if let Some((seconds, rss)) = restarted {
        let rss = rss.map_or_else(String::new, |rss| format!(", {} resident", mib(rss)));
        out.push_str(&format!("restarted  in {seconds:.3} s{rss}\n"));
    }
    if let Some((plan, outcome)) = drained {
        if let Some(seconds) = first_delivery(outcome.first_delivery, restarted) {
            let since = if restarted.is_some() { "the restart command" } else { "the connecting" };
            out.push_str(&format!("delivered  the first {seconds} s after {since}\n"));
        }
        let table = report::table(plan, outcome);
        out.push_str(&format!("drained\n{table}\n{}", tenths(&outcome.slices, &mib)));
    }
    out.trim_end().to_owned()
}

/// Seconds until the first message came: from the beginning of the restart, or where there was none, of connecting.
fn first_delivery(first: Option<Duration>, restarted: Option<(f64, Option<u64>)>) -> Option<String> {
    let before = restarted.map_or(0.0, |(seconds, _)| seconds);
    first.map(|first| format!("{:.3}", before + first.as_secs_f64()))
}

fn tenths(slices: &[Slice], mib: &impl Fn(u64) -> String) -> String {
    let mut out = String::new();
    for (number, slice) in slices.iter().enumerate() {
        let rate = slice.messages as f64 / slice.seconds.max(1e-9);
        out.push_str(&format!("{:>4}/{}    {rate:>9.0} per second", number + 1, slices.len()));
        if let Some(cpu) = slice.cpu_us {
            out.push_str(&format!(", {cpu:.3} µs of CPU each"));
        }
        if !slice.latency.is_empty() {
            let (half, most) = (slice.latency.quantile_us(0.5), slice.latency.quantile_us(0.99));
            out.push_str(&format!(", receipts p50 {}, p99 {}", span(half), span(most)));
        }
        if let Some(rss) = slice.rss {
            out.push_str(&format!(", {} resident", mib(rss)));
        }
        out.push('\n');
    }
    out
}

impl Dialect {
    /// Makes a place where messages wait although nobody receives them.
    fn prepare(&self, scratch: &mut Scratch, patience: Duration) -> Result<(), String> {
        if !matches!(self, Self::Mqtt(_)) {
            return Ok(());
        }
        // What an earlier run left goes first.
        self.forget(scratch, 1, patience);
        let opening = Opening { role: Role::Receiver, index: 0, in_flight_max: 1, source: None, patience };
        let (mut link, speaker) = self.open(scratch, &opening)?;
        self.subscribe(&mut link, scratch, Spot::Main, false, patience)?;
        speaker.leave(&mut link);
        Ok(())
    }
}
