//! `docs/rfc.md` names a test for what it says of the standards: a name that is gone would make it a claim.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::run::root;
use crate::tidy::sources;

/// RFCs that the document has to speak of.
const RFCS: [&str; 33] = [
    "1997", "2385", "2545", "2918", "3765", "4271", "4360", "4456", "4486", "4724", "4760", "5065",
    "5082", "5492", "5701", "6286", "6608", "6793", "7313", "7606", "7607", "7947", "7999", "8092",
    "8203", "8212", "8326", "8538", "8654", "8950", "9003", "9072", "9687",
];

/// What stands where no test does.
const NONE: &str = "*none*";

fn document() -> String {
    fs::read_to_string(root().join("docs/rfc.md")).unwrap()
}

/// The last cell of each row, with its line number.
fn test_cells(text: &str) -> Vec<(usize, &str)> {
    text.lines()
        .zip(1..)
        .filter_map(|(line, number)| {
            let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
            let [_, _, tests, ""] = cells[..] else {
                panic!("line {number}: not three cells");
            };
            let is_head = tests == "Test" || tests.starts_with("---");
            (!is_head).then_some((number, tests))
        })
        .collect()
}

/// A file as a test's name has it: `session` for `session.rs`, `session/tests.rs` and `session/mod.rs`.
fn module(file: &Path) -> Option<&str> {
    let stem = file.file_stem()?.to_str()?;
    match stem {
        "tests" | "mod" | "main" => file.parent()?.file_name()?.to_str(),
        _ => Some(stem),
    }
}

/// The functions with a `test` attribute.
fn functions(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        } else if let Some((before, after)) = line.split_once("fn ") {
            let name = after.split(['(', '<']).next().unwrap_or_default();
            if std::mem::take(&mut is_test) && ["", "async "].contains(&before) {
                names.push(name);
            }
        }
    }
    names
}

/// Every test there is, as `module::name`. The suites in namespaces name theirs in strings.
fn tests() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for file in sources() {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let Some(module) = module(&file) else {
            continue;
        };
        let mut add = |name: &str| all.insert(format!("{module}::{name}"));
        for name in functions(&text) {
            add(name);
        }
        if file.starts_with("tests/suites") {
            let strings = text.split('"').skip(1).step_by(2);
            for name in strings.filter(|text| is_name(text)) {
                add(name);
            }
        }
    }
    all
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !text.is_empty() && text.chars().all(plain)
}

#[test]
fn every_test_that_is_named_exists() {
    let text = document();
    let tests = tests();
    let mut wrong = Vec::new();
    for (line, cell) in test_cells(&text) {
        if cell == NONE {
            continue;
        }
        let names: Vec<&str> = cell.split_whitespace().collect();
        assert!(
            !names.is_empty(),
            "line {line}: say {NONE} where there is no test"
        );
        for name in names {
            let bare = name
                .strip_prefix('`')
                .and_then(|name| name.strip_suffix('`'));
            if !bare.is_some_and(|name| tests.contains(name)) {
                wrong.push(format!("line {line}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "no such tests: {wrong:#?}");
}

#[test]
fn every_rfc_of_the_speaker_is_there() {
    let text = document();
    let missing: Vec<_> = RFCS
        .into_iter()
        .filter(|number| !text.contains(number))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
