//! What a run has shown: a table for people or one line for programs.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use crate::engine::{Outcome, Plan};
use crate::json::{self, Object};
use crate::latency::span;
use crate::watch::Lap;

/// What a latency is the latency of.
fn latency_of(plan: &Plan<'_>) -> &'static str {
    match (plan.shape, plan.shape.copies()) {
        (crate::topology::Shape::Request(_), _) => "reply",
        (_, 0) => "acknowledgement",
        _ => "delivery",
    }
}

/// CPU microseconds for each of `count`.
fn each(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// What is divided by: deliveries or, with nobody to receive, messages sent.
pub(crate) fn units(outcome: &Outcome) -> u64 {
    if outcome.has_receivers { outcome.delivered } else { outcome.sent }
}

/// The keys that say what was run.
pub(crate) fn put_plan(object: &mut Object, name: &str, plan: &Plan<'_>) {
    object.text("tool", "sabir bench").text("protocol", name).text("topology", &plan.shape.name());
    object.text("loop", if plan.rate.is_some() { "open" } else { "closed" });
    object.maybe("rate_wanted", plan.rate).put("size", plan.size);
    object.maybe("window", plan.rate.is_none().then_some(plan.window)).put("batch", plan.batch);
}

/// The keys that say what the broker and we have used for `count` messages.
pub(crate) fn put_lap(object: &mut Object, lap: &Lap, count: u64) {
    let micros = |us: f64| format!("{us:.3}");
    let cpu = lap.broker.map(|broker| each(broker.cpu, count));
    let user = lap.broker.and_then(|broker| Some(each(broker.cpu, count) * broker.user_share?));
    object.maybe("cpu_us_per_message", cpu.map(micros));
    object.maybe("cpu_user_us_per_message", user.map(micros));
    object.maybe("cpu_system_us_per_message", user.zip(cpu).map(|(user, cpu)| micros(cpu - user)));
    object.maybe("broker_cpu_seconds", lap.broker.map(|broker| format!("{:.6}", broker.cpu.as_secs_f64())));
    object.maybe("rss_before", lap.broker.map(|broker| broker.rss_before));
    object.maybe("rss_peak", lap.broker.map(|broker| broker.rss_peak));
    object.maybe("rss_after", lap.broker.map(|broker| broker.rss_after));
    let per_message = |total: u64| format!("{:.4}", total as f64 / count.max(1) as f64);
    object.maybe("context_switches_per_message", lap.broker.map(|broker| per_message(broker.switches)));
    object.maybe("syscalls_per_message", lap.syscalls.map(per_message));
    object.decimal("generator_cpu_us_per_message", each(lap.own_cpu, count));
    object.decimal("generator_cores", lap.own_cores()).put("generator_bound", lap.generator_bound());
}

/// The keys that say how it went.
pub(crate) fn put_outcome(object: &mut Object, plan: &Plan<'_>, outcome: &Outcome) {
    let seconds = outcome.lap.elapsed.as_secs_f64();
    object.put("messages", outcome.sent).put("delivered", outcome.delivered).decimal("seconds", seconds);
    object.put("rate", format!("{:.1}", units(outcome) as f64 / seconds.max(1e-9)));
    put_lap(object, &outcome.lap, units(outcome));
    let latency = if outcome.has_receivers { &outcome.latency } else { &outcome.ack_latency };
    object.maybe("latency_us", latency.json()).text("latency_of", latency_of(plan));
    object.maybe("ack_latency_us", outcome.ack_latency.json());
    object.put("lost", outcome.lost).put("duplicated", outcome.duplicated);
    object.put("reordered", outcome.reordered).put("corrupted", outcome.corrupted);
    object.put("foreign", outcome.foreign).put("unacknowledged", outcome.unacknowledged);
    object.put("redelivered", outcome.redelivered).put("clean", outcome.is_clean());
    object.put("problems", json::list(outcome.problems.iter().map(|problem| json::quoted(problem))));
    object.put("notes", json::list(outcome.lap.notes.iter().map(|note| json::quoted(note))));
}

/// The lines that say how it went.
pub(crate) fn table(plan: &Plan<'_>, outcome: &Outcome) -> String {
    let lap = &outcome.lap;
    let seconds = lap.elapsed.as_secs_f64();
    let rate = units(outcome) as f64 / seconds.max(1e-9);
    let (sent, delivered) = (outcome.sent, outcome.delivered);
    let mut out = if outcome.has_receivers {
        format!("messages   {sent} sent, {delivered} delivered in {seconds:.3} s: {rate:.0} per second\n")
    } else {
        format!("messages   {sent} sent in {seconds:.3} s: {rate:.0} per second\n")
    };
    let of = latency_of(plan);
    let wait = match plan.rate {
        Some(rate) => format!("{of}, open loop at {rate} per second, from the intended instant"),
        None => format!("{of}, closed loop with {} under way per sender", plan.window),
    };
    let latency = if outcome.has_receivers { &outcome.latency } else { &outcome.ack_latency };
    if !latency.is_empty() {
        let _ = writeln!(out, "latency    {} ({wait})", latency.text());
    }
    if outcome.has_receivers && !outcome.ack_latency.is_empty() {
        let _ = writeln!(out, "           {} (acknowledgement)", outcome.ack_latency.text());
    }
    let _ = writeln!(
        out,
        "checked    {} lost, {} duplicated, {} out of order, {} corrupted, {} unacknowledged, {} redelivered",
        outcome.lost,
        outcome.duplicated,
        outcome.reordered,
        outcome.corrupted,
        outcome.unacknowledged,
        outcome.redelivered
    );
    out.push_str(&lap_table(lap, units(outcome), "message"));
    out
}

/// The lines that say what the broker and we have used for each of `count`, whatever it is.
pub(crate) fn lap_table(lap: &Lap, count: u64, unit: &str) -> String {
    let mut out = String::new();
    if let Some(broker) = lap.broker {
        let cpu = each(broker.cpu, count);
        let parts = broker.user_share.map_or_else(String::new, |share| {
            format!(" ({:.3} user, {:.3} system)", cpu * share, cpu * (1.0 - share))
        });
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let _ = writeln!(
            out,
            "broker     {cpu:.3} µs of CPU per {unit}{parts}, {:.3} context switches\n\
             memory     {:.1} MiB before, {:.1} at most, {:.1} after",
            broker.switches as f64 / count.max(1) as f64,
            mib(broker.rss_before),
            mib(broker.rss_peak),
            mib(broker.rss_after),
        );
    }
    if let Some(syscalls) = lap.syscalls {
        let _ =
            writeln!(out, "calls      {:.3} system calls per {unit}", syscalls as f64 / count.max(1) as f64);
    }
    let _ = write!(
        out,
        "generator  {:.3} µs of CPU per {unit}, {:.2} cores",
        each(lap.own_cpu, count),
        lap.own_cores()
    );
    out
}

/// Prints a run, as a table or as a line of JSON, with what an addition has to say.
pub(crate) fn print(
    name: &str,
    plan: &Plan<'_>,
    outcome: &Outcome,
    more: impl FnOnce(&mut Object),
    more_text: &str,
) {
    if plan.common.json {
        let mut object = Object::new();
        put_plan(&mut object, name, plan);
        put_outcome(&mut object, plan, outcome);
        more(&mut object);
        print_line(&object.end());
    } else {
        print_line(&format!("{}{more_text}", table(plan, outcome)));
    }
    complain(&outcome.problems);
    warn(&outcome.lap);
}

/// Says what a lap could not measure, and whether it measured us.
pub(crate) fn warn(lap: &Lap) {
    complain(&lap.notes);
    if lap.generator_bound() {
        complain(&[format!(
            "the generator was the bottleneck: it used {:.2} cores, so the broker could have done more",
            lap.own_cores()
        )]);
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

/// Bytes for each of `count` things.
pub(crate) fn bytes_each(before: u64, after: u64, count: u64) -> u64 {
    after.saturating_sub(before) / count.max(1)
}

/// Microseconds for each, for people.
pub(crate) fn cpu_each(cpu: Duration, count: u64) -> String {
    span(each(cpu, count))
}
