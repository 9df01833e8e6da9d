//! However much the RIB has to do, KEEPALIVEs are sent and read.

use super::*;

/// More work than a hold time is long, for a build that is not optimised.
const PREFIXES: u32 = 200_000;
const PEERS: u8 = 5;
/// Peers that have all prefixes.
const SOURCES: [u8; 2] = [51, 52];

fn all_prefixes(host: u8) -> BTreeMap<IpNet, Attributes> {
    let attributes = Attributes {
        next_hop: Some(next_hop(host)),
        ..Attributes::originated()
    };
    let prefix = |n: u32| {
        let net = Ipv4Addr::from(0x1400_0000 + (n << 8));
        (IpNet::new(net.into(), 24).unwrap(), attributes.clone())
    };
    (0..PREFIXES).map(prefix).collect()
}

#[tokio::test]
async fn walks_through_all_routes_end_no_session() {
    let port = 17940;
    let hold = |asn: u32, local: u8| PeerConfig {
        hold_time: Duration::from_secs(3),
        // Who goes is not waited for.
        graceful_restart: None,
        ..peer(asn, local, port)
    };
    let hosts = 51..51 + PEERS;
    let hub = |policy: &Policy| {
        let peers: Vec<_> = hosts
            .clone()
            .map(|host| {
                let import = policy.clone();
                let asn = 65000 + u32::from(host);
                (
                    host,
                    PeerConfig {
                        import,
                        ..hold(asn, 50)
                    },
                )
            })
            .collect();
        speaker(50, 65050, &peers, &[])
    };
    let (handle, mut routes) =
        bgp_net::spawn(hub(&Policy::accept_all()), &listen(50, port), false).unwrap();
    let mut spokes = Vec::new();
    for host in hosts.clone() {
        let asn = 65000 + u32::from(host);
        let to_hub = PeerConfig {
            import: Policy::reject_all("nothing"),
            ..hold(65050, host)
        };
        let mut config = speaker(host, asn, &[(50, to_hub)], &[]);
        if SOURCES.contains(&host) {
            config.originated = all_prefixes(host);
        }
        spokes.push(bgp_net::spawn(config, &Listen::default(), false).unwrap().0);
    }
    let mut fib = BTreeMap::new();
    follow(&mut routes, &mut fib, |fib| fib.len() == PREFIXES as usize).await;
    // The table is walked for every peer, and again before that is over.
    for round in 0..2 {
        let policy = Policy::reject_all(format!("round {round}"));
        handle.configure(hub(&policy));
        tokio::time::timeout(PATIENCE, handle.peers())
            .await
            .unwrap()
            .unwrap();
    }
    follow(&mut routes, &mut fib, BTreeMap::is_empty).await;
    handle.configure(hub(&Policy::accept_all()));
    follow(&mut routes, &mut fib, |fib| fib.len() == PREFIXES as usize).await;
    // The one whose routes are the best goes, and the other in the midst of that.
    for (source, spoke) in SOURCES.into_iter().zip(&spokes) {
        let (ours, theirs) = (status(&handle, source).await, status(spoke, 50).await);
        let why = (&ours.last_error, &theirs.last_error);
        assert_eq!((ours.flaps, theirs.flaps), (0, 0), "{source}: {why:?}");
        spoke.abandon().await.unwrap();
        until("gone", async || {
            (status(&handle, source).await.state != State::Established).then_some(())
        })
        .await;
    }
    follow(&mut routes, &mut fib, BTreeMap::is_empty).await;
    for (host, spoke) in hosts.zip(&spokes).skip(SOURCES.len()) {
        let (ours, theirs) = (status(&handle, host).await, status(spoke, 50).await);
        assert_eq!(
            (ours.flaps, theirs.flaps),
            (0, 0),
            "{host}: {:?} {:?}",
            ours.last_error,
            theirs.last_error
        );
        assert_eq!(ours.state, State::Established);
    }
}
