//! Services and their endpoints by the API: what a ToR learns of them, and that nobody watches them for nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use lab::wait;
use tests::{SESSION, oracle, same};

use crate::cluster::{Cluster, NAMESPACE, SOON};

const LOAD_BALANCER: &str = "203.0.113.5/32";
const EXTERNAL: &str = "198.51.100.7/32";
const RANGE: &str = "203.0.113.0/24";
const CLUSTER: &str = "10.96.0.0/16";

fn settings(cluster: &Cluster, more: &str) -> Result<()> {
    let tor = &cluster.dc.racks[0].tor;
    let text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeToNodeMeshEnabled: false{more}}}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: tor}}\nspec: {{peerIP: {}, asNumber: {}}}\n",
        tor.address, tor.asn
    );
    cluster.plane.apply(&text)
}

/// What a controller and a cloud would write: endpoints by node, each ready or not, and the balancer's address.
fn slice(cluster: &Cluster, endpoints: &[(&str, bool)]) -> Result<()> {
    let mut text = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}\n\
         addressType: IPv4\nports: [{name: http, port: 80}]\nendpoints:\n"
        .to_owned();
    for (node, ready) in endpoints {
        text += &format!(
            "- {{addresses: [10.244.0.1], nodeName: {node}, conditions: {{ready: {ready}}}}}\n"
        );
    }
    cluster.plane.apply(&text)
}

fn service(cluster: &Cluster, policy: &str) -> Result<()> {
    cluster.plane.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec:\n  type: LoadBalancer\n  \
         clusterIP: 10.96.0.10\n  externalIPs: [198.51.100.7]\n  externalTrafficPolicy: {policy}\n  \
         ports: [{{name: http, port: 80}}]\n"
    ))?;
    let patch =
        "--patch={\"status\": {\"loadBalancer\": {\"ingress\": [{\"ip\": \"203.0.113.5\"}]}}}";
    let line = [
        "patch",
        "service",
        "web",
        "--subresource=status",
        "--type=merge",
        patch,
    ];
    cluster.plane.kubectl(&line).map(drop)
}

/// Waits until the ToR has these prefixes from these nodes: in its speaker's own table, and in its kernel's.
fn expect(cluster: &Cluster, wanted: &[(&str, &[&str])]) -> Result<()> {
    let tor = &cluster.dc.racks[0].tor;
    let speaker = tor.speaker.as_ref().context("a speaker")?;
    for (prefix, nodes) in wanted {
        let address = |name: &&str| Ok(cluster.node(name)?.address.to_string());
        let nodes: BTreeSet<String> = nodes.iter().map(address).collect::<Result<_>>()?;
        wait::until(&format!("{prefix} by {nodes:?}"), SESSION, || {
            let learned = speaker.learned()?;
            let best = learned.get(&prefix.parse()?);
            same("learned", &best.is_some(), &!nodes.is_empty())?;
            let named: BTreeSet<String> =
                best.into_iter().flatten().map(IpAddr::to_string).collect();
            same("best", &named.is_subset(&nodes), &true)?;
            same(
                "gateways",
                &oracle::gateways(&tor.namespace, prefix)?,
                &nodes,
            )
        })?;
    }
    Ok(())
}

/// Nobody announces Services: nobody asks for them, nor where their pods are.
fn not_asked_for(cluster: &Cluster) -> Result<()> {
    let asked = cluster.plane.requests(NAMESPACE, "margay")?;
    same("watched", &asked.contains("watch nodes"), &true)?;
    let needless = ["services", "endpointslices", "namespaces"];
    let found: Vec<&String> = asked
        .iter()
        .filter(|asked| needless.iter().any(|it| asked.ends_with(it)))
        .collect();
    same("asked for", &found, &Vec::new())
}

pub(crate) fn announced(cluster: &mut Cluster) -> Result<()> {
    service(cluster, "Local")?;
    slice(cluster, &[("node-a1", true), ("node-a2", true)])?;
    settings(cluster, "")?;
    cluster.dc.start_agents()?;
    let (a1, a2, both) = (
        &["node-a1"][..],
        &["node-a2"][..],
        &["node-a1", "node-a2"][..],
    );
    expect(cluster, &[("10.244.11.0/24", a1), ("10.244.12.0/24", a2)])?;
    expect(cluster, &[(LOAD_BALANCER, &[]), (EXTERNAL, &[])])?;
    not_asked_for(cluster)?;

    let ranges = format!(
        ", serviceLoadBalancerIPs: [{{cidr: {RANGE}}}], serviceExternalIPs: [{{cidr: {EXTERNAL}}}], serviceClusterIPs: [{{cidr: {CLUSTER}}}]"
    );
    settings(cluster, &ranges)?;
    let local = "10.96.0.10/32";
    expect(
        cluster,
        &[
            (RANGE, both),
            (CLUSTER, both),
            (LOAD_BALANCER, both),
            (EXTERNAL, both),
            (local, both),
        ],
    )?;
    wait::until("the watches", SOON, || {
        let asked = cluster.plane.requests(NAMESPACE, "margay")?;
        for kind in ["services", "endpointslices"] {
            if !asked.contains(&format!("watch {kind}")) {
                bail!("{kind} not in {asked:?}");
            }
        }
        Ok(())
    })?;
    // Endpoints come and go, and the addresses with them.
    slice(cluster, &[("node-a1", true), ("node-a2", false)])?;
    expect(
        cluster,
        &[(LOAD_BALANCER, a1), (EXTERNAL, a1), (RANGE, both)],
    )?;
    slice(cluster, &[("node-a1", false), ("node-a2", true)])?;
    expect(cluster, &[(LOAD_BALANCER, a2), (EXTERNAL, a2), (local, a2)])?;
    cluster
        .plane
        .kubectl(&["delete", "endpointslice", "web-1"])?;
    expect(cluster, &[(LOAD_BALANCER, &[]), (EXTERNAL, &[])])?;
    slice(cluster, &[("node-a1", true)])?;
    expect(cluster, &[(LOAD_BALANCER, a1), (EXTERNAL, a1)])?;
    // Whoever gets the packet may pass it on: the range will do, where there is one.
    service(cluster, "Cluster")?;
    expect(
        cluster,
        &[(LOAD_BALANCER, &[]), (EXTERNAL, both), (local, &[])],
    )?;
    service(cluster, "Local")?;
    expect(cluster, &[(LOAD_BALANCER, a1), (EXTERNAL, a1)])?;

    // An API server that was away changes nothing, and is believed again.
    cluster.plane.apiserver.kill()?;
    expect(cluster, &[(LOAD_BALANCER, a1), (RANGE, both)])?;
    cluster.plane.apiserver.restart()?;
    cluster.plane.wait_ready()?;
    slice(cluster, &[("node-a2", true)])?;
    expect(cluster, &[(LOAD_BALANCER, a2), (EXTERNAL, a2)])?;
    // Off, and on again: what has gone meanwhile is gone.
    settings(cluster, "")?;
    expect(
        cluster,
        &[(LOAD_BALANCER, &[]), (RANGE, &[]), (CLUSTER, &[])],
    )?;
    cluster.plane.kubectl(&["delete", "service", "web"])?;
    settings(cluster, &ranges)?;
    expect(
        cluster,
        &[(RANGE, both), (LOAD_BALANCER, &[]), (EXTERNAL, &[])],
    )?;
    expect(cluster, &[("10.244.11.0/24", a1), ("10.244.12.0/24", a2)])
}
