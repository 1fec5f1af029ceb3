//! What every measurement has in common: a stopwatch over time, the broker's CPU and our own, and the table at the end.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::process::Usage;

/// What every measurement can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Process whose CPU time and memory are reported: the broker's
    #[arg(long, visible_alias = "broker-pid")]
    pub pid: Option<u32>,
    /// Give up when nothing moves for this many seconds
    #[arg(long, default_value_t = 20)]
    pub patience: u64,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Common {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

/// Runs from its making until [`Stopwatch::stop`].
pub(crate) struct Stopwatch {
    pid: Option<u32>,
    broker: Option<Usage>,
    own: Usage,
    start: Instant,
}

/// What passed while a [`Stopwatch`] ran.
pub(crate) struct Lap {
    pub(crate) elapsed: Duration,
    /// CPU time of the broker, if its process is known.
    broker_cpu: Option<Duration>,
    broker: Option<Usage>,
    own_cpu: Duration,
}

impl Stopwatch {
    pub(crate) fn start(pid: Option<u32>) -> Self {
        Self {
            pid,
            broker: broker_usage(pid),
            own: Usage::of(None).unwrap_or_default(),
            start: Instant::now(),
        }
    }

    pub(crate) fn stop(&self) -> Lap {
        let elapsed = self.start.elapsed();
        let broker = broker_usage(self.pid);
        let own = Usage::of(None).unwrap_or_default();
        Lap {
            elapsed,
            broker_cpu: self.broker.zip(broker).map(|(before, after)| after.cpu.saturating_sub(before.cpu)),
            broker,
            own_cpu: own.cpu.saturating_sub(self.own.cpu),
        }
    }
}

fn broker_usage(pid: Option<u32>) -> Option<Usage> {
    pid.and_then(|pid| Usage::of(Some(pid)))
}

/// How a measurement went.
pub(crate) struct Report {
    pub(crate) sent: u64,
    /// Deliveries there should be.
    pub(crate) expected: u64,
    /// Deliveries there were, doubled ones included.
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    pub(crate) redelivered: u64,
    pub(crate) lap: Lap,
    pub(crate) problems: Vec<String>,
}

impl Report {
    /// Whether the figures count: nothing is missing, doubled or out of order.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.lost == 0 && self.duplicates == 0 && self.out_of_order == 0
    }

    /// Prints the figures to standard output and what went wrong to standard error.
    pub(crate) fn print(&self, json: bool) {
        // Who sends to nobody is measured by what it sends.
        let deliveries = if self.expected == 0 { self.sent } else { self.expected };
        let seconds = self.lap.elapsed.as_secs_f64();
        let per_second = deliveries as f64 / seconds;
        let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / deliveries.max(1) as f64;
        let cpu = self.lap.broker_cpu.map(micros);
        let own = micros(self.lap.own_cpu);
        let own_cores = self.lap.own_cpu.as_secs_f64() / seconds;
        let (sent, received, lost) = (self.sent, self.received, self.lost);
        let (duplicates, out_of_order, redelivered) = (self.duplicates, self.out_of_order, self.redelivered);
        let text = if json {
            let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "null".to_owned(), |b| b.to_string());
            let rss = bytes(self.lap.broker.map(|usage| usage.rss));
            let rss_max = bytes(self.lap.broker.map(|usage| usage.rss_max));
            let cpu = cpu.map_or_else(|| "null".to_owned(), |cpu| format!("{cpu:.3}"));
            format!(
                "{{\"sent\":{sent},\"received\":{received},\"lost\":{lost},\"duplicates\":{duplicates},\
                 \"out_of_order\":{out_of_order},\"redelivered\":{redelivered},\"seconds\":{seconds:.3},\
                 \"per_second\":{per_second:.0},\"broker_cpu_us\":{cpu},\"broker_rss\":{rss},\
                 \"broker_rss_max\":{rss_max},\"generator_cpu_us\":{own:.3},\"generator_cores\":{own_cores:.2}}}"
            )
        } else {
            let broker = match (cpu, self.lap.broker) {
                (Some(cpu), Some(usage)) => format!(
                    "broker     {cpu:.3} µs of CPU per message, {} MiB resident, {} MiB at most\n",
                    usage.rss >> 20,
                    usage.rss_max >> 20
                ),
                _ => String::new(),
            };
            format!(
                "messages   {sent} sent, {received} received in {seconds:.3} s: {per_second:.0} per second\n\
                 checked    {lost} lost, {duplicates} duplicated, {out_of_order} out of order, {redelivered} redelivered\n\
                 {broker}generator  {own:.3} µs of CPU per message, {own_cores:.2} cores"
            )
        };
        print_line(&text);
        complain(&self.problems);
    }
}

/// Writes results. If nobody reads them, there is nobody to tell.
pub(crate) fn print_line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes what went wrong.
pub(crate) fn complain(problems: &[String]) {
    for problem in problems {
        let _ = writeln!(io::stderr(), "{problem}");
    }
}
