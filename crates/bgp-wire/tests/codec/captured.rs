//! Messages that other speakers sent us over a veth pair: BIRD 2.0.12, FRR 8.4.4 and GoBGP 3.10.0, as Debian 12
//! packages them. The body is given, the header is put in front.

use bgp_wire::capability::GracefulRestart;
use bgp_wire::{
    AsPath, Attributes, Capability, Community, ExtendedCommunity, Family, LargeCommunity, Message,
    NextHop, Notification, Open, Origin, header,
};

use crate::{EXTERNAL, OLD, announced, decode_update, frame, hex};

fn open(body: &str) -> Open {
    let bytes = frame(header::kind::OPEN, &hex(body));
    let Message::Open(open) = header::decode(&bytes, &EXTERNAL).unwrap() else {
        panic!("not an OPEN");
    };
    open
}

fn unknown(code: u8, value: &str) -> Capability {
    Capability::Unknown {
        code,
        value: hex(value),
    }
}

/// Reads an UPDATE, and writes its attributes again: they must come out as they came in.
fn attributes(body: &str, section: &str, context: &bgp_wire::Context) -> (Attributes, Vec<String>) {
    let bytes = frame(header::kind::UPDATE, &hex(body));
    let update = decode_update(&bytes, context).unwrap();
    assert_eq!(update.faults, []);
    let attributes = update.attributes.clone().unwrap();
    let mut written = Vec::new();
    attributes.encode(context, &mut written);
    assert_eq!(written, hex(section));
    (attributes, announced(&update))
}

/// `local as 4200000001; graceful restart; ipv4 {}; ipv6 {};`
#[test]
fn bird_open() {
    let open = open(
        "04 5ba0 00f0 c0000201 26 0224
         0104 0001 00 01 0104 0002 00 01 0200 400a 0078 00010100 00020100 4104 fa56ea01 4600 4700",
    );
    let families = vec![(Family::IPV4_UNICAST, false), (Family::IPV6_UNICAST, false)];
    let restart = GracefulRestart {
        restart_time: 120,
        families,
        ..GracefulRestart::default()
    };
    assert_eq!(
        open,
        Open {
            asn: 4_200_000_001,
            hold_time: 240,
            router_id: [192, 0, 2, 1].into(),
            capabilities: vec![
                Capability::Multiprotocol(Family::IPV4_UNICAST),
                Capability::Multiprotocol(Family::IPV6_UNICAST),
                Capability::RouteRefresh,
                Capability::GracefulRestart(restart),
                Capability::FourOctetAs(4_200_000_001),
                Capability::EnhancedRouteRefresh,
                unknown(71, ""),
            ],
        }
    );
    assert_eq!(
        open.families(),
        [Family::IPV4_UNICAST, Family::IPV6_UNICAST]
    );
}

/// `as = 64512` and two families. GoBGP says its host name, and IPv4 over IPv6 next hops.
#[test]
fn gobgp_open() {
    let open = open(
        "04 fc00 005a c0000201 24 0222
         0200 490402766d00 0104 00010001 0104 00020001 4104 0000fc00 0506 000100010002",
    );
    assert_eq!(open.asn, 64512);
    assert_eq!(open.capabilities[1], unknown(73, "02766d00"));
    let next_hops = vec![(Family::IPV4_UNICAST, 2)];
    assert_eq!(
        open.capabilities.last(),
        Some(&Capability::ExtendedNextHop(next_hops))
    );
}

/// `neighbor .. capability extended-nexthop`, `bgp graceful-restart`. FRR puts each capability into a parameter of its
/// own, and route refresh a second time under Cisco's code.
#[test]
fn frr_open() {
    let open = open(
        "04 fc00 00b4 c0000201 66
         0206 010400010001 0208 0506000100010002 0206 010400020001 0202 8000 0202 0200 0202 4600
         0206 41040000fc00 0202 0600 020a 45080001010100020101 0206 490402766d00
         020c 400ac078 0001010000020100 0210 470e0001018000000000020180000000",
    );
    assert_eq!(open.capabilities.len(), 12);
    let restart = open.graceful_restart().unwrap();
    assert!(restart.restarted && restart.notification);
    assert_eq!(restart.restart_time, 120);
    assert!(open.has(&Capability::RouteRefresh) && open.has(&unknown(128, "")));
}

/// Two static routes with communities of all three kinds, exported to a peer with four-octet numbers. BIRD does not pass
/// its MED on to an external peer.
#[test]
fn bird_update_with_communities() {
    let section = "40010100 40020602 01fa56ea01 400304c0000201 c00808fde80001ffffff01
                   c010080002fc0000000064 c0200cfa56ea010000000200000003";
    let body = format!("0000 0039 {section} 180a0100 180a0101");
    let (attributes, prefixes) = attributes(&body, section, &EXTERNAL);
    assert_eq!(prefixes, ["10.1.0.0/24", "10.1.1.0/24"]);
    let large = LargeCommunity {
        global: 4_200_000_001,
        local1: 2,
        local2: 3,
    };
    assert_eq!(
        attributes,
        Attributes {
            origin: Origin::Igp,
            as_path: AsPath::sequence([4_200_000_001]),
            next_hop: Some(NextHop::V4([192, 0, 2, 1].into())),
            communities: vec![Community::new(65000, 1), Community::NO_EXPORT],
            extended_communities: vec!["rt:64512:100".parse::<ExtendedCommunity>().unwrap()],
            large_communities: vec![large],
            ..Attributes::originated()
        }
    );
}

/// The same to a peer with two-octet numbers: AS_TRANS and AS4_PATH.
#[test]
fn bird_update_for_two_octets() {
    let section = "40010100 40020402015ba0 400304c0000201 c00808fde80001ffffff01
                   c010080002fc0000000064 c011060201fa56ea01 c0200cfa56ea010000000200000003";
    let body = format!("0000 0040 {section} 180a0100 180a0101");
    let (attributes, _) = attributes(&body, section, &OLD);
    assert_eq!(attributes.as_path, AsPath::sequence([4_200_000_001]));
}

/// Two four-octet numbers for two octets, one of them prepended by a filter; a prefix of nine bits.
#[test]
fn bird_prepended_for_two_octets() {
    let section = "40010100 400206 02025ba05ba0 400304c0000201 c0110a0202fa56ea01fa56ea07";
    let (attributes, prefixes) = attributes(&format!("0000 0021 {section} 090a80"), section, &OLD);
    assert_eq!(attributes.as_path.to_string(), "4200000001 4200000007");
    assert_eq!(prefixes, ["10.128.0.0/9"]);
}

/// IPv6 with a global and a link-local next hop; MP_REACH_NLRI first, and with an extended length that it does not need.
#[test]
fn bird_ipv6() {
    let bytes = frame(
        header::kind::UPDATE,
        &hex(
            "0000 003e 900e002d 000201 20 20010db8000000000000000000000001
              fe800000000000009890fefffe2a232c 00 00 3020010db80001 40010100 40020602 01fa56ea01",
        ),
    );
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    assert_eq!(update.faults, []);
    assert_eq!(announced(&update), ["::/0", "2001:db8:1::/48"]);
    let link_local = "fe80::9890:feff:fe2a:232c".parse().unwrap();
    let next_hop = NextHop::V6WithLinkLocal("2001:db8::1".parse().unwrap(), link_local);
    assert_eq!(update.reachable[0].0, next_hop);
    assert_eq!(update.attributes.unwrap().next_hop, Some(next_hop));
}

/// IPv4 prefixes with an IPv6 next hop (RFC 8950), on a session over IPv6.
#[test]
fn frr_ipv4_over_ipv6() {
    let bytes = frame(
        header::kind::UPDATE,
        &hex(
            "0000 0032 900e0019 000101 10 20010db8000000000000000000000001 00 110a0300
              40010100 50020006 02010000fc00 80040400000000",
        ),
    );
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    assert_eq!(announced(&update), ["10.3.0.0/17"]);
    let attributes = update.attributes.unwrap();
    assert_eq!(
        attributes.next_hop,
        Some(NextHop::V6("2001:db8::1".parse().unwrap()))
    );
    assert_eq!(attributes.med, Some(0));
}

/// End-of-RIB of both families, as BIRD and FRR send it.
#[test]
fn end_of_rib() {
    let ipv4 = frame(header::kind::UPDATE, &hex("0000 0000"));
    let ipv6 = frame(header::kind::UPDATE, &hex("0000 0006 800f03 000201"));
    for (bytes, family) in [(ipv4, Family::IPV4_UNICAST), (ipv6, Family::IPV6_UNICAST)] {
        assert_eq!(
            decode_update(&bytes, &EXTERNAL).unwrap().end_of_rib(),
            Some(family)
        );
        let mut written = Vec::new();
        bgp_wire::update::encode_end_of_rib(family, &mut written);
        assert_eq!(written, bytes);
    }
}

/// `birdc disable p "maintenance"`.
#[test]
fn bird_shutdown() {
    let bytes = frame(
        header::kind::NOTIFICATION,
        &hex("0602 0b 6d61696e74656e616e6365"),
    );
    let expected = Notification::shutdown("maintenance");
    assert_eq!(
        header::decode(&bytes, &EXTERNAL).unwrap(),
        Message::Notification(expected.clone())
    );
    let mut written = Vec::new();
    expected.encode(&mut written);
    assert_eq!(written, bytes);
}
