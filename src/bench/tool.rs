//! Arguments of the measurements that are not of one protocol: which to speak, where, and as whom.

use crate::cross::Protocol;
use crate::dialect::Dialect;
use crate::options::{Login, MqttWay, StompWay};
use crate::{mqtt, stomp};

/// What to speak, and to whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Protocol to speak: mqtt or stomp
    #[arg(long, value_enum, default_value = "mqtt")]
    pub protocol: Protocol,
    /// tcp://HOST:PORT, unix://PATH or ws://HOST:PORT/PATH [default: the protocol's port here]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Topic of MQTT, or destination of STOMP with `/queue/` or `/topic/` [default: named sabir bench]
    #[arg(long, value_name = "NAME", visible_alias = "topic")]
    pub destination: Option<String>,
    /// How MQTT is spoken.
    #[command(flatten)]
    pub mqtt: MqttWay,
    /// How STOMP is spoken.
    #[command(flatten)]
    pub stomp: StompWay,
    /// As whom to connect.
    #[command(flatten)]
    pub login: Login,
}

impl Target {
    /// The protocol, with this destination if none is named. MQTT separates levels with slashes.
    pub(crate) fn dialect(&self, topic: &str, destination: &str) -> Result<Dialect, String> {
        let place = self.protocol.place(self.url.as_deref())?;
        let name = |default: &str| self.destination.clone().unwrap_or_else(|| default.to_owned());
        match self.protocol {
            Protocol::Mqtt => Ok(mqtt::dialect(place, &name(topic), &self.mqtt, &self.login)),
            Protocol::Stomp => Ok(stomp::dialect(place, &name(destination), &self.stomp, &self.login)),
            Protocol::Http => Err("this is measured over mqtt or stomp".into()),
        }
    }
}
