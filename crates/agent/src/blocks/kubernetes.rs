//! Blocks as objects of the Kubernetes API.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use cluster::Blocks;
use cluster::blocks::{Found, NotCreated};
use cluster::error::Fault;
use resources::IpamBlock;
use resources::ipam_block::{self, KIND};
use tokio::runtime::Handle;

use super::store::{BlockStore, CreateError, Listed, StoreError, Stored, Unreadable};

/// How often all blocks are read at most.
const SHORTEST: Duration = Duration::from_secs(30);
/// Where it isn't known how many nodes there are.
const UNKNOWN: Duration = Duration::from_secs(600);
/// Each node's share of time: together the nodes of a cluster read all blocks once in this time, however many they are.
const SHARE: Duration = Duration::from_secs(1);
/// The same for nodes that wait for a block.
const WAITING: Duration = Duration::from_millis(100);

/// Asks the API server, with connections that belong to the runtime.
#[derive(Debug)]
pub struct KubernetesStore {
    blocks: Blocks,
    runtime: Handle,
}

impl KubernetesStore {
    /// Asks by these. The runtime must be driven by another thread than the one that uses this.
    #[must_use]
    pub fn new(blocks: Blocks, runtime: Handle) -> Self {
        Self { blocks, runtime }
    }

    /// Has the runtime do it, and waits. Every request has its own time limit.
    fn ask<T: Send + 'static>(
        &self,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody waits any more when the agent stops.
            reply.send(request.await).ok();
        });
        let stopping = |_| StoreError("the agent is stopping".to_owned());
        answer.recv().map_err(stopping)
    }
}

impl BlockStore for KubernetesStore {
    fn list(&self) -> Result<Listed, StoreError> {
        let blocks = self.blocks.clone();
        listed(self.ask(async move { blocks.all().await })?)
    }

    fn list_of(&self, _: &str) -> Result<Listed, StoreError> {
        let blocks = self.blocks.clone();
        listed(self.ask(async move { blocks.own().await })?)
    }

    fn pace(&self, nodes: usize, waiting: bool) -> Duration {
        let share = if waiting { WAITING } else { SHARE };
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        match nodes {
            0 => UNKNOWN,
            nodes => share.saturating_mul(nodes).max(SHORTEST),
        }
    }

    fn create(&self, block: &IpamBlock) -> Result<Stored, CreateError> {
        let (blocks, wanted) = (self.blocks.clone(), block.clone());
        let answer = self.ask(async move { blocks.create(&wanted).await });
        match answer.map_err(CreateError::Failed)? {
            Ok(version) => Ok(Stored {
                block: block.clone(),
                version,
            }),
            Err(NotCreated::Exists) => Err(CreateError::Exists),
            Err(NotCreated::Fault(fault)) => Err(CreateError::Failed(failed(KIND, &fault))),
        }
    }

    fn is_gone(&self, node: &str) -> Result<bool, StoreError> {
        let (blocks, node) = (self.blocks.clone(), node.to_owned());
        self.ask(async move { blocks.is_gone(&node).await })?
            .map_err(|fault| failed("Node", &fault))
    }

    fn delete(&self, stored: &Stored) -> Result<(), StoreError> {
        let blocks = self.blocks.clone();
        let (name, version) = (stored.block.metadata.name.clone(), stored.version.clone());
        self.ask(async move { blocks.delete(&name, &version).await })?
            .map_err(|fault| failed(KIND, &fault))
    }
}

fn listed(answer: Result<Vec<Found>, Fault>) -> Result<Listed, StoreError> {
    let mut listed = Listed::default();
    for Found {
        name,
        version,
        block,
    } in answer.map_err(|fault| failed(KIND, &fault))?
    {
        match block {
            Ok(block) => listed.blocks.push(Stored { block, version }),
            Err(message) => listed.unreadable.push(Unreadable {
                cidr: ipam_block::cidr_of_name(&name),
                source: format!("{}/{name}", KIND),
                message,
            }),
        }
    }
    listed.blocks.sort_by_key(|stored| stored.block.spec.cidr);
    listed.unreadable.sort_by(|a, b| a.source.cmp(&b.source));
    Ok(listed)
}

fn failed(kind: &str, fault: &Fault) -> StoreError {
    let message = fault.message();
    StoreError(match fault.advice() {
        Some(advice) => format!("{kind}: {message}: {advice}"),
        None => format!("{kind}: the API server can't be reached ({message})"),
    })
}
