//! What has no safe wrapper anywhere: socket options that no crate knows, and a descriptor's registration with the
//! runtime.
#![expect(
    unsafe_code,
    reason = "setsockopt with options that neither socket2 nor rustix know; AsyncFd::register"
)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime watch a descriptor for reading. Must be called inside a runtime.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open file until it is dropped, always the same; the `AsyncFd` owns it, and takes it
    // out of the runtime before that.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(Into::into)
}

/// Drops what arrives with a lower TTL (IP_MINTTL, ip(7); RFC 5082).
pub(crate) fn set_min_ttl(socket: impl AsFd, ttl: u8) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_MINTTL, ttl.into())
}

/// Drops what arrives with a lower hop limit (IPV6_MINHOPCOUNT, linux/in6.h; RFC 5082).
pub(crate) fn set_min_hop_count(socket: impl AsFd, hops: u8) -> io::Result<()> {
    set_int(
        socket,
        libc::IPPROTO_IPV6,
        libc::IPV6_MINHOPCOUNT,
        hops.into(),
    )
}

fn set_int(socket: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `len` octets of `value`, which outlives
    // the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
