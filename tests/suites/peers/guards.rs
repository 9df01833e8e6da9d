//! Passwords, neighbours that come unannounced, and routes that are asked for again.

use anyhow::{Context, Result, ensure};
use bgp::config::{AsnSet, DynamicPeers, Password, SpeakerConfig};
use bgp::session::State;
use bgp_wire::Attributes;
use lab::peer::{Announcement, Family, Kind};
use lab::wait;
use tests::same;

use crate::bench::{Bench, LIMIT, OURS, THEIR_ASN, THEIRS, originate, ours, ours_with, their_end};

const OUR_ROUTE: &str = "10.244.1.0/24";
const THEIR_ROUTE: &str = "10.245.1.0/24";
const PASSWORD: &str = "rack-7-secret";

fn with_password(password: &str) -> Result<SpeakerConfig> {
    let password = Password::new(password)?;
    Ok(ours_with(|peer| peer.password = Some(password)))
}

pub(crate) fn md5(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].password = Some(PASSWORD.to_owned());
    bench.establish(with_password(PASSWORD)?, &theirs)
}

/// Their dials reach us too.
pub(crate) fn md5_passive(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].password = Some(PASSWORD.to_owned());
    theirs.neighbours[0].passive = false;
    let mut config = with_password(PASSWORD)?;
    for peer in config.peers.values_mut() {
        peer.passive = true;
    }
    bench.establish(config, &theirs)
}

/// Another password is no session, and we can say why; the right one is, without a restart.
pub(crate) fn md5_rekeyed(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].password = Some(PASSWORD.to_owned());
    // It is their dials by which we notice: ours are dropped at their end.
    theirs.neighbours[0].passive = false;
    bench.start_peer(&theirs)?;
    bench.speak(with_password("not-that-one")?, false)?;
    wait::until("a segment with a wrong signature", LIMIT, || {
        let drops = bench.md5_drops()?.context("the kernel counts none")?;
        ensure!(drops.wrong > 0, "{drops:?}");
        Ok(())
    })?;
    ensure!(
        bench.status()?.state < State::Established,
        "a session came up"
    );
    bench.speaker()?.configure(with_password(PASSWORD)?);
    bench.wait_up()
}

/// We know nobody, but the range that they come from.
pub(crate) fn dynamic(bench: &mut Bench) -> Result<()> {
    let mut config = ours();
    config.peers.clear();
    let peers = DynamicPeers {
        asns: AsnSet::from_iter([65000..=65010]),
        limit: 10,
        template: their_end(0),
    };
    config.dynamic.insert("10.9.0.0/24".parse()?, peers);
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = false;
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.speak(config, false)?;
    bench.start_peer(&theirs)?;
    bench.wait_up()?;
    let status = bench.status()?;
    same("who", &(status.address, status.asn), &(THEIRS, THEIR_ASN))?;
    bench.they_learn(OUR_ROUTE, |_| Ok(()))?;
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))
}

/// A session on which each side has a route, and has heard the other's.
fn begin(bench: &mut Bench) -> Result<()> {
    let mut config = ours();
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    let mut theirs = bench.theirs();
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.establish(config, &theirs)?;
    bench.they_learn(OUR_ROUTE, |_| Ok(()))?;
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))
}

/// We ask for their routes again.
pub(crate) fn we_ask(bench: &mut Bench) -> Result<()> {
    begin(bench)?;
    let before = bench.status()?.counters.updates_in;
    bench.refresh()?;
    wait::until("their routes again", LIMIT, || {
        let after = bench.status()?.counters.updates_in;
        ensure!(after > before, "{after} UPDATEs, before it {before}");
        Ok(())
    })?;
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))?;
    same("flaps", &bench.status()?.flaps, &0)
}

/// They ask for ours, and are told where the answer begins and where it ends.
pub(crate) fn enhanced_refresh(bench: &mut Bench) -> Result<()> {
    begin(bench)?;
    bench.peer()?.refresh(OURS, Family::Ipv4)?;
    let kind = bench.kind;
    wait::until("the answer's end", LIMIT, || {
        let session = bench.session()?.text;
        let log = bench.peer()?.log()?;
        let marks = match kind {
            Kind::Bird => ["Got BEGIN-OF-RR", "Got END-OF-RR"].map(|it| log.contains(it)),
            Kind::Frr => ["rcvd route-refresh (BoRR)", "rcvd route-refresh (EoRR)"]
                .map(|it| log.contains(it)),
            Kind::Exabgp => {
                ["begin", "end"].map(|it| session.contains(&format!(r#""subtype": ""{it}"""#)))
            }
            Kind::Openbgpd => {
                ["borr", "eorr"].map(|it| session.matches(&format!("\"{it}\": 1")).count() > 0)
            }
            Kind::Gobgp => [false; 2],
        };
        ensure!(
            marks == [true; 2],
            "BoRR, EoRR: {marks:?}; they say {session}\n{log}"
        );
        Ok(())
    })?;
    bench.they_learn(OUR_ROUTE, |_| Ok(()))
}
