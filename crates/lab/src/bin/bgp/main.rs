//! `cargo xtask bench bgp`: BGP speakers as whole processes, ours and others', each under the same load in the same run.
//!
//! | module | what |
//! | --- | --- |
//! | [`scenario`] | what is measured, and what must hold |
//! | [`subject`] | a speaker under test: how it is configured and started |
//! | [`trial`] | one subject in its namespace, and the namespace where its peers are |
//! | [`swarm`] | thousands of peers on one thread: octets made beforehand go out, prefixes that come in are counted |
//! | [`feed`] | those octets |
//! | [`held`] | which prefixes a peer holds |
//! | [`report`] | tables with medians, ratios and goals |
#![expect(
    clippy::print_stdout,
    reason = "a program for a terminal: what it prints is what it is for"
)]

mod feed;
mod held;
mod report;
mod scenario;
mod subject;
mod swarm;
mod trial;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use report::Table;
use scenario::{SCENARIOS, Scenario};
use subject::Subject;
use trial::Trial;

/// BGP speakers beside each other.
#[derive(Debug, Parser)]
#[command(name = "lab-bgp")]
struct Arguments {
    /// Only these scenarios: full, starve, ten, fanout, flap, mesh, storm. By default all.
    scenarios: Vec<String>,
    /// Only these speakers: margay, bird, frr, openbgpd, gobgp, copy. By default all that a scenario is for.
    #[arg(long)]
    only: Vec<Subject>,
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

fn main() -> ExitCode {
    match lab::enter()
        .map(drop)
        .and_then(|()| run(&Arguments::parse()))
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    if let Some(unknown) = arguments
        .scenarios
        .iter()
        .find(|name| !names.contains(&name.as_str()))
    {
        bail!(
            "there is no scenario {unknown}: choose from {}",
            names.join(", ")
        );
    }
    let mut passed = true;
    for scenario in &SCENARIOS {
        let wanted = &arguments.scenarios;
        if wanted.is_empty() || wanted.iter().any(|name| name == scenario.name) {
            let table = measure(scenario, arguments);
            println!("{table}");
            passed &= table.holds();
        }
    }
    Ok(passed)
}

/// Runs a scenario, the subjects taking turns: what else the machine does meets all of them.
fn measure(scenario: &Scenario, arguments: &Arguments) -> Table {
    println!("\n=== bgp-{}: {}", scenario.name, scenario.title);
    let mut table = Table::new(scenario);
    let subjects: Vec<(Subject, usize)> = scenario
        .subjects
        .iter()
        .filter(|(subject, _)| arguments.only.is_empty() || arguments.only.contains(subject))
        .map(|(subject, most)| (*subject, arguments.runs.min(*most)))
        .collect();
    for run in 0..arguments.runs {
        let turn = subjects.iter().filter(|(_, runs)| run < *runs);
        let one = |subject: Subject| {
            let name = format!("{}-{subject}{run}", scenario.name);
            (scenario.measure)(&Trial { name, subject })
        };
        if scenario.together {
            std::thread::scope(|scope| {
                let trials: Vec<_> = turn
                    .map(|(subject, _)| (*subject, scope.spawn(|| one(*subject))))
                    .collect();
                for (subject, trial) in trials {
                    match trial.join() {
                        Ok(result) => table.add(subject, result),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
            });
        } else {
            for (subject, _) in turn {
                table.add(*subject, one(*subject));
            }
        }
    }
    table
}
