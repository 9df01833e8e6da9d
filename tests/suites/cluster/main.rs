//! A whole cluster: four nodes in two L2 segments behind an FRR and a BIRD, a real API server, the chart as Helm installs it, and on each
//! node its DaemonSet's pod as a kubelet runs it. It is built once, and then lived in.

mod cluster;
mod life;

use std::process::ExitCode;

use lab::datacentre::Shape;
use lab::kubernetes;
use lab::tor::Kind;
use tests::containerd::private_root;
use tests::{Body, Case, cannot_run};

fn main() -> ExitCode {
    let shape = Shape {
        tor: Some(Kind::Frr),
        second_kind: Some(Kind::Bird),
        pods: 2,
        ..Shape::default()
    };
    let case = Case::new("a_cluster_is_built_and_lived_in", shape, life::all).wants("helm");
    let case = ["buildah", "containerd", "ctr", "runc", "busybox", "birdc"]
        .into_iter()
        .fold(case, Case::with);
    let name = case.name().to_owned();
    let body = case.body();
    let body: Body = Box::new(move || match kubernetes::missing() {
        Some(missing) => cannot_run(missing, &["all"]),
        None => {
            // Before any router runs: it hides what is mounted below `/etc`, and FRR's group is.
            private_root().map_err(|error| format!("{error:#}"))?;
            body()
        }
    });
    tests::run(vec![(name, body)], Vec::new(), 1).exit_code()
}
