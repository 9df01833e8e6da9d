//! `cargo run -p sim --profile lab -- …`: one large topology, or many small ones with faults.
#![expect(
    clippy::print_stdout,
    reason = "a program for a terminal: what it prints is what it is for"
)]

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use sim::scale::{self, Report};
use sim::scenario;
use sim::topology::Topology;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Real speakers in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to simulate.
    #[arg(long, value_enum, default_value_t = Kind::Faults)]
    topology: Kind,
    /// How many nodes, route reflectors and switches not counted.
    #[arg(long, default_value_t = 100)]
    nodes: u32,
    /// How many route reflectors, or racks.
    #[arg(long, default_value_t = 3)]
    reflectors: u32,
    /// Each route reflector is a cluster of its own.
    #[arg(long)]
    clusters: bool,
    /// How many blocks of addresses each node has.
    #[arg(long, default_value_t = 1)]
    blocks: u32,
    /// Only every nth of them has blocks.
    #[arg(long, default_value_t = 1)]
    owners: usize,
    /// What everything random comes from; the first one where there are several.
    #[arg(long, env = "MARGAY_SIM_SEED", default_value_t = 1)]
    seed: u64,
    /// How many seeds, with faults.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// How many nodes are compared with the oracle in all they have.
    #[arg(long, default_value_t = 50)]
    sample: usize,
    /// Print what happens, with virtual times.
    #[arg(long)]
    log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Small random networks with random faults.
    Faults,
    /// Small random networks whose speakers restart, and no packet is lost.
    Restarts,
    /// Every node peers with every other one.
    Mesh,
    /// Every node is a client of each route reflector.
    Rr,
    /// Racks with two ToRs each, an AS for each rack.
    Racks,
    /// Racks with two ToRs each, an AS for each node.
    ExternalRacks,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments {
        nodes,
        reflectors,
        blocks,
        ..
    } = *arguments;
    let racks = (reflectors, nodes.div_ceil(reflectors.max(1)));
    let mut topology = match arguments.topology {
        Kind::Faults => return faults(arguments, scenario::run),
        Kind::Restarts => return faults(arguments, scenario::restarts),
        Kind::Mesh => Topology::mesh(nodes, blocks),
        Kind::Rr => Topology::reflectors(nodes, reflectors, blocks, !arguments.clusters),
        Kind::Racks => Topology::racks(racks.0, racks.1, 2, blocks),
        Kind::ExternalRacks => Topology::external_racks(racks.0, racks.1, 2, blocks),
    };
    topology.thin_out(arguments.owners);
    println!("{topology}, seed {}", arguments.seed);
    let report = scale::run(&topology, arguments.seed, arguments.sample)?;
    print(&report)
}

type Scenario = fn(u64, bool) -> Result<scenario::Summary, (sim::check::Violation, Vec<String>)>;

fn faults(arguments: &Arguments, scenario: Scenario) -> Result<()> {
    let (mut time, mut faults, mut failed) = (Duration::ZERO, 0, Vec::new());
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.count) {
        let log = match scenario(seed, arguments.log) {
            Ok(summary) => {
                time += summary.time;
                faults += summary.faults;
                if arguments.count == 1 {
                    println!("{}, {} faults", summary.topology, summary.faults);
                }
                summary.log
            }
            Err((violation, log)) => {
                failed.push(seed);
                let what = violation.to_string();
                let short: String = what.chars().take(400).collect();
                let shown = if arguments.log { &what } else { &short };
                println!("seed {seed}: {shown}");
                log
            }
        };
        for line in log {
            println!("{line}");
        }
    }
    println!(
        "{} seeds, {faults} faults, {:.0} h of virtual time, {:.1} s of CPU",
        arguments.count,
        time.as_secs_f64() / 3600.0,
        cpu()?.as_secs_f64()
    );
    if !failed.is_empty() {
        bail!("{} seeds failed: {failed:?}", failed.len());
    }
    Ok(())
}

fn print(report: &Report) -> Result<()> {
    let totals = &report.totals;
    let nodes = |value: usize, of: &str| println!("{of:<28} {value:>14}");
    nodes(report.sessions, "sessions");
    println!(
        "{:<28} {:>14.3} s of virtual time",
        "converged after",
        report.converged.as_secs_f64()
    );
    println!("{:<28} {:>14}", "messages received", report.messages);
    println!("{:<28} {:>14}", "octets written", totals.octets);
    println!("{:<28} {:>14}", "things that happened", totals.happenings);
    nodes(totals.routes, "kernel routes");
    println!("{:<28} {:>14}", "changes of kernel routes", totals.changes);
    let [nets, paths, sets] = report.rib;
    nodes(nets, "prefixes in all RIBs");
    nodes(paths, "paths");
    nodes(sets, "attribute sets");
    nodes(report.rib_octets >> 20, "MiB in all RIBs");
    nodes(report.compared, "nodes compared whole");
    println!("{:<28} {:>14.1} s", "CPU", cpu()?.as_secs_f64());
    println!("{:<28} {:>14} MiB", "peak memory", peak_memory()? >> 10);
    println!("{:<28} {:>#14x}", "digest", report.digest);
    Ok(())
}

/// CPU time of this process so far, user and system.
fn cpu() -> Result<Duration> {
    // proc(5): the fields after the name, which ends with the last bracket; ticks are hundredths of a second.
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The most memory that this process had at a time, KiB.
fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("VmHWM")?;
    let number = line.split_whitespace().next().context("VmHWM")?;
    Ok(number.parse()?)
}
