//! BIRD 2.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use super::{Config, Kind, Tor};
use crate::Namespace;
use crate::process::{self, Process, Program};

#[derive(Debug)]
pub(super) struct Bird {
    namespace: Namespace,
    control: PathBuf,
    daemon: Process,
}

impl Bird {
    pub(super) fn start(namespace: &Namespace, config: &Config) -> Result<Self> {
        let file = config.folder.join("bird.conf");
        let control = config.folder.join("bird.ctl");
        std::fs::write(&file, render(config)?)?;
        let program = Program::new(process::find("bird").context("bird")?)
            .args(["-f", "-c"])
            .arg(&file)
            .arg("-s")
            .arg(&control)
            .arg("-P")
            .arg(config.folder.join("bird.pid"));
        let log = config.folder.join("bird.log");
        Ok(Self {
            namespace: namespace.clone(),
            control,
            daemon: Process::spawn(&config.name, namespace, program, log)?,
        })
    }

    fn ask(&self, question: &[&str]) -> Result<String> {
        Program::new(process::find("birdc").context("birdc")?)
            .args(["-r", "-s"])
            .arg(&self.control)
            .args(question)
            .stdout(&self.namespace)
    }
}

impl Tor for Bird {
    fn kind(&self) -> Kind {
        Kind::Bird
    }

    fn established(&self) -> Result<BTreeSet<Ipv4Addr>> {
        let text = self.ask(&["show", "protocols", "all"])?;
        let mut up = BTreeSet::new();
        let mut established = false;
        for line in text.lines().map(str::trim) {
            if let Some(state) = line.strip_prefix("BGP state:") {
                established = state.trim() == "Established";
            } else if let Some(address) = line.strip_prefix("Neighbor address:")
                && established
            {
                up.insert(address.trim().parse()?);
            }
        }
        Ok(up)
    }

    fn learned(&self) -> Result<BTreeMap<Ipv4Net, BTreeSet<IpAddr>>> {
        let text = self.ask(&[
            "show", "route", "primary", "where", "source", "=", "RTS_BGP",
        ])?;
        Ok(parse_routes(&text))
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.daemon]
    }
}

/// `PREFIX  unicast [protocol since] * (100) [AS…]`, then a line `via ADDRESS on LINK` for each next hop.
fn parse_routes(text: &str) -> BTreeMap<Ipv4Net, BTreeSet<IpAddr>> {
    let mut routes: BTreeMap<Ipv4Net, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("via") => {
                let next_hop = words.next().and_then(|word| word.parse().ok());
                if let (Some(prefix), Some(next_hop)) = (current, next_hop) {
                    routes.entry(prefix).or_default().insert(next_hop);
                }
            }
            Some(word) => current = word.parse().ok().or(current),
            None => {}
        }
    }
    routes
}

fn render(config: &Config) -> Result<String> {
    let mut text = format!(
        "log stderr all;\n\
         router id {};\n\
         graceful restart wait 60;\n\
         protocol device {{ scan time 5; }}\n\
         protocol kernel {{\n  merge paths on;\n  graceful restart on;\n  ipv4 {{ import none; export where source = RTS_BGP; }};\n}}\n\
         protocol static own_networks {{\n  ipv4;\n",
        config.router_id
    );
    for network in &config.networks {
        // Only told to others: the kernel has the connected route.
        writeln!(text, "  route {network} unreachable;")?;
    }
    text.push_str("}\n");
    let restart = match config.graceful_restart {
        true => "graceful restart on;\n  graceful restart time 120;",
        false => "graceful restart off;",
    };
    for (number, (peer, asn)) in config.peers.iter().enumerate() {
        write!(
            text,
            "protocol bgp peer{number} {{\n  \
               local as {};\n  neighbor {peer} as {asn};\n  \
               connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 4;\n  hold time {};\n  \
               {restart}\n  \
               ipv4 {{ import all; export all; next hop self off; }};\n}}\n",
            config.asn,
            config.hold_time.as_secs()
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_as_birdc_prints_them() {
        let text = "BIRD 2.0.12 ready.\nTable master4:\n\
            10.244.1.0/24        unicast [peer0 20:31:02.123] * (100) [AS4200010011i]\n\
            \tvia 172.20.1.11 on rack\n\
            10.244.2.0/24        unicast [peer1 20:31:02.123] * (100) [AS4200010012i]\n\
            \tvia 172.20.1.12 on rack weight 1\n\tvia 172.20.1.13 on rack weight 1\n";
        let routes = parse_routes(text);
        let hops = |prefix: &str| routes[&prefix.parse().unwrap()].len();
        assert_eq!(routes.len(), 2);
        assert_eq!(hops("10.244.1.0/24"), 1);
        assert_eq!(hops("10.244.2.0/24"), 2);
    }
}
