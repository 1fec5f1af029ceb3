//! MQTT 3.1, 3.1.1 and 5.0 as pure translation: bytes in, values out, and back.
//!
//! This crate opens no socket and reads no clock. It owns what a packet is: [`frame`] cuts packets out of a stream,
//! [`decode`] reads one in place, and every packet has an `encode`. What is wrong with bytes is told as a
//! [`DecodeError`], whose [`Reason`] is what a server says before it hangs up. [`filter`] owns the grammar of topic
//! filters; [`client`] speaks the other side of the protocol, for tools and tests.
//!
//! Rules that need more than one packet to judge (a first packet that is no CONNECT, aliases, identifiers in use,
//! quotas) are left to the session.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod client;
mod error;
pub mod filter;
pub mod fuzz;
pub mod packet;
mod reason;
mod version;

pub use crate::error::{DecodeError, EncodeError};
pub use crate::packet::{Frame, Kind, Packet, PacketId, Progress, Qos, decode, frame};
pub use crate::reason::Reason;
pub use crate::version::Version;
