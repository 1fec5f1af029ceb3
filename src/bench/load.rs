//! From arguments to a plan, and from a plan to a printed result.

use std::time::Duration;

use crate::dialect::Dialect;
use crate::engine::lane::Hold;
use crate::engine::{self, Plan};
use crate::options::{Common, Extent, Load};
use crate::report;
use crate::topology::Shape;

/// Messages, if nobody says how many.
const MESSAGES: u64 = 200_000;

/// What a protocol takes where nobody says anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) size: usize,
    pub(crate) window: u32,
    pub(crate) batch: u16,
}

/// Messages, or a time.
pub(crate) fn extent(extent: &Extent, messages: u64) -> (Option<u64>, Duration) {
    match extent.duration {
        Some(duration) => (None, duration),
        None => (Some(extent.messages.unwrap_or(messages)), Duration::ZERO),
    }
}

/// What these arguments ask for.
pub(crate) fn plan<'a>(
    from: &'a Dialect,
    to: &'a Dialect,
    shape: Shape,
    load: &Load,
    defaults: Defaults,
    common: &'a Common,
) -> Result<Plan<'a>, String> {
    let wanted = u64::from(load.window.unwrap_or(defaults.window));
    let hold = hold(from, shape, load.extent.rate);
    let window = match (from, hold) {
        _ if matches!(shape, Shape::Request(_)) => 1,
        // STOMP's is that of all producers, unless receipts make it each one's own.
        (Dialect::Stomp(_), Hold::Received) => (wanted / shape.senders().max(1) as u64).max(1),
        _ => wanted,
    };
    if from.unit() > window && hold != Hold::Pace && hold != Hold::Socket {
        return Err(format!(
            "a transaction of {} messages does not fit into a window of {window}",
            from.unit()
        ));
    }
    let (messages, duration) = extent(&load.extent, MESSAGES);
    Ok(Plan {
        from,
        to,
        shape,
        hold,
        window,
        batch: load.batch.unwrap_or(defaults.batch).into(),
        size: load.size.unwrap_or(defaults.size),
        run: engine::new_run(),
        messages,
        duration,
        warmup: load.extent.warmup,
        rate: load.extent.rate,
        stalled: 0,
        slices: 0,
        common,
    })
}

/// What holds senders back.
fn hold(from: &Dialect, shape: Shape, rate: Option<f64>) -> Hold {
    let asks = matches!(shape, Shape::Request(_));
    match (from.acknowledges(), shape.copies() > 0) {
        _ if rate.is_some() => Hold::Pace,
        (true, true) if matches!(from, Dialect::Stomp(_)) && !asks => Hold::Acknowledged,
        (true, true) => Hold::Both,
        (true, false) => Hold::Acknowledged,
        (false, true) => Hold::Received,
        (false, false) => Hold::Socket,
    }
}

/// Runs a plan and prints how it went; false if it is not clean.
pub(crate) fn run(name: &str, plan: &Plan<'_>) -> Result<bool, String> {
    let outcome = engine::run(plan)?;
    report::print(name, plan, &outcome, |_| {}, "");
    Ok(outcome.is_clean())
}
