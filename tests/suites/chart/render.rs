//! What Helm makes of the chart: no namespaces, no API server.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail};
use lab::process;
use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;
use tests::chart::{self, examples, helm, object, render};
use tests::{cannot_run, same};

/// A test and its name.
type Named = (&'static str, fn() -> Result<()>);

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [Named; 8] = [
        ("examples_are_linted", lint),
        ("examples_are_understood", understood),
        ("wrong_values_are_refused", refused),
        ("margayd_has_two_capabilities", capabilities),
        ("margayctl_finds_the_pods", pods),
        ("passwords_are_readable_by_name_alone", passwords),
        ("alerts_and_dashboard_use_what_is_exported", metrics),
        ("definitions_stay_and_follow_the_chart", definitions),
    ];
    let trial = |(name, test): Named| Trial::ignorable_test(name, move || run(test));
    tests.map(trial).into()
}

fn run(test: fn() -> Result<()>) -> Result<Completion, Failed> {
    if process::find("helm").is_none() {
        return cannot_run("helm not built".to_owned(), &[]);
    }
    match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => Err(Failed::from(format!("{error:#}"))),
    }
}

fn lint() -> Result<()> {
    for example in examples()? {
        let example = example.display().to_string();
        let output = helm(&["lint", "--strict"], &["--values", &example])?;
        if !output.status.success() {
            bail!("{example}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
    Ok(())
}

/// Every object of ours that an example makes is read by the agent's own parser without a fault.
fn understood() -> Result<()> {
    let examples = examples()?;
    same("examples", &examples.len(), &5)?;
    for example in examples {
        let name = example.display().to_string();
        let objects = render(&["--values", &name])?;
        let ours = objects
            .iter()
            .filter(|object| object["apiVersion"] == "margay.dev/v1alpha1");
        let mut count = 0;
        for object in ours {
            // A document of JSON is one of YAML.
            let parsed = resources::yaml::parse(&name, &object.to_string());
            if !parsed.problems.is_empty() || parsed.objects.len() != 1 {
                bail!("{name}: {object}: {:?}", parsed.problems);
            }
            count += 1;
        }
        if count < 2 {
            bail!("{name}: only {count} objects");
        }
    }
    Ok(())
}

fn refused() -> Result<()> {
    for (set, word) in [
        ("bpg.peers.a.asNumber=1", "bpg"),
        ("cni.mtu=20", "mtu"),
        ("cni.confName=a/b.conflist", "confName"),
        ("config.source=etcd", "source"),
        ("image.digest=sha256:12", "digest"),
        ("metrics.podMonitor.enabled=true", "metrics.enabled"),
        (
            "config.source=directory,ipPools.a.cidr=10.0.0.0/8",
            "config.directory",
        ),
        ("serviceAccount.create=false", "serviceAccount.name"),
        (
            "terminationGracePeriodSeconds=0",
            "terminationGracePeriodSeconds",
        ),
    ] {
        match render(&["--set", set]) {
            Ok(_) => bail!("{set} is accepted"),
            Err(error) if error.to_string().contains(word) => {}
            Err(error) => bail!("{set}: no {word} in: {error}"),
        }
    }
    Ok(())
}

/// No container is privileged, and only one has any capability.
fn capabilities() -> Result<()> {
    let objects = render(&[])?;
    let mut with_any = Vec::new();
    for name in ["margay", "margay-uninstall"] {
        let spec = &object(&objects, "DaemonSet", name)?["spec"]["template"]["spec"];
        for kind in ["initContainers", "containers"] {
            for container in spec[kind].as_array().into_iter().flatten() {
                let security = &container["securityContext"];
                let tight = security["privileged"] == false
                    && security["allowPrivilegeEscalation"] == false
                    && security["readOnlyRootFilesystem"] == true
                    && security["capabilities"]["drop"][0] == "ALL";
                if !tight {
                    bail!("{container}");
                }
                let added = &security["capabilities"]["add"];
                if !added.is_null() {
                    with_any.push((container["name"].clone(), added.clone()));
                }
            }
        }
        if spec["hostPID"] == true || spec["automountServiceAccountToken"] != false {
            bail!("{name}: {spec}");
        }
    }
    let expected = serde_json::json!(["NET_ADMIN", "NET_BIND_SERVICE"]);
    same(
        "capabilities",
        &with_any,
        &vec![("margayd".into(), expected)],
    )
}

/// `margayctl --node` looks for these labels, this container and this program.
fn pods() -> Result<()> {
    let source = fs::read_to_string(chart::folder("crates/ctl/src/cluster.rs"))?;
    let constant = |name: &str| -> Result<&str> {
        let (_, rest) = source
            .split_once(&format!("const {name}: &str = \""))
            .with_context(|| name.to_owned())?;
        Ok(rest.split('"').next().unwrap_or_default())
    };
    let objects = render(&[])?;
    let template = &object(&objects, "DaemonSet", "margay")?["spec"]["template"];
    for label in constant("SELECTOR")?.split(',') {
        let (name, value) = label.split_once('=').context("a label")?;
        same(
            name,
            &template["metadata"]["labels"][name].as_str(),
            &Some(value),
        )?;
    }
    let containers = template["spec"]["containers"].as_array();
    let names = containers.into_iter().flatten().map(|it| &it["name"]);
    if !names
        .clone()
        .any(|name| name == constant("CONTAINER").unwrap_or_default())
    {
        bail!("no such container among {:?}", names.collect::<Vec<_>>());
    }
    let dockerfile = fs::read_to_string(chart::folder("charts/image/Dockerfile"))?;
    let program = constant("PROGRAM")?.trim_start_matches('/');
    let copied = dockerfile.contains(&format!("/out/{program} "));
    same("the image has the program at its root", &copied, &true)
}

fn passwords() -> Result<()> {
    let none = render(&[])?;
    if object(&none, "Role", "margay-passwords").is_ok() {
        bail!("there is a role without a password");
    }
    let with = render(&[
        "--set",
        "passwordSecrets={by-hand},bgp.peers.a.password.secretKeyRef.name=of-a,bgp.configuration.nodeMeshPassword.secretKeyRef.name=mesh",
    ])?;
    let role = object(&with, "Role", "margay-passwords")?;
    let expected = serde_json::json!(["by-hand", "mesh", "of-a"]);
    same("names", &role["rules"][0]["resourceNames"], &expected)?;
    // Nothing else lets margayd at Secrets.
    for role in with.iter().filter(|it| it["kind"] == "ClusterRole") {
        for rule in role["rules"].as_array().into_iter().flatten() {
            if rule.to_string().contains("secrets") || rule.to_string().contains('*') {
                bail!("{rule}");
            }
        }
    }
    Ok(())
}

/// Words that begin with `margay_`.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("margay_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

fn metrics() -> Result<()> {
    let objects = render(&[
        "--set",
        "metrics.enabled=true,metrics.podMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true",
    ])?;
    let rules = object(&objects, "PrometheusRule", "margay")?;
    let board = object(&objects, "ConfigMap", "margay-dashboard")?;
    let board = board["data"]["margay.json"].as_str().context("a board")?;
    let parsed: Value = serde_json::from_str(board)?;
    if parsed["panels"].as_array().is_none_or(Vec::is_empty) {
        bail!("no panels");
    }
    let exported = names(&fs::read_to_string(chart::folder(
        "crates/agent/src/metrics.rs",
    ))?);
    let used = names(&format!("{rules} {board}"));
    let unknown: Vec<&String> = used.difference(&exported).collect();
    same("metrics that nobody exports", &unknown, &Vec::new())?;
    if used.len() < 8 {
        bail!("only {used:?}");
    }
    object(&objects, "PodMonitor", "margay").map(drop)
}

/// Each file of a definition is there once more as a template that stays, so that an upgrade brings it up to date.
fn definitions() -> Result<()> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(chart::folder("charts/margay/crds"))
        .into_iter()
        .flatten()
    {
        let text = fs::read_to_string(entry?.path())?;
        let definition: Value = serde_saphyr::from_str(&text)?;
        files.insert(definition["metadata"]["name"].to_string());
    }
    let objects = render(&[])?;
    let definitions = objects
        .iter()
        .filter(|object| object["kind"] == "CustomResourceDefinition");
    let mut rendered = BTreeSet::new();
    for definition in definitions {
        let metadata = &definition["metadata"];
        let annotations = &metadata["annotations"];
        if annotations["helm.sh/resource-policy"] != "keep" {
            bail!("{metadata}");
        }
        rendered.insert(metadata["name"].to_string());
    }
    same("definitions", &rendered, &files)?;
    let never = render(&["--set", "crds.upgrade=never"])?;
    let left = never
        .iter()
        .any(|it| it["kind"] == "CustomResourceDefinition");
    same("left with crds.upgrade=never", &left, &false)
}
