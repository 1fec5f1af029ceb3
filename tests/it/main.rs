//! The whole server over real sockets: the binary as a process, raw bytes as its clients.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;
mod cli;
mod cli_web;
mod client;
mod crossing;
mod deep;
mod destinations;
mod http;
mod json;
mod large;
mod large_lost;
mod lifecycle;
mod limits;
mod mqtt;
mod notify;
mod overload;
mod rumqttc;
mod server;
mod startup;
mod store;
mod transports;
mod websocket;
