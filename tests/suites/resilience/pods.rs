//! Pods come and go while the agent dies.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::Ipv4Net;
use lab::datacentre::{DataCentre, Node, Pod};
use lab::probe::Pinger;
use lab::{Namespace, net, wait};
use tests::{SESSION, oracle, same};

use crate::SOON;

/// ADDs that must succeed in the end.
const PODS: u32 = 20;

/// As many ADDs at once.
const WORKERS: u32 = 4;

/// After how many pods the agent is killed.
const KILLS: [u32; 2] = [5, 12];

/// An ADD that returned success is whole, one that failed leaves nothing after its DEL, as the specification has it.
pub(crate) fn burst(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    dc.wait_sessions(SESSION)?;
    let prefix = dc.shape.prefix.clone();
    let node = dc.node("node-a1")?;
    let links = net::links(&node.namespace)?;
    let routes = oracle::margay_routes(&node.namespace)?;
    let (host, socket) = (node.namespace.clone(), node.cni_socket());
    let (next, done) = (AtomicU32::new(1), AtomicU32::new(0));
    let worker = || -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        let quota = usize::try_from(PODS / WORKERS)?;
        while pods.len() < quota {
            let name = format!("burst-{}", next.fetch_add(1, Ordering::Relaxed));
            let pod = wait::until(&name, SESSION, || {
                let own = Namespace::create(&format!("{prefix}{name}"))?;
                match Pod::attach(name.clone(), own.clone(), &host, &socket) {
                    Ok(pod) => Ok(pod),
                    Err(error) => {
                        // As a runtime does it: DEL before anything else, until it succeeds.
                        wait::until("DEL", SESSION, || {
                            Pod::detach_named(&name, &own, &host, &socket)
                        })?;
                        Err(error)
                    }
                }
            })?;
            pods.push(pod);
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(pods)
    };
    let pods = std::thread::scope(|scope| -> Result<Vec<Pod>> {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        for count in KILLS {
            wait::until("pods", SESSION, || {
                match done.load(Ordering::Relaxed) >= count {
                    true => Ok(()),
                    false => bail!("fewer than {count}"),
                }
            })?;
            node.agent()?.kill()?;
            node.start()?;
            node.wait_ready(SESSION)?;
        }
        let mut pods = Vec::new();
        for worker in workers {
            pods.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        Ok(pods)
    })?;
    all_are_whole(node, &pods, &routes.keys().copied().collect())?;
    for pod in &pods {
        pod.detach(&host, &socket)?;
    }
    wait::until("nothing of the pods to be left", SOON, || {
        same("links", &net::links(&host)?, &links)?;
        same("routes", &oracle::margay_routes(&host)?, &routes)
    })
}

/// Each has an address of its own, a route, and answers; there are no other links' routes.
fn all_are_whole(node: &Node, pods: &[Pod], before: &BTreeSet<Ipv4Net>) -> Result<()> {
    let mut expected = before.clone();
    for pod in pods {
        if !expected.insert(Ipv4Net::new(pod.address, 32)?) {
            bail!("{} was given twice", pod.address);
        }
    }
    wait::until("exactly the pods' routes", SOON, || {
        let routes = oracle::margay_routes(&node.namespace)?;
        same("routes", &routes.into_keys().collect(), &expected)
    })?;
    let endpoints: api::Endpoints = serde_json::from_value(node.ctl_json(&["endpoints"])?)?;
    same("endpoints", &endpoints.endpoints.len(), &pods.len())?;
    let mut pinger = Pinger::open(&node.namespace)?;
    for pod in pods {
        pinger
            .wait_answer(pod.address, SOON)
            .with_context(|| pod.name.clone())?;
    }
    Ok(())
}
