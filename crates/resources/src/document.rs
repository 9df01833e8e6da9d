//! An object as a document again: what of it is kept, as the API would have it.

use serde::Serialize;
use serde_json::{Value, json};

use crate::service::SERVICE_NAME;
use crate::{EndpointSlice, Object, Service};

impl Object {
    /// The object as a document that [`Index::receive`](crate::Index::receive) makes the same object of. A Secret's has its
    /// values.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = match self {
            Self::BgpConfiguration(object) => tree(object),
            Self::BgpFilter(object) => tree(object),
            Self::BgpPeer(object) => tree(object),
            Self::IpPool(object) => tree(object),
            Self::IpReservation(object) => tree(object),
            Self::Namespace(object) => tree(object),
            Self::Node(object) => tree(object),
            Self::Secret(object) => object.document(),
            Self::Service(object) => service(object),
            Self::EndpointSlice(object) => endpoints(object),
        };
        document["apiVersion"] = self.kind().api_version().into();
        document["kind"] = self.kind().name().into();
        document
    }
}

/// Our types have text for keys, and numbers that JSON has too.
fn tree(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_else(|_| json!({}))
}

fn service(service: &Service) -> Value {
    let policy = |local| if local { "Local" } else { "Cluster" };
    let ingress = service.load_balancer_ips.iter();
    let ingress: Vec<Value> = ingress.map(|ip| json!({"ip": ip})).collect();
    json!({
        "metadata": service.metadata,
        "spec": {
            "type": if ingress.is_empty() { "ClusterIP" } else { "LoadBalancer" },
            "clusterIPs": service.cluster_ips,
            "externalIPs": service.external_ips,
            "externalTrafficPolicy": policy(service.external_local),
            "internalTrafficPolicy": policy(service.internal_local),
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn endpoints(slice: &EndpointSlice) -> Value {
    let nodes = slice.nodes.iter();
    let nodes: Vec<Value> = nodes.map(|node| json!({"nodeName": node})).collect();
    let mut metadata = tree(&slice.metadata);
    metadata["labels"] = json!({SERVICE_NAME: slice.service});
    json!({
        "metadata": metadata,
        "addressType": if slice.ipv4 { "IPv4" } else { "IPv6" },
        "endpoints": nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    /// One of each kind, with what makes them differ.
    const OBJECTS: &str = r#"
apiVersion: margay.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default, labels: {a: b}}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: false, listenPort: 1790, serviceClusterIPs: [{cidr: 10.96.0.0/12}]}
---
apiVersion: margay.dev/v1alpha1
kind: BGPFilter
metadata: {name: none}
spec: {importV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In}, {action: Reject}]}
---
apiVersion: margay.dev/v1alpha1
kind: BGPPeer
metadata: {name: one}
spec: {nodeSelector: rack == 'a', peerIP: 192.0.2.1, asNumber: 64513, filters: [none], password: {secretKeyRef: {name: bgp, key: key}}}
---
apiVersion: margay.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16, blockSize: 26}
---
apiVersion: margay.dev/v1alpha1
kind: IPReservation
metadata: {name: some}
spec: {reservedCIDRs: [10.244.0.0/28]}
---
apiVersion: v1
kind: Namespace
metadata: {name: web, labels: {team: a}}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {rack: a}, annotations: {margay.dev/as-number: "64999"}}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd00:1::/64"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.11}]}
---
apiVersion: v1
kind: Secret
metadata: {name: bgp, namespace: margay-system}
data: {key: ZmluZQ==}
stringData: {other: plain}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: web, annotations: {margay.dev/advertise: "true"}}
spec: {type: LoadBalancer, clusterIPs: [10.96.0.7], externalIPs: [198.51.100.1], externalTrafficPolicy: Local}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.7], nodeName: n1}]
"#;

    #[test]
    fn a_document_is_read_as_the_same_object() {
        let parsed = yaml::parse("objects.yaml", OBJECTS);
        assert_eq!(parsed.problems, []);
        let mut kinds = std::collections::BTreeSet::new();
        for (_, object) in parsed.objects {
            kinds.insert(object.kind());
            let document = object.document();
            let text = document.to_string();
            let again = yaml::parse("again.json", &text);
            assert_eq!(again.problems, [], "{text}");
            let objects: Vec<Object> = again.objects.into_iter().map(|it| it.1).collect();
            assert_eq!(objects, [object], "{text}");
        }
        assert_eq!(kinds.len(), crate::Kind::ALL.len());
    }
}
