//! `sabir request`: asks a question of whoever serves a destination, and prints the answer.

use std::io::{self, Read as _};

use clap::Args;
use sabir_stomp::client;

use super::connection::Connection;
use super::output::{self, Form};
use super::publish::append;
use super::{Failure, ServerArgs, header, pairs};

const REPLIES: &str = "/temp-queue/reply";
const CORRELATION: &str = "request-1";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to: /queue/NAME or /topic/NAME
    destination: String,
    /// The question; without it, standard input is
    body: Option<String>,
    /// A header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Print the body alone, without a line end
    #[arg(long, group = "form")]
    raw: bool,
    /// Print a JSON object with headers and body
    #[arg(long, group = "form")]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let body = match &arguments.body {
        Some(body) => body.clone().into_bytes(),
        None => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(|error| Failure::input(&error))?;
            bytes
        }
    };
    let mut connection = Connection::open(&arguments.server, None)?;
    let version = connection.version;
    client::subscribe(connection.out(), version, "replies", REPLIES, "auto", &[]);
    let mut headers = pairs(&arguments.headers);
    headers.push(("reply-to", REPLIES));
    if !headers.iter().any(|(name, _)| *name == "correlation-id") {
        headers.push(("correlation-id", CORRELATION));
    }
    append(&mut connection, &arguments.destination, &headers, &body);
    connection.flush()?;
    let deadline = connection.deadline();
    // The queue is ours alone, and we asked one question: whatever comes is the answer, also from those who forget the
    // correlation id.
    while let Some(message) = connection.next(Some(deadline))? {
        if message.command == "MESSAGE" {
            let mut printed = Vec::new();
            Form::of(arguments.raw, arguments.json).print(&message, &mut printed);
            output::write(&printed)?;
            return connection.disconnect();
        }
    }
    Err(Failure::TimedOut(format!("nobody answered within {} s", arguments.server.timeout.as_secs_f64())))
}
