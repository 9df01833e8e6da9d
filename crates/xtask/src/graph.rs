//! The crate graph, checked over `cargo metadata`: what `docs/architecture.md` says about edges is true because of this.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Crates without clock, socket, thread or log: deterministic functions of their inputs.
const PURE: [&str; 7] = [
    "api",
    "bgp",
    "bgp-wire",
    "dataplane",
    "ipam",
    "node",
    "resources",
];

/// What stands for input, output and logs among other people's crates. No pure crate is built with any of them, directly or
/// by way of another, on any platform and with whatever features the workspace asks for.
const IMPURE: [&str; 14] = [
    "async-std",
    "hyper",
    "kube",
    "log",
    "mio",
    "netlink-sys",
    "nix",
    "notify",
    "rtnetlink",
    "rustix",
    "socket2",
    "tokio",
    "tracing",
    "tracing-core",
];

/// What no pure crate may ask for itself, but may be built with: `sha2` needs `libc` on some platforms, to learn what the
/// processor can do.
const IMPURE_DIRECTLY: [&str; 2] = ["libc", "getrandom"];

/// Neighbours that must not know each other.
const STRANGERS: [&str; 4] = ["bgp", "ipam", "dataplane", "resources"];

/// What the shim and the operator's tool have no business with.
const MACHINERY: [&str; 10] = [
    "cluster",
    "kube",
    "k8s-openapi",
    "bgp",
    "bgp-net",
    "bgp-wire",
    "dataplane",
    "netlink",
    "node",
    "agent",
];

fn metadata() -> Metadata {
    MetadataCommand::new().exec().unwrap()
}

/// Names of everything that `package` is built with, itself left out.
fn closure(metadata: &Metadata, package: &str) -> BTreeSet<String> {
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.to_string()))
        .collect();
    let resolve = metadata.resolve.as_ref().unwrap();
    let edges: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let members = metadata.workspace_packages();
    let start = members
        .iter()
        .find(|member| member.name.as_str() == package)
        .unwrap_or_else(|| panic!("there is no crate {package}"));
    let mut seen = BTreeSet::new();
    let mut queue = vec![&start.id];
    while let Some(id) = queue.pop() {
        for dependency in &edges[id].deps {
            let normal = dependency
                .dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal);
            if normal && seen.insert(&dependency.pkg) {
                queue.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(|id| names[id].clone()).collect()
}

#[track_caller]
fn none_of(metadata: &Metadata, package: &str, forbidden: &[&str]) {
    let closure = closure(metadata, package);
    for name in forbidden {
        assert!(
            *name == package || !closure.contains(*name),
            "{package} must not depend on {name}"
        );
    }
}

#[test]
fn pure_crates_do_no_input_or_output() {
    let metadata = metadata();
    for package in PURE {
        none_of(&metadata, package, &IMPURE);
    }
    for package in metadata.workspace_packages() {
        let pure = PURE.contains(&package.name.as_str());
        let normal = package
            .dependencies
            .iter()
            .filter(|dependency| pure && dependency.kind == DependencyKind::Normal);
        for dependency in normal {
            assert!(
                !IMPURE_DIRECTLY.contains(&dependency.name.as_str()),
                "{} must not depend on {}",
                package.name,
                dependency.name
            );
        }
    }
    // The shim is synchronous: it starts in about a millisecond.
    none_of(&metadata, "cni", &["tokio", "hyper", "kube"]);
}

/// What makes a simulation replay: no clock but its own, and no randomness but its seed's. Its program looks at the
/// terminal and at its own CPU time, nothing else.
#[test]
fn the_simulation_has_no_runtime_and_no_sockets() {
    let impure = ["log", "mio", "nix", "rand", "socket2", "tokio", "tracing"];
    none_of(&metadata(), "sim", &impure);
}

#[test]
fn strangers_stay_strangers() {
    let metadata = metadata();
    for package in STRANGERS {
        none_of(&metadata, package, &STRANGERS);
    }
}

#[test]
fn shim_and_tool_see_no_machinery() {
    let metadata = metadata();
    for package in ["cni", "ctl"] {
        none_of(&metadata, package, &MACHINERY);
    }
}

#[test]
fn only_netlink_uses_the_netlink_crates() {
    let metadata = metadata();
    let users: Vec<String> = metadata
        .workspace_packages()
        .iter()
        .filter(|package| {
            package.dependencies.iter().any(|dependency| {
                dependency.kind == DependencyKind::Normal
                    && (dependency.name == "rtnetlink" || dependency.name.starts_with("netlink-"))
            })
        })
        .map(|package| package.name.to_string())
        .collect();
    assert_eq!(users, ["netlink"]);
}

/// Its types take longest of all to compile.
#[test]
fn only_cluster_uses_the_kubernetes_crates() {
    let metadata = metadata();
    let users: Vec<String> = metadata
        .workspace_packages()
        .iter()
        .filter(|package| {
            let mut dependencies = package.dependencies.iter();
            dependencies.any(|it| it.name.starts_with("kube") || it.name.starts_with("k8s-"))
        })
        .map(|package| package.name.to_string())
        .collect();
    assert_eq!(users, ["cluster"]);
}

#[test]
fn nothing_that_is_shipped_depends_on_the_lab() {
    let metadata = metadata();
    for package in ["agent", "cni", "ctl"] {
        none_of(&metadata, package, &["lab", "sim", "tests", "xtask"]);
    }
}
