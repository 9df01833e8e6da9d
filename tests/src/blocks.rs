//! Blocks of pools, as the kernels of the nodes have them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use ipnet::Ipv4Net;
use lab::datacentre::{DataCentre, Node};
use lab::wait;

use crate::{oracle, same};

/// Which node has which block, by some record.
pub type Owners = BTreeMap<Ipv4Net, String>;

/// What the kernel has of ranges: blackholes of the node's own, gateways to others.
///
/// # Errors
/// When the kernel can't be asked.
pub fn ranges(node: &Node) -> Result<BTreeMap<Ipv4Net, Option<String>>> {
    let mut routes = oracle::margay_routes(&node.namespace)?;
    routes.retain(|prefix, _| prefix.prefix_len() < 32);
    Ok(routes)
}

/// Waits until every kernel has every block of the record: a blackhole where it is at home, a route there from elsewhere.
///
/// # Errors
/// When that has not happened after `limit`.
pub fn wait_everywhere(
    dc: &DataCentre,
    limit: Duration,
    record: impl Fn() -> Result<Owners>,
) -> Result<()> {
    wait::until("blocks in all kernels", limit, || {
        let blocks = record()?;
        for node in dc.nodes() {
            let gateway = |owner: &String| {
                let mut others = dc.nodes().filter(|other| other.name != node.name);
                let owner = others.find(|other| other.name == *owner);
                owner.map(|owner| owner.address.to_string())
            };
            let expected = blocks.iter().map(|(block, owner)| (*block, gateway(owner)));
            same(&node.name, &ranges(node)?, &expected.collect())?;
        }
        Ok(())
    })
}
