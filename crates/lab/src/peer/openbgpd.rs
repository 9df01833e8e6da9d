//! OpenBGPD, asked and told by `bgpctl`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::Value;

use super::{
    Announcement, Config, Excess, Family, Kind, Learned, MaxPrefix, Neighbour, Peer, Session,
    octets, put, wait_for,
};
use crate::Namespace;
use crate::process::{self, Process, Program};

/// Where it locks itself up: the home of its user, which the lab's empty `/run` doesn't have.
const JAIL: &str = "/run/openbgpd";

#[derive(Debug)]
pub(super) struct Openbgpd {
    namespace: Namespace,
    config: Config,
    daemon: Process,
}

impl Openbgpd {
    pub(super) fn start(namespace: &Namespace, config: Config) -> Result<Self> {
        std::fs::create_dir_all(JAIL)?;
        write(&config)?;
        let program = Program::new(daemon().context("OpenBGPD's bgpd")?)
            .args(["-d", "-v", "-f"])
            .arg(config.folder.join("bgpd.conf"));
        let log = config.folder.join("bgpd.log");
        let daemon = Process::spawn(&config.name, namespace, program, log)?;
        let mut openbgpd = Self {
            namespace: namespace.clone(),
            config,
            daemon,
        };
        openbgpd.wait()?;
        Ok(openbgpd)
    }

    fn wait(&mut self) -> Result<()> {
        let (namespace, config) = (&self.namespace, &self.config);
        wait_for(&mut self.daemon, || {
            let answer = ask(namespace, config, &["-j", "show", "neighbor"])?;
            anyhow::ensure!(answer.contains("remote_addr"), "no neighbours yet");
            Ok(())
        })
    }

    fn ask(&self, question: &[&str]) -> Result<String> {
        ask(&self.namespace, &self.config, question)
    }

    fn ask_json(&self, question: &[&str]) -> Result<Value> {
        let mut words = vec!["-j"];
        words.extend(question);
        let text = self.ask(&words)?;
        serde_json::from_str(&text).with_context(|| format!("{question:?}: {text}"))
    }

    fn reload(&self) -> Result<()> {
        write(&self.config)?;
        self.ask(&["reload"]).map(drop)
    }
}

impl Peer for Openbgpd {
    fn kind(&self) -> Kind {
        Kind::Openbgpd
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session> {
        let answer = self.ask_json(&["show", "neighbor", &neighbour.to_string()])?;
        let session = answer["neighbors"].get(0).context("no such neighbour")?;
        let established = session["state"] == "Established";
        let plain = self.ask(&["show", "neighbor", &neighbour.to_string()])?;
        Ok(Session {
            established,
            hold_time: session["session"]["holdtime"]
                .as_u64()
                .filter(|_| established),
            ups: None,
            text: format!("{}\n{plain}", serde_json::to_string_pretty(session)?),
        })
    }

    fn learned(&self, family: Family) -> Result<BTreeMap<IpNet, Learned>> {
        let answer = self.ask_json(&["show", "rib", family.word(), "detail"])?;
        let mut learned = BTreeMap::new();
        for path in answer["rib"].as_array().into_iter().flatten() {
            let own = path["neighbor"]["description"] == "LOCAL";
            if !own && path["best"] == true {
                let prefix = path["prefix"].as_str().context("a prefix")?;
                learned.insert(prefix.parse()?, parse_route(path)?);
            }
        }
        Ok(learned)
    }

    fn announce(&mut self, route: &Announcement) -> Result<()> {
        put(&mut self.config.routes, route);
        self.reload()
    }

    fn withdraw(&mut self, prefix: IpNet) -> Result<()> {
        self.config.routes.retain(|route| route.prefix != prefix);
        self.reload()
    }

    fn forget(&mut self, prefix: IpNet) -> Result<()> {
        self.config.routes.retain(|route| route.prefix != prefix);
        write(&self.config)
    }

    fn refresh(&mut self, neighbour: IpAddr, _: Family) -> Result<()> {
        self.ask(&["neighbor", &neighbour.to_string(), "refresh"])
            .map(drop)
    }

    fn shut_down(&mut self, neighbour: IpAddr, text: &str) -> Result<()> {
        self.ask(&["neighbor", &neighbour.to_string(), "down", text])
            .map(drop)
    }

    fn reset(&mut self, neighbour: IpAddr) -> Result<()> {
        self.ask(&["neighbor", &neighbour.to_string(), "clear"])
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
        self.wait()
    }
}

/// Where OpenBGPD's daemon is: FRR's has the same name, elsewhere.
pub(super) fn daemon() -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/local/sbin"].iter();
    folders
        .map(|folder| PathBuf::from(folder).join("bgpd"))
        .find(|path| path.is_file())
}

fn ask(namespace: &Namespace, config: &Config, question: &[&str]) -> Result<String> {
    Program::new(process::find("bgpctl").context("bgpctl")?)
        .arg("-s")
        .arg(config.folder.join("bgpd.sock"))
        .args(question)
        .stdout(namespace)
}

/// A path of `bgpctl -j show rib detail`.
fn parse_route(path: &Value) -> Result<Learned> {
    let number = |name: &str| path[name].as_u64().and_then(|it| u32::try_from(it).ok());
    let text = |name: &str| path[name].as_str().unwrap_or_default();
    let list = |name: &str| {
        let values = path[name].as_array().into_iter().flatten();
        values
            .filter_map(Value::as_str)
            .map(|it| it.replace(' ', ":").to_lowercase())
            .collect()
    };
    let mut route = Learned {
        next_hop: text("exit_nexthop").parse().ok(),
        as_path: text("aspath")
            .split(' ')
            .filter_map(|it| it.parse().ok())
            .collect(),
        origin: text("origin").to_lowercase(),
        med: number("metric").unwrap_or(0),
        local_pref: number("localpref"),
        communities: list("communities"),
        large: list("large_communities"),
        extended: list("extended_communities"),
        stale: path["stale"] == true,
        ..Learned::default()
    };
    for attribute in path["attributes"].as_array().into_iter().flatten() {
        let name = attribute["type"].as_str().unwrap_or_default();
        match name {
            "Originator Id" => {
                route.originator_id = attribute["originator"]
                    .as_str()
                    .and_then(|it| it.parse().ok());
            }
            name if name.starts_with("Cluster") => {
                let clusters = attribute["cluster_list"].as_array().into_iter().flatten();
                let clusters = clusters.filter_map(|it| it.as_str()?.parse().ok());
                route.cluster_list = clusters.collect();
            }
            _ => {
                if let Some((_, code)) = name.split_once('#') {
                    let data = attribute["data"].as_str().unwrap_or_default();
                    route.unknown.insert(code.parse()?, octets(data)?);
                }
            }
        }
    }
    Ok(route)
}

fn write(config: &Config) -> Result<()> {
    let file = config.folder.join("bgpd.conf");
    std::fs::write(&file, render(config)?)?;
    // It takes no configuration that others may read.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    Ok(std::fs::set_permissions(file, mode)?)
}

fn render(config: &Config) -> Result<String> {
    let mut text = format!(
        "AS {}\nrouter-id {}\nsocket \"{}\"\nfib-update no\nlog updates\nconnect-retry 1\n",
        config.asn,
        config.router_id,
        config.folder.join("bgpd.sock").display()
    );
    for neighbour in &config.neighbours {
        writeln!(text, "listen on {} port {}", neighbour.local, config.port)?;
    }
    for route in &config.routes {
        text.push_str(&render_route(route)?);
    }
    for neighbour in &config.neighbours {
        text.push_str(&render_neighbour(neighbour)?);
    }
    text.push_str("allow from any\nallow to any\n");
    Ok(text)
}

fn render_route(route: &Announcement) -> Result<String> {
    let mut set = String::new();
    if let Some(med) = route.med {
        write!(set, " metric {med}")?;
    }
    if let Some(local_pref) = route.local_pref {
        write!(set, " localpref {local_pref}")?;
    }
    for (a, b) in &route.communities {
        write!(set, " community {a}:{b}")?;
    }
    for (a, b, c) in &route.large {
        write!(set, " large-community {a}:{b}:{c}")?;
    }
    for (a, b) in &route.targets {
        write!(set, " ext-community rt {a}:{b}")?;
    }
    Ok(match set.is_empty() {
        true => format!("network {}\n", route.prefix),
        false => format!("network {} set {{{set} }}\n", route.prefix),
    })
}

fn render_neighbour(neighbour: &Neighbour) -> Result<String> {
    let mut text = format!(
        "neighbor {} {{\n  remote-as {}\n  local-address {}\n  holdtime {}\n",
        neighbour
            .range
            .map_or_else(|| neighbour.address.to_string(), |range| range.to_string()),
        neighbour.asn,
        neighbour.local,
        neighbour.hold_time
    );
    if neighbour.port != super::PORT {
        writeln!(text, "  port {}", neighbour.port)?;
    }
    for family in &neighbour.families {
        let name = match family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        writeln!(text, "  announce {name} unicast")?;
    }
    text.push_str("  announce enhanced refresh yes\n");
    if !neighbour.families.contains(&Family::Ipv4) {
        text.push_str("  announce IPv4 none\n");
    }
    let options = [
        (neighbour.passive, "passive"),
        (neighbour.ttl_security, "ttl-security yes"),
        (neighbour.multihop, "multihop 8"),
        (neighbour.two_octet_as, "announce as-4byte no"),
        (neighbour.client, "route-reflector"),
    ];
    for (_, option) in options.iter().filter(|(wanted, _)| *wanted) {
        writeln!(text, "  {option}")?;
    }
    if let Some(password) = &neighbour.password {
        writeln!(text, "  tcp md5sig password {password}")?;
    }
    if let Some(MaxPrefix { limit, excess }) = neighbour.max_prefix {
        let more = match excess {
            Excess::Restart => " restart 1",
            Excess::Warn | Excess::Block | Excess::Stay => "",
        };
        writeln!(text, "  max-prefix {limit}{more}")?;
    }
    text.push_str("}\n");
    Ok(text)
}
