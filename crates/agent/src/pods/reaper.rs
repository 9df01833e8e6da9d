//! Deleting host veths, many at a time.
//!
//! The kernel takes some 20 ms for a deletion, and hardly more for a hundred in one request. So a thread of its own
//! deletes whatever has come together while it was busy with the last lot, and no ADD waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use api::cni::{Response, code};
use netlink::Socket;

use super::connection::{Connection, failure};
use super::metrics::Outcome;
use super::{Claim, Shared, clock};

/// Deletions that wait; who has one more waits too.
const QUEUE: usize = 256;
/// Deletions in one request.
const BATCH: usize = 128;

/// A host veth that is to go, and who wants to hear of it.
#[derive(Debug)]
pub(crate) struct Condemned {
    pub(crate) claim: Claim,
    /// Index of its link, where it is an endpoint.
    pub(crate) link: Option<u32>,
    /// `None` where nobody asked.
    pub(crate) connection: Option<Connection>,
    pub(crate) started: Instant,
}

/// Starts the thread. It ends when all senders are gone and all that they sent is done.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    mut host: Socket,
) -> std::io::Result<(SyncSender<Condemned>, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new()
        .name("pods-reaper".into())
        .spawn(move || {
            while let Some(batch) = next_batch(&receiver) {
                reap(&shared, &mut host, batch);
            }
        })?;
    Ok((sender, thread))
}

fn next_batch(receiver: &Receiver<Condemned>) -> Option<Vec<Condemned>> {
    let first = receiver.recv().ok()?;
    Some(
        std::iter::once(first)
            .chain(receiver.try_iter().take(BATCH - 1))
            .collect(),
    )
}

fn reap(shared: &Shared, host: &mut Socket, batch: Vec<Condemned>) {
    let names: Vec<String> = batch
        .iter()
        .map(|condemned| condemned.claim.id().identity().host_ifname)
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let together = netlink::pod::detach(host, &names);
    for (condemned, name) in batch.into_iter().zip(names) {
        // One that is refused must not fail the others.
        let result = if together.is_ok() {
            Ok(())
        } else {
            netlink::pod::detach(host, &[name])
        };
        finish(
            shared,
            &condemned,
            result.map_err(|error| format!("delete {name}: {error}")),
        );
    }
}

fn finish(shared: &Shared, condemned: &Condemned, result: Result<(), String>) {
    let id = condemned.claim.id();
    let (duration, known) = (condemned.started.elapsed(), condemned.link.is_some());
    let (container, ifname) = (&id.container_id, &id.ifname);
    let (response, outcome) = match result {
        Ok(()) => {
            if let Some(link) = condemned.link {
                shared.registry().remove_link(link, clock());
            }
            tracing::info!(container, ifname, known, ?duration, "DEL");
            (Response::Done, Outcome::Succeeded)
        }
        Err(error) => {
            tracing::warn!(container, ifname, known, ?duration, error, "DEL failed");
            (
                Response::Failed(failure(code::KERNEL, error)),
                Outcome::Failed,
            )
        }
    };
    let Some(connection) = &condemned.connection else {
        return;
    };
    shared.metrics.del.record(outcome, duration);
    // A shim that has gone away does not change that the link is gone; the runtime asks again.
    if let Err(error) = connection.reply(&response) {
        tracing::debug!(container, %error, "nobody waits for the answer to DEL");
    }
}
