use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(60);

#[expect(
    clippy::disallowed_methods,
    reason = "virtual time needs one instant to count from"
)]
fn epoch() -> Instant {
    Instant::now()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ipam(cidrs: &[&str]) -> Ipam {
    let mut ipam = Ipam::new(COOLDOWN);
    ipam.set_cidrs(&cidrs.iter().map(|cidr| net(cidr)).collect::<Vec<_>>(), &[]);
    ipam
}

/// Everything that the CIDRs give, in order, until there is nothing more.
fn drain(ipam: &mut Ipam, family: Family, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| ipam.allocate(family, now).ok())
        .map(|address| address.to_string())
        .collect()
}

#[test]
fn the_ends_of_a_cidr_are_not_given() {
    let now = epoch();
    assert_eq!(
        drain(&mut ipam(&["10.1.0.0/29"]), Family::V4, now).join(" "),
        "10.1.0.1 10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6"
    );
    assert_eq!(
        drain(&mut ipam(&["10.1.0.0/31"]), Family::V4, now),
        ["10.1.0.0", "10.1.0.1"]
    );
    assert_eq!(
        drain(&mut ipam(&["10.1.0.7/32"]), Family::V4, now),
        ["10.1.0.7"]
    );
    assert_eq!(
        drain(&mut ipam(&["fd00::/126"]), Family::V6, now),
        ["fd00::1", "fd00::2", "fd00::3"]
    );
}

#[test]
fn every_ipv6_size_is_fine() {
    let now = epoch();
    for prefix_len in 0..=128 {
        let mut ipam = ipam(&[&format!("::/{prefix_len}")]);
        ipam.allocate(Family::V6, now).unwrap();
        assert!(ipam.usage(now)[0].total > 0);
    }
}

#[test]
fn the_second_cidr_is_used_when_the_first_is_full() {
    let now = epoch();
    let mut ipam = ipam(&["10.1.0.4/31", "fd00::/64", "10.2.0.0/30"]);
    assert_eq!(
        drain(&mut ipam, Family::V4, now),
        ["10.1.0.4", "10.1.0.5", "10.2.0.1", "10.2.0.2"]
    );
    assert_eq!(ipam.allocate(Family::V6, now), Ok(address("fd00::1")));
}

#[test]
fn an_address_rests_before_it_is_given_again() {
    let now = epoch();
    let mut ipam = ipam(&["10.1.0.0/30"]);
    drain(&mut ipam, Family::V4, now);
    assert!(ipam.release(address("10.1.0.1"), now));
    assert!(!ipam.release(address("10.1.0.1"), now), "released twice");
    let error = ipam
        .allocate(Family::V4, now + COOLDOWN - Duration::from_millis(1))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no free IPv4 address: 1 of 2 in use and 1 resting after use in 10.1.0.0/30"
    );
    assert_eq!(
        ipam.allocate(Family::V4, now + COOLDOWN),
        Ok(address("10.1.0.1"))
    );
}

#[test]
fn who_names_an_address_gets_it_out_of_its_rest() {
    let now = epoch();
    let mut ipam = ipam(&["10.1.0.0/30"]);
    let (first, second) = (address("10.1.0.1"), address("10.1.0.2"));
    drain(&mut ipam, Family::V4, now);
    ipam.release(first, now);
    let later = now + Duration::from_secs(20);
    ipam.release(second, later);
    assert_eq!(ipam.allocate_specific(first, later), Ok(()));
    assert_eq!(
        ipam.allocate_specific(first, later),
        Err(AllocateError::InUse(first))
    );
    // Nobody had it this time either: its rest ends when it would have, before the other's.
    ipam.give_back(first);
    assert_eq!(ipam.usage(later)[0].cooling, 2);
    assert_eq!(ipam.allocate(Family::V4, now + COOLDOWN), Ok(first));
    assert!(ipam.allocate(Family::V4, now + COOLDOWN).is_err());
    // Whoever used it leaves it with a whole rest.
    assert_eq!(ipam.allocate_specific(second, now + COOLDOWN), Ok(()));
    ipam.release(second, now + COOLDOWN);
    assert!(ipam.allocate(Family::V4, later + COOLDOWN).is_err());
    assert_eq!(ipam.allocate(Family::V4, now + COOLDOWN * 2), Ok(second));
}

#[test]
fn what_nobody_saw_needs_no_rest() {
    let now = epoch();
    let mut ipam = ipam(&["10.1.0.0/32"]);
    let given = ipam.allocate(Family::V4, now).unwrap();
    ipam.give_back(given);
    assert_eq!(ipam.allocate(Family::V4, now), Ok(given));
}

#[test]
fn the_round_goes_on_after_a_restart() {
    let now = epoch();
    let mut ipam = ipam(&[]);
    // In the order in which they had been given; the freed 10.1.0.5 is not the next one to go.
    for claimed in ["10.1.0.3", "10.1.0.4", "10.1.0.6"] {
        assert!(ipam.claim(address(claimed)));
    }
    assert!(!ipam.claim(address("10.1.0.3")), "two owners");
    ipam.set_cidrs(&[net("10.1.0.0/24")], &[]);
    assert_eq!(ipam.allocate(Family::V4, now), Ok(address("10.1.0.7")));
    ipam.claim(address("10.1.0.9"));
    assert_eq!(ipam.allocate(Family::V4, now), Ok(address("10.1.0.10")));
}

#[test]
fn a_chosen_address() {
    let now = epoch();
    let mut ipam = ipam(&["10.1.0.0/24"]);
    ipam.set_cidrs(
        &[net("10.1.0.0/24")],
        &[net("10.1.0.64/26"), net("192.0.2.0/24")],
    );
    let mut choose = |text| ipam.allocate_specific(address(text), now);
    assert_eq!(choose("10.1.0.9"), Ok(()));
    assert_eq!(
        choose("10.1.0.9"),
        Err(AllocateError::InUse(address("10.1.0.9")))
    );
    for not_ours in ["10.1.0.0", "10.1.0.255", "10.2.0.1", "10.1.0.65", "fd00::1"] {
        assert_eq!(
            choose(not_ours),
            Err(AllocateError::NotOurs(address(not_ours)))
        );
    }
    assert_eq!(
        ipam.allocate(Family::V6, now),
        Err(AllocateError::NoCidr(Family::V6))
    );
}

#[test]
fn reserved_ranges_are_stepped_over_and_not_counted() {
    let now = epoch();
    let mut ipam = ipam(&[]);
    ipam.set_cidrs(
        &[net("10.1.0.0/29")],
        &[net("10.1.0.2/31"), net("10.1.0.6/32")],
    );
    assert_eq!(
        ipam.usage(now),
        [Usage {
            cidr: net("10.1.0.0/29"),
            total: 3,
            used: 0,
            cooling: 0
        }]
    );
    assert_eq!(
        drain(&mut ipam, Family::V4, now),
        ["10.1.0.1", "10.1.0.4", "10.1.0.5"]
    );
    ipam.set_cidrs(&[net("10.1.0.0/29")], &[net("10.0.0.0/8")]);
    assert_eq!(ipam.usage(now)[0].total, 0);
}

#[test]
fn changed_cidrs_keep_what_is_in_use() {
    let now = epoch();
    let mut ipam = ipam(&["10.1.0.0/30"]);
    drain(&mut ipam, Family::V4, now);
    ipam.release(address("10.1.0.2"), now);
    ipam.set_cidrs(&[net("10.2.0.0/30")], &[]);
    assert_eq!(ipam.allocate(Family::V4, now), Ok(address("10.2.0.1")));
    // Back again, and inside a wider CIDR too: 10.1.0.1 is in use, 10.1.0.2 rests.
    ipam.set_cidrs(&[net("10.1.0.0/29"), net("10.1.0.0/30")], &[]);
    assert_eq!(ipam.allocate(Family::V4, now), Ok(address("10.1.0.3")));
    assert_eq!(
        ipam.usage(now),
        [Usage {
            cidr: net("10.1.0.0/29"),
            total: 6,
            used: 2,
            cooling: 1
        }]
    );
}

#[test]
fn a_full_slash_16_costs_no_scan() {
    let now = epoch();
    let mut ipam = ipam(&["10.1.0.0/16"]);
    let all: BTreeSet<String> = drain(&mut ipam, Family::V4, now).into_iter().collect();
    assert_eq!(all.len(), 65_534);
    // One range is all that is remembered, so a search is a look-up.
    ipam.release(address("10.1.77.7"), now);
    assert_eq!(
        ipam.allocate(Family::V4, now + COOLDOWN),
        Ok(address("10.1.77.7"))
    );
}

#[derive(Debug, Clone)]
enum Step {
    Allocate,
    Choose(u8),
    Release(prop::sample::Index),
    GiveBack(prop::sample::Index),
    Claim(u8),
    Wait(u64),
    Move(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Allocate),
        2 => (0u8..64).prop_map(Step::Choose),
        6 => any::<prop::sample::Index>().prop_map(Step::Release),
        1 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
        1 => (0u8..64).prop_map(Step::Claim),
        4 => (0u64..40).prop_map(Step::Wait),
        1 => (0u8..3).prop_map(Step::Move),
    ]
}

proptest! {
    /// No address has two owners, none comes back before its rest is over unless it was asked for, and only a CIDR
    /// without a free address says that it has none.
    #[test]
    fn never_twice_and_never_too_early(steps in prop::collection::vec(step(), 0..300)) {
        let layouts = [vec![net("10.0.0.0/28"), net("10.0.0.32/29")], vec![net("10.0.0.0/27")], vec![net("10.0.0.32/28")]];
        let (mut now, mut layout) = (epoch(), &layouts[0]);
        let mut ipam = Ipam::new(COOLDOWN);
        ipam.set_cidrs(layout, &[]);
        let mut owned: BTreeSet<IpAddr> = BTreeSet::new();
        let mut rest: BTreeMap<IpAddr, Instant> = BTreeMap::new();
        for step in steps {
            let named = matches!(step, Step::Choose(_));
            let given = match step {
                Step::Allocate => match ipam.allocate(Family::V4, now) {
                    Ok(address) => Some(address),
                    Err(_) => {
                        let free = layout.iter().flat_map(IpNet::hosts).find(|address| {
                            !owned.contains(address) && rest.get(address).is_none_or(|until| *until <= now)
                        });
                        prop_assert_eq!(free, None, "said to be exhausted");
                        None
                    }
                },
                Step::Choose(last) => {
                    let chosen = IpAddr::from([10, 0, 0, last]);
                    let free = !owned.contains(&chosen) && layout.iter().flat_map(IpNet::hosts).any(|host| host == chosen);
                    let given = ipam.allocate_specific(chosen, now).is_ok();
                    prop_assert_eq!(given, free);
                    given.then_some(chosen)
                }
                Step::Release(index) if !owned.is_empty() => {
                    let address = *index.get(&owned.iter().copied().collect::<Vec<_>>());
                    prop_assert!(ipam.release(address, now));
                    owned.remove(&address);
                    rest.insert(address, now + COOLDOWN);
                    None
                }
                Step::GiveBack(index) if !owned.is_empty() => {
                    let address = *index.get(&owned.iter().copied().collect::<Vec<_>>());
                    ipam.give_back(address);
                    owned.remove(&address);
                    None
                }
                Step::Release(_) | Step::GiveBack(_) => None,
                Step::Claim(last) => {
                    let claimed = IpAddr::from([10, 0, 0, last]);
                    prop_assert_eq!(ipam.claim(claimed), owned.insert(claimed));
                    rest.remove(&claimed);
                    None
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    None
                }
                Step::Move(index) => {
                    layout = &layouts[usize::from(index)];
                    ipam.set_cidrs(layout, &[]);
                    None
                }
            };
            if let Some(address) = given {
                prop_assert!(owned.insert(address), "{} has two owners", address);
                prop_assert!(named || rest.get(&address).is_none_or(|until| *until <= now), "{} came back too early", address);
                prop_assert!(layout.iter().flat_map(IpNet::hosts).any(|host| host == address));
            }
            for usage in ipam.usage(now) {
                prop_assert!(usage.used + usage.cooling <= usage.total);
            }
        }
    }
}

mod blocks {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::blocks::{block_of, count, next_free, taken};
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|net| net.parse().unwrap())
            .collect()
    }

    fn next(pool: &str, len: u8, occupied: &str, reserved: &str, start: u64) -> Option<String> {
        let pool = pool.parse().unwrap();
        next_free(pool, len, &nets(occupied), &nets(reserved), start).map(|net| net.to_string())
    }

    #[test]
    fn the_next_free_one_goes_round_and_over_what_is_taken() {
        let some = |net: &str| Some(net.to_owned());
        assert_eq!(next("10.0.0.0/24", 26, "", "", 2), some("10.0.0.128/26"));
        assert_eq!(
            next("10.0.0.0/24", 26, "10.0.0.128/25", "", 2),
            some("10.0.0.0/26")
        );
        // A larger block, a smaller one, and the whole pool.
        assert_eq!(
            next("10.0.0.0/24", 26, "10.0.0.3/32 10.0.0.64/28", "", 4),
            some("10.0.0.128/26")
        );
        assert_eq!(next("10.0.0.0/24", 26, "10.0.0.0/16", "", 0), None);
        // One that is reserved in part still is a block.
        assert_eq!(
            next("10.0.0.0/24", 26, "", "10.0.0.0/26 10.0.0.64/27", 0),
            some("10.0.0.64/26")
        );
        assert_eq!(
            next("fd00::/48", 122, "fd00::/122", "", 0),
            some("fd00::40/122")
        );
        assert_eq!(next("::/1", 128, "", "", 3), some("::3/128"));
        assert_eq!(next("10.0.0.0/24", 20, "", "", 0), None);
    }

    #[test]
    fn an_address_is_in_one_block() {
        let of = |pool: &str, len, address: &str| {
            block_of(pool.parse().unwrap(), len, address.parse().unwrap())
        };
        assert_eq!(
            of("10.0.0.0/16", 26, "10.0.3.70"),
            "10.0.3.64/26".parse().ok()
        );
        assert_eq!(of("10.0.0.0/16", 26, "10.1.0.0"), None);
        assert_eq!(of("10.0.0.0/26", 25, "10.0.0.1"), None);
    }

    proptest! {
        /// Against an oracle that tries every block.
        #[test]
        fn as_by_trying_every_block(
            len in 24u8..=30,
            occupied in prop::collection::vec((0u32..512, 22u8..=32), 0..12),
            reserved in prop::collection::vec((0u32..512, 22u8..=32), 0..6),
            start in any::<u64>(),
        ) {
            let pool: IpNet = "10.0.0.0/24".parse().unwrap();
            let net = |(offset, len): (u32, u8)| -> IpNet {
                let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + offset);
                IpNet::new(address.into(), len).unwrap().trunc()
            };
            let occupied: Vec<IpNet> = occupied.into_iter().map(net).collect();
            let reserved: Vec<IpNet> = reserved.into_iter().map(net).collect();
            let meets = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
            let free: BTreeSet<IpNet> = pool
                .subnets(len)
                .unwrap()
                .filter(|block| !occupied.iter().any(|other| meets(other, block)))
                .filter(|block| !reserved.iter().any(|range| range.contains(block)))
                .collect();
            let blocks: Vec<IpNet> = pool.subnets(len).unwrap().collect();
            let from = usize::try_from(u128::from(start) % count(pool, len)).unwrap();
            let naive = blocks[from..].iter().chain(&blocks[..from]).find(|block| free.contains(block));
            prop_assert_eq!(next_free(pool, len, &occupied, &reserved, start), naive.copied());
            let used = taken(pool, len, &occupied, &reserved);
            prop_assert_eq!(used, (blocks.len() - free.len()) as u128);
        }
    }
}
