//! Patterns over AS paths and communities.

use bgp_wire::pattern::{AnyCommunity, AsPathPattern, CommunityPattern};
use bgp_wire::{AsPath, Attributes, Segment, SegmentKind};
use proptest::prelude::*;

#[test]
fn as_paths() {
    let cases = [
        ("", vec![], true),
        ("", vec![1], false),
        (".*", vec![], true),
        (".*", vec![1, 2, 3], true),
        ("1 2 3", vec![1, 2, 3], true),
        ("1 2", vec![1, 2, 3], false),
        ("2 3", vec![1, 2, 3], false),
        ("1 .* 3", vec![1, 3], true),
        ("1 .* 3", vec![1, 9, 9, 9, 3], true),
        ("1 .+ 3", vec![1, 3], false),
        ("1 .+ 3", vec![1, 2, 3], true),
        (".* 3 .*", vec![1, 2, 3], true),
        (".* 4 .*", vec![1, 2, 3], false),
        ("1? 2", vec![2], true),
        ("1? 2", vec![1, 2], true),
        ("1? 2", vec![1, 1, 2], false),
        ("1+", vec![1, 1, 1], true),
        ("1+", vec![], false),
        ("1+", vec![1, 2], false),
        ("64512-65534 .*", vec![65000, 1], true),
        ("64512-65534 .*", vec![65535, 1], false),
        ("[1 3-5] 9", vec![4, 9], true),
        ("[1 3-5] 9", vec![2, 9], false),
        ("[^1 3-5] 9", vec![2, 9], true),
        ("[^1 3-5] 9", vec![3, 9], false),
        ("[1 2]* 3", vec![2, 1, 2, 3], true),
        ("[1 2]* 3", vec![2, 9, 3], false),
        ("1.10", vec![65546], true),
        ("1? 1? 1? 1 1 1", vec![1, 1, 1], true),
    ];
    for (pattern, path, expected) in cases {
        let parsed: AsPathPattern = pattern.parse().unwrap();
        assert_eq!(
            parsed.matches(&AsPath::sequence(path.clone())),
            expected,
            "{pattern} on {path:?}"
        );
    }
    let with_set = AsPath {
        segments: vec![
            Segment {
                kind: SegmentKind::Sequence,
                asns: vec![1],
            },
            Segment {
                kind: SegmentKind::Set,
                asns: vec![2, 3],
            },
        ],
    };
    assert!("1 2 3".parse::<AsPathPattern>().unwrap().matches(&with_set));
}

#[test]
fn what_is_no_pattern_says_which_part() {
    for (text, part) in [
        ("64512 x", "`x`"),
        ("^64512", "`^64512`"),
        ("64512$", "`64512$`"),
        ("(1 2)", "`(1`"),
        ("5-1", "`5-1`"),
        ("[]", "`[]`"),
        ("1 [2 3", "lacks its `]`"),
        ("*", "``"),
        ("4294967296", "`4294967296`"),
        ("[1]2", "`[1]2`"),
    ] {
        let error = text.parse::<AsPathPattern>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!("1 ".repeat(63).parse::<AsPathPattern>().is_ok());
    assert!("1 ".repeat(64).parse::<AsPathPattern>().is_err());
    assert!("1+ ".repeat(32).parse::<AsPathPattern>().is_err());
    for text in [
        "65000", "65536:1", "1:2:3:4", "9-1:1", "foo", "rt:x:1", "soo:1", "+1:1", "",
    ] {
        assert!(text.parse::<CommunityPattern>().is_err(), "{text}");
        assert!(text.parse::<AnyCommunity>().is_err(), "{text}");
    }
}

/// Worst for a matcher that tries one way after the other.
#[test]
fn no_pattern_takes_long() {
    let pattern: AsPathPattern = (".* ".repeat(62) + "2").parse().unwrap();
    let path = AsPath::sequence(vec![1; 20_000]);
    assert!(!pattern.matches(&path));
}

fn attributes(communities: &[&str]) -> Attributes {
    let mut attributes = Attributes::originated();
    for community in communities {
        match community.parse().unwrap() {
            AnyCommunity::Standard(it) => attributes.communities.push(it),
            AnyCommunity::Extended(it) => attributes.extended_communities.push(it),
            AnyCommunity::Large(it) => attributes.large_communities.push(it),
        }
    }
    attributes
}

#[test]
fn communities() {
    let cases = [
        ("65000:1", "65000:1", true),
        ("65000:1", "65000:2", false),
        ("65000:*", "65000:2", true),
        ("65000:*", "65001:2", false),
        ("*:666", "1:666", true),
        ("65000:100-199", "65000:150", true),
        ("65000:100-199", "65000:200", false),
        ("64512-65534:*", "65000:7", true),
        ("no-export", "65535:65281", true),
        ("*:*", "no-export", true),
        ("65000:1:2", "65000:1:2", true),
        ("65000:*:2", "65000:9:2", true),
        ("65000:*:2", "65000:9:3", false),
        ("*:*:1-5", "4200000000:0:5", true),
        ("*:*", "65000:1:2", false),
        ("rt:65000:7", "rt:65000:7", true),
        ("rt:65000:*", "rt:65000:7", true),
        ("rt:65000:*", "soo:65000:7", false),
        ("rt:*:7", "rt:192.0.2.1:7", true),
        ("rt:192.0.2.1:*", "rt:192.0.2.1:7", true),
        ("rt:192.0.2.1:*", "rt:65000:7", false),
        ("rt:4200000000-4200000009:1-9", "rt:4200000005:7", true),
        ("soo:*:*", "soo:65000:7", true),
        ("0x0300000000000001", "0x0300000000000001", true),
        ("0x0300000000000001", "0x0300000000000002", false),
        ("rt:*:*", "0x0300000000000001", false),
    ];
    for (pattern, community, expected) in cases {
        let parsed: CommunityPattern = pattern.parse().unwrap();
        let mut route = attributes(&[community, "1:2", "1:2:3", "soo:1:2"]);
        let others = |attributes: &Attributes| {
            attributes.communities.len()
                + attributes.large_communities.len()
                + attributes.extended_communities.len()
        };
        assert_eq!(
            parsed.matches(&attributes(&[community])),
            expected,
            "{pattern} on {community}"
        );
        parsed.remove_from(&mut route);
        assert!(!parsed.matches(&route), "{pattern} is still in {route:?}");
        assert!(others(&route) >= 2);
        assert_eq!(parsed.to_string().parse(), Ok(parsed), "{parsed}");
    }
}

/// By recursion, one way after the other.
fn naive(terms: &[(u32, char)], path: &[u32]) -> bool {
    let Some(((asn, quantifier), rest)) = terms.split_first() else {
        return path.is_empty();
    };
    let eats = path.first().is_some_and(|it| *asn == 0 || it == asn);
    match quantifier {
        '?' => naive(rest, path) || (eats && naive(rest, &path[1..])),
        '*' => naive(rest, path) || (eats && naive(terms, &path[1..])),
        '+' => {
            let mut starred = vec![(*asn, '*')];
            starred.extend_from_slice(rest);
            eats && naive(&starred, &path[1..])
        }
        _ => eats && naive(rest, &path[1..]),
    }
}

proptest! {
    #[test]
    fn as_a_naive_matcher_has_it(
        terms in prop::collection::vec((0..4_u32, prop::sample::select(vec![' ', '?', '*', '+'])), 0..7),
        path in prop::collection::vec(1..4_u32, 0..8),
    ) {
        let text: Vec<String> = terms
            .iter()
            .map(|(asn, quantifier)| match asn {
                0 => format!(".{quantifier}"),
                asn => format!("{asn}{quantifier}"),
            })
            .collect();
        let pattern: AsPathPattern = text.join(" ").parse().unwrap();
        let expected = naive(&terms, &path);
        prop_assert_eq!(pattern.matches(&AsPath::sequence(path.clone())), expected);
        let again: AsPathPattern = pattern.to_string().parse().unwrap();
        prop_assert_eq!(again, pattern);
    }
}
