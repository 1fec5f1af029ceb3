//! `sabir bench stomp`: producers and consumers.

use crate::dialect::{Dialect, stomp};
use crate::link::Place;
use crate::load::{self, Defaults};
use crate::options::{Common, Load, Login, StompWay};
use crate::topology::Shape;

const FLOW: &str = "\
How messages are held back:
  At most --window messages are under way: sent, but not received by everyone who is to have them. It is divided among the
  producers. With --receipts the window is each producer's own and bounds what has no receipt yet, whoever receives it when.
  Without consumers and receipts messages are sent as fast as the socket takes them. With --rate nothing is held back:
  latency counts from when each message should have left.

Topologies:
  --topology one-to-one              one producer, one consumer (the default)
  --topology pairs:10                ten times that, each with a destination of its own
  --topology fan-in:50               fifty producers
  --topology fan-out:100             a hundred consumers of a topic, each gets everything
  --topology competing:4x4           four producers, four consumers that share a queue
  --topology request-reply:10        ten that ask, one that answers
  --producers 4 --consumers 3        four producers; three consumers share a queue, or get all of a topic";

/// Where messages go, if nobody says.
const QUEUE: &str = "/queue/sabir.bench";
const TOPIC: &str = "/topic/sabir.bench";

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = FLOW)]
pub struct Arguments {
    /// Broker's STOMP listener
    #[arg(long, default_value = "127.0.0.1:61613", value_name = "HOST:PORT")]
    pub server: String,
    /// The same as tcp://HOST:PORT, or unix://PATH, or ws://HOST:PORT/PATH
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    pub url: Option<String>,
    /// Where messages go, with `/queue/` or `/topic/`; where there are several, the beginning of each [default:
    /// /queue/sabir.bench, or a topic with fan-out]
    #[arg(long)]
    pub destination: Option<String>,
    /// Connections that send [default: 1]
    #[arg(long, value_name = "COUNT", conflicts_with = "topology",
          value_parser = clap::value_parser!(u16).range(1..=16_000))]
    pub producers: Option<u16>,
    /// Connections that receive [default: 1]
    #[arg(long, value_name = "COUNT", conflicts_with = "topology",
          value_parser = clap::value_parser!(u16).range(0..=16_000))]
    pub consumers: Option<u16>,
    /// How STOMP is spoken.
    #[command(flatten)]
    pub way: StompWay,
    /// As whom to connect.
    #[command(flatten)]
    pub login: Login,
    /// Who sends what to whom.
    #[command(flatten)]
    pub load: Load,
    /// What every measurement can be told.
    #[command(flatten)]
    pub common: Common,
}

/// Runs one measurement and prints it. False if messages were lost, doubled, out of order or broken.
///
/// # Errors
/// A sentence, if the broker cannot be reached or breaks the protocol.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let place = Place::of(&arguments.server, arguments.url.as_deref(), "/stomp")?;
    let is_fan_out = matches!(arguments.load.topology, Some(crate::Topology::FanOut(_)));
    let default = if is_fan_out { TOPIC } else { QUEUE };
    let destination = arguments.destination.as_deref().unwrap_or(default);
    let dialect = dialect(place, destination, &arguments.way, &arguments.login);
    let shape = match arguments.load.topology {
        Some(topology) => {
            let shape = topology.shape(dialect.shares())?;
            if matches!(shape, Shape::Share { .. }) && !dialect.shares() {
                return Err("subscribers of a topic each get everything: competing needs a queue".into());
            }
            shape
        }
        None => {
            let (senders, receivers) = (arguments.producers.unwrap_or(1), arguments.consumers.unwrap_or(1));
            if dialect.shares() {
                Shape::Share { senders, receivers }
            } else {
                Shape::Each { senders, receivers }
            }
        }
    };
    let defaults = Defaults { size: 100, window: 1000, batch: 256 };
    let plan = load::plan(&dialect, &dialect, shape, &arguments.load, defaults, &arguments.common)?;
    load::run("stomp", &plan)
}

/// STOMP as these arguments want it.
pub(crate) fn dialect(place: Place, destination: &str, way: &StompWay, login: &Login) -> Dialect {
    Dialect::Stomp(stomp::Options {
        place,
        destination: destination.to_owned(),
        persistent: way.persistent,
        receipts: way.receipts,
        ack: way.ack,
        prefetch: way.prefetch,
        transaction: way.transaction,
        login: login.login.clone(),
        passcode: login.passcode.clone(),
    })
}
