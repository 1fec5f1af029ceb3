//! Sabir, a multi-protocol message broker.

pub mod config;
