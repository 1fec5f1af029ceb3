//! The load generator behind `sabir bench`. It speaks each protocol to any broker, so that two brokers can be measured
//! in the same run, and it checks what it measures: every message carries its sender and number, and loss, duplicates
//! and order are part of the result.

#![expect(clippy::disallowed_methods, reason = "measures time")]

pub mod http;
mod load_http;
mod mqtt;
mod process;
mod report;
mod stomp;
mod verify;
pub mod websocket;
mod wire;

pub use load_http::{Arguments as HttpArguments, run as run_http};
pub use mqtt::{Arguments as MqttArguments, MqttVersion, run as run_mqtt};
pub use report::Common;
pub use stomp::{Arguments as StompArguments, run as run_stomp};
