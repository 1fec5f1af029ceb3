//! `sabir bench slow`: some subscribers that never read beside many that do. The same load is run without them first.

use crate::engine;
use crate::json::Object;
use crate::load::{self, Defaults};
use crate::options::{Common, Load};
use crate::report;
use crate::tool::Target;
use crate::topology::Shape;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to speak, and to whom.
    #[command(flatten)]
    pub target: Target,
    /// Subscribers that read
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=16_000))]
    pub fast: u16,
    /// Subscribers that never read
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub stalled: u16,
    /// What is sent. The topology is settled: one sender, all subscribers.
    #[command(flatten)]
    pub load: Load,
    /// What every measurement can be told.
    #[command(flatten)]
    pub common: Common,
}

/// Runs the measurement twice and prints both. False if those who read missed something.
///
/// # Errors
/// A sentence, if the broker cannot be reached or breaks the protocol.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    if arguments.load.topology.is_some() {
        return Err("slow has a topology of its own: --fast and --stalled".into());
    }
    let dialect = arguments.target.dialect("sabir/bench/slow", "/topic/sabir.bench.slow")?;
    if dialect.shares() {
        return Err("subscribers that do not read are measured on a topic".into());
    }
    let shape = Shape::Each { senders: 1, receivers: arguments.fast };
    let defaults = Defaults { size: 1024, window: 100, batch: 32 };
    let mut plan = load::plan(&dialect, &dialect, shape, &arguments.load, defaults, &arguments.common)?;
    if plan.messages.is_some() && arguments.load.extent.messages.is_none() {
        // Every message goes to all of them.
        plan.messages = Some(20_000);
    }
    let baseline = engine::run(&plan)?;
    plan.stalled = arguments.stalled;
    plan.run = engine::new_run();
    let outcome = engine::run(&plan)?;
    let clean = baseline.is_clean() && outcome.is_clean();
    let mut without = Object::new();
    report::put_outcome(&mut without, &plan, &baseline);
    let text = format!("\nwithout the stalled\n{}", report::table(&plan, &baseline));
    let more = |object: &mut Object| {
        object.put("fast", arguments.fast).put("stalled", arguments.stalled);
        object.put("baseline", without.end());
    };
    report::print(dialect.name(), &plan, &outcome, more, &text);
    report::complain(&baseline.problems);
    Ok(clean)
}
