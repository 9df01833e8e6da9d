//! TCP-MD5 (RFC 2385): keys on sockets, and what the kernel drops for their sake.

use std::fmt;
use std::io;
use std::net::IpAddr;

use bgp::config::Password;
use ipnet::IpNet;
use socket2::Socket;

use crate::sys;

/// The kernel's counters of this thread's network namespace.
const NETSTAT: &str = "/proc/thread-self/net/netstat";

/// Segments that the kernel has dropped in this network namespace, whoever sent them. It says no more of them: neither end
/// of a session whose keys differ ever hears of the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Md5Drops {
    /// Signed with another password (TCPMD5Failure).
    pub wrong: u64,
    /// Without a signature where one is wanted (TCPMD5NotFound).
    pub unsigned: u64,
    /// Signed where no password is set (TCPMD5Unexpected).
    pub unexpected: u64,
}

impl Md5Drops {
    /// The counters as they are now.
    ///
    /// # Errors
    ///
    /// Where they can't be read, or are not there.
    pub(crate) fn read() -> io::Result<Self> {
        let text = std::fs::read_to_string(NETSTAT)?;
        Self::parse(&text).ok_or_else(|| io::Error::other("no TCP-MD5 counters"))
    }

    /// Lines in pairs: names, then values.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let value = |wanted: &str| {
            let mut pairs = names.split_whitespace().zip(values.split_whitespace());
            pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
        };
        Some(Self {
            wrong: value("TCPMD5Failure")?,
            unsigned: value("TCPMD5NotFound")?,
            unexpected: value("TCPMD5Unexpected")?,
        })
    }

    /// What came since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            wrong: self.wrong.saturating_sub(before.wrong),
            unsigned: self.unsigned.saturating_sub(before.unsigned),
            unexpected: self.unexpected.saturating_sub(before.unexpected),
        }
    }

    /// Nothing was dropped.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Md5Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wrong,
            unsigned,
            unexpected,
        } = self;
        write!(
            f,
            "{wrong} segments with another password, {unsigned} without signature, {unexpected} signed without need"
        )
    }
}

/// Sets or removes the key for peers on a listening socket. One of another family has nothing to do with them.
pub(crate) fn set_listener_key(
    listener: &Socket,
    peers: IpNet,
    password: Option<&Password>,
) -> io::Result<()> {
    let local = listener.local_addr()?;
    if local.is_ipv4() != peers.addr().is_ipv4() {
        return Ok(());
    }
    let len = (peers.prefix_len() < peers.max_prefix_len()).then(|| peers.prefix_len());
    set(listener, peers.addr(), len, password)
}

/// Sets or removes the key on a connection's socket.
pub(crate) fn set_key(
    socket: &Socket,
    peer: IpAddr,
    password: Option<&Password>,
) -> io::Result<()> {
    set(socket, peer, None, password)
}

fn set(
    socket: &Socket,
    peers: IpAddr,
    len: Option<u8>,
    password: Option<&Password>,
) -> io::Result<()> {
    let key = password.map_or(&[][..], Password::octets);
    match sys::set_md5_key(socket, peers, len, key) {
        // There was none to remove.
        Err(error) if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure\n\
                    TcpExt: 9 1 2 3\nIpExt: InNoRoutes\nIpExt: 4\n";
        let drops = Md5Drops::parse(text).unwrap();
        assert_eq!((drops.unsigned, drops.unexpected, drops.wrong), (1, 2, 3));
        assert_eq!(Md5Drops::parse("TcpExt: A B\nTcpExt: 1 2\n"), None);
        assert_eq!(Md5Drops::parse(""), None);
        assert!(drops.since(drops).is_empty());
    }

    #[test]
    fn this_kernel_has_them() {
        Md5Drops::read().expect("the counters are there");
    }
}
