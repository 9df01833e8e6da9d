//! The operator's orders to one peer.

use super::*;

#[tokio::test]
async fn reset_shut_down_and_refresh_one_peer() {
    let port = 17930;
    let config = |host: u8, other: u8| {
        let asn = 65000 + u32::from(other);
        let own = format!("10.{host}.0.0/24");
        let peers = [(other, peer(asn, host, port))];
        speaker(host, 65000 + u32::from(host), &peers, &[&own])
    };
    let (one, _routes_one) = bgp_net::spawn(config(30, 31), &listen(30, port), false).unwrap();
    let (two, mut routes) = bgp_net::spawn(config(31, 30), &listen(31, port), false).unwrap();
    let mut fib = BTreeMap::new();
    follow(&mut routes, &mut fib, |fib| fib.len() == 1).await;

    let peer: IpAddr = address(31).into();
    let before = status(&one, 31).await.counters.updates_in;
    assert_eq!(one.refresh(peer).await.unwrap(), Some(true));
    until("everything again", async || {
        (status(&one, 31).await.counters.updates_in > before).then_some(())
    })
    .await;
    assert_eq!(status(&one, 31).await.flaps, 0);

    assert!(one.shut_down_peer(peer, "back at noon").await.unwrap());
    follow(&mut routes, &mut fib, BTreeMap::is_empty).await;
    let ended = status(&two, 30).await.last_error.unwrap().ended.to_string();
    assert!(ended.contains("back at noon"), "{ended}");
    assert_eq!(one.refresh(peer).await.unwrap(), None);
    let halt = status(&one, 31).await.halt.unwrap().to_string();
    assert_eq!(halt, "shut down by the operator: back at noon");

    assert!(one.reset(peer, "noon").await.unwrap());
    follow(&mut routes, &mut fib, |fib| fib.len() == 1).await;
    assert!(!one.reset(address(99).into(), "").await.unwrap());
}
