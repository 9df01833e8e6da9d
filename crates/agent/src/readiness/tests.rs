use serde_json::json;

use super::*;

const LIMIT: Duration = Duration::from_secs(120);

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn peer(address: &str, origin: &str, state: SessionState) -> api::Peer {
    let peer = json!({
        "address": address, "port": 179, "asn": 64513, "localAsn": 64512, "kind": "external", "origin": origin,
        "passive": false, "state": state, "stateSeconds": 1, "localRouterId": "192.0.2.9",
        "timers": {"configuredHoldSeconds": 90}, "families": [], "flaps": 0,
        "prefixes": {"received": 0, "accepted": 0, "advertised": 0},
    });
    serde_json::from_value(peer).unwrap()
}

fn refused(mut peer: api::Peer, direction: Direction, message: &str) -> api::Peer {
    peer.last_error = Some(api::SessionError {
        message: message.to_owned(),
        direction,
        code: None,
        time: None,
        seconds_ago: 1,
    });
    peer
}

fn told(address: &str) -> api::Peer {
    let peer = peer(address, "mesh/b1", SessionState::Established);
    api::Peer {
        synced: true,
        ..peer
    }
}

/// As the peers make it, with all that is known in the kernel.
fn status(peers: &[api::Peer], synced: bool) -> api::Status {
    let status = json!({
        "node": "a1", "version": "1", "started": "2026-01-01T00:00:00Z", "uptimeSeconds": 1,
        "config": {"source": "", "files": [], "problems": []},
        "bgp": {
            "asn": 64512, "routerId": "192.0.2.9", "listenPort": 179, "peers": peers.len(),
            "established": peers.iter().filter(|peer| is_up(peer)).count(),
            "synced": synced, "prefixes": 0, "paths": 0, "originated": 1,
        },
        "podCidrs": ["10.0.0.0/24"], "endpoints": 0,
        "kernel": {
            "synced": true, "desired": 0, "ok": 0, "missing": 0, "wrong": 0, "leftover": 0, "unresolved": 0,
        },
    });
    serde_json::from_value(status).unwrap()
}

fn waiting(peers: &[api::Peer]) -> String {
    let look = Gate::new(LIMIT).look(&status(peers, false), peers, false, start());
    let Readiness::Waiting(reason) = look else {
        panic!("{look:?}");
    };
    reason
}

#[test]
fn whose_routes_are_missing_is_said_and_why() {
    use SessionState::{Active, Connect, Established, OpenSent};
    let reset = "Cease/Connection Rejected";
    let peers = [
        told("192.0.2.1"),
        peer("192.0.2.2", "mesh/b2", Established),
        refused(
            peer("192.0.2.3", "BGPPeer/tor-a", Active),
            Direction::Received,
            reset,
        ),
        refused(
            peer("192.0.2.4", "BGPPeer/tor-b", Connect),
            Direction::Connection,
            "Connection refused",
        ),
    ];
    assert_eq!(
        waiting(&peers),
        "the routes of 3 of 4 peers are missing: \
         192.0.2.3 (BGPPeer/tor-a) is Active, received Cease/Connection Rejected; \
         192.0.2.4 (BGPPeer/tor-b) is Connect, Connection refused; \
         192.0.2.2 (mesh/b2) is Established, but has not sent End-of-RIB"
    );
    let many: Vec<_> = (1..=5)
        .map(|host| peer(&format!("192.0.2.{host}"), "mesh/x", OpenSent))
        .collect();
    assert_eq!(
        waiting(&many),
        "no session is up: 192.0.2.1 (mesh/x) is OpenSent; 192.0.2.2 (mesh/x) is OpenSent; \
         192.0.2.3 (mesh/x) is OpenSent; and 2 more"
    );
    assert!(waiting(&peers[..1]).contains("an object has an error"));
}

#[test]
fn the_wait_has_an_end_and_counts_once() {
    let gate = Gate::new(LIMIT);
    let begin = start();
    let none = [peer("192.0.2.1", "mesh/b1", SessionState::Active)];
    let some = [told("192.0.2.2"), none[0].clone()];
    let look =
        |peers: &[api::Peer], synced, now| gate.look(&status(peers, synced), peers, false, now);
    assert!(matches!(look(&some, false, begin), Readiness::Waiting(_)));
    let before = begin + LIMIT - Duration::from_secs(1);
    assert!(matches!(look(&some, false, before), Readiness::Waiting(_)));
    let over = |alone| move |it: Readiness| matches!(it, Readiness::TimedOut { alone: one, .. } if one == alone);
    assert!(over(false)(look(&some, false, begin + LIMIT)));
    // However long a peer was waited for: without any session there are no routes.
    assert!(over(true)(look(&none, true, begin + LIMIT)));
    assert_eq!(look(&some, true, begin + LIMIT), Readiness::Served);
    assert_eq!(look(&none, false, begin + LIMIT), Readiness::Served);
}

#[test]
fn a_node_by_itself_serves() {
    let look = Gate::new(LIMIT).look(&status(&[], true), &[], false, start());
    assert_eq!(look, Readiness::Served);
}

#[test]
fn what_the_kernel_lacks_is_said() {
    let peers = [told("192.0.2.1")];
    let mut status = status(&peers, true);
    (status.kernel.synced, status.kernel.desired) = (false, 7);
    let look = Gate::new(LIMIT).look(&status, &peers, false, start());
    let expected = "7 routes wait for the kernel".to_owned();
    assert_eq!(look, Readiness::Waiting(expected));
}
