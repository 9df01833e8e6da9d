//! Routes flow between speakers.

use std::net::Ipv4Addr;

use bgp_wire::Attributes;

use super::net::{Net, address, originating, peer, prefix, secs, speaker};
use crate::config::{Client, PeerConfig, Rules};
use crate::policy::Policy;

#[test]
fn routes_flow_and_follow_the_configuration() {
    let mut net = Net::new([
        originating(
            speaker(0, 65001, &[(1, peer(65002))]),
            &["10.1.0.0/24", "10.1.1.0/24"],
        ),
        originating(
            speaker(1, 65002, &[(0, peer(65001)), (2, peer(65003))]),
            &["10.2.0.0/24"],
        ),
        speaker(2, 65003, &[(1, peer(65002))]),
    ]);
    net.run_until(secs(5), |net| net.nodes[2].routes.len() == 3);
    let next_hops: Vec<_> = net.nodes[2]
        .routes
        .values()
        .map(|change| change.next_hops[0].address())
        .collect();
    assert_eq!(next_hops, [address(1); 3], "ours towards external peers");

    // One route goes, another comes; no session notices.
    let mut config = net.config(0);
    config.originated.remove(&prefix("10.1.0.0/24"));
    config
        .originated
        .insert(prefix("10.1.2.0/23"), Attributes::originated());
    net.configure(0, config.clone());
    let expected = ["10.1.1.0/24", "10.1.2.0/23", "10.2.0.0/24"].map(prefix);
    net.run_until(secs(1), |net| {
        net.nodes[2].routes.keys().copied().eq(expected)
    });

    // Policies act at once, and without a reset too.
    config.peers.get_mut(&address(1)).unwrap().export = Policy::reject_all("drain");
    net.configure(0, config.clone());
    net.run_until(secs(1), |net| net.nodes[2].routes.len() == 1);
    config.peers.get_mut(&address(1)).unwrap().export = Policy::accept_all();
    config.peers.get_mut(&address(1)).unwrap().import = Policy::reject_all("nothing");
    net.configure(0, config);
    net.run_until(secs(1), |net| {
        net.nodes[2].routes.len() == 3 && net.nodes[0].routes.is_empty()
    });
    let family = net.status(0, 1).families[0];
    assert_eq!(
        (family.received, family.accepted, family.advertised),
        (1, 0, 2)
    );
    assert!((0..3).all(|node| net.flaps(node) == 0));
}

#[test]
fn a_reflector_tells_its_clients_of_each_other() {
    let client = PeerConfig {
        rules: Rules {
            client: Some(Client {
                cluster_id: Ipv4Addr::new(9, 9, 9, 9),
                meshed: false,
            }),
            ..Rules::default()
        },
        ..peer(65001)
    };
    let mut net = Net::new([
        originating(speaker(0, 65001, &[(1, peer(65001))]), &["10.1.0.0/24"]),
        speaker(1, 65001, &[(0, client.clone()), (2, client.clone())]),
        originating(speaker(2, 65001, &[(1, peer(65001))]), &["10.2.0.0/24"]),
    ]);
    net.run_until(secs(5), |net| {
        net.nodes[0].routes.len() == 1 && net.nodes[2].routes.len() == 1
    });
    // Neither is a client any more: what one says is not for the other.
    let mut plain = speaker(1, 65001, &[(0, peer(65001)), (2, peer(65001))]);
    net.configure(1, plain.clone());
    net.run_until(secs(20), |net| {
        net.up(0, 1) && net.up(1, 2) && net.nodes[0].routes.is_empty()
    });
    // One client is enough for both to hear of each other.
    plain.peers.insert(address(2), client);
    net.configure(1, plain);
    net.run_until(secs(20), |net| {
        net.nodes[0].routes.len() == 1 && net.nodes[2].routes.len() == 1
    });
}

#[test]
fn routes_go_with_their_session_and_come_back() {
    let plain = |asn| PeerConfig {
        graceful_restart: None,
        ..peer(asn)
    };
    let mut net = Net::new([
        originating(speaker(0, 65001, &[(1, plain(65002))]), &["10.1.0.0/24"]),
        speaker(1, 65002, &[(0, plain(65001)), (2, plain(65003))]),
        speaker(2, 65003, &[(1, plain(65002))]),
    ]);
    net.piece = 13;
    net.run_until(secs(5), |net| net.nodes[2].routes.len() == 1);
    net.cut(0, 1);
    net.run_until(secs(1), |net| net.nodes[2].routes.is_empty());
    net.run_until(secs(10), |net| net.nodes[2].routes.len() == 1);
}

#[test]
fn a_full_mesh_of_internal_peers() {
    let nodes = 12;
    let mesh = |node: usize| {
        let peers: Vec<_> = (0..nodes)
            .filter(|other| *other != node)
            .map(|other| (other, peer(64512)))
            .collect();
        originating(
            speaker(node, 64512, &peers),
            &[&format!("10.1.{node}.0/24")],
        )
    };
    let mut net = Net::new((0..nodes).map(mesh));
    let after = net.run_until(secs(30), |net| {
        net.nodes.iter().all(|node| node.routes.len() == nodes - 1)
    });
    assert!(after < secs(10), "{after:?}");
    for (a, b) in (0..nodes).flat_map(|a| (0..a).map(move |b| (a, b))) {
        net.run_until(secs(10), |net| net.up(a, b));
        assert_eq!(net.connections(a, b), 1);
    }
    // One crashes and stays away: its route goes when its time is over, and no other.
    net.kill(3);
    net.run(secs(119));
    assert_eq!(net.nodes[0].routes.len(), nodes - 1);
    net.run(secs(3));
    assert_eq!(net.nodes[0].routes.len(), nodes - 2);
    assert!(!net.nodes[0].routes.contains_key(&prefix("10.1.3.0/24")));
}
