//! Readiness of many sockets at the price of one system call.
//!
//! An epoll instance of our own inside the runtime's: the owner of all connections looks at whatever is ready, one bounded
//! piece of work a connection, and looks at its timers in between. A task for each connection would decide that order
//! elsewhere.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// How many sockets are looked at in one turn.
const BATCH: usize = 256;

/// A ready socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// What it was registered as.
    pub(crate) token: u64,
    /// Reading makes progress: bytes, an end, or an error.
    pub(crate) readable: bool,
    /// Writing makes progress.
    pub(crate) writable: bool,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Bytes to read.
    Read,
    /// Room to write, or the end of a connect.
    Write,
    /// Both.
    Both,
    /// Only errors.
    Nothing,
}

impl From<Wait> for EventFlags {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Read => Self::IN,
            Wait::Write => Self::OUT,
            Wait::Nothing => Self::empty(),
            Wait::Both => Self::IN | Self::OUT,
        }
    }
}

/// Level-triggered readiness.
pub(crate) struct Poller {
    epoll: AsyncFd<OwnedFd>,
    events: Vec<epoll::Event>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("epoll", &self.epoll)
            .finish_non_exhaustive()
    }
}

impl Poller {
    /// Must be called inside a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: sys::watch(epoll)?,
            events: Vec::with_capacity(BATCH),
        })
    }

    /// A socket leaves by being closed.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64, wait: Wait) -> io::Result<()> {
        Ok(epoll::add(
            self.epoll.get_ref(),
            socket,
            EventData::new_u64(token),
            wait.into(),
        )?)
    }

    pub(crate) fn modify(&self, socket: impl AsFd, token: u64, wait: Wait) -> io::Result<()> {
        Ok(epoll::modify(
            self.epoll.get_ref(),
            socket,
            EventData::new_u64(token),
            wait.into(),
        )?)
    }

    /// Waits until a socket is ready. Cancel safe: takes nothing.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        // The readiness is kept: `take` clears it when nothing is ready any more.
        self.epoll
            .readable()
            .await
            .map(|mut guard| guard.retain_ready())
    }

    /// Takes the sockets that are ready now, into `ready`: after [`wait`](Self::wait).
    pub(crate) fn take(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        let Self { epoll, events } = self;
        events.clear();
        let taken = epoll.try_io(Interest::READABLE, |epoll| take(epoll, events));
        self.give(taken, ready)
    }

    /// The same without having waited: the runtime learns of ready sockets only when its task has nothing else to do.
    pub(crate) fn look(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.events.clear();
        let taken = take(self.epoll.get_ref(), &mut self.events);
        self.give(taken, ready)
    }

    fn give(&self, taken: io::Result<()>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        match taken {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return Err(error);
            }
            _ => {}
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            Ready {
                token: event.data.u64(),
                readable: broken || flags.contains(EventFlags::IN),
                writable: broken || flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

fn take(epoll: &OwnedFd, events: &mut Vec<epoll::Event>) -> io::Result<()> {
    let none = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match epoll::wait(epoll, spare_capacity(events), Some(&none)) {
        Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
