//! What is measured, and what must hold.

mod fanout;
mod flap;
mod mesh;
mod table;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::report::{Column, Goal};
use crate::subject::{Subject, Subject as S};
use crate::trial::Trial;
use lab::meter::Usage;

/// A load, and the figures that it gives.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [Column],
    /// Who is measured, and how often at most.
    pub(crate) subjects: &'static [(Subject, usize)],
    /// All at the same time: where they have nothing to do.
    pub(crate) together: bool,
    pub(crate) measure: fn(&Trial) -> Result<Vec<f64>>,
}

/// As often as it is asked for.
const ALWAYS: usize = usize::MAX;

/// The AS of every subject.
const ASN: u32 = 64512;

/// Longer than any subject takes that is worth waiting for.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "full",
        title: "an external peer sends 1,000,000 prefixes in 60,000 attribute sets, another is told them; then the first goes",
        columns: &[
            column("CPU s", 2, &[Goal::Of(0.8, S::Bird)]),
            column("until held, s", 2, &[]),
            column("peak MiB", 1, &[Goal::Of(0.7, S::Bird)]),
            column("octets/route", 1, &[]),
            column("until withdrawn, s", 2, &[Goal::Of(0.8, S::Bird)]),
            column("withdrawal CPU s", 2, &[]),
        ],
        subjects: &[
            (S::Margay, ALWAYS),
            (S::Bird, ALWAYS),
            (S::Frr, ALWAYS),
            (S::Openbgpd, 1),
            (S::Gobgp, 1),
        ],
        together: false,
        measure: table::full,
    },
    Scenario {
        name: "starve",
        title: "two peers send 1,000,000 prefixes each and go, while a third waits 3 s for a KEEPALIVE at most (one is due every second)",
        columns: &[
            column("longest gap learning, s", 2, &[Goal::AtMost(1.2)]),
            column("longest gap losing, s", 2, &[Goal::AtMost(1.2)]),
            column("until withdrawn, s", 2, &[]),
        ],
        subjects: &[(S::Margay, ALWAYS), (S::Bird, ALWAYS), (S::Frr, 1)],
        together: false,
        measure: table::starve,
    },
    Scenario {
        name: "ten",
        title: "ten external peers send the same 100,000 prefixes in 5,000 attribute sets each, an eleventh is told the best",
        columns: &[
            column("CPU s", 2, &[Goal::AtMost(0.85), Goal::Of(1.0, S::Bird)]),
            column("until at rest, s", 2, &[]),
            column(
                "octets/path",
                1,
                &[Goal::Below(95.0), Goal::Of(1.0, S::Bird)],
            ),
            column("peak MiB", 1, &[]),
        ],
        subjects: &[
            (S::Margay, ALWAYS),
            (S::Bird, ALWAYS),
            (S::Frr, ALWAYS),
            (S::Openbgpd, 1),
        ],
        together: false,
        measure: table::ten,
    },
    Scenario {
        name: "fanout",
        title: "a route reflector with 1,000 clients that send 10 routes each: ten million announcements",
        columns: &[
            column("CPU s", 2, &[Goal::AtMost(0.6), Goal::Of(1.0, S::Bird)]),
            column("until held, s", 2, &[]),
            column("peak MiB", 1, &[Goal::AtMost(40.0)]),
        ],
        subjects: &[
            (S::Margay, ALWAYS),
            (S::Bird, ALWAYS),
            (S::Frr, ALWAYS),
            (S::Openbgpd, 1),
        ],
        together: false,
        measure: fanout::measure,
    },
    Scenario {
        name: "flap",
        title: "a route reflector with 500 clients: one withdraws its 10 routes and announces them again, 100 times",
        columns: &[
            column(
                "p50 ms",
                2,
                &[
                    Goal::AtMost(3.5),
                    Goal::Of(0.8, S::Bird),
                    Goal::Of(1.45, S::Copy),
                ],
            ),
            column(
                "p99 ms",
                2,
                &[
                    Goal::AtMost(8.0),
                    Goal::Of(0.97, S::Bird),
                    Goal::Of(1.48, S::Copy),
                ],
            ),
            column(
                "CPU ms/flap",
                2,
                &[
                    Goal::AtMost(7.5),
                    Goal::Of(0.68, S::Bird),
                    Goal::Of(1.27, S::Copy),
                ],
            ),
            column("all full after, ms", 0, &[Goal::AtMost(50.0)]),
        ],
        subjects: &[
            (S::Margay, ALWAYS),
            (S::Bird, ALWAYS),
            (S::Frr, ALWAYS),
            (S::Openbgpd, 1),
            (S::Copy, ALWAYS),
        ],
        together: false,
        measure: flap::measure,
    },
    Scenario {
        name: "mesh",
        title: "a node in a mesh of 500 peers, idle for 30 s",
        columns: &[
            column("resident MiB", 1, &[Goal::AtMost(12.0)]),
            column("CPU %", 3, &[Goal::AtMost(0.1)]),
        ],
        subjects: &[
            (S::Margay, ALWAYS),
            (S::Bird, ALWAYS),
            (S::Frr, ALWAYS),
            (S::Openbgpd, ALWAYS),
        ],
        together: true,
        measure: mesh::idle,
    },
    Scenario {
        name: "storm",
        title: "1,000 peers that all dial at once, a route each (given up after 30 s)",
        columns: &[
            column("all up and full, s", 2, &[Goal::AtMost(2.0)]),
            column("CPU s", 2, &[]),
            column("peak MiB", 1, &[]),
        ],
        subjects: &[
            (S::Margay, ALWAYS),
            (S::Bird, 1),
            (S::Frr, ALWAYS),
            (S::Openbgpd, ALWAYS),
        ],
        together: false,
        measure: mesh::storm,
    },
];

const fn column(name: &'static str, digits: usize, goals: &'static [Goal]) -> Column {
    Column {
        name,
        digits,
        goals,
    }
}

/// CPU seconds between two readings.
fn cpu(before: &Usage, after: &Usage) -> f64 {
    after.cpu.saturating_sub(before.cpu).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "for a person")]
fn mib(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

/// How much more is resident for each of so many.
#[expect(clippy::cast_precision_loss, reason = "for a person")]
fn growth(before: &Usage, after: &Usage, number: u32) -> f64 {
    after.resident.saturating_sub(before.resident) as f64 / f64::from(number)
}

fn seconds(from: Instant, until: Instant) -> f64 {
    until.saturating_duration_since(from).as_secs_f64()
}
