//! `sabir request` over HTTP: one request, whose answer is the answer.

use std::time::Duration;

use serde_json::Value;

use super::{Place, Target, failure, message, open, raw_headers, refused};
use crate::cli::request::Arguments;
use crate::cli::server::Server;
use crate::cli::{Failure, output};

/// Added to how long the server may take: it is the one to say that nobody answered.
const GRACE: Duration = Duration::from_secs(5);

pub(in crate::cli) fn ask(server: &Server, arguments: &Arguments, body: &[u8]) -> Result<(), Failure> {
    let place = Place::read(&arguments.destination)?;
    let mut target = Target::new(&format!("{}/request", place.path()), &arguments.server);
    target.add("raw", "true");
    let patience = arguments.server.timeout;
    target.add("timeout", &patience.as_millis().to_string());
    let headers = raw_headers(arguments.content_type.as_deref(), &arguments.headers, body)?;
    let mut http = open(server, &arguments.server)?;
    http.set_patience(Some(patience.saturating_add(GRACE))).map_err(failure)?;
    let reply = http.request("POST", &target.text, &headers, body).map_err(failure)?;
    match reply.status {
        200 => {}
        504 => return Err(arguments.in_vain()),
        _ => return Err(refused(&reply)),
    }
    let envelope: Value = serde_json::from_slice(&reply.body)
        .map_err(|error| Failure::Failed(format!("the server's answer is no JSON: {error}")))?;
    let mut printed = Vec::new();
    arguments.form().print(&message(&envelope)?, &mut printed);
    output::write(&printed)
}
