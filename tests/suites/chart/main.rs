//! The Helm chart and the image: rendered by Helm, built by buildah, and run by containerd as a kubelet would run it.

mod afar;
mod render;
mod run;

use std::process::ExitCode;

use lab::datacentre::Shape;
use tests::{Body, Case};

fn main() -> ExitCode {
    let mesh = Shape {
        tor: None,
        racks: 1,
        nodes: 2,
        pods: 0,
        ..Shape::default()
    };
    let cases = [
        Case::new("image_is_small_static_and_bare", mesh.clone(), run::image),
        Case::new("nodes_run_what_the_chart_says", mesh.clone(), run::nodes).wants("helm"),
        Case::new("margayctl_asks_agents_from_afar", mesh, afar::asked).wants("helm"),
    ];
    let needed = ["buildah", "containerd", "ctr", "runc", "busybox"];
    let bodies = cases.into_iter().map(|case| {
        let case = needed.into_iter().fold(case, Case::with);
        (case.name().to_owned(), case.body())
    });
    let bodies: Vec<(String, Body)> = bodies.collect();
    tests::run(bodies, render::trials(), 2).exit_code()
}
