//! To stay: a container in a pod must not end, and the first process of a PID namespace is deaf to signals that it has not asked for.

use nix::sys::signal::{SigSet, Signal};

/// Ends the process when SIGTERM or SIGINT comes. To be called while there is one thread.
///
/// # Errors
/// The kernel refuses, in words for the operator.
pub(super) fn end_by_signal() -> Result<(), String> {
    let cannot = |error: &dyn std::fmt::Display| format!("signals can't be waited for: {error}");
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    // Blocked in every thread, so that the one below takes them.
    signals.thread_block().map_err(|error| cannot(&error))?;
    let wait = move || {
        if signals.wait().is_ok() {
            end();
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(wait).map_err(|error| cannot(&error))?;
    Ok(())
}

#[expect(
    clippy::exit,
    reason = "nothing is under way that a crash could not end as well"
)]
fn end() {
    std::process::exit(0);
}

/// Waits for that.
pub(super) fn for_ever() -> ! {
    loop {
        std::thread::park();
    }
}
