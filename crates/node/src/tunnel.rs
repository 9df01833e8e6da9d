//! Which next hops are reached through a tunnel, and why.
//!
//! Two questions with two owners. How a prefix's packets are to travel is its pool's (`ipipMode`); whether a tunnel to a next hop
//! can be had is the next hop's: it must be a node, for nobody else unwraps, and the device must be there. Whether a next hop
//! can be reached at all is neither's: a tunnel is as good as what is under it ([`reach`](crate::reach)).
//!
//! Where a tunnel is wanted and can't be had, packets go as they would without: in a network that knows where pods are they
//! arrive, and in another one nothing is lost that a missing route would have saved.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use dataplane::{LinkIndex, Links, NextHop, Tunnel, TunnelKind};
use ipnet::IpNet;
use resources::{ClusterState, IpipMode, Node};

use crate::Reach;
use crate::route::connected;

/// What the cluster says of tunnels, as one node needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tunnels {
    /// The pools, the most specific first.
    pub pools: Vec<Pool>,
    /// Where the other nodes can be reached, with their names.
    pub nodes: BTreeMap<IpAddr, String>,
    /// This node's own address of each family, where it has one.
    pub local: BTreeMap<TunnelKind, IpAddr>,
}

/// A pool, as far as tunnels are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its range.
    pub cidr: IpNet,
    /// How packets into it travel.
    pub mode: IpipMode,
}

/// The devices through which packets may be sent now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Devices {
    /// IPv4 in IPv4.
    pub ipip: Option<LinkIndex>,
    /// IPv6 in IPv6.
    pub ip6ip6: Option<LinkIndex>,
}

impl Devices {
    /// The device of this kind.
    #[must_use]
    pub fn of(&self, kind: TunnelKind) -> Option<LinkIndex> {
        match kind {
            TunnelKind::Ipip => self.ipip,
            TunnelKind::Ip6ip6 => self.ip6ip6,
        }
    }
}

impl Tunnels {
    pub(crate) fn new(cluster: &ClusterState, node: &Node) -> Self {
        let pools = cluster.pools.iter().map(|(name, spec)| Pool {
            name: name.clone(),
            cidr: spec.cidr.trunc(),
            mode: spec.ipip_mode,
        });
        let mut pools: Vec<Pool> = pools.collect();
        pools.sort_by_key(|pool| std::cmp::Reverse(pool.cidr.prefix_len()));
        let others = cluster
            .nodes
            .iter()
            .filter(|(name, _)| **name != node.metadata.name);
        let nodes = others.flat_map(|(name, other)| {
            let addresses = other.internal_ips();
            addresses.map(move |address| (address, name.clone()))
        });
        let mut local = BTreeMap::new();
        for address in node.internal_ips() {
            local.entry(TunnelKind::of(address)).or_insert(address);
        }
        Self {
            pools,
            nodes: nodes.collect(),
            local,
        }
    }

    /// Some pool wants tunnels of this kind: the device must be there even if this node itself sends nothing through it,
    /// for others may.
    #[must_use]
    pub fn wants(&self, kind: TunnelKind) -> bool {
        let of_kind = |pool: &&Pool| TunnelKind::of(pool.cidr.addr()) == kind;
        let mut pools = self.pools.iter().filter(of_kind);
        pools.any(|pool| pool.mode != IpipMode::Never)
    }

    /// The device of this kind as it should be; `None` when nobody wants it.
    ///
    /// # Errors
    /// When it is wanted and the node has no address for it.
    pub fn device(&self, kind: TunnelKind, links: &Links) -> Result<Option<Tunnel>, String> {
        if !self.wants(kind) {
            return Ok(None);
        }
        let missing = || {
            let family = match kind {
                TunnelKind::Ipip => "IPv4",
                TunnelKind::Ip6ip6 => "IPv6",
            };
            format!("this node has no {family} InternalIP to tunnel from")
        };
        let local = self.local.get(&kind).ok_or_else(missing)?;
        Ok(Some(Tunnel::on(*local, links)))
    }

    /// What a pod's packets grow by at most on their way out of this node, in octets.
    #[must_use]
    pub fn overhead(&self) -> u32 {
        let kinds = TunnelKind::ALL
            .into_iter()
            .filter(|kind| self.wants(*kind) && self.local.contains_key(kind));
        kinds.map(TunnelKind::overhead).max().unwrap_or(0)
    }

    /// The most specific pool that a prefix lies in.
    #[must_use]
    pub fn pool(&self, prefix: IpNet) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.cidr.contains(&prefix))
    }

    /// How packets into this prefix travel.
    #[must_use]
    pub fn mode(&self, prefix: IpNet) -> IpipMode {
        match self.pool(prefix) {
            Some(pool) if pool.mode != IpipMode::Never && !self.holds_node(prefix) => pool.mode,
            Some(_) | None => IpipMode::Never,
        }
    }

    /// A tunnel to a node whose address lies in the very prefix would lead into itself.
    fn holds_node(&self, prefix: IpNet) -> bool {
        let range = prefix.network()..=prefix.broadcast();
        self.nodes.range(range).next().is_some()
    }

    /// The way to a next hop through a tunnel, where there is one.
    #[must_use]
    pub fn towards(&self, address: IpAddr, devices: &Devices) -> Option<NextHop> {
        let link = devices.of(TunnelKind::of(address))?;
        self.nodes.contains_key(&address).then_some(NextHop {
            via: Some(address),
            link,
            onlink: true,
        })
    }
}

impl Reach {
    /// The same for packets that travel as `mode` says, where a tunnel would lead through `tunnel`.
    #[must_use]
    pub fn carried(&self, mode: IpipMode, tunnel: Option<NextHop>) -> Self {
        let wanted = self.wants_tunnel(mode);
        match tunnel.filter(|_| wanted) {
            Some(tunnel) => Self {
                next_hops: smallvec::smallvec![tunnel],
                ..self.clone()
            },
            None => self.clone(),
        }
    }

    fn wants_tunnel(&self, mode: IpipMode) -> bool {
        match mode {
            IpipMode::Never => false,
            IpipMode::CrossSubnet => !self.adjacent,
            IpipMode::Always => true,
        }
    }
}

/// How a next hop's packets travel, and why so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// They are tunnelled.
    pub tunnelled: bool,
    /// A tunnel was wanted, and there is none: worth somebody's look.
    pub degraded: bool,
    /// Why, for a person.
    pub reason: String,
}

/// The same decision that [`Reach::carried`] takes, in words. `unavailable` says why there is no device, where that is known.
#[must_use]
pub fn explain(
    (prefix, address): (IpNet, IpAddr),
    reach: &Reach,
    (tunnels, devices): (&Tunnels, &Devices),
    links: &Links,
    unavailable: Option<&str>,
) -> Decision {
    let plain = |reason: String| Decision {
        tunnelled: false,
        degraded: false,
        reason,
    };
    let Some(pool) = tunnels.pool(prefix) else {
        return plain("its prefixes are in no IPPool".to_owned());
    };
    let mode = tunnels.mode(prefix);
    if mode != pool.mode {
        return plain(format!("{prefix} holds nodes' own addresses"));
    }
    let mode = format_args!("ipipMode {mode} of IPPool {}", pool.name);
    if !reach.wants_tunnel(pool.mode) {
        return plain(match pool.mode {
            IpipMode::CrossSubnet => format!("{mode}: {}", Nearness(address, links)),
            IpipMode::Never | IpipMode::Always => mode.to_string(),
        });
    }
    if !tunnels.nodes.contains_key(&address) {
        return plain(format!(
            "{mode}, but it is no node's InternalIP: only nodes unwrap"
        ));
    }
    if tunnels.towards(address, devices).is_none() {
        let reason = unavailable.unwrap_or("the device is not there yet");
        return Decision {
            degraded: true,
            ..plain(format!("{mode}, but there is no tunnel: {reason}"))
        };
    }
    let why = match pool.mode {
        IpipMode::CrossSubnet => ": it is on no subnet of this node's interfaces",
        IpipMode::Never | IpipMode::Always => "",
    };
    Decision {
        tunnelled: true,
        degraded: false,
        reason: format!("{mode}{why}"),
    }
}

/// What makes an adjacent next hop adjacent.
struct Nearness<'a>(IpAddr, &'a Links);

impl fmt::Display for Nearness<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address, links) = self;
        match connected(*address, links) {
            Some((length, link)) => {
                let subnet = IpNet::new_assert(*address, length).trunc();
                write!(f, "it is on this node's subnet {subnet} ({})", link.name)
            }
            None => f.write_str("a route says that it is on a link of this node"),
        }
    }
}
