//! Requests: which destination, and what is to be done with it.

use std::borrow::Cow;

use sabir_json::{Draft, DraftBody, EnvelopeError};
use sabir_model::destination::{Kind, split_qualified};
use sabir_model::error::Code;
use sabir_model::message::PRIORITY_MAX;

use crate::incoming::{body_of, encoding, essence, header, number, properties, wrong};
use crate::percent;

/// Longest wait for a message, and the one where the request does not say, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// Most messages of one look.
const BROWSE_MAX: u64 = 1000;

type Params = [(String, String)];

/// A message that is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// Where it goes: qualified names, separated by commas.
    pub address: String,
    /// The virtual host, if the request names one.
    pub virtual_host: Option<String>,
    /// The message.
    pub draft: Draft<'a>,
    /// Whether the answer waits until the message is safe.
    pub synchronous: bool,
}

/// What a POST wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Post<'a> {
    /// To send a message.
    Message(Box<Message<'a>>),
    /// To close the consumers that live on for its client id (`action=unsubscribe`).
    Unsubscribe {
        /// The client id.
        client_id: Option<String>,
        /// The virtual host, if the request names one.
        virtual_host: Option<String>,
    },
}

/// How a consumed message is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// By the reply.
    Auto,
    /// By the client, with the token that the reply carries; the message is his for so many milliseconds, or for as
    /// long as is usual.
    Client {
        /// How long.
        lease_ms: Option<u64>,
    },
    /// Not at all: a look at no more than so many messages, which stay where they are.
    Browse {
        /// How many at most.
        max: u64,
    },
}

/// The content type that a request forces on the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`.
    Json,
    /// `application/xml`.
    Xml,
}

/// What a GET or DELETE wants: one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Consume {
    /// Where from: a qualified name.
    pub address: String,
    /// The virtual host, if the request names one.
    pub virtual_host: Option<String>,
    /// How long to wait for one, in milliseconds, 20000 at most.
    pub wait_ms: u64,
    /// What becomes of it.
    pub settling: Settling,
    /// Which ones.
    pub selector: Option<String>,
    /// The content type of the reply.
    pub media: Option<Media>,
    /// The name of the consumer. A queue needs none; a topic's may live on under it until the next request.
    pub client_id: Option<String>,
    /// Whether no consumer is to live on.
    pub one_shot: bool,
}

/// Reads a POST. `path` is what follows `/api/message/`, decoded; `params` are the query's.
///
/// The body is the form field `body`, if it is a form that has one, and otherwise the body as it is. What is no field of
/// a message and steers nothing is a property with a text value, be it in the query or in the form; so are `X-Prop-NAME`
/// headers.
///
/// # Errors
/// There is no destination, or there are two; a parameter cannot be read ([`Code::InvalidHeader`], naming it); a channel
/// of ActiveMQ's servlet is meant ([`Code::Unsupported`]).
pub fn post<'a>(
    path: Option<&str>,
    params: &'a Params,
    headers: &[(&'a str, &'a str)],
    body: &'a [u8],
) -> Result<Post<'a>, EnvelopeError> {
    let content_type = header(headers, "content-type").filter(|text| !text.is_empty());
    let is_form = content_type
        .is_some_and(|text| essence(text).eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let form = if is_form && encoding(headers).is_none() { form(body) } else { None };
    let body = match &form {
        Some(_) => DraftBody::None,
        None => raw_body(content_type, encoding(headers), body),
    };
    let mut message = Message {
        address: String::new(),
        virtual_host: None,
        draft: Draft {
            body,
            content_type: content_type.filter(|_| !is_form).map(Cow::Borrowed),
            content_encoding: encoding(headers).map(Cow::Borrowed),
            user_properties: properties(headers)?,
            ..Draft::default()
        },
        synchronous: true,
    };
    let mut place = Place::new(path);
    let (mut unsubscribe, mut client_id) = (false, None);
    let query = params.iter().map(|(name, value)| (Cow::Borrowed(&**name), Cow::Borrowed(&**value)));
    let form =
        form.unwrap_or_default().into_iter().map(|(name, value)| (Cow::Owned(name), Cow::Owned(value)));
    for (name, value) in query.chain(form) {
        match &*name {
            "destination" => place.destination(&value)?,
            "type" => place.kind(&value)?,
            "vhost" => message.virtual_host = Some(value.into_owned()),
            "sync" => message.synchronous = flag(&name, &value)?,
            "action" if value == "unsubscribe" => unsubscribe = true,
            "action" => return Err(wrong(&name, "the one action is unsubscribe")),
            "clientId" => client_id = Some(value.into_owned()),
            "body" => message.draft.body = DraftBody::Text(value),
            // These steer consumers, and whoever sends them with a message means no property.
            "readTimeout" | "oneShot" | "ack" | "timeout" | "json" | "xml" | "browse" | "max"
            | "selector" | "lease" | "lockTime" => {}
            _ => field(&mut message.draft, name, value)?,
        }
    }
    if unsubscribe {
        return Ok(Post::Unsubscribe { client_id, virtual_host: message.virtual_host });
    }
    message.address = place.address()?;
    Ok(Post::Message(Box::new(message)))
}

/// A body by itself. What has no type is text if it reads as such, for ActiveMQ knows nothing else.
fn raw_body<'a>(content_type: Option<&str>, encoding: Option<&str>, body: &'a [u8]) -> DraftBody<'a> {
    match content_type {
        None => body_of(Some("text/plain"), encoding, body),
        Some(_) => body_of(content_type, encoding, body),
    }
}

/// The fields of a form, if it is one and has a body among them, or says where to or what to do. Whoever posts text
/// without saying that it is none (`curl -d`) means the text.
fn form(body: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut fields = Vec::new();
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        fields.push((percent::decode(name, true)?, percent::decode(value, true)?));
    }
    let is_field = |(name, _): &(String, String)| matches!(name.as_str(), "body" | "destination" | "action");
    fields.iter().any(is_field).then_some(fields)
}

/// A field of the message, or a property.
fn field<'a>(draft: &mut Draft<'a>, name: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), EnvelopeError> {
    match &*name {
        // A script's variable that is not set.
        "JMSCorrelationID" | "JMSReplyTo" | "JMSType" | "JMSXGroupID" if value.is_empty() => {}
        "JMSCorrelationID" => draft.correlation_id = Some(value),
        "JMSType" => draft.kind = Some(value),
        "JMSReplyTo" => {
            draft.reply_to = Some(match value.contains("://") {
                true => value,
                false => Cow::Owned(format!("queue://{value}")),
            });
        }
        "JMSDeliveryMode" => {
            let is = |text: &str| value.eq_ignore_ascii_case(text);
            draft.persistent = Some(match () {
                () if is("persistent") || is("2") => true,
                () if is("non-persistent") || is("non_persistent") || is("1") => false,
                () => return Err(wrong(&name, "JMSDeliveryMode must be persistent or non-persistent")),
            });
        }
        "JMSPriority" => draft.priority = u8::try_from(number(&name, &value, PRIORITY_MAX.into())?).ok(),
        "JMSTimeToLive" => draft.ttl_ms = Some(number(&name, &value, i64::MAX as u64)?),
        "JMSExpiration" => draft.expiration = Some(number(&name, &value, i64::MAX as u64)?),
        "JMSTimestamp" => draft.timestamp = Some(number(&name, &value, i64::MAX as u64)?),
        "JMSXGroupID" => draft.group_id = Some(value),
        "JMSXGroupSeq" => {
            let sequence = value.parse();
            let sequence =
                sequence.map_err(|_| wrong(&name, "JMSXGroupSeq must be a whole number of 32 bits"))?;
            draft.group_sequence = Some(sequence);
        }
        _ => draft.user_properties.push((name, value)),
    }
    Ok(())
}

/// Reads a GET or a DELETE, which are the same. `path` is what follows `/api/message/`, decoded; `params` are the
/// query's. The selector is a header, or a parameter.
///
/// # Errors
/// Those of [`post`]; and a parameter that there is not.
pub fn consume(
    path: Option<&str>,
    params: &Params,
    headers: &[(&str, &str)],
) -> Result<Consume, EnvelopeError> {
    let mut place = Place::new(path);
    let mut wait = None;
    let (mut client, mut browse, mut lease_ms, mut max) = (false, false, None, None);
    let mut media = None;
    let mut wanted = Consume {
        address: String::new(),
        virtual_host: None,
        wait_ms: WAIT_MS,
        settling: Settling::Auto,
        selector: header(headers, "selector").map(str::to_owned),
        media: None,
        client_id: None,
        one_shot: false,
    };
    for (name, value) in params {
        match name.as_str() {
            "destination" => place.destination(value)?,
            "type" => place.kind(value)?,
            "vhost" => wanted.virtual_host = Some(value.clone()),
            "clientId" => wanted.client_id = Some(value.clone()),
            "selector" => wanted.selector = Some(value.clone()),
            "readTimeout" | "timeout" if wait.is_some() => {
                return Err(wrong(name, "readTimeout and timeout are the same: only one can be given"));
            }
            "readTimeout" | "timeout" => wait = Some(number(name, value, i64::MAX as u64)?),
            "oneShot" => wanted.one_shot = flag(name, value)?,
            "ack" => {
                client = match value.as_str() {
                    "client" => true,
                    "auto" => false,
                    _ => return Err(wrong(name, "ack must be auto or client")),
                }
            }
            "lease" | "lockTime" if lease_ms.is_some() => {
                return Err(wrong(name, "lease and lockTime are the same: only one can be given"));
            }
            "lease" | "lockTime" => lease_ms = Some(number(name, value, i64::MAX as u64)?),
            "browse" => browse = flag(name, value)?,
            "max" => max = Some(number(name, value, BROWSE_MAX)?),
            "json" if flag(name, value)? => media = Some(Media::Json),
            "xml" if flag(name, value)? => media = Some(Media::Xml),
            "json" | "xml" => {}
            _ => return Err(wrong(name, format!("there is no parameter {name:?} here"))),
        }
    }
    wanted.wait_ms = wait.unwrap_or(WAIT_MS).min(WAIT_MS);
    wanted.media = media;
    wanted.settling = match (client, browse) {
        (true, true) => {
            return Err(wrong("browse", "a look at messages acknowledges nothing: ack=client excludes it"));
        }
        (false, _) if lease_ms.is_some() => return Err(wrong("lease", "lease needs ack=client")),
        (_, false) if max.is_some() => return Err(wrong("max", "max needs browse=true")),
        (true, false) => Settling::Client { lease_ms },
        (false, true) => Settling::Browse { max: max.unwrap_or(BROWSE_MAX) },
        (false, false) => Settling::Auto,
    };
    wanted.address = place.address()?;
    Ok(wanted)
}

/// The parts of a request that name its destination.
struct Place<'a> {
    path: Option<&'a str>,
    destination: Option<String>,
    kind: Option<Kind>,
}

impl<'a> Place<'a> {
    fn new(path: Option<&'a str>) -> Self {
        let path = path.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
        Self { path, destination: None, kind: None }
    }

    fn destination(&mut self, text: &str) -> Result<(), EnvelopeError> {
        if text.starts_with("channel://") {
            let sentence = "channels are a configuration of ActiveMQ's servlet: name the queue or the topic";
            return Err(EnvelopeError { code: Code::Unsupported, ..wrong("destination", sentence) });
        }
        match self.destination.replace(text.to_owned()) {
            None => Ok(()),
            Some(_) => Err(wrong("destination", "the destination is there twice")),
        }
    }

    fn kind(&mut self, text: &str) -> Result<(), EnvelopeError> {
        self.kind = Some(match text {
            _ if text.eq_ignore_ascii_case("queue") => Kind::Queue,
            _ if text.eq_ignore_ascii_case("topic") => Kind::Topic,
            _ => return Err(wrong("type", "type must be queue or topic")),
        });
        Ok(())
    }

    /// The qualified name. Without a type it is a topic's.
    fn address(self) -> Result<String, EnvelopeError> {
        let text = match (self.path, self.destination) {
            (Some(_), Some(_)) => {
                return Err(wrong("destination", "the destination is in the path already"));
            }
            (None, None) => {
                let sentence =
                    "a destination is needed: /api/message/NAME?type=queue, or ?destination=queue://NAME";
                return Err(wrong("destination", sentence));
            }
            (Some(path), None) => path.replace('/', "."),
            (None, Some(text)) => text,
        };
        let (kind, temporary, name) = split_qualified(&text, self.kind.unwrap_or(Kind::Topic));
        if self.kind.is_some_and(|said| said != kind) {
            return Err(wrong(
                "type",
                format!("the type says {}, and the destination {text}", other(kind).word()),
            ));
        }
        if name.is_empty() {
            return Err(EnvelopeError {
                code: Code::InvalidDestination,
                ..wrong("destination", "a destination name cannot be empty")
            });
        }
        let prefix = if temporary { "temp-" } else { "" };
        Ok(format!("{prefix}{}://{name}", kind.word()))
    }
}

fn other(kind: Kind) -> Kind {
    match kind {
        Kind::Queue => Kind::Topic,
        Kind::Topic => Kind::Queue,
    }
}

fn flag(name: &str, value: &str) -> Result<bool, EnvelopeError> {
    match value {
        _ if value.is_empty() || value.eq_ignore_ascii_case("true") => Ok(true),
        _ if value.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(wrong(name, format!("{name} must be true or false"))),
    }
}
