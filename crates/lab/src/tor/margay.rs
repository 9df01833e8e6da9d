//! Margay's own speaker as a router: the program `lab-router`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use super::{Config, Kind, Tor};
use crate::Namespace;
use crate::process::{self, Process, Program};
use crate::router::State;

#[derive(Debug)]
pub(super) struct Margay {
    socket: PathBuf,
    daemon: Process,
}

impl Margay {
    pub(super) fn start(namespace: &Namespace, config: &Config) -> Result<Self> {
        let socket = config.folder.join("router.sock");
        let mut program = Program::new(process::ours("lab-router")?)
            .args(["--asn", &config.asn.to_string()])
            .args(["--router-id", &config.router_id.to_string()])
            .args(["--hold-time", &config.hold_time.as_secs().to_string()])
            .arg("--socket")
            .arg(&socket);
        if !config.graceful_restart {
            program = program.arg("--no-graceful-restart");
        }
        for network in &config.networks {
            program = program.args(["--network", &network.to_string()]);
        }
        for (peer, asn) in &config.peers {
            program = program.args(["--peer", &format!("{peer}={asn}")]);
        }
        let log = config.folder.join("router.log");
        Ok(Self {
            socket,
            daemon: Process::spawn(&config.name, namespace, program, log)?,
        })
    }

    fn state(&self) -> Result<State> {
        let mut text = String::new();
        UnixStream::connect(&self.socket)
            .with_context(|| format!("ask {}", self.daemon.name()))?
            .read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }
}

impl Tor for Margay {
    fn kind(&self) -> Kind {
        Kind::Margay
    }

    fn established(&self) -> Result<BTreeSet<Ipv4Addr>> {
        let peers = self.state()?.established.into_iter();
        Ok(peers
            .filter_map(|peer| match peer {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .collect())
    }

    fn learned(&self) -> Result<BTreeMap<Ipv4Net, BTreeSet<IpAddr>>> {
        Ok(self.state()?.learned)
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.daemon]
    }
}
