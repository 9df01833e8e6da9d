//! What went wrong between us and the API server, in words.

use std::time::Duration;

use kube::Error;
use tokio::time::timeout;

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There was no answer.
    Unreachable(String),
    /// The answer was no.
    Refused {
        /// HTTP's status.
        code: u16,
        /// The API server's words.
        message: String,
    },
}

impl Fault {
    /// What an error of the client's stands for.
    #[must_use]
    pub fn new(error: &Error) -> Self {
        if let Error::Api(status) = error {
            // 5xx and "too many requests" are an API server that is starting, stopping or overloaded.
            return match status.code {
                429 | 500..=599 => Self::Unreachable(status.message.clone()),
                code => Self::Refused {
                    code,
                    message: status.message.clone(),
                },
            };
        }
        Self::Unreachable(innermost(error))
    }

    /// What is to be done about a refusal.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        let Self::Refused { code, .. } = self else {
            return None;
        };
        Some(match code {
            401 => "the service account's token is not accepted",
            403 => "a rule for margayd's service account is missing: the chart has them all",
            404 => "the API server has no such kind: install the chart's CustomResourceDefinitions",
            _ => "this is not in force",
        })
    }

    /// In words.
    #[must_use]
    pub fn message(&self) -> &str {
        let (Self::Unreachable(message) | Self::Refused { message, .. }) = self;
        message
    }

    /// The watch's place in the API server's history is forgotten (HTTP 410).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { code: 410, .. })
    }
}

/// What a request comes to, if it does so within `patience`.
pub(crate) async fn within<T>(
    patience: Duration,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Fault> {
    match timeout(patience, request).await {
        Ok(answer) => answer.map_err(|error| Fault::new(&error)),
        Err(_) => Err(Fault::Unreachable(format!(
            "no answer after {} s",
            patience.as_secs()
        ))),
    }
}

/// The last cause says most: `Connection refused`, and not that a service had an error.
fn innermost(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.to_string() {
        text if text.is_empty() => error.to_string(),
        text => text,
    }
}
