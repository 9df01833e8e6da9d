//! What is worth a line in the log.

use bgp::speaker::Event;
use tracing::{debug, info, warn};

/// Logs an event of the speaker. A peer that cannot be reached is news once, then less and less often.
pub(crate) fn event(event: &Event) {
    match event {
        Event::SessionUp {
            peer,
            asn,
            hold_time,
        } => {
            info!(%peer, asn, hold_time = hold_time.as_secs(), "session up");
        }
        Event::SessionDown { peer, ended } => {
            info!(%peer, direction = %ended.direction, reason = %ended, "session down");
        }
        Event::AttemptFailed {
            peer,
            ended,
            failures,
        } if failures.is_power_of_two() || *failures == 0 => {
            info!(%peer, direction = %ended.direction, reason = %ended, failures, "session did not come up");
        }
        Event::AttemptFailed {
            peer,
            ended,
            failures,
        } => {
            debug!(%peer, direction = %ended.direction, reason = %ended, failures, "session did not come up");
        }
        Event::ManyPrefixes {
            peer,
            limit,
            received,
        } => {
            warn!(%peer, family = %limit.family, received, limit = limit.limit, "many prefixes");
        }
        Event::SetKey {
            peers, password, ..
        } => {
            debug!(%peers, signed = password.is_some(), "password");
        }
        Event::Synced => info!("all peers have sent their routes, or have had their time to"),
        Event::Connect { remote, .. } => debug!(%remote, "connecting"),
        Event::Close { conn, .. } => debug!(?conn, "closing"),
    }
}
