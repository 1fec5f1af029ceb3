//! `sabir sub` over HTTP: from queues and durable subscriptions by long polls, each message settled when it is printed; from
//! topics by a stream.
#![expect(clippy::disallowed_methods, reason = "a client of the broker: its deadlines are its own")]

use std::time::{Duration, Instant};

use sabir_bench::http::{Error, Http, put_percent_encoded};
use serde_json::{Value, json};

use super::{Place, Target, failure, message, open, refused};
use crate::cli::server::Server;
use crate::cli::subscribe::Arguments;
use crate::cli::{Failure, complain, output};

/// Messages taken with one request, unless told otherwise.
const BATCH: u64 = 100;
/// The longest that one request waits for a message.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// The least that is added to how long the server may take before it is given up.
const GRACE: Duration = Duration::from_secs(5);

pub(in crate::cli) fn take(server: &Server, arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::read(&arguments.destination)?;
    if arguments.durable.is_some() && !place.is_topic {
        return Err(Failure::Usage("--durable is for topics".to_owned()));
    }
    if arguments.durable.is_none() && place.is_topic && arguments.prefetch.is_some() {
        return Err(Failure::Usage("--prefetch has no meaning for a topic over HTTP".to_owned()));
    }
    let http = open(server, &arguments.server)?;
    let received = match &arguments.durable {
        Some(name) => {
            let mut path = "/v1/subscriptions/".to_owned();
            put_percent_encoded(arguments.client_id.as_deref().unwrap_or_default(), &mut path);
            path.push('/');
            put_percent_encoded(name, &mut path);
            pull(http, arguments, &path)?
        }
        None if place.is_topic => listen(http, arguments, &place.path())?,
        None => pull(http, arguments, &place.path())?,
    };
    arguments.verdict(received)
}

/// Takes on lease and settles what is printed, until there has been enough; how much that was.
fn pull(mut http: Http, arguments: &Arguments, path: &str) -> Result<u64, Failure> {
    let wanted = arguments.count.unwrap_or(u64::MAX);
    let grace = arguments.server.timeout.max(GRACE);
    let mut received = 0;
    let mut heard = Instant::now();
    let mut asked = false;
    while received < wanted {
        let wait = match arguments.idle {
            None => WAIT_MAX,
            // Asked once at least, however short the time.
            Some(idle) => match idle.saturating_sub(heard.elapsed()) {
                Duration::ZERO if asked => break,
                left => left.min(WAIT_MAX),
            },
        };
        asked = true;
        let most = arguments.prefetch.map_or(BATCH, u64::from).clamp(1, 1000).min(wanted - received);
        let mut target = Target::new(&format!("{path}/pull"), &arguments.server);
        target.add("max", &most.to_string());
        target.add("wait", &wait.as_millis().to_string());
        if let Some(selector) = &arguments.selector {
            target.add("selector", selector);
        }
        http.set_patience(Some(wait.saturating_add(grace))).map_err(failure)?;
        let reply = http.request("POST", &target.text, "", b"").map_err(failure)?;
        if reply.status != 200 {
            return Err(refused(&reply));
        }
        let answer: Value = serde_json::from_slice(&reply.body)
            .map_err(|error| Failure::Failed(format!("the server's answer is no JSON: {error}")))?;
        let Some(messages) = answer.get("messages").and_then(Value::as_array) else {
            return Err(Failure::Failed("the server's answer holds no messages".to_owned()));
        };
        if messages.is_empty() {
            continue;
        }
        let mut printed = Vec::new();
        let mut leases = Vec::new();
        for envelope in messages {
            let mut message = message(envelope)?;
            if is_cut(envelope) {
                message.body = whole_body(&mut http, arguments, envelope)?;
                message.headers.retain(|(name, _)| name != "bodyTruncated");
            }
            arguments.form().print(&message, &mut printed);
            leases.extend(envelope.get("lease").cloned());
        }
        output::write(&printed)?;
        received += messages.len() as u64;
        http.set_patience(Some(grace)).map_err(failure)?;
        settle(&mut http, arguments, &leases)?;
        heard = Instant::now();
    }
    Ok(received)
}

/// Whether the body of a message is too large to be shown whole.
fn is_cut(envelope: &Value) -> bool {
    envelope.get("bodyTruncated") == Some(&Value::Bool(true))
}

/// Asks for the body of a message on lease that was too large to come with it.
fn whole_body(http: &mut Http, arguments: &Arguments, envelope: &Value) -> Result<Vec<u8>, Failure> {
    let lease = envelope.get("lease").and_then(Value::as_str).unwrap_or_default();
    let mut path = "/v1/leases/".to_owned();
    put_percent_encoded(lease, &mut path);
    let target = Target::new(&format!("{path}/body"), &arguments.server);
    let reply = http.request("GET", &target.text, "", b"").map_err(failure)?;
    if reply.status == 200 { Ok(reply.body) } else { Err(refused(&reply)) }
}

fn settle(http: &mut Http, arguments: &Arguments, leases: &[Value]) -> Result<(), Failure> {
    let target = Target::new("/v1/leases", &arguments.server);
    let body = json!({ "ack": leases }).to_string();
    let reply = http
        .request("POST", &target.text, "Content-Type: application/json\r\n", body.as_bytes())
        .map_err(failure)?;
    if reply.status != 200 {
        return Err(refused(&reply));
    }
    let answer: Value = serde_json::from_slice(&reply.body)
        .map_err(|error| Failure::Failed(format!("the server's answer is no JSON: {error}")))?;
    match answer.get("errors").and_then(Value::as_array).map_or(0, Vec::len) {
        0 => Ok(()),
        late => Err(Failure::Failed(format!(
            "{late} messages were printed too late: their lease was over, and they go to somebody else"
        ))),
    }
}

/// Prints what is sent to a topic while we listen; how much that was.
fn listen(mut http: Http, arguments: &Arguments, path: &str) -> Result<u64, Failure> {
    let mut target = Target::new(&format!("{path}/stream"), &arguments.server);
    if let Some(selector) = &arguments.selector {
        target.add("selector", selector);
    }
    let mut request = Vec::new();
    http.encode(&mut request, "GET", &target.text, "Accept: application/x-ndjson\r\n", b"");
    http.write(&request).map_err(failure)?;
    let mut reply = http.receive_head().map_err(failure)?;
    if reply.status != 200 {
        while let Some(line) = http.line().map_err(failure)? {
            reply.body.extend(line);
        }
        return Err(refused(&reply));
    }
    let wanted = arguments.count.unwrap_or(u64::MAX);
    let mut received = 0;
    let mut heard = Instant::now();
    while received < wanted {
        let patience = match arguments.idle {
            None => None,
            Some(idle) => match idle.saturating_sub(heard.elapsed()) {
                Duration::ZERO => break,
                left => Some(left),
            },
        };
        http.set_patience(patience).map_err(failure)?;
        let line = match http.line() {
            Ok(Some(line)) => line,
            Ok(None) => return Err(Failure::Failed("the server ended the stream".to_owned())),
            Err(Error::TimedOut) => continue,
            Err(error) => return Err(failure(error)),
        };
        // An empty line shows that the connection lives.
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let document: Value = serde_json::from_slice(&line)
            .map_err(|error| Failure::Failed(format!("a line of the stream is no JSON: {error}")))?;
        if is_message(&document)? {
            let mut printed = Vec::new();
            if is_cut(&document) {
                complain(
                    "a body is printed cut: over HTTP a topic shows no more of it; --server stomp://… or mqtt://… does",
                );
            }
            arguments.form().print(&message(&document)?, &mut printed);
            output::write(&printed)?;
            received += 1;
            heard = Instant::now();
        }
    }
    Ok(received)
}

/// Whether a document of a stream is a message. That some were missed is told, and the end is a failure.
fn is_message(document: &Value) -> Result<bool, Failure> {
    if let Some(gap) = document.get("gap") {
        let count = gap.get("missed").and_then(Value::as_u64);
        let count = count.map_or_else(|| "some".to_owned(), |count| count.to_string());
        complain(&format!("{count} messages were dropped: they came faster than they were read"));
        return Ok(false);
    }
    if let Some(end) = document.get("end") {
        let text = |key: &str| end.get(key).and_then(Value::as_str).unwrap_or_default();
        return Err(Failure::Failed(format!("the server says: {} [{}]", text("detail"), text("code"))));
    }
    Ok(true)
}
