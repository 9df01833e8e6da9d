//! What has no safe wrapper anywhere: socket options that no crate knows, and a descriptor's registration with the
//! runtime.
#![expect(
    unsafe_code,
    reason = "setsockopt with options that neither socket2 nor rustix know; AsyncFd::register"
)]

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::{SockAddr, SockAddrStorage};
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

/// The longest key (linux/tcp.h).
const TCP_MD5SIG_MAXKEYLEN: usize = 80;
/// `tcpm_prefixlen` counts (linux/tcp.h).
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: SockAddrStorage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: c_int,
    key: [u8; TCP_MD5SIG_MAXKEYLEN],
}

/// No padding anywhere: the kernel checks the length.
const _: () = assert!(size_of::<TcpMd5Sig>() == 216);

/// Signs segments from and to the peers of a prefix with a key, or no longer where that is empty (TCP_MD5SIG_EXT,
/// linux/tcp.h; RFC 2385). `None`: exactly this address.
pub(crate) fn set_md5_key(
    socket: impl AsFd,
    peers: IpAddr,
    prefix_len: Option<u8>,
    key: &[u8],
) -> io::Result<()> {
    let mut value = TcpMd5Sig {
        address: SockAddr::from(SocketAddr::new(peers, 0)).as_storage(),
        flags: prefix_len.map_or(0, |_| TCP_MD5SIG_FLAG_PREFIX),
        prefix_len: prefix_len.unwrap_or(0),
        key_len: u16::try_from(key.len()).map_err(io::Error::other)?,
        interface: 0,
        key: [0; TCP_MD5SIG_MAXKEYLEN],
    };
    value
        .key
        .get_mut(..key.len())
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(key);
    let name = match prefix_len {
        Some(_) => libc::TCP_MD5SIG_EXT,
        None => libc::TCP_MD5SIG,
    };
    set_option(socket, libc::IPPROTO_TCP, name, &value)
}

fn set_int(socket: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set_option(socket, level, name, &value)
}

/// `T` is what the kernel expects under that name, without padding.
fn set_option<T>(socket: impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `len` octets of `value`, which outlives
    // the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
