//! What can go wrong between us and the kernel.

use rustix::io::Errno;

/// A failed netlink request, or a failed socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused this request.
    #[error("{}{}", text(*errno), message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Kernel {
        /// Its error number.
        errno: Errno,
        /// Its own words (`NLMSGERR_ATTR_MSG`), where it had some.
        message: Option<Box<str>>,
    },
    /// A system call on the socket failed, so nothing is known about the request beyond earlier replies.
    #[error("netlink {call}: {}", text(*errno))]
    Socket {
        /// Which call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// The kernel's replies did not fit the receive buffer (`ENOBUFS`): what became of the request is unknown.
    #[error("the kernel's reply was lost: the receive buffer was full")]
    LostReply,
    /// No reply came in time. The socket may be out of step: open another.
    #[error("no reply from the kernel in time")]
    Timeout,
    /// A dump was interrupted by changes again and again (`NLM_F_DUMP_INTR`).
    #[error("the dump was interrupted by changes {0} times")]
    Interrupted(u32),
    /// The kernel said something that is not netlink as we know it.
    #[error("malformed message from the kernel: {0}")]
    Malformed(&'static str),
    /// No such link.
    #[error("no link {0}")]
    NoLink(String),
    /// The descriptor is no `NETLINK_ROUTE` socket.
    #[error("not a NETLINK_ROUTE socket")]
    NotNetlink,
}

impl Error {
    /// The kernel's error number for the request, where it answered.
    pub fn kernel_errno(&self) -> Option<Errno> {
        if let Self::Kernel { errno, .. } = self {
            Some(*errno)
        } else {
            None
        }
    }
}

/// The C library's words for an error number, without Rust's "(os error N)".
fn text(errno: Errno) -> String {
    let mut text = std::io::Error::from(errno).to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_a_sentence() {
        let error = Error::Kernel {
            errno: Errno::INVAL,
            message: Some("Nexthop has invalid gateway".into()),
        };
        assert_eq!(
            error.to_string(),
            "Invalid argument (Nexthop has invalid gateway)"
        );
        let error = Error::Socket {
            call: "send",
            errno: Errno::PERM,
        };
        assert_eq!(error.to_string(), "netlink send: Operation not permitted");
    }
}
