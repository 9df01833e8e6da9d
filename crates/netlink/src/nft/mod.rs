//! Our nftables table, written and watched over netlink: no program is called.
//!
//! | module | what |
//! | --- | --- |
//! | `ruleset` | from [`Firewall`] to messages |
//! | `expression` | the expressions that rules are made of |
//! | `forward` | a place for pods' packets in an iptables FORWARD chain that drops |
//! | `encode` | batches, messages, attributes as octets |
//! | `channel` | the socket |
//!
//! The table is `inet margay`. It is replaced whole in one transaction, so no packet ever meets half of it, and nobody has to
//! find out what a predecessor left.

mod channel;
mod encode;
mod expression;
mod forward;
mod ruleset;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dataplane::Firewall;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SocketFlags};

use crate::Error;
use crate::frame;
use crate::socket::{from_kernel, grow_receive_buffer, socket_error};
use channel::{Channel, Object};
pub use forward::Forward;

/// The name of our table.
pub const TABLE: &str = "margay";

/// `NFNLGRP_NFTABLES` as a bit of a socket's groups.
const GROUP: u32 = 1 << (7 - 1);
/// Room for what somebody who loads ten thousand rules causes.
const EVENT_BUFFER: usize = 4 << 20;

/// `NFT_MSG_*`.
mod message {
    pub(super) const NEW_TABLE: u8 = 0;
    pub(super) const GET_TABLE: u8 = 1;
    pub(super) const DELETE_TABLE: u8 = 2;
    pub(super) const NEW_CHAIN: u8 = 3;
    pub(super) const GET_CHAIN: u8 = 4;
    pub(super) const DELETE_CHAIN: u8 = 5;
    pub(super) const NEW_RULE: u8 = 6;
    pub(super) const GET_RULE: u8 = 7;
    pub(super) const DELETE_RULE: u8 = 8;
    pub(super) const NEW_SET: u8 = 9;
    pub(super) const NEW_ELEMENTS: u8 = 12;
}

/// What became of the tables since they were last written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disturbed {
    /// Somebody changed ours.
    pub ours: bool,
    /// Somebody changed iptables' filter table, in which we may have a chain.
    pub forward: bool,
}

/// nftables in the network namespace in which it was opened. Readable, for `poll(2)`, when somebody has changed something.
#[derive(Debug)]
pub struct Nft {
    requests: Channel,
    events: OwnedFd,
    buffer: Vec<u8>,
    /// How many chains and sets our table had when it was written last (`NFTA_TABLE_USE`).
    written: Option<u32>,
}

impl AsFd for Nft {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Nft {
    /// Opens the sockets.
    ///
    /// # Errors
    /// [`Error::Socket`]: `EPROTONOSUPPORT` where the kernel has no nfnetlink.
    pub fn open() -> Result<Self, Error> {
        let events = channel::open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        grow_receive_buffer(&events, EVENT_BUFFER);
        rustix::net::bind(&events, &SocketAddrNetlink::new(0, GROUP))
            .map_err(|errno| socket_error("bind", errno))?;
        Ok(Self {
            requests: Channel::open()?,
            events,
            buffer: vec![0; 64 * 1024],
            written: None,
        })
    }

    /// Puts our table into the place of whatever it is now.
    ///
    /// # Errors
    /// The kernel's refusal: then the table is as before. `EOPNOTSUPP` or `ENOENT` where the kernel lacks an expression.
    pub fn apply(&mut self, firewall: &Firewall) -> Result<(), Error> {
        self.requests
            .transact(|batch| ruleset::table(batch, firewall))?;
        self.written = self.uses()?;
        Ok(())
    }

    /// Whether our table has as many chains and sets as when it was written last: for an occasional look, beside the events.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn is_whole(&mut self) -> Result<bool, Error> {
        Ok(self.uses()? == self.written)
    }

    /// Whether there is a table of our name.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn is_there(&mut self) -> Result<bool, Error> {
        Ok(self.uses()?.is_some())
    }

    fn uses(&mut self) -> Result<Option<u32>, Error> {
        let mut uses = None;
        self.requests.dump(
            message::GET_TABLE,
            ruleset::INET,
            |_| {},
            |table| {
                if table.text(1) == Some(TABLE) {
                    uses = table.number(3);
                }
            },
        )?;
        Ok(uses)
    }

    /// Lets pods' packets through iptables' FORWARD chains where their policy is to drop, and says where that is so. Without
    /// `pod_interfaces`, or where the policy accepts, nothing of ours is in there.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn forward(&mut self, pod_interfaces: &str) -> Result<Vec<Forward>, Error> {
        forward::settle(&mut self.requests, pod_interfaces)
    }

    /// Takes away all that is ours.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.forward("")?;
        self.apply(&Firewall::default())
    }

    /// Reads what others did to the tables since the last time; never waits.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn disturbed(&mut self) -> Result<Disturbed, Error> {
        let mut disturbed = Disturbed::default();
        loop {
            match rustix::net::recvfrom(&self.events, &mut *self.buffer, RecvFlags::TRUNC) {
                Ok((_, length, Some(from))) if from_kernel(&from) => {
                    let datagram = self.buffer.get(..length);
                    let frames = datagram.into_iter().flat_map(frame::frames);
                    for frame in frames.filter(|frame| frame.port != self.requests.port) {
                        let Some(object) = Object::of(&frame) else {
                            continue;
                        };
                        let table = object.text(1);
                        disturbed.ours |= object.family == ruleset::INET && table == Some(TABLE);
                        disturbed.forward |= forward::concerns(object.family, table);
                    }
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(disturbed),
                Err(Errno::NOBUFS) => {
                    // What was lost may have been about us.
                    disturbed = Disturbed {
                        ours: true,
                        forward: true,
                    };
                }
                Err(errno) => return Err(socket_error("receive", errno)),
            }
        }
    }
}
