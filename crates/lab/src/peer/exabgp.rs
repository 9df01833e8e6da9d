//! ExaBGP. It keeps no table: what it has heard is what its JSON says, event by event.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use serde_json::Value;

use super::{
    Announcement, Config, Family, Kind, Learned, Neighbour, Peer, Restart, Session, octets,
    wait_for,
};
use crate::Namespace;
use crate::process::{self, Process, Program};

/// Its helper program: what is appended to a file is a command to it, and what it tells goes to another. The shell's own
/// standard output stays open, for its end would be the helper's.
const HELPER: &str = "tail -n +1 -f commands &\ncat >> events\nkill $!\n";

#[derive(Debug)]
pub(super) struct Exabgp {
    config: Config,
    daemon: Process,
}

impl Exabgp {
    pub(super) fn start(namespace: &Namespace, config: Config) -> Result<Self> {
        let folder = &config.folder;
        let helper = folder.join("helper.sh");
        let text = format!("#!/bin/sh\ncd {}\n{HELPER}", folder.display());
        std::fs::write(&helper, text)?;
        std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755))?;
        std::fs::write(folder.join("events"), "")?;
        let own: String = config.routes.iter().map(|it| announce(it) + "\n").collect();
        std::fs::write(folder.join("commands"), own)?;
        std::fs::write(folder.join("exabgp.conf"), render(&config)?)?;
        let locals: Vec<String> = config
            .neighbours
            .iter()
            .map(|it| it.local.to_string())
            .collect();
        let program = Program::new(process::find("exabgp").context("exabgp")?)
            .arg(folder.join("exabgp.conf"))
            .env("exabgp.daemon.user", "root")
            .env("exabgp.api.ack", "false")
            .env("exabgp.api.cli", "false")
            .env("exabgp.tcp.bind", locals.join(" "))
            .env("exabgp.tcp.port", config.port.to_string());
        let log = folder.join("exabgp.log");
        let daemon = Process::spawn(&config.name, namespace, program, log)?;
        let mut exabgp = Self { config, daemon };
        exabgp.wait(1)?;
        Ok(exabgp)
    }

    /// Waits for its `count`-th start.
    fn wait(&mut self, count: usize) -> Result<()> {
        let log = self.daemon.log().to_owned();
        wait_for(&mut self.daemon, || {
            let text = std::fs::read_to_string(&log)?;
            let starts = text
                .matches("loaded new configuration successfully")
                .count();
            ensure!(starts >= count, "it has not read its configuration yet");
            Ok(())
        })
    }

    fn command(&self, command: &str) -> Result<()> {
        let file = self.config.folder.join("commands");
        let mut file = OpenOptions::new().append(true).open(file)?;
        Ok(writeln!(file, "{command}")?)
    }

    fn events(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.config.folder.join("events"))?)
    }
}

impl Peer for Exabgp {
    fn kind(&self) -> Kind {
        Kind::Exabgp
    }

    fn session(&self, neighbour: IpAddr) -> Result<Session> {
        let address = format!("\"peer\": \"{neighbour}\"");
        let events = self.events()?;
        let lines: Vec<&str> = events
            .lines()
            .filter(|line| line.contains(&address))
            .collect();
        let mut session = Session {
            text: lines.join("\n"),
            ups: Some(0),
            ..Session::default()
        };
        for line in lines {
            let Some(event) = parse_event(line) else {
                continue;
            };
            let event_of = &event["neighbor"];
            match event_of["state"].as_str() {
                Some("up") => {
                    session.established = true;
                    session.ups = session.ups.map(|ups| ups + 1);
                }
                Some(_) => session.established = false,
                None => {}
            }
            if let Some(theirs) = event_of["open"]["hold_time"].as_u64() {
                let ours = self.config.neighbours.iter();
                let mut ours = ours.filter(|it| it.address == neighbour);
                let ours = ours.next().map(|it| u64::from(it.hold_time));
                session.hold_time = ours.map(|ours| ours.min(theirs));
            }
        }
        Ok(session)
    }

    fn learned(&self, family: Family) -> Result<BTreeMap<IpNet, Learned>> {
        let mut learned = BTreeMap::new();
        for line in self.events()?.lines() {
            if let Some(event) = parse_event(line) {
                follow(&mut learned, &event["neighbor"], family)?;
            }
        }
        Ok(learned)
    }

    fn announce(&mut self, route: &Announcement) -> Result<()> {
        self.command(&announce(route))
    }

    fn withdraw(&mut self, prefix: IpNet) -> Result<()> {
        self.command(&format!("withdraw route {prefix} next-hop self"))
    }

    /// It will hear its first orders again, and this one after them.
    fn forget(&mut self, prefix: IpNet) -> Result<()> {
        self.withdraw(prefix)
    }

    fn refresh(&mut self, _: IpAddr, family: Family) -> Result<()> {
        self.command(&format!("announce route-refresh {} unicast", family.word()))
    }

    fn shut_down(&mut self, _: IpAddr, _: &str) -> Result<()> {
        bail!("it takes no text")
    }

    fn reset(&mut self, neighbour: IpAddr) -> Result<()> {
        self.command(&format!("teardown neighbor {neighbour} 4"))
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
        let text = self.log()?;
        let starts = text
            .matches("loaded new configuration successfully")
            .count();
        self.daemon.restart()?;
        self.wait(starts + 1)
    }
}

/// An event. Its JSON of a ROUTE-REFRESH is none, nor is that of a session's end where the NOTIFICATION had data: of the
/// latter it matters only that it came.
fn parse_event(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok().or_else(|| {
        let down = line.contains(r#""state": "down""#);
        down.then(|| serde_json::json!({"neighbor": {"state": "down"}}))
    })
}

/// Takes one event in: routes come and go, and all go with the session.
fn follow(table: &mut BTreeMap<IpNet, Learned>, event: &Value, family: Family) -> Result<()> {
    if event["state"] == "down" {
        table.clear();
    }
    let update = &event["message"]["update"];
    let name = format!("{} unicast", family.word());
    let gone = update["withdraw"][&name].as_array().into_iter().flatten();
    for prefix in gone.filter_map(|it| it["nlri"].as_str()) {
        table.remove(&prefix.parse()?);
    }
    let announced = update["announce"][&name].as_object().into_iter().flatten();
    for (next_hop, prefixes) in announced {
        let mut route = parse_attributes(&update["attribute"])?;
        route.next_hop = next_hop.parse().ok();
        let prefixes = prefixes.as_array().into_iter().flatten();
        for prefix in prefixes.filter_map(|it| it["nlri"].as_str()) {
            table.insert(prefix.parse()?, route.clone());
        }
    }
    Ok(())
}

fn parse_attributes(attributes: &Value) -> Result<Learned> {
    let number = |value: &Value| value.as_u64().and_then(|it| u32::try_from(it).ok());
    let list = |name: &str| attributes[name].as_array().cloned().unwrap_or_default();
    let joined = |name: &str| {
        let values = list(name);
        let values = values.iter().filter_map(Value::as_array);
        values
            .map(|it| {
                let numbers: Vec<String> = it.iter().map(ToString::to_string).collect();
                numbers.join(":")
            })
            .collect()
    };
    let extended = list("extended-community");
    let extended = extended.iter().filter_map(|it| it["string"].as_str());
    let clusters = list("cluster-list");
    let clusters = clusters.iter().filter_map(|it| it.as_str()?.parse().ok());
    let mut route = Learned {
        as_path: list("as-path").iter().filter_map(number).collect(),
        origin: attributes["origin"].as_str().unwrap_or_default().to_owned(),
        med: number(&attributes["med"]).unwrap_or(0),
        local_pref: number(&attributes["local-preference"]),
        communities: joined("community"),
        large: joined("large-community"),
        extended: extended.map(|it| it.replace("target:", "rt:")).collect(),
        originator_id: attributes["originator-id"]
            .as_str()
            .and_then(|it| it.parse().ok()),
        cluster_list: clusters.collect(),
        ..Learned::default()
    };
    // `attribute-0x99-0xE0`: type and flags.
    for (name, value) in attributes.as_object().into_iter().flatten() {
        let code = name
            .strip_prefix("attribute-0x")
            .and_then(|it| it.split('-').next());
        if let Some(code) = code {
            let value = value.as_str().unwrap_or_default();
            let code = u8::from_str_radix(code, 16)?;
            route
                .unknown
                .insert(code, octets(value.trim_start_matches("0x"))?);
        }
    }
    Ok(route)
}

fn announce(route: &Announcement) -> String {
    let next_hop = route.next_hop.map(|it| it.to_string());
    let next_hop = next_hop.as_deref().unwrap_or("self");
    let mut text = format!("announce route {} next-hop {next_hop}", route.prefix);
    let mut say = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            text.push_str(&format!(" {name} [{}]", values.join(" ")));
        }
    };
    let communities = route.communities.iter();
    say(
        "community",
        communities.map(|(a, b)| format!("{a}:{b}")).collect(),
    );
    let large = route.large.iter();
    say(
        "large-community",
        large.map(|(a, b, c)| format!("{a}:{b}:{c}")).collect(),
    );
    let targets = route.targets.iter();
    say(
        "extended-community",
        targets.map(|(a, b)| format!("target:{a}:{b}")).collect(),
    );
    if let Some(med) = route.med {
        text.push_str(&format!(" med {med}"));
    }
    if let Some(local_pref) = route.local_pref {
        text.push_str(&format!(" local-preference {local_pref}"));
    }
    text
}

fn render(config: &Config) -> Result<String> {
    let mut text = format!(
        "process helper {{\n  run {};\n  encoder json;\n}}\n",
        config.folder.join("helper.sh").display()
    );
    for neighbour in &config.neighbours {
        text.push_str(&render_neighbour(config, neighbour)?);
    }
    Ok(text)
}

fn render_neighbour(config: &Config, neighbour: &Neighbour) -> Result<String> {
    let mut text = format!(
        "neighbor {} {{\n  router-id {};\n  local-address {};\n  local-as {};\n  peer-as {};\n  hold-time {};\n",
        neighbour
            .range
            .map_or_else(|| neighbour.address.to_string(), |range| range.to_string()),
        config.router_id,
        neighbour.local,
        config.asn,
        neighbour.asn,
        neighbour.hold_time
    );
    if neighbour.port != super::PORT {
        writeln!(text, "  connect {};", neighbour.port)?;
    }
    text.push_str("  family {\n");
    for family in &neighbour.families {
        writeln!(text, "    {} unicast;", family.word())?;
    }
    // It takes no next hop of a family that it doesn't offer.
    if neighbour.extended_next_hop && !neighbour.families.contains(&Family::Ipv6) {
        text.push_str("    ipv6 unicast;\n");
    }
    text.push_str("  }\n");
    if neighbour.extended_next_hop {
        text.push_str("  nexthop {\n    ipv4 unicast ipv6;\n  }\n");
    }
    text.push_str("  capability {\n    route-refresh enable;\n    extended-message enable;\n");
    if neighbour.extended_next_hop {
        text.push_str("    nexthop enable;\n");
    }
    if neighbour.two_octet_as {
        text.push_str("    asn4 disable;\n");
    }
    match neighbour.restart {
        Restart::On(time) => writeln!(text, "    graceful-restart {time};")?,
        Restart::Off => text.push_str("    graceful-restart disable;\n"),
    }
    text.push_str("  }\n");
    let options = [
        (neighbour.passive, "passive true;"),
        (
            neighbour.ttl_security,
            "incoming-ttl 255; outgoing-ttl 255;",
        ),
        (neighbour.multihop, "outgoing-ttl 8;"),
    ];
    for (_, option) in options.iter().filter(|(wanted, _)| *wanted) {
        writeln!(text, "  {option}")?;
    }
    if let Some(password) = &neighbour.password {
        writeln!(
            text,
            "  md5-password \"{password}\";\n  md5-ip {};",
            neighbour.local
        )?;
    }
    // It can't write a NOTIFICATION as JSON, and ends the session over it: why a session ended is in its state.
    text.push_str(
        "  api {\n    processes [ helper ];\n    neighbor-changes;\n    \
         receive { parsed; update; open; refresh; }\n  }\n}\n",
    );
    Ok(text)
}
