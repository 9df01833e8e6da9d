//! `CNI_*`: what the runtime asks for (CNI specification 1.1, section 2, "Parameters").

use api::cni::{AttachmentId, Pod, code};

use crate::error::CniError;

/// `CNI_COMMAND` with the parameters that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Add(Container),
    Check(Container),
    Del(AttachmentId),
    Gc,
    Status,
    Version,
}

/// What ADD and CHECK are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: AttachmentId,
    /// `CNI_NETNS`.
    pub(crate) netns: String,
    /// `CNI_NETNS_OVERRIDE`: the namespace may be the plugin's own.
    pub(crate) own_netns: bool,
    /// The pod, where `CNI_ARGS` names one.
    pub(crate) pod: Option<Pod>,
}

impl Command {
    /// Reads the environment through `variable`. `None` when there is no `CNI_COMMAND` at all: a person wonders what
    /// this program is.
    pub(crate) fn read(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, CniError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(command) = variable("CNI_COMMAND") else {
            return Ok(None);
        };
        let required: &[&str] = match command.as_str() {
            "ADD" | "CHECK" => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            "DEL" => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            "GC" | "STATUS" => &["CNI_PATH"],
            "VERSION" => &[],
            _ => return Err(invalid(format_args!("unknown CNI_COMMAND {command:?}"))),
        };
        let missing: Vec<&str> = required
            .iter()
            .copied()
            .filter(|name| variable(name).is_none())
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(invalid(format_args!(
                "{command} needs environment variables that are not set: {missing}"
            )));
        }
        Ok(Some(match command.as_str() {
            "ADD" => Self::Add(Container::read(variable)?),
            "CHECK" => Self::Check(Container::read(variable)?),
            "DEL" => Self::Del(attachment_id(variable)?),
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            _ => Self::Version,
        }))
    }
}

impl Container {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let set = |name| variable(name).is_some_and(|value| matches!(value.as_str(), "1" | "true"));
        Ok(Self {
            netns: variable("CNI_NETNS").unwrap_or_default(),
            own_netns: set("CNI_NETNS_OVERRIDE"),
            pod: variable("CNI_ARGS").and_then(|arguments| pod(&arguments)),
            id: attachment_id(variable)?,
        })
    }
}

fn attachment_id(variable: impl Fn(&str) -> Option<String>) -> Result<AttachmentId, CniError> {
    let value = |name| variable(name).unwrap_or_default();
    let id = AttachmentId {
        container_id: value("CNI_CONTAINERID"),
        ifname: value("CNI_IFNAME"),
    };
    if !is_identifier(&id.container_id) {
        let wrong = &id.container_id;
        return Err(invalid(format_args!(
            "CNI_CONTAINERID {wrong:?} is no container ID"
        )));
    }
    check_ifname(&id.ifname)?;
    Ok(id)
}

/// Container IDs and network names: `[A-Za-z0-9][A-Za-z0-9_.-]*`.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|rest| rest.is_ascii_alphanumeric() || "_.-".contains(rest))
}

/// What the kernel takes as an interface's name (`dev_valid_name`).
fn check_ifname(ifname: &str) -> Result<(), CniError> {
    let wrong = if ifname.len() > 15 {
        "is longer than 15 octets"
    } else if matches!(ifname, "." | "..") {
        "is a directory's name"
    } else if ifname.contains('%') {
        // The kernel would put a number in its place.
        "holds a percent sign"
    } else if ifname
        .contains(|character: char| matches!(character, '/' | ':') || character.is_whitespace())
    {
        "holds a slash, a colon or a space"
    } else {
        return Ok(());
    };
    Err(invalid(format_args!("CNI_IFNAME {ifname:?} {wrong}")))
}

/// The pod in `CNI_ARGS` (`K1=V1;K2=V2`). What is not understood there is for others.
fn pod(arguments: &str) -> Option<Pod> {
    let value = |wanted| {
        let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .find_map(|(key, value)| (key == wanted && !value.is_empty()).then(|| value.to_owned()))
    };
    Some(Pod {
        namespace: value("K8S_POD_NAMESPACE")?,
        name: value("K8S_POD_NAME")?,
    })
}

fn invalid(message: impl std::fmt::Display) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Command>, CniError> {
        Command::read(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    const ADD: [(&str, &str); 5] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];

    fn add_with(name: &'static str, value: &'static str) -> Result<Option<Command>, CniError> {
        let mut variables: Vec<_> = ADD.into_iter().filter(|(key, _)| *key != name).collect();
        variables.push((name, value));
        read(&variables)
    }

    #[test]
    fn required_variables_are_named_when_missing() {
        let error = read(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", ""),
        ])
        .unwrap_err();
        assert_eq!(error.code, 4);
        assert_eq!(
            error.message,
            "ADD needs environment variables that are not set: CNI_CONTAINERID, CNI_NETNS, CNI_PATH"
        );
        for command in ["DEL", "CHECK", "GC", "STATUS"] {
            let error = read(&[("CNI_COMMAND", command)]).unwrap_err();
            assert_eq!(error.code, 4);
            assert_eq!(
                error.message.contains("CNI_NETNS"),
                command == "CHECK",
                "{}",
                error.message
            );
        }
        assert_eq!(
            read(&[("CNI_COMMAND", "VERSION")]),
            Ok(Some(Command::Version))
        );
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("CNI_COMMAND", "add")]).unwrap_err().code, 4);
    }

    #[test]
    fn names_are_checked() {
        for (name, wrong) in [
            ("CNI_CONTAINERID", "-a"),
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_CONTAINERID", "ä"),
            ("CNI_IFNAME", "sixteen-octets-x"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "a:b"),
            ("CNI_IFNAME", "a b"),
            ("CNI_IFNAME", "eth%d"),
        ] {
            let error = add_with(name, wrong).unwrap_err();
            assert_eq!(error.code, 4);
            assert!(
                error.message.contains(name) && error.message.contains(wrong),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn the_pod_comes_from_the_arguments() {
        let pod = |arguments| match add_with("CNI_ARGS", arguments) {
            Ok(Some(Command::Add(container))) => container.pod.map(|pod| (pod.namespace, pod.name)),
            other => panic!("{other:?}"),
        };
        let arguments =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=1;odd";
        assert_eq!(pod(arguments), Some(("default".into(), "web-0".into())));
        assert_eq!(pod("K8S_POD_NAME=web-0"), None);
        assert_eq!(pod(";;="), None);
    }
}
