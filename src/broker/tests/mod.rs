//! What the core promises, stated one behaviour at a time over a fake protocol: no socket, no thread, no real time.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod device;
mod fake;
mod harness;

mod backlogs;
mod changes;
mod durability;
mod groups;
mod large;
mod limits;
mod manage;
mod managed_messages;
mod names;
mod paging;
mod picture;
mod pressure;
mod queues;
mod redrives;
mod retained;
mod routing;
mod selectors;
mod session_durability;
mod session_races;
mod sessions;
mod sizes;
mod spilling;
mod stress;
mod topics;
mod transactions;
mod wills;
