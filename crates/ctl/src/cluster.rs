//! Agents in their pods. kubectl is the way to them: it has the user's credentials and every kind of them, and the API server
//! decides by RBAC (`pods/exec`) who may. So no port of the agent's is open, and this program, which is on every node too, holds
//! no TLS and no client of the API.

use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;

use crate::cli::Cluster;
use crate::client::Failure;

/// What the chart's pods are labelled with.
const SELECTOR: &str = "app.kubernetes.io/name=margay,app.kubernetes.io/component=agent";

/// The container with the agent, and this program in its image.
const CONTAINER: &str = "margayd";
const PROGRAM: &str = "/margayctl";

/// How many pods are asked at a time: each takes a process here and a connection at the API server.
const AT_ONCE: usize = 16;

/// An agent's pod.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    cluster: Cluster,
    name: String,
    /// Its node.
    pub(crate) node: String,
    phase: String,
}

#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    /// Not there before the pod has its place.
    #[serde(default)]
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    phase: String,
}

impl Cluster {
    /// Whether a cluster is asked, and not this machine's agent.
    pub(crate) fn is_asked(&self) -> bool {
        self.all_nodes
            || !self.nodes.is_empty()
            || self.context.is_some()
            || self.kubeconfig.is_some()
    }

    /// The agents that are asked, by their nodes' names.
    pub(crate) fn pods(&self) -> Result<Vec<Pod>, Failure> {
        let mut command = self.kubectl(&["get", "pods", "--output=json", "--selector", SELECTOR]);
        command.arg("--request-timeout=30s");
        if let [node] = self.nodes.as_slice() {
            command.arg(format!("--field-selector=spec.nodeName={node}"));
        }
        let output = self.run(&mut command)?;
        if !output.status.success() {
            return Err(Failure::Cluster(complaint(&output)));
        }
        let list: List = serde_json::from_slice(&output.stdout).map_err(|error| {
            Failure::Cluster(format!("kubectl's list of pods makes no sense: {error}"))
        })?;
        self.choose(list)
    }

    fn choose(&self, list: List) -> Result<Vec<Pod>, Failure> {
        let pods = list.items.into_iter().map(|item| Pod {
            cluster: self.clone(),
            name: item.metadata.name,
            node: item.spec.node_name,
            phase: item.status.phase,
        });
        let wanted = |pod: &Pod| self.nodes.is_empty() || self.nodes.contains(&pod.node);
        let mut pods: Vec<Pod> = pods.filter(wanted).collect();
        // While a pod gives way to another, the one that runs is the agent.
        pods.sort_by(|a, b| {
            let key = |pod: &Pod| (pod.node.clone(), pod.phase != "Running", pod.name.clone());
            key(a).cmp(&key(b))
        });
        pods.dedup_by(|later, first| later.node == first.node);
        let found = |node: &&String| !pods.iter().any(|pod| pod.node == **node);
        let where_from = format!("in namespace {} with labels {SELECTOR}", self.namespace);
        if let Some(node) = self.nodes.iter().find(found) {
            return Err(Failure::Cluster(format!(
                "there is no agent on node {node}: no pod {where_from}; is --namespace right?"
            )));
        }
        if pods.is_empty() {
            return Err(Failure::Cluster(format!(
                "there are no agents: no pod {where_from}; is --namespace right?"
            )));
        }
        Ok(pods)
    }

    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        if let Some(context) = &self.context {
            command.arg("--context").arg(context);
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        command.arg("--namespace").arg(&self.namespace);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, command: &mut Command) -> Result<Output, Failure> {
        command.output().map_err(|error| {
            Failure::Cluster(format!(
                "{} can't be run: {error}; --kubectl says where it is",
                self.kubectl.display()
            ))
        })
    }
}

impl Pod {
    /// The agent's answer as it comes over its socket.
    pub(crate) fn raw(&self, method: &str, target: &str, body: &str) -> Result<Vec<u8>, Failure> {
        if self.phase != "Running" {
            return Err(Failure::Cluster(format!(
                "the agent's pod {} is {}",
                self.name,
                if self.phase.is_empty() {
                    "unknown"
                } else {
                    &self.phase
                }
            )));
        }
        let mut command = self.cluster.kubectl(&["exec", &self.name]);
        command.args(["--container", CONTAINER, "--quiet", "--"]);
        // As arguments, not on standard input: an audit log has them.
        command.args([PROGRAM, "raw", method, target]);
        if !body.is_empty() {
            command.arg(body);
        }
        let output = self.cluster.run(&mut command)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(Failure::Cluster(complaint(&output))),
        }
    }
}

/// What kubectl, or the program that it ran in the pod, says about its failure.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    match said.is_empty() {
        true => format!("kubectl ended: {}", output.status),
        false => format!("kubectl: {said}"),
    }
}

/// Does `work` with each of them, some at a time, and gives what came of it in their order.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..items.len().min(AT_ONCE) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    let mut done = done
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    done.push((at, result));
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_all_there() {
        let items: Vec<usize> = (0..100).collect();
        let expected: Vec<usize> = items.iter().map(|item| item * 2).collect();
        assert_eq!(each(&items, |item| item * 2), expected);
        assert!(each(&[(); 0], |()| 1).is_empty());
    }
}
