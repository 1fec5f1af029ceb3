//! What a webhook is: how requests define it, how it is kept in the log, and how it is shown. Secrets and the values of
//! headers go in and never come out.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use axum::http::{HeaderName, HeaderValue};
use sabir_admin::Problem;
use sabir_model::access::{Principal, Remote};
use sabir_model::destination::Kind;
use sabir_model::error::Code;
use sabir_model::pattern::Pattern;
use sabir_model::selector::{Options, Selector};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::retry::Retries;
use super::signer::Secret;
use super::url::Url;

/// Most headers of a definition, and most bytes of them.
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Most secrets at a time: the present one, and those that are on their way in or out.
const SECRETS_MAX: usize = 3;
/// The most requests at a time that one webhook may ask for.
const CONCURRENCY_MAX: u32 = 1000;
/// Bounds of the time that an attempt may take, and the default, in milliseconds.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
const TIMEOUT_DEFAULT_MS: u64 = 15_000;
/// Stands for a header's value that is not shown.
const HIDDEN: &str = "***";
/// Headers that are the request's own.
const HEADERS_OF_OURS: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// What headers of ours begin with.
const PREFIXES_OF_OURS: [&str; 3] = ["webhook-", "sabir-", "x-prop-"];

/// Where messages come from, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Source {
    /// `queue://NAME` or `topic://PATTERN`.
    Destination(String),
    /// A durable subscription that somebody else has made.
    Subscription(Subscription),
}

/// A durable subscription by its names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscription {
    pub(super) client: String,
    pub(super) name: String,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"queue://NAME\", \"topic://PATTERN\" or {\"client\", \"name\"}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Source, E> {
                Ok(Source::Destination(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                Subscription::deserialize(MapAccessDeserializer::new(map)).map(Source::Subscription)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// How a message becomes a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// The JSON form of the message.
    #[default]
    Json,
    /// The body as it is, the rest as headers.
    Raw,
    /// A CloudEvent in JSON.
    CloudEvents,
}

/// One secret or several.
#[derive(Clone, Debug, Default, PartialEq)]
struct Secrets(Vec<String>);

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Secrets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret, a list of them or null")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Secrets, E> {
                Ok(Secrets::default())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secrets, E> {
                Ok(Secrets(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Secrets, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    if all.len() == SECRETS_MAX {
                        return Err(de::Error::custom(format_args!("at most {SECRETS_MAX} secrets")));
                    }
                    all.push(text);
                }
                Ok(Secrets(all))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// A request's body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    source: Source,
    url: String,
    #[serde(default)]
    selector: Option<String>,
    /// Absent, the secrets stay as they are; null, there are none.
    #[serde(default, deserialize_with = "given")]
    secret: Option<Secrets>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    format: Format,
    #[serde(default = "one")]
    concurrency: u32,
    #[serde(default = "timeout_default")]
    timeout: u64,
    #[serde(default)]
    retries: Retries,
    #[serde(default)]
    paused: bool,
}

/// What is there, be it null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secrets>, D::Error> {
    Secrets::deserialize(deserializer).map(Some)
}

fn one() -> u32 {
    1
}

fn timeout_default() -> u64 {
    TIMEOUT_DEFAULT_MS
}

/// In whose name a webhook consumes: whoever has defined it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// `None` is anonymous.
    user: Option<String>,
    /// `None` is this machine, over a Unix socket.
    address: Option<IpAddr>,
}

impl Owner {
    pub(super) fn of(principal: &Principal) -> Self {
        let address = match principal.remote() {
            Remote::Local => None,
            Remote::Address(address) => Some(address),
        };
        Self { user: principal.name().map(str::to_owned), address }
    }

    pub(super) fn principal(&self) -> Principal {
        let remote = self.address.map_or(Remote::Local, Remote::Address);
        match &self.user {
            Some(name) => Principal::user(name, remote),
            None => Principal::anonymous(remote),
        }
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

/// A webhook as it is kept in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) source: Source,
    pub(super) url: String,
    pub(super) selector: Option<String>,
    pub(super) secrets: Vec<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) format: Format,
    pub(super) concurrency: u32,
    pub(super) timeout: u64,
    pub(super) retries: Retries,
    pub(super) paused: bool,
    pub(super) owner: Owner,
}

/// Version of the kept form; it stands before the JSON.
const VERSION: u8 = 1;

fn wrong(field: &str, sentence: impl Into<String>) -> Problem {
    Problem { field: Some(field.into()), ..Problem::new(Code::InvalidBody, sentence) }
}

/// What a definition says, ready to be used.
pub(super) struct Plan {
    pub(super) url: Url,
    pub(super) secrets: Vec<Secret>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The queue or the topics; `None` where a subscription says it.
    pub(super) pattern: Option<Pattern>,
}

impl Definition {
    /// Reads what a request wants, where `before` is what there was by that name.
    ///
    /// # Errors
    /// It is not JSON, names what does not exist, or holds what makes no sense; the field is named.
    pub(super) fn read(body: &[u8], owner: Owner, before: Option<&Self>) -> Result<Self, Problem> {
        let wanted: Wanted = serde_json::from_slice(body).map_err(|error| {
            let problem = Problem::json(&error);
            // unknown field `x`, missing field `x`
            let field = problem.detail.split('`').nth(1).filter(|_| problem.detail.contains(" field `"));
            Problem { field: field.map(str::to_owned), ..problem }
        })?;
        let mut definition = Self {
            secrets: match wanted.secret {
                Some(Secrets(secrets)) => secrets,
                None => before.map(|before| before.secrets.clone()).unwrap_or_default(),
            },
            source: wanted.source,
            url: wanted.url,
            selector: wanted.selector,
            headers: wanted.headers,
            format: wanted.format,
            concurrency: wanted.concurrency,
            timeout: wanted.timeout,
            retries: wanted.retries,
            paused: wanted.paused,
            owner,
        };
        definition.keep_hidden(before)?;
        Ok(definition)
    }

    /// Puts in the values of headers that the request has only seen hidden.
    fn keep_hidden(&mut self, before: Option<&Self>) -> Result<(), Problem> {
        if !self.headers.values().any(|value| value == HIDDEN) {
            return Ok(());
        }
        // Whoever may redefine a webhook must not have its credentials sent to another host.
        let same_host = |before: &&Self| {
            let (old, new) = (Url::parse(&before.url), Url::parse(&self.url));
            matches!((old, new), (Ok(old), Ok(new)) if old.is_same_origin(&new))
        };
        let before = before.filter(same_host);
        for (name, value) in &mut self.headers {
            if value != HIDDEN {
                continue;
            }
            match before.and_then(|before| before.headers.get(name)) {
                Some(kept) => value.clone_from(kept),
                None => {
                    let sentence = format!(
                        "the value of {name} must be given: {HIDDEN} keeps one only for the same host"
                    );
                    return Err(wrong("headers", sentence));
                }
            }
        }
        Ok(())
    }

    /// Makes it ready to be used.
    ///
    /// # Errors
    /// Something in it makes no sense; the field is named.
    pub(super) fn plan(&self) -> Result<Plan, Problem> {
        let url = Url::parse(&self.url).map_err(|sentence| wrong("url", sentence))?;
        let pattern = self.pattern()?;
        if let Some(selector) = &self.selector {
            if pattern.is_none() {
                return Err(wrong("selector", "a durable subscription has a selector of its own"));
            }
            let parsed = Selector::parse_with(selector, Options { convert_strings: true });
            parsed.map_err(|refusal| Problem { field: Some("selector".into()), ..refusal.into() })?;
        }
        if self.secrets.len() > SECRETS_MAX {
            return Err(wrong("secret", format!("at most {SECRETS_MAX} secrets")));
        }
        let secrets = self.secrets.iter().map(|text| Secret::parse(text)).collect::<Result<_, _>>();
        let secrets = secrets.map_err(|sentence| wrong("secret", sentence))?;
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency) {
            return Err(wrong("concurrency", format!("concurrency must be from 1 to {CONCURRENCY_MAX}")));
        }
        if !TIMEOUT_MS.contains(&self.timeout) {
            let (least, most) = TIMEOUT_MS.into_inner();
            return Err(wrong("timeout", format!("timeout must be from {least} to {most} milliseconds")));
        }
        if let Some((field, sentence)) = self.retries.complaint() {
            return Err(wrong(field, sentence));
        }
        Ok(Plan { url, secrets, headers: self.read_headers()?, pattern })
    }

    /// The queue or the topics; `None` where a subscription says it.
    ///
    /// # Errors
    /// The source is none that a webhook can take from.
    pub(super) fn pattern(&self) -> Result<Option<Pattern>, Problem> {
        let Source::Destination(text) = &self.source else { return Ok(None) };
        if !text.contains("://") {
            return Err(wrong("source", "source must be queue://NAME, topic://PATTERN or a subscription"));
        }
        let named = |problem: Problem| Problem { field: Some("source".into()), ..problem };
        let pattern = Pattern::parse_qualified(text, Kind::Queue).map_err(|refusal| named(refusal.into()))?;
        if pattern.is_temporary() || (pattern.kind() == Kind::Queue && pattern.as_literal().is_none()) {
            let sentence =
                "a webhook takes from one queue, or from topics; temporary ones are somebody else's";
            return Err(named(Problem::new(Code::InvalidDestination, sentence)));
        }
        Ok(Some(pattern))
    }

    fn read_headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
            let sentence = format!("at most {HEADERS_MAX} headers and {HEADER_BYTES_MAX} bytes of them");
            return Err(wrong("headers", sentence));
        }
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (text, value) in &self.headers {
            let name = HeaderName::from_bytes(text.as_bytes());
            let name = name.map_err(|_| wrong("headers", format!("{text:?} cannot be a header's name")))?;
            let ours = HEADERS_OF_OURS.contains(&name.as_str())
                || PREFIXES_OF_OURS.iter().any(|prefix| name.as_str().starts_with(prefix));
            if ours || headers.iter().any(|(known, _)| *known == name) {
                let why = if ours { "is the request's own" } else { "is there twice" };
                return Err(wrong("headers", format!("the header {name} {why}")));
            }
            let value = HeaderValue::from_str(value);
            let mut value = value.map_err(|_| {
                wrong("headers", format!("the value of {name} is not one that a header can hold"))
            })?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
        Ok(headers)
    }

    /// As it is kept.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&serde_json::to_vec(self).unwrap_or_default());
        out
    }

    /// Reads what is kept; `None` if a version of this server has written it that this one does not know.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&VERSION, json)) => serde_json::from_slice(json).ok(),
            _ => None,
        }
    }

    /// As it is shown: whether there is a secret, and which headers.
    pub(super) fn shown(&self) -> serde_json::Value {
        let headers: BTreeMap<&str, &str> = self.headers.keys().map(|name| (name.as_str(), HIDDEN)).collect();
        serde_json::json!({
            "source": self.source,
            "url": self.url,
            "selector": self.selector,
            "signed": !self.secrets.is_empty(),
            "headers": headers,
            "format": self.format,
            "concurrency": self.concurrency,
            "timeout": self.timeout,
            "retries": self.retries,
            "paused": self.paused,
            "definedBy": self.owner.user(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn owner() -> Owner {
        Owner::of(&Principal::user("alice", Remote::Local))
    }

    fn read(text: &str) -> Result<Definition, Problem> {
        let definition = Definition::read(text.as_bytes(), owner(), None)?;
        definition.plan()?;
        Ok(definition)
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn what_is_kept_is_read_back_and_what_is_shown_tells_no_secret() {
        let text = format!(
            r#"{{"source":{{"client":"c","name":"n"}},"url":"https://a.example/x","secret":["{SECRET}"],"headers":{{"Authorization":"Bearer t0ken"}},"retries":{{"max":3}}}}"#
        );
        let definition = read(&text).unwrap();
        assert_eq!(Definition::decode(&definition.encode()).as_ref(), Some(&definition));
        assert_eq!(definition.owner.principal(), Principal::user("alice", Remote::Local));
        assert_eq!(definition.retries, Retries { max: 3, ..Retries::default() });
        let shown = definition.shown().to_string();
        assert!(
            !shown.contains("t0ken") && !shown.contains("whsec") && shown.contains("Authorization"),
            "{shown}"
        );
        assert_eq!(Definition::decode(b"\x02{}"), None);
        assert_eq!(Definition::decode(b""), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (field, json) in [
            ("uri", r#"{"source":"queue://q","uri":"http://a"}"#),
            ("url", r#"{"source":"queue://q"}"#),
            ("url", r#"{"source":"queue://q","url":"ftp://a"}"#),
            ("source", r#"{"source":"q","url":"http://a"}"#),
            ("source", r#"{"source":"queue://q.*","url":"http://a"}"#),
            ("source", r#"{"source":"temp-queue://q","url":"http://a"}"#),
            ("selector", r#"{"source":"queue://q","url":"http://a","selector":"a ="}"#),
            ("selector", r#"{"source":{"client":"c","name":"n"},"url":"http://a","selector":"a = 1"}"#),
            ("secret", r#"{"source":"queue://q","url":"http://a","secret":"short"}"#),
            ("headers", r#"{"source":"queue://q","url":"http://a","headers":{"Host":"x"}}"#),
            ("headers", r#"{"source":"queue://q","url":"http://a","headers":{"webhook-id":"x"}}"#),
            ("headers", r#"{"source":"queue://q","url":"http://a","headers":{"a b":"x"}}"#),
            ("headers", r#"{"source":"queue://q","url":"http://a","headers":{"a":"x\ny"}}"#),
            ("headers", r#"{"source":"queue://q","url":"http://a","headers":{"a":"x","A":"y"}}"#),
            ("headers", r#"{"source":"queue://q","url":"http://a","headers":{"a":"***"}}"#),
            ("concurrency", r#"{"source":"queue://q","url":"http://a","concurrency":0}"#),
            ("timeout", r#"{"source":"queue://q","url":"http://a","timeout":1}"#),
            ("retries.max", r#"{"source":"queue://q","url":"http://a","retries":{"max":0}}"#),
            ("maximum", r#"{"source":"queue://q","url":"http://a","retries":{"maximum":1}}"#),
            ("nam", r#"{"source":{"client":"c","nam":"n"},"url":"http://a"}"#),
        ] {
            let problem = read(json).unwrap_err();
            assert_eq!(
                (problem.status.as_u16(), problem.field.as_deref()),
                (400, Some(field)),
                "{json}: {problem:?}"
            );
        }
    }

    #[test]
    fn a_new_definition_keeps_the_secret_and_hidden_headers_of_the_same_host() {
        let before = read(&format!(
            r#"{{"source":"queue://q","url":"http://a/x","secret":"{SECRET}","headers":{{"k":"v"}}}}"#
        ))
        .unwrap();
        let again = |text: &str| Definition::read(text.as_bytes(), owner(), Some(&before));
        let kept = again(r#"{"source":"queue://q","url":"http://a/y","headers":{"k":"***"}}"#).unwrap();
        assert_eq!((&kept.secrets, &kept.headers), (&before.secrets, &before.headers));
        let none = again(r#"{"source":"queue://q","url":"http://a/y","secret":null}"#).unwrap();
        assert!(none.secrets.is_empty() && none.headers.is_empty());
        let elsewhere = again(r#"{"source":"queue://q","url":"http://b/y","headers":{"k":"***"}}"#);
        assert_eq!(elsewhere.unwrap_err().field.as_deref(), Some("headers"));
    }
}
