//! Sabir, a multi-protocol message broker.
//!
//! The root of the workspace joins the parts: [`config`] says what is wanted, [`server`] composes security, broker and
//! [`net`], which runs the protocol crates over sockets.

pub mod cli;
pub mod config;
pub mod net;
mod notify;
pub mod server;
