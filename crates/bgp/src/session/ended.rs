//! Why a session or an attempt at one ended.

use std::fmt;

use bgp_wire::Notification;

/// Who found the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// We told the peer by NOTIFICATION.
    Sent,
    /// The peer told us by NOTIFICATION.
    Received,
    /// Nobody told anybody: TCP failed, or ended.
    Local,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Local => "local",
        })
    }
}

/// Why a session, or an attempt at one, ended. Its `Display` is one line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Who found the reason.
    pub direction: Direction,
    /// The NOTIFICATION, where there was one.
    pub notification: Option<Notification>,
    /// What is known beyond the NOTIFICATION; may be empty.
    pub detail: String,
}

impl Ended {
    pub(crate) fn sent(notification: Notification, detail: impl Into<String>) -> Self {
        Self {
            direction: Direction::Sent,
            notification: Some(notification),
            detail: detail.into(),
        }
    }

    pub(crate) fn received(notification: Notification) -> Self {
        Self {
            direction: Direction::Received,
            notification: Some(notification),
            detail: String::new(),
        }
    }

    pub(crate) fn local(detail: impl Into<String>) -> Self {
        Self {
            direction: Direction::Local,
            notification: None,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.notification, self.detail.as_str()) {
            (Some(notification), "") => write!(f, "{} {notification}", self.direction),
            (Some(notification), detail) => {
                write!(f, "{} {notification} ({detail})", self.direction)
            }
            (None, detail) => f.write_str(detail),
        }
    }
}
