//! The command line: what can be asked of the `sabir` binary, and how it answers a shell.
//!
//! Results go to standard output, everything else to standard error, one sentence per mistake. Each command has a file;
//! the server itself is `crate::server`.

mod configuration;
mod connection;
mod health;
mod http;
mod link;
mod log;
mod mqtt;
mod output;
mod publish;
mod request;
mod server;
mod store;
mod subscribe;
#[cfg(test)]
mod tests;
mod user;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use configuration::ConfigArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: refused, unreachable, broken off
  2  wrong arguments or configuration
  3  waited in vain";

const ABOUT: &str = "A message broker that every messaging client can talk to.

Without a command it serves: `sabir` is `sabir serve`.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "sabir", version, about = ABOUT, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the broker
    #[command(after_long_help = crate::config::help())]
    Serve(ConfigArgs),
    /// Check, show or begin a configuration
    #[command(subcommand)]
    Config(configuration::Command),
    /// Keep the users of a broker
    #[command(subcommand)]
    User(user::Command),
    /// Look at the message log of a broker that is not running
    #[command(subcommand)]
    Store(store::Command),
    /// Send messages
    Pub(publish::Arguments),
    /// Receive messages and print them
    Sub(subscribe::Arguments),
    /// Send one message and print the answer
    Request(request::Arguments),
    /// Ask a broker whether it is ready; status 0 if it is, else 1
    Health(health::Arguments),
    /// Measure a broker, and check what was measured
    #[command(subcommand)]
    Bench(Bench),
    /// Print a completion script
    Completion {
        /// The shell that will read it
        shell: clap_complete::Shell,
    },
}

/// What to measure over.
#[derive(Debug, Subcommand)]
enum Bench {
    /// Producers and consumers over STOMP
    Stomp(sabir_bench::StompArguments),
    /// Publishers and subscribers over MQTT
    Mqtt(sabir_bench::MqttArguments),
    /// Messages sent by HTTP request, each with its receipt
    Http(sabir_bench::HttpArguments),
    /// What one protocol sends, another receives
    Cross(sabir_bench::CrossArguments),
    /// Connections that do nothing, and the memory for each
    Idle(sabir_bench::IdleArguments),
    /// Messages that nobody takes; then perhaps a restart; then all are taken and checked
    Backlog(sabir_bench::BacklogArguments),
    /// Connections that come and go
    Churn(sabir_bench::ChurnArguments),
    /// Very many subscriptions, and messages that find theirs
    Subs(sabir_bench::SubsArguments),
    /// Subscribers that never read beside many that do
    Slow(sabir_bench::SlowArguments),
}

/// Where and as whom the messaging commands connect.
#[derive(Debug, Args)]
struct ServerArgs {
    /// stomp://USER:PASSWORD@HOST:PORT, or in the same way mqtt://, http://, ws://…/stomp, ws://…/mqtt; or unix:PATH (STOMP).
    /// Also from SABIR_SERVER [default: stomp://127.0.0.1:61613]
    #[arg(long, short, value_name = "URL")]
    server: Option<String>,
    /// MQTT: 3.1, 3.1.1 or 5; the same as mqtt://…?version= [default: 5]
    #[arg(long, value_name = "VERSION", value_parser = server::mqtt_version)]
    mqtt_version: Option<sabir_mqtt::Version>,
    /// Seconds to wait for an answer of the server
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: std::time::Duration,
    /// STOMP, HTTP: the virtual host to be in
    #[arg(long, value_name = "NAME", default_value = "/")]
    virtual_host: String,
}

/// Why a command did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// It could not be done.
    Failed(String),
    /// It was asked for wrongly.
    Usage(String),
    /// Nothing came in time.
    TimedOut(String),
    /// Whoever reads our output has gone; that is no mistake.
    ReaderGone,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(sentence) | Self::Usage(sentence) | Self::TimedOut(sentence) => {
                f.write_str(sentence)
            }
            Self::ReaderGone => f.write_str("nobody reads the output any more"),
        }
    }
}

impl Failure {
    fn exit(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::TimedOut(_) => ExitCode::from(3),
            Self::ReaderGone => ExitCode::SUCCESS,
        }
    }

    /// A failure to write to standard output.
    fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Failed(format!("standard output cannot be written: {error}")),
        }
    }

    /// A failure to read standard input.
    fn input(error: &io::Error) -> Self {
        Self::Failed(format!("standard input cannot be read: {error}"))
    }
}

/// Does what the arguments (the first is the program's name) ask for.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and the version are no mistakes; clap knows where each goes.
            let code = if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    let done = match cli.command.unwrap_or(Command::Serve(cli.config)) {
        Command::Serve(args) => match args.load() {
            Ok(loaded) => {
                log::init(&loaded.config.log);
                return crate::server::run(loaded.config);
            }
            Err(failure) => Err(failure),
        },
        Command::Config(command) => configuration::run(command),
        Command::User(command) => user::run(command),
        Command::Store(command) => store::run(command),
        Command::Pub(arguments) => publish::run(&arguments),
        Command::Sub(arguments) => subscribe::run(&arguments),
        Command::Request(arguments) => request::run(&arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Bench(what) => measured(measure(&what)),
        Command::Completion { shell } => completion(shell),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure != Failure::ReaderGone {
                complain(&failure.to_string());
            }
            failure.exit()
        }
    }
}

fn measure(what: &Bench) -> Result<bool, String> {
    match what {
        Bench::Stomp(arguments) => sabir_bench::run_stomp(arguments),
        Bench::Mqtt(arguments) => sabir_bench::run_mqtt(arguments),
        Bench::Http(arguments) => sabir_bench::run_http(arguments),
        Bench::Cross(arguments) => sabir_bench::run_cross(arguments),
        Bench::Idle(arguments) => sabir_bench::run_idle(arguments),
        Bench::Backlog(arguments) => sabir_bench::run_backlog(arguments),
        Bench::Churn(arguments) => sabir_bench::run_churn(arguments),
        Bench::Subs(arguments) => sabir_bench::run_subs(arguments),
        Bench::Slow(arguments) => sabir_bench::run_slow(arguments),
    }
}

fn measured(outcome: Result<bool, String>) -> Result<(), Failure> {
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Failed("messages were lost, doubled, out of order or broken".into())),
        Err(problem) => Err(Failure::Failed(problem)),
    }
}

/// Writes to standard error; if that is closed there is nobody left to tell.
fn complain(sentences: &str) {
    use io::Write as _;
    let mut out = io::stderr().lock();
    for sentence in sentences.lines() {
        let _ = writeln!(out, "sabir: {sentence}");
    }
}

fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sabir", &mut script);
    output::write(&script)
}

/// Reads a span such as `2`, `0.5`.
fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    std::time::Duration::try_from_secs_f64(number).map_err(|_| "not a number of seconds".to_owned())
}

/// Reads a header, `name:value`.
fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME:VALUE".to_owned()),
    }
}

/// Reads a quality of service.
fn qos(text: &str) -> Result<sabir_mqtt::Qos, String> {
    let level = text.parse().map_err(|_| "must be 0, 1 or 2".to_owned())?;
    sabir_mqtt::Qos::from_level(level).ok_or_else(|| "must be 0, 1 or 2".to_owned())
}

/// Headers as the codec takes them.
fn pairs(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
