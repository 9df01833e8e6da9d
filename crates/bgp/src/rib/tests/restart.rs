//! Generations, and graceful restart as the helper (RFC 4724 §4.2).

use bgp_wire::Family;

use super::{Bed, external, internal, via};
use crate::rib::{DownKind, PeerIndex, PeerSession, Selection};

fn retaining() -> PeerSession {
    let session = external(1, 65001);
    PeerSession {
        retained: session.families.clone(),
        ..session
    }
}

/// Peer 1 announced two prefixes and is gone for a restart; peer 2 looks on.
fn restarting() -> Bed {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24", "10.0.1.0/24"]);
    bed.drain_all();
    bed.down(1, DownKind::KeepStale);
    bed
}

fn stale(bed: &Bed) -> Vec<bool> {
    bed.rib
        .routes(&Selection::All)
        .iter()
        .map(|route| route.paths[0].stale)
        .collect()
}

#[test]
fn stale_routes_stay_until_the_end_of_rib() {
    let mut bed = restarting();
    assert_eq!(bed.told(2).len(), 2);
    assert_eq!(stale(&bed), [true, true]);
    bed.up(1, retaining());
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    assert_eq!(stale(&bed), [false, true]);
    let before = bed.listeners[&2].updates;
    assert_eq!(bed.told(2).len(), 2);
    assert_eq!(
        bed.listeners[&2].updates, before,
        "the same again is no news"
    );
    bed.rib
        .end_of_rib(PeerIndex(1), bed.generation(1), Family::IPV4_UNICAST);
    assert_eq!(bed.told(2), ["10.0.0.0/24"]);
    assert_eq!(stale(&bed), [false]);
}

#[test]
fn they_go_when_their_time_is_over() {
    let mut bed = restarting();
    bed.rib.stale_expired(PeerIndex(1), bed.generation(1));
    assert!(bed.told(2).is_empty());
    assert_eq!(bed.rib.memory().paths, 0);
}

#[test]
fn one_family_may_go_before_the_other() {
    let mut bed = restarting();
    bed.rib
        .forget_stale(PeerIndex(1), bed.generation(1), Family::IPV6_UNICAST);
    assert_eq!(bed.told(2).len(), 2);
    bed.rib
        .forget_stale(PeerIndex(1), bed.generation(1), Family::IPV4_UNICAST);
    assert!(bed.told(2).is_empty());
}

#[test]
fn a_peer_that_forwarded_nothing_starts_empty() {
    let mut bed = restarting();
    bed.up(1, external(1, 65001));
    assert!(bed.told(2).is_empty());
}

#[test]
fn a_second_restart_drops_what_is_still_stale() {
    let mut bed = restarting();
    bed.up(1, retaining());
    bed.announce(1, &via(1, &[65001]), &["10.0.1.0/24"]);
    bed.down(1, DownKind::KeepStale);
    assert_eq!(bed.told(2), ["10.0.1.0/24"]);
    assert_eq!(stale(&bed), [true]);
}

#[test]
fn a_new_policy_does_not_make_stale_routes_fresh() {
    let mut bed = restarting();
    bed.up(1, retaining());
    let import = crate::policy::Policy::reject_all("closed");
    bed.rib
        .set_policies(PeerIndex(1), import, crate::policy::Policy::accept_all());
    bed.settle();
    assert_eq!(stale(&bed), [true, true]);
    bed.rib
        .end_of_rib(PeerIndex(1), bed.generation(1), Family::IPV4_UNICAST);
    bed.settle();
    assert_eq!(bed.rib.memory().paths, 0);
}

/// Peer 1 is told of another's path to its own prefix, then that its own is the best. While it restarts, peer 2 has
/// what is said in the meantime made anew and kept for others.
#[test]
fn what_is_kept_for_late_joiners_holds_for_one_that_restarted() {
    let mut bed = Bed::new();
    bed.up(3, internal(3));
    bed.announce(3, &via(3, &[65001]), &["10.0.0.0/24"]);
    bed.up(2, external(2, 65002));
    bed.up(4, external(4, 65004));
    bed.up(1, external(1, 65001));
    bed.drain_all();
    assert_eq!(bed.told(1), ["10.0.0.0/24"]);
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.drain_all();
    assert!(bed.told(1).is_empty());

    bed.down(1, DownKind::KeepStale);
    bed.down(2, DownKind::Drop);
    bed.up(2, external(2, 65002));
    bed.drain_all();
    bed.up(1, retaining());
    assert!(bed.told(1).is_empty(), "its own route");
}

/// The same, and peer 1 comes back under other rules.
#[test]
fn what_is_kept_for_late_joiners_holds_for_one_that_changed_sides() {
    let mut bed = Bed::new();
    let before = PeerSession {
        export: crate::policy::Policy::reject_all("nothing"),
        ..external(1, 65001)
    };
    bed.up(1, before);
    bed.up(3, internal(3));
    bed.announce(3, &via(3, &[65001]), &["10.0.0.0/24"]);
    bed.up(2, external(2, 65002));
    bed.up(4, external(4, 65004));
    bed.drain_all();
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.drain_all();
    bed.down(2, DownKind::Drop);
    bed.up(2, external(2, 65002));
    bed.drain_all();

    bed.down(1, DownKind::KeepStale);
    bed.up(1, retaining());
    assert!(bed.told(1).is_empty(), "its own route");
}

#[test]
fn a_dead_session_can_not_touch_its_successor() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    let dead = bed.generation(1);
    bed.down(1, DownKind::Drop);
    bed.up(1, external(1, 65001));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.rib.peer_down(PeerIndex(1), dead, DownKind::Drop);
    bed.rib.stale_expired(PeerIndex(1), dead);
    bed.rib.end_of_rib(PeerIndex(1), dead, Family::IPV4_UNICAST);
    assert_eq!(bed.rib.memory().paths, 1);
}
