//! `margay-cni`, the CNI plugin: a shim between the container runtime and the agent on the same node.
//!
//! It reads what the runtime asks (environment, and the network configuration on stdin), opens what only a process on
//! the host can open (the pod's network namespace, and a netlink socket in it), hands both to the agent, and writes the
//! result. Without an agent it can do one thing, and that always: detach.
//!
//! | module | what |
//! | --- | --- |
//! | [`environment`] | `CNI_*` |
//! | [`config`] | the network configuration |
//! | [`commands`] | ADD, DEL, CHECK, GC, STATUS, VERSION |
//! | [`netns`] | the pod's network namespace |
//! | [`agent`] | one question and one answer |
//! | [`link`] | detaching without the agent |
//! | [`result`] | results in the words of each specification version |
//! | [`install`] | `margay-cni install` and `uninstall`, which a person or a chart runs |
//!
//! Single-threaded and blocking, without an async runtime: the process lives for about a millisecond.
#![forbid(unsafe_code)]

mod agent;
mod commands;
mod config;
mod environment;
mod error;
mod install;
mod link;
mod netns;
mod result;
mod version;

use std::io::{Read, Write};
use std::process::ExitCode;

use api::cni::code;
use serde_json::Value;

use crate::environment::Command;
use crate::error::CniError;
use crate::version::{LATEST, SUPPORTED};

fn main() -> ExitCode {
    let command = Command::read(|name| std::env::var(name).ok());
    if let Ok(None) = command {
        return by_hand(std::env::args().skip(1).collect());
    }
    let mut stdin = String::new();
    let outcome = command.and_then(|command| {
        let input = std::io::stdin().read_to_string(&mut stdin);
        input.map_err(|error| {
            CniError::new(
                code::IO,
                format_args!("read the configuration from stdin: {error}"),
            )
        })?;
        command.map_or(Ok(None), |command| commands::run(&command, &stdin))
    });
    let (output, code) = match outcome {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(error) => {
            let version = config::claimed_version(&stdin);
            (
                Some(error.to_json(version.as_deref().unwrap_or(LATEST))),
                ExitCode::FAILURE,
            )
        }
    };
    match output.map_or(Ok(()), |output| print(&output)) {
        Ok(()) => code,
        // Nobody reads: that can be told by the exit status alone.
        Err(_) => ExitCode::FAILURE,
    }
}

/// What the runtime parses; nothing else goes to stdout.
fn print(output: &Value) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{output}")?;
    stdout.flush()
}

/// No runtime started this: a person did, or a chart.
fn by_hand(arguments: Vec<String>) -> ExitCode {
    let about = matches!(
        arguments.first().map(String::as_str),
        None | Some("help" | "version" | "-h" | "-V" | "--help" | "--version")
    );
    if about {
        return tell(
            &format!(
                "margay-cni {}: the CNI plugin of Margay, for container runtimes to run\nCNI specification versions: {}\n\n{}",
                env!("CARGO_PKG_VERSION"),
                SUPPORTED.join(", "),
                install::USAGE,
            ),
            ExitCode::SUCCESS,
        );
    }
    let options = match install::Options::parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            let text = format!("margay-cni: {error}\n\n{}", install::USAGE);
            return tell(&text, ExitCode::from(2));
        }
    };
    // Whether anybody reads along does not matter for what is done.
    let say = |text| drop(writeln!(std::io::stdout(), "{text}"));
    match install::run(&options, say) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tell(&format!("margay-cni: {error}\n"), ExitCode::FAILURE),
    }
}

/// Says it on standard error.
fn tell(text: &str, code: ExitCode) -> ExitCode {
    match std::io::stderr().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
