//! `sabir bench cross`: what one protocol sends, another receives.

use crate::dialect::{Dialect, http};
use crate::link::Place;
use crate::load::{self, Defaults};
use crate::options::{Common, Load, Login, MqttWay, StompWay};
use crate::topology::{Shape, Topology};
use crate::{mqtt, stomp};

const NAMES: &str = "\
Destinations, if nobody names them:
  the topic sabir.bench, which is sabir/bench in MQTT and /topic/sabir.bench elsewhere;
  with --topology competing the queue sabir.bench, which is $queue/sabir/bench in Sabir's MQTT. Among subscribers of MQTT it
  is a shared subscription to the topic.";

/// Who sends, who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// MQTT.
    Mqtt,
    /// STOMP.
    Stomp,
    /// HTTP, which only sends.
    Http,
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Stomp => "stomp",
            Self::Http => "http",
        }
    }

    /// Where it is spoken, if nobody says.
    pub(crate) fn place(self, url: Option<&str>) -> Result<Place, String> {
        match self {
            Self::Mqtt => Place::of("127.0.0.1:1883", url, "/mqtt"),
            Self::Stomp => Place::of("127.0.0.1:61613", url, "/stomp"),
            Self::Http => Place::of_http("127.0.0.1:8161", url),
        }
    }
}

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NAMES)]
pub struct Arguments {
    /// What the senders speak
    #[arg(long, value_enum)]
    pub from: Protocol,
    /// What the receivers speak: mqtt or stomp
    #[arg(long, value_enum)]
    pub to: Protocol,
    /// Where the senders connect: tcp://, unix://, ws:// or, for HTTP, http:// [default: the protocol's port here]
    #[arg(long, value_name = "URL")]
    pub from_url: Option<String>,
    /// Where the receivers connect [default: the protocol's port here]
    #[arg(long, value_name = "URL")]
    pub to_url: Option<String>,
    /// What the senders call the destination
    #[arg(long, value_name = "NAME")]
    pub from_destination: Option<String>,
    /// What the receivers call it
    #[arg(long, value_name = "NAME")]
    pub to_destination: Option<String>,
    /// How MQTT is spoken.
    #[command(flatten)]
    pub mqtt: MqttWay,
    /// How STOMP is spoken.
    #[command(flatten)]
    pub stomp: StompWay,
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
    let topology = arguments.load.topology.unwrap_or(Topology::OneToOne);
    // Members of a shared subscription share a topic; others share a queue.
    let queue = matches!(topology, Topology::Competing(..)) && arguments.to != Protocol::Mqtt;
    let from =
        arguments.side(arguments.from, arguments.from_url.as_deref(), &arguments.from_destination, queue)?;
    let to = arguments.side(arguments.to, arguments.to_url.as_deref(), &arguments.to_destination, queue)?;
    let shape = topology.shape(to.shares())?;
    if matches!(shape, Shape::Share { .. }) && matches!(to, Dialect::Stomp(_)) && !to.shares() {
        return Err("subscribers of a topic each get everything: competing needs a queue".into());
    }
    if matches!(shape, Shape::Request(_)) && arguments.from == Protocol::Http {
        return Err("answers are not received over HTTP here: let another protocol ask".into());
    }
    let defaults = Defaults { size: 64, window: 100, batch: 32 };
    let plan = load::plan(&from, &to, shape, &arguments.load, defaults, &arguments.common)?;
    load::run(&format!("{} to {}", arguments.from.as_str(), arguments.to.as_str()), &plan)
}

impl Arguments {
    fn side(
        &self,
        protocol: Protocol,
        url: Option<&str>,
        destination: &Option<String>,
        queue: bool,
    ) -> Result<Dialect, String> {
        let place = protocol.place(url)?;
        let name = |default: &str| destination.clone().unwrap_or_else(|| default.to_owned());
        let plain = if queue { "/queue/sabir.bench" } else { "/topic/sabir.bench" };
        Ok(match protocol {
            Protocol::Mqtt => {
                let topic = name(if queue { "$queue/sabir/bench" } else { "sabir/bench" });
                mqtt::dialect(place, &topic, &self.mqtt, &self.login)
            }
            Protocol::Stomp => stomp::dialect(place, &name(plain), &self.stomp, &self.login),
            Protocol::Http => Dialect::Http(http::Options {
                place,
                destination: name(plain),
                persistent: self.stomp.persistent,
                per_request: 1,
                login: self.login.login.clone(),
                passcode: self.login.passcode.clone(),
            }),
        })
    }
}
