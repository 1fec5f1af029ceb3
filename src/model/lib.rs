//! The neutral message model: a superset of what JMS, AMQP and MQTT 5 messages can express, and the seam between
//! protocols and the core. It points nowhere: no socket, no disk, no clock, no protocol's word.

pub mod access;
pub mod addresses;
pub mod base64;
pub mod chunks;
pub mod clock;
pub mod coming;
pub mod command;
pub mod delivery;
pub mod destination;
pub mod error;
pub mod event;
pub mod headers;
pub mod ids;
pub mod limits;
pub mod message;
pub mod pattern;
pub mod rare;
pub mod selector;
pub mod session;
pub mod settlement;
pub mod stored;
pub mod text;
pub mod transactions;
pub mod varint;
