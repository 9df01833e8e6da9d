//! The command line of `margayd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Parser, ValueEnum};
use dataplane::GroupKind;

/// Margay's node agent: routes to this node's pods, a BGP speaker that announces them, and what a CNI plugin asks.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "margayd",
    version,
    group = ArgGroup::new("source").required(true).args(["config_dir", "kubernetes", "kubeconfig"]),
    after_help = "`margayd uninstall` removes all that Margay has put into the kernel: see `margayd uninstall --help`."
)]
pub struct Cli {
    /// This node's name: the name of its Node object.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,

    /// Directory of YAML files with Nodes and Margay's own resources; changes are picked up live.
    #[arg(long, env = "MARGAY_CONFIG_DIR", value_name = "DIR")]
    pub config_dir: Option<PathBuf>,

    /// Read Nodes, Secrets and Margay's own resources from the Kubernetes API, with the service account of the pod that this
    /// runs in.
    #[arg(long, env = "MARGAY_KUBERNETES")]
    pub kubernetes: bool,

    /// The same with this kubeconfig, outside a pod.
    #[arg(long, env = "MARGAY_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the Secrets that hold passwords: by default the pod's, or that of the kubeconfig's context.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// Directory that all nodes share, where it is written which node has which block of an IPPool. Unless given, the
    /// IPAMBlocks of the Kubernetes API say it, or `ipam` inside the configuration directory.
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

    /// Seconds for which there must have been no Node of a name until the blocks go back that this node had, if nobody announces
    /// them. Only with the Kubernetes API; 0: never.
    #[arg(
        long,
        env = "MARGAY_BLOCK_ORPHAN_GRACE",
        value_name = "SECONDS",
        default_value_t = crate::blocks::DEFAULT_ORPHAN_GRACE.as_secs()
    )]
    pub block_orphan_grace: u64,

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

    /// File that keeps what the API server said last, passwords too, for an agent that starts while it can't be reached:
    /// `cluster.json` among the sockets unless given. `none`: none is kept.
    #[arg(long, env = "MARGAY_CACHE_FILE", value_name = "FILE")]
    pub cache_file: Option<PathBuf>,

    /// Serve Prometheus metrics on this address. Off unless given.
    #[arg(long, env = "MARGAY_METRICS", value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Answer probes on this address, at `/livez` and `/readyz`. Off unless given.
    #[arg(long, env = "MARGAY_HEALTH", value_name = "ADDR:PORT")]
    pub health: Option<SocketAddr>,

    /// Seconds for which the node waits for the routes of its peers, from the speaker's start on: after that pods may come all
    /// the same, and `/readyz` asks for one session only.
    #[arg(
        long,
        env = "MARGAY_READY_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 120
    )]
    pub ready_timeout: u64,

    /// Where kernel parameters can be written: in a container, where the host's are mounted, for its own are read-only.
    #[arg(
        long,
        env = "MARGAY_SYSCTL_DIR",
        value_name = "DIR",
        default_value = "/proc/sys"
    )]
    pub sysctl_dir: PathBuf,

    /// How learned routes stand in the kernel: pointing at nexthop groups, of one kind or the other, so that one message moves
    /// all that share one; or each with its next hops in itself, as on a kernel that has no such groups.
    #[arg(
        long,
        env = "MARGAY_NEXTHOP_GROUPS",
        value_name = "KIND",
        default_value = "hash"
    )]
    pub nexthop_groups: NexthopGroups,

    /// Resilient groups: how many buckets flows are spread over.
    #[arg(
        long,
        env = "MARGAY_RESILIENT_BUCKETS",
        value_name = "NUMBER",
        default_value_t = 128,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub resilient_buckets: u16,

    /// Resilient groups: for how many seconds a bucket must see no packet before it may move to another next hop.
    #[arg(
        long,
        env = "MARGAY_RESILIENT_IDLE",
        value_name = "SECONDS",
        default_value_t = 120,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    pub resilient_idle: u32,

    /// Resilient groups: after how many seconds out of balance buckets move though they are not idle; 0: never.
    #[arg(
        long,
        env = "MARGAY_RESILIENT_UNBALANCED",
        value_name = "SECONDS",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=86_400)
    )]
    pub resilient_unbalanced: u32,

    /// What the kernel makes of a flow to choose among equal next hops (net.ipv4 and net.ipv6.fib_multipath_hash_policy).
    /// As it is set, unless given.
    #[arg(long, env = "MARGAY_ECMP_HASH", value_name = "POLICY")]
    pub ecmp_hash: Option<EcmpHash>,

    /// Sets net.ipv4.nexthop_compat_mode to 0: a change of a group then costs the kernel the same however many routes it
    /// has, but `ip route` shows these by the group's number only, and who listens for routes hears nothing of it.
    #[arg(long, env = "MARGAY_NEXTHOP_COMPAT_OFF")]
    pub nexthop_compat_off: bool,

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

/// How learned routes stand in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NexthopGroups {
    /// Pointing at groups that spread flows by regions of their hash.
    Hash,
    /// Pointing at groups that spread flows over buckets, and move no flow that need not move.
    Resilient,
    /// Each with its next hops in itself.
    Off,
}

/// What flows are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EcmpHash {
    /// Addresses: all between two pods takes one way.
    L3,
    /// Addresses, protocol and ports: connections between two pods may take different ways.
    L4,
    /// Addresses, of the inner packet where it is in a tunnel.
    Inner,
}

impl EcmpHash {
    /// The value of `fib_multipath_hash_policy`.
    #[must_use]
    pub fn policy(self) -> &'static str {
        match self {
            Self::L3 => "0",
            Self::L4 => "1",
            Self::Inner => "2",
        }
    }
}

impl Cli {
    /// The file that keeps what the API server said last; `None` for none.
    #[must_use]
    pub fn cache_file(&self) -> Option<PathBuf> {
        let path = self.cache_file.clone();
        let path = path.unwrap_or_else(|| self.run_dir.join("cluster.json"));
        Some(path).filter(|path| path.as_os_str() != "none" && self.config_dir.is_none())
    }

    /// The kind of nexthop groups that routes are to point at; `None` for none.
    #[must_use]
    pub fn group_kind(&self) -> Option<GroupKind> {
        match self.nexthop_groups {
            NexthopGroups::Off => None,
            NexthopGroups::Hash => Some(GroupKind::HashThreshold),
            // The kernel counts in hundredths of a second.
            NexthopGroups::Resilient => Some(GroupKind::Resilient {
                buckets: self.resilient_buckets,
                idle: self.resilient_idle * 100,
                unbalanced: self.resilient_unbalanced * 100,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, String> {
        let always = ["margayd", "--node-name", "a1", "--config-dir", "/nowhere"];
        Cli::try_parse_from(always.iter().chain(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_copy_is_kept_beside_the_sockets_unless_told_otherwise() {
        let file = |arguments: &[&str]| {
            let always = ["margayd", "--node-name=a1", "--kubernetes"];
            let cli = Cli::try_parse_from(always.iter().chain(arguments)).unwrap();
            cli.cache_file()
        };
        assert_eq!(file(&[]), Some("/run/margay/cluster.json".into()));
        assert_eq!(file(&["--cache-file=/x"]), Some("/x".into()));
        assert_eq!(file(&["--cache-file=none"]), None);
        assert_eq!(parse(&[]).unwrap().cache_file(), None);
    }

    #[test]
    fn groups_are_as_they_are_asked_for() {
        let kind = |arguments: &[&str]| parse(arguments).unwrap().group_kind();
        assert_eq!(kind(&[]), Some(GroupKind::HashThreshold));
        assert_eq!(kind(&["--nexthop-groups", "off"]), None);
        let resilient = ["--nexthop-groups=resilient", "--resilient-idle=5"];
        let expected = GroupKind::Resilient {
            buckets: 128,
            idle: 500,
            unbalanced: 0,
        };
        assert_eq!(kind(&resilient), Some(expected));
        let error = parse(&["--resilient-buckets", "0"]).unwrap_err();
        assert!(error.contains("0 is not in 1..=65535"), "{error}");
    }
}
