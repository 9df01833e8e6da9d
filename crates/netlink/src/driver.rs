//! A reconciler with its kernel: reads events and dumps into it, and carries its operations out.
//!
//! For a thread that waits for the driver's descriptor, its [`poll_timeout`](Driver::poll_timeout), and whatever else changes
//! what is desired. Each turn it calls [`read`](Driver::read), brings what is desired up to date (next hops resolve through
//! [`links`](Driver::links)), and calls [`write`](Driver::write) until [`has_work`](Driver::has_work) is false or something
//! else is waiting. Both are bounded.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use dataplane::{
    Event, GroupKind, LinkIndex, Links, Op, OpError, ROUTE_PROTOCOL, Reconciler, TunnelOp,
};

use crate::{Error, Events, Monitor, Socket, kernel, tunnel};

#[cfg(test)]
mod tests;

/// How long until the kernel's state is read again when that failed.
const RETRY: Duration = Duration::from_secs(1);

/// How long from one look for others' routes in place of ours to the next at least, and how much of the time it may take.
const RIVALS_PAUSE: Duration = Duration::from_secs(2);
const RIVALS_SHARE: u32 = 100;

/// See the module. It acts in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Driver {
    /// What should be and what is.
    pub reconciler: Reconciler,
    socket: Socket,
    monitor: Monitor,
    links: Links,
    resync: Option<Resync>,
    /// Others' routes to next hops must be asked for again.
    look_up: bool,
    /// The last dump failed: no other until then.
    not_before: Option<Instant>,
    /// No look for others' routes in place of ours until then.
    rivals_not_before: Instant,
}

/// What must be dumped, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resync {
    /// Ours: the kernel flushed some and told nobody.
    Ours,
    /// Everything: the beginning, or lost events.
    All,
}

/// What one [`Driver::read`] saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// The kernel's events, in order.
    pub events: Vec<Event>,
    /// Next hops may resolve otherwise than before.
    pub links_changed: bool,
    /// The whole state was dumped anew, so that events may be missing.
    pub resynced: bool,
}

impl AsFd for Driver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

impl Driver {
    /// Starts to listen; the first [`read`](Self::read) dumps. The seed is the reconciler's.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open(seed: u64) -> Result<Self, Error> {
        let socket = Socket::open()?;
        let monitor = Monitor::open(&[socket.port()])?;
        let reconciler = Reconciler::new(seed);
        Ok(Self {
            reconciler,
            socket,
            monitor,
            links: Links::default(),
            resync: Some(Resync::All),
            look_up: false,
            not_before: None,
            rivals_not_before: now() + RIVALS_PAUSE,
        })
    }

    /// All links, as far as events were read.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The links, and the reconciler to say through them what should be.
    pub fn parts(&mut self) -> (&Links, &mut Reconciler) {
        (&self.links, &mut self.reconciler)
    }

    /// Says which next hops there are: [`links`](Self::links) will hold the routes of others to them, from the next
    /// [`read`](Self::read) on.
    pub fn watch(&mut self, next_hops: BTreeSet<IpAddr>) {
        self.look_up |= !next_hops.is_subset(&self.links.watched);
        self.links.watched = next_hops;
    }

    /// Has the next [`read`](Self::read) dump everything: what events have missed comes to light. After a failure, the next
    /// one when its pause is over.
    pub fn resync(&mut self) {
        self.resync = Some(Resync::All);
    }

    /// Whether [`read`](Self::read) or [`write`](Self::write) have something to do though the descriptor is not readable.
    pub fn has_work(&self) -> bool {
        self.dump_is_due() || self.reconciler.has_work() || self.look_is_due()
    }

    /// When to [`read`](Self::read) and [`write`](Self::write) again though nothing has happened, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let dump = self
            .not_before
            .filter(|_| self.resync.is_some() || self.look_up);
        let dump = dump.map(|at| (at, "another attempt to read the kernel's state"));
        let look = self.reconciler.rivals().is_due();
        let look = look.then_some((self.rivals_not_before, "a look for others' routes"));
        dump.into_iter()
            .chain(self.reconciler.poll_timeout())
            .chain(look)
            .min_by_key(|(at, _)| *at)
    }

    fn dump_is_due(&self) -> bool {
        (self.resync.is_some() || self.look_up) && self.not_before.is_none_or(|at| at <= now())
    }

    /// Reads some of the events that came, and dumps where they are not enough.
    ///
    /// # Errors
    /// When a dump fails: it is tried again after a pause, which [`has_work`](Self::has_work) and
    /// [`poll_timeout`](Self::poll_timeout) know of. The socket's failure.
    pub fn read(&mut self) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        match self.monitor.read()? {
            Events::Changes(events) => seen.events = events,
            Events::Overrun => {
                tracing::warn!(
                    "the kernel's events came faster than they were read; reading its whole state"
                );
                self.resync();
                self.reconciler.rivals_mut().look();
            }
        }
        for event in &seen.events {
            let impact = self.links.handle(event);
            seen.links_changed |= impact.changed;
            self.look_up |= impact.underlay && !self.links.watched.is_empty();
            let removed = self.reconciler.handle(event) && self.resync.is_none();
            let flushed = impact.flushed.is_some_and(|link| self.may_be_flushed(link));
            if removed || flushed || self.may_have_lost_objects(impact.lost_carrier) {
                self.resync = Some(Resync::Ours);
            }
        }
        if self.dump_is_due() {
            self.not_before = None;
            self.dump(&mut seen).inspect_err(|_| {
                self.reopen();
                self.not_before = Some(now() + RETRY);
            })?;
        }
        if self.look_is_due() && !self.reconciler.has_work() {
            self.find_rivals();
        }
        Ok(seen)
    }

    fn look_is_due(&self) -> bool {
        self.reconciler.rivals().is_due() && self.rivals_not_before <= now()
    }

    /// Looks for routes of others for prefixes of ours. The kernel can't leave out the rest, of which there may be a million:
    /// so it waits until there is nothing else to do, and the longer it takes, the longer until the next.
    fn find_rivals(&mut self) {
        let started = now();
        let reconciler = &self.reconciler;
        let all = kernel::dump_rivals(&mut self.socket, |prefix| reconciler.wants(prefix));
        let pause = (started.elapsed() * RIVALS_SHARE).max(RIVALS_PAUSE);
        self.rivals_not_before = now() + pause;
        let all = match all {
            Ok(all) => all,
            // What events have said goes on; and what is due stays so.
            Err(error) => {
                tracing::warn!(%error, "can't look for others' routes; trying again in a moment");
                return self.reopen();
            }
        };
        let (news, gone) = self.reconciler.rivals_mut().load(all);
        let name = |link| match self.links.links.get(&link) {
            Some(link) => link.name.clone(),
            None => format!("if{link}"),
        };
        for (prefix, rival) in news {
            tracing::warn!(
                "{prefix}: there is {}, in place of ours",
                rival.describe(name)
            );
        }
        for prefix in gone {
            tracing::info!("{prefix}: nobody else has a route in place of ours any more");
        }
    }

    /// A dump that is due anyway need not be asked for.
    fn may_be_flushed(&self, link: LinkIndex) -> bool {
        self.resync.is_none() && self.reconciler.uses_link(link)
    }

    fn may_have_lost_objects(&self, link: Option<LinkIndex>) -> bool {
        self.resync.is_none() && link.is_some_and(|link| self.reconciler.has_object_through(link))
    }

    /// Has routes with gateways point at nexthop groups of this kind, where the kernel knows them; else their next hops stand in
    /// themselves. To be called before anything is desired. True when the kernel knows them.
    ///
    /// # Errors
    /// The socket's failure.
    pub fn use_groups(&mut self, kind: GroupKind) -> Result<bool, Error> {
        let known = kernel::supports(&mut self.socket, kind)?;
        self.reconciler.use_groups(known.then_some(kind));
        Ok(known)
    }

    fn dump(&mut self, seen: &mut Seen) -> Result<(), Error> {
        // Before the dump: what fails inside asks for another.
        let resync = self.resync.take();
        if resync == Some(Resync::All) {
            let mut links = kernel::dump_links(&mut self.socket)?;
            links.watched = std::mem::take(&mut self.links.watched);
            links.underlay = std::mem::take(&mut self.links.underlay);
            seen.links_changed |= links.links != self.links.links;
            seen.resynced = true;
            self.links = links;
            self.look_up = true;
        }
        if resync.is_some() {
            // First: this waits until the kernel is done with a link's change, and a dump of routes does not.
            let objects = kernel::dump_objects(&mut self.socket)?;
            self.reconciler.load_objects(objects.unwrap_or_default());
            let routes = kernel::dump_routes(&mut self.socket, ROUTE_PROTOCOL)?;
            let neighbours = kernel::dump_neighbours(&mut self.socket)?;
            self.reconciler.load(routes, neighbours);
        }
        if self.look_up {
            let underlay = kernel::lookup_underlay(&mut self.socket, &self.links)?;
            self.look_up = false;
            seen.links_changed |= underlay != self.links.underlay;
            self.links.underlay = underlay;
        }
        Ok(())
    }

    /// Carries out up to `max` operations and returns those that failed otherwise than the last time; the others are in
    /// the reconciler's status alone.
    pub fn write(&mut self, max: usize, now: Instant) -> Vec<(Op, OpError)> {
        let ops = self.reconciler.plan(max, now);
        if ops.is_empty() {
            return Vec::new();
        }
        let mut failures = Vec::new();
        let mut lost = false;
        let results = kernel::apply(&mut self.socket, &ops);
        for (op, result) in ops.into_iter().zip(results) {
            let error = result.as_ref().err().cloned();
            lost |= matches!(error, Some(OpError::Unknown(_)));
            if self.reconciler.applied(&op, result, now) {
                failures.extend(error.map(|error| (op, error)));
            }
        }
        if lost {
            self.reopen();
        }
        failures
    }

    /// Carries out what tunnel devices need. Their links' events tell of it, like of everybody's.
    ///
    /// # Errors
    /// As [`tunnel::apply`].
    pub fn change_tunnel(&mut self, op: &TunnelOp) -> Result<(), Error> {
        tunnel::apply(&mut self.socket, op)
    }

    /// A socket whose replies are lost may be out of step.
    fn reopen(&mut self) {
        self.resync = Some(Resync::All);
        match Socket::open() {
            Ok(socket) => {
                self.monitor.set_own(&[socket.port()]);
                self.socket = socket;
            }
            Err(error) => tracing::warn!(%error, "cannot open another netlink socket"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge: `read` and `has_work` are not told the time, and only failures need it"
)]
fn now() -> Instant {
    Instant::now()
}
