//! How often a node's status is written. Together the nodes of a cluster write at a bounded rate, however many there are.

use std::time::Duration;

use tokio::time::Instant;

/// Each node's share of time: this many nodes' worth of it is how long one waits between two writes, on average.
const SHARE: Duration = Duration::from_millis(20);
/// The shortest and the longest of such waits.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(120);
/// What only counts has more patience: so many times the wait, and at least this long.
const PATIENT: u32 = 6;
const COUNTS: Duration = Duration::from_secs(60);
/// A status is written again after this long although nothing has changed: somebody may have deleted it.
const AGAIN: Duration = Duration::from_secs(600);

/// What a new status has that the one written last had not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Nothing.
    None,
    /// Other counts.
    Counts,
    /// Another state of something.
    State,
}

/// Says when to write.
#[derive(Debug)]
pub struct Pace {
    /// The last write, or the start.
    last: Instant,
    /// The first has not been written yet.
    first: bool,
    /// From 0.5 to 1.5, another one for each wait.
    jitter: f64,
    random: fn() -> f64,
}

impl Pace {
    /// Begins. `random` gives numbers from 0 to 1.
    #[must_use]
    pub fn new(now: Instant, random: fn() -> f64) -> Self {
        let (last, first, jitter) = (now, true, 0.5 + random());
        Self {
            last,
            first,
            jitter,
            random,
        }
    }

    /// Whether to write now. What isn't written now is asked for again.
    #[must_use]
    pub fn is_due(&self, difference: Difference, nodes: usize, now: Instant) -> bool {
        let share = SHARE
            .saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX))
            .clamp(SHORTEST, LONGEST);
        let wait = match difference {
            // All nodes may have started together.
            _ if self.first => share,
            Difference::State => share,
            Difference::Counts => (share * PATIENT).max(COUNTS),
            Difference::None => AGAIN,
        };
        now.duration_since(self.last) >= wait.mul_f64(self.jitter)
    }

    /// It was written, or at least tried.
    pub fn written(&mut self, now: Instant) {
        (self.last, self.first) = (now, false);
        self.jitter = 0.5 + (self.random)();
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "somewhere time begins")]
mod tests {
    use super::*;

    fn half() -> f64 {
        0.5
    }

    /// How many writes a second all nodes make together, if each has something new all the time.
    fn rate(nodes: usize, difference: Difference) -> f64 {
        let start = Instant::from_std(std::time::Instant::now());
        let mut pace = Pace::new(start, half);
        let (mut writes, steps) = (0_u32, 36_000_u32);
        for step in 0..steps {
            let now = start + Duration::from_millis(100) * step;
            if pace.is_due(difference, nodes, now) {
                pace.written(now);
                writes += 1;
            }
        }
        f64::from(writes) * nodes as f64 / 3600.0
    }

    #[test]
    fn the_cluster_writes_at_a_bounded_rate() {
        for nodes in [100, 1000, 5000] {
            let rate = rate(nodes, Difference::State);
            assert!((40.0..=51.0).contains(&rate), "{nodes} nodes: {rate}/s");
        }
        assert!(rate(5000, Difference::Counts) <= 10.0);
        assert!(rate(5000, Difference::None) <= 10.0);
        assert!(rate(10, Difference::State) <= 5.1);
    }
}
