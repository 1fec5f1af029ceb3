//! Arguments that several measurements have in common.

use std::time::Duration;

use sabir_mqtt::{Qos, Version};

use crate::dialect::stomp::AckMode;
use crate::stamp::STAMP_BYTES;
use crate::topology::Topology;

/// What every measurement can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Process whose CPU time and memory are reported: the broker's
    #[arg(long = "broker-pid", visible_alias = "pid", value_name = "PID")]
    pub pid: Option<u32>,
    /// Count the broker's system calls, too; needs `perf` and leave to use it
    #[arg(long, requires = "pid")]
    pub syscalls: bool,
    /// Give up when nothing moves for this many seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
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

/// How long, and how fast.
#[derive(Clone, Debug, clap::Args)]
pub struct Extent {
    /// Messages in all [default: 200000; http: 50000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// Send for this many seconds instead
    #[arg(long, value_name = "SECONDS", conflicts_with = "messages", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Seconds of the same before, which are not measured
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub warmup: Duration,
    /// Open loop: so many messages per second in all, whatever the broker does
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "window", value_parser = rate)]
    pub rate: Option<f64>,
}

/// Who sends what to whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// one-to-one, pairs:N, fan-in:N, fan-out:N, competing:PxC or request-reply:N
    #[arg(long, value_name = "WORD")]
    pub topology: Option<Topology>,
    /// Body size in bytes, at least 40 [default: 64; stomp: 100]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub size: Option<usize>,
    /// Closed loop: messages under way at once, see below [default: 100; stomp: 1000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: Option<u32>,
    /// Messages in one write, at most; half the window, if that is less [default: 32; stomp: 256]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: Option<u16>,
    /// How long, and how fast.
    #[command(flatten)]
    pub extent: Extent,
}

/// As whom to connect.
#[derive(Clone, Debug, clap::Args)]
pub struct Login {
    /// User name
    #[arg(long, visible_alias = "username", value_name = "NAME")]
    pub login: Option<String>,
    /// Password
    #[arg(long, visible_alias = "password", requires = "login", value_name = "WORD")]
    pub passcode: Option<String>,
}

/// How MQTT is spoken.
#[derive(Clone, Debug, clap::Args)]
pub struct MqttWay {
    /// MQTT: version to speak
    #[arg(long, value_enum, default_value = "5")]
    pub mqtt_version: MqttVersion,
    /// MQTT: quality of service, of publishing and of subscribing
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// MQTT: sessions of subscribers outlive their connections
    #[arg(long)]
    pub stored: bool,
}

impl MqttWay {
    pub(crate) fn quality(&self) -> Qos {
        Qos::from_level(self.qos).unwrap_or_default()
    }
}

/// How STOMP is spoken.
#[derive(Clone, Debug, clap::Args)]
pub struct StompWay {
    /// STOMP, HTTP: send persistent messages
    #[arg(long)]
    pub persistent: bool,
    /// STOMP: ask for a receipt for every message, and let receipts move the window
    #[arg(long)]
    pub receipts: bool,
    /// STOMP: how deliveries are acknowledged
    #[arg(long, value_enum, default_value = "auto")]
    pub ack: AckMode,
    /// STOMP: deliveries a consumer may have unacknowledged
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    pub prefetch: u32,
    /// STOMP: messages in one transaction; with --receipts the commit has the receipt
    #[arg(long, default_value_t = 0, value_name = "COUNT", hide_default_value = true)]
    pub transaction: u16,
}

/// A version of MQTT, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MqttVersion {
    /// MQTT 3.1.
    #[value(name = "3.1")]
    V31,
    /// MQTT 3.1.1.
    #[value(name = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[value(name = "5", alias = "5.0")]
    V5,
}

impl From<MqttVersion> for Version {
    fn from(version: MqttVersion) -> Self {
        match version {
            MqttVersion::V31 => Self::V31,
            MqttVersion::V311 => Self::V311,
            MqttVersion::V5 => Self::V5,
        }
    }
}

/// A number of seconds such as `2`, `0.5`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|_| "not a number of seconds".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("not a number of messages per second".to_owned()),
    }
}

/// The size of a body, which has room for its stamp.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size) if size >= STAMP_BYTES => Ok(size),
        Ok(_) => Err(format!("must be at least {STAMP_BYTES}: every message carries a stamp")),
        Err(_) => Err("not a number of bytes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_rates_and_sizes() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err() && seconds("x").is_err());
        assert_eq!(rate("5000"), Ok(5000.0));
        assert!(rate("0").is_err() && rate("NaN").is_err() && rate("inf").is_err());
        assert_eq!(size("40"), Ok(40));
        assert!(size("39").is_err() && size("x").is_err());
    }
}
