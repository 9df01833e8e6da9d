//! One command: ask, show, exit code.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use api::{PeerAction, PeerOrder, PeerOrderDone};
use clap::{CommandFactory, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::{Bgp, Cli, Command, Format, Routes};
use crate::client::{self, Agent, Failure};
use crate::cluster;
use crate::view;

/// How long `--watch` waits.
const INTERVAL: Duration = Duration::from_secs(2);

/// What a command has to say.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// Whether all is well.
    pub(crate) well: bool,
}

/// How to show an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) wide: bool,
    pub(crate) colour: bool,
}

pub(crate) fn main() -> ExitCode {
    let mut command = Cli::command();
    if let Some(name) = plugin_name() {
        // kubectl runs its plugins by the name kubectl-NAME; help should show what the user typed.
        command = command.name(name).bin_name(name);
    }
    let mut cli = match Cli::from_arg_matches_mut(&mut command.get_matches_mut()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Command::Completion { shell } = cli.command {
        let name = plugin_name().map_or("margayctl", |_| "kubectl-margay");
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), name, &mut script);
        return ExitCode::from(print(&script, 0).unwrap_or_else(|code| code));
    }
    let terminal = io::stdout().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style {
        wide: cli.output == Format::Wide,
        colour: terminal && !plain,
    };
    if let Command::Raw {
        method,
        target,
        body,
    } = &cli.command
    {
        let code = match client::raw(&cli.socket, method, target, body) {
            Ok(answer) => print(&answer, 0),
            Err(failure) => show(Err(failure)),
        };
        return ExitCode::from(code.unwrap_or_else(|code| code));
    }
    loop {
        let result = match on_cluster(&cli) {
            true => of_cluster(&mut cli, style),
            false => answer(&cli, &Agent::Local(cli.socket.clone()), style),
        };
        if cli.watch && terminal {
            // Erase the screen and go to its corner (ECMA-48 ED, CUP).
            if let Err(code) = print(b"\x1b[2J\x1b[H", 0) {
                return ExitCode::from(code);
            }
        }
        match show(result) {
            Ok(_) if cli.watch => {}
            Ok(code) | Err(code) => return ExitCode::from(code),
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a person watches: there is no event to wait for"
        )]
        std::thread::sleep(INTERVAL);
    }
}

/// Prints and gives the exit code: as an error when nothing can be printed any more.
fn show(result: Result<Answer, Failure>) -> Result<u8, u8> {
    match result {
        Ok(Answer { text, well }) => print(text.as_bytes(), u8::from(!well)),
        Err(failure) => {
            let code = match failure {
                Failure::Unreachable { .. } | Failure::Cluster(_) => 3,
                Failure::Refused(_) | Failure::Garbled(_) => 1,
            };
            complain(&failure).map_or(Err(code), |()| Ok(code))
        }
    }
}

/// Writes to stdout. A reader that has gone (`margayctl … | head`) had what it wanted, and changes nothing about `code`;
/// whatever else is in the way means that somebody has not got the answer.
fn print(text: &[u8], code: u8) -> Result<u8, u8> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(code),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(code),
        Err(error) => {
            // Where stderr is no better, the exit code alone tells.
            complain(&format_args!("write the answer: {error}")).ok();
            Err(code.max(1))
        }
    }
}

fn complain(what: &dyn Display) -> io::Result<()> {
    writeln!(io::stderr(), "margayctl: {what}")
}

/// How kubectl's user calls us, when kubectl does.
fn plugin_name() -> Option<&'static str> {
    let program = std::env::args_os().next()?;
    (Path::new(&program).file_name() == Some(OsStr::new("kubectl-margay")))
        .then_some("kubectl margay")
}

/// Whether agents of a cluster are asked. kubectl's user means the cluster, unless this is a node.
fn on_cluster(cli: &Cli) -> bool {
    cli.cluster.is_asked() || (plugin_name().is_some() && !cli.socket.exists())
}

/// Asks one agent of a cluster as if it were here, or several with their nodes' names before what they say.
fn of_cluster(cli: &mut Cli, style: Style) -> Result<Answer, Failure> {
    let pods = cli.cluster.pods()?;
    if let ([pod], [_]) = (pods.as_slice(), cli.cluster.nodes.as_slice()) {
        return answer(cli, &Agent::Pod(pod.clone()), style);
    }
    let format = cli.output;
    if format == Format::Yaml {
        // To be read again below.
        cli.output = Format::Json;
    }
    let ask = |pod: &cluster::Pod| answer(cli, &Agent::Pod(pod.clone()), style);
    let answers = cluster::each(&pods, ask);
    cli.output = format;
    let well = answers
        .iter()
        .all(|answer| answer.as_ref().is_ok_and(|it| it.well));
    let nodes = pods.iter().map(|pod| pod.node.as_str());
    let answers = nodes.zip(answers);
    let text = match format {
        Format::Json | Format::Yaml => {
            let values: Vec<serde_json::Value> = answers.map(by_node).collect();
            raw(format, &values).unwrap_or_default()
        }
        Format::Table | Format::Wide => {
            let parts = answers.map(|(node, answer)| match answer {
                Ok(answer) => format!("=== {node}\n{}", answer.text),
                Err(failure) => format!("=== {node}\n{failure}\n"),
            });
            parts.collect::<Vec<String>>().join("\n")
        }
    };
    Ok(Answer { text, well })
}

/// What a program reads of one of several.
fn by_node((node, answer): (&str, Result<Answer, Failure>)) -> serde_json::Value {
    match answer {
        // It was written just now.
        Ok(answer) => {
            let value: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_default();
            serde_json::json!({ "node": node, "answer": value })
        }
        Err(failure) => serde_json::json!({ "node": node, "error": failure.to_string() }),
    }
}

fn answer(cli: &Cli, agent: &Agent, style: Style) -> Result<Answer, Failure> {
    match &cli.command {
        Command::Status => status(cli, agent, style),
        Command::Bgp(Bgp::Peers) => page(
            cli,
            agent,
            style,
            api::path::PEERS,
            view::peers::is_well,
            view::peers::table,
        ),
        Command::Bgp(Bgp::Peer { address }) => {
            let target = format!("{}/{address}", api::path::PEERS);
            page(
                cli,
                agent,
                style,
                &target,
                view::peers::is_up,
                view::peers::page,
            )
        }
        Command::Bgp(Bgp::Reset {
            address,
            soft,
            message,
        }) => {
            let action = match soft {
                true => PeerAction::SoftReset,
                false => PeerAction::Reset,
            };
            order(cli, agent, *address, action, message)
        }
        Command::Bgp(Bgp::Shutdown { address, message }) => {
            order(cli, agent, *address, PeerAction::Shutdown, message)
        }
        Command::Bgp(Bgp::Routes(routes)) => page(
            cli,
            agent,
            style,
            &query(routes),
            |_| true,
            |answer, style| view::bgp_routes::table(answer, routes, style),
        ),
        Command::Routes => page(
            cli,
            agent,
            style,
            api::path::ROUTES,
            view::routes::is_well,
            view::routes::table,
        ),
        Command::Tunnels => page(
            cli,
            agent,
            style,
            api::path::TUNNELS,
            view::tunnels::is_well,
            view::tunnels::page,
        ),
        Command::Endpoints => page(
            cli,
            agent,
            style,
            api::path::ENDPOINTS,
            |_| true,
            view::endpoints::table,
        ),
        Command::Firewall => page(
            cli,
            agent,
            style,
            api::path::STATUS,
            |status: &api::Status| status.firewall.error.is_none(),
            |status, _| view::firewall::page(status),
        ),
        Command::Completion { .. } | Command::Raw { .. } => Ok(Answer {
            text: String::new(),
            well: true,
        }),
    }
}

/// The node at a glance.
fn status(cli: &Cli, agent: &Agent, style: Style) -> Result<Answer, Failure> {
    let body = client::get(agent, api::path::STATUS)?;
    let status: api::Status = client::decode(&body)?;
    if let Some(text) = raw(cli.output, &status) {
        return Ok(Answer {
            text,
            well: view::status::is_well(&status),
        });
    }
    // The sessions' own words say more than their number; an agent that fails in between is no reason to be silent.
    let peers = client::get(agent, api::path::PEERS)
        .and_then(|body| client::decode::<api::Peers>(&body))
        .unwrap_or_default();
    Ok(view::status::show(&status, &peers, style))
}

/// Has the agent do something with a peer, and shows what came of it.
fn order(
    cli: &Cli,
    agent: &Agent,
    address: IpAddr,
    action: PeerAction,
    text: &str,
) -> Result<Answer, Failure> {
    let order = PeerOrder {
        action,
        text: text.to_owned(),
    };
    let target = format!("{}/{address}", api::path::PEERS);
    let done: PeerOrderDone = client::decode(&client::post(agent, &target, &order)?)?;
    let text = raw(cli.output, &done).unwrap_or_else(|| format!("{}\n", done.message));
    Ok(Answer { text, well: true })
}

/// Asks for a value, and shows it in the format that is wanted.
fn page<T: Serialize + DeserializeOwned>(
    cli: &Cli,
    agent: &Agent,
    style: Style,
    target: &str,
    well: impl Fn(&T) -> bool,
    show: impl Fn(&T, Style) -> String,
) -> Result<Answer, Failure> {
    let value: T = client::decode(&client::get(agent, target)?)?;
    let text = raw(cli.output, &value).unwrap_or_else(|| show(&value, style));
    Ok(Answer {
        text,
        well: well(&value),
    })
}

/// The value for a program; `None` where a person wants to read.
fn raw<T: Serialize>(format: Format, value: &T) -> Option<String> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value).map_err(|error| error.to_string()),
        Format::Yaml => serde_saphyr::to_string(value).map_err(|error| error.to_string()),
        Format::Table | Format::Wide => return None,
    };
    // Our own types always can be written.
    let mut text = text.unwrap_or_else(|error| error);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Some(text)
}

/// Addresses and prefixes need no escapes in a query (RFC 3986 §3.4).
fn query(routes: &Routes) -> String {
    let parts = [
        routes
            .prefix
            .as_ref()
            .map(|prefix| format!("prefix={}", prefix.0)),
        routes.from.map(|peer| format!("from={peer}")),
        routes.to.map(|peer| format!("to={peer}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => api::path::BGP_ROUTES.to_owned(),
        false => format!("{}?{}", api::path::BGP_ROUTES, parts.join("&")),
    }
}
