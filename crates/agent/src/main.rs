//! `margayd`.

use std::io::Write as _;
use std::process::ExitCode;

use agent::cli::Cli;
use agent::uninstall::{self, Uninstall};
use agent::{control, logging};
use clap::Parser as _;

/// musl's own has one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    if arguments.next().is_some_and(|first| first == "uninstall") {
        return uninstall(&Uninstall::parse_from(program.into_iter().chain(arguments)));
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    logging::start(&cli.log, cli.log_format)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(control::run(cli))
}

fn uninstall(wanted: &Uninstall) -> ExitCode {
    match uninstall::run(wanted) {
        Ok(told) => {
            let told = told.join("\n");
            // Nobody reads it: it was done all the same.
            drop(writeln!(std::io::stdout(), "{told}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            drop(writeln!(std::io::stderr(), "margayd uninstall: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
