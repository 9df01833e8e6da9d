//! Agents that a real API server tells what to do.

mod agents;
mod blocks;
mod cluster;
mod definitions;
mod harness;
mod outage;
mod race;
mod release;
mod selected;
mod services;

use std::process::ExitCode;

use anyhow::Result;
use lab::datacentre::Shape;
use lab::kubernetes;
use lab::tor::Kind;
use libtest_mimic::Completion;
use tests::{Body, cannot_run, run};

use cluster::Cluster;

/// The machine has few cores, and a control plane takes two for a while.
const THREADS: usize = 2;

/// A test: it gets a prefix for the names of what it makes.
type Test = fn(&str) -> Result<()>;

const TESTS: [(&str, Test); 15] = [
    ("the_api_server_asks_who_one_is", harness::rbac),
    (
        "objects_are_judged_with_words_that_help",
        definitions::judgement,
    ),
    ("helm_installs_upgrades_and_leaves", release::lifecycle),
    ("agents_follow_the_api", |prefix| {
        Cluster::with(mesh(prefix), agents::follow)
    }),
    ("an_absent_api_server_changes_nothing", |prefix| {
        Cluster::with(mesh(prefix), agents::absence)
    }),
    (
        "an_agent_that_starts_without_the_api_server_knows_what_it_said",
        |prefix| {
            let shape = Shape {
                tor: Some(Kind::best()),
                ..mesh(prefix)
            };
            Cluster::with(shape, outage::start)
        },
    ),
    ("blocks_are_objects", |prefix| {
        Cluster::with(mesh(prefix), blocks::lifecycle)
    }),
    ("an_absent_api_server_gives_no_blocks", |prefix| {
        Cluster::with(mesh(prefix), blocks::absence)
    }),
    ("blocks_are_of_both_families", |prefix| {
        let shape = Shape {
            dual_stack: true,
            ..mesh(prefix)
        };
        Cluster::with(shape, blocks::families)
    }),
    (
        "the_next_block_is_there_before_the_last_address",
        |prefix| Cluster::with(mesh(prefix), blocks::ahead),
    ),
    ("a_node_that_is_gone_gives_its_blocks_back", |prefix| {
        let shape = Shape {
            tor: Some(Kind::best()),
            nodes: 3,
            graceful_restart: false,
            ..mesh(prefix)
        };
        Cluster::with(shape, blocks::gone)
    }),
    ("pools_are_for_nodes_and_namespaces", |prefix| {
        Cluster::with(mesh(prefix), selected::selected)
    }),
    ("services_are_followed_while_they_are_announced", |prefix| {
        let shape = Shape {
            tor: Some(Kind::best()),
            ..mesh(prefix)
        };
        Cluster::with(shape, services::announced)
    }),
    ("agents_race_for_blocks_of_several_sizes", |prefix| {
        let shape = Shape {
            nodes: 5,
            ..mesh(prefix)
        };
        Cluster::with(shape, race::sizes)
    }),
    ("agents_race_for_blocks", |prefix| {
        let shape = Shape {
            nodes: 8,
            ..mesh(prefix)
        };
        Cluster::with(shape, race::race)
    }),
];

/// Two nodes, and sessions between them alone.
fn mesh(prefix: &str) -> Shape {
    Shape {
        prefix: prefix.to_owned(),
        tor: None,
        racks: 1,
        nodes: 2,
        ..Shape::default()
    }
}

fn main() -> ExitCode {
    let bodies = TESTS.into_iter().zip(1..).map(|((name, test), number)| {
        let body = move || match kubernetes::missing() {
            Some(missing) => cannot_run(missing, &["all"]),
            None => match test(&format!("k{number}-")) {
                Ok(()) => Ok(Completion::Completed),
                Err(error) => Err(format!("{error:#}").into()),
            },
        };
        (name.to_owned(), Box::new(body) as Body)
    });
    run(bodies.collect(), Vec::new(), THREADS).exit_code()
}
