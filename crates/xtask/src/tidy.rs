//! Conventions that no lint knows.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::root;

/// Lines of code that a source file may have before its tests, comments and empty lines not counted.
const LONGEST: usize = 500;

/// Where `unsafe` may be: the thin modules around calls that no crate wraps.
const UNSAFE: [&str; 4] = [
    "crates/agent/src/sys.rs",
    "crates/bgp-net/src/sys.rs",
    "crates/netlink/src/sys.rs",
    "crates/xtask/src/tidy.rs",
];

/// Crates that forbid it themselves.
const FORBIDS: [&str; 10] = [
    "api",
    "bgp",
    "bgp-wire",
    "cluster",
    "crds",
    "dataplane",
    "ipam",
    "node",
    "resources",
    "sim",
];

/// All source files, relative to the root.
pub(crate) fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("crates"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Every line that `wrong` complains about, with its place.
fn complaints(files: &[PathBuf], wrong: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut all = Vec::new();
    for file in files {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let lines = text.lines().zip(1..);
        let bad = lines.filter(|(line, _)| wrong(file, line));
        all.extend(bad.map(|(line, number)| format!("{}:{number}: {line}", file.display())));
    }
    all
}

#[test]
fn files_are_short() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|file| !file.ends_with("tests.rs") && !file.iter().any(|part| part == "tests"))
        .filter_map(|file| {
            let text = fs::read_to_string(root().join(&file)).unwrap();
            let code = text
                .lines()
                .take_while(|line| *line != "mod tests {")
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with("//"))
                .count();
            (code > LONGEST).then(|| format!("{}: {code}", file.display()))
        })
        .collect();
    assert!(long.is_empty(), "split these: {long:#?}");
}

#[test]
fn unsafe_code_has_its_places() {
    let word = concat!("unsafe", " {");
    let found = complaints(&sources(), |file, line| {
        line.contains(word) && !UNSAFE.contains(&file.to_str().unwrap())
    });
    assert!(found.is_empty(), "{found:#?}");
    for file in UNSAFE {
        assert!(root().join(file).is_file(), "{file} is gone");
    }
    for package in FORBIDS {
        let main = fs::read_to_string(root().join(format!("crates/{package}/src/lib.rs"))).unwrap();
        assert!(main.contains("#![forbid(unsafe_code)]"), "{package}");
    }
}

#[test]
fn nothing_is_left_to_do() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    let found = complaints(&sources(), |_, line| {
        words.iter().any(|word| line.contains(word))
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn comments_stand_on_their_own() {
    // No "see number so-and-so": a reader has the code and the standards, not somebody's list.
    let found = complaints(&sources(), |_, line| {
        let comment = line.trim_start().strip_prefix("//").unwrap_or_default();
        let mut after = comment.split('#').skip(1);
        let word = concat!("iss", "ue #");
        comment.contains(word) || after.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_top_level_is_what_it_is() {
    let expected = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "charts",
        "crates",
        "docs",
        "target",
        "tests",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || expected.contains(&name.as_str()),
            "{name} has no place at the top level"
        );
    }
}
