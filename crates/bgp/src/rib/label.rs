//! What there is of one peer in one family: which of its paths count, and how many there are.
//!
//! A path carries the label that was current when it was announced. A restart, or a refresh, makes another label the current
//! one, and with that all older paths stale at once. That stale paths are to go, or all paths of a session that is over,
//! is written in the labels too: the paths are dead from then on. They leave the table when the [walk](super::walk) comes by,
//! and a label is used again when none of its dead paths is left.

/// How many labels there are: as many as fit into a path's flags.
const LABELS: u8 = 64;

/// Paths of a peer in one family: their labels, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paths {
    current: u8,
    /// Labels of paths that count, by bit; the current one is among them.
    alive: u64,
    /// Labels that dead paths may still have.
    dying: u64,
    fresh: Tally,
    stale: Tally,
    dead: u32,
    /// Those that are the best of their net, dead ones among them.
    pub(super) best: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    all: u32,
    rejected: u32,
}

impl Tally {
    fn count(&mut self, rejected: bool, by: i32) {
        self.all = self.all.saturating_add_signed(by);
        if rejected {
            self.rejected = self.rejected.saturating_add_signed(by);
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            current: 0,
            alive: 1,
            dying: 0,
            fresh: Tally::default(),
            stale: Tally::default(),
            dead: 0,
            best: 0,
        }
    }
}

impl Paths {
    /// The label of what is announced now.
    pub(super) fn label(&self) -> u8 {
        self.current
    }

    pub(super) fn is_dead(&self, label: u8) -> bool {
        self.alive >> label & 1 == 0
    }

    pub(super) fn is_stale(&self, label: u8) -> bool {
        label != self.current
    }

    /// How many paths count.
    pub(super) fn all(&self) -> u32 {
        self.fresh.all + self.stale.all
    }

    /// Those of them that may not be used.
    pub(super) fn rejected(&self) -> u32 {
        self.fresh.rejected + self.stale.rejected
    }

    pub(super) fn dead(&self) -> u32 {
        self.dead
    }

    /// Nothing is in the table any more.
    pub(super) fn is_empty(&self) -> bool {
        self.all() == 0 && self.dead == 0
    }

    /// Paths come (1) or go (-1). Whether the last dead one is gone.
    pub(super) fn count(&mut self, label: u8, rejected: bool, by: i32) -> bool {
        if self.is_dead(label) {
            self.dead = self.dead.saturating_add_signed(by);
            if self.dead == 0 {
                self.dying = 0;
                return true;
            }
        } else if self.is_stale(label) {
            self.stale.count(rejected, by);
        } else {
            self.fresh.count(rejected, by);
        }
        false
    }

    /// Whether [`age`](Self::age) needs a label, and there is none: not before dead paths are gone.
    pub(super) fn is_out_of_labels(&self) -> bool {
        self.fresh.all > 0 && self.free().is_none()
    }

    fn free(&self) -> Option<u8> {
        let taken = self.alive | self.dying;
        (0..LABELS).find(|label| taken >> label & 1 == 0)
    }

    /// What was announced until now is stale. Changes nothing where there is no label for it.
    pub(super) fn age(&mut self) {
        if self.fresh.all == 0 {
            return;
        }
        let Some(label) = self.free() else { return };
        self.current = label;
        self.alive |= 1 << label;
        self.stale.all += self.fresh.all;
        self.stale.rejected += self.fresh.rejected;
        self.fresh = Tally::default();
    }

    /// What is stale is dead. Whether there was any.
    pub(super) fn kill_stale(&mut self) -> bool {
        let stale = std::mem::take(&mut self.stale);
        let current = 1 << self.current;
        if stale.all > 0 {
            self.dying |= self.alive & !current;
            self.dead += stale.all;
        }
        self.alive = current;
        stale.all > 0
    }
}

#[cfg(test)]
mod tests {
    use super::Paths;

    #[test]
    fn labels_come_back_when_their_paths_are_gone() {
        let mut paths = Paths::default();
        let mut rounds = 0;
        while !paths.is_out_of_labels() {
            paths.count(paths.label(), false, 1);
            paths.count(paths.label(), true, 1);
            if paths.is_out_of_labels() {
                break;
            }
            let old = paths.label();
            paths.age();
            assert!(paths.is_stale(old) && !paths.is_dead(old));
            assert!(paths.kill_stale());
            assert!(paths.is_dead(old));
            rounds += 1;
            assert_eq!(paths.dead(), 2 * rounds);
        }
        assert_eq!(rounds, 63);
        assert_eq!((paths.all(), paths.rejected()), (2, 1));
        let dead: Vec<u8> = (0..64).filter(|label| paths.is_dead(*label)).collect();
        for label in dead {
            for rejected in [false, true] {
                paths.count(label, rejected, -1);
            }
        }
        assert_eq!(paths.dead(), 0);
        assert!(!paths.is_out_of_labels());
    }

    #[test]
    fn without_paths_no_label_is_used_up() {
        let mut paths = Paths::default();
        for _ in 0..1000 {
            paths.age();
            assert!(!paths.kill_stale());
        }
        assert_eq!(paths.label(), 0);
    }
}
