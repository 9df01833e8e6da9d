//! From [`Firewall`] to the messages that make its table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::Firewall;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::encode::Batch;
use super::expression::{Compare, Meta, Rule, Verdict};
use super::{TABLE, message};

/// `NFPROTO_INET`: one table for both families.
pub(super) const INET: u8 = 1;
/// `NFPROTO_IPV4`.
pub(super) const IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
pub(super) const IPV6: u8 = 10;

/// Elements per message: an attribute holds at most 65,535 octets.
const ELEMENTS: usize = 1000;

/// Chains: name, type, hook (`NF_INET_*`) and priority.
const GUARD: Chain = Chain {
    name: "guard",
    kind: "filter",
    // Before the routing decision, and before connection tracking spends anything on a packet.
    hook: 0,
    priority: -300,
};
const MASQUERADE: Chain = Chain {
    name: "outgoing",
    kind: "nat",
    hook: 4,
    // NF_IP_PRI_NAT_SRC.
    priority: 100,
};

const SERVICES: Chain = Chain {
    name: "services",
    kind: "filter",
    // NF_INET_FORWARD, NF_IP_PRI_FILTER: whatever makes a Service's address a pod's has done so in an earlier hook.
    hook: 2,
    priority: 0,
};

struct Chain {
    name: &'static str,
    kind: &'static str,
    hook: u32,
    priority: i32,
}

/// One address family as rules see it.
#[derive(Clone, Copy)]
struct Family {
    /// `NFPROTO_*`.
    protocol: u8,
    /// Ends the names of its sets.
    suffix: &'static str,
    /// Where the header has source and destination, and how long they are.
    source: u32,
    destination: u32,
    length: u32,
    /// Transport protocols that are tunnels of ours: IPv4 in IPv4 (RFC 2003); IPv4 and IPv6 in IPv6 (RFC 2473).
    tunnels: &'static [u8],
    /// nft's number for the type of its addresses: what `nft list` goes by.
    kind: u32,
}

const FAMILIES: [Family; 2] = [
    Family {
        protocol: IPV4,
        suffix: "4",
        source: 12,
        destination: 16,
        length: 4,
        tunnels: &[4],
        kind: 7,
    },
    Family {
        protocol: IPV6,
        suffix: "6",
        source: 8,
        destination: 24,
        length: 16,
        tunnels: &[4, 41],
        kind: 8,
    },
];

/// Our table as it should be, in the place of whatever it is. An empty firewall has none.
pub(super) fn table(batch: &mut Batch, firewall: &Firewall) {
    // Made first, so that there is something to delete.
    for kind in [message::NEW_TABLE, message::DELETE_TABLE] {
        batch.message(kind, INET, NLM_F_CREATE, |table| table.text(1, TABLE));
    }
    if firewall.is_empty() {
        return;
    }
    batch.message(message::NEW_TABLE, INET, NLM_F_CREATE, |table| {
        table.text(1, TABLE);
    });
    guard(batch, firewall);
    if !firewall.masqueraded.is_empty() {
        masquerade(batch, firewall);
    }
    if !firewall.services.is_empty() {
        services(batch, firewall);
    }
}

/// What nobody has made a pod's address out of is nobody's: forwarded, it would come back from the router that knows the
/// range as ours. No route can say so: the packets of the node's own processes are looked up by the Service's address.
fn services(batch: &mut Batch, firewall: &Firewall) {
    chain(batch, &SERVICES);
    for family in FAMILIES {
        let set = format!("services{}", family.suffix);
        address_set(batch, &set, family, &firewall.services);
        rule(batch, &SERVICES, "addresses without a Service", |rule| {
            rule.meta(Meta::Family)
                .compare(Compare::Equal, &[family.protocol])
                .network_header(family.destination, family.length)
                .lookup(&set, true)
                .count();
            match firewall.reject_services {
                true => rule.reject(),
                false => rule.verdict(Verdict::Drop),
            };
        });
    }
}

fn guard(batch: &mut Batch, firewall: &Firewall) {
    chain(batch, &GUARD);
    if let Some(peers) = &firewall.tunnel_peers {
        for family in FAMILIES {
            let peers: Vec<IpNet> = peers.iter().copied().map(IpNet::from).collect();
            let set = format!("nodes{}", family.suffix);
            address_set(batch, &set, family, &peers);
            for tunnel in family.tunnels {
                rule(batch, &GUARD, "tunnel packets of strangers", |rule| {
                    rule.meta(Meta::Family)
                        .compare(Compare::Equal, &[family.protocol])
                        .meta(Meta::Transport)
                        .compare(Compare::Equal, &[*tunnel])
                        .network_header(family.source, family.length)
                        .lookup(&set, false)
                        .count()
                        .verdict(Verdict::Drop);
                });
            }
        }
    }
    if firewall.pod_interfaces.is_empty() {
        return;
    }
    let pods = firewall.pod_interfaces.as_bytes();
    // With a link-local source, which is no route's business: without this a node that forwards no IPv6 takes its default
    // route from a pod.
    for (kind, what) in [
        (134, "pods are no routers: advertisements"),
        (137, "pods are no routers: redirects"),
    ] {
        rule(batch, &GUARD, what, |rule| {
            rule.meta(Meta::InputName)
                .compare(Compare::Equal, pods)
                .meta(Meta::Family)
                .compare(Compare::Equal, &[IPV6])
                .meta(Meta::Transport)
                .compare(Compare::Equal, &[58])
                .transport_header(0, 1)
                .compare(Compare::Equal, &[kind])
                .count()
                .verdict(Verdict::Drop);
        });
    }
    name_set(batch, "spoofers", firewall);
    rule(
        batch,
        &GUARD,
        "pods that may send from any address",
        |rule| {
            rule.meta(Meta::InputName)
                .lookup("spoofers", true)
                .verdict(Verdict::Accept);
        },
    );
    rule(batch, &GUARD, "link-local: never forwarded", |rule| {
        rule.meta(Meta::InputName)
            .compare(Compare::Equal, pods)
            .meta(Meta::Family)
            .compare(Compare::Equal, &[IPV6])
            .network_header(8, 2)
            .compare(Compare::Equal, &[0xfe, 0x80])
            .verdict(Verdict::Accept);
    });
    rule(
        batch,
        &GUARD,
        "sources that are not the pod's own",
        |rule| {
            rule.meta(Meta::InputName)
                .compare(Compare::Equal, pods)
                .reverse_path()
                .compare(Compare::Equal, &[0; 4])
                .count()
                .verdict(Verdict::Drop);
        },
    );
}

fn masquerade(batch: &mut Batch, firewall: &Firewall) {
    chain(batch, &MASQUERADE);
    for family in FAMILIES {
        let from = format!("masqueraded{}", family.suffix);
        let inside = format!("inside{}", family.suffix);
        address_set(batch, &from, family, &firewall.masqueraded);
        address_set(batch, &inside, family, &firewall.inside);
        rule(batch, &MASQUERADE, "pods to outside the cluster", |rule| {
            rule.meta(Meta::Family)
                .compare(Compare::Equal, &[family.protocol])
                .network_header(family.source, family.length)
                .lookup(&from, true)
                .network_header(family.destination, family.length)
                .lookup(&inside, false)
                .count()
                .masquerade();
        });
    }
}

fn chain(batch: &mut Batch, chain: &Chain) {
    batch.message(message::NEW_CHAIN, INET, NLM_F_CREATE, |it| {
        it.text(1, TABLE);
        it.text(3, chain.name);
        it.nested(4, |hook| {
            hook.number(1, chain.hook);
            hook.number(2, chain.priority.cast_unsigned());
        });
        it.text(7, chain.kind);
    });
}

fn rule(batch: &mut Batch, chain: &Chain, comment: &str, body: impl FnOnce(&mut Rule<'_, '_>)) {
    rule_in(
        batch,
        (INET, TABLE, chain.name),
        NLM_F_APPEND,
        comment,
        body,
    );
}

/// A rule at the end of a chain (`NLM_F_APPEND` among `flags`) or at its beginning.
pub(super) fn rule_in(
    batch: &mut Batch,
    (family, table, chain): (u8, &str, &str),
    flags: u16,
    comment: &str,
    body: impl FnOnce(&mut Rule<'_, '_>),
) {
    batch.message(message::NEW_RULE, family, NLM_F_CREATE | flags, |it| {
        it.text(1, table);
        it.text(2, chain);
        it.nested(4, |expressions| body(&mut Rule(expressions)));
        it.octets(7, &note(comment));
    });
}

/// A comment as nft keeps it with a rule: type 0, length, text with its NUL.
pub(super) fn note(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut note = vec![0, length];
    note.extend(&comment.as_bytes()[..usize::from(length) - 1]);
    note.push(0);
    note
}

/// A set of address ranges, and its elements.
fn address_set(batch: &mut Batch, name: &str, family: Family, nets: &[IpNet]) {
    // NFT_SET_INTERVAL.
    set(batch, name, 4, (family.kind, family.length), NETWORK_ORDER);
    let nets: Vec<IpNet> = nets
        .iter()
        .filter(|net| net.addr().is_ipv4() == (family.protocol == IPV4))
        .map(IpNet::trunc)
        .collect();
    // Ranges of one set must not overlap.
    let mut ends = Vec::new();
    for net in IpNet::aggregate(&nets) {
        ends.push((octets(net.network()), false));
        ends.extend(after(net.broadcast()).map(|after| (octets(after), true)));
    }
    elements(batch, name, &ends);
}

/// The address after this one, unless it is the last.
fn after(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4).checked_add(1)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6).checked_add(1)?).into(),
    })
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A set of interface names.
fn name_set(batch: &mut Batch, name: &str, firewall: &Firewall) {
    // nft's type of interface names; IFNAMSIZ octets.
    set(batch, name, 0, (41, 16), HOST_ORDER);
    let names = firewall.spoofers.iter().map(|name| {
        let mut octets = name.as_bytes().to_vec();
        octets.resize(16, 0);
        (octets, false)
    });
    elements(batch, name, &names.collect::<Vec<_>>());
}

/// How nft is to read keys of a set: `enum byteorder` of its own.
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;

/// An empty set; `key`: nft's number for the type, and its length in octets.
fn set(batch: &mut Batch, name: &str, flags: u32, key: (u32, u32), order: u32) {
    batch.message(message::NEW_SET, INET, NLM_F_CREATE, |it| {
        it.text(1, TABLE);
        it.text(2, name);
        it.number(3, flags);
        it.number(4, key.0);
        it.number(5, key.1);
        // The kernel wants a number of the batch's own, whether or not it is used.
        it.number(10, 1);
        // Nothing to the kernel, which keeps it for nft: type 0, length, the order of a key's octets.
        it.octets(13, &[&[0, 4], &order.to_ne_bytes()[..]].concat());
    });
}

/// Elements, each with whether it ends a range (`NFT_SET_ELEM_INTERVAL_END`).
fn elements(batch: &mut Batch, set: &str, elements: &[(Vec<u8>, bool)]) {
    for chunk in elements.chunks(ELEMENTS) {
        batch.message(message::NEW_ELEMENTS, INET, NLM_F_CREATE, |it| {
            it.text(1, TABLE);
            it.text(2, set);
            it.nested(3, |list| {
                for (key, end) in chunk {
                    list.nested(1, |element| {
                        element.nested(1, |data| data.octets(1, key));
                        if *end {
                            element.number(3, 1);
                        }
                    });
                }
            });
        });
    }
}
