//! `sabir bench http`: messages sent by request over connections that are kept, each answered with its receipt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::http::{Error, Http, put_percent_encoded};
use crate::report::{Common, Report, Stopwatch};
use crate::verify::{STAMP_BYTES, stamp};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Broker's HTTP listener
    #[arg(long, default_value = "127.0.0.1:8161")]
    pub server: String,
    /// Where messages go, with `/queue/` or `/topic/`
    #[arg(long, default_value = "/queue/sabir.bench")]
    pub destination: String,
    /// Connections that send
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub connections: u16,
    /// Messages in all
    #[arg(long, default_value_t = 50_000)]
    pub messages: u64,
    /// Body size in bytes, at least 21
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// Requests of one connection that are on the way at once; more than one is pipelining
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub window: u16,
    /// Messages in one request, as lines of JSON if there are several
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub batch: u16,
    /// Send persistent messages
    #[arg(long)]
    pub persistent: bool,
    /// User name
    #[arg(long)]
    pub login: Option<String>,
    /// Password
    #[arg(long)]
    pub passcode: Option<String>,
    /// What every measurement can be told
    #[command(flatten)]
    pub common: Common,
}

/// What all senders share.
#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    confirmed: AtomicU64,
    failed: AtomicBool,
}

/// Runs one measurement and prints it. False if a message was not confirmed.
///
/// # Errors
/// A sentence, if the broker cannot be reached.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    if arguments.size < STAMP_BYTES {
        return Err(format!("--size must be at least {STAMP_BYTES}: every message carries a stamp"));
    }
    let target = Arc::<str>::from(target(&arguments.destination, arguments.persistent)?);
    let user = arguments.login.as_deref().map(|login| (login, arguments.passcode.as_deref().unwrap_or("")));
    let mut connections = Vec::new();
    for _ in 0..arguments.connections {
        let http = Http::open(&arguments.server, user, arguments.common.patience());
        connections.push(http.map_err(|error| error.to_string())?);
    }
    let progress = Arc::new(Progress::default());
    let arguments = Arc::new(arguments.clone());
    let stopwatch = Stopwatch::start(arguments.common.pid);
    let sending: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(index, http)| {
            let (arguments, target) = (Arc::clone(&arguments), Arc::clone(&target));
            let progress = Arc::clone(&progress);
            thread::spawn(move || {
                let done = send(http, index, &arguments, &target, &progress);
                if done.is_err() {
                    progress.failed.store(true, Ordering::Release);
                }
                done
            })
        })
        .collect();
    let mut problems = Vec::new();
    for handle in sending {
        match handle.join() {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => problems.push(problem),
            Err(_) => problems.push("a sender panicked".into()),
        }
    }
    let lap = stopwatch.stop();
    let sent = progress.sent.load(Ordering::Acquire);
    let report = Report {
        sent,
        expected: 0,
        received: 0,
        lost: sent.saturating_sub(progress.confirmed.load(Ordering::Acquire)),
        duplicates: 0,
        out_of_order: 0,
        redelivered: 0,
        lap,
        problems,
    };
    report.print(arguments.common.json);
    Ok(report.is_clean())
}

fn target(destination: &str, persistent: bool) -> Result<String, String> {
    let (collection, name) = match (destination.strip_prefix("/queue/"), destination.strip_prefix("/topic/"))
    {
        (Some(name), _) => ("queues", name),
        (_, Some(name)) => ("topics", name),
        _ => return Err(format!("{destination} is neither /queue/NAME nor /topic/NAME")),
    };
    let mut target = format!("/v1/{collection}/");
    put_percent_encoded(name, &mut target);
    target.push_str(&format!("/messages?persistent={persistent}"));
    Ok(target)
}

fn send(
    mut http: Http,
    index: usize,
    arguments: &Arguments,
    target: &str,
    progress: &Progress,
) -> Result<(), String> {
    let connections = u64::from(arguments.connections);
    let mine =
        arguments.messages / connections + u64::from((index as u64) < arguments.messages % connections);
    let producer = u16::try_from(index).unwrap_or(u16::MAX);
    let batch = u64::from(arguments.batch);
    let kind = match batch {
        1 => "Content-Type: text/plain\r\n",
        _ => "Content-Type: application/x-ndjson\r\n",
    };
    let mut text = vec![b'x'; arguments.size];
    let (mut number, mut out, mut body) = (0, Vec::new(), Vec::new());
    while number < mine && !progress.failed.load(Ordering::Relaxed) {
        out.clear();
        let mut counts = Vec::new();
        while counts.len() < usize::from(arguments.window) && number < mine {
            let count = batch.min(mine - number);
            body.clear();
            for step in number..number + count {
                stamp(&mut text, producer, step);
                if batch == 1 {
                    body.extend_from_slice(&text);
                } else {
                    body.extend_from_slice(b"{\"body\":\"");
                    body.extend_from_slice(&text);
                    body.extend_from_slice(b"\"}\n");
                }
            }
            http.encode(&mut out, "POST", target, kind, &body);
            number += count;
            counts.push(count);
        }
        progress.sent.fetch_add(counts.iter().sum(), Ordering::AcqRel);
        http.write(&out).map_err(|error| error.to_string())?;
        for count in counts {
            let reply = http.receive().map_err(|error| match error {
                Error::TimedOut => format!("nothing has come for {} s", arguments.common.patience),
                Error::Broken(sentence) => sentence,
            })?;
            if reply.status != 201 {
                let body = String::from_utf8_lossy(&reply.body);
                return Err(format!("the broker answers {}: {body}", reply.status));
            }
            progress.confirmed.fetch_add(count, Ordering::AcqRel);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_path() {
        let path = |destination| target(destination, false);
        assert_eq!(path("/queue/a.b/c").as_deref(), Ok("/v1/queues/a.b%2Fc/messages?persistent=false"));
        assert_eq!(path("/topic/t").as_deref(), Ok("/v1/topics/t/messages?persistent=false"));
        assert!(path("t").is_err());
    }
}
