//! The next hops of the RIB: how the kernel reaches each, and what the speaker knows of that.
//!
//! The speaker uses no path before it has heard of its next hop. When a next hop can no longer be reached, the speaker is
//! told, and the kernel's route stays until the speaker has chosen another path: there is nothing better to put in its
//! place before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::{Links, NextHop};
use node::{Devices, NodePlan, Reach, Unresolved};
use resources::IpipMode;

type Verdict = Result<Reach, Unresolved>;

/// What is known of one next hop.
#[derive(Debug, Default)]
struct Known {
    /// `None` before it was looked at.
    verdict: Option<Verdict>,
    /// The way through a tunnel, for those prefixes whose pool wants it.
    tunnel: Option<NextHop>,
    /// The present speaker has asked for it.
    asked: bool,
    /// What it was told: the cost, or that it can't be reached.
    told: Option<Option<u32>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    known: BTreeMap<IpAddr, Known>,
    /// Some were not looked at yet.
    fresh: bool,
    /// What the speaker is still to be told.
    untold: BTreeMap<IpAddr, Option<u32>>,
    /// How many times it was told something, and how many of those it has acted upon.
    sent: u64,
    taken: u64,
}

impl NextHops {
    /// Another speaker begins: it knows nothing yet.
    pub(super) fn new_speaker(&mut self) {
        for known in self.known.values_mut() {
            (known.asked, known.told) = (false, None);
        }
        self.untold.clear();
        (self.sent, self.taken) = (0, 0);
    }

    /// The present speaker has told all that it knows: what only its predecessor asked for is of no use.
    pub(super) fn forget_unasked(&mut self) {
        self.known.retain(|_, known| known.asked);
    }

    /// The speaker says which next hops came into use, or went out of it.
    pub(super) fn news(&mut self, news: Vec<(IpAddr, bool)>) {
        for (address, used) in news {
            if used {
                let known = self.known.entry(address).or_default();
                // It may have forgotten what it was told before.
                (known.asked, known.told) = (true, None);
                self.fresh = true;
            } else {
                self.known.remove(&address);
                self.untold.remove(&address);
            }
        }
    }

    /// A path has this next hop, whether or not the speaker has asked for it.
    pub(super) fn mention(&mut self, address: IpAddr) {
        self.known.entry(address).or_insert_with(|| {
            self.fresh = true;
            Known::default()
        });
    }

    /// All of them.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.known.keys().copied().collect()
    }

    /// Looks at those that are new, or at all when links or plan have changed. Says for which the answer is another one.
    pub(super) fn evaluate(
        &mut self,
        links: &Links,
        (plan, devices): (&NodePlan, &Devices),
        all: bool,
    ) -> BTreeSet<IpAddr> {
        let mut changed = BTreeSet::new();
        if !std::mem::take(&mut self.fresh) && !all {
            return changed;
        }
        for (address, known) in &mut self.known {
            if all || known.verdict.is_none() {
                let verdict = node::reach(*address, links, plan);
                if known.verdict.as_ref() != Some(&verdict) {
                    log(*address, known.verdict.as_ref(), &verdict);
                    changed.insert(*address);
                    known.verdict = Some(verdict);
                }
                let tunnel = plan.tunnels.towards(*address, devices);
                if known.tunnel != tunnel {
                    changed.insert(*address);
                    known.tunnel = tunnel;
                }
            }
            let cost = match &known.verdict {
                Some(Ok(reach)) => Some(reach.cost),
                Some(Err(_)) | None => None,
            };
            if known.asked && known.told != Some(cost) {
                known.told = Some(cost);
                self.untold.insert(*address, cost);
            }
        }
        changed
    }

    /// How a next hop is reached, if that was looked at.
    pub(super) fn verdict(&self, address: IpAddr) -> Option<&Verdict> {
        self.known.get(&address)?.verdict.as_ref()
    }

    /// The same for packets that travel in this way.
    pub(super) fn carried(&self, address: IpAddr, mode: IpipMode) -> Option<Verdict> {
        let known = self.known.get(&address)?;
        let verdict = known.verdict.as_ref()?;
        let carried = |reach: &Reach| reach.carried(mode, known.tunnel);
        Some(verdict.as_ref().map(carried).map_err(Clone::clone))
    }

    /// What the speaker is to be told.
    pub(super) fn untold(&self) -> Vec<(IpAddr, Option<u32>)> {
        self.untold
            .iter()
            .map(|(address, cost)| (*address, *cost))
            .collect()
    }

    /// It was told that.
    pub(super) fn sent(&mut self) {
        self.untold.clear();
        self.sent += 1;
    }

    /// The speaker has acted upon what it was told so many times.
    pub(super) fn taken(&mut self, times: u64) {
        self.taken = times;
    }

    /// The speaker has still to act upon something.
    pub(super) fn speaker_is_behind(&self) -> bool {
        !self.untold.is_empty() || self.taken < self.sent
    }

    /// Those that can't be reached, with the reason.
    pub(super) fn unreachable(&self) -> BTreeMap<IpAddr, String> {
        let unreachable = |(address, known): (&IpAddr, &Known)| {
            let error = known.verdict.as_ref()?.as_ref().err()?;
            Some((*address, error.to_string()))
        };
        self.known.iter().filter_map(unreachable).collect()
    }

    /// How many can be reached, and how many can't.
    pub(super) fn count(&self) -> (usize, usize) {
        let reachable = |known: &&Known| matches!(known.verdict, Some(Ok(_)));
        let reachable = self.known.values().filter(reachable).count();
        (reachable, self.known.len() - reachable)
    }
}

/// A change of fortune is worth a line; that a next hop is there at first is not.
fn log(address: IpAddr, before: Option<&Verdict>, now: &Verdict) {
    match (before, now) {
        (None | Some(Ok(_)), Err(error)) => tracing::warn!("{error}"),
        (Some(Err(_)), Ok(_)) => tracing::info!("next hop {address} can be reached"),
        (Some(Err(_)), Err(_)) | (None | Some(Ok(_)), Ok(_)) => {}
    }
}
