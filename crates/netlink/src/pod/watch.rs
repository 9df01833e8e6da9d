//! Learning that a link is gone, however it went: a DEL, a namespace that died, somebody's hand.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dataplane::LinkIndex;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SocketFlags};

use crate::socket::{from_kernel, grow_receive_buffer, open, socket_error};
use crate::{Error, frame};

/// `RTMGRP_LINK`: the multicast group of link events, as a bit.
const LINK_EVENTS: u32 = 1;
/// Some thousand events.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;

/// What has become of links since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// Links that are gone from this namespace.
    pub links: Vec<LinkIndex>,
    /// Events were lost: only a dump can tell what is gone.
    pub overrun: bool,
}

/// A non-blocking socket that hears of links that go.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Watch {
    /// Watches the calling thread's network namespace. What goes from now on is heard of, so a dump that is taken later
    /// misses nothing.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        let fd = open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        grow_receive_buffer(&fd, RECEIVE_BUFFER);
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, LINK_EVENTS))
            .map_err(|errno| socket_error("bind", errno))?;
        Ok(Self {
            fd,
            buffer: vec![0; 32 * 1024],
        })
    }

    /// Reads all that waits, without blocking.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn read(&mut self) -> Result<Gone, Error> {
        let mut gone = Gone::default();
        loop {
            match rustix::net::recvfrom(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length, Some(from))) if from_kernel(&from) => {
                    gone.links.extend(
                        frame::frames(&self.buffer[..length]).filter_map(|frame| gone_link(&frame)),
                    );
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(gone),
                Err(Errno::NOBUFS) => gone.overrun = true,
                Err(errno) => return Err(socket_error("receive", errno)),
            }
        }
    }
}

/// The link of an `RTM_DELLINK` (`struct ifinfomsg`). Another family than `AF_UNSPEC` means a bridge port that is a plain
/// link again.
fn gone_link(frame: &frame::Frame<'_>) -> Option<LinkIndex> {
    let header: &[u8; 16] = frame.payload.first_chunk()?;
    let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    (frame.kind == libc::RTM_DELLINK && i32::from(header[0]) == libc::AF_UNSPEC).then_some(index)
}
