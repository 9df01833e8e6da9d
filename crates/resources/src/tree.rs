//! YAML as a tree that remembers its lines, and the way from it to typed objects.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_saphyr::Spanned;

use crate::fault::Fault;

/// A value and the line it starts on.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) line: u32,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(Key, Tree)>),
}

/// A mapping's key and its line.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) line: u32,
    pub(crate) name: String,
}

impl Tree {
    /// The value under a key of this mapping.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.entry(name).map(|(_, tree)| tree)
    }

    /// The keys of this mapping.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        let entries = self.entries().unwrap_or_default();
        entries.iter().map(|(key, _)| key)
    }

    /// The text under a key of this mapping.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let Value::Text(text) = &self.child(name)?.value else {
            return None;
        };
        Some(text)
    }

    /// The line of the deepest part of `path` that exists.
    pub(crate) fn line_of(&self, path: &[String]) -> u32 {
        let mut line = self.line;
        let mut here = self;
        for segment in path {
            let index = segment
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let next = match (
                &here.value,
                index.and_then(|index| index.parse::<usize>().ok()),
            ) {
                (Value::List(items), Some(index)) => items.get(index).map(|tree| (tree.line, tree)),
                _ => here.entry(segment).map(|(key, tree)| (key.line, tree)),
            };
            let Some((found, tree)) = next else { break };
            (line, here) = (found, tree);
        }
        line
    }

    fn entry(&self, name: &str) -> Option<(&Key, &Self)> {
        let (key, tree) = self.entries()?.iter().find(|(key, _)| key.name == name)?;
        Some((key, tree))
    }

    fn entries(&self) -> Option<&[(Key, Self)]> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        Some(entries)
    }
}

/// What comes over the API has no lines.
impl From<&serde_json::Value> for Tree {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Value::Unsigned(number),
                (None, Some(number)) => Value::Signed(number),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from).collect()),
            Json::Object(fields) => {
                let entry = |(name, value): (&String, &Json)| {
                    let (line, name) = (0, name.clone());
                    (Key { line, name }, Self::from(value))
                };
                Value::Map(fields.iter().map(entry).collect())
            }
        };
        Self { line: 0, value }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            line: line(&spanned),
            value: spanned.value,
        })
    }
}

fn line<T>(spanned: &Spanned<T>) -> u32 {
    u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let key = Key {
                line: line(&key),
                name: key.value,
            };
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

/// The tree as serde's input: errors come out with path and line.
impl<'de> Deserializer<'de> for &Tree {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Entries {
                entries: entries.iter(),
                value: None,
            }),
        };
        result.map_err(|fault| fault.on_line(self.line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if matches!(self.value, Value::Null) {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Text(text) = &self.value else {
            let fault: Fault =
                de::Error::custom(format!("expected one of {}", variants.join(", ")));
            return Err(fault.on_line(self.line));
        };
        let name: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
        visitor
            .visit_enum(name)
            .map_err(|fault| fault.on_line(self.line))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Tree>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, tree)) = self.items.next() else {
            return Ok(None);
        };
        seed.deserialize(tree)
            .map(Some)
            .map_err(|fault| fault.inside(&format!("[{index}]"), tree.line))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, (Key, Tree)>,
    value: Option<&'a (Key, Tree)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Fault> = key.name.as_str().into_deserializer();
        seed.deserialize(name)
            .map(Some)
            .map_err(|fault| fault.inside(&key.name, key.line))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, tree)) = self.value.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        seed.deserialize(tree)
            .map_err(|fault| fault.inside(&key.name, key.line))
    }
}
