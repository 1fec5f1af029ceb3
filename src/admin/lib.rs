//! What the server tells those who watch it, the Prometheus text of its counters; and what all that answers over HTTP
//! shares: the list of routes, who asks, and problem documents.
//!
//! Sockets, logins and the data plane are the business of `net`.

mod console;
mod exposition;
mod metrics;
mod problem;
mod process;
mod routes;

pub use console::{console, index};
pub use metrics::{NetStats, metrics};
pub use problem::Problem;
pub use process::{Process, Usage};
pub use routes::{Caller, Routes};
