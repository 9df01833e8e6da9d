//! A peer that lives, sends, and reads nothing.

use std::time::Duration;

use bgp::session::Ended;
use bgp_wire::Community;

use super::*;

/// More than the kernel's buffers at both ends take.
const ROUTES: u32 = 20_000;
/// What the peer proposes, in seconds.
const HOLD_TIME: u16 = 3;

/// Tells `peer`, of this AS and with this last octet, so much that it can't stay in the kernel's buffers; the peer sends
/// KEEPALIVEs and reads nothing. How the session ends.
async fn unread(local: u8, peer: PeerConfig, remote: u8) -> Ended {
    let (port, asn) = (peer.port, peer.asn);
    let mut config = speaker(local, 65041, &[(remote, peer)], &[]);
    for number in 0..ROUTES {
        let network = Ipv4Addr::from(0x0b00_0000 + (number << 8));
        let prefix = IpNet::new(network.into(), 24).unwrap();
        // One message each: no two have the same attributes.
        let attributes = Attributes {
            med: Some(number),
            communities: (0..50).map(|low| Community::new(65041, low)).collect(),
            ..Attributes::originated()
        };
        config.originated.insert(prefix, attributes);
    }
    let (handle, _routes) = bgp_net::spawn(config, &listen(local, port), false).unwrap();
    let speaks = std::thread::spawn(move || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket
            .bind(&SocketAddr::new(address(remote).into(), 0).into())
            .unwrap();
        socket
            .connect(&SocketAddr::new(address(local).into(), port).into())
            .unwrap();
        let mut raw = Raw::new(socket.into());
        raw.open_with(asn, remote, HOLD_TIME);
        // As long as somebody takes them.
        let mut keepalive = Vec::new();
        header::encode_keepalive(&mut keepalive);
        while raw.stream.write_all(&keepalive).is_ok() {
            std::thread::park_timeout(Duration::from_millis(500));
        }
    });
    let error = until("the session's end", async || {
        let status = status(&handle, remote).await;
        (status.flaps > 0).then_some(status.last_error?.ended)
    })
    .await;
    tokio::task::spawn_blocking(|| speaks.join().unwrap())
        .await
        .unwrap();
    error
}

fn passive(asn: u32, local: u8, port: u16) -> PeerConfig {
    PeerConfig {
        passive: true,
        send_hold: Duration::from_secs(4),
        ..peer(asn, local, port)
    }
}

/// What waits for room longer than RFC 9687's timer ends the session.
#[tokio::test]
async fn a_peer_that_reads_nothing_is_given_up() {
    // TCP's patience follows from the hold time that we propose, the session's from the one agreed on.
    let peer = PeerConfig {
        hold_time: Duration::from_secs(30),
        ..passive(65042, 41, 17941)
    };
    let error = unread(41, peer, 42).await;
    let notification = error.notification.as_ref().map(|it| (it.code, it.subcode));
    let actual = (error.direction, notification);
    assert_eq!(actual, (Direction::Sent, Some((8, 0))), "{error}");
}
