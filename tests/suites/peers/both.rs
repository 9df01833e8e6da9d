//! Graceful restart with IPv6, and with both families at once: each family is kept, told anew and swept for itself.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bgp::config::SpeakerConfig;
use bgp_wire::Attributes;
use ipnet::IpNet;
use lab::peer::{Announcement, Config, Family, Kind, Restart};
use lab::wait;
use tests::same;

use crate::bench::{Bench, LIMIT, OURS, OURS6, THEIRS, THEIRS6, originate};
use crate::families::session;
use crate::restart::{RESTART_TIME, restart_peer};

/// A family's routes: one that there is before and after, and one that there is before only; ours, then theirs.
struct Routes {
    family: Family,
    ours: [&'static str; 2],
    theirs: [&'static str; 2],
    next_hop: IpAddr,
}

const IPV4: Routes = Routes {
    family: Family::Ipv4,
    ours: ["10.244.1.0/24", "10.244.2.0/24"],
    theirs: ["10.245.1.0/24", "10.245.2.0/24"],
    next_hop: THEIRS,
};
const IPV6: Routes = Routes {
    family: Family::Ipv6,
    ours: ["fd00:244:1::/48", "fd00:244:2::/48"],
    theirs: ["fd00:245:1::/48", "fd00:245:2::/48"],
    next_hop: THEIRS6,
};

/// Both ends of a session, its addresses, and its families.
struct Pair {
    ours: SpeakerConfig,
    theirs: Config,
    address: IpAddr,
    families: &'static [Routes],
}

impl Pair {
    fn new(
        bench: &Bench,
        (here, there): (IpAddr, IpAddr),
        families: &'static [Routes],
    ) -> Result<Self> {
        let names: Vec<Family> = families.iter().map(|it| it.family).collect();
        let (mut ours, mut theirs) = session(bench, (here, there), &names)?;
        for peer in ours.peers.values_mut() {
            peer.graceful_restart = Some(Duration::from_secs(RESTART_TIME.into()));
        }
        theirs.neighbours[0].restart = Restart::On(RESTART_TIME);
        theirs.routes.clear();
        for routes in families {
            for route in routes.ours {
                originate(&mut ours, route, Attributes::originated())?;
            }
            for route in routes.theirs {
                theirs.routes.push(Announcement {
                    next_hop: Some(routes.next_hop),
                    ..Announcement::new(route.parse()?)
                });
            }
        }
        Ok(Self {
            ours,
            theirs,
            address: here,
            families,
        })
    }

    /// Ours without the routes that there are before the restart only.
    fn after(&self) -> Result<SpeakerConfig> {
        let mut ours = self.ours.clone();
        for routes in self.families {
            let gone: IpNet = routes.ours[1].parse()?;
            ours.originated.remove(&gone);
        }
        Ok(ours)
    }

    /// A session on which everything has been told, and said to be complete.
    fn begin(&self, bench: &mut Bench) -> Result<()> {
        // A link that was down still has its addresses.
        for interfaces in ["all", "default", "cable"] {
            let name = format!("ipv6/conf/{interfaces}/keep_addr_on_down");
            bench.them.sysctl(&name, "1")?;
        }
        bench.start_peer(&self.theirs)?;
        bench.speak(self.ours.clone(), false)?;
        bench.wait_up_with(self.address)?;
        let tells_all = bench.kind != Kind::Openbgpd || self.families.len() == 1;
        for routes in self.families {
            for route in routes.ours {
                bench.they_learn(route, |_| Ok(()))?;
            }
            // Of the family that the connection is not of, OpenBGPD tells nothing.
            for route in routes.theirs {
                if tells_all {
                    bench.we_learn(route, |_| Ok(()))?;
                }
            }
        }
        wait::until("both in sync", LIMIT, || {
            ensure!(bench.status()?.synced, "no End-of-RIB yet");
            Ok(())
        })?;
        for routes in self.families {
            wait::until("our End-of-RIB", LIMIT, || {
                ensure!(ends_of_rib(bench, routes.family)? > 0, "not yet");
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// How many End-of-RIBs for a family they have logged; for both where their log doesn't say which.
fn ends_of_rib(bench: &mut Bench, family: Family) -> Result<usize> {
    let log = bench.peer()?.log()?;
    let (words, name) = match (bench.kind, family) {
        (Kind::Bird, _) => ("Got END-OF-RIB", ""),
        (Kind::Frr, Family::Ipv4) => ("rcvd End-of-RIB for IPv4 Unicast", ""),
        (Kind::Frr, Family::Ipv6) => ("rcvd End-of-RIB for IPv6 Unicast", ""),
        (Kind::Gobgp, Family::Ipv4) => ("EOR", "ipv4-unicast"),
        (Kind::Gobgp, Family::Ipv6) => ("EOR", "ipv6-unicast"),
        (Kind::Openbgpd, Family::Ipv4) => ("received IPv4 unicast EOR marker", ""),
        (Kind::Openbgpd, Family::Ipv6) => ("received IPv6 unicast EOR marker", ""),
        (Kind::Exabgp, _) => ("", ""),
    };
    let lines = log.lines();
    let found = lines.filter(|line| line.contains(words) && line.contains(name));
    Ok(found.count())
}

fn we_restart(bench: &mut Bench, pair: &Pair) -> Result<()> {
    pair.begin(bench)?;
    let mut before = Vec::new();
    for routes in pair.families {
        before.push(ends_of_rib(bench, routes.family)?);
    }
    bench.abandon()?;
    for routes in pair.families {
        for route in routes.ours {
            bench.they_learn(route, |route| same("stale", &route.stale, &true))?;
        }
    }
    bench.speak(pair.after()?, true)?;
    bench.wait_up_with(pair.address)?;
    for (routes, before) in pair.families.iter().zip(before) {
        bench.they_learn(routes.ours[0], |route| same("stale", &route.stale, &false))?;
        bench.they_lose(routes.ours[1])?;
        // BIRD's lines don't say of which family they are.
        let lines = if bench.kind == Kind::Bird {
            pair.families.len()
        } else {
            1
        };
        let wanted = before + lines;
        let after = ends_of_rib(bench, routes.family)?;
        ensure!(after >= wanted, "{after} End-of-RIBs, {before} before");
    }
    Ok(())
}

/// The mark on a route of theirs at our end.
fn stale(bench: &Bench, prefix: &str) -> Result<bool> {
    let prefix: IpNet = prefix.parse()?;
    let routes = bench.routes()?;
    let route = routes.iter().find(|route| route.prefix == prefix);
    let path = route.and_then(|route| route.paths.first());
    Ok(path.context("the route is gone")?.stale)
}

fn they_restart(bench: &mut Bench, pair: &Pair) -> Result<()> {
    pair.begin(bench)?;
    bench.peer()?.kill()?;
    bench.wait_down()?;
    for routes in pair.families {
        for route in routes.theirs {
            wait::until("the mark", LIMIT, || {
                same("stale", &stale(bench, route)?, &true)
            })?;
        }
    }
    for routes in pair.families {
        bench.peer()?.forget(routes.theirs[1].parse()?)?;
    }
    restart_peer(bench)?;
    bench.wait_up_with(pair.address)?;
    for routes in pair.families {
        wait::until("the mark's end", LIMIT, || {
            same("stale", &stale(bench, routes.theirs[0])?, &false)
        })?;
        bench.we_lose(routes.theirs[1])?;
        bench.they_learn(routes.ours[0], |_| Ok(()))?;
        let prefix: IpNet = routes.theirs[0].parse()?;
        let dropped = bench.told(|told| {
            let mut changes = told.changes.iter();
            changes.any(|change| change.prefix == prefix && change.next_hops.is_empty())
        })?;
        ensure!(!dropped, "{prefix} was out of use for a moment");
    }
    Ok(())
}

pub(crate) fn we_restart_ipv6(bench: &mut Bench) -> Result<()> {
    let pair = Pair::new(bench, (OURS6, THEIRS6), &[IPV6])?;
    we_restart(bench, &pair)
}

pub(crate) fn we_restart_both(bench: &mut Bench) -> Result<()> {
    let pair = Pair::new(bench, (OURS, THEIRS), &[IPV4, IPV6])?;
    we_restart(bench, &pair)
}

pub(crate) fn they_restart_ipv6(bench: &mut Bench) -> Result<()> {
    let pair = Pair::new(bench, (OURS6, THEIRS6), &[IPV6])?;
    they_restart(bench, &pair)
}

pub(crate) fn they_restart_both(bench: &mut Bench) -> Result<()> {
    let pair = Pair::new(bench, (OURS, THEIRS), &[IPV4, IPV6])?;
    they_restart(bench, &pair)
}
