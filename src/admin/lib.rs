//! What the server tells those who watch it: the Prometheus text of its counters.
//!
//! Pure rendering of snapshots that others take; which path shows it is the business of `net`.

mod exposition;
mod metrics;
mod process;

pub use metrics::{NetStats, metrics};
pub use process::{Process, Usage};
