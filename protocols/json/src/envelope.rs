//! The JSON form of a message on its way in: a flat object with the message's fields, its properties and its body.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use sabir_model::base64;
use sabir_model::clock::Timestamp;
use sabir_model::command::{Publish, TargetKey};
use sabir_model::destination::Targets;
use sabir_model::error::Code;
use sabir_model::headers::Value;
use sabir_model::message::{Body, BodyKind, Facts, FieldsWriter, PRIORITY_DEFAULT, PRIORITY_MAX, Tag};
use sabir_model::stored::Stored;
use sabir_model::text::shown_octets;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::address;
use crate::error::EnvelopeError;
use crate::value::{VALUES_MAX, ValueSeed};

/// A body as it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DraftBody<'a> {
    /// None.
    #[default]
    None,
    /// Text.
    Text(Cow<'a, str>),
    /// Octets.
    Bytes(Cow<'a, [u8]>),
    /// An object, in the encoding of [`Value`].
    Map(Vec<u8>),
    /// An array, in the encoding of [`Value`].
    List(Vec<u8>),
    /// What is not in memory: text if so said, else octets.
    Stored(Stored, bool),
}

/// A message on its way in, parsed and not yet anybody's. Absent fields take the defaults of the protocol: persistent,
/// priority 4, no expiration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft<'a> {
    /// Where it goes: `queue://NAME`, `topic://NAME`, or several separated by commas.
    pub destination: Option<Cow<'a, str>>,
    /// Where a reply should go: a qualified destination, or any text, which is echoed.
    pub reply_to: Option<Cow<'a, str>>,
    /// Correlation id; octets as `base64:…`.
    pub correlation_id: Option<Cow<'a, str>>,
    /// Type or subject.
    pub kind: Option<Cow<'a, str>>,
    /// Content type.
    pub content_type: Option<Cow<'a, str>>,
    /// Content encoding.
    pub content_encoding: Option<Cow<'a, str>>,
    /// The sender's own id of the message.
    pub sender_id: Option<Cow<'a, str>>,
    /// Whether it must survive a restart.
    pub persistent: Option<bool>,
    /// 0 to 9.
    pub priority: Option<u8>,
    /// Milliseconds it is of use.
    pub ttl_ms: Option<u64>,
    /// When it ceases to be of use, in milliseconds since 1970; `ttl_ms` goes before it.
    pub expiration: Option<u64>,
    /// When it was sent, in milliseconds since 1970.
    pub timestamp: Option<u64>,
    /// Whether its topic should keep it as the last value.
    pub retained: Option<bool>,
    /// Message group.
    pub group_id: Option<Cow<'a, str>>,
    /// Sequence within the group.
    pub group_sequence: Option<i32>,
    /// Properties, in their order.
    pub properties: Vec<(Cow<'a, str>, Value)>,
    /// Properties as pairs of text, duplicates allowed; they replace those of the same names above.
    pub user_properties: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The body.
    pub body: DraftBody<'a>,
}

/// What a reader tells of the place where it stopped, and what it may still take.
pub(crate) struct Place {
    field: RefCell<Option<String>>,
    /// Values that may still come.
    left: Cell<usize>,
}

impl Default for Place {
    fn default() -> Self {
        Self { field: RefCell::default(), left: Cell::new(VALUES_MAX) }
    }
}

impl Place {
    /// Any value, out of what is left.
    pub(crate) fn value(&self) -> ValueSeed<'_> {
        ValueSeed::new(&self.left)
    }

    /// The key at which reading stopped, taken out.
    pub(crate) fn take_field(&self) -> Option<String> {
        self.field.take()
    }

    /// Reading stopped at this key, unless it was at one inside of it.
    pub(crate) fn stopped_at(&self, key: &str) {
        self.field.borrow_mut().get_or_insert_with(|| key.to_owned());
    }
}

/// Keys as they were read.
pub(crate) type Keys<'a> = SmallVec<[Cow<'a, str>; 16]>;

impl<'a> Draft<'a> {
    /// Reads one message.
    ///
    /// # Errors
    /// It is no JSON object, has a key that there is not, twice, or of the wrong type.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let place = Place::default();
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let seed = DraftSeed { place: &place, extra: &mut NothingMore };
        let draft = seed.deserialize(&mut deserializer);
        let draft = draft.and_then(|draft| deserializer.end().map(|()| draft));
        draft.map_err(|error| EnvelopeError::json(&error, place.take_field()))
    }

    /// Reads a message or an array of them; tells whether it was an array.
    ///
    /// # Errors
    /// Those of [`Draft::parse`].
    pub fn parse_many(bytes: &'a [u8]) -> Result<(Vec<Self>, bool), EnvelopeError> {
        if bytes.trim_ascii_start().first() != Some(&b'[') {
            return Ok((vec![Self::parse(bytes)?], false));
        }
        let place = Place::default();
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let drafts = deserializer.deserialize_seq(ManyVisitor { place: &place });
        let drafts = drafts.and_then(|drafts| deserializer.end().map(|()| drafts));
        drafts.map(|drafts| (drafts, true)).map_err(|error| EnvelopeError::json(&error, place.take_field()))
    }

    /// What the broker is told. `fields` is scratch space, cleared by the caller.
    ///
    /// # Errors
    /// A field asks for what there is not.
    pub fn publish<'b>(
        &'b self,
        targets: &'b Targets,
        key: TargetKey,
        now: Timestamp,
        fields: &'b mut FieldsWriter,
    ) -> Result<Publish<'b>, EnvelopeError> {
        let mut text = |tag, value: &Option<Cow<'_, str>>| {
            if let Some(value) = value {
                fields.field(tag, value.as_bytes());
            }
        };
        text(Tag::Type, &self.kind);
        text(Tag::ContentType, &self.content_type);
        text(Tag::ContentEncoding, &self.content_encoding);
        text(Tag::GroupId, &self.group_id);
        text(Tag::SenderMessageId, &self.sender_id);
        if let Some(sequence) = self.group_sequence {
            fields.group_sequence(sequence);
        }
        if let Some(reply_to) = &self.reply_to {
            match address::reply_to(reply_to) {
                Some(destination) => {
                    let destination = destination.map_err(|refusal| EnvelopeError {
                        field: Some("replyTo".into()),
                        ..refusal.into()
                    })?;
                    fields.destination(Tag::ReplyTo, &destination);
                }
                None => fields.field(Tag::ReplyToText, reply_to.as_bytes()),
            }
        }
        if let Some(id) = &self.correlation_id {
            match shown_octets(id) {
                Some(bytes) => fields.field(Tag::CorrelationBytes, &bytes),
                None => fields.field(Tag::CorrelationText, id.as_bytes()),
            }
        }
        self.write_properties(fields)?;
        let expires = match (self.ttl_ms, self.expiration) {
            (Some(0), _) | (None, None | Some(0)) => Timestamp::NEVER,
            (Some(ttl), _) => Timestamp(now.0.saturating_add(ttl)),
            (None, Some(at)) => Timestamp(at),
        };
        let (body_kind, body) = match &self.body {
            DraftBody::None => (BodyKind::None, Body::Borrowed(&[])),
            DraftBody::Text(text) => (BodyKind::Text, Body::Borrowed(text.as_bytes())),
            DraftBody::Bytes(bytes) => (BodyKind::Bytes, Body::Borrowed(bytes)),
            DraftBody::Map(encoded) => (BodyKind::Map, Body::Borrowed(encoded)),
            DraftBody::List(encoded) => (BodyKind::List, Body::Borrowed(encoded)),
            DraftBody::Stored(stored, true) => (BodyKind::Text, Body::Stored(stored.clone())),
            DraftBody::Stored(stored, false) => (BodyKind::Bytes, Body::Stored(stored.clone())),
        };
        let facts = Facts {
            timestamp: Timestamp(self.timestamp.unwrap_or(0)),
            expires,
            priority: self.priority.unwrap_or(PRIORITY_DEFAULT).min(PRIORITY_MAX),
            persistent: self.persistent.unwrap_or(true),
            retain: self.retained.unwrap_or(false),
            body_kind,
            ..Facts::default()
        };
        Ok(Publish { targets, key, facts, fields: fields.as_slice(), body, transaction: None, once: None })
    }

    fn write_properties(&self, fields: &mut FieldsWriter) -> Result<(), EnvelopeError> {
        let mut encoded = Vec::new();
        for (name, value) in &self.properties {
            check_property(name)?;
            if self.user_properties.iter().any(|(other, _)| other == name) {
                continue;
            }
            match value.as_scalar() {
                Some(scalar) => fields.property(name, &scalar),
                None => {
                    encoded.clear();
                    value.encode(&mut encoded);
                    fields.property(name, &sabir_model::headers::ValueRef::Nested(&encoded));
                }
            }
        }
        for (name, value) in &self.user_properties {
            check_property(name)?;
            fields.text_property(name, value);
        }
        Ok(())
    }
}

/// Names that mean something to the broker and are not built, and names that no protocol could carry.
fn check_property(name: &str) -> Result<(), EnvelopeError> {
    if matches!(
        name,
        "AMQ_SCHEDULED_DELAY" | "AMQ_SCHEDULED_PERIOD" | "AMQ_SCHEDULED_REPEAT" | "AMQ_SCHEDULED_CRON"
    ) {
        return Err(EnvelopeError {
            field: Some(name.to_owned()),
            ..EnvelopeError::new(Code::Unsupported, format!("{name}: scheduled delivery is not built yet"))
        });
    }
    if name.is_empty() || name.contains('\0') || name.len() > 32 * 1024 {
        let sentence = "a property's name is text of 1 to 32768 bytes, without NUL";
        return Err(EnvelopeError::of("properties", sentence));
    }
    Ok(())
}

/// What else an object holds that is a message too.
pub(crate) trait Extra<'de> {
    /// Takes the value of a key that no message has; tells whether it knows the key.
    fn take<A: MapAccess<'de>>(
        &mut self,
        key: &str,
        entries: &mut A,
        place: &Place,
    ) -> Result<bool, A::Error>;

    /// All keys that there were.
    fn keys(&mut self, _keys: Keys<'de>) {}
}

/// A message by itself has no other keys.
pub(crate) struct NothingMore;

impl<'de> Extra<'de> for NothingMore {
    fn take<A: MapAccess<'de>>(&mut self, _: &str, _: &mut A, _: &Place) -> Result<bool, A::Error> {
        Ok(false)
    }
}

/// Keys of a message that only the broker writes.
const BROKERS_OWN: &[&str] = &["id", "userId", "originalDestination", "redelivered", "deliveryCount"];

/// Reads a message; keys that are not its own go to `extra`.
pub(crate) struct DraftSeed<'p, 'x, E> {
    pub(crate) place: &'p Place,
    pub(crate) extra: &'x mut E,
}

impl<'de, E: Extra<'de>> DeserializeSeed<'de> for DraftSeed<'_, '_, E> {
    type Value = Draft<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Draft<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// Text, borrowed where JSON has it without escapes.
pub(crate) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// The body: text, an object, an array or null.
struct BodySeed<'p>(&'p Place);

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = DraftBody<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = DraftBody<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an object, an array or null as the body")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(DraftBody::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(DraftBody::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(DraftBody::None)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        let value = self.0.value().visit_map(entries)?;
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        match value {
            Value::Map(_) => Ok(DraftBody::Map(encoded)),
            Value::Bytes(bytes) => Ok(DraftBody::Bytes(Cow::Owned(bytes.to_vec()))),
            Value::String(text) => Ok(DraftBody::Text(Cow::Owned(text.into()))),
            _ => Err(de::Error::custom("a body is a string, an object, an array or null")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        let value = self.0.value().visit_seq(items)?;
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        Ok(DraftBody::List(encoded))
    }
}

/// An object whose keys are names of properties.
struct Properties<'p>(&'p Place);

impl<'de> DeserializeSeed<'de> for Properties<'_> {
    type Value = Vec<(Cow<'de, str>, Value)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Properties<'_> {
    type Value = Vec<(Cow<'de, str>, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut properties: Self::Value = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = entries.next_key_seed(Text)? {
            let name = name.unwrap_or_default();
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format_args!("the property {name:?} is there twice")));
            }
            properties.push((name, entries.next_value_seed(self.0.value())?));
        }
        Ok(properties)
    }
}

pub(crate) fn whole<E: de::Error>(
    name: &str,
    value: &Value,
    least: i64,
    most: i64,
) -> Result<Option<i64>, E> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::I32(number) => Some(i64::from(*number)),
        Value::I64(number) => Some(*number),
        Value::F64(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
        _ => None,
    };
    match number.filter(|number| (least..=most).contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(E::custom(format_args!("{name} must be a whole number from {least} to {most}"))),
    }
}

pub(crate) fn truth<E: de::Error>(name: &str, value: &Value) -> Result<Option<bool>, E> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(*value)),
        _ => Err(E::custom(format_args!("{name} must be true or false"))),
    }
}

/// Names and values in their order.
type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

fn pairs<'de, E: de::Error>(value: Value) -> Result<Pairs<'de>, E> {
    let wrong = || E::custom("userProperties must be an array of [name, value] pairs of strings");
    let items = match value {
        Value::List(items) => items,
        Value::Null => Vec::new(),
        _ => return Err(wrong()),
    };
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        let Value::List(pair) = item else { return Err(wrong()) };
        let [Value::String(name), Value::String(value)] = &pair[..] else { return Err(wrong()) };
        out.push((Cow::Owned(name.to_string()), Cow::Owned(value.to_string())));
    }
    Ok(out)
}

impl<'de, X: Extra<'de>> Visitor<'de> for DraftSeed<'_, '_, X> {
    type Value = Draft<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Draft<'de>, A::Error> {
        let Self { place, extra } = self;
        let mut draft = Draft::default();
        // Bounded by the keys there are: an unknown one ends the reading.
        let mut seen = Keys::new();
        while let Some(key) = entries.next_key_seed(Text)? {
            let key = key.unwrap_or_default();
            let result = if seen.contains(&key) {
                Err(de::Error::custom(format_args!("the key {key:?} is there twice")))
            } else {
                draft.member(&key, &mut entries, place, extra)
            };
            result.inspect_err(|_| place.stopped_at(&key))?;
            seen.push(key);
        }
        if seen.contains(&Cow::Borrowed("body")) && seen.contains(&Cow::Borrowed("bodyBase64")) {
            place.stopped_at("bodyBase64");
            return Err(de::Error::custom("body and bodyBase64 exclude each other"));
        }
        extra.keys(seen);
        Ok(draft)
    }
}

impl<'de> Draft<'de> {
    /// Reads the value of one key.
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: &str,
        entries: &mut A,
        place: &Place,
        extra: &mut impl Extra<'de>,
    ) -> Result<(), A::Error> {
        match key {
            "destination" => self.destination = entries.next_value_seed(Text)?,
            "replyTo" => self.reply_to = entries.next_value_seed(Text)?,
            "correlationId" => self.correlation_id = entries.next_value_seed(Text)?,
            "type" => self.kind = entries.next_value_seed(Text)?,
            "contentType" => self.content_type = entries.next_value_seed(Text)?,
            "contentEncoding" => self.content_encoding = entries.next_value_seed(Text)?,
            "groupId" => self.group_id = entries.next_value_seed(Text)?,
            "persistent" => self.persistent = truth(key, &entries.next_value_seed(place.value())?)?,
            "retained" => self.retained = truth(key, &entries.next_value_seed(place.value())?)?,
            "priority" => {
                let value = entries.next_value_seed(place.value())?;
                let number = whole(key, &value, 0, i64::from(PRIORITY_MAX))?;
                self.priority = number.and_then(|number| u8::try_from(number).ok());
            }
            "ttl" => self.ttl_ms = natural(key, &entries.next_value_seed(place.value())?)?,
            "expiration" => self.expiration = natural(key, &entries.next_value_seed(place.value())?)?,
            "timestamp" => self.timestamp = natural(key, &entries.next_value_seed(place.value())?)?,
            "groupSeq" => {
                let value = entries.next_value_seed(place.value())?;
                let number = whole(key, &value, i64::from(i32::MIN), i64::from(i32::MAX))?;
                self.group_sequence = number.and_then(|number| i32::try_from(number).ok());
            }
            "properties" => self.properties = entries.next_value_seed(Properties(place))?,
            "userProperties" => self.user_properties = pairs(entries.next_value_seed(place.value())?)?,
            "body" => self.body = entries.next_value_seed(BodySeed(place))?,
            "bodyBase64" => {
                if let Some(text) = entries.next_value_seed(Text)? {
                    let bytes = base64::decode(text.as_bytes());
                    let bytes = bytes.ok_or_else(|| de::Error::custom("bodyBase64 is no base64"))?;
                    self.body = DraftBody::Bytes(Cow::Owned(bytes));
                }
            }
            other if extra.take(other, entries, place)? => {}
            other if BROKERS_OWN.contains(&other) => {
                return Err(de::Error::custom(format_args!(
                    "{other} is written by the broker: leave it out"
                )));
            }
            other => {
                return Err(de::Error::custom(format_args!("there is no key {other:?} in a message")));
            }
        }
        Ok(())
    }
}

/// A number of milliseconds.
fn natural<E: de::Error>(name: &str, value: &Value) -> Result<Option<u64>, E> {
    Ok(whole(name, value, 0, i64::MAX)?.and_then(|number| u64::try_from(number).ok()))
}

struct ManyVisitor<'p> {
    place: &'p Place,
}

impl<'de> Visitor<'de> for ManyVisitor<'_> {
    type Value = Vec<Draft<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut drafts = Vec::new();
        while let Some(draft) =
            items.next_element_seed(DraftSeed { place: self.place, extra: &mut NothingMore })?
        {
            drafts.push(draft);
        }
        Ok(drafts)
    }
}
