//! What our own nftables table is to do, as a value.
//!
//! Routing needs no packet filter. The table holds what routing can't say: which sources a pod may use, whose tunnel packets
//! are taken, and where pods' addresses must not be seen.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// The whole table. Equal values make equal tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Pods' host interfaces start with this: `mgy`. Empty: there are none, and no rule is about them.
    pub pod_interfaces: String,
    /// Host interfaces of pods that may send from addresses which are not theirs.
    pub spoofers: BTreeSet<String>,
    /// Pools whose pods take the node's address when they send to somewhere outside [`inside`](Self::inside).
    pub masqueraded: Vec<IpNet>,
    /// Where pods' own addresses are known: all pools, and all nodes.
    pub inside: Vec<IpNet>,
    /// Ranges of Services' addresses. What is still on its way to one of them when it is forwarded belongs to no Service.
    pub services: Vec<IpNet>,
    /// Whether the sender of such a packet is told, or it is dropped without a word.
    pub reject_services: bool,
    /// Whose tunnel packets are taken; `None`: no tunnel of ours is there, and nobody's are looked at.
    pub tunnel_peers: Option<BTreeSet<IpAddr>>,
}

impl Firewall {
    /// Nothing is to be done: no table is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pod_interfaces.is_empty()
            && self.masqueraded.is_empty()
            && self.services.is_empty()
            && self.tunnel_peers.is_none()
    }

    /// The same as a person reads it, a line for each rule.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.pod_interfaces.is_empty() {
            lines.push(format!(
                "packets from {}* whose source address isn't routed to that interface: dropped",
                self.pod_interfaces
            ));
            if !self.spoofers.is_empty() {
                let names: Vec<&str> = self.spoofers.iter().map(String::as_str).collect();
                lines.push(format!("not looked at: {}", names.join(", ")));
            }
            lines.push(format!(
                "router advertisements and redirects from {}*: dropped",
                self.pod_interfaces
            ));
        }
        if let Some(peers) = &self.tunnel_peers {
            lines.push(format!(
                "tunnel packets from anybody but {} nodes: dropped",
                peers.len()
            ));
        }
        let list = |nets: &[IpNet]| {
            let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
            nets.join(", ")
        };
        if !self.services.is_empty() {
            lines.push(format!(
                "forwarded to an address of {} that no Service has: {}",
                list(&self.services),
                match self.reject_services {
                    true => "rejected",
                    false => "dropped",
                }
            ));
        }
        if !self.masqueraded.is_empty() {
            lines.push(format!(
                "from {} to outside {}: masqueraded",
                list(&self.masqueraded),
                list(&self.inside)
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_do_is_no_table() {
        assert!(Firewall::default().is_empty());
        let tunnel = Firewall {
            tunnel_peers: Some(BTreeSet::new()),
            ..Firewall::default()
        };
        assert!(!tunnel.is_empty());
    }

    #[test]
    fn reads_like_sentences() {
        let firewall = Firewall {
            pod_interfaces: "mgy".into(),
            spoofers: ["mgy1".to_owned()].into(),
            masqueraded: vec!["10.244.0.0/16".parse().unwrap()],
            inside: vec![
                "10.244.0.0/16".parse().unwrap(),
                "192.0.2.1/32".parse().unwrap(),
            ],
            services: vec!["10.96.0.0/12".parse().unwrap()],
            reject_services: false,
            tunnel_peers: Some(["192.0.2.1".parse().unwrap()].into()),
        };
        let expected = [
            "packets from mgy* whose source address isn't routed to that interface: dropped",
            "not looked at: mgy1",
            "router advertisements and redirects from mgy*: dropped",
            "tunnel packets from anybody but 1 nodes: dropped",
            "forwarded to an address of 10.96.0.0/12 that no Service has: dropped",
            "from 10.244.0.0/16 to outside 10.244.0.0/16, 192.0.2.1/32: masqueraded",
        ];
        assert_eq!(firewall.describe(), expected);
    }
}
