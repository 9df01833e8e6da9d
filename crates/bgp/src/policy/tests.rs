use bgp_wire::{AsPath, Attributes, Community, Family, NextHop, Origin};
use ipnet::IpNet;

use super::{
    Candidate, Change, Effects, Match, NextHopChange, Outcome, Policy, PrefixMatch, PrefixOperator,
    PrefixSet, SourceKind, Statement, Verdict,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn attributes() -> Attributes {
    Attributes {
        as_path: AsPath::sequence([65001, 65002, 65003]),
        next_hop: Some(NextHop::V4([192, 0, 2, 1].into())),
        communities: vec![Community(0x0001_0002)],
        ..Attributes::originated()
    }
}

fn holds(condition: &Match, prefix: &str) -> bool {
    condition.holds(&Candidate {
        prefix: net(prefix),
        attributes: &attributes(),
        source: SourceKind::External,
        from: Some([192, 0, 2, 7].into()),
        internal: false,
    })
}

fn statement(name: &str, matches: Vec<Match>, changes: Vec<Change>, verdict: Verdict) -> Statement {
    Statement {
        name: name.into(),
        matches,
        changes,
        verdict,
    }
}

#[test]
fn prefix_operators() {
    use PrefixOperator::{Equal, In, NotEqual, NotIn};
    let cases = [
        (Equal, None, "10.0.0.0/16", true),
        (Equal, None, "10.0.1.0/24", false),
        (NotEqual, None, "10.0.0.0/16", false),
        (NotEqual, None, "10.0.1.0/24", true),
        (In, None, "10.0.0.0/16", true),
        (In, None, "10.0.1.0/24", true),
        (In, None, "10.0.0.0/8", false),
        (In, Some((24, 26)), "10.0.0.0/16", false),
        (In, Some((24, 26)), "10.0.1.0/25", true),
        (In, Some((24, 26)), "10.0.1.0/27", false),
        (NotIn, None, "10.0.1.0/24", false),
        (NotIn, Some((24, 26)), "10.0.1.0/27", true),
        (NotIn, None, "10.1.0.0/16", true),
        // Another family is neither in nor out.
        (NotIn, None, "2001:db8::/32", false),
        (NotEqual, None, "2001:db8::/32", false),
    ];
    for (operator, length, prefix, expected) in cases {
        let condition = Match::Prefix(PrefixMatch {
            prefix: net("10.0.0.0/16"),
            operator,
            length,
        });
        assert_eq!(
            holds(&condition, prefix),
            expected,
            "{operator:?} {length:?} {prefix}"
        );
    }
}

#[test]
fn attribute_matches() {
    let inside = |prefix| PrefixMatch {
        prefix: net(prefix),
        operator: PrefixOperator::In,
        length: Some((24, 28)),
    };
    let (covering, other) = (inside("10.0.0.0/8"), inside("10.1.0.0/16"));
    let cases = [
        (Match::Family(Family::IPV4_UNICAST), true),
        (Match::Family(Family::IPV6_UNICAST), false),
        (Match::Source(SourceKind::External), true),
        (Match::Source(SourceKind::Local), false),
        (Match::NextHop(net("192.0.2.0/24")), true),
        (Match::NextHop(net("198.51.100.0/24")), false),
        (Match::AsPathContains(65002), true),
        (Match::AsPathContains(65009), false),
        (Match::AsPathStartsWith(vec![65001, 65002]), true),
        (Match::AsPathStartsWith(vec![65002]), false),
        (Match::AsPathOrigin(65003), true),
        (Match::AsPathOrigin(65001), false),
        (Match::AsPathLength(3, 3), true),
        (Match::AsPathLength(0, 2), false),
        (Match::Learned, true),
        (Match::From([192, 0, 2, 7].into()), true),
        (Match::From([192, 0, 2, 8].into()), false),
        (Match::InternalSession(false), true),
        (Match::InternalSession(true), false),
        (Match::Origin(Origin::Igp), true),
        (Match::Origin(Origin::Egp), false),
        (Match::AsPath("65001 .* 65003".parse().unwrap()), true),
        (Match::AsPath("65001 65003".parse().unwrap()), false),
        (Match::Community("1:2".parse().unwrap()), true),
        (Match::Community("1:3-9".parse().unwrap()), false),
        (Match::Community("1:*:*".parse().unwrap()), false),
        (Match::PrefixList(vec![other, covering]), true),
        (Match::PrefixList(vec![other]), false),
        (Match::PrefixList(vec![]), false),
        (Match::LocalPref(100, 100), true),
        (Match::Med(0, 0), true),
        (Match::Med(1, 9), false),
    ];
    for (condition, expected) in cases {
        assert_eq!(holds(&condition, "10.0.0.0/24"), expected, "{condition:?}");
    }
}

#[test]
fn sets_cover_what_lies_inside() {
    let set =
        PrefixSet::new(["10.1.0.0/16", "10.1.2.0/24", "10.3.0.0/16", "2001:db8::/32"].map(net));
    for (prefix, expected) in [
        ("10.1.0.0/16", true),
        ("10.1.2.0/24", true),
        ("10.1.255.0/24", true),
        ("10.0.0.0/8", false),
        ("10.2.0.0/16", false),
        ("10.3.3.3/32", true),
        ("10.4.0.0/16", false),
        ("2001:db8:1::/48", true),
        ("2001:db9::/48", false),
        ("0.0.0.0/0", false),
    ] {
        assert_eq!(set.covers(&net(prefix)), expected, "{prefix}");
    }
    assert!(!PrefixSet::new([]).covers(&net("10.0.0.0/8")));
}

#[test]
fn first_decision_wins_and_earlier_changes_add_up() {
    let policy = Policy::new(
        vec![
            statement(
                "tag",
                vec![],
                vec![
                    Change::AddCommunity(Community(7).into()),
                    Change::LocalPref(50),
                ],
                Verdict::Next,
            ),
            statement(
                "rule 1",
                vec![Match::AsPathContains(65002)],
                vec![Change::LocalPref(200)],
                Verdict::Accept,
            ),
            statement("rule 2", vec![], vec![], Verdict::Reject),
        ],
        Verdict::Accept,
        "default",
    );
    let mut attributes = attributes();
    let candidate = |attributes: &Attributes| {
        policy.evaluate(&Candidate {
            prefix: net("10.0.0.0/8"),
            attributes,
            source: SourceKind::External,
            from: None,
            internal: false,
        })
    };
    let Outcome::Accept(applied) = candidate(&attributes) else {
        panic!("not accepted")
    };
    assert_eq!(applied.as_slice(), [0, 1]);
    policy.apply(&applied, &mut attributes, 64512);
    assert_eq!(attributes.local_pref, Some(200));
    assert_eq!(
        attributes.communities,
        [Community(7), Community(0x0001_0002)]
    );

    attributes.as_path = AsPath::default();
    assert_eq!(candidate(&attributes), Outcome::Reject(Some(2)));
    assert_eq!(policy.name_of(Some(2)), "rule 2");
    assert_eq!(Policy::reject_all("BGPPeer/x").name_of(None), "BGPPeer/x");
}

#[test]
fn equal_content_is_equal_policy() {
    let make = |pref| {
        Policy::new(
            vec![statement(
                "a",
                vec![Match::Origin(Origin::Igp)],
                vec![Change::LocalPref(pref)],
                Verdict::Accept,
            )],
            Verdict::Reject,
            "d",
        )
    };
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
    assert!(!make(1).depends_on_prefix());
}

#[test]
fn changes() {
    let start = || Attributes {
        med: Some(10),
        communities: vec![Community::new(65000, 1), Community::new(65000, 2)],
        large_communities: vec!["65000:1:2".parse().unwrap()],
        extended_communities: vec!["rt:65000:1".parse().unwrap()],
        ..attributes()
    };
    let community = |text: &str| text.parse().unwrap();
    let check = |change: Change, expected: fn(&mut Attributes)| {
        let policy = Policy::new(
            vec![statement("a", vec![], vec![change.clone()], Verdict::Next)],
            Verdict::Accept,
            "d",
        );
        let (mut changed, mut wanted) = (start(), start());
        let effects = policy.apply(&[0], &mut changed, 64512);
        expected(&mut wanted);
        assert_eq!(changed, wanted, "{change:?}");
        effects
    };
    check(Change::Med(None), |it| it.med = None);
    check(Change::Med(Some(7)), |it| it.med = Some(7));
    check(Change::RaiseMed(5), |it| it.med = Some(15));
    check(Change::RaiseMed(u32::MAX), |it| it.med = Some(u32::MAX));
    check(Change::LowerMed(4), |it| it.med = Some(6));
    check(Change::LowerMed(40), |it| it.med = Some(0));
    let none = check(Change::LocalPref(7), |it| it.local_pref = Some(7));
    assert_eq!(none, Effects::default());
    check(Change::Origin(Origin::Incomplete), |it| {
        it.origin = Origin::Incomplete
    });
    check(Change::Prepend(2), |it| {
        it.as_path = AsPath::sequence([64512, 64512, 65001, 65002, 65003]);
    });
    check(Change::PrependAsns(vec![1, 2]), |it| {
        it.as_path = AsPath::sequence([1, 2, 65001, 65002, 65003]);
    });
    check(Change::AddCommunity(community("65000:2")), |_| {});
    check(Change::AddCommunity(community("65000:0")), |it| {
        it.communities.insert(0, Community::new(65000, 0));
    });
    check(Change::AddCommunity(community("1:2:3")), |it| {
        it.large_communities.insert(0, "1:2:3".parse().unwrap());
    });
    check(Change::AddCommunity(community("soo:65000:1")), |it| {
        it.extended_communities.push("soo:65000:1".parse().unwrap());
    });
    check(
        Change::RemoveCommunities("65000:*".parse().unwrap()),
        |it| it.communities.clear(),
    );
    check(Change::RemoveCommunities("*:1:*".parse().unwrap()), |it| {
        it.large_communities.clear();
    });
    check(Change::RemoveCommunities("rt:*:*".parse().unwrap()), |it| {
        it.extended_communities.clear();
    });
    check(Change::SetCommunities(vec![community("no-export")]), |it| {
        it.communities = vec![Community::NO_EXPORT];
        it.large_communities.clear();
        it.extended_communities.clear();
    });
    let effects = check(Change::NextHop(NextHopChange::Own), |_| {});
    assert_eq!(effects.next_hop, Some(NextHopChange::Own));
}

#[test]
fn an_explanation_names_statements() {
    let policy = Policy::new(
        vec![
            statement("tag", vec![], vec![Change::LocalPref(7)], Verdict::Next),
            statement("look", vec![], vec![], Verdict::Next),
            statement(
                "no",
                vec![Match::AsPathContains(65009)],
                vec![],
                Verdict::Reject,
            ),
        ],
        Verdict::Accept,
        "the default",
    );
    let explain = |attributes: &Attributes| {
        let explanation = policy.explain(&Candidate {
            prefix: net("10.0.0.0/8"),
            attributes,
            source: SourceKind::External,
            from: None,
            internal: false,
        });
        let super::Explanation {
            accepted,
            decided_by,
            changed_by,
        } = explanation;
        (accepted, decided_by, changed_by.join(" "))
    };
    let mut attributes = attributes();
    let accepted = (true, "the default".to_owned(), "tag".to_owned());
    assert_eq!(explain(&attributes), accepted);
    attributes.as_path = AsPath::sequence([65009]);
    assert_eq!(
        explain(&attributes),
        (false, "no".to_owned(), String::new())
    );
}
