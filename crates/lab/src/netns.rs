//! Network namespaces with a name under `/run/netns`, where `ip netns` finds them too.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use netlink::netns;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps names. The lab has its own `/run`.
const NAMES: &str = "/run/netns";

/// A named network namespace. It goes with the last clone of this value (and at the latest with the lab).
#[derive(Clone)]
pub struct Namespace(Arc<Inner>);

struct Inner {
    name: String,
    path: PathBuf,
    file: File,
}

impl Namespace {
    /// Makes a namespace, with its loopback up.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn create(name: &str) -> Result<Self> {
        let path = Path::new(NAMES).join(name);
        anyhow::ensure!(!path.exists(), "namespace {name} exists already");
        netns::bind_mount(netns::create()?, &path)
            .with_context(|| format!("make namespace {name}"))?;
        let file = File::open(&path)?;
        let namespace = Self(Arc::new(Inner {
            name: name.to_owned(),
            path,
            file,
        }));
        crate::net::loopback_up(&namespace)?;
        Ok(namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file that stands for it: what a container runtime would pass as `CNI_NETNS`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Runs `f` on a thread of its own inside the namespace. Sockets and processes that it makes stay there.
    ///
    /// # Errors
    /// Those of `f`, and the kernel's refusal to enter.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("enter namespace {}", self.name()))?;
            f()
        })
    }

    /// A file of the namespace's `/proc/sys/net`, for example `ipv4/ip_forward`.
    ///
    /// # Errors
    /// When the kernel has no such file or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| {
            std::fs::write(Path::new("/proc/sys/net").join(name), value)
                .with_context(|| format!("set net/{name} to {value}"))
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Namespace").field(&self.0.name).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Best effort: the kernel removes what is left when the lab ends.
        drop(netns::unbind(&self.path));
    }
}

/// Runs `f` on a fresh thread: namespaces belong to threads, and this one's must not change.
fn on_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(f).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
