//! Property values from JSON. Numbers take the smallest type of the model that holds them, from 32 bits up; where the exact
//! type matters it is written out: `{"$type":"i64","value":"9007199254740993"}`, and octets as `{"$bin":"…"}`.

use std::fmt;

use sabir_model::base64;
use sabir_model::headers::{FloatText, NESTING_MAX, Value, parse_float};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Reads any JSON as a value, so deep and no deeper.
#[derive(Clone, Copy)]
pub(crate) struct ValueSeed {
    levels: usize,
}

impl ValueSeed {
    pub(crate) fn new() -> Self {
        Self { levels: NESTING_MAX }
    }

    fn inner<E: de::Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels }),
            None => Err(E::custom(format_args!("nested deeper than {NESTING_MAX} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(i32::try_from(value).map_or(Value::I64(value), Value::I32))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => i32::try_from(value).map_or(Value::I64(value), Value::I32),
            Err(_) => Value::F64(value as f64),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::F64(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map: Vec<(Box<str>, Value)> = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            map.push((key.into(), entries.next_value_seed(inner)?));
        }
        exact(&map).map_or(Ok(Value::Map(map)), |exact| {
            exact.ok_or_else(|| {
                de::Error::custom("$type and value do not fit: the types are i8, i16, i32, i64, f32, f64, bool, string, null")
            })
        })
    }
}

/// The value of an exact form; `None` if it is a plain map, `Some(None)` if it is a broken one.
fn exact(map: &[(Box<str>, Value)]) -> Option<Option<Value>> {
    match map {
        [(key, Value::String(text))] if &**key == "$bin" => {
            Some(base64::decode(text.as_bytes()).map(|bytes| Value::Bytes(bytes.into())))
        }
        [(first, Value::String(kind)), (second, value)] if &**first == "$type" && &**second == "value" => {
            Some(typed(kind, value))
        }
        [(second, value), (first, Value::String(kind))] if &**first == "$type" && &**second == "value" => {
            Some(typed(kind, value))
        }
        _ => None,
    }
}

fn typed(kind: &str, value: &Value) -> Option<Value> {
    let text = match value {
        Value::String(text) => text.to_string(),
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::F64(number) => FloatText(*number).to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        _ => return None,
    };
    Some(match kind {
        "i8" => Value::I8(text.parse().ok()?),
        "i16" => Value::I16(text.parse().ok()?),
        "i32" => Value::I32(text.parse().ok()?),
        "i64" => Value::I64(text.parse().ok()?),
        "f32" => Value::F32(parse_float(&text)? as f32),
        "f64" => Value::F64(parse_float(&text)?),
        "bool" => Value::Bool(text.parse().ok()?),
        "string" => Value::String(text.into()),
        "null" => Value::Null,
        _ => return None,
    })
}
