//! A place for pods' packets in an iptables FORWARD chain that drops what it doesn't know.
//!
//! Docker, among others, sets the policy of iptables' FORWARD chain to DROP. In nftables no table can overrule another's drop,
//! so our word has to stand in that chain: one jump at its head, to a chain of our own in the same table, which accepts what
//! comes from or goes to a pod. The rules have the shape that `iptables` itself writes, so it can still show and change the
//! table. Of `iptables-legacy`, which has another interface to the kernel, nothing is seen here.

use std::fmt;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::channel::Channel;
use super::encode::Batch;
use super::expression::{Compare, Meta, Verdict};
use super::message;
use super::ruleset::{IPV4, IPV6, rule_in};
use crate::Error;
use crate::frame;

/// Our chain in iptables' filter table.
const CHAIN: &str = "MARGAY-FORWARD";
const FILTER: &str = "filter";
const FORWARD: &str = "FORWARD";
/// What our jump is recognised by.
const COMMENT: &str = "margay: pods";

/// A FORWARD chain that drops, and in which pods' packets have a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// That of `iptables`.
    Ipv4,
    /// That of `ip6tables`.
    Ipv6,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = match self {
            Self::Ipv4 => "iptables",
            Self::Ipv6 => "ip6tables",
        };
        write!(
            f,
            "{program}' FORWARD chain drops: pods' packets are accepted by chain {CHAIN}"
        )
    }
}

/// Whether an event may be about such a chain.
pub(super) fn concerns(family: u8, table: Option<&str>) -> bool {
    [IPV4, IPV6].contains(&family) && table == Some(FILTER)
}

/// What is there.
#[derive(Debug, Default)]
struct Found {
    /// The FORWARD chain's policy is to drop.
    drops: bool,
    chain: bool,
    /// The handle of our jump.
    jump: Option<u64>,
}

pub(super) fn settle(channel: &mut Channel, pod_interfaces: &str) -> Result<Vec<Forward>, Error> {
    let mut dropping = Vec::new();
    for (family, forward) in [(IPV4, Forward::Ipv4), (IPV6, Forward::Ipv6)] {
        let found = look(channel, family)?;
        let wanted = found.drops && !pod_interfaces.is_empty();
        match (wanted, found.chain && found.jump.is_some()) {
            (true, false) => {
                channel.transact(|batch| insert(batch, family, pod_interfaces, &found))?;
            }
            (false, _) if found.chain || found.jump.is_some() => {
                channel.transact(|batch| remove(batch, family, &found))?;
            }
            _ => {}
        }
        dropping.extend(wanted.then_some(forward));
    }
    Ok(dropping)
}

fn look(channel: &mut Channel, family: u8) -> Result<Found, Error> {
    let mut found = Found::default();
    channel.dump(
        message::GET_CHAIN,
        family,
        |_| {},
        |chain| {
            if chain.text(1) != Some(FILTER) {
                return;
            }
            match chain.text(3) {
                // NF_DROP is 0.
                Some(FORWARD) => found.drops = chain.number(5) == Some(0),
                Some(CHAIN) => found.chain = true,
                _ => {}
            }
        },
    )?;
    if !found.drops && !found.chain {
        return Ok(found);
    }
    channel.dump(
        message::GET_RULE,
        family,
        |filter| {
            filter.text(1, FILTER);
            filter.text(2, FORWARD);
        },
        |rule| {
            let chain = (rule.text(1), rule.text(2));
            let jump = rule
                .attribute(4)
                .is_some_and(|expressions| jumps_to(expressions, CHAIN));
            if chain == (Some(FILTER), Some(FORWARD)) && jump {
                let handle = rule.attribute(3).and_then(<[u8]>::first_chunk);
                found.jump = handle.map(|octets| u64::from_be_bytes(*octets));
            }
        },
    )?;
    Ok(found)
}

/// Whether an expression among these is a jump to that chain.
fn jumps_to(expressions: &[u8], chain: &str) -> bool {
    let nested = |octets, kind| {
        let mut all = frame::attributes(octets);
        all.find(|(other, _)| *other == kind)
            .map(|(_, value)| value)
    };
    frame::attributes(expressions).any(|(_, expression)| {
        // Data of the expression, data of the verdict, verdict, chain.
        let target = nested(expression, 2)
            .and_then(|data| nested(data, 2))
            .and_then(|data| nested(data, 2))
            .and_then(|verdict| nested(verdict, 2));
        target.is_some_and(|name| name.strip_suffix(b"\0") == Some(chain.as_bytes()))
    })
}

fn insert(batch: &mut Batch, family: u8, pods: &str, found: &Found) {
    batch.message(message::NEW_CHAIN, family, NLM_F_CREATE, |chain| {
        chain.text(1, FILTER);
        chain.text(3, CHAIN);
    });
    flush(batch, family);
    for key in [Meta::InputName, Meta::OutputName] {
        let place = (family, FILTER, CHAIN);
        rule_in(batch, place, NLM_F_APPEND, COMMENT, |rule| {
            rule.meta(key)
                .compare(Compare::Equal, pods.as_bytes())
                .count()
                .verdict(Verdict::Accept);
        });
    }
    if found.jump.is_none() {
        // Without NLM_F_APPEND: at the head.
        rule_in(batch, (family, FILTER, FORWARD), 0, COMMENT, |rule| {
            rule.count().verdict(Verdict::Jump(CHAIN));
        });
    }
}

/// Rules of our chain.
fn flush(batch: &mut Batch, family: u8) {
    batch.message(message::DELETE_RULE, family, 0, |rules| {
        rules.text(1, FILTER);
        rules.text(2, CHAIN);
    });
}

fn remove(batch: &mut Batch, family: u8, found: &Found) {
    if let Some(handle) = found.jump {
        batch.message(message::DELETE_RULE, family, 0, |rule| {
            rule.text(1, FILTER);
            rule.text(2, FORWARD);
            rule.octets(3, &handle.to_be_bytes());
        });
    }
    if found.chain {
        flush(batch, family);
        batch.message(message::DELETE_CHAIN, family, 0, |chain| {
            chain.text(1, FILTER);
            chain.text(3, CHAIN);
        });
    }
}
