//! The two system calls that `rustix` has no safe wrapper for; the only unsafe code of this crate.
#![expect(
    unsafe_code,
    reason = "setsockopt(SOL_NETLINK) and unshare(2) have no safe wrapper"
)]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Switches one of the boolean `SOL_NETLINK` options on (`netlink(7)`).
pub(crate) fn enable_netlink_option(socket: BorrowedFd<'_>, option: c_int) -> Result<(), Errno> {
    #[expect(clippy::cast_possible_truncation, reason = "it is 4")]
    const LENGTH: libc::socklen_t = size_of::<c_int>() as libc::socklen_t;
    let on: c_int = 1;
    // SAFETY: the descriptor is borrowed, hence open; the pointer and the length describe `on`, which outlives the
    // call; the kernel only reads them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            LENGTH,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let errno = std::io::Error::last_os_error().raw_os_error();
    Err(errno.map_or(Errno::INVAL, Errno::from_raw_os_error))
}

/// Moves the calling thread into a network namespace of its own.
pub(crate) fn unshare_network() -> Result<(), Errno> {
    // SAFETY: `unshare` is unsafe for the sake of CLONE_FILES, which would pull descriptors away from under other
    // owners. CLONE_NEWNET alone touches no memory and no descriptor.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}
