//! How long until a key is tried again that the kernel refused, or that somebody else keeps removing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::slots::Slot;

/// First pause; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause after a refusal.
const LAST: Duration = Duration::from_secs(30);
/// Longest pause after a loss: traffic suffers from it, and one write in so many seconds harms nobody.
const LAST_AFTER_LOSS: Duration = Duration::from_secs(5);
/// Losses that are healed at once: an operator's mistake, a flush, a restart of another program.
const HEALED_AT_ONCE: u32 = 2;
/// Time after which a loss that was healed at once no longer counts.
const ONCE: Duration = Duration::from_secs(1);
/// Time that a key must stay put, once written again after a pause, for its losses to be forgiven.
const STAYS_PUT: Duration = Duration::from_secs(10);

/// The pause after so many refusals in a row.
pub(crate) fn after_refusals(before: u32, jitter: u64) -> Duration {
    pause(before, LAST, jitter)
}

/// Doubling, with a quarter of jitter either way, so that what failed together is not tried together.
fn pause(before: u32, last: Duration, jitter: u64) -> Duration {
    let base = FIRST.saturating_mul(1 << before.min(16)).min(last);
    let percent = u32::try_from(jitter % 51).unwrap_or_default();
    base * (75 + percent) / 100
}

/// The keys that were as desired lately, until somebody else took or changed them. Two programs that each want their own way
/// would write as fast as they can; one of them at least must slow down.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// How often in a row, and when that is forgiven.
    counts: BTreeMap<Slot, (u32, Instant)>,
    forgiven: BTreeSet<(Instant, Slot)>,
}

impl Losses {
    /// Counts a loss. Says how many there were in a row, and when to heal it if not at once.
    pub(crate) fn count(
        &mut self,
        slot: Slot,
        jitter: impl FnOnce(u32) -> u64,
        now: Instant,
    ) -> (u32, Option<Instant>) {
        self.forgive(now);
        let before = self.forget(slot);
        let count = before.saturating_add(1);
        let heal_at = before
            .checked_sub(HEALED_AT_ONCE)
            .map(|paused| now + pause(paused, LAST_AFTER_LOSS, jitter(count)));
        let until = heal_at.map_or(now + ONCE, |at| at + STAYS_PUT);
        self.counts.insert(slot, (count, until));
        self.forgiven.insert((until, slot));
        (count, heal_at)
    }

    /// Forgets what lies back long enough.
    pub(crate) fn forgive(&mut self, now: Instant) {
        while let Some(&(_, slot)) = self.forgiven.first().filter(|(until, _)| *until <= now) {
            self.forget(slot);
        }
    }

    /// Forgets the losses of a key. Says how many there were.
    pub(crate) fn forget(&mut self, slot: Slot) -> u32 {
        let Some((count, until)) = self.counts.remove(&slot) else {
            return 0;
        };
        self.forgiven.remove(&(until, slot));
        count
    }
}
