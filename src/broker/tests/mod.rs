//! What the core promises, stated one behaviour at a time over a fake protocol: no socket, no thread, no real time.

#![expect(clippy::unwrap_used, reason = "tests")]

mod fake;
mod harness;

mod durability;
mod limits;
mod names;
mod queues;
mod routing;
mod selectors;
mod stress;
mod topics;
mod transactions;
