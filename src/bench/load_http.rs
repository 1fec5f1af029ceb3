//! `sabir bench http`: messages sent by request over connections that are kept, each answered with its receipt.

use crate::dialect::{Dialect, http};
use crate::engine::Plan;
use crate::engine::lane::Hold;
use crate::link::Place;
use crate::load;
use crate::options::{Common, Extent, Login, size};
use crate::topology::Shape;

/// Messages, if nobody says how many.
const MESSAGES: u64 = 50_000;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Broker's HTTP listener
    #[arg(long, default_value = "127.0.0.1:8161", value_name = "HOST:PORT")]
    pub server: String,
    /// The same as http://HOST:PORT
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    pub url: Option<String>,
    /// Where messages go, with `/queue/` or `/topic/`
    #[arg(long, default_value = "/queue/sabir.bench.http")]
    pub destination: String,
    /// Connections that send
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16_000))]
    pub connections: u16,
    /// Body size in bytes, at least 40
    #[arg(long, default_value = "100", value_parser = size)]
    pub size: usize,
    /// Requests of one connection that are under way at once; more than one is pipelining [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub window: Option<u16>,
    /// Messages in one request, as lines of JSON if there are several
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub batch: u16,
    /// Send persistent messages
    #[arg(long)]
    pub persistent: bool,
    /// As whom to send.
    #[command(flatten)]
    pub login: Login,
    /// How long, and how fast.
    #[command(flatten)]
    pub extent: Extent,
    /// What every measurement can be told.
    #[command(flatten)]
    pub common: Common,
}

/// Runs one measurement and prints it. False if a message was not confirmed.
///
/// # Errors
/// A sentence, if the broker cannot be reached.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let dialect = Dialect::Http(http::Options {
        place: Place::of_http(&arguments.server, arguments.url.as_deref())?,
        destination: arguments.destination.clone(),
        persistent: arguments.persistent,
        per_request: arguments.batch,
        login: arguments.login.login.clone(),
        passcode: arguments.login.passcode.clone(),
    });
    let window = u64::from(arguments.window.unwrap_or(1)) * u64::from(arguments.batch);
    let extent = &arguments.extent;
    let (messages, duration) = load::extent(extent, MESSAGES);
    let plan = Plan {
        from: &dialect,
        to: &dialect,
        shape: Shape::Each { senders: arguments.connections, receivers: 0 },
        hold: if extent.rate.is_some() { Hold::Pace } else { Hold::Acknowledged },
        window,
        batch: window,
        size: arguments.size,
        run: crate::engine::new_run(),
        messages,
        duration,
        warmup: extent.warmup,
        rate: extent.rate,
        stalled: 0,
        slices: 0,
        common: &arguments.common,
    };
    load::run("http", &plan)
}
