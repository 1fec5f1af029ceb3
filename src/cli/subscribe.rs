//! `sabir sub`: prints messages as they come, and acknowledges them once they are printed.
#![expect(clippy::disallowed_methods, reason = "a client of the broker: its deadlines are its own")]

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use sabir_mqtt::Qos;
use sabir_stomp::client::{self, Version};

use super::connection::{Connection, Message};
use super::output::{self, Form};
use super::server::{Protocol, Server};
use super::{Failure, ServerArgs, header, http, mqtt, pairs, qos, seconds};

const SUBSCRIPTION: &str = "sub";
/// Messages printed together.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ack {
    /// The broker forgets what it has sent
    Auto,
    /// Once printed, with everything before it
    Client,
    /// Once printed
    ClientIndividual,
}

impl Ack {
    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Client => "client",
            Self::ClientIndividual => "client-individual",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where from. STOMP: /queue/NAME, /topic/NAME, wildcards allowed, several separated by commas. HTTP: one of them. MQTT: a
    /// topic filter
    pub(super) destination: String,
    /// Leave after this many messages
    #[arg(long, short = 'n')]
    pub(super) count: Option<u64>,
    /// Leave when no message has come for so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) idle: Option<Duration>,
    /// Print each body and a line end (this is the default)
    #[arg(long, short, group = "form")]
    lines: bool,
    /// Print the bodies alone
    #[arg(long, group = "form")]
    raw: bool,
    /// Print a JSON object with headers and body on each line
    #[arg(long, group = "form")]
    json: bool,
    /// STOMP: when messages are acknowledged [default: client-individual]
    #[arg(long, value_enum)]
    ack: Option<Ack>,
    /// STOMP, HTTP: only messages that this SQL-92 condition holds for
    #[arg(long, value_name = "CONDITION")]
    pub(super) selector: Option<String>,
    /// STOMP: keep this subscription of a topic while nobody is connected. HTTP: take from it; the destination is its topic
    #[arg(long, value_name = "NAME", requires = "client_id")]
    pub(super) durable: Option<String>,
    /// Whose a durable subscription or a session is
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    /// Messages that may be on the way unacknowledged
    #[arg(long, value_name = "COUNT")]
    pub(super) prefetch: Option<u32>,
    /// A header of the subscription, or a user property of MQTT 5; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE", value_parser = header)]
    pub(super) headers: Vec<(String, String)>,
    /// MQTT: at most this; with 1 and 2, messages are acknowledged once printed [default: 1]
    #[arg(long, value_name = "0|1|2", value_parser = qos)]
    pub(super) qos: Option<Qos>,
    /// MQTT: take up our session, and keep it for so long while we are not connected
    #[arg(long, value_name = "SECONDS", requires = "client_id")]
    pub(super) session_expiry: Option<u32>,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

impl Arguments {
    pub(super) fn form(&self) -> Form {
        Form::of(self.raw, self.json)
    }

    /// The end of it, when this many have come.
    pub(super) fn verdict(&self, received: u64) -> Result<(), Failure> {
        match self.count {
            Some(count) if received < count => {
                Err(Failure::TimedOut(format!("{received} of {count} messages came")))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.server)?;
    match server.protocol {
        Protocol::Stomp => {
            let session = arguments.session_expiry.is_some();
            server.refuse(&[("--qos", arguments.qos.is_some()), ("--session-expiry", session)])?;
            take(&server, arguments)
        }
        Protocol::Mqtt(version) => {
            server.refuse(&[
                ("--ack", arguments.ack.is_some()),
                ("--selector", arguments.selector.is_some()),
                ("--durable", arguments.durable.is_some()),
            ])?;
            mqtt::subscribe::take(&server, version, arguments)
        }
        Protocol::Http => {
            let client = arguments.client_id.is_some() && arguments.durable.is_none();
            server.refuse(&[
                ("--qos", arguments.qos.is_some()),
                ("--session-expiry", arguments.session_expiry.is_some()),
                ("--ack", arguments.ack.is_some()),
                ("--header", !arguments.headers.is_empty()),
                ("--client-id without --durable", client),
            ])?;
            http::subscribe::take(&server, arguments)
        }
    }
}

fn take(server: &Server, arguments: &Arguments) -> Result<(), Failure> {
    let ack = arguments.ack.unwrap_or(Ack::ClientIndividual);
    let mut connection = Connection::open(server, &arguments.server, arguments.client_id.as_deref())?;
    let mut unconfirmed = Some(subscribe(arguments, ack, &mut connection)?);
    let mut printer =
        Printer { form: arguments.form(), ack, printed: Vec::new(), unacknowledged: Vec::new() };
    let wanted = arguments.count.unwrap_or(u64::MAX);
    let mut received = 0;
    while received < wanted {
        if printer.printed.len() >= BATCH_BYTES || !connection.has_next()? {
            printer.settle(&mut connection)?;
        }
        let deadline = match &unconfirmed {
            Some(_) => Some(connection.deadline()),
            None => arguments.idle.map(|idle| Instant::now() + idle),
        };
        match connection.next(deadline)? {
            Some(message) if message.command == "MESSAGE" => {
                // The end of a queue that was only looked at.
                if message.get("browser") == Some("end") {
                    break;
                }
                received += 1;
                printer.add(message);
            }
            Some(message) => {
                unconfirmed.take_if(|receipt| message.get("receipt-id") == Some(receipt));
            }
            None if unconfirmed.is_some() => {
                return Err(Failure::TimedOut("the server does not confirm the subscription".to_owned()));
            }
            None => break,
        }
    }
    printer.settle(&mut connection)?;
    let version = connection.version;
    client::unsubscribe(connection.out(), version, SUBSCRIPTION, &[]);
    connection.disconnect()?;
    arguments.verdict(received)
}

/// Asks for messages; the answer is the name of the receipt that will confirm it.
fn subscribe(arguments: &Arguments, ack: Ack, connection: &mut Connection) -> Result<String, Failure> {
    // No more on the way than will be printed: the rest stays with the broker in its order.
    let few = arguments.count.and_then(|count| u32::try_from(count.clamp(1, 1000)).ok());
    let prefetch = arguments.prefetch.or(few).map(|prefetch| prefetch.to_string());
    let receipt = connection.receipt();
    let mut headers = pairs(&arguments.headers);
    for (name, value) in [
        ("selector", arguments.selector.as_deref()),
        ("activemq.subscriptionName", arguments.durable.as_deref()),
        ("activemq.prefetchSize", prefetch.as_deref()),
        ("receipt", Some(receipt.as_str())),
    ] {
        headers.extend(value.map(|value| (name, value)));
    }
    let version = connection.version;
    client::subscribe(connection.out(), version, SUBSCRIPTION, &arguments.destination, ack.word(), &headers);
    connection.flush()?;
    Ok(receipt)
}

/// Printed messages that have not yet left, and their acknowledgements, which wait until they have.
struct Printer {
    form: Form,
    ack: Ack,
    printed: Vec<u8>,
    unacknowledged: Vec<Message>,
}

impl Printer {
    fn add(&mut self, mut message: Message) {
        self.form.print(&message, &mut self.printed);
        if self.ack != Ack::Auto {
            message.body = Vec::new();
            self.unacknowledged.push(message);
        }
    }

    fn settle(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        if !self.printed.is_empty() {
            output::write(&self.printed)?;
            self.printed.clear();
        }
        let from = match self.ack {
            // The last speaks for all.
            Ack::Client => self.unacknowledged.len().saturating_sub(1),
            Ack::Auto | Ack::ClientIndividual => 0,
        };
        for message in self.unacknowledged.drain(..).skip(from) {
            acknowledge(connection, &message);
        }
        if connection.out().is_empty() { Ok(()) } else { connection.flush() }
    }
}

/// Appends an ACK, named as the version does it.
fn acknowledge(connection: &mut Connection, message: &Message) {
    let version = connection.version;
    let id = ("message-id", message.get("message-id").unwrap_or_default());
    let headers = match version {
        Version::V10 => vec![id],
        Version::V11 => vec![id, ("subscription", SUBSCRIPTION)],
        Version::V12 => vec![("id", message.get("ack").unwrap_or_default())],
    };
    client::frame(connection.out(), version, "ACK", headers, None);
}
