//! FRR: `zebra` and `bgpd`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ipnet::Ipv4Net;
use rustix::mount::{MountFlags, mount, mount_bind};
use serde_json::Value;

use super::{Config, Kind, Tor};
use crate::process::{self, Process, Program};
use crate::{Namespace, wait};

#[derive(Debug)]
pub(super) struct Frr {
    namespace: Namespace,
    folder: PathBuf,
    zebra: Process,
    bgpd: Process,
}

impl Frr {
    pub(super) fn start(namespace: &Namespace, config: &Config) -> Result<Self> {
        let zebra = start_zebra(&config.name, namespace, &config.folder)?;
        std::fs::write(config.folder.join("bgpd.conf"), render(config)?)?;
        let bgpd = start_daemon("bgpd", &config.name, namespace, &config.folder, &[])?;
        Ok(Self {
            namespace: namespace.clone(),
            folder: config.folder.clone(),
            zebra,
            bgpd,
        })
    }

    fn ask(&self, question: &str) -> Result<Value> {
        let text = Program::new(process::find("vtysh").context("vtysh")?)
            .arg("--vty_socket")
            .arg(&self.folder)
            .args(["-d", "bgpd", "-c", question])
            .stdout(&self.namespace)?;
        serde_json::from_str(&text).with_context(|| format!("{question}: {text}"))
    }
}

impl Tor for Frr {
    fn kind(&self) -> Kind {
        Kind::Frr
    }

    fn established(&self) -> Result<BTreeSet<Ipv4Addr>> {
        let neighbours = self.ask("show bgp neighbors json")?;
        let peers = neighbours.as_object().into_iter().flatten();
        Ok(peers
            .filter(|(_, peer)| peer["bgpState"] == "Established")
            .filter_map(|(address, _)| address.parse().ok())
            .collect())
    }

    fn learned(&self) -> Result<BTreeMap<Ipv4Net, BTreeSet<IpAddr>>> {
        let table = self.ask("show bgp ipv4 unicast json")?;
        let mut learned = BTreeMap::new();
        for (prefix, paths) in table["routes"].as_object().into_iter().flatten() {
            let next_hops: BTreeSet<IpAddr> = paths
                .as_array()
                .into_iter()
                .flatten()
                .filter(|path| path["bestpath"] == true || path["multipath"] == true)
                .filter(|path| path["pathFrom"] == "external" || path["pathFrom"] == "internal")
                .filter(|path| path["path"] != "" || path["pathFrom"] == "internal")
                .flat_map(|path| path["nexthops"].as_array().into_iter().flatten())
                .filter_map(|next_hop| next_hop["ip"].as_str()?.parse().ok())
                .collect();
            if !next_hops.is_empty() {
                learned.insert(prefix.parse()?, next_hops);
            }
        }
        Ok(learned)
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.zebra, &mut self.bgpd]
    }
}

/// Makes this machine fit for FRR's daemons, once, and in the lab's own mounts only: they insist that their user, here
/// root, is in their group `frrvty`, and they leave folders in `/var/tmp`.
pub(super) fn prepare() -> Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE
        .lock()
        .map_err(|_| anyhow!("a thread panicked here before"))?;
    if *done {
        return Ok(());
    }
    let groups: String = std::fs::read_to_string("/etc/group")?
        .lines()
        .map(|line| match line.starts_with("frrvty:") {
            true if line.ends_with(':') => format!("{line}root\n"),
            true => format!("{line},root\n"),
            false => format!("{line}\n"),
        })
        .collect();
    std::fs::write("/run/lab/group", groups)?;
    mount_bind("/run/lab/group", "/etc/group")?;
    mount("tmpfs", "/var/tmp", "tmpfs", MountFlags::NOSUID, None)?;
    *done = true;
    Ok(())
}

/// `zebra`, ready for clients.
pub(crate) fn start_zebra(name: &str, namespace: &Namespace, folder: &Path) -> Result<Process> {
    prepare()?;
    std::fs::write(
        folder.join("zebra.conf"),
        "log stdout informational\nip nht resolve-via-default\n",
    )?;
    // It keeps the routes of a bgpd that is coming back.
    let mut zebra = start_daemon("zebra", name, namespace, folder, &["-K", "120"])?;
    let socket = folder.join("zserv.api");
    wait::until("zebra's socket", Duration::from_secs(10), || {
        zebra.check()?;
        Ok(std::fs::metadata(&socket).map(drop)?)
    })?;
    Ok(zebra)
}

/// Where one of FRR's daemons is. The search path may have another one of that name: OpenBGPD's is `bgpd` too.
pub(crate) fn daemon(name: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/lib/frr").join(name);
    path.is_file().then_some(path)
}

/// Starts one of FRR's daemons, whose configuration is in `folder`, for the router `router`, with `more` arguments.
pub(crate) fn start_daemon(
    name: &str,
    router: &str,
    namespace: &Namespace,
    folder: &Path,
    more: &[&str],
) -> Result<Process> {
    let program = Program::new(daemon(name).with_context(|| name.to_owned())?)
        .args(["-u", "root", "-g", "root", "-P", "0"])
        .arg("-f")
        .arg(folder.join(format!("{name}.conf")))
        .arg("-i")
        .arg(folder.join(format!("{name}.pid")))
        .arg("-z")
        .arg(folder.join("zserv.api"))
        .arg("--vty_socket")
        .arg(folder)
        .args(more);
    let log = folder.join(format!("{name}.log"));
    Process::spawn(&format!("{router} ({name})"), namespace, program, log)
}

fn render(config: &Config) -> Result<String> {
    let hold = config.hold_time.as_secs();
    let restart = match config.graceful_restart {
        true => "bgp graceful-restart\n bgp graceful-restart preserve-fw-state",
        false => "bgp graceful-restart-disable",
    };
    let mut text = format!(
        "log stdout informational\n\
         router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         no bgp default ipv4-unicast\n {restart}\n \
         bgp bestpath as-path multipath-relax\n",
        config.asn, config.router_id
    );
    for (peer, asn) in &config.peers {
        write!(
            text,
            " neighbor {peer} remote-as {asn}\n neighbor {peer} timers {} {hold}\n \
             neighbor {peer} timers connect 1\n neighbor {peer} advertisement-interval 0\n",
            (hold / 3).max(1)
        )?;
    }
    text.push_str(" address-family ipv4 unicast\n");
    for network in &config.networks {
        writeln!(text, "  network {network}")?;
    }
    for (peer, _) in &config.peers {
        writeln!(text, "  neighbor {peer} activate")?;
    }
    text.push_str(" exit-address-family\n");
    Ok(text)
}
