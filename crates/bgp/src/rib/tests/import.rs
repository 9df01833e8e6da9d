//! Adj-RIB-In: what is rejected stays, with the reason.

use bgp_wire::{Attributes, Community};

use super::{ASN, Bed, ROUTER_ID, external, internal, net, via};
use crate::policy::{Change, Match, Policy, Statement, Verdict};
use crate::rib::{PathState, PeerIndex, PeerSession, Rejected, Selection};

const PREFIX: &str = "10.0.0.0/24";

fn state(bed: &Bed) -> PathState {
    let mut routes = bed
        .rib
        .routes_from(PeerIndex(1), &Selection::Exact(net(PREFIX)));
    routes.remove(0).paths.remove(0).state
}

#[test]
fn checks_of_the_protocol() {
    let subnet = PeerSession {
        shared_subnet: Some(net("192.0.2.0/28")),
        ..external(1, 65001)
    };
    let originated_here = Attributes {
        originator_id: Some(ROUTER_ID),
        ..via(1, &[])
    };
    let reflected_here = Attributes {
        cluster_list: vec![ROUTER_ID],
        ..via(1, &[])
    };
    let cases = [
        (external(1, 65001), via(1, &[65001, ASN]), Rejected::AsLoop),
        (internal(1), via(1, &[65009, ASN]), Rejected::AsLoop),
        (external(1, 65001), via(1, &[65002]), Rejected::FirstAs),
        (external(1, 65001), via(1, &[]), Rejected::FirstAs),
        (external(1, 65001), via(254, &[65001]), Rejected::OwnNextHop),
        (internal(1), via(254, &[]), Rejected::OwnNextHop),
        (subnet, via(99, &[65001]), Rejected::ForeignNextHop),
        (internal(1), originated_here, Rejected::OriginatorLoop),
        (internal(1), reflected_here, Rejected::ClusterLoop),
    ];
    for (session, attributes, expected) in cases {
        let mut bed = Bed::new();
        bed.up(1, session);
        bed.up(2, external(2, 65002));
        bed.announce(1, &attributes, &[PREFIX]);
        assert_eq!(state(&bed), PathState::Rejected(expected));
        bed.drain_all();
        assert!(bed.kernel.is_empty() && bed.listeners[&2].routes.is_empty());
        assert_eq!(
            bed.rib
                .counts(PeerIndex(1), bgp_wire::Family::IPV4_UNICAST)
                .received,
            1
        );
        bed.withdraw(1, &[PREFIX]);
        assert_eq!(bed.rib.memory().paths, 0);
    }
}

#[test]
fn policy_is_asked_again_without_a_new_session() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(
        1,
        &Attributes {
            communities: vec![Community(7)],
            ..via(1, &[65001])
        },
        &[PREFIX],
    );
    assert_eq!(bed.told(2), [PREFIX]);
    let rule = |verdict, changes| Statement {
        name: "BGPFilter/x rule 2".into(),
        matches: vec![Match::Community(Community(7).into())],
        changes,
        verdict,
    };
    let policy = |statement| Policy::new(vec![statement], Verdict::Accept, "default");

    bed.rib.set_policies(
        PeerIndex(1),
        policy(rule(Verdict::Reject, vec![])),
        Policy::accept_all(),
    );
    assert!(bed.told(2).is_empty());
    let PathState::Rejected(reason) = state(&bed) else {
        panic!("not rejected")
    };
    assert_eq!(reason.to_string(), "rejected by BGPFilter/x rule 2");

    let changes = vec![
        Change::RemoveCommunities(Community(7).into()),
        Change::LocalPref(150),
    ];
    bed.rib.set_policies(
        PeerIndex(1),
        policy(rule(Verdict::Accept, changes)),
        Policy::accept_all(),
    );
    assert_eq!(bed.told(2), [PREFIX]);
    let path = bed.rib.routes(&Selection::All).remove(0).paths.remove(0);
    assert_eq!(
        (
            path.attributes.local_pref,
            path.attributes.communities.len()
        ),
        (Some(150), 0)
    );

    // Judged from what was received, not from what an earlier policy made of it.
    bed.rib.set_policies(
        PeerIndex(1),
        Policy::reject_all("BGPPeer/x"),
        Policy::accept_all(),
    );
    assert!(bed.told(2).is_empty());
    bed.rib
        .set_policies(PeerIndex(1), Policy::accept_all(), Policy::accept_all());
    assert_eq!(bed.told_attributes(2, PREFIX).communities, [Community(7)]);
    assert_eq!(bed.rib.memory().attribute_sets, 1);
}

#[test]
fn an_announcement_without_attributes_withdraws() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.announce(1, &via(1, &[65001]), &[PREFIX]);
    // ORIGIN of two octets, AS_PATH, NEXT_HOP, 10.0.0.0/24: to be treated as a withdrawal (RFC 7606 §7.1).
    let mut message = vec![0xff; 16];
    let attributes = [
        [0x40, 1, 2, 0, 0].as_slice(),
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9],
        &[0x40, 3, 4, 192, 0, 2, 1],
    ]
    .concat();
    let nlri = [24, 10, 0, 0];
    let len = u16::try_from(23 + attributes.len() + nlri.len()).unwrap();
    message.extend(len.to_be_bytes());
    message.extend([2, 0, 0]);
    message.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    message.extend(attributes);
    message.extend(nlri);
    bed.receive(1, &message);
    assert_eq!(bed.rib.memory().nets, 0);
}

#[test]
fn selections() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    let all = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24"];
    bed.announce(1, &via(1, &[65001]), &all);
    let select = |selection: Selection| -> Vec<String> {
        bed.rib
            .routes(&selection)
            .iter()
            .map(|route| route.prefix.to_string())
            .collect()
    };
    assert_eq!(select(Selection::All), all);
    assert_eq!(
        select(Selection::Exact(net("10.1.0.0/16"))),
        ["10.1.0.0/16"]
    );
    assert_eq!(
        select(Selection::Within(net("10.1.0.0/16"))),
        ["10.1.0.0/16", "10.1.2.0/24"]
    );
    assert_eq!(
        select(Selection::Covering(net("10.1.2.3/32"))),
        ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"]
    );
}

/// Which statement decided, and which changed what, on the way in and on the way out.
#[test]
fn views_name_the_statements() {
    let statement = |name: &str, changes, verdict| Statement {
        name: name.into(),
        matches: vec![],
        changes,
        verdict,
    };
    let import = Policy::new(
        vec![
            statement("in 0", vec![Change::LocalPref(7)], Verdict::Next),
            statement("in 1", vec![], Verdict::Accept),
        ],
        Verdict::Reject,
        "in default",
    );
    let export = Policy::new(
        vec![statement(
            "out 0",
            vec![Change::Med(Some(1))],
            Verdict::Next,
        )],
        Verdict::Reject,
        "out default",
    );
    let mut bed = Bed::new();
    bed.up(
        1,
        PeerSession {
            import,
            ..external(1, 65001)
        },
    );
    bed.up(
        2,
        PeerSession {
            export,
            ..external(2, 65002)
        },
    );
    bed.announce(1, &via(1, &[65001]), &[PREFIX]);
    bed.announce(1, &via(1, &[65001, ASN]), &["10.1.0.0/24"]);
    let routes = bed.rib.routes_from(PeerIndex(1), &Selection::All);
    let path = &routes[0].paths[0];
    assert_eq!(path.decided_by.as_deref(), Some("in 1"));
    assert_eq!(path.changed_by, ["in 0"]);
    let looped = &routes[1].paths[0];
    assert_eq!(looped.state, PathState::Rejected(Rejected::AsLoop));
    assert_eq!((&looped.decided_by, looped.changed_by.len()), (&None, 0));
    let told = bed.rib.routes_to(PeerIndex(2), &Selection::All);
    assert_eq!(told[0].decided_by.as_deref(), Some("out default"));
    assert_eq!(told[0].changed_by, [] as [&str; 0]);
    assert_eq!(told[1].decided_by, None, "policy was not asked");
    bed.rib.set_policies(
        PeerIndex(2),
        Policy::accept_all(),
        Policy::new(
            vec![statement(
                "out 0",
                vec![Change::Med(Some(1))],
                Verdict::Next,
            )],
            Verdict::Accept,
            "open",
        ),
    );
    let told = bed.rib.routes_to(PeerIndex(2), &Selection::All);
    assert_eq!(told[0].decided_by.as_deref(), Some("open"));
    assert_eq!(told[0].changed_by, ["out 0"]);
}
