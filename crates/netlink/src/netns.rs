//! Network namespaces: made, entered by helper threads, kept by a file.
//!
//! The namespace is a property of a thread, so nothing here moves the calling thread: work for another namespace is done
//! on a thread that ends with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// The calling thread's own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// A new network namespace, which lives as long as the descriptor (or a process, mount or socket in it).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn create() -> io::Result<OwnedFd> {
    on_thread(|| {
        sys::unshare_network()?;
        current()
    })
}

/// The calling thread's network namespace.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn current() -> io::Result<OwnedFd> {
    File::open(OWN).map(OwnedFd::from)
}

/// Opens a namespace by its file: `/run/netns/NAME` or `/proc/PID/ns/net`.
///
/// # Errors
/// As `open(2)`.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    File::open(path).map(OwnedFd::from)
}

/// Runs `work` on a thread of its own inside the namespace, and waits for it.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` when the descriptor is no network namespace, and the work's own.
///
/// # Panics
/// When `work` does.
pub fn in_netns<T: Send>(
    netns: impl AsFd,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let netns = netns.as_fd();
    on_thread(move || {
        move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
        work()
    })
}

/// Keeps a namespace by a file (`mount --bind`), as `ip netns` does under `/run/netns`: so that it has a name and outlives its
/// users. The file is made where it is missing.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, or as `open(2)`.
pub fn bind_mount(netns: impl AsFd, path: &Path) -> io::Result<()> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    // The descriptor's own path under /proc names the namespace whatever thread asks.
    let source = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&netns.as_fd())
    );
    Ok(mount_bind(source, path)?)
}

/// Takes a [`bind_mount`] away again, with its file.
///
/// # Errors
/// As `umount(2)` and `unlink(2)`; a file that is already gone is none.
pub fn unbind(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        // EINVAL: a plain file, left by an attempt that failed half-way.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    std::fs::remove_file(path)
}

/// Runs `work` on a thread of its own, and passes its panic on.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        match thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?
            .join()
        {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
