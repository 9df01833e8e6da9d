//! What is counted about ADD and DEL; exported by the agent's metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the duration buckets, in seconds.
pub const BUCKETS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Counters of the pods threads.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Attachments asked for.
    pub add: Operation,
    /// Detachments asked for.
    pub del: Operation,
    /// Endpoints whose link went without a DEL: its namespace died, or somebody deleted it.
    pub vanished: AtomicU64,
    /// Endpoints that were taken down since their container was gone without a DEL.
    pub collected: AtomicU64,
}

/// Outcomes and durations of one verb, measured from the request's arrival to its answer.
#[derive(Debug, Default)]
pub struct Operation {
    /// Done.
    pub succeeded: AtomicU64,
    /// Answered with an error.
    pub failed: AtomicU64,
    /// Put off: the agent was starting, or had too much to do.
    pub deferred: AtomicU64,
    /// Time taken in all, in nanoseconds.
    pub nanoseconds: AtomicU64,
    /// How many took at most each of [`BUCKETS`] but more than the one before; the last took longer than all.
    pub buckets: [AtomicU64; BUCKETS.len() + 1],
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
    Deferred,
}

impl Operation {
    pub(crate) fn record(&self, outcome: Outcome, duration: Duration) {
        let counter = match outcome {
            Outcome::Succeeded => &self.succeeded,
            Outcome::Failed => &self.failed,
            Outcome::Deferred => &self.deferred,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        let bucket = BUCKETS
            .iter()
            .position(|bound| duration.as_secs_f64() <= *bound)
            .unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }
}
