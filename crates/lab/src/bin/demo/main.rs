//! `cargo xtask demo`: a data centre on this machine, and packets that find their way through it.
#![expect(
    clippy::print_stdout,
    reason = "a program for a terminal: what it prints is what it is for"
)]

mod paint;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use lab::datacentre::{DataCentre, Shape};
use lab::enter::Lab;
use lab::tor::Kind;
use lab::wait;

use paint::Paint;

/// A data centre in network namespaces.
#[derive(Debug, Parser)]
#[command(name = "lab-demo")]
struct Arguments {
    /// The ToRs' and the spine's speaker: bird, frr, gobgp or margay. By default the first of these that is installed.
    #[arg(long)]
    tor: Option<Kind>,
    /// Leave the data centre standing.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match lab::enter().and_then(demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n{} {error:#}", Paint::detect().bad("✗"));
            ExitCode::FAILURE
        }
    }
}

fn demo(lab: Lab) -> Result<()> {
    let arguments = Arguments::parse();
    let paint = Paint::detect();
    let start = wait::now();
    let kind = arguments.tor.unwrap_or_else(Kind::best);
    if let Some(missing) = kind.missing() {
        bail!("{kind} can't be the ToR here: {missing}");
    }

    let mut stage = show::Stage::new(paint, kind);
    stage.introduction();
    let shape = Shape {
        tor: Some(kind),
        ..Shape::default()
    };
    let mut dc = DataCentre::fabric(shape)?;
    let result = act(&mut stage, &mut dc);
    if let Err(error) = &result {
        println!("\n{}", dc.logs());
        println!("{} {error:#}", paint.bad("✗"));
    }

    println!(
        "\n{} in {:.1} s",
        if result.is_ok() && stage.failures() == 0 {
            paint.good("All as it should be")
        } else {
            paint.bad("Not all as it should be")
        },
        start.elapsed().as_secs_f64()
    );
    if arguments.keep {
        stage.keep(&dc, lab.outer_pid());
        lab.keep()?;
    }
    result?;
    if stage.failures() > 0 {
        bail!("{} of the checks above failed", stage.failures());
    }
    Ok(())
}

fn act(stage: &mut show::Stage, dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(Duration::from_secs(20))?;
    stage.sessions(dc)?;
    stage.routes(dc)?;
    stage.matrix(dc)?;
    stage.way(dc)?;
    stage.throughput(dc)?;
    stage.kill(dc)
}
