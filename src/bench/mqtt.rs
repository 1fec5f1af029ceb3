//! `sabir bench mqtt`: publishers and subscribers.

use crate::dialect::{Dialect, mqtt};
use crate::idle;
use crate::link::Place;
use crate::load::{self, Defaults};
use crate::options::{Common, Load, Login, MqttWay};
use crate::topology::Shape;

const FLOW: &str = "\
How messages are held back:
  A publisher has at most --window messages under way: sent, but not received by every subscriber that is to have them.
  With QoS 1 and 2 the window also bounds what the broker has not acknowledged. QoS 0 has no acknowledgements of its own,
  so the window is all that keeps a broker from being flooded; brokers are free to drop what a subscriber does not read in
  time, and with this nobody falls behind by more than publishers times window. Without subscribers QoS 0 is sent as fast as
  the socket takes it. With --rate nothing is held back: latency counts from when each message should have left.

Topologies:
  --topology one-to-one              one publisher, one subscriber (the default)
  --topology pairs:10                ten times that, each on a topic of its own
  --topology fan-in:50               fifty publishers
  --topology fan-out:100             a hundred subscribers, each gets everything
  --topology competing:4x4           four publishers, four members of a shared subscription
  --topology request-reply:10        ten that ask, one that answers
  --publishers 4 --subscribers 3     four publishers, three subscribers, each gets everything";

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = FLOW)]
pub struct Arguments {
    /// Broker's MQTT listener
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    pub server: String,
    /// The same as tcp://HOST:PORT, or unix://PATH, or ws://HOST:PORT/PATH
    #[arg(long, value_name = "URL", conflicts_with = "server")]
    pub url: Option<String>,
    /// Topic; where there are several, the beginning of each
    #[arg(long, default_value = "sabir/bench")]
    pub topic: String,
    /// Connections that publish [default: 1]
    #[arg(long, value_name = "COUNT", conflicts_with = "topology",
          value_parser = clap::value_parser!(u16).range(1..=16_000))]
    pub publishers: Option<u16>,
    /// Connections that subscribe; each gets every message [default: 1]
    #[arg(long, value_name = "COUNT", conflicts_with = "topology",
          value_parser = clap::value_parser!(u16).range(0..=16_000))]
    pub subscribers: Option<u16>,
    /// The same as --topology pairs:COUNT
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["publishers", "subscribers", "topology"],
          value_parser = clap::value_parser!(u16).range(1..=16_000))]
    pub pairs: Option<u16>,
    /// Measure this many idle connections instead; the same as `sabir bench idle --protocol mqtt`
    #[arg(long, value_name = "COUNT", requires = "pid")]
    pub idle: Option<u32>,
    /// How MQTT is spoken.
    #[command(flatten)]
    pub way: MqttWay,
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
    let place = Place::of(&arguments.server, arguments.url.as_deref(), "/mqtt")?;
    let dialect = dialect(place, &arguments.topic, &arguments.way, &arguments.login);
    if let Some(count) = arguments.idle {
        return idle::measure(&dialect, count, &arguments.common);
    }
    let shape = match (arguments.load.topology, arguments.pairs) {
        (Some(topology), _) => topology.shape(false)?,
        (None, Some(pairs)) => Shape::Pairs(pairs),
        (None, None) => Shape::Each {
            senders: arguments.publishers.unwrap_or(1),
            receivers: arguments.subscribers.unwrap_or(1),
        },
    };
    let defaults = Defaults { size: 64, window: 100, batch: 32 };
    let plan = load::plan(&dialect, &dialect, shape, &arguments.load, defaults, &arguments.common)?;
    load::run("mqtt", &plan)
}

/// MQTT as these arguments want it.
pub(crate) fn dialect(place: Place, topic: &str, way: &MqttWay, login: &Login) -> Dialect {
    Dialect::Mqtt(mqtt::Options {
        place,
        version: way.mqtt_version.into(),
        topic: topic.to_owned(),
        qos: way.quality(),
        stored: way.stored,
        username: login.login.clone(),
        password: login.passcode.clone(),
    })
}
