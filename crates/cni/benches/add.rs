//! ADD and DEL as whole processes, configuration in and result out, beside the reference plugins `ptp` and `bridge`, both with
//! `host-local`, in the same run; beside DEL what the kernel alone takes to delete a veth; and what each plugin's program
//! weighs, on disk and in memory. Needs root, and `containernetworking-plugins` for the comparison.
//!
//! `MARGAY_CNI` names another shim to measure, such as a static one.
#![expect(clippy::print_stdout, reason = "the result")]
#![expect(dead_code, reason = "the tests' helpers serve both")]
#![expect(clippy::unwrap_used, unreachable_pub, reason = "as in the tests")]

#[path = "../tests/it/support.rs"]
mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netlink::{Socket, netns, setup};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::{Node, Pod};

/// Where Debian puts the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";
const PODS: usize = 100;
const PARALLEL: usize = 8;

fn main() {
    // `cargo test` runs benchmarks too, to see that they work.
    let pods = if std::env::args().any(|argument| argument == "--bench") {
        PODS
    } else {
        3
    };
    let node = Node::new("10.244.0.0/16");
    let shim = std::env::var("MARGAY_CNI")
        .unwrap_or_else(|_| support::shim_path().to_str().unwrap().to_owned());
    let margay = Plugin {
        name: "margay-cni",
        program: shim,
        config: node.config("1.0.0"),
    };
    let mut plugins = vec![margay];
    for (name, subnet) in [("ptp", "10.98.0.0/16"), ("bridge", "10.99.0.0/16")] {
        let program = format!("{REFERENCE}/{name}");
        if !Path::new(&program).exists() {
            println!("no {program}: install containernetworking-plugins for the comparison");
            continue;
        }
        let data = node.directory.path().join(name);
        let ipam = json!({ "type": "host-local", "subnet": subnet, "dataDir": data });
        // `bridge` is made a gateway, or its pods could not leave the node; `ptp` knows no such key.
        let config = json!({ "cniVersion": "1.0.0", "name": name, "type": name, "ipam": ipam, "isDefaultGateway": true });
        plugins.push(Plugin {
            name,
            program,
            config,
        });
    }
    times(&node, &plugins, pods);
    kernel(&node, &plugins[0], pods);
    println!(
        "\n{:<12} {:>14} {:>16}",
        "KiB", "program's file", "peak memory, ADD"
    );
    for plugin in &plugins {
        let size = std::fs::metadata(&plugin.program).unwrap().len();
        let memory = peak_memory(&node, plugin);
        println!("{:<12} {:>14} {memory:>16}", plugin.name, size / 1024);
    }
}

/// The table of times, and by how much ours is ahead.
fn times(node: &Node, plugins: &[Plugin], pods: usize) {
    println!(
        "{:<12} {:>8} {:>8} {:>8} {:>8} {:>12}",
        "ms", "ADD p50", "p99", "DEL p50", "p99", "ADD/s, 8 par."
    );
    let rows: Vec<[f64; 5]> = plugins
        .iter()
        .map(|plugin| measure(node, plugin, pods))
        .collect();
    for (plugin, row) in plugins.iter().zip(&rows) {
        println!(
            "{:<12} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>12.0}",
            plugin.name, row[0], row[1], row[2], row[3], row[4]
        );
    }
    let ours = rows[0];
    for (plugin, theirs) in plugins.iter().zip(&rows).skip(1) {
        let ratio: Vec<f64> = (0..4)
            .map(|column| theirs[column] / ours[column])
            .chain([ours[4] / theirs[4]])
            .collect();
        println!(
            "{:<12} {:>7.1}x {:>7.1}x {:>7.1}x {:>7.1}x {:>11.1}x",
            format!("to {}", plugin.name),
            ratio[0],
            ratio[1],
            ratio[2],
            ratio[3],
            ratio[4]
        );
    }
}

/// What the kernel takes to delete the very veths that our ADD makes, when one message on an open socket asks it to.
fn kernel(node: &Node, margay: &Plugin, count: usize) {
    let pods: Vec<Pod> = (0..count)
        .map(|number| Pod::new(&format!("kernel-{number}")))
        .collect();
    for pod in &pods {
        run(node, margay, "ADD", pod);
    }
    let delete = || {
        let mut host = Socket::open().unwrap();
        let links = setup::list_links(&mut host).unwrap();
        let veths = links.iter().filter(|(_, name)| name.starts_with("mgy"));
        let taken = veths.map(|(link, _)| {
            let started = now();
            setup::delete_link(&mut host, *link).unwrap();
            started.elapsed()
        });
        Ok(taken.collect::<Vec<_>>())
    };
    let taken = netns::in_netns(&node.netns, delete).unwrap();
    assert_eq!(
        taken.len(),
        count,
        "veths of this measurement and no others"
    );
    let taken = sorted(taken);
    println!(
        "{:<12} {:>8} {:>8} {:>8.2} {:>8.2}",
        "kernel alone",
        "",
        "",
        percentile(&taken, 50),
        percentile(&taken, 99)
    );
    for pod in &pods {
        run(node, margay, "DEL", pod);
    }
}

/// The most memory that the plugin's own process held during an ADD (`VmHWM` in proc(5)), in KiB. Read as it exits, by a
/// tracer, since what wait4(2) tells begins with the memory of whoever started it.
fn peak_memory(node: &Node, plugin: &Plugin) -> u64 {
    let pod = Pod::new(&format!("memory-{}", plugin.name));
    let text = plugin.config.to_string();
    let traced = || {
        let mut child = plugin.command("ADD", &pod).spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        // It waits for its configuration until then.
        ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT)?;
        child.stdin.take().unwrap().write_all(text.as_bytes())?;
        let mut peak = None;
        loop {
            let signal = match waitpid(pid, None)? {
                WaitStatus::PtraceEvent(..) => {
                    peak = Some(std::fs::read_to_string(format!("/proc/{pid}/status"))?);
                    None
                }
                WaitStatus::Stopped(_, signal) if signal != Signal::SIGTRAP => Some(signal),
                WaitStatus::Exited(_, status) => {
                    assert_eq!(status, 0, "{} ADD", plugin.name);
                    return Ok(peak);
                }
                WaitStatus::Signaled(_, signal, _) => panic!("{}: {signal}", plugin.name),
                WaitStatus::Stopped(..)
                | WaitStatus::PtraceSyscall(_)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive => None,
            };
            ptrace::cont(pid, signal)?;
        }
    };
    let status = netns::in_netns(&node.netns, traced).unwrap().unwrap();
    run(node, plugin, "DEL", &pod);
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

struct Plugin {
    name: &'static str,
    program: String,
    config: Value,
}

impl Plugin {
    /// How a runtime starts it.
    fn command(&self, command: &str, pod: &Pod) -> Command {
        let mut program = Command::new(&self.program);
        program
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.container_id)
            .env("CNI_NETNS", &pod.path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", REFERENCE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        program
    }
}

/// One at a time, then several at once.
fn measure(node: &Node, plugin: &Plugin, count: usize) -> [f64; 5] {
    let pods = |prefix: &str| -> Vec<Pod> {
        (0..count)
            .map(|number| Pod::new(&format!("{prefix}-{number}")))
            .collect()
    };
    let one_by_one = pods("single");
    let add: Vec<Duration> = one_by_one
        .iter()
        .map(|pod| run(node, plugin, "ADD", pod))
        .collect();
    let del: Vec<Duration> = one_by_one
        .iter()
        .map(|pod| run(node, plugin, "DEL", pod))
        .collect();
    let together = pods("parallel");
    let started = now();
    std::thread::scope(|scope| {
        for lane in together.chunks(count.div_ceil(PARALLEL)) {
            let here = move || {
                for pod in lane {
                    run_here(plugin, "ADD", pod);
                }
                Ok(())
            };
            // Once for all: what entering the namespace takes is no plugin's doing.
            scope.spawn(move || netns::in_netns(&node.netns, here).unwrap());
        }
    });
    let rate = together.len() as f64 / started.elapsed().as_secs_f64();
    for pod in &together {
        run(node, plugin, "DEL", pod);
    }
    let (add, del) = (sorted(add), sorted(del));
    [
        percentile(&add, 50),
        percentile(&add, 99),
        percentile(&del, 50),
        percentile(&del, 99),
        rate,
    ]
}

/// Runs a plugin in the node's namespace, from before its start to after its end.
fn run(node: &Node, plugin: &Plugin, command: &str, pod: &Pod) -> Duration {
    netns::in_netns(&node.netns, || Ok(run_here(plugin, command, pod))).unwrap()
}

/// The same from a thread that is there.
fn run_here(plugin: &Plugin, command: &str, pod: &Pod) -> Duration {
    let config = plugin.config.to_string();
    let started = now();
    let mut child = plugin.command(command, pod).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(config.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let taken = started.elapsed();
    assert!(
        output.status.success(),
        "{} {command}: {}",
        plugin.name,
        String::from_utf8_lossy(&output.stdout)
    );
    taken
}

fn sorted(mut durations: Vec<Duration>) -> Vec<Duration> {
    durations.sort_unstable();
    durations
}

/// In milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1000.0
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures what is real"
)]
fn now() -> Instant {
    Instant::now()
}
