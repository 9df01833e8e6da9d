//! ADD and DEL as whole processes, configuration in and result out, beside the reference plugins `ptp` + `host-local` in the
//! same run. Needs root, and `containernetworking-plugins` for the comparison.
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

use netlink::netns;
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
        program: &shim,
        config: node.config("1.0.0"),
    };
    let data = node.directory.path().join("host-local");
    let ipam = json!({ "type": "host-local", "subnet": "10.99.0.0/16", "dataDir": data });
    let config = json!({ "cniVersion": "1.0.0", "name": "reference", "type": "ptp", "ipam": ipam });
    let program = format!("{REFERENCE}/ptp");
    let reference = Path::new(&program).exists().then_some(Plugin {
        name: "ptp + host-local",
        program: &program,
        config,
    });
    if reference.is_none() {
        println!("no {program}: install containernetworking-plugins for the comparison");
    }
    let plugins: Vec<Plugin<'_>> = [Some(margay), reference].into_iter().flatten().collect();

    println!(
        "{:<18} {:>8} {:>8} {:>8} {:>8} {:>12}",
        "ms", "ADD p50", "p99", "DEL p50", "p99", "ADD/s, 8 par."
    );
    let rows: Vec<[f64; 5]> = plugins
        .iter()
        .map(|plugin| measure(&node, plugin, pods))
        .collect();
    for (plugin, row) in plugins.iter().zip(&rows) {
        println!(
            "{:<18} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>12.0}",
            plugin.name, row[0], row[1], row[2], row[3], row[4]
        );
    }
    if let [ours, theirs] = &rows[..] {
        let ratio: Vec<f64> = (0..4)
            .map(|column| theirs[column] / ours[column])
            .chain([ours[4] / theirs[4]])
            .collect();
        println!(
            "{:<18} {:>7.1}x {:>7.1}x {:>7.1}x {:>7.1}x {:>11.1}x",
            "ratio", ratio[0], ratio[1], ratio[2], ratio[3], ratio[4]
        );
    }
}

struct Plugin<'a> {
    name: &'a str,
    program: &'a str,
    config: Value,
}

/// One at a time, then several at once.
fn measure(node: &Node, plugin: &Plugin<'_>, count: usize) -> [f64; 5] {
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
            scope.spawn(move || {
                for pod in lane {
                    run(node, plugin, "ADD", pod);
                }
            });
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
fn run(node: &Node, plugin: &Plugin<'_>, command: &str, pod: &Pod) -> Duration {
    let config = plugin.config.to_string();
    let timed = || {
        let started = now();
        let mut child = Command::new(plugin.program)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.container_id)
            .env("CNI_NETNS", &pod.path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", REFERENCE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().unwrap().write_all(config.as_bytes())?;
        let output = child.wait_with_output()?;
        let taken = started.elapsed();
        assert!(
            output.status.success(),
            "{} {command}: {}",
            plugin.name,
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(taken)
    };
    netns::in_netns(&node.netns, timed).unwrap()
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
