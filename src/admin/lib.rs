//! What the server tells those who watch and run it: the management API, and the Prometheus text of its counters.
//!
//! Handlers know the broker and who asks ([`Caller`]); sockets, logins and the data plane are the business of `net`.

mod answer;
mod exposition;
mod management;
mod metrics;
mod problem;
mod process;
pub mod query;
mod routes;
mod show;

pub use management::management;
pub use metrics::{NetStats, metrics};
pub use problem::{Problem, status_of};
pub use process::{Process, Usage};
pub use routes::{Caller, Routes};
