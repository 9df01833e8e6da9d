//! Walks through all routes, a piece a turn.

use bgp_wire::Attributes;

use super::net::{Net, peer, prefix, secs, speaker};
use crate::policy::Policy;

#[test]
fn many_walks_are_not_done_in_one_turn() {
    const PEERS: usize = 8;
    let many = (0..500_u32).map(|n| {
        let net = std::net::Ipv4Addr::from(0x1400_0000 + (n << 8));
        (prefix(&format!("{net}/24")), Attributes::originated())
    });
    let spokes: Vec<_> = (1..=PEERS)
        .map(|node| (node, peer(65000 + u32::try_from(node).unwrap())))
        .collect();
    let hub = speaker(0, 65000, &spokes);
    let mut source = speaker(1, 65001, &[(0, peer(65000))]);
    source.originated = many.collect();
    let others = (2..=PEERS).map(|node| {
        let mut to_hub = peer(65000);
        to_hub.import = Policy::reject_all("nothing");
        speaker(node, 65000 + u32::try_from(node).unwrap(), &[(0, to_hub)])
    });
    let mut net = Net::new([hub, source].into_iter().chain(others));
    net.run_until(secs(60), |net| net.nodes[0].routes.len() == 500);
    net.run(secs(5));
    let mut config = net.config(0);
    for peer in config.peers.values_mut() {
        peer.import = Policy::reject_all("nothing any more");
    }
    let now = net.now;
    net.speaker(0).set_turn(100);
    net.speaker(0).set_config(config, now);
    let mut turns = 0;
    while net
        .speaker(0)
        .poll_timeout()
        .is_some_and(|(at, what)| at <= now && what == "walk through all routes")
    {
        net.speaker(0).handle_timeout(now);
        turns += 1;
        assert!(turns < 80);
    }
    // For all peers at once: a look at each prefix and path, and as much again and more for each that changes.
    assert!((10..80).contains(&turns), "{turns}");
    net.run_until(secs(1), |net| net.nodes[0].routes.is_empty());
    assert_eq!(net.flaps(0), 0);
}
