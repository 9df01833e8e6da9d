//! `BGPPeer`: a peer of all nodes, of one, or of those with certain labels.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bgp_configuration::{validate_hold_time, validate_restart_time};
use crate::fault::Fault;
use crate::schema;
use crate::values::{cidr, optional_duration};
use crate::{AsNumber, ByLabel, PasswordSource, PeerAddress, Selector};

/// A peer, and which nodes have it. With neither `node` nor `nodeSelector` all nodes do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeerSpec {
    /// The one node that has this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The labels of nodes that have this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// Where it is. Without a port: the listen port where it is one of our nodes, else 179.
    #[serde(default, rename = "peerIP", skip_serializing_if = "Option::is_none")]
    pub peer_ip: Option<PeerAddress>,
    /// The labels of nodes that are the peers, in the place of `peerIP` and `asNumber`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_selector: Option<Selector>,
    /// The peers of a node by a label of its, as the routers of a rack, in the place of `peerIP` and `asNumber`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers_by_label: Option<ByLabel<Vec<Peer>>>,
    /// Whoever connects from a range of addresses, in the place of `peerIP` and `asNumber`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_range: Option<PeerRange>,
    /// Whether the nodes of `peerSelector` have those that have this peer as theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_peering: Option<ReversePeering>,
    /// Its AS; the same as the node's makes it an internal peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// The node's AS towards it.
    #[serde(
        default,
        rename = "localASNumber",
        skip_serializing_if = "Option::is_none"
    )]
    pub local_as_number: Option<AsNumber>,
    /// How often the node's own AS may be in the AS path of what it sends.
    #[serde(
        default,
        rename = "numAllowedLocalASNumbers",
        skip_serializing_if = "Option::is_none"
    )]
    pub num_allowed_local_as_numbers: Option<u8>,
    /// What becomes of private AS numbers towards it.
    #[serde(
        default,
        rename = "privateASNumbers",
        skip_serializing_if = "Option::is_none"
    )]
    pub private_as_numbers: Option<PrivateAs>,
    /// Whether the node's AS stands for the peer's own in what it is told.
    #[serde(
        default,
        rename = "overrideASNumber",
        skip_serializing_if = "Option::is_none"
    )]
    pub override_as_number: Option<bool>,
    /// Whether it is a bilateral peer, which routes with NOPEER are not for (RFC 3765).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bilateral: Option<bool>,
    /// Whether its GRACEFUL_SHUTDOWN is heard (RFC 8326).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<bool>,
    /// Whether its routes with BLACKHOLE discard (RFC 7999).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole: Option<bool>,
    /// Source address of our connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<SourceAddress>,
    /// Wait for its connection, never dial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// The gateway to it: a route to its address through there is put into the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable_by: Option<IpAddr>,
    /// How the next hop is set towards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_mode: Option<NextHopMode>,
    /// `Keep` where the peer is an external one: an old name of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_original_next_hop: Option<bool>,
    /// Whether IPv4 routes may have an IPv6 next hop on it (RFC 8950); over IPv6 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_next_hop: Option<bool>,
    /// Hold time to propose: zero (no keepalives), or at least 3 s.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration"
    )]
    #[schemars(with = "Option<schema::Duration>")]
    pub hold_time: Option<Duration>,
    /// How often we send a KEEPALIVE; at most a third of the hold time agreed on.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration"
    )]
    #[schemars(with = "Option<schema::Duration>")]
    pub keepalive_time: Option<Duration>,
    /// What TCP's segments are signed with (RFC 2385).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordSource>,
    /// How many prefixes it may announce in each family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<MaxPrefixes>,
    /// Whether graceful restart is offered to it (RFC 4724).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<bool>,
    /// How long it shall keep our routes while we restart.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration"
    )]
    #[schemars(with = "Option<schema::Duration>")]
    pub max_restart_time: Option<Duration>,
    /// Accept it only from at most this many hops away (RFC 5082); 1 is directly connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u8>,
    /// Names of BGPFilters, applied in order: the first rule that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
}

/// Peers that are not known by their addresses: whoever connects from a range, and is of one of these ASes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerRange {
    /// The range.
    #[serde(deserialize_with = "cidr::deserialize")]
    #[schemars(with = "schema::Cidr")]
    pub cidr: IpNet,
    /// Their ASes.
    pub as_numbers: Vec<AsNumber>,
    /// How many there may be at the same time; 100 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// One peer of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Where it is.
    #[serde(rename = "peerIP")]
    pub peer_ip: PeerAddress,
    /// Its AS.
    pub as_number: AsNumber,
}

/// A bound on the prefixes of each family that a peer announces, rejected ones counted too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaxPrefixes {
    /// So many are fine.
    pub limit: u32,
    /// From this share of the limit on it is said, in percent; 75 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_percent: Option<u8>,
    /// What one more leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<LimitAction>,
    /// With `Restart`: how long the session stays down; 5 minutes by default.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration"
    )]
    #[schemars(with = "Option<schema::Duration>")]
    pub restart_after: Option<Duration>,
}

/// What comes of more prefixes than the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LimitAction {
    /// It is said, and that is all.
    Warn,
    /// The session ends, and may come back after a while.
    #[default]
    Restart,
    /// The session ends, and stays down until somebody resets it.
    StayDown,
}

impl MaxPrefixes {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if self.limit == 0 {
            let message = "a limit of 0 lets no prefix pass: write 1 or more";
            faults.push(Fault::at("spec.maxPrefixes.limit", message));
        }
        if self
            .warn_percent
            .is_some_and(|percent| !(1..=100).contains(&percent))
        {
            let message = "a share of the limit is 1 to 100";
            faults.push(Fault::at("spec.maxPrefixes.warnPercent", message));
        }
        if self.restart_after.is_some() && self.action.unwrap_or_default() != LimitAction::Restart {
            let message = "has a meaning with `action: Restart` only: remove one of them";
            faults.push(Fault::at("spec.maxPrefixes.restartAfter", message));
        }
        if self.restart_after.is_some_and(|after| after.is_zero()) {
            let message = "a session that comes back at once would end at once: write `1s` or more";
            faults.push(Fault::at("spec.maxPrefixes.restartAfter", message));
        }
    }
}

/// Source address of our connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceAddress {
    /// The node's InternalIP.
    #[default]
    UseNodeIP,
    /// What the kernel chooses.
    None,
}

/// How the next hop is set (RFC 4271 §5.1.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NextHopMode {
    /// As the RFC says: ours towards external peers unless the route's own is on the shared subnet; unchanged towards
    /// internal ones.
    #[default]
    Auto,
    /// Ours always.
    #[serde(rename = "Self")]
    Own,
    /// Unchanged always.
    Keep,
}

/// Whether the other side of a `peerSelector` has the session as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReversePeering {
    /// It has.
    #[default]
    Auto,
    /// Only if another BGPPeer says so.
    Manual,
}

/// What becomes of private AS numbers (RFC 6996) towards an external peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PrivateAs {
    /// Nothing.
    #[default]
    Keep,
    /// They are taken out.
    Remove,
    /// The node's own AS stands for them.
    Replace,
}

impl BgpPeerSpec {
    /// Whether all nodes have this peer.
    #[must_use]
    pub fn is_global(&self) -> bool {
        self.node.is_none() && self.node_selector.is_none()
    }

    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        if self.node.is_some() && self.node_selector.is_some() {
            let message = "a peer has either `node` or `nodeSelector`: remove one of them";
            faults.push(Fault::at("spec.nodeSelector", message));
        }
        if self.node.as_deref() == Some("") {
            faults.push(Fault::at(
                "spec.node",
                "empty: write a node's name, or remove the field for a peer of all nodes",
            ));
        }
        self.validate_target(faults);
        if self.keep_original_next_hop.is_some() && self.next_hop_mode.is_some() {
            let message = "is the old name of `nextHopMode: Keep`: remove one of them";
            faults.push(Fault::at("spec.keepOriginalNextHop", message));
        }
        if self.graceful_restart == Some(false) && self.max_restart_time.is_some() {
            let message = "has no effect with `gracefulRestart: false`: remove one of them";
            faults.push(Fault::at("spec.maxRestartTime", message));
        }
        if self.ttl_security == Some(0) {
            faults.push(Fault::at(
                "spec.ttlSecurity",
                "counts hops: 1 is directly connected, 255 the most",
            ));
        }
        validate_hold_time(self.hold_time, faults);
        if self.keepalive_time.is_some_and(|time| time.is_zero()) {
            let message = "write `1s` or more; `holdTime: 0s` switches KEEPALIVEs off";
            faults.push(Fault::at("spec.keepaliveTime", message));
        }
        if let Some(password) = &self.password {
            password.validate("spec.password", faults);
        }
        if let Some(limit) = &self.max_prefixes {
            limit.validate(faults);
        }
        validate_restart_time("spec.maxRestartTime", self.max_restart_time, faults);
    }

    /// A peer is one address, the nodes with certain labels, a row of a table, or whoever comes from a range.
    fn validate_target(&self, faults: &mut Vec<Fault>) {
        if let Some(table) = &self.peers_by_label {
            table.validate("spec.peersByLabel", faults);
            for (value, peers) in &table.values {
                let field = format!("spec.peersByLabel.values.{value}");
                peers
                    .iter()
                    .for_each(|peer| validate_peer(&field, peer.peer_ip, faults));
            }
        }
        if let Some(range) = &self.peer_range {
            range.validate(self.passive, faults);
        }
        if let Some(address) = self.peer_ip {
            validate_peer("spec.peerIP", address, faults);
        }
        self.validate_gateway(faults);
        if self.reverse_peering.is_some() && self.peer_selector.is_none() {
            let message = "goes with `peerSelector`";
            faults.push(Fault::at("spec.reversePeering", message));
        }
        let targets = [
            ("peerSelector", self.peer_selector.is_some()),
            ("peersByLabel", self.peers_by_label.is_some()),
            ("peerRange", self.peer_range.is_some()),
        ];
        let single = [
            ("peerIP", self.peer_ip.is_some()),
            ("asNumber", self.as_number.is_some()),
        ];
        let mut set = targets.iter().filter(|(_, set)| *set);
        let Some((target, _)) = set.next() else {
            for (field, _) in single.iter().filter(|(_, set)| !set) {
                let message = format!(
                    "`{field}` is missing, or else `peerSelector`, `peersByLabel` or `peerRange`"
                );
                faults.push(Fault::at("spec", message));
            }
            return;
        };
        for (field, _) in set.chain(single.iter().filter(|(_, set)| *set)) {
            let message = format!("goes without `{target}`, which says it: remove one of them");
            faults.push(Fault::at(&format!("spec.{field}"), message));
        }
    }
}

impl BgpPeerSpec {
    /// A gateway is somebody else than the peer, and of its family.
    fn validate_gateway(&self, faults: &mut Vec<Fault>) {
        let Some(gateway) = self.reachable_by else {
            return;
        };
        let field = "spec.reachableBy";
        let Some(peer) = self.peer_ip else {
            return faults.push(Fault::at(field, "goes with `peerIP`"));
        };
        if gateway == peer.ip {
            let message = "is the peer itself: write the gateway to it, or remove this";
            faults.push(Fault::at(field, message));
        } else if gateway.is_ipv4() != peer.ip.is_ipv4() {
            let message = format!("`{gateway}` is not of the same family as {}", peer.ip);
            faults.push(Fault::at(field, message));
        }
    }
}

impl PeerRange {
    fn validate(&self, passive: Option<bool>, faults: &mut Vec<Fault>) {
        if self.as_numbers.is_empty() {
            let message = "is empty: write the ASes that peers may be of";
            faults.push(Fault::at("spec.peerRange.asNumbers", message));
        }
        if self.limit == Some(0) {
            let message = "a limit of 0 lets nobody in: write 1 or more";
            faults.push(Fault::at("spec.peerRange.limit", message));
        }
        if passive == Some(false) {
            let message = "goes without `peerRange`: nobody is dialled whose address is not known";
            faults.push(Fault::at("spec.passive", message));
        }
    }
}

fn validate_peer(field: &str, address: PeerAddress, faults: &mut Vec<Fault>) {
    let ip = address.ip;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        let message = format!("`{ip}` can't be a peer's address");
        faults.push(Fault::at(field, message));
    }
}
