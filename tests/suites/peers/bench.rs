//! A bench: two namespaces and a cable, our speaker on one end and another's on the other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bgp::config::{PeerConfig, SpeakerConfig};
use bgp::policy::Policy;
use bgp::rib::{RouteChange, RouteView, Selection};
use bgp::session::State;
use bgp::view::PeerStatus;
use bgp_net::{Handle, Listen, Md5Drops, RouteFeed, Routes};
use bgp_wire::{Attributes, Family as WireFamily};
use ipnet::IpNet;
use lab::peer::{self, Config, Family, Kind, Learned, Neighbour, Peer, Session};
use lab::{Namespace, net, process, wait};
use tests::{oracle, same};
use tokio::runtime::Runtime;

/// How long a session may take to come up, or a route to arrive.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Our AS and theirs, where nothing else is asked for.
pub(crate) const OUR_ASN: u32 = 65001;
pub(crate) const THEIR_ASN: u32 = 65002;

/// Our addresses and theirs on the cable.
pub(crate) const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub(crate) const THEIRS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
pub(crate) const OURS6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1));
pub(crate) const THEIRS6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2));

/// What our speaker has told its user: every change, in order, and whether it is in sync.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) changes: Vec<RouteChange>,
    pub(crate) synced: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) kind: Kind,
    pub(crate) us: Namespace,
    pub(crate) them: Namespace,
    folder: PathBuf,
    runtime: Runtime,
    speaker: Option<Handle>,
    told: Arc<Mutex<Told>>,
    peer: Option<Box<dyn Peer>>,
}

impl Bench {
    pub(crate) fn new(kind: Kind, slug: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let us = Namespace::create(&format!("us{number}"))?;
        let them = Namespace::create(&format!("them{number}"))?;
        for namespace in [&us, &them] {
            // Addresses are there at once: nobody else has them.
            for interfaces in ["all", "default"] {
                namespace.sysctl(&format!("ipv6/conf/{interfaces}/accept_dad"), "0")?;
            }
        }
        net::cable((&us, "cable"), (&them, "cable"))?;
        for (namespace, v4, v6) in [(&us, OURS, OURS6), (&them, THEIRS, THEIRS6)] {
            net::address(namespace, "cable", IpNet::new(v4, 24)?)?;
            net::address(namespace, "cable", IpNet::new(v6, 64)?)?;
        }
        Ok(Self {
            kind,
            us,
            them,
            folder: PathBuf::from(format!("/run/lab/{number}-{kind}-{slug}")),
            runtime: tokio::runtime::Builder::new_current_thread().build()?,
            speaker: None,
            told: Arc::default(),
            peer: None,
        })
    }

    /// Their speaker's configuration for an external IPv4 session with ours.
    pub(crate) fn theirs(&self) -> Config {
        let neighbour = Neighbour {
            // When it dials too, it lets go of a session that is up for one of its own that comes late.
            passive: self.kind == Kind::Exabgp,
            ..Neighbour::new(OURS, OUR_ASN, THEIRS)
        };
        Config {
            name: self.kind.to_string(),
            asn: THEIR_ASN,
            router_id: Ipv4Addr::new(10, 9, 0, 2),
            neighbours: vec![neighbour],
            routes: Vec::new(),
            port: 179,
            folder: self.folder.clone(),
        }
    }

    /// Starts their speaker.
    pub(crate) fn start_peer(&mut self, config: &Config) -> Result<()> {
        self.peer = Some(peer::start(self.kind, &self.them, config)?);
        Ok(())
    }

    /// Ends theirs by `kill -9`, and starts another in its place.
    pub(crate) fn replace_peer(&mut self, config: &Config) -> Result<()> {
        self.peer = None;
        // Some are several processes, of which those that are left end by themselves.
        wait::until("their port to be free", LIMIT, || {
            let listening = oracle::bgp_listeners(&self.them)?;
            same("listeners", &listening, &0)
        })?;
        self.start_peer(config)
    }

    /// Starts ours.
    pub(crate) fn speak(&mut self, config: SpeakerConfig, restarting: bool) -> Result<()> {
        self.speak_on(179, config, restarting)
    }

    /// Starts ours, which listens on this port.
    pub(crate) fn speak_on(
        &mut self,
        port: u16,
        config: SpeakerConfig,
        restarting: bool,
    ) -> Result<()> {
        let listen = Listen::port(port);
        let (handle, routes) = self
            .us
            .run(|| Ok(bgp_net::spawn(config, &listen, restarting)?))?;
        self.told = Arc::default();
        let told = Arc::clone(&self.told);
        thread::spawn(move || follow(routes, &told));
        self.speaker = Some(handle);
        Ok(())
    }

    /// Starts both, theirs first, and waits for the session.
    pub(crate) fn establish(&mut self, ours: SpeakerConfig, theirs: &Config) -> Result<()> {
        self.start_peer(theirs)?;
        self.speak(ours, false)?;
        self.wait_up()
    }

    pub(crate) fn peer(&mut self) -> Result<&mut dyn Peer> {
        match &mut self.peer {
            Some(peer) => Ok(peer.as_mut()),
            None => bail!("their speaker has not been started"),
        }
    }

    pub(crate) fn speaker(&self) -> Result<&Handle> {
        self.speaker.as_ref().context("our speaker")
    }

    /// Ends ours as the death of its process does: without a word.
    pub(crate) fn abandon(&mut self) -> Result<()> {
        let speaker = self.speaker.take().context("our speaker")?;
        self.runtime.block_on(speaker.abandon())?;
        self.runtime.block_on(speaker.stopped());
        Ok(())
    }

    /// Where their files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ours shuts down the session with theirs, with a text.
    pub(crate) fn shut_down_peer(&self, text: &str) -> Result<()> {
        let speaker = self.speaker()?;
        let known = self
            .runtime
            .block_on(speaker.shut_down_peer(THEIRS, text))?;
        ensure!(known, "no such peer");
        Ok(())
    }

    /// Ends ours for good, with a text.
    pub(crate) fn shut_down(&mut self, text: &str) -> Result<()> {
        let speaker = self.speaker.take().context("our speaker")?;
        Ok(self.runtime.block_on(speaker.shutdown(text))?)
    }

    /// What ours says of its peers.
    pub(crate) fn statuses(&self) -> Result<Vec<PeerStatus>> {
        Ok(self.runtime.block_on(self.speaker()?.peers())?)
    }

    /// What ours says of theirs, its first peer.
    pub(crate) fn status(&self) -> Result<PeerStatus> {
        self.statuses()?.into_iter().next().context("a peer")
    }

    /// What ours has learned: prefixes with their best path's attributes.
    pub(crate) fn heard(&self) -> Result<BTreeMap<IpNet, Attributes>> {
        let routes = self.routes()?;
        let learned = routes.into_iter().filter_map(|route| {
            let best = route.paths.into_iter().next()?;
            best.peer
                .is_some()
                .then_some((route.prefix, best.attributes))
        });
        Ok(learned.collect())
    }

    /// Our whole table.
    pub(crate) fn routes(&self) -> Result<Vec<RouteView>> {
        Ok(self
            .runtime
            .block_on(self.speaker()?.routes(Selection::All))?)
    }

    /// What ours has told the user of its routes so far.
    pub(crate) fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> Result<T> {
        let told = self.told.lock();
        Ok(look(&*told.map_err(|_| anyhow!("a thread panicked"))?))
    }

    /// What theirs says of the session with us.
    pub(crate) fn session(&mut self) -> Result<Session> {
        self.session_with(OURS)
    }

    pub(crate) fn session_with(&mut self, address: IpAddr) -> Result<Session> {
        self.peer()?.session(address)
    }

    /// Waits until both say that the session is up.
    pub(crate) fn wait_up(&mut self) -> Result<()> {
        self.wait_up_with(OURS)
    }

    pub(crate) fn wait_up_with(&mut self, address: IpAddr) -> Result<()> {
        wait::until("the session", LIMIT, || {
            for process in self.peer()?.processes() {
                process.check()?;
            }
            let status = self.status()?;
            if status.state != State::Established {
                bail!(
                    "we are in {:?}, last error {:?}, last attempt {:?}",
                    status.state,
                    status.last_error,
                    status.last_attempt
                );
            }
            let theirs = self.session_with(address)?;
            match theirs.established {
                true => Ok(()),
                false => bail!("they say: {}", theirs.text),
            }
        })
    }

    /// Waits until we say that the session is down.
    pub(crate) fn wait_down(&mut self) -> Result<PeerStatus> {
        wait::until("the session's end", LIMIT, || {
            let status = self.status()?;
            ensure!(status.state != State::Established, "still up");
            Ok(status)
        })
    }

    /// Waits until they have a route that is as `wanted` says.
    pub(crate) fn they_learn(
        &mut self,
        prefix: &str,
        mut wanted: impl FnMut(&Learned) -> Result<()>,
    ) -> Result<()> {
        let prefix: IpNet = prefix.parse()?;
        wait::until(&format!("{prefix} at their end"), LIMIT, || {
            let learned = self.peer()?.learned(Family::of(&prefix))?;
            let route = learned.get(&prefix);
            let route = route.with_context(|| format!("they have {learned:?}"))?;
            wanted(route).with_context(|| format!("they have {route:?}"))
        })
    }

    /// Waits until they have it no longer.
    pub(crate) fn they_lose(&mut self, prefix: &str) -> Result<()> {
        let prefix: IpNet = prefix.parse()?;
        wait::until(&format!("the end of {prefix}"), LIMIT, || {
            match self.peer()?.learned(Family::of(&prefix))?.get(&prefix) {
                None => Ok(()),
                Some(route) => bail!("they have {route:?}"),
            }
        })
    }

    /// Waits until we have a route that is as `wanted` says.
    pub(crate) fn we_learn(
        &mut self,
        prefix: &str,
        mut wanted: impl FnMut(&Attributes) -> Result<()>,
    ) -> Result<()> {
        let prefix: IpNet = prefix.parse()?;
        wait::until(&format!("{prefix} at our end"), LIMIT, || {
            let heard = self.heard()?;
            let route = heard.get(&prefix);
            let route = route.with_context(|| format!("we have {heard:?}"))?;
            wanted(route).with_context(|| format!("we have {route:?}"))
        })
    }

    /// Whether the user of our routes has been told to use one.
    fn uses(&self, prefix: &IpNet) -> Result<bool> {
        self.told(|told| {
            let mut changes = told.changes.iter().rev();
            let last = changes.find(|change| change.prefix == *prefix);
            last.is_some_and(|change| !change.next_hops.is_empty())
        })
    }

    /// Waits until what our routes' user was told of a prefix last is as `check` wants it.
    pub(crate) fn we_say(
        &self,
        prefix: &str,
        check: impl Fn(&RouteChange) -> Result<()>,
    ) -> Result<()> {
        let prefix = prefix.parse()?;
        wait::until(&format!("word of {prefix}"), LIMIT, || {
            self.told(|told| {
                let mut changes = told.changes.iter().rev();
                let last = changes.find(|change| change.prefix == prefix);
                check(last.context("no word yet")?)
            })?
        })
    }

    /// Waits until our routes' user has been told to use one.
    pub(crate) fn we_use(&self, prefix: &str) -> Result<()> {
        let prefix = prefix.parse()?;
        wait::until(&format!("use of {prefix}"), LIMIT, || {
            ensure!(self.uses(&prefix)?, "not in use");
            Ok(())
        })
    }

    /// Waits until our routes' user has been told to use it no longer.
    pub(crate) fn we_stop_using(&self, prefix: &str) -> Result<()> {
        let prefix = prefix.parse()?;
        wait::until(&format!("{prefix} out of use"), LIMIT, || {
            ensure!(!self.uses(&prefix)?, "in use");
            Ok(())
        })
    }

    /// Asks them for their routes again.
    pub(crate) fn refresh(&self) -> Result<()> {
        let asked = self.runtime.block_on(self.speaker()?.refresh(THEIRS))?;
        ensure!(asked == Some(true), "they can't be asked: {asked:?}");
        Ok(())
    }

    /// Segments that the kernel has dropped in our namespace for their signature.
    pub(crate) fn md5_drops(&self) -> Result<Option<Md5Drops>> {
        Ok(self.runtime.block_on(self.speaker()?.md5_drops())?)
    }

    /// Waits until we have it no longer.
    pub(crate) fn we_lose(&mut self, prefix: &str) -> Result<()> {
        let prefix: IpNet = prefix.parse()?;
        wait::until(&format!("the end of {prefix}"), LIMIT, || {
            match self.heard()?.get(&prefix) {
                None => Ok(()),
                Some(route) => bail!("we have {route:?}"),
            }
        })
    }

    /// For whoever reads a failure.
    pub(crate) fn logs(&mut self) -> String {
        let status = self.status().map(|status| format!("{status:#?}"));
        let mut text = format!(
            "our end: {}\n",
            status.unwrap_or_else(|error| error.to_string())
        );
        if let Ok(peer) = self.peer() {
            for process in peer.processes() {
                text += &format!(
                    "{}:\n{}\n",
                    process.name(),
                    process::tail(process.log(), 40)
                );
            }
        }
        text
    }
}

/// Our speaker with one external IPv4 peer, theirs: a short hold time, no graceful restart, everything accepted and
/// announced.
pub(crate) fn ours() -> SpeakerConfig {
    let mut config = SpeakerConfig::new(OUR_ASN, Ipv4Addr::new(10, 9, 0, 1));
    config.peers.insert(THEIRS, their_end(THEIR_ASN));
    config
}

/// The peer of [`ours`].
pub(crate) fn their_end(asn: u32) -> PeerConfig {
    PeerConfig {
        hold_time: Duration::from_secs(9),
        connect_retry: Duration::from_secs(1),
        families: vec![WireFamily::IPV4_UNICAST],
        graceful_restart: None,
        import: Policy::accept_all(),
        export: Policy::accept_all(),
        ..PeerConfig::new(asn)
    }
}

/// [`ours`], changed in its only peer.
pub(crate) fn ours_with(change: impl FnOnce(&mut PeerConfig)) -> SpeakerConfig {
    let mut config = ours();
    if let Some(peer) = config.peers.get_mut(&THEIRS) {
        change(peer);
    }
    config
}

/// Adds a route of our own.
pub(crate) fn originate(
    config: &mut SpeakerConfig,
    prefix: &str,
    attributes: Attributes,
) -> Result<()> {
    config.originated.insert(prefix.parse()?, attributes);
    Ok(())
}

fn follow(mut routes: Routes, told: &Mutex<Told>) {
    while let Some(feed) = routes.blocking_recv() {
        let Ok(mut told) = told.lock() else { return };
        match feed {
            RouteFeed::Changes(changes) => told.changes.extend(changes),
            RouteFeed::Synced => told.synced = true,
            // Only where next hops are tracked.
            RouteFeed::NextHops(_) | RouteFeed::NextHopsTaken(_) => {}
        }
    }
}
