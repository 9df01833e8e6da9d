//! One kind of thing (routes, or neighbours) by key: what it should be, what the kernel has, and which keys need work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::OpError;
pub(crate) use crate::entry::Step;
use crate::entry::{Actual, Entry, Need};
use crate::pause::{self, Losses};
use crate::slots::{Slot, Slots};

/// How long until something is looked at again that may not be deleted yet.
const NOT_YET: Duration = Duration::from_millis(100);

/// Why a key is not as it should be, and when it is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// The last one.
    pub(crate) error: Option<OpError>,
    /// The next attempt, if nothing happens before.
    pub(crate) retry_at: Option<Instant>,
    /// Another program holds the key, by an event or by the kernel's refusal: its protocol, where known.
    pub(crate) foreign: Option<Option<u8>>,
    /// It waits not for a failure's sake but because it was lost so often in a row; else 0.
    pub(crate) losses: u32,
}

impl Trouble {
    /// The protocol of the program that holds the key, where one does: by an event, or by the kernel's last refusal.
    pub(crate) fn holder(&self) -> Option<Option<u8>> {
        self.foreign.or(match &self.error {
            Some(OpError::Foreign { protocol }) => Some(*protocol),
            _ => None,
        })
    }
}

/// A key as the operator sees it.
#[derive(Debug, Clone)]
pub(crate) struct View<'a, K, V> {
    pub(crate) key: K,
    pub(crate) desired: Option<&'a V>,
    pub(crate) actual: Option<&'a V>,
    pub(crate) trouble: Option<&'a Trouble>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    entries: Slots<K, Entry<V>>,
    /// What may need an addition or a replacement.
    upserts: VecDeque<Slot>,
    /// What may need a deletion.
    deletes: VecDeque<Slot>,
    /// What steps were given out for, in order.
    on_the_way: VecDeque<Slot>,
    /// What waits for something else to be there first.
    parked: Vec<Slot>,
    /// Only what fails or conflicts has an entry here, so that all else stays small.
    troubles: BTreeMap<Slot, Trouble>,
    retries: BTreeSet<(Instant, Slot)>,
    /// Outlives the troubles: a key that is lost time and again is well in between.
    losses: Losses,
    sweep: bool,
}

impl<K: Copy + Eq + Hash, V: Clone + Eq> Table<K, V> {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            entries: Slots::new(seed),
            upserts: VecDeque::new(),
            deletes: VecDeque::new(),
            on_the_way: VecDeque::new(),
            parked: Vec::new(),
            troubles: BTreeMap::new(),
            retries: BTreeSet::new(),
            losses: Losses::default(),
            sweep: false,
        }
    }

    /// Sets what a key should be; true when that is news.
    pub(crate) fn desire(&mut self, key: K, desired: Option<V>) -> bool {
        let slot = if desired.is_some() {
            self.entries.find_or_insert(key, Entry::new)
        } else {
            let Some(slot) = self.entries.find(&key) else {
                return false;
            };
            slot
        };
        let entry = &mut self.entries[slot];
        if entry.desired == desired {
            return false;
        }
        entry.inherited = false;
        entry.lost = false;
        let actual = std::mem::replace(&mut entry.actual, Actual::Absent);
        let before = std::mem::replace(&mut entry.desired, desired);
        entry.actual = match (actual, before) {
            (Actual::Desired, Some(before)) => entry.relate(Some(before)),
            (Actual::Other(value), _) => entry.relate(Some(*value)),
            (actual, _) => actual,
        };
        self.clear_trouble(slot);
        self.mark(slot);
        true
    }

    /// Takes in what the kernel has under a key, of ours. True when something that was as desired no longer is.
    pub(crate) fn observe(&mut self, key: K, actual: Option<V>) -> bool {
        let slot = if actual.is_some() {
            self.entries.find_or_insert(key, Entry::inherited)
        } else {
            let Some(slot) = self.entries.find(&key) else {
                return false;
            };
            slot
        };
        self.observe_at(slot, actual)
    }

    fn observe_at(&mut self, slot: Slot, actual: Option<V>) -> bool {
        let entry = &mut self.entries[slot];
        let before = entry.actual == Actual::Desired;
        entry.actual = entry.relate(actual);
        let after = entry.actual == Actual::Desired;
        entry.lost = !after && (before || entry.lost);
        if after {
            self.clear_trouble(slot);
        }
        self.mark(slot);
        before && !after
    }

    /// The kernel has something of ours under a key that we have no word for.
    pub(crate) fn observe_unknown(&mut self, key: K) {
        let slot = self.entries.find_or_insert(key, Entry::inherited);
        let entry = &mut self.entries[slot];
        entry.lost |= entry.actual == Actual::Desired;
        entry.actual = Actual::Unknown;
        entry.seen = true;
        self.mark(slot);
    }

    /// Begins a dump: until [`finish_load`](Self::finish_load), [`load`](Self::load) says all that the kernel has.
    pub(crate) fn begin_load(&mut self) {
        self.entries
            .values_mut()
            .for_each(|entry| entry.seen = false);
    }

    /// One entry of a dump. True when something that was as desired no longer is.
    pub(crate) fn load(&mut self, key: K, actual: V) -> bool {
        let slot = self.entries.find_or_insert(key, Entry::inherited);
        self.entries[slot].seen = true;
        self.observe_at(slot, Some(actual))
    }

    /// Ends a dump: what it did not hold is gone. Says how much that was as desired is not any more.
    pub(crate) fn finish_load(&mut self) -> usize {
        let gone = |entry: &Entry<V>| !entry.seen && entry.actual != Actual::Absent;
        let gone: Vec<Slot> = self
            .entries
            .iter()
            .filter_map(|(slot, _, entry)| gone(entry).then_some(slot))
            .collect();
        let lost = gone
            .into_iter()
            .map(|slot| usize::from(self.observe_at(slot, None)))
            .sum();
        // An event may have been lost that said that a key is free again.
        let held = |(slot, trouble): (&Slot, &Trouble)| trouble.retry_at.is_none().then_some(*slot);
        let held: Vec<Slot> = self.troubles.iter().filter_map(held).collect();
        held.into_iter().for_each(|slot| self.retry(slot));
        lost
    }

    /// Another program's route came to hold a key of ours, or left it.
    pub(crate) fn foreign(&mut self, key: K, holder: Option<Option<u8>>) {
        let Some(slot) = self.entries.find(&key) else {
            return;
        };
        if holder.is_some() {
            self.troubles.entry(slot).or_default().foreign = holder;
        } else {
            let pauses = |trouble: &&mut Trouble| trouble.losses > 0;
            match self.troubles.get_mut(&slot).filter(pauses) {
                Some(trouble) => trouble.foreign = None,
                None => self.clear_trouble(slot),
            }
            self.mark(slot);
        }
    }

    /// From now on, what nobody desires goes, whoever left it.
    pub(crate) fn sweep(&mut self) {
        if std::mem::replace(&mut self.sweep, true) {
            return;
        }
        let undesired =
            |(slot, _, entry): (Slot, &K, &Entry<V>)| entry.desired.is_none().then_some(slot);
        let left: Vec<Slot> = self.entries.iter().filter_map(undesired).collect();
        left.into_iter().for_each(|slot| self.mark(slot));
    }

    /// Puts what failed and is due back to work.
    pub(crate) fn wake(&mut self, now: Instant) {
        self.losses.forgive(now);
        while let Some(&(at, slot)) = self.retries.first() {
            if at > now {
                return;
            }
            self.retries.pop_first();
            self.retry(slot);
        }
    }

    /// Tries all that failed again at once: the cause may have gone. Not what somebody keeps removing.
    pub(crate) fn wake_all(&mut self) {
        let failed = |(_, slot): &(Instant, Slot)| {
            let trouble = self.troubles.get(slot);
            trouble.is_none_or(|trouble| trouble.losses == 0)
        };
        let (failed, stay): (BTreeSet<_>, _) = std::mem::take(&mut self.retries)
            .into_iter()
            .partition(failed);
        self.retries = stay;
        for (_, slot) in failed {
            self.retry(slot);
        }
    }

    fn retry(&mut self, slot: Slot) {
        if let Some(trouble) = self.troubles.get_mut(&slot) {
            trouble.retry_at = None;
            // Ask the kernel anew who holds it: an event may have been lost.
            trouble.foreign = None;
        }
        self.mark(slot);
    }

    /// When the next failed key is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Whether keys wait for work that could be done now.
    pub(crate) fn is_idle(&self) -> bool {
        self.upserts.is_empty() && self.deletes.is_empty()
    }

    /// Whether keys wait for their deletion.
    pub(crate) fn has_deletions(&self) -> bool {
        !self.deletes.is_empty()
    }

    /// Whether all that waits for its deletion may go.
    pub(crate) fn may_all_go(&self, may_go: impl Fn(&K) -> bool) -> bool {
        let mut slots = self.deletes.iter();
        slots.all(|slot| may_go(&self.entries.key(*slot)))
    }

    /// The next addition or replacement. What can't be yet, because something else must be there first, waits until
    /// [`unpark`](Self::unpark).
    pub(crate) fn next_upsert(
        &mut self,
        now: Instant,
        can_be: impl Fn(&V) -> bool,
    ) -> Option<(K, Step<V>)> {
        while let Some(slot) = self.upserts.pop_front() {
            if self.entries[slot]
                .desired
                .as_ref()
                .is_some_and(|value| !can_be(value))
            {
                self.park(slot);
                continue;
            }
            match self.take_step(slot, now) {
                Some(Step::Delete(_)) => self.requeue(slot, Need::Delete),
                Some(step) => return Some(self.give_out(slot, step)),
                None => {}
            }
        }
        None
    }

    fn park(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot];
        entry.queued = false;
        if !std::mem::replace(&mut entry.parked, true) {
            self.parked.push(slot);
        }
    }

    /// What others waited for may be there.
    pub(crate) fn unpark(&mut self) {
        for slot in std::mem::take(&mut self.parked) {
            self.entries[slot].parked = false;
            self.mark(slot);
        }
    }

    /// The next deletion. What may not go yet is looked at again in a moment.
    pub(crate) fn next_delete(
        &mut self,
        now: Instant,
        may_go: impl Fn(&K) -> bool,
    ) -> Option<(K, Step<V>)> {
        while let Some(slot) = self.deletes.pop_front() {
            if self.entries[slot].desired.is_none() && !may_go(&self.entries.key(slot)) {
                self.entries[slot].queued = false;
                self.troubles.entry(slot).or_default();
                self.retry_at(slot, now + NOT_YET);
                continue;
            }
            match self.take_step(slot, now) {
                Some(step @ Step::Delete(_)) => return Some(self.give_out(slot, step)),
                Some(_) => self.requeue(slot, Need::Upsert),
                None => {}
            }
        }
        None
    }

    /// Says what a key needs now that was just taken off its queue.
    fn take_step(&mut self, slot: Slot, now: Instant) -> Option<Step<V>> {
        let foreign = self.is_foreign(slot);
        let entry = &mut self.entries[slot];
        entry.queued = false;
        let Some(need) = entry.need(self.sweep, foreign) else {
            self.forget_if_empty(slot);
            return None;
        };
        let step = entry.step(need);
        let lost = std::mem::take(&mut entry.lost);
        (!(lost && self.pauses_after_loss(slot, now))).then_some(step)
    }

    /// Counts a loss that is about to be healed; true when that is put off.
    fn pauses_after_loss(&mut self, slot: Slot, now: Instant) -> bool {
        let jitter = |count| self.entries.dice(slot, count);
        let (losses, Some(at)) = self.losses.count(slot, jitter, now) else {
            return false;
        };
        let trouble = self.troubles.entry(slot).or_default();
        trouble.losses = losses;
        trouble.error = None;
        self.retry_at(slot, at);
        true
    }

    fn give_out(&mut self, slot: Slot, step: Step<V>) -> (K, Step<V>) {
        self.entries[slot].on_the_way = true;
        self.on_the_way.push_back(slot);
        (self.entries.key(slot), step)
    }

    /// What a key needs changed while it waited: to the other queue with it.
    fn requeue(&mut self, slot: Slot, need: Need) {
        self.entries[slot].queued = true;
        match need {
            Need::Upsert => self.upserts.push_back(slot),
            Need::Delete => self.deletes.push_back(slot),
        }
    }

    /// What came of a step: `value` is what it would have put there, `None` for a deletion. True when a failure differs
    /// from the key's last one, so that it is worth a line in the log.
    pub(crate) fn applied(
        &mut self,
        key: K,
        value: Option<&V>,
        result: Result<(), OpError>,
        now: Instant,
    ) -> bool {
        let Some(slot) = self.come_back(&key) else {
            return false;
        };
        let entry = &mut self.entries[slot];
        entry.on_the_way = false;
        let Err(error) = result else {
            if value.is_some() && entry.desired.as_ref() == value {
                entry.actual = Actual::Desired;
                self.clear_trouble(slot);
            } else {
                entry.actual = entry.relate(value.cloned());
                self.clear_trouble(slot);
                self.mark(slot);
            }
            return false;
        };
        match &error {
            OpError::Unknown(_) => entry.actual = Actual::Unknown,
            OpError::Foreign { .. } => entry.actual = Actual::Absent,
            OpError::Refused { .. } => {}
        }
        self.failed(slot, error, now)
    }

    /// The place of a key whose step was given out: the first of those, if outcomes come back in order.
    fn come_back(&mut self, key: &K) -> Option<Slot> {
        let at = self
            .on_the_way
            .iter()
            .position(|slot| self.entries.key(*slot) == *key)?;
        self.on_the_way.remove(at)
    }

    /// Steps that never came back are as good as lost.
    pub(crate) fn recall(&mut self) {
        for slot in std::mem::take(&mut self.on_the_way) {
            let entry = &mut self.entries[slot];
            entry.on_the_way = false;
            entry.actual = Actual::Unknown;
            self.mark(slot);
        }
    }

    fn failed(&mut self, slot: Slot, error: OpError, now: Instant) -> bool {
        let trouble = self.troubles.entry(slot).or_default();
        if let OpError::Foreign { protocol } = &error {
            trouble.foreign = Some(*protocol);
        }
        let jitter = self.entries.dice(slot, trouble.failures);
        let at = now + pause::after_refusals(trouble.failures, jitter);
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.losses = 0;
        let news = trouble.error.as_ref() != Some(&error);
        trouble.error = Some(error);
        self.retry_at(slot, at);
        news
    }

    /// Has a key that has its trouble wait.
    fn retry_at(&mut self, slot: Slot, at: Instant) {
        if let Some(trouble) = self.troubles.get_mut(&slot) {
            if let Some(before) = trouble.retry_at.replace(at) {
                self.retries.remove(&(before, slot));
            }
            self.retries.insert((at, slot));
        }
    }

    /// Queues a key that needs work, unless it waits for its retry.
    fn mark(&mut self, slot: Slot) {
        let foreign = self.is_foreign(slot);
        let waits = self
            .troubles
            .get(&slot)
            .is_some_and(|trouble| trouble.retry_at.is_some());
        let entry = &mut self.entries[slot];
        match entry.need(self.sweep, foreign) {
            None => self.forget_if_empty(slot),
            Some(Need::Upsert) if entry.parked => {}
            Some(_) if waits || std::mem::replace(&mut entry.queued, true) => {}
            Some(Need::Upsert) => self.upserts.push_back(slot),
            Some(Need::Delete) => self.deletes.push_back(slot),
        }
    }

    fn is_foreign(&self, slot: Slot) -> bool {
        self.troubles
            .get(&slot)
            .is_some_and(|trouble| trouble.foreign.is_some())
    }

    fn forget_if_empty(&mut self, slot: Slot) {
        let entry = &self.entries[slot];
        let referred_to = entry.queued || entry.on_the_way || entry.parked;
        if entry.desired.is_none() && entry.actual == Actual::Absent && !referred_to {
            self.clear_trouble(slot);
            self.losses.forget(slot);
            self.entries.remove(slot);
        }
    }

    /// A key is as it should be, or there is news about it: its failures no longer count.
    fn clear_trouble(&mut self, slot: Slot) {
        if let Some(at) = self
            .troubles
            .remove(&slot)
            .and_then(|trouble| trouble.retry_at)
        {
            self.retries.remove(&(at, slot));
        }
    }

    /// One key.
    pub(crate) fn view(&self, key: K) -> Option<View<'_, K, V>> {
        let slot = self.entries.find(&key)?;
        Some(self.view_of(slot, key, &self.entries[slot]))
    }

    /// Every key, in no particular order.
    pub(crate) fn views(&self) -> impl Iterator<Item = View<'_, K, V>> {
        self.entries
            .iter()
            .map(|(slot, key, entry)| self.view_of(slot, *key, entry))
    }

    fn view_of<'a>(&'a self, slot: Slot, key: K, entry: &'a Entry<V>) -> View<'a, K, V> {
        let actual = match &entry.actual {
            Actual::Absent | Actual::Unknown => None,
            Actual::Desired => entry.desired.as_ref(),
            Actual::Other(value) => Some(&**value),
        };
        View {
            key,
            desired: entry.desired.as_ref(),
            actual,
            trouble: self.troubles.get(&slot),
        }
    }

    /// What should stand under a key.
    pub(crate) fn desired(&self, key: &K) -> Option<&V> {
        self.entries[self.entries.find(key)?].desired.as_ref()
    }

    /// Whether the kernel has under a key what should stand there, and that is something.
    pub(crate) fn is_right(&self, key: K) -> bool {
        let entry = self.entries.find(&key).map(|slot| &self.entries[slot]);
        entry.is_some_and(|entry| entry.actual == Actual::Desired)
    }

    /// Whether there are keys of which we don't know what the kernel has.
    pub(crate) fn has_unknown(&self) -> bool {
        let unknown = |(_, _, entry): (Slot, &K, &Entry<V>)| entry.actual == Actual::Unknown;
        self.entries.iter().any(unknown)
    }

    /// What the kernel has of ours under a key, as far as we know.
    pub(crate) fn actual(&self, key: K) -> Option<&V> {
        self.view(key).and_then(|view| view.actual)
    }
}
