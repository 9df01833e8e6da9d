//! TCP-MD5 in the kernel: keys on listeners and connections, changed while sessions are up.

use std::net::Ipv6Addr;

use bgp::config::Password;

use super::*;

fn signed(asn: u32, local: u8, port: u16, password: &str) -> PeerConfig {
    PeerConfig {
        password: (!password.is_empty()).then(|| Password::new(password).unwrap()),
        hold_time: Duration::from_secs(30),
        ..peer(asn, local, port)
    }
}

fn one(port: u16, password: &str) -> SpeakerConfig {
    let peers = [
        (11, signed(65011, 10, port, password)),
        (12, peer(65012, 10, port)),
    ];
    speaker(10, 65010, &peers, &["10.10.0.0/24"])
}

fn two(port: u16, password: &str) -> SpeakerConfig {
    let peers = [(10, signed(65010, 11, port, password))];
    speaker(11, 65011, &peers, &["10.11.0.0/24"])
}

#[tokio::test]
async fn a_password_is_changed_under_a_session_and_touches_no_other() {
    let port = 17910;
    let (one_handle, _routes_one) =
        bgp_net::spawn(one(port, "first"), &listen(10, port), false).unwrap();
    let (two_handle, mut routes) =
        bgp_net::spawn(two(port, "first"), &listen(11, port), false).unwrap();
    let three = speaker(12, 65012, &[(10, peer(65010, 12, port))], &[]);
    let (three_handle, _routes_three) = bgp_net::spawn(three, &listen(12, port), false).unwrap();
    established(&one_handle, 11).await;
    established(&three_handle, 10).await;
    assert!(status(&one_handle, 11).await.password);

    one_handle.configure(one(port, "second"));
    two_handle.configure(two(port, "second"));
    // Signed with the new one, on the same connection.
    let mut config = one(port, "second");
    config.originated.insert(
        "10.10.1.0/24".parse().unwrap(),
        Attributes {
            next_hop: Some(next_hop(10)),
            ..Attributes::originated()
        },
    );
    one_handle.configure(config);
    let mut fib = BTreeMap::new();
    follow(&mut routes, &mut fib, |fib| fib.len() == 2).await;
    assert_eq!(status(&one_handle, 11).await.flaps, 0);
    assert_eq!(status(&three_handle, 10).await.flaps, 0);

    // The listening socket has the new one too: after a reset either side dials.
    assert!(one_handle.reset(address(11).into(), "").await.unwrap());
    until("up again", async || {
        let seen = status(&two_handle, 10).await;
        (seen.state == State::Established && seen.flaps == 1).then_some(())
    })
    .await;

    // And without, both sides.
    one_handle.configure(one(port, ""));
    two_handle.configure(two(port, ""));
    until("up without a password", async || {
        let seen = status(&two_handle, 10).await;
        (seen.state == State::Established && seen.flaps >= 2).then_some(())
    })
    .await;
    assert_eq!(status(&three_handle, 10).await.flaps, 0);
}

#[tokio::test]
async fn different_passwords_never_meet_and_the_kernel_says_so() {
    let port = 17911;
    let config = |host: u8, other: u8, password: &str| {
        let (own, asn) = (65000 + u32::from(host), 65000 + u32::from(other));
        speaker(
            host,
            own,
            &[(other, signed(asn, host, port, password))],
            &[],
        )
    };
    let (one, _routes_one) =
        bgp_net::spawn(config(13, 14, "this"), &listen(13, port), false).unwrap();
    let (two, _routes_two) =
        bgp_net::spawn(config(14, 13, "that"), &listen(14, port), false).unwrap();
    let drops = until("dropped segments", async || {
        let drops = one.md5_drops().await.unwrap().unwrap();
        (drops.wrong >= 2).then_some(drops)
    })
    .await;
    assert!(drops.to_string().contains("with another password"));
    assert!(status(&one, 14).await.state < State::OpenSent);
    // One of them with none: unsigned for the other.
    let before = one.md5_drops().await.unwrap().unwrap().unsigned;
    two.configure(config(14, 13, ""));
    until("unsigned segments", async || {
        let drops = one.md5_drops().await.unwrap().unwrap();
        (drops.unsigned > before).then_some(())
    })
    .await;
    assert!(status(&two, 13).await.state < State::OpenSent);
    // The operator mends it.
    two.configure(config(14, 13, "this"));
    established(&two, 13).await;
}

#[tokio::test]
async fn signed_over_ipv6() {
    let own = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let config = |host: u8, password: &str, their_port: u16| {
        let other = if host == 15 { 65016 } else { 65015 };
        let mut config = SpeakerConfig::new(65000 + u32::from(host), address(host));
        let peer = PeerConfig {
            local_address: Some(own),
            ..signed(other, host, their_port, password)
        };
        config.peers.insert(own, peer);
        config
    };
    let listen = |port| Listen {
        addresses: vec![SocketAddr::new(own, port)],
    };
    let (one, _routes_one) =
        bgp_net::spawn(config(15, "six", 17913), &listen(17912), false).unwrap();
    let (two, _routes_two) =
        bgp_net::spawn(config(16, "six", 17912), &listen(17913), false).unwrap();
    until("established", async || {
        let peers = [one.peers().await.unwrap(), two.peers().await.unwrap()];
        let up = |peers: &Vec<PeerStatus>| peers[0].state == State::Established;
        peers.iter().all(up).then_some(())
    })
    .await;
}
