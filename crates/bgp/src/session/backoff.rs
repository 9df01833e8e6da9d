//! How long to wait before the next attempt: exponential, jittered, and forgetting only after success has lasted.

use std::time::Duration;

/// Longest pause between two dials, unless the configured one is longer: a top-of-rack router that only listens should
/// not be without its nodes for minutes after it came back.
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Longest pause after an error that was told by NOTIFICATION.
const MAX_IDLE_HOLD: Duration = Duration::from_secs(120);
/// First pause after such an error.
const MIN_IDLE_HOLD: Duration = Duration::from_secs(1);

/// Failures in a row, and the randomness that keeps thousands of speakers from moving in step.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            random: seed,
        }
    }

    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) fn clear(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Until the next dial: the configured time, doubled for each failure but the first.
    pub(crate) fn retry(&mut self, base: Duration) -> Duration {
        let pause = self.grown(base, MAX_RETRY.max(base));
        self.jitter(pause)
    }

    /// Until the session may start again after an error.
    pub(crate) fn idle_hold(&mut self) -> Duration {
        let pause = self.grown(MIN_IDLE_HOLD, MAX_IDLE_HOLD);
        self.jitter(pause)
    }

    /// `pause` times a random factor from 0.75 to 1.0 (RFC 4271 §10).
    pub(crate) fn jitter(&mut self, pause: Duration) -> Duration {
        // splitmix64: a jitter needs no better randomness, and a seed must replay.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let quarter = pause / 4;
        let share = u32::try_from((z ^ (z >> 31)) >> 40).unwrap_or(0);
        pause - quarter + quarter.mul_f64(f64::from(share) / f64::from(1_u32 << 24))
    }

    fn grown(&self, base: Duration, cap: Duration) -> Duration {
        let factor = 1_u32 << self.failures.saturating_sub(1).min(16);
        base.saturating_mul(factor).min(cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_bound_and_stays_jittered() {
        let mut backoff = Backoff::new(7);
        let base = Duration::from_secs(5);
        let mut seen = Vec::new();
        for _ in 0..8 {
            backoff.failed();
            let pause = backoff.retry(base);
            let expected = backoff.grown(base, MAX_RETRY);
            assert!(
                pause >= expected.mul_f64(0.75) && pause <= expected,
                "{pause:?} of {expected:?}"
            );
            seen.push(expected.as_secs());
        }
        assert_eq!(seen, [5, 10, 20, 30, 30, 30, 30, 30]);
        assert_ne!(backoff.jitter(base), backoff.jitter(base));
        backoff.clear();
        assert!(backoff.retry(base) <= base);
    }

    #[test]
    fn a_configured_time_above_the_bound_is_kept() {
        let mut backoff = Backoff::new(7);
        (0..40).for_each(|_| backoff.failed());
        assert!(backoff.retry(Duration::from_secs(100)) >= Duration::from_secs(75));
    }
}
