//! When tunnel devices come and go, and when packets may go through them. Pure: [`super::thread`] carries the operations out.
//!
//! Nodes learn of a new configuration one after the other. So a device that a pool has just begun to want takes packets at
//! once, and sends them a little later, when the other nodes have theirs; and one that nobody wants any more stays a while for
//! those who have not heard yet. A node that has no routes yet has nothing to wait for.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use dataplane::{LinkIndex, Links, Tunnel, TunnelKind, TunnelOp, tunnel};
use node::Devices;

/// How long a new device only takes packets.
const OPENING: Duration = Duration::from_secs(5);
/// How long one that nobody wants stays.
const LEAVING: Duration = Duration::from_secs(30);
/// The pause after the first refusal; it doubles.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause: a module that was installed meanwhile is found then.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Both kinds.
#[derive(Debug)]
pub(super) struct Tunnels {
    ipip: Keeper,
    ip6ip6: Keeper,
}

/// One kind of tunnel.
#[derive(Debug)]
struct Keeper {
    kind: TunnelKind,
    wanted: Option<Tunnel>,
    /// Packets may go through it as long as it is there.
    open: bool,
    opens_at: Option<Instant>,
    leaves_at: Option<Instant>,
    trouble: Option<String>,
    retry: Duration,
    retry_at: Option<Instant>,
}

/// A device as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// What is wrapped in what.
    pub kind: TunnelKind,
    /// As it should be; `None` when nobody wants it any more, or it can't be had.
    pub wanted: Option<Tunnel>,
    /// It is there.
    pub present: bool,
    /// Packets may go through it.
    pub open: bool,
    /// Why it is not as it should be.
    pub trouble: Option<String>,
}

/// What a turn is about.
pub(super) struct Situation<'a> {
    pub(super) now: Instant,
    pub(super) tunnels: &'a node::Tunnels,
    pub(super) links: &'a Links,
    /// Whether there are routes already that lead somewhere without tunnels.
    pub(super) established: &'a dyn Fn() -> bool,
}

impl Default for Tunnels {
    fn default() -> Self {
        let [ipip, ip6ip6] = TunnelKind::ALL.map(Keeper::new);
        Self { ipip, ip6ip6 }
    }
}

impl Tunnels {
    fn keepers(&self) -> [&Keeper; 2] {
        [&self.ipip, &self.ip6ip6]
    }

    fn keeper(&mut self, kind: TunnelKind) -> &mut Keeper {
        match kind {
            TunnelKind::Ipip => &mut self.ipip,
            TunnelKind::Ip6ip6 => &mut self.ip6ip6,
        }
    }

    /// What is to be done now. Each operation must come back by [`applied`](Self::applied).
    pub(super) fn turn(
        &mut self,
        situation: &Situation<'_>,
        in_use: impl Fn(LinkIndex) -> bool,
    ) -> Vec<(TunnelKind, TunnelOp)> {
        let mut ops = Vec::new();
        for kind in TunnelKind::ALL {
            let todo = self.keeper(kind).turn(situation, &in_use);
            ops.extend(todo.into_iter().map(|op| (kind, op)));
        }
        ops
    }

    /// What came of an operation. True when it is another failure than the last, worth a line in the log.
    pub(super) fn applied(
        &mut self,
        kind: TunnelKind,
        result: Result<(), String>,
        now: Instant,
    ) -> bool {
        self.keeper(kind).applied(result, now)
    }

    /// The devices that packets may go through.
    pub(super) fn devices(&self, links: &Links) -> Devices {
        Devices {
            ipip: self.ipip.usable(links),
            ip6ip6: self.ip6ip6.usable(links),
        }
    }

    /// Some device of ours is there, whether or not anybody wants it: somebody must look at who sends to it.
    pub(super) fn any_present(links: &Links) -> bool {
        let mut kinds = TunnelKind::ALL.into_iter();
        kinds.any(|kind| present(kind, links).is_some())
    }

    /// When to take another turn though nothing has happened.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let times = |keeper: &Keeper| [keeper.opens_at, keeper.leaves_at, keeper.retry_at];
        let all = self.keepers().into_iter().flat_map(times);
        all.flatten().min()
    }

    /// Devices that are wanted or still there.
    pub(super) fn status(&self, links: &Links) -> Vec<DeviceStatus> {
        let status = |keeper: &Keeper| DeviceStatus {
            kind: keeper.kind,
            wanted: keeper.wanted,
            present: present(keeper.kind, links).is_some(),
            open: keeper.usable(links).is_some(),
            trouble: keeper.trouble.clone(),
        };
        let all = self.keepers().into_iter().map(status);
        all.filter(|it| it.wanted.is_some() || it.present || it.trouble.is_some())
            .collect()
    }

    /// Why packets can't go through a device of this kind, where something is wrong with it.
    pub(super) fn unavailable(&self, kind: TunnelKind) -> Option<&str> {
        let [ipip, ip6ip6] = self.keepers();
        let keeper = if kind == ipip.kind { ipip } else { ip6ip6 };
        let opening = keeper
            .opens_at
            .map(|_| "it opens in a moment, when the other nodes have theirs");
        keeper.trouble.as_deref().or(opening)
    }
}

fn present(kind: TunnelKind, links: &Links) -> Option<&dataplane::Link> {
    tunnel::device(kind, links).ok().flatten()
}

impl Keeper {
    fn new(kind: TunnelKind) -> Self {
        Self {
            kind,
            wanted: None,
            open: false,
            opens_at: None,
            leaves_at: None,
            trouble: None,
            retry: RETRY,
            retry_at: None,
        }
    }

    fn turn(
        &mut self,
        situation: &Situation<'_>,
        in_use: &impl Fn(LinkIndex) -> bool,
    ) -> Vec<TunnelOp> {
        let Situation {
            now,
            tunnels,
            links,
            established,
        } = *situation;
        let device = present(self.kind, links);
        let wanted = tunnels.device(self.kind, links);
        if self.retry_at.is_some_and(|at| at > now) && wanted == Ok(self.wanted) {
            return Vec::new();
        }
        self.retry_at = None;
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(trouble) => {
                self.trouble = Some(trouble);
                None
            }
        };
        self.wanted = wanted;
        if wanted.is_none() {
            (self.open, self.opens_at) = (false, None);
            if !tunnels.wants(self.kind) {
                self.trouble = None;
            }
            let Some(device) = device else {
                self.leaves_at = None;
                return Vec::new();
            };
            let leaves_at = *self.leaves_at.get_or_insert(now + LEAVING);
            if now < leaves_at {
                return Vec::new();
            }
            // Routes go first. Those that can't be replaced keep it.
            if in_use(device.index) {
                self.leaves_at = Some(now + LEAVING);
                return Vec::new();
            }
        } else {
            self.leaves_at = None;
            // One that is there was there for the other nodes too.
            self.open =
                self.open || self.opens_at.is_none() && (device.is_some() || !established());
            if !self.open {
                self.open = now >= *self.opens_at.get_or_insert(now + OPENING);
            }
            if self.open {
                self.opens_at = None;
            }
        }
        match tunnel::plan(self.kind, wanted, links) {
            Ok(ops) => {
                if ops.is_empty() && wanted.is_some() {
                    (self.trouble, self.retry) = (None, RETRY);
                }
                ops
            }
            Err(trouble) => {
                self.applied(Err(trouble), now);
                Vec::new()
            }
        }
    }

    fn applied(&mut self, result: Result<(), String>, now: Instant) -> bool {
        let Err(trouble) = result else { return false };
        self.retry_at = Some(now + self.retry);
        self.retry = (self.retry * 2).min(MAX_RETRY);
        let news = self.trouble.as_ref() != Some(&trouble);
        self.trouble = Some(trouble);
        news
    }

    fn usable(&self, links: &Links) -> Option<LinkIndex> {
        let device = present(self.kind, links)?;
        (self.open && device.up).then_some(device.index)
    }
}
