//! GoBGP. It has no way into the kernel of its own, and its way to FRR's `zebra` breaks with each release of that (3.10
//! panics on what zebra 8.4 says). So a `lab-router` beside it, an internal peer on the loopback, installs what it
//! selects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde_json::Value;

use super::{Config, Kind, Tor};
use crate::Namespace;
use crate::process::{self, Process, Program};

/// Where the installer dials from.
const INSTALLER: &str = "127.0.0.2";

/// What gobgp says for Established (`SessionState` of its API).
const ESTABLISHED: u64 = 6;

#[derive(Debug)]
pub(super) struct Gobgp {
    namespace: Namespace,
    networks: Vec<Ipv4Net>,
    daemon: Process,
    installer: Process,
}

impl Gobgp {
    pub(super) fn start(namespace: &Namespace, config: &Config) -> Result<Self> {
        let file = config.folder.join("gobgpd.toml");
        std::fs::write(&file, render(config)?)?;
        let program = Program::new(process::find("gobgpd").context("gobgpd")?)
            .arg("-f")
            .arg(&file)
            .args(["--pprof-disable", "--log-plain"]);
        let log = config.folder.join("gobgpd.log");
        let mut gobgp = Self {
            namespace: namespace.clone(),
            networks: config.networks.clone(),
            daemon: Process::spawn(&config.name, namespace, program, log)?,
            installer: installer(namespace, config)?,
        };
        gobgp.announce()?;
        Ok(gobgp)
    }

    /// Its configuration file knows no routes of its own: they are told to it once it answers.
    fn announce(&mut self) -> Result<()> {
        crate::wait::until("gobgpd", std::time::Duration::from_secs(10), || {
            self.daemon.check()?;
            for network in &self.networks {
                self.ask(&["global", "rib", "add", &network.to_string()])?;
            }
            Ok(())
        })
    }

    fn ask(&self, question: &[&str]) -> Result<String> {
        Program::new(process::find("gobgp").context("gobgp")?)
            .args(question)
            .stdout(&self.namespace)
    }
}

impl Tor for Gobgp {
    fn kind(&self) -> Kind {
        Kind::Gobgp
    }

    fn established(&self) -> Result<BTreeSet<Ipv4Addr>> {
        let peers: Value = serde_json::from_str(&self.ask(&["neighbor", "-j"])?)?;
        let peers = peers.as_array().into_iter().flatten();
        Ok(peers
            .map(|peer| &peer["state"])
            .filter(|state| state["session_state"].as_u64() == Some(ESTABLISHED))
            .filter_map(|state| state["neighbor_address"].as_str()?.parse().ok())
            .filter(|peer: &Ipv4Addr| !peer.is_loopback())
            .collect())
    }

    fn learned(&self) -> Result<BTreeMap<Ipv4Net, BTreeSet<IpAddr>>> {
        let table: Value = serde_json::from_str(&self.ask(&["global", "rib", "-j"])?)?;
        let mut learned = BTreeMap::new();
        for (prefix, paths) in table.as_object().into_iter().flatten() {
            // The best path comes first; an own one has no neighbour.
            let Some(path) = paths.get(0) else { continue };
            let attributes = path["attrs"].as_array().into_iter().flatten();
            let next_hops: BTreeSet<IpAddr> = attributes
                .filter_map(|attribute| attribute["nexthop"].as_str()?.parse().ok())
                .filter(|next_hop: &IpAddr| !next_hop.is_unspecified())
                .collect();
            if !next_hops.is_empty() {
                learned.insert(prefix.parse()?, next_hops);
            }
        }
        Ok(learned)
    }

    fn restart(&mut self) -> Result<()> {
        self.processes()
            .into_iter()
            .try_for_each(Process::restart)?;
        self.announce()
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.daemon, &mut self.installer]
    }
}

fn installer(namespace: &Namespace, config: &Config) -> Result<Process> {
    let program = Program::new(process::ours("lab-router")?)
        .args(["--asn", &config.asn.to_string()])
        .args(["--router-id", INSTALLER, "--address", INSTALLER])
        .args(["--listen-port", "1790"])
        .args(["--peer", &format!("127.0.0.1={}", config.asn)])
        .arg("--socket")
        .arg(config.folder.join("installer.sock"));
    let log = config.folder.join("installer.log");
    Process::spawn(
        &format!("{}'s routes", config.name),
        namespace,
        program,
        log,
    )
}

fn render(config: &Config) -> Result<String> {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{}\"\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{INSTALLER}\"\npeer-as = {}\n\
         [neighbors.transport.config]\npassive-mode = true\n",
        config.asn, config.router_id, config.asn
    );
    let hold = config.hold_time.as_secs();
    let restart = config.graceful_restart;
    for (peer, asn) in &config.peers {
        write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{peer}\"\npeer-as = {asn}\n\
             [neighbors.timers.config]\nconnect-retry = 5\nhold-time = {hold}\nkeepalive-interval = {}\n\
             idle-hold-time-after-reset = 1\n\
             [neighbors.graceful-restart.config]\nenabled = {restart}\nrestart-time = 120\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = {restart}\n",
            (hold / 3).max(1)
        )?;
    }
    Ok(text)
}
