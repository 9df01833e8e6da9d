//! Peers from a range of addresses, one key for all of them.

use bgp::config::{AsnSet, DynamicPeers, Password};

use super::*;

#[tokio::test]
async fn whoever_has_the_ranges_password_is_a_peer() {
    let port = 17920;
    let password = |text: &str| Some(Password::new(text).unwrap());
    let range = IpNet::new(address(20).into(), 29).unwrap().trunc();
    let mut hub = speaker(17, 65017, &[], &["10.17.0.0/24"]);
    let template = PeerConfig {
        password: password("range"),
        ..peer(0, 17, port)
    };
    hub.dynamic.insert(
        range,
        DynamicPeers {
            asns: AsnSet::from_iter([65020..=65022]),
            limit: 10,
            template,
        },
    );
    let (hub, _routes) = bgp_net::spawn(hub, &listen(17, port), false).unwrap();
    let spoke = |host: u8, text: &str| {
        let config = PeerConfig {
            password: password(text),
            ..peer(65017, host, port)
        };
        let asn = 65000 + u32::from(host);
        let config = speaker(host, asn, &[(17, config)], &[]);
        bgp_net::spawn(config, &Listen::default(), false).unwrap()
    };
    let (one, _routes_one) = spoke(20, "range");
    let (two, _routes_two) = spoke(21, "range");
    let (wrong, _routes_wrong) = spoke(22, "strange");
    established(&one, 17).await;
    established(&two, 17).await;
    let peers = hub.peers().await.unwrap();
    let seen: Vec<_> = peers.iter().map(|peer| (peer.asn, peer.dynamic)).collect();
    assert_eq!(seen, [(65020, Some(range)), (65021, Some(range))]);
    assert!(status(&wrong, 17).await.state < State::OpenSent);

    // Gone for good: nothing is left of it.
    one.shutdown("moving out").await.unwrap();
    until("gone", async || {
        (hub.peers().await.unwrap().len() == 1).then_some(())
    })
    .await;
}
