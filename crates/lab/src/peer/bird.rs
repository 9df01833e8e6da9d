//! BIRD 2, asked and told by `birdc`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use super::{
    Announcement, Config, Excess, Family, Kind, Learned, MaxPrefix, Neighbour, Peer, Restart,
    Session, numbers, octets, put, wait_for,
};
use crate::Namespace;
use crate::process::{self, Process, Program};

/// Channels that make an OPEN long.
const OTHER_CHANNELS: [&str; 9] = [
    "ipv6",
    "ipv4 mpls",
    "ipv6 mpls",
    "ipv4 multicast",
    "ipv6 multicast",
    "vpn4 mpls",
    "vpn6 mpls",
    "flow4",
    "flow6",
];

#[derive(Debug)]
pub(super) struct Bird {
    namespace: Namespace,
    config: Config,
    control: PathBuf,
    daemon: Process,
}

impl Bird {
    pub(super) fn start(namespace: &Namespace, config: Config) -> Result<Self> {
        let control = config.folder.join("bird.ctl");
        write(&config)?;
        // -R: it recovers from a graceful restart whenever it starts (RFC 4724 §4.1).
        let program = Program::new(process::find("bird").context("bird")?)
            .args(["-f", "-R", "-c"])
            .arg(config.folder.join("bird.conf"))
            .arg("-s")
            .arg(&control)
            .arg("-P")
            .arg(config.folder.join("bird.pid"));
        let log = config.folder.join("bird.log");
        let daemon = Process::spawn(&config.name, namespace, program, log)?;
        let mut bird = Self {
            namespace: namespace.clone(),
            config,
            control,
            daemon,
        };
        bird.wait()?;
        Ok(bird)
    }

    fn wait(&mut self) -> Result<()> {
        let (namespace, control) = (&self.namespace, &self.control);
        wait_for(&mut self.daemon, || {
            ask(namespace, control, &["show", "status"])
        })
        .map(drop)
    }

    fn ask(&self, question: &[&str]) -> Result<String> {
        ask(&self.namespace, &self.control, question)
    }

    /// The name of the protocol that is the session with a neighbour.
    fn protocol(&self, neighbour: IpAddr) -> Result<String> {
        let mut neighbours = self.config.neighbours.iter();
        let position = neighbours.position(|it| it.address == neighbour);
        let number = position.context("no such neighbour")?;
        Ok(match self.config.neighbours[number].range {
            Some(_) => format!("peer{number}x1"),
            None => format!("peer{number}"),
        })
    }

    fn configure(&self) -> Result<()> {
        write(&self.config)?;
        let said = self.ask(&["configure", "soft"])?;
        ensure!(said.contains("Reconfigur"), "birdc configure: {said}");
        Ok(())
    }
}

impl Peer for Bird {
    fn kind(&self) -> Kind {
        Kind::Bird
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session> {
        let text = self.ask(&["show", "protocols", "all", &self.protocol(neighbour)?])?;
        let field = |name: &str| {
            let mut lines = text.lines().map(str::trim);
            lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let hold = field("Hold timer:");
        let hold = hold.and_then(|timer| timer.rsplit_once('/')?.1.parse().ok());
        Ok(Session {
            established: field("BGP state:").is_some_and(|state| state == "Established"),
            hold_time: hold,
            ups: None,
            text,
        })
    }

    fn learned(&self, family: Family) -> Result<BTreeMap<IpNet, Learned>> {
        let table = match family {
            Family::Ipv4 => "master4",
            Family::Ipv6 => "master6",
        };
        let question = [
            "show", "route", "table", table, "primary", "all", "where", "source", "=", "RTS_BGP",
        ];
        let mut routes = parse_routes(&self.ask(&question)?)?;
        // Routes that are stale are not marked, but the session that they came by is.
        let sessions = self.ask(&["show", "protocols", "all"])?;
        if sessions.contains("graceful restart active") {
            routes.values_mut().for_each(|route| route.stale = true);
        }
        Ok(routes)
    }

    fn announce(&mut self, route: &Announcement) -> Result<()> {
        put(&mut self.config.routes, route);
        self.configure()
    }

    fn withdraw(&mut self, prefix: IpNet) -> Result<()> {
        self.config.routes.retain(|route| route.prefix != prefix);
        self.configure()
    }

    fn forget(&mut self, prefix: IpNet) -> Result<()> {
        self.config.routes.retain(|route| route.prefix != prefix);
        write(&self.config)
    }

    fn refresh(&mut self, neighbour: IpAddr, _: Family) -> Result<()> {
        self.ask(&["reload", "in", &self.protocol(neighbour)?])
            .map(drop)
    }

    fn shut_down(&mut self, neighbour: IpAddr, text: &str) -> Result<()> {
        let text = format!("\"{text}\"");
        self.ask(&["disable", &self.protocol(neighbour)?, &text])
            .map(drop)
    }

    fn reset(&mut self, neighbour: IpAddr) -> Result<()> {
        self.ask(&["restart", &self.protocol(neighbour)?]).map(drop)
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

fn ask(namespace: &Namespace, control: &PathBuf, question: &[&str]) -> Result<String> {
    Program::new(process::find("birdc").context("birdc")?)
        .arg("-s")
        .arg(control)
        .args(question)
        .stdout(namespace)
}

/// A line `PREFIX  unicast [protocol since] * (100) [AS…]`, and below it lines `BGP.attribute: value`; an attribute
/// that BIRD doesn't know is named by its type in hexadecimal digits.
fn parse_routes(text: &str) -> Result<BTreeMap<IpNet, Learned>> {
    let mut routes: BTreeMap<IpNet, Learned> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let (false, Ok(prefix)) = (line.starts_with(['\t', ' ']), first.parse()) {
            routes.entry(prefix).or_default();
            current = Some(prefix);
        }
        let attribute = line.trim().strip_prefix("BGP.");
        if let (Some(prefix), Some((name, value))) =
            (current, attribute.and_then(|it| it.split_once(':')))
        {
            take(routes.entry(prefix).or_default(), name, value.trim())?;
        }
    }
    Ok(routes)
}

fn take(route: &mut Learned, name: &str, value: &str) -> Result<()> {
    match name {
        "origin" => route.origin = value.to_lowercase(),
        "as_path" => route.as_path = value.split(' ').filter_map(|it| it.parse().ok()).collect(),
        "next_hop" => {
            let first = value.split(' ').next();
            route.next_hop = first.and_then(|it| it.parse().ok());
        }
        "med" => route.med = value.parse()?,
        "local_pref" => route.local_pref = Some(value.parse()?),
        "community" => route.communities = numbers(value),
        "large_community" => route.large = numbers(value),
        "ext_community" => route.extended = numbers(value),
        "originator_id" => route.originator_id = Some(value.parse()?),
        "cluster_list" => {
            route.cluster_list = value.split(' ').filter_map(|it| it.parse().ok()).collect();
        }
        _ => {
            if let Some((code, "[t]")) = name.split_once(' ') {
                let code = u8::from_str_radix(code, 16)?;
                route.unknown.insert(code, octets(value)?);
            }
        }
    }
    Ok(())
}

fn write(config: &Config) -> Result<()> {
    std::fs::write(config.folder.join("bird.conf"), render(config)?)?;
    Ok(())
}

fn render(config: &Config) -> Result<String> {
    let mut text = format!(
        "log stderr all;\ndebug protocols {{ states, events, packets }};\nrouter id {};\ngraceful restart wait 30;\n\
         protocol device {{ scan time 5; }}\nprotocol direct {{ ipv4; ipv6; }}\n",
        config.router_id
    );
    if config.neighbours.iter().any(|it| it.extended_open) {
        text.push_str("flow4 table flow4tab;\nflow6 table flow6tab;\nvpn4 table vpn4tab;\nvpn6 table vpn6tab;\n");
    }
    for (family, name) in [(Family::Ipv4, "static4"), (Family::Ipv6, "static6")] {
        writeln!(text, "protocol static {name} {{\n  {};", family.word())?;
        let routes = config.routes.iter();
        for route in routes.filter(|route| Family::of(&route.prefix) == family) {
            writeln!(text, "  route {} unreachable {{", route.prefix)?;
            text.push_str(&attributes(route)?);
            text.push_str("  };\n");
        }
        text.push_str("}\n");
    }
    for (number, neighbour) in config.neighbours.iter().enumerate() {
        text.push_str(&render_neighbour(config, number, neighbour)?);
    }
    Ok(text)
}

fn attributes(route: &Announcement) -> Result<String> {
    let mut text = String::new();
    if let Some(med) = route.med {
        writeln!(text, "    bgp_med = {med};")?;
    }
    if let Some(local_pref) = route.local_pref {
        writeln!(text, "    bgp_local_pref = {local_pref};")?;
    }
    for (a, b) in &route.communities {
        writeln!(text, "    bgp_community.add(({a},{b}));")?;
    }
    for (a, b, c) in &route.large {
        writeln!(text, "    bgp_large_community.add(({a},{b},{c}));")?;
    }
    for (a, b) in &route.targets {
        writeln!(text, "    bgp_ext_community.add((rt,{a},{b}));")?;
    }
    Ok(text)
}

/// The beginning of a protocol: its name, who is on it, and its timers.
fn render_ends(config: &Config, number: usize, neighbour: &Neighbour) -> Result<String> {
    let whom = match neighbour.range {
        Some(range) => format!("range {range}"),
        None => format!("{} port {}", neighbour.address, neighbour.port),
    };
    let mut text = format!(
        "protocol bgp {} {{\n  local {} port {} as {};\n  neighbor {whom} as {};\n  strict bind yes;\n  \
         connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n  hold time {};\n",
        match neighbour.range {
            Some(_) => format!("range{number}"),
            None => format!("peer{number}"),
        },
        neighbour.local,
        config.port,
        config.asn,
        neighbour.asn,
        neighbour.hold_time
    );
    if neighbour.range.is_some() {
        // The only one who comes.
        writeln!(
            text,
            "  dynamic name \"peer{number}x\";\n  dynamic name digits 1;"
        )?;
    }
    Ok(text)
}

fn render_neighbour(config: &Config, number: usize, neighbour: &Neighbour) -> Result<String> {
    let mut text = render_ends(config, number, neighbour)?;
    let mut option = |wanted: bool, line: &str| {
        if wanted {
            text.push_str(&format!("  {line}\n"));
        }
    };
    option(neighbour.passive, "passive yes;");
    option(neighbour.ttl_security, "ttl security yes;");
    option(neighbour.multihop, "multihop 8;");
    option(neighbour.two_octet_as, "enable as4 no;");
    option(neighbour.client, "rr client;");
    option(
        neighbour.restart == Restart::Off,
        "graceful restart off; long lived graceful restart off;",
    );
    if let Restart::On(time) = neighbour.restart {
        writeln!(
            text,
            "  graceful restart on;\n  graceful restart time {time};\n  long lived graceful restart {};",
            if neighbour.extended_open { "on" } else { "off" }
        )?;
    }
    if let Some(password) = &neighbour.password {
        writeln!(text, "  password \"{password}\";")?;
    }
    text.push_str("  enable extended messages yes;\n");
    for family in &neighbour.families {
        writeln!(
            text,
            "  {} {{\n    import all;\n    export where source ~ [ RTS_STATIC, RTS_BGP ];",
            family.word()
        )?;
        let extended = neighbour.extended_next_hop || neighbour.extended_open;
        if extended && *family == Family::Ipv4 {
            text.push_str("    extended next hop yes;\n");
        }
        if neighbour.extended_open {
            text.push_str("    add paths on;\n");
        }
        if let Some(MaxPrefix { limit, excess }) = neighbour.max_prefix {
            let action = match excess {
                Excess::Warn => "warn",
                Excess::Block => "block",
                Excess::Restart => "restart",
                Excess::Stay => "disable",
            };
            writeln!(text, "    import limit {limit} action {action};")?;
        }
        text.push_str("  };\n");
    }
    if neighbour.extended_open {
        for channel in OTHER_CHANNELS {
            writeln!(
                text,
                "  {channel} {{ import none; export none; add paths on; {} }};",
                match channel.contains('4') {
                    true => "extended next hop on;",
                    false => "",
                }
            )?;
        }
    }
    text.push_str("}\n");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_as_birdc_prints_them() {
        let text = "BIRD 2.0.12 ready.\nTable master4:\n\
            198.51.100.0/24      unicast [peer0 23:42:29.882] * (100) [AS65003i]\n\
            \tvia 10.9.0.3 on v0\n\tType: BGP univ\n\tBGP.origin: IGP\n\tBGP.as_path: 65003 4200000000\n\
            \tBGP.next_hop: 10.9.0.3\n\tBGP.med: 7\n\tBGP.local_pref: 100\n\tBGP.community: (65003,5) (65003,6)\n\
            \tBGP.ext_community: (rt, 65003, 9)\n\tBGP.large_community: (65003, 1, 2)\n\tBGP.99 [t]: 01 02 03 04\n";
        let routes = parse_routes(text).unwrap();
        let route = &routes[&"198.51.100.0/24".parse().unwrap()];
        assert_eq!(route.as_path, [65003, 4_200_000_000]);
        assert_eq!(route.next_hop, Some("10.9.0.3".parse().unwrap()));
        assert_eq!((route.med, route.local_pref), (7, Some(100)));
        assert_eq!(route.communities.len(), 2);
        assert!(route.extended.contains("rt:65003:9"));
        assert!(route.large.contains("65003:1:2"));
        assert_eq!(route.unknown[&0x99], [1, 2, 3, 4]);
    }
}
