//! The kernel's events.
//!
//! What the kernel tells and what it keeps to itself:
//!
//! - It does not tell that IPv4 routes are gone when their link goes down or away, nor when the address goes that they have as
//!   preferred source: [`dataplane::Impact::flushed`] says when that may be so, and only a dump shows. It does tell for IPv6.
//! - A replacement is told as a new route with `NLM_F_REPLACE`; whose route it took the place of is not told.
//! - Nexthop objects go with their link's carrier, groups with their last member, and IPv4 routes with their group; nothing is
//!   told of it: [`dataplane::Impact::lost_carrier`] says when that may be so.
//! - A change of an IPv6 multipath route is told with all its next hops, a deletion only with those that are gone.
//! - Events carry the port of the socket that caused them. Those of our own sockets are left out where the reply has told us
//!   already: an old event could contradict a newer reply.
//! - When the receive buffer is full, events are lost and the kernel says so (`ENOBUFS`): then only a dump helps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dataplane::{Event, ObjectEvent, ROUTE_PROTOCOL, RouteAction, RouteEvent};
use netlink_packet_core::NLM_F_REPLACE;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SocketFlags};

use socket2::{SockFilter, SockRef};

use crate::frame::{self, Frame};
use crate::nexthop::{RTM_DELNEXTHOP, RTM_NEWNEXTHOP};
use crate::socket::{self, socket_error};
use crate::{Error, decode, nexthop};

/// `RTNLGRP_NEXTHOP`.
const RTNLGRP_NEXTHOP: u32 = 32;
/// Links, neighbours, IPv4 and IPv6 addresses and routes, nexthop objects (`RTMGRP_*`; bit n-1 for `RTNLGRP_*` n).
const GROUPS: u32 = (1 << (libc::RTNLGRP_LINK - 1))
    | (1 << (libc::RTNLGRP_NEIGH - 1))
    | (1 << (libc::RTNLGRP_IPV4_IFADDR - 1))
    | (1 << (libc::RTNLGRP_IPV4_ROUTE - 1))
    | (1 << (libc::RTNLGRP_IPV6_IFADDR - 1))
    | (1 << (libc::RTNLGRP_IPV6_ROUTE - 1))
    | (1 << (RTNLGRP_NEXTHOP - 1));
/// Room for some ten thousand events while our owner is busy.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
/// Datagrams per [`Monitor::read`]: bounded work per turn.
const DATAGRAMS: usize = 1024;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Events {
    /// Changes, in order; none when there is nothing to read.
    Changes(Vec<Event>),
    /// Events were lost: dump all.
    Overrun,
}

/// A socket that hears of changes in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Monitor {
    fd: OwnedFd,
    own: Vec<u32>,
    buffer: Vec<u8>,
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Monitor {
    /// Starts to listen in the calling thread's network namespace. Open it before the first dump, so that nothing falls
    /// between. `own` are the ports ([`Socket::port`](crate::Socket::port)) of the sockets whose route and neighbour changes the
    /// reader knows by their replies.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open(own: &[u32]) -> Result<Self, Error> {
        let fd = socket::open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        socket::grow_receive_buffer(&fd, RECEIVE_BUFFER);
        let groups = SocketAddrNetlink::new(0, GROUPS);
        rustix::net::bind(&fd, &groups).map_err(|errno| socket_error("bind", errno))?;
        let mut monitor = Self {
            fd,
            own: Vec::new(),
            buffer: vec![0; 64 * 1024],
        };
        monitor.set_own(own);
        Ok(monitor)
    }

    /// Says anew which sockets are ours.
    pub fn set_own(&mut self, own: &[u32]) {
        self.own = own.to_vec();
        // Best effort: what gets through is left out when it is read.
        SockRef::from(&self.fd)
            .attach_filter(&own_changes(own))
            .ok();
    }

    /// Reads what there is, up to a bound; never waits. After a full read, the descriptor stays readable.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn read(&mut self) -> Result<Events, Error> {
        let mut events = Vec::new();
        for _ in 0..DATAGRAMS {
            match rustix::net::recvfrom(&self.fd, &mut *self.buffer, RecvFlags::TRUNC) {
                Ok((_, length, Some(from))) if socket::from_kernel(&from) => {
                    if length > self.buffer.len() {
                        self.buffer.resize(length.next_power_of_two(), 0);
                        return self.overrun();
                    }
                    let frames = frame::frames(&self.buffer[..length]);
                    events.extend(frames.filter_map(|frame| event(&frame, &self.own)));
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::NOBUFS) => return self.overrun(),
                Err(errno) => return Err(socket_error("receive", errno)),
            }
        }
        Ok(Events::Changes(events))
    }

    /// Throws away what came before the loss: the dump that follows is newer.
    fn overrun(&mut self) -> Result<Events, Error> {
        loop {
            match rustix::net::recv(&self.fd, &mut *self.buffer, RecvFlags::empty()) {
                Ok(_) | Err(Errno::INTR | Errno::NOBUFS) => {}
                Err(Errno::AGAIN) => return Ok(Events::Overrun),
                Err(errno) => return Err(socket_error("receive", errno)),
            }
        }
    }
}

/// A packet filter that spares us the copies of our own changes, so that a hundred thousand routes of ours leave room for
/// the events that matter (`linux/filter.h`; it reads in network byte order what netlink writes in the machine's).
#[expect(
    clippy::cast_possible_truncation,
    reason = "operation codes are below 256"
)]
fn own_changes(own: &[u32]) -> Vec<SockFilter> {
    const KIND: u32 = 4;
    const PORT: u32 = 12;
    let load =
        |width: u32, at| SockFilter::new((libc::BPF_LD | width | libc::BPF_ABS) as u16, 0, 0, at);
    let jump = |value, then, otherwise| {
        SockFilter::new(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            then,
            otherwise,
            value,
        )
    };
    let answer = |octets| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, octets);
    let kinds = [
        libc::RTM_NEWROUTE,
        libc::RTM_DELROUTE,
        libc::RTM_NEWNEIGH,
        libc::RTM_DELNEIGH,
        RTM_NEWNEXTHOP,
        RTM_DELNEXTHOP,
    ];
    let mut program = vec![load(libc::BPF_H, KIND)];
    for (kind, left) in kinds.into_iter().zip((1u8..=6).rev()) {
        program.push(jump(u32::from(kind.to_be()), left, 0));
    }
    program.extend([answer(u32::MAX), load(libc::BPF_W, PORT)]);
    for port in own {
        program.extend([jump(port.to_be(), 0, 1), answer(0)]);
    }
    program.push(answer(u32::MAX));
    program
}

/// The event that a message tells of, if it matters to us.
fn event(frame: &Frame<'_>, own: &[u32]) -> Option<Event> {
    let ours = || own.contains(&frame.port);
    match frame.kind {
        libc::RTM_NEWLINK => decode::link(frame.payload).map(Event::Link),
        libc::RTM_DELLINK => decode::link(frame.payload).map(|link| Event::LinkRemoved(link.index)),
        libc::RTM_NEWADDR => {
            decode::address(frame.payload).map(|(link, address)| Event::AddressAdded(link, address))
        }
        libc::RTM_DELADDR => decode::address(frame.payload)
            .map(|(link, address)| Event::AddressRemoved(link, address)),
        libc::RTM_NEWROUTE if !ours() => {
            let replaced = frame.flags & NLM_F_REPLACE != 0;
            route(
                frame,
                if replaced {
                    RouteAction::Replaced
                } else {
                    RouteAction::Added
                },
            )
        }
        libc::RTM_DELROUTE if !ours() => route(frame, RouteAction::Removed),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH if !ours() => {
            let entry = decode::neighbour(frame.payload)
                .filter(|entry| entry.protocol == ROUTE_PROTOCOL)?;
            let permanent = entry.permanent.filter(|_| frame.kind == libc::RTM_NEWNEIGH);
            Some(Event::Neighbour(entry.key, permanent))
        }
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP if !ours() => {
            let told =
                nexthop::object(frame.payload).filter(|it| dataplane::nexthop::is_our_id(it.id))?;
            Some(Event::Object(ObjectEvent {
                id: told.id,
                protocol: told.protocol,
                removed: frame.kind == RTM_DELNEXTHOP,
                object: told.object,
            }))
        }
        _ => None,
    }
}

fn route(frame: &Frame<'_>, action: RouteAction) -> Option<Event> {
    // The kernel's own table: an address of ours, not a route.
    let route = decode::route(frame.payload)
        .filter(|route| route.key.table != u32::from(libc::RT_TABLE_LOCAL))?;
    Some(Event::Route(RouteEvent {
        key: route.key,
        protocol: route.protocol,
        action,
        route: route.fib(),
    }))
}
