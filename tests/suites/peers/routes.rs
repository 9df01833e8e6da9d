//! What UPDATEs carry, both ways.

use anyhow::{Context, Result, ensure};
use bgp::session::State;
use bgp_wire::{Attributes, ExtendedCommunity};
use lab::peer::{Announcement, Kind};
use lab::wait;
use tests::same;

use crate::bench::{Bench, LIMIT, OUR_ASN, OURS, THEIR_ASN, THEIRS, originate, ours, ours_with};
use crate::third::{INJECTOR, INJECTOR_ASN, Third, attributes, injector, update};

const OUR_ROUTE: &str = "10.244.1.0/24";
const THEIR_ROUTE: &str = "10.245.1.0/24";

/// A session on which each side has one plain route.
fn one_route_each(bench: &mut Bench) -> Result<()> {
    let mut config = ours();
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.establish(config, &theirs)
}

pub(crate) fn ipv4_unicast(bench: &mut Bench) -> Result<()> {
    one_route_each(bench)?;
    bench.they_learn(OUR_ROUTE, |route| {
        same("next hop", &route.next_hop, &Some(OURS))?;
        same("origin", &route.origin.as_str(), &"igp")?;
        same("AS_PATH", &route.as_path, &vec![OUR_ASN])
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        same(
            "next hop",
            &route.next_hop.map(|it| it.address()),
            &Some(THEIRS),
        )?;
        same("AS_PATH", &route.as_path.asns().collect(), &vec![THEIR_ASN])
    })?;
    bench.speaker()?.configure(ours());
    bench.they_lose(OUR_ROUTE)?;
    bench.peer()?.withdraw(THEIR_ROUTE.parse()?)?;
    bench.we_lose(THEIR_ROUTE)?;
    same("flaps", &bench.status()?.flaps, &0)
}

pub(crate) fn refresh_asked(bench: &mut Bench) -> Result<()> {
    one_route_each(bench)?;
    bench.they_learn(OUR_ROUTE, |_| Ok(()))?;
    let before = bench.status()?.counters.updates_out;
    bench.peer()?.refresh(OURS, lab::peer::Family::Ipv4)?;
    wait::until("our routes again", LIMIT, || {
        let after = bench.status()?.counters.updates_out;
        ensure!(after > before, "{after} UPDATEs, before it {before}");
        Ok(())
    })?;
    bench.they_learn(OUR_ROUTE, |_| Ok(()))?;
    same("flaps", &bench.status()?.flaps, &0)
}

pub(crate) fn end_of_rib(bench: &mut Bench) -> Result<()> {
    let mut config =
        ours_with(|peer| peer.graceful_restart = Some(std::time::Duration::from_secs(60)));
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    let mut theirs = bench.theirs();
    theirs.neighbours[0].restart = lab::peer::Restart::On(60);
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.establish(config, &theirs)?;
    wait::until("their End-of-RIB", LIMIT, || {
        ensure!(bench.status()?.synced, "not yet");
        Ok(())
    })?;
    let kind = bench.kind;
    wait::until("our End-of-RIB", LIMIT, || {
        let session = bench.session()?.text;
        let log = bench.peer()?.log()?;
        let seen = match kind {
            Kind::Bird => log.contains("Got END-OF-RIB"),
            Kind::Frr => log.contains("rcvd End-of-RIB for IPv4 Unicast"),
            Kind::Gobgp => session.contains("end_of_rib_received") || log.contains("EOR"),
            Kind::Openbgpd => log.contains("received IPv4 unicast EOR marker"),
            Kind::Exabgp => session.contains("\"eor\""),
        };
        ensure!(seen, "they say {session}");
        Ok(())
    })
}

pub(crate) fn med(bench: &mut Bench) -> Result<()> {
    let mut config = ours();
    let attributes = Attributes {
        med: Some(77),
        ..Attributes::originated()
    };
    originate(&mut config, OUR_ROUTE, attributes)?;
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement {
        med: Some(88),
        ..Announcement::new(THEIR_ROUTE.parse()?)
    });
    bench.establish(config, &theirs)?;
    bench.they_learn(OUR_ROUTE, |route| same("MED", &route.med, &77))?;
    bench.we_learn(THEIR_ROUTE, |route| same("MED", &route.med, &Some(88)))
}

pub(crate) fn local_pref(bench: &mut Bench) -> Result<()> {
    let mut config = ours_with(|peer| peer.asn = OUR_ASN);
    let attributes = Attributes {
        local_pref: Some(170),
        ..Attributes::originated()
    };
    originate(&mut config, OUR_ROUTE, attributes)?;
    let mut theirs = bench.theirs();
    theirs.asn = OUR_ASN;
    theirs.routes.push(Announcement {
        local_pref: Some(180),
        ..Announcement::new(THEIR_ROUTE.parse()?)
    });
    bench.establish(config, &theirs)?;
    bench.they_learn(OUR_ROUTE, |route| {
        same("LOCAL_PREF", &route.local_pref, &Some(170))?;
        same("AS_PATH", &route.as_path, &Vec::new())
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        same("LOCAL_PREF", &route.local_pref, &Some(180))
    })
}

pub(crate) fn communities(bench: &mut Bench) -> Result<()> {
    let mut config = ours();
    let target: ExtendedCommunity = "rt:65001:7".parse()?;
    let attributes = Attributes {
        communities: vec!["65001:1".parse()?, "65001:2".parse()?],
        large_communities: vec!["65001:1:2".parse()?, "4200000001:3:4".parse()?],
        extended_communities: vec![target],
        ..Attributes::originated()
    };
    originate(&mut config, OUR_ROUTE, attributes)?;
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement {
        communities: vec![(65002, 1), (65002, 2)],
        large: vec![(65002, 1, 2), (4_200_000_002, 3, 4)],
        targets: vec![(65002, 7)],
        ..Announcement::new(THEIR_ROUTE.parse()?)
    });
    bench.establish(config, &theirs)?;
    let set = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    bench.they_learn(OUR_ROUTE, |route| {
        same(
            "communities",
            &route.communities,
            &set(&["65001:1", "65001:2"]),
        )?;
        same(
            "large",
            &route.large,
            &set(&["65001:1:2", "4200000001:3:4"]),
        )?;
        same("extended", &route.extended, &set(&["rt:65001:7"]))
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        let text = |list: Vec<String>| list.join(" ");
        let communities = route.communities.iter().map(ToString::to_string).collect();
        same(
            "communities",
            &text(communities).as_str(),
            &"65002:1 65002:2",
        )?;
        let large = route
            .large_communities
            .iter()
            .map(ToString::to_string)
            .collect();
        same("large", &text(large).as_str(), &"65002:1:2 4200000002:3:4")?;
        let extended = route
            .extended_communities
            .iter()
            .map(ToString::to_string)
            .collect();
        same("extended", &text(extended).as_str(), &"rt:65002:7")
    })
}

pub(crate) fn extended_message(bench: &mut Bench) -> Result<()> {
    let mut config = ours();
    let many = (0..500).map(|number| bgp_wire::LargeCommunity {
        global: OUR_ASN,
        local1: 1,
        local2: number,
    });
    let attributes = Attributes {
        large_communities: many.collect(),
        ..Attributes::originated()
    };
    originate(&mut config, OUR_ROUTE, attributes)?;
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement {
        large: (0..500).map(|number| (THEIR_ASN, 1, number)).collect(),
        ..Announcement::new(THEIR_ROUTE.parse()?)
    });
    bench.establish(config, &theirs)?;
    // birdc cuts long lists short, but only an extended message has brought the route at all.
    let shown = if bench.kind == Kind::Bird { 29 } else { 500 };
    bench.they_learn(OUR_ROUTE, |route| {
        same("large communities", &route.large.len(), &shown)
    })?;
    bench.we_learn(THEIR_ROUTE, |route| {
        same("large communities", &route.large_communities.len(), &500)
    })
}

/// A third speaker behind us.
fn inject(bench: &mut Bench) -> Result<Third> {
    let theirs = bench.theirs();
    Third::behind_us(bench, ours(), injector(INJECTOR_ASN), &theirs)
}

/// The mandatory attributes as the third speaker sends them.
fn good() -> Vec<u8> {
    attributes(INJECTOR, &[INJECTOR_ASN])
}

pub(crate) fn unknown_attribute(bench: &mut Bench) -> Result<()> {
    let mut third = inject(bench)?;
    let mut attributes = good();
    attributes.extend([0xc0, 0x99, 4, 1, 2, 3, 4]);
    // Not transitive: it goes no further than us.
    attributes.extend([0x80, 0x9a, 1, 9]);
    third.say(&update(&[], &attributes, &[24, 10, 246, 1]))?;
    bench.they_learn("10.246.1.0/24", |route| {
        same(
            "unknown",
            &route.unknown,
            &[(0x99, vec![1, 2, 3, 4])].into(),
        )
    })?;
    bench.we_learn("10.246.1.0/24", |route| {
        let codes: Vec<u8> = route.unknown.iter().map(|it| it.code).collect();
        same("unknown", &codes, &vec![0x99])
    })
}

/// Faults in an UPDATE whose route is to be taken as withdrawn (RFC 7606 §7), as attributes beside good ones.
fn withdrawing() -> Vec<(&'static str, Vec<u8>)> {
    let change = |at: usize, value: u8| {
        let mut octets = good();
        octets[at] = value;
        octets
    };
    let and = |more: &[u8]| [good(), more.to_vec()].concat();
    vec![
        ("ORIGIN of an unknown value", change(3, 9)),
        ("AS_PATH with an unknown segment type", change(7, 9)),
        ("AS_PATH whose segment overruns it", change(8, 3)),
        ("AS_SET (RFC 9774)", change(7, 1)),
        ("AS 0 (RFC 7607)", attributes(INJECTOR, &[INJECTOR_ASN, 0])),
        ("no NEXT_HOP", good()[..13].to_vec()),
        (
            "MULTI_EXIT_DISC of three octets",
            and(&[0x80, 4, 3, 0, 0, 1]),
        ),
        ("COMMUNITIES of three octets", and(&[0xc0, 8, 3, 0, 0, 1])),
        (
            "EXTENDED COMMUNITIES of seven octets",
            and(&[0xc0, 16, 7, 0, 2, 0, 0, 0, 0, 0]),
        ),
        (
            "LARGE_COMMUNITY of eleven octets",
            and(&[0xc0, 32, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "ORIGIN with the flags of an optional attribute",
            change(0, 0xc0),
        ),
        (
            "an attribute that overruns the section",
            and(&[0xc0, 8, 200, 0]),
        ),
    ]
}

/// Faults after which the attribute is as if it had not been there.
fn discarded() -> Vec<(&'static str, Vec<u8>)> {
    let and = |more: &[u8]| [good(), more.to_vec()].concat();
    vec![
        ("ATOMIC_AGGREGATE of one octet", and(&[0x40, 6, 1, 0])),
        (
            "AGGREGATOR of seven octets",
            and(&[0xc0, 7, 7, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "LOCAL_PREF from an external peer",
            and(&[0x40, 5, 4, 0, 0, 0, 200]),
        ),
        (
            "ORIGINATOR_ID from an external peer",
            and(&[0x80, 9, 4, 1, 2, 3, 4]),
        ),
        ("the same attribute twice", and(&[0x40, 1, 1, 2])),
    ]
}

/// What the RFC 7606 faults of a third speaker do: nothing to our session with it, nor to the one with the observer, who
/// sees the route go, or stay without the attribute.
pub(crate) fn malformed(bench: &mut Bench) -> Result<()> {
    let mut third = inject(bench)?;
    let nlri = [24, 10, 246, 1];
    let prefix = "10.246.1.0/24";
    for (what, attributes) in withdrawing() {
        third.say(&update(&[], &good(), &nlri))?;
        bench.they_learn(prefix, |_| Ok(())).context(what)?;
        third.say(&update(&[], &attributes, &nlri))?;
        bench.they_lose(prefix).context(what)?;
    }
    for (what, attributes) in discarded() {
        third.say(&update(&[], &attributes, &nlri))?;
        bench
            .they_learn(prefix, |route| {
                same("origin", &route.origin.as_str(), &"igp")?;
                same("AS_PATH", &route.as_path, &vec![OUR_ASN, INJECTOR_ASN])?;
                same("unknown", &route.unknown, &Default::default())
            })
            .context(what)?;
        third.say(&update(&nlri, &[], &[]))?;
        bench.they_lose(prefix).context(what)?;
    }
    for status in bench.statuses()? {
        same("state", &status.state, &State::Established)?;
        same("flaps", &status.flaps, &0)?;
    }
    let faults = u64::try_from(withdrawing().len() + discarded().len())?;
    let mut statuses = bench.statuses()?.into_iter();
    let injector = statuses.find(|status| status.address == INJECTOR);
    let counted = injector.context("the injector")?.counters;
    same("faults counted", &counted.update_faults_in, &faults)
}
