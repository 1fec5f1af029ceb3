//! The REST API of ActiveMQ (`/api/message/DEST`), as a superset that loses nothing: what its clients send means the same
//! here, but octets stay octets, properties survive, and the priority is that of every other way in.
//!
//! [`post`] reads what is sent, [`consume`] what is asked for, [`reply`] makes the answer to that.

mod reply;
mod request;

pub use reply::{Reply, reply};
pub use request::{Consume, Media, Message, Post, Settling, consume, post};
