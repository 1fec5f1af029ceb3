//! The load generator behind `sabir bench`. It speaks each protocol to any broker, so that two brokers can be measured
//! in the same run, and it checks what it measures: every message carries its sender, its number and a checksum, and
//! loss, duplicates, order and damage are part of the result.
//!
//! One thread does everything, so that its own cost is seen: `engine` turns, `dialect` speaks, `verify` checks.
//! Each sub-command has a file; what they share is in `options`, `load` and `report`.

#![expect(clippy::disallowed_methods, reason = "measures time")]

mod backlog;
mod churn;
mod cross;
mod dialect;
mod engine;
pub mod http;
mod idle;
mod json;
mod latency;
mod link;
mod load;
mod load_http;
mod mqtt;
mod options;
mod pace;
mod poll;
mod process;
mod progress;
mod report;
mod slow;
mod stamp;
mod stomp;
mod subs;
mod tool;
mod topology;
mod verify;
mod watch;
pub mod websocket;

pub use backlog::{Arguments as BacklogArguments, run as run_backlog};
pub use churn::{Arguments as ChurnArguments, run as run_churn};
pub use cross::{Arguments as CrossArguments, Protocol, run as run_cross};
pub use dialect::stomp::AckMode;
pub use idle::{Arguments as IdleArguments, run as run_idle};
pub use load_http::{Arguments as HttpArguments, run as run_http};
pub use mqtt::{Arguments as MqttArguments, run as run_mqtt};
pub use options::{Common, Extent, Load, Login, MqttVersion, MqttWay, StompWay};
pub use slow::{Arguments as SlowArguments, run as run_slow};
pub use stomp::{Arguments as StompArguments, run as run_stomp};
pub use subs::{Arguments as SubsArguments, run as run_subs};
pub use tool::Target;
pub use topology::Topology;
