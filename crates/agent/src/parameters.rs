//! Kernel parameters that the agent sets, as far as it is asked to or pods need them.

use std::path::Path;

use netlink::sysctl;
use node::NodePlan;
use tracing::{info, warn};

use crate::cli::Cli;

/// Without it no packet gets from a pod to anywhere else.
pub(crate) fn forward_ipv4(cli: &Cli) {
    match sysctl::enable_ipv4_forwarding(&cli.sysctl_dir) {
        Ok(true) => info!("switched net.ipv4.ip_forward on"),
        Ok(false) => {}
        Err(error) => warn!("pods can't be routed to: {error}"),
    }
}

/// What the operator wants of the kernel's choice among equal next hops.
pub(crate) fn multipath(cli: &Cli) {
    let mut wanted = Vec::new();
    if cli.nexthop_compat_off {
        wanted.push(("net.ipv4.nexthop_compat_mode", "0"));
    }
    if let Some(hash) = cli.ecmp_hash {
        wanted.push(("net.ipv4.fib_multipath_hash_policy", hash.policy()));
        wanted.push(("net.ipv6.fib_multipath_hash_policy", hash.policy()));
    }
    for (name, value) in wanted {
        match sysctl::set_in(&cli.sysctl_dir, name, value) {
            Ok(true) => info!("set {name} to {value}"),
            Ok(false) => {}
            Err(error) => warn!("{error}"),
        }
    }
}

/// A node without IPv6 pods is left as it is: a router ignores the advertisements from which it may have its own address.
pub(crate) fn forward_ipv6(plan: &NodePlan, sysctls: &Path) {
    if !plan.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6()) {
        return;
    }
    match sysctl::enable_ipv6_forwarding(sysctls) {
        Ok(true) => info!("switched net.ipv6.conf.all.forwarding on"),
        Ok(false) => {}
        Err(error) => warn!("pods can't be routed to over IPv6: {error}"),
    }
}
