//! Sockets and clocks for the BGP speaker of the [`bgp`] crate.
//!
//! [`spawn`] starts one OS thread with a current-thread runtime and one task, which owns the speaker and every socket.
//! Nothing is shared: the rest of the program talks to it over channels.
//!
//! | channel | bound | direction |
//! | --- | --- | --- |
//! | configuration | the latest only | in: [`Handle::configure`] |
//! | commands | 64 | in, each with a one-shot answer: the rest of [`Handle`] |
//! | routes | 16 batches | out: [`Routes`]; where its reader lags, changes stay in the RIB as state |
//!
//! A turn of the task: timers that are due, then every output of the speaker (connect, close, write, route changes),
//! then a wait for whatever comes first: a timer, a configuration, a command, room in the route channel, or ready sockets,
//! each of which gets a bounded piece of work with a look at the timers after it. Reading and writing have a tenth of a second a
//! turn at most, a KEEPALIVE is written before anybody's routes, and what concerns all routes (a session lost, another policy, a
//! next hop gone) is done a piece of about a millisecond a turn. So routes never hold up a keepalive.
//!
//! The waits are cancel safe: none of them takes anything that would be lost when another one is first.
//!
//! Ends: [`Handle::shutdown`] says Cease to all peers and waits until they have heard it. When every [`Handle`] is
//! dropped, or by [`Handle::abandon`], or when the process dies, the sockets close without a word, and peers with
//! graceful restart keep our routes until a successor is there.

mod command;
mod connection;
mod engine;
mod interfaces;
mod log;
mod md5;
mod poller;
mod socket;
mod sockets;
mod sys;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use bgp::config::SpeakerConfig;
use bgp::rib::{ExportView, Memory, RouteChange, RouteView, Selection};
use bgp::speaker::Speaker;
use bgp::view::PeerStatus;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use command::Command;
use engine::Engine;
pub use md5::Md5Drops;

/// Where peers' connections are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listen {
    /// Addresses and ports; none: we only dial.
    pub addresses: Vec<SocketAddr>,
}

impl Listen {
    /// This port on every address, of both families where the machine has both.
    #[must_use]
    pub fn port(port: u16) -> Self {
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        Self {
            addresses: any.map(|address| SocketAddr::new(address, port)).to_vec(),
        }
    }
}

/// Why the speaker could not start, or is not there any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the port, or the address is not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread, no runtime, or no epoll.
    #[error("cannot start the speaker's thread: {0}")]
    Start(#[from] io::Error),
    /// It was shut down.
    #[error("the speaker has stopped")]
    Stopped,
}

/// What the kernel's routes should become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteFeed {
    /// Changes, in no particular order; the newest word on a prefix counts.
    Changes(Vec<RouteChange>),
    /// Next hops that came into use (true) or went out of it, by [`spawn_tracking`] only; told before the changes that
    /// need them. Each that is in use wants an answer by [`Handle::set_next_hops`]: no path through it is used before.
    NextHops(Vec<(IpAddr, bool)>),
    /// All changes that follow from so many calls of [`Handle::set_next_hops`] were told.
    NextHopsTaken(u64),
    /// Everything that is known was told: what the kernel has beyond it may be swept. Comes once.
    Synced,
}

/// The speaker's way to the routes' user.
#[derive(Debug)]
pub struct Routes {
    feed: mpsc::Receiver<RouteFeed>,
}

impl Routes {
    /// The next piece; `None` once the speaker has stopped. Cancel safe.
    pub async fn recv(&mut self) -> Option<RouteFeed> {
        self.feed.recv().await
    }

    /// The same for a thread without a runtime.
    pub fn blocking_recv(&mut self) -> Option<RouteFeed> {
        self.feed.blocking_recv()
    }

    /// The next piece if there is one by now.
    pub fn try_recv(&mut self) -> Option<RouteFeed> {
        self.feed.try_recv().ok()
    }
}

/// A running speaker. When the last clone is dropped it stops as [`abandon`](Self::abandon) does.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    config: watch::Sender<Option<SpeakerConfig>>,
}

impl Handle {
    /// Replaces the configuration; of several in quick succession only the last may be seen.
    pub fn configure(&self, config: SpeakerConfig) {
        self.config.send_replace(Some(config));
    }

    /// Waits until the speaker has ended, whatever the reason. Cancel safe.
    pub async fn stopped(&self) {
        self.config.closed().await;
    }

    /// All peers, by address.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], as for every question.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, Error> {
        self.ask(Command::Peers).await
    }

    /// The Loc-RIB and what competed for it.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn routes(&self, selection: Selection) -> Result<Vec<RouteView>, Error> {
        self.ask(|answer| Command::Routes(selection, answer)).await
    }

    /// What a peer has announced; `None` where there is no such peer.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn routes_from(
        &self,
        peer: IpAddr,
        selection: Selection,
    ) -> Result<Option<Vec<RouteView>>, Error> {
        self.ask(|answer| Command::RoutesFrom(peer, selection, answer))
            .await
    }

    /// What a peer is told, and why not the rest; `None` where there is no such peer.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn routes_to(
        &self,
        peer: IpAddr,
        selection: Selection,
    ) -> Result<Option<Vec<ExportView>>, Error> {
        self.ask(|answer| Command::RoutesTo(peer, selection, answer))
            .await
    }

    /// How much the RIB holds.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn memory(&self) -> Result<Memory, Error> {
        self.ask(Command::Memory).await
    }

    /// Tells the cost of the kernel's routes to next hops; `None`: unreachable. Cancel safe: what was not told yet is not
    /// told in part.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn set_next_hops(&self, costs: Vec<(IpAddr, Option<u32>)>) -> Result<(), Error> {
        self.commands
            .send(Command::NextHops(costs))
            .await
            .map_err(|_| Error::Stopped)
    }

    /// Segments that the kernel has dropped since the speaker started because of passwords; `None` where it does not say.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn md5_drops(&self) -> Result<Option<Md5Drops>, Error> {
        self.ask(Command::Md5Drops).await
    }

    /// Ends a peer's session and starts it anew, whatever kept it down: Cease/Administrative Reset with this text (RFC 9003).
    /// False where there is no such peer.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn reset(&self, peer: IpAddr, text: &str) -> Result<bool, Error> {
        self.ask(|answer| Command::Reset(peer, text.into(), answer))
            .await
    }

    /// Ends a peer's session and keeps it down until [`reset`](Self::reset): Cease/Administrative Shutdown with this text
    /// (RFC 9003). False where there is no such peer.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn shut_down_peer(&self, peer: IpAddr, text: &str) -> Result<bool, Error> {
        self.ask(|answer| Command::ShutDownPeer(peer, text.into(), answer))
            .await
    }

    /// Sends everything to a peer again and asks it for the same; says whether it can be asked (RFC 2918). `None` where
    /// there is no such peer, or no session with it.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    pub async fn refresh(&self, peer: IpAddr) -> Result<Option<bool>, Error> {
        self.ask(|answer| Command::Refresh(peer, answer)).await
    }

    /// Ends every session with Cease/Administrative Shutdown and this text (RFC 9003), for good.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], if it had stopped already.
    pub async fn shutdown(&self, text: &str) -> Result<(), Error> {
        self.ask(|answer| Command::Shutdown(text.into(), answer))
            .await
    }

    /// Stops without a word to the peers: a successor is about to take over, and they keep our routes until then
    /// (RFC 4724).
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`], if it had stopped already.
    pub async fn abandon(&self) -> Result<(), Error> {
        self.ask(Command::Abandon).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)
    }
}

/// Starts a speaker on a thread of its own, in the network namespace of the calling thread.
///
/// `restarting`: the kernel still forwards by a predecessor's routes; see [`Speaker::new`].
///
/// # Errors
///
/// [`Error::Listen`] and [`Error::Start`].
pub fn spawn(
    config: SpeakerConfig,
    listen: &Listen,
    restarting: bool,
) -> Result<(Handle, Routes), Error> {
    let speaker = move || Speaker::new(config, restarting, seed(), start());
    spawn_speaker(speaker, listen)
}

/// The same, and next hops are tracked: whoever reads [`Routes`] answers [`RouteFeed::NextHops`].
///
/// # Errors
///
/// [`Error::Listen`] and [`Error::Start`].
pub fn spawn_tracking(
    config: SpeakerConfig,
    listen: &Listen,
    restarting: bool,
) -> Result<(Handle, Routes), Error> {
    let speaker = move || {
        let mut speaker = Speaker::new(config, restarting, seed(), start());
        speaker.track_next_hops();
        speaker
    };
    spawn_speaker(speaker, listen)
}

fn spawn_speaker(
    speaker: impl FnOnce() -> Speaker + Send + 'static,
    listen: &Listen,
) -> Result<(Handle, Routes), Error> {
    let listeners = bind(listen)?;
    let (commands, commands_in) = mpsc::channel(64);
    let (config_out, config_in) = watch::channel(None);
    let (feed, feed_out) = mpsc::channel(16);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new().name("bgp".into()).spawn(move || {
        let ended = runtime.block_on(async move {
            Engine::new(speaker(), listeners, commands_in, config_in, feed)?
                .run()
                .await
        });
        if let Err(error) = ended {
            error!(%error, "the BGP speaker has stopped");
        }
    })?;
    Ok((
        Handle {
            commands,
            config: config_out,
        },
        Routes { feed: feed_out },
    ))
}

fn bind(listen: &Listen) -> Result<Vec<socket2::Socket>, Error> {
    let mut listeners = Vec::new();
    for address in &listen.addresses {
        match socket::listen(*address) {
            Ok(listener) => listeners.push(listener),
            // A machine without IPv6 still is a machine.
            Err(error)
                if address.ip() == Ipv6Addr::UNSPECIFIED
                    && !listeners.is_empty()
                    && no_ipv6(&error) =>
            {
                warn!(%address, %error, "not listening");
            }
            Err(source) => {
                return Err(Error::Listen {
                    address: *address,
                    source,
                });
            }
        }
    }
    Ok(listeners)
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge where the machine's time comes from"
)]
fn start() -> Instant {
    Instant::now()
}

/// Different in every process: what the jitter of thousands of speakers that start at once depends on.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
