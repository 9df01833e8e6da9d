//! Random small networks with random faults. A seed that fails says how to see it again; `MARGAY_SIM_SEED` runs that one
//! alone, `MARGAY_SIM_COUNT` more or fewer of them.
#![expect(
    clippy::unwrap_used,
    reason = "a test program: what it can't read ends it"
)]

use std::env;

use sim::check::Violation;
use sim::scenario::{self, Summary};

/// How many seeds of each kind, where nobody asks for another number.
const COUNT: u64 = if cfg!(debug_assertions) { 100 } else { 1000 };

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

fn seeds() -> std::ops::Range<u64> {
    match number("MARGAY_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MARGAY_SIM_COUNT").unwrap_or(COUNT),
    }
}

#[track_caller]
fn all_hold(kind: &str, scenario: impl Fn(u64, bool) -> Result<Summary, (Violation, Vec<String>)>) {
    let failed: Vec<String> = seeds()
        .filter_map(|seed| {
            let (violation, _) = scenario(seed, false).err()?;
            Some(format!(
                "seed {seed}: {violation}\n  again: cargo run -p sim -- --topology {kind} --seed {seed} --log"
            ))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn everything_holds_after_faults() {
    all_hold("faults", scenario::run);
}

#[test]
fn restarts_lose_no_packet() {
    all_hold("restarts", scenario::restarts);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..5 {
        let (first, second) = (scenario::run(seed, false), scenario::run(seed, false));
        assert_eq!(first.unwrap().digest, second.unwrap().digest, "seed {seed}");
    }
    let (one, other) = (scenario::run(1, false), scenario::run(2, false));
    assert_ne!(one.unwrap().digest, other.unwrap().digest);
}
