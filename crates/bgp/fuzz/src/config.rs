//! Configurations out of a script: every rule and policy that a peer can have.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bgp::config::{
    AsnSet, Client, Decision, DynamicPeers, LimitAction, LocalAs, NextHopMode, Password,
    PeerConfig, PrefixLimit, PrivateAs, Rules, SpeakerConfig,
};
use bgp::policy::{
    Change, Match, NextHopChange, Policy, PrefixMatch, PrefixOperator, SourceKind, Statement,
    Verdict,
};
use bgp_wire::pattern::AnyCommunity;
use bgp_wire::{Attributes, Community, Family};
use ipnet::IpNet;

use super::{ASN, FAMILIES, PEERS, Script, address, prefix};

/// One of many configurations, some octets of the script long.
pub(crate) fn config(script: &mut Script<'_>) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(ASN, address(1));
    let flags = script.u8();
    let paths = 1 + (flags & 3);
    config.decision = Decision::multipath(paths);
    config.selection_deferral = Duration::from_secs(60);
    if flags & 4 != 0 {
        let choice = script.u8();
        config.decision = Decision {
            max_external_paths: paths,
            max_internal_paths: 1 + (choice & 3),
            multipath_relax: choice & 4 != 0,
            always_compare_med: choice & 8 != 0,
            missing_med_worst: choice & 16 != 0,
        };
        config.cluster_id = (choice & 32 != 0).then(|| Ipv4Addr::new(9, 9, 9, 9));
        config.complete = choice & 64 == 0;
        if choice & 128 != 0 {
            config
                .subnets
                .push(IpNet::new_assert(address(0).into(), 24));
        }
    }
    for (index, (asn, last)) in PEERS.into_iter().enumerate() {
        if flags & (0x10 << index) == 0 {
            let config = &mut config.peers;
            config.insert(address(last).into(), peer(asn, flags & 8 != 0, script));
        }
    }
    if flags & 4 != 0 {
        let choice = script.u8();
        if choice & 1 != 0 {
            // Who connects from an address without a configuration of its own.
            let range = IpNet::new_assert(address(0).into(), 29);
            let dynamic = DynamicPeers {
                asns: if choice & 2 == 0 {
                    AsnSet::any()
                } else {
                    AsnSet::from(1)
                },
                limit: 1 + u32::from(choice >> 2 & 1),
                template: peer(1, flags & 8 != 0, script),
            };
            config.dynamic.insert(range, dynamic);
        }
    }
    if flags & 0x80 != 0 {
        for n in 0..script.u8() {
            let originated = Attributes::originated();
            config.originated.insert(prefix(255 - n, 24), originated);
        }
    }
    config
}

fn peer(asn: u32, rich: bool, script: &mut Script<'_>) -> PeerConfig {
    let options = script.u8();
    let mut peer = PeerConfig::new(asn);
    peer.passive = options & 1 != 0;
    peer.hold_time = Duration::from_secs([90, 0, 3, 240][usize::from(options >> 1 & 3)]);
    peer.families = FAMILIES[..1 + usize::from(options >> 3 & 1)].to_vec();
    peer.next_hop = [
        NextHopMode::Auto,
        NextHopMode::Own,
        NextHopMode::Keep,
        NextHopMode::Auto,
    ][usize::from(options >> 4 & 3)];
    if options & 0x40 != 0 {
        peer.graceful_restart = None;
    }
    peer.import = if options & 0x80 != 0 {
        Policy::reject_all("none")
    } else {
        Policy::accept_all()
    };
    peer.export = Policy::accept_all();
    if rich {
        rules(&mut peer, script);
        peer.import = policy(script);
        peer.export = policy(script);
    }
    peer
}

fn rules(peer: &mut PeerConfig, script: &mut Script<'_>) {
    let (first, second) = (script.u8(), script.u8());
    peer.rules = Rules {
        client: match first & 3 {
            0 => None,
            n => Some(Client {
                cluster_id: Ipv4Addr::new(9, 9, 9, 8 + (n & 1)),
                meshed: n == 3,
            }),
        },
        local_as: [
            LocalAs::Replace,
            LocalAs::Prepend,
            LocalAs::NoPrepend,
            LocalAs::Replace,
        ][usize::from(first >> 2 & 3)],
        allowed_own_as: first >> 4 & 1,
        private_as: [
            PrivateAs::Keep,
            PrivateAs::Remove,
            PrivateAs::Replace,
            PrivateAs::Keep,
        ][usize::from(first >> 5 & 3)],
        override_as: first & 0x80 != 0,
        bilateral: second & 1 != 0,
        graceful_shutdown: second & 2 == 0,
        blackhole: second & 4 != 0,
        drain: second & 8 != 0,
    };
    peer.local_asn = (second & 16 != 0).then_some(64999);
    peer.extended_next_hop = second & 32 != 0;
    if second & 0x80 != 0 {
        let choice = script.u8();
        peer.prefix_limits.push(PrefixLimit {
            family: family(choice),
            limit: u32::from(choice >> 4),
            warn_percent: 75,
            action: [
                LimitAction::Warn,
                LimitAction::Restart(Duration::from_secs(60)),
                LimitAction::StayDown,
                LimitAction::Warn,
            ][usize::from(choice >> 1 & 3)],
        });
        peer.keepalive = (choice & 8 != 0).then(|| Duration::from_secs(1));
        peer.password = Password::new([b'a' + (choice & 1)]).ok();
    }
    peer.other_local_address = (second & 64 != 0).then(|| Ipv6Addr::LOCALHOST.into());
}

/// Up to three statements of one match and one change each.
fn policy(script: &mut Script<'_>) -> Policy {
    let shape = script.u8();
    let statements = (0..shape & 3)
        .map(|_| Statement {
            name: "statement".into(),
            matches: one_match(script).into_iter().collect(),
            changes: one_change(script).into_iter().collect(),
            verdict: verdict(script.u8()),
        })
        .collect();
    Policy::new(statements, verdict(shape >> 2), "the default")
}

fn verdict(choice: u8) -> Verdict {
    match choice & 3 {
        0 => Verdict::Reject,
        1 => Verdict::Next,
        _ => Verdict::Accept,
    }
}

fn one_match(script: &mut Script<'_>) -> Option<Match> {
    let choice = script.u8();
    let value = script.u8();
    Some(match choice % 14 {
        0 => return None,
        1 => Match::Family(FAMILIES[usize::from(value & 1)]),
        2 => Match::Prefix(PrefixMatch {
            prefix: prefix(value, 20),
            operator: if choice & 0x80 != 0 {
                PrefixOperator::NotIn
            } else {
                PrefixOperator::In
            },
            length: Some((20, 24)),
        }),
        3 => Match::Source([SourceKind::Local, SourceKind::Internal][usize::from(value & 1)]),
        4 => Match::Learned,
        5 => Match::From(address(value % 5).into()),
        6 => Match::InternalSession(value & 1 != 0),
        7 => Match::NextHop(IpNet::new_assert(address(0).into(), 24)),
        8 => Match::AsPathContains(64500 + u32::from(value)),
        9 => Match::AsPathLength(1, usize::from(value & 7)),
        10 => Match::AsPath(
            ["64513 .*", ".*", "64512"][usize::from(value % 3)]
                .parse()
                .ok()?,
        ),
        11 => Match::Community(
            ["*:*", "no-export", "65000:1-9"][usize::from(value % 3)]
                .parse()
                .ok()?,
        ),
        12 => Match::LocalPref(0, value.into()),
        _ => Match::Med(u32::from(value), u32::MAX),
    })
}

fn one_change(script: &mut Script<'_>) -> Option<Change> {
    let choice = script.u8();
    let value = script.u8();
    let communities = [Community::NO_EXPORT, Community::new(65000, value.into())];
    let community = AnyCommunity::Standard(communities[usize::from(value & 1)]);
    Some(match choice % 12 {
        0 => return None,
        1 => Change::LocalPref(value.into()),
        2 => Change::Med((value & 1 != 0).then_some(value.into())),
        3 => Change::RaiseMed(u32::MAX - u32::from(value)),
        4 => Change::AddCommunity(community),
        5 => Change::SetCommunities(vec![community; usize::from(value & 3)]),
        6 => Change::RemoveCommunities("*:*".parse().ok()?),
        7 => Change::NextHop(NextHopChange::Own),
        8 => Change::NextHop(NextHopChange::Peer),
        9 => Change::NextHop(NextHopChange::Address(address(value % 8).into())),
        // Long paths, up to what leaves no room for a prefix.
        10 => Change::Prepend(value),
        _ => Change::PrependAsns(vec![ASN; usize::from(value) * 8]),
    })
}

/// The family of a choice.
pub(crate) fn family(choice: u8) -> Family {
    FAMILIES[usize::from(choice & 1)]
}
