use expect_test::{Expect, expect};

use crate::yaml::parse;
use crate::{Index, Kind};

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  labels: {app: web}
  annotations: {margay.dev/communities: "65000:1, no-export", owner: me}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd96::10"]
  externalIPs: [198.51.100.7]
  externalTrafficPolicy: Local
  internalTrafficPolicy: Cluster
  ports: [{port: 80}]
status:
  loadBalancer:
    ingress:
      - {ip: 203.0.113.5, ipMode: VIP, ports: []}
      - {ip: 203.0.113.6, ipMode: Proxy}
      - {hostname: lb.example}
"#;

const SLICE: &str = r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-abc
  namespace: shop
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
endpoints:
  - {addresses: [10.244.1.5], nodeName: n1, conditions: {ready: true, serving: true, terminating: false}}
  - {addresses: [10.244.1.6], nodeName: n1}
  - {addresses: [10.244.2.5], nodeName: n2, conditions: {ready: false}}
  - {addresses: [10.244.3.5], nodeName: n3, conditions: {ready: true, terminating: true}}
  - {addresses: [10.244.4.5], nodeName: n4, conditions: {ready: null, terminating: null}}
  - {addresses: [10.244.9.9]}
ports: []
"#;

fn index(node: Option<&str>, text: &str) -> Index {
    let mut index = node.map_or_else(Index::default, Index::for_node);
    index.replace("a.yaml", parse("a.yaml", text));
    index
}

#[track_caller]
fn problems(text: &str, expected: &Expect) {
    let shown: Vec<String> = index(None, text)
        .problems()
        .iter()
        .map(ToString::to_string)
        .collect();
    expected.assert_eq(&shown.join("\n"));
}

#[test]
fn a_services_addresses_and_policies_are_kept_and_nothing_else() {
    let index = index(None, SERVICE);
    let service = &index.state().services["shop/web"];
    let texts = |list: &[std::net::IpAddr]| -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    };
    assert_eq!(texts(&service.cluster_ips), ["10.96.0.10", "fd96::10"]);
    assert_eq!(texts(&service.external_ips), ["198.51.100.7"]);
    assert_eq!(texts(&service.load_balancer_ips), ["203.0.113.5"]);
    assert!(service.external_local && !service.internal_local);
    assert!(service.metadata.labels.is_empty());
    assert_eq!(service.metadata.annotations.len(), 1);
    assert_eq!(service.communities().count(), 2);
    assert_eq!(service.advertise(), None);
}

#[test]
fn services_without_an_address_are_not_kept() {
    let headless = SERVICE
        .replace("clusterIP: 10.96.0.10", "clusterIP: None")
        .replace(r#"[10.96.0.10, "fd96::10"]"#, "[None]")
        .replace("[198.51.100.7]", "[]")
        .replace("type: LoadBalancer", "type: ClusterIP");
    let index = index(None, &headless);
    assert!(index.state().services.is_empty());
    assert!(index.problems().is_empty());
}

#[test]
fn of_endpoints_those_count_that_are_ready_and_stay() {
    let all = index(None, SLICE);
    let slice = &all.state().endpoint_slices["shop/web-abc"];
    assert_eq!(slice.nodes, ["n1", "n4"]);
    assert_eq!(slice.service_reference(), "shop/web");
    for (node, kept) in [("n1", true), ("n2", false), ("n3", false), ("n4", true)] {
        let own = index(Some(node), SLICE);
        let slice = own.state().endpoint_slices.get("shop/web-abc");
        let nodes = slice.map(|slice| slice.nodes.clone()).unwrap_or_default();
        assert_eq!(nodes, Vec::from_iter(kept.then(|| node.to_owned())));
    }
}

#[test]
fn the_last_endpoint_of_a_node_takes_the_slice_with_it() {
    let mut index = index(Some("n1"), SLICE);
    let object = |text: &str| parse("a.yaml", text).objects.remove(0).1;
    let gone = SLICE.replace("nodeName: n1", "nodeName: n5");
    assert!(index.replace("a.yaml", parse("a.yaml", &gone)));
    assert!(index.state().endpoint_slices.is_empty());
    // The same from Kubernetes, where each object comes by itself.
    assert!(index.apply(object(SLICE)));
    assert!(!index.apply(object(SLICE)));
    assert!(index.apply(object(&gone)));
    assert!(!index.apply(object(&gone)));
    assert!(!index.delete(Kind::EndpointSlice, "shop/web-abc"));
}

#[test]
fn names_are_unique_within_a_namespace() {
    let other = SERVICE.replace("namespace: shop", "namespace: yard");
    let none = SERVICE.replace("  namespace: shop\n", "");
    let both = index(None, &[SERVICE, &other, &none].join("---"));
    let names: Vec<&str> = both.state().services.keys().map(String::as_str).collect();
    assert_eq!(names, ["default/web", "shop/web", "yard/web"]);
    assert!(both.problems().is_empty());
    problems(
        &[SERVICE, SERVICE].join("---"),
        &expect![
            "a.yaml:24: Service/shop/web: defined twice: the one from line 2 counts; remove this one"
        ],
    );
}

#[test]
fn faults_say_what_would_be_right() {
    problems(
        &SERVICE.replace("198.51.100.7", "198.51.100.7/32"),
        &expect![[
            r#"a.yaml:13: Service/shop/web: spec.externalIPs[0]: `198.51.100.7/32` is not an address"#
        ]],
    );
    problems(
        &SERVICE.replace("owner: me", r#"margay.dev/advertise: "yes""#),
        &expect![[
            r#"a.yaml:8: Service/shop/web: metadata.annotations.margay.dev/advertise: `yes` is neither `true` nor `false`, in quotes"#
        ]],
    );
    problems(
        &SERVICE.replace("no-export", "no-exports"),
        &expect![
            "a.yaml:8: Service/shop/web: metadata.annotations.margay.dev/communities: `no-exports`: `no-exports` is not a community: write `65000:1`, `65000:1:2`, `rt:65000:1`, or a well-known name as `no-export`"
        ],
    );
    let configuration = |name: &str, spec: &str| {
        format!(
            "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    };
    problems(
        &configuration("default", "serviceClusterIPs: [{cidr: 0.0.0.0/0}]"),
        &expect![
            "a.yaml:4: BGPConfiguration/default: spec.serviceClusterIPs[0].cidr: a range of all addresses would attract all packets: write your Services' own range"
        ],
    );
    problems(
        &configuration("node.n1", "serviceExternalIPs: [{cidr: 198.51.100.0/24}]"),
        &expect![
            "a.yaml:4: BGPConfiguration/node.n1: spec.serviceExternalIPs: Services are announced by all nodes alike: set this in `default`; a node's label node.kubernetes.io/exclude-from-external-load-balancers takes it out"
        ],
    );
    problems(
        &configuration(
            "default",
            "communities: [{name: \"1:2\", value: \"65000:1\"}, {name: a, value: \"1:2\"}, {name: a, value: \"1:3\"}]",
        ),
        &expect![[r#"
            a.yaml:4: BGPConfiguration/default: spec.communities[0].name: `1:2` is a community itself: write another name
            a.yaml:4: BGPConfiguration/default: spec.communities[2].name: there are two communities named `a`: remove one of them"#]],
    );
    problems(
        &configuration(
            "default",
            "prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: []}]",
        ),
        &expect![
            "a.yaml:4: BGPConfiguration/default: spec.prefixAdvertisements[0].communities: is empty: write at least one community"
        ],
    );
}
