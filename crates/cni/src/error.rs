//! What the runtime is told when something can't be done (CNI specification 1.1, section 5, "Error").

use std::fmt;

use api::cni::Failure;
use serde_json::{Value, json};

/// A refusal: code, a line that says what is wrong, and what to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CniError {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) details: String,
}

impl CniError {
    pub(crate) fn new(code: u32, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            details: String::new(),
        }
    }

    /// Adds what to look at.
    pub(crate) fn details(mut self, details: impl fmt::Display) -> Self {
        self.details = details.to_string();
        self
    }

    /// The specification's JSON. It belongs on stdout: the text says stderr, but `libcni` parses stdout.
    pub(crate) fn to_json(&self, cni_version: &str) -> Value {
        let mut error =
            json!({ "cniVersion": cni_version, "code": self.code, "msg": self.message });
        if !self.details.is_empty() {
            error["details"] = self.details.as_str().into();
        }
        error
    }
}

impl From<Failure> for CniError {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code,
            message: failure.message,
            details: failure.details,
        }
    }
}
