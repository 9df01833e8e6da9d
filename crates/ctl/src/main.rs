//! `margayctl`, the operator's tool: asks the agent on its local socket, and says it so that somebody who was woken
//! at night finds what is wrong.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`] | the command line |
//! | [`client`] | HTTP over the agent's Unix socket |
//! | [`cluster`] | agents in their pods, by kubectl |
//! | [`run`] | one command: ask, show, exit code |
//! | [`table`], [`text`] | aligned columns, durations, counts |
//! | [`view`] | the API's values as tables and pages |

mod cli;
mod client;
mod cluster;
mod run;
mod table;
mod text;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    run::main()
}
