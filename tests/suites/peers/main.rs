//! Single sessions with five other speakers: each feature with each of them that has it, both directions, and what their
//! own tools say of it. `docs/interop.md` is the table of what passed.
//!
//! | module | what |
//! | --- | --- |
//! | [`bench`] | two namespaces, our speaker in one of them, another's in the other |
//! | [`matrix`] | the features, and which of them each speaker has |
//! | [`sessions`] | OPENs, timers, connections, ends |
//! | [`routes`] | what UPDATEs carry |
//! | [`families`] | IPv6, and IPv4 with an IPv6 next hop |
//! | [`rules`] | reflection, AS path rules, communities that mean something, policy |
//! | [`guards`] | passwords, dynamic neighbours, routes asked for again |
//! | [`ranges`] | neighbours known by a range, with a password for it |
//! | [`limits`] | prefix limits and what they lead to |
//! | [`restart`] | graceful restart, both roles |
//! | [`both`] | graceful restart with IPv6, and with both families |
//! | [`silence`] | NOTIFICATIONs that must not be, seen on the wire; Hard Resets |
//! | [`third`] | a third speaker, behind us or behind them |
//! | [`document`] | the table as a page |

mod bench;
mod both;
mod document;
mod families;
mod guards;
mod limits;
mod matrix;
mod ranges;
mod restart;
mod routes;
mod rules;
mod sessions;
mod silence;
mod third;

use std::process::ExitCode;

use lab::peer::Kind;
use libtest_mimic::{Completion, Failed, Trial};
use tests::Body;

use bench::Bench;
use matrix::{Cell, FEATURES};

/// A case is two processes that wait for each other's timers most of the time.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut bodies = Vec::new();
    for feature in FEATURES {
        for kind in Kind::ALL {
            if let Cell::Case(case) = feature.cell(kind) {
                let name = format!("{kind}::{}", feature.slug);
                let body = move || run(kind, feature.slug, case);
                bodies.push((name, Box::new(body) as Body));
            }
        }
    }
    let current = Trial::test("document::is_current", || {
        document::check().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let writes = document::is_wanted();
    // While it's being written it can't be right yet.
    let others = if writes { Vec::new() } else { vec![current] };
    let conclusion = tests::run(bodies, others, THREADS);
    // A part of the suite tells nothing of the rest.
    let whole = conclusion.num_ignored == 0 && conclusion.num_filtered_out == 0;
    if writes
        && whole
        && !conclusion.has_failed()
        && let Err(error) = document::write()
    {
        tests::complain(&format!("docs/interop.md: {error:#}"));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn run(kind: Kind, slug: &str, case: matrix::Case) -> Result<Completion, Failed> {
    if let Some(missing) = kind.missing() {
        return tests::cannot_run(missing, &["all"]);
    }
    let attempt = || {
        let mut bench = Bench::new(kind, slug)?;
        case(&mut bench).map_err(|error| error.context(bench.logs()))
    };
    attempt().map_err(|error: anyhow::Error| Failed::from(format!("{error:?}")))?;
    Ok(Completion::Completed)
}
