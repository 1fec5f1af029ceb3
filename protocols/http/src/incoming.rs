//! What a request sends: messages in one of six forms, told apart by the media type.
//!
//! | Form | Media type | The message |
//! |---|---|---|
//! | [`Form::Json`] | `application/json`, `application/vnd.sabir+json` | the JSON form of a message, or an array of them |
//! | [`Form::Ndjson`] | `application/x-ndjson`, `application/ndjson` | one a line |
//! | [`Form::CloudEvent`] | `application/cloudevents+json` | an event (CloudEvents 1.0, JSON format) |
//! | [`Form::CloudEventBatch`] | `application/cloudevents-batch+json` | an array of them |
//! | [`Form::CloudEventBinary`] | any other, with a `ce-specversion` header | attributes as headers, data as body |
//! | [`Form::Raw`] | any other, and every one with `?raw=true` | the body as it is |
//!
//! What a message does not say itself is said for all of a request by query parameters (`ttl`, `expiration`, `timestamp`:
//! milliseconds; `priority`: 0 to 9; `persistent`, `retained`: true or false; `correlationId`, `replyTo`, `type`,
//! `groupId`, `groupSeq`); what it says itself goes before them.
//!
//! Properties of a raw body, or of one event, are in headers `X-Prop-NAME`; in the other forms they belong into the
//! messages. Names of headers do not tell capitals from small letters and arrive small: a capital is written as an
//! escape (`X-Prop-order%49d` is `orderId`). Names and values are percent-encoded, `%` itself as `%25`.

use std::borrow::Cow;

use sabir_json::{Draft, DraftBody, EnvelopeError};
use sabir_model::error::Code;
use sabir_model::message::PRIORITY_MAX;
use sabir_model::stored::Stored;
use sabir_model::text::is_text_type;

use crate::several::several;
use crate::{cloudevents, percent};

/// Most messages of one request: each is a few hundred bytes of memory, be its text as short as `{}`.
pub const MESSAGES_MAX: usize = 100_000;

/// What stands before the name of a property in a header's name.
const PROPERTY: &str = "x-prop-";

/// How a request's body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The body is the message's.
    Raw,
    /// The JSON form of a message, or an array of them.
    Json,
    /// The JSON form of messages, one a line.
    Ndjson,
    /// A CloudEvent in JSON.
    CloudEvent,
    /// An array of CloudEvents in JSON.
    CloudEventBatch,
    /// A CloudEvent whose attributes are headers.
    CloudEventBinary,
}

impl Form {
    /// What the media type says, and whether there is a `ce-specversion` header; `raw` overrules both.
    #[must_use]
    pub fn of(media_type: Option<&str>, cloud_event_headers: bool, raw: bool) -> Self {
        if raw {
            return Self::Raw;
        }
        let essence = essence(media_type.unwrap_or_default()).to_ascii_lowercase();
        match &*essence {
            "application/cloudevents+json" => Self::CloudEvent,
            "application/cloudevents-batch+json" => Self::CloudEventBatch,
            _ if cloud_event_headers => Self::CloudEventBinary,
            "application/json" | "application/vnd.sabir+json" => Self::Json,
            "application/x-ndjson" | "application/ndjson" => Self::Ndjson,
            _ => Self::Raw,
        }
    }
}

/// What a request sends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Incoming<'a> {
    /// The messages, in their order.
    pub drafts: Vec<Draft<'a>>,
    /// Whether they came as several, be it of one or none: then the reply lists what became of each.
    pub is_batch: bool,
}

/// Reads the messages of a request. `params` are the query's, decoded, without those that the server has taken for
/// itself; `headers` are all of the request's.
///
/// # Errors
/// The body is not what its form says ([`Code::InvalidBody`]), with the key and the place where one can be named; a
/// parameter or a header is unknown here or cannot be read ([`Code::InvalidHeader`]), named as the field; there are more
/// than [`MESSAGES_MAX`] messages ([`Code::LimitReached`]). One message that cannot be read refuses them all.
pub fn read<'a>(
    form: Form,
    params: &'a [(String, String)],
    headers: &[(&'a str, &'a str)],
    body: &'a [u8],
) -> Result<Incoming<'a>, EnvelopeError> {
    if !matches!(form, Form::Raw | Form::CloudEventBinary) {
        refuse_encoding(headers)?;
    }
    let defaults = metadata(params)?;
    let (mut drafts, is_batch) = match form {
        Form::Raw => (vec![raw(headers, body)], false),
        Form::Json => {
            check_number(body)?;
            Draft::parse_many(body)?
        }
        Form::Ndjson => (lines(body)?, true),
        Form::CloudEvent => (vec![cloudevents::structured(body)?], false),
        Form::CloudEventBatch => (cloudevents::batch(body)?, true),
        Form::CloudEventBinary => (vec![cloudevents::binary(headers, body)?], false),
    };
    match form {
        Form::Raw | Form::CloudEvent | Form::CloudEventBinary => {
            let properties = properties(headers)?;
            drafts.iter_mut().for_each(|draft| draft.user_properties.extend_from_slice(&properties));
        }
        Form::Json | Form::Ndjson | Form::CloudEventBatch => refuse_properties(headers)?,
    }
    if !params.is_empty() {
        drafts.iter_mut().for_each(|draft| fill(draft, &defaults));
    }
    Ok(Incoming { drafts, is_batch })
}

/// A parameter or header that is wrong.
pub(crate) fn wrong(field: &str, sentence: impl Into<String>) -> EnvelopeError {
    EnvelopeError { field: Some(field.to_owned()), ..EnvelopeError::new(Code::InvalidHeader, sentence) }
}

pub(crate) fn too_many() -> EnvelopeError {
    EnvelopeError::new(Code::LimitReached, format!("at most {MESSAGES_MAX} messages can be sent at once"))
}

/// A media type without its parameters.
pub(crate) fn essence(media_type: &str) -> &str {
    media_type.split_once(';').map_or(media_type, |(essence, _)| essence).trim()
}

/// The value of a header.
pub(crate) fn header<'a>(headers: &[(&'a str, &'a str)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The content encoding, if it is one that changes anything.
pub(crate) fn encoding<'a>(headers: &[(&'a str, &'a str)]) -> Option<&'a str> {
    header(headers, "content-encoding")
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
}

fn refuse_encoding(headers: &[(&str, &str)]) -> Result<(), EnvelopeError> {
    match encoding(headers) {
        None => Ok(()),
        Some(name) => Err(wrong(
            "Content-Encoding",
            format!("a body in {name} cannot be read here; only raw bodies may be encoded"),
        )),
    }
}

/// Messages that can say their properties do so, and so does each of many.
fn refuse_properties(headers: &[(&str, &str)]) -> Result<(), EnvelopeError> {
    match headers.iter().find(|(name, _)| property_name(name).is_some()) {
        None => Ok(()),
        Some((name, _)) => {
            Err(wrong(name, "here properties belong into the message; such headers are for a body by itself"))
        }
    }
}

fn unknown(name: &str) -> EnvelopeError {
    wrong(name, format!("there is no parameter {name:?} here"))
}

fn raw<'a>(headers: &[(&'a str, &'a str)], body: &'a [u8]) -> Draft<'a> {
    let content_type = header(headers, "content-type").filter(|text| !text.is_empty());
    let content_encoding = encoding(headers);
    Draft {
        body: body_of(content_type, content_encoding, body),
        content_type: content_type.map(Cow::Borrowed),
        content_encoding: content_encoding.map(Cow::Borrowed),
        ..Draft::default()
    }
}

/// Text if its type says so and it is: UTF-8, not encoded, of no other charset. Nothing if there is nothing.
pub(crate) fn body_of<'a>(
    content_type: Option<&str>,
    encoding: Option<&str>,
    body: &'a [u8],
) -> DraftBody<'a> {
    if body.is_empty() {
        return DraftBody::None;
    }
    let text = is_text(content_type, encoding);
    match std::str::from_utf8(body) {
        Ok(body) if text => DraftBody::Text(Cow::Borrowed(body)),
        _ => DraftBody::Bytes(Cow::Borrowed(body)),
    }
}

/// A body by itself that is not in memory; `is_utf8` says what was seen as it came. `default` is the type of what has none.
pub fn stored(
    headers: &[(&str, &str)],
    default: Option<&str>,
    body: Stored,
    is_utf8: bool,
) -> DraftBody<'static> {
    let content_type = header(headers, "content-type").filter(|text| !text.is_empty()).or(default);
    let text = is_text(content_type, encoding(headers)) && is_utf8;
    DraftBody::Stored(body, text)
}

fn is_text(content_type: Option<&str>, encoding: Option<&str>) -> bool {
    content_type.is_some_and(|text| is_text_type(text) && is_unicode(text)) && encoding.is_none()
}

/// Whether the type leaves it at UTF-8, or at a part of it.
fn is_unicode(content_type: &str) -> bool {
    content_type.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| value.eq_ignore_ascii_case(known))
        }
        _ => true,
    })
}

/// Refuses an array of too many messages before they are made. Each begins with a brace; only if there are too many of
/// those, it is worth looking closer.
fn check_number(body: &[u8]) -> Result<(), EnvelopeError> {
    let many = || body.iter().filter(|&&byte| byte == b'{').nth(MESSAGES_MAX).is_some();
    if body.trim_ascii_start().first() == Some(&b'[') && many() {
        several(body)?;
    }
    Ok(())
}

fn lines(body: &[u8]) -> Result<Vec<Draft<'_>>, EnvelopeError> {
    let mut drafts = Vec::new();
    for (at, line) in body.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if drafts.len() == MESSAGES_MAX {
            return Err(too_many());
        }
        drafts.push(Draft::parse(line).map_err(|error| in_line(at + 1, error))?);
    }
    Ok(drafts)
}

/// Tells the line of the request instead of the first one of a line.
fn in_line(line: usize, mut error: EnvelopeError) -> EnvelopeError {
    let column = error.place.map_or(1, |(_, column)| column);
    if let Some((sentence, _)) = error.sentence.rsplit_once(" at line 1 column ") {
        error.sentence = format!("{sentence} at line {line} column {column}");
    }
    EnvelopeError { place: Some((line, column)), ..error }
}

/// What query parameters say.
fn metadata(params: &[(String, String)]) -> Result<Draft<'_>, EnvelopeError> {
    let mut draft = Draft::default();
    for (at, (name, value)) in params.iter().enumerate() {
        if params.iter().take(at).any(|(known, _)| known == name) {
            return Err(wrong(name, format!("the parameter {name} is there twice")));
        }
        let text = || Some(Cow::Borrowed(value.as_str()));
        match name.as_str() {
            "correlationId" => draft.correlation_id = text(),
            "groupId" => draft.group_id = text(),
            "replyTo" => draft.reply_to = text(),
            "type" => draft.kind = text(),
            "expiration" => draft.expiration = Some(number(name, value, i64::MAX as u64)?),
            "timestamp" => draft.timestamp = Some(number(name, value, i64::MAX as u64)?),
            "ttl" => draft.ttl_ms = Some(number(name, value, i64::MAX as u64)?),
            "priority" => {
                draft.priority = u8::try_from(number(name, value, PRIORITY_MAX.into())?).ok();
            }
            "groupSeq" => {
                let sequence = value.parse();
                draft.group_sequence =
                    Some(sequence.map_err(|_| wrong(name, "groupSeq must be a whole number of 32 bits"))?);
            }
            "persistent" => draft.persistent = Some(flag(name, value)?),
            "retained" => draft.retained = Some(flag(name, value)?),
            _ => return Err(unknown(name)),
        }
    }
    Ok(draft)
}

/// Sets what a message does not say itself.
fn fill<'a>(draft: &mut Draft<'a>, defaults: &Draft<'a>) {
    fn or<'a>(field: &mut Option<Cow<'a, str>>, default: &Option<Cow<'a, str>>) {
        if field.is_none() {
            field.clone_from(default);
        }
    }
    or(&mut draft.correlation_id, &defaults.correlation_id);
    or(&mut draft.group_id, &defaults.group_id);
    or(&mut draft.reply_to, &defaults.reply_to);
    or(&mut draft.kind, &defaults.kind);
    // Either says when the message ceases to be of use, and the message's own word goes before any of the request's.
    if draft.ttl_ms.is_none() && draft.expiration.is_none() {
        (draft.ttl_ms, draft.expiration) = (defaults.ttl_ms, defaults.expiration);
    }
    draft.timestamp = draft.timestamp.or(defaults.timestamp);
    draft.priority = draft.priority.or(defaults.priority);
    draft.group_sequence = draft.group_sequence.or(defaults.group_sequence);
    draft.persistent = draft.persistent.or(defaults.persistent);
    draft.retained = draft.retained.or(defaults.retained);
}

pub(crate) fn number(name: &str, value: &str, most: u64) -> Result<u64, EnvelopeError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits && number <= most => Ok(number),
        _ => Err(wrong(name, format!("{name} must be a whole number from 0 to {most}"))),
    }
}

fn flag(name: &str, value: &str) -> Result<bool, EnvelopeError> {
    match value {
        "true" | "" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(name, format!("{name} must be true or false"))),
    }
}

/// The name of the property that a header of this name is.
fn property_name(header: &str) -> Option<&str> {
    let (prefix, name) = header.split_at_checked(PROPERTY.len())?;
    prefix.eq_ignore_ascii_case(PROPERTY).then_some(name)
}

/// A property, as name and value.
pub(crate) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The properties that headers give.
pub(crate) fn properties<'a>(headers: &[(&'a str, &'a str)]) -> Result<Vec<Pair<'a>>, EnvelopeError> {
    let mut out = Vec::new();
    for &(header, value) in headers {
        let Some(name) = property_name(header) else { continue };
        match (unescaped(name), unescaped(value.trim())) {
            (Some(name), Some(value)) if !name.is_empty() => out.push((name, value)),
            (Some(_), Some(_)) => {
                return Err(wrong(header, "X-Prop- needs the name of a property behind it"));
            }
            _ => {
                let sentence = format!(
                    "{header}: names and values are percent-encoded UTF-8; a % itself is written %25"
                );
                return Err(wrong(header, sentence));
            }
        }
    }
    Ok(out)
}

fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    match text.contains('%') {
        false => Some(Cow::Borrowed(text)),
        true => percent::decode(text, false).map(Cow::Owned),
    }
}
