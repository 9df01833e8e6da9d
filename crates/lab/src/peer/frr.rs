//! FRR, asked and told by `vtysh`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde_json::Value;

use super::{
    Announcement, Config, Excess, Family, Kind, Learned, MaxPrefix, Neighbour, Peer, Restart,
    Session, put, wait_for,
};
use crate::Namespace;
use crate::process::{self, Process, Program};
use crate::tor::frr::{start_daemon, start_zebra};

/// Families that make an OPEN long.
const OTHER_FAMILIES: [&str; 8] = [
    "ipv6 unicast",
    "ipv4 multicast",
    "ipv4 vpn",
    "ipv4 flowspec",
    "ipv6 multicast",
    "ipv6 vpn",
    "ipv6 flowspec",
    "l2vpn evpn",
];

/// Large communities in one line of configuration.
const LINE: usize = 20;

#[derive(Debug)]
pub(super) struct Frr {
    namespace: Namespace,
    config: Config,
    zebra: Process,
    bgpd: Process,
}

impl Frr {
    pub(super) fn start(namespace: &Namespace, config: Config) -> Result<Self> {
        let zebra = start_zebra(&config.name, namespace, &config.folder)?;
        std::fs::write(config.folder.join("bgpd.conf"), render(&config)?)?;
        let port = config.port.to_string();
        let port = ["-p", &port];
        let bgpd = start_daemon("bgpd", &config.name, namespace, &config.folder, &port)?;
        let mut frr = Self {
            namespace: namespace.clone(),
            config,
            zebra,
            bgpd,
        };
        frr.wait()?;
        Ok(frr)
    }

    fn wait(&mut self) -> Result<()> {
        let (namespace, config) = (&self.namespace, &self.config);
        wait_for(&mut self.bgpd, || {
            let said = vtysh(namespace, config, &["show bgp neighbors json"])?;
            let first = config.neighbours.first();
            let known =
                first.is_none_or(|it| it.range.is_some() || said.contains(&it.address.to_string()));
            ensure!(known, "it has not read its configuration yet");
            Ok(())
        })
    }

    fn ask(&self, commands: &[&str]) -> Result<String> {
        vtysh(&self.namespace, &self.config, commands)
    }

    fn ask_json(&self, question: &str) -> Result<Value> {
        let text = self.ask(&[question])?;
        serde_json::from_str(&text).with_context(|| format!("{question}: {text}"))
    }

    /// Changes the running configuration.
    fn configure(&self, text: &str) -> Result<()> {
        let mut commands = vec!["configure terminal"];
        commands.extend(text.lines());
        let said = self.ask(&commands)?;
        ensure!(!said.contains('%'), "vtysh: {said}");
        Ok(())
    }
}

impl Peer for Frr {
    fn kind(&self) -> Kind {
        Kind::Frr
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session> {
        let all = self.ask_json(&format!("show bgp neighbors {neighbour} json"))?;
        let session = &all[neighbour.to_string()];
        let hold = session["bgpTimerHoldTimeMsecs"].as_u64();
        let established = session["bgpState"] == "Established";
        Ok(Session {
            established,
            hold_time: hold.filter(|_| established).map(|hold| hold / 1000),
            ups: session["connectionsEstablished"].as_u64(),
            text: serde_json::to_string_pretty(session)?,
        })
    }

    fn learned(&self, family: Family) -> Result<BTreeMap<IpNet, Learned>> {
        let name = family.word();
        let table = self.ask_json(&format!("show bgp {name} unicast json"))?;
        let mut learned = BTreeMap::new();
        for (prefix, paths) in table["routes"].as_object().into_iter().flatten() {
            let mut paths = paths.as_array().into_iter().flatten();
            // One of its own comes from itself.
            let heard = paths.any(|path| {
                path["peerId"] != "(unspec)" && (path["bestpath"] == true || path["stale"] == true)
            });
            if heard {
                let detail = self.ask_json(&format!("show bgp {name} unicast {prefix} json"))?;
                learned.insert(prefix.parse()?, parse_route(&detail)?);
            }
        }
        Ok(learned)
    }

    fn announce(&mut self, route: &Announcement) -> Result<()> {
        put(&mut self.config.routes, route);
        let mut text = render_map(route)?;
        writeln!(
            text,
            "router bgp {}\naddress-family {} unicast\n{}",
            self.config.asn,
            Family::of(&route.prefix).word(),
            network(route)
        )?;
        self.configure(&text)
    }

    fn withdraw(&mut self, prefix: IpNet) -> Result<()> {
        self.config.routes.retain(|route| route.prefix != prefix);
        self.configure(&format!(
            "router bgp {}\naddress-family {} unicast\nno network {prefix}",
            self.config.asn,
            Family::of(&prefix).word()
        ))
    }

    fn forget(&mut self, prefix: IpNet) -> Result<()> {
        self.config.routes.retain(|route| route.prefix != prefix);
        Ok(())
    }

    fn refresh(&mut self, neighbour: IpAddr, family: Family) -> Result<()> {
        let command = format!("clear bgp {} unicast {neighbour} soft in", family.word());
        self.ask(&[&command]).map(drop)
    }

    fn shut_down(&mut self, neighbour: IpAddr, text: &str) -> Result<()> {
        self.configure(&format!(
            "router bgp {}\nneighbor {neighbour} shutdown message {text}",
            self.config.asn
        ))
    }

    fn reset(&mut self, neighbour: IpAddr) -> Result<()> {
        self.ask(&[&format!("clear bgp {neighbour}")]).map(drop)
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.bgpd.log())?)
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.zebra, &mut self.bgpd]
    }

    /// `bgpd` alone: `zebra` keeps the kernel's routes for it.
    fn kill(&mut self) -> Result<()> {
        self.bgpd.kill()
    }

    fn restart(&mut self) -> Result<()> {
        std::fs::write(self.config.folder.join("bgpd.conf"), render(&self.config)?)?;
        self.bgpd.restart()?;
        self.wait()
    }
}

fn vtysh(namespace: &Namespace, config: &Config, commands: &[&str]) -> Result<String> {
    let mut program = Program::new(process::find("vtysh").context("vtysh")?)
        .arg("--vty_socket")
        .arg(&config.folder)
        .args(["-d", "bgpd"]);
    for command in commands {
        program = program.args(["-c", command]);
    }
    program.stdout(namespace)
}

/// `show bgp ipv4 unicast PREFIX json`: all paths of it.
fn parse_route(detail: &Value) -> Result<Learned> {
    let mut paths = detail["paths"].as_array().into_iter().flatten();
    let path = paths
        .find(|path| path["bestpath"]["overall"] == true || path["stale"] == true)
        .context("a best path")?;
    let number = |value: &Value| value.as_u64().and_then(|it| u32::try_from(it).ok());
    let words = |value: &Value| {
        let text = value.as_str().unwrap_or_default().to_lowercase();
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(ToOwned::to_owned)
            .collect()
    };
    let segments = path["aspath"]["segments"].as_array().into_iter().flatten();
    let next_hop = path["nexthops"].as_array().into_iter().flatten();
    let mut next_hop = next_hop.filter(|it| it["scope"] != "link-local");
    let cluster = path["clusterList"]["list"].as_array().into_iter().flatten();
    Ok(Learned {
        next_hop: next_hop.find_map(|it| it["ip"].as_str()?.parse().ok()),
        as_path: segments
            .flat_map(|segment| segment["list"].as_array().into_iter().flatten())
            .filter_map(number)
            .collect(),
        origin: path["origin"].as_str().unwrap_or_default().to_lowercase(),
        med: number(&path["metric"]).unwrap_or(0),
        local_pref: number(&path["locPrf"]),
        communities: words(&path["community"]["string"]),
        large: words(&path["largeCommunity"]["string"]),
        extended: words(&path["extendedCommunity"]["string"]),
        unknown: BTreeMap::new(),
        originator_id: path["originatorId"].as_str().and_then(|it| it.parse().ok()),
        cluster_list: cluster.filter_map(|it| it.as_str()?.parse().ok()).collect(),
        stale: path["stale"] == true,
    })
}

fn render(config: &Config) -> Result<String> {
    let mut text = "log stdout debugging\ndebug bgp neighbor-events\n".to_owned();
    write!(
        text,
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         no bgp default ipv4-unicast\n bgp log-neighbor-changes\n",
        config.asn, config.router_id
    )?;
    let restart = config.neighbours.iter().find_map(|it| match it.restart {
        Restart::On(time) => Some(time),
        Restart::Off => None,
    });
    match restart {
        Some(time) => write!(
            text,
            " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n \
             bgp graceful-restart restart-time {time}\n bgp graceful-restart stalepath-time {}\n \
             bgp graceful-restart select-defer-time 15\n bgp graceful-restart notification\n no bgp hard-administrative-reset\n",
            time + 60
        )?,
        None => text.push_str(" bgp graceful-restart-disable\n"),
    }
    if config.neighbours.iter().any(|it| it.extended_open) {
        text.push_str(" bgp long-lived-graceful-restart stale-time 60\n");
    }
    for neighbour in &config.neighbours {
        text.push_str(&render_neighbour(neighbour)?);
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        writeln!(text, " address-family {} unicast", family.word())?;
        let routes = config.routes.iter();
        for route in routes.filter(|route| Family::of(&route.prefix) == family) {
            writeln!(text, "  {}", network(route))?;
        }
        let neighbours = config.neighbours.iter();
        for neighbour in neighbours.filter(|it| it.families.contains(&family)) {
            let whom = whom(neighbour);
            writeln!(text, "  neighbor {whom} activate")?;
            if neighbour.client {
                writeln!(text, "  neighbor {whom} route-reflector-client")?;
            }
            if let Some(MaxPrefix { limit, excess }) = neighbour.max_prefix {
                let more = match excess {
                    Excess::Warn => " warning-only",
                    Excess::Restart => " restart 1",
                    Excess::Block | Excess::Stay => "",
                };
                writeln!(text, "  neighbor {whom} maximum-prefix {limit}{more}")?;
            }
        }
        text.push_str(" exit-address-family\n");
    }
    for neighbour in config.neighbours.iter().filter(|it| it.extended_open) {
        let whom = whom(neighbour);
        for family in OTHER_FAMILIES {
            write!(
                text,
                " address-family {family}\n  neighbor {whom} activate\n exit-address-family\n"
            )?;
        }
    }
    text.push_str("exit\n");
    for route in &config.routes {
        text.push_str(&render_map(route)?);
    }
    Ok(text)
}

fn render_neighbour(neighbour: &Neighbour) -> Result<String> {
    let address = whom(neighbour);
    let hold = neighbour.hold_time;
    let mut text = String::new();
    if neighbour.range.is_some() {
        writeln!(text, " neighbor {address} peer-group")?;
    }
    write!(
        text,
        " neighbor {address} remote-as {}\n neighbor {address} timers {} {hold}\n \
         neighbor {address} timers connect 1\n neighbor {address} advertisement-interval 0\n \
         neighbor {address} update-source {}\n",
        neighbour.asn,
        hold / 3,
        neighbour.local
    )?;
    let options = [
        (neighbour.passive, "passive"),
        (neighbour.ttl_security, "ttl-security hops 1"),
        (neighbour.multihop, "ebgp-multihop 8"),
        (neighbour.extended_next_hop, "capability extended-nexthop"),
        // It can't leave out one capability, but all of them.
        (neighbour.two_octet_as, "dont-capability-negotiate"),
    ];
    for (_, option) in options.iter().filter(|(wanted, _)| *wanted) {
        writeln!(text, " neighbor {address} {option}")?;
    }
    if neighbour.extended_open {
        writeln!(text, " neighbor {address} capability dynamic")?;
        writeln!(text, " neighbor {address} capability extended-nexthop")?;
    }
    if let Some(password) = &neighbour.password {
        writeln!(text, " neighbor {address} password {password}")?;
    }
    if neighbour.port != super::PORT {
        writeln!(text, " neighbor {address} port {}", neighbour.port)?;
    }
    if let Some(range) = neighbour.range {
        writeln!(text, " bgp listen range {range} peer-group {address}")?;
    }
    Ok(text)
}

/// What a neighbour's lines of configuration are about: itself, or the group of those who come from its range.
fn whom(neighbour: &Neighbour) -> String {
    match neighbour.range {
        Some(_) => format!("range-{}", neighbour.asn),
        None => neighbour.address.to_string(),
    }
}

/// The name of the route map that gives a route its attributes.
fn map_name(route: &Announcement) -> String {
    format!("own-{}", route.prefix.to_string().replace(['/', ':'], "-"))
}

fn network(route: &Announcement) -> String {
    match route.is_plain() {
        true => format!("network {}", route.prefix),
        false => format!("network {} route-map {}", route.prefix, map_name(route)),
    }
}

fn render_map(route: &Announcement) -> Result<String> {
    if route.is_plain() {
        return Ok(String::new());
    }
    let name = map_name(route);
    let mut text = format!("route-map {name} permit 10\n");
    if let Some(med) = route.med {
        writeln!(text, " set metric {med}")?;
    }
    if let Some(local_pref) = route.local_pref {
        writeln!(text, " set local-preference {local_pref}")?;
    }
    let mut list = |kind: &str, values: Vec<String>| {
        if !values.is_empty() {
            text.push_str(&format!(" set {kind} {}\n", values.join(" ")));
        }
    };
    let communities = route.communities.iter();
    list(
        "community",
        communities.map(|(a, b)| format!("{a}:{b}")).collect(),
    );
    let targets = route.targets.iter();
    list(
        "extcommunity rt",
        targets.map(|(a, b)| format!("{a}:{b}")).collect(),
    );
    // A line has an end, so a long list takes several entries.
    for (number, part) in (2..).zip(route.large.chunks(LINE)) {
        let part: Vec<String> = part
            .iter()
            .map(|(a, b, c)| format!("{a}:{b}:{c}"))
            .collect();
        write!(
            text,
            " on-match next\nexit\nroute-map {name} permit {}\n set large-community {} additive\n",
            10 * number,
            part.join(" ")
        )?;
    }
    text.push_str("exit\n");
    Ok(text)
}
