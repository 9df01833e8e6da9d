//! Values that a node's label chooses: a table in the place of an object for each rack.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// A table: which value a node has is said by its label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ByLabel<T> {
    /// The label's name.
    pub label: String,
    /// What each of its values stands for.
    pub values: BTreeMap<String, T>,
}

impl<T> ByLabel<T> {
    /// The row of a node with these labels.
    #[must_use]
    pub fn get(&self, labels: &BTreeMap<String, String>) -> Option<&T> {
        self.values.get(labels.get(&self.label)?)
    }

    pub(crate) fn validate(&self, field: &str, faults: &mut Vec<Fault>) {
        if self.label.is_empty() {
            let message = "empty: write the name of a Node's label, as in `rack`";
            faults.push(Fault::at(&format!("{field}.label"), message));
        }
        if self.values.is_empty() {
            let message = "is empty: write a row for each value that the label has";
            faults.push(Fault::at(&format!("{field}.values"), message));
        }
    }
}
