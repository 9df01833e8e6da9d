//! The command line of `margayd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Margay's node agent: routes to this node's pods, a BGP speaker that announces them, and what a CNI plugin asks.
#[derive(Debug, Clone, Parser)]
#[command(name = "margayd", version)]
pub struct Cli {
    /// This node's name: the name of its Node object.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,

    /// Directory of YAML files with Nodes and Margay's own resources; changes are picked up live.
    #[arg(long, env = "MARGAY_CONFIG_DIR", value_name = "DIR")]
    pub config_dir: PathBuf,

    /// Directory that all nodes share, where it is written which node has which block of an IPPool. `ipam` inside the
    /// configuration directory unless given.
    #[arg(long, env = "MARGAY_IPAM_DIR", value_name = "DIR")]
    pub ipam_dir: Option<PathBuf>,

    /// Seconds after which a block of an IPPool goes back that no pod has used since.
    #[arg(
        long,
        env = "MARGAY_BLOCK_GRACE",
        value_name = "SECONDS",
        default_value_t = crate::blocks::DEFAULT_GRACE.as_secs()
    )]
    pub block_grace: u64,

    /// Seconds for which an address rests after use before another pod gets it.
    #[arg(
        long,
        env = "MARGAY_ADDRESS_COOLDOWN",
        value_name = "SECONDS",
        default_value_t = ipam::DEFAULT_COOLDOWN.as_secs()
    )]
    pub address_cooldown: u64,

    /// Directory for the agent's sockets: `api.sock` for margayctl, `cni.sock` for margay-cni.
    #[arg(
        long,
        env = "MARGAY_RUN_DIR",
        value_name = "DIR",
        default_value = "/run/margay"
    )]
    pub run_dir: PathBuf,

    /// Serve Prometheus metrics on this address. Off unless given.
    #[arg(long, env = "MARGAY_METRICS", value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Answer probes on this address, at `/livez` and `/readyz`. Off unless given.
    #[arg(long, env = "MARGAY_HEALTH", value_name = "ADDR:PORT")]
    pub health: Option<SocketAddr>,

    /// Where kernel parameters can be written: in a container, where the host's are mounted, for its own are read-only.
    #[arg(
        long,
        env = "MARGAY_SYSCTL_DIR",
        value_name = "DIR",
        default_value = "/proc/sys"
    )]
    pub sysctl_dir: PathBuf,

    /// Which log lines: a level, or directives such as `info,bgp_net=debug`.
    #[arg(
        long,
        env = "MARGAY_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,

    /// How log lines look.
    #[arg(
        long,
        env = "MARGAY_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}
