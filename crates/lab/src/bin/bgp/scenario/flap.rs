//! How fast a route reflector passes on what one client says.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::wait;

use super::fanout::{ROUTES, full, routes, space, topology};
use super::{ASN, LIMIT, cpu, seconds};
use crate::feed::{self, Octets};
use crate::subject::Subject;
use crate::swarm::{Id, Swarm};
use crate::trial::{Trial, far};

const CLIENTS: u32 = 500;
const FLAPS: u32 = 100;
/// Between two flaps everybody rests.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) fn measure(trial: &Trial) -> Result<Vec<f64>> {
    let space = space(CLIENTS);
    let copy = trial.subject == Subject::Copy;
    trial.run(&topology(CLIENTS), |subject, mut swarm| {
        let mut ids = Vec::new();
        let mut said = Vec::new();
        for client in 0..CLIENTS {
            let routes = feed::own(space, routes(client), far(client))?;
            // A copy has no memory: whoever comes later would not hear of it.
            let greeting = (!copy).then(|| routes.clone());
            ids.push(swarm.add(far(client), ASN, space, greeting));
            said.push(routes);
        }
        let all = full(trial.subject, CLIENTS);
        swarm.expect(ids.iter().copied(), all);
        swarm.dial(4);
        swarm.run_until_established(LIMIT)?;
        let up = swarm.last_established().context("a session")?;
        if copy {
            // Whom it has not accepted yet it copies nothing to.
            subject.at_rest(&mut swarm, LIMIT)?;
            for (id, routes) in ids.iter().zip(&said) {
                swarm.send(*id, routes)?;
            }
        }
        let held = swarm.run_until_held(LIMIT)?;
        let before = subject.at_rest(&mut swarm, LIMIT)?;

        let mut latencies = Vec::new();
        for flap in 0..FLAPS {
            // Not the neighbour of the last one.
            let client = flap * 37 % CLIENTS;
            let index = usize::try_from(client)?;
            let withdrawal = feed::withdrawal(space, routes(client))?;
            let events = [(withdrawal, all - ROUTES), (said[index].clone(), all)];
            for (octets, prefixes) in events {
                event(
                    &mut swarm,
                    (ids[index], &octets),
                    &ids,
                    prefixes,
                    &mut latencies,
                )?;
                swarm.run(PAUSE, |_| false)?;
            }
            subject.check()?;
        }
        let after = subject.usage()?;
        latencies.sort();
        let percentile = |percent: usize| {
            let latency = latencies.get(latencies.len() * percent / 100);
            latency.copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        Ok(vec![
            percentile(50),
            percentile(99),
            cpu(&before, &after) * 1e3 / f64::from(FLAPS),
            match copy {
                true => f64::NAN,
                false => seconds(up, held) * 1e3,
            },
        ])
    })
}

/// One client says something, and everybody else has `prefixes` when it has arrived. Notes how long that took each.
fn event(
    swarm: &mut Swarm,
    (from, octets): (Id, &Octets),
    ids: &[Id],
    prefixes: u32,
    latencies: &mut Vec<Duration>,
) -> Result<()> {
    let others = || ids.iter().copied().filter(|id| *id != from);
    swarm.expect(others(), prefixes);
    let start: Instant = wait::now();
    swarm.send(from, octets)?;
    swarm.run_until_held(LIMIT)?;
    let reached = others().filter_map(|id| swarm.reached(id));
    latencies.extend(reached.map(|at| at.saturating_duration_since(start)));
    Ok(())
}
