//! What we use of Kubernetes' `v1` Namespace: its labels, which a pool's `namespaceSelector` looks at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Metadata;

/// The label that Kubernetes gives every namespace: its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace. Kubernetes owns this kind, so fields that we don't know are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Name and labels.
    pub metadata: Metadata,
}

impl Namespace {
    /// Its labels, [`NAME_LABEL`] among them.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = Self::labels_of_unknown(&self.metadata.name);
        labels.extend(self.metadata.labels.clone());
        labels
    }

    /// What is sure of a namespace of which nothing but the name is known.
    #[must_use]
    pub fn labels_of_unknown(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(NAME_LABEL.to_owned(), name.to_owned())])
    }
}
