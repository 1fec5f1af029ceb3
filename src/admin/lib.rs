//! What the server tells those who watch it, the Prometheus text of its counters; and what all that answers over HTTP
//! shares: the list of routes, who asks, and problem documents.
//!
//! Sockets, logins and the data plane are the business of `net`.

mod answer;
mod dead_letters;
mod exposition;
mod management;
mod messages;
mod metrics;
mod problem;
mod process;
pub mod query;
mod routes;
mod show;

pub use management::management;
pub use messages::messages;
pub use metrics::{NetStats, metrics};
pub use problem::Problem;
pub use process::{Process, Usage};
pub use routes::{Caller, Routes};
