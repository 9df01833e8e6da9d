//! What the configuration says.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Options;
use crate::version::SUPPORTED;

/// Runtimes that know no list of versions take this one.
const COMMON: &str = "1.0.0";

/// The conflist's text, and what an operator should know about it.
///
/// Without `portmap` a `hostPort` has no effect, so it is chained where the node has it. The whole chain speaks only what
/// every plugin in it does: an old `portmap` costs STATUS and GC.
pub(super) fn compose(options: &Options) -> (String, Option<String>) {
    let portmap = options.bin_dir.join("portmap");
    let (spoken, remark) = if !options.portmap || !portmap.is_file() {
        (None, None)
    } else {
        match versions(&portmap) {
            Ok(spoken) => {
                let old = !spoken.iter().any(|version| version == "1.1.0");
                let remark = format!(
                    "note: {} does not speak CNI 1.1.0: runtimes won't ask for STATUS and GC",
                    portmap.display()
                );
                (Some(spoken), old.then_some(remark))
            }
            Err(error) => {
                let remark = format!(
                    "warning: {}: {error}: left out, so that hostPort has no effect",
                    portmap.display()
                );
                (None, Some(remark))
            }
        }
    };
    (text(options, spoken.as_deref()), remark)
}

/// `portmap` holds the versions that it speaks, where it is to be chained.
fn text(options: &Options, portmap: Option<&[String]>) -> String {
    let spoken =
        |version: &&str| portmap.is_none_or(|spoken| spoken.iter().any(|other| other == version));
    // What is older than 0.4.0 has no CHECK, and no runtime of these days asks for it.
    let versions: Vec<&str> = SUPPORTED.into_iter().skip(4).filter(spoken).collect();
    let common = if versions.contains(&COMMON) {
        COMMON
    } else {
        versions.first().copied().unwrap_or(COMMON)
    };
    let versions: Vec<&str> = versions
        .into_iter()
        .filter(|version| *version >= common)
        .collect();
    let mut margay = json!({
        "type": "margay",
        "capabilities": { "mac": true, "ips": true, "io.kubernetes.cri.pod-annotations": true },
        "socket": options.socket,
    });
    if let Some(mtu) = options.mtu {
        margay["mtu"] = mtu.into();
    }
    if let Some(seconds) = options.agent_timeout {
        margay["agentTimeoutSeconds"] = seconds.into();
    }
    let mut plugins = vec![margay];
    if portmap.is_some() {
        plugins.push(
            json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }),
        );
    }
    let conflist = json!({
        "cniVersion": common,
        "cniVersions": versions,
        "name": options.network,
        "plugins": plugins,
    });
    format!("{conflist:#}\n")
}

/// The versions that a plugin says it speaks.
fn versions(plugin: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(plugin)
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("can't be run: {error}"))?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| "says no versions when it is asked for them".to_owned())?;
    let versions = answer["supportedVersions"].as_array().into_iter().flatten();
    Ok(versions
        .filter_map(|version| Some(version.as_str()?.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflist(portmap: Option<&[&str]>) -> Value {
        let options = Options::parse(["install".to_owned()]).unwrap();
        let spoken: Option<Vec<String>> =
            portmap.map(|spoken| spoken.iter().map(|version| (*version).to_owned()).collect());
        serde_json::from_str(&text(&options, spoken.as_deref())).unwrap()
    }

    #[test]
    fn the_chain_speaks_what_all_of_it_does() {
        let alone = conflist(None);
        assert_eq!(alone["cniVersion"], "1.0.0");
        assert_eq!(alone["cniVersions"], json!(["1.0.0", "1.1.0"]));
        assert_eq!(alone["plugins"].as_array().unwrap().len(), 1);
        let new = conflist(Some(&["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
        assert_eq!(new["cniVersions"], json!(["1.0.0", "1.1.0"]));
        assert_eq!(new["plugins"][1]["type"], "portmap");
        let old = conflist(Some(&["0.3.1", "0.4.0", "1.0.0"]));
        assert_eq!(old["cniVersions"], json!(["1.0.0"]));
        let older = conflist(Some(&["0.3.1", "0.4.0"]));
        assert_eq!(older["cniVersion"], "0.4.0");
        assert_eq!(older["cniVersions"], json!(["0.4.0"]));
    }

    #[test]
    fn a_portmap_that_does_not_run_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("portmap"), "").unwrap();
        let mut options = Options::parse(["install".to_owned()]).unwrap();
        options.bin_dir = folder.path().to_owned();
        let (text, remark) = compose(&options);
        assert!(!text.contains("portmap"), "{text}");
        assert!(remark.unwrap().contains("portmap: can't be run"));
        options.portmap = false;
        assert_eq!(compose(&options).1, None);
    }
}
