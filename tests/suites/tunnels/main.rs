//! IPIP between L2 segments, with a router between that knows nothing of pods. It needs a kernel with the drivers `ipip` and
//! `ip6_tunnel`; where this one has none, `cargo xtask test` runs it on one that has.
#![expect(clippy::unwrap_used, reason = "tests")]

mod across;
mod lacking;
mod live;
mod neighbours;
mod underlay;

use std::process::ExitCode;

use lab::datacentre::Shape;
use tests::{Case, suite};

fn main() -> ExitCode {
    let shape = Shape {
        tor: None,
        pods: 1,
        ..Shape::default()
    };
    let dual_stack = Shape {
        dual_stack: true,
        ..shape.clone()
    };
    let small = Shape {
        nodes: 1,
        ..shape.clone()
    };
    let case = |name, shape: &Shape, body| {
        Case::new(name, shape.clone(), body)
            .with("ip")
            .with_tunnels(true)
    };
    suite(vec![
        case(
            "pods_reach_each_other_across_segments",
            &dual_stack,
            across::segments,
        )
        .with("ping"),
        case("modes_change_live_without_loss", &shape, live::modes),
        case("strangers_can_not_inject", &small, neighbours::strangers).with("nft"),
        case("a_plain_tunl0_beside_ours", &small, neighbours::plain_tunl0),
        Case::new("a_kernel_without_tunnels_says_so", small, lacking::says_so)
            .with("ip")
            .with_tunnels(false),
    ])
}
