//! Other people's speakers as the far end of single sessions: generated configuration, what their own tools say, and
//! orders to them. Where [`tor`](crate::tor) builds routers of a data centre that put routes into the kernel, this
//! builds one speaker with whatever a session can be configured to be.

mod bird;
mod exabgp;
mod frr;
mod gobgp;
mod openbgpd;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;

use crate::Namespace;
use crate::process::{self, Process, Program};
use crate::wait;

/// How long a speaker may take until its tool answers.
const START: Duration = Duration::from_secs(20);

/// BGP's port.
const PORT: u16 = 179;

/// Which speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// BIRD 2.
    Bird,
    /// FRR: `zebra` and `bgpd`.
    Frr,
    /// GoBGP.
    Gobgp,
    /// OpenBGPD, the portable one.
    Openbgpd,
    /// ExaBGP.
    Exabgp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Bird,
        Self::Frr,
        Self::Gobgp,
        Self::Openbgpd,
        Self::Exabgp,
    ];

    /// Its name as its makers write it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
            Self::Openbgpd => "OpenBGPD",
            Self::Exabgp => "ExaBGP",
        }
    }

    /// What is missing for it on this machine, if anything.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let (programs, package): (&[&str], &str) = match self {
            Self::Bird => (&["bird", "birdc"], "bird2"),
            Self::Frr => return crate::tor::Kind::Frr.missing(),
            Self::Gobgp => (&["gobgpd", "gobgp"], "gobgpd"),
            Self::Openbgpd => (&["bgpctl"], "openbgpd"),
            Self::Exabgp => (&["exabgp"], "exabgp"),
        };
        let mut programs = programs.iter();
        let missing = programs.find(|program| process::find(program).is_none())?;
        Some(format!(
            "{missing} not installed (apt-get install {package})"
        ))
    }

    /// The version that its program tells.
    ///
    /// # Errors
    /// When it is not installed, or tells none.
    pub fn version(self, namespace: &Namespace) -> Result<String> {
        let (program, argument) = match self {
            Self::Bird => (process::find("bird"), "--version"),
            Self::Frr => (crate::tor::frr::daemon("bgpd"), "--version"),
            Self::Gobgp => (process::find("gobgpd"), "--version"),
            Self::Openbgpd => (openbgpd::daemon(), "-V"),
            Self::Exabgp => (process::find("exabgp"), "--version"),
        };
        let output = Program::new(program.context(self.title())?)
            .arg(argument)
            .output(namespace)?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let mut words = text.split_whitespace();
        let version = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        Ok(version.context("a version")?.to_owned())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
            Self::Openbgpd => "openbgpd",
            Self::Exabgp => "exabgp",
        })
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

impl Family {
    /// Of a prefix.
    #[must_use]
    pub fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4,
            IpNet::V6(_) => Self::Ipv6,
        }
    }

    /// `ipv4`, as most of the tools have it.
    fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// Graceful restart as the speaker is configured for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Not at all.
    Off,
    /// Both roles, with this restart time in seconds.
    On(u16),
}

/// What a speaker is to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Whom it peers with.
    pub neighbours: Vec<Neighbour>,
    /// Routes that start at it.
    pub routes: Vec<Announcement>,
    /// The port that it listens on.
    pub port: u16,
    /// Where configuration, sockets and logs go.
    pub folder: PathBuf,
}

/// A session as the speaker is configured for it. It accepts what it hears and announces all it has.
#[derive(Debug, Clone)]
pub struct Neighbour {
    /// The neighbour's address.
    pub address: IpAddr,
    /// The neighbour's AS.
    pub asn: u32,
    /// Its own address.
    pub local: IpAddr,
    /// Families.
    pub families: Vec<Family>,
    /// Hold time to propose, in seconds.
    pub hold_time: u16,
    /// It only waits.
    pub passive: bool,
    /// Graceful restart.
    pub restart: Restart,
    /// The TCP-MD5 password.
    pub password: Option<String>,
    /// GTSM for a directly connected neighbour.
    pub ttl_security: bool,
    /// The neighbour is further away.
    pub multihop: bool,
    /// It doesn't offer AS numbers of four octets.
    pub two_octet_as: bool,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// The most prefixes that it takes.
    pub max_prefix: Option<MaxPrefix>,
    /// The neighbour is its route reflector client.
    pub client: bool,
    /// It knows the neighbour only by this range, in which its address is.
    pub range: Option<IpNet>,
    /// Its OPEN offers so much that it needs the extended form (RFC 9072): BIRD and FRR can.
    pub extended_open: bool,
    /// The port that the neighbour listens on.
    pub port: u16,
}

/// How many prefixes of each family a speaker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPrefix {
    /// So many.
    pub limit: u32,
    /// What one more leads to.
    pub excess: Excess,
}

/// What more prefixes than the limit lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// A line in its log.
    Warn,
    /// What is too many is not taken, and the session stays.
    Block,
    /// The session ends, and may come back: at once with BIRD, after a minute with others.
    Restart,
    /// The session ends, until somebody intervenes.
    Stay,
}

impl Neighbour {
    /// An external IPv4 neighbour with a short hold time and nothing else.
    #[must_use]
    pub fn new(address: IpAddr, asn: u32, local: IpAddr) -> Self {
        Self {
            address,
            asn,
            local,
            families: vec![Family::Ipv4],
            hold_time: 9,
            passive: false,
            restart: Restart::Off,
            password: None,
            ttl_security: false,
            multihop: false,
            two_octet_as: false,
            extended_next_hop: false,
            max_prefix: None,
            client: false,
            range: None,
            extended_open: false,
            port: PORT,
        }
    }
}

/// A route of the speaker's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Its prefix.
    pub prefix: IpNet,
    /// NEXT_HOP, for GoBGP and ExaBGP: these find none of their own for a family that their connection is not of.
    pub next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF, for an internal session.
    pub local_pref: Option<u32>,
    /// Communities.
    pub communities: Vec<(u16, u16)>,
    /// Large communities.
    pub large: Vec<(u32, u32, u32)>,
    /// Extended communities: route targets.
    pub targets: Vec<(u16, u32)>,
}

impl Announcement {
    /// A route with the mandatory attributes only.
    #[must_use]
    pub fn new(prefix: IpNet) -> Self {
        Self {
            prefix,
            next_hop: None,
            med: None,
            local_pref: None,
            communities: Vec::new(),
            large: Vec::new(),
            targets: Vec::new(),
        }
    }

    fn is_plain(&self) -> bool {
        let plain = Self {
            next_hop: self.next_hop,
            ..Self::new(self.prefix)
        };
        *self == plain
    }
}

/// A route that the speaker has heard, as its tool shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// NEXT_HOP.
    pub next_hop: Option<IpAddr>,
    /// AS_PATH.
    pub as_path: Vec<u32>,
    /// ORIGIN: `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// MULTI_EXIT_DISC; tools don't tell an absent one from zero.
    pub med: u32,
    /// LOCAL_PREF; the tool's default where there is none.
    pub local_pref: Option<u32>,
    /// Communities: `65001:1`.
    pub communities: BTreeSet<String>,
    /// Large communities: `65001:1:2`.
    pub large: BTreeSet<String>,
    /// Extended communities: `rt:65001:1`, lower case.
    pub extended: BTreeSet<String>,
    /// Attributes that the speaker doesn't know: type and value.
    pub unknown: BTreeMap<u8, Vec<u8>>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<Ipv4Addr>,
    /// The speaker knows that its source is restarting.
    pub stale: bool,
}

/// A session, as the speaker's tool shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// It is up.
    pub established: bool,
    /// The hold time agreed on, in seconds, while it is up.
    pub hold_time: Option<u64>,
    /// Times that it came up, where the tool counts them.
    pub ups: Option<u64>,
    /// All that the tool prints about it.
    pub text: String,
}

/// A running speaker.
pub trait Peer: fmt::Debug + Send {
    /// Which one.
    fn kind(&self) -> Kind;

    /// What it says about its session with a neighbour.
    ///
    /// # Errors
    /// When it doesn't answer.
    fn session(&self, neighbour: IpAddr) -> Result<Session>;

    /// The routes that it has learned by BGP: of each prefix, its best path.
    ///
    /// # Errors
    /// When it doesn't answer.
    fn learned(&self, family: Family) -> Result<BTreeMap<IpNet, Learned>>;

    /// Announces a route of its own from now on.
    ///
    /// # Errors
    /// When it refuses.
    fn announce(&mut self, route: &Announcement) -> Result<()>;

    /// Announces one no longer.
    ///
    /// # Errors
    /// When it refuses.
    fn withdraw(&mut self, prefix: IpNet) -> Result<()>;

    /// Of a speaker that is not running: it will not have this route of its own when it is started again.
    ///
    /// # Errors
    /// When its configuration can't be written.
    fn forget(&mut self, prefix: IpNet) -> Result<()>;

    /// Asks a neighbour for its routes again (RFC 2918).
    ///
    /// # Errors
    /// When it refuses.
    fn refresh(&mut self, neighbour: IpAddr, family: Family) -> Result<()>;

    /// Shuts a session down, with a text for the neighbour's operator (RFC 9003).
    ///
    /// # Errors
    /// When it can't do that.
    fn shut_down(&mut self, neighbour: IpAddr, text: &str) -> Result<()>;

    /// Ends a session with an administrative reset: Cease with subcode 4, and no Hard Reset.
    ///
    /// # Errors
    /// When it can't do that.
    fn reset(&mut self, neighbour: IpAddr) -> Result<()>;

    /// All that it has logged.
    ///
    /// # Errors
    /// When there is no log.
    fn log(&self) -> Result<String>;

    /// Its processes.
    fn processes(&mut self) -> Vec<&mut Process>;

    /// `kill -9` of what speaks BGP.
    ///
    /// # Errors
    /// When it can't be killed.
    fn kill(&mut self) -> Result<()>;

    /// Starts it again, with the routes that it has been given, as one that restarts gracefully if it was configured to.
    ///
    /// # Errors
    /// When it can't be started.
    fn restart(&mut self) -> Result<()>;
}

/// Starts a speaker in `namespace`; returns when its tool answers.
///
/// # Errors
/// When it can't be configured or started.
pub fn start(kind: Kind, namespace: &Namespace, config: &Config) -> Result<Box<dyn Peer>> {
    if let Some(missing) = kind.missing() {
        bail!("no {kind} here: {missing}");
    }
    std::fs::create_dir_all(&config.folder)?;
    let config = config.clone();
    Ok(match kind {
        Kind::Bird => Box::new(bird::Bird::start(namespace, config)?),
        Kind::Frr => Box::new(frr::Frr::start(namespace, config)?),
        Kind::Gobgp => Box::new(gobgp::Gobgp::start(namespace, config)?),
        Kind::Openbgpd => Box::new(openbgpd::Openbgpd::start(namespace, config)?),
        Kind::Exabgp => Box::new(exabgp::Exabgp::start(namespace, config)?),
    })
}

/// Waits until `answers` does, and `process` runs.
fn wait_for<T>(process: &mut Process, mut answers: impl FnMut() -> Result<T>) -> Result<T> {
    let what = format!("{} to answer", process.name());
    wait::until(&what, START, || {
        process.check()?;
        answers()
    })
}

/// Replaces or adds a route.
fn put(routes: &mut Vec<Announcement>, route: &Announcement) {
    routes.retain(|other| other.prefix != route.prefix);
    routes.push(route.clone());
}

/// `(1,2) (3,4)` with `:` between the numbers and whatever else in between: communities as tools print them.
fn numbers(text: &str) -> BTreeSet<String> {
    text.split(['(', ')'])
        .map(|group| group.replace(' ', "").replace(',', ":"))
        .filter(|group| !group.is_empty())
        .collect()
}

/// Octets from `01 02 ff` or `0102ff`.
fn octets(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(&pair.iter().collect::<String>(), 16)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_and_octets_as_tools_print_them() {
        let both: BTreeSet<String> = ["65001:1".to_owned(), "65001:2".to_owned()].into();
        assert_eq!(numbers("(65001,1) (65001, 2)"), both);
        assert_eq!(numbers("(rt, 65001, 7)"), ["rt:65001:7".to_owned()].into());
        assert_eq!(octets("01 02 ff").unwrap(), [1, 2, 255]);
        assert_eq!(octets("0102ff").unwrap(), [1, 2, 255]);
    }
}
