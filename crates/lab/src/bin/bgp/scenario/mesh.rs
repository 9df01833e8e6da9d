//! A node among many others.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::wait;

use super::{ASN, LIMIT, cpu, mib, seconds};
use crate::feed;
use crate::held::Space;
use crate::subject::{Peer, Topology};
use crate::swarm::{Id, Swarm};
use crate::trial::{Trial, far, near};

/// As long as every peer needs for a keepalive each way.
const IDLE: Duration = Duration::from_secs(30);
/// When a storm is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Beyond the mesh: learns from the subject all that this has learned.
const OBSERVER: u8 = 1;
const OBSERVER_ASN: u32 = 65_001;

/// A block for each peer, and the subject's own as the last.
fn space(peers: u32) -> Space {
    Space {
        first: Ipv4Addr::new(10, 128, 0, 0),
        block_bits: 6,
        prefixes: peers + 1,
        mixed: false,
    }
}

fn topology(peers: u32) -> Topology {
    let observer = Peer {
        address: near(OBSERVER),
        asn: OBSERVER_ASN,
        client: false,
    };
    let mesh = (0..peers).map(|peer| Peer {
        address: far(peer),
        asn: ASN,
        client: false,
    });
    Topology {
        asn: ASN,
        peers: std::iter::once(observer).chain(mesh).collect(),
        networks: vec![space(peers).prefix(peers)],
    }
}

/// The mesh, with a route each to announce, and the observer, which is expected to hold all; everybody else is expected to
/// hold the subject's own.
fn mesh(swarm: &mut Swarm, peers: u32) -> Result<()> {
    let space = space(peers);
    let observer = swarm.add(near(OBSERVER), OBSERVER_ASN, space, None);
    let mut mesh: Vec<Id> = Vec::new();
    for peer in 0..peers {
        let own = feed::own(space, peer..peer + 1, far(peer))?;
        mesh.push(swarm.add(far(peer), ASN, space, Some(own)));
    }
    swarm.expect([observer], peers + 1);
    swarm.expect(mesh, 1);
    Ok(())
}

pub(super) fn idle(trial: &Trial) -> Result<Vec<f64>> {
    const PEERS: u32 = 500;
    trial.run(&topology(PEERS), |subject, mut swarm| {
        mesh(&mut swarm, PEERS)?;
        swarm.dial(4);
        swarm.run_until_established(LIMIT)?;
        swarm.run_until_held(LIMIT)?;
        let before = subject.at_rest(&mut swarm, LIMIT)?;
        let start = wait::now();
        swarm.run(IDLE, |_| false)?;
        let length = seconds(start, wait::now());
        let after = subject.usage()?;
        Ok(vec![
            mib(after.resident),
            cpu(&before, &after) / length * 100.0,
        ])
    })
}

pub(super) fn storm(trial: &Trial) -> Result<Vec<f64>> {
    const PEERS: u32 = 1_000;
    trial.run(&topology(PEERS), |subject, mut swarm| {
        mesh(&mut swarm, PEERS)?;
        // It listens when it answers somebody: wait for that, so that its start does not count.
        subject.listening(LIMIT)?;
        let before = subject.at_rest(&mut swarm, LIMIT)?;
        let start = wait::now();
        swarm.dial(usize::MAX);
        if let Err(error) = swarm.run_until_held(PATIENCE) {
            bail!("{} sessions are up; {error:#}", swarm.established());
        }
        swarm.run_until_established(PATIENCE)?;
        let up = swarm.last_established().context("a session")?;
        let full = swarm.run_until_held(PATIENCE)?;
        let after = subject.at_rest(&mut swarm, LIMIT)?;
        Ok(vec![
            seconds(start, full.max(up)),
            cpu(&before, &after),
            mib(after.peak),
        ])
    })
}
