//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::styling::Styles;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::IpNet;

const EXAMPLES: &str = "\
Examples:
  margayctl status                       Is this node all right?
  margayctl bgp peers                    Which sessions are up, and why are the others not?
  margayctl bgp peer 192.0.2.1           Everything about one session
  margayctl bgp routes 10.244.3.0/24     Who offers this prefix, and which path won?
  margayctl bgp routes --to 192.0.2.1    What do we announce there, and why not the rest?
  margayctl routes                       Does the kernel hold what it should?
  margayctl tunnels                      Which nodes are reached by IPIP, and why?
  margayctl --node a1 bgp peers          The same from elsewhere, by kubectl and its kubeconfig
  margayctl --all-nodes status           Is the cluster all right?

Exit status:
  0  all is well
  1  something needs attention (status: anything listed there; bgp peers, bgp peer: a session is down; routes: a
     route is missing, wrong, foreign, shadowed or unresolved), or the agent refused the question
  2  the command line is wrong
  3  the agent can't be reached";

const ROUTES_EXAMPLES: &str = "\
Examples:
  margayctl bgp routes                       Every path of every prefix
  margayctl bgp routes 10.244.3.7            Which prefixes hold this pod's address?
  margayctl bgp routes --from 192.0.2.1      What did this peer send, and what did we refuse?
  margayctl bgp routes --to 192.0.2.1        What does this peer get, and why not the rest?";

const RESET_EXAMPLES: &str = "\
Examples:
  margayctl bgp reset 192.0.2.1 --soft                 Everything once more, without a loss
  margayctl bgp reset 192.0.2.1 -m 'new line card'     A new session; the peer's log has the reason";

/// Looks into Margay's agent on this node, or on nodes of a cluster.
#[derive(Debug, Parser)]
#[command(name = "margayctl", version, after_help = EXAMPLES, styles = Styles::plain())]
pub(crate) struct Cli {
    /// The agent's socket
    #[arg(long, global = true, help_heading = "Global options", env = "MARGAY_SOCKET", default_value = api::DEFAULT_SOCKET, value_name = "PATH")]
    pub(crate) socket: PathBuf,

    /// How to print: for a person, with more columns, or for a program
    #[arg(short, long, global = true, help_heading = "Global options", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    /// Print again every two seconds, until interrupted
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) watch: bool,

    #[command(flatten)]
    pub(crate) cluster: Cluster,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which agents of a cluster to ask, in the place of this machine's.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "On a cluster, by kubectl")]
pub(crate) struct Cluster {
    /// Ask the agent on this node; may be given more than once
    #[arg(long = "node", global = true, value_name = "NAME")]
    pub(crate) nodes: Vec<String>,

    /// Ask the agents on all nodes
    #[arg(long, global = true, conflicts_with = "nodes")]
    pub(crate) all_nodes: bool,

    /// The kubeconfig's context; without --node: all nodes
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// The kubeconfig; without --node: all nodes
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The namespace that Margay is installed in
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = "kube-system"
    )]
    pub(crate) namespace: String,

    /// The program that knows the way to the API server
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MARGAY_KUBECTL",
        default_value = "kubectl"
    )]
    pub(crate) kubectl: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The node at a glance, and what needs attention
    Status,
    /// Sessions and routes of the BGP speaker
    #[command(subcommand)]
    Bgp(Bgp),
    /// The kernel's routes beside those that should be there
    #[command(
        after_help = "Exit status: 1 when a route is missing, wrong, foreign, shadowed or unresolved. One that is left over goes by itself."
    )]
    Routes,
    /// Which next hops are reached through a tunnel, and why
    #[command(
        after_help = "Exit status: 1 when packets go without the tunnel that their IPPool wants, or a device is not as it should be."
    )]
    Tunnels,
    /// The pods attached to this node
    Endpoints,
    /// Our nftables table, and what we added to other tables
    Firewall,
    /// One request to the agent, and its answer as it comes: what --node has run in the agent's pod
    #[command(hide = true)]
    Raw {
        /// GET or POST
        #[arg(value_parser = ["GET", "POST"])]
        method: String,
        /// Path and query
        target: String,
        /// JSON
        #[arg(default_value = "")]
        body: String,
    },
    /// Completions for a shell
    #[command(after_help = "Example:\n  source <(margayctl completion bash)")]
    Completion {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// All sessions: state, uptime, prefixes, and why one is down
    #[command(
        after_help = "Example:\n  until margayctl bgp peers; do sleep 1; done    Wait until every session is up"
    )]
    Peers,
    /// One session in detail
    Peer {
        /// The peer's address
        address: IpAddr,
    },
    /// End a session and start it again, whatever kept it down; or, with --soft, move all routes once more
    #[command(after_help = RESET_EXAMPLES)]
    Reset {
        /// The peer's address
        address: IpAddr,

        /// Keep the session: send all routes again, and ask for the peer's (route refresh)
        #[arg(long, conflicts_with = "message")]
        soft: bool,

        /// A reason that the peer's operator will read, up to 255 octets
        #[arg(
            short,
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        message: String,
    },
    /// End a session and keep it down, until it is reset or the agent starts anew
    Shutdown {
        /// The peer's address
        address: IpAddr,

        /// A reason that the peer's operator will read, up to 255 octets
        #[arg(
            short,
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        message: String,
    },
    /// Routes: all paths and which won; or what one peer sends us, or gets
    #[command(after_help = ROUTES_EXAMPLES)]
    Routes(Routes),
}

#[derive(Debug, Args)]
pub(crate) struct Routes {
    /// Only this prefix and those inside it; an address stands for the prefixes that hold it
    pub(crate) prefix: Option<Prefix>,

    /// What this peer sent us, with what our policy says of it
    #[arg(long, value_name = "PEER", conflicts_with = "to")]
    pub(crate) from: Option<IpAddr>,

    /// What we send this peer, and why not the rest
    #[arg(long, value_name = "PEER")]
    pub(crate) to: Option<IpAddr>,
}

/// A prefix or an address, checked here so that a slip is a usage error.
#[derive(Debug, Clone)]
pub(crate) struct Prefix(pub(crate) String);

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
            (Err(_), Err(_)) => Err("write a prefix as in 10.244.3.0/24, or an address".to_owned()),
            _ => Ok(Self(text.to_owned())),
        }
    }
}
