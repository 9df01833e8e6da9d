//! What an agent tells the API server: its node's status, what the scheduler waits for, and events.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::events::{Event, EventType, Recorder, Reporter as Origin};
use resources::{API_VERSION, NodeStatusStatus};
use serde_json::{Value, json};

use crate::error::{Fault, within};
use crate::kinds::{self, OwnNode, TAINT};

/// Who writes, where the API server asks.
const MANAGER: &str = "margayd";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of the status of a node's agent.
const KIND: &str = "NodeStatus";

/// Writes about one node.
#[derive(Clone)]
pub struct Reporter {
    client: Client,
    node: String,
    recorder: Recorder,
    statuses: Api<DynamicObject>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// For the node of this name.
    #[must_use]
    pub fn new(client: Client, node: String) -> Self {
        let (group, version) = API_VERSION.split_once('/').unwrap_or(("", API_VERSION));
        let gvk = GroupVersionKind::gvk(group, version, KIND);
        let resource = ApiResource::from_gvk_with_plural(&gvk, &kinds::plural(KIND));
        let origin = Origin {
            controller: MANAGER.to_owned(),
            instance: Some(node.clone()),
        };
        Self {
            statuses: Api::all_with(client.clone(), &resource),
            recorder: Recorder::new(client.clone(), origin),
            client,
            node,
        }
    }

    /// Writes the node's NodeStatus, which goes with the Node whose `uid` it is given. It is made where it isn't there.
    ///
    /// # Errors
    /// When the API server can't be reached, or refuses it.
    pub async fn status(
        &self,
        status: &NodeStatusStatus,
        owner: Option<&str>,
    ) -> Result<(), Fault> {
        if let Some(uid) = owner {
            let owner = json!([{
                "apiVersion": "v1", "kind": "Node", "name": self.node, "uid": uid,
            }]);
            self.object(&owner).await?;
        }
        let mut body = self.body();
        body["status"] = serde_json::to_value(status).unwrap_or_default();
        let (parameters, patch) = (apply(), Patch::Apply(&body));
        let write = || self.statuses.patch_status(&self.node, &parameters, &patch);
        match in_time(write()).await {
            // Somebody has deleted it.
            Err(Fault::Refused { code: 404, .. }) if owner.is_none() => {
                self.object(&json!([])).await?;
                in_time(write()).await.map(drop)
            }
            written => written.map(drop),
        }
    }

    async fn object(&self, owners: &Value) -> Result<(), Fault> {
        let mut body = self.body();
        body["metadata"]["ownerReferences"] = owners.clone();
        let (parameters, patch) = (apply(), Patch::Apply(&body));
        let write = self.statuses.patch(&self.node, &parameters, &patch);
        in_time(write).await.map(drop)
    }

    fn body(&self) -> Value {
        json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": self.node}})
    }

    /// Sets the Node's condition `NetworkUnavailable`, which clouds set to `True` for a node without routes.
    ///
    /// # Errors
    /// When the API server can't be reached, or refuses it.
    pub async fn network_available(&self, message: &str, now: &str) -> Result<(), Fault> {
        let condition = json!({
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "MargayIsReady",
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        });
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let nodes = Api::<Node>::all(self.client.clone());
        let parameters = PatchParams::default();
        let write = nodes.patch_status(&self.node, &parameters, &patch);
        in_time(write).await.map(drop)
    }

    /// Takes the taint [`TAINT`] from the Node, and leaves others where they are.
    ///
    /// # Errors
    /// When the API server can't be reached, or refuses it, or the taints have changed meanwhile (HTTP 422): try again.
    pub async fn remove_taint(&self) -> Result<(), Fault> {
        let nodes = Api::<Node>::all(self.client.clone());
        let node = in_time(nodes.get(&self.node)).await?;
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let Some(place) = taints.iter().position(|taint| taint.key == TAINT) else {
            return Ok(());
        };
        let operations: json_patch::Patch = serde_json::from_value(json!([
            {"op": "test", "path": format!("/spec/taints/{place}/key"), "value": TAINT},
            {"op": "remove", "path": format!("/spec/taints/{place}")},
        ]))
        .unwrap_or_default();
        let patch = Patch::<()>::Json(operations);
        let parameters = PatchParams::default();
        in_time(nodes.patch(&self.node, &parameters, &patch))
            .await
            .map(drop)
    }

    /// Has an event on the Node. One that is like another is counted with it.
    ///
    /// # Errors
    /// When the API server can't be reached, or refuses it.
    pub async fn event(
        &self,
        node: &OwnNode,
        good: bool,
        reason: &str,
        note: String,
    ) -> Result<(), Fault> {
        let event = Event {
            type_: if good {
                EventType::Normal
            } else {
                EventType::Warning
            },
            reason: reason.to_owned(),
            note: Some(note),
            action: "BGP".to_owned(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            uid: Some(node.uid.clone()),
            ..ObjectReference::default()
        };
        in_time(self.recorder.publish(&event, &about)).await
    }
}

fn apply() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Fault> {
    within(PATIENCE, request).await
}
