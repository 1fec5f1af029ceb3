//! The messaging commands over the REST API: paths and parameters out of what STOMP's users would write, and messages out
//! of the JSON form.

pub(crate) mod publish;
pub(crate) mod request;
pub(crate) mod subscribe;
#[cfg(test)]
mod tests;

use sabir_bench::http::{Error, Http, Reply, put_percent_encoded};
use sabir_model::base64;
use serde_json::Value;

use super::connection::Message;
use super::server::Server;
use super::{Failure, ServerArgs};

/// One place of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    is_topic: bool,
    /// Its name, levels joined by dots.
    name: String,
}

impl Place {
    /// Reads `/queue/NAME`, `/topic/NAME`, `queue://NAME` or `topic://NAME`.
    fn read(text: &str) -> Result<Self, Failure> {
        let named = [("/queue/", false), ("queue://", false), ("/topic/", true), ("topic://", true)]
            .into_iter()
            .find_map(|(prefix, is_topic)| text.strip_prefix(prefix).map(|name| (is_topic, name)));
        match named {
            Some((is_topic, name)) if !name.is_empty() => Ok(Self { is_topic, name: name.to_owned() }),
            _ => Err(Failure::Usage(format!("{text:?} is neither /queue/NAME nor /topic/NAME"))),
        }
    }

    /// `/v1/queues/NAME` or `/v1/topics/NAME`.
    fn path(&self) -> String {
        let mut path = if self.is_topic { "/v1/topics/".to_owned() } else { "/v1/queues/".to_owned() };
        put_percent_encoded(&self.name, &mut path);
        path
    }

    fn uri(&self) -> String {
        format!("{}://{}", if self.is_topic { "topic" } else { "queue" }, self.name)
    }
}

/// A path with parameters.
struct Target {
    text: String,
    has_parameters: bool,
}

impl Target {
    /// In the virtual host that was asked for.
    fn new(path: &str, args: &ServerArgs) -> Self {
        let mut target = Self { text: path.to_owned(), has_parameters: false };
        if args.virtual_host != "/" {
            target.add("vhost", &args.virtual_host);
        }
        target
    }

    fn add(&mut self, name: &str, value: &str) {
        self.text.push(if self.has_parameters { '&' } else { '?' });
        self.has_parameters = true;
        self.text.push_str(name);
        self.text.push('=');
        put_percent_encoded(value, &mut self.text);
    }
}

fn open(server: &Server, args: &ServerArgs) -> Result<Http, Failure> {
    let user = server.login.as_deref().map(|login| (login, server.passcode.as_deref().unwrap_or_default()));
    Http::open(&server.place.to_string(), user, args.timeout).map_err(failure)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::TimedOut => Failure::TimedOut("the server does not answer".to_owned()),
        Error::Broken(sentence) => Failure::Failed(sentence),
    }
}

/// What a server refuses, in its own words and with its code.
fn refused(reply: &Reply) -> Failure {
    let problem: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let text = |key: &str| problem.get(key).and_then(Value::as_str);
    let sentence = match (text("detail").or_else(|| text("title")), text("code")) {
        (Some(sentence), Some(code)) if !sentence.contains(code) => {
            format!("the server says: {sentence} [{code}]")
        }
        (Some(sentence), _) => format!("the server says: {sentence}"),
        (None, _) => {
            let body = String::from_utf8_lossy(&reply.body);
            let line = body.lines().next().unwrap_or_default();
            format!("the server answers with status {}: {line}", reply.status)
        }
    };
    Failure::Failed(sentence)
}

/// Header lines for a body that is sent as it is: what it is, and the properties of the message.
fn raw_headers(
    content_type: Option<&str>,
    properties: &[(String, String)],
    body: &[u8],
) -> Result<String, Failure> {
    let usual = match std::str::from_utf8(body) {
        Ok(_) => "text/plain",
        Err(_) => "application/octet-stream",
    };
    let content_type = content_type.unwrap_or(usual);
    if content_type.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(Failure::Usage("a content type cannot hold a line end".to_owned()));
    }
    let mut headers = format!("Content-Type: {content_type}\r\n");
    for (name, value) in properties {
        headers.push_str("X-Prop-");
        put_property_name(name, &mut headers);
        headers.push_str(": ");
        put_percent_encoded(value, &mut headers);
        headers.push_str("\r\n");
    }
    Ok(headers)
}

/// A name as a header can hold it: HTTP does not tell capitals from small letters, so those are escaped as well.
fn put_property_name(name: &str, out: &mut String) {
    for character in name.chars() {
        match character {
            'A'..='Z' => out.push_str(&format!("%{:02X}", u32::from(character))),
            other => put_percent_encoded(other.encode_utf8(&mut [0; 4]), out),
        }
    }
}

/// A message in the JSON form, as the command line prints it: fields of the message first, then its properties.
fn message(envelope: &Value) -> Result<Message, Failure> {
    let Value::Object(members) = envelope else {
        return Err(Failure::Failed("the server sends what is no message".to_owned()));
    };
    let mut message = Message { command: "MESSAGE".to_owned(), ..Message::default() };
    let mut properties = Vec::new();
    for (key, value) in members {
        match (key.as_str(), value) {
            ("lease" | "leaseExpires" | "eventId", _) | (_, Value::Null) => {}
            ("body", Value::String(text)) => message.body = text.clone().into_bytes(),
            ("body", value) => message.body = value.to_string().into_bytes(),
            ("bodyBase64", Value::String(code)) => {
                message.body = base64::decode(code.as_bytes())
                    .ok_or_else(|| Failure::Failed("the server sends a body that is no base64".to_owned()))?;
            }
            ("properties", Value::Object(members)) => {
                properties.extend(members.iter().map(|(name, value)| (name.clone(), plain(value))));
            }
            ("userProperties", Value::Array(pairs)) => {
                properties.extend(
                    pairs
                        .iter()
                        .filter_map(|pair| Some((pair.get(0)?.as_str()?.to_owned(), plain(pair.get(1)?)))),
                );
            }
            (_, value) => message.headers.push((key.clone(), plain(value))),
        }
    }
    message.headers.append(&mut properties);
    Ok(message)
}

/// A value as text: that of a typed one, where JSON says less.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => match members.get("value").or_else(|| members.get("$bin")) {
            Some(Value::String(text)) => text.clone(),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}
