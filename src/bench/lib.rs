//! The load generator behind `sabir bench`. It speaks each protocol to any broker, so that two brokers can be measured
//! in the same run, and it checks what it measures: every message carries its sender and number, and loss, duplicates
//! and order are part of the result.

mod process;
mod stomp;
mod verify;

pub use stomp::{Arguments as StompArguments, run as run_stomp};
