//! What a client asks for: the operation, the keys that go with it, and the message, in one flat object.

use std::borrow::Cow;

use sabir_model::error::Code;
use serde::Deserialize;
use serde::de::{DeserializeSeed, MapAccess};
use serde_json::error::Category;

use crate::envelope::{Draft, DraftSeed, Extra, Keys, NothingMore, Place, Text, truth, whole};
use crate::error::EnvelopeError;

/// Largest number that every reader of JSON keeps exact.
const NUMBER_MAX: i64 = (1 << 53) - 1;

macro_rules! operations {
    ($($name:ident = $text:literal, $keys:expr;)+) => {
        /// What can be asked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Op { $($name,)+ }

        impl Op {
            const ALL: &[Self] = &[$(Self::$name,)+];

            pub(crate) fn as_str(self) -> &'static str { match self { $(Self::$name => $text,)+ } }

            /// The keys it takes besides `op`, `ref` and those of a message.
            fn keys(self) -> &'static [&'static str] { match self { $(Self::$name => $keys,)+ } }
        }
    };
}

operations! {
    Connect = "connect", &["user", "password", "clientId", "host", "heartbeat"];
    Send = "send", &["noReply", "transaction", "message"];
    Request = "request", &["timeout", "message"];
    Subscribe = "subscribe",
        &["noReply", "id", "destination", "ack", "credit", "selector", "durable", "browse", "noLocal", "priority", "mustExist"];
    Credit = "credit", &["noReply", "id", "credit"];
    Unsubscribe = "unsubscribe", &["noReply", "id", "durable", "forget"];
    Ack = "ack", &["noReply", "deliveryId", "transaction"];
    Nack = "nack", &["noReply", "deliveryId", "transaction", "requeue"];
    Release = "release", &["noReply", "deliveryId", "transaction"];
    Begin = "begin", &["noReply", "transaction"];
    Commit = "commit", &["noReply", "transaction"];
    Abort = "abort", &["noReply", "transaction"];
    Temporary = "temporary", &["kind"];
    Ping = "ping", &[];
    Disconnect = "disconnect", &["noReply"];
}

impl Op {
    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|op| op.as_str() == text)
    }

    /// Whether it may be a part of a transaction.
    pub(crate) fn is_transacted(self) -> bool {
        matches!(self, Self::Send | Self::Ack | Self::Nack | Self::Release)
    }

    /// Whether a message's keys may stand in it.
    fn carries_message(self) -> bool {
        matches!(self, Self::Send | Self::Request)
    }
}

/// The keys that are not a message's.
#[derive(Debug, Default)]
pub(crate) struct Words<'a> {
    op: Option<Cow<'a, str>>,
    message: Option<Draft<'a>>,
    pub(crate) reference: Option<u64>,
    pub(crate) no_reply: bool,
    pub(crate) user: Option<Cow<'a, str>>,
    pub(crate) password: Option<Cow<'a, str>>,
    pub(crate) client_id: Option<Cow<'a, str>>,
    pub(crate) host: Option<Cow<'a, str>>,
    pub(crate) heartbeat_ms: Option<u64>,
    pub(crate) transaction: Option<Cow<'a, str>>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) ack: Option<Cow<'a, str>>,
    pub(crate) credit: Option<u64>,
    pub(crate) selector: Option<Cow<'a, str>>,
    pub(crate) durable: Option<Cow<'a, str>>,
    pub(crate) browse: bool,
    pub(crate) no_local: bool,
    pub(crate) must_exist: bool,
    pub(crate) forget: bool,
    pub(crate) delivery_id: Option<Cow<'a, str>>,
    pub(crate) requeue: Option<bool>,
    pub(crate) kind: Option<Cow<'a, str>>,
    keys: Keys<'a>,
}

impl<'de> Extra<'de> for Words<'de> {
    fn take<A: MapAccess<'de>>(
        &mut self,
        key: &str,
        entries: &mut A,
        place: &Place,
    ) -> Result<bool, A::Error> {
        let slot = match key {
            "op" => &mut self.op,
            "user" => &mut self.user,
            "password" => &mut self.password,
            "clientId" => &mut self.client_id,
            "host" => &mut self.host,
            "transaction" => &mut self.transaction,
            "id" => &mut self.id,
            "ack" => &mut self.ack,
            "selector" => &mut self.selector,
            "durable" => &mut self.durable,
            "deliveryId" => &mut self.delivery_id,
            "kind" => &mut self.kind,
            "message" => {
                let seed = DraftSeed { place, extra: &mut NothingMore };
                self.message = Some(entries.next_value_seed(seed)?);
                return Ok(true);
            }
            _ => return self.take_plain(key, entries, place),
        };
        *slot = entries.next_value_seed(Text)?;
        Ok(true)
    }

    fn keys(&mut self, keys: Keys<'de>) {
        self.keys = keys;
    }
}

impl<'de> Words<'de> {
    /// Numbers and truths.
    fn take_plain<A: MapAccess<'de>>(
        &mut self,
        key: &str,
        entries: &mut A,
        place: &Place,
    ) -> Result<bool, A::Error> {
        let least = i64::from(key == "timeout");
        let number = match key {
            "ref" => &mut self.reference,
            "heartbeat" => &mut self.heartbeat_ms,
            "timeout" => &mut self.timeout_ms,
            "credit" => &mut self.credit,
            "requeue" => {
                self.requeue = truth(key, &entries.next_value_seed(place.value())?)?;
                return Ok(true);
            }
            _ => {
                let flag = match key {
                    "noReply" => &mut self.no_reply,
                    "browse" => &mut self.browse,
                    "noLocal" => &mut self.no_local,
                    "mustExist" => &mut self.must_exist,
                    "forget" => &mut self.forget,
                    _ => return Ok(false),
                };
                *flag = truth(key, &entries.next_value_seed(place.value())?)?.unwrap_or(false);
                return Ok(true);
            }
        };
        let value = whole(key, &entries.next_value_seed(place.value())?, least, NUMBER_MAX)?;
        *number = value.and_then(|value| u64::try_from(value).ok());
        Ok(true)
    }
}

/// One whole object.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) op: Op,
    pub(crate) draft: Draft<'a>,
    pub(crate) words: Words<'a>,
}

/// Why an object is not carried out.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) error: EnvelopeError,
    /// The client's number for the object, as far as it can be made out.
    pub(crate) reference: Option<u64>,
    /// What it is, as far as that can be made out.
    pub(crate) op: Option<Op>,
    /// The transaction it belongs to, as far as that can be made out.
    pub(crate) transaction: Option<String>,
    /// It is no JSON, so what follows cannot be trusted.
    pub(crate) malformed: bool,
}

/// What can be made out of an object that is wrong.
#[derive(Default, Deserialize)]
struct Glimpse {
    #[serde(rename = "ref", default)]
    reference: Option<u64>,
    #[serde(default)]
    op: Option<String>,
    #[serde(default)]
    transaction: Option<String>,
}

impl<'a> Request<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// It is no JSON, asks for what there is not, or has a key that does not belong to what it asks for.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Box<Trouble>> {
        let place = Place::default();
        let mut words = Words::default();
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let draft = DraftSeed { place: &place, extra: &mut words }.deserialize(&mut deserializer);
        let draft = draft.and_then(|draft| deserializer.end().map(|()| draft));
        let mut draft = draft.map_err(|error| trouble(bytes, &error, &place))?;
        let (reference, op) = (words.reference, words.op.as_deref().and_then(Op::parse));
        let named = words.transaction.clone();
        let wrong = |error| {
            let transaction = named.map(Cow::into_owned);
            Box::new(Trouble { error, reference, op, transaction, malformed: false })
        };
        let Some(op) = op else {
            let sentence = match &words.op {
                None => "the key op is missing".to_owned(),
                Some(text) => format!("there is no op {text:?}"),
            };
            let code = if words.op.is_some() { Code::UnknownCommand } else { Code::MissingHeader };
            return Err(wrong(EnvelopeError {
                field: Some("op".to_owned()),
                ..EnvelopeError::new(code, sentence)
            }));
        };
        if let Some(message) = words.message.take() {
            // Beside it the message has no keys here; the check of the keys below says so.
            draft = message;
        }
        check_keys(op, &words.keys).map_err(wrong)?;
        Ok(Self { op, draft, words })
    }
}

/// Whether every key belongs to the operation.
fn check_keys(op: Op, keys: &Keys<'_>) -> Result<(), EnvelopeError> {
    let nested = keys.iter().any(|key| key == "message");
    for key in keys {
        let known = matches!(&**key, "op" | "ref")
            || op.keys().contains(&&**key)
            || (op.carries_message() && !nested && is_messages(key));
        if known {
            continue;
        }
        let sentence = if op.carries_message() && nested && is_messages(key) {
            format!("{key} belongs into the message that is there as a whole")
        } else {
            format!("{} has no key {key:?}", op.as_str())
        };
        return Err(EnvelopeError {
            field: Some(key.to_string()),
            ..EnvelopeError::new(Code::InvalidHeader, sentence)
        });
    }
    Ok(())
}

/// Whether a key that is known at all is a message's: those that are not belong to some operation.
fn is_messages(key: &str) -> bool {
    let operations = Op::ALL.iter().any(|op| op.keys().contains(&key));
    !operations || matches!(key, "destination" | "priority")
}

fn trouble(bytes: &[u8], error: &serde_json::Error, place: &Place) -> Box<Trouble> {
    let glimpse = serde_json::from_slice::<Glimpse>(bytes);
    let is_json = |error: &serde_json::Error| error.classify() == Category::Data;
    let malformed = !is_json(error) || glimpse.as_ref().is_err_and(|error| !is_json(error));
    let Glimpse { reference, op, transaction } = glimpse.unwrap_or_default();
    let error = EnvelopeError::json(error, place.take_field());
    let code = if malformed { Code::MalformedFrame } else { error.code };
    Box::new(Trouble {
        error: EnvelopeError { code, ..error },
        reference,
        op: op.as_deref().and_then(Op::parse),
        transaction,
        malformed,
    })
}

/// A key that the operation needs.
pub(crate) fn needed<'t>(op: Op, key: &str, value: Option<&'t str>) -> Result<&'t str, EnvelopeError> {
    value.filter(|text| !text.is_empty()).ok_or_else(|| missing(op, key))
}

/// The operation lacks a key.
pub(crate) fn missing(op: Op, key: &str) -> EnvelopeError {
    EnvelopeError {
        field: Some(key.to_owned()),
        ..EnvelopeError::new(Code::MissingHeader, format!("{} needs the key {key}", op.as_str()))
    }
}

/// A key whose value is not one that it may have.
pub(crate) fn invalid(key: &str, sentence: String) -> EnvelopeError {
    EnvelopeError { field: Some(key.to_owned()), ..EnvelopeError::new(Code::InvalidHeader, sentence) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_of_every_op_and_every_key() {
        let page = include_str!("../../../docs/json.md");
        for op in Op::ALL {
            let heads = page.lines().filter_map(|line| line.strip_prefix("### "));
            let section = heads.flat_map(|head| head.split(", ")).any(|head| head == op.as_str());
            assert!(section, "{} has no section", op.as_str());
            for key in op.keys() {
                assert!(page.contains(&format!("`{key}`")) || page.contains(&format!("\"{key}\":")), "{key}");
            }
        }
    }

    #[test]
    fn an_object_has_the_keys_of_its_op_and_no_others() {
        for op in Op::ALL {
            let text = format!(r#"{{"op":"{}","ref":3}}"#, op.as_str());
            let parsed = Request::parse(text.as_bytes());
            assert_eq!(parsed.map(|request| request.words.reference).ok(), Some(Some(3)), "{text}");
        }
        let field =
            |text: &str| Request::parse(text.as_bytes()).err().and_then(|trouble| trouble.error.field);
        for op in Op::ALL {
            for key in ["user", "credit", "deliveryId", "forget", "kind", "timeout", "body", "message"] {
                let belongs = op.keys().contains(&key) || (key == "body" && op.carries_message());
                let found = field(&format!(r#"{{"op":"{}","{key}":null}}"#, op.as_str()));
                // A message that is null is none, which is told in the same way.
                let expected = (!belongs || key == "message").then(|| key.to_owned());
                assert_eq!(found, expected, "{} {key}", op.as_str());
            }
        }
    }
}
