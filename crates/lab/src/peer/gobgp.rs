//! GoBGP, asked and told by `gobgp`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde_json::Value;

use super::{
    Announcement, Config, Family, Kind, Learned, Neighbour, Peer, Restart, Session, put, wait_for,
};
use crate::Namespace;
use crate::process::{self, Process, Program};

/// What gobgp says for Established (`SessionState` of its API).
const ESTABLISHED: u64 = 6;

/// The attribute types that [`parse_route`] takes apart.
const AS_PATH: u64 = 2;

#[derive(Debug)]
pub(super) struct Gobgp {
    namespace: Namespace,
    config: Config,
    daemon: Process,
}

impl Gobgp {
    pub(super) fn start(namespace: &Namespace, config: Config) -> Result<Self> {
        let file = config.folder.join("gobgpd.toml");
        std::fs::write(&file, render(&config)?)?;
        // -r: it has restarted gracefully whenever it starts, as far as its peers are concerned.
        let mut program = Program::new(process::find("gobgpd").context("gobgpd")?)
            .arg("-f")
            .arg(&file)
            .args(["--pprof-disable", "--log-plain", "--log-level", "debug"]);
        let restarts = config.neighbours.iter();
        if restarts.into_iter().any(|it| it.restart != Restart::Off) {
            program = program.arg("-r");
        }
        let log = config.folder.join("gobgpd.log");
        let daemon = Process::spawn(&config.name, namespace, program, log)?;
        let mut gobgp = Self {
            namespace: namespace.clone(),
            config,
            daemon,
        };
        gobgp.announce_all()?;
        Ok(gobgp)
    }

    /// Its configuration file knows no routes of its own: they are told to it once it answers.
    fn announce_all(&mut self) -> Result<()> {
        let (namespace, config) = (&self.namespace, &self.config);
        wait_for(&mut self.daemon, || {
            let peers = ask(namespace, &["neighbor", "-j"])?;
            ensure!(
                peers.matches("neighbor_address").count()
                    >= config
                        .neighbours
                        .iter()
                        .filter(|it| it.range.is_none())
                        .count(),
                "it has not read its configuration yet"
            );
            Ok(())
        })?;
        let routes = &self.config.routes;
        routes.iter().try_for_each(|route| self.add(route))
    }

    fn add(&self, route: &Announcement) -> Result<()> {
        let mut words = vec![route.prefix.to_string()];
        let mut say = |name: &str, value: String| words.extend([name.to_owned(), value]);
        if let Some(next_hop) = route.next_hop {
            say("nexthop", next_hop.to_string());
        }
        if let Some(med) = route.med {
            say("med", med.to_string());
        }
        if let Some(local_pref) = route.local_pref {
            say("local-pref", local_pref.to_string());
        }
        let join = |values: Vec<String>| values.join(",");
        if !route.communities.is_empty() {
            let all = route.communities.iter();
            say(
                "community",
                join(all.map(|(a, b)| format!("{a}:{b}")).collect()),
            );
        }
        if !route.large.is_empty() {
            let all = route.large.iter();
            say(
                "large-community",
                join(all.map(|(a, b, c)| format!("{a}:{b}:{c}")).collect()),
            );
        }
        for (a, b) in &route.targets {
            say("rt", format!("{a}:{b}"));
        }
        let family = Family::of(&route.prefix);
        let mut command = vec!["global", "rib", "-a", family.word(), "add"];
        command.extend(words.iter().map(String::as_str));
        self.ask(&command).map(drop)
    }

    fn ask(&self, question: &[&str]) -> Result<String> {
        ask(&self.namespace, question)
    }
}

impl Peer for Gobgp {
    fn kind(&self) -> Kind {
        Kind::Gobgp
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session> {
        let answer = self.ask(&["neighbor", &neighbour.to_string(), "-j"])?;
        let peer: Value = serde_json::from_str(&answer)?;
        // A list of one in some versions.
        let peer = peer.get(0).unwrap_or(&peer);
        let established = peer["state"]["session_state"].as_u64() == Some(ESTABLISHED);
        let hold = peer["timers"]["state"]["negotiated_hold_time"].as_f64();
        // What it logs is part of what it says: the NOTIFICATION that it got is told nowhere else.
        Ok(Session {
            established,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a hold time in seconds"
            )]
            hold_time: hold.filter(|_| established).map(|hold| hold as u64),
            ups: None,
            text: answer,
        })
    }

    fn learned(&self, family: Family) -> Result<BTreeMap<IpNet, Learned>> {
        let answer = self.ask(&["global", "rib", "-j", "-a", family.word()])?;
        let table: Value = serde_json::from_str(&answer)?;
        let mut learned = BTreeMap::new();
        for (prefix, paths) in table.as_object().into_iter().flatten() {
            // The best one comes first; an own one has no source.
            let Some(path) = paths.get(0) else { continue };
            let own = path["source-id"].is_null() && path["neighbor-ip"].is_null();
            let route = parse_route(path)?;
            if !own && route.next_hop.is_some_and(|hop| !hop.is_unspecified()) {
                learned.insert(prefix.parse()?, route);
            }
        }
        Ok(learned)
    }

    fn announce(&mut self, route: &Announcement) -> Result<()> {
        put(&mut self.config.routes, route);
        self.add(route)
    }

    fn withdraw(&mut self, prefix: IpNet) -> Result<()> {
        self.config.routes.retain(|route| route.prefix != prefix);
        let family = Family::of(&prefix);
        let prefix = prefix.to_string();
        self.ask(&["global", "rib", "-a", family.word(), "del", &prefix])
            .map(drop)
    }

    fn forget(&mut self, prefix: IpNet) -> Result<()> {
        self.config.routes.retain(|route| route.prefix != prefix);
        Ok(())
    }

    fn refresh(&mut self, neighbour: IpAddr, family: Family) -> Result<()> {
        let neighbour = neighbour.to_string();
        self.ask(&["neighbor", &neighbour, "softresetin", "-a", family.word()])
            .map(drop)
    }

    fn shut_down(&mut self, neighbour: IpAddr, text: &str) -> Result<()> {
        self.ask(&[
            "neighbor",
            &neighbour.to_string(),
            "shutdown",
            "--reason",
            text,
        ])
        .map(drop)
    }

    fn reset(&mut self, neighbour: IpAddr) -> Result<()> {
        self.ask(&["neighbor", &neighbour.to_string(), "reset"])
            .map(drop)
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.daemon.log())?)
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.daemon]
    }

    fn kill(&mut self) -> Result<()> {
        self.daemon.kill()
    }

    fn restart(&mut self) -> Result<()> {
        self.daemon.restart()?;
        self.announce_all()
    }
}

fn ask(namespace: &Namespace, question: &[&str]) -> Result<String> {
    Program::new(process::find("gobgp").context("gobgp")?)
        .args(question)
        .stdout(namespace)
}

/// A path of `gobgp global rib -j`: attributes with their type codes.
fn parse_route(path: &Value) -> Result<Learned> {
    let mut route = Learned {
        stale: path["stale"] == true,
        ..Learned::default()
    };
    let number = |value: &Value| value.as_u64().and_then(|it| u32::try_from(it).ok());
    for attribute in path["attrs"].as_array().into_iter().flatten() {
        let code = attribute["type"].as_u64().context("a type")?;
        let list = |name: &str| attribute[name].as_array().cloned().unwrap_or_default();
        match code {
            1 => {
                let names = ["igp", "egp", "incomplete"];
                let name = number(&attribute["value"]).and_then(|it| names.get(it as usize));
                route.origin = (*name.context("an origin")?).to_owned();
            }
            AS_PATH => {
                let segments = list("as_paths");
                let asns = segments
                    .iter()
                    .flat_map(|it| it["asns"].as_array())
                    .flatten();
                route.as_path = asns.filter_map(number).collect();
            }
            3 | 14 => {
                route.next_hop = attribute["nexthop"].as_str().and_then(|it| it.parse().ok());
            }
            4 => route.med = number(&attribute["metric"]).unwrap_or(0),
            5 => route.local_pref = number(&attribute["value"]),
            8 => {
                let values = list("communities");
                let values = values.iter().filter_map(number);
                route.communities = values
                    .map(|it| format!("{}:{}", it >> 16, it & 0xffff))
                    .collect();
            }
            9 => {
                route.originator_id = attribute["value"].as_str().and_then(|it| it.parse().ok());
            }
            10 => {
                let values = list("value");
                let values = values.iter().filter_map(|it| it.as_str()?.parse().ok());
                route.cluster_list = values.collect();
            }
            16 => {
                let values = list("value");
                let values = values.iter().filter_map(|it| it["value"].as_str());
                route.extended = values.map(|it| format!("rt:{it}")).collect();
            }
            32 => {
                let values = list("value");
                let values = values
                    .iter()
                    .map(|it| format!("{}:{}:{}", it["ASN"], it["LocalData1"], it["LocalData2"]));
                route.large = values.collect();
            }
            code => {
                let value = attribute["value"].as_str().unwrap_or_default();
                route.unknown.insert(u8::try_from(code)?, base64(value));
            }
        }
    }
    Ok(route)
}

/// Octets from base64, as Go writes them into JSON.
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|it| *it == byte));
    let bits: Vec<bool> = digits
        .flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1 == 1))
        .collect();
    let octets = bits.chunks_exact(8);
    octets
        .map(|octet| octet.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit)))
        .collect()
}

fn render(config: &Config) -> Result<String> {
    let locals: Vec<String> = config
        .neighbours
        .iter()
        .map(|it| format!("\"{}\"", it.local))
        .collect();
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{}\"\nport = {}\nlocal-address-list = [{}]\n",
        config.asn,
        config.router_id,
        config.port,
        locals.join(", ")
    );
    for neighbour in &config.neighbours {
        text.push_str(&render_neighbour(neighbour)?);
    }
    Ok(text)
}

fn render_neighbour(neighbour: &Neighbour) -> Result<String> {
    let mut text = match neighbour.range {
        Some(range) => format!(
            "[[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"{range}\"\npeer-group = \"range\"\n\
             [[peer-groups]]\n[peer-groups.config]\npeer-group-name = \"range\"\npeer-as = {}\n",
            neighbour.asn
        ),
        None => format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n",
            neighbour.address, neighbour.asn
        ),
    };
    if let Some(password) = &neighbour.password {
        writeln!(text, "auth-password = \"{password}\"")?;
    }
    write!(
        text,
        "[neighbors.timers.config]\nconnect-retry = 1\nhold-time = {}\nkeepalive-interval = {}\n\
         idle-hold-time-after-reset = 1\n\
         [neighbors.transport.config]\npassive-mode = {}\nlocal-address = \"{}\"\nremote-port = {}\n",
        neighbour.hold_time,
        neighbour.hold_time / 3,
        neighbour.passive,
        neighbour.local,
        neighbour.port
    )?;
    if neighbour.ttl_security {
        text.push_str("[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n");
    }
    if neighbour.multihop {
        text.push_str("[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 8\n");
    }
    if neighbour.client {
        text.push_str("[neighbors.route-reflector.config]\nroute-reflector-client = true\n");
    }
    let restarts = neighbour.restart != Restart::Off;
    if let Restart::On(time) = neighbour.restart {
        write!(
            text,
            "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {time}\n\
             deferral-time = 15\nnotification-enabled = true\n"
        )?;
    }
    for family in &neighbour.families {
        write!(
            text,
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{}-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = {restarts}\n",
            family.word()
        )?;
        if let Some(most) = neighbour.max_prefix {
            writeln!(
                text,
                "[neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = {}\nshutdown-threshold-pct = 100",
                most.limit
            )?;
        }
    }
    // Whoever comes from a range is as its group is.
    Ok(match neighbour.range {
        Some(_) => text
            .replace("[neighbors.", "[peer-groups.")
            .replace("dynamic-peer-groups", "dynamic-neighbors"),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_as_go_writes_them() {
        assert_eq!(base64("AQIDBA=="), [1, 2, 3, 4]);
        assert_eq!(base64("/w=="), [255]);
        assert!(base64("").is_empty());
    }
}
