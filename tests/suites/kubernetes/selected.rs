//! Pools for some nodes and some namespaces, and addresses that nobody gets.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;
use lab::datacentre::Pod;
use lab::probe::Pinger;
use lab::{Namespace, wait};
use serde_json::json;
use tests::{SESSION, same};

use crate::blocks::{LIMIT, everywhere, start};
use crate::cluster::{Cluster, NAMESPACE, SOON};

const POOLS: &str = "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: true}\n---\n\
     apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {name: gpu}\nspec: {cidr: 10.51.0.0/24, blockSize: 28, nodeSelector: hardware == 'gpu'}\n---\n\
     apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {name: rest}\nspec: {cidr: 10.52.0.0/24, blockSize: 28, nodeSelector: '!has(hardware)'}\n";

/// In Kubernetes' namespace `default`.
fn pod(cluster: &Cluster, node: &str, name: &str, wanted: Option<Ipv4Addr>) -> Result<Pod> {
    let node = cluster.node(node)?;
    let namespace = Namespace::create(&format!("{}{name}", cluster.dc.shape.prefix))?;
    let annotation = wanted.map(|address| address.to_string());
    // What the kubelet has from the API, and the runtime hands on.
    let further = json!({
        "capabilities": {"io.kubernetes.cri.pod-annotations": true},
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"margay.dev/ip-addresses": annotation.unwrap_or_default()}},
    });
    Pod::attach_with(
        name.to_owned(),
        namespace,
        &node.namespace,
        &node.cni_socket(),
        &further,
    )
}

fn inside(pod: &Pod, pool: &str) -> Result<()> {
    let pool: Ipv4Net = pool.parse()?;
    match pool.contains(&pod.address) {
        true => Ok(()),
        false => bail!("{} has {}, which is not in {pool}", pod.name, pod.address),
    }
}

pub(crate) fn selected(cluster: &mut Cluster) -> Result<()> {
    start(cluster, POOLS)?;
    let line = ["label", "node", "node-a1", "hardware=gpu"];
    cluster.plane.kubectl(&line)?;
    let mut pods = vec![
        wait::until("the label", SOON, || {
            let pod = pod(cluster, "node-a1", "one", None)?;
            inside(&pod, "10.51.0.0/24").map(|()| pod)
        })?,
        pod(cluster, "node-a2", "two", None)?,
    ];
    inside(&pods[1], "10.52.0.0/24")?;
    everywhere(cluster)?;

    // Namespaces are nobody's business until a pool asks for them.
    let asked = || cluster.plane.requests(NAMESPACE, "margay");
    let namespaces = |asked: &str| asked.ends_with(" namespaces");
    same(
        "namespaces",
        &asked()?.iter().any(|it| namespaces(it)),
        &false,
    )?;
    cluster.plane.apply(
        "apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {name: a-team}\nspec: {cidr: 10.53.0.0/24, blockSize: 28, namespaceSelector: team == 'a'}\n",
    )?;
    wait::until("a watch", SOON, || {
        let asked = asked()?;
        match asked.contains("watch namespaces") {
            true => Ok(()),
            false => bail!("{asked:?}"),
        }
    })?;
    let three = pod(cluster, "node-a2", "three", None)?;
    inside(&three, "10.52.0.0/24")?;
    let label = |value: &str| {
        let line = ["label", "namespace", "default", "--overwrite", value];
        cluster.plane.kubectl(&line).map(drop)
    };
    label("team=a")?;
    let mut number = 0;
    let mut eventually = |pool: &str| {
        wait::until(&format!("an address of {pool}"), SOON, || {
            number += 1;
            let pod = pod(cluster, "node-a2", &format!("more-{number}"), None)?;
            inside(&pod, pool).map(|()| pod)
        })
    };
    pods.push(three);
    pods.push(eventually("10.53.0.0/24")?);
    label("team=b")?;
    pods.push(eventually("10.52.0.0/24")?);
    everywhere(cluster)?;

    reserved(cluster)?;

    // By its annotation a pod names its address, which has to be in a pool for it.
    let address = Ipv4Addr::new(10, 52, 0, 200);
    let four = pod(cluster, "node-a2", "four", Some(address))?;
    same("asked for", &four.address, &address)?;
    let refused = pod(
        cluster,
        "node-a2",
        "five",
        Some(Ipv4Addr::new(10, 51, 0, 200)),
    );
    let error = refused.err().context("another node's pool")?.to_string();
    if !error.contains("10.51.0.200 is not an address") {
        bail!("{error}");
    }
    pods.push(four);
    everywhere(cluster)?;
    let mut pinger = Pinger::open(&pods[0].namespace)?;
    for pod in &pods[1..] {
        pinger.wait_answer(pod.address, SESSION)?;
    }
    Ok(())
}

/// Addresses that are reserved are given to nobody, also not to a pod that asks for one.
fn reserved(cluster: &Cluster) -> Result<()> {
    let reservation = |ranges: &str| {
        format!(
            "apiVersion: margay.dev/v1alpha1\nkind: IPReservation\nmetadata: {{name: router}}\nspec: {{reservedCIDRs: [{ranges}]}}\n"
        )
    };
    let wrong = cluster.plane.apply(&reservation("10.52.0.1"));
    let said = wrong.err().context("no CIDR")?.to_string();
    if !said.contains("spec.reservedCIDRs[0]") {
        bail!("{said}");
    }
    cluster.plane.apply(&reservation("10.52.0.240/28"))?;
    let address = Ipv4Addr::new(10, 52, 0, 245);
    let mut number = 0;
    wait::until("the reservation", LIMIT, || {
        number += 1;
        let asked = pod(cluster, "node-a2", &format!("asks-{number}"), Some(address));
        let error = match asked {
            Ok(pod) => bail!("{} was given", pod.address),
            Err(error) => error.to_string(),
        };
        match error.contains("10.52.0.245 is not an address") {
            true => Ok(()),
            false => bail!("{error}"),
        }
    })?;
    cluster
        .plane
        .kubectl(&["delete", "ipreservation", "router"])?;
    wait::until("its end", LIMIT, || {
        let name = "asks-again";
        pod(cluster, "node-a2", name, Some(address)).map(drop)
    })
}
