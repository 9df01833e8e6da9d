//! Thousands of peers on one thread, far cheaper than what they measure: they say octets that were made beforehand, and of
//! what they hear they look at the prefixes only.

mod member;

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lab::wait;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::feed::Octets;
use crate::held::Space;
use member::{Heard, Member};

/// What is read at once.
const BUFFER: usize = 256 * 1024;
/// How often a condition that no message changes is looked at again.
const LOOK: Duration = Duration::from_millis(20);
/// A refused dial is repeated after this.
const REDIAL: Duration = Duration::from_millis(50);
/// The hold time that all propose unless they are to [`hold`](Swarm::hold) another, in seconds.
pub(crate) const HOLD_TIME: u16 = 90;

/// Names a member.
pub(crate) type Id = usize;

/// The peers of one subject.
pub(crate) struct Swarm {
    target: SocketAddr,
    epoll: OwnedFd,
    events: Vec<Event>,
    members: Vec<Member>,
    buffer: Box<[u8]>,
    /// Who is to dial, from when on, and how many may do so at once.
    dials: VecDeque<(Instant, Id)>,
    dialling: usize,
    at_once: usize,
    keepalives: VecDeque<(Instant, Id)>,
    established: usize,
    last_established: Option<Instant>,
    /// Members that do not hold yet what is expected of them.
    expecting: usize,
    /// Nothing is said but what is to be copied: the subject is no speaker.
    raw: bool,
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarm")
            .field("members", &self.members.len())
            .field("established", &self.established)
            .finish_non_exhaustive()
    }
}

impl Swarm {
    /// Peers that dial `target`, from the calling thread's namespace.
    pub(crate) fn new(target: SocketAddr) -> Result<Self> {
        Ok(Self {
            target,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(256),
            members: Vec::new(),
            buffer: vec![0; BUFFER].into(),
            dials: VecDeque::new(),
            dialling: 0,
            at_once: 1,
            keepalives: VecDeque::new(),
            established: 0,
            last_established: None,
            expecting: 0,
            raw: false,
        })
    }

    /// For a subject that copies octets: connected is established.
    pub(crate) fn raw(mut self, raw: bool) -> Self {
        self.raw = raw;
        self
    }

    /// Another peer; `greeting` is what it says once its session is up.
    pub(crate) fn add(
        &mut self,
        address: Ipv4Addr,
        asn: u32,
        space: Space,
        greeting: Option<Octets>,
    ) -> Id {
        self.members
            .push(Member::new(address, asn, space, greeting));
        self.members.len() - 1
    }

    /// Has a member propose this hold time, in seconds.
    pub(crate) fn hold(&mut self, id: Id, seconds: u16) {
        self.members[id].hold(seconds);
    }

    /// From now on the longest time between two of the subject's KEEPALIVEs to this member is measured.
    pub(crate) fn watch(&mut self, id: Id) {
        self.members[id].watch(wait::now());
    }

    /// That time.
    pub(crate) fn silence(&self, id: Id) -> Duration {
        self.members[id].silence(wait::now())
    }

    /// Lets everybody dial, so many at once.
    pub(crate) fn dial(&mut self, at_once: usize) {
        let now = wait::now();
        self.at_once = at_once;
        self.dials
            .extend((0..self.members.len()).map(|id| (now, id)));
    }

    /// Says something.
    pub(crate) fn send(&mut self, id: Id, octets: &Octets) -> Result<()> {
        self.members[id].push(octets.clone());
        self.write(id)
    }

    /// Ends a session by closing its connection.
    pub(crate) fn close(&mut self, id: Id) {
        if self.members[id].close() {
            self.established -= 1;
        }
    }

    /// From now on these are to hold so many prefixes.
    pub(crate) fn expect(&mut self, ids: impl IntoIterator<Item = Id>, prefixes: u32) {
        for id in ids {
            if self.members[id].expect(prefixes) {
                self.expecting += 1;
            }
        }
    }

    /// Runs until everybody holds what is expected, and gives the last moment at which somebody came to hold it.
    pub(crate) fn run_until_held(&mut self, limit: Duration) -> Result<Instant> {
        let done = self.run(limit, |swarm| swarm.expecting == 0)?;
        if !done {
            let waits = |member: &&Member| member.expects().is_some();
            let (id, member) = (0..)
                .zip(&self.members)
                .find(|(_, member)| waits(member))
                .context("somebody")?;
            bail!(
                "{} of {} peers do not hold what they should after {limit:?}: peer {id} holds {} and not {}",
                self.expecting,
                self.members.len(),
                member.count(),
                member.expects().unwrap_or_default()
            );
        }
        let reached = self.members.iter().filter_map(Member::reached).max();
        reached.context("nobody expected anything")
    }

    /// When a member came to hold what was expected of it last.
    pub(crate) fn reached(&self, id: Id) -> Option<Instant> {
        self.members[id].reached()
    }

    /// Runs until all sessions are up.
    pub(crate) fn run_until_established(&mut self, limit: Duration) -> Result<()> {
        let all = self.members.len();
        if !self.run(limit, |swarm| swarm.established == all)? {
            bail!(
                "{} of {all} sessions are up after {limit:?}",
                self.established
            );
        }
        Ok(())
    }

    pub(crate) fn established(&self) -> usize {
        self.established
    }

    /// When the last session came up.
    pub(crate) fn last_established(&self) -> Option<Instant> {
        self.last_established
    }

    /// Whether everything that was to be said is in the kernel's hands.
    pub(crate) fn all_said(&self, mut ids: Range<Id>) -> bool {
        ids.all(|id| self.members[id].is_silent())
    }

    /// Serves everybody until `done` says so, or for as long as `limit`. Gives what `done` said last.
    pub(crate) fn run(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<bool> {
        let end = wait::now() + limit;
        loop {
            self.serve_timers()?;
            if done(self) {
                return Ok(true);
            }
            let now = wait::now();
            if now >= end {
                return Ok(false);
            }
            self.poll(LOOK.min(end - now))?;
        }
    }

    fn poll(&mut self, timeout: Duration) -> Result<()> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for at in 0..self.events.len() {
            let event = self.events[at];
            let id = usize::try_from(event.data.u64())?;
            let flags = event.flags;
            if self.members[id].is_connecting() {
                self.connected(id)?;
                continue;
            }
            if flags.contains(EventFlags::OUT) {
                self.write(id)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP) {
                self.read(id)?;
            }
        }
        Ok(())
    }

    fn serve_timers(&mut self) -> Result<()> {
        let now = wait::now();
        while self.dialling < self.at_once
            && let Some((_, id)) = self.dials.pop_front_if(|(at, _)| *at <= now)
        {
            self.dialling += 1;
            let socket = self.members[id].dial(self.target)?;
            let token = EventData::new_u64(id.try_into()?);
            epoll::add(&self.epoll, socket, token, EventFlags::OUT)?;
        }
        while let Some((_, id)) = self.keepalives.pop_front_if(|(at, _)| *at <= now) {
            if self.members[id].is_established() {
                self.members[id].push_keepalive();
                self.write(id)?;
                self.schedule(id, now);
            }
        }
        Ok(())
    }

    /// The member's next KEEPALIVE, among those of others in the order of their times.
    fn schedule(&mut self, id: Id, now: Instant) {
        let at = now + self.members[id].keepalive();
        let place = self.keepalives.partition_point(|(other, _)| *other <= at);
        self.keepalives.insert(place, (at, id));
    }

    fn connected(&mut self, id: Id) -> Result<()> {
        if !self.members[id].connected(self.raw)? {
            self.dialling -= 1;
            self.dials.push_back((wait::now() + REDIAL, id));
            return Ok(());
        }
        if self.raw {
            self.came_up(id)?;
        }
        self.write(id)
    }

    fn came_up(&mut self, id: Id) -> Result<()> {
        let now = wait::now();
        self.dialling -= 1;
        self.established += 1;
        self.last_established = Some(now);
        self.members[id].greet();
        if !self.raw {
            self.schedule(id, now);
        }
        self.write(id)
    }

    fn read(&mut self, id: Id) -> Result<()> {
        match self.members[id].read(&mut self.buffer)? {
            Heard::Nothing => {}
            Heard::Answer => self.write(id)?,
            Heard::Up => self.came_up(id)?,
            Heard::Closed(reason) => {
                // Before the session is up the subject may not be ready for it yet.
                if self.members[id].close() {
                    bail!("peer {id}: {reason}");
                }
                self.dialling -= 1;
                self.dials.push_back((wait::now() + REDIAL, id));
            }
        }
        if self.members[id].check(wait::now) {
            self.expecting -= 1;
        }
        Ok(())
    }

    fn write(&mut self, id: Id) -> Result<()> {
        let member = &mut self.members[id];
        if let Some(wait) = member.write()? {
            let token = EventData::new_u64(id.try_into()?);
            epoll::modify(
                &self.epoll,
                member.socket().context("a socket")?,
                token,
                wait,
            )?;
        }
        Ok(())
    }
}
