//! Big tables from few peers.

use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::wait;

use super::{ASN, LIMIT, cpu, growth, mib, seconds};
use crate::feed::{self, Octets};
use crate::held::Space;
use crate::subject::{Peer, Topology};
use crate::trial::{Trial, near};

/// The Internet, about.
const FULL: Space = Space {
    first: Ipv4Addr::new(64, 0, 0, 0),
    block_bits: 10,
    prefixes: 1_000_000,
    mixed: true,
};
const FULL_SETS: u32 = 60_000;

const TEN: Space = Space {
    prefixes: 100_000,
    ..FULL
};
const TEN_SETS: u32 = 5_000;

/// How many feed the subject, and what they say: made once for all trials.
type Feeds = LazyLock<Result<Vec<Octets>>>;
static FULL_FEED: Feeds = LazyLock::new(|| feeds(FULL, FULL_SETS, 1));
static TWO_FEEDS: Feeds = LazyLock::new(|| feeds(FULL, FULL_SETS, 2));
static TEN_FEEDS: Feeds = LazyLock::new(|| feeds(TEN, TEN_SETS, 10));

fn feeds(space: Space, sets: u32, peers: u8) -> Result<Vec<Octets>> {
    (1..=peers)
        .map(|peer| feed::table(space, sets, asn(peer), near(peer)))
        .collect()
}

fn made(feeds: &'static Feeds) -> Result<&'static [Octets]> {
    match &**feeds {
        Ok(feeds) => Ok(feeds),
        Err(error) => bail!("cannot make the feed: {error:#}"),
    }
}

fn asn(peer: u8) -> u32 {
    65_000 + u32::from(peer)
}

/// These external peers.
fn topology(peers: u8) -> Topology {
    let peers = (1..=peers).map(|peer| Peer {
        address: near(peer),
        asn: asn(peer),
        client: false,
    });
    Topology {
        asn: ASN,
        peers: peers.collect(),
        networks: Vec::new(),
    }
}

pub(super) fn full(trial: &Trial) -> Result<Vec<f64>> {
    let feed = made(&FULL_FEED)?.first().context("a feed")?;
    trial.run(&topology(2), |subject, mut swarm| {
        let feeder = swarm.add(near(1), asn(1), FULL, None);
        let observer = swarm.add(near(2), asn(2), FULL, None);
        swarm.dial(1);
        swarm.run_until_established(LIMIT)?;
        let before = subject.at_rest(&mut swarm, LIMIT)?;

        let start = wait::now();
        swarm.expect([observer], FULL.prefixes);
        swarm.send(feeder, feed)?;
        let held = swarm.run_until_held(LIMIT)?;
        let full = subject.at_rest(&mut swarm, LIMIT)?;

        swarm.expect([observer], 0);
        let dropped = wait::now();
        swarm.close(feeder);
        let withdrawn = swarm.run_until_held(LIMIT)?;
        let empty = subject.at_rest(&mut swarm, LIMIT)?;
        Ok(vec![
            cpu(&before, &full),
            seconds(start, held),
            mib(full.peak),
            growth(&before, &full, FULL.prefixes),
            seconds(dropped, withdrawn),
            cpu(&full, &empty),
        ])
    })
}

/// How long a peer that may not be kept waiting waits at most, in seconds.
const SHORT_HOLD: u16 = 3;

pub(super) fn starve(trial: &Trial) -> Result<Vec<f64>> {
    let feeds = made(&TWO_FEEDS)?;
    trial.run(&topology(3), |subject, mut swarm| {
        let [first, second, witness] =
            [1, 2, 3].map(|peer| swarm.add(near(peer), asn(peer), FULL, None));
        swarm.hold(witness, SHORT_HOLD);
        swarm.dial(1);
        swarm.run_until_established(LIMIT)?;
        // One KEEPALIVE is there, whenever the next may come.
        swarm.run(Duration::from_secs(SHORT_HOLD.into()), |_| false)?;
        swarm.watch(witness);
        swarm.expect([witness], FULL.prefixes);
        for (feeder, feed) in [first, second].into_iter().zip(feeds) {
            swarm.send(feeder, feed)?;
        }
        swarm.run_until_held(LIMIT)?;
        subject.at_rest(&mut swarm, LIMIT)?;
        let learning = swarm.silence(witness);

        // The one that is left has all prefixes too, and goes in the midst of that.
        swarm.watch(witness);
        swarm.close(first);
        swarm.expect([witness], 0);
        swarm.run(Duration::from_millis(100), |_| false)?;
        let dropped = wait::now();
        swarm.close(second);
        let withdrawn = swarm.run_until_held(LIMIT)?;
        subject.at_rest(&mut swarm, LIMIT)?;
        swarm.run(Duration::from_secs(1), |_| false)?;
        Ok(vec![
            learning.as_secs_f64(),
            swarm.silence(witness).as_secs_f64(),
            seconds(dropped, withdrawn),
        ])
    })
}

pub(super) fn ten(trial: &Trial) -> Result<Vec<f64>> {
    let feeds = made(&TEN_FEEDS)?;
    trial.run(&topology(11), |subject, mut swarm| {
        for peer in 1..=11 {
            swarm.add(near(peer), asn(peer), TEN, None);
        }
        let observer = feeds.len();
        swarm.dial(1);
        swarm.run_until_established(LIMIT)?;
        let before = subject.at_rest(&mut swarm, LIMIT)?;

        let start = wait::now();
        swarm.expect([observer], TEN.prefixes);
        for (feeder, feed) in feeds.iter().enumerate() {
            swarm.send(feeder, feed)?;
        }
        swarm.run_until_held(LIMIT)?;
        // The observer may have heard of all prefixes before the last path is in.
        if !swarm.run(LIMIT, |swarm| swarm.all_said(0..observer))? {
            bail!("not all is read after {LIMIT:?}");
        }
        let said = wait::now();
        let full = subject.at_rest(&mut swarm, LIMIT)?;
        let paths = TEN.prefixes * 10;
        Ok(vec![
            cpu(&before, &full),
            seconds(start, said),
            growth(&before, &full, paths),
            mib(full.peak),
        ])
    })
}
