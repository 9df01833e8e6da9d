//! Ping.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::packet::{EchoRequest, Incoming, Kind};
use crate::{Namespace, wait};

/// `IPPROTO_RAW`: the IPv4 header is ours (`raw(7)`).
const HEADER_INCLUDED: i32 = 255;

/// Tells pingers apart, also those in one namespace.
static NEXT_IDENT: AtomicU16 = AtomicU16::new(1);

/// Sends echo requests from a namespace and sees what comes back.
#[derive(Debug)]
pub struct Pinger {
    out: Socket,
    back: Socket,
    ident: u16,
    sequence: u16,
}

/// What an echo request looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Hops it may take.
    pub ttl: u8,
    /// Length of the whole packet in octets.
    pub length: u16,
    /// Routers must not fragment it.
    pub dont_fragment: bool,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            ttl: 64,
            length: 84,
            dont_fragment: false,
        }
    }
}

/// What became of an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It was answered.
    Answer {
        /// Who answered.
        from: Ipv4Addr,
        /// TTL that the answer had left.
        ttl: u8,
        /// Round-trip time.
        rtt: Duration,
    },
    /// Its TTL ended at this router.
    TimeExceeded {
        /// The router.
        from: Ipv4Addr,
    },
    /// It does not fit a link behind this router (RFC 1191).
    TooBig {
        /// The router, or we ourselves.
        from: Ipv4Addr,
        /// That link's MTU, 0 where it was our own.
        mtu: u16,
    },
    /// Somebody, or our own kernel, knows no way there.
    Unreachable {
        /// Who says so, 0.0.0.0 for our own kernel.
        from: Ipv4Addr,
        /// ICMP code (RFC 792), or the `errno` of our own kernel's.
        code: i32,
    },
    /// Nothing came back in time.
    Nothing,
}

impl Reply {
    /// It was answered.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.ttl().is_some()
    }

    /// TTL that the answer had left, if it was answered.
    #[must_use]
    pub fn ttl(&self) -> Option<u8> {
        match self {
            Self::Answer { ttl, .. } => Some(*ttl),
            Self::TimeExceeded { .. }
            | Self::TooBig { .. }
            | Self::Unreachable { .. }
            | Self::Nothing => None,
        }
    }
}

impl Pinger {
    /// A pinger in `namespace`.
    ///
    /// # Errors
    /// When the kernel refuses raw sockets.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        namespace.run(|| {
            let raw = |protocol| {
                Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).context("open a raw socket")
            };
            let back = raw(Protocol::ICMPV4)?;
            back.set_nonblocking(true)?;
            Ok(Self {
                out: raw(Protocol::from(HEADER_INCLUDED))?,
                back,
                ident: NEXT_IDENT.fetch_add(1, Ordering::Relaxed),
                sequence: 0,
            })
        })
    }

    /// Sends one request and waits up to `limit` for what becomes of it.
    ///
    /// # Errors
    /// When a socket fails in a way that says nothing about the network.
    pub fn ping(&mut self, to: Ipv4Addr, echo: Echo, limit: Duration) -> Result<Reply> {
        self.sequence = self.sequence.wrapping_add(1);
        let sent = wait::now();
        if let Some(refused) = self.send(to, self.sequence, echo)? {
            return Ok(refused);
        }
        while let Some(incoming) = self.receive(sent + limit)? {
            if incoming.sequence == self.sequence {
                return Ok(reply(&incoming, sent));
            }
        }
        Ok(Reply::Nothing)
    }

    /// Pings until it is answered.
    ///
    /// # Errors
    /// When that has not happened after `limit`: with the last thing that did.
    pub fn wait_answer(&mut self, to: Ipv4Addr, limit: Duration) -> Result<Reply> {
        wait::until(&format!("{to} to answer"), limit, || {
            let reply = self.ping(to, Echo::default(), Duration::from_millis(300))?;
            if reply.answered() {
                Ok(reply)
            } else {
                anyhow::bail!("{to}: {reply:?}")
            }
        })
    }

    /// Sends a request; gives a reply at once where our own kernel has nowhere to send it.
    pub(super) fn send(&self, to: Ipv4Addr, sequence: u16, echo: Echo) -> Result<Option<Reply>> {
        let packet = EchoRequest {
            to,
            ttl: echo.ttl,
            ident: self.ident,
            sequence,
            length: echo.length,
            dont_fragment: echo.dont_fragment,
        }
        .encode();
        let from = Ipv4Addr::UNSPECIFIED;
        match self.out.send_to(&packet, &SocketAddrV4::new(to, 0).into()) {
            Ok(_) => Ok(None),
            Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::MSGSIZE) => Ok(Some(Reply::TooBig { from, mtu: 0 })),
                Some(
                    errno @ (Errno::NETUNREACH
                    | Errno::HOSTUNREACH
                    | Errno::INVAL
                    | Errno::NETDOWN
                    | Errno::NOBUFS),
                ) => Ok(Some(Reply::Unreachable {
                    from,
                    code: errno.raw_os_error(),
                })),
                _ => Err(error).with_context(|| format!("send an echo request to {to}")),
            },
        }
    }

    /// The next packet that answers a request of ours, or nothing by `deadline`.
    pub(super) fn receive(&self, deadline: Instant) -> Result<Option<Incoming>> {
        let mut buffer = [0; 2048];
        loop {
            match (&self.back).read(&mut buffer) {
                Ok(length) => {
                    let incoming = Incoming::decode(&buffer[..length]);
                    if let Some(incoming) = incoming.filter(|it| it.ident == self.ident) {
                        return Ok(Some(incoming));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(wait::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let left = Timespec::try_from(left)?;
                    poll(
                        &mut [PollFd::from_borrowed_fd(self.back.as_fd(), PollFlags::IN)],
                        Some(&left),
                    )?;
                }
                Err(error) => return Err(error).context("read a raw socket"),
            }
        }
    }
}

fn reply(incoming: &Incoming, sent: Instant) -> Reply {
    let from = incoming.from;
    match incoming.kind {
        Kind::EchoReply => Reply::Answer {
            from,
            ttl: incoming.ttl,
            rtt: sent.elapsed(),
        },
        Kind::TimeExceeded => Reply::TimeExceeded { from },
        Kind::FragmentationNeeded(mtu) => Reply::TooBig { from, mtu },
        Kind::Unreachable(code) => Reply::Unreachable {
            from,
            code: code.into(),
        },
    }
}
