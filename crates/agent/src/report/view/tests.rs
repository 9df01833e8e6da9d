use resources::node_status::{TunnelNextHop, TunnelStatus};

use super::*;

fn written() -> NodeStatusStatus {
    NodeStatusStatus {
        sessions: vec![SessionStatus {
            peer: "192.0.2.1".into(),
            state: "Established".into(),
            since: Some("2026-01-01T00:00:00Z".into()),
            ..SessionStatus::default()
        }],
        ..NodeStatusStatus::default()
    }
}

/// A time is counted back from the present at every look: that it wavers is not news.
#[test]
fn wavering_times_are_no_news() {
    let mut new = written();
    new.sessions[0].since = Some("2026-01-01T00:00:01Z".into());
    keep_times(&mut new, &written());
    assert_eq!(difference(&new, &written()), Difference::None);
    new.sessions[0].since = Some("2026-01-01T00:00:09Z".into());
    keep_times(&mut new, &written());
    assert_eq!(difference(&new, &written()), Difference::State);
}

#[test]
fn counts_have_patience_and_states_have_not() {
    let mut new = written();
    (new.pods, new.sessions[0].received) = (7, 9);
    assert_eq!(difference(&new, &written()), Difference::Counts);
    new.sessions[0].state = "Idle".into();
    assert_eq!(difference(&new, &written()), Difference::State);
    // A peer that is away is tried again and again.
    let mut later = new.clone();
    later.sessions[0].state = "Connect".into();
    assert_eq!(difference(&later, &new), Difference::Counts);
}

/// A node that joins is one more on all others; one that can't be reached by the tunnel is somebody's trouble.
#[test]
fn a_tunnel_that_fails_is_news_and_one_more_is_a_count() {
    let tunnels = |tunnelled: bool| {
        let hop = TunnelNextHop {
            tunnelled,
            ..TunnelNextHop::default()
        };
        Some(TunnelStatus {
            tunnelled: tunnelled.into(),
            failed: (!tunnelled).into(),
            next_hops: vec![hop],
        })
    };
    let mut new = written();
    new.tunnels = tunnels(true);
    assert_eq!(difference(&new, &written()), Difference::Counts);
    new.tunnels = tunnels(false);
    assert_eq!(difference(&new, &written()), Difference::State);
}
