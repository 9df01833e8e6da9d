//! A value that is written as text, and parsed when it is read.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// A value that is written as text: read with `FromStr`, whose error says what would be right, and written with `Display`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Written<T>(pub T);

impl<T> Deref for Written<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Display> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|error: T::Err| {
            let message = error.to_string();
            match message.contains(text.as_str()) {
                true => de::Error::custom(message),
                false => de::Error::custom(format!("`{text}`: {message}")),
            }
        })
    }
}
