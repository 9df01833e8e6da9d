//! The cluster's one record of which node has which block of a pool: the API server's `IPAMBlock`s.
//!
//! The API server is linearizable as long as nobody asks it for less: lists here say no `resourceVersion`, so that what one
//! agent has created every later list of any agent has, whichever API server answers (Kubernetes: "API concepts", "The
//! resourceVersion parameter"). Each request ends after [`PATIENCE`].

use std::time::Duration;

use futures_util::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::Preconditions;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt as _, watcher};
use resources::ipam_block::KIND;
use resources::{API_VERSION, IpamBlock, IpamBlockSpec};
use tracing::debug;

use crate::error::{Fault, within};
use crate::kinds;

/// How long one answer may take. Whoever asks has a pod that waits.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Objects in one answer.
const PAGE: u32 = 1000;

/// Asks and tells for one node. Clones use the same connections.
#[derive(Clone)]
pub struct Blocks {
    api: Api<DynamicObject>,
    nodes: Api<Node>,
    resource: ApiResource,
    node: String,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// An object as it is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its `resourceVersion`.
    pub version: String,
    /// What it says, or why that is not to be made out.
    pub block: Result<IpamBlock, String>,
}

/// Why an object was not created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCreated {
    /// There is one of this name.
    Exists,
    /// There was no answer, or another one. Without an answer it may have been created all the same.
    Fault(Fault),
}

impl Blocks {
    /// For the node of this name.
    #[must_use]
    pub fn new(client: Client, node: String) -> Self {
        let (group, version) = API_VERSION.split_once('/').unwrap_or(("", API_VERSION));
        let gvk = GroupVersionKind::gvk(group, version, KIND);
        let resource = ApiResource::from_gvk_with_plural(&gvk, &kinds::plural(KIND));
        Self {
            api: Api::all_with(client.clone(), &resource),
            nodes: Api::all(client),
            resource,
            node,
        }
    }

    /// All blocks of all nodes.
    ///
    /// # Errors
    /// When the API server can't be reached, or refuses.
    pub async fn all(&self) -> Result<Vec<Found>, Fault> {
        self.list(ListParams::default()).await
    }

    /// This node's.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    pub async fn own(&self) -> Result<Vec<Found>, Fault> {
        self.list(ListParams::default().fields(&self.mine())).await
    }

    async fn list(&self, parameters: ListParams) -> Result<Vec<Found>, Fault> {
        // Later pages are of the same moment as the first.
        let mut parameters = parameters.limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = within(PATIENCE, self.api.list(&parameters)).await?;
            all.extend(page.items.into_iter().map(found));
            parameters.continue_token = page.metadata.continue_.filter(|it| !it.is_empty());
            if parameters.continue_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Creates a block's object, which is to claim it. Gives the `resourceVersion`.
    ///
    /// # Errors
    /// [`NotCreated::Exists`] when somebody else has.
    pub async fn create(&self, block: &IpamBlock) -> Result<String, NotCreated> {
        let spec = serde_json::json!({"spec": block.spec});
        let object = DynamicObject::new(&block.metadata.name, &self.resource).data(spec);
        let parameters = PostParams::default();
        match within(PATIENCE, self.api.create(&parameters, &object)).await {
            Ok(object) => Ok(object.metadata.resource_version.unwrap_or_default()),
            Err(Fault::Refused { code: 409, .. }) => Err(NotCreated::Exists),
            Err(fault) => Err(NotCreated::Fault(fault)),
        }
    }

    /// Deletes an object that still is this version; one that is gone already is as good.
    ///
    /// # Errors
    /// When the API server can't be reached, or refuses: with 409 where it is another version now.
    pub async fn delete(&self, name: &str, version: &str) -> Result<(), Fault> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                resource_version: Some(version.to_owned()),
                uid: None,
            }),
            ..DeleteParams::default()
        };
        match within(PATIENCE, self.api.delete(name, &parameters)).await {
            Err(Fault::Refused { code: 404, .. }) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Whether there is no Node of this name, by the newest that the API server knows.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    pub async fn is_gone(&self, node: &str) -> Result<bool, Fault> {
        match within(PATIENCE, self.nodes.get_metadata(node)).await {
            Ok(_) => Ok(false),
            Err(Fault::Refused { code: 404, .. }) => Ok(true),
            Err(fault) => Err(fault),
        }
    }

    /// Calls `changed` whenever one of this node's objects may have changed, for as long as it is polled.
    pub async fn follow(self, changed: impl Fn()) {
        let config = watcher::Config::default().fields(&self.mine());
        let events = watcher(self.api, config).default_backoff();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                // Every list and every watch begins with an event: nothing that happened between two is missed.
                Ok(_) => changed(),
                Err(error) => debug!(%error, "the node's IPAMBlocks are not followed"),
            }
        }
    }

    fn mine(&self) -> String {
        format!("spec.node={}", self.node)
    }
}

fn found(object: DynamicObject) -> Found {
    let name = object.metadata.name.unwrap_or_default();
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let block = serde_json::from_value::<IpamBlockSpec>(spec)
        .map_err(|error| error.to_string())
        .and_then(|spec| IpamBlock::named(&name, spec));
    Found {
        version: object.metadata.resource_version.unwrap_or_default(),
        name,
        block,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_or_says_why_not() {
        let object = |name: &str, spec: serde_json::Value| {
            let object = json!({
                "apiVersion": API_VERSION, "kind": KIND,
                "metadata": {"name": name, "resourceVersion": "7"}, "spec": spec,
            });
            found(serde_json::from_value(object).unwrap())
        };
        let right = object(
            "10-244-1-64-26",
            json!({"cidr": "10.244.1.64/26", "node": "a"}),
        );
        let block = IpamBlock::new("10.244.1.64/26".parse().unwrap(), "a");
        assert_eq!((right.version.as_str(), right.block), ("7", Ok(block)));
        for (name, spec) in [
            (
                "10-244-1-0-26",
                json!({"cidr": "10.244.1.64/26", "node": "a"}),
            ),
            ("10-244-1-64-26", json!({"cidr": "10.244.1.64/26"})),
            ("10-244-1-64-26", json!(null)),
        ] {
            assert!(object(name, spec).block.is_err());
        }
    }
}
