//! Neighbours that are known by the range of their addresses, with a password for the whole range (`TCP_MD5SIG_EXT`).

use anyhow::{Context, Result, ensure};
use bgp::config::{AsnSet, DynamicPeers, Password, SpeakerConfig};
use bgp_wire::Attributes;
use lab::peer::{Announcement, Config};
use lab::wait;
use tests::same;

use crate::bench::{
    Bench, LIMIT, OUR_ASN, OURS, THEIR_ASN, THEIRS, originate, ours, ours_with, their_end,
};

const OUR_ROUTE: &str = "10.244.1.0/24";
const THEIR_ROUTE: &str = "10.245.1.0/24";
const RANGE: &str = "10.9.0.0/24";
const PASSWORD: &str = "rack-7-secret";
const WRONG: &str = "not-that-one";

/// We take whoever comes from the range and has the password.
fn our_range(password: &str) -> Result<SpeakerConfig> {
    let mut config = ours();
    config.peers.clear();
    let mut template = their_end(0);
    template.password = Some(Password::new(password)?);
    let peers = DynamicPeers {
        asns: AsnSet::from_iter([THEIR_ASN..=THEIR_ASN]),
        limit: 10,
        template,
    };
    config.dynamic.insert(RANGE.parse()?, peers);
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    Ok(config)
}

/// Waits until the kernel has dropped more segments for a wrong signature than `before`; gives how many it has by now.
fn wrong_signatures(bench: &Bench, before: u64) -> Result<u64> {
    wait::until("a segment with a wrong signature", LIMIT, || {
        let drops = bench.md5_drops()?.context("the kernel counts none")?;
        ensure!(drops.wrong > before, "{drops:?}");
        Ok(drops.wrong)
    })
}

fn both_learn(bench: &mut Bench) -> Result<()> {
    bench.they_learn(OUR_ROUTE, |_| Ok(()))?;
    bench.we_learn(THEIR_ROUTE, |_| Ok(()))
}

/// They dial in with a password that is not the range's, which is put right on our side without a restart; then it changes
/// again, and the session of before stays with the old one until it ends.
pub(crate) fn our_range_has_a_password(bench: &mut Bench) -> Result<()> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = false;
    theirs.neighbours[0].password = Some(PASSWORD.to_owned());
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    bench.speak(our_range(WRONG)?, false)?;
    bench.start_peer(&theirs)?;
    let wrong = wrong_signatures(bench, 0)?;
    ensure!(bench.statuses()?.is_empty(), "somebody got in");
    bench.speaker()?.configure(our_range(PASSWORD)?);
    bench.wait_up()?;
    let status = bench.status()?;
    let range = Some(RANGE.parse()?);
    same("who", &(status.address, status.asn), &(THEIRS, THEIR_ASN))?;
    same("range", &status.dynamic, &range)?;
    same("signed", &status.password, &true)?;
    both_learn(bench)?;
    // With another password for the range nobody gets in any more.
    bench.speaker()?.configure(our_range(WRONG)?);
    wrong_signatures(bench, wrong)?;
    bench.speaker()?.configure(our_range(PASSWORD)?);
    bench.wait_up()?;
    both_learn(bench)
}

/// They know us by our range only, without a password.
pub(crate) fn their_range(bench: &mut Bench) -> Result<()> {
    let theirs = they_know_a_range(bench)?;
    let mut config = ours();
    originate(&mut config, OUR_ROUTE, Attributes::originated())?;
    bench.establish(config, &theirs)?;
    both_learn(bench)
}

fn they_know_a_range(bench: &Bench) -> Result<Config> {
    let mut theirs = bench.theirs();
    theirs.neighbours[0].passive = true;
    theirs.neighbours[0].range = Some(RANGE.parse()?);
    theirs.routes.push(Announcement::new(THEIR_ROUTE.parse()?));
    Ok(theirs)
}

/// They know us by our range and its password; with another one we don't get in, and mend that without a restart.
pub(crate) fn their_range_has_a_password(bench: &mut Bench) -> Result<()> {
    let mut theirs = they_know_a_range(bench)?;
    theirs.neighbours[0].password = Some(PASSWORD.to_owned());
    let config = |password: &str| -> Result<_> {
        let password = Password::new(password)?;
        let mut config = ours_with(|peer| peer.password = Some(password));
        originate(&mut config, OUR_ROUTE, Attributes::originated())?;
        Ok(config)
    };
    bench.start_peer(&theirs)?;
    bench.speak(config(WRONG)?, false)?;
    wait::until("an attempt that fails", LIMIT, || {
        let status = bench.status()?;
        let attempt = status.last_attempt.context("none yet")?;
        ensure!(
            attempt.ended.detail.contains("another password"),
            "{attempt:?}"
        );
        Ok(())
    })?;
    bench.speaker()?.configure(config(PASSWORD)?);
    bench.wait_up()?;
    same("our AS", &bench.status()?.local_asn, &OUR_ASN)?;
    ensure!(bench.session_with(OURS)?.established, "down at their end");
    both_learn(bench)
}
