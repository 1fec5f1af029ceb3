//! `sabir request`: asks a question of whoever serves a destination, and prints the answer.

use std::io::{self, Read as _};

use clap::Args;
use sabir_mqtt::Qos;
use sabir_stomp::client;

use super::connection::Connection;
use super::output::{self, Form};
use super::publish::append;
use super::server::{Protocol, Server};
use super::{Failure, ServerArgs, header, http, mqtt, pairs, qos};

const REPLIES: &str = "/temp-queue/reply";
const CORRELATION: &str = "request-1";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to. STOMP, HTTP: /queue/NAME or /topic/NAME. MQTT: a topic
    pub(super) destination: String,
    /// The question; without it, standard input is
    body: Option<String>,
    /// A header, a user property of MQTT 5, or a property over HTTP; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE", value_parser = header)]
    pub(super) headers: Vec<(String, String)>,
    /// What the body is, such as application/json
    #[arg(long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// MQTT: of the question and of the answer [default: 1]
    #[arg(long, value_name = "0|1|2", value_parser = qos)]
    pub(super) qos: Option<Qos>,
    /// MQTT: where the answer goes [default: a topic with our client id]
    #[arg(long, value_name = "TOPIC")]
    pub(super) response_topic: Option<String>,
    /// Who we are to the server
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    /// Print the body alone, without a line end
    #[arg(long, group = "form")]
    raw: bool,
    /// Print a JSON object with headers and body
    #[arg(long, group = "form")]
    json: bool,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

impl Arguments {
    pub(super) fn form(&self) -> Form {
        Form::of(self.raw, self.json)
    }

    pub(super) fn in_vain(&self) -> Failure {
        Failure::TimedOut(format!("nobody answered within {} s", self.server.timeout.as_secs_f64()))
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.server)?;
    match server.protocol {
        Protocol::Stomp => {
            let topic = arguments.response_topic.is_some();
            server.refuse(&[("--qos", arguments.qos.is_some()), ("--response-topic", topic)])?;
        }
        Protocol::Mqtt(version) => mqtt::request::check(arguments, version)?,
        Protocol::Http => server.refuse(&[
            ("--qos", arguments.qos.is_some()),
            ("--response-topic", arguments.response_topic.is_some()),
            ("--client-id", arguments.client_id.is_some()),
        ])?,
    }
    let body = match &arguments.body {
        Some(body) => body.clone().into_bytes(),
        None => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(|error| Failure::input(&error))?;
            bytes
        }
    };
    match server.protocol {
        Protocol::Stomp => ask(&server, arguments, &body),
        Protocol::Mqtt(version) => mqtt::request::ask(&server, version, arguments, &body),
        Protocol::Http => http::request::ask(&server, arguments, &body),
    }
}

fn ask(server: &Server, arguments: &Arguments, body: &[u8]) -> Result<(), Failure> {
    let mut connection = Connection::open(server, &arguments.server, arguments.client_id.as_deref())?;
    let version = connection.version;
    client::subscribe(connection.out(), version, "replies", REPLIES, "auto", &[]);
    let mut headers = pairs(&arguments.headers);
    headers.extend(arguments.content_type.as_deref().map(|kind| ("content-type", kind)));
    headers.push(("reply-to", REPLIES));
    if !headers.iter().any(|(name, _)| *name == "correlation-id") {
        headers.push(("correlation-id", CORRELATION));
    }
    append(&mut connection, &arguments.destination, &headers, body);
    connection.flush()?;
    let deadline = connection.deadline();
    // The queue is ours alone, and we asked one question: whatever comes is the answer, also from those who forget the
    // correlation id.
    while let Some(message) = connection.next(Some(deadline))? {
        if message.command == "MESSAGE" {
            let mut printed = Vec::new();
            arguments.form().print(&message, &mut printed);
            output::write(&printed)?;
            return connection.disconnect();
        }
    }
    Err(arguments.in_vain())
}
