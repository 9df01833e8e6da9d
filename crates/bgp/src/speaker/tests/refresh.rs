//! Everything once more, with a beginning and an end (RFC 7313).

use bgp_wire::{Family, RouteRefresh, UpdateBuilder};

use super::net::{Net, originating, peer, prefix, secs, speaker};
use crate::session::State;

const FAMILY: Family = Family::IPV4_UNICAST;

fn pair() -> Net {
    let mut net = Net::new([
        originating(
            speaker(0, 65001, &[(1, peer(65002))]),
            &["10.1.0.0/24", "10.1.1.0/24"],
        ),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.run_until(secs(5), |net| net.nodes[1].routes.len() == 2);
    net.run(secs(1));
    net
}

fn mark(net: &mut Net, subtype: u8) {
    net.inject(0, 1, |out| {
        let family = FAMILY;
        RouteRefresh { family, subtype }.encode(out);
    });
}

fn learned(net: &Net) -> Vec<String> {
    net.nodes[1]
        .routes
        .keys()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_does_not_come_again_goes_at_the_end() {
    let mut net = pair();
    mark(&mut net, RouteRefresh::BEGIN);
    net.run(secs(10));
    assert_eq!(learned(&net).len(), 2, "stale, and in use");
    // What comes in between is fresh, whether it is new or not.
    let mut config = net.config(0);
    config
        .originated
        .insert(prefix("10.1.2.0/24"), bgp_wire::Attributes::originated());
    net.configure(0, config);
    net.run(secs(1));
    mark(&mut net, RouteRefresh::END);
    net.run(secs(1));
    assert_eq!(learned(&net), ["10.1.2.0/24"]);
    assert!(net.up(0, 1));
}

#[test]
fn an_end_that_never_comes_has_its_time() {
    let mut net = pair();
    mark(&mut net, RouteRefresh::BEGIN);
    net.run(secs(350));
    assert_eq!(learned(&net).len(), 2);
    net.run(secs(20));
    assert!(learned(&net).is_empty());
    assert!(net.up(0, 1) && net.flaps(1) == 0);
}

#[test]
fn an_end_without_a_beginning_and_unknown_subtypes_mean_nothing() {
    let mut net = pair();
    for subtype in [RouteRefresh::END, 3, 255] {
        mark(&mut net, subtype);
        net.run(secs(1));
        assert_eq!(learned(&net).len(), 2);
    }
    // Nor does a beginning of a family that is not spoken.
    net.inject(0, 1, |out| {
        let family = Family::IPV6_UNICAST;
        let subtype = RouteRefresh::BEGIN;
        RouteRefresh { family, subtype }.encode(out);
    });
    net.run(secs(1000));
    assert!(net.up(0, 1) && learned(&net).len() == 2);
}

#[test]
fn the_answer_to_a_request_has_both_marks() {
    let mut net = pair();
    // Nothing is lost by it, though all of it is stale for a while on the other side.
    net.inject(1, 0, |out| RouteRefresh::request(FAMILY).encode(out));
    let before = net.status(1, 0).counters;
    net.run(secs(10));
    let after = net.status(1, 0).counters;
    assert_eq!(after.updates_in - before.updates_in, 1);
    assert!(
        after.messages_in - before.messages_in >= 3,
        "BoRR, routes, EoRR"
    );
    assert_eq!((learned(&net).len(), net.nodes[1].withdrawn), (2, 0));
    // The end has been seen: the time for it does not sweep anything.
    net.run(secs(1000));
    assert_eq!((learned(&net).len(), net.nodes[1].withdrawn), (2, 0));
}

#[test]
fn a_session_lost_in_between_keeps_what_graceful_restart_keeps() {
    let mut net = pair();
    mark(&mut net, RouteRefresh::BEGIN);
    net.run(secs(1));
    net.kill(0);
    net.run(secs(30));
    assert_eq!((learned(&net).len(), net.nodes[1].withdrawn), (2, 0));
    net.boot(0, true);
    net.run_until(secs(40), |net| net.up(0, 1));
    net.run(secs(30));
    assert_eq!((learned(&net).len(), net.nodes[1].withdrawn), (2, 0));
}

#[test]
fn a_mark_of_the_wrong_length_ends_the_session() {
    let mut net = pair();
    net.inject(0, 1, |out| {
        let subtype = RouteRefresh::BEGIN;
        let start = out.len();
        RouteRefresh {
            family: FAMILY,
            subtype,
        }
        .encode(out);
        out.push(0);
        let len = u16::try_from(out.len() - start).unwrap();
        out[start + 16..start + 18].copy_from_slice(&len.to_be_bytes());
    });
    net.run_until(secs(1), |net| net.state(1, 0) != State::Established);
    let error = net.status(1, 0).last_error.unwrap().ended;
    let notification = error.notification.unwrap();
    assert_eq!((notification.code, notification.subcode), (7, 1));
    assert_eq!(notification.data.len(), 24, "the whole message");
}

#[test]
fn withdrawals_in_between_are_withdrawals() {
    let mut net = pair();
    mark(&mut net, RouteRefresh::BEGIN);
    net.inject(0, 1, |out| {
        let context = bgp_wire::Context::default();
        let mut builder = UpdateBuilder::withdraw(out, &context, FAMILY);
        builder.push(prefix("10.1.0.0/24")).unwrap();
        builder.finish();
    });
    net.run(secs(1));
    assert_eq!(learned(&net), ["10.1.1.0/24"]);
}
