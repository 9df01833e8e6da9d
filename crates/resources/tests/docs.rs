//! The manual says what the parser does: its examples load, and its tables name every field and no other.

use std::collections::BTreeSet;
use std::path::Path;

use resources::node::{AS_NUMBER, DRAIN, ROUTE_REFLECTOR_CLUSTER_ID, ROUTER_ID};
use resources::{Kind, yaml};

/// A name that no field has, and that is like none.
const NOBODY: &str = "qqqqqqqqqqqqqqqqqqqqqqqq";

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of YAML that are objects, each with the line that it starts after.
fn examples(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line != "```yaml" {
            continue;
        }
        let block: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        if block
            .first()
            .is_some_and(|line| line.starts_with("apiVersion:"))
        {
            blocks.push((number + 1, block.join("\n")));
        }
    }
    blocks
}

/// The rows of all tables under a heading of the second level, as cells.
fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    text.lines()
        .skip_while(|line| line.strip_prefix("## ") != Some(heading))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| {
            line.split(" | ")
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The first column of a kind's table; tables of what is inside a field come behind it.
fn documented(text: &str, kind: &str) -> BTreeSet<String> {
    rows(text, kind)
        .iter()
        .take_while(|row| !row[0].starts_with("field of"))
        .filter_map(|row| quoted(&row[0]).next().map(str::to_owned))
        .collect()
}

/// What the parser says of a field that an object's spec has inside `path`.
fn complaint(kind: Kind, path: &str, field: &str) -> String {
    let inside = match path {
        "" => format!("{{{field}: 1}}"),
        "importV4[]" => format!("{{importV4: [{{{field}: 1}}]}}"),
        "exportV4[]" | "importV6[]" | "exportV6[]" => {
            let list = path.trim_end_matches("[]");
            format!("{{{list}: [{{{field}: 1}}]}}")
        }
        "importV4[].operations[]" => format!("{{importV4: [{{operations: [{{{field}: 1}}]}}]}}"),
        "maxPrefixes" | "password" => format!("{{{path}: {{{field}: 1}}}}"),
        "importV4[].prefixLength" => format!("{{importV4: [{{prefixLength: {{{field}: 1}}}}]}}"),
        other => panic!("no such place: {other}"),
    };
    let text = format!(
        "apiVersion: {}\nkind: {kind}\nmetadata: {{name: default}}\nspec: {inside}\n",
        kind.api_version()
    );
    let parsed = yaml::parse("x.yaml", &text);
    let problem = parsed
        .problems
        .iter()
        .find(|problem| problem.field.ends_with(field));
    problem.map_or_else(String::new, |problem| problem.message.clone())
}

/// The fields that the parser knows there: it names them all to whoever writes none of them.
fn known(kind: Kind, path: &str) -> BTreeSet<String> {
    let message = complaint(kind, path, NOBODY);
    assert!(
        message.starts_with("no such field"),
        "{kind} {path}: {message}"
    );
    quoted(&message).map(str::to_owned).collect()
}

#[test]
fn every_example_loads() {
    let mut count = 0;
    for file in ["configuration.md", "operations.md"] {
        for (line, block) in examples(&read(file)) {
            let parsed = yaml::parse(file, &block);
            assert!(
                parsed.problems.is_empty(),
                "{file}:{line}: {:#?}",
                parsed.problems
            );
            assert!(!parsed.objects.is_empty(), "{file}:{line}: nothing in it");
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} examples were found");
}

#[test]
fn the_tables_name_every_field_and_no_other() {
    let text = read("configuration.md");
    for kind in [
        Kind::BgpConfiguration,
        Kind::BgpPeer,
        Kind::IpPool,
        Kind::IpReservation,
    ] {
        assert_eq!(documented(&text, kind.name()), known(kind, ""), "{kind}");
    }
}

#[test]
fn the_table_of_limits_names_every_field() {
    let rows = rows(&read("configuration.md"), "BGPPeer");
    let inside = rows
        .iter()
        .skip_while(|row| !row[0].starts_with("field of"));
    let named: BTreeSet<String> = inside
        .skip(1)
        .filter_map(|row| quoted(&row[0]).next().map(str::to_owned))
        .collect();
    assert_eq!(named, known(Kind::BgpPeer, "maxPrefixes"));
}

#[test]
fn the_table_of_filters_goes_into_their_rules() {
    let text = read("configuration.md");
    let kind = Kind::BgpFilter;
    let mut expected = known(kind, "");
    let rule = known(kind, "importV4[]");
    for other in ["exportV4[]", "importV6[]", "exportV6[]"] {
        assert_eq!(rule, known(kind, other), "{other} differs");
    }
    for field in rule.iter().filter(|field| *field != "prefixLength") {
        expected.insert(format!("importV4[].{field}"));
    }
    for field in known(kind, "importV4[].prefixLength") {
        expected.insert(format!("importV4[].prefixLength.{field}"));
    }
    // Operations and terms of patterns have tables of their own.
    let rows = rows(&text, kind.name());
    let (_, operations) = rows.split_at(rows.iter().position(|row| row[0] == "operation").unwrap());
    let operations = &operations[1..operations.iter().position(|row| row[0] == "term").unwrap()];
    let names: BTreeSet<String> = operations
        .iter()
        .flat_map(|row| quoted(&row[0]).map(str::to_owned))
        .collect();
    assert_eq!(names, known(kind, "importV4[].operations[]"));
    let fields: BTreeSet<String> = rows
        .iter()
        .take_while(|row| row[0] != "operation")
        .filter_map(|row| quoted(&row[0]).next().map(str::to_owned))
        .collect();
    assert_eq!(fields, expected);
}

#[test]
fn the_table_of_nodes_names_what_is_read() {
    let expected = [
        "metadata.name".to_owned(),
        "metadata.labels".to_owned(),
        format!("metadata.annotations[\"{AS_NUMBER}\"]"),
        format!("metadata.annotations[\"{ROUTER_ID}\"]"),
        format!("metadata.annotations[\"{ROUTE_REFLECTOR_CLUSTER_ID}\"]"),
        format!("metadata.annotations[\"{DRAIN}\"]"),
        "spec.podCIDR".to_owned(),
        "spec.podCIDRs".to_owned(),
        "spec.unschedulable".to_owned(),
        "status.conditions[]".to_owned(),
        "status.addresses[]".to_owned(),
    ];
    assert_eq!(
        documented(&read("configuration.md"), "Node"),
        BTreeSet::from(expected)
    );
}

/// Whoever ports a file reads in the manual and in the message that the field is Calico's, and that it has no effect.
#[test]
fn calico_fields_that_are_missing_are_refused_by_name() {
    let rows = rows(&read("configuration.md"), "Coming from Calico");
    for kind in Kind::ALL
        .into_iter()
        .filter(|kind| kind.api_version() == resources::API_VERSION)
    {
        let row = rows
            .iter()
            .find(|row| row[0] == kind.name())
            .unwrap_or_else(|| panic!("{kind} has no row"));
        for (index, part) in row[1].split("; in a rule:").enumerate() {
            let path = if index == 0 { "" } else { "importV4[]" };
            for field in quoted(part) {
                let message = complaint(kind, path, field);
                assert!(
                    message.starts_with("Calico's"),
                    "{kind} {field}: {message:?}"
                );
            }
        }
    }
}
