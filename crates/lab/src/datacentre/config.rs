//! What the agents read: a directory of YAML for each node.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use super::{DataCentre, Node};

/// Writes every node's directory. Each has its own copy, so that a test can break one.
pub(super) fn write(dc: &DataCentre) -> Result<()> {
    let nodes: String = dc.nodes().map(node).collect();
    for owner in dc.nodes() {
        let folder = owner.config_folder();
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("nodes.yaml"), &nodes)?;
        fs::write(folder.join("bgp.yaml"), bgp(dc)?)?;
    }
    Ok(())
}

fn node(node: &Node) -> String {
    let (mut pod_cidrs, mut addresses) = (node.pod_cidr.to_string(), node.address.to_string());
    if let Some(ipv6) = node.ipv6 {
        pod_cidrs = format!("{pod_cidrs}\n    - {}", ipv6.pod_cidr);
        addresses = format!(
            "{addresses}\n    - type: InternalIP\n      address: {}",
            ipv6.address
        );
    }
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {}\n  labels:\n    rack: {}\n  annotations:\n    \
         margay.dev/as-number: \"{}\"\nspec:\n  podCIDR: {}\n  podCIDRs:\n    - {}\nstatus:\n  addresses:\n    \
         - type: InternalIP\n      address: {}\n",
        node.name, node.rack, node.asn, node.pod_cidr, pod_cidrs, addresses
    )
}

fn bgp(dc: &DataCentre) -> Result<String> {
    let mesh = dc.shape.tor.is_none();
    let mut text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata:\n  name: default\nspec:\n  \
         nodeToNodeMeshEnabled: {mesh}\n  holdTime: {}s\n",
        dc.shape.hold_time.as_secs()
    );
    for rack in dc.racks.iter().filter(|_| !mesh) {
        write!(
            text,
            "---\napiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata:\n  name: tor-{0}\nspec:\n  \
             nodeSelector: rack == '{0}'\n  peerIP: {1}\n  asNumber: {2}\n",
            rack.name, rack.tor.address, rack.tor.asn
        )?;
        let Some(second) = &rack.second_tor else {
            continue;
        };
        // Its nodes are known to it by their addresses on its own segment.
        write!(
            text,
            "---\napiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata:\n  name: {}\nspec:\n  \
             nodeSelector: rack == '{}'\n  peerIP: {}\n  asNumber: {}\n  sourceAddress: None\n",
            second.name, rack.name, second.address, second.asn
        )?;
    }
    Ok(text)
}
