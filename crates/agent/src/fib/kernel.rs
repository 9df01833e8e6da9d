//! The kernel's side of the dataplane thread: one socket to change and dump, one to listen.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use dataplane::{Op, OpError, ROUTE_PROTOCOL};
use netlink::{Events, Monitor, Socket, kernel};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::unix::AsyncFd;

use super::state::State;

/// Both sockets, in the network namespace of the thread that opened them.
pub(super) struct Kernel {
    socket: Socket,
    monitor: Monitor,
    /// The monitor's descriptor once more, for the runtime to wait on.
    ears: AsyncFd<OwnedFd>,
}

impl Kernel {
    /// Opens the sockets; listening begins before the first dump, so that no change falls between.
    pub(super) fn open() -> anyhow::Result<Self> {
        let socket = Socket::open().context("can't open a netlink socket")?;
        let monitor =
            Monitor::open(&[socket.port()]).context("can't listen to the kernel's events")?;
        let ears = monitor
            .as_fd()
            .try_clone_to_owned()
            .and_then(crate::sys::watch)
            .context("can't wait for the kernel's events")?;
        Ok(Self {
            socket,
            monitor,
            ears,
        })
    }

    /// Reads everything. Returns how many routes of ours there are.
    pub(super) fn dump_into(&mut self, state: &mut State) -> anyhow::Result<usize> {
        let links = kernel::dump_links(&mut self.socket).context("can't dump links")?;
        let routes =
            kernel::dump_routes(&mut self.socket, ROUTE_PROTOCOL).context("can't dump routes")?;
        let neighbours =
            kernel::dump_neighbours(&mut self.socket).context("can't dump neighbours")?;
        let count = routes.len();
        state.load(links, routes, neighbours);
        Ok(count)
    }

    /// Carries out changes, in order.
    pub(super) fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), OpError>> {
        kernel::apply(&mut self.socket, ops)
    }

    /// Waits until the kernel has something to say. Cancel safe.
    pub(super) async fn heard(&self) {
        // Readiness is told once for each arrival, and a read has a bound: only a descriptor that is empty is waited on.
        while let Ok(mut guard) = self.ears.readable().await {
            let mut descriptor = [PollFd::new(guard.get_inner(), PollFlags::IN)];
            if rustix::event::poll(&mut descriptor, Some(&Timespec::default())) != Ok(0) {
                return;
            }
            guard.clear_ready();
        }
    }

    /// What it said since the last time.
    pub(super) fn read(&mut self) -> anyhow::Result<Events> {
        self.monitor
            .read()
            .context("can't read the kernel's events")
    }
}
