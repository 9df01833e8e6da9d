//! The agent, killed before each system call that its threads make for one ADD and one DEL (by `strace`). It starts
//! again, as a supervisor would start it; what counts is what is left after the next DEL: nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use lab::datacentre::{DataCentre, Node, Pod};
use lab::{Namespace, process, wait};

use crate::{Emptiness, LIMIT};

/// More calls than any thread makes for one verb.
const CALLS: u32 = 60;

/// It must have died at so many calls of these threads, or the calls were not what was hit.
const DEATHS: [(&str, Threads, usize); 8] = [
    ("ADD", Threads::Listener, 1),
    ("ADD", Threads::Workers, 8),
    ("ADD", Threads::Reaper, 0),
    ("ADD", Threads::Routes, 2),
    ("DEL", Threads::Listener, 1),
    ("DEL", Threads::Workers, 2),
    ("DEL", Threads::Reaper, 2),
    ("DEL", Threads::Routes, 2),
];

/// Which of the agent's threads are hit. Apart, for whoever calls first would die for all.
#[derive(Debug, Clone, Copy)]
enum Threads {
    /// Which takes connections, and hears of links.
    Listener,
    /// Which serve them.
    Workers,
    /// Which deletes.
    Reaper,
    /// Which writes routes.
    Routes,
}

impl Threads {
    fn have(self, name: &str) -> bool {
        match self {
            Self::Listener => name == "pods",
            Self::Workers => name.starts_with("pods-") && name != "pods-reaper",
            Self::Reaper => name == "pods-reaper",
            Self::Routes => name == "margay-fib",
        }
    }
}

pub(crate) fn killed(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    let prefix = dc.shape.prefix.clone();
    let node = dc.node("node-a1")?;
    let empty = Emptiness::of(node)?;
    for (verb, threads, fewest) in DEATHS {
        let mut deaths = 0;
        for when in 1..=CALLS {
            let name = format!("{verb}-{threads:?}-{when}").to_lowercase();
            let pod = Namespace::create(&format!("{prefix}{name}"))?;
            let died = once(node, verb, threads, &name, &pod, when)
                .and_then(|died| empty.wait_again(node).map(|()| died))
                .with_context(|| name.clone())?;
            let links = tests::oracle::ip(&pod, &["link"])?;
            if links.contains("eth0") {
                bail!("{name}: {links}");
            }
            if !died {
                break;
            }
            deaths += 1;
        }
        if deaths < fewest {
            bail!("{verb}: it died at {deaths} calls of {threads:?}");
        }
    }
    Ok(())
}

/// One pod's life, in which the agent dies at call `when`. Whether it did.
fn once(
    node: &mut Node,
    verb: &str,
    threads: Threads,
    name: &str,
    pod: &Namespace,
    when: u32,
) -> Result<bool> {
    let (host, socket) = (node.namespace.clone(), node.cni_socket());
    let attach = || Pod::attach(name.to_owned(), pod.clone(), &host, &socket);
    let detach = || Pod::detach_named(name, pod, &host, &socket);
    if verb == "DEL" {
        attach()?;
    }
    let mut strace = inject(node.agent()?.pid(), threads, when)?;
    let died = std::thread::scope(|scope| {
        let call = scope.spawn(|| match verb {
            // It asks the next agent, and may be told that it can't be.
            "ADD" => attach().map(drop).ok(),
            _ => detach().ok(),
        });
        let agent = node.agent()?;
        wait::until("the call's end, or the agent's", LIMIT, || {
            match call.is_finished() || !agent.alive()? {
                true => Ok(()),
                false => bail!("{name}"),
            }
        })?;
        let died = !agent.alive()?;
        if died {
            node.start()?;
        }
        call.join().ok();
        Ok::<_, anyhow::Error>(died)
    })?;
    // It ends with the last thread that it follows; should it not, the kernel lets them go.
    strace.kill().ok();
    strace.wait()?;
    // It may die just after it has answered.
    let late = node.wait_ready(LIMIT).is_err() && !node.agent()?.alive()?;
    if late {
        node.start()?;
    }
    node.wait_ready(LIMIT)?;
    detach()?;
    detach()?;
    Ok(died || late)
}

/// Has the agent killed before call number `when` of one of these threads, counted from now.
fn inject(agent: u32, which: Threads, when: u32) -> Result<Child> {
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{agent}/task"))? {
        let thread = thread?;
        let name = fs::read_to_string(thread.path().join("comm"))?;
        if which.have(name.trim()) {
            threads.push(thread.file_name().to_string_lossy().into_owned());
        }
    }
    let mut strace = Command::new(process::find("strace").context("strace")?);
    strace
        .args(["-o", "/dev/null", "-e", "trace=all", "-e"])
        .arg(format!("inject=all:signal=KILL:when={when}"));
    for thread in &threads {
        strace.args(["-p", thread]);
    }
    strace.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut strace = strace.spawn()?;
    // It says of each thread that it has it; that it says no more may be since the agent died of a call that came by itself.
    let mut pipe = strace.stderr.take().context("a pipe")?;
    let said = BufReader::new(&mut pipe);
    let attached = said.lines().filter(|line| {
        let line = line.as_deref().unwrap_or_default();
        line.ends_with(" attached")
    });
    attached.take(threads.len()).for_each(drop);
    // It would die of having nobody to tell.
    strace.stderr = Some(pipe);
    Ok(strace)
}
