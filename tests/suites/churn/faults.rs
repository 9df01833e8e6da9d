//! A thousand pods, each with a fault, and an agent that dies all the while.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use lab::datacentre::{DataCentre, Node};
use lab::{Namespace, process, wait};
use serde_json::json;

use crate::watcher::{self, Register};
use crate::{Emptiness, LIMIT, addresses, side_by_side, widen};

const CYCLES: u32 = 1000;

/// The longest moment at which something dies: plugin and agent are done with most within it.
const MOMENT: u64 = 6_000;

/// What happens to a pod. None of these may cost an address, or leave anything.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The plugin dies during ADD; the runtime asks for DEL.
    AddKilled,
    /// The plugin dies during ADD and the runtime with it: there is no DEL, only the namespace goes.
    AddForgotten,
    /// The plugin dies during DEL; the runtime asks again.
    DelKilled,
    /// The namespace dies during ADD.
    NamespaceDies,
    /// The namespace is gone when DEL comes, and DEL comes three times at once.
    DelAfterwards,
}

const FAULTS: [Fault; 5] = [
    Fault::AddKilled,
    Fault::AddForgotten,
    Fault::DelKilled,
    Fault::NamespaceDies,
    Fault::DelAfterwards,
];

/// The same numbers in every run (Steele, Lea, Flood: `SplitMix64`).
fn random(seed: u64, below: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

pub(crate) fn churn(dc: &mut DataCentre) -> Result<()> {
    let prefix = dc.shape.prefix.clone();
    widen(dc.node("node-a1")?)?;
    dc.start_agents()?;
    let node = dc.node("node-a1")?;
    let empty = Emptiness::of(node)?;
    let runtime = Runtime {
        prefix,
        host: node.namespace.clone(),
        socket: node.cni_socket(),
        plugin: process::ours("margay-cni")?,
        register: Register::default(),
    };
    let done = AtomicBool::new(false);
    let (pods, looks, deaths) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watcher::follow(&runtime.host, &done));
        let killer = scope.spawn(|| agents_die(node, &done));
        let pods = side_by_side(CYCLES, |number| {
            let fault = FAULTS[number as usize % FAULTS.len()];
            let pod = runtime.pod(number, fault);
            pod.with_context(|| format!("pod {number}, {fault:?}"))
        });
        done.store(true, Ordering::Relaxed);
        let joined = |_| anyhow!("a thread panicked");
        Ok::<_, anyhow::Error>((
            pods?,
            watcher.join().map_err(joined)??,
            killer.join().map_err(joined)??,
        ))
    })?;
    let node = dc.node("node-a1")?;
    node.wait_ready(LIMIT)?;
    empty.wait_again(node)?;
    let lived = pods.iter().filter(|lived| **lived).count();
    // A run in which hardly anything lived, died, or was looked at says nothing.
    if lived < pods.len() / 5 || looks < 10 || deaths < 10 {
        bail!(
            "{lived} of {} pods lived, {looks} looks, {deaths} deaths of the agent",
            pods.len()
        );
    }
    Ok(())
}

/// Until `done` the agent dies, in five ways. It runs when this returns.
fn agents_die(node: &mut Node, done: &AtomicBool) -> Result<u32> {
    let mut deaths = 0;
    while !done.load(Ordering::Relaxed) {
        let pause = |below| wait::measure_for(Duration::from_micros(random(deaths.into(), below)));
        pause(300_000);
        match deaths % 5 {
            0 => node.agent()?.kill()?,
            1 => drop(node.agent()?.terminate(LIMIT)?),
            // While it reads what its predecessor left.
            2 => {
                node.agent()?.kill()?;
                node.start()?;
                pause(30_000);
                node.agent()?.kill()?;
            }
            // It hangs, and dies of it.
            3 => {
                node.agent()?.freeze()?;
                pause(200_000);
                node.agent()?.kill()?;
            }
            // Nobody is there for a while.
            _ => {
                node.agent()?.kill()?;
                pause(500_000);
            }
        }
        node.start()?;
        node.wait_ready(LIMIT)?;
        deaths += 1;
    }
    Ok(deaths)
}

/// A container runtime: it starts the plugin, and asks for DEL until that succeeds.
struct Runtime {
    prefix: String,
    host: Namespace,
    socket: PathBuf,
    plugin: PathBuf,
    register: Register,
}

impl Runtime {
    /// One pod's life. Whether it lived at all.
    fn pod(&self, number: u32, fault: Fault) -> Result<bool> {
        let name = format!("{}churn-{number}", self.prefix);
        let namespace = Namespace::create(&name)?;
        let path = namespace.path().to_owned();
        let moment = Duration::from_micros(random(number.into(), MOMENT));
        let mut add = self.start("ADD", &name, &path)?;
        let mut held = Some(namespace);
        let lives = match fault {
            Fault::AddKilled | Fault::AddForgotten => {
                wait::measure_for(moment);
                add.kill()?;
                self.lives(add.wait_with_output()?, &name)?
            }
            Fault::NamespaceDies => {
                wait::measure_for(moment);
                held = None;
                self.lives(add.wait_with_output()?, &name)?
            }
            Fault::DelKilled | Fault::DelAfterwards => {
                let output = add.wait_with_output()?;
                let lives = self.lives(output, &name)?;
                Some(lives.context("ADD failed, and nothing was wrong")?)
            }
        };
        if let Some(addresses) = &lives {
            self.register.dies(addresses);
        }
        match fault {
            Fault::AddForgotten => {
                drop(held);
                return Ok(lives.is_some());
            }
            Fault::DelKilled => {
                let mut del = self.start("DEL", &name, &path)?;
                wait::measure_for(moment);
                del.kill()?;
                del.wait()?;
            }
            Fault::DelAfterwards => {
                drop(held);
                let dels = [0; 3].map(|_| self.start("DEL", &name, &path));
                for del in dels {
                    del?.wait()?;
                }
            }
            Fault::AddKilled | Fault::NamespaceDies => {}
        }
        wait::until("DEL", LIMIT, || {
            let output = self.start("DEL", &name, &path)?.wait_with_output()?;
            match output.status.success() {
                true => Ok(()),
                false => bail!("{}", String::from_utf8_lossy(&output.stdout)),
            }
        })?;
        Ok(lives.is_some())
    }

    /// The addresses of a pod whose ADD has succeeded, which are in the register from now on: one of each family.
    fn lives(&self, output: Output, name: &str) -> Result<Option<Vec<IpAddr>>> {
        if !output.status.success() {
            return Ok(None);
        }
        let addresses = addresses(&serde_json::from_slice(&output.stdout)?)?;
        self.register.born(&addresses, name)?;
        Ok(Some(addresses))
    }

    fn start(&self, command: &str, name: &str, netns: &std::path::Path) -> Result<Child> {
        let config = json!({ "cniVersion": "1.0.0", "name": "margay", "type": "margay", "socket": self.socket });
        self.host.run(|| {
            let mut child = Command::new(&self.plugin)
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", name)
                .env("CNI_NETNS", netns)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", "/opt/cni/bin")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?;
            let mut stdin = child.stdin.take().context("a pipe")?;
            std::io::Write::write_all(&mut stdin, config.to_string().as_bytes())?;
            Ok(child)
        })
    }
}
