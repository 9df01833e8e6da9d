//! The thread's one task: it owns the speaker and every socket.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp::config::SpeakerConfig;
use bgp::session::ConnId;
use bgp::speaker::{Event, Speaker};
use bytes::Bytes;
use foldhash::fast::FixedState;
use ipnet::IpNet;
use socket2::Socket;
use tokio::sync::{mpsc, oneshot, watch};

use crate::command::{Command, reply};
use crate::connection::{Connection, Phase, Written};
use crate::interfaces::Interfaces;
use crate::md5::Md5Drops;
use crate::poller::{Poller, Ready, Wait};
use crate::{RouteFeed, log};

/// What is read from a connection before the next one, and the timers, have their turn.
const READ_CHUNK: usize = 64 * 1024;
/// How long sockets are read from before what is to be written has its turn, and the other way round.
const TURN_TIME: Duration = Duration::from_millis(100);
/// What is written to a connection before the next one has its turn.
const WRITE_CHUNKS: usize = 16;
/// How many changes go into one message of the route feed.
const CHANGES: usize = 4096;
/// How many such messages are made before others have their turn, however fast they are read.
const BATCHES: usize = 4;
/// How long the peer may take to read our last words.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// How many connections of one peer may be about to close: a peer that calls again and again must not pile them up.
const CLOSING: usize = 4;
/// Tokens from here up are listeners; a connection's number never gets there.
pub(crate) const LISTENERS: u64 = u64::MAX - 0xffff;

#[expect(
    clippy::disallowed_methods,
    reason = "the edge where the machine's time comes from"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Owner of everything. See the crate's documentation for the order of its work.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) speaker: Speaker,
    pub(crate) poller: Poller,
    pub(crate) listeners: Vec<Socket>,
    pub(crate) connections: HashMap<ConnId, Connection, FixedState>,
    pub(crate) interfaces: Interfaces,
    /// Peers whose key could not be set on a listening socket: what comes from them is not known to be signed.
    pub(crate) unkeyed: BTreeSet<IpNet>,
    /// What the kernel had dropped for passwords' sake when we started, and when it was last spoken of.
    pub(crate) drops: Option<(Md5Drops, Md5Drops)>,
    /// Connections of which some must still be closed for good.
    closing: usize,
    /// Connections that have more to write than one turn allows.
    again: Vec<ConnId>,
    /// Others have not had their turn to write, or the feed has not got all.
    unwritten: bool,
    buffer: Box<[u8]>,
    ready: Vec<Ready>,
    commands: mpsc::Receiver<Command>,
    pub(crate) config: watch::Receiver<Option<SpeakerConfig>>,
    pub(crate) feed: Option<mpsc::Sender<RouteFeed>>,
    /// The speaker may have route changes that are not in the feed yet.
    routes_wait: bool,
    /// `Synced` is to follow them.
    sync_waits: bool,
    /// How many answers about next hops were taken in, and how many of them the feed knows of.
    pub(crate) next_hops_taken: u64,
    next_hops_told: u64,
    /// Listeners are left alone until then.
    pub(crate) accept_pause: Option<Instant>,
    /// Answer when the last connection is closed.
    pub(crate) shutdown: Option<oneshot::Sender<()>>,
}

impl Engine {
    /// Must be called inside a runtime.
    pub(crate) fn new(
        speaker: Speaker,
        listeners: Vec<Socket>,
        commands: mpsc::Receiver<Command>,
        config: watch::Receiver<Option<SpeakerConfig>>,
        feed: mpsc::Sender<RouteFeed>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        for (token, listener) in (LISTENERS..).zip(&listeners) {
            poller.add(listener, token, Wait::Read)?;
        }
        Ok(Self {
            speaker,
            poller,
            listeners,
            connections: HashMap::default(),
            interfaces: Interfaces::default(),
            unkeyed: BTreeSet::new(),
            drops: Md5Drops::read().ok().map(|drops| (drops, drops)),
            closing: 0,
            again: Vec::new(),
            unwritten: false,
            buffer: vec![0; READ_CHUNK].into_boxed_slice(),
            ready: Vec::new(),
            commands,
            config,
            feed: Some(feed),
            routes_wait: true,
            sync_waits: false,
            next_hops_taken: 0,
            next_hops_told: 0,
            accept_pause: None,
            shutdown: None,
        })
    }

    /// Runs until told to stop, or until nobody is left who could tell.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        loop {
            self.serve_timers();
            self.drain();
            if self.connections.is_empty()
                && let Some(answer) = self.shutdown.take()
            {
                reply(answer, ());
                return Ok(());
            }
            let deadline = self.deadline();
            // More to write, or to walk through, than one turn allows; everybody else is asked first.
            let busy =
                self.unwritten || !self.again.is_empty() || deadline.is_some_and(|at| at <= now());
            if busy {
                self.poller.look(&mut self.ready)?;
                self.serve_ready();
            }
            tokio::select! {
                biased;
                changed = self.config.changed() => match changed {
                    Ok(()) => self.configure(),
                    Err(_) => return Ok(()),
                },
                command = self.commands.recv() => match command {
                    Some(command) => {
                        if !self.command(command) {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                () = room(self.feed.as_ref()), if self.routes_wait || self.sync_waits => {}
                result = self.poller.wait() => {
                    result?;
                    self.poller.take(&mut self.ready)?;
                    self.serve_ready();
                }
                () = sleep_until(deadline), if !busy => {}
                () = std::future::ready(()), if busy => {}
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let speaker = self.speaker.poll_timeout().map(|(at, _)| at);
        let closing = (self.closing > 0)
            .then(|| {
                self.connections
                    .values()
                    .filter_map(|connection| match connection.phase {
                        Phase::Closing(until) => Some(until),
                        Phase::Connecting | Phase::Open => None,
                    })
            })
            .into_iter()
            .flatten();
        speaker
            .into_iter()
            .chain(self.accept_pause)
            .chain(closing)
            .min()
    }

    fn serve_timers(&mut self) {
        let now = now();
        if self.speaker.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.serve_sessions();
        }
        if self.closing > 0 {
            self.connections
                .retain(|_, connection| match connection.phase {
                    Phase::Closing(until) => until > now,
                    Phase::Connecting | Phase::Open => true,
                });
            self.count_closing();
        }
    }

    /// Serves the speaker's timers; whoever seems to be silent is listened to first.
    fn serve_sessions(&mut self) {
        for conn in self.speaker.expiring(now()) {
            self.readable(conn);
        }
        self.speaker.handle_timeout(now());
    }

    fn count_closing(&mut self) {
        let closing = |connection: &&Connection| matches!(connection.phase, Phase::Closing(_));
        self.closing = self.connections.values().filter(closing).count();
    }

    pub(crate) fn configure(&mut self) {
        let config = self.config.borrow_and_update().clone();
        if let Some(config) = config
            && self.shutdown.is_none()
        {
            self.speaker.set_config(config, now());
        }
    }

    /// Gives every ready socket its turn.
    fn serve_ready(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        let start = now();
        for event in &ready {
            // What is left is ready next time too. Keepalives that fell due are written in between.
            if now() >= start + TURN_TIME {
                break;
            }
            if event.token >= LISTENERS {
                self.accept(event.token - LISTENERS);
                continue;
            }
            let conn = ConnId::from_u64(event.token);
            if event.writable {
                self.writable(conn);
            }
            if event.readable {
                self.readable(conn);
            }
            // A batch of full chunks takes long enough for a keepalive to fall due.
            if self.speaker.is_urgent(now()) {
                self.serve_sessions();
            }
        }
        self.ready = ready;
    }

    fn readable(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let read = connection.read(&mut self.buffer);
        match (connection.phase, read) {
            (Phase::Connecting, _) | (_, Ok(None)) => {}
            (Phase::Open, Ok(Some(len @ 1..))) => {
                self.speaker.handle_data(conn, &self.buffer[..len], now())
            }
            (Phase::Open, Ok(Some(0))) => self.lost(conn, "closed by peer".into()),
            (Phase::Open, Err(error)) => self.lost(conn, error.to_string()),
            // Whatever the peer still says, nobody listens.
            (Phase::Closing(_), Ok(Some(1..))) => {}
            (Phase::Closing(_), Ok(Some(0)) | Err(_)) => self.forget(conn),
        }
    }

    fn writable(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        match connection.phase {
            Phase::Connecting => self.connect_ended(conn),
            Phase::Open => self.transmit(conn),
            Phase::Closing(_) => {
                if connection.write_last().is_err() {
                    self.forget(conn);
                } else {
                    self.update_wait(conn, Written::All);
                }
            }
        }
    }

    /// Pulls what the speaker has to say and writes it, until either has enough.
    fn transmit(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        if connection.phase != Phase::Open {
            return;
        }
        for _ in 0..WRITE_CHUNKS {
            while connection.has_room()
                && let Some(bytes) = self.speaker.poll_transmit(conn)
            {
                connection.push(bytes);
            }
            let empty = connection.is_empty();
            match connection.write() {
                Ok(Written::All) if empty => return self.update_wait(conn, Written::All),
                Ok(Written::All) => {}
                Ok(Written::Full) => return self.update_wait(conn, Written::Full),
                Err(error) => return self.lost(conn, error.to_string()),
            }
        }
        self.again.push(conn);
    }

    /// Waits for room where the socket is full, and only there.
    pub(crate) fn update_wait(&mut self, conn: ConnId, written: Written) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let wait = if written == Written::Full {
            Wait::Both
        } else {
            Wait::Read
        };
        if connection.wait != wait {
            connection.wait = wait;
            if let Err(error) = self.poller.modify(&connection.socket, conn.as_u64(), wait) {
                self.lost(conn, error.to_string());
            }
        }
    }

    pub(crate) fn lost(&mut self, conn: ConnId, reason: String) {
        self.forget(conn);
        self.speaker.handle_closed(conn, reason, now());
    }

    fn forget(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.remove(&conn)
            && matches!(connection.phase, Phase::Closing(_))
        {
            self.closing -= 1;
        }
    }

    /// Takes every output of the speaker.
    fn drain(&mut self) {
        let start = now();
        self.unwritten = false;
        loop {
            while let Some(event) = self.speaker.poll_event() {
                self.event(event);
            }
            let mut wrote = false;
            for conn in std::mem::take(&mut self.again) {
                self.transmit(conn);
            }
            while let Some(conn) = self.speaker.poll_ready() {
                self.transmit(conn);
                wrote = true;
                // A megabyte for each of a thousand peers takes long enough for a keepalive to fall due.
                if now() >= start + TURN_TIME {
                    self.unwritten = true;
                    return self.feed_routes();
                }
            }
            // Writing finds broken connections, which are events again.
            if !wrote {
                break;
            }
        }
        self.feed_routes();
    }

    fn event(&mut self, event: Event) {
        log::event(&event);
        match event {
            Event::Connect {
                conn,
                remote,
                transport,
            } => self.connect(conn, remote, &transport),
            Event::SetKey {
                peers,
                password,
                connections,
            } => self.set_key(peers, password.as_ref(), &connections),
            Event::Close { conn, last } => self.close(conn, last),
            Event::AttemptFailed { peer, .. } => self.look_at_drops(peer),
            Event::Synced => self.sync_waits = true,
            Event::SessionUp { .. } | Event::SessionDown { .. } | Event::ManyPrefixes { .. } => {}
        }
    }

    fn close(&mut self, conn: ConnId, last: Bytes) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        if connection.phase == Phase::Connecting {
            self.connections.remove(&conn);
            return;
        }
        let remote = connection.remote;
        let finished = connection.finish(last, now() + CLOSE_TIME);
        self.closing += 1;
        self.limit_closing(remote);
        match finished {
            Ok(written) => self.update_wait(conn, written),
            Err(_) => self.forget(conn),
        }
    }

    /// Closes a peer's oldest connection for good where too many are about to.
    fn limit_closing(&mut self, remote: IpAddr) {
        if self.closing <= CLOSING {
            return;
        }
        let of_peer = self.connections.iter().filter(|(_, c)| c.remote == remote);
        let closing: Vec<_> = of_peer
            .filter_map(|(conn, connection)| match connection.phase {
                Phase::Closing(until) => Some((until, *conn)),
                Phase::Connecting | Phase::Open => None,
            })
            .collect();
        if closing.len() > CLOSING
            && let Some((_, oldest)) = closing.into_iter().min_by_key(|(until, _)| *until)
        {
            self.forget(oldest);
        }
    }

    /// Moves route changes into the feed while it has room. Where its reader is slow, changes stay in the RIB, and a
    /// prefix that changes again meanwhile is told once.
    fn feed_routes(&mut self) {
        self.routes_wait = true;
        let Some(feed) = &self.feed else { return };
        if feed.is_closed() {
            // A reader that never comes back must not keep withdrawn routes in memory.
            self.feed = None;
            self.speaker.close_routes();
            return;
        }
        let mut batches = 0;
        while let Ok(permit) = feed.try_reserve() {
            if batches == BATCHES {
                self.unwritten = true;
                return;
            }
            batches += 1;
            let next_hops = self.speaker.poll_next_hops();
            if !next_hops.is_empty() {
                permit.send(RouteFeed::NextHops(next_hops));
                continue;
            }
            let changes = self.speaker.poll_routes(CHANGES);
            if !changes.is_empty() {
                permit.send(RouteFeed::Changes(changes));
                continue;
            }
            // While routes are walked through for the last of them, changes are still to come.
            if self.next_hops_told != self.next_hops_taken && !self.speaker.is_reconsidering() {
                self.next_hops_told = self.next_hops_taken;
                permit.send(RouteFeed::NextHopsTaken(self.next_hops_told));
                continue;
            }
            self.routes_wait = false;
            if std::mem::take(&mut self.sync_waits) {
                permit.send(RouteFeed::Synced);
            }
            return;
        }
    }
}

/// Waits until the feed has room; for ever where nobody reads it.
async fn room(feed: Option<&mpsc::Sender<RouteFeed>>) {
    if let Some(feed) = feed
        && feed.reserve().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
