//! How BGP's sockets are set up.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bgp::config::Reach;
use bgp::speaker::Transport;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{md5, sys};

/// Thousands of peers may dial at once, and a SYN that finds the queue full backs off for seconds.
const BACKLOG: i32 = 4096;
/// Class selector 6, "internetwork control", as the octet of the IP header (RFC 2474 §4.2.2).
const DSCP_CS6: u32 = 0xc0;
/// The TTL that nobody can exceed (RFC 5082 §3).
const MAX_TTL: u8 = 255;

/// A listening socket.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The SYN-ACK leaves from here, and a peer with TTL security looks at it too.
    set_ttl(&socket, address.ip(), MAX_TTL)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Begins to connect; the socket is writable when that is done.
pub(crate) fn connect(remote: SocketAddr, transport: &Transport) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if let Some(local) = transport.local_address {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    set_up(&socket, remote.ip(), transport)?;
    match socket.connect(&remote.into()) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Sets the options of a connection with this peer, made or not.
pub(crate) fn set_up(socket: &Socket, peer: IpAddr, transport: &Transport) -> io::Result<()> {
    if let Some(password) = &transport.password {
        md5::set_key(socket, peer, Some(password))?;
    }
    socket.set_tcp_nodelay(true)?;
    if !transport.user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(transport.user_timeout))?;
    }
    match peer {
        IpAddr::V4(_) => socket.set_tos_v4(DSCP_CS6)?,
        IpAddr::V6(_) => socket.set_tclass_v6(DSCP_CS6)?,
    }
    match transport.reach {
        Reach::Hops(hops) => set_ttl(socket, peer, hops.max(1)),
        Reach::Gtsm(hops) => {
            set_ttl(socket, peer, MAX_TTL)?;
            let least = MAX_TTL - hops.max(1) + 1;
            match peer {
                IpAddr::V4(_) => sys::set_min_ttl(socket, least),
                IpAddr::V6(_) => sys::set_min_hop_count(socket, least),
            }
        }
    }
}

fn set_ttl(socket: &Socket, peer: IpAddr, ttl: u8) -> io::Result<()> {
    match peer {
        IpAddr::V4(_) => socket.set_ttl_v4(ttl.into()),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(ttl.into()),
    }
}
