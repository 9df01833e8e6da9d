//! Sessions with other people's speakers, and with one that misbehaves.

mod malformed;
mod others;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut cases = others::cases();
    cases.extend(malformed::cases());
    tests::suite(cases)
}
