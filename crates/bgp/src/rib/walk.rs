//! What concerns every net: a walk through the table, a bounded piece at a time.
//!
//! When a session is lost, a policy changes, or a next hop goes, any number of nets have to be looked at. No input does that:
//! it notes what is due, and [`Rib::work`] goes on from where it was, net by net in the order of their indices and round and
//! round, with all that is due done at each net in one. A job is done when the walk has come round to where it was when the
//! job came. So what waits is a position, however many jobs and nets there are, and a job that comes while
//! others are under way costs no walk of its own.
//!
//! Meanwhile the table may be asked and changed as ever. Rules are in force at once for whatever is decided from then on,
//! and dead paths lose against all others; a net that the walk has yet to come by has what was best before.

use super::choose::{World, may_share, release, retain};
use super::import::{Identity, Judges};
use super::list::{BEST, MED};
use super::pages::NONE;
use super::path::Path;
use super::peer::{JUDGE, PeerIndex, RETELL, SWEEP};
use super::table::Table;
use super::{FAMILIES, Rib};

/// How much one turn may do, in units of one look at a net or a path: about a millisecond.
pub(super) const TURN: u32 = if cfg!(test) { 1 << 10 } else { 1 << 14 };
/// Units for a net at which there is something to do.
const DEED: u32 = 4;

/// What has to be done at every net that it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Of this peer: [`SWEEP`], [`JUDGE`] or [`RETELL`].
    Peer(PeerIndex, u8),
    /// Paths are compared by other rules.
    Decide,
    /// The costs of some next hops are others.
    Reconsider,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    what: What,
    /// Where the walk was when it came.
    from: u32,
    /// The walk has been at the end since.
    wrapped: bool,
}

/// Where the walk is, and what for.
#[derive(Debug, Default)]
pub(super) struct Walk {
    hand: u32,
    jobs: Vec<Job>,
}

/// What is due at every net.
#[derive(Debug, Clone, Copy, Default)]
struct Everywhere {
    decide: bool,
    reconsider: bool,
    /// Something of some peers.
    peers: bool,
}

impl Walk {
    fn add(&mut self, what: What) {
        self.jobs.retain(|job| job.what != what);
        self.jobs.push(Job {
            what,
            from: self.hand,
            wrapped: false,
        });
    }

    fn has(&self, what: What) -> bool {
        self.jobs.iter().any(|job| job.what == what)
    }

    /// Some nets may not be as they are going to be.
    pub(super) fn is_under_way(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// The index to stop at: some job is done there.
    fn stop(&self) -> u32 {
        let wrapped = self.jobs.iter().filter(|job| job.wrapped);
        wrapped.map(|job| job.from).min().unwrap_or(u32::MAX)
    }

    /// The walk has come to the table's end, and begins anew.
    fn wrap(&mut self) {
        self.hand = 0;
        // A table that has shrunk: there is nothing left of it behind here.
        self.jobs.retain(|job| !job.wrapped);
        for job in &mut self.jobs {
            job.wrapped = true;
        }
    }

    fn everywhere(&self) -> Everywhere {
        Everywhere {
            decide: self.has(What::Decide),
            reconsider: self.has(What::Reconsider),
            peers: self
                .jobs
                .iter()
                .any(|job| matches!(job.what, What::Peer(..))),
        }
    }
}

impl Rib {
    /// Whether there is something for [`work`](Self::work) to do.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let busy =
            |table: &Table| table.walk.is_under_way() || table.uncollected || table.cut_short;
        self.tables.iter().any(busy)
    }

    /// Whether other paths may yet be chosen though nothing more arrives: next hops, policies or the rules of decision
    /// have changed, and not every route was looked at since.
    #[must_use]
    pub fn is_choosing(&self) -> bool {
        let jobs = self.tables.iter().flat_map(|table| &table.walk.jobs);
        jobs.into_iter().any(|job| match job.what {
            What::Decide | What::Reconsider => true,
            What::Peer(_, what) => what == JUDGE,
        })
    }

    /// Whether the answers about next hops have not had all their consequences yet.
    #[must_use]
    pub fn is_reconsidering(&self) -> bool {
        let mut walks = self.tables.iter().map(|table| &table.walk);
        walks.any(|walk| walk.has(What::Reconsider))
    }

    /// How much [`work`](Self::work) does at a time: nets and paths looked at. Less makes for shorter turns, and more of them.
    pub fn set_turn(&mut self, looks: u32) {
        self.turn = looks.max(1);
    }

    /// Goes on with what concerns all routes, as far as one turn goes: a bounded piece, however many routes there are. To be
    /// called until [`has_work`](Self::has_work) says no; everything else may happen in between.
    pub fn work(&mut self) {
        let mut budget = self.turn;
        let clusters = std::mem::take(&mut self.clusters);
        let identity = Identity {
            asn: self.asn,
            router_id: self.router_id,
            clusters: &clusters,
        };
        for slot in 0..FAMILIES.len() {
            let (table, mut world) = self.table(slot);
            let done = table.go_round(&mut world, identity, &mut budget);
            table.collect();
            // Whoever was cut short is asked again.
            table.cut_short = false;
            self.finish(slot, &done);
        }
        self.clusters = clusters;
        if !self.is_reconsidering() {
            self.attrs.settle_costs();
        }
    }

    /// Has every net looked at for this.
    pub(super) fn walk_all(&mut self, what: What) {
        for table in &mut self.tables {
            if table.nets.len() > 0 {
                table.walk.add(what);
            }
        }
    }

    /// Has the peer's paths of a family looked at for this.
    pub(super) fn walk_peer(&mut self, peer: PeerIndex, slot: usize, what: u8) {
        let Some(paths) = self.peers.get(peer).map(|peer| peer.paths[slot]) else {
            return;
        };
        let some = match what {
            SWEEP => paths.dead(),
            RETELL => paths.best,
            _ => paths.all(),
        };
        if some > 0 {
            self.peers.set_due(peer, slot, what, true);
            self.tables[slot].walk.add(What::Peer(peer, what));
        }
    }

    /// Walks on until a label is free that the peer's paths of a family can have. It takes dozens of sessions, each with routes
    /// and lost again, in the time of one walk to come to this.
    pub(super) fn free_label(&mut self, peer: PeerIndex, slot: usize) {
        while self.is_out_of_labels(peer, slot) && self.has_work() {
            self.work();
        }
    }

    pub(super) fn is_out_of_labels(&self, peer: PeerIndex, slot: usize) -> bool {
        let peer = self.peers.get(peer);
        peer.is_some_and(|peer| peer.paths[slot].is_out_of_labels())
    }

    fn finish(&mut self, slot: usize, done: &[What]) {
        for what in done {
            if let What::Peer(peer, what) = *what {
                debug_assert!(
                    what != SWEEP
                        || self
                            .peers
                            .get(peer)
                            .is_none_or(|peer| peer.paths[slot].dead() == 0),
                    "the walk came round, and left dead paths"
                );
                self.peers.set_due(peer, slot, what, false);
                self.forget_if_empty(peer);
            }
        }
    }
}

impl Table {
    /// Walks as far as the budget goes; says which jobs are done.
    fn go_round(
        &mut self,
        world: &mut World<'_>,
        identity: Identity<'_>,
        budget: &mut u32,
    ) -> Vec<What> {
        let mut judges = Judges::new(identity);
        let before: Vec<What> = self.walk.jobs.iter().map(|job| job.what).collect();
        while *budget > 0 && !self.walk.jobs.is_empty() {
            let stop = self.walk.stop();
            let everywhere = self.walk.everywhere();
            world.peers.relieved = false;
            while *budget > 0
                && !world.peers.relieved
                // Asked each time: nets go, and with the last one all indices.
                && self.walk.hand < stop.min(self.nets.end())
            {
                let cost = self.visit(world, &mut judges, self.walk.hand, everywhere);
                *budget = budget.saturating_sub(cost);
                self.walk.hand += 1;
            }
            if self.walk.hand >= self.nets.end() {
                self.walk.wrap();
            }
            let (hand, slot) = (self.walk.hand, self.slot);
            self.walk.jobs.retain(|job| {
                let needless = match job.what {
                    What::Peer(peer, what) => world.peers.due(peer, slot) & what == 0,
                    What::Decide | What::Reconsider => false,
                };
                let round = job.wrapped && hand >= job.from;
                !needless && !round
            });
        }
        judges.finish(world.attrs);
        let left = &self.walk;
        before.into_iter().filter(|what| !left.has(*what)).collect()
    }

    /// Does at one net what is due there; says how much that was.
    fn visit(
        &mut self,
        world: &mut World<'_>,
        judges: &mut Judges<'_>,
        net: u32,
        everywhere: Everywhere,
    ) -> u32 {
        let mut looks = 1;
        if !self.nets[net].is_net() {
            return looks;
        }
        let mut something = everywhere.decide;
        let mut reconsidered = false;
        let mut at = self.nets[net].head();
        while at != NONE && !something {
            let path = &self.paths[at];
            looks += 1;
            something = everywhere.peers && self.concerns(world, path);
            reconsidered |= everywhere.reconsider
                && path
                    .accepted()
                    .is_some_and(|id| world.attrs.is_reconsidered(id));
            at = path.next;
        }
        let again = everywhere.peers
            && self
                .best(net)
                .is_some_and(|(_, source)| world.peers.due(source, self.slot) & RETELL != 0);
        if something || reconsidered {
            // Where policy or death takes part it may be that not all were asked.
            let shared =
                everywhere.decide || (everywhere.reconsider && world.decision.is_multipath());
            looks += self.revise(world, judges, net, everywhere.peers, (shared, again));
        } else if again {
            self.changed(net, true, false);
        } else {
            return looks;
        }
        looks * DEED
    }

    /// Whether a path is due for anything but being told again.
    fn concerns(&self, world: &World<'_>, path: &Path) -> bool {
        let due = world.peers.due(path.peer(), self.slot);
        due & JUDGE != 0 || (due & SWEEP != 0 && world.peers.is_dead(path, self.slot))
    }

    /// Decides anew; `due`: something may be due for some paths. `shared`: traffic may be split otherwise than before though
    /// the best path is the same; `again`: it is to be told anew. Says how many paths were looked at.
    fn revise(
        &mut self,
        world: &mut World<'_>,
        judges: &mut Judges<'_>,
        net: u32,
        due: bool,
        (mut shared, again): (bool, bool),
    ) -> u32 {
        let before = self.best(net);
        let mut looks = 0;
        if due {
            let (paths, split) = self.do_what_is_due(world, judges, net);
            looks += paths;
            shared |= split;
        }
        self.reselect(world.facts(), net);
        let after = self.best(net);
        if before != after {
            self.best_changed(world.peers, net, before, after);
        } else if after.is_some() && (again || shared) {
            self.changed(net, again, false);
        }
        if self.nets[net].head() == NONE {
            self.bury(net);
        }
        looks
    }

    /// Takes dead paths away and asks policy again. Says how many paths were looked at, and whether traffic may be split
    /// otherwise than before.
    fn do_what_is_due(
        &mut self,
        world: &mut World<'_>,
        judges: &mut Judges<'_>,
        net: u32,
    ) -> (u32, bool) {
        let multipath = world.decision.is_multipath();
        // With MEDs about, any path may decide which others count as equal.
        let mut shared = multipath && self.nets[net].has(MED);
        let best = self.best(net).filter(|_| multipath).and_then(|_| {
            let best = &self.paths[self.nets[net].head()];
            world.facts().key_dead_or_alive(best)
        });
        let mut looks = 0;
        let (mut previous, mut at) = (NONE, self.nets[net].head());
        while at != NONE {
            looks += 1;
            let path = self.paths[at];
            let due = world.peers.due(path.peer(), self.slot);
            if due & SWEEP != 0 && world.peers.is_dead(&path, self.slot) {
                shared |= best.is_some_and(|best| may_share(world, &path, &best));
                self.unchain(net, previous, at);
                world.peers.count(&path, self.slot, -1);
                release(world, &path);
            } else {
                previous = at;
                if due & JUDGE != 0 {
                    let judged = judges.judge(world, path, self.prefix(net));
                    if judged != path {
                        shared |= best.is_some_and(|best| {
                            may_share(world, &path, &best) || may_share(world, &judged, &best)
                        });
                        self.paths[at] = judged;
                        retain(world, &judged);
                        world.peers.count(&judged, self.slot, 1);
                        world.peers.count(&path, self.slot, -1);
                        release(world, &path);
                    }
                }
            }
            at = path.next;
        }
        (looks, shared)
    }

    /// Takes a path out of its chain, whose one before it is `previous`.
    pub(super) fn unchain(&mut self, net: u32, previous: u32, at: u32) {
        let next = self.paths[at].next;
        if previous == NONE {
            self.nets[net].set_head(next);
            self.nets[net].set(BEST, false);
        } else {
            self.paths[previous].next = next;
        }
        self.paths.remove(at);
    }
}
