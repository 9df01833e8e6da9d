//! A blocking `NETLINK_NETFILTER` socket.

use std::os::fd::OwnedFd;

use netlink_packet_core::NLM_F_DUMP;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::encode::{Attributes, Batch, kind, message};
use crate::frame::{self, Frame};
use crate::socket::{from_kernel, grow_receive_buffer, local_port, socket_error, wait};
use crate::{Error, sys};

/// A whole table is one datagram; five thousand nodes take 250 KiB.
const SEND_BUFFER: usize = 4 << 20;
/// Room for a refusal of each of a table's messages.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel fills at most 32 KiB for a dump, unless a single message is longer.
const DATAGRAM: usize = 64 * 1024;
/// `struct nfgenmsg`.
const GENERIC_HEADER: usize = 4;

/// A socket for requests.
#[derive(Debug)]
pub(super) struct Channel {
    fd: OwnedFd,
    pub(super) port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What an object or an event is about: the family, and attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) family: u8,
    octets: &'a [u8],
}

impl<'a> Object<'a> {
    pub(super) fn of(frame: &Frame<'a>) -> Option<Self> {
        Some(Self {
            family: *frame.payload.first()?,
            octets: frame.payload.get(GENERIC_HEADER..)?,
        })
    }

    /// The value of an attribute.
    pub(super) fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        let mut all = frame::attributes(self.octets);
        all.find(|(other, _)| *other == kind)
            .map(|(_, value)| value)
    }

    /// An attribute that is text.
    pub(super) fn text(&self, kind: u16) -> Option<&'a str> {
        let octets = self.attribute(kind)?;
        std::str::from_utf8(octets.strip_suffix(b"\0").unwrap_or(octets)).ok()
    }

    /// An attribute that is a number of four octets.
    pub(super) fn number(&self, kind: u16) -> Option<u32> {
        let octets = self.attribute(kind)?.first_chunk()?;
        Some(u32::from_be_bytes(*octets))
    }
}

/// A new socket for netfilter's netlink.
pub(super) fn open(flags: SocketFlags) -> Result<OwnedFd, Error> {
    rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(NETFILTER),
    )
    .map_err(|errno| socket_error("socket", errno))
}

impl Channel {
    pub(super) fn open() -> Result<Self, Error> {
        use std::os::fd::AsFd as _;

        let fd = open(SocketFlags::CLOEXEC)?;
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            sys::enable_netlink_option(fd.as_fd(), option)
                .map_err(|errno| socket_error("setsockopt", errno))?;
        }
        grow_receive_buffer(&fd, RECEIVE_BUFFER);
        if sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER / 2).is_err() {
            sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER / 2).ok();
        }
        let port = local_port(&fd)?;
        Ok(Self {
            fd,
            port,
            sequence: 0,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Carries out what `fill` puts into a batch, all or nothing.
    ///
    /// # Errors
    /// The kernel's first refusal, or the socket's failure.
    pub(super) fn transact(&mut self, fill: impl FnOnce(&mut Batch)) -> Result<(), Error> {
        let first = self.sequence;
        let mut batch = Batch::new(first);
        fill(&mut batch);
        let (octets, acknowledged) = batch.finish();
        self.sequence = acknowledged.wrapping_add(1);
        self.send(&octets)?;
        loop {
            let length = self.receive()?;
            for frame in frame::frames(&self.buffer[..length]) {
                // What is still there of a batch that was refused earlier.
                if frame.kind != frame::NLMSG_ERROR
                    || frame.sequence.wrapping_sub(first) > acknowledged.wrapping_sub(first)
                {
                    continue;
                }
                frame::acknowledgement(&frame)?;
                if frame.sequence == acknowledged {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for all objects of a kind; `body` narrows that down.
    ///
    /// # Errors
    /// The kernel's refusal, or the socket's failure.
    pub(super) fn dump(
        &mut self,
        message_kind: u8,
        family: u8,
        body: impl FnOnce(&mut Attributes<'_>),
        mut each: impl FnMut(Object<'_>),
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut octets = Vec::new();
        let (request, sequence) = (kind(message_kind), self.sequence);
        message(&mut octets, request, family, NLM_F_DUMP, 0, sequence, body);
        self.send(&octets)?;
        loop {
            let length = self.receive()?;
            for frame in
                frame::frames(&self.buffer[..length]).filter(|frame| frame.sequence == sequence)
            {
                match frame.kind {
                    frame::NLMSG_DONE => return Ok(()),
                    frame::NLMSG_ERROR => return frame::acknowledgement(&frame),
                    _ => Object::of(&frame).into_iter().for_each(&mut each),
                }
            }
        }
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), Error> {
        let kernel = SocketAddrNetlink::new(0, 0);
        loop {
            match rustix::net::sendto(&self.fd, octets, SendFlags::empty(), &kernel) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.fd, PollFlags::OUT)?,
                Err(errno) => return Err(socket_error("send", errno)),
            }
        }
    }

    /// One datagram of the kernel's, into the buffer.
    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match rustix::net::recvfrom(&self.fd, &mut *self.buffer, flags) {
                Ok((_, length, Some(from))) if from_kernel(&from) => {
                    if length > self.buffer.len() {
                        self.buffer.resize(length.next_power_of_two(), 0);
                        return Err(Error::Malformed("a message longer than the buffer"));
                    }
                    return Ok(length);
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.fd, PollFlags::IN)?,
                Err(Errno::NOBUFS) => return Err(Error::LostReply),
                Err(errno) => return Err(socket_error("receive", errno)),
            }
        }
    }
}
