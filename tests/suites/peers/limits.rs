//! Prefix limits: a word, a pause, or the end for good; ours and theirs.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bgp::config::{LimitAction, PrefixLimit, SpeakerConfig};
use bgp::session::{Direction, Halt, State};
use bgp_wire::{Attributes, Family as WireFamily};
use lab::peer::{Announcement, Config, Excess, Kind, MaxPrefix};
use lab::wait;
use tests::same;

use crate::bench::{Bench, LIMIT, originate, ours, ours_with};

/// So many prefixes are fine.
const MOST: u32 = 2;
/// How long our pause is.
const PAUSE: Duration = Duration::from_secs(3);
/// Longer than their pause, which is no shorter than a minute with most of them.
const THEIR_PAUSE: Duration = Duration::from_secs(90);

fn their_route(number: u32) -> String {
    format!("10.245.{number}.0/24")
}

fn limited(action: LimitAction) -> SpeakerConfig {
    ours_with(|peer| {
        peer.prefix_limits = vec![PrefixLimit {
            family: WireFamily::IPV4_UNICAST,
            limit: MOST,
            warn_percent: 75,
            action,
        }];
    })
}

/// They announce as many as we take, then one more.
fn they_announce_too_many(bench: &mut Bench, action: LimitAction) -> Result<()> {
    let mut theirs = bench.theirs();
    for number in 1..=MOST {
        let route = Announcement::new(their_route(number).parse()?);
        theirs.routes.push(route);
    }
    bench.establish(limited(action), &theirs)?;
    bench.we_learn(&their_route(MOST), |_| Ok(()))?;
    let excess = Announcement::new(their_route(MOST + 1).parse()?);
    bench.peer()?.announce(&excess)
}

/// The session has ended by a NOTIFICATION that says so.
fn ended_by_limit(bench: &Bench, who: Direction) -> Result<()> {
    wait::until("the session's end", LIMIT, || {
        let error = bench.status()?.last_error.context("no error yet")?.ended;
        let notification = error.notification.context("no NOTIFICATION")?;
        let actual = (error.direction, notification.code, notification.subcode);
        same("NOTIFICATION", &actual, &(who, 6, 1))
    })
}

/// Nothing happens but that it is said.
pub(crate) fn ours_warns(bench: &mut Bench) -> Result<()> {
    they_announce_too_many(bench, LimitAction::Warn)?;
    bench.we_use(&their_route(MOST + 1))?;
    let status = bench.status()?;
    let family = status.families.first().context("a family")?;
    same("received", &family.received, &3)?;
    same("limit", &family.limit, &Some(MOST))?;
    same("flaps", &status.flaps, &0)?;
    ensure!(bench.session()?.established, "down at their end");
    Ok(())
}

/// The session ends and comes back after our pause, and again, until they have fewer.
pub(crate) fn ours_restarts(bench: &mut Bench) -> Result<()> {
    they_announce_too_many(bench, LimitAction::Restart(PAUSE))?;
    ended_by_limit(bench, Direction::Sent)?;
    let ended = wait::now();
    ensure!(
        bench.routes()?.is_empty(),
        "what was too much is still there"
    );
    bench
        .peer()?
        .withdraw(their_route(MOST + 1).parse::<ipnet::IpNet>()?)?;
    // They may dial as they like meanwhile.
    bench.wait_up()?;
    let pause = ended.elapsed();
    ensure!(
        pause + Duration::from_millis(500) > PAUSE,
        "back after {pause:?}"
    );
    bench.we_use(&their_route(MOST))?;
    same("flaps", &bench.status()?.flaps, &1)
}

/// The session stays down whatever they do, until the limit is another.
pub(crate) fn ours_stays_down(bench: &mut Bench) -> Result<()> {
    they_announce_too_many(bench, LimitAction::StayDown)?;
    ended_by_limit(bench, Direction::Sent)?;
    wait::until("the end at their side", LIMIT, || {
        ensure!(!bench.session()?.established, "still up");
        Ok(())
    })?;
    let halt = Halt::TooManyPrefixes(WireFamily::IPV4_UNICAST, MOST);
    wait::holds("no session", Duration::from_secs(3), || {
        let status = bench.status()?;
        same("state", &status.state, &State::Idle)?;
        same("halt", &status.halt, &Some(halt.clone()))
    })?;
    let mut config = limited(LimitAction::StayDown);
    for peer in config.peers.values_mut() {
        peer.prefix_limits[0].limit = MOST + 1;
    }
    bench.speaker()?.configure(config);
    bench.wait_up()?;
    bench.we_use(&their_route(MOST + 1))
}

fn our_routes(count: u32) -> Result<SpeakerConfig> {
    let mut config = ours();
    for number in 1..=count {
        let prefix = format!("10.244.{number}.0/24");
        originate(&mut config, &prefix, Attributes::originated())?;
    }
    Ok(config)
}

fn they_limit(bench: &Bench, excess: Excess) -> Config {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].max_prefix = Some(MaxPrefix {
        limit: MOST,
        excess,
    });
    theirs
}

/// They say that it's too much, and take it.
pub(crate) fn theirs_warns(bench: &mut Bench) -> Result<()> {
    let theirs = they_limit(bench, Excess::Warn);
    bench.establish(our_routes(MOST + 2)?, &theirs)?;
    for number in 1..=MOST + 2 {
        bench.they_learn(&format!("10.244.{number}.0/24"), |_| Ok(()))?;
    }
    let words = match bench.kind {
        Kind::Bird => "hits route import limit",
        Kind::Frr => "MAXPFXEXCEED",
        Kind::Gobgp | Kind::Openbgpd | Kind::Exabgp => bail!("its limit always ends the session"),
    };
    let log = bench.peer()?.log()?;
    ensure!(log.contains(words), "they said nothing: {log}");
    same("flaps", &bench.status()?.flaps, &0)
}

/// They take no more than that, and the session stays.
pub(crate) fn theirs_blocks(bench: &mut Bench) -> Result<()> {
    let theirs = they_limit(bench, Excess::Block);
    bench.establish(our_routes(MOST)?, &theirs)?;
    bench.they_learn("10.244.2.0/24", |_| Ok(()))?;
    bench.speaker()?.configure(our_routes(MOST + 2)?);
    wait::until("our UPDATEs", LIMIT, || {
        let status = bench.status()?;
        let family = status.families.first().context("a family")?;
        same("advertised", &family.advertised, &4)
    })?;
    bench.they_learn("10.244.1.0/24", |_| Ok(()))?;
    let learned = bench.peer()?.learned(lab::peer::Family::Ipv4)?;
    same("taken", &learned.len(), &2)?;
    same("flaps", &bench.status()?.flaps, &0)
}

/// They end the session for a while: we try with growing patience, and come back when there is less.
pub(crate) fn theirs_restarts(bench: &mut Bench) -> Result<()> {
    let theirs = they_limit(bench, Excess::Restart);
    bench.start_peer(&theirs)?;
    bench.speak(our_routes(MOST + 2)?, false)?;
    ended_by_limit(bench, Direction::Received)?;
    wait::until("our patience", LIMIT, || {
        let status = bench.status()?;
        ensure!(status.failures > 0, "no failure counted");
        Ok(())
    })?;
    same("halt", &bench.status()?.halt, &None)?;
    bench.speaker()?.configure(our_routes(1)?);
    wait::until("the session", THEIR_PAUSE, || {
        let state = bench.status()?.state;
        ensure!(state == State::Established, "we are in {state:?}");
        Ok(())
    })?;
    bench.they_learn("10.244.1.0/24", |_| Ok(()))?;
    bench.they_lose("10.244.2.0/24")
}

/// They end the session for good: we go on trying, ever less often, and say why.
pub(crate) fn theirs_stays_down(bench: &mut Bench) -> Result<()> {
    let theirs = they_limit(bench, Excess::Stay);
    bench.start_peer(&theirs)?;
    bench.speak(our_routes(MOST + 2)?, false)?;
    ended_by_limit(bench, Direction::Received)?;
    wait::until("more patience", LIMIT, || {
        let status = bench.status()?;
        ensure!(
            status.failures >= 3,
            "{} failures, next attempt {:?}",
            status.failures,
            status.next_attempt
        );
        Ok(())
    })?;
    let status = bench.status()?;
    same("halt", &status.halt, &None)?;
    ensure!(
        status.state < State::Established && !bench.session()?.established,
        "it came back"
    );
    // The reason stays to be seen through the attempts that follow.
    ended_by_limit(bench, Direction::Received)
}
