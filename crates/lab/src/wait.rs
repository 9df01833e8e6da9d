//! Conditions with deadlines. Nothing in the lab waits for time to pass alone.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::process::Ended;

/// How often a condition is looked at again.
const INTERVAL: Duration = Duration::from_millis(10);

/// The lab's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab measures real time; it is the edge"
)]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets a measurement go on for a while: its length is what is asked for, not a guess at when something else is done.
#[expect(clippy::disallowed_methods, reason = "the length of a measurement")]
pub fn measure_for(length: Duration) {
    std::thread::sleep(length);
}

/// Gives the rest of the world a moment between two looks at a condition.
#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks at a condition, always under a deadline"
)]
pub(crate) fn pause() {
    std::thread::sleep(INTERVAL);
}

/// Looks again until `condition` gives `Ok`, and returns its last error when `limit` is over, or at once when a
/// process [`Ended`] on which it depends.
///
/// # Errors
/// The condition's last error, with `what` was waited for and how long.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            // What has ended will not come any more.
            Err(error) if error.is::<Ended>() => return Err(error.context(what.to_owned())),
            Err(error) if start.elapsed() >= limit => {
                return Err(error.context(format!("waited {limit:?} for {what}")));
            }
            Err(_) => pause(),
        }
    }
}

/// Looks again and again for `length`, and returns the first error of `condition`.
///
/// # Errors
/// When the condition ceased to hold, with when.
pub fn holds(
    what: &str,
    length: Duration,
    mut condition: impl FnMut() -> Result<()>,
) -> Result<()> {
    let start = now();
    while start.elapsed() < length {
        condition().map_err(|error| {
            error.context(format!("{what}: no longer so after {:?}", start.elapsed()))
        })?;
        pause();
    }
    Ok(())
}

/// [`until`] for a plain yes or no.
///
/// # Errors
/// When `limit` is over and it still says no.
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    until(what, limit, || {
        condition().then_some(()).ok_or_else(|| anyhow!("not yet"))
    })
}
