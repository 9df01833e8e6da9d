//! What TCP's segments are signed with.

use std::fmt;
use std::sync::Arc;

/// The longest key that the kernel takes, in octets (TCP_MD5SIG_MAXKEYLEN, linux/tcp.h).
const MAX_LEN: usize = 80;

/// A password for TCP-MD5 (RFC 2385): 1 to 80 octets that never show in a log or a dump.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<[u8]>);

/// Octets that can't be a [`Password`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// None at all: a key that is no key.
    #[error("the password is empty")]
    Empty,
    /// More than the kernel takes.
    #[error("the password has {0} octets; at most {MAX_LEN} are possible")]
    TooLong(usize),
}

impl Password {
    /// A password of these octets.
    ///
    /// # Errors
    ///
    /// Where there are none, or more than 80.
    pub fn new(octets: impl AsRef<[u8]>) -> Result<Self, PasswordError> {
        match octets.as_ref() {
            [] => Err(PasswordError::Empty),
            octets if octets.len() > MAX_LEN => Err(PasswordError::TooLong(octets.len())),
            octets => Ok(Self(octets.into())),
        }
    }

    /// The octets, for the socket.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing_and_has_its_bounds() {
        let password = Password::new("tor-a's secret").unwrap();
        let config = crate::config::PeerConfig {
            password: Some(password.clone()),
            ..crate::config::PeerConfig::new(65001)
        };
        assert!(!format!("{password:?} {config:#?}").contains("secret"));
        assert_eq!(Password::new(""), Err(PasswordError::Empty));
        assert!(Password::new([7; 80]).is_ok());
        assert_eq!(Password::new([7; 81]), Err(PasswordError::TooLong(81)));
    }
}
