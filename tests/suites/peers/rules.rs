//! What is done with routes on their way: reflection, AS path rules, communities that mean something, policy.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::Result;
use bgp::config::{Client, LocalAs, NextHopMode, PrivateAs, Rules};
use bgp::policy::{Change, Match, Policy, PrefixMatch, PrefixOperator, Statement, Verdict};
use bgp::rib::RouteChange;
use bgp_wire::{Attributes, Community, LargeCommunity};
use lab::net;
use lab::peer::{Announcement, Kind};
use tests::same;

use crate::bench::{Bench, OUR_ASN, OURS, THEIR_ASN, THEIRS, originate, ours, ours_with};
use crate::third::{
    INJECTOR, INJECTOR_ASN, Third, WITNESS, WITNESS_ASN, attributes, injector, update, witness,
};

const OUR_ROUTE: &str = "10.244.1.0/24";
const OUR_OTHER_ROUTE: &str = "10.244.2.0/24";
const THEIR_ROUTE: &str = "10.245.1.0/24";
const THEIR_OTHER_ROUTE: &str = "10.245.2.0/24";

/// Routes of the third speaker, as prefixes and as NLRI.
const FIRST: (&str, [u8; 4]) = ("10.246.1.0/24", [24, 10, 246, 1]);
const SECOND: (&str, [u8; 4]) = ("10.246.2.0/24", [24, 10, 246, 2]);
const THIRD: (&str, [u8; 4]) = ("10.246.3.0/24", [24, 10, 246, 3]);

/// LOCAL_PREF 100, which every internal route has.
const LOCAL_PREF: [u8; 7] = [0x40, 5, 4, 0, 0, 0, 100];

/// We reflect: they are one client, the third speaker is another.
pub(crate) fn we_reflect(bench: &mut Bench) -> Result<()> {
    let cluster_id = Ipv4Addr::new(10, 9, 0, 200);
    let client = Some(Client {
        cluster_id,
        meshed: false,
    });
    let config = ours_with(|peer| {
        peer.asn = OUR_ASN;
        peer.rules.client = client;
    });
    let mut other = injector(OUR_ASN);
    other.rules.client = client;
    let mut theirs = bench.theirs();
    theirs.asn = OUR_ASN;
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    // The next hop of a reflected route is its first one: they need a way to it.
    if let IpAddr::V4(via) = OURS {
        net::default_route(&bench.them, via, "cable")?;
    }
    let mut third = Third::behind_us(bench, config, other, &theirs)?;
    third.announce(&FIRST.1, &[], &LOCAL_PREF)?;
    bench.wait_up()?;
    bench.they_learn(FIRST.0, |route| {
        same("ORIGINATOR_ID", &route.originator_id, &Some(INJECTOR))?;
        same("CLUSTER_LIST", &route.cluster_list, &vec![cluster_id])?;
        same("next hop", &route.next_hop, &Some(INJECTOR.into()))
    })?;
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))?;
    // One that has been here before, and one that is their own.
    let mut looped = vec![0x80, 10, 4];
    looped.extend(cluster_id.octets());
    third.announce(&SECOND.1, &[], &[&LOCAL_PREF[..], &looped].concat())?;
    third.announce(&THIRD.1, &[], &LOCAL_PREF)?;
    bench.they_learn(THIRD.0, |_| Ok(()))?;
    bench.they_lose(SECOND.0)
}

/// They reflect: we are one client, the third speaker is another.
pub(crate) fn they_reflect(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.asn = OUR_ASN;
    theirs.neighbours[0].client = true;
    let mut neighbour = witness(OUR_ASN);
    neighbour.client = true;
    let mut third = Third::behind_them(bench, theirs, neighbour)?;
    let mut config = ours_with(|peer| peer.asn = OUR_ASN);
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    bench.speak(config, false)?;
    bench.wait_up()?;
    third.announce(&FIRST.1, &[], &LOCAL_PREF)?;
    bench.we_learn(FIRST.0, |route| {
        same("ORIGINATOR_ID", &route.originator_id, &Some(WITNESS))?;
        same("CLUSTER_LIST", &route.cluster_list.len(), &1)?;
        let next_hop = route.next_hop.map(|it| it.address());
        same("next hop", &next_hop, &Some(WITNESS.into()))
    })?;
    bench.they_learn(OUR_ROUTE, |_| Ok(()))
}

/// We have another AS towards them, and they never see the real one; or they see both.
pub(crate) fn local_as(bench: &mut Bench) -> Result<()> {
    const SHOWN: u32 = 64999;
    let config = |local_as: LocalAs| -> Result<_> {
        let mut config = ours_with(|peer| {
            peer.local_asn = Some(SHOWN);
            peer.rules.local_as = local_as;
        });
        originate(&mut config, OUR_ROUTE, Attributes::originated())?;
        Ok(config)
    };
    let mut theirs = bench.theirs();
    theirs.neighbours[0].asn = SHOWN;
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.establish(config(LocalAs::Replace)?, &theirs)?;
    bench.they_learn(OUR_ROUTE, |route| {
        same("AS_PATH", &route.as_path, &vec![SHOWN])
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        same("AS_PATH", &route.as_path.asns().collect(), &vec![THEIR_ASN])
    })?;
    bench.speaker()?.configure(config(LocalAs::Prepend)?);
    bench.they_learn(OUR_ROUTE, |route| {
        same("AS_PATH", &route.as_path, &vec![SHOWN, OUR_ASN])
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        let path = route.as_path.asns().collect();
        same("AS_PATH", &path, &vec![SHOWN, THEIR_ASN])
    })
}

/// Their route has our own AS in its path: it's a loop, unless we are told that it is none.
pub(crate) fn allowed_own_as(bench: &mut Bench) -> Result<()> {
    let theirs = bench.theirs();
    let mut third = Third::behind_them(bench, theirs, witness(WITNESS_ASN))?;
    bench.speak(ours(), false)?;
    bench.wait_up()?;
    third.announce(&FIRST.1, &[WITNESS_ASN, OUR_ASN], &[])?;
    third.announce(&SECOND.1, &[WITNESS_ASN], &[])?;
    bench.we_learn(SECOND.0, |_| Ok(()))?;
    let used = bench.told(|told| {
        let mut changes = told.changes.iter();
        changes.any(|change| change.prefix.to_string() == FIRST.0)
    })?;
    same("a loop in use", &used, &false)?;
    bench
        .speaker()?
        .configure(ours_with(|peer| peer.rules.allowed_own_as = 1));
    bench.we_use(FIRST.0)
}

/// With these rules for them, what they see of the third speaker's route with this path.
fn path_by(bench: &mut Bench, rules: Rules, path: &[u32], seen: &[u32]) -> Result<()> {
    let config = ours_with(|peer| peer.rules = rules);
    let theirs = bench.theirs();
    let mut third = Third::behind_us(bench, config, injector(INJECTOR_ASN), &theirs)?;
    bench.wait_up()?;
    third.announce(&FIRST.1, path, &[])?;
    bench.they_learn(FIRST.0, |route| {
        same("AS_PATH", &route.as_path, &seen.to_vec())
    })
}

pub(crate) fn private_as(bench: &mut Bench) -> Result<()> {
    let rules = Rules {
        private_as: PrivateAs::Remove,
        ..Rules::default()
    };
    let path = [INJECTOR_ASN, 3356, 4_200_000_777];
    path_by(bench, rules, &path, &[OUR_ASN, 3356])
}

pub(crate) fn override_as(bench: &mut Bench) -> Result<()> {
    let rules = Rules {
        override_as: true,
        ..Rules::default()
    };
    // Without that they would take it for a loop.
    let path = [INJECTOR_ASN, THEIR_ASN];
    path_by(bench, rules, &path, &[OUR_ASN, INJECTOR_ASN, OUR_ASN])
}

/// A COMMUNITIES attribute with one.
fn community(community: Community) -> Vec<u8> {
    [&[0xc0, 8, 4][..], &community.0.to_be_bytes()].concat()
}

/// NO_EXPORT and NO_ADVERTISE end at us; NO_EXPORT of theirs reaches us.
pub(crate) fn well_known(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement {
        communities: vec![(0xffff, 0xff01)],
        ..Announcement::new(THEIR_ROUTE.parse()?)
    });
    let mut third = Third::behind_us(bench, ours(), injector(INJECTOR_ASN), &theirs)?;
    bench.wait_up()?;
    let path = [INJECTOR_ASN];
    third.announce(&FIRST.1, &path, &community(Community::NO_EXPORT))?;
    third.announce(&SECOND.1, &path, &community(Community::NO_ADVERTISE))?;
    third.announce(&THIRD.1, &path, &community(Community::new(65003, 1)))?;
    bench.they_learn(THIRD.0, |_| Ok(()))?;
    bench.they_lose(FIRST.0)?;
    bench.they_lose(SECOND.0)?;
    for route in [FIRST.0, SECOND.0] {
        bench.we_learn(route, |_| Ok(()))?;
    }
    Ok(())
}

/// Before maintenance what we announce carries GRACEFUL_SHUTDOWN.
pub(crate) fn drain(bench: &mut Bench) -> Result<()> {
    let config = |drain: bool| -> Result<_> {
        let mut config = ours_with(|peer| peer.rules.drain = drain);
        originate(&mut config, OUR_ROUTE, Attributes::originated())?;
        Ok(config)
    };
    let theirs = bench.theirs();
    bench.establish(config(false)?, &theirs)?;
    bench.they_learn(OUR_ROUTE, |route| {
        same("communities", &route.communities.len(), &0)
    })?;
    bench.speaker()?.configure(config(true)?);
    bench.they_learn(OUR_ROUTE, |route| {
        let names = ["65535:0", "graceful-shutdown", "graceful_shutdown"];
        let found = route
            .communities
            .iter()
            .any(|it| names.contains(&it.as_str()));
        same("GRACEFUL_SHUTDOWN", &found, &true)
    })?;
    same("flaps", &bench.status()?.flaps, &0)
}

/// What is sent there is discarded here, where the peer may ask for that; ours carries the community to them.
pub(crate) fn blackhole(bench: &mut Bench) -> Result<()> {
    let config = |honoured: bool| -> Result<_> {
        let mut config = ours_with(|peer| peer.rules.blackhole = honoured);
        let mut attributes = Attributes::originated();
        attributes.communities.push(Community::BLACKHOLE);
        originate(&mut config, OUR_ROUTE, attributes)?;
        Ok(config)
    };
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement {
        communities: vec![(0xffff, 666)],
        ..Announcement::new(THEIR_ROUTE.parse()?)
    });
    bench.establish(config(false)?, &theirs)?;
    bench.we_say(THEIR_ROUTE, |change| {
        same("discarded", &change.blackhole, &false)
    })?;
    bench.they_learn(OUR_ROUTE, |route| {
        let names = ["65535:666", "blackhole"];
        let mut shown = route.communities.iter();
        let found = shown.any(|it| names.contains(&it.to_lowercase().as_str()));
        same("BLACKHOLE", &found, &true)
    })?;
    bench.speaker()?.configure(config(true)?);
    bench.we_say(THEIR_ROUTE, |change| {
        same("discarded", &change.blackhole, &true)
    })?;
    same("flaps", &bench.status()?.flaps, &0)
}

/// Their path and the third speaker's are of one length through two neighbours: traffic is split where that is asked for.
pub(crate) fn multipath(bench: &mut Bench) -> Result<()> {
    let config = |relax: bool| {
        let mut config = ours();
        config.decision.max_external_paths = 4;
        config.decision.multipath_relax = relax;
        config
    };
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement::new(FIRST.0.parse()?));
    let mut third = Third::behind_us(bench, config(true), injector(INJECTOR_ASN), &theirs)?;
    bench.wait_up()?;
    let kind = bench.kind;
    let mut announce = |path: &[u32]| {
        let mut attributes = attributes(INJECTOR, path);
        if kind == Kind::Gobgp {
            // Its own routes' ORIGIN is INCOMPLETE.
            attributes[3] = 2;
        }
        third.say(&update(&[], &attributes, &FIRST.1))
    };
    announce(&[INJECTOR_ASN])?;
    let hops = |expected: Vec<IpAddr>| {
        move |change: &RouteChange| {
            let hops = change.next_hops.iter().map(|hop| hop.address());
            same("next hops", &hops.collect::<Vec<_>>(), &expected)
        }
    };
    let both = vec![THEIRS, INJECTOR.into()];
    bench.we_say(FIRST.0, hops(both.clone()))?;
    // A longer one shares nothing; back again; and within one neighbouring AS only, there is but one path.
    announce(&[INJECTOR_ASN, 65100])?;
    bench.we_say(FIRST.0, hops(vec![THEIRS]))?;
    announce(&[INJECTOR_ASN])?;
    bench.we_say(FIRST.0, hops(both))?;
    let mut strict = config(false);
    strict.peers.insert(INJECTOR.into(), injector(INJECTOR_ASN));
    bench.speaker()?.configure(strict);
    bench.we_say(FIRST.0, |change| same("paths", &change.next_hops.len(), &1))?;
    // Their router id is the lower one. When they go, what is left takes over.
    bench.peer()?.withdraw(FIRST.0.parse()?)?;
    bench.we_say(FIRST.0, hops(vec![INJECTOR.into()]))
}

/// Towards an internal peer an external route keeps its next hop, or has ours: live.
pub(crate) fn next_hops(bench: &mut Bench) -> Result<()> {
    let config = |mode: NextHopMode| {
        let mut config = ours_with(|peer| {
            peer.asn = OUR_ASN;
            peer.next_hop = mode;
        });
        config.peers.insert(INJECTOR.into(), injector(INJECTOR_ASN));
        config
    };
    let mut theirs = bench.theirs();
    theirs.asn = OUR_ASN;
    if let IpAddr::V4(via) = OURS {
        net::default_route(&bench.them, via, "cable")?;
    }
    let other = injector(INJECTOR_ASN);
    let mut third = Third::behind_us(bench, config(NextHopMode::Keep), other, &theirs)?;
    bench.wait_up()?;
    third.announce(&FIRST.1, &[INJECTOR_ASN], &[])?;
    for (mode, expected) in [
        (NextHopMode::Keep, INJECTOR.into()),
        (NextHopMode::Own, OURS),
        (NextHopMode::Auto, INJECTOR.into()),
    ] {
        bench.speaker()?.configure(config(mode));
        bench.they_learn(FIRST.0, |route| {
            same("next hop", &route.next_hop, &Some(expected))
        })?;
    }
    same("flaps", &bench.status()?.flaps, &0)
}

fn statement(
    name: &str,
    prefix: &str,
    changes: Vec<Change>,
    verdict: Verdict,
) -> Result<Statement> {
    Ok(Statement {
        name: Arc::from(name),
        matches: vec![Match::Prefix(PrefixMatch {
            prefix: prefix.parse()?,
            operator: PrefixOperator::Equal,
            length: None,
        })],
        changes,
        verdict,
    })
}

/// Filters on import and export, put in place while the session is up.
pub(crate) fn policy(bench: &mut Bench) -> Result<()> {
    let mut config = ours();
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    originate(&mut config, OUR_OTHER_ROUTE, Attributes::originated())?;
    let mut theirs = bench.theirs();
    for route in [THEIR_ROUTE, THEIR_OTHER_ROUTE] {
        theirs.routes.push(Announcement::new(route.parse()?));
    }
    bench.establish(config.clone(), &theirs)?;
    bench.they_learn(OUR_OTHER_ROUTE, |_| Ok(()))?;
    bench.we_use(THEIR_OTHER_ROUTE)?;

    let large: LargeCommunity = "65001:1:2".parse()?;
    let changes = vec![
        Change::Med(Some(50)),
        Change::AddCommunity("65001:9".parse::<Community>()?.into()),
        Change::AddCommunity(large.into()),
        Change::Prepend(2),
    ];
    let export = vec![
        statement("marks", OUR_ROUTE, changes, Verdict::Accept)?,
        statement("hides", OUR_OTHER_ROUTE, Vec::new(), Verdict::Reject)?,
    ];
    let import = vec![
        statement(
            "prefers",
            THEIR_ROUTE,
            vec![Change::LocalPref(200)],
            Verdict::Accept,
        )?,
        statement("refuses", THEIR_OTHER_ROUTE, Vec::new(), Verdict::Reject)?,
    ];
    if let Some(peer) = config.peers.get_mut(&THEIRS) {
        peer.export = Policy::new(export, Verdict::Accept, "rest");
        peer.import = Policy::new(import, Verdict::Accept, "rest");
    }
    bench.speaker()?.configure(config);
    bench.they_lose(OUR_OTHER_ROUTE)?;
    bench.they_learn(OUR_ROUTE, |route| {
        same("MED", &route.med, &50)?;
        same(
            "communities",
            &route.communities,
            &["65001:9".to_owned()].into(),
        )?;
        same("large", &route.large, &["65001:1:2".to_owned()].into())?;
        same("AS_PATH", &route.as_path, &vec![OUR_ASN; 3])?;
        same("next hop", &route.next_hop, &Some(OURS))
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        same("LOCAL_PREF", &route.local_pref, &Some(200))
    })?;
    bench.we_stop_using(THEIR_OTHER_ROUTE)?;
    same("flaps", &bench.status()?.flaps, &0)
}
