//! A route reflector's fan-out.

use std::net::Ipv4Addr;
use std::ops::Range;

use anyhow::Result;
use lab::wait;

use super::{ASN, LIMIT, cpu, mib, seconds};
use crate::feed;
use crate::held::Space;
use crate::subject::{Peer, Subject, Topology};
use crate::trial::{Trial, far};

const CLIENTS: u32 = 1_000;
/// Routes of each client: the blocks of pod addresses that a node has.
pub(super) const ROUTES: u32 = 10;

/// Blocks for so many clients.
pub(super) fn space(clients: u32) -> Space {
    Space {
        first: Ipv4Addr::new(10, 128, 0, 0),
        block_bits: 6,
        prefixes: clients * ROUTES,
        mixed: false,
    }
}

/// The numbers of a client's routes.
pub(super) fn routes(client: u32) -> Range<u32> {
    client * ROUTES..(client + 1) * ROUTES
}

pub(super) fn topology(clients: u32) -> Topology {
    let peers = (0..clients).map(|client| Peer {
        address: far(client),
        asn: ASN,
        client: true,
    });
    Topology {
        asn: ASN,
        peers: peers.collect(),
        networks: Vec::new(),
    }
}

/// What a client holds when all have said theirs. FRR tells it its own routes too.
pub(super) fn full(subject: Subject, clients: u32) -> u32 {
    if subject == Subject::Frr {
        clients * ROUTES
    } else {
        (clients - 1) * ROUTES
    }
}

pub(super) fn measure(trial: &Trial) -> Result<Vec<f64>> {
    let space = space(CLIENTS);
    trial.run(&topology(CLIENTS), |subject, mut swarm| {
        let mut said = Vec::new();
        let mut ids = Vec::new();
        for client in 0..CLIENTS {
            ids.push(swarm.add(far(client), ASN, space, None));
            said.push(feed::own(space, routes(client), far(client))?);
        }
        swarm.dial(4);
        swarm.run_until_established(LIMIT)?;
        let before = subject.at_rest(&mut swarm, LIMIT)?;

        let start = wait::now();
        swarm.expect(ids.iter().copied(), full(trial.subject, CLIENTS));
        for (id, octets) in ids.iter().zip(&said) {
            swarm.send(*id, octets)?;
        }
        let held = swarm.run_until_held(LIMIT)?;
        let after = subject.at_rest(&mut swarm, LIMIT)?;
        Ok(vec![
            cpu(&before, &after),
            seconds(start, held),
            mib(after.peak),
        ])
    })
}
