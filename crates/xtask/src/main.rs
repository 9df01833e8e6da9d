//! `cargo xtask`: the demo, the tests, the checks and the benchmarks. It depends on nothing of the workspace, so that it
//! is built in a moment; what it runs is built with the profile `lab`.
#![expect(
    clippy::print_stdout,
    reason = "a program for a terminal: what it prints is what it is for"
)]

mod bench;
mod check;
mod kubernetes;
mod packages;
mod run;
mod suites;
mod vm;

#[cfg(test)]
mod graph;
#[cfg(test)]
mod rfc;
#[cfg(test)]
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use run::Session;

/// Margay's automation.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds a data centre in network namespaces and shows packets find their way through it.
    Demo {
        /// The ToRs' and the spine's speaker: bird, frr, gobgp or margay. By default the first of these that is
        /// installed.
        #[arg(long)]
        tor: Option<String>,
        /// Leave the data centre standing, with the commands to look around in it.
        #[arg(long)]
        keep: bool,
    },
    /// Installs what the tests need and runs everything: `check`, the simulation, and the suites in network namespaces.
    Test {
        /// Install nothing: what needs a missing program is skipped, and says so.
        #[arg(long)]
        no_install: bool,
    },
    /// Format, clippy, documentation, unit tests, crate graph, licences: no root, no namespaces.
    Check,
    /// Runs a command on Debian's kernel under qemu, with this machine's root as its own, read-only.
    Vm {
        /// The command, as for a shell: `uname -r`, or a test program with its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Runs what concerns the kernel on Debian's under qemu: a part of `test`.
    SecondKernel,
    /// Writes the chart's CustomResourceDefinitions from the types.
    Crds,
    /// Installs the other speakers, has a session of every kind with each, and writes docs/interop.md.
    Interop,
    /// Measures, beside a reference in the same run.
    Bench {
        /// Only the benchmarks whose name holds this: `codec`, `add`, `routes`, `dataplane`, `kube`, `bgp`, or one scenario of the last, as in `bgp-full`.
        filter: Option<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Demo { tor, keep } => demo(tor.as_deref(), keep),
        Command::Test { no_install } => {
            let mut session = Session::new();
            packages::provide(&mut session, !no_install)?;
            kubernetes::provide(&mut session, !no_install)?;
            check::run(&mut session, !no_install)?;
            check::kernel(&mut session)?;
            suites::simulation(&mut session)?;
            suites::run(&mut session, !no_install)?;
            vm::suites(&mut session, !no_install)?;
            Ok(session.close())
        }
        Command::Check => {
            let mut session = Session::new();
            check::run(&mut session, false)?;
            Ok(session.close())
        }
        Command::Vm { command } => machine(&command),
        Command::SecondKernel => {
            let mut session = Session::new();
            packages::provide(&mut session, true)?;
            vm::suites(&mut session, true)?;
            Ok(session.close())
        }
        Command::Crds => {
            let status = run::cargo()
                .args(["run", "--quiet", "-p", "crds"])
                .status()?;
            Ok(status.success())
        }
        Command::Interop => {
            let mut session = Session::new();
            packages::provide(&mut session, true)?;
            suites::interop(&mut session)?;
            Ok(session.close())
        }
        Command::Bench { filter } => bench::run(filter.as_deref()),
    }
}

fn machine(command: &[String]) -> Result<bool> {
    let kernel = vm::unpack()?;
    let words: Vec<String> = command.iter().map(|word| vm::quote(word)).collect();
    let status = vm::run(&kernel, &words.join(" "), |line| println!("{line}"))?;
    if status != 0 {
        println!("exit status {status}");
    }
    Ok(status == 0)
}

fn demo(tor: Option<&str>, keep: bool) -> Result<bool> {
    println!("Building (profile lab) …");
    run::build_lab()?;
    let mut demo = std::process::Command::new(run::lab_folder()?.join("lab-demo"));
    if let Some(tor) = tor {
        demo.args(["--tor", tor]);
    }
    if keep {
        demo.arg("--keep");
    }
    Ok(demo.status()?.success())
}
