//! Messaging over HTTP as pure translation: requests to messages, deliveries to replies and events.
//!
//! This crate opens no socket and reads no clock. [`incoming`] reads what a request sends, in each of its forms;
//! [`cloudevents`] is one of them, and the way back; [`sse`] writes a stream of events; [`token`] writes what a client
//! settles by; [`activemq`] is the REST API of ActiveMQ, requests and replies. Statuses, long polls and leases are the
//! server's.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod activemq;
pub mod cloudevents;
pub mod fuzz;
pub mod incoming;
mod percent;
mod several;
pub mod sse;
pub mod token;
