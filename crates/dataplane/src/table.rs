//! One kind of thing (routes, or neighbours) by key: what it should be, what the kernel has, and which keys need work.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as MapEntry;

use crate::OpError;

/// First pause after a failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const BACKOFF_LAST: Duration = Duration::from_secs(30);

/// What the kernel has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Actual<V> {
    /// Nothing of ours.
    Absent,
    /// What is desired; the common case costs no second copy.
    Desired,
    /// Something else.
    Other(Box<V>),
    /// The reply to our last change was lost: maybe its value, maybe the one before, maybe nothing.
    Unknown,
}

#[derive(Debug)]
struct Entry<V> {
    desired: Option<V>,
    actual: Actual<V>,
    /// The key stands in one of the queues.
    queued: bool,
    /// Seen by the dump that is being loaded.
    seen: bool,
    /// Nobody has ever desired it since we started: a predecessor's, until the sweep.
    inherited: bool,
}

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

/// What a key needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step<V> {
    /// There is nothing.
    Add(V),
    /// There is something else.
    Replace(V),
    /// There is something that should not be: this, where known.
    Delete(Option<V>),
}

/// Which queue a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Upsert,
    Delete,
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
    entries: HashMap<K, Entry<V>, FixedState>,
    /// Keys that may need an addition or a replacement.
    upserts: VecDeque<K>,
    /// Keys that may need a deletion.
    deletes: VecDeque<K>,
    /// Only what fails or conflicts has an entry here, so that all else stays small.
    troubles: HashMap<K, Trouble, FixedState>,
    retries: BTreeSet<(Instant, K)>,
    sweep: bool,
    hash: FixedState,
}

impl<K: Copy + Ord + Hash, V: Clone + Eq> Table<K, V> {
    pub(crate) fn new(seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        Self {
            entries: HashMap::with_hasher(hash.clone()),
            upserts: VecDeque::new(),
            deletes: VecDeque::new(),
            troubles: HashMap::with_hasher(hash.clone()),
            retries: BTreeSet::new(),
            sweep: false,
            hash,
        }
    }

    /// Sets what a key should be; true when that is news.
    pub(crate) fn desire(&mut self, key: K, desired: Option<V>) -> bool {
        let entry = match self.entries.entry(key) {
            MapEntry::Occupied(entry) => entry.into_mut(),
            MapEntry::Vacant(_) if desired.is_none() => return false,
            MapEntry::Vacant(entry) => entry.insert(Entry::new()),
        };
        if entry.desired == desired {
            return false;
        }
        entry.inherited = false;
        let actual = std::mem::replace(&mut entry.actual, Actual::Absent);
        let before = std::mem::replace(&mut entry.desired, desired);
        entry.actual = match (actual, before) {
            (Actual::Desired, Some(before)) => entry.relate(Some(before)),
            (Actual::Other(value), _) => entry.relate(Some(*value)),
            (actual, _) => actual,
        };
        self.clear_trouble(key);
        self.mark(key);
        true
    }

    /// Takes in what the kernel has under a key, of ours. True when something that was as desired no longer is.
    pub(crate) fn observe(&mut self, key: K, actual: Option<V>) -> bool {
        let entry = match self.entries.entry(key) {
            MapEntry::Occupied(entry) => entry.into_mut(),
            MapEntry::Vacant(_) if actual.is_none() => return false,
            MapEntry::Vacant(entry) => entry.insert(Entry {
                inherited: true,
                ..Entry::new()
            }),
        };
        let before = entry.actual == Actual::Desired;
        entry.actual = entry.relate(actual);
        let lost = before && entry.actual != Actual::Desired;
        if entry.actual == Actual::Desired {
            self.clear_trouble(key);
        }
        self.mark(key);
        lost
    }

    /// The kernel has something of ours under a key that we have no word for.
    pub(crate) fn observe_unknown(&mut self, key: K) {
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            inherited: true,
            ..Entry::new()
        });
        entry.actual = Actual::Unknown;
        entry.seen = true;
        self.mark(key);
    }

    /// Begins a dump: until [`finish_load`](Self::finish_load), [`load`](Self::load) says all that the kernel has.
    pub(crate) fn begin_load(&mut self) {
        self.entries
            .values_mut()
            .for_each(|entry| entry.seen = false);
    }

    /// One entry of a dump. True when something that was as desired no longer is.
    pub(crate) fn load(&mut self, key: K, actual: V) -> bool {
        let lost = self.observe(key, Some(actual));
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.seen = true;
        }
        lost
    }

    /// Ends a dump: what it did not hold is gone. Says how much that was as desired is not any more.
    pub(crate) fn finish_load(&mut self) -> usize {
        let gone = |(key, entry): (&K, &Entry<V>)| {
            (!entry.seen && entry.actual != Actual::Absent).then_some(*key)
        };
        let mut gone: Vec<K> = self.entries.iter().filter_map(gone).collect();
        gone.sort_unstable();
        let lost = gone
            .into_iter()
            .map(|key| usize::from(self.observe(key, None)))
            .sum();
        // An event may have been lost that said that a key is free again.
        let held = |(key, trouble): (&K, &Trouble)| trouble.retry_at.is_none().then_some(*key);
        let mut held: Vec<K> = self.troubles.iter().filter_map(held).collect();
        held.sort_unstable();
        held.into_iter().for_each(|key| self.retry(key));
        lost
    }

    /// Another program's route came to hold a key of ours, or left it.
    pub(crate) fn foreign(&mut self, key: K, holder: Option<Option<u8>>) {
        if !self.entries.contains_key(&key) {
            return;
        }
        if holder.is_some() {
            self.troubles.entry(key).or_default().foreign = holder;
        } else {
            self.clear_trouble(key);
            self.mark(key);
        }
    }

    /// From now on, what nobody desires goes, whoever left it.
    pub(crate) fn sweep(&mut self) {
        if std::mem::replace(&mut self.sweep, true) {
            return;
        }
        let left = |(key, entry): (&K, &Entry<V>)| entry.desired.is_none().then_some(*key);
        let mut left: Vec<K> = self.entries.iter().filter_map(left).collect();
        left.sort_unstable();
        left.into_iter().for_each(|key| self.mark(key));
    }

    /// Puts what failed and is due back to work.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.retries.first() {
            if at > now {
                return;
            }
            self.retries.pop_first();
            self.retry(key);
        }
    }

    /// Tries all that failed again at once: the cause may have gone.
    pub(crate) fn wake_all(&mut self) {
        for (_, key) in std::mem::take(&mut self.retries) {
            self.retry(key);
        }
    }

    fn retry(&mut self, key: K) {
        if let Some(trouble) = self.troubles.get_mut(&key) {
            trouble.retry_at = None;
            // Ask the kernel anew who holds it: an event may have been lost.
            trouble.foreign = None;
        }
        self.mark(key);
    }

    /// When the next failed key is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Whether keys wait for work that could be done now.
    pub(crate) fn is_idle(&self) -> bool {
        self.upserts.is_empty() && self.deletes.is_empty()
    }

    /// The next addition or replacement.
    pub(crate) fn next_upsert(&mut self) -> Option<(K, Step<V>)> {
        while let Some(key) = self.upserts.pop_front() {
            match self.take_step(key) {
                Some(Step::Delete(_)) => self.requeue(key, Need::Delete),
                Some(step) => return Some((key, step)),
                None => {}
            }
        }
        None
    }

    /// The next deletion.
    pub(crate) fn next_delete(&mut self) -> Option<(K, Step<V>)> {
        while let Some(key) = self.deletes.pop_front() {
            match self.take_step(key) {
                Some(step @ Step::Delete(_)) => return Some((key, step)),
                Some(_) => self.requeue(key, Need::Upsert),
                None => {}
            }
        }
        None
    }

    /// Says what a key needs that was just taken off its queue.
    fn take_step(&mut self, key: K) -> Option<Step<V>> {
        let foreign = self.is_foreign(&key);
        let entry = self.entries.get_mut(&key)?;
        entry.queued = false;
        let step = entry.need(self.sweep, foreign).map(|need| entry.step(need));
        if step.is_none() {
            self.forget_if_empty(key);
        }
        step
    }

    /// What a key needs changed while it waited: to the other queue with it.
    fn requeue(&mut self, key: K, need: Need) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.queued = true;
        }
        match need {
            Need::Upsert => self.upserts.push_back(key),
            Need::Delete => self.deletes.push_back(key),
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
        // A key may have been forgotten while its step was on the way.
        let entry = self.entries.entry(key).or_insert_with(Entry::new);
        let Err(error) = result else {
            if value.is_some() && entry.desired.as_ref() == value {
                entry.actual = Actual::Desired;
                self.clear_trouble(key);
            } else {
                entry.actual = entry.relate(value.cloned());
                self.clear_trouble(key);
                self.mark(key);
            }
            return false;
        };
        match &error {
            OpError::Unknown(_) => entry.actual = Actual::Unknown,
            OpError::Foreign { .. } => entry.actual = Actual::Absent,
            OpError::Refused { .. } => {}
        }
        self.failed(key, error, now)
    }

    fn failed(&mut self, key: K, error: OpError, now: Instant) -> bool {
        let jitter = self
            .hash
            .hash_one((key, self.troubles.get(&key).map(|trouble| trouble.failures)));
        let trouble = self.troubles.entry(key).or_default();
        if let OpError::Foreign { protocol } = &error {
            trouble.foreign = Some(*protocol);
        }
        let at = now + backoff(trouble.failures, jitter);
        trouble.failures = trouble.failures.saturating_add(1);
        if let Some(before) = trouble.retry_at.replace(at) {
            self.retries.remove(&(before, key));
        }
        self.retries.insert((at, key));
        let news = trouble.error.as_ref() != Some(&error);
        trouble.error = Some(error);
        news
    }

    /// Queues a key that needs work, unless it waits for its retry.
    fn mark(&mut self, key: K) {
        let foreign = self.is_foreign(&key);
        let waits = !self.troubles.is_empty()
            && self
                .troubles
                .get(&key)
                .is_some_and(|it| it.retry_at.is_some());
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        match entry.need(self.sweep, foreign) {
            None => self.forget_if_empty(key),
            Some(_) if waits || std::mem::replace(&mut entry.queued, true) => {}
            Some(Need::Upsert) => self.upserts.push_back(key),
            Some(Need::Delete) => self.deletes.push_back(key),
        }
    }

    fn is_foreign(&self, key: &K) -> bool {
        !self.troubles.is_empty()
            && self
                .troubles
                .get(key)
                .is_some_and(|trouble| trouble.foreign.is_some())
    }

    fn forget_if_empty(&mut self, key: K) {
        let empty = |entry: &Entry<V>| {
            entry.desired.is_none() && entry.actual == Actual::Absent && !entry.queued
        };
        if self.entries.get(&key).is_some_and(empty) {
            self.entries.remove(&key);
            self.clear_trouble(key);
        }
    }

    /// A key is as it should be, or there is news about it: its failures no longer count.
    fn clear_trouble(&mut self, key: K) {
        if self.troubles.is_empty() {
            return;
        }
        if let Some(at) = self
            .troubles
            .remove(&key)
            .and_then(|trouble| trouble.retry_at)
        {
            self.retries.remove(&(at, key));
        }
    }

    /// One key.
    pub(crate) fn view(&self, key: K) -> Option<View<'_, K, V>> {
        self.entries.get(&key).map(|entry| self.view_of(key, entry))
    }

    /// Every key, in no particular order.
    pub(crate) fn views(&self) -> impl Iterator<Item = View<'_, K, V>> {
        self.entries
            .iter()
            .map(|(key, entry)| self.view_of(*key, entry))
    }

    fn view_of<'a>(&'a self, key: K, entry: &'a Entry<V>) -> View<'a, K, V> {
        let actual = match &entry.actual {
            Actual::Absent | Actual::Unknown => None,
            Actual::Desired => entry.desired.as_ref(),
            Actual::Other(value) => Some(&**value),
        };
        View {
            key,
            desired: entry.desired.as_ref(),
            actual,
            trouble: self.troubles.get(&key),
        }
    }

    /// What the kernel has of ours under a key, as far as we know.
    pub(crate) fn actual(&self, key: K) -> Option<&V> {
        self.view(key).and_then(|view| view.actual)
    }
}

impl<V: Clone + Eq> Entry<V> {
    fn new() -> Self {
        Self {
            desired: None,
            actual: Actual::Absent,
            queued: false,
            seen: false,
            inherited: false,
        }
    }

    /// What the key needs now.
    fn need(&self, sweep: bool, foreign: bool) -> Option<Need> {
        match (&self.desired, &self.actual) {
            (_, Actual::Desired) | (None, Actual::Absent) => None,
            // A predecessor's stays until we know all that is desired.
            (None, _) => (sweep || !self.inherited).then_some(Need::Delete),
            (Some(_), _) => (!foreign).then_some(Need::Upsert),
        }
    }

    /// The step that meets a need.
    fn step(&self, need: Need) -> Step<V> {
        match (need, &self.desired, &self.actual) {
            (Need::Upsert, Some(value), Actual::Absent | Actual::Desired) => {
                Step::Add(value.clone())
            }
            (Need::Upsert, Some(value), Actual::Other(_) | Actual::Unknown) => {
                Step::Replace(value.clone())
            }
            (_, _, Actual::Other(value)) => Step::Delete(Some((**value).clone())),
            (_, _, _) => Step::Delete(None),
        }
    }

    /// An actual value as seen from the desired one.
    fn relate(&self, actual: Option<V>) -> Actual<V> {
        match actual {
            None => Actual::Absent,
            actual if actual == self.desired => Actual::Desired,
            Some(actual) => Actual::Other(Box::new(actual)),
        }
    }
}

/// The pause after so many failures: doubling, with a quarter of jitter either way, so that what failed together is not
/// tried together.
fn backoff(failures: u32, jitter: u64) -> Duration {
    let base = BACKOFF_FIRST
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_LAST);
    let percent = u32::try_from(jitter % 51).unwrap_or_default();
    base * (75 + percent) / 100
}
