//! The destination core: routing, queues, topics, dispatch and transactions, deterministic given its inputs.
//!
//! It takes time and disk from traits, opens no socket, and never awaits. Bytes enter through [`Connection`], which is
//! the [`sabir_model::session::Host`] of a protocol's session, and leave through the outbox of each connection.
//!
//! Lock order: maps of a virtual host → queues in ascending id → the journal's buffer → outbox → chunk pool.

mod acknowledge;
mod bindings;
mod blocking;
mod bodies;
mod broker;
mod browse;
mod budget;
mod client_session;
mod connection;
mod credit;
mod desk;
mod dispatch;
mod durable;
mod handing;
mod inflight;
mod leaving;
mod lock_order;
mod login;
mod mailbox;
pub mod manage;
mod marks;
mod notes;
mod options;
mod outbox;
mod paged;
mod pager;
mod party;
pub mod pattern_trie;
mod policy;
mod pressure;
mod publish;
mod queue;
mod ready;
mod recovery;
mod registry;
mod remains;
mod replay;
mod retained;
mod route;
mod rules;
mod selection;
mod sending;
mod session_log;
mod session_subscribe;
mod sessions;
mod settling;
mod share;
mod spill;
mod stats;
mod subscribe;
mod tally;
#[cfg(test)]
mod tests;
mod tick;
mod transaction;
mod waiting;
mod will;
mod window;
mod work;
mod writer;

pub use bodies::BodyWriter;
pub use broker::{Broker, ConnectionInfo, OpenError, RecoverySummary};
pub use connection::Connection;
pub use durable::DurableMade;
pub use notes::{Note, NoteTable};
pub use options::{BrokerLimits, BrokerOptions};
pub use policy::{DeadLetters, Expired, Negative, Policies, Policy, SlowConsumer};
pub use pressure::PartialBody;
pub use recovery::Restored;
pub use rules::{CompositeRule, Forward, MirroredQueues, Rules, VirtualTopicRule};
pub use stats::{BrokerStats, QueueStats, TopicStats};
pub use writer::{OutboxLimits, Writer};
