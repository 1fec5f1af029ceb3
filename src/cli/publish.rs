//! `sabir pub`: sends an argument, standard input, or each of its lines.
#![expect(clippy::disallowed_methods, reason = "a client of the broker: its deadlines are its own")]

use std::collections::HashSet;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::time::{Duration, Instant};

use clap::Args;
use sabir_mqtt::Qos;
use sabir_stomp::client;

use super::connection::Connection;
use super::server::{Protocol, Server};
use super::{Failure, ServerArgs, header, http, mqtt, pairs, qos};

/// Messages on the way without a receipt.
const WINDOW: usize = 1000;
/// Bytes gathered before they are written.
const BATCH_BYTES: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to. STOMP, HTTP: /queue/NAME, /topic/NAME, several separated by commas. MQTT: a topic
    pub(super) destination: String,
    /// The message; without it, standard input is
    #[arg(conflicts_with = "lines")]
    body: Option<String>,
    /// Send each line of standard input as a message
    #[arg(long, short)]
    lines: bool,
    /// A header, a user property of MQTT 5, or a property over HTTP; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE", value_parser = header)]
    pub(super) headers: Vec<(String, String)>,
    /// What the body is, such as application/json
    #[arg(long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// STOMP: ask that the messages survive the broker. Over HTTP they do
    #[arg(long, short)]
    persistent: bool,
    /// STOMP: ask for a receipt of each message, and fail unless all come. Over HTTP they always must
    #[arg(long, short)]
    receipt: bool,
    /// MQTT: 1 or 2 asks that each message be acknowledged, and fails unless all are [default: 0]
    #[arg(long, value_name = "0|1|2", value_parser = qos)]
    pub(super) qos: Option<Qos>,
    /// MQTT, HTTP: keep the message for whoever subscribes later
    #[arg(long)]
    pub(super) retain: bool,
    /// Who we are to the server
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    /// Send the message this many times
    #[arg(long, short = 'n', default_value_t = 1, conflicts_with = "lines")]
    count: u64,
    /// Send no more than this many messages in a second
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<u32>,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

/// One protocol's way of sending.
pub(super) trait Sender {
    fn send(&mut self, body: &[u8]) -> Result<(), Failure>;

    /// Writes if more than this many bytes have gathered.
    fn write(&mut self, bytes: usize) -> Result<(), Failure>;

    /// Waits until everything is confirmed that is to be, and leaves.
    fn finish(self) -> Result<(), Failure>;
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.server)?;
    match server.protocol {
        Protocol::Stomp => {
            server.refuse(&[("--qos", arguments.qos.is_some()), ("--retain", arguments.retain)])?;
        }
        Protocol::Mqtt(version) => {
            server.refuse(&[("--persistent", arguments.persistent), ("--receipt", arguments.receipt)])?;
            mqtt::publish::check(arguments, version)?;
        }
        // A receipt is what every request is answered with.
        Protocol::Http => {
            server.refuse(&[
                ("--qos", arguments.qos.is_some()),
                ("--client-id", arguments.client_id.is_some()),
            ])?;
        }
    }
    // What standard input holds is read first: a broker should not wait for somebody who types.
    let whole = match (&arguments.body, arguments.lines) {
        (Some(body), _) => Some(body.clone().into_bytes()),
        (None, true) => None,
        (None, false) => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(|error| Failure::input(&error))?;
            Some(bytes)
        }
    };
    match server.protocol {
        Protocol::Stomp => pump(StompSender::open(&server, arguments)?, arguments, whole),
        Protocol::Mqtt(version) => {
            pump(mqtt::publish::MqttSender::open(&server, version, arguments)?, arguments, whole)
        }
        Protocol::Http => pump(http::publish::HttpSender::open(&server, arguments)?, arguments, whole),
    }
}

/// Sends what there is to send: `whole` as often as asked, or each line of standard input.
fn pump(sender: impl Sender, arguments: &Arguments, whole: Option<Vec<u8>>) -> Result<(), Failure> {
    let mut publisher = Publisher {
        sender,
        pace: arguments
            .rate
            .and_then(|rate| Duration::from_secs(1).checked_div(rate))
            .map(|gap| (Instant::now(), gap)),
    };
    match whole {
        Some(body) => {
            for _ in 0..arguments.count {
                publisher.send(&body)?;
                publisher.sender.write(BATCH_BYTES)?;
            }
        }
        None => {
            let mut input = BufReader::with_capacity(BATCH_BYTES, io::stdin().lock());
            let mut line = Vec::new();
            while input.read_until(b'\n', &mut line).map_err(|error| Failure::input(&error))? > 0 {
                publisher.send(line.strip_suffix(b"\n").unwrap_or(&line))?;
                line.clear();
                // Before waiting for another line, what there is goes out.
                publisher.sender.write(if input.buffer().is_empty() { 0 } else { BATCH_BYTES })?;
            }
        }
    }
    publisher.sender.finish()
}

/// Sends at the pace that was asked for.
struct Publisher<S> {
    sender: S,
    /// When the next message may go, and how long after it the one after.
    pace: Option<(Instant, Duration)>,
}

impl<S: Sender> Publisher<S> {
    fn send(&mut self, body: &[u8]) -> Result<(), Failure> {
        if let Some((next, gap)) = self.pace {
            let now = Instant::now();
            if let Some(wait) = next.checked_duration_since(now).filter(|wait| !wait.is_zero()) {
                self.sender.write(0)?;
                std::thread::sleep(wait);
            }
            self.pace = Some((next.max(now) + gap, gap));
        }
        self.sender.send(body)
    }
}

struct StompSender<'a> {
    connection: Connection,
    arguments: &'a Arguments,
    /// Receipts that have not come.
    pending: HashSet<String>,
}

impl<'a> StompSender<'a> {
    fn open(server: &Server, arguments: &'a Arguments) -> Result<Self, Failure> {
        let connection = Connection::open(server, &arguments.server, arguments.client_id.as_deref())?;
        Ok(Self { connection, arguments, pending: HashSet::new() })
    }

    /// Waits until no more than `left` receipts are missing.
    fn wait_for(&mut self, left: usize) -> Result<(), Failure> {
        while self.pending.len() > left {
            let deadline = self.connection.deadline();
            match self.connection.next(Some(deadline))? {
                Some(message) if message.command == "RECEIPT" => {
                    self.pending.remove(message.get("receipt-id").unwrap_or_default());
                }
                Some(_) => {}
                None => {
                    let missing = self.pending.len();
                    return Err(Failure::TimedOut(format!("{missing} receipts did not come")));
                }
            }
        }
        Ok(())
    }
}

impl Sender for StompSender<'_> {
    fn send(&mut self, body: &[u8]) -> Result<(), Failure> {
        let receipt = self.arguments.receipt.then(|| self.connection.receipt());
        let mut headers = pairs(&self.arguments.headers);
        headers.extend(self.arguments.content_type.as_deref().map(|kind| ("content-type", kind)));
        if self.arguments.persistent {
            headers.push(("persistent", "true"));
        }
        if let Some(receipt) = &receipt {
            headers.push(("receipt", receipt));
        }
        append(&mut self.connection, &self.arguments.destination, &headers, body);
        if let Some(receipt) = receipt {
            self.pending.insert(receipt);
            if self.pending.len() >= WINDOW {
                self.connection.flush()?;
                self.wait_for(WINDOW / 2)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: usize) -> Result<(), Failure> {
        if self.connection.out().len() > bytes { self.connection.flush() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.connection.flush()?;
        self.wait_for(0)?;
        self.connection.disconnect()
    }
}

/// Appends a SEND: as text where the body is text, as bytes with a length where it is not.
pub(super) fn append(connection: &mut Connection, destination: &str, headers: &[(&str, &str)], body: &[u8]) {
    let version = connection.version;
    match std::str::from_utf8(body) {
        Ok(text) if !text.contains('\0') => {
            client::send_text(connection.out(), version, destination, headers, text);
        }
        _ => client::send(connection.out(), version, destination, headers, body),
    }
}
