//! Top-of-rack and spine routers: other people's speakers with generated configuration, or Margay's own.

mod bird;
pub(crate) mod frr;
mod gobgp;
mod margay;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use ipnet::Ipv4Net;

use crate::process::{self, Process};
use crate::{Namespace, wait};

/// Which speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// BIRD 2.
    Bird,
    /// FRR: `bgpd` and `zebra`.
    Frr,
    /// GoBGP, with a `lab-router` that installs its routes.
    Gobgp,
    /// Margay's own speaker: `lab-router`.
    Margay,
}

impl Kind {
    /// All, the one to prefer first.
    pub const ALL: [Self; 4] = [Self::Bird, Self::Frr, Self::Gobgp, Self::Margay];

    /// What is missing for it on this machine, if anything.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let (programs, packages): (&[&str], &str) = match self {
            Self::Bird => (&["bird", "birdc"], "bird2"),
            Self::Frr => (&["zebra", "vtysh"], "frr"),
            Self::Gobgp => (&["gobgpd", "gobgp"], "gobgpd"),
            Self::Margay => (&[], ""),
        };
        if self == Self::Frr && !setgroups_allowed() {
            return Some("FRR wants to change its groups, which needs root".to_owned());
        }
        let missing: Vec<&str> = programs
            .iter()
            .copied()
            .filter(|program| process::find(program).is_none())
            .chain((self == Self::Frr && frr::daemon("bgpd").is_none()).then_some("bgpd"))
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "{} not installed (apt-get install {packages})",
                missing.join(", ")
            )
        })
    }

    /// The first of [`ALL`](Self::ALL) that this machine can run.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .find(|kind| kind.missing().is_none())
            .unwrap_or(Self::Margay)
    }

    /// Between external peers on one subnet it leaves the next hop alone (RFC 4271 §5.1.3), so that nodes of a rack
    /// reach each other directly.
    #[must_use]
    pub fn third_party_next_hop(self) -> bool {
        self != Self::Gobgp
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
            Self::Margay => "margay",
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.to_string() == name) {
            Some(kind) => Ok(kind),
            None => bail!("{name} is none of bird, frr, gobgp, margay"),
        }
    }
}

/// What a router is to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier: an address of its own.
    pub router_id: Ipv4Addr,
    /// Networks that start at it.
    pub networks: Vec<Ipv4Net>,
    /// Peers with their AS. It accepts what they send and announces all it has.
    pub peers: Vec<(Ipv4Addr, u32)>,
    /// Hold time that it proposes.
    pub hold_time: Duration,
    /// It helps its peers restart gracefully, and asks for their help.
    pub graceful_restart: bool,
    /// Where configuration, sockets and logs go.
    pub folder: PathBuf,
}

/// A running router.
pub trait Tor: fmt::Debug + Send {
    /// Which speaker it is.
    fn kind(&self) -> Kind;

    /// What it says about itself: which peers have a session in state Established.
    ///
    /// # Errors
    /// When it doesn't answer.
    fn established(&self) -> Result<BTreeSet<Ipv4Addr>>;

    /// The routes that it has learned by BGP, with the next hops of the best path.
    ///
    /// # Errors
    /// When it doesn't answer.
    fn learned(&self) -> Result<BTreeMap<Ipv4Net, BTreeSet<IpAddr>>>;

    /// Its processes.
    fn processes(&mut self) -> Vec<&mut Process>;

    /// `kill -9` of all of it.
    ///
    /// # Errors
    /// When it can't be killed.
    fn kill(&mut self) -> Result<()> {
        self.processes().into_iter().try_for_each(Process::kill)
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it can't be started.
    fn restart(&mut self) -> Result<()> {
        self.processes().into_iter().try_for_each(Process::restart)
    }
}

/// Starts a router in `namespace`.
///
/// # Errors
/// When it can't be configured or started.
pub fn start(kind: Kind, namespace: &Namespace, config: &Config) -> Result<Box<dyn Tor>> {
    if let Some(missing) = kind.missing() {
        bail!("no {kind} here: {missing}");
    }
    std::fs::create_dir_all(&config.folder)?;
    Ok(match kind {
        Kind::Bird => Box::new(bird::Bird::start(namespace, config)?),
        Kind::Frr => Box::new(frr::Frr::start(namespace, config)?),
        Kind::Gobgp => Box::new(gobgp::Gobgp::start(namespace, config)?),
        Kind::Margay => Box::new(margay::Margay::start(namespace, config)?),
    })
}

/// Makes this machine fit for FRR's daemons, in the lab's own mounts only: for who starts one without [`start`].
///
/// # Errors
/// When the lab's mounts can't be changed.
pub fn prepare_frr() -> Result<()> {
    frr::prepare()
}

/// Waits until `tor` has a session with everybody in `peers`.
///
/// # Errors
/// When that has not happened after `limit`, or one of its processes ended.
pub fn wait_established(tor: &mut dyn Tor, peers: &[Ipv4Addr], limit: Duration) -> Result<()> {
    wait::until("sessions", limit, || {
        for process in tor.processes() {
            process.check()?;
        }
        let up = tor.established()?;
        match peers.iter().find(|peer| !up.contains(peer)) {
            None => Ok(()),
            Some(peer) => bail!("no session with {peer}"),
        }
    })
}

/// A private user namespace that denies `setgroups` stands between FRR and its group `frrvty`.
fn setgroups_allowed() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "allow")
}
