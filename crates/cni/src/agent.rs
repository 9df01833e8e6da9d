//! Asking the agent: one message each way over a `SOCK_SEQPACKET` socket.

use std::fmt;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use api::cni::{MAX_MESSAGE, Request, Response};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody listens, or nobody takes what is said: the agent has not seen the request.
    NotThere(Errno),
    /// The agent went away, or fell silent, after it had got the request.
    Broken(&'static str),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere(Errno::NOENT) => formatter.write_str("no socket is there"),
            Self::NotThere(Errno::CONNREFUSED) => formatter.write_str("nobody listens"),
            Self::NotThere(errno) => write!(formatter, "{errno}"),
            Self::Broken(how) => formatter.write_str(how),
        }
    }
}

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(clock() + timeout)
    }

    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(clock())
    }

    pub(crate) fn is_over(self) -> bool {
        self.remaining().is_zero()
    }

    /// What is left, for a socket: zero would mean for ever there.
    fn timeout(self) -> Option<Duration> {
        Some(self.remaining().max(Duration::from_millis(1)))
    }

    /// Lets `pause` go by, or what is left.
    pub(crate) fn pause(self, pause: Duration) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the agent's socket appears when it appears: nothing to wait on"
        )]
        std::thread::sleep(pause.min(self.remaining()));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: a process that lives for one request"
)]
fn clock() -> Instant {
    Instant::now()
}

/// Asks once.
pub(crate) fn ask(
    socket: &Path,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
    deadline: Deadline,
) -> Result<Response, NoAnswer> {
    let connection = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(NoAnswer::NotThere)?;
    // The timeout for sending holds for `connect` too, which waits while the agent's backlog is full.
    set_socket_timeout(&connection, Timeout::Send, deadline.timeout())
        .map_err(NoAnswer::NotThere)?;
    let address = SocketAddrUnix::new(socket).map_err(NoAnswer::NotThere)?;
    rustix::net::connect(&connection, &address).map_err(NoAnswer::NotThere)?;
    set_socket_timeout(&connection, Timeout::Send, deadline.timeout())
        .map_err(NoAnswer::NotThere)?;

    let text =
        serde_json::to_vec(request).map_err(|_| NoAnswer::Broken("the request has no JSON"))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(
        &connection,
        &[IoSlice::new(&text)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .map_err(NoAnswer::NotThere)?;

    set_socket_timeout(&connection, Timeout::Recv, deadline.timeout())
        .map_err(NoAnswer::NotThere)?;
    let mut reply = vec![0; MAX_MESSAGE];
    let length = loop {
        match rustix::net::recv(&connection, &mut reply[..], RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(NoAnswer::Broken("it did not answer in time")),
            Err(_) | Ok((0, _)) => return Err(NoAnswer::Broken("it went away without an answer")),
            Ok((length, _)) => break length,
        }
    };
    serde_json::from_slice(&reply[..length])
        .map_err(|_| NoAnswer::Broken("its answer can't be read: is it of another version?"))
}
