//! Graceful restart, both roles.
//!
//! Whether a route was gone for a moment is told by a third speaker: it peers with theirs, and hears every UPDATE.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bgp::config::{PeerConfig, SpeakerConfig};
use bgp::session::Direction;
use bgp_wire::Attributes;
use ipnet::IpNet;
use lab::peer::{Announcement, Config, Kind, Restart};
use lab::process::Process;
use lab::{net, wait};
use tests::same;

use crate::bench::{Bench, LIMIT, OURS, originate, ours_with, their_end};
use crate::third::{Third, WITNESS_ASN, witness};

pub(crate) const OUR_ROUTE: &str = "10.244.1.0/24";
const OUR_OTHER_ROUTE: &str = "10.244.2.0/24";
pub(crate) const THEIR_ROUTE: &str = "10.245.1.0/24";

/// Long enough for whatever a case does meanwhile.
pub(crate) const RESTART_TIME: u16 = 60;

/// Their configuration with graceful restart.
fn helping(bench: &Bench, restart_time: u16) -> Result<Config> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].restart = Restart::On(restart_time);
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    Ok(theirs)
}

/// Ours with graceful restart and its routes.
pub(crate) fn restarting(
    routes: &[&str],
    change: impl FnOnce(&mut PeerConfig),
) -> Result<SpeakerConfig> {
    let mut config = ours_with(|peer| {
        peer.graceful_restart = Some(Duration::from_secs(RESTART_TIME.into()));
        change(peer);
    });
    for route in routes {
        originate(&mut config, route, Attributes::originated())?;
    }
    Ok(config)
}

/// A session with a route each way, seen by the third speaker.
pub(crate) fn begin(bench: &mut Bench, routes: &[&str], restart_time: u16) -> Result<Third> {
    begin_with(bench, routes, restart_time, |_| ())
}

fn begin_with(
    bench: &mut Bench,
    routes: &[&str],
    restart_time: u16,
    change: impl FnOnce(&mut PeerConfig),
) -> Result<Third> {
    let theirs = helping(bench, restart_time)?;
    let mut witness = Third::behind_them(bench, theirs, witness(WITNESS_ASN))?;
    bench.speak(restarting(routes, change)?, false)?;
    bench.wait_up()?;
    for route in routes {
        bench.they_learn(route, |_| Ok(()))?;
    }
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))?;
    wait::until("both in sync", LIMIT, || {
        ensure!(bench.status()?.synced, "no End-of-RIB yet");
        Ok(())
    })?;
    wait::until("the witness to hear", LIMIT, || {
        ensure!(witness.heard()?.0 > 0, "nothing yet");
        Ok(())
    })?;
    Ok(witness)
}

/// They know that we are away, and keep our route.
pub(crate) fn kept(bench: &mut Bench) -> Result<()> {
    bench.they_learn(OUR_ROUTE, |route| same("stale", &route.stale, &true))
}

/// They have our route from the new session.
pub(crate) fn fresh(bench: &mut Bench) -> Result<()> {
    bench.they_learn(OUR_ROUTE, |route| same("stale", &route.stale, &false))
}

/// What their tool says of our last OPEN and of NOTIFICATIONs from us.
fn they_saw_a_restart(bench: &mut Bench) -> Result<()> {
    let text = bench.session()?.text;
    let log = bench.peer()?.log()?;
    let (restarted, notified) = match bench.kind {
        Kind::Bird => (
            text.contains("Restart recovery"),
            log.contains("Received: "),
        ),
        Kind::Frr => (
            text.contains("\"rBit\": true"),
            !text.contains("\"notificationsRecv\": 0"),
        ),
        Kind::Gobgp => (true, log.contains("received notification")),
        Kind::Openbgpd => (
            text.contains("restarted"),
            log.contains("received notification"),
        ),
        Kind::Exabgp => bail!("it has no graceful restart to test"),
    };
    ensure!(restarted, "our OPEN had no R: {text}");
    ensure!(!notified, "they heard a NOTIFICATION: {text}");
    Ok(())
}

pub(crate) fn we_restart(bench: &mut Bench) -> Result<()> {
    let mut witness = begin(bench, &[OUR_ROUTE], RESTART_TIME)?;
    bench.abandon()?;
    kept(bench)?;
    bench.speak(restarting(&[OUR_ROUTE], |_| ())?, true)?;
    bench.wait_up()?;
    fresh(bench)?;
    they_saw_a_restart(bench)?;
    wait::until("our own sync", LIMIT, || {
        ensure!(bench.told(|told| told.synced)?, "not yet");
        Ok(())
    })?;
    same("withdrawn meanwhile", &witness.heard()?.1, &0)
}

/// The second restart comes before End-of-RIB: what we had at first and haven't any more must go in the end.
pub(crate) fn we_restart_twice(bench: &mut Bench) -> Result<()> {
    let _witness = begin(bench, &[OUR_ROUTE, OUR_OTHER_ROUTE], RESTART_TIME)?;
    bench.abandon()?;
    kept(bench)?;
    // One that is not there, and so holds up the choice of routes.
    let mut waiting = restarting(&[OUR_ROUTE], |_| ())?;
    let mut absent = their_end(65005);
    absent.graceful_restart = Some(Duration::from_secs(RESTART_TIME.into()));
    waiting.peers.insert("10.9.0.99".parse()?, absent);
    bench.speak(waiting, true)?;
    bench.wait_up()?;
    ensure!(!bench.told(|told| told.synced)?, "End-of-RIB has been sent");
    bench.abandon()?;
    bench.speak(restarting(&[OUR_ROUTE], |_| ())?, true)?;
    bench.wait_up()?;
    fresh(bench)?;
    bench.they_lose(OUR_OTHER_ROUTE)
}

pub(crate) fn they_dial_in(bench: &mut Bench) -> Result<()> {
    let mut witness = begin(bench, &[OUR_ROUTE], RESTART_TIME)?;
    bench.abandon()?;
    kept(bench)?;
    bench.speak(restarting(&[OUR_ROUTE], |peer| peer.passive = true)?, true)?;
    bench.wait_up()?;
    let connection = bench.status()?.connection.context("a connection")?;
    same("our port", &connection.local.port(), &179)?;
    fresh(bench)?;
    same("withdrawn meanwhile", &witness.heard()?.1, &0)
}

/// Whether our table marks their route, and whether we told its user to drop it.
fn stale(bench: &Bench) -> Result<bool> {
    let prefix: IpNet = THEIR_ROUTE.parse()?;
    let routes = bench.routes()?;
    let route = routes.iter().find(|route| route.prefix == prefix);
    let path = route.and_then(|route| route.paths.first());
    let dropped = bench.told(|told| {
        let mut changes = told.changes.iter();
        changes.any(|change| change.prefix == prefix && change.next_hops.is_empty())
    })?;
    ensure!(!dropped, "we have told to drop the route");
    Ok(path.context("the route is gone")?.stale)
}

fn wait_stale(bench: &Bench, wanted: bool) -> Result<()> {
    wait::until("the mark", LIMIT, || same("stale", &stale(bench)?, &wanted))
}

/// Starts their speaker again. GoBGP has to be told its routes anew, and must not get to End-of-RIB before: nobody reaches it
/// until it knows them.
pub(crate) fn restart_peer(bench: &mut Bench) -> Result<()> {
    if bench.kind != Kind::Gobgp {
        return bench.peer()?.restart();
    }
    net::set_down(&bench.them, "cable")?;
    bench.peer()?.restart()?;
    net::set_up(&bench.them, "cable")
}

pub(crate) fn they_restart(bench: &mut Bench) -> Result<()> {
    let _witness = begin(bench, &[OUR_ROUTE], RESTART_TIME)?;
    for _ in 0..2 {
        bench.peer()?.kill()?;
        bench.wait_down()?;
        wait_stale(bench, true)?;
        restart_peer(bench)?;
        bench.wait_up()?;
        wait_stale(bench, false)?;
        bench.they_learn(OUR_ROUTE, |_| Ok(()))?;
    }
    Ok(())
}

pub(crate) fn they_stay_away(bench: &mut Bench) -> Result<()> {
    const SHORT: u16 = 3;
    let _witness = begin(bench, &[OUR_ROUTE], SHORT)?;
    bench.peer()?.kill()?;
    bench.wait_down()?;
    let gone = wait::now();
    wait_stale(bench, true)?;
    bench.we_lose(THEIR_ROUTE)?;
    let kept = gone.elapsed();
    let limit = Duration::from_secs(SHORT.into());
    ensure!(
        kept + Duration::from_millis(500) >= limit && kept < limit + Duration::from_secs(2),
        "kept for {kept:?}, their restart time is {limit:?}"
    );
    Ok(())
}

pub(crate) fn both_restart(bench: &mut Bench) -> Result<()> {
    let _witness = begin(bench, &[OUR_ROUTE], RESTART_TIME)?;
    bench.abandon()?;
    bench.peer()?.kill()?;
    bench.speak(restarting(&[OUR_ROUTE], |_| ())?, true)?;
    restart_peer(bench)?;
    bench.wait_up()?;
    fresh(bench)?;
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))?;
    wait_stale(bench, false)?;
    wait::until("our own sync", LIMIT, || {
        ensure!(bench.told(|told| told.synced)?, "not yet");
        Ok(())
    })
}

/// The session is over, by this NOTIFICATION, and their route is still in use.
fn ended_by(bench: &Bench, flaps: u32, expected: (Direction, u8, u8)) -> Result<()> {
    wait::until("the session's end", LIMIT, || {
        same("flaps", &bench.status()?.flaps, &flaps)
    })?;
    let error = bench.status()?.last_error.context("a reason")?.ended;
    let notification = error.notification.context("a NOTIFICATION")?;
    let actual = (error.direction, notification.code, notification.subcode);
    same("NOTIFICATION", &actual, &expected)?;
    stale(bench).map(drop)
}

pub(crate) fn notification_keeps(bench: &mut Bench) -> Result<()> {
    let mut witness = begin_with(bench, &[OUR_ROUTE], RESTART_TIME, |peer| {
        peer.hold_time = Duration::from_secs(3);
    })?;
    // Hold Timer Expired: they live, and know nothing of it until they move again.
    let freeze = |process: &mut Process| process.freeze();
    bench.peer()?.processes().into_iter().try_for_each(freeze)?;
    ended_by(bench, 1, (Direction::Sent, 4, 0))?;
    let thaw = |process: &mut Process| process.thaw();
    bench.peer()?.processes().into_iter().try_for_each(thaw)?;
    bench.wait_up()?;
    fresh(bench)?;
    wait_stale(bench, false)?;
    same("withdrawn meanwhile", &witness.heard()?.1, &0)?;
    // A reset of theirs. What they do to their own table by that is their operator's wish.
    bench.peer()?.reset(OURS)?;
    ended_by(bench, 2, (Direction::Received, 6, 4))?;
    bench.wait_up()?;
    fresh(bench)?;
    wait_stale(bench, false)
}
