//! UPDATEs made beforehand.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Result;
use bgp_wire::{
    AsPath, Attributes, Community, Context, Family, LargeCommunity, NextHop, Origin, UpdateBuilder,
};
use ipnet::IpNet;

use crate::held::Space;

/// Octets that any number of peers send.
pub(crate) type Octets = Arc<[u8]>;

fn context(ibgp: bool) -> Context {
    Context {
        four_octet_as: true,
        ibgp,
        ..Context::default()
    }
}

/// A table like the Internet's, from an external peer: every prefix of `space` once, in `sets` attribute sets. A few sets have
/// thousands of prefixes and most have a handful; paths are 2 to 10 long, and most carry communities.
pub(crate) fn table(space: Space, sets: u32, asn: u32, next_hop: Ipv4Addr) -> Result<Octets> {
    let mut octets = Vec::new();
    let mut random = Random(u64::from(asn));
    let weight = |set: u32| f64::from(set).powf(0.3);
    let spread = f64::from(space.prefixes - sets) / weight(sets);
    let mut number = 0;
    for set in 1..=sets {
        let attributes = internet(&mut random, asn, next_hop);
        // Each has one; of the rest the share falls with the power -0.7 of the rank.
        let until = set + floor(spread * weight(set));
        let until = if set == sets { space.prefixes } else { until };
        announce(
            &mut octets,
            &context(false),
            &attributes,
            (number..until).map(|number| space.prefix(scattered(number, space.prefixes))),
        )?;
        number = until;
    }
    Ok(octets.into())
}

/// These prefixes from an internal peer, with its own address as next hop.
pub(crate) fn own(space: Space, numbers: std::ops::Range<u32>, from: Ipv4Addr) -> Result<Octets> {
    let attributes = Attributes {
        next_hop: Some(NextHop::V4(from)),
        local_pref: Some(100),
        ..Attributes::originated()
    };
    let mut octets = Vec::new();
    let prefixes = numbers.map(|number| space.prefix(number));
    announce(&mut octets, &context(true), &attributes, prefixes)?;
    Ok(octets.into())
}

/// The withdrawal of what [`own`] announces.
pub(crate) fn withdrawal(space: Space, numbers: std::ops::Range<u32>) -> Result<Octets> {
    let mut octets = Vec::new();
    let mut message = UpdateBuilder::withdraw(&mut octets, &context(true), Family::IPV4_UNICAST);
    for number in numbers {
        message.push(IpNet::V4(space.prefix(number)))?;
    }
    message.finish();
    Ok(octets.into())
}

fn announce(
    octets: &mut Vec<u8>,
    context: &Context,
    attributes: &Attributes,
    prefixes: impl Iterator<Item = ipnet::Ipv4Net>,
) -> Result<()> {
    let mut section = Vec::new();
    attributes.encode(context, &mut section);
    let next_hop = attributes
        .next_hop
        .unwrap_or(NextHop::V4(Ipv4Addr::UNSPECIFIED));
    let mut prefixes = prefixes.map(IpNet::V4).peekable();
    while prefixes.peek().is_some() {
        let family = Family::IPV4_UNICAST;
        let mut message = UpdateBuilder::announce(octets, context, &section, next_hop, family);
        while let Some(prefix) = prefixes.peek() {
            if message.push(*prefix).is_err() {
                anyhow::ensure!(!message.is_empty(), "no room for a prefix");
                break;
            }
            prefixes.next();
        }
        message.finish();
    }
    Ok(())
}

/// Prefixes with the same attributes are seldom neighbours.
fn scattered(number: u32, prefixes: u32) -> u32 {
    // A prime that divides no number of prefixes used here: every prefix comes once.
    let scattered = u64::from(number) * 611_953 % u64::from(prefixes);
    u32::try_from(scattered).unwrap_or(0)
}

fn internet(random: &mut Random, asn: u32, next_hop: Ipv4Addr) -> Attributes {
    let length = 1 + (0..8).take_while(|_| random.below(100) < 72).count();
    let hops = (0..length).map(|_| match random.below(4) {
        0 => 131_072 + random.below(270_000),
        _ => 1_000 + random.below(63_000),
    });
    let path: Vec<u32> = std::iter::once(asn).chain(hops).collect();
    let communities = match random.below(10) {
        0..3 => 0,
        3..8 => 1 + random.below(6),
        _ => 6 + random.below(14),
    };
    let large = if random.below(20) == 0 {
        1 + random.below(4)
    } else {
        0
    };
    Attributes {
        origin: match random.below(10) {
            0 => Origin::Incomplete,
            _ => Origin::Igp,
        },
        as_path: AsPath::sequence(path),
        next_hop: Some(NextHop::V4(next_hop)),
        med: (random.below(5) == 0).then(|| random.below(200)),
        communities: (0..communities)
            .map(|_| Community((1_000 + random.below(63_000)) << 16 | random.below(4_000)))
            .collect(),
        large_communities: (0..large)
            .map(|_| LargeCommunity {
                global: 131_072 + random.below(270_000),
                local1: random.below(1_000),
                local2: random.below(1_000),
            })
            .collect(),
        ..Attributes::originated()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of prefixes, at least zero and far below the type's end"
)]
fn floor(number: f64) -> u32 {
    number as u32
}

/// SplitMix64: the same feed in every run.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = (mixed ^ (mixed >> 31)) % u64::from(end);
        u32::try_from(number).unwrap_or(0)
    }
}
