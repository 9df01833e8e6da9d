//! The CNI specification 1.1 as 43 points, each with a test of its number. The list is in `docs/cni.md`.

mod add;
mod check;
mod del;
mod delegation;
mod gc;
mod general;
mod status;
mod version;

use std::collections::BTreeMap;

/// The modules above, to be read for the names of their tests.
const SOURCES: [&str; 8] = [
    include_str!("add.rs"),
    include_str!("check.rs"),
    include_str!("del.rs"),
    include_str!("delegation.rs"),
    include_str!("gc.rs"),
    include_str!("general.rs"),
    include_str!("status.rs"),
    include_str!("version.rs"),
];

const POINTS: u32 = 43;

/// `point_07_something` to 7.
fn number(name: &str) -> u32 {
    let digits = name.strip_prefix("point_").and_then(|rest| rest.get(..2));
    digits.and_then(|digits| digits.parse().ok()).unwrap()
}

#[test]
fn the_table_names_the_tests() {
    let page = include_str!("../../../../../docs/cni.md");
    let mut listed = BTreeMap::new();
    for row in page.lines().filter(|line| line.contains("`point_")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, point, what, test, _] = cells[..] else {
            panic!("{row}");
        };
        assert!(!what.is_empty(), "{row}");
        let test = test.trim_matches('`').to_owned();
        assert_eq!(number(&test).to_string(), point, "{row}");
        listed.insert(number(&test), test);
    }
    let mut present = BTreeMap::new();
    for line in SOURCES.iter().flat_map(|source| source.lines()) {
        if let Some(name) = line.strip_prefix("fn point_") {
            let name = format!("point_{}", name.trim_end_matches("() {"));
            assert_eq!(present.insert(number(&name), name), None, "{line}");
        }
    }
    assert_eq!(listed, present);
    assert_eq!(
        listed.into_keys().collect::<Vec<_>>(),
        (1..=POINTS).collect::<Vec<_>>()
    );
}
