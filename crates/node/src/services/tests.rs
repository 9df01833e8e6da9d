use expect_test::{Expect, expect};
use resources::{ClusterState, Index};

use crate::plan;

/// Two nodes with endpoints, one without, one that is excluded.
const NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDRs: [10.244.2.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
---
apiVersion: v1
kind: Node
metadata: {name: n3, labels: {node.kubernetes.io/exclude-from-external-load-balancers: ""}}
spec: {podCIDRs: [10.244.3.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.3}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-4, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.5], nodeName: n1}, {addresses: [10.244.3.5], nodeName: n3}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
endpoints: [{addresses: ["fd44::5"], nodeName: n2}]
---
"#;

fn configuration(spec: &str) -> String {
    format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n---\n"
    )
}

const RANGES: &str = r#"serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: "fd96::/112"}],
  serviceExternalIPs: [{cidr: 198.51.100.0/24}, {cidr: 192.0.2.99/32}],
  serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]"#;

/// A Service `web` with an address of every kind.
fn web(annotations: &str, spec: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: web, annotations: {{{annotations}}}}}
spec:
  {{type: LoadBalancer, clusterIPs: [10.96.0.10, "fd96::10"], externalIPs: [198.51.100.7, 192.0.2.99, 10.9.9.9], {spec}}}
status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.5}}]}}}}
---
"#
    )
}

fn cluster(objects: &str) -> ClusterState {
    let parsed = resources::yaml::parse("a.yaml", &(NODES.to_owned() + objects));
    assert_eq!(parsed.problems, []);
    let mut index = Index::default();
    index.replace("a.yaml", parsed);
    index.state().clone()
}

/// What each node originates beside its pods' ranges, with communities; and problems.
#[track_caller]
fn check(objects: &str, expected: &Expect) {
    let cluster = cluster(objects);
    let mut shown = String::new();
    for node in cluster.nodes.keys() {
        let plan = plan(&cluster, node).unwrap();
        let all = plan.speaker.originated.iter();
        let others = all.filter(|(prefix, _)| !plan.pod_cidrs.contains(prefix));
        let texts: Vec<String> = others
            .map(|(prefix, attributes)| {
                let communities = attributes.communities.iter().map(ToString::to_string);
                let large = attributes.large_communities.iter().map(ToString::to_string);
                [prefix.to_string()]
                    .into_iter()
                    .chain(communities)
                    .chain(large)
                    .collect::<Vec<_>>()
                    .join("+")
            })
            .collect();
        shown += &format!("{node}: {}\n", texts.join(" "));
        for problem in plan.problems.iter().filter(|_| node == "n1") {
            shown += &format!("{:?}: {problem}\n", problem.severity);
        }
    }
    expected.assert_eq(&shown);
}

#[test]
fn nothing_is_announced_unless_it_is_configured() {
    check(
        &web("", "externalTrafficPolicy: Local"),
        &expect![[r#"
        n1: 
        n2: 
        n3: 
    "#]],
    );
}

#[test]
fn ranges_come_from_every_node_and_single_addresses_with_their_service() {
    check(
        &configuration(RANGES),
        &expect![[r#"
        n1: 10.96.0.0/12 198.51.100.0/24 203.0.113.0/24 fd96::/112
        n2: 10.96.0.0/12 198.51.100.0/24 203.0.113.0/24 fd96::/112
        n3: 
    "#]],
    );
    check(
        &(configuration(RANGES) + &web("", "externalTrafficPolicy: Cluster")),
        &expect![[r#"
            n1: 10.96.0.0/12 192.0.2.99/32 198.51.100.0/24 203.0.113.0/24 fd96::/112
            n2: 10.96.0.0/12 192.0.2.99/32 198.51.100.0/24 203.0.113.0/24 fd96::/112
            n3: 
        "#]],
    );
}

#[test]
fn local_addresses_come_from_nodes_with_endpoints_of_their_family() {
    check(
        &(configuration(RANGES) + &web("", "externalTrafficPolicy: Local")),
        &expect![[r#"
            n1: 10.96.0.0/12 10.96.0.10/32 192.0.2.99/32 198.51.100.0/24 198.51.100.7/32 203.0.113.0/24 203.0.113.5/32 fd96::/112
            n2: 10.96.0.0/12 198.51.100.0/24 203.0.113.0/24 fd96::/112 fd96::10/128
            n3: 
        "#]],
    );
    // The internal policy is about ClusterIPs alone.
    check(
        &(configuration(RANGES) + &web("", "internalTrafficPolicy: Local")),
        &expect![[r#"
            n1: 10.96.0.0/12 10.96.0.10/32 192.0.2.99/32 198.51.100.0/24 203.0.113.0/24 fd96::/112
            n2: 10.96.0.0/12 192.0.2.99/32 198.51.100.0/24 203.0.113.0/24 fd96::/112 fd96::10/128
            n3: 
        "#]],
    );
}

#[test]
fn without_aggregation_load_balancers_have_single_addresses() {
    let spec = format!("{RANGES}, serviceLoadBalancerAggregation: Disabled");
    check(
        &(configuration(&spec) + &web("", "externalTrafficPolicy: Cluster")),
        &expect![[r#"
            n1: 10.96.0.0/12 192.0.2.99/32 198.51.100.0/24 203.0.113.5/32 fd96::/112
            n2: 10.96.0.0/12 192.0.2.99/32 198.51.100.0/24 203.0.113.5/32 fd96::/112
            n3: 
        "#]],
    );
}

#[test]
fn a_service_opts_out_or_in_and_has_communities() {
    let local = "externalTrafficPolicy: Local";
    check(
        &(configuration(RANGES) + &web(r#"margay.dev/advertise: "false""#, local)),
        &expect![[r#"
            n1: 10.96.0.0/12 198.51.100.0/24 203.0.113.0/24 fd96::/112
            n2: 10.96.0.0/12 198.51.100.0/24 203.0.113.0/24 fd96::/112
            n3: 
        "#]],
    );
    check(
        &(configuration(RANGES)
            + &web(
                r#"margay.dev/advertise: "true", margay.dev/communities: "65000:7,65000:1:2""#,
                "externalTrafficPolicy: Cluster",
            )),
        &expect![[r#"
            n1: 10.96.0.0/12 10.96.0.10/32+65000:7+65000:1:2 192.0.2.99/32+65000:7+65000:1:2 198.51.100.0/24 198.51.100.7/32+65000:7+65000:1:2 203.0.113.0/24 203.0.113.5/32+65000:7+65000:1:2 fd96::/112 fd96::10/128+65000:7+65000:1:2
            n2: 10.96.0.0/12 10.96.0.10/32+65000:7+65000:1:2 192.0.2.99/32+65000:7+65000:1:2 198.51.100.0/24 198.51.100.7/32+65000:7+65000:1:2 203.0.113.0/24 203.0.113.5/32+65000:7+65000:1:2 fd96::/112 fd96::10/128+65000:7+65000:1:2
            n3: 
        "#]],
    );
}

#[test]
fn two_services_share_an_address() {
    let other = web(
        r#"margay.dev/communities: "65000:8""#,
        "externalTrafficPolicy: Local",
    )
    .replace("name: web", "name: other");
    let local = web(
        r#"margay.dev/communities: "65000:7""#,
        "externalTrafficPolicy: Local",
    );
    let spec = "serviceExternalIPs: [{cidr: 198.51.100.7/32}]";
    // The other one has no endpoints anywhere.
    check(
        &(configuration(spec) + &local + &other),
        &expect![[r#"
        n1: 198.51.100.7/32+65000:7
        n2: 
        n3: 
    "#]],
    );
    let cluster = other.replace("Local", "Cluster");
    check(
        &(configuration(spec) + &local + &cluster),
        &expect![[r#"
            n1: 198.51.100.7/32+65000:7+65000:8
            n2: 198.51.100.7/32+65000:8
            n3: 
        "#]],
    );
}

#[test]
fn prefix_advertisements_tag_what_is_inside() {
    let spec = format!(
        r#"{RANGES}, communities: [{{name: pods, value: "65000:100"}}, {{name: all, value: "65000:1:2"}}],
        prefixAdvertisements: [{{cidr: 10.96.0.0/12, communities: [all]}}, {{cidr: 203.0.113.0/24, communities: ["65000:3", other]}}]"#
    );
    check(
        &(configuration(&spec) + &web("", "externalTrafficPolicy: Local")),
        &expect![[r#"
            n1: 10.96.0.0/12+65000:1:2 10.96.0.10/32+65000:1:2 192.0.2.99/32 198.51.100.0/24 198.51.100.7/32 203.0.113.0/24+65000:3 203.0.113.5/32+65000:3 fd96::/112
            Error: BGPConfiguration/default: spec.prefixAdvertisements[1].communities[1]: `other` is neither a community, as in 65000:1, nor a name that `spec.communities` has
            n2: 10.96.0.0/12+65000:1:2 198.51.100.0/24 203.0.113.0/24+65000:3 fd96::/112 fd96::10/128
            n3: 
        "#]],
    );
    let own =
        configuration(r#"prefixAdvertisements: [{cidr: 10.96.0.10/32, communities: [pods]}]"#)
            .replace("name: default", "name: node.n1");
    check(
        &(configuration(&spec) + &own + &web("", "externalTrafficPolicy: Local")),
        &expect![[r#"
            n1: 10.96.0.0/12 10.96.0.10/32+65000:100 192.0.2.99/32 198.51.100.0/24 198.51.100.7/32 203.0.113.0/24 203.0.113.5/32 fd96::/112
            n2: 10.96.0.0/12+65000:1:2 198.51.100.0/24 203.0.113.0/24+65000:3 fd96::/112 fd96::10/128
            n3: 
        "#]],
    );
}

#[track_caller]
fn guarded(spec: &str, expected: &Expect) {
    let plan = plan(&cluster(&configuration(spec)), "n1").unwrap();
    let mut shown = format!(
        "{:?} reject {}\n",
        plan.firewall.services, plan.firewall.reject_services
    );
    for problem in &plan.problems {
        shown += &format!("{:?}: {problem}\n", problem.severity);
    }
    expected.assert_eq(&shown);
}

#[test]
fn packets_to_addresses_without_a_service_go_nowhere() {
    guarded(
        RANGES,
        &expect![[r#"
        [10.96.0.0/12, 192.0.2.99/32, 198.51.100.0/24, 203.0.113.0/24, fd96::/112] reject false
    "#]],
    );
    guarded(
        &format!("{RANGES}, serviceLoopPrevention: Reject"),
        &expect![[r#"
            [10.96.0.0/12, 192.0.2.99/32, 198.51.100.0/24, 203.0.113.0/24, fd96::/112] reject true
        "#]],
    );
    guarded(
        &format!("{RANGES}, serviceLoopPrevention: Disabled"),
        &expect![[r#"
            [] reject false
        "#]],
    );
    guarded(
        "serviceExternalIPs: [{cidr: 192.0.2.0/24}, {cidr: 10.0.0.0/8}, {cidr: 203.0.113.0/24}]",
        &expect![[r#"
            [203.0.113.0/24] reject false
            Warning: BGPConfiguration/default: spec.serviceExternalIPs[0].cidr: 192.0.2.0/24 overlaps 192.0.2.1/32, which nodes or pods are in: packets to addresses of it that no Service has are not dropped
            Warning: BGPConfiguration/default: spec.serviceExternalIPs[1].cidr: 10.0.0.0/8 overlaps 10.244.1.0/24, which nodes or pods are in: packets to addresses of it that no Service has are not dropped
        "#]],
    );
}
