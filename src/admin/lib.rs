//! The management API: what there is in a broker, to look at and to change; the metrics page; and what all that answers over
//! HTTP shares: the list of routes, who asks, parameters, and problem documents.
//!
//! Sockets, logins and the data plane are the business of `net`.

mod answer;
mod changes;
mod console;
mod dead_letters;
mod exposition;
mod management;
mod messages;
mod metrics;
mod problem;
mod process;
mod promises;
pub mod query;
mod routes;
mod show;

pub use console::{console, index};
pub use exposition::Format;
pub use management::management;
pub use messages::messages;
pub use metrics::{NetStats, Shape, metrics};
pub use problem::Problem;
pub use process::{Process, Usage};
pub use promises::kept;
pub use routes::{Caller, Routes};
