//! What one protocol sends, every other receives: MQTT and STOMP, in all their versions, over real sockets.
//!
//! `grid` holds a sender against all receivers, row by row; `fields`, `oddities` and `bodies` are its rows. `names` are
//! the names of destinations, there and back. `ways` and `limits` are what takes more than one message to see. `web` is what HTTP and JSON send and see. The page
//! for users is `docs/crossing.md`.

mod bodies;
mod fields;
mod grid;
mod limits;
mod names;
mod oddities;
pub(crate) mod parties;
mod ways;
mod web;
