//! The files in the chart are what the types say.

use std::collections::BTreeSet;
use std::path::Path;

use resources::{Kind, yaml};
use serde_json::Value;

#[test]
fn the_charts_files_are_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/margay/crds");
    let mut expected = BTreeSet::new();
    for (file, definition) in crds::all() {
        let text = std::fs::read_to_string(folder.join(&file)).unwrap_or_default();
        let right = crds::yaml(&definition).unwrap();
        assert!(text == right, "{file} is old: cargo xtask crds");
        expected.insert(file);
    }
    let there: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, expected);
}

/// The parser names all the fields that it knows to whoever writes none of them: an oracle that is not the schema's.
#[test]
fn schemas_have_the_fields_that_the_parser_knows() {
    let all = crds::all();
    for (kind, place, path) in [
        (Kind::BgpConfiguration, "{X}", ""),
        (Kind::BgpPeer, "{X}", ""),
        (Kind::BgpPeer, "{maxPrefixes: {X}}", "/maxPrefixes"),
        (Kind::IpPool, "{X}", ""),
        (Kind::BgpFilter, "{X}", ""),
        (Kind::BgpFilter, "{importV4: [{X}]}", "/importV4/[]"),
        (
            Kind::BgpFilter,
            "{exportV6: [{operations: [{X}]}]}",
            "/exportV6/[]/operations/[]",
        ),
    ] {
        let spec = place.replace('X', "qqqqqqqqqqqqqqqqqqqqqqqq: 1");
        let text = format!(
            "apiVersion: margay.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: default}}\nspec: {spec}\n"
        );
        let message = &yaml::parse("x.yaml", &text).problems[0].message;
        let known: BTreeSet<&str> = message.split('`').skip(1).step_by(2).collect();
        let (_, definition) = all
            .iter()
            .find(|(_, definition)| definition["spec"]["names"]["kind"] == kind.name())
            .unwrap();
        let mut schema =
            &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        for step in path.split('/').filter(|step| !step.is_empty()) {
            schema = match step {
                "[]" => &schema["items"],
                field => &schema["properties"][field],
            };
        }
        let Value::Object(properties) = &schema["properties"] else {
            panic!("{kind} {path}: no properties");
        };
        let named: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(named, known, "{kind} {path}");
    }
}
