//! What is known of one key: what it should be, what the kernel has, and what it needs.

/// What the kernel has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Actual<V> {
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
pub(crate) struct Entry<V> {
    pub(crate) desired: Option<V>,
    pub(crate) actual: Actual<V>,
    /// The key stands in one of the queues.
    pub(crate) queued: bool,
    /// A step was given out whose outcome is not known yet.
    pub(crate) on_the_way: bool,
    /// Somebody else took or changed it, which is not counted yet.
    pub(crate) lost: bool,
    /// Seen by the dump that is being loaded.
    pub(crate) seen: bool,
    /// Nobody has ever desired it since we started: a predecessor's, until the sweep.
    pub(crate) inherited: bool,
    /// It waits for something else to be there first.
    pub(crate) parked: bool,
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
pub(crate) enum Need {
    Upsert,
    Delete,
}

impl<V: Clone + Eq> Entry<V> {
    pub(crate) fn new() -> Self {
        Self {
            desired: None,
            actual: Actual::Absent,
            queued: false,
            on_the_way: false,
            lost: false,
            seen: false,
            inherited: false,
            parked: false,
        }
    }

    /// What nobody has desired yet.
    pub(crate) fn inherited() -> Self {
        Self {
            inherited: true,
            ..Self::new()
        }
    }

    /// What the key needs now.
    pub(crate) fn need(&self, sweep: bool, foreign: bool) -> Option<Need> {
        match (&self.desired, &self.actual) {
            (_, Actual::Desired) | (None, Actual::Absent) => None,
            // A predecessor's stays until we know all that is desired.
            (None, _) => (sweep || !self.inherited).then_some(Need::Delete),
            (Some(_), _) => (!foreign).then_some(Need::Upsert),
        }
    }

    /// The step that meets a need.
    pub(crate) fn step(&self, need: Need) -> Step<V> {
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
    pub(crate) fn relate(&self, actual: Option<V>) -> Actual<V> {
        match actual {
            None => Actual::Absent,
            actual if actual == self.desired => Actual::Desired,
            Some(actual) => Actual::Other(Box::new(actual)),
        }
    }
}
