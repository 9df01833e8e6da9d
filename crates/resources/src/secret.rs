//! What we use of Kubernetes' `v1` Secret: passwords of peers. Kubernetes owns this kind, so fields that we don't know are
//! passed over. Values show nowhere, neither in a dump nor in what is said of a fault.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Metadata;
use crate::fault::Fault;

/// A Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Name, labels, annotations.
    pub metadata: Metadata,
    /// Values in base64.
    #[serde(default)]
    data: BTreeMap<String, Text>,
    /// Values as they are; they win over those of `data`.
    #[serde(default)]
    string_data: BTreeMap<String, Text>,
}

/// A text that shows nowhere.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
struct Text(String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Secret {
    /// The value of a key, in octets.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        match self.string_data.get(key) {
            Some(Text(text)) => Some(text.clone().into_bytes()),
            None => BASE64_STANDARD.decode(self.data.get(key)?.0.trim()).ok(),
        }
    }

    /// Its keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.data.keys().chain(self.string_data.keys());
        keys.map(String::as_str)
    }

    /// With its values: they show here and nowhere else.
    pub(crate) fn document(&self) -> serde_json::Value {
        let plain = |values: &BTreeMap<String, Text>| -> BTreeMap<String, String> {
            let values = values.iter();
            values
                .map(|(key, Text(text))| (key.clone(), text.clone()))
                .collect()
        };
        serde_json::json!({
            "metadata": self.metadata,
            "data": plain(&self.data),
            "stringData": plain(&self.string_data),
        })
    }

    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        for (key, Text(text)) in &self.data {
            if BASE64_STANDARD.decode(text.trim()).is_err() {
                let message = "not base64: values as they are go into `stringData`";
                faults.push(Fault::at(&format!("data.{key}"), message));
            }
        }
    }
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordSource {
    /// In a Secret.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The Secret's name.
    pub name: String,
    /// The key inside it.
    pub key: String,
}

impl PasswordSource {
    pub(crate) fn validate(&self, field: &str, faults: &mut Vec<Fault>) {
        let SecretKeyRef { name, key } = &self.secret_key_ref;
        for (what, value) in [("name", name), ("key", key)] {
            if value.is_empty() {
                faults.push(Fault::at(
                    &format!("{field}.secretKeyRef.{what}"),
                    format!("empty: write the Secret's {what}"),
                ));
            }
        }
    }
}
