//! The neutral message model: a superset of what JMS, AMQP and MQTT 5 messages can express, and the seam between
//! protocols and the core. It points nowhere: no socket, no disk, no clock, no protocol's word.

pub mod clock;
pub mod error;
pub mod headers;
pub mod ids;
pub mod selector;
