//! Large topologies, from power-up to rest: as large as they are to be in an optimised build, smaller ones elsewhere.

use sim::scale;
use sim::topology::Topology;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SMALL: bool = cfg!(debug_assertions);

#[track_caller]
fn converges(topology: &Topology) {
    match scale::run(topology, 1, 20) {
        Ok(report) => assert_eq!(report.sessions, topology.sessions()),
        Err(violation) => panic!("{topology}: {violation}"),
    }
}

#[test]
fn a_mesh_of_500() {
    converges(&Topology::mesh(if SMALL { 40 } else { 500 }, 1));
}

#[test]
fn a_spine_with_20_racks() {
    let racks = if SMALL { 4 } else { 20 };
    converges(&Topology::racks(racks, 10, 4, 1));
    converges(&Topology::external_racks(racks, 10, 4, 1));
}

#[test]
fn three_reflectors_with_a_cluster_each() {
    let clients = if SMALL { 60 } else { 500 };
    converges(&Topology::reflectors(clients, 3, 1, false));
}

/// Every fifth node has a block: 15 million paths, for 75 million would need more memory than most machines have.
#[test]
fn three_reflectors_and_5000_nodes() {
    let clients = if SMALL { 100 } else { 5_000 };
    let mut topology = Topology::reflectors(clients, 3, 1, true);
    topology.thin_out(5);
    converges(&topology);
}
